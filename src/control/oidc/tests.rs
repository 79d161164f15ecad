//! Issuers on loopback ports: discovery, rotation, and what is never followed.

use std::collections::BTreeSet;
use std::io::{Read as _, Write as _};
use std::net::TcpListener;
use std::sync::Mutex;
use std::sync::atomic::AtomicUsize;

use serde_json::json;

use super::*;
use crate::authorize::jose::{Algorithm, SigningKey};
use crate::config::OidcKeys;

const NOW: UnixMillis = UnixMillis(1_893_456_000_000);

fn jwks(seeds: &[u8]) -> String {
    let key =
        |seed: &u8| SigningKey::from_seed(Algorithm::Es256, &[*seed; 32], Some(&seed.to_string())).unwrap();
    json!({"keys": seeds.iter().map(|seed| key(seed).public_jwk()).collect::<Vec<_>>()}).to_string()
}

/// An issuer on a port of its own: discovery, and keys that a test changes.
struct Idp {
    iss: String,
    keys: Arc<Mutex<String>>,
    asked: Arc<AtomicUsize>,
}

impl Idp {
    fn start(keys: String) -> Self {
        let listener = TcpListener::bind("127.0.0.1:0").unwrap();
        let iss = format!("http://{}/realms/main", listener.local_addr().unwrap());
        let (keys, asked) = (Arc::new(Mutex::new(keys)), Arc::new(AtomicUsize::new(0)));
        let (shown, counted, of) = (Arc::clone(&keys), Arc::clone(&asked), iss.clone());
        std::thread::spawn(move || {
            for stream in listener.incoming() {
                let (mut stream, mut request) = (stream.unwrap(), [0; 4096]);
                let read = stream.read(&mut request).unwrap();
                let request = String::from_utf8_lossy(&request[..read]).into_owned();
                let path = request.split(' ').nth(1).unwrap_or_default();
                let (status, body) = match path {
                    "/realms/main/.well-known/openid-configuration" => {
                        ("200 OK", json!({"issuer": of, "jwks_uri": format!("{of}/certs")}).to_string())
                    }
                    "/realms/main/certs" => {
                        counted.fetch_add(1, Ordering::SeqCst);
                        ("200 OK", shown.lock().unwrap().clone())
                    }
                    "/moved" => ("302 Found\r\nlocation: /realms/main/certs", String::new()),
                    _ => ("404 Not Found", String::new()),
                };
                let head = format!(
                    "HTTP/1.1 {status}\r\ncontent-length: {}\r\nconnection: close\r\n\r\n",
                    body.len()
                );
                let _ = stream.write_all(format!("{head}{body}").as_bytes());
            }
        });
        Self { iss, keys, asked }
    }

    fn settings(&self, keys: OidcKeys) -> OidcSettings {
        let rules = OidcIssuer {
            iss: self.iss.clone(),
            audience: "countersign".into(),
            entity_type: "User".into(),
            claim: "sub".into(),
            algorithms: vec![Algorithm::Es256],
            scope: None,
            clients: BTreeSet::new(),
            skew_s: 30,
        };
        OidcSettings { rules, keys }
    }
}

fn start(settings: OidcSettings) -> OidcIssuers {
    let telemetry = Telemetry::start(crate::telemetry::Settings::default()).unwrap();
    OidcIssuers::start(&[settings], &telemetry, || NOW).unwrap()
}

fn wait(of: &Followed, until: impl Fn(&Followed) -> bool) {
    let deadline = Instant::now() + Duration::from_secs(20);
    while !until(of) {
        assert!(Instant::now() < deadline, "nothing came");
        thread::sleep(Duration::from_millis(10));
    }
}

fn kids(of: &Followed) -> Vec<String> {
    of.keys(NOW).map(|keys| keys.kids().map(str::to_owned).collect()).unwrap_or_default()
}

fn again(of: &Followed) {
    tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap().block_on(of.look_again());
}

#[test]
fn keys_are_discovered_and_a_new_one_is_looked_for_at_a_bounded_rate() {
    let idp = Idp::start(jwks(&[1]));
    let issuers = start(idp.settings(OidcKeys::Discovered));
    assert!(issuers.get("http://127.0.0.1/").is_none());
    let of = issuers.get(&idp.iss).unwrap();
    wait(of, |of| kids(of) == ["1"]);
    *idp.keys.lock().unwrap() = jwks(&[1, 2]);
    let before = idp.asked.load(Ordering::SeqCst);
    let begun = Instant::now();
    for _ in 0..50 {
        again(of);
    }
    let looks = idp.asked.load(Ordering::SeqCst) - before;
    let allowed = begun.elapsed().as_secs() / COOLDOWN.as_secs() + 1;
    assert!(looks as u64 <= allowed, "{looks} looks for tokens, and {allowed} allowed");
    wait(of, |of| {
        again(of);
        kids(of) == ["1", "2"]
    });
}

#[test]
fn bad_keys_change_nothing_and_old_ones_are_not_used_for_ever() {
    let idp = Idp::start("<html>".into());
    let at = url::Url::parse(&format!("{}/certs", idp.iss)).unwrap();
    let issuers = start(idp.settings(OidcKeys::At(at)));
    let of = issuers.get(&idp.iss).unwrap();
    wait(of, |of| of.keys.state().error.is_some());
    assert!(of.keys(NOW).is_none());
    *idp.keys.lock().unwrap() = jwks(&[3]);
    wait(of, |of| {
        again(of);
        kids(of) == ["3"]
    });
    *idp.keys.lock().unwrap() = jwks(&[4, 4]);
    wait(of, |of| {
        again(of);
        of.keys.state().error.is_some()
    });
    assert_eq!((kids(of), of.keys.state().version), (vec!["3".to_owned()], 2));
    assert!(of.keys(UnixMillis(NOW.0 + MAX_AGE_MS)).is_some());
    assert!(of.keys(UnixMillis(NOW.0 + MAX_AGE_MS + 1)).is_none());
}

#[test]
fn no_redirect_is_followed() {
    let idp = Idp::start(jwks(&[1]));
    let moved = url::Url::parse(&idp.iss).unwrap().join("/moved").unwrap();
    let issuers = start(idp.settings(OidcKeys::At(moved)));
    let of = issuers.get(&idp.iss).unwrap();
    wait(of, |of| of.keys.state().error.is_some());
    assert!(of.keys(NOW).is_none());
    assert_eq!(idp.asked.load(Ordering::SeqCst), 0);
}
