//! Tokens that were verified: parsed and with their signature known to hold, so that a record of a known sender costs one
//! proof. Limits: shape and signature alone are remembered. Time, audience and binding are judged for each record, so an
//! entry never outlives its token; an entry says which trust it was verified under, so a key that is taken away ends it.

use std::collections::HashMap;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use super::claims::{Countersigned, Identity, Transaction};
use super::ids::Digest;
use super::jose::HeadCache;

/// Shards, so that lanes seldom wait for each other.
const SHARDS: usize = 16;

/// A verified token of a kind that is carried by many records. Proofs are never kept: each is used once.
#[derive(Debug, Clone)]
pub(super) enum Kept {
    Identity(Arc<Identity>),
    Transaction(Arc<Transaction>),
    Countersignature(Arc<Countersigned>),
}

/// How often the cache was asked.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct CacheCounts {
    /// Tokens found under the trust of the moment.
    pub hits: u64,
    /// Tokens that had to be verified.
    pub misses: u64,
}

/// Verified tokens of all senders of a gate, shared by its lanes.
///
/// Two generations a shard: when the young one is full it becomes the old one, and the old one goes. So the bound is
/// hard, forgetting costs nothing for each token, and whoever can get many tokens signed only shortens the memory. What
/// is used moves to the young generation and stays.
#[derive(Debug)]
pub struct TokenCache {
    shards: Vec<Mutex<Generations>>,
    /// Entries of one generation of one shard.
    capacity: usize,
    /// Of proofs, which are never kept themselves.
    heads: HeadCache,
    hits: AtomicU64,
    misses: AtomicU64,
}

#[derive(Debug, Default)]
struct Generations {
    young: HashMap<Digest, Entry>,
    old: HashMap<Digest, Entry>,
}

/// A token with what no claim of it says.
#[derive(Debug, Clone)]
pub(super) struct Entry {
    pub(super) kept: Kept,
    /// Its `kid`: a revocation may name it.
    pub(super) kid: Option<Arc<str>>,
    /// The version of the trust that it was verified under.
    pub(super) trust: Digest,
}

impl TokenCache {
    /// A cache of about that many tokens (rounded up to a multiple of 32). One holds the claims of a token of at most
    /// 8 KiB.
    pub fn new(max_entries: usize) -> Self {
        let shards = (0..SHARDS).map(|_| Mutex::default()).collect();
        let capacity = max_entries.div_ceil(SHARDS * 2).max(1);
        let (hits, misses) = (AtomicU64::new(0), AtomicU64::new(0));
        Self { shards, capacity, heads: HeadCache::default(), hits, misses }
    }

    /// The JOSE headers of proofs that were read before.
    pub(super) fn heads(&self) -> &HeadCache {
        &self.heads
    }

    /// How often it helped since this was last asked, by whoever asked.
    pub fn take_counts(&self) -> CacheCounts {
        CacheCounts {
            hits: self.hits.swap(0, Ordering::Relaxed),
            misses: self.misses.swap(0, Ordering::Relaxed),
        }
    }

    /// How many tokens it holds.
    pub fn len(&self) -> usize {
        let held = |shard: &Mutex<Generations>| {
            let shard = lock(shard);
            shard.young.len() + shard.old.len()
        };
        self.shards.iter().map(held).sum()
    }

    /// Whether it holds nothing.
    pub fn is_empty(&self) -> bool {
        self.len() == 0
    }

    /// The token of that hash.
    pub(super) fn get(&self, token: &Digest) -> Option<Entry> {
        let mut shard = lock(self.shard(token)?);
        if let Some(entry) = shard.young.get(token) {
            return Some(entry.clone());
        }
        let entry = shard.old.remove(token)?;
        let found = entry.clone();
        shard.insert(*token, entry, self.capacity);
        Some(found)
    }

    /// Remembers a token that was verified.
    pub(super) fn insert(&self, token: Digest, entry: Entry) {
        if let Some(shard) = self.shard(&token) {
            let mut shard = lock(shard);
            shard.old.remove(&token);
            shard.insert(token, entry, self.capacity);
        }
    }

    /// Counts a look that found, or did not find, a token under the trust of the moment.
    pub(super) fn count(&self, hit: bool) {
        let counter = if hit { &self.hits } else { &self.misses };
        counter.fetch_add(1, Ordering::Relaxed);
    }

    fn shard(&self, token: &Digest) -> Option<&Mutex<Generations>> {
        let [first, ..] = token.0;
        self.shards.get(usize::from(first) % SHARDS)
    }
}

impl Generations {
    fn insert(&mut self, token: Digest, entry: Entry, capacity: usize) {
        if self.young.len() >= capacity && !self.young.contains_key(&token) {
            self.old = std::mem::take(&mut self.young);
        }
        self.young.insert(token, entry);
    }
}

/// A thread that panicked while it held a shard left whole entries behind: nothing is half written.
fn lock(shard: &Mutex<Generations>) -> MutexGuard<'_, Generations> {
    shard.lock().unwrap_or_else(PoisonError::into_inner)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::authorize::jose::sha256;
    use crate::authorize::testing::transaction;

    fn token(n: u32) -> Digest {
        sha256(&[&n.to_be_bytes()])
    }

    fn kept(trust: [u8; 32]) -> Entry {
        let kept = Kept::Transaction(Arc::new(transaction()));
        Entry { kept, kid: None, trust: Digest(trust) }
    }

    #[test]
    fn the_bound_is_hard() {
        let cache = TokenCache::new(64);
        for n in 0..10_000 {
            cache.insert(token(n), kept([0; 32]));
            assert!(cache.len() <= 64);
        }
        assert!(cache.len() >= 32);
    }

    #[test]
    fn what_is_used_stays_and_what_is_not_goes() {
        let cache = TokenCache::new(64);
        cache.insert(token(0), kept([7; 32]));
        cache.insert(token(1), kept([7; 32]));
        for n in 2..2000 {
            cache.insert(token(n), kept([0; 32]));
            assert_eq!(cache.get(&token(0)).unwrap().trust, Digest([7; 32]));
        }
        assert!(cache.get(&token(1)).is_none());
    }

    #[test]
    fn the_newest_trust_is_the_one_that_is_remembered() {
        let cache = TokenCache::new(64);
        cache.insert(token(0), kept([1; 32]));
        cache.insert(token(0), kept([2; 32]));
        assert_eq!(cache.get(&token(0)).unwrap().trust, Digest([2; 32]));
        assert_eq!(cache.len(), 1);
        assert!(!cache.is_empty());
    }
}
