//! Two gates, a job, and what an orchestrator and an administrator write: the job's watch ends, whichever gate tells it, and
//! each fact is one signal.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;
use std::time::Instant;

use countersign::authorize::ids::{Realm, TrustDomain};
use countersign::authorize::jose::{Algorithm, KeySet, KeyUse};
use countersign::authorize::standing::Status;
use countersign::authorize::trust::{Domain, Trust};
use countersign::worker::Received;
use countersign::worker::job::Job;
use countersign::worker::kafka::Reader;
use countersign::worker::signals::{Bounds, Signals, Stop};
use tokio::runtime::Runtime;

use super::Nobody;
use crate::gate::{
    Expect, Followed, Ledger, Plan, Sender, Site, signal_key, signal_keys, tell_signals, topic, wait_for,
    wire,
};
use crate::support::kafka::broker;

/// The gates of a site, as a worker trusts them.
pub(super) fn trust(site: &Site) -> Trust {
    let keys = |name: &str| KeySet::from_jwks(&site.read(name), KeyUse::Any).expect("a key set");
    let domain = Domain {
        algorithms: vec![Algorithm::EdDsa],
        bundle: KeySet::empty(),
        token_service: keys("trust/token-service.jwks"),
        gates: keys("trust/gates.jwks"),
    };
    Trust::new(BTreeMap::from([(TrustDomain::parse("example.org").expect("a domain"), domain)]))
}

/// A worker that hears the gates of a site; it returns once it does.
pub(super) fn listen(site: &Site, signals: &str, runtime: &Runtime) -> (Signals, Reader) {
    listen_for(site, signals, runtime, Bounds::default())
}

fn listen_for(site: &Site, signals: &str, runtime: &Runtime, bounds: Bounds) -> (Signals, Reader) {
    let realm = Realm::parse("test").expect("a realm");
    let signals = Signals::new(realm, topic(signals), trust(site), bounds);
    let reader = Reader::start(&signals, &site.broker.client()).expect("a reader");
    runtime.block_on(signals.live());
    (signals, reader)
}

/// The newest work that a gate of the site let through.
pub(super) fn newest(site: &Site) -> Received {
    let records = site.broker.read_stable(&site.to);
    let received = |record| site.verifier().verify(&wire(&site.to, record)).expect("from the gate");
    records.iter().map(received).max_by(|a, b| a.decision.cmp(&b.decision)).expect("a forwarded record")
}

#[test]
fn a_job_ends_when_its_workflow_does_or_its_subject_is_revoked() {
    let Some(broker) = broker("a job ends when its workflow does or its subject is revoked") else { return };
    let site = Site::new(broker, Plan::default());
    let followed = Followed::new(&site, "10s", false);
    let topic = tell_signals(&site);
    let gates = [site.start_ready(None), site.start_ready(None)];
    let runtime = Runtime::new().expect("a runtime");
    let (signals, reader) = listen(&site, &topic, &runtime);
    let (mut sender, mut ledger) = (Sender::new(&site), Ledger::default());
    let watch = |received| {
        let watch = Job::open(received, Arc::new(Nobody), &signals).watch();
        runtime.spawn(async move { (watch.await, Instant::now()) })
    };
    let took = |what: &str, since: Instant, ended: Instant| {
        println!("from appending {what} to the end of the watch: {:?}", ended.duration_since(since));
    };

    followed.workflow("job-1", Status::Running);
    ledger.decide(&site, vec![sender.of_workflow("job-1", Expect::Forward)]);
    let of_workflow = watch(newest(&site));
    ledger.decide(&site, vec![sender.allowed()]);
    let other = watch(newest(&site));

    let mut facts = Vec::new();
    let since = Instant::now();
    facts.push(followed.workflow("job-1", Status::Cancelled));
    let (stop, ended) = runtime.block_on(of_workflow).expect("no panic");
    took("a workflow's end", since, ended);
    assert_eq!(stop, Stop::WorkflowEnded { workflow: "job-1".into(), status: Status::Cancelled });
    facts.push(followed.revoke("subject", "bob"));
    // Its own, many times over, to see how long that takes.
    for _ in 0..20 {
        assert!(!other.is_finished());
        ledger.decide(&site, vec![sender.allowed()]);
        let job = watch(newest(&site));
        let decision = newest(&site).decision;
        let since = Instant::now();
        facts.push(followed.revoke("token", &decision));
        let (stop, ended) = runtime.block_on(job).expect("no panic");
        took("a revocation", since, ended);
        assert!(matches!(stop, Stop::Revoked { about, .. } if *about.id == *decision));
    }
    facts.push(followed.revoke("subject", "alice"));
    let (stop, _) = runtime.block_on(other).expect("no panic");
    assert!(matches!(stop, Stop::Revoked { about, .. } if &*about.id == "alice"));

    // Each gate tells each fact, under one key: what both have told is one signal.
    let expected: BTreeSet<Vec<u8>> = facts.iter().map(signal_key).collect();
    wait_for("both gates to tell everything", || {
        let told = signal_keys(&site, &topic);
        let both = told.len() == 2 * expected.len();
        (both && told.into_iter().collect::<BTreeSet<_>>() == expected).then_some(())
    });
    assert_eq!(reader.refused(), 0);
    for gate in gates {
        gate.terminate();
    }
}

