//! Where work comes from: the countersignature that a record continues is verified, and the one for the next hop is
//! written (contract, section 6). Limits: a chain is as honest as the gates whose keys are configured; a sender can leave
//! the header out, which only a route's `require` forbids.

use serde::Serialize;

use super::claims::{Countersigned, Malformed, RecordDigests};
use super::context::Claimed;
use super::decision::{Denial, Reason};
use super::digests;
use super::identity::{Rules, Verified, check_signature, check_time, remembered};
use super::ids::{DecisionId, Digest, Realm, Topic, UnixMillis, WorkloadId};
use super::jose::{Jws, TokenKind, token_hash};
use super::limits::{MAX_CHAIN, MAX_TOKEN_BYTES};
use super::record::{Header, Record};
use super::request::{Action, Request, Resource, Workflow};
use super::route::{Gate, Route};
use super::token_cache::Kept;
use super::trust::Trust;

const KIND: TokenKind = TokenKind::Countersignature;

/// The work that a record continues. Made by [`Chain::verify`] alone.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Chain {
    /// The topic that the countersignature was made out for; `None` where no gate stood before.
    pub from: Option<Topic>,
    /// The senders before, newest first: at most 7.
    pub senders: Vec<WorkloadId>,
    /// The gate that countersigned.
    pub gate: Option<WorkloadId>,
    // INVARIANT: keeps every other module from making one.
    _sealed: Sealed,
}

/// Nobody outside this file can name it.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
struct Sealed;

impl Chain {
    /// Verifies the countersignature of a record whose sender is known: algorithm, key, signature, audience, time at
    /// *E*, `txn`, then depth. A record without one begins its work.
    ///
    /// # Errors
    /// `chain_invalid` or `chain_too_deep`; a bad countersignature is never ignored.
    pub fn verify(claimed: &Claimed<'_>, verified: &Verified, rules: &Rules<'_>) -> Result<Self, Denial> {
        let Some(presented) = &claimed.countersignature else {
            return Ok(Self { from: None, senders: Vec::new(), gate: None, _sealed: Sealed });
        };
        let claims = &presented.claims;
        let invalid = |denial: Denial| Denial::new(Reason::ChainInvalid, denial.detail);
        if remembered(presented.verified_under, rules) {
            rules.cache.count(true);
        } else {
            rules.cache.count(false);
            let jws = presented.jws(KIND)?;
            let domain = claims.gate.trust_domain();
            check_signature(KIND, &jws, domain, |domain| &domain.gates, rules.trust).map_err(invalid)?;
            let kept = Kept::Countersignature(claims.clone());
            rules.cache.insert(presented.hash, presented.entry(kept, rules.trust.version()));
        }
        let from = continued(claims, rules)?;
        check_time(KIND, &claims.times, verified.accepted, rules.route.skew_s).map_err(invalid)?;
        if claims.transaction.as_deref() != verified.transaction.as_ref().map(|t| t.id.as_str()) {
            let detail = "the `countersignature` is of another transaction than the record's";
            return Err(Denial::new(Reason::ChainInvalid, detail));
        }
        if claims.senders.len() + 1 > MAX_CHAIN {
            let detail = format!("the work has passed through more than {MAX_CHAIN} senders");
            return Err(Denial::new(Reason::ChainTooDeep, detail));
        }
        let senders = claims.senders.clone();
        Ok(Self { from: Some(from), senders, gate: Some(claims.gate.clone()), _sealed: Sealed })
    }

    /// How many senders the work has had, this one included: 1 to 8.
    pub fn depth(&self) -> usize {
        self.senders.len() + 1
    }

    /// Who began the work: the oldest sender, or this one.
    pub fn origin<'a>(&'a self, sender: &'a WorkloadId) -> &'a WorkloadId {
        self.senders.last().unwrap_or(sender)
    }
}

