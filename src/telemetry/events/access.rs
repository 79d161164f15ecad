//! What is asked over HTTP: evaluations, requests without a decision, and the desk that writes their audit records. Limits:
//! an evaluation is shown after its audit record was committed, never before.

use std::time::Duration;

use opentelemetry::KeyValue;

use super::micros;
use crate::authorize::decision::Reason;
use crate::telemetry::Telemetry;

/// One access evaluation was decided, and its audit record is committed.
#[derive(Debug)]
pub struct Evaluated<'a> {
    /// The route by whose rules.
    pub route: &'a str,
    /// Why it was denied; `None` is allowed.
    pub denied: Option<Reason>,
    /// The time from the request to the commit.
    pub took: Duration,
}

impl Evaluated<'_> {
    /// Counts it and logs it at `debug`.
    pub fn emit(&self, telemetry: &Telemetry) {
        let outcome = if self.denied.is_some() { "deny" } else { "allow" };
        let reason = self.denied.map_or("none", Reason::as_str);
        let route = KeyValue::new("route", self.route.to_owned());
        let instruments = &telemetry.inner.instruments;
        instruments.evaluation_duration.record(self.took.as_secs_f64(), std::slice::from_ref(&route));
        let labels = [route, KeyValue::new("outcome", outcome), KeyValue::new("reason", reason)];
        instruments.evaluations.add(1, &labels);
        tracing::debug!(
            name: "evaluated",
            route = self.route,
            outcome,
            reason,
            took_us = micros(self.took),
            "access evaluation answered"
        );
    }
}

/// A request for evaluations was answered without a decision.
#[derive(Debug)]
pub struct AccessRefused {
    /// The HTTP status.
    pub status: u16,
    /// The code of the contract, where it has one.
    pub reason: Option<Reason>,
}

impl AccessRefused {
    /// Counts it and logs it at `debug`: anybody who reaches the port can cause it.
    pub fn emit(&self, telemetry: &Telemetry) {
        let reason = self.reason.map_or("none", Reason::as_str);
        let labels = [KeyValue::new("status", i64::from(self.status)), KeyValue::new("reason", reason)];
        telemetry.inner.instruments.access_refused.add(1, &labels);
        tracing::debug!(name: "access_refused", status = self.status, reason, "no decision");
    }
}

/// The desk can write: evaluations are answered.
#[derive(Debug)]
pub struct DeskOpened<'a> {
    /// The name of the audit tree that it begins.
    pub tree: &'a str,
}

impl DeskOpened<'_> {
    /// Logs it.
    pub fn emit(&self, _telemetry: &Telemetry) {
        tracing::info!(name: "desk_opened", tree = self.tree, "access evaluations can be answered");
    }
}

/// Audit records of evaluations could not be committed: their callers were told so, and nothing was allowed.
#[derive(Debug)]
pub struct DeskAway<'a> {
    /// The broker's, or the client's, words.
    pub problem: &'a str,
}

impl DeskAway<'_> {
    /// Logs and counts it.
    pub fn emit(&self, telemetry: &Telemetry) {
        telemetry.inner.instruments.desk_away.add(1, &[]);
        tracing::warn!(name: "desk_away", problem = self.problem, "access evaluations cannot be answered");
    }
}

/// Audit records of evaluations were committed together.
#[derive(Debug)]
pub struct DeskCommitted {
    /// How many.
    pub records: usize,
    /// The time to write and commit them.
    pub commit: Duration,
}

impl DeskCommitted {
    /// Measures it and logs it at `debug`.
    pub fn emit(&self, telemetry: &Telemetry) {
        telemetry.inner.instruments.desk_commit_duration.record(self.commit.as_secs_f64(), &[]);
        tracing::debug!(
            name: "desk_committed",
            records = self.records,
            commit_us = micros(self.commit),
            "evaluations committed"
        );
    }
}
