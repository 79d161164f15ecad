//! The revocations in memory: found by what they name, replaced and removed by their id. Limits: it applies what is
//! verified; a place in several partitions is in order of arrival.

use std::collections::{HashMap, VecDeque};
use std::sync::Arc;

use dashmap::DashMap;

use super::positions::{At, Positions};
use super::revocation::{Effect, Kind, Revocation, Target};
use crate::authorize::ids::UnixMillis;

/// How long an expired revocation stays, in seconds: as long as a broker lets a transaction stay open
/// (`transaction.max.timeout.ms`), so that no open batch, whose moment is older, loses it.
const KEPT_AFTER_END_S: f64 = 900.0;

/// A revocation from the place where it was stated to the place where it was replaced or removed.
#[derive(Debug)]
pub(super) struct Held {
    from: At,
    until: Option<At>,
    revocation: Arc<Revocation>,
}

/// What every lane reads: for each kind, what is named, and by what.
#[derive(Debug, Default)]
pub(super) struct RevocationMap([DashMap<Box<str>, Vec<Held>>; Kind::ALL.len()]);

impl RevocationMap {
    fn of(&self, kind: Kind) -> Option<&DashMap<Box<str>, Vec<Held>>> {
        self.0.get(kind as usize)
    }

    /// Entries of all kinds, to see that nothing is left behind.
    #[cfg(test)]
    pub(super) fn len(&self) -> usize {
        self.0.iter().flat_map(|map| map.iter().map(|held| held.len())).sum()
    }

    /// A revocation in force at that moment that reaches what was issued then, as far as those positions.
    pub(super) fn find(
        &self,
        (kind, id): (Kind, &str),
        issued_at: Option<f64>,
        now: UnixMillis,
        positions: &Positions,
    ) -> Option<Arc<Revocation>> {
        let held = self.of(kind)?.get(id)?;
        let seen = || {
            held.iter()
                .filter(|held| {
                    positions.cover(held.from) && !held.until.is_some_and(|until| positions.cover(until))
                })
                .map(|held| &held.revocation)
        };
        seen()
            .find(|one| {
                one.reaches(issued_at) && !one.has_expired(now) && !seen().any(|other| other.takes_back(one))
            })
            .cloned()
    }

    /// Whether of the newest state, at any place, one fits.
    fn any(&self, target: &Target, fits: impl Fn(&Revocation) -> bool) -> bool {
        let held = self.of(target.kind).and_then(|map| map.get(&target.id));
        held.is_some_and(|held| held.iter().any(|held| held.until.is_none() && fits(&held.revocation)))
    }

    fn change(&self, target: &Target, change: impl FnOnce(&mut Vec<Held>)) {
        let Some(map) = self.of(target.kind) else { return };
        let mut held = map.entry(target.id.clone()).or_default();
        change(&mut held);
        let empty = held.is_empty();
        // Released before the map is asked again: the guard holds the shard.
        drop(held);
        if empty {
            map.remove_if(&target.id, |_, held| held.is_empty());
        }
    }
}

/// What a record of the revocations' topic has changed.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum RevocationChange {
    /// It is in force.
    Applied,
    /// It is in force in the place of an earlier statement of the same id.
    Replaced,
    /// It says that its end has come: the earlier statement of the same id is no longer in force.
    Lifted,
    /// It had ended before it was read, and nothing of that id was in force.
    Ended,
    /// A tombstone: what had ended is gone.
    Removed,
    /// A tombstone of a revocation that is in force: **not applied**.
    RefusedInForce,
    /// An older statement of the same id than the one in force: **not applied**.
    RefusedOlder,
    /// A tombstone under a key that stands for no revocation: a gate's pulse, for one.
    Nothing,
    /// That place of the topic was taken in before.
    Repeated,
}

/// The writer's side.
#[derive(Debug, Default)]
pub(super) struct Revocations {
    by_id: HashMap<Box<str>, Vec<Stated>>,
    /// What was replaced or removed, and where.
    ended: VecDeque<(At, Arc<Revocation>)>,
    stated: usize,
}

#[derive(Debug, Clone)]
struct Stated {
    at: At,
    revocation: Arc<Revocation>,
}

impl Revocations {
    /// How many are kept.
    pub(super) fn len(&self) -> usize {
        self.stated
    }

