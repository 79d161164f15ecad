//! What a job may do after each answer, and when its watch ends. Silence and patience are short here; nothing is asserted
//! on how long anything took.

use std::collections::VecDeque;
use std::sync::Mutex;

use super::*;
use crate::authorize::ids::{Digest, Partition, Realm, Topic, UnixMillis, WorkloadId};
use crate::authorize::route::Gate as Signer;
use crate::authorize::standing::{Kind, Target};
use crate::authorize::testing::{domain, key, trust_with};
use crate::wire::signal::{self, Event, Heartbeat, Said, Signal};
use crate::worker::clock;
use crate::worker::signals::Bounds;
use crate::worker::tests::{forwarded, plan, verifier};

/// Gives these answers, one after the other; then it does not answer.
struct Script(Mutex<VecDeque<Answer>>);

impl Gate for Script {
    fn ask(&self, asking: &Asking, carried: &Carried) -> Result<Answer, NoAnswer> {
        assert_eq!(asking.action.name, "transfer");
        assert!(carried.transaction.is_some());
        self.0.lock().unwrap().pop_front().ok_or_else(|| NoAnswer("connection refused".into()))
    }
}

/// Never answers in time.
struct Slow;

impl Gate for Slow {
    fn ask(&self, _: &Asking, _: &Carried) -> Result<Answer, NoAnswer> {
        std::thread::sleep(Duration::from_millis(300));
        Ok(allowed())
    }
}

fn allowed() -> Answer {
    Answer::Allowed { decision: "d-1".into() }
}

fn denied() -> Denied {
    Denied { decision: "d-2".into(), reason: "forbidden".into(), detail: "frozen".into() }
}

fn step_up() -> StepUp {
    let challenge =
        Some("http:01980000-0000-7000-8000-000000000002:0:01980000-0000-7000-8000-000000000001".into());
    StepUp { decision: "d-3".into(), challenge, names: vec!["four-eyes".into()], messages: Vec::new() }
}

fn topic() -> Topic {
    Topic::parse("countersign.signals").unwrap()
}

fn listening(bounds: Bounds) -> Signals {
    let signals = Signals::new(Realm::parse("test").unwrap(), topic(), trust_with(domain()), bounds);
    signals.listen([Partition(0)]);
    signals
}

fn job(gate: impl Gate + 'static, signals: &Signals) -> Job {
    let record = forwarded(&plan());
    let mut received = verifier().verify_at(&record, record.timestamp.unwrap()).unwrap();
    received.decided_at = clock();
    Job::open(received, Arc::new(gate), signals)
}

fn script(answers: impl IntoIterator<Item = Answer>) -> Script {
    Script(Mutex::new(answers.into_iter().collect()))
}

fn tell(signals: &Signals, said: &Said) {
    let gate = Signer {
        id: WorkloadId::parse("spiffe://example.org/gate/two").unwrap(),
        realm: Realm::parse("test").unwrap(),
        key: key("gate"),
    };
    let token = signal::sign(said, &gate, &topic(), clock()).unwrap();
    signals.take(Partition(0), Some(signal::key(said).as_bytes()), Some(token.as_bytes())).unwrap();
}

fn revoked(subject: &str) -> Said {
    Said::Signal(Signal {
        id: Digest([1; 32]),
        about: Target { kind: Kind::Subject, id: subject.into() },
        event: Event::Revoked { not_before: None, expires_at: None },
        event_at: clock(),
        reason: Some("left the company".into()),
    })
}

fn transfer() -> (Action, Resource) {
    let resource = Resource { kind: "Invoice".into(), id: "inv-7".into(), properties: None };
    (Action { name: "transfer".into(), properties: None }, resource)
}

async fn check(job: Job) -> Result<(Job, Leave), Refused> {
    let (action, resource) = transfer();
    job.check(action, resource).await
}

#[tokio::test]
async fn leave_is_for_what_was_asked_and_gives_the_job_back() {
    let signals = listening(Bounds::default());
    let (job, leave) = check(job(script([allowed(), allowed()]), &signals)).await.unwrap();
    assert_eq!((leave.action().clone(), leave.resource().clone()), transfer());
    assert_eq!(leave.decision(), "d-1");
    let (job, _) = check(job).await.unwrap();
    assert_eq!(job.carry_on().countersignature, job.received().carry_on().countersignature);
    assert!(!format!("{job:?}").contains("eyJ"), "a log must not hold tokens");
}

