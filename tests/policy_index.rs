//! The scope index against Cedar itself, over generated policies, entities and requests: same decision, same determining
//! policies, same errors as evaluating the whole set. And its purpose: who is asked follows the request.

use std::cell::Cell;
use std::collections::{BTreeMap, BTreeSet, HashMap, HashSet};

use cedar_policy::{
    Authorizer, Context, Decision, Entities, Entity, EntityUid, PolicyId, PolicySet, Request,
    RestrictedExpression, SlotId,
};
use countersign::authorize::policy::index::{Index, Response};
use proptest::prelude::*;
use proptest::test_runner::{Config, RngAlgorithm, TestRng, TestRunner};

/// Ids are few, so that scopes meet requests often.
const IDS: u8 = 3;

fn uid(text: &str) -> EntityUid {
    text.parse().unwrap()
}

/// Workloads and users are principals; invoices, accounts and workloads are resources; teams and accounts nest.
fn any_of(types: &'static [&'static str]) -> impl Strategy<Value = String> {
    (prop::sample::select(types), 0..IDS).prop_map(|(kind, id)| format!("{kind}::\"{id}\""))
}

const PRINCIPALS: &[&str] = &["Workload", "User"];
const RESOURCES: &[&str] = &["Invoice", "Account", "Workload"];
const ABOVE: &[&str] = &["Team", "Account", "Workload", "User", "Invoice"];
const ACTIONS: &[&str] = &["Action"];

