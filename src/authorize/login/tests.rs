//! Access tokens, each with one thing changed, and the answer that a gate signs for a login.

use proptest::prelude::*;
use serde_json::{Value, json};

use super::*;
use crate::authorize::ids::{Realm, WorkloadId};
use crate::authorize::jose::{KeyUse, SigningKey, TokenKind};

const ISS: &str = "https://login.example.com/realms/main";
const NOW: UnixMillis = UnixMillis(1_800_000_000_000);

fn key(seed: u8) -> SigningKey {
    SigningKey::from_seed(Algorithm::Es256, &[seed; 32], Some("k")).unwrap()
}

fn keys() -> KeySet {
    KeySet::from_jwks(&json!({"keys": [key(1).public_jwk()]}).to_string(), KeyUse::Any).unwrap()
}

fn rules() -> OidcIssuer {
    OidcIssuer {
        iss: ISS.into(),
        audience: "countersign".into(),
        entity_type: "User".into(),
        claim: "sub".into(),
        algorithms: vec![Algorithm::Rs256, Algorithm::Es256],
        scope: None,
        clients: BTreeSet::new(),
        skew_s: 30,
    }
}

fn claims() -> Value {
    json!({
        "iss": ISS, "sub": "carol", "aud": ["account", "countersign"], "iat": 1_799_999_900, "exp": 1_800_000_200,
        "azp": "cli", "scope": "openid approve", "acr": "phr", "amr": ["hwk"], "auth_time": 1_799_999_800, "typ": "Bearer",
        "name": {"any": ["thing"]},
    })
}

fn signed(typ: &'static str, claims: &Value, by: &SigningKey) -> String {
    by.sign_typ(typ, claims).unwrap()
}

fn judge(rules: &OidcIssuer, claims: &Value) -> Result<Login, LoginError> {
    let token = signed("JWT", claims, &key(1));
    Bearer::read(token.as_bytes())?.verify(rules, &keys(), NOW)
}

fn changed(changes: Value) -> Value {
    let mut claims = claims();
    for (name, value) in changes.as_object().unwrap() {
        match value {
            Value::Null => drop(claims.as_object_mut().unwrap().remove(name)),
            value => claims[name] = value.clone(),
        }
    }
    claims
}

#[test]
fn an_access_token_is_a_login_with_what_it_says_of_it() {
    let login = judge(&rules(), &claims()).unwrap();
    assert_eq!((login.issuer(), login.subject(), login.approver()), (ISS, "carol", "carol"));
    assert_eq!(
        (login.entity_type(), login.acr(), login.auth_time()),
        ("User", Some("phr"), Some(1_799_999_800.0))
    );
    assert_eq!(login.amr().unwrap(), ["hwk"]);
    let by_mail = OidcIssuer { claim: "email".into(), ..rules() };
    let login = judge(&by_mail, &changed(json!({"email": "carol@example.com"}))).unwrap();
    assert_eq!((login.subject(), login.approver()), ("carol", "carol@example.com"));
    for typ in ["at+jwt", "application/at+jwt", "JWT"] {
        let token = signed(typ, &claims(), &key(1));
        assert!(Bearer::read(token.as_bytes()).unwrap().verify(&rules(), &keys(), NOW).is_ok(), "{typ}");
    }
}

#[test]
fn each_rule_that_a_token_breaks_has_its_own_error() {
    for (changes, expected) in [
        (json!({"iss": "https://login.example.com/realms/main/"}), LoginError::Issuer),
        (json!({"aud": "account"}), LoginError::Audience),
        (json!({"aud": []}), LoginError::Audience),
        (json!({"aud": "Countersign"}), LoginError::Audience),
        (json!({"exp": 1_799_999_969}), LoginError::Expired),
        (json!({"iat": 1_800_000_031}), LoginError::NotYetValid),
        (json!({"nbf": 1_800_000_031}), LoginError::NotYetValid),
        (json!({"typ": "ID"}), LoginError::Kind),
        (json!({"typ": "Refresh"}), LoginError::Kind),
        (json!({"cnf": {"jkt": "AA"}}), LoginError::Bound),
    ] {
        assert_eq!(judge(&rules(), &changed(changes.clone())).unwrap_err(), expected, "{changes}");
    }
    for (changes, needed) in [
        (json!({"sub": null}), "sub"),
        (json!({"exp": null}), "exp"),
        (json!({"iat": null}), "iat"),
        (json!({"aud": null}), "aud"),
    ] {
        let error = judge(&rules(), &changed(changes)).unwrap_err();
        assert_eq!(error, LoginError::Malformed(format!("needs the member `{needed}`")));
    }
    for changes in [
        json!({"exp": "soon"}),
        json!({"aud": 1}),
        json!({"acr": 1}),
        json!({"amr": "pwd"}),
        json!({"sub": 7}),
    ] {
        let error = judge(&rules(), &changed(changes.clone())).unwrap_err();
        assert!(matches!(error, LoginError::Malformed(_)), "{changes}: {error:?}");
    }
}

#[test]
fn skew_is_inclusive_and_the_settings_own() {
    assert!(judge(&rules(), &changed(json!({"exp": 1_799_999_970}))).is_ok());
    assert!(judge(&rules(), &changed(json!({"iat": 1_800_000_030}))).is_ok());
    let strict = OidcIssuer { skew_s: 0, ..rules() };
    assert_eq!(judge(&strict, &changed(json!({"exp": 1_799_999_970}))).unwrap_err(), LoginError::Expired);
}

