//! A bundle: policies and schema as they were loaded, checked and indexed, ready to decide. Limits: immutable; a change
//! is a new bundle, switched to between batches.

use std::collections::{HashMap, HashSet};
use std::sync::Arc;

use cedar_policy::{EntityTypeName, EntityUid, Schema};

use super::annotations::Meta;
use super::answering::AnswerAction;
use super::context::Projection;
use super::facts::Offer;
use super::index::Index;
use super::load;
use super::problem::{LoadErrors, Problem, SourceFile};
use super::shape::EntityKind;
use super::value::{MadeCache, TimeCache};
use crate::authorize::ids::Digest;
use crate::authorize::text::Text;

/// Policies and schema of one moment (contract, sections 7 and 10).
#[derive(Debug)]
pub struct Bundle {
    pub(super) digest: Digest,
    pub(super) digest_text: Text,
    pub(super) version: Option<Text>,
    /// The policies of the first decision.
    pub(super) plain: Index,
    /// The policies with `@step_up`, looked at once the others allow.
    pub(super) step_up: Index,
    /// What the annotations of a policy say, by its id; policies without any of ours but `@id` are not here.
    pub(super) meta: HashMap<String, Meta>,
    pub(super) actions: HashMap<String, Action>,
    /// Who may answer challenges.
    pub(super) answer: Option<AnswerAction>,
    pub(super) kinds: HashMap<String, Arc<EntityKind>>,
    pub(super) subject_type: Option<String>,
    pub(super) schema: Schema,
    pub(super) warnings: Vec<Problem>,
    pub(super) times: TimeCache,
    pub(super) made: MadeCache,
}

/// An action that a gate can ask for.
#[derive(Debug)]
pub(super) struct Action {
    pub(super) entity: EntityUid,
    pub(super) principals: HashSet<EntityTypeName>,
    pub(super) resources: HashSet<EntityTypeName>,
    pub(super) context: Projection,
}

impl Bundle {
    /// Loads a set of policy files and a schema, or says everything that is wrong with them.
    ///
    /// Of `policies`, a file called `links.json` (or ending so) holds links of templates: a list of
    /// `{"template_id", "new_id", "args": {"?principal": {"type", "id"}, "?resource": {"type", "id"}}}`. One called
    /// `VERSION` names the bundle for people and does not count for its digest. All others are Cedar. The schema is in
    /// Cedar's JSON form if its name ends in `.json`, else in Cedar's own.
    pub fn load(policies: Vec<SourceFile>, schema: SourceFile, offer: &Offer) -> Result<Self, LoadErrors> {
        load::load(policies, schema, offer)
    }

    /// SHA-256 over the policies and the schema, whatever their files were called and however they were laid out.
    pub fn digest(&self) -> Digest {
        self.digest
    }

    /// The digest as it is written.
    pub fn digest_text(&self) -> &Text {
        &self.digest_text
    }

    /// What the file `VERSION` says, where there is one.
    pub fn version(&self) -> Option<&Text> {
        self.version.as_ref()
    }

    /// How many policies there are, links of templates counted.
    pub fn policy_count(&self) -> usize {
        self.plain.len() + self.step_up.len()
    }

    /// The entity type of subjects, where one is configured.
    pub fn subject_type(&self) -> Option<&str> {
        self.subject_type.as_deref()
    }

    /// The longest `@hold` of its policies, in seconds; `None` where none says how long. On a route whose own hold is shorter a
    /// record can be held for as long as this.
    pub fn longest_hold_s(&self) -> Option<u32> {
        self.meta.values().filter_map(|meta| meta.step_up.as_ref()?.hold_s).max()
    }

    /// Whether its schema has the action `answer`. Without it no policy can let anybody answer a challenge.
    pub fn knows_answers(&self) -> bool {
        self.answer.is_some()
    }

    /// What looks wrong but can be used: policies that never apply, names that look alike.
    pub fn warnings(&self) -> &[Problem] {
        &self.warnings
    }

    pub(super) fn schema(&self) -> &Schema {
        &self.schema
    }
}
