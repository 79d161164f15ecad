//! Which proofs have been seen.
