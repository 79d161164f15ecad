//! A workflow of the registry, for a person or a program. Limits: what its orchestrator wrote is shown without what a
//! terminal would obey; moments are those of its clock.

use std::io;

use serde::Serialize;

use super::change::Changed;
use crate::authorize::ids::Coordinates;
use crate::authorize::record::Record;
use crate::authorize::standing::{Registered, Status};
use crate::cli::output::{moment, plain};
use crate::cli::{Format, Output};
use crate::wire::workflow::WorkflowCodec;

/// What stands under a workflow's id.
#[derive(Debug, Serialize)]
#[serde(untagged)]
pub(super) enum Shown {
    /// A workflow.
    Workflow(Box<Entry>),
    /// Something that a gate cannot read, and reports.
    Unreadable {
        /// The key, as text.
        id: String,
        /// `topic/partition/offset`.
        at: String,
        /// What is wrong with it.
        problem: String,
    },
}

/// A workflow as it stands.
#[derive(Debug, Serialize)]
pub(super) struct Entry {
    id: String,
    #[serde(rename = "type")]
    kind: String,
    status: &'static str,
    step: String,
    owner: String,
    #[serde(skip_serializing_if = "Option::is_none")]
    allowed_steps: Option<Vec<String>>,
    version: i64,
    updated_at: String,
    /// How many writers had to be met for a change.
    #[serde(skip_serializing_if = "Option::is_none")]
    met: Option<usize>,
    at: String,
}

impl Shown {
    /// A workflow that stands there.
    pub(super) fn new(id: &str, registered: &Registered, at: &Coordinates) -> Self {
        let steps = |steps: &[Box<str>]| steps.iter().map(|step| step.to_string()).collect();
        Self::Workflow(Box::new(Entry {
            id: id.to_owned(),
            kind: registered.kind.to_string(),
            status: registered.status.as_str(),
            step: registered.step.to_string(),
            owner: registered.owner.to_string(),
            allowed_steps: registered.allowed_steps.as_deref().map(steps),
            version: registered.version,
            updated_at: moment(registered.updated_at),
            met: None,
            at: at.to_string(),
        }))
    }

    /// A workflow that was just changed.
    pub(super) fn changed(id: &str, changed: &Changed) -> Self {
        let mut shown = Self::new(id, &changed.registered, &changed.at);
        if let Self::Workflow(entry) = &mut shown {
            entry.met = (changed.met > 0).then_some(changed.met);
        }
        shown
    }

    /// What a record of the registry says.
    pub(super) fn read(codec: &WorkflowCodec, record: &Record, value: &[u8]) -> Self {
        let key = record.key.as_deref().unwrap_or_default();
        let id = String::from_utf8_lossy(key).into_owned();
        match codec.decode(key, value) {
            Ok((id, registered)) => Self::new(id, &registered, &record.source),
            Err(problem) => {
                Self::Unreadable { id, at: record.source.to_string(), problem: problem.to_string() }
            }
        }
    }

    /// Whether it is a workflow.
    pub(super) fn is_readable(&self) -> bool {
        matches!(self, Self::Workflow(_))
    }

    /// Whether it is a workflow of that status.
    pub(super) fn is(&self, status: Status) -> bool {
        matches!(self, Self::Workflow(entry) if entry.status == status.as_str())
    }

    /// Whether it is a workflow of one of those types.
    pub(super) fn is_of(&self, kinds: &[String]) -> bool {
        matches!(self, Self::Workflow(entry) if kinds.contains(&entry.kind))
    }

    /// Writes it, a line.
    ///
    /// # Errors
    /// It cannot be written.
    pub(super) fn write(&self, out: &mut Output) -> io::Result<()> {
        if out.format() == Format::Json {
            return out.json_line(self);
        }
        match self {
            Self::Unreadable { id, at, problem } => {
                writeln!(out.data(), "UNREADABLE  {}  {}  {at}", plain(id), plain(problem))
            }
            Self::Workflow(entry) => {
                let Entry { id, kind, status, step, owner, allowed_steps, version, updated_at, met, at } =
                    &**entry;
                let [id, kind, step, owner] = [id, kind, step, owner].map(|text| plain(text));
                let allowed = allowed_steps
                    .as_ref()
                    .map_or_else(String::new, |steps| format!("  allowed {}", plain(&steps.join(", "))));
                let met =
                    met.map_or_else(String::new, |met| format!("  after {met} others wrote it meanwhile"));
                writeln!(
                    out.data(),
                    "{id}  {status}  {kind} at {step}{allowed}  version {version}  by {owner}  {updated_at}  {at}{met}"
                )
            }
        }
    }
}
