//! Everything that is tested on a real Apache Kafka, in one binary with one broker. A test begins with
//! `let Some(broker) = support::kafka::broker("what it shows") else { return };` and makes its own topics.

#[path = "../support/mod.rs"]
mod support;

mod access;
mod access_step_up;
mod assignment;
mod bench;
mod breaker;
mod broker_truth;
mod commands;
mod control;
mod demo;
mod faults;
mod first_route;
mod gate;
mod harness;
mod holding;
mod jobs;
mod kill_nine;
mod lanes;
mod login;
mod mixed_20k;
mod orphan;
mod rebalance;
mod reload;
mod replay_after_restart;
mod replay_after_takeover;
mod shutdown;
mod step_up;
mod undeliverable;
