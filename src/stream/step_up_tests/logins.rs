//! Each rule of a login that is refreshed once: which Txn-Token counts, what it changes, and what it does not. Limits: one
//! record at a time; histories are the model's.

use serde_json::{Value, json};

use super::world::{POLICIES, World, holding};
use crate::authorize::audit::AuditRecord;
use crate::authorize::ids::UnixMillis;
use crate::authorize::jose::{TokenKind, token_hash};
use crate::authorize::record::Header;
use crate::authorize::route::{Order, Route};
use crate::authorize::standing::Kind;
use crate::authorize::step_up::{Challenge, Status, Turn};
use crate::authorize::testing::{self, Plan, key};

/// A world with a payment of that invoice held.
fn held(invoice: &str) -> (World, Challenge) {
    let mut world = World::new(Order::None);
    let record = world.pay(1, invoice);
    assert_eq!(world.send(&record).outcome, "hold");
    let challenge = world.challenge().clone();
    (world, challenge)
}

fn last(world: &World) -> &AuditRecord {
    world.audits.last().unwrap()
}

fn context(world: &World) -> Value {
    serde_json::from_str(last(world).context.as_deref().unwrap()).unwrap()
}

fn hash(token: &str) -> String {
    token_hash(token.as_bytes()).to_string()
}

#[test]
fn a_fresh_login_discharges_and_nothing_but_the_login_is_refreshed() {
    let mut world = World::new(Order::None);
    let record = world.pay(1, "secure");
    assert_eq!(world.send(&record).outcome, "hold");
    let challenge = world.challenge().clone();
    let ask = &challenge.step_ups[0];
    assert_eq!((ask.acr_values.as_deref(), ask.max_age_s), (Some("phr phrh"), Some(300)));
    assert_eq!((challenge.approvals, ask.approvals), (0, 0));
    let fresh = world.fresh_with(|claims| {
        claims["jti"] = "fresh-1".into();
        claims["scope"] = "everything".into();
        claims["req_wl"] = "spiffe://example.org/other".into();
    });
    assert_eq!(world.log_in(fresh.clone(), &challenge.id), "counted");
    let answer = last(&world);
    assert_eq!((answer.outcome.as_str(), answer.subject.as_deref()), ("answer", Some("alice")));
    let said = answer.answer.as_ref().unwrap();
    assert_eq!((&said.approver, &said.decision, said.jti.as_deref()), (&None, &None, Some("fresh-1")));
    assert_eq!((answer.token_hashes.len(), answer.token_hashes[0].header.as_str()), (1, "txn-token"));
    assert_eq!(answer.token_hashes[0].sha256, hash(&fresh));

    assert_eq!(world.go_on(), [Turn::Decide]);
    let audit = last(&world);
    assert_eq!((audit.outcome.as_str(), audit.approvers.len(), audit.discharged.len()), ("forward", 0, 0));
    assert_eq!(audit.scope, ["payments.pay", "payments.read"]);
    let login = audit.token_hashes.iter().find(|hash| hash.header == "login").unwrap();
    assert_eq!(login.sha256, hash(&fresh));
    let seen = &context(&world)["transaction"];
    assert_eq!((seen["acr"].as_str(), &seen["amr"]), (Some("phr"), &json!(["hwk"])));
    assert_eq!(seen["scope"], json!(["payments.pay", "payments.read"]));
    // What goes on carries the token that came.
    let own = record.headers.iter().find(|header| header.name == "txn-token").unwrap();
    let forwarded = world.outcomes.last().unwrap();
    assert_eq!(forwarded.headers.iter().find(|header| header.name == "txn-token"), Some(own));
    assert_eq!(world.challenge().status, Status::Released);
    assert!(world.state.holds.is_empty());
}

#[test]
fn the_live_token_stands_in_the_holds_topic_alone_until_the_record_ends() {
    let (mut world, challenge) = held("double");
    let fresh = world.fresh();
    assert_eq!(world.log_in(fresh.clone(), &challenge.id), "counted");
    let holds_it = |bytes: &[u8]| bytes.windows(fresh.len()).any(|part| part == fresh.as_bytes());
    assert!(world.holds.iter().any(|kept| kept.value.as_deref().is_some_and(holds_it)));
    assert!(!format!("{:?}", world.state.holds).contains(&fresh));
    world.go_on();
    world.wait(601);
    assert!(world.go_on().contains(&Turn::TimedOut));
    let denied = world.outcomes.last().unwrap();
    assert!(denied.headers.iter().all(|header| !header.value.as_deref().is_some_and(holds_it)));
    assert!(world.audits.iter().all(|audit| !format!("{audit:?}").contains(&fresh)));
    assert!(world.told.iter().all(|challenge| !format!("{challenge:?}").contains(&fresh)));
    assert!(world.holds.iter().rev().take(2).all(|kept| kept.value.is_none()));
}

