//! How far each followed partition has been read, and of which moment that view is. A partition is as fresh as the last own
//! pulse that was read back: everything that the broker took before that pulse was sent has been read too. Limits: pure;
//! what was written and read, and when, is handed in.

use std::collections::{BTreeMap, VecDeque};
use std::time::Duration;

use crate::authorize::ids::{Offset, Partition, Position, Topic};
use crate::authorize::standing::Positions;
use crate::stream::freshness::{Instants, ViewAge};
use crate::stream::log::TopicPartition;

/// Pulses under way in one partition, at most: older ones say nothing that the newer do not.
const PULSES_UNDER_WAY: usize = 1000;

/// The view of everything that is followed.
#[derive(Debug, Default)]
pub(super) struct View {
    partitions: BTreeMap<TopicPartition, PartitionView>,
    /// When it was last known how many partitions there are: one that nobody knows of is not read.
    counted: Option<Instants>,
    /// Where the gate announces what it has taken in: when it last did, or `None` before that.
    announced: Option<Option<Instants>>,
    /// Pulses that were sent before this moment say nothing.
    since: Option<Instants>,
}

#[derive(Debug)]
struct PartitionView {
    /// The next offset to read.
    position: Position,
    /// When something was last read, or reading was last sent there.
    read: Option<Instants>,
    /// Pulses that the broker has taken and that have not been read back, in the order of their offsets.
    pulses: VecDeque<(Offset, Instants)>,
    as_of: Option<Instants>,
}

impl View {
    /// A view of nothing yet; `announces` where others rely on what the gate announces.
    pub(super) fn new(announces: bool) -> Self {
        Self { announced: announces.then_some(None), ..Self::default() }
    }

    /// Notes which partitions there are, as of the moment `at`, at which that was asked.
    pub(super) fn counted(&mut self, at: Instants) {
        self.counted = Some(at);
    }

    /// Begins to follow a partition that is read from `position` on; one that is followed already stays as it is.
    pub(super) fn follow(&mut self, of: TopicPartition, position: Position) {
        let pulses = VecDeque::new();
        self.partitions.entry(of).or_insert(PartitionView { position, read: None, pulses, as_of: None });
    }

    /// The partitions that are followed.
    pub(super) fn followed(&self) -> impl Iterator<Item = &TopicPartition> {
        self.partitions.keys()
    }

    /// Whether that partition is followed.
    pub(super) fn follows(&self, of: &TopicPartition) -> bool {
        self.partitions.contains_key(of)
    }

    /// A record was read.
    pub(super) fn read(&mut self, of: &TopicPartition, offset: Offset, now: Instants) {
        if let Some(view) = self.partitions.get_mut(of) {
            view.position = view.position.max(offset.next());
            view.read = Some(now);
            view.settle();
        }
    }

    /// The broker has taken an own pulse that was sent at that moment.
    pub(super) fn pulsed(&mut self, of: &TopicPartition, offset: Offset, sent: Instants) {
        if self.since.is_some_and(|since| sent.is_before(since)) {
            return;
        }
        if let Some(view) = self.partitions.get_mut(of) {
            if view.pulses.len() == PULSES_UNDER_WAY {
                view.pulses.pop_front();
            }
            view.pulses.push_back((offset, sent));
            view.settle();
        }
    }

    /// The broker has taken an announcement that was sent at that moment. INVARIANT: where the one before is older than
    /// `limit`, others may have stopped waiting for this gate: only what is asked of the broker after this moment, `now`,
    /// is known to hold what they took for granted meanwhile.
    pub(super) fn announced(&mut self, sent: Instants, now: Instants, limit: Duration) {
        let before = self.announced.flatten();
        if before.is_none_or(|before| before.age(now) > limit) {
            self.since = Some(now);
            for view in self.partitions.values_mut() {
                view.as_of = None;
                view.pulses.clear();
            }
        }
        self.announced = Some(Some(sent));
    }

    /// The partitions of which nothing has come for so long although an own pulse stands there, and what is next to be read of
    /// each. Each is told again only after as long.
    pub(super) fn silent(&mut self, patience: Duration, now: Instants) -> Vec<(TopicPartition, Position)> {
        let is_long = |at: Instants| at.age(now) >= patience;
        let mut silent = Vec::new();
        for (of, view) in &mut self.partitions {
            let waits = view.pulses.front().is_some_and(|(_, sent)| is_long(*sent));
            if waits && view.read.is_none_or(is_long) {
                view.read = Some(now);
                silent.push((of.clone(), view.position));
            }
        }
        silent
    }

    /// Whether pulses may go out: only after others know that this gate has to be waited for.
    pub(super) fn may_pulse(&self) -> bool {
        !matches!(self.announced, Some(None))
    }

    /// How far a topic has been read.
    pub(super) fn positions(&self, topic: &Topic) -> Positions {
        let of_topic = self.partitions.iter().filter(|(of, _)| of.topic == *topic);
        of_topic.map(|(of, view)| (of.partition, view.position)).collect()
    }

    /// The part of the view that is the oldest; what nothing is known of comes first.
    pub(super) fn oldest(&self) -> ViewAge {
        let partitions = self.partitions.iter().map(|(of, view)| (format!("`{of}`"), view.as_of));
        let counted = ("the list of partitions".to_owned(), self.counted);
        let announced = self.announced.map(|at| ("the own place in the fleet".to_owned(), at));
        let parts = partitions.chain([counted]).chain(announced);
        let oldest = parts.reduce(|one, other| match (one.1, other.1) {
            (None, _) => one,
            (_, None) => other,
            (Some(at), Some(than)) if than.is_before(at) => other,
            _ => one,
        });
        let (part, as_of) = oldest.unwrap_or_default();
        ViewAge { part, as_of }
    }

