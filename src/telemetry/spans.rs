//! One span a decision, a child of the record's own trace. Made after the commit, with the times of the decision, so
//! that an aborted batch leaves none. Limits: the names follow OpenTelemetry's messaging conventions 1.44, which are
//! still in development: they are written here and nowhere else.

use opentelemetry::trace::{
    Span as _, SpanContext, SpanId, SpanKind, TraceContextExt as _, TraceFlags, TraceId, TraceState,
    Tracer as _,
};
use opentelemetry::{Context, KeyValue};
use opentelemetry_sdk::trace::SdkTracer;

use super::events::Decided;
use crate::authorize::traceparent::TraceParent;

/// Makes spans; exists only where they are exported.
#[derive(Debug)]
pub(super) struct Spans {
    pub tracer: SdkTracer,
    pub consumer_group: Option<String>,
}

impl Spans {
    /// Makes and ends the span of one committed decision.
    pub(super) fn decided(&self, decided: &Decided<'_>) {
        let source = decided.source;
        let mut attributes = vec![
            KeyValue::new("messaging.system", "kafka"),
            KeyValue::new("messaging.operation.name", "process"),
            KeyValue::new("messaging.operation.type", "process"),
            KeyValue::new("messaging.destination.name", source.topic.to_string()),
            KeyValue::new("messaging.destination.partition.id", source.partition.to_string()),
            KeyValue::new("messaging.kafka.offset", source.offset.0),
            KeyValue::new("countersign.route", decided.route.to_owned()),
            KeyValue::new("countersign.outcome", decided.outcome),
            KeyValue::new("countersign.decision.id", decided.id.to_string()),
        ];
        if let Some(reason) = decided.denied {
            attributes.push(KeyValue::new("countersign.reason", reason.as_str()));
        }
        if let Some(group) = &self.consumer_group {
            attributes.push(KeyValue::new("messaging.consumer.group.name", group.clone()));
        }
        let parent = match decided.parent {
            Some(parent) => Context::new().with_remote_span_context(remote(parent)),
            None => Context::new(),
        };
        let mut span = self
            .tracer
            .span_builder(format!("process {}", source.topic))
            .with_kind(SpanKind::Consumer)
            .with_start_time(decided.started)
            .with_attributes(attributes)
            .start_with_context(&self.tracer, &parent);
        span.end_with_timestamp(decided.started + decided.took);
    }
}

/// Only the sampled flag is taken over: the others mean nothing here.
fn remote(parent: TraceParent) -> SpanContext {
    SpanContext::new(
        TraceId::from_bytes(parent.trace_id.to_be_bytes()),
        SpanId::from_bytes(parent.span_id.to_be_bytes()),
        TraceFlags::new(parent.flags) & TraceFlags::SAMPLED,
        true,
        TraceState::NONE,
    )
}
