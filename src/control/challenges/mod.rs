//! The challenges of the routes that hold, as approvers look at them: read from the routes' `challenges` topics to their
//! end and followed after. Limits: a copy for people, at most as far behind as a fetch; the lane decides on its own state.

mod index;
mod reader;

use std::collections::BTreeSet;
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};
use std::sync::{Arc, PoisonError, RwLock};
use std::thread::JoinHandle;

use rdkafka::error::KafkaError;
use tokio::sync::watch;

pub use index::{Index, Page, Place, Query};

use self::reader::Reader;
use crate::authorize::ids::Topic;
use crate::authorize::step_up::Challenge;
use crate::config::KafkaProperties;
use crate::telemetry::Telemetry;
use crate::telemetry::events::ChallengeUnreadable;
use crate::wire::challenge::{ChallengeCodec, ChallengeCodecError};

/// Why challenges cannot be followed.
#[derive(Debug, thiserror::Error)]
pub enum ChallengesError {
    /// The consumer cannot be made.
    #[error("the challenges cannot be followed: {0}")]
    Kafka(#[from] KafkaError),
    /// The thread cannot be started.
    #[error("the thread that follows the challenges cannot be started: {0}")]
    Thread(#[from] std::io::Error),
    /// The challenge schema does not parse: a broken build.
    #[error(transparent)]
    Codec(#[from] ChallengeCodecError),
}

/// The challenges as they stand. Clones share them.
#[derive(Debug, Clone)]
pub struct Challenges(Arc<Shared>);

#[derive(Debug)]
struct Shared {
    codec: ChallengeCodec,
    index: RwLock<Index>,
    /// Topics that have not been read to their end yet.
    behind: AtomicUsize,
    /// Counts the changes, so that somebody can wait for one.
    changes: watch::Sender<u64>,
}

/// The threads that follow the topics, one each. Dropping it ends them.
#[derive(Debug)]
pub struct ChallengeFollower {
    stop: Arc<AtomicBool>,
    threads: Vec<JoinHandle<()>>,
}

impl Challenges {
    /// None, and none followed.
    ///
    /// # Errors
    /// The schema does not parse: a broken build.
    pub fn new() -> Result<Self, ChallengeCodecError> {
        Ok(Self(Arc::new(Shared {
            codec: ChallengeCodec::new()?,
            index: RwLock::default(),
            behind: AtomicUsize::new(0),
            changes: watch::Sender::new(0),
        })))
    }

    /// Starts to follow these topics. No broker is waited for.
    ///
    /// # Errors
    /// [`ChallengesError`].
    pub fn follow(
        &self,
        properties: &KafkaProperties,
        group: &str,
        topics: BTreeSet<Topic>,
        telemetry: &Telemetry,
    ) -> Result<ChallengeFollower, ChallengesError> {
        let mut follower = ChallengeFollower { stop: Arc::new(AtomicBool::new(false)), threads: Vec::new() };
        self.0.behind.store(topics.len(), Ordering::Release);
        for topic in topics {
            let reader = Reader::new(properties, group, topic)?;
            let (challenges, stop, telemetry) = (self.clone(), Arc::clone(&follower.stop), telemetry.clone());
            let thread = std::thread::Builder::new()
                .name("challenges".to_owned())
                .spawn(move || challenges.read(reader, &stop, &telemetry))?;
            follower.threads.push(thread);
        }
        Ok(follower)
    }

    fn read(&self, mut reader: Reader, stop: &AtomicBool, telemetry: &Telemetry) {
        let mut is_behind = true;
        while !stop.load(Ordering::Relaxed) {
            if let Some(record) = reader.next()
                && let Err(error) = self.take(&record.key, record.value.as_deref())
            {
                let problem = error.to_string();
                ChallengeUnreadable { source: &record.source, problem: &problem }.emit(telemetry);
            }
            if is_behind && reader.is_at_end() {
                is_behind = false;
                self.0.behind.fetch_sub(1, Ordering::AcqRel);
            }
        }
    }

    /// Takes in one record of a challenges topic: the newest state of the challenge that the key names, or its end.
    ///
    /// # Errors
    /// The value is no challenge; nothing has changed.
    pub fn take(&self, key: &str, value: Option<&[u8]>) -> Result<(), ChallengeCodecError> {
        let challenge = value.map(|value| self.0.codec.decode(value)).transpose()?;
        let mut index = self.0.index.write().unwrap_or_else(PoisonError::into_inner);
        match (challenge, value) {
            (Some(challenge), Some(value)) => index.put(&challenge, value),
            _ => index.remove(key),
        }
        drop(index);
        self.0.changes.send_modify(|count| *count += 1);
        Ok(())
    }

    /// Whether the topics have been read to their end since the start.
    pub fn is_complete(&self) -> bool {
        self.0.behind.load(Ordering::Acquire) == 0
    }

    /// One challenge.
    pub fn get(&self, id: &str) -> Option<Challenge> {
        let value = self.0.index.read().unwrap_or_else(PoisonError::into_inner).get(id)?;
        self.0.codec.decode(&value).ok()
    }

    /// At most `limit` challenges out of at most `most` that are looked at; see [`Index::list`].
    pub fn list(&self, query: &Query, limit: usize, most: usize) -> Page<Challenge> {
        let Page { found, next, looked } =
            self.0.index.read().unwrap_or_else(PoisonError::into_inner).list(query, limit, most);
        let found = found.iter().filter_map(|value| self.0.codec.decode(value).ok()).collect();
        Page { found, next, looked }
    }

    /// Tells of changes from now on.
    pub fn changes(&self) -> watch::Receiver<u64> {
        self.0.changes.subscribe()
    }
}

impl Drop for ChallengeFollower {
    fn drop(&mut self) {
        self.stop.store(true, Ordering::Relaxed);
        for thread in self.threads.drain(..) {
            let _ = thread.join();
        }
    }
}

#[cfg(test)]
pub(crate) mod tests {
    use crate::authorize::audit::{AuditAction, AuditResource};
    use crate::authorize::step_up::{Ask, Challenge, Status};

    /// A challenge of the route `payments`, for tests.
    pub(crate) fn challenge(number: u32, status: Status, changed_at: i64) -> Challenge {
        Challenge {
            id: format!("payments.commands:3:0190a6c0-0000-7000-8000-{number:012}"),
            status,
            changed_at,
            realm: "test".into(),
            route: "payments".into(),
            topic: "payments.commands".into(),
            partition: 3,
            offset: 42,
            asked_at: 1_893_456_000_000 + i64::from(number),
            hold_until: 1_893_457_800_000,
            approvals: 1,
            step_ups: vec![Ask {
                name: "second-pair-of-eyes".into(),
                policy: "large".into(),
                message: "Pay 12,000 EUR for inv-7?".into(),
                approvals: 1,
                grant_s: 600,
                acr_values: None,
                max_age_s: None,
            }],
            sender: "spiffe://example.org/agent/payer".into(),
            subject: Some("alice".into()),
            chain: vec![],
            transaction: Some("txn-1".into()),
            action: AuditAction { name: "pay".into(), properties: None },
            resource: AuditResource { kind: "Invoice".into(), id: "inv-7".into(), properties: None },
            workflow: None,
            digest: "AAAA".into(),
            answers: vec![],
            reminders: 0,
            decision_id: None,
            reason: None,
        }
    }
}
