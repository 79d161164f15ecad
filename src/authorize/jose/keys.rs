//! A set of public keys for one use (RFC 7517, section 5), and which of them a token may be verified with. Limits: a set
//! is read whole, weak keys refuse it, and it never changes afterwards.

use serde_json::{Map, Value};

use super::super::ids::Digest;
use super::super::json::{self, JsonError};
use super::super::limits::MAX_KEYS;
use super::{Algorithm, KeyError, PublicKey, sha256};

/// What the keys of a set are for (contract, section 2: *usable* keys fit the kind of token).
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum KeyUse {
    /// Keys that sign WITs: `use` is `wit-svid` or absent (contract, section 2.1).
    WitIssuer,
    /// Keys of a set that has one purpose by configuration: any `use` but `enc` (RFC 7517, section 4.2).
    Any,
}

/// Why a key set was refused. `index` counts from 0.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum KeySetError {
    /// Not a strict JSON object.
    #[error("the key set {0}")]
    Json(#[from] JsonError),
    /// No list `keys`.
    #[error("the key set needs the member `keys`, a list")]
    NoKeys,
    /// More than 1,024 keys.
    #[error("the key set has more than {MAX_KEYS} keys")]
    TooMany,
    /// An entry of `keys` is no object.
    #[error("key {index} is not an object")]
    NotAnObject {
        /// Its place in `keys`.
        index: usize,
    },
    /// `kid`, `use` or `alg` is no string.
    #[error("key {index} has a `{member}` that is not a string")]
    Mistyped {
        /// Its place in `keys`.
        index: usize,
        /// The member.
        member: &'static str,
    },
    /// One `kid` twice: which key is meant would depend on the reader.
    #[error("key {index} has the `kid` of an earlier key: `{kid}`")]
    DuplicateKid {
        /// Its place in `keys`.
        index: usize,
        /// The `kid`.
        kid: String,
    },
    /// A key that may never be used, or that leaks a secret.
    #[error("key {index} {problem}")]
    Key {
        /// Its place in `keys`.
        index: usize,
        /// What is wrong with it.
        problem: KeyError,
    },
}

/// Why no key of a set fits a token.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum KeyChoice {
    /// No usable key has that `kid`; or the token has none, and not exactly one key is usable: `issuer_unknown`.
    Unknown,
    /// The key is there, and the token's `alg` is not its: `algorithm_not_allowed`.
    WrongAlgorithm,
}

/// Public keys of one use.
#[derive(Debug, Clone)]
pub struct KeySet {
    keys: Vec<Key>,
    version: Digest,
}

#[derive(Debug, Clone)]
struct Key {
    kid: Option<String>,
    /// What it may verify: empty for a key of a type or `alg` that does not exist here.
    algorithms: Vec<Algorithm>,
    public: Option<PublicKey>,
}

impl KeySet {
    /// Reads a JWK set; a SPIFFE bundle is one (its further members are ignored). Keys whose `use` is another are left
    /// out; a key of a type that does not exist here stays, so that its `kid` is known, but verifies nothing.
    ///
    /// # Errors
    /// The first rule that it breaks: one weak, doubled or private key refuses the whole set.
    pub fn from_jwks(text: &str, key_use: KeyUse) -> Result<Self, KeySetError> {
        let set = json::parse_object(text.as_bytes())?;
        let entries = set.get("keys").and_then(Value::as_array).ok_or(KeySetError::NoKeys)?;
        if entries.len() > MAX_KEYS {
            return Err(KeySetError::TooMany);
        }
        let mut kids = std::collections::HashSet::new();
        let mut keys = Vec::new();
        for (index, entry) in entries.iter().enumerate() {
            let jwk = entry.as_object().ok_or(KeySetError::NotAnObject { index })?;
            let kid = string(jwk, "kid", index)?;
            if let Some(kid) = kid
                && !kids.insert(kid)
            {
                return Err(KeySetError::DuplicateKid { index, kid: kid.to_owned() });
            }
            let usable = match (key_use, string(jwk, "use", index)?) {
                (_, None) | (KeyUse::WitIssuer, Some("wit-svid")) => true,
                (KeyUse::WitIssuer, Some(_)) => false,
                (KeyUse::Any, Some(named)) => named != "enc",
            };
            if usable {
                keys.push(
                    Key::read(jwk, kid, string(jwk, "alg", index)?)
                        .map_err(|problem| KeySetError::Key { index, problem })?,
                );
            }
        }
        let version = version(&keys);
        Ok(Self { keys, version })
    }

    /// A set without keys: every token is of an unknown issuer.
    pub fn empty() -> Self {
        Self { keys: Vec::new(), version: version(&[]) }
    }

    /// A digest of what the set can verify: the same for the same keys in any order, another for any other keys.
    pub fn version(&self) -> Digest {
        self.version
    }

    /// The `kid`s of the usable keys, in the order of the set.
    pub fn kids(&self) -> impl Iterator<Item = &str> {
        self.keys.iter().filter_map(|key| key.kid.as_deref())
    }

    /// How many keys are usable.
    pub fn len(&self) -> usize {
        self.keys.len()
    }

