//! Challenges as bytes: Avro single-object encoding (Avro 1.12, "Single-object encoding") of `schemas/challenge.avsc`.
//! Limits: it reads what this version wrote, known by its fingerprint, and refuses the rest.

use std::sync::LazyLock;

use apache_avro::headers::{HeaderBuilder, RabinFingerprintHeader};
use apache_avro::reader::datum::GenericDatumReader;
use apache_avro::writer::datum::GenericDatumWriter;
use apache_avro::{AvroResult, Schema};

use crate::authorize::step_up::Challenge;

/// The schema of challenges, as it is published.
pub const CHALLENGE_SCHEMA: &str = include_str!("../../schemas/challenge.avsc");

static SCHEMA: LazyLock<AvroResult<Schema>> = LazyLock::new(|| Schema::parse_str(CHALLENGE_SCHEMA));

/// Why bytes are no challenge, or a challenge could not become bytes.
#[derive(Debug, thiserror::Error)]
pub enum ChallengeCodecError {
    /// The published schema itself does not parse: a broken build.
    #[error("the challenge schema does not parse: {0}")]
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

/// Writes and reads challenges; made once and kept.
pub struct ChallengeCodec {
    writer: GenericDatumWriter<'static>,
    reader: GenericDatumReader<'static>,
    header: Vec<u8>,
}

impl std::fmt::Debug for ChallengeCodec {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("ChallengeCodec").finish_non_exhaustive()
    }
}

impl ChallengeCodec {
    /// A codec for the published schema.
    pub fn new() -> Result<Self, ChallengeCodecError> {
        let schema = SCHEMA.as_ref().map_err(|error| ChallengeCodecError::Schema(error.to_string()))?;
        Ok(Self {
            writer: GenericDatumWriter::builder(schema).build()?,
            reader: GenericDatumReader::builder(schema).build()?,
            header: RabinFingerprintHeader::from_schema(schema).build_header(),
        })
    }

    /// The bytes of one challenge: marker, fingerprint, datum.
    pub fn encode(&self, challenge: &Challenge) -> Result<Vec<u8>, ChallengeCodecError> {
        let mut bytes = Vec::with_capacity(1024);
        bytes.extend_from_slice(&self.header);
        self.writer.write_ser(&mut bytes, challenge)?;
        Ok(bytes)
    }

    /// The challenge of these bytes.
    pub fn decode(&self, bytes: &[u8]) -> Result<Challenge, ChallengeCodecError> {
        let (header, mut datum) = bytes.split_at_checked(10).ok_or(ChallengeCodecError::NotSingleObject)?;
        let fingerprint = header.strip_prefix(&[0xC3, 0x01]).ok_or(ChallengeCodecError::NotSingleObject)?;
        if header != self.header {
            let fingerprint = fingerprint.iter().map(|byte| format!("{byte:02x}")).collect();
            return Err(ChallengeCodecError::UnknownSchema(fingerprint));
        }
        Ok(self.reader.read_deser(&mut datum)?)
    }
}

#[cfg(test)]
pub(crate) mod tests {
    use super::*;
    use crate::authorize::audit::{AuditAction, AuditResource, AuditWorkflow};
    use crate::authorize::step_up::{Ask, CountedAnswer, Status};

    /// A challenge with every field filled, so that a field left out of the schema shows.
    pub(crate) fn full() -> Challenge {
        let s = |text: &str| text.to_owned();
        Challenge {
            id: s("payments.commands:3:0190a6c0-0000-7000-8000-000000000001"),
            status: Status::Refused,
            changed_at: 1_893_456_060_000,
            realm: s("test"),
            route: s("payments"),
            topic: s("payments.commands"),
            partition: 3,
            offset: 42,
            asked_at: 1_893_456_000_000,
            hold_until: 1_893_457_800_000,
            approvals: 2,
            step_ups: vec![Ask {
                name: s("second-pair-of-eyes"),
                policy: s("large"),
                message: s("Pay 12,000 EUR for inv-7?"),
                approvals: 2,
                grant_s: 600,
                acr_values: Some(s("phr phrh")),
                max_age_s: Some(300),
            }],
            sender: s("spiffe://example.org/agent/payer"),
            subject: Some(s("alice")),
            chain: vec![s("spiffe://example.org/agent/planner")],
            transaction: Some(s("txn-1")),
            action: AuditAction { name: s("pay"), properties: Some(s("{}")) },
            resource: AuditResource { kind: s("Invoice"), id: s("inv-7"), properties: Some(s("{}")) },
            workflow: Some(AuditWorkflow {
                id: s("wf-1"),
                kind: s("invoice"),
                step: s("pay"),
                state: s("running"),
                attempt: Some(1),
                started_at: Some(1.5),
                deadline: None,
            }),
            digest: s("AAAA"),
            answers: vec![CountedAnswer {
                approver: s("User::\"carol\""),
                decision: s("refuse"),
                jti: s("a-1"),
                answered_at: 1_893_456_060_000,
                grant_until: 1_893_456_660_000,
                comment: Some(s("not this month")),
            }],
            reminders: 1,
            decision_id: Some(s("0190a6c0-0000-7000-8000-000000000002")),
            reason: Some(s("step_up_refused")),
        }
    }

    #[test]
    fn a_challenge_comes_back_as_it_went() {
        let codec = ChallengeCodec::new().unwrap();
        let bytes = codec.encode(&full()).unwrap();
        assert_eq!(&bytes[..2], &[0xC3, 0x01]);
        assert_eq!(codec.decode(&bytes).unwrap(), full());
    }

    #[test]
    fn bytes_of_another_kind_are_refused_with_their_reason() {
        let codec = ChallengeCodec::new().unwrap();
        let bytes = codec.encode(&full()).unwrap();
        assert!(matches!(codec.decode(b"{}"), Err(ChallengeCodecError::NotSingleObject)));
        let mut other = bytes.clone();
        other[5] ^= 1;
        assert!(matches!(codec.decode(&other), Err(ChallengeCodecError::UnknownSchema(_))));
        for cut in 10..bytes.len() {
            assert!(codec.decode(&bytes[..cut]).is_err(), "cut at {cut}");
        }
    }
}
