//! What is fuzzed, once for libFuzzer and once for a plain test that takes this file in: the bodies of the targets, the
//! seeds that they begin with, and deterministic changes of those. Limits: a body says what must hold of any bytes; it
//! finds nothing by itself.

#![allow(dead_code, reason = "a plain test takes in the whole file and uses its part")]

pub mod bodies;
pub mod mutate;
pub mod readers;
pub mod seeds;

#[path = "../../tests/support/forge.rs"]
pub mod forge;
#[path = "../../tests/support/gatehouse.rs"]
pub mod gatehouse;
#[path = "../../tests/support/vectors.rs"]
pub mod vectors;

/// A target: what is fuzzed, and what it begins with.
pub struct Target {
    pub name: &'static str,
    pub body: fn(&[u8]),
    pub seeds: fn() -> Vec<Vec<u8>>,
}

/// All of them.
pub const TARGETS: [Target; 8] = [
    Target { name: "headers", body: bodies::headers, seeds: seeds::headers },
    Target { name: "jws", body: bodies::jws, seeds: seeds::jws },
    Target { name: "jwks", body: bodies::jwks, seeds: seeds::jwks },
    Target { name: "chain", body: bodies::chain, seeds: seeds::chain },
    Target { name: "cel", body: bodies::cel, seeds: seeds::cel },
    Target { name: "bundle", body: bodies::bundle, seeds: seeds::bundle },
    Target { name: "avro", body: bodies::avro, seeds: seeds::avro },
    Target { name: "configuration", body: bodies::configuration, seeds: seeds::configuration },
];

/// Writes a target's seeds below the folder that `COUNTERSIGN_FUZZ_SEEDS` names, where it names one: before libFuzzer looks at
/// what it has.
pub fn begin(name: &str) {
    let Ok(folder) = std::env::var("COUNTERSIGN_FUZZ_SEEDS") else { return };
    let folder = std::path::Path::new(&folder).join(name);
    std::fs::create_dir_all(&folder).expect("a folder for seeds");
    for target in TARGETS.iter().filter(|target| target.name == name) {
        for (number, seed) in (target.seeds)().iter().enumerate() {
            std::fs::write(folder.join(format!("seed-{number:04}")), seed).expect("a seed is written");
        }
    }
}
