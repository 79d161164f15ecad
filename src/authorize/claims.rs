//! The claims of the five tokens as types, read from strict JSON by the contract's sections 2, 6 and 7: which member is
//! there, of which type. Limits: form alone; whether a claim is true is for `identity` and `provenance`. What goes wrong
//! here is `context_malformed`, and the sentence names the member and the rule, never a value.

mod authentication;
mod grant;
mod login;
mod members;
mod times;

use std::collections::BTreeSet;
use std::sync::Arc;

use serde_json::{Map, Value};

use super::ids::{Digest, TrustDomain, UnixMillis, WorkloadId};
use super::jose::{Algorithm, PublicKey, TokenKind};
use super::json;
use super::limits::{MAX_ACT_DEPTH, MAX_JTI_CHARS};
use super::request::{Action, Resource, Workflow};
use super::text::Text;
use members::missing;
use times::micros;

pub use authentication::{Authentication, meets};
pub use grant::{GrantClaims, Verdict};
pub use login::LoginClaims;
pub(in crate::authorize) use members::Members;
pub use times::{Judged, Times};

/// A rule of form that a token breaks: a sentence without a subject, lowercase, no final period.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("{0}")]
pub struct Malformed(pub(super) String);

impl Malformed {
    /// The rule, in such a sentence.
    pub(super) fn new(rule: impl Into<String>) -> Self {
        Self(rule.into())
    }
}

/// `aud` where a list is allowed.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Audience {
    /// A string.
    One(String),
    /// A list of strings.
    Many(Vec<String>),
}

impl Audience {
    /// Whether it is that one, or a list of that one.
    pub fn is_only(&self, name: &str) -> bool {
        match self {
            Self::One(one) => one == name,
            Self::Many(many) => matches!(many.as_slice(), [only] if only == name),
        }
    }

    /// Whether it is that one, or a list that contains it.
    pub fn contains(&self, name: &str) -> bool {
        match self {
            Self::One(one) => one == name,
            Self::Many(many) => many.iter().any(|one| one == name),
        }
    }
}

/// The claims of a WIT (contract, section 2.1).
#[derive(Debug)]
pub struct Identity {
    /// `sub`: who it is.
    pub subject: WorkloadId,
    /// `exp`, `iat`, `nbf`.
    pub times: Times,
    /// `cnf.jwk`: the key that proofs are signed with.
    pub key: PublicKey,
    /// `cnf.jwk.alg`.
    pub algorithm: Algorithm,
    /// `cnf.jwk.kid`.
    pub key_id: Option<String>,
    /// `jti`.
    pub jti: Option<String>,
}

impl Identity {
    /// Reads the payload of a WIT.
    ///
    /// # Errors
    /// The first rule of form that it breaks.
    pub fn read(payload: &[u8]) -> Result<Self, Malformed> {
        let mut claims = Members::read(payload)?;
        let subject = claims.identifier("sub")?;
        let times = claims.times(false)?;
        claims.optional_text("iss")?;
        let jti = claims.optional_text("jti")?;
        let mut jwk = claims.object("cnf")?.object("jwk")?;
        let algorithm = Algorithm::parse(&jwk.text("alg")?).ok_or_else(|| {
            Malformed("has a `cnf.jwk.alg` other than ES256, EdDSA, RS256 and PS256".to_owned())
        })?;
        let key_id = jwk.optional_text("kid")?;
        let key =
            PublicKey::from_jwk(&jwk.map).map_err(|e| Malformed(format!("has a `cnf.jwk` that {e}")))?;
        if !key.algorithms().contains(&algorithm) {
            return Err(Malformed("has a `cnf.jwk` whose `alg` does not fit its `kty` and `crv`".to_owned()));
        }
        Ok(Self { subject, times, key, algorithm, key_id, jti })
    }
}

