//! The commands that write and read control topics, each as a process against a real broker.

mod acknowledge;
mod challenge;
mod entity;
mod gates;
mod revoke;
mod workflow;

use std::process::Command;

use serde_json::Value;

use crate::gate::{Plan, Site};
use crate::support::kafka::Broker;

/// How a command ended.
struct Ended {
    code: i32,
    /// What it wrote to standard output, a JSON value a line.
    lines: Vec<Value>,
    error: String,
}

impl Ended {
    /// The one line that it wrote, after an end with `code`.
    fn one(self, code: i32) -> Value {
        assert_eq!(self.code, code, "{:?} {}", self.lines, self.error);
        assert_eq!(self.lines.len(), 1, "{:?} {}", self.lines, self.error);
        self.lines.into_iter().next().unwrap_or_default()
    }

    /// All lines, after an end with `code`.
    fn all(self, code: i32) -> Vec<Value> {
        assert_eq!(self.code, code, "{:?} {}", self.lines, self.error);
        self.lines
    }
}

/// A site whose configuration names control topics, and those topics by the key that names them.
fn site(broker: &'static Broker, keys: &[&str]) -> (Site, Vec<String>) {
    site_of(broker, Plan::default(), keys)
}

/// The same with a plan.
fn site_of(broker: &'static Broker, plan: Plan, keys: &[&str]) -> (Site, Vec<String>) {
    let site = Site::new(broker, plan);
    let topics: Vec<String> = keys
        .iter()
        .map(|key| {
            let compacted = [("cleanup.policy", "compact"), ("message.timestamp.type", "LogAppendTime")];
            broker.create_topic(&format!("control-{key}"), 3, &compacted)
        })
        .collect();
    let lines: String =
        keys.iter().zip(&topics).map(|(key, topic)| format!("{key} = \"{topic}\"\n")).collect();
    site.write("countersign.toml", &format!("{}\n[control]\n{lines}", site.read("countersign.toml")));
    (site, topics)
}

/// A site with an administrator, `keys/admin.jwk`, and one who is none, `keys/other.jwk`.
fn office(broker: &'static Broker, keys: &[&str]) -> (Site, Vec<String>) {
    office_of(broker, Plan::default(), keys)
}

/// The same with a plan.
fn office_of(broker: &'static Broker, plan: Plan, keys: &[&str]) -> (Site, Vec<String>) {
    let (site, topics) = site_of(broker, plan, keys);
    for name in ["admin", "other"] {
        let file = format!("keys/{name}.jwk");
        let public = key(&site, &file);
        site.write(&format!("trust/{name}.jwks"), &format!("{{\"keys\": [{public}]}}"));
    }
    let administrators = "[administrators]\nkeys = \"trust/admin.jwks\"\n";
    site.write("countersign.toml", &format!("{}\n{administrators}", site.read("countersign.toml")));
    (site, topics)
}

/// Makes a key and returns its public half.
fn key(site: &Site, file: &str) -> String {
    let made = Command::new(env!("CARGO_BIN_EXE_countersign"))
        .args(["keys", "new", "--out", file])
        .current_dir(site.path(""))
        .output()
        .expect("the program runs");
    assert!(made.status.success(), "{}", String::from_utf8_lossy(&made.stderr));
    String::from_utf8(made.stdout).expect("text")
}

/// Runs a command of the program in the site's folder, with JSON as its output.
fn run(site: &Site, arguments: &[&str]) -> Ended {
    let output = Command::new(env!("CARGO_BIN_EXE_countersign"))
        .args(["--format", "json"])
        .args(arguments)
        .args(["--config", "countersign.toml"])
        .current_dir(site.path(""))
        .output()
        .expect("the program runs");
    let text = String::from_utf8(output.stdout).expect("text");
    let lines = text.lines().map(|line| serde_json::from_str(line).expect("a JSON value a line")).collect();
    let error = String::from_utf8_lossy(&output.stderr).into_owned();
    Ended { code: output.status.code().expect("an exit code"), lines, error }
}
