//! The policy folder, read whole: policies, schema and entities, each checked, together or not at all. Limits: which
//! files count is decided by their names; what they say is for `authorize::policy`.

use std::path::{Path, PathBuf};
use std::sync::Arc;

use super::files::{self, ReadFile};
use crate::authorize::ids::Digest;
use crate::authorize::limits::MAX_POLICY_FILE_BYTES;
use crate::authorize::policy::{Bundle, Entities, LoadErrors, Offer, SourceFile};
use crate::authorize::route::Route;
use crate::config::{ControlSettings, Problem, Problems, RouteSettings};

/// What the folder holds, fit to decide.
#[derive(Debug, Clone)]
pub struct Policies {
    /// The policies and their schema.
    pub bundle: Arc<Bundle>,
    /// The entities.
    pub entities: Arc<Entities>,
}

/// The folder as it was read, before anything is made of it.
#[derive(Debug)]
pub struct PolicySource {
    policies: Vec<ReadFile>,
    schemas: Vec<ReadFile>,
    entities: Vec<ReadFile>,
    folder: PathBuf,
    problems: Problems,
    digest: Digest,
}

/// Where the entities are.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum EntitiesFrom {
    /// In the policy folder.
    Folder,
    /// In the topic that `[control]` names, so that the folder may hold none.
    Topic,
}

impl EntitiesFrom {
    /// What the configuration says.
    pub fn of(control: &ControlSettings) -> Self {
        if control.entities.is_some() { Self::Topic } else { Self::Folder }
    }
}

/// What a file of the folder is for.
enum Kind {
    Policy,
    Schema,
    Entities,
    Other,
}

impl PolicySource {
    /// Reads a folder: `*.cedar`, `*links.json` and `VERSION` at any depth, one `schema.cedarschema` or `schema.json`,
    /// and `entities.json` or `entities/*.json`. What cannot be read is a problem of [`Self::load`].
    pub fn read(folder: &Path) -> Self {
        let mut source = Self {
            policies: Vec::new(),
            schemas: Vec::new(),
            entities: Vec::new(),
            folder: folder.to_owned(),
            problems: Problems::default(),
            digest: Digest([0; 32]),
        };
        let paths = files::list(folder).unwrap_or_else(|problems| {
            source.problems.append(problems);
            Vec::new()
        });
        for path in paths {
            let kind = kind(path.strip_prefix(folder).unwrap_or(&path));
            let list = match kind {
                Kind::Policy => &mut source.policies,
                Kind::Schema => &mut source.schemas,
                Kind::Entities => &mut source.entities,
                Kind::Other => continue,
            };
            match files::read(&path, MAX_POLICY_FILE_BYTES) {
                Ok(file) => list.push(file),
                Err(problem) => source.problems.push(problem),
            }
        }
        source.digest = files::digest(source.policies.iter().chain(&source.schemas).chain(&source.entities));
        source
    }

    /// Tells whether the files are still those of another reading.
    pub fn digest(&self) -> Digest {
        self.digest
    }

    /// Checks everything against what the routes offer. The problems beside a good result are warnings. Where the entities
    /// are in a topic, the result has none.
    ///
    /// # Errors
    /// Everything that is wrong with the folder.
    pub fn load(mut self, offer: &Offer, from: EntitiesFrom) -> Result<(Policies, Problems), Problems> {
        let mut problems = self.problems;
        if from == EntitiesFrom::Topic {
            for file in std::mem::take(&mut self.entities) {
                problems.push(
                    Problem::error("entities are in a file and in the topic that `control.entities` names")
                        .within(file.path.display().to_string())
                        .help(
                            "put them into the topic with `countersign entity put`, and take the file away",
                        ),
                );
            }
        }
        let place = self.folder.display().to_string();
        if self.schemas.len() > 1 {
            problems.push(
                Problem::error("there are two schemas").within(place.as_str()).help("keep one of them"),
            );
        }
        let Some(schema) = self.schemas.pop() else {
            if !problems.stop() {
                problems.push(
                    Problem::error("there is no schema")
                        .within(place)
                        .help("add `schema.cedarschema`: without it no policy can be checked"),
                );
            }
            return Err(problems);
        };
        if self.policies.is_empty() {
            problems.push(
                Problem::warning("there is no policy, so every record is denied")
                    .within(place)
                    .help("add files `*.cedar`"),
            );
        }
        let bundle =
            Bundle::load(self.policies.into_iter().map(source_file).collect(), source_file(schema), offer);
        let bundle = match bundle {
            Ok(bundle) => bundle,
            Err(errors) => {
                problems.append(described(&errors));
                return Err(problems);
            }
        };
        for warning in bundle.warnings() {
            problems.push(Problem::from_diagnostic(warning));
        }
        match Entities::load(self.entities.into_iter().map(source_file).collect(), &bundle) {
            Ok(entities) if !problems.stop() => {
                Ok((Policies { bundle: Arc::new(bundle), entities: Arc::new(entities) }, problems))
            }
            Ok(_) => Err(problems),
            Err(errors) => {
                problems.append(described(&errors));
                Err(problems)
            }
        }
    }
}

/// What every route always has to offer to the policies of the gate.
pub fn offer(routes: &[RouteSettings], subject_type: &str) -> Offer {
    let every = |has: fn(&Route) -> bool| !routes.is_empty() && routes.iter().all(|route| has(&route.route));
    Offer {
        transaction: every(|route| route.require_transaction),
        countersignature: every(|route| route.require_countersignature),
        value: every(|route| route.mapping.maps_value()),
        subject_type: Some(subject_type.to_owned()),
    }
}

fn kind(path: &Path) -> Kind {
    let name = path.file_name().and_then(|name| name.to_str()).unwrap_or_default();
    let top = path.components().count() == 1;
    let in_entities = path.parent().is_some_and(|parent| parent == Path::new("entities"));
    match name {
        "schema.cedarschema" | "schema.json" if top => Kind::Schema,
        "entities.json" if top => Kind::Entities,
        "VERSION" if top => Kind::Policy,
        name if in_entities && name.ends_with(".json") => Kind::Entities,
        name if name.ends_with(".cedar") || name.ends_with("links.json") => Kind::Policy,
        _ => Kind::Other,
    }
}

fn source_file(file: ReadFile) -> SourceFile {
    SourceFile { name: file.path.display().to_string(), text: file.text }
}

fn described(errors: &LoadErrors) -> Problems {
    let mut problems = Problems::default();
    for problem in errors.problems() {
        problems.push(Problem::from_diagnostic(problem));
    }
    problems
}
