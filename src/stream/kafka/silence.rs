//! Partitions of which nothing comes although something stands there. The client is said not to go on with each of them, at times,
//! when a broker comes back, and to tell nobody (librdkafka, its issue 5153, open; not seen here). Limits: it finds them; from
//! where they are read again, the lane knows.

use std::collections::BTreeMap;
use std::time::{Duration, Instant};

use rdkafka::consumer::{BaseConsumer, Consumer as _, ConsumerContext};
use rdkafka::topic_partition_list::{Offset as KafkaOffset, TopicPartitionList};

use super::KafkaLog;
use super::aside::{Answer, Aside, SideClient};
use super::callbacks::Reader;
use super::convert::places;
use super::left_over::ASKED;
use crate::authorize::ids::Position;
use crate::stream::log::{Event, TopicPartition};

/// Between two looks at how far reading has come.
const LOOK: Duration = Duration::from_secs(5);
/// What stands still for so long is asked about.
const FIRST: Duration = Duration::from_secs(10);
/// Each time that a partition was read again and nothing came, twice as long, up to this: what stands there may be the end of a
/// transaction only, or what was read may wait behind much of other partitions, and is read for nothing then.
const LAST: Duration = Duration::from_secs(600);

/// Where partitions end that were asked about.
type Ends = BTreeMap<TopicPartition, Position>;

/// What is known of the partitions that are being read.
pub(super) struct Silence {
    stands: BTreeMap<TopicPartition, Stand>,
    polled: Option<Instant>,
    looked: Option<Instant>,
    aside: Aside<Ends>,
}

/// A partition, since reading was last seen to move there.
#[derive(Debug)]
struct Stand {
    at: Position,
    since: Instant,
    patience: Duration,
    /// Where it ended when it was last read again for want of anything.
    again: Option<Position>,
}

impl Stand {
    fn new(at: Position, now: Instant) -> Self {
        Self { at, since: now, patience: FIRST, again: None }
    }

    fn is_long(&self, now: Instant) -> bool {
        now.duration_since(self.since) >= self.patience
    }
}

impl Silence {
    pub(super) fn new(client: &SideClient) -> Self {
        Self { stands: BTreeMap::new(), polled: None, looked: None, aside: Aside::new(client) }
    }

    /// Nothing can come while nobody asks for it: such a time does not count.
    fn polled(&mut self, now: Instant) {
        let before = self.polled.replace(now);
        if before.is_none_or(|before| now.duration_since(before) > LOOK) {
            self.stands.values_mut().for_each(|stand| stand.since = now);
        }
    }

    /// Takes in how far reading has come of each partition that is being read.
    fn look(&mut self, at: &BTreeMap<TopicPartition, Position>, now: Instant) {
        self.stands.retain(|of, _| at.contains_key(of));
        for (of, at) in at {
            let stand = self.stands.entry(of.clone()).or_insert_with(|| Stand::new(*at, now));
            if stand.at != *at {
                // Past that end, what came may have been written since.
                if stand.again.is_some_and(|end| at.0 <= end.0) {
                    tracing::warn!(
                        partition = %of,
                        position = %stand.at,
                        "the client had stopped reading a partition: it was told to read on, and does"
                    );
                }
                *stand = Stand::new(*at, now);
            }
        }
    }

    /// Those that have stood still for long.
    fn suspects(&self, now: Instant) -> Vec<TopicPartition> {
        self.stands.iter().filter(|(_, stand)| stand.is_long(now)).map(|(of, _)| of.clone()).collect()
    }

    /// Those of them that do not end where reading stands.
    fn judge(&mut self, ends: &Ends, now: Instant) -> Vec<TopicPartition> {
        let mut silent = Vec::new();
        for (of, end) in ends {
            let Some(stand) = self.stands.get_mut(of).filter(|stand| stand.is_long(now)) else { continue };
            stand.since = now;
            if end.0 > stand.at.0 {
                stand.patience = (stand.patience * 2).min(LAST);
                stand.again = Some(*end);
                silent.push(of.clone());
            }
        }
        silent
    }
}

/// Where partitions end, for readers of what is committed.
fn ends_of(client: &Reader, of: &[TopicPartition]) -> Option<Ends> {
    let mut asked = TopicPartitionList::with_capacity(of.len());
    for of in of {
        asked.add_partition_offset(of.topic.as_str(), of.partition.0, KafkaOffset::End).ok()?;
    }
    let found = client.offsets_for_times(asked, ASKED).ok()?;
    Some(places(&found))
}

