//! A challenge: what is asked of whoever may approve, and what has become of it (contract, section 7). Limits: a plain
//! value, published anew at each change; its bytes are made in `wire`, and no token stands in it.

use std::fmt;

use serde::{Deserialize, Serialize};
use uuid::Uuid;

use crate::authorize::audit::{AuditAction, AuditResource, AuditWorkflow};
use crate::authorize::ids::{DecisionId, Partition, Topic};

/// What has become of a challenge.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Serialize, Deserialize)]
#[serde(into = "String", try_from = "String")]
pub enum Status {
    /// It waits for answers.
    Open,
    /// Enough have approved; the record is decided again next.
    Approved,
    /// Somebody who may has refused; the record is denied. Final.
    Refused,
    /// Nobody answered in time; the record is denied. Of one that was asked over HTTP also: the gate that asked has stopped,
    /// or nobody came for the approval. Final.
    Expired,
    /// The record was forwarded; over HTTP: the approval was used. Final.
    Released,
    /// The record was denied for another reason. Final.
    Denied,
    /// By the time it was answered the policies asked for another step-up: another challenge stands in its place. Final.
    Replaced,
}

impl Status {
    /// All of them.
    pub const ALL: [Self; 7] = [
        Self::Open,
        Self::Approved,
        Self::Refused,
        Self::Expired,
        Self::Released,
        Self::Denied,
        Self::Replaced,
    ];

    /// The name as it is published.
    pub fn as_str(self) -> &'static str {
        match self {
            Self::Open => "open",
            Self::Approved => "approved",
            Self::Refused => "refused",
            Self::Expired => "expired",
            Self::Released => "released",
            Self::Denied => "denied",
            Self::Replaced => "replaced",
        }
    }

    /// Whether answers still count.
    pub fn is_open(self) -> bool {
        self == Self::Open
    }
}

impl fmt::Display for Status {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.as_str())
    }
}

impl From<Status> for String {
    fn from(status: Status) -> Self {
        status.as_str().to_owned()
    }
}

impl TryFrom<String> for Status {
    type Error = UnknownStatus;

    fn try_from(text: String) -> Result<Self, UnknownStatus> {
        Self::ALL.into_iter().find(|status| status.as_str() == text).ok_or(UnknownStatus)
    }
}

/// A status that this version does not know.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
#[error("an unknown status of a challenge")]
pub struct UnknownStatus;

/// Who asked, and so who takes answers.
#[derive(Debug, Clone, PartialEq, Eq, Hash)]
pub enum Asker {
    /// The lane that owns the partition of this source topic.
    Lane(Topic),
    /// A gate's desk, for HTTP alone, as long as it keeps the audit tree of this id.
    Desk(Uuid),
}

/// What stands before the id of a desk. No topic has a colon in its name.
const OVER_HTTP: &str = "http:";

/// The id of a challenge: `<topic>:<partition>:<uuid>`, or `http:<desk>:<partition>:<uuid>` where it was asked over HTTP. So
/// whoever answers can read from it where answers are taken. The last uuid is the id of the decision that asked.
#[derive(Debug, Clone, PartialEq, Eq, Hash)]
pub struct ChallengeId {
    /// Who asked.
    pub asker: Asker,
    /// The partition of the answers topic in which answers are read: the source's own, or one that the desk chose.
    pub partition: Partition,
    /// The decision that asked.
    pub decision: DecisionId,
}

impl ChallengeId {
    /// Reads an id; `None` for anything that is not written exactly so.
    pub fn parse(text: &str) -> Option<Self> {
        let (rest, uuid) = text.rsplit_once(':')?;
        let (asker, partition) = rest.rsplit_once(':')?;
        let id = Self {
            asker: match asker.strip_prefix(OVER_HTTP) {
                Some(desk) => Asker::Desk(Uuid::try_parse(desk).ok()?),
                None => Asker::Lane(Topic::parse(asker).ok()?),
            },
            partition: Partition(partition.parse().ok().filter(|number| *number >= 0)?),
            decision: DecisionId(Uuid::try_parse(uuid).ok()?),
        };
        // `+1`, `01` and the other spellings of a uuid name nothing.
        (id.to_string() == text).then_some(id)
    }

    /// Whether it was asked by the lane of that partition.
    pub fn is_of(&self, topic: &Topic, partition: Partition) -> bool {
        self.partition == partition && matches!(&self.asker, Asker::Lane(of) if of == topic)
    }
}

impl fmt::Display for Asker {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Lane(topic) => topic.fmt(f),
            Self::Desk(desk) => write!(f, "{OVER_HTTP}{desk}"),
        }
    }
}

impl fmt::Display for ChallengeId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}:{}:{}", self.asker, self.partition, self.decision)
    }
}

