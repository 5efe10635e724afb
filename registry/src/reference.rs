//! Names of components, and the digests that bind a name to bytes.
//!
//! A [`Digest`] exists only in its checked form, so it can be made into a file name without a second thought: the text
//! of `sha256:../../etc/passwd` never becomes one. A [`Verifier`] compares bytes with a digest while they arrive and
//! stops at the first byte too many. A [`Reference`] is what a person types to say which component is meant; parsing
//! one touches neither disk nor network, and resolving it is the caller's business.

use std::fmt;
use std::path::PathBuf;
use std::str::FromStr;

use semver::Version;
use serde::{Deserialize, Deserializer, Serialize, Serializer};
use sha2::{Digest as _, Sha256};

/// Longest text that is read as a reference. Registries limit host and repository to 255 characters together; tag and
/// digest add at most 200 more. A path may be longer than that, but not without end.
pub const MAX_REFERENCE_LENGTH: usize = 1024;

/// Longest component name in bytes, the limit registries set for a repository.
pub const MAX_NAME_LENGTH: usize = 255;

/// Longest tag in characters, as in the OCI distribution specification; it bounds a version too, since versions become
/// tags.
pub const MAX_TAG_LENGTH: usize = 128;

/// Why a text is not a reference, a name, a version or a digest.
#[derive(Debug, thiserror::Error, PartialEq, Eq)]
#[non_exhaustive]
pub enum ReferenceError {
    /// The text is not `sha256:` and 64 lower-case hexadecimal digits.
    #[error(
        "`{text}` is not a digest: {reason}; write `sha256:` and 64 hexadecimal digits in lower case"
    )]
    Digest {
        /// The refused text, shortened and with control characters escaped.
        text: String,
        /// What is wrong with it.
        reason: &'static str,
    },
    /// The text cannot be the name of a component.
    #[error(
        "`{text}` is not a component name: {reason}; write lower-case letters and digits, joined by `-`, `.`, `_` or `/`"
    )]
    Name {
        /// The refused text, shortened and with control characters escaped.
        text: String,
        /// What is wrong with it.
        reason: &'static str,
    },
    /// The text cannot be the version of a component.
    #[error(
        "`{text}` is not a version: {reason}; write a semantic version such as `1.2.0` or `0.1.0-dev.3`"
    )]
    Version {
        /// The refused text, shortened and with control characters escaped.
        text: String,
        /// What is wrong with it.
        reason: String,
    },
    /// The text cannot be a tag.
    #[error("`{text}` is not a tag: {TAG_RULE}")]
    Tag {
        /// The refused text, shortened and with control characters escaped.
        text: String,
    },
    /// The text cannot be the name of an image.
    #[error("`{text}` is not the name of an image: {reason}; write `registry/repository@sha256:…`")]
    Image {
        /// The refused text, shortened and with control characters escaped.
        text: String,
        /// What is wrong with it.
        reason: &'static str,
    },
    /// The text cannot be a reference.
    #[error(
        "`{text}` is not a reference: {reason}; write `oci://registry/repository:tag`, `layout:FOLDER#name:version` or `name:version`"
    )]
    Reference {
        /// The refused text, shortened and with control characters escaped.
        text: String,
        /// What is wrong with it.
        reason: &'static str,
    },
}

/// Of the OCI distribution specification.
const TAG_RULE: &str =
    "a tag has 1 to 128 letters, digits, `_`, `.` or `-`, and starts with none of the last two";

/// Makes hostile text fit for a one-line message: control characters are escaped, and long text is cut.
pub(crate) fn quoted(text: &str) -> String {
    quoted_within(text, 100)
}

/// The same with another limit, in characters.
pub(crate) fn quoted_within(text: &str, limit: usize) -> String {
    let mut shown: String = text
        .chars()
        .take(limit)
        .flat_map(char::escape_debug)
        .collect();
    if text.chars().nth(limit).is_some() {
        shown.push('…');
    }
    shown
}

/// A SHA-256 digest in OCI form.
///
/// The only algorithm is `sha256`, because every registry knows it and one algorithm leaves no choice to an attacker.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Digest([u8; 32]);

impl Digest {
    /// Hashes bytes that are already in memory.
    #[must_use]
    pub fn of(bytes: &[u8]) -> Self {
        Self(Sha256::digest(bytes).into())
    }

