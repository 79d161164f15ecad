//! Loading a bundle: parse every file, check ids and annotations, link templates, validate strictly, settle each
//! action's context, and only then make a bundle. Limits: no file is read here; nothing is taken over from a set of
//! files with a single mistake.

use std::collections::{BTreeMap, HashMap};

use cedar_policy::{
    EntityId, EntityTypeName, EntityUid, Policy, PolicyId, PolicySet, Schema, SchemaFragment, Template,
    ValidationMode, Validator,
};
use serde_json::Value;

use super::annotations::{self, Meta, is_name};
use super::answering::{self, ANSWER, AnswerAction, CHALLENGE};
use super::bundle::{Action, Bundle};
use super::context::Projection;
use super::facts::Offer;
use super::index::Index;
use super::nesting;
use super::offered::WORKLOAD;
use super::problem::{LoadErrors, Problem, Source, SourceFile};
use super::shape::Catalog;
use super::value::{MadeCache, TimeCache};
use crate::authorize::limits::{MAX_POLICIES, MAX_POLICY_FILE_BYTES};
use crate::authorize::text::Text;

mod content;
mod links;
mod logins;

pub(super) fn load(
    policies: Vec<SourceFile>,
    schema: SourceFile,
    offer: &Offer,
) -> Result<Bundle, LoadErrors> {
    const WHAT: &str = "policies";
    let mut loading = Loading::default();
    let schema = Source::new(schema);
    let declared = loading.read_schema(&schema);
    let (links, texts): (Vec<_>, Vec<_>) =
        policies.into_iter().map(Source::new).partition(|source| source.base_name().ends_with("links.json"));
    let (versions, texts): (Vec<_>, Vec<_>) =
        texts.into_iter().partition(|source| source.base_name() == "VERSION");
    let version = loading.read_version(&versions);
    for source in &texts {
        loading.read_policies(source);
    }
    for source in &links {
        loading.read_links(source);
    }
    if loading.places.len() > MAX_POLICIES {
        let message = format!("there are {} policies, more than {MAX_POLICIES}", loading.places.len());
        loading.problems.push(Problem::new(&schema, message));
    }
    if let Some((cedar, _)) = &declared {
        loading.validate(cedar);
    }
    let Some((cedar, json)) = declared else {
        LoadErrors::check(WHAT, loading.problems)?;
        // Without a schema there is a problem that says so; this is never reached.
        return Err(LoadErrors::one(WHAT, Problem::new(&schema, "the schema could not be read")));
    };
    let Actions { actions, answer, kinds } = loading.read_actions(&schema, &cedar, &json, offer);
    let digest = loading.digest(&schema, json);
    let plain = loading.index(false);
    let step_up = loading.index(true);
    LoadErrors::check(WHAT, loading.problems)?;
    Ok(Bundle {
        digest,
        digest_text: digest.text(),
        version: version.map(Text::from),
        plain,
        step_up,
        meta: loading.meta,
        actions,
        answer,
        kinds,
        subject_type: offer.subject_type.clone(),
        schema: cedar,
        warnings: loading.warnings,
        times: TimeCache::new(),
        made: MadeCache::new(),
    })
}

/// What the schema says can be asked for.
#[derive(Default)]
struct Actions {
    actions: HashMap<String, Action>,
    answer: Option<AnswerAction>,
    kinds: HashMap<String, std::sync::Arc<super::shape::EntityKind>>,
}

/// What has been read so far, and what was wrong with it.
#[derive(Default)]
struct Loading {
    problems: Vec<Problem>,
    warnings: Vec<Problem>,
    set: PolicySet,
    meta: HashMap<String, Meta>,
    /// Where each policy, template and link stands, by its id.
    places: HashMap<String, Place>,
}

#[derive(Clone)]
struct Place {
    source: Source,
    offset: usize,
    len: usize,
}

/// A policy or a template, which differ in type only here.
enum Statement {
    Policy(Policy),
    Template(Template),
}

impl Place {
    fn problem(&self, message: impl Into<String>) -> Problem {
        Problem::new(&self.source, message).at(self.offset, self.len, "this policy")
    }

