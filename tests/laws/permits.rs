//! No forward without a permit in the audit: what is forwarded has an audit record that says so and names the policies
//! that permitted, and whoever has that record and the policies comes to the same answer with Cedar alone.

use std::collections::BTreeSet;

use cedar_policy::{
    Authorizer, Context, Decision, Entities, EntityId, EntityTypeName, EntityUid, PolicySet, Request, Schema,
};
use countersign::authorize::audit::AuditRecord;
use countersign::authorize::route::Party;
use proptest::prelude::*;

use crate::forge::Plan;
use crate::gatehouse::{ENTITIES, Gatehouse, POLICIES, SCHEMA, routes};
use crate::hold;
use crate::made::{plan, policy};

/// An auditor: the policies of a bundle, and nothing of the gate's.
struct Auditor {
    set: PolicySet,
    schema: Schema,
    entities: Entities,
}

impl Auditor {
    fn new(policies: &str) -> Self {
        let all: PolicySet = policies.parse().unwrap();
        let first = all.policies().filter(|policy| policy.annotation("step_up").is_none());
        let (schema, _) = Schema::from_cedarschema_str(SCHEMA).unwrap();
        let entities = Entities::from_json_str(ENTITIES, Some(&schema)).unwrap();
        Self { set: PolicySet::from_policies(first.cloned()).unwrap(), schema, entities }
    }

    /// Which policies permit what an audit record says was asked, `None` where Cedar does not allow it or a policy errs.
    fn permits(&self, audit: &AuditRecord, principal: (&str, &str)) -> Option<BTreeSet<String>> {
        let uid = |kind: &str, id: &str| {
            EntityUid::from_type_name_and_id(kind.parse::<EntityTypeName>().unwrap(), EntityId::new(id))
        };
        let (action, resource) = (audit.action.as_ref()?, audit.resource.as_ref()?);
        let action = uid("Action", &action.name);
        let context = audit.context.as_deref()?;
        let context = Context::from_json_str(context, Some((&self.schema, &action))).unwrap();
        let principal = uid(principal.0, principal.1);
        let resource = uid(&resource.kind, &resource.id);
        let request = Request::new(principal, action, resource, context, Some(&self.schema)).ok()?;
        let response = Authorizer::new().is_authorized(&request, &self.set, &self.entities);
        let sound =
            response.decision() == Decision::Allow && response.diagnostics().errors().next().is_none();
        let named = |id| self.set.policy(id).and_then(|policy| policy.annotation("id")).map(str::to_owned);
        sound.then(|| response.diagnostics().reason().filter_map(named).collect())
    }
}

/// The law, for one record on one route.
fn judge(house: &Gatehouse, auditor: &Auditor, plan: &Plan, route: usize) -> Result<bool, TestCaseError> {
    let route = &routes()[route];
    let (effects, audit) = house.once(route, &plan.record());
    let forwarded = effects.outcome.as_ref().is_some_and(|out| out.topic == route.to);
    prop_assert_eq!(forwarded, audit.outcome == "forward", "what is written is what the audit says");
    prop_assert_eq!(audit.reason.is_some(), audit.outcome == "deny");
    if !forwarded {
        // Nothing else can be taken for a forward either.
        let signed = effects.outcome.iter().flat_map(|out| &out.headers);
        prop_assert!(!signed.clone().any(|header| &header.name[..] == b"countersignature"));
        return Ok(false);
    }
    prop_assert!(!audit.policies.is_empty(), "a forward names the policies that permit it");
    let mut asked = vec![("Workload", audit.sender.clone().unwrap())];
    for party in &route.parties {
        match party {
            Party::Sender => {}
            Party::Subject => asked.push(("User", audit.subject.clone().unwrap())),
            Party::Senders => {
                asked.extend(audit.chain.iter().map(|id| ("Workload", id.clone())));
            }
        }
    }
    let mut permits = BTreeSet::new();
    for (kind, id) in &asked {
        let found = auditor.permits(&audit, (kind, id));
        prop_assert!(
            found.is_some(),
            "Cedar does not allow {}::{} what was forwarded: {:?}",
            kind,
            id,
            audit
        );
        permits.extend(found.unwrap());
    }
    prop_assert_eq!(permits.into_iter().collect::<Vec<_>>(), audit.policies.clone());
    let id = effects.outcome.iter().flat_map(|out| &out.headers).find(|h| &h.name[..] == b"decision-id");
    prop_assert_eq!(id.and_then(|h| h.value.as_deref()), Some(audit.decision_id.as_bytes()));
    Ok(true)
}

#[test]
fn what_is_forwarded_is_permitted_again_from_its_audit_record_alone() {
    let (house, auditor) = (Gatehouse::new(), Auditor::new(POLICIES));
    hold(700, (plan(), 0..routes().len()), |(plan, route)| judge(&house, &auditor, &plan, route).map(drop));
}

#[test]
fn that_holds_for_any_policies() {
    let policies = prop::collection::vec(prop_oneof![2 => policy("permit"), 1 => policy("forbid")], 1..8);
    let asked = prop::collection::vec((plan(), any::<bool>(), 0..routes().len()), 6);
    hold(200, (policies, asked), |(policies, asked)| {
        let named = policies.iter().enumerate().map(|(n, text)| format!("@id(\"p{n}\") {text}\n"));
        let text = named.collect::<String>();
        let Some(house) = Gatehouse::with(&text) else {
            return Err(TestCaseError::fail(format!("no bundle: {text}")));
        };
        let auditor = Auditor::new(&text);
        for (mut plan, as_is, route) in asked {
            if !as_is {
                // One that policies alone judge.
                (plan.flaw, plan.tampered, plan.age_s, plan.subject) = (None, false, 4, "alice");
                (plan.action, plan.resource, plan.workflow) = ("pay", ("Invoice", "inv-7"), None);
            }
            judge(&house, &auditor, &plan, route)?;
        }
        Ok(())
    });
}
