//! What is asked, read from the body of an AuthZEN request (Authorization API 1.0, sections 5 to 7) by the contract's strict
//! JSON. Limits: form alone. Members that neither the standard nor this page names are ignored, `properties` of the subject
//! among them: who somebody is stands in the entity store.

use serde::de::DeserializeOwned;
use serde_json::{Map, Value};

use crate::authorize::claims::Malformed;
use crate::authorize::json;
use crate::authorize::limits::MAX_EVALUATIONS;
use crate::authorize::request::{Action, Resource, Workflow};

/// One access evaluation.
#[derive(Debug, Clone, PartialEq)]
pub struct Evaluation {
    /// About whom.
    pub subject: Named,
    /// What is to be done.
    pub action: Action,
    /// To what.
    pub resource: Resource,
    /// As part of which workflow: `context.workflow`, as in a proof (contract, section 5).
    pub workflow: Option<Workflow>,
}

/// Somebody, by entity type and id.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Named {
    /// The Cedar entity type.
    pub kind: String,
    /// The id within it.
    pub id: String,
}

/// When a list of evaluations ends (section 7.1.2.1).
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Semantic {
    /// After the last.
    ExecuteAll,
    /// After the first that is denied.
    DenyOnFirstDeny,
    /// After the first that is permitted.
    PermitOnFirstPermit,
}

impl Semantic {
    /// Whether this decision is the last.
    pub fn ends_with(self, decision: bool) -> bool {
        match self {
            Self::ExecuteAll => false,
            Self::DenyOnFirstDeny => !decision,
            Self::PermitOnFirstPermit => decision,
        }
    }
}

/// What a request asks.
#[derive(Debug, Clone, PartialEq)]
pub enum Asked {
    /// One evaluation.
    One(Box<Evaluation>),
    /// A list. One that is not well formed is denied alone.
    Many(Vec<Result<Evaluation, Malformed>>, Semantic),
}

const PARTS: [&str; 4] = ["subject", "action", "resource", "context"];

impl Asked {
    /// Reads the body of `/access/v1/evaluation`.
    ///
    /// # Errors
    /// The first rule of form that it breaks.
    pub fn read_one(body: &[u8]) -> Result<Self, Malformed> {
        Evaluation::of(&top(body)?, &Map::new()).map(|one| Self::One(Box::new(one)))
    }

    /// Reads the body of `/access/v1/evaluations`. Without `evaluations`, or with an empty list, it is one evaluation.
    ///
    /// # Errors
    /// The first rule of form that the whole breaks, more than 64 evaluations among them.
    pub fn read_many(body: &[u8]) -> Result<Self, Malformed> {
        let top = top(body)?;
        let items = match top.get("evaluations") {
            None => &[][..],
            Some(Value::Array(items)) => items,
            Some(_) => return Err(malformed("needs `evaluations` to be a list")),
        };
        let semantic = semantic(&top)?;
        if items.is_empty() {
            return Evaluation::of(&top, &Map::new()).map(|one| Self::One(Box::new(one)));
        }
        if items.len() > MAX_EVALUATIONS {
            return Err(malformed(&format!("has more than {MAX_EVALUATIONS} evaluations")));
        }
        let read = |item: &Value| match item {
            Value::Object(own) => Evaluation::of(own, &top),
            _ => Err(malformed("is not an object")),
        };
        Ok(Self::Many(items.iter().map(read).collect(), semantic))
    }
}

impl Evaluation {
    /// From the members of one evaluation; one that is absent is taken whole from `defaults`.
    fn of(own: &Map<String, Value>, defaults: &Map<String, Value>) -> Result<Self, Malformed> {
        let part = |name: &str| own.get(name).or_else(|| defaults.get(name));
        let subject: Resource = shaped("subject", part("subject"))?.ok_or_else(|| missing("subject"))?;
        let mut workflow = None;
        match part("context") {
            None => {}
            Some(Value::Object(context)) => {
                workflow = shaped("context.workflow", context.get("workflow"))?;
            }
            Some(_) => return Err(malformed("needs `context` to be an object")),
        }
        Ok(Self {
            subject: Named { kind: subject.kind, id: subject.id },
            action: shaped("action", part("action"))?.ok_or_else(|| missing("action"))?,
            resource: shaped("resource", part("resource"))?.ok_or_else(|| missing("resource"))?,
            workflow,
        })
    }
}

