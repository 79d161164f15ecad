//! The folders' direction of use: down only.

use crate::paths::{module_path, uses};
use crate::tokens::tokens;
use crate::{Violation, check_sources, expect};

/// Each part of the crate and the parts it may use, from the bottom up. `cli` stands on all of them.
const MAY_USE: [(&str, &[&str]); 10] = [
    ("authorize", &[]),
    ("wire", &["authorize"]),
    ("producer", &["authorize", "wire"]),
    ("worker", &["authorize", "wire"]),
    ("config", &["authorize", "wire"]),
    ("telemetry", &["authorize", "wire", "config"]),
    ("stream", &["authorize", "wire", "config", "telemetry"]),
    ("control", &["authorize", "wire", "config", "telemetry", "stream"]),
    ("review", &["authorize", "wire", "stream", "control"]),
    ("serve", &["authorize", "wire", "config", "telemetry", "stream", "control", "review"]),
];
const TOP: &str = "cli";

fn check(path: &str, source: &str) -> Vec<Violation> {
    let Some(&part) = module_path(path).first() else { return Vec::new() };
    let row = MAY_USE.iter().find(|(known, _)| *known == part);
    let allowed = |used: &str| match row {
        Some((_, below)) => below.contains(&used),
        None => part == TOP && MAY_USE.iter().any(|(known, _)| *known == used),
    };
    let mut found = Vec::new();
    if row.is_none() && part != TOP {
        found.push(Violation { line: 1, what: format!("`{part}` has no place in the order of folders") });
    }
    for used in uses(path, &tokens(source)) {
        if used.part != part && !allowed(used.part) {
            found.push(Violation { line: used.line, what: format!("`{part}` may not use `{}`", used.part) });
        }
    }
    found
}

#[test]
fn folders_use_only_what_stands_below_them() {
    check_sources(check);
}

#[test]
fn a_use_that_points_up_is_caught() {
    expect(
        check,
        "src/stream/lane.rs",
        "use crate::wire::x;\nuse crate::control::Watched;\n",
        &[(2, "`control`")],
    );
    expect(
        check,
        "src/authorize/engine.rs",
        "fn f() {\n crate::wire::encode();\n}",
        &[(2, "may not use `wire`")],
    );
    expect(check, "src/wire/mod.rs", "use super::{authorize, config};", &[(1, "`config`")]);
    expect(check, "src/worker.rs", "use crate::{authorize::ids, stream};", &[(1, "`stream`")]);
    expect(check, "src/serve/mod.rs", "use crate::cli;", &[(1, "may not use `cli`")]);
    expect(check, "src/cli/run.rs", "use crate::{serve, stream};\nuse crate::main;", &[(2, "`main`")]);
    expect(check, "src/helpers.rs", "use crate::wire;", &[(1, "no place"), (1, "`wire`")]);
}
