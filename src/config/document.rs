//! A TOML document as it is read: each key is taken once, with its place, and what nobody took is unknown. Environment
//! variables replace values as they are taken. Limits: it knows nothing of what the keys mean.

use std::cell::RefCell;
use std::collections::BTreeMap;
use std::ops::Range;

use toml::Spanned;
use toml::de::{DeTable, DeValue};

use super::item::{Item, Taken, kind};
use super::problem::{Problem, Problems, Source};

/// The prefix of the environment variables that replace values.
pub(super) const PREFIX: &str = "COUNTERSIGN_";

/// What every part of the document shares: its text, the overrides, and the problems so far.
pub(super) struct Reading {
    pub(super) source: Source,
    overrides: RefCell<BTreeMap<String, String>>,
    problems: RefCell<Problems>,
}

impl Reading {
    /// Starts to read a text; `environment` is every variable of the process, of which only `COUNTERSIGN_...` count.
    pub(super) fn new(source: Source, environment: impl IntoIterator<Item = (String, String)>) -> Self {
        let overrides = environment
            .into_iter()
            .filter_map(|(name, value)| name.strip_prefix(PREFIX).map(|rest| (rest.to_owned(), value)))
            .collect();
        Self { source, overrides: RefCell::new(overrides), problems: RefCell::default() }
    }

    /// The document's outermost table; text that is no TOML is reported, and what could be read is kept.
    pub(super) fn root<'d>(&self, parsed: &'d Parsed<'d>) -> Table<'d, '_> {
        for error in &parsed.errors {
            let span = error.span().unwrap_or(0..0);
            self.report(Problem::error(error.message()).at(&self.source, span));
        }
        Table::new(self, String::new(), parsed.root.get_ref(), 0..0)
    }

    /// Adds a problem.
    pub(super) fn report(&self, problem: Problem) {
        self.problems.borrow_mut().push(problem);
    }

    /// The problems, once everything has been taken: an override that nobody asked for is a warning, since an
    /// orchestrator may set variables of that prefix (a Kubernetes service named `countersign` does).
    pub(super) fn finish(self) -> Problems {
        let mut problems = self.problems.into_inner();
        for name in self.overrides.into_inner().into_keys() {
            if !["CONFIG", "TEST_KAFKA"].contains(&name.as_str()) {
                problems.push(
                    Problem::warning("the variable sets nothing")
                        .within(format!("{PREFIX}{name}"))
                        .help("see the list in docs/configuration.md"),
                );
            }
        }
        problems
    }

    /// The override of a key, if there is one: `gate.id` is `COUNTERSIGN_GATE_ID`. Each is given once.
    fn overridden(&self, path: &str) -> Option<(String, String)> {
        let name = path.to_ascii_uppercase().replace(['.', '-'], "_");
        self.overrides
            .borrow_mut()
            .remove_entry(&name)
            .map(|(name, value)| (format!("{PREFIX}{name}"), value))
    }

    /// The overrides below a table whose keys are free: the rest of the name and the value.
    pub(super) fn overrides_below(&self, table: &str) -> Vec<(String, String)> {
        let prefix = format!("{}_", table.to_ascii_uppercase());
        let mut overrides = self.overrides.borrow_mut();
        let names: Vec<String> = overrides.keys().filter(|name| name.starts_with(&prefix)).cloned().collect();
        let below = names.into_iter().filter_map(|name| {
            let value = overrides.remove(&name)?;
            name.strip_prefix(&prefix).map(|rest| (rest.to_owned(), value))
        });
        below.collect()
    }
}

/// A parsed document with its syntax errors.
pub(super) struct Parsed<'d> {
    root: Spanned<DeTable<'d>>,
    errors: Vec<toml::de::Error>,
}

impl<'d> Parsed<'d> {
    /// Parses as much of the text as is TOML.
    pub(super) fn new(text: &'d str) -> Self {
        let (root, errors) = DeTable::parse_recoverable(text);
        Self { root, errors }
    }
}

impl Parsed<'_> {
    /// The places of the values of an outermost table's keys.
    pub(super) fn values_below(&self, table: &str, named: impl Fn(&str) -> bool) -> Vec<Range<usize>> {
        let Some(DeValue::Table(table)) = self.root.get_ref().get(table).map(Spanned::get_ref) else {
            return Vec::new();
        };
        table.iter().filter(|(key, _)| named(key.get_ref())).map(|(_, value)| value.span()).collect()
    }
}

/// One table of the document.
pub(super) struct Table<'d, 'r> {
    reading: &'r Reading,
    path: String,
    entries: BTreeMap<&'d str, (Range<usize>, &'d Spanned<DeValue<'d>>)>,
    known: Vec<&'static str>,
    span: Range<usize>,
}

impl<'d, 'r> Table<'d, 'r> {
    pub(super) fn new(
        reading: &'r Reading,
        path: String,
        table: &'d DeTable<'d>,
        span: Range<usize>,
    ) -> Self {
        let entries =
            table.iter().map(|(key, value)| (key.get_ref().as_ref(), (key.span(), value))).collect();
        Self { reading, path, entries, known: Vec::new(), span }
    }

