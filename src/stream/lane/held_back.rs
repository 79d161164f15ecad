//! Routes whose breaker is open: their partitions are paused, what was taken of them is given back, and a few of their
//! records are tried when it is time. Limits: answers and held records go on, since nothing of them floods.

use super::Lane;
use super::batch::{Kind, Work};
use crate::authorize::ids::{Position, Topic};
use crate::stream::breaker::{Breaker, Moved};
use crate::stream::clock::Clock;
use crate::stream::decider::Decider;
use crate::stream::log::{Log, LogError, TopicPartition};
use crate::telemetry::events::{BreakerIs, BreakerMoved};

impl<L: Log, D: Decider, C: Clock> Lane<L, D, C> {
    /// The breaker of the route that reads that topic.
    pub(super) fn breaker(&mut self, topic: &Topic) -> Option<&mut Breaker> {
        let route = &self.settings.sources.get(topic)?.route;
        self.breakers.get_mut(route)
    }

    /// Lets routes go on whose time has come, and pauses the partitions of those that may not.
    pub(super) fn hold_back(&mut self) -> Result<(), LogError> {
        // A lane that holds still as a whole takes in nothing, and reads on from where it stands.
        if self.breakers.is_empty() || self.stale {
            return Ok(());
        }
        let now = self.clock.elapsed();
        let moved: Vec<(String, Moved)> = self
            .breakers
            .iter_mut()
            .filter_map(|(route, breaker)| Some((route.clone(), breaker.look(now)?)))
            .collect();
        for (route, moved) in &moved {
            self.show_moved(route, moved);
        }
        if self.held_back.is_empty() && self.breakers.values().all(Breaker::may_take) {
            return Ok(());
        }
        let ready = self.ready();
        self.held_back.retain(|of| ready.contains(of));
        for of in ready {
            let may = self.breaker(&of.topic).is_none_or(|breaker| breaker.may_take());
            match (may, self.held_back.contains(&of)) {
                (false, false) => self.leave_back(&of),
                (true, true) => {
                    if let Some(next) = self.owned.get(&of).map(|owned| owned.next) {
                        self.log.resume_at(&of, next)?;
                    }
                    self.held_back.remove(&of);
                }
                _ => {}
            }
        }
        Ok(())
    }

    /// Whether a record that is next in its partition may be taken in, by the breaker of its route.
    ///
    /// INVARIANT: where one is left, all behind it are left too, until its partition is read again from there.
    pub(super) fn may_take(&mut self, of: &TopicPartition) -> bool {
        if self.held_back.contains(of) {
            return false;
        }
        let may = self.breaker(&of.topic).is_none_or(Breaker::take);
        if !may {
            self.leave_back(of);
        }
        may
    }

    fn leave_back(&mut self, of: &TopicPartition) {
        self.pause(std::slice::from_ref(of));
        self.held_back.insert(of.clone());
    }

    /// Counts what was decided of each source topic, now that it is committed.
    pub(super) fn count_denials(&mut self, decided: Vec<(Topic, bool)>) {
        let now = self.clock.elapsed();
        for (topic, denied) in decided {
            let Some(moved) = self.breaker(&topic).and_then(|breaker| breaker.decided(denied, now)) else {
                continue;
            };
            let route = self.settings.sources.get(&topic).map(|source| source.route.clone());
            self.show_moved(&route.unwrap_or_default(), &moved);
        }
    }

    /// Gives back what was taken of routes that have stopped since: it is read again when they go on. The first `decided`
    /// inputs are part of a transaction.
    pub(super) fn give_back(&mut self, decided: usize) {
        if !self.breakers.values().any(Breaker::is_open) {
            return;
        }
        let rest = self.batch.split_off(decided.min(self.batch.len()));
        for Work { of, record, kind } in rest {
            let is_open = self.breaker(&of.topic).is_some_and(|breaker| breaker.is_open());
            if !is_open || !matches!(kind, Kind::Record) {
                self.batch.push_back(Work { of, record, kind });
                continue;
            }
            if let Some(owned) = self.owned.get_mut(&of) {
                // From the first of them on.
                owned.next = owned.next.min(Position(record.source.offset.0));
            }
            if !self.held_back.contains(&of) {
                self.leave_back(&of);
            }
        }
    }

    /// What was taken in and not decided is read again, and may be tried again.
    pub(super) fn rewound(&mut self) {
        self.breakers.values_mut().for_each(Breaker::rewound);
    }

    fn show_moved(&self, route: &str, moved: &Moved) {
        let is = match moved {
            Moved::Opened(why) => BreakerIs::Open(why),
            Moved::Trying => BreakerIs::Trying,
            Moved::Closed => BreakerIs::Closed,
        };
        BreakerMoved { lane: self.settings.lane, route, is }.emit(&self.telemetry);
    }
}
