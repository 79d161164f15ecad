//! What comes out of an evaluation: the verdict, who determined it, what erred, and the step-ups that are asked for.
//! Limits: an [`Allowed`] is made by evaluation alone, so holding one is proof that policies allowed.

use crate::authorize::decision::Denial;
use crate::authorize::step_up::Discharged;
use crate::authorize::text::Text;

/// Proof that every principal asked about was allowed; carries the ids of the permits that allowed them, sorted.
#[derive(Debug, PartialEq, Eq)]
pub struct Allowed {
    policies: Vec<Text>,
}

impl Allowed {
    // INVARIANT: called by evaluation alone, once every principal was allowed without an error and no step-up applies.
    pub(super) fn by(policies: Vec<Text>) -> Self {
        Self { policies }
    }

    /// The ids of the permits, sorted.
    pub fn policies(&self) -> &[Text] {
        &self.policies
    }

    /// The ids of the permits, sorted.
    pub fn into_policies(self) -> Vec<Text> {
        self.policies
    }
}

/// Proof that every principal asked about would be allowed, once the step-ups that apply are discharged.
#[derive(Debug)]
pub struct Conditional {
    allowed: Allowed,
    step_ups: Vec<StepUp>,
}

impl Conditional {
    // INVARIANT: called by evaluation alone, once every principal was allowed without an error but for these step-ups.
    pub(super) fn on(allowed: Allowed, step_ups: Vec<StepUp>) -> Self {
        Self { allowed, step_ups }
    }

    /// The step-ups that apply, sorted by policy id.
    pub fn step_ups(&self) -> &[StepUp] {
        &self.step_ups
    }

    /// The permit, where valid answers discharge every step-up that applies.
    ///
    /// # Errors
    /// Itself, where one of them is not discharged, or not by as many as it asks for. No number of approvals discharges one
    /// that asks for a login: after a fresh one it applies no more.
    pub fn discharge(self, by: &Discharged) -> Result<Allowed, Self> {
        match self
            .step_ups
            .iter()
            .all(|asked| !asked.is_of_login() && by.covers(&asked.name, asked.approvals))
        {
            true => Ok(self.allowed),
            false => Err(self),
        }
    }
}

/// What the policies say about one request.
#[derive(Debug)]
pub struct Answer {
    /// Allowed, or the reason why not: `request_invalid`, `policy_error`, `forbidden`, `not_permitted` or
    /// `step_up_required`.
    pub verdict: Result<Allowed, Denial>,
    /// Where the verdict is `step_up_required`: what would be allowed if the step-ups were discharged.
    pub conditional: Option<Conditional>,
    /// The ids of the policies that determined the verdict, sorted.
    pub determining: Vec<Text>,
    /// The policies that erred, sorted by id, each with what went wrong.
    pub errors: Vec<(String, String)>,
    /// The context as evaluated, as JSON with masked members replaced by `"***"`; `None` where the request was invalid
    /// before there was a context.
    pub context_json: Option<String>,
    /// The masked paths that were present, sorted.
    pub masked: Vec<String>,
    /// The step-ups that apply, sorted by policy id.
    pub step_ups: Vec<StepUp>,
}

/// A step-up that a policy asks for (contract, section 7).
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord)]
pub struct StepUp {
    /// The name in `@step_up`.
    pub name: String,
    /// The id of the policy.
    pub policy: String,
    /// `@message`: a sentence for the person who answers.
    pub message: Option<String>,
    /// `@approvals`: how many must approve; 0 where only a fresh login of the subject discharges it.
    pub approvals: u32,
    /// `@hold`: how long the record is held, in seconds.
    pub hold_s: Option<u32>,
    /// `@grant`: how long a grant is good, in seconds.
    pub grant_s: Option<u32>,
    /// `@acr`: how strong a login would do, values of `acr` separated by spaces, the best first (RFC 9470).
    pub acr_values: Option<String>,
    /// `@max_age`: how old a login may be, in seconds (RFC 9470).
    pub max_age_s: Option<u32>,
}

impl StepUp {
    /// Whether it says which login would do: the subject's where its policy looks at that, else that of whoever answers.
    pub(super) fn asks_for_login(&self) -> bool {
        self.acr_values.is_some() || self.max_age_s.is_some()
    }

    /// Whether only a fresh login of the subject discharges it.
    pub fn is_of_login(&self) -> bool {
        self.approvals == 0
    }
}
