//! Laws of the decision, over generated records, policies, headers and lanes: what must hold whatever they are. Each file
//! is one law or two that belong together. Limits: through the public engine, without Kafka; what a transaction keeps
//! together is shown elsewhere.

#[path = "../support/forge.rs"]
mod forge;
#[path = "../support/gatehouse.rs"]
mod gatehouse;

mod bytes;
mod forbids;
mod headers;
mod lanes;
mod made;
mod permits;

use proptest::prelude::*;
use proptest::test_runner::{Config, TestCaseResult, TestRunner};

/// Holds a law against so many generated cases.
fn hold<S: Strategy>(cases: u32, generated: S, law: impl Fn(S::Value) -> TestCaseResult) {
    let config = Config { cases, failure_persistence: None, ..Config::default() };
    if let Err(error) = TestRunner::new(config).run(&generated, law) {
        panic!("{error}");
    }
}
