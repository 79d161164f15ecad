//! One value of the document, read as what it should be; what it is not is reported at its place. Limits: shapes and
//! bounds alone, no meaning.

use std::fmt;
use std::str::FromStr;
use std::time::Duration;

use toml::Spanned;
use toml::de::DeValue;

use super::document::{Reading, Table, nearest};
use super::problem::Problem;

/// One value, from the document or from the environment.
pub(super) struct Item<'d, 'r> {
    pub(super) reading: &'r Reading,
    pub(super) path: String,
    pub(super) value: Taken<'d>,
}

pub(super) enum Taken<'d> {
    Written(&'d Spanned<DeValue<'d>>),
    Variable { variable: String, value: String },
}

impl Item<'_, '_> {
    /// Adds a problem at this value.
    pub(super) fn report(&self, problem: Problem) {
        self.reading.report(match &self.value {
            Taken::Written(value) => problem.at(&self.reading.source, value.span()),
            Taken::Variable { variable, .. } => problem.within(variable),
        });
    }

    fn mistyped<T>(&self, wanted: &str) -> Option<T> {
        let found = match &self.value {
            Taken::Written(value) => kind(value.get_ref()),
            Taken::Variable { .. } => "something else",
        };
        self.report(Problem::error(format!("`{}` is {found}, not {wanted}", self.path)));
        None
    }

    /// A text.
    pub(super) fn text(&self) -> Option<String> {
        match &self.value {
            Taken::Variable { value, .. } => Some(value.clone()),
            Taken::Written(value) => match value.get_ref() {
                DeValue::String(text) => Some(text.clone().into_owned()),
                _ => self.mistyped("a string"),
            },
        }
    }

    /// A text in the form of one of our names.
    pub(super) fn parse<T: FromStr<Err: fmt::Display>>(&self) -> Option<T> {
        let text = self.text()?;
        match text.parse() {
            Ok(name) => Some(name),
            Err(error) => {
                self.report(Problem::error(format!("`{}`: {error}", self.path)));
                None
            }
        }
    }

    /// `true` or `false`.
    pub(super) fn flag(&self) -> Option<bool> {
        match &self.value {
            Taken::Variable { value, .. } if value == "true" => Some(true),
            Taken::Variable { value, .. } if value == "false" => Some(false),
            Taken::Written(value) if matches!(value.get_ref(), DeValue::Boolean(_)) => {
                matches!(value.get_ref(), DeValue::Boolean(true)).into()
            }
            _ => self.mistyped("`true` or `false`"),
        }
    }

    /// An integer within bounds.
    pub(super) fn integer(&self, from: u64, to: u64) -> Option<u64> {
        let found = match &self.value {
            Taken::Variable { value, .. } => value.parse().ok(),
            Taken::Written(value) => match value.get_ref() {
                DeValue::Integer(number) => u64::from_str_radix(number.as_str(), number.radix()).ok(),
                _ => return self.mistyped("an integer"),
            },
        };
        match found {
            Some(number) if (from..=to).contains(&number) => Some(number),
            _ => {
                self.report(Problem::error(format!(
                    "`{}` must be an integer from {from} to {to}",
                    self.path
                )));
                None
            }
        }
    }

    /// A time such as `"30s"`, `"24h"` or `"7d"`, within bounds.
    pub(super) fn duration(&self, from: Duration, to: Duration) -> Option<Duration> {
        let text = self.text()?;
        let example = "write a time such as \"500ms\", \"30s\", \"15m\", \"24h\" or \"7d\"";
        // Days are no unit of a duration there, since some of them are longer; here each has 24 hours.
        let days = text.strip_suffix('d').and_then(|days| days.parse::<u32>().ok());
        let time = match days {
            Some(days) => Some(Duration::from_secs(u64::from(days) * 86_400)),
            None => text.parse::<jiff::SignedDuration>().ok().and_then(|time| Duration::try_from(time).ok()),
        };
        match time {
            None => {
                self.report(Problem::error(format!("`{}` is no time: `{text}`", self.path)).help(example));
                None
            }
            Some(time) if time < from || time > to => {
                let shown = |time| jiff::SignedDuration::try_from(time).map(|time| format!("{time:#}"));
                let (from, to) = (shown(from).unwrap_or_default(), shown(to).unwrap_or_default());
                self.report(Problem::error(format!("`{}` must be from {from} to {to}", self.path)));
                None
            }
            Some(time) => Some(time),
        }
    }

