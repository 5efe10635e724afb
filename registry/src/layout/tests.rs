use super::*;
use crate::artifact::tests::component;
use serde_json::{Value, json};
use tempfile::TempDir;

/// A layout with one component, and the means to damage it.
struct Fixture {
    folder: TempDir,
    layout: Layout,
    bytes: Vec<u8>,
}

impl Fixture {
    fn new() -> Self {
        let folder = tempfile::tempdir().unwrap();
        let layout = Layout::create(folder.path()).unwrap();
        let bytes = component("karat:probe/run@0.1.0", "karat:probe/guest@0.1.0");
        layout
            .put_component("dra-support", "0.1.0", &bytes)
            .unwrap();
        Self {
            folder,
            layout,
            bytes,
        }
    }

    fn entry(&self) -> Entry {
        self.layout.list().unwrap().remove(0)
    }

    fn blob(&self, digest: Digest) -> PathBuf {
        self.layout.blob_path(digest)
    }

    fn edit_index(&self, change: impl FnOnce(&mut Value)) {
        let path = self.folder.path().join(INDEX);
        let mut json = serde_json::from_slice(&fs::read(&path).unwrap()).unwrap();
        change(&mut json);
        fs::write(path, json.to_string()).unwrap();
    }

    /// Puts a manifest of the test's making in place of the first one, with right digest and size.
    fn replace_manifest(&self, change: impl FnOnce(&mut Value)) -> Digest {
        let mut json =
            serde_json::from_slice(&fs::read(self.blob(self.entry().manifest_digest)).unwrap())
                .unwrap();
        change(&mut json);
        let bytes = json.to_string().into_bytes();
        let digest = Digest::of(&bytes);
        fs::write(self.blob(digest), &bytes).unwrap();
        self.edit_index(|index| {
            index["manifests"][0]["digest"] = digest.to_string().into();
            index["manifests"][0]["size"] = bytes.len().into();
        });
        digest
    }
}

/// The whole chain of causes, as a program would print it.
fn chain(error: &dyn std::error::Error) -> String {
    let mut text = error.to_string();
    let mut source = error.source();
    while let Some(cause) = source {
        text.push_str(": ");
        text.push_str(&cause.to_string());
        source = cause.source();
    }
    text
}

#[test]
fn what_is_stored_is_read_back() {
    let f = Fixture::new();
    let other = component("karat:probe/log@0.1.0", "karat:probe/guest@0.1.0");
    f.layout
        .put_component("vendor.example/name", "1.0.0", &other)
        .unwrap();
    f.layout
        .put_component("dra-support", "0.10.0", &other)
        .unwrap();

    let layout = Layout::open(f.folder.path()).unwrap();
    let entries = layout.list().unwrap();
    let names: Vec<_> = entries
        .iter()
        .map(|e| format!("{}:{}", e.name, e.version))
        .collect();
    assert_eq!(
        names,
        [
            "dra-support:0.1.0",
            "dra-support:0.10.0",
            "vendor.example/name:1.0.0"
        ]
    );
    assert_eq!(layout.component(&entries[0]).unwrap(), f.bytes);
    assert_eq!(layout.component(&entries[2]).unwrap(), other);
    assert_eq!(entries[0].component_digest, Digest::of(&f.bytes));
    assert_eq!(entries[0].size, f.bytes.len() as u64);
    let (_, config) = layout.manifest_and_config(&entries[0]).unwrap();
    assert_eq!(config.component.imports, ["karat:probe/run@0.1.0"]);
}

#[test]
fn equal_input_gives_equal_folders_in_any_order() {
    let parts = [("a", "1.0.0"), ("b", "0.1.0"), ("a", "0.9.0")];
    let bytes = component("x:y/z", "x:y/w");
    let fill = |order: &[usize]| {
        let folder = tempfile::tempdir().unwrap();
        let layout = Layout::create(folder.path()).unwrap();
        for &i in order {
            layout
                .put_component(parts[i].0, parts[i].1, &bytes)
                .unwrap();
        }
        fs::read(folder.path().join(INDEX)).unwrap()
    };
    assert_eq!(fill(&[0, 1, 2]), fill(&[2, 0, 1, 1, 0]));
}

