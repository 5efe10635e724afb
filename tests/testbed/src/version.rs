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
    /// The programs of a node, which the control plane does without.
    pub(crate) node_modules: &'static ModuleSet,
}

impl KubernetesVersion {
    /// Kubernetes 1.37.0, the default.
    #[must_use]
    pub const fn v1_37() -> Self {
        Self {
            minor: 37,
            patch: 0,
            modules: &K137,
            node_modules: &K137_NODE,
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
    /// Go files of our own that are part of the module: path and text.
    pub(crate) sources: &'static [(&'static str, &'static str)],
    /// Files of other modules that are needed with a change.
    pub(crate) patches: &'static [Patch],
}

/// A file that is copied out of the module cache and changed when a group is built. Nothing of it is in the repository.
#[derive(Debug, PartialEq, Eq)]
pub(crate) struct Patch {
    /// Path of the module that has it.
    pub(crate) module: &'static str,
    /// The file below that module.
    pub(crate) from: &'static str,
    /// Where the changed copy goes in the module that is built.
    pub(crate) to: &'static str,
    /// What is replaced by what; each must occur exactly once.
    pub(crate) edits: &'static [(&'static str, &'static str)],
}

/// What Kubernetes 1.37.0 says of itself.
const K137_LDFLAGS: &str = "-s -w -X k8s.io/component-base/version.gitVersion=v1.37.0 -X k8s.io/component-base/version.gitMajor=1 \
              -X k8s.io/component-base/version.gitMinor=37 -X k8s.io/component-base/version.gitTreeState=clean \
              -X k8s.io/component-base/version.gitCommit=0000000";

pub(crate) static K137: ModuleSet = ModuleSet {
    name: "k137",
    go_mod: include_str!("../gomods/k137/go.mod"),
    go_sum: include_str!("../gomods/k137/go.sum"),
    ldflags: K137_LDFLAGS,
    programs: &[
        ("kube-apiserver", "k8s.io/kubernetes/cmd/kube-apiserver"),
        (
            "kube-controller-manager",
            "k8s.io/kubernetes/cmd/kube-controller-manager",
        ),
        ("kube-scheduler", "k8s.io/kubernetes/cmd/kube-scheduler"),
    ],
    sources: &[],
    patches: &[],
};

/// The same module, so that what both groups compile is compiled once.
pub(crate) static K137_NODE: ModuleSet = ModuleSet {
    name: "k137-node",
    go_mod: K137.go_mod,
    go_sum: K137.go_sum,
    ldflags: K137_LDFLAGS,
    programs: &[
        ("kubelet", "k8s.io/kubernetes/cmd/kubelet"),
        ("kube-proxy", "k8s.io/kubernetes/cmd/kube-proxy"),
    ],
    sources: &[],
    patches: &[],
};

/// The same module again; the driver is ours.
pub(crate) static DRA_DRIVER: ModuleSet = ModuleSet {
    name: "dra-driver",
    go_mod: K137.go_mod,
    go_sum: K137.go_sum,
    ldflags: "-s -w",
    programs: &[("dra-driver", "./dradriver")],
    sources: &[(
        "dradriver/main.go",
        include_str!("../gomods/k137/dradriver/main.go"),
    )],
    patches: &[],
};

/// The same module again; the plugin is ours, on the kubelet's own definitions.
pub(crate) static DEVICE_PLUGIN: ModuleSet = ModuleSet {
    name: "device-plugin",
    go_mod: K137.go_mod,
    go_sum: K137.go_sum,
    ldflags: "-s -w",
    programs: &[("device-plugin", "./deviceplugin")],
    sources: &[(
        "deviceplugin/main.go",
        include_str!("../gomods/k137/deviceplugin/main.go"),
    )],
    patches: &[],
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
    sources: &[],
    patches: &[],
};

pub(crate) static CONTAINERD: ModuleSet = ModuleSet {
    name: "containerd",
    go_mod: include_str!("../gomods/containerd/go.mod"),
    go_sum: include_str!("../gomods/containerd/go.sum"),
    // Without it nodes report containerd://unknown.
    ldflags: "-s -w -X github.com/containerd/containerd/v2/version.Version=v2.4.2",
    programs: &[
        (
            "containerd",
            "github.com/containerd/containerd/v2/cmd/containerd",
        ),
        (
            "containerd-shim-runc-v2",
            "github.com/containerd/containerd/v2/cmd/containerd-shim-runc-v2",
        ),
        ("ctr", "github.com/containerd/containerd/v2/cmd/ctr"),
    ],
    sources: &[],
    patches: &[],
};

pub(crate) static DNS: ModuleSet = ModuleSet {
    name: "dns",
    go_mod: include_str!("../gomods/dns/go.mod"),
    go_sum: include_str!("../gomods/dns/go.sum"),
    ldflags: "-s -w",
    programs: &[("coredns", "./coredns")],
    sources: &[(
        "coredns/main.go",
        include_str!("../gomods/dns/coredns/main.go"),
    )],
    patches: &[],
};

pub(crate) static GVISOR: ModuleSet = ModuleSet {
    name: "gvisor",
    go_mod: include_str!("../gomods/gvisor/go.mod"),
    go_sum: include_str!("../gomods/gvisor/go.sum"),
    ldflags: "-s -w",
    programs: &[
        ("runsc", "gvisor.dev/gvisor/runsc"),
        ("containerd-shim-runsc-v1", "./shim"),
    ],
    sources: &[(
        "shim/main.go",
        include_str!("../gomods/gvisor/shim/main.go"),
    )],
    // Root without CAP_SYS_RESOURCE may not lower a score, and the shim takes that for fatal.
    patches: &[Patch {
        module: "gvisor.dev/gvisor",
        from: "pkg/shim/v1/manager.go",
        to: "shim/manager.go",
        edits: &[
            ("package v1\n", "package main\n"),
            ("oomScoreMax = -999\n", "oomScoreMax = 0\n"),
        ],
    }],
};

pub(crate) static PROMETHEUS: ModuleSet = ModuleSet {
    name: "prometheus",
    go_mod: include_str!("../gomods/prometheus/go.mod"),
    go_sum: include_str!("../gomods/prometheus/go.sum"),
    ldflags: "-s -w -X github.com/prometheus/common/version.Version=3.15.0",
    programs: &[("prometheus", "./prometheus")],
    sources: &[(
        "prometheus/discovery.go",
        include_str!("../gomods/prometheus/prometheus/discovery.go"),
    )],
    // Its main file registers every service discovery, with the clients of all cloud providers; ours names the one that is used.
    patches: &[Patch {
        module: "github.com/prometheus/prometheus",
        from: "cmd/prometheus/main.go",
        to: "prometheus/main.go",
        edits: &[(
            "\t_ \"github.com/prometheus/prometheus/plugins\" // Register plugins.\n",
            "",
        )],
    }],
};

/// The adapter is ours, on the library for such adapters.
pub(crate) static METRICS_ADAPTER: ModuleSet = ModuleSet {
    name: "metrics-adapter",
    go_mod: include_str!("../gomods/adapter/go.mod"),
    go_sum: include_str!("../gomods/adapter/go.sum"),
    ldflags: "-s -w",
    programs: &[("metrics-adapter", "./adapter")],
    sources: &[(
        "adapter/main.go",
        include_str!("../gomods/adapter/adapter/main.go"),
    )],
    patches: &[],
};

/// Operators. Their versions fit one Kubernetes library, so one module builds all of them.
pub(crate) static OPERATORS: ModuleSet = ModuleSet {
    name: "operators",
    go_mod: include_str!("../gomods/extras/go.mod"),
    go_sum: include_str!("../gomods/extras/go.sum"),
    ldflags: "-s -w",
    programs: &[
        ("jobset", "sigs.k8s.io/jobset"),
        ("lws", "sigs.k8s.io/lws/cmd"),
        (
            "trainer",
            "github.com/kubeflow/trainer/v2/cmd/trainer-controller-manager",
        ),
    ],
    sources: &[],
    patches: &[],
};

/// The same module; Kueue alone takes longer than all others together.
pub(crate) static KUEUE: ModuleSet = ModuleSet {
    name: "kueue",
    go_mod: OPERATORS.go_mod,
    go_sum: OPERATORS.go_sum,
    ldflags: "-s -w -X sigs.k8s.io/kueue/pkg/version.GitVersion=v0.15.0",
    programs: &[("kueue", "./kueue")],
    sources: &[],
    // It reads the certificate of its metrics from one place of the machine, whether it serves metrics or not.
    patches: &[Patch {
        module: "sigs.k8s.io/kueue",
        from: "cmd/kueue/main.go",
        to: "kueue/main.go",
        edits: &[(
            "metricsCertPath := \"/etc/kueue/metrics/certs\"",
            "metricsCertPath := cfg.Webhook.CertDir",
        )],
    }],
};

/// A module of its own: what it needs would make everything of [`OPERATORS`] newer.
pub(crate) static AGENT_SANDBOX: ModuleSet = ModuleSet {
    name: "agent-sandbox",
    go_mod: include_str!("../gomods/agentsandbox/go.mod"),
    go_sum: include_str!("../gomods/agentsandbox/go.sum"),
    ldflags: "-s -w",
    programs: &[("agent-sandbox", "./sandbox")],
    sources: &[],
    // It takes an address for its metrics and does not use it, so that all of them would listen on port 8080 of the machine.
    patches: &[Patch {
        module: "sigs.k8s.io/agent-sandbox",
        from: "cmd/agent-sandbox-controller/main.go",
        to: "sandbox/main.go",
        edits: &[
            (
                "\t\"sigs.k8s.io/controller-runtime/pkg/log/zap\"\n",
                "\t\"sigs.k8s.io/controller-runtime/pkg/log/zap\"\n\tmetricsserver \"sigs.k8s.io/controller-runtime/pkg/metrics/server\"\n",
            ),
            (
                "\t\tHealthProbeBindAddress: probeAddr,\n",
                "\t\tHealthProbeBindAddress: probeAddr,\n\t\tMetrics: metricsserver.Options{BindAddress: metricsAddr},\n",
            ),
        ],
    }],
};

/// A module of its own, on the Kubernetes library that the nodes have.
pub(crate) static METRICS_SERVER: ModuleSet = ModuleSet {
    name: "metrics-server",
    go_mod: include_str!("../gomods/metricsserver/go.mod"),
    go_sum: include_str!("../gomods/metricsserver/go.sum"),
    ldflags: "-s -w",
    programs: &[(
        "metrics-server",
        "sigs.k8s.io/metrics-server/cmd/metrics-server",
    )],
    sources: &[],
    patches: &[],
};

/// The endpoint picker of the inference extension, in the module whose definitions it needs.
pub(crate) static GATEWAY: ModuleSet = ModuleSet {
    name: "gateway",
    go_mod: include_str!("../gomods/gateway/go.mod"),
    go_sum: include_str!("../gomods/gateway/go.sum"),
    ldflags: "-s -w",
    programs: &[(
        "gateway",
        "sigs.k8s.io/gateway-api-inference-extension/cmd/epp",
    )],
    sources: &[],
    patches: &[],
};

/// All sets that do not belong to one version of Kubernetes.
pub(crate) const SETS: [&ModuleSet; 13] = [
    &TOOLS,
    &CONTAINERD,
    &DNS,
    &GVISOR,
    &DRA_DRIVER,
    &DEVICE_PLUGIN,
    &PROMETHEUS,
    &METRICS_ADAPTER,
    &OPERATORS,
    &KUEUE,
    &AGENT_SANDBOX,
    &METRICS_SERVER,
    &GATEWAY,
];

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
        for set in SETS.into_iter().chain([&K137, &K137_NODE]) {
            for (name, package) in set.programs {
                let own = package.strip_prefix("./").is_some_and(|folder| {
                    let sources = set.sources.iter().map(|(path, _)| *path);
                    let mut files = sources.chain(set.patches.iter().map(|patch| patch.to));
                    files.any(|path| path.starts_with(&format!("{folder}/")))
                });
                assert!(
                    own || set.go_mod.contains(package),
                    "{name} is missing from the tools of {}",
                    set.name
                );
            }
            for patch in set.patches {
                assert!(set.go_mod.contains(patch.module), "{}", patch.module);
            }
        }
    }
}
