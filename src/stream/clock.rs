//! Time for a lane: handed in, so that tests own it. Limits: nothing but a lane and its gate may ask.

use std::time::{Duration, Instant, SystemTime, UNIX_EPOCH};

use crate::authorize::ids::UnixMillis;

/// Where a lane's time comes from.
pub trait Clock {
    /// The present moment: *N* of the contract, and the audit record's `decided`.
    fn now(&self) -> UnixMillis;
    /// Time since this clock was made; never goes back.
    fn elapsed(&self) -> Duration;
    /// Waits.
    fn sleep(&self, time: Duration);
}

/// The machine's clock.
#[derive(Debug, Clone, Copy)]
pub struct SystemClock(Instant);

impl SystemClock {
    /// A clock whose `elapsed` starts now.
    pub fn start() -> Self {
        Self(Instant::now())
    }
}

impl Clock for SystemClock {
    fn now(&self) -> UnixMillis {
        // Before 1970 every token is from the future and every record is denied: a broken clock fails closed.
        let since = SystemTime::now().duration_since(UNIX_EPOCH).unwrap_or_default();
        UnixMillis(i64::try_from(since.as_millis()).unwrap_or(i64::MAX))
    }
    fn elapsed(&self) -> Duration {
        self.0.elapsed()
    }
    fn sleep(&self, time: Duration) {
        std::thread::sleep(time);
    }
}