impl Silence {
    /// Those of the partitions that are being read of which nothing comes although something stands there; looked for every few
    /// seconds. `reading` says from where each is read.
    pub(super) fn find<C: ConsumerContext>(
        &mut self,
        consumer: &BaseConsumer<C>,
        reading: &BTreeMap<TopicPartition, Position>,
    ) -> Vec<TopicPartition> {
        let now = Instant::now();
        self.polled(now);
        let ends = match self.aside.answer() {
            Answer::Awaited => return Vec::new(),
            Answer::Given(ends) => ends,
            Answer::Unasked | Answer::Failed => Ends::new(),
        };
        let is_due = self.looked.is_none_or(|looked| now.duration_since(looked) >= LOOK);
        if ends.is_empty() && !is_due {
            return Vec::new();
        }
        self.looked = Some(now);
        let Ok(passed) = consumer.position() else { return Vec::new() };
        self.look(&ahead(reading, &passed), now);
        let silent = self.judge(&ends, now);
        for of in &silent {
            tracing::debug!(partition = %of, "nothing comes of a partition: it is read again from where it stands");
        }
        let suspects = self.suspects(now);
        if !suspects.is_empty() {
            self.aside.ask("ends", move |client| ends_of(client, &suspects));
        }
        silent
    }
}

/// How far reading has come: where it was sent, or past that.
pub(super) fn ahead(
    reading: &BTreeMap<TopicPartition, Position>,
    passed: &TopicPartitionList,
) -> BTreeMap<TopicPartition, Position> {
    let passed = places(passed);
    let at = |of, sent: Position| passed.get(of).map_or(sent, |passed| sent.max(*passed));
    reading.iter().map(|(of, sent)| (of.clone(), at(of, *sent))).collect()
}

impl KafkaLog {
    /// Leaves word for the lane of each partition that has gone silent.
    pub(super) fn look_for_silence(&mut self) {
        for of in self.silence.find(&self.consumer, &self.reading) {
            self.consumer.context().push_back(Event::Silent(of));
        }
    }
}

#[cfg(test)]
mod tests {
    use rdkafka::ClientConfig;
    use rdkafka::producer::{BaseProducer, BaseRecord, Producer as _};

    use super::super::convert::list_of;
    use super::super::readers::Readers;
    use super::super::settings::KafkaSettings;
    use super::*;
    use crate::authorize::ids::{Offset, Partition, Topic};
    use crate::config::{Delivery, KafkaProperties};
    use crate::stream::kafka_ffi;
    use crate::stream::log::Log as _;

    fn of(partition: i32) -> TopicPartition {
        TopicPartition { topic: Topic::parse("a").unwrap(), partition: Partition(partition) }
    }

    fn at(positions: &[(i32, i64)]) -> BTreeMap<TopicPartition, Position> {
        positions.iter().map(|(partition, at)| (of(*partition), Position(*at))).collect()
    }

    #[test]
    fn what_stands_still_before_its_end_is_found_ever_more_rarely() {
        let (mut silence, begin) = (Silence::new(&SideClient::nobody()), Instant::now());
        let later = |seconds| begin + Duration::from_secs(seconds);
        silence.look(&at(&[(0, 5), (1, 5), (2, 5)]), begin);
        assert!(silence.suspects(later(9)).is_empty());
        silence.look(&at(&[(0, 5), (1, 6), (2, 5)]), later(9));
        assert_eq!(silence.suspects(later(10)), [of(0), of(2)]);
        // One has more to read, one has not, and of the third reading has gone on.
        let ends = at(&[(0, 7), (1, 7), (2, 5)]);
        assert_eq!(silence.judge(&ends, later(11)), [of(0)]);
        assert_eq!(silence.judge(&ends, later(12)), []);
        // What was at its end is asked about as soon as before, what was read again twice as late.
        assert_eq!(silence.suspects(later(21)), [of(1), of(2)]);
        assert_eq!(silence.suspects(later(31)), [of(0), of(1), of(2)]);
        assert_eq!(silence.judge(&at(&[(0, 7)]), later(31)), [of(0)]);
        assert!(!silence.suspects(later(70)).contains(&of(0)));
        // Where something comes, everything begins anew.
        silence.look(&at(&[(0, 7)]), later(71));
        assert_eq!(silence.suspects(later(81)), [of(0)]);
    }

    #[test]
    fn no_patience_is_longer_than_the_last() {
        let (mut silence, mut now) = (Silence::new(&SideClient::nobody()), Instant::now());
        silence.look(&at(&[(0, 5)]), now);
        for _ in 0..20 {
            now += LAST;
            assert_eq!(silence.judge(&at(&[(0, 6)]), now), [of(0)]);
        }
    }

