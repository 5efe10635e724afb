//! Many components in a folder: an OCI image layout.
//!
//! `oci-layout` says which version of the layout it is, `index.json` lists manifests, and `blobs/sha256/` holds
//! everything by digest. Other tools, skopeo for one, read the same folder.
//!
//! The folder is treated as hostile. Each file is limited before it is read, hashed while it is read, and refused when
//! a symbolic link leads out of the folder. Writes go to a temporary file that is synced and renamed: readers see the
//! old state or the new one, and a crash loses nothing that was there. Writers take turns by locking `oci-layout`.
//! What is refused here is explained at the reader that refuses it; [`crate::artifact`] checks what blobs mean.

use std::collections::BTreeMap;
use std::fs::{self, File};
use std::io::{self, Read as _, Write as _};
use std::path::{Path, PathBuf};

use semver::Version;
use serde::{Deserialize, Serialize};

use crate::artifact::{
    Artifact, ArtifactError, Config, Descriptor, MANIFEST_MEDIA_TYPE, MAX_COMPONENT_SIZE,
    MAX_MANIFEST_SIZE, Manifest, to_json,
};
use crate::images::REF_NAME;
use crate::reference::{Digest, Verifier, VerifyError, quoted};

/// Largest `index.json` in bytes: room for [`MAX_ENTRIES`] descriptors of a kilobyte.
pub const MAX_INDEX_SIZE: u64 = 4 << 20;

/// Most components in one layout. A hundred times what a catalogue has, and few enough to list in a second.
pub const MAX_ENTRIES: usize = 4096;

/// Largest `oci-layout` in bytes; the file holds one short object.
const MAX_MARKER_SIZE: u64 = 4096;

pub(crate) const MARKER: &str = "oci-layout";
pub(crate) const INDEX: &str = "index.json";
pub(crate) const BLOBS: &str = "blobs/sha256";
pub(crate) const INDEX_MEDIA_TYPE: &str = "application/vnd.oci.image.index.v1+json";
pub(crate) const LAYOUT_VERSION: &str = "1.0.0";

