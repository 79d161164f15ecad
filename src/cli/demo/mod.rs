//! `demo`: the story of an invoice agent, told by real gates on an embedded broker, or on a real cluster. Limits: the
//! embedded broker (librdkafka's mock) knows no true transactions, so there the gates run at least once, and say so;
//! whatever is told is checked, and the exit code is 2 where something else happened.

mod cast;
mod job;
mod load;
mod observer;
mod post;
mod row;
mod stage;
mod story;
mod table;
mod world;

use std::io::{self, IsTerminal as _, Write as _};

use rdkafka::error::KafkaError;
use serde::Serialize;

use super::files::FileError;
use super::gate::GateFailure;
use super::issue::GenerateError;
use super::keys::KeysError;
use super::{Exit, Format, Output, interrupt};
use crate::authorize::ids::InvalidName;
use crate::authorize::jose::SignError;
use crate::config::Problems;
use crate::producer::{ContextError, SignerError};
use crate::stream::gate::GateError;
use crate::wire::audit::AuditCodecError;
use crate::wire::challenge::ChallengeCodecError;
use crate::wire::workflow::WorkflowCodecError;
use crate::worker::access::{CallerError, ClientError};
use crate::worker::kafka::ReaderError;

use cast::Cast;
use observer::{Deeds, Observer, Totals};
use stage::Stage;
use world::World;

/// Watch signed messages being forwarded, denied and explained
///
/// Starts an embedded broker, a development trust domain and two gates, tells a story of more than forty situations, with
/// approvals, workflows, revocations and long jobs, and ends with 2 if one of them did not end as told. On the embedded
/// broker the gates run at least once.
#[derive(Debug, clap::Args)]
pub struct Demo {
    /// Send so many more messages after the story
    #[arg(long, value_name = "N", default_value_t = 0)]
    messages: u64,
    /// Tell it on a real cluster, exactly once, in topics of its own that are deleted in the end
    #[arg(long, value_name = "ADDRESS")]
    bootstrap: Option<String>,
    /// Keep everything up in the end, until Ctrl-C
    #[arg(long)]
    stay: bool,
    /// Print the totals alone, as JSON (the same as `--format json`)
    #[arg(long)]
    json: bool,
}

