//! The checker: holds what was committed against what came in. Limits: it knows the contract and nothing of the lanes; the
//! first thing that is wrong is what it says.

use std::collections::{BTreeMap, BTreeSet};

use super::books::Books;
use super::people::Sent;
use super::seen::{Row, Rows, Seen};
use super::world::{ANSWERS, AUDIT_PARTITIONS, PARTITIONS, SOURCE, TO};
use crate::authorize::audit::AuditRecord;
use crate::authorize::ids::{UnixMillis, WorkloadId};
use crate::authorize::merkle::Range;
use crate::authorize::replay::Entry;
use crate::authorize::route::Order;
use crate::authorize::testing::{ACCEPTED_S, PAYER};
use crate::stream::checkpoint::Checkpoint;
use crate::wire::outgoing::Codecs;
use crate::wire::replay;

/// How often each thing has happened in each partition, so that a plan can be held against what it was to bring about.
#[derive(Clone, Debug, Default)]
pub(super) struct Tally(pub(super) BTreeMap<(usize, String), usize>);

impl Tally {
    /// How often something has happened that begins so, in that partition or in all of them.
    pub(super) fn count(&self, partition: Option<usize>, what: &str) -> usize {
        let of = self.0.iter().filter(|((at, name), _)| {
            name.starts_with(what) && partition.is_none_or(|partition| partition == *at)
        });
        of.map(|(_, times)| times).sum()
    }

    /// Adds what has happened elsewhere.
    pub(super) fn add(&mut self, other: Self) {
        for (what, times) in other.0 {
            *self.0.entry(what).or_default() += times;
        }
    }
}

/// Decisions by id: the row of the audit record, and what it says.
type Decisions<'r, 'a> = BTreeMap<&'r str, (Row<'a>, &'r AuditRecord)>;

/// Something that is wrong.
type Wrong = String;

/// Holds a run against what came in.
///
/// # Errors
/// The first thing that is wrong.
pub(super) fn check(seen: &Seen, codecs: &Codecs) -> Result<Tally, Wrong> {
    let rows = seen.rows(codecs)?;
    let mut decisions = Decisions::new();
    for (row, audit) in &rows.audit {
        if decisions.insert(&audit.decision_id, (*row, audit)).is_some() {
            return Err(format!("the decision {} is recorded twice", audit.decision_id));
        }
    }
    outcomes(seen, &rows, &decisions)?;
    let mut tally = Tally::default();
    let mut expected: BTreeMap<usize, Vec<String>> = BTreeMap::new();
    let mut challenges = BTreeMap::new();
    let mut proofs: BTreeSet<(usize, usize, usize)> = BTreeSet::new();
    let mut counted: BTreeMap<(usize, usize), (usize, usize)> = BTreeMap::new();
    for partition in 0..seen.sent.len() {
        let mut books = Books::new(seen, partition);
        for (row, audit) in in_leaf_order(&rows, partition)? {
            let (next, answers) = (books.next, books.answers);
            let left = books.take(audit).map_err(|wrong| format!("partition {partition}: {wrong}"))?;
            expected.entry(row.commit).or_default().extend(left);
            proofs.extend(books.proof.map(|offset| (row.commit, partition, offset)));
            let moved = counted.entry((row.commit, partition)).or_default();
            *moved = (moved.0 + books.next - next, moved.1 + books.answers - answers);
            note(&mut tally, partition, audit);
        }
        if seen.complete {
            let (records, answers) = (seen.sent[partition].len(), seen.answers[partition].len());
            if (books.next, books.answers, books.held()) != (records, answers, 0) {
                let (next, of, held) = (books.next, books.answers, books.held());
                let are = format!("{next} of {records} records and {of} of {answers} answers are decided");
                return Err(format!("partition {partition}: {are}, and {held} are held"));
            }
        }
        challenges.extend(std::mem::take(&mut books.challenges));
    }
    effects(&rows, expected, &challenges, codecs)?;
    replay_entries(seen, &rows, &proofs)?;
    positions(seen, &counted)?;
    trees(seen, &rows)?;
    order(seen, &rows, &decisions)?;
    Ok(tally)
}