/// Why a layout cannot be read or written. Every message names the file.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum LayoutError {
    /// The folder is not an OCI image layout.
    #[error("{} is not an OCI image layout: {reason}; give a folder that holds `oci-layout` and `index.json`", path.display())]
    NotALayout {
        /// The folder.
        path: PathBuf,
        /// What is missing or wrong.
        reason: String,
    },
    /// A new layout was to be made in a folder that holds something else.
    #[error("{} is not empty and not an OCI image layout; choose an empty or new folder", path.display())]
    NotEmpty {
        /// The folder.
        path: PathBuf,
    },
    /// The layout has a version this release cannot read.
    #[error("{}: layout version `{found}`, expected `1.0.0`; use a newer release", path.display())]
    UnknownVersion {
        /// The `oci-layout` file.
        path: PathBuf,
        /// The version in it, shortened.
        found: String,
    },
    /// The operating system refused.
    #[error("cannot {action} {}", path.display())]
    Io {
        /// What was tried.
        action: &'static str,
        /// The file or folder.
        path: PathBuf,
        /// The refusal.
        #[source]
        source: io::Error,
    },
    /// A file that something else points to does not exist.
    #[error("{} is missing although the layout refers to it; copy or build the layout again", path.display())]
    Missing {
        /// The absent file.
        path: PathBuf,
    },
    /// A symbolic link leads out of the layout.
    #[error("{} leads out of the layout to {}; replace the symbolic link by the file", path.display(), target.display())]
    Escapes {
        /// The path inside the layout.
        path: PathBuf,
        /// Where it leads.
        target: PathBuf,
    },
    /// A folder, pipe or device stands where a file should.
    #[error("{} is not a regular file; copy or build the layout again", path.display())]
    NotAFile {
        /// The path.
        path: PathBuf,
    },
    /// A file is larger than any valid one.
    #[error("{} has {size} bytes and at most {limit} are read; copy or build the layout again", path.display())]
    TooLarge {
        /// The file.
        path: PathBuf,
        /// Its size in bytes.
        size: u64,
        /// The limit in bytes.
        limit: u64,
    },
    /// The index lists more components than any valid one.
    #[error("{} lists {count} components and at most 4096 are allowed; spread them over several layouts", path.display())]
    TooMany {
        /// The index.
        path: PathBuf,
        /// Entries in it.
        count: usize,
    },
    /// A file is not the JSON it should be.
    #[error("{} is not valid; copy or build the layout again", path.display())]
    Json {
        /// The file.
        path: PathBuf,
        /// Line, column and cause.
        #[source]
        source: serde_json::Error,
    },
    /// A blob is not the one its digest and size promise.
    #[error("{} was changed or damaged; copy or build the layout again", path.display())]
    Corrupt {
        /// The blob.
        path: PathBuf,
        /// What differs.
        #[source]
        source: VerifyError,
    },
    /// An entry of the index points to something other than an image manifest.
    #[error("{}: entry {digest} has media type `{media_type}`, expected `application/vnd.oci.image.manifest.v1+json`; keep only components in this layout", path.display())]
    ForeignEntry {
        /// The index.
        path: PathBuf,
        /// Digest of the entry.
        digest: Digest,
        /// Its media type, shortened.
        media_type: String,
    },
    /// Two entries have the same name and version.
    #[error("{} lists {name}:{version} twice; remove one", path.display())]
    Duplicate {
        /// The index.
        path: PathBuf,
        /// The name.
        name: String,
        /// The version.
        version: Version,
    },
    /// A blob is intact but is not what a component artifact has there.
    #[error("{} does not describe a component", path.display())]
    Artifact {
        /// The blob.
        path: PathBuf,
        /// What is wrong with it.
        #[source]
        source: ArtifactError,
    },
    /// An entry is no container image that can be moved.
    #[error("{} holds what is no container image", path.display())]
    Content {
        /// The folder.
        path: PathBuf,
        /// What is wrong with it.
        #[source]
        source: crate::content::ContentError,
    },
    /// What is asked for is not there, or is there in another shape.
    #[error("{} holds {reason}", path.display())]
    Absent {
        /// The folder.
        path: PathBuf,
        /// What is there instead.
        reason: String,
    },
    /// The component given for storing cannot be stored.
    #[error("cannot store {name}:{version}")]
    Refused {
        /// The name given.
        name: String,
        /// The version given.
        version: String,
        /// Why.
        #[source]
        source: ArtifactError,
    },
}

/// An OCI image layout on disk.
#[derive(Debug, Clone)]
pub struct Layout {
    /// Absolute and free of symbolic links, so that it can be compared with where a file really is.
    root: PathBuf,
}

/// One component of a layout. Name and version come from the manifest that the digest covers.
#[derive(Debug, Clone, PartialEq, Eq)]
#[non_exhaustive]
pub struct Entry {
    /// Name of the component.
    pub name: String,
    /// Its version.
    pub version: Version,
    /// Digest of the manifest: the identity of the artifact.
    pub manifest_digest: Digest,
    /// Digest of the component's bytes.
    pub component_digest: Digest,
    /// Size of the component in bytes.
    pub size: u64,
    manifest_size: u64,
}

#[derive(Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
struct Marker {
    image_layout_version: String,
}

#[derive(Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub(crate) struct Index {
    pub(crate) schema_version: u32,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub(crate) media_type: Option<String>,
    pub(crate) manifests: Vec<Descriptor>,
    #[serde(flatten)]
    other: BTreeMap<String, serde_json::Value>,
}

impl Index {
    pub(crate) fn new(manifests: Vec<Descriptor>) -> Index {
        Index {
            schema_version: 2,
            media_type: Some(INDEX_MEDIA_TYPE.to_owned()),
            manifests,
            other: BTreeMap::new(),
        }
    }
}

/// What `oci-layout` holds.
pub(crate) fn marker() -> Vec<u8> {
    to_json(&Marker {
        image_layout_version: LAYOUT_VERSION.to_owned(),
    })
}

// === impl Layout ===

