//! `[control]`, `[transmitters]`, `[administrators]` and `[approvers]`: the topics that a gate follows, and whose signatures
//! count beside those of the trust domains. Limits: the key files are read by `control`, which watches them; whether the
//! topics are there is the broker's word.

use std::collections::BTreeMap;
use std::path::{Path, PathBuf};
use std::str::FromStr as _;
use std::time::Duration;

use super::document::Table;
use super::item::Item;
use super::problem::Problem;
use super::route::RouteSettings;
use super::sections::read_algorithms;
use crate::authorize::ids::Topic;
use crate::authorize::jose::Algorithm;
use crate::authorize::route::WorkflowRule;

/// How old a view may be where nothing says it.
const DEFAULT_MAX_STALENESS: Duration = Duration::from_secs(10);
/// Pulses go out once a second, so that a bound near it would pause the lanes for nothing; a view older than a minute is
/// no view.
const MAX_STALENESS: (Duration, Duration) = (Duration::from_secs(3), Duration::from_secs(60));
const DAY: Duration = Duration::from_secs(86_400);
const DEFAULT_FORGET_AFTER: Duration = Duration::from_secs(7 * 86_400);

/// `[control]`: the topics with the facts that change while records are decided. One that is not named is not followed.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct ControlSettings {
    /// How workflows stand (contract, section 5).
    pub workflows: Option<Topic>,
    /// What has been revoked (contract, section 8).
    pub revocations: Option<Topic>,
    /// The entities that policies look at, one a record.
    pub entities: Option<Topic>,
    /// Where each gate says what it has taken in.
    pub fleet: Option<Topic>,
    /// Where gates tell the work in flight that it must stop.
    pub signals: Option<Topic>,
    /// How old the view of a followed topic may be before the lanes pause.
    pub max_staleness: Duration,
    /// How long an ended workflow is remembered, where forgetting it would not allow.
    pub forget_after: Duration,
}

impl Default for ControlSettings {
    fn default() -> Self {
        Self {
            workflows: None,
            revocations: None,
            entities: None,
            fleet: None,
            signals: None,
            max_staleness: DEFAULT_MAX_STALENESS,
            forget_after: DEFAULT_FORGET_AFTER,
        }
    }
}

impl ControlSettings {
    /// The topics that are followed: those with facts that decide.
    pub fn followed(&self) -> impl Iterator<Item = &Topic> {
        [&self.workflows, &self.revocations, &self.entities].into_iter().flatten()
    }

    /// Every topic that is named, with its key.
    fn named(&self) -> impl Iterator<Item = (&'static str, &Topic)> {
        let topics = [
            ("workflows", &self.workflows),
            ("revocations", &self.revocations),
            ("entities", &self.entities),
            ("fleet", &self.fleet),
            ("signals", &self.signals),
        ];
        topics.into_iter().filter_map(|(key, topic)| Some((key, topic.as_ref()?)))
    }
}

/// The key files of those who sign for the gate without being part of a trust domain.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct OtherFiles {
    /// `[transmitters."<iss>"]`: who sends security event tokens, by `iss`.
    pub transmitters: BTreeMap<String, IssuerFiles>,
    /// `[administrators]`: who signs administrative revocations.
    pub administrators: Option<PathBuf>,
    /// `[approvers."<iss>"]`: who signs answers to challenges, by `iss`.
    pub approvers: BTreeMap<String, ApproverFiles>,
}

/// One issuer: where its keys are, and what its tokens may be signed with.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct IssuerFiles {
    /// A JWK set.
    pub keys: PathBuf,
    /// What its tokens may be signed with.
    pub algorithms: Vec<Algorithm>,
}

/// One issuer of answers.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct ApproverFiles {
    /// Its keys.
    pub issuer: IssuerFiles,
    /// The entity type of its approvers.
    pub entity_type: String,
}

