//! Images as one file: a tar of an OCI image layout, which `ctr images import`, skopeo and podman read as well.
//!
//! Written, it is a POSIX tar (ustar) without times and owners, in an order that hangs on nothing but the images: equal images
//! give equal bytes. Each byte is hashed on its way in.
//!
//! Read, it is hostile: nothing but plain files with a place in a layout, each once and each with its digest, and nothing that
//! the index does not lead to. Extensions are not known, so a long name, a link, a device or a sparse file is refused before a
//! byte of it is read. The folder appears whole or not at all.

use crate::artifact::to_json;
use crate::content::{BLOB_MAX, NamedImage, TOTAL_MAX};
use crate::images::REF_NAME;
use crate::layout::{
    BLOBS, INDEX, Index, Layout, LayoutError, MARKER, MAX_ENTRIES, MAX_INDEX_SIZE, marker,
};
use crate::reference::{Digest, Verifier, VerifyError, quoted};
use std::collections::BTreeSet;
use std::fs::{self, File};
use std::io::{self, Read, Write};
use std::path::{Path, PathBuf};

/// The annotation from which containerd takes the name of an image.
const CONTAINERD_NAME: &str = "io.containerd.image.name";
/// Most files of an archive: some forty for each of [`MAX_ENTRIES`] images.
const FILES_MAX: usize = 40 * MAX_ENTRIES;
/// Bytes of a piece that is copied.
const PIECE: usize = 64 << 10;

/// Why an archive was not written or not read.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum ArchiveError {
    /// Reading or writing failed.
    #[error("cannot {action}")]
    Io {
        /// What was tried, and with what.
        action: String,
        /// The refusal.
        #[source]
        source: io::Error,
    },
    /// It is no archive, or it ends too early.
    #[error("the archive is damaged or cut off")]
    Damaged(#[source] io::Error),
    /// Something in it belongs into no such archive.
    #[error("`{path}`: {cause}")]
    Refused {
        /// The path in the archive, made harmless.
        path: String,
        /// What is wrong with it.
        cause: String,
    },
    /// A blob is not what its digest promises.
    #[error("{digest} was changed or damaged")]
    Corrupt {
        /// The promised digest.
        digest: Digest,
        /// What differs.
        #[source]
        source: VerifyError,
    },
    /// More than is moved at one time.
    #[error("the images have more than {0} bytes together")]
    TooLarge(u64),
    /// What was read is no layout of whole images.
    #[error(transparent)]
    Layout(#[from] LayoutError),
    /// There is something where the folder should be.
    #[error("{} is in the way; give a folder that is not there yet, or an empty one", .0.display())]
    Occupied(PathBuf),
}

fn io_error(action: String) -> impl FnOnce(io::Error) -> ArchiveError {
    move |source| ArchiveError::Io { action, source }
}

/// Writes an archive, blob by blob.
pub struct Writer<W: Write> {
    tar: tar::Builder<W>,
    written: BTreeSet<Digest>,
    bytes: u64,
}

impl<W: Write> Writer<W> {
    /// Begins with the index and all documents of these images. Their blobs are to follow, each once, in the order of
    /// [`crate::content::Contents::blobs`] of each image.
    ///
    /// # Errors
    /// More than is moved at one time, or the output refuses.
    pub fn new(output: W, images: &[NamedImage]) -> Result<Writer<W>, ArchiveError> {
        let mut manifests = Vec::new();
        let mut total = 0u64;
        for image in images {
            total = total.saturating_add(image.contents.bytes());
            for name in &image.names {
                let mut entry = image.contents.root.clone();
                entry.annotations.clear();
                manifests.push(
                    entry
                        .annotated(REF_NAME, name)
                        .annotated(CONTAINERD_NAME, name),
                );
            }
        }
        manifests.sort_by(|a, b| a.annotations.cmp(&b.annotations));
        let index = to_json(&Index::new(manifests));
        if total > TOTAL_MAX || index.len() as u64 > MAX_INDEX_SIZE {
            return Err(ArchiveError::TooLarge(TOTAL_MAX));
        }
        let mut writer = Writer {
            tar: tar::Builder::new(output),
            written: BTreeSet::new(),
            bytes: 0,
        };
        let marker = marker();
        writer.file(MARKER, marker.len() as u64, &mut marker.as_slice())?;
        writer.file(INDEX, index.len() as u64, &mut index.as_slice())?;
        for image in images {
            for (digest, _, mut bytes) in image.contents.documents() {
                writer.blob(digest, bytes.len() as u64, &mut bytes)?;
            }
        }
        Ok(writer)
    }

    /// Whether a blob is in the archive already: images share layers.
    pub fn has(&self, digest: Digest) -> bool {
        self.written.contains(&digest)
    }

    /// Adds a blob, unless it is there.
    ///
    /// # Errors
    /// The bytes are not those of the digest, or input or output refuse. The archive is worth nothing then.
    pub fn blob(
        &mut self,
        digest: Digest,
        size: u64,
        input: &mut dyn Read,
    ) -> Result<(), ArchiveError> {
        if !self.written.insert(digest) {
            return Ok(());
        }
        let mut checked = Checked {
            input,
            verifier: Verifier::new(digest, size),
            wrong: None,
        };
        let copied = self.file(&format!("{BLOBS}/{}", digest.hex()), size, &mut checked);
        let Checked {
            verifier, wrong, ..
        } = checked;
        let corrupt = |source| ArchiveError::Corrupt { digest, source };
        if let Some(source) = wrong {
            return Err(corrupt(source));
        }
        copied?;
        verifier.finish().map_err(corrupt)
    }

    /// Ends the archive and says how many bytes it has.
    ///
    /// # Errors
    /// The output refuses.
    pub fn finish(self) -> Result<(W, u64), ArchiveError> {
        let bytes = self.bytes + 1024;
        let output = self.tar.into_inner();
        let output = output.map_err(io_error("write the archive".to_owned()))?;
        Ok((output, bytes))
    }

    fn file(&mut self, path: &str, size: u64, input: &mut dyn Read) -> Result<(), ArchiveError> {
        let failed = || io_error(format!("write {path}"));
        let mut header = tar::Header::new_ustar();
        header.set_path(path).map_err(failed())?;
        header.set_size(size);
        header.set_mode(0o644);
        header.set_mtime(0);
        header.set_cksum();
        let mut input = input.take(size);
        self.tar.append(&header, &mut input).map_err(failed())?;
        if input.limit() > 0 {
            let source = io::Error::from(io::ErrorKind::UnexpectedEof);
            return Err(failed()(source));
        }
        self.bytes += 512 + size.next_multiple_of(512);
        Ok(())
    }
}

/// Hashes what goes through.
struct Checked<'a> {
    input: &'a mut dyn Read,
    verifier: Verifier,
    wrong: Option<VerifyError>,
}

