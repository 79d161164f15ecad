//! Audit records as bytes: Avro single-object encoding (Avro 1.12, "Single-object encoding") of `schemas/audit.avsc`.
//! Limits: it reads what this version or an older compatible one wrote, known by its fingerprint, and refuses the rest.

use std::sync::LazyLock;

use apache_avro::headers::{HeaderBuilder, RabinFingerprintHeader};
use apache_avro::reader::datum::GenericDatumReader;
use apache_avro::writer::datum::GenericDatumWriter;
use apache_avro::{AvroResult, Schema};

use serde::ser::SerializeTuple as _;
use serde::{Serialize, Serializer};

use crate::authorize::audit::{AuditControl, AuditRecord, AuditTokenHash};

/// The schema of audit records, as it is published.
pub const AUDIT_SCHEMA: &str = include_str!("../../schemas/audit.avsc");

static SCHEMA: LazyLock<AvroResult<Schema>> = LazyLock::new(|| Schema::parse_str(AUDIT_SCHEMA));

/// A record of the schema as the list of its fields, in the schema's order: Avro writes no names, and finding each of fifty by its name
/// costs more than writing it.
struct ByPlace<'a, T>(&'a T);

/// A list of such.
struct Each<'a, T>(&'a [T]);

impl<'a, T> Serialize for Each<'a, T>
where
    ByPlace<'a, T>: Serialize,
{
    fn serialize<S: Serializer>(&self, to: S) -> Result<S::Ok, S::Error> {
        to.collect_seq(self.0.iter().map(ByPlace))
    }
}

/// Names every field: one that is left out does not compile, and one in another's place does not come back in the tests.
macro_rules! by_place {
    ($kind:ident: $($field:ident $(=> $written:expr)?),+ $(,)?) => {
        impl Serialize for ByPlace<'_, $kind> {
            fn serialize<S: Serializer>(&self, to: S) -> Result<S::Ok, S::Error> {
                let $kind { $($field),+ } = self.0;
                let mut places = to.serialize_tuple([$(stringify!($field)),+].len())?;
                $(places.serialize_element(by_place!(@ $field $($written)?))?;)+
                places.end()
            }
        }
    };
    (@ $field:ident) => { $field };
    (@ $field:ident $written:expr) => { &$written };
}

by_place!(AuditRecord: decision_id, outcome, reason, detail, realm, topic, partition, offset, timestamp, timestamp_type, accepted, decided, gate, route, sender, proven, subject, subject_domain, chain, continues_from, transaction, scope, action, resource, workflow, registered, context, masked, policies, errors, step_ups, challenge, hold_until, discharged, approvers, answer, request_id, bundle, bundle_version, control => Each(control), token_hashes => Each(token_hashes), key_digest, value_digest, trace_id, leaf_index);
by_place!(AuditControl: name, version);
by_place!(AuditTokenHash: header, sha256);

/// Why bytes are no audit record, or an audit record could not become bytes.
#[derive(Debug, thiserror::Error)]
pub enum AuditCodecError {
    /// The published schema itself does not parse: a broken build.
    #[error("the audit schema does not parse: {0}")]
    Schema(String),
    /// Not the two marker bytes and eight bytes of fingerprint of single-object encoding.
    #[error("not an Avro single-object encoding")]
    NotSingleObject,
    /// Written with a schema that this version does not know.
    #[error("written with a schema that this version does not know (fingerprint {0})")]
    UnknownSchema(String),
    /// Avro's own complaint.
    #[error("{0}")]
    Avro(#[from] apache_avro::Error),
}

/// Writes and reads audit records; made once and kept, since resolving the schema costs more than a record.
pub struct AuditCodec {
    writer: GenericDatumWriter<'static>,
    reader: GenericDatumReader<'static>,
    header: Vec<u8>,
}

impl std::fmt::Debug for AuditCodec {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("AuditCodec").finish_non_exhaustive()
    }
}

impl AuditCodec {
    /// A codec for the published schema.
    pub fn new() -> Result<Self, AuditCodecError> {
        let schema = SCHEMA.as_ref().map_err(|error| AuditCodecError::Schema(error.to_string()))?;
        Ok(Self {
            writer: GenericDatumWriter::builder(schema).build()?,
            reader: GenericDatumReader::builder(schema).build()?,
            header: RabinFingerprintHeader::from_schema(schema).build_header(),
        })
    }

    /// The bytes of one record: marker, fingerprint, datum.
    pub fn encode(&self, record: &AuditRecord) -> Result<Vec<u8>, AuditCodecError> {
        let mut bytes = Vec::with_capacity(1024);
        bytes.extend_from_slice(&self.header);
        self.writer.write_ser(&mut bytes, &ByPlace(record))?;
        Ok(bytes)
    }

