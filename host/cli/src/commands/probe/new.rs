//! `karat probe new`: a project that builds and runs as it is written. Nothing that exists is overwritten.

use super::templates::{self, Template};
use crate::args::{LangArg, ProbeNewArgs};
use crate::commands::Context;
use crate::exit::Exit;
use crate::ui::diagnostics::{Classify as _, CommandError, CommandResult};
use anyhow::anyhow;
use karat_engine::manifest::Manifest;
use std::path::{Path, PathBuf};

/// Writes the project.
pub(crate) fn execute(context: &Context, args: &ProbeNewArgs) -> CommandResult {
    let id = match &args.id {
        Some(id) => id.clone(),
        None => id_of_folder(&args.dir)?,
    };
    let sdk = match args.lang {
        LangArg::Rust => Some(find_sdk(args.sdk.as_deref())?),
        LangArg::Python | LangArg::Js => None,
    };
    let files = files(args.lang, &id, sdk.as_deref())?;
    write(&args.dir, &files)?;
    let printer = &context.printer;
    let dir = args.dir.display();
    printer.data(&dir.to_string());
    printer.status(&format!("wrote probe {id} to {dir}; next:"));
    let tools = match args.lang {
        LangArg::Rust => None,
        LangArg::Python => {
            Some("python3 -m venv .venv && .venv/bin/pip install -r requirements.txt")
        }
        LangArg::Js => Some("npm install"),
    };
    printer.status(&format!("  cd {dir}"));
    if let Some(tools) = tools {
        printer.status(&format!("  {tools}"));
    }
    printer.status("  karat probe build");
    printer.status(&format!(
        "  karat run --probes-from {}.wasm",
        file_name(&id)
    ));
    Ok(Exit::Passed)
}

/// A folder's name is an id but for its spelling.
fn id_of_folder(dir: &Path) -> Result<String, CommandError> {
    let full = std::path::absolute(dir).usage(format!("cannot use {}", dir.display()))?;
    let name = full
        .file_name()
        .and_then(|name| name.to_str())
        .ok_or_else(|| {
            CommandError::usage(anyhow!("{} has no name that could be an id", dir.display()))
                .hint("give the id with --id")
        })?;
    Ok(name.to_ascii_lowercase().replace(['_', ' '], "-"))
}

fn file_name(id: &str) -> String {
    id.replace('/', "_")
}

fn crate_name(id: &str) -> String {
    id.replace(['/', '.'], "-")
}

