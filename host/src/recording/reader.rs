//! Reads a recording back and checks everything that can be checked without a cluster: limits, structure, sequence, chain,
//! and the digest of every answer. Each kind of damage has its own [`RecordError`].
//!
//! Treats the folder as hostile. It does not judge, and it does not compare calls: that is [`super::player`].

use super::blobs::{self, Blobs};
use super::error::RecordError;
use super::format::{
    BLOBS_FOLDER, BLOBS_MAX, ENTRIES_MAX, End, Entry, FORMAT, Header, LINE_MAX, RECORDING_FILE,
    RECORDING_MAX, Reply, ReplyKind, SALT_BYTES,
};
use super::sha256_hex;
use serde::de::DeserializeOwned;
use std::collections::BTreeSet;
use std::fs::{self, File};
use std::io::{BufRead, BufReader, ErrorKind, Read};
use std::path::{Path, PathBuf};

/// What a reader accepts beyond a whole recording.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct ReadOptions {
    /// The head that the run record names: the only defence against a recording that was edited and chained anew.
    pub expected_head: Option<String>,
    /// Accepts a recording without an end and gives its readable prefix: what a killed run left.
    pub unfinished: bool,
    /// Accepts that answers are not there: a public copy may withhold some.
    pub withheld: bool,
}

/// A recording that was read and checked.
#[derive(Clone, Debug)]
pub struct Recording {
    pub(super) path: PathBuf,
    pub(super) header: Header,
    pub(super) entries: Vec<Entry>,
    pub(super) end: Option<End>,
    pub(super) head: String,
    pub(super) blobs: Blobs,
    pub(super) withheld: BTreeSet<u64>,
}

impl Recording {
    /// The first line.
    pub fn header(&self) -> &Header {
        &self.header
    }

    /// The calls in order; the n-th has sequence number n.
    pub fn entries(&self) -> &[Entry] {
        &self.entries
    }

    /// The last line; none when the recording is an unfinished one.
    pub fn end(&self) -> Option<&End> {
        self.end.as_ref()
    }

    /// Hash of the last line.
    pub fn head(&self) -> &str {
        &self.head
    }

    /// Sequence numbers of the entries whose answer is not in this copy.
    pub fn withheld(&self) -> &BTreeSet<u64> {
        &self.withheld
    }

    /// The reply of an entry, exactly as the guest saw it. Reads the file anew and checks its digest again.
    ///
    /// # Errors
    /// The answer is withheld, or the folder changed since it was read.
    pub fn reply(&self, entry: &Entry) -> Result<Reply, RecordError> {
        if self.withheld.contains(&entry.sequence) {
            return Err(RecordError::Withheld {
                path: self.path.clone(),
                sequence: entry.sequence,
            });
        }
        let blob = self
            .blobs
            .load(&entry.reply)?
            .ok_or_else(|| RecordError::BlobMissing {
                path: self.path.clone(),
                sequence: entry.sequence,
                digest: entry.reply.clone(),
            })?;
        blobs::open(&blob).map_err(|cause| RecordError::Reply {
            path: self.path.clone(),
            sequence: entry.sequence,
            cause,
        })
    }
}

/// Reads a whole recording with all its answers.
///
/// # Errors
/// Anything that is damaged, missing, added or larger than the limits of [`super::format`].
pub fn read(folder: &Path) -> Result<Recording, RecordError> {
    read_with(folder, &ReadOptions::default())
}

