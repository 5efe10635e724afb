//! Writes a bundle beside its place and moves it there in one step, so that a crash at any moment leaves what was there
//! before. What a crash left beside it is recognised by its marker and replaced the next time.

use super::list::{File, Limits, Place, list};
use super::signature::SigningKey;
use super::statement::{self, STATEMENT_MAX, Statement};
use super::{BundleError, COMPONENT_MAX, SIGNATURES, STATEMENT_FILE, io_error};
use crate::recording::format::{BLOBS_FOLDER, RECORDING_FILE};
use crate::recording::{self, ReadOptions, sha256_hex};
use crate::runfolder::{self, RUN_FILE, RunFolder};
use crate::witness::{self, ACCOUNT_FILE, Release, TOKENS_FILE};
use jiff::Timestamp;
use rustix::fs::{CWD, RenameFlags, renameat_with};
use std::collections::BTreeSet;
use std::fs::{self, DirBuilder};
use std::io::{self, Read as _};
use std::os::unix::fs::DirBuilderExt as _;
use std::path::{Path, PathBuf};

/// Stands in a folder that is being written; whatever holds it was never finished and may go.
const MARKER: &str = "INCOMPLETE";
/// Follows the name of the bundle while it is written.
const PARTIAL: &str = ".partial";

/// What was written.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Created {
    /// Run id.
    pub run: String,
    /// Files.
    pub files: usize,
    /// Bytes of all files.
    pub bytes: u64,
    /// Id of the key that signed it.
    pub key: Option<String>,
    /// Digests of components that are too large to be carried.
    pub left_out: Vec<String>,
    /// Answers that were left out, for a public copy.
    pub withheld: u64,
    /// What became of the run's witness; none for a public copy, which has the one of its original.
    pub witness: Option<Release>,
}

/// Makes a bundle of a finished run. A bundle of the same run that is there already is replaced in one step.
///
/// # Errors
/// The run is still being written, a recording does not hold, something else is in the way, or the file system refuses.
/// What was there before is still there.
pub fn create(run: &Path, to: &Path, key: Option<&SigningKey>) -> Result<Created, BundleError> {
    create_at(run, to, key, Timestamp::now())
}

/// As [`create`], at a moment of the caller's clock: the witness enters when its last token has expired, and stays where it
/// is before.
///
/// # Errors
/// As [`create`].
pub fn create_at(
    run: &Path,
    to: &Path,
    key: Option<&SigningKey>,
    now: Timestamp,
) -> Result<Created, BundleError> {
    let (_held, record) = RunFolder::open(run)?;
    let unreadable = |cause| BundleError::Witness { cause };
    let mut witness = witness::release(run, now).map_err(unreadable)?;
    let partial = Partial::begin(to, Some(&record.run))?;
    partial.copy(run, &run.join(RUN_FILE))?;
    let mut left_out = BTreeSet::new();
    for probe in &record.probes {
        let component = runfolder::component_path(run, &probe.digest)?;
        let size = fs::metadata(&component)
            .map_err(io_error("read", &component))?
            .len();
        if size <= COMPONENT_MAX {
            partial.copy(run, &component)?;
        } else {
            left_out.insert(probe.digest.clone());
        }
        for attempt in &probe.attempts {
            let Some(relative) = &attempt.recording else {
                continue;
            };
            let folder = runfolder::recording(run, relative)?;
            // Evidence that does not hold is told now, to the one who can run again, and not later to a reviewer.
            let options = ReadOptions {
                expected_head: attempt.head.clone(),
                unfinished: attempt.head.is_none(),
                withheld: false,
            };
            recording::read_with(&folder, &options).map_err(|source| BundleError::Recording {
                probe: probe.probe.clone(),
                attempt: attempt.attempt,
                source,
            })?;
            partial.copy(run, &folder.join(RECORDING_FILE))?;
            let blobs = folder.join(BLOBS_FOLDER);
            for blob in fs::read_dir(&blobs).map_err(io_error("list", &blobs))? {
                let blob = blob.map_err(io_error("list", &blobs))?;
                partial.copy(run, &blob.path())?;
            }
        }
    }
    let statement = statement::of(&partial.path, &record)?;
    partial.write(STATEMENT_FILE, statement.as_bytes())?;
    partial.keep_signatures(statement.as_bytes())?;
    if let Some(key) = key {
        let name = format!("{SIGNATURES}/{}.json", &key.public().id()[..16]);
        partial.write(&name, key.envelope(statement.as_bytes()).as_bytes())?;
    }
    if witness == Release::Expired
        && !witness::is_about(run, &sha256_hex(statement.as_bytes())).map_err(unreadable)?
    {
        witness = Release::Unfinished;
    }
    if witness == Release::Expired {
        for file in [TOKENS_FILE, ACCOUNT_FILE] {
            partial.copy(run, &witness::folder(run).join(file))?;
        }
    }
    let files = partial.finish()?;
    Ok(Created {
        run: record.run,
        files: files.len(),
        bytes: files.iter().map(|file| file.size).sum(),
        key: key.map(|key| key.public().id()),
        left_out: left_out.into_iter().collect(),
        withheld: 0,
        witness: Some(witness),
    })
}

