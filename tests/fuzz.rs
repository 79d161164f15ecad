//! The bodies of the fuzz targets, run as tests: over their seeds, and over changes of those that are the same each time.
//! Limits: this is the short form that every test run has; `scripts/fuzz` looks for what nobody thought of.

#[path = "../fuzz/src/lib.rs"]
mod fuzzed;

use std::panic::{AssertUnwindSafe, catch_unwind};

use fuzzed::mutate::{Dice, mutate};
use fuzzed::{TARGETS, Target};

/// Changes of seeds that each target is given.
fn changes(target: &Target) -> usize {
    match target.name {
        // A whole decision each, five for a token.
        "headers" | "chain" => 1_500,
        "jws" => 600,
        // A schema and policies are validated each time.
        "bundle" => 500,
        _ => 6_000,
    }
}

/// Runs a body, and says which bytes it failed on.
fn run(target: &Target, data: &[u8], of: &str) {
    let ran = catch_unwind(AssertUnwindSafe(|| (target.body)(data)));
    assert!(ran.is_ok(), "{} failed on {of}: {:?}", target.name, String::from_utf8_lossy(data));
}

fn hold(name: &str) {
    let target = TARGETS.iter().find(|target| target.name == name).expect("a target");
    let seeds = (target.seeds)();
    assert!(seeds.len() >= 4, "{name} has only {} seeds", seeds.len());
    for (n, seed) in seeds.iter().enumerate() {
        run(target, seed, &format!("seed {n}"));
    }
    let mut dice = Dice::new(u64::try_from(name.len()).expect("a small number"));
    for n in 0..changes(target) {
        run(target, &mutate(&seeds, &mut dice), &format!("change {n}"));
    }
}

macro_rules! holds {
    ($($rule:ident: $target:literal),+ $(,)?) => {
        $(#[test] fn $rule() { hold($target); })+
        #[test]
        fn every_target_is_run() {
            let run = [$($target),+];
            assert!(TARGETS.iter().all(|target| run.contains(&target.name)));
            assert_eq!(run.len(), TARGETS.len());
        }
    };
}

holds! {
    any_headers_decide_or_deny: "headers",
    no_bytes_pass_for_a_token_but_its_own: "jws",
    any_key_set_is_read_whole_or_refused: "jwks",
    any_signed_chain_is_short_or_denied: "chain",
    any_expression_yields_little_or_is_refused: "cel",
    any_bundle_loads_or_names_its_problems: "bundle",
    what_reads_comes_back_as_it_was: "avro",
    any_configuration_is_read_or_names_its_problems: "configuration",
}

/// Found by fuzzing, or by thinking about it, and kept.
#[test]
fn what_was_found_stays_found() {
    for (name, data) in
        [("jws", &b"."[..]), ("jws", b""), ("cel", b"\0"), ("bundle", b"\0"), ("avro", b"\xc3\x01")]
    {
        let target = TARGETS.iter().find(|target| target.name == name).expect("a target");
        run(target, data, "a regression");
    }
}
