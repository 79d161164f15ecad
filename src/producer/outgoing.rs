//! A record before it is sent, what it asks for, and the headers that it gets. Limits: nothing is signed here.

use serde::Serialize;

use crate::authorize::ids::{Partition, Topic};
use crate::authorize::record::Header;
use crate::authorize::request::{Action, Resource, Workflow};

/// A record as it will be sent: the exact bytes, after serialisation. `None` is Kafka's null, which is not empty.
#[derive(Debug, Clone, Copy)]
pub struct Outgoing<'a> {
    /// The topic it goes to; the proof is good for no other.
    pub topic: &'a Topic,
    /// The partition, where the sender chooses it: the proof is then good for no other. Routes with
    /// `replay = "strict"` want this, or a key that maps there.
    pub partition: Option<Partition>,
    /// The key.
    pub key: Option<&'a [u8]>,
    /// The value.
    pub value: Option<&'a [u8]>,
    /// Its own headers, none of the contract's five; they go first.
    pub headers: &'a [Header],
    /// The names among `headers` that the proof covers. What it does not cover no mapping or policy can read.
    pub signed_headers: &'a [&'a str],
}

impl<'a> Outgoing<'a> {
    /// A record with a null key, a null value and no headers.
    pub fn new(topic: &'a Topic) -> Self {
        Self { topic, partition: None, key: None, value: None, headers: &[], signed_headers: &[] }
    }

    /// With that key.
    #[must_use]
    pub fn key(mut self, key: &'a [u8]) -> Self {
        self.key = Some(key);
        self
    }

    /// With that value.
    #[must_use]
    pub fn value(mut self, value: &'a [u8]) -> Self {
        self.value = Some(value);
        self
    }

    /// For that partition alone; send it there explicitly.
    #[must_use]
    pub fn partition(mut self, partition: i32) -> Self {
        self.partition = Some(Partition(partition));
        self
    }

    /// With those headers, of which the named ones are signed.
    #[must_use]
    pub fn headers(mut self, headers: &'a [Header], signed: &'a [&'a str]) -> Self {
        self.headers = headers;
        self.signed_headers = signed;
        self
    }
}

/// What the sender asks for. Each may be absent where the route derives it from the record; where both exist and differ,
/// the record is refused (contract, section 2.2).
#[derive(Debug, Clone, Default, PartialEq, Serialize)]
pub struct Asked {
    /// The AuthZEN action.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub action: Option<Action>,
    /// The AuthZEN resource.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub resource: Option<Resource>,
    /// The workflow, as the sender knows it.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub workflow: Option<Workflow>,
}

impl Asked {
    /// An action by its name on a resource by type and id.
    pub fn of(action: &str, resource_type: &str, resource_id: &str) -> Self {
        Self {
            action: Some(Action { name: action.into(), properties: None }),
            resource: Some(Resource { kind: resource_type.into(), id: resource_id.into(), properties: None }),
            workflow: None,
        }
    }
}

/// The headers of a record, in order. Live credentials: send them, never log them.
#[derive(Clone, PartialEq, Eq)]
pub struct Headers(Vec<Header>);

impl Headers {
    pub(super) fn new(headers: Vec<Header>) -> Self {
        Self(headers)
    }

    /// The headers one by one.
    pub fn as_slice(&self) -> &[Header] {
        &self.0
    }

    /// The headers, for another Kafka client than rdkafka.
    pub fn into_vec(self) -> Vec<Header> {
        self.0
    }
}

// By hand: values are live credentials.
impl std::fmt::Debug for Headers {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_list().entries(self.0.iter().map(|h| String::from_utf8_lossy(&h.name))).finish()
    }
}
