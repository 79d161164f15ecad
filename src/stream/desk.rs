//! The desk: what was decided over HTTP is written to the audit topic in transactions of its own, and each answer waits for
//! its commit. It keeps what people were asked over HTTP, and takes in what they answer. One thread a gate, with a
//! transactional id of its own. Limits: it decides no evaluation, but for whether enough have approved of it; an audit record
//! can stand for an answer that no longer reached its caller, never the reverse.

mod clerk;
mod people;
#[cfg(test)]
pub(crate) mod testing;
#[cfg(test)]
mod tests;

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::mpsc::{Receiver, RecvTimeoutError, SyncSender, TrySendError, sync_channel};
use std::thread::JoinHandle;
use std::time::Duration;

use tokio::sync::oneshot;

use self::clerk::Clerk;
use super::clock::{Clock as _, SystemClock};
use super::deciding::Gatework;
use super::gate::GateSettings;
use super::kafka::KafkaLog;
use super::lane::{Stop, TopicLimits};
use super::log::{Log, LogError};
use crate::authorize::access::{Evaluated, Semantic};
use crate::authorize::ids::Topic;
use crate::authorize::route::Route;

/// How long the first of a batch waits for others.
const LINGER: Duration = Duration::from_millis(2);
/// How many requests share a transaction at most.
const BATCH: usize = 256;
/// How many requests may wait. Past that a caller is told to come again.
const QUEUE: usize = 1024;
/// How long a caller waits for the commit.
pub const PATIENCE: Duration = Duration::from_secs(4);
/// How often a thread that waits looks whether it should end.
const LOOK: Duration = Duration::from_millis(50);
/// The first wait after a failure; it doubles to the last.
const FIRST_BACK_OFF: Duration = Duration::from_millis(50);
const LAST_BACK_OFF: Duration = Duration::from_secs(2);

/// Why nothing was written down for certain, and so nothing may be answered.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
pub enum DeskError {
    /// More requests wait than it takes.
    #[error("too many requests wait for their audit records")]
    Busy,
    /// The log is away, or did not say in time that the audit records are committed.
    #[error("the audit record could not be committed")]
    Unavailable,
    /// The audit topic does not take a record of this size.
    #[error("the audit record would be larger than its topic takes")]
    TooLarge,
}

/// What one request has decided so far, and whom to tell.
struct Request {
    evaluated: Vec<Evaluated>,
    semantic: Semantic,
    reply: oneshot::Sender<Told>,
}

/// What a caller is told: how each evaluation ended, up to the one with which the list ends.
type Told = Result<Vec<Evaluated>, DeskError>;

/// Where the desk writes.
#[derive(Debug, Clone)]
pub struct DeskSettings {
    /// By whose rules, and to whose audit topic.
    pub route: Arc<Route>,
    /// What the audit topic takes, as far as it is known.
    pub limits: TopicLimits,
    /// Where people are asked and answer; `None` where nobody is asked.
    pub people: Option<PeopleSettings>,
    /// What names this gate among others: the first part of the names of its trees.
    pub name: String,
}

/// Where people are asked, and where they answer.
#[derive(Debug, Clone)]
pub struct PeopleSettings {
    /// Where challenges are published.
    pub challenges: Topic,
    /// What that takes, as far as it is known.
    pub limits: TopicLimits,
    /// Where answers are read.
    pub answers: Topic,
}

/// A handle to hand in what was decided. Cloning is cheap.
#[derive(Debug, Clone)]
pub struct Desk {
    queue: SyncSender<Request>,
    open: Arc<AtomicBool>,
}

impl Desk {
    /// Settles what waits for people, up to the evaluation with which the list ends, and waits until the audit records are
    /// committed: all of them, or none.
    ///
    /// # Errors
    /// [`DeskError`]: then nothing may be answered.
    pub async fn commit(&self, evaluated: Vec<Evaluated>, semantic: Semantic) -> Told {
        if !self.open.load(Ordering::Relaxed) {
            return Err(DeskError::Unavailable);
        }
        let (reply, told) = oneshot::channel();
        self.queue.try_send(Request { evaluated, semantic, reply }).map_err(|refused| match refused {
            TrySendError::Full(_) => DeskError::Busy,
            TrySendError::Disconnected(_) => DeskError::Unavailable,
        })?;
        match tokio::time::timeout(PATIENCE, told).await {
            Ok(Ok(told)) => told,
            // The desk is gone, or too slow.
            Ok(Err(_)) | Err(_) => Err(DeskError::Unavailable),
        }
    }
}

