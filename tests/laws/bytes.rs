//! Any bytes decide or deny: whatever stands on a topic, there is one outcome and one audit record that reads, within a
//! bound of its size, and nothing that leaves the gate's own hands holds a signature.

use bytes::Bytes;
use countersign::authorize::decision::Reason;
use countersign::authorize::ids::{Coordinates, Offset, Partition, Topic, UnixMillis};
use countersign::authorize::jose::TokenKind;
use countersign::authorize::limits::MAX_HEADERS;
use countersign::authorize::record::{Header, Record, TimestampType};
use countersign::authorize::replay::window_ms;
use countersign::authorize::state::PartitionState;
use proptest::prelude::*;
use proptest::sample::select;

use crate::forge::{SOURCE, topic};
use crate::gatehouse::{Gatehouse, routes};
use crate::hold;
use crate::made::plan;

/// A header's name: one of the five, in some case, another that means something, or any bytes.
fn name() -> BoxedStrategy<Bytes> {
    let five = select(&TokenKind::ALL[..]).prop_map(|kind| kind.header_name().to_owned());
    let odd = select(
        &[
            "traceparent",
            "decision-id",
            "denied-reason",
            "txn-token-redacted",
            "kind",
            "",
            "Countersignature ",
        ][..],
    );
    prop_oneof![
        4 => five.clone().prop_map(Bytes::from),
        1 => five.prop_map(|name| Bytes::from(name.to_uppercase())),
        2 => odd.prop_map(Bytes::from),
        1 => prop::collection::vec(any::<u8>(), 0..40).prop_map(Bytes::from),
    ]
    .boxed()
}

/// A header's value: any bytes, a token of three parts of any JSON, or nothing.
fn value() -> BoxedStrategy<Option<Bytes>> {
    let json = prop_oneof![
        Just("{}".to_owned()),
        Just("[1e999]".to_owned()),
        Just("\u{feff}{}".to_owned()),
        Just(format!("{}{}", "[".repeat(70), "]".repeat(70))),
        Just(format!("{{\"alg\":\"none\",\"typ\":\"wpt+jwt\",\"kid\":{}}}", "\"k\"")),
        "\\{\"(alg|typ|sub|exp|cnf|jti|oth|act)\":(\"[a-z+]{0,8}\"|-?[0-9]{1,20}|null|\\[\\]|\\{\\})\\}",
    ];
    let part = json.prop_map(|text| {
        use base64::Engine as _;
        base64::engine::general_purpose::URL_SAFE_NO_PAD.encode(text)
    });
    let token = prop::collection::vec(part, 1..5).prop_map(|parts| Bytes::from(parts.join(".")));
    prop_oneof![
        1 => Just(None),
        3 => token.prop_map(Some),
        2 => prop::collection::vec(any::<u8>(), 0..200).prop_map(|bytes| Some(bytes.into())),
        1 => (8_000..9_000_usize).prop_map(|size| Some(Bytes::from(vec![b'a'; size]))),
    ]
    .boxed()
}

fn moment() -> impl Strategy<Value = Option<UnixMillis>> {
    prop_oneof![
        Just(None),
        any::<i64>().prop_map(|at| Some(UnixMillis(at))),
        select(&[i64::MIN, -1, 0, 1_893_455_996_000, i64::MAX][..]).prop_map(|at| Some(UnixMillis(at))),
    ]
}

fn bytes(longest: usize) -> impl Strategy<Value = Option<Bytes>> {
    let any_bytes = prop::collection::vec(any::<u8>(), 0..longest).prop_map(Bytes::from);
    let json = select(
        &[
            "{}",
            "{\"amount\":1}",
            "{\"amount\":1e400}",
            "{\"note\":\"x\",\"note\":1}",
            "[]",
            "null",
            "\"\\ud800\"",
        ][..],
    );
    prop::option::of(prop_oneof![any_bytes, json.prop_map(Bytes::from)])
}

/// A record of any bytes at all.
fn anything() -> BoxedStrategy<Record> {
    let header = (name(), value()).prop_map(|(name, value)| Header { name, value });
    let headers = prop_oneof![
        6 => prop::collection::vec(header.clone(), 0..10),
        1 => prop::collection::vec(header.clone(), 60..70),
        1 => (name(), select(&["", "x", "YQ.YQ.YQ"][..]), 1_000..6_000_usize)
            .prop_map(|(name, value, times)| vec![Header { name, value: Some(value.into()) }; times]),
    ];
    let stamp = (
        moment(),
        select(&[TimestampType::LogAppendTime, TimestampType::CreateTime, TimestampType::NotAvailable][..]),
    );
    let place = (any::<i32>(), prop_oneof![any::<i64>(), 0..100_i64]);
    (headers, stamp, place, bytes(64), bytes(600))
        .prop_map(|(headers, (timestamp, timestamp_type), (partition, offset), key, value)| Record {
            source: Coordinates {
                topic: topic(SOURCE),
                partition: Partition(partition),
                offset: Offset(offset),
            },
            timestamp,
            timestamp_type,
            key,
            value,
            headers,
        })
        .boxed()
}

