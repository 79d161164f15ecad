//! A real gate between a real Kafka and a real Keycloak: a record is held, somebody logs in, sees what is asked, and approves;
//! who asked for it may not.

use std::net::SocketAddr;

use countersign::authorize::step_up::Status;
use reqwest::blocking::Client;
use serde_json::{Value, json};

use crate::gate::{Expect, Ledger, Plan, Sender, audits, wait_for};
use crate::office::Office;
use crate::support::keycloak::keycloak;

/// The interface of a gate, as one person's browser sees it.
struct Person<'a> {
    client: &'a Client,
    address: SocketAddr,
    token: String,
}

impl Person<'_> {
    /// Status and body.
    fn get(&self, path: &str) -> (u16, Value) {
        let request = self.client.get(format!("http://{}{path}", self.address)).bearer_auth(&self.token);
        answered(request.send().expect("an answer"))
    }

    fn approve(&self, challenge: &str, digest: &str) -> (u16, Value) {
        let url = format!("http://{}/challenges/{challenge}/answer?wait=20s", self.address);
        let body = json!({"decision": "approve", "comment": "as agreed", "digest": digest});
        let request =
            self.client.post(url).bearer_auth(&self.token).header("content-type", "application/json");
        answered(request.body(body.to_string()).send().expect("an answer"))
    }

    /// Ids of the challenges that this person is shown.
    fn shown(&self) -> Option<Vec<Value>> {
        let (status, body) = self.get("/challenges");
        (status == 200).then(|| body["challenges"].as_array().expect("a list").clone())
    }
}

fn answered(answer: reqwest::blocking::Response) -> (u16, Value) {
    let status = answer.status().as_u16();
    (status, serde_json::from_str(&answer.text().expect("text")).expect("JSON"))
}

#[test]
fn a_held_record_goes_on_once_somebody_who_has_logged_in_approves_of_it() {
    let test = "a held record goes on once somebody who has logged in approves of it";
    let Some(keycloak) = keycloak(test) else { return };
    let plan = Plan { partitions: 2, lanes: 1, route: "skew = \"1s\"", ..Plan::default() };
    let Some(office) = Office::new(test, plan) else { return };
    let site = &office.site;
    let realm = keycloak.realm("gate", &["alice", "carol", "mallory"]);
    let approvals = format!(
        "[approvals]\nlisten = \"127.0.0.1:0\"\n[approvals.oidc.\"{}\"]\naudience = \"countersign\"\ntype = \"User\"\n\
         claim = \"preferred_username\"\n",
        realm.issuer()
    );
    site.write("countersign.toml", &format!("{}\n{approvals}", site.read("countersign.toml")));
    let (mut sender, mut ledger) = (Sender::new(site), Ledger::default());
    let gate = site.start_ready(None);
    let address = wait_for("the address of approvals", || gate.serving("approvals"));
    let client = Client::new();
    let person = |name| Person { client: &client, address, token: realm.token(name) };

    ledger.post(site, sender.asks("pay", "inv-big", Expect::AsAnswered));
    let open = office.wait("inv-big", Status::Open);
    let carol = person("carol");
    let shown = wait_for("carol to be shown the challenge", || carol.shown()?.pop());
    assert_eq!((&shown["id"], &shown["digest"]), (&json!(open.id), &json!(open.digest)));
    assert_eq!(shown["step_ups"][0]["message"], "Pay inv-big for alice?");

    // The subject sees what is asked on its behalf, and may not answer; whom no policy lets answer sees nothing.
    let (status, body) = person("alice").approve(&open.id, &open.digest);
    assert_eq!((status, &body["error"]), (403, &json!("may_not_answer")), "{body}");
    assert_eq!(person("mallory").shown(), Some(Vec::new()));
    assert!(site.broker.read_to_end(&site.to).is_empty());

    let (status, body) = carol.approve(&open.id, &open.digest);
    assert_eq!(status, 202, "{body}");
    assert!(
        ["approved", "released"].contains(&body["state"]["status"].as_str().unwrap_or_default()),
        "{body}"
    );
    office.wait("inv-big", Status::Released);
    ledger.wait_ended(site);
    gate.terminate();
    ledger.settle(site);
    assert_eq!(site.broker.read_to_end(&site.to).len(), 1);
    assert_eq!(office.story(&open), ["hold", "answer counted", "forward"]);
    let release = office.release(&open);
    assert_eq!(release.approvers, ["User::\"carol\""]);
    assert_eq!(release.discharged, ["big"]);
    // Nothing that is kept about it holds her bearer token.
    let written = audits(site).into_iter().map(|audit| audit.bytes);
    let answers = site.broker.read_to_end(&office.answers_topic()).into_iter().filter_map(|one| one.value);
    let signature = carol.token.rsplit('.').next().expect("a signature").as_bytes();
    for bytes in written.chain(answers).chain([site.output()]) {
        assert!(!bytes.windows(signature.len()).any(|part| part == signature), "her token is kept");
    }
}
