//! Names that only some files may say: the clock, the outside world, the broker, the cryptography, `unsafe`.

use crate::paths::heads;
use crate::tokens::{Token, tokens, without_tests};
use crate::{Violation, check_sources, expect};

/// The one place of the cryptography.
const CRYPTOGRAPHY: [&str; 2] = ["src/authorize/jose.rs", "src/authorize/jose/"];
const CRYPTOGRAPHIC_CRATES: [&str; 3] = ["aws_lc_rs", "aws_lc_sys", "ed25519_dalek"];

/// Where certificates are read, and where TLS is spoken.
const CERTIFICATES: [&str; 1] = ["src/authorize/x509/"];
const CERTIFICATE_CRATES: [&str; 2] = ["webpki", "x509_cert"];
const TLS: [&str; 3] = ["src/control/certificates", "src/serve/tls/", "src/serve/mod.rs"];
const TLS_CRATES: [&str; 2] = ["rustls", "tokio_rustls"];

/// What the cryptography's own functions ask for, in its one place: a signature of ES256 needs a nonce.
const ITS_RANDOMNESS: [&str; 2] = ["rand", "SystemRandom"];

/// The one place of calls into librdkafka that rdkafka does not offer.
const UNSAFE: &str = "src/stream/kafka_ffi.rs";

/// Where a Kafka client may be named.
const KAFKA: [&str; 10] = [
    "src/stream/kafka.rs",
    "src/stream/kafka/",
    "src/stream/kafka_ffi.rs",
    "src/stream/admin.rs",
    "src/stream/admin/",
    "src/control/",
    "src/review/",
    "src/producer/",
    "src/worker/kafka.rs",
    "src/cli/",
];
const KAFKA_CRATES: [&str; 2] = ["rdkafka", "rdkafka_sys"];

/// The folders in which time, chance and the world are handed in.
const PURE: [&str; 2] = ["src/authorize/", "src/wire/"];
const IMPURE_NAMES: [&str; 16] = [
    "SystemTime",
    "Instant",
    "tokio",
    "rand",
    "getrandom",
    "SystemRandom",
    "thread_rng",
    "now_v7",
    "new_v4",
    "now_v1",
    "now_v6",
    "async",
    "await",
    "reqwest",
    "println",
    "eprintln",
];
const IMPURE_OF_STD: [&str; 5] = ["fs", "env", "net", "process", "thread"];
/// Types whose `now` reads the clock.
const CLOCKS: [&str; 3] = ["Timestamp", "Zoned", "Utc"];

fn check(path: &str, source: &str) -> Vec<Violation> {
    let stands_in = |places: &[&str]| places.iter().any(|place| path.starts_with(place));
    let all = tokens(source);
    let mut found = Vec::new();
    let mut say = |token: &Token<'_>, rule: &str| {
        found.push(Violation { line: token.line, what: format!("`{}` {rule}", token.text) });
    };
    for (at, token) in all.iter().enumerate() {
        if token.text == "unsafe" && path != UNSAFE {
            say(token, &format!("may stand in {UNSAFE} alone"));
        }
        // `rustls::crypto::aws_lc_rs` is not the crate but what rustls makes of it.
        let mut before = all[..at].iter().rev().skip_while(|token| token.text.starts_with(':'));
        let is_provider = before.next().is_some_and(|token| token.text == "crypto") && stands_in(&TLS);
        if CRYPTOGRAPHIC_CRATES.contains(&token.text) && !stands_in(&CRYPTOGRAPHY) && !is_provider {
            say(token, "may be named in src/authorize/jose alone");
        }
        if CERTIFICATE_CRATES.contains(&token.text) && !stands_in(&CERTIFICATES) {
            say(token, "may be named in src/authorize/x509 alone");
        }
        if TLS_CRATES.contains(&token.text) && !stands_in(&TLS) {
            say(token, "may be named in src/serve/tls and src/control/certificates.rs alone");
        }
        if KAFKA_CRATES.contains(&token.text) && !stands_in(&KAFKA) {
            say(token, "may not be named here: the seam is stream::log");
        }
    }
    if stands_in(&PURE) {
        // A test may read the clock: the promise is about what the gate runs.
        let run = without_tests(&all);
        for (at, token) in run.iter().enumerate() {
            let nonce = ITS_RANDOMNESS.contains(&token.text) && stands_in(&CRYPTOGRAPHY);
            if IMPURE_NAMES.contains(&token.text) && !nonce {
                say(token, "has no place in a pure folder: hand it in");
            }
            let following = heads(&run, at + 1);
            let clock = CLOCKS.contains(&token.text) && following.iter().any(|name| name.text == "now");
            let world =
                token.text == "std" && following.iter().any(|name| IMPURE_OF_STD.contains(&name.text));
            if clock || world {
                let names: Vec<&str> = following.iter().map(|name| name.text).collect();
                say(token, &format!("and its {names:?} have no place in a pure folder: hand it in"));
            }
        }
    }
    found
}

