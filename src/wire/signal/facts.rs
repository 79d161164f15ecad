//! What of a control record work in flight is told. Limits: what takes nothing away, such as a workflow that runs or an
//! account that is enabled, is told to nobody.

use super::{Event, Signal, signal_id};
use crate::authorize::ids::{Coordinates, UnixMillis};
use crate::authorize::standing::{Effect, Kind, Revocation, Status, Target};

/// The signals of a revocation that was taken in: one for each thing that it names. `place` is that of
/// its record, `event_at` the moment.
pub fn of_revocation(place: &Coordinates, event_at: UnixMillis, revocation: &Revocation) -> Vec<Signal> {
    let not_before = match revocation.effect {
        Effect::Revokes { not_before } => not_before,
        Effect::Disables { .. } => None,
        Effect::Enables { .. } => return Vec::new(),
    };
    let event = Event::Revoked { not_before, expires_at: revocation.expires_at };
    let reason = revocation.reason.as_deref().map(str::to_owned);
    let signal = |(nth, about): (usize, &Target)| Signal {
        id: signal_id(place, nth),
        about: about.clone(),
        event,
        event_at,
        reason: reason.clone(),
    };
    revocation.targets.iter().enumerate().map(signal).collect()
}

/// The signal of a workflow's new state, unless it runs.
pub fn of_workflow(place: &Coordinates, event_at: UnixMillis, id: &str, status: Status) -> Option<Signal> {
    (status != Status::Running).then(|| Signal {
        id: signal_id(place, 0),
        about: Target { kind: Kind::Workflow, id: id.into() },
        event: Event::Workflow(status),
        event_at,
        reason: None,
    })
}
