//! A decision as the records that leave: the forwarded record or the dead letter, and the audit record (contract,
//! sections 6 and 7). Limits: it forwards only with a `Forward`, which holds the permit; a dead letter is built from
//! the bytes of the source record, never from what was forwarded.

use bytes::Bytes;

use super::audit::{AuditCodec, AuditCodecError};
use super::challenge::{ChallengeCodec, ChallengeCodecError};
use super::holds::{self, HoldFormatError};
use super::redact::{redact, token_header};
use crate::authorize::decision::Denial;
use crate::authorize::engine::{Decision, Delivery, Forward, Step};
use crate::authorize::ids::{Coordinates, Offset, Partition, Topic, UnixMillis};
use crate::authorize::jose::sha256;
use crate::authorize::limits::MAX_HEADERS;
use crate::authorize::record::{Header, Record};
use crate::authorize::route::{Compatibility, Partitioner, Route};
use crate::authorize::state::PartitionState;
use crate::authorize::step_up::{Challenge, Keep, Traces};
use crate::authorize::text::Text;

/// A record to be written.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Outgoing {
    /// The topic.
    pub topic: Topic,
    /// The partition, always explicit.
    pub partition: Partition,
    /// The timestamp; `None` lets the client set the present time.
    pub timestamp: Option<UnixMillis>,
    /// The key; `None` is null.
    pub key: Option<Bytes>,
    /// The value; `None` is null.
    pub value: Option<Bytes>,
    /// The headers, in order.
    pub headers: Vec<Header>,
}

/// What one decision makes: all of it is written, or none.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Effects {
    /// The forwarded record or the dead letter; `None` where a record is held or an answer was taken in.
    pub outcome: Option<Outgoing>,
    /// What the holds topic gets.
    pub kept: Vec<Kept>,
    /// What is told to others: challenges.
    pub told: Vec<Outgoing>,
    /// The audit record; `None` where nothing was decided: a reminder of a challenge, or a turn that came to nothing.
    pub audit: Option<Outgoing>,
}

/// A record of the holds topic.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Kept {
    /// The record.
    pub record: Outgoing,
    /// The source offset of the record whose payload this is: where it stands is known after the commit.
    pub payload_of: Option<Offset>,
}

/// How many partitions the topics of a route have; at least 1 each.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct PartitionCounts {
    /// Of the record's own topic.
    pub source: i32,
    /// Of the destination.
    pub destination: i32,
    /// Of the dead-letter topic.
    pub denied: i32,
    /// Of the audit topic.
    pub audit: i32,
    /// Of the challenges topic.
    pub challenges: i32,
}

