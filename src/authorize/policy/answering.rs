//! Who may answer a challenge: `principal` the approver, action `answer`, resource the challenge, with a context of its own
//! (docs/step-up.md). Limits: a schema without an action `answer` lets nobody answer; a policy with `@step_up` has no say.

use std::collections::HashSet;

use cedar_policy::{Context, Decision, EntityTypeName, EntityUid, Request};
use serde_json::{Map, Value as Json};

use super::bundle::Bundle;
use super::context::{Unoffered, list};
use super::entities::Entities;
use super::evaluate::{errors_denial, quoted, shown};
use super::facts::{Offer, SubjectId};
use super::index::Response;
use super::offered::{Offered, WORKLOAD};
use super::shape::{Member, Shape};
use super::value::{Mistyped, Value, is_datetime};
use crate::authorize::decision::{Denial, Reason};
use crate::authorize::ids::{UnixMillis, WorkloadId};
use crate::authorize::request::{Action, Resource, Workflow};
use crate::authorize::text::Text;

/// The name of the action, and the entity type of its resource. No record can ask for that action.
pub(super) const ANSWER: &str = "answer";
pub(super) const CHALLENGE: &str = "Challenge";

/// What is known about an answer and what it answers.
#[derive(Debug, Clone, Copy)]
pub struct AnswerFacts<'a> {
    /// When the gate decides.
    pub now: UnixMillis,
    /// The entity type and id of the approver.
    pub approver: (&'a str, &'a str),
    /// The challenge's id.
    pub challenge: &'a str,
    /// The route that asks.
    pub route: &'a str,
    /// The names of the step-ups, sorted.
    pub step_ups: &'a [String],
    /// When it was asked; unknown of a grant that its sender brings.
    pub asked_at: Option<UnixMillis>,
    /// When the hold ends.
    pub hold_until: Option<UnixMillis>,
    /// How many must approve.
    pub approvals: u32,
    /// The sender of the record.
    pub sender: &'a WorkloadId,
    /// Its subject.
    pub subject: Option<&'a SubjectId>,
    /// The senders before, newest first.
    pub senders: &'a [WorkloadId],
    /// The action asked for.
    pub action: &'a Action,
    /// The resource asked for.
    pub resource: &'a Resource,
    /// The workflow as the sender states it.
    pub workflow: Option<&'a Workflow>,
    /// What the route's mapping took from the record.
    pub value: Option<&'a Map<String, Json>>,
    /// What the approver says: `approve` or `refuse`.
    pub decision: &'a str,
    /// `iss` of the answer.
    pub issuer: &'a str,
    /// When it was given, in seconds.
    pub issued_at: f64,
    /// `acr`.
    pub acr: Option<&'a str>,
    /// `amr`.
    pub amr: Option<&'a [String]>,
    /// `auth_time`, in seconds.
    pub auth_time: Option<f64>,
}

/// The action `answer` of a schema.
#[derive(Debug)]
pub(super) struct AnswerAction {
    pub(super) entity: EntityUid,
    pub(super) principals: HashSet<EntityTypeName>,
    pub(super) resources: HashSet<EntityTypeName>,
    pub(super) context: Vec<Member>,
}

type Row = (&'static str, &'static str, bool, Offered);

/// Group (empty: none), name, whether it is always there, type.
const ROWS: &[Row] = &[
    ("", "now", true, Offered::Datetime),
    ("", "sender", true, Offered::Workload),
    ("", "senders", true, Offered::Workloads),
    ("", "subject", false, Offered::Subject),
    ("", "value", false, Offered::Declared),
    ("challenge", "route", true, Offered::String),
    ("challenge", "step_ups", true, Offered::Strings),
    ("challenge", "approvals", true, Offered::Long),
    ("challenge", "asked_at", false, Offered::Datetime),
    ("challenge", "hold_until", false, Offered::Datetime),
    ("challenge", "action", true, Offered::String),
    ("challenge", "resource_type", true, Offered::String),
    ("challenge", "resource_id", true, Offered::String),
    ("request", "action", false, Offered::Declared),
    ("request", "resource", false, Offered::Declared),
    ("workflow", "id", true, Offered::String),
    ("workflow", "type", true, Offered::String),
    ("workflow", "step", true, Offered::String),
    ("workflow", "state", true, Offered::String),
    ("answer", "decision", true, Offered::String),
    ("answer", "issuer", true, Offered::String),
    ("answer", "issued_at", true, Offered::Datetime),
    ("answer", "acr", false, Offered::String),
    ("answer", "amr", false, Offered::Strings),
    ("answer", "authenticated_at", false, Offered::Datetime),
];

