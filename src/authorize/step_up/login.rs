//! A login that was refreshed: a fresh Txn-Token that was given as the answer to a challenge (contract, section 7). It is
//! verified when it is taken in, and again in every decision about the held record. Limits: it is no approval. Nothing of it
//! counts but how the subject has logged in; scope, details, requester and all else stay those of the record's own token.

use std::fmt;

use serde::{Deserialize, Serialize};

use super::challenge::Challenge;
use super::grant::{Judge, Unfit};
use super::settle::Settling;
use crate::authorize::claims::{Authentication, Judged, Transaction};
use crate::authorize::draft::Draft;
use crate::authorize::identity::{Verified, check_signature};
use crate::authorize::ids::{TrustDomain, UnixMillis};
use crate::authorize::jose::{Jws, TokenKind, token_hash};
use crate::authorize::policy::SubjectId;
use crate::authorize::standing;

/// The fresh token that is kept with a hold. It is a live credential: beside memory it stands in the holds topic alone.
#[derive(Clone, PartialEq, Serialize, Deserialize)]
pub(super) struct FreshLogin {
    token: String,
    /// `iat`, in seconds.
    pub(super) issued_at: f64,
    /// Whether the record is to be decided again because of it.
    pub(super) due: bool,
}

// By hand: the token is a live credential.
impl fmt::Debug for FreshLogin {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("FreshLogin")
            .field("issued_at", &self.issued_at)
            .field("due", &self.due)
            .finish_non_exhaustive()
    }
}

impl FreshLogin {
    /// One that was just taken in. `None` where its bytes are no text, which no compact JWS is.
    pub(super) fn new(token: &[u8], issued_at: f64) -> Option<Self> {
        Some(Self { token: std::str::from_utf8(token).ok()?.to_owned(), issued_at, due: true })
    }

    /// Whether it is that very token.
    pub(super) fn is(&self, token: &[u8]) -> bool {
        self.token.as_bytes() == token
    }

    /// The same once the record was decided by it.
    fn decided(&self) -> Self {
        Self { due: false, ..self.clone() }
    }
}

/// Whose login it must be: that of the held record's transaction.
#[derive(Clone, Copy)]
pub(super) struct Whose<'a> {
    /// The trust domain of the record's sender, whose token service must have signed it.
    pub(super) domain: &'a TrustDomain,
    /// `txn`.
    pub(super) transaction: &'a str,
    /// The subject, as the id of the entity that policies see.
    pub(super) subject: &'a str,
}

impl Judge<'_> {
    /// Whether a Txn-Token holds at *N* and is of that transaction: algorithm, key and signature, audience, time, `txn` and
    /// `sub`, revocations.
    ///
    /// # Errors
    /// The sentence that says what does not hold.
    pub(super) fn check_login(
        &self,
        transaction: &Transaction,
        jws: &Jws<'_>,
        whose: &Whose<'_>,
    ) -> Result<(), String> {
        let kind = TokenKind::Transaction;
        let trust = &self.snapshot.trust;
        check_signature(kind, jws, whose.domain, |domain| &domain.token_service, trust)
            .map_err(|denial| denial.detail)?;
        let fail = |problem: &str| Err(format!("the `txn-token` {problem}"));
        if !transaction.audience.contains(whose.domain.as_str()) {
            return fail("is not meant for the trust domain of the held record's sender");
        }
        match transaction.times().judge(self.now, self.skew_s) {
            Judged::Valid => {}
            Judged::Expired => return fail("has expired"),
            Judged::NotYetValid => return fail("is not yet valid"),
        }
        if transaction.id != whose.transaction {
            return fail("is of another transaction than the held record's");
        }
        let subject = SubjectId::new(&transaction.subject, whose.domain, self.gate.id.trust_domain());
        if subject.as_str() != whose.subject {
            return fail("is of another subject than the held record's");
        }
        let named = standing::named_by_token(transaction, jws.kid(), Some(&subject), trust);
        let judged = self.snapshot.standing.judge_named(&named, None, self.now);
        judged.map_err(|denial| denial.detail)
    }

    /// Whether a login is what a step-up of the challenge asks for, and was had for the challenge that was asked at `asked_at`.
    pub(super) fn meets(
        &self,
        transaction: &Transaction,
        challenge: &Challenge,
        asked_at: UnixMillis,
    ) -> Result<(), Unfit> {
        let (login, skew_ms) = (&transaction.authentication, i64::from(self.skew_s) * 1000);
        let millis = |seconds: f64| (seconds * 1000.0) as i64;
        if millis(transaction.issued_at).saturating_add(skew_ms) < asked_at.0 {
            return Err(Unfit::Invalid("the `txn-token` was issued before the challenge was asked"));
        }
        if login.auth_time.is_some_and(|at| millis(at) > self.now.0.saturating_add(skew_ms)) {
            return Err(Unfit::Invalid("the login of the `txn-token` lies in the future"));
        }
        let mut asks = challenge.step_ups.iter().filter(|ask| ask.is_of_login()).peekable();
        if asks.peek().is_none() {
            return Err(Unfit::Invalid("the challenge asks for no login"));
        }
        match asks.any(|ask| login.meets(ask.acr_values.as_deref(), ask.max_age_s, self.now)) {
            true => Ok(()),
            false => Err(Unfit::Invalid("the login is not as strong, or not as recent, as is asked for")),
        }
    }
}

impl Settling<'_> {
    /// How the subject has logged in by the fresh token that is kept with the hold: in the policies' context it stands in the
    /// place of what the record's own token says. `None` where there is none, or where it holds no longer, so that the
    /// step-up stands; such a one is kept no more.
    pub(in crate::authorize) fn login(
        &mut self,
        verified: &Verified,
        subject: Option<&SubjectId>,
        skew_s: u32,
        draft: &mut Draft,
    ) -> Option<Authentication> {
        let kept = self.resumed.as_ref()?.entry.pending()?.login.clone()?;
        let (transaction, subject) = (verified.transaction.as_ref()?, subject?);
        let whose = Whose {
            domain: verified.sender.trust_domain(),
            transaction: &transaction.id,
            subject: subject.as_str(),
        };
        let verify = || -> Result<Transaction, String> {
            let token = kept.token.as_bytes();
            let jws = Jws::parse(token, TokenKind::Transaction).map_err(|error| error.to_string())?;
            let fresh = Transaction::read(jws.payload(), whose.domain.clone(), token_hash(token))
                .map_err(|error| error.to_string())?;
            self.judge(skew_s).check_login(&fresh, &jws, &whose)?;
            Ok(fresh)
        };
        match verify() {
            Ok(fresh) => {
                draft.login(fresh.hash);
                self.login = Some(Box::new(kept.decided()));
                Some(fresh.authentication)
            }
            Err(problem) => {
                draft.login_lapsed(&problem);
                None
            }
        }
    }
}