impl Layout {
    /// Opens an existing layout. Reads only `oci-layout`; entries are read by [`Layout::list`].
    ///
    /// # Errors
    /// [`LayoutError::NotALayout`], [`LayoutError::UnknownVersion`], or what reading a file can end in.
    pub fn open(dir: impl AsRef<Path>) -> Result<Self, LayoutError> {
        let dir = dir.as_ref();
        let not_a_layout = |reason: &str| LayoutError::NotALayout {
            path: dir.to_owned(),
            reason: reason.to_owned(),
        };
        let root = match dir.canonicalize() {
            Ok(root) if root.is_dir() => root,
            Ok(_) => return Err(not_a_layout("it is not a folder")),
            Err(source) if source.kind() == io::ErrorKind::NotFound => {
                return Err(not_a_layout("it does not exist"));
            }
            Err(source) => {
                return Err(LayoutError::Io {
                    action: "open",
                    path: dir.to_owned(),
                    source,
                });
            }
        };
        let layout = Self { root };
        let marker = match layout.read_json::<Marker>(MARKER, MAX_MARKER_SIZE) {
            Err(LayoutError::Missing { .. }) => {
                return Err(not_a_layout("`oci-layout` is missing"));
            }
            other => other?,
        };
        if marker.image_layout_version != LAYOUT_VERSION {
            return Err(LayoutError::UnknownVersion {
                path: layout.root.join(MARKER),
                found: quoted(&marker.image_layout_version),
            });
        }
        Ok(layout)
    }

    /// Makes an empty layout in a new or empty folder, or opens the layout that is already there.
    ///
    /// # Errors
    /// [`LayoutError::NotEmpty`] for a folder that holds something else, or a refusal of the operating system.
    pub fn create(dir: impl AsRef<Path>) -> Result<Self, LayoutError> {
        let dir = dir.as_ref();
        let failed = |action| {
            move |source| LayoutError::Io {
                action,
                path: dir.to_owned(),
                source,
            }
        };
        fs::create_dir_all(dir).map_err(failed("create"))?;
        let mut content = fs::read_dir(dir).map_err(failed("read"))?;
        if dir.join(MARKER).exists() {
            return Self::open(dir);
        }
        if content.next().is_some() {
            return Err(LayoutError::NotEmpty {
                path: dir.to_owned(),
            });
        }
        let layout = Self {
            root: dir.canonicalize().map_err(failed("open"))?,
        };
        let blobs = layout.root.join(BLOBS);
        fs::create_dir_all(&blobs).map_err(|source| LayoutError::Io {
            action: "create",
            path: blobs,
            source,
        })?;
        layout.write_index(Vec::new(), BTreeMap::new())?;
        // Last, because this file is what makes the folder a layout: a crash before leaves none.
        write_atomically(&layout.root, MARKER, &marker())?;
        Ok(layout)
    }

    /// The folder, absolute and without symbolic links.
    #[must_use]
    pub fn path(&self) -> &Path {
        &self.root
    }

    /// Stores a component under a name and version, and returns the digest of its manifest.
    ///
    /// Equal input gives an equal digest and changes nothing. Another component under the same name and version
    /// replaces the entry; the old blobs stay until the folder is made anew.
    ///
    /// # Errors
    /// [`LayoutError::Refused`] when the component cannot be stored, or what reading and writing files can end in.
    pub fn put_component(
        &self,
        name: &str,
        version: &str,
        bytes: &[u8],
    ) -> Result<Digest, LayoutError> {
        let artifact =
            Artifact::new(name, version, bytes).map_err(|source| LayoutError::Refused {
                name: quoted(name),
                version: quoted(version),
                source,
            })?;
        self.put(&artifact)
    }

    /// Stores an artifact: [`Layout::put_component`] for those who add a target or annotations.
    ///
    /// # Errors
    /// As [`Layout::put_component`].
    pub fn put(&self, artifact: &Artifact) -> Result<Digest, LayoutError> {
        let encoded = artifact.encode().map_err(|source| LayoutError::Refused {
            name: artifact.name().to_owned(),
            version: artifact.version().to_string(),
            source,
        })?;
        let digest = Digest::of(&encoded.manifest);

        let _lock = self.lock()?;
        let (entries, other) = self.entries()?;
        let mut entries: BTreeMap<(String, Version), Descriptor> = entries
            .into_iter()
            .map(|(entry, descriptor)| ((entry.name, entry.version), descriptor))
            .collect();
        let reference = format!("{}:{}", artifact.name(), artifact.version());
        entries.insert(
            (artifact.name().to_owned(), artifact.version().clone()),
            Descriptor::new(MANIFEST_MEDIA_TYPE, digest, encoded.manifest.len() as u64)
                .annotated(REF_NAME, &reference),
        );
        let blobs = [artifact.component(), &encoded.config, &encoded.manifest];
        self.replace_entries(entries.into_values().collect(), other, &blobs)?;
        Ok(digest)
    }

