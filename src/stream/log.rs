//! The seam between a lane and the log: reading, one transaction, positions, and reading state back. Limits: nothing
//! here decides when to call what; [`super::lane`] does. One implementation speaks to Kafka ([`super::kafka`]), one
//! keeps everything in memory (`memory`) and fails where a plan says so.

use std::collections::BTreeMap;
use std::fmt;
use std::time::Duration;

use crate::authorize::ids::{Offset, Partition, Position, Topic};
use crate::authorize::record::Record;
use crate::wire::outgoing::Outgoing;

/// One partition of one topic.
#[derive(Debug, Clone, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct TopicPartition {
    /// The topic.
    pub topic: Topic,
    /// The partition.
    pub partition: Partition,
}

impl TopicPartition {
    /// The partition in which a record stands.
    pub fn of(record: &Record) -> Self {
        Self { topic: record.source.topic.clone(), partition: record.source.partition }
    }

    /// The two of them.
    pub fn pair(&self) -> (Topic, Partition) {
        (self.topic.clone(), self.partition)
    }
}

impl fmt::Display for TopicPartition {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}/{}", self.topic, self.partition)
    }
}

/// What a poll brought.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Event {
    /// Nothing within the time given.
    Idle,
    /// A record of a partition that is resumed.
    Record(Record),
    /// Partitions gained. They are paused and have no position until the lane seeks and resumes them.
    Assigned(Vec<TopicPartition>),
    /// Partitions given up in order.
    Revoked(Vec<TopicPartition>),
    /// Partitions that may already belong to another: the group had given up on this member.
    Lost(Vec<TopicPartition>),
    /// What stands next in the partition is no record that can be read, and why. Nothing behind it will come.
    Unreadable(TopicPartition, String),
    /// Nothing comes of a partition, although something seems to stand there. It is to be read again from where the lane stands;
    /// nothing is lost or doubled where that was for nothing.
    Silent(TopicPartition),
}

/// What went wrong, for a person.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("{call}: {detail}")]
pub struct Cause {
    /// The call of the seam.
    pub call: &'static str,
    /// The log's own words.
    pub detail: String,
}

/// Whether the producer can be used for another transaction.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum ProducerFate {
    /// After an abort, yes.
    Usable,
    /// No: a request is unanswered, and what it did is unknown.
    Unclear,
    /// No: the log has refused it as one that another replaced. That proves no successor: the only owner of an id
    /// whose transaction timed out is told the same.
    Fenced,
}

/// The three fates of a failed call.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum LogError {
    /// Nothing happened; the call may be made again.
    #[error("{0}")]
    Retriable(Cause),
    /// The transaction must end without effect, and reading goes back to the stable committed positions.
    #[error("{cause}")]
    AbortAndRewind {
        /// Why.
        cause: Cause,
        /// What becomes of the producer.
        producer: ProducerFate,
    },
    /// The membership is gone for good: the lane ends.
    #[error("{0}")]
    Fatal(Cause),
}

impl LogError {
    /// What went wrong.
    pub fn cause(&self) -> &Cause {
        match self {
            Self::Retriable(cause) | Self::AbortAndRewind { cause, .. } | Self::Fatal(cause) => cause,
        }
    }
}

/// Which input of a batch an appended record belongs to, to find it again in a delivery report.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub enum Tag {
    /// The outcome of the batch's input with this index.
    Outcome(usize),
    /// The audit record of the batch's input with this index.
    Audit(usize),
    /// What the batch's input with this index tells others.
    Told(usize),
    /// What the batch's input with this index keeps in the holds topic.
    Kept(usize),
    /// The payload of the batch's input with this index, in the holds topic. Its offset comes back with the commit.
    Payload(usize),
    /// A record of the replay topic; the index is the caller's. Its offset comes back with the commit.
    Replay(usize),
    /// A barrier in the holds topic; the index is the caller's. Its offset comes back with the commit.
    Barrier(usize),
}

impl Tag {
    /// The input of the batch that the record belongs to; `None` where it belongs to several, or to none.
    pub fn input(self) -> Option<usize> {
        match self {
            Self::Outcome(input)
            | Self::Audit(input)
            | Self::Told(input)
            | Self::Kept(input)
            | Self::Payload(input) => Some(input),
            Self::Replay(_) | Self::Barrier(_) => None,
        }
    }

    /// Whether the offset of a record with this tag comes back with the commit.
    pub fn wants_receipt(self) -> bool {
        matches!(self, Self::Payload(_) | Self::Replay(_) | Self::Barrier(_))
    }
}

/// A record that the log will never take as it is: too large, a refused timestamp, a null key in a compacted topic.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Refusal {
    /// Which one.
    pub tag: Tag,
    /// The log's own words.
    pub why: String,
    /// Whether the log named this record, or only the group of records that it was sent with.
    pub certain: bool,
}

/// A position to commit, with its metadata.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Mark {
    /// Of which partition.
    pub of: TopicPartition,
    /// Where reading goes on.
    pub position: Position,
    /// At most [`crate::authorize::limits::MAX_OFFSET_METADATA`] bytes.
    pub metadata: String,
}

/// What the log knows of a partition's committed position.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Committed {
    /// Stable: no open transaction can still change it.
    At(Position, String),
    /// None was ever committed, or it has been forgotten.
    Missing,
    /// A transaction that has sent a position is still open.
    Unsettled,
}

/// The offsets of the appended records whose tag [wants one](Tag::wants_receipt).
pub type Receipts = BTreeMap<Tag, Offset>;

