//! The challenges that one desk has asked over HTTP, each for one request and one use: a table that is asked, answered, timed
//! and ended, and tells each change. Limits: pure, and in memory alone: with the desk's tree it is gone, and with it every
//! approval. What a batch changes can be taken back until it is settled.

use std::collections::{BTreeMap, BTreeSet, HashMap};

use uuid::Uuid;

use super::ask::{approvals, names_of};
use super::challenge::{Asker, Challenge, ChallengeId, Status};
use super::discharge::Discharged;
use super::entry::Pending;
use super::holds::Holds;
use super::kept::AskedOf;
use super::said::{self, Said};
use super::taking::{self, Effect, Scales};
use super::wish::Wish;
use crate::authorize::audit::{AuditAnswer, AuditRecord};
use crate::authorize::claims::GrantClaims;
use crate::authorize::decision::Reason;
use crate::authorize::digests::Hashes;
use crate::authorize::draft::Draft;
use crate::authorize::engine::{Decision, Moment};
use crate::authorize::ids::{Digest, Partition, UnixMillis};
use crate::authorize::jose::{Jws, TokenKind};
use crate::authorize::limits::{MAX_CHALLENGES, MAX_CHALLENGES_OF_CALLER};
use crate::authorize::policy::{Allowed, Conditional};
use crate::authorize::record::Record;
use crate::authorize::route::{Gate, Route};

/// What comes of a wish.
#[derive(Debug)]
pub(in crate::authorize) enum Granted {
    /// It is allowed, and what was agreed to is used up.
    Allowed { allowed: Allowed, challenge: Box<Challenge>, approvers: Vec<String>, discharged: Vec<String> },
    /// It waits for answers; `told` where that is news.
    Asked { challenge: String, until: UnixMillis, told: Option<Box<Challenge>> },
    /// Somebody who may has refused.
    Refused { challenge: String, approvers: Vec<String> },
    /// Too many wait already, of this caller or of all.
    Full,
}

/// The open challenges of one desk, and those that were refused, until their time is over.
#[derive(Debug)]
pub struct Docket {
    desk: Uuid,
    partition: Partition,
    matters: BTreeMap<Digest, Matter>,
    named: HashMap<Uuid, Digest>,
    callers: HashMap<String, usize>,
    reminders: BTreeSet<(UnixMillis, Digest)>,
    ends: BTreeSet<(UnixMillis, Digest)>,
    /// What was there before each change since the last that was settled.
    before: Vec<(Digest, Option<Matter>)>,
    most: usize,
    most_of_caller: usize,
    /// No grant is spent here: each names its challenge, which is used once.
    none_spent: Holds,
}

#[derive(Debug, Clone)]
struct Matter {
    asked: AskedOf,
    pending: Pending,
    skew_s: u32,
}

impl Matter {
    fn standing(&self, now: UnixMillis) -> Challenge {
        self.asked.standing(&self.pending, now)
    }

    fn ended(&self, status: Status, decision: Option<String>, now: UnixMillis) -> Challenge {
        let reason = match status {
            Status::Refused => Some(Reason::StepUpRefused),
            Status::Expired => Some(Reason::StepUpTimedOut),
            _ => None,
        };
        let reason = reason.map(|reason| reason.as_str().to_owned());
        Challenge { status, decision_id: decision, reason, ..self.standing(now) }
    }

    /// When it leaves: an approval may be used as long as it is good, however late in the hold it came.
    fn end(&self) -> UnixMillis {
        let until = self.pending.until;
        if self.pending.status != Status::Approved {
            return until;
        }
        let good_until = self.pending.answers.iter().map(|taken| taken.counted.grant_until).min();
        let skew_ms = i64::from(self.skew_s) * 1000;
        until.max(UnixMillis(good_until.map_or(i64::MIN, |until| until.saturating_add(skew_ms))))
    }

    fn reminder(&self) -> Option<UnixMillis> {
        self.pending.next_reminder().filter(|_| self.pending.status == Status::Open)
    }

    fn approvers(&self) -> Vec<String> {
        self.pending.answers.iter().map(|taken| taken.counted.approver.clone()).collect()
    }
}

impl Docket {
    /// Of the desk of that id, whose answers are read in that partition. Nothing is asked yet.
    pub fn new(desk: Uuid, partition: Partition) -> Self {
        Self::bounded(desk, partition, MAX_CHALLENGES, MAX_CHALLENGES_OF_CALLER)
    }

    pub(in crate::authorize) fn bounded(
        desk: Uuid,
        partition: Partition,
        most: usize,
        most_of_caller: usize,
    ) -> Self {
        Self {
            desk,
            partition,
            matters: BTreeMap::new(),
            named: HashMap::new(),
            callers: HashMap::new(),
            reminders: BTreeSet::new(),
            ends: BTreeSet::new(),
            before: Vec::new(),
            most,
            most_of_caller,
            none_spent: Holds::default(),
        }
    }

