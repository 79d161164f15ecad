//! The documentation's first route in a folder of its own, with a development trust domain, and the program run in it.

use std::fs;
use std::path::{Path, PathBuf};
use std::process::Command;

/// The folder; it goes with the value.
pub struct FirstRoute {
    folder: tempfile::TempDir,
}

/// How a run of the program ended.
pub struct Ran {
    pub code: i32,
    pub stdout: String,
    pub stderr: String,
}

impl FirstRoute {
    /// Copies the example and makes its keys, as the documentation says.
    pub fn new() -> Self {
        let route = Self { folder: tempfile::tempdir().unwrap() };
        copy(&Path::new(env!("CARGO_MANIFEST_DIR")).join("examples/first-route"), route.folder.path());
        let made = route.run(&["keys", "trust-domain", ".", "--domain", "example.org"]);
        assert_eq!(made.code, 0, "{}", made.stderr);
        route
    }

    /// A file of the folder.
    pub fn path(&self, name: &str) -> PathBuf {
        self.folder.path().join(name)
    }

    /// Replaces text that must be there.
    pub fn edit(&self, name: &str, from: &str, to: &str) {
        let text = fs::read_to_string(self.path(name)).unwrap();
        assert!(text.contains(from), "no `{from}` in {name}");
        fs::write(self.path(name), text.replace(from, to)).unwrap();
    }

    /// Runs the program in the folder, without settings of the surroundings.
    pub fn run(&self, arguments: &[&str]) -> Ran {
        let mut command = Command::new(env!("CARGO_BIN_EXE_countersign"));
        command.args(arguments).current_dir(self.folder.path());
        for (name, _) in std::env::vars_os() {
            if name.to_string_lossy().starts_with("COUNTERSIGN_") {
                command.env_remove(name);
            }
        }
        let output = command.output().unwrap();
        Ran {
            code: output.status.code().unwrap_or(-1),
            stdout: String::from_utf8(output.stdout).unwrap(),
            stderr: String::from_utf8(output.stderr).unwrap(),
        }
    }
}

fn copy(from: &Path, to: &Path) {
    fs::create_dir_all(to).unwrap();
    for entry in fs::read_dir(from).unwrap() {
        let entry = entry.unwrap();
        let name = entry.file_name();
        // Keys of somebody who tried the example in place are not part of it.
        if name == "keys" || name == "trust" {
            continue;
        }
        if entry.file_type().unwrap().is_dir() {
            copy(&entry.path(), &to.join(name));
        } else {
            fs::copy(entry.path(), to.join(name)).unwrap();
        }
    }
}
