//! How somebody has logged in, as a token says it: `acr`, `amr` and `auth_time` (RFC 9068, section 2.2.1), and whether that is
//! as strong as is asked for (RFC 9470). Limits: form alone; who vouches for it is the reader's.

use super::Malformed;
use super::members::Members;
use crate::authorize::ids::UnixMillis;

/// How somebody has logged in. What a token does not say is absent.
#[derive(Debug, Clone, Default, PartialEq)]
pub struct Authentication {
    /// `acr`: how strong the login was.
    pub acr: Option<String>,
    /// `amr`: by which means.
    pub amr: Option<Vec<String>>,
    /// `auth_time`: when, in seconds.
    pub auth_time: Option<f64>,
}

impl Authentication {
    /// Reads the three of them; the rest is left alone.
    ///
    /// # Errors
    /// One of them is mistyped.
    pub(super) fn read(of: &Members) -> Result<Self, Malformed> {
        if !["acr", "amr", "auth_time"].into_iter().any(|name| of.map.contains_key(name)) {
            return Ok(Self::default());
        }
        let mut of = of.clone();
        let (acr, amr) = (of.optional_text("acr")?, of.optional_texts("amr")?);
        Ok(Self { acr, amr, auth_time: of.optional_date("auth_time")? })
    }

    /// Whether it is as strong as is asked: see [`meets`].
    pub fn meets(&self, acr_values: Option<&str>, max_age_s: Option<i64>, now: UnixMillis) -> bool {
        meets(self.acr.as_deref(), self.auth_time, acr_values, max_age_s, now)
    }
}

/// Whether a login is as strong as is asked: its `acr` one of `acr_values` (separated by spaces), and at most `max_age_s` old
/// (RFC 9470, section 3). What is not asked for is not looked at; what is asked for and not told by the token is not met.
pub fn meets(
    acr: Option<&str>,
    auth_time: Option<f64>,
    acr_values: Option<&str>,
    max_age_s: Option<i64>,
    now: UnixMillis,
) -> bool {
    let strong =
        acr_values.is_none_or(|values| acr.is_some_and(|acr| values.split(' ').any(|value| value == acr)));
    let fresh =
        max_age_s.is_none_or(|limit| auth_time.is_some_and(|at| now.as_seconds() - at <= limit as f64));
    strong && fresh
}
