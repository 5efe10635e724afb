//! The output folder of a run: its layout, its lock, `run.json`, and the two hashes that hold it together.
//!
//! ```text
//! <folder>/run.json                                the run record, replaced as a whole
//! <folder>/journal.jsonl                           what the run created; holds the run key
//! <folder>/lock                                    held while somebody writes
//! <folder>/probes/<probe>/attempt-<n>/             one recording each, never overwritten
//! <folder>/components/<sha256>.wasm                the probes as they ran
//! <folder>/witness/                                tokens of the cluster's issuer, live ones at first; see `witness`
//! ```
//!
//! Only the owner may enter it, because of the journal and the tokens. Nothing that stands in `run.json` is used as a path before
//! [`recording`] has looked at it: the file may come from a stranger. Recordings themselves are read and checked
//! in [`mod@crate::recording`].

mod head;
#[cfg(test)]
mod tests;

pub use head::{RunHead, head_of, heads_of};

use crate::model::RunRecord;
use crate::recording::sha256_hex;
use sha2::{Digest, Sha256};
use std::fs::{self, DirBuilder, File, OpenOptions, TryLockError};
use std::io::{self, Read, Write};
use std::path::{Path, PathBuf};

/// Format of `run.json`, `major.minor`. A reader refuses another major version and a newer minor one.
pub const RUN_FORMAT: &str = "1.0";
/// Name of the run record.
pub const RUN_FILE: &str = "run.json";
/// Name of the journal.
pub const JOURNAL_FILE: &str = "journal.jsonl";
/// Characters of a run id.
pub const RUN_ID_LENGTH: usize = 8;
const LOCK_FILE: &str = "lock";
const PROBES: &str = "probes";
const COMPONENTS: &str = "components";
/// Largest `run.json` that is read: thousands of attempts fit.
const RUN_FILE_MAX: u64 = 64 << 20;
/// Most attempts of one probe; numbers above are nobody's.
const ATTEMPTS_MAX: u32 = 100_000;

/// Something is wrong with a run folder.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum FolderError {
    /// The file system refused.
    #[error("cannot {action} {}", path.display())]
    Io {
        /// What was tried.
        action: &'static str,
        /// On what.
        path: PathBuf,
        /// Why.
        #[source]
        source: io::Error,
    },
    /// A run shall begin where something is already.
    #[error("{} holds {what}; name a new folder, or continue the run that is there with --resume or --rerun", path.display())]
    Occupied {
        /// The folder.
        path: PathBuf,
        /// `a run`, or the name of some file.
        what: String,
    },
    /// A run shall go on where there is none.
    #[error("{} holds no run: there is no run.json in it", path.display())]
    NoRun {
        /// The folder.
        path: PathBuf,
    },
    /// Somebody else writes there.
    #[error("{} is in use by process {holder}; wait for it, or end it", path.display())]
    Locked {
        /// The folder.
        path: PathBuf,
        /// Process id, or `unknown`.
        holder: String,
    },
    /// `run.json` is no run record.
    #[error("{}: no run record: {cause}", path.display())]
    Unreadable {
        /// The file.
        path: PathBuf,
        /// Message of the parser.
        cause: String,
    },
    /// `run.json` has a format that this engine does not read.
    #[error("{}: format {found} of run.json, this engine reads {RUN_FORMAT}; use karat {written_by}, which wrote it, or a newer one", path.display())]
    Format {
        /// The file.
        path: PathBuf,
        /// Its format.
        found: String,
        /// Engine version in it.
        written_by: String,
    },
    /// `run.json` contradicts itself.
    #[error("{}: {cause}: the file was edited after it was written", path.display())]
    Inconsistent {
        /// The file.
        path: PathBuf,
        /// What does not fit.
        cause: String,
    },
    /// A name that must not become a path.
    #[error("`{name}` is no {what}")]
    Name {
        /// The name, shortened.
        name: String,
        /// What was expected.
        what: &'static str,
    },
    /// Bytes do not have the digest that they should have.
    #[error("component {expected} has other bytes: their digest is {found}")]
    Digest {
        /// `sha256:…`.
        expected: String,
        /// `sha256:…`.
        found: String,
    },
}

