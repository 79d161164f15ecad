//! Context projection: what the gate offers (contract, section 10) against what an action's context declares, settled
//! once when the schema loads; a record then builds what is declared and nothing else. Limits: a schema that asks for
//! what is not offered, or demands what may be missing, is refused here with advice; claims are checked as they come.

use core::net::IpAddr;
use std::sync::Arc;

use serde_json::{Map, Value as Json};

use super::facts::{Facts, Offer};
use super::offered::{Attribute, GROUPS, Group, Offered, Presence, Row, TOP};
use super::shape::{EntityKind, Member, Shape};
use super::value::{MadeCache, Mistyped, TimeCache, Value, is_datetime};
use crate::authorize::ids::UnixMillis;
use crate::authorize::standing::Found;

/// What one action's context holds, in the order of names.
#[derive(Debug)]
pub(super) struct Projection {
    members: Vec<Planned>,
}

#[derive(Debug)]
struct Planned {
    name: Arc<str>,
    required: bool,
    plan: Plan,
}

#[derive(Debug)]
enum Plan {
    One(Attribute, Shape),
    Group(Group, Vec<Planned>),
}

/// A part of a declared context that the gate cannot fill: what is wrong, and advice.
#[derive(Debug)]
pub(super) struct Unoffered {
    pub(super) message: String,
    pub(super) help: String,
}

impl Projection {
    /// Settles where every declared member comes from, or says for all of them why it cannot come.
    pub(super) fn compile(declared: &[Member], offer: &Offer) -> Result<Self, Vec<Unoffered>> {
        let mut problems = Vec::new();
        let mut members = Vec::new();
        for member in declared {
            if let Some(row) = TOP.iter().find(|row| row.0 == &*member.name) {
                members.extend(plan_one(row, member, "", offer, &mut problems));
            } else if let Some(group) = GROUPS.iter().find(|group| group.0 == &*member.name) {
                members.extend(plan_group(group, member, offer, &mut problems));
            } else {
                let names = TOP.iter().map(|row| row.0).chain(GROUPS.iter().map(|group| group.0));
                problems.push(unknown("", &member.name, names));
            }
        }
        if problems.is_empty() { Ok(Self { members }) } else { Err(problems) }
    }

    /// What this action's policies see of a record.
    pub(super) fn build<'a>(&'a self, facts: &Facts<'a>, known: &Known<'a>) -> Result<Value<'a>, Mistyped> {
        Ok(Value::Record(build(&self.members, "", facts, known)?))
    }
}

/// The entity types that attributes of the gate's own have, where the schema declares them.
#[derive(Debug, Clone, Copy)]
pub(super) struct Known<'k> {
    /// What was made of tokens before.
    pub(super) made: &'k MadeCache,
    pub(super) times: &'k TimeCache,
    pub(super) workload: Option<&'k EntityKind>,
    pub(super) subject: Option<&'k EntityKind>,
}

fn plan_group(
    (name, presence, group, rows): &(&'static str, Presence, Group, &[Row]),
    member: &Member,
    offer: &Offer,
    problems: &mut Vec<Unoffered>,
) -> Option<Planned> {
    check_presence(name, *presence, member, offer, problems);
    let Shape::Record(declared) = &member.shape else {
        problems.push(Unoffered {
            message: format!("`{name}` is declared as {}, but it is a record", member.shape),
            help: format!("declare `{name}: {{ ... }}` of {}", list(rows.iter().map(|row| row.0))),
        });
        return None;
    };
    let mut members = Vec::new();
    for inner in declared {
        match rows.iter().find(|row| row.0 == &*inner.name) {
            Some(row) => members.extend(plan_one(row, inner, name, offer, problems)),
            None => problems.push(unknown(name, &inner.name, rows.iter().map(|row| row.0))),
        }
    }
    Some(Planned { name: member.name.clone(), required: member.required, plan: Plan::Group(*group, members) })
}

fn plan_one(
    row: &Row,
    member: &Member,
    prefix: &str,
    offer: &Offer,
    problems: &mut Vec<Unoffered>,
) -> Option<Planned> {
    let (name, presence, offered, attribute) = *row;
    let path = join(prefix, name);
    check_presence(&path, presence, member, offer, problems);
    if let Some(wanted) = offered.differs(&member.shape, offer) {
        problems.push(Unoffered {
            message: format!("`{path}` is declared as {}, but it is {wanted}", member.shape),
            help: match (offered, &offer.subject_type) {
                (Offered::Subject, None) => "set the entity type of subjects in the configuration".to_owned(),
                _ => format!("declare `{name}: {wanted}`"),
            },
        });
        return None;
    }
    Some(Planned {
        name: member.name.clone(),
        required: member.required,
        plan: Plan::One(attribute, member.shape.clone()),
    })
}

fn check_presence(
    path: &str,
    presence: Presence,
    member: &Member,
    offer: &Offer,
    problems: &mut Vec<Unoffered>,
) {
    let why = match presence {
        _ if !member.required => return,
        Presence::Always => return,
        Presence::Sometimes => "a record may come without it",
        Presence::IfTransaction if offer.transaction => return,
        Presence::IfTransaction => "some route takes records without a `txn-token`",
        Presence::IfCountersignature if offer.countersignature => return,
        Presence::IfCountersignature => "some route takes records without a `countersignature`",
        Presence::IfValue if offer.value => return,
        Presence::IfValue => "some route maps no `value`",
    };
    let advice = match presence {
        Presence::IfTransaction => ", or require `transaction` on every route",
        Presence::IfCountersignature => ", or require `countersignature` on every route",
        Presence::IfValue => ", or map a `value` on every route",
        _ => "",
    };
    problems.push(Unoffered {
        message: format!("`{path}` is required, but {why}"),
        help: format!("declare it optional, `{}?`, and ask with `has`{advice}", member.name),
    });
}

fn unknown<'n>(prefix: &str, name: &str, offered: impl Iterator<Item = &'n str>) -> Unoffered {
    let place = if prefix.is_empty() { "a context".to_owned() } else { format!("`{prefix}`") };
    Unoffered {
        message: format!("the gate offers no `{}`", join(prefix, name)),
        help: format!("{place} can hold {}", list(offered)),
    }
}

