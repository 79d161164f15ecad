//! What each target begins with: the vectors, records of the forge, the examples, and pieces of each form. Limits: made
//! here each time, not kept in files.

use bytes::Bytes;
use countersign::authorize::ids::{Coordinates, Offset, Partition, UnixMillis};
use countersign::authorize::jose::{TokenKind, token_hash};
use countersign::authorize::record::{Header, Record, TimestampType};
use countersign::authorize::replay::{Entry, window_ms};
use countersign::authorize::route::{Order, Route};
use countersign::authorize::state::PartitionState;
use countersign::stream::checkpoint::Checkpoint;
use countersign::wire::replay;
use serde_json::{Value, json};

use super::forge::{self, Flaw, NOW, Plan, READER, countersigned_claims, key, topic};
use super::gatehouse::{Gatehouse, POLICIES, SCHEMA, holding};
use super::vectors;

/// A piece of a record: what it is, and its bytes with their length.
const KEY: u8 = 250;
const VALUE: u8 = 251;
const TIMESTAMP: u8 = 252;
const CREATED: u8 = 253;
/// From here on, but for the above, a header of another name.
const OTHER: u8 = 10;
const OTHER_NAMES: [&str; 6] =
    ["kind", "traceparent", "decision-id", "txn-token-redacted", "denied-reason", "challenge"];

/// The record that these bytes stand for; all bytes stand for one.
pub fn record_of(mut data: &[u8]) -> Record {
    let mut record = Record {
        source: Coordinates { topic: topic(forge::SOURCE), partition: Partition(0), offset: Offset(17) },
        timestamp: Some(UnixMillis(forge::ACCEPTED_S * 1000)),
        timestamp_type: TimestampType::LogAppendTime,
        key: None,
        value: None,
        headers: Vec::new(),
    };
    while let [what, low, high, rest @ ..] = data {
        let length = usize::from(u16::from_le_bytes([*low, *high])).min(rest.len());
        let (bytes, after) = rest.split_at(length);
        data = after;
        let value = Bytes::copy_from_slice(bytes);
        match *what {
            KEY => record.key = Some(value),
            VALUE => record.value = Some(value),
            TIMESTAMP => {
                record.timestamp = bytes.try_into().ok().map(|bytes| UnixMillis(i64::from_le_bytes(bytes)));
            }
            CREATED => record.timestamp_type = TimestampType::CreateTime,
            what => {
                let kind = TokenKind::ALL[usize::from(what) % TokenKind::ALL.len()];
                let name = match what {
                    0..5 => kind.header_name().to_owned(),
                    5..OTHER => kind.header_name().to_uppercase(),
                    _ => OTHER_NAMES[usize::from(what) % OTHER_NAMES.len()].to_owned(),
                };
                let value = (length > 0).then_some(value);
                record.headers.push(Header { name: Bytes::from(name), value });
            }
        }
    }
    record
}

/// The bytes that stand for a record, behind the number of a route.
fn written(route: u8, record: &Record) -> Vec<u8> {
    let mut data = vec![route];
    let mut put = |what: u8, bytes: &[u8]| {
        let bytes = &bytes[..bytes.len().min(usize::from(u16::MAX))];
        data.push(what);
        data.extend_from_slice(&u16::try_from(bytes.len()).unwrap_or(u16::MAX).to_le_bytes());
        data.extend_from_slice(bytes);
    };
    for (what, bytes) in [(KEY, &record.key), (VALUE, &record.value)] {
        if let Some(bytes) = bytes {
            put(what, bytes);
        }
    }
    if let Some(at) = record.timestamp {
        put(TIMESTAMP, &at.0.to_le_bytes());
    }
    if record.timestamp_type == TimestampType::CreateTime {
        put(CREATED, b"");
    }
    for header in &record.headers {
        let kind = TokenKind::ALL.iter().position(|kind| Some(*kind) == TokenKind::of_header(&header.name));
        let what = kind.and_then(|at| u8::try_from(at).ok()).unwrap_or(OTHER);
        put(what, header.value.as_deref().unwrap_or_default());
    }
    data
}

