//! Step-up through whole gates on a real broker: one gate at a time, and two under fire. Limits: lanes alone are tested in
//! `holding`, every rule of it without a broker.

mod doctored;
mod fire;
mod grants;
mod office;
mod order;
mod rules;
mod standing;
mod stories;
mod traffic;

pub use office::Office;
pub use stories::History;
pub use traffic::{PLAN as HOLDING, Stop, Traffic};

use crate::gate::Plan;

/// A route whose holds end a second after their time: clocks are the same here.
const PLAN: Plan = Plan {
    partitions: 4,
    lanes: 2,
    batch: 500,
    trickles: false,
    route: "skew = \"1s\"",
    to: &[],
    denied: &[],
};
