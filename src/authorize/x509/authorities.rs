//! The X.509 authorities of a SPIFFE bundle: its entries of use `x509-svid`, each with the certificate in `x5c` (SPIFFE
//! X509-SVID, section 6). Limits: read whole; one that is no authority's certificate refuses the set.

use std::fmt;

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use rustls_pki_types::{CertificateDer, TrustAnchor};
use serde_json::Value;

use super::certificate::{Validity, signing};
use crate::authorize::ids::{Digest, UnixMillis};
use crate::authorize::jose::sha256;
use crate::authorize::json;
use crate::authorize::limits::MAX_KEYS;

/// Why the authorities of a bundle were refused. `index` counts from 0.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum AuthorityError {
    /// Not a JWK set.
    #[error("the bundle is no JWK set")]
    NotASet,
    /// More than 1,024 entries.
    #[error("the bundle has more than {MAX_KEYS} keys")]
    TooMany,
    /// `x5c` is no list of base64 texts.
    #[error("key {index} has an `x5c` that is not a list of certificates in base64")]
    Encoding {
        /// Its place in `keys`.
        index: usize,
    },
    /// Its first certificate is none, or not that of an authority.
    #[error("key {index} has an `x5c` whose first certificate is not that of an authority")]
    NotAnAuthority {
        /// Its place in `keys`.
        index: usize,
    },
}

/// Who vouches for the X.509-SVIDs of one trust domain.
#[derive(Clone)]
pub struct Authorities {
    all: Vec<Authority>,
    version: Digest,
}

#[derive(Clone)]
struct Authority {
    anchor: TrustAnchor<'static>,
    validity: Validity,
}

impl Authorities {
    /// Reads those of a bundle. An entry without `x5c`, or with an empty one, is ignored, and so is every certificate of an
    /// entry but the first (section 6.2).
    ///
    /// # Errors
    /// The first entry that cannot be used.
    pub fn from_bundle(text: &str) -> Result<Self, AuthorityError> {
        let set = json::parse_object(text.as_bytes()).map_err(|_| AuthorityError::NotASet)?;
        let entries = set.get("keys").and_then(Value::as_array).ok_or(AuthorityError::NotASet)?;
        if entries.len() > MAX_KEYS {
            return Err(AuthorityError::TooMany);
        }
        let (mut all, mut digests) = (Vec::new(), Vec::new());
        for (index, entry) in entries.iter().enumerate() {
            if entry.get("use").and_then(Value::as_str) != Some("x509-svid") {
                continue;
            }
            let first = match entry.get("x5c") {
                None => continue,
                Some(Value::Array(chain)) => match chain.first() {
                    None => continue,
                    Some(first) => first.as_str(),
                },
                Some(_) => None,
            };
            let der = first.and_then(|text| STANDARD.decode(text).ok());
            let der = CertificateDer::from(der.ok_or(AuthorityError::Encoding { index })?);
            let refused = AuthorityError::NotAnAuthority { index };
            let Ok(Some(validity)) = signing(&der) else { return Err(refused) };
            let anchor = webpki::anchor_from_trusted_cert(&der).map_err(|_| refused)?.to_owned();
            digests.push(sha256(&[&der]));
            all.push(Authority { anchor, validity });
        }
        digests.sort_unstable();
        let parts: Vec<&[u8]> = digests.iter().map(|digest| &digest.0[..]).collect();
        Ok(Self { all, version: sha256(&parts) })
    }

    /// Whether nobody vouches for anybody.
    pub fn is_empty(&self) -> bool {
        self.all.is_empty()
    }

    /// How many there are.
    pub fn len(&self) -> usize {
        self.all.len()
    }

    /// A digest of them: the same for the same ones in any order.
    pub fn version(&self) -> Digest {
        self.version
    }

    /// Those that are good at that moment.
    pub(super) fn at(&self, now: UnixMillis) -> Vec<TrustAnchor<'static>> {
        let good = self.all.iter().filter(|one| one.validity.has_begun(now) && !one.validity.is_over(now));
        good.map(|one| one.anchor.clone()).collect()
    }

    /// How long that one of them is good at that moment: the longest of the certificates of its name and key.
    pub(super) fn validity(&self, of: &TrustAnchor<'_>, now: UnixMillis) -> Option<Validity> {
        let same = self.all.iter().filter(|one| {
            one.anchor.subject == of.subject
                && one.anchor.subject_public_key_info == of.subject_public_key_info
                && one.validity.has_begun(now)
        });
        same.map(|one| one.validity).max_by_key(|validity| validity.to)
    }
}

// By hand: a trust anchor is a page of bytes.
impl fmt::Debug for Authorities {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Authorities").field("count", &self.len()).field("version", &self.version).finish()
    }
}
