//! Approvers answer challenges over HTTP: `/challenges`, `/challenges/{id}` and `/challenges/{id}/answer`, each with a bearer
//! token of a configured OIDC issuer (docs/approvers.md). Limits: an answer is written to the answers topic, signed by the
//! gate, and counts only once the lane or the desk that asked has judged it, like any other; who sees a challenge here
//! is a convenience, never what an answer rests on.

mod answering;
mod asked;
mod credentials;
mod pace;
mod refusal;

use std::net::SocketAddr;
use std::sync::Arc;
use std::time::Duration;

use arc_swap::ArcSwap;
use axum::Router;
use axum::extract::{Path, Request, State};
use axum::http::StatusCode;
use axum::http::request::Parts;
use axum::response::{IntoResponse, Response};
use axum::routing::{get, post};
use serde_json::{Value, json};
use tokio::sync::Semaphore;
use tokio::time::Instant;

use self::asked::Listing;
use self::pace::Pace;
use self::refusal::Refusal;
use super::tls::Tls;
use super::{ServeError, Server, plain_headers};
use crate::authorize::engine::{Engine, Snapshot};
use crate::authorize::ids::UnixMillis;
use crate::authorize::login::Login;
use crate::authorize::step_up::{Challenge, Seen};
use crate::control::answers::{AnswerLog, AnswerTopics};
use crate::control::challenges::Challenges;
use crate::control::oidc::OidcIssuers;
use crate::telemetry::Telemetry;
use crate::telemetry::events::ApprovalRefused;

/// Challenges that one listing looks at, at most: each is decoded and asked about.
const LOOKED: usize = 2000;
/// Requests that may wait for a change at the same time; one more is answered at once.
const WAITERS: usize = 256;

/// What the interface works with.
pub struct Approvals {
    /// The gate, which signs for the approvers that it has verified.
    pub engine: Arc<Engine>,
    /// Where answers are read.
    pub places: AnswerTopics,
    /// Policies and entities, as they are now.
    pub snapshots: Arc<ArcSwap<Snapshot>>,
    /// Who says who approvers are.
    pub issuers: OidcIssuers,
    /// The challenges as they stand.
    pub challenges: Challenges,
    /// Where answers are written.
    pub answers: Arc<dyn AnswerLog>,
    /// How many answers one approver may give in a minute.
    pub answers_a_minute: u32,
    /// The present moment.
    pub clock: fn() -> UnixMillis,
    /// Where events go.
    pub telemetry: Telemetry,
}

struct Service {
    approvals: Approvals,
    pace: Pace,
    waiters: Semaphore,
}

type Shared = Arc<Service>;
type Reply = Result<(StatusCode, Value), Refusal>;

/// Serves the interface on `address` (port 0: any free one), over TLS where there is one.
///
/// # Errors
/// [`ServeError`] where the address cannot be had or no thread can be made.
pub fn start(address: SocketAddr, tls: Option<Tls>, approvals: Approvals) -> Result<Server, ServeError> {
    let telemetry = approvals.telemetry.clone();
    let pace = Pace::new(approvals.answers_a_minute);
    let service = Arc::new(Service { approvals, pace, waiters: Semaphore::new(WAITERS) });
    Server::serving("approvals", address, tls, router(service), &telemetry)
}

fn router(service: Shared) -> Router {
    Router::new()
        .route("/challenges", get(list))
        .route("/challenges/{id}", get(show))
        .route("/challenges/{id}/answer", post(answer))
        .with_state(service)
}

async fn list(State(service): State<Shared>, request: Request) -> Response {
    let (parts, _) = request.into_parts();
    service.reply(&parts, service.list(&parts)).await
}

async fn show(State(service): State<Shared>, Path(id): Path<String>, request: Request) -> Response {
    let (parts, _) = request.into_parts();
    service.reply(&parts, service.show(&id, &parts)).await
}

async fn answer(State(service): State<Shared>, Path(id): Path<String>, request: Request) -> Response {
    let (parts, body) = request.into_parts();
    service.reply(&parts, service.answer(&id, &parts, body)).await
}

