//! Tells work in flight what was taken in: publishes signals and heartbeats on the `signals` topic, on a thread of its own,
//! outside of the decision transactions. Limits: what is told waits in memory, some 500 bytes each, until the broker has
//! taken it; what a gate is told and does not publish because it dies, another gate publishes, or itself after its start,
//! if that is no later than some minutes.
//!
//! A heartbeat carries the moment that the view reached to, and goes out, to every partition, only once everything that was
//! taken in by that moment has been taken by the broker. A gate that is behind, or whose broker is away, sends none.

use std::collections::{BTreeMap, VecDeque};
use std::sync::mpsc::{self, Receiver, RecvTimeoutError, Sender};
use std::sync::{Arc, Mutex, PoisonError};
use std::thread::JoinHandle;
use std::time::{Duration, Instant};

use rdkafka::error::{KafkaError, RDKafkaErrorCode};
use rdkafka::message::DeliveryResult;
use rdkafka::producer::{BaseProducer, BaseRecord, Producer as _, ProducerContext};

use super::{Applied, Hears};
use crate::authorize::engine::Engine;
use crate::authorize::ids::{Topic, UnixMillis};
use crate::config::KafkaProperties;
use crate::stream::clock::{Clock as _, SystemClock};
use crate::stream::freshness::{Freshness, Instants};
use crate::stream::kafka::client::{self, reports_to_the_log};
use crate::telemetry::Telemetry;
use crate::telemetry::events::{SignalPublished, SignalsHeldUp};
use crate::wire::signal::{self, Heartbeat, Said, Signal};

/// How often a heartbeat goes out.
const HEARTBEAT: Duration = Duration::from_secs(1);
/// How long one turn waits for something to tell.
const TURN: Duration = Duration::from_millis(5);
/// How often the number of partitions is looked at.
const GROWTH: Duration = Duration::from_secs(10);
/// How long the broker may take to name the partitions.
const METADATA: Duration = Duration::from_secs(2);
/// How long the end may take: what is not taken by then another gate tells, or this one after its start.
const END: Duration = Duration::from_secs(2);
/// Signals on their way at once. The rest wait here, so that the client's own queue cannot fill.
const UNDER_WAY: usize = 10_000;

/// What the publisher is told, in order.
enum Told {
    Signal(Signal),
    End,
}

/// Says to which moment the view of everything that is followed reaches: whatever was written before was told. `None`
/// where it reaches nowhere yet.
pub type Reached = Box<dyn Fn() -> Option<UnixMillis> + Send>;

/// Tells a publisher. Clones are cheap; none of its calls waits.
#[derive(Debug, Clone)]
pub struct Teller(Sender<Told>);

impl Teller {
    /// Something was taken in that work in flight may have to hear of.
    pub fn signal(&self, signal: Signal) {
        // The publisher ends last; what is told to one that has ended, another gate tells.
        let _ = self.0.send(Told::Signal(signal));
    }
}

/// The thread that publishes. Dropping it sends what is left, for at most two seconds.
#[derive(Debug)]
pub struct Publisher {
    teller: Teller,
    thread: Option<JoinHandle<()>>,
}

