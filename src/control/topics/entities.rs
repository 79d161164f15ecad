//! The entities that are followed in a topic, one a record: each is checked against the schema as it comes, and all of them
//! become one store when they have changed. Limits: an entity that does not fit changes nothing, and the last one of its uid
//! that did stays; it is tried again with each new bundle.

use std::collections::BTreeMap;
use std::sync::Arc;

use crate::authorize::policy::{Bundle, CheckedEntity, Entities};
use crate::authorize::standing::Positions;

/// The entities by their uid, as Cedar writes it.
#[derive(Debug, Clone)]
pub(in crate::control) struct EntityTopic {
    entries: BTreeMap<Box<str>, Entry>,
    /// How far the topic was read.
    read: Positions,
    /// How far it was read when what is in use was built, or when nothing had changed since.
    ready: Positions,
    state: State,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum State {
    /// There is something that was not built yet; at the beginning, that there is nothing.
    Changed,
    /// What is in use says all that was read.
    Ready,
    /// What was read does not fit together; something older is in use.
    Unfit,
}

impl Default for EntityTopic {
    fn default() -> Self {
        let (read, ready) = (Positions::default(), Positions::default());
        Self { entries: BTreeMap::new(), read, ready, state: State::Changed }
    }
}

#[derive(Debug, Clone)]
struct Entry {
    /// What the topic says now.
    newest: Arc<str>,
    /// The last text of this uid that fitted, and what it says.
    good: Option<(Arc<str>, CheckedEntity)>,
}

impl EntityTopic {
    /// Takes in one record; `None` is a tombstone. Returns whether anything has changed.
    ///
    /// # Errors
    /// Why the entity does not fit; what was there before stays.
    pub(in crate::control) fn apply(
        &mut self,
        key: &str,
        value: Option<&[u8]>,
        bundle: &Bundle,
    ) -> Result<bool, String> {
        let Some(value) = value else {
            let gone = self.entries.remove(key).is_some();
            if gone {
                self.state = State::Changed;
            }
            return Ok(gone);
        };
        let newest: Arc<str> = std::str::from_utf8(value).map_err(|_| "it is not UTF-8".to_owned())?.into();
        let read = read(key, &newest, bundle);
        let entry =
            self.entries.entry(key.into()).or_insert(Entry { newest: Arc::clone(&newest), good: None });
        entry.newest = Arc::clone(&newest);
        entry.good = Some((newest, read?));
        self.state = State::Changed;
        Ok(true)
    }

    /// Notes how far the topic was read.
    pub(in crate::control) fn advance_to(&mut self, read: &Positions) {
        read.iter().for_each(|(partition, position)| self.read.advance(partition, position));
        if self.state == State::Ready {
            self.ready.clone_from(&self.read);
        }
    }

    /// How far the topic was read as far as it is in use.
    pub(in crate::control) fn ready(&self) -> &Positions {
        &self.ready
    }

    /// Whether there is something that [`Self::build`] has not seen.
    pub(in crate::control) fn has_changed(&self) -> bool {
        self.state == State::Changed
    }

    /// Whether the newest text of that uid fits.
    pub(in crate::control) fn fits(&self, uid: &str) -> bool {
        let newest = self.entries.get(uid).and_then(|entry| Some((&entry.newest, &entry.good.as_ref()?.0)));
        newest.is_some_and(|(newest, good)| newest == good)
    }

    /// The store of all that fit.
    ///
    /// # Errors
    /// Why they do not fit together: a cycle of parents, say.
    pub(in crate::control) fn build(&mut self, bundle: &Bundle) -> Result<Entities, String> {
        // Tried once for each change: what does not fit now does not fit by trying.
        self.state = State::Unfit;
        let good = self.entries.values().filter_map(|entry| entry.good.as_ref());
        let good = good.map(|(_, entity)| entity.clone()).collect();
        let built = Entities::of(good, self.read.to_string(), bundle)?;
        self.state = State::Ready;
        self.ready.clone_from(&self.read);
        Ok(built)
    }

