//! An answer to a challenge: checked, signed and written where whoever asked reads it. Limits: what is
//! checked here spares an approver a round; nothing rests on it, since whoever asked judges the answer anew.

use axum::body::Body;
use axum::http::StatusCode;
use axum::http::request::Parts;
use serde_json::json;
use uuid::Uuid;

use super::asked::{self, Answer};
use super::refusal::Refusal;
use super::{Approvals, Reply, Service, view};
use crate::authorize::ids::{Coordinates, Partition, Topic};
use crate::authorize::login::{AnswerSource, Login, sign_answer};
use crate::authorize::step_up::{Ask, Challenge, ChallengeId, Seen};
use crate::telemetry::events::AnswerWritten;

impl Service {
    pub(super) async fn answer(&self, id: &str, parts: &Parts, body: Body) -> Reply {
        let login = self.login(parts).await?;
        let now = (self.approvals.clock)();
        self.pace.count(login.issuer(), login.subject(), now).map_err(Refusal::too_many)?;
        let wait = asked::wait(parts.uri.query())?;
        let answer = asked::answer(&parts.headers, body).await?;
        let (challenge, seen) = self.challenge(&login, id)?;
        if seen == Seen::AsParty {
            return Err(Refusal::own_request());
        }
        self.check(&login, &challenge, &answer)?;
        let (topic, partition) = self.place(&challenge)?;

        let jti = Uuid::now_v7().to_string();
        let written = self.write(&login, &challenge, &answer, &jti, (&topic, partition)).await?;
        AnswerWritten { route: &challenge.route, decision: answer.decision, written: &written }
            .emit(&self.approvals.telemetry);
        let mut reply = json!({
            "answer": jti,
            "challenge": challenge.id,
            "decision": answer.decision,
            "written": {
                "topic": written.topic.as_str(),
                "partition": written.partition.0,
                "offset": written.offset.0,
            },
        });
        if let Some(wait) = wait {
            let is_judged = |now: &Challenge| {
                !now.status.is_open() || now.answers.iter().any(|counted| counted.jti == jti)
            };
            let judged = self.wait_for(id, wait, is_judged).await;
            if let (Some(state), Some(reply)) = (judged.as_ref().map(view), reply.as_object_mut()) {
                reply.insert("state".to_owned(), state);
            }
        }
        Ok((StatusCode::ACCEPTED, reply))
    }

    /// What would make whoever asked refuse the answer, as far as it can be known here.
    fn check(&self, login: &Login, challenge: &Challenge, answer: &Answer) -> Result<(), Refusal> {
        let now = (self.approvals.clock)();
        if !challenge.status.is_open() || challenge.hold_until < now.0 {
            return Err(Refusal::conflict("challenge_ended", "the challenge takes no more answers"));
        }
        if answer.digest.as_ref().is_some_and(|digest| *digest != challenge.digest) {
            return Err(Refusal::conflict(
                "digest_mismatch",
                "the challenge asks for something else than you saw",
            ));
        }
        // Who refuses need not log in again; and what asks for the subject's login does not ask for the approver's.
        let is_weak =
            |ask: &&Ask| !ask.is_of_login() && !login.meets(ask.acr_values.as_deref(), ask.max_age_s, now);
        match challenge.step_ups.iter().find(is_weak) {
            Some(ask) if answer.decision == "approve" => {
                Err(Refusal::stronger_login(ask.acr_values.as_deref(), ask.max_age_s))
            }
            _ => Ok(()),
        }
    }

    /// Where answers to a challenge are read.
    fn place(&self, challenge: &Challenge) -> Result<(Topic, Partition), Refusal> {
        let elsewhere =
            || Refusal::conflict("not_answerable", "nothing of this gate reads answers to the challenge");
        let id = ChallengeId::parse(&challenge.id).ok_or_else(elsewhere)?;
        let (topic, partition) = self.approvals.places.place(&id).ok_or_else(elsewhere)?;
        Ok((topic.clone(), partition))
    }

    async fn write(
        &self,
        login: &Login,
        challenge: &Challenge,
        answer: &Answer,
        jti: &str,
        (topic, partition): (&Topic, Partition),
    ) -> Result<Coordinates, Refusal> {
        let Approvals { engine, answers, clock, .. } = &self.approvals;
        let gate = engine.gate();
        // The shortest of what is asked: a grant that is good for one step-up alone would discharge the others too long.
        let grant_s = challenge.step_ups.iter().map(|ask| ask.grant_s).min().unwrap_or_default();
        let source = AnswerSource {
            gate: &gate.id,
            realm: &gate.realm,
            jti,
            challenge: &challenge.id,
            digest: &challenge.digest,
            decision: answer.decision,
            comment: answer.comment.as_deref(),
            now: clock(),
            grant_s: u32::try_from(grant_s).unwrap_or_default(),
        };
        let grant = sign_answer(login, &source, &gate.key)
            .map_err(|_| Refusal::unavailable("the gate cannot sign the answer"))?;
        answers.write(topic, partition, &challenge.id, &grant).await.map_err(|error| {
            tracing::warn!(%error, topic = topic.as_str(), "an answer was not confirmed");
            Refusal::unavailable(
                "the answer was not confirmed by the broker; look at the challenge, then try again",
            )
        })
    }
}
