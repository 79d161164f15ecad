//! The entity store: who and what there is, with attributes and parents, read from JSON, checked against the schema and
//! indexed once. Limits: immutable; a decision borrows it, so an entity that is not in it has no attributes and no
//! parents.

use std::collections::HashMap;
use std::sync::Arc;

use cedar_policy::{Entity, EntityUid};
use serde_json::Value;
use serde_json::value::RawValue;

use super::bundle::Bundle;
use super::digest;
use super::problem::{LoadErrors, Problem, Source, SourceFile};
use crate::authorize::ids::Digest;
use crate::authorize::limits::MAX_POLICY_FILE_BYTES;
use crate::authorize::text::Text;

/// Every entity that policies may ask about, the actions of the schema included.
#[derive(Debug)]
pub struct Entities {
    store: Arc<cedar_policy::Entities>,
    version: Text,
    len: usize,
}

/// An entity that stands alone and fits the schema of a bundle.
#[derive(Debug, Clone)]
pub struct CheckedEntity(Entity);

impl CheckedEntity {
    /// Reads one entity in Cedar's JSON form and checks it against the bundle's schema.
    ///
    /// # Errors
    /// What is wrong with it, in one sentence.
    pub fn read(text: &str, bundle: &Bundle) -> Result<Self, String> {
        let value: Value = serde_json::from_str(text).map_err(|error| error.to_string())?;
        let entity = Entity::from_json_value(value, Some(bundle.schema()));
        entity.map(Self).map_err(|error| described(&error))
    }

    /// Its uid as Cedar writes it: `Type::"id"`.
    pub fn uid(&self) -> String {
        self.0.uid().to_string()
    }
}

impl Entities {
    /// Reads entity files, each a JSON list in Cedar's form, and checks them against the bundle's schema; every mistake
    /// of every file is reported at once. No file at all is a store of the schema's actions alone.
    pub fn load(files: Vec<SourceFile>, bundle: &Bundle) -> Result<Self, LoadErrors> {
        const WHAT: &str = "entities";
        let mut problems = Vec::new();
        let mut entities = Vec::new();
        let mut places: HashMap<EntityUid, String> = HashMap::new();
        let sources: Vec<_> = files.into_iter().map(Source::new).collect();
        for source in &sources {
            if source.text().len() > MAX_POLICY_FILE_BYTES {
                problems.push(Problem::new(source, "the file is larger than 64 MiB"));
                continue;
            }
            for (raw, offset) in elements(source, &mut problems) {
                let at = |problem: Problem| problem.at(offset, raw.get().len(), "this entity");
                let read = serde_json::from_str(raw.get()).map_err(|e| e.to_string());
                let read = read.and_then(|value: Value| {
                    Entity::from_json_value(value, Some(bundle.schema())).map_err(|e| described(&e))
                });
                match read {
                    Err(message) => problems.push(at(Problem::new(source, message))),
                    Ok(entity) => {
                        let uid = entity.uid();
                        if let Some(file) = places.get(&uid) {
                            let message = format!("the entity `{uid}` is there twice");
                            problems
                                .push(at(Problem::new(source, message)
                                    .with_help(format!("it is also in `{file}`"))));
                        } else {
                            places.insert(uid, source.base_name().to_owned());
                            entities.push(entity);
                        }
                    }
                }
            }
        }
        let digest = digest_of(&entities);
        let len = entities.len();
        // Adds the actions of the schema, computes ancestors, and refuses cycles.
        let store = match cedar_policy::Entities::from_entities(entities, Some(bundle.schema())) {
            Ok(store) => store,
            Err(error) => {
                let place = sources.first().cloned().unwrap_or_else(nowhere);
                problems.push(Problem::new(&place, described(&error)));
                cedar_policy::Entities::empty()
            }
        };
        LoadErrors::check(WHAT, problems)?;
        Ok(Self { store: Arc::new(store), version: digest.text(), len })
    }

    /// The store of those entities, which were checked against this bundle; what they are together is checked here.
    ///
    /// # Errors
    /// What is wrong with them together, such as a cycle of parents.
    pub fn of(entities: Vec<CheckedEntity>, version: String, bundle: &Bundle) -> Result<Self, String> {
        let len = entities.len();
        let entities = entities.into_iter().map(|entity| entity.0);
        let store = cedar_policy::Entities::from_entities(entities, Some(bundle.schema()))
            .map_err(|error| described(&error))?;
        Ok(Self { store: Arc::new(store), version: version.into(), len })
    }

    /// The same entities under another version.
    pub fn under(&self, version: String) -> Self {
        Self { store: Arc::clone(&self.store), version: version.into(), len: self.len }
    }

    /// What audit records call this state: of files SHA-256 over the entities, the same on every machine and for every order
    /// and layout of the files; of a topic how far it was read.
    pub fn version(&self) -> &Text {
        &self.version
    }

    /// How many entities the files had, the schema's actions not counted.
    pub fn len(&self) -> usize {
        self.len
    }

    /// Whether the files had none.
    pub fn is_empty(&self) -> bool {
        self.len == 0
    }

    pub(super) fn store(&self) -> &cedar_policy::Entities {
        &self.store
    }
}

/// The elements of a file's list, with where each begins.
fn elements<'s>(source: &'s Source, problems: &mut Vec<Problem>) -> Vec<(&'s RawValue, usize)> {
    let text = source.text();
    match serde_json::from_str::<Vec<&RawValue>>(text) {
        Ok(list) => {
            list.into_iter().map(|raw| (raw, raw.get().as_ptr() as usize - text.as_ptr() as usize)).collect()
        }
        Err(error) => {
            problems
                .push(json_problem(source, &error).with_help("an entity file is a JSON list of entities"));
            Vec::new()
        }
    }
}

/// A mistake of JSON, at its line and column.
pub(super) fn json_problem(source: &Source, error: &serde_json::Error) -> Problem {
    let lines = source.text().split_inclusive('\n').take(error.line().saturating_sub(1));
    let offset = lines.map(str::len).sum::<usize>() + error.column().saturating_sub(1);
    Problem::new(source, error.to_string()).at(offset.min(source.text().len()), 0, "here")
}

/// An error with its causes, in one sentence.
fn described(error: &dyn std::error::Error) -> String {
    let mut text = error.to_string();
    let mut cause = error.source();
    while let Some(inner) = cause {
        let inner_text = inner.to_string();
        if !text.contains(&inner_text) {
            text = format!("{text}: {inner_text}");
        }
        cause = inner.source();
    }
    text
}

fn nowhere() -> Source {
    Source::new(SourceFile { name: "entities".to_owned(), text: String::new() })
}

fn digest_of(entities: &[Entity]) -> Digest {
    let mut all: Vec<Value> = entities
        .iter()
        .map(|entity| {
            // What Cedar read it can write; an entity that it could not write is named at least.
            let mut json = entity.to_json_value().unwrap_or_else(|_| entity.uid().to_string().into());
            // Sets are sorted by Cedar; the list of parents is in no order.
            if let Some(parents) = json.get_mut("parents") {
                digest::sort_lists(parents);
            }
            json
        })
        .collect();
    all.sort_by_cached_key(digest::canonical);
    digest::of_json(&Value::Array(all))
}
