//! A change is taken whole or not at all, and the last good state stays visible.

use std::collections::BTreeMap;
use std::fs;
use std::path::Path;
use std::sync::Arc;
use std::time::{Duration, Instant};

use super::*;
use crate::authorize::ids::TrustDomain;
use crate::authorize::jose::{Algorithm, SigningKey};
use crate::config::{ApproverFiles, DomainFiles, IssuerFiles, OtherFiles};

const SCHEMA: &str = "entity Workload;\nentity Invoice;\naction pay appliesTo { principal: [Workload], resource: [Invoice] };\n";
const POLICY: &str = "@id(\"one\")\npermit (principal, action == Action::\"pay\", resource);\n";

fn jwks(seed: u8, kid: &str) -> String {
    let key = SigningKey::from_seed(Algorithm::EdDsa, &[seed; 32], Some(kid)).unwrap();
    serde_json::json!({ "keys": [key.public_jwk()] }).to_string()
}

fn folder() -> tempfile::TempDir {
    let folder = tempfile::tempdir().unwrap();
    fs::create_dir_all(folder.path().join("policies/deep")).unwrap();
    fs::create_dir_all(folder.path().join("policies/.hidden")).unwrap();
    fs::write(folder.path().join("bundle.json"), jwks(1, "issuer-1")).unwrap();
    fs::write(folder.path().join("policies/schema.cedarschema"), SCHEMA).unwrap();
    fs::write(folder.path().join("policies/deep/one.cedar"), POLICY).unwrap();
    fs::write(folder.path().join("policies/.hidden/one.cedar"), "not read at all").unwrap();
    folder
}

fn sources(folder: &Path) -> Sources {
    let files = DomainFiles {
        bundle: folder.join("bundle.json"),
        token_service: None,
        gates: None,
        algorithms: Algorithm::DEFAULT.to_vec(),
    };
    Sources {
        trust: TrustFiles {
            domains: BTreeMap::from([(TrustDomain::parse("example.org").unwrap(), files)]),
            others: OtherFiles::default(),
        },
        policies: folder.join("policies"),
        entities: EntitiesFrom::Folder,
        offer: Offer::default(),
    }
}

fn load(folder: &Path) -> Result<Control, Problems> {
    Control::load(sources(folder), Telemetry::off(), UnixMillis(1000))
}

#[test]
fn a_good_change_is_switched_to_and_a_bad_one_changes_nothing() {
    let folder = folder();
    let control = load(folder.path()).unwrap();
    let first = control.snapshot();
    assert!(!control.refresh(UnixMillis(1500)), "nothing has changed");

    let bundle = folder.path().join("bundle.json");
    fs::write(&bundle, jwks(2, "issuer-2")).unwrap();
    assert!(control.refresh(UnixMillis(2000)));
    let second = control.snapshot();
    assert_ne!(first.trust.version(), second.trust.version());
    assert_eq!(first.policy.digest(), second.policy.digest());

    fs::write(&bundle, "{\"keys\": [{\"kty\": \"EC\", \"d\": \"AAAA\"}]}").unwrap();
    fs::write(folder.path().join("policies/deep/two.cedar"), "permit (principal, action, resource);")
        .unwrap();
    assert!(!control.refresh(UnixMillis(3000)));
    let third = control.snapshot();
    assert_eq!(third.trust.version(), second.trust.version());
    assert_eq!(third.policy.digest(), second.policy.digest());
    let state = control.trust().state();
    assert_eq!((state.version, state.age_ms(UnixMillis(5000))), (2, 3000));
    assert!(state.error.as_deref().unwrap().contains("bundle.json"), "{:?}", state.error);
    assert!(control.policies().state().error.as_deref().unwrap().contains("two.cedar"));

    fs::write(&bundle, jwks(2, "issuer-2")).unwrap();
    fs::remove_file(folder.path().join("policies/deep/two.cedar")).unwrap();
    control.refresh(UnixMillis(4000));
    assert!(control.trust().state().error.is_none() && control.policies().state().error.is_none());
}

