//! `bench`: what a gate does on this machine and this broker, beside bare copies that decide nothing: speed, cost, latency.
//! All of them are processes of their own, measured in one run and in turn, with the same batches. Limits: bench and
//! broker share the machine with what they measure, so that figures are ratios of one run before they are anything else.

mod broker;
mod child;
mod come_back;
mod contestant;
mod copy;
mod error;
mod flow;
mod ground;
mod jars;
mod memory;
mod policies;
mod records;
mod report;
mod scaling;
mod signatures;
mod site;
mod slow;
mod stats;
mod table;
mod turn;

use std::fs::{self, File};
use std::io::{self, Write as _};
use std::path::PathBuf;

use serde::Serialize;

use super::files::FileError;
use super::{Exit, Format, Output, interrupt};

pub use error::BenchError;

use broker::{Behind, Broker};
use come_back::ComeBack;
use contestant::Contestant;
use ground::Ground;
use memory::Memory;
use report::Results;
use site::Site;
use slow::Slow;
use turn::Stage;

/// Partitions of every topic.
const PARTITIONS: i32 = 8;

/// Measure gates beside bare copies on a real broker
///
/// Starts an Apache Kafka node of its own (Java 17 or newer; its jars are fetched with Maven once), or uses the cluster at
/// an address, in topics of its own that are deleted in the end. Ends with 2 if a record was lost or came out twice.
#[derive(Debug, clap::Args)]
pub struct Bench {
    #[command(flatten)]
    options: Options,
    #[command(subcommand)]
    mode: Option<Mode>,
}

#[derive(Debug, clap::Subcommand)]
enum Mode {
    /// How long partitions stand when a gate starts, joins, ends or dies
    ComeBack(ComeBack),
    #[command(hide = true)]
    Copy(copy::Copy),
    /// The resident size of a gate, second by second
    Memory(memory::Memory),
    /// Speed by the number of lanes and of gates
    Scaling,
}

/// What is measured, and with how much.
#[derive(Debug, Clone, clap::Args)]
struct Options {
    /// Measure on the cluster at this address
    #[arg(long, value_name = "ADDRESS", global = true)]
    kafka: Option<String>,
    /// Start the broker from the jars in this folder [default: fetched into the user's cache]
    #[arg(long, value_name = "DIR", global = true)]
    kafka_jars: Option<PathBuf>,
    /// How many records lie ready for each of those who are measured
    #[arg(long, value_name = "N", default_value_t = 100_000, value_parser = clap::value_parser!(u64).range(1..), global = true)]
    records: u64,
    /// The most records of one transaction
    #[arg(long, value_name = "N", default_value_t = 1_000, value_parser = count(1, 100_000), global = true)]
    batch: usize,
    /// How often each of them has its turn
    #[arg(long, value_name = "N", default_value_t = 3, value_parser = count(1, 1_000), global = true)]
    rounds: usize,
    /// Lanes of each process [default: one a core]
    #[arg(long, value_name = "N", value_parser = count(1, 256), global = true)]
    lanes: Option<usize>,
    /// Processes that share the work
    #[arg(long, value_name = "N", default_value_t = 1, value_parser = count(1, 256), global = true)]
    gates: usize,
    /// Policies of the gates that have some; at least 5
    #[arg(long, value_name = "N", default_value_t = 100, value_parser = count(5, 100_000), global = true)]
    policies: usize,
    /// For how many seconds latencies are taken at each pace
    #[arg(long, value_name = "S", default_value_t = 3.0, value_parser = seconds, global = true)]
    seconds: f64,
    /// Measure these alone
    #[arg(long, value_name = "NAME", value_enum, value_delimiter = ',', global = true)]
    only: Vec<Contestant>,
    /// Write every figure to this file, as JSON
    #[arg(long, value_name = "FILE", global = true)]
    json: Option<PathBuf>,
    /// Where gates find the broker, if not where everybody else does.
    #[arg(skip)]
    detour: Option<String>,
}

impl Options {
    fn lanes(&self) -> usize {
        let cores = || std::thread::available_parallelism().map_or(1, usize::from);
        self.lanes.unwrap_or_else(cores)
    }

    /// Records that are under way at once where they come as fast as they are taken: two batches for each lane.
    fn under_way(&self) -> u64 {
        (2 * self.batch * self.lanes() * self.gates) as u64
    }

    /// Whether one is measured, by what was asked for.
    fn asks_for(&self, contestant: Contestant) -> bool {
        self.only.is_empty() || self.only.contains(&contestant)
    }

    #[cfg(test)]
    fn for_tests() -> Self {
        Self {
            kafka: None,
            kafka_jars: None,
            records: 100,
            batch: 10,
            rounds: 1,
            lanes: Some(1),
            gates: 1,
            policies: 20,
            seconds: 0.1,
            only: Vec::new(),
            json: None,
            detour: None,
        }
    }
}

