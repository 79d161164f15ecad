//! What an expression can read of a record: only what was verified or is bound by the proof, only what some expression
//! names, each with its size. Limits: it believes nothing that the identity stage did not hand on.

use std::cell::Cell;
use std::collections::{BTreeMap, BTreeSet, HashMap};
use std::sync::Arc;

use cel::Context;
use serde_json::{Map, Value};

use super::bound::{self, Size};
use super::mapping::{ENVIRONMENT, Evidence, Expression, unmapped};
use crate::authorize::decision::Denial;
use crate::authorize::jose::TokenKind;
use crate::authorize::json;
use crate::authorize::limits::{MAX_MAPPED_BYTES, MAX_MAPPED_VALUE_BYTES, MAX_MAPPING_WORK_NS};
use crate::authorize::record::{Header, Record};
use crate::authorize::text::Text;

/// The variables of a record, only those that an expression reads, and their sizes.
pub(super) struct Inputs {
    pub(super) context: Context<'static, 'static>,
    sizes: BTreeMap<&'static str, Size>,
    pub(super) value_absent: &'static str,
    /// Bytes of what the expressions have yielded so far, as JSON.
    yielded: Cell<usize>,
}

impl Inputs {
    pub(super) fn read(
        reads: &BTreeSet<&'static str>,
        record: &Record,
        evidence: &Evidence<'_>,
    ) -> Result<Self, Denial> {
        let mut inputs = Self {
            context: Context::with_env(Arc::clone(&ENVIRONMENT)),
            sizes: BTreeMap::new(),
            value_absent: "the record has none",
            yielded: Cell::new(0),
        };
        for name in reads {
            match *name {
                "topic" => inputs.add_json("topic", &Value::from(record.source.topic.as_str())),
                "partition" => inputs.add_json("partition", &Value::from(record.source.partition.0)),
                "key" => {
                    let key = record.key.as_deref().map(std::str::from_utf8);
                    if let Some(Ok(key)) = key {
                        inputs.add_json("key", &Value::from(key));
                    }
                }
                "key_bytes" => {
                    if let Some(key) = &record.key {
                        inputs.add("key_bytes", cel::Value::from(key.to_vec()), Size::text(key.len()));
                    }
                }
                "value" => inputs.add_value(record)?,
                "headers" => {
                    let (headers, size) = readable_headers(record, evidence);
                    inputs.add("headers", headers, size);
                }
                "claims" => inputs.add_json("claims", &claims(evidence)),
                _ => {}
            }
        }
        Ok(inputs)
    }

    fn add(&mut self, name: &'static str, value: cel::Value, size: Size) {
        self.context.add_variable_from_value(name, value);
        self.sizes.insert(name, size);
    }

    fn add_json(&mut self, name: &'static str, value: &Value) {
        self.add(name, from_json(value), Size::json(value));
    }

    fn add_value(&mut self, record: &Record) -> Result<(), Denial> {
        let Some(bytes) = record.value.as_deref() else { return Ok(()) };
        if bytes.len() > MAX_MAPPED_VALUE_BYTES {
            return Err(unmapped(format!(
                "the value has {} bytes and the mapping reads at most {MAX_MAPPED_VALUE_BYTES}",
                bytes.len()
            )));
        }
        match json::parse(bytes) {
            Ok(value) => self.add_json("value", &value),
            Err(_) => self.value_absent = "the record's value is not strict JSON",
        }
        Ok(())
    }

    /// Refuses the record if the expressions together could run too long on it.
    pub(super) fn admit<'e>(&self, expressions: impl Iterator<Item = &'e Expression>) -> Result<(), Denial> {
        let mut work = 0.0;
        for expression in expressions {
            let size_of = |name: &str| Some(self.sizes.get(name).copied().unwrap_or(Size::SCALAR));
            let (size, more) = bound::bound(expression.program.expression(), &size_of).map_err(|_| {
                // Compilation went the same way, so this is never seen; it denies all the same.
                unmapped(format!("the work of the mapping of `{}` cannot be bounded", expression.member))
            })?;
            work += more + size.bytes;
        }
        // Written so that a bound that is not a number refuses as well.
        if work <= MAX_MAPPING_WORK_NS {
            Ok(())
        } else {
            Err(unmapped(
                "the record is too large for the route's mapping: evaluating it could take too long",
            ))
        }
    }

    /// Forgets what was yielded: it came to nothing.
    pub(super) fn begin_again(&self) {
        self.yielded.set(0);
    }

    /// Takes note of what an expression has yielded. Refuses the record if all of it together is too much to be written
    /// down.
    pub(super) fn yielding(&self, found: &Value) -> Result<(), Denial> {
        let yielded = self.yielded.get().saturating_add(json::written_len(found));
        self.yielded.set(yielded);
        if yielded <= MAX_MAPPED_BYTES {
            Ok(())
        } else {
            Err(unmapped(format!("the route's mapping yields more than {MAX_MAPPED_BYTES} bytes")))
        }
    }
}

