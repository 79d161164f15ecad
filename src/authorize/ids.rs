//! The names and numbers of the contract, as types that cannot be wrong: parsed once at the edge, compared byte for
//! byte afterwards. Limits: nothing here knows whether a name is trusted, only whether it is well formed.

use std::fmt;
use std::sync::Arc;

use base64::Engine as _;
use base64::engine::general_purpose::URL_SAFE_NO_PAD;
use serde::{Deserialize, Serialize};
use uuid::Uuid;

use super::text::Text;

/// Why a name was refused. The message is for a person and holds the rule that was broken, never the whole input.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("{kind} {problem}")]
pub struct InvalidName {
    kind: &'static str,
    problem: &'static str,
}

fn invalid(kind: &'static str, problem: &'static str) -> InvalidName {
    InvalidName { kind, problem }
}

macro_rules! name_type {
    ($(#[$doc:meta])* $name:ident) => {
        $(#[$doc])*
        #[derive(Clone, PartialEq, Eq, Hash, PartialOrd, Ord)]
        pub struct $name(Arc<str>);

        impl $name {
            /// The name as it is written.
            pub fn as_str(&self) -> &str {
                &self.0
            }

            /// The same, shared.
            pub fn text(&self) -> Text {
                Arc::clone(&self.0).into()
            }
        }
        impl fmt::Display for $name {
            fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                f.write_str(&self.0)
            }
        }
        impl fmt::Debug for $name {
            fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                write!(f, "{:?}", &*self.0)
            }
        }
        impl std::str::FromStr for $name {
            type Err = InvalidName;
            fn from_str(text: &str) -> Result<Self, InvalidName> {
                Self::parse(text)
            }
        }
    };
}

name_type! {
    /// The name of a Kafka cluster or environment: `[a-z0-9.-]{1,63}` (contract, section 1).
    Realm
}

impl Realm {
    /// Reads a realm, or says which rule it breaks.
    pub fn parse(text: &str) -> Result<Self, InvalidName> {
        if text.is_empty() || text.len() > 63 {
            return Err(invalid("realm", "must have 1 to 63 characters"));
        }
        if !text.bytes().all(|b| b.is_ascii_lowercase() || b.is_ascii_digit() || b == b'.' || b == b'-') {
            return Err(invalid("realm", "may hold only `a-z`, `0-9`, `.` and `-`"));
        }
        Ok(Self(text.into()))
    }

    /// The audience of a topic in this realm: `kafka://<realm>/<topic>` (contract, section 2.2).
    pub fn audience(&self, topic: &Topic) -> String {
        format!("kafka://{self}/{topic}")
    }
}

name_type! {
    /// A legal Kafka topic name: 1 to 249 of `[a-zA-Z0-9._-]`, neither `.` nor `..`.
    Topic
}

impl Topic {
    /// Reads a topic name, or says which rule it breaks.
    pub fn parse(text: &str) -> Result<Self, InvalidName> {
        if text.is_empty() || text.len() > 249 {
            return Err(invalid("topic", "must have 1 to 249 characters"));
        }
        if text == "." || text == ".." {
            return Err(invalid("topic", "may not be `.` or `..`"));
        }
        if !text.bytes().all(|b| b.is_ascii_alphanumeric() || matches!(b, b'.' | b'_' | b'-')) {
            return Err(invalid("topic", "may hold only letters, digits, `.`, `_` and `-`"));
        }
        Ok(Self(text.into()))
    }
}

name_type! {
    /// A trust domain: 1 to 255 of `[a-z0-9.-_]` (SPIFFE-ID, section 2.1).
    TrustDomain
}

impl TrustDomain {
    /// Reads a trust domain, or says which rule it breaks.
    pub fn parse(text: &str) -> Result<Self, InvalidName> {
        if text.is_empty() || text.len() > 255 {
            return Err(invalid("trust domain", "must have 1 to 255 characters"));
        }
        if !text
            .bytes()
            .all(|b| b.is_ascii_lowercase() || b.is_ascii_digit() || matches!(b, b'.' | b'-' | b'_'))
        {
            return Err(invalid("trust domain", "may hold only `a-z`, `0-9`, `.`, `-` and `_`"));
        }
        Ok(Self(text.into()))
    }
}

