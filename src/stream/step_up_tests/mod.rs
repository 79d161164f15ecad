//! Holds, answers and grants through the seam of a lane, as a lane drives it: inputs in, records out, commits and aborts,
//! and a state restored from what was written. Limits: no lane and no broker; time is a number.

mod edges;
mod logins;
mod model;
mod rules;
mod world;
