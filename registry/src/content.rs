//! What a container image consists of: an index over platforms, manifests, configs and layers.
//!
//! An image is one manifest, or an index of manifests; an index in an index is refused, because no tool makes one and each
//! level would multiply what a stranger can have us fetch. Documents (index, manifests) are held in memory and limited;
//! of configs and layers only digest and size are known here. Layers that their licence keeps in one registry
//! (`nondistributable`, `foreign`) are listed apart and moved by nobody.

use crate::artifact::{Descriptor, MANIFEST_MEDIA_TYPE};
use crate::images::REF_NAME;
use crate::layout::{INDEX_MEDIA_TYPE, Layout, LayoutError};
use crate::reference::{Digest, VerifyError, quoted};
use serde::Deserialize;
use std::cmp::Ordering;
use std::collections::{BTreeMap, BTreeSet};

/// Largest index or manifest in bytes: what the distribution specification asks registries to accept.
pub const DOCUMENT_MAX: u64 = 4 << 20;
/// Largest config or layer in bytes: the largest file that a header of a POSIX tar can tell.
pub const BLOB_MAX: u64 = (8 << 30) - 1;
/// Most bytes of all images that are moved at one time. A hundred times what probes start; it ends what has no end.
pub const TOTAL_MAX: u64 = 64 << 30;
/// Most manifests of one index. Official images have two for each of some ten platforms.
const CHILDREN_MAX: usize = 64;
/// Most layers of one manifest; runtimes stop at 127.
const LAYERS_MAX: usize = 256;

/// The older names of the same two documents, which most registries still serve.
const DOCKER_MANIFEST: &str = "application/vnd.docker.distribution.manifest.v2+json";
const DOCKER_INDEX: &str = "application/vnd.docker.distribution.manifest.list.v2+json";

/// Documents that are read, for the header `Accept`.
pub(crate) const DOCUMENTS: [&str; 4] = [
    INDEX_MEDIA_TYPE,
    MANIFEST_MEDIA_TYPE,
    DOCKER_INDEX,
    DOCKER_MANIFEST,
];

/// Why bytes are no image.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum ContentError {
    /// Neither an index nor a manifest.
    #[error("`{0}` is no container image")]
    Foreign(String),
    /// Not the JSON it should be.
    #[error("{digest} is not valid")]
    Json {
        /// The document.
        digest: Digest,
        /// Line, column and cause.
        #[source]
        source: serde_json::Error,
    },
    /// A document says of itself that it is something else.
    #[error("{digest} says that it is `{said}`, and was given as `{given}`")]
    TwoTypes {
        /// The document.
        digest: Digest,
        /// By itself.
        said: String,
        /// By what led to it.
        given: String,
    },
    /// More than any image has.
    #[error("{digest} has {count} {what}, and at most {limit} are read")]
    TooMany {
        /// The document.
        digest: Digest,
        /// Manifests or layers.
        what: &'static str,
        /// How many.
        count: usize,
        /// The limit.
        limit: usize,
    },
    /// Larger than anything that is moved.
    #[error("{digest} has {size} bytes, and at most {limit} are moved")]
    TooLarge {
        /// Of what.
        digest: Digest,
        /// Its size in bytes.
        size: u64,
        /// The limit in bytes.
        limit: u64,
    },
    /// One digest with two sizes or as two things.
    #[error("{0} is described in two ways")]
    Twofold(Digest),
}

/// A document that was read.
#[derive(Debug, Clone, PartialEq)]
pub(crate) enum Document {
    /// Over several platforms.
    Index(Vec<Descriptor>),
    /// Of one platform.
    Manifest {
        config: Descriptor,
        layers: Vec<Descriptor>,
    },
}

#[derive(Deserialize)]
#[serde(rename_all = "camelCase")]
struct RawIndex {
    media_type: Option<String>,
    manifests: Vec<Descriptor>,
}

#[derive(Deserialize)]
#[serde(rename_all = "camelCase")]
struct RawManifest {
    media_type: Option<String>,
    config: Descriptor,
    #[serde(default)]
    layers: Vec<Descriptor>,
}

/// Operating system and processor: what a node must be to run an image.
#[derive(Debug, Clone, PartialEq, Eq, Deserialize)]
struct Platform {
    os: String,
    architecture: String,
}

impl Platform {
    fn text(&self) -> String {
        quoted(&format!("{}/{}", self.os, self.architecture))
    }
}

