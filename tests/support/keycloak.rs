//! A real Keycloak for tests: fetched by Maven once, built once, started on a free loopback port with its database in memory.
//! It never outlives the process that started it. A machine that cannot run one says loudly which test it skipped and why;
//! where `CI` is set, that is a failure.

use std::env;
use std::fs::{self, File};
use std::io::Write as _;
use std::net::TcpListener;
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};
use std::sync::OnceLock;
use std::thread;
use std::time::{Duration, Instant};

use reqwest::blocking::{Client, Response};
use serde_json::{Value, json};

use super::kafka::Watched;

const VERSION: &str = "26.5.0";
const ADMIN: &str = "admin";
/// It is up in 15 s on an idle machine; two busy cores have been seen to take 90.
const READY_WITHIN: Duration = Duration::from_secs(240);

/// A running Keycloak.
pub struct Keycloak {
    address: String,
    client: Client,
    _process: Watched,
}

/// A realm of it.
pub struct Realm<'k> {
    keycloak: &'k Keycloak,
    name: String,
}

/// The Keycloak that all tests of this binary share, or `None` where `test` has to be skipped.
///
/// # Panics
/// If it should start and does not, or if `CI` is set and this machine cannot run it.
pub fn keycloak(test: &str) -> Option<&'static Keycloak> {
    static SHARED: OnceLock<Keycloak> = OnceLock::new();
    for (program, argument) in [("java", "-version"), ("mvn", "-v"), ("tar", "--version")] {
        let mut command = Command::new(program);
        if command.arg(argument).stdout(Stdio::null()).stderr(Stdio::null()).status().is_err() {
            let what = format!("`{program}` is not here");
            assert!(!env::var("CI").is_ok_and(|ci| !ci.is_empty() && ci != "false"), "`{test}`: {what}");
            // Written past the test harness, which shows what a passing test prints to nobody.
            let _ = writeln!(
                std::io::stderr().lock(),
                "\n!!! SKIPPED: {test}\n!!! it needs Keycloak, and {what}\n!!! `scripts/setup --tests` installs what is missing\n"
            );
            return None;
        }
    }
    Some(SHARED.get_or_init(|| Keycloak::start(&installed())))
}

/// Its folder, fetched and built once.
fn installed() -> PathBuf {
    let tmp = Path::new(env!("CARGO_TARGET_TMPDIR")).join("keycloak");
    let home = tmp.join(VERSION);
    fs::create_dir_all(&tmp).expect("a folder");
    let lock = File::create(tmp.join("lock")).expect("a lock file");
    lock.lock().expect("the lock");
    if home.is_dir() {
        return home;
    }
    let (archive, partial) = (format!("keycloak-quarkus-dist-{VERSION}.tar.gz"), tmp.join("partial"));
    run(Command::new("mvn")
        .args(["-q", "-B", "org.apache.maven.plugins:maven-dependency-plugin:3.8.1:copy"])
        .arg(format!("-Dartifact=org.keycloak:keycloak-quarkus-dist:{VERSION}:tar.gz"))
        .arg(format!("-DoutputDirectory={}", tmp.display()))
        .current_dir(&tmp));
    let _ = fs::remove_dir_all(&partial);
    fs::create_dir(&partial).expect("a folder");
    run(Command::new("tar")
        .args(["xzf", &archive, "--strip-components=1", "-C", "partial"])
        .current_dir(&tmp));
    run(Command::new(partial.join("bin/kc.sh")).args(["build", "--db=dev-mem", "--cache=local"]));
    // Renamed into place only when complete, so that what was cut short is made again.
    fs::rename(&partial, &home).expect("the folder of Keycloak");
    let _ = fs::remove_file(tmp.join(archive));
    home
}

fn run(command: &mut Command) {
    let output = command.output().expect("the program runs");
    let said =
        [output.stdout, output.stderr].map(|text| String::from_utf8_lossy(&text).into_owned()).concat();
    assert!(output.status.success(), "{command:?}:\n{said}");
}

