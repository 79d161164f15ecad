//! A running server that speaks TLS and knows its callers by X.509-SVIDs: what a certificate proves, what it does not replace,
//! and that it is judged at each request, not at the handshake alone.

use std::collections::{BTreeMap, HashMap};
use std::sync::Mutex;
use std::sync::atomic::{AtomicI64, Ordering};

use arc_swap::ArcSwap;
use reqwest::blocking::{Client, RequestBuilder};
use serde_json::Value;

use super::*;
use crate::authorize::access::tests::{Tokened, World, about_itself, sign};
use crate::authorize::audit::AuditRecord;
use crate::authorize::ids::{Offset, Partition, Position, TrustDomain};
use crate::authorize::jose::{TokenKind, token_hash};
use crate::authorize::standing::{
    At, Authority as Revoker, Effect, Followed, Kind as Named, Registry, Revocation, Standing, Target,
};
use crate::authorize::testing::{
    NOW_S, PAYER, countersigned_claims, domain, route, transaction_claims, trust_with,
};
use crate::authorize::x509::Authorities;
use crate::authorize::x509::testing::{Authority, Issued, between, bundle, uri};
use crate::config::{ClientCertificates, TlsSettings};
use crate::control::certificates::Certificate;
use crate::serve::tls::Clients;
use crate::stream::desk::testing;
use crate::stream::freshness::Freshness;
use crate::telemetry::Settings;
use crate::wire::outgoing::Codecs;

const URL: &str = "https://gate.example.org";
const OTHER: &str = "spiffe://example.org/agent/other";

fn at_now() -> UnixMillis {
    UnixMillis(NOW_S * 1000)
}

struct Gate {
    server: Server,
    audits: Arc<Mutex<Vec<AuditRecord>>>,
    snapshots: Arc<ArcSwap<Snapshot>>,
    telemetry: Telemetry,
    /// Who vouches for the workloads of `example.org`, and for those of `other.org`.
    own: Authority,
    other: Authority,
    /// Who vouches for the gate.
    web: Authority,
    _folder: tempfile::TempDir,
}

fn trust(own: &[&Authority], other: &Authority) -> crate::authorize::trust::Trust {
    let authorities = |of: &[&Authority]| Authorities::from_bundle(&bundle(of)).unwrap();
    let name = |text| TrustDomain::parse(text).unwrap();
    let all =
        BTreeMap::from([(name("example.org"), authorities(own)), (name("other.org"), authorities(&[other]))]);
    trust_with(domain()).with_authorities(all)
}

impl Gate {
    fn new() -> Self {
        Self::on(route(), at_now)
    }

    fn on(route: Route, now: fn() -> UnixMillis) -> Self {
        let World { engine, route, mut snapshot, .. } = World::on(route);
        let (own, other, web) = (Authority::new("own"), Authority::new("other"), Authority::new("web"));
        snapshot.trust = Arc::new(trust(&[&own], &other));
        let snapshots = Arc::new(ArcSwap::from_pointee(snapshot));
        let folder = tempfile::tempdir().unwrap();
        let settings = TlsSettings {
            certificate: folder.path().join("tls.pem"),
            key: folder.path().join("tls.key"),
            clients: ClientCertificates::Spiffe,
        };
        let shown = web.server(|_| ());
        std::fs::write(&settings.certificate, &shown.pem).unwrap();
        std::fs::write(&settings.key, &shown.key_pem).unwrap();
        let (certificate, _) = Certificate::load("access", &settings, now()).unwrap();
        let clients = Clients::new(Arc::clone(&snapshots), now);
        let tls = Tls::new(Arc::new(certificate), Some(clients)).unwrap();

        let audits: Arc<Mutex<Vec<AuditRecord>>> = Arc::default();
        let kept = Arc::clone(&audits);
        let desk = testing::desk(move |records| {
            kept.lock().unwrap().extend(records);
            Ok(())
        });
        let telemetry = Telemetry::start(Settings::default()).unwrap();
        let work = Gatework {
            engine: Arc::new(engine),
            routes: Arc::new(HashMap::new()),
            codecs: Arc::new(Codecs::new().unwrap()),
            snapshots: Arc::clone(&snapshots),
            freshness: Freshness::default(),
            telemetry: telemetry.clone(),
        };
        let proofs = Proofs::new(&route);
        let service = Service { work, route: Arc::new(route), desk, url: OnceLock::new(), proofs, now };
        let server = serve(([127, 0, 0, 1], 0).into(), Some(URL.to_owned()), Some(tls), service).unwrap();
        Self { server, audits, snapshots, telemetry, own, other, web, _folder: folder }
    }

