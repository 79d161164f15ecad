//! The eight steps of a payout. Two of them are sensitive, and take the gate's leave by value. Limits: the steps are stand-ins
//! that take time; what matters is where they may begin, and where they stop.

use std::sync::Mutex;
use std::time::Duration;

use countersign::authorize::request::Action;
use countersign::worker::job::{Job, Leave, Refused};
use countersign::worker::signals::Stop;

/// How often a job asks whether a person has agreed by now.
const AGAIN: Duration = Duration::from_secs(1);

/// How a job has ended.
#[derive(Debug)]
pub enum End {
    /// All eight steps are done.
    Done(Job),
    /// Something took its rights away.
    Stopped(Stop),
    /// The gate did not give leave.
    Refused(Refused),
}

/// Where the work is done.
pub struct Bench {
    /// How long each step takes.
    pub pace: fn(&str) -> Duration,
    /// The steps that are done, in order.
    pub done: Mutex<Vec<String>>,
}

impl Bench {
    /// A bench on which steps take so long.
    pub fn new(pace: fn(&str) -> Duration) -> Self {
        Self { pace, done: Mutex::new(Vec::new()) }
    }

    /// Does the whole work, until it is done, refused or stopped. What a step began before it was dropped is for the step
    /// to take back: a payment that has left is not called back by dropping a future.
    pub async fn work(&self, job: Job) -> End {
        let stopped = job.watch();
        tokio::select! {
            // Looked at first: news of a stop counts more than a step that ends at the same time.
            biased;
            stop = stopped => End::Stopped(stop),
            ended = self.steps(job) => match ended {
                Ok(job) => End::Done(job),
                // The signal may have come while the gate was asked.
                Err(Refused::Stopped(stop)) => End::Stopped(stop),
                Err(refused) => End::Refused(refused),
            },
        }
    }

    async fn steps(&self, job: Job) -> Result<Job, Refused> {
        self.step("collect").await;
        self.step("match").await;
        self.step("reckon").await;
        let (job, leave) = ask(job, "reserve").await?;
        self.sensitive(leave).await;
        self.step("announce").await;
        let (job, leave) = ask(job, "transfer").await?;
        self.sensitive(leave).await;
        self.step("book").await;
        self.step("archive").await;
        Ok(job)
    }

    async fn step(&self, name: &str) {
        tokio::time::sleep((self.pace)(name)).await;
        println!("done: {name}");
        self.done.lock().unwrap_or_else(std::sync::PoisonError::into_inner).push(name.to_owned());
    }

    /// What it does is what the leave is for: no other action, on no other resource.
    async fn sensitive(&self, leave: Leave) {
        println!(
            "leave to {} {}, by decision {}",
            leave.action().name,
            leave.resource().id,
            leave.decision()
        );
        self.step(&leave.action().name).await;
    }
}

/// Asks for a sensitive step on the resource that the work is about. Where a person has to agree first, it says what it waits
/// for and asks again until they have, or have refused; whatever stops the job stops the waiting too.
async fn ask(job: Job, action: &str) -> Result<(Job, Leave), Refused> {
    let resource = job.received().resource.clone();
    let mut answer = job.check(Action { name: action.to_owned(), properties: None }, resource).await;
    let mut waiting_for = None;
    loop {
        match answer {
            // Without a challenge nobody was asked, and nobody will answer.
            Err(Refused::StepUp { asked, again }) if asked.challenge.is_some() => {
                if waiting_for != asked.challenge {
                    let challenge = asked.challenge.as_deref().unwrap_or_default();
                    println!("to {action}, waiting for {}: {challenge}", asked.names.join(", "));
                    waiting_for = asked.challenge;
                }
                tokio::time::sleep(AGAIN).await;
                answer = again.ask().await;
            }
            answer => return answer,
        }
    }
}
