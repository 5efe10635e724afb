//! The build script of a probe, in one line:
//!
//! ```no_run
//! karat_sdk_build::manifest();
//! ```
//!
//! It reads `probe.toml` beside `Cargo.toml` and writes constants for `karat_sdk::manifest!()`: one for each case, setting,
//! namespace alias, image and lease. A case that the manifest does not have then does not compile, and one that the probe never
//! uses is a dead-code warning. It does not check the manifest: that is the engine's business, at `karat probe build`.

use serde::Deserialize;
use std::collections::BTreeMap;
use std::fmt::Write as _;
use std::path::Path;

/// The part of a manifest that becomes constants.
#[derive(Deserialize)]
struct Manifest {
    #[serde(default)]
    cases: Vec<Named>,
    #[serde(default)]
    settings: BTreeMap<String, Setting>,
    #[serde(default)]
    namespaces: Vec<Alias>,
    #[serde(default)]
    images: Vec<Image>,
    #[serde(default)]
    leases: Vec<Image>,
}

#[derive(Deserialize)]
struct Named {
    id: String,
    #[serde(default)]
    claim: String,
}

#[derive(Deserialize)]
struct Alias {
    alias: String,
}

#[derive(Deserialize)]
struct Image {
    name: String,
}

#[derive(Deserialize)]
struct Setting {
    #[serde(rename = "type")]
    kind: toml::Value,
    #[serde(default)]
    help: String,
}

/// Reads `probe.toml` and writes `$OUT_DIR/manifest.rs`. Ends the build with a message when it cannot.
pub fn manifest() {
    manifest_from("probe.toml");
}

/// As [`manifest`], for a manifest of another name, relative to `Cargo.toml`.
pub fn manifest_from(file: &str) {
    let folder = std::env::var("CARGO_MANIFEST_DIR").unwrap_or_default();
    let path = Path::new(&folder).join(file);
    say(&format!("cargo::rerun-if-changed={}", path.display()));
    let made = std::fs::read_to_string(&path)
        .map_err(|error| format!("{}: {error}", path.display()))
        .and_then(|text| constants(&text).map_err(|error| format!("{}: {error}", path.display())))
        .and_then(|source| {
            let out = std::env::var("OUT_DIR")
                .map_err(|_| "OUT_DIR is not set; call this from build.rs".to_owned())?;
            std::fs::write(Path::new(&out).join("manifest.rs"), source)
                .map_err(|error| format!("{out}: {error}"))
        });
    if let Err(error) = made {
        say(&format!("cargo::error={}", error.replace('\n', " ")));
    }
}

#[expect(
    clippy::print_stdout,
    reason = "stdout is how a build script speaks to cargo"
)]
fn say(line: &str) {
    println!("{line}");
}