/// Whether a schema's context of `answer` can be filled; if not, everything that cannot.
pub(super) fn check(declared: &[Member], offer: &Offer) -> Result<(), Vec<Unoffered>> {
    let mut problems = Vec::new();
    for member in declared {
        let in_group = ROWS.iter().any(|row| row.0 == &*member.name);
        match &member.shape {
            Shape::Record(inner) if in_group => {
                if member.required && &*member.name == "workflow" {
                    problems.push(missing("workflow"));
                }
                inner.iter().for_each(|inner| check_one(&member.name, inner, offer, &mut problems));
            }
            _ => check_one("", member, offer, &mut problems),
        }
    }
    if problems.is_empty() { Ok(()) } else { Err(problems) }
}

fn check_one(group: &str, member: &Member, offer: &Offer, problems: &mut Vec<Unoffered>) {
    let path = join(group, &member.name);
    let Some((.., always, offered)) = ROWS.iter().find(|row| row.0 == group && row.1 == &*member.name) else {
        let names = ROWS.iter().filter(|row| row.0 == group).map(|row| row.1);
        problems.push(Unoffered {
            message: format!("the gate offers no `{path}`"),
            help: format!("there are {}", list(names)),
        });
        return;
    };
    if let Some(wanted) = offered.differs(&member.shape, offer) {
        problems.push(Unoffered {
            message: format!("`{path}` is declared as {}, but it is {wanted}", member.shape),
            help: format!("declare `{}: {wanted}`", member.name),
        });
    } else if member.required && !always {
        problems.push(missing(&path));
    }
}

fn missing(path: &str) -> Unoffered {
    Unoffered {
        message: format!("`{path}` is required, but an answer may come without it"),
        help: "declare it optional, with `?`, and ask with `has`".to_owned(),
    }
}

fn join(group: &str, name: &str) -> String {
    if group.is_empty() { name.to_owned() } else { format!("{group}.{name}") }
}

impl Bundle {
    /// Asks the policies whether this approver may answer this challenge. The policies that permit it, sorted.
    ///
    /// # Errors
    /// `request_invalid`, `policy_error`, `forbidden` or `not_permitted`: such an answer changes nothing.
    pub fn may_answer(&self, entities: &Entities, facts: &AnswerFacts<'_>) -> Result<Vec<Text>, Denial> {
        let invalid = |detail: String| Denial::new(Reason::RequestInvalid, detail);
        let action = self.answer.as_ref().ok_or_else(|| {
            invalid(format!("the schema has no action `{ANSWER}` on `{CHALLENGE}`: nobody may answer"))
        })?;
        let (kind, id) = facts.approver;
        let shown_approver = format!("{}::{}", shown(kind), quoted(id));
        let approver = self
            .kinds
            .get(kind)
            .filter(|kind| action.principals.contains(&kind.name))
            .and_then(|kind| kind.entity(id))
            .ok_or_else(|| invalid(format!("action `{ANSWER}` is not for a principal {shown_approver}")))?;
        let challenge = self
            .kinds
            .get(CHALLENGE)
            .filter(|kind| action.resources.contains(&kind.name))
            .and_then(|kind| kind.entity(facts.challenge))
            .ok_or_else(|| invalid(format!("action `{ANSWER}` is not for a resource `{CHALLENGE}`")))?;
        let context = self.answer_context(&action.context, facts).map_err(invalid)?;
        let request = Request::new(approver, action.entity.clone(), challenge, context, None)
            .map_err(|error| invalid(shown(&error.to_string()).into_owned()))?;
        let Response { decision, reasons, errors } = self.plain.is_authorized(&request, entities.store());
        // Cedar's message can quote a value that is masked elsewhere.
        let errors = errors.into_keys().map(|id| (id.clone(), format!("policy `{id}` errored"))).collect();
        if let Some(denial) = errors_denial(&errors) {
            return Err(denial);
        }
        match decision {
            Decision::Allow => Ok(reasons.into_iter().collect()),
            Decision::Deny if reasons.is_empty() => Err(Denial::new(
                Reason::NotPermitted,
                format!("no policy permits {shown_approver} to answer"),
            )),
            Decision::Deny => Err(Denial::new(Reason::Forbidden, self.forbidden_detail(&reasons))),
        }
    }

    /// Whether the approver is the sender, the subject or an earlier sender: compared as entities.
    pub fn is_party(&self, facts: &AnswerFacts<'_>) -> bool {
        let (kind, id) = facts.approver;
        let mut workloads = std::iter::once(facts.sender).chain(facts.senders);
        let workload = kind == WORKLOAD && workloads.any(|workload| workload.as_str() == id);
        let subject = facts.subject.is_some_and(|subject| subject.as_str() == id);
        workload || (subject && self.subject_type.as_deref() == Some(kind))
    }