impl Read for Checked<'_> {
    fn read(&mut self, piece: &mut [u8]) -> io::Result<usize> {
        let count = self.input.read(piece)?;
        if let Err(wrong) = self.verifier.update(&piece[..count]) {
            self.wrong = Some(wrong);
            return Err(io::ErrorKind::InvalidData.into());
        }
        Ok(count)
    }
}

/// Writes an archive as a folder, where nothing may be, and returns the images in it.
///
/// # Errors
/// It is no archive of whole images, something is in the way, or the file system refuses. Then there is no folder.
pub fn unpack(archive: impl Read, to: &Path) -> Result<Vec<NamedImage>, ArchiveError> {
    unpack_within(archive, to, TOTAL_MAX)
}

fn unpack_within(
    archive: impl Read,
    to: &Path,
    limit: u64,
) -> Result<Vec<NamedImage>, ArchiveError> {
    let above = match to.parent() {
        Some(above) if !above.as_os_str().is_empty() => above.to_owned(),
        _ => PathBuf::from("."),
    };
    match fs::read_dir(to).map(|mut content| content.next().is_none()) {
        Ok(true) => {}
        Err(error) if error.kind() == io::ErrorKind::NotFound => {}
        _ => return Err(ArchiveError::Occupied(to.to_owned())),
    }
    let failed = |action: &str, path: &Path| io_error(format!("{action} {}", path.display()));
    fs::create_dir_all(&above).map_err(failed("create", &above))?;
    let partial = tempfile::Builder::new()
        .prefix(".karat-images-")
        .tempdir_in(&above)
        .map_err(failed("write in", &above))?;
    let inside = partial.path().join("layout");
    let blobs = inside.join(BLOBS);
    fs::create_dir_all(&blobs).map_err(failed("create", &blobs))?;
    let stored = store(archive, &inside, limit)?;
    let told = |error| told(error, &inside);
    let layout = Layout::open(&inside).map_err(told)?;
    let images = layout.named_images().map_err(told)?;
    let mut wanted: BTreeSet<Digest> = BTreeSet::new();
    for image in &images {
        for (digest, size) in image.contents.blobs() {
            layout.open_blob(digest, size).map_err(told)?;
            wanted.insert(digest);
        }
        wanted.extend(image.contents.documents().map(|(digest, ..)| digest));
        wanted.extend(image.contents.left_out());
    }
    if let Some(stranger) = stored.difference(&wanted).next() {
        return Err(ArchiveError::Refused {
            path: format!("{BLOBS}/{}", stranger.hex()),
            cause: "no image in it consists of this".to_owned(),
        });
    }
    // An empty folder is replaced, one with something in it is not.
    fs::rename(&inside, to).map_err(|error| match error.kind() {
        io::ErrorKind::DirectoryNotEmpty | io::ErrorKind::NotADirectory => {
            ArchiveError::Occupied(to.to_owned())
        }
        _ => failed("move into place", to)(error),
    })?;
    Ok(images)
}

