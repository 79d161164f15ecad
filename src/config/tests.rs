//! What a configuration may say and what it may not: one table of mistakes, each with its place and its advice.

use std::fs;

use super::*;

const GOOD: &str = include_str!("../../examples/first-route/countersign.toml");

/// A folder with the example's files and this configuration.
fn folder(text: &str) -> tempfile::TempDir {
    let folder = tempfile::tempdir().unwrap();
    let key = SigningKey::from_seed(Algorithm::EdDsa, &[7; 32], Some("gate-1")).unwrap();
    fs::create_dir(folder.path().join("keys")).unwrap();
    let file = folder.path().join("keys/gate.jwk");
    fs::write(&file, key.private_jwk().as_str()).unwrap();
    #[cfg(unix)]
    {
        use std::os::unix::fs::PermissionsExt as _;
        fs::set_permissions(&file, fs::Permissions::from_mode(0o600)).unwrap();
    }
    fs::write(folder.path().join("countersign.toml"), text).unwrap();
    folder
}

fn read_with(text: &str, variables: &[(&str, &str)]) -> Loaded {
    let folder = folder(text);
    let variables = variables.iter().map(|(name, value)| ((*name).to_owned(), (*value).to_owned()));
    Loaded::read(&folder.path().join("countersign.toml"), variables)
}

fn read(text: &str) -> Loaded {
    read_with(text, &[])
}

#[test]
fn the_example_is_read_whole_and_its_defaults_are_the_contracts() {
    let loaded = read(GOOD);
    assert!(loaded.problems.is_empty(), "{}", loaded.problems);
    let config = loaded.config.unwrap();
    assert_eq!(config.realm.as_str(), "prod");
    assert_eq!(config.settings.member.group, "countersign.gate.payments");
    assert_eq!(config.settings.member.delivery, Delivery::ExactlyOnce);
    assert_eq!(config.settings.listen.unwrap().to_string(), "127.0.0.1:9464");
    assert!(config.settings.otlp_endpoint.is_none());
    assert_eq!(config.settings.kafka.get("bootstrap.servers"), Some("localhost:9092"));
    assert_eq!(config.settings.policy.subject_type, "User");
    assert!(config.settings.policy.path.is_absolute() && config.settings.policy.path.ends_with("policies"));
    let route = &config.settings.routes[0].route;
    assert!(route.require_transaction && !route.require_countersignature);
    assert_eq!(
        (route.skew_s, route.proof_life_s, route.max_queue_time_s, route.receipt_life_s),
        (30, 300, 86_400, 900)
    );
    assert_eq!(
        config.settings.routes[0].replay_topics.values().next().unwrap().as_str(),
        "payments.commands.replay"
    );
    assert_eq!(config.settings.routes[0].start, Start::Earliest);
    let domain = config.settings.trust.values().next().unwrap();
    assert_eq!(domain.algorithms, Algorithm::DEFAULT);
}

/// Replaces `from` in the example and expects one problem with `message` at `line:column`, and `advice` in its help.
fn check(from: &str, to: &str, message: &str, advice: &str) {
    assert!(GOOD.contains(from), "{from}");
    let loaded = read(&GOOD.replace(from, to));
    let found: Vec<_> = loaded.problems.iter().map(Problem::report).collect();
    let hit = found.iter().find(|report| report.message.contains(message));
    let hit = hit.unwrap_or_else(|| panic!("no `{message}` in {found:#?}"));
    assert!(hit.help.unwrap_or_default().contains(advice), "{hit:?}");
    assert!(hit.line.is_some() && hit.column.is_some(), "{hit:?}");
    assert_eq!(loaded.config.is_none(), hit.severity == "error", "{hit:?}");
}

