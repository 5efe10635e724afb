//! Artifacts of a single layer that this crate does not look into, told apart by their artifact type: a packed bundle is one.
//!
//! The form is that of the OCI image specification 1.1 for artifacts without a config
//! (<https://github.com/opencontainers/image-spec/blob/v1.1.1/manifest.md#guidelines-for-artifact-usage>): the empty config,
//! and `artifactType` in the manifest. Nothing in it depends on when or where it was written, so equal pieces have equal
//! digests.

use crate::artifact::{Descriptor, MANIFEST_MEDIA_TYPE, MAX_MANIFEST_SIZE, TITLE, to_json};
use crate::images::REF_NAME;
use crate::layout::{Layout, LayoutError};
use crate::reference::{Digest, quoted};
use serde::{Deserialize, Serialize};

/// Media type of the config that says nothing.
const EMPTY_MEDIA_TYPE: &str = "application/vnd.oci.empty.v1+json";
/// The config that says nothing.
const EMPTY: &[u8] = b"{}";

/// One piece of bytes and what it is.
#[derive(Debug, Clone, Copy)]
pub struct Piece<'a> {
    /// What kind of artifact, as a media type.
    pub artifact_type: &'a str,
    /// Media type of the bytes.
    pub media_type: &'a str,
    /// Name of the entry in the layout.
    pub name: &'a str,
    /// Name of the file that pulling tools write.
    pub file: &'a str,
    /// The bytes.
    pub bytes: &'a [u8],
}

#[derive(Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
struct Manifest {
    schema_version: u32,
    media_type: String,
    artifact_type: String,
    config: Descriptor,
    layers: Vec<Descriptor>,
}

impl Layout {
    /// Stores a piece and returns the digest of its manifest. An entry of the same name is replaced; all others stay.
    ///
    /// # Errors
    /// What reading and writing files can end in, or more entries than a layout has.
    pub fn put_piece(&self, piece: &Piece<'_>) -> Result<Digest, LayoutError> {
        let layer = Descriptor::new(
            piece.media_type,
            Digest::of(piece.bytes),
            piece.bytes.len() as u64,
        );
        let manifest = to_json(&Manifest {
            schema_version: 2,
            media_type: MANIFEST_MEDIA_TYPE.to_owned(),
            artifact_type: piece.artifact_type.to_owned(),
            config: Descriptor::new(EMPTY_MEDIA_TYPE, Digest::of(EMPTY), EMPTY.len() as u64),
            layers: vec![layer.annotated(TITLE, piece.file)],
        });
        let digest = Digest::of(&manifest);
        let entry = Descriptor::new(MANIFEST_MEDIA_TYPE, digest, manifest.len() as u64)
            .annotated(REF_NAME, piece.name);
        self.add(entry, &[piece.bytes, EMPTY, &manifest])?;
        Ok(digest)
    }

