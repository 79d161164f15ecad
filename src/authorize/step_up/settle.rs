//! What becomes of a record that the policies were asked about: it goes on, it is held, it waits behind another, or it is
//! denied (contract, section 7). Limits: it says what; the engine signs what goes on, and `conclude` keeps the books.

use super::Turn;
use super::ask::{Place, Question, approvals, digest, grant_s, names, names_of};
use super::challenge::{Asker, ChallengeId, Status};
use super::discharge::Discharged;
use super::entry::{Entry, Hash16, Pending, Taken, Wait};
use super::grant::{About, Judge};
use super::kept::{AskedOf, Payload};
use super::login::FreshLogin;
use crate::authorize::case::Case;
use crate::authorize::context::Claimed;
use crate::authorize::decision::{Denial, Reason};
use crate::authorize::engine::Moment;
use crate::authorize::ids::{Digest, UnixMillis};
use crate::authorize::policy::{Allowed, Answer, Conditional};
use crate::authorize::record::Record;
use crate::authorize::route::{Gate, Holding, Order};
use crate::authorize::state::PartitionState;

/// A held record that is decided again.
#[derive(Debug, Clone)]
pub(in crate::authorize) struct Resumed<'a> {
    pub(super) payload: &'a Payload,
    pub(super) entry: Entry,
    pub(super) turn: Turn,
}

impl<'a> Resumed<'a> {
    /// The held record of that payload; `None` where it is held no more, or where its turn has nothing to decide.
    pub(in crate::authorize) fn of(payload: &'a Payload, turn: Turn, state: &PartitionState) -> Option<Self> {
        let entry = state.holds.get(payload.record.source.offset)?.clone();
        let idle = match turn {
            Turn::Decide => entry.pending().is_some_and(|pending| !pending.is_due()),
            Turn::TimedOut => entry.pending().is_none(),
            Turn::Remind => true,
        };
        (!idle).then_some(Self { payload, entry, turn })
    }

    /// *E*, which the hold has kept.
    pub(in crate::authorize) fn accepted(&self) -> UnixMillis {
        self.payload.accepted
    }
}

/// What becomes of a record that is not denied.
#[derive(Debug)]
pub(in crate::authorize) enum Settled {
    /// It goes on.
    Allowed(Allowed),
    /// It is held, or held on.
    Hold,
    /// It waits behind others of its key.
    Wait,
}

/// One record on its way through this stage.
#[derive(Debug)]
pub(in crate::authorize) struct Settling<'a> {
    pub(super) gate: &'a Gate,
    pub(super) moment: &'a Moment<'a>,
    pub(super) resumed: Option<Resumed<'a>>,
    /// How it is held from now on, if it is.
    pub(super) entry: Option<Entry>,
    /// What is asked anew.
    pub(super) asked: Option<AskedOf>,
    /// *E* as it was verified.
    pub(super) accepted: UnixMillis,
    /// The grant that the sender brought, once it counts.
    pub(super) brought: Option<(String, Taken)>,
    /// The policies whose step-ups were discharged.
    pub(super) discharged: Vec<String>,
    /// The login that was refreshed, where it still holds.
    pub(super) login: Option<Box<FreshLogin>>,
}

/// What is known about one record at this stage.
#[derive(Clone, Copy)]
struct Matter<'a> {
    record: &'a Record,
    case: &'a Case<'a>,
    claimed: &'a Claimed<'a>,
}

impl<'a> Settling<'a> {
    pub(in crate::authorize) fn new(
        gate: &'a Gate,
        moment: &'a Moment<'a>,
        resumed: Option<Resumed<'a>>,
    ) -> Self {
        let accepted = moment.now;
        let (entry, asked, brought, discharged) = (None, None, None, Vec::new());
        Self { gate, moment, resumed, entry, asked, accepted, brought, discharged, login: None }
    }

    /// Settles what the policies' answer comes to.
    ///
    /// # Errors
    /// The answer's own denial; `step_up_invalid`, `step_up_refused`, `step_up_timed_out`, or `step_up_required` where the
    /// route does not hold or too many wait already.
    pub(in crate::authorize) fn settle(
        &mut self,
        record: &Record,
        case: &Case<'_>,
        claimed: &Claimed<'_>,
        answer: Answer,
        state: &PartitionState,
    ) -> Result<Settled, Denial> {
        let Answer { verdict, conditional, .. } = answer;
        self.accepted = case.verified.accepted;
        let matter = Matter { record, case, claimed };
        let asked = match (verdict, conditional) {
            (Ok(allowed), _) => Ok(allowed),
            (Err(denial), Some(conditional)) => Err((denial, conditional)),
            (Err(denial), None) => return Err(denial),
        };
        let resumed = self.resumed.clone();
        match resumed.as_ref().and_then(|resumed| Some((resumed, resumed.entry.pending()?))) {
            Some((resumed, pending)) => self.again(&matter, asked, (resumed, pending), state),
            None => self.first(&matter, asked, state),
        }
    }

