//! The mapping of a route: CEL expressions that find action, resource, workflow and value in a record, compiled once.
//! Limits: they read only what was verified or is bound by the proof (on unproven records, what is not a credential);
//! their work is bounded before they run; what they yield keeps the contract's rules, or the record is refused.

use std::collections::{BTreeMap, BTreeSet, HashMap};
use std::sync::{Arc, LazyLock};

use cel::{Context, Env, ExecutionError, Program};
use serde::de::DeserializeOwned;
use serde_json::{Map, Value};

use super::bound::{self, Size, Unbounded};
use super::{Action, Request, Resource, Workflow};
use crate::authorize::decision::{Denial, Reason};
use crate::authorize::limits::{
    MAX_EXPRESSION_BYTES, MAX_JSON_DEPTH, MAX_MAPPED_VALUE_BYTES, MAX_MAPPING_WORK_NS, MAX_SAFE_INTEGER,
};
use crate::authorize::record::{Header, Record};
use crate::authorize::{jose::TokenKind, json};

/// The expressions of a route as they are written. What is absent comes from the proof alone.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct MappingSource {
    /// Yields the action: a string, or `{"name", "properties"?}`.
    pub action: Option<String>,
    /// Yields the resource: `{"type", "id", "properties"?}`.
    pub resource: Option<String>,
    /// Yields the workflow (contract, section 5), or `null` for none.
    pub workflow: Option<String>,
    /// Yields the map that policies see as `context.value`.
    pub value: Option<String>,
}

/// Why an expression was refused when it was compiled.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("the expression for `{member}` {problem}")]
pub struct MappingError {
    /// Which of `action`, `resource`, `workflow`, `value`.
    pub member: &'static str,
    /// What is wrong with it.
    pub problem: String,
}

/// What a mapping may know besides the record: all of it verified, all of it borrowed.
#[derive(Debug, Clone, Copy)]
pub struct Evidence<'a> {
    /// The sender's identifier.
    pub sender: &'a str,
    /// Whether the sender proved itself. If not, headers and value stand on the topic's access control alone.
    pub proven: bool,
    /// The names of the headers that the proof signed.
    pub signed_headers: &'a [String],
    /// What the proof asks for.
    pub action: Option<&'a Action>,
    /// To what the proof asks it to be done.
    pub resource: Option<&'a Resource>,
    /// The workflow that the proof names.
    pub workflow: Option<&'a Workflow>,
    /// The verified Txn-Token.
    pub transaction: Option<TransactionClaims<'a>>,
}

/// The claims of a verified Txn-Token that a mapping may read, as `claims.transaction`.
#[derive(Debug, Clone, Copy)]
pub struct TransactionClaims<'a> {
    /// `txn`.
    pub id: &'a str,
    /// `scope`, split.
    pub scope: &'a BTreeSet<String>,
    /// `sub`.
    pub subject: &'a str,
    /// `req_wl`.
    pub requester: &'a str,
    /// `tctx`.
    pub tctx: Option<&'a Map<String, Value>>,
    /// `rctx`.
    pub rctx: Option<&'a Map<String, Value>>,
}

/// Compiled expressions. The default takes everything from the proof.
#[derive(Debug, Default)]
pub struct Mapping {
    action: Option<Expression>,
    resource: Option<Expression>,
    workflow: Option<Expression>,
    value: Option<Expression>,
    reads: BTreeSet<&'static str>,
}

impl Mapping {
    /// Compiles the expressions, or names everything that is wrong with them.
    ///
    /// # Errors
    /// One for each expression that is too long, no CEL, or reads or calls what a mapping does not know.
    pub fn compile(source: &MappingSource) -> Result<Self, Vec<MappingError>> {
        let mut errors = Vec::new();
        let mut reads = BTreeSet::new();
        let mut compile = |member, source: &Option<String>| {
            let source = source.as_deref()?;
            match Expression::compile(member, source) {
                Ok(expression) => {
                    reads.extend(expression.reads.iter().copied());
                    Some(expression)
                }
                Err(problem) => {
                    errors.push(MappingError { member, problem });
                    None
                }
            }
        };
        let action = compile("action", &source.action);
        let resource = compile("resource", &source.resource);
        let workflow = compile("workflow", &source.workflow);
        let value = compile("value", &source.value);
        if errors.is_empty() { Ok(Self { action, resource, workflow, value, reads }) } else { Err(errors) }
    }