pub(super) fn list<'n>(names: impl Iterator<Item = &'n str>) -> String {
    names.map(|name| format!("`{name}`")).collect::<Vec<_>>().join(", ")
}

fn join(prefix: &str, name: &str) -> String {
    if prefix.is_empty() { name.to_owned() } else { format!("{prefix}.{name}") }
}

fn build<'a>(
    members: &'a [Planned],
    prefix: &str,
    facts: &Facts<'a>,
    known: &Known<'a>,
) -> Result<Vec<(&'a str, Value<'a>)>, Mistyped> {
    let mut record = Vec::with_capacity(members.len());
    for member in members {
        let value = match &member.plan {
            Plan::One(attribute, shape) => attribute.value(shape, &member.name, prefix, facts, known)?,
            Plan::Group(group, members) if group.is_there(facts) => {
                let build = || Ok(Value::Record(build(members, &member.name, facts, known)?));
                let token = facts.transaction.as_ref().and_then(|transaction| transaction.token);
                Some(match token {
                    Some(token) if *group == Group::Transaction && !is_masked(&member.name, facts.mask) => {
                        known.made.get(token, members.as_ptr().addr(), known.times, build)?
                    }
                    _ => build()?,
                })
            }
            Plan::Group(..) => None,
        };
        match value {
            Some(value) => record.push((&*member.name, value)),
            // Only where the configuration promised what a record then has not, or where there is no record: fail closed.
            None if member.required => {
                let problem = match member.plan {
                    Plan::Group(Group::Message, _) => "is known of a record alone, and none is asked about",
                    _ => "is missing",
                };
                return Err(Mistyped { path: join(prefix, &member.name), problem: problem.to_owned() });
            }
            None => {}
        }
    }
    Ok(record)
}

/// Whether any path that is masked lies in this group.
fn is_masked(group: &str, mask: &[String]) -> bool {
    mask.iter()
        .any(|path| path.strip_prefix(group).is_some_and(|rest| rest.is_empty() || rest.starts_with('.')))
}

impl Group {
    fn is_there(self, facts: &Facts<'_>) -> bool {
        match self {
            Self::Provenance | Self::Request => true,
            Self::Message => facts.message.is_some(),
            Self::Transaction => facts.transaction.is_some(),
            Self::Workflow => facts.workflow.is_some(),
        }
    }
}