#[test]
fn a_missing_file_is_a_bad_change_and_not_an_empty_key_set() {
    let folder = folder();
    let control = load(folder.path()).unwrap();
    let version = control.snapshot().trust.version();
    fs::remove_file(folder.path().join("bundle.json")).unwrap();
    assert!(!control.refresh(UnixMillis(2000)));
    assert_eq!(control.snapshot().trust.version(), version);
    fs::remove_dir_all(folder.path().join("policies")).unwrap();
    let digest = control.snapshot().policy.digest();
    assert!(!control.refresh(UnixMillis(3000)));
    assert_eq!(control.snapshot().policy.digest(), digest);
    assert!(control.policies().state().error.is_some());
}

#[test]
fn a_pinned_snapshot_outlives_the_switch() {
    let folder = folder();
    let control = load(folder.path()).unwrap();
    let pinned = control.snapshot();
    let digest = pinned.policy.digest();
    fs::write(folder.path().join("policies/deep/one.cedar"), POLICY.replace("permit", "forbid")).unwrap();
    assert!(control.refresh(UnixMillis(2000)));
    assert_eq!(pinned.policy.digest(), digest);
    assert_ne!(control.snapshot().policy.digest(), digest);
}

#[test]
fn everything_wrong_at_the_start_is_named_at_once_with_its_place() {
    let folder = folder();
    let twice = jwks(1, "a").replace("]}", "") + "," + jwks(2, "a").trim_start_matches("{\"keys\":[");
    fs::write(folder.path().join("bundle.json"), &twice).unwrap();
    fs::write(folder.path().join("policies/deep/one.cedar"), "@id(\"one\")\npermit (principal,\n").unwrap();
    let problems = load(folder.path()).unwrap_err();
    let reports: Vec<_> = problems.iter().map(crate::config::Problem::report).collect();
    let key = reports.iter().find(|report| report.message.contains("`kid`")).unwrap();
    assert!(key.file.unwrap().ends_with("bundle.json") && key.column.unwrap() > 20, "{key:?}");
    let policy =
        reports.iter().find(|report| report.file.is_some_and(|file| file.ends_with("one.cedar"))).unwrap();
    assert!(policy.line.is_some(), "{policy:?}");
}

#[test]
fn those_who_revoke_and_those_who_answer_are_watched_like_the_domains() {
    let folder = folder();
    let keys =
        |name: &str| IssuerFiles { keys: folder.path().join(name), algorithms: vec![Algorithm::EdDsa] };
    let mut sources = sources(folder.path());
    sources.trust.others = OtherFiles {
        transmitters: BTreeMap::from([("https://idp".to_owned(), keys("idp.jwks"))]),
        administrators: Some(folder.path().join("admins.jwks")),
        approvers: BTreeMap::from([(
            "https://login".to_owned(),
            ApproverFiles { issuer: keys("login.jwks"), entity_type: "User".to_owned() },
        )]),
    };
    fs::write(folder.path().join("idp.jwks"), jwks(3, "idp")).unwrap();
    fs::write(folder.path().join("login.jwks"), jwks(4, "login")).unwrap();
    let missing = Control::load(sources.clone(), Telemetry::off(), UnixMillis(1000)).unwrap_err();
    assert!(missing.to_string().contains("admins.jwks"), "{missing}");
    fs::write(folder.path().join("admins.jwks"), jwks(5, "admin")).unwrap();
    let control = Control::load(sources, Telemetry::off(), UnixMillis(1000)).unwrap();
    let first = control.snapshot();
    let others = first.trust.others();
    assert!(others.administrators.is_some());
    assert_eq!(others.transmitters["https://idp"].algorithms, [Algorithm::EdDsa]);
    assert_eq!(others.approvers["https://login"].entity_type, "User");
    for name in ["idp", "admins", "login"] {
        let before = control.snapshot().trust.version();
        fs::write(folder.path().join(format!("{name}.jwks")), jwks(9, name)).unwrap();
        assert!(control.refresh(UnixMillis(2000)), "{name}");
        assert_ne!(control.snapshot().trust.version(), before, "{name}");
    }
}

