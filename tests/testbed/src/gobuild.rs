//! Builds programs from a pinned Go module into the cache.
//!
//! The cache lies outside the repository, in one folder per module set, named by a hash of go.mod, go.sum, the Go
//! version and the flags. A folder appears by rename when it is complete, so a half-built one is never used, and a
//! lock makes a second process wait for the first instead of compiling the same half million lines beside it.

use std::fs::{self, OpenOptions};
use std::io::{BufRead as _, BufReader, Write as _};
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};
use std::time::{Duration, Instant};

use sha2::{Digest as _, Sha256};

use crate::error::{Result, TestbedError};
use crate::supervise::{describe, die_with_parent};
use crate::version::{ModuleSet, Patch};

/// Time between two lines of progress during one long compilation.
const PROGRESS_EVERY: Duration = Duration::from_secs(15);

/// Flags of every build; part of the cache key. Checksums are enforced because `go.sum` may not be changed.
const FLAGS: &[&str] = &["-trimpath", "-mod=readonly", "-buildvcs=false"];

/// Bumped when the content of a cache folder changes meaning.
const CACHE_SCHEMA: &str = "1";

/// Where lines of progress go.
pub(crate) type Progress<'a> = &'a (dyn Fn(&str) + Sync);

/// The folder of everything the testbed caches: `KARAT_CACHE_DIR`, else the user's cache folder.
///
/// # Errors
/// If neither `KARAT_CACHE_DIR`, `XDG_CACHE_HOME` nor `HOME` is set.
pub fn cache_dir() -> Result<PathBuf> {
    if let Some(dir) = std::env::var_os("KARAT_CACHE_DIR").filter(|d| !d.is_empty()) {
        return Ok(dir.into());
    }
    if let Some(dir) = std::env::var_os("XDG_CACHE_HOME").filter(|d| !d.is_empty()) {
        return Ok(Path::new(&dir).join("karat"));
    }
    std::env::var_os("HOME")
        .filter(|d| !d.is_empty())
        .map(|home| Path::new(&home).join(".cache/karat"))
        .ok_or_else(|| TestbedError::Io {
            path: "cache folder".into(),
            source: std::io::Error::new(
                std::io::ErrorKind::NotFound,
                "none of KARAT_CACHE_DIR, XDG_CACHE_HOME and HOME is set",
            ),
        })
}

/// A usable `go` command.
#[derive(Clone, Debug)]
pub struct Go {
    /// What `go env GOVERSION` says, such as `go1.26.0`.
    pub version: String,
}

impl Go {
    /// Asks the `go` on `PATH` for its version.
    ///
    /// # Errors
    /// A sentence that says why it cannot be used.
    pub fn find() -> std::result::Result<Self, String> {
        // Outside of any module, else the toolchain line of a go.mod would decide the answer.
        let output = Command::new("go")
            .args(["env", "GOVERSION"])
            .current_dir("/")
            .env("GOWORK", "off")
            .output()
            .map_err(|e| format!("go: {e}"))?;
        let version = String::from_utf8_lossy(&output.stdout).trim().to_owned();
        if !output.status.success() || !version.starts_with("go1.") {
            return Err(format!("go env GOVERSION: {}", describe(output.status)));
        }
        Ok(Self { version })
    }
}

/// The folder of a module set for this Go version; it may not exist yet.
pub(crate) fn folder(set: &ModuleSet, go: &Go) -> Result<PathBuf> {
    let mut hash = Sha256::new();
    for part in [
        CACHE_SCHEMA,
        set.go_mod,
        set.go_sum,
        &go.version,
        set.ldflags,
        &FLAGS.join(" "),
        std::env::consts::ARCH,
    ] {
        hash.update((part.len() as u64).to_le_bytes());
        hash.update(part.as_bytes());
    }
    for (path, text) in set.sources {
        hash.update(path.as_bytes());
        hash.update(text.as_bytes());
    }
    for patch in set.patches {
        hash.update(format!("{patch:?}").as_bytes());
    }
    let hex: String = hash
        .finalize()
        .iter()
        .take(12)
        .map(|b| format!("{b:02x}"))
        .collect();
    Ok(cache_dir()?
        .join("testbed")
        .join(format!("{}-{hex}", set.name)))
}

