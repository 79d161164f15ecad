//! A process that is measured: what it has cost so far, signals to it, and its end, which is never later than the end of
//! this process. Limits: what it has cost is read from Linux's `/proc`; elsewhere it is not known.

use std::ffi::OsStr;
use std::fs;
use std::io::{self, BufRead as _, BufReader, Write as _};
use std::os::unix::process::CommandExt as _;
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};
use std::time::{Duration, Instant};

/// Runs a program (`$3` and what follows), says its process id, and logs to `$2`. Each line of standard input is a signal
/// for it. When standard input is closed, which the kernel does by `kill -9` of its other end too, the program is killed.
/// In the end the folder `$1` is removed, where there is one.
const WATCH: &str = r#"
dir=$1; log=$2; shift 2
exec 3<&0 </dev/null
"$@" 3<&- >"$log" 2>&1 & program=$!
echo "$program"
exec >&-
(while read -r signal <&3; do kill -s "$signal" "$program" 2>/dev/null; done
 kill -s KILL "$program" 2>/dev/null) & watch=$!
wait "$program"; code=$?
kill "$watch" 2>/dev/null
[ -z "$dir" ] || rm -rf -- "$dir"
exit "$code"
"#;

/// The kernel's unit in `/proc/PID/stat`, the same on every Linux that programs can see.
const TICK: Duration = Duration::from_millis(10);
const LOOK: Duration = Duration::from_millis(2);

/// A signal by its name.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Signal {
    /// End in good order.
    Terminate,
    /// End at once, without a word.
    Kill,
}

/// A running program. Dropped, it is killed.
#[derive(Debug)]
pub(super) struct Child {
    watch: std::process::Child,
    pid: u32,
    log: PathBuf,
}

impl Child {
    /// Starts a program that logs to `log`, with further variables and without those that set this program's own
    /// configuration. `folder` is removed when it has ended.
    pub(super) fn start<S: AsRef<OsStr>>(
        program: &[S],
        variables: &[(&str, &str)],
        folder: Option<&Path>,
        log: &Path,
    ) -> io::Result<Self> {
        let mut command = Command::new("sh");
        for (name, _) in std::env::vars_os() {
            if name.to_string_lossy().starts_with("COUNTERSIGN_") {
                command.env_remove(&name);
            }
        }
        let mut watch = command
            .args(["-c", WATCH, "watch"])
            .arg(folder.map_or(OsStr::new(""), Path::as_os_str))
            .arg(log)
            .args(program)
            .envs(variables.iter().copied())
            .stdin(Stdio::piped())
            .stdout(Stdio::piped())
            .stderr(Stdio::null())
            // An interrupt at the terminal is this process's to answer.
            .process_group(0)
            .spawn()?;
        let mut said = String::new();
        if let Some(stdout) = watch.stdout.take() {
            BufReader::new(stdout).read_line(&mut said)?;
        }
        match said.trim().parse() {
            Ok(pid) => Ok(Self { watch, pid, log: log.to_owned() }),
            Err(_) => {
                let _ = watch.kill();
                let _ = watch.wait();
                Err(io::Error::other("the shell did not start the program"))
            }
        }
    }

    /// Sends a signal; to a program that has ended, nothing happens.
    pub(super) fn signal(&mut self, signal: Signal) -> io::Result<()> {
        let name = match signal {
            Signal::Terminate => "TERM\n",
            Signal::Kill => "KILL\n",
        };
        match self.watch.stdin.as_mut().map(|stdin| stdin.write_all(name.as_bytes())) {
            Some(Err(error)) if error.kind() != io::ErrorKind::BrokenPipe => Err(error),
            _ => Ok(()),
        }
    }

    /// Its exit code once it has ended; 128 and the signal's number where a signal ended it.
    pub(super) fn ended(&mut self) -> io::Result<Option<i32>> {
        Ok(self.watch.try_wait()?.map(|status| status.code().unwrap_or(-1)))
    }

    /// Waits for its end; `None` where it does not come in time.
    pub(super) fn wait(&mut self, within: Duration) -> io::Result<Option<i32>> {
        let deadline = Instant::now() + within;
        loop {
            let ended = self.ended()?;
            if ended.is_some() || Instant::now() >= deadline {
                return Ok(ended);
            }
            std::thread::sleep(LOOK);
        }
    }

