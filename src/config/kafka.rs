//! The librdkafka properties that a person sets, and those that the gate must own. Limits: names and values are passed
//! through; what librdkafka thinks of them it says when a client is made.

use std::collections::BTreeMap;
use std::fmt;

use zeroize::Zeroizing;

use super::document::{Parsed, Reading, Table};
use super::problem::Problem;

/// The properties that decide whether what the gate promises holds, and why nobody else may set them.
const OWNED: &[(&str, &str)] = &[
    ("auto.offset.reset", "set `start` in the route: a lost offset must stop a gate, not skip records"),
    ("enable.auto.commit", "offsets are committed with the outcome, in one transaction"),
    ("enable.auto.offset.store", "offsets are committed with the outcome, in one transaction"),
    ("enable.idempotence", "an outcome is written once only by an idempotent producer"),
    ("acks", "an outcome counts only once every in-sync replica has it"),
    ("group.id", "set `group` in `[gate]`"),
    ("group.instance.id", "set `instance` in `[gate]`"),
    ("group.protocol", "lanes rely on the classic protocol's short sessions"),
    ("heartbeat.interval.ms", "lanes set what fits their session"),
    ("isolation.level", "records of aborted transactions must never be decided"),
    ("max.poll.interval.ms", "lanes set what fits their batches"),
    ("partition.assignment.strategy", "lanes rely on cooperative assignment"),
    (
        "session.timeout.ms",
        "lanes set the shortest that brokers take: a dead gate's partitions wait that long",
    ),
    (
        "transaction.timeout.ms",
        "lanes set it: a dead gate's open transaction hides what follows for that long",
    ),
    ("transactional.id", "it is derived from `group` and `instance` in `[gate]`"),
];

/// Parts of names whose values are secrets.
const SECRET: &[&str] =
    &["password", "secret", "ssl.key.pem", "ssl_key", "sasl.jaas.config", "token", "credentials"];

/// librdkafka properties. Secrets are wiped when they are dropped, and `Debug` shows none.
#[derive(Clone, Default)]
pub struct KafkaProperties(BTreeMap<String, Zeroizing<String>>);

impl KafkaProperties {
    /// Every property with its value, secrets included: for a client's configuration and nothing else.
    pub fn iter(&self) -> impl Iterator<Item = (&str, &str)> {
        self.0.iter().map(|(name, value)| (name.as_str(), value.as_str()))
    }

    /// One property's value.
    pub fn get(&self, name: &str) -> Option<&str> {
        self.0.get(name).map(|value| value.as_str())
    }

    /// Sets a property, as a command's own option does.
    pub fn set(&mut self, name: &str, value: impl Into<String>) {
        self.0.insert(name.to_owned(), Zeroizing::new(value.into()));
    }

    /// Reads `[kafka]` and its overrides: `COUNTERSIGN_KAFKA_BOOTSTRAP_SERVERS` is `bootstrap.servers`.
    pub(super) fn read(reading: &Reading, mut table: Table<'_, '_>) -> Self {
        let mut properties = Self::default();
        for (name, _, item) in table.rest() {
            if let Some((_, why)) = OWNED.iter().find(|(owned, _)| *owned == name) {
                item.report(Problem::error(format!("`{name}` in `kafka` belongs to the gate")).help(*why));
            } else if let Some(value) = item.property() {
                properties.set(name, value);
            }
        }
        for (name, value) in reading.overrides_below("kafka") {
            let name = name.to_ascii_lowercase().replace('_', ".");
            match OWNED.iter().find(|(owned, _)| *owned == name) {
                Some((_, why)) => reading.report(
                    Problem::error(format!("`{name}` in `kafka` belongs to the gate"))
                        .help(*why)
                        .within(format!("COUNTERSIGN_KAFKA_{}", name.to_ascii_uppercase().replace('.', "_"))),
                ),
                None => properties.set(&name, value),
            }
        }
        if properties.get("bootstrap.servers").is_none_or(str::is_empty) {
            table
                .report(Problem::error("`bootstrap.servers` is missing in `kafka`").help(
                    "write `\"bootstrap.servers\" = \"localhost:9092\"`, in quotes because of the dot",
                ));
        }
        table.finish();
        properties
    }
}

/// Whether the value of this property is a secret.
fn is_secret(name: &str) -> bool {
    SECRET.iter().any(|part| name.contains(part))
}

/// The text of a configuration for reports, which quote the lines around a mistake: secrets are stars, and every place
/// stays where it was. A line that no parser could read is hidden by the name in it.
pub(super) fn without_secrets(text: &str, parsed: &Parsed<'_>) -> String {
    let mut hidden = parsed.values_below("kafka", is_secret);
    let mut start = 0;
    for line in text.split_inclusive('\n') {
        if let Some((key, _)) = line.split_once('=')
            && ["password", "secret", "key.pem", "jaas"].iter().any(|part| key.contains(part))
        {
            hidden.push(start + key.len() + 1..start + line.len());
        }
        start += line.len();
    }
    let hide = |(place, c): (usize, char)| match c {
        '\n' | '\r' | ' ' => c.to_string(),
        _ if hidden.iter().any(|span| span.contains(&place)) => "*".repeat(c.len_utf8()),
        _ => c.to_string(),
    };
    text.char_indices().map(hide).collect()
}

impl fmt::Debug for KafkaProperties {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let shown =
            self.0.iter().map(|(name, value)| (name, if is_secret(name) { "***" } else { value.as_str() }));
        f.debug_map().entries(shown).finish()
    }
}
