//! The mapping of a route: CEL expressions that find action, resource, workflow and value in a record, compiled once.
//! Limits: they read only what was verified or is bound by the proof (on unproven records, what is not a credential);
//! their work is bounded before they run; what they yield keeps the contract's rules, or the record is refused.

use std::collections::BTreeSet;
use std::sync::{Arc, LazyLock};

use cel::{Env, ExecutionError, Program};
use serde::de::DeserializeOwned;
use serde_json::{Map, Value};

use super::bound::{self, Size, Unbounded};
use super::inputs::Inputs;
use super::{Action, Request, Resource, Workflow};
use crate::authorize::decision::{Denial, Reason};
use crate::authorize::json;
use crate::authorize::limits::{MAX_EXPRESSION_BYTES, MAX_JSON_DEPTH, MAX_SAFE_INTEGER};
use crate::authorize::record::Record;
use crate::authorize::text::Text;

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
    pub scope: &'a BTreeSet<Text>,
    /// `sub`.
    pub subject: &'a str,
    /// `req_wl`.
    pub requester: &'a str,
    /// `tctx`.
    pub tctx: Option<&'a Map<String, Value>>,
    /// `rctx`.
    pub rctx: Option<&'a Map<String, Value>>,
}

/// A request that could not be found.
#[derive(Debug)]
pub struct Unfound {
    /// Why.
    pub denial: Denial,
    /// The workflow of the record, or that it has none; `None` where that could not be found either.
    pub workflow: Option<Option<Workflow>>,
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

    /// What the record asks for; and where that cannot be found, its workflow alone, if that can be: it is judged before
    /// the request is refused. The record is read once for both.
    ///
    /// # Errors
    /// As [`Mapping::resolve`], with the workflow.
    pub fn resolve_or_workflow(
        &self,
        record: &Record,
        evidence: &Evidence<'_>,
    ) -> Result<Request, Box<Unfound>> {
        let unfound = |denial, workflow| Box::new(Unfound { denial, workflow });
        let inputs = Inputs::read(&self.reads, record, evidence).map_err(|denial| {
            // What the proof says of it needs no reading.
            unfound(denial, self.workflow.is_none().then(|| evidence.workflow.cloned()))
        })?;
        self.find(&inputs, evidence)
            .map_err(|denial| unfound(denial, self.find_workflow(&inputs, evidence).ok()))
    }

    fn find_workflow(&self, inputs: &Inputs, evidence: &Evidence<'_>) -> Result<Option<Workflow>, Denial> {
        inputs.begin_again();
        inputs.admit(self.workflow.iter())?;
        let derived = derive(&self.workflow, inputs, typed::<Option<Workflow>>)?.flatten();
        agree("workflow", derived, evidence.workflow)
    }

    /// What the record asks for.
    ///
    /// # Errors
    /// `request_unmapped`: neither proof nor mapping says it, or the mapping fails, runs too long, or yields what the
    /// contract does not admit. `request_mismatch`: both say it, differently (contract, section 2.2).
    pub fn resolve(&self, record: &Record, evidence: &Evidence<'_>) -> Result<Request, Denial> {
        self.find(&Inputs::read(&self.reads, record, evidence)?, evidence)
    }

    fn find(&self, inputs: &Inputs, evidence: &Evidence<'_>) -> Result<Request, Denial> {
        inputs.admit([&self.action, &self.resource, &self.workflow, &self.value].into_iter().flatten())?;
        let action = derive(&self.action, inputs, |found| match found {
            Value::String(name) => Ok(Action { name, properties: None }),
            object => typed(object),
        })?;
        let resource = derive(&self.resource, inputs, typed)?;
        let workflow = derive(&self.workflow, inputs, typed::<Option<Workflow>>)?.flatten();
        let value = derive(&self.value, inputs, typed)?;
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
pub(super) struct Expression {
    pub(super) member: &'static str,
    pub(super) program: Program,
    reads: BTreeSet<&'static str>,
}

/// What an expression can read.
const VARIABLES: [&str; 7] = ["topic", "partition", "key", "key_bytes", "value", "headers", "claims"];

pub(super) static ENVIRONMENT: LazyLock<Arc<Env>> = LazyLock::new(|| Arc::new(Env::stdlib()));

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
        inputs.yielding(&found)?;
        // What names things holds no control character (contract, section 2); `value` is data and may.
        if self.member != "value" && json::has_control(&found) {
            return Err(unmapped(format!("the mapping of `{}` yields a control character", self.member)));
        }
        Ok(found)
    }
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

pub(super) fn unmapped(detail: impl Into<String>) -> Denial {
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
#[path = "mapping_tests.rs"]
mod tests;
