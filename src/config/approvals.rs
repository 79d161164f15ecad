//! `[approvals]`: where approvers answer challenges over HTTP, and which OIDC issuers say who they are. Limits: an issuer's
//! keys are fetched by `control`; whether it is there is found out then.

use std::collections::BTreeSet;
use std::net::{IpAddr, SocketAddr};
use std::path::{Path, PathBuf};

use url::{Host, Url};

use super::control::read_entity_type;
use super::document::Table;
use super::item::Item;
use super::problem::Problem;
use super::sections::read_algorithms;
use super::tls::{TlsSettings, read_listen, read_tls};
use crate::authorize::jose::Algorithm;
use crate::authorize::limits::DEFAULT_SKEW_S;
use crate::authorize::login::OidcIssuer;

/// What an OIDC issuer's tokens may be signed with where nothing says it: what issuers sign with.
const DEFAULT_ALGORITHMS: [Algorithm; 3] = [Algorithm::Rs256, Algorithm::Ps256, Algorithm::Es256];
/// Issuers. Each has a thread that looks after its keys.
const MAX_ISSUERS: usize = 16;
/// Answers that one approver may give in a minute where nothing says it.
const DEFAULT_ANSWERS_A_MINUTE: u32 = 60;

/// `[approvals]`, where it is there.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct ApprovalSettings {
    /// Where answers are taken over HTTP.
    pub listen: SocketAddr,
    /// With what it speaks TLS; `None` is not at all.
    pub tls: Option<TlsSettings>,
    /// How many answers one approver may give in a minute.
    pub answers_a_minute: u32,
    /// Who says who approvers are; at least one.
    pub issuers: Vec<OidcSettings>,
}

/// `[approvals.oidc."<iss>"]`.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct OidcSettings {
    /// How its tokens are judged.
    pub rules: OidcIssuer,
    /// Where its keys are.
    pub keys: OidcKeys,
}

/// Where an OIDC issuer's keys are.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum OidcKeys {
    /// Where its discovery document says, on its own host.
    Discovered,
    /// At this address.
    At(Url),
    /// In this file, a JWK set.
    File(PathBuf),
}

pub(super) fn read_approvals(mut table: Table<'_, '_>, base: &Path) -> Option<ApprovalSettings> {
    let listen = table.take("listen");
    let insecure = table.take("insecure_listen");
    let tls = read_tls(&mut table, base, false);
    let answers = table.take("answers_a_minute").and_then(|item| item.integer(1, 6000));
    let mut oidc = table.table("oidc");
    let entries = oidc.rest();
    let has_issuers = !entries.is_empty();
    if entries.len() > MAX_ISSUERS {
        oidc.report(Problem::error(format!("there are more than {MAX_ISSUERS} OIDC issuers")));
    }
    let issuers = entries.into_iter().filter_map(|(iss, _, item)| read_issuer(iss, item, base)).collect();
    oidc.finish();
    // Bearer tokens travel here.
    let listen = listen.map(|item| read_listen(&item, insecure, &tls, "127.0.0.1:8082"));
    if listen.is_none() && (has_issuers || tls.is_wanted) {
        table.report(
            Problem::error("`listen` is missing in `approvals`")
                .help("write `listen = \"127.0.0.1:8082\"`, or take the rest of the table out"),
        );
    }
    if listen.is_some() && !has_issuers {
        table.report(
            Problem::error("`approvals` names no OIDC issuer, so nobody could answer")
                .help("write `[approvals.oidc.\"https://login.example.com\"]` with `audience` and `type`"),
        );
    }
    table.finish();
    let answers = answers.and_then(|count| u32::try_from(count).ok());
    Some(ApprovalSettings {
        listen: listen??,
        tls: tls.settings,
        answers_a_minute: answers.unwrap_or(DEFAULT_ANSWERS_A_MINUTE),
        issuers,
    })
}

