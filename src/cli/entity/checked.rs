//! An entity as a gate would take it in: its uid, and whether the schema of the configured policies allows it. Limits: an
//! entity is judged with all others that the topic holds, since a parent may close a circle; attributes that name
//! entities which are not there are no mistake, as in Cedar.

use std::collections::BTreeMap;

use cedar_policy::{Entity, EntityUid};
use serde_json::Value;

use crate::authorize::json;
use crate::authorize::policy::{Bundle, Entities, SourceFile};

/// An entity with the key of its record.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Checked {
    /// Its uid as Cedar writes it.
    pub(super) uid: EntityUid,
    /// The entity, as compact JSON.
    pub(super) json: String,
}

impl Checked {
    /// Reads one entity, whatever the schema says of it.
    ///
    /// # Errors
    /// It is no entity, in words.
    pub(super) fn read(value: &Value) -> Result<Self, String> {
        let entity = Entity::from_json_value(value.clone(), None).map_err(|error| error.to_string())?;
        Ok(Self { uid: entity.uid(), json: value.to_string() })
    }

    /// Reads the value of a record whose key names the entity.
    ///
    /// # Errors
    /// It is no entity, or another one than the key says.
    pub(super) fn of_record(key: &[u8], value: &[u8]) -> Result<Self, String> {
        let value = json::parse_object(value).map_err(|error| format!("the value {error}"))?;
        let read = Self::read(&Value::Object(value))?;
        if read.key().as_bytes() != key {
            return Err(format!("the key is not the entity's uid, `{}`", read.key()));
        }
        Ok(read)
    }

    /// The key of its record.
    pub(super) fn key(&self) -> String {
        self.uid.to_string()
    }

    /// What the schema has against it alone.
    ///
    /// # Errors
    /// Everything that is wrong with it, in words.
    pub(super) fn check(&self, bundle: &Bundle) -> Result<(), String> {
        check_all([self], bundle)
    }
}

/// What the schema has against these entities together.
///
/// # Errors
/// Everything that is wrong with them, in words.
pub(super) fn check_all<'e>(
    entities: impl IntoIterator<Item = &'e Checked>,
    bundle: &Bundle,
) -> Result<(), String> {
    let all: Vec<&str> = entities.into_iter().map(|entity| entity.json.as_str()).collect();
    let file = SourceFile { name: "entities".to_owned(), text: format!("[{}]", all.join(",")) };
    match Entities::load(vec![file], bundle) {
        Ok(_) => Ok(()),
        Err(errors) => {
            let messages: Vec<&str> = errors.problems().iter().map(|problem| problem.message()).collect();
            Err(messages.join("; "))
        }
    }
}

/// What would stand once these have been put: of what stands, those that the schema allows by themselves.
pub(super) fn merged<'e>(
    present: impl IntoIterator<Item = &'e Checked>,
    put: &'e [Checked],
    bundle: &Bundle,
) -> BTreeMap<String, &'e Checked> {
    let sound = present.into_iter().filter(|entity| entity.check(bundle).is_ok());
    sound.chain(put).map(|entity| (entity.key(), entity)).collect()
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::authorize::policy::Offer;
    use serde_json::json;

    const SCHEMA: &str = "entity Team in [Team]; entity Workload; entity User in [Team] { level: Long }; \
        action pay appliesTo { principal: Workload, resource: User, context: {} };";

    fn bundle() -> Bundle {
        let file = |name: &str, text: &str| SourceFile { name: name.to_owned(), text: text.to_owned() };
        Bundle::load(Vec::new(), file("schema.cedarschema", SCHEMA), &Offer::default()).unwrap()
    }

    fn entity(kind: &str, id: &str, attrs: &Value, parents: &Value) -> Checked {
        let uid = json!({"type": kind, "id": id});
        Checked::read(&json!({"uid": uid, "attrs": attrs, "parents": parents})).unwrap()
    }

    #[test]
    fn the_key_is_the_uid_as_cedar_writes_it() {
        let alice = entity("User", "al\"ice", &json!({"level": 3}), &json!([]));
        assert_eq!(alice.key(), "User::\"al\\\"ice\"");
        assert_eq!(Checked::of_record(alice.key().as_bytes(), alice.json.as_bytes()), Ok(alice.clone()));
        let problem = Checked::of_record(b"User::\"bob\"", alice.json.as_bytes()).unwrap_err();
        assert!(problem.contains("the key is not the entity's uid"), "{problem}");
        assert!(Checked::of_record(b"x", b"[]").is_err());
        assert!(Checked::read(&json!({"attrs": {}})).is_err());
    }

    #[test]
    fn the_schema_judges_each_entity_and_all_of_them_together() {
        let bundle = bundle();
        let team =
            |id: &str, parent: &str| entity("Team", id, &json!({}), &json!([{"type": "Team", "id": parent}]));
        assert_eq!(entity("User", "a", &json!({"level": 3}), &json!([])).check(&bundle), Ok(()));
        for wrong in [json!({"level": "high"}), json!({}), json!({"level": 3, "more": 1})] {
            let problem = entity("User", "a", &wrong, &json!([])).check(&bundle).unwrap_err();
            assert!(problem.contains("User::\"a\""), "{problem}");
        }
        assert!(entity("Ghost", "a", &json!({}), &json!([])).check(&bundle).is_err());
        // Each is fine alone; together they are a circle, until one of them is put anew.
        let present = [team("a", "b"), entity("User", "x", &json!({}), &json!([]))];
        let circle = [team("b", "a")];
        assert_eq!((present[0].check(&bundle), circle[0].check(&bundle)), (Ok(()), Ok(())));
        let together = merged(&present, &circle, &bundle);
        assert_eq!(together.len(), 2, "what is wrong already keeps nobody from mending");
        assert!(check_all(together.into_values(), &bundle).is_err());
        let mended = [team("b", "a"), team("a", "c")];
        assert_eq!(check_all(merged(&present, &mended, &bundle).into_values(), &bundle), Ok(()));
    }
}