#[test]
fn the_digest_of_a_manifest_never_changes() {
    // A change here means that every published digest changes: raise a version, do not adjust the test lightly.
    let f = Fixture::new();
    assert_eq!(
        f.entry().manifest_digest.to_string(),
        "sha256:79173af03386f4de8e243e90979f6d3112a3c2fb54ab81392fdea5ab27186821"
    );
}

#[test]
fn the_same_version_is_replaced() {
    let f = Fixture::new();
    let other = component("karat:probe/log@0.1.0", "karat:probe/guest@0.1.0");
    f.layout
        .put_component("dra-support", "0.1.0", &other)
        .unwrap();
    assert_eq!(f.layout.list().unwrap().len(), 1);
    assert_eq!(f.layout.component(&f.entry()).unwrap(), other);
}

#[test]
fn creating_twice_keeps_what_is_there_and_never_takes_a_foreign_folder() {
    let f = Fixture::new();
    assert_eq!(
        Layout::create(f.folder.path())
            .unwrap()
            .list()
            .unwrap()
            .len(),
        1
    );

    let foreign = tempfile::tempdir().unwrap();
    fs::write(foreign.path().join("diary.txt"), "dear").unwrap();
    assert!(matches!(
        Layout::create(foreign.path()),
        Err(LayoutError::NotEmpty { .. })
    ));
    assert!(matches!(
        Layout::open(foreign.path()),
        Err(LayoutError::NotALayout { .. })
    ));
    assert!(matches!(
        Layout::open(foreign.path().join("absent")),
        Err(LayoutError::NotALayout { .. })
    ));
    assert!(matches!(
        Layout::open(foreign.path().join("diary.txt")),
        Err(LayoutError::NotALayout { .. })
    ));
}

#[test]
fn an_edited_truncated_or_grown_blob_is_refused() {
    let f = Fixture::new();
    let entry = f.entry();
    let path = f.blob(entry.component_digest);
    let mut edited = f.bytes.clone();
    *edited.last_mut().unwrap() ^= 1;
    let mut grown = f.bytes.clone();
    grown.push(0);
    for (content, message) in [
        (edited, "has digest sha256:"),
        (
            f.bytes[..f.bytes.len() - 1].to_vec(),
            "instead of the promised",
        ),
        (grown, "more than the promised"),
    ] {
        fs::write(&path, content).unwrap();
        let error = f.layout.component(&entry).unwrap_err();
        assert!(matches!(error, LayoutError::Corrupt { .. }), "{error:?}");
        let text = chain(&error);
        assert!(
            text.contains(message) && text.contains(&entry.component_digest.hex()),
            "{text}"
        );
    }
    // Storing the component again repairs it.
    f.layout
        .put_component("dra-support", "0.1.0", &f.bytes)
        .unwrap();
    assert_eq!(f.layout.component(&entry).unwrap(), f.bytes);
}

#[test]
fn damage_is_found_in_every_blob() {
    for pick in [0, 1, 2] {
        let f = Fixture::new();
        let entry = f.entry();
        let config = f
            .layout
            .manifest_and_config(&entry)
            .unwrap()
            .0
            .config
            .digest;
        let victim = [entry.manifest_digest, config, entry.component_digest][pick];
        fs::write(f.blob(victim), b"{}").unwrap();
        let error = f.layout.component(&entry).unwrap_err();
        assert!(
            matches!(&error, LayoutError::Corrupt { path, .. } if path.ends_with(victim.hex())),
            "{error:?}"
        );
    }
}

#[test]
fn a_missing_blob_is_named() {
    let f = Fixture::new();
    let entry = f.entry();
    fs::remove_file(f.blob(entry.component_digest)).unwrap();
    let error = f.layout.component(&entry).unwrap_err();
    assert!(
        matches!(&error, LayoutError::Missing { path } if path.ends_with(entry.component_digest.hex()))
    );
}

