//! A copy of `examples/first-route` in a folder of its own, with topics of its own names; what runs in it sees those, and
//! what it prints is told in the page's names.

use std::fs;
use std::path::{Path, PathBuf};
use std::process::Command;
use std::time::{Duration, Instant};

use nix::sys::signal::{Signal, kill};
use nix::unistd::Pid;
use rdkafka::admin::{AdminClient, AdminOptions, NewTopic, TopicReplication};
use rdkafka::client::DefaultClientContext;

use super::page::alike;
use crate::support::kafka::{Broker, Watched};

/// The topics of the pages.
pub const TOPICS: [&str; 6] = [
    "payments.commands",
    "payments.authorized",
    "payments.denied",
    "payments.audit",
    "ledger.commands",
    "ledger.booked",
];
const ADDRESS: &str = "localhost:9092";
const PATIENCE: Duration = Duration::from_secs(60);

pub struct Place {
    broker: &'static Broker,
    folder: tempfile::TempDir,
    /// The page's words and the place's, in pairs.
    names: Vec<(&'static str, String)>,
    group: String,
}

impl Place {
    pub fn new(broker: &'static Broker) -> Self {
        let mut names: Vec<_> = TOPICS.into_iter().map(|topic| (topic, broker.unique(topic))).collect();
        names.push((ADDRESS, broker.bootstrap().to_owned()));
        let place = Self {
            broker,
            folder: tempfile::tempdir().expect("a folder"),
            names,
            group: broker.unique("first-route"),
        };
        let example = Path::new(env!("CARGO_MANIFEST_DIR")).join("examples/first-route");
        fs::create_dir(place.path("policies")).expect("a folder");
        for file in ["countersign.toml", "policies/payments.cedar", "policies/schema.cedarschema"] {
            let text = fs::read_to_string(example.join(file)).expect("a file of the example");
            fs::write(place.path(file), place.own(&text)).expect("a file of the place");
        }
        place
    }

    pub fn path(&self, name: &str) -> PathBuf {
        self.folder.path().join(name)
    }

    pub fn address(&self) -> &str {
        self.broker.bootstrap()
    }

    /// Adds to a file, in the page's words.
    pub fn append(&self, name: &str, text: &str) {
        let before = fs::read_to_string(self.path(name)).unwrap_or_default();
        fs::write(self.path(name), format!("{before}\n{}\n", self.own(text))).expect("a file of the place");
    }

    fn own(&self, text: &str) -> String {
        self.names.iter().fold(text.to_owned(), |text, (page, own)| text.replace(page, own))
    }

    fn told(&self, text: &str) -> String {
        self.names.iter().fold(text.to_owned(), |text, (page, own)| text.replace(own, page))
    }

    /// Runs commands of a page, all of which must succeed, and tells everything that they print.
    pub fn shell(&self, commands: &str) -> String {
        let output = self.command("sh").args(["-ec", &self.own(&format!("exec 2>&1\n{commands}"))]).output();
        let output = output.expect("a shell");
        let text = self.told(&String::from_utf8_lossy(&output.stdout));
        assert!(output.status.success(), "`{commands}` ended with {}:\n{text}", output.status);
        text
    }

    /// A command in the folder that finds `countersign`, without settings of the surroundings.
    fn command(&self, program: &str) -> Command {
        let bin = Path::new(env!("CARGO_BIN_EXE_countersign")).parent().expect("a folder");
        let path = format!("{}:{}", bin.display(), std::env::var("PATH").unwrap_or_default());
        let mut command = Command::new(program);
        for (name, _) in std::env::vars_os() {
            if name.to_string_lossy().starts_with("COUNTERSIGN_") {
                command.env_remove(name);
            }
        }
        command.current_dir(self.folder.path()).env("PATH", path);
        command
    }

