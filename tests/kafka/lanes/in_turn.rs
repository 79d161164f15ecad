//! Two producers in turn on a real broker: while one batch is committed the next is written, and where the first commit fails
//! the second never happens.

use std::time::Duration;

use countersign::stream::kafka::settings::writer_prefix;
use rdkafka::producer::{BaseProducer, Producer as _};

use super::route::{PATIENCE, Route};
use crate::support::kafka::broker;

#[test]
fn a_producer_that_is_fenced_at_any_moment_costs_its_batch_and_the_one_behind_it_alone() {
    let rule = "a producer that is fenced at any moment costs its batch and the one behind it alone";
    let Some(broker) = broker(rule) else { return };
    let route = Route::new(broker, 2);
    let lane = route.run("a", None);
    lane.wait_ready(2);
    let mut replaced = 0;
    let records = 12_000;
    std::thread::scope(|scope| {
        let source = scope.spawn(|| {
            for begin in (0..records).step_by(500) {
                route.produce(begin..begin + 500, 2);
            }
        });
        // Each of the two in turn, while batches follow each other without a pause.
        while !source.is_finished() {
            let turn = if replaced % 2 == 0 { "a" } else { "b" };
            let id = format!("{}a-{turn}", writer_prefix(&route.group));
            let thief: BaseProducer =
                broker.client().set("transactional.id", id).create().expect("a producer");
            thief.init_transactions(PATIENCE).expect("init");
            replaced += 1;
            std::thread::sleep(Duration::from_millis(300));
        }
    });
    route.wait_for(records as usize);
    lane.stop().expect("an end in good order");
    println!("in_turn: {records} records, {replaced} producers fenced");
    assert!(replaced > 2, "{replaced} is too few");
    route.expect_exactly(0..records);
}
