//! `bench come-back`: how long partitions stand when a gate starts, joins, ends, or dies, from that moment to the next
//! record *visible* to a reader of committed records. Records come at a steady pace meanwhile. Limits: the slowest
//! partition counts; what a dead gate leaves open costs more where its session and transactions may last longer.

use std::io::{self, Write};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::{Duration, Instant};

use serde::Serialize;

use super::child::{Child, Signal};
use super::contestant::{Contestant, Entry};
use super::flow::{Feed, Reader, Traces};
use super::stats::Spread;
use super::turn::{Stage, end};
use super::{BenchError, PARTITIONS};

/// A story is over long before so many seconds.
const LONGEST: u64 = 900;
/// How long a partition may stand.
const PATIENCE: Duration = Duration::from_secs(180);
/// How long nothing happens before something does.
const CALM: Duration = Duration::from_secs(2);
const LOOK: Duration = Duration::from_millis(5);
const LINGER_MS: &str = "0.5";

/// The arguments of `bench come-back`.
#[derive(Debug, Clone, clap::Args)]
pub(super) struct ComeBack {
    /// Records a second meanwhile: few enough that what has waited is soon made up for
    #[arg(long, value_name = "N", default_value_t = 500, value_parser = clap::value_parser!(u64).range(8..=100_000))]
    pace: u64,
}

/// What happens to a gate.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize)]
#[serde(rename_all = "kebab-case")]
pub(super) enum Event {
    /// The first one of its group starts: until its first outcome.
    Start,
    /// A second one joins: the longest silence of a partition.
    Join,
    /// One of two is told to end.
    Terminate,
    /// One of two dies.
    KillBesideAnother,
    /// One with `gate.instance` dies, and is started again at once.
    KillAndRestart,
    /// One with `gate.instance` is told to end, and is started again when it has.
    TerminateAndRestart,
}

impl Event {
    /// All of them.
    pub(super) const ALL: [Self; 6] = [
        Self::Start,
        Self::Join,
        Self::Terminate,
        Self::KillBesideAnother,
        Self::KillAndRestart,
        Self::TerminateAndRestart,
    ];

    fn title(self) -> &'static str {
        match self {
            Self::Start => "start, to its first outcome",
            Self::Join => "another joins, longest silence of a partition",
            Self::Terminate => "SIGTERM beside another",
            Self::KillBesideAnother => "kill -9 beside another",
            Self::KillAndRestart => "kill -9 and a restart, with `gate.instance`",
            Self::TerminateAndRestart => "SIGTERM and a restart, with `gate.instance`",
        }
    }

    /// What it should take at most, in seconds.
    fn aim(self) -> Option<f64> {
        match self {
            Self::Terminate => Some(1.0),
            Self::KillBesideAnother => Some(10.0),
            Self::KillAndRestart => Some(3.0),
            Self::Start | Self::Join | Self::TerminateAndRestart => None,
        }
    }
}

/// How long something took.
#[derive(Debug, Serialize)]
pub(super) struct Stood {
    event: Event,
    round: usize,
    seconds: f64,
}

/// All stories, round after round; false beside them where a record was lost or came out twice.
pub(super) fn run(
    stage: &Stage<'_>,
    pace: &ComeBack,
    said: &mut dyn FnMut(&Stood) -> Result<(), BenchError>,
) -> Result<(Vec<Stood>, bool), BenchError> {
    let (mut stood, mut exact) = (Vec::new(), true);
    for round in 1..=stage.options.rounds {
        for story in [several as Story, alone] {
            let name = format!("come-back-{}-{round}", stood.len());
            let mut entry = stage.enter(Contestant::GateProven, &name)?;
            let mut note = |event: Event, took: Duration| -> Result<(), BenchError> {
                let one = Stood { event, round, seconds: took.as_secs_f64() };
                said(&one)?;
                stood.push(one);
                Ok(())
            };
            let told = tell(stage, &mut entry, pace.pace, story, &mut note);
            entry.clear(stage.ground);
            exact &= told?;
        }
    }
    Ok((stood, exact))
}

type Note<'n> = &'n mut dyn FnMut(Event, Duration) -> Result<(), BenchError>;
/// What happens, and the gates that are left in the end.
type Story = fn(&mut Scene<'_>) -> Result<Vec<Child>, BenchError>;

/// What a story is told with.
struct Scene<'s> {
    stage: &'s Stage<'s>,
    entry: &'s mut Entry,
    traces: &'s Traces,
    note: Note<'s>,
}

