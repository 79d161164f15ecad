//! One contestant's turn: it empties a topic that is full while its speed and cost are taken, every outcome is counted, and
//! then records come as fast as it takes them, at half of its speed and at a tenth, while their latencies are taken.
//! Limits: what it decides is not looked at, but that each record has its one outcome.

use std::sync::Arc;
use std::time::{Duration, Instant};

use serde::Serialize;

use super::broker::Broker;
use super::child::{Child, Signal};
use super::contestant::{Contestant, Entry};
use super::flow::{Feed, Reader, TICK, Traces};
use super::ground::Ground;
use super::records::Sender;
use super::site::Site;
use super::stats::percentile;
use super::{BenchError, Options};
use crate::cli::interrupt::Flag;

/// Between two looks at how far it has come.
const LOOK: Duration = Duration::from_millis(10);
/// How long it may take to start, and how long nothing may come of it.
const PATIENCE: Duration = Duration::from_secs(60);
/// How long an end in good order may take.
const LAST_BATCH: Duration = Duration::from_secs(15);
/// The first of its work, in which clients and caches warm up, is not counted.
const WARM_UP: u64 = 10;
/// Records gather for so long in the client that hands them over one by one.
const LINGER_MS: &str = "0.5";

/// All that is needed to give somebody a turn.
pub(super) struct Stage<'r> {
    pub(super) options: &'r Options,
    pub(super) broker: &'r Broker,
    pub(super) ground: &'r Ground,
    pub(super) site: &'r Site,
    pub(super) sender: &'r Sender,
    pub(super) stop: &'r Flag,
}

/// What one turn has shown.
#[derive(Debug, Clone, Serialize)]
pub(super) struct Turn {
    pub(super) contestant: Contestant,
    /// Counted from 1.
    pub(super) round: usize,
    pub(super) speed: Speed,
    /// Records as fast as they are taken, at half of the speed, and at a tenth.
    pub(super) full: Latency,
    pub(super) half: Latency,
    pub(super) tenth: Latency,
    /// Records that were handed over in all.
    pub(super) records: u64,
    /// Those that had an outcome.
    pub(super) came_out: u64,
    /// Outcomes that no record should have had.
    pub(super) surplus: u64,
    /// Audit records; absent where none are written.
    pub(super) audited: Option<u64>,
}

impl Turn {
    /// Whether each record had its one outcome, and one audit record where there are any. (At least once, it may have more: so
    /// it is called.)
    pub(super) fn is_exact(&self) -> bool {
        self.came_out == self.records
            && (self.surplus == 0 || self.contestant == Contestant::CopyAtLeastOnce)
            && self.audited.is_none_or(|audited| audited == self.records)
    }
}

/// How fast a full topic was emptied.
#[derive(Debug, Clone, Copy, PartialEq, Serialize)]
pub(super) struct Speed {
    /// Records a second.
    pub(super) per_second: f64,
    /// Processor time of its processes for each record, in microseconds, all threads together.
    pub(super) cpu_us: Option<f64>,
    /// The same of the broker, where it is this program's own.
    pub(super) broker_cpu_us: Option<f64>,
}

/// How long records took from being handed over to being seen by a reader of committed records.
#[derive(Debug, Clone, Copy, PartialEq, Serialize)]
pub(super) struct Latency {
    /// Records a second that were handed over.
    pub(super) per_second: f64,
    /// How many.
    pub(super) records: usize,
    /// Half of them took no longer, in milliseconds.
    pub(super) p50_ms: f64,
    /// Of a hundred, all but one took no longer.
    pub(super) p99_ms: f64,
}

impl Latency {
    fn of(took: &[u64], within: Duration) -> Self {
        let milliseconds =
            |hundredths| percentile(took, hundredths).map_or(f64::NAN, |took| took as f64 / 1e6);
        Self {
            per_second: took.len() as f64 / within.as_secs_f64(),
            records: took.len(),
            p50_ms: milliseconds(50.0),
            p99_ms: milliseconds(99.0),
        }
    }
}

