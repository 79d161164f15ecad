//! One named event per fact: its log line, its counter and its place in the status are written together, so that they
//! cannot disagree. Limits: an event holds names of the configuration, numbers, codes and the words of the broker;
//! no token, no key, no header and no sentence that a sender had a part in.
//!
//! What concerns records is emitted only after their transaction was committed: nothing is shown before.

mod access;
mod approvals;
mod control;
mod gate;
mod lanes;
mod records;
mod signals;
mod tls;

use std::time::Duration;

pub use access::{AccessRefused, DeskAway, DeskCommitted, DeskOpened, Evaluated};
pub use approvals::{
    AnswerWritten, ApprovalRefused, ChallengeUnreadable, IssuerKeysLoaded, IssuerKeysRefused,
};
pub use control::{
    ControlAway, ControlGrew, ControlRead, ControlViewed, FactApplied, FactRefused, ViewCurrent, ViewStale,
};
pub use gate::{
    BrokerAwaited, GateStarted, GateStopped, ServerListening, SnapshotLoaded, SnapshotRefused, TopicCreated,
    TopicWarned,
};
pub use lanes::{
    BreakerIs, BreakerMoved, BrokerAway, LaneAssigned, LanePaused, LaneResumed, LaneRevoked, LaneStopped,
    PartitionRestored,
};
pub use records::{
    AbortKind, BatchCommitted, ChallengeChanged, ClockAhead, Decided, PartitionProgress, ProducerReplaced,
    ReplaceCause, TokenCacheUsed, TransactionAborted,
};
pub use signals::{SignalPublished, SignalsHeldUp};
pub use tls::{CertificateLoaded, CertificateRefused, HandshakeFailed};

fn micros(duration: Duration) -> u64 {
    u64::try_from(duration.as_micros()).unwrap_or(u64::MAX)
}
