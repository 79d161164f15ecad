//! What a person starts with one command, checked without a container engine: the compose file against the Compose
//! Specification's own schema, and everything it names against what exists.

mod schema;

use std::collections::BTreeSet;
use std::fs;
use std::path::Path;

use serde_json::Value;

const ROOT: &str = env!("CARGO_MANIFEST_DIR");

fn text(path: &str) -> String {
    fs::read_to_string(format!("{ROOT}/{path}")).unwrap_or_else(|error| panic!("{path}: {error}"))
}

fn yaml(path: &str) -> Value {
    serde_saphyr::from_str(&text(path)).unwrap_or_else(|error| panic!("{path}: {error}"))
}

fn json(path: &str) -> Value {
    serde_json::from_str(&text(path)).unwrap_or_else(|error| panic!("{path}: {error}"))
}

fn services() -> Vec<(String, Value)> {
    let file = yaml("docker-compose.yml");
    file["services"].as_object().unwrap().iter().map(|(name, it)| (name.clone(), it.clone())).collect()
}

fn service(name: &str) -> Value {
    services().into_iter().find(|(found, _)| found == name).unwrap_or_else(|| panic!("no `{name}`")).1
}

fn strings(value: &Value) -> Vec<&str> {
    value.as_array().into_iter().flatten().map(|item| item.as_str().unwrap()).collect()
}

/// What the specification's schema says against `file`; empty if nothing.
fn problems(file: &Value) -> Vec<String> {
    schema::problems(&json("tests/data/compose-spec.json"), file)
}

#[test]
fn the_compose_file_is_one_by_the_specification() {
    assert_eq!(problems(&yaml("docker-compose.yml")), Vec::<String>::new());
}

#[test]
fn the_schema_refuses_what_is_no_compose_file() {
    for (place, wrong) in [
        ("/services/gate/port", serde_json::json!(["9464:9464"])),
        ("/services/kafka/environment", serde_json::json!(7)),
        ("/services/gate/depends_on/topics/condition", serde_json::json!("service_is_fine")),
        ("/service", serde_json::json!({})),
    ] {
        let mut file = yaml("docker-compose.yml");
        let (parent, member) = place.rsplit_once('/').unwrap();
        let parent = file.pointer_mut(parent).unwrap().as_object_mut().unwrap();
        parent.insert(member.to_owned(), wrong);
        assert!(!problems(&file).is_empty(), "{place}");
    }
}

#[test]
fn everything_that_was_asked_for_is_there_and_images_are_pinned() {
    for name in ["kafka", "gate", "collector", "prometheus", "grafana"] {
        service(name);
    }
    for (name, service) in services() {
        let Some(image) = service["image"].as_str() else {
            assert_eq!(service["build"], ".", "`{name}` has neither image nor build");
            continue;
        };
        let (_, tag) = image.rsplit_once(':').unwrap_or_else(|| panic!("`{image}` has no tag"));
        assert!(
            tag.trim_start_matches('v').starts_with(|c: char| c.is_ascii_digit()),
            "`{image}` is not pinned"
        );
    }
}

#[test]
fn ports_are_published_on_loopback_alone() {
    for (name, service) in services() {
        for port in strings(&service["ports"]) {
            assert!(port.starts_with("127.0.0.1:"), "{name}: {port}");
        }
    }
}

#[test]
fn what_is_mounted_exists_and_is_read_only() {
    let mut mounted = 0;
    for (name, service) in services() {
        for volume in strings(&service["volumes"]) {
            let Some(path) = volume.strip_prefix("./") else { continue };
            let (path, inside) = path.split_once(':').unwrap();
            assert!(Path::new(ROOT).join(path).exists(), "{name}: `{path}` is missing");
            assert!(inside.ends_with(":ro"), "{name}: `{volume}` can be written");
            mounted += 1;
        }
    }
    assert!(mounted >= 5, "{mounted}");
}

#[test]
fn whoever_is_waited_for_can_become_what_is_waited_for() {
    for (name, service) in services() {
        for (other, how) in service["depends_on"].as_object().into_iter().flatten() {
            let awaited = self::service(other);
            if how["condition"] == "service_healthy" {
                assert!(
                    awaited["healthcheck"].is_object(),
                    "{name} waits for {other}, which has no health check"
                );
            }
        }
    }
}

