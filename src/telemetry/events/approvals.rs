//! What becomes of approvers' logins and answers over HTTP. Limits: no token, no name of a person and no comment stands in
//! an event; the challenge's topic and the audit records have them.

use opentelemetry::KeyValue;

use crate::authorize::ids::Coordinates;
use crate::telemetry::Telemetry;

/// New keys of an OIDC issuer verify its tokens from now on.
#[derive(Debug)]
pub struct IssuerKeysLoaded<'a> {
    /// The issuer, by its name in the configuration.
    pub issuer: &'a str,
    /// The digest of the key set.
    pub version: &'a str,
    /// How many keys it has.
    pub keys: usize,
}

impl IssuerKeysLoaded<'_> {
    /// Logs and counts it.
    pub fn emit(&self, telemetry: &Telemetry) {
        count_look(telemetry, self.issuer, "loaded");
        tracing::info!(
            name: "issuer_keys_loaded",
            issuer = self.issuer,
            version = self.version,
            keys = self.keys,
            "an issuer's keys are new"
        );
    }
}

/// An OIDC issuer's keys cannot be had, or are no good; the last good ones stay for a day.
#[derive(Debug)]
pub struct IssuerKeysRefused<'a> {
    /// The issuer, by its name in the configuration.
    pub issuer: &'a str,
    /// What is wrong.
    pub problem: &'a str,
}

impl IssuerKeysRefused<'_> {
    /// Logs and counts it.
    pub fn emit(&self, telemetry: &Telemetry) {
        count_look(telemetry, self.issuer, "refused");
        tracing::error!(
            name: "issuer_keys_refused",
            issuer = self.issuer,
            problem = self.problem,
            "an issuer's keys cannot be used; the last good ones stay for a day"
        );
    }
}

/// A record of a challenges topic is no challenge that this version reads.
#[derive(Debug)]
pub struct ChallengeUnreadable<'a> {
    /// Where it stands.
    pub source: &'a Coordinates,
    /// What is wrong with it.
    pub problem: &'a str,
}

impl ChallengeUnreadable<'_> {
    /// Logs it.
    pub fn emit(&self, _telemetry: &Telemetry) {
        tracing::warn!(
            name: "challenge_unreadable",
            topic = self.source.topic.as_str(),
            partition = self.source.partition.0,
            offset = self.source.offset.0,
            problem = self.problem,
            "a challenge cannot be read and is not shown to approvers"
        );
    }
}

/// An approver's answer stands in the answers topic.
#[derive(Debug)]
pub struct AnswerWritten<'a> {
    /// The route whose challenge is answered.
    pub route: &'a str,
    /// `approve` or `refuse`.
    pub decision: &'static str,
    /// Where the answer stands.
    pub written: &'a Coordinates,
}

impl AnswerWritten<'_> {
    /// Logs and counts it.
    pub fn emit(&self, telemetry: &Telemetry) {
        let labels =
            [KeyValue::new("route", self.route.to_owned()), KeyValue::new("decision", self.decision)];
        telemetry.inner.instruments.answers_written.add(1, &labels);
        tracing::info!(
            name: "answer_written",
            route = self.route,
            decision = self.decision,
            topic = self.written.topic.as_str(),
            partition = self.written.partition.0,
            offset = self.written.offset.0,
            "an approver's answer was written"
        );
    }
}

/// A request of an approver, or of somebody who is none, was refused.
#[derive(Debug)]
pub struct ApprovalRefused {
    /// The code in the reply.
    pub error: &'static str,
    /// The HTTP status.
    pub status: u16,
}

impl ApprovalRefused {
    /// Logs and counts it.
    pub fn emit(&self, telemetry: &Telemetry) {
        telemetry.inner.instruments.approvals_refused.add(1, &[KeyValue::new("error", self.error)]);
        tracing::debug!(
            name: "approval_refused",
            error = self.error,
            status = self.status,
            "a request of an approver was refused"
        );
    }
}

fn count_look(telemetry: &Telemetry, issuer: &str, result: &'static str) {
    let labels = [KeyValue::new("issuer", issuer.to_owned()), KeyValue::new("result", result)];
    telemetry.inner.instruments.issuer_key_loads.add(1, &labels);
}
