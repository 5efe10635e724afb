//! Finds probes and reads what they state about themselves.
//!
//! A source is an OCI image layout, a folder of components, or one component. Built-in probes are found without
//! configuration, beside the executable. Nothing is run or compiled here; every byte of a layout is compared with its
//! digest by the registry crate, and a manifest counts only as far as it stands inside the component.

use crate::ui::diagnostics::{Classify as _, CommandError, Hint as _};
use crate::ui::text::shown;
use anyhow::anyhow;
use karat_engine::manifest::{Manifest, section};
use karat_registry::{Digest, Layout, MAX_COMPONENT_SIZE};
use std::collections::BTreeMap;
use std::io::Read as _;
use std::path::{Path, PathBuf};
use std::sync::Arc;

/// Most components in a folder that is given as a source.
const FOLDER_MAX: usize = 4096;

/// A probe with its bytes.
#[derive(Clone, Debug)]
pub(crate) struct Probe {
    /// What it states about itself.
    pub(crate) manifest: Arc<Manifest>,
    /// The component.
    pub(crate) bytes: Arc<[u8]>,
    /// Digest of the component, `sha256:…`.
    pub(crate) digest: String,
    /// Where it came from, for people.
    pub(crate) origin: String,
}

impl Probe {
    /// Reads a component.
    ///
    /// # Errors
    /// No manifest, two of them, or one that is wrong.
    pub(crate) fn from_bytes(bytes: Vec<u8>, origin: String) -> Result<Probe, CommandError> {
        let text = section::extract(&bytes).usage(format!("{origin} is no probe"))?;
        let manifest = Manifest::parse(text, &format!("{origin}, its manifest"))
            .usage(format!("{origin} is no probe that this release can run"))?;
        Ok(Probe {
            manifest: Arc::new(manifest),
            digest: Digest::of(&bytes).to_string(),
            bytes: bytes.into(),
            origin,
        })
    }

    /// Whether a word of the user means this probe: its id or a requirement it answers.
    pub(crate) fn answers(&self, id: &str) -> bool {
        self.manifest.id == id
            || self
                .manifest
                .requirements
                .iter()
                .any(|requirement| requirement == id)
    }
}

/// Probes by id; where a source holds several versions of one, the newest.
#[derive(Clone, Debug, Default)]
pub(crate) struct Probes {
    by_id: BTreeMap<String, Probe>,
}

impl Probes {
    /// Reads all sources.
    ///
    /// # Errors
    /// A source that cannot be read, a component that is no probe, or two sources with different probes of one id.
    pub(crate) fn load(sources: &[PathBuf]) -> Result<Probes, CommandError> {
        let mut all = Probes::default();
        for source in sources {
            let mut of_source: BTreeMap<String, Probe> = BTreeMap::new();
            for probe in read_source(source)? {
                match of_source.get(&probe.manifest.id) {
                    Some(have) if !newer(&probe.manifest.version, &have.manifest.version) => {}
                    _ => {
                        of_source.insert(probe.manifest.id.clone(), probe);
                    }
                }
            }
            for (id, probe) in of_source {
                if let Some(have) = all.by_id.get(&id)
                    && have.digest != probe.digest
                {
                    return Err(CommandError::usage(anyhow!(
                        "probe {} comes from two places: {} and {}",
                        shown(&id),
                        have.origin,
                        probe.origin
                    ))
                    .hint("give only one of them with --probes-from"));
                }
                all.by_id.insert(id, probe);
            }
        }
        Ok(all)
    }

    /// All probes by id.
    pub(crate) fn iter(&self) -> impl Iterator<Item = &Probe> {
        self.by_id.values()
    }

    /// The probes that a word means: one probe, or all that answer a requirement.
    ///
    /// # Errors
    /// None is meant.
    pub(crate) fn find(&self, word: &str) -> Result<Vec<&Probe>, CommandError> {
        let found: Vec<&Probe> = match self.by_id.get(word) {
            Some(probe) => vec![probe],
            None => self.iter().filter(|probe| probe.answers(word)).collect(),
        };
        if !found.is_empty() {
            return Ok(found);
        }
        let known: Vec<String> = self.iter().map(|probe| shown(&probe.manifest.id)).collect();
        Err(CommandError::usage(anyhow!(
            "no probe has the id `{word}` or answers a requirement of that name"
        ))
        .hint(if known.is_empty() {
            "there are no probes at all; give some with --probes-from".to_owned()
        } else {
            format!("there are: {}", known.join(", "))
        }))
    }
}

fn newer(a: &str, b: &str) -> bool {
    // Versions were checked by the manifest; text order is a fall-back that cannot matter then.
    match (semver::Version::parse(a), semver::Version::parse(b)) {
        (Ok(a), Ok(b)) => a > b,
        _ => a > b,
    }
}