    /// A client that shows this certificate, if any, and keeps its connection.
    fn client(&self, issued: Option<&Issued>) -> Client {
        let roots = reqwest::Certificate::from_pem_bundle(self.web.pem().as_bytes()).unwrap();
        let mut builder = Client::builder().no_proxy().tls_certs_only(roots);
        if let Some(issued) = issued {
            let pem = format!("{}{}", issued.key_pem, issued.pem);
            builder = builder.identity(reqwest::Identity::from_pem(pem.as_bytes()).unwrap());
        }
        builder.build().unwrap()
    }

    fn request(&self, client: &Client) -> RequestBuilder {
        let address = format!("https://{}{EVALUATION}", self.server.address());
        let body = about_itself("read", ("Record", "record-1")).to_string();
        client.post(address).header("Content-Type", "application/json").body(body)
    }

    /// Status, and the code with which a refusal begins.
    fn ask(&self, request: RequestBuilder) -> (u16, String) {
        let got = request.send().unwrap();
        let status = got.status().as_u16();
        let text = got.text().unwrap();
        let code = text.split(':').next().unwrap_or_default().to_owned();
        if status == 200 {
            assert!(text.contains("\"decision\":true"), "{text}");
        }
        (status, if status == 200 { String::new() } else { code })
    }

    /// The same with this certificate over a new connection.
    fn asked_by(&self, issued: &Issued) -> (u16, String) {
        self.ask(self.request(&self.client(Some(issued))))
    }

    /// Whether no connection comes about with this certificate.
    fn is_turned_away(&self, issued: &Issued) -> bool {
        self.request(&self.client(Some(issued))).send().is_err()
    }

    fn payer(&self) -> Issued {
        self.own.svid(PAYER, |_| ())
    }

    fn change(&self, change: impl FnOnce(&mut Snapshot)) {
        let mut snapshot = Snapshot::clone(&self.snapshots.load());
        change(&mut snapshot);
        self.snapshots.store(Arc::new(snapshot));
    }

    fn audits(&self) -> Vec<AuditRecord> {
        self.audits.lock().unwrap().clone()
    }
}

/// A WIT of the payer and a proof for the address.
fn tokens() -> Tokened {
    Tokened::with(false, false, false, |claims| {
        claims["aud"] = format!("{URL}{EVALUATION}").into();
        claims["jti"] = Uuid::now_v7().to_string().into();
    })
}

#[test]
fn a_caller_is_known_by_its_certificate_and_the_audit_says_by_which() {
    let gate = Gate::new();
    let issued = gate.payer();
    let client = gate.client(Some(&issued));
    assert_eq!(gate.ask(gate.request(&client)), (200, String::new()));
    // The tokens of the work are verified in full, and the connection stands for what a proof would bind.
    let txn = sign(TokenKind::Transaction, &transaction_claims(), "tts");
    let chain = {
        let mut claims = countersigned_claims();
        claims["txn"] = "txn-1".into();
        claims["tth"] = token_hash(txn.as_bytes()).to_string().into();
        sign(TokenKind::Countersignature, &claims, "gate")
    };
    let carried = gate.request(&client).header("Txn-Token", &txn).header("Countersignature", &chain);
    assert_eq!(gate.ask(carried), (200, String::new()));
    let [alone, carried] = &gate.audits()[..] else { panic!("two") };
    assert_eq!((alone.sender.as_deref(), alone.proven, &alone.subject), (Some(PAYER), true, &None));
    let hashes = |audit: &AuditRecord| {
        audit.token_hashes.iter().map(|of| (of.header.clone(), of.sha256.clone())).collect::<Vec<_>>()
    };
    let thumbprint = token_hash(&issued.chain[0]).to_string();
    let certificate = ("client-cert".into(), thumbprint.into());
    assert_eq!(hashes(alone), std::slice::from_ref(&certificate));
    assert_eq!((carried.subject.as_deref(), carried.chain.len()), (Some("alice"), 1));
    let headers: Vec<_> = hashes(carried).into_iter().map(|(header, _)| header).collect();
    assert_eq!(headers, ["txn-token", "countersignature", "client-cert"]);
    // What does not hold is refused as it is beside a proof.
    let forged = sign(TokenKind::Transaction, &transaction_claims(), "workload");
    let forged = gate.request(&client).header("Txn-Token", forged);
    assert_eq!(gate.ask(forged), (401, "issuer_unknown".to_owned()));
}

