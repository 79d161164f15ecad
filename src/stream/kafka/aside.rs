//! Questions to brokers that a lane does not wait for: each is asked on a thread of its own, with a client beside the group. Limits:
//! one at a time; what is asked, and what the answer means, is the asker's.

use std::sync::{Arc, mpsc};
use std::thread;
use std::time::Duration;

use super::callbacks::{Reader, reader};
use super::settings::KafkaSettings;

/// One asker's client, and what it waits for.
pub(super) struct Aside<T> {
    client: Option<Arc<Reader>>,
    /// Ends without an answer where none could be had.
    asked: Option<mpsc::Receiver<T>>,
}

/// How a question stands.
#[derive(Debug, PartialEq, Eq)]
pub(super) enum Answer<T> {
    /// None has been asked since the last answer.
    Unasked,
    /// It is being asked.
    Awaited,
    /// The answer, once.
    Given(T),
    /// There is none, once.
    Failed,
}

impl<T> Default for Aside<T> {
    fn default() -> Self {
        Self { client: None, asked: None }
    }
}

impl<T: Send + 'static> Aside<T> {
    pub(super) fn answer(&mut self) -> Answer<T> {
        let Some(asked) = &self.asked else { return Answer::Unasked };
        let answer = match asked.try_recv() {
            Ok(answer) => Answer::Given(answer),
            Err(mpsc::TryRecvError::Disconnected) => Answer::Failed,
            Err(mpsc::TryRecvError::Empty) => return Answer::Awaited,
        };
        self.asked = None;
        answer
    }

    /// Asks; `name` is that of the thread. Where neither client nor thread can be had nothing is asked.
    pub(super) fn ask(
        &mut self,
        settings: &KafkaSettings,
        name: &str,
        question: impl FnOnce(&Reader) -> Option<T> + Send + 'static,
    ) {
        if self.client.is_none() {
            self.client = reader(&settings.outsider("read_committed")).ok().map(Arc::new);
        }
        let Some(client) = self.client.clone() else { return };
        let (told, asked) = mpsc::channel();
        let ask = move || {
            // Errors that nobody has asked for, which would pile up.
            for _ in 0..1000 {
                if client.poll(Duration::ZERO).is_none() {
                    break;
                }
            }
            if let Some(answer) = question(&client) {
                let _ = told.send(answer);
            }
        };
        if thread::Builder::new().name(name.to_owned()).spawn(ask).is_ok() {
            self.asked = Some(asked);
        }
    }
}
