//! The audit record of one decision, and the Merkle range of a partition's audit tree.
