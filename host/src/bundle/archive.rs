//! A bundle as one piece: for registries and mail, which keep artifacts and not folders.
//!
//! The piece is a POSIX tar (ustar) of the bundle's files by path, without times and owners, compressed with gzip: equal
//! bundles give equal bytes. Read back, it is hostile: nothing but plain files with a place in the layout, each once, within
//! the limits of a bundle, and the folder appears whole or not at all. Whether the bundle holds is for
//! [`mod@crate::verify`] to say.

use super::list::{Limits, Place, list, place, structure};
use super::write::{Partial, read_statement};
use super::{BundleError, Created, io_error};
use flate2::read::GzDecoder;
use flate2::{Compression, GzBuilder};
use std::fs::File;
use std::io::{self, Read as _};
use std::path::Path;

/// Media type of the piece.
pub const MEDIA_TYPE: &str = "application/vnd.oci.image.layer.v1.tar+gzip";
/// What kind of artifact a packed bundle is.
pub const ARTIFACT_TYPE: &str = "application/vnd.karat.bundle.v1";
/// Most bytes of a packed bundle. A full one has some five million; this much is held in memory.
pub const PACKED_MAX: u64 = 256 << 20;

/// A bundle in one piece.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Packed {
    /// Run id.
    pub run: String,
    /// Files in it.
    pub files: usize,
    /// The piece itself.
    pub bytes: Vec<u8>,
}

/// Packs a bundle.
///
/// # Errors
/// The folder is no bundle, holds something that belongs into none, is too large, or the file system refuses.
pub fn pack(bundle: &Path) -> Result<Packed, BundleError> {
    let statement = read_statement(bundle)?;
    let gzip = GzBuilder::new().write(Vec::new(), Compression::default());
    let mut tar = tar::Builder::new(gzip);
    let files = list(bundle, &Limits::default())?;
    for file in &files {
        if file.place == Place::Other {
            return Err(structure(
                &file.path,
                "no part of a bundle; remove it first",
            ));
        }
        let from = bundle.join(&file.path);
        let failed = || io_error("pack", &from);
        let mut header = tar::Header::new_ustar();
        header.set_path(&file.path).map_err(failed())?;
        header.set_size(file.size);
        header.set_mode(0o644);
        header.set_mtime(0);
        header.set_cksum();
        let source = File::open(&from).map_err(failed())?;
        // A file that grows or shrinks meanwhile must not move the ones behind it.
        let mut source = source.take(file.size);
        tar.append(&header, &mut source).map_err(failed())?;
        if source.limit() > 0 {
            return Err(structure(&file.path, "it changed while it was read"));
        }
    }
    let bytes = tar
        .into_inner()
        .and_then(flate2::write::GzEncoder::finish)
        .map_err(io_error("pack", bundle))?;
    if bytes.len() as u64 > PACKED_MAX {
        let cause = format!("packed it has more than {PACKED_MAX} bytes");
        return Err(structure("bundle", cause));
    }
    Ok(Packed {
        run: statement.predicate.run,
        files: files.len(),
        bytes,
    })
}

/// Writes a packed bundle as a folder, where nothing may be.
///
/// # Errors
/// The bytes are no packed bundle, something is in the way, or the file system refuses. Then there is no folder.
pub fn unpack(bytes: &[u8], to: &Path, limits: &Limits) -> Result<Created, BundleError> {
    let partial = Partial::begin(to, None)?;
    // A tar has headers and padding of at most 1 KiB for each file, and a trailer.
    let room = limits.bytes.saturating_add((limits.entries as u64) << 10);
    let mut tar = tar::Archive::new(GzDecoder::new(bytes).take(room.saturating_add(64 << 10)));
    let mut size = 0u64;
    // Raw: without the extensions for long names, which would be read into memory whatever their length.
    for (count, entry) in tar.entries().map_err(damaged)?.raw(true).enumerate() {
        let mut entry = entry.map_err(damaged)?;
        let path = String::from_utf8_lossy(&entry.path_bytes()).into_owned();
        if entry.header().entry_type() != tar::EntryType::Regular {
            return Err(structure(
                &path,
                "no plain file; a bundle holds nothing else",
            ));
        }
        if place(&path) == Place::Other {
            return Err(structure(&path, "no part of a bundle: it was added"));
        }
        size = size.saturating_add(entry.size());
        if count >= limits.entries || size > limits.bytes {
            let (entries, bytes) = (limits.entries, limits.bytes);
            let cause = format!("more than {entries} files or {bytes} bytes");
            return Err(structure(&path, cause));
        }
        let target = partial.make_room(Path::new(&path))?;
        let mut file = match File::create_new(&target) {
            Err(error) if error.kind() == io::ErrorKind::AlreadyExists => {
                return Err(structure(&path, "it is there twice"));
            }
            other => other.map_err(io_error("write", &target))?,
        };
        let wanted = entry.size();
        let written = io::copy(&mut entry, &mut file).map_err(|error| match error.kind() {
            io::ErrorKind::UnexpectedEof | io::ErrorKind::InvalidData => damaged(error),
            _ => io_error("write", &target)(error),
        })?;
        if written != wanted {
            return Err(structure(
                &path,
                "the packed bundle ends in the middle of it",
            ));
        }
    }
    let statement = read_statement(&partial.path).map_err(|error| match error {
        BundleError::NoBundle { .. } => structure("packed bundle", "it has no statement"),
        other => other,
    })?;
    let files = partial.finish()?;
    Ok(Created {
        run: statement.predicate.run,
        files: files.len(),
        bytes: files.iter().map(|file| file.size).sum(),
        key: None,
        left_out: Vec::new(),
        withheld: 0,
        witness: None,
    })
}

fn damaged(error: io::Error) -> BundleError {
    structure("packed bundle", format!("damaged or cut off: {error}"))
}
