//! Whatever breaks, a load goes on and is held against what came out: brokers and gates that die, stop and come back, topics that
//! are gone, disks that are full. Each test ends with the exact multiset of outcomes and audit records, under
//! `read_committed`, and the order of each key. Limits: `kill_nine`, `orphan`, `rebalance` and `undeliverable` stand beside it.

mod cluster;
mod gates;
mod one_broker;
mod storm;
mod topics;
mod unreadable;

use std::time::Duration;

use crate::gate::Dice;

/// How many faults the storm brings, and that what is long may be longer.
const FAULTS_VARIABLE: &str = "COUNTERSIGN_TEST_FAULTS";
/// Longer than a transaction may stay open (5 s), than a session (6 s), and than a broker may be silent in these clusters (4 s).
const LONG_STOP: Duration = Duration::from_secs(7);

/// How many faults are asked for, in the long form.
fn faults() -> Option<usize> {
    std::env::var(FAULTS_VARIABLE).ok()?.parse().ok()
}

fn pause(dice: &mut Dice, least_ms: u64, more_ms: u64) {
    std::thread::sleep(Duration::from_millis(least_ms + dice.below(more_ms)));
}