/// Reads a recording with more or less indulgence than [`read`].
///
/// # Errors
/// As [`read`], apart from what the options accept; and another head than the expected one.
pub fn read_with(folder: &Path, options: &ReadOptions) -> Result<Recording, RecordError> {
    let path = folder.join(RECORDING_FILE);
    check_folder(folder, options.withheld)?;
    let mut lines = Lines::open(&path)?;
    let header = read_header(&mut lines)?;
    let mut entries: Vec<Entry> = Vec::new();
    let mut end: Option<End> = None;
    let mut cut = false;
    loop {
        let previous = sha256_hex(&lines.buffer);
        let found = match lines.next() {
            Ok(found) => found,
            Err(RecordError::Compression { source, .. })
                if source.kind() == ErrorKind::UnexpectedEof && end.is_none() =>
            {
                cut = true;
                false
            }
            Err(error) => return Err(error),
        };
        if !found {
            lines.head = previous;
            break;
        }
        let line = lines.number;
        if end.is_some() {
            return Err(RecordError::AfterEnd { path, line });
        }
        // Structs are written in the order of their fields, so the first key tells the two kinds apart.
        let stated = if lines.buffer.starts_with(b"{\"sequence\":") {
            let entry: Entry = lines.parse("entry")?;
            let expected = line - 1;
            if entry.sequence != expected {
                return Err(RecordError::Sequence {
                    path,
                    line,
                    expected,
                    found: entry.sequence,
                });
            }
            if expected > ENTRIES_MAX {
                return Err(RecordError::TooLarge {
                    path,
                    what: "the number of entries".to_owned(),
                    limit: ENTRIES_MAX,
                });
            }
            let stated = entry.previous.clone();
            entries.push(entry);
            stated
        } else {
            let last: End = lines.parse("end")?;
            let stated = last.previous.clone();
            end = Some(last);
            stated
        };
        if stated != previous {
            return Err(RecordError::Chain { path, line });
        }
    }
    if !cut {
        lines.nothing_follows()?;
    }
    let count = entries.len() as u64;
    match &end {
        Some(end) if end.entries != count => {
            return Err(RecordError::Count {
                path,
                counted: end.entries,
                found: count,
            });
        }
        None if !options.unfinished => {
            return Err(RecordError::Unfinished {
                path,
                entries: count,
            });
        }
        _ => {}
    }
    if let Some(expected) = &options.expected_head
        && *expected != lines.head
    {
        return Err(RecordError::Head {
            path,
            expected: expected.clone(),
            found: lines.head,
        });
    }
    let mut recording = Recording {
        path,
        header,
        entries,
        end,
        head: lines.head,
        blobs: Blobs::Folder(folder.join(BLOBS_FOLDER)),
        withheld: BTreeSet::new(),
    };
    check_blobs(&mut recording, options)?;
    Ok(recording)
}

/// An attempt's folder holds the recording and the blobs, and nothing else; neither is a symlink.
fn check_folder(folder: &Path, withheld: bool) -> Result<(), RecordError> {
    for (name, is_folder) in [(RECORDING_FILE, false), (BLOBS_FOLDER, true)] {
        let path = folder.join(name);
        let metadata = match fs::symlink_metadata(&path) {
            Ok(metadata) => metadata,
            // A copy that withholds every answer may have lost the empty folder on its way.
            Err(source) if source.kind() == ErrorKind::NotFound && is_folder && withheld => {
                continue;
            }
            Err(source) => return Err(RecordError::io("read", &path)(source)),
        };
        if is_folder != metadata.is_dir() || is_folder == metadata.is_file() {
            return Err(RecordError::Unexpected {
                path,
                cause: if is_folder {
                    "not a folder"
                } else {
                    "not a plain file"
                },
            });
        }
    }
    for entry in fs::read_dir(folder).map_err(RecordError::io("list", folder))? {
        let entry = entry.map_err(RecordError::io("list", folder))?;
        if entry.file_name() != RECORDING_FILE && entry.file_name() != BLOBS_FOLDER {
            return Err(RecordError::Unexpected {
                path: entry.path(),
                cause: "no part of a recording",
            });
        }
    }
    Ok(())
}

fn read_header(lines: &mut Lines) -> Result<Header, RecordError> {
    #[derive(serde::Deserialize)]
    struct Peek {
        format: String,
        #[serde(default)]
        engine: String,
    }
    if !lines.next()? {
        return Err(RecordError::Unfinished {
            path: lines.path.clone(),
            entries: 0,
        });
    }
    // The format first: another version may well have other fields.
    let peek: Peek = lines.parse("header")?;
    if !reads(&peek.format) {
        return Err(RecordError::Format {
            path: lines.path.clone(),
            found: peek.format.chars().take(40).collect(),
            known: FORMAT,
            written_by: if peek.engine.is_empty() {
                "of the release that wrote it".to_owned()
            } else {
                peek.engine.chars().take(40).collect()
            },
        });
    }
    lines.parse("header")
}

/// Whether this engine reads a format: the same major version, and no newer minor one.
pub(super) fn reads(format: &str) -> bool {
    fn split(format: &str) -> Option<(u32, u32)> {
        let (major, minor) = format.split_once('.')?;
        Some((major.parse().ok()?, minor.parse().ok()?))
    }
    match (split(format), split(FORMAT)) {
        (Some((major, minor)), Some((ours, newest))) => major == ours && minor <= newest,
        _ => false,
    }
}

