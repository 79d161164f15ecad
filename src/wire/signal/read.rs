//! A record of the signals topic to what it says, verified. Limits: whether it concerns a piece of work is the worker's to
//! find out.

use serde_json::{Map, Value};

use super::{
    Event, Heard, Heartbeat, MAX_ID_BYTES, MAX_REASON_CHARS, OWN_FORMAT, SESSION_REVOKED, Said, Signal,
    SignalError, TYP, VERIFICATION, WORKFLOW_ENDED, WORKFLOW_SUSPENDED, key,
};
use crate::authorize::ids::{Digest, Realm, Topic, TrustDomain, UnixMillis, WorkloadId};
use crate::authorize::jose::{Algorithm, Jws, KeyChoice};
use crate::authorize::json;
use crate::authorize::limits::{MAX_NUMERIC_DATE, MAX_TOKEN_BYTES};
use crate::authorize::standing::{Kind, Status, Target};
use crate::authorize::trust::Trust;

/// Verifies the record with that key and value of `topic` in `realm`: form, gate, signature, audience, and that it is not
/// from the future (`now`, with that tolerance in seconds). How old it is says nothing about whether it counts.
///
/// # Errors
/// The first rule that it breaks.
pub fn verify(
    record_key: &[u8],
    value: &[u8],
    (realm, topic): (&Realm, &Topic),
    trust: &Trust,
    now: UnixMillis,
    skew_s: u32,
) -> Result<Heard, SignalError> {
    if value.len() > MAX_TOKEN_BYTES {
        return Err(SignalError::TooLarge);
    }
    let jws = Jws::parse_typ(value, &[TYP])?;
    let claims = json::parse_object(jws.payload()).map_err(|_| SignalError::Member("a JSON payload"))?;
    let gate = WorkloadId::parse(text(&claims, "iss")?).map_err(|_| SignalError::Member("iss"))?;
    check_signature(&jws, &gate, trust)?;
    if text(&claims, "aud")? != realm.audience(topic) {
        return Err(SignalError::Audience);
    }
    let issued_at = moment(&claims, "iat")?;
    let said = said(&claims)?;
    if key(&said).as_bytes() != record_key {
        return Err(SignalError::Key);
    }
    let reached = match &said {
        Said::Heartbeat(heartbeat) => heartbeat.as_of.max(issued_at),
        Said::Signal(_) => issued_at,
    };
    if reached.0 > now.0.saturating_add(i64::from(skew_s) * 1000) {
        return Err(SignalError::NotYetValid);
    }
    Ok(Heard { gate, issued_at, said })
}

fn check_signature(jws: &Jws<'_>, gate: &WorkloadId, trust: &Trust) -> Result<(), SignalError> {
    let domain = gate.trust_domain();
    let algorithm = Algorithm::parse(jws.alg())
        .filter(|algorithm| trust.algorithms(domain).contains(algorithm))
        .ok_or(SignalError::Algorithm)?;
    let gates = &trust.domain(domain).ok_or(SignalError::Issuer)?.gates;
    let key = gates.select(jws.kid(), algorithm).map_err(|choice| match choice {
        KeyChoice::Unknown => SignalError::Issuer,
        KeyChoice::WrongAlgorithm => SignalError::Algorithm,
    })?;
    let holds = key.verify(algorithm, jws.signing_input(), jws.signature());
    if holds { Ok(()) } else { Err(SignalError::Signature) }
}

