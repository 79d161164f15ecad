//! Everything that is tested on a real Apache Kafka, in one binary with one broker. A test begins with
//! `let Some(broker) = support::kafka::broker("what it shows") else { return };` and makes its own topics.

#[path = "../support/mod.rs"]
mod support;

mod assignment;
mod broker_truth;
mod first_route;
mod harness;
mod lanes;