/// Plans that end in each stage.
fn plans() -> Vec<Plan> {
    let full =
        Plan { countersignature: true, grant: true, header: Some(("refund", true)), ..Plan::default() };
    let mut plans = vec![Plan::default(), full.clone()];
    plans.push(Plan {
        sender: READER,
        action: "read",
        transaction: false,
        workflow: None,
        ..Plan::default()
    });
    plans.push(Plan { amount: 5_000, ..full.clone() });
    plans.push(Plan { resource: ("Invoice", "odd"), ..Plan::default() });
    plans.push(Plan { tampered: true, ..Plan::default() });
    for kind in TokenKind::ALL {
        plans.extend(Flaw::ALL.map(|flaw| Plan { flaw: Some((kind, flaw)), ..full.clone() }));
    }
    plans
}

/// The records of the vectors.
fn vector_records() -> Vec<Record> {
    let world = vectors::World::read();
    world.cases().iter().map(|(_, case)| vectors::record(&case["record"])).collect()
}

/// Records of every route, and those of the vectors.
pub fn headers() -> Vec<Vec<u8>> {
    let mut seeds: Vec<Vec<u8>> =
        (0..).zip(plans()).map(|(n, plan)| written(n % 7, &plan.record())).collect();
    let mut unproven = Plan::default().record();
    unproven.headers.clear();
    seeds.push(written(6, &unproven));
    seeds.extend((0..).zip(vector_records()).map(|(n, record)| written(n % 7, &record)));
    seeds
}

/// Every token of those records.
pub fn jws() -> Vec<Vec<u8>> {
    let records = plans().into_iter().map(|plan| plan.record()).chain(vector_records());
    let tokens = records.flat_map(|record| record.headers.into_iter().filter_map(|header| header.value));
    let mut tokens: Vec<Vec<u8>> = tokens.map(|token| token.to_vec()).collect();
    tokens.sort();
    tokens.dedup();
    tokens
}

/// The sets of the vectors, and sets with one thing odd.
pub fn jwks() -> Vec<Vec<u8>> {
    let world = vectors::World::read();
    let domains = world.file["trust"].as_object().into_iter().flatten();
    let sets =
        domains.flat_map(|(_, keys)| ["bundle", "txn_keys", "gate_keys"].map(|of| keys[of].to_string()));
    let own = key("issuer").public_jwk();
    let rsa = json!({"kty": "RSA", "n": "AQAB".repeat(86), "e": "AQAB", "alg": "RS256", "kid": "r"});
    let odd = [
        json!({"keys": []}),
        json!({"keys": [own]}),
        json!({"keys": [own, own]}),
        json!({"keys": [rsa, {"kty": "oct", "k": "AA"}, {"kty": "EC", "crv": "P-521"}]}),
        json!({"keys": [{"kty": "OKP", "crv": "Ed25519", "x": "AA", "use": "enc", "d": "AA"}], "more": 1}),
    ];
    sets.chain(odd.map(|set: Value| set.to_string())).map(String::into_bytes).collect()
}

/// Claims of countersignatures with chains of each length.
pub fn chain() -> Vec<Vec<u8>> {
    let good = || {
        let transaction = Plan::default().record();
        let token = transaction.headers.iter().find(|h| &h.name[..] == b"txn-token");
        let mut claims = countersigned_claims();
        claims["txn"] = "txn-1".into();
        claims["tth"] =
            token_hash(token.and_then(|h| h.value.as_deref()).unwrap_or_default()).to_string().into();
        claims
    };
    let chained = (0..10).map(|senders| {
        let mut claims = good();
        for n in 0..senders {
            let inner = claims["act"].take();
            claims["act"] = json!({"sub": format!("spiffe://example.org/agent/{n}")});
            if !inner.is_null() {
                claims["act"]["act"] = inner;
            }
        }
        if senders == 0 {
            claims.as_object_mut().into_iter().for_each(|members| drop(members.remove("act")));
        }
        claims.to_string().into_bytes()
    });
    chained.collect()
}