#[test]
fn the_image_is_built_with_the_pinned_toolchain_and_not_run_as_root() {
    let toolchain: toml::Table = toml::from_str(&text("rust-toolchain.toml")).unwrap();
    let version = toolchain["toolchain"]["channel"].as_str().unwrap();
    let dockerfile = text("Dockerfile");
    assert!(dockerfile.contains(&format!("FROM rust:{version}-")), "{version}");
    assert!(dockerfile.lines().any(|line| line == "USER 65532:65532"));
    let kept: BTreeSet<String> =
        text(".dockerignore").lines().filter_map(|line| line.strip_prefix('!')).map(str::to_owned).collect();
    for needed in ["Cargo.toml", "Cargo.lock", "rust-toolchain.toml", "src", "schemas"] {
        assert!(kept.contains(needed) && Path::new(ROOT).join(needed).exists(), "{needed}");
    }
}

#[test]
fn the_gate_is_scraped_and_exports_where_it_listens_and_the_collector_is() {
    let gate: toml::Table = toml::from_str(&text("deploy/gate/countersign.toml")).unwrap();
    let port = gate["http"]["listen"].as_str().unwrap().rsplit_once(':').unwrap().1;
    let targets = yaml("deploy/prometheus.yml");
    let targets = strings(&targets["scrape_configs"][0]["static_configs"][0]["targets"]).join(" ");
    assert_eq!(targets, format!("gate:{port}"));
    assert_eq!(strings(&service("gate")["ports"]), [format!("127.0.0.1:{port}:{port}")]);

    let collector = yaml("deploy/collector.yaml");
    let listens = collector["receivers"]["otlp"]["protocols"]["http"]["endpoint"].as_str().unwrap();
    let otlp = gate["telemetry"]["otlp_endpoint"].as_str().unwrap();
    assert_eq!(otlp, format!("http://collector:{}", listens.rsplit_once(':').unwrap().1));
    countersign::telemetry::OtlpEndpoint::parse(otlp).unwrap();

    let kafka = service("kafka");
    let advertised = kafka["environment"]["KAFKA_ADVERTISED_LISTENERS"].as_str().unwrap();
    let bootstrap = gate["kafka"]["bootstrap.servers"].as_str().unwrap();
    assert!(advertised.contains(&format!("://{bootstrap}")), "{bootstrap} in {advertised}");
}

#[test]
fn the_topics_of_the_route_are_made() {
    let gate: toml::Table = toml::from_str(&text("deploy/gate/countersign.toml")).unwrap();
    let script = text("deploy/topics.sh");
    let made: BTreeSet<&str> =
        script.lines().filter_map(|line| line.strip_prefix("create ")?.split(' ').next()).collect();
    let route = &gate["route"][0];
    let named: BTreeSet<&str> = [&route["from"][0], &route["to"], &route["denied"], &route["audit"]]
        .into_iter()
        .map(|topic| topic.as_str().unwrap())
        .collect();
    assert_eq!(made, named);
}

/// The commands of `deploy/README.md` make every file that the gate's configuration names, and nothing else is missing.
#[test]
fn the_gate_can_start_after_the_commands_of_its_page() {
    let folder = tempfile::tempdir().unwrap();
    for path in ["countersign.toml", "policies/payments.cedar", "policies/schema.cedarschema"] {
        let to = folder.path().join("deploy/gate").join(path);
        fs::create_dir_all(to.parent().unwrap()).unwrap();
        fs::write(to, text(&format!("deploy/gate/{path}"))).unwrap();
    }
    let run = |commands: &str| {
        let bin = Path::new(env!("CARGO_BIN_EXE_countersign")).parent().unwrap();
        let path = format!("{}:{}", bin.display(), std::env::var("PATH").unwrap_or_default());
        let mut shell = std::process::Command::new("sh");
        for (name, _) in std::env::vars_os() {
            if name.to_string_lossy().starts_with("COUNTERSIGN_") {
                shell.env_remove(name);
            }
        }
        let output =
            shell.args(["-ec", commands]).current_dir(folder.path()).env("PATH", path).output().unwrap();
        let said = String::from_utf8_lossy(&output.stdout).into_owned();
        assert!(output.status.success(), "{commands}: {said}{}", String::from_utf8_lossy(&output.stderr));
        said
    };
    let page = text("deploy/README.md");
    let commands: Vec<&str> =
        page.split("```sh\n").skip(1).map(|rest| rest.split("```").next().unwrap()).collect();
    assert_eq!(commands.len(), 2);
    // The first block makes keys and checks; the second makes a sender whom the policies know, and its tokens.
    assert!(run(commands[0]).ends_with("all is well\n"));
    run(commands[1]);
    for token in ["invoices.wit", "alice.txn"] {
        assert!(run(&format!("countersign token show deploy/gate/keys/{token}")).contains("good until"));
    }
    assert!(text("deploy/gate/policies/payments.cedar").contains("spiffe://example.org/agent/invoices"));
}

