//! `karat images export`: one archive of all images of a plan, for nodes and registries that see no other network.
//!
//! Each image stands in it under its own name and under the one that pods of this plan use, by digest, so that
//! `ctr -n k8s.io images import` on a node is enough. An image of a registry is taken whole: its digest is that of all platforms.

use super::registry::{explained, place, remote};
use super::{Needs, Stop};
use crate::args::ImagesExportArgs;
use crate::commands::{Context, block_on};
use crate::exit::Exit;
use crate::ui::diagnostics::{Classify as _, CommandError, CommandResult};
use crate::ui::printer::Printer;
use crate::ui::text::{bytes, counted, shown_within};
use anyhow::anyhow;
use karat_engine::images::OWN_REGISTRY;
use karat_engine::manifest::ImageSource;
use karat_registry::archive::{ArchiveError, Writer};
use karat_registry::{Layout, NamedImage, RegistryReference, Remote};
use serde::Serialize;
use std::collections::{BTreeMap, BTreeSet};
use std::io::Write;
use std::path::{Path, PathBuf};

/// The name of stdout.
const STDOUT: &str = "-";

#[derive(Serialize)]
struct Exported {
    file: String,
    bytes: u64,
    images: Vec<ExportedImage>,
}

#[derive(Serialize)]
struct ExportedImage {
    names: Vec<String>,
    digest: String,
    platforms: Vec<String>,
    bytes: u64,
    /// Layers that may only be had from where they lie.
    left_out: Vec<String>,
}

/// An image and where its blobs are.
struct Item {
    image: NamedImage,
    from: From,
}

enum From {
    Own,
    Registry(RegistryReference),
}

/// Exports.
pub(crate) fn execute(context: &Context, args: &ImagesExportArgs) -> CommandResult {
    let to_stdout = args.file == Path::new(STDOUT);
    if to_stdout && args.json {
        return Err(
            CommandError::usage(anyhow!("--json and the archive both want stdout"))
                .hint("give a file for the archive"),
        );
    }
    if to_stdout && context.printer.out_is_terminal() {
        return Err(
            CommandError::usage(anyhow!("an archive is nothing for a terminal"))
                .hint("redirect stdout, or give a file"),
        );
    }
    if !to_stdout && args.file.symlink_metadata().is_ok() {
        return Err(in_the_way(&args.file));
    }
    let needs = Needs::new(context, &args.plan)?;
    let made = block_on(Stop::around("nothing was written", async |stop: Stop| {
        let remote = remote(context, &args.registries)?;
        let own = needs.own.layout.as_ref().map(Layout::open);
        let own = own
            .transpose()
            .usage("cannot read the images of this program")?;
        let items = items(&context.printer, &needs, own.as_ref(), &remote, args.own).await?;
        if items.is_empty() {
            return Err(CommandError::usage(anyhow!("there is no image to export"))
                .hint("`karat images list` shows what probes start"));
        }
        if to_stdout {
            let out = stop.around_stream(context.printer.raw_out());
            let folder = std::env::temp_dir();
            let (_, size) = write(
                &context.printer,
                out,
                &items,
                own.as_ref(),
                &remote,
                &folder,
            )
            .await?;
            return Ok(exported(&items, &args.file, size));
        }
        let folder = match args.file.parent() {
            Some(folder) if !folder.as_os_str().is_empty() => folder.to_owned(),
            _ => PathBuf::from("."),
        };
        let doing = || format!("cannot write {}", args.file.display());
        let beside = tempfile::Builder::new()
            .prefix(".karat-images-")
            .permissions(std::os::unix::fs::PermissionsExt::from_mode(0o666))
            .tempfile_in(&folder)
            .environment(doing())?;
        let out = stop.around_stream(std::io::BufWriter::new(beside));
        let (out, size) = write(
            &context.printer,
            out,
            &items,
            own.as_ref(),
            &remote,
            &folder,
        )
        .await?;
        let file = out.inner.into_inner().map_err(|error| error.into_error());
        let file = file.environment(doing())?;
        file.as_file().sync_all().environment(doing())?;
        file.persist_noclobber(&args.file).map_err(|error| {
            if error.error.kind() == std::io::ErrorKind::AlreadyExists {
                in_the_way(&args.file)
            } else {
                CommandError::environment(error.error).doing(doing())
            }
        })?;
        Ok(exported(&items, &args.file, size))
    }))??;
    tell(context, &made, args.json, to_stdout)
}

fn in_the_way(file: &Path) -> CommandError {
    CommandError::usage(anyhow!("{} is there already", file.display()))
        .hint("give another name, or remove it first")
}

