//! The situations of a mixed load: everything that can be right or wrong with a record, each with what the contract makes
//! of it.

use countersign::authorize::jose::{TokenKind, sha256, token_hash};
use countersign::authorize::record::Header;
use serde_json::json;

use super::dice::Dice;
use super::ledger::{Expect, Sent};
use super::now_ms;
use super::sender::{How, Sender, Source, jti, replace, token};
use super::site::REALM;
use crate::support::kafka::NewRecord;

impl Sender {
    /// One of everything that can be wrong or right, by chance. Two of three are allowed.
    pub fn any(&mut self, dice: &mut Dice) -> Sent {
        if dice.below(3) != 0 {
            return self.allowed();
        }
        if dice.below(4) == 0 && !self.proven.is_empty() {
            let original = &self.proven[usize::try_from(dice.below(self.proven.len() as u64)).expect("fits")];
            return original.copy();
        }
        let situations = Self::SITUATIONS;
        let at = usize::try_from(dice.below(situations.len() as u64)).expect("fits");
        situations[at](self)
    }

    /// Every situation once, and a copy.
    pub fn each(&mut self) -> Vec<Sent> {
        let original = self.allowed();
        let copy = original.copy();
        let mut all = vec![original, copy];
        all.extend(Self::SITUATIONS.iter().map(|situation| situation(self)));
        all
    }

    const SITUATIONS: &'static [fn(&mut Self) -> Sent] = &[
        |s| s.asks("refund", "inv-7", Expect::Deny("not_permitted")),
        |s| s.asks("pay", "inv-frozen", Expect::Deny("forbidden")),
        |s| s.asks("audit", "inv-7", Expect::Deny("policy_error")),
        |s| s.asks("undeclared", "inv-7", Expect::Deny("request_invalid")),
        |s| {
            s.signed("narrow scope", Expect::Deny("not_permitted"), |s| How {
                txn: Some(&s.narrow_txn),
                ..s.how()
            })
        },
        |s| s.signed("no txn-token", Expect::Deny("context_missing"), |s| How { txn: None, ..s.how() }),
        |s| s.signed("expired", Expect::Deny("token_expired"), |s| How { shift_ms: -400_000, ..s.how() }),
        |s| {
            s.signed("not yet valid", Expect::Deny("token_not_yet_valid"), |s| How {
                shift_ms: 120_000,
                ..s.how()
            })
        },
        |s| {
            s.signed("for another topic", Expect::Deny("audience_mismatch"), |s| How {
                topic: Some(&s.elsewhere),
                ..s.how()
            })
        },
        |s| {
            s.signed("unknown issuer", Expect::Deny("issuer_unknown"), |s| How {
                signer: Some(&s.stranger),
                ..s.how()
            })
        },
        |s| {
            s.signed("unknown domain", Expect::Deny("issuer_unknown"), |s| How {
                signer: Some(&s.outsider),
                txn: Some(&s.outsider_txn),
                ..s.how()
            })
        },
        |s| {
            s.signed("the settler alone", Expect::Deny("not_permitted"), |s| How {
                signer: Some(&s.settler),
                ..s.how()
            })
        },
        |s| {
            s.signed("traced", Expect::Forward, |s| How {
                headers: vec![
                    Header::new("traceparent", "00-4bf92f3577b34da6a3ce929d0e0e4736-00f067aa0ba902b7-01"),
                    Header::new("decision-id", "a lie that is not forwarded"),
                ],
                ..s.how()
            })
        },
        |s| {
            s.broken("tampered value", "proof_mismatch", |record| {
                record.value = Some(br#"{"do": "pay", "invoice": "inv-7", "amount": 1000000}"#.to_vec());
            })
        },
        |s| s.broken("another key", "proof_mismatch", |record| record.key = Some(b"inv-other".to_vec())),
        |s| s.broken("no headers", "context_missing", |record| record.headers.clear()),
        |s| {
            s.broken("no proof", "context_missing", |record| {
                record.headers.retain(|(name, _)| name != TokenKind::WorkloadProof.header_name());
            })
        },
        |s| {
            s.broken("no token", "context_malformed", |record| {
                replace(record, TokenKind::WorkloadProof, "not.a-token".to_owned());
            })
        },
        |s| {
            s.broken("a doubled header", "context_malformed", |record| {
                let double = record.headers[0].clone();
                record.headers.push(double);
            })
        },
        |s| {
            s.broken("a header in another case", "context_malformed", |record| {
                let value = token(record, TokenKind::Transaction).into_bytes();
                record.headers.push(("Txn-Token".into(), Some(value)));
            })
        },
        |s| {
            s.broken("a huge header", "context_too_large", |record| {
                record.headers.push(("padding".into(), Some(vec![b'p'; 40_000])));
            })
        },
        |s| {
            s.broken("another signature", "signature_invalid", |record| {
                let kind = TokenKind::WorkloadProof;
                let proof = token(record, kind);
                let (signed, signature) = proof.rsplit_once('.').expect("three parts");
                let swapped: String = signature[40..80].chars().chain(signature[..40].chars()).collect();
                replace(record, kind, format!("{signed}.{swapped}{}", &signature[80..]));
            })
        },
        |s| {
            s.broken("another's transaction", "proof_mismatch", |record| {
                // The proof binds the hash of the token that was there.
                record.headers.retain(|(name, _)| name != TokenKind::Transaction.header_name());
            })
            .with_transaction_of(s)
        },
        |s| s.continued("carried on", 0, Expect::Forward),
        |s| s.continued("an old countersignature", -7_200_000, Expect::Deny("chain_invalid")),
        |s| {
            let blank = NewRecord { key: None, ..s.blank() };
            let record = s.sign(blank, &s.how());
            Sent::new("a null key", Source::Commands, record, Expect::Forward)
        },
        |s| {
            let blank = NewRecord { value: None, ..s.blank() };
            let record = s.sign(blank, &s.how());
            Sent::new("a null value", Source::Commands, record, Expect::Forward)
        },
        |s| s.old("legacy", Expect::Forward, |_| ()),
        |s| {
            s.old("legacy, frozen", Expect::Deny("forbidden"), |record| {
                record.value = Some(br#"{"do": "pay", "invoice": "inv-frozen"}"#.to_vec());
            })
        },
        |s| {
            s.old("legacy, no JSON", Expect::Deny("request_unmapped"), |record| {
                record.value = Some(b"\x00\xff no JSON".to_vec());
            })
        },
        |s| {
            s.old("legacy, a dead letter put back", Expect::Deny("context_malformed"), |record| {
                record.headers.push(("denied-reason".into(), Some(b"forbidden".to_vec())));
            })
        },
        |s| {
            // The full rules hold for a record that carries a token, wherever it stands.
            let blank = s.blank();
            let resource = String::from_utf8(blank.key.clone().expect("a key")).expect("text");
            let record = s.sign(blank, &How { topic: Some(&s.legacy), resource: &resource, ..s.how() });
            Sent::new("legacy, signed", Source::Legacy, record, Expect::Forward)
        },
        |s| {
            let blank = s.blank();
            let record = s.sign(blank, &How { topic: Some(&s.legacy), resource: "inv-other", ..s.how() });
            Sent::new("legacy, two requests", Source::Legacy, record, Expect::Deny("request_mismatch"))
        },
    ];

    fn signed(
        &mut self,
        what: &'static str,
        expect: Expect,
        how: impl for<'s> FnOnce(&'s Self) -> How<'s>,
    ) -> Sent {
        let blank = self.blank();
        Sent::new(what, Source::Commands, self.sign(blank, &how(self)), expect)
    }