/// The identifier of a workload: a SPIFFE ID or a `wimse://` URI, both by SPIFFE's rules, with a path
/// (contract, section 2; SPIFFE-ID, section 2). Compared byte for byte.
#[derive(Clone, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct WorkloadId {
    uri: Arc<str>,
    domain: TrustDomain,
}

impl WorkloadId {
    /// Reads an identifier of at most 2,048 bytes, or says which rule it breaks.
    pub fn parse(text: &str) -> Result<Self, InvalidName> {
        const KIND: &str = "workload identifier";
        if text.len() > 2048 {
            return Err(invalid(KIND, "is longer than 2,048 bytes"));
        }
        let rest = text
            .strip_prefix("spiffe://")
            .or_else(|| text.strip_prefix("wimse://"))
            .ok_or_else(|| invalid(KIND, "must begin with `spiffe://` or `wimse://`"))?;
        let (domain, path) = rest.split_once('/').ok_or_else(|| invalid(KIND, "needs a path"))?;
        let domain = TrustDomain::parse(domain).map_err(|_| invalid(KIND, "has no legal trust domain"))?;
        for segment in path.split('/') {
            if segment.is_empty() || segment == "." || segment == ".." {
                return Err(invalid(KIND, "has an empty, `.` or `..` path segment"));
            }
            if !segment.bytes().all(|b| b.is_ascii_alphanumeric() || matches!(b, b'.' | b'-' | b'_')) {
                return Err(invalid(KIND, "has a character outside `[a-zA-Z0-9._-]` in its path"));
            }
        }
        Ok(Self { uri: text.into(), domain })
    }

    /// The whole URI.
    pub fn as_str(&self) -> &str {
        &self.uri
    }

    /// The same, shared.
    pub fn text(&self) -> Text {
        Arc::clone(&self.uri).into()
    }

    /// The trust domain inside the URI.
    pub fn trust_domain(&self) -> &TrustDomain {
        &self.domain
    }
}

impl fmt::Display for WorkloadId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.uri)
    }
}
impl fmt::Debug for WorkloadId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{:?}", &*self.uri)
    }
}
impl std::str::FromStr for WorkloadId {
    type Err = InvalidName;
    fn from_str(text: &str) -> Result<Self, InvalidName> {
        Self::parse(text)
    }
}

/// The number of a partition, from 0.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct Partition(pub i32);

/// Where a record stands in its partition: what was *read*.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct Offset(pub i64);

/// Where reading goes on: what is *committed*. One past the last offset decided; made here alone.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct Position(pub i64);

impl Offset {
    /// The position after this record.
    pub fn next(self) -> Position {
        Position(self.0.saturating_add(1))
    }
}

impl fmt::Display for Partition {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.0.fmt(f)
    }
}
impl fmt::Display for Offset {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.0.fmt(f)
    }
}
impl fmt::Display for Position {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.0.fmt(f)
    }
}

/// The coordinates of a record: `topic/partition/offset` (contract, section 6, `source`).
#[derive(Debug, Clone, PartialEq, Eq, Hash)]
pub struct Coordinates {
    /// The topic it stands on.
    pub topic: Topic,
    /// Its partition.
    pub partition: Partition,
    /// Its offset.
    pub offset: Offset,
}

impl fmt::Display for Coordinates {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}/{}/{}", self.topic, self.partition, self.offset)
    }
}

/// The id of one decision: a UUIDv7, handed in by the runtime (contract, section 6, `jti`).
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct DecisionId(pub Uuid);

impl fmt::Display for DecisionId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.0.as_hyphenated().fmt(f)
    }
}

/// A SHA-256 digest; written as base64url without padding, as every hash of the contract is.
#[derive(Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct Digest(pub [u8; 32]);

