//! The story of an invoice agent, one situation after the other, with how each of them must end. Limits: it knows what
//! must happen, not why: that is for the gates and the policies in `examples/demo/`.

use bytes::Bytes;
use serde_json::json;

use super::DemoError;
use super::cast::{Actor, Cast};
use super::stage::{Envelope, Stage, Told};
use super::world::{PARTITIONS, World};
use crate::authorize::decision::Reason;
use crate::authorize::ids::UnixMillis;
use crate::authorize::jose::TokenKind;
use crate::cli::{clock, issue};
use crate::producer::{Asked, Context, Outgoing};
use crate::worker::Received;
use Told::{Denied, Forwarded};

const PAY_SCOPE: &str = "invoices.read invoices.pay";

/// Tells all of it.
pub(super) fn tell(stage: &mut Stage<'_>, cast: &mut Cast) -> Result<(), DemoError> {
    let paid = payment(stage, cast)?;
    second_gate(stage, cast, paid)?;
    wrong_sender(stage, cast)?;
    changed_record(stage, cast)?;
    stolen_tokens(stage, cast)?;
    policies(stage, cast)?;
    legacy(stage)?;
    deleted_key(stage, cast)
}

/// A payment that is in order, its copies, and its expired twin.
fn payment(stage: &mut Stage<'_>, cast: &mut Cast) -> Result<Option<Received>, DemoError> {
    let txn = cast.transaction("alice", PAY_SCOPE)?;
    let agent = cast.invoice.context(&cast.realm, Some(&txn))?;
    let letter = pay(stage.world, &agent, "inv-1001", 120)?;
    let (paid, at) = stage.tell("the invoice agent pays 120 for alice", Forwarded, &letter)?;
    let copy = Envelope { partition: Some(at.partition.0), ..letter.clone() };
    stage.tell("the same record is sent again, bit for bit", Denied(Reason::Replayed), &copy)?;
    let elsewhere = Envelope { partition: Some((at.partition.0 + 1) % PARTITIONS), ..letter };
    stage.tell("and once more, to another partition", Denied(Reason::Replayed), &elsewhere)?;

    let now = clock::now().ok_or(DemoError::Clock)?;
    let earlier = UnixMillis(now.0 - 600_000);
    let old = seal(stage.world, &agent, "invoices", &command("pay", "inv-1002", 80), Some(earlier))?;
    stage.tell("a proof that was signed ten minutes ago", Denied(Reason::TokenExpired), &old)?;
    Ok(paid)
}

/// Work goes on through a second gate, and gains no rights on the way.
fn second_gate(stage: &mut Stage<'_>, cast: &mut Cast, paid: Option<Received>) -> Result<(), DemoError> {
    let txn = cast.transaction("alice", PAY_SCOPE)?;
    let service = cast.payments.context(&cast.realm, None)?;
    if let Some(paid) = paid {
        let booking = command("book", "inv-1001", 120);
        let letter = seal(stage.world, &service.carry(paid.carry_on()), "ledger", &booking, None)?;
        stage.tell("the payments service books it, through a second gate", Forwarded, &letter)?;
    }
    let mail = cast.mail.context(&cast.realm, Some(&txn))?;
    let summary = seal(stage.world, &mail, "invoices", &command("summarise", "inv-1003", 0), None)?;
    let (summarised, _) = stage.tell("the mail agent has an invoice summarised", Forwarded, &summary)?;
    if let Some(summarised) = summarised {
        let booking = command("book", "inv-1003", 5000);
        let context = service.carry(summarised.carry_on());
        let letter = seal(stage.world, &context, "ledger", &booking, None)?;
        let title = "and, through the stronger payments service, booked";
        stage.tell(title, Denied(Reason::NotPermitted), &letter)?;
    }
    let alone = cast.payments.context(&cast.realm, Some(&txn))?;
    let letter = seal(stage.world, &alone, "ledger", &command("book", "inv-1003", 5000), None)?;
    stage.tell(
        "the payments service leaves out where work came from",
        Denied(Reason::ContextMissing),
        &letter,
    )?;
    Ok(())
}

/// Those who may not, or whom nobody knows.
fn wrong_sender(stage: &mut Stage<'_>, cast: &mut Cast) -> Result<(), DemoError> {
    let txn = cast.transaction("alice", PAY_SCOPE)?;
    let mail = cast.mail.context(&cast.realm, Some(&txn))?;
    let letter = pay(stage.world, &mail, "inv-1004", 120)?;
    stage.tell("the mail agent wants to pay", Denied(Reason::NotPermitted), &letter)?;
    let foreign = cast.transaction_in("example.net", "alice", PAY_SCOPE)?;
    let stranger = cast.stranger.context(&cast.realm, Some(&foreign))?;
    let letter = pay(stage.world, &stranger, "inv-1004", 120)?;
    stage.tell("an agent of a trust domain that nobody knows", Denied(Reason::IssuerUnknown), &letter)?;
    let bare = Envelope { headers: Vec::new(), ..letter };
    stage.tell("a record without any credentials", Denied(Reason::ContextMissing), &bare)?;
    Ok(())
}

