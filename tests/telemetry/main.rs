//! What a gate shows of itself, read as others read it: by an OTLP collector, by a Prometheus scraper and over HTTP.

mod facts;
mod prometheus;
mod receiver;

use std::collections::{BTreeMap, BTreeSet};
use std::io::{Read as _, Write as _};
use std::net::{SocketAddr, TcpStream};
use std::sync::{Arc, Mutex};
use std::time::{Duration, Instant};

use bytes::Bytes;
use countersign::authorize::decision::Reason;
use countersign::authorize::record::{Header, Record, TimestampType};
use countersign::authorize::traceparent::TraceParent;
use countersign::serve::Server;
use countersign::telemetry::events::*;
use countersign::telemetry::{
    HeldStatus, LogFormat, LogSettings, OtlpEndpoint, Settings, SnapshotKind, Telemetry,
};
use receiver::{Receiver, attribute};

const DOCUMENT: &str = include_str!("../../docs/telemetry.md");
const PARENT: &str = "00-4bf92f3577b34da6a3ce929d0e0e4736-00f067aa0ba902b7-01";

fn exporting_to(receiver: &Receiver) -> Telemetry {
    Telemetry::start(Settings {
        otlp: Some(OtlpEndpoint::parse(&receiver.url()).unwrap()),
        resource: vec![("countersign.realm", "prod".to_owned())],
        consumer_group: Some("countersign".to_owned()),
        ..Settings::default()
    })
    .unwrap()
}

fn scraped() -> Telemetry {
    Telemetry::start(Settings::default()).unwrap()
}

#[test]
fn a_decision_is_a_span_in_the_records_own_trace() {
    let receiver = Receiver::start();
    let telemetry = exporting_to(&receiver);
    let source = facts::coordinates(42);
    let parent = TraceParent::parse(PARENT.as_bytes());
    facts::decided(&source, parent, Some(Reason::NotPermitted)).emit(&telemetry);
    telemetry.shutdown();

    receiver.read(|received| {
        assert_eq!(received.spans.len(), 1);
        let span = &received.spans[0];
        assert_eq!(span.name, "process payments.commands");
        assert_eq!(span.kind(), opentelemetry_proto::tonic::trace::v1::span::SpanKind::Consumer);
        assert_eq!(span.trace_id, 0x4bf9_2f35_77b3_4da6_a3ce_929d_0e0e_4736_u128.to_be_bytes());
        assert_eq!(span.parent_span_id, 0x00f0_67aa_0ba9_02b7_u64.to_be_bytes());
        assert_eq!(span.start_time_unix_nano, 1_700_000_000_000_000_000);
        assert_eq!(span.end_time_unix_nano - span.start_time_unix_nano, 250_000);
        for (key, value) in [
            ("messaging.system", "kafka"),
            ("messaging.operation.name", "process"),
            ("messaging.operation.type", "process"),
            ("messaging.destination.name", "payments.commands"),
            ("messaging.destination.partition.id", "3"),
            ("messaging.kafka.offset", "42"),
            ("messaging.consumer.group.name", "countersign"),
            ("countersign.route", "payments"),
            ("countersign.outcome", "deny"),
            ("countersign.reason", "not_permitted"),
            ("countersign.decision.id", "01980000-0000-7000-8000-000000000001"),
        ] {
            assert_eq!(attribute(&span.attributes, key).as_deref(), Some(value), "{key}");
        }
    });
}

#[test]
fn a_record_without_a_trace_begins_one() {
    let receiver = Receiver::start();
    let telemetry = exporting_to(&receiver);
    facts::decided(&facts::coordinates(1), None, None).emit(&telemetry);
    facts::decided(&facts::coordinates(2), None, None).emit(&telemetry);
    telemetry.shutdown();

    receiver.read(|received| {
        let traces: BTreeSet<_> = received.spans.iter().map(|span| span.trace_id.clone()).collect();
        assert_eq!(traces.len(), 2);
        assert!(received.spans.iter().all(|span| span.parent_span_id.is_empty()));
        assert!(
            received.spans.iter().all(|span| attribute(&span.attributes, "countersign.reason").is_none())
        );
    });
}

