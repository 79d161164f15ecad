//! A challenge, for the person who has to judge, and for a program. Limits: what senders and policies say in it is shown
//! without what a terminal would obey; the record's value is not in it.

use std::fmt::Write as _;
use std::io;

use serde_json::{Value, json};

use crate::authorize::ids::{Coordinates, UnixMillis};
use crate::authorize::step_up::{Ask, Challenge};
use crate::cli::output::{moment, plain};
use crate::cli::{Format, Output};

/// What stands under a challenge's id.
pub(super) enum Shown {
    /// A challenge, and where it stands if it was read there.
    Challenge(Box<Challenge>, Option<Coordinates>),
    /// Something else.
    Unreadable {
        /// The key, as text.
        id: String,
        /// Where it stands.
        at: Coordinates,
        /// What is wrong with it.
        problem: String,
    },
}

impl Shown {
    /// Writes it: a line, or all of it.
    pub(super) fn write(&self, out: &mut Output, whole: bool) -> io::Result<()> {
        match (self, out.format()) {
            (Self::Challenge(challenge, at), Format::Json) => out.json_line(&json(challenge, at.as_ref())?),
            (Self::Challenge(challenge, _), Format::Human) if whole => {
                out.data().write_all(text(challenge).as_bytes())
            }
            (Self::Challenge(challenge, _), Format::Human) => writeln!(out.data(), "{}", line(challenge)),
            (Self::Unreadable { id, at, problem }, Format::Json) => {
                out.json_line(&json!({"id": id, "at": at.to_string(), "problem": problem}))
            }
            (Self::Unreadable { id, at, problem }, Format::Human) => {
                writeln!(out.data(), "UNREADABLE  {}  {}  {at}", plain(id), plain(problem))
            }
        }
    }
}

fn json(challenge: &Challenge, at: Option<&Coordinates>) -> io::Result<Value> {
    let mut value = serde_json::to_value(challenge)?;
    if let (Some(members), Some(at)) = (value.as_object_mut(), at) {
        members.insert("at".to_owned(), at.to_string().into());
    }
    Ok(value)
}

/// A challenge in one line.
fn line(challenge: &Challenge) -> String {
    let resource = &challenge.resource;
    let messages: Vec<&str> = challenge.step_ups.iter().map(|ask| ask.message.as_str()).collect();
    let until = moment(UnixMillis(challenge.hold_until));
    let approved = challenge.answers.iter().filter(|answer| answer.decision == "approve").count();
    format!(
        "{}  {}  {approved} of {}  {} {}::{:?}  by {}  until {until}  {}",
        plain(&challenge.id),
        challenge.status,
        challenge.approvals,
        plain(&challenge.action.name),
        plain(&resource.kind),
        plain(&resource.id),
        plain(&challenge.sender),
        plain(&messages.join(" ")),
    )
}

/// Everything that a person needs to judge.
pub(super) fn text(challenge: &Challenge) -> String {
    let mut rows: Vec<(&str, String)> = Vec::new();
    let resource = &challenge.resource;
    rows.push(("challenge", challenge.id.clone()));
    rows.push(("stands", format!("{} since {}", challenge.status, moment(UnixMillis(challenge.changed_at)))));
    for ask in &challenge.step_ups {
        rows.push(("asked", format!("{} ({}, by the policy {})", ask.message, ask.name, ask.policy)));
        if let Some(acr) = &ask.acr_values {
            rows.push(("login", format!("one of {acr}")));
        }
        if let Some(age) = ask.max_age_s {
            rows.push(("login", format!("at most {age} s ago")));
        }
    }
    rows.push(("action", with_properties(&challenge.action.name, challenge.action.properties.as_deref())));
    let named = format!("{}::{:?}", resource.kind, resource.id);
    rows.push(("resource", with_properties(&named, resource.properties.as_deref())));
    rows.push(("sender", challenge.sender.clone()));
    rows.extend(challenge.chain.iter().map(|sender| ("after", sender.clone())));
    rows.extend(challenge.subject.iter().map(|subject| ("for", subject.clone())));
    rows.extend(challenge.transaction.iter().map(|transaction| ("transaction", transaction.clone())));
    if let Some(workflow) = &challenge.workflow {
        rows.push(("workflow", format!("{} ({}) at {}", workflow.id, workflow.kind, workflow.step)));
    }
    let rules = format!("by the route {} of {}", challenge.route, challenge.realm);
    rows.push(match challenge.topic.as_str() {
        "" => ("asked", format!("over HTTP, {rules}")),
        topic => ("record", format!("{topic}/{}/{} {rules}", challenge.partition, challenge.offset)),
    });
    rows.push(("digest", challenge.digest.clone()));
    rows.push(("asked at", moment(UnixMillis(challenge.asked_at))));
    rows.push(("until", moment(UnixMillis(challenge.hold_until))));
    if challenge.approvals > 0 {
        rows.push(("needs", format!("{} to approve", challenge.approvals)));
    }
    if challenge.step_ups.iter().any(Ask::is_of_login) {
        rows.push(("needs", "a fresh Txn-Token of the subject".to_owned()));
    }
    for answer in &challenge.answers {
        let comment = answer.comment.as_ref().map_or_else(String::new, |said| format!(": {said}"));
        let at = moment(UnixMillis(answer.answered_at));
        rows.push(("answer", format!("{} by {} at {at}{comment}", answer.decision, answer.approver)));
    }
    rows.extend(challenge.reason.iter().map(|reason| ("reason", reason.clone())));
    rows.extend(challenge.decision_id.iter().map(|decision| ("decision", decision.clone())));
    rows.iter().fold(String::new(), |mut text, (name, said)| {
        // Writing to a string does not fail.
        let _ = writeln!(text, "{name:<12}{}", plain(said));
        text
    })
}

fn with_properties(name: &str, properties: Option<&str>) -> String {
    properties.map_or_else(|| name.to_owned(), |properties| format!("{name} {properties}"))
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::wire::challenge::tests::full;

    #[test]
    fn a_person_sees_what_is_asked_and_no_terminal_obeys_it() {
        let mut challenge = full();
        challenge.step_ups[0].message = "pay\u{1b}[2J 9 EUR\nasked  something else".to_owned();
        let shown = text(&challenge);
        assert_eq!(
            shown.lines().filter(|line| line.starts_with("asked ") && !line.starts_with("asked at")).count(),
            1
        );
        assert!(!shown.contains('\u{1b}'), "{shown}");
        for needed in [
            challenge.id.as_str(),
            &challenge.digest,
            "Invoice::\"inv-7\" {}",
            "spiffe://example.org/agent/payer",
            "after       spiffe://example.org/agent/planner",
            "one of phr phrh",
            "at most 300 s ago",
            "2 to approve",
            "refuse by User::\"carol\" at 2030-01-01T00:01:00Z: not this month",
        ] {
            assert!(shown.contains(needed), "{needed}\n{shown}");
        }
        assert!(line(&challenge).contains("refused  0 of 2  pay Invoice::\"inv-7\""), "{}", line(&challenge));
    }
}