    /// A record that nothing was asked about yet.
    fn first(
        &mut self,
        matter: &Matter<'_>,
        asked: Result<Allowed, (Denial, Conditional)>,
        state: &PartitionState,
    ) -> Result<Settled, Denial> {
        let route = matter.case.route;
        let key = route.holding.as_ref().and_then(|holding| queue_key(holding, matter.record));
        if let (None, Some(key), Some(holding)) = (&self.resumed, key, &route.holding) {
            let (held, waiting) = state.holds.queued(key);
            if held > 0 && waiting >= holding.max_waiting {
                let detail = format!("{waiting} records wait already behind a held one of this key");
                return Err(Denial::new(Reason::StepUpRequired, detail));
            }
            if held > 0 {
                self.entry = Some(Entry { payload: None, key: Some(key), wait: Wait::Others });
                return Ok(Settled::Wait);
            }
        }
        let (denial, conditional) = match asked {
            Ok(allowed) => return Ok(Settled::Allowed(allowed)),
            Err(asked) => asked,
        };
        // Without a holds topic a grant could not be marked as used, so none counts.
        let Some(holding) = &route.holding else { return Err(denial) };
        let names = names(conditional.step_ups());
        let digest = digest(matter.case, &names)?;
        let mut answers = Vec::new();
        let mut conditional = conditional;
        if let Some((challenge, taken)) = self.bring(matter, &conditional, holding, digest, state)? {
            let discharged = Discharged::by_grant(&taken, &names);
            self.brought = Some((challenge, taken.clone()));
            let asked: Vec<_> = conditional.step_ups().iter().map(|ask| ask.policy.clone()).collect();
            match conditional.discharge(&discharged) {
                Ok(allowed) => {
                    self.discharged = asked;
                    return Ok(Settled::Allowed(allowed));
                }
                Err(still) => conditional = still,
            }
            answers.push(taken);
        }
        self.ask(matter, &conditional, holding, digest, key, answers);
        Ok(Settled::Hold)
    }

