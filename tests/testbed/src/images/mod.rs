//! Images of our own: one static program, one layer, one OCI layout, made without a container engine and without a
//! registry.
//!
//! The same sources with the same compiler give the same digests, wherever the repository lies: paths are mapped, times and
//! owners are zero, nothing is compressed. `build` compiles, `layout` writes. Nothing here pulls or pushes.

mod layout;
mod tar;

use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};

use crate::error::{Result, TestbedError};
use crate::gobuild::Progress;
use crate::supervise::{describe, die_with_parent};

/// Holds a pod's namespaces.
pub const PAUSE: &str = "karat.local/pause:1";
/// The program; the pod says which command.
pub const TOOL: &str = "karat.local/tool:1";
/// Answers HTTP requests with what was asked.
pub const ECHO: &str = "karat.local/echo:1";
/// Serves metrics whose values can be set.
pub const METRICS: &str = "karat.local/metrics:1";

/// Path of the program in all images.
pub const PROGRAM: &str = "/bin/tool";

/// The package that is compiled, and the profile for small programs.
const PACKAGE: &str = "karat-tool";
const PROFILE: &str = "probe";

/// Name, and what follows the program when nothing else is said: arguments that stay, then those a pod replaces.
const ALL: [(&str, &[&str], &[&str]); 4] = [
    (PAUSE, &["pause"], &[]),
    (TOOL, &[], &["help"]),
    (ECHO, &["echo"], &["8080"]),
    (METRICS, &["metrics"], &["8080"]),
];

/// Images that were built.
#[derive(Clone, Debug)]
pub struct Images {
    /// Folder with the OCI layout of all.
    pub layout: PathBuf,
    /// The same as one archive, which containerd imports.
    pub archive: PathBuf,
    /// Each image, in the order of the layout.
    pub images: Vec<Image>,
}

/// One image.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Image {
    /// Full name with tag.
    pub name: String,
    /// Digest of its manifest.
    pub digest: String,
}

impl Image {
    /// The name by which a pod asks for exactly this content.
    #[must_use]
    pub fn pinned(&self) -> String {
        let repository = self.name.rsplit_once(':').map_or(&*self.name, |(r, _)| r);
        format!("{repository}@{}", self.digest)
    }
}

/// Builds the images into the build folder of this repository. Quick when nothing has changed.
///
/// # Errors
/// The compiler has no target for static programs and cannot get it, or the program does not compile.
pub fn build(progress: impl Fn(&str) + Sync) -> Result<Images> {
    provide(&progress)
}

/// The same into another folder, which shares nothing with the first: for the proof that both are equal.
///
/// # Errors
/// As [`build`].
pub fn build_into(folder: &Path, progress: impl Fn(&str) + Sync) -> Result<Images> {
    make(folder, &progress)
}

pub(crate) fn provide(progress: Progress<'_>) -> Result<Images> {
    let target = std::env::var_os("CARGO_TARGET_DIR")
        .map_or_else(|| root().join("target"), |dir| root().join(dir));
    make(&target.join("images"), progress)
}

fn make(folder: &Path, progress: Progress<'_>) -> Result<Images> {
    let program = compile(folder, progress)?;
    let binary = std::fs::read(&program).map_err(TestbedError::io(&program))?;
    let images: Vec<layout::Source<'_>> = ALL
        .iter()
        .map(|(name, entrypoint, cmd)| layout::Source {
            name,
            entrypoint: [&[PROGRAM][..], entrypoint].concat(),
            cmd: cmd.to_vec(),
        })
        .collect();
    layout::write(folder, &binary, &images)
}

fn root() -> PathBuf {
    let here = Path::new(env!("CARGO_MANIFEST_DIR"));
    here.ancestors().nth(2).unwrap_or(here).to_owned()
}

/// The target without a dynamic linker and without the name service of glibc, which a static program cannot use.
#[must_use]
pub fn target() -> String {
    format!("{}-unknown-linux-musl", std::env::consts::ARCH)
}

