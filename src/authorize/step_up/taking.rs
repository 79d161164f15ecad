//! An answer from the answers topic is taken in (contract, section 7). Limits: whatever its bytes are, it changes at most how
//! one record is held, and it always leaves an audit record; what it leads to is decided in a turn of its own.

use super::ask::names_of;
use super::audited::{action_of, resource_of, workflow_of};
use super::challenge::{Challenge, ChallengeId, Status};
use super::entry::{Entry, Pending, Taken, Wait};
use super::grant::{self, Judge, Signed, Unfit};
use super::holds::Holds;
use super::kept::{AskedOf, Keep, Payload, Traces};
use super::login::{FreshLogin, Whose};
use super::said::Said;
use crate::authorize::audit::AuditAnswer;
use crate::authorize::claims::{GrantClaims, Transaction, Verdict};
use crate::authorize::digests::Hashes;
use crate::authorize::draft::Draft;
use crate::authorize::engine::Moment;
use crate::authorize::identity::accepted;
use crate::authorize::ids::{Coordinates, Offset, Partition, Topic, UnixMillis, WorkloadId};
use crate::authorize::jose::{Jws, TokenKind, token_hash};
use crate::authorize::policy::SubjectId;
use crate::authorize::record::Record;
use crate::authorize::route::{Gate, Route};
use crate::authorize::state::PartitionState;

/// The held record that an answer is about.
struct About {
    source: Offset,
    entry: Entry,
    pending: Pending,
}

/// What came of an answer.
pub(super) struct Effect {
    effect: &'static str,
    detail: Option<String>,
}

impl Effect {
    /// It counts.
    pub(super) const COUNTED: Self = Self { effect: "counted", detail: None };

    /// It names nothing that waits for it.
    pub(super) fn stray(detail: &str) -> Self {
        Self::none("stray", detail)
    }

    /// Writes it down.
    pub(super) fn audit(self, mut said: AuditAnswer, draft: &mut Draft) {
        said.effect = self.effect.to_owned();
        draft.answer_taken(said, self.detail);
    }

    pub(super) fn none(effect: &'static str, detail: impl Into<String>) -> Self {
        Self { effect, detail: Some(detail.into()) }
    }
}

impl From<Unfit> for Effect {
    fn from(unfit: Unfit) -> Self {
        Self::none(unfit.effect(), unfit.detail())
    }
}

/// Who takes it in.
pub(in crate::authorize) struct Taking<'a> {
    pub(in crate::authorize) gate: &'a Gate,
    pub(in crate::authorize) route: &'a Route,
    /// The source topic whose answers these are.
    pub(in crate::authorize) source: &'a Topic,
    pub(in crate::authorize) moment: &'a Moment<'a>,
}

