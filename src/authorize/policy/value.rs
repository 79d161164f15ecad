//! The values of a context between facts and policy: each becomes Cedar's value and the audit record's JSON from the
//! same tree, so what is recorded is what was evaluated. Limits: moments outside the years 0 to 9999 cannot be written
//! in Cedar and are refused by who makes them.

use core::net::IpAddr;
use std::borrow::Cow;
use std::fmt::Write as _;
use std::sync::Arc;

use cedar_policy::{Context, EntityUid, RestrictedExpression};
use cedar_policy_core::ast;
use serde_json::Value as Json;

use super::shape::{Member, Shape};
use crate::authorize::ids::{Digest, UnixMillis};
use crate::authorize::memo::Memo;

/// A value of a context.
#[derive(Debug, Clone)]
pub(super) enum Value<'a> {
    Bool(bool),
    Long(i64),
    Text(Cow<'a, str>),
    Entity(EntityUid),
    Datetime(UnixMillis),
    /// Milliseconds.
    Duration(i64),
    Ip(IpAddr),
    /// An extension value in Cedar's own notation, checked.
    Notation(ast::Value, &'a str),
    Set(Vec<Value<'a>>),
    Record(Vec<(&'a str, Value<'a>)>),
    /// Made before.
    Made(Arc<Made>),
}

/// A value in both of its forms, nothing of it masked.
#[derive(Debug)]
pub(super) struct Made {
    cedar: ast::Value,
    json: String,
}

/// The extension types that can be written as a string.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Notation {
    Datetime,
    Duration,
    Decimal,
    Ip,
}

/// A value of a claim that is not what the schema declares.
#[derive(Debug, PartialEq, Eq)]
pub(super) struct Mistyped {
    pub(super) path: String,
    pub(super) problem: String,
}

impl Mistyped {
    fn new(path: &str, problem: impl Into<String>) -> Self {
        Self { path: path.to_owned(), problem: problem.into() }
    }
}

const FIRST_MS: i64 = -62_167_219_200_000;
const LAST_MS: i64 = 253_402_300_799_999;

/// Whether Cedar can hold this moment: the years 0 to 9999.
pub(super) fn is_datetime(moment: UnixMillis) -> bool {
    (FIRST_MS..=LAST_MS).contains(&moment.0)
}

/// A moment of [`is_datetime`] as RFC 3339 with milliseconds, in UTC, which is how Cedar reads one. Days become a date of
/// the proleptic Gregorian calendar in years that begin in March, so that a leap day is the last of its year.
fn push_rfc3339(out: &mut String, moment: UnixMillis) {
    const DAY_MS: i64 = 86_400_000;
    const ERA_DAYS: i64 = 146_097;
    let days = moment.0.div_euclid(DAY_MS) + 719_468;
    let (era, day_of_era) = (days.div_euclid(ERA_DAYS), days.rem_euclid(ERA_DAYS));
    let year_of_era = (day_of_era - day_of_era / 1460 + day_of_era / 36_524 - day_of_era / 146_096) / 365;
    let day_of_year = day_of_era - (365 * year_of_era + year_of_era / 4 - year_of_era / 100);
    let month = (5 * day_of_year + 2) / 153;
    let day = day_of_year - (153 * month + 2) / 5 + 1;
    let month = if month < 10 { month + 3 } else { month - 9 };
    let year = era * 400 + year_of_era + i64::from(month <= 2);
    let ms = moment.0.rem_euclid(DAY_MS);
    let (hour, minute, second) = (ms / 3_600_000, ms / 60_000 % 60, ms / 1000 % 60);
    push_digits(out, year, 1000);
    for (before, part, greatest) in [
        ('-', month, 10),
        ('-', day, 10),
        ('T', hour, 10),
        (':', minute, 10),
        (':', second, 10),
        ('.', ms % 1000, 100),
    ] {
        out.push(before);
        push_digits(out, part, greatest);
    }
    out.push('Z');
}

/// A number from 0 in as many digits as `unit`, which is a power of ten, has.
fn push_digits(out: &mut String, number: i64, mut unit: i64) {
    while unit > 0 {
        out.extend(u8::try_from(number / unit % 10).ok().map(|digit| char::from(b'0' + digit)));
        unit /= 10;
    }
}

fn rfc3339(moment: UnixMillis) -> String {
    let mut text = String::with_capacity(24);
    push_rfc3339(&mut text, moment);
    text
}

impl<'a> Value<'a> {
    /// What the claim at `path` is by its declared type. Members that are not declared are left out.
    pub(super) fn of_json(json: &'a Json, shape: &'a Shape, path: &mut String) -> Result<Self, Mistyped> {
        let wrong = |path: &str| Err(Mistyped::new(path, format!("must be {shape}")));
        Ok(match (shape, json) {
            (Shape::Bool, Json::Bool(value)) => Self::Bool(*value),
            (Shape::Long, Json::Number(value)) => match value.as_i64() {
                Some(value) => Self::Long(value),
                None => return wrong(path),
            },
            (Shape::String, Json::String(value)) => Self::Text(value.into()),
            (Shape::Datetime, Json::String(value)) => Self::notation(Notation::Datetime, value, shape, path)?,
            (Shape::Duration, Json::String(value)) => Self::notation(Notation::Duration, value, shape, path)?,
            (Shape::Decimal, Json::String(value)) => Self::notation(Notation::Decimal, value, shape, path)?,
            (Shape::Ip, Json::String(value)) => Self::notation(Notation::Ip, value, shape, path)?,
            (Shape::Entity(kind), value) => {
                let member = |name: &str| value.get(name).and_then(Json::as_str);
                match (member("type"), member("id")) {
                    (Some(of), Some(id)) if of == kind.text => match kind.entity(id) {
                        Some(entity) => Self::Entity(entity),
                        None => {
                            return Err(Mistyped::new(path, format!("is none of the entities of `{of}`")));
                        }
                    },
                    _ => {
                        let problem = format!("must be {{\"type\": \"{}\", \"id\": \"...\"}}", kind.text);
                        return Err(Mistyped::new(path, problem));
                    }
                }
            }
            (Shape::Set(element), Json::Array(values)) => {
                let mut set = Vec::with_capacity(values.len());
                let length = path.len();
                for (i, value) in values.iter().enumerate() {
                    let _ = write!(path, "[{i}]");
                    set.push(Self::of_json(value, element, path)?);
                    path.truncate(length);
                }
                Self::Set(set)
            }
            (Shape::Record(members), Json::Object(value)) => Self::of_members(value, members, path)?,
            _ => return wrong(path),
        })
    }

    /// The declared members of a JSON object.
    pub(super) fn of_members(
        value: &'a serde_json::Map<String, Json>,
        members: &'a [Member],
        path: &mut String,
    ) -> Result<Self, Mistyped> {
        let mut record = Vec::with_capacity(members.len());
        let length = path.len();
        for member in members {
            let _ = write!(path, ".{}", member.name);
            match value.get(&*member.name) {
                Some(value) => record.push((&*member.name, Self::of_json(value, &member.shape, path)?)),
                None if member.required => return Err(Mistyped::new(path, "is missing")),
                None => {}
            }
            path.truncate(length);
        }
        Ok(Self::Record(record))
    }

    /// Cedar checks the notation when the value is made; trying it alone says where the mistake is.
    fn notation(notation: Notation, text: &'a str, shape: &Shape, path: &str) -> Result<Self, Mistyped> {
        match notation.value(text) {
            Some(value) => Ok(Self::Notation(value, text)),
            None => Err(Mistyped::new(path, format!("must be {shape}, in Cedar's notation"))),
        }
    }

    /// As a value of Cedar's, made here rather than evaluated from an expression, which costs several times as much. `None` only
    /// where a record has a member twice, or a moment is none of Cedar's, neither of which anything here can make.
    pub(super) fn cedar(&self, times: &TimeCache) -> Option<ast::Value> {
        let kind = match self {
            Self::Bool(value) => ast::ValueKind::Lit(ast::Literal::Bool(*value)),
            Self::Long(value) => ast::ValueKind::Lit(ast::Literal::Long(*value)),
            Self::Text(text) => ast::ValueKind::Lit(ast::Literal::String(text.as_ref().into())),
            Self::Entity(entity) => {
                let entity: &ast::EntityUID = entity.as_ref();
                ast::ValueKind::Lit(ast::Literal::EntityUID(Arc::new(entity.clone())))
            }
            Self::Datetime(moment) => return times.get(Notation::Datetime, moment.0),
            Self::Duration(ms) => return times.get(Notation::Duration, *ms),
            Self::Ip(address) => return Notation::Ip.value(&address.to_string()),
            Self::Notation(value, _) => return Some(value.clone()),
            Self::Set(values) => {
                let values: Option<Vec<_>> = values.iter().map(|value| value.cedar(times)).collect();
                return Some(ast::Value::set(values?, None));
            }
            Self::Record(members) => return record(members, times),
            Self::Made(made) => return Some(made.cedar.clone()),
        };
        Some(ast::Value::new(kind, None))
    }

    /// As the context of a request; only a record is one.
    pub(super) fn context(&self, times: &TimeCache) -> Option<Context> {
        let Self::Record(members) = self else { return None };
        match record(members, times)?.value {
            ast::ValueKind::Record(members) => Some(ast::Context::Value(members).into()),
            _ => None,
        }
    }

    /// As JSON that Cedar reads back with the schema, masked members as `"***"`.
    pub(super) fn write_json(&self, out: &mut String, mask: &mut Mask<'_>) {
        match self {
            Self::Bool(value) => out.push_str(if *value { "true" } else { "false" }),
            Self::Long(value) => push_display(out, value),
            Self::Text(text) => push_string(out, text),
            Self::Entity(entity) => {
                // The name of a type is made of letters, digits, `_` and `::`.
                let _ = write!(out, "{{\"type\":\"{}\"", entity.type_name());
                out.push_str(",\"id\":");
                push_string(out, entity.id().unescaped());
                out.push('}');
            }
            Self::Datetime(moment) => {
                out.push('"');
                push_rfc3339(out, *moment);
                out.push('"');
            }
            Self::Duration(ms) => {
                let _ = write!(out, "\"{ms}ms\"");
            }
            Self::Ip(address) => {
                let _ = write!(out, "\"{address}\"");
            }
            Self::Notation(_, text) => push_string(out, text),
            Self::Set(values) => {
                out.push('[');
                for (i, value) in values.iter().enumerate() {
                    if i > 0 {
                        out.push(',');
                    }
                    value.write_json(out, mask);
                }
                out.push(']');
            }
            Self::Record(members) => {
                out.push('{');
                for (i, (name, value)) in members.iter().enumerate() {
                    if i > 0 {
                        out.push(',');
                    }
                    push_string(out, name);
                    out.push(':');
                    let outer = mask.enter(name);
                    if mask.covers() {
                        out.push_str("\"***\"");
                    } else {
                        value.write_json(out, mask);
                    }
                    mask.leave(outer);
                }
                out.push('}');
            }
            Self::Made(made) => out.push_str(&made.json),
        }
    }
}

fn record(members: &[(&str, Value<'_>)], times: &TimeCache) -> Option<ast::Value> {
    let mut pairs = Vec::with_capacity(members.len());
    for (name, value) in members {
        pairs.push((*name, value.cedar(times)?));
    }
    let record = ast::Value::record(pairs, None);
    match &record.value {
        ast::ValueKind::Record(kept) if kept.len() == members.len() => Some(record),
        _ => None,
    }
}

impl Notation {
    /// What Cedar makes of this text; `None` where it is not of this notation.
    fn value(self, text: &str) -> Option<ast::Value> {
        const ONE: &str = "v";
        let expression = match self {
            Self::Datetime => RestrictedExpression::new_datetime(text),
            Self::Duration => RestrictedExpression::new_duration(text),
            Self::Decimal => RestrictedExpression::new_decimal(text),
            Self::Ip => RestrictedExpression::new_ip(text),
        };
        let context = Context::from_pairs([(ONE.to_owned(), expression)]).ok()?;
        match context.as_ref() {
            ast::Context::Value(members) => members.get(ONE).cloned(),
            ast::Context::RestrictedResidual(_) => None,
        }
    }
}

fn push_display(out: &mut String, value: &impl std::fmt::Display) {
    let _ = write!(out, "{value}");
}

/// As a JSON string. Serialising a string cannot fail; were it to, the member is masked rather than left open.
pub(super) fn push_string(out: &mut String, text: &str) {
    // RFC 8259, section 7: what must be escaped.
    if !text.bytes().any(|byte| byte < 0x20 || byte == b'"' || byte == b'\\') {
        out.push('"');
        out.push_str(text);
        out.push('"');
        return;
    }
    out.push_str(&serde_json::to_string(text).unwrap_or_else(|_| "\"***\"".to_owned()));
}

/// Which members are not written, and where the writer stands.
pub(super) struct Mask<'m> {
    paths: &'m [String],
    at: String,
    found: Vec<String>,
}

impl<'m> Mask<'m> {
    pub(super) fn new(paths: &'m [String]) -> Self {
        Self { paths, at: String::new(), found: Vec::new() }
    }

    /// Goes into a member; the result leads back out.
    fn enter(&mut self, name: &str) -> usize {
        let outer = self.at.len();
        if !self.paths.is_empty() {
            if outer > 0 {
                self.at.push('.');
            }
            self.at.push_str(name);
        }
        outer
    }

    fn leave(&mut self, outer: usize) {
        self.at.truncate(outer);
    }

    fn covers(&mut self) -> bool {
        let covered = self.paths.contains(&self.at);
        if covered {
            self.found.push(self.at.clone());
        }
        covered
    }

    /// The masked paths that were present, sorted.
    pub(super) fn into_found(mut self) -> Vec<String> {
        self.found.sort();
        self.found.dedup();
        self.found
    }
}

/// Moments and durations as Cedar's values. Making one costs 10 us (Cedar parses the name of its constructor, and the text with a
/// regular expression), cloning one next to nothing, and `now` and the times of a token come again from record to record.
#[derive(Debug)]
pub(super) struct TimeCache(Memo<(Notation, i64), ast::Value>);

impl TimeCache {
    pub(super) fn new() -> Self {
        Self(Memo::new(64))
    }

    fn get(&self, notation: Notation, ms: i64) -> Option<ast::Value> {
        // Spread by the high bits of a product: moments of one batch are close together.
        let spread = (ms as u64).wrapping_mul(0x9e37_79b9_7f4a_7c15) >> 58;
        let key = (notation, ms);
        let make = || {
            let value = match notation {
                Notation::Duration => notation.value(&format!("{ms}ms")),
                _ => notation.value(&rfc3339(UnixMillis(ms))),
            };
            value.map(|value| (Some(key), value)).ok_or(())
        };
        self.0.get(spread, |kept| *kept == key, make).ok()
    }
}

/// What was made of the claims of tokens, by token and by the plan that it was made by: many records carry one token, and making
/// its part of a context anew would cost more than evaluating policies.
#[derive(Debug)]
pub(super) struct MadeCache(Memo<(Digest, usize), Arc<Made>>);

impl MadeCache {
    pub(super) fn new() -> Self {
        Self(Memo::new(256))
    }

    /// What `build` makes of that token by that plan, made now or before. Nothing of it may be masked.
    ///
    /// # Errors
    /// Those of `build`.
    pub(super) fn get<'a>(
        &self,
        token: Digest,
        plan: usize,
        times: &TimeCache,
        build: impl FnOnce() -> Result<Value<'a>, Mistyped>,
    ) -> Result<Value<'a>, Mistyped> {
        let key = (token, plan);
        let [first, ..] = token.0;
        let make = || {
            let value = build()?;
            let cedar =
                value.cedar(times).ok_or_else(|| Mistyped::new("transaction", "is no value of Cedar's"))?;
            let mut json = String::new();
            value.write_json(&mut json, &mut Mask::new(&[]));
            Ok((Some(key), Arc::new(Made { cedar, json })))
        };
        self.0.get(first.into(), |kept| *kept == key, make).map(Value::Made)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn moments_are_what_cedar_reads() {
        assert_eq!(rfc3339(UnixMillis(0)), "1970-01-01T00:00:00.000Z");
        assert_eq!(rfc3339(UnixMillis(1_893_456_000_120)), "2030-01-01T00:00:00.120Z");
        assert_eq!(rfc3339(UnixMillis(FIRST_MS)), "0000-01-01T00:00:00.000Z");
        assert_eq!(rfc3339(UnixMillis(LAST_MS)), "9999-12-31T23:59:59.999Z");
        // The calendar agrees with another's over all that the other can hold.
        for n in 0..20_000 {
            let ms = FIRST_MS + n * 15_778_463_987;
            let Ok(time) = jiff::Timestamp::from_millisecond(ms) else { break };
            assert_eq!(rfc3339(UnixMillis(ms)), time.strftime("%Y-%m-%dT%H:%M:%S%.3fZ").to_string());
        }
        let cache = TimeCache::new();
        for ms in [FIRST_MS, -1, 0, 1, 1_893_456_000_120, LAST_MS] {
            for notation in [Notation::Datetime, Notation::Duration] {
                for _ in 0..2 {
                    assert!(cache.get(notation, ms).is_some(), "{notation:?} {ms}");
                }
            }
        }
        assert!(!is_datetime(UnixMillis(FIRST_MS - 1)) && !is_datetime(UnixMillis(LAST_MS + 1)));
    }

    #[test]
    fn kept_expressions_are_of_their_own_moment() {
        let cache = TimeCache::new();
        for round in 0..2 {
            for ms in 0..500 {
                let kept = cache.get(Notation::Datetime, ms);
                assert_eq!(kept, Notation::Datetime.value(&rfc3339(UnixMillis(ms))), "{round} {ms}");
                assert_eq!(cache.get(Notation::Duration, ms), Notation::Duration.value(&format!("{ms}ms")));
            }
        }
    }

    #[test]
    fn masked_members_are_not_written() {
        let text = |text: &'static str| Value::Text(text.into());
        let value = Value::Record(vec![
            ("card", text("4111")),
            ("name", text("a\"b\u{1}")),
            ("nested", Value::Record(vec![("card", text("4222")), ("n", Value::Set(vec![Value::Long(-1)]))])),
        ]);
        let mask = ["nested.card".to_owned(), "name.first".to_owned(), "absent".to_owned()];
        let (mut out, mut mask) = (String::new(), Mask::new(&mask));
        value.write_json(&mut out, &mut mask);
        assert_eq!(out, r#"{"card":"4111","name":"a\"b\u0001","nested":{"card":"***","n":[-1]}}"#);
        assert_eq!(mask.into_found(), ["nested.card"]);
    }
}
