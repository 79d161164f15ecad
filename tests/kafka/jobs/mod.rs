//! Long work on a real broker: how it hears that it must stop.

mod eight_steps;
mod gates;
mod publisher;

use countersign::authorize::carried::Carried;
use countersign::worker::job::{Answer, Asking, Gate, NoAnswer};

/// Whom those ask who only listen.
struct Nobody;

impl Gate for Nobody {
    fn ask(&self, _: &Asking, _: &Carried) -> Result<Answer, NoAnswer> {
        Err(NoAnswer("nobody is there".to_owned()))
    }
}
