//! What this run is about to create and has created, written down before the cluster hears of it, so that a crash at any
//! moment leaves a list of what to remove.
//!
//! JSON Lines in one file of mode 0600: it holds the run's key. A creation is noted and synced *before* its POST; the uid
//! follows without a sync, since a name with a seal is enough to find the object again. A torn last line is what a crash
//! leaves and is dropped; any other damage is an error that names the line, because a journal that skips lines would
//! leave objects behind in silence. [`Ledger`] is the same knowledge in memory, for the door and the guards.

use crate::cluster::encode;
use crate::seal::RunKey;
use serde::{Deserialize, Serialize};
use std::collections::{BTreeMap, BTreeSet};
use std::fmt;
use std::fs::{File, OpenOptions};
use std::io::{Read, Seek, SeekFrom, Write};
use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

/// Major version: a reader refuses another one.
const FORMAT: &str = "1.0";
/// Largest journal that is read. A run of 39 probes writes some 100 KB.
const MAX_BYTES: u64 = 64 << 20;

/// Ends the name under which the account of a probe stands in the journal. No probe id has this character, so what belongs
/// to the account is never taken for something that the probe itself created and may change.
const ACCOUNT: &str = "#account";

/// The name under which a probe's account, with its roles and their bindings, stands in the journal.
pub(crate) fn account_of(probe: &str) -> String {
    format!("{probe}{ACCOUNT}")
}

/// One object in the resource API, without its uid.
#[derive(Clone, Debug, Default, PartialEq, Eq, Hash, PartialOrd, Ord, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct ObjectRef {
    /// API group; empty is the core group.
    #[serde(default, skip_serializing_if = "String::is_empty")]
    pub group: String,
    /// API version that was used; the object is the same in every other one.
    pub version: String,
    /// Plural name.
    pub resource: String,
    /// Namespace; empty for cluster-scoped objects.
    #[serde(default, skip_serializing_if = "String::is_empty")]
    pub namespace: String,
    /// Name.
    pub name: String,
}

impl fmt::Display for ObjectRef {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.resource)?;
        if !self.group.is_empty() {
            write!(f, ".{}", self.group)?;
        }
        f.write_str("/")?;
        if !self.namespace.is_empty() {
            write!(f, "{}/", self.namespace)?;
        }
        f.write_str(&self.name)
    }
}

impl ObjectRef {
    /// The path of the object in the resource API.
    pub fn path(&self) -> String {
        format!("{}/{}", self.collection_path(), encode(&self.name))
    }

    /// The path of the collection that the object belongs to.
    pub fn collection_path(&self) -> String {
        let root = if self.group.is_empty() {
            format!("/api/{}", self.version)
        } else {
            format!("/apis/{}/{}", self.group, self.version)
        };
        if self.namespace.is_empty() {
            format!("{root}/{}", self.resource)
        } else {
            format!(
                "{root}/namespaces/{}/{}",
                encode(&self.namespace),
                self.resource
            )
        }
    }

    /// `group/version`, or `v1` for the core group.
    pub fn api_version(&self) -> String {
        if self.group.is_empty() {
            self.version.clone()
        } else {
            format!("{}/{}", self.group, self.version)
        }
    }

    fn key(&self) -> Key {
        Key {
            group: self.group.clone(),
            resource: self.resource.clone(),
            namespace: self.namespace.clone(),
            name: self.name.clone(),
        }
    }
}

/// Identity of an object whatever version it was written in.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord)]
struct Key {
    group: String,
    resource: String,
    namespace: String,
    name: String,
}

/// One object that the run created, or was about to.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct LedgerEntry {
    /// The object.
    pub object: ObjectRef,
    /// Probe that created it; empty for the engine itself.
    pub probe: String,
    /// uid; none between the intention and the server's answer.
    pub uid: Option<String>,
    /// Whether the server said that it is gone. Nobody has looked, so it is still to be removed.
    pub said_gone: bool,
    /// Position in the order of creation.
    pub order: u64,
}

