//! On a route that requires proof, no change of the five headers turns a denial for identity, standing or policy into a
//! forward: neither leaving one out, nor adding one, writing it twice, in another case, or with another record's.

use countersign::authorize::decision::{Reason, Stage};
use countersign::authorize::jose::TokenKind;
use countersign::authorize::record::{Header, Record};
use proptest::prelude::*;
use proptest::sample::select;

use crate::forge::{Flaw, Plan, READER};
use crate::gatehouse::{Gatehouse, PROVEN_ROUTES, routes};
use crate::hold;
use crate::made::plan;

/// What is done to the headers of a record.
#[derive(Debug, Clone, Copy)]
enum Change {
    /// Every header of that kind is gone.
    Remove(TokenKind),
    /// A good token of another record is added.
    Add(TokenKind),
    /// It takes the place of the record's own.
    Replace(TokenKind),
    /// It is written twice.
    Double(TokenKind),
    /// Its name is written in upper case.
    Rename(TokenKind),
    /// It moves to another kind's header.
    Move(TokenKind, TokenKind),
    /// Its value is null.
    Null(TokenKind),
    /// The header moves to the front.
    First(TokenKind),
}

/// One of the changes of a kind; `other` is where it moves to.
fn change_of(kind: TokenKind, which: usize, other: TokenKind) -> Change {
    let all = [
        Change::Remove(kind),
        Change::Add(kind),
        Change::Replace(kind),
        Change::Double(kind),
        Change::Rename(kind),
        Change::Move(kind, other),
        Change::Null(kind),
        Change::First(kind),
    ];
    all[which % all.len()]
}

/// A record, and what is done to it. As often as not it is one that would be forwarded but for one token, and what is done
/// begins with that token: chance alone would seldom meet the two together.
fn changed() -> impl Strategy<Value = (Plan, Vec<Change>)> {
    let kind = || select(&TokenKind::ALL[..]);
    let drawn = prop::collection::vec((kind(), 0..8_usize, kind()), 1..4);
    (plan(), drawn, any::<bool>(), select(&Flaw::ALL[..])).prop_map(|(plan, drawn, aimed, flaw)| {
        let changes = drawn.iter().map(|(kind, which, other)| change_of(*kind, *which, *other)).collect();
        let Some((kind, ..)) = drawn.first().filter(|_| aimed) else { return (plan, changes) };
        let good = Plan {
            sender: READER,
            action: "read",
            scope: "payments.read",
            workflow: None,
            ..Plan::default()
        };
        let plan = Plan {
            flaw: Some((*kind, flaw)),
            partition: plan.partition,
            offset: plan.offset,
            transaction: plan.transaction || *kind == TokenKind::Transaction,
            countersignature: plan.countersignature || *kind == TokenKind::Countersignature,
            grant: plan.grant || *kind == TokenKind::StepUpGrant,
            ..good
        };
        (plan, changes)
    })
}

/// The tokens of a good record of the same sender that carries everything. It has another value: a proof that was made
/// for these very bytes would be the sender's own word, not a change of headers.
fn others() -> Record {
    let plan = Plan {
        jti: "other".to_owned(),
        value: "{\"amount\":1}".to_owned(),
        countersignature: true,
        grant: true,
        ..Plan::default()
    };
    plan.record()
}

fn apply(record: &mut Record, change: Change, others: &Record) {
    let of = |kind: TokenKind| move |header: &Header| TokenKind::of_header(&header.name) == Some(kind);
    let other =
        |kind: TokenKind| others.headers.iter().find(|header| of(kind)(header)).expect("it has all").clone();
    let headers = &mut record.headers;
    match change {
        Change::Remove(kind) => headers.retain(|header| !of(kind)(header)),
        Change::Add(kind) => headers.push(other(kind)),
        Change::Replace(kind) => {
            headers.retain(|header| !of(kind)(header));
            headers.push(other(kind));
        }
        Change::Double(kind) => {
            let twice = headers.iter().find(|header| of(kind)(header)).cloned();
            headers.extend(twice);
        }
        Change::Rename(kind) => {
            for header in headers.iter_mut().filter(|header| of(kind)(header)) {
                header.name = header.name.to_ascii_uppercase().into();
            }
        }
        Change::Move(from, to) => {
            for header in headers.iter_mut().filter(|header| of(from)(header)) {
                header.name = to.header_name().as_bytes().into();
            }
        }
        Change::Null(kind) => {
            for header in headers.iter_mut().filter(|header| of(kind)(header)) {
                header.value = None;
            }
        }
        Change::First(kind) => headers.sort_by_key(|header| !of(kind)(header)),
    }
}

/// Whether a change of headers must not undo it: what is malformed or missing may of course be put right.
fn stands(reason: &str) -> bool {
    let stages = [Stage::Identity, Stage::Chain, Stage::Standing, Stage::Policy, Stage::StepUp];
    Reason::ALL.iter().any(|known| known.as_str() == reason && stages.contains(&known.stage()))
}

#[test]
fn no_change_of_headers_turns_a_denial_into_a_forward() {
    let (house, routes, others) = (Gatehouse::new(), routes(), others());
    hold(2000, (changed(), 0..PROVEN_ROUTES), |((plan, changes), route)| {
        let mut record = plan.record();
        let before = house.once(&routes[route], &record).1;
        if !before.reason.as_deref().is_some_and(stands) {
            return Ok(());
        }
        for change in &changes {
            apply(&mut record, *change, &others);
        }
        let after = house.once(&routes[route], &record).1;
        prop_assert!(after.outcome != "forward", "{:?} undid {:?} of {:?}", changes, before.reason, plan);
        prop_assert!(
            after.outcome != "hold",
            "{:?} made a hold of {:?} of {:?}",
            changes,
            before.reason,
            plan
        );
        Ok(())
    });
}

#[test]
fn a_forward_survives_a_change_of_order_and_no_other_change() {
    let (house, routes, others) = (Gatehouse::new(), routes(), others());
    let full = Plan { countersignature: true, grant: true, ..Plan::default() };
    for route in &routes[..PROVEN_ROUTES] {
        let record = full.record();
        if house.once(route, &record).1.outcome != "forward" {
            continue;
        }
        for kind in TokenKind::ALL {
            let outcome = |change| {
                let mut record = record.clone();
                apply(&mut record, change, &others);
                house.once(route, &record).1.outcome
            };
            assert_eq!(outcome(Change::First(kind)), "forward", "{kind:?}");
            for change in
                [Change::Remove(kind), Change::Double(kind), Change::Rename(kind), Change::Null(kind)]
            {
                assert_eq!(outcome(change), "deny", "{change:?}");
            }
        }
    }
    assert_eq!(house.once(&routes[0], &full.record()).1.outcome, "forward");
}
