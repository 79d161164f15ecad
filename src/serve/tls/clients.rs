//! Client certificates at the handshake: X.509-SVIDs, judged by the authorities of the trust that is in force at that moment.
//! Limits: optional, and good for this moment; each request over the connection is judged again.

use std::fmt;
use std::sync::Arc;

use arc_swap::ArcSwap;
use rustls::client::danger::HandshakeSignatureValid;
use rustls::crypto::{WebPkiSupportedAlgorithms, verify_tls12_signature, verify_tls13_signature};
use rustls::pki_types::{CertificateDer, UnixTime};
use rustls::server::danger::{ClientCertVerified, ClientCertVerifier};
use rustls::{
    CertificateError, DigitallySignedStruct, DistinguishedName, Error, OtherError, SignatureScheme,
};

use crate::authorize::engine::Snapshot;
use crate::authorize::ids::UnixMillis;
use crate::authorize::x509::{Peer, PeerError};
use crate::control::certificates::provider;

/// By whose word clients are known.
pub struct Clients {
    snapshots: Arc<ArcSwap<Snapshot>>,
    clock: fn() -> UnixMillis,
    algorithms: WebPkiSupportedAlgorithms,
}

impl Clients {
    /// By the trust in the newest of these snapshots, at the moment that `clock` gives.
    pub fn new(snapshots: Arc<ArcSwap<Snapshot>>, clock: fn() -> UnixMillis) -> Self {
        let algorithms = provider().signature_verification_algorithms;
        Self { snapshots, clock, algorithms }
    }

    /// Who has presented these, its own certificate first.
    pub(super) fn judge(&self, chain: &[CertificateDer<'_>]) -> Result<Peer, PeerError> {
        Peer::verify(chain, &self.snapshots.load().trust, (self.clock)())
    }
}

impl ClientCertVerifier for Clients {
    fn client_auth_mandatory(&self) -> bool {
        false
    }

    /// None: the authorities change, and their names are nobody's business before a handshake.
    fn root_hint_subjects(&self) -> &[DistinguishedName] {
        &[]
    }

    fn verify_client_cert(
        &self,
        end_entity: &CertificateDer<'_>,
        intermediates: &[CertificateDer<'_>],
        _now: UnixTime,
    ) -> Result<ClientCertVerified, Error> {
        let mut chain = Vec::with_capacity(intermediates.len() + 1);
        chain.push(end_entity.clone());
        chain.extend_from_slice(intermediates);
        match self.judge(&chain) {
            Ok(_) => Ok(ClientCertVerified::assertion()),
            Err(error) => Err(alert(error)),
        }
    }

    fn verify_tls12_signature(
        &self,
        message: &[u8],
        cert: &CertificateDer<'_>,
        dss: &DigitallySignedStruct,
    ) -> Result<HandshakeSignatureValid, Error> {
        verify_tls12_signature(message, cert, dss, &self.algorithms)
    }

    fn verify_tls13_signature(
        &self,
        message: &[u8],
        cert: &CertificateDer<'_>,
        dss: &DigitallySignedStruct,
    ) -> Result<HandshakeSignatureValid, Error> {
        verify_tls13_signature(message, cert, dss, &self.algorithms)
    }

    fn supported_verify_schemes(&self) -> Vec<SignatureScheme> {
        self.algorithms.supported_schemes()
    }
}

/// The error whose TLS alert tells the client what is wrong with its certificate.
fn alert(error: PeerError) -> Error {
    Error::InvalidCertificate(match error {
        PeerError::Expired => CertificateError::Expired,
        PeerError::NotYetValid => CertificateError::NotValidYet,
        PeerError::UnknownDomain(_) | PeerError::Unvouched(_) => CertificateError::UnknownIssuer,
        PeerError::Count(_) | PeerError::Svid(_) | PeerError::Path(_) => {
            CertificateError::Other(OtherError(Arc::new(error)))
        }
    })
}

// By hand: a snapshot is everything that decides.
impl fmt::Debug for Clients {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Clients").finish_non_exhaustive()
    }
}
