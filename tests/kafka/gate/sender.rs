//! Senders of every kind, honest and not: each situation makes a record and says what a gate must make of it, by the
//! contract alone. Limits: tokens are good for an hour, proofs for the 300 s that the producer's library gives them.

use base64::Engine as _;
use base64::engine::general_purpose::URL_SAFE_NO_PAD;
use countersign::authorize::ids::{Realm, Topic, UnixMillis};
use countersign::authorize::jose::{Algorithm, SigningKey, TokenKind};
use countersign::authorize::record::Header;
use countersign::producer::{Asked, Outgoing, Signer, Tokens};
use serde_json::{Value, json};

use super::ledger::{Expect, Sent};
use super::now_ms;
use super::site::{REALM, Site, topic};
use crate::support::kafka::NewRecord;

/// Keys of one route's records: each is always sent to the same partition.
const KEYS: u64 = 24;

/// Which of the site's source topics.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub enum Source {
    /// Signed records.
    Commands,
    /// Records of a system that cannot sign.
    Legacy,
}

/// Makes records; every proof has an id of its own.
pub struct Sender {
    partitions: i32,
    commands: Topic,
    pub(super) legacy: Topic,
    pub(super) elsewhere: Topic,
    payer: Signer,
    payer_key: SigningKey,
    pub(super) settler: Signer,
    pub(super) stranger: Signer,
    pub(super) outsider: Signer,
    pub(super) outsider_txn: String,
    pub(super) txn: String,
    pub(super) narrow_txn: String,
    pub(super) gate: SigningKey,
    next: u64,
    /// Signed records that a copy can be made of: they passed every check of identity.
    pub(super) proven: Vec<Sent>,
}

impl Sender {
    pub fn new(site: &Site) -> Self {
        let key = |name: &str| {
            SigningKey::from_jwk(&site.read(&format!("keys/{name}.jwk"))).expect("a private key")
        };
        let (issuer, service) = (key("issuer"), key("token-service"));
        let own = |seed: u8| SigningKey::from_seed(Algorithm::EdDsa, &[seed; 32], None).expect("a key");
        let signer = |id: &str, seed: u8, issuer: &SigningKey| {
            let claims = json!({
                "sub": id, "iat": seconds() - 1800, "exp": seconds() + 3600, "cnf": {"jwk": own(seed).public_jwk()},
            });
            let wit = issuer.sign(TokenKind::WorkloadIdentity, &claims).expect("a WIT");
            Signer::new(own(seed), &wit, Realm::parse(REALM).expect("a realm")).expect("a signer")
        };
        let txn = |audience: &str, scope: &str| {
            let claims = json!({
                "aud": audience, "iat": seconds() - 1800, "exp": seconds() + 3600, "txn": "txn-1", "sub": "alice",
                "scope": scope, "req_wl": "spiffe://example.org/api-gateway",
            });
            service.sign(TokenKind::Transaction, &claims).expect("a Txn-Token")
        };
        let unknown = SigningKey::from_seed(Algorithm::EdDsa, &[9; 32], Some("unknown")).expect("a key");
        Self {
            partitions: site.plan.partitions,
            commands: topic(&site.commands),
            legacy: topic(&site.legacy),
            elsewhere: topic("elsewhere"),
            payer: signer("spiffe://example.org/agent/payer", 1, &issuer),
            payer_key: own(1),
            settler: signer("spiffe://example.org/agent/settler", 2, &issuer),
            stranger: signer("spiffe://example.org/agent/payer", 3, &unknown),
            outsider: signer("spiffe://evil.example/agent/payer", 4, &unknown),
            outsider_txn: txn("evil.example", "payments.pay"),
            txn: txn("example.org", "payments.pay payments.read"),
            narrow_txn: txn("example.org", "payments.read"),
            gate: key("gate"),
            next: 0,
            proven: Vec::new(),
        }
    }

    /// The next record's key, partition and value.
    pub(super) fn blank(&mut self) -> NewRecord {
        self.blank_of(self.next % KEYS)
    }

    /// The next record of that key.
    fn blank_of(&mut self, key: u64) -> NewRecord {
        let number = self.next;
        self.next += 1;
        NewRecord {
            partition: Some(i32::try_from(key).expect("a small number") % self.partitions),
            key: Some(format!("inv-{key}").into_bytes()),
            value: Some(
                json!({"do": "pay", "invoice": format!("inv-{key}"), "n": number}).to_string().into(),
            ),
            ..NewRecord::default()
        }
    }

    pub(super) fn sign(&self, blank: NewRecord, how: &How<'_>) -> NewRecord {
        let tokens = Tokens { transaction: how.txn, countersignature: how.chain, step_up_grant: how.grant };
        let record = Outgoing {
            topic: how.topic.unwrap_or(&self.commands),
            partition: None,
            key: blank.key.as_deref(),
            value: blank.value.as_deref(),
            headers: &how.headers,
            signed_headers: &[],
        };
        let asked = Asked::of(how.action, "Invoice", how.resource);
        let at = UnixMillis(now_ms() + how.shift_ms);
        let signer = how.signer.unwrap_or(&self.payer);
        let signed = signer.sign(&record, &asked, &tokens, at, &jti()).expect("a signed record");
        NewRecord { headers: signed.into_iter().map(plain).collect(), ..blank }
    }

