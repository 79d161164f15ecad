//! What the gate shows of itself: metrics, spans, log lines and its status. One instrumentation with two readers:
//! Prometheus text for `/metrics`, and OTLP where an endpoint is set. Limits: without an endpoint nothing leaves the
//! process and no span is made; with one, only what [`events`] writes leaves it.

pub mod events;
mod instruments;
mod logs;
mod spans;
mod status;

use std::sync::Arc;
use std::time::Duration;

use opentelemetry::KeyValue;
use opentelemetry::metrics::MeterProvider as _;
use opentelemetry::trace::TracerProvider as _;
use opentelemetry_otlp::{ExporterBuildError, WithExportConfig as _};
use opentelemetry_sdk::Resource;
use opentelemetry_sdk::error::OTelSdkError;
use opentelemetry_sdk::logs::SdkLoggerProvider;
use opentelemetry_sdk::metrics::{Instrument, PeriodicReader, SdkMeterProvider, Stream};
use opentelemetry_sdk::trace::SdkTracerProvider;
use prometheus::TextEncoder;

use instruments::Instruments;
pub use logs::LogError;

pub use crate::config::{LogFormat, LogSettings};
use spans::Spans;
use status::Status;
pub use status::{
    BreakerStatus, Entries, Fact, GateStatus, HeldStatus, LaneState, LaneStatus, PartitionStatus,
    SnapshotKind, SnapshotStatus, TopicPartition, ViewStatus,
};

/// The instrumentation scope of everything the gate emits.
const SCOPE: &str = "countersign";
/// Label sets of one metric. Past it the SDK folds the rest into one, which would hide partitions; all label values
/// come from the configuration and the broker, so that the bound is one of size, not of trust.
const MAX_LABEL_SETS: usize = 20_000;
/// How long the end of the process waits for a collector that does not answer.
const SHUTDOWN_WAIT: Duration = Duration::from_secs(2);

/// Where OTLP over HTTP is sent: the base address, to which `/v1/traces` and the like are added.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct OtlpEndpoint(String);