    /// A problem at an annotation of this policy.
    fn annotation(&self, key: &str, message: impl Into<String>) -> Problem {
        let text = self.source.text().get(self.offset..self.offset + self.len).unwrap_or_default();
        let marker = format!("@{key}");
        match text.find(&marker) {
            Some(at) => {
                Problem::new(&self.source, message).at(self.offset + at, marker.len(), "this annotation")
            }
            None => self.problem(message),
        }
    }
}

impl Statement {
    fn annotations(&self) -> BTreeMap<&str, &str> {
        match self {
            Self::Policy(policy) => policy.annotations().collect(),
            Self::Template(template) => template.annotations().collect(),
        }
    }

    fn effect(&self) -> cedar_policy::Effect {
        match self {
            Self::Policy(policy) => policy.effect(),
            Self::Template(template) => template.effect(),
        }
    }

    /// The number that Cedar gave it: its place among the statements of its file.
    fn number(&self) -> usize {
        let id: &str = match self {
            Self::Policy(policy) => policy.id().as_ref(),
            Self::Template(template) => template.id().as_ref(),
        };
        id.strip_prefix("policy").and_then(|number| number.parse().ok()).unwrap_or(usize::MAX)
    }

    /// Whether it looks at how the subject has logged in. One that Cedar cannot write down counts as one that does.
    fn looks_at_login(&self) -> bool {
        let json = match self {
            Self::Policy(policy) => policy.to_json().ok(),
            Self::Template(template) => template.to_json().ok(),
        };
        json.is_none_or(|json| logins::looks_at_login(&json))
    }

    fn text(&self) -> Option<String> {
        match self {
            Self::Policy(policy) => policy.to_cedar(),
            Self::Template(template) => Some(template.to_cedar()),
        }
    }
}

impl Loading {
    /// The schema as Cedar holds it, and its resolved JSON form.
    fn read_schema(&mut self, source: &Source) -> Option<(Schema, Value)> {
        if self.is_too_large(source) {
            return None;
        }
        let json_form = source.base_name().ends_with(".json");
        let cedar_text = if json_form {
            let fragment = SchemaFragment::from_json_str(source.text());
            let text = fragment.map_err(|e| Box::new(Problem::found(source, &e))).and_then(|fragment| {
                fragment.to_cedarschema().map_err(|e| {
                    let problem = Problem::new(source, e.to_string());
                    Box::new(problem.with_help("write this schema in Cedar's own form, `.cedarschema`"))
                })
            });
            match text {
                Ok(text) => text,
                Err(problem) => {
                    self.problems.push(*problem);
                    return None;
                }
            }
        } else {
            source.text().to_owned()
        };
        // The labels of a schema that was translated point into the translation, which nobody can see.
        let found = |e: &dyn miette::Diagnostic| {
            if json_form { Problem::new(source, e.to_string()) } else { Problem::found(source, e) }
        };
        let schema = match Schema::from_cedarschema_str(&cedar_text) {
            Ok((schema, warnings)) => {
                self.warnings.extend(warnings.map(|warning| found(&warning).warning()));
                schema
            }
            Err(error) => {
                self.problems.push(found(&error));
                return None;
            }
        };
        match cedar_policy::schema_str_to_json_with_resolved_types(&cedar_text) {
            Ok((json, _)) => Some((schema, json)),
            Err(error) => {
                self.problems.push(found(&error));
                None
            }
        }
    }

    fn is_too_large(&mut self, source: &Source) -> bool {
        let too_large = source.text().len() > MAX_POLICY_FILE_BYTES;
        if too_large {
            self.problems.push(Problem::new(source, "the file is larger than 64 MiB"));
        }
        too_large
    }

    fn read_version(&mut self, sources: &[Source]) -> Option<String> {
        let [first, more @ ..] = sources else { return None };
        for source in more {
            self.problems.push(Problem::new(source, "there is more than one `VERSION`"));
        }
        let version = first.text().trim();
        if version.is_empty() || version.chars().count() > 128 || version.chars().any(char::is_control) {
            self.problems.push(Problem::new(first, "a version is one line of 1 to 128 characters"));
        }
        Some(version.to_owned())
    }