/// The claims of a Txn-Token (contract, section 2.3), with the trust domain that it is verified in.
#[derive(Debug, Clone)]
pub struct Transaction {
    /// `txn`.
    pub id: Text,
    /// `sub`, unique only inside the domain.
    pub subject: Text,
    /// `scope`, split at spaces.
    pub scope: BTreeSet<Text>,
    /// `req_wl`: the workload that asked for the token.
    pub requester: String,
    /// `iat`, in seconds.
    pub issued_at: f64,
    /// `exp`, in seconds.
    pub expires_at: f64,
    /// `nbf`, in seconds.
    pub not_before: Option<f64>,
    /// `aud`.
    pub audience: Audience,
    /// `tctx`.
    pub tctx: Option<Map<String, Value>>,
    /// `rctx`.
    pub rctx: Option<Map<String, Value>>,
    /// `acr`, `amr` and `auth_time` of `rctx`: how the subject has logged in.
    pub authentication: Authentication,
    /// `iss`.
    pub iss: Option<String>,
    /// `sub` of each nested `act`, outermost first; at most 8.
    pub actors: Vec<Option<String>>,
    /// `jti`.
    pub jti: Option<String>,
    /// The sender's trust domain, whose token service must have signed it.
    pub domain: TrustDomain,
    /// The hash of its bytes: `tth`.
    pub hash: Digest,
}

impl Transaction {
    /// Reads the payload of a Txn-Token that a sender of `domain` carries; `hash` is that of the whole token.
    ///
    /// # Errors
    /// The first rule of form that it breaks.
    pub fn read(payload: &[u8], domain: TrustDomain, hash: Digest) -> Result<Self, Malformed> {
        let mut claims = Members::read(payload)?;
        let issued_at = claims.date("iat")?;
        let times = claims.times(true)?;
        let audience = claims.audience("aud")?;
        let (id, subject) = (claims.text("txn")?.into(), claims.text("sub")?.into());
        let scope = claims.text("scope")?.split(' ').filter(|s| !s.is_empty()).map(Text::from).collect();
        let requester = claims.text("req_wl")?;
        let tctx = claims.optional_object("tctx")?.map(|members| members.map);
        let rctx = claims.optional_object("rctx")?;
        let authentication = rctx.as_ref().map(Authentication::read).transpose()?.unwrap_or_default();
        let (iss, jti) = (claims.optional_text("iss")?, claims.optional_text("jti")?);
        let mut actors = Vec::new();
        let mut next = claims.optional_object("act")?;
        while let Some(mut act) = next {
            if actors.len() == MAX_ACT_DEPTH {
                return Err(Malformed(format!("has more than {MAX_ACT_DEPTH} nested `act`s")));
            }
            actors.push(act.optional_text("sub")?);
            next = act.optional_object("act")?;
        }
        Ok(Self {
            id,
            subject,
            scope,
            requester,
            issued_at,
            expires_at: times.expires_at,
            not_before: times.not_before,
            audience,
            tctx,
            rctx: rctx.map(|members| members.map),
            authentication,
            iss,
            actors,
            jti,
            domain,
            hash,
        })
    }

    /// `exp`, `iat` and `nbf` together.
    pub fn times(&self) -> Times {
        Times { expires_at: self.expires_at, issued_at: Some(self.issued_at), not_before: self.not_before }
    }
}

/// `kafka.headers`: which headers a token speaks for (contract, section 2.2).
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct SignedHeaders {
    /// The names, in order; distinct, at most 64, none of the five.
    pub names: Vec<String>,
    /// The digest over them, as it is written.
    pub digest: String,
}

/// `kafka`: the digests of a record, as they are written.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct RecordDigests {
    /// Of the key; `None` says that the record has none.
    pub key: Option<String>,
    /// Of the value; `None` says that the record has none.
    pub value: Option<String>,
    /// The headers.
    pub headers: Option<SignedHeaders>,
}

/// What a WPT asks for and speaks for, once it is proven.
#[derive(Debug, Clone, PartialEq)]
pub struct Proof {
    /// `jti`, 1 to 128 code points.
    pub jti: String,
    /// `action`.
    pub action: Option<Action>,
    /// `resource`.
    pub resource: Option<Resource>,
    /// `workflow`.
    pub workflow: Option<Workflow>,
    /// The headers that may be read, because the proof covers them.
    pub signed_headers: Option<SignedHeaders>,
    /// `kafka.partition`.
    pub partition: Option<u64>,
}

