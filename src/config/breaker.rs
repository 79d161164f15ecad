//! `[route.breaker]`: when a route stops deciding rather than empty its source into the dead-letter topic. Limits: without
//! the table nothing stops it.

use std::time::Duration;

use super::document::Table;
use super::problem::Problem;

/// When a route stops, and how it goes on (see `docs/operations.md`).
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct BreakerSettings {
    /// So many denials in a row stop the route; 1 to 1,000,000.
    pub run: Option<u32>,
    /// Such a share of the last records stops it.
    pub share: Option<Share>,
    /// After so long a few records are tried by themselves; `None`: only when somebody asks for it.
    pub retry: Option<Duration>,
    /// How many records are tried then; 1 to 10,000.
    pub probe: u32,
}

/// A share of denials.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Share {
    /// Per cent; 1 to 100.
    pub percent: u32,
    /// Of so many records, the newest; 10 to 100,000.
    pub of: u32,
}

const DEFAULT_OF: u32 = 1000;
const DEFAULT_PROBE: u32 = 10;

/// Reads the table; `None` where it says nothing.
pub(super) fn read_breaker(mut table: Table<'_, '_>) -> Option<BreakerSettings> {
    let number = |item: &super::item::Item<'_, '_>, from, to| {
        item.integer(from, to).and_then(|number| u32::try_from(number).ok())
    };
    let (run, percent, of) = (table.take("denied_in_a_row"), table.take("denied_percent"), table.take("of"));
    let (retry, probe) = (table.take("retry"), table.take("probe"));
    let named = run.is_some() || percent.is_some();
    let others = [("of", &of), ("retry", &retry), ("probe", &probe)];
    for (key, item) in others.into_iter().filter_map(|(key, item)| Some((key, item.as_ref()?))) {
        if !named || (key == "of" && percent.is_none()) {
            item.report(
                Problem::error(format!("`{key}` says how the route stops, and nothing says when")).help(
                    "write `denied_percent = 90`, or `denied_in_a_row = 500`, or both: whichever comes first",
                ),
            );
        }
    }
    let run = run.map(|item| number(&item, 1, 1_000_000));
    let percent = percent.map(|item| number(&item, 1, 100));
    let of = of.map_or(Some(DEFAULT_OF), |item| number(&item, 10, 100_000));
    let retry = retry.map(|item| item.duration(Duration::from_secs(1), Duration::from_secs(86_400)));
    let probe = probe.map_or(Some(DEFAULT_PROBE), |item| number(&item, 1, 10_000));
    table.finish();
    named.then_some(BreakerSettings {
        run: run.flatten(),
        share: percent.flatten().zip(of).map(|(percent, of)| Share { percent, of }),
        retry: retry.flatten(),
        probe: probe.unwrap_or(DEFAULT_PROBE),
    })
}
