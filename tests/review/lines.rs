//! What an attacker gets from log lines: text from outside stands in one line, quoted, without the characters that a
//! terminal or a reader of lines would obey.

use std::process::Command;

use countersign::authorize::ids::{Coordinates, Offset, Partition};
use countersign::telemetry::events::{ControlAway, FactRefused};
use countersign::telemetry::{Fact, LogFormat, LogSettings, Telemetry};

use crate::forge::topic;

/// The variable by which the test runs itself again, to have a standard error of its own.
const FORMAT: &str = "COUNTERSIGN_TEST_LINES";
const HOSTILE: &str = "one\nlevel=INFO msg=\"all is well\"\r\u{1b}[2K\u{1b}]0;title\u{7}\u{9b}31m two";

fn write_lines(format: LogFormat) {
    let telemetry = Telemetry::off();
    let settings = LogSettings { format, ..LogSettings::default() };
    telemetry.install_logs(&settings).unwrap();
    let at = Coordinates { topic: topic("c.revocations"), partition: Partition(0), offset: Offset(7) };
    FactRefused { fact: Fact::Revocation, at: &at, problem: HOSTILE }.emit(&telemetry);
    ControlAway { problem: HOSTILE }.emit(&telemetry);
}

#[test]
fn text_from_outside_stays_in_its_line_and_moves_no_terminal() {
    match std::env::var(FORMAT).as_deref() {
        Ok("human") => return write_lines(LogFormat::Human),
        Ok("json") => return write_lines(LogFormat::Json),
        _ => {}
    }
    for format in ["human", "json"] {
        let me = std::env::current_exe().unwrap();
        let name = "lines::text_from_outside_stays_in_its_line_and_moves_no_terminal";
        let ran =
            Command::new(me).args(["--exact", name, "--nocapture"]).env(FORMAT, format).output().unwrap();
        assert!(ran.status.success());
        let written = String::from_utf8(ran.stderr).unwrap();
        let whole = written.lines().filter(|line| line.contains("one") && line.contains("all is well"));
        assert_eq!(whole.count(), 2, "{format}: {written}");
        for line in written.lines() {
            assert!(!line.starts_with("level="), "{format}: a line of the sender's own: {written}");
            // JSON escapes those of ASCII and is for programs; the human form escapes all of them.
            let obeyed = |c: char| c.is_control() && (format == "human" || c.is_ascii());
            assert!(!line.chars().any(obeyed), "{format}: {line:?}");
        }
    }
}
