//! `workflow`: writes and reads the registry of workflows, as an orchestrator without code of its own does, or a person
//! who must end one. Limits: it says how workflows stand and does none of their work; who may write the registry is the
//! topic's own access control.

mod act;
mod change;
mod shown;

use std::io;

use clap::{Args, Subcommand, ValueEnum};

use super::acknowledge::{AcknowledgeError, Wait, Waiting};
use super::cluster::{ClusterError, GateArgs};
use super::topic::{TopicClient, TopicError};
use super::{Exit, Format, Output, clock};
use crate::authorize::standing::Status;
use crate::wire::workflow::{WorkflowCodec, WorkflowCodecError};

use act::Act;
use change::{ChangeError, Changing};
use shown::Shown;

/// Say how workflows stand: start, step, suspend, resume, end, show, list
///
/// Writes the topic that `[control] workflows` names. Ends with 2 where a workflow cannot be changed so, or is not known,
/// and with 3 where it waited and not every gate has acknowledged.
#[derive(Debug, Args)]
pub struct Workflow {
    #[command(flatten)]
    gate: GateArgs,
    #[command(subcommand)]
    command: Command,
}

#[derive(Debug, Subcommand)]
enum Command {
    /// Start a workflow that the registry does not know
    Start {
        /// Its id
        #[arg(value_parser = name)]
        id: String,
        /// Its type
        #[arg(long = "type", value_name = "TYPE", value_parser = name)]
        kind: String,
        /// Who is responsible for it, such as the orchestrator's SPIFFE ID
        #[arg(long, value_parser = name)]
        owner: String,
        /// The step it begins at
        #[arg(long, value_parser = name)]
        step: String,
        #[command(flatten)]
        allowed: Allowed,
        #[command(flatten)]
        wait: Wait,
    },
    /// Go to another step of a running workflow
    Step {
        #[command(flatten)]
        which: Which,
        /// The step it goes to
        #[arg(value_parser = name)]
        step: String,
        #[command(flatten)]
        allowed: Allowed,
    },
    /// Let a running workflow do nothing until it is resumed
    Suspend(Which),
    /// Let a suspended workflow run again
    Resume(Which),
    /// End a workflow: nothing more is forwarded for it
    End {
        #[command(flatten)]
        which: Which,
        /// How it ends
        #[arg(long = "as", value_enum, value_name = "STATUS", default_value_t = End::Completed)]
        end: End,
    },
    /// Show how a workflow stands
    Show {
        /// Its id
        id: String,
    },
    /// List the workflows of the registry
    List {
        /// Only those of this status; may be given many times
        #[arg(long, value_parser = status)]
        status: Vec<Status>,
        /// Only those of this type; may be given many times
        #[arg(long = "type", value_name = "TYPE")]
        kind: Vec<String>,
    },
}

#[derive(Debug, Args)]
struct Which {
    /// The workflow's id
    #[arg(value_parser = name)]
    id: String,
    /// Change it only if its version is this one
    #[arg(long, value_name = "N")]
    expect_version: Option<i64>,
    #[command(flatten)]
    wait: Wait,
}

#[derive(Debug, Args)]
struct Allowed {
    /// A step that records may be of; may be given many times [default: the step it is at, alone]
    #[arg(long = "allow", value_name = "STEP", value_parser = name)]
    steps: Vec<String>,
}

#[derive(Debug, Clone, Copy, ValueEnum)]
enum End {
    /// As it should
    Completed,
    /// By somebody
    Cancelled,
    /// Otherwise
    Failed,
}

