//! From bytes to something that can run: everything that is refused before a probe gets near a cluster.
//!
//! [`inspect`] reads and refuses without compiling, for plans and `karat inspect`; [`load`] compiles as well. Compiling is
//! left to the end because it is the only expensive step, and the bytes are hostile. Machine code is never accepted.

use crate::contract::Prepared;
use crate::contract::list::{CORE_INTERFACES, ContractList, display_name};
use crate::engine::Engine;
use crate::manifest::{Manifest, section};
use crate::names::{CONTRACT_PACKAGE, CONTRACT_VERSION};
use sha2::{Digest, Sha256};
use std::sync::Arc;
use wasmparser::component_types::{ComponentDefinedType, ComponentEntityType, ComponentValType};
use wasmparser::types::Types;
use wasmparser::{
    Encoding, Parser, Payload, PrimitiveValType, ValidPayload, Validator, WasmFeatures,
};

/// Largest component. CPython with a probe inside has 18 MB.
pub const MAX_COMPONENT_BYTES: usize = 64 << 20;

/// Why a component is not accepted.
#[derive(Debug, thiserror::Error)]
pub enum LoadError {
    /// Larger than [`MAX_COMPONENT_BYTES`].
    #[error(
        "component has {bytes} bytes, more than the limit of {MAX_COMPONENT_BYTES}; build it with optimisation for size and without debug sections"
    )]
    Oversize {
        /// Its size.
        bytes: usize,
    },
    /// Not WebAssembly at all.
    #[error(
        "file is not WebAssembly: it does not begin with `\\0asm`; give the component that `karat probe build` wrote"
    )]
    NotWasm,
    /// Machine code, which nobody can check.
    #[error(
        "file is precompiled machine code, which is never accepted from outside; give the WebAssembly component it was made from"
    )]
    Precompiled,
    /// A core module.
    #[error("file is a core module, not a component; wrap it with `karat probe build`")]
    CoreModule,
    /// Damaged.
    #[error("component is not valid: {0}; build it again")]
    Invalid(String),
    /// No manifest, two, a nested one, or one that cannot be read.
    #[error(transparent)]
    Section(#[from] section::SectionError),
    /// The manifest cannot be accepted.
    #[error(transparent)]
    Manifest(#[from] crate::manifest::ManifestError),
    /// Built for a contract that this engine does not serve.
    #[error(
        "component was built for contract {CONTRACT_PACKAGE}@{found}; this engine serves {CONTRACT_VERSION}: build the probe with a matching SDK or use a matching release of karat"
    )]
    UnknownContract {
        /// The version it names.
        found: String,
    },
    /// Manifest and imports name different versions.
    #[error(
        "manifest names contract {manifest} but the component imports contract {imports}; build it again with `karat probe build`"
    )]
    ContractMismatch {
        /// Version in the manifest.
        manifest: String,
        /// Version of the imports.
        imports: String,
    },
    /// A function of a later release.
    #[error(
        "component needs {function}: contract {CONTRACT_VERSION} does not have it; use a later release of karat, or build with the SDK of this one"
    )]
    MissingFunction {
        /// `kube-read.query.get`.
        function: String,
    },
    /// An interface that this engine does not have.
    #[error(
        "component imports the interface {interface}: contract {CONTRACT_VERSION} does not have it; use a later release of karat, or build with the SDK of this one"
    )]
    MissingInterface {
        /// Name of the interface.
        interface: String,
    },
    /// An interface that the manifest does not ask for.
    #[error(
        "component imports {interface}, which its manifest does not ask for; add \"{interface}\" to `capabilities` in probe.toml and build it again"
    )]
    NotAsked {
        /// Name of the interface.
        interface: String,
    },
    /// WASI.
    #[error(
        "component imports {import}; this release links no WASI: build for wasm32-unknown-unknown, or with `--stub-wasi` (componentize-py, componentize-qjs)"
    )]
    Wasi {
        /// Name of the import.
        import: String,
    },
    /// Something else.
    #[error(
        "component imports {import}, which this engine does not have; a probe may import only interfaces of {CONTRACT_PACKAGE}"
    )]
    ForeignImport {
        /// Name of the import.
        import: String,
    },
    /// No entry point.
    #[error(
        "component does not export the interface {CONTRACT_PACKAGE}/guest@{CONTRACT_VERSION}; export it with the SDK's macro"
    )]
    NoGuest,
    /// A function has other types than in the contract.
    #[error(
        "component and contract {CONTRACT_VERSION} disagree about types: {0}; build it again with a matching SDK"
    )]
    Signature(String),
    /// The compiler refused it.
    #[error(
        "component cannot be compiled: {0}; it may use a WebAssembly feature that this engine leaves out (threads, memory64, async), or have more parts than an instance may have"
    )]
    Compile(String),
}

