//! `decide`: what a gate would decide about records, without Kafka and without a trace. Limits: replay memory lasts as
//! long as the command; nothing is forwarded, and no audit record is kept.

mod desk;
mod explain;
mod record;
mod vectors;

use std::collections::HashMap;
use std::fs::File;
use std::io::{self, BufRead, BufReader};
use std::path::{Path, PathBuf};
use std::sync::Arc;

use self::desk::Desk;
use self::record::RecordError;
use self::vectors::{Compared, Vectors};
use super::issue::GenerateError;
use super::{ConfigFile, Exit, Format, Output, clock, environment};
use crate::authorize::ids::{Topic, UnixMillis};
use crate::authorize::record::Record;
use crate::authorize::route::{Gate, ReplayRule, Route};
use crate::config::{Config, Problems, Settings};
use crate::control::{Control, EntitiesFrom, Sources, offer};
use crate::telemetry::Telemetry;
use crate::wire::outgoing::EffectsError;

/// Decide about records without Kafka, and explain
#[derive(Debug, clap::Args)]
#[command(group = clap::ArgGroup::new("input").required(true).args(["record", "records", "vectors"]))]
pub struct Decide {
    #[command(flatten)]
    file: ConfigFile,
    /// A file with one record as JSON; `-` is standard input
    #[arg(long, value_name = "FILE")]
    record: Option<PathBuf>,
    /// A file with a record as JSON on each line, decided in order with one replay memory; `-` is standard input
    #[arg(long, value_name = "FILE")]
    records: Option<PathBuf>,
    /// A file of the contract's vectors, which brings its own configuration
    #[arg(long, value_name = "FILE", conflicts_with_all = ["now", "partitions"])]
    vectors: Option<PathBuf>,
    /// The moment of the decisions, as RFC 3339 or in seconds since 1970 [default: the present]
    #[arg(long, value_name = "TIME", value_parser = clock::parse, allow_negative_numbers = true)]
    now: Option<UnixMillis>,
    /// How many partitions the source topics have, for routes with strict replay
    #[arg(long, value_name = "COUNT", value_parser = clap::value_parser!(i32).range(1..))]
    partitions: Option<i32>,
}

