//! Answers beside a recording: one file each, 16 random bytes and then the reply in JSON, named by the SHA-256 of both.
//!
//! The salt lets a public copy withhold an answer: its digest stays in the chain and nobody can guess what it hides.

use super::error::RecordError;
use super::format::{BLOB_MAX, Reply, SALT_BYTES};
use super::{is_digest, sha256_hex};
use std::collections::BTreeMap;
use std::fs;
use std::io::Read;
use std::path::{Path, PathBuf};
use std::sync::Arc;

/// Where the answers of a recording lie.
#[derive(Clone, Debug)]
pub(super) enum Blobs {
    /// In a folder.
    Folder(PathBuf),
    /// In memory: fixtures.
    Memory(Arc<BTreeMap<String, Vec<u8>>>),
}

/// A blob as it is written: salt, then JSON. Gives the bytes and their digest.
pub(super) fn seal(
    salt: &[u8; SALT_BYTES],
    reply: &Reply,
) -> Result<(Vec<u8>, String), serde_json::Error> {
    let mut bytes = Vec::with_capacity(256);
    bytes.extend_from_slice(salt);
    serde_json::to_writer(&mut bytes, reply)?;
    let digest = sha256_hex(&bytes);
    Ok((bytes, digest))
}

impl Blobs {
    /// Reads one blob and checks its digest; none when it is not there.
    pub(super) fn load(&self, digest: &str) -> Result<Option<Vec<u8>>, RecordError> {
        if !is_digest(digest) {
            return Ok(None);
        }
        match self {
            Blobs::Memory(blobs) => Ok(blobs.get(digest).cloned()),
            Blobs::Folder(folder) => {
                let path = folder.join(digest);
                let metadata = match fs::symlink_metadata(&path) {
                    Ok(metadata) => metadata,
                    Err(source) if source.kind() == std::io::ErrorKind::NotFound => {
                        return Ok(None);
                    }
                    Err(source) => return Err(RecordError::io("read", &path)(source)),
                };
                if !metadata.is_file() {
                    return Err(RecordError::Unexpected {
                        path,
                        cause: "not a plain file",
                    });
                }
                let bytes = read_limited(&path, BLOB_MAX, "the blob")?;
                if sha256_hex(&bytes) != digest {
                    return Err(RecordError::BlobDigest { path });
                }
                Ok(Some(bytes))
            }
        }
    }

    /// Names of all blobs with their sizes. Refuses whatever is not a plain file with a digest for a name.
    pub(super) fn list(&self) -> Result<BTreeMap<String, u64>, RecordError> {
        match self {
            Blobs::Memory(blobs) => Ok(blobs
                .iter()
                .map(|(digest, bytes)| (digest.clone(), bytes.len() as u64))
                .collect()),
            Blobs::Folder(folder) => {
                let mut found = BTreeMap::new();
                for entry in fs::read_dir(folder).map_err(RecordError::io("list", folder))? {
                    let entry = entry.map_err(RecordError::io("list", folder))?;
                    let path = entry.path();
                    let metadata =
                        fs::symlink_metadata(&path).map_err(RecordError::io("read", &path))?;
                    let name = entry.file_name();
                    let Some(name) = name.to_str().filter(|name| is_digest(name)) else {
                        return Err(RecordError::Unexpected {
                            path,
                            cause: "its name is no digest",
                        });
                    };
                    if !metadata.is_file() {
                        return Err(RecordError::Unexpected {
                            path,
                            cause: "not a plain file",
                        });
                    }
                    found.insert(name.to_owned(), metadata.len());
                }
                Ok(found)
            }
        }
    }
}

/// The reply inside a blob.
pub(super) fn open(blob: &[u8]) -> Result<Reply, String> {
    let json = blob
        .get(SALT_BYTES..)
        .ok_or_else(|| "shorter than its salt".to_owned())?;
    serde_json::from_slice(json).map_err(|error| error.to_string())
}

/// Reads a whole file that may not be larger than `limit` bytes, however large it claims to be.
pub(super) fn read_limited(path: &Path, limit: u64, what: &str) -> Result<Vec<u8>, RecordError> {
    let file = fs::File::open(path).map_err(RecordError::io("read", path))?;
    let mut bytes = Vec::new();
    file.take(limit + 1)
        .read_to_end(&mut bytes)
        .map_err(RecordError::io("read", path))?;
    if bytes.len() as u64 > limit {
        return Err(RecordError::TooLarge {
            path: path.to_path_buf(),
            what: what.to_owned(),
            limit,
        });
    }
    Ok(bytes)
}
