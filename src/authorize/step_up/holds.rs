//! The held records of one partition, and the grants that were spent there: what is committed, and a layer for each open
//! batch, merged when its transaction commits and dropped when it aborts. Limits: an index; payloads stand in the holds
//! topic, and what is written there is the caller's.

use std::collections::{BTreeMap, BTreeSet, HashMap, VecDeque};

use uuid::Uuid;

use super::entry::{Entry, Hash16, Wait};
use super::index::Index;
use super::{Turn, said};
use crate::authorize::ids::{Offset, UnixMillis};
use crate::authorize::record::Record;

/// A held record whose turn has come.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct DueHold {
    /// Its offset in the source partition.
    pub source: Offset,
    /// The offset of its payload.
    pub payload: Offset,
    /// What is to become of it.
    pub turn: Turn,
}

/// The held records of a partition.
#[derive(Debug, Default)]
pub struct Holds {
    committed: Index,
    /// Payloads whose state has not been read yet, while the partition is restored.
    loading: HashMap<Offset, Offset>,
    /// Oldest first.
    open: VecDeque<Layer>,
}

/// What an open batch changes.
#[derive(Debug, Default)]
struct Layer {
    entries: BTreeMap<Offset, Option<Entry>>,
    challenges: HashMap<Uuid, Offset>,
    queued: BTreeSet<(Hash16, Offset)>,
    /// `None` is a mark that is taken away.
    spent: HashMap<Hash16, Option<UnixMillis>>,
    /// How many more there are than before.
    more: isize,
}

impl Holds {
    /// Opens a layer for a batch.
    pub fn begin(&mut self) {
        self.open.push_back(Layer::default());
    }

    /// The oldest open batch is committed.
    pub fn commit(&mut self) {
        let Some(layer) = self.open.pop_front() else { return };
        for (source, entry) in layer.entries {
            match entry {
                Some(entry) => self.committed.insert(source, entry),
                None => self.committed.remove(source),
            }
        }
        for (grant, until) in layer.spent {
            self.committed.mark(grant, until);
        }
    }

    /// Every open batch is aborted.
    pub fn abort(&mut self) {
        self.open.clear();
    }

    /// How many records are held, those behind another included, as the newest open batch sees it.
    pub fn len(&self) -> usize {
        let more: isize = self.open.iter().map(|layer| layer.more).sum();
        self.committed.len().saturating_add_signed(more)
    }

    /// Whether nothing is held.
    pub fn is_empty(&self) -> bool {
        self.len() == 0
    }

    /// When the committed record that was read first was asked about. Those that wait behind it came later.
    pub fn oldest(&self) -> Option<UnixMillis> {
        self.committed.first().and_then(Entry::pending).map(|pending| pending.asked_at)
    }

    /// The record held from that offset.
    pub fn get(&self, source: Offset) -> Option<&Entry> {
        let changed = self.open.iter().rev().find_map(|layer| layer.entries.get(&source));
        match changed {
            Some(entry) => entry.as_ref(),
            None => self.committed.get(source),
        }
    }

    /// The record that is held for that challenge.
    pub fn named(&self, challenge: Uuid) -> Option<(Offset, &Entry)> {
        let open = self.open.iter().rev().find_map(|layer| layer.challenges.get(&challenge).copied());
        let source = open.or_else(|| self.committed.challenge(challenge))?;
        let entry = self.get(source)?;
        // What was replaced by another challenge, or has ended, is not held for this one.
        (entry.pending()?.challenge == challenge).then_some((source, entry))
    }

    /// The record that an answer names by its challenge, and where its payload stands: read without believing anything.
    pub fn answered_by(&self, answer: &Record) -> Option<(Offset, Offset)> {
        let (source, entry) = self.named(said::named(answer)?.decision.0)?;
        Some((source, entry.payload?))
    }

    /// How many records of that key are held, and how many of them wait behind others.
    pub(super) fn queued(&self, key: Hash16) -> (usize, usize) {
        let mut sources: BTreeSet<Offset> = self.committed.queue(key).collect();
        for layer in &self.open {
            let range = (key, Offset(i64::MIN))..=(key, Offset(i64::MAX));
            sources.extend(layer.queued.range(range).map(|(_, source)| *source));
        }
        let held: Vec<_> = sources.into_iter().filter_map(|source| self.get(source)).collect();
        let waiting = held.iter().filter(|entry| entry.wait == Wait::Others).count();
        (held.len(), waiting)
    }

    /// Holds a record, or changes how it is held.
    pub(super) fn put(&mut self, source: Offset, entry: Entry) {
        let known = self.get(source).is_some();
        let Some(layer) = self.open.back_mut() else { return self.committed.insert(source, entry) };
        layer.more += isize::from(!known);
        if let Some(pending) = entry.pending() {
            layer.challenges.insert(pending.challenge, source);
        }
        if let Some(key) = entry.key {
            layer.queued.insert((key, source));
        }
        layer.entries.insert(source, Some(entry));
    }

