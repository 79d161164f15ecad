//! A record to be written, and the pair that every decision makes. Limits: plain values; `wire` fills them.

use bytes::Bytes;

use crate::authorize::ids::{Partition, Topic, UnixMillis};
use crate::authorize::record::Header;

/// A record to be written.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Outgoing {
    /// The topic.
    pub topic: Topic,
    /// The partition, always explicit.
    pub partition: Partition,
    /// The timestamp; `None` lets the client set the present time.
    pub timestamp: Option<UnixMillis>,
    /// The key; `None` is null.
    pub key: Option<Bytes>,
    /// The value; `None` is null.
    pub value: Option<Bytes>,
    /// The headers, in order.
    pub headers: Vec<Header>,
}

/// What one decision makes: all of it is written, or none.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Effects {
    /// The forwarded record or the dead letter.
    pub outcome: Outgoing,
    /// The audit record.
    pub audit: Outgoing,
}
