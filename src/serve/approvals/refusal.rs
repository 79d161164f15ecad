//! What is answered where a request is not granted: a status, a code for programs, a sentence for people, and the
//! `WWW-Authenticate` of RFC 6750 and RFC 9470. Limits: nothing of the token and nothing of the body stands in it.

use axum::http::{HeaderValue, StatusCode, header};
use axum::response::{IntoResponse, Response};
use serde_json::json;

use crate::authorize::login::LoginError;
use crate::serve::plain_headers;

/// After how many seconds a caller may come again.
const RETRY_AFTER_S: u64 = 1;

/// A request that is not granted.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Refusal {
    pub(super) status: StatusCode,
    pub(super) error: &'static str,
    detail: String,
    /// Further parameters of `WWW-Authenticate`; `None` where no other credentials would help.
    authenticate: Option<String>,
    retry_after_s: Option<u64>,
}

impl Refusal {
    fn new(status: StatusCode, error: &'static str, detail: impl Into<String>) -> Self {
        Self { status, error, detail: detail.into(), authenticate: None, retry_after_s: None }
    }

    /// The request is not well formed.
    pub(super) fn malformed(detail: impl Into<String>) -> Self {
        Self::new(StatusCode::BAD_REQUEST, "invalid_request", detail)
    }

    /// The body is too large, of another type, or did not come.
    pub(super) fn body(status: StatusCode, detail: &str) -> Self {
        Self::new(status, "invalid_request", detail)
    }

    /// No credentials at all: RFC 6750, section 3.1 wants no error code then.
    pub(super) fn no_credentials() -> Self {
        Self {
            authenticate: Some(String::new()),
            ..Self::new(StatusCode::UNAUTHORIZED, "unauthorized", "a bearer token is needed")
        }
    }

    /// The login is not as strong or as recent as the challenge asks (RFC 9470, section 3).
    pub(super) fn stronger_login(acr_values: Option<&str>, max_age_s: Option<i64>) -> Self {
        let mut parameters = String::new();
        if let Some(values) = acr_values.filter(|values| is_quotable(values)) {
            parameters.push_str(&format!(", acr_values=\"{values}\""));
        }
        if let Some(age) = max_age_s {
            parameters.push_str(&format!(", max_age=\"{age}\""));
        }
        Self {
            authenticate: Some(parameters),
            ..Self::new(
                StatusCode::UNAUTHORIZED,
                "insufficient_user_authentication",
                "the challenge asks for a stronger or a more recent login",
            )
        }
    }

    /// There is no such challenge, or none that the caller may see.
    pub(super) fn unknown() -> Self {
        Self::new(
            StatusCode::NOT_FOUND,
            "challenge_unknown",
            "there is no such challenge that you could answer",
        )
    }

    /// Whoever is a party of the request does not answer for it.
    pub(super) fn own_request() -> Self {
        Self::new(StatusCode::FORBIDDEN, "may_not_answer", "nobody answers for a request of their own")
    }

    /// The challenge takes no answers, or is not the one that the caller saw.
    pub(super) fn conflict(error: &'static str, detail: &str) -> Self {
        Self::new(StatusCode::CONFLICT, error, detail)
    }

    /// The caller asks too much.
    pub(super) fn too_many(retry_after_s: u64) -> Self {
        Self {
            retry_after_s: Some(retry_after_s),
            ..Self::new(StatusCode::TOO_MANY_REQUESTS, "too_many_answers", "too many answers in one minute")
        }
    }

    /// The gate cannot answer for the moment.
    pub(super) fn unavailable(detail: &str) -> Self {
        Self {
            retry_after_s: Some(RETRY_AFTER_S),
            ..Self::new(StatusCode::SERVICE_UNAVAILABLE, "unavailable", detail)
        }
    }
}

impl From<LoginError> for Refusal {
    fn from(error: LoginError) -> Self {
        let detail = error.to_string();
        match error {
            LoginError::Scope(scope) => Self {
                authenticate: is_quotable(&scope).then(|| format!(", scope=\"{scope}\"")),
                ..Self::new(StatusCode::FORBIDDEN, "insufficient_scope", detail)
            },
            _ => Self {
                authenticate: Some(String::new()),
                ..Self::new(StatusCode::UNAUTHORIZED, "invalid_token", detail)
            },
        }
    }
}

/// What may stand in a quoted parameter as it is.
fn is_quotable(text: &str) -> bool {
    text.bytes().all(|b| (b' '..=b'~').contains(&b) && !matches!(b, b'"' | b'\\'))
}

impl IntoResponse for Refusal {
    fn into_response(self) -> Response {
        let body = json!({"error": self.error, "detail": self.detail});
        let mut response = (self.status, plain_headers(), axum::Json(body)).into_response();
        if let Some(parameters) = &self.authenticate {
            let value = match self.error {
                "unauthorized" => "Bearer".to_owned(),
                error => format!(
                    "Bearer error=\"{error}\", error_description=\"{}\"{parameters}",
                    spoken(&self.detail)
                ),
            };
            if let Ok(value) = HeaderValue::try_from(value) {
                response.headers_mut().insert(header::WWW_AUTHENTICATE, value);
            }
        }
        if let Some(seconds) = self.retry_after_s {
            response.headers_mut().insert(header::RETRY_AFTER, seconds.into());
        }
        response
    }
}

/// The sentence as `error_description` may hold it (RFC 6750, section 3): no quotes and no backslashes.
fn spoken(detail: &str) -> String {
    detail.chars().filter(|c| matches!(c, ' '..='~') && !matches!(c, '"' | '\\')).collect()
}