/// Expressions, each with a value.
pub fn cel() -> Vec<Vec<u8>> {
    let expressions = [
        "value.action",
        "{'name': value.a, 'properties': {'n': value.xs[0]}}",
        "value.xs.all(x, value.xs.exists(y, y == x)) ? 'a' : 'b'",
        "value.xs.map(x, x + 1).filter(x, x > 2)",
        "{'xs': value.xs.map(x, [x, x])}",
        "has(value.a) && value.a.matches('^[a-z]+$') ? value.a : string(size(value.xs))",
        "[value.a].map(x, x + x).map(x, x + x)[0]",
        "bytes(key) == key_bytes && topic.startsWith('pay') ? claims.sender : headers['kind']",
        "int('7') + partition > 3 || double('1e3') < 2.0 ? 'a' : 'b'",
        "value",
    ];
    let values = [r#"{"a":"pay","action":"pay","xs":[1,2,3]}"#, r#"{"xs":[],"a":"\u0001\u00e9"}"#, "[]", ""];
    let pairs =
        expressions.iter().flat_map(|expression| values.map(|value| format!("{expression}\0{value}")));
    pairs.map(String::into_bytes).collect()
}

/// Policies alone, which meet the schema of the forge, and policies with a schema.
pub fn bundle() -> Vec<Vec<u8>> {
    let examples = [
        (
            include_str!("../../examples/first-route/policies/payments.cedar"),
            include_str!("../../examples/first-route/policies/schema.cedarschema"),
        ),
        (
            include_str!("../../examples/demo/policies/payouts.cedar"),
            include_str!("../../examples/demo/policies/schema.cedarschema"),
        ),
        (POLICIES, SCHEMA),
    ];
    let mut seeds: Vec<Vec<u8>> =
        examples.iter().map(|(policies, schema)| format!("{policies}\0{schema}").into_bytes()).collect();
    let single = POLICIES.split("@id").filter(|text| text.contains(';')).map(|text| format!("@id{text}"));
    seeds.extend(single.map(String::into_bytes));
    seeds
}

/// What a gate writes for itself and for others.
pub fn avro() -> Vec<Vec<u8>> {
    let house = Gatehouse::new();
    let route = Route { holding: Some(holding(Order::None)), ..forge::route() };
    let mut seeds = Vec::new();
    for plan in plans().iter().take(12) {
        let mut state = PartitionState::new(window_ms(&route));
        let effects = house.decide(&route, &plan.record(), &mut state);
        let kept = effects.kept.into_iter().flat_map(|kept| [kept.record.key, kept.record.value]);
        let told = effects.told.into_iter().map(|told| told.value);
        let audit = effects.audit.into_iter().map(|audit| audit.value);
        seeds.extend(kept.chain(told).chain(audit).flatten().map(|bytes| bytes.to_vec()));
    }
    let entry =
        |n: i64| Entry::new(&forge::workload(READER), &format!("j{n}"), Offset(n), UnixMillis(NOW.0 + n));
    seeds.push(replay::encode(&(0..20).map(entry).collect::<Vec<_>>()));
    seeds.extend(Checkpoint::default().encode().ok().map(String::into_bytes));
    seeds
}

/// The examples.
pub fn configuration() -> Vec<Vec<u8>> {
    [
        include_str!("../../examples/first-route/countersign.toml"),
        include_str!("../../examples/demo/invoices.toml"),
        include_str!("../../examples/demo/ledger.toml"),
        include_str!("../../deploy/gate/countersign.toml"),
    ]
    .map(|text| text.as_bytes().to_vec())
    .to_vec()
}
