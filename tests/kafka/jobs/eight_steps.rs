//! The long job of the examples against a real gate: a person approves of one's second sensitive step, and refuses another's;
//! one is forbidden, the workflow of one is cancelled in the middle, the subject of one is revoked. Each stops where it
//! should, and the audit says why.

use std::collections::BTreeMap;
use std::sync::Arc;
use std::time::{Duration, Instant};

use countersign::authorize::jose::{Algorithm, SigningKey, TokenKind};
use countersign::authorize::request::{Action, Resource};
use countersign::authorize::standing::Status;
use countersign::authorize::step_up::Status as ChallengeStatus;
use countersign::worker::Received;
use countersign::worker::access::{Caller, Client, Question};
use countersign::worker::job::{Job, Refused};
use countersign::worker::kafka::Reader;
use countersign::worker::signals::{Signals, Stop};
use serde_json::json;
use tokio::task::JoinHandle;

#[path = "../../../examples/long_job/steps.rs"]
mod steps;

use super::gates::{listen, newest};
use crate::gate::{
    Approvers, Expect, Followed, GateProcess, Plan, Sender, Sent, Site, audits, now_ms, tell_signals,
    wait_for,
};
use crate::support::kafka::broker;
use steps::{Bench, End};

const SCHEMA: &str = "
entity Workload;
entity User;
entity Invoice;
action pay, reserve, transfer appliesTo {
  principal: [Workload],
  resource: [Invoice],
  context: { provenance: { origin: Workload } },
};
";
const POLICIES: &str = r#"
@id("payer-asks") permit (principal == Workload::"spiffe://example.org/agent/payer", action == Action::"pay", resource);
@id("clerk-goes-on")
permit (
  principal == Workload::"spiffe://example.org/agent/clerk",
  action in [Action::"reserve", Action::"transfer"],
  resource
) when { context.provenance.origin == Workload::"spiffe://example.org/agent/payer" };
@id("frozen") forbid (principal, action == Action::"transfer", resource == Invoice::"inv-frozen");
@id("large") @step_up("manager") @message("Transfer {resource.id} for {subject}?")
forbid (principal, action == Action::"transfer", resource == Invoice::"inv-large");
@id("odd") @step_up("manager") @message("Transfer {resource.id} for {subject}?")
forbid (principal, action == Action::"transfer", resource == Invoice::"inv-odd");
"#;

/// A step that would take longer than the test: whoever is in one is stopped there.
const LONG: Duration = Duration::from_secs(600);
const CLERK: &str = "spiffe://example.org/agent/clerk";
const BEFORE_STOP: [&str; 4] = ["collect", "match", "reckon", "reserve"];

/// A worker beside a gate that answers access evaluations and tells signals.
struct Office {
    runtime: tokio::runtime::Runtime,
    client: Client,
    signals: Signals,
    _reader: Reader,
}

impl Office {
    fn new(site: &Site, gate: &GateProcess, signals: &str) -> Self {
        let address = wait_for("the address of access evaluations", || gate.serving("access evaluations"));
        let client = Client::new(clerk(site), &format!("http://{address}")).expect("a client");
        let runtime = tokio::runtime::Runtime::new().expect("a runtime");
        let (signals, reader) = listen(site, signals, &runtime);
        Self { runtime, client, signals, _reader: reader }
    }

    fn begin(&self, received: Received, pace: fn(&str) -> Duration) -> Work {
        let bench = Arc::new(Bench::new(pace));
        let job = Job::open(received, Arc::new(self.client.clone()), &self.signals);
        let end = self.runtime.spawn({
            let bench = Arc::clone(&bench);
            async move { bench.work(job).await }
        });
        Work { bench, end }
    }

    fn end(&self, work: Work) -> (End, Vec<String>) {
        let end = self.runtime.block_on(work.end).expect("no panic");
        let done = work.bench.done.lock().expect("no panic").clone();
        (end, done)
    }

