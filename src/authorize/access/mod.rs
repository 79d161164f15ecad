//! Access evaluations: may a caller do this to that now? Decided over the stages of a record, without its transport: who
//! asks is proven by the tokens of the request or by its connection, and there is no key, value or place (AuthZEN
//! Authorization API 1.0; WIMSE WPT for HTTP; SPIFFE X509-SVID). Limits: pure; it forwards nothing, and an allowed evaluation is worth what it was when it was decided.

mod body;
#[cfg(test)]
pub(crate) mod people;
mod reply;
#[cfg(test)]
pub(crate) mod tests;
mod waiting;
#[cfg(test)]
mod waiting_tests;

use super::audit::AuditRecord;
use super::case::Case;
use super::claims::Malformed;
use super::context::{Claimed, Tokens};
use super::decision::{Denial, Reason};
use super::draft::Draft;
use super::engine::{Engine, Moment, Snapshot, stand};
use super::identity::{Refused, Rules, Verified, verify_caller};
use super::ids::{Digest, UnixMillis, WorkloadId};
use super::policy::{Allowed, Conditional, Principal, StepUp, SubjectId, WORKLOAD};
use super::provenance::Chain;
use super::replay::Entry;
use super::request::{Action, Request, Resource};
use super::route::Route;
use super::standing::{self, Parties};
use super::step_up::wish::Wish;
use super::traceparent::TraceParent;

pub use body::{Asked, Evaluation, Named, Semantic};
pub use reply::{AskedStepUp, Asking, ItemError, Obligation, Replies, Reply, ReplyContext, STEP_UP};
pub use waiting::Waiting;

/// The Cedar action that lets a caller ask about somebody else: principal the caller, resource whom it asks about.
pub const EVALUATE: &str = "evaluate";

/// Who asks, proven, and what goes along with each of its evaluations. Made by [`Caller::verify`] alone.
#[derive(Debug)]
pub struct Caller {
    verified: Verified,
    /// A countersignature that does not hold denies each evaluation, with its own reason.
    chain: Result<Chain, Denial>,
    subject: Option<SubjectId>,
    /// What it has presented, by header, each with its SHA-256.
    hashes: Vec<(&'static str, Digest)>,
    /// What a revocation may name of it; empty where the chain does not hold.
    behind: Vec<standing::Named<'static>>,
    /// `X-Request-ID`.
    pub request_id: Option<String>,
    /// The trace that the request is part of.
    pub trace: Option<TraceParent>,
}

impl Caller {
    /// Verifies the tokens of a request to `audience`, its target URI, and the connection that they came over, by the rules of
    /// `route`. `once` is asked last whether the proof was seen before, and remembers it.
    ///
    /// # Errors
    /// The first check of the stages context and identity that fails.
    pub fn verify(
        engine: &Engine,
        route: &Route,
        (snapshot, now): (&Snapshot, UnixMillis),
        tokens: &Tokens<'_>,
        audience: &str,
        once: impl FnOnce(&Entry) -> bool,
    ) -> Result<Self, Denial> {
        let rules = Rules {
            realm: &engine.gate().realm,
            route,
            trust: &snapshot.trust,
            cache: engine.cache(),
            now,
            source_partitions: 1,
            held: None,
        };
        let claimed = Claimed::read_request(tokens, route, now, engine.cache())?;
        let verified =
            verify_caller(&claimed, audience, &rules, once).map_err(|Refused { denial, .. }| denial)?;
        let chain = Chain::verify(&claimed, &verified, &rules);
        let home = engine.gate().id.trust_domain();
        let subject = verified.transaction.as_ref().map(|of| SubjectId::new(&of.subject, &of.domain, home));
        let behind = match &chain {
            Ok(chain) => {
                let parties =
                    Parties { claimed: &claimed, verified: &verified, chain, subject: subject.as_ref() };
                parties.named(&snapshot.trust).into_iter().map(standing::Named::into_owned).collect()
            }
            Err(_) => Vec::new(),
        };
        let hashes = tokens.presented().collect();
        Ok(Self { verified, chain, subject, hashes, behind, request_id: None, trace: None })
    }

