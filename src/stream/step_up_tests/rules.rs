//! Each rule of holds, answers, grants and order once. Limits: one record or two at a time; histories are the model's.

use serde_json::json;

use super::world::{ACCEPTED, POLICIES, ROBOTS, World, holding};
use crate::authorize::engine::Delivery;
use crate::authorize::route::{Order, Route, TokenExpiry};
use crate::authorize::step_up::{Status, Turn};
use crate::authorize::testing::{self, PAYER};
use crate::telemetry::{Settings, Telemetry};

pub(super) fn world() -> World {
    World::new(Order::None)
}

/// A world with one large payment held.
pub(super) fn held() -> World {
    let mut world = world();
    let record = world.pay(1, "large");
    assert_eq!(world.send(&record).outcome, "hold");
    world
}

fn statuses(world: &World) -> Vec<Status> {
    world.told.iter().map(|challenge| challenge.status).collect()
}

fn header<'a>(world: &'a World, name: &str) -> &'a str {
    let outcome = world.outcomes.last().unwrap();
    let header = outcome.headers.iter().find(|header| header.name == name.as_bytes()).unwrap();
    std::str::from_utf8(header.value.as_deref().unwrap()).unwrap()
}

#[test]
fn a_hold_says_what_is_asked_and_keeps_the_record() {
    let world = held();
    assert!(world.outcomes.is_empty());
    let audit = world.audits.last().unwrap();
    let challenge = world.challenge();
    assert_eq!(audit.challenge.as_deref(), Some(challenge.id.as_str()));
    assert_eq!(audit.hold_until, Some(world.now.0 + 600_000));
    assert_eq!((audit.step_ups.as_slice(), audit.reason.as_deref()), (&["large".to_owned()][..], None));
    assert_eq!(challenge.id, format!("payments.commands:0:{}", audit.decision_id));
    assert_eq!(challenge.step_ups[0].message, "Pay large for alice?");
    assert_eq!((challenge.approvals, challenge.status), (1, Status::Open));
    assert_eq!((challenge.sender.as_str(), challenge.subject.as_deref()), (PAYER, Some("alice")));
    let keys: Vec<_> = world.holds.iter().map(|kept| kept.key.clone().unwrap()).collect();
    assert_eq!(keys, ["0/1/payload", "0/1/state"]);
    assert_eq!(world.state.holds.len(), 1);
}

#[test]
fn an_approved_record_is_decided_again_and_goes_on_once() {
    let mut world = held();
    let challenge = world.challenge().clone();
    let grant = world.grant(&challenge, "carol", "approve");
    assert_eq!(world.reply(grant), "counted");
    assert_eq!(world.go_on(), [Turn::Decide]);
    let audit = world.audits.last().unwrap();
    assert_eq!((audit.outcome.as_str(), audit.accepted), ("forward", ACCEPTED.0));
    assert_eq!(audit.approvers, ["User::\"carol\""]);
    assert_eq!(
        (audit.discharged.as_slice(), audit.policies.as_slice()),
        (&["large".to_owned()][..], &["all".into()][..])
    );
    assert!(!header(&world, "countersignature").is_empty());
    assert_eq!(statuses(&world), [Status::Open, Status::Approved, Status::Released]);
    assert_eq!(world.challenge().answers[0].comment.as_deref(), Some("as agreed"));
    let keys: Vec<_> = world.holds.iter().rev().take(3).map(|kept| kept.key.clone().unwrap()).collect();
    assert!(keys[2].starts_with(b"grant/") && keys[1] == "0/1/payload" && keys[0] == "0/1/state");
    assert!(world.holds.iter().rev().take(2).all(|kept| kept.value.is_none()));
    assert!(world.state.holds.is_empty() && world.go_on().is_empty());
}

#[test]
fn a_refused_record_is_denied() {
    let mut world = held();
    let challenge = world.challenge().clone();
    let grant = world.grant(&challenge, "carol", "refuse");
    assert_eq!(world.reply(grant), "counted");
    let late = world.grant(&challenge, "dave", "approve");
    assert_eq!(world.reply(late), "contradictory");
    world.go_on();
    assert_eq!(header(&world, "denied-reason"), "step_up_refused");
    assert_eq!(world.challenge().status, Status::Refused);
    assert_eq!(world.challenge().reason.as_deref(), Some("step_up_refused"));
}

