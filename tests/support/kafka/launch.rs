//! Starts one Apache Kafka node (KRaft, broker and controller in one) from its Maven artifacts, on free loopback ports
//! and in a folder of its own. It never outlives the process that started it, however that process ends.

use std::env;
use std::fs::{self, File};
use std::net::TcpListener;
use std::os::unix::process::CommandExt as _;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::thread;
use std::time::{Duration, Instant};

use base64::Engine as _;
use base64::engine::general_purpose::URL_SAFE_NO_PAD;

use super::Unavailable;

/// Maven's list of jars; a change of it makes a new jar folder.
const POM: &str = concat!(env!("CARGO_MANIFEST_DIR"), "/tests/kafka/pom.xml");
/// A broker is up in 5 s on an idle machine; two busy cores have been seen to take 30.
const READY_WITHIN: Duration = Duration::from_secs(120);
/// Another process may take a port between our look and the broker's bind.
const ATTEMPTS: u32 = 3;
const READY: &str = "Kafka Server started";

/// Runs a program (`$2` and what follows), logging to this script's output, until it ends or standard input is closed:
/// then the program is killed and the folder `$1` removed. The kernel closes that pipe when its other end's process dies, by
/// `kill -9` too, which no destructor sees.
const WATCH: &str = r#"
dir=$1; shift
exec 3<&0 </dev/null
"$@" 3<&- & program=$!
(read -r _ <&3; kill -9 "$program" 2>/dev/null) & watch=$!
wait "$program"; code=$?
kill "$watch" 2>/dev/null
rm -rf -- "$dir"
exit "$code"
"#;

/// A program that is killed, and its folder removed, when this value is dropped or this process dies.
pub struct Watched(Child);

impl Watched {
    /// Starts `program`, which may write below `dir` and logs to `log`.
    pub fn start(program: &[&str], dir: &Path, log: &Path) -> std::io::Result<Self> {
        let output = File::create(log)?;
        Command::new("sh")
            .args(["-c", WATCH, "watch"])
            .arg(dir)
            .args(program)
            .stdin(Stdio::piped())
            .stdout(output.try_clone()?)
            .stderr(output)
            // An interrupt at the terminal reaches this process alone; the watch sees it end.
            .process_group(0)
            .spawn()
            .map(Self)
    }

    fn has_ended(&mut self) -> bool {
        !matches!(self.0.try_wait(), Ok(None))
    }

    /// The program's exit code once it has ended; 128 and the signal's number where a signal ended it.
    pub fn ended(&mut self) -> Option<i32> {
        let status = self.0.try_wait().expect("a process of our own")?;
        Some(status.code().unwrap_or(-1))
    }
}

impl Drop for Watched {
    fn drop(&mut self) {
        drop(self.0.stdin.take());
        let _ = self.0.wait();
    }
}

/// A new broker: its bootstrap address, and the process that must be kept as long as the broker is needed.
pub fn start() -> Result<(String, Watched), Unavailable> {
    java_17()?;
    let jars = jars()?;
    let log = work_dir()?.join(format!("broker-{}.log", binary_name()));
    let mut last = String::new();
    for _ in 0..ATTEMPTS {
        match start_once(&jars, &log) {
            Ok(started) => return Ok(started),
            Err(cause) => last = cause,
        }
    }
    Err(Unavailable::Failed(format!("{last}\nthe end of {}:\n{}", log.display(), tail(&log))))
}

fn start_once(jars: &Path, log: &Path) -> Result<(String, Watched), String> {
    let dir = tempfile::Builder::new()
        .prefix("countersign-kafka-")
        .tempdir()
        .map_err(|error| format!("cannot make a folder for the broker: {error}"))?;
    let [port, controller] = free_ports().map_err(|error| format!("no free loopback port: {error}"))?;
    let properties = dir.path().join("server.properties");
    let written = fs::write(&properties, server_properties(port, controller, &dir.path().join("data")));
    written.map_err(|error| format!("cannot write {}: {error}", properties.display()))?;
    let (class_path, properties) = (format!("{}/*", jars.display()), properties.display().to_string());

    let formatted = Command::new("java")
        .args(["-XX:TieredStopAtLevel=1", "-cp", &class_path, "kafka.tools.StorageTool"])
        .args(["format", "-t", &cluster_id(), "-c", &properties])
        .output()
        .map_err(|error| format!("cannot run java: {error}"))?;
    if !formatted.status.success() {
        return Err(format!("formatting storage failed: {}", String::from_utf8_lossy(&formatted.stderr)));
    }

    let java = ["java", "-Xmx512m", "-XX:+UseSerialGC", "-cp", &class_path, "kafka.Kafka", &properties];
    let process =
        Watched::start(&java, dir.path(), log).map_err(|error| format!("cannot run sh: {error}"))?;
    // From here on the folder is the watch's to remove.
    let _ = dir.keep();
    wait_until_ready(process, log).map(|process| (format!("127.0.0.1:{port}"), process))
}

