//! The digest that binds an answer to one request (contract, section 7): SHA-256 over the RFC 8785 form of what is asked.
//! Limits: it says what was asked, never whether it may be.

use serde_json::{Value, json};

use super::canonical::canonical;
use crate::authorize::ids::Digest;
use crate::authorize::jose::sha256;
use crate::authorize::request::{Action, Resource, Workflow};

/// What an answer is bound to.
#[derive(Debug, Clone, Copy)]
pub struct Asked<'a> {
    /// The route's name.
    pub route: &'a str,
    /// The verified sender.
    pub sender: &'a str,
    /// The subject, as the id of the entity that policies see.
    pub subject: Option<&'a str>,
    /// `txn` of the Txn-Token.
    pub txn: Option<&'a str>,
    /// The action.
    pub action: &'a Action,
    /// The resource.
    pub resource: &'a Resource,
    /// The workflow as the sender states it.
    pub workflow: Option<&'a Workflow>,
    /// The digest of the record's key.
    pub key: Option<Digest>,
    /// The digest of the record's value.
    pub value: Option<Digest>,
    /// The names of the step-ups, sorted, none twice.
    pub step_ups: &'a [String],
}

/// `digest` of an answer to such a request. What is absent is `null`.
///
/// `None` where it has no canonical form: a number that is not finite, which no JSON can hold.
pub fn request_digest(asked: &Asked<'_>) -> Option<Digest> {
    let text = |digest: Option<Digest>| digest.map(|digest| digest.to_string());
    let value: Value = json!({
        "route": asked.route,
        "sender": asked.sender,
        "subject": asked.subject,
        "txn": asked.txn,
        "action": serde_json::to_value(asked.action).ok()?,
        "resource": serde_json::to_value(asked.resource).ok()?,
        "workflow": serde_json::to_value(asked.workflow).ok()?,
        "key": text(asked.key),
        "value": text(asked.value),
        "step_ups": asked.step_ups,
    });
    Some(sha256(&[canonical(&value)?.as_bytes()]))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_part_counts_and_what_is_absent_is_null() {
        let action = |name: &str| Action { name: name.to_owned(), properties: None };
        let (pay, read) = (action("pay"), action("read"));
        let resource = Resource { kind: "Invoice".to_owned(), id: "inv-7".to_owned(), properties: None };
        let other = Resource { id: "inv-8".to_owned(), ..resource.clone() };
        let workflow: Workflow =
            serde_json::from_value(json!({"id": "w", "type": "t", "step": "s", "state": "running"})).unwrap();
        let names = ["manager".to_owned()];
        let more = ["manager".to_owned(), "officer".to_owned()];
        let plain = Asked {
            route: "payments",
            sender: "spiffe://example.org/agent/payer",
            subject: Some("alice"),
            txn: Some("txn-1"),
            action: &pay,
            resource: &resource,
            workflow: None,
            key: None,
            value: Some(sha256(&[b"{}"])),
            step_ups: &names,
        };
        let all = [
            plain,
            Asked { route: "other", ..plain },
            Asked { sender: "spiffe://example.org/agent/other", ..plain },
            Asked { subject: None, ..plain },
            Asked { txn: None, ..plain },
            Asked { action: &read, ..plain },
            Asked { resource: &other, ..plain },
            Asked { workflow: Some(&workflow), ..plain },
            Asked { key: Some(sha256(&[b""])), ..plain },
            Asked { value: None, ..plain },
            Asked { step_ups: &more, ..plain },
        ];
        let digests: std::collections::BTreeSet<_> = all.iter().map(|a| request_digest(a).unwrap()).collect();
        assert_eq!(digests.len(), all.len());
        let text = format!(
            "{{\"action\":{{\"name\":\"pay\"}},\"key\":null,\"resource\":{{\"id\":\"inv-7\",\"type\":\"Invoice\"}},\
             \"route\":\"payments\",\"sender\":\"spiffe://example.org/agent/payer\",\"step_ups\":[\"manager\"],\
             \"subject\":\"alice\",\"txn\":\"txn-1\",\"value\":\"{}\",\"workflow\":null}}",
            sha256(&[b"{}"])
        );
        assert_eq!(request_digest(&plain), Some(sha256(&[text.as_bytes()])));
    }
}