#[test]
fn entities_are_in_one_place_only() {
    let folder = folder();
    let mut sources = sources(folder.path());
    sources.entities = EntitiesFrom::Topic;
    let entity = r#"[{"uid": {"type": "Invoice", "id": "inv-1"}, "attrs": {}, "parents": []}]"#;
    fs::write(folder.path().join("policies/entities.json"), entity).unwrap();
    let problems = Control::load(sources.clone(), Telemetry::off(), UnixMillis(1000)).unwrap_err();
    let report = problems.iter().next().unwrap().report();
    assert!(report.message.contains("`control.entities`"), "{report:?}");
    assert!(report.help.unwrap().contains("countersign entity put"), "{report:?}");
    fs::remove_file(folder.path().join("policies/entities.json")).unwrap();
    let control = Control::load(sources, Telemetry::off(), UnixMillis(1000)).unwrap();
    assert!(control.snapshot().entities.is_empty());
}

fn clock() -> UnixMillis {
    UnixMillis(9000)
}

fn waits_for(what: impl Fn() -> bool) -> bool {
    let started = Instant::now();
    while started.elapsed() < Duration::from_secs(20) {
        if what() {
            return true;
        }
        std::thread::sleep(Duration::from_millis(20));
    }
    false
}

#[test]
fn a_watcher_sees_files_that_are_written_and_links_that_are_swapped() {
    let folder = folder();
    let control = Arc::new(load(folder.path()).unwrap());
    let watcher = Watcher::start(Arc::clone(&control), clock).unwrap();
    let digest = control.snapshot().policy.digest();
    fs::write(folder.path().join("policies/deep/one.cedar"), POLICY.replace("permit", "forbid")).unwrap();
    assert!(waits_for(|| control.snapshot().policy.digest() != digest));
    assert_eq!(control.policies().state().loaded_at, UnixMillis(9000));

    // As an orchestrator mounts a folder: names that are links through one link, which is then replaced.
    #[cfg(unix)]
    {
        use std::os::unix::fs::symlink;
        let mounted = folder.path().join("policies");
        for (version, text) in [("..v1", POLICY), ("..v2", SCHEMA)] {
            fs::create_dir(mounted.join(version)).unwrap();
            fs::write(mounted.join(version).join("linked.cedar"), text).unwrap();
        }
        fs::write(mounted.join("..v2/linked.cedar"), POLICY.replace("one", "two")).unwrap();
        symlink("..v1", mounted.join("..data")).unwrap();
        fs::remove_dir_all(mounted.join("deep")).unwrap();
        symlink("..data/linked.cedar", mounted.join("linked.cedar")).unwrap();
        watcher.reload().now();
        let before = load(folder.path()).unwrap().snapshot().policy.digest();
        assert!(waits_for(|| control.snapshot().policy.digest() == before));
        symlink("..v2", mounted.join("..new")).unwrap();
        fs::rename(mounted.join("..new"), mounted.join("..data")).unwrap();
        assert!(waits_for(|| control.snapshot().policy.digest() != before));
    }
    drop(watcher);
}

#[test]
fn policies_that_hold_for_longer_than_those_before_are_told_of() {
    assert!(longer_hold(None, Some(60)).unwrap().contains("up to 60 s"));
    assert!(longer_hold(Some(60), Some(61)).is_some());
    for fine in [(None, None), (Some(60), None), (Some(60), Some(60)), (Some(60), Some(59))] {
        assert_eq!(longer_hold(fine.0, fine.1), None);
    }
}
