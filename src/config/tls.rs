//! `[access.tls]` and `[approvals.tls]`: with which certificate an HTTP interface speaks TLS, and whether its clients may
//! prove themselves by one. Limits: the files are read by `control`, which watches them.

use std::net::SocketAddr;
use std::path::{Path, PathBuf};

use super::document::Table;
use super::item::Item;
use super::problem::Problem;

/// With what an interface speaks TLS.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct TlsSettings {
    /// The certificate and those between it and its root, PEM.
    pub certificate: PathBuf,
    /// Its private key, PEM.
    pub key: PathBuf,
    /// By what its clients may prove themselves at the handshake.
    pub clients: ClientCertificates,
}

/// The client certificates that are taken. None is ever demanded: a caller without one proves itself by tokens.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum ClientCertificates {
    /// None is asked for.
    None,
    /// X.509-SVIDs of the trust domains that are configured.
    Spiffe,
}

/// What the table of an interface says of TLS.
#[derive(Debug)]
pub(super) struct ReadTls {
    /// `None` where there is no such table, or it has mistakes.
    pub(super) settings: Option<TlsSettings>,
    /// Whether there is such a table.
    pub(super) is_wanted: bool,
}

/// Reads `tls` of an interface; `with_clients` is whether it knows its clients by certificates.
pub(super) fn read_tls(of: &mut Table<'_, '_>, base: &Path, with_clients: bool) -> ReadTls {
    let is_there = of.has("tls");
    let mut table = of.table("tls");
    let certificate = table.take("certificate");
    let key = table.take("key");
    let clients = with_clients.then(|| table.take("clients")).flatten();
    let is_wanted = is_there || [&certificate, &key, &clients].into_iter().any(Option::is_some);
    if is_wanted {
        for (name, item, holds) in [
            ("certificate", &certificate, "the certificate and those between it and its root"),
            ("key", &key, "the private key of the certificate"),
        ] {
            if item.is_none() {
                table.report(
                    Problem::error(format!("`{name}` is missing in `{}`", table.path()))
                        .help(format!("name the PEM file that holds {holds}, or take the table out")),
                );
            }
        }
    }
    let file = |item: Option<Item<'_, '_>>| item.and_then(|item| read_file(&item, base));
    let (certificate, key) = (file(certificate), file(key));
    let clients = match clients {
        None => Some(ClientCertificates::None),
        Some(item) => {
            item.choose(&[("none", ClientCertificates::None), ("spiffe", ClientCertificates::Spiffe)])
        }
    };
    table.finish();
    let settings = match (certificate, key, clients) {
        (Some(certificate), Some(key), Some(clients)) => Some(TlsSettings { certificate, key, clients }),
        _ => None,
    };
    ReadTls { settings, is_wanted }
}

fn read_file(item: &Item<'_, '_>, base: &Path) -> Option<PathBuf> {
    let text = item.text()?;
    if text.is_empty() {
        item.report(Problem::error(format!("`{}` is empty", item.path)).help("name a PEM file"));
        return None;
    }
    Some(base.join(text))
}

/// Where an interface listens: on loopback, or with TLS, or because a person says otherwise in so many words.
pub(super) fn read_listen(
    item: &Item<'_, '_>,
    insecure: Option<Item<'_, '_>>,
    tls: &ReadTls,
    example: &str,
) -> Option<SocketAddr> {
    let is_insecure = insecure.as_ref().and_then(Item::flag).unwrap_or(false);
    if let Some(insecure) = insecure.filter(|_| is_insecure && tls.is_wanted) {
        insecure.report(
            Problem::warning(format!("`{}` has no effect where TLS is spoken", insecure.path))
                .help("take it out"),
        );
    }
    let text = item.text()?;
    let Ok(address) = text.parse::<SocketAddr>() else {
        item.report(
            Problem::error(format!("`{text}` is no address to listen on"))
                .help(format!("write an address and a port, such as \"{example}\"")),
        );
        return None;
    };
    if !address.ip().is_loopback() && !is_insecure && !tls.is_wanted {
        let table = item.path.trim_end_matches(".listen");
        item.report(
            Problem::error(format!("`{text}` is reached from other machines, and nothing is encrypted there")).help(
                format!(
                    "write `[{table}.tls]` with `certificate` and `key`; or listen on 127.0.0.1 behind a proxy that speaks \
                     TLS; or, in a network that you trust, write `insecure_listen = true`"
                ),
            ),
        );
        return None;
    }
    Some(address)
}
