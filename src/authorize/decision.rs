//! What a decision is: the reasons of the contract in their stages, a denial, and the permit without which nothing is
//! forwarded. Limits: nothing here decides; a `Permit` is made from an allowed policy answer alone.

use std::fmt;

use super::policy::Allowed;
use super::text::Text;

macro_rules! reasons {
    ($($(#[$doc:meta])* $name:ident = $code:literal in $stage:ident),+ $(,)?) => {
        /// Why a record was denied: stable codes (contract, section 8). New ones are added; none changes meaning.
        #[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord)]
        pub enum Reason { $($(#[$doc])* $name),+ }

        impl Reason {
            /// Every reason, in the order of the contract.
            pub const ALL: &'static [Self] = &[$(Self::$name),+];

            /// The code as programs read it.
            pub fn as_str(self) -> &'static str {
                match self { $(Self::$name => $code),+ }
            }

            /// The stage at which this reason is given.
            pub fn stage(self) -> Stage {
                match self { $(Self::$name => Stage::$stage),+ }
            }
        }
    };
}

/// The stages of a decision, in the order in which they are passed (contract, section 8).
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub enum Stage {
    /// Sizes, header names, what is missing, the shape of each token.
    Context,
    /// Who sent it, and whether the proof is of this record.
    Identity,
    /// The countersignature of the gate before.
    Chain,
    /// Whether any of it has been revoked or has ended.
    Standing,
    /// Which action on which resource.
    Request,
    /// What the policies say.
    Policy,
    /// Whether the destination can take it.
    Delivery,
    /// Whether a step-up has been answered.
    StepUp,
}

impl Stage {
    /// The stage's name, as it stands in Kafka Connect's headers.
    pub fn as_str(self) -> &'static str {
        match self {
            Self::Context => "context",
            Self::Identity => "identity",
            Self::Chain => "chain",
            Self::Standing => "standing",
            Self::Request => "request",
            Self::Policy => "policy",
            Self::Delivery => "delivery",
            Self::StepUp => "step-up",
        }
    }
}

reasons! {
    /// A header that the route requires is absent.
    ContextMissing = "context_missing" in Context,
    /// A token or header is not well formed.
    ContextMalformed = "context_malformed" in Context,
    /// A size bound is passed.
    ContextTooLarge = "context_too_large" in Context,
    /// The algorithm is not allowed for that trust domain, or is not the key's.
    AlgorithmNotAllowed = "algorithm_not_allowed" in Identity,
    /// The trust domain or the key is unknown for that kind of token.
    IssuerUnknown = "issuer_unknown" in Identity,
    /// A signature does not verify.
    SignatureInvalid = "signature_invalid" in Identity,
    /// A token is meant for another topic, realm or trust domain.
    AudienceMismatch = "audience_mismatch" in Identity,
    /// A token had expired.
    TokenExpired = "token_expired" in Identity,
    /// A token, or the record itself, is from the future.
    TokenNotYetValid = "token_not_yet_valid" in Identity,
    /// The proof is not of this record or of these tokens.
    ProofMismatch = "proof_mismatch" in Identity,
    /// The proof was used before at another place.
    Replayed = "replayed" in Identity,
    /// The record waited longer than the route allows.
    TooOld = "too_old" in Identity,
    /// The countersignature does not hold.
    ChainInvalid = "chain_invalid" in Chain,
    /// The work passed through too many senders.
    ChainTooDeep = "chain_too_deep" in Chain,
    /// A revocation in force names a party, a token or a key.
    Revoked = "revoked" in Standing,
    /// The registry does not know the workflow.
    WorkflowUnknown = "workflow_unknown" in Standing,
    /// The workflow has ended.
    WorkflowEnded = "workflow_ended" in Standing,
    /// The workflow is not at that step.
    WorkflowOutOfStep = "workflow_out_of_step" in Standing,
    /// No action or resource could be found.
    RequestUnmapped = "request_unmapped" in Request,
    /// The sender says one thing and the record another.
    RequestMismatch = "request_mismatch" in Request,
    /// The schema does not admit the request.
    RequestInvalid = "request_invalid" in Request,
    /// A `forbid` applied.
    Forbidden = "forbidden" in Policy,
    /// No `permit` applied.
    NotPermitted = "not_permitted" in Policy,
    /// A policy errored while it was evaluated.
    PolicyError = "policy_error" in Policy,
    /// The destination cannot take the record.
    Undeliverable = "undeliverable" in Delivery,
    /// A step-up is needed and the route does not hold.
    StepUpRequired = "step_up_required" in StepUp,
    /// The step-up was refused.
    StepUpRefused = "step_up_refused" in StepUp,
    /// Nobody answered in time.
    StepUpTimedOut = "step_up_timed_out" in StepUp,
    /// The step-up's grant does not hold.
    StepUpInvalid = "step_up_invalid" in StepUp,
}

impl fmt::Display for Reason {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.as_str())
    }
}

/// A record refused: a code for programs and a sentence for a person. The sentence never holds a token.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("{reason}: {detail}")]
pub struct Denial {
    /// The code.
    pub reason: Reason,
    /// The sentence: lowercase, no final period.
    pub detail: String,
}

impl Denial {
    /// A denial with its sentence.
    pub fn new(reason: Reason, detail: impl Into<String>) -> Self {
        Self { reason, detail: detail.into() }
    }
}

/// Leave to forward one record. Only an allowed policy answer makes one, and forwarding consumes it.
#[derive(Debug)]
pub struct Permit {
    policies: Vec<Text>,
}

impl Permit {
    /// From what the policies allowed; `Allowed` itself comes from an evaluation alone.
    pub(super) fn from_allowed(allowed: Allowed) -> Self {
        Self { policies: allowed.into_policies() }
    }

    /// The ids of the policies that permitted, sorted.
    pub fn policies(&self) -> &[Text] {
        &self.policies
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn codes_are_distinct_snake_case_and_stages_never_go_back() {
        let mut seen = std::collections::BTreeSet::new();
        let mut last = Stage::Context;
        for reason in Reason::ALL {
            assert!(seen.insert(reason.as_str()));
            assert!(reason.as_str().bytes().all(|b| b.is_ascii_lowercase() || b == b'_'));
            assert!(reason.stage() >= last, "{reason}");
            last = reason.stage();
        }
        assert_eq!(seen.len(), 29);
    }
}
