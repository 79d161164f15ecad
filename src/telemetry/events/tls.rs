//! What becomes of TLS on the gate's HTTP interfaces: their certificates, and handshakes that fail. Limits: names of our own
//! files and servers, and the words of the TLS library; no key, and nothing that a client wrote.

use opentelemetry::KeyValue;

use crate::telemetry::Telemetry;

/// An interface shows this certificate from the next handshake on.
#[derive(Debug)]
pub struct CertificateLoaded {
    /// Which interface.
    pub server: &'static str,
    /// When the certificate ends, in seconds since 1970.
    pub expires: i64,
    /// Whether that has come: no client will believe it.
    pub is_over: bool,
}

impl CertificateLoaded {
    /// Logs and counts it, and shows its end.
    pub fn emit(&self, telemetry: &Telemetry) {
        count(telemetry, self.server, "loaded");
        let server = [KeyValue::new("server", self.server)];
        telemetry.inner.instruments.certificate_expiry.record(self.expires, &server);
        let (server, expires) = (self.server, self.expires);
        if self.is_over {
            tracing::warn!(name: "certificate_loaded", server, expires, "the certificate has expired");
        } else {
            tracing::info!(name: "certificate_loaded", server, expires, "certificate loaded");
        }
    }
}

/// A new certificate, or its key, is not fit to be shown; the last good one stays.
#[derive(Debug)]
pub struct CertificateRefused<'a> {
    /// Which interface.
    pub server: &'static str,
    /// What is wrong with it: never the text of a key.
    pub problem: &'a str,
}

impl CertificateRefused<'_> {
    /// Logs and counts it.
    pub fn emit(&self, telemetry: &Telemetry) {
        count(telemetry, self.server, "refused");
        tracing::error!(
            name: "certificate_refused",
            server = self.server,
            problem = self.problem,
            "certificate refused; the last good one stays"
        );
    }
}

/// A connection was given up before anything was asked over it.
#[derive(Debug)]
pub struct HandshakeFailed<'a> {
    /// Which interface.
    pub server: &'static str,
    /// `late`, `refused` (what the client presents) or `failed`.
    pub cause: &'static str,
    /// The words of the TLS library, or why the client's certificates prove nobody.
    pub problem: &'a str,
}

impl HandshakeFailed<'_> {
    /// Counts it and logs it at `debug`: anybody who reaches the port can cause it.
    pub fn emit(&self, telemetry: &Telemetry) {
        let labels = [KeyValue::new("server", self.server), KeyValue::new("cause", self.cause)];
        telemetry.inner.instruments.handshakes_failed.add(1, &labels);
        tracing::debug!(
            name: "handshake_failed",
            server = self.server,
            cause = self.cause,
            problem = self.problem,
            "no TLS handshake"
        );
    }
}

fn count(telemetry: &Telemetry, server: &'static str, result: &'static str) {
    let labels = [KeyValue::new("server", server), KeyValue::new("result", result)];
    telemetry.inner.instruments.certificate_loads.add(1, &labels);
}
