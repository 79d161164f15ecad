//! What producers link: sign the context of a record.