/// The desk's thread. Dropped, it writes what it has in hand, refuses the rest, ends what people were asked and ends.
#[derive(Debug)]
pub struct RunningDesk {
    desk: Desk,
    stop: Stop,
    thread: Option<JoinHandle<()>>,
}

impl RunningDesk {
    /// Starts the desk of a gate, which answers by the rules of `route` and takes in people's `answers`, where there is a
    /// topic for them. No broker needs to be there yet.
    ///
    /// # Errors
    /// [`DeskStartError`] where the client or the thread cannot be made.
    pub fn start(
        gate: &GateSettings,
        route: Arc<Route>,
        answers: Option<Topic>,
        work: Gatework,
    ) -> Result<Self, DeskStartError> {
        let settings = gate.desk(route, answers);
        let log = KafkaLog::new(gate.desk_kafka())?;
        let clerk = Clerk::new(log, SystemClock::start(), settings, work);
        Ok(Self::run(clerk)?)
    }

    fn run<L: Log + Send + 'static>(mut clerk: Clerk<L, SystemClock>) -> std::io::Result<Self> {
        let (queue, requests) = sync_channel(QUEUE);
        let (stop, open) = (Stop::default(), Arc::new(AtomicBool::new(false)));
        let (asked, shown) = (stop.clone(), Arc::clone(&open));
        let thread = std::thread::Builder::new().name("desk".to_owned()).spawn(move || {
            work(&mut clerk, &requests, &asked, &shown);
        })?;
        Ok(Self { desk: Desk { queue, open }, stop, thread: Some(thread) })
    }

    /// A handle to hand in audit records.
    pub fn desk(&self) -> Desk {
        self.desk.clone()
    }
}

impl Drop for RunningDesk {
    fn drop(&mut self) {
        self.stop.ask();
        if let Some(thread) = self.thread.take()
            && thread.join().is_err()
        {
            tracing::error!("the desk's thread ended in a panic");
        }
    }
}

/// Why a desk was not started.
#[derive(Debug, thiserror::Error)]
pub enum DeskStartError {
    /// librdkafka refuses the properties.
    #[error("the desk's Kafka client cannot be made: {0}")]
    Client(#[from] LogError),
    /// The system gives no thread.
    #[error("the desk's thread cannot be started: {0}")]
    Thread(#[from] std::io::Error),
}

/// The desk's life: open the log, write batches, and open it anew after a failure that cost the producer.
fn work<L: Log>(
    clerk: &mut Clerk<L, SystemClock>,
    requests: &Receiver<Request>,
    stop: &Stop,
    open: &AtomicBool,
) {
    let clock = SystemClock::start();
    let mut back_off = FIRST_BACK_OFF;
    while !stop.asked() {
        open.store(clerk.is_open(), Ordering::Relaxed);
        if !clerk.is_open() {
            refuse(requests);
            if clerk.open() {
                back_off = FIRST_BACK_OFF;
                continue;
            }
            let until = clock.elapsed() + back_off;
            while clock.elapsed() < until && !stop.asked() {
                clock.sleep(LOOK.min(back_off));
            }
            back_off = (back_off * 2).min(LAST_BACK_OFF);
            continue;
        }
        match requests.recv_timeout(LOOK) {
            Ok(first) => clerk.write(gather(first, requests, &clock)),
            Err(RecvTimeoutError::Timeout) => {}
            Err(RecvTimeoutError::Disconnected) => break,
        }
        clerk.listen();
    }
    open.store(false, Ordering::Relaxed);
    refuse(requests);
    clerk.close();
}

/// The requests of one transaction: those that come within the linger.
fn gather(first: Request, requests: &Receiver<Request>, clock: &SystemClock) -> Vec<Request> {
    let until = clock.elapsed() + LINGER;
    let mut batch = vec![first];
    while batch.len() < BATCH {
        match requests.recv_timeout(until.saturating_sub(clock.elapsed())) {
            Ok(next) => batch.push(next),
            Err(_) => break,
        }
    }
    batch
}

fn refuse(requests: &Receiver<Request>) {
    for request in requests.try_iter() {
        // A caller that is gone needs no answer.
        let _ = request.reply.send(Err(DeskError::Unavailable));
    }
}
