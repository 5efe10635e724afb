use super::*;
use wasm_encoder::{
    Component, ComponentExportKind, ComponentExportSection, ComponentImportSection,
    ComponentTypeRef, ComponentTypeSection, InstanceType,
};

/// A component that imports and exports an empty instance of the given names.
pub(crate) fn component(import: &str, export: &str) -> Vec<u8> {
    let mut component = Component::new();
    let mut types = ComponentTypeSection::new();
    types.instance(&InstanceType::new());
    component.section(&types);
    let mut imports = ComponentImportSection::new();
    imports.import(import, ComponentTypeRef::Instance(0));
    component.section(&imports);
    let mut exports = ComponentExportSection::new();
    exports.export(export, ComponentExportKind::Instance, 0, None);
    component.section(&exports);
    component.finish()
}

fn manifest(change: impl FnOnce(&mut serde_json::Value)) -> Result<Manifest, ArtifactError> {
    let encoded = Artifact::new("a", "1.0.0", component("x:y/z", "x:y/w"))
        .unwrap()
        .encode()
        .unwrap();
    let mut json = serde_json::from_slice(&encoded.manifest).unwrap();
    change(&mut json);
    Manifest::parse(json.to_string().as_bytes())
}

#[test]
fn the_config_lists_what_the_component_imports_and_exports() {
    let bytes = component(
        "karat:probe/run@0.1.0-dev.1",
        "karat:probe/guest@0.1.0-dev.1",
    );
    let artifact = Artifact::new("dra-support", "0.1.0", bytes.clone())
        .unwrap()
        .with_target("karat:probe/probe@0.1.0-dev.1")
        .unwrap();
    let encoded = artifact.encode().unwrap();
    let config: serde_json::Value = serde_json::from_slice(&encoded.config).unwrap();
    assert_eq!(
        config,
        serde_json::json!({
            "created": "1970-01-01T00:00:00Z",
            "architecture": "wasm",
            "os": "wasip2",
            "layerDigests": [Digest::of(&bytes).to_string()],
            "component": {
                "exports": ["karat:probe/guest@0.1.0-dev.1"],
                "imports": ["karat:probe/run@0.1.0-dev.1"],
                "target": "karat:probe/probe@0.1.0-dev.1",
            },
        })
    );
}

#[test]
fn names_of_nested_components_are_not_the_components_own() {
    let mut outer = Component::new();
    outer.section(&wasm_encoder::RawSection {
        id: 4,
        data: &component("x:y/inner", "x:y/out"),
    });
    let artifact = Artifact::new("a", "1.0.0", outer.finish()).unwrap();
    assert_eq!(artifact.interface(), &ComponentInterface::default());
}

#[test]
fn equal_input_gives_equal_bytes_and_reads_back() {
    let make = || {
        Artifact::new(
            "vendor.example/name",
            "1.2.0-rc.1",
            component("x:y/z", "x:y/w"),
        )
        .unwrap()
        .with_annotation("org.opencontainers.image.description", "one\ntwo")
        .unwrap()
    };
    let encoded = make().encode().unwrap();
    assert_eq!(encoded, make().encode().unwrap());

    let manifest = Manifest::parse(&encoded.manifest).unwrap();
    assert_eq!(
        (
            manifest.name.as_str(),
            manifest.version.to_string().as_str()
        ),
        ("vendor.example/name", "1.2.0-rc.1")
    );
    assert_eq!(manifest.layer.digest, Digest::of(make().component()));
    assert_eq!(manifest.layer.annotations[TITLE], "name.wasm");
    assert_eq!(manifest.config.digest, Digest::of(&encoded.config));
    let config = Config::parse(&encoded.config, &manifest.layer.digest).unwrap();
    assert_eq!(&config.component, make().interface());
}

#[test]
fn only_valid_components_are_packed() {
    let new = |bytes: &[u8]| Artifact::new("a", "1.0.0", bytes).unwrap_err();
    assert!(matches!(new(b"#!/bin/sh"), ArtifactError::NotWebAssembly));
    assert!(matches!(new(b""), ArtifactError::NotWebAssembly));
    assert!(matches!(new(b"\0asm\x01\0\0\0"), ArtifactError::CoreModule));
    let whole = component("x:y/z", "x:y/w");
    assert!(matches!(
        new(&whole[..whole.len() - 3]),
        ArtifactError::InvalidComponent(_)
    ));
    assert!(matches!(
        new(&vec![0; MAX_COMPONENT_SIZE as usize + 1]),
        ArtifactError::TooLarge { .. }
    ));
    assert!(matches!(
        Artifact::new("../a", "1.0.0", whole.clone()),
        Err(ArtifactError::Reference(_))
    ));
    assert!(matches!(
        Artifact::new("a", "latest", whole),
        Err(ArtifactError::Reference(_))
    ));
}

