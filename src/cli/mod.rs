//! The commands.

pub mod clock;
pub mod files;
pub mod issue;
pub mod keys;
pub mod token;