impl Taking<'_> {
    /// Takes in one answer; `held` is the payload of the record that it names.
    pub(in crate::authorize) fn take(
        &self,
        answer: &Record,
        held: Option<&Payload>,
        state: &mut PartitionState,
    ) -> (Draft, Traces) {
        let mut draft = Draft::new(self.gate, self.route, answer, &Hashes::of(answer), self.moment);
        let place = Coordinates {
            topic: self.source.clone(),
            partition: Partition(answer.source.partition.0),
            offset: held.map_or(Offset(-1), |payload| payload.record.source.offset),
        };
        let read = Said::read(answer);
        let kind = read.as_ref().map_or(TokenKind::StepUpGrant, Said::kind);
        draft.answered_at(&place, answer, kind);
        let mut traces = Traces::default();
        let mut said = unsaid(answer);
        let asked = held.and_then(|payload| payload.asked.as_ref());
        if let Some(AskedOf { challenge, .. }) = asked {
            draft.of_challenge(challenge);
        }
        let judged = match read {
            Err(problem) => Err(Effect::none("malformed", problem)),
            Ok(Said::Grant { jws, claims }) => {
                self.grant(answer, (&jws, &claims), asked, state, &mut said, &mut traces)
            }
            Ok(Said::Login { token, jws, challenge }) => {
                let found = Self::held(&challenge, asked, state);
                found.and_then(|(asked, about)| {
                    let fresh = self.login((token, &jws), asked, &about.pending, &mut draft, &mut said)?;
                    let taken_at = accepted(answer, self.route, self.moment.now);
                    let pending = refreshed(about.pending, token, fresh, taken_at)?;
                    hold(about.source, about.entry, pending, state, &mut traces);
                    Ok(Effect::COUNTED)
                })
            }
        };
        let effect = match judged {
            Ok(effect) | Err(effect) => effect,
        };
        effect.audit(said, &mut draft);
        (draft, traces)
    }

    fn scales(&self) -> Scales<'_> {
        Scales { gate: self.gate, route: self.route, moment: self.moment }
    }

    /// What is held for that challenge: `asked` is what was asked about the record that the answer was found to name.
    fn held<'p>(
        challenge: &str,
        asked: Option<&'p AskedOf>,
        state: &PartitionState,
    ) -> Result<(&'p AskedOf, About), Effect> {
        let stray = || Effect::stray("no record is held here for this challenge, or none any more");
        let id = ChallengeId::parse(challenge).ok_or_else(stray)?;
        let (source, entry) = state.holds.named(id.decision.0).ok_or_else(stray)?;
        let asked = asked.filter(|asked| asked.challenge.id == challenge).ok_or_else(stray)?;
        let pending = entry.pending().ok_or_else(stray)?.clone();
        Ok((asked, About { source, entry: entry.clone(), pending }))
    }

    /// An approver's word.
    fn grant(
        &self,
        answer: &Record,
        (jws, claims): (&Jws<'_>, &GrantClaims),
        asked: Option<&AskedOf>,
        state: &mut PartitionState,
        said: &mut AuditAnswer,
        traces: &mut Traces,
    ) -> Result<Effect, Effect> {
        let scales = self.scales();
        let signed = scales.verify(claims, jws, said)?;
        let (asked, About { source, entry, pending }) = Self::held(&claims.challenge, asked, state)?;
        let pending = scales.weigh(&signed, answer, asked, &pending, &state.holds)?;
        traces.told.push(asked.standing(&pending, self.moment.now));
        hold(source, entry, pending, state, traces);
        Ok(Effect::COUNTED)
    }

    /// A fresh Txn-Token of the held record's transaction: verified, and what the challenge asks for.
    fn login(
        &self,
        (token, jws): (&[u8], &Jws<'_>),
        asked: &AskedOf,
        pending: &Pending,
        draft: &mut Draft,
        said: &mut AuditAnswer,
    ) -> Result<Transaction, Effect> {
        let challenge = &asked.challenge;
        let sender = WorkloadId::parse(&challenge.sender).map_err(|_| damaged(challenge))?;
        let domain = sender.trust_domain();
        let fresh = Transaction::read(jws.payload(), domain.clone(), token_hash(token))
            .map_err(|error| Effect::none("malformed", format!("the `txn-token` {error}")))?;
        let (Some(transaction), Some(subject)) = (&challenge.transaction, &challenge.subject) else {
            return Err(Effect::none(
                "invalid",
                "the held record has no `txn-token` whose login it could be",
            ));
        };
        let scales = self.scales();
        let judge = scales.judge();
        judge
            .check_login(&fresh, jws, &Whose { domain, transaction, subject })
            .map_err(|problem| Effect::none("invalid", problem))?;
        draft.transaction(Some(&fresh));
        said.jti.clone_from(&fresh.jti);
        judge.meets(&fresh, challenge, pending.asked_at)?;
        Ok(fresh)
    }
}

/// What an audit record says of an answer of which nothing is known yet.
pub(super) fn unsaid(answer: &Record) -> AuditAnswer {
    let offset = Some(answer.source.offset.0);
    AuditAnswer { effect: String::new(), approver: None, decision: None, jti: None, offset }
}

/// What answers are weighed by.
pub(super) struct Scales<'a> {
    pub(super) gate: &'a Gate,
    pub(super) route: &'a Route,
    pub(super) moment: &'a Moment<'a>,
}

