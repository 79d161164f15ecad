//! No value that a sender can write makes a route's mapping run long: what could is refused before it is evaluated.

use std::time::{Duration, Instant};

use bytes::Bytes;
use countersign::authorize::decision::{Denial, Reason};
use countersign::authorize::ids::{Coordinates, Offset, Partition, Topic, UnixMillis};
use countersign::authorize::limits::MAX_MAPPED_VALUE_BYTES;
use countersign::authorize::record::{Header, Record, TimestampType};
use countersign::authorize::request::{Evidence, Mapping, MappingSource, Request};
use serde_json::json;

fn record(value: &[u8]) -> Record {
    Record {
        source: Coordinates {
            topic: Topic::parse("payments.commands").unwrap(),
            partition: Partition(3),
            offset: Offset(7),
        },
        timestamp: Some(UnixMillis(0)),
        timestamp_type: TimestampType::LogAppendTime,
        key: Some(Bytes::from_static(b"inv-7")),
        value: Some(Bytes::copy_from_slice(value)),
        headers: vec![
            Header::new("kind", "refund"),
            Header::new("unsigned", "x"),
            Header::new("twice", "a"),
            Header::new("twice", "b"),
            Header::new("Txn-Token", "secret"),
        ],
    }
}

const NOTHING: Evidence<'_> = Evidence {
    sender: "spiffe://example.org/agent/payer",
    proven: true,
    signed_headers: &[],
    action: None,
    resource: None,
    workflow: None,
    transaction: None,
};
const RESOURCE: &str = "{'type': 'Invoice', 'id': key}";

fn mapping(action: &str, resource: &str) -> Mapping {
    let source =
        MappingSource { action: Some(action.into()), resource: Some(resource.into()), ..Default::default() };
    Mapping::compile(&source).unwrap()
}

fn reason(outcome: Result<Request, Denial>) -> Reason {
    outcome.unwrap_err().reason
}

#[test]
fn no_value_makes_a_mapping_run_long() {
    let numbers = json!({"xs": (0..100_000).collect::<Vec<u32>>(), "s": "a"}).to_string();
    let fat = json!({"xs": vec!["a".repeat(10); 1000], "s": "a".repeat(500_000)}).to_string();
    let wide = json!({"xs": vec![json!([]); 30_000], "s": vec![json!([]); 100_000]}).to_string();
    for value in [numbers, fat, wide] {
        for expression in [
            "value.xs.all(x, value.xs.exists(y, y == x)) ? 'a' : 'b'",
            "value.xs.all(x, !(x in value.xs) || x == x) ? 'a' : 'b'",
            "value.xs.map(x, value.xs.map(y, value.xs.map(z, [x, y, z])))[0][0][0]",
            "value.xs.map(x, value.xs).map(l, l.map(m, m))[0]",
            "value.xs.all(x, value.s.contains(string(x) + 'b') || true) ? 'a' : 'b'",
            "value.xs.filter(x, key.matches('(a|b|c|d){100}[a-z]{100}')).map(x, 'a')[0]",
            "value.xs.all(x, value.s - x == 1) ? 'a' : 'b'",
            "value.xs.all(x, value[x] == 1) ? 'a' : 'b'",
            "[value.s].map(x, x + x).map(x, x + x).map(x, x + x).map(x, x + x).map(x, x + x).map(x, x + x)[0]",
            "([value.s].map(x, x + x).map(x, x + x + x + x + x + x + x + x + x + x).map(x, x + x + x + x + x + x + x + x + x + x))[0]",
        ] {
            let mapping = mapping(expression, RESOURCE);
            let record = record(value.as_bytes());
            let started = Instant::now();
            let _ = mapping.resolve(&record, &NOTHING);
            let took = started.elapsed();
            assert!(took < Duration::from_secs(1), "{took:?} for {expression}");
        }
    }
    let large = format!("\"{}\"", "a".repeat(MAX_MAPPED_VALUE_BYTES));
    assert_eq!(
        reason(mapping("value", RESOURCE).resolve(&record(large.as_bytes()), &NOTHING)),
        Reason::RequestUnmapped
    );
}