fn wait_until_ready(mut process: Watched, log: &Path) -> Result<Watched, String> {
    let deadline = Instant::now() + READY_WITHIN;
    loop {
        if fs::read_to_string(log).is_ok_and(|text| text.contains(READY)) {
            return Ok(process);
        }
        if process.has_ended() {
            return Err("the broker ended while it started".to_owned());
        }
        if Instant::now() > deadline {
            return Err(format!("the broker was not ready within {READY_WITHIN:?}"));
        }
        thread::sleep(Duration::from_millis(50));
    }
}

fn server_properties(port: u16, controller: u16, data: &Path) -> String {
    format!(
        "process.roles=broker,controller
node.id=1
controller.quorum.voters=1@127.0.0.1:{controller}
listeners=PLAINTEXT://127.0.0.1:{port},CONTROLLER://127.0.0.1:{controller}
advertised.listeners=PLAINTEXT://127.0.0.1:{port}
controller.listener.names=CONTROLLER
inter.broker.listener.name=PLAINTEXT
listener.security.protocol.map=CONTROLLER:PLAINTEXT,PLAINTEXT:PLAINTEXT
log.dirs={}
group.initial.rebalance.delay.ms=0
auto.create.topics.enable=false
offsets.topic.num.partitions=4
offsets.topic.replication.factor=1
transaction.state.log.num.partitions=4
transaction.state.log.replication.factor=1
transaction.state.log.min.isr=1
",
        data.display()
    )
}

/// The folder with Kafka's jars, fetched once for a pom and shared by all test binaries.
fn jars() -> Result<PathBuf, Unavailable> {
    let failed = |what: &str, error: std::io::Error| Unavailable::Failed(format!("{what}: {error}"));
    let pom = fs::read(POM).map_err(|error| failed(POM, error))?;
    let jars = work_dir()?.join(format!("jars-{:08x}", crc32fast::hash(&pom)));
    // Test binaries may run side by side: one fetches, the others wait for it.
    let lock = File::create(work_dir()?.join("lock")).map_err(|error| failed("lock file", error))?;
    lock.lock().map_err(|error| failed("lock file", error))?;
    if jars.is_dir() {
        return Ok(jars);
    }
    if Command::new("mvn").arg("-v").stdout(Stdio::null()).stderr(Stdio::null()).status().is_err() {
        return Err(Unavailable::Missing("`mvn` (Maven), which fetches it, is not here".to_owned()));
    }
    let partial = jars.with_extension("partial");
    let fetched = Command::new("mvn")
        .args(["-q", "-B", "-f", POM, "dependency:copy-dependencies", "-DincludeScope=runtime"])
        .arg(format!("-DoutputDirectory={}", partial.display()))
        .output()
        .map_err(|error| failed("mvn", error))?;
    if !fetched.status.success() {
        let said = String::from_utf8_lossy(&fetched.stdout).into_owned();
        return Err(Unavailable::Failed(format!("Maven could not fetch Kafka's jars:\n{said}")));
    }
    // Renamed into place only when complete, so a fetch that was cut short is made again.
    fs::rename(&partial, &jars).map_err(|error| failed("jar folder", error))?;
    Ok(jars)
}

fn java_17() -> Result<(), Unavailable> {
    let Ok(output) = Command::new("java").arg("-version").output() else {
        return Err(Unavailable::Missing("`java` (17 or newer) is not here".to_owned()));
    };
    let said = String::from_utf8_lossy(&output.stderr).into_owned();
    let quoted = said.split('"').nth(1).unwrap_or_default();
    let major = quoted.split(['.', '-', '_', '+']).next().and_then(|major| major.parse::<u32>().ok());
    match major {
        Some(major) if major >= 17 => Ok(()),
        _ => Err(Unavailable::Missing(format!("`java` here is `{quoted}`, and 17 or newer is needed"))),
    }
}

/// Where jars and logs lie: inside the build's target folder.
fn work_dir() -> Result<PathBuf, Unavailable> {
    let dir = Path::new(env!("CARGO_TARGET_TMPDIR")).join("kafka");
    fs::create_dir_all(&dir)
        .map_err(|error| Unavailable::Failed(format!("cannot make {}: {error}", dir.display())))?;
    Ok(dir)
}

fn binary_name() -> String {
    let path = env::current_exe().unwrap_or_default();
    let name = path.file_stem().unwrap_or_default().to_string_lossy();
    name.split('-').next().unwrap_or_default().to_owned()
}

fn cluster_id() -> String {
    // Version 7 starts with the time, hence never with the `-` that would read as an option.
    URL_SAFE_NO_PAD.encode(uuid::Uuid::now_v7().as_bytes())
}

fn free_ports() -> std::io::Result<[u16; 2]> {
    let (one, two) = (TcpListener::bind(("127.0.0.1", 0))?, TcpListener::bind(("127.0.0.1", 0))?);
    Ok([one.local_addr()?.port(), two.local_addr()?.port()])
}

fn tail(log: &Path) -> String {
    let text = fs::read_to_string(log).unwrap_or_default();
    let lines: Vec<&str> = text.lines().collect();
    lines[lines.len().saturating_sub(30)..].join("\n")
}
