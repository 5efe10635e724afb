//! Moves WebAssembly components and container images in and out of OCI storage: names, digests, media types, layouts on disk,
//! archives of them, registries.
//!
//! Everything here is about bytes and where they come from. Each byte that leaves this crate was hashed on the way in
//! and compared with a digest; sizes are limited before memory is taken; nothing is followed out of the folder it was
//! asked for. The crate does not know what a component does, what a verdict is or who may sign: it refuses to look
//! further into a component than the names of its imports and exports. It never prints, and the only words of the environment that
//! it heeds are those that name proxies (`HTTPS_PROXY`, `NO_PROXY`), by its HTTP client.
//!
//! Read in this order: [`mod@reference`] (how a component is named and how bytes are bound to a digest), [`artifact`] (the
//! manifest and config of one component), [`layout`] (many of them in a folder), [`images`] (container images in one), [`content`]
//! (what an image consists of), [`archive`] (images as one file), [`remote`] (registries), [`piece`] (anything else of one layer).
//!
//! ```
//! use karat_registry::Layout;
//!
//! # fn main() -> Result<(), Box<dyn std::error::Error>> {
//! # let folder = tempfile::tempdir()?;
//! // The eight bytes every component starts with are already an empty component.
//! let component = b"\0asm\x0d\x00\x01\x00";
//! let layout = Layout::create(folder.path())?;
//! let digest = layout.put_component("dra-support", "0.1.0", component)?;
//!
//! let entries = Layout::open(folder.path())?.list()?;
//! assert_eq!(entries[0].manifest_digest, digest);
//! assert_eq!(layout.component(&entries[0])?, component);
//! # Ok(()) }
//! ```

pub mod archive;
pub mod artifact;
pub mod content;
pub mod images;
pub mod layout;
pub mod piece;
pub mod reference;
pub mod remote;

pub use artifact::{Artifact, ArtifactError, MAX_COMPONENT_SIZE};
pub use content::NamedImage;
pub use images::Image;
pub use layout::{Entry, Layout, LayoutError};
pub use piece::Piece;
pub use reference::{Digest, Reference, ReferenceError, RegistryReference, Verifier};
pub use remote::Remote;