#[test]
fn a_hold_is_out_of_time_once_every_answer_before_its_end_was_read() {
    let mut world = held();
    let challenge = world.challenge().clone();
    let end = world.now.0 + 600_000;
    world.wait(599);
    let in_time = world.grant(&challenge, "carol", "approve");
    world.wait(2);
    assert_eq!(world.state.holds.next_timer().map(|at| at.0 <= world.now.0), Some(true));
    world.answered.0 = end;
    assert!(world.turns_of(9).iter().all(|due| due.turn != Turn::TimedOut));
    world.commit();
    // Taken in time, read late: it counts.
    world.answer_taken(in_time, crate::authorize::ids::UnixMillis(end - 1));
    world.commit();
    assert_eq!(world.audits.last().unwrap().answer.as_ref().unwrap().effect, "counted");

    let mut world = held();
    let challenge = world.challenge().clone();
    let late = world.grant(&challenge, "carol", "approve");
    world.wait(600);
    world.answer(late);
    world.commit();
    assert_eq!(world.audits.last().unwrap().answer.as_ref().unwrap().effect, "late");
    world.wait(1);
    assert_eq!(world.go_on(), [Turn::TimedOut]);
    assert_eq!(header(&world, "denied-reason"), "step_up_timed_out");
    assert_eq!(world.challenge().status, Status::Expired);
    let after = world.grant(&challenge, "carol", "approve");
    assert_eq!(world.reply(after), "stray");
}

#[test]
fn answers_that_do_not_hold_change_nothing_and_are_recorded() {
    let mut world = held();
    let challenge = world.challenge().clone();
    for bytes in ["", "a.b.c", "e30.e30.e30", &"x".repeat(9000)] {
        assert_eq!(world.reply(bytes.to_owned()), "malformed", "{}", &bytes[..bytes.len().min(9)]);
    }
    let now = world.now.0 / 1000;
    let other = format!("payments.commands:0:{}", uuid::Uuid::from_u128(7));
    let cases = [
        ("invalid", "iss", json!("https://nobody.example.com")),
        ("invalid", "aud", json!("prod")),
        ("invalid", "aud", json!(["test", "prod"])),
        ("invalid", "exp", json!(now - 31)),
        ("invalid", "iat", json!(now + 31)),
        ("invalid", "nbf", json!(now + 31)),
        ("invalid", "digest", json!("AAAA")),
        ("invalid", "sub", json!("")),
        ("invalid", "jti", json!("x".repeat(257))),
        ("malformed", "decision", json!("maybe")),
        ("stray", "challenge", json!(other)),
        ("stray", "challenge", json!(challenge.id.replace(":0:", ":1:"))),
        ("stray", "challenge", json!("nonsense")),
        ("requester", "sub", json!("alice")),
        ("not_permitted", "sub", json!("mallory")),
    ];
    for (effect, name, value) in cases {
        let grant = world.grant_with(&challenge, "carol", "approve", |claims| claims[name] = value.clone());
        assert_eq!(world.reply(grant), effect, "{name} {value}");
    }
    let sender = world.grant_with(&challenge, PAYER, "approve", |claims| claims["iss"] = ROBOTS.into());
    assert_eq!(world.reply(sender), "requester");
    let mut forged = world.grant(&challenge, "carol", "approve").into_bytes();
    let last = forged.len() - 5;
    forged[last] ^= 1;
    assert!(["invalid", "malformed"].contains(&world.reply(forged).as_str()));
    assert_eq!(statuses(&world), [Status::Open]);
    assert!(world.go_on().is_empty());
    let unverified =
        world.audits.iter().filter_map(|audit| audit.answer.as_ref()).find(|said| said.effect == "malformed");
    assert!(unverified.unwrap().approver.is_none());
}

