//! The place of the gates that are measured: a folder with a development trust domain, policies, and a configuration for
//! each turn. Limits: a gate's settings are its defaults but for what is measured by them.

use std::fmt::Write as _;
use std::fs;
use std::path::{Path, PathBuf};

use super::policies::{self, UNPROVEN};
use super::records::{DOMAIN, REALM, Sender};
use super::{BenchError, Options};
use crate::authorize::ids::TrustDomain;
use crate::authorize::jose::Algorithm;
use crate::cli::files::FileError;
use crate::cli::keys::Development;

/// What a gate decides by.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Rules {
    /// Nothing: records without proof, found to be the same request each, and a policy that permits everything.
    Nothing,
    /// Records without proof, what they ask for found in their value, and the policies of a real place.
    Unproven,
    /// Records with proof, and the same policies.
    Proven,
}

/// The topics of one turn.
#[derive(Debug, Clone)]
pub(super) struct Topics {
    pub(super) from: String,
    pub(super) to: String,
    pub(super) denied: String,
    pub(super) audit: String,
    pub(super) replay: String,
}

/// The folder.
pub(super) struct Site {
    folder: tempfile::TempDir,
    gate: String,
}

impl Site {
    /// Makes the folder, and who sends to its gates.
    pub(super) fn new(options: &Options) -> Result<(Self, Sender), BenchError> {
        let folder = tempfile::Builder::new().prefix("countersign-bench-site-").tempdir()?;
        let domain = TrustDomain::parse(DOMAIN)?;
        let made = Development::make(folder.path(), &domain, "bench", Algorithm::EdDsa)?;
        let gate = made.config();
        policies::write_bare(&folder.path().join("nothing"))?;
        policies::write_many(&folder.path().join("policies"), options.policies)?;
        Ok((Self { folder, gate }, Sender::new(made)?))
    }

    /// Where it is.
    pub(super) fn path(&self) -> &Path {
        self.folder.path()
    }

    /// Writes the configuration of a gate under that name.
    pub(super) fn write(
        &self,
        name: &str,
        bootstrap: &str,
        rules: Rules,
        topics: &Topics,
        options: &Options,
    ) -> Result<PathBuf, BenchError> {
        let path = self.path().join(format!("{name}.toml"));
        let text = self.configuration(bootstrap, rules, topics, options);
        fs::write(&path, text).map_err(|cause| FileError::write(&path, cause))?;
        Ok(path)
    }

    fn configuration(&self, bootstrap: &str, rules: Rules, topics: &Topics, options: &Options) -> String {
        let Topics { from, to, denied, audit, replay } = topics;
        let (gate, trust) = self.gate.split_once("\n\n").unwrap_or((&self.gate, ""));
        let mut text = format!(
            "realm = \"{REALM}\"\n[kafka]\n\"bootstrap.servers\" = \"{bootstrap}\"\n{gate}\ngroup = \"{from}\"\n\
             lanes = {lanes}\n[batch]\nmax_records = {batch}\n{trust}[policy]\npath = \"{policies}\"\n\
             [http]\nlisten = \"off\"\n\
             [[route]]\nname = \"bench\"\nfrom = [\"{from}\"]\nto = \"{to}\"\ndenied = \"{denied}\"\n\
             audit = \"{audit}\"\nreplay_topic = \"{replay}\"\n",
            lanes = options.lanes(),
            batch = options.batch,
            policies = if rules == Rules::Nothing { "nothing" } else { "policies" },
        );
        if rules == Rules::Proven {
            text += "require = [\"workload\", \"transaction\"]\n";
            return text;
        }
        let (action, resource) = match rules {
            Rules::Nothing => ("'pay'", "{'type': 'Invoice', 'id': 'any'}"),
            _ => ("value.do", "{'type': 'Invoice', 'id': value.invoice}"),
        };
        // Writing to a string does not fail.
        let _ = write!(
            text,
            "require = []\nunproven = \"{UNPROVEN}\"\n[route.map]\naction = \"{action}\"\nresource = \"{resource}\"\n"
        );
        text
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::config::Config;
    use crate::control::{EntitiesFrom, PolicySource, offer};

    #[test]
    fn every_configuration_is_one_that_a_gate_takes_with_its_policies() {
        let options = Options::for_tests();
        let (site, _) = Site::new(&options).unwrap();
        let name = |kind: &str| format!("t.{kind}");
        let topics = Topics {
            from: name("from"),
            to: name("to"),
            denied: name("denied"),
            audit: name("audit"),
            replay: name("replay"),
        };
        for rules in [Rules::Nothing, Rules::Unproven, Rules::Proven] {
            let path = site.write("gate", "localhost:9092", rules, &topics, &options).unwrap();
            let config = Config::load(&path, []).unwrap_or_else(|problems| panic!("{rules:?}: {problems}"));
            assert_eq!(config.settings.batch.max_records, options.batch);
            assert_eq!(config.settings.routes[0].route.unproven.is_none(), rules == Rules::Proven);
            let offer = offer(&config.settings.routes, &config.settings.policy.subject_type);
            let policies =
                PolicySource::read(&config.settings.policy.path).load(&offer, EntitiesFrom::Folder);
            assert!(policies.is_ok(), "{rules:?}: {:?}", policies.err());
        }
    }
}
