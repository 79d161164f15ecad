//! `revoke`: signs a revocation and appends it, or a security event token as it is, and tells which revocations are in force. Limits: what no gate would apply is not written; who may write the topic is its
//! own access control, and whose signatures count is the configuration's.

mod shown;
mod statement;

use std::io;
use std::path::PathBuf;
use std::time::Duration;

use clap::{Args, Subcommand};
use rdkafka::config::ClientConfig;
use serde_json::json;
use uuid::Uuid;

use super::acknowledge::{AcknowledgeError, TIMEOUT, Wait, Waiting};
use super::cluster::{ClusterError, GateArgs};
use super::files::{self, FileError};
use super::output::plain;
use super::topic::{TopicClient, TopicError, View};
use super::{Exit, Format, Output, clock};
use crate::authorize::ids::{Coordinates, Topic, UnixMillis};
use crate::authorize::jose::SignError;
use crate::authorize::json;
use crate::authorize::standing::{Kind, Notice, StatementError, Target, verify};
use crate::authorize::trust::Trust;
use crate::config::Problems;
use crate::control::TrustSource;

use shown::{Read, Shown, State};
use statement::Statement;

/// Take rights away: from a workload, a subject, a transaction, a token, a workflow, a key or a trust domain
///
/// Appends to the topic that `[control] revocations` names. Ends with 2 where something cannot be verified or
/// is not there, and with 3 where it waited and not every gate has acknowledged.
#[derive(Debug, Args)]
#[command(args_conflicts_with_subcommands = true, subcommand_negates_reqs = true)]
pub struct Revoke {
    #[command(flatten)]
    gate: GateArgs,
    #[command(flatten)]
    append: Append,
    #[command(subcommand)]
    command: Option<Command>,
}

#[derive(Debug, Subcommand)]
enum Command {
    /// List the revocations: in force, ended, or unverifiable and why
    List,
    /// Show one revocation
    Show {
        /// Its id
        #[arg(allow_hyphen_values = true)]
        id: String,
    },
    /// Wait until every gate has taken in a revocation that was written before
    Wait {
        /// Its id
        #[arg(allow_hyphen_values = true)]
        id: String,
        /// How long to wait at most
        #[arg(long, value_name = "TIME", value_parser = clock::span, default_value = TIMEOUT)]
        timeout: Duration,
    },
}

#[derive(Debug, Args)]
struct Append {
    #[command(flatten)]
    what: What,
    /// The administrator's private key
    #[arg(long, value_name = "FILE", conflicts_with = "set", required_unless_present = "set")]
    signing_key: Option<PathBuf>,
    /// Revoke only what was issued before: RFC 3339, seconds since 1970, or `now` [default: everything]
    #[arg(long, value_name = "TIME", value_parser = clock::parse, conflicts_with = "set")]
    not_before: Option<UnixMillis>,
    /// When the revocation ends, in the same forms [default: never]
    #[arg(long, value_name = "TIME", value_parser = clock::parse, conflicts_with = "set")]
    until: Option<UnixMillis>,
    /// Why, for whoever reads the list
    #[arg(long, value_name = "TEXT", conflicts_with = "set")]
    reason: Option<String>,
    /// Take the place of the revocation of this id; with `--until now` it ends [default: a new id]
    #[arg(long, value_name = "ID", conflicts_with = "set", allow_hyphen_values = true)]
    id: Option<String>,
    #[command(flatten)]
    wait: Wait,
}

#[derive(Debug, Args)]
#[group(required = true, multiple = false)]
struct What {
    /// A workload: a SPIFFE ID or `wimse://` URI
    #[arg(long, value_name = "ID")]
    workload: Option<String>,
    /// A subject, as policies see it: `<sub>`, or `<domain>/<sub>` of another trust domain than the gate's
    #[arg(long, value_name = "ID", allow_hyphen_values = true)]
    subject: Option<String>,
    /// A transaction, by `txn`
    #[arg(long, value_name = "ID", allow_hyphen_values = true)]
    transaction: Option<String>,
    /// A token, by `jti`
    #[arg(long, value_name = "ID", allow_hyphen_values = true)]
    token: Option<String>,
    /// A workflow
    #[arg(long, value_name = "ID", allow_hyphen_values = true)]
    workflow: Option<String>,
    /// A key, by `kid`
    #[arg(long, value_name = "ID", allow_hyphen_values = true)]
    key: Option<String>,
    /// A whole trust domain
    #[arg(long, value_name = "DOMAIN")]
    trust_domain: Option<String>,
    /// A security event token of a configured transmitter, appended as it is; `-` is standard input
    #[arg(long, value_name = "FILE")]
    set: Option<PathBuf>,
}

