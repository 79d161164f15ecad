//! Work that takes longer than one decision lasts: each job ends where it should, and the audit says why. Limits: people
//! answer by a key of their login, and a worker is told when they have; else it would ask again once a second.

use super::workflows::{OF_JOB, registered, step};
use super::{PAY_SCOPE, pay};
use crate::authorize::standing::Status;
use crate::cli::demo::DemoError;
use crate::cli::demo::cast::Cast;
use crate::cli::demo::job::{End, STEPS, Work, Worker};
use crate::cli::demo::post::Envelope;
use crate::cli::demo::row::{Ending, Row, Told};
use crate::cli::demo::stage::Stage;
use crate::worker::Received;
use crate::worker::job::{Answer, Denied, Refused};
use crate::worker::signals::Stop;

/// Tells all of it.
pub(super) fn tell(stage: &mut Stage<'_>, cast: &mut Cast) -> Result<(), DemoError> {
    let title = "A payout takes eight steps; before two of them, `reserve` and `transfer`, the worker asks";
    stage.chapter(title)?;
    let worker = Worker::start(stage.world, cast)?;
    let told = jobs(stage, cast, &worker);
    stage.questions(worker.questions());
    told
}

fn jobs(stage: &mut Stage<'_>, cast: &mut Cast, worker: &Worker) -> Result<(), DemoError> {
    let txn = cast.transaction("alice", PAY_SCOPE)?;
    let agent = cast.invoice.context(&cast.realm, Some(&txn))?;

    let letter = pay(stage.world, &agent, "inv-5001", 120)?;
    job(stage, worker, &letter, ("a job that may do everything", Ending::Done), None, |_| Ok(()))?;

    let letter = pay(stage.world, &agent, "inv-5002", 120)?;
    let told = Ending::Refused { after: 5, because: "forbidden" };
    job(stage, worker, &letter, ("one whose invoice is disputed", told), None, |_| Ok(()))?;

    let letter = pay(stage.world, &agent, "inv-5005", 900)?;
    let title = ("a large one, and carol agrees to the transfer", Ending::Done);
    asks_a_person(stage, cast, worker, &letter, title, "approve")?;

    let letter = pay(stage.world, &agent, "inv-5006", 900)?;
    let told = Ending::Refused { after: 5, because: "step_up_refused" };
    asks_a_person(stage, cast, worker, &letter, ("another large one, and carol refuses", told), "refuse")?;

    let letter = step(stage.world, &agent, (OF_JOB, "pay"), "inv-5003")?;
    let told = Ending::Stopped { after: 2, because: "workflow_ended" };
    let cancel = |stage: &Stage<'_>| {
        stage.world.write("workflows", OF_JOB.to_owned(), registered(OF_JOB, Status::Cancelled)?)
    };
    let title = ("one whose workflow is cancelled in the middle", told);
    if let Some(received) = job(stage, worker, &letter, title, Some("reckon"), cancel)? {
        let told = Ending::Refused { after: 2, because: "workflow_ended" };
        asks_all_the_same(stage, worker, &received, "reserve", told)?;
    }

    let txn = cast.transaction("erin", PAY_SCOPE)?;
    let agent = cast.invoice.context(&cast.realm, Some(&txn))?;
    let letter = pay(stage.world, &agent, "inv-5004", 120)?;
    let told = Ending::Stopped { after: 4, because: "revoked" };
    let revocation = cast.revocation("erin-left", ("subject", "erin"), None, "left the company")?;
    let revoke =
        |stage: &Stage<'_>| stage.world.write("revocations", "erin-left".to_owned(), revocation.into_bytes());
    let title = ("one whose subject, erin, is revoked in the middle", told);
    if let Some(received) = job(stage, worker, &letter, title, Some("announce"), revoke)? {
        let told = Ending::Refused { after: 4, because: "revoked" };
        asks_all_the_same(stage, worker, &received, "transfer", told)?;
    }
    Ok(())
}