/// What the run created and has not yet seen gone. Cheap to clone; all clones are the same ledger.
#[derive(Clone, Debug, Default)]
pub struct Ledger {
    inner: Arc<Mutex<LedgerInner>>,
}

#[derive(Debug, Default)]
struct LedgerInner {
    present: BTreeMap<Key, LedgerEntry>,
    ever: BTreeSet<String>,
    next: u64,
}

impl Ledger {
    fn lock(&self) -> MutexGuard<'_, LedgerInner> {
        self.inner.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Notes an intention. What is already there stays as it is: creating a name twice must not make us forget the first.
    pub(crate) fn intend(&self, object: &ObjectRef, probe: &str) {
        let mut inner = self.lock();
        if inner.present.contains_key(&object.key()) {
            return;
        }
        inner.next += 1;
        let order = inner.next;
        inner.present.insert(
            object.key(),
            LedgerEntry {
                object: object.clone(),
                probe: probe.to_owned(),
                uid: None,
                said_gone: false,
                order,
            },
        );
    }

    pub(crate) fn created(&self, object: &ObjectRef, uid: &str) {
        let mut inner = self.lock();
        if let Some(entry) = inner.present.get_mut(&object.key()) {
            entry.uid = Some(uid.to_owned());
            entry.said_gone = false;
            inner.ever.insert(uid.to_owned());
        }
    }

    pub(crate) fn gone(&self, object: &ObjectRef) {
        self.lock().present.remove(&object.key());
    }

    /// Notes that the server answered a deletion as done. The entry stays: a server that lies would else leave objects
    /// behind that no clean-up looks for.
    pub(crate) fn said_gone(&self, uid: &str) {
        let mut inner = self.lock();
        let mut entries = inner.present.values_mut();
        if let Some(entry) = entries.find(|entry| entry.uid.as_deref() == Some(uid)) {
            entry.said_gone = true;
        }
    }

    /// The entry of an object.
    pub fn entry(&self, object: &ObjectRef) -> Option<LedgerEntry> {
        self.lock().present.get(&object.key()).cloned()
    }

    /// The uid under which `probe` created this object, in whatever API version; none once the server said that it is gone.
    pub fn uid(
        &self,
        probe: &str,
        group: &str,
        resource: &str,
        namespace: &str,
        name: &str,
    ) -> Option<String> {
        let key = Key {
            group: group.to_owned(),
            resource: resource.to_owned(),
            namespace: namespace.to_owned(),
            name: name.to_owned(),
        };
        self.lock()
            .present
            .get(&key)
            .filter(|entry| entry.probe == probe && !entry.said_gone)
            .and_then(|entry| entry.uid.clone())
    }

    /// The present object with this uid.
    pub fn by_uid(&self, uid: &str) -> Option<LedgerEntry> {
        self.lock()
            .present
            .values()
            .find(|entry| entry.uid.as_deref() == Some(uid))
            .cloned()
    }

    /// Whether the run ever created an object with this uid.
    pub fn ever_created(&self, uid: &str) -> bool {
        self.lock().ever.contains(uid)
    }

    /// Number of cluster-scoped objects of all probes, intended or present as far as the server says. Namespaces do not count: the engine alone makes
    /// them, for itself and for the probes.
    pub fn cluster_objects(&self) -> usize {
        let is_namespace = |object: &ObjectRef| {
            (object.group.as_str(), object.resource.as_str()) == ("", "namespaces")
        };
        self.lock()
            .present
            .values()
            .filter(|entry| entry.object.namespace.is_empty() && !is_namespace(&entry.object))
            .filter(|entry| !entry.probe.is_empty() && !entry.said_gone)
            .filter(|entry| !entry.probe.ends_with(ACCOUNT))
            .count()
    }

