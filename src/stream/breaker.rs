//! Stop, rather than flood the dead-letter topic: what is denied of a route is counted, and past its bounds the lane takes in
//! no more of it until a few records have been tried again. Limits: pure; it counts what is committed, time is handed in,
//! and each lane has its own, so that lanes need not agree.

use std::collections::VecDeque;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;

use crate::config::{BreakerSettings, Share};

/// Asks every breaker of a gate to try again, as SIGHUP does. Clones are cheap, and ask for the same.
#[derive(Debug, Clone, Default)]
pub struct TryAgain(Arc<AtomicU64>);

impl TryAgain {
    /// Asks.
    pub fn ask(&self) {
        self.0.fetch_add(1, Ordering::Relaxed);
    }

    /// How often it was asked.
    fn asked(&self) -> u64 {
        self.0.load(Ordering::Relaxed)
    }
}

/// What has become of a breaker.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Moved {
    /// The route stops. Holds why, for an operator.
    Opened(String),
    /// A few records are tried.
    Trying,
    /// The route goes on.
    Closed,
}

/// The breaker of one route in one lane.
#[derive(Debug)]
pub(super) struct Breaker {
    rules: BreakerSettings,
    try_again: TryAgain,
    /// What was asked before it opened asks for nothing now.
    heard: u64,
    state: State,
    /// Whether the newest records were denied, oldest first; no more of them than the share is of.
    newest: VecDeque<bool>,
    denied: u32,
    in_a_row: u32,
}

#[derive(Debug, Clone, Copy)]
enum State {
    Closed,
    /// Since this moment.
    Open(Duration),
    Trying(Tried),
}

/// The records that are tried.
#[derive(Debug, Clone, Copy, Default)]
struct Tried {
    /// Taken in, decided or not.
    taken: u32,
    /// Decided and committed.
    decided: u32,
    denied: u32,
}

impl Breaker {
    pub(super) fn new(rules: BreakerSettings, try_again: TryAgain) -> Self {
        let (newest, heard) = (VecDeque::new(), try_again.asked());
        Self { rules, try_again, heard, state: State::Closed, newest, denied: 0, in_a_row: 0 }
    }

    /// Whether the lane may take in the next record of the route; one that may is counted among the tried.
    pub(super) fn take(&mut self) -> bool {
        let may = self.may_take();
        if let State::Trying(tried) = &mut self.state {
            tried.taken += u32::from(may);
        }
        may
    }

    /// Whether the lane may take in a record of the route now.
    pub(super) fn may_take(&self) -> bool {
        match self.state {
            State::Closed => true,
            State::Open(_) => false,
            State::Trying(tried) => tried.taken < self.rules.probe,
        }
    }

    /// What was taken in and not decided is read again.
    pub(super) fn rewound(&mut self) {
        if let State::Trying(tried) = &mut self.state {
            tried.taken = tried.decided;
        }
    }

    /// Whether nothing of the route may be taken in.
    pub(super) fn is_open(&self) -> bool {
        matches!(self.state, State::Open(_))
    }

    /// Begins to try, if it is time or somebody has asked for it.
    pub(super) fn look(&mut self, now: Duration) -> Option<Moved> {
        let State::Open(since) = self.state else { return None };
        let is_due = self.rules.retry.is_some_and(|retry| now.saturating_sub(since) >= retry);
        if !is_due && self.try_again.asked() == self.heard {
            return None;
        }
        self.state = State::Trying(Tried::default());
        Some(Moved::Trying)
    }

    /// One record of the route was decided, and that is committed.
    pub(super) fn decided(&mut self, denied: bool, now: Duration) -> Option<Moved> {
        match &mut self.state {
            // Decided in the transaction that has opened it.
            State::Open(_) => None,
            State::Closed => {
                self.count(denied);
                let why = self.past_its_bounds()?;
                Some(self.open(why, now))
            }
            State::Trying(tried) => {
                tried.decided += 1;
                tried.denied += u32::from(denied);
                if tried.decided < self.rules.probe {
                    return None;
                }
                let Tried { decided, denied, .. } = *tried;
                let percent = self.rules.share.map_or(100, |share| share.percent);
                if is_share(denied, percent, decided) {
                    return Some(
                        self.open(format!("{denied} of {decided} that were tried were denied"), now),
                    );
                }
                self.state = State::Closed;
                self.forget();
                Some(Moved::Closed)
            }
        }
    }

    fn open(&mut self, why: String, now: Duration) -> Moved {
        self.state = State::Open(now);
        self.heard = self.try_again.asked();
        self.forget();
        Moved::Opened(why)
    }

    fn forget(&mut self) {
        self.newest.clear();
        self.denied = 0;
        self.in_a_row = 0;
    }

    fn count(&mut self, denied: bool) {
        self.in_a_row = if denied { self.in_a_row.saturating_add(1) } else { 0 };
        let Some(Share { of, .. }) = self.rules.share else { return };
        self.newest.push_back(denied);
        self.denied += u32::from(denied);
        if self.newest.len() > of as usize {
            self.denied -= u32::from(self.newest.pop_front() == Some(true));
        }
    }

