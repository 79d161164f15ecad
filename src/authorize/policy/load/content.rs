//! What a bundle says, as one JSON value whose digest names it. Limits: everything that can change a decision is in it,
//! and nothing else: names and order of files, comments and layout are not.

use serde_json::{Map, Value};

use super::Loading;
use crate::authorize::ids::Digest;
use crate::authorize::policy::digest;
use crate::authorize::policy::problem::{Problem, Source};

impl Loading {
    pub(super) fn digest(&mut self, schema: &Source, mut schema_json: Value) -> Digest {
        digest::sort_lists(&mut schema_json);
        let mut policies = Map::new();
        let mut templates = Map::new();
        let mut links = Map::new();
        let mut failed = Vec::new();
        for template in self.set.templates() {
            match template.to_json() {
                Ok(json) => drop(templates.insert(template.id().to_string(), json)),
                Err(error) => failed.push((template.id().clone(), error.to_string())),
            }
        }
        for policy in self.set.policies() {
            let id = policy.id().to_string();
            if let (Some(template), Some(values)) = (policy.template_id(), policy.template_links()) {
                let values = values.into_iter().map(|(slot, uid)| {
                    let uid = Value::from(vec![uid.type_name().to_string(), uid.id().unescaped().to_owned()]);
                    (slot.to_string(), uid)
                });
                let values: Map<String, Value> = values.collect();
                links.insert(id, Value::from(vec![Value::from(template.to_string()), Value::from(values)]));
                continue;
            }
            match policy.to_json() {
                Ok(json) => drop(policies.insert(id, json)),
                Err(error) => failed.push((policy.id().clone(), error.to_string())),
            }
        }
        for (id, message) in failed {
            let problem =
                self.places.get(AsRef::<str>::as_ref(&id)).map(|place| place.problem(message.clone()));
            self.problems.push(problem.unwrap_or_else(|| Problem::new(schema, message)));
        }
        let mut bundle = Map::new();
        bundle.insert("links".to_owned(), links.into());
        bundle.insert("policies".to_owned(), policies.into());
        bundle.insert("schema".to_owned(), schema_json);
        bundle.insert("templates".to_owned(), templates.into());
        digest::of_json(&bundle.into())
    }
}
