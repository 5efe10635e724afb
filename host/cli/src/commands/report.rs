//! `karat report`: what a finished run says, as files or on stdout. Everything is written by the engine from the folder alone;
//! this file only says where it goes.

use super::Context;
use crate::args::{ReportArgs, ReportFormat};
use crate::exit::Exit;
use crate::ui::diagnostics::{Classify as _, CommandError, CommandResult};
use crate::ui::text::{counted, shown};
use karat_engine::report::{self, File, Format, Report};
use karat_engine::runfolder::FolderError;
use std::fs;
use std::io::Write as _;
use std::path::{Path, PathBuf};

/// Writes a report.
pub(crate) fn execute(context: &Context, args: &ReportArgs) -> CommandResult {
    let printer = &context.printer;
    let report = report::open(&args.folder).map_err(cannot_open)?;
    let files = files(&report, args.to)?;
    match &args.out {
        None => {
            for file in &files {
                // A report on stdout is the file itself; its text is harmless for a terminal or meant for a file.
                printer.data(String::from_utf8_lossy(&file.bytes).trim_end_matches('\n'));
            }
        }
        Some(out) => {
            let is_folder = matches!(args.to, ReportFormat::Markdown | ReportFormat::All);
            for file in &files {
                let path = if is_folder {
                    out.join(&file.path)
                } else {
                    out.clone()
                };
                write(&path, &file.bytes)?;
            }
            let what = if files.len() == 1 {
                shown(&out.display().to_string())
            } else {
                format!(
                    "{} in {}",
                    counted(files.len(), "file"),
                    shown(&out.display().to_string())
                )
            };
            printer.status(&format!("wrote {what}"));
        }
    }
    for problem in &report.problems {
        printer.warn(&format!(
            "{}: {}",
            problem.place.line(200),
            problem.what.line(400)
        ));
    }
    Ok(if report.problems.is_empty() {
        Exit::Passed
    } else {
        Exit::Unclear
    })
}

fn files(report: &Report, format: ReportFormat) -> Result<Vec<File>, CommandError> {
    let one = match format {
        ReportFormat::Terminal => Format::Terminal,
        ReportFormat::Html => Format::Html,
        ReportFormat::Json => Format::Json,
        ReportFormat::Junit => Format::Junit,
        ReportFormat::E2eLog => Format::E2eLog,
        ReportFormat::Results => Format::Results,
        ReportFormat::Markdown => Format::Markdown,
        ReportFormat::All => {
            let mut files = Vec::new();
            for format in Format::ALL {
                if format != Format::Terminal {
                    files.extend(report::render(report, format).bug("cannot write the report")?);
                }
            }
            return Ok(files);
        }
    };
    report::render(report, one).bug("cannot write the report")
}

fn cannot_open(error: FolderError) -> CommandError {
    let no_run = matches!(error, FolderError::NoRun { .. });
    let error = CommandError::usage(error);
    if no_run {
        error.hint("give the output folder of a run, or a bundle; `karat run` names it at the end")
    } else {
        error
    }
}

/// Writes a file as a whole: an older report stays until the new one is there.
pub(super) fn write(path: &Path, bytes: &[u8]) -> Result<(), CommandError> {
    let name = path.display().to_string();
    let folder = match path.parent() {
        Some(folder) if !folder.as_os_str().is_empty() => folder.to_path_buf(),
        _ => PathBuf::from("."),
    };
    fs::create_dir_all(&folder).environment(format!("cannot create {}", folder.display()))?;
    let mut file = tempfile::NamedTempFile::new_in(&folder)
        .environment(format!("cannot write into {}", folder.display()))?;
    file.write_all(bytes)
        .environment(format!("cannot write {name}"))?;
    #[cfg(unix)]
    {
        // A temporary file is for its owner alone; a report is for others too.
        let mode = std::os::unix::fs::PermissionsExt::from_mode(0o644);
        fs::set_permissions(file.path(), mode).environment(format!("cannot write {name}"))?;
    }
    file.persist(path)
        .environment(format!("cannot write {name}"))?;
    Ok(())
}