impl Scales<'_> {
    fn judge(&self) -> Judge<'_> {
        Judge {
            gate: self.gate,
            snapshot: self.moment.snapshot,
            now: self.moment.now,
            skew_s: self.route.skew_s,
        }
    }

    /// Whose answer it is, and says so.
    pub(super) fn verify<'c>(
        &'c self,
        claims: &'c GrantClaims,
        jws: &Jws<'_>,
        said: &mut AuditAnswer,
    ) -> Result<Signed<'c>, Effect> {
        let signed = self.judge().verify(claims, jws)?;
        said.approver = Some(signed.approver.clone());
        said.decision = Some(claims.decision.as_str().to_owned());
        said.jti = Some(claims.jti.clone());
        Ok(signed)
    }

    /// What waits for answers, with this one counted.
    pub(super) fn weigh(
        &self,
        signed: &Signed<'_>,
        answer: &Record,
        asked: &AskedOf,
        pending: &Pending,
        holds: &Holds,
    ) -> Result<Pending, Effect> {
        let taken_at = accepted(answer, self.route, self.moment.now);
        let held = Held::of(&asked.challenge).ok_or_else(|| damaged(&asked.challenge))?;
        let taken = self.judge().count(signed, &held.about(asked, pending), taken_at, holds)?;
        let fresh = self.fresh(pending, &taken, taken_at, holds)?;
        Ok(self.counted(fresh, taken, signed.decision(), holds))
    }

    /// What the answer adds to, if it comes in time, from somebody who has no answer standing.
    fn fresh(
        &self,
        pending: &Pending,
        taken: &Taken,
        taken_at: UnixMillis,
        holds: &Holds,
    ) -> Result<Pending, Effect> {
        let (decision, approver) = (&taken.counted.decision, &taken.counted.approver);
        let of_approver = |other: &&Taken| other.counted.approver == *approver;
        let good = pending.approved(self.moment.now, self.route.skew_s, holds).find(of_approver);
        let refused =
            (pending.status == Status::Refused).then(|| pending.answers.iter().find(of_approver)).flatten();
        if let Some(before) = refused.or(good) {
            return Err(match before.counted.decision == *decision {
                true => Effect::none("second", "this approver has answered so before"),
                false => Effect::none("contradictory", "this approver has answered otherwise before"),
            });
        }
        let settled = match pending.status {
            Status::Refused => Some(Verdict::Refuse),
            Status::Approved => Some(Verdict::Approve),
            _ => None,
        };
        if settled.is_some_and(|settled| settled.as_str() != decision) {
            return Err(Effect::none("contradictory", "others have settled it otherwise"));
        }
        if settled.is_some() || taken_at >= pending.until {
            return Err(Effect::none("late", "the challenge was settled, or had ended, when it was taken"));
        }
        let skew_ms = i64::from(self.route.skew_s) * 1000;
        if self.moment.now.0 > taken.counted.grant_until.saturating_add(skew_ms) {
            return Err(Unfit::Invalid("its grant has run out").into());
        }
        // An answer of this approver that has run out makes room for the new one.
        let mut pending = pending.clone();
        pending.answers.retain(|other| !of_approver(&other));
        Ok(pending)
    }

    fn counted(&self, mut pending: Pending, taken: Taken, decision: Verdict, holds: &Holds) -> Pending {
        pending.answers.push(taken);
        let approved = pending.approved(self.moment.now, self.route.skew_s, holds).count();
        let enough = usize::try_from(pending.approvals).is_ok_and(|needed| needed > 0 && approved >= needed);
        pending.status = match decision {
            Verdict::Refuse => Status::Refused,
            Verdict::Approve if enough => Status::Approved,
            Verdict::Approve => Status::Open,
        };
        pending
    }
}

