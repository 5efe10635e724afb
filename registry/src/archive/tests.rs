use super::*;
use crate::images::tests::{blob, image, layout, named};
use crate::layout::INDEX_MEDIA_TYPE;
use serde_json::json;

/// A layout with an index over two platforms, under two names, and a single image.
fn source(root: &Path) -> Layout {
    let both =
        json!({"schemaVersion": 2, "manifests": [image(root, "arm64"), image(root, "amd64")]});
    let both = blob(root, INDEX_MEDIA_TYPE, &both);
    let entries = [
        named(both.clone(), "r.example/b@x"),
        named(both, "r.example/a@x"),
        named(image(root, "amd64"), "r.example/c@x"),
    ];
    layout(root, &entries)
}

fn packed(layout: &Layout) -> Vec<u8> {
    let images = layout.named_images().unwrap();
    let mut writer = Writer::new(Vec::new(), &images).unwrap();
    for image in &images {
        for (digest, size) in image.contents.blobs() {
            let mut file = layout.open_blob(digest, size).unwrap();
            writer.blob(digest, size, &mut file).unwrap();
        }
    }
    let (bytes, size) = writer.finish().unwrap();
    assert_eq!(bytes.len() as u64, size);
    bytes
}

fn names(images: &[NamedImage]) -> Vec<Vec<&str>> {
    let names = images
        .iter()
        .map(|image| image.names.iter().map(String::as_str));
    names.map(Iterator::collect).collect()
}

#[test]
fn what_was_packed_comes_out_and_equal_images_give_equal_bytes() {
    let folder = tempfile::tempdir().unwrap();
    let layout = source(&folder.path().join("a"));
    let bytes = packed(&layout);
    let again = source(&folder.path().join("b"));
    assert_eq!(bytes, packed(&again));

    let to = folder.path().join("new/folder");
    let images = unpack(bytes.as_slice(), &to).unwrap();
    assert_eq!(
        names(&images),
        [
            vec!["r.example/a@x", "r.example/b@x"],
            vec!["r.example/c@x"]
        ]
    );
    let unpacked = Layout::open(&to).unwrap();
    assert_eq!(packed(&unpacked), bytes);
    let error = unpack(bytes.as_slice(), &to).unwrap_err();
    assert!(matches!(error, ArchiveError::Occupied(_)), "{error}");
}

#[test]
fn a_blob_that_was_changed_is_no_part_of_an_archive() {
    let folder = tempfile::tempdir().unwrap();
    let layout = source(folder.path());
    let images = layout.named_images().unwrap();
    let (digest, size) = images[0].contents.blobs().next().unwrap();
    for wrong in [vec![b'x'; size as usize], vec![b'x'; size as usize - 1]] {
        let mut writer = Writer::new(Vec::new(), &images).unwrap();
        let error = writer
            .blob(digest, size, &mut wrong.as_slice())
            .unwrap_err();
        let expected = matches!(
            error,
            ArchiveError::Corrupt { .. } | ArchiveError::Io { .. }
        );
        assert!(expected, "{error}");
    }
}

/// One entry of a hostile archive.
fn entry(path: &str, kind: tar::EntryType, content: &[u8], link: Option<&str>) -> Vec<u8> {
    let mut header = tar::Header::new_ustar();
    // Not `set_path`, which refuses what is wanted here.
    header.as_old_mut().name[..path.len()].copy_from_slice(path.as_bytes());
    header.set_entry_type(kind);
    header.set_size(content.len() as u64);
    header.set_mode(0o644);
    if let Some(link) = link {
        header.as_old_mut().linkname[..link.len()].copy_from_slice(link.as_bytes());
    }
    header.set_cksum();
    let mut bytes = header.as_bytes().to_vec();
    bytes.extend_from_slice(content);
    bytes.resize(bytes.len().next_multiple_of(512), 0);
    bytes
}

fn file(path: &str, content: &[u8]) -> Vec<u8> {
    entry(path, tar::EntryType::Regular, content, None)
}