/// Makes sure that the compiler has [`target`], asking rustup for it if need be.
///
/// # Errors
/// It has not, and rustup cannot be asked or refuses.
pub fn ensure_target() -> Result<()> {
    let target = target();
    let has = || {
        let output = Command::new("rustc")
            .args(["--print", "sysroot"])
            .current_dir(root())
            .output();
        output.is_ok_and(|o| {
            Path::new(String::from_utf8_lossy(&o.stdout).trim())
                .join("lib/rustlib")
                .join(&target)
                .join("lib")
                .is_dir()
        })
    };
    if has() {
        return Ok(());
    }
    let status = Command::new("rustup")
        .args(["target", "add", &target])
        .current_dir(root())
        .stdin(Stdio::null())
        .stdout(Stdio::null())
        .status();
    if has() {
        return Ok(());
    }
    Err(TestbedError::CannotRun {
        what: "images".into(),
        cause: format!(
            "the compiler has no target {target} ({})",
            status.map_or_else(
                |e| format!("rustup: {e}"),
                |s| format!("rustup: {}", describe(s))
            )
        ),
        hint: format!("with network access run `rustup target add {target}`"),
    })
}

/// Compiles the program and returns its path.
fn compile(folder: &Path, progress: Progress<'_>) -> Result<PathBuf> {
    ensure_target()?;
    let target = target();
    let build = folder.join("build");
    let program = build.join(&target).join(PROFILE).join(PACKAGE);
    if !program.exists() {
        progress(&format!("{PACKAGE}: compiling for {target}"));
    }
    let cargo = std::env::var_os("CARGO").unwrap_or_else(|| "cargo".into());
    let mut command = Command::new(&cargo);
    command
        .current_dir(root())
        .args(["build", "--quiet", "--locked", "--package", PACKAGE])
        .args(["--profile", PROFILE, "--target", &target, "--target-dir"])
        .arg(&build)
        .env("CARGO_INCREMENTAL", "0")
        .stdin(Stdio::null());
    // Nothing of the caller's may show in the result: no flags, and no path of this checkout or of cargo's sources.
    for name in ["CARGO_BUILD_RUSTFLAGS", "RUSTFLAGS", "CARGO_BUILD_TARGET"] {
        command.env_remove(name);
    }
    let cargo_home = std::env::var_os("CARGO_HOME").map_or_else(
        || PathBuf::from(std::env::var_os("HOME").unwrap_or_default()).join(".cargo"),
        PathBuf::from,
    );
    let flags = [
        format!("--remap-path-prefix={}=/cargo", cargo_home.display()),
        // The last that fits wins, and the build folder may lie in the repository.
        format!("--remap-path-prefix={}=/karat", root().display()),
        format!("--remap-path-prefix={}=/build", build.display()),
        "-Ctarget-feature=+crt-static".to_owned(),
        // Its own linker comes with the target, so none of the machine has a say.
        "-Clink-self-contained=yes".to_owned(),
    ];
    command.env("CARGO_ENCODED_RUSTFLAGS", flags.join("\x1f"));
    die_with_parent(&mut command);
    let output = command.output().map_err(|source| TestbedError::Spawn {
        program: cargo.into(),
        source,
    })?;
    if output.status.success() {
        return Ok(program);
    }
    Err(TestbedError::Failed {
        what: format!("cargo build --package {PACKAGE} --target {target}"),
        status: describe(output.status),
        tail: String::from_utf8_lossy(&output.stderr).trim().to_owned(),
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_pinned_name_has_the_digest_in_place_of_the_tag() {
        let image = Image {
            name: TOOL.into(),
            digest: "sha256:ab".into(),
        };
        assert_eq!(image.pinned(), "karat.local/tool@sha256:ab");
    }

    #[test]
    fn the_package_is_in_this_repository() {
        let text = std::fs::read_to_string(root().join("deploy/tool/Cargo.toml")).unwrap();
        assert!(text.contains(&format!("name = \"{PACKAGE}\"")));
    }
}
