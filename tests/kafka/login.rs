//! A login that is refreshed through a whole gate: a record is held until a fresh Txn-Token of its transaction, sent as the
//! answer, tells a strong enough login.

use std::collections::BTreeMap;

use countersign::authorize::audit::AuditRecord;
use countersign::authorize::jose::{Algorithm, SigningKey, TokenKind};
use countersign::authorize::step_up::{Challenge, Status};
use countersign::wire::challenge::ChallengeCodec;
use serde_json::{Value, json};

use crate::gate::{Expect, Plan, Sender, Site, audits, now_ms, told, wait_for, wire};
use crate::support::kafka::{NewRecord, broker};

const ISSUER: &str = "https://login.example.com";

const POLICIES: &str = r#"
@id("strong-login") @step_up("login") @acr("phr phrh") @max_age("5m")
forbid (principal, action == Action::"pay", resource)
when { [Invoice::"inv-login", Invoice::"inv-both"].contains(resource) }
unless {
  context has transaction.acr && ["phr", "phrh"].contains(context.transaction.acr) &&
  context has transaction.authenticated_at &&
  context.now.durationSince(context.transaction.authenticated_at) <= duration("5m")
};

@id("both") @step_up("manager")
forbid (principal, action == Action::"pay", resource == Invoice::"inv-both");

@id("managers-answer")
permit (principal == User::"carol", action == Action::"answer", resource);
"#;

const SCHEMA: &str = "
entity Challenge;
action answer appliesTo { principal: [User], resource: [Challenge], context: {} };
";

/// A site whose signed route holds, its token service, and one approver.
struct Counter {
    site: Site,
    challenges: String,
    service: SigningKey,
    approver: SigningKey,
    codec: ChallengeCodec,
}

impl Counter {
    fn new() -> Option<Self> {
        let broker = broker("a fresh Txn-Token releases a held record")?;
        let site = Site::new(broker, Plan::default());
        let challenges = broker.unique("challenges");
        let approver = SigningKey::from_seed(Algorithm::EdDsa, &[32; 32], Some("login")).expect("a key");
        let change = |name: &str, from: &str, to: &str| {
            let text = site.read(name);
            assert!(text.contains(from), "{name} lacks {from}");
            site.write(name, &text.replacen(from, to, 1));
        };
        let require = "require = [\"workload\", \"transaction\"]";
        change("countersign.toml", require, &format!("{require}\nchallenges = \"{challenges}\""));
        let approvers =
            format!("[approvers.\"{ISSUER}\"]\nkeys = \"trust/login.jwks\"\ntype = \"User\"\n[[route]]");
        change("countersign.toml", "[[route]]", &approvers);
        site.write("trust/login.jwks", &json!({ "keys": [approver.public_jwk()] }).to_string());
        let schema = "policies/schema.cedarschema";
        change(
            schema,
            "expires_at: datetime,",
            "expires_at: datetime, acr?: String, authenticated_at?: datetime,",
        );
        site.write(schema, &format!("{}{SCHEMA}", site.read(schema)));
        let policies = "policies/policies.cedar";
        site.write(policies, &format!("{}{POLICIES}", site.read(policies)));
        let service =
            SigningKey::from_jwk(&site.read("keys/token-service.jwk")).expect("the token service's key");
        Some(Self { site, challenges, service, approver, codec: ChallengeCodec::new().expect("a codec") })
    }

    /// Waits until the only challenge about that resource has that status.
    fn wait(&self, resource: &str, status: Status) -> Challenge {
        wait_for(&format!("{resource} to be {}", status.as_str()), || {
            let records = self.site.broker.read_to_end(&self.challenges).into_iter();
            let states = records.filter_map(|record| self.codec.decode(&record.value?).ok());
            let newest: BTreeMap<String, Challenge> = states
                .map(|state| (state.id.clone(), state))
                .filter(|(_, of)| of.resource.id == resource)
                .collect();
            assert!(newest.len() < 2, "asked twice: {newest:?}");
            newest.into_values().find(|challenge| challenge.status == status)
        })
    }

    /// A Txn-Token of the sender's transaction with a strong login of this moment.
    fn fresh(&self, edit: impl FnOnce(&mut Value)) -> Value {
        let now = now_ms() / 1000;
        let mut claims = json!({
            "aud": "example.org", "iat": now, "exp": now + 600, "txn": "txn-1", "sub": "alice", "scope": "payments.read",
            "req_wl": "spiffe://example.org/api-gateway", "rctx": {"acr": "phrh", "amr": ["hwk"], "auth_time": now},
        });
        edit(&mut claims);
        claims
    }

    fn write(&self, challenge: &Challenge, token: &str, headers: Vec<(String, Option<Vec<u8>>)>) {
        let record = NewRecord {
            partition: Some(challenge.partition),
            value: Some(token.to_owned().into_bytes()),
            headers,
            ..NewRecord::default()
        };
        self.site.writer.write(&format!("{}.answers", self.site.commands), &[record]);
    }