fn read_source(path: &Path) -> Result<Vec<Probe>, CommandError> {
    let name = path.display().to_string();
    if path.is_dir() {
        if path.join("oci-layout").exists() {
            return read_layout(path);
        }
        return read_folder(path);
    }
    if path.is_file() {
        return Ok(vec![Probe::from_bytes(read_component(path)?, name)?]);
    }
    Err(CommandError::usage(anyhow!("there is no probe source {name}")).hint(
        "a source is an OCI image layout, a folder of .wasm files, or one .wasm file; `karat probe build` makes one",
    ))
}

fn read_layout(path: &Path) -> Result<Vec<Probe>, CommandError> {
    let name = path.display().to_string();
    let again = "build or copy the layout again";
    let layout = Layout::open(path)
        .usage(format!("cannot read the probes in {name}"))
        .hint(again)?;
    let entries = layout
        .list()
        .usage(format!("cannot read the probes in {name}"))
        .hint(again)?;
    let mut newest: BTreeMap<&str, &karat_registry::Entry> = BTreeMap::new();
    // Sorted by name and version, so the last one of a name stays.
    for entry in &entries {
        newest.insert(&entry.name, entry);
    }
    newest
        .into_values()
        .map(|entry| {
            let origin = format!("{name}#{}:{}", entry.name, entry.version);
            let bytes = layout
                .component(entry)
                .usage(format!("cannot read probe {origin}"))
                .hint(again)?;
            Probe::from_bytes(bytes, origin)
        })
        .collect()
}

fn read_folder(path: &Path) -> Result<Vec<Probe>, CommandError> {
    let name = path.display().to_string();
    let doing = || format!("cannot read the folder {name}");
    let mut files = Vec::new();
    for entry in std::fs::read_dir(path).usage(doing())? {
        let file = entry.usage(doing())?.path();
        if file
            .extension()
            .is_some_and(|extension| extension == "wasm")
            && file.is_file()
        {
            files.push(file);
        }
        if files.len() > FOLDER_MAX {
            return Err(CommandError::usage(anyhow!(
                "{name} holds more than {FOLDER_MAX} components"
            )));
        }
    }
    if files.is_empty() {
        return Err(CommandError::usage(anyhow!(
            "{name} holds neither an OCI image layout nor .wasm files"
        )));
    }
    files.sort();
    files
        .iter()
        .map(|file| Probe::from_bytes(read_component(file)?, file.display().to_string()))
        .collect()
}

/// Reads a file of at most the size of a component.
///
/// # Errors
/// The file cannot be read, or is larger.
pub(crate) fn read_component(path: &Path) -> Result<Vec<u8>, CommandError> {
    read_limited(path, MAX_COMPONENT_SIZE)
}

/// Reads a file of at most `limit` bytes.
///
/// # Errors
/// The file cannot be read, or is larger.
pub(crate) fn read_limited(path: &Path, limit: u64) -> Result<Vec<u8>, CommandError> {
    let name = path.display().to_string();
    let doing = || format!("cannot read {name}");
    let file = std::fs::File::open(path).usage(doing())?;
    let mut bytes = Vec::new();
    file.take(limit + 1)
        .read_to_end(&mut bytes)
        .usage(doing())?;
    if bytes.len() as u64 > limit {
        return Err(CommandError::usage(anyhow!(
            "{name} is larger than {limit} bytes, the most that is read"
        )));
    }
    Ok(bytes)
}

/// Where the built-in probes lie, seen from the executable.
pub(crate) fn built_in(executable: &Path) -> Option<PathBuf> {
    brought(executable, "probes")
}