#[test]
fn a_wrong_size_in_the_index_or_manifest_is_refused() {
    let f = Fixture::new();
    f.edit_index(|index| index["manifests"][0]["size"] = 3.into());
    assert!(matches!(f.layout.list(), Err(LayoutError::Corrupt { .. })));
    f.edit_index(|index| index["manifests"][0]["size"] = (MAX_MANIFEST_SIZE + 1).into());
    assert!(matches!(f.layout.list(), Err(LayoutError::TooLarge { .. })));

    let f = Fixture::new();
    f.replace_manifest(|m| m["layers"][0]["size"] = 3.into());
    assert!(matches!(
        f.layout.component(&f.entry()),
        Err(LayoutError::Corrupt {
            source: VerifyError::TooLong { expected: 3 },
            ..
        })
    ));
}

#[test]
fn malformed_digests_never_become_paths() {
    let f = Fixture::new();
    f.edit_index(|index| index["manifests"][0]["digest"] = "sha256:../../../../etc/passwd".into());
    let error = f.layout.list().unwrap_err();
    assert!(matches!(error, LayoutError::Json { .. }));
    assert!(chain(&error).contains("not a digest"), "{}", chain(&error));
}

#[test]
fn two_layers_and_foreign_media_types_are_refused() {
    let f = Fixture::new();
    let digest = f.replace_manifest(|m| m["layers"] = json!([m["layers"][0], m["layers"][0]]));
    let error = f.layout.list().unwrap_err();
    assert!(
        matches!(&error, LayoutError::Artifact { path, source: ArtifactError::Layers(2) } if path.ends_with(digest.hex())),
        "{error:?}"
    );

    let f = Fixture::new();
    f.replace_manifest(|m| {
        m["layers"][0]["mediaType"] = "application/vnd.oci.image.layer.v1.tar+gzip".into()
    });
    assert!(matches!(
        f.layout.list(),
        Err(LayoutError::Artifact {
            source: ArtifactError::Foreign { .. },
            ..
        })
    ));

    let f = Fixture::new();
    f.edit_index(|index| index["manifests"][0]["mediaType"] = INDEX_MEDIA_TYPE.into());
    assert!(matches!(
        f.layout.list(),
        Err(LayoutError::ForeignEntry { .. })
    ));

    let f = Fixture::new();
    f.edit_index(|index| index["mediaType"] = "text/plain".into());
    assert!(matches!(
        f.layout.list(),
        Err(LayoutError::NotALayout { .. })
    ));
}

#[test]
fn a_config_of_another_component_is_refused() {
    let f = Fixture::new();
    let other = component("karat:probe/log@0.1.0", "karat:probe/guest@0.1.0");
    f.layout.put_component("other", "0.1.0", &other).unwrap();
    let entries = f.layout.list().unwrap();
    let config = f.layout.manifest_and_config(&entries[1]).unwrap().0.config;
    f.replace_manifest(|m| m["config"] = serde_json::to_value(&config).unwrap());
    assert!(matches!(
        f.layout.component(&f.entry()),
        Err(LayoutError::Artifact {
            source: ArtifactError::LayerDigests(_),
            ..
        })
    ));
}

#[test]
fn an_entry_listed_twice_is_refused() {
    let f = Fixture::new();
    f.edit_index(|index| {
        index["manifests"] = json!([index["manifests"][0], index["manifests"][0]])
    });
    assert!(matches!(
        f.layout.list(),
        Err(LayoutError::Duplicate { .. })
    ));
}

#[test]
fn limits_hold_for_the_index() {
    let f = Fixture::new();
    f.edit_index(|index| {
        index["manifests"] = vec![index["manifests"][0].clone(); MAX_ENTRIES + 1].into()
    });
    assert!(matches!(
        f.layout.list(),
        Err(LayoutError::TooMany { count: 4097, .. })
    ));
    fs::write(
        f.folder.path().join(INDEX),
        vec![b' '; MAX_INDEX_SIZE as usize + 1],
    )
    .unwrap();
    assert!(matches!(f.layout.list(), Err(LayoutError::TooLarge { .. })));
    fs::write(f.folder.path().join(INDEX), "{").unwrap();
    assert!(matches!(f.layout.list(), Err(LayoutError::Json { .. })));
    fs::remove_file(f.folder.path().join(INDEX)).unwrap();
    assert!(matches!(f.layout.list(), Err(LayoutError::Missing { .. })));
}

