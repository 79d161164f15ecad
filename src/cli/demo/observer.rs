//! Watches what becomes of every record: reads destinations, dead letters and audit topics, and finds the outcome of a
//! record by where it stood. Limits: it believes a destination record only by its countersignature, as a worker would.

use std::collections::{BTreeMap, HashMap};
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Condvar, Mutex, MutexGuard, PoisonError};
use std::thread::JoinHandle;
use std::time::{Duration, Instant};

use rdkafka::consumer::{BaseConsumer, Consumer as _};
use rdkafka::topic_partition_list::{Offset, TopicPartitionList};
use serde::Serialize;

use super::DemoError;
use super::world::{PARTITIONS, World};
use crate::authorize::audit::AuditRecord;
use crate::authorize::ids::{Coordinates, Topic};
use crate::authorize::record::Record;
use crate::stream::kafka::record;
use crate::wire::audit::AuditCodec;
use crate::worker::{Received, Verifier};

/// What became of a record.
#[derive(Debug, Clone)]
pub(super) enum Outcome {
    /// It was forwarded, and its countersignature holds.
    Forwarded(Box<Received>),
    /// It was denied.
    Denied,
}

/// What is known of a record.
#[derive(Debug, Clone, Default)]
pub(super) struct Seen {
    pub(super) outcome: Option<Outcome>,
    pub(super) audit: Option<Audited>,
    outcomes: u32,
    audits: u32,
}

/// What the audit record says.
#[derive(Debug, Clone)]
pub(super) struct Audited {
    pub(super) reason: Option<String>,
    pub(super) detail: Option<String>,
    pub(super) policies: Vec<String>,
}

/// How many of each there were.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize)]
pub(super) struct Totals {
    pub(super) forwarded: u64,
    pub(super) denied: u64,
    pub(super) by_reason: BTreeMap<String, u64>,
    pub(super) audited: u64,
    /// Destination records whose countersignature does not hold.
    #[serde(skip)]
    unverified: u64,
    /// Records with more than one outcome or audit record.
    #[serde(skip)]
    doubled: u64,
}

impl Totals {
    /// What cannot be, if every record has exactly one outcome and one audit record.
    pub(super) fn surprises(&self, sent: u64) -> Vec<String> {
        let mut found = Vec::new();
        let mut mind = |wrong: bool, what: String| {
            if wrong {
                found.push(what);
            }
        };
        mind(self.unverified > 0, format!("{} forwarded records do not verify", self.unverified));
        mind(self.doubled > 0, format!("{} records have more than one outcome", self.doubled));
        let outcomes = self.forwarded + self.denied;
        mind(outcomes != sent, format!("{sent} records were sent and {outcomes} outcomes seen"));
        mind(self.audited != sent, format!("{sent} records were sent and {} audited", self.audited));
        found
    }
}

#[derive(Default)]
struct State {
    /// What is known of each record; while records are only counted, of those that are not decided yet.
    seen: HashMap<Coordinates, Seen>,
    totals: Totals,
    problem: Option<String>,
    counts_only: bool,
}

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

/// How long an outcome may stay away.
const PATIENCE: Duration = Duration::from_secs(30);
/// A doubled outcome would come at once after its twin.
const SETTLE: Duration = Duration::from_millis(300);

