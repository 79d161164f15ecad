//! What workers link: verify, offline, that a gate let a record through, read what was decided about it, and carry the
//! work on to the next record (contract, section 6). Work that goes on after its record was read is a [`job::Job`]: it asks
//! a gate before each sensitive step, and hears when it must stop.
//!
//! ```no_run
//! # fn main() -> Result<(), Box<dyn std::error::Error>> {
//! use countersign::authorize::{ids::Realm, trust::Trust};
//! use countersign::stream::kafka::record;
//! use countersign::worker::Verifier;
//! # let (trust, message): (Trust, rdkafka::message::BorrowedMessage<'_>) = return Ok(());
//!
//! let verifier = Verifier::new(Realm::parse("prod")?, trust);
//! let received = verifier.verify(&record(&message)?)?;
//! if received.action.name == "pay" {
//!     // Act on `received.resource`, which was decided, never on what the value says beside it.
//! }
//! # Ok(()) }
//! ```
//!
//! Records come from `stream::kafka::record`, since rdkafka's own reader of headers panics on a name that is not UTF-8,
//! and anybody may write one. Limits: a countersignature says that this record was allowed when the gate decided, not that it still is, nor that it
//! was not read before: a worker that must not act twice remembers [`Received::decision`].

pub mod access;
mod book;
pub mod job;
pub mod kafka;
mod marks;
pub mod signals;
#[cfg(test)]
mod tests;

use std::time::{SystemTime, UNIX_EPOCH};

use crate::authorize::carried::Carried;
use crate::authorize::claims::{Countersigned, Times, Transaction};
use crate::authorize::decision::{Denial, Reason};
use crate::authorize::identity::check_signature;
use crate::authorize::ids::{Realm, UnixMillis, WorkloadId};
use crate::authorize::jose::{Jws, TokenKind, token_hash};
use crate::authorize::limits::DEFAULT_SKEW_S;
use crate::authorize::provenance::verify_countersignature;
use crate::authorize::record::{Record, TimestampType};
use crate::authorize::request::{Action, Resource, Workflow};
use crate::authorize::trust::Trust;

/// Verifies countersignatures of one realm.
#[derive(Debug, Clone)]
pub struct Verifier {
    realm: Realm,
    trust: Trust,
    skew_s: u32,
}

impl Verifier {
    /// Trusts the gates of `trust`. Where a trust domain also has token-service keys, the Txn-Tokens of its senders are
    /// verified by them as well; elsewhere the gate's word, which covers the token's bytes, is enough.
    pub fn new(realm: Realm, trust: Trust) -> Self {
        Self { realm, trust, skew_s: DEFAULT_SKEW_S }
    }

    /// Another tolerance between clocks than 30 s.
    #[must_use]
    pub fn skew(mut self, seconds: u32) -> Self {
        self.skew_s = seconds;
        self
    }

    /// Verifies a record as it was read from a gate's destination topic, at this moment.
    ///
    /// # Errors
    /// As [`Verifier::verify_at`]. A clock that stands before 1970 finds every countersignature not yet valid.
    pub fn verify(&self, record: &Record) -> Result<Received, Denial> {
        self.verify_at(record, clock())
    }

    /// Verifies a record at a given moment. Expiry is judged when the broker took the record, if the topic has
    /// `LogAppendTime` (then a record may wait as long as it likes), and at `now` otherwise.
    ///
    /// # Errors
    /// The first check that fails, by the reason that a gate would give for such a fault. Do no work for such a record.
    pub fn verify_at(&self, record: &Record, now: UnixMillis) -> Result<Received, Denial> {
        let accepted = match (record.timestamp_type, record.timestamp) {
            (TimestampType::LogAppendTime, Some(at)) => at,
            _ => now,
        };
        let claims = verify_countersignature(record, &self.realm, &self.trust, accepted, self.skew_s)?;
        let transaction = match token(record, TokenKind::Transaction)? {
            Some(token) => Some((self.transaction(token, &claims)?, token)),
            None => None,
        };
        let countersignature = token(record, TokenKind::Countersignature)?.unwrap_or_default();
        let carried = Carried {
            countersignature: countersignature.into(),
            transaction: transaction.as_ref().map(|(_, token)| (*token).into()),
        };
        let mut senders = claims.senders.into_iter();
        let sender =
            senders.next().ok_or_else(|| malformed(TokenKind::Countersignature, "names no sender"))?;
        Ok(Received {
            sender,
            earlier_senders: senders.collect(),
            transaction: transaction.map(|(transaction, _)| transaction),
            action: claims.action,
            resource: claims.resource,
            workflow: claims.workflow,
            gate: claims.gate,
            decision: claims.decision,
            policy: claims.policy,
            source: claims.source,
            decided_at: decided_at(&claims.times),
            keys: keys_of(record)?,
            carried,
        })
    }

