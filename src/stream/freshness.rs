//! How old the gate's view of the topics that it follows is, for those who decide by it. Limits: whoever follows the topics
//! says of which moment the view is; nothing here reads a topic.

use std::fmt;
use std::sync::Arc;
use std::time::{Duration, Instant, SystemTime};

use arc_swap::ArcSwapOption;

/// A moment by both clocks of the machine. The steady one stands still while a machine sleeps, the other can be set back:
/// the age of a moment is what the one says that says more.
#[derive(Debug, Clone, Copy)]
pub struct Instants {
    steady: Instant,
    wall: SystemTime,
}

impl Instants {
    /// The present moment.
    pub fn now() -> Self {
        Self { steady: Instant::now(), wall: SystemTime::now() }
    }

    /// The moment that much later.
    #[cfg(test)]
    pub(crate) fn after(self, time: Duration) -> Self {
        Self { steady: self.steady + time, wall: self.wall + time }
    }

    /// Time from this moment to `now`, at least.
    pub fn age(self, now: Self) -> Duration {
        let wall = now.wall.duration_since(self.wall).unwrap_or_default();
        wall.max(now.steady.saturating_duration_since(self.steady))
    }

    /// Whether this moment comes before the other by the steady clock.
    pub fn is_before(self, other: Self) -> bool {
        self.steady < other.steady
    }
}

/// The oldest part of a view.
#[derive(Debug, Clone)]
pub struct ViewAge {
    /// The part: a partition, or what else has to be heard of.
    pub part: String,
    /// Everything that the brokers had taken by then has been taken in; `None` where nothing is known yet.
    pub as_of: Option<Instants>,
}

/// Shared by the one who follows and by those who decide. Clones are cheap and all the same.
#[derive(Clone, Default)]
pub struct Freshness(Option<Arc<Shared>>);

struct Shared {
    limit: Duration,
    oldest: ArcSwapOption<ViewAge>,
}

impl Freshness {
    /// A view that may be as old as `limit`, and of which nothing is known yet. The default is the view of one who follows
    /// nothing, which is always current.
    pub fn within(limit: Duration) -> Self {
        Self(Some(Arc::new(Shared { limit, oldest: ArcSwapOption::empty() })))
    }

    /// Says what the oldest part of the view is.
    pub fn set(&self, oldest: ViewAge) {
        if let Some(shared) = &self.0 {
            shared.oldest.store(Some(Arc::new(oldest)));
        }
    }

    /// The age of the view at a moment; `None` where nothing is followed or nothing has been read yet.
    pub fn age(&self, now: Instants) -> Option<Duration> {
        let oldest = self.0.as_ref()?.oldest.load_full()?;
        Some(oldest.as_of?.age(now))
    }

    /// Whether one may decide by the view at a moment.
    ///
    /// # Errors
    /// The sentence that says what is not current.
    pub fn check(&self, now: Instants) -> Result<(), String> {
        let Some(shared) = &self.0 else { return Ok(()) };
        let Some(oldest) = shared.oldest.load_full() else {
            return Err("the control topics have not been read to their end yet".to_owned());
        };
        let part = &oldest.part;
        match oldest.as_of.map(|as_of| as_of.age(now)) {
            None => Err(format!("{part} has not been read to its end yet")),
            Some(age) if age > shared.limit => Err(format!(
                "the view of {part} is {:.1} s old and may be {:.1} s",
                age.as_secs_f64(),
                shared.limit.as_secs_f64()
            )),
            Some(_) => Ok(()),
        }
    }
}

impl fmt::Debug for Freshness {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_tuple("Freshness").field(&self.0.as_ref().map(|shared| shared.limit)).finish()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const SECOND: Duration = Duration::from_secs(1);

    fn view(as_of: Option<Instants>) -> ViewAge {
        ViewAge { part: "`c.revocations/0`".to_owned(), as_of }
    }

    #[test]
    fn a_view_is_current_until_its_oldest_part_is_too_old() {
        let (fresh, start) = (Freshness::within(10 * SECOND), Instants::now());
        assert!(fresh.check(start).unwrap_err().contains("not been read"));
        fresh.set(view(None));
        assert!(fresh.check(start).unwrap_err().contains("`c.revocations/0` has not been read"));
        fresh.clone().set(view(Some(start)));
        assert_eq!(fresh.check(start.after(10 * SECOND)), Ok(()));
        let stale = fresh.check(start.after(12 * SECOND)).unwrap_err();
        assert_eq!(stale, "the view of `c.revocations/0` is 12.0 s old and may be 10.0 s");
        assert_eq!(fresh.age(start.after(12 * SECOND)), Some(12 * SECOND));
        fresh.set(view(Some(start.after(11 * SECOND))));
        assert_eq!(fresh.check(start.after(12 * SECOND)), Ok(()), "it is current again by itself");
    }

    #[test]
    fn who_follows_nothing_is_always_current() {
        let fresh = Freshness::default();
        assert_eq!((fresh.check(Instants::now()), fresh.age(Instants::now())), (Ok(()), None));
    }

    #[test]
    fn a_machine_that_slept_has_an_old_view_whatever_its_steady_clock_says() {
        let start = Instants::now();
        let slept = Instants { steady: start.steady, wall: start.wall + 60 * SECOND };
        let set_back = Instants { steady: start.steady + 60 * SECOND, wall: start.wall - 60 * SECOND };
        assert_eq!((start.age(slept), start.age(set_back)), (60 * SECOND, 60 * SECOND));
    }
}