/// Why nothing can be published.
#[derive(Debug, thiserror::Error)]
pub enum PublisherError {
    /// The client takes no such settings.
    #[error("the signals cannot be published: {0}")]
    Client(#[from] KafkaError),
    /// No thread could be started.
    #[error("the signals cannot be published: {0}")]
    Thread(#[from] std::io::Error),
}

/// The moment that a followed view reaches to.
pub fn reach_of(freshness: Freshness, clock: fn() -> UnixMillis) -> Reached {
    Box::new(move || {
        let age = freshness.age(Instants::now())?.as_millis();
        Some(UnixMillis(clock().0.saturating_sub(i64::try_from(age).ok()?)))
    })
}

impl Publisher {
    /// Publishes on `topic` as the engine's gate. `instance` tells this process from others of the same gate; `reached`
    /// says to which moment the view reaches.
    ///
    /// # Errors
    /// Settings that librdkafka refuses; no thread.
    pub fn start(
        properties: &KafkaProperties,
        topic: Topic,
        engine: Arc<Engine>,
        instance: String,
        telemetry: Telemetry,
        reached: Reached,
    ) -> Result<Self, PublisherError> {
        let producer = producer(properties)?;
        let (sender, told) = mpsc::channel();
        let mut work = Work {
            producer,
            topic,
            engine,
            instance,
            telemetry,
            clock: SystemClock::start(),
            waiting: VecDeque::new(),
            under_way: BTreeMap::new(),
            next: 0,
            reached,
            views: VecDeque::new(),
            told_until: None,
            partitions: Partitions::default(),
            beaten: None,
        };
        let thread =
            std::thread::Builder::new().name("publisher".to_owned()).spawn(move || work.run(&told))?;
        Ok(Self { teller: Teller(sender), thread: Some(thread) })
    }

    /// For the follower: whatever comes into force is told on.
    pub fn hears(&self, clock: fn() -> UnixMillis) -> Hears {
        let teller = self.teller();
        Box::new(move |applied| match applied {
            Applied::Workflow { at, id, status } => {
                signal::of_workflow(&at, clock(), &id, status).into_iter().for_each(|it| teller.signal(it));
            }
            Applied::Revocation { at, revocation } => {
                signal::of_revocation(&at, clock(), &revocation).into_iter().for_each(|it| teller.signal(it));
            }
        })
    }

    /// For whoever else tells it.
    pub fn teller(&self) -> Teller {
        self.teller.clone()
    }
}

impl Drop for Publisher {
    fn drop(&mut self) {
        // Tellers elsewhere keep the channel open, so it is told.
        let _ = self.teller.0.send(Told::End);
        if let Some(thread) = self.thread.take() {
            // One that broke has nothing left to say.
            let _ = thread.join();
        }
    }
}

fn producer(properties: &KafkaProperties) -> Result<BaseProducer<Answers>, KafkaError> {
    // Sent at once, kept in order within a partition, and answered by all replicas.
    client::settings(properties, &[])
        .set("linger.ms", "0")
        .set("acks", "all")
        .set("enable.idempotence", "true")
        .set("message.timeout.ms", "10000")
        .create_with_context(Answers::default())
}

/// What became of the signals that were sent, by their number. Heartbeats have none.
#[derive(Default)]
struct Answers(Mutex<Vec<(u64, Result<(), KafkaError>)>>);

reports_to_the_log!(Answers);

impl ProducerContext for Answers {
    type DeliveryOpaque = Box<Option<u64>>;

    fn delivery(&self, result: &DeliveryResult<'_>, number: Self::DeliveryOpaque) {
        if let Some(number) = *number {
            let result = result.as_ref().map(drop).map_err(|(error, _)| error.clone());
            self.0.lock().unwrap_or_else(PoisonError::into_inner).push((number, result));
        }
    }
}

#[derive(Default)]
struct Partitions {
    count: i32,
    looked: Option<Instant>,
}

struct Work {
    producer: BaseProducer<Answers>,
    topic: Topic,
    engine: Arc<Engine>,
    instance: String,
    telemetry: Telemetry,
    clock: SystemClock,
    /// Told and not sent, by number.
    waiting: VecDeque<(u64, Signal)>,
    /// Sent and not answered.
    under_way: BTreeMap<u64, Signal>,
    next: u64,
    reached: Reached,
    /// Moments that the view reached to, each with the number that the next signal had then.
    views: VecDeque<(u64, UnixMillis)>,
    /// The last of them before which everything was taken by the broker.
    told_until: Option<UnixMillis>,
    partitions: Partitions,
    beaten: Option<Instant>,
}

impl Work {
    fn run(&mut self, told: &Receiver<Told>) {
        loop {
            let first = match told.recv_timeout(TURN) {
                Ok(first) => Some(first),
                Err(RecvTimeoutError::Timeout) => None,
                Err(RecvTimeoutError::Disconnected) => Some(Told::End),
            };
            // INVARIANT: asked before the rest is heard. What was taken in by that moment was told before it was said.
            let as_of = (self.reached)();
            for told in first.into_iter().chain(told.try_iter()) {
                if !self.hear(told) {
                    return self.end();
                }
            }
            as_of.into_iter().for_each(|as_of| self.note(as_of));
            self.turn();
            self.beat();
        }
    }

    /// False at the end.
    fn hear(&mut self, told: Told) -> bool {
        match told {
            Told::End => return false,
            Told::Signal(signal) => {
                self.waiting.push_back((self.next, signal));
                self.next += 1;
            }
        }
        true
    }

    /// Notes how far everything goes that was heard so far.
    fn note(&mut self, as_of: UnixMillis) {
        match self.views.back_mut() {
            Some((number, last)) if *number == self.next => *last = as_of,
            _ => self.views.push_back((self.next, as_of)),
        }
    }

    /// Sends what waits, and looks what has become of what was sent.
    fn turn(&mut self) {
        while self.under_way.len() < UNDER_WAY
            && let Some((number, signal)) = self.waiting.pop_front()
        {
            if let Err(error) = self.send(&Said::Signal(signal.clone()), None, Some(number)) {
                self.hold_up(&error);
                self.waiting.push_front((number, signal));
                break;
            }
            self.under_way.insert(number, signal);
        }
        self.producer.poll(Duration::ZERO);
        let answers =
            std::mem::take(&mut *self.producer.context().0.lock().unwrap_or_else(PoisonError::into_inner));
        for (number, result) in answers {
            let Some(signal) = self.under_way.remove(&number) else { continue };
            match result {
                Ok(()) => {
                    SignalPublished { kind: signal.about.kind.as_str(), id: signal.id }.emit(&self.telemetry)
                }
                Err(error) => {
                    self.hold_up(&error.to_string());
                    // Told again: who has it already drops the double.
                    self.waiting.push_front((number, signal));
                }
            }
        }
        let oldest =
            self.waiting.iter().map(|(number, _)| *number).chain(self.under_way.keys().copied()).min();
        while let Some((number, as_of)) = self.views.front().copied()
            && oldest.is_none_or(|oldest| oldest >= number)
        {
            self.told_until = Some(as_of);
            self.views.pop_front();
        }
    }

    /// Says once a second that this gate is there, if there is news of that.
    fn beat(&mut self) {
        if self.beaten.is_some_and(|at| at.elapsed() < HEARTBEAT) {
            return;
        }
        let Some(as_of) = self.told_until.take() else { return };
        self.beaten = Some(Instant::now());
        self.look_at_partitions();
        let said = Said::Heartbeat(Heartbeat { instance: self.instance.clone(), as_of });
        for partition in 0..self.partitions.count {
            if let Err(error) = self.send(&said, Some(partition), None) {
                return self.hold_up(&error);
            }
        }
    }

    fn look_at_partitions(&mut self) {
        if self.partitions.count > 0 && self.partitions.looked.is_some_and(|at| at.elapsed() < GROWTH) {
            return;
        }
        self.partitions.looked = Some(Instant::now());
        match self.producer.client().fetch_metadata(Some(self.topic.as_str()), METADATA) {
            Ok(metadata) => {
                let count = metadata.topics().first().map_or(0, |topic| topic.partitions().len());
                self.partitions.count = i32::try_from(count).unwrap_or(i32::MAX);
            }
            Err(error) => self.hold_up(&error.to_string()),
        }
    }

    fn send(&mut self, said: &Said, partition: Option<i32>, number: Option<u64>) -> Result<(), String> {
        let token = signal::sign(said, self.engine.gate(), &self.topic, self.clock.now())
            .map_err(|error| error.to_string())?;
        let key = signal::key(said);
        let mut record = BaseRecord::with_opaque_to(self.topic.as_str(), Box::new(number))
            .key(key.as_bytes())
            .payload(token.as_bytes());
        record.partition = partition;
        match self.producer.send(record) {
            Ok(()) => Ok(()),
            Err((error, _)) => {
                if error.rdkafka_error_code() == Some(RDKafkaErrorCode::QueueFull) {
                    self.producer.poll(TURN);
                }
                Err(error.to_string())
            }
        }
    }

    fn hold_up(&self, problem: &str) {
        SignalsHeldUp { waiting: self.waiting.len() + self.under_way.len(), problem }.emit(&self.telemetry);
    }

    fn end(&mut self) {
        let began = Instant::now();
        while began.elapsed() < END && (!self.waiting.is_empty() || !self.under_way.is_empty()) {
            self.turn();
            self.producer.poll(TURN);
        }
    }
}
