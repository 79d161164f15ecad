//! Two producers in turn: a batch is decided while the one before it is committed, and never happens without it.

use super::*;
use crate::authorize::limits::MAX_IN_HAND_BYTES;
use crate::stream::memory::Fault;

/// Sixteen records, which are four batches of one round, and what becomes of each commit.
fn one_round(commits: &[Option<Fault>]) -> (World, Lane<MemoryLog, Copier, ManualClock>) {
    let world = World::new();
    let mut lane = world.lane(1, Faults::none());
    world.cluster.assign(1, &world.sources());
    // It takes its partitions and is ready before anything is there.
    rounds(&mut lane, 20).unwrap();
    world.produce(0..16);
    lane.log.trace.borrow_mut().clear();
    lane.log.commits = commits.iter().copied().collect();
    (world, lane)
}

/// The calls of the seam, without those that only read.
fn calls(lane: &Lane<MemoryLog, Copier, ManualClock>) -> Vec<String> {
    let trace = lane.log.trace.borrow();
    let words = ["begin", "append", "hand over", "finish", "commit", "abort", "renew"];
    let named = |line: &&str| words.iter().any(|word| line.starts_with(word));
    let mut calls: Vec<String> = trace.lines().filter(named).map(str::to_owned).collect();
    calls.dedup();
    calls
}

#[test]
fn the_next_batch_is_decided_while_the_last_is_committed() {
    let (world, mut lane) = one_round(&[]);
    lane.round().unwrap();
    world.expect_exactly(16);
    let calls = calls(&lane);
    let handed: Vec<usize> = (0..calls.len()).filter(|at| calls[*at] == "hand over").collect();
    assert_eq!(handed.len(), 4, "{calls:?}");
    for pair in handed.windows(2) {
        let between = &calls[pair[0]..pair[1]];
        let finished = between.iter().position(|call| call == "finish").expect("it is finished");
        let decided = between.iter().position(|call| call.starts_with("append")).expect("it is decided");
        assert!(decided < finished, "{calls:?}");
    }
}

#[test]
fn what_comes_behind_a_failed_commit_never_happens() {
    for fault in [Fault::Abort, Fault::LostRequest, Fault::LostAnswer, Fault::Fenced] {
        // The first, the one in the middle, and the last of a round; and two in a row.
        for commits in [
            vec![Some(fault)],
            vec![None, Some(fault)],
            vec![None, None, None, Some(fault)],
            vec![Some(fault), Some(fault)],
        ] {
            let (world, mut lane) = one_round(&commits);
            lane.round().unwrap();
            let told: Vec<String> = calls(&lane);
            let failed = told.iter().position(|call| call.starts_with("commit Some")).expect("it fails");
            let ended =
                told[failed..].iter().position(|call| call.starts_with("abort") || call.starts_with("renew"));
            let after = &told[failed..failed + ended.unwrap_or(told.len() - failed)];
            assert!(!after.iter().any(|call| call == "hand over"), "{fault:?} {commits:?}: {told:?}");
            // What was committed by then is whole, and what was not is nowhere.
            let before = commits.iter().take_while(|fault| fault.is_none()).count();
            let happened = 4 * (before + usize::from(fault == Fault::LostAnswer));
            let visible: usize = (0..2).map(|n| world.cluster.read(&part("to", n)).len()).sum();
            assert_eq!(visible, happened, "{fault:?} {commits:?}: {told:?}");
            rounds(&mut lane, 40).unwrap();
            world.expect_exactly(16);
        }
    }
}

#[test]
fn large_records_are_not_taken_in_by_the_thousand() {
    let world = World::new();
    let mut lane = world.lane(1, Faults::none());
    world.cluster.assign(1, &world.sources());
    rounds(&mut lane, 20).unwrap();
    let third = MAX_IN_HAND_BYTES / 3 + 1;
    for n in 0..8 {
        world.cluster.produce(&part("from", 0), &vec![n; third]);
    }
    let copied = || world.cluster.read(&part("to", 0)).len();
    for expected in [3, 6, 8] {
        lane.round().unwrap();
        assert_eq!(copied(), expected, "three of them are what a lane takes in at once");
    }
}
