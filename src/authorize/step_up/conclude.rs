//! The books of a step: what the index, the holds topic and the challenges topic get once it is known how a record was
//! decided. Limits: nothing is decided here.

use super::challenge::{Asker, Challenge, ChallengeId, Status};
use super::entry::{Entry, Pending, Taken, Wait};
use super::kept::{AskedOf, Keep, Payload, Traces};
use super::settle::{Resumed, Settling};
use crate::authorize::decision::Reason;
use crate::authorize::draft::Draft;
use crate::authorize::engine::Decision;
use crate::authorize::ids::{Offset, UnixMillis};
use crate::authorize::record::Record;
use crate::authorize::state::PartitionState;

/// Marks of spent grants that are taken away beside one that is set, at most: the topic does not grow.
const UNMARKED_AT_ONCE: usize = 8;

impl AskedOf {
    /// The challenge as it stands, by what memory has of it.
    pub(super) fn standing(&self, pending: &Pending, now: UnixMillis) -> Challenge {
        Challenge {
            status: pending.status,
            changed_at: now.0,
            approvals: i32::try_from(pending.approvals).unwrap_or(i32::MAX),
            answers: pending.answers.iter().map(|taken| taken.counted.clone()).collect(),
            reminders: i32::try_from(pending.reminders).unwrap_or(i32::MAX),
            ..self.challenge.clone()
        }
    }
}

impl Settling<'_> {
    /// Writes down what the decision means, in the newest open layer and in what it leaves behind.
    pub(in crate::authorize) fn conclude(
        self,
        decision: &Decision,
        record: &Record,
        draft: &mut Draft,
        state: &mut PartitionState,
    ) -> Traces {
        let mut traces = Traces::default();
        let source = record.source.offset;
        self.describe(decision, record, draft, state);
        match decision {
            Decision::Hold | Decision::Wait => self.hold(record, source, draft, state, &mut traces),
            Decision::Forward(_) | Decision::Deny(_) => self.end(decision, source, state, &mut traces),
            Decision::Answer => {}
        }
        traces
    }

    /// What the audit record says about the step-up.
    fn describe(&self, decision: &Decision, record: &Record, draft: &mut Draft, state: &PartitionState) {
        let pending = self.resumed.as_ref().and_then(|resumed| resumed.entry.pending());
        if let Some((pending, resumed)) = pending.zip(self.resumed.as_ref()) {
            let challenge = resumed.payload.asked.as_ref().map(|asked| asked.challenge.id.clone());
            draft.challenge(challenge);
            // What a release rests on; else whoever has answered.
            let good = |taken: &&Taken| {
                !matches!(decision, Decision::Forward(_)) || !state.holds.is_spent(taken.grant)
            };
            let answers = pending.answers.iter().filter(good);
            draft.approvers(answers.map(|taken| taken.counted.approver.clone()));
        } else if let Some((challenge, taken)) = &self.brought {
            draft.challenge(Some(challenge.clone()));
            draft.approvers([taken.counted.approver.clone()]);
        }
        if let Some(Entry { wait: Wait::Answers(pending), .. }) = &self.entry {
            let asked = self.asked.as_ref().map(|asked| asked.challenge.id.clone());
            let before = self.resumed.as_ref().and_then(|resumed| resumed.payload.asked.as_ref());
            let challenge = asked.or_else(|| before.map(|asked| asked.challenge.id.clone()));
            let here = || {
                let (asker, partition) = (Asker::Lane(record.source.topic.clone()), record.source.partition);
                ChallengeId { asker, partition, decision: self.moment.id }.to_string()
            };
            draft.held(challenge.unwrap_or_else(here), pending.until);
        }
        draft.discharged(&self.discharged);
    }

    fn hold(
        self,
        record: &Record,
        source: Offset,
        draft: &mut Draft,
        state: &mut PartitionState,
        traces: &mut Traces,
    ) {
        let Some(mut entry) = self.entry else { return };
        let now = self.moment.now;
        let anew = self.asked.is_some() || self.resumed.is_none();
        if anew {
            if let Some(resumed) = &self.resumed {
                end_challenge(resumed, Status::Replaced, None, draft, now, state, traces);
            }
            let payload =
                Payload { record: record.clone(), accepted: self.accepted, asked: self.asked.clone() };
            let accepted = self.resumed.as_ref().map_or(self.accepted, |resumed| resumed.payload.accepted);
            let payload = Payload { accepted, ..payload };
            traces.kept.push(Keep::Payload(source, Some(Box::new(payload))));
            traces.told.extend(self.asked.map(|asked| asked.challenge));
            entry.payload = None;
        } else if let (Some(resumed), Some(pending)) = (&self.resumed, entry.pending())
            && let Some(asked) = &resumed.payload.asked
        {
            traces.told.push(asked.standing(pending, now));
        }
        traces.kept.push(Keep::State(source, Some(entry.clone())));
        state.holds.put(source, entry);
    }

    fn end(&self, decision: &Decision, source: Offset, state: &mut PartitionState, traces: &mut Traces) {
        let now = self.moment.now;
        if let Some(resumed) = &self.resumed {
            let (status, reason) = match decision {
                Decision::Deny(denial) => match denial.reason {
                    Reason::StepUpRefused => (Status::Refused, Some(denial.reason)),
                    Reason::StepUpTimedOut => (Status::Expired, Some(denial.reason)),
                    reason => (Status::Denied, Some(reason)),
                },
                _ => (Status::Released, None),
            };
            let id = self.moment.id.to_string();
            end_with(resumed, status, reason, id, now, state, traces);
            traces.kept.push(Keep::Payload(source, None));
            traces.kept.push(Keep::State(source, None));
            state.holds.remove(source);
        }
        // Whether it went on at once, or had waited behind others of its key first.
        if let (Some((_, taken)), Decision::Forward(_)) = (&self.brought, decision) {
            spend(taken.grant, taken.expires, now, state, traces);
        }
    }
}

