//! The stream: lanes that read, decide and commit in one transaction, and bring the state of gained partitions back
//! first. Limits: it decides nothing itself; only `kafka*` and `admin` name rdkafka.
//!
//! [`lane`] is the thread, [`log`] its seam to Kafka ([`kafka`]), [`decider`] its seam to the
//! engine; [`assignment`] and `restore` are how a partition becomes ready, [`checkpoint`] what stands beside its
//! committed position.

pub mod admin;
pub mod assignment;
pub mod breaker;
pub mod checkpoint;
pub mod clock;
pub mod decider;
pub mod deciding;
pub mod desk;
pub mod freshness;
pub mod gate;
pub mod kafka;
pub mod kafka_ffi;
pub mod lane;
pub mod log;
#[cfg(test)]
mod memory;
mod orphans;
mod remembering;
mod restore;
#[cfg(test)]
mod step_up_tests;
#[cfg(test)]
mod tests;
#[cfg(test)]
mod under_fire;
