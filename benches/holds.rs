//! Memory and time of held records: bytes of an index entry, and how long the states of a partition take to read back.
//! Limits: resident memory as the kernel counts it, so it wants many entries; no Kafka.

use std::time::Instant;

use bytes::Bytes;
use countersign::authorize::ids::{Coordinates, Offset, Partition, Topic, UnixMillis};
use countersign::authorize::record::{Record, TimestampType};
use countersign::authorize::state::PartitionState;
use countersign::stream::decider::Remembered as _;

fn main() {
    for count in [100_000, 1_000_000] {
        measure(count);
    }
}

fn measure(count: i64) {
    let topic = Topic::parse("payments.commands.holds").expect("a legal topic");
    let record = |at: i64, key: String, value: String| Record {
        source: Coordinates { topic: topic.clone(), partition: Partition(0), offset: Offset(at) },
        timestamp: None,
        timestamp_type: TimestampType::NotAvailable,
        key: Some(Bytes::from(key)),
        value: Some(Bytes::from(value)),
        headers: Vec::new(),
    };
    let mut state = PartitionState::new(360_000);
    let (before, began) = (resident(), Instant::now());
    let mut read = 0_usize;
    for n in 0..count {
        // A payload is a record of a kilobyte and its tokens; only where it stands is kept.
        let payload = record(2 * n, format!("0/{n}/payload"), "x".repeat(4096));
        let held = format!(
            "{{\"v\":1,\"of\":{{\"key\":null,\"wait\":{{\"Answers\":{{\"challenge\":\"0190a6c0-0000-7000-8000-{n:012x}\",\
             \"status\":\"open\",\"asked_at\":{n},\"until\":{},\"approvals\":1,\"reminders\":0,\"answers\":[]}}}}}}}}",
            n + 1_800_000
        );
        read += 4096 + held.len();
        let held = record(2 * n + 1, format!("0/{n}/state"), held);
        for record in [payload, held] {
            state.load_hold(&record).expect("a state that reads");
        }
    }
    let took = began.elapsed();
    let bytes = resident().saturating_sub(before);
    assert_eq!(state.held(), usize::try_from(count).expect("a count"));
    let due = Instant::now();
    assert_eq!(state.due(UnixMillis(i64::MAX), UnixMillis(i64::MAX), 500).len(), 500);
    println!(
        "{count} held: {} bytes an entry; {} MB of holds taken in within {took:?}; 500 due found in {:?}",
        bytes / u64::try_from(count).expect("a count"),
        read / 1_000_000,
        due.elapsed()
    );
}

/// Resident memory of this process, in bytes.
fn resident() -> u64 {
    let pages = std::fs::read_to_string("/proc/self/statm").expect("Linux");
    let pages: u64 = pages.split(' ').nth(1).and_then(|pages| pages.parse().ok()).expect("a number of pages");
    pages * 4096
}