/// What is known of a component without compiling it.
#[derive(Clone, Debug)]
pub struct Inspected {
    /// Digest of the bytes, `sha256:…`.
    pub digest: String,
    /// Size in bytes.
    pub size: usize,
    /// The manifest.
    pub manifest: Manifest,
    /// Text of the manifest, as it lies in the component.
    pub manifest_text: String,
    /// SHA-256 of that text, `sha256:…`.
    pub manifest_digest: String,
    /// Imported functions, as `kube-read.query.get`, sorted.
    pub functions: Vec<String>,
}

/// A component that is ready to run. Cheap to clone.
#[derive(Clone)]
pub struct Probe {
    shared: Arc<Shared>,
}

struct Shared {
    inspected: Inspected,
    bytes: Vec<u8>,
    prepared: Prepared,
}

impl std::fmt::Debug for Probe {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_tuple("Probe")
            .field(&self.manifest().id)
            .field(&self.digest())
            .finish()
    }
}

impl Probe {
    /// What the probe states about itself.
    pub fn manifest(&self) -> &Manifest {
        &self.shared.inspected.manifest
    }

    /// Everything that was read from the component.
    pub fn inspected(&self) -> &Inspected {
        &self.shared.inspected
    }

    /// Digest of the bytes, `sha256:…`.
    pub fn digest(&self) -> &str {
        &self.shared.inspected.digest
    }

    /// The component as it was given.
    pub fn bytes(&self) -> &[u8] {
        &self.shared.bytes
    }

    pub(crate) fn prepared(&self) -> &Prepared {
        &self.shared.prepared
    }
}

/// Checks a component and compiles it.
///
/// # Errors
/// [`LoadError`], one for each kind of refusal.
pub fn load(engine: &Engine, bytes: Vec<u8>) -> Result<Probe, LoadError> {
    let inspected = inspect(&bytes)?;
    let compiled = engine
        .compile(&inspected.digest, &bytes)
        .map_err(|error| LoadError::Compile(format!("{error:#}")))?;
    let prepared = engine
        .adapters()
        .prepare(&inspected.manifest.contract, &compiled)
        .map_err(|error| LoadError::Signature(format!("{error:#}")))?;
    Ok(Probe {
        shared: Arc::new(Shared {
            inspected,
            bytes,
            prepared,
        }),
    })
}

/// Checks a component without compiling it.
///
/// # Errors
/// [`LoadError`], one for each kind of refusal but [`LoadError::Compile`] and [`LoadError::Signature`].
pub fn inspect(bytes: &[u8]) -> Result<Inspected, LoadError> {
    check_form(bytes)?;
    let surface = read_surface(bytes)?;
    check_contract(&surface)?;
    let manifest_text = section::extract(bytes)?.to_owned();
    let manifest = Manifest::parse(&manifest_text, "karat:manifest")?;
    check_against_manifest(&surface, &manifest)?;
    let mut functions: Vec<String> = surface
        .functions
        .iter()
        .map(|(interface, function)| display_name(interface, function))
        .collect();
    functions.sort();
    Ok(Inspected {
        digest: digest(bytes),
        size: bytes.len(),
        manifest_digest: digest(manifest_text.as_bytes()),
        manifest,
        manifest_text,
        functions,
    })
}

/// `sha256:` and 64 hexadecimal digits.
pub fn digest(bytes: &[u8]) -> String {
    format!(
        "sha256:{}",
        data_encoding::HEXLOWER.encode(&Sha256::digest(bytes))
    )
}

fn check_form(bytes: &[u8]) -> Result<(), LoadError> {
    if bytes.len() > MAX_COMPONENT_BYTES {
        return Err(LoadError::Oversize { bytes: bytes.len() });
    }
    // wasmtime's own compiled form is an ELF file; so is any other machine code of this system.
    if bytes.starts_with(b"\x7fELF") || wasmtime::Engine::detect_precompiled(bytes).is_some() {
        return Err(LoadError::Precompiled);
    }
    if !bytes.starts_with(b"\0asm") {
        return Err(LoadError::NotWasm);
    }
    if Parser::is_core_wasm(bytes) {
        return Err(LoadError::CoreModule);
    }
    if !Parser::is_component(bytes) {
        return Err(LoadError::Invalid(
            "its header names a binary format that is neither module nor component".to_owned(),
        ));
    }
    Ok(())
}

/// The outside of a component: what it imports of our contract, and whether it exports the entry point.
#[derive(Debug, Default)]
struct Surface {
    /// Version of the contract, as the imports and the export name it.
    versions: Vec<String>,
    /// Imported interfaces of the contract.
    interfaces: Vec<String>,
    /// Imported functions: interface, function.
    functions: Vec<(String, String)>,
    /// Whether the entry point is exported; `false` inside means: with other types.
    guest: Option<bool>,
}

