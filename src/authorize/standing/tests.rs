//! The stage in its place: what comes before it, what comes after, what policies and auditors see of it.

use std::sync::Arc;

use serde_json::{Value, json};
use uuid::Uuid;

use super::*;
use crate::authorize::audit::AuditRecord;
use crate::authorize::engine::{Decision, Delivery, Engine, Moment, Snapshot};
use crate::authorize::ids::{DecisionId, Offset, Partition, Position, Realm, UnixMillis, WorkloadId};
use crate::authorize::jose::TokenKind;
use crate::authorize::policy::{Bundle, Entities, Offer, SourceFile};
use crate::authorize::replay::window_ms;
use crate::authorize::request::{Mapping, MappingSource};
use crate::authorize::route::{Gate, Route, WorkflowRule};
use crate::authorize::state::PartitionState;
use crate::authorize::testing::{Draft, NOW_S, PAYER, Plan, domain, key, route, trust_with};

const SCHEMA: &str = r#"
    entity Workload;
    entity Invoice;
    action pay appliesTo { principal: Workload, resource: Invoice, context: {
        workflow?: { registered: Bool, status?: String, owner?: String, registered_step?: String },
    } };
"#;
const POLICIES: &str = r#"
    @id("registered") permit (principal, action, resource) when {
        context has workflow && context.workflow.registered && context.workflow has status &&
        context.workflow.status == "running" && context.workflow has owner && context.workflow.owner == "ops" &&
        context.workflow has registered_step && context.workflow.registered_step == "check"
    };
    @id("unregistered") permit (principal, action, resource) when {
        context has workflow && !context.workflow.registered && !(context.workflow has status)
    };
"#;

/// The audit record of one decision with that standing, its tokens changed before they are signed.
fn decided(standing: Standing, route: &Route, edit: impl Fn(TokenKind, &mut Draft)) -> AuditRecord {
    let file = |name: &str, text: &str| SourceFile { name: name.into(), text: text.into() };
    let bundle =
        Bundle::load(vec![file("p.cedar", POLICIES)], file("s.cedarschema", SCHEMA), &Offer::default());
    let bundle = bundle.unwrap_or_else(|errors| panic!("{:?}", errors.problems()));
    let entities = Entities::load(vec![], &bundle);
    let snapshot = Snapshot {
        trust: Arc::new(trust_with(domain())),
        entities: Arc::new(entities.unwrap_or_else(|errors| panic!("{:?}", errors.problems()))),
        policy: Arc::new(bundle),
        standing,
    };
    let id = WorkloadId::parse("spiffe://example.org/gate/payments").unwrap();
    let gate = Gate { id, realm: Realm::parse("test").unwrap(), key: key("gate") };
    let moment = Moment {
        now: UnixMillis(NOW_S * 1000),
        id: DecisionId(Uuid::from_u128(7)),
        snapshot: &snapshot,
        source_partitions: 8,
    };
    let record = Plan { grant: false, ..Plan::full() }.build_with(edit);
    let mut state = PartitionState::new(window_ms(route));
    let step = Engine::new(gate, 100).handle(route, &record, &moment, Delivery::Open, &mut state);
    assert_eq!(matches!(step.decision, Decision::Forward(_)), step.audit.reason.is_none());
    step.audit
}

fn reason(standing: Standing, route: &Route, edit: impl Fn(TokenKind, &mut Draft)) -> Option<String> {
    decided(standing, route, edit).reason.map(|reason| reason.to_string())
}

fn at(offset: i64) -> At {
    At { partition: Partition(2), offset: Offset(offset) }
}

/// The workflow of the tests' record in that status, and the sender revoked or not.
fn standing(status: Option<Status>, revoked: bool) -> Standing {
    let mut registry = Registry::new(0);
    if let Some(status) = status {
        let workflow = Registered {
            kind: "invoice".into(),
            status,
            step: "check".into(),
            owner: "ops".into(),
            allowed_steps: Some(["pay".into()].into()),
            version: 7,
            updated_at: UnixMillis(0),
        };
        registry.apply_workflow(at(4), "wf-1", Some(workflow));
    }
    if revoked {
        let revocation = Revocation {
            id: "r-1".into(),
            authority: Authority::Administrator,
            targets: [Target { kind: Kind::Workload, id: PAYER.into() }].into(),
            effect: Effect::Revokes { not_before: None },
            issued_at: 0.0,
            expires_at: None,
            event: "revocation".into(),
            reason: None,
            transaction: None,
        };
        registry.apply_revocation(at(0), "r-1", Some(revocation), UnixMillis(0));
    }
    let positions = |position| [(Partition(0), Position(9)), (Partition(2), Position(position))].into_iter();
    registry
        .pin(Followed { workflows: Some(positions(5).collect()), revocations: Some(positions(1).collect()) })
}

fn unchanged(_: TokenKind, _: &mut Draft) {}

