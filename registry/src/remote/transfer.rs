//! Whole images from and to registries: an index goes with all its manifests, so its digest holds.

use super::auth::Actions;
use super::{Remote, RemoteError, Repository, TRIES};
use crate::artifact::Descriptor;
use crate::content::{Contents, DOCUMENT_MAX, Document, platform, platform_of_config};
use crate::layout::{Layout, LayoutError};
use crate::reference::{Digest, RegistryReference};
use bytes::Bytes;
use futures::TryStreamExt as _;
use http_body::Frame;
use http_body_util::StreamBody;
use reqwest::header::{CONTENT_LENGTH, CONTENT_TYPE};
use reqwest::{Body, Method, RequestBuilder, StatusCode};
use std::collections::BTreeSet;
use std::fs::File;
use std::io::{self, Seek as _};
use std::path::Path;
use tokio::io::AsyncReadExt as _;

/// Bytes of a piece that is sent.
const PIECE: usize = 64 << 10;

/// What became of a push.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Pushed {
    /// Everything was there, and nothing was sent.
    pub was_there: bool,
    /// Bytes of configs and layers that were sent.
    pub sent: u64,
}

/// What a registry has of an image.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Seen {
    /// `linux/amd64`, those that can be pulled.
    pub platforms: BTreeSet<String>,
    /// Those that the index names and the registry does not have.
    pub missing: BTreeSet<String>,
}

