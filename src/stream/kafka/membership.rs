//! What becomes of a lane's membership when its consumer fails: it ends where another has taken its name, and begins anew where
//! it only seems so. Limits: what the group says of partitions comes by [`super::callbacks`].

use std::collections::VecDeque;
use std::time::{Duration, Instant};

use rdkafka::consumer::Consumer as _;
use rdkafka::error::{KafkaError, RDKafkaErrorCode as Code};

use super::KafkaLog;
use super::callbacks::Membership;
use super::fault::{fatal, retriable, rewind};
use super::left_over::{ASKED, STABLE};
use super::settings::SESSION;
use super::unreadable::is_damage;
use crate::authorize::ids::Topic;
use crate::stream::kafka_ffi;
use crate::stream::log::{Cause, Event, LogError, ProducerFate, TopicPartition};

const CALL: &str = "poll";
/// So long another may have this lane's name and yet be none: what nobody speaks for leaves a group that stands at the end of its
/// session, and a gate that is there stays. While a group changes, or its coordinator is silent, nobody is made to leave.
const GHOST: Duration = SESSION.saturating_add(Duration::from_secs(4));
/// Between two looks at who has the name, at least.
const PACE: Duration = Duration::from_millis(100);
/// Ids by which the group has known this lane, at most; the oldest is forgotten.
const IDS: usize = 16;
/// A static member's id is its name, a dash and such a number of characters (a UUID).
const UNIQUE: usize = 36;

/// What the lane knows of others with its name, and of itself under its own.
#[derive(Default)]
pub(super) struct Namesakes {
    /// The member ids that it has had, the newest last.
    ids: VecDeque<String>,
    /// Since the group took another for this lane, until it is settled who that is.
    doubt: Option<Doubt>,
}

struct Doubt {
    /// What the group has said.
    detail: String,
    /// The id of another with this lane's name, and since when the group has stood with it.
    other: Option<(String, Instant)>,
}

impl Doubt {
    /// The group stands with that other in it, or there is none to be seen. For how long it has been this one.
    fn sees(&mut self, other: Option<&str>, now: Instant) -> Duration {
        let since =
            self.other.take().filter(|(id, _)| Some(id.as_str()) == other).map_or(now, |(_, since)| since);
        self.other = other.map(|id| (id.to_owned(), since));
        now.saturating_duration_since(since)
    }
}

impl Namesakes {
    pub(super) fn is_called(&mut self, id: Option<String>) {
        let Some(id) = id.filter(|id| self.ids.back() != Some(id)) else { return };
        if self.ids.len() >= IDS {
            self.ids.pop_front();
        }
        self.ids.push_back(id);
    }

    pub(super) fn is_doubted(&self) -> bool {
        self.doubt.is_some()
    }

    /// Whoever leaves the group needs no name in it.
    pub(super) fn needs_none(&mut self) {
        self.doubt = None;
    }

    /// The one of a group's members that has `name` and is not known to be this lane.
    fn other<'m>(&self, name: &str, mut members: impl Iterator<Item = &'m String>) -> Option<&'m String> {
        members.find(|id| {
            let unique = id.strip_prefix(name).and_then(|rest| rest.strip_prefix('-'));
            unique.is_some_and(|unique| unique.len() == UNIQUE) && !self.ids.contains(id)
        })
    }

    /// The other with this name has been seen again, or nothing has. The group's words, once that one is sure to stay.
    fn stays(&mut self, other: Option<&str>) -> Option<String> {
        let seen = self.doubt.as_mut()?.sees(other, Instant::now());
        self.doubt.take_if(|_| seen > GHOST).map(|doubt| doubt.detail)
    }
}

impl KafkaLog {
    pub(super) fn subscribe(&mut self) -> Result<(), LogError> {
        if !self.subscribed {
            let names: Vec<&str> = self.settings.topics.iter().map(Topic::as_str).collect();
            self.consumer.subscribe(&names).map_err(|error| retriable("subscribe", &error))?;
            self.subscribed = true;
        }
        Ok(())
    }

    /// What a poll that failed means.
    pub(super) fn failed(&mut self, error: &KafkaError) -> Result<Event, LogError> {
        match (self.consumer.client().fatal_error(), error) {
            (Some((Code::FencedInstanceId, detail)), _) if self.subscribed => self.doubt(detail),
            (Some((_, detail)), _) => Err(LogError::Fatal(Cause { call: CALL, detail })),
            (None, KafkaError::MessageConsumptionFatal(_)) => {
                Err(LogError::Fatal(Cause { call: CALL, detail: error.to_string() }))
            }
            (None, KafkaError::MessageConsumption(Code::AutoOffsetReset)) => {
                Err(rewind(CALL, "a position is outside of what the topic holds", ProducerFate::Usable))
            }
            (None, KafkaError::MessageConsumption(code)) if is_damage(*code) => self.find_unreadable(),
            (None, _) => Err(retriable(CALL, error)),
        }
    }

