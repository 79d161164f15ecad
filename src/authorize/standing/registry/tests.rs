//! The registry against a naive model: a copy of everything at each pin. Random histories of two partitions.

use std::collections::BTreeMap;

use proptest::prelude::*;

use super::*;
use crate::authorize::ids::{Offset, Partition};
use crate::authorize::standing::{Authority, Effect, Status, Target};

const FORGET_AFTER_MS: i64 = 3_600_000;

fn registered(status: Status, version: i64, updated_s: i64) -> Registered {
    Registered {
        kind: "invoice".into(),
        status,
        step: "pay".into(),
        owner: "o".into(),
        allowed_steps: None,
        version,
        updated_at: UnixMillis(updated_s * 1000),
    }
}

/// The log of a topic of two partitions; an id lives in one of them.
#[derive(Default)]
struct Log([i64; 2]);

impl Log {
    fn append(&mut self, id: usize) -> At {
        let partition = id % 2;
        self.0[partition] += 1;
        At { partition: Partition(partition as i32), offset: Offset(self.0[partition] - 1) }
    }

    fn positions(&self) -> Positions {
        let positions = self.0.iter().enumerate();
        positions.map(|(n, end)| (Partition(n as i32), crate::authorize::ids::Position(*end))).collect()
    }
}

#[derive(Debug, Clone)]
enum Step {
    Workflow(usize, Option<(Status, i64)>),
    Pin,
    Release(usize),
    Forget(i64),
}

fn steps() -> impl Strategy<Value = Vec<Step>> {
    let status = prop::sample::select(Status::ALL.to_vec());
    let step = prop_oneof![
        6 => (0..4_usize, prop::option::weighted(0.8, (status, 0..10_000_i64))).prop_map(|(id, v)| Step::Workflow(id, v)),
        2 => Just(Step::Pin),
        2 => (0..4_usize).prop_map(Step::Release),
        1 => (0..15_000_i64).prop_map(Step::Forget),
    ];
    prop::collection::vec(step, 1..60)
}

type Workflows = BTreeMap<usize, (Found, i64)>;

fn same(standing: &Standing, copy: &Workflows) -> Result<(), TestCaseError> {
    for id in 0..4 {
        let known = copy.get(&id).map(|(found, _)| found.clone());
        prop_assert_eq!(standing.workflow(&id.to_string()), known, "workflow {}", id);
    }
    Ok(())
}

proptest! {
    #[test]
    fn a_pinned_state_does_not_change_and_the_newest_is_what_was_written_last(steps in steps()) {
        let (mut registry, mut log) = (Registry::new(FORGET_AFTER_MS), Log::default());
        let mut now: Workflows = BTreeMap::new();
        let mut pins: Vec<(Standing, Workflows)> = Vec::new();
        for (n, step) in steps.into_iter().enumerate() {
            match step {
                Step::Workflow(id, value) => {
                    let at = log.append(id);
                    let value = value.map(|(status, since)| registered(status, n as i64, since));
                    match &value {
                        Some(new) if new.status.has_ended() => {
                            now.insert(id, (Found::Ended(new.status), new.updated_at.0));
                        }
                        Some(new) => {
                            now.insert(id, (Found::Live(new.clone().into()), 0));
                        }
                        None => {
                            if matches!(now.get(&id), Some((Found::Live(_), _))) {
                                now.remove(&id);
                            }
                        }
                    }
                    registry.apply_workflow(at, &id.to_string(), value.clone());
                    if value.is_some() {
                        let again = registry.apply_workflow(at, &id.to_string(), value);
                        prop_assert_eq!(again, WorkflowChange::Repeated);
                    }
                }
                Step::Pin => {
                    let followed = Followed { workflows: Some(log.positions()), revocations: None };
                    pins.push((registry.pin(followed), now.clone()));
                }
                Step::Release(pin) if pin < pins.len() => {
                    pins.swap_remove(pin);
                }
                Step::Release(_) => {}
                Step::Forget(at_s) => {
                    registry.forget(UnixMillis(at_s * 1000), true);
                    let oldest = pins.iter().map(|(standing, _)| standing.followed().workflows.unwrap());
                    let oldest = oldest.reduce(|one, other| one.common(&other));
                    // Only what everybody sees as ended: the same in every copy.
                    let before = at_s * 1000 - FORGET_AFTER_MS;
                    let gone: Vec<usize> = (0..4).filter(|id| {
                        matches!(now.get(id), Some((Found::Ended(_), since)) if since.div_euclid(1000) < before.div_euclid(1000))
                            && registry.shared.workflows.get(&key_of(&id.to_string())).is_none()
                    }).collect();
                    for id in gone {
                        prop_assert!(oldest.is_none() || pins.iter().all(|(_, copy)| copy.get(&id) == now.get(&id)));
                        now.remove(&id);
                        pins.iter_mut().for_each(|(_, copy)| { copy.remove(&id); });
                    }
                }
            }
            for (standing, copy) in &pins {
                same(standing, copy)?;
            }
        }
        drop(pins);
        let newest = registry.pin(Followed { workflows: Some(log.positions()), revocations: None });
        same(&newest, &now)?;
        // Nothing but the newest state is kept once nobody reads another.
        prop_assert_eq!(registry.shared.workflows.len(), now.len());
        let live = now.values().filter(|(found, _)| found.live().is_some()).count();
        let sizes = Sizes { live_workflows: live, ended_workflows: now.len() - live, revocations: 0 };
        prop_assert_eq!(registry.sizes(), sizes);
    }
}

