//! What the followed topics say, as it is applied: workflows and revocations to the registry, entities to their store.
//! Limits: records are handed in, each partition's in order; publishing is the caller's.

use std::collections::BTreeMap;
use std::time::{Duration, Instant};

use bytes::Bytes;

use super::pins::{Taken, TakenIn};
use super::refused::Refused;
use super::view::View;
use super::{Applied, Followed};
use crate::authorize::ids::{Coordinates, Digest, Topic, UnixMillis};
use crate::authorize::record::Record;
use crate::authorize::standing::{
    At, Followed as Standings, Notice, Registry, RevocationChange, Standing, WorkflowChange, verify,
};
use crate::authorize::trust::Trust;
use crate::control::Control;
use crate::telemetry::events::{FactApplied, FactRefused};
use crate::telemetry::{Entries, Fact, Telemetry};
use crate::wire::workflow::WorkflowCodec;

/// What pulses are written under.
pub(super) const PULSE: &[u8] = b"pulse/";

/// The state that the followed topics have come to.
pub(super) struct Facts {
    followed: Followed,
    registry: Registry,
    codec: WorkflowCodec,
    refused: Refused,
    /// By which keys and which schema the refused ones were tried last.
    tried: Option<(Digest, Digest)>,
    /// When the entities were built last, and how long that took.
    built: Option<(Instant, Duration)>,
    telemetry: Telemetry,
}

impl Facts {
    pub(super) fn new(
        followed: Followed,
        forget_after: Duration,
        codec: WorkflowCodec,
        telemetry: Telemetry,
    ) -> Self {
        let forget_after_ms = i64::try_from(forget_after.as_millis()).unwrap_or(i64::MAX);
        Self {
            followed,
            registry: Registry::new(forget_after_ms),
            codec,
            refused: Refused::default(),
            tried: None,
            built: None,
            telemetry,
        }
    }

    /// Takes in one record. What has come into force by it is told; `None` for what changes nothing and for what is refused.
    pub(super) fn apply(&mut self, record: &Record, control: &Control, now: UnixMillis) -> Option<Applied> {
        let fact = self.followed.fact(&record.source.topic)?;
        let Some(key) = &record.key else {
            self.refuse(fact, &record.source, &Bytes::new(), None, "it has no key");
            return None;
        };
        let value = record.value.as_ref();
        // A pulse says nothing but that it was read.
        if value.is_none() && key.starts_with(PULSE) {
            return None;
        }
        match fact {
            Fact::Workflow => self.apply_workflow(&record.source, key, value),
            Fact::Revocation => {
                self.apply_revocation(&record.source, key, value, &control.snapshot().trust, now)
            }
            Fact::Entity => self.apply_entity(&record.source, key, value, control),
        }
    }

    fn apply_workflow(&mut self, at: &Coordinates, key: &Bytes, value: Option<&Bytes>) -> Option<Applied> {
        let Ok(id) = std::str::from_utf8(key) else {
            self.refuse(Fact::Workflow, at, key, None, "its key is not UTF-8");
            return None;
        };
        let registered = match value.map(|value| self.codec.decode(key, value)).transpose() {
            Ok(decoded) => decoded.map(|(_, registered)| registered),
            Err(error) => {
                self.refuse(Fact::Workflow, at, key, None, &error.to_string());
                return None;
            }
        };
        let change = self.registry.apply_workflow(place(at), id, registered);
        self.settle(Fact::Workflow, at, key, &format!("{change:?}"));
        match change {
            WorkflowChange::Now(status) => {
                Some(Applied::Workflow { at: at.clone(), id: id.to_owned(), status })
            }
            _ => None,
        }
    }

    fn apply_revocation(
        &mut self,
        at: &Coordinates,
        key: &Bytes,
        value: Option<&Bytes>,
        trust: &Trust,
        now: UnixMillis,
    ) -> Option<Applied> {
        const FACT: Fact = Fact::Revocation;
        let Ok(id) = std::str::from_utf8(key) else {
            self.refuse(FACT, at, key, None, "its key is not UTF-8");
            return None;
        };
        let revocation = match value.map(|value| verify(key, value, trust)).transpose() {
            Ok(Some(Notice::Nothing(_))) => {
                self.settle(FACT, at, key, "an event by which nothing is revoked");
                return None;
            }
            Ok(Some(Notice::Revocation(revocation))) => Some(revocation),
            Ok(None) => None,
            Err(error) => {
                self.refuse(FACT, at, key, value, &error.to_string());
                return None;
            }
        };
        let change = self.registry.apply_revocation(place(at), id, revocation.clone(), now);
        match change {
            RevocationChange::RefusedInForce => {
                self.refuse(FACT, at, key, None, "it would remove a revocation that is in force");
            }
            RevocationChange::RefusedOlder => {
                self.refuse(FACT, at, key, None, "it is older than the statement of the same id in force");
            }
            _ => self.settle(FACT, at, key, &format!("{change:?}")),
        }
        match (change, revocation) {
            (RevocationChange::Applied | RevocationChange::Replaced, Some(revocation)) => {
                Some(Applied::Revocation { at: at.clone(), revocation })
            }
            _ => None,
        }
    }

