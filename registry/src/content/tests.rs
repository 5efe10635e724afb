use super::*;
use crate::images::tests::{blob, image, layout, named};
use serde_json::{Value, json};
use std::path::Path;

fn parse(media_type: &str, value: &Value) -> Result<Document, ContentError> {
    let bytes = value.to_string().into_bytes();
    Document::parse(media_type, Digest::of(&bytes), &bytes)
}

fn descriptor(media_type: &str, size: u64) -> Value {
    json!({"mediaType": media_type, "digest": Digest::of(b"x"), "size": size})
}

fn index(root: &Path, children: &[Value]) -> Value {
    blob(
        root,
        INDEX_MEDIA_TYPE,
        &json!({"schemaVersion": 2, "manifests": children}),
    )
}

#[test]
fn an_image_has_all_its_names_platforms_and_parts() {
    let folder = tempfile::tempdir().unwrap();
    let root = folder.path();
    let child = |architecture: &str| {
        let mut child = image(root, architecture);
        child["platform"] = json!({"os": "linux", "architecture": architecture});
        child
    };
    let mut attestation = image(root, "riscv64");
    attestation["platform"] = json!({"os": "unknown", "architecture": "unknown"});
    let both = index(root, &[child("arm64"), child("amd64"), attestation]);
    let layout = layout(
        root,
        &[
            named(both.clone(), "r.example/a:1"),
            named(both, "r.example/b:1"),
            named(image(root, "amd64"), "r.example/c:1"),
        ],
    );
    let images = layout.named_images().unwrap();
    assert_eq!(images.len(), 2);
    let first: Vec<&String> = images[0].names.iter().collect();
    assert_eq!(first, ["r.example/a:1", "r.example/b:1"]);
    let contents = &images[0].contents;
    let platforms: Vec<&str> = contents.platforms().collect();
    assert_eq!(platforms, ["linux/amd64", "linux/arm64"]);
    assert_eq!(
        (contents.documents().count(), contents.blobs().count()),
        (4, 3)
    );
    for (digest, size) in contents.blobs() {
        layout.open_blob(digest, size).unwrap();
        let error = layout.open_blob(digest, size + 1).unwrap_err();
        assert!(matches!(error, LayoutError::Corrupt { .. }), "{error}");
    }
}

#[test]
fn a_layer_that_may_not_be_moved_is_set_apart() {
    let bound = "application/vnd.docker.image.rootfs.foreign.diff.tar.gzip";
    let manifest = json!({
        "schemaVersion": 2,
        "config": descriptor("application/vnd.oci.image.config.v1+json", 2),
        "layers": [{"mediaType": bound, "digest": Digest::of(b"theirs"), "size": 9}],
    });
    let bytes = manifest.to_string().into_bytes();
    let root = Descriptor::new(MANIFEST_MEDIA_TYPE, Digest::of(&bytes), bytes.len() as u64);
    let (contents, children) = Contents::of(root, bytes).unwrap();
    assert!(children.is_empty());
    let left: Vec<Digest> = contents.left_out().collect();
    assert_eq!(left, [Digest::of(b"theirs")]);
    assert_eq!(contents.blobs().count(), 1);
}

#[test]
fn what_no_tool_writes_is_refused() {
    let config = || descriptor("application/vnd.oci.image.config.v1+json", 2);
    let layer = |size| descriptor("application/vnd.oci.image.layer.v1.tar", size);
    let manifest = |layers: Vec<Value>| json!({"config": config(), "layers": layers});
    for (media_type, value, told) in [
        (
            INDEX_MEDIA_TYPE,
            json!({"manifests": [descriptor(INDEX_MEDIA_TYPE, 2)]}),
            "is no container image",
        ),
        (
            INDEX_MEDIA_TYPE,
            json!({"manifests": vec![descriptor(MANIFEST_MEDIA_TYPE, 2); 65]}),
            "65 manifests",
        ),
        (
            INDEX_MEDIA_TYPE,
            json!({"manifests": [descriptor(MANIFEST_MEDIA_TYPE, DOCUMENT_MAX + 1)]}),
            "at most",
        ),
        (
            INDEX_MEDIA_TYPE,
            json!({"mediaType": MANIFEST_MEDIA_TYPE, "manifests": []}),
            "and was given as",
        ),
        (
            MANIFEST_MEDIA_TYPE,
            manifest(vec![layer(1); 257]),
            "257 layers",
        ),
        (
            MANIFEST_MEDIA_TYPE,
            manifest(vec![layer(BLOB_MAX + 1)]),
            "at most",
        ),
        (MANIFEST_MEDIA_TYPE, json!({"layers": []}), "is not valid"),
        ("text/html", json!({}), "`text/html` is no container image"),
    ] {
        let error = parse(media_type, &value).unwrap_err().to_string();
        assert!(error.contains(told), "{told}: {error}");
    }
    assert!(parse(DOCKER_MANIFEST, &manifest(vec![layer(1)])).is_ok());
}

#[test]
fn one_digest_has_one_size() {
    let twice = json!({
        "config": descriptor("application/vnd.oci.image.config.v1+json", 2),
        "layers": [descriptor("application/vnd.oci.image.layer.v1.tar", 3)],
    });
    let bytes = twice.to_string().into_bytes();
    let root = Descriptor::new(MANIFEST_MEDIA_TYPE, Digest::of(&bytes), bytes.len() as u64);
    let error = Contents::of(root, bytes).unwrap_err();
    assert!(matches!(error, ContentError::Twofold(_)), "{error}");
}
