//! Where a partition goes on: at its committed position, if that is a gate's own, is settled and lies within its topic.

use std::time::Duration;

use super::*;
use crate::stream::clock::Clock as _;

#[test]
fn a_first_start_begins_where_the_route_says_and_never_again() {
    let mut world = World::new();
    world.start = Start::Latest;
    world.produce(0..10);
    let mut lane = world.lane(1, Faults::none());
    world.cluster.assign(1, &world.sources());
    rounds(&mut lane, 10).unwrap();
    assert!(world.cluster.read(&part("to", 0)).is_empty());
    // The start was committed: a successor does not choose again.
    world.produce(10..12);
    let mut second = world.lane(2, Faults::none());
    world.cluster.kill(1, 2);
    rounds(&mut second, 10).unwrap();
    assert_eq!(world.cluster.read(&part("to", 0)).len(), 1);
}

#[test]
fn a_position_that_is_gone_is_looked_for_and_then_refused() {
    let moved = |position| {
        let world = World::new();
        world.produce(0..4);
        let mut first = world.lane(1, Faults::none());
        world.cluster.assign(1, &world.sources());
        rounds(&mut first, 10).unwrap();
        world.cluster.set_position(&part("from", 0), position);
        let mut second = world.lane(2, Faults::none());
        world.cluster.kill(1, 2);
        rounds(&mut second, 2_000).unwrap();
        assert_eq!(world.cluster.read(&part("to", 0)).len(), 2, "nothing was decided twice");
        world.state(2)
    };
    let (state, reason) = moved(None);
    assert_eq!(state, LaneState::Paused);
    assert!(reason.contains("its committed position is gone") && reason.contains("`replay`"), "{reason}");
    // A tool that resets offsets leaves no metadata, so proofs and tree would be lost.
    let (state, reason) = moved(Some((Position(0), String::new())));
    assert_eq!(state, LaneState::Paused);
    assert!(reason.contains("committed by something else"), "{reason}");
    let (_, reason) = moved(Some((Position(0), "cs1.???".into())));
    assert!(reason.contains("does not read"), "{reason}");
}

#[test]
fn a_person_may_choose_where_a_partition_begins_before_its_first_start() {
    let world = World::new();
    world.produce(0..10);
    world.cluster.set_position(&part("from", 0), Some((Position(3), String::new())));
    let mut lane = world.lane(1, Faults::none());
    world.cluster.assign(1, &world.sources());
    rounds(&mut lane, 10).unwrap();
    assert_eq!(world.cluster.read(&part("to", 0)).len(), 2);
}

#[test]
fn a_position_past_the_end_belongs_to_another_topic() {
    let world = World::new();
    let checkpoint = Checkpoint { writers: vec!["w".into()], ..Checkpoint::default() };
    world.cluster.set_position(&part("from", 0), Some((Position(99), checkpoint.encode().unwrap())));
    let mut lane = world.lane(1, Faults::none());
    world.cluster.assign(1, &world.sources());
    rounds(&mut lane, 10).unwrap();
    let (state, reason) = world.state(1);
    assert_eq!(state, LaneState::Paused);
    assert!(reason.contains("past the end"), "{reason}");
}

#[test]
fn a_position_that_nobody_settles_holds_back_its_own_partition_alone_and_is_told() {
    let world = World::new();
    world.produce(0..4);
    let mut first = world.lane(1, Faults::none());
    world.cluster.assign(1, &world.sources());
    rounds(&mut first, 10).unwrap();
    let stuck = part("from", 0);
    world.cluster.unsettle(&stuck, true);
    world.produce(4..6);
    let mut second = world.lane(2, Faults::none());
    world.cluster.kill(1, 2);
    let mut until = |at: Duration| {
        while world.clock.elapsed() < at {
            second.round().unwrap();
        }
        world.state(2)
    };
    let began = world.clock.elapsed();
    let (state, _) = until(began + Duration::from_secs(10));
    assert_eq!(state, LaneState::Restoring);
    assert_eq!(world.cluster.read(&part("to", 1)).len(), 3, "the other partition goes on");
    let (state, reason) = until(began + Duration::from_secs(70));
    assert_eq!(state, LaneState::Paused);
    assert!(reason.contains("of from/0 is held back by a transaction that nobody ends"), "{reason}");
    assert!(reason.contains("(writer-1-a, writer-1-b)"), "{reason}");
    assert_eq!(world.cluster.read(&part("to", 0)).len(), 2);
    world.cluster.unsettle(&stuck, false);
    let (state, _) = until(began + Duration::from_secs(80));
    assert_eq!(state, LaneState::Running);
    world.expect_exactly(6);
}
