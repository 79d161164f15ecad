//! Step-up: records that are held, and access evaluations that wait, until somebody approves of them (contract, section 7).
//! Limits: pure; what is kept of records lives in the holds topic, and this is its copy in memory; what is asked over HTTP
//! lives here alone.

mod ask;
pub(super) mod audited;
mod canonical;
mod challenge;
mod conclude;
mod digest;
mod discharge;
pub(super) mod docket;
mod draft;
mod entry;
mod grant;
mod holds;
mod index;
mod kept;
mod login;
mod said;
mod seen;
pub mod sentence;
pub(super) mod settle;
pub(super) mod taking;
pub(super) mod wish;

pub use challenge::{Ask, Asker, Challenge, ChallengeId, CountedAnswer, Status, UnknownStatus};
pub use digest::{Asked, request_digest};
pub use discharge::Discharged;
pub use docket::Docket;
pub use entry::{Entry, Hash16};
pub use holds::{DueHold, Holds};
pub use kept::{AskedOf, Keep, Payload, Traces};
pub use seen::Seen;

/// What is to become of a held record whose turn has come.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Turn {
    /// It is decided again: it was answered, or nothing is held before it any more.
    Decide,
    /// It is out of time: every answer that was taken before its end has been decided, and they are not enough.
    TimedOut,
    /// A reminder of its challenge is to be sent; nothing is decided.
    Remind,
}

/// What an answer can come to: `answer.effect` of an audit record. Only the first changes anything.
pub const EFFECTS: [&str; 10] = [
    "counted",
    "malformed",
    "invalid",
    "stray",
    "late",
    "second",
    "contradictory",
    "requester",
    "not_permitted",
    "spent",
];

/// The effect of that name.
pub fn effect_named(name: &str) -> Option<&'static str> {
    EFFECTS.into_iter().find(|effect| *effect == name)
}
