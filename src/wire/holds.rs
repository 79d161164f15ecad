//! The records of a holds topic: `<partition>/<offset>/payload` holds the record and what was asked, in CBOR;
//! `<partition>/<offset>/state` how it is held, in JSON; `grant/<hash>` until when a spent grant is remembered. Limits: the
//! layouts are this project's own and have a version; what breaks them is refused whole, for a hold that cannot be read
//! must not be passed over.

use bytes::Bytes;
use minicbor::decode::Error as CborError;
use minicbor::{Decoder, Encoder};
use serde::{Deserialize, Serialize};
use serde_json::{Map, Value};

use crate::authorize::ids::{Coordinates, Offset, Partition, Topic, UnixMillis};
use crate::authorize::record::{Header, Record, TimestampType};
use crate::authorize::step_up::{AskedOf, Challenge, Entry, Hash16, Keep, Payload};

const VERSION: u8 = 1;
const GRANT: &str = "grant/";

/// What a key of the holds topic names.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum HoldKey {
    /// The payload of the record held from that offset.
    Payload(Offset),
    /// How it is held.
    State(Offset),
    /// A spent grant.
    Grant(Hash16),
}

/// Why a record of the holds topic cannot be read.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum HoldFormatError {
    /// Its key is none of this version's.
    #[error("its key is not known")]
    Key,
    /// It is of another partition.
    #[error("it is of partition {0}")]
    OtherPartition(i32),
    /// Its value does not read.
    #[error("its value is damaged, or of another version: {0}")]
    Value(String),
}

impl HoldKey {
    /// The key as it is written in the holds of that partition.
    pub fn encode(self, partition: Partition) -> Bytes {
        Bytes::from(match self {
            Self::Payload(source) => format!("{partition}/{source}/payload"),
            Self::State(source) => format!("{partition}/{source}/state"),
            Self::Grant(grant) => format!("{GRANT}{grant}"),
        })
    }

    /// Reads a key of the holds of that partition.
    ///
    /// # Errors
    /// Any other key.
    pub fn decode(key: &[u8], partition: Partition) -> Result<Self, HoldFormatError> {
        let text = std::str::from_utf8(key).map_err(|_| HoldFormatError::Key)?;
        if let Some(grant) = text.strip_prefix(GRANT) {
            return Hash16::parse(grant).map(Self::Grant).ok_or(HoldFormatError::Key);
        }
        let mut parts = text.split('/');
        let (Some(of), Some(source), Some(what), None) =
            (parts.next(), parts.next(), parts.next(), parts.next())
        else {
            return Err(HoldFormatError::Key);
        };
        let of: i32 = of.parse().map_err(|_| HoldFormatError::Key)?;
        let source = Offset(source.parse().map_err(|_| HoldFormatError::Key)?);
        if of != partition.0 {
            return Err(HoldFormatError::OtherPartition(of));
        }
        match what {
            "payload" => Ok(Self::Payload(source)),
            "state" => Ok(Self::State(source)),
            _ => Err(HoldFormatError::Key),
        }
    }
}

/// Key and value of a record for the holds of that partition; no value is a tombstone.
///
/// # Errors
/// What JSON refuses to write.
pub fn encode(keep: &Keep, partition: Partition) -> Result<(Bytes, Option<Bytes>), HoldFormatError> {
    let (key, value) = match keep {
        Keep::Payload(source, payload) => {
            (HoldKey::Payload(*source), payload.as_deref().map(encode_payload).transpose()?)
        }
        Keep::State(source, entry) => (
            HoldKey::State(*source),
            entry.as_ref().map(|entry| json(&Versioned { v: VERSION, of: entry })).transpose()?,
        ),
        Keep::Grant(grant, until) => (
            HoldKey::Grant(*grant),
            until.map(|until| json(&Versioned { v: VERSION, of: until })).transpose()?,
        ),
    };
    Ok((key.encode(partition), value.map(Bytes::from)))
}

/// Reads the value of `<partition>/<offset>/state`.
///
/// # Errors
/// Anything but what [`encode`] writes.
pub fn decode_state(value: &[u8]) -> Result<Entry, HoldFormatError> {
    versioned(value)
}

/// Reads the value of `grant/<hash>`.
///
/// # Errors
/// Anything but what [`encode`] writes.
pub fn decode_grant(value: &[u8]) -> Result<UnixMillis, HoldFormatError> {
    versioned(value)
}

#[derive(Serialize, Deserialize)]
struct Versioned<T> {
    v: u8,
    of: T,
}

