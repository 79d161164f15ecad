//! What an attacker gets from the kinds of tokens, from sizes and from log lines: the lines of `docs/security-review.md`
//! that no other test shows. Limits: through the public engine, without Kafka.

#[path = "../support/forge.rs"]
mod forge;
#[path = "../support/gatehouse.rs"]
mod gatehouse;

mod kinds;
mod lines;
mod named;
mod sizes;