fn count(from: u64, to: u64) -> clap::builder::RangedU64ValueParser<usize> {
    clap::builder::RangedU64ValueParser::new().range(from..=to)
}

fn seconds(text: &str) -> Result<f64, String> {
    match text.parse::<f64>() {
        Ok(seconds) if (0.01..=3600.0).contains(&seconds) => Ok(seconds),
        _ => Err("not a number of seconds from 0.01 to 3600".to_owned()),
    }
}

/// What it was measured on.
#[derive(Debug, Clone, Serialize)]
struct Machine {
    cores: usize,
    processor: String,
    version: String,
    broker: &'static str,
}

impl Machine {
    fn look(options: &Options) -> Self {
        let about = fs::read_to_string("/proc/cpuinfo").unwrap_or_default();
        let model = about.lines().find_map(|line| line.strip_prefix("model name")?.split_once(':'));
        Self {
            cores: std::thread::available_parallelism().map_or(1, usize::from),
            processor: model.map_or("unknown", |(_, name)| name.trim()).to_owned(),
            version: format!("countersign {}", env!("CARGO_PKG_VERSION")),
            broker: if options.kafka.is_some() { "as given" } else { "its own, on this machine" },
        }
    }
}

impl Bench {
    /// Measures: 0 where every record had its one outcome, 2 where not.
    ///
    /// # Errors
    /// What kept it from being measured.
    pub fn run(&self, out: &mut Output) -> Result<Exit, BenchError> {
        let options = &self.options;
        if let Some(Mode::Copy(copy)) = &self.mode {
            return copy.run();
        }
        let stop = interrupt::flag()?;
        let logs = tempfile::Builder::new().prefix("countersign-bench-logs-").tempdir()?;
        let slow = match &self.mode {
            Some(Mode::Memory(memory)) if options.kafka.is_none() => {
                let port = broker::free_port()?;
                Some((port, Slow::open(port, memory.width())?))
            }
            _ => None,
        };
        let broker = match &options.kafka {
            Some(address) => Broker::at(address),
            None => {
                let behind =
                    slow.as_ref().map(|(port, slow)| Behind { port: *port, advertised: slow.port() });
                Broker::start(options.kafka_jars.as_deref(), logs.path(), behind)?
            }
        };
        let ground = Ground::new(broker.bootstrap())?;
        let (site, sender) = Site::new(options)?;
        let (ground, site, sender, stop) = (&ground, &site, &sender, &stop);
        let stage = Stage { options, broker: &broker, ground, site, sender, stop };
        match &self.mode {
            None | Some(Mode::Copy(_)) => self.race(&stage, out),
            Some(Mode::Scaling) => self.scale(&stage, out),
            Some(Mode::ComeBack(pace)) => self.come_back(&stage, pace, out),
            Some(Mode::Memory(memory)) => self.watch(&stage, memory, slow.map(|(_, slow)| slow), out),
        }
    }

    /// Everybody in turn, round after round.
    fn race(&self, stage: &Stage<'_>, out: &mut Output) -> Result<Exit, BenchError> {
        let json = out.format() == Format::Json;
        let machine = Machine::look(stage.options);
        if !json {
            table::opening(out.data(), &machine, stage.options)?;
        }
        let mut results = Results { turns: Vec::new(), signatures: Vec::new() };
        for round in 1..=self.options.rounds {
            results.signatures.push(signatures::measure()?);
            for contestant in Contestant::ALL.into_iter().filter(|one| self.options.asks_for(*one)) {
                let turn = stage.turn(contestant, round)?;
                out.say(&said(&turn), &serde_json::to_value(&turn)?);
                results.turns.push(turn);
            }
        }
        let told = serde_json::json!({
            "machine": machine, "records": self.options.records, "batch": self.options.batch,
            "lanes": self.options.lanes(), "gates": self.options.gates, "policies": self.options.policies,
            "rows": results.rows(), "signatures": results.signatures(), "gap": results.gap(), "aims": results.aims(),
            "turns": results.turns,
        });
        self.tell(&told, out, |out| table::closing(out, &results))?;
        let exact = results.turns.iter().all(turn::Turn::is_exact);
        Ok(if exact { Exit::Done } else { Exit::No })
    }

    /// The speed by how the work is shared.
    fn scale(&self, stage: &Stage<'_>, out: &mut Output) -> Result<Exit, BenchError> {
        let points = scaling::run(stage, &mut |point| {
            out.say(&scaling::sentence(point), &serde_json::to_value(point)?);
            Ok(())
        })?;
        let told = serde_json::json!({ "machine": Machine::look(&self.options), "points": points });
        self.tell(&told, out, |out| scaling::table(out, &points))?;
        Ok(Exit::Done)
    }