fn versioned<T: for<'de> Deserialize<'de>>(value: &[u8]) -> Result<T, HoldFormatError> {
    let read: Versioned<T> = serde_json::from_slice(value).map_err(damaged)?;
    if read.v == VERSION { Ok(read.of) } else { Err(damaged("an unknown version")) }
}

fn json(value: &impl Serialize) -> Result<Vec<u8>, HoldFormatError> {
    serde_json::to_vec(value).map_err(damaged)
}

fn damaged(problem: impl ToString) -> HoldFormatError {
    HoldFormatError::Value(problem.to_string())
}

#[derive(Serialize, Deserialize)]
struct Asked {
    challenge: Challenge,
    value: Option<Map<String, Value>>,
}

fn encode_payload(payload: &Payload) -> Result<Vec<u8>, HoldFormatError> {
    let Payload { record, accepted, asked } = payload;
    let asked = match asked {
        Some(AskedOf { challenge, value }) => {
            Some(json(&Asked { challenge: challenge.clone(), value: value.clone() })?)
        }
        None => None,
    };
    let size = record.value.as_ref().map_or(0, Bytes::len) + asked.as_ref().map_or(0, Vec::len);
    let mut bytes = Vec::with_capacity(size + 2048);
    // A Vec takes all that is written to it: encoding into one has no way to fail.
    let written = (|| {
        let mut cbor = Encoder::new(&mut bytes);
        cbor.array(11)?.u8(VERSION)?;
        cbor.str(record.source.topic.as_str())?
            .i32(record.source.partition.0)?
            .i64(record.source.offset.0)?;
        cbor.i64(accepted.0)?;
        cbor.encode(record.timestamp.map(|at| at.0))?;
        cbor.u8(match record.timestamp_type {
            TimestampType::LogAppendTime => 0,
            TimestampType::CreateTime => 1,
            TimestampType::NotAvailable => 2,
        })?;
        optional(&mut cbor, record.key.as_deref())?;
        optional(&mut cbor, record.value.as_deref())?;
        cbor.array(record.headers.len() as u64)?;
        for header in &record.headers {
            cbor.bytes(&header.name)?;
            optional(&mut cbor, header.value.as_deref())?;
        }
        optional(&mut cbor, asked.as_deref())
    })();
    written.map_err(damaged)?;
    Ok(bytes)
}

type Written = Result<(), minicbor::encode::Error<std::convert::Infallible>>;

fn optional(cbor: &mut Encoder<&mut Vec<u8>>, bytes: Option<&[u8]>) -> Written {
    match bytes {
        Some(bytes) => cbor.bytes(bytes)?,
        None => cbor.null()?,
    };
    Ok(())
}

/// Reads the value of `<partition>/<offset>/payload`.
///
/// # Errors
/// Anything but what [`encode`] writes.
pub fn decode_payload(value: &[u8]) -> Result<Payload, HoldFormatError> {
    let mut cbor = Decoder::new(value);
    let (record, accepted, asked) = read_payload(&mut cbor).map_err(damaged)?;
    if cbor.position() != value.len() {
        return Err(damaged("more than one payload"));
    }
    let asked = match asked {
        Some(bytes) => {
            let Asked { challenge, value } = serde_json::from_slice(&bytes).map_err(damaged)?;
            Some(AskedOf { challenge, value })
        }
        None => None,
    };
    Ok(Payload { record, accepted, asked })
}

fn read_payload(cbor: &mut Decoder<'_>) -> Result<(Record, UnixMillis, Option<Bytes>), CborError> {
    let bad = || CborError::message("unexpected");
    if cbor.array()? != Some(11) || cbor.u8()? != VERSION {
        return Err(bad());
    }
    let topic = Topic::parse(cbor.str()?).map_err(|_| bad())?;
    let source = Coordinates { topic, partition: Partition(cbor.i32()?), offset: Offset(cbor.i64()?) };
    let accepted = UnixMillis(cbor.i64()?);
    let timestamp: Option<i64> = cbor.decode()?;
    let timestamp_type = match cbor.u8()? {
        0 => TimestampType::LogAppendTime,
        1 => TimestampType::CreateTime,
        2 => TimestampType::NotAvailable,
        _ => return Err(bad()),
    };
    let (key, value) = (take(cbor)?, take(cbor)?);
    let count = cbor.array()?.ok_or_else(bad)?;
    let mut headers = Vec::new();
    for _ in 0..count {
        let name = Bytes::copy_from_slice(cbor.bytes()?);
        headers.push(Header { name, value: take(cbor)? });
    }
    let record = Record { source, timestamp: timestamp.map(UnixMillis), timestamp_type, key, value, headers };
    Ok((record, accepted, take(cbor)?))
}

