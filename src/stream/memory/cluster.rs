//! A cluster in memory: partitions, transactions with their markers, committed positions, members. Limits: one thread; who
//! owns which partition is the test's choice.

use std::cell::RefCell;
use std::collections::{BTreeMap, BTreeSet, VecDeque};
use std::rc::Rc;
use std::time::Duration;

use bytes::Bytes;

use crate::authorize::ids::{Coordinates, Offset, Position, Topic, UnixMillis};
use crate::authorize::record::{Record, TimestampType};
use crate::stream::log::{Event, Mark, TopicPartition};
use crate::wire::outgoing::Outgoing;

/// How long a transaction may be open.
const SWEPT: Duration = Duration::from_secs(5);

/// A cluster that all logs of a test share.
#[derive(Clone, Default)]
pub(in crate::stream) struct Cluster(pub(super) Rc<RefCell<Inner>>);

#[derive(Default)]
pub(super) struct Inner {
    pub(super) partitions: BTreeMap<TopicPartition, Vec<Entry>>,
    /// The current epoch of each transactional id.
    pub(super) epochs: BTreeMap<String, u64>,
    pub(super) open: BTreeMap<String, Transaction>,
    pub(super) committed: BTreeMap<TopicPartition, (Position, String)>,
    /// Whose positions are held back by a transaction that nobody can end.
    pub(super) unsettled: BTreeSet<TopicPartition>,
    pub(super) members: BTreeMap<usize, Member>,
    /// Partitions that are given to a member as soon as another has given them up.
    pub(super) promised: BTreeMap<TopicPartition, usize>,
    /// What no topic takes, by topic; `true`: the broker does not say which record it was.
    pub(super) refused: Vec<(Topic, Unwanted, bool)>,
    /// What was committed, in that order.
    pub(super) commits: Vec<Committed>,
}

/// Whether a topic refuses a record.
pub(super) type Unwanted = Box<dyn Fn(&Outgoing) -> bool>;

/// One transaction that was committed.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(in crate::stream) struct Committed {
    pub(in crate::stream) records: Vec<Record>,
    pub(in crate::stream) marks: Vec<Mark>,
}

#[derive(Default)]
pub(super) struct Member {
    pub(super) owned: BTreeSet<TopicPartition>,
    pub(super) events: VecDeque<Event>,
    pub(super) dead: bool,
    /// The group has given up on it, and it has not heard of that yet.
    pub(super) expelled: bool,
}

#[derive(Default)]
pub(super) struct Transaction {
    pub(super) entries: Vec<(TopicPartition, usize)>,
    pub(super) marks: Vec<Mark>,
    /// When it was first seen open by somebody who waits.
    since: Option<Duration>,
}

pub(super) struct Entry {
    pub(super) record: Option<Record>,
    pub(super) fate: EntryFate,
}

#[derive(Clone, Copy, PartialEq, Eq)]
pub(super) enum EntryFate {
    Open,
    Committed,
    Aborted,
}

impl Cluster {
    /// Makes a topic, or lets it grow.
    pub(in crate::stream) fn create(&self, topic: &Topic, partitions: i32) {
        for partition in 0..partitions {
            let of = TopicPartition {
                topic: topic.clone(),
                partition: crate::authorize::ids::Partition(partition),
            };
            self.0.borrow_mut().partitions.entry(of).or_default();
        }
    }

    /// Appends a record outside of any transaction.
    pub(in crate::stream) fn produce(&self, of: &TopicPartition, value: &[u8]) {
        self.append(of, None, value, None);
    }

    /// Appends an answer, stamped by the broker at that moment.
    pub(in crate::stream) fn answer(&self, of: &TopicPartition, key: &str, value: &str, at: UnixMillis) {
        self.append(of, Some(Bytes::copy_from_slice(key.as_bytes())), value.as_bytes(), Some(at));
    }

    /// Removes what a compacted topic may forget: all but the last record of each key. Tombstones stay, as a broker keeps
    /// them for a day, so that a slow reader learns of them.
    pub(in crate::stream) fn compact(&self, topic: &Topic) {
        let mut inner = self.0.borrow_mut();
        for (_, entries) in inner.partitions.iter_mut().filter(|(of, _)| of.topic == *topic) {
            let settled =
                entries.iter().position(|entry| entry.fate == EntryFate::Open).unwrap_or(entries.len());
            let mut later = BTreeSet::new();
            for entry in entries[..settled].iter_mut().rev() {
                let Some(record) = &entry.record else { continue };
                let is_last = entry.fate == EntryFate::Committed && later.insert(record.key.clone());
                if !is_last {
                    entry.record = None;
                }
            }
        }
    }

    /// Takes one record away, as nobody should.
    pub(in crate::stream) fn destroy(&self, of: &TopicPartition, offset: i64) {
        let index = usize::try_from(offset).unwrap();
        self.0.borrow_mut().partitions.get_mut(of).unwrap()[index].record = None;
    }

