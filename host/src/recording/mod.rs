//! The recorded conversation of one attempt: a header, then entries chained by hash, then an end.
//!
//! Written by [`recorder`] while the attempt runs, read back and checked by [`reader`], answered from by [`player`]: strict
//! replay (the n-th call is the n-th entry) or as a fixture for authors' tests (by request). [`fixture`] is the same
//! conversation as one plain text file, for review. The format itself is in [`mod@format`].
//!
//! A reader treats a recording as hostile: limits first, then structure, then hashes, and no name from outside ever
//! becomes a path unless it is a digest. What no hash can show is where the answers came from.

mod blobs;
mod error;
pub mod fixture;
pub mod format;
pub mod player;
pub mod reader;
pub mod recorder;

#[cfg(test)]
pub(crate) mod tests;

pub use error::RecordError;
pub use player::{Divergence, PlayError, Played, Player};
pub use reader::{ReadOptions, Recording, read, read_with};
pub use recorder::{BlobSink, Recorder};

use sha2::{Digest, Sha256};

/// SHA-256 in 64 lowercase hexadecimal digits.
pub fn sha256_hex(bytes: &[u8]) -> String {
    data_encoding::HEXLOWER.encode(&Sha256::digest(bytes))
}

/// Whether a text is what [`sha256_hex`] gives: only such names are ever looked up in a folder.
pub fn is_digest(text: &str) -> bool {
    text.len() == 64
        && text
            .bytes()
            .all(|byte| byte.is_ascii_digit() || (b'a'..=b'f').contains(&byte))
}
