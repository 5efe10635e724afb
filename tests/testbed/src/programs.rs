//! Finds the programs of a control plane and its nodes: `KUBEBUILDER_ASSETS`, `PATH`, the cache, and last a build.
//!
//! Each program is taken from the first place that has it in a version that fits, because asset folders usually hold
//! only some of them. Why a place was rejected is remembered and shown when nothing is left.

use std::collections::BTreeMap;
use std::ffi::OsString;
use std::fmt;
use std::fs;
use std::path::{Path, PathBuf};
use std::process::Command;

use crate::add_ons::{AddOn, controllers, gateway};
use crate::error::{Result, TestbedError};
use crate::gobuild::{self, Go, Progress};
use crate::version::{KubernetesVersion, ModuleSet, SETS, TOOLS};

/// The stage files that make kwok act like a kubelet; plain kwok has none. Paths below kwok's module folder.
const KWOK_STAGES: [&str; 5] = [
    "kustomize/stage/node/fast/node-initialize.yaml",
    "kustomize/stage/node/heartbeat-with-lease/node-heartbeat-with-lease.yaml",
    "kustomize/stage/pod/fast/pod-ready.yaml",
    "kustomize/stage/pod/fast/pod-complete.yaml",
    "kustomize/stage/pod/fast/pod-delete.yaml",
];

const STAGES_FILE: &str = "kwok-stages.yaml";

/// The programs of the control-plane laboratory.
pub(crate) const NAMES: [&str; 5] = [
    "etcd",
    "kube-apiserver",
    "kube-controller-manager",
    "kube-scheduler",
    "kwok",
];

/// The programs of a real node that are not the system's own. containerd and what belongs to it are always built: their
/// configuration fits one version, and those of a distribution belong to something else that is running.
pub(crate) const NODE_NAMES: [&str; 8] = [
    "kubelet",
    "kube-proxy",
    "containerd",
    "containerd-shim-runc-v2",
    "ctr",
    "coredns",
    "runsc",
    "containerd-shim-runsc-v1",
];

/// Where a program came from.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub enum Origin {
    /// The folder named by `KUBEBUILDER_ASSETS`.
    Assets,
    /// A folder of `PATH`.
    Path,
    /// The cache of programs built before.
    Cache,
    /// Nowhere yet; it has to be built.
    Build,
}

impl fmt::Display for Origin {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::Assets => "KUBEBUILDER_ASSETS",
            Self::Path => "PATH",
            Self::Cache => "cache",
            Self::Build => "to be built",
        })
    }
}

/// The answer about one program.
#[derive(Clone, Debug)]
pub struct Found {
    /// Name of the program.
    pub name: &'static str,
    /// Its place.
    pub origin: Origin,
    /// Its path; for [`Origin::Build`] the path it will have.
    pub path: PathBuf,
    /// Places that had it in a form that does not fit, with the reason.
    pub rejected: Vec<String>,
}

/// All programs, ready to run.
#[derive(Clone, Debug)]
pub(crate) struct Programs {
    paths: BTreeMap<&'static str, PathBuf>,
    pub(crate) kwok_stages: PathBuf,
    /// Archive with the images of real nodes, if there are to be any.
    pub(crate) images: Option<PathBuf>,
    /// What operators install besides their programs, by the name of the add-on.
    pub(crate) manifests: BTreeMap<&'static str, PathBuf>,
}

impl Programs {
    pub(crate) fn path(&self, name: &str) -> PathBuf {
        self.paths.get(name).cloned().unwrap_or_else(|| name.into())
    }

    /// The folders of a node's programs, in the form of `PATH`: containerd looks for its shims there.
    pub(crate) fn node_path(&self) -> String {
        let mut dirs: Vec<String> = NODE_NAMES
            .iter()
            .filter_map(|name| Some(self.path(name).parent()?.display().to_string()))
            .collect();
        dirs.sort();
        dirs.dedup();
        dirs.join(":")
    }

    /// Finds or builds the control plane and `extra`, the programs of real nodes and of add-ons. Blocks, for minutes when it has to build.
    pub(crate) fn provide(
        version: KubernetesVersion,
        extra: &[&'static str],
        progress: Progress<'_>,
    ) -> Result<Self> {
        let go = Go::find();
        let mut paths = BTreeMap::new();
        let mut wanted: Vec<&'static ModuleSet> = Vec::new();
        let mut all = survey_with(&NAMES, version, &go);
        all.extend(survey_with(extra, version, &go));
        for found in all {
            if found.origin == Origin::Build {
                let set = set_of(found.name, version);
                if let Err(why) = &go {
                    return Err(missing(&found, why, version));
                }
                if !wanted.iter().any(|w| w.name == set.name) {
                    wanted.push(set);
                }
            }
            paths.insert(found.name, found.path);
        }
        if let Ok(go) = &go {
            for set in wanted {
                gobuild::build(set, go, progress, |module, result| {
                    if set.name == TOOLS.name {
                        copy_stages(module, &result.join(STAGES_FILE))
                    } else {
                        Ok(())
                    }
                })?;
            }
        }
        let kwok_stages = stages(&go, progress)?;
        let images = if NODE_NAMES.iter().any(|name| extra.contains(name)) {
            Some(crate::images::provide(progress)?.archive)
        } else {
            None
        };
        let mut manifests = controllers::manifests(extra, &go, progress)?;
        manifests.extend(gateway::manifests(extra, &go, progress)?);
        Ok(Self {
            paths,
            kwok_stages,
            images,
            manifests,
        })
    }
}

/// Says for each program where it would come from, without building anything.
#[must_use]
pub fn survey(version: KubernetesVersion) -> Vec<Found> {
    survey_with(&NAMES, version, &Go::find())
}

/// The same for what real nodes need in addition.
#[must_use]
pub fn survey_nodes(version: KubernetesVersion) -> Vec<Found> {
    survey_with(&node_names(), version, &Go::find())
}

/// What real nodes and everything that comes with them run.
fn node_names() -> Vec<&'static str> {
    let add_ons = AddOn::ALL.into_iter().filter(|a| a.comes_with_nodes());
    NODE_NAMES
        .into_iter()
        .chain(add_ons.map(AddOn::name))
        .collect()
}

