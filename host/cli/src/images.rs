//! The images that come with the program: a layout beside it, like that of the probes.

use crate::probes::{Probes, brought};
use crate::ui::diagnostics::{Classify as _, CommandError, Hint as _};
use karat_engine::images::OWN_REGISTRY;
use karat_engine::manifest::ImageSource;
use karat_registry::{Image, Layout};
use std::collections::BTreeMap;
use std::path::PathBuf;

/// Folder of the layout.
const IMAGES: &str = "images/layout";

/// The images of the program; none where it came without.
#[derive(Default)]
pub(crate) struct OwnImages {
    /// The layout.
    pub(crate) layout: Option<PathBuf>,
    /// Its images by name.
    pub(crate) images: Vec<Image>,
}

impl OwnImages {
    /// Looks beside the program.
    ///
    /// # Errors
    /// The layout is damaged.
    pub(crate) fn find() -> Result<OwnImages, CommandError> {
        // The real file, so that a symbolic link in ~/bin finds its images too.
        let executable = std::env::current_exe().and_then(|path| path.canonicalize());
        let Some(place) = executable.ok().and_then(|file| brought(&file, IMAGES)) else {
            return Ok(OwnImages::default());
        };
        let doing = format!("cannot read the images in {}", place.display());
        let images = Layout::open(&place)
            .and_then(|layout| layout.images())
            .environment(doing)
            .hint("install Karat again, or run `cargo xtask images` in a checkout")?;
        Ok(OwnImages {
            layout: Some(place),
            images: images.into_iter().filter_map(short).collect(),
        })
    }

    /// Looks beside the program if a probe starts an image of it. Most start none, and what nobody needs can stop nobody.
    ///
    /// # Errors
    /// As [`OwnImages::find`].
    pub(crate) fn needed_by(probes: &Probes) -> Result<OwnImages, CommandError> {
        let mut lines = probes.iter().flat_map(|probe| &probe.manifest.images);
        if lines.any(|line| matches!(line.source, ImageSource::Own(_))) {
            OwnImages::find()
        } else {
            Ok(OwnImages::default())
        }
    }

    /// Digests by name.
    pub(crate) fn digests(&self) -> BTreeMap<String, String> {
        let images = self.images.iter();
        images
            .map(|image| (image.name.clone(), image.digest.to_string()))
            .collect()
    }
}

/// `tool` for `karat.local/tool:1`. An image is also there under its digest, which says nothing new.
fn short(image: Image) -> Option<Image> {
    let name = image.name.strip_prefix(OWN_REGISTRY)?.strip_prefix('/')?;
    let (name, _tag) = name.split_once(':').filter(|_| !name.contains('@'))?;
    Some(Image {
        name: name.to_owned(),
        ..image
    })
}

#[cfg(test)]
mod tests {
    use super::*;
    use karat_registry::Digest;

    #[test]
    fn images_are_known_by_their_short_names() {
        let of = |name: &str| {
            let image = Image {
                name: name.to_owned(),
                digest: Digest::of(b"x"),
                architectures: Vec::new(),
            };
            short(image).map(|image| image.name)
        };
        assert_eq!(of("karat.local/tool:1").as_deref(), Some("tool"));
        assert_eq!(of("karat.local/tool@sha256:00"), None);
        assert_eq!(of("registry.example/tool:1"), None);
        assert_eq!(of("karat.local/tool"), None);
    }
}
