//! A page of the documentation as blocks of commands with what they print, and the comparison of that with what was found.

use std::sync::LazyLock;

use regex::Regex;

/// A fenced block.
pub struct Block {
    pub language: String,
    pub commands: String,
    /// The `text` block that follows, or nothing.
    pub printed: String,
}

/// The fenced blocks of a page; one of `text` belongs to the one before it.
pub fn blocks(page: &str) -> Vec<Block> {
    let mut found: Vec<Block> = Vec::new();
    // Outside and inside of fences take turns.
    for fenced in page.split("\n```").skip(1).step_by(2) {
        let (language, text) = fenced.split_once('\n').unwrap_or((fenced, ""));
        match (language, found.last_mut()) {
            ("text", Some(block)) => block.printed = text.to_owned(),
            _ => found.push(Block {
                language: language.to_owned(),
                commands: text.to_owned(),
                printed: String::new(),
            }),
        }
    }
    found
}

/// The lines of an output in alphabetical order, since partitions have none among them, without what differs each time.
pub fn alike(text: &str) -> Vec<String> {
    static NATURE: LazyLock<[(Regex, &str); 6]> = LazyLock::new(|| {
        [
            (r"\b[0-9a-f]{8}(-[0-9a-f]{4}){3}-[0-9a-f]{12}\b", "<id>"),
            (r"\d{4}-\d\d-\d\dT[\d:.]+Z", "<moment>"),
            (r"[A-Za-z0-9_-]{22,}", "<digest>"),
            (r"address=127\.0\.0\.1:\d+", "<address>"),
            (r"lanes=\d+", "<cores>"),
            // How many transactions a gate needs, each with a marker that takes an offset, is a matter of time.
            (r"(payments\.(authorized|denied)/\d+)/\d+", "$1/<offset>"),
        ]
        .map(|(pattern, name)| (Regex::new(pattern).expect("a pattern"), name))
    });
    let plain = |line: &str| {
        let line = line.trim_end().to_owned();
        NATURE.iter().fold(line, |line, (pattern, name)| pattern.replace_all(&line, *name).into_owned())
    };
    let mut lines: Vec<String> = text.lines().map(plain).filter(|line| !line.is_empty()).collect();
    lines.sort();
    lines
}
