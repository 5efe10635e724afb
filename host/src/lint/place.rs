//! Where evidence lies: a path as text, resolved as the validator does it, and what it leads to. Nothing is opened here and no
//! link is followed.

use std::path::{Component, Path, PathBuf};

/// Evidence below the folder.
pub(super) struct Place {
    pub(super) path: PathBuf,
    /// Relative to the folder, for findings.
    pub(super) name: String,
    pub(super) fragment: Option<String>,
}

/// What a path leads to.
pub(super) enum State {
    File,
    Folder,
    /// Empty.
    Hollow,
    Linked,
    /// A pipe, a socket or a device.
    Odd,
    Absent,
}

/// Takes a path apart as the validator does: `file://` and the fragment go, then the folder's own `vX.Y/name/` in front.
pub(super) fn resolve(root: &Path, link: &str) -> Result<Place, &'static str> {
    let raw = link.trim();
    let raw = raw.strip_prefix("file://").unwrap_or(raw);
    let (raw, fragment) = match raw.split_once('#') {
        Some((raw, fragment)) => (raw, Some(fragment.to_owned())),
        None => (raw, None),
    };
    let raw = raw.trim();
    let raw = raw.strip_prefix('/').unwrap_or(raw);
    if raw.is_empty() {
        return Err("names no file");
    }
    if raw.contains('\0') {
        return Err("has a character that no path can have");
    }
    let name = |path: Option<&Path>| {
        path.and_then(Path::file_name)
            .map(|name| name.to_string_lossy().into_owned())
    };
    let own = match (name(root.parent()), name(Some(root))) {
        (Some(above), Some(name)) => Some(format!("{above}/{name}/")),
        _ => None,
    };
    let raw = match own.as_deref().and_then(|own| raw.strip_prefix(own)) {
        Some(rest) => rest,
        None if is_of_product(raw) => return Err("lies in the folder of another product"),
        None => raw,
    };
    let mut path = root.to_owned();
    for part in Path::new(raw).components() {
        match part {
            Component::Normal(part) => path.push(part),
            Component::ParentDir => {
                path.pop();
            }
            Component::CurDir | Component::RootDir | Component::Prefix(_) => {}
        }
    }
    match path.strip_prefix(root) {
        Ok(below) if below.as_os_str().is_empty() => Err("is the folder itself"),
        Ok(below) => Ok(Place {
            name: below.to_string_lossy().into_owned(),
            fragment,
            path,
        }),
        Err(_) => Err("leaves the product folder"),
    }
}

/// Whether a path begins like `v1.37/product/`.
fn is_of_product(raw: &str) -> bool {
    let mut parts = raw.split('/');
    let version = parts.next().and_then(|part| part.strip_prefix('v'));
    let digits = |part: &str| !part.is_empty() && part.bytes().all(|byte| byte.is_ascii_digit());
    let versioned = version
        .and_then(|version| version.split_once('.'))
        .is_some_and(|(major, minor)| digits(major) && digits(minor));
    versioned && parts.next().is_some_and(|name| !name.is_empty()) && parts.next().is_some()
}

/// What a path leads to, part by part, without following links.
pub(super) fn state(root: &Path, path: &Path) -> State {
    let Ok(below) = path.strip_prefix(root) else {
        return State::Absent;
    };
    let mut at = root.to_owned();
    for part in below.components() {
        at.push(part);
        match std::fs::symlink_metadata(&at) {
            Ok(metadata) if metadata.is_symlink() => {
                // The validator follows links, so a dead one is a missing file to it.
                return if path.exists() {
                    State::Linked
                } else {
                    State::Absent
                };
            }
            Ok(_) => {}
            Err(_) => return State::Absent,
        }
    }
    match std::fs::symlink_metadata(&at) {
        Ok(metadata) if metadata.is_dir() => {
            let mut inside = std::fs::read_dir(&at).into_iter().flatten();
            if inside.next().is_some() {
                State::Folder
            } else {
                State::Hollow
            }
        }
        Ok(metadata) if !metadata.is_file() => State::Odd,
        Ok(metadata) if metadata.len() == 0 => State::Hollow,
        Ok(_) => State::File,
        Err(_) => State::Absent,
    }
}
