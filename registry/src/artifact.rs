//! One component as an OCI artifact: a manifest, a config and a single layer.
//!
//! The form is the CNCF guidance for WebAssembly artifacts
//! (<https://tag-runtime.cncf.io/wgs/wasm/deliverables/wasm-oci-artifact/>), so other tools can pull what is written
//! here. Two choices within it: the creation time is fixed, so equal components give equal digests wherever and
//! whenever they are packed; and names and versions are read from the manifest, which its digest covers, never from an
//! index, which anyone can edit.
//!
//! Reading refuses more than one layer, other media types, and a config that describes another layer. It does not
//! check that the imports listed in a config are those of the component: whoever runs a component must look at the
//! component itself.

use std::collections::BTreeMap;

use semver::Version;
use serde::{Deserialize, Serialize};
use wasmparser::{Encoding, Parser, Payload, Validator, WasmFeatures};

use crate::reference::{self, Digest, ReferenceError, quoted};

/// Largest component in bytes. Python and JavaScript runtimes make components of up to 20 MB; more than three times
/// that is a mistake or an attack on the reader's memory.
pub const MAX_COMPONENT_SIZE: u64 = 64 << 20;

/// Largest manifest or config in bytes. Ours have about one kilobyte; registries commonly stop at four megabytes.
pub const MAX_MANIFEST_SIZE: u64 = 1 << 20;

/// Media type of an image manifest.
pub const MANIFEST_MEDIA_TYPE: &str = "application/vnd.oci.image.manifest.v1+json";
/// Media type of the config of a WebAssembly artifact.
pub const CONFIG_MEDIA_TYPE: &str = "application/vnd.wasm.config.v0+json";
/// Media type of a component.
pub const LAYER_MEDIA_TYPE: &str = "application/wasm";

/// Annotation that holds the component's name; on the layer, the name of the file to write.
pub const TITLE: &str = "org.opencontainers.image.title";
/// Annotation that holds the component's version.
pub const VERSION: &str = "org.opencontainers.image.version";

/// The moment every config claims to be created at. A true time would give each build of the same bytes another
/// digest.
const CREATED: &str = "1970-01-01T00:00:00Z";
const ARCHITECTURE: &str = "wasm";
/// The guidance knows `wasip1` for core modules and `wasip2` for components, whether or not they import WASI.
const COMPONENT_OS: &str = "wasip2";

/// Longest accepted name of a target world in bytes.
const MAX_TARGET_LENGTH: usize = 256;

/// Why bytes cannot be packed as an artifact, or are not an artifact.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum ArtifactError {
    /// Name, version or digest are malformed.
    #[error(transparent)]
    Reference(#[from] ReferenceError),
    /// The bytes are not WebAssembly.
    #[error("not WebAssembly: the bytes do not start with `\\0asm`; give the built component")]
    NotWebAssembly,
    /// The bytes are a core module.
    #[error("a core module, not a component; wrap it with `karat probe build`")]
    CoreModule,
    /// The bytes start like a component and are not one.
    #[error("not a valid component; build it again")]
    InvalidComponent(#[source] wasmparser::BinaryReaderError),
    /// Something is larger than any reader would accept.
    #[error("{what} has {size} bytes and at most {limit} are allowed; make it smaller")]
    TooLarge {
        /// Manifest, config or component.
        what: &'static str,
        /// Size in bytes.
        size: u64,
        /// Limit in bytes.
        limit: u64,
    },
    /// The caller tried to set an annotation that follows from name and version.
    #[error("annotation `{0}` is written from name and version; leave it out")]
    ReservedAnnotation(String),
    /// The target is not the name of a world.
    #[error("`{0}` is not the name of a world; write `namespace:package/world@version`")]
    Target(String),
    /// Manifest or config is not the JSON it should be.
    #[error("{what} is not valid; pack the component again")]
    Json {
        /// Manifest or config.
        what: &'static str,
        /// Line, column and cause.
        #[source]
        source: serde_json::Error,
    },
    /// A field holds something other than what a WebAssembly artifact has there.
    #[error(
        "{what} is `{found}`, expected `{expected}`; only WebAssembly component artifacts can be read"
    )]
    Foreign {
        /// The field.
        what: &'static str,
        /// Its value, shortened.
        found: String,
        /// The only accepted value.
        expected: &'static str,
    },
    /// There is not exactly one layer.
    #[error("the manifest has {0} layers, expected exactly one; pack a single component")]
    Layers(usize),
    /// A mandatory annotation or field is missing.
    #[error("{0} is missing; pack the component again")]
    Missing(&'static str),
    /// The config belongs to other layers.
    #[error("the config lists other layers than the manifest's {0}; pack the component again")]
    LayerDigests(Digest),
}

