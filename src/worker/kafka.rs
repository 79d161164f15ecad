//! Reads the signals topic with rdkafka, on a thread of its own: every partition, from its beginning, for as long as it
//! lives. Limits: it belongs to no consumer group, since every worker process must hear everything; a broker that is away
//! is waited for, and the silence is what the watches notice.

use std::collections::BTreeMap;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::thread::JoinHandle;
use std::time::{Duration, Instant};

use rdkafka::config::ClientConfig;
use rdkafka::consumer::{BaseConsumer, Consumer as _};
use rdkafka::error::{KafkaError, KafkaResult};
use rdkafka::message::Message as _;
use rdkafka::{Offset, TopicPartitionList};

use super::signals::Signals;
use crate::authorize::ids::Partition;

/// How long one look at the topic lasts: how soon a dropped reader ends.
const LOOK: Duration = Duration::from_millis(100);
/// How often it looks for new partitions.
const GROWTH: Duration = Duration::from_secs(10);
/// A heartbeat comes every second. After so long without anything of a partition it is read again from where it stands: the client is
/// said not to go on with each, at times, when a broker comes back, and to tell nobody (librdkafka, its issue 5153, open).
const READ_AGAIN: Duration = Duration::from_secs(5);
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
        let listener = Listener::new(&settings(client), signals)?;
        let (stop, refused) = (Arc::new(AtomicBool::new(false)), Arc::new(AtomicU64::new(0)));
        let (ends, refusals) = (Arc::clone(&stop), Arc::clone(&refused));
        let thread = std::thread::Builder::new()
            .name("signals".to_owned())
            .spawn(move || read(listener, &ends, &refusals))?;
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

fn settings(client: &ClientConfig) -> ClientConfig {
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
    client
}

/// Reads the topic's partitions, each on from where it stands.
struct Listener {
    consumer: BaseConsumer,
    signals: Signals,
    partitions: BTreeMap<i32, Place>,
}

/// How far a partition has been read.
struct Place {
    next: Offset,
    /// When something last came of it, or it was read again.
    heard: Instant,
}

impl Listener {
    fn new(client: &ClientConfig, signals: &Signals) -> KafkaResult<Self> {
        Ok(Self { consumer: client.create()?, signals: signals.clone(), partitions: BTreeMap::new() })
    }

    /// Takes in the next record, if one comes soon. Whether it is one that a gate has written.
    fn listen(&mut self) -> Option<bool> {
        // An error is a broker that is away, which librdkafka looks for itself.
        let Some(Ok(message)) = self.consumer.poll(LOOK) else {
            self.read_on();
            return None;
        };
        if let Some(place) = self.partitions.get_mut(&message.partition()) {
            *place = Place { next: Offset::Offset(message.offset() + 1), heard: Instant::now() };
        }
        // Not its headers: rdkafka's reader panics on a name that is not UTF-8.
        let taken = self.signals.take(Partition(message.partition()), message.key(), message.payload());
        Some(taken.is_ok())
    }

    /// Reads partitions again of which nothing comes.
    fn read_on(&mut self) {
        let topic = self.signals.topic().as_str();
        for (partition, place) in &mut self.partitions {
            if place.heard.elapsed() < READ_AGAIN {
                continue;
            }
            place.heard = Instant::now();
            let mut one = TopicPartitionList::new();
            one.add_partition(topic, *partition);
            // Where one of them fails it is tried again after as long.
            let sought = self.consumer.seek(topic, *partition, place.next, LOOK);
            let _ = sought.and_then(|()| self.consumer.resume(&one));
        }
    }

    /// Begins to read the partitions that are new.
    fn look_for_partitions(&mut self) {
        let topic = self.signals.topic().as_str();
        let Ok(metadata) = self.consumer.fetch_metadata(Some(topic), METADATA) else { return };
        let found = metadata.topics().iter().find(|t| t.name() == topic).map_or(0, |t| t.partitions().len());
        let found = i32::try_from(found).unwrap_or(i32::MAX);
        let fresh: Vec<i32> =
            (0..found).filter(|partition| !self.partitions.contains_key(partition)).collect();
        let mut list = TopicPartitionList::new();
        for partition in &fresh {
            // The offset is one that librdkafka knows by name, so it is taken.
            let _ = list.add_partition_offset(topic, *partition, Offset::Beginning);
        }
        if fresh.is_empty() || self.consumer.incremental_assign(&list).is_err() {
            return;
        }
        self.signals.listen(fresh.iter().copied().map(Partition));
        let heard = Instant::now();
        self.partitions.extend(fresh.iter().map(|of| (*of, Place { next: Offset::Beginning, heard })));
    }
}

fn read(mut listener: Listener, stop: &AtomicBool, refused: &AtomicU64) {
    let mut looked = None::<Instant>;
    while !stop.load(Ordering::Relaxed) {
        if listener.partitions.is_empty() || looked.is_none_or(|at| at.elapsed() > GROWTH) {
            listener.look_for_partitions();
            looked = Some(Instant::now());
        }
        if listener.listen() == Some(false) {
            refused.fetch_add(1, Ordering::Relaxed);
        }
    }
}

#[cfg(test)]
mod tests {
    use rdkafka::mocking::MockCluster;
    use rdkafka::producer::{BaseProducer, BaseRecord, Producer as _};

    use super::super::signals::Bounds;
    use super::*;
    use crate::authorize::ids::{Realm, Topic};
    use crate::authorize::trust::Trust;

    #[test]
    fn what_the_client_has_stopped_reading_is_read_on() {
        let cluster = MockCluster::new(1).unwrap();
        cluster.create_topic("signals", 1, 1).unwrap();
        let mut client = ClientConfig::new();
        client.set("bootstrap.servers", cluster.bootstrap_servers());
        let producer: BaseProducer = client.create().unwrap();
        let write = || {
            producer
                .send(BaseRecord::<str, str>::to("signals").partition(0).key("k").payload("no signal"))
                .unwrap();
            producer.flush(Duration::from_secs(30)).unwrap();
        };
        let (realm, topic) = (Realm::parse("test").unwrap(), Topic::parse("signals").unwrap());
        let signals = Signals::new(realm, topic, Trust::new(BTreeMap::new()), Bounds::default());
        let mut listener = Listener::new(&settings(&client), &signals).unwrap();
        let deadline = Instant::now() + Duration::from_secs(60);
        let hear = |listener: &mut Listener| {
            while listener.listen().is_none() {
                assert!(Instant::now() < deadline, "waited in vain");
            }
            listener.partitions[&0].next
        };
        while listener.partitions.is_empty() {
            listener.look_for_partitions();
        }
        write();
        assert_eq!(hear(&mut listener), Offset::Offset(1));
        // What nobody has asked the client for, and nobody is told of.
        let mut all = TopicPartitionList::new();
        all.add_partition("signals", 0);
        listener.consumer.pause(&all).unwrap();
        write();
        assert_eq!(hear(&mut listener), Offset::Offset(2), "each once");
    }
}
