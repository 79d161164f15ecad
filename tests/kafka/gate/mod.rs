//! What the tests of the gate process share: a site (topics, keys, policies and configuration of its own), gates started
//! in it as a person starts them, senders whose records have a known outcome, and the ledger that holds every record
//! against what came out. Limits: it looks from outside only, at topics, HTTP, output and exit codes.

mod approvers;
mod audit;
mod dice;
mod followed;
mod ledger;
mod load;
mod process;
mod sender;
mod site;
mod situations;

pub use approvers::Approvers;
pub use audit::{audits, told};
pub use dice::Dice;
pub use followed::{Followed, signal_key, signal_keys, tell_signals};
pub use ledger::{Expect, Ledger, Sent, wire};
pub use load::Load;
pub use process::GateProcess;
pub use sender::{Sender, Source};
pub use site::{POLICIES, Plan, Site, topic};

use std::sync::{Mutex, MutexGuard, PoisonError};
use std::time::{Duration, Instant, SystemTime, UNIX_EPOCH};

/// The bound of every wait here.
pub const PATIENCE: Duration = Duration::from_secs(90);

/// Heavy tests run one at a time: two cores carry one load, and a test that waits for another's is no test of time.
pub fn alone() -> MutexGuard<'static, ()> {
    static HEAVY: Mutex<()> = Mutex::new(());
    // A failed test has said so itself.
    HEAVY.lock().unwrap_or_else(PoisonError::into_inner)
}

/// Waits until `found` finds something.
pub fn wait_for<T>(what: &str, found: impl FnMut() -> Option<T>) -> T {
    wait_or_tell(what, found, String::new)
}

/// Waits until `found` finds something; a wait in vain says what `told` knows.
pub fn wait_or_tell<T>(what: &str, mut found: impl FnMut() -> Option<T>, told: impl FnOnce() -> String) -> T {
    let deadline = Instant::now() + PATIENCE;
    loop {
        if let Some(found) = found() {
            return found;
        }
        if Instant::now() > deadline {
            panic!("waited in vain for {PATIENCE:?}: {what}\n{}", told());
        }
        std::thread::sleep(Duration::from_millis(20));
    }
}

/// Milliseconds since 1970.
pub fn now_ms() -> i64 {
    let since = SystemTime::now().duration_since(UNIX_EPOCH).expect("a clock after 1970");
    i64::try_from(since.as_millis()).expect("a moment that fits")
}
