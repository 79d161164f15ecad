//! One verified record with its request, or what is asked without one, as the policies are asked about it: who is asked as
//! principal, and the facts that a context may be built from (contract, section 10). Limits: it borrows what was verified
//! and adds nothing.

use super::decision::{Denial, Reason};
use super::identity::Verified;
use super::ids::UnixMillis;
use super::policy::{
    Facts, MessageFacts, Principal, ProvenanceFacts, SubjectId, TransactionFacts, WorkflowFacts,
};
use super::provenance::Chain;
use super::record::Record;
use super::request::{Evidence, Request, TransactionClaims};
use super::route::{Party, Route};
use super::standing::Found;
use super::text::Text;

/// Everything that is known about a record, or of who asks without one, once the request is.
#[derive(Debug, Clone, Copy)]
pub(super) struct Case<'a> {
    /// `None` where it is asked over HTTP.
    pub(super) record: Option<&'a Record>,
    pub(super) route: &'a Route,
    pub(super) verified: &'a Verified,
    pub(super) chain: &'a Chain,
    pub(super) request: &'a Request,
    pub(super) registered: Option<&'a Found>,
    pub(super) subject: Option<&'a SubjectId>,
}

impl<'a> Case<'a> {
    /// The route's principal first, then each of its parties, none twice.
    ///
    /// # Errors
    /// `not_permitted` where the subject must be allowed and the record names none: what is missing is never allowed.
    pub(super) fn principals(&self) -> Result<Vec<Principal<'a>>, Denial> {
        let route = self.route;
        let mut principals = Vec::with_capacity(1 + route.parties.len());
        for party in std::iter::once(&route.principal).chain(&route.parties) {
            for principal in self.of(*party)? {
                if !principals.contains(&principal) {
                    principals.push(principal);
                }
            }
        }
        Ok(principals)
    }

    fn of(&self, party: Party) -> Result<Vec<Principal<'a>>, Denial> {
        match party {
            Party::Sender => Ok(vec![Principal::Workload(&self.verified.sender)]),
            Party::Senders => Ok(self.chain.senders.iter().map(Principal::Workload).collect()),
            Party::Subject => match self.subject {
                Some(subject) => Ok(vec![Principal::Subject(subject)]),
                None => Err(Denial::new(
                    Reason::NotPermitted,
                    "the subject must be allowed, and the record has no `txn-token` that names one",
                )),
            },
        }
    }

    /// What the gate offers to a context.
    pub(super) fn facts(&self, now: UnixMillis) -> Facts<'a> {
        let Request { action, resource, workflow, value } = self.request;
        Facts {
            now,
            message: self.record.map(|record| MessageFacts {
                topic: record.source.topic.as_str(),
                partition: record.source.partition,
                offset: record.source.offset,
                accepted: self.verified.accepted,
            }),
            sender: &self.verified.sender,
            subject: self.subject,
            transaction: self.verified.transaction.as_ref().map(|transaction| TransactionFacts {
                token: Some(transaction.hash),
                id: &transaction.id,
                scope: transaction.scope.iter().map(Text::as_str).collect(),
                requester: &transaction.requester,
                issued_at: transaction.issued_at,
                expires_at: transaction.expires_at,
                tctx: transaction.tctx.as_ref(),
                rctx: transaction.rctx.as_ref(),
                acr: transaction.authentication.acr.as_deref(),
                amr: transaction.authentication.amr.as_deref(),
                auth_time: transaction.authentication.auth_time,
            }),
            workflow: workflow.as_ref().map(|workflow| WorkflowFacts {
                id: &workflow.id,
                kind: &workflow.kind,
                step: &workflow.step,
                state: &workflow.state,
                attempt: workflow.attempt,
                started_at: workflow.started_at,
                deadline: workflow.deadline,
                registered: self.registered,
            }),
            provenance: ProvenanceFacts {
                proven: self.verified.proven,
                from: self.chain.from.as_ref().map(|topic| topic.as_str()),
                senders: &self.chain.senders,
            },
            action: &action.name,
            action_properties: action.properties.as_ref(),
            resource_type: &resource.kind,
            resource_id: &resource.id,
            resource_properties: resource.properties.as_ref(),
            value: value.as_ref(),
            mask: &self.route.mask,
        }
    }
}

/// What a mapping may read besides the record itself.
pub(super) fn evidence(verified: &Verified) -> Evidence<'_> {
    let proof = verified.proof.as_deref();
    Evidence {
        sender: verified.sender.as_str(),
        proven: verified.proven,
        signed_headers: proof
            .and_then(|proof| proof.signed_headers.as_ref())
            .map_or(&[], |signed| signed.names.as_slice()),
        action: proof.and_then(|proof| proof.action.as_ref()),
        resource: proof.and_then(|proof| proof.resource.as_ref()),
        workflow: proof.and_then(|proof| proof.workflow.as_ref()),
        transaction: verified.transaction.as_deref().map(|transaction| TransactionClaims {
            id: &transaction.id,
            scope: &transaction.scope,
            subject: &transaction.subject,
            requester: &transaction.requester,
            tctx: transaction.tctx.as_ref(),
            rctx: transaction.rctx.as_ref(),
        }),
    }
}