    /// Everything that may exist, in the order of creation.
    pub fn entries(&self) -> Vec<LedgerEntry> {
        let mut entries: Vec<_> = self.lock().present.values().cloned().collect();
        entries.sort_by_key(|entry| entry.order);
        entries
    }

    /// Everything of one probe that may exist, in the order of creation.
    pub fn of_probe(&self, probe: &str) -> Vec<LedgerEntry> {
        let mut entries = self.entries();
        entries.retain(|entry| entry.probe == probe);
        entries
    }
}

/// The first line: which run on which cluster, and its key.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct JournalHead {
    /// Run id.
    pub run: String,
    /// The run's key.
    pub key: RunKey,
    /// uid of the cluster's `kube-system` namespace: `clean` refuses another cluster.
    pub cluster: String,
    /// Address of the API server, for people.
    pub server: String,
    /// When the run began, RFC 3339.
    pub started: String,
}

#[derive(Serialize, Deserialize)]
#[serde(
    rename_all = "kebab-case",
    rename_all_fields = "kebab-case",
    tag = "op",
    deny_unknown_fields
)]
enum Line {
    Run {
        format: String,
        run: String,
        key: String,
        cluster: String,
        server: String,
        started: String,
    },
    Intend {
        id: u64,
        #[serde(default, skip_serializing_if = "String::is_empty")]
        probe: String,
        object: ObjectRef,
    },
    Created {
        id: u64,
        uid: String,
    },
    Gone {
        id: u64,
    },
    Closed {},
}

/// Why a journal cannot be written or read.
#[derive(Debug, thiserror::Error)]
pub enum JournalError {
    /// The file system said no.
    #[error("journal {}: {source}", path.display())]
    Io {
        /// The file.
        path: PathBuf,
        /// What the system said.
        source: std::io::Error,
    },
    /// A line that is not the last one cannot be read.
    #[error(
        "journal {}: line {line} is damaged ({cause}); objects may be missing from it, so clean without the journal: `karat clean` without a folder",
        path.display()
    )]
    Damaged {
        /// The file.
        path: PathBuf,
        /// Counts from 1.
        line: usize,
        /// What is wrong.
        cause: String,
    },
    /// The file belongs to another version of the program.
    #[error("journal {}: format {found} is not {FORMAT}; use the release that wrote it", path.display())]
    Format {
        /// The file.
        path: PathBuf,
        /// What it says.
        found: String,
    },
    /// Something was noted for an object that was never intended.
    #[error("journal {}: {object} was never announced", path.display())]
    Unannounced {
        /// The file.
        path: PathBuf,
        /// The object.
        object: ObjectRef,
    },
}

/// The journal of a running run. Cheap to clone; all clones write the same file.
///
/// Its methods wait for the disk: async callers run them with `tokio::task::spawn_blocking`, or accept a stop of some
/// milliseconds. Intentions that arrive together share one sync.
#[derive(Clone)]
pub struct Journal {
    shared: Arc<Shared>,
}

struct Shared {
    path: PathBuf,
    head: JournalHead,
    ledger: Ledger,
    writer: Mutex<Writer>,
    /// A second handle of the same file, so that one thread syncs while others write.
    sync: Mutex<Synced>,
    written: AtomicU64,
}

struct Writer {
    file: File,
    ids: BTreeMap<Key, u64>,
    next: u64,
}

impl Writer {
    fn intend(&mut self, object: &ObjectRef, probe: &str) -> Line {
        self.next += 1;
        self.ids.insert(object.key(), self.next);
        Line::Intend {
            id: self.next,
            probe: probe.to_owned(),
            object: object.clone(),
        }
    }
}

struct Synced {
    file: File,
    up_to: u64,
}

impl fmt::Debug for Journal {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Journal")
            .field("path", &self.shared.path)
            .finish_non_exhaustive()
    }
}

