//! TLS over real sockets on loopback, without anything that decides: which certificate is shown, and that nobody can hold up
//! the others.

use std::io::Write as _;
use std::net::TcpStream;
use std::time::{Duration, Instant};

use axum::Router;
use axum::routing::get;
use reqwest::blocking::Client;

use super::*;
use crate::authorize::ids::UnixMillis;
use crate::authorize::x509::testing::{Authority, Issued};
use crate::config::{ClientCertificates, TlsSettings};
use crate::serve::Server;
use crate::telemetry::{Settings, Telemetry};

const NOW: UnixMillis = UnixMillis(1_893_456_000_000);

struct Served {
    server: Server,
    certificate: Arc<Certificate>,
    settings: TlsSettings,
    telemetry: Telemetry,
    _folder: tempfile::TempDir,
}

impl Served {
    fn new(first: &Issued) -> Self {
        let folder = tempfile::tempdir().unwrap();
        let settings = TlsSettings {
            certificate: folder.path().join("tls.pem"),
            key: folder.path().join("tls.key"),
            clients: ClientCertificates::None,
        };
        write(&settings, first);
        let certificate = Arc::new(Certificate::load("test", &settings, NOW).unwrap().0);
        let tls = Tls::new(Arc::clone(&certificate), None).unwrap();
        let telemetry = Telemetry::start(Settings::default()).unwrap();
        let router = Router::new().route("/", get(|| async { "hello" }));
        let server =
            Server::serving("test", ([127, 0, 0, 1], 0).into(), Some(tls), router, &telemetry).unwrap();
        Self { server, certificate, settings, telemetry, _folder: folder }
    }

    /// What a client that knows this authority alone is told over a new connection.
    fn hello(&self, root: &Authority) -> Option<String> {
        let got = client(root).get(format!("https://{}/", self.server.address())).send().ok()?;
        got.text().ok()
    }
}

fn write(settings: &TlsSettings, issued: &Issued) {
    std::fs::write(&settings.certificate, &issued.pem).unwrap();
    std::fs::write(&settings.key, &issued.key_pem).unwrap();
}

fn client(root: &Authority) -> Client {
    let roots = reqwest::Certificate::from_pem_bundle(root.pem().as_bytes()).unwrap();
    Client::builder().no_proxy().tls_certs_only(roots).timeout(Duration::from_secs(20)).build().unwrap()
}

#[test]
fn tls_is_spoken_and_nothing_else() {
    let web = Authority::new("web");
    let served = Served::new(&web.server(|_| ()));
    assert_eq!(served.hello(&web).as_deref(), Some("hello"));
    assert_eq!(served.hello(&Authority::new("web")), None, "another root of the same name");
    let plain = Client::builder().no_proxy().build().unwrap();
    assert!(plain.get(format!("http://{}/", served.server.address())).send().is_err());
    // A client that is refused leaves the others alone.
    assert_eq!(served.hello(&web).as_deref(), Some("hello"));
    let metrics = served.telemetry.render_metrics().unwrap();
    assert!(
        metrics.contains("countersign_handshakes_failed_total{cause=\"failed\",server=\"test\""),
        "{metrics}"
    );
}

#[test]
fn a_renewed_certificate_is_shown_at_the_next_handshake_and_open_connections_stay() {
    let (before, after) = (Authority::new("before"), Authority::new("after"));
    let served = Served::new(&before.server(|_| ()));
    let open = client(&before);
    let address = format!("https://{}/", served.server.address());
    assert!(open.get(&address).send().unwrap().text().is_ok());
    write(&served.settings, &after.server(|_| ()));
    assert!(served.certificate.refresh(&served.telemetry, NOW));
    assert_eq!(served.hello(&after).as_deref(), Some("hello"));
    assert_eq!(served.hello(&before), None, "the old one is not shown any more");
    assert_eq!(open.get(&address).send().unwrap().text().unwrap(), "hello");
    // Files that are no use change nothing.
    std::fs::write(&served.settings.key, "").unwrap();
    assert!(!served.certificate.refresh(&served.telemetry, NOW));
    assert_eq!(served.hello(&after).as_deref(), Some("hello"));
}

#[test]
fn a_handshake_that_never_ends_holds_up_nobody_and_is_given_up() {
    let web = Authority::new("web");
    let served = Served::new(&web.server(|_| ()));
    let began = Instant::now();
    let silent: Vec<TcpStream> = (0..40)
        .map(|n| {
            let mut stream = TcpStream::connect(served.server.address()).unwrap();
            if n % 2 == 0 {
                // The beginning of a handshake, and no more.
                stream.write_all(&[22, 3, 1, 2, 0, 1]).unwrap();
            }
            stream
        })
        .collect();
    assert_eq!(served.hello(&web).as_deref(), Some("hello"));
    assert!(began.elapsed() < Duration::from_secs(5), "none of them was waited for");
    // Each is closed by the server within its time.
    for mut stream in silent {
        stream.set_read_timeout(Some(Duration::from_secs(15))).unwrap();
        let read = std::io::Read::read(&mut stream, &mut [0; 64]);
        assert!(
            matches!(read, Ok(0)) || read.is_err_and(|e| e.kind() == std::io::ErrorKind::ConnectionReset)
        );
    }
    let metrics = served.telemetry.render_metrics().unwrap();
    assert!(metrics.contains("cause=\"late\""), "{metrics}");
}

#[test]
fn a_stop_does_not_wait_for_handshakes() {
    let web = Authority::new("web");
    let served = Served::new(&web.server(|_| ()));
    let _silent = TcpStream::connect(served.server.address()).unwrap();
    assert_eq!(served.hello(&web).as_deref(), Some("hello"));
    let began = Instant::now();
    served.server.stop();
    assert!(began.elapsed() < Duration::from_secs(4));
}
