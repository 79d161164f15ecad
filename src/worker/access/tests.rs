//! What is sent would be taken by a gate, and what comes back is read as little as it can mean.

use std::io::{Read as _, Write as _};
use std::net::TcpListener;

use serde_json::{Value, json};

use super::*;
use crate::authorize::access::tests::{Tokened, URL, World};
use crate::authorize::access::{self, Asked};
use crate::authorize::carried::Carried;
use crate::authorize::context::Tokens;
use crate::authorize::jose::TokenKind;
use crate::authorize::request::{Action, Resource, Workflow};
use crate::authorize::testing::{NOW_S, PAYER, key};
use crate::authorize::x509::SvidError;
use crate::authorize::x509::testing::Authority;

const NOW: UnixMillis = UnixMillis(NOW_S * 1000);

fn caller() -> Caller {
    Caller::new(key("workload"), &Tokened::new(|_| ()).wit).unwrap()
}

fn question() -> Question {
    let action = Action { name: "read".into(), properties: None };
    Question::new(action, Resource { kind: "Record".into(), id: "record-1".into(), properties: None })
}

#[test]
fn a_gate_takes_what_a_caller_signs() {
    let world = World::new();
    let other = Tokened::with(true, true, false, |_| ());
    let (chain, txn) = (other.chain.unwrap(), other.txn.unwrap());
    let carried = Carried { countersignature: chain.as_str().into(), transaction: Some(txn.as_str().into()) };
    for (question, count) in [
        (question(), 2),
        (question().transaction(&txn), 3),
        (question().carrying(&carried), 4),
        (question().carrying(&Carried { transaction: None, ..carried.clone() }), 3),
    ] {
        let headers = caller().headers(&question, URL, NOW, "j-1").unwrap();
        let mut tokens = Tokens::default();
        for kind in TokenKind::ALL {
            for (_, value) in headers.iter().filter(|(name, _)| *name == kind.header_name()) {
                tokens.add(kind, value.as_bytes()).unwrap();
            }
        }
        let at = (&world.snapshot, NOW);
        let known = access::Caller::verify(&world.engine, &world.route, at, &tokens, URL, |_| true);
        assert_eq!(known.unwrap().id().as_str(), PAYER);
        assert_eq!(tokens.hashes().count(), count);
    }
}

#[test]
fn the_body_is_authzens_and_about_the_caller_itself_unless_it_says_otherwise() {
    let workflow = json!({"id": "w", "type": "t", "step": "s", "state": "running"});
    let workflow: Workflow = serde_json::from_value(workflow).unwrap();
    let body = question().workflow(workflow.clone()).body(caller().id());
    let Ok(Asked::One(one)) = Asked::read_one(body.as_bytes()) else { panic!("{body}") };
    assert_eq!((one.subject.kind.as_str(), one.subject.id.as_str()), ("Workload", PAYER));
    assert_eq!((one.workflow, one.resource.id.as_str()), (Some(workflow), "record-1"));
    let body: Value = serde_json::from_str(&question().about("User", "bob").body(caller().id())).unwrap();
    assert_eq!(body["subject"], json!({"type": "User", "id": "bob"}));
}

#[test]
fn a_key_that_is_not_the_wits_and_a_wit_that_is_over_are_refused() {
    let wit = Tokened::new(|_| ()).wit;
    assert!(matches!(Caller::new(key("gate"), &wit), Err(CallerError::OtherKey)));
    assert!(matches!(Caller::new(key("workload"), "a.b"), Err(CallerError::Jws(_))));
    assert!(matches!(Caller::new(key("workload"), &"a".repeat(9000)), Err(CallerError::TooLarge(9000))));
    let later = UnixMillis((NOW_S + 100_000) * 1000);
    assert!(matches!(caller().headers(&question(), URL, later, "j"), Err(Unanswered::Unsigned(_))));
}

#[test]
fn only_a_plain_yes_is_a_yes() {
    let read = |body: Value| Answer::read(200, body.to_string().as_bytes());
    assert!(read(json!({"decision": true})).unwrap().decision);
    let step_up = json!({"id": "d-1", "type": "step-up", "properties": {"step_ups": [
        {"name": "manager", "policy": "ask", "approvals": 2}
    ]}});
    let asked =
        json!({"decision": true, "context": {"obligations": [step_up], "reason_admin": {"en": "ask"}}});
    let answer = read(asked).unwrap();
    assert_eq!((answer.decision, answer.detail.as_deref()), (false, Some("ask")));
    assert_eq!(answer.step_up.unwrap().step_ups[0].approvals, 2);
    for unreadable in [json!({}), json!({"decision": "true"}), json!([true]), json!({"decision": 1})] {
        assert_eq!(read(unreadable), Err(Unanswered::Unreadable));
    }
    assert_eq!(Answer::read(200, b"<html>"), Err(Unanswered::Unreadable));
    let yes = json!({"decision": true}).to_string();
    assert_eq!(Answer::read(503, yes.as_bytes()), Err(Unanswered::Unavailable(yes.clone())));
    assert_eq!(Answer::read(302, yes.as_bytes()), Err(Unanswered::Refused { status: 302, message: yes }));
}

#[test]
fn an_address_is_a_base() {
    for bad in ["gate.example.org", "ftp://gate", "http://gate/", "http://gate?x", "http://", "http://a@b"] {
        assert!(matches!(Client::new(caller(), bad), Err(ClientError::Address(_))), "{bad}");
    }
    Client::new(caller(), "https://gate.example.org/tenant").unwrap();
}

