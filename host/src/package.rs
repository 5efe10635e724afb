//! From what a compiler made to what can be published: a component with its manifest inside.
//!
//! [`build`] wraps, embeds the manifest, and looks at the result as the loader will; the same input gives the same bytes, and
//! building twice changes nothing. [`world_wit`] and [`write_wit_dir`] go the other way, for tools that import everything a world
//! has: they write a world with only what the manifest asks for. The loader trusts nothing that was checked here.

use crate::component::{self, LoadError};
use crate::manifest::section::{self, SectionError};
use crate::manifest::{CAPABILITIES, CORE_INTERFACES, Manifest, ManifestError};
use crate::names::CONTRACT_PACKAGE;
use std::fmt::Write as _;
use std::fs;
use std::io;
use std::path::{Path, PathBuf};
use wasmparser::{BinaryReaderError, Parser, Validator, WasmFeatures};
use wit_component::ComponentEncoder;

/// The files of the contract, byte for byte as they lie in `wit/`.
pub const CONTRACT_FILES: &[(&str, &str)] = &[
    ("cases.wit", include_str!("../../wit/cases.wit")),
    ("clock.wit", include_str!("../../wit/clock.wit")),
    ("device.wit", include_str!("../../wit/device.wit")),
    ("http.wit", include_str!("../../wit/http.wit")),
    ("kube-read.wit", include_str!("../../wit/kube-read.wit")),
    ("kube-write.wit", include_str!("../../wit/kube-write.wit")),
    ("leases.wit", include_str!("../../wit/leases.wit")),
    ("log.wit", include_str!("../../wit/log.wit")),
    ("metrics.wit", include_str!("../../wit/metrics.wit")),
    ("pods.wit", include_str!("../../wit/pods.wit")),
    ("probe.wit", include_str!("../../wit/probe.wit")),
    ("run.wit", include_str!("../../wit/run.wit")),
    ("settings.wit", include_str!("../../wit/settings.wit")),
    ("types.wit", include_str!("../../wit/types.wit")),
    ("wait.wit", include_str!("../../wit/wait.wit")),
];

/// Name of the world that [`world_wit`] writes, for the `--world` of other tools.
pub const WORLD: &str = "probe";

