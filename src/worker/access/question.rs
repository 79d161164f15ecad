//! What is asked and what is answered, as bytes and back. Limits: an answer is allowed only where the gate said so with
//! nothing left to do; everything else is a denial or no answer.

use serde_json::{Value, json};

use crate::authorize::access::{Asking, Reply, STEP_UP};
use crate::authorize::carried::Carried;
use crate::authorize::ids::WorkloadId;
use crate::authorize::json;
use crate::authorize::request::{Action, Resource, Workflow};

/// One question: may the caller do this to that now?
#[derive(Clone)]
pub struct Question {
    action: Action,
    resource: Resource,
    workflow: Option<Workflow>,
    subject: Option<(String, String)>,
    pub(super) transaction: Option<String>,
    pub(super) countersignature: Option<String>,
    pub(super) request_id: Option<String>,
}

impl Question {
    /// About the caller itself, on nobody's behalf.
    pub fn new(action: Action, resource: Resource) -> Self {
        Self {
            action,
            resource,
            workflow: None,
            subject: None,
            transaction: None,
            countersignature: None,
            request_id: None,
        }
    }

    /// As part of the work that a record brought: its countersignature and its Txn-Token go along.
    #[must_use]
    pub fn carrying(mut self, carried: &Carried) -> Self {
        self.countersignature = Some(carried.countersignature.to_string());
        self.transaction = carried.transaction.as_ref().map(ToString::to_string);
        self
    }

    /// On behalf of whom this Txn-Token names.
    #[must_use]
    pub fn transaction(mut self, token: &str) -> Self {
        self.transaction = Some(token.to_owned());
        self
    }

    /// As part of this workflow, at this step.
    #[must_use]
    pub fn workflow(mut self, workflow: Workflow) -> Self {
        self.workflow = Some(workflow);
        self
    }

    /// About somebody else, by entity type and id: policy decides who may ask that.
    #[must_use]
    pub fn about(mut self, kind: &str, id: &str) -> Self {
        self.subject = Some((kind.to_owned(), id.to_owned()));
        self
    }

    /// Under this id instead of a random one: 1 to 128 printable ASCII characters.
    #[must_use]
    pub fn request_id(mut self, id: &str) -> Self {
        self.request_id = Some(id.to_owned());
        self
    }

    /// The body of the request that `caller` sends.
    pub fn body(&self, caller: &WorkloadId) -> String {
        let (kind, id) = match &self.subject {
            Some((kind, id)) => (kind.as_str(), id.as_str()),
            None => ("Workload", caller.as_str()),
        };
        let mut body =
            json!({"subject": {"type": kind, "id": id}, "action": self.action, "resource": self.resource});
        if let (Some(workflow), Some(members)) = (&self.workflow, body.as_object_mut()) {
            members.insert("context".to_owned(), json!({"workflow": workflow}));
        }
        body.to_string()
    }
}

// By hand: the tokens are live credentials.
impl std::fmt::Debug for Question {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Question")
            .field("action", &self.action)
            .field("resource", &self.resource)
            .field("workflow", &self.workflow)
            .finish_non_exhaustive()
    }
}

/// What the gate said.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Answer {
    /// Whether it is allowed.
    pub decision: bool,
    /// The id of the decision, under which its audit record stands.
    pub decision_id: Option<String>,
    /// The code of a denial (contract, section 8).
    pub reason: Option<String>,
    /// The sentence that goes with it.
    pub detail: Option<String>,
    /// The step-ups that would change a denial.
    pub step_up: Option<Asking>,
}

/// Why there is no answer. Nothing may be done then.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum Unanswered {
    /// The request could not be signed.
    #[error("the request could not be signed: {0}")]
    Unsigned(String),
    /// No gate is in reach.
    #[error("no gate answers: {0}")]
    Unreachable(String),
    /// The gate is there and cannot decide now: ask again later, with a new proof.
    #[error("the gate cannot decide now: {0}")]
    Unavailable(String),
    /// The gate does not know the caller, or does not understand the request.
    #[error("the gate refused the request with {status}: {message}")]
    Refused {
        /// The HTTP status.
        status: u16,
        /// Its sentence; it begins with the contract's code where there is one.
        message: String,
    },
    /// What came back is no answer of AuthZEN.
    #[error("the answer cannot be read")]
    Unreadable,
}

impl Answer {
    /// Reads the answer to one question from its status and body.
    ///
    /// # Errors
    /// [`Unanswered`] for every status but 200, and for a body that is no decision.
    pub fn read(status: u16, body: &[u8]) -> Result<Self, Unanswered> {
        if status != 200 {
            let text = String::from_utf8_lossy(body);
            let message: String = text.trim_end().chars().take(1024).collect();
            return Err(match status {
                503 => Unanswered::Unavailable(message),
                _ => Unanswered::Refused { status, message },
            });
        }
        let reply = json::parse_object(body).map_err(|_| Unanswered::Unreadable)?;
        let reply: Reply =
            serde_json::from_value(Value::Object(reply)).map_err(|_| Unanswered::Unreadable)?;
        let mut context = reply.context.unwrap_or_default();
        // Obligations profile: what cannot be fulfilled makes the whole a denial.
        let decision = reply.decision && context.obligations.is_empty();
        let step_up = context.obligations.into_iter().find(|obligation| obligation.kind == STEP_UP);
        Ok(Self {
            decision,
            decision_id: context.decision_id,
            reason: context.reason,
            detail: context.reason_admin.remove("en"),
            step_up: step_up.map(|obligation| obligation.properties),
        })
    }
}
