//! Random histories of asks, answers, time, commits and aborts against what must hold of every challenge: no approval is used
//! twice, nothing is allowed without enough that are good at that moment, and each ends at most once. Limits: four invoices,
//! five people.

use std::collections::BTreeMap;

use proptest::prelude::*;
use proptest::strategy::ValueTree as _;

use super::Desk;
use crate::authorize::decision::Reason;
use crate::authorize::ids::UnixMillis;
use crate::authorize::record::Record;
use crate::authorize::step_up::{Challenge, Status};

const SKEW_MS: i64 = 30_000;
const INVOICES: [&str; 4] = ["large", "other", "two", "brief"];
const WHO: [&str; 5] = ["carol", "dave", "erin", "alice", "mallory"];

#[derive(Debug, Clone)]
enum Op {
    Pay(usize),
    /// Somebody answers one of the challenges, newest first; it is read at once, or later.
    Answer {
        challenge: usize,
        who: usize,
        approve: bool,
        later: bool,
    },
    Wait(i64),
    Read,
    Tick,
    Settle,
    Undo,
}

fn ops() -> impl Strategy<Value = Vec<Op>> {
    let answer = (0..4_usize, 0..5_usize, proptest::bool::weighted(0.85), proptest::bool::weighted(0.2))
        .prop_map(|(challenge, who, approve, later)| Op::Answer { challenge, who, approve, later });
    let op = prop_oneof![
        6 => (0..4_usize).prop_map(Op::Pay),
        6 => answer,
        3 => (1..250_i64).prop_map(Op::Wait),
        2 => Just(Op::Read),
        3 => Just(Op::Tick),
        5 => Just(Op::Settle),
        1 => Just(Op::Undo),
    ];
    proptest::collection::vec(op, 1..120)
}

/// An answer, when the broker took it, of whom, and whether it approves.
type Given = (Record, i64, String, bool);

/// What is known of a challenge, by its own rules alone.
#[derive(Debug, Clone)]
struct Known {
    needs: usize,
    until: i64,
    /// Who approved, and until when that is good.
    good: BTreeMap<String, i64>,
    refused: bool,
    used: bool,
    ended: usize,
}

/// What is committed, and what is not yet.
#[derive(Debug, Clone, Default)]
struct Model {
    known: BTreeMap<String, Known>,
}

impl Model {
    fn told(&mut self, challenge: &Challenge) {
        let known = self.known.entry(challenge.id.clone()).or_insert_with(|| Known {
            needs: usize::try_from(challenge.approvals).unwrap(),
            until: challenge.hold_until,
            good: BTreeMap::new(),
            refused: false,
            used: false,
            ended: 0,
        });
        let is_final = matches!(challenge.status, Status::Refused | Status::Expired | Status::Released);
        known.ended += usize::from(is_final);
        assert!(known.ended <= 1, "ended twice: {challenge:?}");
    }

    /// Whether an answer may count: it is of somebody who may, came in time, and nothing has settled it.
    fn may_count(&self, id: &str, who: &str, taken_at: i64) -> bool {
        let known = &self.known[id];
        !["alice", "mallory"].contains(&who) && taken_at < known.until && !known.refused && known.ended == 0
    }

    fn used(&mut self, id: &str, now: i64) {
        let known = self.known.get_mut(id).unwrap();
        assert!(!known.used && !known.refused, "used twice, or refused: {known:?}");
        let good = known.good.values().filter(|until| now <= **until + SKEW_MS).count();
        assert!(good >= known.needs, "allowed by {good} good approvals: {known:?}");
        known.used = true;
    }
}

