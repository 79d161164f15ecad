//! AuthZEN over HTTP: `/access/v1/evaluation`, `/access/v1/evaluations` and the metadata of Authorization API 1.0. A caller
//! proves itself with the tokens of a record as HTTP headers (WIMSE WPT) or with the client certificate of its connection.
//! Limits: an answer leaves only after its audit records are committed; a proof does not cover the body, so beyond loopback
//! TLS must, here or in something before it.

mod incoming;
#[cfg(test)]
mod mtls_tests;
mod proofs;
mod refusal;
#[cfg(test)]
mod tests;

use std::net::SocketAddr;
use std::sync::{Arc, OnceLock};
use std::time::{Instant, SystemTime, UNIX_EPOCH};

use axum::Router;
use axum::extract::{ConnectInfo, Request, State};
use axum::http::HeaderName;
use axum::response::{IntoResponse, Response};
use axum::routing::{get, post};
use serde_json::json;
use uuid::Uuid;

use self::incoming::Incoming;
use self::proofs::Proofs;
use self::refusal::Refusal;
use super::tls::{Connection, Tls};
use super::{ServeError, Server, plain_headers};
use crate::authorize::access::{
    Asked, Caller, Evaluated, Replies, Reply, STEP_UP, Semantic, evaluate, refuse,
};
use crate::authorize::engine::{Moment, Snapshot};
use crate::authorize::ids::{DecisionId, UnixMillis};
use crate::authorize::route::Route;
use crate::authorize::x509::Peer;
use crate::stream::deciding::Gatework;
use crate::stream::desk::Desk;
use crate::stream::freshness::Instants;
use crate::telemetry::Telemetry;
use crate::telemetry::events::{AccessRefused, Evaluated as EvaluatedEvent};

const EVALUATION: &str = "/access/v1/evaluation";
const EVALUATIONS: &str = "/access/v1/evaluations";
const METADATA: &str = "/.well-known/authzen-configuration";
const REQUEST_ID: HeaderName = HeaderName::from_static("x-request-id");

/// What answers.
#[derive(Debug)]
struct Service {
    work: Gatework,
    route: Arc<Route>,
    desk: Desk,
    /// The base of what callers name as target; known once the port is.
    url: OnceLock<String>,
    proofs: Proofs,
    now: fn() -> UnixMillis,
}

/// What is asked for by a path.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Kind {
    One,
    Many,
}

/// The body of a good answer.
enum Answer {
    One(Reply),
    Many(Replies),
}

/// Serves access evaluations on `address` by the rules of `route`, for callers that know the gate as `url` (by default the
/// address itself), over TLS where there is one.
///
/// # Errors
/// [`ServeError`] where the address cannot be had or no thread can be made.
pub fn start(
    address: SocketAddr,
    url: Option<String>,
    tls: Option<Tls>,
    route: Arc<Route>,
    work: Gatework,
    desk: Desk,
) -> Result<Server, ServeError> {
    let proofs = Proofs::new(&route);
    serve(address, url, tls, Service { work, route, desk, url: OnceLock::new(), proofs, now })
}

fn serve(
    address: SocketAddr,
    url: Option<String>,
    tls: Option<Tls>,
    service: Service,
) -> Result<Server, ServeError> {
    let telemetry = service.work.telemetry.clone();
    let service = Arc::new(service);
    let scheme = if tls.is_some() { "https" } else { "http" };
    let router = router(Arc::clone(&service));
    let server = Server::serving("access evaluations", address, tls, router, &telemetry)?;
    // Set once, here.
    let _ = service.url.set(url.unwrap_or_else(|| format!("{scheme}://{}", server.address())));
    Ok(server)
}

fn router(service: Arc<Service>) -> Router {
    Router::new()
        .route(EVALUATION, post(|State(service), request| answer(service, request, Kind::One)))
        .route(EVALUATIONS, post(|State(service), request| answer(service, request, Kind::Many)))
        .route(METADATA, get(metadata))
        .with_state(service)
}

async fn metadata(State(service): State<Arc<Service>>) -> Response {
    let Some(url) = service.url.get() else {
        return Refusal::unavailable("the gate is starting").into_response();
    };
    let body = json!({
        "policy_decision_point": url,
        "access_evaluation_endpoint": format!("{url}{EVALUATION}"),
        "access_evaluations_endpoint": format!("{url}{EVALUATIONS}"),
        "supported_obligations": [STEP_UP],
    });
    (plain_headers(), axum::Json(body)).into_response()
}

async fn answer(service: Arc<Service>, request: Request, kind: Kind) -> Response {
    let began = Instant::now();
    let (parts, body) = request.into_parts();
    let request_id = match incoming::request_id(&parts.headers) {
        Ok(request_id) => request_id,
        Err(refusal) => return refused(&service.work.telemetry, &refusal),
    };
    let peer = parts.extensions.get::<ConnectInfo<Connection>>().and_then(|of| of.0.peer.as_deref());
    let incoming = Incoming { headers: &parts.headers, peer, request_id: request_id.clone(), body };
    let mut response = match service.answer(incoming, kind, began).await {
        Ok(Answer::One(reply)) => (plain_headers(), axum::Json(reply)).into_response(),
        Ok(Answer::Many(replies)) => (plain_headers(), axum::Json(replies)).into_response(),
        Err(refusal) => refused(&service.work.telemetry, &refusal),
    };
    if let Some(id) = request_id.and_then(|id| id.parse().ok()) {
        response.headers_mut().insert(REQUEST_ID, id);
    }
    response
}

