//! The tables of the file but `[kafka]` and `[[route]]`, each read into its settings. Limits: a table is read alone; what
//! two of them say together is checked by whoever holds both.

use std::collections::BTreeMap;
use std::net::SocketAddr;
use std::num::NonZeroUsize;
use std::path::Path;
use std::time::Duration;

use zeroize::Zeroizing;

use super::document::Table;
use super::item::Item;
use super::problem::Problem;
use super::{Batch, Delivery, DomainFiles, GateIdentity, LogFormat, LogSettings, Member, PolicySettings};
use crate::authorize::ids::{TrustDomain, WorkloadId};
use crate::authorize::jose::{Algorithm, SigningKey};

pub(super) fn read_gate(mut table: Table<'_, '_>, base: &Path) -> Option<(GateIdentity, Member)> {
    let id = table.need("id", "the gate's own identifier, such as \"spiffe://example.org/gate/payments\"");
    let id = id.and_then(|item| item.parse::<WorkloadId>());
    let key = table.need("key", "the file of the gate's private key; `countersign keys` makes one");
    let key = key.and_then(|item| {
        let file = base.join(item.text()?);
        match read_key(&file) {
            Ok(key) => {
                if let Some(warning) = readable_by_others(&file) {
                    item.report(warning);
                }
                if key.kid().is_none() {
                    item.report(
                        Problem::warning("the gate's key has no `kid`")
                            .help("without one a worker can verify only while there is a single gate key"),
                    );
                }
                Some((file, key))
            }
            Err(problem) => {
                item.report(problem);
                None
            }
        }
    });
    let instance = table.take("instance").and_then(|item| {
        let text = item.text()?;
        if is_name(&text) {
            Some(text)
        } else {
            item.report(Problem::error(
                "`gate.instance` may hold only letters, digits, `.`, `_` and `-`, at most 100",
            ));
            None
        }
    });
    let lanes = table.take("lanes").and_then(|item| item.integer(1, 256));
    let lanes = lanes.and_then(|lanes| NonZeroUsize::new(usize::try_from(lanes).ok()?));
    let group = table.take("group").and_then(|item| item.text().map(|text| (item, text)));
    let group = match (group, &id) {
        (Some((item, text)), _) if text.is_empty() => {
            item.report(Problem::error("`gate.group` is empty"));
            None
        }
        (Some((_, text)), _) => Some(text),
        (None, id) => id.as_ref().map(default_group),
    };
    let delivery = table.take("delivery").and_then(|item| {
        item.choose(&[("exactly_once", Delivery::ExactlyOnce), ("at_least_once", Delivery::AtLeastOnce)])
    });
    table.finish();
    let (key_file, key) = key?;
    let identity = GateIdentity { id: id?, key_file, key };
    let member = Member {
        instance,
        lanes: lanes.or_else(|| std::thread::available_parallelism().ok()).unwrap_or(NonZeroUsize::MIN),
        group: group?,
        delivery: delivery.unwrap_or(Delivery::ExactlyOnce),
    };
    Some((identity, member))
}

/// `countersign.` and the path of the gate's identifier: two gates of one name share their work.
fn default_group(id: &WorkloadId) -> String {
    let path = id.as_str().splitn(4, '/').nth(3).unwrap_or_default();
    format!("countersign.{}", path.replace('/', "."))
}

fn read_key(file: &Path) -> Result<SigningKey, Problem> {
    let shown = file.display();
    let text = std::fs::read_to_string(file).map(Zeroizing::new).map_err(|error| {
        Problem::error(format!("the key file `{shown}` cannot be read: {error}"))
            .help("paths are relative to the configuration file; `countersign keys` makes a key")
    })?;
    SigningKey::from_jwk(&text).map_err(|error| {
        Problem::error(format!("the key file `{shown}` holds no usable private key: {error}"))
            .help("it is a private JWK with `alg` ES256, EdDSA, RS256 or PS256")
    })
}

/// A warning where everybody on the machine may read a file that holds a private key.
#[cfg(unix)]
pub fn readable_by_others(file: &Path) -> Option<Problem> {
    use std::os::unix::fs::PermissionsExt as _;
    let mode = std::fs::metadata(file).ok()?.permissions().mode();
    (mode & 0o007 != 0).then(|| {
        Problem::warning(format!("everybody on this machine may use the key file `{}`", file.display()))
            .help("take the rights away: `chmod o-rwx`")
    })
}

/// A warning where everybody on the machine may read a file that holds a private key.
#[cfg(not(unix))]
pub fn readable_by_others(_: &Path) -> Option<Problem> {
    None
}

pub(super) fn read_batch(mut table: Table<'_, '_>) -> Batch {
    let max_records = table.take("max_records").and_then(|item| item.integer(1, 100_000));
    // A batch must end well before its transaction times out after 5 s.
    let linger = table.take("linger").and_then(|item| item.duration(Duration::ZERO, Duration::from_secs(1)));
    table.finish();
    Batch {
        max_records: max_records.and_then(|count| usize::try_from(count).ok()).unwrap_or(1000),
        linger: linger.unwrap_or(Duration::from_millis(5)),
    }
}