/// The same for add-ons.
#[must_use]
pub fn survey_add_ons(version: KubernetesVersion) -> Vec<Found> {
    let built = AddOn::ALL.into_iter().filter(|a| a.is_built());
    let names: Vec<&'static str> = built.map(AddOn::name).collect();
    survey_with(&names, version, &Go::find())
}

/// Builds these add-ons now, so that a later start is quick.
///
/// # Errors
/// As [`prepare`].
pub fn prepare_add_ons(
    version: KubernetesVersion,
    add_ons: &[AddOn],
    progress: impl Fn(&str) + Sync,
) -> Result<()> {
    let built = add_ons.iter().filter(|a| a.is_built());
    let names: Vec<&'static str> = built.map(|a| a.name()).collect();
    Programs::provide(version, &names, &progress).map(|_| ())
}

/// Builds or finds all programs now, so that a later start is quick.
///
/// # Errors
/// A program that is neither there nor buildable, with what to do.
pub fn prepare(version: KubernetesVersion, progress: impl Fn(&str) + Sync) -> Result<()> {
    Programs::provide(version, &[], &progress).map(|_| ())
}

/// The same with what real nodes need in addition, and their images.
///
/// # Errors
/// As [`prepare`], or an image that cannot be built.
pub fn prepare_nodes(version: KubernetesVersion, progress: impl Fn(&str) + Sync) -> Result<()> {
    Programs::provide(version, &node_names(), &progress).map(|_| ())
}

fn survey_with(
    names: &[&'static str],
    version: KubernetesVersion,
    go: &std::result::Result<Go, String>,
) -> Vec<Found> {
    names.iter().map(|name| find(name, version, go)).collect()
}

pub(crate) fn set_of(name: &str, version: KubernetesVersion) -> &'static ModuleSet {
    SETS.into_iter()
        .chain([version.node_modules])
        .find(|set| set.programs.iter().any(|(n, _)| *n == name))
        .unwrap_or(version.modules)
}

fn find(
    name: &'static str,
    version: KubernetesVersion,
    go: &std::result::Result<Go, String>,
) -> Found {
    let mut rejected = Vec::new();
    let assets = std::env::var_os("KUBEBUILDER_ASSETS").map(PathBuf::from);
    let path_dirs = std::env::var_os("PATH").unwrap_or_default();
    let places = assets
        .into_iter()
        .map(|d| (Origin::Assets, d))
        .chain(std::env::split_paths(&path_dirs).map(|d| (Origin::Path, d)));
    for (origin, dir) in places.filter(|_| !only_built(name)) {
        let path = dir.join(name);
        if !path.is_file() {
            continue;
        }
        match check_version(name, &path, version) {
            Ok(()) => {
                return Found {
                    name,
                    origin,
                    path,
                    rejected,
                };
            }
            Err(why) => rejected.push(format!("{}: {why}", path.display())),
        }
    }
    if let Ok(go) = go
        && let Ok(folder) = gobuild::folder(set_of(name, version), go)
    {
        let path = folder.join("bin").join(name);
        let origin = if path.is_file() {
            Origin::Cache
        } else {
            Origin::Build
        };
        return Found {
            name,
            origin,
            path,
            rejected,
        };
    }
    Found {
        name,
        origin: Origin::Build,
        path: name.into(),
        rejected,
    }
}

/// True for programs that are taken from nowhere but their pinned modules; see [`NODE_NAMES`].
fn only_built(name: &str) -> bool {
    !NAMES.contains(&name) && !name.starts_with("kube")
}

fn missing(found: &Found, why: &str, version: KubernetesVersion) -> TestbedError {
    let mut looked = vec!["KUBEBUILDER_ASSETS and PATH have none that fits".to_owned()];
    looked.extend(found.rejected.iter().cloned());
    looked.push(why.to_owned());
    TestbedError::ProgramMissing {
        program: found.name.to_owned(),
        looked: looked.join("; "),
        hint: if only_built(found.name) {
            "install Go 1.26 or newer (https://go.dev/dl)".to_owned()
        } else {
            format!(
                "install Go 1.26 or newer (https://go.dev/dl), or put {} of Kubernetes {version} into a folder and set KUBEBUILDER_ASSETS to it",
                found.name
            )
        },
    }
}

