//! A record of the revocations' topic to a revocation that may be applied: the administrative form (`revocation+jwt`) and
//! security event tokens (RFC 8417, `secevent+jwt`) as SSF 1.0 narrows them. Limits: it says what is stated and by whom;
//! `aud` of a SET names its receiver, not the gate, and is checked for form alone. What fails here must be reported.

use super::event::{Meaning, meaning};
use super::revocation::{Authority, Effect, Kind, Revocation, Target};
use super::subject;
use crate::authorize::claims::{Malformed, Members};
use crate::authorize::ids::{TrustDomain, WorkloadId};
use crate::authorize::jose::{Algorithm, Jws, JwsError, KeyChoice, KeySet};
use crate::authorize::json;
use crate::authorize::limits::{MAX_JTI_CHARS, MAX_REASON_CHARS, MAX_REVOKED_ID_BYTES, MAX_TOKEN_BYTES};
use crate::authorize::trust::Trust;

/// `typ` of the administrative form.
pub const REVOCATION_TYP: &str = "revocation+jwt";
/// `typ` of a security event token (RFC 8417, section 2.3).
pub const EVENT_TYP: &str = "secevent+jwt";

/// What a verified record says.
#[derive(Debug, Clone, PartialEq)]
pub enum Notice {
    /// Something is revoked, or no longer.
    Revocation(Revocation),
    /// An event of this type, by which nothing is revoked.
    Nothing(String),
}