#[test]
fn the_collectors_pipelines_name_what_it_defines() {
    let collector = yaml("deploy/collector.yaml");
    let pipelines = collector["service"]["pipelines"].as_object().unwrap();
    assert_eq!(pipelines.keys().collect::<Vec<_>>(), ["traces", "metrics", "logs"]);
    for (name, pipeline) in pipelines {
        for kind in ["receivers", "processors", "exporters"] {
            for part in strings(&pipeline[kind]) {
                assert!(!collector[kind][part].is_null(), "{name}: no `{part}` in {kind}");
            }
        }
    }
}

#[test]
fn the_example_policies_are_strictly_valid() {
    let (schema, _) =
        cedar_policy::Schema::from_cedarschema_str(&text("deploy/gate/policies/schema.cedarschema")).unwrap();
    let policies: cedar_policy::PolicySet = text("deploy/gate/policies/payments.cedar").parse().unwrap();
    let result =
        cedar_policy::Validator::new(schema).validate(&policies, cedar_policy::ValidationMode::Strict);
    assert!(result.validation_passed_without_warnings(), "{result}");
    assert!(policies.policies().all(|policy| policy.annotation("id").is_some()));
}

#[test]
fn the_dashboard_asks_only_for_metrics_that_exist() {
    let document = text("docs/telemetry.md");
    let documented: BTreeSet<&str> =
        document.lines().filter_map(|line| line.strip_prefix("| `countersign_")?.split('`').next()).collect();
    assert!(documented.len() >= 15);

    let dashboard = json("deploy/grafana/dashboards/countersign.json");
    let mut asked = BTreeSet::new();
    let mut sources = BTreeSet::new();
    walk(&dashboard, &mut |key, value| match key {
        "expr" | "definition" | "query" => {
            if let Some(query) = value.as_str() {
                asked.extend(metrics(query));
            }
        }
        "uid" => drop(sources.insert(value.as_str().unwrap().to_owned())),
        _ => {}
    });
    for name in &asked {
        let family =
            ["_bucket", "_sum", "_count"].iter().find_map(|end| name.strip_suffix(end)).unwrap_or(name);
        assert!(documented.contains(family), "`countersign_{name}` does not exist");
    }
    // The other way round: what is measured can be seen.
    for name in documented {
        assert!(asked.iter().any(|asked| asked.starts_with(name)), "nothing shows `countersign_{name}`");
    }

    let source = yaml("deploy/grafana/provisioning/datasources/prometheus.yaml");
    let provisioned = source["datasources"][0]["uid"].as_str().unwrap().to_owned();
    assert_eq!(sources, BTreeSet::from([provisioned, dashboard["uid"].as_str().unwrap().to_owned()]));
}

#[test]
fn the_dashboards_panels_stand_apart_and_say_what_they_show() {
    let dashboard = json("deploy/grafana/dashboards/countersign.json");
    let mut taken = BTreeSet::new();
    for panel in dashboard["panels"].as_array().unwrap() {
        assert!(!panel["description"].as_str().unwrap().is_empty());
        let place = |edge: &str| panel["gridPos"][edge].as_u64().unwrap();
        assert!(place("x") + place("w") <= 24);
        for x in place("x")..place("x") + place("w") {
            assert!(taken.insert((x, place("y"))), "{}", panel["title"]);
        }
    }
}

/// The names after `countersign_` in a query.
fn metrics(query: &str) -> Vec<String> {
    let name = |rest: &str| {
        rest.split(|c: char| !(c.is_ascii_alphanumeric() || c == '_')).next().unwrap().to_owned()
    };
    query.split("countersign_").skip(1).map(name).collect()
}

/// Shows every member of every object to `look`.
fn walk(value: &Value, look: &mut impl FnMut(&str, &Value)) {
    match value {
        Value::Object(members) => {
            for (key, member) in members {
                look(key, member);
                walk(member, look);
            }
        }
        Value::Array(items) => items.iter().for_each(|item| walk(item, look)),
        _ => {}
    }
}
