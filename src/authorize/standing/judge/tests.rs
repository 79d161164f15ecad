//! Everything of a record that a revocation may name, and every reason of the stage.

use super::*;
use crate::authorize::digests::Hashes;
use crate::authorize::ids::{Offset, Partition, Position, TrustDomain};
use crate::authorize::jose::TokenKind;
use crate::authorize::record::Record;
use crate::authorize::route::Route;
use crate::authorize::standing::{At, Authority, Effect, Followed, Registry, Revocation, Target};
use crate::authorize::testing::{NOW_S, PAYER, Plan, World};
use serde_json::json;

const READER: &str = "spiffe://example.org/agent/reader";
const GATE: &str = "spiffe://example.org/gate/one";

fn full() -> Record {
    Plan::full().build_with(|kind, draft| match kind {
        TokenKind::WorkloadIdentity => {
            draft.claims["jti"] = "wit-1".into();
            draft.claims["cnf"]["jwk"]["kid"] = "payer-key".into();
        }
        TokenKind::Transaction => draft.claims["jti"] = "txn-token-1".into(),
        _ => {}
    })
}

/// The same, from a cache that knows the tokens and from one that does not.
fn named_in(world: &World, record: &Record) -> Vec<Named<'static>> {
    let once = || {
        let (verified, chain) = world.once(record).unwrap();
        let claimed = Claimed::read(record, &Hashes::of(record), &world.route, &world.cache).unwrap();
        let home = TrustDomain::parse("example.org").unwrap();
        let subject = verified.transaction.as_ref().map(|of| SubjectId::new(&of.subject, &of.domain, &home));
        let parties =
            Parties { claimed: &claimed, verified: &verified, chain: &chain, subject: subject.as_ref() };
        parties.named(&world.trust).into_iter().map(Named::into_owned).collect::<Vec<_>>()
    };
    let cold = once();
    assert_eq!(cold, once());
    cold
}

fn standing(revocations: Vec<(Target, Option<f64>, Option<f64>)>) -> Standing {
    let mut registry = Registry::new(0);
    for (n, (target, not_before, expires_at)) in revocations.into_iter().enumerate() {
        let at = At { partition: Partition(0), offset: Offset(n as i64) };
        let id = format!("r-{n}");
        let revocation = Revocation {
            id: id.as_str().into(),
            authority: Authority::Administrator,
            targets: [target].into(),
            effect: Effect::Revokes { not_before },
            issued_at: 0.0,
            expires_at,
            event: "revocation".into(),
            reason: Some("left".into()),
            transaction: None,
        };
        registry.apply_revocation(at, &id, Some(revocation), UnixMillis(0));
    }
    let positions = [(Partition(0), Position(100))].into_iter().collect();
    registry.pin(Followed { workflows: None, revocations: Some(positions) })
}

fn target(kind: Kind, id: &str) -> Target {
    Target { kind, id: id.into() }
}

#[test]
fn everything_of_a_record_can_be_named() {
    let all = named_in(&World::default(), &full());
    let all: Vec<_> =
        all.iter().map(|n| (n.kind, &*n.id, n.issued_at.map(|at| at as i64 - NOW_S), n.role)).collect();
    use Kind as K;
    let (wit, wpt, txn, chain) = (Some(-600), Some(-5), Some(-60), Some(-30));
    let expected = [
        (K::Token, "wit-1", wit, "the `workload-identity-token`"),
        (K::Key, "issuer", wit, "the key of the `workload-identity-token`"),
        (K::Token, "jti-1", wpt, "the `workload-proof-token`"),
        (K::Key, "payer-key", wpt, "the key of the sender"),
        (K::Workload, PAYER, wit, "the sender"),
        (K::TrustDomain, "example.org", wit, "the trust domain of the sender"),
        (K::Transaction, "txn-1", txn, "the transaction"),
        (K::Subject, "alice", txn, "the subject"),
        (K::Token, "txn-token-1", txn, "the `txn-token`"),
        (K::Key, "tts", txn, "the key of the `txn-token`"),
        (K::Workload, READER, None, "an earlier sender"),
        (K::TrustDomain, "example.org", None, "the trust domain of an earlier sender"),
        (K::Workload, GATE, chain, "the gate that countersigned"),
        (K::TrustDomain, "example.org", chain, "the trust domain of the gate that countersigned"),
        (K::Token, "0190", chain, "the `countersignature`"),
        (K::Key, "gate", chain, "the key of the `countersignature`"),
    ];
    assert_eq!(all, expected);
}

#[test]
fn each_of_them_is_revoked_by_its_name_alone() {
    let now = UnixMillis(NOW_S * 1000);
    let all = named_in(&World::default(), &full());
    for named in &all {
        let found = standing(vec![(target(named.kind, &named.id), None, None)]).judge_named(&all, None, now);
        let denial = found.unwrap_err();
        assert_eq!(denial.reason, Reason::Revoked, "{named:?}");
        // Where one name stands for several, the first is told.
        let first = all.iter().find(|n| (n.kind, &n.id) == (named.kind, &named.id)).unwrap();
        assert_eq!(denial.detail, format!("the revocation `r-0` names {}: left", first.role));
        let otherwise = target(named.kind, &format!("{}x", named.id));
        assert_eq!(standing(vec![(otherwise, None, None)]).judge_named(&all, None, now), Ok(()));
    }
}

