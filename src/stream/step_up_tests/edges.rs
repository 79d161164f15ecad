//! Where rules of step-up meet: an approval that two records could use, and the two sides of the end of a hold. Limits: as in
//! `rules`, one record or two at a time.

use super::rules::{held, world};
use crate::authorize::ids::UnixMillis;
use crate::authorize::step_up::{Status, Turn};

#[test]
fn an_approval_that_another_record_has_used_counts_no_more_for_the_held_one() {
    // Counted, enough, and used by another record before the turn of the held one comes.
    for compacted in [None, Some(false), Some(true)] {
        let mut world = held();
        let challenge = world.challenge().clone();
        let grant = world.grant(&challenge, "carol", "approve");
        assert_eq!(world.reply(grant.clone()), "counted");
        assert_eq!(world.challenge().status, Status::Approved);
        let other = world.pay_with(2, "large", Some(&grant));
        assert_eq!(world.send(&other).outcome, "forward");
        if let Some(compacted) = compacted {
            world.restore(compacted);
        }
        assert_eq!(world.go_on(), [Turn::Decide]);
        let audit = world.audits.last().unwrap();
        assert_eq!((audit.outcome.as_str(), audit.offset, world.outcomes.len()), ("hold", 1, 1));
        assert!(audit.discharged.is_empty());
        assert_eq!(world.challenge().status, Status::Open);
        // She may approve of it once more: that is another grant.
        let second = world.grant(&challenge, "carol", "approve");
        assert_eq!(world.reply(second), "counted");
        assert_eq!(world.go_on(), [Turn::Decide]);
        assert_eq!(world.audits.last().unwrap().outcome, "forward");
        assert_eq!(world.audits.last().unwrap().approvers, ["User::\"carol\""]);
    }
}

#[test]
fn an_approval_that_another_record_has_used_is_missing_from_a_quorum() {
    let mut world = world();
    let record = world.pay(1, "huge");
    world.send(&record);
    let first = world.challenge().clone();
    let carol = world.grant(&first, "carol", "approve");
    assert_eq!(world.reply(carol.clone()), "counted");
    // Another record of the same request takes carol's approval along, and goes on with dave's.
    let other = world.pay_with(2, "huge", Some(&carol));
    assert_eq!(world.send(&other).outcome, "hold");
    let second = world.challenge().clone();
    let dave = world.grant(&second, "dave", "approve");
    assert_eq!(world.reply(dave), "counted");
    assert_eq!(world.go_on(), [Turn::Decide]);
    assert_eq!(world.audits.last().unwrap().approvers, ["User::\"carol\"", "User::\"dave\""]);

    // Of the first record nobody has approved any more: one more is not enough, and only what counts is named.
    assert_eq!(world.reply(carol), "spent");
    let erin = world.grant(&first, "erin", "approve");
    assert_eq!(world.reply(erin), "counted");
    assert_eq!(world.challenge().status, Status::Open);
    assert!(world.go_on().is_empty());
    let dave = world.grant(&first, "dave", "approve");
    assert_eq!(world.reply(dave), "counted");
    assert_eq!(world.go_on(), [Turn::Decide]);
    let audit = world.audits.last().unwrap();
    assert_eq!((audit.outcome.as_str(), audit.offset), ("forward", 1));
    assert_eq!(audit.approvers, ["User::\"dave\"", "User::\"erin\""]);
}

#[test]
fn an_approval_counts_in_one_batch_for_the_record_that_goes_on_first() {
    let mut world = held();
    let challenge = world.challenge().clone();
    let grant = world.grant(&challenge, "carol", "approve");
    // The answer and the other record in one transaction: the held one has its turn in the next.
    world.answer(grant.clone());
    let other = world.pay_with(2, "large", Some(&grant));
    world.record(&other);
    world.commit();
    assert_eq!(world.go_on(), [Turn::Decide]);
    let told: Vec<_> = world.audits.iter().map(|audit| (audit.outcome.as_str(), audit.offset)).collect();
    assert_eq!(told, [("hold", 1), ("answer", 1), ("forward", 2), ("hold", 1)]);
    // The turn of the held one first: then the other comes too late.
    let mut world = held();
    let challenge = world.challenge().clone();
    let grant = world.grant(&challenge, "carol", "approve");
    world.reply(grant.clone());
    world.turns();
    let other = world.pay_with(2, "large", Some(&grant));
    world.record(&other);
    world.commit();
    assert_eq!(world.audits.last().unwrap().reason.as_deref(), Some("step_up_invalid"));
    assert_eq!(world.outcomes.len(), 2);
}

#[test]
fn answers_count_before_the_end_of_a_hold_and_it_is_out_of_time_after_it() {
    let end = UnixMillis(held().now.0 + 600_000);
    let at = |millis: i64| UnixMillis(end.0 + millis);
    for (taken, effect) in [(-1, "counted"), (0, "late"), (1, "late")] {
        let mut world = held();
        let challenge = world.challenge().clone();
        world.wait(599);
        let grant = world.grant(&challenge, "carol", "approve");
        world.now = at(0);
        world.answer_taken(grant, at(taken));
        world.commit();
        assert_eq!(world.audits.last().unwrap().answer.as_ref().unwrap().effect, effect, "{taken} ms");
    }
    // Neither the moment itself, nor answers that have been read up to it, end the hold: a millisecond later both do.
    for (now, answered, turns) in [(0, 0, 0), (0, 1, 0), (1, 0, 0), (60_000, 0, 0), (1, 1, 1)] {
        let mut world = held();
        assert_eq!(world.go_on(), []);
        // Reminders are not of interest here.
        world.wait(595);
        world.go_on();
        (world.now, world.answered) = (at(now), at(answered));
        assert_eq!(world.state.holds.next_timer(), Some(at(1)));
        let due = world.turns_of(9);
        assert_eq!(due.len(), turns, "{now} {answered}");
        assert!(due.iter().all(|due| due.turn == Turn::TimedOut));
    }
}
