//! One line of input: a record and what it asks for. Limits: text in, bytes out; signing is the producer's.

use serde::Deserialize;
use serde_json::value::RawValue;
use serde_json::{Map, Value};

use crate::authorize::ids::{Partition, Topic};
use crate::authorize::record::Header;
use crate::authorize::request::{Action, Resource, Workflow};
use crate::producer::{Asked, Outgoing};

/// Why a line is not what it should be.
#[derive(Debug, thiserror::Error)]
pub enum LineError {
    /// Not the JSON that is needed.
    #[error("{0}")]
    Json(#[from] serde_json::Error),
    /// A header that is neither text nor null.
    #[error("the header `{0}` must be a string or null")]
    Header(String),
    /// Longer than any record may be.
    #[error("it is longer than 16 MiB")]
    TooLong,
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct Written<'l> {
    key: Option<String>,
    #[serde(borrow)]
    value: Option<&'l RawValue>,
    #[serde(default)]
    headers: Map<String, Value>,
    action: Option<WrittenAction>,
    resource: Option<Resource>,
    workflow: Option<Workflow>,
    partition: Option<u32>,
}

#[derive(Deserialize)]
#[serde(untagged)]
enum WrittenAction {
    Name(String),
    Whole(Action),
}

/// A line, as bytes.
#[derive(Debug, PartialEq)]
pub struct Line {
    key: Option<Vec<u8>>,
    value: Option<Vec<u8>>,
    headers: Vec<Header>,
    partition: Option<Partition>,
    asked: Asked,
}

impl Line {
    /// Reads a line.
    ///
    /// # Errors
    /// What is wrong with it.
    pub fn parse(bytes: &[u8]) -> Result<Self, LineError> {
        let written: Written<'_> = serde_json::from_slice(bytes)?;
        let value = match written.value.map(RawValue::get) {
            None => None,
            Some(raw) if raw.starts_with('"') => Some(serde_json::from_str::<String>(raw)?.into_bytes()),
            Some(raw) => Some(raw.as_bytes().to_vec()),
        };
        let headers = written.headers.into_iter().map(|(name, value)| match value {
            Value::String(text) => Ok(Header::new(&name, text)),
            Value::Null => Ok(Header { name: name.into(), value: None }),
            _ => Err(LineError::Header(name)),
        });
        let action = written.action.map(|action| match action {
            WrittenAction::Name(name) => Action { name, properties: None },
            WrittenAction::Whole(action) => action,
        });
        Ok(Self {
            key: written.key.map(String::into_bytes),
            value,
            headers: headers.collect::<Result<_, _>>()?,
            partition: written.partition.map(|p| Partition(i32::try_from(p).unwrap_or(i32::MAX))),
            asked: Asked { action, resource: written.resource, workflow: written.workflow },
        })
    }

    /// The names of its headers, all of which are signed.
    pub fn header_names(&self) -> Vec<&str> {
        self.headers.iter().filter_map(|header| std::str::from_utf8(&header.name).ok()).collect()
    }

    /// The record, with `names` signed.
    pub fn outgoing<'l>(&'l self, topic: &'l Topic, names: &'l [&'l str]) -> Outgoing<'l> {
        Outgoing {
            topic,
            partition: self.partition,
            key: self.key.as_deref(),
            value: self.value.as_deref(),
            headers: &self.headers,
            signed_headers: names,
        }
    }

    /// What it asks for.
    pub fn asked(&self) -> &Asked {
        &self.asked
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn parse(text: &str) -> Line {
        Line::parse(text.as_bytes()).unwrap_or_else(|e| panic!("{text}: {e}"))
    }

    #[test]
    fn a_value_is_sent_as_it_stands() {
        let value = |text: &str| parse(text).value.map(|v| String::from_utf8(v).unwrap());
        assert_eq!(value(r#"{"value": {"b": 1, "a": 1.50}}"#).as_deref(), Some(r#"{"b": 1, "a": 1.50}"#));
        assert_eq!(value(r#"{"value": "a\"b\n"}"#).as_deref(), Some("a\"b\n"));
        assert_eq!(value(r#"{"value": ""}"#).as_deref(), Some(""));
        assert_eq!((value("{}"), value(r#"{"value": null}"#)), (None, None));
    }

    #[test]
    fn a_line_says_what_is_asked_and_signs_every_header() {
        let line = parse(
            r#"{"key":"k","headers":{"schema":"2","n":null},"action":"pay","partition":3,
                "resource":{"type":"Invoice","id":"i","properties":{"amount":7}},
                "workflow":{"id":"w","type":"t","step":"s","state":"running"}}"#,
        );
        assert_eq!(line.asked.action.as_ref().unwrap().name, "pay");
        assert_eq!(line.asked.resource.as_ref().unwrap().properties.as_ref().unwrap()["amount"], 7);
        assert_eq!((line.partition, line.asked.workflow.is_some()), (Some(Partition(3)), true));
        assert_eq!(line.header_names(), ["schema", "n"]);
        assert_eq!(parse(r#"{"action":{"name":"pay"}}"#).asked.action.unwrap().name, "pay");
    }

    #[test]
    fn a_slip_of_the_pen_is_an_error_and_not_another_record() {
        for bad in
            ["", "[]", "{", r#"{"vaule":1}"#, r#"{"key":1}"#, r#"{"headers":{"a":1}}"#, r#"{"partition":-1}"#]
        {
            assert!(Line::parse(bad.as_bytes()).is_err(), "{bad}");
        }
        assert!(Line::parse(br#"{"key":"a","key":"b"}"#).is_err());
    }
}
