//! Signs the context of one record: the proof (WPT) over its bytes and its other tokens (contract, section 2.2). Pure:
//! the moment and the proof's id are handed in. Limits: refuses what a gate would refuse as far as that can be seen
//! without keys, policies or configuration of the gate; a record that is signed can still be denied.

use std::collections::BTreeSet;
use std::sync::Arc;

use serde::Serialize;
use serde_json::{Map, Value};

use super::{Asked, Outgoing};
use crate::authorize::claims::{Countersigned, GrantClaims, Identity, Malformed, Transaction};
use crate::authorize::digests;
use crate::authorize::ids::{Digest, Realm, UnixMillis, WorkloadId};
use crate::authorize::jose::{Jws, JwsError, PublicKey, SignError, SigningKey, TokenKind, token_hash};
use crate::authorize::json;
use crate::authorize::limits::{
    DEFAULT_PROOF_LIFE_S, MAX_HEADER_BYTES, MAX_HEADERS, MAX_JTI_CHARS, MAX_NUMERIC_DATE, MAX_SIGNED_NAMES,
    MAX_TOKEN_BYTES,
};
use crate::authorize::record::Header;

/// A workload that can prove itself: its key, its WIT and the realm that it sends to. Cloning is cheap.
#[derive(Clone)]
pub struct Signer(Arc<Inner>);

struct Inner {
    key: SigningKey,
    wit: String,
    wit_hash: Digest,
    identity: Identity,
    realm: Realm,
    proof_life_s: u32,
}

/// Why a key and a WIT make no signer.
#[derive(Debug, thiserror::Error)]
pub enum SignerError {
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

/// The tokens that go along with a WIT, where there are any. The proof binds each of them.
#[derive(Clone, Copy, Default)]
pub struct Tokens<'a> {
    /// The Txn-Token.
    pub transaction: Option<&'a str>,
    /// The countersignature of the gate that let the work so far through.
    pub countersignature: Option<&'a str>,
    /// A step-up grant that the sender holds.
    pub step_up_grant: Option<&'a str>,
}

