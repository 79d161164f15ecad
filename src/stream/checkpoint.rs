//! The metadata of a committed position: `cs1.` and base64url of CBOR, holding who wrote it, where the replay window
//! starts, and the audit tree (docs/adr/0015). Limits: strict; what has our prefix and does not read is an error, what
//! has another is not ours.

use base64::Engine as _;
use base64::engine::general_purpose::URL_SAFE_NO_PAD;
use minicbor::decode::Error as CborError;
use minicbor::{Decoder, Encoder};

use crate::authorize::ids::{Digest, Position};
use crate::authorize::limits::MAX_OFFSET_METADATA;

const PREFIX: &str = "cs1.";
/// A lane writes with at most two producers; more ids would be room for somebody else's.
const MAX_WRITERS: u64 = 4;
/// Kafka's own bound is a string of 32 KiB; ids of this program are far below.
const MAX_WRITER_BYTES: usize = 249;

/// What stands beside a committed position.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct Checkpoint {
    /// The transactional ids of the lane that wrote it.
    pub writers: Vec<String>,
    /// The offset in the replay topic from which the memory must be read.
    pub window_start: i64,
    /// The number of leaves of the audit tree.
    pub leaves: u64,
    /// The peaks of the audit tree, largest first.
    pub peaks: Vec<Digest>,
    /// What stands there of held records; `None` where the route does not hold.
    pub holding: Option<Holding>,
}

/// What a checkpoint says of the records that wait for an answer.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct Holding {
    /// The first answer that has not been decided. The group has it as a committed position too, but brokers forget those of
    /// topics that the group does not subscribe to.
    pub answers: i64,
    /// How many records are held. A holds topic that gives back another number is not the one it was.
    pub held: u64,
    /// How many transactions have touched the partition. Answers and timers change what is remembered and move no position.
    pub turns: u64,
}

/// Why metadata could not be written or read.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum CheckpointError {
    /// More than the broker takes.
    #[error("{0} bytes of offset metadata, and at most {MAX_OFFSET_METADATA} can be kept")]
    TooLong(usize),
    /// It begins as ours and is not.
    #[error("offset metadata that begins with `cs1.` and does not read: {0}")]
    Malformed(&'static str),
}

impl Checkpoint {
    /// The text to commit.
    pub fn encode(&self) -> Result<String, CheckpointError> {
        let mut bytes = Vec::with_capacity(128 + 34 * self.peaks.len());
        let mut cbor = Encoder::new(&mut bytes);
        // A Vec takes all that is written to it: encoding into one has no way to fail.
        let written = (|| {
            cbor.map(if self.holding.is_some() { 7 } else { 4 })?.u8(0)?.array(self.writers.len() as u64)?;
            for writer in &self.writers {
                cbor.str(writer)?;
            }
            cbor.u8(1)?
                .i64(self.window_start)?
                .u8(2)?
                .u64(self.leaves)?
                .u8(3)?
                .array(self.peaks.len() as u64)?;
            for peak in &self.peaks {
                cbor.bytes(&peak.0)?;
            }
            if let Some(Holding { answers, held, turns }) = self.holding {
                cbor.u8(4)?.i64(answers)?.u8(5)?.u64(held)?.u8(6)?.u64(turns)?;
            }
            Ok::<(), minicbor::encode::Error<std::convert::Infallible>>(())
        })();
        written.map_err(|_| CheckpointError::Malformed("it could not be encoded"))?;
        let text = format!("{PREFIX}{}", URL_SAFE_NO_PAD.encode(&bytes));
        if text.len() > MAX_OFFSET_METADATA {
            return Err(CheckpointError::TooLong(text.len()));
        }
        Ok(text)
    }

    /// The checkpoint in this text, or `None` where the text is not ours.
    pub fn decode(text: &str) -> Result<Option<Self>, CheckpointError> {
        let Some(body) = text.strip_prefix(PREFIX) else { return Ok(None) };
        if text.len() > MAX_OFFSET_METADATA {
            return Err(CheckpointError::TooLong(text.len()));
        }
        let bytes =
            URL_SAFE_NO_PAD.decode(body).map_err(|_| CheckpointError::Malformed("it is no base64url"))?;
        read(&bytes).map_err(|_| CheckpointError::Malformed("it is not the CBOR of this version")).map(Some)
    }
}