    /// The 64 hexadecimal digits without the algorithm: the name of the blob's file in a layout.
    #[must_use]
    pub fn hex(&self) -> String {
        use fmt::Write as _;
        self.0
            .iter()
            .fold(String::with_capacity(64), |mut text, byte| {
                // Writing to a string cannot fail.
                let _ = write!(text, "{byte:02x}");
                text
            })
    }
}

impl fmt::Display for Digest {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "sha256:{}", self.hex())
    }
}

impl fmt::Debug for Digest {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        fmt::Display::fmt(self, f)
    }
}

impl FromStr for Digest {
    type Err = ReferenceError;

    fn from_str(text: &str) -> Result<Self, ReferenceError> {
        let refuse = |reason| ReferenceError::Digest {
            text: quoted(text),
            reason,
        };
        let hex = match text.split_once(':') {
            Some(("sha256", hex)) => hex.as_bytes(),
            Some(_) => return Err(refuse("the algorithm must be sha256")),
            None => return Err(refuse("the algorithm is missing")),
        };
        if hex.len() != 64 {
            return Err(refuse("a sha256 has exactly 64 digits"));
        }
        let mut bytes = [0u8; 32];
        for (byte, pair) in bytes.iter_mut().zip(hex.chunks_exact(2)) {
            // Upper case would give one digest two spellings, and so two file names.
            let digit = |d: u8| match d {
                b'0'..=b'9' => Ok(d - b'0'),
                b'a'..=b'f' => Ok(d - b'a' + 10),
                _ => Err(refuse("only 0-9 and a-f may follow the colon")),
            };
            *byte = (digit(pair[0])? << 4) | digit(pair[1])?;
        }
        Ok(Self(bytes))
    }
}

impl Serialize for Digest {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        serializer.collect_str(self)
    }
}

impl<'de> Deserialize<'de> for Digest {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        String::deserialize(deserializer)?
            .parse()
            .map_err(serde::de::Error::custom)
    }
}

/// Why arriving bytes are not the ones a digest promised.
#[derive(Debug, thiserror::Error, PartialEq, Eq)]
#[non_exhaustive]
pub enum VerifyError {
    /// More bytes came than promised; hashing stopped there.
    #[error("more than the promised {expected} bytes")]
    TooLong {
        /// Promised size in bytes.
        expected: u64,
    },
    /// The bytes ended early.
    #[error("{actual} bytes instead of the promised {expected}")]
    TooShort {
        /// Promised size in bytes.
        expected: u64,
        /// Size seen in bytes.
        actual: u64,
    },
    /// The size is right and the content is not.
    #[error("content has digest {actual} instead of the promised {expected}")]
    Mismatch {
        /// Promised digest.
        expected: Digest,
        /// Digest of what came.
        actual: Digest,
    },
}

/// Compares a stream with a promised digest and size, piece by piece.
///
/// It fails as soon as one byte too many arrives, so an endless stream costs no more than the promised size.
///
/// ```
/// use karat_registry::{Digest, Verifier};
///
/// let mut verifier = Verifier::new(Digest::of(b"hello"), 5);
/// verifier.update(b"hel")?;
/// verifier.update(b"lo")?;
/// verifier.finish()?;
/// # Ok::<(), karat_registry::reference::VerifyError>(())
/// ```
#[derive(Debug, Clone)]
pub struct Verifier {
    digest: Digest,
    size: u64,
    seen: u64,
    hasher: Sha256,
}

impl Verifier {
    /// Starts a comparison with `size` bytes of the given digest.
    #[must_use]
    pub fn new(digest: Digest, size: u64) -> Self {
        Self {
            digest,
            size,
            seen: 0,
            hasher: Sha256::new(),
        }
    }

    /// Takes the next piece.
    ///
    /// # Errors
    /// [`VerifyError::TooLong`] when more than the promised size arrived.
    pub fn update(&mut self, piece: &[u8]) -> Result<(), VerifyError> {
        self.seen = self.seen.saturating_add(piece.len() as u64);
        if self.seen > self.size {
            return Err(VerifyError::TooLong {
                expected: self.size,
            });
        }
        self.hasher.update(piece);
        Ok(())
    }

