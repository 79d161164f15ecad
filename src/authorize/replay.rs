//! Which proofs of one partition have been seen (contract, section 4). What a batch adds is a delta, layered over what is
//! committed, merged when its transaction commits and dropped when it aborts, so redelivery never meets itself. Limits:
//! one partition; who restores it and who writes it down is for the stream.

use std::collections::{BTreeMap, HashMap, VecDeque};

use super::ids::{Offset, UnixMillis, WorkloadId};
use super::jose::sha256;
use super::route::Route;

/// A proof that was seen: 16 bytes of SHA-256 over sender and `jti`.
pub type ProofHash = [u8; 16];

/// A proof, where it stood, and when its record was accepted.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Entry {
    /// H(sender, jti).
    pub proof: ProofHash,
    /// The offset of the record that carried it.
    pub offset: Offset,
    /// *E* of that record.
    pub accepted: UnixMillis,
}

impl Entry {
    /// The entry for a sender's `jti`.
    pub fn new(sender: &WorkloadId, jti: &str, offset: Offset, accepted: UnixMillis) -> Self {
        // An identifier holds no line feed, so sender and jti cannot run into each other.
        let digest = sha256(&[sender.as_str().as_bytes(), b"\n", jti.as_bytes()]);
        let mut proof = [0; 16];
        proof.iter_mut().zip(digest.0).for_each(|(to, from)| *to = from);
        Self { proof, offset, accepted }
    }
}

/// What the memory says about a proof.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Seen {
    /// Never before.
    New,
    /// Before, at the same offset: the record is read again, and decided again.
    Redelivered,
    /// Before, at another offset.
    Replayed,
}

/// How long a proof must be remembered on that route, in milliseconds of *E*: proof life and twice the skew. Where a
/// producer's timestamp is *E*, longer by the time that a record may wait, and by one skew more, because there a sender
/// can move *E* ahead by that much and so hasten forgetting.
pub fn window_ms(route: &Route) -> i64 {
    let mut seconds = i64::from(route.proof_life_s) + 2 * i64::from(route.skew_s);
    if route.trust_create_time {
        seconds += i64::from(route.max_queue_time_s) + i64::from(route.skew_s);
    }
    seconds * 1000
}

/// Generations in one window. Forgetting drops a whole one, so an entry lives at most this fraction longer than it must.
const GENERATIONS: i64 = 4;

/// The proofs of one partition.
///
/// By the table's layout an entry takes 24 bytes and one of control, in a table that is 44 to 88 % full: 29 to 57 bytes,
/// 41 on average.
#[derive(Debug)]
pub struct Memory {
    window_ms: i64,
    width_ms: i64,
    /// By *E* / width.
    committed: BTreeMap<i64, HashMap<ProofHash, Offset>>,
    /// Oldest first: one for each batch whose transaction is open.
    pending: VecDeque<Delta>,
}

#[derive(Debug, Default)]
struct Delta {
    entries: Vec<Entry>,
    index: HashMap<ProofHash, Offset>,
}

impl Memory {
    /// An empty memory that keeps entries for [`window_ms`].
    pub fn new(window_ms: i64) -> Self {
        let window_ms = window_ms.max(1);
        let width_ms = (window_ms / GENERATIONS).max(1);
        Self { window_ms, width_ms, committed: BTreeMap::new(), pending: VecDeque::new() }
    }

    /// Whether that proof was seen, in what is committed or in any open batch.
    pub fn check(&self, entry: &Entry) -> Seen {
        let open = self.pending.iter().rev().map(|delta| &delta.index);
        let committed = self.committed.values().rev();
        match open.chain(committed).find_map(|seen| seen.get(&entry.proof)) {
            None => Seen::New,
            Some(offset) if *offset == entry.offset => Seen::Redelivered,
            Some(_) => Seen::Replayed,
        }
    }

    /// Opens the delta of a batch; it lies over those of the batches before.
    pub fn begin(&mut self) {
        self.pending.push_back(Delta::default());
    }

    /// Remembers a proof in the newest open batch; begins one if none is open.
    pub fn stage(&mut self, entry: Entry) {
        if self.pending.is_empty() {
            self.begin();
        }
        if let Some(delta) = self.pending.back_mut() {
            // Twice in one batch can only be the same record read again.
            if delta.index.insert(entry.proof, entry.offset).is_none() {
                delta.entries.push(entry);
            }
        }
    }

    /// What the newest open batch remembers, in the order of its records: what its transaction must write down.
    pub fn staged(&self) -> &[Entry] {
        self.pending.back().map_or(&[], |delta| &delta.entries)
    }

    /// The oldest open batch is committed. Forgets what that batch's *E* shows to be past the window.
    pub fn merge_oldest(&mut self) {
        let Some(delta) = self.pending.pop_front() else { return };
        // By the lowest *E* of the batch, never by the gate's clock: a backlog is decided long after it was accepted,
        // and a copy in it must still meet its original.
        let lowest = delta.entries.iter().map(|entry| entry.accepted).min();
        self.restore(delta.entries);
        if let Some(UnixMillis(lowest)) = lowest {
            self.forget(UnixMillis(lowest.saturating_sub(self.window_ms)));
        }
    }

    /// Every open batch is aborted.
    pub fn drop_all_pending(&mut self) {
        self.pending.clear();
    }

    /// Forgets committed entries accepted before that moment, as far as whole generations lie before it.
    pub fn forget(&mut self, before: UnixMillis) {
        let first_kept = before.0.div_euclid(self.width_ms);
        while let Some(oldest) = self.committed.first_entry() {
            if *oldest.key() >= first_kept {
                break;
            }
            oldest.remove();
        }
    }

