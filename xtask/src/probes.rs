//! Compiles guests for wasm, wraps them with the program, and writes the layout of built-in probes.
//!
//! Results, all below the build folder: `probes/` is the OCI image layout that the program finds by itself,
//! `components/` has every wrapped component as a file, `hostile-guests/` the guests of the tests: `NAME.wasm` where the
//! guest has a manifest, `NAME.core.wasm` where the tests wrap it themselves.

use std::fs;
use std::path::{Path, PathBuf};

use anyhow::{Context as _, Result, bail};
use karat_registry::layout::Layout;

use crate::say::say;
use crate::timing::step;
use crate::wasm::ensure_wasm_target;
use crate::workspace::{Guest, Use, cargo, guests, run, target};

/// What was built.
#[derive(Debug)]
pub(crate) struct Built {
    /// The program.
    pub(crate) karat: PathBuf,
}

/// Builds everything that is wasm.
pub(crate) fn build_all() -> Result<Built> {
    let wasm = step(
        "wasm target",
        "`rustup target add wasm32-unknown-unknown`",
        || {
            let wasm = ensure_wasm_target()?;
            say(&format!("    {}", wasm.how));
            Ok(wasm)
        },
    )?;
    let guests = guests()?;
    step(
        "compile guests for wasm",
        "the compiler's message above",
        || {
            let names: Vec<&str> = guests.iter().map(|g| g.package.as_str()).collect();
            run(&mut wasm.command(&names))
        },
    )?;
    let karat = build_program()?;
    step(
        "wrap guests and write the layout",
        "`cargo xtask probes` alone, and the message above",
        || {
            let components = target().join("components");
            let hostile = target().join("hostile-guests");
            for dir in [&components, &hostile] {
                fs::create_dir_all(dir).with_context(|| dir.display().to_string())?;
            }
            let mut built_in = Vec::new();
            for guest in &guests {
                let core = wasm.module(&guest.module);
                match (&guest.manifest, guest.purpose) {
                    (None, _) => {
                        let to = hostile.join(format!("{}.core.wasm", guest.package));
                        fs::copy(&core, &to)
                            .with_context(|| format!("{} to {}", core.display(), to.display()))?;
                    }
                    (Some(manifest), Use::Guest) => wrap(
                        &karat,
                        &core,
                        manifest,
                        &hostile.join(format!("{}.wasm", guest.package)),
                    )?,
                    (Some(manifest), purpose) => {
                        let to = components.join(format!("{}.wasm", guest.package));
                        wrap(&karat, &core, manifest, &to)?;
                        if purpose == Use::BuiltIn {
                            built_in.push((guest, manifest.as_path(), to));
                        }
                    }
                }
            }
            write_layout(&target().join("probes"), &built_in)
        },
    )?;
    Ok(Built { karat })
}

/// Builds the program with the development profile, whose hot dependencies are optimised.
///
/// `--workspace` chooses the same features as `cargo test --workspace`; without it the engine would be compiled twice.
pub(crate) fn build_program() -> Result<PathBuf> {
    step("build the program", "the compiler's message above", || {
        run(cargo().args(["build", "--workspace", "--bin", "karat"]))
    })?;
    Ok(target().join("debug/karat"))
}

/// Wraps a core module into a component that holds its manifest.
fn wrap(karat: &Path, core: &Path, manifest: &Path, to: &Path) -> Result<()> {
    let mut command = std::process::Command::new(karat);
    command
        .args(["probe", "build", "--core"])
        .arg(core)
        .arg("--manifest")
        .arg(manifest)
        .arg("-o")
        .arg(to);
    run(&mut command).with_context(|| format!("{} with {}", core.display(), manifest.display()))?;
    if !to.is_file() {
        bail!(
            "{}: `karat probe build` reported success but wrote nothing",
            to.display()
        );
    }
    Ok(())
}

/// Writes the layout anew beside the old one and swaps them, so that a run in progress never sees half of it.
fn write_layout(dir: &Path, components: &[(&Guest, &Path, PathBuf)]) -> Result<()> {
    let fresh = dir.with_extension("new");
    if fresh.exists() {
        fs::remove_dir_all(&fresh).with_context(|| fresh.display().to_string())?;
    }
    let layout = Layout::create(&fresh)?;
    for (guest, manifest, component) in components {
        let (id, version) = identity(manifest)?;
        let bytes = fs::read(component).with_context(|| component.display().to_string())?;
        let digest = layout.put_component(&id, &version, &bytes)?;
        say(&format!(
            "    {} {version}: {} bytes, {digest} ({})",
            id,
            bytes.len(),
            guest.package
        ));
    }
    if dir.exists() {
        fs::remove_dir_all(dir).with_context(|| dir.display().to_string())?;
    }
    fs::rename(&fresh, dir).with_context(|| dir.display().to_string())
}

/// Id and version from a manifest that the program has already accepted.
fn identity(manifest: &Path) -> Result<(String, String)> {
    let text = fs::read_to_string(manifest).with_context(|| manifest.display().to_string())?;
    let value: toml::Table =
        toml::from_str(&text).with_context(|| manifest.display().to_string())?;
    let field = |name: &str| {
        value
            .get(name)
            .and_then(toml::Value::as_str)
            .map(str::to_owned)
            .with_context(|| format!("{}: `{name}` is missing", manifest.display()))
    };
    Ok((field("id")?, field("version")?))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_manifest_without_a_version_is_named() {
        let file = tempfile::NamedTempFile::new().unwrap();
        fs::write(file.path(), "id = \"a\"\n").unwrap();
        let error = identity(file.path()).unwrap_err().to_string();
        assert!(error.contains("`version` is missing"), "{error}");
    }
}
