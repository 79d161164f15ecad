//! `bench memory`: the resident size of a gate, second by second: over a long run at a steady pace, and while far more
//! records wait than it can write, because what is between it and the broker is slow. Limits: the second needs a broker
//! that the bench starts; what the system counts as resident is the whole process, its clients' buffers included.

use std::io::{self, Write};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::{Duration, Instant};

use serde::Serialize;

use super::child::Child;
use super::contestant::Contestant;
use super::flow::{Feed, Reader, TICK, Traces};
use super::turn::{Stage, end};
use super::{BenchError, Options};

const SECOND: Duration = Duration::from_secs(1);
const MIB: f64 = 1024.0 * 1024.0;
const LINGER_MS: &str = "2";

/// The arguments of `bench memory`.
#[derive(Debug, Clone, clap::Args)]
pub(super) struct Memory {
    /// For how many seconds each of the two is watched
    #[arg(long = "for", value_name = "S", default_value_t = 60, value_parser = clap::value_parser!(u64).range(4..=86_400))]
    watch_for: u64,
    /// Records a second of the long run
    #[arg(long, value_name = "N", default_value_t = 5_000, value_parser = clap::value_parser!(u64).range(1..=1_000_000))]
    pace: u64,
    /// How many records wait while the gate can write slowly alone
    #[arg(long, value_name = "N", default_value_t = 1_000_000, value_parser = clap::value_parser!(u64).range(1..=100_000_000))]
    waiting: u64,
    /// How many bytes a second it can write in each connection
    #[arg(long, value_name = "N", default_value_t = 2_000_000, value_parser = clap::value_parser!(u64).range(1_000..=10_000_000_000))]
    width: u64,
}

impl Memory {
    /// How many bytes a second the narrow way lets through.
    pub(super) fn width(&self) -> u64 {
        self.width
    }
}

/// A gate that was watched.
#[derive(Debug, Serialize)]
pub(super) struct Watched {
    what: &'static str,
    /// Records that it had decided in the end.
    decided: u64,
    /// Its resident size in each second, in bytes.
    resident: Vec<u64>,
    /// The largest of them.
    most: u64,
    /// By how much it grew a minute in the second half of the time, in bytes.
    growth_a_minute: f64,
}

impl Watched {
    fn of(what: &'static str, decided: u64, resident: Vec<u64>) -> Self {
        let most = resident.iter().copied().max().unwrap_or_default();
        let later = resident.get(resident.len() / 2..).unwrap_or_default();
        Self { what, decided, growth_a_minute: slope(later) * 60.0, most, resident }
    }
}

/// By how much figures that follow each other grow from one to the next, by least squares.
fn slope(figures: &[u64]) -> f64 {
    let count = figures.len() as f64;
    let middle = (count - 1.0) / 2.0;
    let mean = figures.iter().map(|figure| *figure as f64).sum::<f64>() / count;
    let from_middle = |at: usize| at as f64 - middle;
    let common: f64 =
        figures.iter().enumerate().map(|(at, figure)| from_middle(at) * (*figure as f64 - mean)).sum();
    let own: f64 = (0..figures.len()).map(|at| from_middle(at).powi(2)).sum();
    if own > 0.0 { common / own } else { 0.0 }
}

type Said<'s> = &'s mut dyn FnMut(&str, u64, u64) -> Result<(), BenchError>;

/// A long run at a steady pace; false beside it where a record was lost or came out twice.
pub(super) fn long_run(
    stage: &Stage<'_>,
    memory: &Memory,
    contestant: Contestant,
    said: Said<'_>,
) -> Result<(Watched, bool), BenchError> {
    const WHAT: &str = "a long run";
    let mut entry = stage.enter(contestant, "memory-long")?;
    let records = memory.pace * (memory.watch_for + 120);
    let traces = Arc::new(Traces::new(records));
    let reader = Reader::start(stage.ground, &entry.topics.to, &traces)?;
    let feed = Feed::new(stage.ground, &entry.topics.from, LINGER_MS)?;
    let over = AtomicBool::new(false);
    let watched = std::thread::scope(|scope| {
        let feeding = scope.spawn(|| {
            let (proof, pace) = (contestant.proof(), memory.pace as f64);
            let run = (pace * TICK.as_secs_f64()).ceil() as u64;
            feed.stream(stage.sender, proof, (pace, run), &traces, &over)
        });
        let mut run = |said: Said<'_>| -> Result<(Vec<u64>, Vec<Child>), BenchError> {
            let mut gates = vec![entry.start(None)?];
            reader.wait(1, &mut || stage.check(&mut gates))?;
            let resident = watch(stage, &mut gates, memory, &mut || Ok(traces.count()), &mut |at, bytes| {
                said(WHAT, at, bytes)
            })?;
            Ok((resident, gates))
        };
        let watched = run(said);
        over.store(true, Ordering::Release);
        let fed = feeding.join().unwrap_or(Err(BenchError::Panicked));
        let (resident, mut gates) = watched?;
        let sent = fed?;
        reader.wait(sent, &mut || stage.check(&mut gates))?;
        end(gates)?;
        let exact = traces.count() == sent && traces.surplus() == 0;
        Ok((Watched::of(WHAT, traces.count(), resident), exact))
    });
    entry.clear(stage.ground);
    watched
}

