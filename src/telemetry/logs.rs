//! Log lines: to standard error for people or as JSON, and over OTLP where an endpoint is set. Limits: what may stand
//! in a line is the matter of `events`; text from outside is written as a quoted, escaped field.

use std::io::IsTerminal as _;

use opentelemetry_appender_tracing::layer::OpenTelemetryTracingBridge;
use tracing_subscriber::filter::{LevelFilter, filter_fn};
use tracing_subscriber::layer::{Layer, SubscriberExt as _};
use tracing_subscriber::util::SubscriberInitExt as _;
use tracing_subscriber::{EnvFilter, Registry, fmt};

use super::{LogFormat, LogSettings, Telemetry};

/// Why logs cannot be set up.
#[derive(Debug, thiserror::Error)]
pub enum LogError {
    /// The filter does not parse.
    #[error("log filter `{filter}` is not readable: {source}")]
    Filter {
        /// The filter as it was written.
        filter: String,
        /// What is wrong with it.
        source: tracing_subscriber::filter::ParseError,
    },
    /// The process has a subscriber already.
    #[error("logs are set up already")]
    Twice,
}

impl Telemetry {
    /// What takes log lines, for this process or, in a test, for one scope.
    ///
    /// # Errors
    /// [`LogError::Filter`] for a filter that does not parse.
    pub fn subscriber(
        &self,
        settings: &LogSettings,
    ) -> Result<impl tracing::Subscriber + Send + Sync + use<>, LogError> {
        let filter = EnvFilter::builder()
            .with_default_directive(LevelFilter::INFO.into())
            .parse(&settings.filter)
            .map_err(|source| LogError::Filter { filter: settings.filter.clone(), source })?;
        let lines: Box<dyn Layer<Registry> + Send + Sync> = match settings.format {
            LogFormat::Human => {
                let colour = std::io::stderr().is_terminal() && std::env::var_os("NO_COLOR").is_none();
                fmt::layer().with_writer(std::io::stderr).with_ansi(colour).with_target(false).boxed()
            }
            LogFormat::Json => fmt::layer().json().flatten_event(true).with_writer(std::io::stderr).boxed(),
        };
        // The exporter's own lines are not exported: each would cause the next.
        let exported = self
            .logger_provider()
            .map(|logs| OpenTelemetryTracingBridge::new(logs).with_filter(filter_fn(is_ours)));
        Ok(Registry::default().with(lines).with(exported).with(filter))
    }

    /// Takes all log lines of this process from here on, those of the `log` crate included.
    ///
    /// # Errors
    /// [`LogError`] for a bad filter, or where a subscriber was set before.
    pub fn install_logs(&self, settings: &LogSettings) -> Result<(), LogError> {
        self.subscriber(settings)?.try_init().map_err(|_| LogError::Twice)
    }
}

fn is_ours(metadata: &tracing::Metadata<'_>) -> bool {
    metadata.target().starts_with(env!("CARGO_PKG_NAME"))
}