#[test]
fn a_login_that_does_not_hold_or_is_not_what_is_asked_changes_nothing_and_is_recorded() {
    let (mut world, challenge) = held("secure");
    let now = world.now.0 / 1000;
    let rctx = |acr: &str, at: i64| json!({"acr": acr, "auth_time": at});
    let cases = [
        ("txn", json!("txn-2")),
        ("sub", json!("bob")),
        ("aud", json!("other.org")),
        ("exp", json!(now - 31)),
        ("iat", json!(now + 31)),
        ("nbf", json!(now + 31)),
        ("iat", json!(now - 31)),
        ("rctx", json!({})),
        ("rctx", json!({"acr": "phr"})),
        ("rctx", json!({"auth_time": now})),
        ("rctx", rctx("pwd", now)),
        ("rctx", rctx("phr", now - 301)),
        ("rctx", rctx("phr", now + 31)),
    ];
    for (name, value) in cases {
        let token = world.fresh_with(|claims| claims[name] = value.clone());
        assert_eq!(world.log_in(token, &challenge.id), "invalid", "{name} {value}");
        assert!(last(&world).detail.is_some());
    }
    let claims = |edit: Value| {
        let mut claims = testing::transaction_claims();
        (claims["iat"], claims["exp"], claims["rctx"]) = (now.into(), (now + 60).into(), rctx("phr", now));
        for (name, value) in edit.as_object().unwrap() {
            claims[name] = value.clone();
        }
        claims
    };
    let sign = |name: &str| key(name).sign(TokenKind::Transaction, &claims(json!({}))).unwrap();
    // The keys of other kinds and of other domains sign no Txn-Token of this one.
    for stranger in ["issuer", "gate", "workload", "other-domain-tts", "approver"] {
        assert_eq!(world.log_in(sign(stranger), &challenge.id), "invalid", "{stranger}");
    }
    let fresh = world.fresh();
    for (edit, of) in [(json!({"rctx": {"acr": 5}}), "rctx.acr"), (json!({"txn": null}), "txn")] {
        let token = key("tts").sign(TokenKind::Transaction, &claims(edit)).unwrap();
        assert_eq!(world.log_in(token, &challenge.id), "malformed", "{of}");
    }
    let other = format!("payments.commands:0:{}", uuid::Uuid::from_u128(7));
    for named in [other.as_str(), &challenge.id.replace(":0:", ":1:"), "nonsense", ""] {
        assert_eq!(world.log_in(fresh.clone(), named), "stray", "{named}");
    }
    let named = || Header::new("challenge", challenge.id.clone());
    let null = Header { value: None, ..named() };
    let upper = Header::new("Challenge", challenge.id.clone());
    for headers in [vec![], vec![named(), named()], vec![null], vec![upper]] {
        let at = world.now;
        world.answer_with(fresh.clone(), headers, at);
        world.commit();
        assert_eq!(last(&world).answer.as_ref().unwrap().effect, "malformed");
    }
    assert_eq!(world.told.len(), 1);
    assert!(world.go_on().is_empty());
    assert_eq!(world.log_in(fresh, &challenge.id), "counted");
}

#[test]
fn only_the_challenge_that_asks_for_a_login_takes_one() {
    let (mut world, challenge) = held("large");
    let fresh = world.fresh();
    assert_eq!(world.log_in(fresh, &challenge.id), "invalid");
    assert!(last(&world).detail.as_deref().unwrap().contains("asks for no login"));
    // A record without a Txn-Token has no login that could be refreshed.
    let route = Route { holding: Some(holding(Order::None)), require_transaction: false, ..testing::route() };
    let mut world = World::on(route);
    let mut plan = Plan { transaction: false, ..Plan::default() };
    plan.record.source.offset = crate::authorize::ids::Offset(1);
    let record = plan.build_with(|kind, draft| {
        if kind == TokenKind::WorkloadProof {
            draft.claims["resource"]["id"] = "secure".into();
        }
    });
    assert_eq!(world.send(&record).outcome, "hold");
    let challenge = world.challenge().clone();
    let fresh = world.fresh();
    assert_eq!(world.log_in(fresh, &challenge.id), "invalid");
}

