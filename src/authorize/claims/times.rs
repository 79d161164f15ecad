//! The times of a token against a moment, exact to the millisecond of Kafka (contract, section 3). Limits: which moment,
//! and what follows, is the caller's.

use super::super::ids::UnixMillis;

/// The moments of a token, NumericDates in seconds within ±2^53 (RFC 7519, section 2).
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct Times {
    /// `exp`.
    pub expires_at: f64,
    /// `iat`.
    pub issued_at: Option<f64>,
    /// `nbf`.
    pub not_before: Option<f64>,
}

/// How a moment lies to a token's times.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Judged {
    /// Inside.
    Valid,
    /// After `exp` + skew.
    Expired,
    /// Before `iat` or `nbf` - skew.
    NotYetValid,
}

impl Times {
    /// Judges a moment with that tolerance; bounds are inclusive, expiry is looked at first (contract, section 3).
    pub fn judge(&self, at: UnixMillis, skew_s: u32) -> Judged {
        if self.expired(at, skew_s) {
            return Judged::Expired;
        }
        let latest = micros_of(at) + i128::from(skew_s) * 1_000_000;
        let begins = [self.issued_at, self.not_before];
        if begins.into_iter().flatten().any(|begin| micros(begin) > latest) {
            return Judged::NotYetValid;
        }
        Judged::Valid
    }

    /// Whether a moment is after `exp` + skew.
    pub fn expired(&self, at: UnixMillis, skew_s: u32) -> bool {
        micros_of(at) > micros(self.expires_at) + i128::from(skew_s) * 1_000_000
    }
}

/// A NumericDate in whole microseconds: as fine as a double is today, and exact where Kafka's milliseconds meet it.
pub(super) fn micros(seconds: f64) -> i128 {
    let whole = seconds.trunc();
    whole as i128 * 1_000_000 + ((seconds - whole) * 1e6).round() as i128
}

fn micros_of(at: UnixMillis) -> i128 {
    i128::from(at.0) * 1000
}