/// Where an image layout lies that the program brings, seen from the executable: `<name>` beside it, `../share/karat/<name>`, and
/// in a build folder of cargo (`…/target/<profile>/karat`) `…/target/<name>`. Only folders that are there.
pub(crate) fn brought(executable: &Path, name: &str) -> Option<PathBuf> {
    let beside = executable.parent()?;
    let mut places = vec![beside.join(name)];
    if let Some(above) = beside.parent() {
        places.push(above.join("share/karat").join(name));
        // A folder of this name above any other folder would be a surprise, so it must look like cargo's.
        if above.join("CACHEDIR.TAG").is_file() {
            places.push(above.join(name));
        }
        // Test executables lie one folder deeper, in `deps`.
        if beside.ends_with("deps")
            && let Some(target) = above.parent()
            && target.join("CACHEDIR.TAG").is_file()
        {
            places.push(target.join(name));
        }
    }
    places
        .into_iter()
        .find(|place| place.join("oci-layout").is_file())
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::ui::printer::Paint;
    use crate::ui::samples::{component, component_with};

    fn message(error: &CommandError) -> String {
        error.lines(Paint::Never).join("\n")
    }

    #[test]
    fn all_kinds_of_sources_are_read() {
        let folder = tempfile::tempdir().unwrap();
        let layout = Layout::create(folder.path().join("layout")).unwrap();
        layout
            .put_component("one", "0.1.0", &component("one", "0.1.0"))
            .unwrap();
        layout
            .put_component("one", "0.2.0", &component("one", "0.2.0"))
            .unwrap();
        std::fs::create_dir(folder.path().join("plain")).unwrap();
        std::fs::write(
            folder.path().join("plain/b.wasm"),
            component("two", "1.0.0"),
        )
        .unwrap();
        std::fs::write(folder.path().join("plain/readme.txt"), "x").unwrap();
        let file = folder.path().join("three.wasm");
        std::fs::write(&file, component("three", "1.0.0")).unwrap();

        let probes = Probes::load(&[
            folder.path().join("layout"),
            folder.path().join("plain"),
            file,
        ])
        .unwrap();
        let found: Vec<_> = probes
            .iter()
            .map(|probe| (probe.manifest.id.as_str(), probe.manifest.version.as_str()))
            .collect();
        assert_eq!(
            found,
            [("one", "0.2.0"), ("three", "1.0.0"), ("two", "1.0.0")]
        );
    }

    #[test]
    fn an_edited_layout_is_refused() {
        let folder = tempfile::tempdir().unwrap();
        let layout = Layout::create(folder.path()).unwrap();
        let bytes = component("one", "0.1.0");
        layout.put_component("one", "0.1.0", &bytes).unwrap();
        let blob = folder
            .path()
            .join("blobs/sha256")
            .join(Digest::of(&bytes).hex());
        let mut edited = bytes;
        *edited.last_mut().unwrap() ^= 1;
        std::fs::write(&blob, edited).unwrap();
        let error = Probes::load(&[folder.path().to_owned()]).unwrap_err();
        assert_eq!(error.exit().code(), 3);
        assert!(
            message(&error).contains(&Digest::of(&component("one", "0.1.0")).hex()),
            "{}",
            message(&error)
        );
    }

    #[test]
    fn two_different_probes_of_one_id_are_refused() {
        let folder = tempfile::tempdir().unwrap();
        let (a, b) = (folder.path().join("a.wasm"), folder.path().join("b.wasm"));
        std::fs::write(&a, component("one", "0.1.0")).unwrap();
        std::fs::write(&b, component("one", "0.2.0")).unwrap();
        let error = Probes::load(&[a.clone(), b.clone()]).unwrap_err();
        assert!(message(&error).contains("comes from two places"));
        std::fs::write(&b, component("one", "0.1.0")).unwrap();
        assert_eq!(Probes::load(&[a, b]).unwrap().iter().count(), 1);
    }

    #[test]
    fn words_find_probes_and_requirements() {
        let folder = tempfile::tempdir().unwrap();
        let file = folder.path().join("a.wasm");
        std::fs::write(&file, component_with("dra-support", "0.1.0", "dra_support")).unwrap();
        let probes = Probes::load(&[file]).unwrap();
        assert_eq!(probes.find("dra-support").unwrap().len(), 1);
        assert_eq!(probes.find("dra_support").unwrap().len(), 1);
        let error = probes.find("gang").unwrap_err();
        insta::assert_snapshot!(message(&error), @r"
        error: no probe has the id `gang` or answers a requirement of that name
          hint: there are: dra-support
        ");
    }

    #[test]
    fn files_that_are_no_probes_say_so() {
        let folder = tempfile::tempdir().unwrap();
        let file = folder.path().join("x.wasm");
        for (bytes, expected) in [
            (&b"hello"[..], "not WebAssembly"),
            (b"\0asm\x01\0\0\0", "core module"),
            (b"\0asm\x0d\0\x01\0", "no section `karat:manifest`"),
        ] {
            std::fs::write(&file, bytes).unwrap();
            let error = Probes::load(std::slice::from_ref(&file)).unwrap_err();
            assert!(message(&error).contains(expected), "{}", message(&error));
            assert_eq!(error.exit().code(), 3);
        }
        let error = Probes::load(&[folder.path().join("absent")]).unwrap_err();
        assert!(message(&error).contains("no probe source"));
    }

    #[test]
    fn built_in_probes_lie_beside_the_program() {
        let folder = tempfile::tempdir().unwrap();
        let root = folder.path();
        let make = |place: &str| {
            Layout::create(root.join(place)).unwrap();
        };
        let bin = root.join("target/debug/karat");
        assert_eq!(built_in(&bin), None);
        make("target/probes");
        assert_eq!(built_in(&bin), None, "not a folder of cargo");
        std::fs::write(root.join("target/CACHEDIR.TAG"), "").unwrap();
        assert_eq!(built_in(&bin), Some(root.join("target/probes")));
        assert_eq!(
            built_in(&root.join("target/debug/deps/karat-1")),
            Some(root.join("target/probes"))
        );
        make("usr/share/karat/probes");
        assert_eq!(
            built_in(&root.join("usr/bin/karat")),
            Some(root.join("usr/share/karat/probes"))
        );
        make("usr/bin/probes");
        assert_eq!(
            built_in(&root.join("usr/bin/karat")),
            Some(root.join("usr/bin/probes"))
        );
    }
}
