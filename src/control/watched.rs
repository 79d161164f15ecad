//! A value that is read again when its source changes: the last good one, how often it has changed, since when it
//! stands, and what is wrong with the newest. Limits: it holds; who reads and checks the source hands the result in.

use std::sync::Arc;

use arc_swap::ArcSwap;

use crate::authorize::ids::UnixMillis;

/// The last good state of a watched thing. Reading it never waits.
#[derive(Debug)]
pub struct Watched<T> {
    state: ArcSwap<State<T>>,
}

/// One state of a watched thing, pinned for as long as somebody holds it.
#[derive(Debug)]
pub struct State<T> {
    /// The last good value.
    pub value: Arc<T>,
    /// How many good values there have been, from 1.
    pub version: u64,
    /// When this value was loaded.
    pub loaded_at: UnixMillis,
    /// When the source was last found to hold this value, or something bad.
    pub checked_at: UnixMillis,
    /// Why the source's present content is not in use; `None` where it is.
    pub error: Option<Arc<str>>,
}

impl<T> Watched<T> {
    /// Begins with a value that has been loaded and checked.
    pub fn new(value: Arc<T>, now: UnixMillis) -> Self {
        let state = State { value, version: 1, loaded_at: now, checked_at: now, error: None };
        Self { state: ArcSwap::from_pointee(state) }
    }

    /// The present state.
    pub fn state(&self) -> Arc<State<T>> {
        self.state.load_full()
    }

    /// The last good value.
    pub fn value(&self) -> Arc<T> {
        Arc::clone(&self.state.load().value)
    }

    /// Switches to a new value. One thread alone may call this and the two below.
    pub fn switch(&self, value: Arc<T>, now: UnixMillis) {
        let version = self.state.load().version + 1;
        let state = State { value, version, loaded_at: now, checked_at: now, error: None };
        self.state.store(Arc::new(state));
    }

    /// Keeps the last good value and says what is wrong with the newest.
    pub fn refuse(&self, error: impl Into<Arc<str>>, now: UnixMillis) {
        self.keep(Some(error.into()), now);
    }

    /// Notes that the source holds the value in use.
    pub fn confirm(&self, now: UnixMillis) {
        self.keep(None, now);
    }

    fn keep(&self, error: Option<Arc<str>>, now: UnixMillis) {
        let old = self.state.load();
        let value = Arc::clone(&old.value);
        let state = State { value, version: old.version, loaded_at: old.loaded_at, checked_at: now, error };
        self.state.store(Arc::new(state));
    }
}

impl<T> State<T> {
    /// How old the value is, in milliseconds; 0 where the clock went back.
    pub fn age_ms(&self, now: UnixMillis) -> i64 {
        now.0.saturating_sub(self.loaded_at.0).max(0)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_bad_value_changes_nothing_but_what_is_said_about_it() {
        let watched = Watched::new(Arc::new("first"), UnixMillis(1000));
        let pinned = watched.state();
        watched.refuse("line 3 is wrong", UnixMillis(2000));
        let state = watched.state();
        assert_eq!((*state.value, state.version, state.age_ms(UnixMillis(5000))), ("first", 1, 4000));
        assert_eq!((state.checked_at, state.error.as_deref()), (UnixMillis(2000), Some("line 3 is wrong")));

        watched.switch(Arc::new("second"), UnixMillis(3000));
        let state = watched.state();
        assert_eq!((*state.value, state.version, state.age_ms(UnixMillis(2000))), ("second", 2, 0));
        assert!(state.error.is_none());
        assert_eq!(*pinned.value, "first", "who pinned the old state keeps it");
    }

    #[test]
    fn putting_the_good_content_back_clears_the_error() {
        let watched = Watched::new(Arc::new(7), UnixMillis(0));
        watched.refuse("bad", UnixMillis(1));
        watched.confirm(UnixMillis(2));
        let state = watched.state();
        assert_eq!((state.version, state.loaded_at, state.checked_at), (1, UnixMillis(0), UnixMillis(2)));
        assert!(state.error.is_none());
    }
}
