//! Countersignatures: verify the chain, extend it.
