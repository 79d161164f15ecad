//! `run`: a gate as a process. It waits for a broker that is away, reloads keys and policies at SIGHUP and lets stopped
//! routes try again, ends in good order at SIGTERM or SIGINT, and at once at a second one. Limits: what a gate is stands in
//! `gate`.

use std::sync::{Arc, OnceLock};
use std::time::Duration;

use super::gate::{GateFailure, RunningGate};
use super::{ConfigFile, Exit, Format, Output, environment, interrupt};
use crate::config::{Config, Loaded, LogFormat};
use crate::control::Reload;
use crate::stream::breaker::TryAgain;
use crate::stream::gate::GateError;
use crate::telemetry::events::{BrokerAwaited, GateStopped};
use crate::telemetry::{InvalidEndpoint, LogError, OtlpEndpoint, Settings, Telemetry, TelemetryError};

/// How often the process looks whether it should end.
const LOOK: Duration = Duration::from_millis(50);

/// The arguments of `run`.
#[derive(Debug, clap::Args)]
pub struct Run {
    #[command(flatten)]
    file: ConfigFile,
}

/// Why a gate did not run, or stopped running.
#[derive(Debug, thiserror::Error, miette::Diagnostic)]
pub enum RunError {
    /// The gate could not be started.
    #[error("the gate did not start: {0}")]
    Gate(#[from] GateFailure),
    /// The OTLP endpoint is no address.
    #[error("`otlp_endpoint` {0}")]
    Endpoint(#[from] InvalidEndpoint),
    /// Telemetry could not be set up.
    #[error(transparent)]
    Telemetry(#[from] TelemetryError),
    /// Logs could not be set up.
    #[error(transparent)]
    Logs(#[from] LogError),
    /// Signals cannot be taken.
    #[error("signals cannot be taken: {0}")]
    Signals(#[from] std::io::Error),
    /// Lanes ended that nobody had asked to.
    #[error("the gate stopped: {}", .0.iter().map(ToString::to_string).collect::<Vec<_>>().join("; "))]
    Lanes(Vec<GateError>),
}

impl Run {
    /// Runs the gate until it is told to end.
    ///
    /// # Errors
    /// [`RunError`]; a broker that is away is none.
    pub fn run(&self, out: &Output) -> Result<Exit, RunError> {
        let loaded = Loaded::read(&self.file.config, environment());
        out.tell(&loaded.problems);
        let Some(config) = loaded.config else { return Ok(Exit::Failed) };
        let telemetry = telemetry(&config, out.format())?;
        let ended = serve(config, &telemetry, out);
        GateStopped.emit(&telemetry);
        telemetry.shutdown();
        ended
    }
}

/// What the configuration asks for. `--format json` makes the log JSON too.
fn telemetry(config: &Config, format: Format) -> Result<Telemetry, RunError> {
    let mut resource = vec![
        ("countersign.realm", config.realm.to_string()),
        ("countersign.gate", config.gate.id.to_string()),
    ];
    if let Some(instance) = &config.settings.member.instance {
        resource.push(("service.instance.id", instance.clone()));
    }
    let telemetry = Telemetry::start(Settings {
        otlp: config.settings.otlp_endpoint.as_deref().map(OtlpEndpoint::parse).transpose()?,
        metrics_interval: None,
        resource,
        consumer_group: Some(config.settings.member.group.clone()),
    })?;
    let mut log = config.settings.log.clone();
    if format == Format::Json {
        log.format = LogFormat::Json;
    }
    telemetry.install_logs(&log)?;
    Ok(telemetry)
}

fn serve(config: Config, telemetry: &Telemetry, out: &Output) -> Result<Exit, RunError> {
    let asks: Arc<OnceLock<(Reload, TryAgain)>> = Arc::default();
    let on_hangup = Arc::clone(&asks);
    let asked = interrupt::flag_and_hangups(move || {
        // One that comes before the gate has started has nothing to look at again.
        if let Some((reload, try_again)) = on_hangup.get() {
            reload.now();
            try_again.ask();
        }
    })?;
    let started = RunningGate::start(config, telemetry, &|error| {
        BrokerAwaited { problem: &error.to_string() }.emit(telemetry);
        asked.is_set()
    });
    let gate = match started {
        Ok(Some(gate)) => gate,
        Ok(None) => return Ok(Exit::Done),
        Err(GateFailure::Problems(problems)) => {
            out.tell(&problems);
            return Ok(Exit::Failed);
        }
        Err(failure) => return Err(failure.into()),
    };
    // Set once, here.
    let _ = asks.set((gate.reload(), gate.try_again()));
    while !asked.is_set() && !gate.failed() {
        std::thread::sleep(LOOK);
    }
    let errors = gate.stop();
    if errors.is_empty() { Ok(Exit::Done) } else { Err(RunError::Lanes(errors)) }
}
