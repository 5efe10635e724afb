//! Which image a name in a manifest stands for in a run.
//!
//! A manifest names an image by digest, or one that the program brings (`own`): those are built with it, pushed by the
//! operator to a registry that the cluster can reach (`karat images`), and named by the digest that the program knows. Mirrors
//! replace the place of an image and never its digest, so the content is the same. What came out stands in the header of
//! each recording.

use crate::manifest::values::{is_dns_label, is_dns_subdomain};
use crate::manifest::{ImageLine, ImageSource, Manifest};
use std::collections::BTreeMap;
use std::fmt;

/// The registry of the program's own images where the operator names none. Nothing is served under this name, so nodes must have
/// been given the images; the digest keeps anybody else's out.
pub const OWN_REGISTRY: &str = "karat.local";

/// Most pull secrets of a run.
pub(crate) const PULL_SECRETS_MAX: usize = 8;

/// What an operator says of images, section `[images]` of `karat.toml`.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Placement {
    /// Where the program's own images were pushed to: `registry.example/karat`.
    pub pushed_to: Option<String>,
    /// Registry or repository prefixes of manifests, and what stands for them.
    pub mirrors: BTreeMap<String, String>,
    /// Secrets of the cluster with which nodes pull.
    pub pull_secrets: Vec<PullSecretName>,
}

/// A Secret of the cluster that holds credentials of registries: `namespace/name`.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub struct PullSecretName {
    /// Namespace.
    pub namespace: String,
    /// Name.
    pub name: String,
}

impl PullSecretName {
    /// Reads `namespace/name`; none for what no Secret can be called.
    #[must_use]
    pub fn parse(text: &str) -> Option<PullSecretName> {
        let (namespace, name) = text.split_once('/')?;
        (is_dns_label(namespace, 63) && is_dns_subdomain(name)).then(|| PullSecretName {
            namespace: namespace.to_owned(),
            name: name.to_owned(),
        })
    }
}

impl fmt::Display for PullSecretName {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}/{}", self.namespace, self.name)
    }
}

/// Whether text is a registry, or a repository in one: `registry.example:5000/karat`.
pub(crate) fn is_place(text: &str) -> bool {
    let end = |c: char| c.is_ascii_alphanumeric();
    text.len() <= 255
        && text.starts_with(end)
        && text.ends_with(end)
        && !text.contains("//")
        && text
            .bytes()
            .all(|b| b.is_ascii_alphanumeric() || matches!(b, b'.' | b'_' | b'-' | b'/' | b':'))
}

/// The images that a run can use, as the operator set them up.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Images {
    /// The program's own images: name, and `registry/name@sha256:…`.
    own: BTreeMap<String, String>,
    /// Registry or repository prefixes and their replacements.
    mirrors: BTreeMap<String, String>,
    /// What the kubelet pulls with.
    pull_secrets: Vec<PullSecretName>,
}

/// An image of the program that it does not have.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error(
    "image `{image}` is one that this program brings, and it is not there; build it with `cargo xtask images`, or use a release that has it"
)]
pub struct NoImage {
    /// Its name.
    pub image: String,
}

impl Images {
    /// Takes the digests of the program's own images by name (`sha256:…`), and what the operator says.
    pub fn new(own: &BTreeMap<String, String>, placement: Placement) -> Images {
        let registry = placement.pushed_to.as_deref().unwrap_or(OWN_REGISTRY);
        let own = own
            .iter()
            .map(|(name, digest)| (name.clone(), format!("{registry}/{name}@{digest}")))
            .collect();
        Images {
            own,
            mirrors: placement.mirrors,
            pull_secrets: placement.pull_secrets,
        }
    }

    /// Secrets with which the kubelet is to pull them.
    #[must_use]
    pub fn pull_secrets(&self) -> &[PullSecretName] {
        &self.pull_secrets
    }

    /// The reference that a line of a manifest stands for.
    ///
    /// # Errors
    /// The program has no such image of its own.
    pub fn resolve(&self, line: &ImageLine) -> Result<String, NoImage> {
        match &line.source {
            ImageSource::Reference(reference) => Ok(self.mirrored(reference)),
            ImageSource::Own(image) => self.own.get(image).cloned().ok_or_else(|| NoImage {
                image: image.clone(),
            }),
        }
    }

