//! What can be seen from outside once a run is over: what came in, and what was committed, transaction by transaction, as
//! plain records. Limits: nothing of the lanes; a lie told here is for the checker to catch.

use super::people::{Answered, Sent, Token};
use super::world::{AUDIT, CHALLENGES, DENIED, HOLDS, REPLAY, TO};
use crate::authorize::audit::AuditRecord;
use crate::authorize::record::Record;
use crate::authorize::route::Order;
use crate::stream::memory::CommittedTransaction;
use crate::wire::outgoing::Codecs;

/// A run, seen from outside.
#[derive(Clone)]
pub(super) struct Seen {
    pub(super) order: Order,
    /// What came in, by partition and offset.
    pub(super) sent: Vec<Vec<Sent>>,
    pub(super) answers: Vec<Vec<Answered>>,
    pub(super) tokens: Vec<Token>,
    /// What was committed, in that order.
    pub(super) commits: Vec<CommittedTransaction>,
    /// Whether all of it must have come to its end.
    pub(super) complete: bool,
    /// The partition whose holds are not taken.
    pub(super) unholdable: Option<usize>,
}

/// A record that was committed, and by which transaction.
#[derive(Clone, Copy)]
pub(super) struct Row<'a> {
    pub(super) commit: usize,
    pub(super) record: &'a Record,
}

impl Row<'_> {
    pub(super) fn partition(&self) -> usize {
        usize::try_from(self.record.source.partition.0).unwrap_or(usize::MAX)
    }

    /// The value of the header of that name.
    pub(super) fn header(&self, name: &str) -> Result<&str, String> {
        let found = self.record.headers.iter().find(|header| header.name == name.as_bytes());
        let value = found.and_then(|header| header.value.as_deref());
        value
            .and_then(|value| std::str::from_utf8(value).ok())
            .ok_or_else(|| format!("{} has no header `{name}`", self.record.source))
    }
}

/// The rows of each topic, as a reader of that topic has them.
pub(super) struct Rows<'a> {
    pub(super) to: Vec<Row<'a>>,
    pub(super) denied: Vec<Row<'a>>,
    pub(super) audit: Vec<(Row<'a>, AuditRecord)>,
    pub(super) replay: Vec<Row<'a>>,
    pub(super) holds: Vec<Row<'a>>,
    pub(super) challenges: Vec<Row<'a>>,
}

impl Seen {
    /// Sorts what was committed by topic, partition and offset.
    pub(super) fn rows(&self, codecs: &Codecs) -> Result<Rows<'_>, String> {
        let of = |name: &str| {
            let all = self.commits.iter().enumerate().flat_map(|(commit, transaction)| {
                transaction.records.iter().map(move |record| Row { commit, record })
            });
            let mut rows: Vec<_> = all.filter(|row| row.record.source.topic.as_str() == name).collect();
            rows.sort_by_key(|row| (row.record.source.partition, row.record.source.offset));
            rows
        };
        let decoded = |row: Row<'_>| {
            let value = row.record.value.as_deref().unwrap_or_default();
            codecs
                .audit
                .decode(value)
                .map_err(|error| format!("{} does not read: {error}", row.record.source))
        };
        let audit =
            of(AUDIT).into_iter().map(|row| Ok((row, decoded(row)?))).collect::<Result<_, String>>()?;
        Ok(Rows {
            to: of(TO),
            denied: of(DENIED),
            audit,
            replay: of(REPLAY),
            holds: of(HOLDS),
            challenges: of(CHALLENGES),
        })
    }
}