/// Builds all programs of `set` unless the cache has them; returns the folder with `bin/` and what `extra` added.
///
/// `extra` is called with the module's folder and the unfinished cache folder after the build.
pub(crate) fn build(
    set: &ModuleSet,
    go: &Go,
    progress: Progress<'_>,
    extra: impl Fn(&Path, &Path) -> Result<()>,
) -> Result<PathBuf> {
    let target = folder(set, go)?;
    if target.is_dir() {
        return Ok(target);
    }
    let parent = target.parent().unwrap_or(Path::new("/"));
    fs::create_dir_all(parent).map_err(TestbedError::io(parent))?;
    let lock_path = target.with_extension("lock");
    let lock = OpenOptions::new()
        .create(true)
        .truncate(false)
        .write(true)
        .open(&lock_path)
        .map_err(TestbedError::io(&lock_path))?;
    if lock.try_lock().is_err() {
        progress(&format!(
            "{}: another process is building it; waiting",
            set.name
        ));
        lock.lock().map_err(TestbedError::io(&lock_path))?;
    }
    if target.is_dir() {
        return Ok(target);
    }

    let work = tempfile::Builder::new()
        .prefix(".build-")
        .tempdir_in(parent)
        .map_err(TestbedError::io(parent))?;
    let module = work.path().join("module");
    let result = work.path().join("result");
    for dir in [&module, &result.join("bin")] {
        fs::create_dir_all(dir).map_err(TestbedError::io(dir))?;
    }
    write_module(set, &module)?;
    let began = Instant::now();
    progress(&format!(
        "{}: downloading modules with {} (first time: several minutes on two cores)",
        set.name, go.version
    ));
    run(
        set.name,
        go_command(&module).args(["mod", "download"]),
        progress,
        began,
    )?;
    for patch in set.patches {
        apply(patch, &module)?;
    }
    for (name, package) in set.programs {
        let one = Instant::now();
        progress(&format!("{name}: compiling {package}"));
        let output = result.join("bin").join(name);
        run(
            name,
            go_command(&module)
                .arg("build")
                .args(FLAGS)
                .args(["-v", "-ldflags", set.ldflags, "-o"])
                .arg(&output)
                .arg(package),
            progress,
            one,
        )?;
        progress(&format!("{name}: built in {} s", one.elapsed().as_secs()));
    }
    extra(&module, &result)?;
    fs::rename(&result, &target).map_err(TestbedError::io(&target))?;
    progress(&format!(
        "{}: done in {} s, kept in {}",
        set.name,
        began.elapsed().as_secs(),
        target.display()
    ));
    Ok(target)
}

/// Writes the compiled-in module files into `dir`.
pub(crate) fn write_module(set: &ModuleSet, dir: &Path) -> Result<()> {
    for (file, text) in [("go.mod", set.go_mod), ("go.sum", set.go_sum)] {
        let path = dir.join(file);
        fs::write(&path, text).map_err(TestbedError::io(&path))?;
    }
    for (file, text) in set.sources {
        let path = dir.join(file);
        let folder = path.parent().unwrap_or(dir);
        fs::create_dir_all(folder).map_err(TestbedError::io(folder))?;
        fs::write(&path, text).map_err(TestbedError::io(&path))?;
    }
    Ok(())
}

/// Puts a changed copy of another module's file into `module`.
fn apply(patch: &Patch, module: &Path) -> Result<()> {
    let from = module_dir(module, patch.module)?.join(patch.from);
    let text = fs::read_to_string(&from).map_err(TestbedError::io(&from))?;
    let text = edited(&text, patch.edits).map_err(|cause| TestbedError::Failed {
        what: format!("changing a copy of {}", from.display()),
        status: cause,
        tail: "the module has another version than the change was made for".into(),
    })?;
    let to = module.join(patch.to);
    let folder = to.parent().unwrap_or(module);
    fs::create_dir_all(folder).map_err(TestbedError::io(folder))?;
    fs::write(&to, text).map_err(TestbedError::io(&to))
}

fn edited(text: &str, edits: &[(&str, &str)]) -> std::result::Result<String, String> {
    let mut text = text.to_owned();
    for (old, new) in edits {
        match text.matches(old).count() {
            1 => text = text.replace(old, new),
            n => return Err(format!("{old:?} occurs {n} times, not once")),
        }
    }
    Ok(text)
}

