//! The work of a payout: eight steps, two of them sensitive, with a worker that asks before those two and listens for what
//! ends it. Limits: the steps do nothing but take their time; what matters is where they may begin, and where they stop.

use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Mutex, PoisonError};
use std::time::{Duration, Instant};

use tokio::sync::Notify;
use tokio::task::JoinHandle;

use super::DemoError;
use super::cast::Cast;
use super::observer::PATIENCE;
use super::world::World;
use crate::authorize::carried::Carried;
use crate::authorize::request::Action;
use crate::worker::Received;
use crate::worker::access::Client;
use crate::worker::job::{Answer, Asking, Gate, Job, Leave, NoAnswer, Refused};
use crate::worker::kafka::Reader;
use crate::worker::signals::{Bounds, Signals, Stop};

/// The steps, in order, and whether each is sensitive.
pub(super) const STEPS: [(&str, bool); 8] = [
    ("collect", false),
    ("match", false),
    ("reckon", false),
    ("reserve", true),
    ("announce", false),
    ("transfer", true),
    ("book", false),
    ("archive", false),
];
/// How long a step takes.
const QUICK: Duration = Duration::from_millis(20);
/// A step in which the worker is when something happens: longer than anybody waits for that.
const LONG: Duration = Duration::from_secs(600);

/// How a job has ended.
#[derive(Debug)]
pub(super) enum End {
    /// All steps are done.
    Done,
    /// Something took its rights away.
    Stopped(Stop),
    /// A sensitive step did not get leave: what was refused, and why.
    Refused(Refused),
}

/// A worker process.
pub(super) struct Worker {
    runtime: tokio::runtime::Runtime,
    gate: Arc<Counting>,
    signals: Signals,
    _reader: Reader,
}

/// The gate, with a count of what it has decided.
struct Counting {
    client: Client,
    decided: AtomicU64,
}

impl Gate for Counting {
    fn ask(&self, asking: &Asking, carried: &Carried) -> Result<Answer, NoAnswer> {
        let answer = Gate::ask(&self.client, asking, carried)?;
        self.decided.fetch_add(1, Ordering::Relaxed);
        Ok(answer)
    }
}

impl Worker {
    /// The payments service, once it hears the gate.
    pub(super) fn start(world: &World, cast: &Cast) -> Result<Self, DemoError> {
        let client = Client::new(cast.payments.caller()?, &format!("http://{}", world.access()?))?;
        let topic = world.topic("control", "signals")?;
        let signals = Signals::new(cast.realm.clone(), topic, world.trust(), Bounds::default());
        let reader = Reader::start(&signals, &world.client())?;
        let runtime = tokio::runtime::Runtime::new()?;
        let heard = runtime.block_on(async { tokio::time::timeout(PATIENCE, signals.live()).await });
        heard.map_err(|_| lacking("no gate was heard on the topic of signals"))?;
        let gate = Arc::new(Counting { client, decided: AtomicU64::new(0) });
        Ok(Self { runtime, gate, signals, _reader: reader })
    }

    /// How many questions were decided.
    pub(super) fn questions(&self) -> u64 {
        self.gate.decided.load(Ordering::Relaxed)
    }

    /// Begins the work of a record. It does not get past the step `stays_in`.
    pub(super) fn begin(&self, received: Received, stays_in: Option<&'static str>) -> Work {
        let bench = Arc::new(Bench { stays_in, ..Bench::default() });
        let job = Job::open(received, Arc::<Counting>::clone(&self.gate), &self.signals);
        let end = self.runtime.spawn({
            let bench = Arc::clone(&bench);
            async move { bench.work(job).await }
        });
        Work { bench, end }
    }

    /// Waits until the work has ended: how, and the steps that were done.
    pub(super) fn end(&self, work: Work) -> Result<(End, Vec<&'static str>), DemoError> {
        let Work { bench, end } = work;
        let ended = self.runtime.block_on(async { tokio::time::timeout(PATIENCE, end).await });
        let ended = ended.map_err(|_| lacking("a job has not ended"))?;
        Ok((ended.map_err(|_| DemoError::Panicked)?, bench.done()))
    }