    /// Asks for the next sensitive step all the same, as a worker would that does not listen; gives the decision's id.
    fn ask(&self, received: &Received, action: &str) -> (String, Option<String>) {
        let action = Action { name: action.into(), properties: None };
        let resource =
            Resource { kind: "Invoice".into(), id: received.resource.id.clone(), properties: None };
        let mut question = Question::new(action, resource).carrying(&received.carry_on());
        if let Some(workflow) = &received.workflow {
            question = question.workflow(workflow.clone());
        }
        let answer = self.client.ask(&question).expect("an answer");
        assert!(!answer.decision);
        (answer.decision_id.expect("an id"), answer.reason)
    }
}

struct Work {
    bench: Arc<Bench>,
    end: JoinHandle<End>,
}

/// The worker, with a WIT of the site's issuer.
fn clerk(site: &Site) -> Caller {
    let issuer = SigningKey::from_jwk(&site.read("keys/issuer.jwk")).expect("a private key");
    let own = SigningKey::from_seed(Algorithm::EdDsa, &[17; 32], None).expect("a key");
    let now = now_ms() / 1000;
    let claims = json!({
        "sub": CLERK, "iat": now - 60, "exp": now + 3600,
        "cnf": { "jwk": own.public_jwk() },
    });
    let wit = issuer.sign(TokenKind::WorkloadIdentity, &claims).expect("a WIT");
    Caller::new(own, &wit).expect("a caller")
}

/// A site whose gate answers access evaluations by the route of payments and asks people about them; the topic of its signals.
fn configure(site: &Site) -> (String, Approvers) {
    let signals = tell_signals(site);
    site.write("policies/schema.cedarschema", SCHEMA);
    site.write("policies/policies.cedar", POLICIES);
    (signals, Approvers::join(site))
}

