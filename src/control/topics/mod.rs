//! The topics with the facts that change while records are decided: read to their end before the first decision, followed
//! after, and published as one state. Limits: one thread, one consumer and one producer; what the facts mean for a record is
//! for `authorize::standing` and the policies.

mod announcement;
mod backlog;
mod entities;
mod facts;
pub mod fleet;
mod follow;
mod pins;
mod reader;
mod refused;
mod view;
mod writer;

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::thread::JoinHandle;
use std::time::Duration;

use rdkafka::error::KafkaError;

pub(super) use self::entities::EntityTopic;
pub(super) use self::pins::{Pins, Taken};

use self::follow::Follow;
use super::Control;
use crate::authorize::ids::{Coordinates, Topic, UnixMillis, WorkloadId};
use crate::authorize::standing::{Revocation, Status};
use crate::config::{ControlSettings, KafkaProperties};
use crate::stream::freshness::Freshness;
use crate::telemetry::{Fact, Telemetry};
use crate::wire::workflow::WorkflowCodecError;

/// How the topics are followed.
#[derive(Debug, Clone)]
pub struct FollowSettings {
    /// librdkafka properties as a person wrote them.
    pub properties: KafkaProperties,
    /// The gate's consumer group. Nothing is joined under it.
    pub group: String,
    /// Which topics.
    pub control: ControlSettings,
    /// The gate's identifier.
    pub gate: WorkloadId,
    /// What this instance is called: by configuration, or by a name that nobody else has.
    pub instance: String,
    /// Whether ended workflows may be forgotten: only where every route that looks at workflows demands registered ones.
    pub may_forget_ended: bool,
}

/// Something that has just come into force, for those who must tell the work in flight. Of what was there when the gate
/// started, what is recent and still stands. It may be told again, by this gate and by every other.
#[derive(Debug, Clone, PartialEq)]
pub enum Applied {
    /// A workflow stands differently.
    Workflow {
        /// Where the record stands.
        at: Coordinates,
        /// Its id.
        id: String,
        /// How it stands.
        status: Status,
    },
    /// A revocation is in force.
    Revocation {
        /// Where the record stands.
        at: Coordinates,
        /// What it says.
        revocation: Revocation,
    },
}

/// Who hears of what has come into force. It runs on the thread that follows, so it must not wait.
pub type Hears = Box<dyn FnMut(Applied) + Send>;

/// Why the topics cannot be followed.
#[derive(Debug, thiserror::Error)]
pub enum FollowError {
    /// librdkafka refuses the properties.
    #[error("the Kafka clients of the control topics cannot be made: {0}")]
    Clients(#[from] KafkaError),
    /// The schema of workflows does not parse: a broken build.
    #[error(transparent)]
    Codec(#[from] WorkflowCodecError),
    /// The system gives no thread.
    #[error("the thread that follows the control topics cannot be started: {0}")]
    Thread(#[from] std::io::Error),
}

/// Which topic says what.
#[derive(Debug, Clone)]
struct Followed {
    workflows: Option<Topic>,
    revocations: Option<Topic>,
    entities: Option<Topic>,
}

impl Followed {
    fn of(control: &ControlSettings) -> Self {
        let ControlSettings { workflows, revocations, entities, .. } = control.clone();
        Self { workflows, revocations, entities }
    }

    fn fact(&self, topic: &Topic) -> Option<Fact> {
        let is = |of: &Option<Topic>| of.as_ref() == Some(topic);
        match () {
            () if is(&self.workflows) => Some(Fact::Workflow),
            () if is(&self.revocations) => Some(Fact::Revocation),
            () if is(&self.entities) => Some(Fact::Entity),
            () => None,
        }
    }

    fn topics(&self) -> impl Iterator<Item = &Topic> {
        [&self.workflows, &self.revocations, &self.entities].into_iter().flatten()
    }
}

/// The thread that follows. Dropping it ends the thread without a farewell, as a crash does.
#[derive(Debug)]
pub struct Follower {
    stop: Arc<Stop>,
    thread: Option<JoinHandle<()>>,
}

#[derive(Debug, Default)]
struct Stop {
    asked: AtomicBool,
    in_order: AtomicBool,
}

impl Follower {
    /// Begins to follow; `freshness` is told how old the view is, `hears` what has come into force. A broker that is away is
    /// waited for.
    ///
    /// # Errors
    /// [`FollowError`].
    pub fn start(
        settings: FollowSettings,
        control: Arc<Control>,
        freshness: Freshness,
        telemetry: Telemetry,
        clock: fn() -> UnixMillis,
        hears: Hears,
    ) -> Result<Self, FollowError> {
        let stop = Arc::new(Stop::default());
        let mut follow = Follow::new(settings, control, freshness, telemetry, clock, hears)?;
        let asked = Arc::clone(&stop);
        let thread = std::thread::Builder::new().name("follow".to_owned()).spawn(move || {
            while !asked.asked.load(Ordering::Acquire) {
                follow.turn();
            }
            if asked.in_order.load(Ordering::Acquire) {
                follow.farewell();
            }
        })?;
        Ok(Self { stop, thread: Some(thread) })
    }

    /// Ends the thread, and says farewell to the fleet: nobody has to wait for this gate any more. INVARIANT: to be called
    /// only when no lane runs, and every one has ended in order.
    pub fn stop_in_order(self) {
        self.stop.in_order.store(true, Ordering::Release);
    }
}

impl Drop for Follower {
    fn drop(&mut self) {
        self.stop.asked.store(true, Ordering::Release);
        if let Some(thread) = self.thread.take()
            && thread.join().is_err()
        {
            tracing::error!("the thread that follows the control topics ended in a panic");
        }
    }
}

/// How often pulses go out, and announcements at least.
const EACH: Duration = Duration::from_secs(1);