/// A transaction that was handed over, and has been committed.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Finished {
    /// Where its records stand.
    pub receipts: Receipts,
    /// How long its end took.
    pub took: Duration,
}

/// The log as a lane uses it. INVARIANT: while `poll` runs the lane has no transaction that it could still commit: so a
/// rebalance, which is served inside `poll`, may give partitions away at once.
pub trait Log {
    /// Makes the producer ready, ending whatever its id had left open, and then joins the group.
    fn join(&mut self) -> Result<(), LogError>;
    /// Waits for at most `wait` for one event.
    fn poll(&mut self, wait: Duration) -> Result<Event, LogError>;
    /// Stops the delivery of records of these partitions.
    fn pause(&mut self, partitions: &[TopicPartition]) -> Result<(), LogError>;
    /// Moves reading to `position` and lets records of the partition come.
    fn resume_at(&mut self, partition: &TopicPartition, position: Position) -> Result<(), LogError>;

    /// Takes the group's metadata of this moment, and opens a transaction.
    fn begin(&mut self) -> Result<(), LogError>;
    /// Adds a record to the open transaction. It may be refused later: see [`Log::refusals`].
    fn append(&mut self, tag: Tag, record: &Outgoing) -> Result<(), LogError>;
    /// Adds positions to the open transaction, fenced by the group's metadata.
    fn send_positions(&mut self, marks: &[Mark]) -> Result<(), LogError>;
    /// Commits: after success all of it has happened.
    fn commit(&mut self) -> Result<Receipts, LogError>;
    /// Adds positions to the open transaction and begins to commit it, by itself: the next may be begun and appended to
    /// meanwhile, and no record of that is sent before all of this one's have been taken.
    ///
    /// INVARIANT: none is handed over before the one before it was [finished](Self::finish) with success. Otherwise the second
    /// could happen without the first, and the first's records would be lost behind its positions.
    fn hand_over(&mut self, marks: &[Mark]) -> Result<(), LogError>;
    /// Waits for the transaction that was handed over: after success all of it has happened.
    fn finish(&mut self) -> Result<Finished, LogError>;
    /// Aborts what is open, also a transaction whose commit has failed: after success none of it has happened. Without an open
    /// transaction, nothing. What was handed over must be finished before.
    fn abort(&mut self) -> Result<(), LogError>;
    /// The records that were refused since this was last asked.
    fn refusals(&mut self) -> Vec<Refusal>;
    /// Destroys every producer: they commit nothing any more, whatever the log still has open for them.
    fn discard(&mut self);
    /// Makes new producers of the same ids, which end the old ones' transactions.
    fn renew(&mut self) -> Result<(), LogError>;
    /// The transactional ids that this lane writes with.
    fn writers(&self) -> Vec<String>;

    /// The committed positions, waiting for at most `wait` for stable ones.
    fn committed(
        &mut self,
        partitions: &[TopicPartition],
        wait: Duration,
    ) -> Result<BTreeMap<TopicPartition, Committed>, LogError>;
    /// The metadata of committed positions, open transactions disregarded: of use only to find out who wrote them.
    fn unsettled_metadata(&mut self, partitions: &[TopicPartition]) -> Result<Vec<String>, LogError>;
    /// Ends whatever the producer of another id has left open.
    fn fence(&mut self, writer: &str) -> Result<(), LogError>;
    /// The first offset that is there, and the one after the last.
    fn bounds(&mut self, partition: &TopicPartition) -> Result<(Position, Position), LogError>;
    /// Up to where a partition is settled, and where it ends: in between stands what an open transaction holds back.
    fn ends(&mut self, partition: &TopicPartition) -> Result<(Position, Position), LogError>;
    /// Puts away what only [`Log::ends`] needs.
    fn rest(&mut self);
    /// Begins to read partitions back, committed records only, each from an offset or from the first after it that is
    /// there; replaces what was read back before. With nothing to read the reader is put away.
    fn read_back(&mut self, from: &[(TopicPartition, Position)]) -> Result<(), LogError>;
    /// The next record read back.
    fn next_back(&mut self, wait: Duration) -> Result<Option<Record>, LogError>;
    /// Begins to follow the answers of these partitions, committed records only, each from a position or from the first after
    /// it that is there; replaces what was followed before.
    fn follow_answers(&mut self, from: &[(TopicPartition, Position)]) -> Result<(), LogError>;
    /// The next answer, if one has come. Nothing is waited for.
    fn next_answer(&mut self) -> Result<Option<Record>, LogError>;
    /// Up to where [`Log::next_answer`] has gone through a partition, transactions' markers included; `None` before it has
    /// handed anything out.
    fn answers_seen(&mut self, partition: &TopicPartition) -> Result<Option<Position>, LogError>;
    /// The records at these offsets of a partition, which must have been committed, in the order of the offsets; `None` for
    /// one that is not there any more. The offsets ascend.
    fn fetch(
        &mut self,
        partition: &TopicPartition,
        offsets: &[Offset],
    ) -> Result<Vec<Option<Record>>, LogError>;
    /// How many partitions a topic has.
    fn partition_count(&mut self, topic: &Topic) -> Result<i32, LogError>;
    /// The offset after the last record known to be there, without asking; for the lag.
    fn known_end(&self, partition: &TopicPartition) -> Option<Position>;
    /// Begins to leave the group; `poll` then brings the revocation.
    fn leave(&mut self);
    /// Whether the group has been told; until then `poll` has to go on.
    fn has_left(&self) -> bool;
}