/// Why the story could not be told.
#[derive(Debug, thiserror::Error, miette::Diagnostic)]
pub enum DemoError {
    /// The embedded broker, or the cluster, does not do as it is asked.
    #[error("Kafka: {0}")]
    Kafka(#[from] KafkaError),
    /// A topic could not be made on the cluster.
    #[error("the topic `{topic}` could not be made: {why}")]
    Topic {
        /// Which.
        topic: String,
        /// The broker's words.
        why: String,
    },
    /// Keys or tokens could not be made.
    #[error(transparent)]
    Generate(#[from] GenerateError),
    /// Keys could not be written.
    #[error(transparent)]
    #[diagnostic(transparent)]
    Keys(#[from] KeysError),
    /// A file could not be written.
    #[error(transparent)]
    #[diagnostic(transparent)]
    File(#[from] FileError),
    /// A token could not be signed.
    #[error(transparent)]
    Sign(#[from] SignError),
    /// A sender could not be made.
    #[error(transparent)]
    Signer(#[from] SignerError),
    /// A record could not be signed.
    #[error("a record of the story could not be signed: {0}")]
    Context(#[from] ContextError),
    /// A name of the story is not legal.
    #[error("the {0}")]
    Name(#[from] InvalidName),
    /// The configuration of the story is wrong.
    #[error("the configuration of the story cannot be used: {0}")]
    Config(Problems),
    /// A gate did not start.
    #[error("a gate did not start: {0}")]
    Gate(#[from] GateFailure),
    /// A gate was not ready in time.
    #[error("the gate `{gate}` is not ready after {seconds} s: {why}")]
    NotReady {
        /// Which.
        gate: &'static str,
        /// How long it was waited for.
        seconds: u64,
        /// What it says itself.
        why: String,
    },
    /// Gates stopped by themselves.
    #[error("a gate stopped: {}", .0.iter().map(ToString::to_string).collect::<Vec<_>>().join("; "))]
    Stopped(Vec<GateError>),
    /// The audit schema does not parse.
    #[error(transparent)]
    Audits(#[from] AuditCodecError),
    /// The schema of challenges does not parse.
    #[error(transparent)]
    Challenges(#[from] ChallengeCodecError),
    /// The schema of workflows does not parse, or has no place for one.
    #[error(transparent)]
    Workflows(#[from] WorkflowCodecError),
    /// The worker's key and identity token do not fit together.
    #[error(transparent)]
    Caller(#[from] CallerError),
    /// The worker cannot ask.
    #[error(transparent)]
    Client(#[from] ClientError),
    /// The worker cannot listen.
    #[error(transparent)]
    Reader(#[from] ReaderError),
    /// No gate answers access evaluations.
    #[error("no gate answers access evaluations")]
    NoAccess,
    /// The worker waits for something that does not come.
    #[error("{lacking} after {seconds} s")]
    Waiting {
        /// What does not come.
        lacking: &'static str,
        /// How long it was waited for.
        seconds: u64,
    },
    /// The worker's question was not answered.
    #[error("a worker's question has no answer: {0}")]
    NoAnswer(#[from] crate::worker::job::NoAnswer),
    /// Something that must follow has not followed.
    #[error("{lacking} after {seconds} s{}", problem.iter().map(|p| format!("; the reader says: {p}")).collect::<String>())]
    Lacking {
        /// What has not.
        lacking: String,
        /// How long it was waited for.
        seconds: u64,
        /// What the reader of outcomes met.
        problem: Option<String>,
    },
    /// Outcomes are missing, and will not come.
    #[error("after {seconds} s without an outcome, {missing} of {sent} messages still have none")]
    Missing {
        /// How long nothing came.
        seconds: u64,
        /// How many have no outcome.
        missing: u64,
        /// How many were sent.
        sent: u64,
    },
    /// Somebody asked for the end.
    #[error("interrupted")]
    Interrupted,
    /// A fault of the program.
    #[error("a gate's start has panicked")]
    Panicked,
    /// The clock shows no usable time.
    #[error("the clock of this machine shows no usable time")]
    Clock,
    /// A file or the output failed.
    #[error("cannot read or write: {0}")]
    Io(#[from] io::Error),
}

/// The totals, as they are printed.
#[derive(Debug, Serialize)]
struct Counted {
    #[serde(flatten)]
    deeds: Deeds,
    #[serde(flatten)]
    totals: Totals,
}

impl Demo {
    /// Tells the story: 0 if all went as told, 2 if not.
    ///
    /// # Errors
    /// What kept it from being told.
    pub fn run(&self, out: &mut Output) -> Result<Exit, DemoError> {
        let json = self.json || out.format() == Format::Json;
        let stop = interrupt::flag()?;
        let mut cast = Cast::new()?;
        if !json {
            table::opening(out.data(), self.bootstrap.as_deref())?;
        }
        let world = World::start(self.bootstrap.as_deref(), &cast, &stop)?;
        let told = self.tell(&world, &mut cast, out, json, &stop);
        // Whatever came of it, gates end in good order and a cluster keeps nothing of this run.
        let stopped = world.stop();
        let exit = told?;
        stopped.map(|()| exit)
    }

    fn tell(
        &self,
        world: &World,
        cast: &mut Cast,
        out: &mut Output,
        json: bool,
        stop: &interrupt::Flag,
    ) -> Result<Exit, DemoError> {
        let colored = out.is_colored();
        let observer = Observer::start(world)?;
        let mut stage = Stage::new(world, &observer, (!json).then(|| out.data()), colored)?;
        story::tell(&mut stage, cast)?;
        let (mut deeds, mut surprises) = stage.into_parts();
        if self.messages > 0 {
            let shows = !json && io::stderr().is_terminal();
            let transaction = cast.transaction("alice", "invoices.pay")?;
            let of = (&deeds, self.messages);
            let loaded = load::run(world, &observer, cast, of, &transaction, shows, stop)?;
            deeds.sent += loaded.sent;
            surprises.extend(loaded.surprises);
        }
        let totals = observer.settle(&deeds)?;
        surprises.extend(totals.surprises(&deeds));
        if json {
            out.json_line(&Counted { deeds, totals })?;
        } else {
            table::closing(out.data(), &deeds, &totals, &surprises)?;
        }
        for surprise in surprises.iter().filter(|_| json) {
            writeln!(io::stderr(), "not as told: {surprise}")?;
        }
        out.data().flush()?;
        if self.stay {
            cast.leave_files(world.folder())?;
            table::staying(&mut io::stderr(), world)?;
            while !stop.is_set() && !world.failed() {
                std::thread::sleep(std::time::Duration::from_millis(100));
            }
        }
        Ok(if surprises.is_empty() { Exit::Done } else { Exit::No })
    }
}