    fn past_its_bounds(&self) -> Option<String> {
        if self.rules.run.is_some_and(|run| self.in_a_row >= run) {
            return Some(format!("the last {} records were denied", self.in_a_row));
        }
        // A share of a few is no share: it is looked at once there are as many as it is of.
        let Share { percent, of } =
            self.rules.share.filter(|share| self.newest.len() >= share.of as usize)?;
        is_share(self.denied, percent, of)
            .then(|| format!("{} of the last {of} records were denied", self.denied))
    }
}

fn is_share(denied: u32, percent: u32, of: u32) -> bool {
    u64::from(denied) * 100 >= u64::from(percent) * u64::from(of)
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    const NOW: Duration = Duration::from_secs(100);

    fn breaker(run: Option<u32>, share: Option<(u32, u32)>, retry: Option<u64>) -> Breaker {
        let share = share.map(|(percent, of)| Share { percent, of });
        let retry = retry.map(Duration::from_secs);
        Breaker::new(BreakerSettings { run, share, retry, probe: 4 }, TryAgain::default())
    }

    /// Decides so many; what came of the last.
    fn decide(breaker: &mut Breaker, outcomes: &[bool]) -> Option<Moved> {
        let moves = outcomes.iter().map(|denied| breaker.decided(*denied, NOW));
        moves.last().flatten()
    }

    #[test]
    fn a_run_of_denials_opens_it_and_one_that_goes_on_begins_a_new_run() {
        let mut breaker = breaker(Some(3), None, None);
        assert_eq!(decide(&mut breaker, &[true, true, false, true, true]), None);
        let why = "the last 3 records were denied".to_owned();
        assert_eq!(decide(&mut breaker, &[true]), Some(Moved::Opened(why)));
        assert!(!breaker.take());
    }

    #[test]
    fn a_share_counts_once_there_are_as_many_records_as_it_is_of_and_of_the_newest_alone() {
        let mut breaker = breaker(None, Some((50, 10)), None);
        assert_eq!(decide(&mut breaker, &[true; 4]), None, "4 of 4, and a share is of 10");
        assert_eq!(decide(&mut breaker, &[false; 6]), None, "4 of 10");
        assert_eq!(decide(&mut breaker, &[true; 4]), None, "the first 4 are not of the newest 10 any more");
        assert!(matches!(decide(&mut breaker, &[true]), Some(Moved::Opened(_))), "5 of 10");
    }

    #[test]
    fn after_its_time_a_few_are_tried_and_decide_whether_it_closes() {
        let mut breaker = breaker(Some(2), None, Some(60));
        decide(&mut breaker, &[true, true]);
        assert_eq!(breaker.look(NOW + Duration::from_secs(59)), None);
        assert_eq!(breaker.look(NOW + Duration::from_secs(60)), Some(Moved::Trying));
        assert_eq!((0..9).filter(|_| breaker.take()).count(), 4);
        assert!(matches!(decide(&mut breaker, &[true; 4]), Some(Moved::Opened(_))));
        assert_eq!(breaker.look(NOW + Duration::from_secs(60)), Some(Moved::Trying));
        assert_eq!(decide(&mut breaker, &[true, true, true, false]), Some(Moved::Closed));
        assert!(breaker.take());
        assert_eq!(decide(&mut breaker, &[true]), None, "what was counted before it opened is forgotten");
    }

    #[test]
    fn it_stays_open_until_somebody_asks_and_what_was_asked_before_asks_for_nothing() {
        let mut breaker = breaker(Some(1), None, None);
        let try_again = breaker.try_again.clone();
        try_again.ask();
        decide(&mut breaker, &[true]);
        assert_eq!(breaker.look(NOW + Duration::from_secs(100_000)), None);
        try_again.ask();
        assert_eq!(breaker.look(NOW), Some(Moved::Trying));
    }

    #[test]
    fn what_was_taken_to_be_tried_and_is_read_again_may_be_taken_again() {
        let mut breaker = breaker(Some(1), None, Some(0));
        decide(&mut breaker, &[true]);
        breaker.look(NOW);
        assert_eq!((0..9).filter(|_| breaker.take()).count(), 4);
        decide(&mut breaker, &[true]);
        breaker.rewound();
        assert_eq!((0..9).filter(|_| breaker.take()).count(), 3);
    }

    proptest! {
        /// Whatever is decided: it opens exactly when a naive count of everything since it last closed says so.
        #[test]
        fn it_opens_exactly_when_a_naive_count_says_so(outcomes in prop::collection::vec(any::<bool>(), 0..200)) {
            let mut breaker = breaker(Some(6), Some((70, 10)), None);
            for (index, denied) in outcomes.iter().enumerate() {
                let moved = breaker.decided(*denied, NOW);
                let so_far = &outcomes[..=index];
                let denials = |last: usize| so_far.iter().rev().take(last).filter(|denied| **denied).count();
                let opens = denials(6) == 6 || (so_far.len() >= 10 && denials(10) >= 7);
                prop_assert_eq!(moved.is_some(), opens);
                if opens {
                    break;
                }
            }
        }
    }
}