    /// Whether no key is usable.
    pub fn is_empty(&self) -> bool {
        self.keys.is_empty()
    }

    /// The `kid` of the key that verifies tokens without one: that of the only usable key.
    pub fn only_kid(&self) -> Option<&str> {
        match self.keys.as_slice() {
            [only] => only.kid.as_deref(),
            _ => None,
        }
    }

    /// The key for a token with that `kid` and algorithm (contract, section 2: with a `kid`, that key; without, only if
    /// exactly one is usable).
    ///
    /// # Errors
    /// Whether the key or its algorithm is what does not fit.
    pub fn select(&self, kid: Option<&str>, algorithm: Algorithm) -> Result<&PublicKey, KeyChoice> {
        let key = match (kid, self.keys.as_slice()) {
            (Some(kid), keys) => keys.iter().find(|key| key.kid.as_deref() == Some(kid)),
            (None, [only]) => Some(only),
            (None, _) => None,
        };
        let key = key.ok_or(KeyChoice::Unknown)?;
        match &key.public {
            Some(public) if key.algorithms.contains(&algorithm) => Ok(public),
            _ => Err(KeyChoice::WrongAlgorithm),
        }
    }
}

impl Key {
    fn read(jwk: &Map<String, Value>, kid: Option<&str>, alg: Option<&str>) -> Result<Self, KeyError> {
        let kid = kid.map(str::to_owned);
        let public = match PublicKey::from_jwk(jwk) {
            Ok(public) => public,
            Err(KeyError::Unsupported) => return Ok(Self { kid, algorithms: Vec::new(), public: None }),
            Err(problem) => return Err(problem),
        };
        let algorithms = match alg {
            None => public.algorithms().to_vec(),
            Some(alg) => match Algorithm::parse(alg) {
                Some(algorithm) if public.algorithms().contains(&algorithm) => vec![algorithm],
                Some(_) => return Err(KeyError::Algorithm),
                // RS512 and its like: a key for what does not exist here.
                None => Vec::new(),
            },
        };
        Ok(Self { kid, algorithms, public: Some(public) })
    }
}

fn string<'j>(
    jwk: &'j Map<String, Value>,
    member: &'static str,
    index: usize,
) -> Result<Option<&'j str>, KeySetError> {
    match jwk.get(member) {
        None => Ok(None),
        Some(Value::String(text)) => Ok(Some(text)),
        Some(_) => Err(KeySetError::Mistyped { index, member }),
    }
}

/// Each key's digest over its kid, algorithms and material, each with its length; then one over those, sorted.
fn version(keys: &[Key]) -> Digest {
    let mut digests: Vec<Digest> = keys
        .iter()
        .map(|key| {
            let kid = key.kid.as_deref().map_or(Vec::new(), |kid| [b"k", kid.as_bytes()].concat());
            let algorithms = key.algorithms.iter().map(|a| a.as_str()).collect::<Vec<_>>().join(",");
            let material = key.public.as_ref().map_or(&[][..], PublicKey::material);
            let length = |part: &[u8]| (part.len() as u64).to_be_bytes();
            sha256(&[
                &length(&kid),
                &kid,
                &length(algorithms.as_bytes()),
                algorithms.as_bytes(),
                &length(material),
                material,
            ])
        })
        .collect();
    digests.sort_unstable();
    let parts: Vec<&[u8]> = digests.iter().map(|digest| &digest.0[..]).collect();
    sha256(&parts)
}

#[cfg(test)]
mod tests {
    use super::*;

    const A: &str = r#""kty":"OKP","crv":"Ed25519","x":"11qYAYKxCrfVS_7TyWQHOg7hcvPapiMlrwIaaPcHURo""#;
    const B: &str = r#""kty":"EC","crv":"P-256","x":"E7r4Ul0_RoQj3cyRQPh1EysfWpJv4m3C5nEoJQQ-gCE","y":"Pk3YhdwYLmGOe_Od6an49jKa6aHHWSqVPt2S97USP88""#;

