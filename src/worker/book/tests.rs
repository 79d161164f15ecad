//! Which signals stop which work, against a plain reading of the rules; and what silence means.

use std::time::Duration;

use proptest::prelude::*;

use super::*;
use crate::authorize::claims::Transaction;
use crate::authorize::request::Workflow;
use crate::authorize::standing::Kind;
use crate::worker::Received;
use crate::worker::tests::{forwarded, plan, verifier};

/// When the work of these tests was decided, in seconds; its Txn-Token is a minute older.
const DECIDED: i64 = 1_000_000;
const HOME: &str = "spiffe://example.org/gate/two";
const AWAY: &str = "spiffe://other.org/gate/one";

fn at(seconds: i64) -> UnixMillis {
    UnixMillis(seconds * 1000)
}

fn bounds() -> Bounds {
    Bounds { remember: Duration::from_secs(1000), ..Bounds::default() }
}

/// Work of `alice` and `txn-1`, sent by the payer after the reader, in the workflow `order-9`.
fn received() -> Received {
    let record = forwarded(&plan());
    let mut received = verifier().verify_at(&record, record.timestamp.unwrap()).unwrap();
    received.decided_at = at(DECIDED);
    let workflow = Workflow {
        id: "order-9".into(),
        kind: "order".into(),
        step: "pay".into(),
        state: "running".into(),
        attempt: None,
        started_at: None,
        deadline: None,
    };
    received.workflow = Some(workflow);
    let issued_at = (DECIDED - 60) as f64;
    let transaction: Transaction = received.transaction.take().unwrap();
    received.transaction = Some(Transaction { issued_at, jti: Some("token-1".into()), ..transaction });
    received
}

fn marks() -> Marks {
    Marks::of(&received())
}

fn named(kind: Kind, id: &str) -> Target {
    Target { kind, id: id.into() }
}

fn workload(uri: &str) -> Target {
    named(Kind::Workload, uri)
}

fn domain(name: &str) -> Target {
    named(Kind::TrustDomain, name)
}

const FOREVER: Event = Event::Revoked { not_before: None, expires_at: None };

fn heard(gate: &str, about: Target, event: Event, issued_at: UnixMillis, id: u8) -> Heard {
    let signal = Signal { id: Digest([id; 32]), about, event, event_at: issued_at, reason: None };
    Heard { gate: WorkloadId::parse(gate).unwrap(), issued_at, said: Said::Signal(signal) }
}

fn heartbeat(instance: &str, as_of: UnixMillis) -> Heard {
    let said = Said::Heartbeat(Heartbeat { instance: instance.into(), as_of });
    Heard { gate: WorkloadId::parse(HOME).unwrap(), issued_at: as_of, said }
}

/// A book that has heard a gate until `now`, and these.
fn book(all: &[Heard], now: UnixMillis) -> Book {
    let mut book = Book::new(bounds(), now);
    book.listen([Partition(0)], now);
    for heard in all {
        book.take(Partition(0), heard.clone(), now);
    }
    book
}

fn stops(gate: &str, about: Target, event: Event) -> bool {
    let now = at(DECIDED + 5);
    book(&[heard(gate, about, event, now, 1)], now).stop(&marks(), now).is_some()
}

#[test]
fn everything_that_the_work_is_known_by_can_stop_it() {
    let received = received();
    let key = received.keys.first().unwrap().clone();
    let mine = [
        workload("spiffe://example.org/agent/payer"),
        workload("spiffe://example.org/agent/reader"),
        workload("spiffe://example.org/gate/two"),
        named(Kind::Subject, "alice"),
        named(Kind::Transaction, "txn-1"),
        named(Kind::Token, "token-1"),
        named(Kind::Token, &received.decision),
        named(Kind::Key, &key),
        named(Kind::Workflow, "order-9"),
        domain("example.org"),
    ];
    for about in mine {
        assert!(stops(HOME, about.clone(), FOREVER), "{about:?}");
    }
    let others = [
        workload("spiffe://example.org/agent/paye"),
        named(Kind::Subject, "txn-1"),
        named(Kind::Subject, "example.org/alice"),
        named(Kind::Transaction, "alice"),
        named(Kind::Token, "txn-1"),
        named(Kind::Key, "token-1"),
        named(Kind::Workflow, "order-8"),
        domain("other.org"),
    ];
    for about in others {
        assert!(!stops(HOME, about.clone(), FOREVER), "{about:?}");
    }
}

