//! A batch that is decided in any lane assignment gives the same outcomes and the same audit trees: partitions are dealt
//! to lanes, lanes run as threads over one engine, and each takes its partitions' records in an order and in batches of
//! its own.

use std::collections::BTreeMap;
use std::thread;

use countersign::authorize::merkle::Range;
use countersign::authorize::record::Record;
use countersign::authorize::replay::window_ms;
use countersign::authorize::route::Route;
use countersign::authorize::state::PartitionState;
use countersign::wire::outgoing::Effects;
use proptest::prelude::*;

use crate::forge::Plan;
use crate::gatehouse::{Gatehouse, routes};
use crate::hold;
use crate::made::plan;

/// Partitions, each with its records in their order.
type Records = BTreeMap<i32, Vec<Record>>;
/// What was written of a partition, and its tree after the last commit.
type Written = BTreeMap<i32, (Vec<Effects>, Range)>;

/// Plans as they stand in their partitions: offsets rise, and ids of proofs come again within and across partitions.
fn stand(plans: Vec<Plan>) -> Records {
    let mut records = Records::new();
    for plan in plans {
        let of = records.entry(plan.partition).or_default();
        of.push(Plan { offset: of.len() as i64, ..plan }.record());
    }
    records
}

/// What a lane does next: which of its partitions is taken from, whether the batch ends after it, and whether it is
/// aborted and done again.
#[derive(Debug, Clone, Copy)]
struct Turn {
    partition: prop::sample::Index,
    ends: bool,
    aborted: bool,
}

fn turn() -> impl Strategy<Value = Turn> {
    (any::<prop::sample::Index>(), prop::bool::weighted(0.3), prop::bool::weighted(0.3))
        .prop_map(|(partition, ends, aborted)| Turn { partition, ends, aborted })
}

/// One partition in a lane.
struct Owned<'r> {
    records: &'r [Record],
    state: PartitionState,
    committed: Vec<Effects>,
    open: Vec<Effects>,
}

impl Owned<'_> {
    fn decide_next(&mut self, house: &Gatehouse, route: &Route) {
        let Some(record) = self.records.get(self.committed.len() + self.open.len()) else { return };
        if self.open.is_empty() {
            self.state.begin();
        }
        let effects = house.decide(route, record, &mut self.state);
        self.open.push(effects);
    }

    fn end(&mut self, aborted: bool) {
        match (self.open.is_empty(), aborted) {
            (true, _) => {}
            (false, true) => {
                self.state.abort();
                self.open.clear();
            }
            (false, false) => {
                self.state.commit();
                self.committed.append(&mut self.open);
            }
        }
    }
}

/// A lane takes its partitions' records in the order of its turns, over and over until all are committed.
fn run_lane(house: &Gatehouse, route: &Route, own: &[(i32, &[Record])], turns: &[Turn]) -> Written {
    let owned = own.iter().map(|(partition, records)| {
        let state = PartitionState::new(window_ms(route));
        (*partition, Owned { records, state, committed: Vec::new(), open: Vec::new() })
    });
    let mut owned: Vec<_> = owned.collect();
    let mut rounds = 0;
    while owned.iter().any(|(_, of)| of.committed.len() < of.records.len()) {
        for turn in turns {
            turn.partition.get_mut(&mut owned).1.decide_next(house, route);
            if turn.ends {
                // Aborts come to an end, as they do on a broker.
                owned.iter_mut().for_each(|(_, of)| of.end(turn.aborted && rounds < 3));
            }
        }
        // Whatever the turns left out: one record of each partition in a batch.
        owned.iter_mut().for_each(|(_, of)| of.decide_next(house, route));
        owned.iter_mut().for_each(|(_, of)| of.end(false));
        rounds += 1;
    }
    owned.into_iter().map(|(partition, of)| (partition, (of.committed, of.state.tree().clone()))).collect()
}

/// Each lane in a thread of its own.
fn run(house: &Gatehouse, route: &Route, records: &Records, dealt: &[usize], turns: &[Vec<Turn>]) -> Written {
    let lanes = turns.iter().enumerate().map(|(lane, turns)| {
        let own: Vec<(i32, &[Record])> = records
            .iter()
            .zip(dealt)
            .filter(|(_, of)| **of == lane)
            .map(|((partition, records), _)| (*partition, records.as_slice()))
            .collect();
        (own, turns)
    });
    thread::scope(|scope| {
        let lanes: Vec<_> = lanes
            .filter(|(own, _)| !own.is_empty())
            .map(|(own, turns)| scope.spawn(move || run_lane(house, route, &own, turns)))
            .collect();
        lanes.into_iter().flat_map(|lane| lane.join().expect("a lane that ends")).collect()
    })
}

#[test]
fn any_assignment_of_partitions_to_lanes_gives_the_same_outcomes_and_trees() {
    const LANES: usize = 3;
    let plans = prop::collection::vec(plan(), 1..24);
    let dealt = prop::collection::vec(0..LANES, 4);
    let turns = prop::collection::vec(prop::collection::vec(turn(), 1..12), LANES);
    hold(150, (plans, 0..routes().len(), dealt, turns), |(plans, route, dealt, turns)| {
        let (records, route) = (stand(plans), &routes()[route]);
        // One lane that decides partition after partition, each record in a batch of its own; another engine, as cold.
        let house = Gatehouse::new();
        let alone: Written = records
            .iter()
            .flat_map(|(partition, records)| run_lane(&house, route, &[(*partition, records)], &[]))
            .collect();
        let dealt = run(&Gatehouse::new(), route, &records, &dealt, &turns);
        prop_assert_eq!(alone.keys().collect::<Vec<_>>(), dealt.keys().collect::<Vec<_>>());
        for (partition, (effects, tree)) in &alone {
            let (others, other) = &dealt[partition];
            prop_assert_eq!(effects, others, "partition {}", partition);
            prop_assert_eq!(tree, other, "the audit tree of partition {}", partition);
        }
        Ok(())
    });
}
