//! Every file of a bundle with its place in the layout, within limits, before anything is opened.

use super::{BundleError, SIGNATURES, STATEMENT_FILE, WITNESS, io_error};
use crate::recording::format::{BLOBS_FOLDER, RECORDING_FILE};
use crate::recording::is_digest;
use crate::runfolder::{self, RUN_FILE};
use crate::witness::{ACCOUNT_FILE, TOKENS_FILE};
use std::fs;
use std::path::Path;

/// Most that a bundle may hold.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Limits {
    /// Files and folders.
    pub entries: usize,
    /// Bytes of all files, as they lie on disk.
    pub bytes: u64,
}

impl Default for Limits {
    fn default() -> Self {
        Limits {
            entries: 100_000,
            bytes: 2 << 30,
        }
    }
}

/// Deepest path: `probes/<probe>/attempt-<n>/blobs/<digest>`.
const DEPTH_MAX: usize = 5;
/// Longest name of one file in bytes.
const NAME_MAX: usize = 200;

/// What a file is.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Place {
    /// `run.json`.
    Record,
    /// `statement.json`.
    Statement,
    /// A DSSE envelope.
    Signature,
    /// A part of the witness.
    Witness,
    /// A recording; the path of its attempt, as `run.json` names it.
    Recording(String),
    /// An answer: the path of its attempt, and its digest.
    Blob(String, String),
    /// A component: its digest, without `sha256:`.
    Component(String),
    /// Something that has no place.
    Other,
}

/// One file.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct File {
    /// Below the bundle, with `/`.
    pub path: String,
    /// Bytes.
    pub size: u64,
    /// What it is.
    pub place: Place,
}

/// Lists all files by path. Nothing is opened and no link is followed.
///
/// # Errors
/// More than the limits, a link, a pipe or a device, a name that is no text, or the file system refuses.
pub fn list(folder: &Path, limits: &Limits) -> Result<Vec<File>, BundleError> {
    let mut files = Vec::new();
    let mut seen = 0;
    let mut bytes = 0u64;
    let mut open = vec![(folder.to_path_buf(), String::new(), 1)];
    while let Some((path, prefix, depth)) = open.pop() {
        for entry in fs::read_dir(&path).map_err(io_error("list", &path))? {
            let entry = entry.map_err(io_error("list", &path))?;
            seen += 1;
            if seen > limits.entries {
                return Err(structure(
                    &prefix,
                    format!("more than {} files and folders", limits.entries),
                ));
            }
            let name = entry.file_name();
            let shown = format!("{prefix}{}", name.to_string_lossy());
            let Some(name) = name.to_str().filter(|name| name.len() <= NAME_MAX) else {
                return Err(structure(&shown, "its name is no short text in UTF-8"));
            };
            let relative = format!("{prefix}{name}");
            let metadata =
                fs::symlink_metadata(entry.path()).map_err(io_error("read", &entry.path()))?;
            if metadata.is_dir() {
                if depth == DEPTH_MAX {
                    return Err(structure(&relative, "folders nest too deeply"));
                }
                open.push((entry.path(), format!("{relative}/"), depth + 1));
            } else if metadata.is_file() {
                bytes = bytes.saturating_add(metadata.len());
                if bytes > limits.bytes {
                    return Err(structure(
                        &relative,
                        format!("more than {} bytes in all", limits.bytes),
                    ));
                }
                files.push(File {
                    place: place(&relative),
                    path: relative,
                    size: metadata.len(),
                });
            } else if metadata.is_symlink() {
                return Err(structure(&relative, "a link; a bundle holds plain files"));
            } else {
                return Err(structure(
                    &relative,
                    "a pipe, a socket or a device; a bundle holds plain files",
                ));
            }
        }
    }
    files.sort_by(|a, b| a.path.cmp(&b.path));
    Ok(files)
}

pub(super) fn structure(path: &str, cause: impl Into<String>) -> BundleError {
    BundleError::Structure {
        path: path.chars().take(300).collect(),
        cause: cause.into(),
    }
}

pub(super) fn place(path: &str) -> Place {
    let parts: Vec<&str> = path.split('/').collect();
    match parts.as_slice() {
        [RUN_FILE] => Place::Record,
        [STATEMENT_FILE] => Place::Statement,
        [SIGNATURES, name] if name.ends_with(".json") => Place::Signature,
        [WITNESS, TOKENS_FILE | ACCOUNT_FILE] => Place::Witness,
        ["components", name] => name
            .strip_suffix(".wasm")
            .filter(|hex| is_digest(hex))
            .map_or(Place::Other, |hex| Place::Component(hex.to_owned())),
        [.., RECORDING_FILE] => {
            attempt(&parts[..parts.len() - 1]).map_or(Place::Other, Place::Recording)
        }
        [.., BLOBS_FOLDER, digest] if is_digest(digest) => attempt(&parts[..parts.len() - 2])
            .map_or(Place::Other, |attempt| {
                Place::Blob(attempt, (*digest).to_owned())
            }),
        _ => Place::Other,
    }
}

/// The path of an attempt, if `run.json` could name it.
fn attempt(parts: &[&str]) -> Option<String> {
    let path = parts.join("/");
    runfolder::recording(Path::new(""), &path).ok()?;
    Some(path)
}