/// Why a record of the revocations' topic cannot be applied: a sentence that never holds a part of a token.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum StatementError {
    /// The key of the record is no text.
    #[error("the key is not UTF-8")]
    Key,
    /// The value is too large to be a token.
    #[error("it is larger than {MAX_TOKEN_BYTES} bytes")]
    TooLarge,
    /// It is no compact JWS of either type.
    #[error("it is no `{REVOCATION_TYP}` and no `{EVENT_TYP}`: {0}")]
    Jws(JwsError),
    /// Its claims break a rule of form.
    #[error("it {0}")]
    Malformed(#[from] Malformed),
    /// Its `jti` is another than the key of its record, so it could stand in the place of another revocation.
    #[error("its `jti` is not the key of its record")]
    AnotherId,
    /// No transmitter of that `iss` is configured.
    #[error("its `iss` is no transmitter that is configured")]
    UnknownTransmitter,
    /// No administrators are configured.
    #[error("no administrators are configured")]
    NoAdministrators,
    /// It is signed with an algorithm that its issuer may not use.
    #[error("it is signed with an algorithm that is not allowed")]
    Algorithm,
    /// It is signed with a key that its issuer does not have.
    #[error("it is signed with a key that its issuer does not have")]
    UnknownKey,
    /// Its signature does not hold.
    #[error("its signature does not hold")]
    Signature,
    /// A SET has one event (SSF 1.0).
    #[error("it has {0} events instead of one")]
    Events(usize),
    /// An event of a type that nothing is known about.
    #[error("its event is of a type that is not known")]
    UnknownEvent,
    /// A subject that a gate cannot find in a record.
    #[error("it names nobody that a gate knows: {0}")]
    Nobody(&'static str),
}

/// Verifies the value of a record of the revocations' topic under that key.
///
/// # Errors
/// The first rule that it breaks: it must be reported, and nothing may be applied.
pub fn verify(key: &[u8], value: &[u8], trust: &Trust) -> Result<Notice, StatementError> {
    let key = std::str::from_utf8(key).map_err(|_| StatementError::Key)?;
    if value.len() > MAX_TOKEN_BYTES {
        return Err(StatementError::TooLarge);
    }
    match Jws::parse_typ(value, &[REVOCATION_TYP]) {
        Ok(jws) => administrative(key, &jws, trust).map(Notice::Revocation),
        Err(JwsError::Typ(_)) => {
            let jws = Jws::parse_typ(value, &[EVENT_TYP]).map_err(StatementError::Jws)?;
            security_event(key, &jws, trust)
        }
        Err(error) => Err(StatementError::Jws(error)),
    }
}

fn administrative(key: &str, jws: &Jws<'_>, trust: &Trust) -> Result<Revocation, StatementError> {
    let administrators = trust.others().administrators.as_ref().ok_or(StatementError::NoAdministrators)?;
    check_signature(jws, &Algorithm::DEFAULT, administrators)?;
    let mut claims = Members::read(jws.payload())?;
    let id = read_id(&mut claims, key)?;
    let issued_at = claims.date("iat")?;
    let mut revoke = claims.object("revoke")?;
    let kind = Kind::parse(&revoke.text("kind")?).ok_or_else(|| {
        let words: Vec<_> = Kind::ALL.iter().map(|kind| format!("`{}`", kind.as_str())).collect();
        Malformed::new(format!("needs `revoke.kind` to be one of {}", words.join(", ")))
    })?;
    let target = target(kind, &revoke.text("id")?)?;
    let not_before = claims.optional_date("not_before")?;
    let reason = claims.optional_text("reason")?;
    if reason.as_ref().is_some_and(|r| r.chars().count() > MAX_REASON_CHARS || json::has_control_str(r)) {
        let rule = format!("needs `reason` to have at most {MAX_REASON_CHARS} characters, none a control");
        return Err(Malformed::new(rule).into());
    }
    Ok(Revocation {
        id,
        authority: Authority::Administrator,
        targets: [target].into(),
        effect: Effect::Revokes { not_before },
        issued_at,
        expires_at: claims.optional_date("exp")?,
        event: "revocation".into(),
        reason: reason.map(Into::into),
        transaction: None,
    })
}

fn security_event(key: &str, jws: &Jws<'_>, trust: &Trust) -> Result<Notice, StatementError> {
    let mut claims = Members::read(jws.payload())?;
    let iss = claims.text("iss")?;
    let transmitter = trust.others().transmitters.get(&iss).ok_or(StatementError::UnknownTransmitter)?;
    check_signature(jws, &transmitter.algorithms, &transmitter.keys)?;
    let id = read_id(&mut claims, key)?;
    let issued_at = claims.date("iat")?;
    if let Some(name) = ["sub", "exp"].into_iter().find(|name| claims.map.contains_key(*name)) {
        return Err(Malformed::new(format!("has the member `{name}`, which SSF 1.0 forbids")).into());
    }
    if claims.map.contains_key("aud") {
        claims.audience("aud")?;
    }
    let transaction = claims.optional_text("txn")?;
    let told_at = claims.optional_date("toe")?.unwrap_or(issued_at);
    let mut events = claims.object("events")?;
    let types: Vec<String> = events.map.keys().cloned().collect();
    let [event_type] = types.as_slice() else { return Err(StatementError::Events(types.len())) };
    let mut event = events.object(event_type)?;
    let at = event.optional_date("event_timestamp")?.unwrap_or(told_at);
    let effect = match meaning(event_type, &mut event)? {
        Meaning::Nothing => return Ok(Notice::Nothing(event_type.clone())),
        Meaning::RevokesBefore => Effect::Revokes { not_before: Some(at) },
        Meaning::RevokesAll => Effect::Revokes { not_before: None },
        Meaning::Disables => Effect::Disables { at },
        Meaning::Enables => Effect::Enables { at },
    };
    let targets = subject::targets(claims.object("sub_id")?)?;
    Ok(Notice::Revocation(Revocation {
        id,
        authority: Authority::Transmitter(iss.into()),
        targets: targets.into(),
        effect,
        issued_at,
        expires_at: None,
        event: event_type.as_str().into(),
        reason: None,
        transaction: transaction.map(Into::into),
    }))
}

/// `jti`, which is the key of the record: else an old statement could be put in the place of any other.
fn read_id(claims: &mut Members, key: &str) -> Result<Box<str>, StatementError> {
    let id = claims.text("jti")?;
    if !(1..=MAX_JTI_CHARS).contains(&id.chars().count()) || json::has_control_str(&id) {
        let rule = format!("needs `jti` to have 1 to {MAX_JTI_CHARS} characters, none a control");
        return Err(Malformed::new(rule).into());
    }
    if id != key {
        return Err(StatementError::AnotherId);
    }
    Ok(id.into())
}

/// What may be named, by the rules for such names.
pub(super) fn target(kind: Kind, id: &str) -> Result<Target, Malformed> {
    if id.is_empty() || id.len() > MAX_REVOKED_ID_BYTES || json::has_control_str(id) {
        let rule =
            format!("names an id that is not 1 to {MAX_REVOKED_ID_BYTES} bytes without control characters");
        return Err(Malformed::new(rule));
    }
    let broken = match kind {
        Kind::Workload => WorkloadId::parse(id).err(),
        Kind::TrustDomain => TrustDomain::parse(id).err(),
        _ => None,
    };
    match broken {
        Some(error) => Err(Malformed::new(format!("names an id that is broken: {error}"))),
        None => Ok(Target { kind, id: id.into() }),
    }
}

fn check_signature(jws: &Jws<'_>, allowed: &[Algorithm], keys: &KeySet) -> Result<(), StatementError> {
    let algorithm = Algorithm::parse(jws.alg())
        .filter(|algorithm| allowed.contains(algorithm))
        .ok_or(StatementError::Algorithm)?;
    let key = keys.select(jws.kid(), algorithm).map_err(|choice| match choice {
        KeyChoice::Unknown => StatementError::UnknownKey,
        KeyChoice::WrongAlgorithm => StatementError::Algorithm,
    })?;
    if key.verify(algorithm, jws.signing_input(), jws.signature()) {
        Ok(())
    } else {
        Err(StatementError::Signature)
    }
}

#[cfg(test)]
mod tests;