fn top(body: &[u8]) -> Result<Map<String, Value>, Malformed> {
    let top = json::parse_object(body).map_err(|error| malformed(&error.to_string()))?;
    let parts = [&PARTS[..], &["evaluations"]].concat();
    if !json::integers_are_safe(&top, body, &parts) {
        return Err(malformed("has an integer past 2^53 - 1"));
    }
    Ok(top)
}

fn semantic(top: &Map<String, Value>) -> Result<Semantic, Malformed> {
    let options = match top.get("options") {
        None => return Ok(Semantic::ExecuteAll),
        Some(Value::Object(options)) => options,
        Some(_) => return Err(malformed("needs `options` to be an object")),
    };
    match options.get("evaluations_semantic").map(|name| name.as_str()) {
        None | Some(Some("execute_all")) => Ok(Semantic::ExecuteAll),
        Some(Some("deny_on_first_deny")) => Ok(Semantic::DenyOnFirstDeny),
        Some(Some("permit_on_first_permit")) => Ok(Semantic::PermitOnFirstPermit),
        Some(_) => Err(malformed("has an `options.evaluations_semantic` that is not known")),
    }
}

fn shaped<T: DeserializeOwned>(name: &str, value: Option<&Value>) -> Result<Option<T>, Malformed> {
    let Some(value) = value else { return Ok(None) };
    // Serde would take a list for an object.
    if !value.is_object() {
        return Err(malformed(&format!("needs `{name}` to be an object")));
    }
    if json::has_control(value) {
        return Err(malformed(&format!("has a control character in `{name}`")));
    }
    let shaped = T::deserialize(value);
    shaped.map(Some).map_err(|_| malformed(&format!("has a member of `{name}` that is missing or mistyped")))
}

fn missing(name: &str) -> Malformed {
    malformed(&format!("needs the member `{name}`"))
}

