//! The stage context, rule by rule, in its order.

use bytes::Bytes;

use super::*;
use crate::authorize::record::Header;
use crate::authorize::testing::*;

fn reason(record: &Record) -> Option<Reason> {
    World::default().reason(record)
}

fn fill(record: &mut Record, headers: usize) {
    for n in record.headers.len()..headers {
        record.headers.push(Header::new(&format!("h{n}"), ""));
    }
}

#[test]
fn sixty_four_headers_pass_and_one_more_does_not() {
    let mut record = Plan::default().build();
    fill(&mut record, 64);
    assert_eq!(reason(&record), None);
    fill(&mut record, 65);
    assert_eq!(reason(&record), Some(Reason::ContextTooLarge));
}

#[test]
fn a_token_of_8_kib_passes_its_bound_in_any_case_of_its_name() {
    for name in ["txn-token", "Txn-Token"] {
        let mut record = Plan { transaction: false, ..Plan::default() }.build();
        record.headers.push(Header::new(name, vec![b'a'; MAX_TOKEN_BYTES]));
        assert_eq!(reason(&record), Some(Reason::ContextMalformed), "{name}");
        record.headers.last_mut().unwrap().value = Some(vec![b'a'; MAX_TOKEN_BYTES + 1].into());
        assert_eq!(reason(&record), Some(Reason::ContextTooLarge), "{name}");
    }
    let mut record = Plan::default().build();
    record.headers.push(Header::new("other", vec![b'a'; MAX_TOKEN_BYTES + 1]));
    assert_eq!(reason(&record), None);
}

#[test]
fn all_headers_together_are_32_kib_names_counted_and_null_as_nothing() {
    let mut record = Plan::default().build();
    record.headers.push(Header { name: Bytes::from_static(b"null"), value: None });
    let used: usize =
        record.headers.iter().map(|h| h.name.len() + h.value.as_ref().map_or(0, |v| v.len())).sum();
    let name = "n".repeat(100);
    record.headers.push(Header::new(&name, vec![0; MAX_HEADER_BYTES - used - 100]));
    assert_eq!(reason(&record), None);
    record.headers.last_mut().unwrap().value = Some(vec![0; MAX_HEADER_BYTES - used - 99].into());
    assert_eq!(reason(&record), Some(Reason::ContextTooLarge));
}

#[test]
fn sizes_come_before_names_names_before_what_is_missing_and_that_before_shapes() {
    let mut record = Plan::default().build();
    record.headers = vec![Header::new("Txn-Token", "x"), Header::new("workload-identity-token", "x")];
    fill(&mut record, 65);
    assert_eq!(reason(&record), Some(Reason::ContextTooLarge));
    record.headers.truncate(3);
    assert_eq!(reason(&record), Some(Reason::ContextMalformed));
    record.headers.remove(0);
    assert_eq!(reason(&record), Some(Reason::ContextMissing));
    record.headers.push(Header::new("workload-proof-token", "x"));
    assert_eq!(reason(&record), Some(Reason::ContextMalformed));
}

#[test]
fn the_five_are_there_once_in_lower_case_and_not_null() {
    for kind in TokenKind::ALL {
        let name = kind.header_name();
        let good = Plan::full().build();
        let place = good.headers.iter().position(|h| h.name == name).unwrap();
        let mut doubled = good.clone();
        doubled.headers.push(good.headers[place].clone());
        let mut upper = good.clone();
        upper.headers[place].name = name.to_uppercase().into();
        let mut null = good.clone();
        null.headers[place].value = None;
        let mut empty = good.clone();
        empty.headers[place].value = Some(Bytes::new());
        for (what, record) in [("doubled", doubled), ("upper", upper), ("null", null), ("empty", empty)] {
            let denial = World::default().judge(&record).unwrap_err();
            assert_eq!(denial.reason, Reason::ContextMalformed, "{what} {name}");
            assert!(denial.detail.contains(name), "{denial}");
        }
    }
    let mut record = Plan::default().build();
    record.headers.push(Header::new("TraceParent", "x"));
    record.headers.push(Header { name: Bytes::from_static(b"\xff"), value: None });
    assert_eq!(reason(&record), None);
}

