//! A compact JWS taken apart (RFC 7515, section 7.1), by the contract's rules for every token. Limits: nothing is
//! verified here; what comes out is only well formed.

use std::hash::{DefaultHasher, Hasher};
use std::sync::Arc;

use serde_json::Value;

use super::super::json::{self, JsonError};
use super::super::memo::Memo;
use super::{TokenKind, base64url};

/// JOSE header parameters that would let a token choose its own key or its own rules (contract, section 2).
const FORBIDDEN: [&str; 6] = ["crit", "jku", "x5u", "x5c", "jwk", "b64"];

/// Why bytes are no compact JWS of their kind: a sentence that never holds a part of the token.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum JwsError {
    /// Not three parts between dots.
    #[error("does not have the three parts of a compact JWS")]
    Parts,
    /// A part is not base64url.
    #[error("{0} is not base64url without padding")]
    Base64(&'static str),
    /// The JOSE header or the payload is not a strict JSON object.
    #[error("{0} {1}")]
    Json(&'static str, JsonError),
    /// `typ` is absent or of another kind.
    #[error("`typ` must be `{0}`")]
    Typ(&'static str),
    /// `alg` is absent or no string.
    #[error("`alg` must be a string")]
    Alg,
    /// `kid` is no string.
    #[error("`kid` must be a string")]
    Kid,
    /// A forbidden JOSE parameter.
    #[error("the JOSE header parameter `{0}` is not allowed")]
    Forbidden(&'static str),
}

/// A compact JWS, parsed and not verified.
#[derive(Clone)]
pub struct Jws<'t> {
    head: Arc<Head>,
    payload: Vec<u8>,
    signing_input: &'t [u8],
    signature: Vec<u8>,
}

/// What a JOSE header says, of the right form.
#[derive(Debug)]
struct Head {
    /// Empty where there is none that is a string.
    typ: String,
    alg: String,
    kid: Option<String>,
}

impl Head {
    fn read(written: &[u8]) -> Result<Self, JwsError> {
        let header = base64url(written).ok_or(JwsError::Base64("the JOSE header"))?;
        let header = json::parse_object(&header).map_err(|e| JwsError::Json("the JOSE header", e))?;
        if let Some(name) = FORBIDDEN.into_iter().find(|name| header.contains_key(*name)) {
            return Err(JwsError::Forbidden(name));
        }
        let typ = header.get("typ").and_then(Value::as_str).unwrap_or_default().to_owned();
        let alg = header.get("alg").and_then(Value::as_str).ok_or(JwsError::Alg)?.to_owned();
        let kid = match header.get("kid") {
            None => None,
            Some(Value::String(kid)) => Some(kid.clone()),
            Some(_) => return Err(JwsError::Kid),
        };
        Ok(Self { typ, alg, kid })
    }
}

/// JOSE headers that were read before: a sender writes the same one on every proof.
#[derive(Debug)]
pub struct HeadCache(Memo<Box<[u8]>, Arc<Head>>);

impl Default for HeadCache {
    fn default() -> Self {
        Self(Memo::new(64))
    }
}

impl HeadCache {
    /// A longer one is read each time.
    const LONGEST: usize = 512;

    fn read(&self, written: &[u8]) -> Result<Arc<Head>, JwsError> {
        let mut hasher = DefaultHasher::new();
        hasher.write(written);
        self.0.get(
            hasher.finish(),
            |kept| **kept == *written,
            || {
                let kept = (written.len() <= Self::LONGEST).then(|| written.into());
                Ok((kept, Arc::new(Head::read(written)?)))
            },
        )
    }
}

impl<'t> Jws<'t> {
    /// Takes a token of that kind apart. The caller bounds its size (contract, section 2: 8 KiB).
    ///
    /// # Errors
    /// The first rule that it breaks; every one of them means `context_malformed`. An `alg` that is a string is never
    /// one of them: `none` is well formed, and refused later as an algorithm.
    pub fn parse(token: &'t [u8], kind: TokenKind) -> Result<Self, JwsError> {
        Self::parse_typ(token, &[kind.typ()])
    }

    /// Takes a token apart that is none of the five, by the same rules: `typ` must be one of `typs`, each without the
    /// optional prefix `application/`. The caller bounds its size.
    ///
    /// # Errors
    /// As [`Self::parse`].
    pub fn parse_typ(token: &'t [u8], typs: &[&'static str]) -> Result<Self, JwsError> {
        Self::take_apart(token, typs, None)
    }

    /// Takes a token of that kind apart whose JOSE header may have been read before.
    ///
    /// # Errors
    /// As [`Self::parse`].
    pub fn parse_known(token: &'t [u8], kind: TokenKind, heads: &HeadCache) -> Result<Self, JwsError> {
        Self::take_apart(token, &[kind.typ()], Some(heads))
    }

    fn take_apart(
        token: &'t [u8],
        typs: &[&'static str],
        heads: Option<&HeadCache>,
    ) -> Result<Self, JwsError> {
        let mut parts = token.split(|b| *b == b'.');
        let (Some(header), Some(payload), Some(signature), None) =
            (parts.next(), parts.next(), parts.next(), parts.next())
        else {
            return Err(JwsError::Parts);
        };
        let signing_input = token.get(..header.len() + 1 + payload.len()).ok_or(JwsError::Parts)?;
        let head = heads.map_or_else(|| Head::read(header).map(Arc::new), |heads| heads.read(header))?;
        let payload = base64url(payload).ok_or(JwsError::Base64("the payload"))?;
        let signature = base64url(signature).ok_or(JwsError::Base64("the signature"))?;
        if !typs.iter().any(|wanted| is_typ(&head.typ, wanted)) {
            return Err(JwsError::Typ(typs.first().copied().unwrap_or_default()));
        }
        Ok(Self { head, payload, signing_input, signature })
    }

    /// `alg` as it is written: perhaps of no algorithm that exists here.
    pub fn alg(&self) -> &str {
        &self.head.alg
    }

    /// `kid`, if the token has one.
    pub fn kid(&self) -> Option<&str> {
        self.head.kid.as_deref()
    }

    /// The decoded payload.
    pub fn payload(&self) -> &[u8] {
        &self.payload
    }

    /// What is signed: header and payload as they are written, with the dot between them.
    pub fn signing_input(&self) -> &'t [u8] {
        self.signing_input
    }

    /// The decoded signature.
    pub fn signature(&self) -> &[u8] {
        &self.signature
    }
}

// By hand: a signature completes a live credential, and must not reach a log.
impl std::fmt::Debug for Jws<'_> {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Jws").field("head", &self.head).finish_non_exhaustive()
    }
}

