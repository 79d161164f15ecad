//! The two files on disk: renewed, half renewed, broken, and what is said about each without a word of the key.

use std::fs;
use std::path::Path;

use super::*;
use crate::authorize::x509::testing::{Authority, Issued, between};
use crate::config::ClientCertificates;
use crate::telemetry::Settings;

const NOW: UnixMillis = UnixMillis(1_893_456_000_000);

fn settings(folder: &Path) -> TlsSettings {
    TlsSettings {
        certificate: folder.join("tls.pem"),
        key: folder.join("tls.key"),
        clients: ClientCertificates::None,
    }
}

fn write(folder: &Path, issued: &Issued) {
    fs::write(folder.join("tls.pem"), &issued.pem).unwrap();
    fs::write(folder.join("tls.key"), &issued.key_pem).unwrap();
}

fn serial(certificate: &Certificate) -> Vec<u8> {
    certificate.shown().value().key.cert[0].to_vec()
}

#[test]
fn a_renewed_certificate_is_taken_and_a_bad_one_leaves_the_last_good_one() {
    let folder = tempfile::tempdir().unwrap();
    let telemetry = Telemetry::start(Settings::default()).unwrap();
    let authority = Authority::new("web");
    let (first, second) = (authority.server(|_| ()), authority.server(|_| ()));
    write(folder.path(), &first);
    let (certificate, _) = Certificate::load("access", &settings(folder.path()), NOW).unwrap();
    assert!(!certificate.refresh(&telemetry, NOW), "nothing has changed");
    // Half of it has been written.
    fs::write(folder.path().join("tls.pem"), &second.pem).unwrap();
    assert!(!certificate.refresh(&telemetry, NOW));
    assert_eq!(serial(&certificate), first.chain[0].to_vec());
    let problem = certificate.shown().state().error.clone().unwrap();
    assert!(problem.contains("the key is not the one of the certificate"), "{problem}");
    write(folder.path(), &second);
    assert!(certificate.refresh(&telemetry, NOW));
    assert_eq!(serial(&certificate), second.chain[0].to_vec());
    assert!(certificate.shown().state().error.is_none());
    // One that is over does not take the place of one that is not.
    write(folder.path(), &authority.server(|params| between(params, 0, 1_893_455_999)));
    assert!(!certificate.refresh(&telemetry, NOW));
    fs::remove_file(folder.path().join("tls.key")).unwrap();
    assert!(!certificate.refresh(&telemetry, NOW));
    assert_eq!(serial(&certificate), second.chain[0].to_vec());
    let metrics = telemetry.render_metrics().unwrap();
    assert!(
        metrics.contains("countersign_certificate_loads_total{result=\"refused\",server=\"access\""),
        "{metrics}"
    );
    assert!(metrics.contains("countersign_certificate_expiry_seconds{server=\"access\""), "{metrics}");
}

#[test]
fn everything_that_is_wrong_with_the_files_is_said_at_once_and_nothing_of_the_key() {
    let folder = tempfile::tempdir().unwrap();
    let issued = Authority::new("web").server(|_| ());
    let problems = |pem: &str, key: &str| {
        fs::write(folder.path().join("tls.pem"), pem).unwrap();
        fs::write(folder.path().join("tls.key"), key).unwrap();
        let problems = Certificate::load("access", &settings(folder.path()), NOW).unwrap_err();
        let text = format!("{problems}{problems:?}");
        let secret: Vec<&str> = issued.key_pem.lines().filter(|line| !line.starts_with("---")).collect();
        assert!(secret.iter().all(|line| line.len() > 8 && !text.contains(line)), "{text}");
        problems.iter().map(|problem| problem.report().message.to_owned()).collect::<Vec<_>>()
    };
    let none = "the file holds no private key in PEM that can be used";
    assert_eq!(problems("", ""), ["the file holds no certificate in PEM", none]);
    assert_eq!(problems(&issued.key_pem, &issued.pem), ["the file holds no certificate in PEM", none]);
    let cut = issued.key_pem.replace("-----END", "");
    assert_eq!(problems(&issued.pem, &cut), [none]);
    let garbage = "-----BEGIN PRIVATE KEY-----\nAAAA\n-----END PRIVATE KEY-----\n";
    assert_eq!(problems(&issued.pem, garbage), ["the private key cannot be used"]);
    let garbage = "-----BEGIN CERTIFICATE-----\nAAAA\n-----END CERTIFICATE-----\n";
    assert_eq!(problems(garbage, &issued.key_pem), ["the first certificate in the file cannot be read"]);
    let other = Authority::new("web").server(|_| ());
    assert_eq!(problems(&other.pem, &issued.key_pem), ["the key is not the one of the certificate"]);
    // No files at all.
    let nowhere = settings(&folder.path().join("nowhere"));
    assert_eq!(Certificate::load("access", &nowhere, NOW).unwrap_err().iter().count(), 2);
}

#[test]
fn one_that_is_over_starts_with_a_warning_since_the_gate_does_more_than_answer() {
    let folder = tempfile::tempdir().unwrap();
    write(folder.path(), &Authority::new("web").server(|params| between(params, 0, 1_893_455_999)));
    let (_, warnings) = Certificate::load("access", &settings(folder.path()), NOW).unwrap();
    assert!(warnings.to_string().contains("the certificate has expired"), "{warnings}");
    assert!(!warnings.stop());
}
