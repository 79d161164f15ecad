//! The checker of stories is shown something to catch: a true history with one lie in it, for each of its rules.

use std::collections::BTreeSet;

use countersign::authorize::audit::AuditRecord;
use countersign::authorize::step_up::Status;

use super::stories::History;

/// Every lie about that history is found. It must hold records that were released, refused and left to run out.
pub fn expect_caught(history: &History) {
    assert_eq!(history.read().1, Vec::<String>::new());
    for (lie, tell) in LIES {
        let mut doctored = history.clone();
        tell(&mut doctored);
        assert!(!doctored.read().1.is_empty(), "nothing was found although {lie}");
    }
}

type Lie = (&'static str, fn(&mut History));

const LIES: &[Lie] = &[
    ("a release is not audited", |h| drop(h.audits.remove(find(h, is_release)))),
    ("a record ends twice", |h| {
        let at = find(h, is_release);
        let mut twice = h.audits[at].clone();
        twice.leaf_index = i64::MAX;
        h.audits.insert(end_of_partition(h, at), twice);
    }),
    ("a refused record is released", |h| {
        let at = find(h, |audit| audit.reason.as_deref() == Some("step_up_refused"));
        h.audits[at].outcome = "forward".into();
        h.audits[at].reason = None;
    }),
    ("a record that nobody has approved of is released", |h| {
        let at = find(h, |audit| audit.reason.as_deref() == Some("step_up_timed_out"));
        h.audits[at].outcome = "forward".into();
        h.audits[at].reason = None;
    }),
    ("a record was released without being held", |h| {
        let place = place(&h.audits[find(h, is_release)]);
        h.audits.retain(|audit| place_of(audit) != Some(place) || audit.outcome == "forward");
    }),
    ("a release names somebody who has not approved", |h| {
        let at = find(h, is_release);
        h.audits[at].approvers.push("User::\"mallory\"".into());
    }),
    ("a release discharges nothing", |h| {
        let at = find(h, is_release);
        h.audits[at].discharged.clear();
    }),
    ("a release is older than its answers", |h| {
        let at = find(h, is_release);
        h.audits[at].decided = 0;
    }),
    ("an answer is not audited", |h| drop(h.audits.remove(find(h, is_counted)))),
    ("an answer is audited twice", |h| {
        let at = find(h, is_counted);
        let mut twice = h.audits[at].clone();
        twice.leaf_index = i64::MAX;
        h.audits.insert(end_of_partition(h, at), twice);
    }),
    ("an answer of the requester is counted", |h| count(h, "requester")),
    ("an answer of somebody who may not is counted", |h| count(h, "not_permitted")),
    ("an answer to another request is counted", |h| count(h, "invalid")),
    ("an answer that came in time is left aside", |h| {
        let at = find(h, is_counted);
        if let Some(answer) = &mut h.audits[at].answer {
            answer.effect = "late".into();
        }
    }),
    ("a hold ran out before an answer that came in time", |h| {
        let ran_out: BTreeSet<String> = h
            .audits
            .iter()
            .filter(|audit| audit.reason.as_deref() == Some("step_up_timed_out"))
            .filter_map(|audit| audit.challenge.clone())
            .collect();
        let strays: BTreeSet<(i32, i64)> = h
            .audits
            .iter()
            .filter_map(|audit| Some((audit.partition, audit.answer.as_ref()?)))
            .filter(|(_, answer)| answer.effect == "stray")
            .filter_map(|(partition, answer)| Some((partition, answer.offset?)))
            .collect();
        let said = &h.said;
        let late = h.answers.iter_mut().find(|(at, answer)| {
            let said = said.get(&answer.hash);
            strays.contains(at) && said.is_some_and(|said| ran_out.contains(&said.challenge))
        });
        late.expect("somebody came too late").1.taken = 0;
    }),
    ("the end of a challenge is not published", |h| {
        let at = h.told.iter().rposition(|told| told.status == Status::Released).expect("a release");
        h.told.remove(at);
    }),
    ("a challenge is opened again", |h| {
        let at = h.told.iter().position(|told| told.status == Status::Refused).expect("a refusal");
        let mut again = h.told[at].clone();
        again.status = Status::Open;
        h.told.push(again);
    }),
    ("a challenge forgets who has answered", |h| {
        let at = h.told.iter().rposition(|told| told.status == Status::Released).expect("a release");
        h.told[at].answers.clear();
    }),
    ("an ended record still stands in the holds topic", |h| {
        h.kept.insert((0, "0/1/payload".into()));
    }),
    ("a used grant is forgotten", |h| {
        let first = h.kept.first().cloned().expect("a mark");
        h.kept.remove(&first);
    }),
];

fn find(history: &History, of: impl Fn(&AuditRecord) -> bool) -> usize {
    history.audits.iter().position(of).expect("the history has one")
}

fn is_release(audit: &AuditRecord) -> bool {
    audit.outcome == "forward" && !audit.approvers.is_empty()
}

fn is_counted(audit: &AuditRecord) -> bool {
    audit.answer.as_ref().is_some_and(|answer| answer.effect == "counted")
}

fn place(audit: &AuditRecord) -> (i32, i64) {
    (audit.partition, audit.offset)
}

/// The record that an audit record is about, answers left out.
fn place_of(audit: &AuditRecord) -> Option<(i32, i64)> {
    (audit.outcome != "answer").then(|| place(audit))
}

/// The place after the last audit record of the partition of that one.
fn end_of_partition(history: &History, at: usize) -> usize {
    let partition = history.audits[at].partition;
    1 + history.audits.iter().rposition(|audit| audit.partition == partition).expect("at least that one")
}

/// An answer that had that effect was counted.
fn count(history: &mut History, effect: &str) {
    let of = |audit: &AuditRecord| audit.answer.as_ref().is_some_and(|answer| answer.effect == effect);
    let at = find(history, of);
    if let Some(answer) = &mut history.audits[at].answer {
        answer.effect = "counted".into();
    }
}