fn take(cbor: &mut Decoder<'_>) -> Result<Option<Bytes>, CborError> {
    if cbor.datatype()? == minicbor::data::Type::Null {
        cbor.null()?;
        return Ok(None);
    }
    Ok(Some(Bytes::copy_from_slice(cbor.bytes()?)))
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::wire::challenge::tests::full;

    fn payload() -> Payload {
        let source = Coordinates {
            topic: Topic::parse("payments.commands").unwrap(),
            partition: Partition(3),
            offset: Offset(42),
        };
        let record = Record {
            source,
            timestamp: Some(UnixMillis(1_893_455_996_000)),
            timestamp_type: TimestampType::LogAppendTime,
            key: Some(Bytes::from_static(b"")),
            value: None,
            headers: vec![
                Header::new("txn-token", "a.b.c"),
                Header { name: Bytes::from_static(b"\xff"), value: None },
            ],
        };
        let value = serde_json::json!({"amount": 12000}).as_object().cloned();
        let asked = Some(AskedOf { challenge: full(), value });
        Payload { record, accepted: UnixMillis(7), asked }
    }

    #[test]
    fn a_payload_comes_back_as_it_went() {
        for payload in [payload(), Payload { asked: None, ..payload() }] {
            let keep = Keep::Payload(Offset(42), Some(Box::new(payload.clone())));
            let (key, value) = encode(&keep, Partition(3)).unwrap();
            assert_eq!(&key[..], b"3/42/payload");
            assert_eq!(HoldKey::decode(&key, Partition(3)), Ok(HoldKey::Payload(Offset(42))));
            let value = value.unwrap();
            assert_eq!(decode_payload(&value).unwrap(), payload);
            for cut in 0..value.len() {
                assert!(decode_payload(&value[..cut]).is_err(), "cut at {cut}");
            }
            assert!(decode_payload(&[&value[..], &[0]].concat()).is_err());
        }
    }

    #[test]
    fn a_state_of_before_there_were_logins_is_read_and_one_with_a_login_comes_back_as_it_went() {
        let pending = r#""challenge":"0190a6c0-0000-7000-8000-000000000001","status":"open","asked_at":1,"until":2,
            "approvals":1,"reminders":0,"answers":[]"#;
        let before = format!(r#"{{"v":1,"of":{{"key":null,"wait":{{"Answers":{{{pending}}}}}}}}}"#);
        let plain = decode_state(before.as_bytes()).unwrap();
        assert!(!String::from_utf8(json(&plain).unwrap()).unwrap().contains("login"));
        let login = r#","login":{"token":"a.b.c","issued_at":1893456000.5,"due":true}"#;
        let with = before.replace("\"answers\":[]", &format!("\"answers\":[]{login}"));
        let entry = decode_state(with.as_bytes()).unwrap();
        assert_ne!(entry, plain);
        assert!(!format!("{entry:?}").contains("a.b.c"));
        let (_, value) = encode(&Keep::State(Offset(1), Some(entry.clone())), Partition(3)).unwrap();
        assert_eq!(decode_state(&value.unwrap()).unwrap(), entry);
    }

    #[test]
    fn keys_are_of_their_partition_and_nothing_else_is_a_key() {
        let grant = Hash16::of_grant("https://login.example.com", "a-1");
        let (key, value) = encode(&Keep::Grant(grant, Some(UnixMillis(9))), Partition(3)).unwrap();
        assert_eq!(HoldKey::decode(&key, Partition(3)), Ok(HoldKey::Grant(grant)));
        assert_eq!(decode_grant(&value.unwrap()).unwrap(), UnixMillis(9));
        assert_eq!(encode(&Keep::State(Offset(1), None), Partition(3)).unwrap().1, None);
        assert_eq!(HoldKey::decode(b"4/1/state", Partition(3)), Err(HoldFormatError::OtherPartition(4)));
        for bad in ["", "3/1", "3/1/other", "3/x/state", "x/1/state", "grant/", "grant/AAAA", "barrier"] {
            assert_eq!(HoldKey::decode(bad.as_bytes(), Partition(3)), Err(HoldFormatError::Key), "{bad}");
        }
        assert!(decode_grant(br#"{"v":2,"of":9}"#).is_err());
        assert!(decode_state(b"{}").is_err());
    }
}
