//! X.509-SVIDs: certificates that say which workload holds a key (SPIFFE X509-SVID), and who may vouch for them. Limits: that
//! the other side holds the key is for the handshake that brought the certificate; which authorities count is the bundle's
//! word. Times are judged at the moment that is handed in, without skew.

mod authorities;
mod certificate;
mod peer;
#[cfg(test)]
pub(crate) mod testing;
#[cfg(test)]
mod tests;

pub use authorities::{Authorities, AuthorityError};
pub use certificate::{Svid, SvidError, Validity};
pub use peer::{Peer, PeerError};