#[derive(Debug, Clone)]
enum Say {
    State(usize, Revocation),
    Remove(usize),
    Pin,
    Release(usize),
    Pass(i64),
    Forget,
}

fn says() -> impl Strategy<Value = Vec<Say>> {
    let effect = prop_oneof![
        prop::option::of(0..2000_i64).prop_map(|at| Effect::Revokes { not_before: at.map(|at| at as f64) }),
        (0..2000_i64).prop_map(|at| Effect::Disables { at: at as f64 }),
        (0..2000_i64).prop_map(|at| Effect::Enables { at: at as f64 }),
    ];
    let authority = prop_oneof![Just(Authority::Administrator), Just(Authority::Transmitter("idp".into())),];
    let subjects = prop::sample::subsequence(vec!["alice", "bob"], 1..=2);
    let revocation = (0..4_usize, effect, authority, subjects, prop::option::of(0..8000_i64), 0..5_i64)
        .prop_map(|(id, effect, authority, subjects, end, issued)| {
            let targets =
                subjects.into_iter().map(|id| Target { kind: Kind::Subject, id: id.into() }).collect();
            (
                id,
                Revocation {
                    id: id.to_string().into(),
                    authority,
                    targets,
                    effect,
                    issued_at: issued as f64,
                    // An account is not disabled or enabled until some moment.
                    expires_at: end
                        .filter(|_| matches!(effect, Effect::Revokes { .. }))
                        .map(|end| end as f64),
                    event: "e".into(),
                    reason: None,
                    transaction: None,
                },
            )
        });
    let say = prop_oneof![
        5 => revocation.prop_map(|(id, revocation)| Say::State(id, revocation)),
        2 => (0..4_usize).prop_map(Say::Remove),
        2 => Just(Say::Pin),
        2 => (0..4_usize).prop_map(Say::Release),
        2 => (0..2000_i64).prop_map(Say::Pass),
        1 => Just(Say::Forget),
    ];
    prop::collection::vec(say, 1..60)
}

type Stated = Vec<(usize, Revocation)>;

fn taken_back(all: &Stated, one: &Revocation, subject: &str) -> bool {
    let names = |other: &Revocation| other.targets.iter().any(|target| *target.id == *subject);
    all.iter().any(|(_, other)| match (other.effect, one.effect) {
        (Effect::Enables { at }, Effect::Disables { at: before }) => {
            names(other) && other.authority == one.authority && before <= at
        }
        _ => false,
    })
}

/// The reference: is what was issued then to that subject revoked?
fn revoked(all: &Stated, subject: &str, issued: Option<f64>, now_s: f64) -> bool {
    all.iter().any(|(_, one)| {
        one.targets.iter().any(|target| *target.id == *subject)
            && one.expires_at.is_none_or(|end| now_s <= end)
            && match (one.effect, issued) {
                (Effect::Revokes { not_before: Some(moment) }, Some(issued)) => issued < moment,
                (Effect::Revokes { .. }, _) => true,
                (Effect::Disables { .. }, _) => !taken_back(all, one, subject),
                (Effect::Enables { .. }, _) => false,
            }
    })
}

/// The reference: would its removal let something pass?
fn in_force(all: &Stated, one: &Revocation, now_s: f64) -> bool {
    one.expires_at.is_none_or(|end| now_s <= end)
        && match one.effect {
            Effect::Revokes { not_before: Some(moment) } => now_s <= moment + FORGET_AFTER_MS as f64 / 1000.0,
            Effect::Revokes { not_before: None } => true,
            Effect::Disables { .. } => !one.targets.iter().all(|target| taken_back(all, one, &target.id)),
            Effect::Enables { at } => all.iter().any(|(_, other)| {
                matches!(other.effect, Effect::Disables { at: before } if before <= at)
                    && other.authority == one.authority
                    && other.targets.iter().any(|target| one.targets.contains(target))
            }),
        }
}

fn agrees(standing: &Standing, copy: &Stated, now_s: i64) -> Result<(), TestCaseError> {
    for subject in ["alice", "bob", "carol"] {
        for issued in [None, Some(0.0), Some(700.0), Some(1999.0), Some(2000.0)] {
            let found = standing.revocation(Kind::Subject, subject, issued, UnixMillis(now_s * 1000));
            let expected = revoked(copy, subject, issued, now_s as f64);
            prop_assert_eq!(found.is_some(), expected, "{} issued {:?} at {}", subject, issued, now_s);
        }
    }
    Ok(())
}