    pub(super) fn how(&self) -> How<'_> {
        How {
            signer: None,
            topic: None,
            txn: Some(&self.txn),
            chain: None,
            grant: None,
            action: "pay",
            resource: "inv-7",
            headers: Vec::new(),
            shift_ms: 0,
        }
    }

    /// A payment that is allowed.
    pub fn allowed(&mut self) -> Sent {
        let blank = self.blank();
        let record = self.sign(blank, &self.how());
        self.keep(Sent::new("allowed", Source::Commands, record, Expect::Forward))
    }

    /// A payment that is allowed, with a value of so many bytes.
    pub fn large(&mut self, bytes: usize, expect: Expect) -> Sent {
        let blank = NewRecord { value: Some(vec![b'x'; bytes]), ..self.blank() };
        Sent::new("large", Source::Commands, self.sign(blank, &self.how()), expect)
    }

    /// A payment whose proof lives for `life_s` whole seconds, in a partition.
    pub fn short_lived(&mut self, life_s: i64, partition: i32) -> Sent {
        let blank = NewRecord { partition: Some(partition), ..self.blank() };
        let record = self.again(self.sign(blank, &self.how()), |claims| {
            let issued = claims["iat"].as_i64().expect("a whole number");
            claims["exp"] = (issued + life_s).into();
        });
        Sent::new("short-lived", Source::Commands, record, Expect::Forward)
    }

    /// A payment that is allowed but for its workflow, which is at the step `pay`.
    pub fn of_workflow(&mut self, id: &str, expect: Expect) -> Sent {
        self.in_workflow(id, "inv-7", expect)
    }

    /// The same for that invoice.
    pub fn in_workflow(&mut self, id: &str, resource: &str, expect: Expect) -> Sent {
        let blank = self.blank();
        let record = self.again(self.sign(blank, &How { resource, ..self.how() }), |claims| {
            claims["workflow"] = json!({"id": id, "type": "payout", "step": "pay", "state": "running"});
        });
        Sent::new("of a workflow", Source::Commands, record, expect)
    }

    /// Something asked for by the payer, with what must come of it.
    pub fn asks(&mut self, action: &'static str, resource: &'static str, expect: Expect) -> Sent {
        let blank = self.blank();
        let record = self.sign(blank, &How { action, resource, ..self.how() });
        self.keep(Sent::new("asks", Source::Commands, record, expect))
    }

    /// A payment of that invoice, asked for by the payer in a record of that key.
    pub fn of_key(&mut self, key: u64, resource: &str, expect: Expect) -> Sent {
        let blank = self.blank_of(key);
        let record = self.sign(blank, &How { resource, ..self.how() });
        Sent::new("of a key", Source::Commands, record, expect)
    }

    /// The same request once more, to pay that invoice, with a proof of its own and a grant.
    pub fn once_more(&self, sent: &Sent, resource: &str, grant: &str, expect: Expect) -> Sent {
        let blank = NewRecord { headers: Vec::new(), ..sent.record.clone() };
        let record = self.sign(blank, &How { resource, grant: Some(grant), ..self.how() });
        Sent::new("with a grant", Source::Commands, record, expect)
    }

    fn keep(&mut self, sent: Sent) -> Sent {
        // A window of recent ones is enough, and memory is not for tests to fill.
        if self.proven.len() > 400 {
            self.proven.drain(..200);
        }
        self.proven.push(sent.clone());
        sent
    }

    /// Another proof in the place of the record's own: its claims changed and signed again by the payer.
    fn again(&self, mut record: NewRecord, change: impl FnOnce(&mut Value)) -> NewRecord {
        let proof = token(&record, TokenKind::WorkloadProof);
        let payload = proof.split('.').nth(1).expect("three parts");
        let bytes = URL_SAFE_NO_PAD.decode(payload).expect("base64url");
        let mut claims: Value = serde_json::from_slice(&bytes).expect("JSON");
        change(&mut claims);
        let signed = self.payer_key.sign(TokenKind::WorkloadProof, &claims).expect("a proof");
        replace(&mut record, TokenKind::WorkloadProof, signed);
        record
    }
}

impl Sent {
    /// The same bytes again: a replay.
    pub fn copy(&self) -> Self {
        Self { what: "copy", expect: Expect::Deny("replayed"), ..self.clone() }
    }
}

/// How a record is signed.
pub(super) struct How<'a> {
    pub(super) signer: Option<&'a Signer>,
    pub(super) topic: Option<&'a Topic>,
    pub(super) txn: Option<&'a str>,
    pub(super) chain: Option<&'a str>,
    pub(super) grant: Option<&'a str>,
    pub(super) action: &'a str,
    pub(super) resource: &'a str,
    pub(super) headers: Vec<Header>,
    /// The moment of signing, from now.
    pub(super) shift_ms: i64,
}

/// An id that no proof has had.
pub(super) fn jti() -> String {
    uuid::Uuid::now_v7().to_string()
}

fn seconds() -> i64 {
    now_ms() / 1000
}

fn plain(header: Header) -> (String, Option<Vec<u8>>) {
    let name = String::from_utf8(header.name.to_vec()).expect("a name that is text");
    (name, header.value.map(|value| value.to_vec()))
}

pub(super) fn token(record: &NewRecord, kind: TokenKind) -> String {
    let found = record.headers.iter().find(|(name, _)| name == kind.header_name());
    let value = found.and_then(|(_, value)| value.clone()).expect("the token");
    String::from_utf8(value).expect("ASCII")
}

pub(super) fn replace(record: &mut NewRecord, kind: TokenKind, token: String) {
    for (name, value) in &mut record.headers {
        if name == kind.header_name() {
            *value = Some(token.clone().into_bytes());
        }
    }
}
