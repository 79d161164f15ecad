//! What a worker takes over from a record that a gate let through, to the next record of the same work (contract,
//! section 6). Limits: made by whoever verified the countersignature; the next gate judges it again.

use std::sync::Arc;

/// The countersignature of the work so far, and its Txn-Token.
#[derive(Clone)]
pub struct Carried {
    /// The countersignature, as the gate wrote it.
    pub countersignature: Arc<str>,
    /// The Txn-Token of the same record, where it had one.
    pub transaction: Option<Arc<str>>,
}

// By hand: both are live credentials.
impl std::fmt::Debug for Carried {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Carried").field("transaction", &self.transaction.is_some()).finish_non_exhaustive()
    }
}
