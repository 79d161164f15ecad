//! Asks a gate in the middle of a job whether a step is still allowed (AuthZEN Authorization API 1.0), proven by the worker's
//! own key and WIT, or by its X.509-SVID: `Caller::certificate` in place of `Caller::new`.
//!
//! ```no_run
//! # fn main() -> Result<(), Box<dyn std::error::Error>> {
//! use countersign::authorize::jose::SigningKey;
//! use countersign::authorize::request::{Action, Resource};
//! use countersign::worker::access::{Caller, Client, Question};
//!
//! let key = SigningKey::from_jwk(&std::fs::read_to_string("worker.jwk")?)?;
//! let caller = Caller::new(key, std::fs::read_to_string("worker.wit")?.trim())?;
//! let client = Client::new(caller, "http://127.0.0.1:8081")?;
//! let question = Question::new(
//!     Action { name: "pay".into(), properties: None },
//!     Resource { kind: "Invoice".into(), id: "inv-7".into(), properties: None },
//! );
//! if client.ask(&question)?.decision {
//!     // Pay now: the answer is of this moment.
//! }
//! # Ok(()) }
//! ```
//!
//! [`Client`] blocks; in an async program call it where blocking is allowed. Another HTTP client can be used with
//! [`Caller::headers`], [`Question::body`] and [`Answer::read`], which do no IO. Limits: an answer is good for this moment and
//! is kept nowhere; whatever is no answer is an error, and no leave to go on.

mod caller;
mod gate;
mod question;

use std::io::Read as _;
use std::time::{Duration, SystemTime, UNIX_EPOCH};

use base64::Engine as _;
use base64::engine::general_purpose::URL_SAFE_NO_PAD;
use reqwest::blocking as http;
use reqwest::redirect::Policy;
use reqwest::{Certificate, Identity};

pub use self::caller::{Caller, CallerError};
pub use self::question::{Answer, Question, Unanswered};

use crate::authorize::ids::UnixMillis;

/// The path of one evaluation below a gate's address.
const EVALUATION: &str = "/access/v1/evaluation";
/// How long an answer may take: more than the gate itself waits for its log.
const PATIENCE: Duration = Duration::from_secs(10);
/// No answer to one question is larger.
const MAX_ANSWER_BYTES: u64 = 1024 * 1024;

/// Asks one gate. Cloning is cheap, and clones share their connections.
#[derive(Debug, Clone)]
pub struct Client {
    caller: Caller,
    target: String,
    roots: Option<Vec<Certificate>>,
    http: http::Client,
}

/// Why a client cannot be made.
#[derive(Debug, thiserror::Error)]
pub enum ClientError {
    /// Not `http://` or `https://` with a host and without a slash at its end.
    #[error("`{0}` is no address of a gate: write it as the gate's `[access] url`")]
    Address(String),
    /// A certificate proves nobody where no TLS is spoken.
    #[error("`{0}` is an address without TLS, and the caller proves itself by its certificate")]
    Plain(String),
    /// No certificates in PEM to know the gate by.
    #[error("the roots hold no certificate in PEM")]
    Roots,
    /// Key and certificate do not fit, or TLS or the client's thread cannot be set up.
    #[error("the HTTP client cannot be made: {0}")]
    Http(String),
}

impl Client {
    /// Asks the gate whose `[access] url` is `gate`, such as `https://gate.example.org`: a proof is good for that address
    /// alone. Redirects are not followed and no proxy of the environment is used, since the request carries credentials. Over
    /// TLS the gate is known by the roots of the system, unless [`Client::knowing`] names others.
    ///
    /// # Errors
    /// [`ClientError`]; the gate itself is not asked for anything yet.
    pub fn new(caller: Caller, gate: &str) -> Result<Self, ClientError> {
        Self::make(caller, gate, None)
    }

    /// The same, but the gate is known by these certificates in PEM and by no others: those of its authorities.
    ///
    /// # Errors
    /// As [`Client::new`], and where there are no certificates.
    pub fn knowing(caller: Caller, gate: &str, roots: &str) -> Result<Self, ClientError> {
        let roots = Certificate::from_pem_bundle(roots.as_bytes()).map_err(|_| ClientError::Roots)?;
        if roots.is_empty() {
            return Err(ClientError::Roots);
        }
        Self::make(caller, gate, Some(roots))
    }

    fn make(caller: Caller, gate: &str, roots: Option<Vec<Certificate>>) -> Result<Self, ClientError> {
        let is_http = gate.starts_with("http://") || gate.starts_with("https://");
        if !is_http || gate.ends_with('/') || gate.contains(['?', '#', '@']) {
            return Err(ClientError::Address(gate.to_owned()));
        }
        let target = format!("{gate}{EVALUATION}");
        let address = reqwest::Url::parse(&target).map_err(|_| ClientError::Address(gate.to_owned()))?;
        if caller.pem().is_some() && address.scheme() != "https" {
            return Err(ClientError::Plain(gate.to_owned()));
        }
        let http = connect(&caller, roots.as_deref())?;
        Ok(Self { caller, target, roots, http })
    }

    /// The same with a renewed identity: a WIT is short-lived, and so is a certificate. A certificate takes new connections.
    ///
    /// # Errors
    /// As [`Client::new`].
    pub fn caller(self, caller: Caller) -> Result<Self, ClientError> {
        if caller.pem().is_none() && self.caller.pem().is_none() {
            return Ok(Self { caller, ..self });
        }
        let gate = self.target.strip_suffix(EVALUATION).unwrap_or(&self.target);
        Self::make(caller, gate, self.roots.clone())
    }

    /// Asks now, with a proof of its own.
    ///
    /// # Errors
    /// [`Unanswered`]: then nothing may be done.
    pub fn ask(&self, question: &Question) -> Result<Answer, Unanswered> {
        let since = SystemTime::now().duration_since(UNIX_EPOCH).unwrap_or_default();
        let now = UnixMillis(i64::try_from(since.as_millis()).unwrap_or(i64::MAX));
        let mut random = [0_u8; 16];
        getrandom::fill(&mut random).map_err(|error| Unanswered::Unsigned(error.to_string()))?;
        let headers = self.caller.headers(question, &self.target, now, &URL_SAFE_NO_PAD.encode(random))?;
        let mut request = self.http.post(&self.target).body(question.body(self.caller.id()));
        for (name, value) in headers {
            request = request.header(name, value);
        }
        let response =
            request.send().map_err(|error| Unanswered::Unreachable(error.without_url().to_string()))?;
        let status = response.status().as_u16();
        let mut body = Vec::new();
        let read = response.take(MAX_ANSWER_BYTES).read_to_end(&mut body);
        read.map_err(|error| Unanswered::Unreachable(error.to_string()))?;
        Answer::read(status, &body)
    }
}

/// The connections of a caller.
fn connect(caller: &Caller, roots: Option<&[Certificate]>) -> Result<http::Client, ClientError> {
    let refused = |error: reqwest::Error| ClientError::Http(error.to_string());
    let mut builder = http::Client::builder().redirect(Policy::none()).no_proxy().timeout(PATIENCE);
    if let Some(roots) = roots {
        builder = builder.tls_certs_only(roots.iter().cloned());
    }
    if let Some(pem) = caller.pem() {
        builder = builder.identity(Identity::from_pem(pem).map_err(refused)?);
    }
    builder.build().map_err(refused)
}

#[cfg(test)]
mod tests;
