//! What each type of security event means for work: CAEP 1.0, RISC 1.0 and SSF 1.0. Limits: a gate knows no sessions and
//! no devices, so what narrows an event to one of them does not narrow it here; a type that it does not know is reported.

use super::statement::StatementError;
use crate::authorize::claims::{Malformed, Members};

/// What follows from an event.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Meaning {
    /// What was issued before it is revoked.
    RevokesBefore,
    /// Everything is revoked.
    RevokesAll,
    /// Everything is revoked until the same transmitter enables the account.
    Disables,
    /// What was disabled before is no longer.
    Enables,
    /// Nothing is revoked.
    Nothing,
}

const CAEP: &str = "https://schemas.openid.net/secevent/caep/event-type/";
const RISC: &str = "https://schemas.openid.net/secevent/risc/event-type/";
const SSF: &str = "https://schemas.openid.net/secevent/ssf/event-type/";

/// The meaning of an event of that type. Where a member decides, what is absent or unknown revokes.
pub(super) fn meaning(event_type: &str, event: &mut Members) -> Result<Meaning, StatementError> {
    let known = |prefix| event_type.strip_prefix(prefix);
    if let Some(name) = known(CAEP) {
        caep(name, event)
    } else if let Some(name) = known(RISC) {
        risc(name)
    } else if matches!(known(SSF), Some("verification" | "stream-updated")) {
        Ok(Meaning::Nothing)
    } else {
        Err(StatementError::UnknownEvent)
    }
}

fn caep(name: &str, event: &mut Members) -> Result<Meaning, StatementError> {
    let unless = |harmless: bool| if harmless { Meaning::Nothing } else { Meaning::RevokesBefore };
    Ok(match name {
        // The tokens carry claims that no longer hold.
        "session-revoked" | "token-claims-change" => Meaning::RevokesBefore,
        "credential-change" => match event.text("change_type")?.as_str() {
            "create" => Meaning::Nothing,
            "revoke" | "update" | "delete" => Meaning::RevokesBefore,
            _ => {
                let rule = "needs `change_type` to be `create`, `revoke`, `update` or `delete`";
                return Err(Malformed::new(rule).into());
            }
        },
        "assurance-level-change" => {
            unless(event.optional_text("change_direction")?.as_deref() == Some("increase"))
        }
        "device-compliance-change" => unless(event.text("current_status")? == "compliant"),
        "risk-level-change" => unless(matches!(event.text("current_level")?.as_str(), "LOW" | "MEDIUM")),
        "session-established" | "session-presented" => Meaning::Nothing,
        _ => return Err(StatementError::UnknownEvent),
    })
}

fn risc(name: &str) -> Result<Meaning, StatementError> {
    Ok(match name {
        "account-disabled" => Meaning::Disables,
        "account-enabled" => Meaning::Enables,
        "account-purged" => Meaning::RevokesAll,
        // A recycled identifier is somebody else from then on.
        "account-credential-change-required"
        | "credential-compromise"
        | "sessions-revoked"
        | "identifier-recycled" => Meaning::RevokesBefore,
        "identifier-changed"
        | "opt-in"
        | "opt-out-initiated"
        | "opt-out-cancelled"
        | "opt-out-effective"
        | "recovery-activated"
        | "recovery-information-changed" => Meaning::Nothing,
        _ => return Err(StatementError::UnknownEvent),
    })
}