/// Records that are not what was signed.
fn changed_record(stage: &mut Stage<'_>, cast: &mut Cast) -> Result<(), DemoError> {
    let txn = cast.transaction("alice", PAY_SCOPE)?;
    let agent = cast.invoice.context(&cast.realm, Some(&txn))?;
    let mut changed = pay(stage.world, &agent, "inv-1005", 120)?;
    changed.value = body("pay", "inv-1005", 920);
    stage.tell("somebody changes the amount on its way", Denied(Reason::ProofMismatch), &changed)?;
    let mut says = command("pay", "inv-1005", 120);
    says.asked = Asked::of("pay", "Invoice", "inv-1004");
    let two = seal(stage.world, &agent, "invoices", &says, None)?;
    stage.tell("the proof says one invoice, the value another", Denied(Reason::RequestMismatch), &two)?;
    let mut moved = seal(stage.world, &agent, "ledger", &command("pay", "inv-1005", 120), None)?;
    moved.topic = stage.world.topic("invoices", "commands")?;
    stage.tell("a proof that was made for another topic", Denied(Reason::AudienceMismatch), &moved)?;
    Ok(())
}

/// Tokens in the wrong hands.
fn stolen_tokens(stage: &mut Stage<'_>, cast: &mut Cast) -> Result<(), DemoError> {
    let txn = cast.transaction("alice", PAY_SCOPE)?;
    let agent = cast.invoice.context(&cast.realm, Some(&txn))?;
    let mut letter = pay(stage.world, &agent, "inv-1007", 120)?;
    show_identity(&mut letter, &cast.mail);
    stage.tell(
        "the mail agent shows the invoice agent's proof",
        Denied(Reason::SignatureInvalid),
        &letter,
    )?;
    let mail = cast.mail.context(&cast.realm, Some(&txn))?;
    let mut letter = pay(stage.world, &mail, "inv-1007", 120)?;
    show_identity(&mut letter, &cast.invoice);
    stage.tell("and its identity token, but has not its key", Denied(Reason::SignatureInvalid), &letter)?;
    let forged = cast.forged_transaction("alice", PAY_SCOPE)?;
    let agent = cast.invoice.context(&cast.realm, Some(&forged))?;
    let letter = pay(stage.world, &agent, "inv-1007", 120)?;
    stage.tell("a transaction that no token service began", Denied(Reason::SignatureInvalid), &letter)?;
    Ok(())
}

/// Everything is genuine, and not allowed.
fn policies(stage: &mut Stage<'_>, cast: &mut Cast) -> Result<(), DemoError> {
    let reading = cast.transaction("alice", "invoices.read")?;
    let agent = cast.invoice.context(&cast.realm, Some(&reading))?;
    let letter = pay(stage.world, &agent, "inv-1008", 120)?;
    stage.tell("the agent pays where alice only asked to read", Denied(Reason::NotPermitted), &letter)?;
    let txn = cast.transaction("alice", PAY_SCOPE)?;
    let agent = cast.invoice.context(&cast.realm, Some(&txn))?;
    let letter = pay(stage.world, &agent, "inv-1008", 25_000)?;
    stage.tell("the agent pays more than it may", Denied(Reason::Forbidden), &letter)?;
    let letter = pay(stage.world, &agent, "inv-1006", 120)?;
    stage.tell("the invoice has been frozen meanwhile", Denied(Reason::Forbidden), &letter)?;
    Ok(())
}

/// A producer that cannot sign yet.
fn legacy(stage: &mut Stage<'_>) -> Result<(), DemoError> {
    let plain = |verb| -> Result<Envelope, DemoError> {
        Ok(Envelope {
            topic: stage.world.topic("legacy", "commands")?,
            partition: None,
            key: "inv-0007".into(),
            value: body(verb, "inv-0007", 40),
            headers: Vec::new(),
        })
    };
    let (archive, pay) = (plain("archive")?, plain("pay")?);
    stage.tell("the old ERP, which cannot sign, archives an invoice", Forwarded, &archive)?;
    stage.tell("the old ERP wants to pay", Denied(Reason::Forbidden), &pay)?;
    Ok(())
}

/// Trust ends while the gate runs.
fn deleted_key(stage: &mut Stage<'_>, cast: &mut Cast) -> Result<(), DemoError> {
    stage.world.change_trust(|folder| cast.delete_issuer(folder))?;
    let txn = cast.transaction("alice", PAY_SCOPE)?;
    let agent = cast.invoice.context(&cast.realm, Some(&txn))?;
    let letter = pay(stage.world, &agent, "inv-1009", 120)?;
    stage.tell(
        "the issuer's key has been taken out of the bundle",
        Denied(Reason::IssuerUnknown),
        &letter,
    )?;
    cast.renew()?;
    let agent = cast.invoice.context(&cast.realm, Some(&txn))?;
    let letter = pay(stage.world, &agent, "inv-1009", 120)?;
    stage.tell("the agent has a new identity token, and goes on", Forwarded, &letter)?;
    Ok(())
}

/// What a record says, and what its proof asks for.
pub(super) struct Command {
    key: String,
    value: Bytes,
    asked: Asked,
}

/// A command whose proof says what its value says.
pub(super) fn command(verb: &str, invoice: &str, amount: u32) -> Command {
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

/// Puts somebody else's identity token into a record.
fn show_identity(letter: &mut Envelope, of: &Actor) {
    let name = TokenKind::WorkloadIdentity.header_name();
    for header in letter.headers.iter_mut().filter(|header| header.name == name.as_bytes()) {
        header.value = Some(of.wit.clone().into());
    }
}
