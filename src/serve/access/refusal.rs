//! What is answered where there is no decision: a status and one sentence, as AuthZEN's section on errors has it. Limits: the
//! sentence holds no token, and nothing of the body.

use axum::http::{HeaderValue, StatusCode, header};
use axum::response::{IntoResponse, Response};

use crate::authorize::decision::{Denial, Reason};
use crate::serve::plain_headers;
use crate::stream::desk::DeskError;

/// After how many seconds a caller may come again.
const RETRY_AFTER: HeaderValue = HeaderValue::from_static("1");
/// RFC 9110 wants a scheme with every 401, and none is registered for WIMSE: the header that proves is named.
const CHALLENGE: HeaderValue = HeaderValue::from_static("Workload-Proof-Token");

/// A request without a decision.
#[derive(Debug)]
pub(super) struct Refusal {
    pub(super) status: StatusCode,
    /// The code of the contract, where it has one.
    pub(super) reason: Option<Reason>,
    message: String,
}

impl Refusal {
    pub(super) fn new(status: StatusCode, message: impl Into<String>) -> Self {
        Self { status, reason: None, message: message.into() }
    }

    pub(super) fn malformed(message: &str) -> Self {
        Self::new(StatusCode::BAD_REQUEST, message)
    }

    pub(super) fn unavailable(message: &str) -> Self {
        Self::new(StatusCode::SERVICE_UNAVAILABLE, message)
    }
}

/// Who does not prove itself is nobody, so nothing is decided and nothing stands in the audit.
impl From<Denial> for Refusal {
    fn from(denial: Denial) -> Self {
        let status = match denial.reason {
            Reason::ContextMalformed | Reason::ContextTooLarge => StatusCode::BAD_REQUEST,
            _ => StatusCode::UNAUTHORIZED,
        };
        Self { status, reason: Some(denial.reason), message: denial.to_string() }
    }
}

impl From<DeskError> for Refusal {
    fn from(error: DeskError) -> Self {
        let status = match error {
            DeskError::Busy | DeskError::Unavailable => StatusCode::SERVICE_UNAVAILABLE,
            DeskError::TooLarge => StatusCode::PAYLOAD_TOO_LARGE,
        };
        Self::new(status, error.to_string())
    }
}

impl IntoResponse for &Refusal {
    fn into_response(self) -> Response {
        let mut response = (self.status, plain_headers(), format!("{}\n", self.message)).into_response();
        let more = match self.status {
            StatusCode::SERVICE_UNAVAILABLE => Some((header::RETRY_AFTER, RETRY_AFTER)),
            StatusCode::UNAUTHORIZED => Some((header::WWW_AUTHENTICATE, CHALLENGE)),
            _ => None,
        };
        if let Some((name, value)) = more {
            response.headers_mut().insert(name, value);
        }
        response
    }
}
