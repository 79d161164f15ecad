//! Tokens of one kind never pass for another: every pair of the eight kinds that a gate reads, whether the whole token is
//! another's, only its key, or only its `typ`.

use countersign::authorize::engine::Moment;
use countersign::authorize::ids::{Coordinates, Offset, Partition};
use countersign::authorize::jose::{Algorithm, SigningKey, TokenKind};
use countersign::authorize::login::{Bearer, OidcIssuer};
use countersign::authorize::record::{Record, TimestampType};
use countersign::authorize::replay::window_ms;
use countersign::authorize::route::Order;
use countersign::authorize::route::Route;
use countersign::authorize::standing::{Authority, EVENT_TYP, Notice, REVOCATION_TYP, verify};
use countersign::authorize::state::PartitionState;
use serde_json::{Value, json};

use crate::forge::{self, NOW, NOW_S, Plan, SOURCE, TRANSMITTER, keys, signer_of, topic};
use crate::gatehouse::{Gatehouse, holding};

/// What a gate reads as a signed token.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Kind {
    /// One of the five headers; a grant as an answer.
    Of(TokenKind),
    /// An administrative revocation.
    Revocation,
    /// A security event.
    Event,
    /// An approver's bearer token.
    Login,
}

const KINDS: [Kind; 8] = [
    Kind::Of(TokenKind::WorkloadIdentity),
    Kind::Of(TokenKind::WorkloadProof),
    Kind::Of(TokenKind::Transaction),
    Kind::Of(TokenKind::Countersignature),
    Kind::Of(TokenKind::StepUpGrant),
    Kind::Revocation,
    Kind::Event,
    Kind::Login,
];

const OIDC: &str = "https://login.example.org";

impl Kind {
    fn typ(self) -> &'static str {
        match self {
            Self::Of(kind) => kind.typ(),
            Self::Revocation => REVOCATION_TYP,
            Self::Event => EVENT_TYP,
            Self::Login => "at+jwt",
        }
    }

    fn signer(self) -> &'static str {
        match self {
            Self::Of(kind) => signer_of(kind),
            Self::Revocation => "administrator",
            Self::Event => "transmitter",
            Self::Login => "login",
        }
    }

    /// The claims of a good one; of the five they are those of the plan's record.
    fn claims(self) -> Value {
        match self {
            Self::Of(wanted) => {
                let found = std::cell::RefCell::new(Value::Null);
                full().record_by(&|kind, claims| {
                    if kind == wanted {
                        found.replace(claims.clone());
                    }
                    full().sign(kind, claims)
                });
                found.into_inner()
            }
            Self::Revocation => json!({
                "jti": "r-1", "iat": NOW_S, "revoke": {"kind": "subject", "id": "eve"}, "reason": "left"
            }),
            Self::Event => json!({
                "iss": TRANSMITTER, "jti": "r-1", "iat": NOW_S, "aud": "https://rx.example.org",
                "sub_id": {"format": "opaque", "id": "eve"},
                "events": {"https://schemas.openid.net/secevent/caep/event-type/session-revoked": {}}
            }),
            Self::Login => json!({
                "iss": OIDC, "sub": "carol", "aud": "countersign", "iat": NOW_S - 10, "exp": NOW_S + 60
            }),
        }
    }

    /// One that says so, signed by that key.
    fn token(self, typ: &'static str, key: &SigningKey) -> Vec<u8> {
        key.sign_typ(typ, &self.claims()).unwrap().into_bytes()
    }

    /// Whether a gate takes the bytes for one of this kind.
    fn takes(self, house: &Gatehouse, token: &[u8]) -> bool {
        match self {
            Self::Of(TokenKind::StepUpGrant) => house_counts(house, token),
            Self::Of(wanted) => {
                let record = full().record_by(&|kind, claims| match kind == wanted {
                    true => token.to_vec(),
                    // The proof is made for whatever goes along: only the token itself is in doubt.
                    false => full().sign(kind, claims),
                });
                house.once(&forge::route(), &record).1.outcome == "forward"
            }
            Self::Revocation | Self::Event => {
                let transmitted = Authority::Transmitter(TRANSMITTER.into());
                let by = if self == Self::Event { transmitted } else { Authority::Administrator };
                let said = verify(b"r-1", token, &house.snapshot.trust);
                matches!(said, Ok(Notice::Revocation(said)) if said.authority == by)
            }
            Self::Login => {
                let rules = OidcIssuer {
                    iss: OIDC.to_owned(),
                    audience: "countersign".to_owned(),
                    entity_type: "User".to_owned(),
                    claim: "sub".to_owned(),
                    algorithms: Algorithm::DEFAULT.to_vec(),
                    scope: None,
                    clients: [].into(),
                    skew_s: 30,
                };
                Bearer::read(token).is_ok_and(|bearer| bearer.verify(&rules, &keys(&["login"]), NOW).is_ok())
            }
        }
    }
}

