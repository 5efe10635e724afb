//! What can be wrong with a recording. Every variant names its place, because "the evidence is broken" helps nobody.

use std::io;
use std::path::PathBuf;

/// A recording could not be written, or is not what it claims to be.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum RecordError {
    /// The file system refused.
    #[error("cannot {action} {}", path.display())]
    Io {
        /// `create`, `write`, `read`, `list`.
        action: &'static str,
        /// What.
        path: PathBuf,
        /// Why.
        #[source]
        source: io::Error,
    },
    /// Something is larger than any recording of ours can be.
    #[error("{}: {what} is larger than {limit}; refused before reading it", path.display())]
    TooLarge {
        /// The file.
        path: PathBuf,
        /// `line 7`, `the recording`, `blob …`.
        what: String,
        /// Limit in bytes or entries.
        limit: u64,
    },
    /// A symlink, a device, a folder where a file belongs, or a name that is none of ours.
    #[error("{}: {cause}; a recording consists of recording.jsonl.zst and blobs named by their digest", path.display())]
    Unexpected {
        /// The file.
        path: PathBuf,
        /// What is odd about it.
        cause: &'static str,
    },
    /// The compressed stream is damaged.
    #[error("{}: not a whole zstd stream after line {line}", path.display())]
    Compression {
        /// The file.
        path: PathBuf,
        /// Last line that could be read.
        line: u64,
        /// Why.
        #[source]
        source: io::Error,
    },
    /// Bytes follow the end of the compressed stream.
    #[error("{}: bytes follow the end of the stream", path.display())]
    Trailing {
        /// The file.
        path: PathBuf,
    },
    /// A format that this engine does not read.
    #[error("{}: recording format {found}, this engine reads {known}; use karat {written_by}, which wrote it, or a newer one", path.display())]
    Format {
        /// The file.
        path: PathBuf,
        /// Format of the header.
        found: String,
        /// [`super::format::FORMAT`].
        known: &'static str,
        /// Engine version of the header, or `of the release that wrote it`.
        written_by: String,
    },
    /// A line is not what belongs there.
    #[error("{}: line {line} is no {expected}: {cause}", path.display())]
    Line {
        /// The file.
        path: PathBuf,
        /// Counts from 1.
        line: u64,
        /// `header`, `entry`, `end`.
        expected: &'static str,
        /// Message of the parser.
        cause: String,
    },
    /// An entry is missing, or out of order.
    #[error("{}: line {line} has sequence number {found} where {expected} belongs: an entry was cut, added or moved", path.display())]
    Sequence {
        /// The file.
        path: PathBuf,
        /// Counts from 1.
        line: u64,
        /// The number that belongs there.
        expected: u64,
        /// The number that stands there.
        found: u64,
    },
    /// A line does not follow the line before it.
    #[error("{}: line {line} does not follow line {}: one of them was changed after it was written", path.display(), line - 1)]
    Chain {
        /// The file.
        path: PathBuf,
        /// Counts from 1.
        line: u64,
    },
    /// Lines follow the end.
    #[error("{}: line {line} stands behind the end", path.display())]
    AfterEnd {
        /// The file.
        path: PathBuf,
        /// Counts from 1.
        line: u64,
    },
    /// The end counts other entries than there are.
    #[error("{}: the end counts {counted} entries, there are {found}", path.display())]
    Count {
        /// The file.
        path: PathBuf,
        /// What the end says.
        counted: u64,
        /// What was read.
        found: u64,
    },
    /// There is no end: the attempt was killed, or the tail was cut.
    #[error("{}: the recording stops after entry {entries} without an end: the attempt was killed, or its tail was cut", path.display())]
    Unfinished {
        /// The file.
        path: PathBuf,
        /// Whole entries.
        entries: u64,
    },
    /// Everything fits together, but it is not the recording that the run record names.
    #[error("{}: its last hash is {found}, the run record says {expected}: it was edited and chained anew, or belongs to another attempt", path.display())]
    Head {
        /// The file.
        path: PathBuf,
        /// Head of the run record.
        expected: String,
        /// Head of the file.
        found: String,
    },
    /// An answer is not there.
    #[error("{}: the answer of entry {sequence} is not there (blob {digest})", path.display())]
    BlobMissing {
        /// The folder of blobs.
        path: PathBuf,
        /// The entry.
        sequence: u64,
        /// The digest it names.
        digest: String,
    },
    /// An answer is not the one that was recorded.
    #[error("{}: its content has another digest: it was changed after it was written", path.display())]
    BlobDigest {
        /// The blob.
        path: PathBuf,
    },
    /// A blob that no entry names.
    #[error("{}: no entry names this blob: it was added", path.display())]
    BlobUnreferenced {
        /// The blob.
        path: PathBuf,
    },
    /// Two entries name one blob, which salting makes impossible.
    #[error("{}: entry {sequence} names the blob of another entry", path.display())]
    BlobShared {
        /// The recording.
        path: PathBuf,
        /// The second entry.
        sequence: u64,
    },
    /// A blob holds no reply.
    #[error("{}: the answer of entry {sequence} is unreadable: {cause}", path.display())]
    Reply {
        /// The recording.
        path: PathBuf,
        /// The entry.
        sequence: u64,
        /// Message of the parser.
        cause: String,
    },
    /// An entry says something else about its answer than the answer does.
    #[error("{}: entry {sequence} contradicts its answer in `{field}`", path.display())]
    Contradiction {
        /// The recording.
        path: PathBuf,
        /// The entry.
        sequence: u64,
        /// `result`, `reply_bytes` or `facts.code`.
        field: &'static str,
    },
    /// An answer was withheld from this copy.
    #[error("{}: the answer of entry {sequence} is withheld in this copy", path.display())]
    Withheld {
        /// The recording.
        path: PathBuf,
        /// The entry.
        sequence: u64,
    },
    /// A fixture says something that a recording cannot hold.
    #[error("fixture, line {line}: {cause}")]
    Fixture {
        /// Counts from 1.
        line: u64,
        /// What is wrong.
        cause: String,
    },
    /// The thread that writes is gone although nothing failed: a bug.
    #[error("{}: the writer stopped", path.display())]
    Writer {
        /// The recording.
        path: PathBuf,
    },
}

impl RecordError {
    /// For `map_err`: adds what was done to which path.
    pub(super) fn io(
        action: &'static str,
        path: &std::path::Path,
    ) -> impl FnOnce(io::Error) -> Self {
        let path = path.to_path_buf();
        move |source| RecordError::Io {
            action,
            path,
            source,
        }
    }
}
