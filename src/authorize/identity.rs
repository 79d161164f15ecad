//! Claimed context, keys and the moment of acceptance to a verified sender, or to a reason: the whole stage `identity`
//! (contract, sections 2 to 4 and 8), each token in the order algorithm, key, signature, audience, time, proof. Limits:
//! nothing is forgiven and nothing is changed. Only this file makes a [`Verified`].

use std::sync::Arc;

use super::claims::{Identity, Judged, ProofClaims, Times};
use super::context::{Claimed, ClaimedSender, Presented};
use super::decision::{Denial, Reason};
use super::digests;
use super::ids::{Digest, Offset, Realm, TrustDomain, UnixMillis, WorkloadId};
use super::jose::{Algorithm, Jws, KeyChoice, KeySet, TokenKind};
use super::record::{Record, TimestampType};
use super::replay::{Entry, Memory, Seen};
use super::route::{ReplayRule, Route, TokenExpiry};
use super::token_cache::Kept;
use super::trust::{Domain, Trust};
use super::x509::{Peer, PeerError};

pub use super::claims::{Proof, SignedHeaders, Transaction};
pub use super::token_cache::TokenCache;

/// What a record is judged by: the same for every record of a batch on one route.
#[derive(Debug, Clone, Copy)]
pub struct Rules<'a> {
    /// The realm that the gate serves.
    pub realm: &'a Realm,
    /// The record's route.
    pub route: &'a Route,
    /// Whose signatures count.
    pub trust: &'a Trust,
    /// What was verified before.
    pub cache: &'a TokenCache,
    /// *N*.
    pub now: UnixMillis,
    /// How many partitions the record's topic has.
    pub source_partitions: i32,
    /// *E* of a held record, which its hold has kept: neither replay nor how long it waited is judged again.
    pub held: Option<UnixMillis>,
}

/// A record whose sender is known, or a caller over HTTP. Made by [`verify`] and [`verify_caller`] alone.
#[derive(Debug, Clone)]
pub struct Verified {
    /// Who sent it.
    pub sender: WorkloadId,
    /// Whether the sender proved it; else it is taken on the word of the topic's access control.
    pub proven: bool,
    /// *E*.
    pub accepted: UnixMillis,
    /// On whose behalf.
    pub transaction: Option<Arc<Transaction>>,
    /// What the sender signed for this record; `None` if it is not proven.
    pub proof: Option<Arc<Proof>>,
    /// The digest of the record's key; `None` over HTTP.
    pub key: Option<Digest>,
    /// The digest of the record's value; `None` over HTTP.
    pub value: Option<Digest>,
    /// What must be remembered with the decision, whatever it will be; `None` if there is no proof to be copied.
    pub replay: Option<Entry>,
    // INVARIANT: keeps every other module from making one.
    _sealed: Sealed,
}

/// Nobody outside this file can name it.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
struct Sealed;

/// What had been verified before a record was refused.
#[derive(Debug, Clone)]
pub struct Known {
    /// *E*.
    pub accepted: UnixMillis,
    /// The sender, once its proof of this record held: an identity token alone proves nobody. Where the route takes a
    /// record without proof from somebody, that identity.
    pub sender: Option<WorkloadId>,
    /// The transaction, once its token held.
    pub transaction: Option<Arc<Transaction>>,
}

/// A record refused at this stage.
#[derive(Debug, Clone, thiserror::Error)]
#[error("{denial}")]
pub struct Refused {
    /// Why.
    pub denial: Denial,
    /// What is known nevertheless.
    pub known: Known,
}

/// *E*: when the broker took the record, as far as its timestamp can be believed (contract, section 3).
pub fn accepted(record: &Record, route: &Route, now: UnixMillis) -> UnixMillis {
    match (record.timestamp_type, record.timestamp) {
        (TimestampType::LogAppendTime, Some(at)) => at,
        (TimestampType::CreateTime, Some(at)) if route.trust_create_time => at,
        _ => now,
    }
}