/// A full topic, and a narrow way to write. `detour` is where it begins.
pub(super) fn behind(
    stage: &Stage<'_>,
    memory: &Memory,
    contestant: Contestant,
    detour: u16,
    said: Said<'_>,
) -> Result<Watched, BenchError> {
    const WHAT: &str = "more waits than can be written";
    let options = Options { detour: Some(format!("127.0.0.1:{detour}")), ..stage.options.clone() };
    let stage = Stage { options: &options, ..*stage };
    let mut entry = stage.enter(contestant, "memory-behind")?;
    let watched = stage.fill(contestant, &entry, memory.waiting).and_then(|()| {
        let progress = stage.ground.progress(entry.group(), &entry.topics.from)?;
        let mut gates = vec![entry.start(None)?];
        let resident = watch(&stage, &mut gates, memory, &mut || progress.done(), &mut |at, bytes| {
            said(WHAT, at, bytes)
        })?;
        let decided = progress.done()?;
        end(gates)?;
        Ok(Watched::of(WHAT, decided, resident))
    });
    entry.clear(stage.ground);
    watched
}

/// The resident size in each second, from the first decision on.
fn watch(
    stage: &Stage<'_>,
    gates: &mut [Child],
    memory: &Memory,
    decided: &mut dyn FnMut() -> Result<u64, BenchError>,
    said: &mut dyn FnMut(u64, u64) -> Result<(), BenchError>,
) -> Result<Vec<u64>, BenchError> {
    let mut resident = Vec::new();
    let mut next = Instant::now();
    let give_up = next + SECOND * 60;
    while decided()? == 0 {
        stage.check(gates)?;
        if Instant::now() > give_up {
            return Err(BenchError::Waiting { what: "a first decision".to_owned(), seconds: 60 });
        }
        std::thread::sleep(SECOND / 10);
        next = Instant::now();
    }
    for second in 0..memory.watch_for {
        stage.check(gates)?;
        let bytes: Option<u64> = gates.iter().map(Child::resident).sum();
        let bytes = bytes
            .ok_or_else(|| BenchError::Missing("the size of a process is not to be had here".to_owned()))?;
        said(second, bytes)?;
        resident.push(bytes);
        next += SECOND;
        std::thread::sleep(next.saturating_duration_since(Instant::now()));
    }
    Ok(resident)
}

/// A second in a sentence.
pub(super) fn sentence(what: &str, second: u64, bytes: u64) -> String {
    format!("{what}: {second:>5} s {:>8.1} MiB", bytes as f64 / MIB)
}

/// What was seen of each.
pub(super) fn table(out: &mut dyn Write, watched: &[Watched]) -> io::Result<()> {
    writeln!(
        out,
        "{:32} {:>8} {:>10} {:>10} {:>10} {:>16}",
        "MiB resident", "seconds", "decided", "half way", "most", "growth a minute"
    )?;
    for Watched { what, decided, resident, most, growth_a_minute } in watched {
        let half_way = resident.get(resident.len() / 2).copied().unwrap_or_default() as f64 / MIB;
        let (seconds, most, growth) = (resident.len(), *most as f64 / MIB, growth_a_minute / MIB);
        writeln!(out, "{what:32} {seconds:>8} {decided:>10} {half_way:>10.1} {most:>10.1} {growth:>16.2}")?;
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn growth_is_what_the_second_half_shows_and_not_the_start() {
        assert_eq!(slope(&[]), 0.0);
        assert_eq!(slope(&[9]), 0.0);
        assert_eq!(slope(&[10, 20, 30, 40]), 10.0);
        assert_eq!(slope(&[40, 40, 40]), 0.0);
        let watched = Watched::of("a run", 7, vec![0, 500, 900, 1000, 1000, 1000, 1000, 1000]);
        assert_eq!((watched.most, watched.growth_a_minute), (1000, 0.0));
        let grows = Watched::of("a run", 7, vec![0, 0, 0, 0, 100, 200, 300, 400]);
        assert_eq!(grows.growth_a_minute, 6000.0);
    }
}