/// A record that was good, or nearly, with some of its bytes changed.
fn damaged() -> BoxedStrategy<Record> {
    let hit = (any::<prop::sample::Index>(), any::<prop::sample::Index>(), any::<u8>());
    let hits = prop::collection::vec(hit, 0..4);
    (plan(), hits, moment(), prop::bool::weighted(0.2))
        .prop_map(|(plan, hits, at, stamped)| {
            let mut record = plan.record();
            for (header, at, byte) in hits {
                let header = header.get_mut(&mut record.headers);
                let mut value = header.value.as_deref().unwrap_or_default().to_vec();
                if !value.is_empty() {
                    let at = at.index(value.len());
                    value[at] = byte;
                }
                header.value = Some(value.into());
            }
            if stamped {
                record.timestamp = at;
            }
            record
        })
        .boxed()
}

/// The most that an audit record takes here: these records hold no large claims, whatever else they hold.
const AUDIT_BYTES: usize = 64 * 1024;

/// The signatures of a record's tokens: what is the last of three parts and stands nowhere else in the record.
fn signatures(record: &Record) -> Vec<Bytes> {
    let five = record.headers.iter().filter(|header| TokenKind::of_header(&header.name).is_some());
    let values = five.filter_map(|header| header.value.clone());
    let parts = values.filter_map(|value| {
        let at = value.iter().rposition(|byte| *byte == b'.')?;
        (value.iter().filter(|byte| **byte == b'.').count() == 2).then(|| value.slice(at + 1..))
    });
    let places = |part: &[u8]| -> usize {
        let values = record.headers.iter().filter_map(|header| header.value.as_deref());
        values.map(|value| value.windows(part.len()).filter(|window| *window == part).count()).sum()
    };
    parts.filter(|part| part.len() >= 40 && places(part) == 1).collect()
}

fn found_in(bytes: &[u8], part: &[u8]) -> bool {
    bytes.windows(part.len()).any(|window| window == part)
}

fn judge(house: &Gatehouse, record: &Record, route: usize) -> Result<(), TestCaseError> {
    let route = &routes()[route];
    let mut state = PartitionState::new(window_ms(route));
    state.begin();
    let effects = house.decide(route, record, &mut state);
    prop_assert_eq!(state.next_leaf(), 1, "one audit record");
    let bytes = effects.audit.as_ref().and_then(|out| out.value.clone()).expect("its bytes");
    prop_assert!(bytes.len() <= AUDIT_BYTES, "the audit record has {} bytes", bytes.len());
    let audit = house.audit(&effects);
    prop_assert!(audit.token_hashes.len() <= MAX_HEADERS);
    let known = |code: &str| Reason::ALL.iter().any(|reason| reason.as_str() == code);
    match audit.outcome.as_str() {
        "forward" => prop_assert_eq!(effects.outcome.as_ref().map(|out| &out.topic), Some(&route.to)),
        "deny" => {
            prop_assert_eq!(effects.outcome.as_ref().map(|out| &out.topic), Some(&route.denied));
            prop_assert!(audit.reason.as_deref().is_some_and(known), "{:?}", audit.reason);
            let written =
                effects.outcome.iter().flat_map(|out| &out.headers).filter_map(|h| h.value.as_ref());
            for signature in signatures(record) {
                let rests = written.clone().chain([&bytes]).any(|bytes| found_in(bytes, &signature));
                prop_assert!(!rests, "a signature is at rest");
            }
        }
        "hold" | "wait" => prop_assert!(route.holding.is_some() && effects.outcome.is_none()),
        other => prop_assert!(false, "an outcome `{}`", other),
    }
    state.commit();
    Ok(())
}

#[test]
fn any_bytes_decide_or_deny_and_leave_one_audit_record() {
    let house = Gatehouse::new();
    hold(700, (anything(), 0..routes().len()), |(record, route)| judge(&house, &record, route));
}

#[test]
fn a_damaged_record_decides_or_denies_and_leaves_one_audit_record() {
    let house = Gatehouse::new();
    hold(1000, (damaged(), 0..routes().len()), |(record, route)| judge(&house, &record, route));
}

#[test]
fn any_answer_is_taken_in_and_leaves_one_audit_record() {
    let house = Gatehouse::new();
    let route = routes().into_iter().find(|route| route.holding.is_some()).expect("one that holds");
    let answers: Topic = topic("payments.commands.answers");
    let tokens =
        prop_oneof![value(), plan().prop_map(|plan| plan.record().headers.pop().and_then(|h| h.value))];
    hold(500, (anything(), tokens), |(record, value)| {
        let mut answer = Record { value, ..record };
        answer.source.topic = answers.clone();
        let moment = countersign::authorize::engine::Moment {
            now: crate::forge::NOW,
            id: crate::forge::id_of(&answer),
            snapshot: &house.snapshot,
            source_partitions: 8,
        };
        let mut state = PartitionState::new(window_ms(&route));
        let step = house.engine.answer(&route, &topic(SOURCE), &answer, None, &moment, &mut state);
        let about =
            Record { source: Coordinates { topic: topic(SOURCE), ..answer.source.clone() }, ..answer };
        let counts = crate::gatehouse::COUNTS;
        let made =
            countersign::wire::outgoing::effects(&house.codecs, &route, &about, step, counts, &mut state);
        let made = made.map_err(|error| TestCaseError::fail(error.to_string()))?;
        prop_assert!(made.outcome.is_none() && made.kept.is_empty());
        let size = made.audit.as_ref().and_then(|out| out.value.as_ref()).map_or(0, Bytes::len);
        prop_assert!(size <= AUDIT_BYTES, "the audit record has {} bytes", size);
        let said = house.audit(&made).answer;
        prop_assert!(
            said.is_some_and(|said| said.effect != "counted"),
            "nothing is held that it could be about"
        );
        Ok(())
    });
}
