//! Records made to be costly, in groups: each group has a route and a good record of about the size of its bad ones.
//! Limits: what a sender can write; keys and policies are the operator's.

use bytes::Bytes;
use countersign::authorize::jose::{TokenKind, sha256};
use countersign::authorize::record::{Header, Record};
use countersign::authorize::request::{Mapping, MappingSource};
use countersign::authorize::route::{Party, Route};
use serde_json::{Value, json};

use super::forge::{self, Plan, key, signer_of, workload};
use super::gatehouse::{Gatehouse, LEGACY};

/// A route, a good record, and bad ones.
pub struct Group {
    pub name: &'static str,
    pub route: Route,
    pub good: Record,
    pub bad: Vec<(&'static str, Record)>,
}

pub fn house() -> Gatehouse {
    Gatehouse::new()
}

pub fn groups() -> Vec<Group> {
    vec![tokens(), chains(), headers(), values(), loops()]
}

fn full() -> Plan {
    Plan { countersignature: true, grant: true, ..Plan::default() }
}

/// The full record with the claims of one kind changed, and all of it signed again.
fn changed(of: TokenKind, change: impl Fn(&mut Value)) -> Record {
    full().record_by(&|kind, mut claims| {
        if kind == of {
            change(&mut claims);
        }
        key(signer_of(kind)).sign_typ(kind.typ(), &claims).expect("a token").into_bytes()
    })
}

/// The full record with one token signed by a stranger: everything before it was verified in vain.
fn forged(of: TokenKind) -> Record {
    Plan { flaw: Some((of, forge::Flaw::Stranger)), ..full() }.record()
}

/// A list in a list, and so on.
fn nested(depth: usize) -> Value {
    (0..depth).fold(json!(1), |inner, _| json!([inner]))
}

/// An RSA key of that many bits whose modulus nobody has made: it cannot sign, and is read all the same.
fn modulus(bits: usize) -> Value {
    let mut bytes: Vec<u8> = (0..bits / 256).flat_map(|n: usize| sha256(&[&n.to_be_bytes()]).0).collect();
    bytes[0] |= 0x80;
    *bytes.last_mut().expect("some") |= 1;
    use base64::Engine as _;
    let n = base64::engine::general_purpose::URL_SAFE_NO_PAD.encode(bytes);
    json!({"kty": "RSA", "n": n, "e": "AQAB", "alg": "RS256"})
}

fn tokens() -> Group {
    let kinds = [TokenKind::Transaction, TokenKind::WorkloadProof];
    let deep = |of: TokenKind| {
        changed(of, |claims| claims["other"] = json!((0..40).map(|_| nested(60)).collect::<Vec<_>>()))
    };
    let wide = |of: TokenKind| changed(of, |claims| claims["other"] = json!(vec![0; 2_500]));
    let names = |of: TokenKind| {
        changed(of, |claims| {
            for n in 0..350 {
                claims[format!("member-{n}")] = json!(n);
            }
        })
    };
    let numbers = changed(TokenKind::WorkloadProof, |claims| {
        claims["action"] = json!({"name": "pay", "properties": {"n": vec![1e300; 400]}});
    });
    Group {
        name: "tokens, beside a record that carries all five",
        route: forge::route(),
        good: full().record(),
        bad: vec![
            ("the proof is a stranger's", forged(TokenKind::WorkloadProof)),
            ("the Txn-Token is a stranger's", forged(TokenKind::Transaction)),
            ("the countersignature is a stranger's", forged(TokenKind::Countersignature)),
            ("deep JSON in the Txn-Token", deep(kinds[0])),
            ("deep JSON in the proof", deep(kinds[1])),
            ("a list of 2,500 in the Txn-Token", wide(kinds[0])),
            ("a list of 2,500 in the proof", wide(kinds[1])),
            ("350 members in the Txn-Token", names(kinds[0])),
            ("350 members in the proof", names(kinds[1])),
            ("400 large numbers in the proof's action", numbers),
            (
                "a scope of 1,500 words",
                changed(kinds[0], |claims| claims["scope"] = "ab c ".repeat(750).into()),
            ),
            (
                "an RSA key of 8,192 bits in the WIT",
                changed(TokenKind::WorkloadIdentity, |claims| claims["cnf"]["jwk"] = modulus(8192)),
            ),
        ],
    }
}

fn chains() -> Group {
    let chain = |senders: usize| {
        changed(TokenKind::Countersignature, move |claims| {
            let mut act = Value::Null;
            for n in 1..senders {
                let inner = std::mem::take(&mut act);
                act = json!({"sub": format!("spiffe://example.org/agent/{n}")});
                if !inner.is_null() {
                    act["act"] = inner;
                }
            }
            claims["act"] = act;
        })
    };
    Group {
        name: "chains, on a route whose earlier senders must be allowed too, beside two senders",
        route: Route { parties: vec![Party::Senders], ..forge::route() },
        good: full().record(),
        bad: vec![("eight senders", chain(7)), ("nine, one too many", chain(8)), ("thirty", chain(30))],
    }
}

/// A good record with these headers beside its own.
fn beside(more: impl IntoIterator<Item = Header>) -> Record {
    let mut record = full().record();
    record.headers.extend(more);
    record
}

/// A good record whose value has so many bytes.
fn with_value(bytes: usize) -> Record {
    let value = format!("{{\"note\":\"{}\"}}", "x".repeat(bytes));
    Plan { value, ..full() }.record()
}

fn headers() -> Group {
    let many = |name: &str, value: &'static str, times: usize| vec![Header::new(name, value); times];
    let signed = {
        let names: Vec<String> = (0..58).map(|n| format!("h{n}")).collect();
        let own: Vec<Header> = names.iter().map(|name| Header::new(name, "x".repeat(300))).collect();
        let digest = countersign::authorize::digests::of_headers(&own, &names).to_string();
        let mut record = changed(TokenKind::WorkloadProof, |claims| {
            claims["kafka"]["headers"] = json!({"names": names, "digest": digest});
        });
        record.headers.extend(own);
        record
    };
    Group {
        name: "headers, beside a good record of 900,000 bytes",
        route: forge::route(),
        good: with_value(900_000),
        bad: vec![
            ("58 signed headers of 300 bytes", signed),
            (
                "20,000 headers of other names",
                beside(many("other", "a value of some forty bytes, as they are", 20_000)),
            ),
            ("40,000 Txn-Tokens of nothing", beside(many("txn-token", "", 40_000))),
            ("40,000 Txn-Tokens of three parts", beside(many("txn-token", "YQ.YQ.YQ", 40_000))),
            ("40,000 in upper case", beside(many("TXN-TOKEN", "YQ.YQ.YQ", 40_000))),
            (
                "one Txn-Token of 900,000 bytes",
                beside([Header::new("txn-token", format!("YQ.{}.YQ", "YWFh".repeat(225_000)))]),
            ),
        ],
    }
}

/// A route that takes what is asked for from the value, of senders without proof.
fn mapped(action: &str) -> Route {
    let source = MappingSource {
        action: Some(action.to_owned()),
        resource: Some("{'type': 'Invoice', 'id': key}".to_owned()),
        workflow: Some("has(value.workflow) ? value.workflow : null".to_owned()),
        value: Some("{'amount': value.amount}".to_owned()),
    };
    Route {
        unproven: Some(workload(LEGACY)),
        mapping: Mapping::compile(&source).expect("a mapping"),
        ..forge::route()
    }
}

fn unproven(value: String) -> Record {
    let mut record = Plan::default().record();
    record.headers.clear();
    record.value = Some(Bytes::from(value));
    record
}

fn values() -> Group {
    let of = |note: String| unproven(format!("{{\"amount\":1,\"note\":{note}}}"));
    let list = |item: &str, times: usize| format!("[{}]", vec![item; times].join(","));
    let members: String = (0..60_000).map(|n| format!("\"member-{n}\":{n},")).collect();
    Group {
        name: "values, on a route that maps them, beside a good record of 1,000,000 bytes",
        route: mapped("'pay'"),
        good: of(list("\"a text of some forty bytes, as texts are\"", 22_000)),
        bad: vec![
            ("350,000 empty lists", of(list("[]", 330_000))),
            ("350,000 empty objects", of(list("{}", 330_000))),
            ("500,000 digits", of(list("1", 490_000))),
            ("200,000 floats", of(list("1e-7", 200_000))),
            ("60,000 members", of(format!("{{{members}\"last\":0}}"))),
            (
                "not JSON at its very end",
                unproven(format!("{{\"amount\":1,\"note\":{}", list("[]", 330_000))),
            ),
            ("an amount that is not there", unproven(format!("{{\"note\":{}}}", list("[]", 330_000)))),
        ],
    }
}

fn loops() -> Group {
    let route = mapped("value.xs.all(x, value.xs.exists(y, y == x)) ? 'pay' : 'read'");
    let of = |count: i32| unproven(json!({"amount": 1, "xs": (0..count).collect::<Vec<_>>()}).to_string());
    let house = house();
    // The longest list that is still evaluated.
    let admitted = |count: &i32| {
        let denial = house.once(&route, &of(*count)).1;
        !denial.detail.is_some_and(|detail| detail.contains("too large for the route's mapping"))
    };
    let most = (1..2_000).rev().find(admitted).unwrap_or(1);
    Group {
        name: "loops within loops, beside a list of ten",
        good: of(10),
        bad: vec![("the longest list that the bound admits", of(most)), ("one longer", of(most + 1))],
        route,
    }
}
