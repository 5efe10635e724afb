//! Reads what lies in a product folder, and writes a new one over it without ever losing a word: each file is written beside
//! its place, synced and renamed, evidence first and `PRODUCT.yaml` last. A crash leaves the old checklist or the new one,
//! and all that it names. Files of ours that an earlier run left are removed at the end; what is not ours is not touched.

use super::{Folder, OURS, ProductError};
use crate::catalog;
use crate::form::{self, FormError};
use crate::lint::PRODUCT;
use std::collections::BTreeSet;
use std::fs::{self, File};
use std::io::{self, Write as _};
use std::path::{Path, PathBuf};

/// Name of the page that says how to repeat and how to check.
pub const README: &str = "README.md";

/// Names below [`OURS`] that this program may have written, besides a page for each requirement.
const ARTEFACTS: [&str; 3] = ["e2e.log", "results.json", "junit.xml"];

/// How names of files begin and end that are not yet in their place.
const BESIDE: (&str, &str) = (".karat-", ".new");

/// What lies in a folder already.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Existing {
    /// `PRODUCT.yaml`, which could be read as a checklist.
    pub product: Option<String>,
    /// `README.md`.
    pub readme: Option<String>,
}

fn io_error(action: &'static str, path: &Path) -> impl FnOnce(io::Error) -> ProductError {
    let path = path.to_owned();
    move |source| ProductError::Io {
        action,
        path,
        source,
    }
}

impl Existing {
    /// Reads a folder, which need not be there.
    ///
    /// # Errors
    /// A `PRODUCT.yaml` that is no checklist, a file that is no text, or a symbolic link: nothing of that is ever overwritten.
    pub fn read(folder: &Path) -> Result<Existing, ProductError> {
        match fs::symlink_metadata(folder) {
            Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(Existing::default()),
            Err(error) => return Err(io_error("open", folder)(error)),
            Ok(found) if !found.is_dir() => {
                let error = io::Error::other("it is no folder, or a symbolic link to one");
                return Err(io_error("write into", folder)(error));
            }
            Ok(_) => {}
        }
        let product = text(&folder.join(PRODUCT), PRODUCT)?;
        if let Some(text) = &product {
            form::read_product(PRODUCT, text)?;
        }
        Ok(Existing {
            product,
            readme: text(&folder.join(README), README)?,
        })
    }
}

fn text(path: &Path, name: &str) -> Result<Option<String>, ProductError> {
    match fs::symlink_metadata(path) {
        Err(error) if error.kind() == io::ErrorKind::NotFound => Ok(None),
        Err(error) => Err(io_error("read", path)(error)),
        Ok(found) if !found.is_file() => {
            let error = io::Error::other("it is no plain file");
            Err(io_error("replace", path)(error))
        }
        Ok(_) => Ok(Some(form::read_file(path, name).map_err(
            |error: FormError| FormError {
                hint: format!("{}; move it away if it is not needed", error.hint),
                ..error
            },
        )?)),
    }
}

impl Folder {
    /// Writes the folder. `seen` is what it was made from; a file that has changed since is not overwritten.
    ///
    /// # Errors
    /// The file system refuses, something of another kind lies in the way, or somebody changed a file meanwhile. The old
    /// `PRODUCT.yaml` is there then.
    pub fn write(&self, folder: &Path, seen: &Existing) -> Result<(), ProductError> {
        let ours = folder.join(OURS);
        for path in [folder, &ours] {
            fs::create_dir_all(path).map_err(io_error("create", path))?;
            let found = fs::symlink_metadata(path).map_err(io_error("open", path))?;
            if !found.is_dir() {
                let error = io::Error::other("it is no folder, or a symbolic link to one");
                return Err(io_error("write into", path)(error));
            }
        }
        // Everything is written and synced beside its place before the first file gets its name.
        let mut staged = Staged::default();
        let mut last = None;
        for (name, bytes) in &self.files {
            let path = folder.join(name);
            match fs::symlink_metadata(&path) {
                Ok(found) if !found.is_file() => {
                    let error =
                        io::Error::other("something that is no plain file lies in its place");
                    return Err(io_error("replace", &path)(error));
                }
                _ => {}
            }
            let beside = staged.write(&path, bytes)?;
            if name == PRODUCT {
                last = Some((beside, path));
            } else {
                staged.renames.push((beside, path));
            }
        }
        staged.renames.extend(last);
        unchanged(folder, seen)?;
        for (beside, path) in &staged.renames {
            fs::rename(beside, path).map_err(io_error("replace", path))?;
        }
        staged.renames.clear();
        staged.files.clear();
        for path in [&ours, folder] {
            File::open(path)
                .and_then(|folder| folder.sync_all())
                .map_err(io_error("sync", path))?;
        }
        leftovers(folder)?;
        leftovers(&ours)?;
        self.sweep(&ours)
    }

