//! A worker: reads what a gate forwarded, verifies that it did, pays what was *decided*, and carries the work on with a
//! record for the next gate.
//!
//! ```sh
//! cargo run --example worker -- localhost:9092
//! ```
//!
//! Arguments: ADDRESS [FROM TO [FOLDER]]. The keys are those of `docs/first-route.md`, by default in
//! `examples/first-route`. `docs/workers.md` explains each step.

use std::collections::{BTreeMap, HashSet};
use std::error::Error;
use std::fs;
use std::path::Path;
use std::time::Duration;

use countersign::authorize::ids::{Realm, Topic, TrustDomain};
use countersign::authorize::jose::{Algorithm, KeySet, KeyUse, SigningKey};
use countersign::authorize::trust::{Domain, Trust};
use countersign::producer::{Asked, Context, ContextError, Outgoing, SignRefused, Signer};
use countersign::stream::kafka::record;
use countersign::worker::{Received, Verifier};
use rdkafka::config::ClientConfig;
use rdkafka::consumer::{CommitMode, Consumer as _, StreamConsumer};
use rdkafka::message::OwnedHeaders;
use rdkafka::producer::{FutureProducer, FutureRecord};

#[tokio::main(flavor = "current_thread")]
async fn main() -> Result<(), Box<dyn Error>> {
    let arguments: Vec<String> = std::env::args().skip(1).collect();
    let argument = |place: usize, default: &'static str| arguments.get(place).map_or(default, String::as_str);
    let Some(address) = arguments.first() else {
        return Err("usage: worker ADDRESS [FROM TO [FOLDER]]".into());
    };
    let from = argument(1, "payments.authorized");
    let to = Topic::parse(argument(2, "ledger.commands"))?;
    let folder = Path::new(argument(3, "examples/first-route"));
    let verifier = verifier(folder)?;
    let context = context(folder)?;

    let mut client = ClientConfig::new();
    client.set("bootstrap.servers", address);
    let producer: FutureProducer = client.clone().set("enable.idempotence", "true").create()?;
    let consumer: StreamConsumer = client
        .set("group.id", format!("worker.{from}"))
        .set("auto.offset.reset", "earliest")
        // Without it a worker also sees what a gate took back.
        .set("isolation.level", "read_committed")
        // A position is committed once its work is done, not before.
        .set("enable.auto.commit", "false")
        .create()?;
    consumer.subscribe(&[from])?;

    // A crash after the work and before the commit brings a record again, so the decision's id is remembered. In
    // production that is a unique column in the database that the work itself is written to, in the same transaction.
    let mut done: HashSet<String> = HashSet::new();
    loop {
        let message = consumer.recv().await?;
        match verifier.verify(&record(&message)?) {
            Ok(received) if done.contains(&received.decision) => {
                println!("done before: {}", received.decision)
            }
            Ok(received) => {
                act(&received)?;
                carry_on(&received, &context, &producer, &to).await?;
                done.insert(received.decision);
            }
            // No gate that is trusted let this through. Whoever wrote it should not be able to: tell somebody.
            Err(denial) => {
                eprintln!("not from a gate, skipped: {}: {}", denial.reason.as_str(), denial.detail)
            }
        }
        consumer.commit_message(&message, CommitMode::Sync)?;
    }
}

/// Does the work. What may be done is what was decided: `action` and `resource` of the countersignature, never what the
/// value says beside them, unless the route maps them from the value.
fn act(received: &Received) -> Result<(), Box<dyn Error>> {
    let Received { action, resource, sender, decision, .. } = received;
    match (action.name.as_str(), resource.kind.as_str()) {
        ("pay", "Invoice") => {
            let subject = received.transaction.as_ref().map_or("nobody", |transaction| &transaction.subject);
            println!("paid {} as {sender} asked for {subject}, by decision {decision}", resource.id);
            Ok(())
        }
        (action, kind) => Err(format!("this worker knows no `{action}` of an `{kind}`").into()),
    }
}

/// Sends the next record of the same work. It carries the Txn-Token and the gate's countersignature on, so the next gate
/// knows for whom this is, and who asked first.
async fn carry_on(
    received: &Received,
    context: &Context,
    producer: &FutureProducer,
    to: &Topic,
) -> Result<(), Box<dyn Error>> {
    let invoice = received.resource.id.as_str();
    let value = serde_json::to_vec(&serde_json::json!({ "invoice": invoice, "paid": true }))?;
    let record = Outgoing::new(to).key(invoice.as_bytes()).value(&value);
    let asked = Asked::of("book", "Invoice", invoice);
    let headers = match context.carry(received.carry_on()).headers(&record, &asked) {
        Ok(headers) => headers,
        // The transaction ended while the record waited: nobody may act for it any more, and trying again cannot help.
        Err(ContextError::Refused(SignRefused::TransactionExpired)) => {
            eprintln!("not carried on: the transaction of {invoice} has expired");
            return Ok(());
        }
        Err(error) => return Err(error.into()),
    };
    let message = FutureRecord::to(to.as_str())
        .key(invoice.as_bytes())
        .payload(&value)
        .headers(OwnedHeaders::from(headers));
    let delivered = producer.send(message, Duration::from_secs(30)).await.map_err(|(error, _)| error)?;
    println!("sent book {invoice} to {to}/{}/{}", delivered.partition, delivered.offset);
    Ok(())
}

/// Whose countersignatures count. With the token service's keys the Txn-Token is verified as well; a worker that only
/// trusts gates may leave them out.
fn verifier(folder: &Path) -> Result<Verifier, Box<dyn Error>> {
    let domain = Domain {
        algorithms: vec![Algorithm::Es256, Algorithm::EdDsa],
        bundle: KeySet::empty(),
        token_service: KeySet::from_jwks(&read(folder, "trust/token-service.jwks")?, KeyUse::Any)?,
        gates: KeySet::from_jwks(&read(folder, "trust/gates.jwks")?, KeyUse::Any)?,
    };
    let trust = Trust::new(BTreeMap::from([(TrustDomain::parse("example.org")?, domain)]));
    Ok(Verifier::new(Realm::parse("prod")?, trust))
}

/// The worker is a workload of its own, and signs what it sends as itself.
fn context(folder: &Path) -> Result<Context, Box<dyn Error>> {
    let key = SigningKey::from_jwk(&read(folder, "keys/bookkeeper.jwk")?)?;
    Ok(Context::new(Signer::new(key, read(folder, "keys/bookkeeper.wit")?.trim(), Realm::parse("prod")?)?))
}

fn read(folder: &Path, name: &str) -> Result<String, String> {
    let path = folder.join(name);
    fs::read_to_string(&path).map_err(|error| format!("{}: {error}", path.display()))
}