fn refused(telemetry: &Telemetry, refusal: &Refusal) -> Response {
    AccessRefused { status: refusal.status.as_u16(), reason: refusal.reason }.emit(telemetry);
    refusal.into_response()
}

impl Service {
    async fn answer(&self, incoming: Incoming<'_>, kind: Kind, began: Instant) -> Result<Answer, Refusal> {
        let Incoming { headers, peer, request_id, body } = incoming;
        incoming::check_type(headers)?;
        let body = incoming::read(headers, body).await?;
        // Pinned until the commit: what is announced as taken in must not be overtaken by an older answer.
        let snapshot = self.work.snapshots.load_full();
        let (decided, list) = self.decide((headers, peer), request_id, &body, kind, &snapshot)?;
        self.current()?;
        // INVARIANT: nothing that was decided leaves before this.
        let decided = self.desk.commit(decided, list.unwrap_or(Semantic::ExecuteAll)).await?;
        drop(snapshot);
        for Evaluated { denied, .. } in &decided {
            let took = began.elapsed();
            EvaluatedEvent { route: &self.route.name, denied: *denied, took }.emit(&self.work.telemetry);
        }
        let mut replies: Vec<Reply> = decided.into_iter().map(|evaluated| evaluated.reply).collect();
        match (list, replies.pop()) {
            (None, Some(reply)) => Ok(Answer::One(reply)),
            (_, last) => {
                replies.extend(last);
                Ok(Answer::Many(Replies { evaluations: replies }))
            }
        }
    }

    /// Whether the view of the control topics is fresh enough to decide by.
    fn current(&self) -> Result<(), Refusal> {
        let checked = self.work.freshness.check(Instants::now());
        checked.map_err(|_| Refusal::unavailable("what the gate knows is too old to decide by"))
    }

    /// Verifies the caller and decides, of a list as far as is certain that it goes; nothing of it may be shown yet.
    fn decide(
        &self,
        (headers, peer): (&axum::http::HeaderMap, Option<&Peer>),
        request_id: Option<String>,
        body: &[u8],
        kind: Kind,
        snapshot: &Snapshot,
    ) -> Result<(Vec<Evaluated>, Option<Semantic>), Refusal> {
        let Some(url) = self.url.get() else { return Err(Refusal::unavailable("the gate is starting")) };
        let path = match kind {
            Kind::One => EVALUATION,
            Kind::Many => EVALUATIONS,
        };
        self.current()?;
        let now = (self.now)();
        if self.proofs.is_full(now) {
            return Err(Refusal::unavailable("too many proofs are remembered"));
        }
        let (engine, route) = (&*self.work.engine, &*self.route);
        let tokens = incoming::tokens(headers)?.over(peer);
        let once = |entry: &_| self.proofs.once(entry, now);
        let mut caller =
            Caller::verify(engine, route, (snapshot, now), &tokens, &format!("{url}{path}"), once)?;
        caller.request_id = request_id;
        caller.trace = incoming::trace(headers);
        let asked = match kind {
            Kind::One => Asked::read_one(body),
            Kind::Many => Asked::read_many(body),
        };
        let moment = || Moment { now, id: DecisionId(Uuid::now_v7()), snapshot, source_partitions: 1 };
        match asked.map_err(|malformed| Refusal::malformed(&format!("the body {malformed}")))? {
            Asked::One(one) => Ok((vec![evaluate(engine, route, &caller, &one, &moment())], None)),
            Asked::Many(items, semantic) => {
                let decided = items.iter().map(|item| match item {
                    Ok(one) => evaluate(engine, route, &caller, one, &moment()),
                    Err(malformed) => refuse(engine, route, &caller, malformed, &moment()),
                });
                Ok((until(decided, semantic), Some(semantic)))
            }
        }
    }
}

/// The decisions up to the one with which the list ends for certain: how one ends that waits for people, the desk says.
fn until(decided: impl Iterator<Item = Evaluated>, semantic: Semantic) -> Vec<Evaluated> {
    let mut looked_at = Vec::new();
    for evaluated in decided {
        let is_last = evaluated.waiting.is_none() && semantic.ends_with(evaluated.reply.decision);
        looked_at.push(evaluated);
        if is_last {
            break;
        }
    }
    looked_at
}

/// Before 1970 every token is from the future: a broken clock fails closed.
fn now() -> UnixMillis {
    let since = SystemTime::now().duration_since(UNIX_EPOCH).unwrap_or_default();
    UnixMillis(i64::try_from(since.as_millis()).unwrap_or(i64::MAX))
}
