//! Work that belongs to a workflow, and what the registry of workflows makes of it. Limits: the registry's only writer here
//! is the story, as an orchestrator is in earnest.

use super::{PAY_SCOPE, command, seal};
use crate::authorize::decision::Reason;
use crate::authorize::request::Workflow;
use crate::authorize::standing::{Registered, Status};
use crate::cli::clock;
use crate::cli::demo::DemoError;
use crate::cli::demo::cast::Cast;
use crate::cli::demo::post::Envelope;
use crate::cli::demo::row::Ending::Forwarded;
use crate::cli::demo::row::denied;
use crate::cli::demo::stage::Stage;
use crate::cli::demo::world::World;
use crate::producer::Context;
use crate::wire::workflow::WorkflowCodec;

const KIND: &str = "invoice";
/// The workflow of this chapter.
const OURS: &str = "wf-3001";
/// The workflow of a long job.
pub(super) const OF_JOB: &str = "wf-5003";
/// One that nobody ends, for whoever stays.
pub(in crate::cli::demo) const OPEN: &str = "wf-9001";

/// Lets every workflow of the story run, at the step `pay`.
pub(super) fn begin(world: &World) -> Result<(), DemoError> {
    let running = |id: &str| Ok((id.to_owned(), registered(id, Status::Running)?));
    let facts: Result<Vec<_>, DemoError> = [OURS, OF_JOB, OPEN].into_iter().map(running).collect();
    world.say("workflows", facts?, |entries| entries.live_workflows)
}

/// Tells all of it.
pub(super) fn tell(stage: &mut Stage<'_>, cast: &mut Cast) -> Result<(), DemoError> {
    stage.chapter("Work of a workflow loses its rights when the workflow moves on, or ends")?;
    let txn = cast.transaction("alice", PAY_SCOPE)?;
    let agent = cast.invoice.context(&cast.realm, Some(&txn))?;
    let letter = step(stage.world, &agent, (OURS, "pay"), "inv-3001")?;
    stage.tell("a step of the running workflow wf-3001", Forwarded, &letter)?;
    let letter = step(stage.world, &agent, (OURS, "check"), "inv-3001")?;
    stage.tell("a step at which wf-3001 is no longer", denied(Reason::WorkflowOutOfStep), &letter)?;
    let ended = (OURS.to_owned(), registered(OURS, Status::Cancelled)?);
    stage.world.say("workflows", vec![ended], |entries| entries.ended_workflows)?;
    let letter = step(stage.world, &agent, (OURS, "pay"), "inv-3001")?;
    stage.tell(
        "wf-3001 is cancelled, and the agent has not heard",
        denied(Reason::WorkflowEnded),
        &letter,
    )?;
    Ok(())
}

/// A payment of 120 as a step of a workflow.
pub(super) fn step(
    world: &World,
    context: &Context,
    (workflow, step): (&str, &str),
    invoice: &str,
) -> Result<Envelope, DemoError> {
    let mut command = command("pay", invoice, 120);
    command.asked.workflow = Some(Workflow {
        id: workflow.to_owned(),
        kind: KIND.to_owned(),
        step: step.to_owned(),
        state: "running".to_owned(),
        attempt: None,
        started_at: None,
        deadline: None,
    });
    seal(world, context, "invoices", &command, None)
}

/// What the registry says of a workflow.
pub(super) fn registered(id: &str, status: Status) -> Result<Vec<u8>, DemoError> {
    let registered = Registered {
        kind: KIND.into(),
        status,
        step: "pay".into(),
        owner: "spiffe://example.org/orchestrator".into(),
        allowed_steps: None,
        version: if status == Status::Running { 1 } else { 2 },
        updated_at: clock::now().ok_or(DemoError::Clock)?,
    };
    Ok(WorkflowCodec::new()?.encode(id, &registered)?)
}
