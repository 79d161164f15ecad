//! Records of the registry of workflows as bytes: Avro single-object encoding (Avro 1.12, "Single-object encoding") of
//! `schemas/workflow.avsc`, under the workflow's id as the key. Limits: it reads what was written with this version of the
//! schema, known by its fingerprint, and refuses the rest; a workflow is read whole or not at all.

use std::sync::LazyLock;

use apache_avro::headers::{HeaderBuilder, RabinFingerprintHeader};
use apache_avro::reader::datum::GenericDatumReader;
use apache_avro::writer::datum::GenericDatumWriter;
use apache_avro::{AvroResult, Schema};
use serde::{Deserialize, Serialize};

use crate::authorize::ids::UnixMillis;
use crate::authorize::json::has_control_str;
use crate::authorize::standing::{Registered, Status};

/// The schema of the registry's records, as it is published.
pub const WORKFLOW_SCHEMA: &str = include_str!("../../schemas/workflow.avsc");

/// Bytes of a record's value. One workflow is kept in memory until it ends.
const MAX_BYTES: usize = 64 * 1024;

static SCHEMA: LazyLock<AvroResult<Schema>> = LazyLock::new(|| Schema::parse_str(WORKFLOW_SCHEMA));

/// Why a record is none of the registry, or a workflow could not become one.
#[derive(Debug, thiserror::Error)]
pub enum WorkflowCodecError {
    /// The published schema itself does not parse: a broken build.
    #[error("the workflow schema does not parse: {0}")]
    Schema(String),
    /// Larger than 64 KiB.
    #[error("larger than {MAX_BYTES} bytes")]
    TooLarge,
    /// Not the two marker bytes and eight bytes of fingerprint of single-object encoding.
    #[error("not an Avro single-object encoding")]
    NotSingleObject,
    /// Written with a schema that this version does not know.
    #[error("written with a schema that this version does not know (fingerprint {0})")]
    UnknownSchema(String),
    /// Bytes follow the datum.
    #[error("longer than what its schema describes")]
    Trailing,
    /// The key is another workflow's id, or none.
    #[error("the record's key is not the workflow's `id`")]
    AnotherId,
    /// A name is empty or holds a control character, so no record could name it.
    #[error("`{0}` is empty or holds a control character")]
    Name(&'static str),
    /// Avro's own complaint.
    #[error("{0}")]
    Avro(#[from] apache_avro::Error),
}

/// Writes and reads the registry's records; made once and kept.
pub struct WorkflowCodec {
    writer: GenericDatumWriter<'static>,
    reader: GenericDatumReader<'static>,
    header: Vec<u8>,
}

impl std::fmt::Debug for WorkflowCodec {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("WorkflowCodec").finish_non_exhaustive()
    }
}

/// The record as its schema has it.
#[derive(Serialize, Deserialize)]
#[serde(rename = "Workflow")]
struct Written {
    id: String,
    #[serde(rename = "type")]
    kind: String,
    status: Status,
    step: String,
    owner: String,
    allowed_steps: Option<Vec<String>>,
    version: i64,
    updated_at: i64,
}

impl WorkflowCodec {
    /// A codec for the published schema.
    pub fn new() -> Result<Self, WorkflowCodecError> {
        let schema = SCHEMA.as_ref().map_err(|error| WorkflowCodecError::Schema(error.to_string()))?;
        Ok(Self {
            writer: GenericDatumWriter::builder(schema).build()?,
            reader: GenericDatumReader::builder(schema).build()?,
            header: RabinFingerprintHeader::from_schema(schema).build_header(),
        })
    }

    /// The value of the record that says how the workflow of that id stands; the id is its key.
    ///
    /// # Errors
    /// A name that is empty or holds a control character.
    pub fn encode(&self, id: &str, workflow: &Registered) -> Result<Vec<u8>, WorkflowCodecError> {
        let written = Written {
            id: id.to_owned(),
            kind: workflow.kind.to_string(),
            status: workflow.status,
            step: workflow.step.to_string(),
            owner: workflow.owner.to_string(),
            allowed_steps: workflow
                .allowed_steps
                .as_ref()
                .map(|steps| steps.iter().map(ToString::to_string).collect()),
            version: workflow.version,
            updated_at: workflow.updated_at.0,
        };
        check(&written)?;
        let mut bytes = self.header.clone();
        self.writer.write_ser(&mut bytes, &written)?;
        if bytes.len() > MAX_BYTES { Err(WorkflowCodecError::TooLarge) } else { Ok(bytes) }
    }

