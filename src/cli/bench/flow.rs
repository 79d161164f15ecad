//! Records in and out, each with the instant at which it was handed over and the instant at which its outcome was seen by
//! a reader of committed records: one clock, since one process does both. Limits: an outcome counts for the record whose
//! key it has.

use std::collections::BTreeMap;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::thread::JoinHandle;
use std::time::{Duration, Instant};

use rdkafka::consumer::{BaseConsumer, Consumer as _};
use rdkafka::error::{KafkaError, RDKafkaErrorCode};
use rdkafka::message::Message as _;
use rdkafka::producer::{BaseRecord, DefaultProducerContext, Producer as _, ThreadedProducer};

use super::BenchError;
use super::ground::{Ground, from_the_beginning};
use super::records::{Made, Proof, Sender, number};
use crate::authorize::ids::Topic;
use crate::cli::interrupt::Flag;
use crate::stream::kafka_ffi;

/// Bound of a wait for the broker.
const PATIENCE: Duration = Duration::from_secs(60);
/// How often records are handed over where they come at a steady pace.
pub(super) const TICK: Duration = Duration::from_millis(2);
const POLL: Duration = Duration::from_millis(20);

/// When each record came and went, in nanoseconds from a beginning; 0 is not yet.
pub(super) struct Traces {
    begun: Instant,
    sent: Vec<AtomicU64>,
    seen: Vec<AtomicU64>,
    /// How many records have an outcome.
    count: AtomicU64,
    /// Outcomes that were seen a second time, or that belong to no record.
    surplus: AtomicU64,
}

impl Traces {
    /// Traces of so many records, numbered from 0.
    pub(super) fn new(records: u64) -> Self {
        let empty = || (0..records).map(|_| AtomicU64::new(0)).collect();
        Self {
            begun: Instant::now(),
            sent: empty(),
            seen: empty(),
            count: AtomicU64::new(0),
            surplus: AtomicU64::new(0),
        }
    }

    /// How long ago the beginning was.
    pub(super) fn now(&self) -> u64 {
        u64::try_from(self.begun.elapsed().as_nanos()).unwrap_or(u64::MAX).max(1)
    }

    /// How many records there may be.
    pub(super) fn len(&self) -> u64 {
        self.sent.len() as u64
    }

    /// Says when a record came and went.
    #[cfg(test)]
    pub(super) fn set(&self, number: u64, sent: u64, seen: u64) {
        let number = usize::try_from(number).unwrap();
        self.sent[number].store(sent, Ordering::Release);
        self.seen[number].store(seen, Ordering::Release);
    }

    fn sent(&self, number: u64) {
        if let Some(sent) = usize::try_from(number).ok().and_then(|number| self.sent.get(number)) {
            sent.store(self.now(), Ordering::Release);
        }
    }

    fn saw(&self, key: &[u8]) {
        let seen = number(key).and_then(|number| self.seen.get(usize::try_from(number).ok()?));
        let is_first = seen.is_some_and(|seen| seen.swap(self.now(), Ordering::AcqRel) == 0);
        let counter = if is_first { &self.count } else { &self.surplus };
        counter.fetch_add(1, Ordering::AcqRel);
    }

    /// How many records have an outcome.
    pub(super) fn count(&self) -> u64 {
        self.count.load(Ordering::Acquire)
    }

    /// How many outcomes there are that no record should have.
    pub(super) fn surplus(&self) -> u64 {
        self.surplus.load(Ordering::Acquire)
    }

    /// When a record was handed over and seen; `None` where one of both has not happened.
    pub(super) fn of(&self, number: u64) -> Option<(u64, u64)> {
        let number = usize::try_from(number).ok()?;
        let at =
            |times: &Vec<AtomicU64>| Some(times.get(number)?.load(Ordering::Acquire)).filter(|at| *at > 0);
        Some((at(&self.sent)?, at(&self.seen)?))
    }

    /// How long those of a range took, sorted, in nanoseconds.
    pub(super) fn latencies(&self, range: std::ops::Range<u64>) -> Vec<u64> {
        let mut took: Vec<u64> = range
            .filter_map(|number| self.of(number))
            .map(|(sent, seen)| seen.saturating_sub(sent))
            .collect();
        took.sort_unstable();
        took
    }
}

/// Reads outcomes until it is dropped.
pub(super) struct Reader {
    stop: Arc<AtomicBool>,
    thread: Option<JoinHandle<Result<(), KafkaError>>>,
    traces: Arc<Traces>,
}

