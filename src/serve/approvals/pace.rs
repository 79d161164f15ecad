//! How many answers an approver gives in a minute. Limits: counted by this gate alone, in whole minutes; memory holds the
//! approvers of one minute.

use std::collections::HashMap;
use std::sync::{Mutex, PoisonError};

use crate::authorize::ids::UnixMillis;

const MINUTE_MS: i64 = 60_000;

#[derive(Debug)]
pub(super) struct Pace {
    limit: u32,
    minute: Mutex<Minute>,
}

#[derive(Debug, Default)]
struct Minute {
    number: i64,
    /// Answers by issuer and subject, both verified.
    given: HashMap<(String, String), u32>,
}

impl Pace {
    pub(super) fn new(limit: u32) -> Self {
        Self { limit, minute: Mutex::default() }
    }

    /// Counts one answer; where it is one too many, how many seconds are left of the minute.
    pub(super) fn count(&self, issuer: &str, subject: &str, now: UnixMillis) -> Result<(), u64> {
        let mut minute = self.minute.lock().unwrap_or_else(PoisonError::into_inner);
        let number = now.0.div_euclid(MINUTE_MS);
        if minute.number != number {
            *minute = Minute { number, given: HashMap::new() };
        }
        let given = minute.given.entry((issuer.to_owned(), subject.to_owned())).or_default();
        if *given >= self.limit {
            let left = MINUTE_MS - now.0.rem_euclid(MINUTE_MS);
            return Err(u64::try_from(left).unwrap_or_default().div_ceil(1000));
        }
        *given += 1;
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn each_approver_has_so_many_in_a_minute() {
        let pace = Pace::new(2);
        let count = |who: &str, at: i64| pace.count("iss", who, UnixMillis(at));
        assert_eq!((count("a", 60_000), count("a", 61_000), count("a", 61_500)), (Ok(()), Ok(()), Err(59)));
        assert_eq!(count("b", 61_500), Ok(()));
        assert_eq!((count("a", 119_999), count("a", 120_000)), (Err(1), Ok(())));
    }
}