#[test]
fn a_gate_of_the_own_trust_domain_vouches_for_a_login_that_it_has_verified() {
    let mut world = held();
    let challenge = world.challenge().clone();
    let vouched = |world: &mut World, who: &str, change: serde_json::Value| {
        let answer = world.grant_with(&challenge, who, "approve", |claims| {
            claims["iss"] = json!("spiffe://example.org/gate/other");
            claims["sub_type"] = json!("User");
            claims["sub_id"] = json!({"format": "iss_sub", "iss": "https://oidc.example.com", "sub": "4711"});
            for (name, value) in change.as_object().unwrap() {
                claims[name] = value.clone();
            }
        });
        world.reply(answer)
    };
    for change in [
        json!({"iss": "spiffe://other.org/gate/other"}),
        json!({"iss": "spiffe://unknown.org/gate/other"}),
        json!({"sub_id": {"format": "opaque", "id": "4711"}}),
        json!({"sub_type": ""}),
    ] {
        assert_eq!(vouched(&mut world, "carol", change.clone()), "invalid", "{change}");
    }
    assert_eq!(vouched(&mut world, "carol", json!({"sub_type": "Nobody"})), "not_permitted");
    assert_eq!(vouched(&mut world, "mallory", json!({})), "not_permitted");
    assert_eq!(vouched(&mut world, "alice", json!({})), "requester");
    assert_eq!(vouched(&mut world, PAYER, json!({"sub_type": "Workload"})), "requester");
    assert_eq!(vouched(&mut world, "carol", json!({})), "counted");
    assert_eq!(world.go_on(), [Turn::Decide]);
    let audit = world.audits.last().unwrap();
    assert_eq!(
        (audit.outcome.as_str(), audit.approvers.as_slice()),
        ("forward", &["User::\"carol\"".to_owned()][..])
    );
}

#[test]
fn a_quorum_is_of_distinct_people_and_a_second_word_of_one_is_none() {
    let mut world = world();
    let record = world.pay(1, "huge");
    world.send(&record);
    let challenge = world.challenge().clone();
    assert_eq!(challenge.approvals, 2);
    let answers = [
        ("carol", "approve", "counted"),
        ("carol", "approve", "second"),
        ("carol", "refuse", "contradictory"),
        ("dave", "approve", "counted"),
        ("dave", "approve", "second"),
        ("erin", "approve", "late"),
        ("erin", "refuse", "contradictory"),
    ];
    for (who, decision, effect) in answers {
        let grant = world.grant(&challenge, who, decision);
        assert_eq!(world.reply(grant), effect, "{who} {decision}");
    }
    world.go_on();
    assert_eq!(world.audits.last().unwrap().approvers, ["User::\"carol\"", "User::\"dave\""]);
    assert_eq!(world.audits.last().unwrap().outcome, "forward");
}

#[test]
fn an_approval_that_ran_out_before_the_quorum_counts_no_more() {
    let mut world = world();
    let record = world.pay(1, "huge");
    world.send(&record);
    let challenge = world.challenge().clone();
    let first = world.grant(&challenge, "carol", "approve");
    assert_eq!(world.reply(first), "counted");
    // A grant is good for ten minutes here, and half a minute of skew; the hold lasts thirty.
    world.wait(631);
    let second = world.grant(&challenge, "dave", "approve");
    assert_eq!(world.reply(second), "counted");
    assert!(world.go_on().iter().all(|turn| *turn == Turn::Remind));
    let again = world.grant(&challenge, "carol", "approve");
    assert_eq!(world.reply(again), "counted");
    assert_eq!(world.go_on(), [Turn::Decide]);
    assert_eq!(world.audits.last().unwrap().outcome, "forward");
}

#[test]
fn grants_that_ran_out_before_the_release_leave_the_record_held() {
    let mut world = held();
    let challenge = world.challenge().clone();
    let grant = world.grant(&challenge, "carol", "approve");
    world.reply(grant);
    world.wait(331);
    assert_eq!(world.go_on(), [Turn::Decide]);
    assert_eq!(world.audits.last().unwrap().outcome, "hold");
    assert_eq!(world.challenge().status, Status::Open);
    world.wait(300);
    world.go_on();
    assert_eq!(header(&world, "denied-reason"), "step_up_timed_out");
}

#[test]
fn the_policies_of_the_moment_decide_at_the_release() {
    let approved = || {
        let mut world = held();
        let challenge = world.challenge().clone();
        let grant = world.grant(&challenge, "carol", "approve");
        world.reply(grant);
        world
    };
    let mut forbidden = approved();
    forbidden.policies(&format!(
        "{POLICIES} @id(\"stop\") forbid (principal, action == Action::\"pay\", resource);"
    ));
    forbidden.go_on();
    assert_eq!(header(&forbidden, "denied-reason"), "forbidden");
    assert_eq!(forbidden.challenge().status, Status::Denied);

    let mut relaxed = held();
    relaxed.policies("@id(\"all\") permit (principal, action, resource);");
    let challenge = relaxed.challenge().clone();
    let grant = relaxed.grant(&challenge, "carol", "approve");
    relaxed.reply(grant);
    relaxed.go_on();
    assert_eq!(relaxed.audits.last().unwrap().outcome, "forward");

    let mut asked = approved();
    let more = "@id(\"more\") @step_up(\"auditor\") forbid (principal, action == Action::\"pay\", resource);";
    asked.policies(&format!("{POLICIES} {more}"));
    asked.go_on();
    assert_eq!(asked.audits.last().unwrap().outcome, "hold");
    assert_eq!(statuses(&asked)[2..], [Status::Replaced, Status::Open]);
    let challenge = asked.challenge().clone();
    assert_eq!(challenge.step_ups.len(), 2);
    let grant = asked.grant(&challenge, "dave", "approve");
    assert_eq!(asked.reply(grant), "counted");
    asked.restore(true);
    assert_eq!(asked.go_on(), [Turn::Decide]);
    assert_eq!(asked.audits.last().unwrap().outcome, "forward");
    assert_eq!(asked.audits.last().unwrap().accepted, ACCEPTED.0);
}