    /// The group has taken another for this lane. INVARIANT: the lane is told at once that everything is lost, and the consumer is
    /// another: the old one is of no more use, and what the lane still took for its own it would have assigned to the new one by hand.
    fn doubt(&mut self, detail: String) -> Result<Event, LogError> {
        self.namesakes.is_called(kafka_ffi::member_id(self.consumer.client()));
        self.namesakes.doubt = Some(Doubt { detail, other: None });
        let consumer = self
            .settings
            .consumer()
            .create_with_context(Membership::default())
            .map_err(|error| fatal("create consumer", &error))?;
        // Closed before the new one joins. A static member leaves no group by being closed. What the old one still had to say of
        // its assignment goes with it; it does not always say that it has lost anything.
        drop(std::mem::replace(&mut self.consumer, consumer));
        self.held = None;
        self.reading.clear();
        let had: Vec<TopicPartition> = std::mem::take(&mut self.assigned).into_iter().collect();
        self.subscribed = false;
        Ok(if had.is_empty() { Event::Idle } else { Event::Lost(had) })
    }

    /// Joins anew if nobody else has this lane's name. It may be no other: a client that hears nothing of its coordinator for
    /// a session forgets its member id, yet goes on with heartbeats until the lane has let its partitions go, and the coordinator, back
    /// again, takes them for those of somebody else (librdkafka 2.12, `rd_kafka_cgrp_session_timeout_check`): then the group lists
    /// nobody, or this lane under an id that it has had. Or a request to join that the client has given up is served after the
    /// next, under an id that nobody has heard of and nobody speaks for. INVARIANT: whoever was thrown out throws nobody out: it
    /// waits. So of two gates that do have one name one ends, and only one, the older: and that is the first lane's to say.
    pub(super) fn settle_name(&mut self, wait: Duration) -> Result<Event, LogError> {
        let name = self.settings.member.clone().unwrap_or_default();
        let Some(group) = kafka_ffi::group(self.consumer.client(), &self.settings.group, ASKED) else {
            self.namesakes.stays(None);
            return Err(LogError::Retriable(Cause {
                call: "list the group",
                detail: format!("no broker says who is called `{name}`"),
            }));
        };
        if let Some(other) = self.namesakes.other(&name, group.members.iter().map(|(id, _)| id)) {
            let other = (group.state == STABLE && self.settings.is_first).then_some(other.as_str());
            if let Some(detail) = self.namesakes.stays(other) {
                return Err(LogError::Fatal(Cause { call: CALL, detail }));
            }
            std::thread::sleep(wait.max(PACE));
            return Ok(Event::Idle);
        }
        tracing::warn!(
            name,
            "the group took somebody else for this lane: it joins anew, and ends if another has its name"
        );
        self.subscribe()?;
        self.namesakes.doubt = None;
        Ok(Event::Idle)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_namesake_is_another_member_of_exactly_this_name() {
        let id = |name: &str, n: u8| format!("{name}-{n:08}-0000-4000-8000-000000000000");
        let mut namesakes = Namesakes::default();
        namesakes.is_called(Some(id("one-0", 1)));
        namesakes.is_called(Some(id("one-0", 2)));
        let others = [id("one-1", 3), id("one-0-0", 3), id("two-0", 3), "rdkafka-1".to_owned()];
        assert_eq!(namesakes.other("one-0", others.iter()), None);
        assert_eq!(namesakes.other("one-0", [id("one-0", 1)].iter()), None, "an id that it has had");
        let listed = [id("one-1", 3), id("one-0", 3)];
        assert_eq!(namesakes.other("one-0", listed.iter()), Some(&listed[1]));
        assert_eq!(namesakes.other("one-0", [].iter()), None);
    }

    #[test]
    fn another_stays_only_if_it_is_the_same_one_while_the_group_stands() {
        let mut doubt = Doubt { detail: String::new(), other: None };
        let began = Instant::now();
        let mut seen = |other, at: u64| doubt.sees(other, began + Duration::from_secs(at)).as_secs();
        assert_eq!(seen(Some("x"), 5), 0);
        assert_eq!(seen(Some("x"), 14), 9);
        assert_eq!(seen(None, 15), 0, "a coordinator that is silent, or a group that changes");
        assert_eq!(seen(Some("x"), 16), 0);
        assert_eq!(seen(Some("y"), 30), 0, "a ghost of its own has come after another");
        assert_eq!(seen(Some("y"), 41), 11);
    }

    #[test]
    fn ids_are_bounded_and_the_newest_stays() {
        let mut namesakes = Namesakes::default();
        for n in 0..100 {
            namesakes.is_called(Some(n.to_string()));
            namesakes.is_called(Some(n.to_string()));
            namesakes.is_called(None);
        }
        assert_eq!(namesakes.ids.len(), IDS);
        assert_eq!(namesakes.ids.back().map(String::as_str), Some("99"));
    }
}
