//! The proofs that were used over HTTP, each once. Limits: one process and since its start: a proof that another gate of the
//! same address has seen is not known here.

use std::sync::{Mutex, PoisonError};

use crate::authorize::ids::UnixMillis;
use crate::authorize::limits::MAX_REQUEST_PROOFS;
use crate::authorize::replay::{Entry, Memory, Seen, window_ms};
use crate::authorize::route::Route;

/// What was used, for as long as it could be used again.
#[derive(Debug)]
pub(super) struct Proofs {
    memory: Mutex<Memory>,
    window_ms: i64,
}

impl Proofs {
    pub(super) fn new(route: &Route) -> Self {
        let window_ms = window_ms(route);
        Self { memory: Mutex::new(Memory::new(window_ms)), window_ms }
    }

    /// Whether this is the first use; from now on it is not.
    pub(super) fn once(&self, entry: &Entry, now: UnixMillis) -> bool {
        let mut memory = self.memory.lock().unwrap_or_else(PoisonError::into_inner);
        memory.forget(UnixMillis(now.0.saturating_sub(self.window_ms)));
        let is_first = memory.check(entry) == Seen::New;
        if is_first {
            memory.restore([*entry]);
        }
        is_first
    }

    /// Whether there is no room for another.
    pub(super) fn is_full(&self, now: UnixMillis) -> bool {
        let mut memory = self.memory.lock().unwrap_or_else(PoisonError::into_inner);
        if memory.len() < MAX_REQUEST_PROOFS {
            return false;
        }
        memory.forget(UnixMillis(now.0.saturating_sub(self.window_ms)));
        memory.len() >= MAX_REQUEST_PROOFS
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::authorize::ids::{Offset, Topic, WorkloadId};

    #[test]
    fn a_proof_is_used_once_for_as_long_as_it_lives() {
        let topic = |name| Topic::parse(name).unwrap();
        let route = Route::new("r", vec![topic("a")], topic("b"), topic("c"), topic("d"));
        let proofs = Proofs::new(&route);
        let sender = WorkloadId::parse("spiffe://example.org/a").unwrap();
        let entry = |at| Entry::new(&sender, "j", Offset(-1), UnixMillis(at));
        assert!(proofs.once(&entry(0), UnixMillis(0)));
        assert!(!proofs.once(&entry(360_000), UnixMillis(360_000)));
        assert!(!proofs.is_full(UnixMillis(0)));
        // No proof lives that long, so this one can only be another under the same id.
        assert!(proofs.once(&entry(900_000), UnixMillis(900_000)));
    }
}