pub(super) fn read_control(
    mut table: Table<'_, '_>,
    routes: &[RouteSettings],
    others: &OtherFiles,
) -> ControlSettings {
    let default = ControlSettings::default();
    let mut taken: BTreeMap<Topic, &'static str> = BTreeMap::new();
    let mut topic = |key: &'static str| {
        let item = table.take(key)?;
        let topic = item.parse::<Topic>()?;
        if let Some(other) = taken.insert(topic.clone(), key) {
            item.report(
                Problem::error(format!("`control.{key}` is the same topic as `control.{other}`: `{topic}`"))
                    .help("each kind of fact has a topic of its own"),
            );
        } else if let Some(route) = route_of(&topic, routes) {
            item.report(
                Problem::error(format!("`control.{key}` is a topic of the route `{route}`: `{topic}`"))
                    .help("facts that decide and records that are decided do not share a topic"),
            );
        }
        Some(topic)
    };
    let (workflows, revocations, entities) = (topic("workflows"), topic("revocations"), topic("entities"));
    let (fleet, signals) = (topic("fleet"), topic("signals"));
    let max_staleness =
        table.take("max_staleness").and_then(|item| item.duration(MAX_STALENESS.0, MAX_STALENESS.1));
    let forget_after =
        table.take("forget_after").and_then(|item| item.duration(Duration::from_secs(60), 3650 * DAY));
    let settings = ControlSettings {
        workflows,
        revocations,
        entities,
        fleet,
        signals,
        max_staleness: max_staleness.unwrap_or(default.max_staleness),
        forget_after: forget_after.unwrap_or(default.forget_after),
    };
    if settings.followed().next().is_none()
        && let Some((key, _)) = settings.named().next()
    {
        table.report(
            Problem::warning(format!("`control.{key}` is named, and no topic is followed"))
                .help("name `workflows`, `revocations` or `entities` too"),
        );
    }
    let registered = |settings: &&RouteSettings| settings.route.workflow == WorkflowRule::Registered;
    if settings.workflows.is_none()
        && let Some(RouteSettings { route, .. }) = routes.iter().find(registered)
    {
        let message = format!(
            "`control.workflows` is missing, and the route `{}` takes registered workflows alone",
            route.name
        );
        table.report(
            Problem::error(message).help("name the topic of the registry, or every record is refused"),
        );
    }
    if settings.revocations.is_some() && others.transmitters.is_empty() && others.administrators.is_none() {
        table.report(
            Problem::warning("`control.revocations` is followed, and nobody may revoke").help(
                "write `[administrators]` with `keys`, or `[transmitters.\"https://idp.example.com\"]` with `keys`",
            ),
        );
    }
    table.finish();
    settings
}

/// The route that reads or writes this topic.
pub(super) fn route_of<'r>(topic: &Topic, routes: &'r [RouteSettings]) -> Option<&'r str> {
    let uses = |settings: &&RouteSettings| {
        let route = &settings.route;
        route.from.contains(topic)
            || settings.replay_topics.values().any(|replay| replay == topic)
            || [&route.to, &route.denied, &route.audit].contains(&topic)
            || route.holding.iter().any(|holding| holding.topics().any(|other| other == topic))
    };
    routes.iter().find(uses).map(|settings| settings.route.name.as_str())
}

pub(super) fn read_transmitters(mut table: Table<'_, '_>, base: &Path) -> BTreeMap<String, IssuerFiles> {
    let advice = "the file of the transmitter's keys, a JWK set";
    let issuers = table.rest().into_iter().filter_map(|(iss, _, item)| {
        let mut table = named(iss, item)?;
        let issuer = read_issuer(&mut table, base, advice);
        table.finish();
        Some((iss.to_owned(), issuer?))
    });
    let issuers = issuers.collect();
    table.finish();
    issuers
}

pub(super) fn read_administrators(mut table: Table<'_, '_>, base: &Path) -> Option<PathBuf> {
    let keys = table.take("keys").and_then(|item| item.text());
    table.finish();
    keys.map(|file| base.join(file))
}

pub(super) fn read_approvers(mut table: Table<'_, '_>, base: &Path) -> BTreeMap<String, ApproverFiles> {
    let advice = "the file of the keys that sign the approvers' answers, a JWK set";
    let issuers = table.rest().into_iter().filter_map(|(iss, _, item)| {
        let mut table = named(iss, item)?;
        let issuer = read_issuer(&mut table, base, advice);
        let entity_type = table.need("type", "the entity type of its approvers, such as `type = \"User\"`");
        let entity_type = entity_type.and_then(|item| read_entity_type(&item));
        table.finish();
        Some((iss.to_owned(), ApproverFiles { issuer: issuer?, entity_type: entity_type? }))
    });
    let issuers = issuers.collect();
    table.finish();
    issuers
}

/// The table of one issuer. An empty name would be the issuer of every token that names none.
fn named<'d, 'r>(iss: &str, item: Item<'d, 'r>) -> Option<Table<'d, 'r>> {
    if iss.is_empty() {
        item.report(
            Problem::error("the issuer's name is empty").help(
                "write the `iss` of its tokens in quotes: `[transmitters.\"https://idp.example.com\"]`",
            ),
        );
        return None;
    }
    item.into_table()
}

fn read_issuer(table: &mut Table<'_, '_>, base: &Path, advice: &str) -> Option<IssuerFiles> {
    let keys = table.need("keys", advice).and_then(|item| item.text());
    let algorithms = read_algorithms(table);
    Some(IssuerFiles {
        keys: base.join(keys?),
        algorithms: algorithms.unwrap_or_else(|| Algorithm::DEFAULT.to_vec()),
    })
}

pub(super) fn read_entity_type(item: &Item<'_, '_>) -> Option<String> {
    let text = item.text()?;
    if cedar_policy::EntityTypeName::from_str(&text).is_err() {
        item.report(
            Problem::error(format!("`{text}` is no entity type"))
                .help("write a type of the schema, such as \"User\" or \"Bank::User\""),
        );
        return None;
    }
    Some(text)
}
