//! How long an expression may run: an upper bound of its work, computed from the sizes of what it reads before it is
//! evaluated, because `cel` itself has no limit of steps. Limits: a bound, not a measurement; it errs upwards, and an
//! expression whose functions it does not know is refused when it is compiled.

use cel::IdedExpr;
use cel::common::ast::{CallExpr, ComprehensionExpr, EntryExpr, Expr, LiteralValue, operators};

/// Work of one node of an expression, in nanoseconds on a slow machine.
const NODE: f64 = 300.0;
/// Work of looking at one byte.
const BYTE: f64 = 2.0;
/// Work of compiling one byte of a regular expression: `cel` compiles a pattern each time it is used.
const PATTERN_BYTE: f64 = 2_000.0;

/// How large a value can be. All are upper bounds.
#[derive(Debug, Clone, Copy, PartialEq)]
pub(super) struct Size {
    /// Members of the largest list or map anywhere in it.
    pub(super) fan: f64,
    /// Bytes of all of it, 16 for each node.
    pub(super) bytes: f64,
    /// Bytes of the largest thing that iterating over any part of it yields: an element of a list, a key of a map.
    pub(super) item: f64,
}

impl Size {
    /// A number, a boolean, nothing.
    pub(super) const SCALAR: Self = Self { fan: 0.0, bytes: 16.0, item: 0.0 };

    /// A text or bytes of this length.
    pub(super) fn text(len: usize) -> Self {
        Self { bytes: 16.0 + len as f64, ..Self::SCALAR }
    }

    /// A JSON value.
    pub(super) fn json(value: &serde_json::Value) -> Self {
        use serde_json::Value;
        match value {
            Value::Null | Value::Bool(_) | Value::Number(_) => Self::SCALAR,
            Value::String(text) => Self::text(text.len()),
            Value::Array(items) => items.iter().fold(Self::container(items.len()), |all, item| {
                let item = Self::json(item);
                all.holding(item).iterating(item.bytes)
            }),
            Value::Object(members) => {
                members.iter().fold(Self::container(members.len()), |all, (name, value)| {
                    let name = Self::text(name.len());
                    all.holding(name).holding(Self::json(value)).iterating(name.bytes)
                })
            }
        }
    }

    /// An empty container with room for `members`.
    pub(super) fn container(members: usize) -> Self {
        Self { fan: members as f64, ..Self::SCALAR }
    }

    /// This container with one more thing in it; its `fan` was set when it was made.
    pub(super) fn holding(self, part: Self) -> Self {
        Self { fan: self.fan.max(part.fan), bytes: self.bytes + part.bytes, item: self.item.max(part.item) }
    }

    fn iterating(self, item: f64) -> Self {
        Self { item: self.item.max(item), ..self }
    }

    fn either(self, other: Self) -> Self {
        Self {
            fan: self.fan.max(other.fan),
            bytes: self.bytes.max(other.bytes),
            item: self.item.max(other.item),
        }
    }
}

/// Why an expression cannot be bounded, found when it is compiled.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) enum Unbounded {
    Variable(String),
    Function(String),
    Pattern,
    Struct(String),
}

/// The functions whose work is known here.
pub(super) const FUNCTIONS: &[&str] = &[
    "bool",
    "bytes",
    "contains",
    "double",
    "dyn",
    "endsWith",
    "int",
    "matches",
    "size",
    "startsWith",
    "string",
    "uint",
];

/// The upper bound of an expression's result and work, in nanoseconds; `size_of` gives the sizes of its variables.
pub(super) fn bound(
    expression: &IdedExpr,
    size_of: &dyn Fn(&str) -> Option<Size>,
) -> Result<(Size, f64), Unbounded> {
    walk(expression, &Scope::Root(size_of))
}

/// The variables in sight: the record's, and those of the comprehensions around.
enum Scope<'a> {
    Root(&'a dyn Fn(&str) -> Option<Size>),
    Local { name: &'a str, size: Size, outer: &'a Scope<'a> },
}

impl Scope<'_> {
    fn get(&self, name: &str) -> Option<Size> {
        match self {
            Self::Root(size_of) => size_of(name),
            Self::Local { name: local, size, .. } if *local == name => Some(*size),
            Self::Local { outer, .. } => outer.get(name),
        }
    }
}

fn walk(expression: &IdedExpr, scope: &Scope<'_>) -> Result<(Size, f64), Unbounded> {
    match &expression.expr {
        Expr::Unspecified => Ok((Size::SCALAR, NODE)),
        Expr::Literal(LiteralValue::String(text)) => Ok((Size::text(text.inner().len()), NODE)),
        Expr::Literal(LiteralValue::Bytes(bytes)) => Ok((Size::text(bytes.inner().len()), NODE)),
        Expr::Literal(_) => Ok((Size::SCALAR, NODE)),
        Expr::Ident(name) => {
            let size = scope.get(name).ok_or_else(|| Unbounded::Variable(name.clone()))?;
            Ok((size, NODE))
        }
        Expr::Select(select) => {
            // A part of it, which is at most all of it; a part of a computed value is copied.
            let (size, work) = walk(&select.operand, scope)?;
            let copied = if is_path(&select.operand) { 0.0 } else { size.bytes * BYTE };
            Ok((size, work + copied + NODE))
        }
        Expr::List(list) => {
            let mut size = Size::container(list.elements.len());
            let mut work = NODE;
            for element in &list.elements {
                let (part, more) = walk(element, scope)?;
                size = size.holding(part).iterating(part.bytes);
                work += more + part.bytes * BYTE;
            }
            Ok((size, work))
        }
        Expr::Map(map) => {
            let mut size = Size::container(map.entries.len());
            let mut work = NODE;
            for entry in &map.entries {
                let EntryExpr::MapEntry(entry) = &entry.expr else { continue };
                let (key, key_work) = walk(&entry.key, scope)?;
                let (value, value_work) = walk(&entry.value, scope)?;
                size = size.holding(key).holding(value).iterating(key.bytes);
                work += key_work + value_work + (key.bytes + value.bytes) * BYTE;
            }
            Ok((size, work))
        }
        Expr::Struct(made) => Err(Unbounded::Struct(made.type_name.clone())),
        Expr::Call(call) => walk_call(call, scope),
        Expr::Comprehension(loops) => walk_comprehension(loops, scope),
    }
}