#[test]
fn when_the_last_gate_is_gone_every_watch_ends() {
    let Some(broker) = broker("when the last gate is gone every watch ends") else { return };
    let site = Site::new(broker, Plan::default());
    let _followed = Followed::new(&site, "10s", false);
    let topic = tell_signals(&site);
    let gate = site.start_ready(None);
    let runtime = Runtime::new().expect("a runtime");
    let (signals, _reader) = listen(&site, &topic, &runtime);
    let (mut sender, mut ledger) = (Sender::new(&site), Ledger::default());
    ledger.decide(&site, vec![sender.allowed()]);
    let watch = runtime.spawn(Job::open(newest(&site), Arc::new(Nobody), &signals).watch());
    gate.kill();
    assert!(matches!(runtime.block_on(watch).expect("no panic"), Stop::Silence { .. }));
}

/// What nobody was there to take in, the gate that comes back tells before its first heartbeat: the silence has not ended the
/// watch, and the fact does. What stands no more, and what is said of others, ends nothing.
#[test]
fn what_is_said_while_no_gate_runs_ends_the_work_once_a_gate_is_back() {
    let Some(broker) = broker("a gate tells what happened shortly before its start") else { return };
    let site = Site::new(broker, Plan::default());
    let followed = Followed::new(&site, "10s", false);
    let topic = tell_signals(&site);
    let gate = site.start_ready(None);
    let runtime = Runtime::new().expect("a runtime");
    // Longer than the default: how fast a gate starts on a busy machine is not what is shown here.
    let bounds = Bounds { silence: crate::gate::PATIENCE, ..Bounds::default() };
    let (signals, _reader) = listen_for(&site, &topic, &runtime, bounds);
    let (mut sender, mut ledger) = (Sender::new(&site), Ledger::default());
    let mut watch = |job: &str| {
        ledger.decide(&site, vec![sender.of_workflow(job, Expect::Forward)]);
        runtime.spawn(Job::open(newest(&site), Arc::new(Nobody), &signals).watch())
    };
    let (ended, resumed) = (watch("job-1"), watch("job-2"));
    gate.kill();
    let mut facts = vec![followed.workflow("job-1", Status::Cancelled)];
    followed.workflow("job-2", Status::Suspended);
    followed.workflow("job-2", Status::Running);
    facts.push(followed.revoke("subject", "bob"));

    let gate = site.start(None);
    let stop = runtime.block_on(ended).expect("no panic");
    assert_eq!(stop, Stop::WorkflowEnded { workflow: "job-1".into(), status: Status::Cancelled });
    wait_for("the gate to tell everything", || (signal_keys(&site, &topic).len() == 2).then_some(()));
    let told: BTreeSet<Vec<u8>> = signal_keys(&site, &topic).into_iter().collect();
    assert_eq!(told, facts.iter().map(signal_key).collect());
    assert!(!resumed.is_finished(), "it runs again");
    facts.push(followed.revoke("subject", "alice"));
    let stop = runtime.block_on(resumed).expect("no panic");
    assert!(matches!(stop, Stop::Revoked { about, .. } if &*about.id == "alice"));
    gate.terminate();
}
