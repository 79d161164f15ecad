//! The administrative form of a revocation, signed. Limits: it is verified by whoever writes it, as a gate would.

use serde::Serialize;

use crate::authorize::ids::UnixMillis;
use crate::authorize::jose::{SignError, SigningKey};
use crate::authorize::standing::{REVOCATION_TYP, Target};

/// What is revoked, since when and until when.
#[derive(Debug, Clone)]
pub(super) struct Statement {
    /// The id of the revocation, which is the key of its record.
    pub(super) id: String,
    /// What it names.
    pub(super) target: Target,
    /// Only what was issued before that moment is revoked.
    pub(super) not_before: Option<UnixMillis>,
    /// Its end.
    pub(super) until: Option<UnixMillis>,
    /// Why, in a person's words.
    pub(super) reason: Option<String>,
}

#[derive(Debug, Serialize)]
struct Claims<'a> {
    jti: &'a str,
    iat: f64,
    revoke: Revoke<'a>,
    #[serde(skip_serializing_if = "Option::is_none")]
    not_before: Option<f64>,
    #[serde(skip_serializing_if = "Option::is_none")]
    exp: Option<f64>,
    #[serde(skip_serializing_if = "Option::is_none")]
    reason: Option<&'a str>,
}

#[derive(Debug, Serialize)]
struct Revoke<'a> {
    kind: &'static str,
    id: &'a str,
}

impl Statement {
    /// Signs it as a `revocation+jwt`.
    ///
    /// # Errors
    /// The key cannot sign.
    pub(super) fn sign(&self, key: &SigningKey, now: UnixMillis) -> Result<String, SignError> {
        let claims = Claims {
            jti: &self.id,
            // To the millisecond: a statement that takes the place of another must be the newer one.
            iat: now.as_seconds(),
            revoke: Revoke { kind: self.target.kind.as_str(), id: &self.target.id },
            not_before: self.not_before.map(UnixMillis::as_seconds),
            exp: self.until.map(UnixMillis::as_seconds),
            reason: self.reason.as_deref(),
        };
        key.sign_typ(REVOCATION_TYP, &claims)
    }
}