fn walk_call(call: &CallExpr, scope: &Scope<'_>) -> Result<(Size, f64), Unbounded> {
    let mut work = NODE;
    let mut sizes = Vec::with_capacity(3);
    for argument in call.target.as_deref().into_iter().chain(&call.args) {
        let (size, more) = walk(argument, scope)?;
        work += more;
        sizes.push(size);
    }
    let first = sizes.first().copied().unwrap_or(Size::SCALAR);
    let second = sizes.get(1).copied().unwrap_or(Size::SCALAR);
    let all: f64 = sizes.iter().map(|size| size.bytes).sum();
    let (size, own) = match call.func_name.as_str() {
        operators::CONDITIONAL => (second.either(sizes.get(2).copied().unwrap_or(second)), 0.0),
        operators::LOGICAL_AND
        | operators::LOGICAL_OR
        | operators::LOGICAL_NOT
        | operators::NOT_STRICTLY_FALSE => (Size::SCALAR, 0.0),
        // Two lists become one: members, bytes and all are at most the sum.
        operators::ADD => {
            let sum = Size { fan: first.fan + second.fan, bytes: all, item: first.item.max(second.item) };
            (sum, all * BYTE)
        }
        // Numbers are cheap, but the error for what are no numbers holds copies of both.
        operators::SUBSTRACT
        | operators::MULTIPLY
        | operators::DIVIDE
        | operators::MODULO
        | operators::NEGATE => (Size::SCALAR, all * BYTE),
        // A comparison ends at the end of the smaller, or at the first difference.
        operators::EQUALS | operators::NOT_EQUALS => {
            (Size::SCALAR, 4.0 * BYTE * first.bytes.min(second.bytes))
        }
        operators::GREATER | operators::GREATER_EQUALS | operators::LESS | operators::LESS_EQUALS => {
            (Size::SCALAR, BYTE * first.bytes.min(second.bytes))
        }
        operators::IN => {
            (Size::SCALAR, second.fan * (NODE / 4.0 + 4.0 * BYTE * first.bytes.min(second.item)))
        }
        // Borrowed where it works; the error for a bad index holds a copy of both.
        operators::INDEX => (first, all * BYTE),
        "matches" => {
            let pattern = call.args.last().map(|argument| &argument.expr);
            let Some(Expr::Literal(LiteralValue::String(pattern))) = pattern else {
                return Err(Unbounded::Pattern);
            };
            let length = pattern.inner().len() as f64;
            (Size::SCALAR, PATTERN_BYTE * (16.0 + length) + 10.0 * BYTE * all)
        }
        "startsWith" | "endsWith" => (Size::SCALAR, BYTE * first.bytes.min(second.bytes)),
        "contains" | "size" => (Size::SCALAR, 2.0 * BYTE * all),
        known if FUNCTIONS.contains(&known) => (Size { bytes: all + 64.0, ..first }, 2.0 * BYTE * all),
        unknown => return Err(Unbounded::Function(unknown.to_owned())),
    };
    Ok((size, work + own))
}

/// `all`, `exists`, `exists_one`, `map` and `filter`: the step, as often as the range is long.
fn walk_comprehension(loops: &ComprehensionExpr, scope: &Scope<'_>) -> Result<(Size, f64), Unbounded> {
    let (range, range_work) = walk(&loops.iter_range, scope)?;
    let (start, start_work) = walk(&loops.accu_init, scope)?;
    let item = Size { fan: range.fan, bytes: range.item.max(16.0), item: range.item };
    let accumulated = Scope::Local { name: &loops.accu_var, size: start, outer: scope };
    let inner = Scope::Local { name: &loops.iter_var, size: item, outer: &accumulated };
    let (_, condition_work) = walk(&loops.loop_cond, &inner)?;
    let (step, step_work) = walk(&loops.loop_step, &inner)?;
    // Each round adds at most what one round makes of the start: `cel` appends in place, and no macro multiplies.
    let rounds = range.fan;
    let result = Size {
        fan: (start.fan + rounds).max(step.fan),
        bytes: start.bytes + rounds * step.bytes,
        item: start.item.max(step.item),
    };
    let done = Scope::Local { name: &loops.accu_var, size: result, outer: scope };
    let (result, result_work) = walk(&loops.result, &done)?;
    let rounds_work = rounds * (condition_work + step_work + item.bytes * BYTE + 2.0 * NODE);
    Ok((result, range_work + start_work + rounds_work + result_work + range.bytes * BYTE))
}

/// Whether an expression only borrows: a variable, or selections on one.
fn is_path(expression: &IdedExpr) -> bool {
    match &expression.expr {
        Expr::Ident(_) => true,
        Expr::Select(select) => is_path(&select.operand),
        _ => false,
    }
}