    /// Partitions of that topic that are not yet followed, if it has `count`.
    pub(super) fn missing(&self, topic: &Topic, count: i32) -> Vec<TopicPartition> {
        let all = (0..count)
            .map(|partition| TopicPartition { topic: topic.clone(), partition: Partition(partition) });
        all.filter(|of| !self.follows(of)).collect()
    }
}

impl PartitionView {
    /// Takes the pulses that have been read past for what they say.
    fn settle(&mut self) {
        while let Some((_, sent)) = self.pulses.pop_front_if(|(offset, _)| offset.0 < self.position.0) {
            self.as_of = Some(sent);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const LIMIT: Duration = Duration::from_secs(10);

    fn of(partition: i32) -> TopicPartition {
        TopicPartition { topic: Topic::parse("c.revocations").unwrap(), partition: Partition(partition) }
    }

    fn seconds(start: Instants, seconds: u64) -> Instants {
        start.after(Duration::from_secs(seconds))
    }

    fn age(view: &View, now: Instants) -> Option<u64> {
        Some(view.oldest().as_of?.age(now).as_secs())
    }

    fn view(start: Instants, partitions: i32) -> View {
        let mut view = View::new(false);
        view.counted(seconds(start, 100));
        (0..partitions).for_each(|partition| view.follow(of(partition), Position(0)));
        view
    }

    #[test]
    fn a_view_is_of_the_moment_of_the_last_pulse_read_back_and_the_oldest_partition_counts() {
        let start = Instants::now();
        let mut view = view(start, 2);
        view.read(&of(0), Offset(9), start);
        assert_eq!(view.oldest().part, "`c.revocations/0`", "records alone say nothing");
        view.pulsed(&of(0), Offset(10), start);
        view.pulsed(&of(0), Offset(12), seconds(start, 1));
        assert_eq!(age(&view, start), None, "no pulse has been read back");
        view.read(&of(0), Offset(12), start);
        assert_eq!(view.oldest().part, "`c.revocations/1`");
        // Here the pulse is read before the broker's answer comes.
        view.read(&of(1), Offset(3), start);
        view.pulsed(&of(1), Offset(3), seconds(start, 5));
        assert_eq!(
            (age(&view, seconds(start, 6)), view.oldest().part.as_str()),
            (Some(5), "`c.revocations/0`")
        );
        assert_eq!(view.positions(&of(0).topic).to_string(), "0:13,1:4");
    }

    #[test]
    fn a_new_partition_makes_the_view_incomplete_until_its_first_pulse() {
        let start = Instants::now();
        let mut view = view(start, 1);
        view.read(&of(0), Offset(0), start);
        view.pulsed(&of(0), Offset(0), start);
        assert_eq!(age(&view, seconds(start, 1)), Some(1));
        assert_eq!(view.missing(&of(0).topic, 2), [of(1)]);
        view.follow(of(1), Position(0));
        assert_eq!(age(&view, seconds(start, 1)), None);
        // A count that cannot be asked for ages as well.
        view.read(&of(1), Offset(0), start);
        view.pulsed(&of(1), Offset(0), seconds(start, 150));
        view.read(&of(0), Offset(1), start);
        view.pulsed(&of(0), Offset(1), seconds(start, 150));
        assert_eq!(
            (age(&view, seconds(start, 150)), view.oldest().part.as_str()),
            (Some(50), "the list of partitions")
        );
    }

    #[test]
    fn after_a_silence_only_pulses_that_follow_the_announcement_count() {
        let start = Instants::now();
        let mut view = View::new(true);
        assert!(!view.may_pulse());
        view.counted(seconds(start, 100));
        view.follow(of(0), Position(0));
        view.announced(start, seconds(start, 1), LIMIT);
        assert!(view.may_pulse());
        view.read(&of(0), Offset(7), start);
        view.pulsed(&of(0), Offset(0), seconds(start, 2));
        view.announced(seconds(start, 3), seconds(start, 3), LIMIT);
        assert_eq!(age(&view, seconds(start, 4)), Some(2));

        // It said nothing for longer than others wait: what it had read before is no longer enough.
        view.pulsed(&of(0), Offset(1), seconds(start, 13));
        view.announced(seconds(start, 14), seconds(start, 15), LIMIT);
        assert_eq!(age(&view, seconds(start, 16)), None);
        view.pulsed(&of(0), Offset(2), seconds(start, 14));
        assert_eq!(age(&view, seconds(start, 16)), None, "that one was sent before");
        view.pulsed(&of(0), Offset(3), seconds(start, 15));
        assert_eq!(age(&view, seconds(start, 16)), Some(2), "since the announcement");
    }

    #[test]
    fn a_partition_of_which_nothing_comes_although_a_pulse_stands_there_is_silent() {
        let start = Instants::now();
        let silent = |view: &mut View, at| view.silent(LIMIT, seconds(start, at));
        let mut view = view(start, 2);
        assert_eq!(silent(&mut view, 60), [], "no pulse stands anywhere");
        view.pulsed(&of(0), Offset(3), start);
        view.pulsed(&of(1), Offset(3), start);
        assert_eq!(silent(&mut view, 9), []);
        view.read(&of(1), Offset(2), seconds(start, 5));
        assert_eq!(silent(&mut view, 12), [(of(0), Position(0))], "of the other something has come");
        assert_eq!(silent(&mut view, 16), [(of(1), Position(3))]);
        view.read(&of(1), Offset(3), seconds(start, 17));
        assert_eq!(silent(&mut view, 22), [(of(0), Position(0))], "still");
        assert_eq!(silent(&mut view, 60), [(of(0), Position(0))], "what was read back does not wait");
    }
}
