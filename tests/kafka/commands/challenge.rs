//! `challenge` against a running gate: what waits is seen and answered by people who have logged in, over the gate's
//! interface, and by a key of an approver; each answer comes to what it should.

use std::io::Write as _;
use std::process::{Command, Stdio};

use countersign::authorize::jose::{Algorithm, SigningKey};
use serde_json::{Value, json};

use super::{Ended, key, run};
use crate::gate::{Expect, Plan, Sender, Sent, Site, now_ms, wait_for};
use crate::support::kafka::{Broker, broker};

const IDP: &str = "https://login.example.com/realms/main";

const POLICIES: &str = r#"
@id("big") @step_up("manager") @message("Pay {resource.id} for {subject}?")
forbid (principal, action == Action::"pay", resource == Invoice::"inv-big");

@id("strong") @step_up("manager") @acr("phr") @max_age("5m")
forbid (principal, action == Action::"pay", resource == Invoice::"inv-strong");

@id("managers-answer")
permit (principal, action == Action::"answer", resource) unless { principal == User::"mallory" };
"#;

const SCHEMA: &str = "
entity Challenge;
action answer appliesTo { principal: [User], resource: [Challenge], context: { challenge: { step_ups: Set<String> } } };
";

/// A site that holds, asks, and takes the answers of people who log in at an issuer of its own.
struct Office {
    site: Site,
    idp: SigningKey,
}

impl Office {
    fn new(broker: &'static Broker) -> Self {
        let site = Site::new(broker, Plan { route: "skew = \"1s\"", ..Plan::default() });
        let idp = SigningKey::from_seed(Algorithm::Es256, &[41; 32], Some("idp")).expect("a key");
        site.write("trust/idp.jwks", &json!({ "keys": [idp.public_jwk()] }).to_string());
        let public = key(&site, "keys/approver.jwk");
        site.write("trust/approver.jwks", &format!("{{\"keys\": [{public}]}}"));
        let issuers = format!(
            "[approvals]\nlisten = \"127.0.0.1:0\"\n[approvals.oidc.\"{IDP}\"]\naudience = \"countersign\"\n\
             type = \"User\"\nclaim = \"sub\"\nkeys = \"trust/idp.jwks\"\n\
             [approvers.\"https://keys.example.com\"]\nkeys = \"trust/approver.jwks\"\ntype = \"User\"\n[[route]]"
        );
        let require = "require = [\"workload\", \"transaction\"]";
        let holding = format!("{require}\nchallenges = \"{}\"", broker.unique("challenges"));
        let text = site.read("countersign.toml").replacen("[[route]]", &issuers, 1);
        site.write("countersign.toml", &text.replacen(require, &holding, 1));
        let and = |name: &str, more: &str| site.write(name, &format!("{}{more}", site.read(name)));
        and("policies/schema.cedarschema", SCHEMA);
        and("policies/policies.cedar", POLICIES);
        Self { site, idp }
    }

    /// An access token, in `<who>.token`.
    fn log_in(&self, who: &str, more: Value) -> String {
        let now = now_ms() / 1000;
        let mut claims = json!({"iss": IDP, "sub": who, "aud": "countersign", "iat": now, "exp": now + 600});
        claims.as_object_mut().expect("an object").extend(more.as_object().expect("an object").clone());
        let token = self.idp.sign_typ("at+jwt", &claims).expect("a token");
        self.site.write(&format!("{who}.token"), &format!("{token}\n"));
        token
    }

    fn send(&self, sent: &Sent) {
        self.site.writer.write(&self.site.commands, std::slice::from_ref(&sent.record));
    }
}

/// Lets somebody ask the interface at `url`.
fn ask(site: &Site, url: &str, who: &str, arguments: &[&str]) -> Ended {
    let token = format!("{who}.token");
    run(site, &[&["challenge", "--url", url, "--bearer-file", &token], arguments].concat())
}

/// The only open challenge that somebody sees, once there is one.
fn open(site: &Site, url: &str, who: &str) -> Value {
    wait_for("a challenge to be seen", || {
        let mut all = ask(site, url, who, &["list"]).all(0);
        assert!(all.len() < 2, "{all:?}");
        all.pop()
    })
}

