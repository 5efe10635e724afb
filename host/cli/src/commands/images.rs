//! `karat images`: what a cluster must be able to pull. `list` asks nobody; [`export`] and [`import`] carry images over an air gap,
//! [`push`] brings them to where the cluster pulls, [`check`] looks whether they are there, [`registry`] is how registries are
//! spoken to.

pub(super) mod check;
pub(super) mod export;
pub(super) mod import;
pub(super) mod push;
mod registry;

use super::Context;
use crate::args::{ImagesListArgs, ImagesPlanArgs};
use crate::exit::Exit;
use crate::images::OwnImages;
use crate::settings;
use crate::signals::Signals;
use crate::ui::diagnostics::{Classify as _, CommandError, CommandResult};
use crate::ui::printer::Style;
use crate::ui::table::{Cell, Table};
use crate::ui::text::shown_within;
use karat_engine::images::Images;
use karat_engine::manifest::{ImageLine, ImageSource};
use serde::Serialize;
use std::collections::BTreeMap;
use std::io::{self, Read, Write};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;
use tokio::sync::Notify;

/// What the selected probes and the program need.
struct Needs {
    own: OwnImages,
    all: Vec<Needed>,
}

/// One image, with the probes that start it.
#[derive(Debug, PartialEq, Eq)]
struct Needed {
    source: ImageSource,
    /// As a pod of a run names it; none for an own image that is not there.
    reference: Option<String>,
    probes: Vec<String>,
}

impl Needs {
    /// Reads probes, own images and `karat.toml`.
    fn new(context: &Context, args: &ImagesPlanArgs) -> Result<Needs, CommandError> {
        let probes = settings::probes(&args.sources, &context.environment)?;
        for word in &args.probes {
            probes.find(word)?;
        }
        let own = OwnImages::find()?;
        let placement = settings::placement(args.config.as_deref())?;
        let images = Images::new(&own.digests(), placement);
        let lines = probes
            .iter()
            .filter(|probe| {
                args.probes.is_empty() || args.probes.iter().any(|word| probe.answers(word))
            })
            .flat_map(|probe| {
                let id = &probe.manifest.id;
                let lines = probe.manifest.images.iter();
                lines.map(move |line| (id.as_str(), line))
            });
        let mut all = needed(lines, &images, &own);
        // Who names probes wants no more than those need.
        all.retain(|one| args.probes.is_empty() || !one.probes.is_empty());
        Ok(Needs { own, all })
    }
}

/// Every image once, with the probes that start it. Images that the program brings and no probe starts are needed too: the next
/// probe may start them.
fn needed<'a>(
    lines: impl Iterator<Item = (&'a str, &'a ImageLine)>,
    images: &Images,
    own: &OwnImages,
) -> Vec<Needed> {
    let mut found: BTreeMap<(Option<String>, Option<String>), Needed> = BTreeMap::new();
    let mut add = |line: &ImageLine, probe: Option<&str>| {
        let name = match &line.source {
            ImageSource::Own(name) => Some(name.clone()),
            ImageSource::Reference(_) => None,
        };
        let reference = images.resolve(line).ok();
        let one = found
            .entry((name, reference.clone()))
            .or_insert_with(|| Needed {
                source: line.source.clone(),
                reference,
                probes: Vec::new(),
            });
        if let Some(probe) = probe.filter(|probe| one.probes.iter().all(|known| known != probe)) {
            one.probes.push(probe.to_owned());
        }
    };
    for image in &own.images {
        let line = ImageLine {
            name: image.name.clone(),
            source: ImageSource::Own(image.name.clone()),
        };
        add(&line, None);
    }
    for (probe, line) in lines {
        add(line, Some(probe));
    }
    found.into_values().collect()
}

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
    let needs = Needs::new(context, &args.plan)?;
    let listed = listed(needs.all, &needs.own);
    let own = &needs.own;
    let printer = &context.printer;
    if args.json {
        printer.json(&listed).bug("cannot write the list")?;
        return Ok(Exit::Passed);
    }
    printer.data_lines(table(&listed).lines(printer.out_paint()));
    match &own.layout {
        Some(layout) => printer.status(&format!(
            "images of this program: {} (an OCI image layout); `karat images push` brings them to where the cluster can pull",
            layout.display()
        )),
        None => printer.status("this program came without images of its own; `cargo xtask images` makes them in a checkout"),
    }
    Ok(Exit::Passed)
}

fn listed(needed: Vec<Needed>, own: &OwnImages) -> Vec<Listed> {
    let listed = needed.into_iter().map(|one| {
        let name = match one.source {
            ImageSource::Own(name) => Some(name),
            ImageSource::Reference(_) => None,
        };
        let image = own
            .images
            .iter()
            .find(|image| Some(&image.name) == name.as_ref());
        Listed {
            architectures: image
                .map(|image| image.architectures.clone())
                .unwrap_or_default(),
            reference: one.reference,
            own: name,
            probes: one.probes,
        }
    });
    listed.collect()
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

/// How long what reads and writes may take to notice a signal and to remove what it began.
const LINGER: Duration = Duration::from_secs(1);

/// Ends work at a signal, so that what was begun is removed: what waits is dropped, what reads and writes gets an error.
#[derive(Clone, Default)]
struct Stop {
    came: Arc<AtomicBool>,
    told: Arc<Notify>,
}

impl Stop {
    /// Does the work until a signal comes; then `left` says what is left of it.
    ///
    /// # Errors
    /// Those of the work, or that it was stopped.
    async fn around<T>(
        left: &'static str,
        work: impl AsyncFnOnce(Stop) -> Result<T, CommandError>,
    ) -> Result<T, CommandError> {
        let stop = Stop::default();
        let mut signals = Signals::listen().environment("cannot listen to signals")?;
        let raised = stop.clone();
        let exit = tokio::spawn(async move {
            signals.next().await;
            raised.came.store(true, Ordering::Relaxed);
            raised.told.notify_one();
            signals.exit().unwrap_or(Exit::Interrupted)
        });
        let mut work = std::pin::pin!(work(stop.clone()));
        let done = tokio::select! {
            done = &mut work => Some(done),
            () = stop.told.notified() => tokio::time::timeout(LINGER, work).await.ok(),
        };
        match done {
            Some(Ok(value)) => Ok(value),
            Some(Err(error)) if !stop.came.load(Ordering::Relaxed) => Err(error),
            _ => {
                let exit = exit.await.unwrap_or(Exit::Interrupted);
                Err(CommandError::stopped(exit, left))
            }
        }
    }

    fn around_stream<S>(&self, inner: S) -> Stoppable<S> {
        Stoppable {
            inner,
            came: self.came.clone(),
        }
    }
}

/// A file that gives up at a signal.
struct Stoppable<S> {
    inner: S,
    came: Arc<AtomicBool>,
}

impl<S> Stoppable<S> {
    fn look(&self) -> io::Result<()> {
        if self.came.load(Ordering::Relaxed) {
            return Err(io::Error::other("stopped"));
        }
        Ok(())
    }
}

impl<S: Read> Read for Stoppable<S> {
    fn read(&mut self, piece: &mut [u8]) -> io::Result<usize> {
        self.look()?;
        self.inner.read(piece)
    }
}

impl<S: Write> Write for Stoppable<S> {
    fn write(&mut self, piece: &[u8]) -> io::Result<usize> {
        self.look()?;
        self.inner.write(piece)
    }

    fn flush(&mut self) -> io::Result<()> {
        self.inner.flush()
    }
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
        let listed = listed(needed(lines.into_iter(), &images, &own), &own);
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