    /// Whether action and resource are derived from the record, so that an unproven record can be decided.
    pub fn maps_request(&self) -> bool {
        self.action.is_some() && self.resource.is_some()
    }

    /// Whether policies are offered `context.value`.
    pub fn maps_value(&self) -> bool {
        self.value.is_some()
    }

    /// What the record asks for.
    ///
    /// # Errors
    /// `request_unmapped`: neither proof nor mapping says it, or the mapping fails, runs too long, or yields what the
    /// contract does not admit. `request_mismatch`: both say it, differently (contract, section 2.2).
    pub fn resolve(&self, record: &Record, evidence: &Evidence<'_>) -> Result<Request, Denial> {
        let inputs = Inputs::read(&self.reads, record, evidence)?;
        inputs.admit([&self.action, &self.resource, &self.workflow, &self.value].into_iter().flatten())?;
        let action = derive(&self.action, &inputs, |found| match found {
            Value::String(name) => Ok(Action { name, properties: None }),
            object => typed(object),
        })?;
        let resource = derive(&self.resource, &inputs, typed)?;
        let workflow = derive(&self.workflow, &inputs, typed::<Option<Workflow>>)?.flatten();
        let value = derive(&self.value, &inputs, typed)?;
        Ok(Request {
            action: agree("action", action, evidence.action)?.ok_or_else(|| unsaid("action"))?,
            resource: agree("resource", resource, evidence.resource)?.ok_or_else(|| unsaid("resource"))?,
            workflow: agree("workflow", workflow, evidence.workflow)?,
            value,
        })
    }
}

/// One compiled expression.
#[derive(Debug)]
struct Expression {
    member: &'static str,
    program: Program,
    reads: BTreeSet<&'static str>,
}

/// What an expression can read.
const VARIABLES: [&str; 7] = ["topic", "partition", "key", "key_bytes", "value", "headers", "claims"];

static ENVIRONMENT: LazyLock<Arc<Env>> = LazyLock::new(|| Arc::new(Env::stdlib()));

impl Expression {
    fn compile(member: &'static str, source: &str) -> Result<Self, String> {
        if source.len() > MAX_EXPRESSION_BYTES {
            return Err(format!("is longer than {MAX_EXPRESSION_BYTES} bytes"));
        }
        let program = ENVIRONMENT.compile(source).map_err(|errors| {
            let text = errors.errors.iter().map(|error| error.msg.as_str()).collect::<Vec<_>>().join("; ");
            format!("is no CEL: {text}")
        })?;
        let known = |name: &str| VARIABLES.contains(&name).then_some(Size::SCALAR);
        bound::bound(program.expression(), &known).map_err(|unbounded| match unbounded {
            Unbounded::Variable(name) => {
                format!("reads `{name}`, which a mapping does not have; it has `{}`", VARIABLES.join("`, `"))
            }
            Unbounded::Function(name) => {
                format!(
                    "calls `{name}`, which a mapping does not have; it has `{}`",
                    bound::FUNCTIONS.join("`, `")
                )
            }
            Unbounded::Pattern => {
                "calls `matches` with a pattern that is not written in it: a record could bring a costly one"
                    .to_owned()
            }
            Unbounded::Struct(name) => format!("makes a `{name}`; write a map, `{{\"name\": ...}}`"),
        })?;
        let named = program.references();
        let reads = VARIABLES.into_iter().filter(|name| named.has_variable(name)).collect();
        Ok(Self { member, program, reads })
    }

    fn run(&self, inputs: &Inputs) -> Result<Value, Denial> {
        let found = self.program.execute(&inputs.context).map_err(|error| {
            let problem = explain(&error, inputs);
            unmapped(format!("the mapping of `{}` failed: {problem}", self.member))
        })?;
        let found = to_json(&found, 1)
            .map_err(|problem| unmapped(format!("the mapping of `{}` yields {problem}", self.member)))?;
        // What names things holds no control character (contract, section 2); `value` is data and may.
        if self.member != "value" && json::has_control(&found) {
            return Err(unmapped(format!("the mapping of `{}` yields a control character", self.member)));
        }
        Ok(found)
    }
}

/// The variables of a record, only those that an expression reads, and their sizes.
struct Inputs {
    context: Context<'static, 'static>,
    sizes: BTreeMap<&'static str, Size>,
    value_absent: &'static str,
}

