//! Each rule of an X.509-SVID broken alone, and each way in which an authority could vouch for what is not its own.

use std::collections::BTreeMap;

use proptest::prelude::*;
use rcgen::{BasicConstraints, CertificateParams, ExtendedKeyUsagePurpose, IsCa, KeyUsagePurpose};
use rustls_pki_types::CertificateDer;
use serde_json::json;

use super::testing::{Authority, Issued, between, bundle, uri};
use super::*;
use crate::authorize::decision::Reason;
use crate::authorize::ids::{TrustDomain, UnixMillis};
use crate::authorize::testing::{NOW_S, PAYER, domain, trust_with};
use crate::authorize::trust::Trust;

const NOW: UnixMillis = UnixMillis(NOW_S * 1000);

/// A trust in which each domain is vouched for by these.
fn trust(authorities: &[(&str, &[&Authority])]) -> Trust {
    let of = authorities.iter().map(|(name, of)| {
        let authorities = Authorities::from_bundle(&bundle(of)).unwrap();
        (TrustDomain::parse(name).unwrap(), authorities)
    });
    trust_with(domain()).with_authorities(of.collect::<BTreeMap<_, _>>())
}

fn at(seconds: i64) -> UnixMillis {
    UnixMillis(seconds * 1000)
}

fn refused(issued: &Issued, trust: &Trust) -> PeerError {
    Peer::verify(&issued.chain, trust, NOW).unwrap_err()
}

/// Why the payer's certificate, so changed, is refused.
fn changed(edit: impl FnOnce(&mut CertificateParams)) -> PeerError {
    let own = Authority::new("own");
    refused(&own.svid(PAYER, edit), &trust(&[("example.org", &[&own])]))
}

#[test]
fn a_workloads_certificate_says_who_it_is_and_its_authority_vouches_for_it() {
    let own = Authority::new("own");
    let issued = own.svid(PAYER, |_| ());
    let peer = Peer::verify(&issued.chain, &trust(&[("example.org", &[&own])]), NOW).unwrap();
    assert_eq!(peer.id().as_str(), PAYER);
    let svid = peer.svid();
    assert_eq!((svid.validity.from, svid.validity.to), (NOW_S - 3600, NOW_S + 3600));
    assert_eq!(svid.thumbprint, crate::authorize::jose::sha256(&[&issued.chain[0]]));
    // Through one between, as SPIRE issues them.
    let between = own.below("between", |_| ());
    let issued = between.svid(PAYER, |_| ()).under(&between);
    let peer = Peer::verify(&issued.chain, &trust(&[("example.org", &[&own])]), NOW).unwrap();
    assert_eq!(peer.id().as_str(), PAYER);
    // Other names beside the one URI are allowed (section 2).
    let dns = own.svid(PAYER, |params| {
        params.subject_alt_names.push(rcgen::SanType::DnsName("payer.example.org".try_into().unwrap()));
    });
    assert!(Peer::verify(&dns.chain, &trust(&[("example.org", &[&own])]), NOW).is_ok());
}

#[test]
fn an_authority_vouches_for_its_own_trust_domain_and_for_no_other() {
    let (own, other) = (Authority::new("own"), Authority::new("other"));
    let trust = trust(&[("example.org", &[&own]), ("other.org", &[&other])]);
    let forged = other.svid(PAYER, |_| ());
    assert!(
        matches!(refused(&forged, &trust), PeerError::Unvouched(domain) if domain.as_str() == "example.org")
    );
    // Nor with a chain that ends at it, nor under the name of the right one.
    assert!(matches!(refused(&other.svid(PAYER, |_| ()).under(&other), &trust), PeerError::Unvouched(_)));
    let imposter = Authority::new("own");
    let refusal = refused(&imposter.svid(PAYER, |_| ()), &trust);
    assert_eq!(refusal.denial().reason, Reason::SignatureInvalid, "{refusal}");
    assert!(Peer::verify(&other.svid("spiffe://other.org/a", |_| ()).chain, &trust, NOW).is_ok());
    // A domain whose bundle has none, and one that is not configured.
    let alone = self::trust(&[("other.org", &[&other])]);
    for trust in [&alone, &trust_with(domain())] {
        let refusal = refused(&own.svid(PAYER, |_| ()), trust);
        assert_eq!(refusal.denial().reason, Reason::IssuerUnknown);
        assert!(matches!(refusal, PeerError::UnknownDomain(_)));
    }
    assert!(matches!(
        refused(&own.svid("spiffe://third.org/a", |_| ()), &trust),
        PeerError::UnknownDomain(_)
    ));
}