fn without_request(kind: TokenKind, draft: &mut Draft) {
    if kind == TokenKind::WorkloadProof {
        draft.claims.as_object_mut().unwrap().remove("action");
    }
}

#[test]
fn policies_and_auditors_see_what_the_registry_says() {
    let audit = decided(standing(Some(Status::Running), false), &route(), unchanged);
    assert_eq!((audit.reason, audit.policies), (None, vec!["registered".into()]));
    let registered = audit.registered.unwrap();
    assert_eq!(registered.status, "running");
    assert_eq!((registered.step.as_deref(), registered.owner.as_deref()), (Some("check"), Some("ops")));
    assert_eq!(registered.version, Some(7));
    let control: Vec<_> = audit.control.iter().map(|c| (c.name.as_str(), c.version.as_str())).collect();
    assert!(control.contains(&("workflows", "0:9,2:5")), "{control:?}");
    assert!(control.contains(&("revocations", "0:9,2:1")), "{control:?}");
}

#[test]
fn where_nothing_is_followed_nothing_is_said_and_any_workflow_goes_on() {
    let audit = decided(Standing::default(), &route(), unchanged);
    assert_eq!((audit.reason, audit.policies), (None, vec!["unregistered".into()]));
    assert_eq!(audit.registered, None);
    let names: Vec<_> = audit.control.iter().map(|c| c.name.as_str()).collect();
    assert_eq!(names, ["trust", "policy", "entities"]);
}

#[test]
fn a_workflow_that_has_ended_ends_its_work_and_the_audit_shows_both_words() {
    let audit = decided(standing(Some(Status::Cancelled), false), &route(), unchanged);
    assert_eq!(audit.reason.as_deref(), Some("workflow_ended"));
    assert_eq!(audit.workflow.unwrap().state, "running");
    let registered = audit.registered.unwrap();
    assert_eq!((registered.status.as_str(), registered.step, registered.version), ("cancelled", None, None));
    assert_eq!(audit.action.unwrap().name, "pay");
    assert_eq!(audit.context, None);
}

#[test]
fn the_stage_comes_after_the_chain_and_before_the_request() {
    let ended = || standing(Some(Status::Failed), false);
    let broken_chain = |kind: TokenKind, draft: &mut Draft| {
        if kind == TokenKind::Countersignature {
            draft.claims["aud"] = "kafka://elsewhere/x".into();
        }
    };
    let is = |got: Option<String>, wanted: &str| assert_eq!(got.as_deref(), Some(wanted));
    is(reason(standing(None, true), &route(), broken_chain), "chain_invalid");
    is(reason(standing(Some(Status::Failed), true), &route(), unchanged), "revoked");
    is(reason(standing(None, true), &route(), without_request), "revoked");
    is(reason(ended(), &route(), without_request), "workflow_ended");
    is(reason(standing(Some(Status::Suspended), false), &route(), without_request), "workflow_out_of_step");
    is(reason(standing(Some(Status::Running), false), &route(), without_request), "request_unmapped");
    let registered = || Route { workflow: WorkflowRule::Registered, ..route() };
    is(reason(standing(None, false), &registered(), without_request), "workflow_unknown");
    is(reason(Standing::default(), &registered(), unchanged), "workflow_unknown");
}

#[test]
fn leaving_the_workflow_out_is_no_way_around_its_end() {
    let without = |kind: TokenKind, draft: &mut Draft| {
        if kind == TokenKind::WorkloadProof {
            draft.claims.as_object_mut().unwrap().remove("workflow");
        }
    };
    let registered = Route { workflow: WorkflowRule::Registered, ..route() };
    let ended = standing(Some(Status::Completed), false);
    assert_eq!(reason(ended.clone(), &registered, without).as_deref(), Some("workflow_unknown"));
    assert_eq!(reason(ended, &route(), without).as_deref(), Some("not_permitted"));
}

#[test]
fn a_mapped_workflow_is_judged_even_where_the_rest_of_the_request_is_not_found() {
    let mapped = |workflow: &str| {
        let source = MappingSource {
            action: Some("value.unheard_of".into()),
            workflow: Some(workflow.into()),
            ..MappingSource::default()
        };
        let mapping = Mapping::compile(&source).unwrap();
        Route { mapping, workflow: WorkflowRule::Registered, ..route() }
    };
    let workflow: Value = json!({"id": "wf-1", "type": "invoice", "step": "pay", "state": "running"});
    let ended = || standing(Some(Status::Completed), false);
    let is = |got: Option<String>, wanted: &str| assert_eq!(got.as_deref(), Some(wanted));
    is(reason(ended(), &mapped(&workflow.to_string()), unchanged), "workflow_ended");
    // Which workflow it is cannot be found either: that is for the request to say.
    is(reason(ended(), &mapped("value.unheard_of"), unchanged), "request_unmapped");
}
