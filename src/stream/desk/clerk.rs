//! One transaction of the desk: audit records as leaves of the gate's own tree, and the challenges that have changed with
//! them, appended, committed, and only then told. Limits: whatever is not known to be committed is told as a failure; who
//! waits and for how long is not known here.

use std::time::Duration;

use bytes::Bytes;
use uuid::Uuid;

use super::people::People;
use super::{DeskError, DeskSettings, Request, Told};
use crate::authorize::access::Evaluated;
use crate::authorize::audit::AuditRecord;
use crate::authorize::ids::Partition;
use crate::authorize::merkle::Range;
use crate::authorize::record::Header;
use crate::authorize::step_up::Challenge;
use crate::stream::clock::Clock;
use crate::stream::deciding::Gatework;
use crate::stream::log::{Log, LogError, ProducerFate, Tag};
use crate::telemetry::events::{DeskAway, DeskCommitted, DeskOpened};
use crate::wire::outgoing::Outgoing;

/// The header that says to which tree an audit record belongs.
pub(super) const TREE: &str = "audit-tree";

/// What writes, the tree that it writes, and what people are asked meanwhile.
pub(super) struct Clerk<L, C> {
    pub(super) log: L,
    pub(super) clock: C,
    pub(super) settings: DeskSettings,
    pub(super) work: Gatework,
    /// `None` while there is no producer.
    pub(super) tree: Option<Tree>,
    /// `None` where nobody can be asked.
    pub(super) people: Option<People>,
    /// What ended with an earlier tree and has not been told.
    pub(super) left: Vec<Challenge>,
}

/// A tree of audit records: all in one partition, in the order of their leaves.
#[derive(Clone)]
pub(super) struct Tree {
    pub(super) id: Uuid,
    name: String,
    partition: Partition,
    leaves: Range,
}

/// What a batch comes to: its records, how far they take the tree, and whom to tell.
#[derive(Default)]
pub(super) struct Batch {
    leaves: Range,
    records: Vec<(Tag, Outgoing)>,
    done: Vec<(Vec<Evaluated>, tokio::sync::oneshot::Sender<Told>)>,
}

impl Batch {
    /// An empty one after what the tree holds.
    pub(super) fn after(tree: &Tree) -> Self {
        Self { leaves: tree.leaves.clone(), ..Self::default() }
    }

    pub(super) fn is_empty(&self) -> bool {
        self.records.is_empty()
    }

    fn add(&mut self, leaves: Range, records: Vec<(Tag, Outgoing)>) {
        self.leaves = leaves;
        self.records.extend(records);
    }
}

impl<L: Log, C: Clock> Clerk<L, C> {
    pub(super) fn new(log: L, clock: C, settings: DeskSettings, work: Gatework) -> Self {
        Self { log, clock, settings, work, tree: None, people: None, left: Vec::new() }
    }

    /// Whether it could write.
    pub(super) fn is_open(&self) -> bool {
        self.tree.is_some()
    }

    /// Makes a producer, which ends whatever its predecessor had left open, and begins a tree: what of the last one was
    /// committed is not known here. With it begins what people are asked: nothing yet.
    pub(super) fn open(&mut self) -> bool {
        let begun = self.begin_tree().and_then(|tree| Ok((self.begin_asking(&tree)?, tree)));
        match begun {
            Ok((people, tree)) => {
                DeskOpened { tree: &tree.name }.emit(&self.work.telemetry);
                self.tree = Some(tree);
                self.people = people;
                true
            }
            Err(error) => {
                self.away(&error);
                false
            }
        }
    }

    fn begin_tree(&mut self) -> Result<Tree, LogError> {
        self.log.renew()?;
        let count = self.log.partition_count(&self.settings.route.audit)?;
        let id = Uuid::now_v7();
        let (name, partition) = (format!("{}/{}", self.settings.name, id.simple()), partition_of(id, count));
        Ok(Tree { id, name, partition, leaves: Range::default() })
    }

    /// Settles and writes what these requests hand in, and tells each what became of it.
    pub(super) fn write(&mut self, mut requests: Vec<Request>) {
        // Whoever has gone was told that it failed: it must not be written down as allowed.
        requests.retain(|request| !request.reply.is_closed());
        let Some(tree) = self.tree.clone() else {
            return requests.into_iter().for_each(|request| tell(request.reply, Err(DeskError::Unavailable)));
        };
        let mut batch = Batch::after(&tree);
        for request in requests {
            self.add(&tree, &mut batch, request);
        }
        if batch.is_empty() {
            return;
        }
        let done = std::mem::take(&mut batch.done);
        match self.commit(tree, batch) {
            Ok(()) => done.into_iter().for_each(|(evaluated, reply)| tell(reply, Ok(evaluated))),
            Err(_) => done.into_iter().for_each(|(_, reply)| tell(reply, Err(DeskError::Unavailable))),
        }
    }

    /// One request, settled by what people have answered. One with a record that is too large is told so, and leaves nothing.
    fn add(&mut self, tree: &Tree, batch: &mut Batch, request: Request) {
        let Request { evaluated, semantic, reply } = request;
        let mark = self.people.as_ref().map(|people| people.docket.mark());
        let (mut settled, mut told) = (Vec::with_capacity(evaluated.len()), Vec::new());
        for one in evaluated {
            let (one, changed) = match &mut self.people {
                Some(people) => one.settle(&mut people.docket),
                None => (one, None),
            };
            told.extend(changed);
            let is_last = semantic.ends_with(one.reply.decision);
            settled.push(one);
            if is_last {
                break;
            }
        }
        let audits = settled.iter().map(|one| &one.audit);
        let written = self.audits(tree, &batch.leaves, audits, batch.records.len());
        let written = written.and_then(|(leaves, mut records)| {
            for challenge in &told {
                records.push(self.told(challenge).ok_or(DeskError::TooLarge)?);
            }
            Ok((leaves, records))
        });
        match written {
            Ok((leaves, records)) => {
                batch.add(leaves, records);
                batch.done.push((settled, reply));
            }
            Err(error) => {
                if let Some((people, mark)) = self.people.as_mut().zip(mark) {
                    people.docket.undo(mark);
                }
                tell(reply, Err(error));
            }
        }
    }

