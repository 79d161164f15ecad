//! The certificates of a configuration's HTTP interfaces, loaded with all that is wrong with them. Limits: what is served with
//! them is the gate's matter.

use std::sync::Arc;

use crate::authorize::ids::UnixMillis;
use crate::config::{Problems, Settings, TlsSettings};
use crate::control::certificates::Certificate;

/// The certificates, where the configuration names them.
#[derive(Debug)]
pub(super) struct Certificates {
    /// That of access evaluations.
    pub(super) access: Option<Arc<Certificate>>,
    /// That of approvals.
    pub(super) approvals: Option<Arc<Certificate>>,
    /// What a person should look at.
    pub(super) warnings: Problems,
}

impl Certificates {
    /// Loads them.
    ///
    /// # Errors
    /// Everything that is wrong with any of them.
    pub(super) fn load(settings: &Settings, now: UnixMillis) -> Result<Self, Problems> {
        let (mut problems, mut warnings) = (Problems::default(), Problems::default());
        let mut load = |server, tls: Option<&TlsSettings>| match Certificate::load(server, tls?, now) {
            Ok((certificate, found)) => {
                warnings.append(found);
                Some(Arc::new(certificate))
            }
            Err(found) => {
                problems.append(found);
                None
            }
        };
        let access = load("access", settings.access.as_ref().and_then(|access| access.tls.as_ref()));
        let approvals =
            load("approvals", settings.approvals.as_ref().and_then(|approvals| approvals.tls.as_ref()));
        problems.into_result().map(|()| Self { access, approvals, warnings })
    }

    /// Each of them.
    pub(super) fn all(&self) -> impl Iterator<Item = &Arc<Certificate>> {
        [&self.access, &self.approvals].into_iter().flatten()
    }
}

/// Both, or everything that is wrong with either.
pub(super) fn both<A, B>(one: Result<A, Problems>, other: Result<B, Problems>) -> Result<(A, B), Problems> {
    match (one, other) {
        (Ok(one), Ok(other)) => Ok((one, other)),
        (one, other) => {
            let mut problems = one.err().unwrap_or_default();
            problems.append(other.err().unwrap_or_default());
            Err(problems)
        }
    }
}
