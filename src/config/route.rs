//! `[[route]]`: read, checked alone, then against the other routes. Limits: whether the topics exist is the broker's
//! word.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;

use super::breaker::{BreakerSettings, read_breaker};
use super::document::Table;
use super::holding::read_holding;
use super::item::Item;
use super::problem::Problem;
use super::sections::is_name;
use crate::authorize::ids::{Topic, WorkloadId};
use crate::authorize::limits::{
    DEFAULT_PROOF_LIFE_S, DEFAULT_QUEUE_TIME_S, DEFAULT_RECEIPT_LIFE_S, DEFAULT_SKEW_S,
    MAX_TRUSTED_QUEUE_TIME_S,
};
use crate::authorize::request::{Mapping, MappingSource};
use crate::authorize::route::{
    Compatibility, Partitioner, Party, ReplayRule, Route, TokenExpiry, WorkflowRule,
};

/// A route with what only the stream needs.
#[derive(Debug, Clone)]
pub struct RouteSettings {
    /// The rules.
    pub route: Arc<Route>,
    /// Where its first start begins.
    pub start: Start,
    /// The topic that keeps the replay memory of each source topic.
    pub replay_topics: BTreeMap<Topic, Topic>,
    /// When it stops rather than deny more; `None` is never.
    pub breaker: Option<BreakerSettings>,
}

/// Where a group without committed offsets begins.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Start {
    /// At the first record there is.
    Earliest,
    /// At the next record to come.
    Latest,
}

pub(super) const DAY_S: u32 = 86_400;

/// Reads every route that can be read.
pub(super) fn read_all(tables: Vec<Table<'_, '_>>, mask: &[String]) -> Vec<RouteSettings> {
    let mut seen = Seen::default();
    tables.into_iter().filter_map(|table| read(table, mask, &mut seen)).collect()
}

