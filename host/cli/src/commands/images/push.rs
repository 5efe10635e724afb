//! `karat images push`: brings images to where nodes pull them, by the digests that pods ask for.
//!
//! Each is tagged with the first digits of its digest, because many registries sweep away what has no tag.

use super::Stop;
use super::registry::{explained_push, place, remote};
use crate::args::ImagesPushArgs;
use crate::commands::{Context, block_on};
use crate::exit::Exit;
use crate::images::OwnImages;
use crate::settings;
use crate::ui::diagnostics::{Classify as _, CommandError, CommandResult};
use crate::ui::printer::Printer;
use crate::ui::text::{bytes, shown_within};
use anyhow::anyhow;
use karat_engine::images::{Images, OWN_REGISTRY};
use karat_registry::{Digest, Layout, NamedImage, RegistryReference};
use serde::Serialize;
use std::collections::BTreeSet;

#[derive(Debug, PartialEq, Eq, Serialize)]
struct Told {
    image: String,
    /// None where no mirror is configured.
    to: Option<String>,
    /// `pushed`, `was-there` or `no-mirror`.
    state: &'static str,
    /// Bytes of configs and layers that were sent.
    sent: u64,
}

/// What goes where.
struct Errand<'a> {
    layout: &'a Layout,
    image: NamedImage,
    to: RegistryReference,
}

/// Pushes.
pub(crate) fn execute(context: &Context, args: &ImagesPushArgs) -> CommandResult {
    let printer = &context.printer;
    let placement = settings::placement(args.config.as_deref())?;
    let pushed_to = placement.pushed_to.clone();
    let own = OwnImages::find()?;
    let images = Images::new(&own.digests(), placement);
    let brought = own.layout.as_ref().map(Layout::open).transpose();
    let brought = brought.usage("cannot read the images of this program")?;
    let from = args.from.as_ref().map(Layout::open).transpose();
    let from = from.usage("cannot read the images to be pushed")?;

    let mut told = Vec::new();
    let mut errands = Vec::new();
    match (&brought, &pushed_to) {
        (Some(layout), Some(pushed_to)) => errands.extend(own_errands(layout, pushed_to)?),
        (None, Some(_)) => printer.warn("this program came without images of its own"),
        (_, None) => printer.status(
            "images of this program: no place for them ([images] pushed-to in karat.toml); nodes must have them",
        ),
    }
    if let Some(layout) = &from {
        let known: BTreeSet<Digest> = own.images.iter().map(|image| image.digest).collect();
        let named = layout.named_images();
        for image in named.usage("cannot read the images to be pushed")? {
            match mirrored(printer, &images, &known, &image) {
                Mirrored::To(places) => {
                    for to in places {
                        let to = place(&to)?;
                        errands.push(Errand {
                            layout,
                            image: image.clone(),
                            to,
                        });
                    }
                }
                Mirrored::Nowhere(name) => {
                    printer.status(&format!(
                        "no mirror for {}; nodes pull it from its own registry",
                        shown_within(&name, 200)
                    ));
                    told.push(Told {
                        image: name,
                        to: None,
                        state: "no-mirror",
                        sent: 0,
                    });
                }
                Mirrored::Own => {}
            }
        }
    }
    if errands.is_empty() {
        return Err(CommandError::usage(anyhow!("there is nothing to push anywhere")).hint(
            "write into karat.toml: [images] pushed-to = \"registry.example/karat\" for the images of this program, mirrors = { \"registry.k8s.io\" = \"mirror.example/k8s\" } for those of --from; and give it with --config",
        ));
    }
    block_on(Stop::around(
        "what was sent stays; push again to go on",
        async |_: Stop| {
            let remote = remote(context, &args.registries)?;
            for Errand { layout, image, to } in errands {
                let contents = &image.contents;
                let name = image.names.first().cloned().unwrap_or_default();
                let doing = format!("cannot push {} to {}", shown_within(&name, 200), to.name());
                let left = contents.left_out().count();
                if left > 0 {
                    printer.warn(&format!(
                        "{}: layers that may only be had from where the image says are not pushed",
                        shown_within(&name, 200)
                    ));
                }
                let tag = tag(contents.root.digest);
                let pushed = remote
                    .push(&to, &tag, layout, contents)
                    .await
                    .map_err(|error| explained_push(error, doing))?;
                printer.status(&format!(
                    "{}: {}",
                    shown_within(&to.name(), 200),
                    if pushed.was_there {
                        "there already".to_owned()
                    } else {
                        format!(
                            "pushed, {} sent of {}",
                            bytes(pushed.sent),
                            bytes(contents.bytes())
                        )
                    }
                ));
                told.push(Told {
                    image: name,
                    to: Some(to.name()),
                    state: if pushed.was_there {
                        "was-there"
                    } else {
                        "pushed"
                    },
                    sent: pushed.sent,
                });
            }
            Ok(())
        },
    ))??;
    tell(printer, &told, args.json)
}

/// The program's own images, by their short names below one place.
fn own_errands<'a>(layout: &'a Layout, pushed_to: &str) -> Result<Vec<Errand<'a>>, CommandError> {
    let mut errands = Vec::new();
    let images = layout.named_images();
    for image in images.usage("cannot read the images of this program")? {
        let digest = image.contents.root.digest;
        let short: BTreeSet<&str> = image
            .names
            .iter()
            .filter_map(|name| name.strip_prefix(OWN_REGISTRY)?.strip_prefix('/'))
            .filter_map(|name| name.split(['@', ':']).next())
            .collect();
        for name in short {
            errands.push(Errand {
                layout,
                image: image.clone(),
                to: place(&format!("{pushed_to}/{name}@{digest}"))?,
            });
        }
    }
    Ok(errands)
}

/// Where an image of a folder goes.
enum Mirrored {
    To(BTreeSet<String>),
    Nowhere(String),
    /// One of a program, which brings its own.
    Own,
}

fn mirrored(
    printer: &Printer,
    images: &Images,
    known: &BTreeSet<Digest>,
    image: &NamedImage,
) -> Mirrored {
    let own = |name: &&String| {
        let rest = name.strip_prefix(OWN_REGISTRY);
        rest.is_some_and(|rest| rest.starts_with('/'))
    };
    if let Some(name) = image.names.iter().find(own) {
        if !known.contains(&image.contents.root.digest) {
            printer.warn(&format!(
                "{} is not the one that this program has, and pods ask for that; not pushed",
                shown_within(name, 200)
            ));
        }
        return Mirrored::Own;
    }
    let places: BTreeSet<String> = image
        .names
        .iter()
        .filter_map(|name| images.mirror_of(name))
        .collect();
    if places.is_empty() {
        return Mirrored::Nowhere(image.names.first().cloned().unwrap_or_default());
    }
    Mirrored::To(places)
}

fn tag(digest: Digest) -> String {
    format!("karat-{}", &digest.hex()[..12])
}

fn tell(printer: &Printer, told: &[Told], json: bool) -> CommandResult {
    if json {
        printer.json(&told).bug("cannot write what was pushed")?;
        return Ok(Exit::Passed);
    }
    for one in told {
        if let Some(to) = &one.to {
            printer.data(&shown_within(to, 300));
        }
    }
    Ok(Exit::Passed)
}
