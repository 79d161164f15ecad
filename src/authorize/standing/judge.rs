//! The stage `standing` (contract, sections 5 and 8): everything of a record that a revocation may name, then its
//! workflow. Limits: what was issued when is taken from verified tokens alone; what no token says counts as older.

use std::borrow::Cow;

use super::registry::Standing;
use super::revocation::Kind;
use super::workflow::{Found, Registered, Status};
use crate::authorize::context::{Claimed, ClaimedSender};
use crate::authorize::decision::{Denial, Reason};
use crate::authorize::identity::{Transaction, Verified};
use crate::authorize::ids::{Digest, TrustDomain, UnixMillis, WorkloadId};
use crate::authorize::jose::KeySet;
use crate::authorize::policy::SubjectId;
use crate::authorize::provenance::Chain;
use crate::authorize::request::Workflow;
use crate::authorize::route::WorkflowRule;
use crate::authorize::trust::{Domain, Trust};

/// One thing that stands behind a record, as a revocation may name it.
#[derive(Debug, Clone, PartialEq)]
pub struct Named<'a> {
    /// What it is.
    pub kind: Kind,
    /// Its id.
    pub id: Cow<'a, str>,
    /// When it was issued, in seconds; `None` counts as older than every `not_before`.
    pub issued_at: Option<f64>,
    /// What it is of the record, for the sentence of a denial.
    pub role: &'static str,
}

impl Named<'_> {
    /// The same for longer than what it was read from.
    pub(in crate::authorize) fn into_owned(self) -> Named<'static> {
        Named { id: Cow::Owned(self.id.into_owned()), ..self }
    }
}

/// Everybody and everything behind a record, or behind a question over HTTP, once it is verified.
#[derive(Debug, Clone, Copy)]
pub(in crate::authorize) struct Parties<'a> {
    /// The tokens.
    pub(in crate::authorize) claimed: &'a Claimed<'a>,
    /// The sender and the transaction.
    pub(in crate::authorize) verified: &'a Verified,
    /// Who was there before.
    pub(in crate::authorize) chain: &'a Chain,
    /// The subject as an entity.
    pub(in crate::authorize) subject: Option<&'a SubjectId>,
}

impl Standing {
    /// Looks for a revocation that names one of these, or the workflow that they work in. A workflow is not issued, so it
    /// counts as older than every `not_before`.
    ///
    /// # Errors
    /// `revoked`, with the id of the revocation, what it names, and its reason.
    pub fn judge_named(
        &self,
        all: &[Named<'_>],
        workflow: Option<&Workflow>,
        now: UnixMillis,
    ) -> Result<(), Denial> {
        if !self.follows_revocations() {
            return Ok(());
        }
        let workflow = workflow.map(|workflow| Named {
            kind: Kind::Workflow,
            id: workflow.id.as_str().into(),
            issued_at: None,
            role: "the workflow",
        });
        for named in all.iter().chain(&workflow) {
            if let Some(found) = self.revocation(named.kind, &named.id, named.issued_at, now) {
                let why = found.reason.as_ref().map(|reason| format!(": {reason}")).unwrap_or_default();
                let detail = format!("the revocation `{}` names {}{why}", found.id, named.role);
                return Err(Denial::new(Reason::Revoked, detail));
            }
        }
        Ok(())
    }
}

/// Judges a record by its workflow, where it names one, and what the registry knows of it (contract, section 5).
///
/// # Errors
/// `workflow_unknown`, `workflow_ended` or `workflow_out_of_step`. A suspended workflow is at no step, so whatever is asked
/// in it is out of step; so is what says another type than the registry. Where the route takes registered workflows alone,
/// a record that names none is one of an unknown workflow: else leaving it out would be a way around its end.
pub fn judge_workflow(
    asked: Option<&Workflow>,
    registered: Option<&Found>,
    rule: WorkflowRule,
) -> Result<(), Denial> {
    let unknown = |detail| match rule {
        WorkflowRule::Registered => Err(Denial::new(Reason::WorkflowUnknown, detail)),
        WorkflowRule::Any => Ok(()),
    };
    let Some(asked) = asked else {
        return unknown("the record names no workflow, and this route takes registered ones alone");
    };
    match registered {
        None => {
            unknown("the registry does not know the workflow, and this route takes registered ones alone")
        }
        Some(Found::Ended(status)) => Err(Denial::new(
            Reason::WorkflowEnded,
            format!("the workflow has ended: the registry has it as {}", status.as_str()),
        )),
        Some(Found::Live(registered)) => judge_step(asked, registered),
    }
}

fn judge_step(asked: &Workflow, registered: &Registered) -> Result<(), Denial> {
    let out_of_step = |detail| Err(Denial::new(Reason::WorkflowOutOfStep, detail));
    if *asked.kind != *registered.kind {
        return out_of_step("the registry has the workflow as one of another type");
    }
    if registered.status == Status::Suspended {
        return out_of_step("the workflow is suspended, and may do nothing until it runs again");
    }
    if !registered.allows(&asked.step) {
        return out_of_step("the registry does not allow that step of the workflow now");
    }
    Ok(())
}

impl<'a> Parties<'a> {
    /// Everything that a revocation may name (contract, section 8), but for the workflow. What an earlier sender was issued
    /// is no longer on the record, so it counts as older.
    pub(in crate::authorize) fn named(&self, trust: &'a Trust) -> Vec<Named<'a>> {
        let Self { claimed, verified, chain, subject } = *self;
        let mut all = Names(Vec::with_capacity(16));
        all.sender(claimed, &verified.sender, trust);
        if let Some(presented) = &claimed.transaction {
            all.transaction(&presented.claims, presented.kid(), subject, trust);
        }
        for sender in &chain.senders {
            all.push(Kind::Workload, sender.as_str(), None, "an earlier sender");
            let domain = sender.trust_domain().as_str();
            all.push(Kind::TrustDomain, domain, None, "the trust domain of an earlier sender");
        }
        if let Some(presented) = &claimed.countersignature {
            let claims = &presented.claims;
            let issued = claims.times.issued_at;
            let domain = claims.gate.trust_domain();
            let keys = keys(trust, domain, |domain| &domain.gates);
            all.push(Kind::Workload, claims.gate.as_str(), issued, "the gate that countersigned");
            all.push(
                Kind::TrustDomain,
                domain.as_str(),
                issued,
                "the trust domain of the gate that countersigned",
            );
            all.push(Kind::Token, &claims.decision, issued, "the `countersignature`");
            all.maybe(Kind::Key, keys.key_id(presented.kid()), issued, "the key of the `countersignature`");
        }
        all.0
    }
}

/// What a revocation may name of a Txn-Token that stands for itself: the fresh one of a login.
pub(in crate::authorize) fn named_by_token<'a>(
    transaction: &'a Transaction,
    kid: Option<&'a str>,
    subject: Option<&'a SubjectId>,
    trust: &'a Trust,
) -> Vec<Named<'a>> {
    let mut all = Names(Vec::with_capacity(4));
    all.transaction(transaction, kid, subject, trust);
    all.0
}

