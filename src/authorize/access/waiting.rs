//! An evaluation that only step-ups stand in the way of: what somebody is asked about it, and how it ends by the answers that
//! the desk has taken in. Limits: it was decided at its own moment; what the docket adds is whether enough have approved.

use super::{Asking, Evaluated, Reply};
use crate::authorize::decision::{Denial, Reason};
use crate::authorize::draft::Draft;
use crate::authorize::policy::Conditional;
use crate::authorize::step_up::docket::Granted;
use crate::authorize::step_up::wish::Wish;
use crate::authorize::step_up::{Challenge, Docket};

/// An evaluation that somebody could agree to.
#[derive(Debug)]
pub struct Waiting {
    draft: Draft,
    denial: Denial,
    asking: Asking,
    wish: Wish,
    conditional: Conditional,
}

impl Waiting {
    pub(super) fn new(
        draft: &Draft,
        denial: &Denial,
        asking: &Asking,
        wish: Wish,
        conditional: Conditional,
    ) -> Self {
        Self { draft: draft.clone(), denial: denial.clone(), asking: asking.clone(), wish, conditional }
    }

    /// How it ends, by what was asked and answered before: with the challenge where that has changed. `None` where nobody can be
    /// asked, because too many wait.
    fn settle(self, docket: &mut Docket) -> Option<(Evaluated, Option<Challenge>)> {
        let Self { mut draft, mut denial, asking, wish, conditional } = self;
        let (decision, digest) = (wish.decision.to_string(), wish.digest.to_string());
        match docket.grant(wish, conditional) {
            Granted::Full => None,
            Granted::Allowed { allowed, challenge, approvers, discharged } => {
                draft.challenge(Some(challenge.id.clone()));
                draft.approvers(approvers);
                draft.discharged(&discharged);
                draft.permitted(allowed.policies());
                let audit = draft.answered(&Ok(allowed));
                let reply = Reply::allow(decision);
                Some((Evaluated { denied: None, reply, audit, waiting: None }, Some(*challenge)))
            }
            Granted::Asked { challenge, until, told } => {
                draft.held(challenge.clone(), until);
                let asking = Asking { challenge: Some(challenge), digest: Some(digest), ..asking };
                let reply = Reply::deny(decision, &denial, Some(asking));
                let denied = Some(denial.reason);
                let audit = draft.answered(&Err(denial));
                Some((Evaluated { denied, reply, audit, waiting: None }, told.map(|told| *told)))
            }
            Granted::Refused { challenge, approvers } => {
                draft.challenge(Some(challenge));
                draft.approvers(approvers);
                denial = Denial::new(Reason::StepUpRefused, "an approver has refused it");
                let reply = Reply::deny(decision, &denial, None);
                let denied = Some(denial.reason);
                Some((Evaluated { denied, reply, audit: draft.answered(&Err(denial)), waiting: None }, None))
            }
        }
    }
}

impl Evaluated {
    /// The same by what was asked of people and answered before: with the challenge where that has changed.
    pub fn settle(mut self, docket: &mut Docket) -> (Self, Option<Challenge>) {
        let settled = self.waiting.take().and_then(|waiting| waiting.settle(docket));
        settled.unwrap_or((self, None))
    }
}
