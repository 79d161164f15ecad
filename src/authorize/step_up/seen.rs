//! How an approver who has logged in stands to a challenge, by the policies of this moment. Limits: a preview for people: it
//! does not know what the route's mapping took from the record, and the lane asks again about the answer itself.

use super::challenge::Challenge;
use super::taking::Held;
use crate::authorize::engine::Snapshot;
use crate::authorize::ids::UnixMillis;
use crate::authorize::login::Login;
use crate::authorize::policy::AnswerFacts;

/// How an approver stands to a challenge.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Seen {
    /// The sender, the subject or an earlier sender: whatever the policies say, it may not answer.
    AsParty,
    /// The policies let it answer, one way or the other.
    AsApprover,
    /// Not at all.
    Not,
}

impl Seen {
    /// How `login` stands to `challenge` at `now`.
    pub fn by(login: &Login, challenge: &Challenge, snapshot: &Snapshot, now: UnixMillis) -> Self {
        let Some(held) = Held::of(challenge) else { return Self::Not };
        let facts = |decision| AnswerFacts {
            now,
            approver: (login.entity_type(), login.approver()),
            challenge: &challenge.id,
            route: &challenge.route,
            step_ups: &held.names,
            asked_at: Some(UnixMillis(challenge.asked_at)),
            hold_until: Some(UnixMillis(challenge.hold_until)),
            approvals: u32::try_from(challenge.approvals).unwrap_or_default(),
            sender: &held.sender,
            subject: held.subject.as_ref(),
            senders: &held.senders,
            action: &held.action,
            resource: &held.resource,
            workflow: held.workflow.as_ref(),
            value: None,
            decision,
            issuer: login.issuer(),
            issued_at: now.as_seconds(),
            acr: login.acr(),
            amr: login.amr(),
            auth_time: login.auth_time(),
        };
        if snapshot.policy.is_party(&facts("approve")) {
            return Self::AsParty;
        }
        let may = |decision| snapshot.policy.may_answer(&snapshot.entities, &facts(decision)).is_ok();
        if may("approve") || may("refuse") { Self::AsApprover } else { Self::Not }
    }
}