/// Verifies the claimed context of a record.
///
/// # Errors
/// The first check that fails, with what was known by then.
pub fn verify(
    record: &Record,
    claimed: &Claimed<'_>,
    rules: &Rules<'_>,
    memory: &Memory,
) -> Result<Verified, Refused> {
    let accepted = rules.held.unwrap_or_else(|| accepted(record, rules.route, rules.now));
    let mut known = Known { accepted, sender: None, transaction: None };
    match check(record, claimed, rules, memory, &mut known) {
        Ok(verified) => Ok(verified),
        Err(denial) => Err(Refused { denial, known }),
    }
}

/// Verifies who asks over HTTP: by a proof that is made out for `audience`, the target URI (WPT draft, section 4), or by the
/// connection alone where no such token goes along; where both are there, both, and they must name the same workload. There
/// is no record: *E* is *N*. `once` is asked last whether this is the proof's first use, and remembers it: a proof is good
/// for one request.
///
/// # Errors
/// The first check that fails, with what was known by then.
pub fn verify_caller(
    claimed: &Claimed<'_>,
    audience: &str,
    rules: &Rules<'_>,
    once: impl FnOnce(&Entry) -> bool,
) -> Result<Verified, Refused> {
    let accepted = rules.now;
    let mut known = Known { accepted, sender: None, transaction: None };
    let check = || {
        if let Some(peer) = claimed.channel {
            peer.check(rules.trust, rules.now).map_err(|error| PeerError::denial(&error))?;
        }
        match &claimed.sender {
            ClaimedSender::Channel(peer) => {
                let sender = peer.id();
                known.transaction = carried_by(sender, claimed, accepted, rules)?;
                known.sender = Some(sender.clone());
                // The connection is nobody else's, and what went over it was not seen: there is nothing to be copied.
                Ok((sender.clone(), None, None))
            }
            ClaimedSender::Signed { identity, proof, claims, .. } => {
                check_identity(identity, accepted, rules)?;
                let sender = &identity.claims.subject;
                known.transaction = carried_by(sender, claimed, accepted, rules)?;
                check_signed(&identity.claims, proof, rules)?;
                if !claims.audience.is_only(audience) {
                    let detail = "the `workload-proof-token` is not made out for this address alone";
                    return Err(Denial::new(Reason::AudienceMismatch, detail));
                }
                check_time(TokenKind::WorkloadProof, &claims.times, accepted, rules.route.skew_s)?;
                check_bound(claimed, claims)?;
                check_same(sender, claimed.channel)?;
                known.sender = Some(sender.clone());
                let entry = Entry::new(sender, &claims.proof.jti, NOWHERE, accepted);
                if !once(&entry) {
                    return Err(Denial::new(
                        Reason::Replayed,
                        "the proof was used before on another request",
                    ));
                }
                Ok((sender.clone(), Some(claims.proof.clone()), Some(entry)))
            }
            ClaimedSender::Unproven(_) => {
                Err(Denial::new(Reason::ContextMissing, "the request lacks the proof of its sender"))
            }
        }
    };
    match check() {
        Ok((sender, proof, replay)) => Ok(Verified {
            sender,
            proven: true,
            accepted,
            transaction: known.transaction,
            proof,
            key: None,
            value: None,
            replay,
            _sealed: Sealed,
        }),
        Err(denial) => Err(Refused { denial, known }),
    }
}

/// The transaction that goes along with what a sender asks, verified, if there is one.
fn carried_by(
    sender: &WorkloadId,
    claimed: &Claimed<'_>,
    accepted: UnixMillis,
    rules: &Rules<'_>,
) -> Result<Option<Arc<Transaction>>, Denial> {
    let Some(carried) = &claimed.transaction else { return Ok(None) };
    check_carried(carried, sender.trust_domain(), accepted, rules)?;
    Ok(Some(carried.claims.clone()))
}

/// That the tokens and the connection prove one workload: nobody asks in another's name over its own connection.
fn check_same(sender: &WorkloadId, channel: Option<&Peer>) -> Result<(), Denial> {
    match channel {
        Some(peer) if peer.id() != sender => {
            let detail = "the `workload-identity-token` names another workload than the client certificate";
            Err(Denial::new(Reason::ProofMismatch, detail))
        }
        _ => Ok(()),
    }
}

/// Where a request over HTTP stands.
const NOWHERE: Offset = Offset(-1);

