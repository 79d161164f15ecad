//! Records signed on purpose, well or badly: a trust domain whose private keys are all known, a gate that trusts it, and
//! a plan from which a record is made. Limits: it says nothing about what must come of a record; that stands in the
//! tests. Every moment and every key is fixed, so the same plan gives the same bytes.

#![allow(dead_code, reason = "each binary takes in the whole file and uses its part")]

use std::collections::BTreeMap;

use bytes::Bytes;
use countersign::authorize::digests;
use countersign::authorize::ids::{
    Coordinates, DecisionId, Offset, Partition, Realm, Topic, TrustDomain, UnixMillis, WorkloadId,
};
use countersign::authorize::jose::{Algorithm, KeySet, KeyUse, SigningKey, TokenKind, token_hash};
use countersign::authorize::record::{Header, Record, TimestampType};
use countersign::authorize::route::Route;
use countersign::authorize::trust::{ApproverIssuer, Domain, Issuer, Others, Trust};
use serde_json::{Value, json};
use uuid::Uuid;

/// *N*, in seconds.
pub const NOW_S: i64 = 1_893_456_000;
/// The same in milliseconds.
pub const NOW: UnixMillis = UnixMillis(NOW_S * 1000);
/// When the broker took a record, unless its plan says otherwise.
pub const ACCEPTED_S: i64 = NOW_S - 4;
/// May pay invoices.
pub const PAYER: &str = "spiffe://example.org/agent/payer";
/// May read, by its team.
pub const READER: &str = "spiffe://example.org/agent/reader";
/// The issuer of approvers' answers.
pub const APPROVALS: &str = "https://approvals.example.org";
/// Who transmits security events.
pub const TRANSMITTER: &str = "https://events.example.org";
/// The topic that records stand on.
pub const SOURCE: &str = "payments.commands";

/// The private key of that name: the same one for whoever asks. All are Ed25519, so that a token is the same each time.
pub fn key(name: &str) -> SigningKey {
    let seed = match name {
        "issuer" => 1,
        "workload" => 2,
        "tts" => 3,
        "gate" => 4,
        "gate-before" => 5,
        "approver" => 6,
        "administrator" => 7,
        "transmitter" => 8,
        "login" => 9,
        _ => 99,
    };
    // A workload's key stands in `cnf.jwk` and needs no name.
    let kid = (name != "workload").then_some(name);
    SigningKey::from_seed(Algorithm::EdDsa, &[seed; 32], kid).expect("a key")
}

/// The public keys of those names.
pub fn keys(names: &[&str]) -> KeySet {
    let keys: Vec<Value> = names.iter().map(|name| key(name).public_jwk()).collect();
    KeySet::from_jwks(&json!({"keys": keys}).to_string(), KeyUse::Any).expect("a key set")
}

/// The trust in `example.org` and in its approvers.
pub fn trust() -> Trust {
    let domain = Domain {
        algorithms: Algorithm::DEFAULT.to_vec(),
        bundle: keys(&["issuer"]),
        token_service: keys(&["tts"]),
        gates: keys(&["gate", "gate-before"]),
    };
    let issuer = Issuer { algorithms: Algorithm::DEFAULT.to_vec(), keys: keys(&["approver"]) };
    let approvers = ApproverIssuer { issuer, entity_type: "User".to_owned() };
    let transmitter = Issuer { algorithms: Algorithm::DEFAULT.to_vec(), keys: keys(&["transmitter"]) };
    let others = Others {
        transmitters: BTreeMap::from([(TRANSMITTER.to_owned(), transmitter)]),
        administrators: Some(keys(&["administrator"])),
        approvers: BTreeMap::from([(APPROVALS.to_owned(), approvers)]),
    };
    Trust::with(BTreeMap::from([(TrustDomain::parse("example.org").expect("a domain"), domain)]), others)
}

/// The realm of every `aud`.
pub fn realm() -> Realm {
    Realm::parse("test").expect("a realm")
}

/// A topic.
pub fn topic(name: &str) -> Topic {
    Topic::parse(name).expect("a topic")
}

/// A workload.
pub fn workload(id: &str) -> WorkloadId {
    WorkloadId::parse(id).expect("an identifier")
}

/// The decision id of a record: the same wherever and whenever it is decided.
pub fn id_of(record: &Record) -> DecisionId {
    let partition = u128::from(record.source.partition.0.cast_unsigned());
    let place = (partition << 64) | u128::from(record.source.offset.0.cast_unsigned());
    DecisionId(Uuid::from_u128(0x0190_0000_0000_7000_0000_0000_0000_0000 ^ place))
}

/// A route that requires proof and takes what is asked for from it.
pub fn route() -> Route {
    Route::new(
        "payments",
        vec![topic(SOURCE)],
        topic("payments.authorized"),
        topic("payments.denied"),
        topic("payments.audit"),
    )
}