#[test]
fn a_sender_that_does_not_sample_gets_no_span() {
    let receiver = Receiver::start();
    let telemetry = exporting_to(&receiver);
    let unsampled = PARENT.replace("-01", "-00");
    let parent = TraceParent::parse(unsampled.as_bytes());
    assert!(parent.is_some());
    facts::decided(&facts::coordinates(1), parent, None).emit(&telemetry);
    telemetry.shutdown();
    receiver.read(|received| assert!(received.spans.is_empty()));
}

#[test]
fn metrics_and_log_lines_arrive_at_the_collector() {
    let receiver = Receiver::start();
    let telemetry = exporting_to(&receiver);
    let settings = LogSettings { filter: "info".to_owned(), format: LogFormat::Json };
    tracing::subscriber::with_default(telemetry.subscriber(&settings).unwrap(), || {
        facts::everything(&telemetry);
        facts::the_end(&telemetry);
        tracing::info!(target: "hyper::client", "a line of the exporter's own client");
    });
    telemetry.shutdown();

    receiver.read(|received| {
        let names: BTreeSet<_> = received.metrics.iter().map(|metric| metric.name.as_str()).collect();
        for name in ["countersign.decisions", "countersign.decision.duration", "countersign.snapshot.age"] {
            assert!(names.contains(name), "{name} in {names:?}");
        }
        let lines: BTreeSet<_> = received.logs.iter().map(|line| line.event_name.as_str()).collect();
        assert!(lines.contains("lane_assigned") && lines.contains("transaction_aborted"), "{lines:?}");
        assert!(!lines.contains("decided"), "below the filter's level");
        assert!(!received.logs.iter().any(|line| format!("{:?}", line.body).contains("exporter's own")));
        let aborted = received.logs.iter().find(|line| line.event_name == "transaction_aborted").unwrap();
        assert_eq!(attribute(&aborted.attributes, "problem").as_deref(), Some("broker transport failure"));
        for resource in &received.resources {
            assert_eq!(attribute(&resource.attributes, "countersign.realm").as_deref(), Some("prod"));
            assert!(attribute(&resource.attributes, "service.name").is_some());
        }
    });
}

/// Run by the next test in a process of its own, whose environment names a collector.
#[test]
fn a_gate_without_an_endpoint_makes_no_exporter() {
    let telemetry = scraped();
    let subscriber = telemetry.subscriber(&LogSettings::default()).unwrap();
    tracing::subscriber::with_default(subscriber, || facts::everything(&telemetry));
    telemetry.shutdown();
    assert!(telemetry.status().is_ready());
}

#[test]
fn nothing_is_sent_when_no_endpoint_is_set() {
    let receiver = Receiver::start();
    let ended = std::process::Command::new(std::env::current_exe().unwrap())
        .args(["--exact", "a_gate_without_an_endpoint_makes_no_exporter"])
        .env("OTEL_EXPORTER_OTLP_ENDPOINT", receiver.url())
        .output()
        .unwrap();
    let said = String::from_utf8_lossy(&ended.stdout);
    assert!(ended.status.success() && said.contains("1 passed"), "{said}");
    receiver.read(|received| assert_eq!(received.requests, 0));
}

#[test]
fn a_collector_that_is_away_does_not_hold_up_the_end() {
    let gone = Receiver::start();
    let telemetry = exporting_to(&gone);
    drop(gone);
    facts::everything(&telemetry);
    let begun = Instant::now();
    telemetry.shutdown();
    assert!(begun.elapsed() < Duration::from_secs(10), "{:?}", begun.elapsed());
}

#[test]
fn the_document_lists_the_metrics_that_exist_with_their_types_and_labels() {
    let telemetry = scraped();
    facts::everything(&telemetry);
    let real: BTreeMap<String, (String, BTreeSet<String>)> =
        prometheus::parse(&telemetry.render_metrics().unwrap())
            .into_iter()
            .filter(|(name, _)| name != "target_info")
            .map(|(name, family)| (name, (family.kind, family.labels)))
            .collect();
    let documented: BTreeMap<String, (String, BTreeSet<String>)> = rows("Metrics")
        .into_iter()
        .map(|row| (ticked(&row[0])[0].clone(), (row[1].clone(), ticked(&row[2]).into_iter().collect())))
        .collect();
    assert_eq!(documented, real);
}

