//! Compiled code on disk, so that a probe is compiled once for each engine version and machine.
//!
//! Machine code is trusted code, so this module only ever loads what it wrote itself: nobody else may write to the folder, a
//! file is re-hashed when it is read, and its name depends on the component's digest and on everything that the compiler's
//! output depends on. Any trouble ends in a fresh compilation, never in an error. Precompiled code from anywhere else is
//! refused by [`crate::component`]. Code that nobody needed for a month is removed.

use sha2::{Digest, Sha256};
use std::fs;
use std::hash::{Hash, Hasher};
use std::io::{Read, Write};
use std::os::unix::fs::{DirBuilderExt, MetadataExt, PermissionsExt};
use std::path::{Path, PathBuf};
use std::time::{Duration, SystemTime};
use wasmtime::component::Component;

/// Largest file that is read back; CPython compiles to about 35 MB.
const MAX_FILE_BYTES: u64 = 512 << 20;

/// Ending of the files.
const EXTENSION: &str = "cwasm";

/// For how long code is kept that nobody needs.
const KEPT: Duration = Duration::from_hours(24 * 30);

/// How old the time of a file gets before a reader sets it anew.
const FRESH: Duration = Duration::from_hours(24);

/// Length of the digest at the start of a file.
const DIGEST_BYTES: usize = 32;

/// A folder of compiled components.
#[derive(Debug)]
pub struct AotCache {
    folder: PathBuf,
    compatibility: String,
}

impl AotCache {
    pub(crate) fn new(folder: PathBuf, engine: &wasmtime::Engine) -> AotCache {
        AotCache {
            folder,
            compatibility: compatibility(engine),
        }
    }

    /// Loads compiled code for the component with this digest, or compiles the bytes and keeps the result.
    pub(crate) fn load_or_compile(
        &self,
        engine: &wasmtime::Engine,
        digest: &str,
        bytes: &[u8],
    ) -> wasmtime::Result<Component> {
        let file = self.file(digest);
        if let Some(code) = self.read(&file)
            && let Ok(component) = deserialize(engine, &code)
        {
            return Ok(component);
        }
        let code = engine.precompile_component(bytes)?;
        // A full disk or a folder of somebody else costs time, not the run.
        let _ = self.write(&file, &code);
        deserialize(engine, &code)
    }

    fn file(&self, digest: &str) -> PathBuf {
        let mut key = Sha256::new();
        key.update(digest.as_bytes());
        key.update([0]);
        key.update(self.compatibility.as_bytes());
        self.folder
            .join(hex(&key.finalize()))
            .with_extension(EXTENSION)
    }

    /// The code of a file that is intact and that nobody else could have written.
    fn read(&self, file: &Path) -> Option<Vec<u8>> {
        is_ours(&self.folder).ok()?;
        let open = fs::File::open(file).ok()?;
        let meta = open.metadata().ok()?;
        if !meta.is_file() || meta.uid() != own_uid() || meta.len() > MAX_FILE_BYTES {
            return None;
        }
        if age(&meta) > FRESH {
            let _ = open.set_modified(SystemTime::now());
        }
        let mut content = Vec::with_capacity(usize::try_from(meta.len()).ok()?);
        open.take(MAX_FILE_BYTES).read_to_end(&mut content).ok()?;
        let (digest, code) = content.split_at_checked(DIGEST_BYTES)?;
        (Sha256::digest(code).as_slice() == digest).then(|| code.to_vec())
    }

    fn write(&self, file: &Path, code: &[u8]) -> std::io::Result<()> {
        if !self.folder.exists() {
            fs::DirBuilder::new()
                .recursive(true)
                .mode(0o700)
                .create(&self.folder)?;
        }
        is_ours(&self.folder)?;
        let mut temporary = tempfile::NamedTempFile::new_in(&self.folder)?;
        temporary.write_all(&Sha256::digest(code))?;
        temporary.write_all(code)?;
        temporary.persist(file)?;
        self.prune()
    }

    /// Removes what nobody needed for a long time: code of probes and engines that were replaced.
    fn prune(&self) -> std::io::Result<()> {
        for entry in fs::read_dir(&self.folder)? {
            let entry = entry?;
            let is_code = entry.path().extension().is_some_and(|e| e == EXTENSION);
            if is_code && age(&entry.metadata()?) > KEPT {
                fs::remove_file(entry.path())?;
            }
        }
        Ok(())
    }
}

/// Time since a file was written or set anew; none where a clock went back.
fn age(meta: &fs::Metadata) -> Duration {
    let modified = meta.modified().ok();
    modified
        .and_then(|time| time.elapsed().ok())
        .unwrap_or_default()
}

/// Everything that the compiler's output depends on, as text.
pub(crate) fn compatibility(engine: &wasmtime::Engine) -> String {
    struct IntoSha(Sha256);
    impl Hasher for IntoSha {
        fn finish(&self) -> u64 {
            0
        }
        fn write(&mut self, bytes: &[u8]) {
            self.0.update(bytes);
        }
    }
    let mut hasher = IntoSha(Sha256::new());
    engine.precompile_compatibility_hash().hash(&mut hasher);
    hex(&hasher.0.finalize())
}

