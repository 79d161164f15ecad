//! What answers add up to. Limits: [`Discharged`] is made here alone, from answers that were counted and are still good, so
//! holding one is proof that enough have approved.

use std::collections::BTreeSet;

use super::entry::{Pending, Taken};
use super::holds::Holds;
use crate::authorize::ids::UnixMillis;

/// Proof that so many distinct approvers have approved of these step-ups.
#[derive(Debug)]
pub struct Discharged {
    names: BTreeSet<String>,
    approvers: BTreeSet<String>,
    // INVARIANT: keeps every other module from making one.
    _sealed: Sealed,
}

/// Nobody outside this file can name it.
#[derive(Debug)]
struct Sealed;

impl Discharged {
    /// What the approvals of a challenge for those step-ups come to at that moment.
    pub(super) fn by(
        pending: &Pending,
        names: &[String],
        now: UnixMillis,
        skew_s: u32,
        holds: &Holds,
    ) -> Self {
        Self::of(pending.approved(now, skew_s, holds), names)
    }

    /// What one grant comes to that a sender brought for those step-ups.
    pub(super) fn by_grant(taken: &Taken, names: &[String]) -> Self {
        Self::of(std::iter::once(taken), names)
    }

    fn of<'t>(approvals: impl Iterator<Item = &'t Taken>, names: &[String]) -> Self {
        Self {
            names: names.iter().cloned().collect(),
            approvers: approvals.map(|taken| taken.counted.approver.clone()).collect(),
            _sealed: Sealed,
        }
    }

    /// Whether so many have approved of that step-up.
    pub(in crate::authorize) fn covers(&self, name: &str, approvals: u32) -> bool {
        self.names.contains(name) && self.approvers.len() >= usize::try_from(approvals).unwrap_or(usize::MAX)
    }
}
