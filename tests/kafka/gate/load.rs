//! A steady load: a thread that sends records of every kind to a site until it is told to stop.

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::thread::JoinHandle;
use std::time::Duration;

use super::dice::Dice;
use super::ledger::Ledger;
use super::sender::Sender;
use super::site::Site;

/// Between two portions.
const BEAT: Duration = Duration::from_millis(50);

/// The running thread.
pub struct Load {
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
                while !stop.load(Ordering::Acquire) {
                    let portion = (0..each).map(|_| sender.any(&mut dice)).collect();
                    ledger.send(&site, portion);
                    std::thread::sleep(BEAT);
                }
                ledger
            }
        });
        Self { stop, thread: Some(thread) }
    }

    /// Ends the load; everything that was sent.
    pub fn stop(mut self) -> Ledger {
        self.stop.store(true, Ordering::Release);
        self.thread.take().expect("it runs").join().expect("the load did not fail")
    }
}

impl Drop for Load {
    fn drop(&mut self) {
        self.stop.store(true, Ordering::Release);
    }
}