/// Why an OTLP endpoint was refused.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("OTLP endpoint {0}")]
pub struct InvalidEndpoint(&'static str);

impl OtlpEndpoint {
    /// Reads `http://host[:port][/path]`, or says what is wrong with it.
    pub fn parse(text: &str) -> Result<Self, InvalidEndpoint> {
        let Some(rest) = text.strip_prefix("http://") else {
            return Err(InvalidEndpoint(
                "must begin with `http://`: this build has no TLS for it, send to a collector nearby",
            ));
        };
        let (authority, _) = rest.split_once('/').unwrap_or((rest, ""));
        if authority.is_empty() {
            return Err(InvalidEndpoint("has no host"));
        }
        if authority.contains('@') {
            return Err(InvalidEndpoint("may hold no password: use `OTEL_EXPORTER_OTLP_HEADERS`"));
        }
        if rest.contains(['?', '#']) || rest.chars().any(|c| c.is_whitespace() || c.is_control()) {
            return Err(InvalidEndpoint("may hold no query, fragment or white space"));
        }
        Ok(Self(text.trim_end_matches('/').to_owned()))
    }

    fn of(&self, signal: &str) -> String {
        format!("{}/v1/{signal}", self.0)
    }
}

/// What the telemetry of one gate is to be.
#[derive(Debug, Clone, Default)]
pub struct Settings {
    /// Where spans, metrics and log lines are sent; `None` sends nothing.
    pub otlp: Option<OtlpEndpoint>,
    /// How often metrics are sent; `None` leaves it to `OTEL_METRIC_EXPORT_INTERVAL`, else one minute.
    pub metrics_interval: Option<Duration>,
    /// Names of this gate, attached to all that it emits: its realm, its identifier, its instance.
    pub resource: Vec<(&'static str, String)>,
    /// The consumer group, for spans.
    pub consumer_group: Option<String>,
}

/// Why telemetry could not be started.
#[derive(Debug, thiserror::Error)]
pub enum TelemetryError {
    /// An OTLP exporter cannot be made.
    #[error("cannot export over OTLP: {0}")]
    Otlp(#[from] ExporterBuildError),
    /// The Prometheus reader cannot be made.
    #[error("cannot serve metrics: {0}")]
    Prometheus(#[from] OTelSdkError),
}

/// The metrics could not be written as text.
#[derive(Debug, thiserror::Error)]
#[error("cannot write metrics: {0}")]
pub struct RenderError(#[from] prometheus::Error);

/// The gate's telemetry. Clones are cheap and all the same; events are emitted on it.
#[derive(Debug, Clone)]
pub struct Telemetry {
    inner: Arc<Inner>,
}

#[derive(Debug)]
struct Inner {
    instruments: Instruments,
    spans: Option<Spans>,
    status: Arc<Status>,
    registry: prometheus::Registry,
    meters: SdkMeterProvider,
    traces: Option<SdkTracerProvider>,
    logs: Option<SdkLoggerProvider>,
}

impl Telemetry {
    /// Starts what `settings` ask for.
    ///
    /// # Errors
    /// [`TelemetryError`] where an exporter cannot be made; a collector that is away is no error.
    pub fn start(settings: Settings) -> Result<Self, TelemetryError> {
        let resource = resource(&settings);
        let registry = prometheus::Registry::new();
        // One program, one scope: its name on every series would only cost.
        let scraped = opentelemetry_prometheus::exporter()
            .with_registry(registry.clone())
            .scope_info_enabled(false)
            .build()?;
        let mut meters =
            SdkMeterProvider::builder().with_resource(resource.clone()).with_reader(scraped).with_view(
                |_: &Instrument| Stream::builder().with_cardinality_limit(MAX_LABEL_SETS).build().ok(),
            );
        let mut traces = None;
        let mut logs = None;
        if let Some(endpoint) = &settings.otlp {
            let exporter = opentelemetry_otlp::MetricExporter::builder()
                .with_http()
                .with_endpoint(endpoint.of("metrics"))
                .build()?;
            let mut reader = PeriodicReader::builder(exporter);
            if let Some(interval) = settings.metrics_interval {
                reader = reader.with_interval(interval);
            }
            meters = meters.with_reader(reader.build());
            let exporter = opentelemetry_otlp::SpanExporter::builder()
                .with_http()
                .with_endpoint(endpoint.of("traces"))
                .build()?;
            traces = Some(
                SdkTracerProvider::builder()
                    .with_resource(resource.clone())
                    .with_batch_exporter(exporter)
                    .build(),
            );
            let exporter = opentelemetry_otlp::LogExporter::builder()
                .with_http()
                .with_endpoint(endpoint.of("logs"))
                .build()?;
            logs = Some(
                SdkLoggerProvider::builder().with_resource(resource).with_batch_exporter(exporter).build(),
            );
        }
        let spans = traces.as_ref().map(|provider| Spans {
            tracer: provider.tracer(SCOPE),
            consumer_group: settings.consumer_group.clone(),
        });
        Ok(Self::assemble(meters.build(), registry, spans, traces, logs))
    }

    /// Telemetry that goes nowhere but into the status and the log: for commands that run no gate, and for tests.
    pub fn off() -> Self {
        Self::assemble(SdkMeterProvider::builder().build(), prometheus::Registry::new(), None, None, None)
    }

    /// What the gate is doing right now.
    pub fn status(&self) -> GateStatus {
        self.inner.status.read()
    }

    /// Every metric in Prometheus' text format.
    ///
    /// # Errors
    /// [`RenderError`] where a family cannot be written.
    pub fn render_metrics(&self) -> Result<String, RenderError> {
        Ok(TextEncoder::new().encode_to_string(&self.inner.registry.gather())?)
    }

    /// Sends what is waiting and ends the exporters, waiting at most a few seconds for a collector that is away.
    pub fn shutdown(&self) {
        // Nobody is left to act on a failure here, and the records themselves are committed: it is only noted.
        let mut ends = vec![("metrics", self.inner.meters.shutdown_with_timeout(SHUTDOWN_WAIT))];
        ends.extend(
            self.inner.traces.iter().map(|traces| ("traces", traces.shutdown_with_timeout(SHUTDOWN_WAIT))),
        );
        ends.extend(self.inner.logs.iter().map(|logs| ("logs", logs.shutdown_with_timeout(SHUTDOWN_WAIT))));
        for (signal, end) in ends {
            if let Err(error) = end {
                tracing::warn!(signal, problem = error.to_string(), "telemetry was not sent to the end");
            }
        }
    }

    fn logger_provider(&self) -> Option<&SdkLoggerProvider> {
        self.inner.logs.as_ref()
    }

    fn assemble(
        meters: SdkMeterProvider,
        registry: prometheus::Registry,
        spans: Option<Spans>,
        traces: Option<SdkTracerProvider>,
        logs: Option<SdkLoggerProvider>,
    ) -> Self {
        let status = Arc::new(Status::default());
        let instruments = Instruments::new(&meters.meter(SCOPE), &status);
        Self { inner: Arc::new(Inner { instruments, spans, status, registry, meters, traces, logs }) }
    }
}

/// `OTEL_SERVICE_NAME` and `OTEL_RESOURCE_ATTRIBUTES` are honoured, as every OpenTelemetry program does.
fn resource(settings: &Settings) -> Resource {
    let name = std::env::var("OTEL_SERVICE_NAME").ok().filter(|name| !name.is_empty());
    let given = settings.resource.iter().map(|(key, value)| KeyValue::new(*key, value.clone()));
    Resource::builder()
        .with_service_name(name.unwrap_or_else(|| env!("CARGO_PKG_NAME").to_owned()))
        .with_attribute(KeyValue::new("service.version", env!("CARGO_PKG_VERSION")))
        .with_attributes(given)
        .build()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_endpoint_is_plain_http_without_credentials() {
        assert_eq!(
            OtlpEndpoint::parse("http://127.0.0.1:4318/").unwrap().of("logs"),
            "http://127.0.0.1:4318/v1/logs"
        );
        for bad in [
            "https://c:4318",
            "c:4318",
            "http://",
            "http://u:p@c:4318",
            "http://c/?a",
            "http://c/ x",
            "http:///p",
        ] {
            assert!(OtlpEndpoint::parse(bad).is_err(), "{bad}");
        }
    }
}