/// A component with its name and version, ready to be stored.
#[derive(Debug, Clone)]
pub struct Artifact {
    name: String,
    version: Version,
    component: Vec<u8>,
    interface: ComponentInterface,
    annotations: BTreeMap<String, String>,
}

/// What a component needs and offers, by the names in its binary.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct ComponentInterface {
    /// Names of exports, sorted.
    pub exports: Vec<String>,
    /// Names of imports, sorted.
    pub imports: Vec<String>,
    /// World the component was built for: `karat:probe/probe@0.1.0`. It cannot be found in the binary, so it is absent
    /// unless whoever packed the component said so.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub target: Option<String>,
}

/// The bytes of an artifact's two documents. Equal artifacts give equal bytes.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Encoded {
    /// The image manifest; its digest is the digest of the artifact.
    pub manifest: Vec<u8>,
    /// The config blob.
    pub config: Vec<u8>,
}

/// A manifest that has passed every check.
#[derive(Debug, Clone, PartialEq)]
pub struct Manifest {
    /// Name of the component.
    pub name: String,
    /// Version of the component.
    pub version: Version,
    /// Where the config is.
    pub config: Descriptor,
    /// Where the component is.
    pub layer: Descriptor,
    /// All annotations, title and version among them.
    pub annotations: BTreeMap<String, String>,
}

/// The config blob: what is inside, without the component itself.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct Config {
    /// Creation time as written; fixed in what this crate writes.
    pub created: String,
    /// Author, in artifacts of other tools.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub author: Option<String>,
    /// Always `wasm`.
    pub architecture: String,
    /// Always `wasip2`, the word for components.
    pub os: String,
    /// Digests of the manifest's layers, in order.
    pub layer_digests: Vec<Digest>,
    /// Imports, exports and target.
    pub component: ComponentInterface,
}

/// Points at a blob: what it is, its digest and its size.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct Descriptor {
    /// What the bytes are.
    pub media_type: String,
    /// Their digest.
    pub digest: Digest,
    /// Their size in bytes.
    pub size: u64,
    /// Notes, not covered by the blob's digest.
    #[serde(default, skip_serializing_if = "BTreeMap::is_empty")]
    pub annotations: BTreeMap<String, String>,
    /// Fields this crate does not use, kept so that rewriting an index loses nothing.
    #[serde(flatten)]
    pub other: BTreeMap<String, serde_json::Value>,
}

#[derive(Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
struct RawManifest {
    schema_version: u32,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    media_type: Option<String>,
    config: Descriptor,
    layers: Vec<Descriptor>,
    #[serde(default, skip_serializing_if = "BTreeMap::is_empty")]
    annotations: BTreeMap<String, String>,
}

// === impl Artifact ===

impl Artifact {
    /// Reads and validates a component, and takes note of its imports and exports.
    ///
    /// # Errors
    /// A malformed name or version, a component over [`MAX_COMPONENT_SIZE`], or bytes that are no valid component.
    pub fn new(
        name: &str,
        version: &str,
        component: impl Into<Vec<u8>>,
    ) -> Result<Self, ArtifactError> {
        reference::check_name(name)?;
        let version = reference::parse_version(version)?;
        let component = component.into();
        check_size("the component", component.len() as u64, MAX_COMPONENT_SIZE)?;
        let interface = decode(&component)?;
        Ok(Self {
            name: name.to_owned(),
            version,
            component,
            interface,
            annotations: BTreeMap::new(),
        })
    }

    /// Records the world the component was built for.
    ///
    /// # Errors
    /// [`ArtifactError::Target`] for anything but `namespace:package/world@version`.
    pub fn with_target(mut self, world: &str) -> Result<Self, ArtifactError> {
        if !is_world(world) {
            return Err(ArtifactError::Target(quoted(world)));
        }
        self.interface.target = Some(world.to_owned());
        Ok(self)
    }

    /// Adds an annotation to the manifest, for instance `org.opencontainers.image.description`.
    ///
    /// # Errors
    /// [`ArtifactError::ReservedAnnotation`] for the title and the version.
    pub fn with_annotation(mut self, key: &str, value: &str) -> Result<Self, ArtifactError> {
        if key == TITLE || key == VERSION {
            return Err(ArtifactError::ReservedAnnotation(key.to_owned()));
        }
        self.annotations.insert(key.to_owned(), value.to_owned());
        Ok(self)
    }