#[test]
fn a_key_is_named_even_where_its_token_does_not() {
    let record = Plan::full().build_with(|kind, draft| {
        if kind != TokenKind::StepUpGrant {
            draft.head.as_object_mut().unwrap().remove("kid");
        }
    });
    let all = named_in(&World::default(), &record);
    let keys: Vec<&str> = all.iter().filter(|n| n.kind == Kind::Key).map(|n| &*n.id).collect();
    assert_eq!(keys, ["issuer", "workload", "tts", "gate"]);
}

#[test]
fn only_what_was_issued_before_is_revoked_and_what_does_not_say_when_is_older() {
    let now = UnixMillis(NOW_S * 1000);
    let all = named_in(&World::default(), &full());
    let judge = |kind, id: &str, not_before: i64| {
        standing(vec![(target(kind, id), Some((NOW_S + not_before) as f64), None)])
            .judge_named(&all, None, now)
    };
    assert!(judge(Kind::Subject, "alice", -60).is_ok());
    assert!(judge(Kind::Subject, "alice", -59).is_err());
    assert!(judge(Kind::Workload, PAYER, -600).is_ok());
    assert!(judge(Kind::Workload, PAYER, -599).is_err());
    assert!(judge(Kind::Workload, GATE, -30).is_ok());
    assert!(judge(Kind::Workload, READER, -100_000).is_err());
    let unproven = World::on(Route {
        unproven: Some(WorkloadId::parse(PAYER).unwrap()),
        ..crate::authorize::testing::route()
    });
    let record = Plan { signed: false, transaction: false, ..Plan::default() }.build();
    let all = named_in(&unproven, &record);
    let old = standing(vec![(target(Kind::Workload, PAYER), Some(1.0), None)]);
    assert!(old.judge_named(&all, None, now).is_err());
}

#[test]
fn a_revocation_ends_after_its_end() {
    let all = [Named { kind: Kind::Subject, id: "alice".into(), issued_at: Some(0.0), role: "the subject" }];
    let standing = standing(vec![(target(Kind::Subject, "alice"), None, Some(NOW_S as f64))]);
    let at = |ms| standing.judge_named(&all, None, UnixMillis(NOW_S * 1000 + ms)).is_err();
    assert!(at(0));
    assert!(!at(1));
}

fn workflow(kind: &str, step: &str) -> Workflow {
    let json = json!({"id": "wf-1", "type": kind, "step": step, "state": "running"});
    serde_json::from_value(json).unwrap()
}

#[test]
fn a_workflow_is_revoked_by_its_id_whenever_it_began() {
    let asked = Workflow { started_at: Some(NOW_S as f64), ..workflow("invoice", "pay") };
    let standing = standing(vec![(target(Kind::Workflow, "wf-1"), Some(1.0), None)]);
    let denial = standing.judge_named(&[], Some(&asked), UnixMillis(0)).unwrap_err();
    assert_eq!(denial.detail, "the revocation `r-0` names the workflow: left");
    assert!(standing.judge_named(&[], None, UnixMillis(0)).is_ok());
}

#[test]
fn a_workflow_is_judged_by_its_registry() {
    let live = |status, allowed: Option<&[&str]>| {
        Found::Live(
            Registered {
                kind: "invoice".into(),
                status,
                step: "check".into(),
                owner: "o".into(),
                allowed_steps: allowed.map(|steps| steps.iter().map(|step| (*step).into()).collect()),
                version: 1,
                updated_at: UnixMillis(0),
            }
            .into(),
        )
    };
    let running = live(Status::Running, None);
    let (pay, check) = (workflow("invoice", "pay"), workflow("invoice", "check"));
    let reason = |asked: Option<&Workflow>, found: Option<&Found>, rule| {
        judge_workflow(asked, found, rule).err().map(|denial| denial.reason)
    };
    for rule in [WorkflowRule::Any, WorkflowRule::Registered] {
        let unknown = (rule == WorkflowRule::Registered).then_some(Reason::WorkflowUnknown);
        assert_eq!(reason(None, None, rule), unknown);
        assert_eq!(reason(Some(&pay), None, rule), unknown);
        assert_eq!(reason(Some(&check), Some(&running), rule), None);
        assert_eq!(reason(Some(&pay), Some(&running), rule), Some(Reason::WorkflowOutOfStep));
        let listed = live(Status::Running, Some(&["pay", "book"]));
        assert_eq!(reason(Some(&pay), Some(&listed), rule), None);
        assert_eq!(reason(Some(&check), Some(&listed), rule), Some(Reason::WorkflowOutOfStep));
        let none = live(Status::Running, Some(&[]));
        assert_eq!(reason(Some(&check), Some(&none), rule), Some(Reason::WorkflowOutOfStep));
        let suspended = live(Status::Suspended, None);
        assert_eq!(reason(Some(&check), Some(&suspended), rule), Some(Reason::WorkflowOutOfStep));
        let other = workflow("order", "check");
        assert_eq!(reason(Some(&other), Some(&running), rule), Some(Reason::WorkflowOutOfStep));
        for status in [Status::Completed, Status::Cancelled, Status::Failed] {
            let ended = Found::Ended(status);
            assert_eq!(reason(Some(&check), Some(&ended), rule), Some(Reason::WorkflowEnded));
        }
    }
}