fn malformed(problem: &str) -> Malformed {
    Malformed(problem.to_owned())
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;
    use serde_json::json;

    fn many(body: &Value) -> Result<Asked, String> {
        Asked::read_many(body.to_string().as_bytes()).map_err(|error| error.to_string())
    }

    fn whole() -> Value {
        json!({
            "subject": {"type": "User", "id": "alice", "properties": {"role": "admin"}},
            "action": {"name": "write", "properties": {"soft": true}},
            "resource": {"type": "Record", "id": "record-1", "properties": {"status": "active"}},
            "context": {"time": "2025-06-27T18:03-07:00"},
            "another": [1, 2]
        })
    }

    #[test]
    fn a_request_of_the_standards_shape_is_read_and_what_is_unknown_ignored() {
        let Ok(Asked::One(one)) = Asked::read_one(whole().to_string().as_bytes()) else { panic!("one") };
        assert_eq!(one.subject, Named { kind: "User".into(), id: "alice".into() });
        assert_eq!(one.action.name, "write");
        assert_eq!(one.resource.properties.unwrap()["status"], "active");
        assert_eq!(one.workflow, None);
    }

    #[test]
    fn what_lacks_a_part_or_a_member_is_malformed() {
        for (pointer, to) in [
            ("/subject", Value::Null),
            ("/subject", json!("alice")),
            ("/subject/id", Value::Null),
            ("/subject/type", json!(7)),
            ("/action", json!({})),
            ("/action/name", json!(["read"])),
            ("/resource/type", Value::Null),
            ("/resource/id", json!("a\u{0}b")),
            ("/resource/properties", json!([])),
            ("/context", json!([])),
            ("/resource/properties/n", json!(9_007_199_254_740_993_u64)),
        ] {
            let mut body = whole();
            match body.pointer_mut(pointer) {
                Some(place) => *place = to.clone(),
                None => body["resource"]["properties"]["n"] = to.clone(),
            }
            assert!(Asked::read_one(body.to_string().as_bytes()).is_err(), "{pointer} = {to}");
        }
        for member in ["subject", "action", "resource"] {
            let mut body = whole();
            body.as_object_mut().unwrap().remove(member);
            let error = Asked::read_one(body.to_string().as_bytes()).unwrap_err();
            assert_eq!(error.to_string(), format!("needs the member `{member}`"));
        }
        for text in ["", "[]", "{\"subject\":1,\"subject\":2}", "{} {}"] {
            assert!(Asked::read_one(text.as_bytes()).is_err(), "{text}");
        }
    }

    #[test]
    fn items_override_defaults_whole_and_a_bad_one_fails_alone() {
        let mut body = whole();
        body["evaluations"] = json!([
            {},
            {"resource": {"type": "Record", "id": "record-2"}},
            {"resource": {"type": "Record"}},
            7
        ]);
        let Ok(Asked::Many(items, semantic)) = many(&body) else { panic!("many") };
        assert_eq!(semantic, Semantic::ExecuteAll);
        assert_eq!(items[0].as_ref().unwrap().resource.id, "record-1");
        let second = &items[1].as_ref().unwrap().resource;
        assert_eq!((second.id.as_str(), &second.properties), ("record-2", &None));
        assert!(items[2].is_err() && items[3].is_err());
    }

    #[test]
    fn no_list_or_an_empty_one_is_a_single_evaluation() {
        assert!(matches!(many(&whole()), Ok(Asked::One(_))));
        let mut body = whole();
        body["evaluations"] = json!([]);
        assert!(matches!(many(&body), Ok(Asked::One(_))));
        body["evaluations"] = json!({});
        assert!(many(&body).is_err());
        body["evaluations"] = (0..=MAX_EVALUATIONS).map(|_| json!({})).collect();
        assert_eq!(many(&body).unwrap_err(), "has more than 64 evaluations");
    }

    #[test]
    fn semantics_are_the_standards_three() {
        let mut body = whole();
        body["evaluations"] = json!([{}]);
        for (name, semantic) in [
            ("execute_all", Semantic::ExecuteAll),
            ("deny_on_first_deny", Semantic::DenyOnFirstDeny),
            ("permit_on_first_permit", Semantic::PermitOnFirstPermit),
        ] {
            body["options"] = json!({"evaluations_semantic": name, "other": 1});
            let Ok(Asked::Many(_, found)) = many(&body) else { panic!("many") };
            assert_eq!(found, semantic);
        }
        for options in
            [json!({"evaluations_semantic": "first"}), json!({"evaluations_semantic": null}), json!(1)]
        {
            body["options"] = options;
            assert!(many(&body).is_err());
        }
    }

    #[test]
    fn a_workflow_is_an_extension_of_the_context() {
        let mut body = whole();
        body["context"] = json!({"workflow": {"id": "w", "type": "t", "step": "s", "state": "running"}});
        let Ok(Asked::One(one)) = Asked::read_one(body.to_string().as_bytes()) else { panic!("one") };
        assert_eq!(one.workflow.unwrap().step, "s");
        for bad in [json!({"id": "w"}), json!([]), json!(null)] {
            body["context"] = json!({"workflow": bad});
            assert!(Asked::read_one(body.to_string().as_bytes()).is_err(), "{bad}");
        }
    }

    proptest! {
        #[test]
        fn no_body_is_a_panic(bytes in prop::collection::vec(any::<u8>(), 0..200)) {
            let _ = (Asked::read_one(&bytes), Asked::read_many(&bytes));
        }

        #[test]
        fn no_json_is_a_panic(a in ".{0,20}", b in prop::sample::select(vec!["null", "{}", "[]", "7", "\"x\""])) {
            let quoted = Value::from(a).to_string();
            let body = format!("{{\"subject\":{{\"type\":{quoted},\"id\":{b}}},\"evaluations\":[{b}],\"context\":{b}}}");
            let _ = (Asked::read_one(body.as_bytes()), Asked::read_many(body.as_bytes()));
        }
    }
}
