//! Which parts of the crate a source names: what follows `crate::`, `countersign::` and `super::`, groups included.

use crate::tokens::{Token, end_of_group};

/// A top-level part of the crate that a source names, and where.
#[derive(Debug, PartialEq, Eq)]
pub struct Use<'a> {
    pub part: &'a str,
    pub line: usize,
}

/// The module path of a source file: `src/stream/lane.rs` is `["stream", "lane"]`, the crate roots are `[]`.
pub fn module_path(path: &str) -> Vec<&str> {
    let inner = path.trim_start_matches("src/").trim_end_matches(".rs");
    let mut parts: Vec<&str> = inner.split('/').collect();
    if matches!(parts.last(), Some(&("mod" | "lib" | "main"))) {
        parts.pop();
    }
    parts
}

/// Every part of the crate that the tokens of the file at `path` name.
pub fn uses<'a>(path: &'a str, tokens: &[Token<'a>]) -> Vec<Use<'a>> {
    let mut found = Vec::new();
    let mut modules: Vec<(&str, usize)> = module_path(path).into_iter().map(|part| (part, 0)).collect();
    let mut depth = 0usize;
    for (at, token) in tokens.iter().enumerate() {
        match token.text {
            "{" => {
                depth += 1;
                if at >= 2 && tokens[at - 2].text == "mod" {
                    modules.push((tokens[at - 1].text, depth));
                }
            }
            "}" => {
                modules.retain(|(_, opened)| *opened == 0 || *opened < depth);
                depth = depth.saturating_sub(1);
            }
            "crate" | "countersign" if !follows_path(tokens, at) => {
                found.extend(heads(tokens, at + 1).into_iter().map(to_use));
            }
            "super" if !follows_path(tokens, at) => {
                let supers = 1 + tokens[at + 1..].chunks(2).take_while(|pair| pair_is_super(pair)).count();
                match modules.len().checked_sub(supers) {
                    Some(0) => found.extend(heads(tokens, at + 2 * supers - 1).into_iter().map(to_use)),
                    Some(_) => found.push(Use { part: modules[0].0, line: token.line }),
                    None => {}
                }
            }
            _ => {}
        }
    }
    found
}

/// The names that follow the `::` at `separator`: one, or each first name of a group.
pub fn heads<'a>(tokens: &[Token<'a>], separator: usize) -> Vec<Token<'a>> {
    if tokens.get(separator).is_none_or(|token| token.text != "::") {
        return Vec::new();
    }
    match tokens.get(separator + 1) {
        Some(open) if open.text == "{" => {
            let group = &tokens[separator + 1..end_of_group(tokens, separator + 1)];
            let mut depth = 0usize;
            let mut heads = Vec::new();
            for pair in group.windows(2) {
                match pair[0].text {
                    "{" => depth += 1,
                    "}" => depth -= 1,
                    _ => {}
                }
                if depth == 1 && matches!(pair[0].text, "{" | ",") && pair[1].text != "}" {
                    heads.push(pair[1]);
                }
            }
            heads
        }
        Some(name) => vec![*name],
        None => Vec::new(),
    }
}

fn follows_path(tokens: &[Token<'_>], at: usize) -> bool {
    at > 0 && tokens[at - 1].text == "::"
}

fn pair_is_super(pair: &[Token<'_>]) -> bool {
    matches!(pair, [separator, name] if separator.text == "::" && name.text == "super")
}

fn to_use(token: Token<'_>) -> Use<'_> {
    Use { part: token.text, line: token.line }
}

#[cfg(test)]
fn parts<'a>(path: &'a str, source: &'a str) -> Vec<&'a str> {
    uses(path, &crate::tokens::tokens(source)).into_iter().map(|used| used.part).collect()
}

#[test]
fn paths_from_the_crate_root_are_found_alone_and_in_groups() {
    let source = "use crate::wire::x; use crate::{stream::{a, b}, control, serve::c,}; countersign::cli::run(); pub(crate) fn f() {}";
    assert_eq!(parts("src/main.rs", source), ["wire", "stream", "control", "serve", "cli"]);
}

#[test]
fn paths_by_super_are_followed_to_the_part_they_reach() {
    assert_eq!(parts("src/stream/lane.rs", "use super::log::Log;"), ["stream"]);
    assert_eq!(parts("src/stream/lane.rs", "use super::super::{cli, wire};"), ["cli", "wire"]);
    assert_eq!(parts("src/stream/mod.rs", "use super::serve;"), ["serve"]);
    assert_eq!(
        parts("src/config.rs", "mod tests { use super::*; use super::super::cli; } use super::wire;"),
        ["config", "cli", "wire"]
    );
}
