//! Access evaluations of a real gate on a real Kafka: asked as workers ask, each answered behind its committed audit record,
//! and not at all while there is no broker to commit it.

use std::collections::BTreeMap;
use std::time::Duration;

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use countersign::authorize::jose::{Algorithm, SigningKey, TokenKind};
use countersign::authorize::merkle::Range;
use countersign::authorize::request::{Action, Resource};
use countersign::wire::audit::AuditCodec;
use countersign::worker::access::{Answer, Caller, Client, Question, Unanswered};
use rcgen::{
    BasicConstraints, CertificateParams, CertifiedIssuer, DnType, IsCa, KeyPair, KeyUsagePurpose, SanType,
    date_time_ymd,
};
use serde_json::{Value, json};

use crate::gate::{GateProcess, Plan, Site, now_ms, wait_for};
use crate::support::kafka::{Broker, apart, broker};

const CALLERS: usize = 20;
const EACH: usize = 5;

const SCHEMA: &str = "
entity Workload;
entity User;
entity Invoice;
action pay appliesTo { principal: [Workload], resource: [Invoice], context: { now: datetime, sender: Workload } };
";
const POLICIES: &str = r#"
@id("payer-may-pay")
permit (principal == Workload::"spiffe://example.org/agent/payer", action == Action::"pay", resource);
@id("frozen") forbid (principal, action == Action::"pay", resource == Invoice::"inv-frozen");
@id("large") @step_up("manager") @message("Pay it?")
forbid (principal, action == Action::"pay", resource == Invoice::"inv-large");
@id("later") @step_up("manager") forbid (principal, action == Action::"pay", resource == Invoice::"inv-later");
"#;

/// A site whose signed route wants no Txn-Token, and has these lines beside.
pub fn site(broker: &'static Broker, route: &'static str) -> Site {
    let site = Site::new(broker, Plan { route, ..Plan::default() });
    site.write("policies/schema.cedarschema", SCHEMA);
    site.write("policies/policies.cedar", POLICIES);
    let config = site.read("countersign.toml").replace("\"workload\", \"transaction\"", "\"workload\"");
    site.write("countersign.toml", &config);
    site
}

/// Its gates answer access evaluations, and ask nobody.
fn answering(broker: &'static Broker) -> Site {
    let site = site(broker, "");
    let config = site.read("countersign.toml");
    site.write(
        "countersign.toml",
        &format!("{config}\n[access]\nlisten = \"127.0.0.1:0\"\nroute = \"payments\"\n"),
    );
    site
}

/// The payer, with a WIT of the site's issuer.
fn payer(site: &Site) -> Caller {
    let issuer = SigningKey::from_jwk(&site.read("keys/issuer.jwk")).expect("a private key");
    let own = SigningKey::from_seed(Algorithm::EdDsa, &[7; 32], None).expect("a key");
    let now = now_ms() / 1000;
    let claims = json!({
        "sub": "spiffe://example.org/agent/payer", "iat": now - 60, "exp": now + 3600,
        "cnf": {"jwk": own.public_jwk()},
    });
    let wit = issuer.sign(TokenKind::WorkloadIdentity, &claims).expect("a WIT");
    Caller::new(own, &wit).expect("a caller")
}

pub fn client(site: &Site, gate: &GateProcess) -> Client {
    let address = wait_for("the address of access evaluations", || gate.serving("access evaluations"));
    Client::new(payer(site), &format!("http://{address}")).expect("a client")
}

pub fn pay(invoice: &str) -> Question {
    let action = Action { name: "pay".into(), properties: None };
    Question::new(action, Resource { kind: "Invoice".into(), id: invoice.into(), properties: None })
}

/// Asks until the desk is open.
pub fn answered(client: &Client, question: &Question) -> Answer {
    wait_for("an answer", || match client.ask(question) {
        Ok(answer) => Some(answer),
        Err(Unanswered::Unavailable(_)) => None,
        Err(other) => panic!("{other}"),
    })
}

