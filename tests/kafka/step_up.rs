//! Step-up through a whole gate: a record is held, a person is asked, and what they answer decides, at that moment.

use std::collections::BTreeMap;

use countersign::authorize::audit::AuditRecord;
use countersign::authorize::jose::{Algorithm, SigningKey, TokenKind};
use countersign::authorize::step_up::{Challenge, Status};
use countersign::wire::challenge::ChallengeCodec;
use serde_json::json;

use crate::gate::{Expect, Plan, Sender, Sent, Site, audits, now_ms, wait_for, wire};
use crate::support::kafka::{NewRecord, broker};

const ISSUER: &str = "https://login.example.com";

const POLICIES: &str = r#"
@id("big") @step_up("manager") @message("Pay {resource.id} for {subject}?")
forbid (principal, action == Action::"pay", resource == Invoice::"inv-big");

@id("both") @step_up("managers") @approvals("2")
forbid (principal, action == Action::"pay", resource == Invoice::"inv-both");

@id("brief") @step_up("manager") @hold("2s")
forbid (principal, action == Action::"pay", resource == Invoice::"inv-brief");

@id("managers-answer")
permit (principal, action == Action::"answer", resource)
when { [User::"carol", User::"dave", User::"alice"].contains(principal) };
"#;

const SCHEMA: &str = "
entity Challenge;
action answer appliesTo { principal: [User], resource: [Challenge], context: { challenge: { step_ups: Set<String> } } };
";

/// A site whose signed route holds, and the people who answer.
struct Office {
    site: Site,
    challenges: String,
    key: SigningKey,
    codec: ChallengeCodec,
}

impl Office {
    fn new() -> Option<Self> {
        let broker = broker("a whole gate holds, asks, takes in answers and decides again")?;
        let site = Site::new(broker, Plan { route: "skew = \"1s\"", ..Plan::default() });
        let challenges = broker.unique("challenges");
        let key = SigningKey::from_seed(Algorithm::EdDsa, &[31; 32], Some("login")).expect("a key");
        let text = site.read("countersign.toml");
        let approvers =
            format!("[approvers.\"{ISSUER}\"]\nkeys = \"trust/login.jwks\"\ntype = \"User\"\n[[route]]");
        let holding = format!("require = [\"workload\", \"transaction\"]\nchallenges = \"{challenges}\"");
        let text = text.replacen("[[route]]", &approvers, 1);
        site.write(
            "countersign.toml",
            &text.replacen("require = [\"workload\", \"transaction\"]", &holding, 1),
        );
        site.write("trust/login.jwks", &json!({ "keys": [key.public_jwk()] }).to_string());
        let and = |name: &str, more: &str| site.write(name, &format!("{}{more}", site.read(name)));
        and("policies/schema.cedarschema", SCHEMA);
        and("policies/policies.cedar", POLICIES);
        Some(Self { site, challenges, key, codec: ChallengeCodec::new().expect("a codec") })
    }

    fn send(&self, sent: &Sent) {
        self.site.writer.write(&self.site.commands, std::slice::from_ref(&sent.record));
    }

    /// The newest state of each challenge about that resource.
    fn challenges(&self, resource: &str) -> Vec<Challenge> {
        let records = self.site.broker.read_to_end(&self.challenges).into_iter();
        let states = records.filter_map(|record| self.codec.decode(&record.value?).ok());
        let newest: BTreeMap<String, Challenge> = states.map(|state| (state.id.clone(), state)).collect();
        newest.into_values().filter(|challenge| challenge.resource.id == resource).collect()
    }

    /// Waits until the only challenge about that resource has that status.
    fn wait(&self, resource: &str, status: Status) -> Challenge {
        wait_for(&format!("{resource} to be {}", status.as_str()), || {
            let mut all = self.challenges(resource);
            assert!(all.len() < 2, "asked twice: {all:?}");
            all.pop().filter(|challenge| challenge.status == status)
        })
    }

    /// Somebody answers; the same `jti` is the same answer.
    fn answer(&self, challenge: &Challenge, who: &str, decision: &str, digest: &str, jti: &str) {
        let now = now_ms() / 1000;
        let claims = json!({
            "iss": ISSUER, "sub": who, "aud": "test", "iat": now, "exp": now + 600, "jti": jti,
            "challenge": challenge.id, "digest": digest, "decision": decision,
        });
        let token = self.key.sign(TokenKind::StepUpGrant, &claims).expect("an answer");
        let record = NewRecord {
            partition: Some(challenge.partition),
            key: Some(challenge.id.clone().into_bytes()),
            value: Some(token.into_bytes()),
            ..NewRecord::default()
        };
        self.site.writer.write(&format!("{}.answers", self.site.commands), &[record]);
    }

