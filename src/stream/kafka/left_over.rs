//! Partitions that a broken rebalance has left to nobody, and the way back. A cooperative rebalance takes two rounds: what changes
//! hands is given up in the first, and its new owner gets it in the second, which whoever gave it up begins. A static member that
//! dies between the two comes back under its name without a rebalance, and the second never comes (Kafka 4, and before).
//! Limits: members by name alone; without one, the end of a session brings the next rebalance.

use std::collections::{BTreeMap, BTreeSet};
use std::time::{Duration, Instant};

use rdkafka::consumer::Consumer as _;

use super::KafkaLog;
use super::aside::{Answer, Aside, SideClient};
use super::callbacks::Reader;
use super::settings::KafkaSettings;
use crate::authorize::ids::Topic;
use crate::stream::kafka_ffi::{self, Group};
use crate::stream::log::LogError;

/// Between two looks at the group.
const LOOK: Duration = Duration::from_secs(5);
/// Before the first look after a lane has joined anew for that: what one new rebalance did not give to anybody, the next would not.
const REST: Duration = Duration::from_secs(60);
/// How long one request about the group may take.
pub(super) const ASKED: Duration = Duration::from_secs(2);
/// No rebalance is under way.
pub(super) const STABLE: &str = "Stable";

/// A look at the group: the members that are there, what each of them has, and what nobody has.
#[derive(Debug, Clone, PartialEq, Eq)]
struct Look {
    members: BTreeMap<String, BTreeSet<(String, i32)>>,
    is_left_over: bool,
}

impl Look {
    /// What there is to know of a group, with so many partitions of each topic; `None` while it changes.
    fn of(group: &Group, counts: &BTreeMap<String, i32>) -> Option<Self> {
        if group.state != STABLE {
            return None;
        }
        let members: BTreeMap<_, _> =
            group.members.iter().map(|(id, bytes)| (id.clone(), assignment(bytes))).collect();
        let given: BTreeSet<(&str, i32)> =
            members.values().flatten().map(|(topic, at)| (topic.as_str(), *at)).collect();
        let mut all = counts.iter().flat_map(|(topic, count)| (0..*count).map(|at| (topic.as_str(), at)));
        let is_left_over = all.any(|partition| !given.contains(&partition));
        Some(Self { members, is_left_over })
    }

    /// Who begins the next rebalance: of those that have least the first, which has least to lose by it.
    fn begins(&self) -> Option<&str> {
        self.members.iter().min_by_key(|(id, has)| (has.len(), *id)).map(|(id, _)| id.as_str())
    }
}

/// The partitions of an assignment of the consumer protocol: a version, then topics with their partitions. What cannot be read
/// is nobody's.
pub fn assignment(bytes: &[u8]) -> BTreeSet<(String, i32)> {
    let (mut rest, mut found) = (Rest(bytes), BTreeSet::new());
    let mut read = || -> Option<()> {
        rest.take(2)?;
        for _ in 0..rest.number()? {
            let length = rest.take(2)?.try_into().map(u16::from_be_bytes).ok()?;
            let topic = String::from_utf8_lossy(rest.take(length.into())?).into_owned();
            for _ in 0..rest.number()? {
                found.insert((topic.clone(), rest.number()?));
            }
        }
        Some(())
    };
    let _ = read();
    found
}

struct Rest<'b>(&'b [u8]);

impl<'b> Rest<'b> {
    fn take(&mut self, count: usize) -> Option<&'b [u8]> {
        let (taken, left) = self.0.split_at_checked(count)?;
        self.0 = left;
        Some(taken)
    }

    fn number(&mut self) -> Option<i32> {
        self.take(4)?.try_into().map(i32::from_be_bytes).ok()
    }
}

/// What a lane looks at the group with.
pub(super) struct Watch {
    next: Option<Instant>,
    /// There is no answer where the group changes, or cannot be seen.
    aside: Aside<Look>,
    before: Option<Look>,
    /// The lane leaves the group, to join it anew.
    is_leaving: bool,
}

impl Watch {
    pub(super) fn new(client: &SideClient) -> Self {
        Self { next: None, aside: Aside::new(client), before: None, is_leaving: false }
    }

    /// The answer of a look, once it is there. Every now and then a look begins: brokers that are silent must not hold up the lane.
    fn look(&mut self, settings: &KafkaSettings) -> Option<Look> {
        match self.aside.answer() {
            Answer::Given(look) => return Some(look),
            Answer::Awaited => return None,
            Answer::Failed => {
                self.before = None;
                return None;
            }
            Answer::Unasked => {}
        }
        let now = Instant::now();
        if self.next.is_some_and(|next| now < next) {
            return None;
        }
        // Not at the very start: a group that has just been joined changes.
        if self.next.replace(now + LOOK).is_some() {
            let (group, topics) = (settings.group.clone(), settings.topics.clone());
            self.aside.ask("group", move |client| look_at(client, &group, &topics));
        }
        None
    }

