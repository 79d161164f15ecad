//! The records that are sent: 1 KB of JSON about an invoice, as they are or with full proof. Limits: every one is made to
//! be forwarded; what becomes of those that are not is not measured here.

use serde_json::Value;

use super::policies::{PAYER, invoice};
use super::{BenchError, PARTITIONS};
use crate::authorize::ids::{Realm, Topic, TrustDomain, WorkloadId};
use crate::authorize::jose::{Algorithm, SigningKey};
use crate::authorize::record::Header;
use crate::cli::issue::TransactionClaims;
use crate::cli::keys::Development;
use crate::cli::{clock, issue};
use crate::producer::{Asked, Outgoing, Signer, Tokens};

/// The realm of everything here.
pub(super) const REALM: &str = "bench";
/// The trust domain of everybody here.
pub(super) const DOMAIN: &str = "example.org";
const VALUE_BYTES: usize = 1024;
/// Longer than any run.
const TOKENS_LIVE_S: u32 = 86_400;

/// What records carry beside key and value.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Proof {
    /// Nothing.
    None,
    /// A WIT, a Txn-Token and a proof of its own; all records have the same Txn-Token.
    OneTransaction,
    /// The same, and each record is of a transaction of its own.
    OwnTransaction,
}

/// A record before it is sent.
pub(super) struct Made {
    pub(super) partition: i32,
    /// Its number, big end first.
    pub(super) key: [u8; 8],
    pub(super) value: Vec<u8>,
    pub(super) headers: Vec<Header>,
}

/// Who sends: a workload with its identity token, and whoever issues the transactions that it works for.
pub(super) struct Sender {
    signer: Signer,
    service: SigningKey,
    transaction: String,
}

impl Sender {
    /// A sender of that trust domain.
    pub(super) fn new(made: Development) -> Result<Self, BenchError> {
        let key = issue::generate(Algorithm::EdDsa, None)?;
        let now = clock::now().ok_or(BenchError::Clock)?;
        let payer = WorkloadId::parse(PAYER)?;
        let wit = issue::wit(&made.issuer, &payer, &key.public_jwk(), now, TOKENS_LIVE_S)?;
        Ok(Self {
            signer: Signer::new(key, &wit, Realm::parse(REALM)?)?,
            transaction: transaction(&made.token_service, "txn-0")?,
            service: made.token_service,
        })
    }

    /// Record number `number`, for a topic. So many in a row go to the same partition.
    pub(super) fn make(
        &self,
        topic: &Topic,
        proof: Proof,
        number: u64,
        run: u64,
    ) -> Result<Made, BenchError> {
        let key = number.to_be_bytes();
        let value = value(number);
        let mut headers = Vec::new();
        if proof != Proof::None {
            let own = match proof {
                Proof::OwnTransaction => Some(transaction(&self.service, &format!("txn-{number}"))?),
                _ => None,
            };
            let tokens = Tokens {
                transaction: Some(own.as_deref().unwrap_or(&self.transaction)),
                ..Tokens::default()
            };
            let record = Outgoing::new(topic).key(&key).value(&value);
            let asked = Asked::of("pay", "Invoice", &invoice(number));
            let now = clock::now().ok_or(BenchError::Clock)?;
            headers = self.signer.sign(&record, &asked, &tokens, now, &issue::random_id()?)?;
        }
        // The number of partitions is small and positive.
        let partition = i32::try_from(number / run.max(1) % PARTITIONS as u64).unwrap_or_default();
        Ok(Made { partition, key, value, headers })
    }
}

/// The number of a record by its key.
pub(super) fn number(key: &[u8]) -> Option<u64> {
    key.try_into().ok().map(u64::from_be_bytes)
}

fn transaction(service: &SigningKey, id: &str) -> Result<String, BenchError> {
    let claims = TransactionClaims {
        audience: TrustDomain::parse(DOMAIN)?,
        transaction: id.to_owned(),
        subject: "alice".to_owned(),
        scope: "payments.pay payments.read".to_owned(),
        requester: WorkloadId::parse("spiffe://example.org/web/portal")?,
        tctx: None,
        rctx: None,
    };
    Ok(issue::transaction(service, &claims, clock::now().ok_or(BenchError::Clock)?, TOKENS_LIVE_S)?)
}

fn value(number: u64) -> Vec<u8> {
    let mut value = serde_json::json!({
        "do": "pay", "invoice": invoice(number), "amount": number % 900 + 1, "number": number, "note": "",
    });
    let missing = VALUE_BYTES.saturating_sub(value.to_string().len());
    if let Some(note) = value.get_mut("note") {
        *note = Value::String("invoice as agreed. ".chars().cycle().take(missing).collect());
    }
    value.to_string().into_bytes()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_record_is_a_kilobyte_and_says_its_number() {
        let folder = tempfile::tempdir().unwrap();
        let domain = TrustDomain::parse(DOMAIN).unwrap();
        let made = Development::make(folder.path(), &domain, "bench", Algorithm::EdDsa).unwrap();
        let (sender, topic) = (Sender::new(made).unwrap(), Topic::parse("t").unwrap());
        for number in [0, 7, 123_456_789] {
            let plain = sender.make(&topic, Proof::None, number, 1).unwrap();
            assert_eq!((plain.value.len(), plain.headers.len()), (VALUE_BYTES, 0));
            assert_eq!(self::number(&plain.key), Some(number));
            let value: Value = serde_json::from_slice(&plain.value).unwrap();
            assert_eq!(value["number"], number);
        }
        let txn = |proof, number| {
            let headers = sender.make(&topic, proof, number, 1).unwrap().headers;
            assert_eq!(headers.len(), 3);
            headers.into_iter().find(|header| &header.name[..] == b"txn-token").unwrap()
        };
        assert_eq!(txn(Proof::OneTransaction, 1), txn(Proof::OneTransaction, 2));
        assert_ne!(txn(Proof::OwnTransaction, 1), txn(Proof::OwnTransaction, 2));
        assert_eq!(self::number(b"1234567"), None);
    }
}
