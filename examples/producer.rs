//! A producer: signs payment commands with its workload's key and sends them to the topic that a gate reads.
//!
//! ```sh
//! cargo run --example producer -- localhost:9092
//! ```
//!
//! Arguments: ADDRESS [TOPIC [FOLDER]]. The keys are those of `docs/first-route.md`, by default in `examples/first-route`.
//! `docs/producers.md` explains each step.

use std::error::Error;
use std::fs;
use std::path::Path;
use std::time::Duration;

use countersign::authorize::ids::{Realm, Topic};
use countersign::authorize::jose::SigningKey;
use countersign::producer::{Asked, Context, Outgoing, Signer};
use rdkafka::config::ClientConfig;
use rdkafka::message::OwnedHeaders;
use rdkafka::producer::{FutureProducer, FutureRecord};

#[tokio::main(flavor = "current_thread")]
async fn main() -> Result<(), Box<dyn Error>> {
    let arguments: Vec<String> = std::env::args().skip(1).collect();
    let argument = |place: usize, default: &'static str| arguments.get(place).map_or(default, String::as_str);
    let Some(address) = arguments.first() else {
        return Err("usage: producer ADDRESS [TOPIC [FOLDER]]".into());
    };
    let topic = Topic::parse(argument(1, "payments.commands"))?;
    let context = context(Path::new(argument(2, "examples/first-route")))?;
    // Idempotence keeps the client's own retries from writing a record twice: the second would be denied as `replayed`.
    let producer: FutureProducer =
        ClientConfig::new().set("bootstrap.servers", address).set("enable.idempotence", "true").create()?;

    for (invoice, amount) in [("inv-7", 120), ("inv-8", 75), ("inv-frozen", 10)] {
        // Serialise first: the proof binds these bytes, not what they mean.
        let value = serde_json::to_vec(&serde_json::json!({ "invoice": invoice, "amount": amount }))?;
        let record = Outgoing::new(&topic).key(invoice.as_bytes()).value(&value);
        // Then sign, just before sending: a proof is good for five minutes, for this record on this topic, once.
        let headers = context.headers(&record, &Asked::of("pay", "Invoice", invoice))?;
        let message = FutureRecord::to(topic.as_str())
            .key(invoice.as_bytes())
            .payload(&value)
            .headers(OwnedHeaders::from(headers));
        let delivered = producer.send(message, Duration::from_secs(30)).await.map_err(|(error, _)| error)?;
        println!("sent pay {invoice} to {topic}/{}/{}", delivered.partition, delivered.offset);
    }
    Ok(())
}

/// Who sends (key and WIT) and for whom (Txn-Token). In production the first two come from the workload's identity
/// provider, and a Txn-Token from the service that began the transaction.
fn context(folder: &Path) -> Result<Context, Box<dyn Error>> {
    let read = |name: &str| {
        let path = folder.join("keys").join(name);
        fs::read_to_string(&path).map_err(|error| format!("{}: {error}", path.display()))
    };
    let key = SigningKey::from_jwk(&read("payer.jwk")?)?;
    let signer = Signer::new(key, read("payer.wit")?.trim(), Realm::parse("prod")?)?;
    Ok(Context::new(signer).transactions(read("alice.txn")?.trim().to_owned()))
}
