//! `karat images import`: an archive from somewhere becomes a folder, if every byte of it is what it claims.

use super::Stop;
use crate::args::ImagesImportArgs;
use crate::commands::{Context, block_on};
use crate::exit::Exit;
use crate::ui::diagnostics::{Classify as _, CommandError, CommandResult};
use crate::ui::text::{bytes, counted, shown_within};
use karat_registry::archive::{ArchiveError, unpack};
use serde::Serialize;
use std::fs::File;
use std::io::{BufReader, Read};
use std::path::Path;

#[derive(Serialize)]
struct Imported {
    folder: String,
    images: Vec<ImportedImage>,
}

#[derive(Serialize)]
struct ImportedImage {
    names: Vec<String>,
    digest: String,
    bytes: u64,
}

/// Imports.
pub(crate) fn execute(context: &Context, args: &ImagesImportArgs) -> CommandResult {
    let doing = format!("cannot import {}", args.file.display());
    let images = block_on(Stop::around("nothing was written", async |stop: Stop| {
        let input: Box<dyn Read + Send> = if args.file == Path::new("-") {
            Box::new(std::io::stdin())
        } else {
            Box::new(File::open(&args.file).usage(doing.clone())?)
        };
        let input = stop.around_stream(BufReader::new(input));
        let to = args.folder.clone();
        // After a signal it ends at its next read, and removes what it wrote.
        let (sent, done) = tokio::sync::oneshot::channel();
        std::thread::spawn(move || {
            let _ = sent.send(unpack(input, &to));
        });
        let done = done.await.bug("the reader of the archive ended")?;
        done.map_err(|error| refused(error, doing.clone()))
    }))??;
    let made = Imported {
        folder: args.folder.display().to_string(),
        images: images
            .iter()
            .map(|image| ImportedImage {
                names: image.names.iter().cloned().collect(),
                digest: image.contents.root.digest.to_string(),
                bytes: image.contents.bytes(),
            })
            .collect(),
    };
    let printer = &context.printer;
    if args.json {
        printer.json(&made).bug("cannot write what was imported")?;
        return Ok(Exit::Passed);
    }
    for image in &made.images {
        let name = image.names.first().map(String::as_str).unwrap_or_default();
        printer.status(&format!(
            "{}: {}",
            shown_within(name, 200),
            bytes(image.bytes)
        ));
    }
    printer.data(&format!(
        "{} in {}, an OCI image layout",
        counted(made.images.len(), "image"),
        made.folder
    ));
    Ok(Exit::Passed)
}

fn refused(error: ArchiveError, doing: String) -> CommandError {
    match error {
        ArchiveError::Io { .. } => CommandError::environment(error).doing(doing),
        ArchiveError::Occupied(_) => CommandError::usage(error).doing(doing),
        other => CommandError::usage(other)
            .doing(doing)
            .hint("make it again with `karat images export`, and copy it whole"),
    }
}
