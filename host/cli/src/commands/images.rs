//! `karat images list`: what a cluster must be able to pull, before a run finds out. No cluster, no network.

use super::Context;
use crate::args::ImagesListArgs;
use crate::exit::Exit;
use crate::images::OwnImages;
use crate::settings;
use crate::ui::diagnostics::{Classify as _, CommandResult};
use crate::ui::printer::Style;
use crate::ui::table::{Cell, Table};
use crate::ui::text::shown_within;
use karat_engine::images::Images;
use karat_engine::manifest::{ImageLine, ImageSource};
use serde::Serialize;
use std::collections::BTreeMap;

#[derive(Debug, PartialEq, Eq, Serialize)]
struct Listed {
    /// As a pod of a run names it; none for an own image that is not there.
    reference: Option<String>,
    /// Name, for an image that the program brings.
    own: Option<String>,
    /// `linux/amd64`; empty where only the registry knows.
    architectures: Vec<String>,
    /// Probes that start it.
    probes: Vec<String>,
}

/// Lists.
pub(crate) fn execute(context: &Context, args: &ImagesListArgs) -> CommandResult {
    let probes = settings::probes(&args.sources, &context.environment)?;
    let own = OwnImages::find()?;
    let images = settings::images(args.config.as_deref(), &own)?;
    let lines = probes.iter().flat_map(|probe| {
        let id = &probe.manifest.id;
        probe
            .manifest
            .images
            .iter()
            .map(move |line| (id.as_str(), line))
    });
    let listed = listed(lines, &images, &own);
    let printer = &context.printer;
    if args.json {
        printer.json(&listed).bug("cannot write the list")?;
        return Ok(Exit::Passed);
    }
    printer.data_lines(table(&listed).lines(printer.out_paint()));
    match &own.layout {
        Some(layout) => printer.status(&format!(
            "images of this program: {} (an OCI image layout); push them where the cluster can pull, and say where in karat.toml: [images] pushed-to",
            layout.display()
        )),
        None => printer.status("this program came without images of its own; `cargo xtask images` makes them in a checkout"),
    }
    Ok(Exit::Passed)
}

/// Every image once, with the probes that start it. Images that the program brings and no probe starts are told too.
fn listed<'a>(
    lines: impl Iterator<Item = (&'a str, &'a ImageLine)>,
    images: &Images,
    own: &OwnImages,
) -> Vec<Listed> {
    let mut found: BTreeMap<(Option<String>, Option<String>), Vec<String>> = BTreeMap::new();
    for image in &own.images {
        let line = ImageLine {
            name: image.name.clone(),
            source: ImageSource::Own(image.name.clone()),
        };
        found.insert(
            (Some(image.name.clone()), images.resolve(&line).ok()),
            Vec::new(),
        );
    }
    for (probe, line) in lines {
        let name = match &line.source {
            ImageSource::Own(name) => Some(name.clone()),
            ImageSource::Reference(_) => None,
        };
        let probes = found.entry((name, images.resolve(line).ok())).or_default();
        if !probes.iter().any(|known| known == probe) {
            probes.push(probe.to_owned());
        }
    }
    found
        .into_iter()
        .map(|((name, reference), probes)| Listed {
            architectures: own
                .images
                .iter()
                .find(|image| Some(&image.name) == name.as_ref())
                .map(|image| image.architectures.clone())
                .unwrap_or_default(),
            reference,
            own: name,
            probes,
        })
        .collect()
}

fn table(listed: &[Listed]) -> Table {
    let mut table = Table::with_heading(&["image", "architectures", "started by"]);
    for one in listed {
        let missing = || format!("{}: not there", one.own.as_deref().unwrap_or_default());
        let reference = one.reference.clone().unwrap_or_else(missing);
        let architectures = match one.architectures.as_slice() {
            [] => "as the registry says".to_owned(),
            all => all.join(", "),
        };
        let probes: Vec<String> = one.probes.iter().map(|id| shown_within(id, 60)).collect();
        table.row([
            Cell::styled(shown_within(&reference, 200), Style::Strong),
            architectures.into(),
            if probes.is_empty() {
                "no probe".into()
            } else {
                probes.join(", ").into()
            },
        ]);
    }
    table
}

#[cfg(test)]
mod tests {
    use super::*;
    use karat_engine::images::Placement;
    use karat_registry::{Digest, Image};

    fn line(source: ImageSource) -> ImageLine {
        ImageLine {
            name: "any".to_owned(),
            source,
        }
    }

    #[test]
    fn every_image_is_told_once_with_who_starts_it() {
        let own = OwnImages {
            layout: None,
            images: vec![Image {
                name: "tool".to_owned(),
                digest: Digest::of(b"tool"),
                architectures: vec!["linux/amd64".to_owned()],
            }],
        };
        let placement = Placement {
            pushed_to: Some("registry.example/karat".to_owned()),
            ..Placement::default()
        };
        let images = Images::new(&own.digests(), placement);
        let pause = line(ImageSource::Reference(
            "registry.k8s.io/pause@sha256:00".to_owned(),
        ));
        let tool = line(ImageSource::Own("tool".to_owned()));
        let echo = line(ImageSource::Own("echo".to_owned()));
        let lines = [
            ("a", &pause),
            ("b", &pause),
            ("b", &pause),
            ("b", &tool),
            ("c", &echo),
        ];
        let listed = listed(lines.into_iter(), &images, &own);
        let told: Vec<(Option<&str>, Vec<&str>)> = listed
            .iter()
            .map(|one| {
                let probes = one.probes.iter().map(String::as_str);
                (one.reference.as_deref(), probes.collect())
            })
            .collect();
        let digest = Digest::of(b"tool");
        let tool = format!("registry.example/karat/tool@{digest}");
        assert_eq!(
            told,
            [
                (Some("registry.k8s.io/pause@sha256:00"), vec!["a", "b"]),
                (None, vec!["c"]),
                (Some(tool.as_str()), vec!["b"]),
            ]
        );
        assert_eq!(listed[2].architectures, ["linux/amd64"]);
    }
}