/// Every file with its text, filled in.
fn files(
    language: LangArg,
    id: &str,
    sdk: Option<&Path>,
) -> Result<Vec<(&'static str, String)>, CommandError> {
    let files: Vec<(&'static str, String)> = templates::of(language)
        .iter()
        .map(|template| (template.path, fill(template, language, id, sdk)))
        .collect();
    // The manifest knows best what an id may look like.
    if let Some((path, text)) = files.iter().find(|(path, _)| *path == "probe.toml") {
        Manifest::parse(text, path)
            .usage(format!("`{id}` cannot be the id of a probe"))
            .map_err(|error| {
                error.hint("give another one with --id: lower-case letters, digits and `-`, or vendor.example/name")
            })?;
    }
    Ok(files)
}

fn fill(template: &Template, language: LangArg, id: &str, sdk: Option<&Path>) -> String {
    let old = templates::id_of(language);
    match template.path {
        "probe.toml" => {
            template
                .text
                .replacen(&format!("id = \"{old}\""), &format!("id = \"{id}\""), 1)
        }
        "package.json" => template.text.replacen(
            &format!("\"name\": \"{old}\""),
            &format!("\"name\": \"{}\"", crate_name(id)),
            1,
        ),
        _ => {
            let dependency = |below: &str| {
                let path = sdk.map_or_else(PathBuf::new, |sdk| sdk.join(below));
                let path = toml::Value::String(path.display().to_string());
                format!("{{ path = {path} }}")
            };
            template
                .text
                .replace("{{id}}", id)
                .replace("{{file}}", &file_name(id))
                .replace("{{crate}}", &crate_name(id))
                .replace("{{karat-sdk}}", &dependency("sdk/rust"))
                .replace("{{karat-sdk-build}}", &dependency("sdk/rust/build"))
        }
    }
}

/// A checkout of Karat: the one that was named, or the one whose build folder this program lies in. The SDK is not published
/// yet, so there is no other place.
fn find_sdk(given: Option<&Path>) -> Result<PathBuf, CommandError> {
    let is_checkout = |folder: &Path| folder.join("sdk/rust/Cargo.toml").is_file();
    if let Some(given) = given {
        let given = std::path::absolute(given).usage("cannot use --sdk")?;
        if is_checkout(&given) {
            return Ok(given);
        }
        return Err(CommandError::usage(anyhow!(
            "{} is no checkout of Karat: it holds no sdk/rust",
            given.display()
        )));
    }
    std::env::current_exe()
        .and_then(|program| program.canonicalize())
        .ok()
        .and_then(|program| program.ancestors().find(|folder| is_checkout(folder)).map(Path::to_owned))
        .ok_or_else(|| {
            CommandError::usage(anyhow!("the Rust SDK was not found")).hint(
                "give a checkout of Karat's source with --sdk; projects in Python and JavaScript need none",
            )
        })
}

fn write(dir: &Path, files: &[(&'static str, String)]) -> Result<(), CommandError> {
    let name = dir.display().to_string();
    let taken = std::fs::read_dir(dir).is_ok_and(|mut content| content.next().is_some());
    if taken || dir.is_file() {
        return Err(CommandError::usage(anyhow!("{name} is not empty"))
            .hint("name a folder that does not exist yet"));
    }
    for (path, text) in files {
        let path = dir.join(path);
        let written = path
            .parent()
            .map_or(Ok(()), std::fs::create_dir_all)
            .and_then(|()| std::fs::write(&path, text));
        written.environment(format!("cannot write {}", path.display()))?;
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::env::Environment;
    use crate::ui::printer::{Paint, Printer, Verbosity};

    fn new(dir: &Path, lang: LangArg, id: Option<&str>) -> Result<Exit, String> {
        let (printer, _) = Printer::captured(Verbosity::Normal);
        let context = Context {
            printer,
            environment: Environment::fixed(&[]),
        };
        let args = ProbeNewArgs {
            lang,
            id: id.map(str::to_owned),
            sdk: Some(Path::new(env!("CARGO_MANIFEST_DIR")).join("../..")),
            dir: dir.to_owned(),
        };
        execute(&context, &args).map_err(|error| error.lines(Paint::Never).join("\n"))
    }

    #[test]
    fn every_language_gets_a_project_of_its_own_name() {
        let folder = tempfile::tempdir().unwrap();
        for (lang, dir, file) in [
            (LangArg::Rust, "fan_speed", "src/lib.rs"),
            (LangArg::Python, "fan-speed-py", "app.py"),
            (LangArg::Js, "Fan-Speed-js", "app.js"),
        ] {
            let dir = folder.path().join(dir);
            new(&dir, lang, None).unwrap();
            assert!(dir.join(file).is_file());
            let text = std::fs::read_to_string(dir.join("probe.toml")).unwrap();
            let manifest = Manifest::parse(&text, "probe.toml").unwrap();
            let name = dir.file_name().unwrap().to_str().unwrap();
            assert_eq!(manifest.id, name.to_lowercase().replace('_', "-"));
            for path in templates::of(lang).iter().map(|template| template.path) {
                let text = std::fs::read_to_string(dir.join(path)).unwrap();
                assert!(!text.contains("{{"), "{path} is not filled in: {text}");
            }
        }
        let cargo = std::fs::read_to_string(folder.path().join("fan_speed/Cargo.toml")).unwrap();
        let cargo: toml::Table = toml::from_str(&cargo).unwrap();
        assert_eq!(cargo["package"]["name"].as_str(), Some("fan-speed"));
        let sdk = cargo["dependencies"]["karat-sdk"]["path"].as_str().unwrap();
        assert!(Path::new(sdk).join("Cargo.toml").is_file(), "{sdk}");
    }

    #[test]
    fn a_vendor_id_makes_names_without_slashes() {
        let folder = tempfile::tempdir().unwrap();
        let dir = folder.path().join("x");
        new(&dir, LangArg::Js, Some("vendor.example/fans")).unwrap();
        let package = std::fs::read_to_string(dir.join("package.json")).unwrap();
        assert!(
            package.contains("\"name\": \"vendor-example-fans\""),
            "{package}"
        );
        let readme = std::fs::read_to_string(dir.join("README.md")).unwrap();
        assert!(readme.contains("vendor.example_fans.wasm"), "{readme}");
    }

    #[test]
    fn nothing_is_overwritten() {
        let folder = tempfile::tempdir().unwrap();
        std::fs::write(folder.path().join("mine"), "x").unwrap();
        let error = new(folder.path(), LangArg::Js, Some("x")).unwrap_err();
        assert!(error.contains("is not empty"), "{error}");
        assert_eq!(std::fs::read_dir(folder.path()).unwrap().count(), 1);
    }

    #[test]
    fn a_bad_id_is_refused_before_anything_is_written() {
        let folder = tempfile::tempdir().unwrap();
        let dir = folder.path().join("x");
        let error = new(&dir, LangArg::Python, Some("../../etc")).unwrap_err();
        assert!(error.contains("cannot be the id of a probe"), "{error}");
        assert!(!dir.exists());
    }
}
