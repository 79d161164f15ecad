//! Every record that was sent, where it stands and what must have come of it, held against what the gate wrote: each
//! has exactly one outcome and exactly one audit record, and these agree.

use std::collections::{BTreeMap, HashMap, HashSet};

use bytes::Bytes;
use countersign::authorize::audit::AuditRecord;
use countersign::authorize::ids::{Coordinates, Offset, Partition, UnixMillis};
use countersign::authorize::jose::{TokenKind, sha256};
use countersign::authorize::record::{Header, Record as Wire, TimestampType};
use rdkafka::Timestamp;

use super::audit::{Audit, Problems, audits, check_trees};
use super::sender::Source;
use super::site::{Site, topic};
use super::wait_or_tell;
use crate::support::kafka::{NewRecord, Record};

/// What must come of a record.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Expect {
    Forward,
    /// Denied for that reason, with its key and value.
    Deny(&'static str),
    /// Denied for that reason, the value left out.
    Bare(&'static str),
    /// Held, and ended as its answers say: how, the story of the held record tells.
    AsAnswered,
}

impl Expect {
    fn reason(self) -> Option<&'static str> {
        match self {
            Self::Forward | Self::AsAnswered => None,
            Self::Deny(reason) | Self::Bare(reason) => Some(reason),
        }
    }
}

/// A record with its expected outcome.
#[derive(Clone, Debug)]
pub struct Sent {
    /// The situation, for whoever reads a failure.
    pub what: &'static str,
    pub source: Source,
    pub record: NewRecord,
    pub expect: Expect,
}

impl Sent {
    pub fn new(what: &'static str, source: Source, record: NewRecord, expect: Expect) -> Self {
        Self { what, source, record, expect }
    }

    /// With another expectation.
    pub fn expecting(self, expect: Expect) -> Self {
        Self { expect, ..self }
    }
}

type Place = (Source, i32, i64);

/// What a gate made of a record.
#[derive(Debug)]
struct Outcome {
    reason: Option<String>,
    decision: String,
}

/// All records of a site.
#[derive(Default)]
pub struct Ledger {
    sent: BTreeMap<Place, Sent>,
    /// What the broker has and did not say where, in the order in which it was sent.
    unplaced: Vec<Sent>,
}

impl Ledger {
    /// Writes records to the site's topics, each topic's in order, and enters them.
    pub fn send(&mut self, site: &Site, records: Vec<Sent>) {
        for source in [Source::Commands, Source::Legacy] {
            let of: Vec<&Sent> = records.iter().filter(|sent| sent.source == source).collect();
            let written: Vec<NewRecord> = of.iter().map(|sent| sent.record.clone()).collect();
            if written.is_empty() {
                continue;
            }
            let places = site.writer.try_write(site.topic(source), &written);
            for (place, sent) in places.into_iter().zip(of) {
                match place {
                    Some((partition, offset)) => self.enter((source, partition, offset), sent.clone()),
                    None => self.unplaced.push(sent.clone()),
                }
            }
        }
    }

    /// Finds what the broker did not say the place of: it must be what else is in the sources, in the order in which it was sent.
    pub fn place_all(&mut self, site: &Site) {
        let mut unplaced = std::mem::take(&mut self.unplaced);
        for source in [Source::Commands, Source::Legacy] {
            if !unplaced.iter().any(|sent| sent.source == source) {
                continue;
            }
            for found in site.broker.read_to_end(site.topic(source)) {
                let place = (source, found.partition, found.offset);
                if self.sent.contains_key(&place) {
                    continue;
                }
                let is_it = |sent: &Sent| {
                    let record = &sent.record;
                    (sent.source, &record.key, &record.value, &record.headers)
                        == (source, &found.key, &found.value, &found.headers)
                };
                let at = unplaced.iter().position(is_it);
                let at = at.unwrap_or_else(|| panic!("{place:?} of the source was never sent"));
                self.enter(place, unplaced.remove(at));
            }
        }
        assert!(unplaced.is_empty(), "{} records that were taken are not in the sources", unplaced.len());
    }

    /// What another has sent to the same site.
    pub fn merge(&mut self, other: Self) {
        self.unplaced.extend(other.unplaced);
        for (place, sent) in other.sent {
            self.enter(place, sent);
        }
    }

    /// Writes one record and enters it; its partition and offset.
    pub fn post(&mut self, site: &Site, sent: Sent) -> (i32, i64) {
        let place = site.writer.write(site.topic(sent.source), std::slice::from_ref(&sent.record))[0];
        self.enter((sent.source, place.0, place.1), sent);
        place
    }

    fn enter(&mut self, place: Place, sent: Sent) {
        let before = self.sent.insert(place, sent);
        assert!(before.is_none(), "the broker gave one place twice");
    }

    /// That record is there no more, and was not decided.
    pub fn lost(&mut self, source: Source, partition: i32, offset: i64) {
        let lost = self.sent.remove(&(source, partition, offset));
        assert!(lost.is_some(), "a record that was sent");
    }

    /// Writes records, waits until they are decided, and holds everything so far against what came out.
    pub fn decide(&mut self, site: &Site, records: Vec<Sent>) {
        self.send(site, records);
        self.settle(site);
    }

