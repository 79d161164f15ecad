//! The metrics: one set of OpenTelemetry instruments, whoever reads them. Names, units and labels are listed in
//! `docs/telemetry.md`, and a test holds the two together. Limits: a label value is a constant, a name of the
//! configuration or a number of the broker; nothing that a sender chooses ever becomes one.

use std::collections::BTreeMap;
use std::sync::Arc;

use opentelemetry::KeyValue;
use opentelemetry::metrics::{Counter, Gauge, Histogram, Meter};

use super::status::{HeldStatus, LaneState, LaneStatus, Status};

/// Upper bounds of the time buckets, in seconds, from 10 us (a decision from cached tokens) to 10 s.
const SECONDS: [f64; 19] = [
    0.000_01, 0.000_025, 0.000_05, 0.000_1, 0.000_25, 0.000_5, 0.001, 0.002_5, 0.005, 0.01, 0.025, 0.05, 0.1,
    0.25, 0.5, 1.0, 2.5, 5.0, 10.0,
];

/// Upper bounds of the batch size buckets, in records.
const RECORDS: [f64; 13] =
    [1.0, 2.0, 5.0, 10.0, 25.0, 50.0, 100.0, 250.0, 500.0, 1000.0, 2500.0, 5000.0, 10_000.0];

/// Every instrument that events write to. The gauges are read from [`Status`] when somebody looks.
#[derive(Debug)]
pub(super) struct Instruments {
    pub decisions: Counter<u64>,
    pub challenges: Counter<u64>,
    pub decision_duration: Histogram<f64>,
    pub commit_duration: Histogram<f64>,
    pub batch_records: Histogram<u64>,
    pub token_cache_lookups: Counter<u64>,
    pub transactions_aborted: Counter<u64>,
    pub producers_replaced: Counter<u64>,
    pub broker_away: Counter<u64>,
    pub breaker_opened: Counter<u64>,
    pub partitions_moved: Counter<u64>,
    pub restore_duration: Histogram<f64>,
    pub snapshot_loads: Counter<u64>,
    pub signals_published: Counter<u64>,
    pub signals_held_up: Counter<u64>,
    pub issuer_key_loads: Counter<u64>,
    pub answers_written: Counter<u64>,
    pub approvals_refused: Counter<u64>,
    pub evaluations: Counter<u64>,
    pub evaluation_duration: Histogram<f64>,
    pub access_refused: Counter<u64>,
    pub desk_commit_duration: Histogram<f64>,
    pub desk_away: Counter<u64>,
    pub facts: Counter<u64>,
    pub certificate_loads: Counter<u64>,
    pub certificate_expiry: Gauge<i64>,
    pub handshakes_failed: Counter<u64>,
}

