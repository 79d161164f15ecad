//! Small files that commands read: keys, tokens, JSON; `-` is standard input. Limits: each at most 1 MiB, so that a
//! wrong path is an error and not a full memory.

use std::fs::File;
use std::io::{self, Read};
use std::path::{Path, PathBuf};

use serde_json::Value;
use zeroize::Zeroizing;

use crate::authorize::jose::{KeyError, PublicKey, SigningKey};
use crate::authorize::json::{self, JsonError};

const MAX_FILE_BYTES: u64 = 1 << 20;

/// Why a file could not be used.
#[derive(Debug, thiserror::Error, miette::Diagnostic)]
pub enum FileError {
    /// It could not be read.
    #[error("cannot read `{}`: {cause}", path.display())]
    Read {
        /// The file.
        path: PathBuf,
        /// What the system says.
        cause: io::Error,
    },
    /// It could not be written.
    #[error("cannot write `{}`: {cause}", path.display())]
    Write {
        /// The file.
        path: PathBuf,
        /// What the system says.
        cause: io::Error,
    },
    /// It is there already.
    #[error("`{}` is there already", path.display())]
    #[diagnostic(help(
        "nothing is overwritten: a lost private key cannot be had back; choose another place"
    ))]
    Exists {
        /// The file.
        path: PathBuf,
    },
    /// It is larger than any such file is.
    #[error("`{}` is larger than 1 MiB", .0.display())]
    TooLarge(PathBuf),
    /// It is not text.
    #[error("`{}` is not UTF-8", .0.display())]
    Encoding(PathBuf),
    /// It is not the JSON that is needed.
    #[error("`{}` {problem}", path.display())]
    Json {
        /// The file.
        path: PathBuf,
        /// The rule that it breaks.
        problem: JsonError,
    },
    /// It holds no usable key.
    #[error("the key in `{}` {problem}", path.display())]
    Key {
        /// The file.
        path: PathBuf,
        /// What is wrong with it.
        problem: KeyError,
    },
}

impl FileError {
    /// A failed write; one to a file that is there already has its own words.
    pub fn write(path: &Path, cause: io::Error) -> Self {
        let path = path.to_owned();
        match cause.kind() {
            io::ErrorKind::AlreadyExists => Self::Exists { path },
            _ => Self::Write { path, cause },
        }
    }
}

/// The whole text of a file, wiped when dropped, since it may be a key or a token.
///
/// # Errors
/// It cannot be read, is larger than 1 MiB, or is not UTF-8.
pub fn text(path: &Path) -> Result<Zeroizing<String>, FileError> {
    let fail = |cause| FileError::Read { path: path.to_owned(), cause };
    let reader: Box<dyn Read> = if path.as_os_str() == "-" {
        Box::new(io::stdin())
    } else {
        Box::new(File::open(path).map_err(fail)?)
    };
    let mut bytes = Zeroizing::new(Vec::new());
    reader.take(MAX_FILE_BYTES + 1).read_to_end(&mut bytes).map_err(fail)?;
    if bytes.len() as u64 > MAX_FILE_BYTES {
        return Err(FileError::TooLarge(path.to_owned()));
    }
    let text = std::str::from_utf8(&bytes).map_err(|_| FileError::Encoding(path.to_owned()))?;
    Ok(Zeroizing::new(text.to_owned()))
}

/// A token, without the white space around it.
///
/// # Errors
/// As [`text`].
pub fn token(path: &Path) -> Result<Zeroizing<String>, FileError> {
    Ok(Zeroizing::new(text(path)?.trim().to_owned()))
}

/// A private key, a JWK.
///
/// # Errors
/// As [`text`], and what is wrong with the key.
pub fn private_key(path: &Path) -> Result<SigningKey, FileError> {
    SigningKey::from_jwk(&text(path)?).map_err(|problem| FileError::Key { path: path.to_owned(), problem })
}

/// The public half of a private key, or a public key as it is.
///
/// # Errors
/// As [`text`], and what is wrong with the key.
pub fn public_key(path: &Path) -> Result<Value, FileError> {
    let text = text(path)?;
    let jwk = json::parse_object(text.as_bytes())
        .map_err(|problem| FileError::Json { path: path.to_owned(), problem })?;
    let fail = |problem| FileError::Key { path: path.to_owned(), problem };
    if jwk.contains_key("d") {
        return Ok(SigningKey::from_jwk(&text).map_err(fail)?.public_jwk());
    }
    PublicKey::from_jwk(&jwk).map_err(fail)?;
    Ok(Value::Object(jwk))
}