/// Why nothing was decided.
#[derive(Debug, thiserror::Error, miette::Diagnostic)]
pub enum DecideError {
    /// Records could not be read.
    #[error("cannot read `{}`: {cause}", path.display())]
    Read {
        /// The file.
        path: PathBuf,
        /// What the system says.
        cause: io::Error,
    },
    /// Something is no record.
    #[error("line {line} of `{}` {problem}", path.display())]
    #[diagnostic(help(
        "a record is {{\"topic\", \"partition\", \"offset\", \"timestamp_ms\", \"timestamp_type\", \"key\", \"value\", \"headers\": \
         [[name, value], ...]}}, bytes in standard base64"
    ))]
    Record {
        /// The file.
        path: PathBuf,
        /// The line, from 1.
        line: usize,
        /// What is wrong with it.
        problem: String,
    },
    /// No route reads that topic.
    #[error("no route reads `{topic}`, the topic of line {line}")]
    #[diagnostic(help("a gate never sees such a record; name the topic in `from` of a route"))]
    NoRoute {
        /// The topic.
        topic: Topic,
        /// The line, from 1.
        line: usize,
    },
    /// Strict replay depends on the partition count.
    #[error("the route `{0}` has strict replay, which depends on the partition count of the topic")]
    #[diagnostic(help("say how many with `--partitions`"))]
    Partitions(String),
    /// The configuration, the keys or the policies have mistakes.
    #[error("the configuration has {} problems; `countersign check` shows them", .0.len())]
    Problems(Problems),
    /// The vectors are not what they should be.
    #[error("the vectors cannot be run: {0}")]
    Vectors(String),
    /// No key for the vectors' gate.
    #[error(transparent)]
    Key(#[from] GenerateError),
    /// An audit record could not be written.
    #[error(transparent)]
    Audit(#[from] EffectsError),
    /// The machine's clock shows no usable time.
    #[error("the clock of this machine shows no usable time")]
    #[diagnostic(help("say the moment with `--now`"))]
    Clock,
    /// The output could not be written.
    #[error("cannot write: {0}")]
    Output(#[from] io::Error),
}

impl Decide {
    /// Decides: 0 if all was forwarded or all agrees, 2 if something was denied or differs.
    ///
    /// # Errors
    /// Nothing could be decided, or not all of it.
    pub fn run(&self, out: &mut Output) -> Result<Exit, DecideError> {
        if let Some(path) = &self.vectors {
            let compared = Vectors::parse(&read_whole(path)?)?.run()?;
            write_compared(out, &compared)?;
            return Ok(compared.exit());
        }
        let now = self.now.or_else(clock::now).ok_or(DecideError::Clock)?;
        let (gate, routes, settings) =
            Config::load(&self.file.config, environment()).map_err(DecideError::Problems)?.into_parts();
        let mut desk = self.desk(gate, &settings, now)?;
        let by_topic: HashMap<&Topic, &Arc<Route>> =
            routes.iter().flat_map(|route| route.from.iter().map(move |topic| (topic, route))).collect();
        let mut all_forwarded = true;
        for_each_record(self.record.as_deref(), self.records.as_deref(), |line, record| {
            let route = by_topic
                .get(&record.source.topic)
                .ok_or_else(|| DecideError::NoRoute { topic: record.source.topic.clone(), line })?;
            let partitions = match self.partitions {
                Some(count) => count,
                None if route.replay == ReplayRule::Strict => {
                    return Err(DecideError::Partitions(route.name.to_string()));
                }
                None => record.source.partition.0.saturating_add(1),
            };
            let decided = desk.decide(route, &record, now, partitions)?;
            all_forwarded &= decided.denial.is_none();
            match out.format() {
                Format::Json => out.json_line(&decided.json())?,
                Format::Human => {
                    let colored = out.is_colored();
                    explain::write(out.data(), &decided, colored)?;
                }
            }
            Ok(())
        })?;
        Ok(if all_forwarded { Exit::Done } else { Exit::No })
    }

    fn desk(&self, gate: Gate, settings: &Settings, now: UnixMillis) -> Result<Desk, DecideError> {
        let sources = Sources {
            trust: settings.trust.clone(),
            policies: settings.policy.path.clone(),
            entities: EntitiesFrom::of(&settings.control),
            offer: offer(&settings.routes, &settings.policy.subject_type),
        };
        let control = Control::load(sources, Telemetry::off(), now).map_err(DecideError::Problems)?;
        Ok(Desk::new(gate, control.snapshot())?)
    }
}

/// Hands over the records of a file one by one, with the line that each begins on.
fn for_each_record(
    one: Option<&Path>,
    many: Option<&Path>,
    mut decide: impl FnMut(usize, Record) -> Result<(), DecideError>,
) -> Result<(), DecideError> {
    let refuse = |path: &Path, line, error: &RecordError| DecideError::Record {
        path: path.to_owned(),
        line,
        problem: error.to_string(),
    };
    if let Some(path) = one {
        let text = read_whole(path)?;
        return decide(1, record::parse(&text).map_err(|error| refuse(path, 1, &error))?);
    }
    let Some(path) = many else { return Ok(()) };
    let fail = |cause| DecideError::Read { path: path.to_owned(), cause };
    let reader: Box<dyn BufRead> = if path.as_os_str() == "-" {
        Box::new(io::stdin().lock())
    } else {
        Box::new(BufReader::new(File::open(path).map_err(fail)?))
    };
    for (index, text) in reader.lines().enumerate() {
        let text = text.map_err(fail)?;
        if text.trim().is_empty() {
            continue;
        }
        let line = index + 1;
        decide(line, record::parse(&text).map_err(|error| refuse(path, line, &error))?)?;
    }
    Ok(())
}

/// A record may be as large as a broker takes it, so larger than the small files of other commands.
fn read_whole(path: &Path) -> Result<String, DecideError> {
    let fail = |cause| DecideError::Read { path: path.to_owned(), cause };
    if path.as_os_str() == "-" {
        io::read_to_string(io::stdin()).map_err(fail)
    } else {
        std::fs::read_to_string(path).map_err(fail)
    }
}

fn write_compared(out: &mut Output, compared: &Compared) -> io::Result<()> {
    if out.format() == Format::Json {
        return out.json_line(compared);
    }
    let data = out.data();
    let shown = |ended: &vectors::Expected| match &ended.reason {
        Some(reason) => format!("{} {reason}", ended.outcome),
        None => ended.outcome.clone(),
    };
    for difference in &compared.differences {
        writeln!(
            data,
            "{}: expected {}, found {}",
            difference.name,
            shown(&difference.expected),
            shown(&difference.found)
        )?;
        if let Some(detail) = &difference.detail {
            writeln!(data, "  {detail}")?;
        }
    }
    writeln!(data, "{} of {} cases agree", compared.agree, compared.cases)
}