impl Attribute {
    fn value<'a>(
        self,
        shape: &'a Shape,
        name: &str,
        prefix: &str,
        facts: &Facts<'a>,
        known: &Known<'a>,
    ) -> Result<Option<Value<'a>>, Mistyped> {
        let (transaction, workflow) = (&facts.transaction, &facts.workflow);
        let message = facts.message.as_ref();
        let registered = workflow.as_ref().and_then(|workflow| workflow.registered);
        let path = || join(prefix, name);
        let text = |text: &'a str| Some(Value::Text(text.into()));
        let workload = |id: &str| known.workload.and_then(|kind| kind.entity(id)).map(Value::Entity);
        let at = |moment: UnixMillis| match is_datetime(moment) {
            true => Ok(Some(Value::Datetime(moment))),
            false => Err(Mistyped { path: path(), problem: "is outside of the years 0 to 9999".to_owned() }),
        };
        let seconds = |seconds: Option<f64>| match seconds {
            Some(seconds) => at(UnixMillis((seconds * 1000.0).round() as i64)),
            None => Ok(None),
        };
        let declared = |claim: Option<&'a Map<String, Json>>| match (claim, shape) {
            (Some(claim), Shape::Record(members)) => Value::of_members(claim, members, &mut path()).map(Some),
            _ => Ok(None),
        };
        Ok(match self {
            Self::Now => at(facts.now)?,
            Self::Sender => workload(facts.sender.as_str()),
            Self::Subject => match facts.subject {
                Some(subject) => match known.subject.and_then(|kind| kind.entity(subject.as_str())) {
                    Some(entity) => Some(Value::Entity(entity)),
                    None => {
                        return Err(Mistyped {
                            path: path(),
                            problem: "is no entity of its type".to_owned(),
                        });
                    }
                },
                None => None,
            },
            Self::Value => declared(facts.value)?,
            Self::Topic => message.and_then(|m| text(m.topic)),
            Self::Partition => message.map(|m| Value::Long(m.partition.0.into())),
            Self::Offset => message.map(|m| Value::Long(m.offset.0)),
            Self::AcceptedAt => match message {
                Some(message) => at(message.accepted)?,
                None => None,
            },
            Self::Queued => message.map(|m| Value::Duration(facts.now.0.saturating_sub(m.accepted.0))),
            // Only a redrive statement that verifies counts, and no record can carry one yet.
            Self::Redrives => message.map(|_| Value::Long(0)),
            Self::TransactionId => transaction.as_ref().and_then(|t| text(t.id)),
            Self::Scope => transaction
                .as_ref()
                .map(|t| Value::Set(t.scope.iter().map(|scope| Value::Text((*scope).into())).collect())),
            Self::Requester => transaction.as_ref().and_then(|t| text(t.requester)),
            Self::IssuedAt => seconds(transaction.as_ref().map(|t| t.issued_at))?,
            Self::ExpiresAt => seconds(transaction.as_ref().map(|t| t.expires_at))?,
            Self::Ip => transaction
                .as_ref()
                .and_then(|t| t.rctx?.get("req_ip")?.as_str()?.parse::<IpAddr>().ok())
                .map(|address| Value::Ip(address.to_canonical())),
            Self::Acr => transaction.as_ref().and_then(|t| t.acr).and_then(text),
            Self::Amr => transaction
                .as_ref()
                .and_then(|t| t.amr)
                .map(|amr| Value::Set(amr.iter().map(|means| Value::Text(means.as_str().into())).collect())),
            Self::AuthenticatedAt => seconds(transaction.as_ref().and_then(|t| t.auth_time))?,
            Self::Details => declared(transaction.as_ref().and_then(|t| t.tctx))?,
            Self::WorkflowId => workflow.as_ref().and_then(|w| text(w.id)),
            Self::WorkflowType => workflow.as_ref().and_then(|w| text(w.kind)),
            Self::Step => workflow.as_ref().and_then(|w| text(w.step)),
            Self::State => workflow.as_ref().and_then(|w| text(w.state)),
            Self::Attempt => match workflow.as_ref().and_then(|w| w.attempt).map(i64::try_from) {
                Some(Ok(attempt)) => Some(Value::Long(attempt)),
                Some(Err(_)) => return Err(Mistyped { path: path(), problem: "is too large".to_owned() }),
                None => None,
            },
            Self::StartedAt => seconds(workflow.as_ref().and_then(|w| w.started_at))?,
            Self::Deadline => seconds(workflow.as_ref().and_then(|w| w.deadline))?,
            Self::Registered => workflow.as_ref().map(|w| Value::Bool(w.registered.is_some())),
            Self::Status => registered.and_then(|found| text(found.status().as_str())),
            Self::Owner => registered.and_then(Found::live).and_then(|live| text(&live.owner)),
            Self::RegisteredStep => registered.and_then(Found::live).and_then(|live| text(&live.step)),
            Self::Proven => Some(Value::Bool(facts.provenance.proven)),
            Self::Gated => Some(Value::Bool(facts.provenance.from.is_some())),
            Self::From => facts.provenance.from.and_then(text),
            Self::Depth => i64::try_from(facts.provenance.senders.len()).ok().map(Value::Long),
            Self::Origin => workload(facts.provenance.senders.last().unwrap_or(facts.sender).as_str()),
            Self::Senders => {
                let senders = facts.provenance.senders.iter().map(|id| workload(id.as_str()));
                senders.collect::<Option<Vec<_>>>().map(Value::Set)
            }
            Self::ActionProperties => declared(facts.action_properties)?,
            Self::ResourceProperties => declared(facts.resource_properties)?,
        })
    }
}
