//! Work that takes longer than one decision lasts: opened from a record that a gate let through, it asks the gate again
//! before each sensitive step, and ends when somebody takes its rights away.
//!
//! ```no_run
//! # use std::sync::Arc;
//! # use countersign::authorize::record::Record;
//! # use countersign::authorize::request::{Action, Resource};
//! # use countersign::worker::{Verifier, job::{Gate, Job, Leave, Refused}, signals::Signals};
//! # async fn prepare() {} async fn transfer(leave: Leave) {}
//! # async fn work(record: &Record, verifier: &Verifier, gate: Arc<dyn Gate>, signals: &Signals)
//! # -> Result<(), Box<dyn std::error::Error>> {
//! let job = Job::open(verifier.verify(record)?, gate, signals);
//! let stopped = job.watch();
//! let steps = async move {
//!     prepare().await;
//!     let invoice = job.received().resource.clone();
//!     let (job, leave) = job.check(Action { name: "transfer".into(), properties: None }, invoice).await?;
//!     transfer(leave).await;
//!     Ok::<_, Refused>(job)
//! };
//! tokio::select! {
//!     stop = stopped => println!("stopped: {stop}"),
//!     done = steps => drop(done?),
//! }
//! # Ok(()) }
//! ```
//!
//! A [`Leave`] is what a sensitive step takes by value: only an answer of the gate makes one, and it is good for one step. A
//! check takes the job away, and only leave gives it back: after a refusal there is nothing left to go on with. Limits: a
//! step that has begun is not taken back; leave is the gate's word of that moment, so use it at once.

use std::future::Future;
use std::sync::Arc;
use std::time::Duration;

use super::Received;
use super::marks::Marks;
use super::signals::{Signals, Stop};
use crate::authorize::carried::Carried;
use crate::authorize::request::{Action, Resource, Workflow};

/// How long a gate may take to answer where nothing else is said.
const PATIENCE: Duration = Duration::from_secs(5);

/// What a job asks of a gate.
#[derive(Debug, Clone, PartialEq)]
pub struct Asking {
    /// What it is about to do.
    pub action: Action,
    /// To what.
    pub resource: Resource,
    /// As part of which workflow.
    pub workflow: Option<Workflow>,
}

/// What a gate answers.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Answer {
    /// It may, now.
    Allowed {
        /// The decision's id, as its audit record has it.
        decision: String,
    },
    /// It may not.
    Denied(Denied),
    /// It may once somebody has agreed.
    StepUp(StepUp),
}

/// Why a gate says no.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Denied {
    /// The decision's id.
    pub decision: String,
    /// The contract's code.
    pub reason: String,
    /// A sentence for a person.
    pub detail: String,
}

/// What a gate wants first.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct StepUp {
    /// The decision's id.
    pub decision: String,
    /// The challenge that somebody has to answer, where the gate has published one.
    pub challenge: Option<String>,
    /// The names of the step-ups.
    pub names: Vec<String>,
    /// What a person is to read.
    pub messages: Vec<String>,
}

/// Nobody answered, or not as a gate does: a sentence for a person.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("{0}")]
pub struct NoAnswer(pub String);

/// Whom a job asks: a gate over AuthZEN, or a stand-in in a test.
pub trait Gate: Send + Sync {
    /// Asks as this worker, for the work that `carried` belongs to. It may block: a job calls it on a thread of its own.
    ///
    /// # Errors
    /// No answer: a time-out, a refused connection, an error of the server, a reply that is none. Never an answer.
    fn ask(&self, asking: &Asking, carried: &Carried) -> Result<Answer, NoAnswer>;
}

/// Work in progress. It is not `Clone`: who has it may go on.
pub struct Job(Box<Open>);

struct Open {
    received: Received,
    marks: Arc<Marks>,
    gate: Arc<dyn Gate>,
    signals: Signals,
    patience: Duration,
}

/// What a sensitive step needs, for one action on one resource, once. Made by [`Job::check`] alone.
#[derive(Debug)]
#[must_use = "leave is for one step: hand it to the step, or the check was for nothing"]
pub struct Leave {
    action: Action,
    resource: Resource,
    decision: String,
}

/// The job may not do the step, and is over unless `again` gives it back.
#[derive(Debug, thiserror::Error)]
pub enum Refused {
    /// It must stop: the same that its watch says.
    #[error("the job must stop: {0}")]
    Stopped(Stop),
    /// The gate says no.
    #[error("the gate refuses: {}: {}", .0.reason, .0.detail)]
    Denied(Denied),
    /// The gate says not yet.
    #[error("the gate wants a step-up first: {}", .asked.names.join(", "))]
    StepUp {
        /// What it wants.
        asked: StepUp,
        /// Asks again, once the challenge is answered.
        again: Box<Again>,
    },
    /// No gate is in reach, so nobody has allowed the step.
    #[error("no gate has answered: {problem}")]
    NoAnswer {
        /// What happened instead.
        problem: NoAnswer,
        /// Asks again.
        again: Box<Again>,
    },
}