/// The challenge as it stands with a fresh login, if that comes in time and is newer than one that was taken before.
fn refreshed(
    mut pending: Pending,
    token: &[u8],
    fresh: Transaction,
    taken_at: UnixMillis,
) -> Result<Pending, Effect> {
    if let Some(before) = &pending.login {
        if before.is(token) {
            return Err(Effect::none("second", "this login has been taken before"));
        }
        if fresh.issued_at < before.issued_at {
            return Err(Effect::none("second", "a login that is newer has been taken before"));
        }
    }
    if pending.status == Status::Refused || taken_at >= pending.until {
        return Err(Effect::none("late", "the challenge was settled, or had ended, when it was taken"));
    }
    let login = FreshLogin::new(token, fresh.issued_at);
    pending.login = Some(Box::new(login.ok_or_else(|| Effect::none("malformed", "the answer is no text"))?));
    Ok(pending)
}

/// Writes down how the record is held from now on.
fn hold(source: Offset, entry: Entry, pending: Pending, state: &mut PartitionState, traces: &mut Traces) {
    let entry = Entry { wait: Wait::Answers(Box::new(pending)), ..entry };
    traces.kept.push(Keep::State(source, Some(entry.clone())));
    state.holds.put(source, entry);
}

/// A challenge whose sender is none, which no gate publishes.
fn damaged(challenge: &Challenge) -> Effect {
    Effect::stray(&format!("the challenge {} cannot be read", challenge.id))
}

/// What was asked, as the policies about answers look at it.
pub(super) struct Held {
    pub(super) sender: WorkloadId,
    pub(super) senders: Vec<WorkloadId>,
    pub(super) subject: Option<SubjectId>,
    pub(super) action: crate::authorize::request::Action,
    pub(super) resource: crate::authorize::request::Resource,
    pub(super) workflow: Option<crate::authorize::request::Workflow>,
    /// The names of the step-ups, sorted.
    pub(super) names: Vec<String>,
}

impl Held {
    /// `None` where a sender's identifier is none, which no gate publishes.
    pub(super) fn of(challenge: &Challenge) -> Option<Self> {
        let senders = challenge.chain.iter().map(|sender| WorkloadId::parse(sender));
        Some(Self {
            sender: WorkloadId::parse(&challenge.sender).ok()?,
            senders: senders.collect::<Result<_, _>>().ok()?,
            subject: challenge.subject.as_deref().map(SubjectId::known),
            action: action_of(&challenge.action),
            resource: resource_of(&challenge.resource),
            workflow: challenge.workflow.as_ref().map(workflow_of),
            names: names_of(challenge),
        })
    }

    fn about<'a>(&'a self, asked: &'a AskedOf, pending: &Pending) -> grant::About<'a> {
        let challenge = &asked.challenge;
        grant::About {
            challenge: &challenge.id,
            digest: &challenge.digest,
            route: &challenge.route,
            step_ups: &self.names,
            asked_at: Some(pending.asked_at),
            hold_until: Some(pending.until),
            approvals: pending.approvals,
            grant_s: challenge.step_ups.iter().map(|ask| i64::from(ask.grant_s)).min().unwrap_or(0),
            sender: &self.sender,
            subject: self.subject.as_ref(),
            senders: &self.senders,
            action: &self.action,
            resource: &self.resource,
            workflow: self.workflow.as_ref(),
            value: asked.value.as_ref(),
        }
    }
}

/// A reminder: the challenge again, with the reminder counted. `None` where none is due any more.
pub(in crate::authorize) fn remind(
    payload: &Payload,
    now: UnixMillis,
    state: &mut PartitionState,
) -> Option<Traces> {
    let source = payload.record.source.offset;
    let entry = state.holds.get(source)?.clone();
    let Wait::Answers(mut pending) = entry.wait else { return None };
    let reminders = pending.reminders_by(now);
    if pending.status != Status::Open || reminders == pending.reminders {
        return None;
    }
    pending.reminders = reminders;
    let challenge = payload.asked.as_ref()?.standing(&pending, now);
    let entry = Entry { wait: Wait::Answers(pending), ..entry };
    let kept = vec![Keep::State(source, Some(entry.clone()))];
    state.holds.put(source, entry);
    Some(Traces { kept, told: vec![challenge] })
}