    /// Makes a topic as a `kafka-topics.sh` command says, in the page's names.
    pub fn make_topic(&self, command: &str) {
        let command = self.own(command);
        let words: Vec<&str> = command.split_whitespace().collect();
        let values = |flag| words.windows(2).filter(move |pair| pair[0] == flag).map(|pair| pair[1]);
        let name = values("--topic").next().expect("a topic");
        let partitions = values("--partitions").next().and_then(|count| count.parse().ok()).expect("a count");
        let settings: Vec<_> =
            values("--config").map(|setting| setting.split_once('=').expect("a setting")).collect();
        let mut topic = NewTopic::new(name, partitions, TopicReplication::Fixed(1));
        for (setting, value) in settings {
            topic = topic.set(setting, value);
        }
        let admin: AdminClient<DefaultClientContext> =
            self.broker.client().create().expect("an admin client");
        let runtime = tokio::runtime::Builder::new_current_thread().enable_time().build().expect("a runtime");
        let options = AdminOptions::new().operation_timeout(Some(PATIENCE));
        let made = runtime.block_on(admin.create_topics([&topic], &options)).expect("the broker answers");
        assert!(made.iter().all(Result::is_ok), "`{name}` was not made: {made:?}");
    }
}

/// A program that runs until it is ended, or this value or the test is.
pub struct Started {
    log: PathBuf,
    said: PathBuf,
    names: Vec<(&'static str, String)>,
    what: String,
    _watched: Watched,
}

/// Says the program's process id in the file `$1`, and at its end how it ended.
const RUN: &str = r#"said=$1; shift; "$@" & echo $! >"$said.partial"; mv "$said.partial" "$said"; wait $!; echo "exit code $?""#;

impl Started {
    /// Starts a program with arguments in the page's words.
    pub fn new(what: &str, program: String, arguments: &[&str], place: &Place) -> Self {
        let own = place.path(&format!("{what}.own"));
        fs::create_dir(&own).expect("a folder");
        let (said, log) = (place.path(&format!("{what}.pid")), place.path(&format!("{what}.log")));
        let text = |path: &Path| path.to_str().expect("a path that is text").to_owned();
        let mut words = vec!["env".to_owned(), "-C".into(), text(place.folder.path())];
        for (name, _) in std::env::vars_os() {
            if name.to_string_lossy().starts_with("COUNTERSIGN_") {
                words.extend(["-u".to_owned(), name.to_string_lossy().into_owned()]);
            }
        }
        // A port and a group of its own: other gates run beside this one.
        words.push("COUNTERSIGN_HTTP_LISTEN=127.0.0.1:0".to_owned());
        words.push(format!("COUNTERSIGN_GATE_GROUP={}", place.group));
        words.extend(["sh", "-c", RUN, "run"].map(str::to_owned));
        words.extend([text(&said), program]);
        words.extend(arguments.iter().map(|argument| place.own(argument)));
        let words: Vec<&str> = words.iter().map(String::as_str).collect();
        let watched = Watched::start(&words, &own, &log).expect("a program");
        Self { log, said, names: place.names.clone(), what: what.to_owned(), _watched: watched }
    }

    /// What it has printed, in the page's names.
    pub fn log(&self) -> String {
        let text = fs::read_to_string(&self.log).unwrap_or_default();
        self.names.iter().fold(text, |text, (page, own)| text.replace(own, page))
    }

    /// Waits until it has printed that.
    pub fn wait_for(&self, text: &str) {
        self.wait(text, |log| log.contains(text));
    }

    fn wait(&self, what: &str, done: impl Fn(&str) -> bool) {
        let deadline = Instant::now() + PATIENCE;
        while !done(&self.log()) {
            assert!(
                Instant::now() < deadline,
                "waited in vain for `{what}` of the {}:\n{}",
                self.what,
                self.log()
            );
            std::thread::sleep(Duration::from_millis(20));
        }
    }

    fn interrupt(&self) -> i32 {
        let pid = fs::read_to_string(&self.said).expect("a process id").trim().parse().expect("a number");
        kill(Pid::from_raw(pid), Signal::SIGINT).expect("the program is told");
        self.wait_for("exit code ");
        let log = self.log();
        log.rsplit("exit code ").next().and_then(|code| code.trim().parse().ok()).expect("a code")
    }
}

/// `countersign run` in a place.
pub struct Gate(Started);

impl Gate {
    pub fn start(place: &Place) -> Self {
        let program = env!("CARGO_BIN_EXE_countersign").to_owned();
        Self(Started::new("gate", program, &["run"], place))
    }

    /// Waits until the log has each of these lines, whatever stands between them.
    pub fn wait_for(&self, lines: &str) {
        for line in alike(lines) {
            self.0.wait(&line, |log| alike(log).contains(&line));
        }
    }

    /// Ends it as Ctrl-C does, and tells its exit code.
    pub fn interrupt(self) -> i32 {
        self.0.interrupt()
    }
}
