//! What a request asks for: its query and its body, each bounded and read strictly. Limits: form alone.

use std::time::Duration;

use axum::body::Body;
use axum::http::{HeaderMap, HeaderName, StatusCode, header};
use base64::Engine as _;
use base64::engine::general_purpose::URL_SAFE_NO_PAD;
use serde_json::{Map, Value};

use super::refusal::Refusal;
use crate::authorize::json;
use crate::authorize::login::check_comment;
use crate::authorize::step_up::Status;
use crate::control::challenges::{Place, Query};

/// Challenges of one page, unless the caller asks for fewer or more.
const PAGE: usize = 50;
const MAX_PAGE: usize = 200;
/// The longest that a caller may wait.
const MAX_WAIT: Duration = Duration::from_secs(30);
/// Bytes of a body: a comment of 1,000 characters escaped, and the rest.
const MAX_BODY_BYTES: usize = 16 * 1024;
/// How long a body may take to come.
const BODY_WAIT: Duration = Duration::from_secs(10);
/// Bytes of a request's id.
const MAX_ID_BYTES: usize = 128;
pub(super) const REQUEST_ID: HeaderName = HeaderName::from_static("x-request-id");

/// The query of a listing.
#[derive(Debug, PartialEq, Eq)]
pub(super) struct Listing {
    pub(super) query: Query,
    pub(super) limit: usize,
}

/// The body of an answer.
#[derive(Debug, PartialEq, Eq)]
pub(super) struct Answer {
    /// `approve` or `refuse`.
    pub(super) decision: &'static str,
    pub(super) comment: Option<String>,
    /// What the caller saw, if it says.
    pub(super) digest: Option<String>,
}

impl Listing {
    pub(super) fn read(query: Option<&str>) -> Result<Self, Refusal> {
        let mut listing =
            Self { query: Query { status: Some(Status::Open), route: None, after: None }, limit: PAGE };
        for (name, value) in parameters(query, &["status", "route", "limit", "after"])? {
            match name.as_str() {
                "status" if value == "all" => listing.query.status = None,
                "status" => {
                    let status = Status::try_from(value).map_err(|_| {
                        Refusal::malformed("`status` is no status of a challenge and not `all`")
                    })?;
                    listing.query.status = Some(status);
                }
                "route" => listing.query.route = Some(value),
                "limit" => {
                    let limit = value.parse().ok().filter(|limit| (1..=MAX_PAGE).contains(limit));
                    listing.limit = limit.ok_or_else(|| {
                        Refusal::malformed(format!("`limit` must be an integer from 1 to {MAX_PAGE}"))
                    })?;
                }
                _ => {
                    let place = read_place(&value);
                    listing.query.after =
                        Some(place.ok_or_else(|| Refusal::malformed("`after` is no `next` of a listing"))?);
                }
            }
        }
        Ok(listing)
    }
}

/// `wait` of a query, at most 30 s; none is no wait.
pub(super) fn wait(query: Option<&str>) -> Result<Option<Duration>, Refusal> {
    let Some((_, text)) = parameters(query, &["wait"])?.pop() else { return Ok(None) };
    let wait = text.parse::<jiff::SignedDuration>().ok().and_then(|wait| Duration::try_from(wait).ok());
    match wait {
        Some(wait) if wait <= MAX_WAIT => Ok(Some(wait)),
        _ => Err(Refusal::malformed("`wait` must be a time of at most 30 s, such as `5s`")),
    }
}

/// The parameters of a query, each known and there once.
fn parameters(query: Option<&str>, known: &[&str]) -> Result<Vec<(String, String)>, Refusal> {
    let mut found: Vec<(String, String)> = Vec::new();
    for (name, value) in url::form_urlencoded::parse(query.unwrap_or_default().as_bytes()) {
        if !known.contains(&&*name) {
            return Err(Refusal::malformed(format!("the parameters are `{}`", known.join("`, `"))));
        }
        if found.iter().any(|(earlier, _)| *earlier == *name) {
            return Err(Refusal::malformed("a parameter is there twice"));
        }
        found.push((name.into_owned(), value.into_owned()));
    }
    Ok(found)
}

/// A place in the list as text, opaque to callers.
pub(super) fn write_place(place: &Place) -> String {
    URL_SAFE_NO_PAD.encode(format!("{}/{}", place.asked_at, place.id))
}

fn read_place(text: &str) -> Option<Place> {
    let text = String::from_utf8(URL_SAFE_NO_PAD.decode(text).ok()?).ok()?;
    let (asked_at, id) = text.split_once('/')?;
    Some(Place { asked_at: asked_at.parse().ok()?, id: id.into() })
}

/// The answer in a body of JSON.
pub(super) async fn answer(headers: &HeaderMap, body: Body) -> Result<Answer, Refusal> {
    let mut types = headers.get_all(header::CONTENT_TYPE).iter();
    let only = types.next().filter(|_| types.next().is_none()).and_then(|value| value.to_str().ok());
    let essence = only.map(|value| value.split(';').next().unwrap_or_default().trim());
    if !essence.is_some_and(|essence| essence.eq_ignore_ascii_case("application/json")) {
        return Err(Refusal::body(StatusCode::UNSUPPORTED_MEDIA_TYPE, "the body must be `application/json`"));
    }
    let body = match tokio::time::timeout(BODY_WAIT, axum::body::to_bytes(body, MAX_BODY_BYTES)).await {
        Ok(Ok(body)) => body,
        // Whatever else breaks a body also breaks the connection, so nobody reads this answer then.
        Ok(Err(_)) => return Err(Refusal::body(StatusCode::PAYLOAD_TOO_LARGE, "the body is too large")),
        Err(_) => return Err(Refusal::body(StatusCode::REQUEST_TIMEOUT, "the body did not come in time")),
    };
    Answer::read(&body)
}

