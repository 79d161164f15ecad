//! The audit record while it is being found out: it begins with what stands on the record and gains each fact when that
//! fact is verified. Limits: a claim that was not verified never enters, however the decision ends.

use super::audit::{
    AuditAction, AuditControl, AuditError, AuditRecord, AuditRegistered, AuditResource, AuditTokenHash,
    AuditWorkflow,
};
use super::decision::Denial;
use super::digests::Hashes;
use super::engine::{Decision, Moment};
use super::identity::{Known, Transaction, Verified, accepted};
use super::ids::{Digest, Topic, WorkloadId};
use super::policy::{Allowed, Answer};
use super::provenance::Chain;
use super::record::{Record, TimestampType};
use super::request::{Request, Workflow};
use super::route::{Gate, Route};
use super::standing::Found;
use super::text::Text;
use super::traceparent::TraceParent;

/// An audit record without its outcome.
#[derive(Debug, Clone)]
pub(super) struct Draft(pub(super) AuditRecord);

impl Draft {
    /// What can be said of a record before anything is verified.
    pub(super) fn new(
        gate: &Gate,
        route: &Route,
        record: &Record,
        hashes: &Hashes,
        moment: &Moment<'_>,
    ) -> Self {
        let mut draft = Self::asked(gate, route, moment);
        let audit = &mut draft.0;
        audit.topic = record.source.topic.text();
        audit.partition = record.source.partition.0;
        audit.offset = record.source.offset.0;
        audit.timestamp = record.timestamp.map(|at| at.0);
        audit.timestamp_type = Text::fixed(record.timestamp_type.as_str());
        audit.accepted = accepted(record, route, moment.now).0;
        audit.token_hashes = token_hashes(hashes);
        audit.key_digest = hashes.key.map(|hash| hash.text());
        audit.value_digest = hashes.value.map(|hash| hash.text());
        audit.trace_id = TraceParent::of(record).map(TraceParent::trace_id_hex);
        draft
    }

    /// What can be said before anything is verified of what is asked without a record: it stands nowhere.
    pub(super) fn asked(gate: &Gate, route: &Route, moment: &Moment<'_>) -> Self {
        let snapshot = moment.snapshot;
        let control = [
            ("trust", snapshot.trust.version_text()),
            ("policy", snapshot.policy.digest_text()),
            ("entities", snapshot.entities.version()),
        ];
        let followed = snapshot.standing.written().iter().map(|(name, version)| (*name, version));
        Self(AuditRecord {
            decision_id: moment.id.to_string(),
            outcome: Text::fixed(""),
            reason: None,
            detail: None,
            realm: gate.realm.text(),
            topic: Text::fixed(""),
            partition: -1,
            offset: -1,
            timestamp: None,
            timestamp_type: Text::fixed(TimestampType::NotAvailable.as_str()),
            accepted: moment.now.0,
            decided: moment.now.0,
            gate: gate.id.text(),
            route: route.name.clone(),
            sender: None,
            proven: false,
            subject: None,
            subject_domain: None,
            chain: Vec::new(),
            continues_from: None,
            transaction: None,
            scope: Vec::new(),
            action: None,
            resource: None,
            workflow: None,
            registered: None,
            context: None,
            masked: Vec::new(),
            policies: Vec::new(),
            errors: Vec::new(),
            step_ups: Vec::new(),
            challenge: None,
            hold_until: None,
            discharged: Vec::new(),
            approvers: Vec::new(),
            answer: None,
            request_id: None,
            bundle: snapshot.policy.digest_text().clone(),
            bundle_version: snapshot.policy.version().cloned(),
            control: control
                .into_iter()
                .chain(followed)
                .map(|(name, version)| AuditControl { name: Text::fixed(name), version: version.clone() })
                .collect(),
            token_hashes: Vec::new(),
            key_digest: None,
            value_digest: None,
            trace_id: None,
            leaf_index: 0,
        })
    }