    fn append(&self, of: &TopicPartition, key: Option<Bytes>, value: &[u8], at: Option<UnixMillis>) {
        let mut inner = self.0.borrow_mut();
        let entries = inner.partitions.get_mut(of).unwrap();
        let record = Record {
            source: Coordinates {
                topic: of.topic.clone(),
                partition: of.partition,
                offset: Offset(entries.len() as i64),
            },
            timestamp: at,
            timestamp_type: at.map_or(TimestampType::NotAvailable, |_| TimestampType::LogAppendTime),
            key,
            value: Some(Bytes::copy_from_slice(value)),
            headers: Vec::new(),
        };
        entries.push(Entry { record: Some(record), fate: EntryFate::Committed });
    }

    /// The committed records of a partition, as a reader of committed records sees them.
    pub(in crate::stream) fn read(&self, of: &TopicPartition) -> Vec<Record> {
        let inner = self.0.borrow();
        let stable = inner.stable_end(of);
        inner.partitions[of][..stable]
            .iter()
            .filter(|entry| entry.fate == EntryFate::Committed)
            .filter_map(|entry| entry.record.clone())
            .collect()
    }

    pub(in crate::stream) fn position(&self, of: &TopicPartition) -> Option<(Position, String)> {
        self.0.borrow().committed.get(of).cloned()
    }

    pub(in crate::stream) fn set_position(&self, of: &TopicPartition, position: Option<(Position, String)>) {
        let mut inner = self.0.borrow_mut();
        inner.committed.remove(of);
        if let Some(position) = position {
            inner.committed.insert(of.clone(), position);
        }
    }

    /// Gives partitions to a member: those of another member when that has given them up.
    pub(in crate::stream) fn assign(&self, to: usize, partitions: &[TopicPartition]) {
        let mut inner = self.0.borrow_mut();
        for of in partitions {
            let owner = inner
                .members
                .iter()
                .find(|(number, member)| **number != to && !member.dead && member.owned.contains(of))
                .map(|(number, _)| *number);
            match owner.and_then(|owner| inner.members.get_mut(&owner)) {
                Some(owner) => {
                    owner.events.push_back(Event::Revoked(vec![of.clone()]));
                    inner.promised.insert(of.clone(), to);
                }
                None => inner.give(to, of.clone()),
            }
        }
    }

    /// A member dies as it stands: what it has left open stays open, and its partitions go to another.
    pub(in crate::stream) fn kill(&self, member: usize, heir: usize) {
        let mut inner = self.0.borrow_mut();
        let dead = inner.members.entry(member).or_default();
        dead.dead = true;
        for of in std::mem::take(&mut dead.owned) {
            inner.give(heir, of);
        }
    }

    /// No topic takes this value in `topic` any more.
    pub(in crate::stream) fn refuse(&self, topic: &Topic, value: &[u8], silently: bool) {
        let value = value.to_vec();
        self.refuse_where(topic, silently, move |record| record.value.as_deref() == Some(&value));
    }
}

impl Inner {
    pub(super) fn give(&mut self, to: usize, of: TopicPartition) {
        let member = self.members.entry(to).or_default();
        member.owned.insert(of.clone());
        member.events.push_back(Event::Assigned(vec![of]));
    }

    pub(super) fn stable_end(&self, of: &TopicPartition) -> usize {
        let entries = &self.partitions[of];
        entries.iter().position(|entry| entry.fate == EntryFate::Open).unwrap_or(entries.len())
    }

    /// Ends a transaction: a marker in every partition takes an offset, as in Kafka.
    pub(super) fn end(&mut self, writer: &str, commit: bool) {
        let Some(transaction) = self.open.remove(writer) else { return };
        let fate = if commit { EntryFate::Committed } else { EntryFate::Aborted };
        let entries = transaction.entries;
        let touched: BTreeSet<_> = entries.iter().map(|(of, _)| of.clone()).collect();
        for (of, index) in &entries {
            self.partitions.get_mut(of).unwrap()[*index].fate = fate;
        }
        for of in touched {
            self.partitions.get_mut(&of).unwrap().push(Entry { record: None, fate: EntryFate::Committed });
        }
        if commit {
            let record = |(of, index): &(TopicPartition, usize)| self.partitions[of][*index].record.clone();
            let records = entries.iter().filter_map(record).collect();
            self.commits.push(Committed { records, marks: transaction.marks.clone() });
            for mark in transaction.marks {
                self.committed.insert(mark.of, (mark.position, mark.metadata));
            }
        }
    }

    /// The broker aborts what has been open for too long.
    pub(super) fn sweep(&mut self, now: Duration) {
        let overdue = |open: &mut Transaction| now > *open.since.get_or_insert(now) + SWEPT;
        let writers: Vec<String> =
            self.open.iter_mut().filter_map(|(writer, open)| overdue(open).then(|| writer.clone())).collect();
        for writer in writers {
            // Its epoch is bumped, so that whoever opened it commits nothing more.
            self.init(&writer);
        }
    }

    /// A new producer with this id: whatever the old one had open is aborted, and the old one fenced.
    pub(super) fn init(&mut self, writer: &str) -> u64 {
        self.end(writer, false);
        let epoch = self.epochs.entry(writer.to_owned()).or_default();
        *epoch += 1;
        *epoch
    }
}
