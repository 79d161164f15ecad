//! `entity`: writes and reads the topic of entities that policies look at, one entity a record. Limits: what the schema of
//! the configured policies refuses is not written; of two that put the same entity at once the later one stands.

mod checked;

use std::io;
use std::path::PathBuf;

use cedar_policy::EntityUid;
use clap::{Args, Subcommand};
use serde_json::{Value, json};

use super::acknowledge::{AcknowledgeError, Wait, Waiting};
use super::cluster::{ClusterError, GateArgs};
use super::files::{self, FileError};
use super::output::plain;
use super::topic::{TopicClient, TopicError, View};
use super::{Exit, Format, Output};
use crate::authorize::ids::Coordinates;
use crate::authorize::json::{self as strict, JsonError};
use crate::authorize::policy::Bundle;
use crate::config::{Config, Problems};
use crate::control::{EntitiesFrom, PolicySource, offer};

use checked::Checked;

/// Say who and what there is for policies to look at: put, delete, show, list
///
/// Writes the topic that `[control] entities` names. Ends with 2 where an entity is refused or not there, and with 3
/// where it waited and not every gate has acknowledged.
#[derive(Debug, Args)]
pub struct Entity {
    #[command(flatten)]
    gate: GateArgs,
    #[command(subcommand)]
    command: Command,
}

#[derive(Debug, Subcommand)]
enum Command {
    /// Put entities, new or changed, once the schema allows all of them
    Put {
        /// One entity as Cedar's JSON, or a list of them; `-` is standard input
        #[arg(default_value = "-")]
        file: PathBuf,
        #[command(flatten)]
        wait: Wait,
    },
    /// Delete an entity
    Delete {
        /// Its uid, such as `User::"alice"`
        #[arg(value_parser = uid)]
        uid: EntityUid,
        #[command(flatten)]
        wait: Wait,
    },
    /// Show an entity
    Show {
        /// Its uid, such as `User::"alice"`
        #[arg(value_parser = uid)]
        uid: EntityUid,
    },
    /// List the entities
    List {
        /// Only those of this type; may be given many times
        #[arg(long = "type", value_name = "TYPE")]
        kind: Vec<String>,
    },
}