    /// The audit records about a challenge, in order: outcome, reason, and the effect of an answer.
    fn story(&self, challenge: &Challenge) -> Vec<String> {
        let of_it = |audit: &AuditRecord| audit.challenge.as_deref() == Some(&challenge.id);
        let told = audits(&self.site).into_iter().map(|audit| audit.record).filter(of_it).map(|audit| {
            let effect = audit.answer.map(|answer| answer.effect);
            [Some(audit.outcome), audit.reason, effect].into_iter().flatten().collect::<Vec<_>>().join(" ")
        });
        told.collect()
    }

    /// How many answers named nothing that is held.
    fn strays(&self) -> usize {
        let answers = audits(&self.site).into_iter().filter_map(|audit| audit.record.answer);
        answers.filter(|answer| answer.effect == "stray").count()
    }

    fn release(&self, challenge: &Challenge) -> AuditRecord {
        let of_it = |audit: &AuditRecord| {
            audit.challenge.as_deref() == Some(&challenge.id) && audit.outcome == "forward"
        };
        audits(&self.site).into_iter().map(|audit| audit.record).find(of_it).expect("an audited release")
    }
}

#[test]
fn a_held_record_ends_as_it_is_answered_over_restarts_and_once() {
    let Some(office) = Office::new() else { return };
    let site = &office.site;
    let mut sender = Sender::new(site);
    let mut asks = |resource| sender.asks("pay", resource, Expect::Forward);
    let gate = site.start_ready(Some("office"));
    let sent = asks("inv-big");
    office.send(&sent);
    let big = office.wait("inv-big", Status::Open);
    assert_eq!(big.step_ups[0].message, "Pay inv-big for alice?");
    assert!(site.broker.read_to_end(&site.to).is_empty(), "nothing goes on before somebody has approved");

    // Who asked for it, another request, and somebody whom no policy lets answer.
    office.answer(&big, "alice", "approve", &big.digest, "a-1");
    office.answer(&big, "carol", "approve", "bm90IHRoaXMgb25l", "a-2");
    office.answer(&big, "mallory", "approve", &big.digest, "a-3");
    wait_for("three answers to be taken in", || (office.story(&big).len() == 4).then_some(()));
    gate.kill();
    let gate = site.start_ready(Some("office"));
    office.answer(&big, "carol", "approve", &big.digest, "a-4");
    office.wait("inv-big", Status::Released);
    office.answer(&big, "carol", "approve", &big.digest, "a-4");
    office.answer(&big, "dave", "refuse", &big.digest, "a-5");
    wait_for("the late answers to be taken in", || (office.strays() == 2).then_some(()));
    let expected =
        ["hold", "answer requester", "answer invalid", "answer not_permitted", "answer counted", "forward"];
    assert_eq!(office.story(&big), expected);

    let released = site.broker.read_to_end(&site.to);
    assert_eq!(released.len(), 1, "{released:?}");
    assert_eq!(released[0].value, sent.record.value);
    let received = wire(&site.to, &released[0]);
    site.verifier().verify(&received).expect("a countersignature that holds");
    let release = office.release(&big);
    assert_eq!(
        (&release.discharged[..], &release.approvers[..]),
        (&["big".to_owned()][..], &["User::\"carol\"".to_owned()][..])
    );

    // Two must approve of this one; what one refuses and what nobody answers is denied, each with its reason.
    office.send(&asks("inv-both"));
    let both = office.wait("inv-both", Status::Open);
    office.answer(&both, "carol", "approve", &both.digest, "b-1");
    wait_for("the first approval", || (office.story(&both).len() == 2).then_some(()));
    gate.terminate();
    let gate = site.start_ready(None);
    office.answer(&both, "dave", "approve", &both.digest, "b-2");
    office.wait("inv-both", Status::Released);
    assert_eq!(office.release(&both).approvers, ["User::\"carol\"", "User::\"dave\""]);
    office.send(&asks("inv-brief"));
    let brief = office.wait("inv-brief", Status::Expired);
    assert_eq!(office.story(&brief), ["hold", "deny step_up_timed_out"]);
    gate.terminate();
    assert_eq!(site.broker.read_to_end(&site.denied).len(), 1);
    assert_eq!(site.broker.read_to_end(&site.to).len(), 2);
}
