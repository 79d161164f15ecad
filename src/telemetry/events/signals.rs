//! What becomes of the signals to work in flight. Limits: whom a signal names is not told, its kind and id are.

use opentelemetry::KeyValue;

use crate::authorize::ids::Digest;
use crate::telemetry::Telemetry;

/// The broker has taken a signal.
#[derive(Debug)]
pub struct SignalPublished {
    /// The kind of what it names.
    pub kind: &'static str,
    /// Its id.
    pub id: Digest,
}

impl SignalPublished {
    /// Logs and counts it.
    pub fn emit(&self, telemetry: &Telemetry) {
        telemetry.inner.instruments.signals_published.add(1, &[KeyValue::new("kind", self.kind)]);
        tracing::debug!(name: "signal_published", kind = self.kind, id = %self.id, "signal published");
    }
}

/// Signals could not be published. They wait and are sent again; no heartbeat goes out before.
#[derive(Debug)]
pub struct SignalsHeldUp<'a> {
    /// How many wait.
    pub waiting: usize,
    /// What the client library said.
    pub problem: &'a str,
}

impl SignalsHeldUp<'_> {
    /// Logs and counts it.
    pub fn emit(&self, telemetry: &Telemetry) {
        telemetry.inner.instruments.signals_held_up.add(1, &[]);
        tracing::warn!(
            name: "signals_held_up",
            waiting = self.waiting,
            problem = self.problem,
            "signals could not be published; workers hear silence until they are"
        );
    }
}
