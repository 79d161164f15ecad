//! What one decision costs: a whole record through the engine with its audit record encoded, warm and cold, by the number
//! of policies and of entities, forwarded and denied for each kind of reason; beside bare signature verification and bare
//! evaluation of the policies that apply, in the same run. `cargo bench --bench decide`. With `DECIDE_HOT_PATH=SECONDS` it does
//! nothing but forward, for a profiler. Limits: one thread and no Kafka;
//! the cases take turns, so that a slow moment of the machine meets all of them, and what counts are the ratios.

mod cases;
mod world;

use std::hint::black_box;
use std::time::{Duration, Instant};

use bytes::Bytes;
use countersign::authorize::engine::Engine;
use countersign::authorize::ids::{Realm, UnixMillis};
use countersign::authorize::jose::{Algorithm, PublicKey, TokenKind, sha256};
use countersign::authorize::record::{Header, Record};
use countersign::authorize::replay::window_ms;
use countersign::authorize::route::Gate;
use countersign::authorize::state::PartitionState;
use countersign::producer::Asked;
use serde_json::json;

use crate::cases::{Case, measure};
use crate::world::{
    BATCH, Bare, NOW_S, Parties, World, asked, break_proof, key, policies, proof_of, resident, route,
};

/// The program's.
#[global_allocator]
static ALLOCATOR: mimalloc::MiMalloc = mimalloc::MiMalloc;

fn main() {
    // `cargo bench` says so; `cargo test` only wants to see that it runs.
    let quick = !std::env::args().any(|argument| argument == "--bench");
    let parties = Parties {
        issuer: key("issuer", 1),
        tokens: key("tokens", 3),
        realm: Realm::parse("bench").expect("a realm"),
    };
    if let Ok(seconds) = std::env::var("DECIDE_HOT_PATH") {
        return hot_path(&parties, seconds.parse().expect("seconds"));
    }
    // First: what others have freed would be taken for it.
    kept(&parties, quick);
    parts_and_policies(&parties, quick);
    denials(&parties, quick);
    entities(&parties, quick);
}