/// A job that waits before a step. It can ask for that step again, and nothing else.
pub struct Again {
    job: Job,
    asking: Asking,
}

impl Job {
    /// Opens work that was verified. It asks `gate`, and is stopped by what `signals` hears.
    pub fn open(received: Received, gate: Arc<dyn Gate>, signals: &Signals) -> Self {
        let marks = Arc::new(Marks::of(&received));
        Self(Box::new(Open { received, marks, gate, signals: signals.clone(), patience: PATIENCE }))
    }

    /// Another time than 5 s in which the gate must answer.
    #[must_use]
    pub fn patience(mut self, patience: Duration) -> Self {
        self.0.patience = patience;
        self
    }

    /// What was decided about the record, and for whom.
    pub fn received(&self) -> &Received {
        &self.0.received
    }

    /// What goes along with the next record of this work: hand it to `producer::Context::carry`.
    pub fn carry_on(&self) -> Carried {
        self.0.received.carry_on()
    }

    /// Ends, with the reason, when the work must stop: its workflow has ended or is suspended; its sender, an earlier
    /// sender, subject or transaction is revoked, or what else a revocation can name; no gate has been heard for too long.
    /// It owns what it needs: run it beside the work, and drop the work when it ends.
    #[must_use = "a watch does nothing unless it is awaited"]
    pub fn watch(&self) -> impl Future<Output = Stop> + Send + use<> {
        self.0.signals.watch(Arc::clone(&self.0.marks))
    }

    /// Asks before a sensitive step: whether this work may do that, now.
    ///
    /// # Errors
    /// It may not, not yet, or nobody has answered. The job is gone then, but for what [`Refused`] gives back.
    pub async fn check(self, action: Action, resource: Resource) -> Result<(Self, Leave), Refused> {
        let workflow = self.0.received.workflow.clone();
        Again { job: self, asking: Asking { action, resource, workflow } }.ask().await
    }

    /// As [`Job::check`], at another step or in another state of the workflow than the record was.
    ///
    /// # Errors
    /// As [`Job::check`].
    pub async fn check_in(
        self,
        workflow: Workflow,
        action: Action,
        resource: Resource,
    ) -> Result<(Self, Leave), Refused> {
        Again { job: self, asking: Asking { action, resource, workflow: Some(workflow) } }.ask().await
    }

    fn stop(&self) -> Result<(), Refused> {
        self.0.signals.stop(&self.0.marks).map_or(Ok(()), |stop| Err(Refused::Stopped(stop)))
    }

    async fn answer(&self, asking: &Asking) -> Result<Answer, NoAnswer> {
        let (gate, asking, carried) = (Arc::clone(&self.0.gate), asking.clone(), self.carry_on());
        let asked = tokio::task::spawn_blocking(move || gate.ask(&asking, &carried));
        match tokio::time::timeout(self.0.patience, asked).await {
            Ok(Ok(answer)) => answer,
            Ok(Err(_)) => Err(NoAnswer("the asking broke off".to_owned())),
            Err(_) => Err(NoAnswer(format!("no answer within {:?}", self.0.patience))),
        }
    }
}

impl Again {
    /// What the job is waiting for.
    pub fn asking(&self) -> &Asking {
        &self.asking
    }

    /// Ends when the work must stop: see [`Job::watch`].
    #[must_use = "a watch does nothing unless it is awaited"]
    pub fn watch(&self) -> impl Future<Output = Stop> + Send + use<> {
        self.job.watch()
    }

    /// Asks the gate. What was heard counts before and after: an answer may cross a signal.
    ///
    /// # Errors
    /// As [`Job::check`].
    pub async fn ask(self) -> Result<(Job, Leave), Refused> {
        let Self { job, asking } = self;
        job.stop()?;
        let answer = job.answer(&asking).await;
        job.stop()?;
        match answer {
            Ok(Answer::Allowed { decision }) => {
                Ok((job, Leave { action: asking.action, resource: asking.resource, decision }))
            }
            Ok(Answer::Denied(denied)) => Err(Refused::Denied(denied)),
            Ok(Answer::StepUp(asked)) => {
                Err(Refused::StepUp { asked, again: Box::new(Self { job, asking }) })
            }
            Err(problem) => Err(Refused::NoAnswer { problem, again: Box::new(Self { job, asking }) }),
        }
    }
}

impl Leave {
    /// What may be done.
    pub fn action(&self) -> &Action {
        &self.action
    }

    /// To what.
    pub fn resource(&self) -> &Resource {
        &self.resource
    }

    /// The decision that allowed it, for the worker's own records: its audit record has the same id.
    pub fn decision(&self) -> &str {
        &self.decision
    }
}

// By hand: whom it asks has credentials of its own.
impl std::fmt::Debug for Job {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Job").field("received", &self.0.received).finish_non_exhaustive()
    }
}

impl std::fmt::Debug for Again {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Again").field("asking", &self.asking).finish_non_exhaustive()
    }
}

#[cfg(test)]
mod tests;