#[test]
fn a_revoked_login_does_not_count_and_does_not_stay() {
    let named = |claims: &mut Value| claims["jti"] = "fresh-1".into();
    for (kind, id) in [(Kind::Token, "fresh-1"), (Kind::Key, "tts"), (Kind::Subject, "alice")] {
        let (mut world, challenge) = held("secure");
        let fresh = world.fresh_with(named);
        world.revoke(kind, id);
        assert_eq!(world.log_in(fresh, &challenge.id), "invalid", "{id}");
        assert!(last(&world).detail.as_deref().unwrap().contains("revocation"), "{id}");
    }
    // Revoked between the answer and the release: the step-up stands, and another login discharges it.
    let (mut world, challenge) = held("secure");
    let fresh = world.fresh_with(named);
    assert_eq!(world.log_in(fresh, &challenge.id), "counted");
    world.revoke(Kind::Token, "fresh-1");
    assert_eq!(world.go_on(), [Turn::Decide]);
    assert_eq!(last(&world).outcome, "hold");
    assert!(last(&world).detail.as_deref().unwrap().contains("does not count any more"));
    assert!(last(&world).token_hashes.iter().all(|hash| hash.header != "login"));
    assert!(context(&world)["transaction"].get("acr").is_none());
    assert!(world.go_on().is_empty());
    let another = world.fresh();
    assert_eq!(world.log_in(another, &challenge.id), "counted");
    world.go_on();
    assert_eq!(last(&world).outcome, "forward");
}

#[test]
fn a_login_is_verified_again_at_the_release_and_what_has_expired_leaves_the_record_held() {
    let (mut world, challenge) = held("double");
    let fresh = world.fresh_with(|claims| claims["exp"] = (claims["iat"].as_i64().unwrap() + 60).into());
    assert_eq!(world.log_in(fresh, &challenge.id), "counted");
    assert_eq!(world.go_on(), [Turn::Decide]);
    assert!(last(&world).token_hashes.iter().any(|hash| hash.header == "login"));
    world.wait(91);
    let grant = world.grant(&challenge, "carol", "approve");
    assert_eq!(world.reply(grant), "counted");
    assert_eq!(world.go_on(), [Turn::Decide]);
    assert_eq!((last(&world).outcome.as_str(), world.challenge().status), ("hold", Status::Open));
    // The approval was not lost by that.
    let fresh = world.fresh();
    assert_eq!(world.log_in(fresh, &challenge.id), "counted");
    assert_eq!(world.go_on(), [Turn::Decide]);
    let audit = last(&world);
    assert_eq!(
        (audit.outcome.as_str(), audit.approvers.as_slice()),
        ("forward", &["User::\"carol\"".to_owned()][..])
    );
}

#[test]
fn an_approval_and_a_login_are_both_needed_in_either_order() {
    for login_first in [true, false] {
        for restored in [None, Some(false), Some(true)] {
            let (mut world, challenge) = held("double");
            assert_eq!((challenge.approvals, challenge.step_ups.len()), (1, 2));
            for login in [login_first, !login_first] {
                if let Some(compacted) = restored {
                    world.restore(compacted);
                }
                let effect = if login {
                    let fresh = world.fresh();
                    world.log_in(fresh, &challenge.id)
                } else {
                    let grant = world.grant(&challenge, "carol", "approve");
                    world.reply(grant)
                };
                assert_eq!(effect, "counted");
                if let Some(compacted) = restored {
                    world.restore(compacted);
                }
                assert_eq!(world.go_on(), [Turn::Decide]);
                if login == login_first {
                    assert_eq!(last(&world).outcome, "hold");
                    assert_eq!(world.challenge().id, challenge.id, "asked once");
                    assert!(world.go_on().is_empty());
                }
            }
            let audit = last(&world);
            assert_eq!(
                (audit.outcome.as_str(), audit.discharged.as_slice()),
                ("forward", &["large".to_owned()][..])
            );
            assert_eq!(audit.approvers, ["User::\"carol\""]);
        }
    }
}

#[test]
fn no_number_of_approvals_is_a_login() {
    let (mut world, challenge) = held("secure");
    for who in ["carol", "dave", "erin"] {
        let grant = world.grant(&challenge, who, "approve");
        assert_eq!(world.reply(grant), "counted");
        assert!(world.go_on().is_empty());
    }
    // Who may answer may still refuse.
    let grant = world.grant(&challenge, "frank", "refuse");
    assert_eq!(world.reply(grant), "counted");
    world.go_on();
    assert_eq!(last(&world).reason.as_deref(), Some("step_up_refused"));
}