fn read_issuer(iss: &str, item: Item<'_, '_>, base: &Path) -> Option<OidcSettings> {
    let named = issuer_address(iss);
    if let Err(problem) = &named {
        item.report(
            Problem::error(format!("`{iss}` {problem}")).help(
                "write the `iss` of its tokens, such as `[approvals.oidc.\"https://login.example.com\"]`",
            ),
        );
    }
    let mut table = item.into_table()?;
    let audience = table.need("audience", "what `aud` of its tokens must be or contain");
    let audience = audience.and_then(|item| read_text(&item));
    let entity_type = table.need("type", "the entity type of its approvers, such as `type = \"User\"`");
    let entity_type = entity_type.and_then(|item| read_entity_type(&item));
    let claim = table.take("claim").map(|item| read_text(&item));
    let scope = table.take("scope").map(|item| read_text(&item));
    let clients = table.take("clients").and_then(|item| {
        let clients = item.list()?;
        Some(clients.iter().filter_map(read_text).collect::<BTreeSet<_>>())
    });
    let skew = table.take("skew").and_then(|item| item.seconds(0, 300));
    let keys = read_keys(&mut table, base);
    let algorithms = read_algorithms(&mut table);
    table.finish();
    named.ok()?;
    Some(OidcSettings {
        rules: OidcIssuer {
            iss: iss.to_owned(),
            audience: audience?,
            entity_type: entity_type?,
            claim: claim.unwrap_or_else(|| Some("sub".to_owned()))?,
            algorithms: algorithms.unwrap_or_else(|| DEFAULT_ALGORITHMS.to_vec()),
            scope: scope.flatten(),
            clients: clients.unwrap_or_default(),
            skew_s: skew.unwrap_or(DEFAULT_SKEW_S),
        },
        keys: keys?,
    })
}

fn read_keys(table: &mut Table<'_, '_>, base: &Path) -> Option<OidcKeys> {
    match (table.take("keys"), table.take("jwks_uri")) {
        (None, None) => Some(OidcKeys::Discovered),
        (Some(file), None) => Some(OidcKeys::File(base.join(file.text()?))),
        (None, Some(item)) => {
            let text = item.text()?;
            match issuer_address(&text) {
                Ok(url) => Some(OidcKeys::At(url)),
                Err(problem) => {
                    item.report(
                        Problem::error(format!("`{text}` {problem}"))
                            .help("write the address of the issuer's JWK set, or leave `jwks_uri` out"),
                    );
                    None
                }
            }
        }
        (Some(_), Some(item)) => {
            item.report(
                Problem::error("`keys` and `jwks_uri` say two places of the same keys")
                    .help("leave one out, or both: then the issuer's discovery document says where they are"),
            );
            None
        }
    }
}

fn read_text(item: &Item<'_, '_>) -> Option<String> {
    let text = item.text()?;
    if text.is_empty() {
        item.report(Problem::error(format!("`{}` is empty", item.path)));
        return None;
    }
    Some(text)
}

/// An address that keys may be fetched from: `https`, or `http` on this machine.
fn issuer_address(text: &str) -> Result<Url, &'static str> {
    let url = Url::parse(text).map_err(|_| "is no address")?;
    let is_here = match url.host() {
        Some(Host::Domain(name)) => name == "localhost",
        Some(Host::Ipv4(ip)) => IpAddr::from(ip).is_loopback(),
        Some(Host::Ipv6(ip)) => IpAddr::from(ip).is_loopback(),
        None => false,
    };
    match url.scheme() {
        "https" => {}
        "http" if is_here => {}
        "http" => return Err("is `http` to another machine, where anybody between could replace the keys"),
        _ => return Err("is no `https` address"),
    }
    if !url.username().is_empty()
        || url.password().is_some()
        || url.query().is_some()
        || url.fragment().is_some()
    {
        return Err("has a user, a query or a fragment");
    }
    Ok(url)
}
