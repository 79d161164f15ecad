//! The members of a JSON object, taken out one by one and by type, each fault with the path of its member. Limits: it
//! knows the types that the contract uses, and no token.

use std::collections::BTreeSet;

use serde::de::DeserializeOwned;
use serde_json::{Map, Value};

use super::super::ids::WorkloadId;
use super::super::jose::TokenKind;
use super::super::json;
use super::super::limits::{MAX_NUMERIC_DATE, MAX_SIGNED_NAMES};
use super::{Audience, Malformed, RecordDigests, SignedHeaders, Times};

/// The members of one object, taken out one by one; `path` says where it lies.
#[derive(Clone)]
pub(in crate::authorize) struct Members {
    path: String,
    pub(in crate::authorize) map: Map<String, Value>,
}

impl Members {
    pub(in crate::authorize) fn read(payload: &[u8]) -> Result<Self, Malformed> {
        let map = json::parse_object(payload).map_err(|e| Malformed(format!("has a payload that {e}")))?;
        Ok(Self { path: String::new(), map })
    }

    fn at(&self, name: &str) -> String {
        if self.path.is_empty() { name.to_owned() } else { format!("{}.{name}", self.path) }
    }

    fn mistyped(&self, name: &str, kind: &str) -> Malformed {
        Malformed(format!("needs `{}` to be {kind}", self.at(name)))
    }

    fn required<T>(&self, name: &str, found: Option<T>) -> Result<T, Malformed> {
        found.ok_or_else(|| missing(&self.at(name)))
    }

    pub(in crate::authorize) fn optional_text(&mut self, name: &str) -> Result<Option<String>, Malformed> {
        match self.map.remove(name) {
            None => Ok(None),
            Some(Value::String(text)) => Ok(Some(text)),
            Some(_) => Err(self.mistyped(name, "a string")),
        }
    }

    pub(in crate::authorize) fn text(&mut self, name: &str) -> Result<String, Malformed> {
        let found = self.optional_text(name)?;
        self.required(name, found)
    }

    /// A string, or `null`, but there.
    fn nullable_text(&mut self, name: &str) -> Result<Option<String>, Malformed> {
        match self.map.remove(name) {
            None => Err(missing(&self.at(name))),
            Some(Value::Null) => Ok(None),
            Some(Value::String(text)) => Ok(Some(text)),
            Some(_) => Err(self.mistyped(name, "a string or `null`")),
        }
    }

    pub(in crate::authorize) fn optional_texts(
        &mut self,
        name: &str,
    ) -> Result<Option<Vec<String>>, Malformed> {
        let Some(value) = self.map.remove(name) else { return Ok(None) };
        let Value::Array(items) = value else { return Err(self.mistyped(name, "a list of strings")) };
        let texts = items.into_iter().map(|item| match item {
            Value::String(text) => Some(text),
            _ => None,
        });
        texts.collect::<Option<Vec<_>>>().map(Some).ok_or_else(|| self.mistyped(name, "a list of strings"))
    }

    pub(in crate::authorize) fn audience(&mut self, name: &str) -> Result<Audience, Malformed> {
        match self.map.get(name) {
            None => Err(missing(&self.at(name))),
            Some(Value::Array(_)) => {
                self.optional_texts(name).map(|many| Audience::Many(many.unwrap_or_default()))
            }
            Some(_) => match self.text(name) {
                Ok(one) => Ok(Audience::One(one)),
                Err(_) => Err(self.mistyped(name, "a string or a list of strings")),
            },
        }
    }

    pub(in crate::authorize) fn identifier(&mut self, name: &str) -> Result<WorkloadId, Malformed> {
        let text = self.text(name)?;
        WorkloadId::parse(&text)
            .map_err(|e| Malformed(format!("has a `{}` that is broken: {e}", self.at(name))))
    }

    pub(in crate::authorize) fn optional_object(&mut self, name: &str) -> Result<Option<Self>, Malformed> {
        match self.map.remove(name) {
            None => Ok(None),
            Some(Value::Object(map)) => Ok(Some(Self { path: self.at(name), map })),
            Some(_) => Err(self.mistyped(name, "an object")),
        }
    }

    pub(in crate::authorize) fn object(&mut self, name: &str) -> Result<Self, Malformed> {
        let found = self.optional_object(name)?;
        self.required(name, found)
    }

