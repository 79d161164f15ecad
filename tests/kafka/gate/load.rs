//! A steady load: a thread that sends records of every kind to a site until it is told to stop.

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::thread::JoinHandle;
use std::time::{Duration, Instant};

use super::dice::Dice;
use super::ledger::Ledger;
use super::sender::Sender;
use super::site::Site;

/// Between two portions.
const BEAT: Duration = Duration::from_millis(50);
/// Tokens are good for an hour.
const FRESH: Duration = Duration::from_secs(900);

/// The running thread.
pub struct Load {
    site: Arc<Site>,
    stop: Arc<AtomicBool>,
    thread: Option<JoinHandle<Ledger>>,
}

impl Load {
    /// Sends `each` records of any kind every 50 ms.
    pub fn start(site: &Arc<Site>, mut dice: Dice, each: usize) -> Self {
        let stop = Arc::new(AtomicBool::new(false));
        let thread = std::thread::spawn({
            let (stop, site) = (Arc::clone(&stop), Arc::clone(site));
            move || {
                let (mut sender, mut ledger) = (Sender::new(&site), Ledger::default());
                let mut made = Instant::now();
                while !stop.load(Ordering::Acquire) {
                    if made.elapsed() > FRESH {
                        (sender, made) = (Sender::new(&site), Instant::now());
                    }
                    let portion = (0..each).map(|_| sender.any(&mut dice)).collect();
                    ledger.send(&site, portion);
                    std::thread::sleep(BEAT);
                }
                ledger
            }
        });
        Self { site: Arc::clone(site), stop, thread: Some(thread) }
    }

    /// Ends the load; everything that was sent, and where it stands.
    pub fn stop(self) -> Ledger {
        let site = Arc::clone(&self.site);
        let mut ledger = self.halt();
        ledger.place_all(&site);
        ledger
    }

    /// The same where others have sent to the same topics: what the broker did not say the place of has none yet.
    pub fn halt(mut self) -> Ledger {
        self.stop.store(true, Ordering::Release);
        self.thread.take().expect("it runs").join().expect("the load did not fail")
    }
}

impl Drop for Load {
    fn drop(&mut self) {
        self.stop.store(true, Ordering::Release);
        if std::thread::panicking() {
            // The thread may outlive the test, and keeps the site.
            self.site.tell();
        }
    }
}
