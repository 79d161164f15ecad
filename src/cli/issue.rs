//! Makes the keys and tokens of a development trust domain: what an identity provider and a token service do in earnest.
//! Limits: for development and the demo; nothing here asks whether a claim is true.

use base64::Engine as _;
use base64::engine::general_purpose::URL_SAFE_NO_PAD;
use serde_json::{Map, Value, json};
use zeroize::Zeroizing;

use crate::authorize::ids::{TrustDomain, UnixMillis, WorkloadId};
use crate::authorize::jose::{Algorithm, KeyError, SignError, SigningKey, TokenKind, sha256};

/// Why no key was made.
#[derive(Debug, thiserror::Error)]
pub enum GenerateError {
    /// The operating system gave no random bytes.
    #[error("the operating system gave no random bytes: {0}")]
    Random(getrandom::Error),
    /// The random bytes make no key of that algorithm.
    #[error("cannot make such a key: it {0}")]
    Key(#[from] KeyError),
}

/// A new key of 32 random bytes. Without `kid`, its RFC 7638 thumbprint is its `kid`.
///
/// # Errors
/// No random bytes, or an algorithm (RSA) whose keys are not made of a seed.
pub fn generate(algorithm: Algorithm, kid: Option<&str>) -> Result<SigningKey, GenerateError> {
    let mut seed = Zeroizing::new([0_u8; 32]);
    getrandom::fill(&mut *seed).map_err(GenerateError::Random)?;
    let key = SigningKey::from_seed(algorithm, &*seed, kid)?;
    if kid.is_some() {
        return Ok(key);
    }
    Ok(SigningKey::from_seed(algorithm, &*seed, Some(&thumbprint(&key)))?)
}

/// 128 random bits, as base64url: the id of a transaction or of a proof.
///
/// # Errors
/// No random bytes.
pub fn random_id() -> Result<String, GenerateError> {
    let mut bytes = [0_u8; 16];
    getrandom::fill(&mut bytes).map_err(GenerateError::Random)?;
    Ok(URL_SAFE_NO_PAD.encode(bytes))
}

/// RFC 7638: SHA-256 of the required members, in lexicographic order, without white space.
fn thumbprint(key: &SigningKey) -> String {
    let public = key.public_jwk();
    let required: Map<String, Value> = ["crv", "e", "kty", "n", "x", "y"]
        .into_iter()
        .filter_map(|name| public.get(name).map(|value| (name.to_owned(), value.clone())))
        .collect();
    // Put in in that order, so that sorted and ordered maps write the same, without white space.
    sha256(&[Value::Object(required).to_string().as_bytes()]).to_string()
}

/// A JWK set of public keys; with `use` where one is given.
pub fn jwks<'k>(keys: impl IntoIterator<Item = &'k Value>, key_use: Option<&str>) -> Value {
    let keys: Vec<Value> = keys
        .into_iter()
        .map(|key| {
            let mut key = key.clone();
            if let (Some(key_use), Some(members)) = (key_use, key.as_object_mut()) {
                members.insert("use".to_owned(), key_use.into());
            }
            key
        })
        .collect();
    json!({ "keys": keys })
}

/// A WIT for the holder of a public key, good from now for `life_s` seconds.
///
/// # Errors
/// The issuer's key cannot sign.
pub fn wit(
    issuer: &SigningKey,
    subject: &WorkloadId,
    holder: &Value,
    now: UnixMillis,
    life_s: u32,
) -> Result<String, SignError> {
    let issued = now.whole_seconds();
    let claims = json!({
        "sub": subject.as_str(), "iat": issued, "exp": issued.saturating_add(life_s.into()), "cnf": {"jwk": holder},
    });
    issuer.sign(TokenKind::WorkloadIdentity, &claims)
}

/// What a Txn-Token says (contract, section 2.3).
#[derive(Debug, Clone)]
pub struct TransactionClaims {
    /// The senders' trust domain.
    pub audience: TrustDomain,
    /// The transaction's id.
    pub transaction: String,
    /// On whose behalf.
    pub subject: String,
    /// What it is good for, separated by spaces.
    pub scope: String,
    /// The workload that asked for the token.
    pub requester: WorkloadId,
    /// Details of the transaction.
    pub tctx: Option<Map<String, Value>>,
    /// Circumstances of the request.
    pub rctx: Option<Map<String, Value>>,
}

/// A Txn-Token, good from now for `life_s` seconds.
///
/// # Errors
/// The service's key cannot sign.
pub fn transaction(
    service: &SigningKey,
    claims: &TransactionClaims,
    now: UnixMillis,
    life_s: u32,
) -> Result<String, SignError> {
    let issued = now.whole_seconds();
    let mut token = json!({
        "iat": issued, "exp": issued.saturating_add(life_s.into()), "aud": claims.audience.as_str(),
        "txn": claims.transaction, "sub": claims.subject, "scope": claims.scope, "req_wl": claims.requester.as_str(),
    });
    if let Some(members) = token.as_object_mut() {
        for (name, details) in [("tctx", &claims.tctx), ("rctx", &claims.rctx)] {
            if let Some(details) = details {
                members.insert(name.to_owned(), Value::Object(details.clone()));
            }
        }
    }
    service.sign(TokenKind::Transaction, &token)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::authorize::jose::{KeySet, KeyUse};

    #[test]
    fn generated_keys_differ_and_are_named_by_their_thumbprint() {
        let key = generate(Algorithm::Es256, None).unwrap();
        let other = generate(Algorithm::Es256, None).unwrap();
        assert_ne!(key.public_jwk()["x"], other.public_jwk()["x"]);
        assert_eq!(key.kid(), Some(thumbprint(&key).as_str()));
        assert_eq!(generate(Algorithm::EdDsa, Some("a")).unwrap().kid(), Some("a"));
        assert!(generate(Algorithm::Rs256, None).is_err());
    }

    #[test]
    fn the_thumbprint_is_rfc_8037s() {
        // RFC 8037, appendix A.3.
        let jwk = r#"{"kty":"OKP","crv":"Ed25519","d":"nWGxne_9WmC6hEr0kuwsxERJxWl7MmkZcDusAxyuf2A",
            "x":"11qYAYKxCrfVS_7TyWQHOg7hcvPapiMlrwIaaPcHURo"}"#;
        let key = SigningKey::from_jwk(jwk).unwrap();
        assert_eq!(thumbprint(&key), "kPrK_qmxVWaYVA9wwBF6Iuo3vVzz7TxHCTwXBygrS4k");
    }

    #[test]
    fn a_bundle_holds_issuers_and_nothing_else() {
        let key = generate(Algorithm::EdDsa, Some("i")).unwrap();
        let bundle = jwks([&key.public_jwk()], Some("wit-svid"));
        let set = KeySet::from_jwks(&bundle.to_string(), KeyUse::WitIssuer).unwrap();
        assert_eq!(set.kids().collect::<Vec<_>>(), ["i"]);
        assert!(!bundle.to_string().contains("\"d\""));
    }
}