    /// How the workflow stands, and its id, which is the record's key.
    ///
    /// # Errors
    /// Anything but what [`Self::encode`] writes for that key.
    pub fn decode<'k>(
        &self,
        key: &'k [u8],
        value: &[u8],
    ) -> Result<(&'k str, Registered), WorkflowCodecError> {
        if value.len() > MAX_BYTES {
            return Err(WorkflowCodecError::TooLarge);
        }
        let (header, mut datum) = value.split_at_checked(10).ok_or(WorkflowCodecError::NotSingleObject)?;
        let fingerprint = header.strip_prefix(&[0xC3, 0x01]).ok_or(WorkflowCodecError::NotSingleObject)?;
        if header != self.header {
            let fingerprint = fingerprint.iter().map(|byte| format!("{byte:02x}")).collect();
            return Err(WorkflowCodecError::UnknownSchema(fingerprint));
        }
        let written: Written = self.reader.read_deser(&mut datum)?;
        if !datum.is_empty() {
            return Err(WorkflowCodecError::Trailing);
        }
        let id = std::str::from_utf8(key).ok().filter(|id| *id == written.id);
        let id = id.ok_or(WorkflowCodecError::AnotherId)?;
        check(&written)?;
        let steps = |steps: Vec<String>| steps.into_iter().map(String::into_boxed_str).collect();
        let registered = Registered {
            kind: written.kind.into(),
            status: written.status,
            step: written.step.into(),
            owner: written.owner.into(),
            allowed_steps: written.allowed_steps.map(steps),
            version: written.version,
            updated_at: UnixMillis(written.updated_at),
        };
        Ok((id, registered))
    }
}

/// By the rules for what a record says of its workflow (contract, section 2); `owner` may be empty.
fn check(written: &Written) -> Result<(), WorkflowCodecError> {
    let steps = written.allowed_steps.iter().flatten().map(|step| ("allowed_steps", step));
    let names = [("id", &written.id), ("type", &written.kind), ("step", &written.step)];
    for (name, text) in names.into_iter().chain(steps) {
        if text.is_empty() || has_control_str(text) {
            return Err(WorkflowCodecError::Name(name));
        }
    }
    if has_control_str(&written.owner) { Err(WorkflowCodecError::Name("owner")) } else { Ok(()) }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn workflow(status: Status, allowed: Option<&[&str]>) -> Registered {
        Registered {
            kind: "invoice".into(),
            status,
            step: "pay".into(),
            owner: "spiffe://example.org/orchestrator".into(),
            allowed_steps: allowed.map(|steps| steps.iter().map(|step| (*step).into()).collect()),
            version: 7,
            updated_at: UnixMillis(1_893_456_000_123),
        }
    }

    #[test]
    fn a_workflow_comes_back_as_it_went_in_every_status() {
        let codec = WorkflowCodec::new().unwrap();
        for status in Status::ALL {
            for allowed in [None, Some(&[][..]), Some(&["pay", "check"][..])] {
                let workflow = workflow(status, allowed);
                let bytes = codec.encode("wf-1", &workflow).unwrap();
                assert_eq!(codec.decode(b"wf-1", &bytes).unwrap(), ("wf-1", workflow));
            }
        }
    }

    #[test]
    fn the_bytes_are_those_of_avro() {
        let codec = WorkflowCodec::new().unwrap();
        let bytes = codec.encode("w", &workflow(Status::Cancelled, Some(&["a"]))).unwrap();
        assert_eq!(&bytes[..2], &[0xC3, 0x01]);
        let mut datum = vec![2, b'w', 14];
        datum.extend_from_slice(b"invoice");
        // The fourth symbol, zigzag.
        datum.extend_from_slice(&[6, 6]);
        datum.extend_from_slice(b"pay");
        assert_eq!(&bytes[10..10 + datum.len()], datum);
    }

    #[test]
    fn what_is_not_a_workflow_of_that_key_is_refused_with_its_reason() {
        use WorkflowCodecError as E;
        let codec = WorkflowCodec::new().unwrap();
        let bytes = codec.encode("wf-1", &workflow(Status::Running, Some(&["pay"]))).unwrap();
        let error = |key: &[u8], value: &[u8]| codec.decode(key, value).unwrap_err();
        assert!(matches!(error(b"wf-2", &bytes), E::AnotherId));
        assert!(matches!(error(b"\xff", &bytes), E::AnotherId));
        assert!(matches!(error(b"wf-1", b"{}"), E::NotSingleObject));
        let mut other = bytes.clone();
        other[5] ^= 1;
        assert!(matches!(error(b"wf-1", &other), E::UnknownSchema(_)));
        for cut in 10..bytes.len() {
            error(b"wf-1", &bytes[..cut]);
        }
        assert!(matches!(error(b"wf-1", &[&bytes[..], &[0]].concat()), E::Trailing));
        assert!(matches!(error(b"wf-1", &[0xC3; MAX_BYTES + 1]), E::TooLarge));
    }

    #[test]
    fn names_that_no_record_could_have_are_not_written() {
        let codec = WorkflowCodec::new().unwrap();
        let named = |id: &str, change: fn(&mut Registered)| {
            let mut workflow = workflow(Status::Running, Some(&["pay"]));
            change(&mut workflow);
            match codec.encode(id, &workflow) {
                Err(WorkflowCodecError::Name(name)) => Some(name),
                _ => None,
            }
        };
        assert_eq!(named("wf-1", |_| {}), None);
        assert_eq!(named("wf-1", |w| w.owner = "".into()), None);
        assert_eq!(named("", |_| {}), Some("id"));
        assert_eq!(named("wf\n", |_| {}), Some("id"));
        assert_eq!(named("wf-1", |w| w.kind = "".into()), Some("type"));
        assert_eq!(named("wf-1", |w| w.step = "a\u{85}".into()), Some("step"));
        assert_eq!(named("wf-1", |w| w.owner = "a\0".into()), Some("owner"));
        assert_eq!(named("wf-1", |w| w.allowed_steps = Some(["".into()].into())), Some("allowed_steps"));
    }
}