proptest! {
    #[test]
    fn revocations_are_those_of_a_naive_list(says in says()) {
        let (mut registry, mut log) = (Registry::new(FORGET_AFTER_MS), Log::default());
        let mut all: Stated = Vec::new();
        let mut pins: Vec<(Standing, Stated)> = Vec::new();
        let mut now_s = 0;
        for say in says {
            let now = UnixMillis(now_s * 1000);
            match say {
                Say::State(id, new) => {
                    let earlier = all.iter().position(|(i, one)| *i == id && one.authority == new.authority);
                    let older = earlier.is_some_and(|earlier| all[earlier].1.issued_at > new.issued_at);
                    let ended = new.expires_at.is_some_and(|end| now_s as f64 > end);
                    let expected = match (older, ended, earlier) {
                        (true, _, _) => RevocationChange::RefusedOlder,
                        (_, true, Some(_)) => RevocationChange::Lifted,
                        (_, true, None) => RevocationChange::Ended,
                        (_, false, Some(_)) => RevocationChange::Replaced,
                        (_, false, None) => RevocationChange::Applied,
                    };
                    if !older {
                        earlier.map(|earlier| all.remove(earlier));
                        if !ended {
                            all.push((id, new.clone()));
                        }
                    }
                    let change = registry.apply_revocation(log.append(id), &id.to_string(), Some(new), now);
                    prop_assert_eq!(change, expected);
                }
                Say::Remove(id) => {
                    let known: Vec<_> = all.iter().filter(|(i, _)| *i == id).collect();
                    let expected = match known.iter().any(|(_, one)| in_force(&all, one, now_s as f64)) {
                        _ if known.is_empty() => RevocationChange::Nothing,
                        true => RevocationChange::RefusedInForce,
                        false => RevocationChange::Removed,
                    };
                    if expected == RevocationChange::Removed {
                        all.retain(|(i, _)| *i != id);
                    }
                    let change = registry.apply_revocation(log.append(id), &id.to_string(), None, now);
                    prop_assert_eq!(change, expected);
                }
                Say::Pin => {
                    let followed = Followed { workflows: None, revocations: Some(log.positions()) };
                    pins.push((registry.pin(followed), all.clone()));
                }
                Say::Release(pin) if pin < pins.len() => {
                    pins.swap_remove(pin);
                }
                Say::Release(_) => {}
                Say::Pass(seconds) => now_s += seconds,
                Say::Forget => {
                    registry.forget(now, false);
                    all.retain(|(_, one)| one.expires_at.is_none_or(|end| end >= now_s as f64 - 900.0));
                }
            }
            for (standing, copy) in &pins {
                agrees(standing, copy, now_s)?;
            }
        }
        drop(pins);
        let newest = registry.pin(Followed { workflows: None, revocations: Some(log.positions()) });
        agrees(&newest, &all, now_s)?;
        prop_assert_eq!(registry.sizes().revocations, all.len());
        let named = all.iter().map(|(_, one)| one.targets.len()).sum::<usize>();
        prop_assert_eq!(registry.shared.revocations.len(), named);
    }
}

#[test]
fn the_oldest_positions_are_those_of_the_oldest_state_in_use() {
    let mut registry = Registry::new(FORGET_AFTER_MS);
    let at = |position| -> Positions {
        [(Partition(0), crate::authorize::ids::Position(position))].into_iter().collect()
    };
    let followed = |position| Followed { workflows: Some(at(position)), revocations: Some(at(position * 2)) };
    assert_eq!(registry.oldest(), None);
    let first = registry.pin(followed(3));
    let batch = first.clone();
    let second = registry.pin(followed(9));
    assert_eq!(registry.oldest(), Some(followed(3)));
    drop(first);
    assert_eq!(registry.oldest(), Some(followed(3)));
    drop(batch);
    assert_eq!(registry.oldest(), Some(followed(9)));
    assert_eq!(second.followed(), followed(9));
    drop(second);
    assert_eq!(registry.oldest(), None);
}

#[test]
fn by_default_nothing_is_followed_and_nothing_known() {
    let standing = Standing::default();
    assert_eq!(standing.followed(), Followed::default());
    assert_eq!(standing.workflow("wf-1"), None);
    assert!(!standing.follows_revocations());
    assert_eq!(standing.revocation(Kind::Subject, "alice", None, UnixMillis(0)), None);
}

#[test]
fn an_end_is_forgotten_only_where_that_is_allowed_and_late_enough() {
    let mut registry = Registry::new(FORGET_AFTER_MS);
    let at = At { partition: Partition(0), offset: Offset(0) };
    registry.apply_workflow(at, "wf-1", Some(registered(Status::Failed, 1, 1000)));
    let ends = |registry: &Registry| registry.sizes().ended_workflows;
    registry.forget(UnixMillis(i64::MAX), false);
    assert_eq!(ends(&registry), 1);
    registry.forget(UnixMillis(1000 * 1000 + FORGET_AFTER_MS), true);
    assert_eq!(ends(&registry), 1);
    registry.forget(UnixMillis(1001 * 1000 + FORGET_AFTER_MS), true);
    assert_eq!(ends(&registry), 0);
}