    /// Takes in one record. `settled_ms`: how old a `not_before` must be for its revocation to be removed.
    pub(super) fn apply(
        &mut self,
        map: &RevocationMap,
        at: At,
        id: &str,
        value: Option<Revocation>,
        now: UnixMillis,
        settled_ms: i64,
    ) -> RevocationChange {
        let known = self.by_id.get(id).map_or(&[][..], Vec::as_slice);
        if known.iter().any(|stated| at.is_not_after(stated.at)) {
            return RevocationChange::Repeated;
        }
        let Some(revocation) = value else { return self.remove(map, at, id, now, settled_ms) };
        let same = |stated: &&Stated| stated.revocation.authority == revocation.authority;
        let earlier = known.iter().find(same).cloned();
        if earlier.as_ref().is_some_and(|earlier| earlier.revocation.issued_at > revocation.issued_at) {
            return RevocationChange::RefusedOlder;
        }
        if let Some(earlier) = &earlier {
            self.end(map, at, id, &earlier.revocation);
        }
        if revocation.has_expired(now) {
            return if earlier.is_some() { RevocationChange::Lifted } else { RevocationChange::Ended };
        }
        let revocation = Arc::new(revocation);
        for target in &revocation.targets {
            map.change(target, |held| {
                held.push(Held { from: at, until: None, revocation: revocation.clone() });
            });
        }
        self.by_id.entry(id.into()).or_default().push(Stated { at, revocation });
        self.stated += 1;
        if earlier.is_some() { RevocationChange::Replaced } else { RevocationChange::Applied }
    }

    fn remove(
        &mut self,
        map: &RevocationMap,
        at: At,
        id: &str,
        now: UnixMillis,
        settled_ms: i64,
    ) -> RevocationChange {
        let Some(known) = self.by_id.get(id).cloned() else { return RevocationChange::Nothing };
        if known.iter().any(|stated| is_in_force(map, &stated.revocation, now, settled_ms)) {
            return RevocationChange::RefusedInForce;
        }
        for stated in &known {
            self.end(map, at, id, &stated.revocation);
        }
        RevocationChange::Removed
    }

    /// Notes the place from which on it is not in force.
    fn end(&mut self, map: &RevocationMap, at: At, id: &str, revocation: &Arc<Revocation>) {
        for target in &revocation.targets {
            map.change(target, |held| {
                for held in held.iter_mut().filter(|held| Arc::ptr_eq(&held.revocation, revocation)) {
                    held.until = Some(at);
                }
            });
        }
        self.drop_stated(id, revocation);
        self.ended.push_back((at, revocation.clone()));
    }

    fn drop_stated(&mut self, id: &str, revocation: &Arc<Revocation>) {
        if let Some(known) = self.by_id.get_mut(id) {
            known.retain(|stated| !Arc::ptr_eq(&stated.revocation, revocation));
            self.stated = self.stated.saturating_sub(1);
            if known.is_empty() {
                self.by_id.remove(id);
            }
        }
    }

    /// Drops what has ended at a place that every reader has taken in; all of it where there is no reader.
    pub(super) fn collect(&mut self, map: &RevocationMap, oldest: Option<&Positions>) {
        while let Some((at, revocation)) = self.ended.front()
            && oldest.is_none_or(|oldest| oldest.cover(*at))
        {
            drop_held(map, revocation);
            self.ended.pop_front();
        }
    }

    /// Drops what has expired so long ago that no open batch is older. A look at each.
    pub(super) fn forget(&mut self, map: &RevocationMap, now: UnixMillis) {
        let long_ago = now.as_seconds() - KEPT_AFTER_END_S;
        let goes = |stated: &Stated| stated.revocation.expires_at.is_some_and(|end| end < long_ago);
        let gone: Vec<Stated> =
            self.by_id.values().flatten().filter(|stated| goes(stated)).cloned().collect();
        for stated in gone {
            drop_held(map, &stated.revocation);
            self.drop_stated(&stated.revocation.id, &stated.revocation);
        }
    }
}

fn drop_held(map: &RevocationMap, revocation: &Arc<Revocation>) {
    for target in &revocation.targets {
        map.change(target, |held| held.retain(|held| !Arc::ptr_eq(&held.revocation, revocation)));
    }
}

/// Whether taking it away would let something pass.
fn is_in_force(map: &RevocationMap, revocation: &Revocation, now: UnixMillis, settled_ms: i64) -> bool {
    if revocation.has_expired(now) {
        return false;
    }
    let named_by = |fits: &dyn Fn(&Revocation) -> bool| revocation.targets.iter().any(|t| map.any(t, fits));
    match revocation.effect {
        // What was issued so long ago has expired, wherever it waits.
        Effect::Revokes { not_before: Some(moment) } => {
            now.as_seconds() <= moment + UnixMillis(settled_ms).as_seconds()
        }
        Effect::Revokes { not_before: None } => true,
        Effect::Disables { .. } => {
            !revocation.targets.iter().all(|t| map.any(t, |other| other.takes_back(revocation)))
        }
        // Without it, what it takes back would be in force again.
        Effect::Enables { .. } => named_by(&|other| revocation.takes_back(other)),
    }
}