impl Journal {
    /// Creates the file, which must not exist, and syncs its first line and its folder.
    ///
    /// # Errors
    /// The file exists or cannot be written.
    pub fn create(path: &Path, head: JournalHead) -> Result<Journal, JournalError> {
        let io = |source| JournalError::Io {
            path: path.to_owned(),
            source,
        };
        let mut options = OpenOptions::new();
        options.write(true).create_new(true);
        #[cfg(unix)]
        std::os::unix::fs::OpenOptionsExt::mode(&mut options, 0o600);
        let file = options.open(path).map_err(io)?;
        let journal = Journal::over(
            path,
            file,
            head.clone(),
            Ledger::default(),
            BTreeMap::new(),
            0,
        )?;
        journal.append(|_| {
            Ok(Some(Line::Run {
                format: FORMAT.to_owned(),
                run: head.run,
                key: head.key.to_hex(),
                cluster: head.cluster,
                server: head.server,
                started: head.started,
            }))
        })?;
        journal.sync()?;
        // The name of the file must survive a power cut as well.
        if let Some(folder) = path
            .parent()
            .filter(|folder| !folder.as_os_str().is_empty())
        {
            File::open(folder)
                .and_then(|folder| folder.sync_all())
                .map_err(io)?;
        }
        Ok(journal)
    }

    /// Opens the journal of a run that goes on (resume, clean), and cuts off a torn last line.
    ///
    /// # Errors
    /// Those of [`read`]; a file that cannot be written.
    pub fn resume(path: &Path) -> Result<Journal, JournalError> {
        let record = read(path)?;
        let io = |source| JournalError::Io {
            path: path.to_owned(),
            source,
        };
        let mut file = OpenOptions::new().write(true).open(path).map_err(io)?;
        file.set_len(record.whole_bytes).map_err(io)?;
        file.seek(SeekFrom::End(0)).map_err(io)?;
        Journal::over(
            path,
            file,
            record.head,
            record.ledger,
            record.ids,
            record.next,
        )
    }

    fn over(
        path: &Path,
        file: File,
        head: JournalHead,
        ledger: Ledger,
        ids: BTreeMap<Key, u64>,
        next: u64,
    ) -> Result<Journal, JournalError> {
        let twin = file.try_clone().map_err(|source| JournalError::Io {
            path: path.to_owned(),
            source,
        })?;
        Ok(Journal {
            shared: Arc::new(Shared {
                path: path.to_owned(),
                head,
                ledger,
                writer: Mutex::new(Writer { file, ids, next }),
                sync: Mutex::new(Synced {
                    file: twin,
                    up_to: 0,
                }),
                written: AtomicU64::new(0),
            }),
        })
    }

    /// The run, its cluster and its key.
    pub fn head(&self) -> &JournalHead {
        &self.shared.head
    }

    /// The same knowledge in memory.
    pub fn ledger(&self) -> Ledger {
        self.shared.ledger.clone()
    }

    /// Where the journal lies.
    pub fn path(&self) -> &Path {
        &self.shared.path
    }

    /// Notes that an object is about to be created. When this returns, the note is on disk, and the POST may be sent.
    /// `probe` is empty for objects of the engine itself. An object that is already noted, by whichever probe, stays noted
    /// as it is: the server will answer `AlreadyExists`.
    ///
    /// # Errors
    /// The disk; then nothing may be created.
    pub fn intend(&self, object: &ObjectRef, probe: &str) -> Result<(), JournalError> {
        self.append(|writer| {
            if writer.ids.contains_key(&object.key()) {
                return Ok(None);
            }
            self.shared.ledger.intend(object, probe);
            Ok(Some(writer.intend(object, probe)))
        })?;
        self.sync()
    }

