//! Step-up: records that are held until somebody approves of them (contract, section 7). Limits: pure; what is kept lives
//! in the holds topic, and this is its copy in memory.

mod challenge;

pub use challenge::{Ask, Challenge, ChallengeId, CountedAnswer, Status, UnknownStatus};

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