    /// What came with a request over HTTP.
    pub(super) fn presented(
        &mut self,
        presented: &[(&'static str, Digest)],
        request_id: Option<String>,
        trace: Option<TraceParent>,
    ) {
        self.0.token_hashes = presented.iter().map(|(name, hash)| AuditTokenHash::new(name, *hash)).collect();
        self.0.request_id = request_id;
        self.0.trace_id = trace.map(TraceParent::trace_id_hex);
    }

    /// That it was asked about somebody other than the caller.
    pub(super) fn about(&mut self, kind: &str, id: &str) {
        let short: String = id.chars().take(128).collect();
        self.0.detail = Some(format!("asked about {kind}::{short:?}"));
    }

    /// What had been verified when the identity stage refused the record.
    pub(super) fn known(&mut self, known: &Known) {
        self.0.sender = known.sender.as_ref().map(WorkloadId::text);
        self.transaction(known.transaction.as_deref());
    }

    /// Who sent the record, and on whose behalf.
    pub(super) fn verified(&mut self, verified: &Verified) {
        self.0.sender = Some(verified.sender.text());
        self.0.proven = verified.proven;
        self.transaction(verified.transaction.as_deref());
    }

    /// On whose behalf, once the Txn-Token held.
    pub(super) fn transaction(&mut self, transaction: Option<&Transaction>) {
        let Some(transaction) = transaction else { return };
        self.0.subject = Some(transaction.subject.clone());
        self.0.subject_domain = Some(transaction.domain.text());
        self.0.transaction = Some(transaction.id.clone());
        self.0.scope = transaction.scope.iter().cloned().collect();
    }

    /// What the countersignature proved.
    pub(super) fn chain(&mut self, chain: &Chain) {
        self.0.chain = chain.senders.iter().map(WorkloadId::text).collect();
        self.0.continues_from = chain.from.as_ref().map(Topic::text);
    }

    /// The action asked for and the resource.
    pub(super) fn request(&mut self, request: &Request) {
        let json = |properties: &Option<serde_json::Map<String, serde_json::Value>>| {
            properties.as_ref().and_then(|map| serde_json::to_string(map).ok())
        };
        self.0.action = Some(AuditAction {
            name: request.action.name.clone(),
            properties: json(&request.action.properties),
        });
        self.0.resource = Some(AuditResource {
            kind: request.resource.kind.clone(),
            id: request.resource.id.clone(),
            properties: json(&request.resource.properties),
        });
    }

    /// The workflow as the sender says, and what the registry knows of it.
    pub(super) fn workflow(&mut self, workflow: Option<&Workflow>, found: Option<&Found>) {
        self.0.workflow = workflow.map(|workflow| AuditWorkflow {
            id: workflow.id.clone(),
            kind: workflow.kind.clone(),
            step: workflow.step.clone(),
            state: workflow.state.clone(),
            attempt: workflow.attempt.and_then(|attempt| i64::try_from(attempt).ok()),
            started_at: workflow.started_at,
            deadline: workflow.deadline,
        });
        self.0.registered = found.map(|found| {
            let live = found.live();
            AuditRegistered {
                status: found.status().as_str().to_owned(),
                step: live.map(|live| live.step.to_string()),
                owner: live.map(|live| live.owner.to_string()),
                version: live.map(|live| live.version),
            }
        });
    }

    /// What the policies said.
    pub(super) fn answer(&mut self, answer: &mut Answer) {
        self.0.context = answer.context_json.take();
        self.0.masked = std::mem::take(&mut answer.masked);
        self.0.policies.clone_from(&answer.determining);
        self.0.errors = answer
            .errors
            .iter()
            .map(|(policy, message)| AuditError { policy: policy.clone(), message: message.clone() })
            .collect();
        self.0.step_ups = answer.step_ups.iter().map(|ask| ask.policy.clone()).collect();
    }

    /// The whole record of what was asked over HTTP, with how it ended.
    pub(super) fn answered(mut self, decided: &Result<Allowed, Denial>) -> AuditRecord {
        let audit = &mut self.0;
        match decided {
            Ok(_) => audit.outcome = Text::fixed("allow"),
            Err(denial) => {
                audit.outcome = Text::fixed("deny");
                audit.reason = Some(Text::fixed(denial.reason.as_str()));
                audit.detail = Some(match audit.detail.take() {
                    Some(about) => format!("{about}: {}", denial.detail),
                    None => denial.detail.clone(),
                });
            }
        }
        self.0
    }

    /// The whole record, with how it ended.
    pub(super) fn finish(mut self, decision: &Decision) -> AuditRecord {
        match decision {
            Decision::Forward(_) => self.0.outcome = Text::fixed("forward"),
            Decision::Deny(denial) => {
                self.0.outcome = Text::fixed("deny");
                self.0.reason = Some(Text::fixed(denial.reason.as_str()));
                self.0.detail = Some(denial.detail.clone());
            }
            Decision::Hold => self.0.outcome = Text::fixed("hold"),
            Decision::Wait => self.0.outcome = Text::fixed("wait"),
            Decision::Answer => self.0.outcome = Text::fixed("answer"),
        }
        self.0
    }
}

/// The hash of every token header on the record, in its order: what is on a record is evidence even if it is refused.
fn token_hashes(hashes: &Hashes) -> Vec<AuditTokenHash> {
    hashes.tokens.iter().map(|(kind, hash)| AuditTokenHash::new(kind.header_name(), *hash)).collect()
}
