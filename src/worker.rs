//! What workers link: verify countersignatures, carry the context on.