    /// The same entities by another schema: of each the newest text where it fits now, else the one in use.
    ///
    /// # Errors
    /// An entity that is in use and does not fit, with the reason.
    pub(in crate::control) fn by(&self, bundle: &Bundle) -> Result<Self, (String, String)> {
        let mut entries = BTreeMap::new();
        for (key, Entry { newest, good }) in &self.entries {
            let checked = match (read(key, newest, bundle), good) {
                (Ok(entity), _) => Some((Arc::clone(newest), entity)),
                (Err(problem), Some((good, _))) if good == newest => return Err((key.to_string(), problem)),
                (Err(_), Some((good, _))) => match read(key, good, bundle) {
                    Ok(entity) => Some((Arc::clone(good), entity)),
                    Err(problem) => return Err((key.to_string(), problem)),
                },
                (Err(_), None) => None,
            };
            entries.insert(key.clone(), Entry { newest: Arc::clone(newest), good: checked });
        }
        Ok(Self { entries, read: self.read.clone(), ready: self.ready.clone(), state: State::Changed })
    }
}

fn read(key: &str, text: &str, bundle: &Bundle) -> Result<CheckedEntity, String> {
    let entity = CheckedEntity::read(text, bundle)?;
    let uid = entity.uid();
    if uid == key { Ok(entity) } else { Err(format!("it is `{uid}`, under another key")) }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::authorize::ids::{Partition, Position};
    use crate::authorize::policy::{Offer, SourceFile};

    fn bundle(schema: &str) -> Bundle {
        let schema = SourceFile { name: "schema.cedarschema".to_owned(), text: schema.to_owned() };
        Bundle::load(Vec::new(), schema, &Offer::default()).unwrap()
    }

    const ONE: &str = "entity Workload; entity Team; entity Invoice in [Team, Invoice] { owner: String };
        action pay appliesTo { principal: [Team], resource: [Invoice] };";

    fn invoice(id: &str, owner: &str, parent: Option<&str>) -> String {
        let parents = parent.map(|id| serde_json::json!({"type": "Invoice", "id": id}));
        serde_json::json!({
            "uid": {"type": "Invoice", "id": id}, "attrs": {"owner": owner}, "parents": Vec::from_iter(parents),
        })
        .to_string()
    }

    fn put(topic: &mut EntityTopic, bundle: &Bundle, id: &str, text: &str) -> Result<bool, String> {
        topic.apply(&format!("Invoice::\"{id}\""), Some(text.as_bytes()), bundle)
    }

    #[test]
    fn entities_are_put_replaced_and_deleted_one_by_one() {
        let (bundle, mut topic) = (bundle(ONE), EntityTopic::default());
        assert_eq!(put(&mut topic, &bundle, "1", &invoice("1", "ada", None)), Ok(true));
        assert_eq!(put(&mut topic, &bundle, "2", &invoice("2", "bob", Some("1"))), Ok(true));
        topic.advance_to(&[(Partition(0), Position(2))].into_iter().collect());
        let built = topic.build(&bundle).unwrap();
        assert_eq!((built.len(), built.version().as_str()), (2, "0:2"));
        assert_eq!(topic.apply("pulse/gate-1", None, &bundle), Ok(false));
        assert!(!topic.has_changed());
        assert_eq!(topic.apply("Invoice::\"1\"", None, &bundle), Ok(true));
        assert!(topic.has_changed());
        assert_eq!(topic.build(&bundle).unwrap().len(), 1);
    }

    #[test]
    fn an_entity_that_does_not_fit_changes_nothing_until_a_bundle_comes_that_it_fits() {
        let (old, mut topic) = (bundle(ONE), EntityTopic::default());
        put(&mut topic, &old, "1", &invoice("1", "ada", None)).unwrap();
        topic.build(&old).unwrap();
        let new = invoice("1", "ada", None).replace("\"owner\":\"ada\"", "\"owner\":7");
        for (id, bad) in [("1", new.as_str()), ("2", &invoice("3", "x", None)), ("1", "{]"), ("1", &new)] {
            assert!(put(&mut topic, &old, id, bad).is_err(), "{bad}");
        }
        assert!(!topic.has_changed());
        assert_eq!(topic.build(&old).unwrap().len(), 1);
        let one = "Invoice::\"1\"";
        assert!(!topic.fits(one) && !topic.fits("Invoice::\"2\""));

        let numbers = bundle(&ONE.replace("owner: String", "owner: Long"));
        let mut by = topic.by(&numbers).unwrap();
        assert_eq!(by.build(&numbers).unwrap().len(), 1);
        assert!(by.fits(one));
        // The other way round, an entity in use would be lost.
        let (key, problem) = by.by(&old).unwrap_err();
        assert_eq!(key, one);
        assert!(problem.contains("owner") || problem.contains("type"), "{problem}");
    }

    #[test]
    fn entities_that_do_not_fit_together_are_refused_together() {
        let (bundle, mut topic) = (bundle(ONE), EntityTopic::default());
        put(&mut topic, &bundle, "1", &invoice("1", "ada", Some("2"))).unwrap();
        put(&mut topic, &bundle, "2", &invoice("2", "bob", Some("1"))).unwrap();
        topic.advance_to(&[(Partition(0), Position(2))].into_iter().collect());
        assert!(topic.build(&bundle).unwrap_err().contains("cycle"));
        topic.advance_to(&[(Partition(0), Position(3))].into_iter().collect());
        assert_eq!(topic.ready().to_string(), "", "nothing of it is in use");
        put(&mut topic, &bundle, "2", &invoice("2", "bob", None)).unwrap();
        assert_eq!((topic.build(&bundle).unwrap().len(), topic.ready().to_string().as_str()), (2, "0:3"));
        topic.advance_to(&[(Partition(0), Position(4))].into_iter().collect());
        assert_eq!(topic.ready().to_string(), "0:4", "a pulse changes nothing");
    }
}
