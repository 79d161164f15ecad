//! The answer to an access evaluation as AuthZEN writes it (Authorization API 1.0, section 5.5; Obligations profile 1.0), for
//! the gate that writes it and the worker that reads it. Limits: plain values; what a reader does not know it ignores.

use std::collections::BTreeMap;

use serde::{Deserialize, Serialize};

use crate::authorize::decision::{Denial, Reason, Stage};
use crate::authorize::policy::StepUp;

/// The type of the obligation that asks for a step-up.
pub const STEP_UP: &str = "step-up";

/// One decision.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Reply {
    /// Whether it is allowed.
    pub decision: bool,
    /// What else is said about it.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub context: Option<ReplyContext>,
}

/// `context` of a decision.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct ReplyContext {
    /// The id of the decision, under which its audit record stands.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub decision_id: Option<String>,
    /// The code of a denial (contract, section 8).
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub reason: Option<String>,
    /// The sentence for whoever runs the system, by language.
    #[serde(default, skip_serializing_if = "BTreeMap::is_empty")]
    pub reason_admin: BTreeMap<String, String>,
    /// The sentence for whoever wanted it: it names no policy.
    #[serde(default, skip_serializing_if = "BTreeMap::is_empty")]
    pub reason_user: BTreeMap<String, String>,
    /// What has to be done before it could be allowed.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub obligations: Vec<Obligation>,
    /// What is wrong with one evaluation of a list.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub error: Option<ItemError>,
}

/// An obligation: of type [`STEP_UP`] alone.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Obligation {
    /// Its id: the decision's.
    pub id: String,
    /// `step-up`.
    #[serde(rename = "type")]
    pub kind: String,
    /// What the policies ask for.
    pub properties: Asking,
}

/// The step-ups that policies ask for.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Asking {
    /// Each of them, sorted by policy.
    #[serde(default)]
    pub step_ups: Vec<AskedStepUp>,
    /// The id that an answer must name.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub challenge: Option<String>,
    /// The digest that an answer must name (contract, section 7).
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub digest: Option<String>,
}

/// One step-up that is asked for.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct AskedStepUp {
    /// Its name.
    pub name: String,
    /// The policy that asks.
    pub policy: String,
    /// How many must approve; 0 where only a fresh login of the subject discharges it: the next request brings a Txn-Token of it.
    pub approvals: u32,
    /// The sentence for the person who answers.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub message: Option<String>,
    /// Which logins would do, as RFC 9470 writes it, best first.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub acr_values: Option<String>,
    /// How old a login may be, in seconds (RFC 9470).
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub max_age: Option<u32>,
}

/// Why one evaluation of a list has no decision of its own.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct ItemError {
    /// The status that it would have had alone.
    pub status: u16,
    /// What is wrong.
    pub message: String,
}

/// The answers to a list, in its order.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Replies {
    /// One for each evaluation that was looked at.
    pub evaluations: Vec<Reply>,
}

impl Reply {
    /// It is allowed.
    pub(super) fn allow(decision_id: String) -> Self {
        let context = ReplyContext { decision_id: Some(decision_id), ..ReplyContext::default() };
        Self { decision: true, context: Some(context) }
    }

    /// It is denied; `asking` where a step-up would change that.
    pub(super) fn deny(decision_id: String, denial: &Denial, asking: Option<Asking>) -> Self {
        let english = |text: &str| BTreeMap::from([("en".to_owned(), text.to_owned())]);
        let obligations = asking.into_iter().map(|properties| Obligation {
            id: decision_id.clone(),
            kind: STEP_UP.to_owned(),
            properties,
        });
        let context = ReplyContext {
            reason: Some(denial.reason.as_str().to_owned()),
            reason_admin: english(&denial.detail),
            reason_user: english(for_users(denial.reason)),
            obligations: obligations.collect(),
            decision_id: Some(decision_id),
            error: None,
        };
        Self { decision: false, context: Some(context) }
    }

    /// The same with what is wrong with its form.
    #[must_use]
    pub(super) fn with_error(mut self, status: u16, message: &str) -> Self {
        if let Some(context) = &mut self.context {
            context.error = Some(ItemError { status, message: message.to_owned() });
        }
        self
    }
}

impl From<&StepUp> for AskedStepUp {
    fn from(asked: &StepUp) -> Self {
        Self {
            name: asked.name.clone(),
            policy: asked.policy.clone(),
            approvals: asked.approvals,
            message: asked.message.clone(),
            acr_values: asked.acr_values.clone(),
            max_age: asked.max_age_s,
        }
    }
}

fn for_users(reason: Reason) -> &'static str {
    match (reason.stage(), reason) {
        (Stage::StepUp, Reason::StepUpRequired) => "This needs an approval first.",
        (Stage::StepUp, _) => "The approval that this needs was not given.",
        (Stage::Standing, Reason::Revoked) => "The right to do this was taken back.",
        (Stage::Standing, _) => "The work that this belongs to may not go on.",
        (Stage::Request, _) => "This cannot be asked for in this way.",
        _ => "This is not allowed.",
    }
}