    /// An empty table in the place of one that is absent, so that overrides still apply.
    fn absent(&self, key: &str) -> Self {
        Self {
            reading: self.reading,
            path: self.path_of(key),
            entries: BTreeMap::new(),
            known: Vec::new(),
            span: self.span.clone(),
        }
    }

    fn path_of(&self, key: &str) -> String {
        if self.path.is_empty() { key.to_owned() } else { format!("{}.{key}", self.path) }
    }

    /// Adds a problem with this table.
    pub(super) fn report(&self, problem: Problem) {
        self.reading.report(problem.at(&self.reading.source, self.span.clone()));
    }

    /// Takes a value, from the environment first.
    pub(super) fn take(&mut self, key: &'static str) -> Option<Item<'d, 'r>> {
        self.known.push(key);
        let path = self.path_of(key);
        let written = self.entries.remove(key);
        // Lists of tables have no name that a variable could have.
        if !self.path.contains('[')
            && let Some((variable, value)) = self.reading.overridden(&path)
        {
            return Some(Item { reading: self.reading, path, value: Taken::Variable { variable, value } });
        }
        written.map(|(_, value)| Item { reading: self.reading, path, value: Taken::Written(value) })
    }

    /// Takes a value that must be there.
    pub(super) fn need(&mut self, key: &'static str, advice: &str) -> Option<Item<'d, 'r>> {
        let item = self.take(key);
        if item.is_none() {
            let inside = if self.path.is_empty() { String::new() } else { format!(" in `{}`", self.path) };
            self.report(Problem::error(format!("`{key}` is missing{inside}")).help(advice));
        }
        item
    }

    /// Where it stands in the document, as in `access.tls`.
    pub(super) fn path(&self) -> &str {
        &self.path
    }

    /// Whether the document itself has that key, and nobody has taken it.
    pub(super) fn has(&self, key: &str) -> bool {
        self.entries.contains_key(key)
    }

    /// Takes a table; an absent one is empty.
    pub(super) fn table(&mut self, key: &'static str) -> Self {
        self.known.push(key);
        match self.entries.remove(key) {
            None => self.absent(key),
            Some((span, value)) => match value.get_ref() {
                DeValue::Table(table) => Self::new(self.reading, self.path_of(key), table, span),
                other => {
                    let message = format!("`{}` is {}, not a table", self.path_of(key), kind(other));
                    let advice = format!("write `[{}]` and its keys below", self.path_of(key));
                    self.reading
                        .report(Problem::error(message).help(advice).at(&self.reading.source, value.span()));
                    self.absent(key)
                }
            },
        }
    }

    /// Takes a list of tables, `[[key]]`.
    pub(super) fn tables(&mut self, key: &'static str) -> Vec<Self> {
        self.known.push(key);
        let Some((_, value)) = self.entries.remove(key) else { return Vec::new() };
        let advice = format!("write `[[{}]]` for each", self.path_of(key));
        let refuse = |value: &Spanned<DeValue<'_>>| {
            let message =
                format!("`{}` is {}, not a list of tables", self.path_of(key), kind(value.get_ref()));
            self.reading.report(Problem::error(message).help(&advice).at(&self.reading.source, value.span()));
        };
        let DeValue::Array(items) = value.get_ref() else {
            refuse(value);
            return Vec::new();
        };
        let mut tables = Vec::new();
        for (index, item) in items.iter().enumerate() {
            match item.get_ref() {
                DeValue::Table(table) => {
                    tables.push(Self::new(
                        self.reading,
                        format!("{}[{index}]", self.path_of(key)),
                        table,
                        item.span(),
                    ));
                }
                _ => refuse(item),
            }
        }
        tables
    }

    /// Takes everything that is left: the keys of a table whose names are free.
    pub(super) fn rest(&mut self) -> Vec<(&'d str, Range<usize>, Item<'d, 'r>)> {
        let entries = std::mem::take(&mut self.entries);
        let items = entries.into_iter().map(|(key, (span, value))| {
            // A free name may hold dots: no variable names what is below it.
            let path = format!("{}[\"{key}\"]", self.path);
            (key, span, Item { reading: self.reading, path, value: Taken::Written(value) })
        });
        items.collect()
    }

    /// Reports what nobody took.
    pub(super) fn finish(mut self) {
        let known = std::mem::take(&mut self.known);
        for (key, (span, _)) in std::mem::take(&mut self.entries) {
            let inside = if self.path.is_empty() { String::new() } else { format!(" in `{}`", self.path) };
            let problem = Problem::error(format!("`{key}` is not a key{inside}"));
            let problem = match nearest(key, &known) {
                Some(near) => problem.help(format!("did you mean `{near}`?")),
                None => problem.help(format!("the keys are `{}`", known.join("`, `"))),
            };
            self.reading.report(problem.at(&self.reading.source, span));
        }
    }
}

/// The word that a person probably meant.
pub(super) fn nearest<'w>(written: &str, words: &[&'w str]) -> Option<&'w str> {
    let near = words.iter().map(|word| (strsim::damerau_levenshtein(written, word), *word));
    near.filter(|(distance, word)| *distance <= 1 + word.len() / 4).min().map(|(_, word)| word)
}
