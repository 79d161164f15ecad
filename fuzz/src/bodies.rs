//! The bodies of the targets: whatever the bytes are, what is said here holds, and nothing panics. Limits: each is one
//! function of bytes, without a clock and without chance, so what was found once is found again.

use std::sync::LazyLock;

use countersign::authorize::audit::AuditRecord;
use countersign::authorize::claims::{Countersigned, GrantClaims, Identity, ProofClaims, Transaction};
use countersign::authorize::decision::Reason;
use countersign::authorize::ids::TrustDomain;
use countersign::authorize::jose::{Algorithm, Jws, KeySet, KeyUse, TokenKind, token_hash};
use countersign::authorize::limits::{MAX_CHAIN, MAX_HEADERS, MAX_KEYS, MAX_MAPPED_BYTES, MAX_TOKEN_BYTES};
use countersign::authorize::login::Bearer;
use countersign::authorize::policy::{Bundle, Offer, SourceFile};
use countersign::authorize::record::Record;
use countersign::authorize::request::{Evidence, Mapping, MappingSource};
use countersign::authorize::route::{Party, Route};
use countersign::authorize::standing::verify;
use countersign::config::Loaded;
use serde_json::Value;

use super::forge::{self, Plan, key, signer_of};
use super::gatehouse::{Gatehouse, routes};
pub use super::readers::avro;
use super::seeds::record_of;

/// The gate of these bodies; the routes of a call are its own, since a mapping cannot be copied.
static HOUSE: LazyLock<Gatehouse> = LazyLock::new(Gatehouse::new);
static ROUTES: LazyLock<Vec<Route>> = LazyLock::new(routes);

/// The most that an audit record may take, so that Kafka's topics take it by default.
const AUDIT_BYTES: usize = 1_000_000;

/// Decides, and holds what must be true of every decision.
fn decided(route: &Route, record: &Record) -> AuditRecord {
    let (effects, audit) = HOUSE.once(route, record);
    let bytes = effects.audit.as_ref().and_then(|out| out.value.as_ref()).map_or(0, |bytes| bytes.len());
    assert!(bytes <= AUDIT_BYTES, "an audit record of {bytes} bytes");
    assert!(audit.token_hashes.len() <= MAX_HEADERS);
    let to = effects.outcome.as_ref().map(|out| &out.topic);
    match audit.outcome.as_str() {
        "forward" => {
            assert_eq!(to, Some(&route.to));
            assert!(!audit.policies.is_empty(), "a forward without a permit");
        }
        "deny" => {
            assert_eq!(to, Some(&route.denied));
            assert!(Reason::ALL.iter().any(|reason| Some(reason.as_str()) == audit.reason.as_deref()));
        }
        "hold" | "wait" => assert!(to.is_none() && route.holding.is_some()),
        other => panic!("an outcome `{other}`"),
    }
    audit
}

/// Headers, key, value and timestamp of a record, to the decision.
pub fn headers(data: &[u8]) {
    let Some((which, rest)) = data.split_first() else { return };
    let route = &ROUTES[usize::from(*which) % ROUTES.len()];
    decided(route, &record_of(rest));
}

/// A token, read as every kind and put in the place of a good one: only the good one is forwarded.
pub fn jws(data: &[u8]) {
    static GOOD: LazyLock<Record> =
        LazyLock::new(|| Plan { countersignature: true, grant: true, ..Plan::default() }.record());
    let _ = Bearer::read(data);
    let _ = verify(b"r-1", data, &HOUSE.snapshot.trust);
    for kind in TokenKind::ALL {
        if let Ok(jws) = Jws::parse(data, kind) {
            let payload = jws.payload();
            assert!(jws.signing_input().len() < data.len());
            let domain = TrustDomain::parse("example.org").expect("a domain");
            let _ = Identity::read(payload);
            let _ = Transaction::read(payload, domain, token_hash(data));
            let _ = Countersigned::read(payload, true);
            let _ = GrantClaims::read(payload);
            if let Ok(proof) = ProofClaims::read(payload, 300, &[]) {
                assert!(!proof.proof.jti.is_empty());
            }
        }
        let mut record = GOOD.clone();
        let place = record.headers.iter_mut().find(|header| TokenKind::of_header(&header.name) == Some(kind));
        let place = place.expect("it carries all");
        let same = place.value.as_deref() == Some(data);
        place.value = Some(data.to_vec().into());
        let audit = decided(&ROUTES[0], &record);
        assert_eq!(audit.outcome == "forward", same, "{kind:?}: {:?}", audit.detail);
    }
}

