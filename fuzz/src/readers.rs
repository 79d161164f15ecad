//! The body of the target `avro`: everything that a gate reads back from topics and offsets of its own, or of others.
//! Limits: what reads must come back as it was, once it is written again.

use std::sync::LazyLock;

use countersign::authorize::ids::Partition;
use countersign::authorize::step_up::Keep;
use countersign::stream::checkpoint::Checkpoint;
use countersign::wire::audit::AuditCodec;
use countersign::wire::challenge::ChallengeCodec;
use countersign::wire::holds::{self, HoldKey};
use countersign::wire::replay;
use countersign::wire::workflow::WorkflowCodec;

static AUDIT: LazyLock<AuditCodec> = LazyLock::new(|| AuditCodec::new().expect("a codec"));
static CHALLENGE: LazyLock<ChallengeCodec> = LazyLock::new(|| ChallengeCodec::new().expect("a codec"));
static WORKFLOW: LazyLock<WorkflowCodec> = LazyLock::new(|| WorkflowCodec::new().expect("a codec"));

/// Audit records, challenges, workflows, replay entries, holds and what stands beside an offset.
pub fn avro(data: &[u8]) {
    if let Ok(audit) = AUDIT.decode(data) {
        let again = AUDIT.decode(&AUDIT.encode(&audit).expect("it was read")).expect("it was written");
        // A number that is none equals nothing, not even itself.
        assert_eq!(format!("{again:?}"), format!("{audit:?}"));
    }
    if let Ok(challenge) = CHALLENGE.decode(data) {
        let again =
            CHALLENGE.decode(&CHALLENGE.encode(&challenge).expect("it was read")).expect("it was written");
        assert_eq!(format!("{again:?}"), format!("{challenge:?}"));
    }
    if let Ok((id, workflow)) = WORKFLOW.decode(b"wf-1", data) {
        let again = WORKFLOW.encode(id, &workflow).expect("it was read");
        assert_eq!(WORKFLOW.decode(b"wf-1", &again).expect("it was written").1, workflow);
    }
    if let Ok(entries) = replay::decode(data) {
        assert_eq!(replay::decode(&replay::encode(&entries)).as_deref(), Ok(&entries[..]));
    }
    if let Ok(key) = HoldKey::decode(data, Partition(0)) {
        assert!(HoldKey::decode(&key.encode(Partition(0)), Partition(0)).is_ok());
    }
    let _ = holds::decode_grant(data);
    if let Ok(entry) = holds::decode_state(data) {
        let keep = Keep::State(countersign::authorize::ids::Offset(0), Some(entry.clone()));
        let (_, value) = holds::encode(&keep, Partition(0)).expect("it was read");
        let again = holds::decode_state(&value.expect("a value")).expect("it was written");
        assert_eq!(format!("{again:?}"), format!("{entry:?}"));
    }
    if let Ok(payload) = holds::decode_payload(data) {
        let source = payload.record.source.offset;
        let keep = Keep::Payload(source, Some(Box::new(payload.clone())));
        let (_, value) = holds::encode(&keep, Partition(0)).expect("it was read");
        let again = holds::decode_payload(&value.expect("a value")).expect("it was written");
        assert_eq!(format!("{again:?}"), format!("{payload:?}"));
    }
    if let Ok(text) = std::str::from_utf8(data)
        && let Ok(Some(checkpoint)) = Checkpoint::decode(text)
        && let Ok(again) = checkpoint.encode()
    {
        assert_eq!(Checkpoint::decode(&again), Ok(Some(checkpoint)));
    }
}