#[test]
fn a_certificate_names_exactly_one_workload_by_its_spiffe_id() {
    let names = |names: &[&str]| {
        let names: Vec<_> = names.iter().map(|name| uri(name)).collect();
        changed(|params| params.subject_alt_names = names)
    };
    assert_eq!(names(&[]), PeerError::Svid(SvidError::Uris(0)));
    assert_eq!(names(&[PAYER, "spiffe://example.org/b"]), PeerError::Svid(SvidError::Uris(2)));
    assert_eq!(names(&[PAYER, "https://example.org"]), PeerError::Svid(SvidError::Uris(2)));
    assert_eq!(names(&["wimse://example.org/agent/payer"]), PeerError::Svid(SvidError::Scheme));
    for none in
        ["https://example.org/a", "spiffe://example.org", "spiffe://example.org/", "spiffe://EXAMPLE.org/a"]
    {
        assert!(matches!(names(&[none]), PeerError::Svid(SvidError::Name(_))), "{none}");
    }
}

#[test]
fn a_workloads_key_signs_for_itself_and_for_nobody_else() {
    let authority = changed(|params| params.is_ca = IsCa::Ca(BasicConstraints::Unconstrained));
    assert_eq!(authority, PeerError::Svid(SvidError::Authority));
    for usage in [
        vec![],
        vec![KeyUsagePurpose::KeyEncipherment],
        vec![KeyUsagePurpose::DigitalSignature, KeyUsagePurpose::KeyCertSign],
        vec![KeyUsagePurpose::DigitalSignature, KeyUsagePurpose::CrlSign],
    ] {
        assert_eq!(changed(|params| params.key_usages = usage), PeerError::Svid(SvidError::KeyUsage));
    }
    let purpose = changed(|params| params.extended_key_usages = vec![ExtendedKeyUsagePurpose::ServerAuth]);
    assert!(matches!(purpose, PeerError::Path(_)), "{purpose}");
    // A workload that issues a certificate to itself under its own.
    let own = Authority::new("own");
    let workload = own.below("workload", |params| {
        params.is_ca = IsCa::ExplicitNoCa;
        params.key_usages = vec![KeyUsagePurpose::DigitalSignature];
    });
    let below = workload.svid("spiffe://example.org/agent/root", |_| ()).under(&workload);
    assert!(matches!(refused(&below, &trust(&[("example.org", &[&own])])), PeerError::Path(_)));
    // What stands between must be allowed to sign certificates, whatever else it says.
    let between = own.below("between", |params| params.key_usages = vec![KeyUsagePurpose::DigitalSignature]);
    let below = between.svid(PAYER, |_| ()).under(&between);
    assert!(matches!(refused(&below, &trust(&[("example.org", &[&own])])), PeerError::Path(_)));
}

#[test]
fn a_certificate_is_good_for_its_time_both_ends_included_and_so_is_all_that_vouches_for_it() {
    let own = Authority::with("own", |params| between(params, NOW_S - 7200, NOW_S + 7200));
    let issued = own.svid(PAYER, |_| ());
    let trust = trust(&[("example.org", &[&own])]);
    let verified = |issued: &Issued, when| Peer::verify(&issued.chain, &trust, at(when)).map(drop);
    assert_eq!(verified(&issued, NOW_S - 3600), Ok(()));
    assert_eq!(verified(&issued, NOW_S + 3600), Ok(()));
    assert_eq!(verified(&issued, NOW_S - 3601), Err(PeerError::NotYetValid));
    assert_eq!(verified(&issued, NOW_S + 3601), Err(PeerError::Expired));
    // The one between ends first.
    let short = own.below("between", |params| between(params, NOW_S - 60, NOW_S + 60));
    let issued = short.svid(PAYER, |_| ()).under(&short);
    assert_eq!(verified(&issued, NOW_S + 60), Ok(()));
    assert_eq!(verified(&issued, NOW_S + 61), Err(PeerError::Expired));
    // So does an authority: one that is over vouches for nobody.
    let over = Authority::with("over", |params| between(params, NOW_S - 60, NOW_S + 60));
    let trust = self::trust(&[("example.org", &[&over])]);
    let issued = over.svid(PAYER, |_| ());
    assert!(Peer::verify(&issued.chain, &trust, at(NOW_S + 60)).is_ok());
    assert!(matches!(Peer::verify(&issued.chain, &trust, at(NOW_S + 61)), Err(PeerError::Unvouched(_))));
}

