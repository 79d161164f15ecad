//! Strict JSON: RFC 8259 with the contract's own rules (section 2), so that two readers of one token can never see two
//! things. Limits: one pass, one tree, depth bounded; nothing here knows what a member means.

use std::fmt;

use serde::de::{DeserializeSeed, Error as _, MapAccess, SeqAccess, Visitor};
use serde_json::map::Entry;
use serde_json::value::RawValue;
use serde_json::{Map, Number, Value};

use super::limits::{MAX_JSON_DEPTH, MAX_SAFE_INTEGER};

/// Why a text is not the JSON of the contract. Never holds the text.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum JsonError {
    /// The bytes are not UTF-8.
    #[error("is not UTF-8")]
    Encoding,
    /// It begins with a byte order mark.
    #[error("begins with a byte order mark")]
    ByteOrderMark,
    /// It is not RFC 8259 JSON, has a lone surrogate, or has a number that is not finite.
    #[error("is not JSON (line {line}, column {column})")]
    Syntax {
        /// Line of the fault, from 1.
        line: usize,
        /// Column of the fault, in bytes.
        column: usize,
    },
    /// An object names a member twice, compared unescaped.
    #[error("names a member twice (line {line}, column {column})")]
    Duplicate {
        /// Line of the fault, from 1.
        line: usize,
        /// Column of the fault, in bytes.
        column: usize,
    },
    /// It nests deeper than 64.
    #[error("is more than {MAX_JSON_DEPTH} deep")]
    Depth,
    /// The top is not an object.
    #[error("is not an object")]
    NotAnObject,
}

/// Reads one strict JSON text (contract, section 2, JSON): any value at the top.
///
/// # Errors
/// The first rule that the text breaks.
pub fn parse(bytes: &[u8]) -> Result<Value, JsonError> {
    if bytes.starts_with(b"\xef\xbb\xbf") {
        return Err(JsonError::ByteOrderMark);
    }
    let text = std::str::from_utf8(bytes).map_err(|_| JsonError::Encoding)?;
    let mut reader = serde_json::Deserializer::from_str(text);
    let value = Strict { depth: 0 }.deserialize(&mut reader).map_err(explain)?;
    reader.end().map_err(explain)?;
    Ok(value)
}

/// Reads one strict JSON object.
///
/// # Errors
/// The first rule that the text breaks; [`JsonError::NotAnObject`] for any other value.
pub fn parse_object(bytes: &[u8]) -> Result<Map<String, Value>, JsonError> {
    match parse(bytes)? {
        Value::Object(members) => Ok(members),
        _ => Err(JsonError::NotAnObject),
    }
}

/// Whether every integer (a number written without fraction or exponent) of `members` of the top object stays within
/// ±(2^53 - 1). `text` is the text that gave `object`: past 64 bits the tree alone no longer knows how a number was
/// written, so the text is looked at then, and only then.
pub fn integers_are_safe(object: &Map<String, Value>, text: &[u8], members: &[&str]) -> bool {
    let worst = members.iter().filter_map(|m| object.get(*m)).map(magnitude).max().unwrap_or(Magnitude::Safe);
    match worst {
        Magnitude::Safe => true,
        Magnitude::Unsafe => false,
        Magnitude::Unclear => {
            let Ok(raw) = serde_json::from_slice::<std::collections::HashMap<String, &RawValue>>(text) else {
                return false;
            };
            members.iter().filter_map(|m| raw.get(*m)).all(|r| written_integers_are_safe(r.get()))
        }
    }
}

/// How many bytes the value takes as JSON text without white space.
pub fn written_len(value: &Value) -> usize {
    let mut written = Count(0);
    // Nothing here can fail: the names of members are strings, and counting takes any length.
    let _ = serde_json::to_writer(&mut written, value);
    written.0
}

struct Count(usize);

impl std::io::Write for Count {
    fn write(&mut self, bytes: &[u8]) -> std::io::Result<usize> {
        self.0 = self.0.saturating_add(bytes.len());
        Ok(bytes.len())
    }

    fn flush(&mut self) -> std::io::Result<()> {
        Ok(())
    }
}

/// Whether any string of the value, member names included, at any depth, holds a character of Unicode category Cc.
pub fn has_control(value: &Value) -> bool {
    match value {
        Value::String(text) => has_control_str(text),
        Value::Array(items) => items.iter().any(has_control),
        Value::Object(members) => members.iter().any(|(name, v)| has_control_str(name) || has_control(v)),
        Value::Null | Value::Bool(_) | Value::Number(_) => false,
    }
}

/// Whether the text holds a character of Unicode category Cc.
pub fn has_control_str(text: &str) -> bool {
    text.chars().any(char::is_control)
}

