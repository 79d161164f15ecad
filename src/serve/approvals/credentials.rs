//! Who asks: the bearer token of a request, verified with the keys of its issuer. Limits: a token that names a key which
//! is not there makes the gate look once more, at a bounded rate; nothing else that a token says moves it.

use axum::http::{HeaderMap, header};

use super::refusal::Refusal;
use crate::authorize::ids::UnixMillis;
use crate::authorize::login::{Bearer, Login, LoginError};
use crate::control::oidc::OidcIssuers;

/// The login that a request proves.
pub(super) async fn login(
    headers: &HeaderMap,
    issuers: &OidcIssuers,
    clock: fn() -> UnixMillis,
) -> Result<Login, Refusal> {
    let bearer = Bearer::read(token(headers)?)?;
    let issuer = issuers.get(bearer.issuer()).ok_or(LoginError::Issuer)?;
    let keys = match issuer.keys(clock()) {
        Some(keys) => keys,
        None => {
            issuer.look_again().await;
            let keys = issuer.keys(clock());
            keys.ok_or_else(|| Refusal::unavailable("the keys of the token's issuer cannot be had"))?
        }
    };
    match bearer.verify(issuer.rules(), &keys, clock()) {
        Err(LoginError::Key) => {
            issuer.look_again().await;
            let keys = issuer.keys(clock()).unwrap_or(keys);
            Ok(bearer.verify(issuer.rules(), &keys, clock())?)
        }
        verified => Ok(verified?),
    }
}

/// The token of the one `Authorization` header (RFC 6750, section 2.1).
fn token(headers: &HeaderMap) -> Result<&[u8], Refusal> {
    let mut found = headers.get_all(header::AUTHORIZATION).iter();
    let Some(value) = found.next() else { return Err(Refusal::no_credentials()) };
    if found.next().is_some() {
        return Err(Refusal::malformed("there is more than one `Authorization` header"));
    }
    let value = value.as_bytes();
    match value.split_at_checked("Bearer ".len()) {
        Some((scheme, token)) if scheme.eq_ignore_ascii_case(b"Bearer ") && !token.is_empty() => Ok(token),
        _ => Err(Refusal::no_credentials()),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_token_stands_in_one_authorization_header() {
        let with = |values: &[&str]| {
            let mut headers = HeaderMap::new();
            for value in values {
                headers.append(header::AUTHORIZATION, value.parse().unwrap());
            }
            token(&headers).map(<[u8]>::to_vec)
        };
        assert_eq!(with(&["Bearer a.b.c"]).unwrap(), b"a.b.c");
        assert_eq!(with(&["bearer a.b.c"]).unwrap(), b"a.b.c");
        for none in [&[][..], &["Basic YTpi"], &["Bearer"], &["Bearer "], &["Bearera.b.c"], &["DPoP a.b.c"]] {
            assert_eq!(with(none), Err(Refusal::no_credentials()), "{none:?}");
        }
        assert!(with(&["Bearer a", "Bearer a"]).is_err_and(|refusal| refusal.error == "invalid_request"));
    }
}