/// What a public copy leaves out.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Withhold {
    /// Ids of probes whose answers stay behind; of all probes where it is empty.
    pub probes: BTreeSet<String>,
    /// Whether the components stay behind too.
    pub components: bool,
}

/// Copies a bundle without some of its answers. Statement and signatures are those of the original and still hold.
///
/// # Errors
/// The folder is no bundle, a named probe is not in it, something is in the way, or the file system refuses.
pub fn withhold(bundle: &Path, to: &Path, what: &Withhold) -> Result<Created, BundleError> {
    let statement = read_statement(bundle)?;
    let record = runfolder::read_record(bundle)?;
    let mut closed = BTreeSet::new();
    for wanted in &what.probes {
        if !record.probes.iter().any(|probe| probe.probe == *wanted) {
            return Err(BundleError::NoProbe {
                run: record.run,
                probe: wanted.chars().take(80).collect(),
            });
        }
    }
    for probe in &record.probes {
        if what.probes.is_empty() || what.probes.contains(&probe.probe) {
            closed.extend(
                probe
                    .attempts
                    .iter()
                    .filter_map(|attempt| attempt.recording.as_deref()),
            );
        }
    }
    let partial = Partial::begin(to, Some(&record.run))?;
    let mut withheld = 0;
    let mut left_out = Vec::new();
    for file in list(bundle, &Limits::default())? {
        match &file.place {
            Place::Blob(attempt, _) if closed.contains(attempt.as_str()) => withheld += 1,
            Place::Component(digest) if what.components => {
                left_out.push(format!("sha256:{digest}"))
            }
            Place::Other => {
                return Err(BundleError::Structure {
                    path: file.path,
                    cause: "no part of a bundle; remove it first".to_owned(),
                });
            }
            _ => partial.copy(bundle, &bundle.join(&file.path))?,
        }
    }
    let files = partial.finish()?;
    Ok(Created {
        run: statement.predicate.run,
        files: files.len(),
        bytes: files.iter().map(|file| file.size).sum(),
        key: None,
        left_out,
        withheld,
        witness: None,
    })
}

/// The statement of a bundle.
pub(crate) fn read_statement(bundle: &Path) -> Result<Statement, BundleError> {
    Statement::parse(&read_statement_bytes(bundle)?)
}

/// The statement's bytes: what a signature is about.
pub(crate) fn read_statement_bytes(bundle: &Path) -> Result<Vec<u8>, BundleError> {
    let path = bundle.join(STATEMENT_FILE);
    let file = fs::File::open(&path).map_err(|error| BundleError::NoBundle {
        path: bundle.to_path_buf(),
        cause: if error.kind() == std::io::ErrorKind::NotFound {
            format!("there is no {STATEMENT_FILE}; `karat bundle create` makes one of a run")
        } else {
            format!("{STATEMENT_FILE}: {error}")
        },
    })?;
    let mut bytes = Vec::new();
    file.take(STATEMENT_MAX + 1)
        .read_to_end(&mut bytes)
        .map_err(io_error("read", &path))?;
    if bytes.len() as u64 > STATEMENT_MAX {
        return Err(BundleError::Structure {
            path: STATEMENT_FILE.to_owned(),
            cause: format!("larger than {STATEMENT_MAX} bytes"),
        });
    }
    Ok(bytes)
}

/// A bundle on its way, in a folder beside its place.
pub(super) struct Partial {
    pub(super) path: PathBuf,
    to: PathBuf,
}