#[test]
fn without_a_certificate_tokens_prove_who_asks_and_nothing_proves_nobody() {
    let gate = Gate::new();
    let client = gate.client(None);
    assert_eq!(gate.ask(gate.request(&client)), (401, "context_missing".to_owned()));
    let tokens = tokens();
    let proven = gate.request(&client).header("Workload-Identity-Token", &tokens.wit);
    assert_eq!(gate.ask(proven.header("Workload-Proof-Token", &tokens.wpt)), (200, String::new()));
    let headers: Vec<_> = gate.audits()[0].token_hashes.iter().map(|of| of.header.clone()).collect();
    assert_eq!(headers, ["workload-identity-token", "workload-proof-token"]);
    let metadata = client.get(format!("https://{}{METADATA}", gate.server.address())).send().unwrap();
    assert_eq!(metadata.status().as_u16(), 200);
}

#[test]
fn with_a_certificate_and_tokens_both_hold_and_name_one_workload() {
    let gate = Gate::new();
    let (payer, other) = (gate.payer(), gate.own.svid(OTHER, |_| ()));
    let both = |issued: &Issued, tokens: &Tokened| {
        let request = gate.request(&gate.client(Some(issued)));
        let request = request.header("Workload-Identity-Token", &tokens.wit);
        gate.ask(request.header("Workload-Proof-Token", &tokens.wpt))
    };
    assert_eq!(both(&payer, &tokens()), (200, String::new()));
    assert_eq!(both(&other, &tokens()), (401, "proof_mismatch".to_owned()));
    // A certificate does not make up for a token that does not hold, or for one that is not there.
    let mut forged = tokens();
    forged.wpt = sign(
        TokenKind::WorkloadProof,
        &json!({"aud": URL, "exp": NOW_S + 60, "jti": "j", "wth": "x"}),
        "gate",
    );
    assert_eq!(both(&payer, &forged).0, 401);
    let client = gate.client(Some(&payer));
    let tokens = tokens();
    let alone = gate.request(&client).header("Workload-Identity-Token", &tokens.wit);
    assert_eq!(gate.ask(alone), (401, "context_missing".to_owned()));
    let alone = gate.request(&client).header("Workload-Proof-Token", &tokens.wpt);
    assert_eq!(gate.ask(alone), (401, "context_missing".to_owned()));
    assert_eq!(gate.audits().len(), 1);
}

#[test]
fn a_route_that_requires_more_than_the_workload_still_does() {
    let gate = Gate::on(Route { require_transaction: true, ..route() }, at_now);
    let client = gate.client(Some(&gate.payer()));
    assert_eq!(gate.ask(gate.request(&client)), (401, "context_missing".to_owned()));
    let txn = sign(TokenKind::Transaction, &transaction_claims(), "tts");
    assert_eq!(gate.ask(gate.request(&client).header("Txn-Token", txn)), (200, String::new()));
    let gate = Gate::on(Route { require_countersignature: true, ..route() }, at_now);
    let client = gate.client(Some(&gate.payer()));
    assert_eq!(gate.ask(gate.request(&client)), (401, "context_missing".to_owned()));
    let chain = sign(TokenKind::Countersignature, &countersigned_claims(), "gate");
    assert_eq!(gate.ask(gate.request(&client).header("Countersignature", chain)), (200, String::new()));
}

#[test]
fn a_certificate_that_proves_nobody_gets_no_connection() {
    let gate = Gate::new();
    let own = &gate.own;
    for (what, issued) in [
        ("of another domain's authority", gate.other.svid(PAYER, |_| ())),
        ("of nobody's authority", Authority::new("own").svid(PAYER, |_| ())),
        ("of a domain that is not configured", own.svid("spiffe://third.org/a", |_| ())),
        ("over", own.svid(PAYER, |params| between(params, NOW_S - 60, NOW_S - 1))),
        ("not begun", own.svid(PAYER, |params| between(params, NOW_S + 1, NOW_S + 60))),
        ("of two", own.svid(PAYER, |params| params.subject_alt_names.push(uri(OTHER)))),
        ("of nobody", own.svid(PAYER, |params| params.subject_alt_names.clear())),
    ] {
        assert!(gate.is_turned_away(&issued), "{what}");
    }
    assert!(gate.audits().is_empty());
    let metrics = gate.telemetry.render_metrics().unwrap();
    let refused = "countersign_handshakes_failed_total{cause=\"refused\",server=\"access\"";
    assert!(metrics.contains(refused), "{metrics}");
    // Each domain's own vouches for its own.
    let other = gate.other.svid("spiffe://other.org/agent/payer", |_| ());
    let asked = gate.request(&gate.client(Some(&other))).send().unwrap();
    assert_eq!(asked.status().as_u16(), 200, "known; what it may is policy");
    assert_eq!(gate.audits()[0].sender.as_deref(), Some("spiffe://other.org/agent/payer"));
}

