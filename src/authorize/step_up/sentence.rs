//! The sentence for the person who answers: the text of `@message` with fields of the record in it. Limits: it is read by
//! a person who decides by it, so what a sender wrote is short, on one line, and cannot turn the text around.

use std::fmt::Write as _;

use serde_json::{Map, Value};

/// Characters of one field, and of the whole sentence.
const LONGEST_FIELD: usize = 128;
const LONGEST: usize = 1024;

/// Fields that have a name of their own.
const FIELDS: [&str; 11] = [
    "action.name",
    "resource.type",
    "resource.id",
    "sender",
    "subject",
    "transaction.id",
    "workflow.id",
    "workflow.type",
    "workflow.step",
    "workflow.state",
    "route",
];
/// What is a claim or a mapped value, whose members no one knows before a record comes.
const OPEN: [&str; 3] = ["value.", "action.properties.", "resource.properties."];

/// A part of a text.
#[derive(Debug, PartialEq, Eq)]
enum Part<'t> {
    Text(&'t str),
    Field(&'t str),
}

/// What a sentence may name.
#[derive(Debug, Clone, Copy)]
pub struct Fields<'a> {
    /// The route's name.
    pub route: &'a str,
    /// The verified sender.
    pub sender: &'a str,
    /// The subject, as the id of its entity.
    pub subject: Option<&'a str>,
    /// `txn`.
    pub transaction: Option<&'a str>,
    /// The request.
    pub request: &'a crate::authorize::request::Request,
    /// Dotted paths of the context that may not be shown.
    pub mask: &'a [String],
}

/// Says what is wrong with a text: a brace that is not closed, a field that does not exist. `{{` and `}}` are braces.
pub fn check(text: &str) -> Result<(), String> {
    for part in parts(text)? {
        if let Part::Field(name) = part
            && !FIELDS.contains(&name)
            && !OPEN.iter().any(|open| name.strip_prefix(open).is_some_and(|path| !path.is_empty()))
        {
            return Err(format!("`{{{name}}}` is no field"));
        }
    }
    Ok(())
}

/// The text with its fields; without a text, who asks for what. What is absent is `-`, what is masked `***`.
pub fn render(text: Option<&str>, fields: &Fields<'_>) -> String {
    const PLAIN: &str = "{sender} asks to `{action.name}` {resource.type} `{resource.id}`";
    let parts = text.map_or_else(|| parts(PLAIN), parts).unwrap_or_default();
    let mut sentence = String::new();
    for part in parts {
        match part {
            Part::Text(text) => sentence.push_str(text),
            Part::Field(name) => sentence.push_str(&plain(&fields.get(name), LONGEST_FIELD)),
        }
    }
    plain(&sentence, LONGEST)
}

fn parts(text: &str) -> Result<Vec<Part<'_>>, String> {
    let mut parts = Vec::new();
    let mut rest = text;
    while let Some(at) = rest.find(['{', '}']) {
        let (before, brace) = rest.split_at(at);
        parts.push(Part::Text(before));
        if let Some(after) = brace.strip_prefix("{{").or_else(|| brace.strip_prefix("}}")) {
            parts.push(Part::Text(brace.get(..1).unwrap_or_default()));
            rest = after;
            continue;
        }
        let field = brace.strip_prefix('{').and_then(|inner| inner.split_once('}'));
        let Some((name, after)) = field else {
            return Err(
                "a brace is open, or closes nothing: write `{{` or `}}` for a brace itself".to_owned()
            );
        };
        parts.push(Part::Field(name));
        rest = after;
    }
    parts.push(Part::Text(rest));
    Ok(parts)
}

impl Fields<'_> {
    fn get(&self, name: &str) -> String {
        let request = self.request;
        let workflow = request.workflow.as_ref();
        let found = match name {
            "action.name" => Some(request.action.name.clone()),
            "resource.type" => Some(request.resource.kind.clone()),
            "resource.id" => Some(request.resource.id.clone()),
            "route" => Some(self.route.to_owned()),
            "sender" => Some(self.sender.to_owned()),
            "subject" => self.subject.map(str::to_owned),
            "transaction.id" => self.transaction.map(str::to_owned),
            "workflow.id" => workflow.map(|workflow| workflow.id.clone()),
            "workflow.type" => workflow.map(|workflow| workflow.kind.clone()),
            "workflow.step" => workflow.map(|workflow| workflow.step.clone()),
            "workflow.state" => workflow.map(|workflow| workflow.state.clone()),
            _ => self.open(name),
        };
        found.unwrap_or_else(|| "-".to_owned())
    }

    fn open(&self, name: &str) -> Option<String> {
        let request = self.request;
        let [value, action, resource] = OPEN.map(|open| name.strip_prefix(open));
        let (members, path, seen) = match (value, action, resource) {
            (Some(path), ..) => (request.value.as_ref(), path, format!("value.{path}")),
            (_, Some(path), _) => {
                (request.action.properties.as_ref(), path, format!("request.action.{path}"))
            }
            (.., Some(path)) => {
                (request.resource.properties.as_ref(), path, format!("request.resource.{path}"))
            }
            _ => return None,
        };
        let masked = |mask: &String| {
            seen.strip_prefix(mask.as_str()).is_some_and(|rest| rest.is_empty() || rest.starts_with('.'))
                || mask.strip_prefix(seen.as_str()).is_some_and(|rest| rest.starts_with('.'))
        };
        if self.mask.iter().any(masked) {
            return Some("***".to_owned());
        }
        member(members?, path)
    }
}

