//! Where a command's words go: data to standard output, talk and errors to standard error, in the format that was asked
//! for. Limits: it writes; what is written is each command's own.

use std::io::{self, IsTerminal as _, Write};

use miette::{Diagnostic, GraphicalReportHandler, GraphicalTheme};
use serde::Serialize;

use super::{Color, Exit, Format, is_broken_pipe};
use crate::authorize::ids::UnixMillis;
use crate::config::Problems;

/// The two streams of a command.
#[derive(Debug)]
pub struct Output {
    format: Format,
    color: Color,
    stdout: io::BufWriter<io::Stdout>,
}

impl Output {
    /// The streams of this process.
    pub fn new(format: Format, color: Color) -> Self {
        Self { format, color, stdout: io::BufWriter::new(io::stdout()) }
    }

    /// How data is written.
    pub fn format(&self) -> Format {
        self.format
    }

    /// Where data goes.
    pub fn data(&mut self) -> &mut dyn Write {
        &mut self.stdout
    }

    /// Whether standard output is coloured.
    pub fn is_colored(&self) -> bool {
        self.colors(io::stdout().is_terminal())
    }

    fn colors(&self, terminal: bool) -> bool {
        match self.color {
            Color::Always => true,
            Color::Never => false,
            Color::Auto => terminal && std::env::var_os("NO_COLOR").is_none_or(|set| set.is_empty()),
        }
    }

    /// Writes one JSON value and ends its line.
    ///
    /// # Errors
    /// It cannot be written.
    pub fn json_line(&mut self, value: &impl Serialize) -> io::Result<()> {
        serde_json::to_writer(&mut self.stdout, value)?;
        self.stdout.write_all(b"\n")
    }

    /// Writes a diagnostic with its place in its source, as data.
    ///
    /// # Errors
    /// It cannot be written.
    pub fn diagnostic(&mut self, diagnostic: &dyn Diagnostic) -> io::Result<()> {
        let shown = render(diagnostic, self.is_colored());
        self.stdout.write_all(shown.as_bytes())
    }

    /// Ends a command that can answer no: says on standard error why it failed, if it did.
    pub fn end<E: Diagnostic + 'static>(mut self, ended: Result<Exit, E>) -> Exit {
        let flushed = self.stdout.flush();
        match ended {
            Err(error) if is_broken_pipe(&error) => Exit::Done,
            Err(error) => {
                self.failed(&error);
                Exit::Failed
            }
            Ok(exit) => match flushed {
                Err(error) if error.kind() != io::ErrorKind::BrokenPipe => Exit::Failed,
                _ => exit,
            },
        }
    }

    /// Ends a command that has no other answer than that it is done.
    pub fn end_with<E: Diagnostic + 'static>(self, ended: Result<(), E>) -> Exit {
        self.end(ended.map(|()| Exit::Done))
    }

    /// Ends a command whose configuration has mistakes: every one is said on standard error.
    pub fn end_with_problems(mut self, problems: &Problems) -> Exit {
        let _ = self.stdout.flush();
        for problem in problems.iter() {
            self.failed(problem);
        }
        Exit::Failed
    }

    /// Says on standard error everything that is wrong with what was read, warnings included.
    pub fn tell(&self, problems: &Problems) {
        for problem in problems.iter() {
            self.failed(problem);
        }
    }

    /// A word on standard error to whoever waits: a sentence, or a JSON value on a line.
    pub fn say(&self, sentence: &str, value: &serde_json::Value) {
        let said = match self.format {
            Format::Human => format!("{sentence}\n"),
            Format::Json => format!("{value}\n"),
        };
        // Where standard error cannot be written to, nobody is left to be told.
        let _ = io::stderr().write_all(said.as_bytes());
    }

    /// Says on standard error what went wrong.
    fn failed(&self, error: &dyn Diagnostic) {
        let shown = match self.format {
            Format::Human => render(error, self.colors(io::stderr().is_terminal())),
            Format::Json => {
                let help = error.help().map(|help| help.to_string());
                format!("{}\n", serde_json::json!({ "error": error.to_string(), "help": help }))
            }
        };
        // Where standard error cannot be written to, nobody is left to be told.
        let _ = io::stderr().write_all(shown.as_bytes());
    }
}

fn render(diagnostic: &dyn Diagnostic, colored: bool) -> String {
    let theme = if colored { GraphicalTheme::unicode() } else { GraphicalTheme::unicode_nocolor() };
    let mut shown = String::new();
    match GraphicalReportHandler::new_themed(theme).with_links(false).render_report(&mut shown, diagnostic) {
        Ok(()) => shown,
        // A place outside of its text cannot be drawn; the message must not be lost with it.
        Err(_) => format!("{diagnostic}\n"),
    }
}

/// Text without what a terminal would obey, or what would hide the order of letters.
pub fn plain(text: &str) -> String {
    let shows = |c: char| !c.is_control() && !matches!(c, '\u{202a}'..='\u{202e}' | '\u{2066}'..='\u{2069}');
    text.chars().map(|c| if shows(c) { c } else { '\u{fffd}' }).collect()
}

/// A moment as RFC 3339 writes it, in UTC; one that no calendar has as its milliseconds.
pub fn moment(at: UnixMillis) -> String {
    jiff::Timestamp::from_millisecond(at.0).map_or_else(|_| at.0.to_string(), |at| at.to_string())
}
