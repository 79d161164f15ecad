//! The commands. Data goes to standard output, talk to standard error, and the exit code says how it ended.
//! Limits: each command has a file of its own; here is only what they share.

pub mod acknowledge;
pub mod approvals;
pub mod bench;
mod certificates;
pub mod challenge;
pub mod check;
pub mod clock;
pub mod cluster;
pub mod decide;
pub mod demo;
pub mod entity;
pub mod files;
pub mod gate;
pub mod interrupt;
pub mod issue;
pub mod keys;
pub mod output;
pub mod produce;
pub mod revoke;
pub mod run;
pub mod tail;
pub mod token;
pub mod topic;
pub mod workflow;

use std::ffi::OsString;
use std::io;
use std::path::PathBuf;
use std::process::ExitCode;

use clap::{Parser, Subcommand, ValueEnum};

pub use output::Output;

use challenge::ChallengeError;
use cluster::ClusterError;
use demo::DemoError;
use entity::EntityError;
use produce::ProduceError;
use revoke::RevokeError;
use tail::TailError;
use workflow::WorkflowError;

/// Decides again, for every Kafka record, whether the work it asks for is still allowed
#[derive(Debug, Parser)]
#[command(name = "countersign", version, propagate_version = true)]
struct Cli {
    /// How data is written to standard output
    #[arg(long, global = true, value_enum, default_value_t = Format::Human)]
    format: Format,
    /// When to use colour; `auto` is on a terminal, unless NO_COLOR is set
    #[arg(long, global = true, value_enum, default_value_t = Color::Auto)]
    color: Color,
    #[command(subcommand)]
    command: Command,
}

#[derive(Debug, Subcommand)]
enum Command {
    Bench(bench::Bench),
    Challenge(challenge::Challenge),
    /// Verify configuration, keys, policies and schema; with --online the topics too
    Check(check::Check),
    Decide(decide::Decide),
    Demo(demo::Demo),
    Entity(entity::Entity),
    Keys(keys::Keys),
    Produce(produce::Produce),
    Revoke(Box<revoke::Revoke>),
    /// Run a gate until it is told to end
    Run(run::Run),
    Tail(tail::Tail),
    Token(token::Token),
    Workflow(workflow::Workflow),
}

/// How data is written.
#[derive(Debug, Clone, Copy, PartialEq, Eq, ValueEnum)]
pub enum Format {
    /// For a person.
    Human,
    /// For a program: one JSON value a line.
    Json,
}

/// When colour is used.
#[derive(Debug, Clone, Copy, PartialEq, Eq, ValueEnum)]
pub enum Color {
    /// On a terminal, unless `NO_COLOR` is set.
    Auto,
    /// In any case.
    Always,
    /// Not at all.
    Never,
}

/// How a command ended. The numbers are part of the interface.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Exit {
    /// 0: it did what it was asked, and the answer is good.
    Done,
    /// 1: the command itself failed; there is no answer.
    Failed,
    /// 2: the answer is no: something was denied, differs, or is wrong.
    No,
    /// 3: it was done, and not every gate is known to have taken it in: time was over, or no gate is there.
    Unacknowledged,
}

impl From<Exit> for ExitCode {
    fn from(exit: Exit) -> Self {
        Self::from(match exit {
            Exit::Done => 0,
            Exit::Failed => 1,
            Exit::No => 2,
            Exit::Unacknowledged => 3,
        })
    }
}

/// The configuration that most commands read.
#[derive(Debug, Clone, clap::Args)]
pub struct ConfigFile {
    /// The configuration
    #[arg(long, value_name = "FILE", default_value = "countersign.toml", env = "COUNTERSIGN_CONFIG")]
    pub config: PathBuf,
}

/// Runs the command that the arguments ask for.
pub fn main(arguments: impl IntoIterator<Item = OsString>) -> Exit {
    let cli = match Cli::try_parse_from(arguments) {
        Ok(cli) => cli,
        Err(error) => {
            // Help and version are answers; what cannot be understood is a failed run, not an answer of no.
            let exit = if error.use_stderr() { Exit::Failed } else { Exit::Done };
            return if error.print().is_ok() { exit } else { Exit::Failed };
        }
    };
    let mut out = Output::new(cli.format, cli.color);
    let json = cli.format == Format::Json;
    match cli.command {
        Command::Bench(bench) => {
            let ended = bench.run(&mut out);
            out.end(ended)
        }
        Command::Challenge(challenge) => match challenge.run(&mut out) {
            Err(
                ChallengeError::Cluster(ClusterError::Problems(problems)) | ChallengeError::Trust(problems),
            ) => out.end_with_problems(&problems),
            ended => out.end(ended),
        },
        Command::Check(check) => {
            let ended = check.run(&mut out);
            out.end(ended)
        }
        Command::Decide(decide) => match decide.run(&mut out) {
            Err(decide::DecideError::Problems(problems)) => out.end_with_problems(&problems),
            ended => out.end(ended),
        },
        Command::Demo(demo) => match demo.run(&mut out) {
            Err(DemoError::Config(problems)) => out.end_with_problems(&problems),
            ended => out.end(ended),
        },
        Command::Entity(entity) => match entity.run(&mut out) {
            Err(EntityError::Cluster(ClusterError::Problems(problems)) | EntityError::Policies(problems)) => {
                out.end_with_problems(&problems)
            }
            ended => out.end(ended),
        },
        Command::Run(run) => {
            let ended = run.run(&out);
            out.end(ended)
        }
        Command::Keys(keys) => {
            let ended = keys.run(out.data());
            out.end_with(ended)
        }
        Command::Produce(produce) => match produce.run(&mut out) {
            Err(ProduceError::Cluster(ClusterError::Problems(problems))) => out.end_with_problems(&problems),
            ended => out.end(ended),
        },
        Command::Revoke(revoke) => match revoke.run(&mut out) {
            Err(RevokeError::Cluster(ClusterError::Problems(problems)) | RevokeError::Trust(problems)) => {
                out.end_with_problems(&problems)
            }
            ended => out.end(ended),
        },
        Command::Tail(tail) => match tail.run(&mut out) {
            Err(TailError::Cluster(ClusterError::Problems(problems)) | TailError::Trust(problems)) => {
                out.end_with_problems(&problems)
            }
            ended => out.end(ended),
        },
        Command::Token(token) => {
            let ended = token.run(json, out.data());
            out.end_with(ended)
        }
        Command::Workflow(workflow) => match workflow.run(&mut out) {
            Err(WorkflowError::Cluster(ClusterError::Problems(problems))) => out.end_with_problems(&problems),
            ended => out.end(ended),
        },
    }
}

/// The variables of the process that are text; others cannot be settings.
pub fn environment() -> impl Iterator<Item = (String, String)> {
    std::env::vars_os()
        .filter_map(|(name, value)| Some((name.into_string().ok()?, value.into_string().ok()?)))
}

/// Whether an error is that nobody reads any more, as behind `| head`.
fn is_broken_pipe(error: &(dyn std::error::Error + 'static)) -> bool {
    let mut next = Some(error);
    while let Some(error) = next {
        if error.downcast_ref::<io::Error>().is_some_and(|error| error.kind() == io::ErrorKind::BrokenPipe) {
            return true;
        }
        next = error.source();
    }
    false
}

#[cfg(test)]
mod tests {
    use super::*;
    use clap::CommandFactory as _;

    #[test]
    fn the_arguments_are_consistent() {
        Cli::command().debug_assert();
    }
}