fn note(tally: &mut Tally, partition: usize, audit: &AuditRecord) {
    let why = audit.answer.as_ref().map(|answer| answer.effect.as_str()).or(audit.reason.as_deref());
    let mut what = format!("{} {}", audit.outcome, why.unwrap_or_default());
    if audit.outcome == "forward" && !audit.approvers.is_empty() {
        what.push_str("approved");
    }
    *tally.0.entry((partition, what.trim().to_owned())).or_default() += 1;
}

/// The audit records of a partition, which must be the leaves of its tree, one after the other.
fn in_leaf_order<'r, 'a>(
    rows: &'r Rows<'a>,
    partition: usize,
) -> Result<Vec<(Row<'a>, &'r AuditRecord)>, Wrong> {
    let of = |audit: &AuditRecord| usize::try_from(audit.partition) == Ok(partition);
    let found: Vec<_> = rows.audit.iter().filter(|(_, audit)| of(audit)).collect();
    for (leaf, (row, audit)) in found.iter().enumerate() {
        if usize::try_from(audit.leaf_index) != Ok(leaf) {
            let index = audit.leaf_index;
            return Err(format!("partition {partition}: leaf {index} stands where leaf {leaf} must"));
        }
        if row.record.source.partition.0 != audit.partition % AUDIT_PARTITIONS {
            return Err(format!("leaf {leaf} of partition {partition} stands in {}", row.record.source));
        }
    }
    Ok(found.into_iter().map(|(row, audit)| (*row, audit)).collect())
}

/// Every forward and every dead letter belongs to one decision, of the same transaction, and is of one record; no record ends
/// twice.
fn outcomes(seen: &Seen, rows: &Rows<'_>, decisions: &Decisions<'_, '_>) -> Result<(), Wrong> {
    let mut ended: BTreeMap<(i32, i64), &str> = BTreeMap::new();
    let forwards = rows.to.iter().map(|row| (row, "forward"));
    for (row, how) in forwards.chain(rows.denied.iter().map(|row| (row, "deny"))) {
        let (at, id) = (&row.record.source, row.header("decision-id")?);
        let (audit_row, audit) = decisions.get(id).ok_or_else(|| format!("{at} was never decided: {id}"))?;
        if audit.outcome != how {
            return Err(format!("{at} is a `{how}`, and its audit record says `{}`", audit.outcome));
        }
        if audit_row.commit != row.commit {
            return Err(format!("{at} and its audit record stand in two transactions"));
        }
        let place = (audit.partition, audit.offset);
        if let Some(before) = ended.insert(place, how) {
            return Err(format!("{SOURCE}/{}/{} ends twice: {before}, and {how}", place.0, place.1));
        }
        let of = usize::try_from(place.0).ok().and_then(|partition| seen.sent.get(partition));
        let sent = of.and_then(|sent| sent.get(usize::try_from(place.1).ok()?));
        let sent = sent.ok_or_else(|| format!("{at} is of a record that nobody sent"))?;
        let is_bare = how == "deny" && row.record.value.is_none();
        if (row.record.value != sent.record.value && !is_bare) || row.record.key != sent.record.key {
            return Err(format!("{at} is not what {SOURCE}/{}/{} was", place.0, place.1));
        }
        if row.record.source.partition.0 != place.0 {
            return Err(format!("{at} is of partition {}", place.0));
        }
        if how == "forward" {
            row.header("countersignature")?;
        } else if row.header("original-offset")? != place.1.to_string() {
            return Err(format!("{at} names another record than its decision"));
        }
    }
    if seen.complete {
        let all: usize = seen.sent.iter().map(Vec::len).sum();
        if ended.len() != all {
            return Err(format!("{} of {all} records have ended", ended.len()));
        }
    }
    Ok(())
}