    /// Adds an entry with its blobs, in place of one with the same name.
    pub(crate) fn add(&self, entry: Descriptor, blobs: &[&[u8]]) -> Result<(), LayoutError> {
        let _lock = self.lock()?;
        let Index {
            mut manifests,
            other,
            ..
        } = self.read_index()?;
        let name = entry.annotations.get(REF_NAME);
        manifests.retain(|old| old.annotations.get(REF_NAME) != name);
        manifests.push(entry);
        self.replace_entries(manifests, other, blobs)
    }

    /// Writes the blobs, and then the index: it never points at something that is not there yet.
    fn replace_entries(
        &self,
        entries: Vec<Descriptor>,
        other: BTreeMap<String, serde_json::Value>,
        blobs: &[&[u8]],
    ) -> Result<(), LayoutError> {
        if entries.len() > MAX_ENTRIES {
            return Err(LayoutError::TooMany {
                path: self.root.join(INDEX),
                count: entries.len(),
            });
        }
        for blob in blobs {
            self.write_blob(blob)?;
        }
        self.write_index(entries, other)
    }

    /// Lists all components, sorted by name and version. Reads and hashes each manifest, but no component.
    ///
    /// # Errors
    /// The first file that is not as it should be.
    pub fn list(&self) -> Result<Vec<Entry>, LayoutError> {
        let (entries, _) = self.entries()?;
        Ok(entries.into_iter().map(|(entry, _)| entry).collect())
    }

    /// Reads a component. Manifest, config and component are hashed again and their sizes compared.
    ///
    /// # Errors
    /// [`LayoutError::Corrupt`], [`LayoutError::Missing`] and [`LayoutError::Artifact`], each with the blob's path.
    pub fn component(&self, entry: &Entry) -> Result<Vec<u8>, LayoutError> {
        let (manifest, _) = self.manifest_and_config(entry)?;
        self.read_blob(
            manifest.layer.digest,
            manifest.layer.size,
            MAX_COMPONENT_SIZE,
        )
    }

    /// Reads manifest and config of a component, for its annotations, imports and exports. The lists in a config are
    /// claims of whoever packed it.
    ///
    /// # Errors
    /// As [`Layout::component`].
    pub fn manifest_and_config(&self, entry: &Entry) -> Result<(Manifest, Config), LayoutError> {
        let manifest = self.read_manifest(entry.manifest_digest, entry.manifest_size)?;
        let bytes = self.read_blob(
            manifest.config.digest,
            manifest.config.size,
            MAX_MANIFEST_SIZE,
        )?;
        let config = Config::parse(&bytes, &manifest.layer.digest).map_err(|source| {
            LayoutError::Artifact {
                path: self.blob_path(manifest.config.digest),
                source,
            }
        })?;
        Ok((manifest, config))
    }

    /// All entries with their descriptors, sorted and free of duplicates, and the index's own other fields.
    #[expect(clippy::type_complexity, reason = "used twice, in this file")]
    fn entries(
        &self,
    ) -> Result<
        (
            Vec<(Entry, Descriptor)>,
            BTreeMap<String, serde_json::Value>,
        ),
        LayoutError,
    > {
        let path = self.root.join(INDEX);
        let index = self.read_index()?;
        let mut entries = Vec::with_capacity(index.manifests.len());
        for descriptor in index.manifests {
            if descriptor.media_type != MANIFEST_MEDIA_TYPE {
                let media_type = quoted(&descriptor.media_type);
                return Err(LayoutError::ForeignEntry {
                    path,
                    digest: descriptor.digest,
                    media_type,
                });
            }
            let manifest = self.read_manifest(descriptor.digest, descriptor.size)?;
            let entry = Entry {
                name: manifest.name,
                version: manifest.version,
                manifest_digest: descriptor.digest,
                component_digest: manifest.layer.digest,
                size: manifest.layer.size,
                manifest_size: descriptor.size,
            };
            entries.push((entry, descriptor));
        }
        entries.sort_by(|(a, _), (b, _)| (&a.name, &a.version).cmp(&(&b.name, &b.version)));
        for pair in entries.windows(2) {
            let (a, b) = (&pair[0].0, &pair[1].0);
            if (&a.name, &a.version) == (&b.name, &b.version) {
                return Err(LayoutError::Duplicate {
                    path,
                    name: a.name.clone(),
                    version: a.version.clone(),
                });
            }
        }
        Ok((entries, index.other))
    }

