//! Whatever breaks, a load goes on and is held against what came out: brokers and gates that die, stop and come back, topics that
//! are gone, disks that are full. Each test ends with the exact multiset of outcomes and audit records, under
//! `read_committed`, and the order of each key. Limits: `kill_nine`, `orphan` and `rebalance` stand beside it.

mod cluster;

use std::time::Duration;

/// Longer than a transaction may stay open (5 s) and than a broker may be silent in these clusters (4 s).
const LONG_STOP: Duration = Duration::from_secs(7);
