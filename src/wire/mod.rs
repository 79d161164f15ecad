//! Translation between types and the bytes of records: audit records, forwarded records, dead letters, challenges, the
//! registry of workflows. Pure. Limits: nothing here decides; what may leave is handed in as a decision.

pub mod audit;
pub mod challenge;
pub mod holds;
pub mod outgoing;
pub mod redact;
pub mod replay;
pub mod signal;
pub mod workflow;
