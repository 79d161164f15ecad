//! What a broker must do for exactly-once to mean anything, tried with plain rdkafka: the same four promises on any
//! broker. A stand-in that breaks one (librdkafka's mock breaks several) would let a wrong program pass.

use std::fmt::Debug;
use std::sync::OnceLock;
use std::time::Duration;

use rdkafka::config::ClientConfig;
use rdkafka::consumer::{BaseConsumer, Consumer as _};
use rdkafka::producer::{BaseProducer, BaseRecord, Producer as _};
use rdkafka::topic_partition_list::{Offset, TopicPartitionList};

use super::topics::{Record, drain};
use super::{Broker, Committed};

/// What was found of one promise: kept, or how it was broken.
pub type Finding = Result<(), String>;

/// Bound of one transaction call.
const PATIENCE: Duration = Duration::from_secs(30);
/// A committed offset's metadata may be this long (`offset.metadata.max.bytes` is 4,096).
const METADATA_BYTES: usize = 4_000;

/// What the four promises came to.
pub struct Report {
    /// Records of an aborted transaction are never shown to a reader of committed records.
    pub aborted_hidden: Finding,
    /// Records of an open transaction are not shown to one yet.
    pub open_hidden: Finding,
    /// Offsets sent in a transaction are stored when it commits, metadata whole, and dropped when it aborts.
    pub offsets_stored: Finding,
    /// A producer whose transactional id another has taken over can commit nothing more.
    pub zombie_fenced: Finding,
}

/// Three topics of one partition each, all empty.
pub struct Topics {
    pub aborted: String,
    pub open: String,
    pub fenced: String,
}

impl Report {
    /// All promises kept, or the list of the broken ones.
    pub fn believable(&self) -> Result<(), String> {
        let findings = [&self.aborted_hidden, &self.open_hidden, &self.offsets_stored, &self.zombie_fenced];
        let broken: Vec<&str> =
            findings.into_iter().filter_map(|found| found.as_ref().err()).map(String::as_str).collect();
        if broken.is_empty() { Ok(()) } else { Err(broken.join("\n")) }
    }
}

/// The report on the shared broker, made once for a test binary.
pub fn of_shared(broker: &Broker) -> &'static Report {
    static REPORT: OnceLock<Report> = OnceLock::new();
    REPORT.get_or_init(|| of(broker))
}

/// The report on a broker, with topics made for it.
pub fn of(broker: &Broker) -> Report {
    let topic = |stem| broker.create_topic(stem, 1, &[]);
    let (aborted, open, fenced) = (topic("truth-aborted"), topic("truth-open"), topic("truth-fenced"));
    examine(broker, &Topics { aborted, open, fenced })
}

/// Tries every promise on `broker`.
pub fn examine(broker: &Broker, topics: &Topics) -> Report {
    Report {
        aborted_hidden: aborted_records_are_hidden(broker, &topics.aborted),
        open_hidden: open_records_are_hidden(broker, &topics.open),
        offsets_stored: offsets_follow_the_transaction(broker, &topics.aborted),
        zombie_fenced: a_zombie_is_fenced(broker, &topics.fenced),
    }
}

fn aborted_records_are_hidden(broker: &Broker, topic: &str) -> Finding {
    let producer = transactional(broker.client(), &broker.unique("aborts"))?;
    told("begin", producer.begin_transaction())?;
    send(&producer, topic, "aborted")?;
    told("abort", producer.abort_transaction(PATIENCE))?;
    told("begin", producer.begin_transaction())?;
    send(&producer, topic, "committed")?;
    told("commit", producer.commit_transaction(PATIENCE))?;
    expect_values("after an abort and a commit", &broker.read_to_end(topic), &["committed"])?;
    expect_values("of all that was ever written", &broker.read_uncommitted(topic), &["aborted", "committed"])
}

fn open_records_are_hidden(broker: &Broker, topic: &str) -> Finding {
    let producer = transactional(broker.client(), &broker.unique("stays-open"))?;
    told("begin", producer.begin_transaction())?;
    send(&producer, topic, "open")?;
    let (shown, written) = (broker.read_stable(topic), broker.read_uncommitted(topic));
    told("abort", producer.abort_transaction(PATIENCE))?;
    expect_values("while its transaction is open", &shown, &[])?;
    expect_values("in the log while its transaction is open", &written, &["open"])
}

