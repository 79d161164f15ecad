//! The decision path: a record, the snapshots of a moment and `now` go in; one outcome and exactly one audit record come
//! out. The stages run in the contract's order (section 8) and the first that fails gives the reason. Limits: pure; it
//! writes nothing, and what it remembers of a partition is layered until the batch's commit is answered.

use std::sync::Arc;

use super::audit::AuditRecord;
use super::case::{Case, evidence};
use super::claims::Authentication;
use super::context::Claimed;
use super::decision::{Denial, Permit, Reason};
use super::digests::Hashes;
use super::draft::Draft;
use super::identity::{self, Refused, Rules, TokenCache};
use super::ids::{DecisionId, Topic, UnixMillis};
use super::jose::TokenKind;
use super::policy::{Answer, Bundle, Entities, SubjectId};
use super::provenance::{Chain, Forwarding, countersign};
use super::record::{Header, Record};
use super::request::Workflow;
use super::route::{Gate, Route};
use super::standing::{Found, Named, Parties, Standing, judge_workflow};
use super::state::PartitionState;
use super::step_up::settle::{Resumed, Settled, Settling};
use super::step_up::taking::{self, Taking};
use super::step_up::{Payload, Traces, Turn};
use super::trust::Trust;

/// What a gate knows at one moment: pinned for a whole batch, named in every audit record.
#[derive(Debug, Clone)]
pub struct Snapshot {
    /// The keys of each trust domain.
    pub trust: Arc<Trust>,
    /// The policies and their schema.
    pub policy: Arc<Bundle>,
    /// The entities that policies may look at.
    pub entities: Arc<Entities>,
    /// What has been revoked, and how workflows stand.
    pub standing: Standing,
}

/// The moment of one decision; time and id are handed in.
#[derive(Debug, Clone, Copy)]
pub struct Moment<'a> {
    /// *N*: read once for each batch.
    pub now: UnixMillis,
    /// The id that this decision gets.
    pub id: DecisionId,
    /// What the gate knows.
    pub snapshot: &'a Snapshot,
    /// The partition count of the record's topic, for strict replay.
    pub source_partitions: i32,
}

/// What earlier tries have shown about a record: its batch is done again after an outcome was refused.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Delivery {
    /// Nothing: decide it.
    Open,
    /// The destination refused the forwarded record: deny it as `undeliverable`. Holds what the broker said.
    Undeliverable(String),
    /// The dead-letter topic refused the denial too: write it without value and incoming headers, with digests.
    Bare(String),
}

/// One decision.
#[derive(Debug)]
pub struct Step {
    /// What happens to the record.
    pub decision: Decision,
    /// Its audit record; the leaf index is set when it becomes bytes.
    pub audit: AuditRecord,
    /// How the outcome must be written.
    pub delivery: Delivery,
    /// What it leaves behind in the holds topic and among the challenges.
    pub traces: Traces,
}

/// What happens to a record.
#[derive(Debug)]
pub enum Decision {
    /// It goes on to the destination.
    Forward(Forward),
    /// It goes to the dead-letter topic.
    Deny(Denial),
    /// It is held until a step-up is answered, or held on.
    Hold,
    /// It waits behind a held record of its key.
    Wait,
    /// An answer to a challenge was taken in.
    Answer,
}

/// A forwarded record's headers, countersigned: made from a permit alone, so no path ends in a forward without one.
#[derive(Debug)]
pub struct Forward {
    permit: Permit,
    headers: Vec<Header>,
}

impl Forward {
    /// The permit that it rests on.
    pub fn permit(&self) -> &Permit {
        &self.permit
    }

    /// The headers of the forwarded record, `decision-id` and `countersignature` included.
    pub fn into_headers(self) -> Vec<Header> {
        self.headers
    }
}

/// What decides: the gate's own identity and the cache of verified tokens. Everything else is handed in.
#[derive(Debug)]
pub struct Engine {
    gate: Gate,
    cache: TokenCache,
}

impl Engine {
    /// An engine for this gate that keeps at most `cached_tokens` verified tokens.
    pub fn new(gate: Gate, cached_tokens: usize) -> Self {
        Self { gate, cache: TokenCache::new(cached_tokens) }
    }

    /// The gate it decides for.
    pub fn gate(&self) -> &Gate {
        &self.gate
    }

    /// The cache of verified tokens, for its counters.
    pub fn cache(&self) -> &TokenCache {
        &self.cache
    }

