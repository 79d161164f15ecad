//! A login's answer to a challenge as the grant that a gate signs for it (contract, section 7). Limits: it writes; whether
//! the answer counts is decided by the lane that the challenge names, like any other answer.

use serde_json::{Map, Value, json};

use super::Login;
use crate::authorize::ids::{Realm, UnixMillis, WorkloadId};
use crate::authorize::jose::{SignError, SigningKey, TokenKind};

/// Code points of a comment. It is published with the challenge.
pub const MAX_COMMENT_CHARS: usize = 1000;

/// What is answered, and until when it is good.
#[derive(Debug, Clone, Copy)]
pub struct AnswerSource<'a> {
    /// The gate that vouches for the login.
    pub gate: &'a WorkloadId,
    /// The realm: `aud`.
    pub realm: &'a Realm,
    /// The answer's own id.
    pub jti: &'a str,
    /// The challenge.
    pub challenge: &'a str,
    /// The challenge's digest of the request.
    pub digest: &'a str,
    /// `approve` or `refuse`.
    pub decision: &'static str,
    /// What the approver has to say.
    pub comment: Option<&'a str>,
    /// When it is given.
    pub now: UnixMillis,
    /// How long it is good, in seconds.
    pub grant_s: u32,
}

/// Why a comment is not taken.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
pub enum AnswerProblem {
    /// More than 1,000 code points.
    #[error("`comment` is longer than {MAX_COMMENT_CHARS} characters")]
    CommentTooLong,
    /// A control character.
    #[error("`comment` holds a control character")]
    CommentControl,
}

/// Whether a comment may stand in a grant.
///
/// # Errors
/// [`AnswerProblem`].
pub fn check_comment(comment: &str) -> Result<(), AnswerProblem> {
    if comment.chars().count() > MAX_COMMENT_CHARS {
        return Err(AnswerProblem::CommentTooLong);
    }
    if comment.chars().any(char::is_control) {
        return Err(AnswerProblem::CommentControl);
    }
    Ok(())
}

/// The grant: `iss` the gate, `sub` and `sub_type` the approver as an entity, `sub_id` (RFC 9493, `iss_sub`) who logged in
/// where, `acr`, `amr` and `auth_time` as the login has them.
///
/// # Errors
/// The key cannot sign.
pub fn sign_answer(login: &Login, answer: &AnswerSource<'_>, key: &SigningKey) -> Result<String, SignError> {
    let issued_at = answer.now.whole_seconds();
    let mut claims = Map::new();
    let mut put = |name: &str, value: Value| claims.insert(name.to_owned(), value);
    put("iss", json!(answer.gate.as_str()));
    put("sub", json!(login.approver));
    put("sub_type", json!(login.entity_type));
    put("sub_id", json!({"format": "iss_sub", "iss": login.issuer, "sub": login.subject}));
    put("aud", json!(answer.realm.as_str()));
    put("iat", json!(issued_at));
    put("exp", json!(issued_at.saturating_add(i64::from(answer.grant_s))));
    put("jti", json!(answer.jti));
    put("challenge", json!(answer.challenge));
    put("digest", json!(answer.digest));
    put("decision", json!(answer.decision));
    let optional = [
        ("acr", login.acr.as_ref().map(|acr| json!(acr))),
        ("amr", login.amr.as_ref().map(|amr| json!(amr))),
        ("auth_time", login.auth_time.map(date)),
        ("comment", answer.comment.map(|comment| json!(comment))),
    ];
    for (name, value) in optional {
        if let Some(value) = value {
            put(name, value);
        }
    }
    key.sign(TokenKind::StepUpGrant, &claims)
}

/// A NumericDate without a fraction where it has none.
fn date(seconds: f64) -> Value {
    if seconds.fract() == 0.0 { json!(seconds as i64) } else { json!(seconds) }
}