#[test]
fn a_peer_is_judged_again_by_the_time_and_the_authorities_of_the_moment() {
    let (own, next) = (Authority::new("own"), Authority::new("next"));
    let between = own.below("between", |params| between(params, NOW_S - 60, NOW_S + 60));
    let issued = between.svid(PAYER, |_| ()).under(&between);
    let before = trust(&[("example.org", &[&own])]);
    let peer = Peer::verify(&issued.chain, &before, NOW).unwrap();
    assert_eq!(peer.check(&before, NOW), Ok(()));
    assert_eq!(peer.check(&before, at(NOW_S + 61)), Err(PeerError::Expired), "the one between is over");
    assert_eq!(peer.check(&trust(&[("example.org", &[&own, &next])]), NOW), Ok(()));
    let after = trust(&[("example.org", &[&next])]);
    assert!(matches!(peer.check(&after, NOW), Err(PeerError::Unvouched(_))), "its authority has gone");
}

#[test]
fn what_is_presented_is_bounded() {
    let own = Authority::new("own");
    let trust = trust(&[("example.org", &[&own])]);
    assert_eq!(Peer::verify(&[], &trust, NOW).unwrap_err(), PeerError::Count(0));
    let mut many = own.svid(PAYER, |_| ());
    while many.chain.len() < 8 {
        many = many.under(&own);
    }
    assert!(Peer::verify(&many.chain, &trust, NOW).is_ok());
    assert_eq!(refused(&many.under(&own), &trust), PeerError::Count(9));
}

#[test]
fn a_bundle_gives_the_first_certificate_of_each_entry_for_x509_svids() {
    let (own, other) = (Authority::new("own"), Authority::new("other"));
    let read = |keys: serde_json::Value| Authorities::from_bundle(&json!({"keys": keys}).to_string());
    let mut two = own.entry();
    two["x5c"] = json!([own.entry()["x5c"][0], "not looked at"]);
    let ignored =
        json!([{"use": "x509-svid"}, {"use": "x509-svid", "x5c": []}, {"use": "jwt-svid", "x5c": 7}, {}]);
    assert!(read(ignored).unwrap().is_empty());
    assert_eq!(read(json!([two, other.entry()])).unwrap().len(), 2);
    let leaf = own.svid(PAYER, |_| ());
    let leaf = {
        use base64::Engine as _;
        base64::engine::general_purpose::STANDARD.encode(&leaf.chain[0])
    };
    for (x5c, error) in [
        (json!("text"), AuthorityError::Encoding { index: 1 }),
        (json!([7]), AuthorityError::Encoding { index: 1 }),
        (json!(["-"]), AuthorityError::Encoding { index: 1 }),
        (json!(["AAAA"]), AuthorityError::NotAnAuthority { index: 1 }),
        (json!([leaf]), AuthorityError::NotAnAuthority { index: 1 }),
    ] {
        let found = read(json!([own.entry(), {"use": "x509-svid", "x5c": x5c}]));
        assert_eq!(found.unwrap_err(), error, "{x5c}");
    }
    assert_eq!(Authorities::from_bundle("{}").unwrap_err(), AuthorityError::NotASet);
}

#[test]
fn the_trusts_version_follows_the_authorities_and_not_their_order() {
    let (own, other) = (Authority::new("own"), Authority::new("other"));
    let versions = [
        trust_with(domain()).version(),
        trust(&[("example.org", &[&own])]).version(),
        trust(&[("other.org", &[&own])]).version(),
        trust(&[("example.org", &[&own, &other])]).version(),
        trust(&[("example.org", &[&own]), ("other.org", &[&other])]).version(),
    ];
    assert_eq!(versions.iter().collect::<std::collections::HashSet<_>>().len(), versions.len());
    assert_eq!(trust(&[("example.org", &[&other, &own])]).version(), versions[3]);
    assert_eq!(trust(&[("example.org", &[])]).version(), versions[0], "nobody vouches for anybody");
}

proptest! {
    #[test]
    fn no_bytes_are_a_panic(bytes in prop::collection::vec(any::<u8>(), 0..200), at in 0_usize..400, byte: u8) {
        let own = Authority::new("own");
        let mut whole = own.svid(PAYER, |_| ()).chain[0].to_vec();
        let length = whole.len();
        whole[at % length] ^= byte;
        for der in [bytes, whole] {
            let chain = [CertificateDer::from(der)];
            let _ = (Svid::read(&chain[0]), Peer::verify(&chain, &trust(&[("example.org", &[&own])]), NOW));
        }
    }
}
