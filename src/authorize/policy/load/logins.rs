//! Which step-ups are about the login of the transaction (contract, section 7): only a fresh login discharges them. Limits: it
//! looks at names of attributes alone, so it takes a policy for one about a login rather than not.

use serde_json::Value;

/// The attributes of a transaction that say how its subject has logged in.
const OF_LOGIN: [&str; 3] = ["acr", "amr", "authenticated_at"];

/// Whether a policy, in Cedar's JSON form, looks at how the subject has logged in.
pub(super) fn looks_at_login(policy: &Value) -> bool {
    match policy {
        Value::Array(values) => values.iter().any(looks_at_login),
        Value::Object(members) => members.iter().any(|(operator, of)| {
            let reads = matches!(operator.as_str(), "." | "has") && of.get("attr").is_some_and(names_login);
            reads || looks_at_login(of)
        }),
        _ => false,
    }
}

/// A name, or the names of `has` with several.
fn names_login(attribute: &Value) -> bool {
    match attribute {
        Value::String(name) => OF_LOGIN.contains(&name.as_str()),
        Value::Array(names) => names.iter().any(names_login),
        _ => false,
    }
}

#[cfg(test)]
mod tests {
    use cedar_policy::Policy;

    use super::*;

    #[test]
    fn a_policy_looks_at_a_login_where_it_names_one_of_its_attributes_in_any_form() {
        for (condition, looks) in [
            ("context.transaction.acr == \"phr\"", true),
            ("context.transaction[\"amr\"].contains(\"hwk\")", true),
            ("context has transaction.authenticated_at", true),
            ("context.transaction has acr", true),
            ("(if context.a then context.transaction else context.transaction).acr == \"phr\"", true),
            ("context.value.amount > 5", false),
            ("context.note == \"acr\"", false),
            ("[\"acr\", \"authenticated_at\"].contains(context.note)", false),
        ] {
            let text = format!("forbid (principal, action, resource) when {{ {condition} }};");
            let policy: Policy = text.parse().unwrap();
            assert_eq!(looks_at_login(&policy.to_json().unwrap()), looks, "{condition}");
        }
    }
}
