//! What needs a person: held, asked, answered, and decided again at that moment. Limits: people answer by a key of their
//! login, as `countersign challenge` does; over HTTP they would answer with their login itself.

use serde_json::json;

use super::{PAY_SCOPE, command, pay, seal};
use crate::authorize::decision::Reason;
use crate::cli::demo::DemoError;
use crate::cli::demo::cast::Cast;
use crate::cli::demo::row::Ending::Forwarded;
use crate::cli::demo::row::denied;
use crate::cli::demo::stage::Stage;

/// Tells all of it.
pub(super) fn tell(stage: &mut Stage<'_>, cast: &mut Cast) -> Result<(), DemoError> {
    stage.chapter("What is sensitive waits for a person, and is decided again at that moment")?;
    let txn = cast.transaction("alice", PAY_SCOPE)?;
    let agent = cast.invoice.context(&cast.realm, Some(&txn))?;

    // First, so that its time runs out while the others are told.
    let letter = seal(stage.world, &agent, "invoices", &command("refund", "inv-2001", 90), None)?;
    let refund = stage.tell_held("a refund: a clerk has three seconds to agree", &letter)?;

    let letter = pay(stage.world, &agent, "inv-2002", 4000)?;
    let large = stage.tell_held("the agent pays 4,000: a manager must agree", &letter)?;
    let own = stage.answer(cast, &large, "alice", "approve")?;
    stage.tell_ignored("alice, herself a manager, agrees to her own", "requester", &large, &own)?;
    stage.answer(cast, &large, "carol", "approve")?;
    stage.tell_released("carol, another manager, agrees", Forwarded, &large)?;

    let letter = pay(stage.world, &agent, "inv-2003", 5000)?;
    let large = stage.hold(&letter)?;
    stage.answer(cast, &large, "carol", "refuse")?;
    stage.tell_released(
        "a payment of 5,000 is held, and carol refuses",
        denied(Reason::StepUpRefused),
        &large,
    )?;

    let letter = pay(stage.world, &agent, "inv-2004", 6000)?;
    let large = stage.hold(&letter)?;
    let uid = json!({"type": "Invoice", "id": "inv-2004"});
    stage.world.put_entity(&json!({"uid": uid, "attrs": {"frozen": true}, "parents": []}))?;
    stage.answer(cast, &large, "carol", "approve")?;
    let title = "one is frozen while it is held, and carol agrees";
    stage.tell_released(title, denied(Reason::Forbidden), &large)?;

    let title = "nobody has agreed to the refund in its three seconds";
    stage.tell_released(title, denied(Reason::StepUpTimedOut), &refund)
}
