//! `karat probe build`: a project, a core module or a component becomes a component with its manifest inside.
//!
//! The wrapping itself is the engine's ([`karat_engine::package`]); here the compiler of the project's language is found
//! and started. Compilers speak on stderr, as ours does, so stdout stays free.

use crate::args::ProbeBuildArgs;
use crate::commands::Context;
use crate::exit::Exit;
use crate::probes::{read_component, read_limited};
use crate::ui::diagnostics::{Classify as _, CommandError, CommandResult, Hint as _};
use crate::ui::text::{bytes, shown};
use anyhow::anyhow;
use karat_engine::manifest::{MAX_MANIFEST_SIZE, Manifest};
use karat_engine::package;
use karat_registry::Digest;
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};

/// Builds and writes.
pub(crate) fn execute(context: &Context, args: &ProbeBuildArgs) -> CommandResult {
    let manifest_path = args
        .manifest
        .clone()
        .unwrap_or_else(|| args.dir.join("probe.toml"));
    let (manifest, text) = read_manifest(&manifest_path)?;
    let made = match (&args.core, &args.component) {
        (Some(file), _) | (_, Some(file)) => file.clone(),
        (None, None) => {
            let language = Language::of_project(&args.dir)?;
            context.printer.status(&format!(
                "building {} with {}",
                args.dir.display(),
                language.tool()
            ));
            language.build(&args.dir, &manifest)?
        }
    };
    let input = read_component(&made)?;
    if let Some(core) = &args.core {
        expect_core(core, &input)?;
    }
    let component = package::build(&input, &text)
        .usage(format!("cannot make a probe of {}", made.display()))?;
    let output = args.output.clone().unwrap_or_else(|| {
        // A foreign id holds a slash, which no file name can.
        args.dir
            .join(format!("{}.wasm", manifest.id.replace('/', "_")))
    });
    write_atomically(&output, &component)
        .environment(format!("cannot write {}", output.display()))?;
    context.printer.status(&format!(
        "{} {}: {}, {}",
        shown(&manifest.id),
        shown(&manifest.version),
        bytes(component.len() as u64),
        Digest::of(&component)
    ));
    context.printer.data(&output.display().to_string());
    Ok(Exit::Passed)
}

fn read_manifest(path: &Path) -> Result<(Manifest, String), CommandError> {
    let name = path.display().to_string();
    if !path.is_file() {
        return Err(CommandError::usage(anyhow!("there is no manifest {name}")).hint(
            "give the folder of a project, or the manifest with --manifest; `karat probe new` makes a project",
        ));
    }
    let bytes = read_limited(path, MAX_MANIFEST_SIZE as u64)?;
    let text = String::from_utf8(bytes).usage(format!("{name} is not UTF-8"))?;
    let manifest = Manifest::parse(&text, &name).usage(format!("{name} is no manifest"))?;
    Ok((manifest, text))
}

/// `--core` and `--component` do the same; the flag says what the author believes, and a wrong belief is worth a message.
fn expect_core(path: &Path, bytes: &[u8]) -> Result<(), CommandError> {
    if bytes.starts_with(b"\0asm\x0d\0\x01\0") {
        return Err(
            CommandError::usage(anyhow!("{} is a component already", path.display()))
                .hint("give it with --component"),
        );
    }
    Ok(())
}

fn write_atomically(path: &Path, bytes: &[u8]) -> std::io::Result<()> {
    let folder = match path.parent() {
        Some(folder) if !folder.as_os_str().is_empty() => folder,
        _ => Path::new("."),
    };
    std::fs::create_dir_all(folder)?;
    let mut file = tempfile::NamedTempFile::new_in(folder)?;
    std::io::Write::write_all(&mut file, bytes)?;
    file.persist(path).map_err(|error| error.error)?;
    // Temporary files are private; a component is there to be shared.
    #[cfg(unix)]
    {
        use std::os::unix::fs::PermissionsExt as _;
        std::fs::set_permissions(path, std::fs::Permissions::from_mode(0o644))?;
    }
    Ok(())
}

/// What a project is written in.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Language {
    Rust,
    Python,
    Js,
}

impl Language {
    fn of_project(dir: &Path) -> Result<Language, CommandError> {
        let has = |name: &str| dir.join(name).is_file();
        if has("Cargo.toml") {
            return Ok(Language::Rust);
        }
        if has("app.py") {
            return Ok(Language::Python);
        }
        if has("app.js") {
            return Ok(Language::Js);
        }
        Err(CommandError::usage(anyhow!(
            "{} holds neither Cargo.toml nor app.py nor app.js, so its language is not known",
            dir.display()
        ))
        .hint("give a built module with --core, or a component with --component"))
    }

