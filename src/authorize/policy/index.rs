//! The scope index: which policies could apply to a request, by the principal, resource and action that their scopes
//! name, so that the cost of a decision follows those and not all there are. Limits: candidates alone; Cedar evaluates
//! each of them whole, scope included, and the combined answer is Cedar's over the whole set. Cedar's evaluator is asked
//! and not its authorizer, which would make the condition of each policy anew, and an evaluator for each group of them.

use std::collections::{BTreeMap, BTreeSet, HashMap};
use std::sync::Arc;

use cedar_policy::{
    ActionConstraint, Decision, Entities, EntityTypeName, EntityUid, Policy, PrincipalConstraint, Request,
    ResourceConstraint,
};
use cedar_policy_core::ast;
use cedar_policy_core::evaluator::Evaluator;
use cedar_policy_core::extensions::Extensions;

use crate::authorize::text::Text;

/// Policies by scope: principal, then resource, then action.
#[derive(Debug, Default)]
pub struct Index {
    policies: Axis<Axis<Axis<Vec<Arc<Candidate>>>>>,
    len: usize,
}

/// A policy as it is asked.
#[derive(Debug)]
struct Candidate {
    id: Text,
    effect: ast::Effect,
    /// Its scope and its conditions, as one expression.
    condition: ast::Expr,
    /// What stands in the slots of its template.
    slots: ast::SlotEnv,
}

/// What Cedar says about a request: the same whether it looked at all policies or at the candidates.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Response {
    /// Whether it is allowed.
    pub decision: Decision,
    /// The ids of the policies that determined it.
    pub reasons: BTreeSet<Text>,
    /// The policies that erred, with Cedar's message.
    pub errors: BTreeMap<String, String>,
}

/// One part of a scope.
enum Scope {
    Any,
    Is(EntityTypeName),
    Equal(EntityUid),
    Within(EntityUid),
}

/// What is kept by one part of a scope.
#[derive(Debug)]
struct Axis<T> {
    any: Option<Box<T>>,
    is: HashMap<EntityTypeName, T>,
    equal: HashMap<EntityUid, T>,
    within: HashMap<EntityUid, T>,
}

/// One of the three entities of a request, with all of its ancestors.
struct Place<'r> {
    entity: &'r EntityUid,
    ancestors: Vec<&'r EntityUid>,
}

impl Index {
    /// Indexes policies, links of templates included.
    pub fn new<'p>(policies: impl IntoIterator<Item = &'p Policy>) -> Self {
        let mut index = Self::default();
        for policy in policies {
            index.add(policy);
            index.len += 1;
        }
        index
    }

    /// How many policies it holds.
    pub fn len(&self) -> usize {
        self.len
    }

    /// Whether it holds none.
    pub fn is_empty(&self) -> bool {
        self.len == 0
    }

    fn add(&mut self, policy: &Policy) {
        let inner: &ast::Policy = policy.as_ref();
        let candidate = Arc::new(Candidate {
            id: inner.id().to_string().into(),
            effect: inner.effect(),
            condition: inner.condition(),
            slots: inner.env().clone(),
        });
        let by_principal = self.policies.slot(principal_scope(policy));
        let by_resource = by_principal.slot(resource_scope(policy));
        for scope in action_scopes(policy) {
            by_resource.slot(scope).push(candidate.clone());
        }
    }

    /// Decides as Cedar would over all policies of the index.
    ///
    /// `entities` is shared, never copied; an entity that is not in it has no attributes and no ancestors.
    pub fn is_authorized(&self, request: &Request, entities: &Entities) -> Response {
        let mut answer = Combined::default();
        let asked: &ast::Request = request.as_ref();
        let evaluator = Evaluator::new(asked.clone(), entities.as_ref(), Extensions::all_available());
        self.visit(request, entities, &mut |candidates| {
            candidates.iter().for_each(|candidate| answer.ask(candidate, &evaluator));
        });
        answer.into_response()
    }

    /// How many policies are asked about this request: what a decision costs.
    pub fn candidates(&self, request: &Request, entities: &Entities) -> usize {
        let mut count = 0;
        self.visit(request, entities, &mut |candidates| count += candidates.len());
        count
    }

    fn visit<'i>(
        &'i self,
        request: &Request,
        entities: &Entities,
        found: &mut impl FnMut(&'i Vec<Arc<Candidate>>),
    ) {
        // A request made by this crate has all three; one without matches no scope that names something.
        let (Some(principal), Some(action), Some(resource)) =
            (request.principal(), request.action(), request.resource())
        else {
            return;
        };
        let [principal, action, resource] = [principal, action, resource].map(|e| Place::of(e, entities));
        self.policies.visit(&principal, &mut |by_principal| {
            by_principal.visit(&resource, &mut |by_resource| by_resource.visit(&action, found));
        });
    }
}

