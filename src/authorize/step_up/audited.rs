//! A request as audit records and challenges write it, and back. Limits: properties are JSON text there.

use serde_json::{Map, Value};

use crate::authorize::audit::{AuditAction, AuditResource, AuditWorkflow};
use crate::authorize::request::{Action, Resource, Workflow};

fn text(properties: Option<&Map<String, Value>>) -> Option<String> {
    properties.and_then(|properties| serde_json::to_string(properties).ok())
}

fn read(properties: Option<&String>) -> Option<Map<String, Value>> {
    properties.and_then(|text| serde_json::from_str(text).ok())
}

pub(in crate::authorize) fn action(action: &Action) -> AuditAction {
    AuditAction { name: action.name.clone(), properties: text(action.properties.as_ref()) }
}

pub(in crate::authorize) fn resource(resource: &Resource) -> AuditResource {
    let properties = text(resource.properties.as_ref());
    AuditResource { kind: resource.kind.clone(), id: resource.id.clone(), properties }
}

pub(in crate::authorize) fn workflow(workflow: &Workflow) -> AuditWorkflow {
    AuditWorkflow {
        id: workflow.id.clone(),
        kind: workflow.kind.clone(),
        step: workflow.step.clone(),
        state: workflow.state.clone(),
        attempt: workflow.attempt.and_then(|attempt| i64::try_from(attempt).ok()),
        started_at: workflow.started_at,
        deadline: workflow.deadline,
    }
}

pub(super) fn action_of(written: &AuditAction) -> Action {
    Action { name: written.name.clone(), properties: read(written.properties.as_ref()) }
}

pub(super) fn resource_of(written: &AuditResource) -> Resource {
    let properties = read(written.properties.as_ref());
    Resource { kind: written.kind.clone(), id: written.id.clone(), properties }
}

pub(super) fn workflow_of(written: &AuditWorkflow) -> Workflow {
    Workflow {
        id: written.id.clone(),
        kind: written.kind.clone(),
        step: written.step.clone(),
        state: written.state.clone(),
        attempt: written.attempt.and_then(|attempt| u64::try_from(attempt).ok()),
        started_at: written.started_at,
        deadline: written.deadline,
    }
}