#[test]
fn every_mistake_has_its_place_and_its_advice() {
    let require = r#"require = ["workload", "transaction"]"#;
    let and = |more: &str| format!("{require}\n{more}");
    check("realm = \"prod\"", "realm = \"Prod\"", "realm may hold only", "");
    check("realm = \"prod\"", "relam = \"prod\"", "`relam` is not a key", "did you mean `realm`");
    check("realm = \"prod\"", "realm = 7", "`realm` is an integer, not a string", "");
    check(
        "[gate]",
        "[gate]\ndelivery = \"exactly-once\"",
        "cannot be `exactly-once`",
        "did you mean `exactly_once`",
    );
    check("[gate]", "[gate]\nlanes = 0", "from 1 to 256", "");
    check("keys/gate.jwk", "keys/other.jwk", "cannot be read", "relative to the configuration");
    check("spiffe://example.org/gate/payments", "spiffe://example.org", "needs a path", "");
    check(
        "\"bootstrap.servers\"",
        "\"enable.auto.commit\" = true\n\"bootstrap.servers\"",
        "belongs to the gate",
        "one transaction",
    );
    check("\"bootstrap.servers\" = \"localhost:9092\"", "", "`bootstrap.servers` is missing", "in quotes");
    check("[trust.\"example.org\"]", "[trust.\"Example.org\"]", "trust domain may hold only", "in quotes");
    check(
        "[trust.\"example.org\"]",
        "[trust.\"example.org\"]\nalgorithms = [\"HS256\"]",
        "cannot be `HS256`",
        "ES256",
    );
    check("[policy]", "[policy]\nfolder = \"x\"", "`folder` is not a key in `policy`", "path");
    check("to = \"payments.authorized\"", "to = \"a b\"", "topic may hold only", "");
    check(
        "to = \"payments.authorized\"",
        "to = \"payments.commands\"",
        "one of the route's own sources",
        "without end",
    );
    check("denied = \"payments.denied\"", "denied = \"payments.authorized\"", "same topic as `to`", "");
    check("audit = \"payments.audit\"", "audit = \"payments.commands.replay\"", "replay memory", "");
    check("audit = \"payments.audit\"", "", "`audit` is missing", "every decision");
    check(require, "require = [\"transaction\"]", "does not name `workload`", "unproven");
    check(
        require,
        "require = [\"workload\", \"transation\"]",
        "cannot be `transation`",
        "did you mean `transaction`",
    );
    check(require, &and("unproven = \"spiffe://example.org/legacy\""), "while `unproven`", "");
    check(
        require,
        "require = []\nunproven = \"spiffe://example.org/legacy\"",
        "needs `map.action` and `map.resource`",
        "found in the record",
    );
    check(require, &and("trust_create_time = true"), "needs `max_queue_time`", "24h");
    check(
        require,
        &and("trust_create_time = true\nmax_queue_time = \"16m\""),
        "15m at most",
        "LogAppendTime",
    );
    check(require, &and("skew = \"ten\""), "is no time: `ten`", "30s");
    check(require, &and("skew = \"-1s\""), "is no time", "30s");
    check(require, &and("skew = \"10m\""), "must be from", "");
    check(require, &and("receipt_life = \"1500ms\""), "whole seconds", "");
    check(require, &and("token_expiry = \"never\""), "cannot be `never`", "accepted");
    check(
        require,
        &and("parties = [\"senders\"]"),
        "`senders` without `countersignature`",
        "leave the countersignature out",
    );
    check(require, "require = [\"workload\"]\nprincipal = \"subject\"", "`subject` needs `transaction`", "");
    check(require, &and("[route.map]\naction = \"valu.x\""), "reads `valu`", "");
    check(require, &and("[route.map]\naktion = \"'x'\""), "`aktion` is not a key", "did you mean `action`");
    check("name = \"payments\"", "name = \"pay ments\"", "may hold only", "");
    check(
        "[[route]]",
        "[http]\nlisten = \"nowhere\"\n[[route]]",
        "no address to listen on",
        "127.0.0.1:9464",
    );
    check(
        "[[route]]",
        "[telemetry]\notlp_endpoint = \"collector\"\n[[route]]",
        "no OTLP endpoint",
        "http://",
    );
    check("[[route]]", "[audit]\nmask = [\"a..b\"]\n[[route]]", "no path into the context", "dotted");
}

#[test]
fn two_routes_do_not_share_a_source_and_nothing_written_comes_in_again() {
    let second = |from: &str, denied: &str| {
        format!(
            "{GOOD}\n[[route]]\nname = \"second\"\nfrom = [\"{from}\"]\nto = \"x.authorized\"\ndenied = \"{denied}\"\naudit = \"payments.audit\"\nrequire = [\"workload\"]\n"
        )
    };
    assert!(!read(&second("payments.authorized", "x.denied")).problems.stop(), "one gate may follow another");
    for (from, denied, message) in [
        ("payments.commands", "x.denied", "is read by the route `payments` already"),
        ("payments.denied", "x.denied", "is where the route `payments` writes `denied`"),
        ("x.commands", "payments.commands", "is a source of the route `payments`"),
        ("x.commands", "payments.authorized", "is where the route `payments` writes `to`"),
    ] {
        let loaded = read(&second(from, denied));
        assert!(loaded.problems.to_string().contains(message), "{}", loaded.problems);
        assert!(loaded.config.is_none());
    }
}

