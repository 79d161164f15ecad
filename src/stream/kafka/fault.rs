//! What went wrong, and its fate: the three kinds of error of the seam. Limits: what to do about it is the lane's.

use rdkafka::error::{KafkaError, RDKafkaErrorCode as Code};

use crate::stream::kafka_ffi::TransactionError;
use crate::stream::log::{Cause, LogError, ProducerFate};

pub(super) fn fate(code: Code) -> ProducerFate {
    match code {
        Code::Fenced | Code::ProducerFenced | Code::InvalidProducerEpoch => ProducerFate::Fenced,
        _ => ProducerFate::Unclear,
    }
}

pub(super) fn classify(call: &'static str, error: &KafkaError) -> LogError {
    match error {
        KafkaError::Transaction(told) => classify_told(call, &TransactionError::from(told)),
        _ => rewind(call, &error.to_string(), ProducerFate::Unclear),
    }
}

/// INVARIANT: whatever is not known to leave a usable producer behind, a time-out above all, costs the producer.
pub(super) fn classify_told(call: &'static str, told: &TransactionError) -> LogError {
    let producer = match told {
        TransactionError { fatal: true, code, .. } => fate(*code),
        TransactionError { must_abort: true, .. } => ProducerFate::Usable,
        _ => ProducerFate::Unclear,
    };
    rewind(call, &told.text, producer)
}

pub(super) fn rewind(call: &'static str, detail: &str, producer: ProducerFate) -> LogError {
    LogError::AbortAndRewind { cause: Cause { call, detail: detail.to_owned() }, producer }
}

pub(super) fn retriable(call: &'static str, error: &KafkaError) -> LogError {
    LogError::Retriable(Cause { call, detail: error.to_string() })
}

pub(super) fn fatal(call: &'static str, error: &KafkaError) -> LogError {
    LogError::Fatal(Cause { call, detail: error.to_string() })
}