impl Instruments {
    /// Makes every instrument on `meter`; the gauges watch `status`.
    pub(super) fn new(meter: &Meter, status: &Arc<Status>) -> Self {
        gauges(meter, status);
        let seconds = |name: &'static str, description: &'static str| {
            meter
                .f64_histogram(name)
                .with_unit("s")
                .with_description(description)
                .with_boundaries(SECONDS.to_vec())
                .build()
        };
        let counter = |name: &'static str, description: &'static str| {
            meter.u64_counter(name).with_description(description).build()
        };
        Self {
            decisions: counter("countersign.decisions", "Decisions committed, by route, outcome and reason"),
            challenges: counter(
                "countersign.challenges",
                "Challenges of held records that were opened, approved or ended, by route and status",
            ),
            decision_duration: seconds("countersign.decision.duration", "Time to decide one record"),
            commit_duration: seconds("countersign.commit.duration", "Time to commit one batch"),
            batch_records: meter
                .u64_histogram("countersign.batch.records")
                .with_unit("{record}")
                .with_description("Records in one committed batch")
                .with_boundaries(RECORDS.to_vec())
                .build(),
            token_cache_lookups: counter(
                "countersign.token_cache.lookups",
                "Look-ups of already verified tokens, by result",
            ),
            transactions_aborted: counter(
                "countersign.transactions.aborted",
                "Transactions given up and redone, by kind",
            ),
            producers_replaced: counter(
                "countersign.producers.replaced",
                "Transactional producers thrown away, by cause",
            ),
            broker_away: counter("countersign.broker.away", "Times that a lane lost its broker"),
            breaker_opened: counter(
                "countersign.breaker.opened",
                "Times that a route stopped in a lane because of its denials",
            ),
            partitions_moved: counter(
                "countersign.partitions.moved",
                "Partitions gained, given back and lost, by direction",
            ),
            restore_duration: seconds(
                "countersign.restore.duration",
                "Time to read back a partition's state",
            ),
            snapshot_loads: counter("countersign.snapshot.loads", "Attempts to load a snapshot, by result"),
            signals_published: counter(
                "countersign.signals.published",
                "Signals to work in flight that the broker has taken, by what they name",
            ),
            signals_held_up: counter(
                "countersign.signals.held_up",
                "Times that signals could not be published and wait",
            ),
            issuer_key_loads: counter(
                "countersign.issuer_keys.loads",
                "New keys of an OIDC issuer, by issuer and result",
            ),
            answers_written: counter(
                "countersign.answers.written",
                "Approvers' answers taken over HTTP, by route and decision",
            ),
            approvals_refused: counter(
                "countersign.approvals.refused",
                "Approvers' requests refused over HTTP, by error",
            ),
            evaluations: counter(
                "countersign.evaluations",
                "Access evaluations committed, by route, outcome and reason",
            ),
            evaluation_duration: seconds(
                "countersign.evaluation.duration",
                "Time from a request for evaluations to the commit of their audit records",
            ),
            access_refused: counter(
                "countersign.access.refused",
                "Requests for evaluations answered without a decision, by status and reason",
            ),
            desk_commit_duration: seconds(
                "countersign.desk.commit.duration",
                "Time to write and commit the audit records of evaluations",
            ),
            desk_away: counter(
                "countersign.desk.away",
                "Times that audit records of evaluations could not be committed",
            ),
            facts: counter(
                "countersign.facts",
                "Records of the followed topics, by what they are about and by result",
            ),
            certificate_loads: counter(
                "countersign.certificate.loads",
                "New certificates of an HTTP interface, by interface and result",
            ),
            certificate_expiry: meter
                .i64_gauge("countersign.certificate.expiry")
                .with_unit("s")
                .with_description("When the certificate that an HTTP interface shows ends, in Unix time")
                .build(),
            handshakes_failed: counter(
                "countersign.handshakes.failed",
                "TLS handshakes that came to nothing, by interface and cause",
            ),
        }
    }
}

fn gauges(meter: &Meter, status: &Arc<Status>) {
    let watched = Arc::clone(status);
    meter
        .u64_observable_gauge("countersign.lag")
        .with_unit("{record}")
        .with_description("Records that wait behind the committed position")
        .with_callback(move |observer| {
            for lane in watched.read().lanes {
                for ((topic, partition), owned) in lane.partitions {
                    if let (Some(lag), Some(route)) = (owned.lag, owned.route) {
                        let place = [
                            KeyValue::new("route", route),
                            KeyValue::new("topic", topic.to_string()),
                            KeyValue::new("partition", i64::from(partition.0)),
                        ];
                        observer.observe(lag, &place);
                    }
                }
            }
        })
        .build();
    let watched = Arc::clone(status);
    meter
        .u64_observable_gauge("countersign.replay.entries")
        .with_unit("{entry}")
        .with_description("Proofs remembered against replay")
        .with_callback(move |observer| {
            for lane in watched.read().lanes {
                for ((topic, partition), owned) in lane.partitions {
                    let place = [
                        KeyValue::new("topic", topic.to_string()),
                        KeyValue::new("partition", i64::from(partition.0)),
                    ];
                    observer.observe(owned.replay_entries, &place);
                }
            }
        })
        .build();
    held_gauges(meter, status);
    lane_gauges(meter, status);
    breaker_gauge(meter, status);
    snapshot_gauges(meter, status);
    view_gauges(meter, status);
}

fn held_gauges(meter: &Meter, status: &Arc<Status>) {
    let watched = Arc::clone(status);
    meter
        .u64_observable_gauge("countersign.held.records")
        .with_description("Records that are held, those that wait behind another included")
        .with_callback(move |observer| {
            for (place, held) in holding(&watched) {
                observer.observe(held.records, &place);
            }
        })
        .build();
    let watched = Arc::clone(status);
    meter
        .f64_observable_gauge("countersign.held.oldest.age")
        .with_unit("s")
        .with_description("Time since the first of the held records was asked about")
        .with_callback(move |observer| {
            for (place, held) in holding(&watched) {
                observer.observe(held.oldest.unwrap_or_default().as_secs_f64(), &place);
            }
        })
        .build();
}

