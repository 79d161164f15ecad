//! Who asks: a key, its WIT, and the headers of one request (WIMSE WPT for HTTP); or a certificate and its key (SPIFFE
//! X509-SVID). Pure: the moment and the proof's id are handed in. Limits: whether a gate trusts who issued them is not known
//! here.

use std::sync::Arc;

use rustls_pki_types::CertificateDer;
use rustls_pki_types::pem::PemObject as _;
use serde::Serialize;
use serde_json::{Map, Value};
use zeroize::Zeroizing;

use super::question::{Question, Unanswered};
use crate::authorize::claims::{Identity, Malformed};
use crate::authorize::ids::{Digest, UnixMillis, WorkloadId};
use crate::authorize::jose::{Jws, JwsError, PublicKey, SigningKey, TokenKind, token_hash};
use crate::authorize::limits::MAX_TOKEN_BYTES;
use crate::authorize::x509::{Svid, SvidError};

/// How long a proof is good, in seconds: it is used at once.
const PROOF_LIFE_S: i64 = 60;

/// A workload that can prove itself over HTTP. Cloning is cheap.
#[derive(Clone)]
pub struct Caller(Arc<Inner>);

#[expect(clippy::large_enum_variant, reason = "one behind each `Arc`")]
enum Inner {
    /// By a WIT and proofs of its own.
    Tokens { key: SigningKey, wit: String, wit_hash: Digest, identity: Identity },
    /// By the certificate of its connections.
    Certificate { svid: Svid, pem: Zeroizing<Vec<u8>> },
}

/// Why a key and a WIT, or a certificate, make no caller.
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
    /// No certificate in PEM.
    #[error("there is no certificate in the PEM text")]
    NoCertificate,
    /// No X.509-SVID of a workload.
    #[error("the certificate {0}")]
    Svid(#[from] SvidError),
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
        Ok(Self(Arc::new(Inner::Tokens { key, wit: wit.to_owned(), wit_hash, identity })))
    }

    /// A caller that proves itself by the X.509-SVID of its connections (mTLS): the certificate and those between it and its
    /// authority, and its private key, each in PEM. The gate's `[access.tls] clients` must be `"spiffe"`.
    ///
    /// # Errors
    /// The first certificate is not that of a workload. Whether the key is the certificate's is found out by
    /// [`super::Client::new`].
    pub fn certificate(chain: &str, key: &str) -> Result<Self, CallerError> {
        let own = CertificateDer::pem_slice_iter(chain.as_bytes()).next();
        let own = own.and_then(Result::ok).ok_or(CallerError::NoCertificate)?;
        let svid = Svid::read(&own)?;
        let mut pem = Zeroizing::new(Vec::with_capacity(chain.len() + key.len() + 1));
        pem.extend_from_slice(key.as_bytes());
        pem.push(b'\n');
        pem.extend_from_slice(chain.as_bytes());
        Ok(Self(Arc::new(Inner::Certificate { svid, pem })))
    }

    /// The workload that asks.
    pub fn id(&self) -> &WorkloadId {
        match &*self.0 {
            Inner::Tokens { identity, .. } => &identity.subject,
            Inner::Certificate { svid, .. } => &svid.id,
        }
    }

    /// When the WIT or the certificate ends, a NumericDate: renew before.
    pub fn expires_at(&self) -> f64 {
        match &*self.0 {
            Inner::Tokens { identity, .. } => identity.times.expires_at,
            // Seconds of a date, far below 2^53.
            Inner::Certificate { svid, .. } => svid.validity.to as f64,
        }
    }

    /// Key and certificates of its connections, where it proves itself by them.
    pub(super) fn pem(&self) -> Option<&[u8]> {
        match &*self.0 {
            Inner::Tokens { .. } => None,
            Inner::Certificate { pem, .. } => Some(pem),
        }
    }

    /// The headers of a request to `target`, the whole address that is asked, signed at `now` under the id `jti`, which must
    /// never be used again. A caller with a certificate signs nothing: its connection is the proof.
    ///
    /// # Errors
    /// [`Unanswered::Unsigned`] where the WIT or the certificate is over, or the key cannot sign.
    pub fn headers(
        &self,
        question: &Question,
        target: &str,
        now: UnixMillis,
        jti: &str,
    ) -> Result<Vec<(&'static str, String)>, Unanswered> {
        let over = |what: &str| Err(Unanswered::Unsigned(format!("the {what} has expired")));
        let (identity, proof) = match &*self.0 {
            Inner::Tokens { identity, .. } if identity.times.expired(now, 0) => {
                return over("workload identity token");
            }
            Inner::Certificate { svid, .. } if svid.validity.is_over(now) => return over("certificate"),
            Inner::Tokens { wit, .. } => (Some(wit.clone()), Some(self.proof(question, target, now, jti)?)),
            Inner::Certificate { .. } => (None, None),
        };
        let tokens = [
            (TokenKind::WorkloadIdentity, identity),
            (TokenKind::WorkloadProof, proof),
            (TokenKind::Transaction, question.transaction.clone()),
            (TokenKind::Countersignature, question.countersignature.clone()),
        ];
        let mut headers = vec![("content-type", "application/json".to_owned())];
        headers.push(("x-request-id", question.request_id.clone().unwrap_or_else(|| jti.to_owned())));
        headers.extend(tokens.into_iter().filter_map(|(kind, token)| Some((kind.header_name(), token?))));
        Ok(headers)
    }

    /// The WPT of one request; a caller with a certificate has none.
    fn proof(
        &self,
        question: &Question,
        target: &str,
        now: UnixMillis,
        jti: &str,
    ) -> Result<String, Unanswered> {
        let Inner::Tokens { key, wit_hash, .. } = &*self.0 else {
            return Err(Unanswered::Unsigned("a certificate signs no token".to_owned()));
        };
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
            wth: wit_hash.to_string(),
            tth: transaction.map(hash),
            oth: bound.into_iter().collect(),
        };
        let proof = key.sign(TokenKind::WorkloadProof, &claims);
        proof.map_err(|error| Unanswered::Unsigned(error.to_string()))
    }
}

// By hand: the key and the WIT are credentials.
impl std::fmt::Debug for Caller {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Caller").field("id", self.id()).finish_non_exhaustive()
    }
}
