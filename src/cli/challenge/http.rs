//! The gate's interface for approvers (docs/approvers.md), asked with a bearer token. Limits: the token goes to that one
//! address, over TLS or on this machine alone unless a person says otherwise; no redirect is followed, no proxy of the
//! environment is used, and the token stands in no message.

use std::io::Read as _;
use std::time::Duration;

use reqwest::blocking as http;
use reqwest::header::{AUTHORIZATION, CONTENT_TYPE, HeaderMap, HeaderValue, RETRY_AFTER, WWW_AUTHENTICATE};
use reqwest::redirect::Policy;
use reqwest::{StatusCode, Url};
use serde::de::DeserializeOwned;
use serde::{Deserialize, Serialize};
use serde_json::Value;
use zeroize::Zeroizing;

use crate::authorize::json;
use crate::authorize::step_up::{Challenge, ChallengeId};
use crate::cli::output::plain;

/// How long a reply may take beyond what the gate is asked to wait: it waits for its brokers for less.
const PATIENCE: Duration = Duration::from_secs(15);
/// The longest that a gate waits in one request.
const MAX_WAIT: Duration = Duration::from_secs(30);
/// No reply is larger: a page of challenges that are as large as challenges can be.
const MAX_REPLY_BYTES: u64 = 64 * 1024 * 1024;
/// Challenges of one page: as many as a gate gives.
pub(super) const PAGE: usize = 200;
/// Characters of a reply that is none of the interface's, as they are shown.
const SHOWN: usize = 200;

/// Asks one gate, as one approver.
pub(super) struct Client {
    base: Url,
    authorization: HeaderValue,
    http: http::Client,
}

/// Which challenges are listed.
#[derive(Debug, Clone, Copy)]
pub(super) struct Query<'q> {
    /// A status, or `all`.
    pub(super) status: &'q str,
    /// One route alone.
    pub(super) route: Option<&'q str>,
    /// How many a page may hold, 1 to [`PAGE`].
    pub(super) limit: usize,
}

/// What an approver says.
#[derive(Debug, Serialize)]
pub(super) struct Answer<'a> {
    /// `approve` or `refuse`.
    pub(super) decision: &'static str,
    /// A word to whoever reads the history.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub(super) comment: Option<&'a str>,
    /// The digest of the challenge that the approver saw.
    pub(super) digest: &'a str,
}

/// An answer that stands in Kafka.
#[derive(Debug, Deserialize)]
pub(super) struct Answered {
    /// The answer's id.
    pub(super) answer: String,
    /// Where it stands.
    pub(super) written: Written,
    /// The challenge, once it has been counted or the challenge has ended.
    pub(super) state: Option<Box<Challenge>>,
}

/// Where an answer stands.
#[derive(Debug, Deserialize)]
pub(super) struct Written {
    topic: String,
    partition: i32,
    offset: i64,
}

impl std::fmt::Display for Written {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "{}/{}/{}", plain(&self.topic), self.partition, self.offset)
    }
}

