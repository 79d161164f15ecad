//! What was seen of each record, and how many of each thing there were. Limits: it counts what topics hold; whether that is
//! as it should be is said by [`Totals::surprises`].

use std::collections::{BTreeMap, HashMap, HashSet};

use serde::Serialize;

use crate::authorize::ids::Coordinates;
use crate::authorize::step_up::Challenge;
use crate::worker::Received;

/// What became of a record.
#[derive(Debug, Clone)]
pub(in crate::cli::demo) enum Outcome {
    /// It was forwarded, and its countersignature holds.
    Forwarded(Box<Received>),
    /// It was denied.
    Denied,
}

/// What is known of a record.
#[derive(Debug, Clone, Default)]
pub(in crate::cli::demo) struct Seen {
    pub(super) outcome: Option<Outcome>,
    /// The audit record of the decision that ended it.
    pub(super) decided: Option<Audited>,
    /// The audit record of its hold.
    pub(super) held: Option<Audited>,
    /// What is asked about it.
    pub(super) challenge: Option<Box<Challenge>>,
    /// The answers about it: `jti` and effect.
    pub(super) answers: Vec<(String, String)>,
    outcomes: u32,
    decisions: u32,
}

/// What an audit record says.
#[derive(Debug, Clone)]
pub(in crate::cli::demo) struct Audited {
    pub(in crate::cli::demo) reason: Option<String>,
    pub(in crate::cli::demo) detail: Option<String>,
    pub(in crate::cli::demo) policies: Vec<String>,
    /// The policies that asked for a step-up.
    pub(in crate::cli::demo) step_ups: Vec<String>,
    /// The approvers whose answers were counted.
    pub(in crate::cli::demo) approvers: Vec<String>,
}

/// What was done, by the count of whoever did it.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Serialize)]
pub(in crate::cli::demo) struct Deeds {
    /// Records that were sent.
    pub(in crate::cli::demo) sent: u64,
    /// Answers that people gave.
    pub(in crate::cli::demo) answers: u64,
    /// Questions that workers asked in the middle of a job, and got an answer to.
    pub(in crate::cli::demo) questions: u64,
}

/// How many of each there were.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize)]
pub(in crate::cli::demo) struct Totals {
    pub(in crate::cli::demo) forwarded: u64,
    pub(in crate::cli::demo) denied: u64,
    /// Challenges that were published.
    pub(in crate::cli::demo) held: u64,
    pub(in crate::cli::demo) by_reason: BTreeMap<String, u64>,
    pub(in crate::cli::demo) audited: u64,
    #[serde(skip)]
    pub(super) audits: Audits,
    /// Destination records whose countersignature does not hold.
    #[serde(skip)]
    pub(super) unverified: u64,
    /// Records with more than one outcome, or decided more than once.
    #[serde(skip)]
    pub(super) doubled: u64,
}

/// Audit records, by what they are of.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub(super) struct Audits {
    pub(super) decisions: u64,
    pub(super) holds: u64,
    pub(super) answers: u64,
    pub(super) questions: u64,
}

impl Totals {
    /// How many audit records there must be.
    pub(super) fn must_be_audited(&self, deeds: &Deeds) -> u64 {
        deeds.sent + self.held + deeds.answers + deeds.questions
    }

    /// How many records have an outcome and the audit record of its decision.
    pub(super) fn decided(&self) -> u64 {
        (self.forwarded + self.denied + self.unverified).min(self.audits.decisions)
    }