#[test]
fn a_subject_is_spelled_as_the_gate_that_signs_spells_it() {
    assert!(stops(AWAY, named(Kind::Subject, "example.org/alice"), FOREVER));
    // Another alice: the one of the other gate's own domain.
    assert!(!stops(AWAY, named(Kind::Subject, "alice"), FOREVER));
}

#[test]
fn the_end_and_the_suspension_of_its_workflow_stop_it_and_say_how() {
    let now = at(DECIDED + 5);
    let reason = |event| {
        let all = [heard(HOME, named(Kind::Workflow, "order-9"), event, now, 1)];
        book(&all, now).stop(&marks(), now).unwrap().to_string()
    };
    let ended = reason(Event::Workflow(Status::Cancelled));
    assert_eq!(ended, "the workflow `order-9` has ended: cancelled");
    assert_eq!(reason(Event::Workflow(Status::Suspended)), "the workflow `order-9` is suspended");
    assert!(!stops(HOME, named(Kind::Workflow, "order-8"), Event::Workflow(Status::Failed)));
}

#[test]
fn a_date_before_which_things_are_revoked_is_compared_with_what_is_known_of_them() {
    let before = |date: i64| Event::Revoked { not_before: Some(date as f64), expires_at: None };
    for about in [named(Kind::Subject, "alice"), named(Kind::Transaction, "txn-1")] {
        assert!(!stops(HOME, about.clone(), before(DECIDED - 60)), "{about:?}");
        assert!(stops(HOME, about.clone(), before(DECIDED - 59)), "{about:?}");
    }
    // When the sender's identity was issued a worker does not know.
    assert!(stops(HOME, workload("spiffe://example.org/agent/payer"), before(0)));
}

#[test]
fn what_was_decided_in_view_of_a_signal_goes_on() {
    let now = at(DECIDED);
    let sender = || workload("spiffe://example.org/agent/payer");
    let issued = |ago: i64| {
        book(&[heard(HOME, sender(), FOREVER, at(DECIDED - ago), 1)], now).stop(&marks(), now).is_some()
    };
    assert!(issued(70));
    assert!(!issued(71));
}

#[test]
fn a_revocation_that_is_over_stops_nothing_any_more() {
    let ends = |end: i64| Event::Revoked { not_before: None, expires_at: Some(end as f64) };
    let sender = || workload("spiffe://example.org/agent/payer");
    assert!(stops(HOME, sender(), ends(DECIDED + 5)));
    assert!(!stops(HOME, sender(), ends(DECIDED + 4)));
}

#[test]
fn silence_ends_the_work_and_only_a_fresh_heartbeat_breaks_it() {
    let marks = marks();
    let mut book = book(&[], at(DECIDED));
    let silent = |book: &Book, now: i64| book.stop(&marks, at(now)).is_some();
    assert!(!book.is_live());
    assert!(!silent(&book, DECIDED + 10) && silent(&book, DECIDED + 11));
    let now = at(DECIDED + 9);
    book.take(Partition(0), heartbeat("a", now), now);
    assert!(book.is_live());
    assert!(!silent(&book, DECIDED + 19) && silent(&book, DECIDED + 20));
    // A copy of it, one that is older than silence and skew, and one of a partition that nobody listens to.
    let later = at(DECIDED + 60);
    book.take(Partition(0), heartbeat("a", now), later);
    book.take(Partition(0), heartbeat("b", at(DECIDED + 19)), later);
    book.take(Partition(1), heartbeat("c", later), later);
    assert!(silent(&book, DECIDED + 60));
    assert_eq!(book.stop(&marks, later), Some(Stop::Silence { since: now }));
    // A gate whose clock is behind is heard as well as the other.
    book.take(Partition(0), heartbeat("d", at(DECIDED + 40)), later);
    assert!(!silent(&book, DECIDED + 60));
}

#[test]
fn one_partition_that_is_silent_is_silence() {
    let (marks, now) = (marks(), at(DECIDED + 9));
    let mut book = book(&[], at(DECIDED));
    book.listen([Partition(0), Partition(1)], at(DECIDED));
    book.take(Partition(0), heartbeat("a", now), now);
    assert!(!book.is_live());
    assert!(book.stop(&marks, at(DECIDED + 11)).is_some());
}