/// The topic that the countersignature was made out for: of this realm, and one that the route continues from.
fn continued(claims: &Countersigned, rules: &Rules<'_>) -> Result<Topic, Denial> {
    let invalid = |detail| Denial::new(Reason::ChainInvalid, detail);
    let topic = claims
        .audience
        .strip_prefix("kafka://")
        .and_then(|rest| rest.strip_prefix(rules.realm.as_str()))
        .and_then(|rest| rest.strip_prefix('/'))
        .and_then(|topic| Topic::parse(topic).ok())
        .ok_or_else(|| invalid("the `countersignature` is not made out for a topic of this realm"))?;
    match &rules.route.continues_from {
        Some(topics) if !topics.contains(&topic) => Err(invalid(
            "the `countersignature` is made out for a topic that this route does not continue from",
        )),
        _ => Ok(topic),
    }
}

/// A record that is to be forwarded, and what was decided about it.
#[derive(Debug, Clone, Copy)]
pub struct Forwarding<'a> {
    /// The gate that signs.
    pub gate: &'a Gate,
    /// The record's route.
    pub route: &'a Route,
    /// The record as read.
    pub record: &'a Record,
    /// Its headers as they will be forwarded, but for the countersignature itself.
    pub headers: &'a [Header],
    /// Who sent it.
    pub verified: &'a Verified,
    /// What it continues.
    pub chain: &'a Chain,
    /// What was decided.
    pub request: &'a Request,
    /// The digest of the policy bundle that decided.
    pub bundle: Digest,
    /// The decision's id.
    pub id: DecisionId,
    /// *N*.
    pub now: UnixMillis,
}

/// The claims of a countersignature as they are written.
#[derive(Serialize)]
struct Claims<'a> {
    iss: &'a str,
    aud: String,
    iat: i64,
    exp: i64,
    jti: String,
    sub: &'a str,
    #[serde(skip_serializing_if = "Option::is_none")]
    act: Option<Act<'a>>,
    #[serde(skip_serializing_if = "Option::is_none")]
    txn: Option<&'a str>,
    #[serde(skip_serializing_if = "Option::is_none")]
    tth: Option<String>,
    action: &'a Action,
    resource: &'a Resource,
    #[serde(skip_serializing_if = "Option::is_none")]
    workflow: Option<&'a Workflow>,
    kafka: Kafka<'a>,
    policy: String,
    source: String,
}

/// RFC 8693, section 4.1: the newest actor outermost.
#[derive(Serialize)]
struct Act<'a> {
    sub: &'a str,
    #[serde(skip_serializing_if = "Option::is_none")]
    act: Option<Box<Act<'a>>>,
}

#[derive(Serialize)]
struct Kafka<'a> {
    key: Option<String>,
    value: Option<String>,
    #[serde(skip_serializing_if = "Option::is_none")]
    headers: Option<Names<'a>>,
}

#[derive(Serialize)]
struct Names<'a> {
    names: &'a [String],
    digest: String,
}

/// Writes the countersignature of a record that is forwarded (contract, section 6).
///
/// # Errors
/// `context_too_large` if it would pass 8 KiB. `undeliverable` if the gate's key cannot sign: the record is not at fault,
/// and must not go out without.
pub fn countersign(forwarding: &Forwarding<'_>) -> Result<String, Denial> {
    let Forwarding { gate, route, verified, request, .. } = *forwarding;
    // The oldest is nested deepest, so the chain is wrapped from its end.
    let mut act: Option<Act<'_>> = None;
    for sender in forwarding.chain.senders.iter().rev() {
        act = Some(Act { sub: sender.as_str(), act: act.map(Box::new) });
    }
    let signed = verified.proof.as_ref().and_then(|proof| proof.signed_headers.as_ref());
    let iat = forwarding.now.whole_seconds();
    let claims = Claims {
        iss: gate.id.as_str(),
        aud: gate.realm.audience(&route.to),
        iat,
        exp: iat.saturating_add(i64::from(route.receipt_life_s)),
        jti: forwarding.id.to_string(),
        sub: verified.sender.as_str(),
        act,
        txn: verified.transaction.as_ref().map(|t| t.id.as_str()),
        tth: verified.transaction.as_ref().map(|t| t.hash.to_string()),
        action: &request.action,
        resource: &request.resource,
        workflow: request.workflow.as_ref(),
        kafka: Kafka {
            key: verified.key.map(|digest| digest.to_string()),
            value: verified.value.map(|digest| digest.to_string()),
            headers: signed.map(|signed| Names {
                names: &signed.names,
                digest: digests::of_headers(forwarding.headers, &signed.names).to_string(),
            }),
        },
        policy: forwarding.bundle.to_string(),
        source: forwarding.record.source.to_string(),
    };
    let token = gate.key.sign(KIND, &claims).map_err(|e| {
        Denial::new(Reason::Undeliverable, format!("the record could not be countersigned: {e}"))
    })?;
    if token.len() > MAX_TOKEN_BYTES {
        let detail =
            format!("the countersignature of the record would be larger than {MAX_TOKEN_BYTES} bytes");
        return Err(Denial::new(Reason::ContextTooLarge, detail));
    }
    Ok(token)
}