/// Tells one job, from its record to its end. Where it stays in a step, `then` happens meanwhile. What the worker had
/// received, if there was a job at all.
fn job(
    stage: &mut Stage<'_>,
    worker: &Worker,
    letter: &Envelope,
    (title, told): (&'static str, Told),
    stays_in: Option<&'static str>,
    then: impl FnOnce(&Stage<'_>) -> Result<(), DemoError>,
) -> Result<Option<Received>, DemoError> {
    let Some(received) = stage.forward(letter)? else { return Ok(None) };
    let work = worker.begin(received.clone(), stays_in);
    if let Some(before) = stays_in.and_then(|stay| STEPS.iter().position(|(name, _)| *name == stay)) {
        work.wait(before)?;
        then(stage)?;
    }
    tell_end(stage, worker, work, (title, told), None)?;
    Ok(Some(received))
}

/// Tells one job that waits for carol before its last sensitive step.
fn asks_a_person(
    stage: &mut Stage<'_>,
    cast: &Cast,
    worker: &Worker,
    letter: &Envelope,
    title: (&'static str, Told),
    decision: &str,
) -> Result<(), DemoError> {
    let Some(received) = stage.forward(letter)? else { return Ok(()) };
    let work = worker.begin(received, None);
    let challenge = stage.observer.wanted(&work.waits()?)?;
    let asked = challenge.step_ups.iter().map(|ask| format!("asked: {}", ask.message)).next();
    stage.answer_wanted(cast, &challenge, "carol", decision)?;
    work.answered();
    tell_end(stage, worker, work, title, asked)
}

/// Waits until a job has ended, and tells how; `asked` is what a person was asked meanwhile.
fn tell_end(
    stage: &mut Stage<'_>,
    worker: &Worker,
    work: Work,
    (title, told): (&'static str, Told),
    asked: Option<String>,
) -> Result<(), DemoError> {
    let (end, done) = worker.end(work)?;
    let (found, why) = match end {
        End::Done => (Ending::Done, None),
        End::Stopped(stop) => {
            (Ending::Stopped { after: done.len(), because: code(&stop).to_owned() }, Some(stop.to_string()))
        }
        End::Refused(refused) => (refused_after(stage, done.len(), &refused)?, Some(refused.to_string())),
    };
    let notes = [Some(format!("done: {}", done.join(", "))), asked, why].into_iter().flatten().collect();
    stage.row(Row { notes, ..Row::of(title, told, found) })
}

/// The reason of a refusal: of a denial that which its audit record gives.
fn refused_after(stage: &Stage<'_>, after: usize, refused: &Refused) -> Result<Ending<String>, DemoError> {
    let because = match refused {
        Refused::Denied(denied) => audited(stage, denied)?,
        Refused::StepUp { .. } => "step_up_required".to_owned(),
        Refused::NoAnswer { .. } => "no_answer".to_owned(),
        Refused::Stopped(stop) => code(stop).to_owned(),
    };
    Ok(Ending::Refused { after, because })
}

/// Tells what a worker would hear that does not listen, and asks for its next sensitive step.
fn asks_all_the_same(
    stage: &mut Stage<'_>,
    worker: &Worker,
    received: &Received,
    action: &str,
    told: Told,
) -> Result<(), DemoError> {
    let after = told.after().unwrap_or_default();
    let (found, notes) = match worker.ask(received, action)? {
        Answer::Allowed { .. } => (Ending::Done, Vec::new()),
        Answer::Denied(denied) => {
            let because = audited(stage, &denied)?;
            (Ending::Refused { after, because }, vec![denied.detail])
        }
        Answer::StepUp(_) => (Ending::Refused { after, because: "step_up_required".to_owned() }, Vec::new()),
    };
    stage.row(Row { notes, ..Row::of("a worker that does not listen asks all the same", told, found) })
}

/// What the audit record says of a denial.
fn audited(stage: &Stage<'_>, denied: &Denied) -> Result<String, DemoError> {
    Ok(stage.observer.asked(&denied.decision)?.reason.unwrap_or_default())
}

/// Why a watch has ended, in one word, as a gate would say it where it can.
fn code(stop: &Stop) -> &'static str {
    match stop {
        Stop::Revoked { .. } => "revoked",
        Stop::WorkflowEnded { .. } => "workflow_ended",
        Stop::WorkflowSuspended { .. } => "workflow_out_of_step",
        Stop::Silence { .. } => "silence",
        Stop::TooOld => "too_old",
    }
}
