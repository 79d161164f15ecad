//! Whether somebody may still act at all: revocations in force, and workflows as their registry has them (contract, sections
//! 5 and 8). Limits: pure; what it knows is handed in.

/// What is known at one moment. Nothing is followed by default.
#[derive(Debug, Clone, Default)]
pub struct Standing {}
