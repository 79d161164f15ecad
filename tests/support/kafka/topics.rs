//! Making topics, writing records and reading them back, as a bystander of the program under test would. Every call
//! waits with a bound, over errors that pass, and fails the test when it runs out.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::{Mutex, MutexGuard, PoisonError};
use std::time::{Duration, Instant};

use countersign::stream::kafka::assignment;
use rdkafka::admin::{AdminClient, AdminOptions, AlterConfig, NewTopic, ResourceSpecifier, TopicReplication};
use rdkafka::client::{ClientContext, DefaultClientContext};
use rdkafka::config::ClientConfig;
use rdkafka::consumer::{BaseConsumer, Consumer as _};
use rdkafka::error::KafkaError;
use rdkafka::groups::GroupInfo;
use rdkafka::message::{BorrowedMessage, DeliveryResult, Header, Headers as _, Message as _, OwnedHeaders};
use rdkafka::producer::{BaseProducer, BaseRecord, Producer as _, ProducerContext};
use rdkafka::topic_partition_list::{Offset, TopicPartitionList};
use rdkafka::types::RDKafkaErrorCode::QueueFull;
use rdkafka::{Timestamp, producer::NoCustomPartitioner};

use super::Broker;

/// The bound of every wait here.
const PATIENCE: Duration = Duration::from_secs(60);
/// The bound of writing: brokers may be taken away for minutes meanwhile. The client gives a record up a little earlier.
const WRITE_PATIENCE: Duration = Duration::from_secs(600);

/// A record to be written.
#[derive(Clone, Debug, Default)]
pub struct NewRecord {
    /// `None` leaves the choice to the key, by librdkafka's partitioner.
    pub partition: Option<i32>,
    pub key: Option<Vec<u8>>,
    pub value: Option<Vec<u8>>,
    pub headers: Vec<(String, Option<Vec<u8>>)>,
    /// Milliseconds since 1970; `None` is the present.
    pub timestamp: Option<i64>,
}

/// A record read back, owned.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Record {
    pub partition: i32,
    pub offset: i64,
    pub timestamp: Timestamp,
    pub key: Option<Vec<u8>>,
    pub value: Option<Vec<u8>>,
    pub headers: Vec<(String, Option<Vec<u8>>)>,
}

/// What a group has committed for a partition.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Committed {
    /// The offset of the record to be read next.
    pub position: i64,
    pub metadata: String,
}

impl Record {
    /// The value of the first header of this name, as text.
    pub fn header(&self, name: &str) -> Option<&str> {
        let (_, value) = self.headers.iter().find(|(known, _)| known == name)?;
        std::str::from_utf8(value.as_deref()?).ok()
    }
}

impl Broker {
    /// Client settings with the address alone.
    pub fn client(&self) -> ClientConfig {
        let mut config = ClientConfig::new();
        config.set("bootstrap.servers", self.bootstrap());
        config
    }

    /// A name that no other test, and no earlier run on a lasting broker, has used.
    pub fn unique(&self, stem: &str) -> String {
        let id = uuid::Uuid::now_v7().simple().to_string();
        format!("{stem}.{}", &id[id.len() - 12..])
    }

    /// Makes a topic and returns its unique name.
    pub fn create_topic(&self, stem: &str, partitions: i32, settings: &[(&str, &str)]) -> String {
        let name = self.unique(stem);
        self.create_named(&name, partitions, settings);
        name
    }

    /// Makes a topic of a name that nobody else uses.
    pub fn create_named(&self, name: &str, partitions: i32, settings: &[(&str, &str)]) {
        let mut topic = NewTopic::new(name, partitions, TopicReplication::Fixed(self.copies));
        for (setting, value) in settings {
            topic = topic.set(setting, value);
        }
        let options = AdminOptions::new().operation_timeout(Some(PATIENCE));
        let results = wait(self.admin().create_topics([&topic], &options)).expect("the broker answers");
        for result in results {
            result.unwrap_or_else(|(topic, error)| panic!("topic `{topic}` was not made: {error}"));
        }
        // The controller answers before the broker has heard of it.
        partitions_of(&self.reader("read_committed"), name);
    }

    /// Deletes a topic, and returns when the broker does not know it any more.
    pub fn delete_topic(&self, topic: &str) {
        let options = AdminOptions::new().operation_timeout(Some(PATIENCE));
        let results = wait(self.admin().delete_topics(&[topic], &options)).expect("the broker answers");
        for result in results {
            result.unwrap_or_else(|(topic, error)| panic!("topic `{topic}` was not deleted: {error}"));
        }
        let reader = self.reader("read_committed");
        wait_until("a deleted topic is known", PATIENCE, || {
            let known = reader.fetch_metadata(None, PATIENCE);
            known.is_ok_and(|known| known.topics().iter().all(|known| known.name() != topic))
        });
    }

