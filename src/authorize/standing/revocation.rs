//! What a revocation is: whom or what it names, what was issued when, and how it ends. Limits: it is believed here; its
//! signature was verified by `statement`.

use std::fmt;

use crate::authorize::ids::UnixMillis;

/// What a revocation may name.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub enum Kind {
    /// A workload, by its identifier: as sender, as earlier sender, as the gate that countersigned.
    Workload,
    /// A subject, by its entity id ([`SubjectId`](crate::authorize::policy::SubjectId)).
    Subject,
    /// A transaction, by its `txn`.
    Transaction,
    /// A token, by its `jti`.
    Token,
    /// A workflow, by its id.
    Workflow,
    /// A key, by its `kid`: every token that it signed.
    Key,
    /// A trust domain: of the sender, of an earlier one, of the subject, of the gate that countersigned.
    TrustDomain,
}

impl Kind {
    /// All of them.
    pub const ALL: [Self; 7] = [
        Self::Workload,
        Self::Subject,
        Self::Transaction,
        Self::Token,
        Self::Workflow,
        Self::Key,
        Self::TrustDomain,
    ];

    /// The word for it in an administrative revocation.
    pub fn as_str(self) -> &'static str {
        match self {
            Self::Workload => "workload",
            Self::Subject => "subject",
            Self::Transaction => "transaction",
            Self::Token => "token",
            Self::Workflow => "workflow",
            Self::Key => "key",
            Self::TrustDomain => "trust_domain",
        }
    }

    /// The kind of that word.
    pub fn parse(text: &str) -> Option<Self> {
        Self::ALL.into_iter().find(|kind| kind.as_str() == text)
    }
}

/// One thing that is named: compared byte for byte.
#[derive(Debug, Clone, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct Target {
    /// What it is.
    pub kind: Kind,
    /// Its id.
    pub id: Box<str>,
}

impl fmt::Display for Target {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{} {}", self.kind.as_str(), self.id)
    }
}

/// Who revokes.
#[derive(Debug, Clone, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub enum Authority {
    /// An administrator, by a key of the configured set.
    Administrator,
    /// A transmitter of security events, by its `iss`.
    Transmitter(Box<str>),
}

/// What is revoked of the things that are named.
#[derive(Debug, Clone, Copy, PartialEq)]
pub enum Effect {
    /// Whatever was issued before that moment, a NumericDate in seconds; everything where there is none.
    Revokes {
        /// `not_before`.
        not_before: Option<f64>,
    },
    /// An account is disabled since that moment: everything, until the same transmitter enables it.
    Disables {
        /// When it was.
        at: f64,
    },
    /// An account is enabled at that moment: what the same transmitter disabled before is no longer disabled.
    Enables {
        /// When it was.
        at: f64,
    },
}

/// A revocation as somebody with the right to it has stated it.
#[derive(Debug, Clone, PartialEq)]
pub struct Revocation {
    /// Its id: `jti`, which is also the key of its record.
    pub id: Box<str>,
    /// Who revokes.
    pub authority: Authority,
    /// Everything that it names.
    pub targets: Box<[Target]>,
    /// What it does to that.
    pub effect: Effect,
    /// `iat`, in seconds: an older statement never takes the place of a newer one of the same id.
    pub issued_at: f64,
    /// Its end, in seconds: at that moment it is still in force.
    pub expires_at: Option<f64>,
    /// What kind of event it was, or `revocation` for the administrative form.
    pub event: Box<str>,
    /// Why, in a person's words.
    pub reason: Option<Box<str>>,
    /// The transaction in which it came about (`txn` of a SET): for correlation, nothing is revoked by it.
    pub transaction: Option<Box<str>>,
}

impl Revocation {
    /// Whether its end has come.
    pub fn has_expired(&self, now: UnixMillis) -> bool {
        self.expires_at.is_some_and(|end| now.as_seconds() > end)
    }

    /// Whether it reaches what was issued then; what does not say when counts as older than everything.
    pub(super) fn reaches(&self, issued_at: Option<f64>) -> bool {
        match self.effect {
            Effect::Revokes { not_before: None } | Effect::Disables { .. } => true,
            Effect::Revokes { not_before: Some(moment) } => issued_at.is_none_or(|issued| issued < moment),
            Effect::Enables { .. } => false,
        }
    }

    /// Whether this statement, at its word, takes back that one.
    pub(super) fn takes_back(&self, other: &Self) -> bool {
        match (self.effect, other.effect) {
            (Effect::Enables { at }, Effect::Disables { at: before }) => {
                self.authority == other.authority && at >= before
            }
            _ => false,
        }
    }
}
