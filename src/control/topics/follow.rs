//! The one turn of the thread that follows: count partitions, pulse, read, apply, publish, announce. Limits: what waits for a
//! broker waits for seconds at most, and what fails is tried again in the next turn.

use std::sync::Arc;
use std::time::{Duration, Instant};

use rdkafka::error::KafkaError;

use super::announcement::{Announcement, silent_after};
use super::backlog::Backlog;
use super::facts::Facts;
use super::pins::Taken;
use super::reader::Reader;
use super::view::View;
use super::writer::{Writer, Written};
use super::{Applied, EACH, FollowError, FollowSettings, Followed, Hears};
use crate::authorize::ids::{Partition, Position, Topic, UnixMillis};
use crate::authorize::route::Partitioner;
use crate::control::Control;
use crate::stream::freshness::{Freshness, Instants};
use crate::stream::gate::TRANSACTION_TIMEOUT;
use crate::stream::kafka::settings::SESSION;
use crate::stream::log::TopicPartition;
use crate::telemetry::Telemetry;
use crate::telemetry::events::{
    ControlAway, ControlGrew, ControlRead, ControlViewed, ViewCurrent, ViewStale,
};
use crate::wire::workflow::WorkflowCodec;

/// How long one turn waits for a record.
const WAIT: Duration = Duration::from_millis(20);
/// The same while an announcement waits until a batch ends.
const WAIT_SHORT: Duration = Duration::from_millis(2);
/// Records of one turn, at most: what was read is published at least that often.
const RECORDS: usize = 10_000;
/// How long one turn reads, at most.
const READING: Duration = Duration::from_millis(100);
/// Between two looks at how many partitions there are.
const COUNT_EACH: Duration = Duration::from_secs(2);
/// Between two times that what is over is dropped.
const FORGET_EACH: Duration = Duration::from_secs(60);
/// How long the farewell may take.
const FAREWELL: Duration = Duration::from_secs(2);

/// The thread's state.
pub(super) struct Follow {
    settings: FollowSettings,
    followed: Followed,
    control: Arc<Control>,
    freshness: Freshness,
    telemetry: Telemetry,
    clock: fn() -> UnixMillis,
    hears: Hears,
    /// What was read so far, until everything has been.
    backlog: Backlog,
    reader: Reader,
    writer: Writer,
    view: View,
    facts: Facts,
    began: Instant,
    records: u64,
    /// Whether everything has been read to its end once.
    complete: bool,
    next: Next,
    fleet: Option<Place>,
    /// What others may be waiting to hear.
    urgent: bool,
    /// What was announced last.
    announced: Option<Taken>,
    stale: bool,
    /// The last problem that was told.
    problem: Option<String>,
}

/// When each thing is to be done again.
struct Next {
    count: Instant,
    pulse: Instant,
    announce: Instant,
    forget: Instant,
}

/// Where this instance announces itself.
struct Place {
    topic: Topic,
    partition: Option<Partition>,
}

impl Follow {
    pub(super) fn new(
        settings: FollowSettings,
        control: Arc<Control>,
        freshness: Freshness,
        telemetry: Telemetry,
        clock: fn() -> UnixMillis,
        hears: Hears,
    ) -> Result<Self, FollowError> {
        let followed = Followed::of(&settings.control);
        let codec = WorkflowCodec::new()?;
        let now = Instant::now();
        Ok(Self {
            reader: Reader::new(&settings.properties, &settings.group)?,
            writer: Writer::new(&settings.properties)?,
            view: View::new(settings.control.fleet.is_some()),
            facts: Facts::new(followed.clone(), settings.control.forget_after, codec, telemetry.clone()),
            fleet: settings.control.fleet.clone().map(|topic| Place { topic, partition: None }),
            settings,
            followed,
            control,
            freshness,
            telemetry,
            clock,
            hears,
            backlog: Backlog::default(),
            began: now,
            records: 0,
            complete: false,
            next: Next { count: now, pulse: now, announce: now, forget: now + FORGET_EACH },
            urgent: false,
            announced: None,
            stale: false,
            problem: None,
        })
    }

