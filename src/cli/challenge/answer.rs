//! An answer to a challenge, signed (contract, section 7). Limits: for approvers that hold a key of their own, as in
//! development; whether the answer counts is for the lane that reads it, by keys, policies and time.

use serde::Serialize;

use crate::authorize::ids::UnixMillis;
use crate::authorize::jose::{Jws, SignError, SigningKey, TokenKind};
use crate::authorize::step_up::Challenge;
use crate::authorize::trust::Issuer;

/// The life of an answer to a challenge that names no life of a grant, in seconds.
const LIFE_S: i64 = 600;

/// Who answers, and what about.
#[derive(Debug, Clone, Default)]
pub(super) struct Approver {
    /// `iss`: the issuer whose key signs.
    pub(super) issuer: String,
    /// `sub`: the approver.
    pub(super) subject: String,
    /// How strong the approver's login was.
    pub(super) acr: Option<String>,
    /// How the approver logged in.
    pub(super) amr: Vec<String>,
    /// When the approver logged in, in seconds since 1970.
    pub(super) auth_time: Option<i64>,
    /// What the approver has to say.
    pub(super) comment: Option<String>,
    /// How long the answer is good, in seconds.
    pub(super) life_s: Option<u32>,
}

/// The claims of an answer.
#[derive(Debug, Serialize)]
struct Claims<'a> {
    iss: &'a str,
    sub: &'a str,
    aud: &'a str,
    iat: i64,
    exp: i64,
    jti: &'a str,
    challenge: &'a str,
    digest: &'a str,
    decision: &'static str,
    #[serde(skip_serializing_if = "Option::is_none")]
    acr: Option<&'a str>,
    #[serde(skip_serializing_if = "<[String]>::is_empty")]
    amr: &'a [String],
    #[serde(skip_serializing_if = "Option::is_none")]
    auth_time: Option<i64>,
    #[serde(skip_serializing_if = "Option::is_none")]
    comment: Option<&'a str>,
}

impl Approver {
    /// Signs what this approver answers. It is good for the longest life of a grant among the step-ups, where nothing else
    /// is asked for: the gate ends each grant by itself.
    ///
    /// # Errors
    /// The key cannot sign.
    pub(super) fn sign(
        &self,
        challenge: &Challenge,
        decision: &'static str,
        jti: &str,
        key: &SigningKey,
        now: UnixMillis,
    ) -> Result<String, SignError> {
        let longest = challenge.step_ups.iter().map(|ask| i64::from(ask.grant_s)).max().unwrap_or(LIFE_S);
        let iat = now.whole_seconds();
        let claims = Claims {
            iss: &self.issuer,
            sub: &self.subject,
            aud: &challenge.realm,
            iat,
            exp: iat.saturating_add(self.life_s.map_or(longest, i64::from)),
            jti,
            challenge: &challenge.id,
            digest: &challenge.digest,
            decision,
            acr: self.acr.as_deref(),
            amr: &self.amr,
            auth_time: self.auth_time,
            comment: self.comment.as_deref(),
        };
        key.sign(TokenKind::StepUpGrant, &claims)
    }
}

/// Whether a gate will take that token as signed by this issuer.
pub(super) fn is_signed_by(issuer: &Issuer, token: &str, key: &SigningKey) -> bool {
    let algorithm = key.algorithm();
    issuer.algorithms.contains(&algorithm)
        && issuer.keys.select(key.kid(), algorithm).is_ok_and(|public| {
            Jws::parse(token.as_bytes(), TokenKind::StepUpGrant)
                .is_ok_and(|jws| public.verify(algorithm, jws.signing_input(), jws.signature()))
        })
}

#[cfg(test)]
pub(super) mod tests {
    use super::*;
    use crate::authorize::jose::{Algorithm, KeySet, KeyUse};
    use crate::wire::challenge::tests::full;
    use serde_json::{Value, json};

    fn key(seed: u8, kid: &str) -> SigningKey {
        SigningKey::from_seed(Algorithm::EdDsa, &[seed; 32], Some(kid)).unwrap()
    }

    fn issuer(key: &SigningKey, algorithm: Algorithm) -> Issuer {
        let jwks = json!({"keys": [key.public_jwk()]}).to_string();
        Issuer { algorithms: vec![algorithm], keys: KeySet::from_jwks(&jwks, KeyUse::Any).unwrap() }
    }

    #[test]
    fn an_answer_names_the_challenge_its_digest_and_this_realm_alone() {
        let approver = Approver {
            issuer: "https://login.example.com".to_owned(),
            subject: "carol".to_owned(),
            comment: Some("fine".to_owned()),
            ..Approver::default()
        };
        let challenge = full();
        let now = UnixMillis(1_893_456_000_000);
        let token = approver.sign(&challenge, "approve", "a-1", &key(1, "k"), now).unwrap();
        let jws = Jws::parse(token.as_bytes(), TokenKind::StepUpGrant).unwrap();
        let claims: Value = serde_json::from_slice(jws.payload()).unwrap();
        let expected = json!({
            "iss": "https://login.example.com", "sub": "carol", "aud": challenge.realm, "iat": 1_893_456_000,
            "exp": 1_893_456_600, "jti": "a-1", "challenge": challenge.id, "digest": challenge.digest,
            "decision": "approve", "comment": "fine",
        });
        assert_eq!(claims, expected, "and nothing that was not said");
    }

    #[test]
    fn a_key_that_is_not_the_issuers_signs_nothing_that_counts() {
        let (own, other) = (key(1, "k"), key(2, "k"));
        let challenge = full();
        let token = |key: &SigningKey| {
            Approver::default().sign(&challenge, "refuse", "a-1", key, UnixMillis(0)).unwrap()
        };
        let approvers = issuer(&own, Algorithm::EdDsa);
        assert!(is_signed_by(&approvers, &token(&own), &own));
        assert!(!is_signed_by(&approvers, &token(&other), &other), "the same kid, another key");
        assert!(!is_signed_by(&approvers, &token(&key(1, "x")), &key(1, "x")), "an unknown kid");
        assert!(!is_signed_by(&issuer(&own, Algorithm::Es256), &token(&own), &own), "not allowed");
    }
}