/// A record that carries all of the five.
fn full() -> Plan {
    Plan { countersignature: true, grant: true, ..Plan::default() }
}

/// Whether a grant on the answers topic is believed: it then is one for nothing that is held.
fn house_counts(house: &Gatehouse, token: &[u8]) -> bool {
    let route = Route { holding: Some(holding(Order::None)), ..forge::route() };
    let answer = Record {
        source: Coordinates {
            topic: topic("payments.commands.answers"),
            partition: Partition(0),
            offset: Offset(0),
        },
        timestamp: Some(NOW),
        timestamp_type: TimestampType::LogAppendTime,
        key: None,
        value: Some(token.to_vec().into()),
        headers: Vec::new(),
    };
    let moment =
        Moment { now: NOW, id: forge::id_of(&answer), snapshot: &house.snapshot, source_partitions: 8 };
    let mut state = PartitionState::new(window_ms(&route));
    let step = house.engine.answer(&route, &topic(SOURCE), &answer, None, &moment, &mut state);
    let effect = step.audit.answer.unwrap().effect;
    assert!(["stray", "malformed", "invalid"].contains(&effect.as_str()), "{effect}");
    effect == "stray"
}

/// Every pair of kinds that differ.
fn pairs() -> impl Iterator<Item = (Kind, Kind)> {
    let all = KINDS.into_iter().flat_map(|one| KINDS.into_iter().map(move |other| (one, other)));
    all.filter(|(one, other)| one != other)
}

fn named(key: &'static str, kid: Option<&str>) -> SigningKey {
    let mut jwk: Value = serde_json::from_str(&forge::key(key).private_jwk()).unwrap();
    match kid {
        Some(kid) => jwk["kid"] = kid.into(),
        None => drop(jwk.as_object_mut().unwrap().remove("kid")),
    }
    SigningKey::from_jwk(&jwk.to_string()).unwrap()
}

#[test]
fn a_token_is_taken_for_its_own_kind() {
    let house = Gatehouse::new();
    for kind in KINDS {
        let token = kind.token(kind.typ(), &forge::key(kind.signer()));
        assert!(kind.takes(&house, &token), "{kind:?}");
    }
}

#[test]
fn a_token_of_one_kind_is_not_taken_for_another() {
    let house = Gatehouse::new();
    for (kind, place) in pairs() {
        let token = kind.token(kind.typ(), &forge::key(kind.signer()));
        assert!(!place.takes(&house, &token), "{kind:?} for {place:?}");
    }
    assert_eq!(pairs().count(), 56);
}

#[test]
fn a_key_of_one_kind_signs_no_token_of_another() {
    let house = Gatehouse::new();
    for (of, place) in pairs() {
        for kid in [Some(of.signer()), Some(place.signer()), None] {
            let token = place.token(place.typ(), &named(of.signer(), kid));
            assert!(!place.takes(&house, &token), "a {place:?} signed by the key of a {of:?}, kid {kid:?}");
        }
    }
}

#[test]
fn a_token_with_another_kinds_typ_is_not_taken() {
    let house = Gatehouse::new();
    for (typ, place) in pairs() {
        let token = place.token(typ.typ(), &forge::key(place.signer()));
        assert!(!place.takes(&house, &token), "a {place:?} that says it is a {typ:?}");
    }
}

#[test]
fn claims_of_one_kind_are_not_those_of_another() {
    let house = Gatehouse::new();
    for (claims, place) in pairs() {
        let token = claims.token(place.typ(), &forge::key(place.signer()));
        assert!(!place.takes(&house, &token), "the claims of a {claims:?} as a {place:?}");
    }
}
