//! The policies that are measured with: none to speak of, or as many as a real place has, of the kinds that it has.
//! Limits: each record meets a handful of them, however many there are.

use std::fs;
use std::path::Path;

use serde_json::{Value, json};

use super::BenchError;
use crate::cli::files::FileError;

/// Who sends with proof.
pub(super) const PAYER: &str = "spiffe://example.org/agent/payer";
/// Whom a route takes those for who cannot prove themselves.
pub(super) const UNPROVEN: &str = "spiffe://example.org/legacy/erp";
/// How many invoices the records are about.
pub(super) const INVOICES: u64 = 1_000;
const ACCOUNTS: u64 = 50;

const BARE_SCHEMA: &str = "
entity User;
entity Workload;
entity Invoice;
action pay appliesTo { principal: [Workload], resource: [Invoice], context: {} };
";
const BARE: &str = "@id(\"everybody\")\npermit (principal, action, resource);\n";

const SCHEMA: &str = "
entity Team;
entity Workload in [Team];
entity User;
entity Account;
entity Invoice in [Account] { frozen?: Bool };
action payments;
action pay in [payments] appliesTo {
  principal: [Workload],
  resource: [Invoice],
  context: {
    now: datetime,
    message: { topic: String, accepted_at: datetime, queued: duration },
    sender: Workload,
    transaction?: { id: String, scope: Set<String>, expires_at: datetime },
    provenance: { proven: Bool, gated: Bool },
  },
};
";

/// Writes the folder of a gate that decides nothing: one policy, which permits.
pub(super) fn write_bare(folder: &Path) -> Result<(), BenchError> {
    fs::create_dir_all(folder)?;
    write(folder, "schema.cedarschema", BARE_SCHEMA)?;
    write(folder, "policies.cedar", BARE)
}

/// Writes a folder of so many policies, at least 5, with their entities.
pub(super) fn write_many(folder: &Path, count: usize) -> Result<(), BenchError> {
    fs::create_dir_all(folder)?;
    write(folder, "schema.cedarschema", SCHEMA)?;
    write(folder, "policies.cedar", &many(count))?;
    write(folder, "entities.json", &entities().to_string())
}

/// Three that every record meets, two of the teams' and accounts' that it belongs to, and for the rest those of other
/// senders, invoices, teams and accounts.
fn many(count: usize) -> String {
    let mut text = format!(
        "@id(\"payer-pays\")
permit (principal == Workload::\"{PAYER}\", action == Action::\"pay\", resource is Invoice)
when {{ context has transaction && context.transaction.scope.contains(\"payments.pay\")
        && context.transaction.expires_at > context.now }};

@id(\"erp-pays\")
permit (principal == Workload::\"{UNPROVEN}\", action == Action::\"pay\", resource is Invoice)
when {{ context.message.queued < duration(\"24h\") }};

@id(\"frozen-invoice\")
forbid (principal, action in Action::\"payments\", resource is Invoice)
when {{ resource has frozen && resource.frozen }};

@id(\"payments-of-a-team-are-proven-or-expected\")
forbid (principal in Team::\"payments\", action == Action::\"pay\", resource)
unless {{ context.provenance.proven || context.sender == Workload::\"{UNPROVEN}\" }};

@id(\"account-0-is-closed-to-old-work\")
forbid (principal, action, resource in Account::\"0\")
when {{ context.message.queued > duration(\"7d\") }};
"
    );
    for number in 5..count {
        let of = number / 4;
        let policy = match number % 4 {
            0 => format!(
                "permit (principal == Workload::\"spiffe://example.org/agent/{of}\", action == Action::\"pay\", resource is Invoice)
when {{ context has transaction && context.transaction.scope.contains(\"payments.pay\") }};"
            ),
            1 => format!("forbid (principal, action, resource == Invoice::\"closed-{of}\");"),
            2 => format!(
                "permit (principal in Team::\"team-{of}\", action in Action::\"payments\", resource)
when {{ context.provenance.proven }};"
            ),
            _ => format!(
                "forbid (principal, action, resource in Account::\"closed-{of}\")
when {{ context.sender != principal || context.message.queued > duration(\"1h\") }};"
            ),
        };
        text += &format!("\n@id(\"rule-{number}\")\n{policy}\n");
    }
    text
}

fn entities() -> Value {
    let workloads = [PAYER, UNPROVEN].map(|id| {
        json!({"uid": {"type": "Workload", "id": id}, "attrs": {}, "parents": [{"type": "Team", "id": "payments"}]})
    });
    let accounts = (0..ACCOUNTS)
        .map(|id| json!({"uid": {"type": "Account", "id": id.to_string()}, "attrs": {}, "parents": []}));
    let invoices = (0..INVOICES).map(|id| {
        let account = (id % ACCOUNTS).to_string();
        json!({"uid": {"type": "Invoice", "id": invoice(id)}, "attrs": {"frozen": false},
               "parents": [{"type": "Account", "id": account}]})
    });
    let team = json!({"uid": {"type": "Team", "id": "payments"}, "attrs": {}, "parents": []});
    Value::Array([team].into_iter().chain(workloads).chain(accounts).chain(invoices).collect())
}

/// The id of an invoice.
pub(super) fn invoice(number: u64) -> String {
    format!("inv-{}", number % INVOICES)
}

fn write(folder: &Path, name: &str, text: &str) -> Result<(), BenchError> {
    let path = folder.join(name);
    Ok(fs::write(&path, text).map_err(|cause| FileError::write(&path, cause))?)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn there_are_as_many_policies_as_were_asked_for_each_with_a_name() {
        for count in [5, 8, 100, 1_000] {
            let text = many(count);
            let policies: cedar_policy::PolicySet = text.parse().unwrap();
            assert_eq!(policies.policies().count(), count);
            assert_eq!(text.matches("@id(").count(), count);
        }
    }
}
