//! What a gate reads while it catches up and work in flight may not have heard of: whoever took it in last may have died
//! before it was told. Limits: what is recent by its record's timestamp, so many facts of it, and once everything is read
//! only what still stands.

use std::collections::{BTreeSet, VecDeque};
use std::time::Duration;

use super::Applied;
use crate::authorize::ids::UnixMillis;
use crate::authorize::standing::{Revocation, Standing, Status};

/// How old a fact may be. A worker that no gate told anything for longer than its bound of silence, 10 s, has stopped by
/// itself; the rest is for clocks that differ and for a gate that takes long to start.
pub(super) const RECENT: Duration = Duration::from_secs(300);
/// Facts that are kept, at most: about 500 bytes each. Past it the oldest are not told; a check refuses that work all the same.
const MOST: usize = 20_000;

/// The facts, in the order in which they were read.
#[derive(Debug, Default)]
pub(super) struct Backlog {
    facts: VecDeque<Applied>,
    /// How many were left out because there were too many.
    pub(super) left_out: usize,
}

impl Backlog {
    /// Keeps a fact, if its record was written not long before `now`. One that does not say when counts as recent.
    pub(super) fn note(&mut self, fact: Applied, written: Option<UnixMillis>, now: UnixMillis) {
        let recent = i64::try_from(RECENT.as_millis()).unwrap_or(i64::MAX);
        if written.is_some_and(|at| at.0 < now.0.saturating_sub(recent)) {
            return;
        }
        if self.facts.len() == MOST {
            self.facts.pop_front();
            self.left_out += 1;
        }
        self.facts.push_back(fact);
    }

    /// What is left of them by the state that everything has come to, in the same order.
    pub(super) fn take(&mut self, standing: &Standing, now: UnixMillis) -> Vec<Applied> {
        let mut later = BTreeSet::new();
        let mut left = Vec::new();
        for fact in std::mem::take(&mut self.facts).into_iter().rev() {
            let (stands, name) = match &fact {
                Applied::Workflow { id, status, .. } => {
                    (workflow(standing, id) == Some(*status), (0, id.clone()))
                }
                Applied::Revocation { revocation, .. } => {
                    let name = format!("{:?}/{}", revocation.authority, revocation.id);
                    (in_force(standing, revocation, now), (1, name))
                }
            };
            // The last word on a workflow, or under an id of a revocation, is the one that counts.
            if later.insert(name) && stands {
                left.push(fact);
            }
        }
        left.reverse();
        left
    }
}

fn workflow(standing: &Standing, id: &str) -> Option<Status> {
    standing.workflow(id).map(|found| found.status())
}