#[test]
fn the_clock_the_world_the_broker_and_the_cryptography_are_named_in_their_places_alone() {
    check_sources(check);
}

#[test]
fn a_name_out_of_its_place_is_caught() {
    expect(
        check,
        "src/authorize/engine.rs",
        "fn f() {\n let now = SystemTime::now();\n}",
        &[(2, "`SystemTime`")],
    );
    expect(check, "src/wire/audit.rs", "use std::{fmt, fs};", &[(1, "fs")]);
    expect(check, "src/wire/audit.rs", "let id = Uuid::now_v7();", &[(1, "`now_v7`")]);
    expect(check, "src/authorize/ids.rs", "let t = jiff::Timestamp::now();", &[(1, "`Timestamp`")]);
    expect(check, "src/authorize/ids.rs", "let t = std::env::var(\"X\");", &[(1, "env")]);
    expect(check, "src/authorize/ids.rs", "let t = Timestamp::from_second(1); use std::fmt;", &[]);
    expect(check, "src/authorize/ids.rs", "#[cfg(test)]\nmod tests { use std::fs; }", &[]);
    expect(check, "src/serve/mod.rs", "use std::time::Instant;", &[]);

    expect(check, "src/stream/lane.rs", "\nuse rdkafka::Message;", &[(2, "`rdkafka`")]);
    expect(check, "src/stream/kafka.rs", "use rdkafka::Message;", &[]);
    expect(check, "src/cli/keys.rs", "use ed25519_dalek::SigningKey;", &[(1, "`ed25519_dalek`")]);
    expect(check, "src/authorize/jose.rs", "use ed25519_dalek::SigningKey;", &[]);
    expect(check, "src/authorize/jose/sign.rs", "let random = SystemRandom::new();", &[]);
    expect(check, "src/authorize/replay.rs", "let random = SystemRandom::new();", &[(1, "`SystemRandom`")]);
    expect(check, "src/control/certificates.rs", "rustls::crypto::aws_lc_rs::default_provider()", &[]);
    expect(check, "src/control/certificates.rs", "use aws_lc_rs::rand;", &[(1, "`aws_lc_rs`")]);
    expect(check, "src/serve/access/mod.rs", "use rustls::Error;", &[(1, "`rustls`")]);
    expect(check, "src/serve/tls/mod.rs", "use webpki::Error;", &[(1, "`webpki`")]);
    expect(check, "src/authorize/x509/peer.rs", "use webpki::Error;", &[]);
    expect(check, "src/stream/kafka.rs", "unsafe { f() }", &[(1, "`unsafe`")]);
    expect(check, "src/stream/kafka_ffi.rs", "unsafe { f() }", &[]);
    expect(check, "src/serve/mod.rs", "// rdkafka, unsafe\nlet a = \"unsafe\";", &[]);
}