/// The constants of a manifest, as Rust source.
///
/// # Errors
/// Text that is no TOML, and two ids that would become the same constant.
pub fn constants(text: &str) -> Result<String, String> {
    let manifest: Manifest = toml::from_str(text).map_err(|error| error.to_string())?;
    let mut out = String::new();
    let mut line = |text: String| {
        let _ = writeln!(out, "{text}");
    };
    line(format!(
        "/// The manifest, as it was when the probe was built.\n#[allow(dead_code, reason = \"for unit tests\")]\npub(crate) const TEXT: &str = {text:?};"
    ));

    line("/// The cases of the manifest.\npub(crate) mod cases {".into());
    let mut seen = BTreeMap::new();
    for case in &manifest.cases {
        let name = constant(&case.id)?;
        unique(&mut seen, &name, &case.id)?;
        line(format!(
            "    #[doc = {:?}]\n    pub(crate) const {name}: ::karat_sdk::CaseId = ::karat_sdk::CaseId::from_manifest({:?});",
            case.claim, case.id
        ));
    }
    line("}".into());

    line("/// The settings of the manifest.\npub(crate) mod settings {".into());
    seen.clear();
    for (key, setting) in &manifest.settings {
        let name = constant(key)?;
        unique(&mut seen, &name, key)?;
        let kind = setting_type(key, &setting.kind)?;
        line(format!(
            "    #[doc = {:?}]\n    pub(crate) const {name}: ::karat_sdk::settings::Setting<{kind}> = ::karat_sdk::settings::Setting::from_manifest({key:?});",
            setting.help
        ));
    }
    line("}".into());

    line("/// The aliases of the sandbox namespaces.\npub(crate) mod namespaces {".into());
    seen.clear();
    for namespace in &manifest.namespaces {
        let name = constant(&namespace.alias)?;
        unique(&mut seen, &name, &namespace.alias)?;
        line(format!(
            "    pub(crate) const {name}: &str = {:?};",
            namespace.alias
        ));
    }
    line("}".into());

    line("/// The names of the images.\npub(crate) mod images {".into());
    seen.clear();
    for image in &manifest.images {
        let name = constant(&image.name)?;
        unique(&mut seen, &name, &image.name)?;
        line(format!(
            "    pub(crate) const {name}: &str = {:?};",
            image.name
        ));
    }
    line("}".into());

    line("/// The names of the leases.\npub(crate) mod leases {".into());
    seen.clear();
    for lease in &manifest.leases {
        let name = constant(&lease.name)?;
        unique(&mut seen, &name, &lease.name)?;
        line(format!(
            "    #[allow(dead_code, reason = \"a lease may also be named in words\")]\n    pub(crate) const {name}: &str = {:?};",
            lease.name
        ));
    }
    line("}".into());
    Ok(out)
}

fn unique(seen: &mut BTreeMap<String, String>, name: &str, id: &str) -> Result<(), String> {
    match seen.insert(name.to_owned(), id.to_owned()) {
        None => Ok(()),
        Some(other) => Err(format!("`{other}` and `{id}` would both become {name}")),
    }
}

/// `two-units` → `TWO_UNITS`.
fn constant(id: &str) -> Result<String, String> {
    let name: String = id
        .chars()
        .map(|c| match c {
            '-' | '.' => '_',
            other => other.to_ascii_uppercase(),
        })
        .collect();
    let good = name.starts_with(|c: char| c.is_ascii_uppercase())
        && name
            .chars()
            .all(|c| c.is_ascii_uppercase() || c.is_ascii_digit() || c == '_');
    if good {
        Ok(name)
    } else {
        Err(format!("`{id}` cannot become the name of a constant"))
    }
}

fn setting_type(key: &str, kind: &toml::Value) -> Result<&'static str, String> {
    match kind.as_str() {
        Some("bool") => Ok("bool"),
        Some("integer") => Ok("i64"),
        Some("duration") => Ok("::core::time::Duration"),
        Some("secret") => Ok("::karat_sdk::settings::SecretRef"),
        Some("string" | "quantity" | "one-of") | None => Ok("::std::string::String"),
        Some(other) => Err(format!("setting `{key}` has the unknown type `{other}`")),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_id_becomes_a_constant_of_its_type() {
        let source = constants(
            r#"
            cases = [{ id = "two-units", claim = "one \"node\"" }, { id = "x" }]
            [settings.window]
            type = "duration"
            "#,
        )
        .unwrap();
        assert!(source.contains(r#"pub(crate) const TWO_UNITS: ::karat_sdk::CaseId = ::karat_sdk::CaseId::from_manifest("two-units");"#), "{source}");
        assert!(source.contains("pub(crate) const X:"), "{source}");
        assert!(
            source.contains("WINDOW: ::karat_sdk::settings::Setting<::core::time::Duration>"),
            "{source}"
        );
    }

    #[test]
    fn ids_that_would_clash_are_refused() {
        let error = constants(r#"cases = [{ id = "a-b" }, { id = "a.b" }]"#).unwrap_err();
        assert_eq!(error, "`a-b` and `a.b` would both become A_B");
    }
}
