//! A reader of Prometheus' text format, strict enough that what it takes a scraper takes.

use std::collections::{BTreeMap, BTreeSet};

/// One metric family as it was written.
#[derive(Debug, Default)]
pub struct Family {
    pub kind: String,
    /// Label names, `le` apart.
    pub labels: BTreeSet<String>,
    pub samples: Vec<Sample>,
}

#[derive(Debug)]
pub struct Sample {
    pub name: String,
    pub labels: BTreeMap<String, String>,
    pub value: f64,
}

/// Reads the text, and panics at whatever is not in the format.
pub fn parse(text: &str) -> BTreeMap<String, Family> {
    let mut families: BTreeMap<String, Family> = BTreeMap::new();
    let mut current = String::new();
    for line in text.lines() {
        if let Some(rest) = line.strip_prefix("# TYPE ") {
            let (name, kind) = rest.split_once(' ').unwrap();
            current = name.to_owned();
            let family = Family { kind: kind.to_owned(), ..Family::default() };
            assert!(families.insert(current.clone(), family).is_none(), "`{name}` comes twice");
        } else if !line.starts_with("# HELP ") {
            let sample = sample(line);
            let family = families.get_mut(&current).expect("a sample stands under its type");
            let suffix = sample.name.strip_prefix(&current).expect("a sample has its family's name");
            match family.kind.as_str() {
                "histogram" => assert!(["_bucket", "_sum", "_count"].contains(&suffix), "{line}"),
                _ => assert_eq!(suffix, "", "{line}"),
            }
            family.labels.extend(sample.labels.keys().filter(|name| *name != "le").cloned());
            family.samples.push(sample);
        }
    }
    families
}

fn sample(line: &str) -> Sample {
    let (series, value) = line.rsplit_once(' ').unwrap();
    let value = value.parse().unwrap_or_else(|_| panic!("`{line}` has no number"));
    let Some((name, labels)) = series.split_once('{') else {
        return Sample { name: legal(series), labels: BTreeMap::new(), value };
    };
    let mut rest = labels.strip_suffix('}').unwrap();
    let mut labels = BTreeMap::new();
    while !rest.is_empty() {
        let (label, after) = rest.split_once("=\"").unwrap();
        let (written, after) = quoted(after);
        assert!(labels.insert(legal(label), written).is_none(), "{line}");
        rest = after.strip_prefix(',').unwrap_or(after);
    }
    Sample { name: legal(name), labels, value }
}

/// The text up to the closing quote, unescaped, and what follows the quote.
fn quoted(text: &str) -> (String, &str) {
    let mut value = String::new();
    let mut chars = text.char_indices();
    while let Some((at, c)) = chars.next() {
        match c {
            '"' => return (value, &text[at + 1..]),
            '\\' => value.push(match chars.next().unwrap().1 {
                'n' => '\n',
                escaped @ ('"' | '\\') => escaped,
                other => panic!("`\\{other}` is no escape"),
            }),
            other => value.push(other),
        }
    }
    panic!("`{text}` is not closed");
}

fn legal(name: &str) -> String {
    let ok = |c: char| c.is_ascii_alphanumeric() || c == '_' || c == ':';
    assert!(!name.is_empty() && name.chars().all(ok), "`{name}` is no legal name");
    name.to_owned()
}