#[test]
fn a_hold_keeps_its_moment_and_only_what_is_of_now_is_judged_again() {
    let route = |expiry| Route {
        holding: Some(holding(Order::None)),
        max_queue_time_s: 60,
        token_expiry: expiry,
        ..testing::route()
    };
    for (expiry, outcome) in [(TokenExpiry::Accepted, "forward"), (TokenExpiry::Now, "deny")] {
        let mut world = World::on(route(expiry));
        let record = world.pay(1, "large");
        world.send(&record);
        world.wait(300);
        let challenge = world.challenge().clone();
        let grant = world.grant(&challenge, "carol", "approve");
        world.reply(grant);
        world.go_on();
        assert_eq!(world.audits.last().unwrap().outcome, outcome);
    }
}

#[test]
fn a_grant_that_the_sender_brings_is_spent_once_by_what_is_forwarded_with_it() {
    let mut world = held();
    // What an approver saw of this request, elsewhere; the challenge names this partition.
    let mut challenge = world.challenge().clone();
    challenge.id = format!("payments.commands:0:{}", uuid::Uuid::from_u128(9));
    let grant = world.grant(&challenge, "carol", "approve");
    let first = world.pay_with(2, "large", Some(&grant));
    assert_eq!(world.send(&first).outcome, "forward");
    let audit = world.audits.last().unwrap();
    assert_eq!(
        (audit.approvers.as_slice(), audit.challenge.as_ref()),
        (&["User::\"carol\"".to_owned()][..], Some(&challenge.id))
    );
    for compacted in [false, true] {
        world.restore(compacted);
        let second = world.pay_with(3, "large", Some(&grant));
        assert_eq!(world.send(&second).reason.as_deref(), Some("step_up_invalid"));
    }
    // An aborted batch spends nothing.
    let other = world.grant(&challenge, "dave", "approve");
    let record = world.pay_with(4, "large", Some(&other));
    world.record(&record);
    world.abort();
    assert_eq!(world.send(&record).outcome, "forward");
    // No step-up applies: it is not looked at, and not spent.
    let unused = world.grant(&challenge, "erin", "approve");
    let small = world.pay_with(5, "small", Some(&unused));
    assert_eq!(world.send(&small).outcome, "forward");
    let record = world.pay_with(6, "large", Some(&unused));
    assert_eq!(world.send(&record).outcome, "forward");
}

#[test]
fn a_bad_grant_of_a_sender_is_never_ignored() {
    let mut world = held();
    let challenge = world.challenge().clone();
    let now = world.now.0 / 1000;
    let cases = [
        ("challenge", json!(challenge.id.replace(":0:", ":1:"))),
        ("challenge", json!(challenge.id.replace("payments.commands", "other"))),
        ("challenge", json!("nonsense")),
        ("digest", json!("AAAA")),
        ("decision", json!("refuse")),
        ("sub", json!("alice")),
        ("sub", json!("mallory")),
        ("exp", json!(now - 31)),
        ("iat", json!(now - 331)),
    ];
    for (offset, (name, value)) in (10..).zip(cases) {
        let grant = world.grant_with(&challenge, "carol", "approve", |claims| claims[name] = value.clone());
        let record = world.pay_with(offset, "large", Some(&grant));
        assert_eq!(world.send(&record).reason.as_deref(), Some("step_up_invalid"), "{name} {value}");
    }
    // One approval of two: it counts, and the record is held for the other.
    let record = world.pay(30, "huge");
    world.send(&record);
    let challenge = world.challenge().clone();
    let grant = world.grant(&challenge, "carol", "approve");
    let record = world.pay_with(31, "huge", Some(&grant));
    assert_eq!(world.send(&record).outcome, "hold");
    let challenge = world.challenge().clone();
    assert_eq!(challenge.answers.len(), 1);
    let second = world.grant(&challenge, "dave", "approve");
    assert_eq!(world.reply(second), "counted");
    world.go_on();
    assert_eq!(world.audits.last().unwrap().approvers.len(), 2);
}

