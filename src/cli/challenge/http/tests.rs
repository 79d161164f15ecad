//! The client against the interface itself, over real HTTP: pages, refusals with their advice, and where no token goes.

use std::cell::RefCell;
use std::io::{Read as _, Write as _};
use std::net::TcpListener;

use serde_json::json;

use super::*;
use crate::authorize::step_up::Status;
use crate::serve::approvals::tests::Desk;

const COUNTED: Answer<'_> = Answer { decision: "approve", comment: Some("as agreed"), digest: "AAAA" };

fn client(desk: &Desk, who: &str, more: Value) -> Client {
    Client::new(&desk.to(""), &Zeroizing::new(desk.token(who, more)), false).unwrap()
}

fn id(text: &str) -> ChallengeId {
    ChallengeId::parse(text).unwrap()
}

fn refusal<T>(result: Result<T, InterfaceError>) -> Box<Refused> {
    match result {
        Err(InterfaceError::Refused(refused)) => refused,
        Err(other) => panic!("{other}"),
        Ok(_) => panic!("granted"),
    }
}

#[test]
fn all_pages_are_read_and_the_query_is_the_interfaces() {
    let desk = Desk::new();
    let open: Vec<String> = (1..=5).map(|n| desk.put(n, Status::Open, |_| {})).collect();
    let refused = desk.put(6, Status::Refused, |challenge| challenge.route = "pay ments&x=1".into());
    let client = client(&desk, "carol", json!({}));
    let listed = |status, route, limit| {
        let pages = RefCell::new(Vec::new());
        let take = |page: Vec<Challenge>| {
            pages.borrow_mut().push(page.into_iter().map(|challenge| challenge.id).collect::<Vec<_>>());
            Ok::<(), InterfaceError>(())
        };
        client.list(Query { status, route, limit }, take).unwrap();
        pages.into_inner()
    };
    let pages = listed("open", None, 2);
    assert_eq!(pages.iter().map(Vec::len).collect::<Vec<_>>(), [2, 2, 1]);
    assert_eq!(pages.concat(), open);
    assert_eq!(listed("all", None, PAGE).concat().len(), 6);
    assert_eq!(listed("all", Some("pay ments&x=1"), PAGE).concat(), [refused], "escaped");
}

#[test]
fn an_answer_says_where_it_stands_and_what_came_of_it() {
    let desk = Desk::new();
    let text = desk.put(1, Status::Open, |_| {});
    let client = client(&desk, "carol", json!({}));
    let shown = client.show(&id(&text), None).unwrap();
    assert_eq!((shown.id.as_str(), shown.digest.as_str()), (text.as_str(), "AAAA"));
    let answered = client.answer(&id(&text), &COUNTED, None).unwrap();
    assert_eq!(answered.written.to_string(), "payments.commands.answers/3/1");
    assert!(answered.state.is_none() && !answered.answer.is_empty());
    std::thread::scope(|scope| {
        let waiting = scope.spawn(|| client.show(&id(&text), Some(Duration::from_secs(20))));
        desk.put(1, Status::Released, |_| {});
        assert_eq!(waiting.join().unwrap().unwrap().status, Status::Released);
    });
    // What the approver saw is not what stands there now.
    let text = desk.put(2, Status::Open, |challenge| challenge.digest = "BBBB".into());
    let refused = refusal(client.answer(&id(&text), &COUNTED, None));
    assert_eq!((refused.status, refused.error.as_str()), (409, "digest_mismatch"));
    assert!(refused.is_about_the_challenge());
}

