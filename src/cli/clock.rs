//! The time of this machine. Limits: read by commands; the gate's own decisions take theirs from the stream's clock.

use std::time::{SystemTime, UNIX_EPOCH};

use crate::authorize::ids::UnixMillis;

/// The present moment; `None` where the clock stands before 1970.
pub fn now() -> Option<UnixMillis> {
    let since = SystemTime::now().duration_since(UNIX_EPOCH).ok()?;
    i64::try_from(since.as_millis()).ok().map(UnixMillis)
}
