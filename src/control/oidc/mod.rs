//! The keys of the configured OIDC issuers: the last good set of each, its version and age, looked at again in time and
//! when a token names a key that is not there. Limits: keys come from the configured issuer only, never from a place that
//! a token names; how often a token can make the gate ask is bounded, and a set that could not be confirmed for a day is
//! no longer used.

mod discovery;
mod source;

use std::collections::BTreeMap;
use std::sync::Arc;
use std::sync::atomic::{AtomicI64, Ordering};
use std::sync::mpsc::{self, Receiver, RecvTimeoutError, SyncSender};
use std::thread::{self, JoinHandle};
use std::time::{Duration, Instant};

use tokio::sync::oneshot;

use self::source::{LookError, Source};
use super::watched::Watched;
use crate::authorize::ids::UnixMillis;
use crate::authorize::jose::KeySet;
use crate::authorize::login::OidcIssuer;
use crate::config::OidcSettings;
use crate::telemetry::Telemetry;
use crate::telemetry::events::{IssuerKeysLoaded, IssuerKeysRefused};

/// How long a change of an issuer's keys may go unseen where no token tells of it.
const REFRESH: Duration = Duration::from_secs(300);
/// The same for a file, which costs nobody a request; and how soon a failed look is made again.
const RETRY: Duration = Duration::from_secs(10);
/// The least time between two looks that tokens ask for: whoever sends tokens with made-up `kid`s buys no more than this.
const COOLDOWN: Duration = Duration::from_secs(5);
/// How long a set counts without having been seen at its source: a key that an issuer has withdrawn must not live on
/// because somebody keeps the gate from asking.
const MAX_AGE_MS: i64 = 24 * 3600 * 1000;
/// Tokens that may wait for one look.
const WAITING: usize = 256;

/// The issuers, each with a thread that looks after its keys. Dropping it ends the threads, after a look that is under
/// way.
#[derive(Debug)]
pub struct OidcIssuers {
    issuers: BTreeMap<String, Arc<Followed>>,
    threads: Vec<Followers>,
}

/// One issuer: its rules and its keys.
#[derive(Debug)]
pub struct Followed {
    rules: OidcIssuer,
    keys: Watched<KeySet>,
    /// When the keys in use were last seen at their source, in milliseconds; 0 is never.
    confirmed_at: AtomicI64,
    asks: SyncSender<Ask>,
}

/// What an issuer's thread is asked.
#[derive(Debug)]
enum Ask {
    /// Look again, and say when that is done.
    Look(oneshot::Sender<()>),
    Stop,
}

#[derive(Debug)]
struct Followers {
    asks: SyncSender<Ask>,
    thread: Option<JoinHandle<()>>,
}

impl OidcIssuers {
    /// Starts to look after the keys of each issuer. An issuer that cannot be reached stops nothing: its tokens are not
    /// believed until it can.
    ///
    /// # Errors
    /// A thread cannot be started.
    pub fn start(
        issuers: &[OidcSettings],
        telemetry: &Telemetry,
        clock: fn() -> UnixMillis,
    ) -> std::io::Result<Self> {
        let mut started = Self { issuers: BTreeMap::new(), threads: Vec::new() };
        for settings in issuers {
            let (asks, receiver) = mpsc::sync_channel(WAITING);
            let followed = Arc::new(Followed {
                rules: settings.rules.clone(),
                keys: Watched::new(Arc::new(KeySet::empty()), clock()),
                confirmed_at: AtomicI64::new(0),
                asks: asks.clone(),
            });
            let (of, settings, telemetry) = (Arc::clone(&followed), settings.clone(), telemetry.clone());
            let thread = thread::Builder::new()
                .name("oidc".to_owned())
                .spawn(move || of.follow(&settings, &telemetry, clock, &receiver))?;
            started.threads.push(Followers { asks, thread: Some(thread) });
            started.issuers.insert(followed.rules.iss.clone(), followed);
        }
        Ok(started)
    }