    /// Whether the group has stood like that for two looks in a row, with something left over.
    fn stands(&mut self, look: Look) -> bool {
        let before = self.before.replace(look);
        self.before.as_ref().is_some_and(|look| look.is_left_over) && self.before == before
    }

    /// Whoever leaves the group in order does not join it anew.
    pub(super) fn stays_away(&mut self) {
        self.is_leaving = false;
    }
}

fn look_at(client: &Reader, group: &str, topics: &[Topic]) -> Option<Look> {
    let mut counts = BTreeMap::new();
    for topic in topics {
        let metadata = client.fetch_metadata(Some(topic.as_str()), ASKED).ok()?;
        let found = metadata.topics().iter().find(|found| found.name() == topic.as_str());
        let count = found.filter(|found| found.error().is_none())?.partitions().len();
        counts.insert(topic.to_string(), i32::try_from(count).ok()?);
    }
    Look::of(&kafka_ffi::group(client.client(), group, ASKED)?, &counts)
}

impl KafkaLog {
    /// Begins the next rebalance where one was broken off and has left partitions to nobody: the lane leaves the group, and
    /// joins it anew once it has left.
    pub(super) fn look_after_group(&mut self) -> Result<(), LogError> {
        if self.watch.is_leaving {
            if kafka_ffi::member_id(self.consumer.client()).is_none() {
                self.subscribe()?;
                self.watch.is_leaving = false;
            }
            return Ok(());
        }
        if !self.subscribed || self.settings.member.is_none() {
            return Ok(());
        }
        let Some(look) = self.watch.look(&self.settings) else { return Ok(()) };
        if !self.watch.stands(look) {
            return Ok(());
        }
        let own = kafka_ffi::member_id(self.consumer.client());
        if own.is_some() && own.as_deref() == self.watch.before.as_ref().and_then(Look::begins) {
            tracing::warn!("partitions belong to nobody since a rebalance broke off: the lane joins anew");
            self.watch.before = None;
            self.watch.next = Instant::now().checked_add(REST);
            self.consumer.unsubscribe();
            self.subscribed = false;
            self.watch.is_leaving = true;
        }
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Topics with their partitions.
    type Has<'a> = [(&'a str, &'a [i32])];

    fn encoded(topics: &Has<'_>) -> Vec<u8> {
        let mut bytes = vec![0, 1];
        bytes.extend((topics.len() as i32).to_be_bytes());
        for (topic, partitions) in topics {
            bytes.extend((topic.len() as u16).to_be_bytes());
            bytes.extend(topic.as_bytes());
            bytes.extend((partitions.len() as i32).to_be_bytes());
            partitions.iter().for_each(|partition| bytes.extend(partition.to_be_bytes()));
        }
        bytes.extend([0xff; 4]);
        bytes
    }

    fn group(state: &str, members: &[(&str, &Has<'_>)]) -> Group {
        let members = members.iter().map(|(id, has)| ((*id).to_owned(), encoded(has))).collect();
        Group { state: state.to_owned(), members }
    }

    #[test]
    fn what_nobody_has_is_seen_and_who_has_least_begins() {
        let counts = BTreeMap::from([("a".to_owned(), 2), ("b".to_owned(), 2)]);
        let whole = group(STABLE, &[("x", &[("a", &[0, 1])]), ("y", &[("b", &[1, 0])])]);
        assert!(!Look::of(&whole, &counts).unwrap().is_left_over);
        let less = group(STABLE, &[("x", &[("a", &[0, 1]), ("b", &[1])]), ("z", &[]), ("y", &[])]);
        let look = Look::of(&less, &counts).unwrap();
        assert!(look.is_left_over);
        assert_eq!(look.begins(), Some("y"));
        assert_eq!(Look::of(&group("PreparingRebalance", &[]), &counts), None);
        // Twice the same: only then it is no rebalance that is under way.
        let mut watch = Watch::new(&SideClient::nobody());
        assert!(!watch.stands(look.clone()));
        assert!(watch.stands(look.clone()));
        let whole = Look::of(&whole, &counts).unwrap();
        assert!(!watch.stands(whole.clone()) && !watch.stands(whole));
        assert!(!watch.stands(look));
    }

    #[test]
    fn any_bytes_are_an_assignment() {
        let bytes = encoded(&[("a", &[0, 7]), ("b", &[])]);
        assert_eq!(assignment(&bytes), BTreeSet::from([("a".to_owned(), 0), ("a".to_owned(), 7)]));
        for cut in 0..bytes.len() {
            assert!(assignment(&bytes[..cut]).len() <= 2);
        }
        assert!(assignment(&[0xff; 64]).is_empty());
        assert!(assignment(&[0, 0, 0x7f, 0xff, 0xff, 0xff]).is_empty());
    }
}