    /// Deletes the records of a partition before that offset.
    pub fn delete_records(&self, topic: &str, partition: i32, before: i64) {
        let mut offsets = TopicPartitionList::new();
        offsets.add_partition_offset(topic, partition, Offset::Offset(before)).expect("an offset");
        let options = AdminOptions::new().operation_timeout(Some(PATIENCE));
        let deleted = wait(self.admin().delete_records(&offsets, &options)).expect("the broker answers");
        for element in deleted.elements() {
            element.error().expect("the records are deleted");
        }
    }

    /// Gives a topic that setting, and the broker's own of all others.
    pub fn alter_topic(&self, topic: &str, setting: &str, value: &str) {
        let altered = AlterConfig::new(ResourceSpecifier::Topic(topic)).set(setting, value);
        let options = AdminOptions::new().request_timeout(Some(PATIENCE));
        let results = wait(self.admin().alter_configs([&altered], &options)).expect("the broker answers");
        for result in results {
            result.unwrap_or_else(|(_, error)| panic!("`{setting}` of `{topic}` was not set: {error}"));
        }
    }

    fn admin(&self) -> AdminClient<DefaultClientContext> {
        self.client().create().expect("an admin client")
    }

    /// Writes records, waits until the broker has them all, and tells each one's partition and offset.
    pub fn produce(&self, topic: &str, records: &[NewRecord]) -> Vec<(i32, i64)> {
        self.writer().write(topic, records)
    }

    /// A producer to keep: making one costs more than many records.
    pub fn writer(&self) -> Writer {
        let producer = self
            .client()
            .set("linger.ms", "5")
            .set("acks", "all")
            .set("enable.idempotence", "true")
            .set("message.timeout.ms", (WRITE_PATIENCE.as_millis() - 30_000).to_string())
            .set("retry.backoff.max.ms", "500")
            .set("reconnect.backoff.max.ms", "1000")
            .create_with_context(Receipts::default());
        Writer(producer.expect("a producer"), Mutex::default())
    }

    /// All committed records of a topic, by partition and offset; first waits until no transaction on it is open.
    pub fn read_to_end(&self, topic: &str) -> Vec<Record> {
        let (stable, all) = (self.reader("read_committed"), self.reader("read_uncommitted"));
        let partitions = partitions_of(&stable, topic);
        let settled = |partition| high_end(&stable, topic, partition) == high_end(&all, topic, partition);
        wait_until("a transaction stays open", PATIENCE, || (0..partitions).all(settled));
        read(&stable, topic, partitions)
    }

    /// Whether no transaction on the topic is open.
    pub fn is_settled(&self, topic: &str) -> bool {
        let (stable, all) = (self.reader("read_committed"), self.reader("read_uncommitted"));
        let ends = |reader, partition| high_end(reader, topic, partition);
        (0..partitions_of(&stable, topic)).all(|partition| ends(&stable, partition) == ends(&all, partition))
    }

    /// Where each partition of a topic ends, open transactions disregarded.
    pub fn ends(&self, topic: &str) -> BTreeMap<i32, i64> {
        let reader = self.reader("read_uncommitted");
        let partitions = 0..partitions_of(&reader, topic);
        partitions.map(|partition| (partition, high_end(&reader, topic, partition))).collect()
    }

    /// The records of a topic that a reader of committed records sees now, open transactions or not.
    pub fn read_stable(&self, topic: &str) -> Vec<Record> {
        let reader = self.reader("read_committed");
        read(&reader, topic, partitions_of(&reader, topic))
    }

    /// The records of a topic, those of open and aborted transactions included.
    pub fn read_uncommitted(&self, topic: &str) -> Vec<Record> {
        let reader = self.reader("read_uncommitted");
        read(&reader, topic, partitions_of(&reader, topic))
    }

    /// How many committed records a topic holds; first waits until no transaction on it is open.
    pub fn count(&self, topic: &str) -> usize {
        self.read_to_end(topic).len()
    }

