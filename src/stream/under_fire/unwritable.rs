//! Decisions whose effects cannot be written: the decider fails in the middle of a batch, or the log takes one effect of a
//! record and refuses the next. All of what a record makes is visible, or none. Limits: which refusals lead to a denial and
//! which stop a partition is the lane's rule; here it is held to it.

use std::rc::Rc;

use super::check::{Tally, check};
use super::run::{STEPS, Settings, Site};
use super::world::{AUDIT, CHALLENGES, Common, Failing, Failures, HOLDS, SOURCE, topic};
use crate::authorize::route::Order;
use crate::stream::decider::Input;
use crate::stream::memory::Cluster;
use crate::wire::outgoing::Outgoing;

/// The partition in which things cannot be written: the only one whose audit records stand in partition 1.
const STRUCK: i32 = 1;

/// Seeds of each case.
const SEEDS: u64 = 14;

fn holds(bytes: &[u8], part: &[u8]) -> bool {
    bytes.windows(part.len()).any(|window| window == part)
}

/// Whether an audit record says that outcome: Avro writes the length before a text.
fn says(record: &Outgoing, outcome: &str) -> bool {
    let length = u8::try_from(outcome.len() * 2).unwrap();
    holds(record.value.as_deref().unwrap_or_default(), &[&[length], outcome.as_bytes()].concat())
}

/// Runs a seed for a while, faults included, and then without; nothing half is visible, and the partitions that are not
/// struck come to their end.
fn run_struck(
    seed: u64,
    failures: Option<Failures>,
    unholdable: bool,
    strike: impl FnOnce(&Cluster),
) -> Tally {
    let common = Common::shared();
    let settings =
        Settings { order: Order::Key, breaker: None, failures, grants: false, ..Settings::of(seed) };
    let site = Site::new(settings, common.clone());
    strike(&site.cluster);
    site.open();
    for _ in 0..STEPS {
        site.step();
    }
    site.settle(&[0, 2]).unwrap_or_else(|wrong| panic!("seed {seed}: {wrong}"));
    let mut seen = site.seen(false);
    seen.unholdable = unholdable.then_some(usize::try_from(STRUCK).unwrap());
    check(&seen, &common.codecs).unwrap_or_else(|wrong| panic!("seed {seed}: {wrong}"))
}

/// Runs seeds; gives what has come of all, in the struck partition and elsewhere.
fn run_all(failures: Option<Failures>, unholdable: bool, strike: impl Fn(&Cluster)) -> Tally {
    let mut all = Tally::default();
    for seed in 0..SEEDS {
        all.add(run_struck(seed, failures.clone(), unholdable, &strike));
    }
    all
}

/// How often something has become of a record of the struck partition.
fn count(all: &Tally, what: &str) -> usize {
    all.count(usize::try_from(STRUCK).ok(), what)
}

#[test]
fn an_outcome_whose_audit_record_is_refused_is_not_visible() {
    for silently in [false, true] {
        for outcome in ["forward", "deny", "hold", "answer", "wait"] {
            let all = run_all(None, false, |cluster| {
                cluster.refuse_where(&topic(AUDIT), silently, move |record| {
                    record.partition.0 == STRUCK && says(record, outcome)
                });
            });
            assert_eq!(count(&all, outcome), 0, "{outcome}: {all:?}");
            assert!(count(&all, "") > 10, "others of its partition are written before it stops: {all:?}");
        }
    }
}

#[test]
fn a_record_that_cannot_be_held_whole_is_denied_and_nothing_of_its_hold_is_visible() {
    type Refused = fn(&Outgoing) -> bool;
    let is_struck = |record: &Outgoing| record.partition.0 == STRUCK && record.value.is_some();
    let of_holds: [Refused; 2] = [
        |record| record.key.as_deref().is_some_and(|key| key.ends_with(b"/payload")),
        |record| record.key.as_deref().is_some_and(|key| key.ends_with(b"/state")),
    ];
    for (refused, silently) in of_holds.into_iter().flat_map(|refused| [(refused, false), (refused, true)]) {
        let all = run_all(None, true, |cluster| {
            cluster.refuse_where(&topic(HOLDS), silently, move |record| is_struck(record) && refused(record));
        });
        assert!(count(&all, "deny undeliverable") > 8, "{all:?}");
        assert_eq!(count(&all, "hold") + count(&all, "wait"), 0, "{all:?}");
    }
    // The payload and the state are taken, the challenge is not.
    let all = run_all(None, true, |cluster| {
        let of_struck = format!("{SOURCE}:{STRUCK}:");
        cluster.refuse_where(&topic(CHALLENGES), false, move |record| {
            record.key.as_deref().is_some_and(|key| key.starts_with(of_struck.as_bytes()))
        });
    });
    assert!(count(&all, "deny undeliverable") > 8, "{all:?}");
    assert_eq!(count(&all, "hold"), 0, "{all:?}");
}

#[test]
fn an_answer_whose_count_cannot_be_kept_is_not_recorded_either() {
    let all = run_all(None, false, |cluster| {
        cluster.refuse_where(&topic(HOLDS), false, |record| {
            let value = record.value.as_deref().unwrap_or_default();
            record.partition.0 == STRUCK && holds(value, b"\"approver\"")
        });
    });
    assert_eq!(count(&all, "answer counted"), 0, "{all:?}");
    assert!(count(&all, "hold") > 1, "{all:?}");
}

#[test]
fn a_release_whose_grant_cannot_be_marked_as_used_is_not_forwarded() {
    let all = run_all(None, false, |cluster| {
        cluster.refuse_where(&topic(HOLDS), false, |record| {
            let is_mark = record.key.as_deref().is_some_and(|key| key.starts_with(b"grant/"));
            record.partition.0 == STRUCK && is_mark && record.value.is_some()
        });
    });
    assert_eq!(count(&all, "forward approved"), 0, "{all:?}");
    assert!(count(&all, "answer counted") > 1, "{all:?}");
}

/// Fails at every input of the struck partition for which that is so.
fn failing(how: Failing, at: impl Fn(&Input<'_>) -> bool + 'static) -> Option<Failures> {
    Some(Rc::new(move |input| {
        let record = match input {
            Input::Record(record, _) | Input::Answer(record, _) | Input::Held(record, ..) => record,
        };
        (record.source.partition.0 == STRUCK && at(input)).then_some(how)
    }))
}

#[test]
fn a_decider_that_fails_in_the_middle_of_a_batch_leaves_nothing_of_it_behind() {
    for how in [Failing::Before, Failing::After] {
        for nth in [0, 2_u64] {
            let all = run_all(
                failing(
                    how,
                    move |input| matches!(input, Input::Record(record, _) if u64::try_from(record.source.offset.0) == Ok(nth)),
                ),
                false,
                |_| {},
            );
            let most = usize::try_from(nth * SEEDS).unwrap();
            let decided: usize = ["forward", "hold", "wait"].iter().map(|what| count(&all, what)).sum();
            assert!(decided <= most, "{how:?} at {nth}: {all:?}");
        }
        let all = run_all(failing(how, |input| matches!(input, Input::Answer(..))), false, |_| {});
        assert_eq!(count(&all, "answer"), 0, "{how:?}: {all:?}");
        assert!(count(&all, "hold") > 1, "{how:?}: {all:?}");
        let all = run_all(failing(how, |input| matches!(input, Input::Held(..))), false, |_| {});
        assert_eq!(count(&all, "forward approved"), 0, "{how:?}: {all:?}");
        assert!(count(&all, "answer counted") > 1, "{how:?}: {all:?}");
    }
}