    /// A record that was good until something was done to it.
    fn broken(&mut self, what: &'static str, reason: &'static str, harm: fn(&mut NewRecord)) -> Sent {
        let blank = self.blank();
        let mut record = self.sign(blank, &self.how());
        harm(&mut record);
        Sent::new(what, Source::Commands, record, Expect::Deny(reason))
    }

    /// A record of the system that cannot sign.
    fn old(&mut self, what: &'static str, expect: Expect, change: fn(&mut NewRecord)) -> Sent {
        let mut record = self.blank();
        change(&mut record);
        Sent::new(what, Source::Legacy, record, expect)
    }

    /// The settler continues what the payer began and a gate countersigned, so long ago.
    fn continued(&mut self, what: &'static str, shift_ms: i64, expect: Expect) -> Sent {
        let issued = (now_ms() + shift_ms) / 1000;
        let claims = json!({
            "iss": "spiffe://example.org/gate/payments",
            "aud": format!("kafka://{REALM}/plans.authorized"),
            "iat": issued,
            "exp": issued + 900,
            "jti": jti(),
            "sub": "spiffe://example.org/agent/payer",
            "txn": "txn-1",
            "tth": token_hash(self.txn.as_bytes()).to_string(),
            "action": {"name": "pay"},
            "resource": {"type": "Invoice", "id": "inv-7"},
            "kafka": {"key": null, "value": sha256(&[b"plan"]).to_string()},
            "policy": sha256(&[b"bundle"]).to_string(),
            "source": "plans.commands/0/17",
        });
        let chain = self.gate.sign(TokenKind::Countersignature, &claims).expect("a countersignature");
        let blank = self.blank();
        let how = How { signer: Some(&self.settler), chain: Some(&chain), ..self.how() };
        Sent::new(what, Source::Commands, self.sign(blank, &how), expect)
    }
}

impl Sent {
    /// Another good Txn-Token than the one that the proof binds.
    fn with_transaction_of(mut self, sender: &Sender) -> Self {
        let name = TokenKind::Transaction.header_name().to_owned();
        self.record.headers.push((name, Some(sender.narrow_txn.clone().into_bytes())));
        self
    }
}