impl Inputs {
    fn read(
        reads: &BTreeSet<&'static str>,
        record: &Record,
        evidence: &Evidence<'_>,
    ) -> Result<Self, Denial> {
        let mut inputs = Self {
            context: Context::with_env(Arc::clone(&ENVIRONMENT)),
            sizes: BTreeMap::new(),
            value_absent: "the record has none",
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
    fn admit<'e>(&self, expressions: impl Iterator<Item = &'e Expression>) -> Result<(), Denial> {
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
        members.insert("scope".to_owned(), transaction.scope.iter().map(String::as_str).collect());
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

fn derive<T>(
    expression: &Option<Expression>,
    inputs: &Inputs,
    shape: impl FnOnce(Value) -> Result<T, serde_json::Error>,
) -> Result<Option<T>, Denial> {
    let Some(expression) = expression else { return Ok(None) };
    let found = expression.run(inputs)?;
    shape(found).map(Some).map_err(|_| {
        let expected = match expression.member {
            "action" => "a string or `{\"name\", \"properties\"?}`",
            "resource" => "`{\"type\", \"id\", \"properties\"?}`",
            "workflow" => "`{\"id\", \"type\", \"step\", \"state\", ...}` or null",
            _ => "a map",
        };
        unmapped(format!("the mapping of `{}` yields something other than {expected}", expression.member))
    })
}

fn typed<T: DeserializeOwned>(found: Value) -> Result<T, serde_json::Error> {
    serde_json::from_value(found)
}

/// INVARIANT: the sender cannot say one thing and ask for another: where both exist, they are the same in whole.
fn agree<T: Clone + PartialEq>(
    member: &str,
    mapped: Option<T>,
    proven: Option<&T>,
) -> Result<Option<T>, Denial> {
    match (mapped, proven) {
        (Some(mapped), Some(proven)) if mapped != *proven => Err(Denial::new(
            Reason::RequestMismatch,
            format!("the proof's `{member}` is not the one that the record itself asks for"),
        )),
        (Some(mapped), _) => Ok(Some(mapped)),
        (None, proven) => Ok(proven.cloned()),
    }
}

fn unsaid(member: &str) -> Denial {
    unmapped(format!("neither the proof nor the route's mapping says which `{member}`"))
}

fn unmapped(detail: impl Into<String>) -> Denial {
    Denial::new(Reason::RequestUnmapped, detail)
}

/// An error of an evaluation in words that hold no value of the record beyond a short name.
fn explain(error: &ExecutionError, inputs: &Inputs) -> String {
    let short = |name: &str| name.chars().filter(|c| !c.is_control()).take(64).collect::<String>();
    match error {
        ExecutionError::UndeclaredReference(name) if name.as_str() == "value" => {
            format!("there is no `value`: {}", inputs.value_absent)
        }
        ExecutionError::UndeclaredReference(name) => format!("there is no `{}`", short(name)),
        ExecutionError::NoSuchKey(name) => format!("there is no member `{}`", short(name)),
        ExecutionError::NoSuchOverload(overload) => short(&overload.to_string()),
        ExecutionError::IndexOutOfBounds(_) => "an index is out of bounds".to_owned(),
        ExecutionError::DivisionByZero(_) | ExecutionError::RemainderByZero(_) => {
            "a division by zero".to_owned()
        }
        ExecutionError::Overflow(..) => "a number overflows".to_owned(),
        ExecutionError::FunctionError { function, .. } => {
            format!("`{}` does not take its argument", short(function))
        }
        _ => "an operation does not fit the type of a value".to_owned(),
    }
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

/// What an expression yields, as JSON that keeps the rules of the contract's section 2, or what breaks them.
fn to_json(value: &cel::Value, depth: usize) -> Result<Value, &'static str> {
    if depth > MAX_JSON_DEPTH {
        return Err("something nested too deep");
    }
    match value {
        cel::Value::Null => Ok(Value::Null),
        cel::Value::Bool(flag) => Ok(Value::Bool(*flag)),
        cel::Value::Int(integer) if integer.unsigned_abs() <= MAX_SAFE_INTEGER.unsigned_abs() => {
            Ok(Value::from(*integer))
        }
        cel::Value::UInt(integer) if *integer <= MAX_SAFE_INTEGER.unsigned_abs() => Ok(Value::from(*integer)),
        cel::Value::Int(_) | cel::Value::UInt(_) => Err("an integer past 2^53 - 1"),
        cel::Value::Float(float) => {
            serde_json::Number::from_f64(*float).map(Value::Number).ok_or("a number that is not finite")
        }
        cel::Value::String(text) => Ok(Value::String(text.to_string())),
        cel::Value::List(items) => items.iter().map(|item| to_json(item, depth + 1)).collect(),
        cel::Value::Map(map) => {
            let members = map.map.iter().map(|(name, value)| {
                let cel::objects::Key::String(name) = name else {
                    return Err("a map with a key that is no string");
                };
                Ok((name.to_string(), to_json(value, depth + 1)?))
            });
            members.collect::<Result<Map<_, _>, _>>().map(Value::Object)
        }
        _ => Err("something that JSON cannot hold"),
    }
}

#[cfg(test)]
mod tests {
    use std::time::{Duration, Instant};

    use bytes::Bytes;
    use serde_json::json;

    use super::*;
    use crate::authorize::ids::{Coordinates, Offset, Partition, Topic, UnixMillis};
    use crate::authorize::record::TimestampType;

    fn record(value: &[u8]) -> Record {
        Record {
            source: Coordinates {
                topic: Topic::parse("payments.commands").unwrap(),
                partition: Partition(3),
                offset: Offset(7),
            },
            timestamp: Some(UnixMillis(0)),
            timestamp_type: TimestampType::LogAppendTime,
            key: Some(Bytes::from_static(b"inv-7")),
            value: Some(Bytes::copy_from_slice(value)),
            headers: vec![
                Header::new("kind", "refund"),
                Header::new("unsigned", "x"),
                Header::new("twice", "a"),
                Header::new("twice", "b"),
                Header::new("Txn-Token", "secret"),
            ],
        }
    }

    const NOTHING: Evidence<'_> = Evidence {
        sender: "spiffe://example.org/agent/payer",
        proven: true,
        signed_headers: &[],
        action: None,
        resource: None,
        workflow: None,
        transaction: None,
    };
    const RESOURCE: &str = "{'type': 'Invoice', 'id': key}";

    fn mapping(action: &str, resource: &str) -> Mapping {
        let source = MappingSource {
            action: Some(action.into()),
            resource: Some(resource.into()),
            ..Default::default()
        };
        Mapping::compile(&source).unwrap()
    }

    fn reason(outcome: Result<Request, Denial>) -> Reason {
        outcome.unwrap_err().reason
    }

    #[test]
    fn a_request_is_derived_from_value_key_topic_claims_and_signed_headers() {
        let scope = BTreeSet::from(["payments.pay".to_owned()]);
        let tctx = json!({"limit": 100});
        let evidence = Evidence {
            signed_headers: &["kind".to_owned(), "twice".to_owned()],
            transaction: Some(TransactionClaims {
                id: "txn-1",
                scope: &scope,
                subject: "alice",
                requester: "spiffe://example.org/api",
                tctx: tctx.as_object(),
                rctx: None,
            }),
            ..NOTHING
        };
        let source = MappingSource {
            action: Some("{'name': headers.kind, 'properties': {'amount': value.amount, 'parts': headers.twice}}".into()),
            resource: Some(RESOURCE.into()),
            workflow: Some("{'id': claims.transaction.id, 'type': topic, 'step': 's', 'state': 'running', 'attempt': partition}".into()),
            value: Some("{'memo': value.memo, 'limit': claims.transaction.tctx.limit, 'who': claims.transaction.subject, 'n': size(key_bytes), 'pay': 'payments.pay' in claims.transaction.scope}".into()),
        };
        let found = Mapping::compile(&source)
            .unwrap()
            .resolve(&record(br#"{"amount": 12.5, "memo": "two\nlines"}"#), &evidence)
            .unwrap();
        assert_eq!(
            serde_json::to_value(&found.action).unwrap(),
            json!({"name": "refund", "properties": {"amount": 12.5, "parts": ["a", "b"]}})
        );
        assert_eq!(serde_json::to_value(&found.resource).unwrap(), json!({"type": "Invoice", "id": "inv-7"}));
        assert_eq!(found.workflow.unwrap().attempt, Some(3));
        assert_eq!(
            Value::Object(found.value.unwrap()),
            json!({"memo": "two\nlines", "limit": 100, "who": "alice", "n": 5, "pay": true})
        );
    }

    #[test]
    fn without_expressions_the_proof_speaks_and_silence_is_unmapped() {
        let action = Action { name: "pay".into(), properties: None };
        let resource = Resource { kind: "Invoice".into(), id: "inv-7".into(), properties: None };
        let said = Evidence { action: Some(&action), resource: Some(&resource), ..NOTHING };
        let found = Mapping::default().resolve(&record(b"no json"), &said).unwrap();
        assert_eq!(
            (found.action, found.resource, found.workflow, found.value),
            (action.clone(), resource, None, None)
        );
        assert_eq!(reason(Mapping::default().resolve(&record(b"{}"), &NOTHING)), Reason::RequestUnmapped);
        let half = Evidence { action: Some(&action), ..NOTHING };
        assert_eq!(reason(Mapping::default().resolve(&record(b"{}"), &half)), Reason::RequestUnmapped);
    }

    #[test]
    fn where_proof_and_mapping_differ_the_record_is_refused() {
        let mapping = mapping("value.do", RESOURCE);
        let asked = record(br#"{"do": "pay"}"#);
        let action = |name: &str, properties: Option<Value>| Action {
            name: name.into(),
            properties: properties.and_then(|p| p.as_object().cloned()),
        };
        let pay = action("pay", None);
        assert!(mapping.resolve(&asked, &Evidence { action: Some(&pay), ..NOTHING }).is_ok());
        for other in [action("refund", None), action("pay", Some(json!({"amount": 1})))] {
            let evidence = Evidence { action: Some(&other), ..NOTHING };
            assert_eq!(reason(mapping.resolve(&asked, &evidence)), Reason::RequestMismatch);
        }
        let resource = Resource { kind: "Invoice".into(), id: "inv-8".into(), properties: None };
        let evidence = Evidence { resource: Some(&resource), ..NOTHING };
        assert_eq!(reason(mapping.resolve(&asked, &evidence)), Reason::RequestMismatch);
    }

    #[test]
    fn a_header_that_the_proof_did_not_sign_cannot_be_read() {
        let mapping = mapping("headers.unsigned", RESOURCE);
        let signed = Evidence { signed_headers: &["kind".to_owned()], ..NOTHING };
        assert_eq!(reason(mapping.resolve(&record(b"{}"), &signed)), Reason::RequestUnmapped);
        let unproven = Evidence { proven: false, ..NOTHING };
        assert_eq!(mapping.resolve(&record(b"{}"), &unproven).unwrap().action.name, "x");
        let token = self::mapping("headers['Txn-Token']", RESOURCE);
        assert_eq!(reason(token.resolve(&record(b"{}"), &unproven)), Reason::RequestUnmapped);
    }

    #[test]
    fn what_fails_or_has_the_wrong_shape_is_unmapped_and_says_no_value() {
        for (action, value) in [
            ("value.missing", "{\"secret\": 1}"),
            ("value.secret", "no json"),
            ("value.secret", "{\"secret\": 7}"),
            ("value.secret", "{\"secret\": null}"),
            ("value.secret", "{\"secret\": {\"name\": null}}"),
            ("value.secret", "{\"secret\": \"hush\\u0007\"}"),
            ("value.secret", "{\"secret\": {\"name\": \"n\", \"properties\": {\"hush\\u0085\": 1}}}"),
            ("value.secret", "{\"secret\": {\"name\": \"n\", \"properties\": {\"n\": 9007199254740992}}}"),
            ("value.secret + 1", "{\"secret\": \"hush\"}"),
            ("value.secret[9]", "{\"secret\": [\"hush\"]}"),
            ("string(1 / value.secret)", "{\"secret\": 0}"),
            ("{1: value.secret}", "{\"secret\": 0}"),
            ("key_bytes", "{}"),
        ] {
            let denial = mapping(action, RESOURCE).resolve(&record(value.as_bytes()), &NOTHING).unwrap_err();
            assert_eq!(denial.reason, Reason::RequestUnmapped, "{action} on {value}");
            assert!(!denial.detail.contains("hush"), "{}", denial.detail);
        }
        let tombstone = Record { value: None, ..record(b"") };
        assert_eq!(
            reason(mapping("value.a", RESOURCE).resolve(&tombstone, &NOTHING)),
            Reason::RequestUnmapped
        );
        let binary_key = Record { key: Some(Bytes::from_static(&[0xff])), ..record(b"{}") };
        assert_eq!(
            reason(mapping("'pay'", RESOURCE).resolve(&binary_key, &NOTHING)),
            Reason::RequestUnmapped
        );
    }

    #[test]
    fn every_bad_expression_is_named_when_it_is_compiled() {
        let source = MappingSource {
            action: Some("value.".into()),
            resource: Some("valu.id".into()),
            workflow: Some("now()".into()),
            value: Some("{'a': key.matches(value.pattern)}".into()),
        };
        let errors = Mapping::compile(&source).unwrap_err();
        let text: Vec<String> = errors.iter().map(ToString::to_string).collect();
        assert_eq!(errors.len(), 4, "{text:?}");
        assert!(
            text[1].contains("`valu`") && text[2].contains("`now`") && text[3].contains("pattern"),
            "{text:?}"
        );
        let long = MappingSource { action: Some(format!("'{}'", "a".repeat(5000))), ..Default::default() };
        assert!(Mapping::compile(&long).is_err());
        let deep = MappingSource {
            action: Some(format!("{}1{}", "(".repeat(2000), ")".repeat(2000))),
            ..Default::default()
        };
        assert!(Mapping::compile(&deep).is_err());
    }

    #[test]
    fn ordinary_lists_pass_and_every_function_and_macro_works() {
        let items: Vec<Value> = (0..200).map(|n| json!({"id": format!("item-{n}"), "amount": n})).collect();
        let value = json!({"items": items, "id": "a1"}).to_string();
        for expression in [
            "value.items.all(i, i.amount >= 0 && i.id.startsWith('item-')) ? 'ok' : 'no'",
            "value.items.exists(i, i.id == 'item-7') ? 'ok' : 'no'",
            "value.items.exists_one(i, i.amount == 7) ? 'ok' : 'no'",
            "size(value.items.filter(i, i.amount > 100)) == 99 ? 'ok' : 'no'",
            "value.items.map(i, i.id)[7] == 'item-7' ? 'ok' : 'no'",
            "has(value.id) && !has(value.other) ? 'ok' : 'no'",
            "value.id.matches('^[a-z][0-9]$') && value.id.contains('1') && value.id.endsWith('1') ? 'ok' : 'no'",
            "int('7') == 7 && uint(7) == 7u && double(7) == 7.0 && string(7) == '7' && bool('true') ? 'ok' : 'no'",
            "bytes('a') == b'a' && dyn(1) == 1 ? 'ok' : 'no'",
        ] {
            let found = mapping(expression, RESOURCE).resolve(&record(value.as_bytes()), &NOTHING);
            assert_eq!(found.unwrap().action.name, "ok", "{expression}");
        }
    }

    #[test]
    fn no_value_makes_a_mapping_run_long() {
        let numbers = json!({"xs": (0..100_000).collect::<Vec<u32>>(), "s": "a"}).to_string();
        let fat = json!({"xs": vec!["a".repeat(10); 1000], "s": "a".repeat(500_000)}).to_string();
        let wide = json!({"xs": vec![json!([]); 30_000], "s": vec![json!([]); 100_000]}).to_string();
        for value in [numbers, fat, wide] {
            for expression in [
                "value.xs.all(x, value.xs.exists(y, y == x)) ? 'a' : 'b'",
                "value.xs.all(x, !(x in value.xs) || x == x) ? 'a' : 'b'",
                "value.xs.map(x, value.xs.map(y, value.xs.map(z, [x, y, z])))[0][0][0]",
                "value.xs.map(x, value.xs).map(l, l.map(m, m))[0]",
                "value.xs.all(x, value.s.contains(string(x) + 'b') || true) ? 'a' : 'b'",
                "value.xs.filter(x, key.matches('(a|b|c|d){100}[a-z]{100}')).map(x, 'a')[0]",
                "value.xs.all(x, value.s - x == 1) ? 'a' : 'b'",
                "value.xs.all(x, value[x] == 1) ? 'a' : 'b'",
                "[value.s].map(x, x + x).map(x, x + x).map(x, x + x).map(x, x + x).map(x, x + x).map(x, x + x)[0]",
                "([value.s].map(x, x + x).map(x, x + x + x + x + x + x + x + x + x + x).map(x, x + x + x + x + x + x + x + x + x + x))[0]",
            ] {
                let mapping = mapping(expression, RESOURCE);
                let record = record(value.as_bytes());
                let started = Instant::now();
                let _ = mapping.resolve(&record, &NOTHING);
                let took = started.elapsed();
                assert!(took < Duration::from_secs(1), "{took:?} for {expression}");
            }
        }
        let large = format!("\"{}\"", "a".repeat(MAX_MAPPED_VALUE_BYTES));
        assert_eq!(
            reason(mapping("value", RESOURCE).resolve(&record(large.as_bytes()), &NOTHING)),
            Reason::RequestUnmapped
        );
    }

    #[test]
    fn a_mapping_can_be_shared_between_lanes() {
        fn shared<T: Send + Sync>() {}
        shared::<Mapping>();
    }
}
