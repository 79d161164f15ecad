//! What gates tell work in flight, on the `signals` topic: security event tokens (RFC 8417), CAEP-shaped, signed with the
//! gate's key. A *signal* says that something was revoked, or that a workflow has ended or is suspended; a *heartbeat* says
//! how far the gate's view reached when it had told everything. Pure. Limits: a signal stops work, it allows none; what it
//! repeats of a control record was verified by the gate that signs it, and by nobody after.
//!
//! ```json
//! { "iss": "spiffe://example.org/gate/payments", "aud": "kafka://prod/countersign.signals", "iat": 1893456000,
//!   "jti": "<base64url(SHA-256(topic/partition/offset of the control record))>",
//!   "sub_id": { "format": "uri", "uri": "spiffe://example.org/agent/payer" },
//!   "events": { "https://schemas.openid.net/secevent/caep/event-type/session-revoked":
//!               { "event_timestamp": 1893455999.25, "reason_admin": { "und": "key lost" } } } }
//! ```
//!
//! `sub_id` (RFC 9493): a workload is a `uri`, a subject is `opaque`; for what RFC 9493 has no format, this project has
//! names of its own, each with a member `id`: `urn:countersign:subject:transaction`, `...:token`, `...:key`,
//! `...:workflow`, `...:trust_domain`. A transaction is named by `txn` as well.

mod facts;
mod read;
mod write;

#[cfg(test)]
mod tests;

use crate::authorize::ids::{Coordinates, Digest, UnixMillis, WorkloadId};
use crate::authorize::jose::{JwsError, SignError, sha256};
use crate::authorize::standing::{Status, Target};

pub use facts::{of_revocation, of_workflow};
pub use read::verify;
pub use write::sign;

/// `typ` of a security event token (RFC 8417, section 2.3).
pub const TYP: &str = "secevent+jwt";

/// CAEP 1.0, section 3.1.
const SESSION_REVOKED: &str = "https://schemas.openid.net/secevent/caep/event-type/session-revoked";
/// SSF 1.0, section 8.1.4.1: the transmitter shows that its stream is alive.
const VERIFICATION: &str = "https://schemas.openid.net/secevent/ssf/event-type/verification";
/// This project's own: `status` says how it ended.
const WORKFLOW_ENDED: &str = "urn:countersign:event-type:workflow-ended";
/// This project's own.
const WORKFLOW_SUSPENDED: &str = "urn:countersign:event-type:workflow-suspended";

/// The prefix of this project's own subject identifier formats (RFC 9493, section 3: a collision-resistant name).
const OWN_FORMAT: &str = "urn:countersign:subject:";

/// Code points of a reason. It is shown to people and logged by workers; a longer one is cut where it is written.
const MAX_REASON_CHARS: usize = 500;
/// Bytes of an identifier in `sub_id`: as long as a SPIFFE ID may be.
const MAX_ID_BYTES: usize = 2048;

/// What became of it. Dates are NumericDates, in seconds within ±2^53.
#[derive(Debug, Clone, Copy, PartialEq)]
pub enum Event {
    /// It was revoked.
    Revoked {
        /// Only what was issued before is revoked; `None` revokes whatever was issued.
        not_before: Option<f64>,
        /// The revocation's end: afterwards it is not in force.
        expires_at: Option<f64>,
    },
    /// The workflow stands like that, and so may do nothing: suspended, or ended. Never [`Status::Running`].
    Workflow(Status),
}

/// One thing that a control record names, as work in flight is told of it.
#[derive(Debug, Clone, PartialEq)]
pub struct Signal {
    /// [`signal_id`] of its place: the same whichever gate tells it.
    pub id: Digest,
    /// What it names. A subject is written as `SubjectId` writes it at the gate that signs.
    pub about: Target,
    /// What became of that.
    pub event: Event,
    /// When the gate that signs took the control record in.
    pub event_at: UnixMillis,
    /// Why, for a person: at most 500 code points, none of them a control character.
    pub reason: Option<String>,
}

/// That a gate was there, and has told everything it had read.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Heartbeat {
    /// Which gate process: its `instance`, or what stands for it.
    pub instance: String,
    /// The moment that its view of the control topics reached to (`toe`): everything written before was told before this.
    pub as_of: UnixMillis,
}

/// What a record of the signals topic says.
#[derive(Debug, Clone, PartialEq)]
pub enum Said {
    /// Work may have to stop.
    Signal(Signal),
    /// Nothing else happened until then.
    Heartbeat(Heartbeat),
}

/// A record of the signals topic, verified. Made by [`verify`] alone.
#[derive(Debug, Clone, PartialEq)]
pub struct Heard {
    /// The gate that signed it.
    pub gate: WorkloadId,
    /// `iat`.
    pub issued_at: UnixMillis,
    /// What it says.
    pub said: Said,
}

/// The id of the signal that tells of the control record at that place. A record that names several things gives several
/// signals: the first has the place's own id, the `nth` after it that of `topic/partition/offset/nth`.
pub fn signal_id(place: &Coordinates, nth: usize) -> Digest {
    match nth {
        0 => sha256(&[place.to_string().as_bytes()]),
        _ => sha256(&[format!("{place}/{nth}").as_bytes()]),
    }
}

/// The record's key: compaction keeps one record for each control record, and the last heartbeat of each gate.
pub fn key(said: &Said) -> String {
    match said {
        Said::Signal(signal) => signal.id.to_string(),
        Said::Heartbeat(heartbeat) => format!("heartbeat/{}", heartbeat.instance),
    }
}

/// Why bytes are no signal that counts, or none could be written. Never holds a part of the token.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum SignalError {
    /// More than 8 KiB.
    #[error("the signal is larger than a token may be")]
    TooLarge,
    /// Not a compact JWS of this type.
    #[error("the signal {0}")]
    Jws(#[from] JwsError),
    /// A member is absent, mistyped, too long, or none that a gate writes.
    #[error("the signal needs `{0}` as gates write it")]
    Member(&'static str),
    /// The record's key is not the one of what it says.
    #[error("the signal stands under another key than its own")]
    Key,
    /// Its `alg` is not allowed for the gate's trust domain, or is not its key's.
    #[error("the signal is signed with an algorithm that is not allowed")]
    Algorithm,
    /// The trust domain of `iss` is not configured, or has no such gate key.
    #[error("the signal is signed by nobody who is known as a gate")]
    Issuer,
    /// The signature does not hold.
    #[error("the signature of the signal does not hold")]
    Signature,
    /// It was made out for another topic or realm.
    #[error("the signal is made out for another topic or realm")]
    Audience,
    /// Its `iat` or `toe` is in the future, past the tolerance.
    #[error("the signal is from the future: a clock is wrong")]
    NotYetValid,
    /// The gate's key did not sign.
    #[error("the signal could not be signed: {0}")]
    Sign(#[from] SignError),
}
