//! The demo's story on a real cluster: exactly once, and nothing of it left behind.

use std::process::Command;
use std::time::Duration;

use rdkafka::config::ClientConfig;
use rdkafka::consumer::{BaseConsumer, Consumer};
use serde_json::Value;

use crate::support::kafka::broker;

#[test]
fn the_demo_tells_its_story_on_a_real_cluster_exactly_once() {
    let Some(broker) = broker("the demo tells its story on a real cluster exactly once") else { return };
    let ran = Command::new(env!("CARGO_BIN_EXE_countersign"))
        .args(["demo", "--json", "--messages", "400", "--bootstrap", broker.bootstrap()])
        .output()
        .unwrap();
    let errors = String::from_utf8_lossy(&ran.stderr);
    assert_eq!((ran.status.code(), &*errors), (Some(0), ""), "{}", String::from_utf8_lossy(&ran.stdout));
    let totals: Value = serde_json::from_slice(&ran.stdout).unwrap();
    assert_eq!((&totals["sent"], &totals["audited"]), (&442.into(), &465.into()));
    assert_eq!((&totals["forwarded"], &totals["denied"]), (&296.into(), &146.into()));
    assert_eq!(
        (&totals["held"], &totals["answers"], &totals["questions"]),
        (&4.into(), &6.into(), &13.into())
    );
    assert_eq!(totals["by_reason"]["replayed"], 2);
    assert_eq!(totals["by_reason"]["step_up_timed_out"], 1);

    let consumer: BaseConsumer =
        ClientConfig::new().set("bootstrap.servers", broker.bootstrap()).create().unwrap();
    let left = || {
        let metadata = consumer.fetch_metadata(None, Duration::from_secs(10)).unwrap();
        let names = metadata.topics().iter().map(|topic| topic.name().to_owned());
        names.filter(|name| name.starts_with("countersign-demo-")).collect::<Vec<_>>()
    };
    let gone = (0..100).any(|_| {
        left().is_empty() || {
            std::thread::sleep(Duration::from_millis(100));
            false
        }
    });
    assert!(gone, "{:?}", left());
}
