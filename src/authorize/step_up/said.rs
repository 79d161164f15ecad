//! What a record of an answers topic says: an approver's word, or a fresh Txn-Token with the challenge that it goes with. Limits:
//! form alone.

use super::challenge::ChallengeId;
use crate::authorize::claims::GrantClaims;
use crate::authorize::jose::{Jws, TokenKind};
use crate::authorize::limits::MAX_TOKEN_BYTES;
use crate::authorize::record::Record;

/// The header by which a Txn-Token says what it answers, since no claim of it can: a hint where to look, never evidence. The
/// token is checked against the held record that is found there.
const CHALLENGE_HEADER: &[u8] = b"challenge";

/// What a record of the answers says, in the right form; nothing of it is believed.
pub(super) enum Said<'a> {
    /// An approver's word.
    Grant { jws: Jws<'a>, claims: Box<GrantClaims> },
    /// A fresh Txn-Token, and the challenge that it goes with.
    Login { token: &'a [u8], jws: Jws<'a>, challenge: String },
}

impl<'a> Said<'a> {
    /// Reads it.
    ///
    /// # Errors
    /// The sentence that says why it is no answer.
    pub(super) fn read(answer: &'a Record) -> Result<Self, String> {
        let token = answer.value.as_deref().ok_or("the answer has no value")?;
        if token.len() > MAX_TOKEN_BYTES {
            return Err(format!("the answer is larger than {MAX_TOKEN_BYTES} bytes"));
        }
        if let Ok(jws) = Jws::parse(token, TokenKind::Transaction) {
            let mut named = answer.headers.iter().filter(|header| header.name == CHALLENGE_HEADER);
            let (Some(header), None) = (named.next(), named.next()) else {
                return Err("a `txn-token` needs one header `challenge` to be an answer".to_owned());
            };
            let challenge = header.value.as_deref().and_then(|value| std::str::from_utf8(value).ok());
            let challenge = challenge.ok_or("the header `challenge` is no text")?.to_owned();
            return Ok(Self::Login { token, jws, challenge });
        }
        let jws = Jws::parse(token, TokenKind::StepUpGrant)
            .map_err(|error| format!("the answer is neither a `step-up-grant` nor a `txn-token`: {error}"))?;
        let claims =
            GrantClaims::read(jws.payload()).map_err(|error| format!("the `step-up-grant` {error}"))?;
        Ok(Self::Grant { jws, claims: Box::new(claims) })
    }

    fn challenge(&self) -> &str {
        match self {
            Self::Grant { claims, .. } => &claims.challenge,
            Self::Login { challenge, .. } => challenge,
        }
    }

    /// The kind of its token.
    pub(super) fn kind(&self) -> TokenKind {
        match self {
            Self::Grant { .. } => TokenKind::StepUpGrant,
            Self::Login { .. } => TokenKind::Transaction,
        }
    }
}

/// The challenge that an answer names, read without believing anything: where its payload has to be looked for.
pub(super) fn named(answer: &Record) -> Option<ChallengeId> {
    ChallengeId::parse(Said::read(answer).ok()?.challenge())
}