    /// What a group has committed for each partition of a topic; a partition without a commit is left out.
    pub fn committed(&self, group: &str, topic: &str) -> BTreeMap<i32, Committed> {
        let reader: BaseConsumer = self
            .client()
            .set("group.id", group)
            .set("isolation.level", "read_committed")
            .create()
            .expect("a consumer");
        let mut asked = TopicPartitionList::new();
        asked.add_partition_range(topic, 0, partitions_of(&reader, topic) - 1);
        retry("the group's offsets", || {
            let answered = reader.committed_offsets(asked.clone(), PATIENCE)?;
            let elements = answered.elements();
            let found = elements.iter().filter_map(|element| {
                if let Err(error) = element.error() {
                    return Some(Err(error));
                }
                let Offset::Offset(position) = element.offset() else { return None };
                let metadata = element.metadata().to_owned();
                Some(Ok((element.partition(), Committed { position, metadata })))
            });
            found.collect()
        })
    }

    /// Who is in a group, in which state that is, and which partitions each member was given: for whoever reads of a failure.
    pub fn describe(&self, group: &str) -> String {
        let reader: BaseConsumer = self.client().create().expect("a client");
        let found = match reader.fetch_group_list(Some(group), PATIENCE) {
            Ok(found) => found,
            Err(error) => return format!("the group cannot be seen: {error}"),
        };
        let member =
            |id: &str, assigned: Option<&[u8]>| format!("\n    {id}: {:?}", assigned.map(assignment));
        let one = |group: &GroupInfo| {
            let members = group.members().iter().map(|of| member(of.id(), of.assignment()));
            format!("{} is {}{}", group.name(), group.state(), members.collect::<String>())
        };
        found.groups().iter().map(one).collect()
    }

    pub(super) fn reader(&self, isolation: &str) -> BaseConsumer {
        self.client()
            .set("group.id", self.unique("reader"))
            .set("isolation.level", isolation)
            .set("enable.auto.commit", "false")
            .set("enable.partition.eof", "true")
            .set("auto.offset.reset", "error")
            .set("fetch.wait.max.ms", "20")
            .create()
            .expect("a consumer")
    }
}

fn wait<F: Future>(answer: F) -> F::Output {
    let runtime = tokio::runtime::Builder::new_current_thread().enable_time().build().expect("a runtime");
    runtime.block_on(answer)
}

/// Calls the producer until nothing is in flight. (`flush` takes 100 ms at least, whatever the broker does.)
pub fn drain<C: ProducerContext<NoCustomPartitioner>>(producer: &BaseProducer<C>) {
    wait_until("records stay undelivered", WRITE_PATIENCE, || {
        producer.poll(Duration::from_millis(1));
        producer.in_flight_count() == 0
    });
}

fn read(reader: &BaseConsumer, topic: &str, partitions: i32) -> Vec<Record> {
    let mut assignment = TopicPartitionList::new();
    for partition in 0..partitions {
        assignment.add_partition_offset(topic, partition, Offset::Beginning).expect("an assignment");
    }
    reader.assign(&assignment).expect("the partitions are assigned");
    let mut unfinished: BTreeSet<i32> = (0..partitions).collect();
    let mut records = Vec::new();
    let deadline = Instant::now() + PATIENCE;
    let mut trouble = None;
    while !unfinished.is_empty() {
        assert!(
            Instant::now() < deadline,
            "partitions {unfinished:?} of `{topic}` were not read to their end: {trouble:?}"
        );
        match reader.poll(Duration::from_millis(100)) {
            None => {}
            // What arrives after a partition's end was seen belongs to a later reading.
            Some(Ok(message)) if unfinished.contains(&message.partition()) => {
                records.push(Record::from(&message))
            }
            Some(Ok(_)) => {}
            Some(Err(KafkaError::PartitionEOF(partition))) => drop(unfinished.remove(&partition)),
            // What does not pass shows in the partition that is not read to its end.
            Some(Err(error @ KafkaError::MessageConsumption(_))) => trouble = Some(error),
            Some(Err(error)) => panic!("reading `{topic}`: {error}"),
        }
    }
    records.sort_by_key(|record| (record.partition, record.offset));
    records
}

pub(super) fn partitions_of(reader: &BaseConsumer, topic: &str) -> i32 {
    let mut partitions = 0;
    wait_until("the topic is unknown", PATIENCE, || {
        let Ok(metadata) = reader.fetch_metadata(Some(topic), PATIENCE) else { return false };
        let known = metadata.topics().iter().find(|known| known.name() == topic && known.error().is_none());
        partitions = known.map_or(0, |known| known.partitions().len());
        partitions > 0
    });
    i32::try_from(partitions).expect("a partition count")
}

