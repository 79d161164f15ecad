//! A worker whose work takes long: eight steps, two of them sensitive. It asks a gate before those two, waits where a person
//! has to agree first, and stops when a gate says that its workflow has ended, or that somebody behind the work was revoked.
//!
//! ```sh
//! cargo run --example long_job -- localhost:9092 http://127.0.0.1:8081
//! ```
//!
//! Arguments: ADDRESS GATE [FROM SIGNALS [FOLDER]]. GATE is the gate's `[access] url`, SIGNALS its `[control] signals`. The
//! keys are those of `docs/first-route.md` and `docs/workers.md`, by default in `examples/first-route`.

mod steps;

use std::collections::BTreeMap;
use std::error::Error;
use std::fs;
use std::path::Path;
use std::sync::Arc;
use std::time::Duration;

use countersign::authorize::ids::{Realm, Topic, TrustDomain};
use countersign::authorize::jose::{Algorithm, KeySet, KeyUse, SigningKey};
use countersign::authorize::trust::{Domain, Trust};
use countersign::stream::kafka::record;
use countersign::worker::Verifier;
use countersign::worker::access::{Caller, Client};
use countersign::worker::job::Job;
use countersign::worker::kafka::Reader;
use countersign::worker::signals::{Bounds, Signals};
use rdkafka::config::ClientConfig;
use rdkafka::consumer::{CommitMode, Consumer as _, StreamConsumer};

use steps::{Bench, End};

#[tokio::main]
async fn main() -> Result<(), Box<dyn Error>> {
    let arguments: Vec<String> = std::env::args().skip(1).collect();
    let argument = |place: usize, default: &'static str| arguments.get(place).map_or(default, String::as_str);
    let [address, gate, ..] = arguments.as_slice() else {
        return Err("usage: long_job ADDRESS GATE [FROM SIGNALS [FOLDER]]".into());
    };
    let (from, signals) = (argument(2, "payments.authorized"), argument(3, "countersign.signals"));
    let folder = Path::new(argument(4, "examples/first-route"));
    let (realm, trust) = (Realm::parse("prod")?, trust(folder)?);
    let verifier = Verifier::new(realm.clone(), trust.clone());
    let gate = Arc::new(client(folder, gate)?);

    let mut kafka = ClientConfig::new();
    kafka.set("bootstrap.servers", address);
    // One reader for all jobs of this process. Nothing begins before it has heard what was told before.
    let signals = Signals::new(realm, Topic::parse(signals)?, trust, Bounds::default());
    let _reader = Reader::start(&signals, &kafka)?;
    signals.live().await;

    let consumer: StreamConsumer = kafka
        .set("group.id", format!("long_job.{from}"))
        .set("auto.offset.reset", "earliest")
        .set("isolation.level", "read_committed")
        .set("enable.auto.commit", "false")
        .create()?;
    consumer.subscribe(&[from])?;
    loop {
        let message = consumer.recv().await?;
        match verifier.verify(&record(&message)?) {
            Ok(received) => {
                let job = Job::open(received, gate.clone(), &signals);
                tokio::spawn(work(job));
            }
            Err(denial) => eprintln!("not from a gate, skipped: {denial}"),
        }
        // A job that must outlive a crash is written down first, with its record: then it can be opened again.
        consumer.commit_message(&message, CommitMode::Sync)?;
    }
}

async fn work(job: Job) {
    let decision = job.received().decision.clone();
    match Bench::new(|_| Duration::from_secs(2)).work(job).await {
        // `job.carry_on()` goes along with the next record of this work: see `examples/worker.rs`.
        End::Done(job) => println!("{decision}: done for {}", job.received().sender),
        End::Stopped(stop) => eprintln!("{decision}: stopped: {stop}"),
        End::Refused(refused) => eprintln!("{decision}: refused: {refused}"),
    }
}

/// Whose countersignatures and signals count.
fn trust(folder: &Path) -> Result<Trust, Box<dyn Error>> {
    let domain = Domain {
        algorithms: vec![Algorithm::Es256, Algorithm::EdDsa],
        bundle: KeySet::empty(),
        token_service: KeySet::from_jwks(&read(folder, "trust/token-service.jwks")?, KeyUse::Any)?,
        gates: KeySet::from_jwks(&read(folder, "trust/gates.jwks")?, KeyUse::Any)?,
    };
    Ok(Trust::new(BTreeMap::from([(TrustDomain::parse("example.org")?, domain)])))
}

/// The worker asks as itself.
fn client(folder: &Path, gate: &str) -> Result<Client, Box<dyn Error>> {
    let key = SigningKey::from_jwk(&read(folder, "keys/bookkeeper.jwk")?)?;
    Ok(Client::new(Caller::new(key, read(folder, "keys/bookkeeper.wit")?.trim())?, gate)?)
}

fn read(folder: &Path, name: &str) -> Result<String, String> {
    let path = folder.join(name);
    fs::read_to_string(&path).map_err(|error| format!("{}: {error}", path.display()))
}
