//! Writes a recording while its attempt runs.
//!
//! The door calls [`Recorder::append`] for every call, refused ones included. Hashing happens there; files are written by
//! a thread of their own, so that a guest does not wait for a disk. The thread sleeps until lines are worth a write: at
//! each case boundary, when many wait, and at most [`FLUSH_AFTER`] late (waking it for every entry would cost more than
//! the entry). Therefore whatever kills the process leaves a prefix that
//! [`super::reader::read_with`] reads and recognises as unfinished. It never writes what the reader would refuse.
//!
//! Survives the death of the process, not of the machine: answers are not synced one by one.

use super::blobs::seal;
use super::error::RecordError;
use super::format::{
    BLOB_MAX, BLOBS_FOLDER, BLOBS_MAX, ENTRIES_MAX, End, EndDraft, Entry, EntryDraft, Header,
    LINE_MAX, RECORDING_FILE, RECORDING_MAX, Reply, ReplyKind, SALT_BYTES, function,
};
use super::sha256_hex;
use std::fs::{DirBuilder, File, OpenOptions};
use std::io::Write;
use std::path::{Path, PathBuf};
use std::sync::{Arc, Condvar, Mutex, MutexGuard, PoisonError};
use std::thread::JoinHandle;
use std::time::Duration;

/// Longest time that a line stays in memory only.
pub const FLUSH_AFTER: Duration = Duration::from_millis(100);
/// Entries that wake the writer before the time is up.
const BATCH: usize = 256;
/// Entries that may wait for the writer; more make the guest wait, so that memory stays bounded.
const QUEUE: usize = 4 * BATCH;
/// Salts drawn at once: one request to the system for many entries.
const SALTS: usize = 64;

/// Where answers go.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum BlobSink {
    /// Into files: every real run.
    Files,
    /// Nowhere: digests only, for measuring the door without a disk. Such a recording reads as if all answers were withheld.
    Discard,
}

/// A recording that is being written. Dropping it without [`Recorder::finish`] leaves it unfinished, and readable.
#[derive(Debug)]
pub struct Recorder {
    path: PathBuf,
    sink: BlobSink,
    entries: u64,
    previous: String,
    line_bytes: u64,
    blob_bytes: u64,
    salts: Vec<[u8; SALT_BYTES]>,
    queue: Arc<Queue>,
    writer: Option<JoinHandle<Result<(), RecordError>>>,
}

#[derive(Debug)]
struct Work {
    line: Vec<u8>,
    blob: Option<(String, Vec<u8>)>,
}

/// What waits between the attempt and the thread that writes.
#[derive(Debug, Default)]
struct Queue {
    waiting: Mutex<Waiting>,
    /// There is something for the writer.
    work: Condvar,
    /// There is room again.
    space: Condvar,
}

#[derive(Debug, Default)]
struct Waiting {
    work: Vec<Work>,
    /// Write now, not in a while.
    urgent: bool,
    /// Nothing more will come; whether the end is among what waits.
    closed: Option<Closing>,
    /// The writer is gone.
    dead: bool,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Closing {
    /// The end was written: close the stream.
    Finished,
    /// The attempt was dropped: leave the stream open.
    Abandoned,
}

impl Queue {
    fn lock(&self) -> MutexGuard<'_, Waiting> {
        // Nothing is ever half done under this lock, so a panic elsewhere leaves it usable.
        self.waiting.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// False when the writer is gone.
    fn push(&self, work: Work, urgent: bool) -> bool {
        let mut waiting = self
            .space
            .wait_while(self.lock(), |waiting| {
                waiting.work.len() >= QUEUE && !waiting.dead
            })
            .unwrap_or_else(PoisonError::into_inner);
        if waiting.dead {
            return false;
        }
        let first = waiting.work.is_empty();
        waiting.work.push(work);
        waiting.urgent |= urgent;
        if first || urgent || waiting.work.len() == BATCH {
            self.work.notify_one();
        }
        true
    }

    fn close(&self, how: Closing) {
        self.lock().closed.get_or_insert(how);
        self.work.notify_one();
    }

    /// Waits for work: until it is urgent, much, late or the last. Gives it, and how the queue was closed if it was.
    fn take(&self) -> (Vec<Work>, Option<Closing>) {
        let waiting = self
            .work
            .wait_while(self.lock(), |waiting| {
                waiting.work.is_empty() && waiting.closed.is_none()
            })
            .unwrap_or_else(PoisonError::into_inner);
        let (mut waiting, _) = self
            .work
            .wait_timeout_while(waiting, FLUSH_AFTER, |waiting| {
                !waiting.urgent && waiting.closed.is_none() && waiting.work.len() < BATCH
            })
            .unwrap_or_else(PoisonError::into_inner);
        waiting.urgent = false;
        let work = std::mem::take(&mut waiting.work);
        self.space.notify_all();
        (work, waiting.closed)
    }
}

/// Tells the attempt that the writer is gone, also when it panicked.
struct Farewell(Arc<Queue>);

impl Drop for Farewell {
    fn drop(&mut self) {
        self.0.lock().dead = true;
        self.0.space.notify_all();
    }
}

impl Recorder {
    /// Begins a recording in `folder`, which is created if it is not there. Only the owner may read it.
    ///
    /// # Errors
    /// A file is there already (an attempt is never overwritten), or the file system refuses.
    pub fn create(folder: &Path, header: &Header) -> Result<Recorder, RecordError> {
        Recorder::create_with(folder, header, BlobSink::Files)
    }