    /// A list of objects.
    pub(in crate::authorize) fn objects(&mut self, name: &str) -> Result<Vec<Self>, Malformed> {
        let Some(value) = self.map.remove(name) else { return Err(missing(&self.at(name))) };
        let Value::Array(items) = value else { return Err(self.mistyped(name, "a list of objects")) };
        let objects = items.into_iter().enumerate().map(|(n, item)| match item {
            Value::Object(map) => Ok(Self { path: self.at(&format!("{name}.{n}")), map }),
            _ => Err(self.mistyped(name, "a list of objects")),
        });
        objects.collect()
    }

    pub(in crate::authorize) fn optional_count(&mut self, name: &str) -> Result<Option<u64>, Malformed> {
        match self.map.remove(name) {
            None => Ok(None),
            Some(value) => value.as_u64().map(Some).ok_or_else(|| self.mistyped(name, "an integer from 0")),
        }
    }

    pub(in crate::authorize) fn optional_date(&self, name: &str) -> Result<Option<f64>, Malformed> {
        let Some(value) = self.map.get(name) else { return Ok(None) };
        let date = match (value.as_i64(), value.as_f64()) {
            // Looked at as an integer first: 2^53 + 1 would become 2^53 as a double.
            (Some(whole), _) if whole.unsigned_abs() > 1 << 53 => None,
            (_, Some(date)) if date.abs() <= MAX_NUMERIC_DATE => Some(date),
            _ => None,
        };
        date.map(Some).ok_or_else(|| self.mistyped(name, "a number of seconds within ±2^53"))
    }

    pub(in crate::authorize) fn date(&self, name: &str) -> Result<f64, Malformed> {
        self.required(name, self.optional_date(name)?)
    }

    /// `exp`, `iat` and `nbf`; `exp` is needed in every token.
    pub(in crate::authorize) fn times(&self, issued: bool) -> Result<Times, Malformed> {
        let issued_at = if issued { Some(self.date("iat")?) } else { self.optional_date("iat")? };
        let not_before = self.optional_date("nbf")?;
        Ok(Times { expires_at: self.date("exp")?, issued_at, not_before })
    }

    /// An action, resource or workflow, without control characters.
    pub(in crate::authorize) fn shaped<T: DeserializeOwned>(
        &mut self,
        name: &str,
    ) -> Result<Option<T>, Malformed> {
        let Some(value) = self.map.remove(name) else { return Ok(None) };
        // Serde would take a list for an object.
        if !value.is_object() {
            return Err(self.mistyped(name, "an object"));
        }
        if json::has_control(&value) {
            return Err(Malformed(format!("has a control character in `{}`", self.at(name))));
        }
        let shaped = serde_json::from_value(value);
        shaped.map(Some).map_err(|_| {
            Malformed(format!("has a member of `{}` that is missing or mistyped", self.at(name)))
        })
    }

    pub(in crate::authorize) fn digests(&mut self) -> Result<RecordDigests, Malformed> {
        let (key, value) = (self.nullable_text("key")?, self.nullable_text("value")?);
        let headers = match self.optional_object("headers")? {
            None => None,
            Some(mut headers) => Some(headers.signed_headers()?),
        };
        Ok(RecordDigests { key, value, headers })
    }

    fn signed_headers(&mut self) -> Result<SignedHeaders, Malformed> {
        let found = self.optional_texts("names")?;
        let names = self.required("names", found)?;
        let digest = self.text("digest")?;
        if names.len() > MAX_SIGNED_NAMES {
            return Err(Malformed(format!(
                "has more than {MAX_SIGNED_NAMES} names in `{}`",
                self.at("names")
            )));
        }
        let distinct: BTreeSet<&str> = names.iter().map(String::as_str).collect();
        if distinct.len() != names.len() {
            return Err(Malformed(format!("has a name twice in `{}`", self.at("names"))));
        }
        if let Some(kind) = TokenKind::ALL.into_iter().find(|kind| distinct.contains(kind.header_name())) {
            return Err(Malformed(format!("names `{}` in `{}`", kind.header_name(), self.at("names"))));
        }
        Ok(SignedHeaders { names, digest })
    }
}

/// A member that is needed and absent.
pub(in crate::authorize) fn missing(path: &str) -> Malformed {
    Malformed(format!("needs the member `{path}`"))
}
