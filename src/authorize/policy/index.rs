//! The scope index: which policies could apply to a request, by the principal, resource and action that their scopes
//! name, so that the cost of a decision follows those and not all there are. Limits: candidates alone; Cedar evaluates
//! each of them whole, scope included, and the combined answer is Cedar's over the whole set.

use std::collections::{BTreeMap, BTreeSet, HashMap};

use cedar_policy::{
    ActionConstraint, AuthorizationError, Authorizer, Decision, Entities, EntityTypeName, EntityUid, Policy,
    PolicySet, PolicySetError, PrincipalConstraint, Request, ResourceConstraint,
};

/// Policies by scope: principal, then resource, then action.
#[derive(Debug, Default)]
pub struct Index {
    policies: Axis<Axis<Axis<PolicySet>>>,
    len: usize,
}

/// What Cedar says about a request: the same whether it looked at all policies or at the candidates.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Response {
    /// Whether it is allowed.
    pub decision: Decision,
    /// The ids of the policies that determined it.
    pub reasons: BTreeSet<String>,
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
    /// Indexes some policies of a set, links of templates included.
    pub fn new<'p>(
        set: &PolicySet,
        policies: impl IntoIterator<Item = &'p Policy>,
    ) -> Result<Self, Box<PolicySetError>> {
        let mut index = Self::default();
        for policy in policies {
            index.add(set, policy)?;
            index.len += 1;
        }
        Ok(index)
    }

    /// How many policies it holds.
    pub fn len(&self) -> usize {
        self.len
    }

    /// Whether it holds none.
    pub fn is_empty(&self) -> bool {
        self.len == 0
    }

    fn add(&mut self, set: &PolicySet, policy: &Policy) -> Result<(), Box<PolicySetError>> {
        let by_principal = self.policies.slot(principal_scope(policy));
        let by_resource = by_principal.slot(resource_scope(policy));
        for scope in action_scopes(policy) {
            add(by_resource.slot(scope), set, policy)?;
        }
        Ok(())
    }

    /// Decides as Cedar would over all policies of the index.
    ///
    /// `entities` is shared, never copied; an entity that is not in it has no attributes and no ancestors.
    pub fn is_authorized(&self, request: &Request, entities: &Entities) -> Response {
        let mut answer = Combined::default();
        self.visit(request, entities, &mut |candidates| answer.ask(request, candidates, entities));
        answer.into_response()
    }

    /// How many policies are asked about this request: what a decision costs.
    pub fn candidates(&self, request: &Request, entities: &Entities) -> usize {
        let mut count = 0;
        self.visit(request, entities, &mut |candidates| count += candidates.num_of_policies());
        count
    }

    fn visit<'i>(&'i self, request: &Request, entities: &Entities, found: &mut impl FnMut(&'i PolicySet)) {
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
    permits: BTreeSet<String>,
    forbids: BTreeSet<String>,
    errors: BTreeMap<String, String>,
}

impl Combined {
    fn ask(&mut self, request: &Request, candidates: &PolicySet, entities: &Entities) {
        let response = Authorizer::new().is_authorized(request, candidates, entities);
        let reasons = match response.decision() {
            Decision::Allow => &mut self.permits,
            Decision::Deny => &mut self.forbids,
        };
        reasons.extend(response.diagnostics().reason().map(|id| AsRef::<str>::as_ref(id).to_owned()));
        for error in response.diagnostics().errors() {
            let AuthorizationError::PolicyEvaluationError(erring) = error;
            self.errors.insert(AsRef::<str>::as_ref(erring.policy_id()).to_owned(), error.to_string());
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

/// Adds a policy of `set` to a group; a link needs its template there first.
fn add(group: &mut PolicySet, set: &PolicySet, policy: &Policy) -> Result<(), Box<PolicySetError>> {
    let (Some(template), Some(values)) = (policy.template_id(), policy.template_links()) else {
        return group.add(policy.clone()).map_err(Box::new);
    };
    if group.template(template).is_none()
        && let Some(template) = set.template(template)
    {
        group.add_template(template.clone()).map_err(Box::new)?;
    }
    group.link(template.clone(), policy.id().clone(), values).map_err(Box::new)
}