#[test]
fn what_is_forgotten_is_known_to_be() {
    let now = at(DECIDED + 1500);
    let mut marks = marks();
    let mut book = book(&[], now);
    assert!(book.is_too_old(&marks, now));
    marks.decided_at = at(DECIDED + 570);
    assert!(!book.is_too_old(&marks, now));
    // Out of age: not taken, and dropped once something newer comes.
    assert!(!book.take(Partition(0), heard(HOME, domain("a.org"), FOREVER, at(DECIDED + 499), 1), now));
    assert!(book.take(Partition(0), heard(HOME, domain("b.org"), FOREVER, at(DECIDED + 500), 2), now));
    let later = at(DECIDED + 1501);
    assert!(book.take(Partition(0), heard(HOME, domain("c.org"), FOREVER, later, 3), later));
    assert_eq!((book.order.len(), book.ids.len(), book.by_name.len()), (1, 1, 1));
    // Out of room: what could have been about this work is gone.
    assert!(!book.is_too_old(&marks, now));
    marks.decided_at = at(DECIDED + 1502);
    assert!(!book.is_too_old(&marks, later));
    book.horizon = at(DECIDED + 1433);
    assert!(book.is_too_old(&marks, later));
}

/// Ids of which some are the work's.
fn abouts() -> impl Strategy<Value = Target> {
    prop_oneof![
        prop_oneof![Just("payer"), Just("reader"), Just("nobody")]
            .prop_map(|name| workload(&format!("spiffe://example.org/agent/{name}"))),
        prop_oneof![Just("alice"), Just("example.org/alice"), Just("bob")]
            .prop_map(|id| named(Kind::Subject, id)),
        prop_oneof![Just("txn-1"), Just("txn-2")].prop_map(|id| named(Kind::Transaction, id)),
        prop_oneof![Just("order-9"), Just("order-8")].prop_map(|id| named(Kind::Workflow, id)),
        prop_oneof![Just("example.org"), Just("other.org")].prop_map(domain),
    ]
}

fn signals() -> impl Strategy<Value = Heard> {
    let date = || proptest::option::of((DECIDED - 120..DECIDED + 120).prop_map(|date| date as f64));
    let gate = prop_oneof![Just(HOME), Just(AWAY)];
    (gate, abouts(), date(), date(), DECIDED - 140..DECIDED + 20, any::<u8>(), any::<bool>()).prop_map(
        |(gate, about, not_before, expires_at, issued, id, ends)| {
            let event = match (about.kind, ends) {
                (Kind::Workflow, true) => Event::Workflow(Status::Completed),
                _ => Event::Revoked { not_before, expires_at },
            };
            // A control record says one thing: what it says goes by its id here too.
            heard(gate, about, event, at(issued), id)
        },
    )
}

/// The rules of docs/workers.md, read one by one.
fn plainly(heard: &Heard, now: i64) -> bool {
    let Said::Signal(signal) = &heard.said else { return false };
    let is_named = match &*signal.about.id {
        "spiffe://example.org/agent/payer" | "spiffe://example.org/agent/reader" => true,
        "alice" => heard.gate.as_str() == HOME,
        "example.org/alice" => heard.gate.as_str() == AWAY,
        "txn-1" | "order-9" | "example.org" => true,
        _ => false,
    };
    let in_view = DECIDED > heard.issued_at.0 / 1000 + 70;
    let is_dated = matches!(signal.about.kind, Kind::Subject | Kind::Transaction);
    let in_force = match signal.event {
        Event::Revoked { not_before, expires_at } => {
            let older = not_before.is_none_or(|date| !is_dated || ((DECIDED - 60) as f64) < date);
            older && expires_at.is_none_or(|end| now as f64 <= end)
        }
        _ => true,
    };
    is_named && !in_view && in_force
}

proptest! {
    #[test]
    fn work_stops_where_the_rules_say_so_in_any_order_and_however_often_it_is_told(
        all in proptest::collection::vec(signals(), 0..12),
        doubles in any::<bool>(),
    ) {
        let mut all = all;
        let mut ids = HashSet::new();
        all.retain(|heard| matches!(&heard.said, Said::Signal(signal) if ids.insert(signal.id)));
        let now = DECIDED + 20;
        let expected = all.iter().any(|heard| plainly(heard, now));
        let marks = marks();
        let mut told = all.clone();
        told.reverse();
        if doubles {
            told.extend(all.clone());
        }
        for order in [all.clone(), told] {
            let book = book(&order, at(now));
            prop_assert_eq!(book.stop(&marks, at(now)).is_some(), expected);
            prop_assert_eq!(book.order.len(), all.len());
        }
    }
}
