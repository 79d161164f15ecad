//! One transaction of the desk: audit records as leaves of the gate's own tree, appended, committed, and only then told.
//! Limits: whatever is not known to be committed is told as a failure; who waits and for how long is not known here.

use std::sync::Arc;
use std::time::Duration;

use bytes::Bytes;
use uuid::Uuid;

use super::{DeskError, DeskSettings, Request};
use crate::authorize::audit::AuditRecord;
use crate::authorize::ids::Partition;
use crate::authorize::merkle::Range;
use crate::authorize::record::Header;
use crate::stream::clock::Clock;
use crate::stream::log::{Log, LogError, ProducerFate, Tag};
use crate::telemetry::Telemetry;
use crate::telemetry::events::{DeskAway, DeskCommitted, DeskOpened};
use crate::wire::outgoing::{Codecs, Outgoing};

/// The header that says to which tree an audit record belongs.
pub(super) const TREE: &str = "audit-tree";

/// What writes, and the tree that it writes.
pub(super) struct Clerk<L, C> {
    log: L,
    clock: C,
    settings: DeskSettings,
    codecs: Arc<Codecs>,
    telemetry: Telemetry,
    /// `None` while there is no producer.
    tree: Option<Tree>,
}

/// A tree of audit records: all in one partition, in the order of their leaves.
#[derive(Clone)]
struct Tree {
    name: String,
    partition: Partition,
    leaves: Range,
}

/// What a batch comes to: its records, and those of the requests that are part of it.
struct Batch {
    leaves: Range,
    records: Vec<Outgoing>,
    requests: Vec<Request>,
}

impl<L: Log, C: Clock> Clerk<L, C> {
    pub(super) fn new(
        log: L,
        clock: C,
        settings: DeskSettings,
        codecs: Arc<Codecs>,
        telemetry: Telemetry,
    ) -> Self {
        Self { log, clock, settings, codecs, telemetry, tree: None }
    }

    /// Whether it could write.
    pub(super) fn is_open(&self) -> bool {
        self.tree.is_some()
    }

    /// Makes a producer, which ends whatever its predecessor had left open, and begins a tree: what of the last one was
    /// committed is not known here.
    pub(super) fn open(&mut self) -> bool {
        match self.begin_tree() {
            Ok(tree) => {
                DeskOpened { tree: &tree.name }.emit(&self.telemetry);
                self.tree = Some(tree);
                true
            }
            Err(error) => {
                DeskAway { problem: &error.to_string() }.emit(&self.telemetry);
                false
            }
        }
    }

    fn begin_tree(&mut self) -> Result<Tree, LogError> {
        self.log.renew()?;
        let count = self.log.partition_count(&self.settings.audit)?;
        let id = Uuid::now_v7();
        // Its low half is random, so that the trees of many gates spread over the partitions.
        let (_, low) = id.as_u64_pair();
        let partition = i32::try_from(low % u64::from(count.unsigned_abs().max(1))).unwrap_or_default();
        Ok(Tree {
            name: format!("{}/{}", self.settings.name, id.simple()),
            partition: Partition(partition),
            leaves: Range::default(),
        })
    }

    /// Writes what these requests hand in and tells each what became of it.
    pub(super) fn write(&mut self, mut requests: Vec<Request>) {
        // Whoever has gone was told that it failed: it must not be written down as allowed.
        requests.retain(|request| !request.reply.is_closed());
        let Some(tree) = self.tree.clone() else { return tell(requests, Err(DeskError::Unavailable)) };
        let batch = self.batch(&tree, requests);
        if batch.requests.is_empty() {
            return;
        }
        let asked = self.clock.elapsed();
        let written = self.transaction(&batch.records);
        let commit: Duration = self.clock.elapsed().saturating_sub(asked);
        match written {
            Ok(()) => {
                self.tree = Some(Tree { leaves: batch.leaves, ..tree });
                DeskCommitted { records: batch.records.len(), commit }.emit(&self.telemetry);
                tell(batch.requests, Ok(()));
            }
            Err(error) => {
                tell(batch.requests, Err(DeskError::Unavailable));
                DeskAway { problem: &error.to_string() }.emit(&self.telemetry);
                self.recover(&error);
            }
        }
    }

    /// The records of the batch. A request with one that is too large is told so, and is no part of it.
    fn batch(&self, tree: &Tree, requests: Vec<Request>) -> Batch {
        let mut batch = Batch { leaves: tree.leaves.clone(), records: Vec::new(), requests: Vec::new() };
        for request in requests {
            match self.records(tree, &batch.leaves, &request.audits) {
                Ok((leaves, records)) => {
                    batch.leaves = leaves;
                    batch.records.extend(records);
                    batch.requests.push(request);
                }
                Err(error) => tell(vec![request], Err(error)),
            }
        }
        batch
    }

    fn records(
        &self,
        tree: &Tree,
        leaves: &Range,
        audits: &[AuditRecord],
    ) -> Result<(Range, Vec<Outgoing>), DeskError> {
        let mut leaves = leaves.clone();
        let mut records = Vec::with_capacity(audits.len());
        for audit in audits {
            let leaf_index = i64::try_from(leaves.size()).unwrap_or(i64::MAX);
            let audit = AuditRecord { leaf_index, ..audit.clone() };
            let bytes = self.codecs.audit.encode(&audit).map_err(|error| {
                tracing::error!(problem = error.to_string(), "an audit record cannot be written");
                DeskError::Unavailable
            })?;
            leaves.append(&bytes);
            let record = Outgoing {
                topic: self.settings.audit.clone(),
                partition: tree.partition,
                timestamp: None,
                key: Some(Bytes::from(audit.decision_id)),
                value: Some(Bytes::from(bytes)),
                headers: vec![Header::new(TREE, tree.name.clone())],
            };
            if self.settings.limits.refuse(&record).is_some() {
                return Err(DeskError::TooLarge);
            }
            records.push(record);
        }
        Ok((leaves, records))
    }

    fn transaction(&mut self, records: &[Outgoing]) -> Result<(), LogError> {
        self.log.begin()?;
        for (index, record) in records.iter().enumerate() {
            self.log.append(Tag::Audit(index), record)?;
        }
        self.log.commit().map(drop)
    }

    /// A transaction that was certainly aborted costs nothing but itself. Anything else costs the producer, and the tree
    /// with it: whether its last leaves are in the log is unknown.
    fn recover(&mut self, error: &LogError) {
        let usable = !matches!(
            error,
            LogError::Fatal(_)
                | LogError::AbortAndRewind { producer: ProducerFate::Unclear | ProducerFate::Fenced, .. }
        );
        if !usable || self.log.abort().is_err() {
            self.log.discard();
            self.tree = None;
        }
        // What the log refused was told as failed; the batch is not made again.
        self.log.refusals();
    }
}

fn tell(requests: Vec<Request>, what: Result<(), DeskError>) {
    for request in requests {
        // A caller that is gone needs no answer.
        let _ = request.reply.send(what);
    }
}