    pub fn len(&self) -> usize {
        self.sent.len()
    }

    /// How many of each situation there are, for whoever watches.
    pub fn summary(&self) -> String {
        let mut counts: BTreeMap<&str, usize> = BTreeMap::new();
        for sent in self.sent.values() {
            *counts.entry(sent.what).or_default() += 1;
        }
        counts.iter().map(|(what, count)| format!("{what}: {count}")).collect::<Vec<_>>().join(", ")
    }

    /// Waits until everything is decided, then holds every record against what the gate wrote.
    pub fn settle(&self, site: &Site) {
        assert!(self.unplaced.is_empty(), "everything has its place");
        site.wait_decided(self.len());
        self.check(site);
        assert_eq!(site.decided(), i64::try_from(self.len()).expect("a count"), "positions are past the end");
    }

    /// Waits until every record, those that were held included, has gone on or is among the dead letters.
    pub fn wait_ended(&self, site: &Site) {
        let ends = [&site.to, &site.denied].map(|topic| site.broker.follow(topic));
        let mut ended = 0;
        let end = || {
            ended += ends.iter().map(|end| end.take().len()).sum::<usize>();
            (ended >= self.len()).then_some(())
        };
        wait_or_tell("every record to end", end, || site.describe());
    }

    /// Every record that has an outcome has the right one, one audit record, and no other of either; those without are
    /// the last of their partitions. With everything decided that is the exact multiset.
    pub fn check(&self, site: &Site) {
        let mut problems = Problems::default();
        let outcomes = self.outcomes(site, &mut problems);
        let audits = audits(site);
        check_trees(site, &audits, &mut problems);
        let audited = self.audited(site, audits, &mut problems);
        let mut committed = HashMap::new();
        for source in [Source::Commands, Source::Legacy] {
            for (partition, found) in site.broker.committed(&site.group, site.topic(source)) {
                committed.insert((source, partition), found.position);
            }
        }
        for (place, sent) in &self.sent {
            let (source, partition, offset) = *place;
            let decided = offset < committed.get(&(source, partition)).copied().unwrap_or(0);
            let what = format!("`{}` at {place:?}", sent.what);
            let outcomes = outcomes.get(place).map(Vec::as_slice).unwrap_or_default();
            let audits = audited.get(place).map(Vec::as_slice).unwrap_or_default();
            match (decided, outcomes, audits) {
                (true, [outcome], [audit]) => {
                    let open = sent.expect == Expect::AsAnswered;
                    if !open && outcome.reason.as_deref() != sent.expect.reason() {
                        problems
                            .add(format!("{what}: expected {:?}, found {:?}", sent.expect, outcome.reason));
                    }
                    if audit.decision_id != outcome.decision {
                        problems.add(format!("{what}: the audit record is of another decision"));
                    }
                    if audit.reason.as_deref() != outcome.reason.as_deref() {
                        problems.add(format!(
                            "{what}: audited as {:?}, found {:?}",
                            audit.reason, outcome.reason
                        ));
                    }
                    let word = if outcome.reason.is_some() { "deny" } else { "forward" };
                    if audit.outcome != word {
                        problems.add(format!("{what}: audited as `{}`", audit.outcome));
                    }
                    let digest =
                        |bytes: &Option<Vec<u8>>| bytes.as_ref().map(|bytes| sha256(&[bytes]).text());
                    if (&audit.key_digest, &audit.value_digest)
                        != (&digest(&sent.record.key), &digest(&sent.record.value))
                    {
                        problems.add(format!("{what}: audited with other digests"));
                    }
                }
                (false, [], []) => {}
                _ => problems.add(format!(
                    "{what}: {} outcomes and {} audit records, decided: {decided}",
                    outcomes.len(),
                    audits.len()
                )),
            }
        }
        let known = |place: &&Place| !self.sent.contains_key(place);
        for place in outcomes.keys().filter(known).chain(audited.keys().filter(known)) {
            problems.add(format!("{place:?} was never sent"));
        }
        problems.report(self.len());
    }

