//! A workflow as its registry has it (contract, section 5), and the versions of it that open batches still see. Limits:
//! what its orchestrator wrote last is true; nothing here judges whether one status may follow another.

use std::sync::Arc;

use serde::{Deserialize, Serialize};

use super::positions::{At, Positions};
use crate::authorize::ids::UnixMillis;
use crate::authorize::jose::sha256;

/// How a workflow stands.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Serialize, Deserialize)]
#[serde(rename = "WorkflowStatus", rename_all = "lowercase")]
pub enum Status {
    /// Its steps may be done.
    Running,
    /// It may do nothing until it runs again.
    Suspended,
    /// It has ended as it should.
    Completed,
    /// It was ended by somebody.
    Cancelled,
    /// It has ended otherwise.
    Failed,
}

impl Status {
    /// All of them.
    pub const ALL: [Self; 5] =
        [Self::Running, Self::Suspended, Self::Completed, Self::Cancelled, Self::Failed];

    /// The name that the registry and policies have for it.
    pub fn as_str(self) -> &'static str {
        match self {
            Self::Running => "running",
            Self::Suspended => "suspended",
            Self::Completed => "completed",
            Self::Cancelled => "cancelled",
            Self::Failed => "failed",
        }
    }

    /// The status of that exact name.
    pub fn parse(text: &str) -> Option<Self> {
        Self::ALL.into_iter().find(|status| status.as_str() == text)
    }

    /// Whether the workflow is over.
    pub fn has_ended(self) -> bool {
        matches!(self, Self::Completed | Self::Cancelled | Self::Failed)
    }
}

/// A workflow as its orchestrator wrote it into the registry, under the workflow's id.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Registered {
    /// Its type.
    pub kind: Box<str>,
    /// How it stands.
    pub status: Status,
    /// The step it is at.
    pub step: Box<str>,
    /// Who is responsible for it, as the orchestrator names them.
    pub owner: Box<str>,
    /// The steps that records may be of, and no others; `None` allows the step it is at alone.
    pub allowed_steps: Option<Box<[Box<str>]>>,
    /// The orchestrator's own count of its changes: shown in audit records, compared with nothing.
    pub version: i64,
    /// When the orchestrator wrote it.
    pub updated_at: UnixMillis,
}

impl Registered {
    /// Whether records may be of that step.
    pub fn allows(&self, step: &str) -> bool {
        match &self.allowed_steps {
            Some(steps) => steps.iter().any(|allowed| **allowed == *step),
            None => *self.step == *step,
        }
    }
}

/// What the registry knows of a workflow.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Found {
    /// It runs or is suspended.
    Live(Arc<Registered>),
    /// It has ended; no more than this is kept of it.
    Ended(Status),
}

impl Found {
    /// How it stands.
    pub fn status(&self) -> Status {
        match self {
            Self::Live(registered) => registered.status,
            Self::Ended(status) => *status,
        }
    }

    /// The whole of it, as long as it has not ended.
    pub fn live(&self) -> Option<&Registered> {
        match self {
            Self::Live(registered) => Some(registered),
            Self::Ended(_) => None,
        }
    }
}

/// What stands for a workflow in memory: the first 16 bytes of SHA-256 of its id.
pub(super) type WorkflowKey = [u8; 16];

pub(super) fn key_of(id: &str) -> WorkflowKey {
    let mut key = [0; 16];
    key.iter_mut().zip(sha256(&[id.as_bytes()]).0).for_each(|(to, from)| *to = from);
    key
}

/// The newest state of a workflow, with those before it that a batch may still read.
#[derive(Debug)]
pub(super) struct Versions {
    at: At,
    state: State,
    /// Almost always absent, so it takes one word.
    superseded: Option<Box<Superseded>>,
}

/// Newest last.
#[derive(Debug, Default)]
struct Superseded(Vec<(At, State)>);

/// What a version says.
#[derive(Debug, Clone)]
pub(super) enum State {
    Live(Arc<Registered>),
    /// Since when, in whole seconds since 1970, rounded up.
    Ended(Status, u32),
    /// Its orchestrator has forgotten it.
    Gone,
}

impl State {
    pub(super) fn of(registered: Registered) -> Self {
        if registered.status.has_ended() {
            let seconds = registered.updated_at.whole_seconds().saturating_add(1);
            Self::Ended(registered.status, u32::try_from(seconds.max(0)).unwrap_or(u32::MAX))
        } else {
            Self::Live(Arc::new(registered))
        }
    }

    fn found(&self) -> Option<Found> {
        match self {
            Self::Live(registered) => Some(Found::Live(registered.clone())),
            Self::Ended(status, _) => Some(Found::Ended(*status)),
            Self::Gone => None,
        }
    }
}

impl Versions {
    pub(super) fn first(at: At, state: State) -> Self {
        Self { at, state, superseded: None }
    }

    /// Where the newest stands, and what it says.
    pub(super) fn newest(&self) -> (At, &State) {
        (self.at, &self.state)
    }

    /// Puts a newer state on top. `keep` says whether somebody may still read the one below.
    pub(super) fn push(&mut self, at: At, state: State, keep: bool) {
        let below = (std::mem::replace(&mut self.at, at), std::mem::replace(&mut self.state, state));
        if keep {
            self.superseded.get_or_insert_default().0.push(below);
        } else {
            self.superseded = None;
        }
    }

    /// The newest state that those positions cover.
    pub(super) fn read(&self, positions: &Positions) -> Option<Found> {
        if positions.cover(self.at) {
            return self.state.found();
        }
        let superseded = &self.superseded.as_ref()?.0;
        let (_, state) = superseded.iter().rev().find(|(at, _)| positions.cover(*at))?;
        state.found()
    }

    /// Drops what nobody reads who has read at least as far as `oldest`.
    pub(super) fn prune(&mut self, oldest: &Positions) {
        if oldest.cover(self.at) {
            self.superseded = None;
        } else if let Some(superseded) = &mut self.superseded
            && let Some(read) = superseded.0.iter().rposition(|(at, _)| oldest.cover(*at))
        {
            superseded.0.drain(..read);
        }
    }

    /// Drops all but the newest state.
    pub(super) fn settle(&mut self) {
        self.superseded = None;
    }
}
