//! A record as JSON: `{"topic", "partition", "offset", "timestamp_ms", "timestamp_type", "key", "value", "headers"}`, bytes
//! in standard base64, as the contract's vectors have it. Limits: strict; a member that it does not know is an error.

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use bytes::Bytes;
use serde::Deserialize;

use crate::authorize::ids::{Coordinates, Offset, Partition, Topic, UnixMillis};
use crate::authorize::record::{Header, Record, TimestampType};

/// Why a text is no record.
#[derive(Debug, thiserror::Error)]
pub(super) enum RecordError {
    #[error("is no record: {0}")]
    Json(#[from] serde_json::Error),
    #[error("has a `{0}` that is not standard base64")]
    Base64(&'static str),
    #[error("has a {0}")]
    Topic(#[from] crate::authorize::ids::InvalidName),
    #[error("has a `{0}` below 0")]
    Negative(&'static str),
}

/// The record as it is written.
#[derive(Debug, Deserialize)]
#[serde(deny_unknown_fields)]
pub(super) struct WrittenRecord {
    topic: String,
    partition: i32,
    offset: i64,
    #[serde(default)]
    timestamp_ms: Option<i64>,
    #[serde(default)]
    timestamp_type: Option<WrittenType>,
    key: Option<String>,
    value: Option<String>,
    headers: Vec<(String, Option<String>)>,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq, Deserialize)]
enum WrittenType {
    LogAppendTime,
    CreateTime,
    NoTimestampType,
}

impl WrittenRecord {
    /// The record it stands for.
    pub(super) fn into_record(self) -> Result<Record, RecordError> {
        let bytes = |text: Option<String>, member| match text {
            None => Ok(None),
            Some(text) => match STANDARD.decode(text) {
                Ok(bytes) => Ok(Some(Bytes::from(bytes))),
                Err(_) => Err(RecordError::Base64(member)),
            },
        };
        if self.partition < 0 {
            return Err(RecordError::Negative("partition"));
        }
        if self.offset < 0 {
            return Err(RecordError::Negative("offset"));
        }
        let headers = self.headers.into_iter().map(|(name, value)| {
            Ok(Header { name: Bytes::from(name), value: bytes(value, "header value")? })
        });
        // Kafka writes -1 where there is no timestamp.
        let timestamp = self.timestamp_ms.filter(|at| *at >= 0).map(UnixMillis);
        Ok(Record {
            source: Coordinates {
                topic: Topic::parse(&self.topic)?,
                partition: Partition(self.partition),
                offset: Offset(self.offset),
            },
            timestamp,
            timestamp_type: match (timestamp, self.timestamp_type) {
                (None, _) | (_, Some(WrittenType::NoTimestampType) | None) => TimestampType::NotAvailable,
                (_, Some(WrittenType::LogAppendTime)) => TimestampType::LogAppendTime,
                (_, Some(WrittenType::CreateTime)) => TimestampType::CreateTime,
            },
            key: bytes(self.key, "key")?,
            value: bytes(self.value, "value")?,
            headers: headers.collect::<Result<_, RecordError>>()?,
        })
    }
}

/// Reads one record.
pub(super) fn parse(text: &str) -> Result<Record, RecordError> {
    serde_json::from_str::<WrittenRecord>(text)?.into_record()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn null_empty_and_absent_stay_apart() {
        let record = parse(
            r#"{"topic": "t", "partition": 0, "offset": 3, "timestamp_ms": 5, "timestamp_type": "CreateTime",
                "key": "", "value": null, "headers": [["a", "AQI="], ["a", null]]}"#,
        )
        .unwrap();
        assert_eq!((record.key.as_deref(), record.value), (Some(&b""[..]), None));
        assert_eq!(record.headers.len(), 2);
        assert_eq!(
            (record.headers[0].value.as_deref(), &record.headers[1].value),
            (Some(&[1, 2][..]), &None)
        );
        assert_eq!(record.timestamp_type, TimestampType::CreateTime);
    }

    #[test]
    fn what_is_not_exactly_a_record_is_refused() {
        let good =
            r#"{"topic": "t", "partition": 0, "offset": 0, "key": null, "value": null, "headers": []}"#;
        let record = parse(good).unwrap();
        assert_eq!((record.timestamp, record.timestamp_type), (None, TimestampType::NotAvailable));
        for (from, to) in [
            ("\"t\"", "\"a b\""),
            ("\"partition\": 0", "\"partition\": -1"),
            ("\"offset\": 0", "\"offset\": -1"),
            ("\"key\": null", "\"key\": \"====\""),
            ("\"key\": null", "\"key\": \"_w==\""),
            ("\"headers\": []", "\"headers\": {}"),
            ("\"headers\": []", "\"headers\": [], \"extra\": 1"),
            ("\"topic\": \"t\",", ""),
        ] {
            assert!(parse(&good.replace(from, to)).is_err(), "{to}");
        }
    }
}