/// Tells one story while records come; whether each had its one outcome.
fn tell(
    stage: &Stage<'_>,
    entry: &mut Entry,
    pace: u64,
    story: Story,
    note: Note<'_>,
) -> Result<bool, BenchError> {
    let traces = Arc::new(Traces::new(LONGEST * pace));
    let reader = Reader::start(stage.ground, &entry.topics.to, &traces)?;
    let feed = Feed::new(stage.ground, &entry.topics.from, LINGER_MS)?;
    let over = AtomicBool::new(false);
    std::thread::scope(|scope| {
        let feeding = scope.spawn(|| {
            let proof = Contestant::GateProven.proof();
            feed.stream(stage.sender, proof, (pace as f64, 1), &traces, &over)
        });
        let told = story(&mut Scene { stage, entry, traces: &traces, note });
        over.store(true, Ordering::Release);
        let fed = feeding.join().unwrap_or(Err(BenchError::Panicked));
        let mut gates = told?;
        let sent = fed?;
        reader.wait(sent, &mut || stage.check(&mut gates))?;
        end(gates)?;
        Ok(traces.count() == sent && traces.surplus() == 0)
    })
}

/// A gate starts, another joins, ends, comes back, and dies.
fn several(scene: &mut Scene<'_>) -> Result<Vec<Child>, BenchError> {
    let began = scene.traces.now();
    let mut gates = vec![scene.entry.start(None)?];
    let took = scene.first_outcome(began, &mut gates)?;
    (scene.note)(Event::Start, took)?;
    scene.calm(&mut gates)?;

    let joined = scene.traces.now();
    let mut second = scene.join(&mut gates)?;
    let took = scene.longest_silence(joined);
    (scene.note)(Event::Join, took)?;

    let told = scene.traces.now();
    second.signal(Signal::Terminate)?;
    let took = scene.all_go_on(told, &mut gates)?;
    (scene.note)(Event::Terminate, took)?;
    end(vec![second])?;

    let mut third = scene.join(&mut gates)?;
    let killed = scene.traces.now();
    third.signal(Signal::Kill)?;
    let took = scene.all_go_on(killed, &mut gates)?;
    (scene.note)(Event::KillBesideAnother, took)?;
    third.wait(PATIENCE)?;
    scene.calm(&mut gates)?;
    Ok(gates)
}

/// A gate with a name of its own dies and comes back, and ends and comes back.
fn alone(scene: &mut Scene<'_>) -> Result<Vec<Child>, BenchError> {
    let began = scene.traces.now();
    let mut gates = vec![scene.entry.start(Some("one"))?];
    scene.all_go_on(began, &mut gates)?;
    for (event, signal) in
        [(Event::KillAndRestart, Signal::Kill), (Event::TerminateAndRestart, Signal::Terminate)]
    {
        scene.calm(&mut gates)?;
        let told = scene.traces.now();
        for gate in &mut gates {
            gate.signal(signal)?;
            gate.wait(PATIENCE)?;
        }
        gates = vec![scene.entry.start(Some("one"))?];
        let took = scene.all_go_on(told, &mut gates)?;
        (scene.note)(event, took)?;
    }
    scene.calm(&mut gates)?;
    Ok(gates)
}

impl Scene<'_> {
    /// Starts one more gate and waits until it decides.
    fn join(&mut self, gates: &mut [Child]) -> Result<Child, BenchError> {
        let gate = self.entry.start(None)?;
        let deadline = Instant::now() + PATIENCE;
        let decides = |gate: &Child| {
            let log = std::fs::read_to_string(gate.log()).unwrap_or_default();
            log.contains("partition restored")
        };
        while !decides(&gate) {
            self.stage.check(gates)?;
            if Instant::now() > deadline {
                return Err(waited("a gate that joins to restore a partition"));
            }
            std::thread::sleep(LOOK);
        }
        self.calm(gates)?;
        Ok(gate)
    }

    fn calm(&self, gates: &mut [Child]) -> Result<(), BenchError> {
        let until = Instant::now() + CALM;
        while Instant::now() < until {
            self.stage.check(gates)?;
            std::thread::sleep(LOOK);
        }
        Ok(())
    }

    /// How long after a moment the first outcome was seen.
    fn first_outcome(&self, at: u64, gates: &mut [Child]) -> Result<Duration, BenchError> {
        self.wait(at, gates, |back| back.into_iter().flatten().min())
    }

    /// How long after a moment every partition had shown an outcome of a record that was sent later than that.
    fn all_go_on(&self, at: u64, gates: &mut [Child]) -> Result<Duration, BenchError> {
        self.wait(at, gates, |back| back.into_iter().collect::<Option<Vec<u64>>>()?.into_iter().max())
    }

    fn wait(
        &self,
        at: u64,
        gates: &mut [Child],
        found: impl Fn(Vec<Option<u64>>) -> Option<u64>,
    ) -> Result<Duration, BenchError> {
        let deadline = Instant::now() + PATIENCE;
        loop {
            if let Some(seen) = found(back(self.traces, at)) {
                return Ok(Duration::from_nanos(seen.saturating_sub(at)));
            }
            self.stage.check(gates)?;
            if Instant::now() > deadline {
                return Err(waited("a partition to go on"));
            }
            std::thread::sleep(LOOK);
        }
    }

    fn longest_silence(&self, since: u64) -> Duration {
        Duration::from_nanos(silence(self.traces, since))
    }
}

