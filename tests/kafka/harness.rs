//! The test support itself: what it writes it reads back whole, and what it starts it ends.

use std::collections::BTreeSet;
use std::path::Path;
use std::time::{Duration, Instant};

use nix::sys::signal::Signal;
use rdkafka::Timestamp;

use crate::support::kafka::{NewRecord, Process, Record, Watched, broker};

#[test]
fn records_come_back_whole_and_in_order() {
    let Some(broker) = broker("records come back whole and in order") else { return };
    let topic = broker.create_topic("harness", 2, &[]);
    let odd = NewRecord {
        partition: Some(1),
        key: Some(b"key".to_vec()),
        value: None,
        headers: vec![("a".into(), Some(b"1".to_vec())), ("a".into(), None), ("b".into(), Some(Vec::new()))],
        timestamp: Some(1_700_000_000_000),
    };
    let plain = NewRecord { partition: Some(0), value: Some(b"value".to_vec()), ..NewRecord::default() };
    assert_eq!(broker.produce(&topic, &[odd.clone(), plain.clone(), plain]), [(1, 0), (0, 0), (0, 1)]);

    let records = broker.read_to_end(&topic);
    assert_eq!(places(&records), [(0, 0), (0, 1), (1, 0)]);
    assert_eq!(records[0].value.as_deref(), Some(&b"value"[..]));
    assert_eq!(records[0].key, None);
    let read = &records[2];
    assert_eq!((&read.key, &read.value, &read.headers), (&odd.key, &odd.value, &odd.headers));
    assert_eq!(read.timestamp, Timestamp::CreateTime(1_700_000_000_000));
    assert_eq!(read.header("a"), Some("1"));
    assert_eq!(read.header("absent"), None);
}

#[test]
fn settings_of_a_topic_take_effect() {
    let Some(broker) = broker("settings of a topic take effect") else { return };
    let topic = broker.create_topic("harness-log-append", 1, &[("message.timestamp.type", "LogAppendTime")]);
    broker.produce(
        &topic,
        &[NewRecord { value: Some(b"v".to_vec()), timestamp: Some(1), ..NewRecord::default() }],
    );
    let records = broker.read_to_end(&topic);
    assert!(
        matches!(records[0].timestamp, Timestamp::LogAppendTime(at) if at > 1),
        "{:?}",
        records[0].timestamp
    );
}

#[test]
fn many_records_over_many_partitions_are_all_counted() {
    let Some(broker) = broker("many records over many partitions are all counted") else { return };
    let topic = broker.create_topic("harness-many", 8, &[]);
    let record = |n: u32| NewRecord {
        key: Some(n.to_be_bytes().to_vec()),
        value: Some(vec![0; 100]),
        ..NewRecord::default()
    };
    let places = broker.produce(&topic, &(0..5_000).map(record).collect::<Vec<_>>());
    assert_eq!(places.iter().collect::<BTreeSet<_>>().len(), 5_000);
    assert_eq!(broker.count(&topic), 5_000);
    assert!(broker.committed(&broker.unique("nobody"), &topic).is_empty());
}

#[test]
fn what_the_tests_start_ends_with_them() {
    let dir = tempfile::tempdir().expect("a folder");
    let own = dir.path().join("own");
    std::fs::create_dir(&own).expect("a folder");
    let log = dir.path().join("log");
    let watched = Watched::start(&["sh", "-c", "echo $$; exec sleep 600"], &own, &log).expect("a shell");
    let process = wait_for(|| {
        let text = std::fs::read_to_string(&log).ok()?;
        text.ends_with('\n').then(|| Path::new("/proc").join(text.trim()))
    });
    assert!(process.exists());
    drop(watched);
    assert!(!process.exists(), "the program outlived its owner");
    assert!(!own.exists(), "the program's folder was left");
}

#[test]
fn what_stands_still_ends_with_the_tests_too() {
    let dir = tempfile::tempdir().expect("a folder");
    let own = dir.path().join("own");
    std::fs::create_dir(&own).expect("a folder");
    let process = Process::start(&["sleep", "600"], &own, &dir.path().join("log")).expect("a process");
    let pid = std::fs::read_to_string(own.join("pid")).expect("its id");
    let entry = Path::new("/proc").join(pid.trim());
    process.signal(Signal::SIGSTOP);
    wait_for(|| std::fs::read_to_string(entry.join("stat")).ok()?.contains(") T ").then_some(()));
    drop(process);
    assert!(!entry.exists(), "the program outlived its owner");
    assert!(!own.exists(), "the program's folder was left");
}

fn places(records: &[Record]) -> Vec<(i32, i64)> {
    records.iter().map(|record| (record.partition, record.offset)).collect()
}

fn wait_for<T>(mut found: impl FnMut() -> Option<T>) -> T {
    let deadline = Instant::now() + Duration::from_secs(10);
    loop {
        if let Some(found) = found() {
            return found;
        }
        assert!(Instant::now() < deadline, "waited in vain");
        std::thread::sleep(Duration::from_millis(5));
    }
}
