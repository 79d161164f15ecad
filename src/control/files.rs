//! Files that are watched, read whole: their text, and one digest that tells whether anything changed. Limits: each
//! file is bounded in size, hidden ones are left out, and what they mean is for the loaders.

use std::fs::{self, File};
use std::io::Read as _;
use std::path::{Path, PathBuf};

use crate::authorize::ids::Digest;
use crate::authorize::jose::sha256;
use crate::config::{Problem, Problems};

/// Depth of a policy folder. A link back to a folder above would be walked for ever.
const MAX_DEPTH: usize = 16;
/// Files of a policy folder. A wrong path, such as `/`, must be an error and not an hour of reading.
const MAX_FILES: usize = 100_000;

/// A file as it was read.
#[derive(Debug, Clone)]
pub(super) struct ReadFile {
    pub(super) path: PathBuf,
    pub(super) text: String,
}

/// Reads a file of at most `limit` bytes of UTF-8.
pub(super) fn read(path: &Path, limit: usize) -> Result<ReadFile, Problem> {
    let refuse = |what: String| Problem::error(what).within(path.display().to_string());
    let mut bytes = Vec::new();
    let read = File::open(path).and_then(|file| file.take(limit as u64 + 1).read_to_end(&mut bytes));
    read.map_err(|error| {
        refuse(format!("the file cannot be read: {error}"))
            .help("paths are relative to the configuration file")
    })?;
    if bytes.len() > limit {
        return Err(refuse(format!("the file is larger than {limit} bytes")));
    }
    let text = String::from_utf8(bytes).map_err(|_| refuse("the file is not UTF-8".to_owned()))?;
    Ok(ReadFile { path: path.to_owned(), text })
}

/// Every file below a folder in the order of their paths, links followed, hidden names left out: an orchestrator's
/// mounted folder keeps its versions under names that begin with a dot.
pub(super) fn list(folder: &Path) -> Result<Vec<PathBuf>, Problems> {
    let mut files = Vec::new();
    let mut problems = Problems::default();
    walk(folder, 0, &mut files, &mut problems);
    files.sort();
    problems.into_result().map(|()| files)
}

fn walk(folder: &Path, depth: usize, files: &mut Vec<PathBuf>, problems: &mut Problems) {
    let mut refuse = |what: String| problems.push(Problem::error(what).within(folder.display().to_string()));
    if depth > MAX_DEPTH {
        return refuse(format!("folders are nested deeper than {MAX_DEPTH}"));
    }
    let entries = match fs::read_dir(folder).and_then(Iterator::collect::<Result<Vec<_>, _>>) {
        Ok(entries) => entries,
        Err(error) => return refuse(format!("the folder cannot be read: {error}")),
    };
    for entry in entries {
        if entry.file_name().as_encoded_bytes().starts_with(b".") {
            continue;
        }
        let path = entry.path();
        if path.is_dir() {
            walk(&path, depth + 1, files, problems);
        } else if files.len() < MAX_FILES {
            files.push(path);
        } else {
            return problems.push(
                Problem::error(format!("the folder has more than {MAX_FILES} files"))
                    .within(folder.display().to_string()),
            );
        }
    }
}

/// The digest of files, names included, in their order.
pub(super) fn digest<'f>(files: impl IntoIterator<Item = &'f ReadFile>) -> Digest {
    let parts: Vec<Digest> = files
        .into_iter()
        .flat_map(|file| {
            [sha256(&[file.path.as_os_str().as_encoded_bytes()]), sha256(&[file.text.as_bytes()])]
        })
        .collect();
    let parts: Vec<&[u8]> = parts.iter().map(|part| &part.0[..]).collect();
    sha256(&parts)
}