impl Digest {
    /// Reads the 43 characters of base64url that stand for 32 bytes; anything else is `None`.
    pub fn parse(text: &str) -> Option<Self> {
        let bytes = URL_SAFE_NO_PAD.decode(text).ok()?;
        bytes.try_into().ok().map(Self)
    }

    /// Whether that text is how this digest is written: of two digests, whether they are one.
    pub fn is_written(&self, text: &str) -> bool {
        Self::parse(text) == Some(*self)
    }

    /// The digest as it is written.
    pub fn text(&self) -> Text {
        self.with_text(|text| text.into())
    }

    fn with_text<T>(&self, then: impl FnOnce(&str) -> T) -> T {
        let mut text = [0; 43];
        // 32 bytes are 43 characters, all of ASCII.
        let length = URL_SAFE_NO_PAD.encode_slice(self.0, &mut text).unwrap_or(0);
        then(text.get(..length).and_then(|text| std::str::from_utf8(text).ok()).unwrap_or_default())
    }
}

impl fmt::Display for Digest {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.with_text(|text| f.write_str(text))
    }
}
impl fmt::Debug for Digest {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        fmt::Display::fmt(self, f)
    }
}

/// A moment, in milliseconds since the Unix epoch.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord, Serialize, Deserialize)]
pub struct UnixMillis(pub i64);

impl UnixMillis {
    /// The moment in seconds, as a NumericDate (RFC 7519, section 2) has it.
    pub fn as_seconds(self) -> f64 {
        self.0 as f64 / 1000.0
    }

    /// The last whole second that is not after this moment.
    pub fn whole_seconds(self) -> i64 {
        self.0.div_euclid(1000)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn identifiers_follow_the_rules_of_spiffe() {
        for good in ["spiffe://example.org/agent/payer", "wimse://a_b.c-d/x", "spiffe://d/A.b-_9/z"] {
            assert_eq!(WorkloadId::parse(good).unwrap().as_str(), good);
        }
        for bad in [
            "spiffe://example.org",
            "spiffe://example.org/",
            "spiffe://Example.org/a",
            "spiffe:///a",
            "spiffe://example.org/a//b",
            "spiffe://example.org/a/../b",
            "spiffe://example.org/a/",
            "spiffe://example.org:80/a",
            "spiffe://u@example.org/a",
            "spiffe://example.org/a?b",
            "spiffe://example.org/a#b",
            "spiffe://example.org/a%20b",
            "SPIFFE://example.org/a",
            "https://example.org/a",
            "spiffe://example.org/a\u{7}",
        ] {
            assert!(WorkloadId::parse(bad).is_err(), "{bad}");
        }
        let long = format!("spiffe://example.org/{}", "a".repeat(2048));
        assert!(WorkloadId::parse(&long).is_err());
    }

    #[test]
    fn topics_and_realms_are_kafkas_and_ours() {
        assert!(Topic::parse("payments.commands").is_ok());
        for bad in ["", ".", "..", "a b", "a/b", "ä"] {
            assert!(Topic::parse(bad).is_err(), "{bad}");
        }
        assert!(Realm::parse("prod-1.eu").is_ok());
        for bad in ["", "Prod", "a_b", "a/b"] {
            assert!(Realm::parse(bad).is_err(), "{bad}");
        }
    }

    #[test]
    fn a_digest_survives_writing_and_has_one_spelling() {
        let digest = Digest([7; 32]);
        assert_eq!(Digest::parse(&digest.to_string()), Some(digest));
        assert_eq!(digest.text(), URL_SAFE_NO_PAD.encode([7; 32]));
        assert!(digest.is_written(&digest.text()) && !digest.is_written(&Digest([8; 32]).text()));
        assert!(!digest.is_written("") && !digest.is_written(&format!("{digest}=")));
        assert_eq!(Digest::parse(&format!("{digest}=")), None);
        assert_eq!(Digest::parse("AAAA"), None);
    }
}
