//! What a piece of work is known by, and whether a signal concerns it. Pure. Limits: what a worker cannot see, such as
//! when the sender's WIT was issued, counts as old enough to be revoked.

use std::collections::BTreeSet;

use super::Received;
use crate::authorize::ids::{TrustDomain, UnixMillis, WorkloadId};
use crate::authorize::policy::SubjectId;
use crate::authorize::standing::{Kind, Target};
use crate::wire::signal::{Event, Signal};

/// The names of one piece of work, and its moments.
#[derive(Debug, Clone)]
pub(super) struct Marks {
    /// Everything that a signal could name it by, the subject in both of its spellings.
    names: Vec<Target>,
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
        let mut names: Vec<Target> = workloads.iter().map(|id| named(Kind::Workload, id.as_str())).collect();
        names.extend(domains.iter().map(|domain| named(Kind::TrustDomain, domain.as_str())));
        names.extend(received.keys.iter().map(|kid| named(Kind::Key, kid)));
        names.push(named(Kind::Token, &received.decision));
        names.extend(received.workflow.iter().map(|workflow| named(Kind::Workflow, &workflow.id)));
        let mut marks = Self {
            names,
            subject: None,
            transaction_token: None,
            transaction_issued_at: None,
            decided_at: received.decided_at,
        };
        if let Some(transaction) = &received.transaction {
            let (subject, domain) = (&transaction.subject, &transaction.domain);
            marks.names.push(named(Kind::Transaction, &transaction.id));
            marks.names.push(named(Kind::Subject, subject));
            marks.names.push(named(Kind::Subject, &format!("{domain}/{subject}")));
            marks.names.extend(transaction.jti.iter().map(|jti| named(Kind::Token, jti)));
            marks.subject = Some((subject.to_string(), domain.clone()));
            marks.transaction_token.clone_from(&transaction.jti);
            marks.transaction_issued_at = Some(transaction.issued_at);
        }
        marks
    }

    pub(super) fn names(&self) -> &[Target] {
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
                Event::Workflow(_) => true,
                Event::Revoked { not_before, expires_at } => {
                    not_before.is_none_or(|date| self.may_be_older(&signal.about, date))
                        && expires_at.is_none_or(|end| now.as_seconds() <= end)
                }
            }
    }

    fn are_named(&self, gate: &WorkloadId, about: &Target) -> bool {
        match (about.kind, &self.subject) {
            // Which spelling is meant depends on the gate: a `sub` without a domain is of the gate's own.
            (Kind::Subject, Some((subject, domain))) => {
                SubjectId::new(subject, domain, gate.trust_domain()).as_str() == &*about.id
            }
            (Kind::Subject, None) => false,
            _ => self.names.contains(about),
        }
    }

    /// Whether what is named was issued before that date, or may have been.
    fn may_be_older(&self, about: &Target, date: f64) -> bool {
        let issued_at = match about.kind {
            Kind::Subject | Kind::Transaction => self.transaction_issued_at,
            Kind::Token if self.transaction_token.as_deref() == Some(&*about.id) => {
                self.transaction_issued_at
            }
            Kind::Token => Some(self.decided_at.as_seconds()),
            Kind::Workload | Kind::Key | Kind::Workflow | Kind::TrustDomain => None,
        };
        issued_at.is_none_or(|issued_at| issued_at < date)
    }
}

fn named(kind: Kind, id: &str) -> Target {
    Target { kind, id: id.into() }
}