    /// Adds entries that are known to be committed.
    pub fn restore(&mut self, entries: impl IntoIterator<Item = Entry>) {
        for entry in entries {
            let generation = entry.accepted.0.div_euclid(self.width_ms);
            self.committed.entry(generation).or_default().insert(entry.proof, entry.offset);
        }
    }

    /// How many proofs are committed to memory.
    pub fn len(&self) -> usize {
        self.committed.values().map(HashMap::len).sum()
    }

    /// Whether nothing is committed to memory.
    pub fn is_empty(&self) -> bool {
        self.committed.values().all(HashMap::is_empty)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    fn entry(jti: &str, offset: i64, accepted: i64) -> Entry {
        let sender = WorkloadId::parse("spiffe://example.org/a").unwrap();
        Entry::new(&sender, jti, Offset(offset), UnixMillis(accepted))
    }

    #[test]
    fn a_copy_is_replayed_and_the_same_offset_is_redelivery() {
        let mut memory = Memory::new(360_000);
        assert_eq!(memory.check(&entry("a", 1, 0)), Seen::New);
        memory.begin();
        memory.stage(entry("a", 1, 0));
        for _ in 0..2 {
            assert_eq!(memory.check(&entry("a", 1, 0)), Seen::Redelivered);
            assert_eq!(memory.check(&entry("a", 2, 0)), Seen::Replayed);
            assert_eq!(memory.check(&entry("b", 2, 0)), Seen::New);
            memory.merge_oldest();
        }
    }

    #[test]
    fn a_jti_belongs_to_its_sender() {
        let other = WorkloadId::parse("spiffe://example.org/b").unwrap();
        assert_ne!(Entry::new(&other, "a", Offset(1), UnixMillis(0)).proof, entry("a", 1, 0).proof);
    }

    #[test]
    fn an_aborted_batch_leaves_nothing_and_a_committed_one_all() {
        let mut memory = Memory::new(360_000);
        memory.begin();
        memory.stage(entry("a", 1, 0));
        memory.begin();
        memory.stage(entry("b", 2, 0));
        assert_eq!(memory.check(&entry("a", 9, 0)), Seen::Replayed);
        assert_eq!(memory.staged(), [entry("b", 2, 0)]);
        memory.merge_oldest();
        memory.drop_all_pending();
        assert_eq!(memory.len(), 1);
        assert_eq!(memory.check(&entry("a", 9, 0)), Seen::Replayed);
        assert_eq!(memory.check(&entry("b", 9, 0)), Seen::New);
        memory.merge_oldest();
        assert_eq!(memory.len(), 1);
    }

    #[test]
    fn redelivery_is_written_down_once_a_batch() {
        let mut memory = Memory::new(360_000);
        memory.stage(entry("a", 1, 0));
        memory.stage(entry("a", 1, 5));
        assert_eq!(memory.staged().len(), 1);
    }

    #[test]
    fn nothing_inside_the_window_is_forgotten_and_everything_past_it_is() {
        let mut memory = Memory::new(360_000);
        memory.stage(entry("a", 1, 1_000_000));
        memory.merge_oldest();
        memory.stage(entry("b", 2, 1_360_000));
        memory.merge_oldest();
        assert_eq!(memory.check(&entry("a", 9, 1_360_000)), Seen::Replayed);
        memory.stage(entry("c", 3, 1_360_000 + 90_000));
        memory.merge_oldest();
        assert_eq!(memory.check(&entry("a", 9, 0)), Seen::New);
        assert_eq!(memory.len(), 2);
    }

    #[test]
    fn one_old_record_in_a_batch_keeps_what_it_might_have_been_copied_from() {
        let mut memory = Memory::new(360_000);
        memory.stage(entry("a", 1, 0));
        memory.merge_oldest();
        memory.stage(entry("b", 2, 10_000_000));
        memory.stage(entry("c", 3, 300_000));
        memory.merge_oldest();
        assert_eq!(memory.check(&entry("a", 4, 300_000)), Seen::Replayed);
    }

    #[test]
    fn what_is_restored_is_known() {
        let mut memory = Memory::new(360_000);
        memory.restore([entry("a", 1, 0), entry("b", 2, -5)]);
        assert_eq!(memory.check(&entry("a", 1, 7)), Seen::Redelivered);
        assert_eq!(memory.check(&entry("b", 1, 7)), Seen::Replayed);
        memory.forget(UnixMillis(i64::MAX));
        assert!(memory.is_empty());
    }

    proptest! {
        /// Against the plain reading of the rule: the first record of a jti within the window counts.
        #[test]
        fn no_copy_within_the_window_passes(steps in proptest::collection::vec((0_u8..6, 0_i64..120_000), 1..60)) {
            let mut memory = Memory::new(360_000);
            let mut first: HashMap<u8, (i64, i64)> = HashMap::new();
            let mut at = 0;
            for (offset, (jti, later)) in steps.into_iter().enumerate() {
                at += later;
                let entry = entry(&jti.to_string(), offset as i64, at);
                let seen = memory.check(&entry);
                if let Some((_, accepted)) = first.get(&jti) && at - accepted <= 360_000 {
                    prop_assert_eq!(seen, Seen::Replayed);
                }
                if seen == Seen::New {
                    first.insert(jti, (offset as i64, at));
                    memory.stage(entry);
                    memory.merge_oldest();
                }
            }
        }
    }
}