/// Why a gate cannot be asked, or does not do what it is asked for.
#[derive(Debug, thiserror::Error, miette::Diagnostic)]
pub enum InterfaceError {
    /// Not `http://` or `https://` with a host, or with more than a path.
    #[error("`{0}` is no address of an interface for approvers")]
    #[diagnostic(help("write it as `https://approvals.example.com` or `http://127.0.0.1:8082`"))]
    Address(String),
    /// The token would be readable on the way.
    #[error("the token would go to `{0}` over plain HTTP, where others can read it")]
    #[diagnostic(help("use `https://`; where the way there is protected otherwise, give `--insecure-http`"))]
    Plain(String),
    /// The file holds nothing that could be a token.
    #[error("the file holds no bearer token")]
    #[diagnostic(help("it should hold the access token alone, as the OIDC issuer gave it"))]
    Token,
    /// TLS or the client's thread cannot be set up.
    #[error("the HTTP client cannot be made: {0}")]
    Client(String),
    /// Nobody answers there.
    #[error("no gate answers at `{address}`: {problem}")]
    #[diagnostic(help("`[approvals] listen` of the gate says where it serves approvers"))]
    Unreachable {
        /// Where.
        address: String,
        /// What is in the way.
        problem: String,
    },
    /// What came back is not of this interface.
    #[error("the reply is none of an interface for approvers")]
    Unreadable,
    /// The gate says no.
    #[error(transparent)]
    #[diagnostic(transparent)]
    Refused(#[from] Box<Refused>),
}

/// A request that the gate did not grant.
#[derive(Debug, thiserror::Error, miette::Diagnostic)]
#[error("the gate refused the request with {status}{code}: {detail}", code = code(error))]
pub struct Refused {
    /// The HTTP status.
    pub status: u16,
    /// The interface's code; empty where the reply had none.
    pub error: String,
    /// Its sentence.
    pub detail: String,
    /// Which logins would do: values of `acr`, separated by spaces (RFC 9470).
    pub acr_values: Option<String>,
    /// How old a login may be, in seconds (RFC 9470).
    pub max_age_s: Option<u64>,
    /// After how many seconds to come again.
    pub retry_after_s: Option<u64>,
    /// What a person can do.
    #[help]
    pub advice: Option<String>,
}

impl Refused {
    /// Whether this is the answer about that one challenge, rather than that nothing can be asked.
    pub(super) fn is_about_the_challenge(&self) -> bool {
        matches!(self.status, 404 | 409) && !self.error.is_empty()
            || matches!(self.error.as_str(), "may_not_answer" | "insufficient_user_authentication")
    }
}

impl Client {
    /// Asks the interface at `address`, such as `https://approvals.example.com`, with the token in `token`. `insecure` lets
    /// the token go over plain HTTP to another machine.
    ///
    /// # Errors
    /// [`InterfaceError`]; nobody is asked for anything yet.
    pub(super) fn new(
        address: &str,
        token: &Zeroizing<String>,
        insecure: bool,
    ) -> Result<Self, InterfaceError> {
        let wrong = || InterfaceError::Address(plain(address));
        let base = Url::parse(address).map_err(|_| wrong())?;
        let has_more = base.query().is_some() || base.fragment().is_some();
        let has_user = !base.username().is_empty() || base.password().is_some();
        if !matches!(base.scheme(), "http" | "https") || has_more || has_user {
            return Err(wrong());
        }
        let host = base.host_str().ok_or_else(wrong)?;
        if base.scheme() == "http" && !is_loopback(host) && !insecure {
            return Err(InterfaceError::Plain(host.to_owned()));
        }
        // RFC 6750, section 2.1: no token has anything but visible ASCII characters.
        if token.is_empty() || !token.bytes().all(|b| b.is_ascii_graphic()) {
            return Err(InterfaceError::Token);
        }
        let header = Zeroizing::new(format!("Bearer {}", token.as_str()));
        let mut authorization = HeaderValue::from_str(&header).map_err(|_| InterfaceError::Token)?;
        authorization.set_sensitive(true);
        let http = http::Client::builder().redirect(Policy::none()).no_proxy().build();
        let http = http.map_err(|error| InterfaceError::Client(error.to_string()))?;
        Ok(Self { base, authorization, http })
    }