    /// How long partitions stand.
    fn come_back(&self, stage: &Stage<'_>, pace: &ComeBack, out: &mut Output) -> Result<Exit, BenchError> {
        let (stood, exact) = come_back::run(stage, pace, &mut |one| {
            out.say(&come_back::sentence(one), &serde_json::to_value(one)?);
            Ok(())
        })?;
        let told =
            serde_json::json!({ "machine": Machine::look(&self.options), "stood": stood, "exact": exact });
        self.tell(&told, out, |out| come_back::table(out, &stood))?;
        Ok(if exact { Exit::Done } else { Exit::No })
    }

    /// The resident size of a gate.
    fn watch(
        &self,
        stage: &Stage<'_>,
        memory: &Memory,
        slow: Option<Slow>,
        out: &mut Output,
    ) -> Result<Exit, BenchError> {
        let gates = [Contestant::GateUnproven, Contestant::GateProven];
        let contestant =
            gates.into_iter().find(|one| self.options.asks_for(*one)).unwrap_or(Contestant::GateUnproven);
        let mut said = |what: &str, second, bytes: u64| {
            let value = serde_json::json!({ "what": what, "second": second, "resident": bytes });
            out.say(&memory::sentence(what, second, bytes), &value);
            Ok(())
        };
        let (long, exact) = memory::long_run(stage, memory, contestant, &mut said)?;
        let mut watched = vec![long];
        match &slow {
            Some(slow) => watched.push(memory::behind(stage, memory, contestant, slow.port(), &mut said)?),
            None => {
                let sentence =
                    "a broker that was given cannot be slowed down: what waits before it was not watched";
                out.say(sentence, &serde_json::json!({ "skipped": sentence }));
            }
        }
        let told = serde_json::json!({
            "machine": Machine::look(&self.options), "contestant": contestant, "watched": watched, "exact": exact,
        });
        self.tell(&told, out, |out| memory::table(out, &watched))?;
        Ok(if exact { Exit::Done } else { Exit::No })
    }

    /// Writes the figures: to the file that was asked for, and as JSON or as a table.
    fn tell(
        &self,
        told: &serde_json::Value,
        out: &mut Output,
        table: impl FnOnce(&mut dyn io::Write) -> io::Result<()>,
    ) -> Result<(), BenchError> {
        if let Some(path) = &self.options.json {
            let file = File::create(path).map_err(|cause| FileError::write(path, cause))?;
            let mut file = io::BufWriter::new(file);
            serde_json::to_writer_pretty(&mut file, told)?;
            file.flush().map_err(|cause| FileError::write(path, cause))?;
        }
        match out.format() {
            Format::Json => out.json_line(told)?,
            Format::Human => table(out.data())?,
        }
        Ok(())
    }
}

/// A turn in a sentence.
fn said(turn: &turn::Turn) -> String {
    let exact = if turn.is_exact() { "" } else { "; NOT EXACT" };
    format!(
        "round {} {:24} {:>7.0} a second, {:>5.1} us a record, {} of {} came out, {} too many, {} audited{exact}",
        turn.round,
        turn.contestant.name(),
        turn.speed.per_second,
        turn.speed.cpu_us.unwrap_or(f64::NAN),
        turn.came_out,
        turn.records,
        turn.surplus,
        turn.audited.map_or_else(|| "none".to_owned(), |audited| audited.to_string()),
    )
}

#[cfg(test)]
mod tests {
    use clap::Parser;

    use super::*;

    #[derive(Parser)]
    struct Program {
        #[command(flatten)]
        bench: Bench,
    }

    fn read(arguments: &[&str]) -> Result<Bench, clap::Error> {
        Program::try_parse_from([&["bench"], arguments].concat()).map(|program| program.bench)
    }

    #[test]
    fn figures_are_taken_before_and_after_the_mode_and_a_mode_has_its_own() {
        let modes: [&[&str]; 4] = [
            &["scaling"],
            &["come-back", "--pace", "100"],
            &["memory", "--for", "9", "--pace", "70", "--waiting", "5", "--width", "5000"],
            &["--seconds", "0.5", "--only", "copy,gate-proven"],
        ];
        for mode in modes {
            for arguments in [[&["--records", "7"], mode].concat(), [mode, &["--records", "7"]].concat()] {
                let bench = read(&arguments).unwrap_or_else(|error| panic!("{arguments:?}: {error}"));
                assert_eq!(bench.options.records, 7, "{arguments:?}");
            }
        }
        let some = read(&["--only", "copy,gate-proven"]).unwrap().options;
        assert!(some.asks_for(Contestant::GateProven) && !some.asks_for(Contestant::GateBare));
        assert!(read(&[]).unwrap().options.asks_for(Contestant::GateBare));
    }

    #[test]
    fn a_figure_that_makes_no_sense_is_refused() {
        for bad in [
            "--records=0",
            "--batch=0",
            "--rounds=0",
            "--lanes=0",
            "--gates=0",
            "--policies=4",
            "--seconds=0",
        ] {
            assert!(read(&[bad]).is_err(), "{bad}");
        }
    }
}
