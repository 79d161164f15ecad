//! What every Kafka client of a gate is told, and how it reports by itself. Limits: what a client does, and what may go wrong with a
//! call, is its owner's matter.

use rdkafka::config::{ClientConfig, RDKafkaLogLevel};
use rdkafka::consumer::ConsumerContext;
use rdkafka::error::KafkaError;

use crate::config::KafkaProperties;

/// A person's properties, over these defaults and those of every client: brokers are looked for again soon, none of them makes a
/// topic, and an idle connection that a broker closes is no news.
pub fn settings(properties: &KafkaProperties, defaults: &[(&str, &str)]) -> ClientConfig {
    let mut config = ClientConfig::new();
    config
        .set("client.id", "countersign")
        .set("log.connection.close", "false")
        .set("reconnect.backoff.ms", "50")
        .set("reconnect.backoff.max.ms", "1000")
        .set("allow.auto.create.topics", "false");
    for (name, value) in defaults {
        config.set(*name, *value);
    }
    for (name, value) in properties.iter() {
        config.set(name, value);
    }
    config
}

/// A client that has nothing to leave word of.
#[derive(Debug, Clone, Copy)]
pub struct Quiet;

impl ConsumerContext for Quiet {}

/// A context whose client reports to the log what it does of its own accord: by the default a connection that is lost is an error, and
/// that is no news of a client that looks for another.
macro_rules! reports_to_the_log {
    ($($context:ty),+) => {$(
        impl rdkafka::ClientContext for $context {
            fn log(&self, level: rdkafka::config::RDKafkaLogLevel, fac: &str, message: &str) {
                $crate::stream::kafka::client::log_line(level, fac, message);
            }
            fn error(&self, error: rdkafka::error::KafkaError, reason: &str) {
                $crate::stream::kafka::client::error_line(&error, reason);
            }
        }
    )+};
}
pub(crate) use reports_to_the_log;

reports_to_the_log!(Quiet);

pub(crate) fn log_line(level: RDKafkaLogLevel, fac: &str, message: &str) {
    use RDKafkaLogLevel as Level;
    match level {
        Level::Emerg | Level::Alert | Level::Critical | Level::Error => {
            tracing::warn!(target: "librdkafka", fac, "{message}");
        }
        Level::Warning | Level::Notice => tracing::info!(target: "librdkafka", fac, "{message}"),
        Level::Info | Level::Debug => tracing::debug!(target: "librdkafka", fac, "{message}"),
    }
}

/// What a client reports of its own accord; where it matters to a call, that call fails too.
pub(crate) fn error_line(error: &KafkaError, reason: &str) {
    tracing::debug!(%error, reason, "kafka client");
}
