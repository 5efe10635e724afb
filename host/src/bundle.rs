//! A bundle: the evidence of a run in a folder that can be given away, and that shows by itself whether it was changed.
//!
//! ```text
//! <bundle>/run.json                                the run record
//! <bundle>/probes/<probe>/attempt-<n>/             one recording each, with its answers as blobs
//! <bundle>/components/<sha256>.wasm                the probes as they ran, up to 1 MiB each
//! <bundle>/statement.json                          in-toto statement: the digest of every file that is not named by its own
//! <bundle>/signatures/<key>.json                   DSSE envelopes around the statement
//! <bundle>/witness/                                what the cluster's issuer signed, see [`crate::witness`]
//! ```
//!
//! A run folder has the same inner layout, and more that must never leave it: the journal holds the run's key. [`create`]
//! copies what belongs into a bundle and nothing else. No token that still lives is ever copied.
//!
//! Answers and components are named by their digest. Recordings and `run.json` name those digests, so the statement need
//! not: [`withhold`] can leave some out of a public copy while chain, statement and signatures stay valid. Reports are
//! functions of a bundle and lie outside of it, so none of them can say what the evidence does not. [`archive`] makes one piece
//! of the folder, and the folder of the piece.
//!
//! Whether a bundle holds is decided in [`mod@crate::verify`]; here it is only written and listed.

pub mod archive;
mod list;
pub mod signature;
pub mod statement;
mod write;

#[cfg(test)]
mod tests;

pub use list::{File, Limits, Place, list};
pub(crate) use statement::of as statement_of;
pub(crate) use write::read_statement_bytes as statement_bytes;
pub use write::{Created, Withhold, create, create_at, withhold};

use crate::recording::RecordError;
use crate::runfolder::FolderError;
use std::io;
use std::path::{Path, PathBuf};

/// Name of the statement.
pub const STATEMENT_FILE: &str = "statement.json";
/// Folder of the signatures.
pub const SIGNATURES: &str = "signatures";
/// Folder of the witness.
pub const WITNESS: &str = "witness";
/// Largest component that a bundle carries, in bytes. A larger one is named by its digest only.
pub const COMPONENT_MAX: u64 = 1 << 20;

/// Why a bundle could not be written or listed.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum BundleError {
    /// The file system refused.
    #[error("cannot {action} {}: {source}", path.display())]
    Io {
        /// What was tried.
        action: &'static str,
        /// On what.
        path: PathBuf,
        /// Why.
        source: io::Error,
    },
    /// The run's record.
    #[error(transparent)]
    Folder(#[from] FolderError),
    /// One of its recordings.
    #[error("{probe} attempt {attempt}: {source}")]
    Recording {
        /// Probe id.
        probe: String,
        /// Counts from 1.
        attempt: u32,
        /// What is wrong.
        source: RecordError,
    },
    /// Something in the folder belongs into no bundle.
    #[error("{path}: {cause}")]
    Structure {
        /// Below the folder.
        path: String,
        /// What is wrong.
        cause: String,
    },
    /// The witness of the run cannot be read.
    #[error("{WITNESS}: {cause}")]
    Witness {
        /// What is wrong.
        cause: String,
    },
    /// There is something where the bundle should be written.
    #[error("{} is in the way: {cause}", path.display())]
    Occupied {
        /// The place.
        path: PathBuf,
        /// What it is.
        cause: &'static str,
    },
    /// The folder is no bundle.
    #[error("{} is no bundle: {cause}", path.display())]
    NoBundle {
        /// The folder.
        path: PathBuf,
        /// What is missing or wrong.
        cause: String,
    },
    /// A probe was named that the bundle does not have.
    #[error("run {run} has no probe {probe}")]
    NoProbe {
        /// Run id.
        run: String,
        /// What was asked for.
        probe: String,
    },
}

fn io_error(action: &'static str, path: &Path) -> impl FnOnce(io::Error) -> BundleError {
    let path = path.to_path_buf();
    move |source| BundleError::Io {
        action,
        path,
        source,
    }
}