    /// Lists challenges, oldest first, and hands each page to `take`.
    ///
    /// # Errors
    /// [`InterfaceError`], or what `take` says.
    pub(super) fn list<E: From<InterfaceError>>(
        &self,
        query: Query<'_>,
        mut take: impl FnMut(Vec<Challenge>) -> Result<(), E>,
    ) -> Result<(), E> {
        #[derive(Deserialize)]
        struct Page {
            challenges: Vec<Challenge>,
            next: Option<String>,
        }
        let mut after: Option<String> = None;
        loop {
            let mut url = self.url(&["challenges"])?;
            let mut pairs = url.query_pairs_mut();
            pairs.append_pair("status", query.status).append_pair("limit", &query.limit.to_string());
            pairs.extend_pairs(query.route.map(|route| ("route", route)));
            pairs.extend_pairs(after.as_ref().map(|after| ("after", after)));
            drop(pairs);
            let page: Page = self.send(self.http.get(url), Duration::ZERO)?;
            take(page.challenges)?;
            // One that does not move on would be asked for ever.
            match page.next {
                Some(next) if after.as_ref() == Some(&next) => return Err(InterfaceError::Unreadable.into()),
                Some(next) => after = Some(next),
                None => return Ok(()),
            }
        }
    }

    /// A challenge; with `wait` an open one once it has changed, or that time is over.
    ///
    /// # Errors
    /// [`InterfaceError`].
    pub(super) fn show(
        &self,
        id: &ChallengeId,
        wait: Option<Duration>,
    ) -> Result<Box<Challenge>, InterfaceError> {
        let id = id.to_string();
        let (url, wait) = self.waiting(&["challenges", &id], wait)?;
        let challenge: Box<Challenge> = self.send(self.http.get(url), wait)?;
        if challenge.id == id { Ok(challenge) } else { Err(InterfaceError::Unreadable) }
    }

    /// Answers a challenge; with `wait` the reply says what came of it, if that takes no longer.
    ///
    /// # Errors
    /// [`InterfaceError`].
    pub(super) fn answer(
        &self,
        id: &ChallengeId,
        answer: &Answer<'_>,
        wait: Option<Duration>,
    ) -> Result<Answered, InterfaceError> {
        let (url, wait) = self.waiting(&["challenges", &id.to_string(), "answer"], wait)?;
        // Texts alone: they can always be written.
        let body = serde_json::to_vec(answer).unwrap_or_default();
        let request = self.http.post(url).header(CONTENT_TYPE, "application/json").body(body);
        self.send(request, wait)
    }

    /// An address below the base, each part escaped.
    fn url(&self, parts: &[&str]) -> Result<Url, InterfaceError> {
        let mut url = self.base.clone();
        // Cannot fail: the scheme is that of an address with a path.
        let mut path = url.path_segments_mut().map_err(|()| InterfaceError::Unreadable)?;
        path.pop_if_empty().extend(parts);
        drop(path);
        Ok(url)
    }

    fn waiting(&self, parts: &[&str], wait: Option<Duration>) -> Result<(Url, Duration), InterfaceError> {
        let mut url = self.url(parts)?;
        let wait = wait.map(|wait| wait.min(MAX_WAIT));
        if let Some(wait) = wait {
            url.query_pairs_mut().append_pair("wait", &format!("{}ms", wait.as_millis()));
        }
        Ok((url, wait.unwrap_or_default()))
    }