    /// Ends the comparison.
    ///
    /// # Errors
    /// [`VerifyError::TooShort`] when bytes are missing, [`VerifyError::Mismatch`] when the content differs, and
    /// [`VerifyError::TooLong`] when an earlier such answer of [`Verifier::update`] was ignored.
    pub fn finish(self) -> Result<(), VerifyError> {
        if self.seen > self.size {
            return Err(VerifyError::TooLong {
                expected: self.size,
            });
        }
        if self.seen < self.size {
            return Err(VerifyError::TooShort {
                expected: self.size,
                actual: self.seen,
            });
        }
        let actual = Digest(self.hasher.finalize().into());
        if actual != self.digest {
            return Err(VerifyError::Mismatch {
                expected: self.digest,
                actual,
            });
        }
        Ok(())
    }
}

/// Checks a component name: `dra-support`, `vendor.example/name`.
///
/// The grammar is the one of an OCI repository, so that a component can be pushed under its own name.
///
/// # Errors
/// [`ReferenceError::Name`].
pub fn check_name(name: &str) -> Result<(), ReferenceError> {
    let refuse = |reason| {
        Err(ReferenceError::Name {
            text: quoted(name),
            reason,
        })
    };
    if name.is_empty() {
        return refuse("it is empty");
    }
    if name.len() > MAX_NAME_LENGTH {
        return refuse("it is longer than 255 bytes");
    }
    if !name.split('/').all(is_path_component) {
        return refuse("each part between slashes starts and ends with a letter or digit");
    }
    Ok(())
}

/// Whether text is a path component of the distribution specification: runs of `[a-z0-9]` joined by `.`, `_`, `__` or
/// any number of `-`. It follows that `..` and an empty part are not.
fn is_path_component(text: &str) -> bool {
    let alphanumeric = |c: char| c.is_ascii_lowercase() || c.is_ascii_digit();
    text.starts_with(alphanumeric)
        && text.ends_with(alphanumeric)
        && text
            .split(alphanumeric)
            .all(|joint| matches!(joint, "" | "." | "_" | "__") || joint.bytes().all(|b| b == b'-'))
}

/// Parses a component version, which must also be usable as a tag.
///
/// # Errors
/// [`ReferenceError::Version`] for text that is no semantic version, has build metadata (a tag cannot hold a `+`) or
/// is longer than a tag may be.
pub fn parse_version(text: &str) -> Result<Version, ReferenceError> {
    let refuse = |reason: String| ReferenceError::Version {
        text: quoted(text),
        reason,
    };
    if text.len() > MAX_TAG_LENGTH {
        return Err(refuse("it is longer than 128 characters".to_owned()));
    }
    let version = Version::parse(text).map_err(|error| refuse(error.to_string()))?;
    if !version.build.is_empty() {
        return Err(refuse(
            "build metadata after `+` cannot be part of a tag".to_owned(),
        ));
    }
    Ok(version)
}

/// What a person types to name a component.
///
/// | Text | Meaning |
/// |---|---|
/// | `oci://ghcr.io/example/dra-support:0.1.0` | in a registry, by tag, by `@sha256:…` or by both |
/// | `layout:probes#dra-support:0.1.0` | in an OCI image layout on disk; without `#…`, all that it holds |
/// | `./probes`, `../probes`, `/opt/probes` | the same as `layout:` and the path |
/// | `dra-support`, `vendor.example/name:1.2.0` | by name, in the sources the caller has configured |
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Reference {
    /// A repository of a registry.
    Registry(RegistryReference),
    /// An OCI image layout on disk.
    Layout {
        /// Folder of the layout, as typed.
        path: PathBuf,
        /// One component of it; without, all.
        component: Option<NamedReference>,
    },
    /// A component of whichever source has it.
    Named(NamedReference),
}

/// A component in a registry.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct RegistryReference {
    /// Host, with a port if one was given: `ghcr.io`, `127.0.0.1:5000`.
    pub registry: String,
    /// Repository below the host: `example/dra-support`.
    pub repository: String,
    /// Tag, if one was given.
    pub tag: Option<String>,
    /// Manifest digest, if one was given; it wins over the tag.
    pub digest: Option<Digest>,
}

/// A component by name.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct NamedReference {
    /// Checked name.
    pub name: String,
    /// Exact version, if one was given.
    pub version: Option<Version>,
    /// Manifest digest, if one was given.
    pub digest: Option<Digest>,
}