#[test]
fn challenges_are_seen_and_answered_from_the_command_line_by_login_and_by_key() {
    let Some(broker) = broker("challenges are answered from the command line") else { return };
    let office = Office::new(broker);
    let (site, mut sender) = (&office.site, Sender::new(&office.site));
    let gate = site.start_ready(None);
    let address = wait_for("the interface for approvers", || gate.serving("approvals"));
    let url = format!("http://{address}");
    let tokens = ["carol", "dave", "alice", "mallory"].map(|who| office.log_in(who, json!({})));
    let ask = |who: &str, arguments: &[&str]| ask(site, &url, who, arguments);

    office.send(&sender.asks("pay", "inv-big", Expect::Forward));
    let asked = open(site, &url, "carol");
    let id = asked["id"].as_str().expect("an id");
    assert_eq!(asked["step_ups"][0]["message"], "Pay inv-big for alice?");
    assert_eq!(ask("carol", &["show", id]).one(0), asked);
    assert_eq!(ask("carol", &["show", id, "--wait", "--timeout", "300ms"]).one(0)["status"], "open");
    assert!(ask("carol", &["approve", id]).error.contains("nobody is there to confirm"));
    // Who asked for it, and somebody whom no policy lets answer.
    let own = ask("alice", &["approve", id, "--yes"]).one(2);
    assert_eq!((&own["error"], &own["status"]), (&"may_not_answer".into(), &403.into()));
    assert!(ask("mallory", &["list", "--status", "all"]).all(0).is_empty());
    assert_eq!(ask("mallory", &["refuse", id, "--yes"]).one(2)["error"], "challenge_unknown");
    assert!(site.broker.read_to_end(&site.to).is_empty(), "nothing went on so far");
    let said = ask("carol", &["approve", id, "--yes", "--wait", "--comment", "as agreed"]).all(0);
    assert_eq!((&said[0]["decision"], &said[0]["challenge"]), (&"approve".into(), &id.into()));
    assert_eq!(
        (&said[1]["status"], &said[1]["answers"][0]["comment"]),
        (&"released".into(), &"as agreed".into())
    );
    assert_eq!(site.broker.read_to_end(&site.to).len(), 1);
    assert!(ask("carol", &["approve", id, "--yes"]).one(2)["refused"].to_string().contains("no longer open"));

    // A login that is too weak is told which would do; who refuses needs no other.
    office.send(&sender.asks("pay", "inv-strong", Expect::Deny("step_up_refused")));
    let asked = open(site, &url, "dave");
    let id = asked["id"].as_str().expect("an id");
    let weak = ask("dave", &["approve", id, "--yes"]).one(2);
    assert_eq!((&weak["acr_values"], &weak["max_age_s"]), (&"phr".into(), &300.into()));
    assert!(weak["refused"].to_string().contains("log in again"), "{weak}");
    assert_eq!(ask("dave", &["refuse", id, "--yes", "--wait"]).all(0)[1]["status"], "refused");
    assert_eq!(site.broker.read_to_end(&site.denied).len(), 1);

    // By a key of an approver, through the topics.
    office.send(&sender.asks("pay", "inv-big", Expect::Forward));
    let asked = open(site, &url, "carol");
    let id = asked["id"].as_str().expect("an id");
    let unsigned = run(site, &["challenge", "approve", id, "--yes"]);
    assert_eq!(unsigned.code, 1);
    assert!(unsigned.error.contains("nobody signs the answer"), "{}", unsigned.error);
    let who =
        ["--signing-key", "keys/approver.jwk", "--issuer", "https://keys.example.com", "--subject", "dave"];
    assert!(
        ask("carol", &[&["approve", id, "--yes"], &who[..]].concat()).error.contains("signed by the gate")
    );
    let said = run(site, &[&["challenge", "approve", id, "--yes", "--wait"], &who[..]].concat()).all(0);
    assert_eq!(said[1]["status"], "released");
    assert_eq!(site.broker.read_to_end(&site.to).len(), 2);

    // No login, no answer; and no token is ever said.
    site.write("nobody.token", "no.token.atall\n");
    let nobody = ask("nobody", &["list"]);
    assert!(nobody.code == 1 && nobody.error.contains("invalid_token"), "{}", nobody.error);
    assert_eq!(run(site, &["challenge", "list", "--url", &url]).code, 1, "a gate and no login");
    let elsewhere =
        run(site, &["challenge", "list", "--url", "http://192.0.2.1", "--bearer-file", "carol.token"]);
    assert!(elsewhere.code == 1 && elsewhere.error.contains("plain HTTP"), "{}", elsewhere.error);
    assert_eq!(from_input(site, &url, &tokens[0]), 0);
    gate.terminate();
    let output = String::from_utf8_lossy(&site.output()).into_owned() + &nobody.error + &elsewhere.error;
    assert!(tokens.iter().all(|token| !output.contains(token.as_str())), "a token was said");
}

/// Lists with the token from standard input; how it ended.
fn from_input(site: &Site, url: &str, token: &str) -> i32 {
    let mut asking = Command::new(env!("CARGO_BIN_EXE_countersign"))
        .args(["challenge", "list", "--url", url, "--bearer-file", "-"])
        .current_dir(site.path(""))
        .stdin(Stdio::piped())
        .spawn()
        .expect("the program runs");
    asking.stdin.take().expect("its input").write_all(token.as_bytes()).expect("it reads");
    asking.wait().expect("it ends").code().expect("an exit code")
}
