//! The broker itself: does it keep the promises on which every other test here stands? `support::kafka::broker` makes this
//! examination before it hands the broker to any test; here each promise is reported under its name.

use rdkafka::mocking::MockCluster;

use crate::support::kafka::truth::{self, Finding, Report, Topics};
use crate::support::kafka::{Broker, unexamined_broker};

fn check(promise: &str, finding: impl Fn(&Report) -> &Finding) {
    let Some(broker) = unexamined_broker(promise) else { return };
    if let Err(lie) = finding(truth::of_shared(broker)) {
        panic!("the broker breaks this promise: {promise}\n{lie}");
    }
}

#[test]
fn aborted_records_are_hidden_from_readers_of_committed_ones() {
    check("aborted records are hidden", |report| &report.aborted_hidden);
}

#[test]
fn records_of_an_open_transaction_are_hidden_from_readers_of_committed_ones() {
    check("records of an open transaction are hidden", |report| &report.open_hidden);
}

#[test]
fn offsets_and_their_metadata_commit_and_abort_with_the_transaction() {
    check("offsets follow their transaction", |report| &report.offsets_stored);
}

#[test]
fn a_second_producer_with_the_same_transactional_id_fences_the_first() {
    check("a zombie is fenced", |report| &report.zombie_fenced);
}

#[test]
fn the_examination_finds_the_lies_of_a_mock_cluster() {
    let mock = MockCluster::new(1).expect("a mock cluster");
    let topics = Topics { aborted: "aborted".into(), open: "open".into(), fenced: "fenced".into() };
    for topic in [&topics.aborted, &topics.open, &topics.fenced] {
        mock.create_topic(topic, 1, 1).expect("a topic");
    }
    let report = truth::examine(&Broker::at(mock.bootstrap_servers()), &topics);
    let lies = report.believable().expect_err("the mock is known to lie");
    assert!(lies.contains(r#"shown are ["aborted", "committed"]"#), "{lies}");
    assert!(lies.contains(r#"shown are ["open"]"#), "{lies}");
    assert!(lies.contains("not stored"), "{lies}");
    assert!(lies.contains("after another had taken over"), "{lies}");
}
