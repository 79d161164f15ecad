//! The contract's table of what a policy can see (section 10): every attribute with its type and whether it is always
//! there. Limits: the table alone; what an action declares of it is `context.rs`.

use super::facts::Offer;
use super::shape::Shape;

/// The entity type of workloads.
pub(in crate::authorize) const WORKLOAD: &str = "Workload";

/// Records that the gate makes of attributes.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Group {
    Message,
    Transaction,
    Workflow,
    Provenance,
    Request,
}

/// What the gate can say, one by one.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Attribute {
    Now,
    Sender,
    Subject,
    Value,
    Topic,
    Partition,
    Offset,
    AcceptedAt,
    Queued,
    Redrives,
    TransactionId,
    Scope,
    Requester,
    IssuedAt,
    ExpiresAt,
    Ip,
    Acr,
    Amr,
    AuthenticatedAt,
    Details,
    WorkflowId,
    WorkflowType,
    Step,
    State,
    Attempt,
    StartedAt,
    Deadline,
    Registered,
    Status,
    Owner,
    RegisteredStep,
    Proven,
    Gated,
    From,
    Depth,
    Origin,
    Senders,
    ActionProperties,
    ResourceProperties,
}

/// The type of an attribute as the contract's table has it.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Offered {
    Bool,
    Long,
    String,
    Datetime,
    Duration,
    Ip,
    Strings,
    Workload,
    Workloads,
    Subject,
    Declared,
}

/// Whether the attribute is always there (of a group: whenever the group is).
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Presence {
    Always,
    Sometimes,
    IfTransaction,
    IfCountersignature,
    IfValue,
}

pub(super) type Row = (&'static str, Presence, Offered, Attribute);

use Attribute as A;
use Offered as O;
use Presence::{Always, IfCountersignature, IfTransaction, IfValue, Sometimes};

pub(super) const TOP: &[Row] = &[
    ("now", Always, O::Datetime, A::Now),
    ("sender", Always, O::Workload, A::Sender),
    ("subject", IfTransaction, O::Subject, A::Subject),
    ("value", IfValue, O::Declared, A::Value),
];
pub(super) const GROUPS: &[(&str, Presence, Group, &[Row])] = &[
    (
        "message",
        Always,
        Group::Message,
        &[
            ("topic", Always, O::String, A::Topic),
            ("partition", Always, O::Long, A::Partition),
            ("offset", Always, O::Long, A::Offset),
            ("accepted_at", Always, O::Datetime, A::AcceptedAt),
            ("queued", Always, O::Duration, A::Queued),
            ("redrives", Always, O::Long, A::Redrives),
        ],
    ),
    (
        "transaction",
        IfTransaction,
        Group::Transaction,
        &[
            ("id", Always, O::String, A::TransactionId),
            ("scope", Always, O::Strings, A::Scope),
            ("requester", Always, O::String, A::Requester),
            ("issued_at", Always, O::Datetime, A::IssuedAt),
            ("expires_at", Always, O::Datetime, A::ExpiresAt),
            ("ip", Sometimes, O::Ip, A::Ip),
            ("acr", Sometimes, O::String, A::Acr),
            ("amr", Sometimes, O::Strings, A::Amr),
            ("authenticated_at", Sometimes, O::Datetime, A::AuthenticatedAt),
            ("details", Sometimes, O::Declared, A::Details),
        ],
    ),
    (
        "workflow",
        Sometimes,
        Group::Workflow,
        &[
            ("id", Always, O::String, A::WorkflowId),
            ("type", Always, O::String, A::WorkflowType),
            ("step", Always, O::String, A::Step),
            ("state", Always, O::String, A::State),
            ("attempt", Sometimes, O::Long, A::Attempt),
            ("started_at", Sometimes, O::Datetime, A::StartedAt),
            ("deadline", Sometimes, O::Datetime, A::Deadline),
            ("registered", Always, O::Bool, A::Registered),
            ("status", Sometimes, O::String, A::Status),
            ("owner", Sometimes, O::String, A::Owner),
            ("registered_step", Sometimes, O::String, A::RegisteredStep),
        ],
    ),
    (
        "provenance",
        Always,
        Group::Provenance,
        &[
            ("proven", Always, O::Bool, A::Proven),
            ("gated", Always, O::Bool, A::Gated),
            ("from", IfCountersignature, O::String, A::From),
            ("depth", Always, O::Long, A::Depth),
            ("origin", Always, O::Workload, A::Origin),
            ("senders", Always, O::Workloads, A::Senders),
        ],
    ),
    (
        "request",
        Always,
        Group::Request,
        &[
            ("action", Sometimes, O::Declared, A::ActionProperties),
            ("resource", Sometimes, O::Declared, A::ResourceProperties),
        ],
    ),
];

impl Offered {
    /// What the attribute is, if that is not what is declared.
    pub(super) fn differs(self, shape: &Shape, offer: &Offer) -> Option<String> {
        let workload = |shape: &Shape| matches!(shape, Shape::Entity(kind) if kind.text == WORKLOAD);
        let (same, name) = match self {
            Self::Bool => (matches!(shape, Shape::Bool), "Bool"),
            Self::Long => (matches!(shape, Shape::Long), "Long"),
            Self::String => (matches!(shape, Shape::String), "String"),
            Self::Datetime => (matches!(shape, Shape::Datetime), "datetime"),
            Self::Duration => (matches!(shape, Shape::Duration), "duration"),
            Self::Ip => (matches!(shape, Shape::Ip), "ipaddr"),
            Self::Strings => {
                (matches!(shape, Shape::Set(inner) if matches!(**inner, Shape::String)), "Set<String>")
            }
            Self::Workload => (workload(shape), WORKLOAD),
            Self::Workloads => (matches!(shape, Shape::Set(inner) if workload(inner)), "Set<Workload>"),
            Self::Subject => match (&offer.subject_type, shape) {
                (Some(wanted), Shape::Entity(kind)) if kind.text == *wanted => (true, ""),
                (Some(wanted), _) => (false, wanted.as_str()),
                (None, _) => (false, "of no type: none is configured"),
            },
            Self::Declared => (matches!(shape, Shape::Record(_)), "a record"),
        };
        (!same).then(|| name.to_owned())
    }
}
