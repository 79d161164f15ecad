//! What can be done to a workflow, and what its registry says afterwards. Limits: pure; the orchestrator's own rules, such
//! as which step may follow which, are its own.

use crate::authorize::ids::UnixMillis;
use crate::authorize::standing::{Registered, Status};

/// What is done to a workflow.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) enum Act {
    /// It begins.
    Start {
        /// Its type.
        kind: String,
        /// Who is responsible for it.
        owner: String,
        /// The step it begins at.
        step: String,
        /// The steps that records may be of; `None` allows the step it is at alone.
        allowed: Option<Vec<String>>,
    },
    /// It goes to another step.
    Step {
        /// The step.
        step: String,
        /// As for a start; it takes the place of what was allowed before.
        allowed: Option<Vec<String>>,
    },
    /// It may do nothing until it runs again.
    Suspend,
    /// It runs again.
    Resume,
    /// It ends, in one of the three statuses of an end.
    End(Status),
}

/// Why something is not done to a workflow.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum Refusal {
    /// The registry does not know it.
    #[error("the registry knows no workflow `{0}`")]
    Unknown(String),
    /// It was started before.
    #[error("the workflow `{0}` is there already: {1}")]
    Known(String, &'static str),
    /// It is over.
    #[error("the workflow `{0}` has ended: {1}")]
    Ended(String, &'static str),
    /// It is not in the status that this needs.
    #[error("the workflow `{id}` is {status}, not {needed}")]
    Status {
        /// Its id.
        id: String,
        /// How it stands.
        status: &'static str,
        /// How it would have to stand.
        needed: &'static str,
    },
    /// Somebody has changed it since it was looked at.
    #[error("the workflow `{id}` stands at version {version}, not {expected}")]
    Version {
        /// Its id.
        id: String,
        /// Its version.
        version: i64,
        /// The version that was expected.
        expected: i64,
    },
    /// Its version cannot grow.
    #[error("the version of the workflow `{0}` cannot grow any further")]
    Exhausted(String),
}

impl Act {
    /// What the registry says of workflow `id` afterwards. A version of the present state other than `expected` refuses.
    ///
    /// # Errors
    /// It cannot be done to the workflow as it stands.
    pub(super) fn apply(
        &self,
        id: &str,
        present: Option<&Registered>,
        expected: Option<i64>,
        now: UnixMillis,
    ) -> Result<Registered, Refusal> {
        let owned = || id.to_owned();
        if let Some(expected) = expected {
            let version = present.map_or(0, |present| present.version);
            if version != expected {
                return Err(Refusal::Version { id: owned(), version, expected });
            }
        }
        let mut next = match (self, present) {
            (Self::Start { kind, owner, step, allowed }, None) => {
                return Ok(Registered {
                    kind: kind.as_str().into(),
                    status: Status::Running,
                    step: step.as_str().into(),
                    owner: owner.as_str().into(),
                    allowed_steps: boxed(allowed.as_deref()),
                    version: 1,
                    updated_at: now,
                });
            }
            (_, None) => return Err(Refusal::Unknown(owned())),
            (Self::Start { .. }, Some(present)) => {
                return Err(Refusal::Known(owned(), present.status.as_str()));
            }
            (_, Some(present)) if present.status.has_ended() => {
                return Err(Refusal::Ended(owned(), present.status.as_str()));
            }
            (_, Some(present)) => present.clone(),
        };
        let need = |needed: Status| {
            let refusal =
                Refusal::Status { id: owned(), status: next.status.as_str(), needed: needed.as_str() };
            (next.status == needed).then_some(()).ok_or(refusal)
        };
        match self {
            Self::Step { step, allowed } => {
                need(Status::Running)?;
                next.step = step.as_str().into();
                next.allowed_steps = boxed(allowed.as_deref());
            }
            Self::Suspend => {
                need(Status::Running)?;
                next.status = Status::Suspended;
            }
            Self::Resume => {
                need(Status::Suspended)?;
                next.status = Status::Running;
            }
            Self::End(status) => next.status = *status,
            // Answered above: it needs that nothing is there.
            Self::Start { .. } => {}
        }
        next.version = next.version.checked_add(1).ok_or_else(|| Refusal::Exhausted(owned()))?;
        next.updated_at = now;
        Ok(next)
    }
}

fn boxed(steps: Option<&[String]>) -> Option<Box<[Box<str>]>> {
    steps.map(|steps| steps.iter().map(|step| step.as_str().into()).collect())
}

#[cfg(test)]
mod tests {
    use super::*;

    const NOW: UnixMillis = UnixMillis(1_893_456_000_000);

    fn start() -> Act {
        let s = |text: &str| text.to_owned();
        Act::Start { kind: s("invoice"), owner: s("o"), step: s("read"), allowed: None }
    }

    fn standing(status: Status) -> Registered {
        Registered { status, version: 4, ..start().apply("wf", None, None, UnixMillis(0)).unwrap() }
    }

    #[test]
    fn each_act_has_the_statuses_that_it_can_follow() {
        use Status::{Cancelled, Completed, Failed, Running, Suspended};
        let step = Act::Step { step: "pay".to_owned(), allowed: Some(vec!["pay".to_owned()]) };
        let can_follow: [(Act, &[Status]); 5] = [
            (start(), &[]),
            (step, &[Running]),
            (Act::Suspend, &[Running]),
            (Act::Resume, &[Suspended]),
            (Act::End(Cancelled), &[Running, Suspended]),
        ];
        for (act, statuses) in can_follow {
            assert_eq!(act.apply("wf", None, None, NOW).is_ok(), statuses.is_empty(), "{act:?}");
            for status in [Running, Suspended, Completed, Cancelled, Failed] {
                let applied = act.apply("wf", Some(&standing(status)), None, NOW);
                assert_eq!(applied.is_ok(), statuses.contains(&status), "{act:?} after {status:?}");
                if let Ok(next) = applied {
                    assert_eq!((next.version, next.updated_at), (5, NOW));
                }
            }
        }
    }

    #[test]
    fn a_step_allows_what_it_names_and_forgets_what_was_allowed_before() {
        let mut before = standing(Status::Running);
        before.allowed_steps = Some(["read".into(), "pay".into()].into());
        let step = Act::Step { step: "pay".to_owned(), allowed: None };
        let after = step.apply("wf", Some(&before), None, NOW).unwrap();
        assert!(after.allows("pay") && !after.allows("read"));
    }

    #[test]
    fn another_version_than_the_expected_one_refuses() {
        let present = standing(Status::Running);
        let suspend = |expected| Act::Suspend.apply("wf", Some(&present), Some(expected), NOW);
        assert!(suspend(4).is_ok());
        let refusal = suspend(3).unwrap_err();
        assert_eq!(refusal.to_string(), "the workflow `wf` stands at version 4, not 3");
        let last = Registered { version: i64::MAX, ..present.clone() };
        assert!(Act::Suspend.apply("wf", Some(&last), None, NOW).is_err());
    }
}