fn read(bytes: &[u8]) -> Result<Checkpoint, CborError> {
    let mut cbor = Decoder::new(bytes);
    let bad = || CborError::message("unexpected");
    let mut found = Checkpoint::default();
    let members = match cbor.map()? {
        Some(4) => 4u8,
        Some(7) => 7,
        _ => return Err(bad()),
    };
    let mut holding = Holding::default();
    for key in 0..members {
        if cbor.u8()? != key {
            return Err(bad());
        }
        match key {
            0 => {
                let count = cbor.array()?.filter(|count| *count <= MAX_WRITERS).ok_or_else(bad)?;
                for _ in 0..count {
                    let writer = cbor.str()?;
                    if writer.is_empty() || writer.len() > MAX_WRITER_BYTES {
                        return Err(bad());
                    }
                    found.writers.push(writer.to_owned());
                }
            }
            1 => found.window_start = cbor.i64()?,
            2 => found.leaves = cbor.u64()?,
            4 => holding.answers = cbor.i64()?,
            5 => holding.held = cbor.u64()?,
            6 => holding.turns = cbor.u64()?,
            _ => {
                let count = cbor.array()?.ok_or_else(bad)?;
                if count != u64::from(found.leaves.count_ones()) {
                    return Err(bad());
                }
                for _ in 0..count {
                    let peak = cbor.bytes()?.try_into().map_err(|_| bad())?;
                    found.peaks.push(Digest(peak));
                }
            }
        }
    }
    if cbor.position() != bytes.len() || found.window_start < 0 || holding.answers < 0 {
        return Err(bad());
    }
    found.holding = (members == 7).then_some(holding);
    Ok(found)
}

impl Checkpoint {
    /// Where the replay window starts, as a position to read from.
    pub fn window(&self) -> Position {
        Position(self.window_start)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn full() -> Checkpoint {
        Checkpoint {
            writers: vec!["gate-a-0".into(), "gate-a-1".into()],
            window_start: 77,
            leaves: u64::MAX,
            peaks: (0..64).map(|i| Digest([i; 32])).collect(),
            holding: Some(Holding { answers: i64::MAX, held: u64::MAX, turns: u64::MAX }),
        }
    }

    #[test]
    fn the_largest_tree_fits_and_comes_back() {
        let text = full().encode().unwrap();
        assert!(text.len() <= MAX_OFFSET_METADATA, "{}", text.len());
        assert_eq!(Checkpoint::decode(&text), Ok(Some(full())));
        let empty = Checkpoint::default();
        assert_eq!(Checkpoint::decode(&empty.encode().unwrap()), Ok(Some(empty)));
    }

    #[test]
    fn what_is_not_ours_is_nobodys_and_what_is_torn_is_an_error() {
        assert_eq!(Checkpoint::decode(""), Ok(None));
        assert_eq!(Checkpoint::decode("cs2.AAAA"), Ok(None));
        let text = full().encode().unwrap();
        for cut in 4..text.len() {
            assert!(Checkpoint::decode(&text[..cut]).is_err(), "cut at {cut}");
        }
        assert!(Checkpoint::decode(&format!("{text}AAAA")).is_err());
        let torn = Checkpoint { leaves: 3, peaks: vec![Digest([0; 32])], ..Checkpoint::default() };
        assert!(Checkpoint::decode(&torn.encode().unwrap()).is_err(), "a tree of 3 leaves has 2 peaks");
    }

    #[test]
    fn more_than_a_broker_keeps_is_refused_before_it_is_sent() {
        let long = Checkpoint { writers: vec!["x".repeat(4000)], ..Checkpoint::default() };
        assert!(matches!(long.encode(), Err(CheckpointError::TooLong(_))));
    }
}
