//! Reads the signals topic with rdkafka, on a thread of its own: every partition, from its beginning, for as long as it
//! lives. Limits: it belongs to no consumer group, since every worker process must hear everything; a broker that is away
//! is waited for, and the silence is what the watches notice.

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::thread::JoinHandle;
use std::time::{Duration, Instant};

use rdkafka::config::ClientConfig;
use rdkafka::consumer::{BaseConsumer, Consumer as _};
use rdkafka::error::KafkaError;
use rdkafka::message::Message as _;
use rdkafka::{Offset, TopicPartitionList};

use super::signals::Signals;
use crate::authorize::ids::Partition;

/// How long one look at the topic lasts: how soon a dropped reader ends.
const LOOK: Duration = Duration::from_millis(100);
/// How often it looks for new partitions.
const GROWTH: Duration = Duration::from_secs(10);
/// How long the broker may take to name the partitions; then it is asked again.
const METADATA: Duration = Duration::from_secs(2);

/// A reader of the signals topic. Dropping it ends the reading, and after [`super::signals::Bounds::silence`] every watch.
#[derive(Debug)]
pub struct Reader {
    stop: Arc<AtomicBool>,
    refused: Arc<AtomicU64>,
    thread: Option<JoinHandle<()>>,
}

/// Why a reader did not start.
#[derive(Debug, thiserror::Error)]
pub enum ReaderError {
    /// The client takes no such settings.
    #[error("the signals cannot be read: {0}")]
    Client(#[from] KafkaError),
    /// No thread could be started.
    #[error("the signals cannot be read: {0}")]
    Thread(#[from] std::io::Error),
}

impl Reader {
    /// Reads for `signals` with the settings of `client` (`bootstrap.servers`, and what security needs).
    ///
    /// # Errors
    /// Settings that librdkafka refuses; no thread.
    pub fn start(signals: &Signals, client: &ClientConfig) -> Result<Self, ReaderError> {
        let mut client = client.clone();
        // librdkafka wants a group for any consumer; with positions assigned by hand and none committed it joins none.
        client
            .set("group.id", "countersign.signals")
            .set("enable.auto.commit", "false")
            .set("enable.auto.offset.store", "false")
            .set("auto.offset.reset", "earliest")
            .set("fetch.wait.max.ms", "100")
            .set("fetch.error.backoff.ms", "100")
            .set("reconnect.backoff.max.ms", "1000");
        let consumer: BaseConsumer = client.create()?;
        let (stop, refused) = (Arc::new(AtomicBool::new(false)), Arc::new(AtomicU64::new(0)));
        let (ends, refusals, signals) = (Arc::clone(&stop), Arc::clone(&refused), signals.clone());
        let thread = std::thread::Builder::new()
            .name("signals".to_owned())
            .spawn(move || read(&consumer, &signals, &ends, &refusals))?;
        Ok(Self { stop, refused, thread: Some(thread) })
    }

    /// Records of the topic that no gate had written: somebody else may write there, or a gate's key is not known here.
    pub fn refused(&self) -> u64 {
        self.refused.load(Ordering::Relaxed)
    }
}

impl Drop for Reader {
    fn drop(&mut self) {
        self.stop.store(true, Ordering::Relaxed);
        if let Some(thread) = self.thread.take() {
            // One that broke has nothing left to say.
            let _ = thread.join();
        }
    }
}

fn read(consumer: &BaseConsumer, signals: &Signals, stop: &AtomicBool, refused: &AtomicU64) {
    let (mut known, mut looked) = (0, None::<Instant>);
    while !stop.load(Ordering::Relaxed) {
        if known == 0 || looked.is_none_or(|at| at.elapsed() > GROWTH) {
            known = assign(consumer, signals, known);
            looked = Some(Instant::now());
        }
        // An error is a broker that is away, which librdkafka looks for itself.
        let Some(Ok(message)) = consumer.poll(LOOK) else { continue };
        // Not its headers: rdkafka's reader panics on a name that is not UTF-8.
        let partition = Partition(message.partition());
        if signals.take(partition, message.key(), message.payload()).is_err() {
            refused.fetch_add(1, Ordering::Relaxed);
        }
    }
}

/// Begins to read the partitions from the `known`th on. Returns how many are read.
fn assign(consumer: &BaseConsumer, signals: &Signals, known: i32) -> i32 {
    let topic = signals.topic().as_str();
    let Ok(metadata) = consumer.fetch_metadata(Some(topic), METADATA) else { return known };
    let found = metadata.topics().iter().find(|t| t.name() == topic).map_or(0, |t| t.partitions().len());
    let found = i32::try_from(found).unwrap_or(i32::MAX);
    if found <= known {
        return known;
    }
    let mut fresh = TopicPartitionList::new();
    for partition in known..found {
        // The offset is one that librdkafka knows by name, so it is taken.
        let _ = fresh.add_partition_offset(topic, partition, Offset::Beginning);
    }
    if consumer.incremental_assign(&fresh).is_err() {
        return known;
    }
    signals.listen((known..found).map(Partition));
    found
}