    fn set(keys: &[String], key_use: KeyUse) -> Result<KeySet, KeySetError> {
        let keys: Vec<_> = keys.iter().map(|k| format!("{{{k}}}")).collect();
        KeySet::from_jwks(&format!(r#"{{"keys":[{}],"spiffe_sequence":1}}"#, keys.join(",")), key_use)
    }

    #[test]
    fn with_a_kid_that_key_and_without_only_the_single_usable_one() {
        let two = set(&[format!(r#"{A},"kid":"a""#), format!(r#"{B},"kid":"b""#)], KeyUse::Any).unwrap();
        assert!(two.select(Some("a"), Algorithm::EdDsa).is_ok());
        assert_eq!(two.select(Some("a"), Algorithm::Es256).unwrap_err(), KeyChoice::WrongAlgorithm);
        assert_eq!(two.select(Some("c"), Algorithm::EdDsa).unwrap_err(), KeyChoice::Unknown);
        assert_eq!(two.select(Some(""), Algorithm::EdDsa).unwrap_err(), KeyChoice::Unknown);
        assert_eq!(two.select(None, Algorithm::EdDsa).unwrap_err(), KeyChoice::Unknown);
        let one = set(&[format!(r#"{A},"kid":"a""#)], KeyUse::Any).unwrap();
        assert!(one.select(None, Algorithm::EdDsa).is_ok());
        assert_eq!(KeySet::empty().select(None, Algorithm::EdDsa).unwrap_err(), KeyChoice::Unknown);
    }

    #[test]
    fn a_wit_is_issued_by_keys_for_wits_or_of_no_use_alone() {
        let keys = [
            format!(r#"{A},"kid":"a","use":"x509-svid""#),
            format!(r#"{B},"kid":"b","use":"wit-svid""#),
            r#""kty":"RSA","n":"AQAB","e":"AQAB","kid":"c","use":"jwt-svid""#.to_owned(),
        ];
        let bundle = set(&keys, KeyUse::WitIssuer).unwrap();
        assert_eq!(bundle.kids().collect::<Vec<_>>(), ["b"]);
        assert!(bundle.select(None, Algorithm::Es256).is_ok());
        assert_eq!(bundle.select(Some("a"), Algorithm::EdDsa).unwrap_err(), KeyChoice::Unknown);
        assert_eq!(set(&[format!(r#"{A},"use":"enc""#)], KeyUse::Any).unwrap().len(), 0);
        assert_eq!(set(&[format!(r#"{A},"use":"sig""#)], KeyUse::Any).unwrap().len(), 1);
    }

    #[test]
    fn a_key_without_alg_stands_for_all_that_its_type_fits() {
        use base64::Engine as _;
        let n = base64::engine::general_purpose::URL_SAFE_NO_PAD.encode([0x81; 256]);
        let any = set(&[format!(r#""kty":"RSA","n":"{n}","e":"AQAB""#)], KeyUse::Any).unwrap();
        assert!(any.select(None, Algorithm::Rs256).is_ok());
        assert!(any.select(None, Algorithm::Ps256).is_ok());
        let one = set(&[format!(r#""kty":"RSA","n":"{n}","e":"AQAB","alg":"PS256""#)], KeyUse::Any).unwrap();
        assert_eq!(one.select(None, Algorithm::Rs256).unwrap_err(), KeyChoice::WrongAlgorithm);
        let other =
            set(&[format!(r#""kty":"RSA","n":"{n}","e":"AQAB","alg":"RS512""#)], KeyUse::Any).unwrap();
        assert_eq!(other.select(None, Algorithm::Rs256).unwrap_err(), KeyChoice::WrongAlgorithm);
    }

    #[test]
    fn one_bad_key_refuses_the_set() {
        let refused = |keys: &[String]| set(keys, KeyUse::Any).unwrap_err();
        let doubled = refused(&[format!(r#"{A},"kid":"a""#), format!(r#"{B},"kid":"a""#)]);
        assert!(matches!(doubled, KeySetError::DuplicateKid { index: 1, .. }));
        for (key, problem) in [
            (format!(r#"{A},"d":"AA""#), KeyError::Private("d")),
            (r#""kty":"oct","k":"AA""#.to_owned(), KeyError::Private("k")),
            (
                r#""kty":"OKP","crv":"Ed25519","x":"AAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAA""#.into(),
                KeyError::SmallOrder,
            ),
            (r#""kty":"RSA","n":"gQ","e":"AQAB""#.into(), KeyError::Rsa),
            (format!(r#"{A},"alg":"ES256""#), KeyError::Algorithm),
        ] {
            let got = refused(&[B.to_owned(), key.clone()]);
            assert_eq!(got, KeySetError::Key { index: 1, problem }, "{key}");
        }
        assert!(matches!(refused(&[format!(r#"{A},"kid":1"#)]), KeySetError::Mistyped { member: "kid", .. }));
        assert_eq!(KeySet::from_jwks("{}", KeyUse::Any).unwrap_err(), KeySetError::NoKeys);
        assert!(KeySet::from_jwks(r#"{"keys":[],"keys":[]}"#, KeyUse::Any).is_err());
    }

    #[test]
    fn a_key_of_another_type_is_known_and_verifies_nothing() {
        let set =
            set(&[r#""kty":"EC","crv":"P-384","x":"AA","y":"AA","kid":"a""#.into()], KeyUse::Any).unwrap();
        assert_eq!(set.select(Some("a"), Algorithm::Es256).unwrap_err(), KeyChoice::WrongAlgorithm);
    }

    #[test]
    fn the_version_follows_the_keys_and_not_their_order() {
        let (a, b) = (format!(r#"{A},"kid":"a""#), format!(r#"{B},"kid":"b""#));
        let version = |keys: &[String]| set(keys, KeyUse::Any).unwrap().version();
        assert_eq!(version(&[a.clone(), b.clone()]), version(&[b.clone(), a.clone()]));
        let all = [
            version(&[]),
            version(std::slice::from_ref(&a)),
            version(&[A.to_owned()]),
            version(&[a.clone(), b.clone()]),
            version(&[format!(r#"{A},"kid":"b""#)]),
        ];
        assert_eq!(all.iter().collect::<std::collections::HashSet<_>>().len(), all.len());
    }
}
