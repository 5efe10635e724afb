//! State folders: where they lie, who owns them, how a stale one is recognised, and free ports.
//!
//! A laboratory owns one folder below a private root. As long as its owner lives, the owner holds an exclusive
//! lock on `owner.lock` in it; a folder whose lock can be taken belongs to nobody and is removed by whoever comes
//! next. A lock, unlike a pid file, cannot be fooled by a recycled pid and is released by `kill -9`.

use std::fs::{self, DirBuilder, File, OpenOptions};
use std::io::{Read as _, Seek as _, Write as _};
use std::net::{Ipv4Addr, SocketAddrV4, TcpListener};
use std::os::unix::fs::{DirBuilderExt as _, MetadataExt as _};
use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicU32, Ordering};

use crate::error::{Result, TestbedError};

/// How many folders with the logs of failed starts are kept for reading.
const KEPT_FAILURES: usize = 8;

/// The root of all state folders of this user: `KARAT_TESTBED_DIR`, else a folder in the temporary directory.
pub(crate) fn root() -> Result<PathBuf> {
    let path = match std::env::var_os("KARAT_TESTBED_DIR") {
        Some(dir) => PathBuf::from(dir),
        None => {
            std::env::temp_dir().join(format!("karat-tb-{}", rustix::process::getuid().as_raw()))
        }
    };
    DirBuilder::new()
        .recursive(true)
        .mode(0o700)
        .create(&path)
        .map_err(TestbedError::io(&path))?;
    // Below it lie keys of cluster administrators, and /tmp is shared: somebody else may have made the folder first.
    let meta = fs::symlink_metadata(&path).map_err(TestbedError::io(&path))?;
    let cause = if !meta.is_dir() {
        Some("not a directory".to_owned())
    } else if meta.uid() != rustix::process::getuid().as_raw() {
        Some(format!("owned by uid {}", meta.uid()))
    } else if meta.mode() & 0o022 != 0 {
        Some(format!(
            "writable by others (mode {:o})",
            meta.mode() & 0o777
        ))
    } else {
        None
    };
    match cause {
        Some(cause) => Err(TestbedError::UnsafeStateDir { path, cause }),
        None => Ok(path),
    }
}

/// A state folder held by this process. Dropping it releases the lock; removing the files is the janitor's work.
#[derive(Debug)]
pub(crate) struct StateDir {
    path: PathBuf,
    _lock: File,
}

impl StateDir {
    /// Makes a folder with an unused name.
    pub(crate) fn anonymous() -> Result<Self> {
        static NEXT: AtomicU32 = AtomicU32::new(0);
        let n = NEXT.fetch_add(1, Ordering::Relaxed);
        Self::create(&format!("t-{}-{n}", std::process::id()))
    }

    /// Makes the folder of a named laboratory.
    ///
    /// # Errors
    /// [`TestbedError::AlreadyRunning`] if another process holds it.
    pub(crate) fn named(name: &str) -> Result<Self> {
        check_name(name)?;
        Self::create(&format!("n-{name}"))
    }

    fn create(leaf: &str) -> Result<Self> {
        let root = root()?;
        let _guard = root_lock(&root)?;
        sweep(&root)?;
        let path = root.join(leaf);
        DirBuilder::new()
            .mode(0o700)
            .create(&path)
            .map_err(|source| {
                if source.kind() == std::io::ErrorKind::AlreadyExists {
                    TestbedError::AlreadyRunning {
                        name: leaf.trim_start_matches("n-").to_owned(),
                        pid: owner(&path).unwrap_or_default(),
                    }
                } else {
                    TestbedError::Io {
                        path: path.clone(),
                        source,
                    }
                }
            })?;
        let lock_path = path.join("owner.lock");
        let mut lock = File::create_new(&lock_path).map_err(TestbedError::io(&lock_path))?;
        lock.lock().map_err(TestbedError::io(&lock_path))?;
        write!(lock, "{}", std::process::id()).map_err(TestbedError::io(&lock_path))?;
        Ok(Self { path, _lock: lock })
    }

    /// The folder.
    pub(crate) fn path(&self) -> &Path {
        &self.path
    }

    /// Moves the logs out of the folder, so that an error may point to them after the rest is gone.
    pub(crate) fn keep_logs(&self) -> Option<PathBuf> {
        let failed = root().ok()?.join("failed");
        fs::create_dir_all(&failed).ok()?;
        let mut old: Vec<_> = fs::read_dir(&failed)
            .ok()?
            .flatten()
            .filter_map(|e| Some((e.metadata().ok()?.modified().ok()?, e.path())))
            .collect();
        old.sort();
        for (_, path) in old.iter().rev().skip(KEPT_FAILURES - 1) {
            let _ = fs::remove_dir_all(path);
        }
        let target = failed.join(format!(
            "{}-{}",
            self.path.file_name()?.to_string_lossy(),
            jiff::Timestamp::now().as_millisecond()
        ));
        fs::rename(self.path.join("log"), &target).ok()?;
        Some(target)
    }
}

/// Refuses names that could leave the root or make socket paths too long.
pub(crate) fn check_name(name: &str) -> Result<()> {
    let fine = (1..=30).contains(&name.len())
        && name
            .bytes()
            .all(|b| b.is_ascii_lowercase() || b.is_ascii_digit() || b == b'-');
    if fine {
        Ok(())
    } else {
        Err(TestbedError::BadName(name.to_owned()))
    }
}