    /// The issuer of that exact `iss`, if it is configured.
    pub fn get(&self, iss: &str) -> Option<&Arc<Followed>> {
        self.issuers.get(iss)
    }
}

impl Drop for Followers {
    fn drop(&mut self) {
        // Waits for a place in the queue, which the thread empties, or finds the thread gone.
        let _ = self.asks.send(Ask::Stop);
        if let Some(thread) = self.thread.take() {
            let _ = thread.join();
        }
    }
}

impl Followed {
    /// How its tokens are judged.
    pub fn rules(&self) -> &OidcIssuer {
        &self.rules
    }

    /// Its keys; `None` where they have never been seen, or not for a day.
    pub fn keys(&self, now: UnixMillis) -> Option<Arc<KeySet>> {
        let confirmed_at = self.confirmed_at.load(Ordering::Relaxed);
        let is_young = now.0.saturating_sub(confirmed_at) <= MAX_AGE_MS;
        (confirmed_at != 0 && is_young).then(|| self.keys.value())
    }

    /// Asks for another look, since a token names a key that is not there; comes back once it was made, or at once
    /// where the last one is only seconds old.
    pub async fn look_again(&self) {
        let (done, waiting) = oneshot::channel();
        // A full queue means that a look is under way.
        if self.asks.try_send(Ask::Look(done)).is_ok() {
            // The other end is dropped where the thread ends: there is nothing to wait for.
            let _ = waiting.await;
        }
    }

    fn follow(
        &self,
        settings: &OidcSettings,
        telemetry: &Telemetry,
        clock: fn() -> UnixMillis,
        asks: &Receiver<Ask>,
    ) {
        let source = Source::new(&self.rules.iss, &settings.keys);
        let (mut next, mut last) = (Instant::now(), None::<Instant>);
        let mut told: Option<String> = None;
        loop {
            let waited = asks.recv_timeout(next.saturating_duration_since(Instant::now()));
            let done = match waited {
                Ok(Ask::Stop) | Err(RecvTimeoutError::Disconnected) => return,
                Ok(Ask::Look(_)) if last.is_some_and(|at| at.elapsed() < COOLDOWN) => continue,
                Ok(Ask::Look(done)) => Some(done),
                Err(RecvTimeoutError::Timeout) => None,
            };
            let looked = match &source {
                Ok(source) => source.look().map(|keys| (keys, source.is_remote())),
                Err(error) => Err(LookError::File(error.to_string())),
            };
            let wait = match looked {
                Ok((keys, is_remote)) => {
                    self.take(keys, clock(), telemetry);
                    told = None;
                    if is_remote { REFRESH } else { RETRY }
                }
                Err(error) => {
                    self.refuse(&error, clock(), telemetry, &mut told);
                    RETRY
                }
            };
            last = Some(Instant::now());
            next = Instant::now() + wait;
            // Whoever asked may have given up waiting.
            let _ = done.map(|done| done.send(()));
        }
    }

    fn take(&self, keys: KeySet, now: UnixMillis, telemetry: &Telemetry) {
        let is_first = self.confirmed_at.swap(now.0.max(1), Ordering::Relaxed) == 0;
        if !is_first && keys.version() == self.keys.value().version() {
            return self.keys.confirm(now);
        }
        let (version, count) = (keys.version().to_string(), keys.len());
        self.keys.switch(Arc::new(keys), now);
        IssuerKeysLoaded { issuer: &self.rules.iss, version: &version, keys: count }.emit(telemetry);
    }

    /// Keeps the last good keys. The same problem is told once, not at every retry.
    fn refuse(&self, error: &LookError, now: UnixMillis, telemetry: &Telemetry, told: &mut Option<String>) {
        let problem = error.to_string();
        if told.as_ref() != Some(&problem) {
            IssuerKeysRefused { issuer: &self.rules.iss, problem: &problem }.emit(telemetry);
        }
        self.keys.refuse(problem.clone(), now);
        *told = Some(problem);
    }
}

#[cfg(test)]
mod tests;
