//! What becomes of a lane's membership when its consumer fails: it ends where another has taken its name, and begins anew where
//! it only seems so. Limits: what the group says of partitions comes by [`super::callbacks`].

use std::collections::BTreeSet;
use std::sync::Arc;
use std::time::{Duration, Instant};

use rdkafka::consumer::Consumer as _;
use rdkafka::error::{KafkaError, RDKafkaErrorCode as Code};

use super::KafkaLog;
use super::callbacks::Membership;
use super::convert::partitions_of;
use super::fault::{fatal, retriable, rewind};
use super::unreadable::is_damage;
use crate::authorize::ids::Topic;
use crate::stream::log::{Cause, Event, LogError, ProducerFate, TopicPartition};

const CALL: &str = "poll";
/// So often within such a time it may be no other: several sessions, with the coordinators that change meanwhile.
const FORGIVEN: usize = 2;
const FORGIVEN_WITHIN: Duration = Duration::from_secs(30);

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
            (Some((Code::FencedInstanceId, _)), _) if self.may_rejoin() => self.join_anew(),
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

    /// Whether to try again under a name that another seems to have. It may be no other. A client that hears nothing of its
    /// coordinator for a session forgets its member id, yet goes on with heartbeats until the lane has let its partitions go,
    /// and the coordinator, back again, takes them for those of somebody else (librdkafka 2.12,
    /// `rd_kafka_cgrp_session_timeout_check`); or a request to join that the client has given up is served after the next.
    /// INVARIANT: of two that do have one name the older ends. It is thrown out first, and so is the first to be thrown out once
    /// too often. (One that stood still meanwhile may come back as the newer of the two.)
    fn may_rejoin(&mut self) -> bool {
        self.rejoined.retain(|at| at.elapsed() <= FORGIVEN_WITHIN);
        self.subscribed && self.rejoined.len() < FORGIVEN
    }

    /// Joins the group with a new consumer: the old one is of no more use. INVARIANT: the lane is told at once that everything
    /// is lost. What it still took for its own it would have assigned to the new consumer by hand, as soon as it goes on.
    fn join_anew(&mut self) -> Result<Event, LogError> {
        let name = self.settings.member.as_deref().unwrap_or_default();
        tracing::warn!(
            name,
            "the group takes somebody else for this lane: it joins anew, and ends if that comes again"
        );
        let consumer = self
            .settings
            .consumer()
            .create_with_context(Membership::default())
            .map_err(|error| fatal("create consumer", &error))?;
        let said = Arc::clone(self.consumer.context());
        let mut had: BTreeSet<TopicPartition> = self
            .consumer
            .assignment()
            .map(|list| partitions_of(&list))
            .unwrap_or_default()
            .into_iter()
            .collect();
        // Closed before the new one joins. A static member leaves no group by being closed.
        drop(std::mem::replace(&mut self.consumer, consumer));
        self.held = None;
        self.sought.clear();
        while let Some(event) = said.next() {
            match event {
                Event::Assigned(partitions) | Event::Revoked(partitions) | Event::Lost(partitions) => {
                    had.extend(partitions);
                }
                Event::Idle | Event::Record(_) | Event::Unreadable(..) => {}
            }
        }
        self.rejoined.push(Instant::now());
        self.subscribed = false;
        self.subscribe().map_err(|error| LogError::Fatal(error.cause().clone()))?;
        Ok(if had.is_empty() { Event::Idle } else { Event::Lost(had.into_iter().collect()) })
    }
}
