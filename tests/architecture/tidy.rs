//! What every file of the project has, and what none has.

use crate::tokens::tokens;
use crate::{Violation, check_sources, expect, files_below, report};

/// Folders and files that speak to readers outside.
const SPOKEN: [&str; 8] = ["src", "tests", "docs", "examples", "benches", "scripts", ".ci", "schemas"];

fn sources(_path: &str, source: &str) -> Vec<Violation> {
    let mut found = Vec::new();
    if !source.starts_with("//! ") {
        found.push(Violation {
            line: 1,
            what: "a file opens with a paragraph: its job, then its limits".to_owned(),
        });
    }
    let tokens = tokens(source);
    for pair in tokens.windows(2) {
        if matches!(pair[0].text, "todo" | "unimplemented") && pair[1].text == "!" {
            found.push(Violation {
                line: pair[0].line,
                what: format!("`{}!`: finish it, or leave it out", pair[0].text),
            });
        }
        if pair[0].text == "[" && pair[1].text == "ignore" {
            found.push(Violation {
                line: pair[0].line,
                what: "a test that is not run shows nothing".to_owned(),
            });
        }
    }
    found
}

fn words(_path: &str, text: &str) -> Vec<Violation> {
    // Put together here, so that this file does not hold them.
    let unfinished = [["FIX", "ME"], ["XX", "X:"], ["HA", "CK:"]].map(|halves| halves.concat());
    let machine = [["/ro", "ot/"], ["/ho", "me/"], ["/wo", "rk/"]].map(|halves| halves.concat());
    let mut found = Vec::new();
    for (line, text) in (1..).zip(text.lines()) {
        if unfinished.iter().any(|word| text.contains(word)) {
            found.push(Violation { line, what: "unfinished: finish it, or leave it out".to_owned() });
        }
        // A path starts there: `docs/work/` is no path of a machine.
        let starts = |path: &String| {
            text.match_indices(path).any(|(at, _)| {
                !text[..at].ends_with(|before: char| before.is_alphanumeric() || before == '.')
            })
        };
        if machine.iter().any(starts) {
            found.push(Violation { line, what: "a path of one machine".to_owned() });
        }
    }
    found
}

#[test]
fn every_source_opens_with_its_job_and_none_is_unfinished() {
    check_sources(sources);
    report(files_below("tests", "rs"), sources);
}

#[test]
fn no_file_names_a_machine_or_is_left_unfinished() {
    report(SPOKEN.into_iter().flat_map(|folder| files_below(folder, "")).collect(), words);
    let top = std::fs::read_dir(crate::ROOT).expect("the root").map(|entry| entry.expect("an entry").path());
    // `.git` is a file in a linked work tree, and no part of the project.
    report(top.filter(|path| path.is_file() && !path.ends_with(".git")).collect(), words);
}

#[test]
fn untidiness_is_caught() {
    expect(sources, "src/a.rs", "use a;\n//! late", &[(1, "paragraph")]);
    expect(
        sources,
        "src/a.rs",
        "//! Job.\nfn f() {\n todo!()\n}\n#[ignore]\nfn g() {}",
        &[(3, "todo"), (5, "not run")],
    );
    expect(words, "README.md", &["text\nFIX", "ME this"].concat(), &[(2, "unfinished")]);
    expect(words, "README.md", &["see docs/wo", "rk/x and `/ro", "ot/x`"].concat(), &[(1, "machine")]);
    expect(words, "README.md", &["see docs/wo", "rk/x"].concat(), &[]);
}
