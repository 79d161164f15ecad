//! What a gate has taken in of the control topics `workflows` and `revocations`: one writer, many readers, and one state a
//! batch. Limits: it reads no topic and no clock; who follows the topics hands it records, places and moments.
//!
//! A batch pins a [`Standing`], which reads every entry as it stood at the positions that it was made for. What an entry
//! said before is kept for as long as a `Standing` lives that may read it, and no longer.

use std::sync::{Arc, Weak};

use super::positions::{At, Positions};
use super::revocation::{Kind, Revocation};
use super::revocations::{RevocationChange, RevocationMap, Revocations};
use super::workflow::{Found, Registered, key_of};
use super::workflows::{WorkflowChange, WorkflowMap, Workflows};
use crate::authorize::ids::UnixMillis;
use crate::authorize::text::Text;

/// The writer: owned by the one thread that follows the control topics.
#[derive(Debug)]
pub struct Registry {
    shared: Arc<Shared>,
    workflows: Workflows,
    revocations: Revocations,
    pins: Vec<Weak<Pin>>,
    forget_after_ms: i64,
}

#[derive(Debug, Default)]
struct Shared {
    workflows: WorkflowMap,
    revocations: RevocationMap,
}

/// How far a state was taken in; `None` is a topic that is not followed.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Followed {
    /// Of the registry of workflows.
    pub workflows: Option<Positions>,
    /// Of the revocations.
    pub revocations: Option<Positions>,
}

#[derive(Debug)]
struct Pin {
    shared: Arc<Shared>,
    followed: Followed,
    /// The same as it is written, by the topic's name.
    written: Vec<(&'static str, Text)>,
}

/// What is known of workflows and revocations at one moment. It does not change, and cloning it costs nothing. By
/// default nothing is followed.
#[derive(Debug, Clone, Default)]
pub struct Standing(Option<Arc<Pin>>);

/// How much a registry keeps.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Sizes {
    /// Workflows that run or are suspended.
    pub live_workflows: usize,
    /// Workflows that have ended and are not forgotten.
    pub ended_workflows: usize,
    /// Revocations.
    pub revocations: usize,
}

impl Registry {
    /// An empty registry. `forget_after_ms`: how long the end of a workflow is remembered, and how old the `not_before`
    /// of a revocation without an end must be for a tombstone to remove it. It must be longer than any token lives and
    /// any record waits.
    pub fn new(forget_after_ms: i64) -> Self {
        Self {
            shared: Arc::default(),
            workflows: Workflows::default(),
            revocations: Revocations::default(),
            pins: Vec::new(),
            forget_after_ms,
        }
    }

    /// Takes in one record of the registry of workflows; `None` is a tombstone. Each partition is taken in once, in its
    /// order.
    pub fn apply_workflow(&mut self, at: At, id: &str, value: Option<Registered>) -> WorkflowChange {
        let pinned = self.is_pinned();
        self.workflows.apply(&self.shared.workflows, at, id, value, pinned)
    }

    /// Takes in one record of the revocations; `None` is a tombstone. A value is a verified one, whose id is the key.
    pub fn apply_revocation(
        &mut self,
        at: At,
        id: &str,
        value: Option<Revocation>,
        now: UnixMillis,
    ) -> RevocationChange {
        let settled_ms = self.forget_after_ms;
        let change = self.revocations.apply(&self.shared.revocations, at, id, value, now, settled_ms);
        if !self.is_pinned() {
            self.revocations.collect(&self.shared.revocations, None);
        }
        change
    }

    /// The state as it is now, for batches to pin. `followed` must cover everything that was applied; what is applied
    /// later is not seen through it.
    pub fn pin(&mut self, followed: Followed) -> Standing {
        self.pins.retain(|pin| pin.strong_count() > 0);
        let of = |name, positions: &Option<Positions>| Some((name, positions.as_ref()?.to_string().into()));
        let written = [of("workflows", &followed.workflows), of("revocations", &followed.revocations)];
        let written = written.into_iter().flatten().collect();
        let pin = Arc::new(Pin { shared: self.shared.clone(), followed, written });
        self.pins.push(Arc::downgrade(&pin));
        self.collect();
        Standing(Some(pin))
    }

