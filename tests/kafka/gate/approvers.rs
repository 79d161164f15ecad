//! The approvers of a site: who they are in its configuration, what they are asked, and what they answer. Limits: they hold a
//! key of their own, as in development.

use std::collections::BTreeMap;
use std::fs::{self, Permissions};
use std::os::unix::fs::PermissionsExt as _;

use countersign::authorize::jose::{Algorithm, SigningKey, TokenKind};
use countersign::authorize::step_up::{Challenge, Status};
use countersign::wire::challenge::ChallengeCodec;
use serde_json::json;

use super::{Site, now_ms, wait_for};
use crate::support::kafka::NewRecord;

const ISSUER: &str = "https://login.example.com";

/// What policies and their schema need so that managers may answer.
const POLICY: &str = r#"
@id("managers-answer")
permit (principal, action == Action::"answer", resource)
when { [User::"carol", User::"dave", User::"alice"].contains(principal) };
"#;
const SCHEMA: &str = "
entity Challenge;
action answer appliesTo { principal: [User], resource: [Challenge], context: { challenge: { step_ups: Set<String> } } };
";

/// People who are asked over HTTP.
pub struct Approvers {
    key: SigningKey,
    codec: ChallengeCodec,
    pub challenges: String,
    pub answers: String,
}

impl Approvers {
    /// Lets the gates of a site answer access evaluations by its signed route, and ask people about them. Its policies and
    /// schema, as they are, get what managers need to answer. The gates make the topics.
    pub fn join(site: &Site) -> Self {
        let (challenges, answers) = (site.broker.unique("challenges"), site.broker.unique("access-answers"));
        let key = SigningKey::from_seed(Algorithm::EdDsa, &[31; 32], Some("login")).expect("a key");
        site.write("keys/login.jwk", &key.private_jwk());
        let only_mine = Permissions::from_mode(0o600);
        fs::set_permissions(site.path("keys/login.jwk"), only_mine).expect("a file of the site");
        site.write("trust/login.jwks", &json!({ "keys": [key.public_jwk()] }).to_string());
        let approvers =
            format!("[approvers.\"{ISSUER}\"]\nkeys = \"trust/login.jwks\"\ntype = \"User\"\n[[route]]");
        let holds = format!("[[route]]\nchallenges = \"{challenges}\"");
        let text = site.read("countersign.toml").replacen("[[route]]", &holds, 1);
        let text = text.replacen("[[route]]", &approvers, 1);
        let access =
            format!("[access]\nlisten = \"127.0.0.1:0\"\nroute = \"payments\"\nanswers = \"{answers}\"\n");
        site.write("countersign.toml", &format!("{text}\n{access}"));
        for (name, more) in [("policies/policies.cedar", POLICY), ("policies/schema.cedarschema", SCHEMA)] {
            site.write(name, &format!("{}{more}", site.read(name)));
        }
        Self { key, codec: ChallengeCodec::new().expect("a codec"), challenges, answers }
    }

    /// The newest state of each challenge about that resource, in the order in which they were asked.
    pub fn asked(&self, site: &Site, resource: &str) -> Vec<Challenge> {
        let records = site.broker.read_to_end(&self.challenges).into_iter();
        let states = records.filter_map(|record| self.codec.decode(&record.value?).ok());
        let newest: BTreeMap<String, Challenge> = states.map(|state| (state.id.clone(), state)).collect();
        let mut asked: Vec<Challenge> =
            newest.into_values().filter(|challenge| challenge.resource.id == resource).collect();
        asked.sort_by_key(|challenge| (challenge.asked_at, challenge.id.clone()));
        asked
    }

    /// Waits until the newest challenge about that resource has that status.
    pub fn wait(&self, site: &Site, resource: &str, status: Status) -> Challenge {
        wait_for(&format!("{resource} to be {}", status.as_str()), || {
            self.asked(site, resource).pop().filter(|challenge| challenge.status == status)
        })
    }

    /// Somebody approves at a terminal, and waits until that is counted.
    pub fn approve_at_terminal(&self, site: &Site, challenge: &Challenge, who: &str) {
        let of = ["--signing-key", "keys/login.jwk", "--issuer", ISSUER, "--subject", who];
        let how = ["--yes", "--wait"];
        site.command(&[&["challenge", "approve", &challenge.id][..], &of, &how].concat());
    }

    /// Somebody answers, in the partition that the challenge names.
    pub fn answer(&self, site: &Site, challenge: &Challenge, who: &str, decision: &str) {
        let now = now_ms() / 1000;
        let claims = json!({
            "iss": ISSUER, "sub": who, "aud": "test", "iat": now, "exp": now + 600,
            "jti": format!("{}/{who}/{decision}", challenge.id), "challenge": challenge.id,
            "digest": challenge.digest, "decision": decision,
        });
        let token = self.key.sign(TokenKind::StepUpGrant, &claims).expect("an answer");
        let record = NewRecord {
            partition: Some(challenge.partition),
            key: Some(challenge.id.clone().into_bytes()),
            value: Some(token.into_bytes()),
            ..NewRecord::default()
        };
        site.writer.write(&self.answers, &[record]);
    }
}
