//! The certificate with which an HTTP interface speaks TLS: read from its two files, checked, held as the last good one, and
//! looked at again with keys and policies, since a SPIFFE deployment renews it every hour. Limits: whether a client will
//! believe it is the client's matter; the text of a key never leaves this file.

use std::path::{Path, PathBuf};
use std::sync::{Arc, Mutex, PoisonError};

use rustls::crypto::CryptoProvider;
use rustls::pki_types::pem::PemObject as _;
use rustls::pki_types::{CertificateDer, PrivateKeyDer};
use rustls::sign::CertifiedKey;
use zeroize::Zeroizing;

use super::files;
use super::watched::Watched;
use crate::authorize::ids::{Digest, UnixMillis};
use crate::authorize::jose::sha256;
use crate::authorize::x509::Validity;
use crate::config::{Problem, Problems, TlsSettings, readable_by_others};
use crate::telemetry::Telemetry;
use crate::telemetry::events::{CertificateLoaded, CertificateRefused};

/// Bytes of a file: a chain of certificates, or a key.
const MAX_BYTES: usize = 1024 * 1024;

/// The one provider of TLS's cryptography: that of the tokens.
pub fn provider() -> CryptoProvider {
    rustls::crypto::aws_lc_rs::default_provider()
}

/// A certificate that a server can show, with its key.
#[derive(Debug)]
pub struct Shown {
    /// What rustls signs with.
    pub key: Arc<CertifiedKey>,
    /// When it is good.
    pub validity: Validity,
}

/// The two files as they were read.
struct Source {
    settings: TlsSettings,
    certificate: Result<String, Problem>,
    key: Result<Zeroizing<String>, Problem>,
}

/// The certificate of one interface, looked after.
#[derive(Debug)]
pub struct Certificate {
    /// Of what, for log and metrics.
    server: &'static str,
    settings: TlsSettings,
    shown: Watched<Shown>,
    /// What was last looked at, good or bad: the same bad content is reported once.
    seen: Mutex<Digest>,
}

impl Certificate {
    /// Loads it for the first time; `server` is what it is of, for log and metrics. One that is over is taken, with a warning:
    /// clients refuse it, and the rest of the gate works without it.
    ///
    /// # Errors
    /// Everything that is wrong with its files.
    pub fn load(
        server: &'static str,
        settings: &TlsSettings,
        now: UnixMillis,
    ) -> Result<(Self, Problems), Problems> {
        let source = Source::read(settings);
        let seen = Mutex::new(source.digest());
        let shown = source.load()?;
        let mut warnings = Problems::default();
        if shown.validity.is_over(now) {
            warnings.push(
                Problem::warning("the certificate has expired")
                    .within(settings.certificate.display().to_string())
                    .help(
                        "renew it: no client will believe it, and the gate takes a new one without a restart",
                    ),
            );
        }
        if let Some(warning) = readable_by_others(&settings.key) {
            warnings.push(warning);
        }
        let shown = Watched::new(Arc::new(shown), now);
        Ok((Self { server, settings: settings.clone(), shown, seen }, warnings))
    }

    /// The last good one: version, age, and what is wrong with the newest files.
    pub fn shown(&self) -> &Watched<Shown> {
        &self.shown
    }

