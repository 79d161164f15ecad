//! Questions to brokers that a lane does not wait for: each is asked on a thread of its own, with one client beside the group for all
//! of them. Limits: each asker asks one at a time; what is asked, and what the answer means, is the asker's.

use std::sync::{Arc, Mutex, PoisonError, mpsc};
use std::thread;
use std::time::Duration;

use super::callbacks::{Reader, reader};
use super::settings::KafkaSettings;

/// A lane's client for such questions, made when one is asked first.
#[derive(Clone)]
pub(super) struct SideClient {
    settings: KafkaSettings,
    made: Arc<Mutex<Option<Arc<Reader>>>>,
}

impl SideClient {
    pub(super) fn new(settings: KafkaSettings) -> Self {
        Self { settings, made: Arc::default() }
    }

    /// One that reaches no broker.
    #[cfg(test)]
    pub(super) fn nobody() -> Self {
        Self::new(KafkaSettings {
            properties: crate::config::KafkaProperties::default(),
            group: "g".into(),
            member: None,
            is_first: true,
            writers: Vec::new(),
            topics: Vec::new(),
            delivery: crate::config::Delivery::AtLeastOnce,
            batch_bytes: None,
            transaction_timeout: Duration::from_secs(5),
        })
    }

    fn get(&self) -> Option<Arc<Reader>> {
        // What is inside is replaced whole, never half.
        let mut made = self.made.lock().unwrap_or_else(PoisonError::into_inner);
        if made.is_none() {
            *made = reader(&self.settings.outsider("read_committed")).ok().map(Arc::new);
        }
        made.clone()
    }
}

/// What one asker waits for.
pub(super) struct Aside<T> {
    client: SideClient,
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

impl<T: Send + 'static> Aside<T> {
    pub(super) fn new(client: &SideClient) -> Self {
        Self { client: client.clone(), asked: None }
    }

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
    pub(super) fn ask(&mut self, name: &str, question: impl FnOnce(&Reader) -> Option<T> + Send + 'static) {
        let Some(client) = self.client.get() else { return };
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
