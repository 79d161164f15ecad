//! `countersign decide` as a person runs it: the contract's vectors, and records signed with the program's own commands
//! on the first route of the documentation.

#[path = "support/first_route.rs"]
mod first_route;

use std::fs;

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use serde_json::{Value, json};

use first_route::FirstRoute;

const PAYER: &str = "spiffe://example.org/agent/payer";
const VALUE: &str = r#"{"do": "pay", "invoice": "inv-7", "amount": 120}"#;

fn vectors() -> String {
    format!("{}/tests/vectors/contract.json", env!("CARGO_MANIFEST_DIR"))
}

#[test]
fn every_case_of_the_contract_agrees() {
    let route = FirstRoute::new();
    let ran = route.run(&["decide", "--vectors", &vectors()]);
    assert_eq!((ran.code, ran.stdout.as_str(), ran.stderr.as_str()), (0, "91 of 91 cases agree\n", ""));
    let ran = route.run(&["--format", "json", "decide", "--vectors", &vectors()]);
    let found: Value = serde_json::from_str(&ran.stdout).unwrap();
    assert_eq!(found, json!({"cases": 91, "agree": 91, "differences": []}));
}

#[test]
fn a_case_that_ends_otherwise_is_named_with_what_was_found() {
    let route = FirstRoute::new();
    let mut file: Value = serde_json::from_str(&fs::read_to_string(vectors()).unwrap()).unwrap();
    file["cases"][0]["expect"] = json!({"outcome": "deny", "reason": "too_old"});
    fs::write(route.path("vectors.json"), file.to_string()).unwrap();
    let ran = route.run(&["decide", "--vectors", "vectors.json"]);
    assert_eq!(ran.code, 2, "{}", ran.stderr);
    assert_eq!(ran.stdout, "plain: expected deny too_old, found forward\n90 of 91 cases agree\n");

    file["cases"][0]["route"] = json!({"replay": "strict"});
    fs::write(route.path("vectors.json"), file.to_string()).unwrap();
    let ran = route.run(&["decide", "--vectors", "vectors.json"]);
    assert_eq!((ran.code, ran.stdout.as_str()), (1, ""), "a rule that is not known is never passed over");
    assert!(ran.stderr.contains("replay"), "{}", ran.stderr);
}

/// A record at an offset, its context signed by the program's own commands.
fn signed(route: &FirstRoute, offset: i64, resource: &str) -> Value {
    let save = |name: &str, arguments: &[&str]| {
        let ran = route.run(arguments);
        assert_eq!(ran.code, 0, "{}", ran.stderr);
        fs::write(route.path(name), ran.stdout.trim()).unwrap();
        ran.stdout.trim().to_owned()
    };
    if !route.path("payer.jwk").exists() {
        save("payer.public", &["keys", "new", "--out", "payer.jwk"]);
    }
    fs::write(route.path("value.json"), VALUE).unwrap();
    let wit = save(
        "wit",
        &["token", "wit", "--issuer", "keys/issuer.jwk", "--subject", PAYER, "--key", "payer.jwk"],
    );
    let txn = save(
        "txn",
        &[
            "token",
            "txn",
            "--service",
            "keys/token-service.jwk",
            "--audience",
            "example.org",
            "--subject",
            "alice",
            "--scope",
            "payments.pay",
            "--requester",
            "spiffe://example.org/api-gateway",
            "--txn",
            "txn-1",
        ],
    );
    let proof = save(
        "wpt",
        &[
            "token",
            "proof",
            "--key",
            "payer.jwk",
            "--wit",
            "wit",
            "--txn",
            "txn",
            "--realm",
            "prod",
            "--topic",
            "payments.commands",
            "--record-key",
            "inv-7",
            "--value",
            "value.json",
            "--action",
            "pay",
            "--resource",
            resource,
        ],
    );
    record(
        offset,
        &[("workload-identity-token", &wit), ("workload-proof-token", &proof), ("txn-token", &txn)],
    )
}

fn record(offset: i64, headers: &[(&str, &str)]) -> Value {
    let headers: Vec<_> = headers.iter().map(|(name, value)| json!([name, STANDARD.encode(value)])).collect();
    json!({
        "topic": "payments.commands", "partition": 0, "offset": offset, "timestamp_ms": 1, "timestamp_type": "CreateTime",
        "key": STANDARD.encode("inv-7"), "value": STANDARD.encode(VALUE), "headers": headers,
    })
}

#[test]
fn a_signed_record_is_forwarded_and_explained() {
    let route = FirstRoute::new();
    let record = signed(&route, 7, "Invoice/inv-7");
    fs::write(route.path("record.json"), serde_json::to_string_pretty(&record).unwrap()).unwrap();
    let ran = route.run(&["decide", "--record", "record.json", "--format", "json"]);
    assert_eq!(ran.code, 0, "{}{}", ran.stdout, ran.stderr);
    let found: Value = serde_json::from_str(&ran.stdout).unwrap();
    for (member, expected) in [
        ("outcome", json!("forward")),
        ("reason", json!(null)),
        ("policies", json!(["payer-may-pay"])),
        ("errors", json!([])),
        ("sender", json!(PAYER)),
        ("subject", json!("alice")),
        ("action", json!({"name": "pay"})),
        ("resource", json!({"type": "Invoice", "id": "inv-7"})),
    ] {
        assert_eq!(found[member], expected, "{member} of {found:#}");
    }
    assert_eq!(found["context"]["transaction"]["id"], "txn-1");
    assert_eq!(found["bundle"].as_str().unwrap().len(), 43);
    assert_eq!(found["audit"]["decision_id"].as_str().unwrap().len(), 36);
    let human = route.run(&["decide", "--record", "record.json"]);
    assert_eq!(human.code, 0);
    for line in [
        "FORWARD payments.commands/0/7\n",
        "`pay` on Invoice `inv-7`",
        "spoke     payer-may-pay",
        "for `alice`",
    ] {
        assert!(human.stdout.contains(line), "no `{line}` in {}", human.stdout);
    }
}

