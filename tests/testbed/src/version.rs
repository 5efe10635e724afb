//! Which Kubernetes a laboratory runs, and the pinned Go modules that build it.
//!
//! A new minor version is a new folder below `gomods/` and a new constructor here; nothing else knows numbers.
//! The module files are compiled in, so the library works from any directory.

use std::fmt;

/// A Kubernetes release for which the module set is in the repository.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct KubernetesVersion {
    /// Minor number; the major is 1.
    pub minor: u16,
    /// Patch number.
    pub patch: u16,
    pub(crate) modules: &'static ModuleSet,
}

impl KubernetesVersion {
    /// Kubernetes 1.37.0, the default.
    #[must_use]
    pub const fn v1_37() -> Self {
        Self {
            minor: 37,
            patch: 0,
            modules: &K137,
        }
    }

    /// True if a program that reports `major.minor` belongs to this release. The patch may differ.
    #[must_use]
    pub fn fits(&self, major: u16, minor: u16) -> bool {
        major == 1 && minor == self.minor
    }
}

impl Default for KubernetesVersion {
    fn default() -> Self {
        Self::v1_37()
    }
}

impl fmt::Display for KubernetesVersion {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "1.{}.{}", self.minor, self.patch)
    }
}

/// One Go module whose `go.sum` pins every byte that goes into the programs built from it.
#[derive(Debug, PartialEq, Eq)]
pub(crate) struct ModuleSet {
    pub(crate) name: &'static str,
    pub(crate) go_mod: &'static str,
    pub(crate) go_sum: &'static str,
    /// Without the version, `/version` would say v0.0.0-master and probes would judge the wrong release.
    pub(crate) ldflags: &'static str,
    /// File name and package, in the order in which they are built.
    pub(crate) programs: &'static [(&'static str, &'static str)],
}

pub(crate) static K137: ModuleSet = ModuleSet {
    name: "k137",
    go_mod: include_str!("../gomods/k137/go.mod"),
    go_sum: include_str!("../gomods/k137/go.sum"),
    ldflags: "-s -w -X k8s.io/component-base/version.gitVersion=v1.37.0 -X k8s.io/component-base/version.gitMajor=1 \
              -X k8s.io/component-base/version.gitMinor=37 -X k8s.io/component-base/version.gitTreeState=clean \
              -X k8s.io/component-base/version.gitCommit=0000000",
    programs: &[
        ("kube-apiserver", "k8s.io/kubernetes/cmd/kube-apiserver"),
        (
            "kube-controller-manager",
            "k8s.io/kubernetes/cmd/kube-controller-manager",
        ),
        ("kube-scheduler", "k8s.io/kubernetes/cmd/kube-scheduler"),
    ],
};

pub(crate) static TOOLS: ModuleSet = ModuleSet {
    name: "tools",
    go_mod: include_str!("../gomods/tools/go.mod"),
    go_sum: include_str!("../gomods/tools/go.sum"),
    ldflags: "-s -w -X sigs.k8s.io/kwok/pkg/consts.Version=0.8.0",
    programs: &[
        ("etcd", "go.etcd.io/etcd/server/v3"),
        ("kwok", "sigs.k8s.io/kwok/cmd/kwok"),
    ],
};

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_module_set_builds_the_version_it_claims() {
        let version = KubernetesVersion::v1_37();
        assert!(
            version
                .modules
                .go_mod
                .contains(&format!("k8s.io/kubernetes v{version}"))
        );
        assert!(
            version
                .modules
                .ldflags
                .contains(&format!("gitVersion=v{version} "))
        );
        assert!(version.fits(1, 37));
        assert!(!version.fits(1, 36));
        assert!(!version.fits(2, 37));
    }

    #[test]
    fn every_program_is_a_tool_of_its_module() {
        for set in [&K137, &TOOLS] {
            for (name, package) in set.programs {
                assert!(
                    set.go_mod.contains(package),
                    "{name} is missing from the tools of {}",
                    set.name
                );
            }
        }
    }
}
