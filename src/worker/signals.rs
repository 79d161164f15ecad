//! The signals topic as a worker hears it: records go in from whatever consumer it has, and each piece of work waits for
//! the one that stops it. Limits: it reads no topic itself ([`super::kafka`] does); a stop is told, not done.

use std::future::Future;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use arc_swap::ArcSwap;

use super::book::Book;
use super::clock;
use super::marks::Marks;
use crate::authorize::ids::{Digest, Partition, Realm, Topic, UnixMillis};
use crate::authorize::limits::DEFAULT_SKEW_S;
use crate::authorize::standing::{Status, Target};
use crate::authorize::trust::Trust;
use crate::wire::signal::{SignalError, verify};

/// How a worker listens.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Bounds {
    /// How long the gates may be silent before every watch ends. Each sends a heartbeat a second. Default 10 s.
    pub silence: Duration,
    /// How long signals are remembered, and how old a decision may be whose work is watched. No longer than records live
    /// on the topic. Default 24 h.
    pub remember: Duration,
    /// How long after a signal a decision may still have been made without it: the gates' `max_staleness`, and the
    /// tolerance between clocks twice. Default 70 s.
    pub known_after: Duration,
    /// The tolerance between clocks. Default 30 s.
    pub skew_s: u32,
}

impl Default for Bounds {
    fn default() -> Self {
        let skew_s = DEFAULT_SKEW_S;
        Self {
            silence: Duration::from_secs(10),
            remember: Duration::from_secs(24 * 3600),
            known_after: Duration::from_secs(10 + 2 * u64::from(skew_s)),
            skew_s,
        }
    }
}

impl Bounds {
    pub(super) fn silence_ms(&self) -> i64 {
        millis(self.silence)
    }

    pub(super) fn remember_ms(&self) -> i64 {
        millis(self.remember)
    }

    pub(super) fn known_after_ms(&self) -> i64 {
        millis(self.known_after)
    }

    pub(super) fn skew_ms(&self) -> i64 {
        i64::from(self.skew_s) * 1000
    }
}

fn millis(duration: Duration) -> i64 {
    i64::try_from(duration.as_millis()).unwrap_or(i64::MAX)
}

/// Why a piece of work must stop.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum Stop {
    /// A revocation names the sender, an earlier sender, the gate, the subject, the transaction, a token, a key, the
    /// workflow or a trust domain.
    #[error("the {} `{}` was revoked{}", about.kind.as_str().replace('_', " "), about.id, because(reason.as_deref()))]
    Revoked {
        /// What it names.
        about: Target,
        /// Why, as whoever revoked says.
        reason: Option<String>,
        /// When a gate took it in.
        at: UnixMillis,
        /// The signal's id.
        signal: Digest,
    },
    /// The workflow has ended.
    #[error("the workflow `{workflow}` has ended: {}", status.as_str())]
    WorkflowEnded {
        /// Its id.
        workflow: Box<str>,
        /// How it ended.
        status: Status,
    },
    /// The workflow may do nothing until it runs again.
    #[error("the workflow `{workflow}` is suspended")]
    WorkflowSuspended {
        /// Its id.
        workflow: Box<str>,
    },
    /// No gate has been heard for longer than [`Bounds::silence`]: whether the work may go on is not known.
    #[error("no gate has been heard for too long: nobody knows whether the work may go on")]
    Silence {
        /// Until when gates were heard.
        since: UnixMillis,
    },
    /// The work was decided before what is remembered of the signals.
    #[error("the work was decided too long ago: signals that stop it may be forgotten")]
    TooOld,
}

fn because(reason: Option<&str>) -> String {
    reason.map(|reason| format!(": {reason}")).unwrap_or_default()
}

/// What one worker process has heard. Clones are cheap and hear the same.
#[derive(Debug, Clone)]
pub struct Signals(Arc<Shared>);