// === impl Reference ===

impl FromStr for Reference {
    type Err = ReferenceError;

    fn from_str(text: &str) -> Result<Self, ReferenceError> {
        let refuse = |reason| ReferenceError::Reference {
            text: quoted(text),
            reason,
        };
        if text.len() > MAX_REFERENCE_LENGTH {
            return Err(refuse("it is longer than 1024 bytes"));
        }
        if text.chars().any(char::is_control) {
            return Err(refuse("it holds a control character"));
        }
        if let Some(rest) = text.strip_prefix("oci://") {
            return parse_registry(rest)
                .map(Self::Registry)
                .map_err(|problem| problem.within(text));
        }
        let bare_path = matches!(text, "." | "..")
            || ["/", "./", "../"]
                .iter()
                .any(|start| text.starts_with(start));
        if let Some(rest) = text.strip_prefix("layout:").or(bare_path.then_some(text)) {
            // The last `#` divides: a component name cannot hold one, a folder's name can.
            let (path, component) = match rest.rsplit_once('#') {
                Some((path, component)) => (path, Some(component.parse()?)),
                None => (rest, None),
            };
            if path.is_empty() {
                return Err(refuse("the folder is missing"));
            }
            return Ok(Self::Layout {
                path: PathBuf::from(path),
                component,
            });
        }
        if text.contains("://") {
            return Err(refuse("the only scheme is oci"));
        }
        text.parse().map(Self::Named)
    }
}

impl fmt::Display for Reference {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Registry(reference) => reference.fmt(f),
            Self::Layout {
                path,
                component: None,
            } => write!(f, "layout:{}", path.display()),
            Self::Layout {
                path,
                component: Some(component),
            } => write!(f, "layout:{}#{component}", path.display()),
            Self::Named(reference) => reference.fmt(f),
        }
    }
}

// === impl RegistryReference ===

/// Where Docker Hub answers, and the name that everybody calls it by.
const HUB: &str = "docker.io";

impl RegistryReference {
    /// Reads the name of a container image: `registry.example/team/tool:1@sha256:…`. As everywhere, a first part without a dot
    /// and a port is no registry but a repository of Docker Hub.
    ///
    /// # Errors
    /// [`ReferenceError::Reference`].
    pub fn image(text: &str) -> Result<RegistryReference, ReferenceError> {
        let refuse = |reason| ReferenceError::Image {
            text: quoted(text),
            reason,
        };
        if text.len() > MAX_REFERENCE_LENGTH {
            return Err(refuse("it is longer than 1024 bytes"));
        }
        let first = text.split('/').next().unwrap_or_default();
        let names_host = text.contains('/') && (first.contains(['.', ':']) || first == "localhost");
        let full = if names_host {
            text.to_owned()
        } else {
            format!("{HUB}/{text}")
        };
        let mut image = parse_registry(&full).map_err(|problem| match problem {
            Problem::Plain(reason) => refuse(reason),
            Problem::Typed(error) => error,
        })?;
        if image.registry == HUB && !image.repository.contains('/') {
            image.repository.insert_str(0, "library/");
        }
        Ok(image)
    }

    /// Host and port of the registry's API.
    #[must_use]
    pub fn host(&self) -> &str {
        match self.registry.as_str() {
            HUB => "registry-1.docker.io",
            other => other,
        }
    }

    /// The name without scheme, as pods have it.
    #[must_use]
    pub fn name(&self) -> String {
        self.to_string().trim_start_matches("oci://").to_owned()
    }
}