    /// The workload that asks.
    pub fn id(&self) -> &WorkloadId {
        &self.verified.sender
    }
}

/// One decision, with its audit record: the leaf index is set when that becomes bytes.
#[derive(Debug)]
pub struct Evaluated {
    /// Why not; `None` is allowed.
    pub denied: Option<Reason>,
    /// The answer. It must not leave before the audit record is committed.
    pub reply: Reply,
    /// What auditors read.
    pub audit: AuditRecord,
    /// Where step-ups alone stand in the way: what somebody could agree to. The rest is how it stands where nobody can be asked.
    pub waiting: Option<Box<Waiting>>,
}

/// Decides about one evaluation of a caller.
pub fn evaluate(
    engine: &Engine,
    route: &Route,
    caller: &Caller,
    evaluation: &Evaluation,
    moment: &Moment<'_>,
) -> Evaluated {
    let mut draft = begin(engine, route, caller, moment);
    let mut asked = Wanted::default();
    match decide(engine, route, caller, evaluation, moment, &mut draft, &mut asked) {
        Ok(allowed) => end(draft, Ok(allowed), None, moment),
        Err(denial) => {
            let asking = (!asked.step_ups.is_empty()).then(|| asking(&asked.step_ups));
            let waiting = asked.wish.zip(asking.as_ref()).map(|((wish, conditional), asking)| {
                Box::new(Waiting::new(&draft, &denial, asking, wish, conditional))
            });
            Evaluated { waiting, ..end(draft, Err(denial), asking, moment) }
        }
    }
}

/// What is wanted before it could be allowed.
#[derive(Default)]
struct Wanted {
    step_ups: Vec<StepUp>,
    /// What somebody could be asked.
    wish: Option<(Wish, Conditional)>,
}

/// Denies an evaluation of a list that is not well formed: it is a decision like the others, and stands in the audit.
pub fn refuse(
    engine: &Engine,
    route: &Route,
    caller: &Caller,
    malformed: &Malformed,
    moment: &Moment<'_>,
) -> Evaluated {
    let draft = begin(engine, route, caller, moment);
    let message = format!("the evaluation {malformed}");
    let denial = Denial::new(Reason::RequestInvalid, message.clone());
    let mut evaluated = end(draft, Err(denial), None, moment);
    evaluated.reply = evaluated.reply.with_error(400, &message);
    evaluated
}

fn begin(engine: &Engine, route: &Route, caller: &Caller, moment: &Moment<'_>) -> Draft {
    let mut draft = Draft::asked(engine.gate(), route, moment);
    draft.presented(&caller.hashes, caller.request_id.clone(), caller.trace);
    draft.verified(&caller.verified);
    draft
}

fn end(
    draft: Draft,
    decided: Result<Allowed, Denial>,
    asking: Option<Asking>,
    moment: &Moment<'_>,
) -> Evaluated {
    let id = moment.id.to_string();
    let reply = match &decided {
        Ok(_) => Reply::allow(id),
        Err(denial) => Reply::deny(id, denial, asking),
    };
    let denied = decided.as_ref().err().map(|denial| denial.reason);
    Evaluated { denied, reply, audit: draft.answered(&decided), waiting: None }
}

fn decide(
    engine: &Engine,
    route: &Route,
    caller: &Caller,
    evaluation: &Evaluation,
    moment: &Moment<'_>,
    draft: &mut Draft,
    wanted: &mut Wanted,
) -> Result<Allowed, Denial> {
    let request = Request {
        action: evaluation.action.clone(),
        resource: evaluation.resource.clone(),
        workflow: evaluation.workflow.clone(),
        value: None,
    };
    draft.request(&request);
    let chain = caller.chain.as_ref().map_err(Clone::clone)?;
    draft.chain(chain);
    let registered = stand(&caller.behind, Some(request.workflow.as_ref()), route, moment, draft)?;
    let case = Case {
        record: None,
        route,
        verified: &caller.verified,
        chain,
        request: &request,
        registered: registered.as_ref(),
        subject: caller.subject.as_ref(),
    };
    let own = itself(caller, &evaluation.subject, moment);
    let is_own = own.is_some();
    let principals = match own {
        Some(own) => {
            let mut principals = vec![own];
            for principal in case.principals()? {
                if !principals.contains(&principal) {
                    principals.push(principal);
                }
            }
            principals
        }
        None => {
            let Named { kind, id } = &evaluation.subject;
            draft.about(kind, id);
            may_ask(&case, &evaluation.subject, moment, draft)?;
            vec![Principal::Entity { kind, id }]
        }
    };
    let snapshot = moment.snapshot;
    let mut answer = snapshot.policy.evaluate(&snapshot.entities, &case.facts(moment.now), &principals);
    draft.answer(&mut answer);
    wanted.step_ups = answer.step_ups;
    // An approval is for whoever asks: nobody is asked about somebody else.
    let conditional = answer.conditional.filter(|_| is_own);
    wanted.wish = conditional.and_then(|conditional| {
        let wish = Wish::of(engine.gate(), &case, conditional.step_ups(), moment)?;
        Some((wish, conditional))
    });
    answer.verdict
}

/// The caller as a principal, if the subject is the caller: its workload, or whom its Txn-Token names.
fn itself<'a>(caller: &'a Caller, subject: &Named, moment: &Moment<'_>) -> Option<Principal<'a>> {
    let sender = &caller.verified.sender;
    if subject.kind == WORKLOAD && subject.id == sender.as_str() {
        return Some(Principal::Workload(sender));
    }
    let own = caller.subject.as_ref()?;
    let kind = moment.snapshot.policy.subject_type();
    (kind == Some(&*subject.kind) && own.as_str() == subject.id).then_some(Principal::Subject(own))
}

/// Whether policy lets the caller ask about somebody else.
fn may_ask(case: &Case<'_>, subject: &Named, moment: &Moment<'_>, draft: &mut Draft) -> Result<(), Denial> {
    let request = Request {
        action: Action { name: EVALUATE.to_owned(), properties: None },
        resource: Resource { kind: subject.kind.clone(), id: subject.id.clone(), properties: None },
        workflow: case.request.workflow.clone(),
        value: None,
    };
    let case = Case { request: &request, ..*case };
    let principals = [Principal::Workload(&case.verified.sender)];
    let snapshot = moment.snapshot;
    let mut answer = snapshot.policy.evaluate(&snapshot.entities, &case.facts(moment.now), &principals);
    match answer.verdict {
        Ok(_) => Ok(()),
        Err(ref denial) => {
            let detail = format!("the caller may not ask about others: {}", denial.detail);
            let denial = Denial::new(denial.reason, detail);
            draft.answer(&mut answer);
            Err(denial)
        }
    }
}

fn asking(step_ups: &[StepUp]) -> Asking {
    Asking { step_ups: step_ups.iter().map(AskedStepUp::from).collect(), challenge: None, digest: None }
}
