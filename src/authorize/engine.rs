//! The decision path from a record to its outcome.

use std::sync::Arc;

use super::policy::{Bundle, Entities};
use super::trust::Trust;

/// What a gate knows at one moment: pinned for a whole batch, named in every audit record.
#[derive(Debug, Clone)]
pub struct Snapshot {
    /// The keys of each trust domain.
    pub trust: Arc<Trust>,
    /// The policies and their schema.
    pub policy: Arc<Bundle>,
    /// The entities that policies may look at.
    pub entities: Arc<Entities>,
}