    fn outcomes(&self, site: &Site, problems: &mut Problems) -> BTreeMap<Place, Vec<Outcome>> {
        let mut found: BTreeMap<Place, Vec<Outcome>> = BTreeMap::new();
        let verifier = site.verifier();
        let mut order = Order::default();
        for record in site.broker.read_to_end(&site.to) {
            let at = format!("{}/{} of the destination", record.partition, record.offset);
            let received = match verifier.verify(&wire(&site.to, &record)) {
                Ok(received) => received,
                Err(denial) => {
                    problems.add(format!("{at}: no worker would take it: {denial:?}"));
                    continue;
                }
            };
            let Some(place) = self.place(site, &received.source) else {
                problems.add(format!("{at}: its source `{}` is none", received.source));
                continue;
            };
            let sent = &self.sent[&place];
            if (&record.key, &record.value) != (&sent.record.key, &sent.record.value) {
                problems.add(format!("{at}: other bytes than those of {place:?}"));
            }
            if record.header("decision-id") != Some(received.decision.as_str()) {
                problems.add(format!("{at}: `decision-id` is not the countersignature's"));
            }
            for kind in [TokenKind::WorkloadIdentity, TokenKind::WorkloadProof] {
                if record.header(kind.header_name()).is_some() {
                    problems.add(format!("{at}: forwarded with its `{}`", kind.header_name()));
                }
            }
            order.see(&at, record.partition, place, sent.expect, problems);
            found.entry(place).or_default().push(Outcome { reason: None, decision: received.decision });
        }
        let mut order = Order::default();
        for record in site.broker.read_to_end(&site.denied) {
            let at = format!("{}/{} of the dead letters", record.partition, record.offset);
            let header = |name| record.header(name).unwrap_or_default().to_owned();
            let origin = ["original-topic", "original-partition", "original-offset"].map(header).join("/");
            let Some(place) = self.place(site, &origin) else {
                problems.add(format!("{at}: its source `{origin}` is none"));
                continue;
            };
            let sent = &self.sent[&place];
            let value = match sent.expect {
                Expect::Bare(_) => &None,
                _ => &sent.record.value,
            };
            if (&record.key, &record.value) != (&sent.record.key, value) {
                problems.add(format!("{at}: other bytes than those of {place:?}"));
            }
            order.see(&at, record.partition, place, sent.expect, problems);
            let reason = Some(header("denied-reason"));
            found.entry(place).or_default().push(Outcome { reason, decision: header("decision-id") });
        }
        found
    }

    fn audited(
        &self,
        site: &Site,
        audits: Vec<Audit>,
        problems: &mut Problems,
    ) -> BTreeMap<Place, Vec<AuditRecord>> {
        let mut found: BTreeMap<Place, Vec<AuditRecord>> = BTreeMap::new();
        // Where records are held, what happens before their ends stands in their stories.
        let holds = self.sent.values().any(|sent| sent.expect == Expect::AsAnswered);
        for Audit { record: audit, .. } in audits {
            if holds && ["hold", "wait", "answer"].contains(&audit.outcome.as_str()) {
                continue;
            }
            let source = format!("{}/{}/{}", audit.topic, audit.partition, audit.offset);
            match self.place(site, &source) {
                Some(place) => found.entry(place).or_default().push(audit),
                None => problems.add(format!("an audit record of `{source}`, which was never sent")),
            }
        }
        found
    }

    fn place(&self, site: &Site, source: &str) -> Option<Place> {
        let mut parts = source.rsplitn(3, '/');
        let offset = parts.next()?.parse().ok()?;
        let partition = parts.next()?.parse().ok()?;
        let topic = parts.next()?;
        let source = [Source::Commands, Source::Legacy].into_iter().find(|s| site.topic(*s) == topic)?;
        let place = (source, partition, offset);
        self.sent.contains_key(&place).then_some(place)
    }

    /// The first 16 characters of the signature of every token that was sent.
    pub fn signatures(&self) -> HashSet<[u8; 16]> {
        let mut found = HashSet::new();
        let values = self.sent.values().flat_map(|sent| &sent.record.headers);
        for (name, value) in values {
            let is_token = TokenKind::ALL.iter().any(|kind| name.eq_ignore_ascii_case(kind.header_name()));
            let Some(value) = value.as_deref().filter(|_| is_token) else { continue };
            let signature = value.rsplit(|byte| *byte == b'.').next().unwrap_or_default();
            found.extend(signature.first_chunk::<16>());
        }
        found
    }
}

/// Records of one source partition keep their order, hence those of one key.
#[derive(Default)]
struct Order(HashMap<(i32, Source, i32), i64>);

impl Order {
    fn see(&mut self, at: &str, target: i32, place: Place, expect: Expect, problems: &mut Problems) {
        let (source, partition, offset) = place;
        if target != partition {
            problems.add(format!("{at}: written to another partition than it came from, {partition}"));
        }
        // What is held is overtaken.
        if expect == Expect::AsAnswered {
            return;
        }
        let last = self.0.insert((target, source, partition), offset).unwrap_or(-1);
        if last >= offset {
            problems.add(format!("{at}: offset {offset} of {source:?}/{partition} follows {last}"));
        }
    }
}

/// A record that was read, as the library's type.
pub fn wire(name: &str, record: &Record) -> Wire {
    let (timestamp, timestamp_type) = match record.timestamp {
        Timestamp::NotAvailable => (None, TimestampType::NotAvailable),
        Timestamp::CreateTime(at) => (Some(UnixMillis(at)), TimestampType::CreateTime),
        Timestamp::LogAppendTime(at) => (Some(UnixMillis(at)), TimestampType::LogAppendTime),
    };
    let bytes = |bytes: &Option<Vec<u8>>| bytes.clone().map(Bytes::from);
    let headers = record.headers.iter();
    Wire {
        source: Coordinates {
            topic: topic(name),
            partition: Partition(record.partition),
            offset: Offset(record.offset),
        },
        timestamp,
        timestamp_type,
        key: bytes(&record.key),
        value: bytes(&record.value),
        headers: headers
            .map(|(name, value)| Header { name: Bytes::from(name.clone()), value: bytes(value) })
            .collect(),
    }
}
