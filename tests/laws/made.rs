//! What the laws are held against: plans of records, good and bad, and pieces of policies. Limits: ids are few, so that
//! records meet policies, revocations and each other often; a test here counts that they do.

use std::cell::RefCell;
use std::collections::BTreeMap;

use countersign::authorize::decision::{Reason, Stage};
use countersign::authorize::jose::TokenKind;
use proptest::prelude::*;
use proptest::sample::select;
use proptest::test_runner::{Config, RngAlgorithm, TestRng, TestRunner};

use crate::forge::{Flaw, PAYER, Plan, READER};
use crate::gatehouse::{ENDED, Gatehouse, REVOKED, SUSPENDED, routes};

/// A flaw of one of the tokens.
fn flaw() -> impl Strategy<Value = (TokenKind, Flaw)> {
    (select(&TokenKind::ALL[..]), select(&Flaw::ALL[..]))
}

/// A record, good more often than not.
pub(crate) fn plan() -> BoxedStrategy<Plan> {
    let asked = (
        prop_oneof![4 => Just(PAYER), 2 => Just(READER)],
        prop_oneof![12 => Just("alice"), 1 => Just(REVOKED)],
        prop_oneof![9 => Just("payments.pay"), 1 => Just("payments.read")],
        prop_oneof![12 => Just("pay"), 5 => Just("read"), 1 => Just("unknown")],
        prop_oneof![
            14 => Just(("Invoice", "inv-7")),
            1 => Just(("Invoice", "iced")),
            1 => Just(("Invoice", "odd")),
            1 => Just(("Account", "main")),
            1 => Just(("Nothing", "x"))
        ],
        prop_oneof![
            6 => Just(None),
            6 => Just(Some("wf-1")),
            1 => Just(Some(ENDED)),
            1 => Just(Some(SUSPENDED))
        ],
        prop_oneof![4 => Just(120_i64), 1 => Just(5_000_i64)],
    );
    let carried = (
        prop::bool::weighted(0.85),
        prop::bool::weighted(0.4),
        prop::bool::weighted(0.2),
        prop::option::weighted(0.3, flaw()),
        prop::bool::weighted(0.05),
        prop_oneof![24 => 0_i64..60, 1 => Just(90_000_i64), 1 => Just(-3_600_i64)],
        prop::option::weighted(0.3, (select(&["refund", "sale"][..]), any::<bool>())),
    );
    let place = (0..4_i32, 0..1000_i64, 0..40_u32, prop::option::of(select(&["inv-7", "inv-8"][..])));
    (asked, carried, place)
        .prop_map(|(asked, carried, (partition, offset, jti, key))| {
            let (sender, subject, scope, action, resource, workflow, amount) = asked;
            let (transaction, countersignature, grant, flaw, tampered, age_s, header) = carried;
            let value = format!("{{\"amount\":{amount}}}");
            let jti = format!("jti-{jti}");
            Plan {
                partition,
                offset,
                key,
                value,
                jti,
                sender,
                subject,
                scope,
                action,
                resource,
                workflow,
                amount,
                transaction,
                countersignature,
                grant,
                flaw,
                tampered,
                age_s,
                header,
            }
        })
        .boxed()
}

/// A policy without its id; some ask for a step-up, some err.
pub(crate) fn policy(effect: &'static str) -> BoxedStrategy<String> {
    let principal = select(
        &[
            "principal",
            "principal is Workload",
            "principal == Workload::\"spiffe://example.org/agent/payer\"",
            "principal in Team::\"readers\"",
            "principal is User",
        ][..],
    );
    let action = select(
        &[
            "action in [Action::\"read\"]",
            "action == Action::\"pay\"",
            "action in Action::\"payments\"",
            "action in [Action::\"pay\", Action::\"read\"]",
        ][..],
    );
    let resource = select(
        &[
            "resource",
            "resource is Invoice",
            "resource == Invoice::\"inv-7\"",
            "resource in Account::\"frozen\"",
            "resource == Account::\"main\"",
        ][..],
    );
    let condition = select(
        &[
            "",
            "",
            "when { context.provenance.proven }",
            "when { context has transaction && context.transaction.scope.contains(\"payments.pay\") }",
            "unless { context has subject }",
            "when { context.provenance.gated }",
            "when { context has workflow && context.workflow.registered }",
            "when { context.message.offset + 9223372036854775807 > 0 }",
            "when { resource has limit }",
            "when { false }",
        ][..],
    );
    let step_up = prop_oneof![4 => Just(""), 1 => Just("@step_up(\"ask\") ")];
    (step_up, principal, action, resource, condition)
        .prop_map(move |(step_up, principal, action, resource, condition)| {
            let step_up = if effect == "forbid" { step_up } else { "" };
            format!("{step_up}{effect} ({principal}, {action}, {resource}) {condition};")
        })
        .boxed()
}

/// A law says little about what is never generated. The seed is fixed: what is counted here is a fact of the generators.
#[test]
fn generated_records_end_in_every_stage_and_many_are_forwarded() {
    let (house, routes) = (Gatehouse::new(), routes());
    let counted: RefCell<BTreeMap<&str, u32>> = RefCell::default();
    let config = Config { cases: 1500, failure_persistence: None, ..Config::default() };
    let mut runner = TestRunner::new_with_rng(config, TestRng::deterministic_rng(RngAlgorithm::ChaCha));
    let result = runner.run(&(plan(), 0..routes.len()), |(plan, route)| {
        let (_, audit) = house.once(&routes[route], &plan.record());
        let end = match audit.reason.as_deref() {
            None if audit.outcome == "forward" => "forward",
            None => "hold",
            Some(code) => {
                Reason::ALL.iter().find(|reason| reason.as_str() == code).map_or("?", |r| r.stage().as_str())
            }
        };
        *counted.borrow_mut().entry(end).or_default() += 1;
        Ok(())
    });
    result.unwrap();
    let counted = counted.into_inner();
    let at_least = |end: &str, least: u32| {
        assert!(counted.get(end).is_some_and(|n| *n >= least), "{end}: {counted:?}");
    };
    at_least("forward", 120);
    at_least("hold", 8);
    for stage in [Stage::Context, Stage::Identity, Stage::Standing, Stage::Request, Stage::Policy] {
        at_least(stage.as_str(), 60);
    }
    at_least(Stage::Chain.as_str(), 10);
    at_least(Stage::StepUp.as_str(), 10);
    assert!(!counted.contains_key("?"), "{counted:?}");
}
