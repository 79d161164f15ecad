//! The key files of the trust domains, read whole into a `Trust`. Limits: no key is fetched from anywhere; a file that
//! cannot be used leaves the last good `Trust` in place, so that nothing is half changed.

use std::collections::BTreeMap;
use std::path::Path;

use super::files::{self, ReadFile};
use crate::authorize::ids::{Digest, TrustDomain, WorkloadId};
use crate::authorize::jose::{Jws, KeySet, KeySetError, KeyUse, SigningKey, TokenKind};
use crate::authorize::trust::{Domain, Trust};
use crate::config::{DomainFiles, Problem, Problems, source};

/// Bytes of one key file.
const MAX_BYTES: usize = 4 * 1024 * 1024;

/// The files as they were read, before anything is made of them.
#[derive(Debug)]
pub struct TrustSource {
    domains: BTreeMap<TrustDomain, (DomainFiles, Files)>,
    problems: Problems,
    digest: Digest,
}

#[derive(Debug, Default)]
struct Files {
    bundle: Option<ReadFile>,
    token_service: Option<ReadFile>,
    gates: Option<ReadFile>,
}

impl TrustSource {
    /// Reads every file; those that cannot be read are problems of [`Self::load`].
    pub fn read(domains: &BTreeMap<TrustDomain, DomainFiles>) -> Self {
        let mut problems = Problems::default();
        let mut read = |path: &Path| match files::read(path, MAX_BYTES) {
            Ok(file) => Some(file),
            Err(problem) => {
                problems.push(problem);
                None
            }
        };
        let domains: BTreeMap<_, _> = domains
            .iter()
            .map(|(name, files)| {
                let read = Files {
                    bundle: read(&files.bundle),
                    token_service: files.token_service.as_deref().and_then(&mut read),
                    gates: files.gates.as_deref().and_then(&mut read),
                };
                (name.clone(), (files.clone(), read))
            })
            .collect();
        let all = domains.values().flat_map(|(_, files)| [&files.bundle, &files.token_service, &files.gates]);
        let digest = files::digest(all.flatten());
        Self { domains, problems, digest }
    }

    /// Tells whether the files are still those of another reading.
    pub fn digest(&self) -> Digest {
        self.digest
    }

    /// The keys, all of them or none.
    ///
    /// # Errors
    /// Everything that is wrong with the files.
    pub fn load(self) -> Result<Trust, Problems> {
        let mut problems = self.problems;
        let mut domains = BTreeMap::new();
        for (name, (settings, files)) in self.domains {
            let mut keys = |file: Option<ReadFile>, key_use, what: &str| {
                let file = file?;
                match KeySet::from_jwks(&file.text, key_use) {
                    Ok(keys) => Some(keys),
                    Err(error) => {
                        problems.push(key_set_problem(&file, &error, what));
                        None
                    }
                }
            };
            let bundle = keys(files.bundle, KeyUse::WitIssuer, "the SPIFFE bundle");
            let token_service = keys(files.token_service, KeyUse::Any, "the token service's keys");
            let gates = keys(files.gates, KeyUse::Any, "the gates' keys");
            domains.insert(
                name,
                Domain {
                    algorithms: settings.algorithms,
                    bundle: bundle.unwrap_or_else(KeySet::empty),
                    token_service: token_service.unwrap_or_else(KeySet::empty),
                    gates: gates.unwrap_or_else(KeySet::empty),
                },
            );
        }
        problems.into_result().map(|()| Trust::new(domains))
    }
}

/// Whether a gate's own key is among those that its trust domain says its gates have. If it is not, no worker and no next
/// gate will take what it signs.
pub fn knows_gate(trust: &Trust, gate: &WorkloadId, key: &SigningKey) -> bool {
    let Some(domain) = trust.domain(gate.trust_domain()) else { return false };
    let Ok(public) = domain.gates.select(key.kid(), key.algorithm()) else { return false };
    let Ok(token) = key.sign(TokenKind::Countersignature, &serde_json::Map::new()) else { return false };
    Jws::parse(token.as_bytes(), TokenKind::Countersignature)
        .is_ok_and(|jws| public.verify(key.algorithm(), jws.signing_input(), jws.signature()))
}

/// A problem of a key set at the key that it is about.
fn key_set_problem(file: &ReadFile, error: &KeySetError, what: &str) -> Problem {
    let source = source(&file.path, file.text.clone());
    let problem = Problem::error(format!("{what} cannot be used: {error}"));
    let index = match error {
        KeySetError::NotAnObject { index }
        | KeySetError::Mistyped { index, .. }
        | KeySetError::DuplicateKid { index, .. }
        | KeySetError::Key { index, .. } => Some(*index),
        _ => None,
    };
    let (problem, place) = match index.and_then(|index| key_place(&file.text, index)) {
        Some(place) => (problem.help("one bad key refuses the whole set: mend it or take it out"), place),
        None => (problem.help("it is a JWK set, `{\"keys\": [...]}`"), 0..file.text.len().min(1)),
    };
    problem.at(&source, place)
}

/// Where in the text of a JWK set its key of that index stands.
fn key_place(text: &str, index: usize) -> Option<std::ops::Range<usize>> {
    #[derive(serde::Deserialize)]
    struct Keys<'t> {
        #[serde(borrow)]
        keys: Vec<&'t serde_json::value::RawValue>,
    }
    let keys: Keys<'_> = serde_json::from_str(text).ok()?;
    let key = keys.keys.get(index)?.get();
    // Both are slices of one text, so the difference of their addresses is the offset.
    let start = (key.as_ptr() as usize).checked_sub(text.as_ptr() as usize)?;
    text.get(start..start + key.len()).is_some().then_some(start..start + key.len())
}
