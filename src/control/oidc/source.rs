//! Looks up an issuer's keys, from a file or over HTTP. Limits: one look, bounded in time and size; no redirect is
//! followed, and the only addresses asked are those of the configuration and of the issuer's own discovery document.

use std::io::Read as _;
use std::path::PathBuf;
use std::time::Duration;

use reqwest::blocking::Client;
use reqwest::redirect::Policy;
use url::Url;

use super::discovery::{self, DiscoveryError};
use crate::authorize::jose::{KeySet, KeySetError, KeyUse};
use crate::config::OidcKeys;
use crate::control::files;

/// Bytes of one document. A key set of 1,024 keys with certificates is smaller.
const MAX_BYTES: usize = 4 * 1024 * 1024;
/// How long one request may take, its body included.
const PATIENCE: Duration = Duration::from_secs(5);

/// Why an issuer's keys could not be had.
#[derive(Debug, thiserror::Error)]
pub(super) enum LookError {
    /// The client cannot be made.
    #[error("no HTTP client can be made: {0}")]
    Client(reqwest::Error),
    /// No answer.
    #[error("`{url}` cannot be read: {problem}")]
    Http {
        /// The address.
        url: String,
        /// What went wrong.
        problem: String,
    },
    /// The file cannot be read.
    #[error("{0}")]
    File(String),
    /// Discovery leads nowhere.
    #[error(transparent)]
    Discovery(#[from] DiscoveryError),
    /// The keys are no good.
    #[error(transparent)]
    Keys(#[from] KeySetError),
}

/// One issuer's keys at their place.
#[derive(Debug)]
pub(super) enum Source {
    File(PathBuf),
    Http { client: Client, iss: String, keys: Option<Url> },
}

impl Source {
    pub(super) fn new(iss: &str, keys: &OidcKeys) -> Result<Self, LookError> {
        let keys = match keys {
            OidcKeys::File(file) => return Ok(Self::File(file.clone())),
            OidcKeys::Discovered => None,
            OidcKeys::At(url) => Some(url.clone()),
        };
        let client = Client::builder()
            .redirect(Policy::none())
            .timeout(PATIENCE)
            .user_agent(concat!("countersign/", env!("CARGO_PKG_VERSION")))
            .build()
            .map_err(LookError::Client)?;
        Ok(Self::Http { client, iss: iss.to_owned(), keys })
    }

    /// Whether looking asks another host.
    pub(super) fn is_remote(&self) -> bool {
        matches!(self, Self::Http { .. })
    }

    /// The keys as they are now.
    pub(super) fn look(&self) -> Result<KeySet, LookError> {
        let text = match self {
            Self::File(file) => {
                files::read(file, MAX_BYTES).map_err(|problem| LookError::File(problem.to_string()))?.text
            }
            Self::Http { client, iss, keys: None } => {
                let document = get(client, &discovery::document_of(iss))?;
                get(client, discovery::keys_of(iss, &document)?.as_str())?
            }
            Self::Http { client, keys: Some(url), .. } => get(client, url.as_str())?,
        };
        Ok(KeySet::from_jwks(&text, KeyUse::Any)?)
    }
}

fn get(client: &Client, url: &str) -> Result<String, LookError> {
    let failed = |problem: String| LookError::Http { url: url.to_owned(), problem };
    let answer = client.get(url).send().map_err(|error| failed(sentence(&error)))?;
    if answer.status() != reqwest::StatusCode::OK {
        return Err(failed(format!("the status is {}", answer.status())));
    }
    let mut bytes = Vec::new();
    let read = answer.take(MAX_BYTES as u64 + 1).read_to_end(&mut bytes);
    read.map_err(|error| failed(error.to_string()))?;
    if bytes.len() > MAX_BYTES {
        return Err(failed(format!("it is larger than {MAX_BYTES} bytes")));
    }
    String::from_utf8(bytes).map_err(|_| failed("it is not UTF-8".to_owned()))
}

/// The innermost cause: the outer ones say only that a request failed.
fn sentence(error: &reqwest::Error) -> String {
    let mut cause: &dyn std::error::Error = error;
    while let Some(inner) = cause.source() {
        cause = inner;
    }
    cause.to_string()
}
