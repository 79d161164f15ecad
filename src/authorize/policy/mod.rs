//! Cedar policies: a [`Bundle`] is loaded and checked whole, [`Entities`] stand beside it, and [`Bundle::evaluate`] asks
//! about the [`Facts`] of one record. Limits: no file is read and no clock asked; Cedar is named here and nowhere else.

mod annotations;
mod answer;
mod answering;
mod bundle;
mod context;
mod digest;
mod entities;
mod evaluate;
mod facts;
pub mod index;
mod load;
mod nesting;
mod offered;
mod problem;
mod shape;
mod value;

#[cfg(test)]
mod tests;

pub use answer::{Allowed, Answer, Conditional, StepUp};
pub use answering::AnswerFacts;
pub use bundle::Bundle;
pub use entities::{CheckedEntity, Entities};
pub use facts::{
    Facts, MessageFacts, Offer, Principal, ProvenanceFacts, SubjectId, TransactionFacts, WorkflowFacts,
};
pub(super) use offered::WORKLOAD;
pub use problem::{LoadErrors, Problem, SourceFile};
