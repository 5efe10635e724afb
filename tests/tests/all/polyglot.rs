//! The smallest probe in three languages, on one contract: each is built by its own tool from the world of its manifest and
//! packed as `karat probe build` packs it.
//!
//! The tools come from PyPI and npm, pinned by the examples, into `target/polyglot`; without them the tests fail and say what
//! to install. Nothing is skipped silently.

use anyhow::{Context, Result, bail};
use karat_engine::manifest::{Manifest, section};
use karat_engine::package;
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};
use std::sync::Mutex;

/// Largest component of the smallest probe in Rust: what design promises for any probe in Rust.
const RUST_MAX: usize = 200 << 10;
/// Tools are installed once, whichever test comes first.
static INSTALLING: Mutex<()> = Mutex::new(());

fn root() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("..")
}

pub(crate) fn target() -> PathBuf {
    std::env::var_os("CARGO_TARGET_DIR").map_or_else(|| root().join("target"), PathBuf::from)
}

fn example(language: &str) -> PathBuf {
    root().join("examples/smallest-probe").join(language)
}

fn manifest(language: &str) -> Result<(Manifest, String)> {
    let path = example(language).join("probe.toml");
    let text = std::fs::read_to_string(&path).context(path.display().to_string())?;
    Ok((Manifest::parse(&text, "probe.toml")?, text))
}

pub(crate) fn run(command: &mut Command, advice: &str) -> Result<()> {
    let output = command
        .stdin(Stdio::null())
        .output()
        .with_context(|| format!("{command:?} cannot be started; {advice}"))?;
    if output.status.success() {
        return Ok(());
    }
    bail!(
        "{command:?}: {}\n{}{}\n{advice}",
        output.status,
        String::from_utf8_lossy(&output.stdout),
        String::from_utf8_lossy(&output.stderr)
    );
}

/// Installs a tool if it is absent. The marker shows that it is there, of the very version that the example pins, and where:
/// a Python environment names its own path and does not survive a move.
pub(crate) fn installed(
    folder: &Path,
    pin: &str,
    install: impl FnOnce(&Path) -> Result<()>,
) -> Result<()> {
    let _one = INSTALLING
        .lock()
        .unwrap_or_else(|broken| broken.into_inner());
    let marker = folder.join("installed");
    let pin = format!("{}\n{pin}", folder.display());
    if std::fs::read_to_string(&marker).is_ok_and(|text| text == pin) {
        return Ok(());
    }
    if folder.exists() {
        std::fs::remove_dir_all(folder)?;
    }
    std::fs::create_dir_all(folder)?;
    install(folder)?;
    std::fs::write(marker, pin)?;
    Ok(())
}

/// Absolute paths, because the tools run in the folder of the example.
fn tools(language: &str) -> Result<PathBuf> {
    let folder = target().join("polyglot").join(language);
    std::fs::create_dir_all(&folder)?;
    Ok(folder.canonicalize()?)
}

/// `componentize-py`, installed if it is absent.
pub(crate) fn componentize_py() -> Result<PathBuf> {
    let folder = tools("python")?;
    let pin = std::fs::read_to_string(example("python").join("requirements.txt"))?;
    installed(&folder, &pin, |folder| {
        let venv =
            "needs python3 with venv and access to PyPI (Debian: `apt-get install python3-venv`)";
        run(
            Command::new("python3").args(["-m", "venv"]).arg(folder),
            venv,
        )?;
        let requirements = example("python").join("requirements.txt");
        let mut pip = Command::new(folder.join("bin/pip"));
        pip.args(["install", "--quiet", "--disable-pip-version-check", "-r"])
            .arg(requirements);
        run(&mut pip, venv)
    })?;
    Ok(folder.join("bin/componentize-py"))
}

/// `componentize-qjs`, installed if it is absent.
pub(crate) fn componentize_qjs() -> Result<PathBuf> {
    let folder = tools("js")?;
    let pin = std::fs::read_to_string(example("js").join("package.json"))?;
    installed(&folder, &pin, |folder| {
        std::fs::write(folder.join("package.json"), &pin)?;
        let mut npm = Command::new("npm");
        npm.args(["install", "--no-audit", "--no-fund", "--ignore-scripts"])
            .current_dir(folder);
        run(
            &mut npm,
            "needs node 18 or newer with npm, and access to the npm registry",
        )
    })?;
    Ok(folder.join("node_modules/.bin/componentize-qjs"))
}

/// Builds an example with its own tool from the world of its manifest, and packs it.
fn built(language: &str) -> Result<Vec<u8>> {
    let (manifest, text) = manifest(language)?;
    let work = tempfile::tempdir()?;
    let wit = work.path().join("wit");
    package::write_wit_dir(&manifest, &wit)?;
    let out = work.path().join("component.wasm");
    let mut command = match language {
        "python" => {
            let mut command = Command::new(componentize_py()?);
            command.arg("-d").arg(&wit).args(["-w", package::WORLD]);
            command
                .args(["componentize", "app", "--stub-wasi", "-o"])
                .arg(&out);
            command
        }
        _ => {
            let mut command = Command::new(componentize_qjs()?);
            command
                .arg("-w")
                .arg(&wit)
                .args(["-n", package::WORLD, "-j", "app.js"]);
            command
                .args(["--sync", "--stub-wasi", "--opt-size", "-m", "-o"])
                .arg(&out);
            command
        }
    };
    run(
        command.current_dir(example(language)),
        "the tool's own words stand above",
    )?;
    Ok(package::build(&std::fs::read(out)?, &text)?)
}

#[test]
fn the_smallest_probe_in_python_is_a_probe() -> Result<()> {
    // Packing refuses a component that imports anything but what its manifest asks for, WASI above all.
    let component = built("python")?;
    let text = section::extract(&component)?;
    assert_eq!(
        Manifest::parse(text, "karat:manifest")?.id,
        "smallest-probe-py"
    );
    Ok(())
}

#[test]
fn the_smallest_probe_in_javascript_is_a_probe() -> Result<()> {
    let component = built("js")?;
    let text = section::extract(&component)?;
    assert_eq!(
        Manifest::parse(text, "karat:manifest")?.id,
        "smallest-probe-js"
    );
    Ok(())
}

#[test]
fn the_smallest_probe_in_rust_is_small() -> Result<()> {
    let component = karat_tests::guests::built("smallest-probe")?;
    assert!(
        component.len() <= RUST_MAX,
        "{} KB, and {} KB are promised",
        component.len() >> 10,
        RUST_MAX >> 10
    );
    Ok(())
}

#[test]
fn the_examples_hold_the_current_helpers() -> Result<()> {
    for (helper, copy) in [
        ("sdk/python/karat_probe.py", "python/karat_probe.py"),
        ("sdk/js/karat-probe.js", "js/karat-probe.js"),
    ] {
        let original = std::fs::read(root().join(helper))?;
        let copied = std::fs::read(root().join("examples/smallest-probe").join(copy))?;
        assert!(
            original == copied,
            "copy {helper} to examples/smallest-probe/{copy}"
        );
    }
    Ok(())
}

#[test]
fn one_probe_in_three_languages_claims_the_same() -> Result<()> {
    let cases = |language: &str| -> Result<String> {
        let (manifest, _) = manifest(language)?;
        let without_lines = manifest
            .cases
            .iter()
            .map(|case| format!("{} {} {:?}", case.id, case.claim, case.effect));
        Ok(without_lines.collect::<Vec<_>>().join("\n"))
    };
    assert_eq!(cases("rust")?, cases("python")?);
    assert_eq!(cases("rust")?, cases("js")?);
    Ok(())
}