/// Why a `revoke` command failed.
#[derive(Debug, thiserror::Error, miette::Diagnostic)]
pub enum RevokeError {
    /// The cluster is not known.
    #[error(transparent)]
    #[diagnostic(transparent)]
    Cluster(#[from] ClusterError),
    /// The configuration names no topic of revocations.
    #[error("the configuration names no topic of revocations")]
    #[diagnostic(help("write `revocations = \"countersign.revocations\"` into `[control]`"))]
    NoTopic,
    /// The keys of the configuration have mistakes.
    #[error("the trust of the configuration cannot be used")]
    Trust(Problems),
    /// No gate would apply it, so it is not written.
    #[error("no gate would apply this revocation, so it was not written: {0}")]
    #[diagnostic(help(
        "`[administrators]` and `[transmitters.\"<iss>\"]` of the configuration name the keys that count"
    ))]
    Unverifiable(StatementError),
    /// An event by which nothing is revoked.
    #[error("by an event of the type `{0}` nothing is revoked, so it was not written")]
    Nothing(String),
    /// A SET that says nothing of its id.
    #[error("the security event token has no `jti`, by which its record is known")]
    NoId,
    /// A file could not be used.
    #[error(transparent)]
    #[diagnostic(transparent)]
    File(#[from] FileError),
    /// The topic could not be read or written.
    #[error(transparent)]
    #[diagnostic(transparent)]
    Topic(#[from] TopicError),
    /// It is not known whether every gate has taken it in.
    #[error(transparent)]
    #[diagnostic(transparent)]
    Acknowledge(#[from] AcknowledgeError),
    /// The key cannot sign.
    #[error(transparent)]
    Sign(#[from] SignError),
    /// The machine's clock shows no usable time.
    #[error("the clock of this machine shows no usable time")]
    Clock,
    /// The output could not be written.
    #[error("cannot write: {0}")]
    Output(#[from] io::Error),
}

impl Revoke {
    /// Runs the command: 2 where something cannot be verified or is not there, 3 where it is not acknowledged.
    ///
    /// # Errors
    /// What could not be read, verified or written.
    pub fn run(&self, out: &mut Output) -> Result<Exit, RevokeError> {
        let (config, client) = self.gate.resolve()?;
        let topic = config.settings.control.revocations.as_ref().ok_or(RevokeError::NoTopic)?;
        let trust = TrustSource::read(&config.settings.trust).load().map_err(RevokeError::Trust)?;
        let now = clock::now().ok_or(RevokeError::Clock)?;
        let mut office = Office { client: &client, topic, trust, now, out };
        match &self.command {
            None => {
                let waiting = self.append.wait.resolve(&config, &client)?;
                office.append(&self.append, waiting.as_ref())
            }
            Some(Command::List) => office.list(),
            Some(Command::Show { id }) => Ok(office.show(id)?.0),
            Some(Command::Wait { id, timeout }) => {
                office.wait(id, &Waiting::new(&config, &client, *timeout)?)
            }
        }
    }
}

/// What the commands work with.
struct Office<'o> {
    client: &'o ClientConfig,
    topic: &'o Topic,
    trust: Trust,
    now: UnixMillis,
    out: &'o mut Output,
}

impl Office<'_> {
    fn append(&mut self, append: &Append, waiting: Option<&Waiting>) -> Result<Exit, RevokeError> {
        let (id, token) = append.token(self.now)?;
        let notice =
            verify(id.as_bytes(), token.as_bytes(), &self.trust).map_err(RevokeError::Unverifiable)?;
        if let Notice::Nothing(event) = notice {
            return Err(RevokeError::Nothing(event));
        }
        let client = TopicClient::new(self.client, self.topic);
        let home = client.read(|key| key == id.as_bytes())?.home(id.as_bytes());
        let at = client.write(home, id.as_bytes(), Some(token.as_bytes()))?;
        let read = Read { id, at, notice: Ok(notice) };
        Shown::of(&read, &[], self.now).write(self.out)?;
        match waiting {
            Some(waiting) => Ok(waiting.run(&[read.at], self.out)?),
            None => Ok(Exit::Done),
        }
    }

    fn list(&mut self) -> Result<Exit, RevokeError> {
        let all = self.read(&TopicClient::new(self.client, self.topic).read(|_| true)?);
        let mut exit = Exit::Done;
        for read in &all {
            let shown = Shown::of(read, &all, self.now);
            if shown.state == State::Unverifiable {
                exit = Exit::No;
            }
            shown.write(self.out)?;
        }
        Ok(exit)
    }

    /// Shows a revocation as it stands, and a wait for it: what no gate applies is not waited for.
    fn wait(&mut self, id: &str, waiting: &Waiting) -> Result<Exit, RevokeError> {
        match self.show(id)? {
            (Exit::Done, Some(at)) => Ok(waiting.run(&[at], self.out)?),
            (exit, _) => Ok(exit),
        }
    }

    /// Shows a revocation, and where it stands.
    fn show(&mut self, id: &str) -> Result<(Exit, Option<Coordinates>), RevokeError> {
        // All of them: what one transmitter disables it may have enabled in another record.
        let all = self.read(&TopicClient::new(self.client, self.topic).read(|_| true)?);
        let Some(read) = all.iter().find(|read| read.id == id) else {
            let unknown = format!("there is no revocation `{id}`");
            match self.out.format() {
                Format::Json => self.out.json_line(&json!({ "refused": unknown }))?,
                Format::Human => writeln!(self.out.data(), "{}", plain(&unknown))?,
            }
            return Ok((Exit::No, None));
        };
        let shown = Shown::of(read, &all, self.now);
        shown.write(self.out)?;
        let exit = if shown.state == State::Unverifiable { Exit::No } else { Exit::Done };
        Ok((exit, Some(read.at.clone())))
    }

    /// Every record as a gate would judge it, in the order of the topic.
    fn read(&self, view: &View) -> Vec<Read> {
        let judged = view.values().map(|(record, value)| {
            let key = record.key.as_deref().unwrap_or_default();
            Read {
                id: String::from_utf8_lossy(key).into_owned(),
                at: record.source.clone(),
                notice: verify(key, value, &self.trust),
            }
        });
        let mut all: Vec<Read> = judged.collect();
        all.sort_by_key(|read| (read.at.partition, read.at.offset));
        all
    }
}

impl Append {
    /// What is appended, with its id.
    fn token(&self, now: UnixMillis) -> Result<(String, String), RevokeError> {
        if let Some(file) = &self.what.set {
            let token = files::token(file)?.as_str().to_owned();
            let id = id_of(&token).ok_or(RevokeError::NoId)?;
            return Ok((id, token));
        }
        let statement = Statement {
            id: self.id.clone().unwrap_or_else(|| Uuid::now_v7().to_string()),
            target: self.what.target(),
            not_before: self.not_before,
            until: self.until,
            reason: self.reason.clone(),
        };
        let key = files::private_key(self.signing_key.as_deref().unwrap_or("-".as_ref()))?;
        let token = statement.sign(&key, now)?;
        Ok((statement.id, token))
    }
}

impl What {
    /// What is named; the arguments make sure that it is one thing.
    fn target(&self) -> Target {
        let named = [
            (Kind::Workload, &self.workload),
            (Kind::Subject, &self.subject),
            (Kind::Transaction, &self.transaction),
            (Kind::Token, &self.token),
            (Kind::Workflow, &self.workflow),
            (Kind::Key, &self.key),
            (Kind::TrustDomain, &self.trust_domain),
        ];
        let found = named.into_iter().find_map(|(kind, id)| Some((kind, id.as_deref()?)));
        let (kind, id) = found.unwrap_or((Kind::Workload, ""));
        Target { kind, id: id.into() }
    }
}

/// `jti` of a token, before it is verified under it.
fn id_of(token: &str) -> Option<String> {
    let payload = token.split('.').nth(1)?;
    let claims = json::parse_object(&decode(payload)?).ok()?;
    claims.get("jti")?.as_str().map(str::to_owned)
}

fn decode(part: &str) -> Option<Vec<u8>> {
    use base64::Engine as _;
    base64::engine::general_purpose::URL_SAFE_NO_PAD.decode(part).ok()
}