#[derive(Debug)]
struct Shared {
    realm: Realm,
    topic: Topic,
    bounds: Bounds,
    trust: ArcSwap<Trust>,
    book: Mutex<Book>,
    /// Says that there is something new in the book. A lock of its own: watches wait on it.
    news: tokio::sync::watch::Sender<()>,
}

impl Signals {
    /// Hears the gates of `trust` on that topic of the realm (`[control] signals` of the gates).
    pub fn new(realm: Realm, topic: Topic, trust: Trust, bounds: Bounds) -> Self {
        Self(Arc::new(Shared {
            realm,
            topic,
            bounds,
            trust: ArcSwap::from_pointee(trust),
            book: Mutex::new(Book::new(bounds, clock())),
            news: tokio::sync::watch::Sender::new(()),
        }))
    }

    /// The topic.
    pub fn topic(&self) -> &Topic {
        &self.0.topic
    }

    /// Trusts the gates of `trust` from now on, after their keys were renewed. What was heard before stays.
    pub fn trust(&self, trust: Trust) {
        self.0.trust.store(Arc::new(trust));
    }

    /// From now on each of these partitions must be heard. Call it with all partitions of the topic before reading them,
    /// from their beginning, and again when there are more.
    pub fn listen(&self, partitions: impl IntoIterator<Item = Partition>) {
        self.book().listen(partitions, clock());
    }

    /// Takes in one record of the topic.
    ///
    /// # Errors
    /// It is nothing that a gate wrote: say so, and go on. It stops no work and breaks no silence.
    pub fn take(
        &self,
        partition: Partition,
        key: Option<&[u8]>,
        value: Option<&[u8]>,
    ) -> Result<(), SignalError> {
        let Some(value) = value else { return Ok(()) };
        let (key, now) = (key.ok_or(SignalError::Key)?, clock());
        let Shared { realm, topic, bounds, trust, news, .. } = &*self.0;
        // Verified before the lock is taken: it is held for a look-up alone.
        let heard = verify(key, value, (realm, topic), &trust.load(), now, bounds.skew_s)?;
        let (was_live, is_new, is_live) = {
            let mut book = self.book();
            (book.is_live(), book.take(partition, heard, now), book.is_live())
        };
        if is_new || was_live != is_live {
            news.send_replace(());
        }
        Ok(())
    }

    /// Waits until gates were heard on every partition, and with that everything they had told before. A worker that
    /// begins to work earlier learns a little later what was revoked before it began.
    pub async fn live(&self) {
        let mut news = self.0.news.subscribe();
        while !self.book().is_live() {
            // The sender is in `self`, so this cannot fail.
            let _ = news.changed().await;
        }
    }

    pub(super) fn stop(&self, marks: &Marks) -> Option<Stop> {
        self.book().stop(marks, clock())
    }

    /// Ends when that work must stop. It owns what it needs, so it can run beside the work.
    pub(super) fn watch(&self, marks: Arc<Marks>) -> impl Future<Output = Stop> + Send + use<> {
        let signals = self.clone();
        async move {
            let mut news = signals.0.news.subscribe();
            if signals.book().is_too_old(&marks, clock()) {
                return Stop::TooOld;
            }
            loop {
                news.mark_unchanged();
                let (now, heard_until) = {
                    let (book, now) = (signals.book(), clock());
                    if let Some(stop) = book.stop(&marks, now) {
                        return stop;
                    }
                    (now, book.heard_until())
                };
                let left =
                    heard_until.0.saturating_add(signals.0.bounds.silence_ms() + 1).saturating_sub(now.0);
                let left = Duration::from_millis(u64::try_from(left).unwrap_or_default());
                // Not past news, nor past the silence that would begin if nothing more were heard.
                let _ = tokio::time::timeout(left, news.changed()).await;
            }
        }
    }

    fn book(&self) -> MutexGuard<'_, Book> {
        self.0.book.lock().unwrap_or_else(PoisonError::into_inner)
    }
}
