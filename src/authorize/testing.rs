//! A small world for the tests of this folder: one trust domain, its keys, and records signed with them, each token open
//! to one change before it is signed. Limits: tests alone.

use std::collections::BTreeMap;

use bytes::Bytes;
use serde_json::{Value, json};

use super::claims::Transaction;
use super::context::Claimed;
use super::decision::{Denial, Reason};
use super::digests::{self, Hashes};
use super::identity::{Rules, TokenCache, Verified, verify};
use super::ids::{Coordinates, Offset, Partition, Realm, Topic, TrustDomain, UnixMillis};
use super::jose::{Algorithm, KeySet, KeyUse, SigningKey, TokenKind, token_hash};
use super::provenance::Chain;
use super::record::{Header, Record, TimestampType};
use super::replay::{Memory, window_ms};
use super::route::Route;
use super::trust::{Domain, Trust};

/// *N* of every test, in seconds. Records are accepted 4 s before.
pub(crate) const NOW_S: i64 = 1_893_456_000;
pub(crate) const ACCEPTED_S: i64 = NOW_S - 4;
pub(crate) const PAYER: &str = "spiffe://example.org/agent/payer";

pub(crate) fn key(name: &str) -> SigningKey {
    let (algorithm, seed) = match name {
        "issuer" => (Algorithm::Es256, 1),
        "workload" => (Algorithm::EdDsa, 2),
        "tts" => (Algorithm::Es256, 3),
        "gate" => (Algorithm::EdDsa, 4),
        "workload-es256" => (Algorithm::Es256, 5),
        "other-domain-gate" => (Algorithm::EdDsa, 6),
        "other-domain-tts" => (Algorithm::EdDsa, 7),
        "other-domain-issuer" => (Algorithm::EdDsa, 8),
        _ => (Algorithm::EdDsa, 99),
    };
    SigningKey::from_seed(algorithm, &[seed; 32], Some(name)).unwrap()
}

pub(crate) fn keys(names: &[&str]) -> KeySet {
    let keys: Vec<Value> = names.iter().map(|name| key(name).public_jwk()).collect();
    KeySet::from_jwks(&json!({"keys": keys}).to_string(), KeyUse::Any).unwrap()
}

pub(crate) fn domain() -> Domain {
    Domain {
        algorithms: Algorithm::DEFAULT.to_vec(),
        bundle: keys(&["issuer"]),
        token_service: keys(&["tts"]),
        gates: keys(&["gate"]),
    }
}

pub(crate) fn trust_with(domain: Domain) -> Trust {
    let other = Domain {
        algorithms: Algorithm::DEFAULT.to_vec(),
        bundle: keys(&["other-domain-issuer"]),
        token_service: keys(&["other-domain-tts"]),
        gates: keys(&["other-domain-gate"]),
    };
    Trust::new(BTreeMap::from([
        (TrustDomain::parse("example.org").unwrap(), domain),
        (TrustDomain::parse("other.org").unwrap(), other),
    ]))
}

/// A route from `payments.commands`.
pub(crate) fn route() -> Route {
    let topic = |name: &str| Topic::parse(name).unwrap();
    Route::new(
        "payments",
        vec![topic("payments.commands")],
        topic("payments.authorized"),
        topic("payments.denied"),
        topic("payments.audit"),
    )
}

/// A token before it is signed.
pub(crate) struct Draft {
    pub(crate) head: Value,
    pub(crate) claims: Value,
    pub(crate) key: SigningKey,
    /// Replaces the payload's bytes.
    pub(crate) payload: Option<Vec<u8>>,
    /// Replaces the whole token.
    pub(crate) whole: Option<Vec<u8>>,
}

/// What a record carries.
#[derive(Clone)]
pub(crate) struct Plan {
    pub(crate) record: Record,
    pub(crate) signed_names: Option<Vec<&'static str>>,
    pub(crate) signed: bool,
    pub(crate) transaction: bool,
    pub(crate) countersignature: bool,
    pub(crate) grant: bool,
}