#[test]
fn every_evaluation_has_its_audit_record_before_its_answer() {
    let Some(broker) = broker("every evaluation has its audit record before its answer") else { return };
    let site = answering(broker);
    let gate = site.start_ready(Some("one"));
    let client = client(&site, &gate);
    let allowed = answered(&client, &pay("inv-1"));
    assert!(allowed.decision);
    // Whoever has the answer finds the record: there is nothing to wait for.
    assert_eq!(outcomes(&site)[&allowed.decision_id.expect("an id")], ("allow".to_owned(), None));
    let denied = client.ask(&pay("inv-frozen")).expect("an answer");
    assert_eq!((denied.decision, denied.reason.as_deref()), (false, Some("forbidden")));
    let held = client.ask(&pay("inv-large")).expect("an answer");
    assert_eq!((held.decision, held.reason.as_deref()), (false, Some("step_up_required")));
    let asked = held.step_up.expect("an obligation");
    assert_eq!((asked.step_ups[0].message.as_deref(), asked.challenge), (Some("Pay it?"), None));

    let answers: Vec<(Answer, bool)> = std::thread::scope(|scope| {
        let asking: Vec<_> = (0..CALLERS)
            .map(|caller| {
                scope.spawn({
                    let client = client.clone();
                    move || {
                        let ask = |n| {
                            let may = (caller + n) % 3 != 0;
                            let answer = client.ask(&pay(if may { "inv-1" } else { "inv-frozen" }));
                            (answer.expect("an answer"), may)
                        };
                        (0..EACH).map(ask).collect::<Vec<_>>()
                    }
                })
            })
            .collect();
        asking.into_iter().flat_map(|thread| thread.join().expect("no panic")).collect()
    });
    let outcomes = outcomes(&site);
    assert_eq!((answers.len(), outcomes.len()), (CALLERS * EACH, CALLERS * EACH + 3));
    for (answer, may) in answers {
        assert_eq!(answer.decision, may);
        let (outcome, reason) = &outcomes[&answer.decision_id.expect("an id")];
        assert_eq!(outcome, if may { "allow" } else { "deny" });
        assert_eq!(*reason, answer.reason);
    }
    gate.terminate();
}

/// The audit records of evaluations, each once, by decision; the leaves of each tree stand in one partition, in order, and
/// a second start begins a second tree.
fn outcomes(site: &Site) -> BTreeMap<String, (String, Option<String>)> {
    let codec = AuditCodec::new().expect("a codec");
    let mut trees: BTreeMap<String, Range> = BTreeMap::new();
    let mut outcomes = BTreeMap::new();
    for record in site.broker.read_stable(&site.audit) {
        let tree = record.header("audit-tree").expect("a tree").to_owned();
        let bytes = record.value.expect("a value");
        let audit = codec.decode(&bytes).expect("an audit record");
        assert_eq!((audit.topic.as_str(), audit.partition, audit.offset), ("", -1, -1));
        let leaf = trees.entry(tree).or_default().append(&bytes);
        assert_eq!(audit.leaf_index, i64::try_from(leaf).expect("a small number"));
        let reason = audit.reason.map(|reason| reason.to_string());
        let twice = outcomes.insert(audit.decision_id, (audit.outcome.to_string(), reason));
        assert_eq!(twice, None, "one audit record a decision");
    }
    outcomes
}

/// Somebody who issues certificates.
fn authority(name: &str) -> CertifiedIssuer<'static, KeyPair> {
    let mut params = CertificateParams::new(Vec::new()).expect("parameters");
    params.distinguished_name.push(DnType::CommonName, name);
    params.is_ca = IsCa::Ca(BasicConstraints::Unconstrained);
    params.key_usages = vec![KeyUsagePurpose::KeyCertSign];
    CertifiedIssuer::self_signed(params, KeyPair::generate().expect("a key")).expect("an authority")
}

/// A certificate of that name and its key, in PEM, good for an hour.
fn issue(by: &CertifiedIssuer<'static, KeyPair>, name: SanType) -> (String, String) {
    let mut params = CertificateParams::new(Vec::new()).expect("parameters");
    params.subject_alt_names = vec![name];
    params.key_usages = vec![KeyUsagePurpose::DigitalSignature];
    let now = Duration::from_secs(now_ms().unsigned_abs() / 1000);
    params.not_before = date_time_ymd(1970, 1, 1) + now - Duration::from_secs(60);
    params.not_after = date_time_ymd(1970, 1, 1) + now + Duration::from_secs(3600);
    let key = KeyPair::generate().expect("a key");
    (params.signed_by(&key, by).expect("a certificate").pem(), key.serialize_pem())
}

