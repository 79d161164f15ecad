//! Which cluster a command speaks to, from a gate's configuration or from the command line alone. Limits: librdkafka's
//! properties are passed through, and it says itself what it thinks of them.

use std::path::PathBuf;

use rdkafka::config::ClientConfig;

use super::environment;
use crate::authorize::ids::{InvalidName, Realm};
use crate::config::{Config, Problems};

/// The cluster, in arguments.
#[derive(Debug, Clone, clap::Args)]
pub struct ClusterArgs {
    /// A gate's configuration, for its realm and `[kafka]`
    #[arg(long, value_name = "FILE", env = "COUNTERSIGN_CONFIG", required_unless_present_all = ["bootstrap", "realm"])]
    pub config: Option<PathBuf>,
    /// Where brokers are [default: the configuration's]
    #[arg(long, value_name = "ADDRESS")]
    pub bootstrap: Option<String>,
    /// The realm of the cluster [default: the configuration's]
    #[arg(long, value_parser = realm)]
    pub realm: Option<Realm>,
    /// A librdkafka property; may be given many times
    #[arg(short = 'X', value_name = "NAME=VALUE", value_parser = property)]
    pub properties: Vec<(String, String)>,
}

/// A cluster and how to reach it.
pub struct Cluster {
    /// Its realm.
    pub realm: Realm,
    /// What every client is told.
    pub client: ClientConfig,
    /// The configuration, where there is one.
    pub config: Option<Config>,
}

/// Why it is not known which cluster is meant.
#[derive(Debug, thiserror::Error, miette::Diagnostic)]
pub enum ClusterError {
    /// The configuration has mistakes.
    #[error("the configuration cannot be used")]
    Problems(Problems),
    /// Arguments and configuration together leave something out.
    #[error("no {0} is known")]
    #[diagnostic(help("give `--config FILE`, or `--bootstrap ADDRESS` and `--realm NAME`"))]
    Missing(&'static str),
}

impl ClusterArgs {
    /// The cluster that is meant; what the arguments say wins.
    ///
    /// # Errors
    /// The configuration's mistakes, or what is left out.
    pub fn resolve(&self) -> Result<Cluster, ClusterError> {
        let config = match &self.config {
            Some(path) => Some(Config::load(path, environment()).map_err(ClusterError::Problems)?),
            None => None,
        };
        let mut client = ClientConfig::new();
        for (name, value) in config.iter().flat_map(|config| config.settings.kafka.iter()) {
            client.set(name, value);
        }
        if let Some(bootstrap) = &self.bootstrap {
            client.set("bootstrap.servers", bootstrap);
        }
        for (name, value) in &self.properties {
            client.set(name, value);
        }
        if client.get("bootstrap.servers").is_none_or(str::is_empty) {
            return Err(ClusterError::Missing("broker"));
        }
        let realm = self.realm.clone().or_else(|| config.as_ref().map(|config| config.realm.clone()));
        Ok(Cluster { realm: realm.ok_or(ClusterError::Missing("realm"))?, client, config })
    }
}

/// A gate's configuration, for commands that have commands of their own: these may be followed by what stands here.
#[derive(Debug, Clone, clap::Args)]
pub struct GateArgs {
    /// A gate's configuration
    #[arg(
        long,
        global = true,
        value_name = "FILE",
        default_value = "countersign.toml",
        env = "COUNTERSIGN_CONFIG"
    )]
    config: PathBuf,
    /// Where brokers are [default: the configuration's]
    #[arg(long, global = true, value_name = "ADDRESS")]
    bootstrap: Option<String>,
    /// A librdkafka property; may be given many times
    #[arg(short = 'X', global = true, value_name = "NAME=VALUE", value_parser = property)]
    properties: Vec<(String, String)>,
}

impl GateArgs {
    /// The configuration, and what every client of its cluster is told.
    ///
    /// # Errors
    /// The configuration's mistakes, or that it names no broker.
    pub fn resolve(&self) -> Result<(Config, ClientConfig), ClusterError> {
        let Self { config, bootstrap, properties } = self.clone();
        let arguments = ClusterArgs { config: Some(config), bootstrap, realm: None, properties };
        let cluster = arguments.resolve()?;
        Ok((cluster.config.ok_or(ClusterError::Missing("configuration"))?, cluster.client))
    }
}

fn realm(text: &str) -> Result<Realm, InvalidName> {
    Realm::parse(text)
}

fn property(text: &str) -> Result<(String, String), String> {
    let (name, value) = text.split_once('=').ok_or("must be `NAME=VALUE`")?;
    Ok((name.to_owned(), value.to_owned()))
}
