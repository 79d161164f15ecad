//! Runs `docs/first-route.md` as its reader would: every `sh` block by the program itself on the broker, and what it prints
//! held against the `text` block that follows. Names of topics, the address and what differs by nature (digests, ids,
//! moments) are made equal first; topics are made as the page's commands say, without Kafka's scripts. Then the examples
//! of a producer and a worker, as `docs/workers.md` says.

mod page;
mod place;

use std::process::Command;

use serde_json::Value;

use crate::support::kafka::broker;
use page::{Block, alike, blocks};
use place::{Gate, Place, Started, TOPICS};

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
    assert_eq!(gate.expect("the page starts a gate").interrupt(), 0);
}

#[test]
fn the_examples_hand_work_from_gate_to_gate() {
    let Some(broker) = broker("the examples of a producer and a worker") else { return };
    let place = Place::new(broker);
    for Block { commands, .. } in blocks(TUTORIAL).iter().chain(&blocks(WORKERS)) {
        // The keys and tokens of both pages, and nothing that needs a gate.
        if commands.starts_with("countersign keys") {
            place.shell(commands);
        }
    }
    for Block { language, commands, .. } in blocks(WORKERS) {
        match language.as_str() {
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

    let producer =
        Started::new("producer", example("producer"), &[place.address(), "payments.commands", "."], &place);
    for invoice in ["inv-7", "inv-8", "inv-frozen"] {
        producer.wait_for(&format!("sent pay {invoice} to payments.commands/"));
    }
    let worker = Started::new(
        "worker",
        example("worker"),
        &[place.address(), "payments.authorized", "ledger.commands", "."],
        &place,
    );
    for invoice in ["inv-7", "inv-8"] {
        worker.wait_for(&format!(
            "paid {invoice} as spiffe://example.org/agent/payer asked for alice, by decision "
        ));
        worker.wait_for(&format!("sent book {invoice} to ledger.commands/"));
    }
    let tail = "countersign tail --config countersign.toml --from-beginning --format json --route";
    let outcomes = |route: &str, count: usize| -> Vec<Value> {
        let shown = place.shell(&format!("{tail} {route} --max {count}"));
        shown.lines().map(|line| serde_json::from_str(line).expect("an outcome")).collect()
    };
    // Both routes share a dead-letter topic, which holds one record, so each shows three outcomes.
    let mut of_payments = outcomes("payments", 3);
    of_payments.retain(|outcome| outcome["outcome"] == "denied");
    assert_eq!(of_payments.len(), 1, "{of_payments:?}");
    assert_eq!(
        (&of_payments[0]["reason"], &of_payments[0]["key"]),
        (&"forbidden".into(), &"inv-frozen".into())
    );
    // The second gate's permit needs the first sender, the second one's own identity and Alice's scope: the chain held.
    let mut booked = outcomes("ledger", 3);
    booked.retain(|outcome| outcome["outcome"] != "denied");
    assert_eq!(booked.len(), 2, "{booked:?}");
    booked.sort_by_key(|outcome| outcome["key"].to_string());
    for (outcome, invoice) in booked.iter().zip(["inv-7", "inv-8"]) {
        assert_eq!(outcome["outcome"], "forwarded", "{outcome}");
        assert_eq!(
            (&outcome["resource"]["id"], &outcome["action"]["name"]),
            (&invoice.into(), &"book".into())
        );
        assert_eq!(outcome["sender"], "spiffe://example.org/agent/bookkeeper");
        assert_eq!(outcome["earlier_senders"], serde_json::json!(["spiffe://example.org/agent/payer"]));
        assert_eq!(outcome["subject"], "alice");
    }
    assert!(!worker.log().contains("skipped"), "{}", worker.log());
    assert_eq!(gate.interrupt(), 0);
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
