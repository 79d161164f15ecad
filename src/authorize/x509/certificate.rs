//! One certificate, read as far as it says who it is for, from when to when, and what its key may do (RFC 5280; SPIFFE
//! X509-SVID, sections 2 to 5). Limits: form alone. Who signed it is not looked at.

use x509_cert::Certificate;
use x509_cert::der::{Decode as _, Encode as _};
use x509_cert::ext::pkix::name::GeneralName;
use x509_cert::ext::pkix::{BasicConstraints, KeyUsage, SubjectAltName};

use crate::authorize::ids::{Digest, InvalidName, UnixMillis, WorkloadId};
use crate::authorize::jose::sha256;

/// Why a certificate is no X.509-SVID of a workload.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum SvidError {
    /// Not a certificate in DER, or an extension that cannot be read or is there twice.
    #[error("cannot be read")]
    Unreadable,
    /// Section 2: exactly one URI.
    #[error("names {0} URIs in its SAN, and an X.509-SVID names exactly one")]
    Uris(usize),
    /// The URI is no SPIFFE ID.
    #[error("names no workload in its SAN: {0}")]
    Name(#[from] InvalidName),
    /// The URI is an identifier of another scheme.
    #[error("names a workload by another scheme than `spiffe`")]
    Scheme,
    /// Section 4.1: it is the certificate of an authority.
    #[error("is the certificate of an authority, not of a workload")]
    Authority,
    /// Section 4.3: `digitalSignature` is not set, or `keyCertSign` or `cRLSign` is.
    #[error("has a key that may not do what a workload's key does and no more (key usage)")]
    KeyUsage,
}

/// From when to when a certificate is good, both included.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Validity {
    /// `notBefore`, in seconds since 1970.
    pub from: i64,
    /// `notAfter`, in seconds since 1970.
    pub to: i64,
}

impl Validity {
    /// Of the certificate in this DER.
    ///
    /// # Errors
    /// [`SvidError::Unreadable`].
    pub fn of(der: &[u8]) -> Result<Self, SvidError> {
        Ok(Self::read(&read(der)?))
    }

    fn read(certificate: &Certificate) -> Self {
        let validity = certificate.tbs_certificate().validity();
        // X.509 ends with the year 9999.
        let seconds = |time: &x509_cert::time::Time| {
            i64::try_from(time.to_unix_duration().as_secs()).unwrap_or(i64::MAX)
        };
        Self { from: seconds(&validity.not_before), to: seconds(&validity.not_after) }
    }

    /// While both are good.
    #[must_use]
    pub fn and(self, other: Self) -> Self {
        Self { from: self.from.max(other.from), to: self.to.min(other.to) }
    }

    /// Whether it has begun.
    pub fn has_begun(self, at: UnixMillis) -> bool {
        at.whole_seconds() >= self.from
    }

    /// Whether it is over.
    pub fn is_over(self, at: UnixMillis) -> bool {
        at.whole_seconds() > self.to
    }
}

/// The certificate of a workload. That somebody vouches for it is not known here.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Svid {
    /// The workload.
    pub id: WorkloadId,
    /// When it is good.
    pub validity: Validity,
    /// SHA-256 of the certificate (`x5t#S256` of RFC 8705).
    pub thumbprint: Digest,
    /// SHA-256 of its SubjectPublicKeyInfo: the same for every certificate of one key.
    pub key: Digest,
}

impl Svid {
    /// Reads the certificate of a workload in DER.
    ///
    /// # Errors
    /// The first rule of an X.509-SVID that it breaks.
    pub fn read(der: &[u8]) -> Result<Self, SvidError> {
        let certificate = read(der)?;
        let tbs = certificate.tbs_certificate();
        let names = tbs.get_extension::<SubjectAltName>().map_err(|_| SvidError::Unreadable)?;
        let names = names.map(|(_, names)| names.0).unwrap_or_default();
        let uris: Vec<&str> = names
            .iter()
            .filter_map(|name| match name {
                GeneralName::UniformResourceIdentifier(uri) => Some(uri.as_str()),
                _ => None,
            })
            .collect();
        let [uri] = uris.as_slice() else { return Err(SvidError::Uris(uris.len())) };
        let id = WorkloadId::parse(uri)?;
        if !uri.starts_with("spiffe://") {
            return Err(SvidError::Scheme);
        }
        if is_authority(&certificate)? {
            return Err(SvidError::Authority);
        }
        match key_usage(&certificate)? {
            Some(usage) if usage.digital_signature() && !usage.key_cert_sign() && !usage.crl_sign() => {}
            _ => return Err(SvidError::KeyUsage),
        }
        let key = tbs.subject_public_key_info().to_der().map_err(|_| SvidError::Unreadable)?;
        Ok(Self {
            id,
            validity: Validity::read(&certificate),
            thumbprint: sha256(&[der]),
            key: sha256(&[&key]),
        })
    }
}

/// What is needed of a certificate that signs others: that it may, and when it is good.
pub(super) fn signing(der: &[u8]) -> Result<Option<Validity>, SvidError> {
    let certificate = read(der)?;
    let may_sign = key_usage(&certificate)?.is_some_and(|usage| usage.key_cert_sign());
    Ok((is_authority(&certificate)? && may_sign).then(|| Validity::read(&certificate)))
}

fn read(der: &[u8]) -> Result<Certificate, SvidError> {
    Certificate::from_der(der).map_err(|_| SvidError::Unreadable)
}

fn is_authority(certificate: &Certificate) -> Result<bool, SvidError> {
    let found = certificate.tbs_certificate().get_extension::<BasicConstraints>();
    let found = found.map_err(|_| SvidError::Unreadable)?;
    Ok(found.is_some_and(|(_, constraints)| constraints.ca))
}

fn key_usage(certificate: &Certificate) -> Result<Option<KeyUsage>, SvidError> {
    let found = certificate.tbs_certificate().get_extension::<KeyUsage>();
    Ok(found.map_err(|_| SvidError::Unreadable)?.map(|(_, usage)| usage))
}