/// What was seen at one moment.
struct Sample {
    at: Instant,
    done: u64,
    cpu: Option<Duration>,
    broker: Option<Duration>,
}

impl Stage<'_> {
    /// Gives a contestant its turn.
    pub(super) fn turn(&self, contestant: Contestant, round: usize) -> Result<Turn, BenchError> {
        let mut entry = self.enter(contestant, &format!("{}-{round}", contestant.name()))?;
        let turn = self.measure(contestant, round, &mut entry);
        entry.clear(self.ground);
        turn
    }

    /// Makes a contestant's topics.
    pub(super) fn enter(&self, contestant: Contestant, turn: &str) -> Result<Entry, BenchError> {
        Entry::new(contestant, turn, self.ground, self.site, self.options)
    }

    fn measure(&self, contestant: Contestant, round: usize, entry: &mut Entry) -> Result<Turn, BenchError> {
        let backlog = self.options.records;
        let feed = Feed::new(self.ground, &entry.topics.from, LINGER_MS)?;
        self.fill(contestant, entry, backlog)?;
        let (mut children, speed) = self.empty(entry, backlog)?;

        let at = |part: f64| speed.per_second * part;
        let count = |per_second: f64| (per_second * self.options.seconds).ceil().max(1.0) as u64;
        let (full, half, tenth) = (count(at(1.0)), count(at(0.5)), count(at(0.1)));
        let records = backlog + full + half + tenth;
        let traces = Arc::new(Traces::new(records));
        let reader = Reader::start(self.ground, &entry.topics.to, &traces)?;
        reader.wait(backlog, &mut || self.check(&mut children))?;

        let mut next = backlog;
        let mut phase = |count: u64, per_second: Option<f64>| -> Result<Latency, BenchError> {
            let range = next..next + count;
            next = range.end;
            // What is handed over at one look goes to one partition, as large batches as a client of that pace makes.
            let run = per_second.map_or(64, |per_second| (per_second * TICK.as_secs_f64()).ceil() as u64);
            let made = feed.make(self.sender, contestant.proof(), range.clone(), run)?;
            let begun = Instant::now();
            let mut check = || self.check(&mut children);
            match per_second {
                Some(per_second) => feed.pace(made, per_second, &traces, &mut check)?,
                None => feed.keep_under_way(made, self.options.under_way(), &traces, &mut check)?,
            }
            let within = begun.elapsed();
            reader.wait(range.end, &mut check)?;
            Ok(Latency::of(&traces.latencies(range), within))
        };
        let (tenth, half, full) =
            (phase(tenth, Some(at(0.1)))?, phase(half, Some(at(0.5)))?, phase(full, None)?);
        drop(reader);
        end(children)?;
        let audited = contestant.audits().then(|| self.ground.count(&entry.topics.audit)).transpose()?;
        Ok(Turn {
            contestant,
            round,
            speed,
            full,
            half,
            tenth,
            records,
            came_out: traces.count(),
            surplus: traces.surplus(),
            audited,
        })
    }

    /// Fills a contestant's source topic.
    pub(super) fn fill(&self, contestant: Contestant, entry: &Entry, records: u64) -> Result<(), BenchError> {
        let loading = Feed::new(self.ground, &entry.topics.from, "5")?;
        loading.load(self.sender, contestant.proof(), 0..records, self.stop)
    }

    /// Starts a contestant's processes and watches them empty their topic.
    pub(super) fn empty(&self, entry: &mut Entry, records: u64) -> Result<(Vec<Child>, Speed), BenchError> {
        let progress = self.ground.progress(entry.group(), &entry.topics.from)?;
        let mut children =
            (0..self.options.gates).map(|_| entry.start(None)).collect::<Result<Vec<_>, _>>()?;
        let mut last = Instant::now();
        let mut samples: Vec<Sample> = Vec::new();
        loop {
            self.check(&mut children)?;
            let cpu = children.iter().map(Child::cpu).sum();
            let sample =
                Sample { done: progress.done()?, at: Instant::now(), cpu, broker: self.broker.cpu() };
            if samples.last().is_none_or(|last| sample.done > last.done) {
                last = sample.at;
            } else if last.elapsed() > PATIENCE {
                let what = format!("{} of {records} records", records - sample.done);
                return Err(BenchError::Waiting { what, seconds: PATIENCE.as_secs() });
            }
            let is_last = sample.done >= records;
            samples.push(sample);
            if is_last {
                return Ok((children, speed(&samples, records)));
            }
            std::thread::sleep(LOOK);
        }
    }

    /// Stops waiting where a process has ended, or somebody wants the end.
    pub(super) fn check(&self, children: &mut [Child]) -> Result<(), BenchError> {
        if self.stop.is_set() {
            return Err(BenchError::Interrupted);
        }
        for child in children {
            if let Some(code) = child.ended()? {
                return Err(BenchError::Ended { code, words: child.last_words() });
            }
        }
        Ok(())
    }
}