/// A problem found before it is known which text the message should quote.
enum Problem {
    Plain(&'static str),
    Typed(ReferenceError),
}

impl Problem {
    fn within(self, text: &str) -> ReferenceError {
        match self {
            Self::Plain(reason) => ReferenceError::Reference {
                text: quoted(text),
                reason,
            },
            Self::Typed(error) => error,
        }
    }
}

fn parse_registry(text: &str) -> Result<RegistryReference, Problem> {
    let (rest, digest) = split_digest(text).map_err(Problem::Typed)?;
    let (registry, rest) = rest
        .split_once('/')
        .ok_or(Problem::Plain("the repository is missing"))?;
    // The colon of a port stands before the first slash, so this one can only start a tag.
    let (repository, tag) = match rest.rsplit_once(':') {
        Some((repository, tag)) => (repository, Some(tag)),
        None => (rest, None),
    };
    if !is_host(registry) {
        return Err(Problem::Plain(
            "the registry must be a host name or address with an optional port, without user or password",
        ));
    }
    if repository.is_empty() || !repository.split('/').all(is_path_component) {
        return Err(Problem::Plain(
            "each part of the repository holds lower-case letters and digits, joined by `-`, `.` or `_`",
        ));
    }
    if registry.len() + 1 + repository.len() > MAX_NAME_LENGTH {
        return Err(Problem::Plain(
            "registry and repository are longer than 255 bytes",
        ));
    }
    if tag.is_some_and(|tag| !is_tag(tag)) {
        return Err(Problem::Plain(TAG_RULE));
    }
    Ok(RegistryReference {
        registry: registry.to_owned(),
        repository: repository.to_owned(),
        tag: tag.map(str::to_owned),
        digest,
    })
}

fn split_digest(text: &str) -> Result<(&str, Option<Digest>), ReferenceError> {
    match text.split_once('@') {
        Some((rest, digest)) => Ok((rest, Some(digest.parse()?))),
        None => Ok((text, None)),
    }
}

/// Checks that a registry would take a text as a tag.
///
/// # Errors
/// [`ReferenceError::Tag`].
pub fn check_tag(text: &str) -> Result<(), ReferenceError> {
    if is_tag(text) {
        return Ok(());
    }
    Err(ReferenceError::Tag { text: quoted(text) })
}

fn is_tag(tag: &str) -> bool {
    tag.len() <= MAX_TAG_LENGTH
        && tag.starts_with(|c: char| c.is_ascii_alphanumeric() || c == '_')
        && tag
            .bytes()
            .all(|b| b.is_ascii_alphanumeric() || matches!(b, b'_' | b'.' | b'-'))
}

/// Whether text is `host` or `host:port`, where host is a domain name, an IPv4 address or an IPv6 address in brackets.
fn is_host(text: &str) -> bool {
    let (host, port) = match text.strip_prefix('[') {
        Some(rest) => match rest.split_once(']') {
            Some((address, "")) => (address, None),
            Some((address, port)) if port.starts_with(':') => (address, Some(&port[1..])),
            _ => return false,
        },
        None => match text.split_once(':') {
            Some((host, port)) => (host, Some(port)),
            None => (text, None),
        },
    };
    let port_fits = port.is_none_or(|port| {
        // `parse` alone would take `+80`.
        port.bytes().all(|b| b.is_ascii_digit()) && port.parse::<u16>().is_ok_and(|port| port != 0)
    });
    let host_fits = if text.starts_with('[') {
        host.parse::<std::net::Ipv6Addr>().is_ok()
    } else {
        host.split('.').all(|label| {
            let alphanumeric = |c: char| c.is_ascii_alphanumeric();
            label.len() <= 63
                && label.starts_with(alphanumeric)
                && label.ends_with(alphanumeric)
                && label
                    .bytes()
                    .all(|b| b.is_ascii_alphanumeric() || b == b'-')
        })
    };
    port_fits && host_fits
}

impl fmt::Display for RegistryReference {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "oci://{}/{}", self.registry, self.repository)?;
        if let Some(tag) = &self.tag {
            write!(f, ":{tag}")?;
        }
        if let Some(digest) = &self.digest {
            write!(f, "@{digest}")?;
        }
        Ok(())
    }
}

// === impl NamedReference ===

impl FromStr for NamedReference {
    type Err = ReferenceError;

    fn from_str(text: &str) -> Result<Self, ReferenceError> {
        let (rest, digest) = split_digest(text)?;
        let (name, version) = match rest.split_once(':') {
            Some((name, version)) => (name, Some(parse_version(version)?)),
            None => (rest, None),
        };
        check_name(name)?;
        Ok(Self {
            name: name.to_owned(),
            version,
            digest,
        })
    }
}

impl fmt::Display for NamedReference {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.name)?;
        if let Some(version) = &self.version {
            write!(f, ":{version}")?;
        }
        if let Some(digest) = &self.digest {
            write!(f, "@{digest}")?;
        }
        Ok(())
    }
}

#[cfg(test)]
mod tests;
