//! Every event once, with plausible facts: what a gate would show in a short life.

use std::time::{Duration, SystemTime};

use countersign::authorize::decision::Reason;
use countersign::authorize::ids::{
    Coordinates, DecisionId, Digest, Offset, Partition, Realm, Topic, WorkloadId,
};
use countersign::authorize::step_up::Status;
use countersign::authorize::traceparent::TraceParent;
use countersign::telemetry::events::*;
use countersign::telemetry::{Entries, Fact, HeldStatus, SnapshotKind, Telemetry, TopicPartition};

pub const ROUTE: &str = "payments";
pub const SOURCE: &str = "payments.commands";
const CHALLENGE: &str = "payments.commands:3:01980000-0000-7000-8000-000000000001";

pub fn partition(number: i32) -> TopicPartition {
    (Topic::parse(SOURCE).unwrap(), Partition(number))
}

pub fn coordinates(offset: i64) -> Coordinates {
    Coordinates { topic: Topic::parse(SOURCE).unwrap(), partition: Partition(3), offset: Offset(offset) }
}

pub fn decided<'a>(
    source: &'a Coordinates,
    parent: Option<TraceParent>,
    denied: Option<Reason>,
) -> Decided<'a> {
    Decided {
        route: ROUTE,
        source,
        parent,
        id: DecisionId("01980000-0000-7000-8000-000000000001".parse().unwrap()),
        outcome: if denied.is_some() { "deny" } else { "forward" },
        denied,
        effect: None,
        started: SystemTime::UNIX_EPOCH + Duration::from_secs(1_700_000_000),
        took: Duration::from_micros(250),
    }
}

/// How partition 3 stands, with what is held of it.
pub fn progress(held: Option<HeldStatus>) -> PartitionProgress<'static> {
    static PARTITION: std::sync::LazyLock<TopicPartition> = std::sync::LazyLock::new(|| partition(3));
    PartitionProgress { lane: 0, route: ROUTE, partition: &PARTITION, lag: Some(5), replay_entries: 30, held }
}

/// A gate that is ready: one lane, one partition, every snapshot.
pub fn ready(telemetry: &Telemetry) {
    let realm = Realm::parse("prod").unwrap();
    let gate = WorkloadId::parse("spiffe://example.org/gate/payments").unwrap();
    GateStarted { realm: &realm, gate: &gate, lanes: 1 }.emit(telemetry);
    for snapshot in SnapshotKind::ALL {
        SnapshotLoaded { snapshot, version: "v1" }.emit(telemetry);
    }
    LaneAssigned { lane: 0, partitions: &[partition(3)] }.emit(telemetry);
    let took = Duration::from_millis(40);
    PartitionRestored { lane: 0, partition: &partition(3), replay_entries: 7, took }.emit(telemetry);
}

