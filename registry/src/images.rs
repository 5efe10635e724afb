//! Container images in a layout: their names, digests and architectures. Their content is neither read nor run here.
//!
//! An image is named by the annotation `org.opencontainers.image.ref.name` of its entry in `index.json` (image layout
//! specification of OCI), and may be one for several architectures.

use crate::artifact::{Descriptor, MANIFEST_MEDIA_TYPE, MAX_MANIFEST_SIZE};
use crate::layout::{INDEX_MEDIA_TYPE, Layout, LayoutError};
use crate::reference::{Digest, quoted};
use serde::Deserialize;
use std::collections::BTreeMap;

/// The annotation that names an image.
pub const REF_NAME: &str = "org.opencontainers.image.ref.name";

/// Most architectures of one image.
const ARCHITECTURES_MAX: usize = 64;

/// One image of a layout.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Image {
    /// Its name.
    pub name: String,
    /// Digest by which a cluster pulls it: of the manifest, or of the index over several architectures.
    pub digest: Digest,
    /// `linux/amd64`, sorted.
    pub architectures: Vec<String>,
}

#[derive(Deserialize)]
struct ImageManifest {
    config: Descriptor,
}

#[derive(Deserialize)]
struct ImageConfig {
    os: String,
    architecture: String,
}

#[derive(Deserialize)]
struct ImageIndex {
    manifests: Vec<Descriptor>,
}

impl Layout {
    /// Lists the container images by name. Reads and hashes their manifests and configs, and no layer.
    ///
    /// # Errors
    /// The first file that is not as it should be; an entry that is no image, has no name, or one that another has.
    pub fn images(&self) -> Result<Vec<Image>, LayoutError> {
        let refused = |reason: String| LayoutError::NotALayout {
            path: self.path().to_owned(),
            reason,
        };
        let mut found: BTreeMap<String, Image> = BTreeMap::new();
        for descriptor in self.read_index()?.manifests {
            let Some(name) = descriptor.annotations.get(REF_NAME).cloned() else {
                return Err(refused(format!("image {} has no name", descriptor.digest)));
            };
            let image = Image {
                architectures: self.architectures(&descriptor)?,
                digest: descriptor.digest,
                name: name.clone(),
            };
            if found.insert(name.clone(), image).is_some() {
                return Err(refused(format!("it names image `{}` twice", quoted(&name))));
            }
        }
        Ok(found.into_values().collect())
    }

    fn architectures(&self, image: &Descriptor) -> Result<Vec<String>, LayoutError> {
        let manifests = match image.media_type.as_str() {
            MANIFEST_MEDIA_TYPE => vec![image.clone()],
            INDEX_MEDIA_TYPE => {
                let index: ImageIndex = self.json_blob(image)?;
                index.manifests
            }
            other => {
                return Err(LayoutError::NotALayout {
                    path: self.path().to_owned(),
                    reason: format!("`{}` is no container image", quoted(other)),
                });
            }
        };
        let mut all = Vec::new();
        for manifest in manifests.iter().take(ARCHITECTURES_MAX) {
            let manifest: ImageManifest = self.json_blob(manifest)?;
            let config: ImageConfig = self.json_blob(&manifest.config)?;
            all.push(quoted(&format!("{}/{}", config.os, config.architecture)));
        }
        all.sort();
        all.dedup();
        Ok(all)
    }

    fn json_blob<T: for<'de> Deserialize<'de>>(
        &self,
        descriptor: &Descriptor,
    ) -> Result<T, LayoutError> {
        let bytes = self.read_blob(descriptor.digest, descriptor.size, MAX_MANIFEST_SIZE)?;
        serde_json::from_slice(&bytes).map_err(|source| LayoutError::Json {
            path: self.blob_path(descriptor.digest),
            source,
        })
    }
}

#[cfg(test)]
pub(crate) mod tests {
    use super::*;
    use serde_json::{Value, json};
    use std::path::Path;

    pub(crate) fn blob(root: &Path, media_type: &str, content: &Value) -> Value {
        let bytes = content.to_string().into_bytes();
        let digest = Digest::of(&bytes);
        let folder = root.join("blobs/sha256");
        std::fs::create_dir_all(&folder).unwrap();
        std::fs::write(folder.join(digest.hex()), &bytes).unwrap();
        json!({"mediaType": media_type, "digest": digest, "size": bytes.len()})
    }

    pub(crate) fn image(root: &Path, architecture: &str) -> Value {
        let config = json!({"os": "linux", "architecture": architecture, "rootfs": {"type": "layers", "diff_ids": []}});
        let config = blob(root, "application/vnd.oci.image.config.v1+json", &config);
        let manifest = json!({"schemaVersion": 2, "config": config, "layers": []});
        blob(root, MANIFEST_MEDIA_TYPE, &manifest)
    }

    pub(crate) fn named(mut descriptor: Value, name: &str) -> Value {
        descriptor["annotations"] = json!({REF_NAME: name});
        descriptor
    }

    pub(crate) fn layout(root: &Path, entries: &[Value]) -> Layout {
        std::fs::create_dir_all(root).unwrap();
        std::fs::write(
            root.join("oci-layout"),
            r#"{"imageLayoutVersion": "1.0.0"}"#,
        )
        .unwrap();
        let index = json!({"schemaVersion": 2, "manifests": entries});
        std::fs::write(root.join("index.json"), index.to_string()).unwrap();
        Layout::open(root).unwrap()
    }

    #[test]
    fn images_have_a_name_a_digest_and_architectures() {
        let folder = tempfile::tempdir().unwrap();
        let root = folder.path();
        let both =
            json!({"schemaVersion": 2, "manifests": [image(root, "arm64"), image(root, "amd64")]});
        let both = blob(root, INDEX_MEDIA_TYPE, &both);
        let digest = both["digest"].as_str().unwrap().to_owned();
        let layout = layout(
            root,
            &[named(both, "tool"), named(image(root, "amd64"), "pause")],
        );
        let images = layout.images().unwrap();
        let shown: Vec<(&str, Vec<&str>)> = images
            .iter()
            .map(|image| {
                let architectures = image.architectures.iter().map(String::as_str);
                (image.name.as_str(), architectures.collect())
            })
            .collect();
        assert_eq!(
            shown,
            [
                ("pause", vec!["linux/amd64"]),
                ("tool", vec!["linux/amd64", "linux/arm64"])
            ]
        );
        assert_eq!(images[1].digest.to_string(), digest);
    }

    #[test]
    fn what_is_no_set_of_images_is_refused() {
        let folder = tempfile::tempdir().unwrap();
        let root = folder.path();
        let one = image(root, "amd64");
        let mut other = one.clone();
        other["mediaType"] = json!("text/plain");
        for (entries, told) in [
            (vec![one.clone()], "has no name"),
            (
                vec![named(one.clone(), "a"), named(one.clone(), "a")],
                "names image `a` twice",
            ),
            (
                vec![named(other, "a")],
                "`text/plain` is no container image",
            ),
        ] {
            let error = layout(root, &entries).images().unwrap_err().to_string();
            assert!(error.contains(told), "{error}");
        }
        let digest = one["digest"]
            .as_str()
            .unwrap()
            .trim_start_matches("sha256:")
            .to_owned();
        std::fs::write(root.join("blobs/sha256").join(digest), "{}").unwrap();
        let error = layout(root, &[named(one, "a")]).images().unwrap_err();
        assert!(matches!(error, LayoutError::Corrupt { .. }), "{error}");
    }
}