#[test]
fn a_refusal_says_what_would_help() {
    let desk = Desk::new();
    let strong = desk.put(1, Status::Open, |challenge| {
        challenge.step_ups[0].acr_values = Some("phr phrh".into());
        challenge.step_ups[0].max_age_s = Some(300);
    });
    let weak = refusal(client(&desk, "carol", json!({})).answer(&id(&strong), &COUNTED, None));
    assert_eq!((weak.acr_values.as_deref(), weak.max_age_s), (Some("phr phrh"), Some(300)));
    let advice = weak.advice.as_deref().unwrap();
    assert!(advice.contains("`phr phrh`") && advice.contains("at most 300 s"), "{advice}");
    assert!(weak.is_about_the_challenge());

    let plain = desk.put(2, Status::Open, |_| {});
    let nobody = strong.replace(":3:", ":4:");
    let ended = desk.put(3, Status::Released, |_| {});
    let elsewhere =
        desk.put(4, Status::Open, |asked| asked.id = asked.id.replace("payments.commands", "other.commands"));
    let cases = [
        ("alice", &plain, 403, "may_not_answer", "somebody else"),
        ("dave", &nobody, 404, "challenge_unknown", "`list`"),
        ("erin", &ended, 409, "challenge_ended", ""),
        ("frank", &elsewhere, 409, "not_answerable", "ask a gate"),
    ];
    for (who, challenge, status, error, advice) in cases {
        let refused = refusal(client(&desk, who, json!({})).answer(&id(challenge), &COUNTED, None));
        assert_eq!((refused.status, refused.error.as_str()), (status, error));
        let said = refused.advice.clone().unwrap_or_default();
        assert!(said.contains(advice), "{error}: {said}");
        assert!(refused.is_about_the_challenge(), "{error}");
    }
    let expired = refusal(client(&desk, "carol", json!({"exp": 1})).show(&id(&plain), None));
    assert_eq!((expired.status, expired.error.as_str()), (401, "invalid_token"));
    assert!(expired.advice.as_deref().unwrap().contains("fresh access token"));
    assert!(!expired.is_about_the_challenge(), "nothing can be asked");

    let often = client(&desk, "grace", json!({}));
    let statuses: Vec<_> = (0..6).map(|_| often.answer(&id(&plain), &COUNTED, None)).collect();
    let lost = refusal(statuses.into_iter().nth(3).unwrap());
    assert_eq!((lost.status, lost.error.as_str(), lost.retry_after_s), (503, "unavailable", Some(1)));
    assert!(lost.advice.as_deref().unwrap().contains("it may count"));
    let paced = refusal(often.answer(&id(&plain), &COUNTED, None));
    assert_eq!((paced.status, paced.error.as_str()), (429, "too_many_answers"));
    let seconds = paced.retry_after_s.unwrap();
    assert_eq!(paced.advice.as_deref(), Some(format!("try again in {seconds} s").as_str()));
    assert!(!paced.is_about_the_challenge());
}

#[test]
fn no_token_goes_where_others_could_read_it() {
    let token = Zeroizing::new("t0ken".to_owned());
    let new = |address: &str, insecure| Client::new(address, &token, insecure).map(drop);
    for fine in
        ["http://127.0.0.1:8082", "http://[::1]:8082/", "http://localhost:1/base", "https://a.example/x"]
    {
        assert!(new(fine, false).is_ok(), "{fine}");
    }
    for other in ["http://approvals.example.com", "http://10.0.0.1:8082", "http://localhost.example.com"] {
        assert!(matches!(new(other, false), Err(InterfaceError::Plain(_))), "{other}");
        assert!(new(other, true).is_ok(), "a person says so");
    }
    for wrong in ["", "127.0.0.1:8082", "ftp://a", "https://u:p@a", "https://a/?x=1", "https://a/#x"] {
        assert!(matches!(new(wrong, true), Err(InterfaceError::Address(_))), "{wrong}");
    }
    for token in ["", "two words", "new\nline", "ä"] {
        let made = Client::new("https://a.example", &Zeroizing::new(token.to_owned()), false);
        assert!(matches!(made, Err(InterfaceError::Token)), "{token:?}");
    }
}

#[test]
fn what_is_no_reply_of_the_interface_is_an_error_and_no_redirect_is_followed() {
    let listener = TcpListener::bind("127.0.0.1:0").unwrap();
    let address = format!("http://{}", listener.local_addr().unwrap());
    let replies = [
        "HTTP/1.1 200 OK\r\nContent-Length: 2\r\n\r\n[]",
        "HTTP/1.1 200 OK\r\nContent-Length: 12\r\n\r\n{\"id\": \"no\"}",
        "HTTP/1.1 307 Elsewhere\r\nLocation: /challenges\r\nContent-Length: 0\r\n\r\n",
        "HTTP/1.1 404 Not Found\r\nContent-Length: 8\r\n\r\nno\u{1b} here",
    ];
    let serving = std::thread::spawn(move || {
        for reply in replies {
            let (mut stream, _) = listener.accept().unwrap();
            let mut request = [0; 4096];
            let read = stream.read(&mut request).unwrap();
            assert!(String::from_utf8_lossy(&request[..read]).contains("authorization: Bearer t0ken"));
            stream.write_all(reply.as_bytes()).unwrap();
        }
    });
    let token = Zeroizing::new("t0ken".to_owned());
    let challenge = id("payments.commands:3:0190a6c0-0000-7000-8000-000000000001");
    // A client for each: no connection outlives its one reply.
    let show = || Client::new(&address, &token, false).unwrap().show(&challenge, None);
    for _ in 0..2 {
        assert!(matches!(show(), Err(InterfaceError::Unreadable)));
    }
    let elsewhere = refusal(show());
    assert_eq!((elsewhere.status, elsewhere.error.as_str()), (307, ""));
    let missing = refusal(show());
    assert_eq!((missing.status, missing.detail.as_str()), (404, "no\u{fffd} here"));
    assert!(
        !missing.is_about_the_challenge()
            && missing.advice.as_deref().unwrap().contains("[approvals] listen")
    );
    serving.join().unwrap();
    let Err(gone) = show() else { panic!("somebody answers") };
    assert!(
        matches!(gone, InterfaceError::Unreachable { .. }) && !gone.to_string().contains("t0ken"),
        "{gone}"
    );
}