    pub(crate) fn read_index(&self) -> Result<Index, LayoutError> {
        let index: Index = self.read_json(INDEX, MAX_INDEX_SIZE)?;
        let media_type = index.media_type.as_deref().unwrap_or(INDEX_MEDIA_TYPE);
        if index.schema_version != 2 || media_type != INDEX_MEDIA_TYPE {
            return Err(LayoutError::NotALayout {
                path: self.root.clone(),
                reason: format!(
                    "`index.json` is no OCI index (schema {}, `{}`)",
                    index.schema_version,
                    quoted(media_type)
                ),
            });
        }
        if index.manifests.len() > MAX_ENTRIES {
            return Err(LayoutError::TooMany {
                path: self.root.join(INDEX),
                count: index.manifests.len(),
            });
        }
        Ok(index)
    }

    fn read_manifest(&self, digest: Digest, size: u64) -> Result<Manifest, LayoutError> {
        let bytes = self.read_blob(digest, size, MAX_MANIFEST_SIZE)?;
        Manifest::parse(&bytes).map_err(|source| LayoutError::Artifact {
            path: self.blob_path(digest),
            source,
        })
    }

    pub(crate) fn blob_path(&self, digest: Digest) -> PathBuf {
        self.root.join(BLOBS).join(digest.hex())
    }

    fn read_json<T: for<'de> Deserialize<'de>>(
        &self,
        name: &str,
        limit: u64,
    ) -> Result<T, LayoutError> {
        let path = self.root.join(name);
        let (mut file, size) = self.open_file(&path, limit)?;
        let mut bytes = Vec::new();
        // The limit holds for a file that grows while it is read, too.
        io::Read::by_ref(&mut file)
            .take(limit + 1)
            .read_to_end(&mut bytes)
            .map_err(|source| LayoutError::Io {
                action: "read",
                path: path.clone(),
                source,
            })?;
        if bytes.len() as u64 > limit {
            return Err(LayoutError::TooLarge {
                path,
                size: size.max(bytes.len() as u64),
                limit,
            });
        }
        serde_json::from_slice(&bytes).map_err(|source| LayoutError::Json { path, source })
    }

    /// Reads a blob of a promised size, hashing as it comes.
    pub(crate) fn read_blob(
        &self,
        digest: Digest,
        size: u64,
        limit: u64,
    ) -> Result<Vec<u8>, LayoutError> {
        let path = self.blob_path(digest);
        if size > limit {
            return Err(LayoutError::TooLarge { path, size, limit });
        }
        let (mut file, actual) = self.open_file(&path, limit)?;
        let corrupt = |source| LayoutError::Corrupt {
            path: path.clone(),
            source,
        };
        // Memory is taken for what is really there, never for what a manifest claims.
        let mut bytes = Vec::with_capacity(usize::try_from(actual.min(size)).unwrap_or(0));
        let mut verifier = Verifier::new(digest, size);
        let mut piece = vec![0u8; 64 << 10];
        loop {
            let count = match file.read(&mut piece) {
                Ok(0) => break,
                Ok(count) => count,
                Err(source) if source.kind() == io::ErrorKind::Interrupted => continue,
                Err(source) => {
                    return Err(LayoutError::Io {
                        action: "read",
                        path,
                        source,
                    });
                }
            };
            verifier.update(&piece[..count]).map_err(corrupt)?;
            bytes.extend_from_slice(&piece[..count]);
        }
        verifier.finish().map_err(corrupt)?;
        Ok(bytes)
    }

