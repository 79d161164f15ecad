//! Apache Kafka's jars, fetched once with Maven for all test binaries, and the Java that runs them. Limits: what this machine
//! lacks is said, not installed.

use std::env;
use std::fs::{self, File};
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};

use super::Unavailable;

/// Maven's list of jars; a change of it makes a new jar folder.
const POM: &str = concat!(env!("CARGO_MANIFEST_DIR"), "/tests/kafka/pom.xml");

/// The folder with Kafka's jars, fetched once for a pom and shared by all test binaries.
pub(super) fn jars() -> Result<PathBuf, Unavailable> {
    java_17()?;
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
pub(super) fn work_dir() -> Result<PathBuf, Unavailable> {
    let dir = Path::new(env!("CARGO_TARGET_TMPDIR")).join("kafka");
    fs::create_dir_all(&dir)
        .map_err(|error| Unavailable::Failed(format!("cannot make {}: {error}", dir.display())))?;
    Ok(dir)
}

/// The name of this test binary, without the hash that cargo adds.
pub(super) fn binary_name() -> String {
    let path = env::current_exe().unwrap_or_default();
    let name = path.file_stem().unwrap_or_default().to_string_lossy();
    name.split('-').next().unwrap_or_default().to_owned()
}
