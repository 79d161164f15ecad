//! One answer against what it answers (contract, section 7): signature, audience, time, digest, who gave it, and whether
//! the policies let them. Limits: when the broker took it, and what it adds up to with others, is for whoever asks.

use super::challenge::CountedAnswer;
use super::entry::{Hash16, Taken};
use super::holds::Holds;
use super::sentence::comment;
use crate::authorize::claims::{GrantClaims, Judged, Verdict};
use crate::authorize::engine::Snapshot;
use crate::authorize::ids::{UnixMillis, WorkloadId};
use crate::authorize::jose::{Algorithm, Jws, KeyChoice, KeySet};
use crate::authorize::policy::{AnswerFacts, SubjectId};
use crate::authorize::request::{Action, Resource, Workflow};
use crate::authorize::route::Gate;

/// Characters of `sub` and `jti` of an answer: both are remembered.
const LONGEST_NAME: usize = 256;

/// What an answer is judged by.
#[derive(Clone, Copy)]
pub(super) struct Judge<'a> {
    pub(super) gate: &'a Gate,
    pub(super) snapshot: &'a Snapshot,
    pub(super) now: UnixMillis,
    pub(super) skew_s: u32,
}

/// What is answered.
#[derive(Clone, Copy)]
pub(super) struct About<'a> {
    pub(super) challenge: &'a str,
    pub(super) digest: &'a str,
    pub(super) route: &'a str,
    pub(super) step_ups: &'a [String],
    pub(super) asked_at: Option<UnixMillis>,
    pub(super) hold_until: Option<UnixMillis>,
    pub(super) approvals: u32,
    /// The shortest life of a grant among the step-ups.
    pub(super) grant_s: i64,
    pub(super) sender: &'a WorkloadId,
    pub(super) subject: Option<&'a SubjectId>,
    pub(super) senders: &'a [WorkloadId],
    pub(super) action: &'a Action,
    pub(super) resource: &'a Resource,
    pub(super) workflow: Option<&'a Workflow>,
    pub(super) value: Option<&'a serde_json::Map<String, serde_json::Value>>,
}

/// Why an answer counts for nothing.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) enum Unfit {
    /// Its signature, audience, time or digest does not hold.
    Invalid(&'static str),
    /// The approver is the sender, the subject or an earlier sender.
    Requester,
    /// The grant was used before.
    Spent,
    /// The policies do not let this approver answer.
    NotPermitted(String),
}

impl Unfit {
    /// The `answer.effect` of an audit record.
    pub(super) fn effect(&self) -> &'static str {
        match self {
            Self::Invalid(_) => "invalid",
            Self::Requester => "requester",
            Self::Spent => "spent",
            Self::NotPermitted(_) => "not_permitted",
        }
    }

    /// The sentence that goes with it: lowercase, without a token.
    pub(super) fn detail(&self) -> String {
        match self {
            Self::Invalid(problem) => (*problem).to_owned(),
            Self::Requester => "the approver is the sender, the subject or an earlier sender".to_owned(),
            Self::Spent => "the grant was used before".to_owned(),
            Self::NotPermitted(detail) => detail.clone(),
        }
    }
}

/// An answer whose signature holds.
pub(super) struct Signed<'a> {
    claims: &'a GrantClaims,
    entity_type: &'a str,
    /// Where the approver proved who it is.
    issuer: &'a str,
    /// The approver as an entity: one text for each.
    pub(super) approver: String,
    pub(super) grant: Hash16,
}

impl Signed<'_> {
    /// What the approver says.
    pub(super) fn decision(&self) -> Verdict {
        self.claims.decision
    }
}