/// Every event there is; at the end the gate is ready and owns partition 3.
pub fn everything(telemetry: &Telemetry) {
    ready(telemetry);
    ServerListening { what: "health and metrics", address: "127.0.0.1:9464".parse().unwrap() }
        .emit(telemetry);
    TopicCreated { topic: &Topic::parse("payments.commands.replay").unwrap(), partitions: 4 }.emit(telemetry);
    TopicWarned { warning: "topic `payments.commands` has the senders' own timestamps" }.emit(telemetry);
    BrokerAwaited { problem: "all brokers are down" }.emit(telemetry);
    ClockAhead { source: &coordinates(10), ahead_ms: 90_000 }.emit(telemetry);
    decided(&coordinates(11), None, None).emit(telemetry);
    for reason in Reason::ALL {
        decided(&coordinates(12), None, Some(*reason)).emit(telemetry);
    }
    BatchCommitted { lane: 0, records: 30, commit: Duration::from_millis(4) }.emit(telemetry);
    for status in Status::ALL {
        ChallengeChanged { route: ROUTE, source: &coordinates(13), challenge: CHALLENGE, status }
            .emit(telemetry);
    }
    progress(Some(HeldStatus { records: 2, oldest: Some(Duration::from_secs(90)) })).emit(telemetry);
    TokenCacheUsed { hits: 28, misses: 2 }.emit(telemetry);
    let problem = "broker transport failure";
    for kind in AbortKind::ALL {
        TransactionAborted { lane: 0, kind, records: 3, problem }.emit(telemetry);
    }
    for cause in ReplaceCause::ALL {
        ProducerReplaced { lane: 0, cause, attempt: 1, problem }.emit(telemetry);
    }
    BrokerAway { lane: 0, problem }.emit(telemetry);
    LanePaused { lane: 0, reason: "the source topic grew" }.emit(telemetry);
    LaneResumed { lane: 0 }.emit(telemetry);
    let denials = "93 of the last 100 records were denied";
    for is in [BreakerIs::Open(denials), BreakerIs::Trying, BreakerIs::Closed] {
        BreakerMoved { lane: 0, route: ROUTE, is }.emit(telemetry);
    }
    SnapshotRefused { snapshot: SnapshotKind::Policy, problem: "policy `a` has no id" }.emit(telemetry);
    for kind in ["workload", "subject", "transaction", "token", "key", "workflow", "trust_domain"] {
        SignalPublished { kind, id: Digest([1; 32]) }.emit(telemetry);
    }
    SignalsHeldUp { waiting: 2, problem }.emit(telemetry);
    let topic = Topic::parse("countersign.revocations").unwrap();
    let at = Coordinates { topic: topic.clone(), partition: Partition(0), offset: Offset(9) };
    ControlAway { problem }.emit(telemetry);
    ControlRead { took: Duration::from_millis(300), records: 12 }.emit(telemetry);
    ControlGrew { topic: &topic, partitions: 2 }.emit(telemetry);
    FactApplied { fact: Fact::Revocation, at: &at, change: "Applied" }.emit(telemetry);
    FactRefused { fact: Fact::Revocation, at: &at, problem: "its signature does not hold" }.emit(telemetry);
    ViewStale { problem: "the view of `countersign.revocations/0` is 11.0 s old and may be 10.0 s" }
        .emit(telemetry);
    ViewCurrent.emit(telemetry);
    let entries = Entries { revocations: 3, ..Entries::default() };
    let limit = Duration::from_secs(10);
    ControlViewed { part: "`countersign.revocations/0`", age: Some(Duration::from_secs(1)), limit, entries }
        .emit(telemetry);
    LaneAssigned { lane: 0, partitions: &[partition(4), partition(5)] }.emit(telemetry);
    LaneRevoked { lane: 0, partitions: &[partition(4)], lost: false }.emit(telemetry);
    LaneRevoked { lane: 0, partitions: &[partition(5)], lost: true }.emit(telemetry);
    approvals(telemetry);
    tls(telemetry);
    access(telemetry);
}

/// What is asked over HTTP in the middle of a job.
fn access(telemetry: &Telemetry) {
    let (problem, took) = ("broker transport failure", Duration::from_millis(7));
    DeskOpened { tree: "gate-1/0190a6c0000070008000000000000001" }.emit(telemetry);
    for denied in [None, Some(Reason::NotPermitted)] {
        Evaluated { route: ROUTE, denied, took }.emit(telemetry);
    }
    AccessRefused { status: 401, reason: Some(Reason::Replayed) }.emit(telemetry);
    DeskCommitted { records: 2, commit: took }.emit(telemetry);
    DeskAway { problem }.emit(telemetry);
}

/// TLS on the HTTP interfaces.
fn tls(telemetry: &Telemetry) {
    for is_over in [false, true] {
        CertificateLoaded { server: "access", expires: 1_893_456_000, is_over }.emit(telemetry);
    }
    CertificateRefused { server: "access", problem: "the key is not the one of the certificate" }
        .emit(telemetry);
    HandshakeFailed { server: "access", cause: "late", problem: "it took too long" }.emit(telemetry);
}

/// Approvers and their answers over HTTP.
fn approvals(telemetry: &Telemetry) {
    let issuer = "https://login.example.com/realms/main";
    IssuerKeysLoaded { issuer, version: "v1", keys: 2 }.emit(telemetry);
    IssuerKeysRefused { issuer, problem: "connection refused" }.emit(telemetry);
    ChallengeUnreadable { source: &coordinates(20), problem: "not an Avro single-object encoding" }
        .emit(telemetry);
    AnswerWritten { route: ROUTE, decision: "approve", written: &coordinates(21) }.emit(telemetry);
    ApprovalRefused { error: "invalid_token", status: 401 }.emit(telemetry);
}

/// The end of a gate's life.
pub fn the_end(telemetry: &Telemetry) {
    LaneStopped { lane: 0, problem: None }.emit(telemetry);
    LaneStopped { lane: 0, problem: Some("fenced by another instance") }.emit(telemetry);
    GateStopped.emit(telemetry);
}
