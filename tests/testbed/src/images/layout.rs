//! The OCI image layout: blobs by digest, one manifest for each image, one index, and an archive of the same.
//!
//! Files appear by rename, because several laboratories may start from one build folder at the same time.

use std::collections::{BTreeMap, BTreeSet};
use std::fs;
use std::path::{Path, PathBuf};

use serde::Serialize;
use sha2::{Digest as _, Sha256};

use super::tar::{Content, Entry, archive};
use super::{Image, Images, PROGRAM};
use crate::error::{Result, TestbedError};

/// What an image shall be.
pub(super) struct Source<'a> {
    pub(super) name: &'a str,
    pub(super) entrypoint: Vec<&'a str>,
    pub(super) cmd: Vec<&'a str>,
}

/// The user of all images. A number, because `runAsNonRoot` cannot judge a name.
const USER: &str = "65532:65532";
const PASSWD: &str = "root:x:0:0:root:/:/bin/tool\nnonroot:x:65532:65532:nonroot:/tmp:/bin/tool\n";

const MANIFEST: &str = "application/vnd.oci.image.manifest.v1+json";
const INDEX: &str = "application/vnd.oci.image.index.v1+json";
const CONFIG: &str = "application/vnd.oci.image.config.v1+json";
const LAYER: &str = "application/vnd.oci.image.layer.v1.tar";

// Structures and not `json!`: the order of fields must not hang on a feature of a JSON library.
#[derive(Serialize)]
struct Descriptor {
    #[serde(rename = "mediaType")]
    media_type: &'static str,
    digest: String,
    size: usize,
    #[serde(skip_serializing_if = "Option::is_none")]
    platform: Option<Platform>,
    #[serde(skip_serializing_if = "BTreeMap::is_empty")]
    annotations: BTreeMap<&'static str, String>,
}

#[derive(Serialize)]
struct Platform {
    architecture: &'static str,
    os: &'static str,
}

#[derive(Serialize)]
struct Manifest {
    #[serde(rename = "schemaVersion")]
    schema_version: u8,
    #[serde(rename = "mediaType")]
    media_type: &'static str,
    config: Descriptor,
    layers: Vec<Descriptor>,
}

#[derive(Serialize)]
struct Index {
    #[serde(rename = "schemaVersion")]
    schema_version: u8,
    #[serde(rename = "mediaType")]
    media_type: &'static str,
    manifests: Vec<Descriptor>,
}

#[derive(Serialize)]
struct Config<'a> {
    architecture: &'static str,
    os: &'static str,
    config: Run<'a>,
    rootfs: RootFs,
}

#[derive(Serialize)]
struct Run<'a> {
    #[serde(rename = "User")]
    user: &'static str,
    #[serde(rename = "Env")]
    env: [&'static str; 1],
    #[serde(rename = "Entrypoint")]
    entrypoint: &'a [&'a str],
    #[serde(rename = "Cmd", skip_serializing_if = "<[_]>::is_empty")]
    cmd: &'a [&'a str],
    #[serde(rename = "WorkingDir")]
    working_dir: &'static str,
}

#[derive(Serialize)]
struct RootFs {
    r#type: &'static str,
    diff_ids: [String; 1],
}

/// Blobs by digest.
#[derive(Default)]
struct Blobs(BTreeMap<String, Vec<u8>>);

impl Blobs {
    fn add(&mut self, media_type: &'static str, bytes: Vec<u8>) -> Descriptor {
        let hex: String = Sha256::digest(&bytes)
            .iter()
            .map(|b| format!("{b:02x}"))
            .collect();
        let size = bytes.len();
        self.0.insert(hex.clone(), bytes);
        Descriptor {
            media_type,
            digest: format!("sha256:{hex}"),
            size,
            platform: None,
            annotations: BTreeMap::new(),
        }
    }
}

/// Writes the images, all with the same layer, to `folder/layout` and `folder/images.tar`.
pub(super) fn write(folder: &Path, binary: &[u8], sources: &[Source<'_>]) -> Result<Images> {
    let mut blobs = Blobs::default();
    let layer = layer(binary);
    let mut manifests = Vec::new();
    let mut images = Vec::new();
    for source in sources {
        let layer = blobs.add(LAYER, layer.clone());
        let config = Config {
            architecture: architecture(),
            os: "linux",
            config: Run {
                user: USER,
                env: ["PATH=/bin"],
                entrypoint: &source.entrypoint,
                cmd: &source.cmd,
                working_dir: "/",
            },
            rootfs: RootFs {
                r#type: "layers",
                diff_ids: [layer.digest.clone()],
            },
        };
        let config = blobs.add(CONFIG, json(&config)?);
        let manifest = json(&Manifest {
            schema_version: 2,
            media_type: MANIFEST,
            config,
            layers: vec![layer],
        })?;
        let digest = blobs.add(MANIFEST, manifest.clone()).digest;
        let image = Image {
            name: source.name.to_owned(),
            digest,
        };
        // Twice, because a pod may ask for a tag or for a digest.
        for name in [image.name.clone(), image.pinned()] {
            let mut descriptor = blobs.add(MANIFEST, manifest.clone());
            descriptor.platform = Some(Platform {
                architecture: architecture(),
                os: "linux",
            });
            descriptor
                .annotations
                .insert("io.containerd.image.name", name.clone());
            descriptor
                .annotations
                .insert("org.opencontainers.image.ref.name", name);
            manifests.push(descriptor);
        }
        images.push(image);
    }
    let index = json(&Index {
        schema_version: 2,
        media_type: INDEX,
        manifests,
    })?;
    save(folder, &blobs, &index, images)
}

fn json(value: &impl Serialize) -> Result<Vec<u8>> {
    serde_json::to_vec(value).map_err(|e| TestbedError::Io {
        path: "image description".into(),
        source: e.into(),
    })
}

/// The name that images use for this machine's processor.
const fn architecture() -> &'static str {
    if cfg!(target_arch = "aarch64") {
        "arm64"
    } else {
        "amd64"
    }
}

