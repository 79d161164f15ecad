//! Watches what becomes of every record: reads destinations, dead letters, challenges and audit topics, and finds what is
//! known of a record by where it stood. Limits: it believes a destination record only by its countersignature, as a worker
//! would.

mod reader;
mod seen;

use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Condvar, Mutex, MutexGuard, PoisonError};
use std::thread::JoinHandle;
use std::time::{Duration, Instant};

use rdkafka::consumer::{BaseConsumer, Consumer as _};
use rdkafka::topic_partition_list::{Offset, TopicPartitionList};

pub(super) use self::seen::{Audited, Deeds, Outcome, Totals};

use self::reader::Reader;
use self::seen::State;
use super::DemoError;
use super::world::{PARTITIONS, World};
use crate::authorize::ids::Coordinates;
use crate::authorize::step_up::Challenge;
use crate::stream::kafka::record;

struct Shared {
    state: Mutex<State>,
    news: Condvar,
    stop: AtomicBool,
}

impl Shared {
    fn lock(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// Reads in a thread of its own until it is dropped.
pub(super) struct Observer {
    shared: Arc<Shared>,
    thread: Option<JoinHandle<()>>,
}

/// How long something may stay away.
pub(super) const PATIENCE: Duration = Duration::from_secs(30);
/// A doubled outcome would come at once after its twin.
const SETTLE: Duration = Duration::from_millis(300);

impl Observer {
    pub(super) fn start(world: &World) -> Result<Self, DemoError> {
        let reader = Reader::new(world)?;
        let consumer: BaseConsumer = world
            .client()
            .set("group.id", "countersign-demo-observer")
            .set("enable.auto.commit", "false")
            .set("isolation.level", "read_committed")
            .set("auto.offset.reset", "earliest")
            .set("fetch.wait.max.ms", "50")
            .create()?;
        let mut list = TopicPartitionList::new();
        for topic in reader.topics() {
            for partition in 0..PARTITIONS {
                list.add_partition_offset(topic.as_str(), partition, Offset::Beginning)?;
            }
        }
        consumer.assign(&list)?;
        let shared =
            Arc::new(Shared { state: Mutex::default(), news: Condvar::new(), stop: AtomicBool::new(false) });
        let read = Arc::clone(&shared);
        let thread = std::thread::Builder::new().name("observer".to_owned()).spawn(move || {
            while !read.stop.load(Ordering::Acquire) {
                let Some(message) = consumer.poll(Duration::from_millis(50)) else { continue };
                let message = match message {
                    Ok(message) => record(&message).map_err(|error| error.to_string()),
                    Err(error) => Err(error.to_string()),
                };
                match message {
                    Ok(record) => reader.take(&record, &mut read.lock()),
                    // A broker that is away for a moment is no news; one that stays away shows as a missing outcome.
                    Err(problem) => read.lock().problem = Some(problem),
                }
                read.news.notify_all();
            }
        })?;
        Ok(Self { shared, thread: Some(thread) })
    }

    /// From now on records are counted, and forgotten once they are decided.
    pub(super) fn count_only(&self) {
        let mut state = self.shared.lock();
        state.counts_only = true;
        state.seen.clear();
    }

    /// Waits for what becomes of a record, and for the decision that ended it.
    pub(super) fn ended(&self, at: &Coordinates) -> Result<(Outcome, Audited), DemoError> {
        self.wait(&format!("the record at {at} has no outcome"), |state| {
            let seen = state.seen.get(at)?;
            Some((seen.outcome.clone()?, seen.decided.clone()?))
        })
    }

    /// Waits until a record is held and somebody is asked about it.
    pub(super) fn held(&self, at: &Coordinates) -> Result<(Box<Challenge>, Audited), DemoError> {
        self.wait(&format!("nobody is asked about the record at {at}"), |state| {
            let seen = state.seen.get(at)?;
            Some((seen.challenge.clone()?, seen.held.clone()?))
        })
    }

    /// Waits until an answer about a record was taken in; its effect.
    pub(super) fn answered(&self, at: &Coordinates, jti: &str) -> Result<String, DemoError> {
        self.wait(&format!("the answer about the record at {at} was not taken in"), |state| {
            let answers = &state.seen.get(at)?.answers;
            answers.iter().find(|(of, _)| of == jti).map(|(_, effect)| effect.clone())
        })
    }

    /// Waits until somebody is asked about a question over HTTP.
    pub(super) fn wanted(&self, challenge: &str) -> Result<Box<Challenge>, DemoError> {
        self.wait(&format!("the challenge {challenge} was not published"), |state| {
            state.wanted.get(challenge).cloned()
        })
    }

    /// Waits until an answer to what was asked over HTTP was taken in; its effect.
    pub(super) fn heard(&self, jti: &str) -> Result<String, DemoError> {
        self.wait("the answer to a question was not taken in", |state| state.heard.get(jti).cloned())
    }

    /// Waits for the audit record of what was asked over HTTP.
    pub(super) fn asked(&self, decision: &str) -> Result<Audited, DemoError> {
        self.wait(&format!("the decision {decision} has no audit record"), |state| {
            state.asked.get(decision).cloned()
        })
    }

    fn wait<T>(&self, lacking: &str, find: impl Fn(&State) -> Option<T>) -> Result<T, DemoError> {
        let deadline = Instant::now() + PATIENCE;
        let mut state = self.shared.lock();
        loop {
            if let Some(found) = find(&state) {
                return Ok(found);
            }
            if Instant::now() >= deadline {
                let (lacking, problem) = (lacking.to_owned(), state.problem.clone());
                return Err(DemoError::Lacking { lacking, seconds: PATIENCE.as_secs(), problem });
            }
            state = self
                .shared
                .news
                .wait_timeout(state, Duration::from_millis(100))
                .unwrap_or_else(PoisonError::into_inner)
                .0;
        }
    }

    /// How many records have both an outcome and the audit record of it.
    pub(super) fn decided(&self) -> u64 {
        self.shared.lock().totals.decided()
    }

    /// The totals at this moment.
    pub(super) fn totals(&self) -> Totals {
        self.shared.lock().totals.clone()
    }

    /// The totals once everything that was done has its outcome and its audit record, and nothing more comes.
    pub(super) fn settle(&self, deeds: &Deeds) -> Result<Totals, DemoError> {
        let standing = || {
            let totals = self.totals();
            let open = deeds.sent.saturating_sub(totals.decided())
                + totals.must_be_audited(deeds).saturating_sub(totals.audited);
            (open, deeds.sent.saturating_sub(totals.decided()))
        };
        let mut last = (Instant::now(), standing().0);
        while last.1 > 0 {
            std::thread::sleep(Duration::from_millis(10));
            let (open, missing) = standing();
            if open < last.1 {
                last = (Instant::now(), open);
            } else if last.0.elapsed() > PATIENCE {
                // Where only audit records are missing, the totals say so.
                if missing == 0 {
                    break;
                }
                let seconds = PATIENCE.as_secs();
                return Err(DemoError::Missing { seconds, missing, sent: deeds.sent });
            }
        }
        std::thread::sleep(SETTLE);
        Ok(self.totals())
    }
}

impl Drop for Observer {
    fn drop(&mut self) {
        self.shared.stop.store(true, Ordering::Release);
        if let Some(thread) = self.thread.take() {
            let _ = thread.join();
        }
    }
}