    #[test]
    fn a_time_in_which_nobody_asks_for_records_does_not_count() {
        let (mut silence, begin) = (Silence::new(&SideClient::nobody()), Instant::now());
        silence.polled(begin);
        silence.look(&at(&[(0, 5)]), begin);
        let back = begin + Duration::from_secs(60);
        silence.polled(back);
        assert!(silence.suspects(back + Duration::from_secs(9)).is_empty());
        assert_eq!(silence.suspects(back + Duration::from_secs(10)), [of(0)]);
        // What is not read any more is forgotten.
        silence.look(&at(&[]), back);
        assert!(silence.suspects(back + LAST).is_empty());
    }

    /// A cluster in this process with a topic `a` of one partition.
    fn mock() -> BaseProducer {
        let host: BaseProducer = ClientConfig::new()
            .set("test.mock.num.brokers", "1")
            .set("bootstrap.servers", "unused:1")
            .create()
            .unwrap();
        kafka_ffi::set_mock_rebalance_delay(host.client(), Duration::ZERO);
        host.client().mock_cluster().unwrap().create_topic("a", 1, 1).unwrap();
        host
    }

    fn settings_of(host: &BaseProducer) -> KafkaSettings {
        let mut properties = KafkaProperties::default();
        properties.set("bootstrap.servers", host.client().mock_cluster().unwrap().bootstrap_servers());
        KafkaSettings {
            properties,
            group: "g".into(),
            member: None,
            is_first: true,
            writers: Vec::new(),
            topics: vec![of(0).topic],
            delivery: Delivery::AtLeastOnce,
            batch_bytes: None,
            transaction_timeout: Duration::from_secs(5),
        }
    }

    fn write(host: &BaseProducer, value: &str) {
        host.send(BaseRecord::<(), str>::to("a").partition(0).payload(value)).unwrap();
        host.flush(Duration::from_secs(30)).unwrap();
    }

    /// Looks at what comes until `found` finds something in it.
    fn wait<T>(mut found: impl FnMut() -> Option<T>) -> T {
        let deadline = Instant::now() + Duration::from_secs(90);
        loop {
            if let Some(found) = found() {
                return found;
            }
            assert!(Instant::now() < deadline, "waited in vain");
        }
    }

    #[test]
    fn where_a_client_has_stopped_reading_the_log_says_so_and_a_record_comes_again() {
        let host = mock();
        let mut log = KafkaLog::new(settings_of(&host)).unwrap();
        log.join().unwrap();
        let poll = |log: &mut KafkaLog| log.poll(Duration::from_millis(50)).unwrap();
        let assigned = |event| matches!(event, Event::Assigned(_)).then_some(());
        wait(|| assigned(poll(&mut log)));
        let record = |event| match event {
            Event::Record(record) => Some(record.source.offset),
            _ => None,
        };
        write(&host, "first");
        log.resume_at(&of(0), Position(0)).unwrap();
        assert_eq!(wait(|| record(poll(&mut log))), Offset(0));

        // What nobody has asked the client for, and nobody is told of.
        log.consumer.pause(&list_of(&[of(0)])).unwrap();
        write(&host, "second");
        let silent = wait(|| match poll(&mut log) {
            Event::Silent(of) => Some(of),
            Event::Idle => None,
            other => panic!("{other:?}"),
        });
        assert_eq!(silent, of(0));
        log.resume_at(&silent, Position(1)).unwrap();
        assert_eq!(wait(|| record(poll(&mut log))), Offset(1));
        // A partition that the lane has paused is not silent.
        log.pause(&[of(0)]).unwrap();
        assert!(log.reading.is_empty());
    }

    #[test]
    fn a_reader_beside_the_group_that_has_stopped_reading_is_replaced() {
        let host = mock();
        let settings = settings_of(&host);
        let mut readers = Readers::new(settings.clone(), SideClient::new(settings));
        readers.follow_answers(&[(of(0), Position(0))]).unwrap();
        write(&host, "first");
        let next = |readers: &mut Readers| {
            std::thread::sleep(Duration::from_millis(20));
            readers.next_answer().unwrap().map(|record| record.source.offset)
        };
        assert_eq!(wait(|| next(&mut readers)), Offset(0));
        readers.answers_reader().pause(&list_of(&[of(0)])).unwrap();
        write(&host, "second");
        assert_eq!(wait(|| next(&mut readers)), Offset(1));
    }
}
