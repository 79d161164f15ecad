//! The rules of one route, as the decision needs them: what a record must carry, which clocks and memories apply, who
//! must be allowed, and where outcomes go. Limits: made by the configuration, which checks it; nothing here reads a
//! file, and what concerns only the stream (batches, consumer settings) is not here.

use std::collections::{BTreeMap, BTreeSet};

use super::ids::{Realm, Topic, WorkloadId};
use super::jose::SigningKey;
use super::limits;
use super::request::Mapping;
use super::text::Text;

/// The gate itself: who it is, where it stands, and the key it countersigns with.
#[derive(Debug)]
pub struct Gate {
    /// The gate's own identifier, `iss` of its countersignatures.
    pub id: WorkloadId,
    /// The realm of the cluster it serves.
    pub realm: Realm,
    /// The key that signs countersignatures; its `kid` is written into them.
    pub key: SigningKey,
}

/// Which records of a route's sources are let through, and where outcomes go.
#[derive(Debug)]
pub struct Route {
    /// The route's name, unique in the gate; a metric label.
    pub name: Text,
    /// The topics it reads.
    pub from: Vec<Topic>,
    /// Where permitted records go.
    pub to: Topic,
    /// Where denied records go.
    pub denied: Topic,
    /// Where the audit records go.
    pub audit: Topic,
    /// Whether a `txn-token` must be there (`require = ["transaction"]`).
    pub require_transaction: bool,
    /// Whether a `countersignature` must be there (`require = ["countersignature"]`).
    pub require_countersignature: bool,
    /// The sender that records without WIT and WPT are taken to be from (contract, section 2.4).
    pub unproven: Option<WorkloadId>,
    /// Whether the Txn-Token must also be unexpired when the gate decides.
    pub token_expiry: TokenExpiry,
    /// Whether a producer's own timestamp counts as the moment of acceptance (contract, section 3).
    pub trust_create_time: bool,
    /// Tolerance between clocks, in seconds.
    pub skew_s: u32,
    /// The longest life of a proof (`exp` - `iat`), in seconds.
    pub proof_life_s: u32,
    /// The longest time from acceptance to decision, in seconds.
    pub max_queue_time_s: u32,
    /// The life of a countersignature, in seconds.
    pub receipt_life_s: u32,
    /// The topics that a countersignature may be made out for; `None` is any topic of this realm.
    pub continues_from: Option<BTreeSet<Topic>>,
    /// How far a proof is bound to its partition (contract, section 4).
    pub replay: ReplayRule,
    /// How keys map to partitions, for strict replay and for destinations with another partition count.
    pub partitioner: Partitioner,
    /// Who is `principal`.
    pub principal: Party,
    /// Who else must be allowed, each evaluated as principal.
    pub parties: Vec<Party>,
    /// How action, resource, workflow and value are found.
    pub mapping: Mapping,
    /// Whether a workflow must be registered (contract, section 5).
    pub workflow: WorkflowRule,
    /// How records wait for a step-up; `None` where the route does not hold and denies them as `step_up_required`.
    pub holding: Option<Holding>,
    /// Dead-letter header names of other systems to write as well.
    pub compatibility: Option<Compatibility>,
    /// Dotted paths of the context that are masked in audit records.
    pub mask: Vec<String>,
}

impl Route {
    /// A route with the contract's defaults: workload identity alone is required, and what is asked for is taken from the
    /// proof.
    pub fn new(name: impl Into<Text>, from: Vec<Topic>, to: Topic, denied: Topic, audit: Topic) -> Self {
        Self {
            name: name.into(),
            from,
            to,
            denied,
            audit,
            require_transaction: false,
            require_countersignature: false,
            unproven: None,
            token_expiry: TokenExpiry::Accepted,
            trust_create_time: false,
            skew_s: limits::DEFAULT_SKEW_S,
            proof_life_s: limits::DEFAULT_PROOF_LIFE_S,
            max_queue_time_s: limits::DEFAULT_QUEUE_TIME_S,
            receipt_life_s: limits::DEFAULT_RECEIPT_LIFE_S,
            continues_from: None,
            replay: ReplayRule::Partition,
            partitioner: Partitioner::Murmur2,
            principal: Party::Sender,
            parties: Vec::new(),
            mapping: Mapping::default(),
            workflow: WorkflowRule::Any,
            holding: None,
            compatibility: None,
            mask: Vec::new(),
        }
    }
}

/// What is asked of a record's workflow.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum WorkflowRule {
    /// One that the registry does not know is none of its concern; one that it knows is judged by it.
    Any,
    /// The registry must know it (`workflow = "registered"`): else `workflow_unknown`.
    Registered,
}

