//! One outcome, for a person or a program. Limits: whatever a record holds is shown without control characters, since a
//! terminal would obey them.

use std::fmt;

use serde::Serialize;

use super::Watched;
use crate::authorize::ids::WorkloadId;
use crate::authorize::record::Record;
use crate::authorize::request::{Action, Resource, Workflow};
use crate::cli::output::plain;
use crate::worker::Verifier;

/// What became of a record, as the topic that it is read from says.
#[derive(Debug, Serialize)]
#[serde(tag = "outcome", rename_all = "snake_case")]
pub enum Outcome {
    /// Forwarded, and its countersignature holds.
    Forwarded(Box<Forwarded>),
    /// It stands on a destination topic, and its countersignature does not hold: no gate that is trusted let it through.
    Unverified {
        /// `topic/partition/offset`.
        at: String,
        /// The key, as text.
        key: Option<String>,
        /// The reason's code.
        reason: &'static str,
        /// The reason in words.
        detail: String,
    },
    /// Denied, as the dead letter says.
    Denied(Box<Denied>),
}

/// A record that was let through.
#[derive(Debug, Serialize)]
pub struct Forwarded {
    at: String,
    key: Option<String>,
    sender: String,
    earlier_senders: Vec<String>,
    subject: Option<String>,
    transaction: Option<String>,
    action: Action,
    resource: Resource,
    workflow: Option<Workflow>,
    gate: String,
    decision: String,
    policy: String,
    source: String,
}

/// A dead letter, by its headers.
#[derive(Debug, Serialize)]
pub struct Denied {
    at: String,
    key: Option<String>,
    reason: String,
    detail: Option<String>,
    policies: Vec<String>,
    decision: Option<String>,
    source: Option<String>,
}

impl Outcome {
    /// The outcome that a record is.
    pub fn of(record: &Record, watched: &Watched, verifier: &Verifier) -> Self {
        let at = record.source.to_string();
        let key = record.key.as_deref().map(text);
        if watched.denied.contains(&record.source.topic) {
            return Self::Denied(Box::new(Denied::read(record, at, key)));
        }
        match verifier.verify(record) {
            Ok(received) => Self::Forwarded(Box::new(Forwarded {
                at,
                key,
                sender: received.sender.to_string(),
                earlier_senders: received.earlier_senders.iter().map(WorkloadId::to_string).collect(),
                subject: received.transaction.as_ref().map(|t| t.subject.to_string()),
                transaction: received.transaction.map(|t| t.id.to_string()),
                action: received.action,
                resource: received.resource,
                workflow: received.workflow,
                gate: received.gate.to_string(),
                decision: received.decision,
                policy: received.policy,
                source: received.source,
            })),
            Err(denial) => {
                Self::Unverified { at, key, reason: denial.reason.as_str(), detail: denial.detail }
            }
        }
    }
}

impl Denied {
    fn read(record: &Record, at: String, key: Option<String>) -> Self {
        let header = |name: &str| {
            // The gate writes its own headers last, after whatever the record had.
            let found = record.headers.iter().rev().find(|header| header.name == name.as_bytes());
            found.and_then(|header| header.value.as_deref()).map(text)
        };
        let parts = ["original-topic", "original-partition", "original-offset"].map(header);
        let source = parts.into_iter().collect::<Option<Vec<_>>>().map(|parts| parts.join("/"));
        let policies = header("denied-policies").unwrap_or_default();
        Self {
            at,
            key,
            reason: header("denied-reason").unwrap_or_else(|| "unknown".to_owned()),
            detail: header("denied-detail"),
            policies: policies.split(',').filter(|id| !id.is_empty()).map(str::to_owned).collect(),
            decision: header("decision-id"),
            source,
        }
    }
}

impl fmt::Display for Outcome {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Forwarded(to) => {
                write!(f, "forwarded   {}  {}", plain(&to.at), plain(&to.action.name))?;
                write!(f, " {}::{:?}", plain(&to.resource.kind), plain(&to.resource.id))?;
                write!(f, "  by {}", plain(&to.sender))?;
                for sender in &to.earlier_senders {
                    write!(f, " after {}", plain(sender))?;
                }
                if let Some(subject) = &to.subject {
                    write!(f, " for {}", plain(subject))?;
                }
                write!(f, "  decision {}", plain(&to.decision))
            }
            Self::Unverified { at, reason, detail, .. } => {
                write!(f, "UNVERIFIED  {}  {reason}: {}", plain(at), plain(detail))
            }
            Self::Denied(to) => {
                write!(f, "denied      {}  {}", plain(&to.at), plain(&to.reason))?;
                if let Some(detail) = &to.detail {
                    write!(f, ": {}", plain(detail))?;
                }
                if !to.policies.is_empty() {
                    write!(f, " [{}]", plain(&to.policies.join(", ")))?;
                }
                if let Some(source) = &to.source {
                    write!(f, "  from {}", plain(source))?;
                }
                Ok(())
            }
        }
    }
}

fn text(bytes: &[u8]) -> String {
    String::from_utf8_lossy(bytes).into_owned()
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::authorize::ids::{Coordinates, Offset, Partition, Realm, Topic};
    use crate::authorize::record::{Header, TimestampType};
    use crate::authorize::trust::Trust;

    fn shown(topic: &str, headers: Vec<Header>) -> (String, serde_json::Value) {
        let topic = Topic::parse(topic).unwrap();
        let record = Record {
            source: Coordinates { topic, partition: Partition(1), offset: Offset(2) },
            timestamp: None,
            timestamp_type: TimestampType::NotAvailable,
            key: Some("k\u{1b}".into()),
            value: None,
            headers,
        };
        let topics = |name: &str| [Topic::parse(name).unwrap()].into();
        let watched = Watched { authorized: topics("to"), denied: topics("denied") };
        let verifier = Verifier::new(Realm::parse("test").unwrap(), Trust::new([].into()));
        let outcome = Outcome::of(&record, &watched, &verifier);
        (outcome.to_string(), serde_json::to_value(&outcome).unwrap())
    }

    #[test]
    fn a_dead_letter_is_read_from_the_headers_that_the_gate_wrote() {
        let headers = vec![
            Header::new("denied-reason", "allowed"),
            Header::new("denied-reason", "forbidden"),
            Header::new("denied-detail", "the invoice\u{1b}[31m is \u{202e}frozen"),
            Header::new("denied-policies", "frozen,limit"),
            Header::new("original-topic", "from"),
            Header::new("original-partition", "0"),
            Header::new("original-offset", "17"),
        ];
        let (line, json) = shown("denied", headers);
        let expected =
            "denied      denied/1/2  forbidden: the invoice\u{fffd}[31m is \u{fffd}frozen [frozen, limit]";
        assert_eq!(line, format!("{expected}  from from/0/17"));
        assert_eq!((&json["outcome"], &json["policies"][1]), (&"denied".into(), &"limit".into()));
    }

    #[test]
    fn a_record_that_no_gate_vouches_for_is_not_an_outcome() {
        let (line, json) = shown("to", Vec::new());
        assert!(line.starts_with("UNVERIFIED  to/1/2  context_missing: "), "{line}");
        assert_eq!(json["outcome"], "unverified");
    }
}
