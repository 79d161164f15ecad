//! What decides beside the record: keys, policies and entities, watched and held as the last good state of each. A
//! change is loaded whole, checked, then switched to between batches; a bad one changes nothing and is reported.
//! Limits: it reads files; the moment of reading is handed in, and what a record deserves is not its matter.

pub mod answers;
pub mod challenges;
mod files;
pub mod oidc;
mod policies;
pub mod signals;
mod trust;
mod watch;
mod watched;

use std::path::PathBuf;
use std::sync::{Arc, Mutex};

use arc_swap::ArcSwap;

pub use policies::{EntitiesFrom, Policies, PolicySource, offer};
pub use trust::{TrustSource, knows_gate};
pub use watch::{Reload, WatchError, Watcher};
pub use watched::{State, Watched};

use crate::authorize::engine::Snapshot;
use crate::authorize::ids::{Digest, UnixMillis};
use crate::authorize::policy::Offer;
use crate::authorize::standing::Standing;
use crate::authorize::trust::Trust;
use crate::config::{Problems, TrustFiles};
use crate::telemetry::events::{SnapshotLoaded, SnapshotRefused};
use crate::telemetry::{SnapshotKind, Telemetry};

/// Where the watched things come from.
#[derive(Debug, Clone)]
pub struct Sources {
    /// The key files of everybody whose signatures count.
    pub trust: TrustFiles,
    /// The policy folder.
    pub policies: PathBuf,
    /// Where the entities are.
    pub entities: EntitiesFrom,
    /// What the routes always offer to the policies.
    pub offer: Offer,
}

/// The watched things. Lanes pin a snapshot for each batch; one watcher alone refreshes.
#[derive(Debug)]
pub struct Control {
    sources: Sources,
    telemetry: Telemetry,
    trust: Watched<Trust>,
    policies: Watched<Policies>,
    /// Both together, as lanes pin them: written at each switch.
    published: Arc<ArcSwap<Snapshot>>,
    /// What was last looked at, good or bad: the same bad content is reported once.
    seen: Mutex<Seen>,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
struct Seen {
    trust: Digest,
    policies: Digest,
}

impl Control {
    /// Loads everything for the first time. Nothing is decided before all of it is good.
    ///
    /// # Errors
    /// Everything that is wrong with keys, policies and entities.
    pub fn load(sources: Sources, telemetry: Telemetry, now: UnixMillis) -> Result<Self, Problems> {
        let (trust_source, policy_source) =
            (TrustSource::read(&sources.trust), PolicySource::read(&sources.policies));
        let seen = Seen { trust: trust_source.digest(), policies: policy_source.digest() };
        let (trust, policies) =
            match (trust_source.load(), policy_source.load(&sources.offer, sources.entities)) {
                (Ok(trust), Ok((policies, _))) => (trust, policies),
                (trust, policies) => {
                    let mut problems = trust.err().unwrap_or_default();
                    problems.append(policies.err().unwrap_or_default());
                    return Err(problems);
                }
            };
        let published = Snapshot {
            trust: Arc::new(trust),
            policy: Arc::clone(&policies.bundle),
            entities: Arc::clone(&policies.entities),
            standing: Standing::default(),
        };
        let control = Self {
            sources,
            telemetry,
            trust: Watched::new(Arc::clone(&published.trust), now),
            policies: Watched::new(Arc::new(policies), now),
            published: Arc::new(ArcSwap::from_pointee(published)),
            seen: Mutex::new(seen),
        };
        control.announce_trust();
        control.announce_policies();
        Ok(control)
    }

    /// Pins what is known now, for one batch.
    pub fn snapshot(&self) -> Arc<Snapshot> {
        self.published.load_full()
    }

    /// Where the newest snapshot is published, for those that pin it and do not watch.
    pub fn snapshots(&self) -> Arc<ArcSwap<Snapshot>> {
        Arc::clone(&self.published)
    }

    fn publish(&self) {
        let policies = self.policies.value();
        self.published.store(Arc::new(Snapshot {
            trust: self.trust.value(),
            policy: Arc::clone(&policies.bundle),
            entities: Arc::clone(&policies.entities),
            standing: Standing::default(),
        }));
    }

    /// The keys: version, age, and what is wrong with the newest files.
    pub fn trust(&self) -> &Watched<Trust> {
        &self.trust
    }

    /// Policies and entities: version, age, and what is wrong with the newest files.
    pub fn policies(&self) -> &Watched<Policies> {
        &self.policies
    }

    /// Looks at every source and switches to what has changed and is good. Returns whether something was switched.
    pub fn refresh(&self, now: UnixMillis) -> bool {
        // Held throughout: two refreshes at once could switch back to the older of two contents.
        let mut seen = self.seen.lock().unwrap_or_else(std::sync::PoisonError::into_inner);
        let trust = self.refresh_trust(&mut seen, now);
        let policies = self.refresh_policies(&mut seen, now);
        trust || policies
    }

    fn refresh_trust(&self, seen: &mut Seen, now: UnixMillis) -> bool {
        let source = TrustSource::read(&self.sources.trust);
        if source.digest() == seen.trust {
            return false;
        }
        seen.trust = source.digest();
        match source.load() {
            Ok(trust) if trust.version() == self.trust.value().version() => {
                self.trust.confirm(now);
                self.announce_trust();
                false
            }
            Ok(trust) => {
                self.trust.switch(Arc::new(trust), now);
                self.publish();
                self.announce_trust();
                true
            }
            Err(problems) => {
                let problem = problems.to_string();
                SnapshotRefused { snapshot: SnapshotKind::Trust, problem: &problem }.emit(&self.telemetry);
                self.trust.refuse(problem, now);
                false
            }
        }
    }

    fn refresh_policies(&self, seen: &mut Seen, now: UnixMillis) -> bool {
        let source = PolicySource::read(&self.sources.policies);
        if source.digest() == seen.policies {
            return false;
        }
        seen.policies = source.digest();
        match source.load(&self.sources.offer, self.sources.entities) {
            Ok((policies, _)) => {
                self.policies.switch(Arc::new(policies), now);
                self.publish();
                self.announce_policies();
                true
            }
            Err(problems) => {
                let problem = problems.to_string();
                for snapshot in [SnapshotKind::Policy, SnapshotKind::Entities] {
                    SnapshotRefused { snapshot, problem: &problem }.emit(&self.telemetry);
                }
                self.policies.refuse(problem, now);
                false
            }
        }
    }

    fn announce_trust(&self) {
        let version = self.trust.value().version().to_string();
        SnapshotLoaded { snapshot: SnapshotKind::Trust, version: &version }.emit(&self.telemetry);
    }

    fn announce_policies(&self) {
        let policies = self.policies.value();
        let (bundle, entities) =
            (policies.bundle.digest().to_string(), policies.entities.digest().to_string());
        SnapshotLoaded { snapshot: SnapshotKind::Policy, version: &bundle }.emit(&self.telemetry);
        SnapshotLoaded { snapshot: SnapshotKind::Entities, version: &entities }.emit(&self.telemetry);
    }

    /// The folders that changes are expected in.
    fn folders(&self) -> Vec<PathBuf> {
        let files = self.sources.trust.paths();
        let mut folders: Vec<PathBuf> = files.filter_map(|file| Some(file.parent()?.to_owned())).collect();
        folders.push(self.sources.policies.clone());
        folders.sort();
        folders.dedup();
        folders
    }
}

#[cfg(test)]
mod tests;