/// The clock of one test alone.
static MOVING: AtomicI64 = AtomicI64::new(NOW_S);

#[test]
fn a_connection_that_outlives_its_certificate_asks_nothing_more() {
    let gate = Gate::on(route(), || UnixMillis(MOVING.load(Ordering::Relaxed) * 1000));
    let client = gate.client(Some(&gate.payer()));
    assert_eq!(gate.ask(gate.request(&client)).0, 200);
    MOVING.store(NOW_S + 3600, Ordering::Relaxed);
    assert_eq!(gate.ask(gate.request(&client)).0, 200, "its last second");
    MOVING.store(NOW_S + 3601, Ordering::Relaxed);
    assert_eq!(gate.ask(gate.request(&client)), (401, "token_expired".to_owned()));
}

#[test]
fn authorities_that_change_reach_new_connections_and_open_ones() {
    let gate = Gate::new();
    let (before, next) = (gate.payer(), Authority::new("next"));
    let after = next.svid(PAYER, |_| ());
    let open = gate.client(Some(&before));
    assert_eq!(gate.ask(gate.request(&open)).0, 200);
    assert!(gate.is_turned_away(&after));
    gate.change(|snapshot| snapshot.trust = Arc::new(trust(&[&gate.own, &next], &gate.other)));
    assert_eq!((gate.asked_by(&before).0, gate.asked_by(&after).0), (200, 200));
    gate.change(|snapshot| snapshot.trust = Arc::new(trust(&[&next], &gate.other)));
    assert_eq!(gate.ask(gate.request(&open)), (401, "issuer_unknown".to_owned()));
    assert!(gate.is_turned_away(&before));
    assert_eq!(gate.asked_by(&after).0, 200);
}

/// Nothing stands but this revocation.
fn revoked(kind: Named, id: &str, not_before: Option<f64>) -> Standing {
    let mut registry = Registry::new(0);
    let revocation = Revocation {
        id: "r-1".into(),
        authority: Revoker::Administrator,
        targets: [Target { kind, id: id.into() }].into(),
        effect: Effect::Revokes { not_before },
        issued_at: 0.0,
        expires_at: None,
        event: "revocation".into(),
        reason: None,
        transaction: None,
    };
    let at = At { partition: Partition(0), offset: Offset(0) };
    registry.apply_revocation(at, "r-1", Some(revocation), UnixMillis(0));
    let positions = [(Partition(0), Position(1))].into_iter().collect();
    registry.pin(Followed { workflows: None, revocations: Some(positions) })
}

#[test]
fn a_revocation_reaches_an_open_connection() {
    let gate = Gate::new();
    let issued = gate.payer();
    let svid = crate::authorize::x509::Svid::read(&issued.chain[0]).unwrap();
    let client = gate.client(Some(&issued));
    let reason = |standing: Standing| {
        gate.change(|snapshot| snapshot.standing = standing);
        let reply: Value =
            serde_json::from_str(&gate.request(&client).send().unwrap().text().unwrap()).unwrap();
        reply["context"]["reason"].as_str().map(str::to_owned)
    };
    assert_eq!(reason(Standing::default()), None);
    let issued_at = (NOW_S - 3600) as f64;
    for (kind, id) in [
        (Named::Workload, PAYER),
        (Named::TrustDomain, "example.org"),
        (Named::Token, &svid.thumbprint.to_string()),
        (Named::Key, &svid.key.to_string()),
    ] {
        assert_eq!(reason(revoked(kind, id, None)).as_deref(), Some("revoked"), "{kind:?}");
        // What was issued since is not meant.
        assert_eq!(reason(revoked(kind, id, Some(issued_at))), None, "{kind:?}");
        assert_eq!(reason(revoked(kind, id, Some(issued_at + 1.0))).as_deref(), Some("revoked"), "{kind:?}");
    }
    assert_eq!(reason(revoked(Named::Key, "another", None)), None);
}