fn layer(binary: &[u8]) -> Vec<u8> {
    let folder = |path: &str, mode| Entry {
        path: path.to_owned(),
        mode,
        content: Content::Folder,
    };
    let file = |path: &str, mode, data| Entry {
        path: path.to_owned(),
        mode,
        content: Content::File(data),
    };
    archive(&[
        folder("bin/", 0o755),
        file(PROGRAM.trim_start_matches('/'), 0o755, binary),
        folder("etc/", 0o755),
        file("etc/passwd", 0o644, PASSWD.as_bytes()),
        folder("tmp/", 0o1777),
    ])
}

const OCI_LAYOUT: &[u8] = br#"{"imageLayoutVersion":"1.0.0"}"#;

fn save(folder: &Path, blobs: &Blobs, index: &[u8], images: Vec<Image>) -> Result<Images> {
    let layout = folder.join("layout");
    let dir = layout.join("blobs/sha256");
    fs::create_dir_all(&dir).map_err(TestbedError::io(&dir))?;
    let mut entries = vec![
        ("oci-layout".to_owned(), OCI_LAYOUT),
        ("index.json".to_owned(), index),
    ];
    entries.extend(
        blobs
            .0
            .iter()
            .map(|(hex, bytes)| (format!("blobs/sha256/{hex}"), bytes.as_slice())),
    );
    // The index last: what it names is there by then.
    for (path, bytes) in entries.iter().rev() {
        put(&layout.join(path), bytes)?;
    }
    let known: BTreeSet<&str> = blobs.0.keys().map(String::as_str).collect();
    for old in fs::read_dir(&dir)
        .map_err(TestbedError::io(&dir))?
        .flatten()
    {
        if !known.contains(&*old.file_name().to_string_lossy()) {
            let _ = fs::remove_file(old.path());
        }
    }
    let archive_path = folder.join("images.tar");
    let tar: Vec<Entry<'_>> = entries
        .iter()
        .map(|(path, bytes)| Entry {
            path: path.clone(),
            mode: 0o644,
            content: Content::File(bytes),
        })
        .collect();
    put(&archive_path, &archive(&tar))?;
    Ok(Images {
        layout,
        archive: archive_path,
        images,
    })
}

/// Writes a file unless it is there with this content already.
fn put(path: &Path, bytes: &[u8]) -> Result<()> {
    if fs::read(path).is_ok_and(|old| old == bytes) {
        return Ok(());
    }
    let mut beside = path.as_os_str().to_owned();
    beside.push(format!(".{}", std::process::id()));
    let beside = PathBuf::from(beside);
    fs::write(&beside, bytes).map_err(TestbedError::io(&beside))?;
    fs::rename(&beside, path).map_err(TestbedError::io(path))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn sources() -> [Source<'static>; 2] {
        [
            Source {
                name: "karat.local/a:1",
                entrypoint: vec![PROGRAM, "a"],
                cmd: vec![],
            },
            Source {
                name: "karat.local/b:1",
                entrypoint: vec![PROGRAM],
                cmd: vec!["help"],
            },
        ]
    }

    #[test]
    fn every_blob_has_the_name_of_its_content_and_all_are_reachable() {
        let dir = tempfile::tempdir().unwrap();
        let images = write(dir.path(), b"program", &sources()).unwrap();
        let read = |digest: &str| {
            let bytes = fs::read(
                images
                    .layout
                    .join("blobs/sha256")
                    .join(digest.trim_start_matches("sha256:")),
            )
            .unwrap();
            let hex: String = Sha256::digest(&bytes)
                .iter()
                .map(|b| format!("{b:02x}"))
                .collect();
            assert_eq!(digest, format!("sha256:{hex}"));
            bytes
        };
        let parse = |bytes: &[u8]| serde_json::from_slice::<serde_json::Value>(bytes).unwrap();
        let index = parse(&fs::read(images.layout.join("index.json")).unwrap());
        assert_eq!(index["manifests"].as_array().unwrap().len(), 4);
        for image in &images.images {
            let manifest = parse(&read(&image.digest));
            let config = parse(&read(manifest["config"]["digest"].as_str().unwrap()));
            let layer = manifest["layers"][0]["digest"].as_str().unwrap();
            read(layer);
            assert_eq!(config["rootfs"]["diff_ids"][0], layer);
            assert_eq!(config["config"]["User"], USER);
        }
    }

    #[test]
    fn the_same_program_gives_the_same_bytes_and_another_one_replaces_it() {
        let (a, b) = (tempfile::tempdir().unwrap(), tempfile::tempdir().unwrap());
        let first = write(a.path(), b"program", &sources()).unwrap();
        let second = write(b.path(), b"program", &sources()).unwrap();
        assert_eq!(first.images, second.images);
        assert_eq!(
            fs::read(&first.archive).unwrap(),
            fs::read(&second.archive).unwrap()
        );
        let blobs = || {
            fs::read_dir(a.path().join("layout/blobs/sha256"))
                .unwrap()
                .count()
        };
        let before = blobs();
        let third = write(a.path(), b"another", &sources()).unwrap();
        assert_ne!(first.images, third.images);
        assert_eq!(blobs(), before, "blobs of the old program are left");
    }
}
