//! The one place where what decides is published: whole, in one switch, with a note of who may still decide by what came
//! before. Limits: it changes no part of it by itself.

use std::sync::{Arc, Mutex, PoisonError};

use arc_swap::ArcSwap;

use super::topics::{Pins, Taken};
use crate::authorize::engine::Snapshot;

/// The newest snapshot, and those before it that are still in use.
#[derive(Debug)]
pub(super) struct Published {
    snapshots: Arc<ArcSwap<Snapshot>>,
    noted: Mutex<Noted>,
}

#[derive(Debug)]
struct Noted {
    taken: Taken,
    pins: Pins<Snapshot>,
}

impl Published {
    pub(super) fn new(first: Snapshot) -> Self {
        let (first, mut pins) = (Arc::new(first), Pins::default());
        pins.publish(&first, Taken::new());
        let noted = Mutex::new(Noted { taken: Taken::new(), pins });
        Self { snapshots: Arc::new(ArcSwap::new(first)), noted }
    }

    pub(super) fn snapshots(&self) -> &Arc<ArcSwap<Snapshot>> {
        &self.snapshots
    }

    /// Publishes the newest with a change, and with what it has taken in of the followed topics.
    pub(super) fn publish(&self, change: impl FnOnce(&mut Snapshot, &mut Taken)) {
        // Held throughout: of two changes at once neither is lost.
        let mut noted = self.noted.lock().unwrap_or_else(PoisonError::into_inner);
        let Noted { taken, pins } = &mut *noted;
        let mut next = Snapshot::clone(&self.snapshots.load());
        change(&mut next, taken);
        let next = Arc::new(next);
        pins.publish(&next, taken.clone());
        self.snapshots.store(next);
    }

    /// What the newest has taken in.
    pub(super) fn newest(&self) -> Taken {
        self.noted.lock().unwrap_or_else(PoisonError::into_inner).taken.clone()
    }

    /// What everybody has taken in who still decides.
    pub(super) fn oldest(&self) -> Taken {
        // Nobody can be handed what was replaced: whoever holds the lock to replace it is done.
        self.noted.lock().unwrap_or_else(PoisonError::into_inner).pins.oldest()
    }
}
