//! The repository and its cargo: where things are, and which packages become wasm.

use std::path::{Path, PathBuf};
use std::process::Command;

use anyhow::{Context as _, Result, bail};
use serde_json::Value;

/// The repository's root.
pub(crate) fn root() -> PathBuf {
    let here = Path::new(env!("CARGO_MANIFEST_DIR"));
    here.parent().unwrap_or(here).to_owned()
}

/// A cargo command at the root, with the cargo that runs us.
pub(crate) fn cargo() -> Command {
    let mut command = Command::new(std::env::var_os("CARGO").unwrap_or_else(|| "cargo".into()));
    command.current_dir(root());
    // Set by the cargo that started us; they would otherwise leak into builds and rebuild everything.
    for (name, _) in std::env::vars_os() {
        let text = name.to_string_lossy();
        if text.starts_with("CARGO_PKG_")
            || text.starts_with("CARGO_MANIFEST_")
            || text == "CARGO_BIN_NAME"
            || text == "CARGO_CRATE_NAME"
        {
            command.env_remove(&name);
        }
    }
    command
}

/// The build folder.
pub(crate) fn target() -> PathBuf {
    std::env::var_os("CARGO_TARGET_DIR")
        .map_or_else(|| root().join("target"), |dir| root().join(dir))
}

/// Runs a command whose output the reader sees.
pub(crate) fn run(command: &mut Command) -> Result<()> {
    let shown = shown(command);
    let status = command
        .status()
        .with_context(|| format!("{shown}: cannot be started"))?;
    if !status.success() {
        bail!("{shown}: {status}");
    }
    Ok(())
}

/// A command as one would type it.
pub(crate) fn shown(command: &Command) -> String {
    let words = std::iter::once(command.get_program()).chain(command.get_args());
    let mut words: Vec<String> = words.map(|w| w.to_string_lossy().into_owned()).collect();
    if let Some(name) = Path::new(&words[0]).file_name() {
        words[0] = name.to_string_lossy().into_owned();
    }
    words.join(" ")
}

/// What becomes of a package's wasm module.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Use {
    /// A requirement's probe: wrapped, and put into the layout of built-in probes.
    BuiltIn,
    /// An example: wrapped.
    Example,
    /// A guest of the tests: wrapped if it has a manifest.
    Guest,
}

/// A package that is built for wasm.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Guest {
    /// Package name.
    pub(crate) package: String,
    /// File name of the module without extension.
    pub(crate) module: String,
    /// Its manifest; none for guests that the tests wrap themselves.
    pub(crate) manifest: Option<PathBuf>,
    /// What it is for.
    pub(crate) purpose: Use,
}

/// Asks cargo for all packages that are built for wasm.
pub(crate) fn guests() -> Result<Vec<Guest>> {
    let output = cargo()
        .args(["metadata", "--format-version=1", "--no-deps"])
        .output()
        .context("cargo metadata: cannot be started")?;
    if !output.status.success() {
        bail!(
            "cargo metadata: {}",
            String::from_utf8_lossy(&output.stderr).trim()
        );
    }
    let metadata = serde_json::from_slice(&output.stdout).context("cargo metadata: not JSON")?;
    guests_of(&metadata, &root())
}

/// A guest is a package with a `cdylib` that has a `probe.toml` or says `[package.metadata.karat]`.
fn guests_of(metadata: &Value, root: &Path) -> Result<Vec<Guest>> {
    let mut all = Vec::new();
    for package in metadata["packages"].as_array().into_iter().flatten() {
        let name = package["name"].as_str().unwrap_or_default().to_owned();
        let is_cdylib = |t: &&Value| {
            t["kind"]
                .as_array()
                .is_some_and(|k| k.iter().any(|k| k == "cdylib"))
        };
        let Some(library) = package["targets"]
            .as_array()
            .and_then(|t| t.iter().find(is_cdylib))
        else {
            continue;
        };
        let dir = Path::new(package["manifest_path"].as_str().unwrap_or_default())
            .parent()
            .unwrap_or(root)
            .to_owned();
        let said = &package["metadata"]["karat"];
        let manifest = match said["manifest"].as_str() {
            Some(file) => Some(dir.join(file)),
            None if said["core-only"] == true => None,
            None => Some(dir.join("probe.toml")).filter(|p| p.is_file()),
        };
        if manifest.is_none() && said.is_null() {
            continue;
        }
        if let Some(manifest) = manifest.as_ref().filter(|m| !m.is_file()) {
            bail!(
                "package {name}: its manifest {} does not exist",
                manifest.display()
            );
        }
        let place = dir.strip_prefix(root).unwrap_or(&dir);
        let purpose = if place.starts_with("probes") {
            Use::BuiltIn
        } else if place.starts_with("tests") {
            Use::Guest
        } else {
            Use::Example
        };
        let module = library["name"]
            .as_str()
            .unwrap_or_default()
            .replace('-', "_");
        all.push(Guest {
            package: name,
            module,
            manifest,
            purpose,
        });
    }
    all.sort_by(|a, b| a.package.cmp(&b.package));
    Ok(all)
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::json;

    fn package(root: &Path, dir: &str, kind: &str, karat: Value) -> Value {
        std::fs::create_dir_all(root.join(dir)).unwrap();
        json!({ "name": dir.replace('/', "-"), "manifest_path": root.join(dir).join("Cargo.toml"), "metadata": { "karat": karat },
                "targets": [{ "kind": [kind], "name": dir.rsplit('/').next() }] })
    }

    #[test]
    fn guests_are_found_by_manifest_or_metadata() {
        let dir = tempfile::tempdir().unwrap();
        let root = dir.path();
        let packages = vec![
            package(root, "probes/a-b", "cdylib", Value::Null),
            package(
                root,
                "tests/guests/loop",
                "cdylib",
                json!({ "core-only": true }),
            ),
            package(
                root,
                "examples/x",
                "cdylib",
                json!({ "manifest": "other.toml" }),
            ),
            package(root, "host", "lib", Value::Null),
            package(root, "sdk", "cdylib", Value::Null),
        ];
        std::fs::write(root.join("probes/a-b/probe.toml"), "").unwrap();
        std::fs::write(root.join("examples/x/other.toml"), "").unwrap();
        let all = guests_of(&json!({ "packages": packages }), root).unwrap();
        let short: Vec<_> = all
            .iter()
            .map(|g| {
                (
                    g.package.as_str(),
                    g.module.as_str(),
                    g.manifest.is_some(),
                    g.purpose,
                )
            })
            .collect();
        assert_eq!(
            short,
            [
                ("examples-x", "x", true, Use::Example),
                ("probes-a-b", "a_b", true, Use::BuiltIn),
                ("tests-guests-loop", "loop", false, Use::Guest)
            ]
        );
    }

    #[test]
    fn a_promised_manifest_must_exist() {
        let dir = tempfile::tempdir().unwrap();
        let packages = vec![package(
            dir.path(),
            "probes/a",
            "cdylib",
            json!({ "manifest": "gone.toml" }),
        )];
        let error = guests_of(&json!({ "packages": packages }), dir.path())
            .unwrap_err()
            .to_string();
        assert!(
            error.contains("probes-a") && error.contains("gone.toml"),
            "{error}"
        );
    }

    #[test]
    fn this_repository_has_probes() {
        assert!(guests().unwrap().iter().any(|g| g.purpose == Use::BuiltIn));
    }
}