    /// Notes the uid of an object that `probe` created. Not synced: name and seal are enough to find it again.
    ///
    /// # Errors
    /// The disk.
    pub fn created(&self, object: &ObjectRef, probe: &str, uid: &str) -> Result<(), JournalError> {
        let noted = |entry: &LedgerEntry| entry.probe == probe;
        if !self.shared.ledger.entry(object).as_ref().is_some_and(noted) {
            // Two probes raced for one name, and the note of the other one stood or is already withdrawn.
            self.append(|writer| {
                self.shared.ledger.gone(object);
                self.shared.ledger.intend(object, probe);
                Ok(Some(writer.intend(object, probe)))
            })?;
        }
        self.append(|writer| {
            let id = self.id(writer, object)?;
            Ok(Some(Line::Created {
                id,
                uid: uid.to_owned(),
            }))
        })?;
        self.shared.ledger.created(object, uid);
        Ok(())
    }

    /// Withdraws an intention: the server refused the POST of `probe`, so nothing came of it. Does nothing where the
    /// object exists after all, because the same probe made it earlier or another one did.
    ///
    /// # Errors
    /// The disk.
    pub fn refused(&self, object: &ObjectRef, probe: &str) -> Result<(), JournalError> {
        match self.shared.ledger.entry(object) {
            Some(entry) if entry.probe == probe && entry.uid.is_none() => self.gone(object),
            _ => Ok(()),
        }
    }

    /// Notes that an object was seen gone. Not synced: asking again does no harm.
    ///
    /// # Errors
    /// The disk, or an object that was never intended.
    pub fn gone(&self, object: &ObjectRef) -> Result<(), JournalError> {
        self.append(|writer| {
            let id = self.id(writer, object)?;
            writer.ids.remove(&object.key());
            Ok(Some(Line::Gone { id }))
        })?;
        self.shared.ledger.gone(object);
        Ok(())
    }

    /// Notes that the run has nothing left to remove.
    ///
    /// # Errors
    /// The disk.
    pub fn closed(&self) -> Result<(), JournalError> {
        self.append(|_| Ok(Some(Line::Closed {})))?;
        self.sync()
    }

    fn id(&self, writer: &Writer, object: &ObjectRef) -> Result<u64, JournalError> {
        writer
            .ids
            .get(&object.key())
            .copied()
            .ok_or_else(|| JournalError::Unannounced {
                path: self.shared.path.clone(),
                object: object.clone(),
            })
    }

    fn append(
        &self,
        line: impl FnOnce(&mut Writer) -> Result<Option<Line>, JournalError>,
    ) -> Result<(), JournalError> {
        let mut writer = self
            .shared
            .writer
            .lock()
            .unwrap_or_else(PoisonError::into_inner);
        let Some(line) = line(&mut writer)? else {
            return Ok(());
        };
        let mut text = serde_json::to_vec(&line).map_err(|e| self.io(e.into()))?;
        text.push(b'\n');
        // One write call: a crash tears at most the last line.
        writer.file.write_all(&text).map_err(|e| self.io(e))?;
        self.shared.written.fetch_add(1, Ordering::Release);
        Ok(())
    }

    fn sync(&self) -> Result<(), JournalError> {
        let mine = self.shared.written.load(Ordering::Acquire);
        let mut synced = self
            .shared
            .sync
            .lock()
            .unwrap_or_else(PoisonError::into_inner);
        if synced.up_to >= mine {
            return Ok(());
        }
        let all = self.shared.written.load(Ordering::Acquire);
        synced.file.sync_data().map_err(|e| self.io(e))?;
        synced.up_to = all;
        Ok(())
    }

    fn io(&self, source: std::io::Error) -> JournalError {
        JournalError::Io {
            path: self.shared.path.clone(),
            source,
        }
    }
}

/// A journal read back.
#[derive(Debug)]
pub struct JournalRecord {
    /// The run, its cluster and its key.
    pub head: JournalHead,
    /// What may still exist.
    pub ledger: Ledger,
    /// Whether a torn last line was dropped.
    pub torn: bool,
    /// Whether the run noted that nothing was left.
    pub closed: bool,
    whole_bytes: u64,
    ids: BTreeMap<Key, u64>,
    next: u64,
}