    /// Holds it no more.
    pub(super) fn remove(&mut self, source: Offset) {
        let known = self.get(source).is_some();
        let Some(layer) = self.open.back_mut() else { return self.committed.remove(source) };
        layer.more -= isize::from(known);
        layer.entries.insert(source, None);
    }

    /// Whether that grant was spent.
    pub(super) fn is_spent(&self, grant: Hash16) -> bool {
        let marked = self.open.iter().rev().find_map(|layer| layer.spent.get(&grant));
        marked.map_or_else(|| self.committed.is_spent(grant), Option::is_some)
    }

    /// Spends a grant that may come again until that moment.
    pub(super) fn spend(&mut self, grant: Hash16, until: UnixMillis) {
        match self.open.back_mut() {
            Some(layer) => drop(layer.spent.insert(grant, Some(until))),
            None => self.committed.mark(grant, Some(until)),
        }
    }

    /// Takes away at most so many marks of grants that nobody can use any more.
    pub(super) fn unmark(&mut self, now: UnixMillis, limit: usize) -> Vec<Hash16> {
        let touched = |grant: &Hash16| self.open.iter().any(|layer| layer.spent.contains_key(grant));
        let past: Vec<_> =
            self.committed.past_marks(now).filter(|grant| !touched(grant)).take(limit).collect();
        for grant in &past {
            match self.open.back_mut() {
                Some(layer) => drop(layer.spent.insert(*grant, None)),
                None => self.committed.mark(*grant, None),
            }
        }
        past
    }

    /// The payload of the record held from `source` stands at `payload`; called before the commit of its batch is taken in.
    pub fn stored(&mut self, source: Offset, payload: Offset) {
        // Nothing can touch an entry whose payload is not known yet, so it stands in the oldest layer alone.
        if let Some(Some(entry)) = self.open.front_mut().and_then(|layer| layer.entries.get_mut(&source)) {
            entry.payload = Some(payload);
        }
    }

    /// At most so many records whose turn has come at `now`, in the order of their offsets; answers have been decided up to
    /// `answered`. What an open batch has touched has its turn once that batch is committed.
    pub fn due(&self, now: UnixMillis, answered: UnixMillis, limit: usize) -> Vec<DueHold> {
        let mut due: BTreeMap<Offset, DueHold> = BTreeMap::new();
        let ready = self.committed.ready().map(|source| (source, Turn::Decide));
        let ended =
            self.committed.ended(UnixMillis(answered.0.min(now.0))).map(|source| (source, Turn::TimedOut));
        let reminded = self.committed.reminded(now, limit).map(|source| (source, Turn::Remind));
        // A limit for each kind, so that many of one cannot cost more than is asked for.
        self.collect(ready, limit, &mut due);
        self.collect(ended, limit, &mut due);
        self.collect(reminded, limit, &mut due);
        due.into_values().take(limit).collect()
    }

    fn collect(
        &self,
        turns: impl Iterator<Item = (Offset, Turn)>,
        limit: usize,
        due: &mut BTreeMap<Offset, DueHold>,
    ) {
        for (source, turn) in turns.filter(|(source, _)| !self.is_touched(*source)).take(limit) {
            if let Some(payload) = self.committed.get(source).and_then(Entry::payload) {
                due.entry(source).or_insert(DueHold { source, payload, turn });
            }
        }
    }

    /// The next moment at which a record is out of time if nothing else happens; a past one where something is due.
    pub fn next_timer(&self) -> Option<UnixMillis> {
        let free = |source: &Offset| !self.is_touched(*source);
        if self.committed.ready().any(|source| free(&source)) {
            return Some(UnixMillis(i64::MIN));
        }
        self.committed.first_out_of_time(free)
    }

    fn is_touched(&self, source: Offset) -> bool {
        self.open.iter().any(|layer| layer.entries.contains_key(&source))
    }

    /// While the partition is restored: the payload of a record stands there, or is gone.
    pub fn load_payload(&mut self, source: Offset, payload: Option<Offset>) {
        match (self.committed.take(source), payload) {
            (Some(entry), payload) => self.committed.insert(source, Entry { payload, ..entry }),
            (None, Some(payload)) => drop(self.loading.insert(source, payload)),
            (None, None) => drop(self.loading.remove(&source)),
        }
    }

    /// While the partition is restored: how a record is held, or that it is no more.
    pub fn load_state(&mut self, source: Offset, entry: Option<Entry>) {
        let Some(entry) = entry else {
            self.committed.remove(source);
            self.loading.remove(&source);
            return;
        };
        let before = self.committed.take(source).and_then(|entry| entry.payload);
        let payload = before.or_else(|| self.loading.remove(&source));
        self.committed.insert(source, Entry { payload, ..entry });
    }

    /// While the partition is restored: a grant was spent, or its mark is gone.
    pub fn load_grant(&mut self, grant: Hash16, until: Option<UnixMillis>) {
        self.committed.mark(grant, until);
    }
}