impl Keycloak {
    fn start(home: &Path) -> Self {
        let port = TcpListener::bind("127.0.0.1:0").expect("a port").local_addr().expect("an address").port();
        let scratch =
            tempfile::Builder::new().prefix("countersign-keycloak-").tempdir().expect("a folder").keep();
        let log = home.with_file_name("keycloak.log");
        let home = home.display();
        // What bin/kc.sh runs, without the shell between: a kill must reach Java.
        let home_option = format!("-Dkc.home.dir={home}");
        let (conf, class_path) =
            (format!("-Djboss.server.config.dir={home}/conf"), format!("{home}/lib/quarkus-run.jar"));
        let port_option = format!("--http-port={port}");
        let program = [
            "env",
            "KC_BOOTSTRAP_ADMIN_USERNAME=admin",
            "KC_BOOTSTRAP_ADMIN_PASSWORD=admin",
            "java",
            "-Xmx512m",
            "-XX:+UseSerialGC",
            "-XX:TieredStopAtLevel=1",
            &home_option,
            &conf,
            "-Djava.util.logging.manager=org.jboss.logmanager.LogManager",
            "-Dkc.config.built=true",
            "-Djava.util.concurrent.ForkJoinPool.common.threadFactory=io.quarkus.bootstrap.forkjoin.QuarkusForkJoinWorkerThreadFactory",
            "-cp",
            &class_path,
            "io.quarkus.bootstrap.runner.QuarkusEntryPoint",
            "start",
            "--optimized",
            "--http-enabled=true",
            "--http-host=127.0.0.1",
            &port_option,
            "--hostname-strict=false",
        ];
        let mut process = Watched::start(&program, &scratch, &log).expect("Keycloak");
        let client = Client::builder().timeout(Duration::from_secs(30)).build().expect("a client");
        let keycloak = |process| Self {
            address: format!("http://127.0.0.1:{port}"),
            client: client.clone(),
            _process: process,
        };
        let deadline = Instant::now() + READY_WITHIN;
        let ready = format!("http://127.0.0.1:{port}/realms/master");
        loop {
            if client.get(&ready).send().is_ok_and(|answer| answer.status().is_success()) {
                return keycloak(process);
            }
            let said = || fs::read_to_string(&log).unwrap_or_default();
            assert!(process.ended().is_none(), "Keycloak ended:\n{}", said());
            assert!(Instant::now() < deadline, "Keycloak was not ready within {READY_WITHIN:?}:\n{}", said());
            thread::sleep(Duration::from_millis(200));
        }
    }

    /// Makes a realm with a public client `approvals`, whose tokens are for `countersign`, and these users; the password of
    /// each is their name.
    pub fn realm(&self, name: &str, users: &[&str]) -> Realm<'_> {
        let mapper = json!({
            "name": "audience", "protocol": "openid-connect", "protocolMapper": "oidc-audience-mapper",
            "config": {"included.custom.audience": "countersign", "access.token.claim": "true"},
        });
        let client = |id: &str, mappers: Value| json!({"clientId": id, "publicClient": true, "directAccessGrantsEnabled": true, "protocolMappers": mappers});
        let user = |name: &&str| {
            json!({
                "username": name, "enabled": true, "email": format!("{name}@example.org"), "emailVerified": true,
                "firstName": name, "lastName": name,
                "credentials": [{"type": "password", "value": name, "temporary": false}],
            })
        };
        let realm = json!({
            "realm": name, "enabled": true, "users": users.iter().map(user).collect::<Vec<_>>(),
            "clients": [client("approvals", json!([mapper])), client("elsewhere", json!([]))],
        });
        self.admin("", &realm);
        Realm { keycloak: self, name: name.to_owned() }
    }

    fn admin(&self, path: &str, body: &Value) {
        let token = self.token("master", "admin-cli", ADMIN);
        let url = format!("{}/admin/realms{path}", self.address);
        let request = self.client.post(url).bearer_auth(token).header("content-type", "application/json");
        succeeded(request.body(body.to_string()).send().expect("an answer"));
    }

    fn token(&self, realm: &str, client: &str, user: &str) -> String {
        let url = format!("{}/realms/{realm}/protocol/openid-connect/token", self.address);
        let form =
            format!("grant_type=password&client_id={client}&username={user}&password={user}&scope=openid");
        let request = self.client.post(url).header("content-type", "application/x-www-form-urlencoded");
        let answer = succeeded(request.body(form).send().expect("an answer"));
        answer["access_token"].as_str().expect("an access token").to_owned()
    }
}

impl Realm<'_> {
    /// The `iss` of its tokens.
    pub fn issuer(&self) -> String {
        format!("{}/realms/{}", self.keycloak.address, self.name)
    }

    /// An access token of a user by the client `approvals`.
    pub fn token(&self, user: &str) -> String {
        self.keycloak.token(&self.name, "approvals", user)
    }

    /// One by a client whose tokens are not for `countersign`.
    pub fn token_for_elsewhere(&self, user: &str) -> String {
        self.keycloak.token(&self.name, "elsewhere", user)
    }

    /// Adds a new signing key, which signs from now on.
    pub fn rotate(&self) {
        let id = succeeded(
            self.keycloak
                .client
                .get(format!("{}/admin/realms/{}", self.keycloak.address, self.name))
                .bearer_auth(self.keycloak.token("master", "admin-cli", ADMIN))
                .send()
                .expect("an answer"),
        );
        let component = json!({
            "name": "rotated", "providerId": "rsa-generated", "providerType": "org.keycloak.keys.KeyProvider",
            "parentId": id["id"],
            "config": {"priority": ["1000"], "enabled": ["true"], "active": ["true"], "algorithm": ["RS256"]},
        });
        self.keycloak.admin(&format!("/{}/components", self.name), &component);
    }
}

/// The body of an answer that says yes.
fn succeeded(answer: Response) -> Value {
    let (status, text) = (answer.status(), answer.text().unwrap_or_default());
    assert!(status.is_success(), "{status}: {text}");
    serde_json::from_str(&text).unwrap_or_default()
}
