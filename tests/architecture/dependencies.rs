//! The dependency tree against `deny.toml`: licences, bans and sources, from what Cargo itself knows, offline. Known
//! vulnerabilities need an advisory database from outside: `cargo deny check advisories`.

use std::collections::{BTreeMap, BTreeSet};
use std::process::Command;

use serde_json::Value;

use crate::ROOT;

struct Package {
    name: String,
    version: String,
    licence: String,
    source: Option<String>,
}

#[derive(serde::Deserialize)]
#[serde(rename_all = "kebab-case")]
struct Rules {
    graph: Graph,
    licenses: Licenses,
    bans: Bans,
    sources: Sources,
}

#[derive(serde::Deserialize)]
struct Graph {
    targets: Vec<String>,
}

#[derive(serde::Deserialize)]
struct Licenses {
    allow: BTreeSet<String>,
}

#[derive(serde::Deserialize)]
struct Bans {
    deny: Vec<Ban>,
}

#[derive(serde::Deserialize)]
#[serde(rename_all = "kebab-case")]
struct Ban {
    #[serde(rename = "crate")]
    name: String,
    reason: String,
    /// Only a second version is banned, not the crate.
    #[serde(default)]
    deny_multiple_versions: bool,
}

#[derive(serde::Deserialize)]
#[serde(rename_all = "kebab-case")]
struct Sources {
    allow_registry: Vec<String>,
}

#[test]
fn the_dependency_tree_obeys_deny_toml() {
    let text = std::fs::read_to_string(format!("{ROOT}/deny.toml")).expect("deny.toml");
    let rules: Rules = toml::from_str(&text).expect("deny.toml is well formed");
    let packages: Vec<Package> = rules.graph.targets.iter().flat_map(|target| tree(target)).collect();
    assert!(packages.len() > 100, "found only {} packages", packages.len());
    let found = violations(&rules, &packages);
    assert!(found.is_empty(), "\n{}\n", found.join("\n"));
}

#[test]
fn a_dependency_against_the_rules_is_caught() {
    let rules: Rules = toml::from_str(
        r#"
        graph.targets = []
        licenses.allow = ["MIT", "Zlib"]
        bans.deny = [
            { crate = "bad", reason = "it is bad" },
            { crate = "twice", reason = "one is enough", deny-multiple-versions = true },
        ]
        sources.allow-registry = ["https://registry"]
        "#,
    )
    .expect("rules");
    let package = |name: &str, version: &str, licence: &str, source: &str| Package {
        name: name.into(),
        version: version.into(),
        licence: licence.into(),
        source: Some(source.into()),
    };
    let packages = [
        package("fine", "1.0.0", "MIT OR GPL-3.0", "registry+https://registry"),
        package("copyleft", "1.0.0", "MIT AND GPL-3.0", "registry+https://registry"),
        package("bad", "1.0.0", "MIT", "registry+https://registry"),
        package("twice", "1.0.0", "MIT", "registry+https://registry"),
        package("twice", "2.0.0", "MIT", "registry+https://registry"),
        package("elsewhere", "1.0.0", "MIT", "git+https://somewhere"),
    ];
    assert_eq!(
        violations(&rules, &packages),
        [
            "`bad` is banned: it is bad",
            "`copyleft` 1.0.0: its licence `MIT AND GPL-3.0` is not allowed",
            "`elsewhere` 1.0.0 comes from `git+https://somewhere`",
            "`twice` in 2 versions: one is enough",
            "licence `Zlib` is allowed, and nothing needs it",
        ]
    );
}

#[test]
fn licence_expressions_are_understood() {
    let allowed = ["MIT", "ISC", "Apache-2.0 WITH LLVM-exception"].map(str::to_owned).into();
    let accepts = |text| needed(text, &allowed).is_some();
    for text in
        ["MIT", "MIT OR GPL-3.0", "GPL-3.0/MIT", "ISC AND (GPL-3.0 OR MIT)", "Apache-2.0 WITH LLVM-exception"]
    {
        assert!(accepts(text), "{text}");
    }
    for text in ["", "GPL-3.0", "MIT AND GPL-3.0", "(MIT OR ISC) AND GPL-3.0", "Apache-2.0", "MIT AND (MIT"] {
        assert!(!accepts(text), "{text}");
    }
}