/// A challenge as it stands. Moments are milliseconds since the Unix epoch; digests are base64url(SHA-256).
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct Challenge {
    /// [`ChallengeId`] as text.
    pub id: String,
    /// What has become of it.
    pub status: Status,
    /// When it came to stand so.
    pub changed_at: i64,
    /// The realm; `aud` of an answer.
    pub realm: String,
    /// The route that holds the record.
    pub route: String,
    /// The source topic; empty over HTTP.
    pub topic: String,
    /// The partition in which answers are read: the source's; over HTTP one of the answers topic of `[access]`.
    pub partition: i32,
    /// The held record's offset; -1 over HTTP.
    pub offset: i64,
    /// When it was asked.
    pub asked_at: i64,
    /// When the hold ends: an answer counts if the broker took it before that.
    pub hold_until: i64,
    /// How many must approve; 0 where only a login is asked for.
    pub approvals: i32,
    /// What is asked, by policy id.
    pub step_ups: Vec<Ask>,
    /// The verified sender.
    pub sender: String,
    /// Whom the Txn-Token names, as the id of the entity that policies see.
    pub subject: Option<String>,
    /// The senders before, newest first.
    pub chain: Vec<String>,
    /// `txn` of the Txn-Token.
    pub transaction: Option<String>,
    /// The action asked for.
    pub action: AuditAction,
    /// The resource asked for.
    pub resource: AuditResource,
    /// The workflow as the sender states it.
    pub workflow: Option<AuditWorkflow>,
    /// The digest of the request ([`super::request_digest`]): `digest` of an answer.
    pub digest: String,
    /// The answers that were counted, in their order.
    pub answers: Vec<CountedAnswer>,
    /// How many reminders were sent.
    pub reminders: i32,
    /// Once it has ended: the decision that ended it.
    pub decision_id: Option<String>,
    /// Once the record is denied: the reason.
    pub reason: Option<String>,
}

/// One step-up that a policy asks for.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct Ask {
    /// Its name, `@step_up`.
    pub name: String,
    /// The policy that asks.
    pub policy: String,
    /// A sentence for the person who answers: `@message` with the record's fields.
    pub message: String,
    /// How many must approve of this one, `@approvals`; 0 where only a fresh login of the subject discharges it.
    pub approvals: i32,
    /// How long an answer is good from the moment at which it was given, in seconds, `@grant`.
    pub grant_s: i32,
    /// How strong a login would do, `@acr`: values of `acr` separated by spaces (RFC 9470, `acr_values`).
    pub acr_values: Option<String>,
    /// How old a login may be, in seconds, `@max_age` (RFC 9470, `max_age`).
    pub max_age_s: Option<i64>,
}

impl Ask {
    /// Whether only a fresh login of the subject discharges it.
    pub fn is_of_login(&self) -> bool {
        self.approvals == 0
    }
}

/// An answer that was counted.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct CountedAnswer {
    /// The approver, as an entity.
    pub approver: String,
    /// `approve` or `refuse`.
    pub decision: String,
    /// The answer's own id.
    pub jti: String,
    /// When the broker took it.
    pub answered_at: i64,
    /// When it stops counting: the end of the grant.
    pub grant_until: i64,
    /// What the approver had to say, cut to 1,000 characters without control characters.
    pub comment: Option<String>,
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_id_has_one_spelling() {
        let text = "payments.commands:3:0190a6c0-0000-7000-8000-000000000001";
        let id = ChallengeId::parse(text).unwrap();
        assert_eq!(
            (&id.asker, id.partition, id.to_string().as_str()),
            (&Asker::Lane(Topic::parse("payments.commands").unwrap()), Partition(3), text)
        );
        assert!(id.is_of(&Topic::parse("payments.commands").unwrap(), Partition(3)));
        let of_desk = format!("http:{}:2:{}", Uuid::from_u128(7), Uuid::from_u128(8));
        let id = ChallengeId::parse(&of_desk).unwrap();
        assert_eq!((id.asker, id.partition), (Asker::Desk(Uuid::from_u128(7)), Partition(2)));
        for bad in [
            "",
            "a:1",
            "a:1:b",
            ":1:0190a6c0-0000-7000-8000-000000000001",
            "a:01:0190a6c0-0000-7000-8000-000000000001",
            "a:+1:0190a6c0-0000-7000-8000-000000000001",
            "a:1:0190A6C0-0000-7000-8000-000000000001",
            "a:1:0190a6c0000070008000000000000001",
            "a b:1:0190a6c0-0000-7000-8000-000000000001",
            "a:-1:0190a6c0-0000-7000-8000-000000000001",
            "http:0190a6c0000070008000000000000001:1:0190a6c0-0000-7000-8000-000000000001",
            "http:a:1:0190a6c0-0000-7000-8000-000000000001",
            "a:0190a6c0-0000-7000-8000-000000000001:1:0190a6c0-0000-7000-8000-000000000001",
        ] {
            assert_eq!(ChallengeId::parse(bad), None, "{bad}");
        }
    }

    #[test]
    fn a_status_has_one_name() {
        for status in Status::ALL {
            assert_eq!(Status::try_from(String::from(status)), Ok(status));
        }
        assert_eq!(Status::try_from("Open".to_owned()), Err(UnknownStatus));
    }
}