    /// Removes pages and artefacts of an earlier run.
    fn sweep(&self, ours: &Path) -> Result<(), ProductError> {
        let pages = catalog::REQUIREMENTS
            .iter()
            .map(|requirement| requirement.id)
            .chain(self.decisions.iter().map(|decision| decision.id.as_str()))
            .map(|id| format!("{id}.md"));
        let names: BTreeSet<String> = pages.chain(ARTEFACTS.map(str::to_owned)).collect();
        for name in names {
            if self.files.contains_key(&format!("{OURS}{name}")) {
                continue;
            }
            let path = ours.join(name);
            if fs::symlink_metadata(&path).is_ok_and(|found| found.is_file()) {
                fs::remove_file(&path).map_err(io_error("remove", &path))?;
            }
        }
        Ok(())
    }
}

/// Removes what a killed run left beside.
fn leftovers(folder: &Path) -> Result<(), ProductError> {
    for entry in fs::read_dir(folder).map_err(io_error("list", folder))? {
        let entry = entry.map_err(io_error("list", folder))?;
        let name = entry.file_name();
        let name = name.to_string_lossy();
        let is_ours = name.starts_with(BESIDE.0) && name.ends_with(BESIDE.1);
        if is_ours && entry.file_type().is_ok_and(|kind| kind.is_file()) {
            let path = entry.path();
            fs::remove_file(&path).map_err(io_error("remove", &path))?;
        }
    }
    Ok(())
}

fn unchanged(folder: &Path, seen: &Existing) -> Result<(), ProductError> {
    for (name, seen) in [(PRODUCT, &seen.product), (README, &seen.readme)] {
        let path = folder.join(name);
        let there = match fs::read(&path) {
            Ok(bytes) => Some(bytes),
            Err(error) if error.kind() == io::ErrorKind::NotFound => None,
            Err(error) => return Err(io_error("read", &path)(error)),
        };
        if there.as_deref() != seen.as_ref().map(String::as_bytes) {
            return Err(ProductError::Changed { path });
        }
    }
    Ok(())
}

/// Files that have no name of their own yet. They go when something goes wrong.
#[derive(Default)]
struct Staged {
    files: Vec<PathBuf>,
    renames: Vec<(PathBuf, PathBuf)>,
}

impl Staged {
    fn write(&mut self, path: &Path, bytes: &[u8]) -> Result<PathBuf, ProductError> {
        let folder = path.parent().unwrap_or(path);
        let mut file = tempfile::Builder::new()
            .prefix(BESIDE.0)
            .suffix(BESIDE.1)
            .tempfile_in(folder)
            .map_err(io_error("write into", folder))?;
        file.write_all(bytes)
            .and_then(|()| file.as_file().sync_all())
            .map_err(io_error("write", path))?;
        readable(file.as_file()).map_err(io_error("write", path))?;
        let (_, beside) = file
            .keep()
            .map_err(|error| io_error("write", path)(error.error))?;
        self.files.push(beside.clone());
        Ok(beside)
    }
}

impl Drop for Staged {
    fn drop(&mut self) {
        for path in &self.files {
            let _ = fs::remove_file(path);
        }
    }
}

/// A product folder is made to be published; temporary files are private.
fn readable(file: &File) -> io::Result<()> {
    #[cfg(unix)]
    file.set_permissions(std::os::unix::fs::PermissionsExt::from_mode(0o644))?;
    #[cfg(not(unix))]
    let _ = file;
    Ok(())
}