fn member(members: &Map<String, Value>, path: &str) -> Option<String> {
    let (name, rest) = path.split_once('.').map_or((path, None), |(name, rest)| (name, Some(rest)));
    match (members.get(name)?, rest) {
        (Value::Object(inner), Some(rest)) => member(inner, rest),
        (_, Some(_)) => None,
        (Value::String(text), None) => Some(text.clone()),
        (other, None) => Some(other.to_string()),
    }
}

/// Text of a sender on one line, of at most so many characters: no controls, and nothing that reorders or hides what
/// stands beside it (Unicode's bidirectional controls, zero-width characters, separators of lines).
fn plain(text: &str, longest: usize) -> String {
    let turns = |c: char| {
        c.is_control()
            || matches!(c, '\u{200b}'..='\u{200f}' | '\u{2028}'..='\u{202e}' | '\u{2060}'..='\u{206f}' | '\u{feff}' | '\u{61c}')
    };
    let mut out = String::new();
    for (n, c) in text.chars().enumerate() {
        if n == longest {
            out.push('…');
            break;
        }
        let _ = out.write_char(if turns(c) { '\u{fffd}' } else { c });
    }
    out
}

/// What an approver had to say, as it is kept: at most 1,000 characters on one line.
pub(super) fn comment(text: &str) -> String {
    plain(text, 1000)
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;
    use crate::authorize::request::{Action, Request, Resource};

    fn request() -> Request {
        let object = |value: Value| value.as_object().cloned();
        Request {
            action: Action { name: "pay".to_owned(), properties: None },
            resource: Resource {
                kind: "Invoice".to_owned(),
                id: "inv-7\u{202e}\n".to_owned(),
                properties: object(json!({"account": "a-1"})),
            },
            workflow: None,
            value: object(json!({"amount": 12000, "to": {"iban": "DE02"}, "note": "x".repeat(500)})),
        }
    }

    fn rendered(text: Option<&str>, mask: &[String]) -> String {
        let request = request();
        let fields = Fields {
            route: "payments",
            sender: "spiffe://example.org/a",
            subject: Some("alice"),
            transaction: None,
            request: &request,
            mask,
        };
        render(text, &fields)
    }

    #[test]
    fn fields_are_filled_in_and_cannot_turn_the_text_around() {
        assert_eq!(
            rendered(Some("Pay {value.amount} for {resource.id} ({{{subject}}}, {workflow.id})?"), &[]),
            "Pay 12000 for inv-7\u{fffd}\u{fffd} ({alice}, -)?"
        );
        assert_eq!(
            rendered(Some("{value.to.iban} {value.to} {resource.properties.account} {value.none.x}"), &[]),
            "DE02 {\"iban\":\"DE02\"} a-1 -"
        );
        assert!(rendered(Some("{value.note}"), &[]).chars().count() == LONGEST_FIELD + 1);
        assert_eq!(
            rendered(None, &[]),
            "spiffe://example.org/a asks to `pay` Invoice `inv-7\u{fffd}\u{fffd}`"
        );
    }

    #[test]
    fn what_is_masked_in_audit_records_is_masked_here() {
        let mask = ["value.to".to_owned()];
        assert_eq!(rendered(Some("{value.to.iban} {value.to} {value.amount}"), &mask), "*** *** 12000");
        let inner = ["value.to.iban".to_owned()];
        assert_eq!(rendered(Some("{value.to.iban} {value.to}"), &inner), "*** ***");
    }

    #[test]
    fn a_field_that_cannot_be_is_refused() {
        for good in ["", "plain", "{sender}", "{value.a.b}", "{{not a field}}", "{action.properties.x}"] {
            assert_eq!(check(good), Ok(()), "{good}");
        }
        for bad in ["{", "}", "{sender", "{}", "{value}", "{value.}", "{Sender}", "{resource.owner}", "a}b"] {
            assert!(check(bad).is_err(), "{bad}");
        }
    }
}
