//! Replay entries of one batch and one partition as the value of one record of the `replay` topic. Limits: the layout is
//! this project's own and has a version in front; a value that breaks it in any way is refused whole, since memory with
//! a hole would let a copy pass.
//!
//! ```text
//! version      1 byte, 1
//! count        varint
//! count times:
//!   proof      16 bytes, H(sender, jti)
//!   offset     zigzag varint, difference to the entry before (the first: to 0)
//!   accepted   zigzag varint, milliseconds, difference to the entry before (the first: to 0)
//! ```
//!
//! Neighbours differ little, so an entry takes 18 to 20 bytes.

use crate::authorize::ids::{Offset, UnixMillis};
use crate::authorize::replay::Entry;

const VERSION: u8 = 1;
/// The least that an entry takes: its hash and two varints of one byte.
const MIN_ENTRY: usize = 18;

/// Why a value is no list of replay entries.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
pub enum ReplayFormatError {
    /// Written by another version of the project, or not by it at all.
    #[error("the replay record has an unknown version")]
    Version,
    /// It ends too early, holds more than it says, or a number does not fit.
    #[error("the replay record is damaged")]
    Damaged,
}

/// Writes the entries of a batch.
pub fn encode(entries: &[Entry]) -> Vec<u8> {
    let mut bytes = Vec::with_capacity(16 + entries.len() * 20);
    bytes.push(VERSION);
    put(&mut bytes, entries.len() as u64);
    let (mut offset, mut accepted) = (0_i64, 0_i64);
    for entry in entries {
        bytes.extend_from_slice(&entry.proof);
        put(&mut bytes, zigzag(entry.offset.0.wrapping_sub(offset)));
        put(&mut bytes, zigzag(entry.accepted.0.wrapping_sub(accepted)));
        (offset, accepted) = (entry.offset.0, entry.accepted.0);
    }
    bytes
}

/// Reads them back.
///
/// # Errors
/// Anything but what [`encode`] writes.
pub fn decode(bytes: &[u8]) -> Result<Vec<Entry>, ReplayFormatError> {
    let (version, mut rest) = bytes.split_first().ok_or(ReplayFormatError::Damaged)?;
    if *version != VERSION {
        return Err(ReplayFormatError::Version);
    }
    let count = usize::try_from(take(&mut rest)?).map_err(|_| ReplayFormatError::Damaged)?;
    // Checked before anything is allocated for it.
    if count > rest.len() / MIN_ENTRY {
        return Err(ReplayFormatError::Damaged);
    }
    let mut entries = Vec::with_capacity(count);
    let (mut offset, mut accepted) = (0_i64, 0_i64);
    for _ in 0..count {
        let (proof, after) = rest.split_first_chunk::<16>().ok_or(ReplayFormatError::Damaged)?;
        rest = after;
        offset = offset.wrapping_add(unzigzag(take(&mut rest)?));
        accepted = accepted.wrapping_add(unzigzag(take(&mut rest)?));
        entries.push(Entry { proof: *proof, offset: Offset(offset), accepted: UnixMillis(accepted) });
    }
    if rest.is_empty() { Ok(entries) } else { Err(ReplayFormatError::Damaged) }
}

/// Small numbers of either sign become small numbers.
fn zigzag(number: i64) -> u64 {
    ((number << 1) ^ (number >> 63)).cast_unsigned()
}

fn unzigzag(number: u64) -> i64 {
    (number >> 1).cast_signed() ^ -(number & 1).cast_signed()
}

/// LEB128: seven bits a byte, lowest first.
fn put(bytes: &mut Vec<u8>, mut number: u64) {
    while number >= 0x80 {
        bytes.push((number as u8) | 0x80);
        number >>= 7;
    }
    bytes.push(number as u8);
}

fn take(bytes: &mut &[u8]) -> Result<u64, ReplayFormatError> {
    let mut number = 0_u64;
    for shift in (0..64).step_by(7) {
        let (byte, rest) = bytes.split_first().ok_or(ReplayFormatError::Damaged)?;
        *bytes = rest;
        let bits = u64::from(byte & 0x7f);
        // The tenth byte has room for one bit.
        if shift == 63 && *byte > 1 {
            return Err(ReplayFormatError::Damaged);
        }
        number |= bits << shift;
        if byte & 0x80 == 0 {
            return Ok(number);
        }
    }
    Err(ReplayFormatError::Damaged)
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    fn entry(n: u8, offset: i64, accepted: i64) -> Entry {
        Entry { proof: [n; 16], offset: Offset(offset), accepted: UnixMillis(accepted) }
    }

    #[test]
    fn the_layout_is_fixed() {
        let bytes = encode(&[entry(7, 300, 5), entry(9, 301, 4)]);
        let mut expected = vec![1, 2];
        expected.extend_from_slice(&[7; 16]);
        expected.extend_from_slice(&[0xd8, 0x04, 10]);
        expected.extend_from_slice(&[9; 16]);
        expected.extend_from_slice(&[2, 1]);
        assert_eq!(bytes, expected);
    }

    #[test]
    fn a_batch_of_neighbours_takes_at_most_20_bytes_an_entry() {
        let entries: Vec<_> =
            (0..1000).map(|n| entry(n as u8, 5_000_000 + n, 1_893_456_000_000 + n * 7)).collect();
        assert!(encode(&entries).len() <= 1000 * 20 + 16);
    }

    #[test]
    fn what_is_damaged_is_refused_whole() {
        let good = encode(&[entry(1, 1, 1), entry(2, 2, 2)]);
        for cut in 0..good.len() {
            assert!(decode(&good[..cut]).is_err(), "cut at {cut}");
        }
        assert_eq!(decode(&[&good[..], &[0]].concat()), Err(ReplayFormatError::Damaged));
        assert_eq!(decode(&[2, 0]), Err(ReplayFormatError::Version));
        assert_eq!(
            decode(&[1, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 1]),
            Err(ReplayFormatError::Damaged)
        );
        assert_eq!(
            decode(&[1, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 2]),
            Err(ReplayFormatError::Damaged)
        );
        assert_eq!(decode(&[1, 0]), Ok(vec![]));
    }

    proptest! {
        #[test]
        fn entries_survive(list in proptest::collection::vec((any::<[u8; 16]>(), any::<i64>(), any::<i64>()), 0..20)) {
            let entries: Vec<_> = list
                .into_iter()
                .map(|(proof, offset, accepted)| Entry {
                    proof, offset: Offset(offset), accepted: UnixMillis(accepted),
                })
                .collect();
            prop_assert_eq!(decode(&encode(&entries)).unwrap(), entries);
        }

        #[test]
        fn reading_never_panics(bytes in proptest::collection::vec(any::<u8>(), 0..100)) {
            let _ = decode(&bytes);
        }
    }
}
