//! How wasm is compiled here: with the toolchain's own target, or, where none can be had, with a standard library
//! compiled from a distribution's sources. Both give a module without any import of WASI.

use std::ffi::OsString;
use std::path::{Path, PathBuf};
use std::process::Command;

use anyhow::{Context as _, Result, bail};

use crate::say::say;
use crate::workspace::{cargo, root};

/// The target of all guests.
pub(crate) const TARGET: &str = "wasm32-unknown-unknown";

/// Forces one way: `rustup` or `fallback`.
const CHOICE: &str = "KARAT_WASM_TARGET";

/// First release of a distribution compiler that can build this workspace.
const OLDEST: (u32, u32) = (1, 95);

/// How to call cargo for [`TARGET`].
#[derive(Debug, Default)]
pub(crate) struct WasmBuild {
    /// Name for messages.
    pub(crate) how: String,
    /// Environment to add.
    pub(crate) env: Vec<(OsString, OsString)>,
    /// Arguments to add.
    pub(crate) args: Vec<&'static str>,
    /// A folder below the build folder, because the two ways must not share objects.
    pub(crate) folder: &'static str,
}

/// Makes sure that wasm can be compiled, installing the target if that is possible.
///
/// # Errors
/// Neither way works; the message says why and what to install.
pub(crate) fn ensure_wasm_target() -> Result<WasmBuild> {
    let choice = std::env::var(CHOICE).unwrap_or_default();
    if !matches!(choice.as_str(), "" | "rustup" | "fallback") {
        bail!("{CHOICE}={choice}: use `rustup` or `fallback`, or unset it");
    }
    let mut why_not = Vec::new();
    if choice != "fallback" {
        match native() {
            Ok(build) => return Ok(build),
            Err(why) => why_not.push(why.to_string()),
        }
    }
    if choice != "rustup" {
        match fallback() {
            Ok(build) => return Ok(build),
            Err(why) => why_not.push(why.to_string()),
        }
    }
    bail!(
        "cannot compile for {TARGET}: {}; with network access run `rustup target add {TARGET}`, on Debian install `rustc-web rust-web-src lld`",
        why_not.join("; ")
    )
}

fn native() -> Result<WasmBuild> {
    let sysroot = PathBuf::from(output(Command::new("rustc").args(["--print", "sysroot"]))?);
    let build = WasmBuild {
        how: format!("{TARGET} of the toolchain"),
        folder: "guests",
        ..WasmBuild::default()
    };
    if has_target(&sysroot) {
        return Ok(build);
    }
    say(&format!("    rustup target add {TARGET}"));
    let status = Command::new("rustup")
        .args(["target", "add", TARGET])
        .current_dir(root())
        .status()
        .context("rustup: cannot be started")?;
    if status.success() && has_target(&sysroot) {
        Ok(build)
    } else {
        bail!("rustup target add {TARGET}: {status}")
    }
}

fn has_target(sysroot: &Path) -> bool {
    let lib = sysroot.join("lib/rustlib").join(TARGET).join("lib");
    std::fs::read_dir(lib).is_ok_and(|mut entries| {
        entries.any(|e| e.is_ok_and(|e| e.file_name().to_string_lossy().starts_with("libstd-")))
    })
}

/// The distribution's compiler with the distribution's library sources; cargo is still ours.
fn fallback() -> Result<WasmBuild> {
    let rustc = PathBuf::from("/usr/bin/rustc");
    let version =
        output(Command::new(&rustc).arg("--version")).context("no rustc of the distribution")?;
    if release(&version).is_none_or(|v| v < OLDEST) {
        bail!(
            "{}: {version} is older than {}.{}",
            rustc.display(),
            OLDEST.0,
            OLDEST.1
        );
    }
    let sysroot = PathBuf::from(output(Command::new(&rustc).args(["--print", "sysroot"]))?);
    let sources = sysroot.join("lib/rustlib/src/rust/library/std/Cargo.toml");
    if !sources.exists() {
        bail!(
            "{}: the sources of the standard library are missing",
            sources.display()
        );
    }
    let linker = linker().context("no linker for wasm (rust-lld or wasm-ld)")?;
    let env: [(&str, OsString); 3] = [
        ("RUSTC", rustc.into()),
        ("RUSTC_BOOTSTRAP", "1".into()),
        ("CARGO_TARGET_WASM32_UNKNOWN_UNKNOWN_LINKER", linker.into()),
    ];
    Ok(WasmBuild {
        how: format!("standard library compiled by {version}"),
        env: env.into_iter().map(|(k, v)| (k.into(), v)).collect(),
        args: vec!["-Zbuild-std=std,panic_abort"],
        folder: "guests-build-std",
    })
}