    /// As [`Recorder::create`], with a choice of what happens to answers.
    ///
    /// # Errors
    /// As [`Recorder::create`].
    pub fn create_with(
        folder: &Path,
        header: &Header,
        sink: BlobSink,
    ) -> Result<Recorder, RecordError> {
        let mut builder = DirBuilder::new();
        private_folder(&mut builder);
        match builder.create(folder) {
            Err(source) if source.kind() != std::io::ErrorKind::AlreadyExists => {
                return Err(RecordError::io("create", folder)(source));
            }
            _ => {}
        }
        let blobs = folder.join(BLOBS_FOLDER);
        builder
            .create(&blobs)
            .map_err(RecordError::io("create", &blobs))?;
        let path = folder.join(RECORDING_FILE);
        let mut options = OpenOptions::new();
        options.write(true).create_new(true);
        private_file(&mut options);
        let file = options
            .open(&path)
            .map_err(RecordError::io("create", &path))?;
        let line = to_line(&path, 1, header)?;
        let previous = sha256_hex(&line);
        let line_bytes = line.len() as u64 + 1;
        let queue = Arc::new(Queue::default());
        let writer = Writer::new(path.clone(), blobs, file)?;
        let farewell = Farewell(Arc::clone(&queue));
        let thread = std::thread::Builder::new()
            .name("karat-recorder".to_owned())
            .spawn(move || writer.run(&farewell.0))
            .map_err(RecordError::io("start the writer of", &path))?;
        let mut recorder = Recorder {
            path,
            sink,
            entries: 0,
            previous,
            line_bytes,
            blob_bytes: 0,
            salts: Vec::new(),
            queue,
            writer: Some(thread),
        };
        recorder.hand_over(Work { line, blob: None }, true)?;
        Ok(recorder)
    }

    /// The sequence number that the next entry will get; it names requests to the API server before their entry exists.
    pub fn next_sequence(&self) -> u64 {
        self.entries + 1
    }

    /// Records one call and the exact reply that the guest gets. Gives the entry's sequence number.
    ///
    /// # Errors
    /// A limit of the format is reached, or writing failed, now or for an earlier entry. The attempt must end then:
    /// what is not recorded must not be seen.
    pub fn append(&mut self, draft: EntryDraft, reply: &Reply) -> Result<u64, RecordError> {
        let sequence = self.next_sequence();
        if sequence > ENTRIES_MAX {
            return Err(self.too_large("the number of entries", ENTRIES_MAX));
        }
        let salt = self.salt()?;
        let (blob, digest) = seal(&salt, reply).map_err(|error| RecordError::Reply {
            path: self.path.clone(),
            sequence,
            cause: error.to_string(),
        })?;
        let blob_bytes = self.blob_bytes + blob.len() as u64;
        if blob.len() as u64 > BLOB_MAX {
            return Err(self.too_large("the answer", BLOB_MAX));
        }
        if blob_bytes > BLOBS_MAX {
            return Err(self.too_large("all answers together", BLOBS_MAX));
        }
        let urgent =
            draft.function == function::CASES_OPEN || draft.function == function::CASES_CONCLUDE;
        let entry = Entry {
            sequence,
            previous: self.previous.clone(),
            at_ms: draft.at_ms,
            done_ms: draft.done_ms,
            case: draft.case,
            function: draft.function,
            arguments: draft.arguments,
            access: draft.access,
            reply: digest,
            reply_bytes: (blob.len() - SALT_BYTES) as u64,
            result: ReplyKind::of(reply),
            facts: draft.facts,
            tries: draft.tries,
        };
        let line = to_line(&self.path, sequence + 1, &entry)?;
        self.grow(&line)?;
        self.previous = sha256_hex(&line);
        self.entries = sequence;
        self.blob_bytes = blob_bytes;
        let blob = (self.sink == BlobSink::Files).then_some((entry.reply, blob));
        self.hand_over(Work { line, blob }, urgent)?;
        Ok(sequence)
    }

    /// Writes the end, syncs the file and gives the head: the hash of the last line.
    ///
    /// # Errors
    /// Writing failed, now or for an earlier entry.
    pub fn finish(mut self, draft: EndDraft) -> Result<String, RecordError> {
        let end = End {
            entries: self.entries,
            previous: self.previous.clone(),
            outcome: draft.outcome,
            usage: draft.usage,
            alive: draft.alive,
            left_behind: draft.left_behind,
        };
        let line = to_line(&self.path, self.entries + 2, &end)?;
        self.grow(&line)?;
        let head = sha256_hex(&line);
        self.hand_over(Work { line, blob: None }, true)?;
        self.queue.close(Closing::Finished);
        self.join()?;
        Ok(head)
    }