#[test]
fn a_login_is_kept_for_the_challenge_that_replaces_the_one_it_answered() {
    let (mut world, challenge) = held("secure");
    let fresh = world.fresh();
    assert_eq!(world.log_in(fresh.clone(), &challenge.id), "counted");
    let more = "@id(\"more\") @step_up(\"auditor\") forbid (principal, action == Action::\"pay\", resource);";
    world.policies(&format!("{POLICIES} {more}"));
    assert_eq!(world.go_on(), [Turn::Decide]);
    assert_eq!(last(&world).outcome, "hold");
    let next = world.challenge().clone();
    assert_ne!(next.id, challenge.id);
    assert_eq!((next.step_ups.len(), next.step_ups[0].name.as_str()), (1, "auditor"));
    world.restore(true);
    assert!(world.go_on().is_empty());
    let grant = world.grant(&next, "carol", "approve");
    assert_eq!(world.reply(grant), "counted");
    assert_eq!(world.go_on(), [Turn::Decide]);
    assert_eq!(last(&world).outcome, "forward");
    assert!(last(&world).token_hashes.iter().any(|found| found.sha256 == hash(&fresh)));
}

#[test]
fn a_login_comes_once_in_time_and_gives_way_to_a_newer_one_alone() {
    let (mut world, challenge) = held("double");
    let (older, newer) = (
        world.fresh_with(|claims| claims["iat"] = json!(claims["iat"].as_i64().unwrap() - 5)),
        world.fresh(),
    );
    assert_eq!(world.log_in(newer.clone(), &challenge.id), "counted");
    assert_eq!(world.log_in(newer, &challenge.id), "second");
    assert_eq!(world.log_in(older, &challenge.id), "second");
    world.wait(10);
    let newest = world.fresh();
    assert_eq!(world.log_in(newest, &challenge.id), "counted");
    world.go_on();

    // Taken at the end is late; taken before it, and read late, counts.
    for (early_ms, effect) in [(0, "late"), (1, "counted")] {
        let (mut world, challenge) = held("secure");
        world.wait(1199);
        let fresh = world.fresh();
        world.wait(2);
        let at = UnixMillis(challenge.hold_until - early_ms);
        world.answer_with(fresh, vec![Header::new("challenge", challenge.id.clone())], at);
        world.commit();
        assert_eq!(last(&world).answer.as_ref().unwrap().effect, effect);
        world.go_on();
        let ended = (last(&world).outcome.as_str(), last(&world).reason.as_deref());
        let expected = if early_ms == 1 { ("forward", None) } else { ("deny", Some("step_up_timed_out")) };
        assert_eq!(ended, expected);
    }
    let (mut world, challenge) = held("double");
    let grant = world.grant(&challenge, "carol", "refuse");
    assert_eq!(world.reply(grant), "counted");
    let fresh = world.fresh();
    assert_eq!(world.log_in(fresh, &challenge.id), "late");
}

#[test]
fn an_aborted_batch_takes_no_login_in_and_one_that_is_taken_in_is_due_until_it_is_decided() {
    let (mut world, challenge) = held("secure");
    let fresh = world.fresh();
    world.login(fresh.clone(), &challenge.id);
    world.abort();
    assert!(world.go_on().is_empty());
    world.login(fresh.clone(), &challenge.id);
    // A batch that is open is not decided by.
    assert!(world.turns().is_empty());
    world.commit();
    assert_eq!(world.state.holds.next_timer(), Some(UnixMillis(i64::MIN)));
    assert_eq!(world.turns().len(), 1);
    world.abort();
    world.restore(true);
    assert_eq!(world.go_on(), [Turn::Decide]);
    assert_eq!(last(&world).outcome, "forward");
    assert_eq!(world.log_in(fresh, &challenge.id), "stray");
}

#[test]
fn a_record_whose_own_token_tells_a_strong_login_is_not_held() {
    let mut world = World::new(Order::None);
    let now = world.now.0 / 1000;
    for (offset, age, outcome) in [(1, 300, "forward"), (2, 301, "hold")] {
        let mut plan = Plan::default();
        plan.record.source.offset = crate::authorize::ids::Offset(offset);
        let record = plan.build_with(|kind, draft| match kind {
            TokenKind::WorkloadProof => {
                draft.claims["jti"] = format!("record-{offset}").into();
                draft.claims["resource"]["id"] = "secure".into();
            }
            TokenKind::Transaction => {
                draft.claims["rctx"] = json!({"acr": "phrh", "auth_time": now - age});
            }
            _ => {}
        });
        assert_eq!(world.send(&record).outcome, outcome, "{age}");
    }
}