    fn answer_context(&self, declared: &[Member], facts: &AnswerFacts<'_>) -> Result<Context, String> {
        let wrong = |wrong: Mistyped| format!("`{}` {}", shown(&wrong.path), wrong.problem);
        let mut members = Vec::new();
        for member in declared {
            let value = match &member.shape {
                Shape::Record(inner) if ROWS.iter().any(|row| row.0 == &*member.name) => {
                    self.answer_group(&member.name, inner, facts).map_err(wrong)?
                }
                shape => self.answer_value("", &member.name, shape, facts).map_err(wrong)?,
            };
            if let Some(value) = value {
                members.push((&*member.name, value));
            }
        }
        let context = Value::Record(members).context(&self.times);
        context.ok_or_else(|| "the context has a member twice".to_owned())
    }

    fn answer_group<'a>(
        &self,
        group: &'a str,
        declared: &'a [Member],
        facts: &AnswerFacts<'a>,
    ) -> Result<Option<Value<'a>>, Mistyped> {
        if group == "workflow" && facts.workflow.is_none() {
            return Ok(None);
        }
        let mut record = Vec::new();
        for member in declared {
            if let Some(value) = self.answer_value(group, &member.name, &member.shape, facts)? {
                record.push((&*member.name, value));
            }
        }
        Ok(Some(Value::Record(record)))
    }

    fn answer_value<'a>(
        &self,
        group: &str,
        name: &str,
        shape: &'a Shape,
        facts: &AnswerFacts<'a>,
    ) -> Result<Option<Value<'a>>, Mistyped> {
        let text = |text: &'a str| Some(Value::Text(text.into()));
        let texts = |texts: &'a [String]| {
            Some(Value::Set(texts.iter().map(|text| Value::Text(text.as_str().into())).collect()))
        };
        let at = |moment: Option<UnixMillis>| match moment {
            Some(moment) if !is_datetime(moment) => Err(Mistyped {
                path: join(group, name),
                problem: "is outside of the years 0 to 9999".to_owned(),
            }),
            moment => Ok(moment.map(Value::Datetime)),
        };
        let seconds =
            |seconds: Option<f64>| seconds.map(|seconds| UnixMillis((seconds * 1000.0).round() as i64));
        let declared = |claim: Option<&'a Map<String, Json>>| match (claim, shape) {
            (Some(claim), Shape::Record(members)) => {
                Value::of_members(claim, members, &mut join(group, name)).map(Some)
            }
            _ => Ok(None),
        };
        let workload = |id: &WorkloadId| self.kinds.get(WORKLOAD)?.entity(id.as_str()).map(Value::Entity);
        let workflow = facts.workflow;
        Ok(match (group, name) {
            ("", "now") => at(Some(facts.now))?,
            ("", "sender") => workload(facts.sender),
            ("", "senders") => facts.senders.iter().map(workload).collect::<Option<Vec<_>>>().map(Value::Set),
            ("", "subject") => facts.subject.and_then(|subject| {
                let kind = self.kinds.get(self.subject_type.as_deref()?)?;
                kind.entity(subject.as_str()).map(Value::Entity)
            }),
            ("", "value") => declared(facts.value)?,
            ("challenge", "route") => text(facts.route),
            ("challenge", "step_ups") => texts(facts.step_ups),
            ("challenge", "approvals") => Some(Value::Long(facts.approvals.into())),
            ("challenge", "asked_at") => at(facts.asked_at)?,
            ("challenge", "hold_until") => at(facts.hold_until)?,
            ("challenge", "action") => text(&facts.action.name),
            ("challenge", "resource_type") => text(&facts.resource.kind),
            ("challenge", "resource_id") => text(&facts.resource.id),
            ("request", "action") => declared(facts.action.properties.as_ref())?,
            ("request", "resource") => declared(facts.resource.properties.as_ref())?,
            ("workflow", "id") => workflow.and_then(|workflow| text(&workflow.id)),
            ("workflow", "type") => workflow.and_then(|workflow| text(&workflow.kind)),
            ("workflow", "step") => workflow.and_then(|workflow| text(&workflow.step)),
            ("workflow", "state") => workflow.and_then(|workflow| text(&workflow.state)),
            ("answer", "decision") => text(facts.decision),
            ("answer", "issuer") => text(facts.issuer),
            ("answer", "issued_at") => at(seconds(Some(facts.issued_at)))?,
            ("answer", "acr") => facts.acr.and_then(text),
            ("answer", "amr") => facts.amr.and_then(texts),
            ("answer", "authenticated_at") => at(seconds(facts.auth_time))?,
            _ => None,
        })
    }
}
