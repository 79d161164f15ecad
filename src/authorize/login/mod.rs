//! Who an approver is: a bearer token (RFC 6750) of a configured OIDC issuer, an access token as RFC 9068 or Keycloak write
//! them, verified and mapped to a Cedar entity. Limits: pure; the issuer's keys are handed in, and a token that is
//! bound to a key (`cnf`) is refused, since nothing here could check the binding.

mod answer;

use std::collections::BTreeSet;

pub use answer::{AnswerProblem, AnswerSource, MAX_COMMENT_CHARS, check_comment, sign_answer};

use super::claims::{Judged, LoginClaims, Malformed, meets};
use super::ids::UnixMillis;
use super::jose::{Algorithm, Jws, KeyChoice, KeySet};
use super::limits::MAX_TOKEN_BYTES;

/// The `typ`s of access tokens: RFC 9068's, and the plain one of issuers that are older than it.
const TYPS: [&str; 2] = ["at+jwt", "JWT"];
/// The claim `typ` by which Keycloak tells access tokens from identity and refresh tokens.
const BEARER: &str = "bearer";
/// Code points of an approver's name. It becomes an entity id, which is kept and shown.
const MAX_NAME_CHARS: usize = 256;

/// How the tokens of one OIDC issuer are judged.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct OidcIssuer {
    /// `iss`, compared byte for byte.
    pub iss: String,
    /// What `aud` must be or contain.
    pub audience: String,
    /// The Cedar entity type of its approvers.
    pub entity_type: String,
    /// The claim that is an approver's entity id.
    pub claim: String,
    /// What its tokens may be signed with.
    pub algorithms: Vec<Algorithm>,
    /// The scope that a token must have, if any.
    pub scope: Option<String>,
    /// The clients (`azp`, else `client_id`) whose tokens count; empty is all.
    pub clients: BTreeSet<String>,
    /// Tolerance between its clock and the gate's, in seconds.
    pub skew_s: u32,
}

/// A verified login. Only [`Bearer::verify`] makes one.
#[derive(Debug, Clone, PartialEq)]
pub struct Login {
    issuer: String,
    subject: String,
    entity_type: String,
    approver: String,
    acr: Option<String>,
    amr: Option<Vec<String>>,
    auth_time: Option<f64>,
    expires_at: f64,
}

/// Why a token is no login. The sentences never hold a part of the token.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum LoginError {
    /// Not a well-formed access token.
    #[error("the token {0}")]
    Malformed(String),
    /// No such issuer is configured.
    #[error("the token's issuer is not one of those configured")]
    Issuer,
    /// Its algorithm is not allowed, or not its key's.
    #[error("the token's algorithm is not allowed for its issuer or its key")]
    Algorithm,
    /// The issuer has no key of that `kid`.
    #[error("the token's issuer has no such key")]
    Key,
    /// The signature does not hold.
    #[error("the token's signature does not hold")]
    Signature,
    /// It is for somebody else.
    #[error("the token is not for this audience")]
    Audience,
    /// It is past `exp`.
    #[error("the token has expired")]
    Expired,
    /// It is before `iat` or `nbf`.
    #[error("the token is not valid yet")]
    NotYetValid,
    /// An identity or refresh token.
    #[error("the token is no access token")]
    Kind,
    /// It is bound to a key.
    #[error("the token is bound to a key, which a bearer cannot prove")]
    Bound,
    /// Its client is not one of those configured.
    #[error("the token was not given to a client that may ask here")]
    Client,
    /// The claim that names the approver is absent, no string, or no fit name.
    #[error("the token's claim `{0}` names no approver")]
    Approver(String),
    /// The scope that is needed is absent.
    #[error("the token lacks the scope `{0}`")]
    Scope(String),
}

impl From<Malformed> for LoginError {
    fn from(error: Malformed) -> Self {
        Self::Malformed(error.to_string())
    }
}

/// A bearer token, parsed and not verified.
#[derive(Debug)]
pub struct Bearer<'t> {
    jws: Jws<'t>,
    issuer: String,
}

impl<'t> Bearer<'t> {
    /// Takes a token apart.
    ///
    /// # Errors
    /// [`LoginError::Malformed`].
    pub fn read(token: &'t [u8]) -> Result<Self, LoginError> {
        if token.len() > MAX_TOKEN_BYTES {
            return Err(LoginError::Malformed(format!("is larger than {MAX_TOKEN_BYTES} bytes")));
        }
        let jws = Jws::parse_typ(token, &TYPS)
            .map_err(|error| LoginError::Malformed(format!("cannot be read: {error}")))?;
        let issuer = LoginClaims::issuer(jws.payload())?;
        Ok(Self { jws, issuer })
    }