/// Why a step could not become bytes.
#[derive(Debug, thiserror::Error)]
pub enum EffectsError {
    /// Its audit record.
    #[error("the audit record cannot be written: {0}")]
    Audit(#[from] AuditCodecError),
    /// A challenge.
    #[error("the challenge cannot be written: {0}")]
    Challenge(#[from] ChallengeCodecError),
    /// A record of the holds topic.
    #[error("the hold cannot be written: {0}")]
    Hold(#[from] HoldFormatError),
    /// A route that does not hold has nothing to keep.
    #[error("route `{0}` does not hold records of `{1}`")]
    NoHolding(String, Topic),
}

/// How audit records and challenges become bytes; made once and kept.
#[derive(Debug)]
pub struct Codecs {
    /// Of audit records.
    pub audit: AuditCodec,
    /// Of challenges.
    pub challenge: ChallengeCodec,
}

impl Codecs {
    /// The codecs of the published schemas.
    pub fn new() -> Result<Self, EffectsError> {
        Ok(Self { audit: AuditCodec::new()?, challenge: ChallengeCodec::new()? })
    }

    /// A challenge as it now stands, for its topic of so many partitions.
    ///
    /// # Errors
    /// Avro's own complaint.
    pub fn challenge(
        &self,
        topic: &Topic,
        partitions: i32,
        challenge: &Challenge,
    ) -> Result<Outgoing, EffectsError> {
        let key = Bytes::from(challenge.id.clone());
        Ok(Outgoing {
            topic: topic.clone(),
            partition: Partition(Partitioner::Murmur2.partition(&key, partitions)),
            timestamp: None,
            value: Some(Bytes::from(self.challenge.encode(challenge)?)),
            key: Some(key),
            headers: Vec::new(),
        })
    }
}

/// The bytes of a step about the record at `source`: the record itself, or the one that an answer is about. The audit
/// record takes the next leaf of the partition's tree here, so that every leaf is the bytes that were written.
pub fn effects(
    codecs: &Codecs,
    route: &Route,
    record: &Record,
    step: Step,
    counts: PartitionCounts,
    state: &mut PartitionState,
) -> Result<Effects, EffectsError> {
    let Step { decision, mut audit, delivery, traces } = step;
    audit.leaf_index = i64::try_from(state.next_leaf()).unwrap_or(i64::MAX);
    let bytes = codecs.audit.encode(&audit)?;
    let (kept, told) = left(codecs, route, &record.source, traces, counts)?;
    let outcome = match decision {
        Decision::Forward(forward) => Some(forwarded(route, record, forward, counts)),
        Decision::Deny(denial) => {
            let about = About {
                denial: &denial,
                policies: &audit.policies,
                bundle: &audit.bundle,
                decision_id: &audit.decision_id,
                decided: UnixMillis(audit.decided),
            };
            Some(dead_letter(route, record, about, &delivery, counts))
        }
        Decision::Hold | Decision::Wait | Decision::Answer => None,
    };
    state.append_leaf(&bytes);
    let audit = Outgoing {
        topic: route.audit.clone(),
        partition: Partition(record.source.partition.0.rem_euclid(counts.audit.max(1))),
        timestamp: None,
        key: Some(Bytes::from(audit.decision_id)),
        value: Some(Bytes::from(bytes)),
        headers: Vec::new(),
    };
    Ok(Effects { outcome, kept, told, audit: Some(audit) })
}

/// The bytes of what is left behind where nothing was decided: a reminder, or nothing at all.
pub fn undecided(
    codecs: &Codecs,
    route: &Route,
    source: &Coordinates,
    traces: Traces,
    counts: PartitionCounts,
) -> Result<Effects, EffectsError> {
    let (kept, told) = left(codecs, route, source, traces, counts)?;
    Ok(Effects { outcome: None, kept, told, audit: None })
}

/// What the holds topic and the challenges topic get.
fn left(
    codecs: &Codecs,
    route: &Route,
    source: &Coordinates,
    traces: Traces,
    counts: PartitionCounts,
) -> Result<(Vec<Kept>, Vec<Outgoing>), EffectsError> {
    let Traces { kept, told } = traces;
    if kept.is_empty() && told.is_empty() {
        return Ok((Vec::new(), Vec::new()));
    }
    let nowhere = || EffectsError::NoHolding(route.name.to_string(), source.topic.clone());
    let holding = route.holding.as_ref().ok_or_else(nowhere)?;
    let holds = holding.holds.get(&source.topic).ok_or_else(nowhere)?;
    let kept = kept.into_iter().map(|keep| {
        let (key, value) = holds::encode(&keep, source.partition)?;
        let payload_of = match keep {
            Keep::Payload(of, Some(_)) => Some(of),
            _ => None,
        };
        let record = Outgoing {
            topic: holds.clone(),
            partition: source.partition,
            timestamp: None,
            key: Some(key),
            value,
            headers: Vec::new(),
        };
        Ok(Kept { record, payload_of })
    });
    let kept = kept.collect::<Result<_, EffectsError>>()?;
    let told = told
        .iter()
        .map(|challenge| codecs.challenge(&holding.challenges, counts.challenges, challenge))
        .collect::<Result<_, _>>()?;
    Ok((kept, told))
}

fn forwarded(route: &Route, record: &Record, forward: Forward, counts: PartitionCounts) -> Outgoing {
    Outgoing {
        topic: route.to.clone(),
        partition: target(route, record, counts.source, counts.destination),
        timestamp: record.timestamp,
        key: record.key.clone(),
        value: record.value.clone(),
        headers: forward.into_headers(),
    }
}

/// Same partition where the counts agree; else by the route's partitioner on the key, and for a null key the source
/// partition modulo the count (contract, section 7).
fn target(route: &Route, record: &Record, source: i32, count: i32) -> Partition {
    let count = count.max(1);
    match &record.key {
        _ if source == count => record.source.partition,
        Some(key) => Partition(route.partitioner.partition(key, count)),
        None => Partition(record.source.partition.0.rem_euclid(count)),
    }
}

struct About<'a> {
    denial: &'a Denial,
    policies: &'a [Text],
    bundle: &'a str,
    decision_id: &'a str,
    decided: UnixMillis,
}

/// Bytes of a key that a bare dead letter still carries; a longer one may be what the topic refused.
const BARE_KEY_BYTES: usize = 1024;

fn dead_letter(
    route: &Route,
    record: &Record,
    about: About<'_>,
    delivery: &Delivery,
    counts: PartitionCounts,
) -> Outgoing {
    let bare = matches!(delivery, Delivery::Bare(_));
    let mut written = reason_headers(record, &about);
    if let Some(set) = route.compatibility {
        written.extend(compatible(set, record, &about));
    }
    let mut headers = if bare { Vec::new() } else { kept(record, &written) };
    headers.extend(written);
    let (key, value) = if bare {
        let digest = |bytes: &Option<Bytes>| bytes.as_ref().map(|b| Bytes::from(sha256(&[b]).to_string()));
        for (name, bytes) in [("original-key-sha256", &record.key), ("original-value-sha256", &record.value)]
        {
            headers.push(Header { name: Bytes::from_static(name.as_bytes()), value: digest(bytes) });
        }
        let short = record.key.clone().filter(|key| key.len() <= BARE_KEY_BYTES);
        (Some(short.unwrap_or_else(|| Bytes::from(record.source.to_string()))), None)
    } else {
        (record.key.clone(), record.value.clone())
    };
    Outgoing {
        topic: route.denied.clone(),
        partition: target(route, record, counts.source, counts.denied),
        timestamp: None,
        key,
        value,
        headers,
    }
}

/// The digests of a bare dead letter's key and value.
const BARE_DIGESTS: [&str; 2] = ["original-key-sha256", "original-value-sha256"];

/// The record's own headers, credentials redacted, without those, in any ASCII case, of a name that a dead letter writes
/// itself: whoever reads one may believe those. Everything else stays, for whoever puts the record back. Past the most
/// headers that a record may have, token headers are left out: what stands for a small one is larger, so a record full of
/// them would make a dead letter that no topic takes, at the cost of its whole batch.
fn kept(record: &Record, written: &[Header]) -> Vec<Header> {
    let mut headers = Vec::with_capacity(record.headers.len() + written.len() + 8);
    let mut redacted = 0;
    for header in &record.headers {
        let name = &header.name;
        match token_header(name) {
            Some(_) if redacted == MAX_HEADERS => {}
            Some(kept) => {
                redacted += 1;
                headers.extend(redact(kept, header.value.as_ref()));
            }
            None if is_redaction(name) => {}
            None if BARE_DIGESTS.iter().any(|own| name.eq_ignore_ascii_case(own.as_bytes())) => {}
            None if written.iter().any(|own| name.eq_ignore_ascii_case(&own.name)) => {}
            None => headers.push(header.clone()),
        }
    }
    headers
}

/// Whether a name is that of a redacted token or of its hash.
fn is_redaction(name: &[u8]) -> bool {
    ["-redacted", "-sha256"].iter().any(|suffix| {
        name.len().checked_sub(suffix.len()).and_then(|at| name.split_at_checked(at)).is_some_and(
            |(stem, end)| end.eq_ignore_ascii_case(suffix.as_bytes()) && token_header(stem).is_some(),
        )
    })
}

fn reason_headers(record: &Record, about: &About<'_>) -> Vec<Header> {
    let source = &record.source;
    let timestamp = record.timestamp.map_or(-1, |at| at.0);
    [
        ("denied-reason", about.denial.reason.as_str().to_owned()),
        ("denied-detail", about.denial.detail.clone()),
        ("denied-at", about.decided.0.to_string()),
        ("denied-policies", about.policies.join(",")),
        ("denied-bundle", about.bundle.to_owned()),
        ("decision-id", about.decision_id.to_owned()),
        ("original-topic", source.topic.to_string()),
        ("original-partition", source.partition.to_string()),
        ("original-offset", source.offset.to_string()),
        ("original-timestamp", timestamp.to_string()),
        ("original-timestamp-type", record.timestamp_type.as_str().to_owned()),
        ("redrive-count", "0".to_owned()),
    ]
    .map(|(name, value)| Header::new(name, value))
    .into()
}

/// The names of other systems, in their own encodings: text for Connect and Streams, big-endian numbers for Spring.
fn compatible(set: Compatibility, record: &Record, about: &About<'_>) -> Vec<Header> {
    let source = &record.source;
    let (topic, partition, offset) =
        (source.topic.to_string(), source.partition.to_string(), source.offset.to_string());
    let class = format!("countersign.{}", about.denial.reason);
    let message = about.denial.detail.clone();
    match set {
        Compatibility::Connect => vec![
            Header::new("__connect.errors.topic", topic),
            Header::new("__connect.errors.partition", partition),
            Header::new("__connect.errors.offset", offset),
            Header::new("__connect.errors.stage", about.denial.reason.stage().as_str()),
            Header::new("__connect.errors.exception.class.name", class),
            Header::new("__connect.errors.exception.message", message),
        ],
        Compatibility::Streams => vec![
            Header::new("__streams.errors.exception", class),
            Header::new("__streams.errors.message", message),
            Header::new("__streams.errors.topic", topic),
            Header::new("__streams.errors.partition", partition),
            Header::new("__streams.errors.offset", offset),
        ],
        Compatibility::Spring => {
            let timestamp = record.timestamp.map_or(-1, |at| at.0);
            vec![
                Header::new("kafka_dlt-original-topic", topic),
                Header::new("kafka_dlt-original-partition", source.partition.0.to_be_bytes().to_vec()),
                Header::new("kafka_dlt-original-offset", source.offset.0.to_be_bytes().to_vec()),
                Header::new("kafka_dlt-original-timestamp", timestamp.to_be_bytes().to_vec()),
                Header::new("kafka_dlt-original-timestamp-type", record.timestamp_type.as_str()),
                Header::new("kafka_dlt-exception-fqcn", class),
                Header::new("kafka_dlt-exception-message", message),
            ]
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::authorize::decision::Reason;
    use crate::authorize::record::TimestampType;
    use crate::authorize::testing::route as plain;
    use crate::wire::audit::tests::full;

    const TOKEN: &str = "eyJhIjoxfQ.eyJiIjoyfQ.c2lnbmF0dXJl";
    const COUNTS: PartitionCounts =
        PartitionCounts { source: 8, destination: 8, denied: 8, audit: 3, challenges: 1 };

    fn record(headers: Vec<Header>) -> Record {
        Record {
            source: Coordinates {
                topic: Topic::parse("payments.commands").unwrap(),
                partition: Partition(5),
                offset: Offset(42),
            },
            timestamp: Some(UnixMillis(1_893_455_996_000)),
            timestamp_type: TimestampType::LogAppendTime,
            key: Some(Bytes::from_static(b"inv-7")),
            value: Some(Bytes::from_static(b"{}")),
            headers,
        }
    }

    fn denied(record: &Record, route: &Route, counts: PartitionCounts, delivery: Delivery) -> Effects {
        let step = Step {
            decision: Decision::Deny(Denial::new(Reason::Forbidden, "a policy forbids it")),
            audit: full(),
            delivery,
            traces: Traces::default(),
        };
        let codec = Codecs::new().unwrap();
        effects(&codec, route, record, step, counts, &mut PartitionState::new(360_000)).unwrap()
    }

    fn text<'a>(out: &'a Outgoing, name: &str) -> Vec<&'a str> {
        let named = out.headers.iter().filter(|header| &header.name[..] == name.as_bytes());
        named.map(|header| std::str::from_utf8(header.value.as_deref().unwrap()).unwrap()).collect()
    }

    #[test]
    fn a_dead_letter_keeps_the_bytes_and_tells_why_without_a_signature() {
        let record = record(vec![
            Header::new("Txn-Token", TOKEN),
            Header::new("txn-token", TOKEN),
            Header::new("traceparent", "kept"),
            Header::new("Denied-Reason", "a lie"),
            Header::new("original-offset", "1"),
            Header::new("TXN-token-Redacted", "a lie"),
            Header::new("Original-Value-SHA256", "a lie"),
            Header::new("kafka_dlt-original-topic", "a lie"),
            Header::new("original-filename", "kept"),
        ]);
        let route = Route { compatibility: Some(Compatibility::Spring), ..plain() };
        let out = denied(&record, &route, COUNTS, Delivery::Open).outcome.unwrap();
        assert_eq!(text(&out, "original-filename"), ["kept"]);
        assert_eq!((out.key.clone(), out.value.clone()), (record.key.clone(), record.value.clone()));
        assert_eq!(text(&out, "denied-reason"), ["forbidden"]);
        assert_eq!(text(&out, "denied-policies"), ["frozen"]);
        assert_eq!(text(&out, "original-offset"), ["42"]);
        assert_eq!(text(&out, "original-timestamp-type"), ["LogAppendTime"]);
        assert_eq!(text(&out, "redrive-count"), ["0"]);
        assert_eq!(text(&out, "traceparent"), ["kept"]);
        assert_eq!(text(&out, "txn-token-redacted"), ["eyJhIjoxfQ.eyJiIjoyfQ"; 2]);
        for header in &out.headers {
            let value = header.value.as_deref().unwrap_or_default();
            assert!(!value.windows(11).any(|part| part == b"c2lnbmF0dXJ"), "{header:?}");
            assert_ne!(value, b"a lie");
        }
    }

    #[test]
    fn a_bare_dead_letter_names_what_it_does_not_carry() {
        let mut record = record(vec![Header::new("big", "x".repeat(5000))]);
        let out = denied(&record, &plain(), COUNTS, Delivery::Bare("too large".into())).outcome.unwrap();
        assert_eq!(out.value, None);
        assert_eq!(out.key, record.key);
        assert_eq!(text(&out, "original-value-sha256"), [sha256(&[b"{}"]).to_string()]);
        assert!(text(&out, "big").is_empty());
        record.key = None;
        let out = denied(&record, &plain(), COUNTS, Delivery::Bare("null key".into())).outcome.unwrap();
        assert_eq!(out.key.as_deref(), Some(&b"payments.commands/5/42"[..]));
    }

    #[test]
    fn partitions_stay_where_counts_agree_and_follow_the_key_where_they_differ() {
        let route = plain();
        let mut record = record(Vec::new());
        let at = |record: &Record, denied_count| {
            let counts = PartitionCounts { denied: denied_count, ..COUNTS };
            let effects = denied(record, &route, counts, Delivery::Open);
            (effects.outcome.unwrap().partition.0, effects.audit.unwrap().partition.0)
        };
        assert_eq!(at(&record, 8), (5, 2));
        assert_eq!(at(&record, 3).0, route.partitioner.partition(b"inv-7", 3));
        record.key = None;
        assert_eq!(at(&record, 3).0, 2);
    }

    #[test]
    fn each_audit_record_takes_the_next_leaf_of_the_tree() {
        let codec = Codecs::new().unwrap();
        let mut state = PartitionState::new(360_000);
        let record = record(Vec::new());
        for leaf in 0..5 {
            let denial = Denial::new(Reason::Forbidden, "no");
            let (decision, delivery) = (Decision::Deny(denial), Delivery::Open);
            let step = Step { decision, audit: full(), delivery, traces: Traces::default() };
            let effects = effects(&codec, &plain(), &record, step, COUNTS, &mut state).unwrap();
            let bytes = effects.audit.unwrap().value.unwrap();
            assert_eq!(codec.audit.decode(&bytes).unwrap().leaf_index, leaf);
        }
        assert_eq!(state.tree().size(), 5);
    }

    #[test]
    fn other_systems_find_their_own_names_in_their_own_encodings() {
        let mut route = plain();
        let record = record(Vec::new());
        route.compatibility = Some(Compatibility::Spring);
        let out = denied(&record, &route, COUNTS, Delivery::Open).outcome.unwrap();
        let offset = out.headers.iter().find(|h| &h.name[..] == b"kafka_dlt-original-offset").unwrap();
        assert_eq!(offset.value.as_deref(), Some(&42i64.to_be_bytes()[..]));
        route.compatibility = Some(Compatibility::Connect);
        let out = denied(&record, &route, COUNTS, Delivery::Open).outcome.unwrap();
        assert_eq!(text(&out, "__connect.errors.offset"), ["42"]);
        assert_eq!(text(&out, "__connect.errors.stage"), ["policy"]);
        route.compatibility = Some(Compatibility::Streams);
        let out = denied(&record, &route, COUNTS, Delivery::Open).outcome.unwrap();
        assert_eq!(text(&out, "__streams.errors.topic"), ["payments.commands"]);
    }
}
