//! A private key from a JWK, and tokens signed with it. Limits: it signs what it is given and judges no claims; the
//! secret is wiped when the key is dropped and never appears in `Debug`.

use std::fmt;
use std::sync::Arc;

use arc_swap::ArcSwap;
use aws_lc_rs::rand::SystemRandom;
use aws_lc_rs::signature::{
    ECDSA_P256_SHA256_FIXED_SIGNING, EcdsaKeyPair, Ed25519KeyPair, KeyPair as _, RSA_PKCS1_SHA256,
    RSA_PSS_SHA256, RsaKeyPair,
};
use base64::Engine as _;
use base64::engine::general_purpose::URL_SAFE_NO_PAD;
use serde::Serialize;
use serde_json::{Map, Value, json};
use zeroize::Zeroizing;

use super::super::json;
use super::jwk::{PublicKey, text};
use super::{Algorithm, KeyError, TokenKind, base64url};

/// Why a token could not be signed.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum SignError {
    /// The claims cannot be written as JSON.
    #[error("the claims cannot be written as JSON: {0}")]
    Claims(String),
    /// The library refused to sign.
    #[error("the key cannot sign")]
    Key,
}

/// A private key with the algorithm and `kid` that its tokens carry.
pub struct SigningKey {
    algorithm: Algorithm,
    kid: Option<String>,
    inner: Inner,
    /// The public members, without `alg` and `kid`.
    public: Map<String, Value>,
    /// The private members, base64url.
    private: Vec<(&'static str, Zeroizing<String>)>,
    /// The heads that it has written, by `typ`: one for each kind of token that it signs.
    heads: ArcSwap<Vec<(&'static str, Arc<str>)>>,
}

enum Inner {
    P256(EcdsaKeyPair),
    Ed25519(Ed25519KeyPair),
    Rsa(RsaKeyPair),
}

/// The head of a token as it is written.
#[derive(Serialize)]
struct Head<'a> {
    alg: &'static str,
    typ: &'static str,
    #[serde(skip_serializing_if = "Option::is_none")]
    kid: Option<&'a str>,
}

impl SigningKey {
    /// Reads a private JWK: P-256 (`d`, `x`, `y`), Ed25519 (`d`, `x`), or RSA with all of `n`, `e`, `d`, `p`, `q`,
    /// `dp`, `dq`, `qi`. `alg` may be absent for the first two.
    ///
    /// # Errors
    /// The first rule of public keys that it breaks, or parts that do not belong together.
    pub fn from_jwk(text: &str) -> Result<Self, KeyError> {
        let mut jwk = json::parse_object(text.as_bytes())?;
        let private: Vec<_> = ["d", "p", "q", "dp", "dq", "qi"]
            .into_iter()
            .filter_map(|name| match jwk.remove(name) {
                Some(Value::String(secret)) => Some((name, Zeroizing::new(secret))),
                _ => None,
            })
            .collect();
        let public = PublicKey::from_jwk(&jwk)?;
        let algorithm = match (jwk.get("alg"), public.algorithms()) {
            (None, [only]) => *only,
            (None, _) => return Err(KeyError::Member("alg")),
            (Some(alg), fitting) => alg
                .as_str()
                .and_then(Algorithm::parse)
                .filter(|algorithm| fitting.contains(algorithm))
                .ok_or(KeyError::Algorithm)?,
        };
        let kid = match jwk.get("kid") {
            None => None,
            Some(Value::String(kid)) => Some(kid.clone()),
            Some(_) => return Err(KeyError::Member("kid")),
        };
        let secret = |name: &'static str| -> Result<Zeroizing<Vec<u8>>, KeyError> {
            let (_, text) = private.iter().find(|(n, _)| *n == name).ok_or(KeyError::Member(name))?;
            base64url(text.as_bytes()).map(Zeroizing::new).ok_or(KeyError::Encoding(name))
        };
        let member = |name: &'static str| -> Result<Vec<u8>, KeyError> {
            base64url(self::text(&jwk, name)?).ok_or(KeyError::Encoding(name))
        };
        let inner = match algorithm {
            Algorithm::Es256 => {
                let point = [&[4][..], &member("x")?, &member("y")?].concat();
                let pair = EcdsaKeyPair::from_private_key_and_public_key(
                    &ECDSA_P256_SHA256_FIXED_SIGNING,
                    &secret("d")?,
                    &point,
                );
                Inner::P256(pair.map_err(|_| KeyError::Inconsistent)?)
            }
            Algorithm::EdDsa => {
                let seed: Zeroizing<[u8; 32]> =
                    Zeroizing::new(secret("d")?.as_slice().try_into().map_err(|_| KeyError::Encoding("d"))?);
                let pair = Ed25519KeyPair::from_seed_and_public_key(seed.as_slice(), &member("x")?);
                Inner::Ed25519(pair.map_err(|_| KeyError::Inconsistent)?)
            }
            Algorithm::Rs256 | Algorithm::Ps256 => {
                let components = aws_lc_rs::rsa::KeyPairComponents {
                    public_key: aws_lc_rs::rsa::PublicKeyComponents {
                        n: Zeroizing::new(member("n")?),
                        e: Zeroizing::new(member("e")?),
                    },
                    d: secret("d")?,
                    p: secret("p")?,
                    q: secret("q")?,
                    dP: secret("dp")?,
                    dQ: secret("dq")?,
                    qInv: secret("qi")?,
                };
                Inner::Rsa(RsaKeyPair::from_components(&components).map_err(|_| KeyError::Inconsistent)?)
            }
        };
        let names = ["kty", "crv", "x", "y", "n", "e"];
        let public = names
            .into_iter()
            .filter_map(|name| jwk.get(name).map(|value| (name.to_owned(), value.clone())))
            .collect();
        Ok(Self { algorithm, kid, inner, public, private, heads: ArcSwap::default() })
    }

    /// Makes the key of 32 random bytes: the whole private key of `EdDSA`, the scalar of `ES256`. RSA keys are not
    /// made from seeds.
    ///
    /// # Errors
    /// [`KeyError::Seed`] for another length, for RSA, and for the rare 32 bytes that are no scalar of P-256.
    pub fn from_seed(algorithm: Algorithm, seed: &[u8], kid: Option<&str>) -> Result<Self, KeyError> {
        let seed: &[u8; 32] = seed.try_into().map_err(|_| KeyError::Seed)?;
        let (inner, public) = match algorithm {
            Algorithm::Es256 => {
                // RFC 5915: version 1, the scalar, the curve; the library computes the point.
                let der = Zeroizing::new(
                    [
                        &[0x30, 0x31, 0x02, 0x01, 0x01, 0x04, 0x20][..],
                        seed,
                        &[0xa0, 0x0a, 0x06, 0x08, 0x2a, 0x86, 0x48, 0xce, 0x3d, 0x03, 0x01, 0x07],
                    ]
                    .concat(),
                );
                let pair = EcdsaKeyPair::from_private_key_der(&ECDSA_P256_SHA256_FIXED_SIGNING, &der)
                    .map_err(|_| KeyError::Seed)?;
                let point = pair.public_key().as_ref();
                let (x, y) =
                    (point.get(1..33).ok_or(KeyError::Seed)?, point.get(33..65).ok_or(KeyError::Seed)?);
                let public = json!({
                    "kty": "EC", "crv": "P-256", "x": URL_SAFE_NO_PAD.encode(x), "y": URL_SAFE_NO_PAD.encode(y)
                });
                (Inner::P256(pair), public)
            }
            Algorithm::EdDsa => {
                let pair = Ed25519KeyPair::from_seed_unchecked(seed).map_err(|_| KeyError::Seed)?;
                let x = URL_SAFE_NO_PAD.encode(pair.public_key());
                (Inner::Ed25519(pair), json!({"kty": "OKP", "crv": "Ed25519", "x": x}))
            }
            Algorithm::Rs256 | Algorithm::Ps256 => return Err(KeyError::Seed),
        };
        let public = match public {
            Value::Object(members) => members,
            _ => Map::new(),
        };
        let private = vec![("d", Zeroizing::new(URL_SAFE_NO_PAD.encode(seed)))];
        let kid = kid.map(str::to_owned);
        Ok(Self { algorithm, kid, inner, public, private, heads: ArcSwap::default() })
    }

    /// The algorithm of its tokens.
    pub fn algorithm(&self) -> Algorithm {
        self.algorithm
    }

    /// The `kid` of its tokens.
    pub fn kid(&self) -> Option<&str> {
        self.kid.as_deref()
    }

    /// The public JWK, with `alg` and, if there is one, `kid`.
    pub fn public_jwk(&self) -> Value {
        let mut jwk = self.public.clone();
        jwk.insert("alg".to_owned(), self.algorithm.as_str().into());
        if let Some(kid) = &self.kid {
            jwk.insert("kid".to_owned(), kid.as_str().into());
        }
        Value::Object(jwk)
    }

    /// The whole private JWK as text, for a key file.
    pub fn private_jwk(&self) -> Zeroizing<String> {
        // Put together by hand: a tree of values would leave copies of the secret behind. Base64url needs no escapes.
        let mut text = Zeroizing::new(self.public_jwk().to_string());
        text.pop();
        for (name, secret) in &self.private {
            for part in [",\"", name, "\":\"", secret.as_str(), "\""] {
                text.push_str(part);
            }
        }
        text.push('}');
        text
    }

    /// Signs claims as a compact JWS of that kind.
    ///
    /// # Errors
    /// Claims that are no JSON, or a key that the library refuses.
    pub fn sign(&self, kind: TokenKind, claims: &impl Serialize) -> Result<String, SignError> {
        self.sign_typ(kind.typ(), claims)
    }

    /// Signs claims as a compact JWS that is none of the five, with that `typ`.
    ///
    /// # Errors
    /// As [`Self::sign`].
    pub fn sign_typ(&self, typ: &'static str, claims: &impl Serialize) -> Result<String, SignError> {
        let mut claims_json = Vec::with_capacity(1024);
        serde_json::to_writer(&mut claims_json, claims).map_err(|e| SignError::Claims(e.to_string()))?;
        let mut token = String::with_capacity(2048);
        token.push_str(&self.head(typ)?);
        token.push('.');
        URL_SAFE_NO_PAD.encode_string(claims_json, &mut token);
        let signature = self.signature(token.as_bytes())?;
        token.push('.');
        URL_SAFE_NO_PAD.encode_string(signature, &mut token);
        Ok(token)
    }

    /// The head of its tokens with that `typ`, as it is written: made once for each.
    fn head(&self, typ: &'static str) -> Result<Arc<str>, SignError> {
        let made = self.heads.load();
        if let Some((_, head)) = made.iter().find(|(of, _)| *of == typ) {
            return Ok(Arc::clone(head));
        }
        let head = Head { alg: self.algorithm.as_str(), typ, kid: self.kid() };
        let head = serde_json::to_vec(&head).map_err(|e| SignError::Claims(e.to_string()))?;
        let head: Arc<str> = URL_SAFE_NO_PAD.encode(head).into();
        // Of two that make one at once, one is made again later.
        let all = made.iter().cloned().chain([(typ, Arc::clone(&head))]).collect();
        self.heads.store(Arc::new(all));
        Ok(head)
    }

    /// Signs a head and a payload whatever they are, for tests of what must be refused.
    #[cfg(test)]
    pub(crate) fn sign_raw(&self, head: &[u8], payload: &[u8]) -> String {
        let input = format!("{}.{}", URL_SAFE_NO_PAD.encode(head), URL_SAFE_NO_PAD.encode(payload));
        let signature = self.signature(input.as_bytes()).unwrap();
        format!("{input}.{}", URL_SAFE_NO_PAD.encode(signature))
    }

    fn signature(&self, message: &[u8]) -> Result<Vec<u8>, SignError> {
        // The library asks for a random source and uses its own.
        let random = SystemRandom::new();
        match &self.inner {
            Inner::Ed25519(pair) => Ok(pair.sign(message).as_ref().to_vec()),
            Inner::P256(pair) => {
                pair.sign(&random, message).map(|s| s.as_ref().to_vec()).map_err(|_| SignError::Key)
            }
            Inner::Rsa(pair) => {
                let encoding: &'static dyn aws_lc_rs::signature::RsaEncoding =
                    if self.algorithm == Algorithm::Ps256 { &RSA_PSS_SHA256 } else { &RSA_PKCS1_SHA256 };
                let mut signature = vec![0; pair.public_modulus_len()];
                pair.sign(encoding, &random, message, &mut signature).map_err(|_| SignError::Key)?;
                Ok(signature)
            }
        }
    }
}

