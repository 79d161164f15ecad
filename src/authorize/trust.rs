//! The keys of each trust domain, for each kind of token.
