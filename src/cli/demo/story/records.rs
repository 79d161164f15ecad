//! Single records: what is in order and what is not, each with how it must end. Limits: it knows what must happen, not why:
//! that is for the gates and the policies in `examples/demo/`.

use super::{PAY_SCOPE, body, command, pay, seal};
use crate::authorize::decision::Reason;
use crate::authorize::ids::UnixMillis;
use crate::authorize::jose::TokenKind;
use crate::cli::clock;
use crate::cli::demo::DemoError;
use crate::cli::demo::cast::{Actor, Cast};
use crate::cli::demo::post::Envelope;
use crate::cli::demo::row::Ending::Forwarded;
use crate::cli::demo::row::denied;
use crate::cli::demo::stage::Stage;
use crate::cli::demo::world::PARTITIONS;
use crate::producer::Asked;
use crate::worker::Received;

/// Tells all of them.
pub(super) fn tell(stage: &mut Stage<'_>, cast: &mut Cast) -> Result<(), DemoError> {
    stage.chapter("Every record is decided, by who sent it, for whom, and what it asks")?;
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
    stage.tell("the same record is sent again, bit for bit", denied(Reason::Replayed), &copy)?;
    let elsewhere = Envelope { partition: Some((at.partition.0 + 1) % PARTITIONS), ..letter };
    stage.tell("and once more, to another partition", denied(Reason::Replayed), &elsewhere)?;

    let now = clock::now().ok_or(DemoError::Clock)?;
    let earlier = UnixMillis(now.0 - 600_000);
    let old = seal(stage.world, &agent, "invoices", &command("pay", "inv-1002", 80), Some(earlier))?;
    stage.tell("a proof that was signed ten minutes ago", denied(Reason::TokenExpired), &old)?;
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
        stage.tell(title, denied(Reason::NotPermitted), &letter)?;
    }
    let alone = cast.payments.context(&cast.realm, Some(&txn))?;
    let letter = seal(stage.world, &alone, "ledger", &command("book", "inv-1003", 5000), None)?;
    stage.tell(
        "the payments service leaves out where work came from",
        denied(Reason::ContextMissing),
        &letter,
    )?;
    Ok(())
}

/// Those who may not, or whom nobody knows.
fn wrong_sender(stage: &mut Stage<'_>, cast: &mut Cast) -> Result<(), DemoError> {
    let txn = cast.transaction("alice", PAY_SCOPE)?;
    let mail = cast.mail.context(&cast.realm, Some(&txn))?;
    let letter = pay(stage.world, &mail, "inv-1004", 120)?;
    stage.tell("the mail agent wants to pay", denied(Reason::NotPermitted), &letter)?;
    let foreign = cast.transaction_in("example.net", "alice", PAY_SCOPE)?;
    let stranger = cast.stranger.context(&cast.realm, Some(&foreign))?;
    let letter = pay(stage.world, &stranger, "inv-1004", 120)?;
    stage.tell("an agent of a trust domain that nobody knows", denied(Reason::IssuerUnknown), &letter)?;
    let bare = Envelope { headers: Vec::new(), ..letter };
    stage.tell("a record without any credentials", denied(Reason::ContextMissing), &bare)?;
    Ok(())
}

/// Records that are not what was signed.
fn changed_record(stage: &mut Stage<'_>, cast: &mut Cast) -> Result<(), DemoError> {
    let txn = cast.transaction("alice", PAY_SCOPE)?;
    let agent = cast.invoice.context(&cast.realm, Some(&txn))?;
    let mut changed = pay(stage.world, &agent, "inv-1005", 120)?;
    changed.value = body("pay", "inv-1005", 920);
    stage.tell("somebody changes the amount on its way", denied(Reason::ProofMismatch), &changed)?;
    let mut says = command("pay", "inv-1005", 120);
    says.asked = Asked::of("pay", "Invoice", "inv-1004");
    let two = seal(stage.world, &agent, "invoices", &says, None)?;
    stage.tell("the proof says one invoice, the value another", denied(Reason::RequestMismatch), &two)?;
    let mut moved = seal(stage.world, &agent, "ledger", &command("pay", "inv-1005", 120), None)?;
    moved.topic = stage.world.topic("invoices", "commands")?;
    stage.tell("a proof that was made for another topic", denied(Reason::AudienceMismatch), &moved)?;
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
        denied(Reason::SignatureInvalid),
        &letter,
    )?;
    let mail = cast.mail.context(&cast.realm, Some(&txn))?;
    let mut letter = pay(stage.world, &mail, "inv-1007", 120)?;
    show_identity(&mut letter, &cast.invoice);
    stage.tell("and its identity token, but has not its key", denied(Reason::SignatureInvalid), &letter)?;
    let forged = cast.forged_transaction("alice", PAY_SCOPE)?;
    let agent = cast.invoice.context(&cast.realm, Some(&forged))?;
    let letter = pay(stage.world, &agent, "inv-1007", 120)?;
    stage.tell("a transaction that no token service began", denied(Reason::SignatureInvalid), &letter)?;
    Ok(())
}

/// Everything is genuine, and not allowed.
fn policies(stage: &mut Stage<'_>, cast: &mut Cast) -> Result<(), DemoError> {
    let reading = cast.transaction("alice", "invoices.read")?;
    let agent = cast.invoice.context(&cast.realm, Some(&reading))?;
    let letter = pay(stage.world, &agent, "inv-1008", 120)?;
    stage.tell("the agent pays where alice only asked to read", denied(Reason::NotPermitted), &letter)?;
    let txn = cast.transaction("alice", PAY_SCOPE)?;
    let agent = cast.invoice.context(&cast.realm, Some(&txn))?;
    let letter = pay(stage.world, &agent, "inv-1008", 25_000)?;
    stage.tell("the agent pays more than it may", denied(Reason::Forbidden), &letter)?;
    let letter = pay(stage.world, &agent, "inv-1006", 120)?;
    stage.tell("the invoice has been frozen meanwhile", denied(Reason::Forbidden), &letter)?;
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
    stage.tell("the old ERP wants to pay", denied(Reason::Forbidden), &pay)?;
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
        denied(Reason::IssuerUnknown),
        &letter,
    )?;
    cast.renew()?;
    let agent = cast.invoice.context(&cast.realm, Some(&txn))?;
    let letter = pay(stage.world, &agent, "inv-1009", 120)?;
    stage.tell("the agent has a new identity token, and goes on", Forwarded, &letter)?;
    Ok(())
}

/// Puts somebody else's identity token into a record.
fn show_identity(letter: &mut Envelope, of: &Actor) {
    let name = TokenKind::WorkloadIdentity.header_name();
    for header in letter.headers.iter_mut().filter(|header| header.name == name.as_bytes()) {
        header.value = Some(of.wit.clone().into());
    }
}
