//! A site whose signed route holds, and the people who answer: challenges as they are published, answers as an approver's
//! issuer signs them. Limits: answers go to the topic; over HTTP they are given elsewhere.

use std::collections::{BTreeMap, HashMap};
use std::sync::{Arc, Mutex};

use countersign::authorize::audit::AuditRecord;
use countersign::authorize::jose::{Algorithm, SigningKey, TokenKind, sha256};
use countersign::authorize::step_up::{Challenge, Status};
use countersign::wire::challenge::ChallengeCodec;
use serde_json::json;

use crate::gate::{Plan, Site, audits, now_ms, told, wait_for};
use crate::support::kafka::{Broker, NewRecord, broker};

pub const ISSUER: &str = "https://login.example.com";

/// One must approve of `inv-big`, two of `inv-both`, one within two seconds of `inv-brief`.
pub const POLICIES: &str = r#"
@id("big") @step_up("manager") @message("Pay {resource.id} for {subject}?")
forbid (principal, action == Action::"pay", resource == Invoice::"inv-big");

@id("both") @step_up("managers") @approvals("2")
forbid (principal, action == Action::"pay", resource == Invoice::"inv-both");

@id("brief") @step_up("manager") @hold("2s")
forbid (principal, action == Action::"pay", resource == Invoice::"inv-brief");

@id("managers-answer")
permit (principal, action == Action::"answer", resource)
when { [User::"carol", User::"dave", User::"erin", User::"alice"].contains(principal) };
"#;

const SCHEMA: &str = "
entity Challenge;
action answer appliesTo { principal: [User], resource: [Challenge], context: { challenge: { step_ups: Set<String> } } };
";

/// How many must approve of a payment of that invoice; none where nobody is asked.
pub fn needed(resource: &str) -> usize {
    match resource {
        "inv-big" | "inv-brief" => 1,
        "inv-both" => 2,
        _ => 0,
    }
}

/// What an answer says.
#[derive(Clone, Debug)]
pub struct Said {
    pub challenge: String,
    pub who: String,
    pub approves: bool,
    /// Whether its digest is that of the challenge.
    pub fits: bool,
    pub jti: String,
}

/// The site, and what the people have signed.
pub struct Office {
    pub site: Arc<Site>,
    challenges: String,
    key: SigningKey,
    codec: ChallengeCodec,
    /// By the hash of the token.
    signed: Mutex<HashMap<String, Said>>,
}

impl Office {
    /// `test` is the rule that is shown; `None` where it has to be skipped.
    pub fn new(test: &str, plan: Plan) -> Option<Self> {
        Some(Self::on(broker(test)?, plan))
    }

    /// The same on a broker that is there.
    pub fn on(broker: &'static Broker, plan: Plan) -> Self {
        let site = Arc::new(Site::new(broker, plan));
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
        let codec = ChallengeCodec::new().expect("a codec");
        Self { site, challenges, key, codec, signed: Mutex::default() }
    }

    /// Deletes every topic, where a long test goes on with another office.
    pub fn forget(&self) {
        let Site { commands, legacy, to, denied, audit, .. } = &*self.site;
        let own = ["replay", "holds", "answers"].map(|what| format!("{commands}.{what}"));
        let others = [commands, legacy, to, denied, audit, &self.challenges, &format!("{legacy}.replay")];
        for topic in own.iter().chain(others) {
            self.site.broker.delete_topic(topic);
        }
    }

    /// The topic of challenges.
    pub fn challenges_topic(&self) -> &str {
        &self.challenges
    }

    /// The topic of answers.
    pub fn answers_topic(&self) -> String {
        format!("{}.answers", self.site.commands)
    }

    /// The topic of held records.
    pub fn holds_topic(&self) -> String {
        format!("{}.holds", self.site.commands)
    }

    /// Reads a challenge as it is published.
    pub fn read(&self, value: &[u8]) -> Challenge {
        self.codec.decode(value).expect("a challenge")
    }

    /// Every state of every challenge, in the order of the topic.
    pub fn told(&self) -> Vec<Challenge> {
        let records = self.site.broker.read_to_end(&self.challenges).into_iter();
        records.filter_map(|record| Some(self.read(&record.value?))).collect()
    }

    /// The newest state of each challenge about that resource, in the order of the records.
    pub fn challenges(&self, resource: &str) -> Vec<Challenge> {
        let states = self.told().into_iter();
        let newest: BTreeMap<(i32, i64, String), Challenge> =
            states.map(|state| ((state.partition, state.offset, state.id.clone()), state)).collect();
        newest.into_values().filter(|challenge| challenge.resource.id == resource).collect()
    }

    /// Waits until the only challenge about that resource has that status.
    pub fn wait(&self, resource: &str, status: Status) -> Challenge {
        wait_for(&format!("{resource} to be {}", status.as_str()), || {
            let mut all = self.challenges(resource);
            assert!(all.len() < 2, "asked twice: {all:?}");
            all.pop().filter(|challenge| challenge.status == status)
        })
    }