#[test]
fn records_share_a_memory_in_their_order_and_every_denial_says_what_is_needed() {
    let route = FirstRoute::new();
    let first = signed(&route, 7, "Invoice/inv-7");
    let mut copied = first.clone();
    copied["offset"] = json!(8);
    let mut tampered = first.clone();
    tampered["offset"] = json!(9);
    tampered["value"] = json!(STANDARD.encode(VALUE.replace("120", "9120")));
    let frozen = signed(&route, 10, "Invoice/inv-frozen");
    let lines =
        [&first, &first, &copied, &tampered, &frozen, &record(11, &[])].map(Value::to_string).join("\n");
    fs::write(route.path("records.jsonl"), lines).unwrap();
    let ran = route.run(&["decide", "--records", "records.jsonl", "--format", "json"]);
    assert_eq!(ran.code, 2, "{}", ran.stderr);
    let found: Vec<Value> = ran.stdout.lines().map(|line| serde_json::from_str(line).unwrap()).collect();
    let reasons: Vec<_> = found.iter().map(|line| line["reason"].as_str().unwrap_or("forward")).collect();
    assert_eq!(reasons, ["forward", "forward", "replayed", "proof_mismatch", "forbidden", "context_missing"]);
    assert_eq!(found[4]["policies"], json!(["frozen"]));
    let leaves: Vec<_> = found.iter().map(|line| line["audit"]["leaf_index"].as_i64().unwrap()).collect();
    assert_eq!(leaves, [0, 1, 2, 3, 4, 5]);

    let human = route.run(&["decide", "--records", "records.jsonl"]);
    assert_eq!(human.stdout.matches("needed: ").count(), 4, "{}", human.stdout);
    assert!(human.stdout.contains("DENY payments.commands/0/10: forbidden"), "{}", human.stdout);
    assert!(human.stdout.contains("spoke     frozen"), "{}", human.stdout);

    let signature = STANDARD.decode(first["headers"][1][1].as_str().unwrap()).unwrap();
    let signature = String::from_utf8(signature).unwrap();
    let signature = signature.rsplit('.').next().unwrap();
    assert!(!(ran.stdout + &human.stdout).contains(signature), "no live credential leaves the command");
}

#[test]
fn now_decides_what_has_expired() {
    let route = FirstRoute::new();
    let record = signed(&route, 7, "Invoice/inv-7");
    fs::write(route.path("record.json"), record.to_string()).unwrap();
    let ran = route.run(&[
        "decide",
        "--record",
        "record.json",
        "--now",
        "2099-01-01T00:00:00Z",
        "--format",
        "json",
    ]);
    assert_eq!(ran.code, 2, "{}", ran.stderr);
    assert_eq!(serde_json::from_str::<Value>(&ran.stdout).unwrap()["reason"], "token_expired");
}

#[test]
fn a_sender_that_cannot_sign_is_decided_by_what_the_record_says() {
    let route = FirstRoute::new();
    route.edit(
        "countersign.toml",
        r#"require = ["workload", "transaction"]"#,
        "require = []\nunproven = \"spiffe://example.org/agent/payer\"\n[route.map]\naction = \"value.do\"\n\
         resource = \"{'type': 'Invoice', 'id': value.invoice}\"\n",
    );
    route.edit(
        "policies/payments.cedar",
        ") when { context.transaction.scope.contains(\"payments.pay\") };",
        ");",
    );
    route.edit("policies/schema.cedarschema", "    transaction: {", "    transaction?: {");
    fs::write(route.path("record.json"), record(1, &[]).to_string()).unwrap();
    let ran = route.run(&["decide", "--record", "record.json", "--format", "json"]);
    assert_eq!(ran.code, 0, "{}{}", ran.stdout, ran.stderr);
    let found: Value = serde_json::from_str(&ran.stdout).unwrap();
    assert_eq!(found["audit"]["proven"], false);
    assert_eq!(found["resource"], json!({"type": "Invoice", "id": "inv-7"}));
}

#[test]
fn what_cannot_be_decided_is_a_failed_run_and_not_a_denial() {
    let route = FirstRoute::new();
    let elsewhere = record(1, &[]).to_string().replace("payments.commands", "nobody.reads");
    for (text, message) in [("{}", "is no record"), (&elsewhere, "no route reads `nobody.reads`")] {
        fs::write(route.path("records.jsonl"), format!("\n{text}")).unwrap();
        let ran = route.run(&["decide", "--records", "records.jsonl"]);
        assert_eq!((ran.code, ran.stdout.as_str()), (1, ""));
        assert!(ran.stderr.contains(message) && ran.stderr.contains("line 2"), "{}", ran.stderr);
    }
    route.edit("countersign.toml", "realm = \"prod\"", "realm = \"Prod\"");
    let ran = route.run(&["decide", "--records", "records.jsonl"]);
    assert_eq!(ran.code, 1);
    assert!(ran.stderr.contains("realm may hold only"), "{}", ran.stderr);
}