    /// Reads the only piece of a kind, or the one of a name. Manifest and bytes are hashed again.
    ///
    /// # Errors
    /// [`LayoutError::Absent`] where there is no such piece, or several and no name; otherwise what reading a blob can
    /// end in.
    pub fn piece(
        &self,
        artifact_type: &str,
        name: Option<&str>,
        limit: u64,
    ) -> Result<Vec<u8>, LayoutError> {
        let mut found = Vec::new();
        let mut others = Vec::new();
        for entry in self.read_index()?.manifests {
            let called = entry.annotations.get(REF_NAME).map(String::as_str);
            if entry.media_type != MANIFEST_MEDIA_TYPE
                || name.is_some_and(|name| called != Some(name))
            {
                continue;
            }
            let called = quoted(called.unwrap_or("(no name)"));
            let bytes = self.read_blob(entry.digest, entry.size, MAX_MANIFEST_SIZE)?;
            // Whatever reads differently is of another kind.
            match serde_json::from_slice::<Manifest>(&bytes) {
                Ok(manifest) if manifest.artifact_type == artifact_type => {
                    found.push((called, manifest));
                }
                _ => others.push(called),
            }
        }
        let refused = |reason: String| LayoutError::Absent {
            path: self.path().to_owned(),
            reason,
        };
        match found.as_slice() {
            [(called, manifest)] => match manifest.layers.as_slice() {
                [layer] => self.read_blob(layer.digest, layer.size, limit),
                layers => Err(refused(format!(
                    "`{called}` with {} layers where one belongs",
                    layers.len()
                ))),
            },
            [] => Err(refused(match others.first() {
                None => format!("no `{artifact_type}`"),
                Some(other) => format!("no `{artifact_type}`, but `{other}` of another kind"),
            })),
            several => {
                let names: Vec<&str> = several.iter().map(|(name, _)| name.as_str()).collect();
                Err(refused(format!(
                    "several of `{artifact_type}`, name one: {}",
                    names.join(", ")
                )))
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::artifact::tests::component;

    const KIND: &str = "application/vnd.example.thing.v1";

    fn piece<'a>(name: &'a str, bytes: &'a [u8]) -> Piece<'a> {
        Piece {
            artifact_type: KIND,
            media_type: "application/octet-stream",
            name,
            file: "thing.bin",
            bytes,
        }
    }

    #[test]
    fn a_piece_comes_back_and_equal_pieces_have_equal_digests() {
        let folder = tempfile::tempdir().unwrap();
        let one = Layout::create(folder.path().join("one")).unwrap();
        let two = Layout::create(folder.path().join("two")).unwrap();
        let digest = one.put_piece(&piece("a", b"first")).unwrap();
        assert_eq!(digest, two.put_piece(&piece("b", b"first")).unwrap());
        assert_eq!(one.piece(KIND, None, 100).unwrap(), b"first");

        one.put_piece(&piece("a", b"second")).unwrap();
        assert_eq!(one.piece(KIND, None, 100).unwrap(), b"second");
        one.put_piece(&piece("c", b"third")).unwrap();
        assert_eq!(one.piece(KIND, Some("c"), 100).unwrap(), b"third");
        let several = one.piece(KIND, None, 100).unwrap_err().to_string();
        assert!(several.contains("name one: a, c"), "{several}");
    }

    #[test]
    fn another_kind_an_unknown_name_and_a_large_one_are_refused() {
        let folder = tempfile::tempdir().unwrap();
        let layout = Layout::create(folder.path()).unwrap();
        layout.put_piece(&piece("a", b"first")).unwrap();
        let other = layout.piece("application/other", None, 100).unwrap_err();
        assert!(other.to_string().contains("`a` of another kind"), "{other}");
        assert!(layout.piece(KIND, Some("b"), 100).is_err());
        assert!(matches!(
            layout.piece(KIND, None, 3),
            Err(LayoutError::TooLarge { limit: 3, .. })
        ));
    }

    #[test]
    fn a_changed_byte_is_found() {
        let folder = tempfile::tempdir().unwrap();
        let layout = Layout::create(folder.path()).unwrap();
        layout.put_piece(&piece("a", b"first")).unwrap();
        let blob = layout.blob_path(Digest::of(b"first"));
        std::fs::write(blob, b"f1rst").unwrap();
        assert!(matches!(
            layout.piece(KIND, None, 100),
            Err(LayoutError::Corrupt { .. })
        ));
    }

    #[test]
    fn what_else_is_in_the_layout_stays() {
        let folder = tempfile::tempdir().unwrap();
        let layout = Layout::create(folder.path()).unwrap();
        layout
            .put_component("probe", "1.0.0", &component("a:b/c", "d:e/f"))
            .unwrap();
        let before = layout.list().unwrap();
        layout.put_piece(&piece("a", b"first")).unwrap();
        let index = layout.read_index().unwrap();
        assert_eq!(index.manifests.len(), before.len() + 1);
        assert_eq!(layout.piece(KIND, None, 100).unwrap(), b"first");
    }
}