/// What the routes before have taken.
#[derive(Default)]
struct Seen {
    names: BTreeSet<String>,
    sources: BTreeMap<Topic, String>,
    written: BTreeMap<Topic, (String, &'static str)>,
}

fn read(mut table: Table<'_, '_>, mask: &[String], seen: &mut Seen) -> Option<RouteSettings> {
    let name = read_name(&mut table, seen);
    let label = name.clone().unwrap_or_else(|| "?".to_owned());
    let from = read_sources(&mut table, seen, &label);
    let to = topic(&mut table, "to", "the topic that permitted records go to");
    let denied = topic(&mut table, "denied", "the topic that denied records go to");
    let audit = topic(&mut table, "audit", "the topic that gets a record of every decision");
    let replay_topics = read_replay_topics(&mut table, &from);
    let written = [("to", &to), ("denied", &denied), ("audit", &audit)];
    for (index, (key, topic)) in written.iter().enumerate() {
        let Some((topic, item)) = topic else { continue };
        for (other, earlier) in written.iter().take(index) {
            if earlier.as_ref().is_some_and(|(earlier, _)| earlier == topic) {
                item.report(
                    Problem::error(format!("`{key}` is the same topic as `{other}`: `{topic}`"))
                        .help("whoever reads one must not get the other"),
                );
            }
        }
        check_written(seen, &label, key, topic, item, &from, &replay_topics);
    }

    let taken: Vec<(&'static str, &Topic)> = written
        .iter()
        .filter_map(|(key, topic)| Some((*key, &topic.as_ref()?.0)))
        .chain(from.iter().map(|topic| ("from", topic)))
        .chain(replay_topics.values().map(|topic| ("replay_topic", topic)))
        .collect();
    let holding = read_holding(&mut table, &from, &taken);
    let unproven = table.take("unproven");
    let unproven_id = unproven.as_ref().and_then(|item| item.parse::<WorkloadId>());
    let require = read_require(&mut table, unproven.is_some());
    let token_expiry = table
        .take("token_expiry")
        .and_then(|item| item.choose(&[("accepted", TokenExpiry::Accepted), ("now", TokenExpiry::Now)]));
    let trust_create_time = table.take("trust_create_time").and_then(|item| item.flag()).unwrap_or(false);
    let skew_s = table.take("skew").and_then(|item| item.seconds(0, 300)).unwrap_or(DEFAULT_SKEW_S);
    let proof_life_s =
        table.take("proof_life").and_then(|item| item.seconds(1, 3600)).unwrap_or(DEFAULT_PROOF_LIFE_S);
    let max_queue_time_s = read_queue_time(&mut table, trust_create_time);
    let receipt_life_s = table.take("receipt_life").and_then(|item| item.seconds(1, DAY_S));
    let continues_from = table.take("continues_from").and_then(|item| {
        let topics = item.list()?;
        Some(topics.iter().filter_map(|item| item.parse::<Topic>()).collect::<BTreeSet<_>>())
    });
    let replay = table.take("replay").and_then(|item| {
        item.choose(&[("partition", ReplayRule::Partition), ("strict", ReplayRule::Strict)])
    });
    let partitioner = table
        .take("partitioner")
        .and_then(|item| item.choose(&[("murmur2", Partitioner::Murmur2), ("crc32", Partitioner::Crc32)]));
    let (principal, parties) = read_parties(&mut table, &require);
    let compatibility = table.take("compatibility").and_then(|item| {
        item.choose(&[
            ("connect", Compatibility::Connect),
            ("streams", Compatibility::Streams),
            ("spring", Compatibility::Spring),
        ])
    });
    let start = table
        .take("start")
        .and_then(|item| item.choose(&[("earliest", Start::Earliest), ("latest", Start::Latest)]));
    let workflow = table.take("workflow").and_then(|item| {
        item.choose(&[("any", WorkflowRule::Any), ("registered", WorkflowRule::Registered)])
    });
    let mapping = read_mapping(table.table("map"));
    let breaker = read_breaker(table.table("breaker"));
    if let (Some(item), Some(mapping)) = (&unproven, &mapping)
        && !mapping.maps_request()
    {
        item.report(
            Problem::error("`unproven` needs `map.action` and `map.resource`").help(
                "a record without proof does not say what it asks for, so it must be found in the record",
            ),
        );
    }
    table.finish();
    let route = Route {
        name: name?.into(),
        from,
        to: to?.0,
        denied: denied?.0,
        audit: audit?.0,
        require_transaction: require.transaction,
        require_countersignature: require.countersignature,
        unproven: unproven_id,
        token_expiry: token_expiry.unwrap_or(TokenExpiry::Accepted),
        trust_create_time,
        skew_s,
        proof_life_s,
        max_queue_time_s,
        receipt_life_s: receipt_life_s.unwrap_or(DEFAULT_RECEIPT_LIFE_S),
        continues_from,
        replay: replay.unwrap_or(ReplayRule::Partition),
        partitioner: partitioner.unwrap_or(Partitioner::Murmur2),
        principal,
        parties,
        mapping: mapping?,
        workflow: workflow.unwrap_or(WorkflowRule::Any),
        holding,
        compatibility,
        mask: mask.to_vec(),
    };
    if route.from.is_empty() {
        return None;
    }
    Some(RouteSettings {
        route: Arc::new(route),
        start: start.unwrap_or(Start::Earliest),
        replay_topics,
        breaker,
    })
}

/// A topic that must be named, with its place.
fn topic<'d, 'r>(
    table: &mut Table<'d, 'r>,
    key: &'static str,
    advice: &str,
) -> Option<(Topic, Item<'d, 'r>)> {
    let item = table.need(key, advice)?;
    Some((item.parse()?, item))
}

fn read_name(table: &mut Table<'_, '_>, seen: &mut Seen) -> Option<String> {
    let item = table.need("name", "a short name; metrics and audit records carry it")?;
    let name = item.text()?;
    if !is_name(&name) {
        item.report(Problem::error(
            "a route's `name` may hold only letters, digits, `.`, `_` and `-`, at most 100",
        ));
        return None;
    }
    if !seen.names.insert(name.clone()) {
        item.report(Problem::error(format!("there are two routes named `{name}`")));
        return None;
    }
    Some(name)
}

fn read_sources(table: &mut Table<'_, '_>, seen: &mut Seen, route: &str) -> Vec<Topic> {
    let Some(item) = table.need("from", "the source topics, such as `from = [\"payments.commands\"]`") else {
        return Vec::new();
    };
    let Some(items) = item.list() else { return Vec::new() };
    if items.is_empty() {
        item.report(Problem::error("`from` names no topic"));
    }
    let mut sources = Vec::new();
    for item in items {
        let Some(topic) = item.parse::<Topic>() else { continue };
        if let Some(other) = seen.sources.get(&topic) {
            item.report(
                Problem::error(format!("`{topic}` is read by the route `{other}` already"))
                    .help("a record has one outcome: let one route read each topic"),
            );
        } else if let Some((other, key)) = seen.written.get(&topic).filter(|(_, key)| *key != "to") {
            item.report(
                Problem::error(format!("`{topic}` is where the route `{other}` writes `{key}`"))
                    .help("what a gate has denied or recorded must not come in again"),
            );
        } else {
            seen.sources.insert(topic.clone(), route.to_owned());
            sources.push(topic);
        }
    }
    sources
}

fn check_written(
    seen: &mut Seen,
    route: &str,
    key: &'static str,
    topic: &Topic,
    item: &Item<'_, '_>,
    from: &[Topic],
    replay_topics: &BTreeMap<Topic, Topic>,
) {
    if from.contains(topic) {
        item.report(
            Problem::error(format!("`{key}` is one of the route's own sources: `{topic}`"))
                .help("its outcomes would be decided again, without end"),
        );
    } else if key != "to"
        && let Some(other) = seen.sources.get(topic)
    {
        item.report(
            Problem::error(format!("`{key}` is a source of the route `{other}`: `{topic}`"))
                .help("what a gate has denied or recorded must not come in again"),
        );
    } else if replay_topics.values().any(|replay| replay == topic) {
        item.report(Problem::error(format!("`{key}` is the topic of the replay memory: `{topic}`")));
    } else if let Some((other, earlier)) =
        seen.written.get(topic).filter(|(other, earlier)| *earlier != key && other != route)
    {
        item.report(
            Problem::error(format!("`{key}` is where the route `{other}` writes `{earlier}`: `{topic}`"))
                .help("whoever reads one must not get the other"),
        );
    }
    seen.written.insert(topic.clone(), (route.to_owned(), key));
}

fn read_replay_topics(table: &mut Table<'_, '_>, from: &[Topic]) -> BTreeMap<Topic, Topic> {
    let item = table.take("replay_topic");
    if let Some(item) = &item
        && from.len() > 1
    {
        item.report(
            Problem::error("`replay_topic` can be set only where the route has one source")
                .help("each source topic has a replay topic of its own, with as many partitions"),
        );
    }
    let named = item.as_ref().and_then(|item| item.parse::<Topic>());
    let topics = from.iter().filter_map(|source| match &named {
        Some(named) => Some((source.clone(), named.clone())),
        None => match Topic::parse(&format!("{source}.replay")) {
            Ok(derived) => Some((source.clone(), derived)),
            Err(_) => {
                table.report(
                    Problem::error(format!("`{source}` is too long to derive the name of its replay topic"))
                        .help("set `replay_topic`"),
                );
                None
            }
        },
    });
    let topics: BTreeMap<_, _> = topics.collect();
    if let (Some(item), Some(named)) = (&item, &named)
        && from.contains(named)
    {
        item.report(Problem::error(format!("`replay_topic` is a source: `{named}`")));
    }
    topics
}

/// What `require` says.
struct Require {
    transaction: bool,
    countersignature: bool,
}

fn read_require(table: &mut Table<'_, '_>, unproven: bool) -> Require {
    let mut require = Require { transaction: false, countersignature: false };
    let advice = "what a record must carry, such as `require = [\"workload\", \"transaction\"]`";
    let Some(item) = table.need("require", advice) else { return require };
    let Some(items) = item.list() else { return require };
    let words = [("workload", 0), ("transaction", 1), ("countersignature", 2)];
    let named: BTreeSet<u8> = items.iter().filter_map(|item| item.choose(&words)).collect();
    require.transaction = named.contains(&1);
    require.countersignature = named.contains(&2);
    match (named.contains(&0), unproven) {
        (true, true) => item.report(
            Problem::error("`require` names `workload` while `unproven` admits records without one")
                .help("take one of the two away"),
        ),
        (false, false) => item.report(
            Problem::error("`require` does not name `workload`")
                .help("write `require = [\"workload\", ...]`, or say with `unproven` whom records without proof are from"),
        ),
        _ => {}
    }
    if require.countersignature && unproven {
        item.report(
            Problem::error("`require` names `countersignature` while `unproven` is set").help(
                "a record without proof that carries a countersignature is refused, so none could pass",
            ),
        );
    }
    require
}

fn read_queue_time(table: &mut Table<'_, '_>, trust_create_time: bool) -> u32 {
    let Some(item) = table.take("max_queue_time") else {
        if trust_create_time {
            table.report(
                Problem::error("`trust_create_time` needs `max_queue_time` of at most 15m")
                    .help("its default is 24h, and the replay memory must live as long"),
            );
        }
        return DEFAULT_QUEUE_TIME_S;
    };
    let seconds = item.seconds(1, 30 * DAY_S);
    if trust_create_time && seconds.is_some_and(|seconds| seconds > MAX_TRUSTED_QUEUE_TIME_S) {
        item.report(
            Problem::error("with `trust_create_time`, `max_queue_time` may be 15m at most")
                .help("the replay memory must live as long; better, set the topic's message.timestamp.type to LogAppendTime"),
        );
    }
    seconds.unwrap_or(DEFAULT_QUEUE_TIME_S)
}

fn read_parties(table: &mut Table<'_, '_>, require: &Require) -> (Party, Vec<Party>) {
    const PRINCIPALS: [(&str, Party); 2] = [("sender", Party::Sender), ("subject", Party::Subject)];
    const PARTIES: [(&str, Party); 3] =
        [("sender", Party::Sender), ("subject", Party::Subject), ("senders", Party::Senders)];
    let check = |item: &Item<'_, '_>, party: Party| match party {
        Party::Subject if !require.transaction => item.report(
            Problem::error("`subject` needs `transaction` in `require`")
                .help("without a Txn-Token nobody is named, and the record would be denied"),
        ),
        Party::Senders if !require.countersignature => item.report(
            Problem::warning("`senders` without `countersignature` in `require`")
                .help("a sender can leave the countersignature out, and then has no earlier senders"),
        ),
        _ => {}
    };
    let principal = table.take("principal").and_then(|item| {
        let party = item.choose(&PRINCIPALS)?;
        check(&item, party);
        Some(party)
    });
    let parties = table.take("parties").and_then(|item| {
        let items = item.list()?;
        let mut parties = Vec::new();
        for item in items {
            let Some(party) = item.choose(&PARTIES) else { continue };
            check(&item, party);
            if !parties.contains(&party) {
                parties.push(party);
            }
        }
        Some(parties)
    });
    (principal.unwrap_or(Party::Sender), parties.unwrap_or_default())
}

fn read_mapping(mut table: Table<'_, '_>) -> Option<Mapping> {
    let keys = ["action", "resource", "workflow", "value"];
    let items = keys.map(|key| table.take(key));
    let text = |index: usize| items.get(index).and_then(Option::as_ref).and_then(|item| item.text());
    let source = MappingSource { action: text(0), resource: text(1), workflow: text(2), value: text(3) };
    let mapping = match Mapping::compile(&source) {
        Ok(mapping) => Some(mapping),
        Err(errors) => {
            for error in errors {
                let item = keys
                    .iter()
                    .position(|key| *key == error.member)
                    .and_then(|index| items.get(index)?.as_ref());
                match item {
                    Some(item) => item.report(Problem::error(error.to_string())),
                    None => table.report(Problem::error(error.to_string())),
                }
            }
            None
        }
    };
    table.finish();
    mapping
}
