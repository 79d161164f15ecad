//! A route that stops because of its denials, in a lane on the log in memory.

use super::*;
use crate::config::Share;
use crate::stream::clock::Clock as _;

const RETRY: Duration = Duration::from_secs(60);

fn world(retry: Option<Duration>) -> World {
    let share = Some(Share { percent: 90, of: 10 });
    let breaker = Some(BreakerSettings { run: Some(6), share, retry, probe: 2 });
    World { breaker, ..World::new() }
}

/// So many to each partition, all of them denied.
fn refuse(world: &World, values: std::ops::Range<usize>) {
    for n in values {
        world.sources().iter().for_each(|of| world.cluster.produce(of, format!("no {n}").as_bytes()));
    }
}

fn read(world: &World, name: &str) -> usize {
    (0..2).map(|partition| world.cluster.read(&part(name, partition)).len()).sum()
}

fn not_ready(world: &World) -> Vec<String> {
    let lines = world.telemetry.status().not_ready.into_iter();
    lines.filter(|line| line.contains("route `r`")).collect()
}

/// A lane that has met the first of forty denials, and has stopped.
fn stopped(world: &World) -> Lane<MemoryLog, Copier, ManualClock> {
    refuse(world, 0..20);
    let mut lane = world.lane(1, Faults::none());
    world.cluster.assign(1, &world.sources());
    rounds(&mut lane, 60).unwrap();
    lane
}

#[test]
fn a_route_that_denies_everything_stops_within_two_transactions_of_its_bound() {
    let world = world(None);
    let mut lane = stopped(&world);
    let denied = read(&world, "denied");
    // The second was decided while the first, which reaches the bound, was being committed.
    assert!((6..6 + 2 * 4).contains(&denied), "{denied} of 40: six in a row, in transactions of four");
    assert!(not_ready(&world)[0].contains("denied"), "{:?}", world.telemetry.status().not_ready);
    rounds(&mut lane, 60).unwrap();
    assert_eq!(read(&world, "denied"), denied, "and denies no more");
    assert_eq!(read(&world, "audit"), denied, "each of them audited");
}

#[test]
fn after_a_while_a_few_are_tried_and_it_goes_on_once_they_are_not_denied() {
    let world = world(Some(RETRY));
    let mut lane = stopped(&world);
    let before = read(&world, "denied");
    world.clock.sleep(RETRY);
    rounds(&mut lane, 60).unwrap();
    assert_eq!(read(&world, "denied"), before + 2, "as many as are tried");
    assert_eq!(not_ready(&world).len(), 1, "they were denied too");

    // Whoever sent what is denied has been found: what comes then is good.
    let mut tried = 0;
    while read(&world, "denied") < 40 {
        tried += 1;
        assert!(tried < 100, "it goes on by itself");
        world.clock.sleep(RETRY);
        rounds(&mut lane, 60).unwrap();
    }
    world.produce(0..40);
    world.clock.sleep(RETRY);
    rounds(&mut lane, 200).unwrap();
    assert!(not_ready(&world).is_empty(), "{:?}", not_ready(&world));
    assert_eq!((read(&world, "to"), read(&world, "denied"), read(&world, "audit")), (40, 40, 80));
}

#[test]
fn somebody_can_ask_it_to_try_again() {
    let world = world(None);
    let mut lane = stopped(&world);
    let before = read(&world, "denied");
    world.try_again.ask();
    rounds(&mut lane, 60).unwrap();
    assert_eq!(read(&world, "denied"), before + 2);
    world.clock.sleep(RETRY * 100);
    rounds(&mut lane, 60).unwrap();
    assert_eq!(read(&world, "denied"), before + 2, "once for each time that somebody asks");
}

/// Whatever fails while it stops and tries again, every record is decided exactly once, in the order of its partition.
#[test]
fn nothing_is_lost_doubled_or_overtaken_by_a_route_that_stops_and_goes_on() {
    let mut stops = 0;
    for seed in 0..200 {
        // Tried after a while, or at once.
        let world = world(Some(if seed % 2 == 0 { RETRY } else { Duration::ZERO }));
        let mut lane = world.lane(1, Faults::seeded(seed, 40));
        world.cluster.assign(1, &world.sources());
        // Denials, then some that are good, then denials again, to each partition.
        refuse(&world, 0..8);
        world.produce(0..16);
        refuse(&world, 8..20);
        rounds(&mut lane, 60).unwrap();
        stops += not_ready(&world).len();
        lane.log.faults = Faults::seeded(seed + 1, 40);
        for _ in 0..60 {
            world.clock.sleep(RETRY);
            rounds(&mut lane, 20).unwrap();
        }
        lane.log.faults = Faults::none();
        for _ in 0..60 {
            world.clock.sleep(RETRY);
            rounds(&mut lane, 20).unwrap();
        }
        for partition in 0..2 {
            let denied = world.cluster.read(&part("denied", partition));
            let values: Vec<_> = denied.into_iter().map(|record| record.value.unwrap()).collect();
            let expected: Vec<_> = (0..20).map(|n| Bytes::from(format!("no {n}"))).collect();
            assert_eq!(values, expected, "seed {seed}");
            let good = world.cluster.read(&part("to", partition));
            let values: Vec<_> = good.into_iter().map(|record| record.value.unwrap()).collect();
            let expected: Vec<_> = (0..8).map(|n| Bytes::from(format!("v{}", 2 * n + partition))).collect();
            assert_eq!(values, expected, "seed {seed}");
        }
        assert_eq!(read(&world, "audit"), 56, "seed {seed}");
    }
    assert!(stops > 50, "the route seldom stopped: {stops}");
}
