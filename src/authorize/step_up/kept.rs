//! What the holds topic keeps: the held record with what was asked about it, how it is held, and marks of spent grants.
//! Limits: values; their bytes are made in `wire`.

use serde_json::{Map, Value};

use super::challenge::Challenge;
use super::entry::{Entry, Hash16};
use crate::authorize::ids::{Offset, UnixMillis};
use crate::authorize::record::Record;

/// A held record.
#[derive(Debug, Clone, PartialEq)]
pub struct Payload {
    /// The record as it was read from the source.
    pub record: Record,
    /// *E*, which a hold keeps.
    pub accepted: UnixMillis,
    /// What was asked; `None` while it waits behind another.
    pub asked: Option<AskedOf>,
}

/// What was asked about a held record.
#[derive(Debug, Clone, PartialEq)]
pub struct AskedOf {
    /// The challenge as it was first published.
    pub challenge: Challenge,
    /// What the route's mapping took from the record, for the policies about answers.
    pub value: Option<Map<String, Value>>,
}

/// A record for the holds topic; without content it is a tombstone.
#[derive(Debug, Clone, PartialEq)]
pub enum Keep {
    /// `<partition>/<offset>/payload`.
    Payload(Offset, Option<Box<Payload>>),
    /// `<partition>/<offset>/state`.
    State(Offset, Option<Entry>),
    /// `grant/<hash>`: spent, to be remembered until that moment.
    Grant(Hash16, Option<UnixMillis>),
}

/// What a step leaves behind beside its outcome.
#[derive(Debug, Default)]
pub struct Traces {
    /// For the holds topic, in order.
    pub kept: Vec<Keep>,
    /// Challenges as they now stand.
    pub told: Vec<Challenge>,
}