/// The forms that the principal or the resource of a scope can have; `?` stands for a template's slot.
fn place(var: &'static str, types: &'static [&'static str]) -> BoxedStrategy<String> {
    let kind = prop::sample::select(types);
    prop_oneof![
        2 => Just(var.to_owned()),
        2 => kind.clone().prop_map(move |kind| format!("{var} is {kind}")),
        3 => any_of(types).prop_map(move |entity| format!("{var} == {entity}")),
        3 => any_of(ABOVE).prop_map(move |entity| format!("{var} in {entity}")),
        2 => (kind, any_of(ABOVE)).prop_map(move |(kind, entity)| format!("{var} is {kind} in {entity}")),
    ]
    .boxed()
}

fn slot(var: &'static str, types: &'static [&'static str]) -> BoxedStrategy<String> {
    prop_oneof![
        Just(format!("{var} == ?{var}")),
        Just(format!("{var} in ?{var}")),
        prop::sample::select(types).prop_map(move |kind| format!("{var} is {kind} in ?{var}")),
    ]
    .boxed()
}

fn action() -> BoxedStrategy<String> {
    prop_oneof![
        Just("action".to_owned()),
        any_of(ACTIONS).prop_map(|action| format!("action == {action}")),
        any_of(ACTIONS).prop_map(|action| format!("action in {action}")),
        prop::collection::vec(any_of(ACTIONS), 0..4)
            .prop_map(|list| format!("action in [{}]", list.join(", "))),
    ]
    .boxed()
}

/// Conditions that hold, that do not, and that err: a missing attribute, a missing entity, a wrong type, an overflow.
fn condition() -> BoxedStrategy<String> {
    prop_oneof![
        4 => Just(String::new()),
        1 => Just("when { false }".to_owned()),
        2 => (0..3_i64).prop_map(|n| format!("when {{ context.n > {n} }}")),
        1 => Just("when { principal.level > 1 }".to_owned()),
        1 => Just("unless { resource.level > 1 }".to_owned()),
        1 => Just("when { principal has level && principal.level < 2 }".to_owned()),
        1 => any_of(ABOVE).prop_map(|entity| format!("when {{ principal in {entity} || resource in {entity} }}")),
        1 => Just("when { context has n && context.n + 9223372036854775807 > 0 }".to_owned()),
        1 => Just("when { context like \"*\" }".to_owned()),
    ]
    .boxed()
}

fn effect() -> impl Strategy<Value = &'static str> {
    prop_oneof![3 => Just("permit"), 2 => Just("forbid")]
}

fn policy() -> BoxedStrategy<String> {
    (effect(), place("principal", PRINCIPALS), action(), place("resource", RESOURCES), condition())
        .prop_map(|(effect, principal, action, resource, condition)| {
            format!("{effect} ({principal}, {action}, {resource}) {condition};")
        })
        .boxed()
}

/// A template and what its slots are filled with, once for each link.
#[derive(Debug, Clone)]
struct Linked {
    text: String,
    links: Vec<(String, String)>,
}

fn template() -> BoxedStrategy<Linked> {
    let principal = prop_oneof![slot("principal", PRINCIPALS), place("principal", PRINCIPALS)];
    (
        (effect(), principal, action(), slot("resource", RESOURCES), condition()),
        prop::collection::vec((any_of(&["Workload", "User", "Team"]), any_of(RESOURCES)), 0..4),
    )
        .prop_map(|((effect, principal, action, resource, condition), links)| Linked {
            text: format!("{effect} ({principal}, {action}, {resource}) {condition};"),
            links,
        })
        .boxed()
}

/// Which entities there are, each with a level or none, and what is above each of them.
#[derive(Debug, Clone)]
struct Stored {
    levels: BTreeMap<String, Option<i64>>,
    parents: Vec<(String, String)>,
}

fn stored() -> BoxedStrategy<Stored> {
    let all: &[&str] = &["Workload", "User", "Team", "Invoice", "Account", "Action"];
    let above = |child: &'static str, parent: &'static str| {
        (0..IDS, 0..IDS).prop_map(move |(c, p)| (format!("{child}::\"{c}\""), format!("{parent}::\"{p}\"")))
    };
    let parents = prop_oneof![
        3 => above("Action", "Action"),
        2 => above("Workload", "Team"),
        1 => above("Workload", "Workload"),
        1 => above("User", "Team"),
        1 => above("Team", "Team"),
        2 => above("Invoice", "Account"),
        1 => above("Account", "Account"),
    ];
    (
        prop::collection::btree_map(any_of(all), prop::option::of(0..4_i64), 4..36),
        prop::collection::vec(parents, 0..48),
    )
        .prop_map(|(levels, parents)| Stored { levels, parents })
        .boxed()
}

impl Stored {
    /// Cedar's store. Within a type a parent comes after its child, so there is no cycle.
    fn entities(&self) -> Entities {
        let mut parents: HashMap<&str, HashSet<EntityUid>> = HashMap::new();
        for (child, parent) in &self.parents {
            let same_type = child.split(':').next() == parent.split(':').next();
            if !same_type || child < parent {
                parents.entry(child).or_default().insert(uid(parent));
            }
        }
        let entities = self.levels.iter().map(|(name, level)| {
            let level = level.map(|n| ("level".to_owned(), RestrictedExpression::new_long(n)));
            let parents = parents.remove(name.as_str()).unwrap_or_default();
            Entity::new(uid(name), level.into_iter().collect(), parents).unwrap()
        });
        Entities::from_entities(entities.collect::<Vec<_>>(), None).unwrap()
    }
}

fn set_of(policies: &[String], templates: &[Linked]) -> PolicySet {
    let mut set = PolicySet::new();
    for (i, text) in policies.iter().enumerate() {
        set.add(cedar_policy::Policy::parse(Some(PolicyId::new(format!("p{i}"))), text).unwrap()).unwrap();
    }
    for (i, template) in templates.iter().enumerate() {
        let id = PolicyId::new(format!("t{i}"));
        set.add_template(cedar_policy::Template::parse(Some(id.clone()), &template.text).unwrap()).unwrap();
        let with_principal = template.text.contains("?principal");
        for (n, (principal, resource)) in template.links.iter().enumerate() {
            let mut values = HashMap::from([(SlotId::resource(), uid(resource))]);
            if with_principal {
                values.insert(SlotId::principal(), uid(principal));
            }
            set.link(id.clone(), PolicyId::new(format!("t{i}l{n}")), values).unwrap();
        }
    }
    set
}

fn whole(request: &Request, set: &PolicySet, entities: &Entities) -> Response {
    let response = Authorizer::new().is_authorized(request, set, entities);
    let errors = response.diagnostics().errors().map(|error| {
        let cedar_policy::AuthorizationError::PolicyEvaluationError(erring) = error;
        (erring.policy_id().to_string(), error.to_string())
    });
    Response {
        decision: response.decision(),
        reasons: response.diagnostics().reason().map(|id| id.to_string().into()).collect::<BTreeSet<_>>(),
        errors: errors.collect(),
    }
}

fn request((principal, action, resource, n): &(String, String, String, Option<i64>)) -> Request {
    let n = n.map(|n| ("n".to_owned(), RestrictedExpression::new_long(n)));
    let context = Context::from_pairs(n).unwrap();
    Request::new(uid(principal), uid(action), uid(resource), context, None).unwrap()
}

/// A policy set, what is stored, and the requests to ask.
type Generated = (Vec<String>, Vec<Linked>, Stored, Vec<(String, String, String, Option<i64>)>);

fn generated() -> impl Strategy<Value = Generated> {
    let requests = prop::collection::vec(
        (any_of(PRINCIPALS), any_of(ACTIONS), any_of(RESOURCES), prop::option::of(0..4_i64)),
        1..12,
    );
    (prop::collection::vec(policy(), 0..24), prop::collection::vec(template(), 0..3), stored(), requests)
}

#[test]
fn the_index_answers_as_cedar_does_over_the_whole_set() {
    let mut runner = TestRunner::new(Config { cases: 1500, failure_persistence: None, ..Config::default() });
    let result = runner.run(&generated(), |(policies, templates, stored, requests)| {
        let set = set_of(&policies, &templates);
        let entities = stored.entities();
        let index = Index::new(set.policies());
        prop_assert_eq!(index.len(), set.num_of_policies());
        for request in requests.iter().map(request) {
            let (indexed, expected) =
                (index.is_authorized(&request, &entities), whole(&request, &set, &entities));
            prop_assert_eq!(indexed, expected, "{}", request);
        }
        Ok(())
    });
    if let Err(error) = result {
        panic!("{error}");
    }
}

/// The generators reach every kind of answer often, or the property above says little. The seed is fixed: what is
/// counted here is a fact of the generators, which a run must not meet or miss by chance.
#[test]
fn the_generated_requests_meet_every_kind_of_answer() {
    let [allowed, forbidden, unmatched, erred, nested, compared] = [const { Cell::new(0_u32) }; 6];
    let count = |cell: &Cell<u32>, n: bool| cell.set(cell.get() + u32::from(n));
    let config = Config { cases: 500, failure_persistence: None, ..Config::default() };
    let mut runner = TestRunner::new_with_rng(config, TestRng::deterministic_rng(RngAlgorithm::ChaCha));
    let result = runner.run(&generated(), |(policies, templates, stored, requests)| {
        let set = set_of(&policies, &templates);
        let entities = stored.entities();
        let above = |e: Option<&EntityUid>| {
            entities.ancestors(e.unwrap()).is_some_and(|mut all| all.next().is_some())
        };
        for request in requests.iter().map(request) {
            let answer = whole(&request, &set, &entities);
            count(&compared, true);
            count(&allowed, answer.decision == Decision::Allow);
            count(&forbidden, answer.decision == Decision::Deny && !answer.reasons.is_empty());
            count(&unmatched, answer.decision == Decision::Deny && answer.reasons.is_empty());
            count(&erred, !answer.errors.is_empty());
            let places = above(request.principal()) || above(request.resource());
            count(&nested, above(request.action()) && places);
        }
        Ok(())
    });
    result.unwrap();
    for (kind, n) in [
        ("allowed", &allowed),
        ("forbidden", &forbidden),
        ("unmatched", &unmatched),
        ("erred", &erred),
        ("nested", &nested),
    ] {
        assert!(n.get() > compared.get() / 20, "{kind}: {} of {}", n.get(), compared.get());
    }
}

#[test]
fn who_is_asked_follows_the_request_and_not_the_number_of_policies() {
    let mut most = Vec::new();
    for count in [10, 2000] {
        let texts: Vec<_> = (0..count)
            .map(|i| match i % 5 {
                0 => format!("permit (principal == Workload::\"{i}\", action, resource);"),
                1 => format!("permit (principal, action, resource == Invoice::\"{i}\");"),
                2 => format!("permit (principal in Team::\"{i}\", action, resource is Invoice);"),
                3 => format!("permit (principal == Workload::\"7\", action, resource == Invoice::\"{i}\");"),
                _ => format!("forbid (principal, action == Action::\"{i}\", resource in Account::\"{i}\");"),
            })
            .collect();
        let set = set_of(&texts, &[]);
        let index = Index::new(set.policies());
        let parents = HashSet::from([uid("Team::\"2\"")]);
        let principal = Entity::new_no_attrs(uid("Workload::\"7\""), parents);
        let entities = Entities::from_entities([principal], None).unwrap();
        let asked = |resource: &str| {
            let request = request(&("Workload::\"7\"".into(), "Action::\"4\"".into(), resource.into(), None));
            index.candidates(&request, &entities)
        };
        most.push([asked("Invoice::\"1\""), asked("Invoice::\"3\""), asked("Invoice::\"none\"")]);
    }
    assert_eq!(most[0], [2, 2, 1]);
    assert_eq!(most[0], most[1]);
}