#[test]
fn later_records_of_a_key_wait_in_order_and_no_more_than_may() {
    let mut world = World::new(Order::Key);
    for (offset, invoice, outcome) in [(1, "large", "hold"), (2, "small", "wait"), (3, "large", "wait")] {
        let record = world.pay(offset, invoice);
        assert_eq!(world.send(&record).outcome, outcome, "{offset}");
    }
    let frozen = world.pay(4, "frozen");
    assert_eq!(world.send(&frozen).reason.as_deref(), Some("forbidden"), "what is denied need not wait");
    let fourth = world.pay(5, "small");
    assert_eq!(world.send(&fourth).reason.as_deref(), Some("step_up_required"));
    assert!(world.go_on().is_empty());
    world.restore(false);
    let challenge = world.challenge().clone();
    let grant = world.grant(&challenge, "carol", "approve");
    world.reply(grant);
    assert_eq!(world.go_on(), [Turn::Decide]);
    assert_eq!(world.go_on(), [Turn::Decide]);
    assert_eq!(world.audits.last().unwrap().offset, 2);
    assert_eq!(world.go_on(), [Turn::Decide]);
    assert_eq!(
        (world.audits.last().unwrap().offset, world.audits.last().unwrap().outcome.as_str()),
        (3, "hold")
    );
    let another = world.pay(6, "small");
    assert_eq!(world.send(&another).outcome, "wait");
    world.wait(601);
    assert_eq!(world.go_on(), [Turn::TimedOut]);
    assert_eq!(world.go_on(), [Turn::Decide]);
    assert_eq!(world.audits.last().unwrap().outcome, "forward");
    assert!(world.state.holds.is_empty());
}

#[test]
fn a_grant_that_came_with_a_record_that_had_to_wait_is_used_once() {
    let mut world = World::new(Order::Key);
    let first = world.pay(1, "large");
    assert_eq!(world.send(&first).outcome, "hold");
    let challenge = world.challenge().clone();
    let grant = world.grant(&challenge, "carol", "approve");
    let second = world.pay_with(2, "large", Some(&grant));
    assert_eq!(world.send(&second).outcome, "wait");
    let refusal = world.grant(&challenge, "dave", "refuse");
    assert_eq!(world.reply(refusal), "counted");
    assert_eq!(world.go_on(), [Turn::Decide]);
    assert_eq!(world.audits.last().unwrap().reason.as_deref(), Some("step_up_refused"));
    assert_eq!(world.go_on(), [Turn::Decide]);
    assert_eq!(world.audits.last().unwrap().outcome, "forward");
    let third = world.pay_with(3, "large", Some(&grant));
    assert_eq!(world.send(&third).reason.as_deref(), Some("step_up_invalid"));
    world.restore(true);
    let fourth = world.pay_with(4, "large", Some(&grant));
    assert_eq!(world.send(&fourth).reason.as_deref(), Some("step_up_invalid"));
}

#[test]
fn a_reminder_that_was_missed_keeps_no_hold_from_running_out() {
    let mut world = held();
    let end = world.now.0 + 600_000;
    // Nobody was there to send any; answers were read to a moment between the last of them and the end.
    world.wait(601);
    world.answered.0 = end - 20_000;
    assert!(world.turns_of(9).is_empty());
    let timer = world.state.holds.next_timer().unwrap();
    assert!(timer > world.answered, "the answers have to be read again, past the end");
    assert_eq!(timer.0, end + 1);
    assert_eq!(world.go_on(), [Turn::TimedOut]);
}

#[test]
fn reminders_say_the_challenge_again_and_decide_nothing() {
    let mut world = held();
    let audits = world.audits.len();
    world.wait(300);
    assert_eq!(world.go_on(), [Turn::Remind]);
    assert!(world.go_on().is_empty());
    world.restore(true);
    world.wait(299);
    assert_eq!(world.go_on(), [Turn::Remind]);
    assert_eq!(world.told.iter().map(|challenge| challenge.reminders).collect::<Vec<_>>(), [0, 1, 2]);
    assert_eq!(world.audits.len(), audits);
}