    fn tool(self) -> &'static str {
        match self {
            Language::Rust => "cargo",
            Language::Python => "componentize-py",
            Language::Js => "componentize-qjs",
        }
    }

    /// Runs the compiler; returns the file it made.
    fn build(self, dir: &Path, manifest: &Manifest) -> Result<PathBuf, CommandError> {
        match self {
            Language::Rust => build_rust(dir),
            Language::Python => {
                let tool = find_tool(self.tool(), &[dir.join(".venv/bin"), dir.join("venv/bin")])
                    .hint("install it with `python3 -m venv .venv && .venv/bin/pip install componentize-py`")?;
                let wit = write_world(dir, manifest)?;
                let out = output_file(dir)?;
                let mut command = Command::new(tool);
                // Without `--stub-wasi` the component would import WASI, which a probe does not get.
                command
                    .arg("-d")
                    .arg(&wit)
                    .args([
                        "-w",
                        package::WORLD,
                        "componentize",
                        "app",
                        "--stub-wasi",
                        "-o",
                    ])
                    .arg(&out)
                    .current_dir(dir);
                run(command, self.tool())?;
                Ok(dir.join(out))
            }
            Language::Js => {
                let tool = find_tool(self.tool(), &[dir.join("node_modules/.bin")])
                    .hint("install it with `npm install --save-dev componentize-qjs`")?;
                let wit = write_world(dir, manifest)?;
                let out = output_file(dir)?;
                let mut command = Command::new(tool);
                // `--sync`: the default makes calls that this contract does not have.
                command
                    .arg("-w")
                    .arg(&wit)
                    .args(["-j", "app.js", "-n", package::WORLD])
                    .args(["--sync", "--stub-wasi", "--opt-size", "-m", "-o"])
                    .arg(&out)
                    .current_dir(dir);
                run(command, self.tool())?;
                Ok(dir.join(out))
            }
        }
    }
}

/// The world with only what the manifest asks for: these tools import all of a world. Relative to the project.
fn write_world(dir: &Path, manifest: &Manifest) -> Result<PathBuf, CommandError> {
    let wit = Path::new("target/wit");
    package::write_wit_dir(manifest, &dir.join(wit))
        .environment("cannot write the world of the probe")?;
    Ok(wit.to_owned())
}

fn output_file(dir: &Path) -> Result<PathBuf, CommandError> {
    std::fs::create_dir_all(dir.join("target")).environment("cannot make the folder target")?;
    Ok(PathBuf::from("target/component.wasm"))
}

/// Finds a program in folders of the project, then in PATH. The result is absolute, because the program is started in
/// another folder.
fn find_tool(name: &str, folders: &[PathBuf]) -> Result<PathBuf, CommandError> {
    let path = std::env::var_os("PATH").unwrap_or_default();
    folders
        .iter()
        .cloned()
        .chain(std::env::split_paths(&path))
        .map(|folder| folder.join(name))
        .find(|file| file.is_file())
        .and_then(|file| std::path::absolute(file).ok())
        .ok_or_else(|| {
            CommandError::environment(anyhow!(
                "{name} is neither in the project nor in PATH; it turns the program into a component"
            ))
        })
}

fn run(mut command: Command, name: &str) -> Result<(), CommandError> {
    // What it says belongs to the author, but not among our data.
    let status = command
        .stdin(Stdio::null())
        .stdout(Stdio::from(std::io::stderr()))
        .status()
        .environment(format!("cannot start {name}"))?;
    if status.success() {
        return Ok(());
    }
    Err(CommandError::usage(anyhow!(
        "{name} failed ({status}); its messages stand above"
    )))
}

/// Builds with the author's own cargo and finds the module in its messages, so that workspaces, target folders and names
/// are cargo's business.
fn build_rust(dir: &Path) -> Result<PathBuf, CommandError> {
    let cargo = std::env::var_os("CARGO").unwrap_or_else(|| "cargo".into());
    let mut command = Command::new(&cargo);
    command
        .args(["build", "--lib", "--target", "wasm32-unknown-unknown"])
        .args(["--profile", profile(dir)?])
        .args(["--message-format", "json-render-diagnostics"])
        .current_dir(dir)
        .stdin(Stdio::null())
        .stderr(Stdio::inherit());
    let output = command
        .output()
        .environment("cannot start cargo")
        .hint("install Rust from https://rustup.rs")?;
    if !output.status.success() {
        return Err(CommandError::usage(anyhow!(
            "cargo failed ({}); its messages stand above",
            output.status
        ))
        .hint("if the target is missing: `rustup target add wasm32-unknown-unknown`"));
    }
    let stdout = String::from_utf8_lossy(&output.stdout);
    let mut modules = stdout
        .lines()
        .filter_map(|line| serde_json::from_str::<serde_json::Value>(line).ok())
        .filter(|message| message["reason"] == "compiler-artifact")
        .flat_map(|message| match message["filenames"].as_array() {
            Some(files) => files.clone(),
            None => Vec::new(),
        })
        .filter_map(|file| file.as_str().map(PathBuf::from))
        .filter(|file| {
            file.extension()
                .is_some_and(|extension| extension == "wasm")
        });
    // The project itself comes last, after what it depends on.
    modules.next_back().ok_or_else(|| {
        CommandError::usage(anyhow!("cargo built no module"))
            .hint("the project needs `crate-type = [\"cdylib\"]` below `[lib]`")
    })
}

