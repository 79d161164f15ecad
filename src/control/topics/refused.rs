//! Records of the followed topics that were read and not applied, by topic and key, until a later record of that key is.
//! What may become good with another key is kept whole and tried again. Limits: bounded; past the bound the place of a record
//! stays known and its bytes do not.

use std::collections::BTreeMap;

use bytes::Bytes;

use super::pins::Taken;
use crate::authorize::ids::{Coordinates, Offset, Partition, Topic};

/// Bytes that are kept to be tried again, at most: whoever writes garbage must not fill the memory.
const MAX_BYTES: usize = 16 * 1024 * 1024;

/// One such record.
#[derive(Debug)]
struct Refusal {
    partition: Partition,
    offset: Offset,
    value: Option<Bytes>,
}

/// All of them.
#[derive(Debug, Default)]
pub(super) struct Refused {
    records: BTreeMap<(Topic, Bytes), Refusal>,
    bytes: usize,
}

impl Refused {
    /// A record was not applied. `value` is kept where it may be applied later.
    pub(super) fn add(&mut self, at: &Coordinates, key: &Bytes, value: Option<&Bytes>) {
        self.settle(&at.topic, key);
        let value = value.filter(|value| self.bytes + value.len() <= MAX_BYTES).cloned();
        self.bytes += value.as_ref().map_or(0, Bytes::len);
        let refusal = Refusal { partition: at.partition, offset: at.offset, value };
        self.records.insert((at.topic.clone(), key.clone()), refusal);
    }

    /// A later record of that key was applied, or the same one at last.
    pub(super) fn settle(&mut self, topic: &Topic, key: &Bytes) {
        if let Some(refusal) = self.records.remove(&(topic.clone(), key.clone())) {
            self.bytes -= refusal.value.map_or(0, |value| value.len());
        }
    }

    /// Settles the records of a topic whose key is as asked.
    pub(super) fn settle_where(&mut self, topic: &Topic, settled: impl Fn(&str) -> bool) {
        let of_topic = self.records.keys().filter(|(of, _)| of == topic).map(|(_, key)| key.clone());
        let keys: Vec<Bytes> = of_topic.filter(|key| std::str::from_utf8(key).is_ok_and(&settled)).collect();
        keys.iter().for_each(|key| self.settle(topic, key));
    }

    /// What may be tried again: place, key and value.
    pub(super) fn again(&self) -> Vec<(Coordinates, Bytes, Bytes)> {
        let again = self.records.iter().filter_map(|((topic, key), refusal)| {
            let at =
                Coordinates { topic: topic.clone(), partition: refusal.partition, offset: refusal.offset };
            Some((at, key.clone(), refusal.value.clone()?))
        });
        again.collect()
    }

    /// How many there are.
    pub(super) fn len(&self) -> usize {
        self.records.len()
    }

    /// Notes them beside what was taken in.
    pub(super) fn note(&self, taken: &mut Taken) {
        for ((topic, _), refusal) in &self.records {
            if let Some(of) = taken.get_mut(topic) {
                of.refused.push((refusal.partition, refusal.offset));
            }
        }
        for of in taken.values_mut() {
            of.refused.sort_unstable();
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn at(offset: i64) -> Coordinates {
        let topic = Topic::parse("c.revocations").unwrap();
        Coordinates { topic, partition: Partition(0), offset: Offset(offset) }
    }

    #[test]
    fn a_refused_record_is_kept_until_its_key_is_settled() {
        let mut refused = Refused::default();
        let (a, b) = (Bytes::from_static(b"a"), Bytes::from_static(b"b"));
        refused.add(&at(3), &a, Some(&Bytes::from_static(b"first")));
        refused.add(&at(5), &a, Some(&Bytes::from_static(b"second")));
        refused.add(&at(4), &b, None);
        let again = refused.again();
        assert_eq!((again.len(), refused.len(), refused.bytes), (1, 2, 6));
        assert_eq!(again[0], (at(5), a.clone(), Bytes::from_static(b"second")));
        let mut taken = Taken::from([(at(0).topic, super::super::pins::TakenIn::default())]);
        refused.note(&mut taken);
        assert_eq!(taken[&at(0).topic].refused, [(Partition(0), Offset(4)), (Partition(0), Offset(5))]);
        refused.settle(&at(0).topic, &a);
        assert_eq!((refused.len(), refused.bytes), (1, 0));
    }

    #[test]
    fn past_the_bound_the_place_is_known_and_the_bytes_are_not() {
        let mut refused = Refused::default();
        let large = Bytes::from(vec![0; MAX_BYTES / 2 + 1]);
        refused.add(&at(1), &Bytes::from_static(b"a"), Some(&large));
        refused.add(&at(2), &Bytes::from_static(b"b"), Some(&large));
        assert_eq!((refused.len(), refused.again().len()), (2, 1));
        assert!(refused.bytes <= MAX_BYTES);
    }
}
