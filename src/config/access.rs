//! `[access]`: where access evaluations are answered over HTTP, and by the rules of which route. Limits: nothing is served
//! where `listen` is absent.

use std::net::SocketAddr;
use std::path::Path;
use std::sync::Arc;

use super::control::{ControlSettings, route_of};
use super::document::{Table, nearest};
use super::item::Item;
use super::problem::Problem;
use super::route::RouteSettings;
use super::tls::{TlsSettings, read_listen, read_tls};
use crate::authorize::ids::Topic;
use crate::authorize::route::Route;

/// Where and how access evaluations are answered.
#[derive(Debug, Clone)]
pub struct AccessSettings {
    /// Where it listens.
    pub listen: SocketAddr,
    /// The base that callers write into their proofs, without a slash at its end; `None` is the address itself.
    pub url: Option<String>,
    /// With what it speaks TLS; `None` is not at all.
    pub tls: Option<TlsSettings>,
    /// By whose rules: what a caller must bring, mask, audit topic.
    pub route: Arc<Route>,
    /// Where people answer what is asked about evaluations; `None` where nobody is asked.
    pub answers: Option<Topic>,
}

/// Reads the table; its route is one of `routes`, and its topic none of theirs, nor of `control`.
pub(super) fn read_access(
    mut table: Table<'_, '_>,
    base: &Path,
    routes: &[RouteSettings],
    control: &ControlSettings,
) -> Option<AccessSettings> {
    let listen = table.take("listen");
    let insecure = table.take("insecure_listen");
    let route = table.take("route");
    let url = table.take("url");
    let answers = table.take("answers");
    let tls = read_tls(&mut table, base, true);
    let Some(listen) = listen else {
        if tls.is_wanted {
            table.report(
                Problem::warning("`access.tls` has no effect without `access.listen`")
                    .help("write `listen = \"0.0.0.0:8081\"` to answer access evaluations"),
            );
        }
        for item in [route, url, answers].into_iter().flatten() {
            item.report(
                Problem::warning(format!("`{}` has no effect without `access.listen`", item.path))
                    .help("write `listen = \"127.0.0.1:8081\"` to answer access evaluations"),
            );
        }
        table.finish();
        return None;
    };
    let address = read_listen(&listen, insecure, &tls, "127.0.0.1:8081");
    let route = match route {
        Some(item) => item.text().and_then(|name| {
            let found = routes.iter().find(|settings| settings.route.name == name);
            if found.is_none() {
                let names: Vec<&str> = routes.iter().map(|settings| &*settings.route.name).collect();
                item.report(Problem::error(format!("there is no route `{name}`")).help(
                    match nearest(&name, &names) {
                        Some(near) => format!("did you mean `{near}`?"),
                        None => format!("the routes are `{}`", names.join("`, `")),
                    },
                ));
            }
            found
        }),
        None if routes.len() < 2 => routes.first(),
        None => {
            listen.report(
                Problem::error("`access.route` is missing, and there is more than one route")
                    .help("name the route by whose rules evaluations are answered"),
            );
            None
        }
    };
    let url = url.and_then(|item| {
        let text = item.text()?;
        if !is_base(&text) {
            item.report(
                Problem::error(format!("`{text}` is no base that callers could name"))
                    .help("write scheme, host and port without a slash at the end, such as \"https://gate.example.org\""),
            );
        } else if tls.is_wanted && text.starts_with("http://") {
            item.report(
                Problem::warning(format!("`{text}` is an address without TLS, and the gate speaks TLS"))
                    .help("write the `https://` address that callers see: their proofs are made out for it"),
            );
        }
        Some(text)
    });
    table.finish();
    let route = Arc::clone(&route?.route);
    let answers = answers.and_then(|item| read_answers(&item, &route, routes, control));
    Some(AccessSettings { listen: address?, url, tls: tls.settings, route, answers })
}

/// The topic of answers: people are asked where the route asks them about records.
fn read_answers(
    item: &Item<'_, '_>,
    route: &Route,
    routes: &[RouteSettings],
    control: &ControlSettings,
) -> Option<Topic> {
    let topic = item.parse::<Topic>()?;
    if route.holding.is_none() {
        item.report(
            Problem::error(format!("`access.answers` while the route `{}` has no `challenges`", route.name))
                .help("name the topic of its challenges in the route: that is where people read what they are asked"),
        );
    } else if let Some(route) = route_of(&topic, routes) {
        item.report(
            Problem::error(format!("`access.answers` is a topic of the route `{route}`: `{topic}`"))
                .help("each gate reads it for what was asked over HTTP alone: give it a topic of its own"),
        );
    } else if control.followed().chain(&control.fleet).chain(&control.signals).any(|other| *other == topic) {
        item.report(
            Problem::error(format!("`access.answers` is a topic of `[control]`: `{topic}`"))
                .help("give it a topic of its own"),
        );
    }
    Some(topic)
}

/// Scheme, host and perhaps port and path, as a proof's `aud` begins with it.
fn is_base(text: &str) -> bool {
    let rest = text.strip_prefix("https://").or_else(|| text.strip_prefix("http://"));
    rest.is_some_and(|rest| {
        !rest.is_empty()
            && !rest.starts_with(['/', ':'])
            && !rest.ends_with('/')
            && rest.bytes().all(|b| b.is_ascii_graphic() && !matches!(b, b'?' | b'#' | b'@' | b'"' | b'\\'))
    })
}