/// Paths of the archive in place of those of a folder that is gone by the time somebody reads this.
fn told(error: LayoutError, folder: &Path) -> ArchiveError {
    let refused = |path: &Path, cause: &str| ArchiveError::Refused {
        path: path
            .strip_prefix(folder)
            .unwrap_or(path)
            .display()
            .to_string(),
        cause: cause.to_owned(),
    };
    match error {
        LayoutError::Missing { path } => {
            refused(&path, "it is missing, and the archive refers to it")
        }
        LayoutError::NotALayout { reason, .. } => refused(Path::new(INDEX), &reason),
        LayoutError::Json { path, source } => refused(&path, &source.to_string()),
        LayoutError::Corrupt { path, source } => refused(&path, &source.to_string()),
        LayoutError::Content { source, .. } => refused(Path::new(INDEX), &source.to_string()),
        other => ArchiveError::Layout(other),
    }
}

/// Writes every file of the archive to its place and returns the digests of the blobs.
fn store(archive: impl Read, folder: &Path, limit: u64) -> Result<BTreeSet<Digest>, ArchiveError> {
    let mut stored = BTreeSet::new();
    let mut seen = BTreeSet::new();
    let mut room = limit;
    let mut tar = tar::Archive::new(archive);
    // Raw: without the extensions for long names, which would be read into memory whatever their length.
    let entries = tar.entries().map_err(ArchiveError::Damaged)?.raw(true);
    for (count, entry) in entries.enumerate() {
        let mut entry = entry.map_err(ArchiveError::Damaged)?;
        let path = String::from_utf8_lossy(&entry.path_bytes()).into_owned();
        let refused = |cause: &str| ArchiveError::Refused {
            path: quoted(&path),
            cause: cause.to_owned(),
        };
        if count >= FILES_MAX {
            return Err(refused(&format!("more than {FILES_MAX} files")));
        }
        // Other tools write their folders as well.
        let name = path.strip_prefix("./").unwrap_or(&path);
        let kind = entry.header().entry_type();
        if kind == tar::EntryType::Directory && matches!(name, "" | "blobs/" | "blobs/sha256/") {
            continue;
        }
        if kind != tar::EntryType::Regular {
            return Err(refused(
                "no plain file; an archive of images holds nothing else",
            ));
        }
        let place = place(name).ok_or_else(|| refused("no part of an image layout"))?;
        if !seen.insert(name.to_owned()) {
            return Err(refused("it is there twice"));
        }
        let size = entry.size();
        if size > place.limit() {
            return Err(refused(&format!("larger than {} bytes", place.limit())));
        }
        room = room
            .checked_sub(size)
            .ok_or(ArchiveError::TooLarge(limit))?;
        let target = folder.join(name);
        let mut file =
            File::create_new(&target).map_err(io_error(format!("write {}", target.display())))?;
        let mut verifier = match place {
            Place::Blob(digest) => Some((digest, Verifier::new(digest, size))),
            Place::Marker | Place::Index => None,
        };
        let mut left = size;
        let mut piece = vec![0u8; PIECE];
        while left > 0 {
            let read = entry.read(&mut piece).map_err(ArchiveError::Damaged)?;
            if read == 0 {
                return Err(ArchiveError::Damaged(io::ErrorKind::UnexpectedEof.into()));
            }
            left = left.saturating_sub(read as u64);
            file.write_all(&piece[..read])
                .map_err(io_error(format!("write {}", target.display())))?;
            if let Some((digest, verifier)) = &mut verifier {
                let corrupt = |source| ArchiveError::Corrupt {
                    digest: *digest,
                    source,
                };
                verifier.update(&piece[..read]).map_err(corrupt)?;
            }
        }
        if let Some((digest, verifier)) = verifier {
            let corrupt = |source| ArchiveError::Corrupt { digest, source };
            verifier.finish().map_err(corrupt)?;
            stored.insert(digest);
        }
    }
    Ok(stored)
}

/// What a file of a layout is.
#[derive(Clone, Copy)]
enum Place {
    Marker,
    Index,
    Blob(Digest),
}

impl Place {
    fn limit(self) -> u64 {
        match self {
            Place::Marker | Place::Index => MAX_INDEX_SIZE,
            Place::Blob(_) => BLOB_MAX,
        }
    }
}

/// The only paths there are; nothing of a path is ever followed.
fn place(name: &str) -> Option<Place> {
    match name {
        MARKER => Some(Place::Marker),
        INDEX => Some(Place::Index),
        other => {
            let hex = other.strip_prefix(BLOBS)?.strip_prefix('/')?;
            format!("sha256:{hex}").parse().ok().map(Place::Blob)
        }
    }
}

#[cfg(test)]
mod tests;