/// Runs `--version` and compares. A program that cannot say its version is not used.
fn check_version(
    name: &str,
    path: &Path,
    version: KubernetesVersion,
) -> std::result::Result<(), String> {
    let output = Command::new(path)
        .arg("--version")
        .output()
        .map_err(|e| e.to_string())?;
    let text = String::from_utf8_lossy(&output.stdout);
    let (major, minor) = version_in(&text).ok_or_else(|| "does not say its version".to_owned())?;
    let fits = match name {
        // The oldest minor that this Kubernetes release is tested with.
        "etcd" => major == 3 && minor >= 6,
        // Stages for leases and the node annotation selector used here are of 0.7.
        "kwok" => major > 0 || minor >= 7,
        _ => version.fits(major, minor),
    };
    if fits {
        Ok(())
    } else {
        Err(format!("is version {major}.{minor}"))
    }
}

/// The first `N.N` or `vN.N` in a text.
fn version_in(text: &str) -> Option<(u16, u16)> {
    text.split_whitespace().find_map(|word| {
        let mut parts = word.trim_start_matches('v').split('.');
        Some((parts.next()?.parse().ok()?, parts.next()?.parse().ok()?))
    })
}

/// The stage file: beside the built programs, else from kwok's module, which `go` fetches and checks.
fn stages(go: &std::result::Result<Go, String>, progress: Progress<'_>) -> Result<PathBuf> {
    let go = go.as_ref().map_err(|why| TestbedError::ProgramMissing {
        program: STAGES_FILE.to_owned(),
        looked: why.clone(),
        hint: "install Go 1.26 or newer: kwok's stage files come from its Go module".to_owned(),
    })?;
    let built = gobuild::folder(&TOOLS, go)?.join(STAGES_FILE);
    if built.is_file() {
        return Ok(built);
    }
    let alone = gobuild::folder(&TOOLS, go)?
        .with_extension("stages")
        .join(STAGES_FILE);
    if alone.is_file() {
        return Ok(alone);
    }
    progress("kwok: fetching its stage files");
    let module = tempfile::tempdir().map_err(TestbedError::io("temporary folder"))?;
    gobuild::write_module(&TOOLS, module.path())?;
    let dir = alone.parent().unwrap_or(Path::new("/"));
    fs::create_dir_all(dir).map_err(TestbedError::io(dir))?;
    copy_stages(module.path(), &alone)?;
    Ok(alone)
}

fn copy_stages(module: &Path, target: &Path) -> Result<()> {
    let dir = gobuild::module_dir(module, "sigs.k8s.io/kwok")?;
    let mut text = String::new();
    for file in KWOK_STAGES {
        let path = dir.join(file);
        let part = fs::read_to_string(&path).map_err(TestbedError::io(&path))?;
        text.push_str(part.trim_end());
        text.push_str("\n---\n");
    }
    // Written beside and renamed, because two processes may do this at the same time.
    let mut beside: OsString = target.as_os_str().to_owned();
    beside.push(format!(".{}", std::process::id()));
    fs::write(&beside, text).map_err(TestbedError::io(target))?;
    fs::rename(&beside, target).map_err(TestbedError::io(target))
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::os::unix::fs::PermissionsExt as _;

    #[test]
    fn versions_are_read_as_the_programs_print_them() {
        assert_eq!(version_in("Kubernetes v1.37.0\n"), Some((1, 37)));
        assert_eq!(
            version_in("etcd Version: 3.7.3\nGit SHA: abc\nGo Version: go1.26.8\n"),
            Some((3, 7))
        );
        assert_eq!(
            version_in("kwok version 0.8.0 go1.26.8 (linux/amd64)\n"),
            Some((0, 8))
        );
        assert_eq!(version_in("no idea"), None);
    }

    #[test]
    fn a_program_of_another_release_is_rejected_with_its_version() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("kube-apiserver");
        fs::write(&path, "#!/bin/sh\necho Kubernetes v1.31.2\n").unwrap();
        fs::set_permissions(&path, fs::Permissions::from_mode(0o755)).unwrap();
        let why = check_version("kube-apiserver", &path, KubernetesVersion::v1_37()).unwrap_err();
        assert!(why.contains("1.31"), "{why}");
    }

    #[test]
    fn what_is_missing_is_said_with_a_way_out() {
        let found = Found {
            name: "kwok",
            origin: Origin::Build,
            path: "kwok".into(),
            rejected: vec!["/x/kwok: is version 0.1".into()],
        };
        let text = missing(&found, "go: not found", KubernetesVersion::v1_37()).to_string();
        assert!(
            text.contains("kwok")
                && text.contains("/x/kwok: is version 0.1")
                && text.contains("go: not found")
                && text.contains("KUBEBUILDER_ASSETS"),
            "{text}"
        );
    }
}