/// Why an image of a layout was not pushed.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum PushError {
    /// The registry.
    #[error(transparent)]
    Remote(#[from] RemoteError),
    /// The layout.
    #[error(transparent)]
    Layout(#[from] LayoutError),
}

impl Remote {
    /// Reads all documents of an image; its configs and layers are read by [`Remote::spool`].
    ///
    /// # Errors
    /// It is not there, not whole or no image, or the registry does not answer as it should.
    pub async fn contents(&self, image: &RegistryReference) -> Result<Contents, RemoteError> {
        let repository = self.repository(image).await?;
        let root = self.document(&repository, &pointer(image), None).await?;
        let wrong = |source| RemoteError::Content {
            reference: image.name(),
            source,
        };
        let (mut contents, children) = Contents::of(root.descriptor, root.bytes).map_err(wrong)?;
        for child in children {
            let wanted = child.digest.to_string();
            let found = self.document(&repository, &wanted, Some(child.size)).await;
            let found = found.map_err(|error| match error {
                RemoteError::Absent(_) => incomplete(image, &child),
                other => other,
            })?;
            contents.add(&child, found.bytes).map_err(wrong)?;
        }
        Ok(contents)
    }

    /// Reads a config or layer into a file without a name in a folder. A download that breaks off is begun anew a few times.
    ///
    /// # Errors
    /// As [`Remote::contents`], or the folder cannot be written to.
    pub async fn spool(
        &self,
        image: &RegistryReference,
        digest: Digest,
        size: u64,
        folder: &Path,
    ) -> Result<File, RemoteError> {
        let local = |source| RemoteError::Local {
            action: "keep what was read",
            source,
        };
        let repository = self.repository(image).await?;
        let mut tries = 1;
        loop {
            let mut file = tempfile::tempfile_in(folder).map_err(local)?;
            match self.blob(&repository, digest, size, &mut file).await {
                Err(RemoteError::Unreachable { .. }) if tries < TRIES => tries += 1,
                Err(error) => return Err(error),
                Ok(()) => {
                    file.rewind().map_err(local)?;
                    return Ok(file);
                }
            }
        }
    }

    /// For which platforms an image can be pulled. Of an index the manifests are looked for and not read.
    ///
    /// # Errors
    /// As [`Remote::contents`]; a manifest that is missing is none.
    pub async fn look(&self, image: &RegistryReference) -> Result<Seen, RemoteError> {
        let repository = self.repository(image).await?;
        let root = self.document(&repository, &pointer(image), None).await?;
        let wrong = |source| RemoteError::Content {
            reference: image.name(),
            source,
        };
        let Descriptor {
            media_type, digest, ..
        } = &root.descriptor;
        let mut seen = Seen::default();
        match Document::parse(media_type, *digest, &root.bytes).map_err(wrong)? {
            Document::Index(children) => {
                for child in children {
                    let Some(platform) = platform(&child) else {
                        continue;
                    };
                    let path = format!("manifests/{}", child.digest);
                    let there = self.is_there(&repository, Actions::Pull, &path).await?;
                    match there {
                        Some(_) => seen.platforms.insert(platform),
                        None => seen.missing.insert(platform),
                    };
                }
            }
            Document::Manifest { config, .. } => {
                let size = config.size.min(DOCUMENT_MAX);
                let mut bytes = Vec::new();
                self.blob(&repository, config.digest, size, &mut bytes)
                    .await?;
                seen.platforms.extend(platform_of_config(&bytes));
            }
        }
        Ok(seen)
    }

    /// Pushes an image of a layout: what is there stays, and what an interrupted push brought is not sent again. In the end the
    /// registry is asked for the image by its digest and must give exactly that.
    ///
    /// # Errors
    /// The registry refuses, or gives something else afterwards; the layout is damaged.
    pub async fn push(
        &self,
        to: &RegistryReference,
        tag: &str,
        layout: &Layout,
        contents: &Contents,
    ) -> Result<Pushed, PushError> {
        let repository = self.repository(to).await?;
        let mut pushed = Pushed {
            was_there: false,
            sent: 0,
        };
        if self.has_all(&repository, tag, contents).await? {
            pushed.was_there = true;
        } else {
            for (digest, size) in contents.blobs() {
                let path = format!("blobs/{digest}");
                let there = self.is_there(&repository, Actions::Push, &path).await?;
                if there.is_none() {
                    let file = layout.open_blob(digest, size)?;
                    self.send_blob(&repository, digest, size, file).await?;
                    pushed.sent += size;
                }
            }
            let root = contents.root.digest;
            // The root last: what it names is there by then.
            let children = contents.documents().filter(|(digest, ..)| *digest != root);
            for (digest, media_type, bytes) in children {
                let name = digest.to_string();
                self.send_document(&repository, &name, media_type, bytes)
                    .await?;
            }
            for (_, media_type, bytes) in contents.documents().filter(|(d, ..)| *d == root) {
                self.send_document(&repository, tag, media_type, bytes)
                    .await?;
            }
        }
        let root = &contents.root;
        let name = root.digest.to_string();
        self.document(&repository, &name, Some(root.size)).await?;
        Ok(pushed)
    }

    /// Whether all documents are there, and the tag is on the right one. A registry takes no document whose blobs it does not have.
    async fn has_all(
        &self,
        repository: &Repository,
        tag: &str,
        contents: &Contents,
    ) -> Result<bool, RemoteError> {
        let path = format!("manifests/{tag}");
        let tagged = self.is_there(repository, Actions::Push, &path).await?;
        let digest = tagged.as_ref().and_then(|answer| {
            let header = answer.headers().get("docker-content-digest")?;
            header.to_str().ok()
        });
        if digest != Some(contents.root.digest.to_string().as_str()) {
            return Ok(false);
        }
        for (digest, ..) in contents.documents() {
            let path = format!("manifests/{digest}");
            let there = self.is_there(repository, Actions::Push, &path).await?;
            if there.is_none() {
                return Ok(false);
            }
        }
        Ok(true)
    }

    async fn send_blob(
        &self,
        repository: &Repository,
        digest: Digest,
        size: u64,
        file: File,
    ) -> Result<(), RemoteError> {
        let what = || format!("the upload of {digest} to {}", repository.path);
        let begin = repository.url("blobs/uploads/")?;
        let empty = |request: RequestBuilder| request.header(CONTENT_LENGTH, "0");
        let answer = self
            .ask(repository, Actions::Push, Method::POST, begin, &empty)
            .await?;
        let answer = repository
            .expect(answer, StatusCode::ACCEPTED, &what)
            .await?;
        let mut place = super::next(answer.url(), answer.headers())
            .ok_or_else(|| repository.breaks("it does not say where to upload to"))?;
        let secure = place.scheme() == "https"
            || (place.scheme() == "http" && repository.base.scheme() == "http");
        if !secure || place.host_str().is_none() {
            return Err(repository.breaks("it wants an upload to no https address"));
        }
        place
            .query_pairs_mut()
            .append_pair("digest", &digest.to_string());
        let make = |request: RequestBuilder| {
            request
                .header(CONTENT_TYPE, "application/octet-stream")
                .header(CONTENT_LENGTH, size)
                .body(body(file.try_clone()))
        };
        let answer = self
            .ask(repository, Actions::Push, Method::PUT, place, &make)
            .await?;
        repository
            .expect(answer, StatusCode::CREATED, &what)
            .await?;
        Ok(())
    }

    async fn send_document(
        &self,
        repository: &Repository,
        name: &str,
        media_type: &str,
        bytes: &[u8],
    ) -> Result<(), RemoteError> {
        let url = repository.url(&format!("manifests/{name}"))?;
        let bytes = Bytes::copy_from_slice(bytes);
        let make =
            |request: RequestBuilder| request.header(CONTENT_TYPE, media_type).body(bytes.clone());
        let answer = self
            .ask(repository, Actions::Push, Method::PUT, url, &make)
            .await?;
        let what = || format!("the upload of {}@{name}", repository.path);
        repository
            .expect(answer, StatusCode::CREATED, &what)
            .await?;
        Ok(())
    }
}

/// What an image is asked for by: the digest, where the name has one.
fn pointer(image: &RegistryReference) -> String {
    match (&image.digest, &image.tag) {
        (Some(digest), _) => digest.to_string(),
        (None, Some(tag)) => tag.clone(),
        (None, None) => "latest".to_owned(),
    }
}

fn incomplete(image: &RegistryReference, child: &Descriptor) -> RemoteError {
    RemoteError::Incomplete {
        reference: image.name(),
        child: child.digest,
        platform: platform(child),
    }
}

/// The file from its beginning, piece by piece.
fn body(file: io::Result<File>) -> Body {
    let opened = async move {
        let mut file = file?;
        file.rewind()?;
        Ok::<_, io::Error>(tokio::fs::File::from_std(file))
    };
    let pieces = |file| {
        futures::stream::try_unfold(file, |mut file: tokio::fs::File| async move {
            let mut piece = vec![0u8; PIECE];
            let count = file.read(&mut piece).await?;
            piece.truncate(count);
            Ok::<_, io::Error>((count > 0).then(|| (Bytes::from(piece), file)))
        })
    };
    let frames = futures::stream::once(opened)
        .map_ok(pieces)
        .try_flatten()
        .map_ok(Frame::data);
    Body::wrap(StreamBody::new(frames))
}
