//! Strict JSON by the contract's rules.