/// Why a `workflow` command failed.
#[derive(Debug, thiserror::Error, miette::Diagnostic)]
pub enum WorkflowError {
    /// The cluster is not known.
    #[error(transparent)]
    #[diagnostic(transparent)]
    Cluster(#[from] ClusterError),
    /// The configuration names no registry.
    #[error("the configuration names no topic of workflows")]
    #[diagnostic(help("write `workflows = \"countersign.workflows\"` into `[control]`"))]
    NoTopic,
    /// The topic could not be read or written.
    #[error(transparent)]
    #[diagnostic(transparent)]
    Topic(#[from] TopicError),
    /// It is not known whether every gate has taken it in.
    #[error(transparent)]
    #[diagnostic(transparent)]
    Acknowledge(#[from] AcknowledgeError),
    /// The workflow could not be changed.
    #[error(transparent)]
    #[diagnostic(transparent)]
    Change(#[from] ChangeError),
    /// The schema does not parse: a broken build.
    #[error(transparent)]
    Codec(#[from] WorkflowCodecError),
    /// The machine's clock shows no usable time.
    #[error("the clock of this machine shows no usable time")]
    Clock,
    /// The output could not be written.
    #[error("cannot write: {0}")]
    Output(#[from] io::Error),
}

impl Workflow {
    /// Runs the command: 2 where a workflow cannot be changed so, or is not known, 3 where it is not acknowledged.
    ///
    /// # Errors
    /// What could not be read or written.
    pub fn run(&self, out: &mut Output) -> Result<Exit, WorkflowError> {
        let (config, client) = self.gate.resolve()?;
        let topic = config.settings.control.workflows.as_ref().ok_or(WorkflowError::NoTopic)?;
        let waiting = match self.command.wait() {
            Some(wait) => wait.resolve(&config, &client)?,
            None => None,
        };
        let topic = TopicClient::new(&client, topic);
        let registry = Registry { topic, codec: WorkflowCodec::new()?, waiting, out };
        match &self.command {
            Command::Start { id, kind, owner, step, allowed, wait: _ } => {
                let (kind, owner, step) = (kind.clone(), owner.clone(), step.clone());
                registry.change(id, None, &Act::Start { kind, owner, step, allowed: allowed.steps() })
            }
            Command::Step { which, step, allowed } => {
                which.change(registry, &Act::Step { step: step.clone(), allowed: allowed.steps() })
            }
            Command::Suspend(which) => which.change(registry, &Act::Suspend),
            Command::Resume(which) => which.change(registry, &Act::Resume),
            Command::End { which, end } => which.change(registry, &Act::End(end.status())),
            Command::Show { id } => registry.show(id),
            Command::List { status, kind } => registry.list(|shown| {
                let is_status = status.is_empty() || status.iter().any(|status| shown.is(*status));
                is_status && (kind.is_empty() || shown.is_of(kind))
            }),
        }
    }
}

impl Command {
    /// Whether whoever changes a workflow waits for the gates; those that look only do not.
    fn wait(&self) -> Option<Wait> {
        match self {
            Self::Start { wait, .. } => Some(*wait),
            Self::Step { which, .. }
            | Self::End { which, .. }
            | Self::Suspend(which)
            | Self::Resume(which) => Some(which.wait),
            Self::Show { .. } | Self::List { .. } => None,
        }
    }
}

impl Which {
    fn change(&self, registry: Registry<'_>, act: &Act) -> Result<Exit, WorkflowError> {
        registry.change(&self.id, self.expect_version, act)
    }
}

impl Allowed {
    fn steps(&self) -> Option<Vec<String>> {
        (!self.steps.is_empty()).then(|| self.steps.clone())
    }
}

impl End {
    fn status(self) -> Status {
        match self {
            Self::Completed => Status::Completed,
            Self::Cancelled => Status::Cancelled,
            Self::Failed => Status::Failed,
        }
    }
}

/// The registry as the commands see it.
struct Registry<'r> {
    topic: TopicClient<'r>,
    codec: WorkflowCodec,
    waiting: Option<Waiting>,
    out: &'r mut Output,
}

impl Registry<'_> {
    fn change(self, id: &str, expected: Option<i64>, act: &Act) -> Result<Exit, WorkflowError> {
        let now = clock::now().ok_or(WorkflowError::Clock)?;
        let changing = Changing { log: &self.topic, codec: &self.codec, id, act, expected, now };
        match changing.run() {
            Ok(changed) => {
                Shown::changed(id, &changed).write(self.out)?;
                match self.waiting {
                    Some(waiting) => Ok(waiting.run(&[changed.at], self.out)?),
                    None => Ok(Exit::Done),
                }
            }
            Err(ChangeError::Refused(refusal)) => {
                match self.out.format() {
                    Format::Json => {
                        self.out.json_line(&serde_json::json!({"refused": refusal.to_string()}))?
                    }
                    Format::Human => writeln!(self.out.data(), "refused: {refusal}")?,
                }
                Ok(Exit::No)
            }
            Err(error) => Err(error.into()),
        }
    }

    fn show(self, id: &str) -> Result<Exit, WorkflowError> {
        let view = self.topic.read(|key| key == id.as_bytes())?;
        let Some((record, value)) = view.values().next() else {
            let unknown = act::Refusal::Unknown(id.to_owned());
            match self.out.format() {
                Format::Json => self.out.json_line(&serde_json::json!({"refused": unknown.to_string()}))?,
                Format::Human => writeln!(self.out.data(), "{unknown}")?,
            }
            return Ok(Exit::No);
        };
        let shown = Shown::read(&self.codec, record, value);
        shown.write(self.out)?;
        Ok(if shown.is_readable() { Exit::Done } else { Exit::No })
    }

    fn list(self, wanted: impl Fn(&Shown) -> bool) -> Result<Exit, WorkflowError> {
        let view = self.topic.read(|_| true)?;
        let mut exit = Exit::Done;
        for (record, value) in view.values() {
            let shown = Shown::read(&self.codec, record, value);
            if !shown.is_readable() {
                exit = Exit::No;
            }
            if !shown.is_readable() || wanted(&shown) {
                shown.write(self.out)?;
            }
        }
        Ok(exit)
    }
}

fn status(text: &str) -> Result<Status, String> {
    Status::parse(text).ok_or_else(|| {
        let all = Status::ALL.map(Status::as_str);
        format!("must be one of {}", all.join(", "))
    })
}

/// The contract's rule for the strings of a workflow: not empty here, and no control characters.
fn name(text: &str) -> Result<String, &'static str> {
    if text.is_empty() {
        return Err("must not be empty");
    }
    if text.chars().any(char::is_control) {
        return Err("must hold no control characters");
    }
    Ok(text.to_owned())
}