/// The partitions of routes that hold, with their labels.
fn holding(status: &Status) -> Vec<([KeyValue; 3], HeldStatus)> {
    let partitions = status.read().lanes.into_iter().flat_map(|lane| lane.partitions);
    let held = partitions.filter_map(|((topic, partition), owned)| {
        let place = [
            KeyValue::new("route", owned.route?),
            KeyValue::new("topic", topic.to_string()),
            KeyValue::new("partition", i64::from(partition.0)),
        ];
        Some((place, owned.held?))
    });
    held.collect()
}

fn view_gauges(meter: &Meter, status: &Arc<Status>) {
    let watched = Arc::clone(status);
    meter
        .f64_observable_gauge("countersign.view.age")
        .with_unit("s")
        .with_description("Age of the view of the followed topics, by its oldest part")
        .with_callback(move |observer| {
            if let Some(age) = watched.read().view.and_then(|view| view.age) {
                observer.observe(age.as_secs_f64(), &[]);
            }
        })
        .build();
    let watched = Arc::clone(status);
    meter
        .u64_observable_gauge("countersign.facts.held")
        .with_description("Facts of the followed topics that are kept in memory")
        .with_callback(move |observer| {
            for (what, count) in watched.read().view.iter().flat_map(|view| view.entries.named()) {
                observer.observe(count as u64, &[KeyValue::new("held", what)]);
            }
        })
        .build();
}

fn lane_gauges(meter: &Meter, status: &Arc<Status>) {
    let number = |lane: &LaneStatus| KeyValue::new("lane", i64::try_from(lane.lane).unwrap_or(i64::MAX));
    let watched = Arc::clone(status);
    meter
        .u64_observable_gauge("countersign.lane.state")
        .with_description("1 for the state that a lane is in, 0 for the others")
        .with_callback(move |observer| {
            for lane in watched.read().lanes {
                for state in LaneState::ALL {
                    let labels = [number(&lane), KeyValue::new("state", state.as_str())];
                    observer.observe(u64::from(lane.state == state), &labels);
                }
            }
        })
        .build();
    let watched = Arc::clone(status);
    meter
        .u64_observable_gauge("countersign.partitions.owned")
        .with_unit("{partition}")
        .with_description("Partitions that a lane owns")
        .with_callback(move |observer| {
            for lane in watched.read().lanes {
                observer.observe(lane.partitions.len() as u64, &[number(&lane)]);
            }
        })
        .build();
}

fn breaker_gauge(meter: &Meter, status: &Arc<Status>) {
    let watched = Arc::clone(status);
    meter
        .u64_observable_gauge("countersign.breaker.open")
        .with_unit("{lane}")
        .with_description("Lanes in which a route does not go on because of its denials")
        .with_callback(move |observer| {
            let mut lanes: BTreeMap<String, u64> = BTreeMap::new();
            for breaker in watched.read().breakers {
                *lanes.entry(breaker.route).or_default() += u64::from(breaker.reason.is_some());
            }
            for (route, lanes) in lanes {
                observer.observe(lanes, &[KeyValue::new("route", route)]);
            }
        })
        .build();
}

fn snapshot_gauges(meter: &Meter, status: &Arc<Status>) {
    let watched = Arc::clone(status);
    meter
        .f64_observable_gauge("countersign.snapshot.age")
        .with_unit("s")
        .with_description("Time since the snapshot that decides was loaded")
        .with_callback(move |observer| {
            for snapshot in watched.read().snapshots {
                if let Some(age) = snapshot.age {
                    observer.observe(age.as_secs_f64(), &[KeyValue::new("snapshot", snapshot.kind.as_str())]);
                }
            }
        })
        .build();
    let watched = Arc::clone(status);
    meter
        .u64_observable_gauge("countersign.snapshot.stale")
        .with_description("1 while a newer snapshot was refused and an older one decides")
        .with_callback(move |observer| {
            for snapshot in watched.read().snapshots {
                let labels = [KeyValue::new("snapshot", snapshot.kind.as_str())];
                observer.observe(u64::from(snapshot.stale), &labels);
            }
        })
        .build();
}