    /// Opens a file inside the layout, refusing links that lead out, anything but a regular file (opening a pipe would
    /// wait for ever) and files over the limit.
    pub(crate) fn open_file(&self, path: &Path, limit: u64) -> Result<(File, u64), LayoutError> {
        let real = self.inside(path)?;
        let failed = |action| {
            move |source| LayoutError::Io {
                action,
                path: path.to_owned(),
                source,
            }
        };
        let metadata = fs::metadata(&real).map_err(failed("read"))?;
        if !metadata.is_file() {
            return Err(LayoutError::NotAFile {
                path: path.to_owned(),
            });
        }
        if metadata.len() > limit {
            return Err(LayoutError::TooLarge {
                path: path.to_owned(),
                size: metadata.len(),
                limit,
            });
        }
        Ok((File::open(&real).map_err(failed("open"))?, metadata.len()))
    }

    /// Resolves symbolic links and refuses a path that ends outside the layout.
    fn inside(&self, path: &Path) -> Result<PathBuf, LayoutError> {
        let real = path.canonicalize().map_err(|source| match source.kind() {
            io::ErrorKind::NotFound => LayoutError::Missing {
                path: path.to_owned(),
            },
            _ => LayoutError::Io {
                action: "open",
                path: path.to_owned(),
                source,
            },
        })?;
        if !real.starts_with(&self.root) {
            return Err(LayoutError::Escapes {
                path: path.to_owned(),
                target: real,
            });
        }
        Ok(real)
    }

    /// Takes the layout for writing until the returned file is dropped, waiting for another writer.
    fn lock(&self) -> Result<File, LayoutError> {
        let path = self.root.join(MARKER);
        let (file, _) = self.open_file(&path, MAX_MARKER_SIZE)?;
        file.lock().map_err(|source| LayoutError::Io {
            action: "lock",
            path,
            source,
        })?;
        Ok(file)
    }

    fn write_blob(&self, bytes: &[u8]) -> Result<(), LayoutError> {
        let digest = Digest::of(bytes);
        // A damaged blob is replaced; an intact one is left alone, so that its time stamp stays.
        if self
            .read_blob(digest, bytes.len() as u64, bytes.len() as u64)
            .is_ok()
        {
            return Ok(());
        }
        let folder = self.root.join(BLOBS);
        fs::create_dir_all(&folder).map_err(|source| LayoutError::Io {
            action: "create",
            path: folder.clone(),
            source,
        })?;
        write_atomically(&self.inside(&folder)?, &digest.hex(), bytes)
    }

    fn write_index(
        &self,
        manifests: Vec<Descriptor>,
        other: BTreeMap<String, serde_json::Value>,
    ) -> Result<(), LayoutError> {
        let bytes = to_json(&Index {
            other,
            ..Index::new(manifests)
        });
        if bytes.len() as u64 > MAX_INDEX_SIZE {
            return Err(LayoutError::TooLarge {
                path: self.root.join(INDEX),
                size: bytes.len() as u64,
                limit: MAX_INDEX_SIZE,
            });
        }
        write_atomically(&self.root, INDEX, &bytes)
    }
}

/// Writes a file that is either wholly there or not at all, also after a power cut.
fn write_atomically(folder: &Path, name: &str, bytes: &[u8]) -> Result<(), LayoutError> {
    let path = folder.join(name);
    let failed = |action| {
        let path = path.clone();
        move |source| LayoutError::Io {
            action,
            path,
            source,
        }
    };
    let mut builder = tempfile::Builder::new();
    builder.prefix(".tmp-");
    #[cfg(unix)]
    {
        use std::os::unix::fs::PermissionsExt as _;
        // Layouts are installed by one user and read by others; the umask still narrows this.
        builder.permissions(fs::Permissions::from_mode(0o644));
    }
    let mut file = builder.tempfile_in(folder).map_err(failed("write"))?;
    file.write_all(bytes)
        .and_then(|()| file.as_file().sync_all())
        .map_err(failed("write"))?;
    file.persist(&path)
        .map_err(|error| failed("replace")(error.error))?;
    // The rename itself lives in the folder.
    #[cfg(unix)]
    File::open(folder)
        .and_then(|folder| folder.sync_all())
        .map_err(failed("sync"))?;
    Ok(())
}

#[cfg(test)]
mod tests;