fn io_error(action: &'static str, path: &Path) -> impl FnOnce(io::Error) -> FolderError {
    let path = path.to_path_buf();
    move |source| FolderError::Io {
        action,
        path,
        source,
    }
}

/// The id of a run: 8 characters of lowercase base32 of `sha256(salt || nonce)`. A reviewer's nonce thereby enters every
/// name that the run creates.
pub fn run_id(salt: &[u8; 16], nonce: Option<&str>) -> String {
    let mut hash = Sha256::new();
    hash.update(salt);
    hash.update(nonce.unwrap_or_default());
    let text = data_encoding::BASE32_NOPAD.encode(&hash.finalize());
    text[..RUN_ID_LENGTH].to_ascii_lowercase()
}

/// The random part of a new run id.
///
/// # Errors
/// The system gives no random bytes.
pub fn new_salt() -> Result<[u8; 16], FolderError> {
    let mut salt = [0u8; 16];
    getrandom::fill(&mut salt).map_err(|error| FolderError::Io {
        action: "draw random bytes for",
        path: PathBuf::from("the run id"),
        source: io::Error::other(error.to_string()),
    })?;
    Ok(salt)
}

/// A place for one recording.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Attempt {
    /// Counts from 1.
    pub number: u32,
    /// The folder, which exists and is empty.
    pub folder: PathBuf,
    /// The same below the run folder, for [`crate::model::AttemptRecord::recording`].
    pub relative: String,
}

/// A run folder that is held for writing. The lock goes with the process, however it ends.
#[derive(Debug)]
pub struct RunFolder {
    path: PathBuf,
    _lock: File,
}

impl RunFolder {
    /// Begins a run in a new or empty folder, which only the owner may enter.
    ///
    /// # Errors
    /// There is something in it, somebody else holds it, or the file system refuses.
    pub fn create(path: &Path) -> Result<RunFolder, FolderError> {
        if let Some(parent) = path
            .parent()
            .filter(|parent| !parent.as_os_str().is_empty())
        {
            fs::create_dir_all(parent).map_err(io_error("create", parent))?;
        }
        match private().create(path) {
            Err(source) if source.kind() != io::ErrorKind::AlreadyExists => {
                return Err(io_error("create", path)(source));
            }
            _ => {}
        }
        empty(path)?;
        only_owner(path)?;
        let folder = RunFolder {
            path: path.to_path_buf(),
            _lock: lock(path)?,
        };
        // Asked again under the lock: two runs may have found the folder empty at the same moment.
        empty(path)?;
        Ok(folder)
    }

    /// Continues the run in a folder: for a resume or a rerun.
    ///
    /// # Errors
    /// There is no run, its record is unreadable or contradicts itself, or somebody else holds the folder.
    pub fn open(path: &Path) -> Result<(RunFolder, RunRecord), FolderError> {
        if !path.join(RUN_FILE).is_file() {
            return Err(FolderError::NoRun {
                path: path.to_path_buf(),
            });
        }
        let folder = RunFolder {
            path: path.to_path_buf(),
            _lock: lock(path)?,
        };
        let record = read_record(path)?;
        Ok((folder, record))
    }

    /// The folder itself.
    pub fn path(&self) -> &Path {
        &self.path
    }

    /// Path of the journal.
    pub fn journal(&self) -> PathBuf {
        self.path.join(JOURNAL_FILE)
    }

    /// Makes room for the next attempt of a probe. An attempt that is there is never touched.
    ///
    /// # Errors
    /// The probe's id is none, or the file system refuses.
    pub fn new_attempt(&self, probe: &str) -> Result<Attempt, FolderError> {
        let name = probe_folder(probe)?;
        let probes = self.path.join(PROBES);
        let of_probe = probes.join(&name);
        for folder in [&probes, &of_probe] {
            match private().create(folder) {
                Err(source) if source.kind() != io::ErrorKind::AlreadyExists => {
                    return Err(io_error("create", folder)(source));
                }
                _ => {}
            }
        }
        let mut last = 0;
        for entry in fs::read_dir(&of_probe).map_err(io_error("list", &of_probe))? {
            let entry = entry.map_err(io_error("list", &of_probe))?;
            let number = entry.file_name().to_str().and_then(attempt_number);
            last = last.max(number.unwrap_or_default());
        }
        let number = last + 1;
        if number > ATTEMPTS_MAX {
            return Err(FolderError::Occupied {
                path: of_probe,
                what: format!("{ATTEMPTS_MAX} attempts"),
            });
        }
        let relative = format!("{PROBES}/{name}/attempt-{number}");
        let folder = self.path.join(&relative);
        private()
            .create(&folder)
            .map_err(io_error("create", &folder))?;
        Ok(Attempt {
            number,
            folder,
            relative,
        })
    }

