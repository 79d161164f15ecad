//! What is wrong with a policy, schema or entity file: a message with the place in the source it is about, collected so
//! that a person sees every mistake at once. Limits: no rendering; the command line shows these as miette does.

use std::fmt;
use std::sync::Arc;

use miette::{Diagnostic, LabeledSpan, NamedSource, Severity, SourceCode};

/// A file as it was read: its name is for messages alone and has no meaning to a decision.
#[derive(Debug, Clone)]
pub struct SourceFile {
    /// The name or path that a person knows the file by.
    pub name: String,
    /// The whole text.
    pub text: String,
}

/// A file that problems point into, shared by all of them.
#[derive(Debug, Clone)]
pub(super) struct Source {
    name: Arc<str>,
    text: Arc<str>,
}

impl Source {
    pub(super) fn new(file: SourceFile) -> Self {
        Self { name: file.name.into(), text: file.text.into() }
    }

    pub(super) fn text(&self) -> &str {
        &self.text
    }

    /// The last part of the name.
    pub(super) fn base_name(&self) -> &str {
        self.name.rsplit(['/', '\\']).next().unwrap_or(&self.name)
    }
}

/// One thing that is wrong, or looks wrong, with its place in the source where there is one.
#[derive(Debug, Clone)]
pub struct Problem {
    message: String,
    help: Option<String>,
    severity: Severity,
    source: Option<NamedSource<Arc<str>>>,
    labels: Vec<LabeledSpan>,
}

impl Problem {
    pub(super) fn new(source: &Source, message: impl Into<String>) -> Self {
        Self {
            message: message.into(),
            help: None,
            severity: Severity::Error,
            source: Some(NamedSource::new(&source.name, source.text.clone())),
            labels: Vec::new(),
        }
    }

    /// What another library found in `source`, with its labels, help and message.
    pub(super) fn found(source: &Source, found: &(impl Diagnostic + ?Sized)) -> Self {
        let mut problem = Self::new(source, found.to_string());
        problem.help = found.help().map(|help| help.to_string());
        problem.severity = found.severity().unwrap_or(Severity::Error);
        if let Some(labels) = found.labels() {
            // A label outside of the text would make the report of all problems unreadable.
            problem.labels =
                labels.filter(|l| l.offset().saturating_add(l.len()) <= source.text.len()).collect();
        }
        problem
    }

    pub(super) fn at(mut self, offset: usize, len: usize, label: &str) -> Self {
        self.labels.push(LabeledSpan::new(Some(label.to_owned()), offset, len));
        self
    }

    pub(super) fn with_help(mut self, help: impl Into<String>) -> Self {
        self.help = Some(help.into());
        self
    }

    pub(super) fn warning(mut self) -> Self {
        self.severity = Severity::Warning;
        self
    }

    pub(super) fn has_labels(&self) -> bool {
        !self.labels.is_empty()
    }

    /// The sentence: what is wrong.
    pub fn message(&self) -> &str {
        &self.message
    }

    /// The file it is in.
    pub fn file(&self) -> Option<&str> {
        self.source.as_ref().map(NamedSource::name)
    }

    /// Where in the file it begins, as a byte offset.
    pub fn offset(&self) -> Option<usize> {
        self.labels.first().map(LabeledSpan::offset)
    }
}

impl fmt::Display for Problem {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.message)
    }
}

impl std::error::Error for Problem {}

impl Diagnostic for Problem {
    fn severity(&self) -> Option<Severity> {
        Some(self.severity)
    }
    fn help<'a>(&'a self) -> Option<Box<dyn fmt::Display + 'a>> {
        self.help.as_ref().map(|help| Box::new(help) as Box<dyn fmt::Display>)
    }
    fn source_code(&self) -> Option<&dyn SourceCode> {
        self.source.as_ref().map(|source| source as &dyn SourceCode)
    }
    fn labels(&self) -> Option<Box<dyn Iterator<Item = LabeledSpan> + '_>> {
        if self.labels.is_empty() { None } else { Some(Box::new(self.labels.iter().cloned())) }
    }
}

/// Everything that is wrong with a set of files; nothing of it was taken over.
#[derive(Debug, Clone)]
pub struct LoadErrors {
    what: &'static str,
    problems: Vec<Problem>,
}

impl LoadErrors {
    /// `Ok` where there is no problem at all.
    pub(super) fn check(what: &'static str, problems: Vec<Problem>) -> Result<(), Self> {
        if problems.is_empty() { Ok(()) } else { Err(Self { what, problems }) }
    }

    pub(super) fn one(what: &'static str, problem: Problem) -> Self {
        Self { what, problems: vec![problem] }
    }

    /// Every problem, in the order of the files.
    pub fn problems(&self) -> &[Problem] {
        &self.problems
    }
}

impl fmt::Display for LoadErrors {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self.problems.as_slice() {
            [only] => write!(f, "a problem in the {}: {only}", self.what),
            problems => write!(f, "{} problems in the {}", problems.len(), self.what),
        }
    }
}

impl std::error::Error for LoadErrors {}

impl Diagnostic for LoadErrors {
    fn related<'a>(&'a self) -> Option<Box<dyn Iterator<Item = &'a dyn Diagnostic> + 'a>> {
        Some(Box::new(self.problems.iter().map(|problem| problem as &dyn Diagnostic)))
    }
}
