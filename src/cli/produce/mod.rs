//! `produce`: signs and sends what JSON lines say. Limits: one sender, one topic; a line that cannot be signed ends the
//! run, and says which lines went out before it.

mod line;
mod send;

use std::fs::File;
use std::io::{self, BufRead, BufReader, Read as _};
use std::path::PathBuf;

use rdkafka::error::KafkaError;

use super::cluster::{ClusterArgs, ClusterError};
use super::files::{self, FileError};
use super::{Exit, Format, Output};
use crate::authorize::ids::{InvalidName, Topic};
use crate::producer::{Context, ContextError, Signer, SignerError};

pub use line::{Line, LineError};
use send::Sending;

/// Sign and send records: JSON lines from a file or standard input
///
/// A line is {"key"?, "value"?, "headers"?, "action"?, "resource"?, "workflow"?, "partition"?}. A value that is a JSON string is
/// sent as its text, any other as the JSON that stands there, and an absent or null one as null. Headers are {"name": "text"
/// or null}, all of them signed. An action is a name or {"name", "properties"?}; a resource {"type", "id", "properties"?}.
#[derive(Debug, clap::Args)]
pub struct Produce {
    /// The lines; `-` is standard input
    #[arg(default_value = "-")]
    file: PathBuf,
    #[command(flatten)]
    cluster: ClusterArgs,
    /// The topic to send to
    #[arg(long)]
    topic: String,
    /// The sender's private key
    #[arg(long, value_name = "FILE")]
    key: PathBuf,
    /// The sender's workload identity token
    #[arg(long, value_name = "FILE")]
    wit: PathBuf,
    /// The transaction token that goes along
    #[arg(long, value_name = "FILE")]
    txn: Option<PathBuf>,
}

/// Why not everything was sent.
#[derive(Debug, thiserror::Error, miette::Diagnostic)]
pub enum ProduceError {
    /// The cluster is not known.
    #[error(transparent)]
    #[diagnostic(transparent)]
    Cluster(#[from] ClusterError),
    /// A file could not be used.
    #[error(transparent)]
    #[diagnostic(transparent)]
    File(#[from] FileError),
    /// The topic has no legal name.
    #[error("the {0}")]
    Name(#[from] InvalidName),
    /// Key and WIT do not make a sender.
    #[error(transparent)]
    Signer(#[from] SignerError),
    /// librdkafka refuses its settings.
    #[error("the Kafka client cannot be made: {0}")]
    Client(KafkaError),
    /// The lines could not be read on, or the output not be written.
    #[error("cannot read or write: {0}")]
    Io(#[from] io::Error),
    /// A line is not what it should be.
    #[error("line {number}: {problem}")]
    #[diagnostic(help("`countersign produce --help` shows what a line holds; nothing after it was sent"))]
    Line {
        /// From 1.
        number: u64,
        /// What is wrong.
        problem: LineError,
    },
    /// A gate would refuse the record of a line.
    #[error("line {number} was not sent: {problem}")]
    #[diagnostic(help("nothing after it was sent either"))]
    Refused {
        /// From 1.
        number: u64,
        /// What a gate would refuse.
        problem: ContextError,
    },
    /// The broker did not take a record.
    #[error("line {number} was not delivered: {problem}")]
    Undelivered {
        /// From 1.
        number: u64,
        /// What the client says.
        problem: KafkaError,
    },
}

impl Produce {
    /// Sends, and writes where each record stands once the broker has it.
    ///
    /// # Errors
    /// The first line that was not delivered, and why.
    pub fn run(&self, out: &mut Output) -> Result<Exit, ProduceError> {
        let cluster = self.cluster.resolve()?;
        let topic = Topic::parse(&self.topic)?;
        let wit = files::token(&self.wit)?;
        let mut context = Context::new(Signer::new(files::private_key(&self.key)?, &wit, cluster.realm)?);
        if let Some(txn) = &self.txn {
            context = context.transactions(files::token(txn)?.as_str().to_owned());
        }
        let lines = self.open()?;
        let mut sending = Sending::start(&cluster.client, out)?;
        let sent = send_all(lines, &topic, &context, &mut sending);
        // What was handed over before a bad line is on its way, and its fate is known before the run ends.
        let ended = sending.finish();
        sent.and(ended).map(|()| Exit::Done)
    }

    fn open(&self) -> Result<Box<dyn BufRead>, FileError> {
        if self.file.as_os_str() == "-" {
            return Ok(Box::new(BufReader::new(io::stdin())));
        }
        let file =
            File::open(&self.file).map_err(|cause| FileError::Read { path: self.file.clone(), cause })?;
        Ok(Box::new(BufReader::new(file)))
    }
}

/// Longer than any record that a broker takes by default, with room for escapes.
const MAX_LINE_BYTES: u64 = 16 << 20;

fn send_all(
    mut lines: Box<dyn BufRead>,
    topic: &Topic,
    context: &Context,
    sending: &mut Sending<'_>,
) -> Result<(), ProduceError> {
    let mut bytes = Vec::new();
    for number in 1.. {
        bytes.clear();
        lines.by_ref().take(MAX_LINE_BYTES + 1).read_until(b'\n', &mut bytes)?;
        if bytes.is_empty() {
            return Ok(());
        }
        if bytes.len() as u64 > MAX_LINE_BYTES {
            return Err(ProduceError::Line { number, problem: LineError::TooLong });
        }
        if bytes.trim_ascii().is_empty() {
            continue;
        }
        let line = Line::parse(&bytes).map_err(|problem| ProduceError::Line { number, problem })?;
        let names = line.header_names();
        let record = line.outgoing(topic, &names);
        let headers = context
            .headers(&record, line.asked())
            .map_err(|problem| ProduceError::Refused { number, problem })?;
        sending.send(number, &record, headers)?;
    }
    Ok(())
}

/// How a delivered record is shown.
fn shown(format: Format, number: u64, topic: &str, partition: i32, offset: i64) -> String {
    match format {
        Format::Human => format!("{topic}/{partition}/{offset}"),
        Format::Json => serde_json::json!({
            "line": number, "topic": topic, "partition": partition, "offset": offset
        })
        .to_string(),
    }
}