    /// What every living [`Standing`] has taken in: the oldest control positions that are still in use. `None` where
    /// there is none.
    pub fn oldest(&self) -> Option<Followed> {
        self.pins.iter().filter_map(Weak::upgrade).map(|pin| pin.followed.clone()).reduce(|one, other| {
            Followed {
                workflows: common(one.workflows, other.workflows),
                revocations: common(one.revocations, other.revocations),
            }
        })
    }

    /// Drops expired revocations, and where `may_forget_ended` the workflows that have ended longer than `forget_after`
    /// ago: only if every route that looks at workflows demands registered ones, since to the others a forgotten
    /// workflow is one that never was. Looks at every entry, some 50 ns each: meant for once a minute.
    pub fn forget(&mut self, now: UnixMillis, may_forget_ended: bool) {
        self.revocations.forget(&self.shared.revocations, now);
        if may_forget_ended {
            let before = UnixMillis(now.0.saturating_sub(self.forget_after_ms));
            let oldest = self.oldest().map(|oldest| oldest.workflows.unwrap_or_default());
            self.workflows.forget(&self.shared.workflows, before, oldest.as_ref());
        }
        self.collect();
    }

    /// How much it keeps.
    pub fn sizes(&self) -> Sizes {
        let (live_workflows, ended_workflows) = self.workflows.sizes();
        Sizes { live_workflows, ended_workflows, revocations: self.revocations.len() }
    }

    fn is_pinned(&self) -> bool {
        self.pins.iter().any(|pin| pin.strong_count() > 0)
    }

    fn collect(&mut self) {
        let oldest = self.oldest();
        let workflows = oldest.as_ref().map(|oldest| oldest.workflows.clone().unwrap_or_default());
        let revocations = oldest.as_ref().map(|oldest| oldest.revocations.clone().unwrap_or_default());
        self.workflows.collect(&self.shared.workflows, workflows.as_ref());
        self.revocations.collect(&self.shared.revocations, revocations.as_ref());
    }
}

fn common(one: Option<Positions>, other: Option<Positions>) -> Option<Positions> {
    Some(one?.common(&other?))
}

impl Standing {
    /// How far it was taken in.
    pub fn followed(&self) -> Followed {
        self.0.as_ref().map(|pin| pin.followed.clone()).unwrap_or_default()
    }

    /// How far each of `workflows` and `revocations` that is followed was taken in, as it is written.
    pub fn written(&self) -> &[(&'static str, Text)] {
        self.0.as_ref().map_or(&[], |pin| &pin.written)
    }

    /// What the registry knows of the workflow of that id.
    pub fn workflow(&self, id: &str) -> Option<Found> {
        let pin = self.0.as_ref()?;
        let positions = pin.followed.workflows.as_ref()?;
        pin.shared.workflows.get(&key_of(id))?.read(positions)
    }

    /// Whether revocations are followed.
    pub fn follows_revocations(&self) -> bool {
        self.0.as_ref().is_some_and(|pin| pin.followed.revocations.is_some())
    }

    /// A revocation in force at `now` that names that thing. `issued_at`, in seconds: when the thing was issued; `None`
    /// counts as older than every `not_before`.
    pub fn revocation(
        &self,
        kind: Kind,
        id: &str,
        issued_at: Option<f64>,
        now: UnixMillis,
    ) -> Option<Arc<Revocation>> {
        let pin = self.0.as_ref()?;
        let positions = pin.followed.revocations.as_ref()?;
        pin.shared.revocations.find((kind, id), issued_at, now, positions)
    }
}

#[cfg(test)]
mod tests;