/// RFC 7515, section 4.1.9: a media type, compared without case, whose `application/` may be left out.
fn is_typ(typ: &str, wanted: &str) -> bool {
    const PREFIX: &str = "application/";
    let short = match typ.get(..PREFIX.len()) {
        Some(prefix) if prefix.eq_ignore_ascii_case(PREFIX) => typ.get(PREFIX.len()..).unwrap_or_default(),
        _ => typ,
    };
    short.eq_ignore_ascii_case(wanted)
}

#[cfg(test)]
mod tests {
    use super::*;
    use base64::Engine as _;
    use base64::engine::general_purpose::URL_SAFE_NO_PAD;

    fn token(header: &str) -> String {
        format!("{}.{}.AQ", URL_SAFE_NO_PAD.encode(header), URL_SAFE_NO_PAD.encode("{}"))
    }

    /// Cold, and twice with a cache: what is kept changes no answer.
    fn parse(header: &str) -> Result<(), JwsError> {
        let (token, kind, heads) = (token(header), TokenKind::WorkloadProof, HeadCache::default());
        let found = Jws::parse(token.as_bytes(), kind).map(drop);
        for _ in 0..2 {
            assert_eq!(Jws::parse_known(token.as_bytes(), kind, &heads).map(drop), found);
        }
        found
    }