struct Names<'a>(Vec<Named<'a>>);

impl<'a> Names<'a> {
    fn push(&mut self, kind: Kind, id: &'a str, issued_at: Option<f64>, role: &'static str) {
        self.0.push(Named { kind, id: id.into(), issued_at, role });
    }

    /// What has no id of its own is named by its digest, as the audit writes it.
    fn digest(&mut self, kind: Kind, digest: Digest, issued_at: Option<f64>, role: &'static str) {
        self.0.push(Named { kind, id: Cow::Owned(digest.to_string()), issued_at, role });
    }

    fn maybe(&mut self, kind: Kind, id: Option<&'a str>, issued_at: Option<f64>, role: &'static str) {
        if let Some(id) = id {
            self.push(kind, id, issued_at, role);
        }
    }

    /// The Txn-Token, and whom and what it is about.
    fn transaction(
        &mut self,
        transaction: &'a Transaction,
        kid: Option<&'a str>,
        subject: Option<&'a SubjectId>,
        trust: &'a Trust,
    ) {
        let issued = Some(transaction.issued_at);
        let keys = keys(trust, &transaction.domain, |domain| &domain.token_service);
        self.push(Kind::Transaction, &transaction.id, issued, "the transaction");
        self.maybe(Kind::Subject, subject.map(SubjectId::as_str), issued, "the subject");
        self.maybe(Kind::Token, transaction.jti.as_deref(), issued, "the `txn-token`");
        self.maybe(Kind::Key, keys.key_id(kid), issued, "the key of the `txn-token`");
    }

    /// The sender with its identity and its proof. One that proves nothing was issued nothing.
    fn sender(&mut self, claimed: &'a Claimed<'a>, sender: &'a WorkloadId, trust: &'a Trust) {
        let domain = sender.trust_domain();
        let mut issued = None;
        if let ClaimedSender::Signed { identity, proof, claims, .. } = &claimed.sender {
            let (wit, wpt) = (&identity.claims, claims.times.issued_at);
            issued = wit.times.issued_at;
            let keys = keys(trust, domain, |domain| &domain.bundle);
            self.maybe(Kind::Token, wit.jti.as_deref(), issued, "the `workload-identity-token`");
            let key = keys.key_id(identity.kid());
            self.maybe(Kind::Key, key, issued, "the key of the `workload-identity-token`");
            self.push(Kind::Token, &claims.proof.jti, wpt, "the `workload-proof-token`");
            // A proof is verified with the key of its identity, whatever name it gives to it itself.
            for kid in [wit.key_id.as_deref(), proof.kid()].into_iter().flatten() {
                self.push(Kind::Key, kid, wpt, "the key of the sender");
            }
        }
        if let Some(peer) = claimed.channel {
            let svid = peer.svid();
            // Seconds of a date, far below 2^53.
            let from = Some(svid.validity.from as f64);
            if matches!(claimed.sender, ClaimedSender::Channel(_)) {
                issued = from;
            }
            self.digest(Kind::Token, svid.thumbprint, from, "the client certificate");
            self.digest(Kind::Key, svid.key, from, "the key of the client certificate");
        }
        self.push(Kind::Workload, sender.as_str(), issued, "the sender");
        self.push(Kind::TrustDomain, domain.as_str(), issued, "the trust domain of the sender");
    }
}

fn keys<'t>(trust: &'t Trust, domain: &TrustDomain, of: impl Fn(&'t Domain) -> &'t KeySet) -> Keys<'t> {
    Keys(trust.domain(domain).map(of))
}

/// The keys of a domain that may have gone from the configuration.
struct Keys<'t>(Option<&'t KeySet>);

impl<'t> Keys<'t> {
    /// The `kid` of the key that verified a token: its own, or that of the only key there is.
    fn key_id<'a>(&self, kid: Option<&'a str>) -> Option<&'a str>
    where
        't: 'a,
    {
        kid.or_else(|| self.0?.only_kid())
    }
}

#[cfg(test)]
mod tests;