    /// A time in whole seconds, within bounds.
    pub(super) fn seconds(&self, from: u32, to: u32) -> Option<u32> {
        let time = self.duration(Duration::from_secs(from.into()), Duration::from_secs(to.into()))?;
        if time.subsec_nanos() != 0 {
            self.report(Problem::error(format!("`{}` must be whole seconds", self.path)));
            return None;
        }
        u32::try_from(time.as_secs()).ok()
    }

    /// One of several words.
    pub(super) fn choose<T: Copy>(&self, words: &[(&'static str, T)]) -> Option<T> {
        let text = self.text()?;
        let found = words.iter().find(|(word, _)| *word == text).map(|(_, meaning)| *meaning);
        if found.is_none() {
            let names: Vec<&'static str> = words.iter().map(|(word, _)| *word).collect();
            let problem = Problem::error(format!("`{}` cannot be `{text}`", self.path));
            self.report(match nearest(&text, &names) {
                Some(near) => problem.help(format!("did you mean `{near}`?")),
                None => problem.help(format!("it is one of `{}`", names.join("`, `"))),
            });
        }
        found
    }

    /// The elements of a list; a variable holds them between commas.
    pub(super) fn list(&self) -> Option<Vec<Self>> {
        match &self.value {
            Taken::Variable { variable, value } => Some(
                value
                    .split(',')
                    .map(|part| Self {
                        reading: self.reading,
                        path: self.path.clone(),
                        value: Taken::Variable { variable: variable.clone(), value: part.trim().to_owned() },
                    })
                    .collect(),
            ),
            Taken::Written(value) => match value.get_ref() {
                DeValue::Array(items) => Some(
                    items
                        .iter()
                        .map(|item| Self {
                            reading: self.reading,
                            path: self.path.clone(),
                            value: Taken::Written(item),
                        })
                        .collect(),
                ),
                _ => self.mistyped("a list, `[\"...\"]`"),
            },
        }
    }

    /// A text, an integer or a flag, as librdkafka's properties are written.
    pub(super) fn property(&self) -> Option<String> {
        match &self.value {
            Taken::Variable { value, .. } => Some(value.clone()),
            Taken::Written(value) => match value.get_ref() {
                DeValue::String(text) => Some(text.clone().into_owned()),
                DeValue::Integer(number) => Some(number.to_string()),
                DeValue::Float(number) => Some(number.to_string()),
                DeValue::Boolean(flag) => Some(flag.to_string()),
                _ => self.mistyped("a string, a number or a flag"),
            },
        }
    }
}

impl<'d, 'r> Item<'d, 'r> {
    /// The table that this value is.
    pub(super) fn into_table(self) -> Option<Table<'d, 'r>> {
        match &self.value {
            Taken::Written(value) => match value.get_ref() {
                DeValue::Table(table) => Some(Table::new(self.reading, self.path, table, value.span())),
                _ => self.mistyped("a table"),
            },
            Taken::Variable { .. } => self.mistyped("a table"),
        }
    }
}

pub(super) fn kind(value: &DeValue<'_>) -> &'static str {
    match value {
        DeValue::String(_) => "a string",
        DeValue::Integer(_) => "an integer",
        DeValue::Float(_) => "a fraction",
        DeValue::Boolean(_) => "a flag",
        DeValue::Datetime(_) => "a date",
        DeValue::Array(_) => "a list",
        DeValue::Table(_) => "a table",
    }
}