    /// Asks for a step as a worker would that does not listen.
    pub(super) fn ask(&self, received: &Received, action: &str) -> Result<Answer, DemoError> {
        let asking = Asking {
            action: Action { name: action.to_owned(), properties: None },
            resource: received.resource.clone(),
            workflow: received.workflow.clone(),
        };
        Ok(self.gate.ask(&asking, &received.carry_on())?)
    }
}

/// Work that goes on.
pub(super) struct Work {
    bench: Arc<Bench>,
    end: JoinHandle<End>,
}

impl Work {
    /// Waits until so many steps are done.
    pub(super) fn wait(&self, steps: usize) -> Result<(), DemoError> {
        let begun = Instant::now();
        while self.bench.done().len() < steps {
            if begun.elapsed() > PATIENCE || self.end.is_finished() {
                return Err(lacking("a job does not get to the step that it should"));
            }
            std::thread::sleep(Duration::from_millis(5));
        }
        Ok(())
    }

    /// Waits until the work waits for a person: the id of the challenge.
    pub(super) fn waits(&self) -> Result<String, DemoError> {
        let begun = Instant::now();
        loop {
            if let Some(challenge) = self.bench.waits_for() {
                return Ok(challenge);
            }
            if begun.elapsed() > PATIENCE || self.end.is_finished() {
                return Err(lacking("a job does not wait for anybody"));
            }
            std::thread::sleep(Duration::from_millis(5));
        }
    }

    /// Tells it that somebody has answered: it asks again. (A worker that nobody tells asks once a second.)
    pub(super) fn answered(&self) {
        self.bench.answered.notify_one();
    }
}

#[derive(Default)]
struct Bench {
    stays_in: Option<&'static str>,
    /// The challenge that it waits for.
    waits_for: Mutex<Option<String>>,
    answered: Notify,
    done: Mutex<Vec<&'static str>>,
}

impl Bench {
    async fn work(&self, job: Job) -> End {
        let stopped = job.watch();
        tokio::select! {
            // Looked at first: news of a stop counts more than a step that ends at the same time.
            biased;
            stop = stopped => End::Stopped(stop),
            ended = self.steps(job) => match ended {
                Ok(_) => End::Done,
                // The signal may have come while the gate was asked.
                Err(Refused::Stopped(stop)) => End::Stopped(stop),
                Err(refused) => End::Refused(refused),
            },
        }
    }

    async fn steps(&self, mut job: Job) -> Result<Job, Refused> {
        for (name, is_sensitive) in STEPS {
            if is_sensitive {
                let action = Action { name: name.to_owned(), properties: None };
                let invoice = job.received().resource.clone();
                let (again, leave) = self.leave(job.check(action, invoice).await).await?;
                self.sensitive(name, leave).await;
                job = again;
            } else {
                self.step(name).await;
            }
        }
        Ok(job)
    }

    /// Where a person has to agree first, waits until somebody has answered, and asks again.
    async fn leave(&self, asked: Result<(Job, Leave), Refused>) -> Result<(Job, Leave), Refused> {
        match asked {
            Err(Refused::StepUp { asked, again }) if asked.challenge.is_some() => {
                *self.waits_for.lock().unwrap_or_else(PoisonError::into_inner) = asked.challenge;
                self.answered.notified().await;
                again.ask().await
            }
            asked => asked,
        }
    }

    fn waits_for(&self) -> Option<String> {
        self.waits_for.lock().unwrap_or_else(PoisonError::into_inner).clone()
    }

    /// A sensitive step takes its leave by value.
    async fn sensitive(&self, name: &'static str, _leave: Leave) {
        self.step(name).await;
    }

    async fn step(&self, name: &'static str) {
        tokio::time::sleep(if self.stays_in == Some(name) { LONG } else { QUICK }).await;
        self.done.lock().unwrap_or_else(PoisonError::into_inner).push(name);
    }

    fn done(&self) -> Vec<&'static str> {
        self.done.lock().unwrap_or_else(PoisonError::into_inner).clone()
    }
}

fn lacking(lacking: &'static str) -> DemoError {
    DemoError::Waiting { lacking, seconds: PATIENCE.as_secs() }
}
