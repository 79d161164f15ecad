//! A record of the revocations' topic as a gate judges it, for a person or a program. Limits: by the keys and the clock
//! of this machine; what was replaced under the same id is not shown.

use std::io;

use serde::Serialize;

use crate::authorize::ids::{Coordinates, UnixMillis};
use crate::authorize::standing::{Authority, Effect, Notice, Revocation, StatementError};
use crate::cli::output::{moment, plain};
use crate::cli::{Format, Output};

/// How a record stands.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize)]
#[serde(rename_all = "snake_case")]
pub(super) enum State {
    /// It is in force.
    InForce,
    /// Its end has come.
    Ended,
    /// The same transmitter has enabled the account since.
    Lifted,
    /// It enables an account again.
    Enables,
    /// By its event nothing is revoked.
    Nothing,
    /// It cannot be verified: no gate applies it.
    Unverifiable,
}

/// A record.
#[derive(Debug, Serialize)]
pub(super) struct Shown {
    id: String,
    pub(super) state: State,
    #[serde(skip_serializing_if = "Vec::is_empty")]
    targets: Vec<Named>,
    #[serde(skip_serializing_if = "Option::is_none")]
    not_before: Option<String>,
    #[serde(skip_serializing_if = "Option::is_none")]
    until: Option<String>,
    #[serde(skip_serializing_if = "Option::is_none")]
    by: Option<String>,
    #[serde(skip_serializing_if = "Option::is_none")]
    event: Option<String>,
    #[serde(skip_serializing_if = "Option::is_none")]
    issued_at: Option<String>,
    #[serde(skip_serializing_if = "Option::is_none")]
    reason: Option<String>,
    #[serde(skip_serializing_if = "Option::is_none")]
    problem: Option<String>,
    at: String,
}

#[derive(Debug, Serialize)]
struct Named {
    kind: &'static str,
    id: String,
}

/// A record of the topic, verified or not.
pub(super) struct Read {
    pub(super) id: String,
    pub(super) at: Coordinates,
    pub(super) notice: Result<Notice, StatementError>,
}

impl Read {
    fn revocation(&self) -> Option<&Revocation> {
        match &self.notice {
            Ok(Notice::Revocation(revocation)) => Some(revocation),
            _ => None,
        }
    }
}

impl Shown {
    /// One of the records of a topic, beside all others.
    pub(super) fn of(read: &Read, all: &[Read], now: UnixMillis) -> Self {
        let mut shown = Self {
            id: read.id.clone(),
            state: State::Unverifiable,
            targets: Vec::new(),
            not_before: None,
            until: None,
            by: None,
            event: None,
            issued_at: None,
            reason: None,
            problem: None,
            at: read.at.to_string(),
        };
        match &read.notice {
            Err(problem) => shown.problem = Some(problem.to_string()),
            Ok(Notice::Nothing(event)) => {
                shown.state = State::Nothing;
                shown.event = Some(event.clone());
            }
            Ok(Notice::Revocation(revocation)) => {
                shown.state = state(revocation, all, now);
                shown.fill(revocation);
            }
        }
        shown
    }

    fn fill(&mut self, of: &Revocation) {
        let named = of.targets.iter();
        let named = named.map(|target| Named { kind: target.kind.as_str(), id: target.id.to_string() });
        self.targets = named.collect();
        self.not_before = match of.effect {
            Effect::Revokes { not_before } => not_before.map(seconds),
            Effect::Disables { .. } | Effect::Enables { .. } => None,
        };
        self.until = of.expires_at.map(seconds);
        self.by = Some(match &of.authority {
            Authority::Administrator => "administrator".to_owned(),
            Authority::Transmitter(iss) => iss.to_string(),
        });
        self.event = Some(of.event.to_string());
        self.issued_at = Some(seconds(of.issued_at));
        self.reason = of.reason.as_deref().map(str::to_owned);
    }

    /// Writes it, a line.
    pub(super) fn write(&self, out: &mut Output) -> io::Result<()> {
        if out.format() == Format::Json {
            return out.json_line(self);
        }
        let state = match self.state {
            State::InForce => "in force",
            State::Ended => "ended",
            State::Lifted => "lifted",
            State::Enables => "enables",
            State::Nothing => "nothing",
            State::Unverifiable => "UNVERIFIABLE",
        };
        let mut line = format!("{}  {state}", plain(&self.id));
        for Named { kind, id } in &self.targets {
            line.push_str(&format!("  {kind} {}", plain(id)));
        }
        let parts = [
            ("issued before ", &self.not_before),
            ("until ", &self.until),
            ("by ", &self.by),
            ("", &self.event),
            ("", &self.reason),
            ("", &self.problem),
        ];
        for (label, part) in parts {
            if let Some(part) = part {
                line.push_str(&format!("  {label}{}", plain(part)));
            }
        }
        writeln!(out.data(), "{line}  {}", self.at)
    }
}

fn state(revocation: &Revocation, all: &[Read], now: UnixMillis) -> State {
    match revocation.effect {
        _ if revocation.has_expired(now) => State::Ended,
        Effect::Enables { .. } => State::Enables,
        Effect::Revokes { .. } => State::InForce,
        Effect::Disables { at } => {
            let lifts = |other: &Revocation| {
                matches!(other.effect, Effect::Enables { at: enabled } if enabled >= at)
                    && other.authority == revocation.authority
                    && revocation.targets.iter().all(|target| other.targets.contains(target))
            };
            let lifted = all.iter().filter_map(Read::revocation).any(lifts);
            if lifted { State::Lifted } else { State::InForce }
        }
    }
}

/// Seconds since 1970 as RFC 3339.
fn seconds(at: f64) -> String {
    moment(UnixMillis((at * 1000.0).round() as i64))
}
