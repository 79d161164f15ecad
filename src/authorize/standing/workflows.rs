//! The registry of workflows in memory: written by one, read by every lane. Limits: ids are kept as 16 bytes of their
//! SHA-256, so it can say how a workflow stands, and not which workflows there are.

use std::collections::VecDeque;

use dashmap::DashMap;
use dashmap::mapref::entry::Entry;

use super::positions::{At, Positions};
use super::workflow::{Registered, State, Status, Versions, WorkflowKey, key_of};
use crate::authorize::ids::UnixMillis;

/// What every lane reads.
pub(super) type WorkflowMap = DashMap<WorkflowKey, Versions>;

/// What a record of the registry's topic has changed.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum WorkflowChange {
    /// The workflow stands as the record says.
    Now(Status),
    /// A tombstone: it is not known any more.
    Forgotten,
    /// A tombstone of a workflow that has ended: that it has ended is kept until [`Registry::forget`](super::Registry::forget).
    EndKept,
    /// A tombstone under a key that stands for no workflow: a gate's pulse, for one.
    Nothing,
    /// That place of the topic was taken in before.
    Repeated,
}

/// The writer's side.
#[derive(Debug, Default)]
pub(super) struct Workflows {
    /// Workflows with a state that somebody may still read below the newest, by the place of the newest.
    superseded: VecDeque<(At, WorkflowKey)>,
    live: usize,
    ended: usize,
}

impl Workflows {
    /// How many run or are suspended, and how many have ended.
    pub(super) fn sizes(&self) -> (usize, usize) {
        (self.live, self.ended)
    }

    /// Takes in one record. `pinned`: somebody may still read what it replaces.
    pub(super) fn apply(
        &mut self,
        map: &WorkflowMap,
        at: At,
        id: &str,
        value: Option<Registered>,
        pinned: bool,
    ) -> WorkflowChange {
        let key = key_of(id);
        let mut entry = match map.entry(key) {
            Entry::Vacant(place) => {
                let Some(registered) = value else { return WorkflowChange::Nothing };
                let status = registered.status;
                let state = State::of(registered);
                self.count(&state, true);
                place.insert(Versions::first(at, state));
                return WorkflowChange::Now(status);
            }
            Entry::Occupied(entry) => entry,
        };
        let (newest, standing) = entry.get().newest();
        if at.is_not_after(newest) {
            return WorkflowChange::Repeated;
        }
        let (state, change) = match (value, standing) {
            (Some(registered), _) => {
                let status = registered.status;
                (State::of(registered), WorkflowChange::Now(status))
            }
            (None, State::Ended(..)) => return WorkflowChange::EndKept,
            (None, State::Gone) => return WorkflowChange::Nothing,
            (None, State::Live(_)) => (State::Gone, WorkflowChange::Forgotten),
        };
        self.count(standing, false);
        self.count(&state, true);
        if matches!(state, State::Gone) && !pinned {
            entry.remove();
            return change;
        }
        entry.get_mut().push(at, state, pinned);
        if pinned {
            self.superseded.push_back((at, key));
        }
        change
    }

    /// Drops the states that nobody reads any more. `oldest`: what every reader has taken in; `None` if there is none.
    pub(super) fn collect(&mut self, map: &WorkflowMap, oldest: Option<&Positions>) {
        while let Some((at, key)) = self.superseded.front()
            && oldest.is_none_or(|oldest| oldest.cover(*at))
        {
            if let Entry::Occupied(mut entry) = map.entry(*key) {
                match oldest {
                    Some(oldest) => entry.get_mut().prune(oldest),
                    None => entry.get_mut().settle(),
                }
                let (newest, state) = entry.get().newest();
                if matches!(state, State::Gone) && oldest.is_none_or(|oldest| oldest.cover(newest)) {
                    entry.remove();
                }
            }
            self.superseded.pop_front();
        }
    }

    /// Drops the workflows that have ended before `before` and that every reader sees as ended. A look at each.
    pub(super) fn forget(&mut self, map: &WorkflowMap, before: UnixMillis, oldest: Option<&Positions>) {
        let mut forgotten = 0;
        map.retain(|_, versions| {
            let (at, state) = versions.newest();
            let goes = matches!(state, State::Ended(_, since) if i64::from(*since) <= before.whole_seconds())
                && oldest.is_none_or(|oldest| oldest.cover(at));
            forgotten += usize::from(goes);
            !goes
        });
        self.ended = self.ended.saturating_sub(forgotten);
    }

    fn count(&mut self, state: &State, comes: bool) {
        let counter = match state {
            State::Live(_) => &mut self.live,
            State::Ended(..) => &mut self.ended,
            State::Gone => return,
        };
        *counter = if comes { counter.saturating_add(1) } else { counter.saturating_sub(1) };
    }
}
