//! What this binary shares with the others: a Keycloak, and how a process is watched.

#[path = "../support/kafka/mod.rs"]
#[allow(dead_code, unused_imports, reason = "what the tests on Kafka share")]
pub mod kafka;
#[path = "../support/keycloak.rs"]
pub mod keycloak;