impl Answer {
    fn read(body: &[u8]) -> Result<Self, Refusal> {
        let mut members =
            json::parse_object(body).map_err(|error| Refusal::malformed(format!("the body {error}")))?;
        let decision = match text(&mut members, "decision")?.as_deref() {
            Some("approve") => "approve",
            Some("refuse") => "refuse",
            _ => return Err(Refusal::malformed("`decision` must be `approve` or `refuse`")),
        };
        let comment = text(&mut members, "comment")?.filter(|comment| !comment.is_empty());
        if let Some(comment) = &comment {
            check_comment(comment).map_err(|problem| Refusal::malformed(problem.to_string()))?;
        }
        let digest = text(&mut members, "digest")?;
        if !members.is_empty() {
            return Err(Refusal::malformed("the members are `decision`, `comment` and `digest`"));
        }
        Ok(Self { decision, comment, digest })
    }
}

fn text(members: &mut Map<String, Value>, name: &str) -> Result<Option<String>, Refusal> {
    match members.remove(name) {
        None => Ok(None),
        Some(Value::String(text)) => Ok(Some(text)),
        Some(_) => Err(Refusal::malformed(format!("`{name}` must be a string"))),
    }
}

/// `X-Request-ID`: one, of at most 128 printable ASCII characters, since it is echoed.
pub(super) fn request_id(headers: &HeaderMap) -> Result<Option<axum::http::HeaderValue>, Refusal> {
    let mut found = headers.get_all(REQUEST_ID).iter();
    let Some(id) = found.next() else { return Ok(None) };
    let fits =
        (1..=MAX_ID_BYTES).contains(&id.len()) && id.as_bytes().iter().all(|b| (b' '..=b'~').contains(b));
    if fits && found.next().is_none() {
        Ok(Some(id.clone()))
    } else {
        Err(Refusal::malformed("`X-Request-ID` is not one text of 1 to 128 printable ASCII characters"))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_listing_shows_open_challenges_by_fifty_unless_it_is_told_otherwise() {
        let open = Query { status: Some(Status::Open), ..Query::default() };
        assert_eq!(Listing::read(None).unwrap(), Listing { query: open, limit: 50 });
        let place = Place { asked_at: 7, id: "a.b:1:x/y".into() };
        let text = format!("status=all&limit=200&route=pay%20ments&after={}", write_place(&place));
        let all = Query { status: None, route: Some("pay ments".into()), after: Some(place) };
        assert_eq!(Listing::read(Some(&text)).unwrap(), Listing { query: all, limit: 200 });
        let refused = Query { status: Some(Status::Refused), ..Query::default() };
        assert_eq!(Listing::read(Some("status=refused")).unwrap().query, refused);
        for bad in [
            "limit=0",
            "limit=201",
            "limit=x",
            "status=",
            "status=OPEN",
            "after=%",
            "after=AA",
            "x=1",
            "limit=1&limit=1",
        ] {
            assert!(Listing::read(Some(bad)).is_err(), "{bad}");
        }
    }

    #[test]
    fn a_wait_is_a_time_and_bounded() {
        assert_eq!(wait(None).unwrap(), None);
        assert_eq!(wait(Some("wait=5s")).unwrap(), Some(Duration::from_secs(5)));
        assert_eq!(wait(Some("wait=30s")).unwrap(), Some(Duration::from_secs(30)));
        for bad in ["wait=31s", "wait=-1s", "wait=", "wait=1", "wait=999999999999h", "x=1"] {
            assert!(wait(Some(bad)).is_err(), "{bad}");
        }
    }

    #[test]
    fn an_answer_is_strict_json_of_three_members() {
        let long = format!(r#"{{"decision":"refuse","comment":"{}"}}"#, "ä".repeat(1000));
        assert_eq!(Answer::read(long.as_bytes()).unwrap().comment.unwrap().chars().count(), 1000);
        let answer = Answer::read(br#"{"decision":"approve","comment":"","digest":"AA"}"#).unwrap();
        assert_eq!(answer, Answer { decision: "approve", comment: None, digest: Some("AA".into()) });
        let too_long = long.replace("\"}", "ä\"}");
        for bad in [
            "",
            "[]",
            "{}",
            r#"{"decision":"yes"}"#,
            r#"{"decision":true}"#,
            r#"{"decision":"approve","decision":"refuse"}"#,
            r#"{"decision":"approve","comment":1}"#,
            r#"{"decision":"approve","comment":"a\nb"}"#,
            r#"{"decision":"approve","comment":null}"#,
            r#"{"decision":"approve","as":"carol"}"#,
            &too_long,
        ] {
            assert!(Answer::read(bad.as_bytes()).is_err(), "{bad}");
        }
    }
}