/// Why a record was not signed: a gate would refuse it.
#[derive(Debug, thiserror::Error)]
pub enum SignRefused {
    /// The WIT is over.
    #[error("the workload identity token has expired")]
    IdentityExpired,
    /// The Txn-Token is over.
    #[error("the txn-token has expired")]
    TransactionExpired,
    /// A token is not a compact JWS of its kind.
    #[error("the `{0}` {1}")]
    Jws(&'static str, JwsError),
    /// A token's claims are not those of its kind.
    #[error("the `{0}` {1}")]
    Malformed(&'static str, Malformed),
    /// The Txn-Token is meant for another trust domain than the sender's.
    #[error("the txn-token is not meant for the sender's trust domain (`aud`)")]
    Audience,
    /// The Txn-Token is of another transaction than the work that is carried on.
    #[error("the txn-token and the countersignature are of different transactions (`txn`)")]
    OtherTransaction,
    /// A token is larger than a gate takes.
    #[error("the `{0}` has {1} bytes, and a gate takes at most {MAX_TOKEN_BYTES}")]
    TokenTooLarge(&'static str, usize),
    /// More headers than a gate takes.
    #[error("the record would have {0} headers, and a gate takes at most {MAX_HEADERS}")]
    TooManyHeaders(usize),
    /// Larger headers than a gate takes.
    #[error("the headers would have {0} bytes in all, and a gate takes at most {MAX_HEADER_BYTES}")]
    HeadersTooLarge(usize),
    /// One of the record's own headers has a name of the contract's five, in some case.
    #[error("the record has a header `{0}` of its own, which only the signer may write")]
    ReservedHeader(String),
    /// A header name that Kafka's clients cannot write.
    #[error("a header name is not UTF-8")]
    HeaderName,
    /// More signed names than a proof may have.
    #[error("{0} header names are to be signed, and a proof takes at most {MAX_SIGNED_NAMES}")]
    TooManySignedNames(usize),
    /// A name is to be signed twice, or is one of the five.
    #[error("the header name `{0}` cannot be signed: it is named twice, or is a token's")]
    SignedName(String),
    /// `action`, `resource` or `workflow` holds what no gate takes.
    #[error(
        "`{0}` holds a control character, an integer past 2^53 - 1 or a date past 2^53 s, or nests too deep"
    )]
    Asked(&'static str),
    /// The partition's number is negative.
    #[error("a partition is a number from 0")]
    Partition,
    /// The id is empty or longer than 128 characters.
    #[error("a `jti` has 1 to {MAX_JTI_CHARS} characters")]
    Jti,
    /// The key could not sign.
    #[error(transparent)]
    Sign(#[from] SignError),
}

impl Signer {
    /// A signer for `realm`. The WIT is the token as the issuer wrote it, without white space around it.
    ///
    /// # Errors
    /// The WIT is not well formed, or was issued to another key. Whether a gate trusts its issuer is not known here.
    pub fn new(key: SigningKey, wit: &str, realm: Realm) -> Result<Self, SignerError> {
        if wit.len() > MAX_TOKEN_BYTES {
            return Err(SignerError::TooLarge(wit.len()));
        }
        let identity = Identity::read(Jws::parse(wit.as_bytes(), TokenKind::WorkloadIdentity)?.payload())?;
        let own = key.public_jwk().as_object().and_then(|jwk| PublicKey::from_jwk(jwk).ok());
        if own.as_ref() != Some(&identity.key) || key.algorithm() != identity.algorithm {
            return Err(SignerError::OtherKey);
        }
        let wit_hash = token_hash(wit.as_bytes());
        let proof_life_s = DEFAULT_PROOF_LIFE_S;
        Ok(Self(Arc::new(Inner { key, wit: wit.into(), wit_hash, identity, realm, proof_life_s })))
    }

    /// The workload that signs.
    pub fn id(&self) -> &WorkloadId {
        &self.0.identity.subject
    }

    /// When the WIT ends, a NumericDate: renew before.
    pub fn expires_at(&self) -> f64 {
        self.0.identity.times.expires_at
    }

    /// The record's headers: its own, then its tokens with a proof that is good for 300 s (the most that a gate takes
    /// unless it is told otherwise), under the id `jti`, which must never be used again.
    ///
    /// # Errors
    /// What a gate would refuse, as far as it can be seen here.
    pub fn sign(
        &self,
        record: &Outgoing<'_>,
        asked: &Asked,
        tokens: &Tokens<'_>,
        now: UnixMillis,
        jti: &str,
    ) -> Result<Vec<Header>, SignRefused> {
        let me = &*self.0;
        check_moment(me, tokens, now)?;
        check_names(record)?;
        check_asked(asked)?;
        if jti.is_empty() || jti.chars().count() > MAX_JTI_CHARS {
            return Err(SignRefused::Jti);
        }
        if record.partition.is_some_and(|p| p.0 < 0) {
            return Err(SignRefused::Partition);
        }
        let issued = now.whole_seconds();
        let others = others(tokens);
        let claims = ProofClaims {
            aud: me.realm.audience(record.topic),
            iat: issued,
            exp: issued.saturating_add(me.proof_life_s.into()),
            jti,
            wth: me.wit_hash.to_string(),
            tth: tokens.transaction.map(|t| token_hash(t.as_bytes()).to_string()),
            oth: (!others.is_empty()).then_some(others),
            kafka: kafka(record),
            asked,
        };
        let proof = me.key.sign(TokenKind::WorkloadProof, &claims)?;
        let mut headers = record.headers.to_vec();
        let written = [
            (TokenKind::WorkloadIdentity, Some(me.wit.as_str())),
            (TokenKind::WorkloadProof, Some(proof.as_str())),
            (TokenKind::Transaction, tokens.transaction),
            (TokenKind::Countersignature, tokens.countersignature),
            (TokenKind::StepUpGrant, tokens.step_up_grant),
        ];
        for (kind, token) in written {
            let Some(token) = token else { continue };
            if token.len() > MAX_TOKEN_BYTES {
                return Err(SignRefused::TokenTooLarge(kind.header_name(), token.len()));
            }
            headers.push(Header::new(kind.header_name(), token.as_bytes().to_vec()));
        }
        check_sizes(&headers)?;
        Ok(headers)
    }
}

// By hand: the key and the WIT are credentials.
impl std::fmt::Debug for Signer {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Signer").field("id", self.id()).field("realm", &self.0.realm).finish_non_exhaustive()
    }
}

// By hand: live credentials.
impl std::fmt::Debug for Tokens<'_> {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Tokens")
            .field("transaction", &self.transaction.is_some())
            .field("countersignature", &self.countersignature.is_some())
            .field("step_up_grant", &self.step_up_grant.is_some())
            .finish()
    }
}

#[derive(Serialize)]
struct ProofClaims<'a> {
    aud: String,
    iat: i64,
    exp: i64,
    jti: &'a str,
    wth: String,
    #[serde(skip_serializing_if = "Option::is_none")]
    tth: Option<String>,
    #[serde(skip_serializing_if = "Option::is_none")]
    oth: Option<Map<String, Value>>,
    kafka: KafkaClaim<'a>,
    #[serde(flatten)]
    asked: &'a Asked,
}

#[derive(Serialize)]
struct KafkaClaim<'a> {
    key: Option<String>,
    value: Option<String>,
    #[serde(skip_serializing_if = "Option::is_none")]
    partition: Option<i32>,
    #[serde(skip_serializing_if = "Option::is_none")]
    headers: Option<HeadersClaim<'a>>,
}

#[derive(Serialize)]
struct HeadersClaim<'a> {
    names: &'a [&'a str],
    digest: String,
}