    fn read_policies(&mut self, source: &Source) {
        if self.is_too_large(source) {
            return;
        }
        if let Some(deep) = nesting::too_deep(source.text()) {
            let problem = Problem::new(source, "the policy nests too deeply to be evaluated safely");
            self.problems.push(problem.at(deep.offset, deep.len, "here").with_help(
                "split it into several policies, or use a set and `contains` for long lists of alternatives",
            ));
            return;
        }
        let set: PolicySet = match source.text().parse() {
            Ok(set) => set,
            Err(errors) => {
                let errors: &cedar_policy::ParseErrors = &errors;
                self.problems.extend(errors.iter().map(|error| Problem::found(source, error)));
                return;
            }
        };
        let policies = set.policies().cloned().map(Statement::Policy);
        let mut statements: Vec<_> =
            policies.chain(set.templates().cloned().map(Statement::Template)).collect();
        statements.sort_by_key(Statement::number);
        let mut at = 0;
        for statement in statements {
            // Cedar keeps a statement's own text and not its place; in order, each is the next to be found.
            let text = statement.text().unwrap_or_default();
            let offset =
                source.text().get(at..).and_then(|rest| rest.find(&text)).map_or(at, |found| at + found);
            at = offset + text.len();
            self.take(statement, Place { source: source.clone(), offset, len: text.len() });
        }
    }

    /// Takes a policy or template under the id that its annotation gives.
    fn take(&mut self, statement: Statement, place: Place) {
        let annotations = statement.annotations();
        let id = annotations.get("id").copied();
        match id {
            None => self.problems.push(
                place
                    .problem("the policy has no `@id`")
                    .with_help("write `@id(\"<name>\")` before it, of `A-Za-z0-9._-`"),
            ),
            Some(id) if !is_name(id) => self.problems.push(
                place
                    .annotation("id", format!("`{id}` is no policy id"))
                    .with_help("an id is 1 to 128 of `A-Za-z0-9._-`"),
            ),
            Some(id) => {
                if let Some(first) = self.places.get(id) {
                    let problem = place.annotation("id", format!("the id `{id}` is there twice"));
                    self.problems
                        .push(problem.with_help(format!("it is also in `{}`", first.source.base_name())));
                }
            }
        }
        // A policy without an id of its own is validated all the same, under a name that no id can have.
        let name = match id {
            Some(id) if is_name(id) && !self.places.contains_key(id) => id.to_owned(),
            _ => format!("number {} of all", self.places.len() + 1),
        };
        let (mut meta, mut mistakes) = annotations::read(&name, statement.effect(), &annotations);
        if let Some(step_up) = meta.step_up.as_mut().filter(|asked| asked.asks_for_login())
            && statement.looks_at_login()
        {
            mistakes.extend(annotations::of_login(step_up, &annotations));
        }
        for mistake in mistakes {
            self.problems.push(place.annotation(&mistake.key, mistake.message).with_help(mistake.help));
        }
        let new_id = PolicyId::new(&name);
        let added = match &statement {
            Statement::Policy(policy) => self.set.add(policy.new_id(new_id)),
            Statement::Template(template) => self.set.add_template(template.new_id(new_id)),
        };
        if let Err(error) = added {
            self.problems.push(place.problem(error.to_string()));
        }
        if meta.reason.is_some() || meta.step_up.is_some() {
            self.meta.insert(name.clone(), meta);
        }
        self.places.insert(name, place);
    }

    fn validate(&mut self, schema: &Schema) {
        let result = Validator::new(schema.clone()).validate(&self.set, ValidationMode::Strict);
        let mut problems: Vec<_> = result
            .validation_errors()
            .map(|error| self.validation_problem(error.policy_id(), error))
            .collect();
        let mut warnings: Vec<_> = result
            .validation_warnings()
            .map(|warning| self.validation_problem(warning.policy_id(), warning).warning())
            .collect();
        let place = |p: &Problem| (p.file().map(str::to_owned), p.offset(), p.message().to_owned());
        problems.sort_by_cached_key(place);
        warnings.sort_by_cached_key(place);
        self.problems.extend(problems);
        self.warnings.extend(warnings);
    }

    fn validation_problem(&self, id: &PolicyId, found: &dyn miette::Diagnostic) -> Problem {
        let name: &str = id.as_ref();
        // What is wrong with a link is labelled in its template's text.
        let template = self.set.policy(id).and_then(Policy::template_id).map(AsRef::<str>::as_ref);
        let Some(place) = self.places.get(template.unwrap_or(name)) else {
            return Problem::new(
                &Source::new(SourceFile { name: name.to_owned(), text: String::new() }),
                found.to_string(),
            );
        };
        let problem = Problem::found(&place.source, found);
        match self.places.get(name) {
            Some(link) if template.is_some() && !problem.has_labels() => link.problem(found.to_string()),
            _ if problem.has_labels() => problem,
            _ => place.problem(found.to_string()),
        }
    }