    /// All images of a manifest by name.
    ///
    /// # Errors
    /// As [`Images::resolve`], for the first that is missing.
    pub fn of(&self, manifest: &Manifest) -> Result<BTreeMap<String, String>, NoImage> {
        manifest
            .images
            .iter()
            .map(|line| Ok((line.name.clone(), self.resolve(line)?)))
            .collect()
    }

    /// The reference, in the mirror where there is one.
    fn mirrored(&self, reference: &str) -> String {
        let mirror = self.mirror_of(reference);
        mirror.unwrap_or_else(|| reference.to_owned())
    }

    /// What stands for a reference, by the mirrors. The longest prefix that ends at a `/` or before the digest wins.
    pub fn mirror_of(&self, reference: &str) -> Option<String> {
        let fitting = self.mirrors.iter().filter_map(|(from, to)| {
            let rest = reference.strip_prefix(from.as_str())?;
            rest.starts_with(['/', '@'])
                .then_some((from.len(), to, rest))
        });
        let (_, to, rest) = fitting.max_by_key(|(length, _, _)| *length)?;
        Some(format!("{to}{rest}"))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const DIGEST: &str = "sha256:00";

    fn line(source: ImageSource) -> ImageLine {
        ImageLine {
            name: "any".to_owned(),
            source,
        }
    }

    fn reference(images: &Images, text: &str) -> String {
        images
            .resolve(&line(ImageSource::Reference(text.to_owned())))
            .unwrap()
    }

    #[test]
    fn a_mirror_replaces_a_whole_prefix_and_keeps_the_digest() {
        let mirrors = BTreeMap::from([
            ("docker.io".to_owned(), "mirror.example/hub".to_owned()),
            (
                "docker.io/library".to_owned(),
                "mirror.example/lib".to_owned(),
            ),
        ]);
        let placement = Placement {
            mirrors,
            ..Placement::default()
        };
        let images = Images::new(&BTreeMap::new(), placement);
        for (from, to) in [
            (
                "docker.io/library/busybox@sha256:00",
                "mirror.example/lib/busybox@sha256:00",
            ),
            (
                "docker.io/vendor/x@sha256:00",
                "mirror.example/hub/vendor/x@sha256:00",
            ),
            ("docker.iox/x@sha256:00", "docker.iox/x@sha256:00"),
        ] {
            assert_eq!(reference(&images, from), to);
        }
    }

    #[test]
    fn own_images_are_named_by_the_digest_of_the_program() {
        let digests = BTreeMap::from([("tool".to_owned(), DIGEST.to_owned())]);
        let mirrors = BTreeMap::from([("karat.local".to_owned(), "evil.example".to_owned())]);
        let own = line(ImageSource::Own("tool".to_owned()));
        let placed = |pushed_to: Option<&str>| {
            let placement = Placement {
                pushed_to: pushed_to.map(str::to_owned),
                mirrors: mirrors.clone(),
                ..Placement::default()
            };
            Images::new(&digests, placement)
        };
        let here = placed(None);
        assert_eq!(here.resolve(&own).unwrap(), "karat.local/tool@sha256:00");
        let pushed = placed(Some("registry.example/karat"));
        assert_eq!(
            pushed.resolve(&own).unwrap(),
            "registry.example/karat/tool@sha256:00"
        );
        let missing = pushed.resolve(&line(ImageSource::Own("echo".to_owned())));
        assert_eq!(missing.unwrap_err().image, "echo");
    }

    #[test]
    fn a_pull_secret_is_named_with_its_namespace() {
        let parsed = PullSecretName::parse("registries/pull.v1").unwrap();
        assert_eq!(parsed.to_string(), "registries/pull.v1");
        for wrong in [
            "pull", "a/b/c", "/b", "a/", "A/b", "a.b/c", "a/b_c", "a/-b", "a/..",
        ] {
            assert_eq!(PullSecretName::parse(wrong), None, "{wrong}");
        }
    }
}
