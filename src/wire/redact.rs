//! Credentials out of headers: a token header becomes its readable part and a hash, so that nothing live rests in a
//! dead letter (contract, section 7). Limits: it knows the five context headers by name, in any ASCII case.

use base64::Engine as _;
use base64::engine::general_purpose::URL_SAFE_NO_PAD;
use bytes::Bytes;

use crate::authorize::jose::{TokenKind, sha256};
use crate::authorize::record::Header;

/// The canonical name of a context header written in any ASCII case, if `name` is one.
pub fn token_header(name: &[u8]) -> Option<&'static str> {
    TokenKind::of_header(name).map(TokenKind::header_name)
}

/// What stands in the place of a token header: `<name>-redacted` with `header.payload`, where the value is exactly
/// three base64url parts, and `<name>-sha256` with the hash of the whole value (null for a null value).
pub fn redact(name: &'static str, value: Option<&Bytes>) -> Vec<Header> {
    let hash_name = Bytes::from(format!("{name}-sha256"));
    let Some(value) = value else {
        return vec![Header { name: hash_name, value: None }];
    };
    let mut headers = Vec::with_capacity(2);
    if let Some(readable) = without_signature(value) {
        headers.push(Header {
            name: Bytes::from(format!("{name}-redacted")),
            value: Some(value.slice(..readable)),
        });
    }
    headers.push(Header { name: hash_name, value: Some(Bytes::from(sha256(&[value]).to_string())) });
    headers
}

/// The length of `header.payload` in a value of exactly three base64url parts.
fn without_signature(value: &[u8]) -> Option<usize> {
    let mut parts = value.split(|byte| *byte == b'.');
    let (header, payload, signature) = (parts.next()?, parts.next()?, parts.next()?);
    let base64url = |part: &[u8]| URL_SAFE_NO_PAD.decode(part).is_ok();
    (parts.next().is_none() && base64url(header) && base64url(payload) && base64url(signature))
        .then_some(header.len() + 1 + payload.len())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_signature_is_gone_and_the_rest_can_be_read() {
        let token = Bytes::from_static(b"eyJhIjoxfQ.eyJiIjoyfQ.c2lnbmF0dXJl");
        let headers = redact("txn-token", Some(&token));
        assert_eq!(headers[0].name, "txn-token-redacted");
        assert_eq!(headers[0].value.as_deref(), Some(&b"eyJhIjoxfQ.eyJiIjoyfQ"[..]));
        assert_eq!(headers[1].name, "txn-token-sha256");
        assert_eq!(headers[1].value.as_deref(), Some(sha256(&[&token]).to_string().as_bytes()));
    }

    #[test]
    fn what_is_not_three_base64url_parts_leaves_its_hash_alone() {
        for odd in [&b""[..], b"a.b", b"YQ.YQ.YQ.YQ", b"YQ.YQ.Y Q", b"YQ.YQ.YQ=", b"\xff\xfe"] {
            let headers = redact("txn-token", Some(&Bytes::copy_from_slice(odd)));
            assert_eq!(headers.len(), 1, "{odd:?}");
            assert_eq!(headers[0].name, "txn-token-sha256");
        }
        assert_eq!(redact("txn-token", None)[0].value, None);
    }

    #[test]
    fn a_name_counts_in_any_case() {
        assert_eq!(token_header(b"TXN-Token"), Some("txn-token"));
        assert_eq!(token_header(b"txn-tokens"), None);
    }
}