/// Runs a history; how often something was allowed, refused and ended by time.
fn run(ops: &[Op]) -> [usize; 3] {
    let (mut desk, mut open, mut committed) = (Desk::new(), Model::default(), Model::default());
    let (mut unread, mut all): (Vec<Given>, Vec<Challenge>) = Default::default();
    let (mut counts, mut read_again) = ([0; 3], Vec::new());
    for op in ops {
        let (before, now) = (desk.told.len(), desk.people.now.0);
        match op {
            Op::Pay(invoice) => {
                let invoice = INVOICES[*invoice];
                let evaluated = desk.pay(invoice);
                for challenge in &desk.told[before..] {
                    open.told(challenge);
                }
                let named = evaluated.audit.challenge.clone().expect("somebody is asked");
                match evaluated.denied {
                    None => {
                        counts[0] += 1;
                        open.used(&named, now);
                    }
                    Some(Reason::StepUpRefused) => assert!(open.known[&named].refused),
                    Some(Reason::StepUpRequired) => {
                        let known = &open.known[&named];
                        assert!(!known.refused && !known.used);
                        let good = known.good.values().filter(|until| now <= **until + SKEW_MS).count();
                        assert!(good < known.needs, "enough have approved: {known:?}");
                    }
                    other => panic!("{other:?}"),
                }
            }
            Op::Answer { challenge, who, approve, later } => {
                let opened: Vec<&Challenge> =
                    desk.told.iter().filter(|c| c.status == Status::Open && c.answers.is_empty()).collect();
                let Some(challenge) = opened.iter().rev().nth(*challenge) else { continue };
                let (who, decision) = (WHO[*who], if *approve { "approve" } else { "refuse" });
                let answer = desk.people.answers(challenge, who, decision);
                let read = (answer, now, who.to_owned(), *approve);
                if *later {
                    unread.push(read);
                } else {
                    read_again.push(read.clone());
                    counts[1] += usize::from(reply(&mut desk, &mut open, &read));
                }
            }
            Op::Wait(seconds) => desk.wait(*seconds),
            Op::Read => {
                for read in std::mem::take(&mut unread) {
                    read_again.push(read.clone());
                    counts[1] += usize::from(reply(&mut desk, &mut open, &read));
                }
            }
            Op::Tick => {
                let first_unread = unread.iter().map(|(_, at, _, _)| *at).min();
                let answered = UnixMillis(first_unread.unwrap_or(now).min(now));
                for challenge in desk.docket.tick(desk.people.now, answered, 100) {
                    open.told(&challenge);
                    if challenge.status == Status::Expired {
                        counts[2] += 1;
                        let known = &open.known[&challenge.id];
                        assert!(known.until < answered.0 && !known.used && !known.refused, "{known:?}");
                    }
                    desk.told.push(challenge);
                }
            }
            Op::Settle => {
                desk.docket.settle();
                committed = open.clone();
                all.clone_from(&desk.told);
                read_again.clear();
            }
            Op::Undo => {
                desk.docket.undo(0);
                open = committed.clone();
                desk.told.clone_from(&all);
                // As the desk does it, what was read and not taken in for certain is read again.
                unread.append(&mut read_again);
            }
        }
        let alive = open.known.values().filter(|known| known.ended == 0).count();
        let refused = open.known.values().filter(|known| known.refused).count();
        assert!((alive..=alive + refused).contains(&desk.docket.len()), "{alive} and {refused}");
    }
    counts
}

/// Takes an answer in; whether it refuses.
fn reply(desk: &mut Desk, open: &mut Model, (answer, taken_at, who, approve): &Given) -> bool {
    let (before, now) = (desk.told.len(), desk.people.now.0);
    let audit = desk.take(answer).expect("it names this desk");
    let id = String::from_utf8(answer.key.clone().unwrap().to_vec()).unwrap();
    let counted = audit.answer.unwrap().effect == "counted";
    assert_eq!(desk.told.len() - before, usize::from(counted), "what counts is told");
    if !counted {
        return false;
    }
    assert!(open.may_count(&id, who, *taken_at), "{:?}", open.known[&id]);
    let known = open.known.get_mut(&id).unwrap();
    match approve {
        true => {
            let good_until = *taken_at / 1000 * 1000 + 300_000;
            assert!(now <= good_until + SKEW_MS);
            known.good.insert(who.clone(), good_until);
        }
        false => known.refused = true,
    }
    for challenge in &desk.told[before..] {
        open.told(challenge);
    }
    !approve
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 150, ..ProptestConfig::default() })]
    #[test]
    fn no_approval_is_used_twice_or_out_of_time_and_each_challenge_ends_once(ops in ops()) {
        run(&ops);
    }
}

#[test]
fn the_histories_reach_what_they_are_about() {
    let mut runner = proptest::test_runner::TestRunner::deterministic();
    let mut reached = [0; 3];
    for _ in 0..60 {
        let history = ops().new_tree(&mut runner).unwrap().current();
        reached.iter_mut().zip(run(&history)).for_each(|(sum, more)| *sum += more);
    }
    assert!(reached.iter().all(|count| *count > 10), "{reached:?}");
}