fn print(title: &str, cases: &[Case<'_>], unit: f64) {
    println!("\n{title}\n{:>10}  {:>8}", "us", "x verify");
    for case in cases {
        println!("{:>10.2}  {:>8.2}  {}", case.us(), case.us() / unit, case.name);
    }
}

/// Nothing but warm forwards with 100 policies, for a profiler to look at.
fn hot_path(parties: &Parties, seconds: u64) {
    let (wit, transaction) = (parties.identity(1800), parties.transaction());
    let signer = parties.signer(&wit);
    let pay = asked("pay", "6");
    let records: Vec<Record> =
        (0..BATCH).map(|n| parties.record(n, Some((&signer, &transaction)), &pay)).collect();
    let world = World::new(parties, &policies(100), 5, route(false));
    let mut state = PartitionState::new(window_ms(&world.route));
    let (began, mut done) = (Instant::now(), 0);
    while began.elapsed() < Duration::from_secs(seconds) {
        world.batch(&records, &mut state);
        done += records.len();
    }
    println!("{done} records, {:.2} us each", began.elapsed().as_secs_f64() * 1e6 / done as f64);
}

/// Bare parts beside whole decisions, by the number of policies.
fn parts_and_policies(parties: &Parties, quick: bool) {
    let (wit, transaction) = (parties.identity(1800), parties.transaction());
    let signer = parties.signer(&wit);
    let pay = asked("pay", "6");
    let records: Vec<Record> =
        (0..BATCH).map(|n| parties.record(n, Some((&signer, &transaction)), &pay)).collect();
    let cold: Vec<Record> = (0..BATCH)
        .map(|n| {
            let signer = parties.signer(&parties.identity(1800));
            parties.record(n, Some((&signer, &parties.transaction())), &pay)
        })
        .collect();
    let counts: &[usize] = if quick { &[10, 100] } else { &[10, 100, 1_000, 10_000] };
    let worlds: Vec<World> =
        counts.iter().map(|count| World::new(parties, &policies(*count), 5, route(false))).collect();
    let first = worlds.first().expect("a world");

    let (input, signature) = proof_of(records.first().expect("a record"));
    let public = key("workload", 2).public_jwk();
    let public = PublicKey::from_jwk(public.as_object().expect("a key")).expect("a key");
    let gate = key("gate", 4);
    // As large as a countersignature's.
    let countersigned = json!({"policy": "x".repeat(600)});
    let bare = Bare::new();
    let value = vec![7_u8; 1024];

    let empty = Engine::new(
        Gate { id: first.engine.gate().id.clone(), realm: parties.realm.clone(), key: key("gate", 4) },
        0,
    );
    let forgetful = World { engine: empty, ..World::new(parties, &policies(10), 5, route(false)) };
    let anybody = "@id(\"unproven\") permit (principal, action == Action::\"pay\", resource is Invoice);\n";
    let plain = World::new(parties, &(policies(9) + anybody), 5, route(true));
    let unsigned: Vec<Record> = (0..BATCH).map(|n| parties.record(n, None, &pay)).collect();

    let mut cases = vec![
        Case::new("bare: verify one Ed25519 signature", || {
            assert!(black_box(&public).verify(Algorithm::EdDsa, input, &signature));
            1
        }),
        Case::new("bare: sign one countersignature", || {
            black_box(gate.sign(TokenKind::Countersignature, black_box(&countersigned)).expect("a token"));
            1
        }),
        Case::new("bare: evaluate the candidates", || {
            black_box(bare.ask());
            1
        }),
        Case::new("bare: SHA-256 of 1 KiB", || {
            black_box(sha256(&[black_box(&value)]));
            1
        }),
    ];
    for (world, count) in worlds.iter().zip(counts) {
        cases.push(deciding(format!("forward, warm, {count} policies"), "forward", world, &records));
    }
    cases.push(deciding("forward, cold (both tokens verified), 10 policies", "forward", &forgetful, &cold));
    let name = "forward, unproven sender, mapped by CEL, 10 policies";
    cases.push(deciding(name, "forward", &plain, &unsigned));
    measure(&mut cases, quick);

    let us = |name: &str| cases.iter().find(|case| case.name.starts_with(name)).map_or(0.0, Case::us);
    let (verify, sign) = (us("bare: verify"), us("bare: sign"));
    print("a record, its audit record encoded", &cases, verify);
    let warm = us("forward, warm, 10 ");
    let floor = verify + us("bare: evaluate");
    println!("\nwarm / (verify + evaluate)            {:>6.2}  (aim: at most 1.5)", warm / floor);
    println!(
        "warm / (verify + evaluate + sign)     {:>6.2}  (a forward is countersigned too)",
        warm / (floor + sign)
    );
    println!(
        "warm - verify - sign                  {:>6.2} us; where a verification takes 40 us: {:.2} (aim: at most 12)",
        warm - verify - sign,
        (warm - verify - sign) * 40.0 / verify
    );
    if let (Some(few), Some(many)) = (counts.first(), counts.last()) {
        let ratio = us(&format!("forward, warm, {many} ")) / us(&format!("forward, warm, {few} "));
        println!("{many} policies / {few} policies         {ratio:>6.2}  (aim: at most 3)");
    }
}

/// Deciding a batch, which has to end as said.
fn deciding<'a>(name: impl Into<String>, ends: &str, world: &'a World, records: &'a [Record]) -> Case<'a> {
    let mut state = PartitionState::new(window_ms(&world.route));
    let name = name.into();
    let ended = world.batch(records, &mut state);
    assert!(ended.iter().all(|end| end == ends), "{name}: {ended:?}");
    Case::new(name, move || {
        world.batch(records, &mut state);
        records.len()
    })
}

/// Records that are denied, one of each kind.
fn denials(parties: &Parties, quick: bool) {
    let wit = parties.identity(1800);
    let (signer, transaction) = (parties.signer(&wit), parties.transaction());
    let frozen = "@id(\"frozen\") forbid (principal, action, resource == Invoice::\"frozen\");\n";
    let world = World::new(parties, &(policies(100) + frozen), 5, route(false));
    let with = |asked: &Asked| -> Vec<Record> {
        (0..BATCH).map(|n| parties.record(n, Some((&signer, &transaction)), asked)).collect()
    };
    let changed = |change: fn(&mut Record)| -> Vec<Record> {
        let mut records = with(&asked("pay", "6"));
        records.iter_mut().for_each(change);
        records
    };
    let kinds: Vec<(&str, Vec<Record>)> = vec![
        ("forward", with(&asked("pay", "6"))),
        ("forbidden", with(&asked("pay", "frozen"))),
        ("not_permitted", with(&asked("refund", "99"))),
        ("request_invalid", with(&asked("unknown", "6"))),
        ("context_missing", changed(|record| record.headers.clear())),
        ("proof_mismatch", changed(|record| record.value = Some(Bytes::from_static(b"{}")))),
        ("signature_invalid", changed(break_proof)),
        ("context_malformed", changed(|record| record.headers.push(Header::new("txn-token", "twice")))),
        ("context_too_large", changed(|record| record.headers.push(Header::new("x", vec![0; 1 << 17])))),
        ("token_expired", changed(|record| record.timestamp = Some(UnixMillis((NOW_S + 9_000) * 1000)))),
    ];
    let mut cases: Vec<Case<'_>> =
        kinds.iter().map(|(name, records)| deciding(*name, name, &world, records)).collect();
    measure(&mut cases, quick);
    let forward = cases.first().map_or(1.0, Case::us);
    println!("\nforwarded and denied, 100 policies\n{:>10}  {:>9}", "us", "x forward");
    for case in &cases {
        println!("{:>10.2}  {:>9.2}  {}", case.us(), case.us() / forward, case.name);
    }
}

/// Memory: of a verified token in the cache, and of a policy, by what is resident before and after.
fn kept(parties: &Parties, quick: bool) {
    let count = if quick { 100 } else { 20_000 };
    let (wit, pay) = (parties.identity(1800), asked("pay", "6"));
    let signer = parties.signer(&wit);
    // Room for all of them, however they spread over the shards.
    let world = World::caching(parties, &policies(10), 5, route(false), 4 * count);
    let mut state = PartitionState::new(window_ms(&world.route));
    let mut decide = |count: usize| {
        for n in 0..count {
            world.batch(&[parties.record(n, Some((&signer, &parties.transaction())), &pay)], &mut state);
        }
    };
    decide(count / 10);
    let before = resident();
    decide(count);
    let token = resident().saturating_sub(before) as f64 / count as f64;
    let before = resident();
    let many = World::new(parties, &policies(count), 5, route(false));
    let policy = resident().saturating_sub(before) as f64 / count as f64;
    println!(
        "\nbytes of memory, resident, of {count}\n{token:>10.0}  a verified Txn-Token\n{policy:>10.0}  a policy"
    );
    black_box((world, many));
}

/// By the number of entities.
fn entities(parties: &Parties, quick: bool) {
    let (wit, transaction) = (parties.identity(1800), parties.transaction());
    let signer = parties.signer(&wit);
    let records: Vec<Record> =
        (0..BATCH).map(|n| parties.record(n, Some((&signer, &transaction)), &asked("pay", "6"))).collect();
    let counts: &[usize] = if quick { &[5, 100] } else { &[5, 10_000, 1_000_000] };
    let worlds: Vec<(usize, World, f64)> = counts
        .iter()
        .map(|count| {
            let before = resident();
            let world = World::new(parties, &policies(100), *count, route(false));
            (*count, world, resident().saturating_sub(before) as f64 / *count as f64)
        })
        .collect();
    let name = |count| format!("forward, warm, 100 policies, {count} entities");
    let mut cases: Vec<Case<'_>> =
        worlds.iter().map(|(count, world, _)| deciding(name(count), "forward", world, &records)).collect();
    measure(&mut cases, quick);
    println!("\nby entities\n{:>10}", "us");
    for (case, (_, _, bytes)) in cases.iter().zip(&worlds) {
        println!("{:>10.2}  {} ({bytes:.0} bytes of memory each)", case.us(), case.name);
    }
}
