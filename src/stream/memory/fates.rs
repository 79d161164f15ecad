//! Every call of the seam, and each of the ways in which it fails with Kafka: before it was made, or after. Limits: a table;
//! when a call fails is the plan's.

/// How a call fails.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Fate {
    /// Nothing happened; it may be made again.
    Retriable,
    /// The transaction must end; the producer can go on.
    Usable,
    /// What it did is unknown.
    Unclear,
    /// The producer is told that it was replaced.
    Fenced,
    /// The lane is told that its membership is gone.
    Fatal,
}

use Fate::{Fatal, Fenced, Retriable, Unclear, Usable};

/// What can become of a call where it fails.
pub(super) struct Fates {
    /// It was not made.
    pub(super) before: &'static [Fate],
    /// It was made, and the answer is one of these.
    pub(super) after: &'static [Fate],
}

/// What the log is asked for and does not take away from anybody by telling it.
const ASKED: Fates = Fates { before: &[Retriable, Fatal], after: &[Retriable] };
/// What is told once: a failed call has taken nothing.
const TAKEN: Fates = Fates { before: &[Retriable, Fatal], after: &[] };
const POLLED: Fates = Fates { before: &[Retriable, Usable, Fatal], after: &[] };
const MADE: Fates =
    Fates { before: &[Retriable, Unclear, Fenced, Fatal], after: &[Retriable, Unclear, Fenced] };
const WRITTEN: Fates = Fates { before: &[Usable, Unclear, Fenced, Fatal], after: &[Usable, Unclear, Fenced] };
/// A commit that was made is never said to be one that must be aborted.
const ENDED: Fates = Fates { before: &[Usable, Unclear, Fenced], after: &[Unclear, Fenced] };

/// Every call of the seam that can fail.
pub(super) static CALLS: [(&str, Fates); 22] = [
    ("join", MADE),
    ("poll", POLLED),
    ("pause", ASKED),
    ("resume", ASKED),
    ("begin", WRITTEN),
    ("append", WRITTEN),
    ("send positions", WRITTEN),
    ("commit", ENDED),
    ("abort", WRITTEN),
    ("renew", MADE),
    ("committed", ASKED),
    ("unsettled metadata", ASKED),
    ("fence", MADE),
    ("bounds", ASKED),
    ("ends", ASKED),
    ("read back", ASKED),
    ("next back", TAKEN),
    ("follow answers", ASKED),
    ("next answer", TAKEN),
    ("answers seen", ASKED),
    ("fetch", ASKED),
    ("partition count", ASKED),
];

/// One way in which one call fails, once.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(in crate::stream) struct Aim {
    pub(super) call: &'static str,
    pub(super) made: bool,
    pub(super) fate: Fate,
    /// So many of these calls succeed first.
    pub(super) skipped: u64,
}

impl Aim {
    /// The same, once so many of these calls have succeeded.
    pub(in crate::stream) fn after(self, skipped: u64) -> Self {
        Self { skipped, ..self }
    }

    /// Every call in each of its fates.
    pub(in crate::stream) fn all() -> Vec<Self> {
        let fates = |fates: &Fates| {
            let before = fates.before.iter().map(|fate| (false, *fate));
            before.chain(fates.after.iter().map(|fate| (true, *fate))).collect::<Vec<_>>()
        };
        let aims = CALLS.iter().flat_map(|(call, of)| fates(of).into_iter().map(move |fate| (*call, fate)));
        aims.map(|(call, (made, fate))| Self { call, made, fate, skipped: 0 }).collect()
    }
}
