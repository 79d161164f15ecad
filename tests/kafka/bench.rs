//! The bench on a real cluster: every mode runs, every row is there, and no record is lost or doubled by being measured.
//! Limits: how fast anything is says nothing here; that is for a machine that does nothing else.

use std::process::Command;
use std::time::Duration;

use rdkafka::config::ClientConfig;
use rdkafka::consumer::{BaseConsumer, Consumer};
use serde_json::Value;

use crate::gate::alone;
use crate::support::kafka::{Broker, broker};

/// Everybody who is measured, in the order of the table.
const ROWS: [&str; 9] = [
    "copy-at-least-once",
    "copy",
    "copy-in-turn",
    "copy-audit",
    "copy-proven",
    "gate-bare",
    "gate-unproven",
    "gate-proven",
    "gate-transactions",
];

/// Runs the bench on the broker of the suite, with small figures, and gives what it wrote to the terminal and to its file.
fn bench(broker: &Broker, arguments: &[&str]) -> (String, Value) {
    let folder = tempfile::tempdir().expect("a folder");
    let file = folder.path().join("figures.json");
    let ran = Command::new(env!("CARGO_BIN_EXE_countersign"))
        .arg("bench")
        .args([
            "--kafka",
            broker.bootstrap(),
            "--batch",
            "100",
            "--rounds",
            "1",
            "--policies",
            "20",
            "--json",
        ])
        .arg(&file)
        .args(arguments)
        .output()
        .expect("the program runs");
    let (said, errors) = (String::from_utf8_lossy(&ran.stdout), String::from_utf8_lossy(&ran.stderr));
    assert_eq!(ran.status.code(), Some(0), "{arguments:?}\n{said}\n{errors}");
    let figures = std::fs::read(&file).expect("the file that was asked for");
    (said.into_owned(), serde_json::from_slice(&figures).expect("JSON"))
}

/// Whether nothing of a bench is left on the broker, in time.
fn is_clean(broker: &Broker) -> bool {
    let consumer: BaseConsumer =
        ClientConfig::new().set("bootstrap.servers", broker.bootstrap()).create().expect("a client");
    (0..100).any(|_| {
        let metadata = consumer.fetch_metadata(None, Duration::from_secs(10)).expect("metadata");
        let left = metadata.topics().iter().any(|topic| topic.name().starts_with("countersign-bench-"));
        if left {
            std::thread::sleep(Duration::from_millis(100));
        }
        !left
    })
}

fn positive(figure: &Value) -> bool {
    figure.as_f64().is_some_and(|figure| figure > 0.0)
}

#[test]
fn everybody_has_a_row_and_every_record_that_was_measured_has_its_one_outcome() {
    let Some(broker) = broker("the bench measures everybody and loses nothing") else { return };
    let _alone = alone();
    let (table, figures) = bench(broker, &["--records", "600", "--seconds", "0.3"]);
    let rows = figures["rows"].as_array().expect("rows");
    let names: Vec<&str> = rows.iter().filter_map(|row| row["contestant"].as_str()).collect();
    assert_eq!(names, ROWS);
    for title in ["copy, at least once", "gate, unproven senders", "gate, full proofs"] {
        assert!(table.lines().any(|line| line.starts_with(title)), "{table}");
    }
    for row in rows {
        let name = &row["contestant"];
        // The system counts hundredths of a second, which so few records may not take.
        let cpu = row["cpu_us"]["median"].as_f64();
        assert!(positive(&row["per_second"]["median"]) && cpu.is_some_and(|cpu| cpu >= 0.0), "{row}");
        for pace in ["full", "half", "tenth"] {
            let (half, most) = (&row[pace]["p50_ms"]["median"], &row[pace]["p99_ms"]["median"]);
            assert!(positive(half) && half.as_f64() <= most.as_f64(), "{name}, {pace}: {half} and {most}");
        }
    }
    let turns = figures["turns"].as_array().expect("turns");
    assert_eq!(turns.len(), ROWS.len());
    for turn in turns {
        let records = turn["records"].as_u64().expect("a count");
        assert!(records > 600, "{turn}");
        assert_eq!(turn["came_out"], records, "{turn}");
        assert!(turn["surplus"] == 0 || turn["contestant"] == "copy-at-least-once", "{turn}");
        let audits = turn["contestant"] == "copy-audit"
            || turn["contestant"].as_str().unwrap_or("").starts_with("gate");
        assert_eq!(turn["audited"].as_u64(), audits.then_some(records), "{turn}");
    }
    assert!(positive(&figures["signatures"]["verify_us"]) && positive(&figures["signatures"]["sign_us"]));
    assert!(
        figures["gap"]["gap_us"].is_f64() && figures["aims"].as_array().is_some_and(|aims| aims.len() >= 5)
    );
    assert!(is_clean(broker), "topics of the bench are left");
}

#[test]
fn the_curve_of_lanes_and_gates_has_a_point_for_each_shape() {
    let Some(broker) = broker("the bench draws a curve") else { return };
    let _alone = alone();
    let (table, figures) = bench(broker, &["scaling", "--records", "600", "--only", "gate-unproven"]);
    let points = figures["points"].as_array().expect("points");
    let shapes: Vec<(u64, u64)> = points
        .iter()
        .filter(|point| point["contestant"] == "gate-unproven" && positive(&point["speed"]["per_second"]))
        .filter_map(|point| Some((point["gates"].as_u64()?, point["lanes"].as_u64()?)))
        .collect();
    assert_eq!(shapes.len(), points.len(), "{figures}");
    for shape in [(1, 1), (1, 2), (2, 1), (3, 1)] {
        assert!(shapes.contains(&shape), "{shapes:?}");
    }
    assert!(table.contains("3 x 1 lane(s)"), "{table}");
    assert!(is_clean(broker), "topics of the bench are left");
}

#[test]
fn what_stands_when_gates_come_and_go_is_told_for_every_event_and_nothing_is_lost() {
    let Some(broker) = broker("the bench measures how gates come back") else { return };
    let _alone = alone();
    let (table, figures) = bench(broker, &["come-back", "--pace", "100"]);
    assert_eq!(figures["exact"], true);
    let stood = figures["stood"].as_array().expect("what stood");
    let events: Vec<&str> = stood.iter().filter_map(|one| one["event"].as_str()).collect();
    let all =
        ["start", "join", "terminate", "kill-beside-another", "kill-and-restart", "terminate-and-restart"];
    assert_eq!(events, all);
    assert!(stood.iter().all(|one| positive(&one["seconds"])), "{figures}");
    assert_eq!(table.lines().count(), 1 + all.len(), "{table}");
    assert!(is_clean(broker), "topics of the bench are left");
}

#[test]
fn the_size_of_a_gate_is_told_for_every_second() {
    let Some(broker) = broker("the bench watches the size of a gate") else { return };
    let _alone = alone();
    let (table, figures) = bench(broker, &["memory", "--for", "4", "--pace", "500"]);
    assert_eq!(figures["exact"], true);
    let [watched] = figures["watched"].as_array().expect("runs").as_slice() else {
        panic!("a broker that was given cannot be slowed down: {figures}")
    };
    let resident = watched["resident"].as_array().expect("sizes");
    assert_eq!(resident.len(), 4);
    assert!(resident.iter().all(positive) && positive(&watched["decided"]), "{watched}");
    assert!(table.contains("a long run"), "{table}");
    assert!(is_clean(broker), "topics of the bench are left");
}
