//! Two publishers of one gate and a worker's reader: every signal is heard once, in spite of doubles, and the watch of the
//! work that it concerns ends; when the gates fall silent, every watch ends.

use std::collections::BTreeMap;
use std::sync::Arc;
use std::time::{Duration, Instant, SystemTime, UNIX_EPOCH};

use countersign::authorize::digests;
use countersign::authorize::engine::Engine;
use countersign::authorize::ids::{
    Coordinates, Digest, Offset, Partition, Realm, Topic, TrustDomain, UnixMillis, WorkloadId,
};
use countersign::authorize::jose::{Algorithm, KeySet, KeyUse, SigningKey, TokenKind};
use countersign::authorize::record::{Header, Record, TimestampType};
use countersign::authorize::route::Gate;
use countersign::authorize::standing::{Kind, Status, Target};
use countersign::authorize::trust::{Domain, Trust};
use countersign::config::KafkaProperties;
use countersign::control::signals::Publisher;
use countersign::telemetry::{Settings, Telemetry};
use countersign::wire::signal::{Event, Signal};
use countersign::worker::Verifier;
use countersign::worker::job::Job;
use countersign::worker::kafka::Reader;
use countersign::worker::signals::{Bounds, Signals, Stop};
use serde_json::json;

use super::Nobody;
use crate::support::kafka;

const GATE: &str = "spiffe://example.org/gate/payments";

fn key() -> SigningKey {
    SigningKey::from_seed(Algorithm::EdDsa, &[4; 32], Some("gate")).unwrap()
}

fn realm() -> Realm {
    Realm::parse("test").unwrap()
}

fn now() -> UnixMillis {
    let since = SystemTime::now().duration_since(UNIX_EPOCH).unwrap();
    UnixMillis(i64::try_from(since.as_millis()).unwrap())
}

fn trust() -> Trust {
    let keys = json!({ "keys": [key().public_jwk()] }).to_string();
    let domain = Domain {
        algorithms: Algorithm::DEFAULT.to_vec(),
        bundle: KeySet::empty(),
        token_service: KeySet::empty(),
        gates: KeySet::from_jwks(&keys, KeyUse::Any).unwrap(),
    };
    Trust::new(BTreeMap::from([(TrustDomain::parse("example.org").unwrap(), domain)]))
}

fn publisher(bootstrap: &str, topic: &Topic, instance: &str) -> Publisher {
    let mut properties = KafkaProperties::default();
    properties.set("bootstrap.servers", bootstrap);
    let gate = Gate { id: WorkloadId::parse(GATE).unwrap(), realm: realm(), key: key() };
    let telemetry = Telemetry::start(Settings::default()).unwrap();
    let engine = Arc::new(Engine::new(gate, 0));
    Publisher::start(
        &properties,
        topic.clone(),
        engine,
        instance.to_owned(),
        telemetry,
        Box::new(|| Some(now())),
    )
    .unwrap()
}

/// Work that a gate let through just now, sent by `sender` in the workflow `workflow`.
fn job(sender: &str, workflow: &str, signals: &Signals) -> Job {
    let topic = Topic::parse("work.authorized").unwrap();
    let now = now();
    let digest = |bytes: &[u8]| digests::of_bytes(Some(bytes)).map(|digest| digest.to_string());
    let claims = json!({
        "iss": GATE, "aud": realm().audience(&topic), "iat": now.whole_seconds(), "exp": now.whole_seconds() + 900,
        "jti": "01980000-0000-7000-8000-000000000001", "sub": sender,
        "action": { "name": "pay" }, "resource": { "type": "Invoice", "id": "inv-7" },
        "workflow": { "id": workflow, "type": "order", "step": "pay", "state": "running" },
        "kafka": { "key": digest(b"k"), "value": digest(b"v") }, "policy": "", "source": "work/0/0",
    });
    let token = key().sign(TokenKind::Countersignature, &claims).unwrap();
    let record = Record {
        source: Coordinates { topic, partition: Partition(0), offset: Offset(0) },
        timestamp: Some(now),
        timestamp_type: TimestampType::LogAppendTime,
        key: Some("k".into()),
        value: Some("v".into()),
        headers: vec![Header::new("countersignature", token)],
    };
    Job::open(Verifier::new(realm(), trust()).verify(&record).unwrap(), Arc::new(Nobody), signals)
}

fn signal(id: u8, kind: Kind, name: &str, event: Event) -> Signal {
    let about = Target { kind, id: name.into() };
    Signal { id: Digest([id; 32]), about, event, event_at: now(), reason: None }
}

#[test]
fn what_gates_publish_ends_the_watch_of_the_work_that_it_concerns() {
    let what = "signals end the work that they concern, and silence ends all";
    let Some(broker) = kafka::broker(what) else { return };
    let topic = Topic::parse(&broker.create_topic("signals", 3, &[("cleanup.policy", "compact")])).unwrap();
    let gates = [publisher(broker.bootstrap(), &topic, "a"), publisher(broker.bootstrap(), &topic, "b")];
    let tell = |said: &dyn Fn(&countersign::control::signals::Teller)| {
        gates.iter().map(Publisher::teller).for_each(|teller| said(&teller));
    };
    let bounds = Bounds { silence: Duration::from_secs(5), ..Bounds::default() };
    let signals = Signals::new(realm(), topic.clone(), trust(), bounds);
    let reader = Reader::start(&signals, &broker.client()).unwrap();
    let runtime = tokio::runtime::Runtime::new().unwrap();
    runtime.block_on(signals.live());

    let payer = "spiffe://example.org/agent/payer";
    let watch = |sender, workflow| runtime.spawn(job(sender, workflow, &signals).watch());
    let (revoked, ended) = (watch(payer, "order-1"), watch("spiffe://example.org/agent/clerk", "order-2"));
    let other = watch("spiffe://example.org/agent/clerk", "order-3");
    // Nobody who is not a gate is believed, and nobody's noise stops the reader.
    let noise =
        kafka::NewRecord { key: Some(b"k".to_vec()), value: Some(b"x".to_vec()), ..Default::default() };
    broker.produce(topic.as_str(), &[noise]);
    let forever = Event::Revoked { not_before: None, expires_at: None };
    let told = Instant::now();
    tell(&|teller| {
        teller.signal(signal(1, Kind::Workload, payer, forever));
        teller.signal(signal(2, Kind::Workflow, "order-2", Event::Workflow(Status::Cancelled)));
    });
    let stop = runtime.block_on(revoked).unwrap();
    println!("from telling the publishers to the end of the watch: {:?}", told.elapsed());
    assert!(matches!(stop, Stop::Revoked { about, .. } if &*about.id == payer));
    let cancelled = Stop::WorkflowEnded { workflow: "order-2".into(), status: Status::Cancelled };
    assert_eq!(runtime.block_on(ended).unwrap(), cancelled);

    // One record for each signal and gate; the worker heard each once, or the watches of new work would tell.
    drop(gates);
    let records = broker.read_to_end(topic.as_str());
    let of = |id: u8| {
        let key = Digest([id; 32]).to_string().into_bytes();
        records.iter().filter(|record| record.key.as_deref() == Some(&key)).count()
    };
    assert_eq!((of(1), of(2)), (2, 2));
    assert!(!other.is_finished());
    // No gate is left: the work that nobody has stopped stops, because nobody would tell it.
    assert!(matches!(runtime.block_on(other).unwrap(), Stop::Silence { .. }));
    assert_eq!(reader.refused(), 1);
}