    /// Waits until the record that stands there is held, and for the status of its challenge.
    pub fn wait_at(&self, resource: &str, place: (i32, i64), status: Status) -> Challenge {
        wait_for(&format!("{resource} at {place:?} to be {}", status.as_str()), || {
            let mut all = self.challenges(resource);
            all.retain(|challenge| (challenge.partition, challenge.offset) == place);
            all.pop().filter(|challenge| challenge.status == status)
        })
    }

    /// What somebody signs, for an hour; the same `jti` is the same answer.
    pub fn sign(&self, challenge: &Challenge, who: &str, decision: &str, digest: &str, jti: &str) -> String {
        let now = now_ms() / 1000;
        let claims = json!({
            "iss": ISSUER, "sub": who, "aud": "test", "iat": now, "exp": now + 3600, "jti": jti,
            "challenge": challenge.id, "digest": digest, "decision": decision,
        });
        let token = self.key.sign(TokenKind::StepUpGrant, &claims).expect("an answer");
        let said = Said {
            challenge: challenge.id.clone(),
            who: who.to_owned(),
            approves: decision == "approve",
            fits: digest == challenge.digest,
            jti: jti.to_owned(),
        };
        self.signed.lock().expect("no panic").insert(hash(token.as_bytes()), said);
        token
    }

    /// Writes an answer to the topic, in the partition of the challenge.
    pub fn write(&self, challenge: &Challenge, token: impl Into<Vec<u8>>) {
        self.write_all(vec![answer(challenge, token.into())]);
    }

    /// Writes answers, in that order.
    pub fn write_all(&self, answers: Vec<NewRecord>) {
        self.site.writer.try_write(&self.answers_topic(), &answers);
    }

    /// Somebody answers.
    pub fn answer(&self, challenge: &Challenge, who: &str, decision: &str, digest: &str, jti: &str) {
        self.write(challenge, self.sign(challenge, who, decision, digest, jti));
    }

    /// Somebody approves of what the challenge asks.
    pub fn approve(&self, challenge: &Challenge, who: &str, jti: &str) {
        self.answer(challenge, who, "approve", &challenge.digest, jti);
    }

    /// What the token of that hash says, if one of these people has signed it.
    pub fn said(&self, hash: &str) -> Option<Said> {
        self.signed.lock().expect("no panic").get(hash).cloned()
    }

    /// The audit records about a challenge, in order: outcome, reason, and the effect of an answer.
    pub fn story(&self, challenge: &Challenge) -> Vec<String> {
        let of_it = |audit: &AuditRecord| audit.challenge.as_deref() == Some(&challenge.id);
        let audits = audits(&self.site).into_iter().map(|audit| audit.record);
        audits.filter(of_it).map(|audit| told(&audit)).collect()
    }

    /// The effects of all answers, in the order in which they were taken in.
    pub fn effects(&self) -> Vec<String> {
        let answers = audits(&self.site).into_iter().filter_map(|audit| audit.record.answer);
        answers.map(|answer| answer.effect).collect()
    }

    /// Waits until so many answers have had no effect because nothing is held for them.
    pub fn wait_strays(&self, count: usize) {
        let strays = || self.effects().into_iter().filter(|effect| effect == "stray").count();
        wait_for(&format!("{count} answers to come to nothing"), || (strays() == count).then_some(()));
    }

    /// The audited release of a held record.
    pub fn release(&self, challenge: &Challenge) -> AuditRecord {
        let of_it = |audit: &AuditRecord| {
            audit.challenge.as_deref() == Some(&challenge.id) && audit.outcome == "forward"
        };
        audits(&self.site).into_iter().map(|audit| audit.record).find(of_it).expect("an audited release")
    }

    /// Waits until every answer in the topic has been decided.
    pub fn wait_answered(&self) {
        let (broker, topic) = (self.site.broker, self.answers_topic());
        let ends: BTreeMap<i32, i64> = broker
            .read_to_end(&topic)
            .into_iter()
            .map(|record| (record.partition, record.offset + 1))
            .collect();
        wait_for("every answer to be decided", || {
            let committed = broker.committed(&self.site.group, &topic);
            let decided = |(partition, end): (&i32, &i64)| {
                committed.get(partition).is_some_and(|found| found.position >= *end)
            };
            ends.iter().all(decided).then_some(())
        });
    }
}

/// An answer as it is written.
pub fn answer(challenge: &Challenge, token: Vec<u8>) -> NewRecord {
    NewRecord {
        partition: Some(challenge.partition),
        key: Some(challenge.id.clone().into_bytes()),
        value: Some(token),
        ..NewRecord::default()
    }
}

/// How audit records name a token.
pub fn hash(token: &[u8]) -> String {
    sha256(&[token]).to_string()
}