    /// Name of the component.
    #[must_use]
    pub fn name(&self) -> &str {
        &self.name
    }

    /// Version of the component.
    #[must_use]
    pub fn version(&self) -> &Version {
        &self.version
    }

    /// The component's bytes.
    #[must_use]
    pub fn component(&self) -> &[u8] {
        &self.component
    }

    /// What the component needs and offers.
    #[must_use]
    pub fn interface(&self) -> &ComponentInterface {
        &self.interface
    }

    /// Writes manifest and config.
    ///
    /// # Errors
    /// [`ArtifactError::TooLarge`] when annotations or import names make one of them larger than readers accept.
    pub fn encode(&self) -> Result<Encoded, ArtifactError> {
        let layer_digest = Digest::of(&self.component);
        let config = to_json(&Config {
            created: CREATED.to_owned(),
            author: None,
            architecture: ARCHITECTURE.to_owned(),
            os: COMPONENT_OS.to_owned(),
            layer_digests: vec![layer_digest],
            component: self.interface.clone(),
        });
        check_size("the config", config.len() as u64, MAX_MANIFEST_SIZE)?;

        let mut annotations = self.annotations.clone();
        annotations.insert(TITLE.to_owned(), self.name.clone());
        annotations.insert(VERSION.to_owned(), self.version.to_string());
        // A slash in a title would make pulling tools write into another folder.
        let file = format!(
            "{}.wasm",
            self.name.rsplit('/').next().unwrap_or(&self.name)
        );
        let manifest = to_json(&RawManifest {
            schema_version: 2,
            media_type: Some(MANIFEST_MEDIA_TYPE.to_owned()),
            config: Descriptor::new(CONFIG_MEDIA_TYPE, Digest::of(&config), config.len() as u64),
            layers: vec![
                Descriptor::new(LAYER_MEDIA_TYPE, layer_digest, self.component.len() as u64)
                    .annotated(TITLE, &file),
            ],
            annotations,
        });
        check_size("the manifest", manifest.len() as u64, MAX_MANIFEST_SIZE)?;
        Ok(Encoded { manifest, config })
    }
}

fn check_size(what: &'static str, size: u64, limit: u64) -> Result<(), ArtifactError> {
    if size > limit {
        return Err(ArtifactError::TooLarge { what, size, limit });
    }
    Ok(())
}

/// Serialises types whose keys are strings and whose numbers are integers, which JSON can always hold.
pub(crate) fn to_json<T: Serialize>(value: &T) -> Vec<u8> {
    #[expect(
        clippy::expect_used,
        reason = "strings, integers, maps with string keys: serde_json cannot fail on these"
    )]
    serde_json::to_vec(value).expect("plain data is always JSON")
}

fn is_world(text: &str) -> bool {
    let word = |text: &str| {
        !text.is_empty()
            && text.bytes().all(|b| b.is_ascii_alphanumeric() || b == b'-')
            && text.starts_with(|c: char| c.is_ascii_alphabetic())
    };
    text.len() <= MAX_TARGET_LENGTH
        && text.split_once(':').is_some_and(|(namespace, rest)| {
            let (path, version) = rest
                .split_once('@')
                .map_or((rest, None), |(path, version)| (path, Some(version)));
            word(namespace)
                && path
                    .split_once('/')
                    .is_some_and(|(package, world)| word(package) && word(world))
                && version.is_none_or(|version| Version::parse(version).is_ok())
        })
}

/// Validates a component and collects the names at its outermost level.
fn decode(component: &[u8]) -> Result<ComponentInterface, ArtifactError> {
    if !component.starts_with(b"\0asm") {
        return Err(ArtifactError::NotWebAssembly);
    }
    if Parser::is_core_wasm(component) {
        return Err(ArtifactError::CoreModule);
    }
    // Which proposals may be used is for the engine that runs it to say.
    Validator::new_with_features(WasmFeatures::all())
        .validate_all(component)
        .map_err(ArtifactError::InvalidComponent)?;

    let mut found = ComponentInterface::default();
    let mut depth = 0usize;
    for payload in Parser::new(0).parse_all(component) {
        match payload.map_err(ArtifactError::InvalidComponent)? {
            Payload::Version {
                encoding: Encoding::Module,
                ..
            } if depth == 0 => return Err(ArtifactError::CoreModule),
            Payload::ModuleSection { .. } | Payload::ComponentSection { .. } => depth += 1,
            Payload::End(_) => depth = depth.saturating_sub(1),
            Payload::ComponentImportSection(section) if depth == 0 => {
                for import in section {
                    let import = import.map_err(ArtifactError::InvalidComponent)?;
                    found.imports.push(import.name.full_name().into_owned());
                }
            }
            Payload::ComponentExportSection(section) if depth == 0 => {
                for export in section {
                    let export = export.map_err(ArtifactError::InvalidComponent)?;
                    found.exports.push(export.name.full_name().into_owned());
                }
            }
            _ => {}
        }
    }
    found.imports.sort_unstable();
    found.exports.sort_unstable();
    Ok(found)
}

