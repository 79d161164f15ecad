//! Whether somebody may still act at all: revocations in force, and workflows as their registry has them (contract, sections
//! 5 and 8). Limits: pure; what it knows is handed in.

mod event;
mod judge;
mod positions;
mod registry;
mod revocation;
mod revocations;
mod statement;
mod subject;
mod workflow;
mod workflows;

pub use judge::{Named, judge_workflow};
pub(super) use judge::{Parties, named_by_token};
pub use positions::{At, Positions};
pub use registry::{Followed, Registry, Sizes, Standing};
pub use revocation::{Authority, Effect, Kind, Revocation, Target};
pub use revocations::RevocationChange;
pub use statement::{EVENT_TYP, Notice, REVOCATION_TYP, StatementError, verify};
pub use workflow::{Found, Registered, Status};
pub use workflows::WorkflowChange;

#[cfg(test)]
mod tests;