fn waited(what: &str) -> BenchError {
    BenchError::Waiting { what: what.to_owned(), seconds: PATIENCE.as_secs() }
}

/// For each partition, when the first outcome was seen of a record that was sent at a moment or later.
fn back(traces: &Traces, at: u64) -> Vec<Option<u64>> {
    let mut back: Vec<Option<u64>> = vec![None; PARTITIONS as usize];
    for (partition, sent, seen) in of_partitions(traces) {
        if let Some(first) = back.get_mut(partition).filter(|_| sent >= at) {
            *first = Some(first.map_or(seen, |first| first.min(seen)));
        }
    }
    back
}

/// The longest time in which one of the partitions showed no outcome, since a moment and up to the last outcome of all.
fn silence(traces: &Traces, since: u64) -> u64 {
    let mut shown: Vec<Vec<u64>> = vec![vec![since]; PARTITIONS as usize];
    for (partition, _, seen) in of_partitions(traces) {
        if let Some(shown) = shown.get_mut(partition).filter(|_| seen > since) {
            shown.push(seen);
        }
    }
    let last = shown.iter().flatten().copied().max().unwrap_or(since);
    let longest = shown.into_iter().map(|mut shown| {
        shown.push(last);
        shown.sort_unstable();
        shown.windows(2).filter_map(|pair| Some(pair.get(1)? - pair.first()?)).max().unwrap_or_default()
    });
    longest.max().unwrap_or_default()
}

/// The partition of each record that came out, and when it went in and came out.
fn of_partitions(traces: &Traces) -> impl Iterator<Item = (usize, u64, u64)> {
    (0..traces.len()).filter_map(|number| {
        let (sent, seen) = traces.of(number)?;
        Some(((number % PARTITIONS as u64) as usize, sent, seen))
    })
}

/// A measurement in a sentence.
pub(super) fn sentence(stood: &Stood) -> String {
    format!("round {} {}: {:.2} s", stood.round, stood.event.title(), stood.seconds)
}

/// What everything took.
pub(super) fn table(out: &mut dyn Write, stood: &[Stood]) -> io::Result<()> {
    writeln!(
        out,
        "{:46} {:>8} {:>14} {:>8}",
        "until every partition shows the next outcome", "median", "least..most", "aim"
    )?;
    for event in Event::ALL {
        let of_it = stood.iter().filter(|one| one.event == event).map(|one| one.seconds);
        let Some(spread) = Spread::of(of_it) else { continue };
        let aim = event.aim().map_or_else(String::new, |aim| {
            format!("{} {aim} s", if spread.median <= aim { "<" } else { "NOT <" })
        });
        let range = format!("{:.2}..{:.2}", spread.least, spread.most);
        let median = format!("{:.2} s", spread.median);
        writeln!(out, "{:46} {median:>8} {range:>14} {aim:>8}", event.title())?;
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Two records of each partition, seen so long after they were sent.
    fn traces(late: impl Fn(u64) -> u64) -> Traces {
        let traces = Traces::new(2 * PARTITIONS as u64);
        for number in 0..2 * PARTITIONS as u64 {
            traces.set(number, 100 + number, 100 + number + late(number));
        }
        traces
    }

    #[test]
    fn a_partition_is_back_with_an_outcome_of_what_was_sent_after_the_moment() {
        // The last outcome of the old gate may be seen after its death.
        let traces = traces(|number| if number < PARTITIONS as u64 { 50 } else { 500 });
        let moment = 100 + PARTITIONS as u64;
        let back = back(&traces, moment);
        assert_eq!(back[0], Some(moment + 500));
        assert_eq!(back.iter().flatten().count(), PARTITIONS as usize);
        assert_eq!(super::back(&traces, moment + 1)[0], None);
    }

    #[test]
    fn the_longest_silence_is_that_of_the_slowest_partition() {
        let traces = Traces::new(10 * PARTITIONS as u64);
        for number in 0..traces.len() {
            let (partition, turn) = (number % PARTITIONS as u64, number / PARTITIONS as u64);
            // Each partition shows one every 100, but for one that shows what came at 500 to 800 only with the next.
            let turn = if partition == 3 && (4..8).contains(&turn) { 8 } else { turn };
            traces.set(number, 1, 100 + turn * 100);
        }
        assert_eq!(silence(&traces, 50), 500);
        assert_eq!(silence(&traces, 850), 100);
    }

    #[test]
    fn an_aim_that_is_missed_is_shown_as_missed() {
        let stood = |event, seconds| Stood { event, round: 1, seconds };
        let mut out = Vec::new();
        let measured = [stood(Event::Terminate, 1.4), stood(Event::KillBesideAnother, 8.0)];
        table(&mut out, &measured).unwrap();
        let text = String::from_utf8(out).unwrap();
        assert!(text.contains("NOT < 1 s") && text.contains(" < 10 s"), "{text}");
    }
}
