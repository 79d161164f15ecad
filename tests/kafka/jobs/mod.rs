//! Long work on a real broker: how it hears that it must stop.

mod publisher;
