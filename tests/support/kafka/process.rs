//! Processes that never outlive whoever started them, however that process ends; with their own id, so that they can be
//! stopped, continued and killed. Limits: of a program that starts others only itself is known.

use std::fs::{self, File};
use std::io;
use std::os::unix::process::CommandExt as _;
use std::path::Path;
use std::process::{Child, Command, Stdio};
use std::time::{Duration, Instant};

use nix::sys::signal::{self, Signal};
use nix::unistd::Pid;

/// Runs a program (`$2` and what follows), logging to this script's output, until it ends or standard input is closed:
/// then the program is killed and the folder `$1` removed. The kernel closes that pipe when its other end's process dies, by
/// `kill -9` too, which no destructor sees. What still writes into the folder when that process dies is dying too: hence
/// the second try.
const WATCH: &str = r#"
dir=$1; shift
exec 3<&0 </dev/null
"$@" 3<&- & program=$!
(read -r _ <&3; kill -9 "$program" 2>/dev/null) & watch=$!
wait "$program"; code=$?
kill "$watch" 2>/dev/null
rm -rf -- "$dir" 2>/dev/null || { sleep 2; rm -rf -- "$dir"; }
exit "$code"
"#;

/// Tells its own process id before it becomes the program; `$1` is the file that says it.
const BECOME: &str = r#"echo $$ >"$1.partial"; mv "$1.partial" "$1"; shift; exec "$@""#;
/// How long the shell may take to say it.
const SAID_WITHIN: Duration = Duration::from_secs(60);
/// How long a killed process may take to be gone.
const GONE_WITHIN: Duration = Duration::from_secs(60);

/// A program that is killed, and its folder removed, when this value is dropped or this process dies.
pub struct Watched(Child);

impl Watched {
    /// Starts `program`, which may write below `dir` and logs to `log`.
    pub fn start(program: &[&str], dir: &Path, log: &Path) -> io::Result<Self> {
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

    /// Keeps a folder, and removes it when this value is dropped or this process dies.
    pub fn folder(dir: &Path) -> io::Result<Self> {
        // INVARIANT: `sleep` and not a shell, so that killing it leaves nothing behind.
        Self::start(&["sleep", "2147483647"], dir, Path::new("/dev/null"))
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

/// A watched program whose process id is known.
pub struct Process {
    watched: Watched,
    pid: Pid,
}

impl Process {
    /// Starts `program`, which may write below `dir` and logs to `log`. The folder holds the process id meanwhile.
    pub fn start(program: &[&str], dir: &Path, log: &Path) -> io::Result<Self> {
        let said = dir.join("pid");
        let said = said.to_str().ok_or(io::ErrorKind::InvalidFilename)?;
        let become_it = ["sh", "-c", BECOME, "become", said];
        let mut watched = Watched::start(&[&become_it[..], program].concat(), dir, log)?;
        let deadline = Instant::now() + SAID_WITHIN;
        loop {
            if let Some(pid) = fs::read_to_string(said).ok().and_then(|text| text.trim().parse().ok()) {
                return Ok(Self { watched, pid: Pid::from_raw(pid) });
            }
            if watched.ended().is_some() || Instant::now() > deadline {
                return Err(io::ErrorKind::NotFound.into());
            }
            std::thread::sleep(Duration::from_millis(5));
        }
    }

    /// See [`Watched::ended`].
    pub fn ended(&mut self) -> Option<i32> {
        self.watched.ended()
    }

    /// Sends a signal to a program that still runs.
    pub fn signal(&self, signal: Signal) {
        signal::kill(self.pid, signal).expect("a process of our own takes a signal");
    }

    /// `kill -9`, of a stopped process too; returns when it is gone.
    pub fn kill(mut self) -> i32 {
        if self.ended().is_none() {
            // It may end by itself between the two.
            let _ = signal::kill(self.pid, Signal::SIGKILL);
        }
        let deadline = Instant::now() + GONE_WITHIN;
        loop {
            if let Some(code) = self.ended() {
                return code;
            }
            assert!(Instant::now() < deadline, "a killed process did not end");
            std::thread::sleep(Duration::from_millis(5));
        }
    }

    /// Bounds the size of every file that it writes from now on: past it, writing fails as on a full disk.
    pub fn limit_files(&self, bytes: u64) {
        let status = Command::new("prlimit")
            .arg(format!("--pid={}", self.pid))
            .arg(format!("--fsize={bytes}:"))
            .status()
            .expect("`prlimit` of util-linux runs");
        assert!(status.success(), "prlimit: {status}");
    }
}
