//! Who asks: a key, its WIT, and the headers of one request (WIMSE WPT for HTTP). Pure: the moment and the proof's id are
//! handed in. Limits: whether a gate trusts the issuer of the WIT is not known here.

use std::sync::Arc;

use serde::Serialize;
use serde_json::{Map, Value};

use super::question::{Question, Unanswered};
use crate::authorize::claims::{Identity, Malformed};
use crate::authorize::ids::{Digest, UnixMillis, WorkloadId};
use crate::authorize::jose::{Jws, JwsError, PublicKey, SigningKey, TokenKind, token_hash};
use crate::authorize::limits::MAX_TOKEN_BYTES;

/// How long a proof is good, in seconds: it is used at once.
const PROOF_LIFE_S: i64 = 60;

/// A workload that can prove itself over HTTP. Cloning is cheap.
#[derive(Clone)]
pub struct Caller(Arc<Inner>);

struct Inner {
    key: SigningKey,
    wit: String,
    wit_hash: Digest,
    identity: Identity,
}

/// Why a key and a WIT make no caller.
#[derive(Debug, thiserror::Error)]
pub enum CallerError {
    /// Past 8 KiB a gate reads no token.
    #[error("the workload identity token has {0} bytes, and a gate takes at most {MAX_TOKEN_BYTES}")]
    TooLarge(usize),
    /// Not a compact JWS of a WIT.
    #[error("the workload identity token {0}")]
    Jws(#[from] JwsError),
    /// Its claims are not those of a WIT.
    #[error("the workload identity token {0}")]
    Malformed(#[from] Malformed),
    /// The WIT was issued to another key.
    #[error("the key is not the one that the workload identity token was issued to (`cnf.jwk`)")]
    OtherKey,
}

#[derive(Serialize)]
struct Claims<'a> {
    aud: &'a str,
    iat: i64,
    exp: i64,
    jti: &'a str,
    wth: String,
    #[serde(skip_serializing_if = "Option::is_none")]
    tth: Option<String>,
    #[serde(skip_serializing_if = "Map::is_empty")]
    oth: Map<String, Value>,
}

impl Caller {
    /// A caller with the WIT as the issuer wrote it, without white space around it.
    ///
    /// # Errors
    /// The WIT is not well formed, or was issued to another key.
    pub fn new(key: SigningKey, wit: &str) -> Result<Self, CallerError> {
        if wit.len() > MAX_TOKEN_BYTES {
            return Err(CallerError::TooLarge(wit.len()));
        }
        let identity = Identity::read(Jws::parse(wit.as_bytes(), TokenKind::WorkloadIdentity)?.payload())?;
        let own = key.public_jwk().as_object().and_then(|jwk| PublicKey::from_jwk(jwk).ok());
        if own.as_ref() != Some(&identity.key) || key.algorithm() != identity.algorithm {
            return Err(CallerError::OtherKey);
        }
        let wit_hash = token_hash(wit.as_bytes());
        Ok(Self(Arc::new(Inner { key, wit: wit.to_owned(), wit_hash, identity })))
    }

    /// The workload that asks.
    pub fn id(&self) -> &WorkloadId {
        &self.0.identity.subject
    }

    /// When the WIT ends, a NumericDate: renew before.
    pub fn expires_at(&self) -> f64 {
        self.0.identity.times.expires_at
    }

    /// The headers of a request to `target`, the whole address that is asked, signed at `now` under the id `jti`, which must
    /// never be used again.
    ///
    /// # Errors
    /// [`Unanswered::Unsigned`] where the WIT is over or the key cannot sign.
    pub fn headers(
        &self,
        question: &Question,
        target: &str,
        now: UnixMillis,
        jti: &str,
    ) -> Result<Vec<(&'static str, String)>, Unanswered> {
        let me = &*self.0;
        if me.identity.times.expired(now, 0) {
            return Err(Unanswered::Unsigned("the workload identity token has expired".to_owned()));
        }
        let hash = |token: &str| token_hash(token.as_bytes()).to_string();
        let (transaction, chain) = (question.transaction.as_deref(), question.countersignature.as_deref());
        let bound = chain
            .map(|token| (TokenKind::Countersignature.header_name().to_owned(), Value::String(hash(token))));
        let issued = now.whole_seconds();
        let claims = Claims {
            aud: target,
            iat: issued,
            exp: issued.saturating_add(PROOF_LIFE_S),
            jti,
            wth: me.wit_hash.to_string(),
            tth: transaction.map(hash),
            oth: bound.into_iter().collect(),
        };
        let proof = me.key.sign(TokenKind::WorkloadProof, &claims);
        let proof = proof.map_err(|error| Unanswered::Unsigned(error.to_string()))?;
        let tokens = [
            (TokenKind::WorkloadIdentity, Some(me.wit.clone())),
            (TokenKind::WorkloadProof, Some(proof)),
            (TokenKind::Transaction, transaction.map(str::to_owned)),
            (TokenKind::Countersignature, chain.map(str::to_owned)),
        ];
        let mut headers = vec![("content-type", "application/json".to_owned())];
        headers.push(("x-request-id", question.request_id.clone().unwrap_or_else(|| jti.to_owned())));
        headers.extend(tokens.into_iter().filter_map(|(kind, token)| Some((kind.header_name(), token?))));
        Ok(headers)
    }
}

// By hand: the key and the WIT are credentials.
impl std::fmt::Debug for Caller {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Caller").field("id", self.id()).finish_non_exhaustive()
    }
}