impl Observer {
    pub(super) fn start(world: &World) -> Result<Self, DemoError> {
        let reader = Reader {
            authorized: world.topics("authorized")?,
            denied: world.topics("denied")?,
            audit: world.topics("audit")?,
            verifier: Verifier::new(crate::authorize::ids::Realm::parse("demo")?, world.trust()),
            codec: AuditCodec::new()?,
        };
        let consumer: BaseConsumer = world
            .client()
            .set("group.id", "countersign-demo-observer")
            .set("enable.auto.commit", "false")
            .set("isolation.level", "read_committed")
            .set("auto.offset.reset", "earliest")
            .set("fetch.wait.max.ms", "50")
            .create()?;
        let mut list = TopicPartitionList::new();
        for topic in [&reader.authorized, &reader.denied, &reader.audit].into_iter().flatten() {
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

    /// Waits for what becomes of a record.
    pub(super) fn wait(&self, of: &Coordinates) -> Result<Seen, DemoError> {
        let deadline = Instant::now() + PATIENCE;
        let mut state = self.shared.lock();
        loop {
            match state.seen.get(of) {
                Some(seen) if seen.outcome.is_some() && seen.audit.is_some() => return Ok(seen.clone()),
                _ if Instant::now() >= deadline => {
                    let problem = state.problem.clone();
                    return Err(DemoError::NoOutcome {
                        at: of.to_string(),
                        seconds: PATIENCE.as_secs(),
                        problem,
                    });
                }
                _ => {}
            }
            state = self
                .shared
                .news
                .wait_timeout(state, Duration::from_millis(100))
                .unwrap_or_else(PoisonError::into_inner)
                .0;
        }
    }

    /// How many records have both an outcome and an audit record.
    pub(super) fn decided(&self) -> u64 {
        let state = self.shared.lock();
        (state.totals.forwarded + state.totals.denied + state.totals.unverified).min(state.totals.audited)
    }

    /// The totals at this moment.
    pub(super) fn totals(&self) -> Totals {
        self.shared.lock().totals.clone()
    }

    /// The totals once so many records have outcomes, and nothing more comes.
    pub(super) fn settle(&self, sent: u64) -> Result<Totals, DemoError> {
        let mut last = (Instant::now(), self.decided());
        while last.1 < sent {
            std::thread::sleep(Duration::from_millis(10));
            let decided = self.decided();
            if decided > last.1 {
                last = (Instant::now(), decided);
            } else if last.0.elapsed() > PATIENCE {
                let seconds = PATIENCE.as_secs();
                return Err(DemoError::Missing { seconds, missing: sent - decided, sent });
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

struct Reader {
    authorized: Vec<Topic>,
    denied: Vec<Topic>,
    audit: Vec<Topic>,
    verifier: Verifier,
    codec: AuditCodec,
}

impl Reader {
    fn take(&self, record: &Record, state: &mut State) {
        let topic = &record.source.topic;
        if self.authorized.contains(topic) {
            match self.verifier.verify(record) {
                Ok(received) => {
                    state.totals.forwarded += 1;
                    let at = coordinates(&received.source);
                    outcome(state, at, Outcome::Forwarded(Box::new(received)));
                }
                Err(denial) => {
                    state.totals.unverified += 1;
                    state.problem = Some(denial.to_string());
                }
            }
        } else if self.denied.contains(topic) {
            let reason = header(record, "denied-reason").unwrap_or_default();
            state.totals.denied += 1;
            *state.totals.by_reason.entry(reason).or_default() += 1;
            let parts = ["original-topic", "original-partition", "original-offset"];
            let source: Vec<String> = parts.iter().filter_map(|name| header(record, name)).collect();
            outcome(state, coordinates(&source.join("/")), Outcome::Denied);
        } else if self.audit.contains(topic) {
            self.audit(record, state);
        }
    }

    fn audit(&self, record: &Record, state: &mut State) {
        let AuditRecord { topic, partition, offset, reason, detail, policies, .. } =
            match self.codec.decode(record.value.as_deref().unwrap_or_default()) {
                Ok(audit) => audit,
                Err(problem) => {
                    state.problem = Some(format!("an audit record cannot be read: {problem}"));
                    return;
                }
            };
        state.totals.audited += 1;
        let Some(at) = coordinates(&format!("{topic}/{partition}/{offset}")) else { return };
        let seen = state.seen.entry(at.clone()).or_default();
        seen.audits += 1;
        if seen.audits == 2 {
            state.totals.doubled += 1;
        }
        seen.audit = Some(Audited { reason, detail, policies });
        forget(state, &at);
    }
}

fn outcome(state: &mut State, at: Option<Coordinates>, outcome: Outcome) {
    let Some(at) = at else { return };
    let seen = state.seen.entry(at.clone()).or_default();
    seen.outcomes += 1;
    if seen.outcomes == 2 {
        state.totals.doubled += 1;
    }
    seen.outcome = Some(outcome);
    forget(state, &at);
}

/// What comes after both, a second outcome, shows in the totals.
fn forget(state: &mut State, at: &Coordinates) {
    let decided = state.seen.get(at).is_some_and(|seen| seen.outcome.is_some() && seen.audit.is_some());
    if state.counts_only && decided {
        state.seen.remove(at);
    }
}

fn header(record: &Record, name: &str) -> Option<String> {
    let header = record.headers.iter().rev().find(|header| header.name == name.as_bytes())?;
    Some(String::from_utf8_lossy(header.value.as_deref()?).into_owned())
}

/// Reads `topic/partition/offset`.
fn coordinates(text: &str) -> Option<Coordinates> {
    let mut parts = text.split('/');
    let (topic, partition, offset) = (parts.next()?, parts.next()?, parts.next()?);
    Some(Coordinates {
        topic: Topic::parse(topic).ok()?,
        partition: crate::authorize::ids::Partition(partition.parse().ok()?),
        offset: crate::authorize::ids::Offset(offset.parse().ok()?),
    })
}
