//! How a route holds records: the keys of `[[route]]` that begin to count with `challenges`. Limits: what a step-up asks for is
//! written in the policies.

use std::collections::BTreeMap;

use super::document::Table;
use super::item::Item;
use super::problem::Problem;
use super::route::DAY_S;
use crate::authorize::ids::Topic;
use crate::authorize::route::{Holding, Order};

const DEFAULT_HOLD_S: u32 = DAY_S;
const DEFAULT_GRANT_S: u32 = 600;
const DEFAULT_WAITING: usize = 1000;
const MOST_WAITING: u64 = 100_000;

/// Reads how the route with these sources holds; `None` where it does not. `taken` are the topics that it uses for
/// something else.
pub(super) fn read_holding(
    table: &mut Table<'_, '_>,
    from: &[Topic],
    taken: &[(&'static str, &Topic)],
) -> Option<Holding> {
    let challenges = table.take("challenges");
    let (holds, answers) = (table.take("holds"), table.take("answers"));
    let (hold, grant) = (table.take("hold"), table.take("grant"));
    let (order, waiting) = (table.take("order"), table.take("max_waiting"));
    let Some(challenges) = challenges else {
        let others = [
            ("holds", &holds),
            ("answers", &answers),
            ("hold", &hold),
            ("grant", &grant),
            ("order", &order),
            ("max_waiting", &waiting),
        ];
        for (key, item) in others {
            if let Some(item) = item {
                item.report(
                    Problem::error(format!("`{key}` without `challenges`: the route does not hold records"))
                        .help("name the topic of its challenges, such as `challenges = \"payments.challenges\"`"),
                );
            }
        }
        return None;
    };
    let holds = topics(table, from, "holds", holds.as_ref());
    let answers = topics(table, from, "answers", answers.as_ref());
    let topic = challenges.parse::<Topic>();
    let own = topic.iter().map(|topic| ("challenges", topic));
    let own: Vec<(&str, &Topic)> = own
        .chain(holds.values().map(|topic| ("holds", topic)))
        .chain(answers.values().map(|topic| ("answers", topic)))
        .collect();
    for (index, (key, topic)) in own.iter().enumerate() {
        let before = taken.iter().chain(own.iter().take(index)).find(|(_, other)| other == topic);
        if let Some((other, _)) = before {
            challenges.report(
                Problem::error(format!("`{key}` is the same topic as `{other}`: `{topic}`"))
                    .help("each of them needs a topic of its own"),
            );
        }
    }
    let order = order.and_then(|item| item.choose(&[("none", Order::None), ("key", Order::Key)]));
    let waiting = waiting.and_then(|item| item.integer(1, MOST_WAITING));
    Some(Holding {
        challenges: topic?,
        holds,
        answers,
        hold_s: hold.and_then(|item| item.seconds(1, 30 * DAY_S)).unwrap_or(DEFAULT_HOLD_S),
        grant_s: grant.and_then(|item| item.seconds(1, DAY_S)).unwrap_or(DEFAULT_GRANT_S),
        order: order.unwrap_or(Order::None),
        max_waiting: waiting.and_then(|count| usize::try_from(count).ok()).unwrap_or(DEFAULT_WAITING),
    })
}

/// The topic that goes with each source: as named, or `<source>.<key>`.
fn topics(
    table: &Table<'_, '_>,
    from: &[Topic],
    key: &'static str,
    item: Option<&Item<'_, '_>>,
) -> BTreeMap<Topic, Topic> {
    if let Some(item) = item
        && from.len() > 1
    {
        item.report(
            Problem::error(format!("`{key}` can be set only where the route has one source"))
                .help("each source topic has one of its own, with as many partitions"),
        );
    }
    let named = item.and_then(|item| item.parse::<Topic>());
    let derived = |source: &Topic| {
        let derived = Topic::parse(&format!("{source}.{key}"));
        if derived.is_err() {
            table.report(
                Problem::error(format!("`{source}` is too long to derive the name of its topic for `{key}`"))
                    .help(format!("set `{key}`")),
            );
        }
        derived.ok()
    };
    let pairs = from.iter().map(|source| (source.clone(), named.clone().or_else(|| derived(source))));
    pairs.filter_map(|(source, topic)| Some((source, topic?))).collect()
}
