//! The digests that bind a token to a record (contract, section 2.2). Limits: bytes in, hashes out; who must have signed
//! which is decided elsewhere.

use super::ids::Digest;
use super::jose::{TokenKind, sha256, token_hash};
use super::limits::MAX_HEADERS;
use super::record::{Header, Record};

/// What stands on a record, each hashed once: for the proof, for the audit and for the countersignature.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Hashes {
    /// Of the key; `None` is null.
    pub key: Option<Digest>,
    /// Of the value; `None` is null.
    pub value: Option<Digest>,
    /// Of each token header in any case that is not null, in the order of the record. Past the most headers that a record may
    /// have there are no more: a record full of them is refused for that, and its audit record must still fit its topic, or
    /// whoever writes such a record has stopped the partition.
    pub tokens: Vec<(TokenKind, Digest)>,
}

impl Hashes {
    /// Hashes what stands on a record.
    pub fn of(record: &Record) -> Self {
        let token = |header: &Header| {
            let kind = TokenKind::of_header(&header.name)?;
            Some((kind, token_hash(header.value.as_ref()?)))
        };
        Self {
            key: of_bytes(record.key.as_deref()),
            value: of_bytes(record.value.as_deref()),
            tokens: record.headers.iter().filter_map(token).take(MAX_HEADERS).collect(),
        }
    }

    /// The hash of the only token of that kind, where there is one.
    pub fn token(&self, kind: TokenKind) -> Option<Digest> {
        self.tokens.iter().find(|(of, _)| *of == kind).map(|(_, hash)| *hash)
    }
}

/// The digest of a key or a value as stored; `None` for null, which is not the empty string.
pub fn of_bytes(bytes: Option<&[u8]>) -> Option<Digest> {
    bytes.map(|bytes| sha256(&[bytes]))
}

/// Whether a digest that a token writes down is this one; where there is none, whether the token says so.
pub fn are_written(digest: Option<Digest>, text: Option<&str>) -> bool {
    match (digest, text) {
        (None, None) => true,
        (Some(digest), Some(text)) => digest.is_written(text),
        _ => false,
    }
}

/// `kafka.headers.digest`: over each name in order and each of its occurrences in record order, name and value with
/// their lengths (4 bytes, big endian; `0xFFFFFFFF` for a null value). A name that the record lacks adds nothing.
pub fn of_headers(headers: &[Header], names: &[impl AsRef<str>]) -> Digest {
    let mut bytes = Vec::new();
    for name in names.iter().map(|name| name.as_ref().as_bytes()) {
        for header in headers.iter().filter(|header| header.name == name) {
            put(&mut bytes, name);
            match &header.value {
                Some(value) => put(&mut bytes, value),
                None => bytes.extend_from_slice(&u32::MAX.to_be_bytes()),
            }
        }
    }
    sha256(&[&bytes])
}

fn put(to: &mut Vec<u8>, part: &[u8]) {
    // Kafka bounds a header by 2^31 - 1 bytes, so the length always fits.
    let length = u32::try_from(part.len()).unwrap_or(u32::MAX);
    to.extend_from_slice(&length.to_be_bytes());
    to.extend_from_slice(part);
}

#[cfg(test)]
mod tests {
    use super::*;
    use bytes::Bytes;

    #[test]
    fn the_layout_is_the_contracts() {
        let null = Header { name: Bytes::from_static(b"b"), value: None };
        let headers = [Header::new("a", "x"), null, Header::new("c", "never"), Header::new("a", "")];
        let names = ["b", "absent", "a"];
        let expected = b"\0\0\0\x01b\xff\xff\xff\xff\0\0\0\x01a\0\0\0\x01x\0\0\0\x01a\0\0\0\0";
        assert_eq!(of_headers(&headers, &names), sha256(&[expected]));
        assert_eq!(of_headers(&headers, &["absent"]), sha256(&[]));
    }

    #[test]
    fn null_is_not_empty() {
        assert_eq!(of_bytes(None), None);
        assert_eq!(of_bytes(Some(b"")), Some(sha256(&[])));
    }
}
