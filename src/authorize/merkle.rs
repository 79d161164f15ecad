//! The audit tree of a partition, as its compact range: enough to append a leaf and to name the root, in at most one
//! hash for each power of two (RFC 9162, section 2.1.1; C2SP tlog-checkpoint). Limits: it holds no leaves and makes no
//! proofs; whoever reads the audit topic can rebuild the whole tree.

use super::ids::Digest;
use super::jose::sha256;

/// The compact range of a Merkle tree: its size, and the roots of its perfect subtrees, largest first.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Range {
    size: u64,
    peaks: Vec<Digest>,
}

/// A size and peaks that do not belong together.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("a tree of {size} leaves has {expected} peaks, not {found}")]
pub struct InvalidRange {
    size: u64,
    expected: u32,
    found: usize,
}

impl Range {
    /// A range as it was kept: `peaks` must be one for each bit set in `size`.
    pub fn restore(size: u64, peaks: Vec<Digest>) -> Result<Self, InvalidRange> {
        if peaks.len() != size.count_ones() as usize {
            return Err(InvalidRange { size, expected: size.count_ones(), found: peaks.len() });
        }
        Ok(Self { size, peaks })
    }

    /// How many leaves there are; the index of the next one.
    pub fn size(&self) -> u64 {
        self.size
    }

    /// The roots of the perfect subtrees, largest first.
    pub fn peaks(&self) -> &[Digest] {
        &self.peaks
    }

    /// Appends the leaf of these bytes and returns its index.
    pub fn append(&mut self, entry: &[u8]) -> u64 {
        let index = self.size;
        let mut node = sha256(&[&[0], entry]);
        // INVARIANT: there is one peak for each bit set in `size`; a carry merges equal subtrees, right to left.
        let mut carry = self.size;
        while carry & 1 == 1 {
            if let Some(left) = self.peaks.pop() {
                node = join(&left, &node);
            }
            carry >>= 1;
        }
        self.peaks.push(node);
        self.size += 1;
        index
    }

    /// The root of the tree; of the empty tree, the hash of nothing.
    pub fn root(&self) -> Digest {
        let mut peaks = self.peaks.iter().rev();
        match peaks.next() {
            None => sha256(&[]),
            Some(last) => peaks.fold(*last, |right, left| join(left, &right)),
        }
    }
}

fn join(left: &Digest, right: &Digest) -> Digest {
    sha256(&[&[1], &left.0, &right.0])
}

#[cfg(test)]
mod tests {
    use super::*;

    /// The definition of RFC 9162, section 2.1.1, word for word.
    fn root_of(entries: &[Vec<u8>]) -> Digest {
        match entries {
            [] => sha256(&[]),
            [one] => sha256(&[&[0], one]),
            many => {
                let half = many.len().next_power_of_two() / 2;
                join(&root_of(&many[..half]), &root_of(&many[half..]))
            }
        }
    }

    #[test]
    fn the_range_has_the_root_of_the_whole_tree_at_every_size() {
        let mut range = Range::default();
        let mut entries = Vec::new();
        assert_eq!(range.root(), root_of(&entries));
        for i in 0..200u64 {
            let entry = i.to_be_bytes().to_vec();
            assert_eq!(range.append(&entry), i);
            entries.push(entry);
            assert_eq!(range.root(), root_of(&entries), "size {}", i + 1);
            assert_eq!(range.peaks().len(), range.size().count_ones() as usize);
        }
    }

    #[test]
    fn a_kept_range_goes_on_where_it_stopped_and_a_torn_one_is_refused() {
        let mut range = Range::default();
        for i in 0..13u8 {
            range.append(&[i]);
        }
        let mut kept = Range::restore(range.size(), range.peaks().to_vec()).unwrap();
        assert_eq!(kept, range);
        assert_eq!(kept.append(b"next"), range.append(b"next"));
        assert_eq!(kept.root(), range.root());
        assert!(Range::restore(13, range.peaks()[..1].to_vec()).is_err());
    }
}
