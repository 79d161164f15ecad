//! The story of an invoice agent, a file a chapter, and how its commands are written. Limits: one situation after the other;
//! how each of them must end stands where it is told.

mod long_job;
mod records;
mod revocation;
mod step_up;
mod workflows;

use bytes::Bytes;
use serde_json::json;

pub(super) use self::workflows::OPEN;

use super::DemoError;
use super::cast::Cast;
use super::post::Envelope;
use super::stage::Stage;
use super::world::World;
use crate::authorize::ids::UnixMillis;
use crate::cli::issue;
use crate::producer::{Asked, Context, Outgoing};

const PAY_SCOPE: &str = "invoices.read invoices.pay";

/// Tells all of it.
pub(super) fn tell(stage: &mut Stage<'_>, cast: &mut Cast) -> Result<(), DemoError> {
    stage.world.populate()?;
    workflows::begin(stage.world)?;
    records::tell(stage, cast)?;
    step_up::tell(stage, cast)?;
    workflows::tell(stage, cast)?;
    revocation::tell(stage, cast)?;
    long_job::tell(stage, cast)
}

/// What a record says, and what its proof asks for.
struct Command {
    key: String,
    value: Bytes,
    asked: Asked,
}

/// A command whose proof says what its value says.
fn command(verb: &str, invoice: &str, amount: u32) -> Command {
    Command {
        key: invoice.to_owned(),
        value: body(verb, invoice, amount),
        asked: Asked::of(verb, "Invoice", invoice),
    }
}

/// The value of a command.
pub(super) fn body(verb: &str, invoice: &str, amount: u32) -> Bytes {
    json!({"do": verb, "invoice": invoice, "amount": amount, "currency": "EUR"}).to_string().into()
}

/// A payment to the first gate, sealed.
pub(super) fn pay(
    world: &World,
    context: &Context,
    invoice: &str,
    amount: u32,
) -> Result<Envelope, DemoError> {
    seal(world, context, "invoices", &command("pay", invoice, amount), None)
}

/// Signs a command for the source topic of a route; now, or as if it were another time.
fn seal(
    world: &World,
    context: &Context,
    route: &str,
    command: &Command,
    at: Option<UnixMillis>,
) -> Result<Envelope, DemoError> {
    let topic = world.topic(route, "commands")?;
    let record = Outgoing::new(&topic).key(command.key.as_bytes()).value(&command.value);
    let headers = match at {
        None => context.headers(&record, &command.asked)?,
        Some(at) => context.headers_at(&record, &command.asked, at, &issue::random_id()?)?,
    };
    Ok(Envelope {
        partition: None,
        key: command.key.clone().into(),
        value: command.value.clone(),
        headers: headers.into_vec(),
        topic,
    })
}
