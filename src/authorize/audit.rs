//! The audit record of one decision: who asked for what, what was found, which policy decided, and where the record
//! stood (contract, section 9). Limits: a plain value; its bytes are made in `wire`, and no token ever stands in it.

use serde::{Deserialize, Serialize};

use super::ids::Digest;
use super::text::Text;

/// One decision, as auditors read it. Moments are milliseconds since the Unix epoch; digests are base64url(SHA-256);
/// what could not be established before the record was denied is `None` or empty, never guessed from unverified claims.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct AuditRecord {
    /// The decision's id, a UUIDv7; `jti` of the countersignature where one was made.
    pub decision_id: String,
    /// `forward`, `deny`, `hold`, `wait`, `answer` or `allow`.
    pub outcome: Text,
    /// The reason of a denial (contract, section 8).
    pub reason: Option<Text>,
    /// The sentence that goes with it.
    pub detail: Option<String>,
    /// The realm of the cluster.
    pub realm: Text,
    /// The source topic; empty where it was asked over HTTP.
    pub topic: Text,
    /// The source partition; -1 where it was asked over HTTP.
    pub partition: i32,
    /// The source offset; -1 where it was asked over HTTP. Of an answer: the held record's, or -1 where it names none.
    pub offset: i64,
    /// The record's own timestamp.
    pub timestamp: Option<i64>,
    /// Who set it: `LogAppendTime`, `CreateTime` or `NoTimestampType`.
    pub timestamp_type: Text,
    /// *E*, the moment at which authenticity was judged.
    pub accepted: i64,
    /// *N*, the moment at which authority was judged.
    pub decided: i64,
    /// The gate that decided.
    pub gate: Text,
    /// The route by which it decided.
    pub route: Text,
    /// The verified sender.
    pub sender: Option<Text>,
    /// Whether the sender proved itself; false on the word of the topic's access control alone.
    pub proven: bool,
    /// `sub` of the verified Txn-Token.
    pub subject: Option<Text>,
    /// The trust domain in which `subject` is unique.
    pub subject_domain: Option<Text>,
    /// The senders before this one, newest first, from the verified countersignature.
    pub chain: Vec<Text>,
    /// The topic that the incoming countersignature was made out for.
    pub continues_from: Option<Text>,
    /// `txn` of the verified Txn-Token.
    pub transaction: Option<Text>,
    /// Its `scope`, sorted.
    pub scope: Vec<Text>,
    /// The action decided about.
    pub action: Option<AuditAction>,
    /// The resource decided about.
    pub resource: Option<AuditResource>,
    /// The workflow as the sender states it.
    pub workflow: Option<AuditWorkflow>,
    /// The workflow as the registry has it.
    pub registered: Option<AuditRegistered>,
    /// The context as evaluated, as JSON text, configured paths masked.
    pub context: Option<String>,
    /// The paths that were masked.
    pub masked: Vec<String>,
    /// The determining policies, sorted by id.
    pub policies: Vec<Text>,
    /// The policies that errored.
    pub errors: Vec<AuditError>,
    /// The step-ups that policies asked for, sorted by policy id.
    pub step_ups: Vec<String>,
    /// The challenge that this decision published, answered, or ended.
    pub challenge: Option<String>,
    /// When the hold ends, where one was begun.
    pub hold_until: Option<i64>,
    /// The policies whose step-up was discharged by valid answers, sorted by id.
    pub discharged: Vec<String>,
    /// The approvers whose answers were counted, as entities, sorted.
    pub approvers: Vec<String>,
    /// The answer that was taken in.
    pub answer: Option<AuditAnswer>,
    /// `X-Request-ID` of what was asked over HTTP.
    pub request_id: Option<String>,
    /// The digest of the policy bundle in force.
    pub bundle: Text,
    /// Its version, where it names one.
    pub bundle_version: Option<Text>,
    /// What the gate had read of each thing it watches.
    pub control: Vec<AuditControl>,
    /// The hash of each token that the record carried.
    pub token_hashes: Vec<AuditTokenHash>,
    /// The digest of the key; `None` is null.
    pub key_digest: Option<Text>,
    /// The digest of the value; `None` is null.
    pub value_digest: Option<Text>,
    /// The trace id of a well-formed `traceparent`; correlation only, never evidence.
    pub trace_id: Option<String>,
    /// The place of this record in the audit tree of the source partition, from 0.
    pub leaf_index: i64,
}

/// An AuthZEN action, its properties as JSON text.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct AuditAction {
    /// Its name.
    pub name: String,
    /// Its properties, as JSON text.
    pub properties: Option<String>,
}

/// An AuthZEN resource, its properties as JSON text.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct AuditResource {
    /// Its type.
    #[serde(rename = "type")]
    pub kind: String,
    /// Its id.
    pub id: String,
    /// Its properties, as JSON text.
    pub properties: Option<String>,
}

/// A workflow (contract, section 5).
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct AuditWorkflow {
    /// Its id.
    pub id: String,
    /// Its type.
    #[serde(rename = "type")]
    pub kind: String,
    /// The step it is at.
    pub step: String,
    /// Its state.
    pub state: String,
    /// The attempt, from 0.
    pub attempt: Option<i64>,
    /// When it started, in seconds since the Unix epoch.
    pub started_at: Option<f64>,
    /// When it must be done, in seconds since the Unix epoch.
    pub deadline: Option<f64>,
}

/// A workflow as the registry has it; only the status of one that is remembered by its end alone.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct AuditRegistered {
    /// `running`, `suspended`, `completed`, `cancelled` or `failed`.
    pub status: String,
    /// The step it is at.
    pub step: Option<String>,
    /// Its owner.
    pub owner: Option<String>,
    /// The registry's version of it.
    pub version: Option<i64>,
}

/// An answer to a challenge, as it was taken in.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct AuditAnswer {
    /// `counted`, or why it changed nothing.
    pub effect: String,
    /// The verified approver, as an entity.
    pub approver: Option<String>,
    /// `approve` or `refuse`.
    pub decision: Option<String>,
    /// The answer's own id.
    pub jti: Option<String>,
    /// Its offset in the answers topic, in the partition of the source.
    pub offset: Option<i64>,
}

/// A policy that errored while it was evaluated.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct AuditError {
    /// The policy's id.
    pub policy: String,
    /// Cedar's message.
    pub message: String,
}

/// The version of one watched thing: `trust`, `policy`, `entities`, `workflows`, `revocations`.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct AuditControl {
    /// Which thing.
    pub name: Text,
    /// The digest of its content; for what is followed in a topic `partition:position`, comma-separated.
    pub version: Text,
}

/// The hash of one token header.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct AuditTokenHash {
    /// The header's canonical name; `login` for the fresh Txn-Token by whose login was decided.
    pub header: Text,
    /// base64url(SHA-256(value)).
    pub sha256: Text,
}

impl AuditTokenHash {
    /// The hash of what stands under that name.
    pub(super) fn new(header: &'static str, hash: Digest) -> Self {
        Self { header: Text::fixed(header), sha256: hash.text() }
    }
}
