//! Where a producer's Txn-Tokens come from. Limits: nothing is fetched here; a source that fetches keeps its own cache.

use std::sync::Arc;

use super::Outgoing;

/// Gives the Txn-Token for a record: the one of the transaction that the record belongs to.
///
/// Closures are sources, and so is a fixed token (`String`), for a job that works in one transaction. It is asked for
/// each record, on the caller's thread: a source that asks a token service keeps the token until shortly before it ends.
pub trait TransactionSource: Send + Sync {
    /// The token for `record`, as the token service wrote it.
    ///
    /// # Errors
    /// No token can be had; the record is then not signed.
    fn token(&self, record: &Outgoing<'_>) -> Result<Arc<str>, TokenUnavailable>;
}

/// Why a source has no token: a sentence for a person, without the token.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("{0}")]
pub struct TokenUnavailable(pub String);

impl TransactionSource for String {
    fn token(&self, _: &Outgoing<'_>) -> Result<Arc<str>, TokenUnavailable> {
        Ok(self.as_str().into())
    }
}

impl TransactionSource for Arc<str> {
    fn token(&self, _: &Outgoing<'_>) -> Result<Arc<str>, TokenUnavailable> {
        Ok(Arc::clone(self))
    }
}

impl<F> TransactionSource for F
where
    F: Fn(&Outgoing<'_>) -> Result<Arc<str>, TokenUnavailable> + Send + Sync,
{
    fn token(&self, record: &Outgoing<'_>) -> Result<Arc<str>, TokenUnavailable> {
        self(record)
    }
}