/// Answers one connection with these bytes, and tells what it was sent.
fn one_answer(answer: &'static str) -> (String, std::thread::JoinHandle<String>) {
    let listener = TcpListener::bind("127.0.0.1:0").unwrap();
    let address = format!("http://{}", listener.local_addr().unwrap());
    let told = std::thread::spawn(move || {
        let (mut stream, _) = listener.accept().unwrap();
        let mut sent = Vec::new();
        // The body is an object, the last thing that is sent.
        while !sent.ends_with(b"}") {
            let mut some = [0; 4096];
            match stream.read(&mut some).unwrap() {
                0 => break,
                n => sent.extend_from_slice(&some[..n]),
            }
        }
        stream.write_all(answer.as_bytes()).unwrap();
        String::from_utf8(sent).unwrap()
    });
    (address, told)
}

/// A caller whose WIT is good at the moment of this test.
fn caller_of_today() -> Caller {
    let claims = json!({
        "sub": PAYER, "exp": 4_000_000_000_u64, "cnf": {"jwk": key("workload").public_jwk()}
    });
    let wit = key("issuer").sign(TokenKind::WorkloadIdentity, &claims).unwrap();
    Caller::new(key("workload"), &wit).unwrap()
}

#[test]
fn the_client_posts_signed_and_follows_nobody() {
    let (gate, told) = one_answer("HTTP/1.1 200 OK\r\nContent-Length: 17\r\n\r\n{\"decision\":true}");
    let client = Client::new(caller_of_today(), &gate).unwrap();
    assert!(client.ask(&question().request_id("r-1")).unwrap().decision);
    let sent = told.join().unwrap();
    assert!(sent.starts_with("POST /access/v1/evaluation HTTP/1.1\r\n"), "{sent}");
    for header in ["content-type: application/json\r\n", "x-request-id: r-1\r\n", "workload-proof-token: "] {
        assert!(sent.contains(header), "{sent}");
    }
    let (gate, told) =
        one_answer("HTTP/1.1 307 Moved\r\nLocation: http://127.0.0.1:1/\r\nContent-Length: 0\r\n\r\n");
    let refused = Client::new(caller_of_today(), &gate).unwrap().ask(&question());
    assert!(matches!(refused, Err(Unanswered::Refused { status: 307, .. })), "{refused:?}");
    told.join().unwrap();
    // Nobody listens there any more.
    let unreachable = Client::new(caller_of_today(), &gate).unwrap().ask(&question());
    assert!(matches!(unreachable, Err(Unanswered::Unreachable(_))), "{unreachable:?}");
}

#[test]
fn a_caller_with_a_certificate_sends_the_tokens_of_its_work_and_no_proof() {
    let issued = Authority::new("own").svid(PAYER, |_| ());
    let caller = Caller::certificate(&issued.pem, &issued.key_pem).unwrap();
    assert_eq!((caller.id().as_str(), caller.expires_at()), (PAYER, (NOW_S + 3600) as f64));
    let carried = Carried { countersignature: "a.b.c".into(), transaction: Some("d.e.f".into()) };
    let headers = caller.headers(&question().carrying(&carried), "https://gate", NOW, "r-1").unwrap();
    let names: Vec<&str> = headers.iter().map(|(name, _)| *name).collect();
    assert_eq!(names, ["content-type", "x-request-id", "txn-token", "countersignature"]);
    let later = UnixMillis((NOW_S + 3601) * 1000);
    let over = caller.headers(&question(), "https://gate", later, "r-2");
    assert!(matches!(over, Err(Unanswered::Unsigned(_))), "{over:?}");
    let shown = format!("{caller:?}");
    assert!(issued.key_pem.lines().all(|line| !shown.contains(line)), "{shown}");
}

#[test]
fn a_certificate_needs_tls_its_own_key_and_a_workload() {
    let own = Authority::new("own");
    let (issued, another) = (own.svid(PAYER, |_| ()), own.svid(PAYER, |_| ()));
    let caller = Caller::certificate(&issued.pem, &issued.key_pem).unwrap();
    Client::new(caller.clone(), "https://gate.example.org").unwrap();
    let known = Client::knowing(caller.clone(), "https://gate.example.org", &own.pem()).unwrap();
    let plain = Client::new(caller.clone(), "http://127.0.0.1:8081");
    assert!(matches!(plain, Err(ClientError::Plain(_))), "{plain:?}");
    assert!(matches!(Client::knowing(caller.clone(), "https://gate", ""), Err(ClientError::Roots)));
    let mixed = Caller::certificate(&issued.pem, &another.key_pem).unwrap();
    assert!(matches!(Client::new(mixed.clone(), "https://gate"), Err(ClientError::Http(_))));
    // A renewed one is held to the same.
    assert!(matches!(known.clone().caller(mixed), Err(ClientError::Http(_))));
    known.caller(Caller::certificate(&another.pem, &another.key_pem).unwrap()).unwrap();
    let tokens = Client::new(self::caller(), "http://127.0.0.1:8081").unwrap();
    assert!(matches!(tokens.caller(caller), Err(ClientError::Plain(_))));
    assert!(matches!(Caller::certificate("", &issued.key_pem), Err(CallerError::NoCertificate)));
    let web = own.server(|_| ());
    let nobody = Caller::certificate(&web.pem, &web.key_pem);
    assert!(matches!(nobody, Err(CallerError::Svid(SvidError::Uris(0)))), "{nobody:?}");
}
