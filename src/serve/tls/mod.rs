//! TLS on the gate's HTTP interfaces: TLS 1.2 and 1.3 with the certificate of the moment, HTTP/1.1 alone, and client
//! certificates where the interface knows its clients by them. Limits: a certificate proves who asks and nothing about what
//! may be asked; whoever presents none is nobody yet, and may still prove itself by tokens.

mod clients;
mod listener;
#[cfg(test)]
mod tests;

use std::sync::Arc;

use rustls::server::{ClientHello, NoServerSessionStorage, ResolvesServerCert};
use rustls::sign::CertifiedKey;
use rustls::version::{TLS12, TLS13};
use rustls::{ServerConfig, server::NoClientAuth};

pub use self::clients::Clients;
pub use self::listener::{Connection, TlsListener};

use crate::control::certificates::{Certificate, provider};

/// With what an interface speaks TLS.
#[derive(Debug, Clone)]
pub struct Tls {
    /// Of what, for log and metrics.
    server: &'static str,
    config: Arc<ServerConfig>,
    clients: Option<Arc<Clients>>,
}

impl Tls {
    /// With this certificate, whichever is the last good one at each handshake; `clients` where client certificates are asked
    /// for.
    ///
    /// # Errors
    /// The TLS library has no suite in common with itself: a broken build.
    pub fn new(certificate: Arc<Certificate>, clients: Option<Clients>) -> Result<Self, rustls::Error> {
        let (server, clients) = (certificate.server(), clients.map(Arc::new));
        let builder = ServerConfig::builder_with_provider(Arc::new(provider()))
            .with_protocol_versions(&[&TLS13, &TLS12])?;
        let builder = match &clients {
            Some(clients) => builder.with_client_cert_verifier(Arc::<Clients>::clone(clients)),
            None => builder.with_client_cert_verifier(Arc::new(NoClientAuth)),
        };
        let mut config = builder.with_cert_resolver(Arc::new(Newest(certificate)));
        config.alpn_protocols = vec![b"http/1.1".to_vec()];
        if clients.is_some() {
            // A session that is taken up again would bring its old certificate past the authorities of the day.
            config.session_storage = Arc::new(NoServerSessionStorage {});
            config.send_tls13_tickets = 0;
        }
        Ok(Self { server, config: Arc::new(config), clients })
    }
}

/// Shows the last good certificate.
#[derive(Debug)]
struct Newest(Arc<Certificate>);

impl ResolvesServerCert for Newest {
    fn resolve(&self, _: ClientHello<'_>) -> Option<Arc<CertifiedKey>> {
        Some(Arc::clone(&self.0.shown().value().key))
    }
}