    /// One turn.
    pub(super) fn turn(&mut self) {
        self.count();
        self.pulse();
        let mut applied = self.read();
        if let Err(error) = self.reader.read_on(&mut self.view) {
            self.away(&error.to_string());
        }
        let again = self.facts.try_again(&self.control, (self.clock)());
        applied.extend(again.into_iter().map(|applied| (applied, None)));
        self.urgent |= !applied.is_empty();
        let is_published = self.facts.publish(&self.view, &self.control);
        self.tell(applied);
        self.take_answers();
        self.announce();
        self.show(is_published);
        self.forget();
    }

    /// Tells what has come into force; before everything was read to its end, keeps what may have to be told then.
    fn tell(&mut self, applied: Vec<(Applied, Option<UnixMillis>)>) {
        let now = (self.clock)();
        for (fact, written) in applied {
            if self.complete {
                (self.hears)(fact);
            } else {
                self.backlog.note(fact, written, now);
            }
        }
    }

    /// Everything has been read to its end for the first time, and is published.
    fn caught_up(&mut self) {
        self.complete = true;
        ControlRead { took: self.began.elapsed(), records: self.records }.emit(&self.telemetry);
        let standing = self.control.snapshot().standing.clone();
        self.backlog.take(&standing, (self.clock)()).into_iter().for_each(&mut self.hears);
        if self.backlog.left_out > 0 {
            tracing::warn!(
                left_out = self.backlog.left_out,
                "too much happened shortly before the start: work in flight is not told of all of it"
            );
        }
    }

    /// Says that nobody has to wait for this instance any more, if that is so.
    pub(super) fn farewell(mut self) {
        // Whoever still held an older state would be seen once the newest is another.
        self.facts.publish(&self.view, &self.control);
        let newest = self.control.newest_taken();
        if self.control.oldest_taken() != newest {
            return;
        }
        if let Some(of) = self.place() {
            self.writer.write(Written::Announcement, &of, &self.settings.instance, None);
            self.writer.finish(FAREWELL);
        }
    }

    /// Looks how many partitions there are, and begins to read those that are new.
    fn count(&mut self) {
        if Instant::now() < self.next.count {
            return;
        }
        self.next.count = Instant::now() + COUNT_EACH;
        let asked = Instants::now();
        match self.count_all() {
            Ok(()) => self.view.counted(asked),
            Err(problem) => {
                self.next.count = Instant::now() + WAIT;
                self.away(&problem);
            }
        }
    }

    fn count_all(&mut self) -> Result<(), String> {
        for topic in self.followed.topics() {
            let count = self.writer.count(topic)?;
            let missing = self.view.missing(topic, count);
            if missing.is_empty() {
                continue;
            }
            self.reader.add(&missing).map_err(|error| error.to_string())?;
            if self.view.followed().any(|of| of.topic == *topic) {
                ControlGrew { topic, partitions: count }.emit(&self.telemetry);
            }
            missing.into_iter().for_each(|of| self.view.follow(of, Position(0)));
            self.next.pulse = Instant::now();
        }
        if let Some(place) = &mut self.fleet {
            let count = self.writer.count(&place.topic)?;
            let key = self.settings.instance.as_bytes();
            // An instance stays where it is: where the topic has grown its last word there would never be replaced.
            place.partition.get_or_insert(Partition(Partitioner::Murmur2.partition(key, count)));
        }
        Ok(())
    }

    fn place(&self) -> Option<TopicPartition> {
        let place = self.fleet.as_ref()?;
        Some(TopicPartition { topic: place.topic.clone(), partition: place.partition? })
    }

    /// Writes a pulse to every partition.
    fn pulse(&mut self) {
        if Instant::now() < self.next.pulse || !self.view.may_pulse() {
            return;
        }
        self.next.pulse = Instant::now() + EACH;
        let key = format!("pulse/{}", self.settings.instance);
        for of in self.view.followed() {
            self.writer.write(Written::Pulse, of, &key, None);
        }
    }

