//! Why nothing was measured. Limits: a record that was lost, or came out twice, is a result and stands in no error.

use std::io;
use std::path::PathBuf;

use rdkafka::error::KafkaError;

use crate::authorize::ids::InvalidName;
use crate::authorize::jose::SignError;
use crate::cli::files::FileError;
use crate::cli::issue::GenerateError;
use crate::cli::keys::KeysError;
use crate::producer::{SignRefused, SignerError};

/// Why nothing was measured.
#[derive(Debug, thiserror::Error, miette::Diagnostic)]
pub enum BenchError {
    /// Something that the broker needs is not on this machine.
    #[error("{0}")]
    #[diagnostic(help("`--kafka ADDRESS` measures on a cluster that is there"))]
    Missing(String),
    /// The folder that was named holds no jars.
    #[error("`{}` holds no jars", .0.display())]
    NoJars(PathBuf),
    /// Maven could not fetch the jars.
    #[error("Maven could not fetch Apache Kafka:\n{0}")]
    #[diagnostic(help("`--kafka-jars DIR` takes jars that are there"))]
    Maven(String),
    /// The broker did not start.
    #[error("the broker did not start:\n{0}")]
    Broker(String),
    /// A topic could not be made.
    #[error("the topic `{topic}` could not be made: {why}")]
    Topic {
        /// Which.
        topic: String,
        /// The broker's words.
        why: String,
    },
    /// The broker does not do as it is asked.
    #[error("Kafka: {0}")]
    Kafka(#[from] KafkaError),
    /// Something does not come.
    #[error("waited {seconds} s in vain for {what}")]
    Waiting {
        /// What.
        what: String,
        /// How long.
        seconds: u64,
    },
    /// A process that is measured has ended.
    #[error("a process that is measured ended with {code}:\n{words}")]
    Ended {
        /// Its exit code.
        code: i32,
        /// The end of what it has logged.
        words: String,
    },
    /// A copy met something that it does not outlive.
    #[error("the copy ended: {0}")]
    Copy(String),
    /// Outcomes can be read no more.
    #[error("the outcomes can no longer be read")]
    Reader,
    /// A file could not be written.
    #[error(transparent)]
    #[diagnostic(transparent)]
    File(#[from] FileError),
    /// Keys could not be written.
    #[error(transparent)]
    #[diagnostic(transparent)]
    Keys(#[from] KeysError),
    /// Keys or ids could not be made.
    #[error(transparent)]
    Generate(#[from] GenerateError),
    /// A token could not be signed.
    #[error(transparent)]
    Sign(#[from] SignError),
    /// The sender's key and identity do not fit together.
    #[error(transparent)]
    Signer(#[from] SignerError),
    /// A record could not be signed.
    #[error("a record could not be signed: {0}")]
    Refused(#[from] SignRefused),
    /// A name is not legal.
    #[error("the {0}")]
    Name(#[from] InvalidName),
    /// The settings of a copy, or the figures, are no JSON.
    #[error("JSON: {0}")]
    Json(#[from] serde_json::Error),
    /// Somebody asked for the end.
    #[error("interrupted")]
    Interrupted,
    /// The clock shows no usable time.
    #[error("the clock of this machine shows no usable time")]
    Clock,
    /// A fault of the program.
    #[error("a thread of the bench has panicked")]
    Panicked,
    /// A fault of the program.
    #[error("the bench cannot verify its own signature")]
    Own,
    /// A file or the output failed.
    #[error("cannot read or write: {0}")]
    Io(#[from] io::Error),
}
