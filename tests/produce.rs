//! `countersign produce` and `countersign tail` as a person runs them, against an embedded broker. What was produced is
//! then decided by `countersign decide`, so both ends of the contract are the program's own.

#[path = "support/first_route.rs"]
mod first_route;

use std::fs;
use std::time::Duration;

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use rdkafka::config::ClientConfig;
use rdkafka::consumer::{BaseConsumer, Consumer as _};
use rdkafka::message::{Header, Headers as _, Message as _, OwnedHeaders};
use rdkafka::mocking::MockCluster;
use rdkafka::producer::{BaseProducer, BaseRecord, DefaultProducerContext, Producer as _};
use serde_json::{Value, json};

use first_route::{FirstRoute, Ran};

const TOPICS: [&str; 3] = ["payments.commands", "payments.authorized", "payments.denied"];

struct World {
    route: FirstRoute,
    cluster: MockCluster<'static, DefaultProducerContext>,
}

impl World {
    fn new() -> Self {
        let cluster = MockCluster::new(1).unwrap();
        for topic in TOPICS {
            cluster.create_topic(topic, 1, 1).unwrap();
        }
        let route = FirstRoute::new();
        route.edit("countersign.toml", "localhost:9092", &cluster.bootstrap_servers());
        let world = Self { route, cluster };
        world.done(&["keys", "new", "--out", "payer.jwk"]);
        let id = "spiffe://example.org/agent/payer";
        let wit = ["token", "wit", "--issuer", "keys/issuer.jwk", "--subject", id, "--key", "payer.jwk"];
        world.save("payer.wit", &wit);
        let mut txn =
            vec!["token", "txn", "--service", "keys/token-service.jwk", "--audience", "example.org"];
        txn.extend(["--subject", "alice", "--scope", "payments.pay", "--requester", id]);
        world.save("alice.txn", &txn);
        world
    }

    fn done(&self, arguments: &[&str]) -> String {
        let ran = self.route.run(arguments);
        assert_eq!(ran.code, 0, "{arguments:?}: {}", ran.stderr);
        ran.stdout
    }

    fn save(&self, name: &str, arguments: &[&str]) {
        fs::write(self.route.path(name), self.done(arguments)).unwrap();
    }

    fn produce(&self, lines: &str, more: &[&str]) -> Ran {
        fs::write(self.route.path("lines.jsonl"), lines).unwrap();
        let mut arguments =
            vec!["produce", "lines.jsonl", "--config", "countersign.toml", "--topic", TOPICS[0]];
        arguments.extend(["--key", "payer.jwk", "--wit", "payer.wit", "--txn", "alice.txn"]);
        arguments.extend(more);
        self.route.run(&arguments)
    }

    /// What stands on the source topic, in the form that `decide` reads.
    fn records(&self, count: usize) -> Vec<Value> {
        let consumer: BaseConsumer = ClientConfig::new()
            .set("bootstrap.servers", self.cluster.bootstrap_servers())
            .set("group.id", "test")
            .create()
            .unwrap();
        let mut list = rdkafka::TopicPartitionList::new();
        list.add_partition_offset(TOPICS[0], 0, rdkafka::Offset::Beginning).unwrap();
        consumer.assign(&list).unwrap();
        let base64 = |bytes: Option<&[u8]>| bytes.map(|bytes| STANDARD.encode(bytes));
        (0..count)
            .map(|_| {
                let message = consumer.poll(Duration::from_secs(20)).expect("a record").unwrap();
                let headers: Vec<Value> = message
                    .headers()
                    .unwrap()
                    .iter()
                    .map(|header| json!([header.key, base64(header.value)]))
                    .collect();
                json!({
                    "topic": message.topic(), "partition": message.partition(), "offset": message.offset(),
                    "timestamp_ms": message.timestamp().to_millis(), "timestamp_type": "CreateTime",
                    "key": base64(message.key()), "value": base64(message.payload()), "headers": headers
                })
            })
            .collect()
    }

    fn put(&self, topic: &str, headers: &[(&str, &str)]) {
        let producer: BaseProducer =
            ClientConfig::new().set("bootstrap.servers", self.cluster.bootstrap_servers()).create().unwrap();
        let headers = headers
            .iter()
            .fold(OwnedHeaders::new(), |to, (key, value)| to.insert(Header { key, value: Some(*value) }));
        producer
            .send(BaseRecord::to(topic).key("k").payload("v").headers(headers))
            .map_err(|(e, _)| e)
            .unwrap();
        producer.flush(Duration::from_secs(20)).unwrap();
    }
}