fn high_end(reader: &BaseConsumer, topic: &str, partition: i32) -> i64 {
    retry("the partition's ends", || reader.fetch_watermarks(topic, partition, PATIENCE)).1
}

/// What a broker answers, asked again while it does not.
fn retry<T>(what: &str, mut ask: impl FnMut() -> Result<T, KafkaError>) -> T {
    let deadline = Instant::now() + PATIENCE;
    loop {
        match ask() {
            Ok(answer) => return answer,
            Err(error) => assert!(Instant::now() < deadline, "{what}: {error}"),
        }
        std::thread::sleep(Duration::from_millis(50));
    }
}

fn wait_until(harm: &str, within: Duration, mut done: impl FnMut() -> bool) {
    let deadline = Instant::now() + within;
    while !done() {
        assert!(Instant::now() < deadline, "{harm} for more than {within:?}");
        std::thread::sleep(Duration::from_millis(1));
    }
}

impl NewRecord {
    fn to_outgoing<'a>(&'a self, topic: &'a str, index: usize) -> BaseRecord<'a, [u8], [u8], usize> {
        let mut headers = OwnedHeaders::new_with_capacity(self.headers.len());
        for (key, value) in &self.headers {
            headers = headers.insert(Header { key, value: value.as_deref() });
        }
        let mut outgoing = BaseRecord::with_opaque_to(topic, index).headers(headers);
        outgoing.partition = self.partition;
        outgoing.key = self.key.as_deref();
        outgoing.payload = self.value.as_deref();
        outgoing.timestamp = self.timestamp;
        outgoing
    }
}

impl From<&BorrowedMessage<'_>> for Record {
    fn from(message: &BorrowedMessage<'_>) -> Self {
        let headers = message.headers().into_iter().flat_map(|headers| headers.iter());
        Self {
            partition: message.partition(),
            offset: message.offset(),
            timestamp: message.timestamp(),
            key: message.key().map(<[u8]>::to_vec),
            value: message.payload().map(<[u8]>::to_vec),
            headers: headers
                .map(|header| (header.key.to_owned(), header.value.map(<[u8]>::to_vec)))
                .collect(),
        }
    }
}

/// A producer. Whoever writes waits for the others.
pub struct Writer(BaseProducer<Receipts>, Mutex<()>);

impl Writer {
    /// Writes records, waits until the broker has them all, and tells each one's partition and offset.
    pub fn write(&self, topic: &str, records: &[NewRecord]) -> Vec<(i32, i64)> {
        let all = self.try_write(topic, records);
        all.into_iter().map(|place| place.expect("every record has its place")).collect()
    }

    /// The same while brokers come and go: `None` for a record that the broker has, and did not say where. It does not where
    /// the record was sent twice and taken once, and a broker that has restarted knows the number of the last alone.
    pub fn try_write(&self, topic: &str, records: &[NewRecord]) -> Vec<Option<(i32, i64)>> {
        let _turn = self.1.lock().unwrap_or_else(PoisonError::into_inner);
        *self.receipts() = vec![None; records.len()];
        for (index, record) in records.iter().enumerate() {
            let mut outgoing = record.to_outgoing(topic, index);
            while let Err((error, refused)) = self.0.send(outgoing) {
                assert_eq!(error, KafkaError::MessageProduction(QueueFull), "record {index} cannot be sent");
                self.0.poll(Duration::from_millis(1));
                outgoing = refused;
            }
        }
        drain(&self.0);
        let receipts = std::mem::take(&mut *self.receipts());
        let taken = receipts.into_iter().map(|receipt| receipt.expect("every record has its receipt"));
        taken.map(|(partition, offset)| (offset >= 0).then_some((partition, offset))).collect()
    }

    fn receipts(&self) -> MutexGuard<'_, Vec<Option<(i32, i64)>>> {
        self.0.context().0.lock().expect("no receipt panicked")
    }
}

/// Where the broker put each record, by the record's index.
#[derive(Default)]
struct Receipts(Mutex<Vec<Option<(i32, i64)>>>);

impl ClientContext for Receipts {}

impl ProducerContext for Receipts {
    type DeliveryOpaque = usize;

    fn delivery(&self, result: &DeliveryResult<'_>, index: usize) {
        // A panic must not cross librdkafka: a record without a receipt fails the test later.
        if let (Ok(message), Ok(mut receipts)) = (result, self.0.lock()) {
            receipts[index] = Some((message.partition(), message.offset()));
        }
    }
}
