//! One public key from a JWK (RFC 7517; RFC 7518, section 6; RFC 8037), judged once and then only used. Limits: P-256,
//! Ed25519 and RSA; what is weak is no key at all.

use std::fmt;

use aws_lc_rs::signature::{
    ECDSA_P256_SHA256_FIXED, ParsedPublicKey, RSA_PKCS1_2048_8192_SHA256, RSA_PSS_2048_8192_SHA256,
    RsaPublicKeyComponents,
};
use ed25519_dalek::{Signature, VerifyingKey};
use serde_json::{Map, Value};

use super::super::limits::{MAX_RSA_BITS, MIN_RSA_BITS};
use super::{Algorithm, base64url};

/// The private members of any JWK (RFC 7518, section 6). Where a public key is meant, one of them is a leaked secret.
const PRIVATE: [&str; 8] = ["d", "p", "q", "dp", "dq", "qi", "oth", "k"];

/// Why a JWK is no key that can be used here. Never holds key material.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum KeyError {
    /// The text is not a strict JSON object.
    #[error("{0}")]
    Json(#[from] crate::authorize::json::JsonError),
    /// A private member where a public key is meant.
    #[error("holds the private member `{0}`")]
    Private(&'static str),
    /// `kty` or `crv` that does not exist here.
    #[error("has a `kty` or `crv` other than EC with P-256, OKP with Ed25519, and RSA")]
    Unsupported,
    /// A member is absent or no string.
    #[error("needs the member `{0}`, a string")]
    Member(&'static str),
    /// A member is not base64url of the right length.
    #[error("has a member `{0}` that is not base64url of the right length")]
    Encoding(&'static str),
    /// The point is not on its curve, or not in its one encoding.
    #[error("has a point that is not on its curve")]
    OffCurve,
    /// An Ed25519 key of small order: signatures under it say nothing.
    #[error("is of small order")]
    SmallOrder,
    /// RSA outside 2,048 to 8,192 bits, or with a bad exponent.
    #[error("is an RSA key outside {MIN_RSA_BITS} to {MAX_RSA_BITS} bits, or with a bad exponent")]
    Rsa,
    /// `alg` does not exist here or does not fit `kty` and `crv`.
    #[error("has an `alg` that does not exist here or does not fit its `kty`")]
    Algorithm,
    /// The private part is not the public part's.
    #[error("has private and public parts that do not belong together")]
    Inconsistent,
    /// No key of that algorithm can be made from that seed.
    #[error("cannot be made from this seed")]
    Seed,
}

/// A public key that passed every rule of the contract for keys.
#[derive(Clone)]
pub struct PublicKey {
    inner: Inner,
    /// The key's own bytes, with its type in front: what tells two keys apart.
    material: Vec<u8>,
}

#[derive(Clone)]
enum Inner {
    P256(ParsedPublicKey),
    Ed25519(Box<VerifyingKey>),
    Rsa { pkcs1: ParsedPublicKey, pss: ParsedPublicKey },
}

impl PublicKey {
    /// Judges the members of a public JWK. `alg`, `kid` and `use` are the caller's.
    ///
    /// # Errors
    /// The first rule that it breaks.
    pub fn from_jwk(jwk: &Map<String, Value>) -> Result<Self, KeyError> {
        if let Some(name) = PRIVATE.into_iter().find(|name| jwk.contains_key(*name)) {
            return Err(KeyError::Private(name));
        }
        Self::from_members(jwk)
    }

    /// The same for the public members of a private JWK.
    pub(super) fn from_members(jwk: &Map<String, Value>) -> Result<Self, KeyError> {
        match text(jwk, "kty")? {
            "EC" => match text(jwk, "crv")? {
                "P-256" => Self::p256(&bytes(jwk, "x")?, &bytes(jwk, "y")?),
                _ => Err(KeyError::Unsupported),
            },
            "OKP" => match text(jwk, "crv")? {
                "Ed25519" => Self::ed25519(&bytes(jwk, "x")?),
                _ => Err(KeyError::Unsupported),
            },
            "RSA" => Self::rsa(&bytes(jwk, "n")?, &bytes(jwk, "e")?),
            _ => Err(KeyError::Unsupported),
        }
    }

    fn p256(x: &[u8], y: &[u8]) -> Result<Self, KeyError> {
        for (name, coordinate) in [("x", x), ("y", y)] {
            if coordinate.len() != 32 {
                return Err(KeyError::Encoding(name));
            }
        }
        let point = [&[4], x, y].concat();
        let key = ParsedPublicKey::new(&ECDSA_P256_SHA256_FIXED, &point).map_err(|_| KeyError::OffCurve)?;
        Ok(Self { inner: Inner::P256(key), material: [&b"EC"[..], &point].concat() })
    }

    fn ed25519(x: &[u8]) -> Result<Self, KeyError> {
        let x: &[u8; 32] = x.try_into().map_err(|_| KeyError::Encoding("x"))?;
        let key = VerifyingKey::from_bytes(x).map_err(|_| KeyError::OffCurve)?;
        if key.is_weak() {
            return Err(KeyError::SmallOrder);
        }
        // Decompression takes y modulo the field's prime: a second spelling of one key would have a second hash.
        if key.to_edwards().compress().as_bytes() != x {
            return Err(KeyError::OffCurve);
        }
        Ok(Self { inner: Inner::Ed25519(Box::new(key)), material: [&b"OKP"[..], x].concat() })
    }

    fn rsa(n: &[u8], e: &[u8]) -> Result<Self, KeyError> {
        let bits = n.first().map_or(0, |first| n.len() * 8 - first.leading_zeros() as usize);
        let odd = |number: &[u8]| number.last().is_some_and(|last| last & 1 == 1);
        let minimal = |number: &[u8]| number.first().is_some_and(|first| *first != 0);
        // The library takes exponents of at most 33 bits, and would say so only when a signature is verified.
        let small = e.len() < 5 || (e.len() == 5 && e.first() == Some(&1));
        let sound = (MIN_RSA_BITS..=MAX_RSA_BITS).contains(&bits)
            && [n, e].into_iter().all(|number| odd(number) && minimal(number))
            && small
            && e != [1];
        if !sound {
            return Err(KeyError::Rsa);
        }
        let components = RsaPublicKeyComponents { n, e };
        let pkcs1 =
            components.to_parsed_public_key(&RSA_PKCS1_2048_8192_SHA256).map_err(|_| KeyError::Rsa)?;
        let pss = components.to_parsed_public_key(&RSA_PSS_2048_8192_SHA256).map_err(|_| KeyError::Rsa)?;
        let length = (n.len() as u32).to_be_bytes();
        Ok(Self { inner: Inner::Rsa { pkcs1, pss }, material: [&b"RSA"[..], &length, n, e].concat() })
    }

    /// The algorithms that `kty` and `crv` fit.
    pub fn algorithms(&self) -> &'static [Algorithm] {
        match self.inner {
            Inner::P256(_) => &[Algorithm::Es256],
            Inner::Ed25519(_) => &[Algorithm::EdDsa],
            Inner::Rsa { .. } => &[Algorithm::Rs256, Algorithm::Ps256],
        }
    }

    /// Whether `signature` is this key's over `message` by that algorithm. An algorithm that does not fit is `false`.
    pub fn verify(&self, algorithm: Algorithm, message: &[u8], signature: &[u8]) -> bool {
        match (&self.inner, algorithm) {
            (Inner::P256(key), Algorithm::Es256) => key.verify_sig(message, signature).is_ok(),
            (Inner::Ed25519(key), Algorithm::EdDsa) => {
                Signature::from_slice(signature).is_ok_and(|s| key.verify_strict(message, &s).is_ok())
            }
            (Inner::Rsa { pkcs1, .. }, Algorithm::Rs256) => pkcs1.verify_sig(message, signature).is_ok(),
            (Inner::Rsa { pss, .. }, Algorithm::Ps256) => pss.verify_sig(message, signature).is_ok(),
            _ => false,
        }
    }

    /// The bytes that tell two keys apart.
    pub(super) fn material(&self) -> &[u8] {
        &self.material
    }
}

impl PartialEq for PublicKey {
    /// The same key, whatever its `kid`, `alg` and `use`.
    fn eq(&self, other: &Self) -> bool {
        self.material == other.material
    }
}

impl Eq for PublicKey {}

impl fmt::Debug for PublicKey {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("PublicKey").field("algorithms", &self.algorithms()).finish_non_exhaustive()
    }
}

/// A member that must be a string.
pub(super) fn text<'j>(jwk: &'j Map<String, Value>, name: &'static str) -> Result<&'j str, KeyError> {
    jwk.get(name).and_then(Value::as_str).ok_or(KeyError::Member(name))
}

fn bytes(jwk: &Map<String, Value>, name: &'static str) -> Result<Vec<u8>, KeyError> {
    base64url(text(jwk, name)?).ok_or(KeyError::Encoding(name))
}

#[cfg(test)]
mod tests {
    use super::*;
    use base64::Engine as _;
    use base64::engine::general_purpose::URL_SAFE_NO_PAD;
    use serde_json::json;

    fn key(jwk: Value) -> Result<PublicKey, KeyError> {
        PublicKey::from_jwk(jwk.as_object().unwrap())
    }

    fn b64(bytes: &[u8]) -> String {
        URL_SAFE_NO_PAD.encode(bytes)
    }

    // RFC 8037, appendix A.2.
    const X: &str = "11qYAYKxCrfVS_7TyWQHOg7hcvPapiMlrwIaaPcHURo";

    #[test]
    fn ed25519_keys_are_canonical_and_not_of_small_order() {
        assert!(key(json!({"kty": "OKP", "crv": "Ed25519", "x": X})).is_ok());
        let mut one = [0; 32];
        one[0] = 1;
        let mut minus_one = [0xff; 32];
        minus_one[0] = 0xec;
        minus_one[31] = 0x7f;
        for weak in [[0; 32], one, minus_one] {
            let got = key(json!({"kty": "OKP", "crv": "Ed25519", "x": b64(&weak)}));
            assert!(matches!(got, Err(KeyError::SmallOrder)), "{weak:?}");
        }
        // 2^255 - 19 + y for a small y that is on the curve: a second spelling of it.
        let mut refused = 0;
        for y in 2..19_u8 {
            let mut canonical = [0; 32];
            canonical[0] = y;
            let mut spelled_again = [0xff; 32];
            spelled_again[0] = 0xed + y;
            spelled_again[31] = 0x7f;
            if VerifyingKey::from_bytes(&canonical).is_ok_and(|k| !k.is_weak()) {
                let got = key(json!({"kty": "OKP", "crv": "Ed25519", "x": b64(&spelled_again)}));
                assert!(matches!(got, Err(KeyError::OffCurve)), "{y}");
                refused += 1;
            }
        }
        assert!(refused > 0);
    }

    #[test]
    fn p256_points_are_on_the_curve_and_of_full_length() {
        let x = "E7r4Ul0_RoQj3cyRQPh1EysfWpJv4m3C5nEoJQQ-gCE";
        let y = "Pk3YhdwYLmGOe_Od6an49jKa6aHHWSqVPt2S97USP88";
        assert!(key(json!({"kty": "EC", "crv": "P-256", "x": x, "y": y})).is_ok());
        let bad = |x: &str, y: &str| key(json!({"kty": "EC", "crv": "P-256", "x": x, "y": y})).unwrap_err();
        assert_eq!(bad(y, x), KeyError::OffCurve);
        assert_eq!(bad(&b64(&[0; 32]), &b64(&[0; 32])), KeyError::OffCurve);
        assert_eq!(bad(&b64(&[0xff; 32]), y), KeyError::OffCurve);
        assert_eq!(bad(&b64(&[0; 33]), y), KeyError::Encoding("x"));
        assert_eq!(bad(x, &b64(&[0; 31])), KeyError::Encoding("y"));
        assert_eq!(bad(x, ""), KeyError::Encoding("y"));
    }

    #[test]
    fn rsa_is_between_2048_and_8192_bits_with_a_sound_exponent() {
        let n = |bits: usize| {
            let mut n = vec![0x55; bits.div_ceil(8)];
            n[0] = if bits.is_multiple_of(8) { 0x80 } else { 1 << (bits % 8 - 1) };
            b64(&n)
        };
        let rsa = |n: String, e: &[u8]| key(json!({"kty": "RSA", "n": n, "e": b64(e)}));
        for bits in [2048, 3072, 8192] {
            assert!(rsa(n(bits), &[1, 0, 1]).is_ok(), "{bits}");
        }
        for bits in [1024, 2047, 8193] {
            assert!(matches!(rsa(n(bits), &[1, 0, 1]), Err(KeyError::Rsa)), "{bits}");
        }
        assert!(rsa(n(2048), &[3]).is_ok());
        for e in [&[][..], &[1], &[2], &[0, 3], &[1, 0, 0], &[2, 0, 0, 0, 1], &[1, 0, 0, 0, 0, 1]] {
            assert!(matches!(rsa(n(2048), e), Err(KeyError::Rsa)), "{e:?}");
        }
        let leading_zero = [&[0][..], &[0x81; 256]].concat();
        assert!(matches!(rsa(b64(&leading_zero), &[1, 0, 1]), Err(KeyError::Rsa)));
    }

    #[test]
    fn a_private_member_is_refused_whatever_the_type() {
        for name in PRIVATE {
            let got = key(json!({"kty": "OKP", "crv": "Ed25519", "x": X, name: null}));
            assert!(matches!(got, Err(KeyError::Private(n)) if n == name), "{name}");
        }
    }

    #[test]
    fn other_types_and_curves_do_not_exist() {
        for jwk in [
            json!({"kty": "EC", "crv": "P-384", "x": X, "y": X}),
            json!({"kty": "OKP", "crv": "X25519", "x": X}),
            json!({"kty": "ec", "crv": "P-256", "x": X, "y": X}),
            json!({"kty": "AKP"}),
        ] {
            assert!(matches!(key(jwk.clone()), Err(KeyError::Unsupported)), "{jwk}");
        }
        assert!(matches!(key(json!({"crv": "P-256"})), Err(KeyError::Member("kty"))));
    }

    #[test]
    fn a_signature_holds_for_its_message_and_algorithm_alone() {
        // RFC 8037, appendix A.4.
        let key = key(json!({"kty": "OKP", "crv": "Ed25519", "x": X})).unwrap();
        let message = b"eyJhbGciOiJFZERTQSJ9.RXhhbXBsZSBvZiBFZDI1NTE5IHNpZ25pbmc";
        let signature = base64url(
            "hgyY0il_MGCjP0JzlnLWG1PPOt7-09PGcvMg3AIbQR6dWbhijcNR4ki4iylGjg5BhVsPt9g7sVvpAr_MuM0KAg",
        )
        .unwrap();
        assert!(key.verify(Algorithm::EdDsa, message, &signature));
        assert!(!key.verify(Algorithm::Es256, message, &signature));
        assert!(!key.verify(Algorithm::EdDsa, b"another", &signature));
        assert!(!key.verify(Algorithm::EdDsa, message, &signature[..63]));
        assert!(!key.verify(Algorithm::EdDsa, message, b""));
        // S + L: the same equation, another signature.
        let mut malleated = signature.clone();
        let order: [u8; 32] = [
            0xed, 0xd3, 0xf5, 0x5c, 0x1a, 0x63, 0x12, 0x58, 0xd6, 0x9c, 0xf7, 0xa2, 0xde, 0xf9, 0xde, 0x14,
            0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0x10,
        ];
        let mut carry = 0_u16;
        for (byte, add) in malleated[32..].iter_mut().zip(order) {
            let sum = u16::from(*byte) + u16::from(add) + carry;
            *byte = sum as u8;
            carry = sum >> 8;
        }
        assert!(!key.verify(Algorithm::EdDsa, message, &malleated));
    }
}
