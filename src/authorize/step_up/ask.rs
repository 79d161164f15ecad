//! What is asked of people: a challenge and what waits for its answers, made from the step-ups that apply. Limits: a lane
//! asks about a record, a desk about what it is asked over HTTP; where each keeps it is its own.

use std::collections::BTreeSet;

use super::audited;
use super::challenge::{Ask, Challenge, ChallengeId, Status};
use super::digest::{Asked, request_digest};
use super::entry::{Pending, Taken};
use super::sentence::{self, Fields};
use crate::authorize::case::Case;
use crate::authorize::decision::{Denial, Reason};
use crate::authorize::engine::Moment;
use crate::authorize::ids::{Digest, UnixMillis};
use crate::authorize::policy::StepUp;
use crate::authorize::route::{Gate, Holding};

/// What is to be asked, and about whom.
#[derive(Clone, Copy)]
pub(super) struct Question<'a> {
    pub(super) gate: &'a Gate,
    pub(super) moment: &'a Moment<'a>,
    pub(super) case: &'a Case<'a>,
    pub(super) step_ups: &'a [StepUp],
    pub(super) holding: &'a Holding,
    pub(super) digest: Digest,
}

/// Where what is asked about stands.
pub(super) struct Place {
    pub(super) id: ChallengeId,
    /// The source topic; empty over HTTP.
    pub(super) topic: String,
    /// The source offset; -1 over HTTP.
    pub(super) offset: i64,
}

impl Question<'_> {
    /// What waits for the answers.
    pub(super) fn pending(&self, answers: Vec<Taken>) -> Pending {
        let (now, step_ups, holding) = (self.moment.now, self.step_ups, self.holding);
        // All of them must be discharged, so the first that ends, ends the hold.
        let hold_s =
            step_ups.iter().map(|ask| ask.hold_s.unwrap_or(holding.hold_s)).min().unwrap_or(holding.hold_s);
        Pending {
            challenge: self.moment.id.0,
            status: Status::Open,
            asked_at: now,
            until: UnixMillis(now.0.saturating_add(i64::from(hold_s) * 1000)),
            approvals: approvals(step_ups),
            reminders: 0,
            answers,
            login: None,
        }
    }

    /// The challenge as it is first published.
    pub(super) fn challenge(&self, pending: &Pending, place: &Place) -> Challenge {
        let case = self.case;
        let transaction = case.verified.transaction.as_ref().map(|transaction| transaction.id.to_string());
        let subject = case.subject.map(|subject| subject.as_str().to_owned());
        let fields = Fields {
            route: &case.route.name,
            sender: case.verified.sender.as_str(),
            subject: subject.as_deref(),
            transaction: transaction.as_deref(),
            request: case.request,
            mask: &case.route.mask,
        };
        let asks = self.step_ups.iter().map(|ask| Ask {
            name: ask.name.clone(),
            policy: ask.policy.clone(),
            message: sentence::render(ask.message.as_deref(), &fields),
            approvals: i32::try_from(ask.approvals).unwrap_or(i32::MAX),
            grant_s: i32::try_from(grant_s(ask, self.holding)).unwrap_or(i32::MAX),
            acr_values: ask.acr_values.clone(),
            max_age_s: ask.max_age_s.map(i64::from),
        });
        Challenge {
            id: place.id.to_string(),
            status: Status::Open,
            changed_at: self.moment.now.0,
            realm: self.gate.realm.to_string(),
            route: case.route.name.to_string(),
            topic: place.topic.clone(),
            partition: place.id.partition.0,
            offset: place.offset,
            asked_at: pending.asked_at.0,
            hold_until: pending.until.0,
            approvals: i32::try_from(pending.approvals).unwrap_or(i32::MAX),
            step_ups: asks.collect(),
            sender: case.verified.sender.to_string(),
            subject,
            chain: case.chain.senders.iter().map(ToString::to_string).collect(),
            transaction,
            action: audited::action(&case.request.action),
            resource: audited::resource(&case.request.resource),
            workflow: case.request.workflow.as_ref().map(audited::workflow),
            digest: self.digest.to_string(),
            answers: pending.answers.iter().map(|taken| taken.counted.clone()).collect(),
            reminders: 0,
            decision_id: None,
            reason: None,
        }
    }
}

/// The names of step-ups, sorted, none twice.
pub(super) fn names(step_ups: &[StepUp]) -> Vec<String> {
    let names: BTreeSet<_> = step_ups.iter().map(|step_up| step_up.name.clone()).collect();
    names.into_iter().collect()
}

/// The names that a challenge asked for, sorted, none twice.
pub(super) fn names_of(challenge: &Challenge) -> Vec<String> {
    let names: BTreeSet<_> = challenge.step_ups.iter().map(|ask| ask.name.clone()).collect();
    names.into_iter().collect()
}

/// How many must approve: one answer discharges all that was asked but logins, so the most that any of them asks for.
pub(super) fn approvals(step_ups: &[StepUp]) -> u32 {
    step_ups.iter().map(|step_up| step_up.approvals).max().unwrap_or(1)
}

/// How long an answer is good for that step-up, in seconds.
pub(super) fn grant_s(step_up: &StepUp, holding: &Holding) -> i64 {
    i64::from(step_up.grant_s.unwrap_or(holding.grant_s))
}

/// The digest of what is asked, with the step-ups of these names.
pub(super) fn digest(case: &Case<'_>, names: &[String]) -> Result<Digest, Denial> {
    let asked = Asked {
        route: &case.route.name,
        sender: case.verified.sender.as_str(),
        subject: case.subject.map(|subject| subject.as_str()),
        txn: case.verified.transaction.as_ref().map(|transaction| transaction.id.as_str()),
        action: &case.request.action,
        resource: &case.request.resource,
        workflow: case.request.workflow.as_ref(),
        key: case.verified.key,
        value: case.verified.value,
        step_ups: names,
    };
    let invalid = || Denial::new(Reason::RequestInvalid, "the request has no canonical form");
    request_digest(&asked).ok_or_else(invalid)
}