#[test]
fn targets_and_annotations_are_checked() {
    let artifact = || Artifact::new("a", "1.0.0", component("x:y/z", "x:y/w")).unwrap();
    for target in [
        "",
        "probe",
        "karat:probe",
        "karat:probe/",
        "karat:probe/a b",
        "karat:probe/probe@x",
        "k:p/w/x",
    ] {
        assert!(
            matches!(
                artifact().with_target(target),
                Err(ArtifactError::Target(_))
            ),
            "{target}"
        );
    }
    for key in [TITLE, VERSION] {
        assert!(matches!(
            artifact().with_annotation(key, "x"),
            Err(ArtifactError::ReservedAnnotation(_))
        ));
    }
    let large = artifact()
        .with_annotation("x", &"x".repeat(MAX_MANIFEST_SIZE as usize))
        .unwrap();
    assert!(matches!(
        large.encode(),
        Err(ArtifactError::TooLarge {
            what: "the manifest",
            ..
        })
    ));
}

#[test]
fn foreign_manifests_are_refused_with_the_field() {
    type Case = (fn(&mut serde_json::Value), &'static str);
    let cases: [Case; 15] = [
        (
            |m| m["schemaVersion"] = 1.into(),
            "schemaVersion is `1`, expected `2`",
        ),
        (
            |m| m["mediaType"] = "text/plain".into(),
            "manifest's mediaType is `text/plain`",
        ),
        (
            |m| m["config"]["mediaType"] = "application/vnd.oci.image.config.v1+json".into(),
            "config's media type is `app",
        ),
        (
            |m| m["layers"][0]["mediaType"] = "application/gzip".into(),
            "layer's media type is `application/gzip`",
        ),
        (|m| m["layers"] = serde_json::json!([]), "has 0 layers"),
        (
            |m| m["layers"] = serde_json::json!([m["layers"][0], m["layers"][0]]),
            "has 2 layers",
        ),
        (
            |m| m["layers"][0]["digest"] = "sha256:../../../etc/passwd".into(),
            "the manifest is not valid",
        ),
        (
            |m| m["layers"][0]["size"] = (-1).into(),
            "the manifest is not valid",
        ),
        (
            |m| m["layers"][0]["size"] = (MAX_COMPONENT_SIZE + 1).into(),
            "the component has 67108865 bytes",
        ),
        (
            |m| m["config"]["size"] = (MAX_MANIFEST_SIZE + 1).into(),
            "the config has 1048577 bytes",
        ),
        (
            |m| m["annotations"] = serde_json::json!({}),
            "image.title is missing",
        ),
        (
            |m| m["annotations"] = serde_json::json!({TITLE: "a"}),
            "image.version is missing",
        ),
        (
            |m| m["annotations"][TITLE] = "../a".into(),
            "`../a` is not a component name",
        ),
        (
            |m| m["annotations"][VERSION] = "latest".into(),
            "`latest` is not a version",
        ),
        (
            |m| *m = serde_json::Value::Null,
            "the manifest is not valid",
        ),
    ];
    manifest(|_| {}).unwrap();
    for (change, message) in cases {
        let error = manifest(change).unwrap_err().to_string();
        assert!(error.contains(message), "{message}: {error}");
    }
    assert!(matches!(
        Manifest::parse(&vec![b' '; MAX_MANIFEST_SIZE as usize + 1]),
        Err(ArtifactError::TooLarge { .. })
    ));
}

#[test]
fn a_config_must_describe_the_layer() {
    let encoded = Artifact::new("a", "1.0.0", component("x:y/z", "x:y/w"))
        .unwrap()
        .encode()
        .unwrap();
    let layer = Manifest::parse(&encoded.manifest).unwrap().layer.digest;
    assert!(matches!(
        Config::parse(&encoded.config, &Digest::of(b"")),
        Err(ArtifactError::LayerDigests(_))
    ));
    for (field, value, message) in [
        ("os", "wasip1", "os is `wasip1`"),
        ("architecture", "amd64", "architecture is `amd64`"),
    ] {
        let mut json: serde_json::Value = serde_json::from_slice(&encoded.config).unwrap();
        json[field] = value.into();
        let error = Config::parse(json.to_string().as_bytes(), &layer)
            .unwrap_err()
            .to_string();
        assert!(error.contains(message), "{error}");
    }
    assert!(matches!(
        Config::parse(b"{}", &layer),
        Err(ArtifactError::Json { .. })
    ));
}