fn check_blobs(recording: &mut Recording, options: &ReadOptions) -> Result<(), RecordError> {
    let folder = match &recording.blobs {
        Blobs::Folder(folder) => folder.clone(),
        Blobs::Memory(_) => recording.path.clone(),
    };
    let mut unnamed = if folder.exists() {
        recording.blobs.list()?
    } else {
        Default::default()
    };
    let total: u64 = unnamed.values().sum();
    if total > BLOBS_MAX {
        return Err(RecordError::TooLarge {
            path: folder,
            what: "all answers together".to_owned(),
            limit: BLOBS_MAX,
        });
    }
    let mut named = BTreeSet::new();
    for entry in &recording.entries {
        let sequence = entry.sequence;
        if !named.insert(entry.reply.as_str()) {
            return Err(RecordError::BlobShared {
                path: recording.path.clone(),
                sequence,
            });
        }
        unnamed.remove(&entry.reply);
        let Some(blob) = recording.blobs.load(&entry.reply)? else {
            if options.withheld {
                recording.withheld.insert(sequence);
                continue;
            }
            return Err(RecordError::BlobMissing {
                path: folder,
                sequence,
                digest: entry.reply.clone(),
            });
        };
        let reply = blobs::open(&blob).map_err(|cause| RecordError::Reply {
            path: recording.path.clone(),
            sequence,
            cause,
        })?;
        if let Some(field) = contradiction(entry, &reply, blob.len()) {
            return Err(RecordError::Contradiction {
                path: recording.path.clone(),
                sequence,
                field,
            });
        }
    }
    // A killed run may have written an answer whose line never reached the file.
    if !options.unfinished
        && let Some(name) = unnamed.keys().next()
    {
        return Err(RecordError::BlobUnreferenced {
            path: folder.join(name),
        });
    }
    Ok(())
}

/// The field in which an entry says something else than its answer. The judge reads entries, the guest reads answers: they
/// must not drift apart.
fn contradiction(entry: &Entry, reply: &Reply, blob_bytes: usize) -> Option<&'static str> {
    if entry.result != ReplyKind::of(reply) {
        return Some("result");
    }
    if entry.reply_bytes != blob_bytes.saturating_sub(SALT_BYTES) as u64 {
        return Some("reply_bytes");
    }
    match (entry.facts.code, reply) {
        (Some(stated), Err(super::format::Failure::Answered { code, .. })) if stated != *code => {
            Some("facts.code")
        }
        _ => None,
    }
}

/// The lines of a compressed file, read with every limit in force.
struct Lines {
    path: PathBuf,
    /// The present line, without its newline.
    buffer: Vec<u8>,
    /// Number of the present line, from 1.
    number: u64,
    head: String,
    bytes: u64,
    stream: BufReader<zstd::stream::read::Decoder<'static, BufReader<File>>>,
}

impl Lines {
    fn open(path: &Path) -> Result<Lines, RecordError> {
        let file = File::open(path).map_err(RecordError::io("read", path))?;
        let mut decoder =
            zstd::stream::read::Decoder::new(file).map_err(RecordError::io("read", path))?;
        // 8 MiB, more than our writer ever asks for: a hostile frame could ask for gigabytes.
        decoder
            .window_log_max(23)
            .map_err(RecordError::io("read", path))?;
        Ok(Lines {
            path: path.to_path_buf(),
            buffer: Vec::new(),
            number: 0,
            head: String::new(),
            bytes: 0,
            stream: BufReader::with_capacity(1 << 16, decoder.single_frame()),
        })
    }

    /// Goes to the next line; false at the end of the stream. A line without newline is no line.
    fn next(&mut self) -> Result<bool, RecordError> {
        let mut line = Vec::new();
        let result = (&mut self.stream)
            .take(LINE_MAX as u64 + 1)
            .read_until(b'\n', &mut line);
        if let Err(source) = result {
            return Err(RecordError::Compression {
                path: self.path.clone(),
                line: self.number,
                source,
            });
        }
        self.bytes += line.len() as u64;
        if self.bytes > RECORDING_MAX {
            return Err(RecordError::TooLarge {
                path: self.path.clone(),
                what: "the recording".to_owned(),
                limit: RECORDING_MAX,
            });
        }
        if line.is_empty() {
            return Ok(false);
        }
        if line.pop() != Some(b'\n') {
            return if line.len() >= LINE_MAX {
                Err(RecordError::TooLarge {
                    path: self.path.clone(),
                    what: format!("line {}", self.number + 1),
                    limit: LINE_MAX as u64,
                })
            } else {
                Err(RecordError::Line {
                    path: self.path.clone(),
                    line: self.number + 1,
                    expected: "line",
                    cause: "it ends without a newline".to_owned(),
                })
            };
        }
        self.number += 1;
        self.buffer = line;
        Ok(true)
    }

    fn parse<T: DeserializeOwned>(&self, expected: &'static str) -> Result<T, RecordError> {
        serde_json::from_slice(&self.buffer).map_err(|error| RecordError::Line {
            path: self.path.clone(),
            line: self.number,
            expected,
            cause: error.to_string(),
        })
    }

    /// Bytes behind the one frame would be part of no hash.
    fn nothing_follows(&mut self) -> Result<(), RecordError> {
        let rest = self.stream.get_mut().get_mut();
        match rest.fill_buf() {
            Ok([]) => Ok(()),
            Ok(_) => Err(RecordError::Trailing {
                path: self.path.clone(),
            }),
            Err(source) => Err(RecordError::io("read", &self.path)(source)),
        }
    }
}
