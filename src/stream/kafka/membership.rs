//! What becomes of a lane's membership when its consumer fails: it ends where another has taken its name, and begins anew where
//! the client only seems to say so. Limits: what the group says of partitions comes by [`super::callbacks`].

use std::collections::BTreeSet;
use std::sync::Arc;

use rdkafka::consumer::Consumer as _;
use rdkafka::error::{KafkaError, RDKafkaErrorCode as Code};

use super::callbacks::Membership;
use super::convert::partitions_of;
use super::fault::{fatal, retriable, rewind};
use super::unreadable::is_damage;
use super::{KafkaLog, PATIENCE};
use crate::authorize::ids::Topic;
use crate::stream::kafka_ffi;
use crate::stream::log::{Cause, Event, LogError, ProducerFate, TopicPartition};

const CALL: &str = "poll";

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
            (Some((Code::FencedInstanceId, _)), _) if self.was_silent() => {
                self.in_doubt = true;
                self.settle_doubt()
            }
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

    /// Whether it may be this client itself that has given its membership up. One that hears nothing of its coordinator for a
    /// session forgets its member id, yet goes on with heartbeats until the lane has let its partitions go; without an id the
    /// coordinator, back again, takes them for those of another under the same name (librdkafka 2.12,
    /// `rd_kafka_cgrp_session_timeout_check`).
    fn was_silent(&self) -> bool {
        self.subscribed && !kafka_ffi::is_member(self.consumer.client())
    }

    /// Asks the group who has this lane's name: the lane joins anew unless it is another. One that stood still for long wakes up
    /// the same way as one whose coordinator was away, and may have a successor.
    pub(super) fn settle_doubt(&mut self) -> Result<Event, LogError> {
        let name = self.settings.member.as_deref().unwrap_or_default();
        let named = kafka_ffi::members_named(self.consumer.client(), &self.settings.group, name, PATIENCE);
        let named = named.map_err(|detail| LogError::Retriable(Cause { call: CALL, detail }))?;
        if named.iter().any(|id| self.member_id.as_ref() != Some(id)) {
            let detail = format!("another has joined the group as `{name}`");
            return Err(LogError::Fatal(Cause { call: CALL, detail }));
        }
        self.join_anew()
    }

    /// Joins the group with a new consumer: the old one is of no more use. INVARIANT: the lane is told at once that everything
    /// is lost. What it still took for its own it would have assigned to the new consumer by hand, as soon as it goes on.
    fn join_anew(&mut self) -> Result<Event, LogError> {
        tracing::warn!("the group was not heard for longer than its session: the lane joins it anew");
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
        self.in_doubt = false;
        self.subscribed = false;
        self.subscribe()?;
        Ok(Event::Lost(had.into_iter().collect()))
    }
}