/// Whether everything that it names is revoked now: by an account that was enabled since nothing is.
fn in_force(standing: &Standing, revocation: &Revocation, now: UnixMillis) -> bool {
    let is_revoked = |target: &crate::authorize::standing::Target| {
        standing.revocation(target.kind, &target.id, None, now).is_some()
    };
    revocation.targets.iter().all(is_revoked)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::authorize::ids::{Coordinates, Offset, Partition, Position, Topic};
    use crate::authorize::standing::{At, Authority, Effect, Followed, Kind, Registered, Registry, Target};

    const NOW: UnixMillis = UnixMillis(1_893_456_000_000);

    fn place(topic: &str, offset: i64) -> Coordinates {
        Coordinates { topic: Topic::parse(topic).unwrap(), partition: Partition(0), offset: Offset(offset) }
    }

    /// A registry, what was taken in so far, and the backlog of it.
    struct World {
        registry: Registry,
        backlog: Backlog,
        next: i64,
    }

    impl World {
        fn new() -> Self {
            Self { registry: Registry::new(1), backlog: Backlog::default(), next: 0 }
        }

        fn at(&mut self) -> At {
            self.next += 1;
            At { partition: Partition(0), offset: Offset(self.next) }
        }

        fn workflow(&mut self, id: &str, status: Status, seconds_ago: i64) {
            let registered = Registered {
                kind: "payout".into(),
                status,
                step: "pay".into(),
                owner: "o".into(),
                allowed_steps: None,
                version: 1,
                updated_at: NOW,
            };
            let at = self.at();
            self.registry.apply_workflow(at, id, Some(registered));
            let fact = Applied::Workflow { at: place("c.workflows", at.offset.0), id: id.to_owned(), status };
            self.backlog.note(fact, Some(UnixMillis(NOW.0 - seconds_ago * 1000)), NOW);
        }

        fn revoke(&mut self, id: &str, subject: &str, expires_at: Option<f64>, written: Option<UnixMillis>) {
            let revocation = Revocation {
                id: id.into(),
                authority: Authority::Administrator,
                targets: [Target { kind: Kind::Subject, id: subject.into() }].into(),
                effect: Effect::Revokes { not_before: None },
                issued_at: NOW.as_seconds() + self.next as f64,
                expires_at,
                event: "revocation".into(),
                reason: None,
                transaction: None,
            };
            let at = self.at();
            self.registry.apply_revocation(at, id, Some(revocation.clone()), NOW);
            let fact = Applied::Revocation { at: place("c.revocations", at.offset.0), revocation };
            self.backlog.note(fact, written, NOW);
        }

        /// What is told: each fact by its name and place.
        fn told(&mut self) -> Vec<(String, i64)> {
            let positions = || Some([(Partition(0), Position(self.next + 1))].into_iter().collect());
            let followed = Followed { workflows: positions(), revocations: positions() };
            let standing = self.registry.pin(followed);
            let name = |fact: Applied| match fact {
                Applied::Workflow { at, id, .. } => (id, at.offset.0),
                Applied::Revocation { at, revocation } => (revocation.id.to_string(), at.offset.0),
            };
            self.backlog.take(&standing, NOW).into_iter().map(name).collect()
        }
    }

    fn ago(seconds: i64) -> Option<UnixMillis> {
        Some(UnixMillis(NOW.0 - seconds * 1000))
    }

    #[test]
    fn what_is_recent_is_told_and_what_is_older_is_not() {
        let mut world = World::new();
        world.revoke("r-old", "alice", None, ago(301));
        world.revoke("r-new", "bob", None, ago(300));
        world.revoke("r-untimed", "carol", None, None);
        world.revoke("r-ahead", "dave", None, ago(-60));
        world.workflow("wf-old", Status::Cancelled, 301);
        world.workflow("wf-new", Status::Suspended, 9);
        let named = |name: &str, at: i64| (name.to_owned(), at);
        let expected = [named("r-new", 2), named("r-untimed", 3), named("r-ahead", 4), named("wf-new", 6)];
        assert_eq!(world.told(), expected);
        assert!(world.told().is_empty(), "once");
    }

    #[test]
    fn what_no_longer_stands_is_told_to_nobody() {
        let mut world = World::new();
        world.workflow("wf-1", Status::Suspended, 9);
        world.workflow("wf-1", Status::Running, 8);
        world.workflow("wf-2", Status::Suspended, 9);
        world.workflow("wf-2", Status::Cancelled, 8);
        world.revoke("r-1", "alice", None, ago(9));
        world.revoke("r-1", "alice", Some(NOW.as_seconds() - 1.0), ago(8));
        world.revoke("r-2", "bob", Some(NOW.as_seconds() + 60.0), ago(8));
        let told = world.told();
        // That it runs again is a fact too; that it was suspended no longer is one.
        let expected = [("wf-1", 2), ("wf-2", 4), ("r-2", 7)].map(|(name, at)| (name.to_owned(), at));
        assert_eq!(told, expected);
    }

    #[test]
    fn of_too_many_facts_the_oldest_are_left_out_and_counted() {
        let mut world = World::new();
        for number in 0..MOST + 3 {
            world.workflow(&format!("wf-{number}"), Status::Cancelled, 1);
        }
        let told = world.told();
        assert_eq!((told.len(), world.backlog.left_out), (MOST, 3));
        assert_eq!(told[0].0, "wf-3");
    }
}
