//! A record as it was read from a topic: bytes and coordinates, nothing believed. Limits: no parsing happens here; a
//! header name is bytes, because a producer may write any.

use bytes::Bytes;

use super::ids::{Coordinates, UnixMillis};

/// Who set a record's timestamp.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum TimestampType {
    /// The broker, when it appended the record.
    LogAppendTime,
    /// The producer: whatever it liked.
    CreateTime,
    /// The record has none.
    NotAvailable,
}

impl TimestampType {
    /// The name that Kafka gives it, as it stands in audit records and dead letters.
    pub fn as_str(self) -> &'static str {
        match self {
            Self::LogAppendTime => "LogAppendTime",
            Self::CreateTime => "CreateTime",
            Self::NotAvailable => "NoTimestampType",
        }
    }
}

/// One header: a name (bytes; only ASCII names mean anything to a gate) and a value that may be null.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Header {
    /// The name as written.
    pub name: Bytes,
    /// The value; `None` is Kafka's null.
    pub value: Option<Bytes>,
}

impl Header {
    /// A header with a text name and a value.
    pub fn new(name: &str, value: impl Into<Bytes>) -> Self {
        Self { name: Bytes::copy_from_slice(name.as_bytes()), value: Some(value.into()) }
    }
}

/// A record as read. Cloning is cheap: the bytes are shared.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Record {
    /// Where it stands.
    pub source: Coordinates,
    /// Its timestamp, in milliseconds; `None` where it has none (Kafka writes -1).
    pub timestamp: Option<UnixMillis>,
    /// Who set the timestamp.
    pub timestamp_type: TimestampType,
    /// Its key; `None` is null, which is not the empty string.
    pub key: Option<Bytes>,
    /// Its value; `None` is null (a tombstone), which is not the empty string.
    pub value: Option<Bytes>,
    /// Its headers, in order, doubles included.
    pub headers: Vec<Header>,
}

impl Record {
    /// Bytes of its key, value and headers, names included.
    pub fn size(&self) -> usize {
        let length = |bytes: &Option<Bytes>| bytes.as_ref().map_or(0, Bytes::len);
        let headers = self.headers.iter().map(|header| header.name.len() + length(&header.value));
        headers.fold(length(&self.key) + length(&self.value), usize::saturating_add)
    }
}
