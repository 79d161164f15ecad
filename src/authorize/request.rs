//! Which action on which resource: from the proof, or by CEL expressions over the record.