    fn apply_entity(
        &mut self,
        at: &Coordinates,
        key: &Bytes,
        value: Option<&Bytes>,
        control: &Control,
    ) -> Option<Applied> {
        let applied = match std::str::from_utf8(key) {
            Ok(uid) => control.apply_entity(uid, value.map(|value| &value[..])),
            Err(_) => Err("its key is not UTF-8".to_owned()),
        };
        match applied {
            Ok(true) => self.settle(Fact::Entity, at, key, "Now"),
            Ok(false) => self.refused.settle(&at.topic, key),
            Err(problem) => self.refuse(Fact::Entity, at, key, None, &problem),
        }
        None
    }

    /// Tries again what could not be applied, where keys or schema have changed since.
    pub(super) fn try_again(&mut self, control: &Control, now: UnixMillis) -> Vec<Applied> {
        let snapshot = control.snapshot();
        let by = (snapshot.trust.version(), snapshot.policy.digest());
        if self.tried.replace(by) == Some(by) {
            return Vec::new();
        }
        if let Some(topic) = &self.followed.entities {
            self.refused.settle_where(topic, |uid| control.entity_fits(uid));
        }
        let again = self.refused.again();
        again
            .into_iter()
            .filter_map(|(at, key, value)| {
                self.apply_revocation(&at, &key, Some(&value), &snapshot.trust, now)
            })
            .collect()
    }

    /// Publishes what was applied, with how far the topics were read. Entities that have changed are built anew, which may take
    /// half of the time at most; whether nothing waits for that.
    pub(super) fn publish(&mut self, view: &View, control: &Control) -> bool {
        let positions = |topic: &Option<Topic>| topic.as_ref().map(|topic| view.positions(topic));
        let followed = Standings {
            workflows: positions(&self.followed.workflows),
            revocations: positions(&self.followed.revocations),
        };
        let mut taken: Taken = BTreeMap::new();
        for (topic, positions) in [
            (&self.followed.workflows, &followed.workflows),
            (&self.followed.revocations, &followed.revocations),
        ] {
            if let (Some(topic), Some(positions)) = (topic, positions) {
                let refused = Vec::new();
                taken.insert(topic.clone(), TakenIn { positions: positions.clone(), refused });
            }
        }
        let standing: Standing = self.registry.pin(followed);
        if let Some(topic) = &self.followed.entities {
            taken.insert(topic.clone(), TakenIn::default());
        }
        self.refused.note(&mut taken);
        let read = self.followed.entities.as_ref().map(|topic| (topic, view.positions(topic)));
        let may_build = self.built.is_none_or(|(at, took)| at.elapsed() >= took);
        let began = Instant::now();
        let entities = read.as_ref().map(|(topic, read)| (*topic, read));
        let is_done = control.publish_followed(standing, taken, entities, may_build);
        if may_build && entities.is_some() {
            self.built = Some((Instant::now(), began.elapsed()));
        }
        is_done
    }

    /// Drops what is over.
    pub(super) fn forget(&mut self, now: UnixMillis, may_forget_ended: bool) {
        self.registry.forget(now, may_forget_ended);
    }

    /// How much is known.
    pub(super) fn entries(&self, control: &Control) -> Entries {
        let sizes = self.registry.sizes();
        Entries {
            live_workflows: sizes.live_workflows,
            ended_workflows: sizes.ended_workflows,
            revocations: sizes.revocations,
            entities: control.snapshot().entities.len(),
            refused: self.refused.len(),
        }
    }

    fn refuse(&mut self, fact: Fact, at: &Coordinates, key: &Bytes, value: Option<&Bytes>, problem: &str) {
        FactRefused { fact, at, problem }.emit(&self.telemetry);
        self.refused.add(at, key, value);
    }

    fn settle(&mut self, fact: Fact, at: &Coordinates, key: &Bytes, change: &str) {
        FactApplied { fact, at, change }.emit(&self.telemetry);
        self.refused.settle(&at.topic, key);
    }
}

fn place(at: &Coordinates) -> At {
    At { partition: at.partition, offset: at.offset }
}