    fn grow(&mut self, line: &[u8]) -> Result<(), RecordError> {
        let bytes = self.line_bytes + line.len() as u64 + 1;
        if bytes > RECORDING_MAX {
            return Err(self.too_large("the recording", RECORDING_MAX));
        }
        self.line_bytes = bytes;
        Ok(())
    }

    fn too_large(&self, what: &str, limit: u64) -> RecordError {
        RecordError::TooLarge {
            path: self.path.clone(),
            what: what.to_owned(),
            limit,
        }
    }

    fn salt(&mut self) -> Result<[u8; SALT_BYTES], RecordError> {
        if let Some(salt) = self.salts.pop() {
            return Ok(salt);
        }
        let mut random = [0u8; SALT_BYTES * SALTS];
        getrandom::fill(&mut random).map_err(|error| RecordError::Io {
            action: "draw random bytes for",
            path: self.path.clone(),
            source: std::io::Error::other(error.to_string()),
        })?;
        let (mut salts, _) = random.as_chunks::<SALT_BYTES>();
        let mut first = [0u8; SALT_BYTES];
        if let Some((head, rest)) = salts.split_first() {
            first = *head;
            salts = rest;
        }
        self.salts.extend_from_slice(salts);
        Ok(first)
    }

    fn hand_over(&mut self, work: Work, urgent: bool) -> Result<(), RecordError> {
        if self.queue.push(work, urgent) {
            return Ok(());
        }
        // The thread ends early only with an error; a second call after that error finds it taken.
        self.join()?;
        Err(RecordError::Writer {
            path: self.path.clone(),
        })
    }

    fn join(&mut self) -> Result<(), RecordError> {
        match self.writer.take().map(JoinHandle::join) {
            Some(Ok(result)) => result,
            Some(Err(_panic)) => Err(RecordError::Writer {
                path: self.path.clone(),
            }),
            None => Ok(()),
        }
    }
}

impl Drop for Recorder {
    fn drop(&mut self) {
        self.queue.close(Closing::Abandoned);
        // The prefix is on disk when this returns. An error has nobody to go to; the reader will see what is missing.
        let _ = self.join();
    }
}

fn to_line<T: serde::Serialize>(path: &Path, line: u64, value: &T) -> Result<Vec<u8>, RecordError> {
    let bytes = serde_json::to_vec(value).map_err(|error| RecordError::Line {
        path: path.to_path_buf(),
        line,
        expected: "line of a recording",
        cause: error.to_string(),
    })?;
    if bytes.len() > LINE_MAX {
        return Err(RecordError::TooLarge {
            path: path.to_path_buf(),
            what: format!("line {line}"),
            limit: LINE_MAX as u64,
        });
    }
    Ok(bytes)
}

fn private_folder(builder: &mut DirBuilder) {
    #[cfg(unix)]
    std::os::unix::fs::DirBuilderExt::mode(builder, 0o700);
    #[cfg(not(unix))]
    let _ = builder;
}

fn private_file(options: &mut OpenOptions) {
    #[cfg(unix)]
    std::os::unix::fs::OpenOptionsExt::mode(options, 0o600);
    #[cfg(not(unix))]
    let _ = options;
}

struct Writer {
    path: PathBuf,
    blobs: PathBuf,
    stream: zstd::stream::write::Encoder<'static, File>,
}

impl Writer {
    fn new(path: PathBuf, blobs: PathBuf, file: File) -> Result<Writer, RecordError> {
        let mut stream =
            zstd::stream::write::Encoder::new(file, 3).map_err(RecordError::io("write", &path))?;
        stream
            .include_checksum(true)
            .map_err(RecordError::io("write", &path))?;
        Ok(Writer {
            path,
            blobs,
            stream,
        })
    }

    fn run(mut self, queue: &Queue) -> Result<(), RecordError> {
        loop {
            let (work, closed) = queue.take();
            for work in work {
                self.write(work)?;
            }
            match closed {
                Some(Closing::Finished) => return self.close(),
                Some(Closing::Abandoned) => return self.flush(),
                None => self.flush()?,
            }
        }
    }

    /// The answer first: a line on disk never names an answer that is not there.
    fn write(&mut self, work: Work) -> Result<(), RecordError> {
        if let Some((digest, bytes)) = work.blob {
            let path = self.blobs.join(digest);
            let mut options = OpenOptions::new();
            options.write(true).create_new(true);
            private_file(&mut options);
            options
                .open(&path)
                .and_then(|mut file| file.write_all(&bytes))
                .map_err(RecordError::io("write", &path))?;
        }
        self.stream
            .write_all(&work.line)
            .and_then(|()| self.stream.write_all(b"\n"))
            .map_err(RecordError::io("write", &self.path))
    }

    fn flush(&mut self) -> Result<(), RecordError> {
        self.stream
            .flush()
            .map_err(RecordError::io("write", &self.path))
    }

    fn close(self) -> Result<(), RecordError> {
        let Writer { path, stream, .. } = self;
        stream
            .finish()
            .and_then(|file| file.sync_all())
            .map_err(RecordError::io("write", &path))
    }
}