impl Reader {
    /// Reads the outcomes in a topic, from its beginning.
    pub(super) fn start(ground: &Ground, topic: &str, traces: &Arc<Traces>) -> Result<Self, BenchError> {
        let mut client = ground.client();
        client
            .set("group.id", "countersign-bench")
            .set("isolation.level", "read_committed")
            .set("enable.auto.commit", "false")
            .set("fetch.wait.max.ms", "100");
        let consumer: BaseConsumer = client.create()?;
        consumer.assign(&from_the_beginning(topic)?)?;
        let stop = Arc::new(AtomicBool::new(false));
        let (stopped, noted) = (Arc::clone(&stop), Arc::clone(traces));
        let thread = std::thread::Builder::new().name("outcomes".to_owned()).spawn(move || {
            while !stopped.load(Ordering::Acquire) {
                match consumer.poll(POLL) {
                    Some(Ok(message)) => noted.saw(message.key().unwrap_or_default()),
                    Some(Err(error))
                        if error.rdkafka_error_code() == Some(RDKafkaErrorCode::AllBrokersDown) => {}
                    Some(Err(error)) => return Err(error),
                    None => {}
                }
            }
            Ok(())
        })?;
        Ok(Self { stop, thread: Some(thread), traces: Arc::clone(traces) })
    }

    /// Waits until so many records have an outcome, as long as some come.
    pub(super) fn wait(
        &self,
        count: u64,
        check: &mut dyn FnMut() -> Result<(), BenchError>,
    ) -> Result<(), BenchError> {
        let mut last = (Instant::now(), 0);
        loop {
            let seen = self.traces.count();
            if seen >= count {
                return Ok(());
            }
            if seen > last.1 {
                last = (Instant::now(), seen);
            } else if last.0.elapsed() > PATIENCE {
                let what = format!("the outcomes of {} of {count} records", count - seen);
                return Err(BenchError::Waiting { what, seconds: PATIENCE.as_secs() });
            }
            self.check()?;
            check()?;
            std::thread::sleep(Duration::from_millis(2));
        }
    }

    fn check(&self) -> Result<(), BenchError> {
        match &self.thread {
            Some(thread) if thread.is_finished() => Err(BenchError::Reader),
            _ => Ok(()),
        }
    }
}

impl Drop for Reader {
    fn drop(&mut self) {
        self.stop.store(true, Ordering::Release);
        if let Some(thread) = self.thread.take() {
            let _ = thread.join();
        }
    }
}

/// Hands records over.
pub(super) struct Feed {
    producer: ThreadedProducer<DefaultProducerContext>,
    topic: Topic,
}

impl Feed {
    /// A feed of a topic. `linger_ms` is how long the client gathers records before it sends them.
    pub(super) fn new(ground: &Ground, topic: &str, linger_ms: &str) -> Result<Self, BenchError> {
        let mut client = ground.client();
        client.set("linger.ms", linger_ms).set("acks", "all").set("queue.buffering.max.messages", "200000");
        Ok(Self { producer: client.create()?, topic: Topic::parse(topic)? })
    }

    /// Makes the records of a range and hands them over, by so many threads.
    pub(super) fn load(
        &self,
        sender: &Sender,
        proof: Proof,
        range: std::ops::Range<u64>,
        stop: &Flag,
    ) -> Result<(), BenchError> {
        let threads = std::thread::available_parallelism().map_or(1, usize::from);
        std::thread::scope(|scope| {
            let shares: Vec<_> = (0..threads)
                .map(|share| {
                    let range = range.clone();
                    scope.spawn(move || {
                        for number in range.skip(share).step_by(threads) {
                            if stop.is_set() {
                                return Err(BenchError::Interrupted);
                            }
                            self.hand_over(&sender.make(&self.topic, proof, number, 1)?)?;
                        }
                        Ok(())
                    })
                })
                .collect();
            shares.into_iter().try_for_each(|share| share.join().unwrap_or(Err(BenchError::Panicked)))
        })?;
        self.flush()
    }

    /// Makes the records of a range, by several threads, and keeps them; so many in a row go to the same partition.
    pub(super) fn make(
        &self,
        sender: &Sender,
        proof: Proof,
        range: std::ops::Range<u64>,
        run: u64,
    ) -> Result<Vec<Made>, BenchError> {
        let threads = std::thread::available_parallelism().map_or(1, usize::from);
        let made = std::thread::scope(|scope| {
            let shares: Vec<_> = (0..threads)
                .map(|share| {
                    let numbers = range.clone().skip(share).step_by(threads);
                    scope.spawn(move || {
                        numbers
                            .map(|number| Ok((number, sender.make(&self.topic, proof, number, run)?)))
                            .collect::<Result<Vec<_>, BenchError>>()
                    })
                })
                .collect();
            shares
                .into_iter()
                .map(|share| share.join().unwrap_or(Err(BenchError::Panicked)))
                .collect::<Result<Vec<_>, BenchError>>()
        })?;
        let sorted: BTreeMap<u64, Made> = made.into_iter().flatten().collect();
        Ok(sorted.into_values().collect())
    }

