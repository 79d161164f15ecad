//! Whose signatures count: for each trust domain its algorithms, its three key sets and its X.509 authorities; beside them,
//! who may revoke and who may answer challenges. Limits: read elsewhere, handed in whole, and never changed; a new state is a new `Trust` with another version.

use std::collections::BTreeMap;

use super::ids::{Digest, TrustDomain};
use super::jose::{Algorithm, KeySet, sha256};
use super::text::Text;
use super::x509::Authorities;

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

/// Somebody who signs for the gate without being part of a trust domain, known by the `iss` of its tokens.
#[derive(Debug, Clone)]
pub struct Issuer {
    /// What its tokens may be signed with.
    pub algorithms: Vec<Algorithm>,
    /// Its keys.
    pub keys: KeySet,
}

/// An issuer of answers to challenges.
#[derive(Debug, Clone)]
pub struct ApproverIssuer {
    /// Whose signatures count.
    pub issuer: Issuer,
    /// The Cedar entity type of its approvers: `<entity_type>::"<sub>"`.
    pub entity_type: String,
}

/// Whose signatures count beside those of the trust domains.
#[derive(Debug, Clone, Default)]
pub struct Others {
    /// Who transmits security events (RFC 8417 SETs), by `iss`.
    pub transmitters: BTreeMap<String, Issuer>,
    /// Who signs administrative revocations; `None` where nobody may.
    pub administrators: Option<KeySet>,
    /// Who issues answers to challenges, by `iss`.
    pub approvers: BTreeMap<String, ApproverIssuer>,
}

/// Everything that is trusted at one moment.
#[derive(Debug, Clone)]
pub struct Trust {
    domains: BTreeMap<TrustDomain, Domain>,
    others: Others,
    /// Kept apart from the keys: what signs a token never vouches for a certificate.
    authorities: BTreeMap<TrustDomain, Authorities>,
    version: Digest,
    version_text: Text,
}

impl Trust {
    /// The trust in those domains and no others.
    pub fn new(domains: BTreeMap<TrustDomain, Domain>) -> Self {
        Self::with(domains, Others::default())
    }

    /// The trust in those domains and those others.
    pub fn with(domains: BTreeMap<TrustDomain, Domain>, others: Others) -> Self {
        let version = version(&domains, &others);
        Self { domains, others, authorities: BTreeMap::new(), version, version_text: version.text() }
    }

    /// The same, with who vouches for the X.509-SVIDs of each domain.
    #[must_use]
    pub fn with_authorities(self, mut authorities: BTreeMap<TrustDomain, Authorities>) -> Self {
        authorities.retain(|_, of| !of.is_empty());
        let mut version = version(&self.domains, &self.others);
        for (name, of) in &authorities {
            // A domain's name holds no line feed, so the first one ends it.
            version = sha256(&[&version.0, name.as_str().as_bytes(), b"\n", &of.version().0]);
        }
        Self { authorities, version, version_text: version.text(), ..self }
    }

    /// Who vouches for the X.509-SVIDs of that domain; `None` where nobody does.
    pub fn authorities(&self, name: &TrustDomain) -> Option<&Authorities> {
        self.authorities.get(name)
    }

    /// Whether somebody vouches for the X.509-SVIDs of any domain.
    pub fn has_authorities(&self) -> bool {
        !self.authorities.is_empty()
    }

    /// Who may revoke and who may answer challenges.
    pub fn others(&self) -> &Others {
        &self.others
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

    /// The version as it is written.
    pub fn version_text(&self) -> &Text {
        &self.version_text
    }
}

impl Issuer {
    fn digest(&self, role: &str, iss: &str) -> Digest {
        let mut algorithms: Vec<_> = self.algorithms.iter().map(|a| a.as_str()).collect();
        algorithms.sort_unstable();
        algorithms.dedup();
        // The issuer's name comes from outside, so it is hashed to a fixed length.
        let iss = sha256(&[iss.as_bytes()]);
        sha256(&[
            role.as_bytes(),
            b"\n",
            &iss.0,
            algorithms.join(",").as_bytes(),
            b"\n",
            &self.keys.version().0,
        ])
    }
}

fn version(domains: &BTreeMap<TrustDomain, Domain>, others: &Others) -> Digest {
    let mut digests: Vec<Digest> = domains
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
    digests.extend(others.transmitters.iter().map(|(iss, issuer)| issuer.digest("transmitter", iss)));
    if let Some(keys) = &others.administrators {
        digests.push(sha256(&[b"administrators\n", &keys.version().0]));
    }
    digests.extend(others.approvers.iter().map(|(iss, approvers)| {
        sha256(&[&approvers.issuer.digest("approvers", iss).0, approvers.entity_type.as_bytes()])
    }));
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