// === impl Manifest ===

impl Manifest {
    /// Reads an image manifest and checks that it describes exactly one component.
    ///
    /// # Errors
    /// [`ArtifactError::TooLarge`], [`ArtifactError::Json`], [`ArtifactError::Foreign`], [`ArtifactError::Layers`],
    /// [`ArtifactError::Missing`], or [`ArtifactError::Reference`] for a malformed name or version.
    pub fn parse(bytes: &[u8]) -> Result<Self, ArtifactError> {
        check_size("the manifest", bytes.len() as u64, MAX_MANIFEST_SIZE)?;
        let raw: RawManifest =
            serde_json::from_slice(bytes).map_err(|source| ArtifactError::Json {
                what: "the manifest",
                source,
            })?;
        expect(
            "the manifest's schemaVersion",
            &raw.schema_version.to_string(),
            "2",
        )?;
        if let Some(media_type) = &raw.media_type {
            expect("the manifest's mediaType", media_type, MANIFEST_MEDIA_TYPE)?;
        }
        expect(
            "the config's media type",
            &raw.config.media_type,
            CONFIG_MEDIA_TYPE,
        )?;
        check_size("the config", raw.config.size, MAX_MANIFEST_SIZE)?;
        let [layer] = <[Descriptor; 1]>::try_from(raw.layers)
            .map_err(|layers| ArtifactError::Layers(layers.len()))?;
        expect(
            "the layer's media type",
            &layer.media_type,
            LAYER_MEDIA_TYPE,
        )?;
        check_size("the component", layer.size, MAX_COMPONENT_SIZE)?;

        let name = raw.annotations.get(TITLE).ok_or(ArtifactError::Missing(
            "annotation org.opencontainers.image.title",
        ))?;
        reference::check_name(name)?;
        let version = raw.annotations.get(VERSION).ok_or(ArtifactError::Missing(
            "annotation org.opencontainers.image.version",
        ))?;
        Ok(Self {
            name: name.clone(),
            version: reference::parse_version(version)?,
            config: raw.config,
            layer,
            annotations: raw.annotations,
        })
    }
}

// === impl Config ===

impl Config {
    /// Reads a config and checks that it belongs to the given layer.
    ///
    /// # Errors
    /// [`ArtifactError::TooLarge`], [`ArtifactError::Json`], [`ArtifactError::Foreign`] or
    /// [`ArtifactError::LayerDigests`].
    pub fn parse(bytes: &[u8], layer: &Digest) -> Result<Self, ArtifactError> {
        check_size("the config", bytes.len() as u64, MAX_MANIFEST_SIZE)?;
        let config: Self = serde_json::from_slice(bytes).map_err(|source| ArtifactError::Json {
            what: "the config",
            source,
        })?;
        expect(
            "the config's architecture",
            &config.architecture,
            ARCHITECTURE,
        )?;
        expect("the config's os", &config.os, COMPONENT_OS)?;
        if config.layer_digests != [*layer] {
            return Err(ArtifactError::LayerDigests(*layer));
        }
        Ok(config)
    }
}

fn expect(what: &'static str, found: &str, expected: &'static str) -> Result<(), ArtifactError> {
    if found != expected {
        return Err(ArtifactError::Foreign {
            what,
            found: quoted(found),
            expected,
        });
    }
    Ok(())
}

// === impl Descriptor ===

impl Descriptor {
    pub(crate) fn new(media_type: &str, digest: Digest, size: u64) -> Self {
        Self {
            media_type: media_type.to_owned(),
            digest,
            size,
            annotations: BTreeMap::new(),
            other: BTreeMap::new(),
        }
    }

    pub(crate) fn annotated(mut self, key: &str, value: &str) -> Self {
        self.annotations.insert(key.to_owned(), value.to_owned());
        self
    }
}

#[cfg(test)]
pub(crate) mod tests;