#[test]
fn the_document_lists_the_events_that_exist_with_their_levels() {
    let telemetry = scraped();
    let seen = Arc::new(Mutex::new(BTreeMap::<String, BTreeSet<String>>::new()));
    let names = Names(Arc::clone(&seen));
    let subscriber = tracing_subscriber::layer::SubscriberExt::with(tracing_subscriber::registry(), names);
    tracing::subscriber::with_default(subscriber, || {
        facts::everything(&telemetry);
        facts::the_end(&telemetry);
    });
    let documented: BTreeMap<String, BTreeSet<String>> = rows("Events")
        .into_iter()
        .map(|row| (ticked(&row[0])[0].clone(), row[1].split(", ").map(str::to_owned).collect()))
        .collect();
    assert_eq!(documented, *seen.lock().unwrap());
}

#[test]
fn nothing_that_a_sender_writes_reaches_the_metrics() {
    const HOSTILE: &str = "h0stile";
    let telemetry = scraped();
    facts::ready(&telemetry);
    let mut headers = vec![
        Header::new("traceparent", format!("00-{HOSTILE}")),
        Header::new(HOSTILE, HOSTILE),
        Header::new("baggage", format!("route={HOSTILE}")),
    ];
    for reason in Reason::ALL {
        // A header named like a label, with a value that would end one.
        headers.push(Header::new("route", format!("{HOSTILE}\"}} 1\n{reason}")));
        let record = Record {
            source: facts::coordinates(7),
            timestamp: None,
            timestamp_type: TimestampType::CreateTime,
            key: Some(Bytes::from_static(HOSTILE.as_bytes())),
            value: Some(Bytes::from_static(HOSTILE.as_bytes())),
            headers: headers.clone(),
        };
        facts::decided(&record.source, TraceParent::of(&record), Some(*reason)).emit(&telemetry);
    }
    let text = telemetry.render_metrics().unwrap();
    assert!(!text.contains(HOSTILE));

    let mut allowed: BTreeSet<&str> = Reason::ALL.iter().map(|reason| reason.as_str()).collect();
    allowed.extend(SnapshotKind::ALL.iter().map(|kind| kind.as_str()));
    allowed.extend(countersign::telemetry::LaneState::ALL.iter().map(|state| state.as_str()));
    allowed.extend([facts::ROUTE, facts::SOURCE, "deny", "loaded", "gained", "0", "3"]);
    for (name, family) in prometheus::parse(&text) {
        for sample in family.samples.iter().filter(|_| name != "target_info") {
            for (label, value) in sample.labels.iter().filter(|(label, _)| *label != "le") {
                assert!(allowed.contains(value.as_str()), "{name}: {label}={value}");
            }
        }
    }
}

#[test]
fn a_partition_that_was_given_back_leaves_the_gauges() {
    let telemetry = scraped();
    facts::everything(&telemetry);
    let lag = |telemetry: &Telemetry| {
        let families = prometheus::parse(&telemetry.render_metrics().unwrap());
        families.get("countersign_lag").map_or(0, |family| family.samples.len())
    };
    assert_eq!(lag(&telemetry), 1);
    LaneRevoked { lane: 0, partitions: &[facts::partition(3)], lost: false }.emit(&telemetry);
    assert_eq!(lag(&telemetry), 0);
}