fn said(claims: &Map<String, Value>) -> Result<Said, SignalError> {
    let id = Digest::parse(text(claims, "jti")?).ok_or(SignalError::Member("jti"))?;
    let sub_id = object(claims, "sub_id")?;
    // One event each, as SSF 1.0 demands.
    let events = object(claims, "events")?;
    let mut events = events.iter();
    let (Some((name, Value::Object(members))), None) = (events.next(), events.next()) else {
        return Err(SignalError::Member("events"));
    };
    if name == VERIFICATION {
        if text(sub_id, "format")? != "opaque" {
            return Err(SignalError::Member("format"));
        }
        let (instance, as_of) = (identifier(sub_id, "id")?.to_owned(), moment(claims, "toe")?);
        return Ok(Said::Heartbeat(Heartbeat { instance, as_of }));
    }
    let about = about(sub_id)?;
    let event = match (name.as_str(), about.kind) {
        (SESSION_REVOKED, _) => {
            let (not_before, expires_at) =
                (optional_date(members, "not_before")?, optional_date(members, "expires_at")?);
            Event::Revoked { not_before, expires_at }
        }
        (WORKFLOW_ENDED, Kind::Workflow) => {
            let status = Status::parse(text(members, "status")?).filter(|status| status.has_ended());
            Event::Workflow(status.ok_or(SignalError::Member("status"))?)
        }
        (WORKFLOW_SUSPENDED, Kind::Workflow) => Event::Workflow(Status::Suspended),
        _ => return Err(SignalError::Member("events")),
    };
    let (event_at, reason) = (moment(members, "event_timestamp")?, reason(members)?);
    Ok(Said::Signal(Signal { id, about, event, event_at, reason }))
}

fn about(sub_id: &Map<String, Value>) -> Result<Target, SignalError> {
    let (kind, member) = match text(sub_id, "format")? {
        "uri" => (Kind::Workload, "uri"),
        "opaque" => (Kind::Subject, "id"),
        own => match own.strip_prefix(OWN_FORMAT).and_then(Kind::parse) {
            // These two have a format of the RFC, so that there is one spelling of each.
            None | Some(Kind::Workload | Kind::Subject) => return Err(SignalError::Member("format")),
            Some(kind) => (kind, "id"),
        },
    };
    let id = identifier(sub_id, member)?;
    let is_legal = match kind {
        Kind::Workload => WorkloadId::parse(id).is_ok(),
        Kind::TrustDomain => TrustDomain::parse(id).is_ok(),
        _ => true,
    };
    if is_legal { Ok(Target { kind, id: id.into() }) } else { Err(SignalError::Member(member)) }
}

/// Of `reason_admin`, a language map, the first entry.
fn reason(event: &Map<String, Value>) -> Result<Option<String>, SignalError> {
    const MEMBER: &str = "reason_admin";
    if !event.contains_key(MEMBER) {
        return Ok(None);
    }
    let reasons = object(event, MEMBER)?;
    match reasons.values().next() {
        None => Ok(None),
        Some(Value::String(reason))
            if reason.chars().count() <= MAX_REASON_CHARS && !json::has_control_str(reason) =>
        {
            Ok(Some(reason.clone()))
        }
        Some(_) => Err(SignalError::Member(MEMBER)),
    }
}

fn text<'m>(members: &'m Map<String, Value>, name: &'static str) -> Result<&'m str, SignalError> {
    members.get(name).and_then(Value::as_str).ok_or(SignalError::Member(name))
}

fn identifier<'m>(members: &'m Map<String, Value>, name: &'static str) -> Result<&'m str, SignalError> {
    let id = text(members, name)?;
    if (1..=MAX_ID_BYTES).contains(&id.len()) { Ok(id) } else { Err(SignalError::Member(name)) }
}

fn object<'m>(
    members: &'m Map<String, Value>,
    name: &'static str,
) -> Result<&'m Map<String, Value>, SignalError> {
    members.get(name).and_then(Value::as_object).ok_or(SignalError::Member(name))
}

fn optional_date(members: &Map<String, Value>, name: &'static str) -> Result<Option<f64>, SignalError> {
    let Some(value) = members.get(name) else { return Ok(None) };
    let date = value.as_f64().filter(|date| date.abs() <= MAX_NUMERIC_DATE);
    date.map(Some).ok_or(SignalError::Member(name))
}

/// A NumericDate as the millisecond that it is nearest to.
fn moment(members: &Map<String, Value>, name: &'static str) -> Result<UnixMillis, SignalError> {
    let date = optional_date(members, name)?.ok_or(SignalError::Member(name))?;
    // Within ±2^53 s, so its milliseconds fit.
    Ok(UnixMillis((date * 1000.0).round() as i64))
}