    /// How many there are.
    pub fn len(&self) -> usize {
        self.matters.len()
    }

    /// Whether there are none.
    pub fn is_empty(&self) -> bool {
        self.matters.is_empty()
    }

    /// What has changed from here on can be taken back by [`Docket::undo`].
    pub fn mark(&self) -> usize {
        self.before.len()
    }

    /// Takes back what has changed since that mark.
    pub fn undo(&mut self, mark: usize) {
        while self.before.len() > mark {
            let Some((digest, before)) = self.before.pop() else { return };
            self.replace(digest, before);
        }
    }

    /// What has changed is committed, and stays.
    pub fn settle(&mut self) {
        self.before.clear();
    }

    /// Decides what comes of a wish: the first of its kind is asked; later ones wait for its answers; once enough have approved,
    /// and as long as that is good, one is allowed, and the next is asked anew.
    pub(in crate::authorize) fn grant(&mut self, wish: Wish, conditional: Conditional) -> Granted {
        let Some(matter) = self.matters.get(&wish.digest) else { return self.ask(wish) };
        let (now, id) = (wish.now, matter.asked.challenge.id.clone());
        match matter.pending.status {
            // Its time is over; that it was refused has been told.
            Status::Refused if now >= matter.pending.until => {
                self.put(wish.digest, None);
                self.ask(wish)
            }
            Status::Refused => Granted::Refused { challenge: id, approvers: matter.approvers() },
            Status::Approved => {
                let mut matter = matter.clone();
                let policies = conditional.step_ups().iter().map(|ask| ask.policy.clone()).collect();
                let names = names_of(&matter.asked.challenge);
                let pending = &matter.pending;
                let discharged = Discharged::by(pending, &names, now, wish.skew_s, &self.none_spent);
                let good = pending.approved(now, wish.skew_s, &self.none_spent);
                let approvers = good.map(|taken| taken.counted.approver.clone()).collect();
                match conditional.discharge(&discharged) {
                    Ok(allowed) => {
                        let decision = Some(wish.decision.to_string());
                        let challenge = Box::new(matter.ended(Status::Released, decision, now));
                        self.put(wish.digest, None);
                        Granted::Allowed { allowed, challenge, approvers, discharged: policies }
                    }
                    // Grants have run out, or more must approve now: it waits on.
                    Err(conditional) => {
                        matter.pending.status = Status::Open;
                        matter.pending.approvals = approvals(conditional.step_ups());
                        let told = Some(Box::new(matter.standing(now)));
                        let until = matter.pending.until;
                        self.put(wish.digest, Some(matter));
                        Granted::Asked { challenge: id, until, told }
                    }
                }
            }
            _ => Granted::Asked { challenge: id, until: matter.pending.until, told: None },
        }
    }

    fn ask(&mut self, wish: Wish) -> Granted {
        let of_caller = self.callers.get(&wish.challenge.sender).copied().unwrap_or_default();
        if self.matters.len() >= self.most || of_caller >= self.most_of_caller {
            return Granted::Full;
        }
        let (asker, partition) = (Asker::Desk(self.desk), self.partition);
        let id = ChallengeId { asker, partition, decision: wish.decision }.to_string();
        let challenge = Challenge { id: id.clone(), partition: partition.0, ..wish.challenge };
        let until = wish.pending.until;
        let told = Some(Box::new(challenge.clone()));
        let asked = AskedOf { challenge, value: None };
        self.put(wish.digest, Some(Matter { asked, pending: wish.pending, skew_s: wish.skew_s }));
        Granted::Asked { challenge: id, until, told }
    }

    /// Takes in an answer: its audit record, and the challenge where that has changed. `None` where it names no desk, or
    /// another: whoever was asked takes it in.
    pub fn take(
        &mut self,
        gate: &Gate,
        route: &Route,
        answer: &Record,
        moment: &Moment<'_>,
    ) -> Option<(AuditRecord, Option<Challenge>)> {
        let id = said::named(answer).filter(|id| id.asker == Asker::Desk(self.desk))?;
        let mut draft = Draft::new(gate, route, answer, &Hashes::of(answer), moment);
        let read = Said::read(answer);
        draft.answered_over_http(answer, read.as_ref().map_or(TokenKind::StepUpGrant, Said::kind));
        let mut said = taking::unsaid(answer);
        let digest = self.named.get(&id.decision.0).copied();
        let matter = digest.and_then(|digest| Some((digest, self.matters.get(&digest)?.clone())));
        if let Some((_, matter)) = &matter {
            draft.of_challenge(&matter.asked.challenge);
        }
        let scales = Scales { gate, route, moment };
        let weighed = match &read {
            Ok(Said::Grant { jws, claims }) => {
                self.weigh(&scales, answer, (jws, claims), &id, matter, &mut said)
            }
            // Whoever has logged in anew asks anew, with that token.
            Ok(Said::Login { .. }) => {
                Err(Effect::none("invalid", "over HTTP a fresh `txn-token` comes with the next request"))
            }
            Err(problem) => Err(Effect::none("malformed", problem.clone())),
        };
        let (effect, changed) = match weighed {
            Ok((digest, matter)) => (Effect::COUNTED, Some((digest, matter))),
            Err(effect) => (effect, None),
        };
        let told = changed.map(|(digest, matter)| {
            let told = match matter.pending.status {
                Status::Refused => matter.ended(Status::Refused, Some(moment.id.to_string()), moment.now),
                _ => matter.standing(moment.now),
            };
            self.put(digest, Some(matter));
            told
        });
        effect.audit(said, &mut draft);
        Some((draft.finish(&Decision::Answer), told))
    }

