//! Rust source as words: names, `::`, and single signs. Comments, literals and lifetimes are left out, so a rule about
//! names does not trip over prose. Enough for rules about paths; it is no parser.

/// A name, `::` or a sign, and its line, counted from 1.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Token<'a> {
    pub text: &'a str,
    pub line: usize,
}

pub fn tokens(source: &str) -> Vec<Token<'_>> {
    let mut found = Vec::new();
    let mut rest = source;
    while let Some(first) = rest.chars().next() {
        let line = 1 + source[..source.len() - rest.len()].matches('\n').count();
        let (length, is_token) = measure(rest, first);
        if is_token {
            found.push(Token { text: &rest[..length], line });
        }
        rest = &rest[length..];
    }
    found
}

/// The tokens outside `#[cfg(test)] mod name { ... }`.
pub fn without_tests<'a>(tokens: &[Token<'a>]) -> Vec<Token<'a>> {
    const GATE: [&str; 8] = ["#", "[", "cfg", "(", "test", ")", "]", "mod"];
    let mut kept = Vec::new();
    let mut at = 0;
    while at < tokens.len() {
        let opens = tokens.get(at + GATE.len() + 1).is_some_and(|token| token.text == "{");
        if opens && tokens[at..].iter().map(|token| token.text).take(GATE.len()).eq(GATE) {
            at = end_of_group(tokens, at + GATE.len() + 1);
        } else {
            kept.push(tokens[at]);
            at += 1;
        }
    }
    kept
}

/// The index behind the brace that closes the one at `open`.
pub fn end_of_group(tokens: &[Token<'_>], open: usize) -> usize {
    let mut depth = 0usize;
    for (at, token) in tokens.iter().enumerate().skip(open) {
        match token.text {
            "{" => depth += 1,
            "}" => depth = depth.saturating_sub(1),
            _ => {}
        }
        if depth == 0 {
            return at + 1;
        }
    }
    tokens.len()
}

/// How long the piece at the start of `rest` is, and whether it is a token.
fn measure(rest: &str, first: char) -> (usize, bool) {
    if rest.starts_with("//") {
        return (rest.find('\n').unwrap_or(rest.len()), false);
    }
    if rest.starts_with("/*") {
        return (block_comment(rest), false);
    }
    if let Some(length) = raw_string(rest) {
        return (length, false);
    }
    match first {
        '"' => (quoted(rest, '"'), false),
        '\'' => (quote_or_lifetime(rest), false),
        ':' if rest.starts_with("::") => (2, true),
        _ if is_name(first) => (name(rest), true),
        _ => (first.len_utf8(), !first.is_whitespace()),
    }
}

fn is_name(character: char) -> bool {
    character.is_alphanumeric() || character == '_'
}

fn name(rest: &str) -> usize {
    rest.find(|character| !is_name(character)).unwrap_or(rest.len())
}

fn block_comment(rest: &str) -> usize {
    let mut depth = 0usize;
    let mut at = 0;
    while at < rest.len() {
        if rest[at..].starts_with("/*") {
            (depth, at) = (depth + 1, at + 2);
        } else if rest[at..].starts_with("*/") {
            (depth, at) = (depth - 1, at + 2);
            if depth == 0 {
                return at;
            }
        } else {
            at += rest[at..].chars().next().map_or(1, char::len_utf8);
        }
    }
    rest.len()
}

/// `r"..."`, `br#"..."#` and their like; `None` for anything else, `r#name` among it.
fn raw_string(rest: &str) -> Option<usize> {
    let hashes_at = ["r", "br", "cr"].iter().find(|prefix| rest.starts_with(**prefix))?.len();
    let hashes = rest[hashes_at..].bytes().take_while(|byte| *byte == b'#').count();
    let body = rest[hashes_at + hashes..].strip_prefix('"')?;
    let close = format!("\"{}", "#".repeat(hashes));
    let length = body.find(&close).map_or(body.len(), |end| end + close.len());
    Some(hashes_at + hashes + 1 + length)
}

fn quoted(rest: &str, quote: char) -> usize {
    let mut escaped = false;
    for (at, character) in rest.char_indices().skip(1) {
        match character {
            _ if escaped => escaped = false,
            '\\' => escaped = true,
            _ if character == quote => return at + 1,
            _ => {}
        }
    }
    rest.len()
}

fn quote_or_lifetime(rest: &str) -> usize {
    let mut following = rest.chars().skip(1);
    match (following.next(), following.next()) {
        (Some('\\'), _) | (Some(_), Some('\'')) => quoted(rest, '\''),
        _ => 1 + name(&rest[1..]),
    }
}

#[test]
fn only_names_paths_and_signs_are_tokens() {
    let source = r##"
/* a /* nested */ comment */ use a::b; // not::this
let x: &'static str = "no \" such::name"; let y = 'c'; let z = '\''; let r = r#"raw "q" ::x"#; b"::x"
r#type"##;
    let texts: Vec<(&str, usize)> = tokens(source).iter().map(|token| (token.text, token.line)).collect();
    let expected = "use a :: b ; let x : & str = ; let y = ; let z = ; let r = ; b r # type";
    assert_eq!(texts.iter().map(|(text, _)| *text).collect::<Vec<_>>().join(" "), expected);
    assert_eq!((texts[0].1, texts[5].1, texts.last().map(|last| last.1)), (2, 3, Some(4)));
}

#[test]
fn test_modules_are_cut_out_and_nothing_else() {
    let source = "fn a() {} #[cfg(test)] mod tests { fn b() { {} } } fn c() {} #[cfg(unix)] mod d {}";
    let kept: Vec<&str> = without_tests(&tokens(source)).iter().map(|token| token.text).collect();
    assert_eq!(kept.concat(), "fna(){}fnc(){}#[cfg(unix)]modd{}");
}
