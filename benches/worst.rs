//! What the worst records cost a gate, beside a good one: the whole decision with its audit record and its outcome as
//! bytes, with a cold and with a warm cache of tokens. `cargo bench --bench worst` prints the worst of the vectors and of
//! records made to be costly, each as a ratio to a good record of about its size. Limits: one thread and no Kafka; without
//! `--bench`, as in the tests, each record is decided once.

#[path = "worst/costly.rs"]
mod costly;
#[path = "../tests/support/forge.rs"]
mod forge;
#[path = "../tests/support/gatehouse.rs"]
mod gatehouse;
#[path = "../tests/support/vectors.rs"]
mod vectors;

use std::hint::black_box;
use std::time::{Duration, Instant};

use countersign::authorize::record::Record;
use countersign::authorize::replay::window_ms;
use countersign::authorize::route::Route;
use countersign::authorize::state::PartitionState;
use countersign::wire::outgoing::Effects;

/// What decides.
trait Decides {
    fn forget(&mut self);
    fn decide(&self, route: &Route, record: &Record, state: &mut PartitionState) -> Effects;
}

impl Decides for gatehouse::Gatehouse {
    fn forget(&mut self) {
        self.forget();
    }
    fn decide(&self, route: &Route, record: &Record, state: &mut PartitionState) -> Effects {
        self.decide(route, record, state)
    }
}

impl Decides for vectors::World {
    fn forget(&mut self) {
        self.forget();
    }
    fn decide(&self, route: &Route, record: &Record, state: &mut PartitionState) -> Effects {
        self.decide(route, record, state)
    }
}

/// What a record costs.
#[derive(Clone, Copy)]
struct Cost {
    cold: Duration,
    warm: Duration,
}

/// The median of decisions with a cold cache, and of decisions right after another.
fn cost(house: &mut dyn Decides, route: &Route, record: &Record, runs: usize) -> Cost {
    let once = |house: &dyn Decides| {
        let mut state = PartitionState::new(window_ms(route));
        let began = Instant::now();
        black_box(house.decide(route, black_box(record), &mut state));
        began.elapsed()
    };
    // A record that takes long needs fewer runs for a steady median.
    house.forget();
    let first = once(house).max(Duration::from_micros(1));
    let budget = usize::try_from(Duration::from_millis(400).as_micros() / first.as_micros()).unwrap_or(1);
    let runs = runs.min(budget.max(5));
    let median = |mut times: Vec<Duration>| {
        times.sort_unstable();
        times[times.len() / 2]
    };
    let cold = (0..runs).map(|_| {
        house.forget();
        once(house)
    });
    let cold = median(cold.collect());
    let warm = median((0..runs).map(|_| once(house)).collect());
    Cost { cold, warm }
}

fn line(name: &str, record: &Record, cost: Cost, good: Cost) {
    let ratio = |one: Duration, other: Duration| one.as_secs_f64() / other.as_secs_f64();
    println!(
        "{name:<64} {:>8} B  cold {:>10.1} us {:>7.2}x  warm {:>10.1} us {:>7.2}x",
        size(record),
        cost.cold.as_secs_f64() * 1e6,
        ratio(cost.cold, good.cold),
        cost.warm.as_secs_f64() * 1e6,
        ratio(cost.warm, good.warm),
    );
}

fn size(record: &Record) -> usize {
    let bytes = |bytes: &Option<bytes::Bytes>| bytes.as_ref().map_or(0, bytes::Bytes::len);
    let headers: usize = record.headers.iter().map(|header| header.name.len() + bytes(&header.value)).sum();
    bytes(&record.key) + bytes(&record.value) + headers
}

/// The program's.
#[global_allocator]
static ALLOCATOR: mimalloc::MiMalloc = mimalloc::MiMalloc;

fn main() {
    let runs = if std::env::args().any(|argument| argument == "--bench") { 400 } else { 1 };

    println!("vectors, beside `plain`:");
    let mut world = vectors::World::read();
    let cases: Vec<_> = world
        .cases()
        .into_iter()
        .map(|(name, case)| (name, world.route(case), vectors::record(&case["record"])))
        .collect();
    let (_, route, plain) = cases.iter().find(|(name, ..)| name == "plain").expect("the plain case");
    let good = cost(&mut world, route, plain, runs);
    line("plain", plain, good, good);
    let mut costs: Vec<_> = cases
        .iter()
        .map(|(name, route, record)| (name, record, cost(&mut world, route, record, runs)))
        .collect();
    costs.sort_by_key(|(_, _, cost)| std::cmp::Reverse(cost.cold));
    for (name, record, cost) in costs.iter().take(5) {
        line(name, record, *cost, good);
    }
    costs.sort_by_key(|(_, _, cost)| std::cmp::Reverse(cost.warm));
    println!("and with a warm cache:");
    for (name, record, cost) in costs.iter().take(5) {
        line(name, record, *cost, good);
    }

    let mut house = costly::house();
    for group in costly::groups() {
        println!("{}:", group.name);
        let good = cost(&mut house, &group.route, &group.good, runs);
        line("good", &group.good, good, good);
        for (name, record) in &group.bad {
            let found = cost(&mut house, &group.route, record, runs);
            line(name, record, found, good);
        }
    }
}
