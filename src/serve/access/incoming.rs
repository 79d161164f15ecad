//! What comes in: request id, type, body and tokens of an HTTP request, each bounded before it is looked at. Limits: nothing
//! is believed yet.

use std::time::Duration;

use axum::body::Body;
use axum::http::{HeaderMap, StatusCode, header};

use super::REQUEST_ID;
use super::refusal::Refusal;
use crate::authorize::context::Tokens;
use crate::authorize::jose::TokenKind;
use crate::authorize::limits::{MAX_BODY_BYTES, MAX_REQUEST_ID_BYTES};
use crate::authorize::traceparent::TraceParent;
use crate::authorize::x509::Peer;

/// How long a body may take to come.
const BODY_WAIT: Duration = Duration::from_secs(10);

/// A request whose id is known.
pub(super) struct Incoming<'r> {
    pub(super) headers: &'r HeaderMap,
    /// Whom the connection has proven.
    pub(super) peer: Option<&'r Peer>,
    pub(super) request_id: Option<String>,
    pub(super) body: Body,
}

/// `X-Request-ID`: one, of at most 128 printable ASCII characters, since it is echoed and written down.
pub(super) fn request_id(headers: &HeaderMap) -> Result<Option<String>, Refusal> {
    let mut found = headers.get_all(REQUEST_ID).iter();
    let Some(id) = found.next() else { return Ok(None) };
    match id.to_str() {
        Ok(text)
            if found.next().is_none()
                && (1..=MAX_REQUEST_ID_BYTES).contains(&text.len())
                && text.bytes().all(|b| (b' '..=b'~').contains(&b)) =>
        {
            Ok(Some(text.to_owned()))
        }
        _ => Err(Refusal::malformed("`X-Request-ID` is not one text of 1 to 128 printable ASCII characters")),
    }
}

/// The body must say that it is JSON.
pub(super) fn check_type(headers: &HeaderMap) -> Result<(), Refusal> {
    let mut types = headers.get_all(header::CONTENT_TYPE).iter();
    let only = types.next().filter(|_| types.next().is_none()).and_then(|value| value.to_str().ok());
    let essence = only.map(|value| value.split(';').next().unwrap_or_default().trim());
    if essence.is_some_and(|essence| essence.eq_ignore_ascii_case("application/json")) {
        return Ok(());
    }
    Err(Refusal::new(StatusCode::UNSUPPORTED_MEDIA_TYPE, "the body must be `application/json`"))
}

/// The body, up to its bound.
pub(super) async fn read(headers: &HeaderMap, body: Body) -> Result<bytes::Bytes, Refusal> {
    let too_large = || {
        let message = format!("the body is larger than {MAX_BODY_BYTES} bytes");
        Refusal::new(StatusCode::PAYLOAD_TOO_LARGE, message)
    };
    let said = headers.get(header::CONTENT_LENGTH).and_then(|value| value.to_str().ok()?.parse::<u64>().ok());
    if said.is_some_and(|said| said > MAX_BODY_BYTES as u64) {
        return Err(too_large());
    }
    match tokio::time::timeout(BODY_WAIT, axum::body::to_bytes(body, MAX_BODY_BYTES)).await {
        Ok(Ok(body)) => Ok(body),
        // Whatever else breaks a body also breaks the connection, so nobody reads this answer then.
        Ok(Err(_)) => Err(too_large()),
        Err(_) => Err(Refusal::new(StatusCode::REQUEST_TIMEOUT, "the body did not come in time")),
    }
}

/// The tokens, under their headers' names in any case.
pub(super) fn tokens(headers: &HeaderMap) -> Result<Tokens<'_>, Refusal> {
    let mut tokens = Tokens::default();
    for kind in TokenKind::ALL {
        for value in headers.get_all(kind.header_name()) {
            tokens.add(kind, value.as_bytes())?;
        }
    }
    Ok(tokens)
}

/// A well-formed `traceparent` that is there once.
pub(super) fn trace(headers: &HeaderMap) -> Option<TraceParent> {
    let mut found = headers.get_all("traceparent").iter();
    let only = found.next().filter(|_| found.next().is_none())?;
    TraceParent::parse(only.as_bytes())
}
