//! The control topics of a site: what an orchestrator and an administrator write, the fleet that hears it, and the signals by which
//! it tells workers.

use std::time::Duration;

use countersign::authorize::ids::{Coordinates, Offset, Partition, UnixMillis};
use countersign::authorize::jose::{Algorithm, SigningKey};
use countersign::authorize::standing::{REVOCATION_TYP, Registered, Status};
use countersign::config::KafkaProperties;
use countersign::control::fleet::{Fleet, Progress};
use countersign::wire::signal::signal_id;
use countersign::wire::workflow::WorkflowCodec;
use serde_json::json;

use super::site::{Site, topic};
use super::{PATIENCE, now_ms};
use crate::support::kafka::NewRecord;

/// The topics, and the administrator's key.
pub struct Followed<'s> {
    site: &'s Site,
    pub workflows: String,
    pub revocations: String,
    pub entities: Option<String>,
    pub fleet: String,
    administrator: SigningKey,
    codec: WorkflowCodec,
}

impl<'s> Followed<'s> {
    /// Makes the topics and writes them into the site's configuration; to be called before a gate starts.
    pub fn new(site: &'s Site, max_staleness: &str, entities: bool) -> Self {
        let compacted = |stem, partitions, more: &[_]| {
            site.broker.create_topic(stem, partitions, &[&[("cleanup.policy", "compact")], more].concat())
        };
        let broker_time = ("message.timestamp.type", "LogAppendTime");
        let followed = Self {
            workflows: compacted("workflows", 2, &[]),
            revocations: compacted("revocations", 1, &[broker_time]),
            entities: entities.then(|| compacted("entities", 1, &[])),
            fleet: site.broker.unique("fleet"),
            administrator: key(21),
            codec: WorkflowCodec::new().expect("a codec"),
            site,
        };
        let entities =
            followed.entities.as_ref().map(|topic| format!("entities = \"{topic}\"")).unwrap_or_default();
        let Self { workflows, revocations, fleet, .. } = &followed;
        let control = format!(
            "[control]\nworkflows = \"{workflows}\"\nrevocations = \"{revocations}\"\n{entities}\nfleet = \"{fleet}\"\n\
             max_staleness = \"{max_staleness}\"\n[administrators]\nkeys = \"trust/admins.jwks\"\n"
        );
        let text = site.read("countersign.toml").replacen("[[route]]", &format!("{control}[[route]]"), 1);
        site.write("countersign.toml", &text);
        followed.administrators(&[21]);
        followed
    }

    /// Deletes the topics, where a long test goes on with others.
    pub fn forget(&self) {
        for topic in [&self.workflows, &self.revocations, &self.fleet].into_iter().chain(&self.entities) {
            self.site.broker.delete_topic(topic);
        }
    }

    /// Whose revocations count from now on.
    pub fn administrators(&self, seeds: &[u8]) {
        let keys: Vec<_> = seeds.iter().map(|seed| key(*seed).public_jwk()).collect();
        self.site.write("trust/admins.jwks", &json!({ "keys": keys }).to_string());
    }

    /// Revokes; where the record stands.
    pub fn revoke(&self, kind: &str, id: &str) -> Coordinates {
        self.revoke_by(&self.administrator, kind, id)
    }

    /// Revokes by the key of that seed.
    pub fn revoke_by_seed(&self, seed: u8, kind: &str, id: &str) -> Coordinates {
        self.revoke_by(&key(seed), kind, id)
    }

    fn revoke_by(&self, by: &SigningKey, kind: &str, id: &str) -> Coordinates {
        let jti = super::sender::jti();
        let claims = json!({"jti": jti, "iat": now_ms() / 1000, "revoke": {"kind": kind, "id": id}});
        let token = by.sign_typ(REVOCATION_TYP, &claims).expect("a revocation");
        self.write(&self.revocations, &jti, Some(token.into_bytes()))
    }

    /// Says how a workflow stands.
    pub fn workflow(&self, id: &str, status: Status) -> Coordinates {
        let registered = Registered {
            kind: "payout".into(),
            status,
            step: "pay".into(),
            owner: "spiffe://example.org/orchestrator".into(),
            allowed_steps: None,
            version: 1,
            updated_at: UnixMillis(now_ms()),
        };
        let value = self.codec.encode(id, &registered).expect("a workflow");
        self.write(&self.workflows, id, Some(value))
    }

    /// Writes a record to a control topic.
    pub fn write(&self, to: &str, key: &str, value: Option<Vec<u8>>) -> Coordinates {
        let record = NewRecord { key: Some(key.as_bytes().to_vec()), value, ..NewRecord::default() };
        let (partition, offset) = self.site.writer.write(to, &[record])[0];
        Coordinates { topic: topic(to), partition: Partition(partition), offset: Offset(offset) }
    }

    /// A reader of the fleet.
    pub fn fleet(&self) -> Fleet {
        let mut properties = KafkaProperties::default();
        properties.set("bootstrap.servers", self.site.broker.bootstrap());
        Fleet::open(&properties, topic(&self.fleet), &super::sender::jti()).expect("clients")
    }

    /// Waits until every gate has taken in what stands there.
    pub fn wait_acknowledged(&self, fleet: &mut Fleet, at: &Coordinates) -> Progress {
        let progress = fleet.progress(at, PATIENCE).expect("the fleet");
        assert!(progress.is_acknowledged(), "{progress:?}");
        progress
    }

    /// How a fact stands, looked at for a moment.
    pub fn progress(&self, fleet: &mut Fleet, at: &Coordinates) -> Progress {
        fleet.progress(at, Duration::from_secs(2)).expect("the fleet")
    }
}

/// Makes the gates of a site tell signals; the name of the topic, which they make themselves.
pub fn tell_signals(site: &Site) -> String {
    let signals = site.broker.unique("signals");
    let config = site.read("countersign.toml");
    let control = format!("[control]\nsignals = \"{signals}\"\n");
    site.write("countersign.toml", &config.replacen("[control]\n", &control, 1));
    signals
}

/// The keys of all signals on the topic, heartbeats left out.
pub fn signal_keys(site: &Site, topic: &str) -> Vec<Vec<u8>> {
    let keys = site.broker.read_stable(topic).into_iter().filter_map(|record| record.key);
    keys.filter(|key| !key.starts_with(b"heartbeat/")).collect()
}

/// The key of the signal that tells what stands there.
pub fn signal_key(fact: &Coordinates) -> Vec<u8> {
    signal_id(fact, 0).to_string().into_bytes()
}

fn key(seed: u8) -> SigningKey {
    SigningKey::from_seed(Algorithm::EdDsa, &[seed; 32], Some(&format!("admin-{seed}"))).expect("a key")
}