#[test]
fn a_held_record_that_is_read_again_keeps_its_hold_and_one_that_cannot_be_kept_is_denied() {
    let mut world = held();
    let (holds, told) = (world.holds.len(), world.told.len());
    let again = world.pay(1, "large");
    let audit = world.send(&again);
    assert_eq!((audit.outcome.as_str(), audit.challenge.is_some()), ("hold", true));
    assert_eq!((world.holds.len(), world.told.len(), world.state.holds.len()), (holds, told, 1));

    let challenge = world.challenge().clone();
    let grant = world.grant(&challenge, "carol", "approve");
    world.reply(grant);
    let due = world.state.holds.due(world.now, world.now, 9)[0];
    let due = crate::stream::decider::Due { source: due.source, payload: due.payload, turn: due.turn };
    world.turn(&due, &Delivery::Undeliverable("too large".to_owned()));
    world.abort();
    world.turn(&due, &Delivery::Undeliverable("too large".to_owned()));
    world.commit();
    assert_eq!(header(&world, "denied-reason"), "undeliverable");
    assert_eq!(world.challenge().status, Status::Denied);
    // A turn that was taken already comes to nothing.
    let (audits, holds) = (world.audits.len(), world.holds.len());
    world.turn(&due, &Delivery::Open);
    world.commit();
    assert_eq!((world.audits.len(), world.holds.len()), (audits, holds));
}

#[test]
fn a_route_that_does_not_hold_denies() {
    let mut world = World::on(testing::route());
    let challenge = held().challenge().clone();
    let grant = world.grant(&challenge, "carol", "approve");
    for record in [world.pay(1, "large"), world.pay_with(2, "large", Some(&grant))] {
        assert_eq!(world.send(&record).reason.as_deref(), Some("step_up_required"));
    }
    assert!(world.holds.is_empty() && world.told.is_empty());
}

#[test]
fn what_becomes_of_challenges_is_shown_once_and_only_after_the_commit() {
    let telemetry = Telemetry::start(Settings::default()).unwrap();
    let route = Route { holding: Some(holding(Order::None)), ..testing::route() };
    let mut world = World::shown(route, telemetry.clone());
    let shown = || {
        let text = telemetry.render_metrics().unwrap();
        let lines = text.lines().filter(|line| line.starts_with("countersign_challenges_total{"));
        let mut shown: Vec<String> = lines
            .filter_map(|line| {
                let (_, status) = line.split_once("status=\"")?;
                let (status, rest) = status.split_once('"')?;
                Some(format!("{status} {}", rest.rsplit(' ').next()?))
            })
            .collect();
        shown.sort_unstable();
        shown
    };
    world.record(&world.pay(1, "large"));
    assert!(shown().is_empty(), "not committed yet");
    world.abort();
    assert!(shown().is_empty(), "it never happened");
    world.send(&world.pay(1, "large"));
    assert_eq!(shown(), ["open 1"]);
    let challenge = world.challenge().clone();
    let grant = world.grant(&challenge, "carol", "approve");
    world.answer(grant.clone());
    world.abort();
    assert_eq!(shown(), ["open 1"]);
    world.restore(true);
    assert_eq!(world.reply(grant), "counted");
    assert_eq!(shown(), ["approved 1", "open 1"]);
    world.go_on();
    assert_eq!(shown(), ["approved 1", "open 1", "released 1"]);

    // Two must answer: the first of them changes how nothing stands. Then nobody comes.
    world.send(&world.pay(2, "huge"));
    let challenge = world.challenge().clone();
    let grant = world.grant(&challenge, "carol", "approve");
    assert_eq!(world.reply(grant), "counted");
    assert_eq!(shown(), ["approved 1", "open 2", "released 1"]);
    world.wait(3_600);
    world.answered = world.now;
    world.go_on();
    assert_eq!(shown(), ["approved 1", "expired 1", "open 2", "released 1"]);
    assert_eq!((world.state.holds.len(), world.state.holds.oldest()), (0, None));
    world.send(&world.pay(3, "large"));
    assert_eq!(world.state.holds.oldest(), Some(world.now));

    // A refusal is told twice, as it is counted and as the record is denied: it is one.
    let challenge = world.challenge().clone();
    let grant = world.grant(&challenge, "carol", "refuse");
    assert_eq!(world.reply(grant), "counted");
    world.go_on();
    let ends = ["approved 1", "expired 1", "open 3", "refused 1", "released 1"];
    assert_eq!(shown(), ends);
}