/// What each transaction must have written, and what it has.
fn effects(
    rows: &Rows<'_>,
    mut expected: BTreeMap<usize, Vec<String>>,
    challenges: &BTreeMap<String, usize>,
    codecs: &Codecs,
) -> Result<(), Wrong> {
    let mut actual: BTreeMap<usize, Vec<String>> = BTreeMap::new();
    for row in &rows.to {
        let what = format!("forward {} {}", row.partition(), row.header("decision-id")?);
        actual.entry(row.commit).or_default().push(what);
    }
    for row in &rows.denied {
        let (id, reason) = (row.header("decision-id")?, row.header("denied-reason")?);
        actual.entry(row.commit).or_default().push(format!("deny {} {id} {reason}", row.partition()));
    }
    for row in &rows.holds {
        let key = String::from_utf8_lossy(row.record.key.as_deref().unwrap_or_default());
        if key != "barrier" {
            let is = if row.record.value.is_some() { "set" } else { "gone" };
            actual.entry(row.commit).or_default().push(format!("holds {} {key} {is}", row.partition()));
        }
    }
    for row in &rows.challenges {
        let value = row.record.value.as_deref().unwrap_or_default();
        let challenge = codecs.challenge.decode(value).map_err(|error| error.to_string())?;
        let what = format!("told {} {}", challenge.id, challenge.status.as_str());
        actual.entry(row.commit).or_default().push(what);
    }
    let mut reminded: BTreeMap<String, usize> = BTreeMap::new();
    for (commit, mut wrote) in actual {
        for must in expected.remove(&commit).unwrap_or_default() {
            let found = wrote.iter().position(|what| *what == must);
            let found = found.ok_or_else(|| format!("transaction {commit} lacks `{must}`: {wrote:?}"))?;
            wrote.swap_remove(found);
        }
        leftover(commit, wrote, challenges, &mut reminded)?;
    }
    match expected.into_iter().find(|(_, musts)| !musts.is_empty()) {
        None => Ok(()),
        Some((commit, musts)) => Err(format!("transaction {commit} lacks `{}`", musts[0])),
    }
}

/// What no decision accounts for: a challenge is reminded of at most twice, and marks of spent grants are taken away.
fn leftover(
    commit: usize,
    mut wrote: Vec<String>,
    challenges: &BTreeMap<String, usize>,
    reminded: &mut BTreeMap<String, usize>,
) -> Result<(), Wrong> {
    wrote.retain(|what| !(what.contains(" grant/") && what.ends_with(" gone")));
    while let Some(at) = wrote.iter().position(|what| what.starts_with("told ")) {
        let what = wrote.swap_remove(at);
        let challenge = what.strip_prefix("told ").and_then(|what| what.strip_suffix(" open"));
        let offset = challenge.and_then(|challenge| challenges.get(challenge));
        let (Some(challenge), Some(offset)) = (challenge, offset) else {
            return Err(format!("transaction {commit} has `{what}`, and nothing was decided so"));
        };
        let partition = challenge.split(':').nth(1).unwrap_or_default();
        let state = format!("holds {partition} {partition}/{offset}/state set");
        let found = wrote.iter().position(|what| *what == state);
        wrote.swap_remove(found.ok_or_else(|| format!("transaction {commit} tells `{what}` alone"))?);
        let times = reminded.entry(challenge.to_owned()).or_default();
        *times += 1;
        if *times > 2 {
            return Err(format!("{challenge} was reminded of {times} times"));
        }
    }
    match wrote.first() {
        None => Ok(()),
        Some(what) => Err(format!("transaction {commit} has `{what}`, and nothing was decided so")),
    }
}

/// Each proof that was believed is remembered once, in the transaction of its decision.
fn replay_entries(
    seen: &Seen,
    rows: &Rows<'_>,
    proofs: &BTreeSet<(usize, usize, usize)>,
) -> Result<(), Wrong> {
    let sender = WorkloadId::parse(PAYER).map_err(|error| error.to_string())?;
    let mut found = BTreeSet::new();
    for row in rows.replay.iter().filter(|row| row.record.key.as_deref() == Some(b"entries")) {
        let value = row.record.value.as_deref().unwrap_or_default();
        for entry in replay::decode(value).map_err(|error| error.to_string())? {
            let place = (row.commit, row.partition(), usize::try_from(entry.offset.0).unwrap_or(usize::MAX));
            let sent = seen.sent.get(place.1).and_then(|sent| sent.get(place.2));
            let is_its = |sent: &Sent| {
                entry == Entry::new(&sender, &sent.jti, entry.offset, UnixMillis(ACCEPTED_S * 1000))
            };
            if !sent.is_some_and(is_its) {
                return Err(format!("what is remembered of {}/{} is not its proof", place.1, place.2));
            }
            if !found.insert(place) {
                return Err(format!("the proof of {}/{} is remembered twice", place.1, place.2));
            }
        }
    }
    match found.symmetric_difference(proofs).next() {
        None => Ok(()),
        Some((commit, partition, offset)) if found.contains(&(*commit, *partition, *offset)) => Err(format!(
            "transaction {commit} remembers the proof of {partition}/{offset}, which it did not believe"
        )),
        Some((commit, partition, offset)) => {
            Err(format!("transaction {commit} forgets the proof of {partition}/{offset}"))
        }
    }
}