#[test]
fn each_job_stops_where_it_should_and_the_audit_says_why() {
    let Some(broker) = broker("each long job stops where it should and the audit says why") else { return };
    let site = Site::new(broker, Plan::default());
    let followed = Followed::new(&site, "10s", false);
    let (signals, approvers) = configure(&site);
    let gate = site.start_ready(None);
    let office = Office::new(&site, &gate, &signals);
    let (mut sender, mut sent) = (Sender::new(&site), 0);
    let mut work = |work: Sent| {
        site.writer.write(&site.commands, &[work.record]);
        sent += 1;
        site.wait_decided(sent);
        newest(&site)
    };

    // A person approves of the second sensitive step of one. Who asked for the work cannot.
    let received = work(sender.asks("pay", "inv-large", Expect::Forward));
    let at_work = office.begin(received, |_| Duration::ZERO);
    let asked = approvers.wait(&site, "inv-large", ChallengeStatus::Open);
    assert_eq!(asked.step_ups[0].message, "Transfer inv-large for alice?");
    assert_eq!((asked.sender.as_str(), asked.subject.as_deref()), (CLERK, Some("alice")));
    approvers.answer(&site, &asked, "alice", "approve");
    let barred = || effects(&site, &asked.id).contains(&"requester".to_owned());
    wait_for("the requester's answer", || barred().then_some(()));
    assert!(!at_work.end.is_finished(), "the requester's answer does nothing");
    approvers.answer(&site, &asked, "carol", "approve");
    let (end, done) = office.end(at_work);
    assert!(matches!(&end, End::Done(job) if job.received().resource.id == "inv-large"), "{end:?}");
    let all = ["collect", "match", "reckon", "reserve", "announce", "transfer", "book", "archive"];
    assert_eq!(done, all);
    let released = approvers.wait(&site, "inv-large", ChallengeStatus::Released);
    assert_eq!(released.id, asked.id, "asked once");
    let decision = released.decision_id.expect("the decision that used it");
    let allowed = audits(&site).into_iter().find(|audit| audit.record.decision_id == decision);
    let allowed = allowed.expect("an audit record").record;
    assert_eq!(
        (allowed.outcome.as_str(), &allowed.approvers[..]),
        ("allow", &["User::\"carol\"".to_owned()][..])
    );
    assert_eq!(effects(&site, &asked.id), ["requester", "counted"]);

    // And refuses another's.
    let received = work(sender.asks("pay", "inv-odd", Expect::Forward));
    let at_work = office.begin(received, |_| Duration::ZERO);
    let asked = approvers.wait(&site, "inv-odd", ChallengeStatus::Open);
    approvers.answer(&site, &asked, "carol", "refuse");
    let (end, done) = office.end(at_work);
    let End::Refused(Refused::Denied(denied)) = end else { panic!("{end:?}") };
    assert_eq!((denied.reason.as_str(), &done[..]), ("step_up_refused", &all.map(str::to_owned)[..5]));
    let mut reasons = BTreeMap::from([(denied.decision, "step_up_refused")]);

    // One is forbidden, and nobody is asked.
    let received = work(sender.asks("pay", "inv-frozen", Expect::Forward));
    let (end, done) = office.end(office.begin(received, |_| Duration::ZERO));
    let End::Refused(Refused::Denied(denied)) = end else { panic!("{end:?}") };
    assert_eq!(done, all[..5]);
    assert_eq!(denied.reason, "forbidden");
    reasons.insert(denied.decision, "forbidden");

    // The workflow of one is cancelled in the middle.
    followed.workflow("job-1", Status::Running);
    let received = work(sender.of_workflow("job-1", Expect::Forward));
    let at_work = office.begin(received.clone(), |_| LONG);
    let told = Instant::now();
    followed.workflow("job-1", Status::Cancelled);
    let (end, done) = office.end(at_work);
    println!("from appending the workflow's end to the end of the job: {:?}", told.elapsed());
    let cancelled = Stop::WorkflowEnded { workflow: "job-1".into(), status: Status::Cancelled };
    assert!(matches!(&end, End::Stopped(stop) if *stop == cancelled), "{end:?}");
    assert!(done.is_empty());
    reasons.extend([too_late(&office, &received, "reserve", "workflow_ended")]);

    // The subject of one is revoked, after its first steps.
    let received = work(sender.asks("pay", "inv-7", Expect::Forward));
    let at_work =
        office.begin(received.clone(), |step| if step == "announce" { LONG } else { Duration::ZERO });
    let so_far = || at_work.bench.done.lock().expect("no panic").len();
    wait_for("the first steps", || (so_far() == BEFORE_STOP.len()).then_some(()));
    let told = Instant::now();
    followed.revoke("subject", "alice");
    let (end, done) = office.end(at_work);
    println!("from appending the revocation to the end of the job: {:?}", told.elapsed());
    assert_eq!(done, BEFORE_STOP);
    assert!(matches!(&end, End::Stopped(Stop::Revoked { about, .. }) if &*about.id == "alice"), "{end:?}");
    reasons.extend([too_late(&office, &received, "transfer", "revoked")]);

    let audits = audits(&site);
    for (decision, reason) in reasons {
        let audit =
            audits.iter().find(|audit| audit.record.decision_id == decision).expect("an audit record");
        assert_eq!(audit.record.reason.as_deref(), Some(reason));
    }
    gate.terminate();
}

fn too_late(
    office: &Office,
    received: &Received,
    action: &str,
    reason: &'static str,
) -> (String, &'static str) {
    let (decision, given) = office.ask(received, action);
    assert_eq!(given.as_deref(), Some(reason));
    (decision, reason)
}

/// What the answers to a challenge came to, in order.
fn effects(site: &Site, challenge: &str) -> Vec<String> {
    let of_it = audits(site).into_iter().map(|audit| audit.record);
    let of_it = of_it.filter(|audit| audit.challenge.as_deref() == Some(challenge));
    of_it.filter_map(|audit| Some(audit.answer?.effect)).collect()
}