    fn transaction(&self, token: &str, claims: &Countersigned) -> Result<Transaction, Denial> {
        const KIND: TokenKind = TokenKind::Transaction;
        let sender = claims.senders.first().unwrap_or(&claims.gate);
        let domain = sender.trust_domain();
        let jws = Jws::parse(token.as_bytes(), KIND).map_err(|e| malformed(KIND, &e.to_string()))?;
        if self.trust.domain(domain).is_some_and(|domain| !domain.token_service.is_empty()) {
            check_signature(KIND, &jws, domain, |domain| &domain.token_service, &self.trust)?;
        }
        let transaction = Transaction::read(jws.payload(), domain.clone(), token_hash(token.as_bytes()))
            .map_err(|e| malformed(KIND, &e.to_string()))?;
        if claims.transaction.as_deref() != Some(&*transaction.id) {
            let detail = "the `countersignature` is of another transaction than the record's";
            return Err(Denial::new(Reason::ProofMismatch, detail));
        }
        Ok(transaction)
    }
}

/// A record that a gate let through: what was decided about it, and for whom. Made by [`Verifier`] alone.
#[derive(Debug, Clone)]
pub struct Received {
    /// The workload that sent the record.
    pub sender: WorkloadId,
    /// The senders of the same work before it, newest first.
    pub earlier_senders: Vec<WorkloadId>,
    /// On whose behalf and for which transaction. Its expiry was judged by the gate.
    pub transaction: Option<Transaction>,
    /// The action that was decided.
    pub action: Action,
    /// The resource that was decided.
    pub resource: Resource,
    /// The workflow, as decided.
    pub workflow: Option<Workflow>,
    /// The gate that countersigned.
    pub gate: WorkloadId,
    /// The decision's id, unique to it: what a worker remembers that must not act twice.
    pub decision: String,
    /// The digest of the policies that decided.
    pub policy: String,
    /// Where the gate read the record: `topic/partition/offset`.
    pub source: String,
    /// When the gate decided, by its clock, to the second.
    pub decided_at: UnixMillis,
    /// The `kid`s that countersignature and Txn-Token name, where they name one.
    keys: Vec<String>,
    carried: Carried,
}

impl Received {
    /// What goes along with the next record of this work: hand it to `producer::Context::carry`.
    pub fn carry_on(&self) -> Carried {
        self.carried.clone()
    }
}

/// `iat`, which every countersignature has, within ±2^53 s.
fn decided_at(times: &Times) -> UnixMillis {
    UnixMillis((times.issued_at.unwrap_or_default() * 1000.0) as i64)
}

/// The `kid`s of the tokens that a verified record carries.
fn keys_of(record: &Record) -> Result<Vec<String>, Denial> {
    let mut keys = Vec::new();
    for kind in [TokenKind::Countersignature, TokenKind::Transaction] {
        let Some(token) = token(record, kind)? else { continue };
        let jws = Jws::parse(token.as_bytes(), kind).map_err(|e| malformed(kind, &e.to_string()))?;
        keys.extend(jws.kid().map(str::to_owned));
    }
    Ok(keys)
}

fn malformed(kind: TokenKind, problem: &str) -> Denial {
    Denial::new(Reason::ContextMalformed, format!("the `{}` {problem}", kind.header_name()))
}

/// The text of the record's one token of a kind; that there is only one was verified.
fn token(record: &Record, kind: TokenKind) -> Result<Option<&str>, Denial> {
    let header = record.headers.iter().find(|header| header.name == kind.header_name().as_bytes());
    let Some(value) = header.and_then(|header| header.value.as_deref()) else { return Ok(None) };
    std::str::from_utf8(value).map(Some).map_err(|_| malformed(kind, "is not ASCII"))
}

/// The present moment; a clock that stands before 1970 says 1970.
fn clock() -> UnixMillis {
    let since = SystemTime::now().duration_since(UNIX_EPOCH).unwrap_or_default();
    UnixMillis(i64::try_from(since.as_millis()).unwrap_or(i64::MAX))
}
