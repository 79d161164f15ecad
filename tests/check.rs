//! `countersign check` as a person runs it: on the first route of the documentation, whole and broken.

#[path = "support/first_route.rs"]
mod first_route;

use serde_json::Value;

use first_route::FirstRoute;

#[test]
fn the_first_route_of_the_documentation_passes() {
    let route = FirstRoute::new();
    let checked = route.run(&["check"]);
    assert_eq!((checked.code, checked.stderr.as_str()), (0, ""), "{}", checked.stdout);
    assert!(
        checked.stdout.contains("route payments: payments.commands -> payments.authorized"),
        "{}",
        checked.stdout
    );
    assert!(checked.stdout.ends_with("all is well\n"), "{}", checked.stdout);
}

#[test]
fn every_mistake_of_every_file_is_found_at_once_and_placed() {
    let route = FirstRoute::new();
    route.edit("countersign.toml", "realm = \"prod\"", "realm = \"Prod\"");
    route.edit("countersign.toml", "payments.authorized", "payments authorized");
    route.edit("trust/gates.jwks", "\"crv\"", "\"curve\"");
    route.edit("policies/payments.cedar", "@id(\"frozen\")", "@id(\"payer-may-pay\")");
    route.edit("policies/payments.cedar", "resource is Invoice", "resource is Invoic");
    let checked = route.run(&["check", "--format", "json"]);
    assert_eq!(checked.code, 2, "{}{}", checked.stdout, checked.stderr);
    let found: Value = serde_json::from_str(&checked.stdout).unwrap();
    assert_eq!(found["ok"], false);
    let problems = found["problems"].as_array().unwrap();
    for (file, line, message) in [
        ("countersign.toml", 1, "realm may hold only"),
        ("countersign.toml", 21, "topic may hold only"),
        ("gates.jwks", 0, "the gates' keys cannot be used"),
        ("payments.cedar", 0, "payer-may-pay"),
        ("payments.cedar", 0, "Invoic"),
    ] {
        let hit = problems.iter().any(|problem| {
            problem["file"].as_str().is_some_and(|found| found.ends_with(file))
                && problem["message"].as_str().is_some_and(|found| found.contains(message))
                && problem["line"].as_u64().is_some_and(|found| line == 0 || found == line)
                && problem["column"].is_u64()
        });
        assert!(hit, "no `{message}` in {file}:{line} among {problems:#?}");
    }
    assert_eq!(found["errors"], problems.iter().filter(|problem| problem["severity"] == "error").count());
}

#[test]
fn a_gate_whose_key_nobody_will_take_is_warned_about() {
    let route = FirstRoute::new();
    route.edit("countersign.toml", "gates = \"trust/gates.jwks\"", "");
    let checked = route.run(&["check"]);
    assert_eq!(checked.code, 0, "{}", checked.stdout);
    assert!(checked.stdout.contains("not among the gates of `example.org`"), "{}", checked.stdout);
    assert!(checked.stdout.ends_with("a gate can start; 1 warning\n"), "{}", checked.stdout);
}

#[test]
fn a_route_that_holds_what_nobody_could_approve_of_is_warned_about() {
    let route = FirstRoute::new();
    route.edit(
        "countersign.toml",
        "name = \"payments\"",
        "name = \"payments\"\nchallenges = \"payments.challenges\"",
    );
    let checked = route.run(&["check"]);
    assert_eq!(checked.code, 0, "{}", checked.stdout);
    assert!(
        checked.stdout.contains("route `payments` holds records, and nobody could approve"),
        "{}",
        checked.stdout
    );
    route.edit(
        "policies/schema.cedarschema",
        "entity Invoice;",
        "entity Invoice;\nentity Approver;\nentity Challenge;\n\
         action answer appliesTo { principal: [Approver], resource: [Challenge], context: {} };",
    );
    let checked = route.run(&["check"]);
    assert!(!checked.stdout.contains("nobody could approve"), "{}", checked.stdout);
    assert_eq!(checked.code, 0, "{}", checked.stdout);
}

#[test]
fn the_files_of_tls_are_looked_at_too() {
    let route = FirstRoute::new();
    let tls = "[access]\nlisten = \"0.0.0.0:8081\"\n[access.tls]\ncertificate = \"tls.pem\"\nkey = \"tls.key\"\nclients = \"spiffe\"\n[[route]]";
    route.edit("countersign.toml", "[[route]]", tls);
    let checked = route.run(&["check"]);
    assert_eq!(checked.code, 2, "{}", checked.stdout);
    for file in ["tls.pem", "tls.key"] {
        assert!(checked.stdout.contains(file), "{}", checked.stdout);
    }
    let key = rcgen::KeyPair::generate().unwrap();
    let params = rcgen::CertificateParams::new(vec!["gate.example.org".to_owned()]).unwrap();
    std::fs::write(route.path("tls.pem"), params.self_signed(&key).unwrap().pem()).unwrap();
    std::fs::write(route.path("tls.key"), key.serialize_pem()).unwrap();
    let checked = route.run(&["check"]);
    assert_eq!(checked.code, 0, "{}", checked.stdout);
    assert!(checked.stdout.contains("no SPIFFE bundle has an X.509 authority"), "{}", checked.stdout);
    std::fs::write(route.path("tls.key"), rcgen::KeyPair::generate().unwrap().serialize_pem()).unwrap();
    let checked = route.run(&["check"]);
    assert_eq!(checked.code, 2, "{}", checked.stdout);
    assert!(checked.stdout.contains("the key is not the one of the certificate"), "{}", checked.stdout);
}

#[test]
fn a_schema_that_asks_for_what_no_route_offers_is_refused() {
    let route = FirstRoute::new();
    route.edit("countersign.toml", "require = [\"workload\", \"transaction\"]", "require = [\"workload\"]");
    let checked = route.run(&["check"]);
    assert_eq!(checked.code, 2, "{}", checked.stdout);
    assert!(checked.stdout.contains("transaction"), "{}", checked.stdout);
}

#[test]
fn a_missing_configuration_and_a_wrong_argument_are_told_apart() {
    let route = FirstRoute::new();
    let missing = route.run(&["check", "--config", "nowhere.toml"]);
    assert_eq!(missing.code, 2);
    assert!(missing.stdout.contains("nowhere.toml"), "{}", missing.stdout);
    let wrong = route.run(&["check", "--confg", "x"]);
    assert_eq!((wrong.code, wrong.stdout.as_str()), (1, ""));
    assert!(wrong.stderr.contains("--confg"), "{}", wrong.stderr);
    assert_eq!(route.run(&["--help"]).code, 0);
}

#[test]
fn no_secret_of_the_configuration_is_shown() {
    let route = FirstRoute::new();
    route.edit(
        "countersign.toml",
        "\"bootstrap.servers\"",
        "\"sasl.password\" = \"hush-hush\"\n\"group.id\" = \"mine\"\n\"bootstrap.servers\"",
    );
    for format in ["human", "json"] {
        let checked = route.run(&["check", "--format", format]);
        assert_eq!(checked.code, 2);
        assert!(checked.stdout.contains("belongs to the gate"), "{}", checked.stdout);
        assert!(!(checked.stdout + &checked.stderr).contains("hush-hush"));
    }
}
