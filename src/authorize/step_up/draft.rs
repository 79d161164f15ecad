//! What an audit record says of a step-up: challenge, approvers, what was discharged, and an answer. Limits: as of any draft,
//! a claim that was not verified never enters.

use super::challenge::Challenge;
use crate::authorize::audit::{AuditAnswer, AuditTokenHash};
use crate::authorize::draft::Draft;
use crate::authorize::ids::{Coordinates, Digest, UnixMillis};
use crate::authorize::jose::{TokenKind, sha256};
use crate::authorize::record::Record;
use crate::authorize::text::Text;

/// Among the token hashes, the name of a fresh Txn-Token that no header of the record carried.
const LOGIN: &str = "login";

impl Draft {
    /// The decision's own id.
    pub(in crate::authorize) fn decision_id(&self) -> &str {
        &self.0.decision_id
    }

    /// *E* of a held record, which its hold has kept.
    pub(in crate::authorize) fn accepted(&mut self, accepted: UnixMillis) {
        self.0.accepted = accepted.0;
    }

    /// The challenge that this decision is about.
    pub(in crate::authorize) fn challenge(&mut self, challenge: Option<String>) {
        self.0.challenge = challenge;
    }

    /// The challenge that holds the record from now on, and when the hold ends.
    pub(in crate::authorize) fn held(&mut self, challenge: String, until: UnixMillis) {
        self.0.challenge = Some(challenge);
        self.0.hold_until = Some(until.0);
    }

    /// The approvers whose answers were counted.
    pub(in crate::authorize) fn approvers(&mut self, approvers: impl IntoIterator<Item = String>) {
        self.0.approvers = approvers.into_iter().collect();
        self.0.approvers.sort();
    }

    /// The policies whose step-up was discharged.
    pub(in crate::authorize) fn discharged(&mut self, policies: &[String]) {
        self.0.discharged = policies.to_vec();
    }

    /// The policies that permit, once step-ups were discharged.
    pub(in crate::authorize) fn permitted(&mut self, policies: &[Text]) {
        self.0.policies = policies.to_vec();
    }

    /// An answer stands for the record that it answers: its place, and the hash of the answer itself.
    pub(in crate::authorize) fn answered_at(
        &mut self,
        place: &Coordinates,
        answer: &Record,
        kind: TokenKind,
    ) {
        self.stand_for(place.topic.text(), place.offset.0, answer, kind);
    }

    fn stand_for(&mut self, topic: Text, offset: i64, answer: &Record, kind: TokenKind) {
        self.0.topic = topic;
        self.0.offset = offset;
        self.0.key_digest = None;
        self.0.value_digest = None;
        let hash =
            answer.value.as_ref().map(|value| AuditTokenHash::new(kind.header_name(), sha256(&[value])));
        self.0.token_hashes = hash.into_iter().collect();
    }

    /// The fresh Txn-Token by which the subject has logged in again, verified for this decision.
    pub(in crate::authorize) fn login(&mut self, hash: Digest) {
        self.0.token_hashes.push(AuditTokenHash::new(LOGIN, hash));
    }

    /// That such a token was there and holds no longer.
    pub(in crate::authorize) fn login_lapsed(&mut self, problem: &str) {
        self.0.detail = Some(format!("the fresh login does not count any more: {problem}"));
    }

    /// An answer to what was asked over HTTP: it stands nowhere, but for its offset in the answers topic.
    pub(in crate::authorize) fn answered_over_http(&mut self, answer: &Record, kind: TokenKind) {
        self.stand_for(Text::fixed(""), -1, answer, kind);
        self.0.partition = -1;
    }

    /// What was verified of the held record when the challenge was made.
    pub(in crate::authorize) fn of_challenge(&mut self, challenge: &Challenge) {
        self.0.challenge = Some(challenge.id.clone());
        self.0.sender = Some(challenge.sender.as_str().into());
        self.0.chain = challenge.chain.iter().map(|sender| sender.as_str().into()).collect();
        self.0.transaction = challenge.transaction.as_deref().map(Text::from);
        self.0.action = Some(challenge.action.clone());
        self.0.resource = Some(challenge.resource.clone());
        self.0.workflow.clone_from(&challenge.workflow);
        self.0.step_ups = challenge.step_ups.iter().map(|ask| ask.policy.clone()).collect();
    }

    /// The answer, and what came of it.
    pub(in crate::authorize) fn answer_taken(&mut self, answer: AuditAnswer, detail: Option<String>) {
        self.0.answer = Some(answer);
        self.0.detail = detail;
    }
}