/// Reads the documents of every image.
async fn items(
    printer: &Printer,
    needs: &Needs,
    own: Option<&Layout>,
    remote: &Remote,
    only_own: bool,
) -> Result<Vec<Item>, CommandError> {
    let mut all: BTreeMap<String, Item> = BTreeMap::new();
    if let Some(layout) = own {
        let images = layout.named_images();
        let needed: BTreeSet<String> = needs
            .all
            .iter()
            .filter(|one| matches!(one.source, ImageSource::Own(_)))
            .filter_map(|one| Some(place(one.reference.as_ref()?).ok()?.digest?.to_string()))
            .collect();
        for image in images.usage("cannot read the images of this program")? {
            let is_needed = needed.contains(&image.contents.root.digest.to_string());
            if is_needed && image.names.iter().any(|name| is_own(name)) {
                let from = From::Own;
                all.insert(image.contents.root.digest.to_string(), Item { image, from });
            }
        }
    }
    for one in &needs.all {
        let (source, reference) = match (&one.source, &one.reference) {
            (ImageSource::Own(name), None) => {
                printer.warn(&format!(
                    "image {} is one that this program brings, and it is not there; left out",
                    shown_within(name, 100)
                ));
                continue;
            }
            (ImageSource::Own(_), Some(reference)) => (None, reference),
            (ImageSource::Reference(source), Some(reference)) => (Some(source), reference),
            (ImageSource::Reference(_), None) => continue,
        };
        let at = place(reference)?;
        let digest = at
            .digest
            .map(|digest| digest.to_string())
            .unwrap_or_default();
        let mut names = BTreeSet::from([pinned(&at)]);
        if let Some(source) = source {
            if only_own {
                continue;
            }
            names.insert(pinned(&place(source)?));
            if !all.contains_key(&digest) {
                printer.status(&format!("asking for {}", shown_within(&at.name(), 200)));
                let doing = format!("cannot export {}", at.name());
                let contents = remote
                    .contents(&at)
                    .await
                    .map_err(|error| explained(error, doing))?;
                let image = NamedImage {
                    names: BTreeSet::new(),
                    contents,
                };
                let from = From::Registry(at);
                all.insert(digest.clone(), Item { image, from });
            }
        }
        if let Some(item) = all.get_mut(&digest) {
            item.image.names.append(&mut names);
        }
    }
    let mut all: Vec<Item> = all.into_values().collect();
    all.sort_by(|a, b| a.image.names.cmp(&b.image.names));
    Ok(all)
}

fn is_own(name: &str) -> bool {
    name.strip_prefix(OWN_REGISTRY)
        .is_some_and(|rest| rest.starts_with('/'))
}

/// By digest and without a tag: the name that a runtime looks for.
fn pinned(at: &RegistryReference) -> String {
    let without_tag = RegistryReference {
        tag: None,
        ..at.clone()
    };
    without_tag.name()
}

/// Writes the archive. Blobs of registries go through a file in `folder`, so that no byte is passed on unchecked.
async fn write<W: Write>(
    printer: &Printer,
    out: W,
    items: &[Item],
    own: Option<&Layout>,
    remote: &Remote,
    folder: &Path,
) -> Result<(W, u64), CommandError> {
    let images: Vec<NamedImage> = items.iter().map(|item| item.image.clone()).collect();
    let mut writer = Writer::new(out, &images).map_err(unwritten)?;
    for item in items {
        let contents = &item.image.contents;
        let name = item.image.names.first().map(String::as_str);
        let name = shown_within(name.unwrap_or_default(), 200);
        printer.status(&format!(
            "{name}: {}, {}",
            counted(contents.blobs().count(), "blob"),
            bytes(contents.bytes())
        ));
        let left = contents.left_out().count();
        if left > 0 {
            printer.warn(&format!(
                "{name}: without {}, which may only be had from where the image says; nodes need a way there",
                counted(left, "layer")
            ));
        }
        for (digest, size) in contents.blobs() {
            if writer.has(digest) {
                continue;
            }
            let mut file = match (&item.from, own) {
                (From::Registry(at), _) => {
                    let doing = format!("cannot export {}", at.name());
                    let spooled = remote.spool(at, digest, size, folder).await;
                    spooled.map_err(|error| explained(error, doing))?
                }
                (From::Own, Some(layout)) => layout
                    .open_blob(digest, size)
                    .usage("cannot read the images of this program")?,
                (From::Own, None) => continue,
            };
            writer.blob(digest, size, &mut file).map_err(unwritten)?;
            tokio::task::yield_now().await;
        }
    }
    let (mut out, size) = writer.finish().map_err(unwritten)?;
    out.flush().environment("cannot write the archive")?;
    Ok((out, size))
}

fn unwritten(error: ArchiveError) -> CommandError {
    let error = match error {
        ArchiveError::Io { .. } => CommandError::environment(error),
        other => CommandError::usage(other),
    };
    error.doing("cannot write the archive")
}

fn exported(items: &[Item], file: &Path, bytes: u64) -> Exported {
    let images = items.iter().map(|item| {
        let contents = &item.image.contents;
        ExportedImage {
            names: item.image.names.iter().cloned().collect(),
            digest: contents.root.digest.to_string(),
            platforms: contents.platforms().map(str::to_owned).collect(),
            bytes: contents.bytes(),
            left_out: contents
                .left_out()
                .map(|digest| digest.to_string())
                .collect(),
        }
    });
    Exported {
        file: file.display().to_string(),
        bytes,
        images: images.collect(),
    }
}

fn tell(context: &Context, made: &Exported, json: bool, to_stdout: bool) -> CommandResult {
    let printer = &context.printer;
    if json {
        printer.json(made).bug("cannot write what was exported")?;
        return Ok(Exit::Passed);
    }
    let said = format!(
        "{} in {}, {}",
        counted(made.images.len(), "image"),
        if to_stdout { "the archive" } else { &made.file },
        bytes(made.bytes)
    );
    if to_stdout {
        printer.status(&said);
    } else {
        printer.data(&said);
        printer.data(&format!(
            "on a node:     ctr -n k8s.io images import {}",
            made.file
        ));
        printer.data(&format!(
            "to registries: karat images import {} FOLDER, then karat images push --from FOLDER --config karat.toml",
            made.file
        ));
    }
    Ok(Exit::Passed)
}
