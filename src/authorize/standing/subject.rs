//! Whom a security event names (RFC 9493; complex subjects of SSF 1.0), in the gate's own terms. Limits: a transmitter does
//! not know trust domains, so whom it names is a subject of the gate's own domain, or `<domain>/<sub>` where the transmitter
//! writes that; an identifier that is a SPIFFE ID names a workload.

use super::revocation::{Kind, Target};
use super::statement::{StatementError, target};
use crate::authorize::claims::{Malformed, Members};
use crate::authorize::ids::WorkloadId;
use crate::authorize::limits::MAX_ALIASES;

/// Everything that a subject identifier names; at least one.
pub(super) fn targets(mut sub_id: Members) -> Result<Vec<Target>, StatementError> {
    match sub_id.text("format")?.as_str() {
        "complex" => complex(sub_id),
        "aliases" => {
            let identifiers = sub_id.objects("identifiers")?;
            if identifiers.is_empty() || identifiers.len() > MAX_ALIASES {
                let rule = format!("needs 1 to {MAX_ALIASES} `sub_id.identifiers`");
                return Err(Malformed::new(rule).into());
            }
            let mut all = Vec::new();
            for mut identifier in identifiers {
                let format = identifier.text("format")?;
                for target in simple(&format, identifier)? {
                    if !all.contains(&target) {
                        all.push(target);
                    }
                }
            }
            Ok(all)
        }
        format => simple(format, sub_id),
    }
}

/// A complex subject is what all its members have in common. A gate knows users, workloads and tokens; the sessions, devices
/// and tenants that narrow them it does not, so it takes the user as a whole.
fn complex(mut subject: Members) -> Result<Vec<Target>, StatementError> {
    for name in ["user", "application", "session"] {
        let Some(mut member) = subject.optional_object(name)? else { continue };
        let format = member.text("format")?;
        let named = match (name, simple(&format, member)) {
            ("user", named) => return named,
            (_, Ok(named)) => named,
            (_, Err(StatementError::Nobody(_))) => continue,
            (_, Err(error)) => return Err(error),
        };
        let wanted = if name == "session" { Kind::Token } else { Kind::Workload };
        if named.iter().all(|target| target.kind == wanted) {
            return Ok(named);
        }
    }
    Err(StatementError::Nobody("a complex subject without a `user`, and no workload or token in it"))
}

fn simple(format: &str, mut identifier: Members) -> Result<Vec<Target>, StatementError> {
    let member = match format {
        "account" | "uri" => "uri",
        "email" => "email",
        "iss_sub" => {
            identifier.text("iss")?;
            "sub"
        }
        "opaque" => "id",
        "phone_number" => "phone_number",
        "did" => "url",
        "jwt_id" => {
            identifier.text("iss")?;
            return Ok(vec![target(Kind::Token, &identifier.text("jti")?)?]);
        }
        _ => return Err(StatementError::Nobody("a subject identifier of a format that is not known")),
    };
    let id = identifier.text(member)?;
    if WorkloadId::parse(&id).is_ok() {
        return Ok(vec![target(Kind::Workload, &id)?]);
    }
    let mut named = vec![target(Kind::Subject, &id)?];
    if let ("account", Some(account)) = (format, id.strip_prefix("acct:")) {
        named.push(target(Kind::Subject, account)?);
    }
    Ok(named)
}
