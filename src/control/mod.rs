//! What decides beside the record: keys, policies and entities, watched and held as the last good state of each; and, beside
//! them, the certificates of the HTTP interfaces. A change is loaded whole, checked, then switched to between batches; a bad
//! one changes nothing and is reported. Limits: it reads files; the moment of reading is handed in, and what a record deserves
//! is not its matter.

pub mod answers;
pub mod certificates;
pub mod challenges;
mod files;
pub mod oidc;
mod policies;
mod published;
pub mod signals;
mod topics;
mod trust;
mod watch;
mod watched;

use std::path::PathBuf;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use arc_swap::ArcSwap;

pub use policies::{EntitiesFrom, Policies, PolicySource, offer};
pub use topics::{Applied, FollowError, FollowSettings, Follower, Hears, fleet};
pub use trust::{TrustSource, knows_gate};
pub use watch::{Reload, WatchError, Watcher};
pub use watched::{State, Watched};

use self::certificates::Certificate;
use self::published::Published;
use self::topics::{EntityTopic, Taken};
use crate::authorize::engine::Snapshot;
use crate::authorize::ids::{Digest, Topic, UnixMillis};
use crate::authorize::policy::Offer;
use crate::authorize::standing::{Positions, Standing};
use crate::authorize::trust::Trust;
use crate::config::{Problem, Problems, TrustFiles};
use crate::telemetry::events::{SnapshotLoaded, SnapshotRefused, TopicWarned};
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
    /// Everything together, as lanes pin it.
    published: Published,
    /// The entities that are followed in a topic; empty where they are in the policy folder.
    entities: Mutex<EntityTopic>,
    /// What was last looked at, good or bad: the same bad content is reported once.
    seen: Mutex<Seen>,
    /// The certificates of the HTTP interfaces: they decide nothing, and are looked at with the rest.
    certificates: Vec<Arc<Certificate>>,
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
            published: Published::new(published),
            entities: Mutex::default(),
            seen: Mutex::new(seen),
            certificates: Vec::new(),
        };
        control.announce_trust();
        control.announce_policies();
        Ok(control)
    }

    /// The same, looking after these certificates too.
    #[must_use]
    pub fn with_certificates(
        self,
        certificates: impl IntoIterator<Item = Arc<Certificate>>,
        now: UnixMillis,
    ) -> Self {
        let certificates: Vec<_> = certificates.into_iter().collect();
        certificates.iter().for_each(|certificate| certificate.announce(&self.telemetry, now));
        Self { certificates, ..self }
    }

    /// Pins what is known now, for one batch.
    pub fn snapshot(&self) -> Arc<Snapshot> {
        self.published.snapshots().load_full()
    }

    /// Where the newest snapshot is published, for those that pin it and do not watch.
    pub fn snapshots(&self) -> Arc<ArcSwap<Snapshot>> {
        Arc::clone(self.published.snapshots())
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
        let switched = self.certificates.iter().filter(|one| one.refresh(&self.telemetry, now)).count();
        trust || policies || switched > 0
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
                let trust = Arc::new(trust);
                self.trust.switch(Arc::clone(&trust), now);
                self.published.publish(|snapshot, _| snapshot.trust = trust);
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
        // Held until both are published: entities and schema belong together.
        let mut followed = self.followed_entities();
        let loaded = source.load(&self.sources.offer, self.sources.entities);
        match loaded.and_then(|(policies, _)| self.with_followed(policies, &mut followed)) {
            Ok(policies) => {
                let (bundle, entities) = (Arc::clone(&policies.bundle), Arc::clone(&policies.entities));
                let warning =
                    longer_hold(self.policies.value().bundle.longest_hold_s(), bundle.longest_hold_s());
                self.policies.switch(Arc::new(policies), now);
                self.published.publish(|snapshot, _| {
                    snapshot.policy = bundle;
                    snapshot.entities = entities;
                });
                self.announce_policies();
                if let Some(warning) = warning {
                    TopicWarned { warning: &warning }.emit(&self.telemetry);
                }
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

    /// These policies with the entities that are followed in a topic, where they are.
    fn with_followed(&self, policies: Policies, followed: &mut EntityTopic) -> Result<Policies, Problems> {
        if self.sources.entities == EntitiesFrom::Folder {
            return Ok(policies);
        }
        let refuse = |what: String| {
            let help =
                "change or delete it with `countersign entity` first, or keep what it needs in the schema";
            Problems::from(Problem::error(what).help(help))
        };
        let mut by = followed.by(&policies.bundle).map_err(|(uid, problem)| {
            refuse(format!("the entity `{uid}` is in use and does not fit the new schema: {problem}"))
        })?;
        let entities = by.build(&policies.bundle).map_err(|problem| {
            refuse(format!("the entities in use do not fit the new schema together: {problem}"))
        })?;
        *followed = by;
        Ok(Policies { entities: Arc::new(entities), ..policies })
    }

    fn followed_entities(&self) -> MutexGuard<'_, EntityTopic> {
        // An entity is taken in whole or not at all: a panic elsewhere leaves it usable.
        self.entities.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Takes in one record of the entities' topic; returns whether it changed anything.
    fn apply_entity(&self, uid: &str, value: Option<&[u8]>) -> Result<bool, String> {
        let mut followed = self.followed_entities();
        followed.apply(uid, value, &self.policies.value().bundle)
    }

    /// Whether the newest entity of that uid is one by which records are decided.
    fn entity_fits(&self, uid: &str) -> bool {
        self.followed_entities().fits(uid)
    }

    /// Publishes what the followed topics have come to: standing, and the entities where `entities` names their topic and how
    /// far it was read. Entities that have changed are built anew where `may_build`; whether nothing waits for that.
    fn publish_followed(
        &self,
        standing: Standing,
        mut taken: Taken,
        entities: Option<(&Topic, &Positions)>,
        may_build: bool,
    ) -> bool {
        // Held until both are published: entities and schema belong together.
        let mut followed = self.followed_entities();
        let mut built = None;
        if let Some((topic, read)) = entities {
            followed.advance_to(read);
            if followed.has_changed() && may_build {
                match followed.build(&self.policies.value().bundle) {
                    Ok(entities) => built = Some(entities),
                    Err(problem) => self.refuse_entities(&problem),
                }
            }
            taken.entry(topic.clone()).or_default().positions = followed.ready().clone();
        }
        if let Some(entities) = &built {
            SnapshotLoaded { snapshot: SnapshotKind::Entities, version: entities.version() }
                .emit(&self.telemetry);
        }
        self.published.publish(|snapshot, noted| {
            snapshot.standing = standing;
            if entities.is_some() {
                let newest = built.as_ref().unwrap_or(&snapshot.entities);
                snapshot.entities = Arc::new(newest.under(followed.ready().to_string()));
            }
            *noted = taken;
        });
        entities.is_none() || !followed.has_changed()
    }

    fn refuse_entities(&self, problem: &str) {
        let problem = format!("the entities do not fit together: {problem}");
        SnapshotRefused { snapshot: SnapshotKind::Entities, problem: &problem }.emit(&self.telemetry);
    }

    /// What everything that still decides has taken in of the followed topics.
    fn oldest_taken(&self) -> Taken {
        self.published.oldest()
    }

    /// What the newest snapshot has taken in of them.
    fn newest_taken(&self) -> Taken {
        self.published.newest()
    }

    fn announce_trust(&self) {
        let version = self.trust.value().version().to_string();
        SnapshotLoaded { snapshot: SnapshotKind::Trust, version: &version }.emit(&self.telemetry);
    }

    fn announce_policies(&self) {
        let policies = self.policies.value();
        let bundle = policies.bundle.digest().to_string();
        SnapshotLoaded { snapshot: SnapshotKind::Policy, version: &bundle }.emit(&self.telemetry);
        // Those that are followed in a topic are announced when they are built.
        if self.sources.entities == EntitiesFrom::Folder {
            let entities = policies.entities.version();
            SnapshotLoaded { snapshot: SnapshotKind::Entities, version: entities }.emit(&self.telemetry);
        }
    }

    /// The folders that changes are expected in.
    fn folders(&self) -> Vec<PathBuf> {
        let files = self.sources.trust.paths();
        let mut folders: Vec<PathBuf> = files.filter_map(|file| Some(file.parent()?.to_owned())).collect();
        folders.push(self.sources.policies.clone());
        folders.extend(self.certificates.iter().flat_map(|certificate| certificate.folders()));
        folders.sort();
        folders.dedup();
        folders
    }
}

/// What a person should know where new policies hold records for longer than those before: the topics were looked at by the
/// policies of the start.
fn longer_hold(before: Option<u32>, now: Option<u32>) -> Option<String> {
    let now = now.filter(|now| *now > before.unwrap_or(0))?;
    Some(format!(
        "the policies hold records for up to {now} s, longer than those before: `countersign check --online` says whether \
         the answers topics keep answers for that long"
    ))
}

#[cfg(test)]
mod tests;