/// The claims of a WPT (contract, section 2.2).
#[derive(Debug)]
pub struct ProofClaims {
    /// What is asked for.
    pub proof: Arc<Proof>,
    /// `aud`.
    pub audience: Audience,
    /// `exp`, `iat`, `nbf`.
    pub times: Times,
    /// `wth`.
    pub wit_hash: String,
    /// `tth`.
    pub transaction_hash: Option<String>,
    /// `oth`, empty if absent; the entries of tokens that are present are strings.
    pub other_hashes: Map<String, Value>,
    /// `kafka.key` and `kafka.value`.
    pub key: Option<String>,
    /// See `key`.
    pub value: Option<String>,
}

impl ProofClaims {
    /// Reads the payload of a WPT on a record that carries the tokens of `present` too.
    ///
    /// # Errors
    /// The first rule of form that it breaks, the proof's life included.
    pub fn read(payload: &[u8], proof_life_s: u32, present: &[TokenKind]) -> Result<Self, Malformed> {
        let mut claims = Members::read(payload)?;
        if !json::integers_are_safe(&claims.map, payload, &REQUEST_MEMBERS) {
            return Err(unsafe_integer());
        }
        let issued_at = claims.date("iat")?;
        Self::bare(&mut claims, issued_at, proof_life_s, present, |claims, jti| {
            let mut kafka = claims.object("kafka")?;
            let RecordDigests { key, value, headers } = kafka.digests()?;
            let proof = Proof {
                jti,
                partition: kafka.optional_count("partition")?,
                action: claims.shaped("action")?,
                resource: claims.shaped("resource")?,
                workflow: claims.shaped("workflow")?,
                signed_headers: headers,
            };
            Ok((proof, key, value))
        })
    }

    /// Reads the payload of a WPT on an HTTP request at `now` (WPT draft, section 2): `iat` may be absent, and its life is
    /// then counted from now. What it says of a record is not looked at.
    ///
    /// # Errors
    /// The first rule of form that it breaks, the proof's life included.
    pub fn read_request(
        payload: &[u8],
        proof_life_s: u32,
        present: &[TokenKind],
        now: UnixMillis,
    ) -> Result<Self, Malformed> {
        let mut claims = Members::read(payload)?;
        let issued_at = claims.optional_date("iat")?;
        // Over already: that is a matter of time, not of form.
        let from = issued_at.unwrap_or_else(|| now.as_seconds().min(claims.date("exp").unwrap_or(0.0) - 1.0));
        Self::bare(&mut claims, from, proof_life_s, present, |_, jti| {
            let (action, resource, workflow) = (None, None, None);
            let proof = Proof { jti, action, resource, workflow, signed_headers: None, partition: None };
            Ok((proof, None, None))
        })
    }

    /// What every WPT says; `said` reads what it says of a record, the digests of key and value among it.
    fn bare(
        claims: &mut Members,
        issued_at: f64,
        proof_life_s: u32,
        present: &[TokenKind],
        said: impl FnOnce(&mut Members, String) -> Result<(Proof, Option<String>, Option<String>), Malformed>,
    ) -> Result<Self, Malformed> {
        let audience = claims.audience("aud")?;
        let times = claims.times(false)?;
        let life = micros(times.expires_at) - micros(issued_at);
        if life <= 0 {
            return Err(Malformed("has an `exp` that is not after its `iat`".to_owned()));
        }
        if life > i128::from(proof_life_s) * 1_000_000 {
            return Err(Malformed(format!("lives longer than {proof_life_s} s")));
        }
        claims.optional_text("iss")?;
        let jti = claims.text("jti")?;
        if !(1..=MAX_JTI_CHARS).contains(&jti.chars().count()) {
            return Err(Malformed(format!("has a `jti` that is not 1 to {MAX_JTI_CHARS} code points long")));
        }
        let wit_hash = claims.text("wth")?;
        let transaction_hash = claims.optional_text("tth")?;
        let other_hashes = claims.optional_object("oth")?.map(|members| members.map).unwrap_or_default();
        for kind in present {
            if other_hashes.get(kind.header_name()).is_some_and(|entry| !entry.is_string()) {
                return Err(Malformed(format!("needs `oth.{}` to be a string", kind.header_name())));
            }
        }
        let (proof, key, value) = said(claims, jti)?;
        Ok(Self {
            proof: Arc::new(proof),
            audience,
            times,
            wit_hash,
            transaction_hash,
            other_hashes,
            key,
            value,
        })
    }
}