fn check(
    record: &Record,
    claimed: &Claimed<'_>,
    rules: &Rules<'_>,
    memory: &Memory,
    known: &mut Known,
) -> Result<Verified, Denial> {
    let accepted = known.accepted;
    let sender = match &claimed.sender {
        ClaimedSender::Signed { identity, .. } => {
            check_identity(identity, accepted, rules)?;
            &identity.claims.subject
        }
        // A record comes over no connection, so this is never reached; if it were, it would prove nothing of a record.
        ClaimedSender::Channel(_) => {
            return Err(Denial::new(Reason::ContextMissing, "the record lacks the proof of its sender"));
        }
        ClaimedSender::Unproven(sender) => {
            // The route says so, whatever the tokens are worth.
            known.sender = Some(sender.clone());
            sender
        }
    };
    if let Some(carried) = &claimed.transaction {
        check_carried(carried, sender.trust_domain(), accepted, rules)?;
        known.transaction = Some(carried.claims.clone());
    }
    let (proof, replay) = match &claimed.sender {
        ClaimedSender::Signed { identity, proof, claims, .. } => {
            check_proof(record, claimed, &identity.claims, proof, claims, accepted, rules)?;
            known.sender = Some(sender.clone());
            let entry = match rules.held {
                // It was judged and remembered when the record was held.
                Some(_) => None,
                None => {
                    let entry = Entry::new(sender, &claims.proof.jti, record.source.offset, accepted);
                    check_replay(record, claims, &entry, rules, memory)?;
                    Some(entry)
                }
            };
            (Some(claims.proof.clone()), entry)
        }
        ClaimedSender::Channel(_) | ClaimedSender::Unproven(_) => (None, None),
    };
    if rules.held.is_none() {
        check_own_time(accepted, rules)?;
    }
    Ok(Verified {
        sender: sender.clone(),
        proven: proof.is_some(),
        accepted,
        transaction: known.transaction.clone(),
        proof,
        key: claimed.key,
        value: claimed.value,
        replay,
        _sealed: Sealed,
    })
}

/// The WIT: signature, then time.
fn check_identity(
    identity: &Presented<'_, Identity>,
    accepted: UnixMillis,
    rules: &Rules<'_>,
) -> Result<(), Denial> {
    let kind = TokenKind::WorkloadIdentity;
    let subject = &identity.claims.subject;
    if remembered(identity.verified_under, rules) {
        rules.cache.count(true);
    } else {
        rules.cache.count(false);
        let jws = identity.jws(kind)?;
        check_signature(kind, &jws, subject.trust_domain(), |domain| &domain.bundle, rules.trust)?;
        let entry = identity.entry(Kept::Identity(identity.claims.clone()), rules.trust.version());
        rules.cache.insert(identity.hash, entry);
    }
    check_time(kind, &identity.claims.times, accepted, rules.route.skew_s)
}

/// The Txn-Token, in the sender's domain: signature, then audience and time.
fn check_carried(
    carried: &Presented<'_, Transaction>,
    domain: &TrustDomain,
    accepted: UnixMillis,
    rules: &Rules<'_>,
) -> Result<(), Denial> {
    let kind = TokenKind::Transaction;
    let transaction = &carried.claims;
    if remembered(carried.verified_under, rules) && transaction.domain == *domain {
        rules.cache.count(true);
    } else {
        rules.cache.count(false);
        let jws = carried.jws(kind)?;
        check_signature(kind, &jws, domain, |domain| &domain.token_service, rules.trust)?;
        let entry = carried.entry(Kept::Transaction(transaction.clone()), rules.trust.version());
        rules.cache.insert(carried.hash, entry);
    }
    check_transaction(transaction, domain, accepted, rules)
}

/// Whether a token's signature was verified under the trust of this moment.
pub(super) fn remembered(verified_under: Option<Digest>, rules: &Rules<'_>) -> bool {
    verified_under == Some(rules.trust.version())
}