fn violations(rules: &Rules, packages: &[Package]) -> Vec<String> {
    let mut found = BTreeSet::new();
    let mut versions: BTreeMap<&str, BTreeSet<&str>> = BTreeMap::new();
    let mut unneeded = rules.licenses.allow.clone();
    for Package { name, version, licence, source } in packages {
        versions.entry(name).or_default().insert(version);
        match needed(licence, &rules.licenses.allow) {
            Some(used) => unneeded.retain(|allowed| !used.contains(allowed)),
            None => drop(found.insert(format!("`{name}` {version}: its licence `{licence}` is not allowed"))),
        }
        let from = source.as_deref().map(|source| source.trim_start_matches("registry+"));
        if from.is_some_and(|from| !rules.sources.allow_registry.iter().any(|allowed| allowed == from)) {
            found
                .insert(format!("`{name}` {version} comes from `{}`", source.as_deref().unwrap_or_default()));
        }
    }
    for ban in &rules.bans.deny {
        let count = versions.get(ban.name.as_str()).map_or(0, BTreeSet::len);
        if count > 0 && !ban.deny_multiple_versions {
            found.insert(format!("`{}` is banned: {}", ban.name, ban.reason));
        } else if count > 1 {
            found.insert(format!("`{}` in {count} versions: {}", ban.name, ban.reason));
        }
    }
    found.extend(
        unneeded.into_iter().map(|licence| format!("licence `{licence}` is allowed, and nothing needs it")),
    );
    found.into_iter().collect()
}

/// The allowed licences that satisfy an SPDX expression, or `None` where they cannot.
fn needed(expression: &str, allowed: &BTreeSet<String>) -> Option<BTreeSet<String>> {
    let spaced =
        expression.replace('/', " OR ").replace('(', " ( ").replace(')', " ) ").replace(" WITH ", "+WITH+");
    let words: Vec<&str> = spaced.split_whitespace().collect();
    let mut rest = words.as_slice();
    let used = any_of(&mut rest, allowed);
    used.filter(|_| rest.is_empty())
}

/// `a OR b`: what the first acceptable alternative uses.
fn any_of(rest: &mut &[&str], allowed: &BTreeSet<String>) -> Option<BTreeSet<String>> {
    let mut used = all_of(rest, allowed);
    while let Some(("OR", after)) = rest.split_first().map(|(word, after)| (*word, after)) {
        *rest = after;
        let other = all_of(rest, allowed);
        used = used.or(other);
    }
    used
}

/// `a AND b`: what both use.
fn all_of(rest: &mut &[&str], allowed: &BTreeSet<String>) -> Option<BTreeSet<String>> {
    let mut used = one_of(rest, allowed);
    while let Some(("AND", after)) = rest.split_first().map(|(word, after)| (*word, after)) {
        *rest = after;
        let other = one_of(rest, allowed);
        used = used.zip(other).map(|(one, other)| &one | &other);
    }
    used
}

fn one_of(rest: &mut &[&str], allowed: &BTreeSet<String>) -> Option<BTreeSet<String>> {
    let (word, after) = rest.split_first()?;
    *rest = after;
    if *word == "(" {
        let used = any_of(rest, allowed);
        let (close, after) = rest.split_first()?;
        *rest = after;
        return used.filter(|_| *close == ")");
    }
    let licence = word.replace('+', " ");
    allowed.contains(&licence).then(|| BTreeSet::from([licence]))
}

/// What cargo says of the project for `target`, offline.
fn cargo(arguments: &[&str]) -> String {
    let output = Command::new(env!("CARGO"))
        .current_dir(ROOT)
        .args(arguments)
        .args(["--locked", "--offline"])
        .output()
        .expect("cargo runs");
    assert!(output.status.success(), "{}", String::from_utf8_lossy(&output.stderr));
    String::from_utf8_lossy(&output.stdout).into_owned()
}

/// The packages that a build for `target` uses, the project's own left out. `cargo metadata` alone would also name those
/// that only a feature that is off could bring in (`ring?/std`), so what it says is held against `cargo tree`.
fn tree(target: &str) -> Vec<Package> {
    let built = cargo(&["tree", "--target", target, "--all-features", "--prefix", "none", "--format", "{p}"]);
    let built: BTreeSet<(&str, &str)> = built
        .lines()
        .filter_map(|line| {
            let mut words = line.split(' ');
            Some((words.next()?, words.next()?.strip_prefix('v')?))
        })
        .collect();
    let metadata = cargo(&["metadata", "--format-version", "1", "--filter-platform", target]);
    let metadata: Value = serde_json::from_str(&metadata).expect("cargo speaks JSON");
    let list = |value: &Value| value.as_array().expect("an array").clone();
    let packages = list(&metadata["packages"]);
    let own = |package: &&Value| package["source"].is_null();
    let foreign = packages.iter().filter(|package| !own(package));
    foreign
        .map(|package| Package {
            name: text(&package["name"]),
            version: text(&package["version"]),
            licence: text(&package["license"]),
            source: package["source"].as_str().map(str::to_owned),
        })
        .filter(|package| built.contains(&(package.name.as_str(), package.version.as_str())))
        .collect()
}

fn text(value: &Value) -> String {
    value.as_str().unwrap_or_default().to_owned()
}
