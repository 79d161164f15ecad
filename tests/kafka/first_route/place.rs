//! A copy of `examples/first-route` in a folder of its own, with topics of its own names; what runs in it sees those, and
//! what it prints is told in the page's names.

use std::fs;
use std::path::{Path, PathBuf};
use std::process::Command;
use std::time::Duration;

use rdkafka::admin::{AdminClient, AdminOptions, NewTopic, TopicReplication};
use rdkafka::client::DefaultClientContext;

use super::page::alike;
use crate::gate::{GateProcess, wait_for};
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
}

impl Place {
    pub fn new(broker: &'static Broker) -> Self {
        let mut names: Vec<_> = TOPICS.into_iter().map(|topic| (topic, broker.unique(topic))).collect();
        names.push((ADDRESS, broker.bootstrap().to_owned()));
        let place = Self { broker, folder: tempfile::tempdir().expect("a folder"), names };
        let example = Path::new(env!("CARGO_MANIFEST_DIR")).join("examples/first-route");
        fs::create_dir(place.path("policies")).expect("a folder");
        for file in ["countersign.toml", "policies/payments.cedar", "policies/schema.cedarschema"] {
            let text = fs::read_to_string(example.join(file)).expect("a file of the example");
            fs::write(place.path(file), place.own(&text)).expect("a file of the place");
        }
        // A port and a group of its own: other gates run beside this one.
        let group = format!("[gate]\ngroup = \"{}\"\n", broker.unique("first-route"));
        let config = fs::read_to_string(place.path("countersign.toml")).expect("a configuration");
        fs::write(place.path("countersign.toml"), config.replacen("[gate]\n", &group, 1))
            .expect("a configuration");
        place.append("countersign.toml", "[http]\nlisten = \"127.0.0.1:0\"");
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

    /// Runs commands of a page, all of which must succeed, and tells everything that they print.
    pub fn shell(&self, commands: &str) -> String {
        let output = self.command("sh").args(["-ec", &self.own(&format!("exec 2>&1\n{commands}"))]).output();
        let output = output.expect("a shell");
        let text = told(&self.names, &String::from_utf8_lossy(&output.stdout));
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
        let partitions = values("--partitions").next().and_then(|count| count.parse().ok());
        let partitions: i32 = partitions.expect("a count");
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
        // A broker answers before it knows of it itself.
        wait_for(name, || {
            let metadata = admin.inner().fetch_metadata(Some(name), PATIENCE).ok()?;
            metadata
                .topics()
                .iter()
                .any(|topic| topic.partitions().len() == partitions as usize)
                .then_some(())
        });
    }
}

/// A program that runs until this value, or the test, is ended.
pub struct Started {
    log: PathBuf,
    names: Vec<(&'static str, String)>,
    what: &'static str,
    _watched: Watched,
}

impl Started {
    /// Starts a program in the folder, with arguments in the page's words.
    pub fn new(what: &'static str, program: &str, arguments: &[&str], place: &Place) -> Self {
        let own = place.path(&format!("{what}.own"));
        fs::create_dir(&own).expect("a folder");
        let log = place.path(&format!("{what}.log"));
        let folder = place.folder.path().to_str().expect("a path that is text");
        let arguments: Vec<String> = arguments.iter().map(|argument| place.own(argument)).collect();
        let mut words = vec!["env", "-C", folder, program];
        words.extend(arguments.iter().map(String::as_str));
        let watched = Watched::start(&words, &own, &log).expect("a program");
        Self { log, names: place.names.clone(), what, _watched: watched }
    }

    /// What it has printed, in the page's names.
    pub fn log(&self) -> String {
        told(&self.names, &fs::read_to_string(&self.log).unwrap_or_default())
    }

    /// Waits until it has printed that.
    pub fn wait_for(&self, text: &str) {
        wait_for(&format!("`{text}` of the {}", self.what), || self.log().contains(text).then_some(()));
    }
}

/// `countersign run` in a place.
pub struct Gate {
    process: GateProcess,
    log: PathBuf,
    names: Vec<(&'static str, String)>,
}

impl Gate {
    pub fn start(place: &Place) -> Self {
        let log = place.path("gate.log");
        let process = GateProcess::start(place.folder.path(), None, log.clone());
        Self { process, log, names: place.names.clone() }
    }

    /// Waits until the log has each of these lines, whatever stands between them.
    pub fn wait_for(&self, lines: &str) {
        for line in alike(lines) {
            wait_for(&format!("`{line}` of the gate"), || {
                let log = told(&self.names, &fs::read_to_string(&self.log).unwrap_or_default());
                alike(&log).contains(&line).then_some(())
            });
        }
    }

    /// Ends it in good order.
    pub fn terminate(self) {
        self.process.terminate();
    }
}

fn told(names: &[(&'static str, String)], text: &str) -> String {
    names.iter().fold(text.to_owned(), |text, (page, own)| text.replace(own, page))
}