    #[test]
    fn a_header_that_was_read_before_is_that_header_and_of_its_kind_alone() {
        let heads = HeadCache::default();
        for n in (0..1000).chain(0..1000) {
            let token = token(&format!(r#"{{"alg":"A{n}","typ":"wpt+jwt","kid":"k{n}"}}"#));
            let jws = Jws::parse_known(token.as_bytes(), TokenKind::WorkloadProof, &heads).unwrap();
            assert_eq!((jws.alg(), jws.kid()), (&*format!("A{n}"), Some(&*format!("k{n}"))));
            let other = Jws::parse_known(token.as_bytes(), TokenKind::WorkloadIdentity, &heads);
            assert_eq!(other.map(drop), Err(JwsError::Typ("wit+jwt")));
        }
    }

    #[test]
    fn typ_ignores_case_and_may_carry_its_prefix() {
        for typ in ["wpt+jwt", "WPT+JWT", "application/wpt+jwt", "Application/Wpt+jwt"] {
            assert_eq!(parse(&format!(r#"{{"alg":"none","typ":"{typ}"}}"#)), Ok(()), "{typ}");
        }
        for typ in [
            "wit+jwt",
            "JWT",
            "",
            "application/",
            "text/wpt+jwt",
            "application/application/wpt+jwt",
            "äpplication/",
        ] {
            let got = parse(&format!(r#"{{"alg":"ES256","typ":"{typ}"}}"#));
            assert_eq!(got, Err(JwsError::Typ("wpt+jwt")), "{typ}");
        }
        assert_eq!(parse(r#"{"alg":"ES256"}"#), Err(JwsError::Typ("wpt+jwt")));
    }

    #[test]
    fn a_token_that_is_none_of_the_five_has_one_of_the_types_asked_for() {
        let parse = |typ: &str| {
            let token = token(&format!(r#"{{"alg":"ES256","typ":"{typ}"}}"#));
            Jws::parse_typ(token.as_bytes(), &["at+jwt", "JWT"]).map(drop)
        };
        for typ in ["at+jwt", "application/at+jwt", "JWT", "jwt"] {
            assert_eq!(parse(typ), Ok(()), "{typ}");
        }
        for typ in ["", "id+jwt", "wpt+jwt", "application/"] {
            assert_eq!(parse(typ), Err(JwsError::Typ("at+jwt")), "{typ}");
        }
    }

    #[test]
    fn parameters_that_choose_keys_or_rules_are_refused_whatever_they_hold() {
        for name in ["crit", "jku", "x5u", "x5c", "jwk", "b64"] {
            for value in ["null", "[]", "true", "\"a\""] {
                let header = format!(r#"{{"alg":"ES256","typ":"wpt+jwt","{name}":{value}}}"#);
                assert!(matches!(parse(&header), Err(JwsError::Forbidden(n)) if n == name), "{header}");
            }
        }
        assert_eq!(parse(r#"{"alg":"ES256","typ":"wpt+jwt","cty":1}"#), Ok(()));
    }

    #[test]
    fn alg_and_kid_are_strings() {
        for header in
            [r#"{"typ":"wpt+jwt"}"#, r#"{"typ":"wpt+jwt","alg":null}"#, r#"{"typ":"wpt+jwt","alg":1}"#]
        {
            assert_eq!(parse(header), Err(JwsError::Alg), "{header}");
        }
        for kid in ["null", "1", "[]"] {
            assert_eq!(
                parse(&format!(r#"{{"typ":"wpt+jwt","alg":"ES256","kid":{kid}}}"#)),
                Err(JwsError::Kid)
            );
        }
        assert_eq!(parse(r#"{"typ":"wpt+jwt","alg":"","kid":""}"#), Ok(()));
    }

    #[test]
    fn a_compact_jws_has_three_base64url_parts() {
        let good = token(r#"{"alg":"none","typ":"wpt+jwt"}"#);
        let kind = TokenKind::WorkloadProof;
        let (head, _) = good.rsplit_once('.').unwrap();
        assert!(Jws::parse(format!("{head}.").as_bytes(), kind).unwrap().signature().is_empty());
        for bad in [
            String::new(),
            "a.b".into(),
            head.to_owned(),
            format!("{good}."),
            format!("{good}="),
            format!(" {good}"),
            format!("{good}\n"),
            format!("{head}.A"),
            format!("{head}.AR"),
            format!(".{good}"),
        ] {
            assert!(Jws::parse(bad.as_bytes(), kind).is_err(), "{bad}");
        }
        let jws = Jws::parse(good.as_bytes(), kind).unwrap();
        assert_eq!(jws.signing_input(), head.as_bytes());
        assert!(!format!("{jws:?}").contains("signature"));
    }
}