/// Algorithm, key and signature of a token that keys of a trust domain sign. Which set of the domain is the caller's to
/// say: keys of one kind never sign tokens of another.
pub(crate) fn check_signature(
    kind: TokenKind,
    jws: &Jws<'_>,
    domain: &TrustDomain,
    keys: impl FnOnce(&Domain) -> &KeySet,
    trust: &Trust,
) -> Result<(), Denial> {
    let name = kind.header_name();
    let algorithm = Algorithm::parse(jws.alg())
        .filter(|algorithm| trust.algorithms(domain).contains(algorithm))
        .ok_or_else(|| {
            let detail =
                format!("the `{name}` is signed with an algorithm that is not allowed for `{domain}`");
            Denial::new(Reason::AlgorithmNotAllowed, detail)
        })?;
    let known = trust.domain(domain).ok_or_else(|| {
        let detail = format!("the `{name}` is of the trust domain `{domain}`, which is not configured");
        Denial::new(Reason::IssuerUnknown, detail)
    })?;
    let key = keys(known).select(jws.kid(), algorithm).map_err(|choice| match choice {
        KeyChoice::Unknown => Denial::new(
            Reason::IssuerUnknown,
            format!("the `{name}` is signed with a key that `{domain}` does not have for such tokens"),
        ),
        KeyChoice::WrongAlgorithm => Denial::new(
            Reason::AlgorithmNotAllowed,
            format!("the `{name}` is signed with an algorithm that is not its key's"),
        ),
    })?;
    if !key.verify(algorithm, jws.signing_input(), jws.signature()) {
        return Err(Denial::new(
            Reason::SignatureInvalid,
            format!("the signature of the `{name}` does not hold"),
        ));
    }
    Ok(())
}

/// Judges a token's times at a moment: expiry first.
pub(super) fn check_time(kind: TokenKind, times: &Times, at: UnixMillis, skew_s: u32) -> Result<(), Denial> {
    let name = kind.header_name();
    match times.judge(at, skew_s) {
        Judged::Valid => Ok(()),
        Judged::Expired => Err(Denial::new(
            Reason::TokenExpired,
            format!("the `{name}` had expired at the moment of acceptance"),
        )),
        Judged::NotYetValid => Err(Denial::new(
            Reason::TokenNotYetValid,
            format!("the `{name}` was not yet valid at the moment of acceptance"),
        )),
    }
}

fn check_transaction(
    transaction: &Transaction,
    domain: &TrustDomain,
    accepted: UnixMillis,
    rules: &Rules<'_>,
) -> Result<(), Denial> {
    let skew_s = rules.route.skew_s;
    if !transaction.audience.contains(domain.as_str()) {
        let detail = format!("the `txn-token` is not meant for `{domain}`, the sender's trust domain");
        return Err(Denial::new(Reason::AudienceMismatch, detail));
    }
    let times = transaction.times();
    let also_now = rules.route.token_expiry == TokenExpiry::Now;
    if !times.expired(accepted, skew_s) && also_now && times.expired(rules.now, skew_s) {
        let detail = "the `txn-token` has expired, and this route wants it alive when it decides";
        return Err(Denial::new(Reason::TokenExpired, detail));
    }
    check_time(TokenKind::Transaction, &times, accepted, skew_s)
}

fn check_proof(
    record: &Record,
    claimed: &Claimed<'_>,
    identity: &Identity,
    jws: &Jws<'_>,
    claims: &ProofClaims,
    accepted: UnixMillis,
    rules: &Rules<'_>,
) -> Result<(), Denial> {
    check_signed(identity, jws, rules)?;
    if !claims.audience.is_only(&rules.realm.audience(&record.source.topic)) {
        let detail = "the `workload-proof-token` is not made out for this topic of this realm alone";
        return Err(Denial::new(Reason::AudienceMismatch, detail));
    }
    check_time(TokenKind::WorkloadProof, &claims.times, accepted, rules.route.skew_s)?;
    check_bound(claimed, claims)?;
    if claims.proof.partition.is_some_and(|named| u64::try_from(record.source.partition.0) != Ok(named)) {
        return mismatch("names another partition");
    }
    if !digests::are_written(claimed.key, claims.key.as_deref()) {
        return mismatch("is of another key");
    }
    if !digests::are_written(claimed.value, claims.value.as_deref()) {
        return mismatch("is of another value");
    }
    if let Some(signed) = &claims.proof.signed_headers
        && !digests::of_headers(&record.headers, &signed.names).is_written(&signed.digest)
    {
        return mismatch("is of other headers");
    }
    Ok(())
}

