//! Compact JWS and JWK (RFC 7515, 7517, 7518, 8037), as strict as the contract's section 2. This folder alone names the
//! cryptographic libraries. Limits: it judges form, algorithms, keys and signatures, never claims; no key is ever
//! fetched, and neither `none` nor any MAC algorithm exists here, so no configuration can allow them.

mod jwk;
mod jws;
mod keys;
mod sign;

pub use jwk::{KeyError, PublicKey};
pub use jws::{HeadCache, Jws, JwsError};
pub use keys::{KeyChoice, KeySet, KeySetError, KeyUse};
pub use sign::{SignError, SigningKey};

use base64::Engine as _;
use base64::engine::general_purpose::URL_SAFE_NO_PAD;

use super::ids::Digest;

/// The signature algorithms that exist here (RFC 7518, section 3; RFC 8037).
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub enum Algorithm {
    /// ECDSA on P-256 with SHA-256.
    Es256,
    /// Ed25519, verified strictly.
    EdDsa,
    /// RSASSA-PKCS1-v1_5 with SHA-256.
    Rs256,
    /// RSASSA-PSS with SHA-256 and a salt of 32 bytes.
    Ps256,
}

impl Algorithm {
    /// All of them.
    pub const ALL: [Self; 4] = [Self::Es256, Self::EdDsa, Self::Rs256, Self::Ps256];
    /// What a trust domain allows when its configuration does not say (contract, section 2).
    pub const DEFAULT: [Self; 2] = [Self::Es256, Self::EdDsa];

    /// The name in `alg`.
    pub fn as_str(self) -> &'static str {
        match self {
            Self::Es256 => "ES256",
            Self::EdDsa => "EdDSA",
            Self::Rs256 => "RS256",
            Self::Ps256 => "PS256",
        }
    }

    /// The algorithm of that exact name; `None` for every other one, `none` and the MACs included.
    pub fn parse(text: &str) -> Option<Self> {
        Self::ALL.into_iter().find(|algorithm| algorithm.as_str() == text)
    }
}

/// The five tokens of the contract (section 2). They are not interchangeable.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub enum TokenKind {
    /// WIT: who sends.
    WorkloadIdentity,
    /// WPT: proof that the sender wrote this record.
    WorkloadProof,
    /// Txn-Token: on whose behalf.
    Transaction,
    /// What a gate adds to a record that it forwards.
    Countersignature,
    /// An answer to a challenge.
    StepUpGrant,
}

impl TokenKind {
    /// All of them, in the order of the contract.
    pub const ALL: [Self; 5] = [
        Self::WorkloadIdentity,
        Self::WorkloadProof,
        Self::Transaction,
        Self::Countersignature,
        Self::StepUpGrant,
    ];

    /// The name of the record header that carries it.
    pub fn header_name(self) -> &'static str {
        match self {
            Self::WorkloadIdentity => "workload-identity-token",
            Self::WorkloadProof => "workload-proof-token",
            Self::Transaction => "txn-token",
            Self::Countersignature => "countersignature",
            Self::StepUpGrant => "step-up-grant",
        }
    }

    /// Its `typ`, without the optional prefix `application/`.
    pub fn typ(self) -> &'static str {
        match self {
            Self::WorkloadIdentity => "wit+jwt",
            Self::WorkloadProof => "wpt+jwt",
            Self::Transaction => "txntoken+jwt",
            Self::Countersignature => "countersignature+jwt",
            Self::StepUpGrant => "step-up-grant+jwt",
        }
    }

    /// The kind whose header has this name in any ASCII case.
    pub fn of_header(name: &[u8]) -> Option<Self> {
        Self::ALL.into_iter().find(|kind| kind.header_name().as_bytes().eq_ignore_ascii_case(name))
    }
}

/// SHA-256 over the parts, one after the other.
pub fn sha256(parts: &[&[u8]]) -> Digest {
    let mut context = aws_lc_rs::digest::Context::new(&aws_lc_rs::digest::SHA256);
    for part in parts {
        context.update(part);
    }
    let mut bytes = [0; 32];
    // SHA-256 has 32 bytes; the zip cannot leave one out.
    bytes.iter_mut().zip(context.finish().as_ref()).for_each(|(to, from)| *to = *from);
    Digest(bytes)
}

/// The hash by which tokens are bound to each other (`wth`, `tth`, `oth`): SHA-256 of the token as it is written.
pub fn token_hash(token: &[u8]) -> Digest {
    sha256(&[token])
}

/// Base64url without padding, white space or stray bits (contract, section 2); anything else is `None`.
pub(crate) fn base64url(text: impl AsRef<[u8]>) -> Option<Vec<u8>> {
    URL_SAFE_NO_PAD.decode(text).ok()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn algorithms_have_one_spelling_and_none_and_macs_do_not_exist() {
        for algorithm in Algorithm::ALL {
            assert_eq!(Algorithm::parse(algorithm.as_str()), Some(algorithm));
        }
        for text in ["none", "None", "HS256", "HS512", "es256", "EDDSA", "Ed25519", "ES384", "RS512", ""] {
            assert_eq!(Algorithm::parse(text), None, "{text}");
        }
    }

    #[test]
    fn base64url_has_no_padding_and_no_stray_bits() {
        assert_eq!(base64url("AQ"), Some(vec![1]));
        assert_eq!(base64url(""), Some(vec![]));
        for text in ["AQ==", "AR", "A", "AQ ", "A+", "A/", "AQ\n", "ä"] {
            assert_eq!(base64url(text), None, "{text}");
        }
    }

    #[test]
    fn sha256_is_fips_180s() {
        let hex: String = sha256(&[b"a", b"bc"]).0.iter().map(|b| format!("{b:02x}")).collect();
        assert_eq!(hex, "ba7816bf8f01cfea414140de5dae2223b00361a396177a9cb410ff61f20015ad");
    }

    #[test]
    fn headers_are_found_in_any_case() {
        assert_eq!(TokenKind::of_header(b"Txn-Token"), Some(TokenKind::Transaction));
        assert_eq!(TokenKind::of_header(b"txn-token2"), None);
    }
}
