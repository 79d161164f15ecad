//! What a piece of work is known by, and whether a signal concerns it. Pure. Limits: what a worker cannot see, such as
//! when the sender's WIT was issued, counts as old enough to be revoked.

use std::collections::BTreeSet;

use super::Received;
use crate::authorize::ids::{TrustDomain, UnixMillis, WorkloadId};
use crate::authorize::policy::SubjectId;
use crate::wire::signal::{About, Event, Signal};

/// The names of one piece of work, and its moments.
#[derive(Debug, Clone)]
pub(super) struct Marks {
    /// Everything that a signal could name it by, the subject in both of its spellings.
    names: Vec<About>,
    subject: Option<(String, TrustDomain)>,
    /// `jti` of the Txn-Token, where it has one.
    transaction_token: Option<String>,
    /// `iat` of the Txn-Token.
    transaction_issued_at: Option<f64>,
    /// When the gate decided.
    pub(super) decided_at: UnixMillis,
}

impl Marks {
    pub(super) fn of(received: &Received) -> Self {
        let workloads = [&received.sender, &received.gate].into_iter().chain(&received.earlier_senders);
        let workloads: BTreeSet<&WorkloadId> = workloads.collect();
        let domains: BTreeSet<&TrustDomain> = workloads.iter().map(|id| id.trust_domain()).collect();
        let mut names: Vec<About> = workloads.iter().map(|id| About::Workload((*id).clone())).collect();
        names.extend(domains.into_iter().cloned().map(About::TrustDomain));
        names.extend(received.keys.iter().cloned().map(About::Key));
        names.push(About::Token(received.decision.clone()));
        names.extend(received.workflow.iter().map(|workflow| About::Workflow(workflow.id.clone())));
        let mut marks = Self {
            names,
            subject: None,
            transaction_token: None,
            transaction_issued_at: None,
            decided_at: received.decided_at,
        };
        if let Some(transaction) = &received.transaction {
            let (subject, domain) = (&transaction.subject, &transaction.domain);
            marks.names.push(About::Transaction(transaction.id.clone()));
            marks.names.push(About::Subject(subject.clone()));
            marks.names.push(About::Subject(format!("{domain}/{subject}")));
            marks.names.extend(transaction.jti.iter().cloned().map(About::Token));
            marks.subject = Some((subject.clone(), domain.clone()));
            marks.transaction_token.clone_from(&transaction.jti);
            marks.transaction_issued_at = Some(transaction.issued_at);
        }
        marks
    }

    pub(super) fn names(&self) -> &[About] {
        &self.names
    }

    /// Whether a signal that `gate` issued at `issued_at` stops this work at `now`. Work that was decided more than
    /// `known_after_ms` after it was decided in view of it, and allowed all the same.
    pub(super) fn are_concerned(
        &self,
        (gate, issued_at): (&WorkloadId, UnixMillis),
        signal: &Signal,
        now: UnixMillis,
        known_after_ms: i64,
    ) -> bool {
        self.are_named(gate, &signal.about)
            && self.decided_at.0 <= issued_at.0.saturating_add(known_after_ms)
            && match signal.event {
                Event::WorkflowEnded(_) | Event::WorkflowSuspended => true,
                Event::Revoked { not_before, expires_at } => {
                    not_before.is_none_or(|date| self.may_be_older(&signal.about, date))
                        && expires_at.is_none_or(|end| now.as_seconds() <= end)
                }
            }
    }

    fn are_named(&self, gate: &WorkloadId, about: &About) -> bool {
        match (about, &self.subject) {
            // Which spelling is meant depends on the gate: a `sub` without a domain is of the gate's own.
            (About::Subject(id), Some((subject, domain))) => {
                SubjectId::new(subject, domain, gate.trust_domain()).as_str() == id
            }
            (About::Subject(_), None) => false,
            _ => self.names.contains(about),
        }
    }

    /// Whether what is named was issued before that date, or may have been.
    fn may_be_older(&self, about: &About, date: f64) -> bool {
        let issued_at = match about {
            About::Subject(_) | About::Transaction(_) => self.transaction_issued_at,
            About::Token(id) if self.transaction_token.as_ref() == Some(id) => self.transaction_issued_at,
            About::Token(_) => Some(self.decided_at.as_seconds()),
            About::Workload(_) | About::Key(_) | About::Workflow(_) | About::TrustDomain(_) => None,
        };
        issued_at.is_none_or(|issued_at| issued_at < date)
    }
}