#[test]
fn what_is_held_leaves_the_gauges_with_its_partition_and_comes_back_as_it_is_read_back() {
    let telemetry = scraped();
    facts::ready(&telemetry);
    let held = || {
        let families = prometheus::parse(&telemetry.render_metrics().unwrap());
        ["countersign_held_records", "countersign_held_oldest_age_seconds"].map(|name| {
            let samples = families.get(name).map_or(&[][..], |family| &family.samples);
            samples.iter().map(|sample| sample.value).collect::<Vec<_>>()
        })
    };
    let nothing: [Vec<f64>; 2] = Default::default();
    facts::progress(None).emit(&telemetry);
    assert_eq!(held(), nothing, "a route that does not hold shows nothing");
    let oldest = Some(Duration::from_secs(90));
    facts::progress(Some(HeldStatus { records: 2, oldest })).emit(&telemetry);
    assert_eq!(held(), [vec![2.0], vec![90.0]]);
    LaneRevoked { lane: 0, partitions: &[facts::partition(3)], lost: true }.emit(&telemetry);
    facts::progress(Some(HeldStatus { records: 2, oldest })).emit(&telemetry);
    assert_eq!(held(), nothing, "it is another gate's now");
    LaneAssigned { lane: 0, partitions: &[facts::partition(3)] }.emit(&telemetry);
    assert_eq!(held(), nothing, "not known before it is restored");
    facts::progress(Some(HeldStatus { records: 1, oldest: None })).emit(&telemetry);
    assert_eq!(held(), [vec![1.0], vec![0.0]]);
}

#[test]
fn counters_and_gauges_hold_what_was_emitted() {
    let telemetry = scraped();
    facts::everything(&telemetry);
    let families = prometheus::parse(&telemetry.render_metrics().unwrap());
    let value = |name: &str, labels: &[(&str, &str)]| {
        let wanted: BTreeMap<String, String> =
            labels.iter().map(|(k, v)| ((*k).to_owned(), (*v).to_owned())).collect();
        families
            .values()
            .flat_map(|family| &family.samples)
            .find(|sample| sample.name == name && sample.labels == wanted)
            .unwrap_or_else(|| panic!("{name} {labels:?}"))
            .value
    };
    let forwarded = [("route", "payments"), ("outcome", "forward"), ("reason", "none")];
    assert_eq!(value("countersign_decisions_total", &forwarded), 1.0);
    let replayed = [("route", "payments"), ("outcome", "deny"), ("reason", "replayed")];
    assert_eq!(value("countersign_decisions_total", &replayed), 1.0);
    assert_eq!(value("countersign_decision_duration_seconds_count", &[("route", "payments")]), 30.0);
    assert_eq!(value("countersign_batch_records_sum", &[]), 30.0);
    assert_eq!(value("countersign_token_cache_lookups_total", &[("result", "hit")]), 28.0);
    let place = [("route", "payments"), ("topic", "payments.commands"), ("partition", "3")];
    assert_eq!(value("countersign_lag", &place), 5.0);
    assert_eq!(value("countersign_replay_entries", &place[1..]), 30.0);
    assert_eq!(value("countersign_held_records", &place), 2.0);
    assert_eq!(value("countersign_held_oldest_age_seconds", &place), 90.0);
    let released = [("route", "payments"), ("status", "released")];
    assert_eq!(value("countersign_challenges_total", &released), 1.0);
    assert_eq!(value("countersign_snapshot_stale", &[("snapshot", "policy")]), 1.0);
    assert_eq!(value("countersign_lane_state", &[("lane", "0"), ("state", "running")]), 1.0);
    assert_eq!(value("countersign_lane_state", &[("lane", "0"), ("state", "away")]), 0.0);
    assert_eq!(value("countersign_partitions_owned", &[("lane", "0")]), 1.0);
}

#[test]
fn a_filter_that_cannot_be_read_is_an_error_with_its_text() {
    let settings = LogSettings { filter: "countersign=loud".to_owned(), ..LogSettings::default() };
    let error = Telemetry::off().subscriber(&settings).err().expect("refused").to_string();
    assert!(error.contains("`countersign=loud`"), "{error}");
}