impl Default for Plan {
    fn default() -> Self {
        let source = Coordinates {
            topic: Topic::parse("payments.commands").unwrap(),
            partition: Partition(0),
            offset: Offset(17),
        };
        let record = Record {
            source,
            timestamp: Some(UnixMillis(ACCEPTED_S * 1000)),
            timestamp_type: TimestampType::LogAppendTime,
            key: Some(Bytes::from_static(b"inv-7")),
            value: Some(Bytes::from_static(b"{\"amount\":120}")),
            headers: Vec::new(),
        };
        Self {
            record,
            signed_names: None,
            signed: true,
            transaction: true,
            countersignature: false,
            grant: false,
        }
    }
}

impl Plan {
    /// With everything that a record can carry.
    pub(crate) fn full() -> Self {
        Self { countersignature: true, grant: true, ..Self::default() }
    }

    pub(crate) fn build(&self) -> Record {
        self.build_with(|_, _| {})
    }

    /// The record, each of its tokens changed before it is signed.
    pub(crate) fn build_with(&self, edit: impl Fn(TokenKind, &mut Draft)) -> Record {
        let mut record = self.record.clone();
        let sign = |kind: TokenKind, claims: Value, key: SigningKey| {
            let mut head = json!({"alg": key.algorithm().as_str(), "typ": kind.typ()});
            if kind != TokenKind::WorkloadProof {
                head["kid"] = key.kid().into();
            }
            let mut draft = Draft { head, claims, key, payload: None, whole: None };
            edit(kind, &mut draft);
            let payload = draft.payload.unwrap_or_else(|| draft.claims.to_string().into_bytes());
            let signed = draft.key.sign_raw(draft.head.to_string().as_bytes(), &payload);
            draft.whole.unwrap_or_else(|| signed.into_bytes())
        };
        let hash = |token: &[u8]| Value::from(token_hash(token).to_string());
        let digest = |bytes: Option<&[u8]>| digests::of_bytes(bytes).map(|d| d.to_string());
        let mut put =
            |kind: TokenKind, token: Vec<u8>| record.headers.push(Header::new(kind.header_name(), token));

        let mut oth = json!({});
        let mut tth = None;
        if self.transaction {
            let token = sign(TokenKind::Transaction, transaction_claims(), key("tts"));
            tth = Some(hash(&token));
            put(TokenKind::Transaction, token);
        }
        if self.countersignature {
            let mut claims = countersigned_claims();
            if let Some(tth) = &tth {
                claims["txn"] = "txn-1".into();
                claims["tth"] = tth.clone();
            }
            let token = sign(TokenKind::Countersignature, claims, key("gate"));
            oth["countersignature"] = hash(&token);
            put(TokenKind::Countersignature, token);
        }
        if self.grant {
            let token = sign(TokenKind::StepUpGrant, grant_claims(), key("approver"));
            oth["step-up-grant"] = hash(&token);
            put(TokenKind::StepUpGrant, token);
        }
        if self.signed {
            let token = sign(TokenKind::WorkloadIdentity, identity_claims(), key("issuer"));
            let mut claims = json!({
                "aud": "kafka://test/payments.commands", "iat": ACCEPTED_S - 1, "exp": ACCEPTED_S + 60,
                "jti": "jti-1", "wth": hash(&token),
                "kafka": {
                    "key": digest(self.record.key.as_deref()), "value": digest(self.record.value.as_deref())
                },
                "action": {"name": "pay"}, "resource": {"type": "Invoice", "id": "inv-7"},
                "workflow": {"id": "wf-1", "type": "invoice", "step": "pay", "state": "running"}
            });
            if let Some(tth) = tth {
                claims["tth"] = tth;
            }
            if self.countersignature || self.grant {
                claims["oth"] = oth;
            }
            if let Some(names) = &self.signed_names {
                let names: Vec<String> = names.iter().map(|n| (*n).to_owned()).collect();
                let digest = digests::of_headers(&self.record.headers, &names).to_string();
                claims["kafka"]["headers"] = json!({"names": names, "digest": digest});
            }
            put(TokenKind::WorkloadIdentity, token);
            put(TokenKind::WorkloadProof, sign(TokenKind::WorkloadProof, claims, key("workload")));
        }
        record
    }
}

pub(crate) fn identity_claims() -> Value {
    json!({
        "sub": PAYER, "exp": NOW_S + 1800, "iat": NOW_S - 600, "cnf": {"jwk": key("workload").public_jwk()}
    })
}

