//! Apache Kafka's jars: a folder that a person names, or one in the cache of the user that Maven fills once. Limits: which
//! version is the pom's word, the same that the tests start.

use std::fs::{self, File};
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};

use super::BenchError;

/// Maven's list of jars; a change of it makes a new folder.
const POM: &str = include_str!("../../../tests/kafka/pom.xml");

/// The folder with the jars.
pub(super) fn folder(named: Option<&Path>) -> Result<PathBuf, BenchError> {
    java_17()?;
    if let Some(named) = named {
        let holds_jars = fs::read_dir(named)?
            .flatten()
            .any(|entry| entry.path().extension().is_some_and(|extension| extension == "jar"));
        return if holds_jars { Ok(named.to_owned()) } else { Err(BenchError::NoJars(named.to_owned())) };
    }
    let cache = cache()?;
    let jars = cache.join(format!("kafka-{:08x}", crc32fast::hash(POM.as_bytes())));
    // Two benches may start side by side: one fetches, the other waits for it.
    let lock = File::create(cache.join("lock"))?;
    lock.lock()?;
    if !jars.is_dir() {
        fetch(&cache, &jars)?;
    }
    Ok(jars)
}

fn fetch(cache: &Path, jars: &Path) -> Result<(), BenchError> {
    if Command::new("mvn").arg("-v").stdout(Stdio::null()).stderr(Stdio::null()).status().is_err() {
        return Err(BenchError::Missing("`mvn` (Maven), which fetches Apache Kafka, is not here".to_owned()));
    }
    let pom = cache.join("pom.xml");
    fs::write(&pom, POM)?;
    let partial = jars.with_extension("partial");
    let fetched = Command::new("mvn")
        .args(["-q", "-B", "-f"])
        .arg(&pom)
        .args(["dependency:copy-dependencies", "-DincludeScope=runtime"])
        .arg(format!("-DoutputDirectory={}", partial.display()))
        .output()?;
    if !fetched.status.success() {
        return Err(BenchError::Maven(String::from_utf8_lossy(&fetched.stdout).into_owned()));
    }
    // Renamed into place only when complete, so a fetch that was cut short is made again.
    Ok(fs::rename(&partial, jars)?)
}

/// The program's folder in the user's cache.
fn cache() -> Result<PathBuf, BenchError> {
    let set = |name: &str| std::env::var_os(name).map(PathBuf::from).filter(|path| path.is_absolute());
    let base = set("XDG_CACHE_HOME").or_else(|| Some(set("HOME")?.join(".cache")));
    let cache = base
        .ok_or_else(|| BenchError::Missing("neither `XDG_CACHE_HOME` nor `HOME` names a folder".to_owned()))?
        .join("countersign");
    fs::create_dir_all(&cache)?;
    Ok(cache)
}

fn java_17() -> Result<(), BenchError> {
    let Ok(output) = Command::new("java").arg("-version").output() else {
        return Err(BenchError::Missing(
            "`java` (17 or newer), which runs Apache Kafka, is not here".to_owned(),
        ));
    };
    let said = String::from_utf8_lossy(&output.stderr).into_owned();
    match major(&said) {
        Some(major) if major >= 17 => Ok(()),
        _ => Err(BenchError::Missing(format!(
            "`java` here is `{}`, and 17 or newer is needed",
            said.lines().next().unwrap_or_default()
        ))),
    }
}

/// The major version in what `java -version` says.
fn major(said: &str) -> Option<u32> {
    said.split('"').nth(1)?.split(['.', '-', '_', '+']).next()?.parse().ok()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_version_of_java_is_understood() {
        assert_eq!(major("openjdk version \"17.0.2\" 2022-01-18\n"), Some(17));
        assert_eq!(major("openjdk version \"21-ea\" 2023\n"), Some(21));
        assert_eq!(major("java version \"1.8.0_202\"\n"), Some(1));
        assert_eq!(major("bash: java: not found"), None);
    }
}