    /// What cannot be, if every record has exactly one outcome, and every decision one audit record.
    pub(in crate::cli::demo) fn surprises(&self, deeds: &Deeds) -> Vec<String> {
        let mut found = Vec::new();
        let mut mind = |wrong: bool, what: String| {
            if wrong {
                found.push(what);
            }
        };
        mind(self.unverified > 0, format!("{} forwarded records do not verify", self.unverified));
        mind(self.doubled > 0, format!("{} records have more than one outcome", self.doubled));
        let (sent, outcomes) = (deeds.sent, self.forwarded + self.denied);
        mind(outcomes != sent, format!("{sent} records were sent and {outcomes} outcomes seen"));
        let Audits { decisions, holds, answers, questions } = self.audits;
        for (what, done, audited) in [
            ("records were sent", sent, decisions),
            ("records were held", self.held, holds),
            ("answers were given", deeds.answers, answers),
            ("questions were asked", deeds.questions, questions),
        ] {
            mind(done != audited, format!("{done} {what} and {audited} audited"));
        }
        let known = decisions + holds + answers + questions;
        mind(self.audited != known, format!("{} audit records are of none of these", self.audited - known));
        found
    }
}

/// Everything that was seen.
#[derive(Default)]
pub(super) struct State {
    /// What is known of each record; while records are only counted, of those that are not decided yet.
    pub(super) seen: HashMap<Coordinates, Seen>,
    /// What was asked over HTTP, by the decision's id.
    pub(super) asked: HashMap<String, Audited>,
    /// What people are asked about questions over HTTP, by the challenge's id.
    pub(super) wanted: HashMap<String, Box<Challenge>>,
    /// What became of their answers, by `jti`.
    pub(super) heard: HashMap<String, String>,
    /// The challenges that were published.
    opened: HashSet<String>,
    pub(super) totals: Totals,
    pub(super) problem: Option<String>,
    pub(super) counts_only: bool,
}

impl State {
    pub(super) fn outcome(&mut self, at: Option<Coordinates>, outcome: Outcome) {
        let Some(at) = at else { return };
        let seen = self.seen.entry(at.clone()).or_default();
        seen.outcomes += 1;
        self.totals.doubled += u64::from(seen.outcomes == 2);
        seen.outcome = Some(outcome);
        self.forget(&at);
    }

    /// The decision that ended a record.
    pub(super) fn decided(&mut self, at: &Coordinates, audited: Audited) {
        self.totals.audits.decisions += 1;
        let seen = self.seen.entry(at.clone()).or_default();
        seen.decisions += 1;
        self.totals.doubled += u64::from(seen.decisions == 2);
        seen.decided = Some(audited);
        self.forget(at);
    }

    /// A challenge in one of its states; each is published anew when it changes.
    pub(super) fn challenge(&mut self, at: &Coordinates, challenge: Challenge) {
        if self.opened.insert(challenge.id.clone()) {
            self.totals.held += 1;
        }
        self.seen.entry(at.clone()).or_default().challenge = Some(Box::new(challenge));
    }

    /// What comes after both, a second outcome, shows in the totals.
    fn forget(&mut self, at: &Coordinates) {
        let ended = self.seen.get(at).is_some_and(|seen| seen.outcome.is_some() && seen.decided.is_some());
        if self.counts_only && ended {
            self.seen.remove(at);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_decision_without_its_audit_record_is_a_surprise_and_so_is_one_too_many() {
        let deeds = Deeds { sent: 3, answers: 2, questions: 1 };
        let audits = Audits { decisions: 3, holds: 1, answers: 2, questions: 1 };
        let totals = Totals { forwarded: 2, denied: 1, held: 1, audited: 7, audits, ..Totals::default() };
        assert_eq!(totals.surprises(&deeds), Vec::<String>::new());
        assert_eq!(totals.must_be_audited(&deeds), 7);
        let lacking = Totals {
            audited: 5,
            audits: Audits { decisions: 3, holds: 0, answers: 1, questions: 1 },
            ..totals.clone()
        };
        assert_eq!(
            lacking.surprises(&deeds),
            ["1 records were held and 0 audited", "2 answers were given and 1 audited"]
        );
        let strange = Totals { audited: 8, ..totals };
        assert_eq!(strange.surprises(&deeds), ["1 audit records are of none of these"]);
    }
}