#[test]
fn what_the_route_needs_is_named_when_it_is_missing() {
    let without = |name: &str| {
        let mut record = Plan::full().build();
        record.headers.retain(|header| header.name != name);
        record
    };
    let strict = Route { require_transaction: true, require_countersignature: true, ..route() };
    let world = World::on(strict);
    assert_eq!(world.reason(&Plan::full().build()), None);
    for name in ["workload-identity-token", "workload-proof-token", "txn-token", "countersignature"] {
        let denial = world.judge(&without(name)).unwrap_err();
        assert_eq!(denial.reason, Reason::ContextMissing);
        assert!(denial.detail.contains(name), "{denial}");
    }
    assert_eq!(reason(&without("txn-token")), Some(Reason::ProofMismatch));
}

#[test]
fn nothing_downgrades_a_record_that_carries_either_token() {
    let unproven = Some(WorkloadId::parse("spiffe://example.org/legacy").unwrap());
    let world = World::on(Route { unproven, ..route() });
    for (name, expected) in [
        ("workload-identity-token", Reason::ContextMissing),
        ("workload-proof-token", Reason::ContextMissing),
    ] {
        let mut record = Plan::default().build();
        record.headers.retain(|header| header.name != name);
        assert_eq!(world.reason(&record), Some(expected), "{name}");
    }
    let mut record = Plan { signed: false, ..Plan::default() }.build();
    record.headers.push(Header::new("Workload-Proof-Token", ""));
    assert_eq!(world.reason(&record), Some(Reason::ContextMalformed));
    // A denial's headers mean nothing on a record that proves its sender.
    let mut record = Plan::default().build();
    record.headers.push(Header::new("denied-reason", "x"));
    assert_eq!(world.reason(&record), None);
}

#[test]
fn an_unproven_record_carries_neither_gated_work_nor_the_marks_of_a_denial() {
    let unproven = Some(WorkloadId::parse("spiffe://example.org/legacy").unwrap());
    let world = World::on(Route { unproven, ..route() });
    let plan = Plan { signed: false, ..Plan::default() };
    assert_eq!(world.reason(&plan.build()), None);
    for name in [
        "denied-reason",
        "Denied-x",
        "original-topic",
        "txn-token-redacted",
        "X-Redacted",
        "-redacted",
        "denied-",
    ] {
        let mut record = plan.build();
        record.headers.push(Header::new(name, ""));
        assert_eq!(world.reason(&record), Some(Reason::ContextMalformed), "{name}");
    }
    for name in ["redacted", "denied", "x-denied-reason", "x-redacted-y", "original"] {
        let mut record = plan.build();
        record.headers.push(Header::new(name, ""));
        assert_eq!(world.reason(&record), None, "{name}");
    }
    for plan in [Plan { countersignature: true, ..plan.clone() }, Plan { grant: true, ..plan.clone() }] {
        assert_eq!(world.reason(&plan.build()), Some(Reason::ContextMalformed));
    }
    // Names come before what is missing.
    let strict = World::on(Route { require_transaction: true, ..world.route });
    let mut record = Plan { transaction: false, ..plan }.build();
    assert_eq!(strict.reason(&record), Some(Reason::ContextMissing));
    record.headers.push(Header::new("denied-reason", ""));
    assert_eq!(strict.reason(&record), Some(Reason::ContextMalformed));
}

#[test]
fn hashes_are_those_of_the_headers() {
    let record = Plan::full().build();
    let world = World::default();
    let claimed = Claimed::read(&record, &Hashes::of(&record), &world.route, &world.cache).unwrap();
    for kind in TokenKind::ALL {
        let header = record.headers.iter().find(|h| h.name == kind.header_name()).unwrap();
        assert_eq!(claimed.hash(kind), Some(token_hash(header.value.as_ref().unwrap())));
    }
    let shown = format!("{claimed:?}");
    for header in &record.headers {
        let token = std::str::from_utf8(header.value.as_ref().unwrap()).unwrap();
        assert!(!shown.contains(token.rsplit('.').next().unwrap()));
    }
}

#[test]
fn bytes_that_no_gate_wrote_never_panic() {
    use proptest::prelude::*;
    proptest!(|(at in 0_usize..5, flips in proptest::collection::vec((any::<prop::sample::Index>(), any::<u8>()), 1..6))| {
        let mut record = Plan::full().build();
        let header = &mut record.headers[at];
        let mut bytes = header.value.clone().unwrap().to_vec();
        for (place, byte) in flips {
            let place = place.index(bytes.len());
            bytes[place] = byte;
        }
        header.value = Some(bytes.into());
        let _ = World::default().judge(&record);
    });
}
