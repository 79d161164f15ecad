//! The types that a schema declares, read from its resolved JSON form: what each action's context looks like and which
//! entity types there are. Limits: Cedar has accepted the schema before; a form that it accepts and that is not known
//! here is refused by its name, not guessed.

use std::collections::{BTreeMap, BTreeSet, HashMap};
use std::fmt;
use std::sync::Arc;

use cedar_policy::{EntityId, EntityTypeName, EntityUid};
use serde_json::{Map, Value};

/// A type that a schema can declare for a part of a context.
#[derive(Debug, Clone)]
pub(super) enum Shape {
    Bool,
    Long,
    String,
    Datetime,
    Duration,
    Decimal,
    Ip,
    Entity(Arc<EntityKind>),
    Set(Box<Shape>),
    Record(Vec<Member>),
}

/// A member of a declared record.
#[derive(Debug, Clone)]
pub(super) struct Member {
    pub(super) name: Arc<str>,
    pub(super) required: bool,
    pub(super) shape: Shape,
}

/// An entity type of the schema.
#[derive(Debug)]
pub(super) struct EntityKind {
    pub(super) name: EntityTypeName,
    /// The name as text.
    pub(super) text: String,
    /// The only ids there can be, for an enumerated type.
    choices: Option<BTreeSet<String>>,
}

impl EntityKind {
    /// The entity of this type with this id; `None` where an enumerated type has no such id. Built from the parsed
    /// string, never from Cedar text.
    pub(super) fn entity(&self, id: &str) -> Option<EntityUid> {
        if self.choices.as_ref().is_some_and(|choices| !choices.contains(id)) {
            return None;
        }
        Some(EntityUid::from_type_name_and_id(self.name.clone(), EntityId::new(id)))
    }
}

impl fmt::Display for Shape {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Bool => f.write_str("Bool"),
            Self::Long => f.write_str("Long"),
            Self::String => f.write_str("String"),
            Self::Datetime => f.write_str("datetime"),
            Self::Duration => f.write_str("duration"),
            Self::Decimal => f.write_str("decimal"),
            Self::Ip => f.write_str("ipaddr"),
            Self::Entity(kind) => f.write_str(&kind.text),
            Self::Set(element) => write!(f, "Set<{element}>"),
            Self::Record(_) => f.write_str("a record"),
        }
    }
}

/// The entity types and common types of a schema.
pub(super) struct Catalog<'j> {
    kinds: HashMap<String, Arc<EntityKind>>,
    common: HashMap<String, &'j Value>,
    actions: BTreeMap<&'j str, &'j Map<String, Value>>,
}

impl<'j> Catalog<'j> {
    /// Reads the resolved JSON form of a schema.
    pub(super) fn new(schema: &'j Value) -> Result<Self, String> {
        let mut catalog = Self { kinds: HashMap::new(), common: HashMap::new(), actions: BTreeMap::new() };
        for (namespace, definition) in schema.as_object().into_iter().flatten() {
            let full = |name: &str| {
                if namespace.is_empty() { name.to_owned() } else { format!("{namespace}::{name}") }
            };
            for (name, definition) in members(definition, "entityTypes") {
                let text = full(name);
                let name = text.parse().map_err(|_| format!("`{text}` is no name of an entity type"))?;
                let choices = definition.get("enum").and_then(Value::as_array);
                let choices =
                    choices.map(|ids| ids.iter().filter_map(|id| id.as_str().map(str::to_owned)).collect());
                catalog.kinds.insert(text.clone(), Arc::new(EntityKind { name, text, choices }));
            }
            for (name, definition) in members(definition, "commonTypes") {
                catalog.common.insert(full(name), definition);
            }
            if namespace.is_empty() {
                for (name, action) in members(definition, "actions") {
                    if let Some(action) = action.as_object() {
                        catalog.actions.insert(name, action);
                    }
                }
            }
        }
        Ok(catalog)
    }

    /// The actions outside of any namespace, which are those that a gate can ask for: `Action::"<name>"`.
    pub(super) fn actions(&self) -> impl Iterator<Item = &'j str> {
        self.actions.keys().copied()
    }

    pub(super) fn kind(&self, name: &str) -> Option<&Arc<EntityKind>> {
        self.kinds.get(name)
    }

    pub(super) fn into_kinds(self) -> HashMap<String, Arc<EntityKind>> {
        self.kinds
    }

    /// What the context of this action looks like.
    pub(super) fn context(&self, action: &str) -> Result<Vec<Member>, String> {
        let applies = self.actions.get(action).and_then(|action| action.get("appliesTo"));
        let Some(context) = applies.and_then(|applies| applies.get("context")) else {
            return Ok(Vec::new());
        };
        match self.shape(context, 0)? {
            Shape::Record(members) => Ok(members),
            other => Err(format!("a context must be a record, not {other}")),
        }
    }

    fn shape(&self, declared: &Value, depth: usize) -> Result<Shape, String> {
        // Cedar refuses types that contain themselves; the bound keeps this function total all the same.
        if depth > 64 {
            return Err("the type nests deeper than 64".to_owned());
        }
        let name = |member: &str| declared.get(member).and_then(Value::as_str).unwrap_or_default();
        match name("type") {
            "Record" => {
                if declared.get("additionalAttributes").and_then(Value::as_bool) == Some(true) {
                    return Err(
                        "a context with open records cannot be built from what is declared".to_owned()
                    );
                }
                let mut record = Vec::new();
                for (name, declared) in members(declared, "attributes") {
                    record.push(Member {
                        name: name.as_str().into(),
                        required: declared.get("required").and_then(Value::as_bool).unwrap_or(true),
                        shape: self.shape(declared, depth + 1)?,
                    });
                }
                record.sort_by(|a, b| a.name.cmp(&b.name));
                Ok(Shape::Record(record))
            }
            "Set" => {
                let element = declared.get("element").ok_or("a set without the type of its elements")?;
                Ok(Shape::Set(Box::new(self.shape(element, depth + 1)?)))
            }
            "Entity" => {
                let kind = self.kinds.get(name("name"));
                kind.cloned()
                    .map(Shape::Entity)
                    .ok_or_else(|| format!("unknown entity type `{}`", name("name")))
            }
            "Extension" => builtin(name("name")).ok_or_else(|| format!("unknown type `{}`", name("name"))),
            // The author's own names come first: they may shadow a type of Cedar's, which is then `__cedar::...`.
            other => match self.common.get(other) {
                Some(declared) => self.shape(declared, depth + 1),
                None => builtin(other).ok_or_else(|| format!("unknown type `{other}`")),
            },
        }
    }
}

fn members<'j>(value: &'j Value, name: &str) -> impl Iterator<Item = (&'j String, &'j Value)> {
    value.get(name).and_then(Value::as_object).into_iter().flatten()
}

fn builtin(name: &str) -> Option<Shape> {
    Some(match name.strip_prefix("__cedar::").unwrap_or(name) {
        "Bool" | "Boolean" => Shape::Bool,
        "Long" => Shape::Long,
        "String" => Shape::String,
        "datetime" => Shape::Datetime,
        "duration" => Shape::Duration,
        "decimal" => Shape::Decimal,
        "ipaddr" => Shape::Ip,
        _ => return None,
    })
}