/// Why no package was made.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum PackageError {
    /// The manifest is wrong.
    #[error(transparent)]
    Manifest(#[from] ManifestError),
    /// The manifest cannot be embedded.
    #[error(transparent)]
    Section(#[from] SectionError),
    /// The core module cannot become a component.
    #[error(
        "the core module cannot be wrapped as a component; build it with the SDK for target `wasm32-unknown-unknown`"
    )]
    Wrap(#[source] Box<dyn std::error::Error + Send + Sync>),
    /// The component is damaged.
    #[error("the component is not valid; build it again")]
    Invalid(#[source] BinaryReaderError),
    /// No engine would load the result.
    #[error(transparent)]
    Refused(#[from] LoadError),
    /// A file could not be written.
    #[error("cannot write {}", path.display())]
    Write {
        /// The file or folder.
        path: PathBuf,
        /// The refusal.
        #[source]
        source: io::Error,
    },
}

/// Makes a component with its manifest inside, from a core module with component types embedded or from a component.
///
/// # Errors
/// [`PackageError`]. Messages about the manifest call it `probe.toml`.
pub fn build(core_or_component: &[u8], manifest_toml: &str) -> Result<Vec<u8>, PackageError> {
    // First, because its messages name places in the text that the author wrote.
    Manifest::parse(manifest_toml, "probe.toml")?;
    let wrapped;
    let component = if Parser::is_core_wasm(core_or_component) {
        wrapped = wrap(core_or_component)?;
        &wrapped
    } else {
        core_or_component
    };
    let out = section::embed(component, manifest_toml)?;
    // Which proposals may be used is for the engine to say, in better words than "not valid".
    Validator::new_with_features(WasmFeatures::all())
        .validate_all(&out)
        .map_err(PackageError::Invalid)?;
    component::inspect(&out)?;
    Ok(out)
}

fn wrap(core: &[u8]) -> Result<Vec<u8>, PackageError> {
    ComponentEncoder::default()
        .validate(true)
        .module(core)
        .and_then(|encoder| encoder.encode())
        .map_err(|error| PackageError::Wrap(error.into()))
}

/// Writes the world of a manifest: the core interfaces, its capabilities and the export, in WIT.
///
/// ```
/// # use karat_engine::{manifest::Manifest, package::world_wit};
/// let manifest = Manifest::parse(
///     r#"
///     id = "a"
///     version = "0.1.0"
///     title = "t"
///     claim = "c"
///     misleads = "m"
///     contract = "0.1.0-dev.1"
///     requirements = []
///     capabilities = ["kube-read"]
///     cases = [{ id = "x", kind = "observation", required = "always", claim = "c" }]
///     "#,
///     "probe.toml",
/// )?;
/// let world = world_wit(&manifest);
/// assert!(world.contains("import karat:probe/kube-read@0.1.0-dev.1;"));
/// assert!(!world.contains("kube-write"));
/// # Ok::<(), karat_engine::manifest::ManifestError>(())
/// ```
#[must_use]
pub fn world_wit(manifest: &Manifest) -> String {
    let contract = &manifest.contract;
    // Of another package than the contract, whose own world of this name has everything.
    let mut text = format!(
        "// Written from the manifest of {}: change `capabilities` there and write it again.\npackage karat:generated;\n\nworld {WORLD} {{\n",
        manifest.id
    );
    let asked = CAPABILITIES
        .iter()
        .filter(|name| manifest.capabilities.iter().any(|asked| asked == *name));
    for name in CORE_INTERFACES.iter().chain(asked) {
        // Writing to a string cannot fail.
        let _ = writeln!(text, "  import {CONTRACT_PACKAGE}/{name}@{contract};");
    }
    let _ = writeln!(text, "\n  export {CONTRACT_PACKAGE}/guest@{contract};\n}}");
    text
}

/// Writes `world.wit` and, below `deps/karat-probe/`, the contract it refers to. Other files in the folder stay.
///
/// # Errors
/// [`PackageError::Write`].
pub fn write_wit_dir(manifest: &Manifest, dir: &Path) -> Result<(), PackageError> {
    let deps = dir.join("deps").join("karat-probe");
    fs::create_dir_all(&deps).map_err(|source| PackageError::Write {
        path: deps.clone(),
        source,
    })?;
    let files = CONTRACT_FILES
        .iter()
        .map(|(name, text)| (deps.join(name), (*text).to_owned()));
    for (path, text) in files.chain([(dir.join("world.wit"), world_wit(manifest))]) {
        // An unchanged file keeps its time stamp, so that build tools do not start over.
        if fs::read(&path).is_ok_and(|there| there == text.as_bytes()) {
            continue;
        }
        fs::write(&path, text).map_err(|source| PackageError::Write { path, source })?;
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::names::CONTRACT_VERSION;
    use std::collections::BTreeSet;
    use wasmparser::Payload;
    use wit_component::{StringEncoding, dummy_module, embed_component_metadata};
    use wit_parser::{ManglingAndAbi, Resolve};

    fn manifest_with(capabilities: &str) -> String {
        format!(
            r#"
            id = "vendor.example/x"
            version = "0.1.0"
            title = "t"
            claim = "c"
            misleads = "m"
            contract = "{CONTRACT_VERSION}"
            requirements = []
            capabilities = [{capabilities}]
            cases = [{{ id = "a", kind = "observation", required = "always", claim = "c" }}]
            "#
        )
    }

    /// A core module that imports and exports all of the world in a folder.
    fn core_for(dir: &Path, world: &str) -> Vec<u8> {
        let mut resolve = Resolve::default();
        let (package, _) = resolve.push_dir(dir).unwrap();
        let world = resolve.select_world(&[package], Some(world)).unwrap();
        let abi = ManglingAndAbi::Legacy(wit_parser::LiftLowerAbi::Sync);
        let mut module = dummy_module(&resolve, world, abi);
        embed_component_metadata(&mut module, &resolve, world, StringEncoding::UTF8, false)
            .unwrap();
        module
    }

    /// A core module for the world that a manifest gives.
    fn core(manifest: &str) -> Vec<u8> {
        let dir = tempfile::tempdir().unwrap();
        write_wit_dir(
            &Manifest::parse(manifest, "probe.toml").unwrap(),
            dir.path(),
        )
        .unwrap();
        core_for(dir.path(), WORLD)
    }

    /// A core module for a world of the test's own.
    fn core_of_world(items: &str) -> Vec<u8> {
        let dir = tempfile::tempdir().unwrap();
        write_wit_dir(
            &Manifest::parse(&manifest_with(""), "probe.toml").unwrap(),
            dir.path(),
        )
        .unwrap();
        fs::create_dir(dir.path().join("deps/other")).unwrap();
        fs::write(
            dir.path().join("deps/other/other.wit"),
            "package wasi:cli@0.2.9;\ninterface environment { get: func() -> string; }",
        )
        .unwrap();
        fs::write(
            dir.path().join("world.wit"),
            format!("package t:t;\nworld w {{ {items} }}"),
        )
        .unwrap();
        core_for(dir.path(), "w")
    }

    fn imports(component: &[u8]) -> BTreeSet<String> {
        let mut depth = 0;
        let mut names = BTreeSet::new();
        for payload in Parser::new(0).parse_all(component) {
            match payload.unwrap() {
                Payload::ModuleSection { .. } | Payload::ComponentSection { .. } => depth += 1,
                Payload::End(_) => depth -= 1,
                Payload::ComponentImportSection(section) if depth == 0 => {
                    names.extend(
                        section
                            .into_iter()
                            .map(|import| import.unwrap().name.full_name().into_owned()),
                    );
                }
                _ => {}
            }
        }
        names
    }

    #[test]
    fn the_contracts_files_are_all_there() {
        let folder = Path::new(env!("CARGO_MANIFEST_DIR")).join("../wit");
        let there: BTreeSet<String> = fs::read_dir(folder)
            .unwrap()
            .map(|file| file.unwrap().file_name().into_string().unwrap())
            .filter(|name| name.ends_with(".wit"))
            .collect();
        let listed: BTreeSet<String> = CONTRACT_FILES
            .iter()
            .map(|(name, _)| (*name).to_owned())
            .collect();
        assert_eq!(there, listed);
    }

    #[test]
    fn the_lists_of_interfaces_are_those_of_the_contract() {
        let mut resolve = Resolve::default();
        let (package, _) = resolve
            .push_dir(Path::new(env!("CARGO_MANIFEST_DIR")).join("../wit"))
            .unwrap();
        let package = &resolve.packages[package];
        assert_eq!(
            package.name.to_string(),
            format!("{CONTRACT_PACKAGE}@{CONTRACT_VERSION}")
        );
        let there: BTreeSet<&str> = package.interfaces.keys().map(String::as_str).collect();
        let listed: BTreeSet<&str> = CORE_INTERFACES
            .iter()
            .chain(CAPABILITIES)
            .copied()
            .chain(["guest"])
            .collect();
        assert_eq!(there, listed);
    }

    #[test]
    fn a_world_has_what_the_manifest_asks_for_and_nothing_else() {
        let manifest = manifest_with("\"kube-write\", \"kube-read\"");
        let component = build(&core(&manifest), &manifest).unwrap();
        let expected: BTreeSet<String> = CORE_INTERFACES
            .iter()
            .chain(&["kube-read", "kube-write"])
            .map(|name| format!("{CONTRACT_PACKAGE}/{name}@{CONTRACT_VERSION}"))
            .collect();
        assert_eq!(imports(&component), expected);
    }

    #[test]
    fn every_capability_can_be_asked_for() {
        let all: Vec<String> = CAPABILITIES
            .iter()
            .map(|name| format!("\"{name}\""))
            .collect();
        let manifest = manifest_with(&all.join(", "));
        build(&core(&manifest), &manifest).unwrap();
    }

    #[test]
    fn building_is_repeatable_and_building_twice_changes_nothing() {
        let manifest = manifest_with("\"kube-read\"");
        let module = core(&manifest);
        let component = build(&module, &manifest).unwrap();
        assert_eq!(build(&module, &manifest).unwrap(), component);
        assert_eq!(build(&component, &manifest).unwrap(), component);
        assert_eq!(section::extract(&component).unwrap(), manifest);

        // A wider manifest is still a manifest of this component.
        let wider = manifest_with("\"kube-read\", \"kube-write\"");
        let rebuilt = build(&component, &wider).unwrap();
        assert_eq!(section::extract(&rebuilt).unwrap(), wider);
    }

    #[test]
    fn an_import_that_the_manifest_does_not_ask_for_is_refused() {
        let module = core(&manifest_with("\"kube-read\", \"kube-write\""));
        let error = build(&module, &manifest_with("\"kube-read\"")).unwrap_err();
        assert!(
            matches!(&error, PackageError::Refused(LoadError::NotAsked { interface }) if interface == "kube-write"),
            "{error}"
        );
    }

    #[test]
    fn wasi_and_other_imports_are_refused() {
        let guest = format!("export {CONTRACT_PACKAGE}/guest@{CONTRACT_VERSION};");
        let manifest = manifest_with("");
        let error = build(
            &core_of_world(&format!("import wasi:cli/environment@0.2.9; {guest}")),
            &manifest,
        )
        .unwrap_err();
        assert!(error.to_string().contains("--stub-wasi"), "{error}");
        let error = build(
            &core_of_world(&format!("import extra: func(); {guest}")),
            &manifest,
        )
        .unwrap_err();
        assert!(
            matches!(&error, PackageError::Refused(LoadError::ForeignImport { import }) if import == "extra"),
            "{error}"
        );
        build(&core_of_world(&guest), &manifest).unwrap();
    }

    #[test]
    fn a_component_without_guest_is_refused() {
        let error = build(&core_of_world(""), &manifest_with("")).unwrap_err();
        assert!(
            matches!(error, PackageError::Refused(LoadError::NoGuest)),
            "{error}"
        );
    }

    #[test]
    fn another_contract_is_refused_by_name() {
        let dir = tempfile::tempdir().unwrap();
        for (name, text) in CONTRACT_FILES {
            fs::write(
                dir.path().join(name),
                text.replace(CONTRACT_VERSION, "0.9.0"),
            )
            .unwrap();
        }
        let error = build(&core_for(dir.path(), "probe"), &manifest_with("")).unwrap_err();
        assert!(
            matches!(&error, PackageError::Refused(LoadError::UnknownContract { found }) if found == "0.9.0"),
            "{error}"
        );
    }

    #[test]
    fn what_is_no_component_is_refused() {
        let manifest = manifest_with("");
        assert!(matches!(
            build(b"text", &manifest),
            Err(PackageError::Section(SectionError::NotWebAssembly))
        ));
        // A core module that says nothing of component types becomes a component that does nothing.
        assert!(matches!(
            build(b"\0asm\x01\0\0\0", &manifest),
            Err(PackageError::Refused(LoadError::NoGuest))
        ));
        assert!(matches!(
            build(b"\0asm\x01\0\0\0\x01", &manifest),
            Err(PackageError::Wrap(_))
        ));
        assert!(matches!(
            build(&core(&manifest), "id = 5"),
            Err(PackageError::Manifest(_))
        ));
        // A manifest inside the core module would end up nested.
        let mut module = core(&manifest);
        module.extend_from_slice(b"\0\x0f\x0ekarat:manifest");
        assert!(matches!(
            build(&module, &manifest),
            Err(PackageError::Section(SectionError::Nested { .. }))
        ));
    }

    #[test]
    fn writing_the_folder_again_touches_nothing_and_keeps_other_files() {
        let dir = tempfile::tempdir().unwrap();
        let manifest = Manifest::parse(&manifest_with(""), "probe.toml").unwrap();
        fs::write(dir.path().join("own.txt"), "mine").unwrap();
        write_wit_dir(&manifest, dir.path()).unwrap();
        let world = dir.path().join("world.wit");
        let before = fs::metadata(&world).unwrap().modified().unwrap();
        write_wit_dir(&manifest, dir.path()).unwrap();
        assert_eq!(fs::metadata(&world).unwrap().modified().unwrap(), before);
        assert_eq!(
            fs::read_to_string(dir.path().join("own.txt")).unwrap(),
            "mine"
        );
    }

    #[test]
    fn the_repositorys_own_manifests_are_accepted() {
        let root = Path::new(env!("CARGO_MANIFEST_DIR")).join("..");
        let path = root.join("examples/smallest-probe/rust/probe.toml");
        let text = fs::read_to_string(&path).unwrap();
        Manifest::parse(&text, &path.display().to_string()).unwrap();
    }
}