/// What the tree alone says about integers.
#[derive(PartialEq, Eq, PartialOrd, Ord)]
enum Magnitude {
    Safe,
    /// A float so large that it may have been written as an integer.
    Unclear,
    Unsafe,
}

fn magnitude(value: &Value) -> Magnitude {
    match value {
        Value::Number(number) => {
            if let Some(n) = number.as_i64() {
                if n.unsigned_abs() <= MAX_SAFE_INTEGER.unsigned_abs() {
                    Magnitude::Safe
                } else {
                    Magnitude::Unsafe
                }
            } else if number.is_u64() {
                Magnitude::Unsafe
            } else if number.as_f64().is_some_and(|n| n.abs() < 9e18) {
                // Integers below 2^63 are kept as integers, so this one was written as a fraction or with an exponent.
                Magnitude::Safe
            } else {
                Magnitude::Unclear
            }
        }
        Value::Array(items) => items.iter().map(magnitude).max().unwrap_or(Magnitude::Safe),
        Value::Object(members) => members.values().map(magnitude).max().unwrap_or(Magnitude::Safe),
        Value::Null | Value::Bool(_) | Value::String(_) => Magnitude::Safe,
    }
}

/// Looks at the number tokens of a text that is known to be JSON.
fn written_integers_are_safe(text: &str) -> bool {
    let mut in_string = false;
    let mut escaped = false;
    let mut number = String::new();
    // The trailing blank ends a number that ends the text.
    for c in text.chars().chain([' ']) {
        if in_string {
            match c {
                _ if escaped => escaped = false,
                '\\' => escaped = true,
                '"' => in_string = false,
                _ => {}
            }
        } else if c.is_ascii_digit()
            || matches!(c, '-' | '+' | '.')
            || (!number.is_empty() && matches!(c, 'e' | 'E'))
        {
            number.push(c);
        } else {
            let is_integer = !number.is_empty() && !number.contains(['.', 'e', 'E']);
            if is_integer
                && number.parse::<i64>().map_or(true, |n| n.unsigned_abs() > MAX_SAFE_INTEGER.unsigned_abs())
            {
                return false;
            }
            number.clear();
            in_string = c == '"';
        }
    }
    true
}

const DUPLICATE: &str = "duplicate member";
const DEPTH: &str = "too deep";

fn explain(error: serde_json::Error) -> JsonError {
    let (line, column) = (error.line(), error.column());
    let text = error.to_string();
    if text.starts_with(DUPLICATE) {
        JsonError::Duplicate { line, column }
    } else if text.starts_with(DEPTH) || text.starts_with("recursion limit") {
        JsonError::Depth
    } else {
        JsonError::Syntax { line, column }
    }
}

/// Builds the tree; `depth` counts the containers around it.
#[derive(Clone, Copy)]
struct Strict {
    depth: usize,
}

impl Strict {
    fn inside<E: serde::de::Error>(self) -> Result<Self, E> {
        if self.depth >= MAX_JSON_DEPTH { Err(E::custom(DEPTH)) } else { Ok(Self { depth: self.depth + 1 }) }
    }
}

impl<'de> DeserializeSeed<'de> for Strict {
    type Value = Value;

    fn deserialize<D: serde::Deserializer<'de>>(self, deserializer: D) -> Result<Value, D::Error> {
        deserializer.deserialize_any(self)
    }
}

impl<'de> Visitor<'de> for Strict {
    type Value = Value;

    fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("JSON")
    }

    fn visit_unit<E>(self) -> Result<Value, E> {
        Ok(Value::Null)
    }

    fn visit_bool<E>(self, value: bool) -> Result<Value, E> {
        Ok(Value::Bool(value))
    }

    fn visit_i64<E>(self, value: i64) -> Result<Value, E> {
        Ok(Value::Number(value.into()))
    }

    fn visit_u64<E>(self, value: u64) -> Result<Value, E> {
        Ok(Value::Number(value.into()))
    }

    fn visit_f64<E: serde::de::Error>(self, value: f64) -> Result<Value, E> {
        Number::from_f64(value).map(Value::Number).ok_or_else(|| E::custom("number is not finite"))
    }

    fn visit_str<E>(self, value: &str) -> Result<Value, E> {
        Ok(Value::String(value.to_owned()))
    }

    fn visit_string<E>(self, value: String) -> Result<Value, E> {
        Ok(Value::String(value))
    }

    fn visit_seq<A: SeqAccess<'de>>(self, mut access: A) -> Result<Value, A::Error> {
        let inside = self.inside()?;
        let mut items = Vec::new();
        while let Some(item) = access.next_element_seed(inside)? {
            items.push(item);
        }
        Ok(Value::Array(items))
    }

    fn visit_map<A: MapAccess<'de>>(self, mut access: A) -> Result<Value, A::Error> {
        let inside = self.inside()?;
        // As many as the claims of a token, so that they are seldom moved; inside of them, few.
        let mut members = Map::with_capacity(if self.depth == 0 { 16 } else { 4 });
        while let Some(name) = access.next_key::<String>()? {
            match members.entry(name) {
                Entry::Occupied(_) => return Err(A::Error::custom(DUPLICATE)),
                Entry::Vacant(place) => drop(place.insert(access.next_value_seed(inside)?)),
            }
        }
        Ok(Value::Object(members))
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    #[test]
    fn a_member_twice_is_refused_however_it_is_written() {
        for text in [r#"{"a":1,"a":1}"#, r#"{"a":1,"\u0061":2}"#, r#"{"x":[{"b":1,"c":2,"b":3}]}"#] {
            assert!(matches!(parse(text.as_bytes()), Err(JsonError::Duplicate { .. })), "{text}");
        }
        assert!(parse(br#"{"a":{"a":1},"A":2}"#).is_ok());
    }

    #[test]
    fn depth_is_counted_from_the_top_object() {
        let nested = |n: usize| format!("{}1{}", "[".repeat(n), "]".repeat(n));
        assert!(parse(nested(64).as_bytes()).is_ok());
        assert_eq!(parse(nested(65).as_bytes()), Err(JsonError::Depth));
        assert_eq!(parse(nested(5000).as_bytes()), Err(JsonError::Depth));
        let object = format!("{}1{}", r#"{"a":"#.repeat(65), "}".repeat(65));
        assert_eq!(parse(object.as_bytes()), Err(JsonError::Depth));
    }

    #[test]
    fn what_rfc_8259_does_not_have_is_refused() {
        for text in [
            &b"\xef\xbb\xbf{}"[..],
            b"{\"a\":\"\xff\"}",
            br#""\ud800""#,
            br#""\udc00""#,
            br#""\ud800\u0061""#,
            b"1e400",
            b"-1e400",
            b"NaN",
            b"Infinity",
            b"{} {}",
            b"{}x",
            b"{\"a\":1,}",
            b"[1,]",
            b"01",
            b"+1",
            b".5",
            b"5.",
            b"{a:1}",
            b"'a'",
            b"\"a\nb\"",
            b"",
            b"// c\n1",
        ] {
            assert!(parse(text).is_err(), "{}", String::from_utf8_lossy(text));
        }
        assert_eq!(parse(br#""\ud83d\ude00""#), Ok(Value::String("😀".into())));
        assert_eq!(parse_object(b"[]"), Err(JsonError::NotAnObject));
    }

    #[test]
    fn written_integers_stay_within_2_to_the_53() {
        for (number, safe) in [
            ("9007199254740991", true),
            ("-9007199254740991", true),
            ("9007199254740992", false),
            ("-9007199254740992", false),
            ("18446744073709551615", false),
            ("18446744073709551616", false),
            ("-9223372036854775809", false),
            ("100000000000000000000000", false),
            ("1e30", true),
            ("1E+30", true),
            ("100000000000000000000000.0", true),
            ("-1.5e300", true),
            ("-0", true),
            (r#""99999999999999999999 \" 99999999999999999999""#, true),
        ] {
            // The float beside it forces the look at the text.
            for text in [
                format!(r#"{{"action":{{"p":[{number}]}},"other":99999999999999999999}}"#),
                format!(r#"{{"action":[1e300,{number},1],"other":1}}"#),
                format!(r#"{{"\u0061ction":{{"p":1e300,"q":{number}}}}}"#),
            ] {
                let object = parse_object(text.as_bytes()).unwrap();
                assert_eq!(integers_are_safe(&object, text.as_bytes(), &["action"]), safe, "{text}");
            }
        }
    }

    #[test]
    fn control_characters_are_found_at_any_depth_and_in_names() {
        for text in [r#""a\u0000""#, r#"["\u0085"]"#, r#"{"a":{"b\u007f":1}}"#, r#"{"a":[{"b":"\n"}]}"#] {
            assert!(has_control(&parse(text.as_bytes()).unwrap()), "{text}");
        }
        assert!(!has_control(&parse(r#"{"ä":["\u200b","\ufeff", 1, null]}"#.as_bytes()).unwrap()));
    }

    proptest! {
        #[test]
        fn reading_never_panics(bytes in proptest::collection::vec(any::<u8>(), 0..200)) {
            let _ = parse(&bytes);
        }

        #[test]
        fn reading_agrees_with_serde_json_where_both_read(text in r#"[\[\]{}",:0-9a\\u.eE+-]{0,40}"#) {
            if let Ok(strict) = parse(text.as_bytes()) {
                prop_assert_eq!(serde_json::from_str::<Value>(&text).unwrap(), strict);
            }
        }
    }
}
