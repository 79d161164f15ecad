//! What a configuration may say and what it may not: one table of mistakes, each with its place and its advice.

use std::fs;
use std::time::Duration;

use super::*;
use crate::authorize::ids::Topic;

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
    let domain = config.settings.trust.domains.values().next().unwrap();
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
    check(require, &and("hold = \"1h\""), "`hold` without `challenges`", "name the topic");
    check(
        require,
        &and("challenges = \"payments.audit\""),
        "`challenges` is the same topic as `audit`",
        "of its own",
    );
    check(
        require,
        &and("challenges = \"c\"\nanswers = \"payments.commands.holds\""),
        "`answers` is the same topic as `holds`",
        "of its own",
    );
    check(require, &and("challenges = \"c\"\norder = \"time\""), "cannot be `time`", "none");
    check(require, &and("challenges = \"c\"\nhold = \"60d\""), "must be from", "");
    check(require, &and("token_expiry = \"never\""), "cannot be `never`", "accepted");
    check(require, &and("workflow = \"known\""), "cannot be `known`", "registered");
    check(
        require,
        &and("workflow = \"registered\""),
        "`control.workflows` is missing",
        "every record is refused",
    );
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

const CONTROL: &str = "
[control]
workflows = \"c.workflows\"
revocations = \"c.revocations\"
fleet = \"c.fleet\"
[transmitters.\"https://idp.example.com\"]
keys = \"idp.jwks\"
algorithms = [\"RS256\"]
[administrators]
keys = \"admins.jwks\"
[approvers.\"https://login.example.com\"]
keys = \"login.jwks\"
type = \"Bank::User\"
";

#[test]
fn what_is_followed_and_who_may_revoke_or_answer_is_read_whole() {
    let loaded = read(&format!("{GOOD}{CONTROL}"));
    assert!(loaded.problems.is_empty(), "{}", loaded.problems);
    let config = loaded.config.unwrap();
    let in_days = read(&format!("{GOOD}{}", CONTROL.replace("fleet =", "forget_after = \"30d\"\nfleet =")));
    assert_eq!(in_days.config.unwrap().settings.control.forget_after.as_secs(), 30 * 86_400);
    let ControlSettings { workflows, entities, max_staleness, forget_after, .. } = &config.settings.control;
    assert_eq!(workflows.as_ref().map(Topic::as_str), Some("c.workflows"));
    assert!(entities.is_none());
    assert_eq!((max_staleness.as_secs(), forget_after.as_secs()), (10, 7 * 86_400));
    let names: Vec<_> = config.settings.control.followed().map(Topic::as_str).collect();
    assert_eq!(names, ["c.workflows", "c.revocations"]);

    let OtherFiles { transmitters, administrators, approvers } = &config.settings.trust.others;
    assert_eq!(transmitters["https://idp.example.com"].algorithms, [Algorithm::Rs256]);
    assert!(administrators.as_ref().unwrap().ends_with("admins.jwks"));
    let login = &approvers["https://login.example.com"];
    assert_eq!(
        (login.entity_type.as_str(), login.issuer.algorithms.as_slice()),
        ("Bank::User", &Algorithm::DEFAULT[..])
    );
    let files: Vec<_> = config.settings.trust.paths().filter_map(|path| path.file_name()?.to_str()).collect();
    for file in ["idp.jwks", "admins.jwks", "login.jwks"] {
        assert!(files.contains(&file), "{files:?}");
    }
}

/// As [`check`], in the part about control.
fn check_control(from: &str, to: &str, message: &str, advice: &str) {
    assert!(CONTROL.contains(from), "{from}");
    let loaded = read(&format!("{GOOD}{}", CONTROL.replace(from, to)));
    let found: Vec<_> = loaded.problems.iter().map(Problem::report).collect();
    let hit = found.iter().find(|report| report.message.contains(message));
    let hit = hit.unwrap_or_else(|| panic!("no `{message}` in {found:#?}"));
    assert!(hit.help.unwrap_or_default().contains(advice), "{hit:?}");
    assert!(hit.line.is_some(), "{hit:?}");
    assert_eq!(loaded.config.is_none(), hit.severity == "error", "{hit:?}");
}

#[test]
fn every_mistake_about_control_has_its_place_and_its_advice() {
    check_control("fleet =", "flete =", "`flete` is not a key in `control`", "did you mean `fleet`");
    check_control("\"c.fleet\"", "\"c fleet\"", "topic may hold only", "");
    check_control("\"c.fleet\"", "\"c.workflows\"", "the same topic as `control.workflows`", "of its own");
    check_control("\"c.fleet\"", "\"payments.audit\"", "a topic of the route `payments`", "do not share");
    check_control("\"c.fleet\"", "\"payments.commands.replay\"", "a topic of the route `payments`", "");
    check_control(
        "fleet =",
        "max_staleness = \"500ms\"\nfleet =",
        "`control.max_staleness` must be from",
        "",
    );
    check_control("fleet =", "forget_after = \"later\"\nfleet =", "`control.forget_after` is no time", "7d");
    check_control("keys = \"idp.jwks\"", "", "`keys` is missing in `transmitters", "a JWK set");
    check_control("RS256", "HS256", "cannot be `HS256`", "");
    check_control("type = \"Bank::User\"", "", "`type` is missing in `approvers", "`type = \"User\"`");
    check_control("Bank::User", "Bank User", "`Bank User` is no entity type", "Bank::User");
    check_control("\"https://idp.example.com\"", "\"\"", "the issuer's name is empty", "in quotes");
    let nobody = "[administrators]\nkeys = \"admins.jwks\"\n";
    let transmitter =
        "[transmitters.\"https://idp.example.com\"]\nkeys = \"idp.jwks\"\nalgorithms = [\"RS256\"]\n";
    assert!(CONTROL.contains(&format!("{transmitter}{nobody}")));
    check_control(&format!("{transmitter}{nobody}"), "", "nobody may revoke", "[administrators]");
    let followed = "workflows = \"c.workflows\"\nrevocations = \"c.revocations\"\n";
    check_control(followed, "", "`control.fleet` is named, and no topic is followed", "`revocations`");
}

const APPROVALS: &str = r#"
[approvals]
listen = "127.0.0.1:8082"
[approvals.oidc."https://login.example.com/realms/main"]
audience = "countersign"
type = "Bank::User"
"#;

fn check_approvals(from: &str, to: &str, message: &str, advice: &str) {
    assert!(APPROVALS.contains(from), "{from}");
    let changed = APPROVALS.replace(from, to);
    check("[[route]]", &format!("{changed}\n[[route]]"), message, advice);
}

#[test]
fn approvals_are_served_where_the_configuration_says_it_and_by_default_nowhere() {
    assert!(read(GOOD).config.unwrap().settings.approvals.is_none());
    let loaded = read(&format!("{GOOD}{APPROVALS}"));
    assert!(loaded.problems.is_empty(), "{}", loaded.problems);
    let approvals = loaded.config.unwrap().settings.approvals.unwrap();
    assert_eq!((approvals.listen.port(), approvals.answers_a_minute), (8082, 60));
    let OidcSettings { rules, keys } = &approvals.issuers[0];
    assert_eq!(rules.iss, "https://login.example.com/realms/main");
    assert_eq!((rules.entity_type.as_str(), rules.claim.as_str(), rules.skew_s), ("Bank::User", "sub", 30));
    assert_eq!(rules.algorithms, [Algorithm::Rs256, Algorithm::Ps256, Algorithm::Es256]);
    assert_eq!((keys, &rules.scope, rules.clients.len()), (&OidcKeys::Discovered, &None, 0));

    let beyond = APPROVALS.replace("127.0.0.1:8082\"", "0.0.0.0:8082\"\ninsecure_listen = true");
    let more =
        "claim = \"email\"\nscope = \"approve\"\nclients = [\"cli\"]\nskew = \"0s\"\nkeys = \"login.jwks\"\n";
    let loaded = read(&format!("{GOOD}{beyond}{more}"));
    let rules = loaded.config.unwrap().settings.approvals.unwrap().issuers.remove(0);
    assert!(matches!(rules.keys, OidcKeys::File(file) if file.is_absolute() && file.ends_with("login.jwks")));
    assert_eq!((rules.rules.scope.as_deref(), rules.rules.clients.len()), (Some("approve"), 1));
}

#[test]
fn every_mistake_about_approvals_has_its_place_and_its_advice() {
    check_approvals(
        "127.0.0.1:8082",
        "0.0.0.0:8082",
        "is reached from other machines",
        "insecure_listen = true",
    );
    check_approvals("127.0.0.1:8082", "8082", "is no address", "127.0.0.1:8082");
    check_approvals("listen = \"127.0.0.1:8082\"", "", "`listen` is missing in `approvals`", "listen =");
    check_approvals("listen =", "answers_a_minute = 0\nlisten =", "from 1 to 6000", "");
    check_approvals("audience = \"countersign\"", "", "`audience` is missing", "`aud`");
    check_approvals("audience = \"countersign\"", "audience = \"\"", "is empty", "");
    check_approvals("type = \"Bank::User\"", "", "`type` is missing", "type = \"User\"");
    check_approvals("Bank::User", "a b", "is no entity type", "schema");
    check_approvals("type =", "algorithms = [\"HS256\"]\ntype =", "cannot be `HS256`", "ES256");
    check_approvals("type =", "jwks_uri = \"ftp://x\"\ntype =", "no `https` address", "leave `jwks_uri` out");
    check_approvals(
        "type =",
        "keys = \"a\"\njwks_uri = \"https://a\"\ntype =",
        "two places",
        "leave one out",
    );
    check_approvals("type =", "clam = \"email\"\ntype =", "`clam` is not a key", "did you mean `claim`");
    check_approvals("https://login", "http://login", "anybody between", "approvals.oidc");
    check_approvals("https://login.example.com/realms/main", "main", "is no address", "approvals.oidc");
    check_approvals("realms/main", "realms/main?a=b", "a query", "approvals.oidc");
    let alone = APPROVALS.split("[approvals.oidc").next().unwrap();
    check("[[route]]", &format!("{alone}[[route]]"), "names no OIDC issuer", "audience");
}

#[test]
fn a_route_that_holds_has_its_topics_and_clocks_and_is_exact() {
    let challenges = "require = [\"workload\"]\nchallenges = \"payments.challenges\"\norder = \"key\"";
    let text = GOOD.replace("require = [\"workload\", \"transaction\"]", challenges);
    assert_ne!(text, GOOD);
    let loaded = read(&text);
    assert!(loaded.problems.is_empty(), "{}", loaded.problems);
    let route = &loaded.routes[0].route;
    let holding = route.holding.as_ref().unwrap();
    let source = &route.from[0];
    assert_eq!(holding.holds[source].as_str(), "payments.commands.holds");
    assert_eq!(holding.answers[source].as_str(), "payments.commands.answers");
    assert_eq!((holding.hold_s, holding.grant_s, holding.max_waiting), (86_400, 600, 1000));
    assert_eq!(holding.order, crate::authorize::route::Order::Key);
    let loose = text.replace("[gate]", "[gate]\ndelivery = \"at_least_once\"");
    let problems = read(&loose).problems.to_string();
    assert!(problems.contains("while a route holds records"), "{problems}");
}

#[test]
fn a_breaker_says_when_it_opens_or_is_told_so() {
    assert_eq!(read(GOOD).routes[0].breaker, None);
    let breaker = |lines: &str| read(&format!("{GOOD}\n[route.breaker]\n{lines}\n"));
    let loaded = breaker("denied_percent = 90\nretry = \"5m\"");
    assert!(loaded.problems.is_empty(), "{}", loaded.problems);
    let expected = BreakerSettings {
        run: None,
        share: Some(Share { percent: 90, of: 1000 }),
        retry: Some(Duration::from_secs(300)),
        probe: 10,
    };
    assert_eq!(loaded.routes[0].breaker, Some(expected));
    for (lines, expected) in [
        ("retry = \"5m\"", "nothing says when"),
        ("denied_in_a_row = 5\nof = 100", "`of` says how"),
        ("denied_percent = 101", "`route[0].breaker.denied_percent`"),
        ("denied_in_a_row = 0", "denied_in_a_row"),
    ] {
        let problems = breaker(lines).problems.to_string();
        assert!(problems.contains(expected), "{lines}: {problems}");
    }
}

/// The example with this table of `[access]`.
fn access(lines: &str) -> Loaded {
    read(&format!("{GOOD}\n[access]\n{lines}\n"))
}

#[test]
fn access_is_off_until_it_listens_and_then_on_loopback() {
    assert!(read(GOOD).config.unwrap().settings.access.is_none());
    let settings = access("listen = \"127.0.0.1:8081\"").config.unwrap().settings.access.unwrap();
    assert_eq!((settings.listen.port(), settings.url), (8081, None));
    assert_eq!(settings.route.name, "payments", "the only route");
    let open = "listen = \"0.0.0.0:8081\"\ninsecure_listen = true\nurl = \"https://gate.example.org/a\"";
    let settings = access(open).config.unwrap().settings.access.unwrap();
    assert_eq!(settings.url.as_deref(), Some("https://gate.example.org/a"));
    assert_eq!(settings.answers, None);
    let asks = format!(
        "{GOOD}challenges = \"payments.challenges\"\n[access]\nlisten = \"127.0.0.1:1\"\nanswers = \"a\"\n"
    );
    let settings = read(&asks).config.unwrap().settings.access.unwrap();
    assert_eq!(settings.answers.unwrap().as_str(), "a");
    for (taken, whose) in [
        ("payments.commands.answers", "is a topic of the route `payments`"),
        ("payments.challenges", "is a topic of the route `payments`"),
        ("payments.audit", "is a topic of the route `payments`"),
        ("told", "is a topic of `[control]`"),
    ] {
        let shared = asks.replace("\"a\"", &format!("{taken:?}")) + "[control]\nsignals = \"told\"\n";
        let problems = read(&shared).problems.to_string();
        assert!(problems.contains(whose), "{taken}: {problems}");
    }
    let off = read_with(GOOD, &[("COUNTERSIGN_ACCESS_LISTEN", "[::1]:8081")]);
    assert!(off.config.unwrap().settings.access.is_some());
}

#[test]
fn every_mistake_about_access_has_its_place_and_its_advice() {
    let second = GOOD[GOOD.find("[[route]]").unwrap()..].replace("payments", "refunds");
    for (lines, message, advice) in [
        ("listen = \"0.0.0.0:8081\"", "reached from other machines", "insecure_listen"),
        ("listen = \"8081\"", "no address to listen on", "127.0.0.1:8081"),
        ("listen = \"127.0.0.1:1\"\nroute = \"payment\"", "no route `payment`", "did you mean `payments`"),
        ("listen = \"127.0.0.1:1\"\nurl = \"https://a/\"", "no base", "without a slash"),
        ("listen = \"127.0.0.1:1\"\nurl = \"a.example.org\"", "no base", "scheme"),
        ("listen = \"127.0.0.1:1\"\nlisen = 1", "`lisen` is not a key in `access`", "`listen`"),
        ("route = \"payments\"", "no effect without `access.listen`", "8081"),
        ("answers = \"a\"", "no effect without `access.listen`", "8081"),
        ("listen = \"127.0.0.1:1\"\nanswers = \"a\"", "has no `challenges`", "name the topic"),
        (&format!("listen = \"127.0.0.1:1\"\n{second}"), "`access.route` is missing", "name the route"),
    ] {
        let loaded = access(lines);
        let found: Vec<_> = loaded.problems.iter().map(Problem::report).collect();
        let hit = found.iter().find(|report| report.message.contains(message));
        let hit = hit.unwrap_or_else(|| panic!("no `{message}` in {found:#?}"));
        assert!(hit.help.unwrap_or_default().contains(advice), "{hit:?}");
        assert!(hit.line.is_some(), "{hit:?}");
        assert_eq!(loaded.config.is_none(), hit.severity == "error", "{hit:?}");
    }
}

const TLS: &str = "listen = \"0.0.0.0:8081\"\n[access.tls]\ncertificate = \"tls.pem\"\nkey = \"tls.key\"\n";

#[test]
fn with_tls_other_machines_may_reach_what_is_served() {
    let loaded = access(TLS);
    assert!(loaded.problems.is_empty(), "{}", loaded.problems);
    let settings = loaded.config.unwrap().settings.access.unwrap();
    let tls = settings.tls.unwrap();
    assert!(tls.certificate.is_absolute() && tls.key.ends_with("tls.key"), "{tls:?}");
    assert_eq!((tls.clients, settings.listen.port()), (ClientCertificates::None, 8081));
    let known = access(&format!("{TLS}clients = \"spiffe\""));
    let tls = known.config.unwrap().settings.access.unwrap().tls.unwrap();
    assert_eq!(tls.clients, ClientCertificates::Spiffe);

    let beyond = APPROVALS.replace("127.0.0.1:8082", "0.0.0.0:8082");
    let tls = "[approvals.tls]\ncertificate = \"tls.pem\"\nkey = \"tls.key\"\n";
    let loaded = read(&format!("{GOOD}{beyond}{tls}"));
    assert!(loaded.problems.is_empty(), "{}", loaded.problems);
    assert!(loaded.config.unwrap().settings.approvals.unwrap().tls.is_some());

    // Variables make the table too.
    let variables = [
        ("COUNTERSIGN_ACCESS_LISTEN", "0.0.0.0:8081"),
        ("COUNTERSIGN_ACCESS_TLS_CERTIFICATE", "a.pem"),
        ("COUNTERSIGN_ACCESS_TLS_KEY", "a.key"),
    ];
    assert!(read_with(GOOD, &variables).config.unwrap().settings.access.unwrap().tls.is_some());
}

#[test]
fn every_mistake_about_tls_has_its_place_and_its_advice() {
    let without = |line: &str| TLS.replace(line, "");
    for (lines, message, advice) in [
        (without("key = \"tls.key\"\n"), "`key` is missing in `access.tls`", "private key"),
        (without("certificate = \"tls.pem\"\n"), "`certificate` is missing in `access.tls`", "its root"),
        ("listen = \"127.0.0.1:1\"\n[access.tls]".to_owned(), "`key` is missing", "take the table out"),
        (TLS.replace("tls.pem", ""), "`access.tls.certificate` is empty", "PEM"),
        (format!("{TLS}clients = \"spife\""), "cannot be `spife`", "did you mean `spiffe`?"),
        (format!("{TLS}keys = 1"), "`keys` is not a key in `access.tls`", "did you mean `key`?"),
        (TLS.replace("0.0.0.0:8081", "8081"), "no address to listen on", "127.0.0.1:8081"),
        (format!("insecure_listen = true\n{TLS}"), "`access.insecure_listen` has no effect", "take it out"),
        (format!("url = \"http://gate\"\n{TLS}"), "an address without TLS", "https://"),
        (
            without("listen = \"0.0.0.0:8081\"\n"),
            "`access.tls` has no effect without `access.listen`",
            "listen",
        ),
    ] {
        let loaded = access(&lines);
        let found: Vec<_> = loaded.problems.iter().map(Problem::report).collect();
        let hit = found.iter().find(|report| report.message.contains(message));
        let hit = hit.unwrap_or_else(|| panic!("no `{message}` in {found:#?}"));
        assert!(hit.help.unwrap_or_default().contains(advice), "{hit:?}");
        assert!(hit.line.is_some(), "{hit:?}");
        assert_eq!(loaded.config.is_none(), hit.severity == "error", "{hit:?}");
    }
    // Approvers are known by bearer tokens, never by certificates.
    let tls = "[approvals.tls]\ncertificate = \"a\"\nkey = \"b\"\nclients = \"spiffe\"\n";
    let problems = read(&format!("{GOOD}{APPROVALS}{tls}")).problems.to_string();
    assert!(problems.contains("`clients` is not a key in `approvals.tls`"), "{problems}");
}
