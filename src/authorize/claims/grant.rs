//! The claims of a step-up grant: an answer to a challenge (contract, section 7). Limits: form alone.

use super::members::Members;
use super::{Audience, Malformed, Times};

/// What an approver says.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Verdict {
    /// It may be done.
    Approve,
    /// It may not.
    Refuse,
}

impl Verdict {
    /// The word in `decision`.
    pub fn as_str(self) -> &'static str {
        match self {
            Self::Approve => "approve",
            Self::Refuse => "refuse",
        }
    }
}

/// The claims of a step-up grant, as they are written.
#[derive(Debug, Clone, PartialEq)]
pub struct GrantClaims {
    /// `iss`: who vouches for the approver.
    pub issuer: String,
    /// `sub`: the approver.
    pub subject: String,
    /// `sub_type`: the approver's entity type, where a gate vouches for a login.
    pub subject_type: Option<String>,
    /// `iss` of `sub_id` (RFC 9493, `iss_sub`): where the approver logged in.
    pub login_issuer: Option<String>,
    /// `aud`: the realm.
    pub audience: Audience,
    /// `exp`, `iat`, `nbf`; `iat` is there.
    pub times: Times,
    /// `iat`: when it was given, in seconds.
    pub issued_at: f64,
    /// `jti`.
    pub jti: String,
    /// `challenge`: which challenge it answers.
    pub challenge: String,
    /// `digest`: of the request that it speaks of.
    pub digest: String,
    /// `decision`.
    pub decision: Verdict,
    /// `acr`.
    pub acr: Option<String>,
    /// `amr`.
    pub amr: Option<Vec<String>>,
    /// `auth_time`, in seconds.
    pub auth_time: Option<f64>,
    /// `comment`.
    pub comment: Option<String>,
}

impl GrantClaims {
    /// Reads the payload of a step-up grant.
    ///
    /// # Errors
    /// The first rule of form that it breaks.
    pub fn read(payload: &[u8]) -> Result<Self, Malformed> {
        let mut claims = Members::read(payload)?;
        let (issuer, subject) = (claims.text("iss")?, claims.text("sub")?);
        let subject_type = claims.optional_text("sub_type")?;
        let login_issuer = match claims.optional_object("sub_id")? {
            Some(mut id) => match id.optional_text("format")?.as_deref() {
                Some("iss_sub") => Some(id.text("iss")?),
                _ => None,
            },
            None => None,
        };
        let (jti, challenge) = (claims.text("jti")?, claims.text("challenge")?);
        let digest = claims.text("digest")?;
        let audience = claims.audience("aud")?;
        let issued_at = claims.date("iat")?;
        let times = claims.times(true)?;
        let decision = match claims.text("decision")?.as_str() {
            "approve" => Verdict::Approve,
            "refuse" => Verdict::Refuse,
            _ => return Err(Malformed("needs `decision` to be `approve` or `refuse`".to_owned())),
        };
        Ok(Self {
            issuer,
            subject,
            subject_type,
            login_issuer,
            audience,
            times,
            issued_at,
            jti,
            challenge,
            digest,
            decision,
            acr: claims.optional_text("acr")?,
            comment: claims.optional_text("comment")?,
            auth_time: claims.optional_date("auth_time")?,
            amr: claims.optional_texts("amr")?,
        })
    }
}
