//! `keys`: private keys, their public halves, and a development trust domain. Limits: EC and Ed25519 keys only are made
//! here; RSA keys can be read wherever keys are. Private keys go to files of mode 0600, and to the terminal only where
//! that is asked for.

use std::fs::{DirBuilder, OpenOptions};
use std::io::{self, Write};
use std::os::unix::fs::{DirBuilderExt, OpenOptionsExt};
use std::path::{Path, PathBuf};

use serde_json::Value;

use super::files::{self, FileError};
use super::issue::{self, GenerateError};
use crate::authorize::ids::{InvalidName, TrustDomain, WorkloadId};
use crate::authorize::jose::{Algorithm, SigningKey};

/// Make keys, show public keys, make a development trust domain
#[derive(Debug, clap::Args)]
pub struct Keys {
    #[command(subcommand)]
    command: Command,
}

#[derive(Debug, clap::Subcommand)]
enum Command {
    /// Make a private key in a new file of mode 0600
    New {
        /// The new file; `-` prints the private key
        #[arg(long, value_name = "FILE")]
        out: PathBuf,
        /// The algorithm of its signatures: ES256 or EdDSA
        #[arg(long, default_value = "ES256", value_parser = algorithm)]
        alg: Algorithm,
        /// The key's id in tokens and key sets [default: its thumbprint]
        #[arg(long)]
        kid: Option<String>,
    },
    /// Print the public half of a private key
    Public {
        /// The private key, a JWK
        key: PathBuf,
    },
    /// Print a key set (JWKS) of the public halves of keys
    Bundle {
        /// Private or public keys, as JWKs
        #[arg(required = true)]
        keys: Vec<PathBuf>,
        /// What the keys are for: `wit-svid` in a SPIFFE bundle, nothing for token services and gates
        #[arg(long = "use")]
        key_use: Option<String>,
    },
    /// Make a development trust domain: keys and key sets of an issuer, a token service and a gate
    TrustDomain {
        /// Where to; nothing that is there is overwritten
        dir: PathBuf,
        /// The trust domain's name
        #[arg(long)]
        domain: String,
        /// The gate's name: `spiffe://<domain>/gate/<name>`
        #[arg(long, default_value = "payments")]
        gate: String,
        /// The algorithm of all its keys: ES256 or EdDSA
        #[arg(long, default_value = "ES256", value_parser = algorithm)]
        alg: Algorithm,
    },
}

