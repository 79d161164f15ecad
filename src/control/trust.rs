//! The key files of everybody whose signatures count, read whole into a `Trust`. Limits: no key is fetched from anywhere; a file that
//! cannot be used leaves the last good `Trust` in place, so that nothing is half changed.

use std::collections::{BTreeMap, BTreeSet};
use std::path::{Path, PathBuf};

use super::files::{self, ReadFile};
use crate::authorize::ids::{Digest, WorkloadId};
use crate::authorize::jose::{Jws, KeySet, KeySetError, KeyUse, SigningKey, TokenKind};
use crate::authorize::trust::{ApproverIssuer, Domain, Issuer, Others, Trust};
use crate::authorize::x509::{Authorities, AuthorityError};
use crate::config::{DomainFiles, IssuerFiles, OtherFiles, Problem, Problems, TrustFiles, source};

/// Bytes of one key file.
const MAX_BYTES: usize = 4 * 1024 * 1024;

/// The files as they were read, before anything is made of them.
#[derive(Debug)]
pub struct TrustSource {
    settings: TrustFiles,
    files: BTreeMap<PathBuf, ReadFile>,
    problems: Problems,
    digest: Digest,
}

impl TrustSource {
    /// Reads every file; those that cannot be read are problems of [`Self::load`].
    pub fn read(settings: &TrustFiles) -> Self {
        let mut problems = Problems::default();
        let paths: BTreeSet<&Path> = settings.paths().collect();
        let read = paths.into_iter().filter_map(|path| match files::read(path, MAX_BYTES) {
            Ok(file) => Some((path.to_owned(), file)),
            Err(problem) => {
                problems.push(problem);
                None
            }
        });
        let files: BTreeMap<_, _> = read.collect();
        let digest = files::digest(files.values());
        Self { settings: settings.clone(), files, problems, digest }
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
        let Self { settings, files, mut problems, .. } = self;
        let mut authorities = BTreeMap::new();
        for (name, DomainFiles { bundle, .. }) in &settings.domains {
            let Some(file) = files.get(bundle) else { continue };
            match Authorities::from_bundle(&file.text) {
                Ok(found) => drop(authorities.insert(name.clone(), found)),
                // What is no JWK set is refused as one below.
                Err(AuthorityError::NotASet | AuthorityError::TooMany) => {}
                Err(error) => problems.push(authority_problem(file, &error)),
            }
        }
        // A file that could not be read is a problem already: its set is not missed.
        let mut keys = |path: Option<&PathBuf>, key_use, what: &str| {
            let file = path.and_then(|path| files.get(path))?;
            KeySet::from_jwks(&file.text, key_use)
                .map_err(|error| problems.push(key_set_problem(file, &error, what)))
                .ok()
        };
        let mut domains = BTreeMap::new();
        for (name, DomainFiles { bundle, token_service, gates, algorithms }) in settings.domains {
            let bundle = keys(Some(&bundle), KeyUse::WitIssuer, "the SPIFFE bundle");
            let token_service = keys(token_service.as_ref(), KeyUse::Any, "the token service's keys");
            let gates = keys(gates.as_ref(), KeyUse::Any, "the gates' keys");
            let domain = Domain {
                algorithms,
                bundle: bundle.unwrap_or_else(KeySet::empty),
                token_service: token_service.unwrap_or_else(KeySet::empty),
                gates: gates.unwrap_or_else(KeySet::empty),
            };
            domains.insert(name, domain);
        }
        let mut issuer = |files: IssuerFiles, what: &str| Issuer {
            keys: keys(Some(&files.keys), KeyUse::Any, what).unwrap_or_else(KeySet::empty),
            algorithms: files.algorithms,
        };
        let OtherFiles { transmitters, administrators, approvers } = settings.others;
        let transmitters =
            transmitters.into_iter().map(|(iss, files)| (iss, issuer(files, "the transmitter's keys")));
        let transmitters = transmitters.collect();
        let approvers = approvers.into_iter().map(|(iss, files)| {
            let issuer = issuer(files.issuer, "the approvers' keys");
            (iss, ApproverIssuer { issuer, entity_type: files.entity_type })
        });
        let approvers = approvers.collect();
        let administrators = keys(administrators.as_ref(), KeyUse::Any, "the administrators' keys");
        let others = Others { transmitters, administrators, approvers };
        problems.into_result().map(|()| Trust::with(domains, others).with_authorities(authorities))
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

/// A problem of a bundle's X.509 authorities at the entry that it is about.
fn authority_problem(file: &ReadFile, error: &AuthorityError) -> Problem {
    let source = source(&file.path, file.text.clone());
    let problem =
        Problem::error(format!("the X.509 authorities of the SPIFFE bundle cannot be used: {error}"));
    let index = match error {
        AuthorityError::Encoding { index } | AuthorityError::NotAnAuthority { index } => Some(*index),
        AuthorityError::NotASet | AuthorityError::TooMany => None,
    };
    let place = index.and_then(|index| key_place(&file.text, index));
    let help = "an entry of use `x509-svid` holds the certificate of an authority in `x5c`, DER in base64";
    problem.help(help).at(&source, place.unwrap_or(0..file.text.len().min(1)))
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