/// The profile `probe` where the workspace has one, else `release`.
fn profile(dir: &Path) -> Result<&'static str, CommandError> {
    let dir = dir
        .canonicalize()
        .usage(format!("cannot open {}", dir.display()))?;
    for folder in dir.ancestors() {
        let Ok(text) = std::fs::read_to_string(folder.join("Cargo.toml")) else {
            continue;
        };
        let has_profile = toml::from_str::<toml::Table>(&text).is_ok_and(|table| {
            table
                .get("profile")
                .and_then(|profiles| profiles.get("probe"))
                .is_some()
        });
        if has_profile {
            return Ok("probe");
        }
    }
    Ok("release")
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::ui::printer::{Paint, Printer, Verbosity};
    use crate::ui::samples::manifest_text;

    fn build(args: ProbeBuildArgs) -> (Result<Exit, String>, String) {
        let (printer, captured) = Printer::captured(Verbosity::Normal);
        let context = Context {
            printer,
            environment: crate::env::Environment::fixed(&[]),
        };
        let result = execute(&context, &args).map_err(|error| error.lines(Paint::Never).join("\n"));
        (result, captured.out())
    }

    fn args(dir: &Path) -> ProbeBuildArgs {
        ProbeBuildArgs {
            dir: dir.to_owned(),
            core: None,
            component: None,
            manifest: None,
            output: None,
        }
    }

    #[test]
    fn a_folder_without_a_manifest_says_what_to_do() {
        let folder = tempfile::tempdir().unwrap();
        let (result, _) = build(args(folder.path()));
        let text = result.unwrap_err();
        let text = text.replace(&folder.path().display().to_string(), "[dir]");
        assert!(
            text.starts_with("error: there is no manifest [dir]/probe.toml"),
            "{text}"
        );
        assert!(text.contains("karat probe new"), "{text}");
    }

    #[test]
    fn a_mistake_in_the_manifest_is_shown_with_its_place() {
        let folder = tempfile::tempdir().unwrap();
        let text = manifest_text("a", "0.1.0", "r").replace("reach =", "raech =");
        std::fs::write(folder.path().join("probe.toml"), text).unwrap();
        let (result, _) = build(args(folder.path()));
        let text = result.unwrap_err();
        assert!(text.contains("raech"), "{text}");
        assert!(text.contains(" | "), "the line is quoted: {text}");
    }

    #[test]
    fn a_project_of_unknown_language_is_refused() {
        let folder = tempfile::tempdir().unwrap();
        std::fs::write(
            folder.path().join("probe.toml"),
            manifest_text("a", "0.1.0", "r"),
        )
        .unwrap();
        let (result, _) = build(args(folder.path()));
        assert!(result.unwrap_err().contains("--core"));
    }

    #[test]
    fn a_component_given_as_core_is_refused() {
        let folder = tempfile::tempdir().unwrap();
        std::fs::write(
            folder.path().join("probe.toml"),
            manifest_text("a", "0.1.0", "r"),
        )
        .unwrap();
        let file = folder.path().join("x.wasm");
        std::fs::write(&file, b"\0asm\x0d\0\x01\0").unwrap();
        let (result, _) = build(ProbeBuildArgs {
            core: Some(file),
            ..args(folder.path())
        });
        assert!(result.unwrap_err().contains("give it with --component"));
    }

    #[test]
    fn missing_tools_say_how_to_get_them() {
        let error = find_tool("componentize-nothing", &[PathBuf::from("/nowhere")]).unwrap_err();
        assert_eq!(error.exit().code(), 4);
    }

    #[test]
    fn tools_of_the_project_come_first() {
        let folder = tempfile::tempdir().unwrap();
        std::fs::write(folder.path().join("sh"), "").unwrap();
        let found = find_tool("sh", &[folder.path().to_owned()]).unwrap();
        assert_eq!(found, folder.path().join("sh"));
        assert!(find_tool("sh", &[]).is_ok());
    }

    #[test]
    fn the_profile_is_the_workspaces() {
        let folder = tempfile::tempdir().unwrap();
        let inner = folder.path().join("a/b");
        std::fs::create_dir_all(&inner).unwrap();
        assert_eq!(profile(&inner).unwrap(), "release");
        std::fs::write(
            folder.path().join("Cargo.toml"),
            "[profile.probe]\ninherits = \"release\"\n",
        )
        .unwrap();
        assert_eq!(profile(&inner).unwrap(), "probe");
    }

    #[test]
    fn writing_replaces_at_once_and_can_be_read_by_others() {
        let folder = tempfile::tempdir().unwrap();
        let file = folder.path().join("deep/x.wasm");
        write_atomically(&file, b"one").unwrap();
        write_atomically(&file, b"two").unwrap();
        assert_eq!(std::fs::read(&file).unwrap(), b"two");
        assert_eq!(
            std::fs::read_dir(folder.path().join("deep"))
                .unwrap()
                .count(),
            1
        );
    }
}