/// Reads a journal.
///
/// # Errors
/// A file that cannot be read, of another format, or damaged anywhere but in its last line.
pub fn read(path: &Path) -> Result<JournalRecord, JournalError> {
    let io = |source| JournalError::Io {
        path: path.to_owned(),
        source,
    };
    let mut bytes = Vec::new();
    File::open(path)
        .and_then(|file| file.take(MAX_BYTES + 1).read_to_end(&mut bytes))
        .map_err(io)?;
    let damaged = |line, cause: String| JournalError::Damaged {
        path: path.to_owned(),
        line,
        cause,
    };
    if bytes.len() as u64 > MAX_BYTES {
        return Err(damaged(1, format!("larger than {} MiB", MAX_BYTES >> 20)));
    }
    let mut reader = Reader {
        head: None,
        ledger: Ledger::default(),
        objects: BTreeMap::new(),
        closed: false,
        next: 0,
    };
    let mut at = 0;
    let mut number = 0;
    while let Some(length) = bytes[at..].iter().position(|b| *b == b'\n') {
        number += 1;
        let line: Line = serde_json::from_slice(&bytes[at..at + length])
            .map_err(|e| damaged(number, e.to_string()))?;
        reader.take(line).map_err(|cause| match cause {
            Wrong::Format(found) => JournalError::Format {
                path: path.to_owned(),
                found,
            },
            Wrong::Line(cause) => damaged(number, cause),
        })?;
        at += length + 1;
    }
    let head = reader
        .head
        .ok_or_else(|| damaged(1, "no first line".to_owned()))?;
    let ids = reader
        .objects
        .into_iter()
        .map(|(id, object)| (object.key(), id))
        .collect();
    Ok(JournalRecord {
        head,
        ledger: reader.ledger,
        torn: at < bytes.len(),
        closed: reader.closed,
        whole_bytes: at as u64,
        ids,
        next: reader.next,
    })
}

struct Reader {
    head: Option<JournalHead>,
    ledger: Ledger,
    objects: BTreeMap<u64, ObjectRef>,
    closed: bool,
    next: u64,
}

enum Wrong {
    Format(String),
    Line(String),
}

impl Reader {
    fn take(&mut self, line: Line) -> Result<(), Wrong> {
        let wrong = |text: &str| Err(Wrong::Line(text.to_owned()));
        match line {
            Line::Run {
                format,
                run,
                key,
                cluster,
                server,
                started,
            } => {
                if self.head.is_some() {
                    return wrong("a second first line");
                }
                if format.split('.').next() != FORMAT.split('.').next() {
                    return Err(Wrong::Format(format));
                }
                let key = RunKey::from_hex(&key).map_err(|e| Wrong::Line(e.to_string()))?;
                self.head = Some(JournalHead {
                    run,
                    key,
                    cluster,
                    server,
                    started,
                });
            }
            _ if self.head.is_none() => return wrong("the first line is missing"),
            Line::Intend { id, probe, object } => {
                if id <= self.next {
                    return wrong("numbers do not rise");
                }
                self.next = id;
                self.closed = false;
                self.ledger.gone(&object);
                self.ledger.intend(&object, &probe);
                self.objects.retain(|_, old| old.key() != object.key());
                self.objects.insert(id, object);
            }
            Line::Created { id, uid } => match self.objects.get(&id) {
                Some(object) => self.ledger.created(object, &uid),
                None => return wrong("a uid for an object that was never announced"),
            },
            Line::Gone { id } => match self.objects.remove(&id) {
                Some(object) => self.ledger.gone(&object),
                None => return wrong("the end of an object that was never announced"),
            },
            Line::Closed {} => self.closed = true,
        }
        Ok(())
    }
}

#[cfg(test)]
mod tests;
