//! A signal or a heartbeat to the token that stands on the topic. Limits: it signs what it is given.

use serde_json::{Map, Value, json};

use super::{
    Event, Heartbeat, MAX_REASON_CHARS, OWN_FORMAT, SESSION_REVOKED, Said, Signal, SignalError, TYP,
    VERIFICATION, WORKFLOW_ENDED, WORKFLOW_SUSPENDED,
};
use crate::authorize::ids::{Topic, UnixMillis};
use crate::authorize::jose::sha256;
use crate::authorize::limits::MAX_TOKEN_BYTES;
use crate::authorize::route::Gate;
use crate::authorize::standing::{Kind, Status, Target};

/// Signs what is said as `gate`, for that topic of its realm, at `now`.
///
/// # Errors
/// The gate's key does not sign, or the token would pass 8 KiB.
pub fn sign(said: &Said, gate: &Gate, topic: &Topic, now: UnixMillis) -> Result<String, SignalError> {
    let mut claims = match said {
        Said::Signal(signal) => of_signal(signal),
        Said::Heartbeat(heartbeat) => of_heartbeat(heartbeat, now),
    };
    claims.insert("iss".into(), gate.id.as_str().into());
    claims.insert("aud".into(), gate.realm.audience(topic).into());
    claims.insert("iat".into(), now.whole_seconds().into());
    let token = gate.key.sign_typ(TYP, &claims)?;
    if token.len() > MAX_TOKEN_BYTES { Err(SignalError::TooLarge) } else { Ok(token) }
}

fn of_signal(signal: &Signal) -> Map<String, Value> {
    let mut event = Map::new();
    event.insert("event_timestamp".into(), signal.event_at.as_seconds().into());
    let name = match signal.event {
        Event::Revoked { not_before, expires_at } => {
            for (name, date) in [("not_before", not_before), ("expires_at", expires_at)] {
                date.and_then(|date| event.insert(name.into(), date.into()));
            }
            SESSION_REVOKED
        }
        Event::Workflow(Status::Suspended) => WORKFLOW_SUSPENDED,
        Event::Workflow(status) => {
            event.insert("status".into(), status.as_str().into());
            WORKFLOW_ENDED
        }
    };
    if let Some(reason) = &signal.reason {
        let reason: String = reason.chars().filter(|c| !c.is_control()).take(MAX_REASON_CHARS).collect();
        // A language map; nobody said which language it is (BCP 47, `und`).
        event.insert("reason_admin".into(), json!({ "und": reason }));
    }
    let mut claims = Map::new();
    claims.insert("jti".into(), signal.id.to_string().into());
    claims.insert("sub_id".into(), sub_id(&signal.about));
    if signal.about.kind == Kind::Transaction {
        claims.insert("txn".into(), (*signal.about.id).into());
    }
    claims.insert("events".into(), Value::Object(Map::from_iter([(name.into(), Value::Object(event))])));
    claims
}

fn of_heartbeat(heartbeat: &Heartbeat, now: UnixMillis) -> Map<String, Value> {
    let unique = format!("{}/{}/{}", heartbeat.instance, heartbeat.as_of.0, now.0);
    let mut claims = Map::new();
    claims.insert("jti".into(), sha256(&[unique.as_bytes()]).to_string().into());
    claims.insert("toe".into(), heartbeat.as_of.as_seconds().into());
    claims.insert("sub_id".into(), json!({ "format": "opaque", "id": heartbeat.instance }));
    claims.insert("events".into(), json!({ VERIFICATION: {} }));
    claims
}

fn sub_id(about: &Target) -> Value {
    let id = &about.id;
    match about.kind {
        Kind::Workload => json!({ "format": "uri", "uri": id }),
        Kind::Subject => json!({ "format": "opaque", "id": id }),
        other => json!({ "format": format!("{OWN_FORMAT}{}", other.as_str()), "id": id }),
    }
}