    /// Makes room for a recording at the place that it has in another folder, and gives the path of its folder, which the
    /// recorder makes.
    ///
    /// # Errors
    /// The text is no such path, or the file system refuses.
    pub fn place(&self, relative: &str) -> Result<PathBuf, FolderError> {
        let folder = recording(&self.path, relative)?;
        let probes = self.path.join(PROBES);
        for folder in [Some(probes.as_path()), folder.parent()]
            .into_iter()
            .flatten()
        {
            match private().create(folder) {
                Err(source) if source.kind() != io::ErrorKind::AlreadyExists => {
                    return Err(io_error("create", folder)(source));
                }
                _ => {}
            }
        }
        Ok(folder)
    }

    /// Ends the writing and removes the lock file: for a folder that nobody knows yet.
    ///
    /// # Errors
    /// The file system refuses.
    pub fn leave(self) -> Result<(), FolderError> {
        let lock = self.path.join(LOCK_FILE);
        fs::remove_file(&lock).map_err(io_error("remove", &lock))
    }

    /// Keeps the bytes of a component, so that the run can be replayed elsewhere. Kept once, whoever asks.
    ///
    /// # Errors
    /// The bytes do not have this digest, or the file system refuses.
    pub fn keep_component(&self, digest: &str, bytes: &[u8]) -> Result<PathBuf, FolderError> {
        let found = format!("sha256:{}", sha256_hex(bytes));
        if digest != found {
            return Err(FolderError::Digest {
                expected: digest.to_owned(),
                found,
            });
        }
        let folder = self.path.join(COMPONENTS);
        fs::create_dir_all(&folder).map_err(io_error("create", &folder))?;
        let path = component_path(&self.path, digest)?;
        if !path.is_file() {
            replace(&path, &path.with_extension("wasm.new"), bytes)?;
        }
        Ok(path)
    }

    /// Writes `run.json` as a whole: a reader sees the old record or the new one, and a crash leaves one of them.
    ///
    /// # Errors
    /// The file system refuses; the old record is still there.
    pub fn write_record(&self, record: &RunRecord) -> Result<(), FolderError> {
        replace_json(&self.path.join(RUN_FILE), record)
    }
}

/// Reads and checks the run record of a folder, without holding the folder.
///
/// # Errors
/// There is none, it is unreadable, has another format, or contradicts itself: run id against salt and nonce, run head
/// against the heads of the recordings.
pub fn read_record(folder: &Path) -> Result<RunRecord, FolderError> {
    #[derive(serde::Deserialize)]
    struct Peek {
        format: String,
        #[serde(default)]
        engine: String,
    }
    let path = folder.join(RUN_FILE);
    let file = match File::open(&path) {
        Err(source) if source.kind() == io::ErrorKind::NotFound => {
            return Err(FolderError::NoRun {
                path: folder.to_path_buf(),
            });
        }
        other => other.map_err(io_error("read", &path))?,
    };
    let mut bytes = Vec::new();
    file.take(RUN_FILE_MAX + 1)
        .read_to_end(&mut bytes)
        .map_err(io_error("read", &path))?;
    let unreadable = |cause: String| FolderError::Unreadable {
        path: path.clone(),
        cause,
    };
    if bytes.len() as u64 > RUN_FILE_MAX {
        return Err(unreadable(format!(
            "it is larger than {RUN_FILE_MAX} bytes"
        )));
    }
    let peek: Peek = serde_json::from_slice(&bytes).map_err(|e| unreadable(e.to_string()))?;
    if !reads(&peek.format) {
        return Err(FolderError::Format {
            path,
            found: peek.format.chars().take(40).collect(),
            written_by: peek.engine.chars().take(40).collect(),
        });
    }
    let record: RunRecord =
        serde_json::from_slice(&bytes).map_err(|e| unreadable(e.to_string()))?;
    if let Some(cause) = inconsistency(&record) {
        return Err(FolderError::Inconsistent { path, cause });
    }
    Ok(record)
}