pub(super) fn read_trust(mut table: Table<'_, '_>, base: &Path) -> BTreeMap<TrustDomain, DomainFiles> {
    let mut domains = BTreeMap::new();
    let entries = table.rest();
    if entries.is_empty() {
        table.report(
            Problem::error("no trust domain is configured, so no record could pass")
                .help("write `[trust.\"example.org\"]` with `bundle`, `token_service` and `gates`"),
        );
    }
    for (name, _, item) in entries {
        let domain = match TrustDomain::parse(name) {
            Ok(domain) => domain,
            Err(error) => {
                item.report(
                    Problem::error(format!("`{name}`: {error}"))
                        .help("write the domain in quotes: `[trust.\"example.org\"]`"),
                );
                continue;
            }
        };
        let Some(mut table) = item.into_table() else { continue };
        let bundle = table.need("bundle", "the file of the domain's SPIFFE bundle, a JWK set");
        let bundle = bundle.and_then(|item| item.text()).map(|file| base.join(file));
        let file = |item: Item<'_, '_>| item.text().map(|file| base.join(file));
        let token_service = table.take("token_service").and_then(file);
        let gates = table.take("gates").and_then(file);
        let algorithms = read_algorithms(&mut table);
        table.finish();
        if let Some(bundle) = bundle {
            let algorithms = algorithms.unwrap_or_else(|| Algorithm::DEFAULT.to_vec());
            domains.insert(domain, DomainFiles { bundle, token_service, gates, algorithms });
        }
    }
    table.finish();
    domains
}

/// The algorithms that a table names, if it does.
pub(super) fn read_algorithms(table: &mut Table<'_, '_>) -> Option<Vec<Algorithm>> {
    let item = table.take("algorithms")?;
    let words = Algorithm::ALL.map(|algorithm| (algorithm.as_str(), algorithm));
    let found: Vec<_> = item.list()?.iter().filter_map(|entry| entry.choose(&words)).collect();
    if found.is_empty() {
        item.report(Problem::error("`algorithms` is empty, so no token could be verified"));
    }
    Some(found)
}

pub(super) fn read_policy(mut table: Table<'_, '_>, base: &Path) -> Option<PolicySettings> {
    let path = table.need("path", "the folder of policies (*.cedar), schema.cedarschema and entities.json");
    let path = path.and_then(|item| item.text());
    let subject_type = table.take("subject_type").and_then(|item| item.text());
    table.finish();
    Some(PolicySettings {
        path: base.join(path?),
        subject_type: subject_type.unwrap_or_else(|| "User".to_owned()),
    })
}

pub(super) fn read_mask(mut table: Table<'_, '_>) -> Vec<String> {
    let mask = table.take("mask").and_then(|item| {
        let paths = item.list()?;
        let checked = paths.iter().filter_map(|item| {
            let path = item.text()?;
            if path.is_empty() || path.split('.').any(str::is_empty) {
                item.report(
                    Problem::error(format!("`{path}` is no path into the context"))
                        .help("write dotted names, such as \"transaction.details.card\""),
                );
                return None;
            }
            Some(path)
        });
        Some(checked.collect())
    });
    table.finish();
    mask.unwrap_or_default()
}

/// Loopback unless somebody says otherwise: what is served names topics and policies.
pub(super) fn read_http(mut table: Table<'_, '_>) -> Option<SocketAddr> {
    let listen = table.take("listen");
    table.finish();
    let default = SocketAddr::from(([127, 0, 0, 1], 9464));
    let Some(item) = listen else { return Some(default) };
    let text = item.text()?;
    if text == "off" {
        return None;
    }
    let address = text.parse().ok();
    if address.is_none() {
        item.report(
            Problem::error(format!("`{text}` is no address to listen on"))
                .help("write an address and a port, such as \"127.0.0.1:9464\", or \"off\""),
        );
    }
    address
}

pub(super) fn read_telemetry(mut table: Table<'_, '_>) -> (Option<String>, LogSettings) {
    let endpoint = table.take("otlp_endpoint").and_then(|item| {
        let text = item.text()?;
        // Spans name topics and senders, so a password in the address would be the smaller leak: neither is sent far.
        let host = text.strip_prefix("http://").unwrap_or_default();
        if !host.is_empty() && !host.starts_with('/') && !host.contains(['@', '?', '#', ' ']) {
            return Some(text);
        }
        item.report(
            Problem::error(format!("`{text}` is no OTLP endpoint"))
                .help("write the base address of a collector nearby, OTLP over HTTP without TLS: \"http://localhost:4318\""),
        );
        None
    });
    let filter = table.take("log").and_then(|item| item.text());
    let format = table
        .take("log_format")
        .and_then(|item| item.choose(&[("human", LogFormat::Human), ("json", LogFormat::Json)]));
    table.finish();
    let log = LogSettings {
        filter: filter.unwrap_or_else(|| "info".to_owned()),
        format: format.unwrap_or(LogFormat::Human),
    };
    (endpoint, log)
}

/// Names that stand in transactional ids and metric labels.
pub(super) fn is_name(text: &str) -> bool {
    !text.is_empty()
        && text.len() <= 100
        && text.bytes().all(|b| b.is_ascii_alphanumeric() || matches!(b, b'.' | b'_' | b'-'))
}
