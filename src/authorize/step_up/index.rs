//! What is committed of a partition's holds, with an order for each question that is asked of it: by challenge, by key, by
//! end, by reminder, and whose turn has come. Limits: no layers; `holds` puts them over it.

use std::collections::{BTreeMap, BTreeSet, HashMap};

use uuid::Uuid;

use super::challenge::Status;
use super::entry::{Entry, Hash16, Wait};
use crate::authorize::ids::{Offset, UnixMillis};

/// The committed holds of a partition.
#[derive(Debug, Default)]
pub(super) struct Index {
    entries: BTreeMap<Offset, Entry>,
    challenges: HashMap<Uuid, Offset>,
    ends: BTreeSet<(UnixMillis, Offset)>,
    reminders: BTreeSet<(UnixMillis, Offset)>,
    /// Answered, with a fresh login, or first of their key.
    ready: BTreeSet<Offset>,
    queues: BTreeSet<(Hash16, Offset)>,
    spent: HashMap<Hash16, UnixMillis>,
    spent_ends: BTreeSet<(UnixMillis, Hash16)>,
}

const LEAST: Offset = Offset(i64::MIN);

impl Index {
    pub(super) fn len(&self) -> usize {
        self.entries.len()
    }

    pub(super) fn get(&self, source: Offset) -> Option<&Entry> {
        self.entries.get(&source)
    }

    /// The one that was read first.
    pub(super) fn first(&self) -> Option<&Entry> {
        self.entries.values().next()
    }

    pub(super) fn challenge(&self, challenge: Uuid) -> Option<Offset> {
        self.challenges.get(&challenge).copied()
    }

    pub(super) fn queue(&self, key: Hash16) -> impl Iterator<Item = Offset> {
        self.queues.range((key, LEAST)..=(key, Offset(i64::MAX))).map(|(_, source)| *source)
    }

    pub(super) fn ready(&self) -> impl Iterator<Item = Offset> {
        self.ready.iter().copied()
    }

    /// Those whose hold ended before that moment.
    pub(super) fn ended(&self, before: UnixMillis) -> impl Iterator<Item = Offset> {
        self.ends.range(..(before, LEAST)).map(|(_, source)| *source)
    }

    /// Those with a reminder that should have been sent by now, and whose hold has not ended; of the first so many that have
    /// one, for those that have ended wait in the same order until the answers are read.
    pub(super) fn reminded(&self, now: UnixMillis, limit: usize) -> impl Iterator<Item = Offset> {
        let open = move |source: &Offset| {
            self.get(*source).and_then(Entry::pending).is_some_and(|pending| pending.until >= now)
        };
        let range = self.reminders.range(..=(now, Offset(i64::MAX)));
        range.map(|(_, source)| *source).take(limit).filter(open)
    }

    /// When the first of those records is out of time. A reminder is none of it: one that was missed is not sent after the
    /// end, and would stand here for ever.
    pub(super) fn first_out_of_time(&self, of: impl Fn(&Offset) -> bool) -> Option<UnixMillis> {
        let (UnixMillis(end), _) = self.ends.iter().find(|(_, source)| of(source))?;
        // After its end, not at it.
        Some(UnixMillis(end.saturating_add(1)))
    }

    /// Puts an entry in the place of the one that was there.
    pub(super) fn insert(&mut self, source: Offset, entry: Entry) {
        drop(self.take(source));
        if let Some(key) = entry.key {
            // A later one that was first of its key is so no more.
            let head = self.queue(key).next();
            if let Some(head) = head.filter(|head| *head > source)
                && self.get(head).is_some_and(|entry| entry.wait == Wait::Others)
            {
                self.ready.remove(&head);
            }
            self.queues.insert((key, source));
        }
        if let Some(pending) = entry.pending() {
            self.challenges.insert(pending.challenge, source);
        }
        // Without its payload nothing can be done about it.
        if entry.payload.is_some() {
            match &entry.wait {
                Wait::Others => {
                    if entry.key.and_then(|key| self.queue(key).next()).is_none_or(|head| head == source) {
                        self.ready.insert(source);
                    }
                }
                Wait::Answers(pending) if pending.status == Status::Open => {
                    self.ends.insert((pending.until, source));
                    self.reminders.extend(pending.next_reminder().map(|at| (at, source)));
                    if pending.is_due() {
                        self.ready.insert(source);
                    }
                }
                Wait::Answers(_) => drop(self.ready.insert(source)),
            }
        }
        self.entries.insert(source, entry);
    }

    /// Takes an entry out, and every trace of it.
    pub(super) fn take(&mut self, source: Offset) -> Option<Entry> {
        let entry = self.entries.remove(&source)?;
        self.ready.remove(&source);
        if let Some(pending) = entry.pending() {
            if self.challenge(pending.challenge) == Some(source) {
                self.challenges.remove(&pending.challenge);
            }
            self.ends.remove(&(pending.until, source));
            if let Some(at) = pending.next_reminder() {
                self.reminders.remove(&(at, source));
            }
        }
        if let Some(key) = entry.key {
            self.queues.remove(&(key, source));
        }
        Some(entry)
    }

    /// Takes an entry out for good: the next of its key has its turn.
    pub(super) fn remove(&mut self, source: Offset) {
        let Some(key) = self.take(source).and_then(|entry| entry.key) else { return };
        let Some(head) = self.queue(key).next() else { return };
        let free = |entry: &Entry| entry.wait == Wait::Others && entry.payload.is_some();
        if self.get(head).is_some_and(free) {
            self.ready.insert(head);
        }
    }

    pub(super) fn is_spent(&self, grant: Hash16) -> bool {
        self.spent.contains_key(&grant)
    }

    /// Marks a grant as spent until that moment, or takes its mark away.
    pub(super) fn mark(&mut self, grant: Hash16, until: Option<UnixMillis>) {
        let before = match until {
            Some(until) => self.spent.insert(grant, until),
            None => self.spent.remove(&grant),
        };
        if let Some(before) = before {
            self.spent_ends.remove(&(before, grant));
        }
        self.spent_ends.extend(until.map(|until| (until, grant)));
    }

    /// The marks whose end lies before that moment.
    pub(super) fn past_marks(&self, now: UnixMillis) -> impl Iterator<Item = Hash16> {
        self.spent_ends.range(..(now, Hash16::LEAST)).map(|(_, grant)| *grant)
    }
}