#[tokio::test]
async fn a_refusal_ends_the_job() {
    let signals = listening(Bounds::default());
    let refused = check(job(script([Answer::Denied(denied())]), &signals)).await.unwrap_err();
    assert_eq!(refused.to_string(), "the gate refuses: forbidden: frozen");
    assert!(matches!(refused, Refused::Denied(why) if why == denied()));
}

#[tokio::test]
async fn a_step_up_says_its_challenge_and_lets_the_job_ask_again() {
    let signals = listening(Bounds::default());
    let refused = check(job(script([Answer::StepUp(step_up()), allowed()]), &signals)).await.unwrap_err();
    let Refused::StepUp { asked, again } = refused else { panic!("{refused}") };
    assert_eq!(asked, step_up());
    assert_eq!((again.asking().action.clone(), again.asking().resource.clone()), transfer());
    let (_, leave) = again.ask().await.unwrap();
    assert_eq!(leave.action().name, "transfer");
}

#[tokio::test]
async fn with_no_gate_in_reach_the_answer_is_no() {
    let signals = listening(Bounds::default());
    let refused = check(job(script([]), &signals)).await.unwrap_err();
    let Refused::NoAnswer { problem, again } = refused else { panic!("{refused}") };
    assert_eq!(problem.to_string(), "connection refused");
    assert!(matches!(again.ask().await, Err(Refused::NoAnswer { .. })));

    let impatient = job(Slow, &signals).patience(Duration::from_millis(5));
    let refused = check(impatient).await.unwrap_err();
    assert_eq!(refused.to_string(), "no gate has answered: no answer within 5ms");
}

#[tokio::test]
async fn what_was_heard_counts_more_than_an_answer() {
    let signals = listening(Bounds::default());
    let open = job(script([allowed()]), &signals);
    tell(&signals, &revoked("alice"));
    let refused = check(open).await.unwrap_err();
    assert_eq!(refused.to_string(), "the job must stop: the subject `alice` was revoked: left the company");
}

#[tokio::test]
async fn a_watch_ends_with_the_signal_of_its_work_and_with_no_other() {
    let signals = listening(Bounds::default());
    let job = job(script([]), &signals);
    let watch = tokio::spawn(job.watch());
    tell(&signals, &revoked("bob"));
    tokio::time::sleep(Duration::from_millis(20)).await;
    assert!(!watch.is_finished());
    let Said::Signal(signal) = revoked("alice") else { panic!("a signal") };
    tell(&signals, &Said::Signal(Signal { id: Digest([2; 32]), ..signal }));
    assert!(matches!(watch.await.unwrap(), Stop::Revoked { about, .. } if &*about.id == "alice"));
}

#[tokio::test]
async fn a_watch_ends_when_nobody_is_heard() {
    let signals = listening(Bounds { silence: Duration::from_millis(50), ..Bounds::default() });
    let job = job(script([]), &signals);
    assert!(matches!(job.watch().await, Stop::Silence { .. }));
}

#[tokio::test]
async fn old_work_is_not_watched() {
    let signals = listening(Bounds { remember: Duration::from_secs(100), ..Bounds::default() });
    let mut job = job(script([]), &signals);
    job.0.received.decided_at = UnixMillis(clock().0 - 31_000);
    let job = Job::open(job.0.received.clone(), Arc::new(script([])), &signals);
    assert_eq!(job.watch().await, Stop::TooOld);
}

#[tokio::test]
async fn a_worker_can_wait_until_it_hears() {
    let signals = listening(Bounds::default());
    let live = tokio::spawn({
        let signals = signals.clone();
        async move { signals.live().await }
    });
    tokio::time::sleep(Duration::from_millis(20)).await;
    assert!(!live.is_finished());
    tell(&signals, &Said::Heartbeat(Heartbeat { instance: "a".into(), as_of: clock() }));
    live.await.unwrap();
}

#[test]
fn what_no_gate_wrote_is_refused_and_tombstones_are_nothing() {
    let signals = listening(Bounds::default());
    assert!(signals.take(Partition(0), Some(b"k"), Some(b"x")).is_err());
    assert!(signals.take(Partition(0), None, Some(b"x")).is_err());
    assert!(signals.take(Partition(0), Some(b"k"), None).is_ok());
}