    fn read_actions(&mut self, source: &Source, schema: &Schema, json: &Value, offer: &Offer) -> Actions {
        let catalog = match Catalog::new(json) {
            Ok(catalog) => catalog,
            Err(message) => {
                self.problems.push(Problem::new(source, message));
                return Default::default();
            }
        };
        if let Some(subject) = offer.subject_type.as_deref().filter(|subject| catalog.kind(subject).is_none())
        {
            let problem =
                Problem::new(source, format!("the schema has no entity type `{subject}` for subjects"));
            self.problems.push(problem.with_help(format!("declare `entity {subject};`")));
        }
        if catalog.kind(WORKLOAD).is_none() {
            let problem =
                Problem::new(source, format!("the schema has no entity type `{WORKLOAD}` for senders"));
            self.problems
                .push(problem.with_help(format!("declare `entity {WORKLOAD};`, outside of any namespace")));
        }
        let mut actions = HashMap::new();
        let mut answer = None;
        let Ok(action_type) = "Action".parse::<EntityTypeName>() else { return Default::default() };
        for name in catalog.actions() {
            let entity = EntityUid::from_type_name_and_id(action_type.clone(), EntityId::new(name));
            let principals: std::collections::HashSet<_> =
                schema.principals_for_action(&entity).into_iter().flatten().cloned().collect();
            let resources: std::collections::HashSet<_> =
                schema.resources_for_action(&entity).into_iter().flatten().cloned().collect();
            if principals.is_empty() || resources.is_empty() {
                // A group: it stands in scopes and is never asked for.
                continue;
            }
            let declared = match catalog.context(name) {
                Ok(members) => members,
                Err(message) => {
                    let problem = Problem::new(source, format!("action `{name}`: {message}"));
                    self.problems.push(at_action(problem, source, name));
                    continue;
                }
            };
            let of_challenges = resources.iter().any(|kind| kind.to_string() == CHALLENGE);
            let compiled = match name {
                ANSWER if of_challenges => answering::check(&declared, offer).map(|()| None),
                _ => Projection::compile(&declared, offer).map(Some),
            };
            match compiled {
                Ok(Some(context)) => {
                    actions.insert(name.to_owned(), Action { entity, principals, resources, context });
                }
                Ok(None) => answer = Some(AnswerAction { entity, principals, resources, context: declared }),
                Err(unoffered) => self.problems.extend(unoffered.into_iter().map(|unoffered| {
                    let message = format!("the context of action `{name}`: {}", unoffered.message);
                    at_action(Problem::new(source, message).with_help(unoffered.help), source, name)
                })),
            }
        }
        if actions.is_empty() && self.problems.is_empty() {
            let problem = Problem::new(source, "the schema has no action that a gate can ask for");
            self.problems.push(problem.with_help(
                "declare `action <name> appliesTo { principal: Workload, resource: ..., context: { ... } };`, \
                 outside of any namespace",
            ));
        }
        Actions { actions, answer, kinds: catalog.into_kinds() }
    }

    /// The index of the policies with `@step_up`, or of all others.
    fn index(&self, step_up: bool) -> Index {
        let asks = |policy: &Policy| policy.annotation("step_up").is_some();
        Index::new(self.set.policies().filter(|policy| asks(policy) == step_up))
    }
}

/// Points at the declaration of an action, where it can be found in the text.
fn at_action(problem: Problem, source: &Source, name: &str) -> Problem {
    let text = source.text();
    let is_word = |byte: Option<&u8>| byte.is_some_and(|b| b.is_ascii_alphanumeric() || *b == b'_');
    let declared = text.find("action").unwrap_or(0);
    let found = text.get(declared..).into_iter().flat_map(|rest| rest.match_indices(name)).find(|(at, _)| {
        let (start, end) = (declared + at, declared + at + name.len());
        !is_word(start.checked_sub(1).and_then(|before| text.as_bytes().get(before)))
            && !is_word(text.as_bytes().get(end))
    });
    match found {
        Some((at, _)) => problem.at(declared + at, name.len(), "this action"),
        None => problem,
    }
}
