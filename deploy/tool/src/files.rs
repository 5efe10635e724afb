//! What a container can see and open: `cat`, `ls`, `env`, `open`, `mknod`.

use std::fs::OpenOptions;
use std::io::{self, Write as _};
use std::os::unix::fs::OpenOptionsExt as _;
use std::process::ExitCode;

use rustix::fs::{CWD, FileType, Mode, OFlags, makedev, mknodat};

use crate::{Failure, report};

/// Writes files to standard output; the first that cannot be read ends it.
pub(crate) fn cat(paths: &[&str]) -> Result<ExitCode, Failure> {
    let mut out = io::stdout();
    for path in paths {
        let mut file = std::fs::File::open(path).map_err(|e| format!("{path}: {e}"))?;
        io::copy(&mut file, &mut out).map_err(|e| format!("{path}: {e}"))?;
    }
    out.flush()?;
    Ok(ExitCode::SUCCESS)
}

/// Names in folders, sorted; a file is listed as itself.
pub(crate) fn ls(paths: &[&str]) -> Result<ExitCode, Failure> {
    let mut out = io::stdout();
    for path in paths {
        let meta = std::fs::symlink_metadata(path).map_err(|e| format!("{path}: {e}"))?;
        let mut names = vec![];
        if meta.is_dir() {
            for entry in std::fs::read_dir(path).map_err(|e| format!("{path}: {e}"))? {
                let entry = entry?;
                let end = if entry.file_type()?.is_dir() { "/" } else { "" };
                names.push(format!("{}{end}", entry.file_name().to_string_lossy()));
            }
        } else {
            names.push((*path).to_owned());
        }
        names.sort();
        for name in names {
            writeln!(out, "{name}")?;
        }
    }
    Ok(ExitCode::SUCCESS)
}

/// All variables, or the named ones. One that is not set gives exit code 1.
pub(crate) fn env(names: &[&str]) -> Result<ExitCode, Failure> {
    let mut out = io::stdout();
    let mut all: Vec<_> = std::env::vars_os()
        .map(|(k, v)| (k.to_string_lossy().into_owned(), v))
        .filter(|(k, _)| names.is_empty() || names.contains(&k.as_str()))
        .collect();
    all.sort();
    for (name, value) in &all {
        writeln!(out, "{name}={}", value.to_string_lossy())?;
    }
    Ok(if names.iter().all(|n| all.iter().any(|(k, _)| k == n)) {
        ExitCode::SUCCESS
    } else {
        ExitCode::FAILURE
    })
}

/// Opens each file and says what came of it. The exit code is 0 as long as all could be tried.
pub(crate) fn open(paths: &[&str], write: bool) -> Result<ExitCode, Failure> {
    for path in paths {
        let result = OpenOptions::new()
            .read(!write)
            .write(write)
            // A terminal or pipe without another end must not hold us.
            .custom_flags(
                i32::try_from(OFlags::NONBLOCK.bits() | OFlags::NOCTTY.bits()).unwrap_or(0),
            )
            .open(path)
            .map(|_| ());
        report("path", path, "opened", &result)?;
    }
    Ok(ExitCode::SUCCESS)
}

/// Makes a character device that anybody may open as far as its mode goes.
pub(crate) fn mknod(path: &str, major: u32, minor: u32) -> Result<ExitCode, Failure> {
    let result = mknodat(
        CWD,
        path,
        FileType::CharacterDevice,
        Mode::from_raw_mode(0o666),
        makedev(major, minor),
    )
    .map_err(io::Error::from);
    report("path", path, "made", &result)?;
    Ok(ExitCode::SUCCESS)
}