    fn send<T: DeserializeOwned>(
        &self,
        request: http::RequestBuilder,
        wait: Duration,
    ) -> Result<T, InterfaceError> {
        let request = request.timeout(PATIENCE + wait).header(AUTHORIZATION, self.authorization.clone());
        let unreachable = |problem: String| InterfaceError::Unreachable {
            address: self.base.to_string(),
            problem: plain(&problem),
        };
        let response = request.send().map_err(|error| unreachable(sentence(&error)))?;
        let (status, headers) = (response.status(), response.headers().clone());
        let mut body = Vec::new();
        let read = response.take(MAX_REPLY_BYTES).read_to_end(&mut body);
        read.map_err(|error| unreachable(error.to_string()))?;
        if !matches!(status, StatusCode::OK | StatusCode::ACCEPTED) {
            return Err(Box::new(refused(status, &headers, &body)).into());
        }
        let object = json::parse_object(&body).map_err(|_| InterfaceError::Unreadable)?;
        serde_json::from_value(Value::Object(object)).map_err(|_| InterfaceError::Unreadable)
    }
}

/// The causes of a failed request, without its address, which the message has already.
fn sentence(error: &reqwest::Error) -> String {
    let mut causes = Vec::new();
    let mut next = std::error::Error::source(error);
    while let Some(cause) = next {
        causes.push(cause.to_string());
        next = cause.source();
    }
    causes
        .pop()
        .unwrap_or_else(|| if error.is_timeout() { "it takes too long" } else { "it failed" }.to_owned())
}

/// This machine, as an address or by the name that every machine has for itself (RFC 6761).
fn is_loopback(host: &str) -> bool {
    let address = host.trim_start_matches('[').trim_end_matches(']').parse::<std::net::IpAddr>();
    address.map_or_else(|_| host == "localhost", |address| address.is_loopback())
}

fn code(error: &str) -> String {
    if error.is_empty() { String::new() } else { format!(" `{error}`") }
}

fn refused(status: StatusCode, headers: &HeaderMap, body: &[u8]) -> Refused {
    let header = |name| headers.get(name).and_then(|value: &HeaderValue| value.to_str().ok());
    let text = |name: &str| {
        let body = json::parse_object(body).ok()?;
        Some(plain(body.get(name)?.as_str()?))
    };
    let shown =
        || plain(String::from_utf8_lossy(body).trim().chars().take(SHOWN).collect::<String>().as_str());
    let authenticate = header(WWW_AUTHENTICATE).unwrap_or_default();
    let mut refused = Refused {
        status: status.as_u16(),
        error: text("error").unwrap_or_default(),
        detail: text("detail").unwrap_or_else(shown),
        acr_values: parameter(authenticate, "acr_values").map(plain),
        max_age_s: parameter(authenticate, "max_age").and_then(|age| age.parse().ok()),
        retry_after_s: header(RETRY_AFTER).and_then(|seconds| seconds.trim().parse().ok()),
        advice: None,
    };
    refused.advice = advice(&refused);
    refused
}

/// A quoted parameter of `WWW-Authenticate` (RFC 9110, section 11.2), as gates write them: without escapes.
fn parameter<'h>(header: &'h str, name: &str) -> Option<&'h str> {
    let mut rest = header.split_once(' ')?.1;
    loop {
        let (key, after) = rest.split_once("=\"")?;
        let (value, after) = after.split_once('"')?;
        if key.trim_start_matches([',', ' ']) == name {
            return Some(value);
        }
        rest = after;
    }
}

fn advice(refused: &Refused) -> Option<String> {
    let again = || match refused.retry_after_s {
        Some(seconds) => format!("try again in {seconds} s"),
        None => "try again later".to_owned(),
    };
    let advice = match (refused.status, refused.error.as_str()) {
        (401, "insufficient_user_authentication") => {
            let login =
                refused.acr_values.as_ref().map(|values| format!("with one of the `acr` values `{values}`"));
            let age = refused.max_age_s.map(|age| format!("at most {age} s before the answer"));
            let how: Vec<String> = [login, age].into_iter().flatten().collect();
            format!(
                "log in again {}, and give the new access token; to refuse needs no other login",
                how.join(", ")
            )
        }
        (401, _) => {
            "give a fresh access token of an issuer that the gate names under `[approvals.oidc]`".to_owned()
        }
        (403, "insufficient_scope") => "ask the issuer for a token with that scope".to_owned(),
        (403, _) => "somebody else has to answer".to_owned(),
        (404, "") => "the address is that of `[approvals] listen`, without `/challenges`".to_owned(),
        (404, _) => {
            "the gate shows those alone that its policies let this login answer; `list` shows them".to_owned()
        }
        (409, "digest_mismatch") => "look at it again with `show`".to_owned(),
        (409, "not_answerable") => "ask a gate that has the route".to_owned(),
        (429, _) => again(),
        (503, _) => {
            format!("look at the challenge first, where an answer was sent: it may count; then {}", again())
        }
        _ => return None,
    };
    Some(advice)
}

#[cfg(test)]
mod tests;