impl<'a> Judge<'a> {
    /// Algorithm, key and signature, then audience, then time at *N*.
    pub(super) fn verify(&self, claims: &'a GrantClaims, jws: &Jws<'_>) -> Result<Signed<'a>, Unfit> {
        let invalid = |problem| Err(Unfit::Invalid(problem));
        let voucher = self.voucher(claims)?;
        check_signature(&voucher, jws)?;
        if !claims.audience.is_only(self.gate.realm.as_str()) {
            return invalid("it is not made out for this realm alone");
        }
        match claims.times.judge(self.now, self.skew_s) {
            Judged::Valid => {}
            Judged::Expired => return invalid("it has expired"),
            Judged::NotYetValid => return invalid("it is not yet valid"),
        }
        let bounded = |text: &str| (1..=LONGEST_NAME).contains(&text.chars().count());
        if ![claims.subject.as_str(), &claims.jti, voucher.entity_type].into_iter().all(bounded) {
            return invalid("its `sub`, `sub_type` or `jti` is empty, or longer than 256 characters");
        }
        let (kind, id) = (voucher.entity_type, &claims.subject);
        Ok(Signed {
            claims,
            entity_type: kind,
            issuer: voucher.login_issuer,
            approver: format!("{kind}::\"{}\"", id.escape_debug()),
            grant: Hash16::of_grant(&claims.issuer, &claims.jti),
        })
    }

    /// Whose word an answer is: that of a configured issuer of approvers, or of a gate of this gate's own trust domain that
    /// has verified the approver's login and says its entity type.
    fn voucher(&self, claims: &'a GrantClaims) -> Result<Voucher<'a>, Unfit> {
        let trust = &self.snapshot.trust;
        if let Some(approvers) = trust.others().approvers.get(&claims.issuer) {
            return Ok(Voucher {
                algorithms: &approvers.issuer.algorithms,
                keys: &approvers.issuer.keys,
                entity_type: &approvers.entity_type,
                login_issuer: &claims.issuer,
            });
        }
        let home = self.gate.id.trust_domain();
        let is_of_home = WorkloadId::parse(&claims.issuer).is_ok_and(|gate| gate.trust_domain() == home);
        let domain = trust.domain(home).filter(|_| is_of_home);
        let domain = domain.ok_or(Unfit::Invalid("its issuer is not configured"))?;
        let (Some(entity_type), Some(login_issuer)) = (&claims.subject_type, &claims.login_issuer) else {
            return Err(Unfit::Invalid("it is signed by a gate and does not say who logged in where"));
        };
        Ok(Voucher { algorithms: &domain.algorithms, keys: &domain.gates, entity_type, login_issuer })
    }

    /// Whether a signed answer may count for what it answers; `taken` is when the gate came to have it.
    pub(super) fn count(
        &self,
        signed: &Signed<'_>,
        about: &About<'_>,
        taken: UnixMillis,
        holds: &Holds,
    ) -> Result<Taken, Unfit> {
        let claims = signed.claims;
        if claims.digest != about.digest {
            return Err(Unfit::Invalid("its digest is of another request"));
        }
        let facts = self.facts(signed, about);
        if self.snapshot.policy.is_party(&facts) {
            return Err(Unfit::Requester);
        }
        if holds.is_spent(signed.grant) {
            return Err(Unfit::Spent);
        }
        let policy = &self.snapshot.policy;
        if let Err(denial) = policy.may_answer(&self.snapshot.entities, &facts) {
            return Err(Unfit::NotPermitted(denial.detail));
        }
        let millis = |seconds: f64| (seconds * 1000.0) as i64;
        let expires = millis(claims.times.expires_at);
        let life = millis(claims.issued_at).saturating_add(about.grant_s.saturating_mul(1000));
        Ok(Taken {
            counted: CountedAnswer {
                approver: signed.approver.clone(),
                decision: claims.decision.as_str().to_owned(),
                jti: claims.jti.clone(),
                answered_at: taken.0,
                grant_until: expires.min(life),
                comment: claims.comment.as_deref().map(comment),
            },
            grant: signed.grant,
            expires: UnixMillis(expires),
        })
    }

    fn facts<'f>(&self, signed: &Signed<'f>, about: &About<'f>) -> AnswerFacts<'f> {
        let claims = signed.claims;
        AnswerFacts {
            now: self.now,
            approver: (signed.entity_type, &claims.subject),
            challenge: about.challenge,
            route: about.route,
            step_ups: about.step_ups,
            asked_at: about.asked_at,
            hold_until: about.hold_until,
            approvals: about.approvals,
            sender: about.sender,
            subject: about.subject,
            senders: about.senders,
            action: about.action,
            resource: about.resource,
            workflow: about.workflow,
            value: about.value,
            decision: claims.decision.as_str(),
            issuer: signed.issuer,
            issued_at: claims.issued_at,
            acr: claims.acr.as_deref(),
            amr: claims.amr.as_deref(),
            auth_time: claims.auth_time,
        }
    }
}

/// Whose word an answer is.
struct Voucher<'a> {
    algorithms: &'a [Algorithm],
    keys: &'a KeySet,
    entity_type: &'a str,
    login_issuer: &'a str,
}

fn check_signature(issuer: &Voucher<'_>, jws: &Jws<'_>) -> Result<(), Unfit> {
    let algorithm = Algorithm::parse(jws.alg())
        .filter(|algorithm| issuer.algorithms.contains(algorithm))
        .ok_or(Unfit::Invalid("it is signed with an algorithm that its issuer is not allowed"))?;
    let key = issuer.keys.select(jws.kid(), algorithm).map_err(|choice| {
        Unfit::Invalid(match choice {
            KeyChoice::Unknown => "it is signed with a key that its issuer does not have",
            KeyChoice::WrongAlgorithm => "it is signed with an algorithm that is not its key's",
        })
    })?;
    match key.verify(algorithm, jws.signing_input(), jws.signature()) {
        true => Ok(()),
        false => Err(Unfit::Invalid("its signature does not hold")),
    }
}