#[test]
fn lines_become_records_that_a_gate_decides_as_they_ask() {
    let world = World::new();
    let lines = [
        json!({"key": "inv-7", "value": {"amount": 120}, "headers": {"schema": "2", "empty": null},
            "action": "pay", "resource": {"type": "Invoice", "id": "inv-7"}}),
        json!({"value": "plain text", "action": {"name": "pay"}, "resource": {"type": "Invoice", "id": "inv-frozen"}}),
        json!({"key": "", "action": "refund", "resource": {"type": "Invoice", "id": "inv-7"}, "partition": 0}),
    ];
    let lines: Vec<String> = lines.iter().map(Value::to_string).collect();
    let ran = world.produce(&lines.join("\n\n"), &[]);
    assert_eq!((ran.code, ran.stderr.as_str()), (0, ""));
    let delivered: Vec<String> = (0..3).map(|offset| format!("{}/0/{offset}\n", TOPICS[0])).collect();
    assert_eq!(ran.stdout, delivered.concat());

    let records = world.records(3);
    assert_eq!(records[0]["value"], STANDARD.encode(r#"{"amount":120}"#));
    assert_eq!(
        (&records[1]["key"], &records[2]["key"], &records[2]["value"]),
        (&Value::Null, &"".into(), &Value::Null)
    );
    let text: Vec<String> = records.iter().map(Value::to_string).collect();
    fs::write(world.route.path("records.jsonl"), text.join("\n")).unwrap();
    let ran = world.route.run(&["--format", "json", "decide", "--records", "records.jsonl"]);
    let decisions: Vec<Value> = ran.stdout.lines().map(|line| serde_json::from_str(line).unwrap()).collect();
    let reasons: Vec<&Value> = decisions.iter().map(|decision| &decision["reason"]).collect();
    assert_eq!(reasons, [&Value::Null, &"forbidden".into(), &"not_permitted".into()], "{}", ran.stderr);
    assert_eq!(decisions[0]["sender"], "spiffe://example.org/agent/payer");
}

#[test]
fn a_bad_line_ends_the_run_and_what_stood_before_it_is_sent() {
    let world = World::new();
    let ran = world.produce("{\"value\": 1}\n{\"vaule\": 2}\n{\"value\": 3}\n", &["--format", "json"]);
    assert_eq!(ran.code, 1);
    let sent: Value = serde_json::from_str(ran.stdout.trim()).unwrap();
    assert_eq!(sent, json!({"line": 1, "topic": TOPICS[0], "partition": 0, "offset": 0}));
    assert!(ran.stderr.contains("line 2") && ran.stderr.contains("vaule"), "{}", ran.stderr);
    let ran = world.produce("{\"headers\": {\"Txn-Token\": \"x\"}}", &[]);
    assert_eq!((ran.code, ran.stdout.as_str()), (1, ""));
    assert!(ran.stderr.contains("line 1 was not sent"), "{}", ran.stderr);
    world.done(&["keys", "new", "--out", "other.jwk"]);
    let ran = world.route.run(&[
        "produce",
        "lines.jsonl",
        "--bootstrap",
        "localhost:1",
        "--realm",
        "prod",
        "--topic",
        "t",
        "--key",
        "other.jwk",
        "--wit",
        "payer.wit",
    ]);
    assert!(ran.code == 1 && ran.stderr.contains("cnf.jwk"), "{}", ran.stderr);
}

#[test]
fn tail_believes_no_destination_record_without_a_countersignature() {
    let world = World::new();
    world.put(TOPICS[2], &[("denied-reason", "forbidden"), ("denied-detail", "the invoice is frozen")]);
    world.put(TOPICS[1], &[("countersignature", "x")]);
    let tail = ["tail", "--config", "countersign.toml", "--from-beginning", "--max"];
    let ran = world.route.run(&[&tail[..], &["2", "--format", "json"]].concat());
    assert_eq!(ran.code, 2, "{}", ran.stderr);
    let mut outcomes: Vec<Value> =
        ran.stdout.lines().map(|line| serde_json::from_str(line).unwrap()).collect();
    outcomes.sort_by_key(|outcome| outcome["at"].to_string());
    assert_eq!(
        (&outcomes[0]["outcome"], &outcomes[0]["reason"]),
        (&"unverified".into(), &"context_malformed".into())
    );
    assert_eq!((&outcomes[1]["outcome"], &outcomes[1]["reason"]), (&"denied".into(), &"forbidden".into()));
    let ran = world.route.run(&[&tail[..], &["1", "--route", "other"]].concat());
    assert!(ran.code == 1 && ran.stderr.contains("`other`"), "{}", ran.stderr);
}
