//! A gate that a job can ask: each check is one question of the client, on behalf of the work that the record brought.
//! Limits: whatever is no decision is no answer.

use super::{Answer, Client, Question, Unanswered};
use crate::authorize::carried::Carried;
use crate::worker::job::{self, Asking, Denied, NoAnswer, StepUp};

impl job::Gate for Client {
    fn ask(&self, asking: &Asking, carried: &Carried) -> Result<job::Answer, NoAnswer> {
        let mut question = Question::new(asking.action.clone(), asking.resource.clone()).carrying(carried);
        if let Some(workflow) = &asking.workflow {
            question = question.workflow(workflow.clone());
        }
        Client::ask(self, &question).and_then(answer).map_err(|error| NoAnswer(error.to_string()))
    }
}

/// A decision without its id stands in no audit, so it is none.
fn answer(answer: Answer) -> Result<job::Answer, Unanswered> {
    let decision = answer.decision_id.ok_or(Unanswered::Unreadable)?;
    if answer.decision {
        return Ok(job::Answer::Allowed { decision });
    }
    let reason = answer.reason.ok_or(Unanswered::Unreadable)?;
    Ok(match answer.step_up {
        Some(asked) => job::Answer::StepUp(StepUp {
            decision,
            challenge: asked.challenge,
            names: asked.step_ups.iter().map(|step_up| step_up.name.clone()).collect(),
            messages: asked.step_ups.into_iter().filter_map(|step_up| step_up.message).collect(),
        }),
        None => job::Answer::Denied(Denied { decision, reason, detail: answer.detail.unwrap_or_default() }),
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    fn given(json: &str) -> Result<job::Answer, Unanswered> {
        Answer::read(200, json.as_bytes()).and_then(answer)
    }

    #[test]
    fn a_job_hears_leave_refusal_or_what_is_wanted_first_and_nothing_else() {
        let allowed = given(r#"{"decision":true,"context":{"decision_id":"d"}}"#);
        assert_eq!(allowed, Ok(job::Answer::Allowed { decision: "d".into() }));
        let denied = r#"{"decision":false,"context":{"decision_id":"d","reason":"revoked","reason_admin":{"en":"gone"}}}"#;
        let denial = Denied { decision: "d".into(), reason: "revoked".into(), detail: "gone".into() };
        assert_eq!(given(denied), Ok(job::Answer::Denied(denial)));
        let asked = r#"{"decision":false,"context":{"decision_id":"d","reason":"step_up_required","obligations":[
            {"id":"d","type":"step-up","properties":{"challenge":"http:t:2:d","step_ups":[
                {"name":"manager","policy":"p","approvals":1,"message":"May it?"}]}}]}}"#;
        let step_up = StepUp {
            decision: "d".into(),
            challenge: Some("http:t:2:d".into()),
            names: vec!["manager".into()],
            messages: vec!["May it?".into()],
        };
        assert_eq!(given(asked), Ok(job::Answer::StepUp(step_up)));
        for unreadable in [r#"{"decision":true}"#, r#"{"decision":false,"context":{"decision_id":"d"}}"#] {
            assert_eq!(given(unreadable), Err(Unanswered::Unreadable));
        }
    }
}