    /// Hands records over at a steady pace, so many a second, whatever becomes of them.
    pub(super) fn pace(
        &self,
        records: Vec<Made>,
        per_second: f64,
        traces: &Traces,
        check: &mut dyn FnMut() -> Result<(), BenchError>,
    ) -> Result<(), BenchError> {
        let begun = Instant::now();
        let mut records = records.into_iter().enumerate().peekable();
        while records.peek().is_some() {
            let due = begun.elapsed().as_secs_f64() * per_second;
            while let Some((_, made)) = records.next_if(|(at, _)| (*at as f64) < due) {
                self.hand_over_traced(&made, traces)?;
            }
            check()?;
            std::thread::sleep(TICK);
        }
        self.flush()
    }

    /// Makes records and hands them over at a steady pace, until it is over; says how many it were. So many in a row go
    /// to the same partition.
    pub(super) fn stream(
        &self,
        sender: &Sender,
        proof: Proof,
        (per_second, run): (f64, u64),
        traces: &Traces,
        over: &AtomicBool,
    ) -> Result<u64, BenchError> {
        let (begun, mut number) = (Instant::now(), 0);
        while !over.load(Ordering::Acquire) {
            let due = (begun.elapsed().as_secs_f64() * per_second) as u64;
            while number < due {
                if number >= traces.len() {
                    let what = "the end of what was to happen".to_owned();
                    return Err(BenchError::Waiting { what, seconds: begun.elapsed().as_secs() });
                }
                self.hand_over_traced(&sender.make(&self.topic, proof, number, run)?, traces)?;
                number += 1;
            }
            std::thread::sleep(TICK);
        }
        self.flush()?;
        Ok(number)
    }

    /// Hands records over as outcomes come, so that so many are under way.
    pub(super) fn keep_under_way(
        &self,
        records: Vec<Made>,
        under_way: u64,
        traces: &Traces,
        check: &mut dyn FnMut() -> Result<(), BenchError>,
    ) -> Result<(), BenchError> {
        let before = traces.count();
        let mut last = (Instant::now(), before);
        for (at, made) in (0..).zip(records) {
            loop {
                let seen = traces.count();
                if at < seen - before + under_way {
                    break;
                }
                if seen > last.1 {
                    last = (Instant::now(), seen);
                } else if last.0.elapsed() > PATIENCE {
                    let what = format!("the outcomes of {under_way} records under way");
                    return Err(BenchError::Waiting { what, seconds: PATIENCE.as_secs() });
                }
                check()?;
                std::thread::sleep(TICK / 4);
            }
            self.hand_over_traced(&made, traces)?;
        }
        self.flush()
    }

    fn hand_over_traced(&self, made: &Made, traces: &Traces) -> Result<(), BenchError> {
        if let Some(number) = number(&made.key) {
            traces.sent(number);
        }
        self.hand_over(made)
    }

    fn hand_over(&self, made: &Made) -> Result<(), BenchError> {
        let headers =
            kafka_ffi::to_send(&made.headers).ok_or(KafkaError::MessageProduction(RDKafkaErrorCode::Fail))?;
        let mut record = BaseRecord::to(self.topic.as_str())
            .partition(made.partition)
            .key(&made.key[..])
            .payload(&made.value)
            .headers(headers);
        loop {
            match self.producer.send(record) {
                Ok(()) => return Ok(()),
                Err((KafkaError::MessageProduction(RDKafkaErrorCode::QueueFull), back)) => {
                    record = back;
                    std::thread::sleep(Duration::from_millis(1));
                }
                Err((error, _)) => return Err(error.into()),
            }
        }
    }

    fn flush(&self) -> Result<(), BenchError> {
        if kafka_ffi::flush(self.producer.client(), PATIENCE) {
            Ok(())
        } else {
            let what = "the broker to take all records".to_owned();
            Err(BenchError::Waiting { what, seconds: PATIENCE.as_secs() })
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_outcome_counts_once_and_for_its_own_record() {
        let traces = Traces::new(3);
        for number in 0..3 {
            traces.sent(number);
        }
        traces.saw(&1_u64.to_be_bytes());
        assert_eq!((traces.count(), traces.surplus()), (1, 0));
        traces.saw(&1_u64.to_be_bytes());
        traces.saw(&3_u64.to_be_bytes());
        traces.saw(b"other");
        assert_eq!((traces.count(), traces.surplus()), (1, 3));
        assert!(traces.of(0).is_none() && traces.of(1).is_some_and(|(sent, seen)| sent <= seen));
        assert_eq!(traces.latencies(0..3).len(), 1);
    }
}