/// The folder of a named laboratory, whether it exists or not.
pub(crate) fn named_path(name: &str) -> Result<PathBuf> {
    check_name(name)?;
    Ok(root()?.join(format!("n-{name}")))
}

/// The pid of the process that holds a folder; `None` if nobody does.
pub(crate) fn owner(dir: &Path) -> Option<u32> {
    let mut file = OpenOptions::new()
        .read(true)
        .write(true)
        .open(dir.join("owner.lock"))
        .ok()?;
    if file.try_lock().is_ok() {
        return None;
    }
    let mut text = String::new();
    file.rewind().ok()?;
    file.read_to_string(&mut text).ok()?;
    text.parse().ok()
}

/// Names of all named laboratories that are alive.
pub(crate) fn living_names() -> Result<Vec<String>> {
    let root = root()?;
    let _guard = root_lock(&root)?;
    sweep(&root)?;
    crate::node::net::sweep();
    let mut names: Vec<_> = fs::read_dir(&root)
        .map_err(TestbedError::io(&root))?
        .flatten()
        .filter_map(|e| {
            e.file_name()
                .to_string_lossy()
                .strip_prefix("n-")
                .map(str::to_owned)
        })
        .collect();
    names.sort();
    Ok(names)
}

/// One process at a time creates or sweeps, else a sweeper could take a folder between its creation and its lock.
fn root_lock(root: &Path) -> Result<File> {
    let path = root.join("root.lock");
    let file = OpenOptions::new()
        .create(true)
        .truncate(false)
        .write(true)
        .open(&path)
        .map_err(TestbedError::io(&path))?;
    file.lock().map_err(TestbedError::io(&path))?;
    Ok(file)
}

/// Removes folders whose owner is dead. Their programs are dead too: the kernel killed them with the owner.
fn sweep(root: &Path) -> Result<()> {
    for entry in fs::read_dir(root)
        .map_err(TestbedError::io(root))?
        .flatten()
    {
        let name = entry.file_name();
        let name = name.to_string_lossy();
        let ours = name.starts_with("t-") || name.starts_with("n-");
        if ours && owner(&entry.path()).is_none() {
            // A janitor may be at work on the same folder; whoever loses has nothing left to do.
            let _ = fs::remove_dir_all(entry.path());
        }
    }
    Ok(())
}

/// Finds `count` free TCP ports on loopback.
///
/// All are bound at once so that they differ. The kernel hands out any port to an outgoing connection between this
/// call and the program's own bind, so a start that loses that race is tried again with other ports.
pub(crate) fn free_ports(count: usize) -> Result<Vec<u16>> {
    let held: Vec<TcpListener> = (0..count)
        .map(|_| TcpListener::bind(SocketAddrV4::new(Ipv4Addr::LOCALHOST, 0)))
        .collect::<std::io::Result<_>>()
        .map_err(TestbedError::io("127.0.0.1:0"))?;
    held.iter()
        .map(|l| {
            l.local_addr()
                .map(|a| a.port())
                .map_err(TestbedError::io("127.0.0.1:0"))
        })
        .collect()
}

/// The last `lines` lines of a file; what cannot be read is said so instead.
pub(crate) fn tail(path: &Path, lines: usize) -> String {
    match fs::read(path) {
        Ok(bytes) => {
            let text = String::from_utf8_lossy(&bytes);
            let all: Vec<&str> = text.lines().collect();
            let from = all.len().saturating_sub(lines);
            if all.is_empty() {
                "  (the log is empty)".to_owned()
            } else {
                all[from..]
                    .iter()
                    .map(|l| format!("  {l}"))
                    .collect::<Vec<_>>()
                    .join("\n")
            }
        }
        Err(e) => format!("  (log cannot be read: {e})"),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names_cannot_leave_the_root() {
        for bad in ["", "..", "a/b", "A", "a b", "ä", "a.b", &"a".repeat(31)] {
            assert!(check_name(bad).is_err(), "{bad:?} was accepted");
        }
        assert!(check_name("default-2").is_ok());
    }

    #[test]
    fn a_held_folder_has_an_owner_and_a_released_one_has_none() {
        let dir = StateDir::anonymous().unwrap();
        let path = dir.path().to_owned();
        assert_eq!(owner(&path), Some(std::process::id()));
        drop(dir);
        assert_eq!(owner(&path), None);
        fs::remove_dir_all(path).unwrap();
    }

    #[test]
    fn stale_folders_are_swept() {
        let dir = StateDir::anonymous().unwrap();
        let path = dir.path().to_owned();
        drop(dir);
        let other = StateDir::anonymous().unwrap();
        assert!(!path.exists());
        assert!(other.path().exists());
        fs::remove_dir_all(other.path()).unwrap();
    }

    #[test]
    fn ports_differ() {
        let mut ports = free_ports(8).unwrap();
        ports.sort_unstable();
        ports.dedup();
        assert_eq!(ports.len(), 8);
    }

    #[test]
    fn tail_takes_the_end() {
        let file = tempfile::NamedTempFile::new().unwrap();
        fs::write(file.path(), "one\ntwo\nthree\n").unwrap();
        assert_eq!(tail(file.path(), 2), "  two\n  three");
        assert!(tail(Path::new("/nonexistent"), 2).contains("cannot be read"));
    }
}