/// The headers that may be read: those that the proof signed; on unproven records all but the five. A name that occurs
/// once is its value, one that occurs more often the list of its values; text where it is UTF-8, else bytes.
fn readable_headers(record: &Record, evidence: &Evidence<'_>) -> (cel::Value, Size) {
    let mut named: BTreeMap<&str, Vec<cel::Value>> = BTreeMap::new();
    let mut size = Size::container(record.headers.len());
    for header in &record.headers {
        let Some(name) = readable(header, evidence) else { continue };
        let value = match header.value.as_deref().map(std::str::from_utf8) {
            None => cel::Value::Null,
            Some(Ok(text)) => cel::Value::from(text),
            Some(Err(_)) => cel::Value::from(header.value.as_deref().unwrap_or_default().to_vec()),
        };
        let bytes = header.value.as_deref().map_or(0, <[u8]>::len);
        size = size.holding(Size {
            item: 16.0 + bytes.max(name.len()) as f64,
            ..Size::text(bytes + name.len() + 16)
        });
        named.entry(name).or_default().push(value);
    }
    let map: HashMap<cel::objects::Key, cel::Value> = named
        .into_iter()
        .map(|(name, mut values)| {
            let value = match values.len() {
                1 => values.remove(0),
                _ => cel::Value::from(values),
            };
            (cel::objects::Key::from(name), value)
        })
        .collect();
    (cel::Value::from(map), size)
}

/// The name of a header that may be read.
fn readable<'h>(header: &'h Header, evidence: &Evidence<'_>) -> Option<&'h str> {
    let name = std::str::from_utf8(&header.name).ok()?;
    let allowed = if evidence.proven {
        evidence.signed_headers.iter().any(|signed| signed == name)
    } else {
        !TokenKind::ALL.iter().any(|kind| kind.header_name().eq_ignore_ascii_case(name))
    };
    allowed.then_some(name)
}

/// `claims`: what was verified, under the contract's names.
fn claims(evidence: &Evidence<'_>) -> Value {
    let mut claims = Map::new();
    claims.insert("sender".to_owned(), evidence.sender.into());
    claims.insert("proven".to_owned(), evidence.proven.into());
    if let Some(transaction) = &evidence.transaction {
        let mut members = Map::new();
        members.insert("id".to_owned(), transaction.id.into());
        members.insert("scope".to_owned(), transaction.scope.iter().map(Text::as_str).collect());
        members.insert("subject".to_owned(), transaction.subject.into());
        members.insert("requester".to_owned(), transaction.requester.into());
        for (name, context) in [("tctx", transaction.tctx), ("rctx", transaction.rctx)] {
            if let Some(context) = context {
                members.insert(name.to_owned(), Value::Object(context.clone()));
            }
        }
        claims.insert("transaction".to_owned(), Value::Object(members));
    }
    let asked = [
        ("action", evidence.action.map(serde_json::to_value)),
        ("resource", evidence.resource.map(serde_json::to_value)),
        ("workflow", evidence.workflow.map(serde_json::to_value)),
    ];
    for (name, asked) in asked {
        if let Some(Ok(asked)) = asked {
            claims.insert(name.to_owned(), asked);
        }
    }
    Value::Object(claims)
}

fn from_json(value: &Value) -> cel::Value {
    match value {
        Value::Null => cel::Value::Null,
        Value::Bool(flag) => cel::Value::Bool(*flag),
        Value::Number(number) => match (number.as_i64(), number.as_u64(), number.as_f64()) {
            (Some(integer), _, _) => cel::Value::Int(integer),
            (_, Some(integer), _) => cel::Value::UInt(integer),
            (_, _, float) => cel::Value::Float(float.unwrap_or(f64::NAN)),
        },
        Value::String(text) => cel::Value::from(text.as_str()),
        Value::Array(items) => cel::Value::from(items.iter().map(from_json).collect::<Vec<_>>()),
        Value::Object(members) => {
            let map: HashMap<cel::objects::Key, cel::Value> = members
                .iter()
                .map(|(name, value)| (cel::objects::Key::from(name.as_str()), from_json(value)))
                .collect();
            cel::Value::from(map)
        }
    }
}