    /// Reads and applies what has come: what is in force by it, and when it was written.
    fn read(&mut self) -> Vec<(Applied, Option<UnixMillis>)> {
        let mut applied = Vec::new();
        let deadline = Instant::now() + READING;
        let mut wait = if self.urgent { WAIT_SHORT } else { WAIT };
        for _ in 0..RECORDS {
            match self.reader.next(wait) {
                Ok(Some(record)) => {
                    let now = (self.clock)();
                    let fact = self.facts.apply(&record, &self.control, now);
                    applied.extend(fact.map(|fact| (fact, record.timestamp)));
                    self.urgent |= record.value.is_some();
                    self.records += 1;
                    self.view.read(&TopicPartition::of(&record), record.source.offset, Instants::now());
                }
                Ok(None) => break,
                Err(error) => {
                    self.away(&said(&error));
                    break;
                }
            }
            if Instant::now() >= deadline {
                break;
            }
            wait = Duration::ZERO;
        }
        applied
    }

    /// What the broker has answered to pulses and announcements.
    fn take_answers(&mut self) {
        let answers = match self.writer.answers() {
            Ok(answers) => answers,
            Err(error) => return self.away(&error.to_string()),
        };
        for answer in answers {
            match (answer.result, answer.what) {
                (Ok((of, offset)), Written::Pulse) => self.view.pulsed(&of, offset, answer.sent),
                (Ok(_), Written::Announcement) => {
                    let limit = self.settings.control.max_staleness;
                    self.view.announced(answer.sent, Instants::now(), limit);
                }
                (Err(problem), _) => self.away(&problem),
            }
        }
    }

    /// Tells the fleet what everything that is still decided by has taken in: once a second, and as soon as it includes what
    /// others may be waiting for.
    fn announce(&mut self) {
        let Some(of) = self.place() else { return };
        let is_due = Instant::now() >= self.next.announce;
        if !is_due && !self.urgent {
            return;
        }
        let oldest = self.control.oldest_taken();
        let has_moved = self.announced.as_ref() != Some(&oldest);
        if !is_due && !has_moved {
            return;
        }
        // Nothing newer waits for a batch to end: the next change may wait for its second.
        self.urgent &= oldest != self.control.newest_taken();
        let silent = silent_after(self.settings.control.max_staleness, SESSION, TRANSACTION_TIMEOUT);
        let said = Announcement::new(
            self.settings.gate.as_str(),
            &self.settings.instance,
            (self.clock)(),
            silent,
            self.followed.topics(),
            &oldest,
        );
        self.writer.write(Written::Announcement, &of, &self.settings.instance, Some(&said.encode()));
        self.announced = Some(oldest);
        self.next.announce = Instant::now() + EACH;
    }

    /// Tells those who decide, and those who watch, how old the view is. What was read and not yet published does not make
    /// it younger.
    fn show(&mut self, is_published: bool) {
        let oldest = self.view.oldest();
        let (now, limit) = (Instants::now(), self.settings.control.max_staleness);
        let age = oldest.as_of.map(|as_of| as_of.age(now));
        if age.is_some() && is_published && !self.complete {
            // INVARIANT: before the view is said to be current: a heartbeat says that everything until then was told.
            self.caught_up();
        }
        let entries = self.facts.entries(&self.control);
        ControlViewed { part: &oldest.part, age, limit, entries }.emit(&self.telemetry);
        if is_published {
            self.freshness.set(oldest);
        }
        if !self.complete {
            return;
        }
        match self.freshness.check(now) {
            Ok(()) if std::mem::take(&mut self.stale) => {
                self.problem = None;
                ViewCurrent.emit(&self.telemetry);
            }
            Err(problem) if !std::mem::replace(&mut self.stale, true) => {
                ViewStale { problem: &problem }.emit(&self.telemetry);
            }
            _ => {}
        }
    }

    fn forget(&mut self) {
        if Instant::now() >= self.next.forget {
            self.next.forget = Instant::now() + FORGET_EACH;
            self.facts.forget((self.clock)(), self.settings.may_forget_ended);
        }
    }

    /// Tells a problem once, until the view is current again.
    fn away(&mut self, problem: &str) {
        if self.problem.as_deref() != Some(problem) {
            ControlAway { problem }.emit(&self.telemetry);
            self.problem = Some(problem.to_owned());
        }
    }
}

/// What is in the way of reading, for a person.
fn said(error: &KafkaError) -> String {
    use rdkafka::error::RDKafkaErrorCode::AutoOffsetReset;
    match error {
        KafkaError::MessageConsumption(AutoOffsetReset) => {
            "a control topic is no longer the one that was read: start the gate again, so that it reads it anew"
                .to_owned()
        }
        _ => error.to_string(),
    }
}
