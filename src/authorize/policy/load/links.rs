//! Links of templates, for which Cedar has no text form: a JSON list beside the policies. Limits: a link is checked as a
//! policy is, by the validation that follows.

use std::collections::HashMap;

use cedar_policy::{EntityId, EntityTypeName, EntityUid, PolicyId, SlotId};
use serde::Deserialize;
use serde_json::value::RawValue;

use super::{Loading, Place};
use crate::authorize::policy::annotations::is_name;
use crate::authorize::policy::entities::json_problem;
use crate::authorize::policy::problem::{Problem, Source};

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct Link {
    template_id: String,
    new_id: String,
    args: Arguments,
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct Arguments {
    #[serde(rename = "?principal")]
    principal: Option<Uid>,
    #[serde(rename = "?resource")]
    resource: Option<Uid>,
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct Uid {
    #[serde(rename = "type")]
    kind: String,
    id: String,
}

impl Loading {
    pub(super) fn read_links(&mut self, source: &Source) {
        if self.is_too_large(source) {
            return;
        }
        let list = match serde_json::from_str::<Vec<&RawValue>>(source.text()) {
            Ok(list) => list,
            Err(error) => {
                self.problems.push(json_problem(source, &error).with_help("links are a JSON list"));
                return;
            }
        };
        for raw in list {
            let offset = raw.get().as_ptr() as usize - source.text().as_ptr() as usize;
            let place = Place { source: source.clone(), offset, len: raw.get().len() };
            if let Err(message) = self.link(raw, &place) {
                self.problems.push(Problem::new(source, message).at(offset, raw.get().len(), "this link"));
            }
        }
    }

    fn link(&mut self, raw: &RawValue, place: &Place) -> Result<(), String> {
        let link: Link = serde_json::from_str(raw.get()).map_err(|e| e.to_string())?;
        if !is_name(&link.new_id) {
            return Err(format!("`{}` is no policy id: an id is 1 to 128 of `A-Za-z0-9._-`", link.new_id));
        }
        if self.places.contains_key(&link.new_id) {
            return Err(format!("the id `{}` is there twice", link.new_id));
        }
        let mut values = HashMap::new();
        for (slot, uid) in
            [(SlotId::principal(), link.args.principal), (SlotId::resource(), link.args.resource)]
        {
            if let Some(uid) = uid {
                let kind: EntityTypeName =
                    uid.kind.parse().map_err(|_| format!("`{}` is no entity type", uid.kind))?;
                values.insert(slot, EntityUid::from_type_name_and_id(kind, EntityId::new(uid.id)));
            }
        }
        let (template, new_id) = (PolicyId::new(&link.template_id), PolicyId::new(&link.new_id));
        self.set.link(template, new_id, values).map_err(|e| e.to_string())?;
        if let Some(mut meta) = self.meta.get(&link.template_id).cloned() {
            if let Some(step_up) = &mut meta.step_up {
                step_up.policy.clone_from(&link.new_id);
            }
            self.meta.insert(link.new_id.clone(), meta);
        }
        self.places.insert(link.new_id, place.clone());
        Ok(())
    }
}
