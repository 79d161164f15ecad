//! A seeded plan of faults, and time that a test owns. Limits: enough chance for a plan, and the same on every machine.

use std::cell::Cell;
use std::rc::Rc;
use std::time::Duration;

use crate::authorize::ids::UnixMillis;
use crate::stream::clock::Clock;

/// Time that passes only when somebody waits.
#[derive(Clone, Default)]
pub(in crate::stream) struct ManualClock(Rc<Cell<Duration>>);

impl Clock for ManualClock {
    fn now(&self) -> UnixMillis {
        UnixMillis(1_800_000_000_000 + i64::try_from(self.0.get().as_millis()).unwrap())
    }
    fn elapsed(&self) -> Duration {
        self.0.get()
    }
    fn sleep(&self, time: Duration) {
        self.0.set(self.0.get() + time);
    }
}

/// Where calls of the seam fail: each with a chance of `per_mille`, drawn from the seed.
#[derive(Clone, Debug)]
pub(in crate::stream) struct Faults {
    state: u64,
    per_mille: u64,
}

/// How a call fails.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(in crate::stream) enum Fault {
    /// It is not done, and can be made again.
    Retriable,
    /// It is not done, and the transaction must be aborted.
    Abort,
    /// It is not done, and nobody says so.
    LostRequest,
    /// It is done, and nobody says so.
    LostAnswer,
    /// The producer is told that it was replaced.
    Fenced,
}

impl Faults {
    pub(in crate::stream) fn none() -> Self {
        Self { state: 1, per_mille: 0 }
    }

    pub(in crate::stream) fn seeded(seed: u64, per_mille: u64) -> Self {
        Self { state: seed.wrapping_mul(0x9E37_79B9_7F4A_7C15) | 1, per_mille }
    }

    /// Xorshift64*: enough chance for a plan, and the same on every machine.
    pub(in crate::stream) fn draw(&mut self, below: u64) -> u64 {
        self.state ^= self.state >> 12;
        self.state ^= self.state << 25;
        self.state ^= self.state >> 27;
        (self.state.wrapping_mul(0x2545_F491_4F6C_DD1D) >> 33) % below
    }

    pub(super) fn next(&mut self, kinds: &[Fault]) -> Option<Fault> {
        let strikes = self.per_mille > 0 && self.draw(1000) < self.per_mille;
        let kind = usize::try_from(self.draw(kinds.len() as u64)).unwrap();
        strikes.then(|| kinds[kind])
    }
}
