//! What is known about a record when its policies are asked: plain facts, borrowed from what was verified. Limits: says
//! nothing about what a policy may see; that is the schema's word (`context.rs`).

use serde_json::{Map, Value};

use crate::authorize::ids::{Digest, Offset, Partition, TrustDomain, UnixMillis, WorkloadId};
use crate::authorize::standing::Found;

/// What every route of a gate always has to offer to its policies. A schema that requires more is refused.
#[derive(Debug, Clone, Default)]
pub struct Offer {
    /// Every route requires a `txn-token`, so `transaction` and the subject are always known.
    pub transaction: bool,
    /// Every route requires a `countersignature`, so `provenance.from` is always known.
    pub countersignature: bool,
    /// Every route's mapping takes a `value` from the record.
    pub value: bool,
    /// The entity type of subjects, where one is configured.
    pub subject_type: Option<String>,
}

/// All that is known about one record, or about what is asked without one. Moments are in milliseconds since 1970, NumericDates in seconds.
#[derive(Debug, Clone)]
pub struct Facts<'a> {
    /// When the gate decides.
    pub now: UnixMillis,
    /// The record; `None` where somebody asks about work that no record carries.
    pub message: Option<MessageFacts<'a>>,
    /// The workload that sent it, or that asks.
    pub sender: &'a WorkloadId,
    /// Whom the Txn-Token names.
    pub subject: Option<&'a SubjectId>,
    /// The Txn-Token.
    pub transaction: Option<TransactionFacts<'a>>,
    /// The workflow as the sender says.
    pub workflow: Option<WorkflowFacts<'a>>,
    /// Where the work comes from.
    pub provenance: ProvenanceFacts<'a>,
    /// The name of the action asked for.
    pub action: &'a str,
    /// The properties of the action, as claimed.
    pub action_properties: Option<&'a Map<String, Value>>,
    /// The AuthZEN type of the resource, which is its Cedar entity type.
    pub resource_type: &'a str,
    /// The id of the resource.
    pub resource_id: &'a str,
    /// The properties of the resource, as claimed.
    pub resource_properties: Option<&'a Map<String, Value>>,
    /// What the route's mapping took from the record.
    pub value: Option<&'a Map<String, Value>>,
    /// Dotted paths of the context that are written as `"***"`.
    pub mask: &'a [String],
}

/// The record itself.
#[derive(Debug, Clone)]
pub struct MessageFacts<'a> {
    /// The topic it stands on.
    pub topic: &'a str,
    /// Its partition.
    pub partition: Partition,
    /// Its offset.
    pub offset: Offset,
    /// When the broker took it (contract, section 3, *E*).
    pub accepted: UnixMillis,
}

/// The Txn-Token's claims (contract, section 2.3).
#[derive(Debug, Clone)]
pub struct TransactionFacts<'a> {
    /// The hash of the token where all of this is its own: what was made of it once is then made of it again. `None` where a
    /// part is of elsewhere.
    pub token: Option<Digest>,
    /// `txn`.
    pub id: &'a str,
    /// `scope`, split on spaces.
    pub scope: Vec<&'a str>,
    /// `req_wl`.
    pub requester: &'a str,
    /// `iat`, in seconds.
    pub issued_at: f64,
    /// `exp`, in seconds.
    pub expires_at: f64,
    /// `tctx`.
    pub tctx: Option<&'a Map<String, Value>>,
    /// `rctx`.
    pub rctx: Option<&'a Map<String, Value>>,
    /// `acr` of `rctx`, or of the login that was refreshed for a held record; so are the next two.
    pub acr: Option<&'a str>,
    /// `amr`.
    pub amr: Option<&'a [String]>,
    /// `auth_time`, in seconds.
    pub auth_time: Option<f64>,
}

/// The workflow, as the sender says and as its registry does (contract, section 5).
#[derive(Debug, Clone)]
pub struct WorkflowFacts<'a> {
    /// Its id.
    pub id: &'a str,
    /// Its type.
    pub kind: &'a str,
    /// The step.
    pub step: &'a str,
    /// The state.
    pub state: &'a str,
    /// The attempt, from 0.
    pub attempt: Option<u64>,
    /// When it began, in seconds.
    pub started_at: Option<f64>,
    /// When it must be done, in seconds.
    pub deadline: Option<f64>,
    /// The same as the registry has it; `None` where it is not registered.
    pub registered: Option<&'a Found>,
}

/// Where the work comes from (contract, sections 2.4 and 6).
#[derive(Debug, Clone)]
pub struct ProvenanceFacts<'a> {
    /// Whether the sender proved who it is.
    pub proven: bool,
    /// The topic that the countersignature was made out for, where there is one.
    pub from: Option<&'a str>,
    /// The senders before this one, newest first.
    pub senders: &'a [WorkloadId],
}

/// The entity id of a subject: its `sub`, with its trust domain before it where that is not the route's own, since a
/// `sub` is unique only within its domain (contract, section 2.3).
#[derive(Debug, Clone, PartialEq, Eq, Hash)]
pub struct SubjectId(String);

impl SubjectId {
    /// The id of `sub` of `domain` at a gate whose own trust domain is `home`.
    pub fn new(sub: &str, domain: &TrustDomain, home: &TrustDomain) -> Self {
        if domain == home { Self(sub.to_owned()) } else { Self(format!("{domain}/{sub}")) }
    }

    /// An id that was written down before.
    pub(in crate::authorize) fn known(id: &str) -> Self {
        Self(id.to_owned())
    }

    /// The id as it is written.
    pub fn as_str(&self) -> &str {
        &self.0
    }
}

/// Who is asked about as `principal`.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Principal<'a> {
    /// A workload: `Workload::"<identifier>"`.
    Workload(&'a WorkloadId),
    /// A subject: `<subject type>::"<id>"`.
    Subject(&'a SubjectId),
    /// Somebody of any type of the schema: `<kind>::"<id>"`.
    Entity {
        /// The entity type.
        kind: &'a str,
        /// The id within it.
        id: &'a str,
    },
}