#[test]
fn scope_client_and_the_claim_of_the_name_are_asked_for_where_the_settings_say_so() {
    let scoped = OidcIssuer { scope: Some("approve".into()), ..rules() };
    assert!(judge(&scoped, &claims()).is_ok());
    for scope in [json!("openid"), json!("approves"), json!("")] {
        let error = judge(&scoped, &changed(json!({"scope": scope}))).unwrap_err();
        assert_eq!(error, LoginError::Scope("approve".into()));
    }
    let of_clients = OidcIssuer { clients: ["cli".to_owned()].into(), ..rules() };
    assert!(judge(&of_clients, &claims()).is_ok());
    assert!(judge(&of_clients, &changed(json!({"azp": null, "client_id": "cli"}))).is_ok());
    for changes in
        [json!({"azp": "other"}), json!({"azp": null}), json!({"azp": "other", "client_id": "cli"})]
    {
        assert_eq!(judge(&of_clients, &changed(changes)).unwrap_err(), LoginError::Client);
    }
    let by_mail = OidcIssuer { claim: "email".into(), ..rules() };
    for email in [json!(null), json!(7), json!(""), json!("a\u{0}b"), json!("x".repeat(257))] {
        let error = judge(&by_mail, &changed(json!({"email": email}))).unwrap_err();
        assert_eq!(error, LoginError::Approver("email".into()));
    }
}

#[test]
fn a_signature_counts_by_an_allowed_algorithm_and_a_known_key_alone() {
    let verify =
        |token: &str, rules: &OidcIssuer| Bearer::read(token.as_bytes())?.verify(rules, &keys(), NOW);
    let good = signed("JWT", &claims(), &key(1));
    let narrow = OidcIssuer { algorithms: vec![Algorithm::Rs256], ..rules() };
    assert_eq!(verify(&good, &narrow).unwrap_err(), LoginError::Algorithm);
    assert_eq!(verify(&signed("JWT", &claims(), &key(2)), &rules()).unwrap_err(), LoginError::Signature);
    let other = SigningKey::from_seed(Algorithm::Es256, &[1; 32], Some("other")).unwrap();
    assert_eq!(verify(&signed("JWT", &claims(), &other), &rules()).unwrap_err(), LoginError::Key);
    assert_eq!(
        Bearer::read(good.as_bytes()).unwrap().verify(&rules(), &KeySet::empty(), NOW).unwrap_err(),
        LoginError::Key
    );
    let (head, _) = good.rsplit_once('.').unwrap();
    let (_, payload) = head.split_once('.').unwrap();
    // {"alg":"none","typ":"JWT"}
    let none = format!("eyJhbGciOiJub25lIiwidHlwIjoiSldUIn0.{payload}.");
    assert_eq!(verify(&none, &rules()).unwrap_err(), LoginError::Algorithm);
    for kind in [TokenKind::Transaction, TokenKind::StepUpGrant] {
        let token = key(1).sign(kind, &claims()).unwrap();
        assert!(matches!(Bearer::read(token.as_bytes()), Err(LoginError::Malformed(_))));
    }
    assert!(Bearer::read("x".repeat(8193).as_bytes()).is_err());
}

#[test]
fn a_login_meets_what_a_challenge_asks_or_does_not() {
    let login = judge(&rules(), &claims()).unwrap();
    for (acr, age, meets) in [
        (None, None, true),
        (Some("phr phrh"), Some(200), true),
        (Some("phrh phr"), None, true),
        (Some("phrh"), None, false),
        (Some("ph"), None, false),
        (Some(""), None, false),
        (None, Some(199), false),
    ] {
        assert_eq!(login.meets(acr, age, NOW), meets, "{acr:?} {age:?}");
    }
    let silent = judge(&rules(), &changed(json!({"acr": null, "auth_time": null}))).unwrap();
    assert!(silent.meets(None, None, NOW));
    assert!(!silent.meets(Some("phr"), None, NOW) && !silent.meets(None, Some(1_000_000), NOW));
}

#[test]
fn the_gates_answer_names_the_approver_as_an_entity_and_who_logged_in_where() {
    let login = judge(&rules(), &changed(json!({"amr": null}))).unwrap();
    let (gate, realm) =
        (WorkloadId::parse("spiffe://example.org/gate").unwrap(), Realm::parse("test").unwrap());
    let answer = AnswerSource {
        gate: &gate,
        realm: &realm,
        jti: "j",
        challenge: "c",
        digest: "d",
        decision: "approve",
        comment: Some("fine"),
        now: NOW,
        grant_s: 600,
    };
    let token = sign_answer(&login, &answer, &key(3)).unwrap();
    let jws = Jws::parse(token.as_bytes(), TokenKind::StepUpGrant).unwrap();
    let payload: Value = serde_json::from_slice(jws.payload()).unwrap();
    assert_eq!(
        payload,
        json!({
            "iss": "spiffe://example.org/gate", "sub": "carol", "sub_type": "User",
            "sub_id": {"format": "iss_sub", "iss": ISS, "sub": "carol"}, "aud": "test",
            "iat": 1_800_000_000, "exp": 1_800_000_600, "jti": "j", "challenge": "c", "digest": "d",
            "decision": "approve", "acr": "phr", "auth_time": 1_799_999_800, "comment": "fine",
        })
    );
}

proptest! {
    #[test]
    fn no_bytes_make_it_panic(token in "[a-zA-Z0-9_.-]{0,200}", payload in "\\PC{0,200}") {
        let _ = Bearer::read(token.as_bytes());
        let _ = LoginClaims::read(payload.as_bytes(), "sub");
    }
}