#[test]
fn the_server_answers_on_a_free_port_and_lets_it_go() {
    let telemetry = scraped();
    let server = Server::start("127.0.0.1:0".parse().unwrap(), telemetry.clone()).unwrap();
    let address = server.address();
    assert_ne!(address.port(), 0);

    assert_eq!(get(address, "/healthz"), (200, "ok\n".to_owned()));
    assert_eq!(get(address, "/nothing").0, 404);
    let (code, body) = get(address, "/readyz");
    let body: serde_json::Value = serde_json::from_str(&body).unwrap();
    assert_eq!((code, &body["ready"]), (503, &serde_json::json!(false)));
    assert_eq!(body["not_ready"].as_array().unwrap().len(), 4, "{body}");

    facts::ready(&telemetry);
    let (code, body) = get(address, "/readyz");
    let body: serde_json::Value = serde_json::from_str(&body).unwrap();
    assert_eq!((code, &body["ready"]), (200, &serde_json::json!(true)));
    assert_eq!(body["lanes"][0]["state"], "running");
    assert_eq!(body["lanes"][0]["partitions"][0]["replay_entries"], 7);
    assert_eq!(body["snapshots"][0]["version"], "v1");

    BrokerAway { lane: 0, problem: "broker transport failure" }.emit(&telemetry);
    let (code, body) = get(address, "/readyz");
    assert_eq!(code, 503);
    assert!(body.contains("lane 0 is away: broker transport failure"), "{body}");

    let (code, text) = get(address, "/metrics");
    assert_eq!(code, 200);
    assert!(prometheus::parse(&text).contains_key("countersign_snapshot_age_seconds"));

    server.stop();
    assert!(TcpStream::connect(address).is_err());
}

#[test]
fn a_client_that_does_not_read_cannot_hold_up_the_end() {
    let server = Server::start("127.0.0.1:0".parse().unwrap(), scraped()).unwrap();
    let mut idle = TcpStream::connect(server.address()).unwrap();
    idle.write_all(b"GET /healthz HTTP/1.1\r\n").unwrap();
    std::thread::sleep(Duration::from_millis(50));
    let begun = Instant::now();
    server.stop();
    assert!(begun.elapsed() < Duration::from_secs(8), "{:?}", begun.elapsed());
}

#[test]
fn an_address_that_is_taken_is_an_error_with_the_address() {
    let server = Server::start("127.0.0.1:0".parse().unwrap(), scraped()).unwrap();
    let error = Server::start(server.address(), scraped()).unwrap_err().to_string();
    assert!(error.contains(&format!("`{}`", server.address())), "{error}");
}

fn get(address: SocketAddr, path: &str) -> (u16, String) {
    let mut stream = TcpStream::connect(address).unwrap();
    write!(stream, "GET {path} HTTP/1.1\r\nhost: {address}\r\nconnection: close\r\n\r\n").unwrap();
    let mut answer = String::new();
    stream.read_to_string(&mut answer).unwrap();
    let (head, body) = answer.split_once("\r\n\r\n").unwrap();
    (head.split(' ').nth(1).unwrap().parse().unwrap(), body.to_owned())
}

/// The cells of the table under a heading of the document.
fn rows(heading: &str) -> Vec<Vec<String>> {
    let (_, section) = DOCUMENT.split_once(&format!("\n## {heading}\n")).expect("the heading");
    let section = section.split("\n## ").next().unwrap();
    let rows: Vec<Vec<String>> = section
        .lines()
        .filter(|line| line.starts_with("| `"))
        .map(|line| line.trim_matches('|').split('|').map(|cell| cell.trim().to_owned()).collect())
        .collect();
    assert!(!rows.is_empty());
    rows
}

/// What stands between backticks.
fn ticked(cell: &str) -> Vec<String> {
    cell.split('`').skip(1).step_by(2).map(str::to_owned).collect()
}

/// Collects the name and level of each event.
struct Names(Arc<Mutex<BTreeMap<String, BTreeSet<String>>>>);

impl<S: tracing::Subscriber> tracing_subscriber::Layer<S> for Names {
    fn on_event(&self, event: &tracing::Event<'_>, _: tracing_subscriber::layer::Context<'_, S>) {
        let metadata = event.metadata();
        if metadata.target().starts_with("countersign") {
            let mut seen = self.0.lock().unwrap();
            let level = metadata.level().as_str().to_ascii_lowercase();
            seen.entry(metadata.name().to_owned()).or_default().insert(level);
        }
    }
}
