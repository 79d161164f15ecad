//! What a record asks for: the action, the resource and the workflow of the contract, in AuthZEN's shapes, and the
//! mapping that finds them. Limits: nothing here knows who asks or whether they may; signatures were verified before.

mod bound;
mod inputs;
mod mapping;

use serde::{Deserialize, Deserializer, Serialize};
use serde_json::{Map, Value};

pub use mapping::{Evidence, Mapping, MappingError, MappingSource, TransactionClaims, Unfound};

use super::limits::{MAX_NUMERIC_DATE, MAX_SAFE_INTEGER};

/// An AuthZEN action (contract, section 2.2). Unknown members are ignored, a `null` member is mistyped.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct Action {
    /// The action's name; the id of the Cedar action.
    pub name: String,
    /// What else was said about it; `context.request.action` for policies.
    #[serde(default, deserialize_with = "present", skip_serializing_if = "Option::is_none")]
    pub properties: Option<Map<String, Value>>,
}

/// An AuthZEN resource (contract, section 2.2).
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct Resource {
    /// The resource's type (`type` in JSON); the Cedar entity type.
    #[serde(rename = "type")]
    pub kind: String,
    /// The resource's id within its type.
    pub id: String,
    /// What else was said about it; `context.request.resource` for policies, never an entity attribute.
    #[serde(default, deserialize_with = "present", skip_serializing_if = "Option::is_none")]
    pub properties: Option<Map<String, Value>>,
}

/// The workflow as the sender says it is (contract, section 5).
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct Workflow {
    /// The workflow's id.
    pub id: String,
    /// Its type (`type` in JSON).
    #[serde(rename = "type")]
    pub kind: String,
    /// The step that the sender is at.
    pub step: String,
    /// The state that the sender says it is in.
    pub state: String,
    /// Which attempt of the step this is, from 0, at most 2^53 - 1.
    #[serde(default, deserialize_with = "attempt", skip_serializing_if = "Option::is_none")]
    pub attempt: Option<u64>,
    /// When it began, a NumericDate within ±2^53 s.
    #[serde(default, deserialize_with = "numeric_date", skip_serializing_if = "Option::is_none")]
    pub started_at: Option<f64>,
    /// When it must be done, a NumericDate within ±2^53 s.
    #[serde(default, deserialize_with = "numeric_date", skip_serializing_if = "Option::is_none")]
    pub deadline: Option<f64>,
}

/// What is decided about: found by the route's [`Mapping`], never by the sender's word against the record's.
#[derive(Debug, Clone, PartialEq)]
pub struct Request {
    /// What is to be done.
    pub action: Action,
    /// To what.
    pub resource: Resource,
    /// As part of which workflow.
    pub workflow: Option<Workflow>,
    /// What the route's mapping took from the record, for `context.value`.
    pub value: Option<Map<String, Value>>,
}

/// A member that is there has its type: `null` is present and mistyped (contract, section 2).
fn present<'de, D: Deserializer<'de>, T: Deserialize<'de>>(from: D) -> Result<Option<T>, D::Error> {
    T::deserialize(from).map(Some)
}

fn attempt<'de, D: Deserializer<'de>>(from: D) -> Result<Option<u64>, D::Error> {
    let attempt = u64::deserialize(from)?;
    if attempt > MAX_SAFE_INTEGER.unsigned_abs() {
        return Err(serde::de::Error::custom("`attempt` is past 2^53 - 1"));
    }
    Ok(Some(attempt))
}

fn numeric_date<'de, D: Deserializer<'de>>(from: D) -> Result<Option<f64>, D::Error> {
    let date = f64::deserialize(from)?;
    // Written so that NaN, which no JSON holds but another deserializer might, is refused as well.
    if date.abs() <= MAX_NUMERIC_DATE {
        Ok(Some(date))
    } else {
        Err(serde::de::Error::custom("a date is past 2^53 s"))
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::{from_value, json, to_value};

    #[test]
    fn requests_keep_their_json_shape() {
        for action in [json!({"name": "pay"}), json!({"name": "pay", "properties": {"amount": 7}})] {
            assert_eq!(to_value(from_value::<Action>(action.clone()).unwrap()).unwrap(), action);
        }
        let resource = json!({"type": "Invoice", "id": "inv-7", "properties": {"deep": [1, 2.5, null]}});
        assert_eq!(to_value(from_value::<Resource>(resource.clone()).unwrap()).unwrap(), resource);
        let workflow =
            json!({"id": "w", "type": "t", "step": "s", "state": "running", "attempt": 0, "deadline": 1.5});
        assert_eq!(to_value(from_value::<Workflow>(workflow.clone()).unwrap()).unwrap(), workflow);
    }

    #[test]
    fn null_and_mistyped_members_are_refused_and_unknown_ones_ignored() {
        for bad in [
            json!({"name": null}),
            json!({"name": "pay", "properties": null}),
            json!({"name": 7}),
            json!({"properties": {}}),
            json!("pay"),
        ] {
            assert!(from_value::<Action>(bad.clone()).is_err(), "{bad}");
        }
        assert!(from_value::<Action>(json!({"name": "pay", "other": null})).is_ok());
        let base = json!({"id": "w", "type": "t", "step": "s", "state": "running"});
        for (member, bad) in [
            ("attempt", json!(null)),
            ("attempt", json!(-1)),
            ("attempt", json!(1.0)),
            ("attempt", json!(9_007_199_254_740_992_u64)),
            ("deadline", json!("1")),
            ("deadline", json!(null)),
            ("started_at", json!(9_007_199_254_740_994_u64)),
        ] {
            let mut workflow = base.clone();
            workflow[member] = bad;
            assert!(from_value::<Workflow>(workflow.clone()).is_err(), "{workflow}");
        }
    }
}
