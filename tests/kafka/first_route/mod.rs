//! Runs `docs/first-route.md` as its reader would: every `sh` block by the program itself on the broker, and what it prints
//! held against the `text` block that follows. Names of topics, the address and what differs by nature (digests, ids,
//! moments) are made equal first; topics are made as the page's commands say, without Kafka's scripts. Then the README's
//! commands, and the examples of a producer and a worker, as `docs/workers.md` says.

mod page;
mod place;

use std::process::Command;

use serde_json::Value;

use crate::support::kafka::broker;
use page::{Block, alike, blocks};
use place::{Gate, Place, Started, TOPICS};

const README: &str = include_str!("../../../README.md");
const TUTORIAL: &str = include_str!("../../../docs/first-route.md");
const WORKERS: &str = include_str!("../../../docs/workers.md");

#[test]
fn first_route() {
    let Some(broker) = broker("the first route of the documentation") else { return };
    let place = Place::new(broker);
    let (mut gate, mut before) = (None, String::new());
    let mut ran = 0;
    for Block { commands, printed, .. } in blocks(TUTORIAL).into_iter().filter(|block| block.language == "sh")
    {
        if commands == "countersign run" {
            let started = Gate::start(&place);
            started.wait_for(&printed);
            gate = Some(started);
        } else if commands.starts_with("kafka-topics.sh") {
            for command in commands.lines() {
                assert!(before.contains(command), "`check --online` does not say `{command}` but\n{before}");
                place.make_topic(command);
            }
        } else {
            let found = place.shell(&commands);
            assert_eq!(alike(&found), alike(&printed), "\nof `{commands}`, which printed\n{found}");
            before = found;
        }
        ran += 1;
    }
    assert!(ran >= 10, "the page has {ran} blocks to run");
    gate.expect("the page starts a gate").terminate();
}

/// The README's commands, then the examples: three pieces of work for the first route, handed on to a second one.
#[test]
fn the_readme_and_the_examples_hand_work_from_gate_to_gate() {
    let Some(broker) = broker("the README's commands and the examples") else { return };
    let place = Place::new(broker);
    let readme = blocks(README);
    let start = |begin: &str| {
        let found = readme.iter().find(|block| block.commands.contains(begin));
        &found.unwrap_or_else(|| panic!("the README has no `{begin}`")).commands
    };
    let keys = start("countersign keys trust-domain");
    place.shell(keys.lines().find(|line| line.starts_with("countersign keys")).expect("a command"));
    for Block { language, commands, .. } in blocks(WORKERS) {
        match language.as_str() {
            "sh" => drop(place.shell(&commands)),
            "toml" => place.append("countersign.toml", &commands),
            "cedar" => place.append("policies/ledger.cedar", &commands),
            "cedarschema" => place.append("policies/schema.cedarschema", &commands),
            _ => {}
        }
    }
    for topic in TOPICS {
        place.make_topic(&format!(
            "--topic {topic} --partitions 3 --config message.timestamp.type=LogAppendTime"
        ));
    }
    let gate = Gate::start(&place);

    let tail = "countersign tail --config countersign.toml --from-beginning";
    let shown = place.shell(&start("countersign token txn").replace(tail, &format!("{tail} --max 1")));
    assert!(shown.contains("forwarded   payments.authorized/"), "{shown}");

    let arguments = [place.address(), "payments.commands", "."];
    let producer = Started::new("producer", &example("producer"), &arguments, &place);
    for invoice in ["inv-7", "inv-8", "inv-frozen"] {
        producer.wait_for(&format!("sent pay {invoice} to payments.commands/"));
    }
    let arguments = [place.address(), "payments.authorized", "ledger.commands", "."];
    let worker = Started::new("worker", &example("worker"), &arguments, &place);
    for invoice in ["inv-7", "inv-8"] {
        let asked = "as spiffe://example.org/agent/payer asked for alice, by decision";
        worker.wait_for(&format!("paid {invoice} {asked} "));
        worker.wait_for(&format!("sent book {invoice} to ledger.commands/"));
    }

    // The two routes share a dead-letter topic, which holds one record, so each shows four outcomes.
    let outcomes = |route: &str, outcome: &str| -> Vec<Value> {
        let shown = place.shell(&format!("{tail} --format json --route {route} --max 4"));
        let all = shown.lines().map(|line| serde_json::from_str::<Value>(line).expect("an outcome"));
        all.filter(|found| found["outcome"] == outcome).collect()
    };
    let denied = outcomes("payments", "denied");
    assert_eq!(denied.len(), 1, "{denied:?}");
    assert_eq!((&denied[0]["reason"], &denied[0]["key"]), (&"forbidden".into(), &"inv-frozen".into()));
    // The second gate's permit needs the first sender, the second one's own identity and Alice's scope: the chain held.
    let booked = outcomes("ledger", "forwarded");
    let mut invoices: Vec<&str> = booked.iter().filter_map(|outcome| outcome["key"].as_str()).collect();
    invoices.sort_unstable();
    assert_eq!(invoices, ["inv-7", "inv-7", "inv-8"]);
    for outcome in &booked {
        assert_eq!(
            (&outcome["resource"]["id"], &outcome["action"]["name"]),
            (&outcome["key"], &"book".into())
        );
        assert_eq!(outcome["sender"], "spiffe://example.org/agent/bookkeeper");
        assert_eq!(outcome["earlier_senders"], serde_json::json!(["spiffe://example.org/agent/payer"]));
        assert_eq!(outcome["subject"], "alice");
    }
    assert!(!worker.log().contains("skipped"), "{}", worker.log());
    gate.terminate();
}

#[test]
fn the_readmes_route_is_the_example() {
    let readme = blocks(README).into_iter().find(|block| block.language == "toml").expect("a configuration");
    let example = include_str!("../../../examples/first-route/countersign.toml");
    let read = |text: &str| text.parse::<toml::Table>().expect("TOML");
    assert_eq!(read(&readme.commands), read(example));
}

/// The program of an example; built by this if the tests were built without it.
fn example(name: &str) -> String {
    let mut build = Command::new(env!("CARGO"));
    build.args(["build", "--quiet", "--locked", "--example", name]).current_dir(env!("CARGO_MANIFEST_DIR"));
    if !cfg!(debug_assertions) {
        build.arg("--release");
    }
    assert!(build.status().expect("cargo runs").success(), "the example `{name}` does not build");
    let tests = std::env::current_exe().expect("a path");
    let profile = tests.parent().and_then(|deps| deps.parent()).expect("a build folder");
    profile.join("examples").join(name).to_str().expect("a path that is text").to_owned()
}