/// Why a `keys` command failed.
#[derive(Debug, thiserror::Error, miette::Diagnostic)]
pub enum KeysError {
    /// A file could not be read, or holds no key.
    #[error(transparent)]
    #[diagnostic(transparent)]
    File(#[from] FileError),
    /// No key could be made.
    #[error(transparent)]
    Generate(#[from] GenerateError),
    /// A name breaks the rules.
    #[error("the {0}")]
    Name(#[from] InvalidName),
    /// The output could not be written.
    #[error("cannot write: {0}")]
    Output(#[from] io::Error),
}

impl Keys {
    /// Runs the command; `out` is where data goes.
    ///
    /// # Errors
    /// What could not be read, made or written.
    pub fn run(&self, out: &mut dyn Write) -> Result<(), KeysError> {
        match &self.command {
            Command::New { out: file, alg, kid } => {
                let key = issue::generate(*alg, kid.as_deref())?;
                if file.as_os_str() == "-" {
                    writeln!(out, "{}", key.private_jwk().as_str())?;
                } else {
                    write_private(file, &key)?;
                    writeln!(out, "{}", key.public_jwk())?;
                }
            }
            Command::Public { key } => writeln!(out, "{}", files::public_key(key)?)?,
            Command::Bundle { keys, key_use } => {
                let keys =
                    keys.iter().map(|key| files::public_key(key)).collect::<Result<Vec<Value>, _>>()?;
                writeln!(out, "{:#}", issue::jwks(&keys, key_use.as_deref()))?;
            }
            Command::TrustDomain { dir, domain, gate, alg } => {
                let made = Development::make(dir, &TrustDomain::parse(domain)?, gate, *alg)?;
                write!(out, "{}", made.config())?;
            }
        }
        Ok(())
    }
}

/// A development trust domain on disk: what a gate's configuration names, and the private keys that stand in for an
/// identity provider and a token service.
#[derive(Debug)]
pub struct Development {
    /// The trust domain.
    pub domain: TrustDomain,
    /// The gate's identifier.
    pub gate: WorkloadId,
    /// Signs WITs.
    pub issuer: SigningKey,
    /// Signs Txn-Tokens.
    pub token_service: SigningKey,
}

impl Development {
    /// Makes keys of all three and writes them below `dir`: private ones to `keys/`, key sets to `trust/`.
    ///
    /// # Errors
    /// A file is there already, or cannot be written.
    pub fn make(dir: &Path, domain: &TrustDomain, gate: &str, alg: Algorithm) -> Result<Self, KeysError> {
        let gate = WorkloadId::parse(&format!("spiffe://{domain}/gate/{gate}"))?;
        let (keys, trust) = (dir.join("keys"), dir.join("trust"));
        for folder in [&keys, &trust] {
            DirBuilder::new()
                .recursive(true)
                .mode(0o700)
                .create(folder)
                .map_err(|e| FileError::write(folder, e))?;
        }
        let issuer = issue::generate(alg, None)?;
        let token_service = issue::generate(alg, None)?;
        let gate_key = issue::generate(alg, None)?;
        write_private(&keys.join("issuer.jwk"), &issuer)?;
        write_private(&keys.join("token-service.jwk"), &token_service)?;
        write_private(&keys.join("gate.jwk"), &gate_key)?;
        let bundle = issue::jwks([&issuer.public_jwk()], Some("wit-svid"));
        write_new(&trust.join(format!("{domain}.json")), 0o644, format!("{bundle:#}\n").as_bytes())?;
        for (name, key) in [("token-service.jwks", &token_service), ("gates.jwks", &gate_key)] {
            let set = issue::jwks([&key.public_jwk()], None);
            write_new(&trust.join(name), 0o644, format!("{set:#}\n").as_bytes())?;
        }
        Ok(Self { domain: domain.clone(), gate, issuer, token_service })
    }

    /// The parts of `countersign.toml` that name what was made, with paths below its folder.
    pub fn config(&self) -> String {
        let Self { domain, gate, .. } = self;
        format!(
            "[gate]\nid = \"{gate}\"\nkey = \"keys/gate.jwk\"\n\n[trust.\"{domain}\"]\nbundle = \"trust/{domain}.json\"\n\
             token_service = \"trust/token-service.jwks\"\ngates = \"trust/gates.jwks\"\n"
        )
    }
}

/// Writes a private key to a file that was not there, for its owner alone.
///
/// # Errors
/// The file is there, or cannot be written.
pub fn write_private(path: &Path, key: &SigningKey) -> Result<(), FileError> {
    write_new(path, 0o600, key.private_jwk().as_bytes())
}

fn write_new(path: &Path, mode: u32, bytes: &[u8]) -> Result<(), FileError> {
    // `create_new` follows no link and overwrites no key.
    let mut file = OpenOptions::new()
        .write(true)
        .create_new(true)
        .mode(mode)
        .open(path)
        .map_err(|e| FileError::write(path, e))?;
    file.write_all(bytes).map_err(|e| FileError::write(path, e))
}

fn algorithm(text: &str) -> Result<Algorithm, String> {
    match Algorithm::parse(text) {
        Some(algorithm @ (Algorithm::Es256 | Algorithm::EdDsa)) => Ok(algorithm),
        _ => Err("must be `ES256` or `EdDSA`".to_owned()),
    }
}

#[cfg(test)]
mod tests {
    use std::os::unix::fs::PermissionsExt;

    use clap::Parser;

    use super::*;
    use crate::authorize::jose::{KeySet, KeyUse};

    #[derive(Parser)]
    struct Program {
        #[command(flatten)]
        keys: Keys,
    }

    fn run(arguments: &[&str]) -> Result<String, KeysError> {
        let mut out = Vec::new();
        let program = Program::try_parse_from([&["keys"], arguments].concat()).unwrap();
        program.keys.run(&mut out)?;
        Ok(String::from_utf8(out).unwrap())
    }

    fn read(path: &Path) -> String {
        std::fs::read_to_string(path).unwrap()
    }

    #[test]
    fn a_private_key_goes_to_its_owners_file_and_to_no_terminal() {
        let folder = tempfile::tempdir().unwrap();
        let file = folder.path().join("a.jwk");
        let path = file.to_str().unwrap();
        let printed = run(&["new", "--out", path, "--alg", "EdDSA", "--kid", "a"]).unwrap();
        assert_eq!(std::fs::metadata(&file).unwrap().permissions().mode() & 0o777, 0o600);
        let private: Value = serde_json::from_str(&read(&file)).unwrap();
        assert!(!printed.contains(private["d"].as_str().unwrap()) && printed.contains(r#""kid":"a""#));
        assert_eq!(run(&["public", path]).unwrap(), printed);
        // A second key would destroy the first.
        assert!(matches!(run(&["new", "--out", path]), Err(KeysError::File(FileError::Exists { .. }))));
        assert!(run(&["new", "--out", "-"]).unwrap().contains("\"d\""));
    }

    #[test]
    fn a_bundle_takes_private_and_public_keys_and_holds_public_ones() {
        let folder = tempfile::tempdir().unwrap();
        let [private, public] = ["a.jwk", "b.jwk"].map(|name| folder.path().join(name));
        run(&["new", "--out", private.to_str().unwrap(), "--kid", "a"]).unwrap();
        std::fs::write(
            &public,
            issue::generate(Algorithm::EdDsa, Some("b")).unwrap().public_jwk().to_string(),
        )
        .unwrap();
        let paths = [private.to_str().unwrap(), public.to_str().unwrap()];
        let bundle = run(&[&["bundle", "--use", "wit-svid"], &paths[..]].concat()).unwrap();
        let set = KeySet::from_jwks(&bundle, KeyUse::WitIssuer).unwrap();
        assert_eq!(set.kids().collect::<Vec<_>>(), ["a", "b"]);
        std::fs::write(&public, "{}").unwrap();
        let error = run(&[&["bundle"], &paths[..]].concat()).unwrap_err().to_string();
        assert!(error.contains("b.jwk") && error.contains("`kty`"), "{error}");
    }

    #[test]
    fn a_trust_domain_is_what_a_configuration_names() {
        let folder = tempfile::tempdir().unwrap();
        let dir = folder.path().join("dev");
        let config = run(&["trust-domain", dir.to_str().unwrap(), "--domain", "example.org"]).unwrap();
        let config: toml::Table = config.parse().unwrap();
        assert_eq!(config["gate"]["id"].as_str(), Some("spiffe://example.org/gate/payments"));
        let gate = files::private_key(&dir.join(config["gate"]["key"].as_str().unwrap())).unwrap();
        let trust = &config["trust"]["example.org"];
        let kids = |name: &str, key_use| {
            let set = KeySet::from_jwks(&read(&dir.join(trust[name].as_str().unwrap())), key_use).unwrap();
            set.kids().map(str::to_owned).collect::<Vec<_>>()
        };
        let private = |name: &str| files::private_key(&dir.join("keys").join(name)).unwrap();
        assert_eq!(kids("gates", KeyUse::Any), [gate.kid().unwrap()]);
        assert_eq!(kids("bundle", KeyUse::WitIssuer), [private("issuer.jwk").kid().unwrap()]);
        assert_eq!(kids("token_service", KeyUse::Any), [private("token-service.jwk").kid().unwrap()]);
        for name in ["gate.jwk", "issuer.jwk", "token-service.jwk"] {
            let mode = std::fs::metadata(dir.join("keys").join(name)).unwrap().permissions().mode();
            assert_eq!(mode & 0o777, 0o600);
        }
        assert!(run(&["trust-domain", dir.to_str().unwrap(), "--domain", "example.org"]).is_err());
        assert!(run(&["trust-domain", dir.to_str().unwrap(), "--domain", "../x"]).is_err());
    }
}