/// Why an `entity` command failed.
#[derive(Debug, thiserror::Error, miette::Diagnostic)]
pub enum EntityError {
    /// The cluster is not known.
    #[error(transparent)]
    #[diagnostic(transparent)]
    Cluster(#[from] ClusterError),
    /// The configuration names no topic of entities.
    #[error("the configuration names no topic of entities")]
    #[diagnostic(help("write `entities = \"countersign.entities\"` into `[control]`"))]
    NoTopic,
    /// The policies or their schema have mistakes.
    #[error("the policies cannot be used")]
    Policies(Problems),
    /// A file could not be used.
    #[error(transparent)]
    #[diagnostic(transparent)]
    File(#[from] FileError),
    /// What shall be put is no JSON.
    #[error("the entities are no JSON: {0}")]
    Json(#[from] JsonError),
    /// The topic could not be read or written.
    #[error(transparent)]
    #[diagnostic(transparent)]
    Topic(#[from] TopicError),
    /// It is not known whether every gate has taken it in.
    #[error(transparent)]
    #[diagnostic(transparent)]
    Acknowledge(#[from] AcknowledgeError),
    /// The output could not be written.
    #[error("cannot write: {0}")]
    Output(#[from] io::Error),
}

impl Entity {
    /// Runs the command: 2 where an entity is refused or not there, 3 where it is not acknowledged.
    ///
    /// # Errors
    /// What could not be read or written.
    pub fn run(&self, out: &mut Output) -> Result<Exit, EntityError> {
        let (config, client) = self.gate.resolve()?;
        let topic = config.settings.control.entities.as_ref().ok_or(EntityError::NoTopic)?;
        let mut store = Store { topic: TopicClient::new(&client, topic), bundle: bundle(&config)?, out };
        match &self.command {
            Command::Put { file, wait } => {
                let waiting = wait.resolve(&config, &client)?;
                store.put(&files::text(file)?, waiting.as_ref())
            }
            Command::Delete { uid, wait } => store.delete(uid, wait.resolve(&config, &client)?.as_ref()),
            Command::Show { uid } => store.show(uid),
            Command::List { kind } => store.list(kind),
        }
    }
}

fn bundle(config: &Config) -> Result<std::sync::Arc<Bundle>, EntityError> {
    let offer = offer(&config.settings.routes, &config.settings.policy.subject_type);
    // A file of entities that is still in the folder is what `put` may just be reading.
    let loaded = PolicySource::read(&config.settings.policy.path).load(&offer, EntitiesFrom::Folder);
    Ok(loaded.map_err(EntityError::Policies)?.0.bundle)
}

/// The topic of entities as the commands see it.
struct Store<'s> {
    topic: TopicClient<'s>,
    bundle: std::sync::Arc<Bundle>,
    out: &'s mut Output,
}

impl Store<'_> {
    fn put(&mut self, text: &str, waiting: Option<&Waiting>) -> Result<Exit, EntityError> {
        let mut entities = Vec::new();
        let mut refused = false;
        for value in listed(text)? {
            match Checked::read(&value).and_then(|entity| entity.check(&self.bundle).map(|()| entity)) {
                Ok(entity) => entities.push(entity),
                Err(problem) => {
                    refused = true;
                    self.refuse(&problem)?;
                }
            }
        }
        if refused {
            return Ok(Exit::No);
        }
        let view = self.topic.read(|_| true)?;
        let present: Vec<Checked> =
            view.last.iter().filter_map(|(key, record)| entity_of(key, record.value.as_deref()?)).collect();
        let together = checked::merged(&present, &entities, &self.bundle);
        if let Err(problem) = checked::check_all(together.into_values(), &self.bundle) {
            self.refuse(&problem)?;
            return Ok(Exit::No);
        }
        let mut written = Vec::new();
        for entity in &entities {
            let key = entity.key();
            let at =
                self.topic.write(view.home(key.as_bytes()), key.as_bytes(), Some(entity.json.as_bytes()))?;
            self.say("put", &key, &at)?;
            written.push(at);
        }
        self.end(&written, waiting)
    }

    /// Waits for the gates, if that was asked for and there is something to wait for.
    fn end(&mut self, written: &[Coordinates], waiting: Option<&Waiting>) -> Result<Exit, EntityError> {
        match waiting {
            Some(waiting) if !written.is_empty() => Ok(waiting.run(written, self.out)?),
            _ => Ok(Exit::Done),
        }
    }

    fn delete(&mut self, uid: &EntityUid, waiting: Option<&Waiting>) -> Result<Exit, EntityError> {
        let key = uid.to_string();
        let view = self.topic.read(|found| found == key.as_bytes())?;
        if view.values().next().is_none() {
            return self.unknown(&key);
        }
        let at = self.topic.write(view.home(key.as_bytes()), key.as_bytes(), None)?;
        self.say("deleted", &key, &at)?;
        self.end(&[at], waiting)
    }

    fn show(&mut self, uid: &EntityUid) -> Result<Exit, EntityError> {
        let key = uid.to_string();
        let view = self.topic.read(|found| found == key.as_bytes())?;
        if view.values().next().is_none() { self.unknown(&key) } else { self.all(&view, |_| true) }
    }

    fn list(&mut self, kinds: &[String]) -> Result<Exit, EntityError> {
        let view = self.topic.read(|_| true)?;
        self.all(&view, |entity| kinds.is_empty() || kinds.contains(&entity.uid.type_name().to_string()))
    }

    /// Writes what stands, and what a gate would not take in: then the answer is 2.
    fn all(&mut self, view: &View, wanted: impl Fn(&Checked) -> bool) -> Result<Exit, EntityError> {
        let mut exit = Exit::Done;
        for (record, value) in view.values() {
            let key = record.key.as_deref().unwrap_or_default();
            let at = record.source.to_string();
            let read = Checked::of_record(key, value);
            match read.and_then(|entity| entity.check(&self.bundle).map(|()| entity)) {
                Ok(entity) if wanted(&entity) => self.entity(&entity, &at)?,
                Ok(_) => {}
                Err(problem) => {
                    exit = Exit::No;
                    let key = String::from_utf8_lossy(key);
                    match self.out.format() {
                        Format::Json => {
                            self.out.json_line(&json!({"key": key, "at": at, "problem": problem}))?;
                        }
                        Format::Human => {
                            let (key, problem) = (plain(&key), plain(&problem));
                            writeln!(self.out.data(), "UNUSABLE  {key}  {problem}  {at}")?;
                        }
                    }
                }
            }
        }
        Ok(exit)
    }

    fn entity(&mut self, entity: &Checked, at: &str) -> io::Result<()> {
        match self.out.format() {
            Format::Json => {
                let value: Value = serde_json::from_str(&entity.json)?;
                self.out.json_line(&json!({"uid": entity.key(), "entity": value, "at": at}))
            }
            Format::Human => {
                writeln!(self.out.data(), "{}  {}  {at}", plain(&entity.key()), plain(&entity.json))
            }
        }
    }

    fn say(&mut self, done: &str, key: &str, at: &Coordinates) -> io::Result<()> {
        match self.out.format() {
            Format::Json => self.out.json_line(&json!({ "uid": key, done: at.to_string() })),
            Format::Human => writeln!(self.out.data(), "{done}  {}  {at}", plain(key)),
        }
    }

    fn refuse(&mut self, problem: &str) -> io::Result<()> {
        match self.out.format() {
            Format::Json => self.out.json_line(&json!({ "refused": problem })),
            Format::Human => writeln!(self.out.data(), "refused: {}", plain(problem)),
        }
    }

    fn unknown(&mut self, key: &str) -> Result<Exit, EntityError> {
        self.refuse(&format!("there is no entity `{key}`"))?;
        Ok(Exit::No)
    }
}

fn entity_of(key: &[u8], value: &[u8]) -> Option<Checked> {
    Checked::of_record(key, value).ok()
}

/// One entity, or a list of them.
fn listed(text: &str) -> Result<Vec<Value>, JsonError> {
    match strict::parse(text.trim().as_bytes())? {
        Value::Array(entities) => Ok(entities),
        entity => Ok(vec![entity]),
    }
}

fn uid(text: &str) -> Result<EntityUid, String> {
    text.parse().map_err(|_| "must be a uid as Cedar writes it, such as `User::\"alice\"`".to_owned())
}