/// The claims of a countersignature (contract, section 6).
#[derive(Debug)]
pub struct Countersigned {
    /// `iss`: the gate.
    pub gate: WorkloadId,
    /// `aud`, a string.
    pub audience: String,
    /// `exp`, `iat`, `nbf`.
    pub times: Times,
    /// `jti`: the decision's id.
    pub decision: String,
    /// `sub`, then each nested `act.sub`: the senders before, newest first.
    pub senders: Vec<WorkloadId>,
    /// `txn`.
    pub transaction: Option<String>,
    /// `tth`.
    pub transaction_hash: Option<String>,
    /// `action`, as decided.
    pub action: Action,
    /// `resource`, as decided.
    pub resource: Resource,
    /// `workflow`, as decided.
    pub workflow: Option<Workflow>,
    /// The record as it was forwarded.
    pub digests: RecordDigests,
    /// `policy`.
    pub policy: String,
    /// `source`.
    pub source: String,
}

impl Countersigned {
    /// Reads the payload of a countersignature; `with_transaction` where the record that carries it has a `txn-token`.
    ///
    /// # Errors
    /// The first rule of form that it breaks.
    pub fn read(payload: &[u8], with_transaction: bool) -> Result<Self, Malformed> {
        let mut claims = Members::read(payload)?;
        if !json::integers_are_safe(&claims.map, payload, &REQUEST_MEMBERS) {
            return Err(unsafe_integer());
        }
        let gate = claims.identifier("iss")?;
        let audience = claims.text("aud")?;
        claims.date("iat")?;
        let times = claims.times(true)?;
        let decision = claims.text("jti")?;
        let mut senders = vec![claims.identifier("sub")?];
        let mut next = claims.optional_object("act")?;
        while let Some(mut act) = next {
            senders.push(act.identifier("sub")?);
            next = act.optional_object("act")?;
        }
        let transaction = claims.optional_text("txn")?;
        let transaction_hash = claims.optional_text("tth")?;
        let mut kafka = claims.object("kafka")?;
        let digests = kafka.digests()?;
        let claims = Self {
            gate,
            audience,
            times,
            decision,
            senders,
            transaction,
            transaction_hash,
            action: claims.shaped("action")?.ok_or_else(|| missing("action"))?,
            resource: claims.shaped("resource")?.ok_or_else(|| missing("resource"))?,
            workflow: claims.shaped("workflow")?,
            digests,
            policy: claims.text("policy")?,
            source: claims.text("source")?,
        };
        claims.fits(with_transaction)?;
        Ok(claims)
    }

    /// Whether `txn` and `tth` are there where the record that carries the countersignature has a `txn-token`.
    ///
    /// # Errors
    /// The member that is missing.
    pub fn fits(&self, with_transaction: bool) -> Result<(), Malformed> {
        match (with_transaction, &self.transaction, &self.transaction_hash) {
            (true, None, _) => Err(missing("txn")),
            (true, _, None) => Err(missing("tth")),
            _ => Ok(()),
        }
    }
}

const REQUEST_MEMBERS: [&str; 3] = ["action", "resource", "workflow"];

fn unsafe_integer() -> Malformed {
    Malformed("has an integer past 2^53 - 1 in `action`, `resource` or `workflow`".to_owned())
}

#[cfg(test)]
mod tests;
