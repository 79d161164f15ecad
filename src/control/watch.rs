//! When to look again: as soon as the system says that a file changed, at a signal, and every few seconds in any case,
//! since a swapped link or a network folder says nothing. Limits: it decides when, `Control` what.

use std::sync::Arc;
use std::sync::mpsc::{self, Receiver, RecvTimeoutError, SyncSender, TrySendError};
use std::thread::{self, JoinHandle};
use std::time::Duration;

use notify::{RecursiveMode, Watcher as _};

use super::Control;
use crate::authorize::ids::UnixMillis;

/// How long a change may go unseen.
const POLL: Duration = Duration::from_secs(5);
/// How long files must rest before they are read: whoever writes three of them means one change.
const SETTLE: Duration = Duration::from_millis(200);

/// Why nothing can be watched.
#[derive(Debug, thiserror::Error)]
pub enum WatchError {
    /// The thread could not be started.
    #[error("the watching thread cannot be started: {0}")]
    Thread(std::io::Error),
}

/// Asks for another look, as SIGHUP does. Clones are cheap.
#[derive(Debug, Clone)]
pub struct Reload(SyncSender<Event>);

#[derive(Debug, Clone, Copy)]
enum Event {
    Look,
    Stop,
}

impl Reload {
    /// Asks for a look now. One that is asked for already is enough.
    pub fn now(&self) {
        match self.0.try_send(Event::Look) {
            Ok(()) | Err(TrySendError::Full(_) | TrySendError::Disconnected(_)) => {}
        }
    }
}

/// The thread that refreshes a [`Control`]. Dropping it ends the thread.
#[derive(Debug)]
pub struct Watcher {
    sender: SyncSender<Event>,
    thread: Option<JoinHandle<()>>,
}

impl Watcher {
    /// Starts to watch; `clock` gives the present moment. A folder that the system cannot watch is looked at every few
    /// seconds all the same.
    ///
    /// # Errors
    /// The thread cannot be started.
    pub fn start(control: Arc<Control>, clock: fn() -> UnixMillis) -> Result<Self, WatchError> {
        let (sender, receiver) = mpsc::sync_channel(1);
        let events = sender.clone();
        let thread = thread::Builder::new()
            .name("control".to_owned())
            .spawn(move || run(&control, clock, &events, &receiver))
            .map_err(WatchError::Thread)?;
        Ok(Self { sender, thread: Some(thread) })
    }

    /// A handle that asks for another look.
    pub fn reload(&self) -> Reload {
        Reload(self.sender.clone())
    }
}

impl Drop for Watcher {
    fn drop(&mut self) {
        // Waits for a place in the queue, which the thread empties, or finds the thread gone.
        let _ = self.sender.send(Event::Stop);
        if let Some(thread) = self.thread.take() {
            let _ = thread.join();
        }
    }
}

fn run(control: &Control, clock: fn() -> UnixMillis, events: &SyncSender<Event>, receiver: &Receiver<Event>) {
    let reload = Reload(events.clone());
    let notified = notify::recommended_watcher(move |event: notify::Result<notify::Event>| {
        // Reading is what this thread does itself; an error means that something may have been missed.
        if !matches!(&event, Ok(event) if event.kind.is_access()) {
            reload.now();
        }
    });
    // Kept for as long as the loop runs: dropping it ends the notifications.
    let _watching = notified.ok().map(|mut watcher| {
        for folder in control.folders() {
            // Not every folder can be watched; looking every few seconds sees all of them.
            let _ = watcher.watch(&folder, RecursiveMode::Recursive);
        }
        watcher
    });
    loop {
        match receiver.recv_timeout(POLL) {
            Ok(Event::Stop) | Err(RecvTimeoutError::Disconnected) => return,
            Ok(Event::Look) => {
                if stops_while_settling(receiver) {
                    return;
                }
            }
            Err(RecvTimeoutError::Timeout) => {}
        }
        control.refresh(clock());
    }
}

/// Waits until nothing has changed for a while, at most ten times as long.
fn stops_while_settling(receiver: &Receiver<Event>) -> bool {
    for _ in 0..10 {
        match receiver.recv_timeout(SETTLE) {
            Ok(Event::Look) => {}
            Ok(Event::Stop) | Err(RecvTimeoutError::Disconnected) => return true,
            Err(RecvTimeoutError::Timeout) => return false,
        }
    }
    false
}
