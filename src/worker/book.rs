//! What a worker has heard on the signals topic: which signals, and until when gates were there to send any. Pure: moments
//! are handed in. Limits: bounded in number and age; what it had to forget it knows, so that work older than its memory is
//! not taken for work that nobody stopped.

use std::collections::{BTreeMap, HashMap, HashSet, VecDeque};
use std::sync::Arc;

use super::marks::Marks;
use super::signals::{Bounds, Stop};
use crate::authorize::ids::{Digest, Partition, UnixMillis, WorkloadId};
use crate::authorize::standing::{Status, Target};
use crate::wire::signal::{Event, Heard, Heartbeat, Said, Signal};

/// Signals that are remembered, at most: about 500 bytes each.
const MAX_SIGNALS: usize = 200_000;
/// Gates that are heard on one partition, at most. Only gates can add to it.
const MAX_GATES: usize = 1024;

#[derive(Debug)]
pub(super) struct Book {
    bounds: Bounds,
    /// When listening began.
    began: UnixMillis,
    partitions: BTreeMap<Partition, Ear>,
    by_name: HashMap<Target, Vec<Arc<Entry>>>,
    /// In the order in which they came.
    order: VecDeque<Arc<Entry>>,
    ids: HashSet<Digest>,
    /// What was issued before this may have been forgotten.
    horizon: UnixMillis,
}

#[derive(Debug)]
struct Entry {
    gate: WorkloadId,
    issued_at: UnixMillis,
    signal: Signal,
}

/// One partition of the topic.
#[derive(Debug)]
struct Ear {
    /// When something new was last heard, by this worker's clock; at first, when listening to it began.
    heard_at: UnixMillis,
    /// Whether a gate was heard at all.
    live: bool,
    /// How far each gate had told everything.
    gates: HashMap<String, UnixMillis>,
}

impl Book {
    pub(super) fn new(bounds: Bounds, now: UnixMillis) -> Self {
        Self {
            bounds,
            began: now,
            partitions: BTreeMap::new(),
            by_name: HashMap::new(),
            order: VecDeque::new(),
            ids: HashSet::new(),
            horizon: UnixMillis(i64::MIN),
        }
    }

    /// From now on each of these partitions must be heard.
    pub(super) fn listen(&mut self, partitions: impl IntoIterator<Item = Partition>, now: UnixMillis) {
        for partition in partitions {
            self.partitions.entry(partition).or_insert_with(|| Ear {
                heard_at: now,
                live: false,
                gates: HashMap::new(),
            });
        }
    }

    /// Takes in what was verified. Whether that is a signal that was not known yet.
    pub(super) fn take(&mut self, partition: Partition, heard: Heard, now: UnixMillis) -> bool {
        match heard.said {
            Said::Heartbeat(heartbeat) => {
                self.hear(partition, heartbeat, now);
                false
            }
            Said::Signal(signal) => {
                self.note(Entry { gate: heard.gate, issued_at: heard.issued_at, signal }, now)
            }
        }
    }

    /// An old heartbeat, or one that came before, says nothing about now: anybody who may write to the topic could have
    /// copied it.
    fn hear(&mut self, partition: Partition, heartbeat: Heartbeat, now: UnixMillis) {
        let oldest = now.0.saturating_sub(self.bounds.silence_ms() + self.bounds.skew_ms());
        let Some(ear) = self.partitions.get_mut(&partition) else { return };
        if heartbeat.as_of.0 < oldest {
            return;
        }
        if ear.gates.len() >= MAX_GATES {
            ear.gates.retain(|_, as_of| as_of.0 >= oldest);
        }
        let known = ear.gates.entry(heartbeat.instance).or_insert(UnixMillis(i64::MIN));
        if heartbeat.as_of > *known {
            *known = heartbeat.as_of;
            (ear.heard_at, ear.live) = (now, true);
        }
    }

    fn note(&mut self, entry: Entry, now: UnixMillis) -> bool {
        let oldest = now.0.saturating_sub(self.bounds.remember_ms());
        while self.order.front().is_some_and(|first| first.issued_at.0 < oldest) {
            self.forget_first();
        }
        if entry.issued_at.0 < oldest || !self.ids.insert(entry.signal.id) {
            return false;
        }
        if self.order.len() >= MAX_SIGNALS {
            self.forget_first();
        }
        let entry = Arc::new(entry);
        self.by_name.entry(entry.signal.about.clone()).or_default().push(Arc::clone(&entry));
        self.order.push_back(entry);
        true
    }

    fn forget_first(&mut self) {
        let Some(first) = self.order.pop_front() else { return };
        self.horizon = self.horizon.max(first.issued_at);
        self.ids.remove(&first.signal.id);
        if let Some(entries) = self.by_name.get_mut(&first.signal.about) {
            entries.retain(|entry| entry.signal.id != first.signal.id);
            if entries.is_empty() {
                self.by_name.remove(&first.signal.about);
            }
        }
    }

    /// Whether every partition has been heard since listening began: then everything that was told before is known.
    pub(super) fn is_live(&self) -> bool {
        !self.partitions.is_empty() && self.partitions.values().all(|ear| ear.live)
    }

    /// Until when the gates were heard on every partition.
    pub(super) fn heard_until(&self) -> UnixMillis {
        self.partitions.values().map(|ear| ear.heard_at).min().unwrap_or(self.began)
    }

    /// Whether signals about that work may have been forgotten already when its watch begins.
    pub(super) fn is_too_old(&self, marks: &Marks, now: UnixMillis) -> bool {
        let oldest = now.0.saturating_sub(self.bounds.remember_ms());
        // A signal is issued after what it stops was decided, or so shortly before that it still counts.
        marks.decided_at.0.saturating_sub(self.bounds.known_after_ms()) < oldest.max(self.horizon.0)
    }

    /// Why that work must stop at `now`, if it must.
    pub(super) fn stop(&self, marks: &Marks, now: UnixMillis) -> Option<Stop> {
        let entries = marks.names().iter().filter_map(|name| self.by_name.get(name)).flatten();
        let known_after = self.bounds.known_after_ms();
        let mut concerned = entries.filter(|entry| {
            marks.are_concerned((&entry.gate, entry.issued_at), &entry.signal, now, known_after)
        });
        if let Some(entry) = concerned.next() {
            return Some(because(&entry.signal));
        }
        let heard = self.heard_until();
        (now.0.saturating_sub(heard.0) > self.bounds.silence_ms()).then_some(Stop::Silence { since: heard })
    }
}

fn because(signal: &Signal) -> Stop {
    let Signal { id, about, event, event_at, reason } = signal.clone();
    match event {
        Event::Revoked { .. } => Stop::Revoked { about, reason, at: event_at, signal: id },
        Event::Workflow(Status::Suspended) => Stop::WorkflowSuspended { workflow: about.id },
        Event::Workflow(status) => Stop::WorkflowEnded { workflow: about.id, status },
    }
}

#[cfg(test)]
mod tests;
