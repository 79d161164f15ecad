//! What a gate's memory of workflows, revocations and proofs that it has seen costs: bytes an entry for a million of each, and
//! nanoseconds for a look at one. `cargo bench --bench standing`. Limits: bytes are what the process has grown by (`/proc/self/statm`), each
//! case in a process of its own, so Linux alone.

use std::hint::black_box;
use std::process::Command;
use std::time::{Duration, Instant};

use countersign::authorize::ids::{Offset, Partition, Position, UnixMillis, WorkloadId};
use countersign::authorize::replay::{Entry, Memory, Seen};
use countersign::authorize::standing::{
    At, Authority, Effect, Followed, Kind, Registered, Registry, Revocation, Standing, Status, Target,
};

const ENTRIES: i64 = 1_000_000;
const LOOKS: i64 = 1_000_000;
const PROOFS: &str = "proofs that were seen";
const CASES: [&str; 5] =
    ["running workflows", "ended workflows", "workflows that ran and ended", "revocations", PROOFS];
/// How long a proof is remembered, and how many records a transaction has.
const WINDOW_MS: i64 = 360_000;
const BATCH: i64 = 1_000;

fn main() {
    // Cargo's own arguments begin with two dashes.
    match std::env::args().nth(1).filter(|case| CASES.contains(&case.as_str())) {
        Some(case) if case == PROOFS => measure_proofs(),
        Some(case) => measure(&case),
        None => {
            for case in CASES {
                let myself = std::env::current_exe().expect("the path of this program");
                let status = Command::new(myself).arg(case).status().expect("a process for the case");
                assert!(status.success(), "{case}");
            }
        }
    }
}

fn measure(case: &str) {
    let before = resident();
    let started = Instant::now();
    let mut registry = Registry::new(0);
    for n in 0..ENTRIES {
        let at = |offset| At { partition: Partition(0), offset: Offset(offset) };
        let mut workflow = |offset, status| {
            registry.apply_workflow(at(offset), &id(n), Some(workflow(status, n)));
        };
        match case {
            "running workflows" => workflow(n, Status::Running),
            "ended workflows" => workflow(n, Status::Completed),
            "revocations" => {
                registry.apply_revocation(at(n), &id(n), Some(revocation(n)), UnixMillis(0));
            }
            _ => {
                workflow(2 * n, Status::Running);
                workflow(2 * n + 1, Status::Completed);
            }
        }
    }
    let took = started.elapsed();
    let grown = resident().saturating_sub(before);
    let positions = [(Partition(0), Position(2 * ENTRIES))].into_iter().collect();
    let standing = registry.pin(match case {
        "revocations" => Followed { workflows: None, revocations: Some(positions) },
        _ => Followed { workflows: Some(positions), revocations: None },
    });
    let look = |from| look(from, id, |name| standing_look(&standing, case, name));
    print(case, grown, took, look(0), look(ENTRIES));
}

fn standing_look(standing: &Standing, case: &str, name: &str) {
    if case == "revocations" {
        black_box(standing.revocation(Kind::Subject, name, Some(0.0), UnixMillis(0)));
    } else {
        black_box(standing.workflow(name));
    }
}

/// Those of one partition, as they come in over one window, batch by batch.
fn measure_proofs() {
    let sender = WorkloadId::parse("spiffe://example.org/agent/payer").expect("an identifier");
    let entry = |n| Entry::new(&sender, &id(n), Offset(n), UnixMillis(n * WINDOW_MS / ENTRIES));
    let before = resident();
    let started = Instant::now();
    let mut memory = Memory::new(WINDOW_MS);
    for n in 0..ENTRIES {
        memory.stage(entry(n));
        if n % BATCH == BATCH - 1 {
            memory.merge_oldest();
        }
    }
    let (took, grown) = (started.elapsed(), resident().saturating_sub(before));
    assert_eq!(memory.len() as i64, ENTRIES, "nothing is forgotten within the window");
    assert_eq!(memory.check(&entry(ENTRIES)), Seen::New);
    let look = |from| {
        look(from, entry, |entry| {
            black_box(memory.check(entry));
        })
    };
    print(PROOFS, grown, took, look(0), look(ENTRIES));
}

fn print(case: &str, grown: u64, took: Duration, found: f64, missed: f64) {
    println!(
        "{ENTRIES} {case}: {:.1} bytes each, {:.0} ns to take in, {found:.0} ns to find, {missed:.0} ns to miss",
        grown as f64 / ENTRIES as f64,
        took.as_nanos() as f64 / ENTRIES as f64,
    );
}

/// Nanoseconds for one look at what was `made` before, in a stride that meets every entry once and in no order that memory has.
fn look<T>(from: i64, made: impl Fn(i64) -> T, at: impl Fn(&T)) -> f64 {
    let all: Vec<T> = (0..LOOKS).map(|n| made(from + (n * 7_919) % ENTRIES)).collect();
    let started = Instant::now();
    all.iter().for_each(at);
    started.elapsed().as_nanos() as f64 / LOOKS as f64
}

/// As long as a UUID.
fn id(n: i64) -> String {
    format!("0190a6c0-0000-7000-8000-{n:012}")
}

fn workflow(status: Status, n: i64) -> Registered {
    Registered {
        kind: "invoice-payment".into(),
        status,
        step: "approve-and-pay".into(),
        owner: "spiffe://example.org/orchestrator".into(),
        allowed_steps: None,
        version: n,
        updated_at: UnixMillis(n),
    }
}

fn revocation(n: i64) -> Revocation {
    Revocation {
        id: id(n).into(),
        authority: Authority::Administrator,
        targets: [Target { kind: Kind::Subject, id: id(n).into() }].into(),
        effect: Effect::Revokes { not_before: Some(1.0) },
        issued_at: 0.0,
        expires_at: Some(1_000.0),
        event: "revocation".into(),
        reason: None,
        transaction: None,
    }
}

/// Bytes of memory that the process has.
fn resident() -> u64 {
    const PAGE: u64 = 4096;
    let statm = std::fs::read_to_string("/proc/self/statm").expect("Linux");
    let pages = statm.split_whitespace().nth(1).and_then(|pages| pages.parse::<u64>().ok());
    pages.expect("the second number is resident pages") * PAGE
}