/// Where the module cache has a module, which `go` fetches and checks if need be.
pub(crate) fn module_dir(module: &Path, path: &str) -> Result<PathBuf> {
    let output = go_command(module)
        .args(["mod", "download", "-json", path])
        .output()
        .map_err(|source| TestbedError::Spawn {
            program: "go".into(),
            source,
        })?;
    let answer: serde_json::Value = serde_json::from_slice(&output.stdout).unwrap_or_default();
    answer["Dir"]
        .as_str()
        .map(PathBuf::from)
        .ok_or_else(|| TestbedError::Build {
            what: format!("module {path}"),
            status: describe(output.status),
            tail: answer["Error"].as_str().map_or_else(
                || String::from_utf8_lossy(&output.stderr).into_owned(),
                str::to_owned,
            ),
        })
}

/// A `go` command in `module` that no setting of the user can bend: same flags, same cache key.
pub(crate) fn go_command(module: &Path) -> Command {
    let mut command = Command::new("go");
    command
        .current_dir(module)
        .env("CGO_ENABLED", "0")
        .env("GOWORK", "off")
        .env("GOFLAGS", "-mod=readonly")
        .env_remove("GOOS")
        .env_remove("GOARCH");
    die_with_parent(&mut command);
    command
}

/// Runs a build, counting the packages that `-v` names.
fn run(what: &str, command: &mut Command, progress: Progress<'_>, began: Instant) -> Result<()> {
    let mut child = command
        .stdin(Stdio::null())
        .stdout(Stdio::null())
        .stderr(Stdio::piped())
        .spawn()
        .map_err(|source| TestbedError::Spawn {
            program: "go".into(),
            source,
        })?;
    let mut tail: Vec<String> = Vec::new();
    let mut packages = 0_u32;
    let mut spoke = Instant::now();
    if let Some(stderr) = child.stderr.take() {
        for line in BufReader::new(stderr)
            .lines()
            .map_while(std::result::Result::ok)
        {
            packages += 1;
            if spoke.elapsed() >= PROGRESS_EVERY {
                spoke = Instant::now();
                progress(&format!(
                    "{what}: {packages} packages, {} s (now {line})",
                    began.elapsed().as_secs()
                ));
            }
            if tail.len() == 20 {
                tail.remove(0);
            }
            tail.push(line);
        }
    }
    let status = child.wait().map_err(|source| TestbedError::Spawn {
        program: "go".into(),
        source,
    })?;
    if status.success() {
        return Ok(());
    }
    let tail = tail
        .iter()
        .map(|l| format!("  {l}"))
        .collect::<Vec<_>>()
        .join("\n");
    Err(TestbedError::Build {
        what: what.to_owned(),
        status: describe(status),
        tail,
    })
}

/// The default sink for progress: standard error, which the test runner does not capture when written directly.
pub(crate) fn to_stderr(line: &str) {
    let _ = writeln!(std::io::stderr(), "testbed: {line}");
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::version::{K137, TOOLS};

    #[test]
    fn the_cache_key_covers_module_and_go_version() {
        let a = Go {
            version: "go1.26.0".into(),
        };
        let b = Go {
            version: "go1.26.1".into(),
        };
        assert_ne!(folder(&K137, &a).unwrap(), folder(&K137, &b).unwrap());
        assert_ne!(folder(&K137, &a).unwrap(), folder(&TOOLS, &a).unwrap());
        assert_eq!(folder(&K137, &a).unwrap(), folder(&K137, &a).unwrap());
    }

    #[test]
    fn an_edit_that_does_not_fit_is_refused() {
        let text = "package v1\nscore = -999\n";
        assert_eq!(
            edited(text, &[("package v1\n", "package main\n"), ("-999", "0")]).unwrap(),
            "package main\nscore = 0\n"
        );
        assert!(
            edited(text, &[("-998", "0")])
                .unwrap_err()
                .contains("0 times")
        );
    }

    #[test]
    fn a_failed_command_shows_its_last_lines() {
        let mut command = Command::new("sh");
        command.args(["-c", "echo first >&2; echo no such module >&2; exit 3"]);
        let error = run("etcd", &mut command, &|_| {}, Instant::now())
            .unwrap_err()
            .to_string();
        assert!(
            error.contains("etcd")
                && error.contains("exit status 3")
                && error.contains("no such module"),
            "{error}"
        );
    }
}
