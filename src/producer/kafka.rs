//! Headers as rdkafka takes them. Limits: nothing else of the producer names a Kafka client, so another one is served by
//! [`Headers::into_vec`].

use rdkafka::message::{Header, OwnedHeaders};

use super::Headers;

impl From<Headers> for OwnedHeaders {
    fn from(headers: Headers) -> Self {
        headers.as_slice().iter().fold(Self::new_with_capacity(headers.as_slice().len()), |to, header| {
            // The signer refused every name that is not UTF-8, so nothing is lost here.
            to.insert(Header { key: &String::from_utf8_lossy(&header.name), value: header.value.as_deref() })
        })
    }
}
