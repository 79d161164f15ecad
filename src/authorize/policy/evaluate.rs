//! Evaluation: the request as the schema admits it, the policies of the first decision for every principal, and then
//! the step-ups (contract, sections 7 and 10). Limits: pure; any error of any policy that was looked at denies, and
//! every outcome but one is a denial.

use std::collections::{BTreeMap, BTreeSet};
use std::fmt::Write as _;

use cedar_policy::{Decision, EntityTypeName, EntityUid, Request};

use super::answer::{Allowed, Answer, Conditional, StepUp};
use super::bundle::{Action, Bundle};
use super::context::Known;
use super::entities::Entities;
use super::facts::{Facts, Principal};
use super::index::{Index, Response};
use super::offered::WORKLOAD;
use super::value::Mask;
use crate::authorize::decision::{Denial, Reason};
use crate::authorize::text::Text;

/// A request that the schema admits, once for each principal.
struct Admitted {
    requests: Vec<Request>,
    context_json: String,
    masked: Vec<String>,
}

/// What one index says to all principals together.
#[derive(Default)]
struct Said {
    permits: BTreeSet<Text>,
    forbids: BTreeSet<Text>,
    errors: BTreeMap<String, String>,
    /// The first principal that no permit allows.
    unpermitted: Option<String>,
}

impl Bundle {
    /// Asks the policies about one record. All `principals` must be allowed; there must be at least one.
    ///
    /// Policies with `@step_up` are left out of the first decision, and looked at if that allows. The answer does not
    /// depend on anything but its arguments, and every list in it is sorted.
    pub fn evaluate(&self, entities: &Entities, facts: &Facts<'_>, principals: &[Principal<'_>]) -> Answer {
        let admitted = match self.admit(facts, principals) {
            Ok(admitted) => admitted,
            Err(detail) => return Answer::invalid(Denial::new(Reason::RequestInvalid, detail)),
        };
        let mut said = Said::ask(&self.plain, &admitted, entities);
        let verdict = self.first_verdict(&mut said, facts);
        let mut step_ups = Vec::new();
        let mut conditional = None;
        let verdict = match verdict {
            Ok(allowed) if !self.step_up.is_empty() => {
                let asked = Said::ask(&self.step_up, &admitted, entities);
                said.errors.extend(asked.errors);
                step_ups = self.step_ups(&asked.forbids);
                second_verdict(allowed, &said.errors, &step_ups).map_err(|(denial, asked)| {
                    conditional = asked;
                    denial
                })
            }
            verdict => verdict,
        };
        let determining = match &verdict {
            Ok(_) => said.permits,
            Err(denial) if denial.reason == Reason::Forbidden => said.forbids,
            Err(denial) if denial.reason == Reason::StepUpRequired => {
                step_ups.iter().map(|step_up| step_up.policy.as_str().into()).collect()
            }
            Err(_) => BTreeSet::new(),
        };
        Answer {
            verdict,
            conditional,
            determining: determining.into_iter().collect(),
            errors: said.errors.into_iter().collect(),
            context_json: Some(admitted.context_json),
            masked: admitted.masked,
            step_ups,
        }
    }

    fn first_verdict(&self, said: &mut Said, facts: &Facts<'_>) -> Result<Allowed, Denial> {
        if let Some(denial) = errors_denial(&said.errors) {
            return Err(denial);
        }
        if !said.forbids.is_empty() {
            return Err(Denial::new(Reason::Forbidden, self.forbidden_detail(&said.forbids)));
        }
        if let Some(principal) = &said.unpermitted {
            let detail = format!(
                "no policy permits {principal} to `{}` {}::{}",
                shown(facts.action),
                shown(facts.resource_type),
                quoted(facts.resource_id)
            );
            return Err(Denial::new(Reason::NotPermitted, detail));
        }
        Ok(Allowed::by(said.permits.iter().cloned().collect()))
    }

    pub(super) fn forbidden_detail(&self, forbids: &BTreeSet<Text>) -> String {
        let mut detail = String::new();
        for id in forbids {
            let reason = self.meta.get(id.as_str()).and_then(|meta| meta.reason.as_deref());
            let lead = if detail.is_empty() { "forbidden by " } else { "; by " };
            let _ = write!(detail, "{lead}`{id}`");
            if let Some(reason) = reason {
                let _ = write!(detail, ": {reason}");
            }
        }
        limited(detail, 1024)
    }

    fn step_ups(&self, forbids: &BTreeSet<Text>) -> Vec<StepUp> {
        forbids.iter().filter_map(|id| self.meta.get(id.as_str())?.step_up.clone()).collect()
    }

    /// Whether the schema admits the request, for each principal; if not, why.
    fn admit(&self, facts: &Facts<'_>, principals: &[Principal<'_>]) -> Result<Admitted, String> {
        let action = self
            .actions
            .get(facts.action)
            .ok_or_else(|| format!("the schema has no action `{}`", shown(facts.action)))?;
        let resource = self.resource(action, facts)?;
        if principals.is_empty() {
            return Err("there is nobody to ask about".to_owned());
        }
        let principals: Vec<_> = principals
            .iter()
            .map(|principal| self.principal(action, facts, *principal))
            .collect::<Result<_, _>>()?;
        let kind = |name: &str| self.kinds.get(name).map(|kind| &**kind);
        let known = Known {
            made: &self.made,
            times: &self.times,
            workload: kind(WORKLOAD),
            subject: self.subject_type.as_deref().and_then(kind),
        };
        let value = action
            .context
            .build(facts, &known)
            .map_err(|wrong| format!("`{}` {}", shown(&wrong.path), wrong.problem))?;
        let context = value.context(&self.times).ok_or("the context has a member twice")?;
        let mut mask = Mask::new(facts.mask);
        let mut context_json = String::new();
        value.write_json(&mut context_json, &mut mask);
        let requests = principals.into_iter().map(|principal| {
            // The schema has been looked at above, piece by piece; Cedar's own check would cost more than deciding.
            Request::new(principal, action.entity.clone(), resource.clone(), context.clone(), None)
                .map_err(|error| shown(&error.to_string()).into_owned())
        });
        Ok(Admitted {
            requests: requests.collect::<Result<_, _>>()?,
            context_json,
            masked: mask.into_found(),
        })
    }

    fn resource(&self, action: &Action, facts: &Facts<'_>) -> Result<EntityUid, String> {
        let Some(kind) = self.kinds.get(facts.resource_type) else {
            return Err(match facts.resource_type.parse::<EntityTypeName>() {
                Ok(_) => format!("the schema has no entity type `{}`", shown(facts.resource_type)),
                Err(_) => format!("`{}` is no legal entity type", shown(facts.resource_type)),
            });
        };
        if !action.resources.contains(&kind.name) {
            return Err(format!(
                "action `{}` does not apply to a resource `{}`",
                shown(facts.action),
                kind.text
            ));
        }
        kind.entity(facts.resource_id)
            .ok_or_else(|| format!("there is no {}::{}", kind.text, quoted(facts.resource_id)))
    }

    fn principal(
        &self,
        action: &Action,
        facts: &Facts<'_>,
        principal: Principal<'_>,
    ) -> Result<EntityUid, String> {
        let (kind, id) = match principal {
            Principal::Workload(id) => (WORKLOAD, id.as_str()),
            Principal::Subject(id) => {
                (self.subject_type.as_deref().ok_or("no entity type of subjects is configured")?, id.as_str())
            }
            Principal::Entity { kind, id } => (kind, id),
        };
        let kind =
            self.kinds.get(kind).ok_or_else(|| format!("the schema has no entity type `{}`", shown(kind)))?;
        if !action.principals.contains(&kind.name) {
            return Err(format!("action `{}` is not for a principal `{}`", shown(facts.action), kind.text));
        }
        kind.entity(id).ok_or_else(|| format!("there is no {}::{}", kind.text, quoted(id)))
    }
}

