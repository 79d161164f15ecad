//! A decision in words for a person: what was checked, what failed, which policies spoke, and what would be needed.
//! Limits: it tells what the audit record holds, and nothing that was not verified.

use std::io::{self, Write};

use super::desk::Decided;
use crate::authorize::audit::AuditRecord;
use crate::authorize::decision::{Denial, Reason, Stage};
use crate::cli::output::plain;

/// The stages that a record passes here, in their order.
const STAGES: [(Stage, &str); 5] = [
    (Stage::Context, "context"),
    (Stage::Identity, "identity"),
    (Stage::Chain, "chain"),
    (Stage::Request, "request"),
    (Stage::Policy, "policy"),
];

/// Writes one decision.
pub(super) fn write(out: &mut dyn Write, decided: &Decided, colored: bool) -> io::Result<()> {
    let Decided { denial, audit, asked } = decided;
    let (mark, style) = match audit.outcome.as_str() {
        "hold" => ("HOLD", "33"),
        "wait" => ("WAIT", "33"),
        _ if denial.is_none() => ("FORWARD", "32"),
        _ => ("DENY", "31"),
    };
    let mark = if colored { format!("\u{1b}[1;{style}m{mark}\u{1b}[0m") } else { mark.to_owned() };
    let place = format!("{}/{}/{}", audit.topic, audit.partition, audit.offset);
    match denial {
        None => writeln!(out, "{mark} {place}")?,
        Some(denial) => writeln!(out, "{mark} {place}: {}", denial.reason)?,
    }
    for (stage, name) in STAGES {
        match denial {
            Some(denial) if denial.reason.stage() < stage => writeln!(out, "  - {name:<9} not reached")?,
            Some(denial) if denial.reason.stage() == stage => {
                writeln!(out, "  x {name:<9} {}", plain(&denial.detail))?;
                write_policies(out, stage, audit)?;
            }
            _ => {
                writeln!(out, "  + {name:<9} {}", passed(stage, audit))?;
                write_policies(out, stage, audit)?;
            }
        }
    }
    for ask in asked.iter().flat_map(|challenge| &challenge.step_ups) {
        let (name, count) = (&ask.name, ask.approvals);
        let people = match count {
            0 => "a fresh login".to_owned(),
            1 => "1 approval".to_owned(),
            _ => format!("{count} approvals"),
        };
        writeln!(out, "  ? {name:<9} {} ({people})", plain(&ask.message))?;
    }
    match denial {
        None => Ok(()),
        Some(denial) => {
            // A reason of a stage that is not listed would else be left without its sentence.
            if !STAGES.iter().any(|(stage, _)| *stage == denial.reason.stage()) {
                writeln!(out, "  x {}", plain(&denial.detail))?;
            }
            writeln!(out, "  needed: {}", needed(denial))
        }
    }
}

fn write_policies(out: &mut dyn Write, stage: Stage, audit: &AuditRecord) -> io::Result<()> {
    if stage != Stage::Policy {
        return Ok(());
    }
    if !audit.policies.is_empty() {
        writeln!(out, "    {:<9} {}", "spoke", audit.policies.join(", "))?;
    }
    for error in &audit.errors {
        writeln!(out, "    {:<9} {}: {}", "errored", error.policy, plain(&error.message))?;
    }
    if let Some(context) = &audit.context {
        writeln!(out, "    {:<9} {}", "context", plain(context))?;
    }
    Ok(())
}

/// What a stage that was passed has established.
fn passed(stage: Stage, audit: &AuditRecord) -> String {
    let said = match stage {
        Stage::Context => "well formed".to_owned(),
        Stage::Identity => {
            let sender = audit.sender.as_deref().unwrap_or("nobody");
            let proven = if audit.proven { "" } else { ", on the word of the topic's access control" };
            match (&audit.subject, &audit.transaction) {
                (Some(subject), Some(transaction)) => format!(
                    "{sender}{proven}, for `{subject}` in transaction `{transaction}` with scope `{}`",
                    audit.scope.join(" ")
                ),
                _ => format!("{sender}{proven}"),
            }
        }
        Stage::Chain if audit.chain.is_empty() => "the work begins here".to_owned(),
        Stage::Chain => format!(
            "continues from {} by way of {}",
            audit.continues_from.as_deref().unwrap_or("a gate"),
            audit.chain.join(", ")
        ),
        Stage::Request => match (&audit.action, &audit.resource) {
            (Some(action), Some(resource)) => {
                format!("`{}` on {} `{}`", action.name, resource.kind, resource.id)
            }
            _ => "nothing".to_owned(),
        },
        _ => "allowed".to_owned(),
    };
    plain(&said)
}

/// What would have to be different, in one sentence.
fn needed(denial: &Denial) -> &'static str {
    match denial.reason {
        Reason::ContextMissing => "a record with every header that the route's `require` names",
        Reason::ContextMalformed => "tokens as the contract writes them, each header once, in lower case",
        Reason::ContextTooLarge => "at most 64 headers, 8 KiB a token and 32 KiB together",
        Reason::AlgorithmNotAllowed => {
            "a token signed with an algorithm of the domain's `algorithms`, by a key of that algorithm"
        }
        Reason::IssuerUnknown => "the signer's key in the trust domain's key file for that kind of token",
        Reason::SignatureInvalid => "the token as its issuer signed it",
        Reason::AudienceMismatch => "tokens made out for this realm, topic and trust domain",
        Reason::TokenExpired => "tokens that had not expired when the broker took the record",
        Reason::TokenNotYetValid => "clocks that agree: the producer's, the issuer's and the broker's",
        Reason::ProofMismatch => "a proof made over exactly this record and these tokens",
        Reason::Replayed => "a new proof for each record, at the partition that it is for",
        Reason::TooOld => "a decision sooner after the record was written, or a longer `max_queue_time`",
        Reason::ChainInvalid => {
            "a countersignature by a gate of a trusted domain, for this realm and transaction"
        }
        Reason::ChainTooDeep => "work that passes through at most 8 senders",
        Reason::Revoked => "a sender, token and key that are not revoked",
        Reason::WorkflowUnknown => "a workflow that the registry knows",
        Reason::WorkflowEnded => "a workflow that has not ended",
        Reason::WorkflowOutOfStep => "a step that the registry allows now",
        Reason::RequestUnmapped => {
            "action and resource in the proof, or a mapping that finds them in the record"
        }
        Reason::RequestMismatch => "a proof that asks for what the record itself asks for",
        Reason::RequestInvalid => "an action, types and properties that the schema declares",
        Reason::Forbidden => "that no `forbid` applies: see the policies that spoke",
        Reason::NotPermitted => {
            "a `permit` policy that applies to this principal, action, resource and context"
        }
        Reason::PolicyError => "policies that evaluate without error on this record: see those that errored",
        Reason::Undeliverable => "a record that the destination topic takes",
        Reason::StepUpRequired => "an approval, on a route that holds records",
        Reason::StepUpRefused | Reason::StepUpTimedOut => "an approval in time",
        Reason::StepUpInvalid => "a grant for this exact request by an approver who may give it",
    }
}