#[test]
fn a_caller_with_a_certificate_is_answered_and_audited_and_its_gate_follows_what_is_renewed() {
    let Some(broker) = broker("a caller with a certificate is answered and audited") else { return };
    let site = answering(broker);
    let (own, web, renewed) = (authority("own"), authority("web"), authority("renewed"));
    let here = || SanType::IpAddress([127, 0, 0, 1].into());
    let show = |by| {
        let (certificate, key) = issue(by, here());
        site.write("tls.pem", &certificate);
        site.write("tls.key", &key);
    };
    show(&web);
    let bundle = site.read("trust/example.org.json");
    let mut with_own: Value = serde_json::from_str(&bundle).expect("a bundle");
    let entry = json!({"use": "x509-svid", "kty": "EC", "x5c": [STANDARD.encode(own.der())]});
    with_own["keys"].as_array_mut().expect("keys").push(entry);
    site.write("trust/example.org.json", &with_own.to_string());
    let config = site.read("countersign.toml");
    let tls = "[access.tls]\ncertificate = \"tls.pem\"\nkey = \"tls.key\"\nclients = \"spiffe\"\n";
    site.write("countersign.toml", &format!("{config}\n{tls}"));

    let gate = site.start_ready(Some("one"));
    let address = wait_for("the address of access evaluations", || gate.serving("access evaluations"));
    let id = "spiffe://example.org/agent/payer";
    let (certificate, key) = issue(&own, SanType::URI(id.try_into().expect("a name")));
    let caller = Caller::certificate(&certificate, &key).expect("a caller");
    let url = format!("https://{address}");
    let client = Client::knowing(caller.clone(), &url, &web.pem()).expect("a client");
    let allowed = answered(&client, &pay("inv-1"));
    assert!(allowed.decision);
    let denied = client.ask(&pay("inv-frozen")).expect("an answer");
    assert_eq!(denied.reason.as_deref(), Some("forbidden"));
    let codec = AuditCodec::new().expect("a codec");
    let records = site.broker.read_stable(&site.audit).into_iter();
    let audits: Vec<_> =
        records.map(|record| codec.decode(&record.value.expect("a value")).expect("a record")).collect();
    assert_eq!(audits.len(), 2);
    for audit in &audits {
        assert_eq!((audit.sender.as_deref(), audit.proven), (Some(id), true));
        let headers: Vec<&str> = audit.token_hashes.iter().map(|of| of.header.as_str()).collect();
        assert_eq!(headers, ["client-cert"]);
    }
    // Tokens still prove who asks.
    let by_tokens = Client::knowing(payer(&site), &url, &web.pem()).expect("a client");
    assert!(by_tokens.ask(&pay("inv-1")).expect("an answer").decision);

    show(&renewed);
    wait_for("the renewed certificate", || {
        let client = Client::knowing(caller.clone(), &url, &renewed.pem()).expect("a client");
        client.ask(&pay("inv-1")).ok().filter(|answer| answer.decision)
    });
    // The connection of before is open; its authority goes.
    assert!(client.ask(&pay("inv-1")).expect("an answer").decision);
    site.write("trust/example.org.json", &bundle);
    let refused = wait_for("the authority to be gone", || match client.ask(&pay("inv-1")) {
        Err(Unanswered::Refused { status, message }) => Some((status, message)),
        _ => None,
    });
    assert_eq!(refused.0, 401);
    assert!(refused.1.starts_with("issuer_unknown"), "{}", refused.1);
    let anew = Client::knowing(caller, &url, &renewed.pem()).expect("a client");
    assert!(matches!(anew.ask(&pay("inv-1")), Err(Unanswered::Unreachable(_))));
    gate.terminate();
}

#[test]
fn a_gate_that_comes_back_begins_a_tree_and_forgets_no_record() {
    let Some(broker) = broker("a gate that comes back begins a tree and forgets no record") else { return };
    let site = answering(broker);
    for (round, killed) in [(1, true), (2, false)] {
        let gate = site.start_ready(Some("one"));
        let client = client(&site, &gate);
        for _ in 0..5 {
            assert!(answered(&client, &pay("inv-1")).decision);
        }
        assert_eq!(outcomes(&site).len(), 5 * round);
        match killed {
            true => gate.kill(),
            false => assert!(!gate.terminate().is_zero()),
        }
    }
}

#[test]
fn without_a_broker_nothing_is_answered_and_nothing_allowed() {
    let Some((broker, process)) = apart("without a broker nothing is answered and nothing allowed") else {
        return;
    };
    let site = answering(broker);
    let gate = site.start_ready(Some("one"));
    let client = client(&site, &gate);
    assert!(answered(&client, &pay("inv-1")).decision);
    drop(process);
    for _ in 0..3 {
        let answer = client.ask(&pay("inv-1"));
        assert!(matches!(answer, Err(Unanswered::Unavailable(_))), "{answer:?}");
    }
    gate.kill();
}