#[test]
fn all_mistakes_are_reported_at_once_syntax_included() {
    let text = GOOD
        .replace("realm = \"prod\"", "realm = \"P\"\nnonsense ==")
        .replace("payments.authorized", "a b")
        .replace("[policy]", "[polcy]");
    let loaded = read(&text);
    let shown = loaded.problems.to_string();
    for part in [
        "realm may hold only",
        "topic may hold only",
        "`polcy` is not a key",
        "`path` is missing in `policy`",
    ] {
        assert!(shown.contains(part), "{shown}");
    }
    assert!(loaded.problems.len() >= 5, "{shown}");
}

#[test]
fn variables_replace_values_and_strangers_are_only_warned_about() {
    let loaded = read_with(
        GOOD,
        &[
            ("COUNTERSIGN_REALM", "stage"),
            ("COUNTERSIGN_GATE_LANES", "3"),
            ("COUNTERSIGN_GATE_INSTANCE", "gate-0"),
            ("COUNTERSIGN_KAFKA_BOOTSTRAP_SERVERS", "kafka:9092"),
            ("COUNTERSIGN_KAFKA_SASL_PASSWORD", "hush"),
            ("COUNTERSIGN_HTTP_LISTEN", "off"),
            ("COUNTERSIGN_SERVICE_HOST", "10.0.0.1"),
            ("PATH", "/bin"),
        ],
    );
    assert_eq!(loaded.problems.len(), 1, "{}", loaded.problems);
    assert!(loaded.problems.to_string().contains("COUNTERSIGN_SERVICE_HOST"));
    let config = loaded.config.unwrap();
    assert_eq!(
        (config.realm.as_str(), config.settings.member.lanes.get(), config.settings.listen),
        ("stage", 3, None)
    );
    assert_eq!(config.settings.member.instance.as_deref(), Some("gate-0"));
    assert_eq!(config.settings.kafka.get("bootstrap.servers"), Some("kafka:9092"));
    assert_eq!(config.settings.kafka.get("sasl.password"), Some("hush"));
    assert!(!format!("{config:?}").contains("hush"));
    let bad = read_with(GOOD, &[("COUNTERSIGN_REALM", "A"), ("COUNTERSIGN_KAFKA_ACKS", "0")]);
    let shown = bad.problems.to_string();
    assert!(
        shown.contains("COUNTERSIGN_REALM: ") && shown.contains("`acks` in `kafka` belongs to the gate"),
        "{shown}"
    );
}

#[cfg(unix)]
#[test]
fn a_key_that_everybody_may_read_is_pointed_out() {
    use std::os::unix::fs::PermissionsExt as _;
    let folder = folder(GOOD);
    fs::set_permissions(folder.path().join("keys/gate.jwk"), fs::Permissions::from_mode(0o644)).unwrap();
    let loaded = Loaded::read(&folder.path().join("countersign.toml"), []);
    assert!(loaded.problems.to_string().contains("everybody on this machine"), "{}", loaded.problems);
    assert!(loaded.config.is_some());
}

#[test]
fn the_configuration_that_is_delivered_with_the_compose_file_has_no_unknown_key() {
    let loaded = read(include_str!("../../deploy/gate/countersign.toml"));
    assert!(loaded.problems.is_empty(), "{}", loaded.problems);
    let config = loaded.config.unwrap();
    assert_eq!(config.settings.log.format, LogFormat::Json);
    assert_eq!(config.settings.otlp_endpoint.as_deref(), Some("http://collector:4318"));
}

#[test]
fn secrets_are_not_quoted_even_where_the_text_cannot_be_read() {
    let text = GOOD
        .replace("[kafka]", "[kafka]\n\"sasl.password\" = \"hush\n\"ssl.key.password\" = 'hush'\nbad ==\n");
    let loaded = read(&text);
    assert!(loaded.problems.stop());
    for problem in loaded.problems.iter() {
        assert!(!format!("{problem:?}").contains("hush"), "{problem:?}");
    }
}
