//! Whose signatures count: for each trust domain its algorithms and its three key sets. Limits: read elsewhere, handed
//! in whole, and never changed; a new state is a new `Trust` with another version.

use std::collections::BTreeMap;

use super::ids::{Digest, TrustDomain};
use super::jose::{Algorithm, KeySet, sha256};

/// One trust domain. The sets are kept apart because a key of one kind never signs tokens of another (contract,
/// section 8, `issuer_unknown`).
#[derive(Debug, Clone)]
pub struct Domain {
    /// What its tokens may be signed with; [`Algorithm::DEFAULT`] where the configuration does not say.
    pub algorithms: Vec<Algorithm>,
    /// Who issues WITs: the SPIFFE bundle.
    pub bundle: KeySet,
    /// Who issues Txn-Tokens.
    pub token_service: KeySet,
    /// Its gates: who countersigns.
    pub gates: KeySet,
}

/// Everything that is trusted at one moment.
#[derive(Debug, Clone)]
pub struct Trust {
    domains: BTreeMap<TrustDomain, Domain>,
    version: Digest,
}

impl Trust {
    /// The trust in those domains and no others.
    pub fn new(domains: BTreeMap<TrustDomain, Domain>) -> Self {
        let version = version(&domains);
        Self { domains, version }
    }

    /// The domain of that exact name, if it is configured.
    pub fn domain(&self, name: &TrustDomain) -> Option<&Domain> {
        self.domains.get(name)
    }

    /// The algorithms of that domain; of an unknown one, the default (contract, section 8).
    pub fn algorithms(&self, name: &TrustDomain) -> &[Algorithm] {
        self.domain(name).map_or(&Algorithm::DEFAULT, |domain| &domain.algorithms)
    }

    /// A digest of all that can change an answer: what was verified under one version holds under no other.
    pub fn version(&self) -> Digest {
        self.version
    }
}

fn version(domains: &BTreeMap<TrustDomain, Domain>) -> Digest {
    let digests: Vec<Digest> = domains
        .iter()
        .map(|(name, domain)| {
            let mut algorithms: Vec<_> = domain.algorithms.iter().map(|a| a.as_str()).collect();
            algorithms.sort_unstable();
            algorithms.dedup();
            // A domain's name holds no line feed, so the first one ends it.
            sha256(&[
                name.as_str().as_bytes(),
                b"\n",
                algorithms.join(",").as_bytes(),
                b"\n",
                &domain.bundle.version().0,
                &domain.token_service.version().0,
                &domain.gates.version().0,
            ])
        })
        .collect();
    let parts: Vec<&[u8]> = digests.iter().map(|digest| &digest.0[..]).collect();
    sha256(&parts)
}

#[cfg(test)]
mod tests {
    use super::super::jose::{KeyUse, SigningKey};
    use super::*;

    fn keys(seed: u8) -> KeySet {
        let key = SigningKey::from_seed(Algorithm::EdDsa, &[seed; 32], Some("k")).unwrap();
        KeySet::from_jwks(&serde_json::json!({"keys": [key.public_jwk()]}).to_string(), KeyUse::Any).unwrap()
    }

    fn domain() -> Domain {
        Domain {
            algorithms: Algorithm::DEFAULT.to_vec(),
            bundle: keys(1),
            token_service: keys(2),
            gates: keys(3),
        }
    }

    #[test]
    fn every_change_of_what_is_trusted_changes_the_version() {
        let name = TrustDomain::parse("example.org").unwrap();
        let of = |domain: Domain| Trust::new(BTreeMap::from([(name.clone(), domain)])).version();
        let other = TrustDomain::parse("example.com").unwrap();
        let swapped = Domain { bundle: keys(2), token_service: keys(1), ..domain() };
        let versions = [
            of(domain()),
            of(swapped),
            of(Domain { gates: KeySet::empty(), ..domain() }),
            of(Domain { algorithms: vec![Algorithm::Es256], ..domain() }),
            Trust::new(BTreeMap::new()).version(),
            Trust::new(BTreeMap::from([(other.clone(), domain())])).version(),
            Trust::new(BTreeMap::from([(name.clone(), domain()), (other, domain())])).version(),
        ];
        assert_eq!(versions.iter().collect::<std::collections::HashSet<_>>().len(), versions.len());
        let reordered = Domain { algorithms: vec![Algorithm::EdDsa, Algorithm::Es256], ..domain() };
        assert_eq!(of(domain()), of(reordered));
    }

    #[test]
    fn an_unknown_domain_is_judged_by_the_default_algorithms() {
        let name = TrustDomain::parse("example.org").unwrap();
        let rsa = Domain { algorithms: vec![Algorithm::Rs256], ..domain() };
        let trust = Trust::new(BTreeMap::from([(name.clone(), rsa)]));
        assert_eq!(trust.algorithms(&name), [Algorithm::Rs256]);
        assert_eq!(trust.algorithms(&TrustDomain::parse("example.com").unwrap()), Algorithm::DEFAULT);
    }
}
