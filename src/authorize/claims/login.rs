//! The claims of an access token of an OIDC issuer (RFC 9068), as far as an approver's login needs them. Limits: form
//! alone; members that are not named here are ignored.

use std::collections::BTreeSet;

use super::members::Members;
use super::{Audience, Malformed, Times};

/// An access token's claims, as they are written.
#[derive(Debug, Clone, PartialEq)]
pub struct LoginClaims {
    /// `iss`: the OIDC issuer.
    pub issuer: String,
    /// `sub`: who logged in, by the issuer's own name.
    pub subject: String,
    /// `aud`.
    pub audience: Audience,
    /// `exp`, `iat`, `nbf`; `iat` is there.
    pub times: Times,
    /// `azp`, or `client_id` where it is absent: the client that asked for the token.
    pub client: Option<String>,
    /// `scope`, split at spaces.
    pub scope: BTreeSet<String>,
    /// `acr`: how strong the login was.
    pub acr: Option<String>,
    /// `amr`: by which means.
    pub amr: Option<Vec<String>>,
    /// `auth_time`: when, in seconds.
    pub auth_time: Option<f64>,
    /// `typ` among the claims: Keycloak's word for what kind of token it is.
    pub kind: Option<String>,
    /// Whether the token is bound to a key (`cnf`, RFC 7800).
    pub bound: bool,
    /// The claim that names the approver, where it is a string.
    pub approver: Option<String>,
}

impl LoginClaims {
    /// Reads the payload of an access token; `approver` is the claim that names the approver.
    ///
    /// # Errors
    /// The first rule of form that it breaks.
    pub fn read(payload: &[u8], approver: &str) -> Result<Self, Malformed> {
        let mut claims = Members::read(payload)?;
        // Read first: it may be one of those below.
        let approver = claims.map.get(approver).and_then(|value| value.as_str()).map(str::to_owned);
        let issuer = claims.text("iss")?;
        let subject = claims.text("sub")?;
        let audience = claims.audience("aud")?;
        let times = claims.times(true)?;
        let client = match (claims.optional_text("azp")?, claims.optional_text("client_id")?) {
            (Some(azp), _) => Some(azp),
            (None, client) => client,
        };
        let scope = claims.optional_text("scope")?.unwrap_or_default();
        Ok(Self {
            issuer,
            subject,
            audience,
            times,
            client,
            scope: scope.split(' ').filter(|word| !word.is_empty()).map(str::to_owned).collect(),
            acr: claims.optional_text("acr")?,
            amr: claims.optional_texts("amr")?,
            auth_time: claims.optional_date("auth_time")?,
            kind: claims.optional_text("typ")?,
            bound: claims.map.contains_key("cnf"),
            approver,
        })
    }

    /// `iss` alone, to find whose rules a token is judged by.
    ///
    /// # Errors
    /// It is no object, or has no `iss` that is a string.
    pub fn issuer(payload: &[u8]) -> Result<String, Malformed> {
        Members::read(payload)?.text("iss")
    }
}