    /// Adds one audit record that nobody waits for, and what has changed with it.
    ///
    /// # Errors
    /// The topic does not take it.
    pub(super) fn keep(
        &self,
        tree: &Tree,
        batch: &mut Batch,
        audit: Option<&AuditRecord>,
        told: &[Challenge],
    ) -> Result<(), DeskError> {
        let (leaves, mut records) =
            self.audits(tree, &batch.leaves, audit.into_iter(), batch.records.len())?;
        records.extend(told.iter().filter_map(|challenge| self.told(challenge)));
        batch.add(leaves, records);
        Ok(())
    }

    fn audits<'r>(
        &self,
        tree: &Tree,
        leaves: &Range,
        audits: impl Iterator<Item = &'r AuditRecord>,
        first: usize,
    ) -> Result<(Range, Vec<(Tag, Outgoing)>), DeskError> {
        let mut leaves = leaves.clone();
        let mut records = Vec::new();
        for audit in audits {
            let leaf_index = i64::try_from(leaves.size()).unwrap_or(i64::MAX);
            let audit = AuditRecord { leaf_index, ..audit.clone() };
            let bytes = self.work.codecs.audit.encode(&audit).map_err(|error| {
                tracing::error!(problem = error.to_string(), "an audit record cannot be written");
                DeskError::Unavailable
            })?;
            leaves.append(&bytes);
            let record = Outgoing {
                topic: self.settings.route.audit.clone(),
                partition: tree.partition,
                timestamp: None,
                key: Some(Bytes::from(audit.decision_id)),
                value: Some(Bytes::from(bytes)),
                headers: vec![Header::new(TREE, tree.name.clone())],
            };
            if self.settings.limits.refuse(&record).is_some() {
                return Err(DeskError::TooLarge);
            }
            records.push((Tag::Audit(first + records.len()), record));
        }
        Ok((leaves, records))
    }

    /// A challenge as it now stands, for its topic; `None` where that does not take it.
    fn told(&self, challenge: &Challenge) -> Option<(Tag, Outgoing)> {
        let people = self.settings.people.as_ref()?;
        let count = self.people.as_ref().map_or(1, |people| people.challenges);
        let record = match self.work.codecs.challenge(&people.challenges, count, challenge) {
            Ok(record) => record,
            Err(error) => {
                tracing::error!(problem = error.to_string(), "a challenge cannot be written");
                return None;
            }
        };
        people.limits.refuse(&record).is_none().then_some((Tag::Told(0), record))
    }

    /// Commits a batch: then its leaves are the tree's, and what has changed of what people were asked stays so.
    pub(super) fn commit(&mut self, tree: Tree, batch: Batch) -> Result<(), LogError> {
        let asked = self.clock.elapsed();
        let written = self.transaction(&batch.records);
        let commit: Duration = self.clock.elapsed().saturating_sub(asked);
        match &written {
            Ok(()) => {
                self.tree = Some(Tree { leaves: batch.leaves, ..tree });
                if let Some(people) = &mut self.people {
                    people.docket.settle();
                }
                DeskCommitted { records: batch.records.len(), commit }.emit(&self.work.telemetry);
            }
            Err(error) => {
                self.away(error);
                self.recover(error);
            }
        }
        written
    }

    fn transaction(&mut self, records: &[(Tag, Outgoing)]) -> Result<(), LogError> {
        self.log.begin()?;
        for (tag, record) in records {
            self.log.append(*tag, record)?;
        }
        self.log.commit().map(drop)
    }

    /// A transaction that was certainly aborted costs nothing but itself. Anything else costs the producer, and the tree
    /// with it: whether its last leaves are in the log is unknown. So is what people were asked and have answered.
    fn recover(&mut self, error: &LogError) {
        let usable = !matches!(
            error,
            LogError::Fatal(_)
                | LogError::AbortAndRewind { producer: ProducerFate::Unclear | ProducerFate::Fenced, .. }
        );
        if !usable || self.log.abort().is_err() {
            self.lose();
        } else if let Some(people) = &mut self.people {
            people.docket.undo(0);
        }
        // What the log refused was told as failed; the batch is not made again.
        self.log.refusals();
    }

    /// Gives up the producer and its tree. An approval whose use may have been committed is not there any more, and all that
    /// is still there ends.
    pub(super) fn lose(&mut self) {
        self.log.discard();
        self.tree = None;
        if let Some(mut people) = self.people.take() {
            self.left.extend(people.docket.close(self.clock.now()));
        }
    }

    pub(super) fn away(&self, error: &LogError) {
        DeskAway { problem: &error.to_string() }.emit(&self.work.telemetry);
    }
}

/// One of so many partitions. The low half of the id is random, so that those of many gates spread.
pub(super) fn partition_of(id: Uuid, count: i32) -> Partition {
    let (_, low) = id.as_u64_pair();
    let partition = i32::try_from(low % u64::from(count.unsigned_abs().max(1))).unwrap_or_default();
    Partition(partition)
}

fn tell(reply: tokio::sync::oneshot::Sender<Told>, what: Told) {
    // A caller that is gone needs no answer.
    let _ = reply.send(what);
}