/// A key set: read whole or refused, and what it holds verifies nothing that it did not sign.
pub fn jwks(data: &[u8]) {
    let Ok(text) = std::str::from_utf8(data) else { return };
    for key_use in [KeyUse::Any, KeyUse::WitIssuer] {
        let Ok(set) = KeySet::from_jwks(text, key_use) else { continue };
        assert!(set.len() <= MAX_KEYS);
        assert_eq!(KeySet::from_jwks(text, key_use).expect("it was read").version(), set.version());
        let kids: Vec<&str> = set.kids().collect();
        for kid in kids.iter().map(|kid| Some(*kid)).chain([None, Some("another")]) {
            for algorithm in [Algorithm::EdDsa, Algorithm::Es256, Algorithm::Rs256, Algorithm::Ps256] {
                if let Ok(key) = set.select(kid, algorithm) {
                    for length in [0, 64, 256] {
                        assert!(!key.verify(algorithm, b"a message", &vec![1; length]));
                    }
                }
            }
        }
    }
}

/// The claims of a countersignature that a known gate has signed: a chain is of few senders, or denied.
pub fn chain(data: &[u8]) {
    let Ok(claims) = serde_json::from_slice::<Value>(data) else { return };
    let plan = Plan { countersignature: true, ..Plan::default() };
    let record = plan.record_by(&|kind, own| match kind {
        TokenKind::Countersignature => {
            let signed = key(signer_of(kind)).sign_typ(kind.typ(), &claims);
            signed.expect("a token").into_bytes()
        }
        _ => plan.sign(kind, own),
    });
    for parties in [vec![], vec![Party::Senders]] {
        let audit = decided(&Route { parties, ..forge::route() }, &record);
        assert!(audit.chain.len() < MAX_CHAIN, "{} senders", audit.chain.len());
        assert!(audit.chain.iter().all(|sender| forge::workload(sender).to_string() == *sender));
    }
}

/// An expression before the first zero byte, and the value that it is run on behind that.
pub fn cel(data: &[u8]) {
    let at = data.iter().position(|byte| *byte == 0).unwrap_or(data.len());
    let (expression, value) = (&data[..at], data.get(at + 1..).unwrap_or_default());
    let Ok(expression) = std::str::from_utf8(expression) else { return };
    let source = |member: &str| {
        let of = |name: &str| (name == member).then(|| expression.to_owned());
        MappingSource {
            action: of("action").or_else(|| Some("'pay'".to_owned())),
            resource: Some("{'type': 'Invoice', 'id': 'i'}".to_owned()),
            workflow: None,
            value: of("value"),
        }
    };
    let mut record = Plan::default().record();
    record.value = Some(value.to_vec().into());
    let evidence = Evidence {
        sender: forge::PAYER,
        proven: false,
        signed_headers: &[],
        action: None,
        resource: None,
        workflow: None,
        transaction: None,
    };
    for member in ["action", "value"] {
        let Ok(mapping) = Mapping::compile(&source(member)) else { return };
        let Ok(found) = mapping.resolve(&record, &evidence) else { continue };
        assert!(found.action.name.len() <= MAX_MAPPED_BYTES);
        let written = serde_json::to_string(&found.value).expect("JSON");
        assert!(written.len() <= MAX_MAPPED_BYTES);
    }
}

/// Policies before the first zero byte, and their schema behind that: a bundle that loads decides.
pub fn bundle(data: &[u8]) {
    let at = data.iter().position(|byte| *byte == 0).unwrap_or(data.len());
    let (policies, schema) = (&data[..at], data.get(at + 1..).unwrap_or_default());
    let (Ok(policies), Ok(schema)) = (std::str::from_utf8(policies), std::str::from_utf8(schema)) else {
        return;
    };
    if schema.is_empty() {
        if let Some(house) = Gatehouse::with(policies) {
            house.once(&ROUTES[0], &Plan::default().record());
        }
        return;
    }
    let file = |name: &str, text: &str| SourceFile { name: name.to_owned(), text: text.to_owned() };
    let offer = Offer { subject_type: Some("User".to_owned()), ..Offer::default() };
    let load = || Bundle::load(vec![file("p.cedar", policies)], file("s.cedarschema", schema), &offer);
    match load() {
        Ok(bundle) => assert_eq!(bundle.digest(), load().expect("it loaded").digest()),
        Err(errors) => assert!(!errors.problems().is_empty()),
    }
}

/// A configuration: read, or every mistake named.
pub fn configuration(data: &[u8]) {
    // Beside a file that is there and no other: what a configuration names is not to be found by chance.
    if data.len() > MAX_TOKEN_BYTES * 4 || data.windows(4).any(|part| part == b"/dev" || part == b"/pro") {
        return;
    }
    let folder = std::env::temp_dir().join(format!("countersign-fuzz-{}", std::process::id()));
    std::fs::create_dir_all(&folder).expect("a folder");
    let path = folder.join("countersign.toml");
    std::fs::write(&path, data).expect("a file");
    let loaded = Loaded::read(&path, []);
    assert!(loaded.config.is_some() || loaded.problems.iter().next().is_some(), "neither read nor refused");
}