/// The parts of the answer, before a forbid outweighs a permit. A policy met twice counts once.
#[derive(Default)]
struct Combined {
    permits: BTreeSet<Text>,
    forbids: BTreeSet<Text>,
    errors: BTreeMap<String, String>,
}

impl Combined {
    fn ask(&mut self, candidate: &Candidate, evaluator: &Evaluator<'_>) {
        let applies = match evaluator.interpret(&candidate.condition, &candidate.slots) {
            Ok(value) => match value.value {
                ast::ValueKind::Lit(ast::Literal::Bool(applies)) => Ok(applies),
                // A scope and a condition joined are true or false, or an error.
                _ => Err("its condition is neither true nor false".to_owned()),
            },
            Err(error) => Err(error.to_string()),
        };
        let id = candidate.id.clone();
        match (applies, candidate.effect) {
            (Ok(true), ast::Effect::Permit) => drop(self.permits.insert(id)),
            (Ok(true), ast::Effect::Forbid) => drop(self.forbids.insert(id)),
            (Ok(false), _) => {}
            (Err(error), _) => {
                let message = format!("error while evaluating policy `{id}`: {error}");
                self.errors.insert(id.as_str().to_owned(), message);
            }
        }
    }

    fn into_response(self) -> Response {
        let (decision, reasons) = if !self.forbids.is_empty() {
            (Decision::Deny, self.forbids)
        } else if !self.permits.is_empty() {
            (Decision::Allow, self.permits)
        } else {
            (Decision::Deny, BTreeSet::new())
        };
        Response { decision, reasons, errors: self.errors }
    }
}

impl<'r> Place<'r> {
    fn of(entity: &'r EntityUid, entities: &'r Entities) -> Self {
        Self { entity, ancestors: entities.ancestors(entity).into_iter().flatten().collect() }
    }
}

impl<T> Default for Axis<T> {
    fn default() -> Self {
        Self { any: None, is: HashMap::new(), equal: HashMap::new(), within: HashMap::new() }
    }
}

impl<T: Default> Axis<T> {
    fn slot(&mut self, scope: Scope) -> &mut T {
        match scope {
            Scope::Any => self.any.get_or_insert_default(),
            Scope::Is(name) => self.is.entry(name).or_default(),
            Scope::Equal(entity) => self.equal.entry(entity).or_default(),
            Scope::Within(entity) => self.within.entry(entity).or_default(),
        }
    }

    /// Everything kept under a scope that this entity matches.
    fn visit<'t>(&'t self, place: &Place<'_>, found: &mut impl FnMut(&'t T)) {
        if let Some(any) = &self.any {
            found(any);
        }
        if !self.is.is_empty()
            && let Some(of_type) = self.is.get(place.entity.type_name())
        {
            found(of_type);
        }
        if !self.equal.is_empty()
            && let Some(equal) = self.equal.get(place.entity)
        {
            found(equal);
        }
        if !self.within.is_empty() {
            for above in std::iter::once(&place.entity).chain(&place.ancestors) {
                if let Some(within) = self.within.get(*above) {
                    found(within);
                }
            }
        }
    }
}

fn principal_scope(policy: &Policy) -> Scope {
    match policy.principal_constraint() {
        PrincipalConstraint::Any => Scope::Any,
        PrincipalConstraint::Is(name) => Scope::Is(name),
        PrincipalConstraint::Eq(entity) => Scope::Equal(entity),
        PrincipalConstraint::In(entity) | PrincipalConstraint::IsIn(_, entity) => Scope::Within(entity),
    }
}

fn resource_scope(policy: &Policy) -> Scope {
    match policy.resource_constraint() {
        ResourceConstraint::Any => Scope::Any,
        ResourceConstraint::Is(name) => Scope::Is(name),
        ResourceConstraint::Eq(entity) => Scope::Equal(entity),
        ResourceConstraint::In(entity) | ResourceConstraint::IsIn(_, entity) => Scope::Within(entity),
    }
}

/// One for each action or group that is named; a policy that names none of them in `action in []` never applies.
fn action_scopes(policy: &Policy) -> Vec<Scope> {
    match policy.action_constraint() {
        ActionConstraint::Any => vec![Scope::Any],
        ActionConstraint::Eq(action) => vec![Scope::Equal(action)],
        ActionConstraint::In(actions) => {
            let distinct: BTreeSet<_> = actions.into_iter().collect();
            distinct.into_iter().map(Scope::Within).collect()
        }
    }
}