fn linker() -> Option<PathBuf> {
    let toolchain = output(Command::new("rustc").args(["--print", "target-libdir"]))
        .ok()
        .map(PathBuf::from);
    let bundled = toolchain.and_then(|lib| Some(lib.parent()?.join("bin/rust-lld")));
    let path = std::env::var_os("PATH").unwrap_or_default();
    let installed =
        std::env::split_paths(&path).flat_map(|dir| [dir.join("rust-lld"), dir.join("wasm-ld")]);
    bundled.into_iter().chain(installed).find(|p| p.is_file())
}

/// `rustc 1.96.0 (…)` → (1, 96).
fn release(version: &str) -> Option<(u32, u32)> {
    let mut parts = version.split_whitespace().nth(1)?.split('.');
    Some((parts.next()?.parse().ok()?, parts.next()?.parse().ok()?))
}

fn output(command: &mut Command) -> Result<String> {
    let output = command.current_dir(root()).output().with_context(|| {
        format!(
            "{}: cannot be started",
            command.get_program().to_string_lossy()
        )
    })?;
    if !output.status.success() {
        bail!(
            "{}: {}",
            command.get_program().to_string_lossy(),
            output.status
        );
    }
    Ok(String::from_utf8_lossy(&output.stdout).trim().to_owned())
}

impl WasmBuild {
    /// `cargo build` of these packages with the profile for probes, into a folder of its own.
    pub(crate) fn command(&self, packages: &[&str]) -> Command {
        let mut command = cargo();
        // A person's RUSTFLAGS are for the host; a `-C target-cpu=native` among them would break the build.
        command
            .env_remove("RUSTFLAGS")
            .envs(self.env.iter().cloned());
        command
            .args(["build", "--profile", "probe", "--target", TARGET, "--lib"])
            .args(&self.args);
        command
            .arg("--target-dir")
            .arg(crate::workspace::target().join(self.folder));
        for package in packages {
            command.args(["-p", package]);
        }
        command
    }

    /// Where cargo puts a module.
    pub(crate) fn module(&self, name: &str) -> PathBuf {
        crate::workspace::target()
            .join(self.folder)
            .join(TARGET)
            .join("probe")
            .join(format!("{name}.wasm"))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn releases_are_compared_as_numbers() {
        assert_eq!(
            release("rustc 1.96.0 (ac68faa20 2026-05-25) (built from a source tarball)"),
            Some((1, 96))
        );
        assert!(release("rustc 1.100.0-nightly").unwrap() > OLDEST);
        assert_eq!(release("nonsense"), None);
    }

    #[test]
    fn a_build_keeps_to_its_own_folder() {
        let build = WasmBuild {
            folder: "guests-build-std",
            args: vec!["-Zbuild-std=std,panic_abort"],
            ..WasmBuild::default()
        };
        let text = crate::workspace::shown(&build.command(&["probe-a"]));
        assert!(
            text.contains("--target wasm32-unknown-unknown")
                && text.contains("-Zbuild-std")
                && text.contains("guests-build-std")
                && text.ends_with("-p probe-a"),
            "{text}"
        );
        assert!(
            build
                .module("a")
                .ends_with("guests-build-std/wasm32-unknown-unknown/probe/a.wasm")
        );
    }
}