/// What is wrong with a token.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Flaw {
    /// Signed by a stranger under the right `kid`.
    Stranger,
    /// One bit of the signature is another.
    Bit,
    /// It had expired.
    Expired,
    /// It begins tomorrow.
    Early,
    /// It is meant for somebody else.
    Audience,
    /// It lacks a member that it needs.
    Member,
    /// Its `typ` is another kind's.
    Kind,
    /// It is no token at all.
    Garbage,
}

impl Flaw {
    /// All of them.
    pub const ALL: [Self; 8] = [
        Self::Stranger,
        Self::Bit,
        Self::Expired,
        Self::Early,
        Self::Audience,
        Self::Member,
        Self::Kind,
        Self::Garbage,
    ];
}

/// What a record asks for, what it carries, and what is wrong with that.
#[derive(Debug, Clone)]
pub struct Plan {
    pub partition: i32,
    pub offset: i64,
    pub key: Option<&'static str>,
    pub value: String,
    /// The id of the proof.
    pub jti: String,
    pub sender: &'static str,
    pub subject: &'static str,
    pub scope: &'static str,
    pub action: &'static str,
    pub resource: (&'static str, &'static str),
    pub workflow: Option<&'static str>,
    /// `tctx.amount` of the Txn-Token.
    pub amount: i64,
    /// Whether it carries each of these.
    pub transaction: bool,
    pub countersignature: bool,
    pub grant: bool,
    pub flaw: Option<(TokenKind, Flaw)>,
    /// Whether the value was changed after it was signed.
    pub tampered: bool,
    /// How long before *N* the broker took it, in seconds.
    pub age_s: i64,
    /// A header of its own, and whether the proof names it.
    pub header: Option<(&'static str, bool)>,
}

impl Default for Plan {
    /// A record that a payer may send.
    fn default() -> Self {
        Self {
            partition: 0,
            offset: 17,
            key: Some("inv-7"),
            value: "{\"amount\":120}".to_owned(),
            jti: "jti-1".to_owned(),
            sender: PAYER,
            subject: "alice",
            scope: "payments.pay",
            action: "pay",
            resource: ("Invoice", "inv-7"),
            workflow: Some("wf-1"),
            amount: 120,
            transaction: true,
            countersignature: false,
            grant: false,
            flaw: None,
            tampered: false,
            age_s: NOW_S - ACCEPTED_S,
            header: None,
        }
    }
}

impl Plan {
    /// The record as it stands on its topic.
    pub fn record(&self) -> Record {
        self.record_by(&|kind, claims| self.sign(kind, claims))
    }

    /// The same, each token made of its claims by another hand.
    pub fn record_by(&self, sign: &dyn Fn(TokenKind, Value) -> Vec<u8>) -> Record {
        let own = self.header.map(|(value, _)| Header::new("kind", value));
        let mut record = Record {
            source: Coordinates {
                topic: topic(SOURCE),
                partition: Partition(self.partition),
                offset: Offset(self.offset),
            },
            timestamp: Some(UnixMillis((NOW_S - self.age_s) * 1000)),
            timestamp_type: TimestampType::LogAppendTime,
            key: self.key.map(Bytes::from),
            value: Some(Bytes::from(self.value.clone())),
            headers: own.into_iter().collect(),
        };
        let tokens = self.tokens(&record, sign);
        record.headers.extend(tokens.into_iter().map(|(kind, token)| Header::new(kind.header_name(), token)));
        if self.tampered {
            record.value = Some(Bytes::from_static(b"{\"amount\":1200000}"));
        }
        record
    }

    /// Each token that the record carries.
    fn tokens(
        &self,
        record: &Record,
        sign: &dyn Fn(TokenKind, Value) -> Vec<u8>,
    ) -> Vec<(TokenKind, Vec<u8>)> {
        let hash = |token: &[u8]| Value::from(token_hash(token).to_string());
        let mut tokens = Vec::new();
        let (mut tth, mut oth) = (None, serde_json::Map::new());
        if self.transaction {
            let token = sign(TokenKind::Transaction, self.transaction_claims());
            tth = Some(hash(&token));
            tokens.push((TokenKind::Transaction, token));
        }
        if self.countersignature {
            let mut claims = countersigned_claims();
            if let Some(tth) = &tth {
                claims["txn"] = "txn-1".into();
                claims["tth"] = tth.clone();
            }
            let token = sign(TokenKind::Countersignature, claims);
            oth.insert("countersignature".to_owned(), hash(&token));
            tokens.push((TokenKind::Countersignature, token));
        }
        if self.grant {
            let token = sign(TokenKind::StepUpGrant, grant_claims());
            oth.insert("step-up-grant".to_owned(), hash(&token));
            tokens.push((TokenKind::StepUpGrant, token));
        }
        let identity = sign(TokenKind::WorkloadIdentity, identity_claims(self.sender));
        let digest = |bytes: Option<&[u8]>| digests::of_bytes(bytes).map(|digest| digest.to_string());
        let accepted = NOW_S - self.age_s;
        let mut claims = json!({
            "aud": format!("kafka://test/{SOURCE}"), "iat": accepted - 1, "exp": accepted + 60,
            "jti": self.jti, "wth": hash(&identity),
            "kafka": {"key": digest(record.key.as_deref()), "value": digest(record.value.as_deref())},
            "action": {"name": self.action}, "resource": {"type": self.resource.0, "id": self.resource.1},
        });
        if let Some(id) = self.workflow {
            claims["workflow"] = json!({"id": id, "type": "payment", "step": "pay", "state": "running"});
        }
        if let Some(tth) = tth {
            claims["tth"] = tth;
        }
        if !oth.is_empty() {
            claims["oth"] = oth.into();
        }
        if let Some((_, true)) = self.header {
            let digest = digests::of_headers(&record.headers, &["kind"]).to_string();
            claims["kafka"]["headers"] = json!({"names": ["kind"], "digest": digest});
        }
        tokens.push((TokenKind::WorkloadIdentity, identity));
        tokens.push((TokenKind::WorkloadProof, sign(TokenKind::WorkloadProof, claims)));
        tokens
    }

