//! Countersign decides again, for every Kafka record, whether the work it asks for is still allowed.
//!
//! The folders, top to bottom; `use` points down only:
//!
//! - [`cli`], [`serve`]: operate. Commands; health and metrics over HTTP.
//! - [`control`]: watch trust, policies and entities as versioned snapshots.
//! - [`stream`]: run. Lanes, transactions, restore.
//! - [`wire`], [`authorize`]: translate and decide. Pure: no IO, no clock, no async, no randomness.
//! - [`producer`], [`worker`]: what producers and workers link. They use `authorize` and `wire` only.
//!
//! The path of a record: a lane polls a batch (`stream`), the engine reads, verifies, maps and decides each record
//! (`authorize`), the outcome and its audit record become bytes (`wire`), and the lane commits them with the consumed
//! offset in one transaction.

#![warn(unreachable_pub)]
// What an input can make fail is an error with a name, never a panic; and a closed pipe is no reason to die, as it would
// be with `println!`. Tests may.
#![cfg_attr(
    not(test),
    warn(
        clippy::unwrap_used,
        clippy::expect_used,
        clippy::panic,
        clippy::indexing_slicing,
        clippy::print_stdout,
        clippy::print_stderr
    )
)]

pub mod authorize;
pub mod cli;
pub mod config;
pub mod control;
pub mod producer;
pub mod serve;
pub mod stream;
pub mod telemetry;
pub mod wire;
pub mod worker;