    /// Decides about one record of `route`. A proof that passed every check of identity is remembered in `state`,
    /// whatever is decided after. A record that is held already is not decided again: its hold stands.
    pub fn handle(
        &self,
        route: &Route,
        record: &Record,
        moment: &Moment<'_>,
        delivery: Delivery,
        state: &mut PartitionState,
    ) -> Step {
        if let Some(entry) = state.holds.get(record.source.offset) {
            let (decision, challenge) = entry.known(record);
            let mut draft = Draft::new(&self.gate, route, record, &Hashes::of(record), moment);
            draft.challenge(challenge);
            let audit = draft.finish(&decision);
            return Step { audit, decision, delivery, traces: Traces::default() };
        }
        self.step(route, record, moment, delivery, None, state)
    }

    /// Decides again about a held record, at this moment: keys, standing, policies and entities are those of now, *E* is
    /// kept, and neither replay nor how long it waited is judged again. `None` where it is held no more, or where there is
    /// nothing to decide.
    pub fn resume(
        &self,
        route: &Route,
        payload: &Payload,
        turn: Turn,
        moment: &Moment<'_>,
        delivery: Delivery,
        state: &mut PartitionState,
    ) -> Option<Step> {
        let resumed = Resumed::of(payload, turn, state)?;
        Some(self.step(route, &payload.record, moment, delivery, Some(resumed), state))
    }

    /// The reminder of a held record's challenge that is due, if one is: nothing is decided.
    pub fn remind(&self, payload: &Payload, now: UnixMillis, state: &mut PartitionState) -> Option<Traces> {
        taking::remind(payload, now, state)
    }

    /// Takes in one answer from the answers of the source topic; `held` is the payload of the record that it names. It
    /// never fails: whatever the answer is, there is an audit record, and at most one hold is changed.
    pub fn answer(
        &self,
        route: &Route,
        source: &Topic,
        answer: &Record,
        held: Option<&Payload>,
        moment: &Moment<'_>,
        state: &mut PartitionState,
    ) -> Step {
        let taking = Taking { gate: &self.gate, route, source, moment };
        let (draft, traces) = taking.take(answer, held, state);
        let decision = Decision::Answer;
        Step { audit: draft.finish(&decision), decision, delivery: Delivery::Open, traces }
    }

    fn step(
        &self,
        route: &Route,
        record: &Record,
        moment: &Moment<'_>,
        delivery: Delivery,
        resumed: Option<Resumed<'_>>,
        state: &mut PartitionState,
    ) -> Step {
        let rules = Rules {
            realm: &self.gate.realm,
            route,
            trust: &moment.snapshot.trust,
            cache: &self.cache,
            now: moment.now,
            source_partitions: moment.source_partitions,
            held: resumed.as_ref().map(Resumed::accepted),
        };
        let hashes = Hashes::of(record);
        let mut draft = Draft::new(&self.gate, route, record, &hashes, moment);
        if let Some(accepted) = rules.held {
            draft.accepted(accepted);
        }
        let mut settling = Settling::new(&self.gate, moment, resumed);
        let decided = self.decide((record, &hashes), &rules, moment, state, &mut draft, &mut settling);
        let decision = match (decided, &delivery) {
            (Ok(decision), Delivery::Open) => decision,
            (Ok(_), Delivery::Undeliverable(why) | Delivery::Bare(why)) => Decision::Deny(Denial::new(
                Reason::Undeliverable,
                format!("the destination cannot take the record: {why}"),
            )),
            (Err(denial), _) => Decision::Deny(denial),
        };
        let traces = settling.conclude(&decision, record, &mut draft, state);
        Step { audit: draft.finish(&decision), decision, delivery, traces }
    }

