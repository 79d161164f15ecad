//! Where an OIDC issuer keeps its keys (OpenID Connect Discovery 1.0, section 4). Limits: text to address; nothing is
//! fetched here.

use serde_json::Value;
use url::Url;

use crate::authorize::json::{self, JsonError};

/// What follows an issuer's address (OpenID Connect Discovery 1.0, section 4).
const WELL_KNOWN: &str = "/.well-known/openid-configuration";

/// Why a discovery document does not lead to keys.
#[derive(Debug, PartialEq, Eq, thiserror::Error)]
pub(super) enum DiscoveryError {
    /// Not a strict JSON object.
    #[error("the discovery document {0}")]
    Json(#[from] JsonError),
    /// `issuer` is absent or another: the document of somebody else (section 4.3).
    #[error("the discovery document names another `issuer`")]
    Issuer,
    /// `jwks_uri` is absent or no address.
    #[error("the discovery document has no `jwks_uri` that is an address")]
    NoKeys,
    /// `jwks_uri` points elsewhere.
    #[error(
        "the discovery document's `jwks_uri` is on another host: set `jwks_uri` in the configuration to allow it"
    )]
    Elsewhere,
}

/// The address of an issuer's discovery document.
pub(super) fn document_of(iss: &str) -> String {
    format!("{}{WELL_KNOWN}", iss.strip_suffix('/').unwrap_or(iss))
}

/// The address of the keys that the discovery document of `iss` names: of the same origin as the issuer, so that no
/// document can send the gate to other hosts.
pub(super) fn keys_of(iss: &str, document: &str) -> Result<Url, DiscoveryError> {
    let document = json::parse_object(document.as_bytes())?;
    if document.get("issuer").and_then(Value::as_str) != Some(iss) {
        return Err(DiscoveryError::Issuer);
    }
    let named = document.get("jwks_uri").and_then(Value::as_str).and_then(|text| Url::parse(text).ok());
    let keys = named.ok_or(DiscoveryError::NoKeys)?;
    let issuer = Url::parse(iss).map_err(|_| DiscoveryError::Issuer)?;
    if keys.origin() != issuer.origin() { Err(DiscoveryError::Elsewhere) } else { Ok(keys) }
}

#[cfg(test)]
mod tests {
    use super::*;

    const ISS: &str = "https://login.example.com/realms/main";

    fn keys(iss: &str, uri: &str) -> Result<String, DiscoveryError> {
        let document = serde_json::json!({"issuer": iss, "jwks_uri": uri}).to_string();
        keys_of(ISS, &document).map(|url| url.to_string())
    }

    #[test]
    fn the_document_stands_below_the_issuer() {
        assert_eq!(document_of(ISS), format!("{ISS}/.well-known/openid-configuration"));
        assert_eq!(document_of(&format!("{ISS}/")), document_of(ISS));
    }

    #[test]
    fn keys_are_taken_from_the_issuers_own_origin_alone() {
        let good = "https://login.example.com/realms/main/certs";
        assert_eq!(keys(ISS, good), Ok(good.to_owned()));
        assert_eq!(
            keys(ISS, "https://login.example.com:443/keys"),
            Ok("https://login.example.com/keys".into())
        );
        for elsewhere in [
            "https://evil.example/keys",
            "http://login.example.com/keys",
            "https://login.example.com:8443/keys",
            "https://login.example.com@evil.example/keys",
            "file:///etc/passwd",
        ] {
            assert_eq!(keys(ISS, elsewhere), Err(DiscoveryError::Elsewhere), "{elsewhere}");
        }
        assert_eq!(keys(ISS, "/keys"), Err(DiscoveryError::NoKeys));
        assert_eq!(keys(&format!("{ISS}/"), good), Err(DiscoveryError::Issuer));
        assert_eq!(keys_of(ISS, "{}"), Err(DiscoveryError::Issuer));
        assert_eq!(keys_of(ISS, &format!(r#"{{"issuer":"{ISS}"}}"#)), Err(DiscoveryError::NoKeys));
        assert!(matches!(keys_of(ISS, "<html>"), Err(DiscoveryError::Json(_))));
    }
}