    /// The record of these bytes.
    pub fn decode(&self, bytes: &[u8]) -> Result<AuditRecord, AuditCodecError> {
        let (header, mut datum) = bytes.split_at_checked(10).ok_or(AuditCodecError::NotSingleObject)?;
        let fingerprint = header.strip_prefix(&[0xC3, 0x01]).ok_or(AuditCodecError::NotSingleObject)?;
        if header != self.header {
            let fingerprint = fingerprint.iter().map(|byte| format!("{byte:02x}")).collect();
            return Err(AuditCodecError::UnknownSchema(fingerprint));
        }
        Ok(self.reader.read_deser(&mut datum)?)
    }
}

#[cfg(test)]
pub(crate) mod tests {
    use super::*;
    use crate::authorize::audit::*;

    /// A record with every field filled, so that a field left out of the schema shows.
    pub(crate) fn full() -> AuditRecord {
        fn s<T: for<'t> From<&'t str>>(text: &str) -> T {
            text.into()
        }
        AuditRecord {
            decision_id: s("0190a6c0-0000-7000-8000-000000000001"),
            outcome: s("deny"),
            reason: Some(s("forbidden")),
            detail: Some(s("a policy forbids it")),
            realm: s("test"),
            topic: s("payments.commands"),
            partition: 3,
            offset: 42,
            timestamp: Some(1_893_455_996_000),
            timestamp_type: s("LogAppendTime"),
            accepted: 1_893_455_996_000,
            decided: 1_893_456_000_000,
            gate: s("spiffe://example.org/gate/payments"),
            route: s("payments"),
            sender: Some(s("spiffe://example.org/agent/payer")),
            proven: true,
            subject: Some(s("alice")),
            subject_domain: Some(s("example.org")),
            chain: vec![s("spiffe://example.org/agent/planner")],
            continues_from: Some(s("plans.authorized")),
            transaction: Some(s("txn-1")),
            scope: vec![s("payments.pay")],
            action: Some(AuditAction { name: s("pay"), properties: Some(s("{}")) }),
            resource: Some(AuditResource { kind: s("Invoice"), id: s("inv-7"), properties: None }),
            workflow: Some(AuditWorkflow {
                id: s("wf-1"),
                kind: s("invoice-payment"),
                step: s("pay"),
                state: s("running"),
                attempt: Some(1),
                started_at: Some(1.5),
                deadline: None,
            }),
            registered: Some(AuditRegistered {
                status: s("running"),
                step: Some(s("pay")),
                owner: Some(s("spiffe://example.org/orchestrator")),
                version: Some(7),
            }),
            context: Some(s("{\"now\":1}")),
            masked: vec![s("transaction.details.card")],
            policies: vec![s("frozen")],
            errors: vec![AuditError { policy: s("odd"), message: s("overflow") }],
            step_ups: vec![s("ask")],
            challenge: Some(s("payments.commands:3:0190a6c0-0000-7000-8000-000000000001")),
            hold_until: Some(1_893_457_800_000),
            discharged: vec![s("ask")],
            approvers: vec![s("User::\"carol\"")],
            answer: Some(AuditAnswer {
                effect: s("counted"),
                approver: Some(s("User::\"carol\"")),
                decision: Some(s("approve")),
                jti: Some(s("a-1")),
                offset: Some(3),
            }),
            request_id: Some(s("r-1")),
            bundle: s("AAAA"),
            bundle_version: Some(s("7")),
            control: vec![AuditControl { name: s("policy"), version: s("AAAA") }],
            token_hashes: vec![AuditTokenHash { header: s("txn-token"), sha256: s("AAAA") }],
            key_digest: Some(s("AAAA")),
            value_digest: None,
            trace_id: Some(s("4bf92f3577b34da6a3ce929d0e0e4736")),
            leaf_index: 9,
        }
    }

    #[test]
    fn a_record_comes_back_as_it_went() {
        let codec = AuditCodec::new().unwrap();
        let bytes = codec.encode(&full()).unwrap();
        assert_eq!(&bytes[..2], &[0xC3, 0x01]);
        assert_eq!(codec.decode(&bytes).unwrap(), full());
    }

    #[test]
    fn what_is_written_by_place_is_what_would_be_written_by_name() {
        let codec = AuditCodec::new().unwrap();
        let mut by_name = codec.header.clone();
        codec.writer.write_ser(&mut by_name, &full()).unwrap();
        assert_eq!(codec.encode(&full()).unwrap(), by_name);
    }

    #[test]
    fn bytes_of_another_kind_are_refused_with_their_reason() {
        let codec = AuditCodec::new().unwrap();
        let bytes = codec.encode(&full()).unwrap();
        assert!(matches!(codec.decode(b"{}"), Err(AuditCodecError::NotSingleObject)));
        let mut other = bytes.clone();
        other[5] ^= 1;
        assert!(matches!(codec.decode(&other), Err(AuditCodecError::UnknownSchema(_))));
        for cut in 10..bytes.len() {
            assert!(codec.decode(&bytes[..cut]).is_err(), "cut at {cut}");
        }
    }
}
