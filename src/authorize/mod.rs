//! The decision: a pure function from a record, the snapshots of a moment and `now` to an outcome and exactly one audit
//! record. Limits: no IO, no clock, no randomness, no async; ids and moments are handed in.

pub mod access;
pub mod audit;
pub mod carried;
mod case;
pub mod claims;
pub mod context;
pub mod decision;
pub mod digests;
mod draft;
pub mod engine;
pub mod identity;
pub mod ids;
pub mod jose;
pub mod json;
pub mod limits;
pub mod login;
mod memo;
pub mod merkle;
pub mod policy;
pub mod provenance;
pub mod record;
pub mod replay;
pub mod request;
pub mod route;
pub mod standing;
pub mod state;
pub mod step_up;
#[cfg(test)]
pub(crate) mod testing;
pub mod text;
pub mod token_cache;
pub mod traceparent;
pub mod trust;
pub mod x509;