impl fmt::Debug for SigningKey {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("SigningKey")
            .field("algorithm", &self.algorithm)
            .field("kid", &self.kid)
            .finish_non_exhaustive()
    }
}

#[cfg(test)]
mod tests {
    use super::super::{Jws, KeySet, KeyUse};
    use super::*;

    fn rsa_jwk(alg: &str) -> String {
        include_str!("testdata/rsa.jwk").replace("ALG", alg)
    }

    fn keys() -> Vec<SigningKey> {
        vec![
            SigningKey::from_seed(Algorithm::EdDsa, &[7; 32], Some("e")).unwrap(),
            SigningKey::from_seed(Algorithm::Es256, &[7; 32], None).unwrap(),
            SigningKey::from_jwk(&rsa_jwk("RS256")).unwrap(),
            SigningKey::from_jwk(&rsa_jwk("PS256")).unwrap(),
        ]
    }

    #[test]
    fn what_is_signed_verifies_with_the_public_key_and_nothing_else_does() {
        for key in keys() {
            let again = SigningKey::from_jwk(&key.private_jwk()).unwrap();
            assert_eq!(again.public_jwk(), key.public_jwk());
            let token = again.sign(TokenKind::WorkloadProof, &json!({"a": 1})).unwrap();
            let jws = Jws::parse(token.as_bytes(), TokenKind::WorkloadProof).unwrap();
            assert_eq!((jws.alg(), jws.kid()), (key.algorithm().as_str(), key.kid()));
            assert_eq!(jws.payload(), br#"{"a":1}"#);
            let set =
                KeySet::from_jwks(&json!({"keys": [key.public_jwk()]}).to_string(), KeyUse::Any).unwrap();
            let public = set.select(jws.kid(), key.algorithm()).unwrap();
            assert!(public.verify(key.algorithm(), jws.signing_input(), jws.signature()));
            for algorithm in Algorithm::ALL {
                let holds = public.verify(algorithm, jws.signing_input(), jws.signature());
                assert_eq!(holds, algorithm == key.algorithm());
            }
            let mut flipped = jws.signature().to_vec();
            flipped[0] ^= 1;
            assert!(!public.verify(key.algorithm(), jws.signing_input(), &flipped));
        }
    }

    #[test]
    fn parts_that_do_not_belong_together_are_refused() {
        for algorithm in Algorithm::DEFAULT {
            let one = SigningKey::from_seed(algorithm, &[1; 32], None).unwrap().private_jwk();
            let two = SigningKey::from_seed(algorithm, &[2; 32], None).unwrap();
            let two: Value = serde_json::from_str(&two.private_jwk()).unwrap();
            let mut mixed: Value = serde_json::from_str(&one).unwrap();
            mixed["d"] = two["d"].clone();
            assert_eq!(SigningKey::from_jwk(&mixed.to_string()).unwrap_err(), KeyError::Inconsistent);
        }
    }

    #[test]
    fn a_private_key_needs_its_secret_and_a_fitting_algorithm() {
        let key = SigningKey::from_seed(Algorithm::EdDsa, &[1; 32], None).unwrap();
        assert_eq!(SigningKey::from_jwk(&key.public_jwk().to_string()).unwrap_err(), KeyError::Member("d"));
        let wrong = key.private_jwk().replace("\"EdDSA\"", "\"ES256\"");
        assert_eq!(SigningKey::from_jwk(&wrong).unwrap_err(), KeyError::Algorithm);
        let without = rsa_jwk("x").replace("\"alg\":\"x\",", "");
        assert_eq!(SigningKey::from_jwk(&without).unwrap_err(), KeyError::Member("alg"));
        assert_eq!(SigningKey::from_seed(Algorithm::Es256, &[0; 32], None).unwrap_err(), KeyError::Seed);
        assert_eq!(SigningKey::from_seed(Algorithm::Es256, &[0xff; 32], None).unwrap_err(), KeyError::Seed);
        assert_eq!(SigningKey::from_seed(Algorithm::Rs256, &[1; 32], None).unwrap_err(), KeyError::Seed);
    }

    #[test]
    fn debug_does_not_show_the_secret() {
        for key in keys() {
            let shown = format!("{key:?}");
            for (_, secret) in &key.private {
                assert!(!shown.contains(secret.as_str()));
            }
        }
    }
}
