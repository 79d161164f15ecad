//! Authorities and the certificates that they issue, made in the test that needs them. Limits: tests alone.

use std::time::Duration;

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use rcgen::{
    BasicConstraints, CertificateParams, CertifiedIssuer, ExtendedKeyUsagePurpose, IsCa, KeyPair,
    KeyUsagePurpose, SanType, date_time_ymd,
};
use rustls_pki_types::CertificateDer;
use serde_json::{Value, json};

use crate::authorize::testing::NOW_S;

/// Somebody who issues certificates.
pub(crate) struct Authority(CertifiedIssuer<'static, KeyPair>);

/// A certificate with its chain and its key.
pub(crate) struct Issued {
    pub(crate) chain: Vec<CertificateDer<'static>>,
    pub(crate) pem: String,
    pub(crate) key_pem: String,
}

/// Good from an hour before `NOW_S` to an hour after.
pub(crate) fn hour(params: &mut CertificateParams) {
    between(params, NOW_S - 3600, NOW_S + 3600);
}

/// Good between these seconds, both included.
pub(crate) fn between(params: &mut CertificateParams, from: i64, to: i64) {
    let at = |seconds: i64| date_time_ymd(1970, 1, 1) + Duration::from_secs(seconds.unsigned_abs());
    (params.not_before, params.not_after) = (at(from), at(to));
}

pub(crate) fn uri(text: &str) -> SanType {
    SanType::URI(text.try_into().unwrap())
}

fn signing(name: &str, edit: impl FnOnce(&mut CertificateParams)) -> CertificateParams {
    let mut params = CertificateParams::new(Vec::new()).unwrap();
    params.distinguished_name.push(rcgen::DnType::CommonName, name);
    params.is_ca = IsCa::Ca(BasicConstraints::Unconstrained);
    params.key_usages = vec![KeyUsagePurpose::KeyCertSign, KeyUsagePurpose::CrlSign];
    hour(&mut params);
    edit(&mut params);
    params
}

impl Authority {
    /// A root of that name.
    pub(crate) fn new(name: &str) -> Self {
        Self::with(name, |_| ())
    }

    /// The same, changed before it is signed.
    pub(crate) fn with(name: &str, edit: impl FnOnce(&mut CertificateParams)) -> Self {
        let key = KeyPair::generate().unwrap();
        Self(CertifiedIssuer::self_signed(signing(name, edit), key).unwrap())
    }

    /// One below this one.
    pub(crate) fn below(&self, name: &str, edit: impl FnOnce(&mut CertificateParams)) -> Self {
        let key = KeyPair::generate().unwrap();
        Self(CertifiedIssuer::signed_by(signing(name, edit), key, &self.0).unwrap())
    }

    pub(crate) fn der(&self) -> CertificateDer<'static> {
        self.0.der().clone()
    }

    pub(crate) fn pem(&self) -> String {
        self.0.pem()
    }

    /// Its entry in a SPIFFE bundle. What the JWK itself says of the key is read by nobody.
    pub(crate) fn entry(&self) -> Value {
        json!({"use": "x509-svid", "kty": "EC", "crv": "P-256", "x5c": [STANDARD.encode(self.0.der())]})
    }

    /// An X.509-SVID of a workload, good for the hour, changed before it is signed.
    pub(crate) fn svid(&self, id: &str, edit: impl FnOnce(&mut CertificateParams)) -> Issued {
        self.issue(|params| {
            params.subject_alt_names = vec![uri(id)];
            params.extended_key_usages =
                vec![ExtendedKeyUsagePurpose::ClientAuth, ExtendedKeyUsagePurpose::ServerAuth];
            edit(params);
        })
    }

    /// The certificate of a server on loopback that clients of today believe.
    pub(crate) fn server(&self, edit: impl FnOnce(&mut CertificateParams)) -> Issued {
        self.issue(|params| {
            params.subject_alt_names = vec![SanType::IpAddress([127, 0, 0, 1].into())];
            between(params, 946_684_800, 4_102_444_800);
            edit(params);
        })
    }

    fn issue(&self, edit: impl FnOnce(&mut CertificateParams)) -> Issued {
        let mut params = CertificateParams::new(Vec::new()).unwrap();
        params.key_usages = vec![KeyUsagePurpose::DigitalSignature];
        hour(&mut params);
        edit(&mut params);
        let key = KeyPair::generate().unwrap();
        let own = params.signed_by(&key, &self.0).unwrap();
        Issued { chain: vec![own.der().clone()], pem: own.pem(), key_pem: key.serialize_pem() }
    }
}

impl Issued {
    /// The same with one more certificate behind it.
    pub(crate) fn under(mut self, authority: &Authority) -> Self {
        self.chain.push(authority.der());
        self.pem = format!("{}{}", self.pem, authority.pem());
        self
    }
}

/// The text of a bundle with these authorities.
pub(crate) fn bundle(authorities: &[&Authority]) -> String {
    let keys: Vec<Value> = authorities.iter().map(|authority| authority.entry()).collect();
    json!({"keys": keys}).to_string()
}