fn offsets_follow_the_transaction(broker: &Broker, topic: &str) -> Finding {
    let group = broker.unique("group");
    let consumer: BaseConsumer = told("consumer", broker.client().set("group.id", &group).create())?;
    let membership = consumer.group_metadata().ok_or("a consumer without group metadata")?;
    let producer = transactional(broker.client(), &broker.unique("offsets"))?;
    let metadata = "m".repeat(METADATA_BYTES);
    let send_position = |position| {
        let mut offsets = TopicPartitionList::new();
        told("offset", offsets.add_partition_offset(topic, 0, Offset::Offset(position)))?;
        if let Some(mut element) = offsets.find_partition(topic, 0) {
            element.set_metadata(&metadata);
        }
        told("begin", producer.begin_transaction())?;
        told("send offsets", producer.send_offsets_to_transaction(&offsets, &membership, PATIENCE))
    };
    send_position(5)?;
    told("commit", producer.commit_transaction(PATIENCE))?;
    send_position(10)?;
    told("abort", producer.abort_transaction(PATIENCE))?;

    match broker.committed(&group, topic).get(&0) {
        Some(Committed { position: 5, metadata: stored }) if *stored == metadata => Ok(()),
        Some(Committed { position, metadata }) => Err(format!(
            "offset 5 was committed in a transaction and 10 aborted, yet {position} is stored, with {} of \
             {METADATA_BYTES} bytes of metadata",
            metadata.len()
        )),
        None => Err("an offset that was committed in a transaction is not stored".to_owned()),
    }
}

fn a_zombie_is_fenced(broker: &Broker, topic: &str) -> Finding {
    let id = broker.unique("fenced");
    let zombie = transactional(broker.client(), &id)?;
    told("begin", zombie.begin_transaction())?;
    send(&zombie, topic, "zombie, before")?;
    let successor = transactional(broker.client(), &id)?;
    // The zombie may learn of it at any of these calls; what counts is that the commit does not succeed.
    let sent = send(&zombie, topic, "zombie, after");
    let committed = zombie.commit_transaction(PATIENCE);
    told("begin", successor.begin_transaction())?;
    send(&successor, topic, "successor")?;
    told("commit", successor.commit_transaction(PATIENCE))?;
    if sent.is_ok() && committed.is_ok() {
        return Err("a producer committed after another had taken over its transactional id".to_owned());
    }
    expect_values("after a fenced producer and its successor", &broker.read_to_end(topic), &["successor"])
}

fn transactional(mut client: ClientConfig, id: &str) -> Result<BaseProducer, String> {
    client.set("transactional.id", id).set("transaction.timeout.ms", "30000").set("retry.backoff.ms", "1");
    let producer: BaseProducer = told("producer", client.create())?;
    told("init", producer.init_transactions(PATIENCE))?;
    Ok(producer)
}

/// Sends one record and waits until the broker has it, or the producer has given it up.
fn send(producer: &BaseProducer, topic: &str, value: &str) -> Finding {
    let record = BaseRecord::<str, str>::to(topic).partition(0).payload(value);
    told("send", producer.send(record).map_err(|(error, _)| error))?;
    drain(producer);
    producer.client().fatal_error().map_or(Ok(()), |(code, text)| Err(format!("send: {code}: {text}")))
}

fn expect_values(when: &str, records: &[Record], expected: &[&str]) -> Finding {
    let values: Vec<_> = records
        .iter()
        .map(|record| String::from_utf8_lossy(record.value.as_deref().unwrap_or_default()))
        .collect();
    if values == expected {
        Ok(())
    } else {
        Err(format!("{when}: shown are {values:?}, expected {expected:?}"))
    }
}

fn told<T, E: Debug>(step: &str, result: Result<T, E>) -> Result<T, String> {
    result.map_err(|error| format!("{step}: {error:?}"))
}
