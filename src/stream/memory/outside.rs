//! What befalls a cluster from outside: whole records that come in, members that the group gives up or that die, topics
//! that refuse, and what a test wants to see of it. Limits: it decides nothing; when what happens is the test's plan.

use crate::authorize::ids::{Coordinates, Offset, Topic};
use crate::authorize::record::Record;
use crate::stream::log::Tag;
use crate::stream::log::{Event, TopicPartition};
use crate::stream::memory::cluster::{Cluster, Committed, Entry, EntryFate, Inner};
use crate::wire::outgoing::Outgoing;

impl Cluster {
    /// Appends a record outside of any transaction, whatever place it says; returns its offset.
    pub(in crate::stream) fn put(&self, of: &TopicPartition, record: &Record) -> Offset {
        let mut inner = self.0.borrow_mut();
        let entries = inner.partitions.get_mut(of).unwrap();
        let offset = Offset(entries.len() as i64);
        let source = Coordinates { topic: of.topic.clone(), partition: of.partition, offset };
        let record = Record { source, ..record.clone() };
        entries.push(Entry { record: Some(record), fate: EntryFate::Committed });
        offset
    }

    /// No topic takes such a record in `topic` any more.
    pub(in crate::stream) fn refuse_where(
        &self,
        topic: &Topic,
        silently: bool,
        unwanted: impl Fn(&Outgoing) -> bool + 'static,
    ) {
        self.0.borrow_mut().refused.push((topic.clone(), Box::new(unwanted), silently));
    }

    /// The group gives up on a member that is alive: its partitions go to another at once, and it learns of that later.
    pub(in crate::stream) fn expel(&self, member: usize, heir: usize) {
        let mut inner = self.0.borrow_mut();
        let Some(expelled) = inner.members.get_mut(&member).filter(|member| !member.owned.is_empty()) else {
            return;
        };
        let owned: Vec<_> = std::mem::take(&mut expelled.owned).into_iter().collect();
        expelled.expelled = true;
        // What it had not been told of is not told any more.
        expelled.events.clear();
        expelled.events.push_back(Event::Lost(owned.clone()));
        for of in owned {
            let to = inner.promised.remove(&of).unwrap_or(heir);
            inner.give(to, of);
        }
    }

    /// A member dies as it stands; what it owned, and what was promised to it, goes to another.
    pub(in crate::stream) fn bury(&self, member: usize, heir: usize) {
        for to in self.0.borrow_mut().promised.values_mut().filter(|to| **to == member) {
            *to = heir;
        }
        let mut inner = self.0.borrow_mut();
        let dead = inner.members.entry(member).or_default();
        dead.dead = true;
        let owned = std::mem::take(&mut dead.owned);
        for of in owned {
            let to = inner.promised.remove(&of).unwrap_or(heir);
            inner.give(to, of);
        }
    }

    /// Gives a partition to another member, unless it has it already or is about to be given to somebody.
    pub(in crate::stream) fn hand_over(&self, of: &TopicPartition, to: usize) {
        let inner = self.0.borrow();
        let has_it = inner.members.get(&to).is_some_and(|member| member.owned.contains(of));
        let is_promised = inner.promised.contains_key(of);
        drop(inner);
        if !has_it && !is_promised {
            self.assign(to, std::slice::from_ref(of));
        }
    }

    /// Whether a transaction that the broker has forgotten keeps a partition's committed position from being settled.
    pub(in crate::stream) fn unsettle(&self, of: &TopicPartition, is_unsettled: bool) {
        let unsettled = &mut self.0.borrow_mut().unsettled;
        match is_unsettled {
            true => unsettled.insert(of.clone()),
            false => unsettled.remove(of),
        };
    }

    /// The committed records of a partition from an offset on, and where the next look begins.
    pub(in crate::stream) fn read_on(&self, of: &TopicPartition, from: usize) -> (Vec<Record>, usize) {
        let inner = self.0.borrow();
        let stable = inner.stable_end(of).max(from);
        let new = inner.partitions[of][from..stable].iter();
        let committed = new.filter(|entry| entry.fate == EntryFate::Committed);
        (committed.filter_map(|entry| entry.record.clone()).collect(), stable)
    }

    /// How many offsets of a partition are taken.
    pub(in crate::stream) fn length(&self, of: &TopicPartition) -> i64 {
        self.0.borrow().partitions[of].len() as i64
    }

    /// Whether a transaction is open that has written or sent something.
    pub(in crate::stream) fn is_unsettled(&self) -> bool {
        let inner = self.0.borrow();
        inner.open.values().any(|open| !open.entries.is_empty() || !open.marks.is_empty())
    }

    /// What was committed, transaction by transaction.
    pub(in crate::stream) fn commits(&self) -> Vec<Committed> {
        self.0.borrow().commits.clone()
    }

    /// Every topic's partitions.
    pub(in crate::stream) fn partitions(&self) -> Vec<TopicPartition> {
        self.0.borrow().partitions.keys().cloned().collect()
    }
}

impl Inner {
    /// Of records that arrive together, which are refused, and whether the broker says that it was this one. Where it does not,
    /// all that came for the same partition are refused with it.
    pub(super) fn refuses(&self, sent: &[(Tag, Outgoing)]) -> Vec<Option<bool>> {
        let silently = |record: &Outgoing| {
            let refused = self.refused.iter();
            refused
                .filter(|(topic, unwanted, _)| *topic == record.topic && unwanted(record))
                .map(|of| of.2)
                .next()
        };
        let place = |record: &Outgoing| (record.topic.clone(), record.partition);
        let unnamed: Vec<_> = sent.iter().filter(|(_, record)| silently(record) == Some(true)).collect();
        let together =
            |record: &Outgoing| sent.iter().filter(|(_, other)| place(other) == place(record)).count();
        let fate = |(_, record): &(Tag, Outgoing)| match unnamed
            .iter()
            .any(|(_, other)| place(other) == place(record))
        {
            true => Some(together(record) == 1),
            false => silently(record).map(|_| true),
        };
        sent.iter().map(fate).collect()
    }
}
