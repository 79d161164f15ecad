//! Records, partitions and positions between rdkafka's types and the project's. Limits: it asks nobody.

use std::collections::BTreeMap;

use rdkafka::error::{KafkaError, RDKafkaErrorCode as Code};
use rdkafka::message::{BorrowedMessage, Message as _};
use rdkafka::topic_partition_list::{Offset as KafkaOffset, TopicPartitionList, TopicPartitionListElem};

use super::fault::{fatal, retriable};
use crate::authorize::ids::{Coordinates, InvalidName, Offset, Partition, Position, Topic, UnixMillis};
use crate::authorize::record::{Header, Record, TimestampType};
use crate::stream::kafka_ffi;
use crate::stream::log::{Committed, LogError, Mark, TopicPartition};

/// A record as rdkafka hands it out, for whoever reads topics without a lane. Unlike rdkafka's own reader of headers it
/// does not panic on a name that is not UTF-8.
///
/// # Errors
/// The topic's name is not legal, which no broker allows.
pub fn record(message: &BorrowedMessage<'_>) -> Result<Record, InvalidName> {
    Ok(to_record(message, Topic::parse(message.topic())?))
}

/// The record, its bytes copied once into one piece that all of its parts share.
pub(super) fn to_record(message: &BorrowedMessage<'_>, topic: Topic) -> Record {
    let headers = kafka_ffi::headers(message);
    let (key, value) = (message.key(), message.payload());
    let length = key.map_or(0, <[u8]>::len)
        + value.map_or(0, <[u8]>::len)
        + headers.iter().map(|(name, value)| name.len() + value.map_or(0, <[u8]>::len)).sum::<usize>();
    let mut piece = bytes::BytesMut::with_capacity(length);
    let mut take = |part: &[u8]| {
        piece.extend_from_slice(part);
        piece.split().freeze()
    };
    let (timestamp, timestamp_type) = match message.timestamp() {
        rdkafka::Timestamp::NotAvailable => (None, TimestampType::NotAvailable),
        rdkafka::Timestamp::CreateTime(at) => (Some(UnixMillis(at)), TimestampType::CreateTime),
        rdkafka::Timestamp::LogAppendTime(at) => (Some(UnixMillis(at)), TimestampType::LogAppendTime),
    };
    Record {
        source: Coordinates {
            topic,
            partition: Partition(message.partition()),
            offset: Offset(message.offset()),
        },
        timestamp,
        timestamp_type,
        key: key.map(&mut take),
        value: value.map(&mut take),
        headers: headers
            .into_iter()
            .map(|(name, value)| Header { name: take(name), value: value.map(&mut take) })
            .collect(),
    }
}

pub(super) fn list_of(partitions: &[TopicPartition]) -> TopicPartitionList {
    let mut list = TopicPartitionList::with_capacity(partitions.len());
    for of in partitions {
        list.add_partition(of.topic.as_str(), of.partition.0);
    }
    list
}

pub(super) fn partitions_of(list: &TopicPartitionList) -> Vec<TopicPartition> {
    list.elements().iter().filter_map(partition_of).collect()
}

/// Whose element of a list it is.
pub(super) fn partition_of(element: &TopicPartitionListElem<'_>) -> Option<TopicPartition> {
    let topic = Topic::parse(element.topic()).ok()?;
    Some(TopicPartition { topic, partition: Partition(element.partition()) })
}

/// Where each partition of a list stands, if that is a number and no error stands beside it.
pub(super) fn places(list: &TopicPartitionList) -> BTreeMap<TopicPartition, Position> {
    let place = |offset| match offset {
        KafkaOffset::Offset(at) => Some(Position(at)),
        _ => None,
    };
    let elements = list.elements();
    let good = elements.iter().filter(|element| element.error().is_ok());
    good.filter_map(|element| Some((partition_of(element)?, place(element.offset())?))).collect()
}

pub(super) fn positions(marks: &[Mark]) -> Result<TopicPartitionList, LogError> {
    let mut list = TopicPartitionList::with_capacity(marks.len());
    for mark in marks {
        let mut element = list.add_partition(mark.of.topic.as_str(), mark.of.partition.0);
        element
            .set_offset(KafkaOffset::Offset(mark.position.0))
            .map_err(|error| fatal("send positions", &error))?;
        element.set_metadata(&mark.metadata);
    }
    Ok(list)
}

pub(super) fn read_committed(
    list: &TopicPartitionList,
    asked: &[TopicPartition],
) -> Result<BTreeMap<TopicPartition, Committed>, LogError> {
    const CALL: &str = "read committed positions";
    let metadata = kafka_ffi::metadata(list);
    let mut found: BTreeMap<TopicPartition, Committed> =
        asked.iter().map(|of| (of.clone(), Committed::Missing)).collect();
    for (element, metadata) in list.elements().iter().zip(metadata) {
        match element.error() {
            Ok(()) => {}
            Err(KafkaError::OffsetFetch(Code::UnstableOffsetCommit)) => {
                set(&mut found, element.topic(), element.partition(), Committed::Unsettled);
                continue;
            }
            Err(error) => return Err(retriable(CALL, &error)),
        }
        if let KafkaOffset::Offset(at) = element.offset() {
            // Metadata that is no text is nobody's; it counts as none.
            let metadata = String::from_utf8(metadata).unwrap_or_default();
            let committed = Committed::At(Position(at), metadata);
            set(&mut found, element.topic(), element.partition(), committed);
        }
    }
    Ok(found)
}

fn set(found: &mut BTreeMap<TopicPartition, Committed>, topic: &str, partition: i32, committed: Committed) {
    let place = found
        .iter_mut()
        .find(|(of, _)| of.topic.as_str() == topic && of.partition.0 == partition)
        .map(|(_, place)| place);
    if let Some(place) = place {
        *place = committed;
    }
}
