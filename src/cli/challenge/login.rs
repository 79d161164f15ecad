//! Challenges as a gate shows them to an approver who has logged in, and answers that it signs in the approver's name.
//! Limits: whom the policies let answer nothing, sees nothing; an answer carries the digest of the challenge that was shown.

use std::time::{Duration, Instant};

use serde_json::{Value, json};

use super::http::{Answer, Client, InterfaceError, PAGE, Query, Refused};
use super::shown::Shown;
use super::{Answering, ChallengeError, Judged, Wanted, confirmed, no, parsed, say, too_late};
use crate::authorize::step_up::{Challenge as Asked, ChallengeId};
use crate::cli::{Exit, Output, clock};

/// Between two looks at a challenge that is not open, and whose end is near: a gate answers these at once.
const REST: Duration = Duration::from_millis(200);

/// The interface, as the commands work with it.
pub(super) struct Desk<'d> {
    pub(super) client: Client,
    pub(super) out: &'d mut Output,
}

impl Desk<'_> {
    pub(super) fn list(&mut self, wanted: &Wanted<'_>) -> Result<Exit, ChallengeError> {
        let status = wanted.status().map_or("all", |status| status.as_str());
        let query = Query { status, route: wanted.route(), limit: PAGE };
        let out = &mut *self.out;
        self.client.list(query, |page| {
            for asked in page.into_iter().filter(|asked| wanted.is(asked)) {
                Shown::Challenge(Box::new(asked), None).write(out, false)?;
            }
            Ok::<(), ChallengeError>(())
        })?;
        Ok(Exit::Done)
    }

    pub(super) fn show(&mut self, id: &ChallengeId, until: Option<Instant>) -> Result<Exit, ChallengeError> {
        let first = match self.client.show(id, None) {
            Ok(asked) => asked,
            Err(error) => return self.refused(error),
        };
        let mut asked = first.clone();
        while let Some(until) = until
            && asked == first
            && asked.status.is_open()
            && let Some(left) = left(until)
        {
            asked = self.client.show(id, Some(left))?;
        }
        self.write(asked)?;
        Ok(Exit::Done)
    }

    pub(super) fn answer(
        &mut self,
        answering: &Answering,
        decision: &'static str,
    ) -> Result<Exit, ChallengeError> {
        if answering.signing.is_given() {
            return Err(ChallengeError::SignedTwice);
        }
        let id = parsed(&answering.id)?;
        let asked = match self.client.show(&id, None) {
            Ok(asked) => asked,
            Err(error) => return self.refused(error),
        };
        if let Some(why) = too_late(&asked, clock::now().ok_or(ChallengeError::Clock)?) {
            return no(self.out, &why, Value::Null);
        }
        if !answering.yes && !confirmed(&asked, decision)? {
            return no(self.out, "not confirmed: nothing was sent", Value::Null);
        }
        let until = answering.wait.until();
        let answer = Answer { decision, comment: answering.comment.as_deref(), digest: &asked.digest };
        let answered = match self.client.answer(&id, &answer, until.and_then(left)) {
            Ok(answered) => answered,
            Err(error) => return self.refused(error),
        };
        let at = answered.written.to_string();
        say(self.out, decision, &answering.id, &answered.answer, &at)?;
        match until {
            Some(until) => self.wait(&id, &answered.answer, answered.state, &at, until),
            None => Ok(Exit::Done),
        }
    }

    /// Follows the challenge until the answer was counted, and to its end if that comes in time.
    fn wait(
        &mut self,
        id: &ChallengeId,
        jti: &str,
        mut state: Option<Box<Asked>>,
        at: &str,
        until: Instant,
    ) -> Result<Exit, ChallengeError> {
        loop {
            if let Some(asked) = state
                && let Some(exit) = Judged::of(&asked, jti).exit()
            {
                self.write(asked)?;
                return Ok(exit);
            }
            let Some(left) = left(until) else {
                return Err(ChallengeError::Silence { jti: jti.to_owned(), at: at.to_owned() });
            };
            std::thread::sleep(REST.min(left));
            state = Some(self.client.show(id, Some(left))?);
        }
    }

    fn write(&mut self, asked: Box<Asked>) -> std::io::Result<()> {
        Shown::Challenge(asked, None).write(self.out, true)
    }

    /// The gate's no about this challenge is an answer; anything else is a failure.
    fn refused(&mut self, error: InterfaceError) -> Result<Exit, ChallengeError> {
        match error {
            InterfaceError::Refused(refused) if refused.is_about_the_challenge() => {
                let Refused { status, error, detail, acr_values, max_age_s, advice, .. } = *refused;
                let sentence = match &advice {
                    Some(advice) => format!("{detail}: {advice}"),
                    None => detail,
                };
                let more = json!({
                    "status": status, "error": error, "acr_values": acr_values, "max_age_s": max_age_s,
                });
                no(self.out, &sentence, more)
            }
            error => Err(error.into()),
        }
    }
}

/// How long there is until then; `None` where it is over.
fn left(until: Instant) -> Option<Duration> {
    Some(until.saturating_duration_since(Instant::now())).filter(|left| !left.is_zero())
}