/// Each transaction moves the positions by what it decides, and sends those of every partition that it decides something of.
fn positions(seen: &Seen, counted: &BTreeMap<(usize, usize), (usize, usize)>) -> Result<(), Wrong> {
    for partition in 0..seen.sent.len() {
        let (mut at, mut answers) = (0, 0);
        for (commit, transaction) in seen.commits.iter().enumerate() {
            let of = |name: &str| {
                let mark = transaction.marks.iter().find(|mark| {
                    mark.of.topic.as_str() == name && usize::try_from(mark.of.partition.0) == Ok(partition)
                });
                mark.map(|mark| usize::try_from(mark.position.0).unwrap_or(usize::MAX))
            };
            let (moved, taken) = counted.get(&(commit, partition)).copied().unwrap_or_default();
            let is_touched = counted.contains_key(&(commit, partition));
            at += moved;
            answers += taken;
            match of(SOURCE) {
                None if is_touched => {
                    return Err(format!("transaction {commit} decides of {partition} and sends no position"));
                }
                Some(position) if position != at => {
                    return Err(format!(
                        "transaction {commit} sends {position} for {partition}, and has decided up to {at}"
                    ));
                }
                _ => {}
            }
            match of(ANSWERS) {
                None if taken > 0 => {
                    return Err(format!(
                        "transaction {commit} takes answers of {partition} and does not say so"
                    ));
                }
                Some(position) if position != answers => {
                    return Err(format!(
                        "transaction {commit} has taken {answers} answers of {partition} and says {position}"
                    ));
                }
                _ => {}
            }
        }
    }
    Ok(())
}

/// The tree that stands beside the last position of a partition is that of its audit records.
fn trees(seen: &Seen, rows: &Rows<'_>) -> Result<(), Wrong> {
    for partition in 0..PARTITIONS {
        let mut marks = seen.commits.iter().flat_map(|commit| &commit.marks);
        let last = marks.rfind(|mark| mark.of.topic.as_str() == SOURCE && mark.of.partition.0 == partition);
        let Some(last) = last else { continue };
        let beside = Checkpoint::decode(&last.metadata).map_err(|error| error.to_string())?;
        let beside = beside.ok_or_else(|| format!("nothing stands beside the position of {partition}"))?;
        let mut tree = Range::default();
        for (row, _) in rows.audit.iter().filter(|(_, audit)| audit.partition == partition) {
            tree.append(row.record.value.as_deref().unwrap_or_default());
        }
        if (beside.leaves, beside.peaks.as_slice()) != (tree.size(), tree.peaks()) {
            return Err(format!("the tree beside the position of {partition} is not that of its records"));
        }
    }
    Ok(())
}

/// What goes on keeps its order: in its partition that of the audit tree, and of one key that of the source, where the route
/// keeps it; else that of the source for whatever was never held.
fn order(seen: &Seen, rows: &Rows<'_>, decisions: &Decisions<'_, '_>) -> Result<(), Wrong> {
    for (topic, rows) in [(TO, &rows.to), ("dead letters", &rows.denied)] {
        let mut leaves: BTreeMap<usize, i64> = BTreeMap::new();
        let mut offsets: BTreeMap<(usize, &[u8]), i64> = BTreeMap::new();
        for row in rows {
            let (_, audit) = decisions[row.header("decision-id")?];
            let partition = row.partition();
            if leaves.insert(partition, audit.leaf_index).is_some_and(|before| before > audit.leaf_index) {
                return Err(format!("{topic}: {} stands before an earlier decision", row.record.source));
            }
            let key = row.record.key.as_deref().unwrap_or_default();
            let counts = match seen.order {
                Order::Key => topic == TO,
                Order::None => topic == TO && audit.challenge.is_none(),
            };
            if counts
                && offsets.insert((partition, key), audit.offset).is_some_and(|before| before > audit.offset)
            {
                return Err(format!("{topic}: {} has overtaken another of its key", row.record.source));
            }
        }
    }
    Ok(())
}