    fn weigh(
        &self,
        scales: &Scales<'_>,
        answer: &Record,
        (jws, claims): (&Jws<'_>, &GrantClaims),
        id: &ChallengeId,
        matter: Option<(Digest, Matter)>,
        said: &mut AuditAnswer,
    ) -> Result<(Digest, Matter), Effect> {
        let signed = scales.verify(claims, jws, said)?;
        let stray = || Effect::stray("nothing waits here for this challenge, or nothing any more");
        let is_it = |(_, matter): &(Digest, Matter)| matter.asked.challenge.id == id.to_string();
        let (digest, mut matter) = matter.filter(is_it).ok_or_else(stray)?;
        // Approvals that have run out make room for new ones.
        let (pending, moment) = (&mut matter.pending, scales.moment);
        let good = pending.approved(moment.now, scales.route.skew_s, &self.none_spent).count();
        if pending.status == Status::Approved
            && good < usize::try_from(pending.approvals).unwrap_or(usize::MAX)
        {
            pending.status = Status::Open;
        }
        matter.pending = scales.weigh(&signed, answer, &matter.asked, &matter.pending, &self.none_spent)?;
        Ok((digest, matter))
    }

    /// What is due: reminders by `now`, and ends that lie before `answered`, the moment up to which every answer was taken in.
    /// At most so many.
    pub fn tick(&mut self, now: UnixMillis, answered: UnixMillis, limit: usize) -> Vec<Challenge> {
        let mut told = Vec::new();
        while let Some((at, digest)) = self.ends.first().copied()
            && at < answered
            && told.len() < limit
        {
            told.extend(self.matters.get(&digest).and_then(|matter| expired(matter, now)));
            self.put(digest, None);
        }
        while let Some((at, digest)) = self.reminders.first().copied()
            && at <= now
            && told.len() < limit
        {
            let Some(mut matter) = self.matters.get(&digest).cloned() else { break };
            matter.pending.reminders = matter.pending.reminders_by(now);
            told.push(matter.standing(now));
            self.put(digest, Some(matter));
        }
        told
    }

    /// The first moment at which one ends, unless something else happens.
    pub fn next_end(&self) -> Option<UnixMillis> {
        self.ends.first().map(|(at, _)| *at)
    }

    /// Ends all of them, since the desk ends: the last state of each that has none.
    pub fn close(&mut self, now: UnixMillis) -> Vec<Challenge> {
        let told = self.matters.values().filter_map(|matter| expired(matter, now)).collect();
        *self = Self::bounded(self.desk, self.partition, self.most, self.most_of_caller);
        told
    }

    fn put(&mut self, digest: Digest, matter: Option<Matter>) {
        let before = self.replace(digest, matter);
        self.before.push((digest, before));
    }

    /// INVARIANT: the indexes say what the matters do.
    fn replace(&mut self, digest: Digest, matter: Option<Matter>) -> Option<Matter> {
        let before = self.matters.remove(&digest);
        if let Some(before) = &before {
            self.named.remove(&before.pending.challenge);
            self.ends.remove(&(before.end(), digest));
            if let Some(at) = before.reminder() {
                self.reminders.remove(&(at, digest));
            }
            let sender = &before.asked.challenge.sender;
            if let Some(count) = self.callers.get_mut(sender) {
                *count -= 1;
                if *count == 0 {
                    self.callers.remove(sender);
                }
            }
        }
        if let Some(matter) = matter {
            self.named.insert(matter.pending.challenge, digest);
            self.ends.insert((matter.end(), digest));
            self.reminders.extend(matter.reminder().map(|at| (at, digest)));
            *self.callers.entry(matter.asked.challenge.sender.clone()).or_default() += 1;
            self.matters.insert(digest, matter);
        }
        before
    }
}

/// The last state of one whose time is over; that it was refused has been told.
fn expired(matter: &Matter, now: UnixMillis) -> Option<Challenge> {
    (matter.pending.status != Status::Refused).then(|| matter.ended(Status::Expired, None, now))
}
