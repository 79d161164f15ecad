//! Reads what gates write, as those do for whom it is meant: destinations by their countersignature, dead letters by their
//! headers, audit records and challenges by their schemas. Limits: what cannot be read is noted and counts as not there.

use super::seen::{Audited, Outcome, State};
use crate::authorize::audit::AuditRecord;
use crate::authorize::ids::{Coordinates, Offset, Partition, Realm, Topic};
use crate::authorize::record::Record;
use crate::cli::demo::DemoError;
use crate::cli::demo::world::World;
use crate::wire::audit::AuditCodec;
use crate::wire::challenge::ChallengeCodec;
use crate::worker::Verifier;

/// What is read, and with what.
pub(super) struct Reader {
    authorized: Vec<Topic>,
    denied: Vec<Topic>,
    audit: Vec<Topic>,
    challenges: Topic,
    verifier: Verifier,
    audits: AuditCodec,
    asked: ChallengeCodec,
}

impl Reader {
    pub(super) fn new(world: &World) -> Result<Self, DemoError> {
        Ok(Self {
            authorized: world.topics("authorized")?,
            denied: world.topics("denied")?,
            audit: world.topics("audit")?,
            challenges: world.topic("invoices", "challenges")?,
            verifier: Verifier::new(Realm::parse("demo")?, world.trust()),
            audits: AuditCodec::new()?,
            asked: ChallengeCodec::new()?,
        })
    }

    /// All topics that are read.
    pub(super) fn topics(&self) -> impl Iterator<Item = &Topic> {
        [&self.authorized, &self.denied, &self.audit].into_iter().flatten().chain([&self.challenges])
    }

    /// Takes in one record.
    pub(super) fn take(&self, record: &Record, state: &mut State) {
        let topic = &record.source.topic;
        if self.authorized.contains(topic) {
            match self.verifier.verify(record) {
                Ok(received) => {
                    state.totals.forwarded += 1;
                    let at = coordinates(&received.source);
                    state.outcome(at, Outcome::Forwarded(Box::new(received)));
                }
                Err(denial) => {
                    state.totals.unverified += 1;
                    state.problem = Some(denial.to_string());
                }
            }
        } else if self.denied.contains(topic) {
            let reason = header(record, "denied-reason").unwrap_or_default();
            state.totals.denied += 1;
            *state.totals.by_reason.entry(reason).or_default() += 1;
            let parts = ["original-topic", "original-partition", "original-offset"];
            let source: Vec<String> = parts.iter().filter_map(|name| header(record, name)).collect();
            state.outcome(coordinates(&source.join("/")), Outcome::Denied);
        } else if self.audit.contains(topic) {
            self.audit(record, state);
        } else if *topic == self.challenges {
            self.challenge(record, state);
        }
    }

    fn audit(&self, record: &Record, state: &mut State) {
        let audit = match self.audits.decode(record.value.as_deref().unwrap_or_default()) {
            Ok(audit) => audit,
            Err(problem) => {
                state.problem = Some(format!("an audit record cannot be read: {problem}"));
                return;
            }
        };
        state.totals.audited += 1;
        let AuditRecord { decision_id, outcome, topic, partition, offset, answer, .. } = &audit;
        let at = coordinates(&format!("{topic}/{partition}/{offset}"));
        let is_decision = matches!(outcome.as_str(), "forward" | "deny");
        match (outcome.as_str(), at) {
            ("answer", at) => {
                state.totals.audits.answers += 1;
                let Some(answer) = answer else { return };
                let (jti, effect) = (answer.jti.clone().unwrap_or_default(), answer.effect.clone());
                match at {
                    Some(at) => state.seen.entry(at).or_default().answers.push((jti, effect)),
                    None => drop(state.heard.insert(jti, effect)),
                }
            }
            ("hold", Some(at)) => {
                state.totals.audits.holds += 1;
                state.seen.entry(at).or_default().held = Some(Audited::of(audit));
            }
            (_, Some(at)) if is_decision => state.decided(&at, Audited::of(audit)),
            ("allow" | "deny", None) if topic.is_empty() => {
                state.totals.audits.questions += 1;
                state.asked.insert(decision_id.clone(), Audited::of(audit));
            }
            // Of none of these: the totals say so.
            _ => {}
        }
    }

    fn challenge(&self, record: &Record, state: &mut State) {
        match self.asked.decode(record.value.as_deref().unwrap_or_default()) {
            Ok(challenge) => {
                let (topic, partition, offset) = (&challenge.topic, challenge.partition, challenge.offset);
                match coordinates(&format!("{topic}/{partition}/{offset}")) {
                    Some(at) => state.challenge(&at, challenge),
                    None => drop(state.wanted.insert(challenge.id.clone(), Box::new(challenge))),
                }
            }
            Err(problem) => state.problem = Some(format!("a challenge cannot be read: {problem}")),
        }
    }
}

impl Audited {
    fn of(audit: AuditRecord) -> Self {
        let AuditRecord { reason, detail, policies, step_ups, approvers, .. } = audit;
        let reason = reason.map(|reason| reason.to_string());
        let policies = policies.iter().map(ToString::to_string).collect();
        Self { reason, detail, policies, step_ups, approvers }
    }
}

fn header(record: &Record, name: &str) -> Option<String> {
    let header = record.headers.iter().rev().find(|header| header.name == name.as_bytes())?;
    Some(String::from_utf8_lossy(header.value.as_deref()?).into_owned())
}

/// Reads `topic/partition/offset`; `None` where that is no place of a record.
fn coordinates(text: &str) -> Option<Coordinates> {
    let mut parts = text.split('/');
    let (topic, partition, offset) = (parts.next()?, parts.next()?, parts.next()?);
    let at = Coordinates {
        topic: Topic::parse(topic).ok()?,
        partition: Partition(partition.parse().ok()?),
        offset: Offset(offset.parse().ok()?),
    };
    (at.offset.0 >= 0).then_some(at)
}