/// How a route holds records (contract, section 7).
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Holding {
    /// Where challenges are published.
    pub challenges: Topic,
    /// The topic that keeps the held records of each source topic, with as many partitions.
    pub holds: BTreeMap<Topic, Topic>,
    /// The topic from which the answers for each source topic are read, with as many partitions.
    pub answers: BTreeMap<Topic, Topic>,
    /// How long a record is held where the policy does not say, in seconds.
    pub hold_s: u32,
    /// How long a grant is good where the policy does not say, in seconds.
    pub grant_s: u32,
    /// Whether later records of a key wait behind a held one.
    pub order: Order,
    /// How many records may wait behind a held one of their key, at most; one more is denied as `step_up_required`.
    pub max_waiting: usize,
}

impl Holding {
    /// Every topic of it.
    pub fn topics(&self) -> impl Iterator<Item = &Topic> {
        std::iter::once(&self.challenges).chain(self.holds.values()).chain(self.answers.values())
    }
}

/// What a held record means for later ones of its key.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Order {
    /// They overtake it.
    None,
    /// They wait behind it, in order. Records without a key do not wait.
    Key,
}

/// Against which moments a Txn-Token's expiry is judged.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum TokenExpiry {
    /// When the broker took the record (always judged).
    Accepted,
    /// And again when the gate decides.
    Now,
}

/// How far the replay defence goes.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum ReplayRule {
    /// The memory of each partition alone.
    Partition,
    /// The proof must name its partition, or the key must map to it.
    Strict,
}

/// How a producer maps keys to partitions.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Partitioner {
    /// The Java client's default: murmur2, sign bit cleared, modulo the count.
    Murmur2,
    /// librdkafka's default for keys: CRC-32 modulo the count.
    Crc32,
}

impl Partitioner {
    /// The partition of `key` among `count` partitions; `count` below 1 is taken as 1.
    pub fn partition(self, key: &[u8], count: i32) -> i32 {
        let count = count.max(1);
        match self {
            Self::Murmur2 => ((murmur2(key) & 0x7fff_ffff) as i32) % count,
            Self::Crc32 => (crc32fast::hash(key) % count.unsigned_abs()) as i32,
        }
    }
}

/// Kafka's own murmur2 (`org.apache.kafka.common.utils.Utils.murmur2`), which fixes the seed and the mixing.
fn murmur2(data: &[u8]) -> u32 {
    const SEED: u32 = 0x9747_b28c;
    const M: u32 = 0x5bd1_e995;
    let mut hash = SEED ^ (data.len() as u32);
    let (words, rest) = data.as_chunks::<4>();
    for word in words {
        let mut k = u32::from_le_bytes(*word).wrapping_mul(M);
        k ^= k >> 24;
        hash = hash.wrapping_mul(M) ^ k.wrapping_mul(M);
    }
    if !rest.is_empty() {
        for (i, byte) in rest.iter().enumerate() {
            hash ^= u32::from(*byte) << (8 * i);
        }
        hash = hash.wrapping_mul(M);
    }
    hash ^= hash >> 13;
    hash = hash.wrapping_mul(M);
    hash ^ (hash >> 15)
}

/// Who may be asked about.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub enum Party {
    /// The workload that sent the record.
    Sender,
    /// Whom the Txn-Token names. A record without one is then denied.
    Subject,
    /// Every earlier sender of the countersignature's chain.
    Senders,
}

/// Whose dead-letter headers are written beside the contract's own, in that system's encodings.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Compatibility {
    /// Kafka Connect: `__connect.errors.*`.
    Connect,
    /// Kafka Streams (KIP-1034): `__streams.errors.*`.
    Streams,
    /// Spring Kafka: `kafka_dlt-*`.
    Spring,
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn murmur2_agrees_with_the_java_client() {
        // From Apache Kafka's UtilsTest.testMurmur2.
        for (text, hash) in [
            ("21", -973_932_308_i32),
            ("foobar", -790_332_482),
            ("a-little-bit-long-string", -985_981_536),
            ("a-little-bit-longer-string", -1_486_304_829),
            ("lkjh234lh9fiuh90y23oiuhsafujhadof229phr9h19h89h8", -58_897_971),
        ] {
            assert_eq!(murmur2(text.as_bytes()) as i32, hash, "{text}");
        }
    }

    #[test]
    fn keys_stay_within_the_partition_count() {
        for count in [1, 3, 64] {
            for key in [&b""[..], b"a", b"invoice-7"] {
                for partitioner in [Partitioner::Murmur2, Partitioner::Crc32] {
                    assert!((0..count).contains(&partitioner.partition(key, count)));
                }
            }
        }
    }
}