fn read_surface(bytes: &[u8]) -> Result<Surface, LoadError> {
    let invalid = |error: wasmparser::BinaryReaderError| LoadError::Invalid(error.to_string());
    let mut validator = Validator::new_with_features(WasmFeatures::default());
    let mut depth = 0_usize;
    let mut imports = Vec::new();
    let mut exports = Vec::new();
    let mut types = None;
    for payload in Parser::new(0).parse_all(bytes) {
        let payload = payload.map_err(invalid)?;
        match &payload {
            Payload::Version { encoding, .. } => {
                depth += 1;
                if depth == 1 && *encoding != Encoding::Component {
                    return Err(LoadError::CoreModule);
                }
            }
            Payload::End(_) => depth = depth.saturating_sub(1),
            Payload::ComponentImportSection(section) if depth == 1 => {
                for import in section.clone() {
                    imports.push(import.map_err(invalid)?.name.name.to_owned());
                }
            }
            Payload::ComponentExportSection(section) if depth == 1 => {
                for export in section.clone() {
                    exports.push(export.map_err(invalid)?.name.name.to_owned());
                }
            }
            _ => {}
        }
        // Function bodies are left to the compiler, which validates them anyway.
        if let ValidPayload::End(last) = validator.payload(&payload).map_err(invalid)? {
            types = Some(last);
        }
    }
    let Some(types) = types else {
        return Err(LoadError::Invalid("it ends too early".to_owned()));
    };
    let mut surface = Surface::default();
    for name in &imports {
        let Some((interface, version)) = split_name(name) else {
            return Err(if name.starts_with("wasi:") {
                LoadError::Wasi {
                    import: name.clone(),
                }
            } else {
                LoadError::ForeignImport {
                    import: name.clone(),
                }
            });
        };
        surface.versions.push(version.to_owned());
        surface.interfaces.push(interface.to_owned());
        let item = types.as_ref().component_item_for_import(name);
        let Some(ComponentEntityType::Instance(id)) = item.map(|item| item.ty) else {
            return Err(LoadError::ForeignImport {
                import: name.clone(),
            });
        };
        for (function, item) in &types[id].exports {
            if let ComponentEntityType::Func(_) = item.ty {
                surface
                    .functions
                    .push((interface.to_owned(), function.clone()));
            }
        }
    }
    for name in &exports {
        if let Some(("guest", version)) = split_name(name) {
            surface.versions.push(version.to_owned());
            surface.guest = Some(has_check(&types, name));
        }
    }
    Ok(surface)
}

/// Whether this exported interface holds `check: func() -> result<_, string>`. Linking would notice, but only when a run
/// starts the probe.
fn has_check(types: &Types, guest: &str) -> bool {
    let item = types.as_ref().component_item_for_export(guest);
    let Some(ComponentEntityType::Instance(guest)) = item.map(|item| item.ty) else {
        return false;
    };
    let Some(ComponentEntityType::Func(check)) =
        types[guest].exports.get("check").map(|item| item.ty)
    else {
        return false;
    };
    let check = &types[check];
    let Some(ComponentValType::Type(result)) = check.result else {
        return false;
    };
    check.params.is_empty()
        && !check.async_
        && matches!(
            types[result],
            ComponentDefinedType::Result {
                ok: None,
                err: Some(ComponentValType::Primitive(PrimitiveValType::String)),
                ..
            }
        )
}

/// Interface and version of a name of our package: `karat:probe/kube-read@0.1.0-dev.1`.
fn split_name(name: &str) -> Option<(&str, &str)> {
    name.strip_prefix(CONTRACT_PACKAGE)?
        .strip_prefix('/')
        .map(|rest| rest.split_once('@').unwrap_or((rest, "")))
}

/// Version first: names of another version would only look like missing functions.
fn check_contract(surface: &Surface) -> Result<(), LoadError> {
    if let Some(found) = surface
        .versions
        .iter()
        .find(|version| *version != CONTRACT_VERSION)
    {
        return Err(LoadError::UnknownContract {
            found: if found.is_empty() {
                "(no version)".to_owned()
            } else {
                found.clone()
            },
        });
    }
    let list = ContractList::served();
    for interface in &surface.interfaces {
        if !list.has_interface(interface) {
            return Err(LoadError::MissingInterface {
                interface: interface.clone(),
            });
        }
    }
    for (interface, function) in &surface.functions {
        if !list.has_function(interface, function) {
            return Err(LoadError::MissingFunction {
                function: display_name(interface, function),
            });
        }
    }
    match surface.guest {
        Some(true) => Ok(()),
        Some(false) => Err(LoadError::Signature(
            "guest.check is not `func() -> result<_, string>`".to_owned(),
        )),
        None => Err(LoadError::NoGuest),
    }
}

fn check_against_manifest(surface: &Surface, manifest: &Manifest) -> Result<(), LoadError> {
    if manifest.contract != CONTRACT_VERSION {
        // The imports were checked before, so the manifest alone is off.
        return Err(LoadError::ContractMismatch {
            manifest: manifest.contract.clone(),
            imports: CONTRACT_VERSION.to_owned(),
        });
    }
    for interface in &surface.interfaces {
        let asked = CORE_INTERFACES.contains(&interface.as_str())
            || manifest.capabilities.iter().any(|asked| asked == interface);
        if !asked {
            return Err(LoadError::NotAsked {
                interface: interface.clone(),
            });
        }
    }
    Ok(())
}

#[cfg(test)]
mod tests;
