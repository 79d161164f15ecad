//! The mapping of a route: CEL expressions that find action, resource, workflow and value in a record.
//! Limits: only what was verified or proven can be read, and the work of an expression is bounded.

/// The expressions of a route as they are written. What is absent comes from the proof alone.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct MappingSource {
    /// Yields the action: a string, or `{"name", "properties"?}`.
    pub action: Option<String>,
    /// Yields the resource: `{"type", "id", "properties"?}`.
    pub resource: Option<String>,
    /// Yields the workflow as in the contract's section 5, or `null` for none.
    pub workflow: Option<String>,
    /// Yields the map that policies see as `context.value`.
    pub value: Option<String>,
}

/// Why an expression was refused.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("the expression for `{member}` {problem}")]
pub struct MappingError {
    /// Which of `action`, `resource`, `workflow`, `value`.
    pub member: &'static str,
    /// What is wrong.
    pub problem: String,
}

/// Compiled expressions. The default takes everything from the proof.
#[derive(Debug, Default)]
pub struct Mapping {}
