//! Who is a party of a challenge. Limits: what the lane decides about an answer is decided there, with the
//! policies and entities of that moment.

use super::Service;
use crate::authorize::login::Login;
use crate::authorize::step_up::Challenge;

/// The entity type of workloads.
const WORKLOAD: &str = "Workload";

impl Service {
    /// Whether the approver is the sender, the subject or an earlier sender (contract, section 7): compared as entities.
    pub(super) fn is_party(&self, login: &Login, challenge: &Challenge) -> bool {
        let id = login.approver();
        let is_workload = login.entity_type() == WORKLOAD
            && (challenge.sender == id || challenge.chain.iter().any(|sender| sender == id));
        let is_subject =
            login.entity_type() == self.approvals.subject_type && challenge.subject.as_deref() == Some(id);
        is_workload || is_subject
    }
}