fn blob_path(content: &[u8]) -> String {
    format!("{BLOBS}/{}", Digest::of(content).hex())
}

#[test]
fn a_hostile_archive_leaves_nothing() {
    let folder = tempfile::tempdir().unwrap();
    let good = packed(&source(&folder.path().join("good")));
    let whole = &good[..good.len() - 1024];
    let with = |more: &[u8]| [more, whole].concat();
    let after = |more: &[u8]| [whole, more].concat();
    let pax = b"30 path=../../etc/karat-owned\n";
    let stray = file(&blob_path(b"stray"), b"stray");
    let lie = file(&blob_path(b"good"), b"evil");
    let mut huge = file(&blob_path(b"huge"), b"");
    huge[124..136].copy_from_slice(b"\x80\0\0\0\x7f\xff\xff\xff\xff\xff\xff\xff");
    let sum: u32 = huge[..512]
        .iter()
        .enumerate()
        .map(|(at, byte)| {
            if (148..156).contains(&at) {
                32
            } else {
                u32::from(*byte)
            }
        })
        .sum();
    huge[148..156].copy_from_slice(format!("{sum:06o}\0 ").as_bytes());
    let shell = "/bin/sh";
    for (archive, told) in [
        (with(&file("../evil", b"x")), "no part of an image layout"),
        (with(&file("/etc/evil", b"x")), "no part of an image layout"),
        (
            with(&file("blobs/sha256/../../evil", b"x")),
            "no part of an image layout",
        ),
        (
            with(&file("manifest.json", b"[]")),
            "no part of an image layout",
        ),
        (
            with(&entry(INDEX, tar::EntryType::Symlink, b"", Some(shell))),
            "no plain file",
        ),
        (
            with(&entry(INDEX, tar::EntryType::Link, b"", Some(shell))),
            "no plain file",
        ),
        (
            with(&entry(INDEX, tar::EntryType::Char, b"", None)),
            "no plain file",
        ),
        (
            with(&entry(INDEX, tar::EntryType::Fifo, b"", None)),
            "no plain file",
        ),
        (
            with(&entry(INDEX, tar::EntryType::GNUSparse, b"", None)),
            "no plain file",
        ),
        (
            with(&entry("x", tar::EntryType::XHeader, pax, None)),
            "no plain file",
        ),
        (
            with(&entry("x", tar::EntryType::GNULongName, b"x", None)),
            "no plain file",
        ),
        (
            with(&entry("evil/", tar::EntryType::Directory, b"", None)),
            "no plain file",
        ),
        (after(&file(MARKER, b"{}")), "it is there twice"),
        (with(&huge), "larger than"),
        (with(&lie), "was changed or damaged"),
        (after(&stray), "no image in it consists of this"),
        (
            file(MARKER, br#"{"imageLayoutVersion":"1.0.0"}"#),
            "index.json",
        ),
        (good[..good.len() - 1526].to_vec(), "damaged or cut off"),
        // Without its last blob: header, content in one block, and the end.
        (good[..good.len() - 2048].to_vec(), "it is missing"),
        (b"hello".to_vec(), ""),
        (Vec::new(), "oci-layout"),
    ] {
        let to = folder.path().join("to");
        let error = unpack(archive.as_slice(), &to).unwrap_err().to_string();
        assert!(error.contains(told), "{told}: {error}");
        assert!(!to.exists(), "{told}");
    }
    let left: Vec<String> = fs::read_dir(folder.path())
        .unwrap()
        .map(|one| one.unwrap().file_name().to_string_lossy().into_owned())
        .collect();
    assert_eq!(left, ["good"]);
}

#[test]
fn an_archive_has_an_end() {
    let folder = tempfile::tempdir().unwrap();
    let bytes = packed(&source(&folder.path().join("good")));
    let to = folder.path().join("to");
    let error = unpack_within(bytes.as_slice(), &to, 100).unwrap_err();
    assert!(matches!(error, ArchiveError::TooLarge(100)), "{error}");
    assert!(!to.exists());
}