/// Verifies the countersignature on a forwarded record, as a worker does, offline: signature, `typ`, `aud`, `exp` when
/// the broker took the record, `tth`, and the digests (contract, section 6). `accepted` is that moment.
///
/// # Errors
/// The first check that fails, by the reason that a gate would give for such a fault in a token of its own.
pub fn verify_countersignature(
    record: &Record,
    realm: &Realm,
    trust: &Trust,
    accepted: UnixMillis,
    skew_s: u32,
) -> Result<Countersigned, Denial> {
    let token = only_token(record, KIND)?
        .ok_or_else(|| Denial::new(Reason::ContextMissing, "the record has no `countersignature`"))?;
    let transaction = only_token(record, TokenKind::Transaction)?;
    let malformed = |problem: &Malformed| {
        Denial::new(Reason::ContextMalformed, format!("the `countersignature` {problem}"))
    };
    let jws = Jws::parse(token, KIND).map_err(|e| malformed(&Malformed(e.to_string())))?;
    let claims = Countersigned::read(jws.payload(), transaction.is_some()).map_err(|e| malformed(&e))?;
    check_signature(KIND, &jws, claims.gate.trust_domain(), |domain| &domain.gates, trust)?;
    if claims.audience != realm.audience(&record.source.topic) {
        let detail = "the `countersignature` is made out for another topic or realm";
        return Err(Denial::new(Reason::AudienceMismatch, detail));
    }
    check_time(KIND, &claims.times, accepted, skew_s)?;
    let mismatch =
        |what: &str| Err(Denial::new(Reason::ProofMismatch, format!("the `countersignature` is of {what}")));
    if !digests::are_written(transaction.map(token_hash), claims.transaction_hash.as_deref()) {
        return mismatch("another `txn-token` than the record's");
    }
    let RecordDigests { key, value, headers } = &claims.digests;
    let same = |bytes: Option<&[u8]>, written: &Option<String>| {
        digests::are_written(digests::of_bytes(bytes), written.as_deref())
    };
    if !same(record.key.as_deref(), key) {
        return mismatch("another key");
    }
    if !same(record.value.as_deref(), value) {
        return mismatch("another value");
    }
    if let Some(signed) = headers
        && !digests::of_headers(&record.headers, &signed.names).is_written(&signed.digest)
    {
        return mismatch("other headers");
    }
    Ok(claims)
}

/// The one token of a kind on a forwarded record, by the rules of a gate: its name in no other case and not twice, its
/// value not null and within its bound.
fn only_token(record: &Record, kind: TokenKind) -> Result<Option<&[u8]>, Denial> {
    let name = kind.header_name();
    let mut found = None;
    for header in record.headers.iter().filter(|header| TokenKind::of_header(&header.name) == Some(kind)) {
        let detail = match (&header.value, found) {
            _ if header.name != name.as_bytes() => "is written in another case",
            (None, _) => "is null",
            (Some(_), Some(_)) => "is there twice",
            (Some(value), None) if value.len() > MAX_TOKEN_BYTES => {
                let detail = format!("the header `{name}` is larger than {MAX_TOKEN_BYTES} bytes");
                return Err(Denial::new(Reason::ContextTooLarge, detail));
            }
            (Some(value), None) => {
                found = Some(&value[..]);
                continue;
            }
        };
        return Err(Denial::new(Reason::ContextMalformed, format!("the header `{name}` {detail}")));
    }
    Ok(found)
}

#[cfg(test)]
mod tests;
