//! The decision path from a record to its outcome.