impl Partial {
    /// Begins one. What is there already is replaced in the end if it is a bundle of this run.
    pub(super) fn begin(to: &Path, run: Option<&str>) -> Result<Partial, BundleError> {
        let occupied = |path: &Path, cause| BundleError::Occupied {
            path: path.to_path_buf(),
            cause,
        };
        let Some(name) = to.file_name() else {
            return Err(occupied(to, "it names no new folder"));
        };
        if fs::symlink_metadata(to).is_ok() {
            match read_statement(to) {
                Ok(there) if run == Some(there.predicate.run.as_str()) => {}
                Ok(_) if run.is_none() => {
                    return Err(occupied(
                        to,
                        "a bundle is there already; name another place",
                    ));
                }
                Ok(_) => {
                    return Err(occupied(
                        to,
                        "it is the bundle of another run; name another place",
                    ));
                }
                Err(_) => {
                    return Err(occupied(
                        to,
                        "it is there and is no bundle; name another place",
                    ));
                }
            }
        }
        let mut partial = name.to_owned();
        partial.push(PARTIAL);
        let path = to.with_file_name(partial);
        if fs::symlink_metadata(&path).is_ok() {
            // Without the marker it can be a whole bundle: the crash came right before or after the move. Or it is empty: the
            // crash came between the folder and its marker.
            let is_ours = path.join(MARKER).is_file() || read_statement(&path).is_ok();
            let gone = if is_ours {
                clear(&path)
            } else {
                fs::remove_dir(&path)
            };
            match gone {
                Ok(()) => {}
                Err(error) if is_ours => return Err(io_error("remove", &path)(error)),
                Err(_) => {
                    return Err(occupied(
                        &path,
                        "it is no bundle that was left unfinished; move it away",
                    ));
                }
            }
        }
        if let Some(parent) = path
            .parent()
            .filter(|parent| !parent.as_os_str().is_empty())
        {
            fs::create_dir_all(parent).map_err(io_error("create", parent))?;
        }
        DirBuilder::new()
            .mode(0o700)
            .create(&path)
            .map_err(io_error("create", &path))?;
        let partial = Partial {
            path,
            to: to.to_path_buf(),
        };
        partial.write(
            MARKER,
            b"A bundle is being written here, or a crash cut it off. It may be removed.\n",
        )?;
        Ok(partial)
    }

    /// Copies a file to the same place below this folder.
    fn copy(&self, root: &Path, from: &Path) -> Result<(), BundleError> {
        let relative = from.strip_prefix(root).unwrap_or(from);
        let to = self.make_room(relative)?;
        fs::copy(from, &to).map_err(io_error("copy", from))?;
        Ok(())
    }

    /// Signatures of a bundle that is replaced by one with the same statement still hold, and whoever adds the witness may
    /// not have the key at hand.
    fn keep_signatures(&self, statement: &[u8]) -> Result<(), BundleError> {
        if read_statement_bytes(&self.to).ok().as_deref() != Some(statement) {
            return Ok(());
        }
        for file in list(&self.to, &Limits::default())? {
            if file.place == Place::Signature {
                self.copy(&self.to, &self.to.join(&file.path))?;
            }
        }
        Ok(())
    }

    fn write(&self, name: &str, bytes: &[u8]) -> Result<(), BundleError> {
        let to = self.make_room(Path::new(name))?;
        fs::write(&to, bytes).map_err(io_error("write", &to))
    }

    pub(super) fn make_room(&self, relative: &Path) -> Result<PathBuf, BundleError> {
        let to = self.path.join(relative);
        if let Some(parent) = to.parent() {
            fs::create_dir_all(parent).map_err(io_error("create", parent))?;
        }
        Ok(to)
    }

    /// Moves everything to its place in one step.
    pub(super) fn finish(self) -> Result<Vec<File>, BundleError> {
        self.sync()?;
        let marker = self.path.join(MARKER);
        fs::remove_file(&marker).map_err(io_error("remove", &marker))?;
        let files = list(&self.path, &Limits::default())?;
        let moved = |flags| {
            renameat_with(CWD, &self.path, CWD, &self.to, flags)
                .map_err(|error| io_error("move into place", &self.to)(error.into()))
        };
        if self.to.exists() {
            // The old one then lies where this one lay, and goes with it.
            moved(RenameFlags::EXCHANGE)?;
        } else {
            moved(RenameFlags::NOREPLACE)?;
        }
        Ok(files)
    }

    /// One sync for the whole file system: a bundle has hundreds of small files.
    fn sync(&self) -> Result<(), BundleError> {
        let folder = fs::File::open(&self.path).map_err(io_error("open", &self.path))?;
        rustix::fs::syncfs(&folder).map_err(|error| io_error("sync", &self.path)(error.into()))
    }
}

impl Drop for Partial {
    fn drop(&mut self) {
        // What was never moved, or what was replaced; otherwise there is nothing at this path.
        if self.path.exists() {
            let _ = clear(&self.path);
        }
    }
}

/// Removes a folder that is ours. The marker stands from the first step to the last, so that a crash meanwhile leaves
/// something that is recognised.
fn clear(folder: &Path) -> io::Result<()> {
    let marker = folder.join(MARKER);
    fs::write(&marker, b"This folder is being removed.\n")?;
    for entry in fs::read_dir(folder)? {
        let entry = entry?;
        if entry.file_name() == MARKER {
            continue;
        }
        if entry.file_type()?.is_dir() {
            fs::remove_dir_all(entry.path())?;
        } else {
            fs::remove_file(entry.path())?;
        }
    }
    fs::remove_file(&marker)?;
    fs::remove_dir(folder)
}
