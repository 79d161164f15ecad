//! The audit topic of a site: its records, and the trees that they are the leaves of.

use std::collections::BTreeMap;
use std::fmt::Write as _;

use countersign::authorize::audit::AuditRecord;
use countersign::authorize::merkle::Range;
use countersign::stream::checkpoint::Checkpoint;
use countersign::wire::audit::AuditCodec;

use super::sender::Source;
use super::site::Site;

/// An audit record and the bytes that it was read from.
pub struct Audit {
    pub record: AuditRecord,
    pub bytes: Vec<u8>,
}

/// Every audit record of a site, in the order of the topic.
pub fn audits(site: &Site) -> Vec<Audit> {
    let codec = AuditCodec::new().expect("a codec");
    let records = site.broker.read_to_end(&site.audit).into_iter();
    records
        .map(|record| {
            let bytes = record.value.expect("an audit record has a value");
            Audit { record: codec.decode(&bytes).expect("an audit record"), bytes }
        })
        .collect()
}

/// How it ended, in words: outcome, reason, and the effect of an answer.
pub fn told(audit: &AuditRecord) -> String {
    let effect = audit.answer.as_ref().map(|answer| answer.effect.as_str());
    [Some(audit.outcome.as_str()), audit.reason.as_deref(), effect]
        .into_iter()
        .flatten()
        .collect::<Vec<_>>()
        .join(" ")
}

/// The audit records of each source partition are the leaves of its tree, in order, and the tree is the one that
/// stands beside the committed position.
pub fn check_trees(site: &Site, audits: &[Audit], problems: &mut Problems) {
    let mut leaves: BTreeMap<(&str, i32), Vec<&Audit>> = BTreeMap::new();
    for audit in audits {
        leaves.entry((&audit.record.topic, audit.record.partition)).or_default().push(audit);
    }
    for source in [Source::Commands, Source::Legacy] {
        let topic = site.topic(source);
        for (partition, committed) in site.broker.committed(&site.group, topic) {
            let at = format!("{topic}/{partition}");
            let leaves = leaves.remove(&(topic, partition)).unwrap_or_default();
            let indices: Vec<i64> = leaves.iter().map(|leaf| leaf.record.leaf_index).collect();
            let expected: Vec<i64> = (0..).take(leaves.len()).collect();
            if indices != expected {
                problems.add(format!("{at}: leaves in the order {}", abridged(&indices)));
            }
            let mut tree = Range::default();
            for leaf in &leaves {
                tree.append(&leaf.bytes);
            }
            let checkpoint = match Checkpoint::decode(&committed.metadata) {
                Ok(Some(checkpoint)) => checkpoint,
                other => {
                    problems.add(format!("{at}: beside the position stands {other:?}"));
                    continue;
                }
            };
            let kept = Range::restore(checkpoint.leaves, checkpoint.peaks).expect("a whole tree");
            if (kept.size(), kept.root()) != (tree.size(), tree.root()) {
                problems.add(format!(
                    "{at}: a tree of {} leaves is kept, the audit topic's has {}, the roots {} and {}",
                    kept.size(),
                    tree.size(),
                    kept.root(),
                    tree.root()
                ));
            }
        }
    }
    for (topic, partition) in leaves.keys() {
        problems.add(format!("{topic}/{partition} has audit records and no position"));
    }
}

/// What is wrong, all of it at once.
#[derive(Default)]
pub struct Problems(Vec<String>);

impl Problems {
    pub fn add(&mut self, problem: String) {
        self.0.push(problem);
    }

    pub fn report(self, of: usize) {
        if self.0.is_empty() {
            return;
        }
        let mut text = String::new();
        for problem in self.0.iter().take(20) {
            let _ = writeln!(text, "  {problem}");
        }
        panic!("{} problems with {of} records, the first of them:\n{text}", self.0.len());
    }
}

fn abridged(numbers: &[i64]) -> String {
    let shown: Vec<String> = numbers.iter().take(40).map(i64::to_string).collect();
    format!("{} ... of {}", shown.join(" "), numbers.len())
}