/// `linux/amd64`, as an index says it of a manifest. None where it says nothing, or that it is for no platform: attestations.
pub(crate) fn platform(descriptor: &Descriptor) -> Option<String> {
    let platform = descriptor.other.get("platform")?.clone();
    let platform: Platform = serde_json::from_value(platform).ok()?;
    (platform.os != "unknown").then(|| platform.text())
}

/// `linux/amd64`, as the config of an image says it.
pub(crate) fn platform_of_config(bytes: &[u8]) -> Option<String> {
    let platform: Platform = serde_json::from_slice(bytes).ok()?;
    Some(platform.text())
}

/// Whether a layer may only be had from where it lies.
fn is_bound(layer: &Descriptor) -> bool {
    layer.media_type.contains(".nondistributable.") || layer.media_type.contains(".foreign.")
}

impl Document {
    /// Reads an index or a manifest.
    pub(crate) fn parse(
        media_type: &str,
        digest: Digest,
        bytes: &[u8],
    ) -> Result<Document, ContentError> {
        let json = |source| ContentError::Json { digest, source };
        let same = |said: Option<String>| match said {
            Some(said) if said != media_type => Err(ContentError::TwoTypes {
                digest,
                said: quoted(&said),
                given: quoted(media_type),
            }),
            _ => Ok(()),
        };
        let few = |what, count, limit| {
            if count <= limit {
                return Ok(());
            }
            Err(ContentError::TooMany {
                digest,
                what,
                count,
                limit,
            })
        };
        match media_type {
            INDEX_MEDIA_TYPE | DOCKER_INDEX => {
                let raw: RawIndex = serde_json::from_slice(bytes).map_err(json)?;
                same(raw.media_type)?;
                few("manifests", raw.manifests.len(), CHILDREN_MAX)?;
                for child in &raw.manifests {
                    if !matches!(
                        child.media_type.as_str(),
                        MANIFEST_MEDIA_TYPE | DOCKER_MANIFEST
                    ) {
                        return Err(ContentError::Foreign(quoted(&child.media_type)));
                    }
                    limited(child, DOCUMENT_MAX)?;
                }
                Ok(Document::Index(raw.manifests))
            }
            MANIFEST_MEDIA_TYPE | DOCKER_MANIFEST => {
                let raw: RawManifest = serde_json::from_slice(bytes).map_err(json)?;
                same(raw.media_type)?;
                few("layers", raw.layers.len(), LAYERS_MAX)?;
                limited(&raw.config, DOCUMENT_MAX)?;
                for layer in &raw.layers {
                    limited(layer, BLOB_MAX)?;
                }
                Ok(Document::Manifest {
                    config: raw.config,
                    layers: raw.layers,
                })
            }
            other => Err(ContentError::Foreign(quoted(other))),
        }
    }
}

fn limited(descriptor: &Descriptor, limit: u64) -> Result<(), ContentError> {
    if descriptor.size <= limit {
        return Ok(());
    }
    Err(ContentError::TooLarge {
        digest: descriptor.digest,
        size: descriptor.size,
        limit,
    })
}

/// All that an image consists of.
#[derive(Debug, Clone)]
pub struct Contents {
    /// The document whose digest is that of the image.
    pub root: Descriptor,
    /// Index and manifests: media type and bytes.
    documents: BTreeMap<Digest, (String, Vec<u8>)>,
    /// Sizes of configs and layers.
    blobs: BTreeMap<Digest, u64>,
    /// Layers that may not be moved.
    bound: BTreeSet<Digest>,
    /// `linux/amd64`, as the index says; empty for a single manifest.
    platforms: BTreeSet<String>,
}

impl Contents {
    /// Begins with the first document. The manifests that are to be added follow it.
    pub(crate) fn of(
        root: Descriptor,
        bytes: Vec<u8>,
    ) -> Result<(Contents, Vec<Descriptor>), ContentError> {
        let mut contents = Contents {
            root: root.clone(),
            documents: BTreeMap::new(),
            blobs: BTreeMap::new(),
            bound: BTreeSet::new(),
            platforms: BTreeSet::new(),
        };
        let children = match Document::parse(&root.media_type, root.digest, &bytes)? {
            Document::Index(children) => children,
            Document::Manifest { .. } => {
                contents.add(&root, bytes)?;
                return Ok((contents, Vec::new()));
            }
        };
        contents
            .documents
            .insert(root.digest, (root.media_type, bytes));
        contents.platforms = children.iter().filter_map(platform).collect();
        Ok((contents, children))
    }

