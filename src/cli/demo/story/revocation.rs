//! Rights that are taken away while everything is in order with the tokens. Limits: what was issued before a moment is
//! revoked here; a revocation without such a moment would reach whatever is issued later too.

use std::time::Duration;

use super::{PAY_SCOPE, command, pay, seal};
use crate::authorize::decision::Reason;
use crate::cli::clock;
use crate::cli::demo::DemoError;
use crate::cli::demo::cast::Cast;
use crate::cli::demo::row::Ending::Forwarded;
use crate::cli::demo::row::denied;
use crate::cli::demo::stage::Stage;

/// Tells all of it.
pub(super) fn tell(stage: &mut Stage<'_>, cast: &mut Cast) -> Result<(), DemoError> {
    stage.chapter("A revocation reaches what was issued before it")?;
    let txn = cast.transaction("bob", PAY_SCOPE)?;
    let agent = cast.invoice.context(&cast.realm, Some(&txn))?;
    let letter = pay(stage.world, &agent, "inv-4001", 120)?;
    stage.tell("the agent pays for bob", Forwarded, &letter)?;

    // The next second, since tokens say in whole seconds when they were issued.
    let since = clock::now().ok_or(DemoError::Clock)?.whole_seconds() + 1;
    let person = cast.revocation("bob-laptop", ("subject", "bob"), Some(since), "laptop stolen")?;
    let mail = ("workload", "spiffe://example.org/agent/mail");
    let agents = cast.revocation("mail-agent-key", mail, Some(since), "its key was in a log")?;
    let facts = [("bob-laptop", person), ("mail-agent-key", agents)];
    let facts = facts.map(|(id, token)| (id.to_owned(), token.into_bytes()));
    stage.world.say("revocations", facts.into(), |entries| entries.revocations)?;

    let letter = pay(stage.world, &agent, "inv-4002", 120)?;
    stage.tell("bob's laptop is stolen: what he began is revoked", denied(Reason::Revoked), &letter)?;
    let alice = cast.transaction("alice", PAY_SCOPE)?;
    let summary = command("summarise", "inv-4003", 0);
    let context = cast.mail.context(&cast.realm, Some(&alice))?;
    let letter = seal(stage.world, &context, "invoices", &summary, None)?;
    stage.tell("the mail agent's key is out: it is revoked", denied(Reason::Revoked), &letter)?;

    while clock::now().ok_or(DemoError::Clock)?.whole_seconds() < since {
        std::thread::sleep(Duration::from_millis(20));
    }
    let txn = cast.transaction("bob", PAY_SCOPE)?;
    let agent = cast.invoice.context(&cast.realm, Some(&txn))?;
    let letter = pay(stage.world, &agent, "inv-4002", 120)?;
    stage.tell("bob has signed in again, and the agent pays for him", Forwarded, &letter)?;
    cast.replace_mail()?;
    let context = cast.mail.context(&cast.realm, Some(&alice))?;
    let letter = seal(stage.world, &context, "invoices", &summary, None)?;
    stage.tell("the mail agent has a new key and a new identity", Forwarded, &letter)?;
    Ok(())
}