fn kafka<'a>(record: &Outgoing<'a>) -> KafkaClaim<'a> {
    let hash = |bytes| digests::of_bytes(bytes).map(|digest| digest.to_string());
    let names: Vec<String> = record.signed_headers.iter().map(|name| (*name).to_owned()).collect();
    let headers = (!names.is_empty()).then(|| HeadersClaim {
        names: record.signed_headers,
        digest: digests::of_headers(record.headers, &names).to_string(),
    });
    KafkaClaim {
        key: hash(record.key),
        value: hash(record.value),
        partition: record.partition.map(|p| p.0),
        headers,
    }
}

fn others(tokens: &Tokens<'_>) -> Map<String, Value> {
    [(TokenKind::Countersignature, tokens.countersignature), (TokenKind::StepUpGrant, tokens.step_up_grant)]
        .into_iter()
        .filter_map(|(kind, token)| {
            token
                .map(|t| (kind.header_name().to_owned(), Value::String(token_hash(t.as_bytes()).to_string())))
        })
        .collect()
}

/// Tokens that are over, or that a gate cannot take together.
fn check_moment(me: &Inner, tokens: &Tokens<'_>, now: UnixMillis) -> Result<(), SignRefused> {
    if me.identity.times.expired(now, 0) {
        return Err(SignRefused::IdentityExpired);
    }
    let domain = me.identity.subject.trust_domain();
    let transaction = match tokens.transaction {
        None => None,
        Some(token) => Some(read(token, TokenKind::Transaction, |payload| {
            Transaction::read(payload, domain.clone(), token_hash(token.as_bytes()))
        })?),
    };
    if let Some(transaction) = &transaction {
        if transaction.times().expired(now, 0) {
            return Err(SignRefused::TransactionExpired);
        }
        if !transaction.audience.contains(domain.as_str()) {
            return Err(SignRefused::Audience);
        }
    }
    if let Some(token) = tokens.countersignature {
        let carried =
            read(token, TokenKind::Countersignature, |p| Countersigned::read(p, transaction.is_some()))?;
        if carried.transaction.as_deref() != transaction.as_ref().map(|t| t.id.as_str()) {
            return Err(SignRefused::OtherTransaction);
        }
    }
    if let Some(token) = tokens.step_up_grant {
        read(token, TokenKind::StepUpGrant, GrantClaims::read)?;
    }
    Ok(())
}

fn read<T>(
    token: &str,
    kind: TokenKind,
    claims: impl FnOnce(&[u8]) -> Result<T, Malformed>,
) -> Result<T, SignRefused> {
    let name = kind.header_name();
    if token.len() > MAX_TOKEN_BYTES {
        return Err(SignRefused::TokenTooLarge(name, token.len()));
    }
    let jws = Jws::parse(token.as_bytes(), kind).map_err(|e| SignRefused::Jws(name, e))?;
    claims(jws.payload()).map_err(|e| SignRefused::Malformed(name, e))
}

fn check_names(record: &Outgoing<'_>) -> Result<(), SignRefused> {
    for header in record.headers {
        let name = std::str::from_utf8(&header.name).map_err(|_| SignRefused::HeaderName)?;
        if TokenKind::of_header(&header.name).is_some() {
            return Err(SignRefused::ReservedHeader(name.into()));
        }
    }
    if record.signed_headers.len() > MAX_SIGNED_NAMES {
        return Err(SignRefused::TooManySignedNames(record.signed_headers.len()));
    }
    let mut seen = BTreeSet::new();
    for name in record.signed_headers {
        if !seen.insert(*name) || TokenKind::of_header(name.as_bytes()).is_some() {
            return Err(SignRefused::SignedName((*name).into()));
        }
    }
    Ok(())
}

/// What a gate demands of these three (contract, section 2), looked at in the text that will be signed.
fn check_asked(asked: &Asked) -> Result<(), SignRefused> {
    // Values of serde_json nest at most as deep as they were read, or as their maker made them: then it is refused here.
    let text = serde_json::to_vec(asked).map_err(|_| SignRefused::Asked("action"))?;
    let members = json::parse_object(&text).map_err(|_| SignRefused::Asked("action"))?;
    for name in ["action", "resource", "workflow"] {
        let Some(member) = members.get(name) else { continue };
        if json::has_control(member) || !json::integers_are_safe(&members, &text, &[name]) {
            return Err(SignRefused::Asked(name));
        }
    }
    let dates = asked.workflow.iter().flat_map(|w| [w.started_at, w.deadline]).flatten();
    // Written so that NaN is refused: JSON has none, so it would be signed as `null`.
    if !dates.into_iter().all(|date| date.abs() <= MAX_NUMERIC_DATE) {
        return Err(SignRefused::Asked("workflow"));
    }
    Ok(())
}

fn check_sizes(headers: &[Header]) -> Result<(), SignRefused> {
    if headers.len() > MAX_HEADERS {
        return Err(SignRefused::TooManyHeaders(headers.len()));
    }
    let bytes = headers.iter().map(|h| h.name.len() + h.value.as_ref().map_or(0, bytes::Bytes::len)).sum();
    if bytes > MAX_HEADER_BYTES {
        return Err(SignRefused::HeadersTooLarge(bytes));
    }
    Ok(())
}