pub(crate) fn transaction_claims() -> Value {
    json!({
        "iat": NOW_S - 60, "exp": NOW_S + 240, "aud": "example.org", "txn": "txn-1", "sub": "alice",
        "scope": "payments.pay  payments.read", "req_wl": "spiffe://example.org/api-gateway",
        "tctx": {"invoice": "inv-7"}, "rctx": {"req_ip": "192.0.2.7"}
    })
}

pub(crate) fn countersigned_claims() -> Value {
    json!({
        "iss": "spiffe://example.org/gate/one", "aud": "kafka://test/invoices.authorized",
        "iat": NOW_S - 30, "exp": NOW_S + 870, "jti": "0190", "sub": "spiffe://example.org/agent/reader",
        "action": {"name": "read"}, "resource": {"type": "Invoice", "id": "inv-7"},
        "kafka": {"key": null, "value": "AA"}, "policy": "bundle", "source": "invoices/0/1"
    })
}

pub(crate) fn grant_claims() -> Value {
    json!({
        "iss": "spiffe://example.org/approvals", "sub": "bob", "aud": "test", "iat": NOW_S - 30, "exp": NOW_S + 30,
        "jti": "g-1", "challenge": "c-1", "digest": "AA", "decision": "approve", "amr": ["hwk"], "auth_time": NOW_S - 40
    })
}

/// A gate's state: trust, route, cache and memory.
pub(crate) struct World {
    pub(crate) realm: Realm,
    pub(crate) trust: Trust,
    pub(crate) route: Route,
    pub(crate) cache: TokenCache,
    pub(crate) memory: Memory,
    pub(crate) now: UnixMillis,
    pub(crate) source_partitions: i32,
}

impl Default for World {
    fn default() -> Self {
        Self::on(route())
    }
}

impl World {
    pub(crate) fn on(route: Route) -> Self {
        Self {
            realm: Realm::parse("test").unwrap(),
            trust: trust_with(domain()),
            memory: Memory::new(window_ms(&route)),
            route,
            cache: TokenCache::new(1000),
            now: UnixMillis(NOW_S * 1000),
            source_partitions: 8,
        }
    }

    pub(crate) fn rules(&self) -> Rules<'_> {
        Rules {
            realm: &self.realm,
            route: &self.route,
            trust: &self.trust,
            cache: &self.cache,
            now: self.now,
            source_partitions: self.source_partitions,
            held: None,
        }
    }

    /// Context, identity and chain, once.
    pub(crate) fn once(&self, record: &Record) -> Result<(Verified, Chain), Denial> {
        let claimed = Claimed::read(record, &Hashes::of(record), &self.route, &self.cache)?;
        let verified =
            verify(record, &claimed, &self.rules(), &self.memory).map_err(|refused| refused.denial)?;
        let chain = Chain::verify(&claimed, &verified, &self.rules())?;
        Ok((verified, chain))
    }

    /// The same cold and warm: what the cache remembers may never change an answer.
    pub(crate) fn judge(&self, record: &Record) -> Result<(Verified, Chain), Denial> {
        let cold = self.once(record);
        let warm = self.once(record);
        assert_eq!(cold.as_ref().map(drop).err(), warm.as_ref().map(drop).err());
        warm
    }

    pub(crate) fn reason(&self, record: &Record) -> Option<Reason> {
        self.judge(record).err().map(|denial| denial.reason)
    }
}

/// The reason that the plan's record gets once a token was changed.
pub(crate) fn reason_of(plan: &Plan, edit: impl Fn(TokenKind, &mut Draft)) -> Option<Reason> {
    World::default().reason(&plan.build_with(edit))
}

/// The same for a change of one kind's claims.
pub(crate) fn reason_of_claims(kind: TokenKind, edit: impl Fn(&mut Value)) -> Option<Reason> {
    reason_of(&Plan::full(), |of, draft| {
        if of == kind {
            edit(&mut draft.claims);
        }
    })
}

/// A transaction as the tests' token says it.
pub(crate) fn transaction() -> Transaction {
    let domain = TrustDomain::parse("example.org").unwrap();
    Transaction::read(transaction_claims().to_string().as_bytes(), domain, token_hash(b"token")).unwrap()
}