    /// Adds a manifest. Its bytes are those of its digest already.
    pub(crate) fn add(
        &mut self,
        manifest: &Descriptor,
        bytes: Vec<u8>,
    ) -> Result<(), ContentError> {
        let Document::Manifest { config, layers } =
            Document::parse(&manifest.media_type, manifest.digest, &bytes)?
        else {
            return Err(ContentError::Foreign(quoted(&manifest.media_type)));
        };
        for part in std::iter::once(&config).chain(&layers) {
            if is_bound(part) {
                self.bound.insert(part.digest);
            } else if *self.blobs.entry(part.digest).or_insert(part.size) != part.size {
                return Err(ContentError::Twofold(part.digest));
            }
        }
        let kept = (manifest.media_type.clone(), bytes);
        self.documents.insert(manifest.digest, kept);
        Ok(())
    }

    /// Configs and layers by digest, with their sizes in bytes.
    pub fn blobs(&self) -> impl Iterator<Item = (Digest, u64)> {
        self.blobs.iter().map(|(digest, size)| (*digest, *size))
    }

    /// Index and manifests by digest: media type and bytes.
    pub fn documents(&self) -> impl Iterator<Item = (Digest, &str, &[u8])> {
        self.documents
            .iter()
            .map(|(digest, (media_type, bytes))| (*digest, media_type.as_str(), bytes.as_slice()))
    }

    /// Layers that may only be had from where they lie.
    pub fn left_out(&self) -> impl Iterator<Item = Digest> {
        self.bound.iter().copied()
    }

    /// `linux/amd64` for each manifest of an index; nothing for a single manifest.
    pub fn platforms(&self) -> impl Iterator<Item = &str> {
        self.platforms.iter().map(String::as_str)
    }

    /// Bytes of everything.
    #[must_use]
    pub fn bytes(&self) -> u64 {
        let documents = self.documents.values().map(|(_, bytes)| bytes.len() as u64);
        let blobs = self.blobs.values().copied();
        documents.chain(blobs).fold(0, u64::saturating_add)
    }
}

/// An image with all its names.
#[derive(Debug, Clone)]
pub struct NamedImage {
    /// Its names, at least one.
    pub names: BTreeSet<String>,
    /// What it consists of.
    pub contents: Contents,
}

impl Layout {
    /// All container images of the layout with what they consist of, in the order of their first names. Documents are read and
    /// hashed, configs and layers are not opened.
    ///
    /// # Errors
    /// The first entry that is no whole image, or has no name.
    pub fn named_images(&self) -> Result<Vec<NamedImage>, LayoutError> {
        let mut found: BTreeMap<Digest, NamedImage> = BTreeMap::new();
        for entry in self.read_index()?.manifests {
            let Some(name) = entry.annotations.get(REF_NAME).cloned() else {
                return Err(LayoutError::NotALayout {
                    path: self.path().to_owned(),
                    reason: format!("image {} has no name", entry.digest),
                });
            };
            if let Some(known) = found.get_mut(&entry.digest) {
                known.names.insert(name);
                continue;
            }
            let contents = self.contents(&entry)?;
            let names = BTreeSet::from([name]);
            found.insert(entry.digest, NamedImage { names, contents });
        }
        let mut all: Vec<NamedImage> = found.into_values().collect();
        all.sort_by(|a, b| a.names.cmp(&b.names));
        Ok(all)
    }

    fn contents(&self, root: &Descriptor) -> Result<Contents, LayoutError> {
        let wrong = |source| LayoutError::Content {
            path: self.path().to_owned(),
            source,
        };
        let read = |one: &Descriptor| self.read_blob(one.digest, one.size, DOCUMENT_MAX);
        let (mut contents, children) = Contents::of(root.clone(), read(root)?).map_err(wrong)?;
        for child in &children {
            contents.add(child, read(child)?).map_err(wrong)?;
        }
        Ok(contents)
    }

    /// Opens a config or layer of an image. Its size is looked at and its bytes are not: whoever reads them hashes them.
    ///
    /// # Errors
    /// It is missing, no file, outside of the layout, or of another size.
    pub fn open_blob(&self, digest: Digest, size: u64) -> Result<std::fs::File, LayoutError> {
        let path = self.blob_path(digest);
        let (file, actual) = self.open_file(&path, BLOB_MAX)?;
        let source = match actual.cmp(&size) {
            Ordering::Equal => return Ok(file),
            Ordering::Greater => VerifyError::TooLong { expected: size },
            Ordering::Less => VerifyError::TooShort {
                expected: size,
                actual,
            },
        };
        Err(LayoutError::Corrupt { path, source })
    }
}

#[cfg(test)]
mod tests;