fn is_ours(folder: &Path) -> std::io::Result<()> {
    let meta = fs::symlink_metadata(folder)?;
    if meta.is_dir() && meta.uid() == own_uid() && meta.permissions().mode() & 0o022 == 0 {
        Ok(())
    } else {
        Err(std::io::Error::other(
            "others can write to the folder for compiled code",
        ))
    }
}

fn own_uid() -> u32 {
    rustix::process::geteuid().as_raw()
}

fn hex(bytes: &[u8]) -> String {
    data_encoding::HEXLOWER.encode(bytes)
}

#[expect(
    unsafe_code,
    reason = "wasmtime cannot check that machine code is its own"
)]
fn deserialize(engine: &wasmtime::Engine, code: &[u8]) -> wasmtime::Result<Component> {
    // SAFETY: the bytes are the output of `precompile_component`: either of this very call of `load_or_compile`, or read
    // by `AotCache::read` from a folder that only this user can write to, in a file whose digest matches its content and
    // whose name holds the compiler's compatibility hash. Nothing else calls this function.
    unsafe { Component::deserialize(engine, code) }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::engine::{Engine, EngineOptions};

    /// The smallest component: the header alone.
    const EMPTY: &[u8] = b"\0asm\x0d\0\x01\0";

    fn engine(cache: &Path) -> Engine {
        Engine::new(&EngineOptions {
            cache: Some(cache.to_owned()),
            on_demand: true,
        })
        .unwrap()
    }

    fn only_file(folder: &Path) -> PathBuf {
        let mut files = fs::read_dir(folder).unwrap();
        let file = files.next().unwrap().unwrap().path();
        assert!(files.next().is_none());
        file
    }

    #[test]
    fn code_is_written_once_into_a_private_folder_and_read_back() {
        let temporary = tempfile::tempdir().unwrap();
        let folder = temporary.path().join("aot");
        let engine = engine(&folder);
        engine.compile("sha256:empty", EMPTY).unwrap();
        assert_eq!(
            fs::metadata(&folder).unwrap().permissions().mode() & 0o777,
            0o700
        );
        let written = fs::metadata(only_file(&folder)).unwrap().ino();
        // Bytes that cannot be compiled prove that the second load came from the file.
        engine.compile("sha256:empty", b"not wasm").unwrap();
        assert_eq!(fs::metadata(only_file(&folder)).unwrap().ino(), written);
        assert!(engine.compile("sha256:other", b"not wasm").is_err());
    }

    #[test]
    fn damaged_code_is_compiled_again() {
        let temporary = tempfile::tempdir().unwrap();
        let folder = temporary.path().join("aot");
        let engine = engine(&folder);
        engine.compile("sha256:empty", EMPTY).unwrap();
        let file = only_file(&folder);
        let mut content = fs::read(&file).unwrap();
        let middle = content.len() / 2;
        content[middle] ^= 1;
        fs::write(&file, &content).unwrap();
        assert!(engine.compile("sha256:empty", b"not wasm").is_err());
        engine.compile("sha256:empty", EMPTY).unwrap();
        engine.compile("sha256:empty", b"not wasm").unwrap();
    }

    #[test]
    fn a_folder_that_others_can_write_to_is_neither_read_nor_written() {
        let temporary = tempfile::tempdir().unwrap();
        let folder = temporary.path().join("aot");
        let engine = engine(&folder);
        engine.compile("sha256:empty", EMPTY).unwrap();
        fs::set_permissions(&folder, fs::Permissions::from_mode(0o770)).unwrap();
        assert!(engine.compile("sha256:empty", b"not wasm").is_err());
        engine.compile("sha256:second", EMPTY).unwrap();
        // Code is no secret: others may read.
        fs::set_permissions(&folder, fs::Permissions::from_mode(0o755)).unwrap();
        only_file(&folder);
        engine.compile("sha256:empty", b"not wasm").unwrap();
    }

    #[test]
    fn what_nobody_needs_is_removed_and_nothing_else() {
        let temporary = tempfile::tempdir().unwrap();
        let folder = temporary.path().join("aot");
        let engine = engine(&folder);
        let long_ago = SystemTime::now() - KEPT - FRESH;
        let age_all = || {
            for entry in fs::read_dir(&folder).unwrap() {
                let file = fs::File::open(entry.unwrap().path()).unwrap();
                file.set_modified(long_ago).unwrap();
            }
        };
        engine.compile("sha256:old", EMPTY).unwrap();
        engine.compile("sha256:used", EMPTY).unwrap();
        fs::write(folder.join("notes.txt"), "not ours").unwrap();
        age_all();
        engine.compile("sha256:used", b"not wasm").unwrap();
        engine.compile("sha256:new", EMPTY).unwrap();
        assert!(engine.compile("sha256:old", b"not wasm").is_err());
        engine.compile("sha256:used", b"not wasm").unwrap();
        assert!(folder.join("notes.txt").exists());
    }
}