    /// `iss`, as it is claimed: by it the rules and the keys are found.
    pub fn issuer(&self) -> &str {
        &self.issuer
    }

    /// Judges the token at `now` by the rules of its issuer.
    ///
    /// # Errors
    /// The first rule that it breaks: algorithm, key, signature, audience, times, then what the issuer's settings ask.
    pub fn verify(&self, rules: &OidcIssuer, keys: &KeySet, now: UnixMillis) -> Result<Login, LoginError> {
        let algorithm = Algorithm::parse(self.jws.alg()).filter(|found| rules.algorithms.contains(found));
        let algorithm = algorithm.ok_or(LoginError::Algorithm)?;
        let key = keys.select(self.jws.kid(), algorithm).map_err(|choice| match choice {
            KeyChoice::Unknown => LoginError::Key,
            KeyChoice::WrongAlgorithm => LoginError::Algorithm,
        })?;
        if !key.verify(algorithm, self.jws.signing_input(), self.jws.signature()) {
            return Err(LoginError::Signature);
        }
        let claims = LoginClaims::read(self.jws.payload(), &rules.claim)?;
        if claims.issuer != rules.iss {
            return Err(LoginError::Issuer);
        }
        claims.judge(rules, now)?;
        let approver = claims.approver.filter(|name| is_name(name));
        Ok(Login {
            issuer: claims.issuer,
            subject: claims.subject,
            entity_type: rules.entity_type.clone(),
            approver: approver.ok_or_else(|| LoginError::Approver(rules.claim.clone()))?,
            acr: claims.acr,
            amr: claims.amr,
            auth_time: claims.auth_time,
            expires_at: claims.times.expires_at,
        })
    }
}

impl LoginClaims {
    fn judge(&self, rules: &OidcIssuer, now: UnixMillis) -> Result<(), LoginError> {
        if !self.audience.contains(&rules.audience) {
            return Err(LoginError::Audience);
        }
        match self.times.judge(now, rules.skew_s) {
            Judged::Valid => {}
            Judged::Expired => return Err(LoginError::Expired),
            Judged::NotYetValid => return Err(LoginError::NotYetValid),
        }
        if self.kind.as_ref().is_some_and(|kind| !kind.eq_ignore_ascii_case(BEARER)) {
            return Err(LoginError::Kind);
        }
        if self.bound {
            return Err(LoginError::Bound);
        }
        let known = |client: &String| rules.clients.contains(client);
        if !rules.clients.is_empty() && !self.client.as_ref().is_some_and(known) {
            return Err(LoginError::Client);
        }
        match &rules.scope {
            Some(needed) if !self.scope.contains(needed) => Err(LoginError::Scope(needed.clone())),
            _ => Ok(()),
        }
    }
}

/// A name that may become an entity id (contract, section 2: no control characters).
fn is_name(text: &str) -> bool {
    (1..=MAX_NAME_CHARS).contains(&text.chars().count()) && !text.chars().any(char::is_control)
}

impl Login {
    /// The OIDC issuer.
    pub fn issuer(&self) -> &str {
        &self.issuer
    }

    /// `sub`: the issuer's own name for who logged in.
    pub fn subject(&self) -> &str {
        &self.subject
    }

    /// The Cedar entity type of the approver.
    pub fn entity_type(&self) -> &str {
        &self.entity_type
    }

    /// The approver's entity id.
    pub fn approver(&self) -> &str {
        &self.approver
    }

    /// `acr`.
    pub fn acr(&self) -> Option<&str> {
        self.acr.as_deref()
    }

    /// `amr`.
    pub fn amr(&self) -> Option<&[String]> {
        self.amr.as_deref()
    }

    /// `auth_time`, in seconds.
    pub fn auth_time(&self) -> Option<f64> {
        self.auth_time
    }

    /// Whether the login is as strong as is asked (RFC 9470, section 3): see [`meets`].
    pub fn meets(&self, acr_values: Option<&str>, max_age_s: Option<i64>, now: UnixMillis) -> bool {
        meets(self.acr.as_deref(), self.auth_time, acr_values, max_age_s, now)
    }
}

#[cfg(test)]
mod tests;