/// The proof's algorithm and signature.
fn check_signed(identity: &Identity, jws: &Jws<'_>, rules: &Rules<'_>) -> Result<(), Denial> {
    let deny =
        |reason, detail: &str| Err(Denial::new(reason, format!("the `workload-proof-token` {detail}")));
    if jws.alg() != identity.algorithm.as_str() {
        return deny(Reason::AlgorithmNotAllowed, "is signed with another algorithm than its identity's key");
    }
    if !rules.trust.algorithms(identity.subject.trust_domain()).contains(&identity.algorithm) {
        return deny(
            Reason::AlgorithmNotAllowed,
            "is signed with an algorithm that its domain does not allow",
        );
    }
    if !identity.key.verify(identity.algorithm, jws.signing_input(), jws.signature()) {
        return deny(Reason::SignatureInvalid, "is not signed with the key of its identity");
    }
    Ok(())
}

/// That the proof binds the other tokens, each of them and no more.
fn check_bound(claimed: &Claimed<'_>, claims: &ProofClaims) -> Result<(), Denial> {
    let bound = |kind, hash: Option<&str>| digests::are_written(claimed.hash(kind), hash);
    if !bound(TokenKind::WorkloadIdentity, Some(&claims.wit_hash)) {
        return mismatch("is bound to another `workload-identity-token`");
    }
    if !bound(TokenKind::Transaction, claims.transaction_hash.as_deref()) {
        return mismatch("is not bound to the `txn-token` that goes along, or does not");
    }
    let mut others = 0;
    for kind in [TokenKind::Countersignature, TokenKind::StepUpGrant] {
        if let Some(hash) = claimed.hash(kind) {
            let entry = claims.other_hashes.get(kind.header_name()).and_then(serde_json::Value::as_str);
            if !entry.is_some_and(|entry| hash.is_written(entry)) {
                return mismatch(&format!("is not bound to the `{}` that goes along", kind.header_name()));
            }
            others += 1;
        }
    }
    if claims.other_hashes.len() != others {
        return mismatch("is bound in `oth` to what does not go along");
    }
    Ok(())
}

fn mismatch(detail: &str) -> Result<(), Denial> {
    Err(Denial::new(Reason::ProofMismatch, format!("the `workload-proof-token` {detail}")))
}

/// Contract, section 4: where the proof stands, then whether it was seen.
fn check_replay(
    record: &Record,
    claims: &ProofClaims,
    entry: &Entry,
    rules: &Rules<'_>,
    memory: &Memory,
) -> Result<(), Denial> {
    let replayed = |detail: &str| Err(Denial::new(Reason::Replayed, detail));
    // A partition that the proof names is the record's: anything else was a mismatch.
    if rules.route.replay == ReplayRule::Strict && claims.proof.partition.is_none() {
        let Some(key) = &record.key else {
            return replayed(
                "the proof names no partition and the record has no key, so it could stand anywhere",
            );
        };
        if rules.route.partitioner.partition(key, rules.source_partitions) != record.source.partition.0 {
            return replayed(
                "the record does not stand in the partition of its key, and the proof names none",
            );
        }
    }
    match memory.check(entry) {
        Seen::New | Seen::Redelivered => Ok(()),
        Seen::Replayed => replayed("the proof was used before on another record"),
    }
}

fn check_own_time(accepted: UnixMillis, rules: &Rules<'_>) -> Result<(), Denial> {
    let ahead_ms = accepted.0.saturating_sub(rules.now.0);
    if ahead_ms > i64::from(rules.route.skew_s) * 1000 {
        let detail = "the record was accepted in the future: a broker's clock, or the gate's, is wrong";
        return Err(Denial::new(Reason::TokenNotYetValid, detail));
    }
    let queued_ms = rules.now.0.saturating_sub(accepted.0);
    if queued_ms > i64::from(rules.route.max_queue_time_s) * 1000 {
        let detail = format!("the record waited longer than {} s", rules.route.max_queue_time_s);
        return Err(Denial::new(Reason::TooOld, detail));
    }
    Ok(())
}

#[cfg(test)]
mod tests;