    fn decide(
        &self,
        (record, hashes): (&Record, &Hashes),
        rules: &Rules<'_>,
        moment: &Moment<'_>,
        state: &mut PartitionState,
        draft: &mut Draft,
        settling: &mut Settling<'_>,
    ) -> Result<Decision, Denial> {
        let claimed = Claimed::read(record, hashes, rules.route, rules.cache)?;
        let verified = match identity::verify(record, &claimed, rules, &state.replay) {
            Ok(verified) => verified,
            Err(Refused { denial, known }) => {
                draft.known(&known);
                return Err(denial);
            }
        };
        draft.verified(&verified);
        if let Some(entry) = verified.replay {
            state.replay.stage(entry);
        }
        let chain = Chain::verify(&claimed, &verified, rules)?;
        draft.chain(&chain);
        let subject = verified
            .transaction
            .as_ref()
            .map(|of| SubjectId::new(&of.subject, &of.domain, self.gate.id.trust_domain()));
        let resolved = rules.route.mapping.resolve_or_workflow(record, &evidence(&verified));
        if let Ok(request) = &resolved {
            draft.request(request);
        }
        // Standing comes before the request, and of a request that cannot be found the workflow may be known.
        let workflow = match &resolved {
            Ok(request) => Some(&request.workflow),
            Err(unfound) => unfound.workflow.as_ref(),
        };
        let parties =
            Parties { claimed: &claimed, verified: &verified, chain: &chain, subject: subject.as_ref() };
        let named = parties.named(rules.trust);
        let registered = stand(&named, workflow.map(Option::as_ref), rules.route, moment, draft)?;
        let request = resolved.map_err(|unfound| unfound.denial)?;
        let case = Case {
            record: Some(record),
            route: rules.route,
            verified: &verified,
            chain: &chain,
            request: &request,
            registered: registered.as_ref(),
            subject: subject.as_ref(),
        };
        let login = settling.login(&verified, subject.as_ref(), rules.route.skew_s, draft);
        let answer = ask(&case, login.as_ref(), moment, draft)?;
        match settling.settle(record, &case, &claimed, answer, state)? {
            Settled::Allowed(allowed) => {
                let permit = Permit::from_allowed(allowed);
                draft.permitted(permit.policies());
                self.forward(record, &case, moment, permit).map(Decision::Forward)
            }
            Settled::Hold => Ok(Decision::Hold),
            Settled::Wait => Ok(Decision::Wait),
        }
    }

    /// Signs what was decided, over the record as it is forwarded.
    fn forward(
        &self,
        record: &Record,
        case: &Case<'_>,
        moment: &Moment<'_>,
        permit: Permit,
    ) -> Result<Forward, Denial> {
        let mut headers = forwarded_headers(record, moment.id);
        let token = countersign(&Forwarding {
            gate: &self.gate,
            route: case.route,
            record,
            headers: &headers,
            verified: case.verified,
            chain: case.chain,
            request: case.request,
            bundle: moment.snapshot.policy.digest(),
            id: moment.id,
            now: moment.now,
        })?;
        headers.push(Header::new(TokenKind::Countersignature.header_name(), token));
        Ok(Forward { permit, headers })
    }
}

/// Judges whether those behind the record, and its workflow, may still act (contract, section 8). The workflow is `None`
/// where it cannot be found. Gives what the registry knows of it.
pub(super) fn stand(
    named: &[Named<'_>],
    workflow: Option<Option<&Workflow>>,
    route: &Route,
    moment: &Moment<'_>,
    draft: &mut Draft,
) -> Result<Option<Found>, Denial> {
    let standing = &moment.snapshot.standing;
    let registered = workflow.flatten().and_then(|workflow| standing.workflow(&workflow.id));
    draft.workflow(workflow.flatten(), registered.as_ref());
    standing.judge_named(named, workflow.flatten(), moment.now)?;
    if let Some(workflow) = workflow {
        judge_workflow(workflow, registered.as_ref(), route.workflow)?;
    }
    Ok(registered)
}

/// Asks the policies, for the route's principal and for every party that must be allowed too. A login that was refreshed
/// stands in the place of the transaction's own, and nothing else does.
fn ask(
    case: &Case<'_>,
    login: Option<&Authentication>,
    moment: &Moment<'_>,
    draft: &mut Draft,
) -> Result<Answer, Denial> {
    let principals = case.principals()?;
    let snapshot = moment.snapshot;
    let mut facts = case.facts(moment.now);
    if let (Some(transaction), Some(login)) = (&mut facts.transaction, login) {
        transaction.token = None;
        transaction.acr = login.acr.as_deref();
        transaction.amr = login.amr.as_deref();
        transaction.auth_time = login.auth_time;
    }
    let mut answer = snapshot.policy.evaluate(&snapshot.entities, &facts, &principals);
    draft.answer(&mut answer);
    Ok(answer)
}

const DECISION_ID: &str = "decision-id";

/// The headers of a record as it is forwarded, its countersignature aside (contract, section 6): the tokens that spoke to
/// the gate are gone, and so is every incoming header, in any ASCII case, of a name that the gate writes itself.
fn forwarded_headers(record: &Record, id: DecisionId) -> Vec<Header> {
    let stays = |header: &&Header| match TokenKind::of_header(&header.name) {
        Some(kind) => kind == TokenKind::Transaction,
        None => !header.name.eq_ignore_ascii_case(DECISION_ID.as_bytes()),
    };
    let mut headers: Vec<Header> = record.headers.iter().filter(stays).cloned().collect();
    headers.push(Header::new(DECISION_ID, id.to_string()));
    headers
}