    /// What it is of.
    pub fn server(&self) -> &'static str {
        self.server
    }

    /// Tells log and metrics of the one in use.
    pub fn announce(&self, telemetry: &Telemetry, now: UnixMillis) {
        let validity = self.shown.value().validity;
        let is_over = validity.is_over(now);
        CertificateLoaded { server: self.server, expires: validity.to, is_over }.emit(telemetry);
    }

    /// Looks at the files and switches to what has changed and is good; one that is over does not take the place of another.
    /// Returns whether it was switched.
    pub(crate) fn refresh(&self, telemetry: &Telemetry, now: UnixMillis) -> bool {
        let source = Source::read(&self.settings);
        // Held throughout: two looks at once could switch back to the older of two contents.
        let mut seen = self.seen.lock().unwrap_or_else(PoisonError::into_inner);
        let digest = source.digest();
        if digest == *seen {
            return false;
        }
        *seen = digest;
        let loaded = source.load().and_then(|shown| match shown.validity.is_over(now) {
            true => Err(Problem::error("the certificate has expired").into()),
            false => Ok(shown),
        });
        match loaded {
            Ok(shown) => {
                self.shown.switch(Arc::new(shown), now);
                self.announce(telemetry, now);
                true
            }
            Err(problems) => {
                let problem = problems.to_string();
                CertificateRefused { server: self.server, problem: &problem }.emit(telemetry);
                self.shown.refuse(problem, now);
                false
            }
        }
    }

    /// The folders that changes are expected in.
    pub(super) fn folders(&self) -> impl Iterator<Item = PathBuf> {
        let files = [&self.settings.certificate, &self.settings.key];
        files.into_iter().filter_map(|file| Some(file.parent()?.to_owned()))
    }
}

impl Source {
    fn read(settings: &TlsSettings) -> Self {
        let read = |path: &Path| files::read(path, MAX_BYTES).map(|file| file.text);
        Self {
            settings: settings.clone(),
            certificate: read(&settings.certificate),
            key: read(&settings.key).map(Zeroizing::new),
        }
    }

    /// Tells whether the files are still those of another reading.
    fn digest(&self) -> Digest {
        let part = |text: Option<&str>| match text {
            Some(text) => sha256(&[b"text", text.as_bytes()]),
            None => sha256(&[b"unreadable"]),
        };
        let certificate = part(self.certificate.as_deref().ok());
        let key = part(self.key.as_ref().ok().map(|text| text.as_str()));
        sha256(&[&certificate.0, &key.0])
    }

    fn load(self) -> Result<Shown, Problems> {
        let Self { settings, certificate, key } = self;
        let mut problems = Problems::default();
        let within = |problem: Problem, file: &Path| problem.within(file.display().to_string());
        let chain = certificate.and_then(|text| {
            chain(&text).map_err(|what| {
                within(Problem::error(what), &settings.certificate)
                    .help("it holds `-----BEGIN CERTIFICATE-----`, the server's own first")
            })
        });
        let key = key.and_then(|text| {
            // What the parser says of a key may be made of it, so it is not repeated.
            PrivateKeyDer::from_pem_slice(text.as_bytes()).map_err(|_| {
                within(Problem::error("the file holds no private key in PEM that can be used"), &settings.key)
                    .help("it holds `-----BEGIN PRIVATE KEY-----`, not encrypted")
            })
        });
        match (chain, key) {
            (Ok((chain, validity)), Ok(key)) => {
                match CertifiedKey::from_der(chain, key, &provider()) {
                    Ok(key) => return Ok(Shown { key: Arc::new(key), validity }),
                    Err(rustls::Error::InconsistentKeys(_)) => problems.push(
                        within(Problem::error("the key is not the one of the certificate"), &settings.key)
                            .help("where both are being renewed, the next look finds them together"),
                    ),
                    Err(_) => problems.push(
                        within(Problem::error("the private key cannot be used"), &settings.key)
                            .help("it is an ECDSA key on P-256, P-384 or P-521, an Ed25519 key, or an RSA key from 2,048 bits"),
                    ),
                }
            }
            (chain, key) => {
                for problem in [chain.err(), key.err()].into_iter().flatten() {
                    problems.push(problem);
                }
            }
        }
        Err(problems)
    }
}

/// The certificates of a PEM file, and when the first, the server's own, is good.
fn chain(text: &str) -> Result<(Vec<CertificateDer<'static>>, Validity), &'static str> {
    let chain: Result<Vec<_>, _> = CertificateDer::pem_slice_iter(text.as_bytes()).collect();
    let chain = chain.map_err(|_| "the file is not well-formed PEM")?;
    let own = chain.first().ok_or("the file holds no certificate in PEM")?;
    let validity = Validity::of(own).map_err(|_| "the first certificate in the file cannot be read")?;
    Ok((chain, validity))
}

#[cfg(test)]
mod tests;