fn end_challenge(
    resumed: &Resumed<'_>,
    status: Status,
    reason: Option<Reason>,
    draft: &Draft,
    now: UnixMillis,
    state: &mut PartitionState,
    traces: &mut Traces,
) {
    end_with(resumed, status, reason, draft.decision_id().to_owned(), now, state, traces);
}

/// The last state of a challenge; its answers have been used.
fn end_with(
    resumed: &Resumed<'_>,
    status: Status,
    reason: Option<Reason>,
    decision_id: String,
    now: UnixMillis,
    state: &mut PartitionState,
    traces: &mut Traces,
) {
    let (Some(pending), Some(asked)) = (resumed.entry.pending(), &resumed.payload.asked) else { return };
    let standing = asked.standing(pending, now);
    let reason = reason.map(|reason| reason.as_str().to_owned());
    traces.told.push(Challenge { status, decision_id: Some(decision_id), reason, ..standing });
    for taken in &pending.answers {
        spend(taken.grant, taken.expires, now, state, traces);
    }
}

/// Marks a grant as used until nobody could use it any more, and takes away marks that have outlived that.
fn spend(
    grant: super::Hash16,
    expires: UnixMillis,
    now: UnixMillis,
    state: &mut PartitionState,
    traces: &mut Traces,
) {
    let until = UnixMillis(expires.0.saturating_add(LONGEST_SKEW_MS));
    for past in state.holds.unmark(now, UNMARKED_AT_ONCE) {
        traces.kept.push(Keep::Grant(past, None));
    }
    state.holds.spend(grant, until);
    traces.kept.push(Keep::Grant(grant, Some(until)));
}

/// Longer than any skew that a route may have: a mark outlives its grant by that.
const LONGEST_SKEW_MS: i64 = 3_600_000;