impl Said {
    fn ask(index: &Index, admitted: &Admitted, entities: &Entities) -> Self {
        let mut said = Self::default();
        for request in &admitted.requests {
            let Response { decision, reasons, errors } = index.is_authorized(request, entities.store());
            for (id, message) in errors {
                // Cedar's message can quote the values that a policy stumbled over, a masked one among them.
                let message = match admitted.masked.is_empty() {
                    true => limited(message, 1024),
                    false => format!(
                        "error while evaluating policy `{id}` (withheld: parts of the context are masked)"
                    ),
                };
                said.errors.entry(id).or_insert(message);
            }
            match decision {
                Decision::Allow => said.permits.extend(reasons),
                Decision::Deny if !reasons.is_empty() => said.forbids.extend(reasons),
                Decision::Deny => {
                    said.unpermitted.get_or_insert_with(|| {
                        request.principal().map_or_else(String::new, |principal| {
                            format!("{}::{}", principal.type_name(), quoted(principal.id().unescaped()))
                        })
                    });
                }
            }
        }
        said
    }
}

impl Answer {
    fn invalid(denial: Denial) -> Self {
        Self {
            verdict: Err(denial),
            conditional: None,
            determining: Vec::new(),
            errors: Vec::new(),
            context_json: None,
            masked: Vec::new(),
            step_ups: Vec::new(),
        }
    }
}

fn second_verdict(
    allowed: Allowed,
    errors: &BTreeMap<String, String>,
    step_ups: &[StepUp],
) -> Result<Allowed, (Denial, Option<Conditional>)> {
    if let Some(denial) = errors_denial(errors) {
        return Err((denial, None));
    }
    if step_ups.is_empty() {
        return Ok(allowed);
    }
    let names: BTreeSet<_> = step_ups.iter().map(|step_up| format!("`{}`", step_up.name)).collect();
    let names = names.into_iter().collect::<Vec<_>>().join(", ");
    let denial =
        Denial::new(Reason::StepUpRequired, limited(format!("a step-up is required: {names}"), 1024));
    Err((denial, Some(Conditional::on(allowed, step_ups.to_vec()))))
}

// INVARIANT: an error is never looked past. Cedar skips a policy that errs, even a forbid.
pub(super) fn errors_denial(errors: &BTreeMap<String, String>) -> Option<Denial> {
    let (_, message) = errors.first_key_value()?;
    let more = match errors.len() {
        1 => String::new(),
        n => format!(" (and {} more)", n - 1),
    };
    Some(Denial::new(Reason::PolicyError, format!("{message}{more}")))
}

/// A claim within a sentence: short, and without control characters.
pub(super) fn shown(text: &str) -> std::borrow::Cow<'_, str> {
    const LONGEST: usize = 128;
    if text.chars().nth(LONGEST).is_none() && !text.chars().any(char::is_control) {
        return text.into();
    }
    let mut short: String =
        text.chars().take(LONGEST).map(|c| if c.is_control() { '\u{fffd}' } else { c }).collect();
    if text.chars().nth(LONGEST).is_some() {
        short.push('…');
    }
    short.into()
}

pub(super) fn quoted(text: &str) -> String {
    format!("\"{}\"", shown(text).replace('\\', "\\\\").replace('"', "\\\""))
}

fn limited(mut text: String, chars: usize) -> String {
    if let Some((at, _)) = text.char_indices().nth(chars) {
        text.truncate(at);
        text.push('…');
    }
    text
}