/// The folder of a recording that `run.json` names: `probes/<probe>/attempt-<n>` and nothing else.
///
/// # Errors
/// The text is no such path.
pub fn recording(folder: &Path, relative: &str) -> Result<PathBuf, FolderError> {
    let refused = || FolderError::Name {
        name: relative.chars().take(80).collect(),
        what: "path of a recording",
    };
    let mut parts = relative.split('/');
    match (parts.next(), parts.next(), parts.next(), parts.next()) {
        (Some(PROBES), Some(probe), Some(attempt), None)
            if is_folder_name(probe) && attempt_number(attempt).is_some() =>
        {
            Ok(folder.join(PROBES).join(probe).join(attempt))
        }
        _ => Err(refused()),
    }
}

/// Where the bytes of a component lie, `sha256:…`.
///
/// # Errors
/// The text is no digest.
pub fn component_path(folder: &Path, digest: &str) -> Result<PathBuf, FolderError> {
    digest
        .strip_prefix("sha256:")
        .filter(|hex| crate::recording::is_digest(hex))
        .map(|hex| folder.join(COMPONENTS).join(format!("{hex}.wasm")))
        .ok_or_else(|| FolderError::Name {
            name: digest.chars().take(80).collect(),
            what: "digest",
        })
}

/// The JSON Schema of `run.json`, with its keys in order.
pub fn run_schema() -> serde_json::Value {
    let mut schema = schemars::schema_for!(RunRecord).to_value();
    if let Some(object) = schema.as_object_mut() {
        object.insert("$id".to_owned(), "urn:karat:run:v0.1".into());
        object.insert("title".to_owned(), "Karat run record, run.json".into());
    }
    sorted(schema)
}

/// Whether a dependency makes objects keep their order must not decide how the published file looks.
pub(crate) fn sorted(value: serde_json::Value) -> serde_json::Value {
    use serde_json::Value;
    match value {
        Value::Object(map) => {
            let mut pairs: Vec<(String, Value)> = map.into_iter().collect();
            pairs.sort_by(|a, b| a.0.cmp(&b.0));
            let pairs = pairs.into_iter().map(|(key, value)| (key, sorted(value)));
            Value::Object(pairs.collect())
        }
        Value::Array(items) => Value::Array(items.into_iter().map(sorted).collect()),
        scalar => scalar,
    }
}

/// What a record says twice and differently.
fn inconsistency(record: &RunRecord) -> Option<String> {
    let salt: Option<[u8; 16]> = data_encoding::HEXLOWER
        .decode(record.salt.as_bytes())
        .ok()
        .and_then(|bytes| bytes.try_into().ok());
    let Some(salt) = salt else {
        return Some("the salt is not 32 hexadecimal digits".to_owned());
    };
    if run_id(&salt, record.nonce.as_deref()) != record.run {
        return Some("the run id does not follow from salt and nonce".to_owned());
    }
    match head_of(record) {
        Err(cause) => Some(cause),
        Ok(head) if head.text() != record.head => {
            Some("the run head does not follow from the heads of the recordings".to_owned())
        }
        Ok(_) => None,
    }
}

fn reads(format: &str) -> bool {
    fn split(format: &str) -> Option<(u32, u32)> {
        let (major, minor) = format.split_once('.')?;
        Some((major.parse().ok()?, minor.parse().ok()?))
    }
    match (split(format), split(RUN_FORMAT)) {
        (Some((major, minor)), Some((ours, newest))) => major == ours && minor <= newest,
        _ => false,
    }
}

/// A probe's folder: its id with `/` written as `.`, as in labels. An id before the slash is a domain and an id behind it
/// has no dot, so no two ids meet.
pub(crate) fn probe_folder(probe: &str) -> Result<String, FolderError> {
    let name = probe.replacen('/', ".", 1);
    if is_folder_name(&name) {
        return Ok(name);
    }
    Err(FolderError::Name {
        name: probe.chars().take(80).collect(),
        what: "probe id",
    })
}

fn is_folder_name(name: &str) -> bool {
    !name.is_empty()
        && name.len() <= 128
        && !name.starts_with('.')
        && !name.contains("..")
        && name.bytes().all(|byte| {
            byte.is_ascii_lowercase() || byte.is_ascii_digit() || b"-_.".contains(&byte)
        })
}

