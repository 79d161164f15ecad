//! Holds what ARCHITECTURE.md promises about the source itself: which folder may use which, who may name the clock, the
//! broker and the cryptography, what no file may hold, and what may be depended on. Each checker is also shown made-up
//! sources that break its rule, so a checker that finds nothing is known to look.

mod dependencies;
mod folders;
mod names;
mod paths;
mod tidy;
mod tokens;

use std::fs;
use std::path::{Path, PathBuf};

const ROOT: &str = env!("CARGO_MANIFEST_DIR");

/// A broken rule, and where.
#[derive(Debug)]
struct Violation {
    line: usize,
    what: String,
}

/// Runs a checker over every file of `src/`, and fails with every place where it found something.
fn check_sources(check: impl Fn(&str, &str) -> Vec<Violation>) {
    let sources = files_below("src", "rs");
    assert!(sources.len() > 10, "found only {} sources: the checker looks in the wrong place", sources.len());
    report(sources, check);
}

fn report(files: Vec<PathBuf>, check: impl Fn(&str, &str) -> Vec<Violation>) {
    let mut found = Vec::new();
    for file in files {
        let path =
            file.strip_prefix(ROOT).expect("below the root").to_str().expect("a plain name").to_owned();
        // A file that is not text (a picture, a recorded record) holds no words to look at.
        let Ok(text) = fs::read_to_string(&file) else { continue };
        found.extend(
            check(&path, &text).into_iter().map(|Violation { line, what }| format!("{path}:{line}: {what}")),
        );
    }
    assert!(found.is_empty(), "\n{}\n", found.join("\n"));
}

/// Shows a checker one made-up source and expects exactly these findings, each as `line: part of the message`.
fn expect(
    check: impl Fn(&str, &str) -> Vec<Violation>,
    path: &str,
    source: &str,
    expected: &[(usize, &str)],
) {
    let found = check(path, source);
    let same = found.len() == expected.len()
        && found
            .iter()
            .zip(expected)
            .all(|(found, (line, part))| found.line == *line && found.what.contains(part));
    assert!(same, "in {path}:\n{source}\nexpected {expected:?}\nfound {found:#?}");
}

/// All files below a folder, sorted; with `extension` unless that is empty.
fn files_below(folder: &str, extension: &str) -> Vec<PathBuf> {
    let mut files = Vec::new();
    let mut open = vec![Path::new(ROOT).join(folder)];
    while let Some(folder) = open.pop() {
        let Ok(entries) = fs::read_dir(folder) else { continue };
        for path in entries.map(|entry| entry.expect("a readable entry").path()) {
            if path.is_dir() {
                open.push(path);
            } else if extension.is_empty() || path.extension().is_some_and(|found| found == extension) {
                files.push(path);
            }
        }
    }
    files.sort();
    files
}
