//! A gate as a process: started in a site's folder, asked over HTTP, ended by the signals that operators and machines
//! send. It never outlives the test.

use std::fs;
use std::io::{Read as _, Write as _};
use std::net::{SocketAddr, TcpStream};
use std::path::{Path, PathBuf};
use std::time::{Duration, Instant};

use nix::sys::signal::Signal;
use serde_json::Value;

use super::site::end_of;
use super::{PATIENCE, wait_for};
use crate::support::kafka::Process;

/// A running gate.
pub struct GateProcess {
    process: Process,
    log: PathBuf,
}

impl GateProcess {
    /// Starts a gate with the `countersign.toml` of a folder; what it prints goes to `log`.
    pub fn start(folder: &Path, instance: Option<&str>, log: PathBuf) -> Self {
        let own = log.with_extension("own");
        fs::create_dir(&own).expect("a folder");
        let config = folder.join("countersign.toml");
        let mut program: Vec<String> = vec!["env".into()];
        for (name, _) in std::env::vars_os() {
            // Settings of the surroundings are not the site's.
            if name.to_string_lossy().starts_with("COUNTERSIGN_") {
                program.extend(["-u".to_owned(), name.to_string_lossy().into_owned()]);
            }
        }
        program.push("COUNTERSIGN_TELEMETRY_LOG=countersign=debug,info".into());
        program.extend(instance.map(|instance| format!("COUNTERSIGN_GATE_INSTANCE={instance}")));
        program.extend([env!("CARGO_BIN_EXE_countersign"), "run", "--config"].map(str::to_owned));
        program.push(config.to_str().expect("a path that is text").to_owned());
        let program: Vec<&str> = program.iter().map(String::as_str).collect();
        // (`env` becomes the gate: its process id is the gate's.)
        Self { process: Process::start(&program, &own, &log).expect("a gate"), log }
    }

    fn address(&self) -> Option<SocketAddr> {
        self.serving("health and metrics")
    }

    /// Where that is served, by the gate's own log.
    pub fn serving(&self, what: &str) -> Option<SocketAddr> {
        let text = fs::read_to_string(&self.log).ok()?;
        let line = text.lines().find(|line| line.contains(&format!("{what} are served")))?;
        let (_, rest) = line.split_once("127.0.0.1:")?;
        let port: String = rest.chars().take_while(char::is_ascii_digit).collect();
        Some(SocketAddr::from(([127, 0, 0, 1], port.parse().ok()?)))
    }

    /// The body of an answer; `None` where nobody answers.
    fn get(&self, path: &str) -> Option<String> {
        let mut stream = TcpStream::connect(self.address()?).ok()?;
        stream.set_read_timeout(Some(PATIENCE)).ok()?;
        write!(stream, "GET {path} HTTP/1.1\r\nHost: gate\r\nConnection: close\r\n\r\n").ok()?;
        let mut answer = String::new();
        stream.read_to_string(&mut answer).ok()?;
        answer.split_once("\r\n\r\n").map(|(_, body)| body.to_owned())
    }

    /// `/metrics`.
    pub fn metrics(&self) -> String {
        wait_for("the metrics", || self.get("/metrics"))
    }

    /// `/readyz`.
    pub fn status(&mut self) -> Value {
        wait_for("the gate's status", || {
            self.assert_running();
            let body = self.get("/readyz")?;
            // Chunked or not, the body is one object.
            let object = body.get(body.find('{')?..=body.rfind('}')?)?;
            serde_json::from_str(object).ok()
        })
    }

    /// Waits until every lane has joined and restored what it owns.
    pub fn wait_ready(&mut self) {
        wait_for("the gate to be ready", || {
            self.assert_running();
            let body = self.get("/readyz")?;
            let object = body.get(body.find('{')?..=body.rfind('}')?)?;
            let status: Value = serde_json::from_str(object).ok()?;
            (status["ready"] == true).then_some(())
        });
    }

    /// The version of a snapshot and whether what stands on disk is refused.
    pub fn snapshot(&mut self, which: &str) -> (String, bool) {
        let status = self.status();
        let snapshots = status["snapshots"].as_array().expect("snapshots");
        let found = snapshots.iter().find(|snapshot| snapshot["snapshot"] == which).expect("the snapshot");
        (found["version"].as_str().unwrap_or_default().to_owned(), found["stale"] == true)
    }

    fn assert_running(&mut self) {
        if let Some(code) = self.process.ended() {
            panic!("the gate ended with {code}:\n{}", end_of(&self.log, 40));
        }
    }

    /// `kill -9`, as a machine that fails does; returns when the process is gone.
    pub fn kill(mut self) {
        self.assert_running();
        assert_eq!(self.process.kill(), 128 + 9, "killed");
    }

    /// Asks for an end in good order, and how long that took.
    pub fn terminate(mut self) -> Duration {
        self.assert_running();
        let asked = Instant::now();
        self.process.signal(Signal::SIGTERM);
        let code = self.wait();
        assert_eq!(code, 0, "an end in good order:\n{}", end_of(&self.log, 40));
        asked.elapsed()
    }

    /// Stops the process where it stands, until it is [resumed](Self::resume).
    pub fn pause(&self) {
        self.process.signal(Signal::SIGSTOP);
    }

    /// Lets a stopped process go on.
    pub fn resume(&self) {
        self.process.signal(Signal::SIGCONT);
    }

    /// Asks for another look at keys and policies.
    pub fn hang_up(&self) {
        self.process.signal(Signal::SIGHUP);
    }

    /// Its exit code, once it has ended.
    pub fn ended(&mut self) -> Option<i32> {
        self.process.ended()
    }

    /// Waits until it ends by itself; its exit code.
    pub fn wait(&mut self) -> i32 {
        wait_for("the gate to end", || self.process.ended())
    }
}