/// Ends processes in good order.
pub(super) fn end(children: Vec<Child>) -> Result<(), BenchError> {
    let mut children = children;
    for child in &mut children {
        child.signal(Signal::Terminate)?;
    }
    for child in &mut children {
        match child.wait(LAST_BATCH)? {
            Some(0) => {}
            Some(code) => return Err(BenchError::Ended { code, words: child.last_words() }),
            None => {
                let what = "a process to end".to_owned();
                return Err(BenchError::Waiting { what, seconds: LAST_BATCH.as_secs() });
            }
        }
    }
    Ok(())
}

/// What the samples say, the first tenth of the records left out.
fn speed(samples: &[Sample], records: u64) -> Speed {
    let last = samples.last();
    let warm = samples.iter().find(|sample| sample.done >= records.div_ceil(WARM_UP));
    // Few records may all be done between two looks: then what was seen before stands for the beginning.
    let before_last = samples.len().checked_sub(2).and_then(|at| samples.get(at));
    let first = warm.filter(|first| last.is_some_and(|last| last.done > first.done)).or(before_last);
    let (Some(first), Some(last)) = (first, last) else {
        return Speed { per_second: f64::NAN, cpu_us: None, broker_cpu_us: None };
    };
    let done = (last.done - first.done) as f64;
    let each = |from: Option<Duration>, to: Option<Duration>| {
        Some(to?.saturating_sub(from?).as_secs_f64() * 1e6 / done)
    };
    Speed {
        per_second: done / last.at.duration_since(first.at).as_secs_f64(),
        cpu_us: each(first.cpu, last.cpu),
        broker_cpu_us: each(first.broker, last.broker),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn samples(seen: &[(u64, u64, u64)]) -> Vec<Sample> {
        let begun = Instant::now();
        let sample = |&(ms, done, cpu_ms): &(u64, u64, u64)| Sample {
            at: begun + Duration::from_millis(ms),
            done,
            cpu: Some(Duration::from_millis(cpu_ms)),
            broker: None,
        };
        seen.iter().map(sample).collect()
    }

    #[test]
    fn the_first_tenth_is_warming_up_and_is_not_counted() {
        let seen = samples(&[
            (0, 0, 300),
            (3000, 50, 900),
            (3100, 100, 1000),
            (3500, 500, 1040),
            (4000, 1000, 1090),
        ]);
        let speed = speed(&seen, 1000);
        assert_eq!((speed.per_second, speed.cpu_us, speed.broker_cpu_us), (1000.0, Some(100.0), None));
    }

    #[test]
    fn a_run_that_is_over_between_two_looks_has_a_speed_all_the_same() {
        let speed = speed(&samples(&[(0, 0, 0), (10, 0, 10), (20, 100, 20)]), 100);
        assert_eq!((speed.per_second, speed.cpu_us), (10_000.0, Some(100.0)));
    }
}
