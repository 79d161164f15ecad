//! What is wrong with a configuration or a file that it names: one problem with its place and advice, and all of them
//! together. Limits: it describes; whether a problem stops the gate is its severity.

use std::fmt;
use std::ops::Range;
use std::path::Path;
use std::sync::Arc;

use miette::{Diagnostic, LabeledSpan, NamedSource, Severity, SourceCode};
use serde::Serialize;

/// A text with the name that a person knows it by.
pub type Source = Arc<NamedSource<String>>;

/// Makes a [`Source`] of a file's text.
pub fn source(path: &Path, text: impl Into<String>) -> Source {
    Arc::new(NamedSource::new(path.display().to_string(), text.into()))
}

/// One mistake: what, where, and what to do.
#[derive(Debug, Clone, thiserror::Error)]
#[error("{message}")]
pub struct Problem {
    message: String,
    help: Option<String>,
    severity: Severity,
    place: Place,
}

#[derive(Debug, Clone)]
enum Place {
    Nowhere,
    Named(String),
    Text { source: Source, span: Range<usize> },
}

impl Problem {
    /// A mistake that stops the gate.
    pub fn error(message: impl Into<String>) -> Self {
        Self { message: message.into(), help: None, severity: Severity::Error, place: Place::Nowhere }
    }

    /// Something that a person should look at, and that stops nothing.
    pub fn warning(message: impl Into<String>) -> Self {
        Self { severity: Severity::Warning, ..Self::error(message) }
    }

    /// The same with advice.
    #[must_use]
    pub fn help(mut self, help: impl Into<String>) -> Self {
        self.help = Some(help.into());
        self
    }

    /// The same at a place in a text, in bytes.
    #[must_use]
    pub fn at(mut self, source: &Source, span: Range<usize>) -> Self {
        self.place = Place::Text { source: Arc::clone(source), span };
        self
    }

    /// The same in a file or an environment variable as a whole.
    #[must_use]
    pub fn within(mut self, name: impl Into<String>) -> Self {
        self.place = Place::Named(name.into());
        self
    }

    /// A problem that another part has described as a diagnostic, with its first label as the place.
    pub fn from_diagnostic(diagnostic: &(dyn Diagnostic + Send + Sync + 'static)) -> Self {
        let problem = match diagnostic.severity() {
            None | Some(Severity::Error) => Self::error(diagnostic.to_string()),
            Some(_) => Self::warning(diagnostic.to_string()),
        };
        let problem = match diagnostic.help() {
            Some(help) => problem.help(help.to_string()),
            None => problem,
        };
        let label = diagnostic.labels().and_then(|mut labels| labels.next());
        let (Some(code), Some(label)) = (diagnostic.source_code(), label) else { return problem };
        // The whole text, so that the place can be shown in its lines.
        match code.read_span(label.inner(), usize::MAX, usize::MAX) {
            Ok(contents) => {
                let text = String::from_utf8_lossy(contents.data()).into_owned();
                let source = Arc::new(NamedSource::new(contents.name().unwrap_or_default(), text));
                problem.at(&source, label.offset()..label.offset() + label.len())
            }
            Err(_) => problem,
        }
    }

    /// Whether it stops the gate.
    pub fn is_error(&self) -> bool {
        self.severity == Severity::Error
    }

    /// The problem as programs read it. Lines and columns count from 1, columns in characters.
    pub fn report(&self) -> Report<'_> {
        let (file, position) = match &self.place {
            Place::Nowhere => (None, None),
            Place::Named(name) => (Some(name.as_str()), None),
            Place::Text { source, span } => {
                (Some(source.name()), Some(line_and_column(source.inner(), span.start)))
            }
        };
        Report {
            severity: if self.is_error() { "error" } else { "warning" },
            message: &self.message,
            help: self.help.as_deref(),
            file,
            line: position.map(|(line, _)| line),
            column: position.map(|(_, column)| column),
        }
    }
}

/// One problem as `check --format json` prints it.
#[derive(Debug, Serialize)]
pub struct Report<'a> {
    /// `error` or `warning`.
    pub severity: &'static str,
    /// What is wrong.
    pub message: &'a str,
    /// What to do.
    pub help: Option<&'a str>,
    /// The file or environment variable.
    pub file: Option<&'a str>,
    /// The line, from 1.
    pub line: Option<usize>,
    /// The column in characters, from 1.
    pub column: Option<usize>,
}

fn line_and_column(text: &str, offset: usize) -> (usize, usize) {
    let before = text.get(..offset).unwrap_or(text);
    let line = before.matches('\n').count() + 1;
    let column = before.rsplit('\n').next().unwrap_or_default().chars().count() + 1;
    (line, column)
}

impl Diagnostic for Problem {
    fn severity(&self) -> Option<Severity> {
        Some(self.severity)
    }

    fn help<'a>(&'a self) -> Option<Box<dyn fmt::Display + 'a>> {
        let named = match &self.place {
            Place::Named(name) => Some(format!("in {name}")),
            _ => None,
        };
        match (named, &self.help) {
            (None, None) => None,
            (Some(named), None) => Some(Box::new(named)),
            (None, Some(help)) => Some(Box::new(help)),
            (Some(named), Some(help)) => Some(Box::new(format!("{named}: {help}"))),
        }
    }

    fn source_code(&self) -> Option<&dyn SourceCode> {
        match &self.place {
            Place::Text { source, .. } => Some(source),
            _ => None,
        }
    }

    fn labels(&self) -> Option<Box<dyn Iterator<Item = LabeledSpan> + '_>> {
        match &self.place {
            Place::Text { span, .. } => Some(Box::new(std::iter::once(LabeledSpan::underline(span.clone())))),
            _ => None,
        }
    }
}

/// Everything that is wrong, in the order in which it was found.
#[derive(Debug, Clone, Default)]
pub struct Problems(Vec<Problem>);

impl Problems {
    /// Adds one.
    pub fn push(&mut self, problem: Problem) {
        self.0.push(problem);
    }

    /// Adds all of another list.
    pub fn append(&mut self, mut more: Self) {
        self.0.append(&mut more.0);
    }

    /// Whether one of them stops the gate.
    pub fn stop(&self) -> bool {
        self.0.iter().any(Problem::is_error)
    }

    /// All of them.
    pub fn iter(&self) -> impl Iterator<Item = &Problem> {
        self.0.iter()
    }

    /// How many there are.
    pub fn len(&self) -> usize {
        self.0.len()
    }

    /// Whether there is none.
    pub fn is_empty(&self) -> bool {
        self.0.is_empty()
    }

    /// Whether none has been added that stops the gate; if one has, all of them as the error.
    ///
    /// # Errors
    /// The problems themselves.
    pub fn into_result(self) -> Result<(), Self> {
        if self.stop() { Err(self) } else { Ok(()) }
    }
}

impl fmt::Display for Problems {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        for (index, problem) in self.0.iter().enumerate() {
            let report = problem.report();
            let end = if index + 1 == self.0.len() { "" } else { "\n" };
            match (report.file, report.line, report.column) {
                (Some(file), Some(line), Some(column)) => {
                    write!(f, "{file}:{line}:{column}: {problem}{end}")?
                }
                (Some(file), ..) => write!(f, "{file}: {problem}{end}")?,
                _ => write!(f, "{problem}{end}")?,
            }
        }
        Ok(())
    }
}

impl std::error::Error for Problems {}

impl From<Problem> for Problems {
    fn from(problem: Problem) -> Self {
        Self(vec![problem])
    }
}
