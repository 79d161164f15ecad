//! What integration tests share. A test binary takes it in with `#[path = "../support/mod.rs"] mod support;`.
//! It holds no expectations about Countersign itself: those stand in the tests.

pub mod kafka;