#[test]
fn another_layout_version_is_refused() {
    let f = Fixture::new();
    fs::write(
        f.folder.path().join(MARKER),
        r#"{"imageLayoutVersion":"2.0.0"}"#,
    )
    .unwrap();
    assert!(matches!(
        Layout::open(f.folder.path()),
        Err(LayoutError::UnknownVersion { .. })
    ));
}

#[cfg(unix)]
#[test]
fn symbolic_links_may_not_leave_the_layout() {
    use std::os::unix::fs::symlink;
    let outside = tempfile::tempdir().unwrap();
    let f = Fixture::new();
    let entry = f.entry();
    let path = f.blob(entry.component_digest);

    // Even the right bytes are not taken from elsewhere.
    fs::write(outside.path().join("blob"), &f.bytes).unwrap();
    fs::remove_file(&path).unwrap();
    symlink(outside.path().join("blob"), &path).unwrap();
    assert!(matches!(
        f.layout.component(&entry),
        Err(LayoutError::Escapes { .. })
    ));

    // A link that stays inside is just another name.
    fs::write(f.folder.path().join("kept"), &f.bytes).unwrap();
    fs::remove_file(&path).unwrap();
    symlink("../../kept", &path).unwrap();
    assert_eq!(f.layout.component(&entry).unwrap(), f.bytes);

    // Nothing is written through a folder that leads out.
    fs::remove_dir_all(f.folder.path().join(BLOBS)).unwrap();
    symlink(outside.path(), f.folder.path().join(BLOBS)).unwrap();
    let before = fs::read_dir(outside.path()).unwrap().count();
    f.edit_index(|index| index["manifests"] = json!([]));
    assert!(matches!(
        f.layout.put_component("a", "1.0.0", &f.bytes),
        Err(LayoutError::Escapes { .. })
    ));
    assert_eq!(fs::read_dir(outside.path()).unwrap().count(), before);
}

#[test]
fn a_folder_in_place_of_a_blob_is_refused() {
    let f = Fixture::new();
    let entry = f.entry();
    fs::remove_file(f.blob(entry.component_digest)).unwrap();
    fs::create_dir(f.blob(entry.component_digest)).unwrap();
    assert!(matches!(
        f.layout.component(&entry),
        Err(LayoutError::NotAFile { .. })
    ));
}

#[test]
fn a_refused_component_changes_nothing() {
    let f = Fixture::new();
    let before = fs::read(f.folder.path().join(INDEX)).unwrap();
    let error = f
        .layout
        .put_component("dra-support", "0.1.0", b"\0asm\x01\0\0\0")
        .unwrap_err();
    assert!(
        chain(&error).contains("cannot store dra-support:0.1.0: a core module"),
        "{}",
        chain(&error)
    );
    assert_eq!(fs::read(f.folder.path().join(INDEX)).unwrap(), before);
}

#[test]
fn fields_of_other_tools_survive_a_write() {
    let f = Fixture::new();
    f.edit_index(|index| {
        index["annotations"] = json!({"note": "kept"});
        index["manifests"][0]["platform"] = json!({"architecture": "wasm", "os": "wasip2"});
    });
    f.layout.put_component("other", "0.1.0", &f.bytes).unwrap();
    f.edit_index(|index| {
        assert_eq!(index["annotations"]["note"], "kept");
        assert_eq!(index["manifests"][0]["platform"]["os"], "wasip2");
    });
}

#[test]
fn writers_take_turns() {
    let f = Fixture::new();
    std::thread::scope(|scope| {
        for i in 0..8 {
            let (layout, bytes) = (f.layout.clone(), f.bytes.clone());
            scope.spawn(move || {
                layout
                    .put_component(&format!("probe-{i}"), "0.1.0", &bytes)
                    .unwrap()
            });
        }
    });
    assert_eq!(f.layout.list().unwrap().len(), 9);
    // No temporary file is left behind.
    let blobs = fs::read_dir(f.folder.path().join(BLOBS)).unwrap();
    assert!(blobs.flatten().all(|file| file.file_name().len() == 64));
}