    /// What its Txn-Token says.
    pub fn transaction_claims(&self) -> Value {
        json!({
            "iat": NOW_S - 60, "exp": NOW_S + 240, "aud": "example.org", "txn": "txn-1", "sub": self.subject,
            "scope": self.scope, "req_wl": "spiffe://example.org/api-gateway",
            "tctx": {"amount": self.amount}, "rctx": {"req_ip": "192.0.2.7"}
        })
    }

    /// The token of that kind, with the flaw that the plan has for it.
    pub fn sign(&self, kind: TokenKind, mut claims: Value) -> Vec<u8> {
        let name = signer_of(kind);
        let flaw = self.flaw.filter(|(of, _)| *of == kind).map(|(_, flaw)| flaw);
        let mut typ = kind.typ();
        let mut key = key(name);
        match flaw {
            Some(Flaw::Stranger) => {
                key = SigningKey::from_seed(Algorithm::EdDsa, &[77; 32], key.kid()).expect("a key");
            }
            Some(Flaw::Expired) => {
                claims["iat"] = (NOW_S - 200_000).into();
                claims["exp"] = (NOW_S - 199_800).into();
            }
            Some(Flaw::Early) => {
                claims["iat"] = (NOW_S + 86_400).into();
                claims["exp"] = (NOW_S + 86_460).into();
            }
            Some(Flaw::Audience) => claims["aud"] = "kafka://elsewhere/payments.commands".into(),
            Some(Flaw::Member) => {
                claims.as_object_mut().expect("an object").remove("exp");
            }
            Some(Flaw::Kind) => {
                typ = TokenKind::ALL.into_iter().find(|other| *other != kind).expect("another").typ();
            }
            Some(Flaw::Garbage) => return b"no.token.atall".to_vec(),
            Some(Flaw::Bit) | None => {}
        }
        let mut token = key.sign_typ(typ, &claims).expect("a token").into_bytes();
        if flaw == Some(Flaw::Bit) {
            // Not the last character, whose low bits are padding.
            let at = token.len() - 10;
            token[at] = if token[at] == b'A' { b'B' } else { b'A' };
        }
        token
    }
}

/// The name of the key that signs tokens of that kind.
pub fn signer_of(kind: TokenKind) -> &'static str {
    match kind {
        TokenKind::WorkloadIdentity => "issuer",
        TokenKind::WorkloadProof => "workload",
        TokenKind::Transaction => "tts",
        TokenKind::Countersignature => "gate-before",
        TokenKind::StepUpGrant => "approver",
    }
}

/// What a WIT says.
pub fn identity_claims(sender: &str) -> Value {
    let holder = key("workload").public_jwk();
    json!({"sub": sender, "iat": NOW_S - 100_000, "exp": NOW_S + 1800, "cnf": {"jwk": holder}})
}

/// What a countersignature says, but for the transaction.
pub fn countersigned_claims() -> Value {
    json!({
        "iss": "spiffe://example.org/gate/one", "aud": "kafka://test/invoices.authorized",
        "iat": NOW_S - 30, "exp": NOW_S + 870, "jti": "0190", "sub": READER,
        "action": {"name": "read"}, "resource": {"type": "Invoice", "id": "inv-7"},
        "kafka": {"key": null, "value": "AA"}, "policy": "bundle", "source": "invoices/0/1"
    })
}

/// What a grant says.
pub fn grant_claims() -> Value {
    json!({
        "iss": APPROVALS, "sub": "bob", "aud": "test", "iat": NOW_S - 30, "exp": NOW_S + 30, "jti": "g-1",
        "challenge": "c-1", "digest": "AA", "decision": "approve", "amr": ["hwk"], "auth_time": NOW_S - 40
    })
}