    /// A record whose challenge was answered, or is out of time.
    fn again(
        &mut self,
        matter: &Matter<'_>,
        asked: Result<Allowed, (Denial, Conditional)>,
        (resumed, pending): (&Resumed<'_>, &Pending),
        state: &PartitionState,
    ) -> Result<Settled, Denial> {
        if pending.status == Status::Refused {
            return Err(Denial::new(Reason::StepUpRefused, "an approver has refused it"));
        }
        // A login that came in time is decided by first.
        if resumed.turn == Turn::TimedOut && !pending.is_due() {
            return Err(Denial::new(Reason::StepUpTimedOut, "what was asked had not been answered in time"));
        }
        let (denial, conditional) = match asked {
            Ok(allowed) => return Ok(Settled::Allowed(allowed)),
            Err(asked) => asked,
        };
        let (route, skew_s) = (matter.case.route, matter.case.route.skew_s);
        let Some(holding) = &route.holding else { return Err(denial) };
        let before = resumed.payload.asked.as_ref();
        let agreed = before.map(|asked| names_of(&asked.challenge)).unwrap_or_default();
        let names = names(conditional.step_ups());
        // The digest binds an answer to the step-ups that were asked for then; the request itself must be the same still.
        let same = digest(matter.case, &agreed)?.to_string();
        let fits = before.is_some_and(|asked| asked.challenge.digest == same)
            && names.iter().all(|name| agreed.contains(name));
        let key = resumed.entry.key;
        if !fits {
            let digest = digest(matter.case, &names)?;
            self.ask(matter, &conditional, holding, digest, key, Vec::new());
            return Ok(Settled::Hold);
        }
        let policies: Vec<_> = conditional.step_ups().iter().map(|ask| ask.policy.clone()).collect();
        let discharged = Discharged::by(pending, &agreed, self.moment.now, skew_s, &state.holds);
        match conditional.discharge(&discharged) {
            Ok(allowed) => {
                self.discharged = policies;
                Ok(Settled::Allowed(allowed))
            }
            // Grants have run out or were used since, or more must approve now: it waits on, as long as it was to wait.
            Err(conditional) => {
                let approvals = approvals(conditional.step_ups());
                let login = self.login.clone();
                let pending = Pending { status: Status::Open, approvals, login, ..pending.clone() };
                self.entry = Some(Entry { wait: Wait::Answers(Box::new(pending)), ..resumed.entry.clone() });
                Ok(Settled::Hold)
            }
        }
    }

    /// The grant that the sender brought, if it brought one; a bad one is never ignored.
    fn bring(
        &self,
        matter: &Matter<'_>,
        conditional: &Conditional,
        holding: &Holding,
        digest: Digest,
        state: &PartitionState,
    ) -> Result<Option<(String, Taken)>, Denial> {
        let Some(presented) = &matter.claimed.grant else { return Ok(None) };
        let invalid = |detail: &str| {
            Denial::new(Reason::StepUpInvalid, format!("the `step-up-grant` does not hold: {detail}"))
        };
        let (case, claims) = (matter.case, &presented.claims);
        let judge = self.judge(case.route.skew_s);
        let signed = judge.verify(claims, &presented.jws).map_err(|unfit| invalid(&unfit.detail()))?;
        let source = &matter.record.source;
        let of_here =
            ChallengeId::parse(&claims.challenge).is_some_and(|id| id.is_of(&source.topic, source.partition));
        if !of_here {
            return Err(invalid("its challenge is of another partition"));
        }
        if claims.decision != crate::authorize::claims::Verdict::Approve {
            return Err(invalid("it refuses"));
        }
        let (digest, step_ups) = (digest.to_string(), conditional.step_ups());
        let names = names(step_ups);
        let about = About {
            challenge: &claims.challenge,
            digest: &digest,
            route: &case.route.name,
            step_ups: &names,
            asked_at: None,
            hold_until: None,
            approvals: approvals(step_ups),
            grant_s: step_ups.iter().map(|ask| grant_s(ask, holding)).min().unwrap_or(0),
            sender: &case.verified.sender,
            subject: case.subject,
            senders: &case.chain.senders,
            action: &case.request.action,
            resource: &case.request.resource,
            workflow: case.request.workflow.as_ref(),
            value: case.request.value.as_ref(),
        };
        let taken = judge
            .count(&signed, &about, case.verified.accepted, &state.holds)
            .map_err(|unfit| invalid(&unfit.detail()))?;
        let skew_ms = i64::from(case.route.skew_s) * 1000;
        if self.moment.now.0 > taken.counted.grant_until.saturating_add(skew_ms) {
            return Err(invalid("it has run out"));
        }
        Ok(Some((claims.challenge.clone(), taken)))
    }

    pub(super) fn judge(&self, skew_s: u32) -> Judge<'a> {
        Judge { gate: self.gate, snapshot: self.moment.snapshot, now: self.moment.now, skew_s }
    }

    /// Asks: a challenge, and the entry that waits for its answers.
    fn ask(
        &mut self,
        matter: &Matter<'_>,
        conditional: &Conditional,
        holding: &Holding,
        digest: Digest,
        key: Option<Hash16>,
        answers: Vec<Taken>,
    ) {
        let source = &matter.record.source;
        let asker = Asker::Lane(source.topic.clone());
        let question = Question {
            gate: self.gate,
            moment: self.moment,
            case: matter.case,
            step_ups: conditional.step_ups(),
            holding,
            digest,
        };
        let pending = Pending { login: self.login.clone(), ..question.pending(answers) };
        let place = Place {
            id: ChallengeId { asker, partition: source.partition, decision: self.moment.id },
            topic: source.topic.to_string(),
            offset: source.offset.0,
        };
        let challenge = question.challenge(&pending, &place);
        let value = matter.case.request.value.clone();
        self.asked = Some(AskedOf { challenge, value });
        self.entry = Some(Entry { payload: None, key, wait: Wait::Answers(Box::new(pending)) });
    }
}

/// The queue that a record stands in, if its route keeps the order of keys.
fn queue_key(holding: &Holding, record: &Record) -> Option<Hash16> {
    match holding.order {
        Order::None => None,
        Order::Key => record.key.as_deref().map(Hash16::of_key),
    }
}
