//! The certificates that the other side of a connection has presented, judged: which workload they name, and that the
//! authorities of that workload's own trust domain vouch for it. Limits: pure; that the other side holds the key is what the
//! handshake proves, so nothing but a finished handshake may make one that counts.

use std::time::Duration;

use rustls_pki_types::{CertificateDer, UnixTime};
use webpki::{ALL_VERIFICATION_ALGS, EndEntityCert, KeyUsage};

use super::certificate::{Svid, SvidError, Validity, signing};
use crate::authorize::decision::{Denial, Reason};
use crate::authorize::ids::{Digest, TrustDomain, UnixMillis, WorkloadId};
use crate::authorize::limits::MAX_PRESENTED_CERTIFICATES;
use crate::authorize::trust::Trust;

/// Why certificates prove nobody.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum PeerError {
    /// None, or more than 8.
    #[error("the client presents {0} certificates, and may present 1 to {MAX_PRESENTED_CERTIFICATES}")]
    Count(usize),
    /// The first is no X.509-SVID.
    #[error("the client certificate {0}")]
    Svid(#[from] SvidError),
    /// Its trust domain is not configured, or its bundle has no authorities.
    #[error("the client certificate is of the trust domain `{0}`, which has no X.509 authorities here")]
    UnknownDomain(TrustDomain),
    /// Not valid yet.
    #[error("the client certificate was not yet valid at the moment of acceptance")]
    NotYetValid,
    /// It, or a certificate that vouches for it, is over.
    #[error("the client certificate had expired at the moment of acceptance")]
    Expired,
    /// No authority of its own trust domain stands at the end of its chain.
    #[error("the client certificate is not issued by an authority of `{0}`")]
    Unvouched(TrustDomain),
    /// The chain breaks a rule of path validation (RFC 5280, section 6).
    #[error("the chain of the client certificate cannot be used: {0}")]
    Path(String),
}

impl PeerError {
    /// The denial that it is to a caller.
    pub fn denial(&self) -> Denial {
        let reason = match self {
            Self::Count(_) => Reason::ContextTooLarge,
            Self::Svid(_) => Reason::ContextMalformed,
            Self::UnknownDomain(_) | Self::Unvouched(_) => Reason::IssuerUnknown,
            Self::NotYetValid => Reason::TokenNotYetValid,
            Self::Expired => Reason::TokenExpired,
            Self::Path(_) => Reason::SignatureInvalid,
        };
        Denial::new(reason, self.to_string())
    }
}

/// A workload that has presented its certificates, with who vouched for it.
#[derive(Debug, Clone)]
pub struct Peer {
    svid: Svid,
    chain: Vec<CertificateDer<'static>>,
    /// While the certificate and all that vouch for it are good.
    validity: Validity,
    /// The trust by which that was found.
    verified_under: Digest,
}

impl Peer {
    /// Judges the certificates of a client in DER, its own first, by the authorities of the trust domain that it names.
    ///
    /// # Errors
    /// The first rule that they break.
    pub fn verify(chain: &[CertificateDer<'_>], trust: &Trust, now: UnixMillis) -> Result<Self, PeerError> {
        let (1..=MAX_PRESENTED_CERTIFICATES, Some((own, others))) = (chain.len(), chain.split_first()) else {
            return Err(PeerError::Count(chain.len()));
        };
        let svid = Svid::read(own)?;
        let validity = vouched(&svid, own, others, trust, now)?;
        let chain = chain.iter().map(|one| one.clone().into_owned()).collect();
        Ok(Self { svid, chain, validity, verified_under: trust.version() })
    }

    /// The workload.
    pub fn id(&self) -> &WorkloadId {
        &self.svid.id
    }

    /// Its certificate.
    pub fn svid(&self) -> &Svid {
        &self.svid
    }

    /// Judges it again at another moment: a connection outlives its certificate, and what is trusted changes.
    ///
    /// # Errors
    /// As [`Peer::verify`].
    pub fn check(&self, trust: &Trust, now: UnixMillis) -> Result<(), PeerError> {
        if self.verified_under != trust.version() {
            return Self::verify(&self.chain, trust, now).map(drop);
        }
        in_time(self.validity, now)
    }
}

fn in_time(validity: Validity, now: UnixMillis) -> Result<(), PeerError> {
    match (validity.is_over(now), validity.has_begun(now)) {
        (true, _) => Err(PeerError::Expired),
        (false, false) => Err(PeerError::NotYetValid),
        (false, true) => Ok(()),
    }
}

/// Finds the path to an authority of the certificate's own trust domain; while all of it is good.
fn vouched(
    svid: &Svid,
    own: &CertificateDer<'_>,
    others: &[CertificateDer<'_>],
    trust: &Trust,
    now: UnixMillis,
) -> Result<Validity, PeerError> {
    let domain = svid.id.trust_domain();
    // INVARIANT: the authorities of that domain and of no other.
    let authorities = trust.authorities(domain).filter(|authorities| !authorities.is_empty());
    let authorities = authorities.ok_or_else(|| PeerError::UnknownDomain(domain.clone()))?;
    in_time(svid.validity, now)?;
    let anchors = authorities.at(now);
    let seconds = u64::try_from(now.whole_seconds()).unwrap_or_default();
    let at = UnixTime::since_unix_epoch(Duration::from_secs(seconds));
    let refused = |error| refused(error, domain);
    let end = EndEntityCert::try_from(own).map_err(refused)?;
    // RFC 5280 leaves `keyCertSign` of what stands between to the verifier.
    let signs = |path: &webpki::VerifiedPath<'_>| {
        let all_sign = path.intermediate_certificates().all(|one| matches!(signing(&one.der()), Ok(Some(_))));
        if all_sign { Ok(()) } else { Err(webpki::Error::EndEntityUsedAsCa) }
    };
    let path = end
        .verify_for_usage(
            ALL_VERIFICATION_ALGS,
            &anchors,
            others,
            at,
            KeyUsage::client_auth(),
            None,
            Some(&signs),
        )
        .map_err(refused)?;
    let mut validity = svid.validity;
    for between in path.intermediate_certificates() {
        validity = validity.and(Validity::of(&between.der())?);
    }
    let unvouched = || PeerError::Unvouched(domain.clone());
    Ok(validity.and(authorities.validity(path.anchor(), now).ok_or_else(unvouched)?))
}

fn refused(error: webpki::Error, domain: &TrustDomain) -> PeerError {
    match error {
        webpki::Error::CertExpired { .. } => PeerError::Expired,
        webpki::Error::CertNotValidYet { .. } => PeerError::NotYetValid,
        webpki::Error::UnknownIssuer => PeerError::Unvouched(domain.clone()),
        other => PeerError::Path(other.to_string()),
    }
}