    /// Answers with a Txn-Token signed by that key; what was written.
    fn log_in(&self, challenge: &Challenge, claims: &Value, key: &SigningKey) -> String {
        let token = key.sign(TokenKind::Transaction, claims).expect("a Txn-Token");
        let named = ("challenge".to_owned(), Some(challenge.id.clone().into_bytes()));
        self.write(challenge, &token, vec![named]);
        token
    }

    fn approve(&self, challenge: &Challenge) {
        let now = now_ms() / 1000;
        let claims = json!({
            "iss": ISSUER, "sub": "carol", "aud": "test", "iat": now, "exp": now + 600, "jti": "b-1",
            "challenge": challenge.id, "digest": challenge.digest, "decision": "approve",
        });
        let token = self.approver.sign(TokenKind::StepUpGrant, &claims).expect("an answer");
        self.write(challenge, &token, Vec::new());
    }

    fn about(&self, challenge: &Challenge) -> Vec<AuditRecord> {
        let all = audits(&self.site).into_iter().map(|audit| audit.record);
        all.filter(|audit| audit.challenge.as_deref() == Some(&challenge.id)).collect()
    }

    /// The audit records about a challenge, in order: outcome, reason, and the effect of an answer.
    fn story(&self, challenge: &Challenge) -> Vec<String> {
        self.about(challenge).iter().map(told).collect()
    }

    fn wait_story(&self, challenge: &Challenge, length: usize) {
        wait_for(&format!("{length} audit records"), || {
            (self.story(challenge).len() >= length).then_some(())
        });
    }
}

#[test]
fn a_held_record_goes_on_once_its_subject_has_logged_in_again() {
    let Some(counter) = Counter::new() else { return };
    let site = &counter.site;
    let mut sender = Sender::new(site);
    let gate = site.start_ready(Some("counter"));
    let sent = sender.asks("pay", "inv-login", Expect::Forward);
    site.writer.write(&site.commands, std::slice::from_ref(&sent.record));
    let challenge = counter.wait("inv-login", Status::Open);
    let ask = &challenge.step_ups[0];
    assert_eq!((ask.acr_values.as_deref(), ask.max_age_s, ask.approvals), (Some("phr phrh"), Some(300), 0));

    let weak = counter.fresh(|claims| claims["rctx"]["acr"] = "pwd".into());
    counter.log_in(&challenge, &weak, &counter.service);
    let strangers = counter.fresh(|claims| claims["txn"] = "txn-2".into());
    counter.log_in(&challenge, &strangers, &counter.service);
    let forger = SigningKey::from_seed(Algorithm::EdDsa, &[33; 32], Some("forger")).expect("a key");
    counter.log_in(&challenge, &counter.fresh(|_| {}), &forger);
    counter.wait_story(&challenge, 4);
    assert!(site.broker.read_to_end(&site.to).is_empty(), "nothing goes on without a login that holds");
    let token = counter.log_in(&challenge, &counter.fresh(|_| {}), &counter.service);
    counter.wait("inv-login", Status::Released);
    let expected =
        ["hold", "answer invalid", "answer invalid", "answer invalid", "answer counted", "forward"];
    assert_eq!(counter.story(&challenge), expected);
    let released = site.broker.read_to_end(&site.to);
    assert_eq!(released.len(), 1, "{released:?}");
    let received = wire(&site.to, &released[0]);
    site.verifier().verify(&received).expect("a countersignature over the token that the record came with");
    let release = counter.about(&challenge).pop().expect("an audited release");
    assert_eq!(release.scope, ["payments.pay", "payments.read"], "nothing but the login is refreshed");
    assert!(release.token_hashes.iter().any(|hash| hash.header == "login"));

    // A login that was taken in outlives the gate, and waits for the approval that is asked for beside it.
    let sent = sender.asks("pay", "inv-both", Expect::Forward);
    site.writer.write(&site.commands, std::slice::from_ref(&sent.record));
    let both = counter.wait("inv-both", Status::Open);
    let kept = counter.log_in(&both, &counter.fresh(|_| {}), &counter.service);
    counter.wait_story(&both, 3);
    gate.kill();
    let gate = site.start_ready(Some("counter"));
    counter.approve(&both);
    counter.wait("inv-both", Status::Released);
    assert_eq!(counter.story(&both), ["hold", "answer counted", "hold", "answer counted", "forward"]);
    gate.terminate();
    assert_eq!(site.broker.read_to_end(&site.to).len(), 2);

    // The live tokens stand where they were written and in the holds, and nowhere else.
    let output = site.output();
    for token in [&token, &kept] {
        let holds_it = |bytes: &[u8]| bytes.windows(token.len()).any(|part| part == token.as_bytes());
        assert!(!holds_it(&output), "a live token in the output of a gate");
        for topic in [&site.to, &site.denied, &site.audit, &counter.challenges] {
            for record in site.broker.read_to_end(topic) {
                let headers = record.headers.iter().filter_map(|(_, value)| value.as_deref());
                let parts = headers.chain(record.value.as_deref());
                assert!(!parts.into_iter().any(holds_it), "a live token in {topic}");
            }
        }
    }
}