    /// The time that it has spent on processors so far, all of its threads together.
    pub(super) fn cpu(&self) -> Option<Duration> {
        cpu_of(&fs::read_to_string(format!("/proc/{}/stat", self.pid)).ok()?)
    }

    /// The bytes of it that are in memory.
    pub(super) fn resident(&self) -> Option<u64> {
        resident_of(&fs::read_to_string(format!("/proc/{}/status", self.pid)).ok()?)
    }

    /// The last lines of what it has logged.
    pub(super) fn last_words(&self) -> String {
        let text = fs::read_to_string(&self.log).unwrap_or_default();
        let lines: Vec<&str> = text.lines().collect();
        lines.get(lines.len().saturating_sub(20)..).unwrap_or_default().join("\n")
    }

    /// What it has logged.
    pub(super) fn log(&self) -> &Path {
        &self.log
    }
}

impl Drop for Child {
    fn drop(&mut self) {
        drop(self.watch.stdin.take());
        let _ = self.watch.wait();
    }
}

/// User and system time of a line of `/proc/PID/stat`. The second field is the program's name and may hold anything.
fn cpu_of(stat: &str) -> Option<Duration> {
    let (_, fields) = stat.rsplit_once(") ")?;
    let mut fields = fields.split(' ').skip(11);
    let ticks = fields.next()?.parse::<u32>().ok()?.checked_add(fields.next()?.parse().ok()?)?;
    TICK.checked_mul(ticks)
}

/// `VmRSS` of `/proc/PID/status`, which counts in KiB.
fn resident_of(status: &str) -> Option<u64> {
    let line = status.lines().find_map(|line| line.strip_prefix("VmRSS:"))?;
    line.trim().strip_suffix(" kB")?.parse::<u64>().ok()?.checked_mul(1024)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_a_process_cost_is_read_whatever_its_name() {
        let stat = "42 (a) b (c) S 1 42 42 0 -1 4194304 100 0 0 0 250 31 7 9 20 0 12 0 1 2 3";
        assert_eq!(cpu_of(stat), Some(Duration::from_millis(2810)));
        assert_eq!(cpu_of("42 (a) S 1 2"), None);
        let status = "Name:\ta\nVmHWM:\t    9000 kB\nVmRSS:\t    4100 kB\nThreads:\t1\n";
        assert_eq!(resident_of(status), Some(4100 * 1024));
        assert_eq!(resident_of("Name:\ta\n"), None);
    }

    #[test]
    fn a_program_is_told_by_signals_and_ends_with_its_owner() {
        let folder = tempfile::tempdir().unwrap();
        let (own, log) = (folder.path().join("own"), folder.path().join("log"));
        fs::create_dir(&own).unwrap();
        let script = "trap 'echo told; exit 7' TERM; echo ready; while :; do sleep 0.01; done";
        let mut child = Child::start(&["sh", "-c", script], &[("A", "b")], Some(&own), &log).unwrap();
        // The file may not be there yet: the shell says the process id first.
        while !fs::read_to_string(&log).unwrap_or_default().contains("ready") {
            std::thread::sleep(LOOK);
        }
        assert!(child.resident().is_some_and(|bytes| bytes > 0) && child.cpu().is_some());
        child.signal(Signal::Terminate).unwrap();
        assert_eq!(child.wait(Duration::from_secs(20)).unwrap(), Some(7));
        assert!(child.last_words().ends_with("told"), "{}", child.last_words());
        assert!(!own.exists(), "its folder was left");

        let mut killed = Child::start(&["sleep", "600"], &[], None, &log).unwrap();
        killed.signal(Signal::Kill).unwrap();
        assert_eq!(killed.wait(Duration::from_secs(20)).unwrap(), Some(128 + 9));
        let dropped = Child::start(&["sleep", "600"], &[], None, &log).unwrap();
        let process = PathBuf::from(format!("/proc/{}", dropped.pid));
        assert!(process.exists());
        drop(dropped);
        assert!(!process.exists(), "the program outlived its owner");
    }
}