impl Service {
    /// Answers a request, with its id where it has one.
    async fn reply(&self, parts: &Parts, handled: impl Future<Output = Reply>) -> Response {
        let id = asked::request_id(&parts.headers);
        let (id, reply) = match id {
            Ok(id) => (id, handled.await),
            Err(refusal) => (None, Err(refusal)),
        };
        let mut response = match reply {
            Ok((status, body)) => (status, plain_headers(), axum::Json(body)).into_response(),
            Err(refusal) => {
                let (error, status) = (refusal.error, refusal.status.as_u16());
                ApprovalRefused { error, status }.emit(&self.approvals.telemetry);
                refusal.into_response()
            }
        };
        if let Some(id) = id {
            response.headers_mut().insert(asked::REQUEST_ID, id);
        }
        response
    }

    /// Who asks, and that there is something to ask about.
    async fn login(&self, parts: &Parts) -> Result<Login, Refusal> {
        let Approvals { issuers, challenges, clock, .. } = &self.approvals;
        let login = credentials::login(&parts.headers, issuers, *clock).await?;
        if !challenges.is_complete() {
            return Err(Refusal::unavailable("the challenges have not been read yet"));
        }
        Ok(login)
    }

    async fn list(&self, parts: &Parts) -> Reply {
        let login = self.login(parts).await?;
        let Listing { mut query, limit } = Listing::read(parts.uri.query())?;
        let (mut found, mut looked) = (Vec::new(), 0);
        let next = loop {
            let wanted = limit - found.len();
            let page = self.approvals.challenges.list(&query, wanted, LOOKED - looked);
            looked += page.looked;
            let visible = page
                .found
                .iter()
                .filter(|challenge| !self.is_left(challenge) && self.seen(&login, challenge) != Seen::Not);
            found.extend(visible.map(view));
            match page.next {
                Some(next) if found.len() < limit && looked < LOOKED => query.after = Some(next),
                next => break next,
            }
        };
        let mut body = json!({"challenges": found});
        if let (Some(next), Some(body)) = (next.as_ref().map(asked::write_place), body.as_object_mut()) {
            body.insert("next".to_owned(), Value::String(next));
        }
        Ok((StatusCode::OK, body))
    }

    async fn show(&self, id: &str, parts: &Parts) -> Reply {
        let login = self.login(parts).await?;
        let wait = asked::wait(parts.uri.query())?;
        let mut challenge = self.challenge(&login, id)?.0;
        if let Some(wait) = wait.filter(|_| challenge.status.is_open()) {
            let before = challenge.clone();
            if let Some(after) = self.wait_for(id, wait, |now| *now != before).await {
                challenge = after;
            }
        }
        Ok((StatusCode::OK, view(&challenge)))
    }

    /// Whether nobody has told the end of a challenge: the gate that had asked it over HTTP was killed.
    fn is_left(&self, challenge: &Challenge) -> bool {
        let is_over = challenge.hold_until < (self.approvals.clock)().0;
        is_over && challenge.status.is_open() && challenge.topic.is_empty()
    }

    /// How a login stands to a challenge by the policies of this moment.
    fn seen(&self, login: &Login, challenge: &Challenge) -> Seen {
        Seen::by(login, challenge, &self.approvals.snapshots.load(), (self.approvals.clock)())
    }

    /// A challenge that the caller may see, and as whom.
    fn challenge(&self, login: &Login, id: &str) -> Result<(Challenge, Seen), Refusal> {
        let challenge = self.approvals.challenges.get(id).ok_or_else(Refusal::unknown)?;
        match self.seen(login, &challenge) {
            Seen::Not => Err(Refusal::unknown()),
            seen => Ok((challenge, seen)),
        }
    }

    /// Waits until a challenge is as it should be; `None` where that takes longer, or too many wait already.
    async fn wait_for(
        &self,
        id: &str,
        wait: Duration,
        is_so: impl Fn(&Challenge) -> bool,
    ) -> Option<Challenge> {
        let _place = self.waiters.try_acquire().ok()?;
        let until = Instant::now() + wait;
        let mut changes = self.approvals.challenges.changes();
        loop {
            // Marked as seen before it is looked at: what changes in between is seen next.
            changes.borrow_and_update();
            if let Some(challenge) = self.approvals.challenges.get(id).filter(|challenge| is_so(challenge)) {
                return Some(challenge);
            }
            match tokio::time::timeout_at(until, changes.changed()).await {
                Ok(Ok(())) => {}
                _ => return None,
            }
        }
    }
}

/// A challenge as it is shown: the members of `schemas/challenge.avsc`.
fn view(challenge: &Challenge) -> Value {
    // A plain value of strings and numbers: it can always be written.
    serde_json::to_value(challenge).unwrap_or_default()
}

#[cfg(test)]
pub(crate) mod tests;