fn attempt_number(name: &str) -> Option<u32> {
    let digits = name.strip_prefix("attempt-")?;
    let number: u32 = digits.parse().ok()?;
    // One spelling for each number: no signs, no leading zeros.
    (digits == number.to_string() && (1..=ATTEMPTS_MAX).contains(&number)).then_some(number)
}

fn private() -> DirBuilder {
    #[cfg_attr(not(unix), expect(unused_mut, reason = "modes exist on unix only"))]
    let mut builder = DirBuilder::new();
    #[cfg(unix)]
    std::os::unix::fs::DirBuilderExt::mode(&mut builder, 0o700);
    builder
}

/// Makes a folder that only the owner may enter, if it is not there.
pub(crate) fn make_private(path: &Path) -> Result<(), FolderError> {
    match private().create(path) {
        Err(source) if source.kind() != io::ErrorKind::AlreadyExists => {
            Err(io_error("create", path)(source))
        }
        _ => Ok(()),
    }
}

fn only_owner(path: &Path) -> Result<(), FolderError> {
    #[cfg(unix)]
    {
        let mode = std::os::unix::fs::PermissionsExt::from_mode(0o700);
        fs::set_permissions(path, mode).map_err(io_error("protect", path))?;
    }
    #[cfg(not(unix))]
    let _ = path;
    Ok(())
}

/// Refuses a folder that holds anything but our own lock.
fn empty(path: &Path) -> Result<(), FolderError> {
    for entry in fs::read_dir(path).map_err(io_error("list", path))? {
        let name = entry.map_err(io_error("list", path))?.file_name();
        if name == LOCK_FILE {
            continue;
        }
        let what = if name == RUN_FILE {
            "a run".to_owned()
        } else {
            name.to_string_lossy().into_owned()
        };
        return Err(FolderError::Occupied {
            path: path.to_path_buf(),
            what,
        });
    }
    Ok(())
}

fn lock(folder: &Path) -> Result<File, FolderError> {
    let path = folder.join(LOCK_FILE);
    let mut file = OpenOptions::new()
        .create(true)
        .read(true)
        .write(true)
        .truncate(false)
        .open(&path)
        .map_err(io_error("open", &path))?;
    match file.try_lock() {
        Ok(()) => {}
        Err(TryLockError::WouldBlock) => {
            let mut holder = String::new();
            let _ = (&mut file).take(20).read_to_string(&mut holder);
            let holder = holder.trim();
            return Err(FolderError::Locked {
                path: folder.to_path_buf(),
                holder: if !holder.is_empty() && holder.bytes().all(|b| b.is_ascii_digit()) {
                    holder.to_owned()
                } else {
                    "unknown".to_owned()
                },
            });
        }
        Err(TryLockError::Error(source)) => return Err(io_error("lock", &path)(source)),
    }
    // For the message above only; the lock itself is what counts.
    file.set_len(0)
        .and_then(|()| writeln!(file, "{}", std::process::id()))
        .map_err(io_error("write", &path))?;
    Ok(file)
}

/// Writes a document as a whole, beside its place first.
pub(crate) fn replace_json<T: serde::Serialize>(
    path: &Path,
    document: &T,
) -> Result<(), FolderError> {
    let mut text = serde_json::to_vec_pretty(document).map_err(|error| FolderError::Io {
        action: "write",
        path: path.to_path_buf(),
        source: error.into(),
    })?;
    text.push(b'\n');
    replace(path, &path.with_extension("json.new"), &text)
}

/// Writes beside, syncs, renames, syncs the folder.
fn replace(path: &Path, temporary: &Path, bytes: &[u8]) -> Result<(), FolderError> {
    let mut file = File::create(temporary).map_err(io_error("create", temporary))?;
    file.write_all(bytes)
        .and_then(|()| file.sync_all())
        .map_err(io_error("write", temporary))?;
    fs::rename(temporary, path).map_err(io_error("replace", path))?;
    if let Some(folder) = path.parent() {
        File::open(folder)
            .and_then(|folder| folder.sync_all())
            .map_err(io_error("sync", folder))?;
    }
    Ok(())
}
