//! Translation between types and the bytes of records: audit, outgoing records. Pure.
