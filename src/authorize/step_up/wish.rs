//! What a caller over HTTP would be allowed if somebody agreed, and what a person is asked about it. Limits: it asks nobody
//! yet; the docket does, once for all that wish the same.

use serde::Serialize;
use uuid::Uuid;

use super::ask::{Place, Question, digest, names};
use super::challenge::{Asker, Challenge, ChallengeId};
use super::entry::Pending;
use crate::authorize::case::Case;
use crate::authorize::engine::Moment;
use crate::authorize::ids::{DecisionId, Digest, Partition, UnixMillis};
use crate::authorize::limits::MAX_ASKED_BYTES;
use crate::authorize::policy::StepUp;
use crate::authorize::request::Request;
use crate::authorize::route::Gate;

/// What would be allowed if its step-ups were discharged.
#[derive(Debug)]
pub(in crate::authorize) struct Wish {
    /// The challenge; who asks, and where answers are read, is the docket's to say.
    pub(super) challenge: Challenge,
    pub(super) pending: Pending,
    /// Of the request, with the names of its step-ups.
    pub(in crate::authorize) digest: Digest,
    /// The decision that is made.
    pub(in crate::authorize) decision: DecisionId,
    pub(super) now: UnixMillis,
    pub(super) skew_s: u32,
}

impl Wish {
    /// What somebody is asked about a caller's own evaluation; `None` where the route does not hold, where only a login is
    /// asked for, where there is more to it than anybody would read, or where it has no canonical form.
    pub(in crate::authorize) fn of(
        gate: &Gate,
        case: &Case<'_>,
        step_ups: &[StepUp],
        moment: &Moment<'_>,
    ) -> Option<Self> {
        let holding = case.route.holding.as_ref()?;
        // No approval discharges a login: whoever logs in anew asks anew, and is asked nothing more.
        if step_ups.iter().all(StepUp::is_of_login) || size(case.request) > MAX_ASKED_BYTES {
            return None;
        }
        let digest = digest(case, &names(step_ups)).ok()?;
        let question = Question { gate, moment, case, step_ups, holding, digest };
        let pending = question.pending(Vec::new());
        let id =
            ChallengeId { asker: Asker::Desk(Uuid::nil()), partition: Partition(0), decision: moment.id };
        let challenge = question.challenge(&pending, &Place { id, topic: String::new(), offset: -1 });
        let (decision, now, skew_s) = (moment.id, moment.now, case.route.skew_s);
        Some(Self { challenge, pending, digest, decision, now, skew_s })
    }
}

/// How much there is to read, and to keep.
fn size(request: &Request) -> usize {
    let Request { action, resource, workflow, .. } = request;
    [bytes(action), bytes(resource), bytes(workflow)].into_iter().fold(0, usize::saturating_add)
}

fn bytes(part: &impl Serialize) -> usize {
    serde_json::to_string(part).map_or(usize::MAX, |text| text.len())
}
