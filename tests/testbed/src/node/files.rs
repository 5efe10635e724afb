//! The files that a node's programs read. Pure functions of the node's place and networks.
//!
//! What looks odd was measured: where root lacks CAP_SYS_RESOURCE nothing may lower an `oom_score_adj`, and in a network
//! namespace some settings of the kernel cannot be written.

use std::collections::BTreeMap;
use std::path::Path;

use serde_json::{Value, json};

use super::net::Net;
use super::{REGISTRIES, RuntimeHandler};

/// Everything that the files depend on.
pub(crate) struct Plan<'a> {
    pub(crate) name: &'a str,
    pub(crate) index: u8,
    pub(crate) nodes: u8,
    /// Folder of this node.
    pub(crate) dir: &'a Path,
    /// Folder with the authority and the server certificates of the nodes.
    pub(crate) pki: &'a Path,
    /// Begin of the names of log files; `-` and the program follow.
    pub(crate) log: &'a Path,
    pub(crate) net: &'a Net,
    /// Folders with the programs that are built, in the form of `PATH`.
    pub(crate) programs: &'a str,
    pub(crate) runc: &'a Path,
    pub(crate) cni: &'a Path,
    pub(crate) images: &'a Path,
    pub(crate) handlers: &'a BTreeMap<String, RuntimeHandler>,
    /// By handler, what containerd begins the specification of each container with.
    pub(crate) specs: &'a BTreeMap<String, Value>,
    pub(crate) feature_gates: &'a BTreeMap<String, bool>,
}

/// Image of the container that holds a pod's namespaces.
pub(crate) const PAUSE: &str = crate::images::PAUSE;

impl Plan<'_> {
    /// All files by name.
    pub(crate) fn files(&self) -> Vec<(String, String)> {
        let mut files: Vec<(String, String)> = [
            ("init.sh", self.init()),
            ("network", self.net.inside(self.index, self.nodes)),
            ("containerd.toml", self.containerd()),
            ("cni/10-testbed.conflist", self.cni().to_string()),
            ("kubelet.json", self.kubelet().to_string()),
            ("kube-proxy.json", self.kube_proxy().to_string()),
            ("Corefile", self.corefile()),
            ("resolv.conf", "nameserver 127.0.0.1\n".into()),
        ]
        .map(|(name, text)| (name.to_owned(), text))
        .into();
        for (name, handler) in self.handlers {
            let flags = match handler {
                RuntimeHandler::Gvisor => &BTreeMap::new(),
                RuntimeHandler::GvisorWith(flags) => flags,
                RuntimeHandler::Runc
                | RuntimeHandler::RuncThrough(_)
                | RuntimeHandler::RuncScript(_) => continue,
            };
            files.push((runsc_file(name), self.runsc(flags)));
        }
        for (name, spec) in self.specs {
            files.push((spec_file(name), spec.to_string()));
        }
        files
    }

    fn at(&self, path: &str) -> String {
        self.dir.join(path).display().to_string()
    }

    fn cgroup(&self) -> String {
        format!("{}{}", self.net.cgroups(), self.index)
    }

    fn init(&self) -> String {
        let word = |path: &Path| format!("'{}'", path.display().to_string().replace('\'', r"'\''"));
        format!(
            "DIR={}\nLOG={}\nIMAGES={}\nPROGRAMS={}\nNAME={}\nADDRESS={}\nCGROUP={}\n{}",
            word(self.dir),
            word(self.log),
            word(self.images),
            word(Path::new(self.programs)),
            self.name,
            self.net.node(self.index),
            self.cgroup(),
            include_str!("init.sh")
        )
    }

    fn containerd(&self) -> String {
        let mut text = format!(
            "version = 3
root = {root}
state = {state}
oom_score = 0
disabled_plugins = ['io.containerd.snapshotter.v1.blockfile', 'io.containerd.snapshotter.v1.btrfs', \
'io.containerd.snapshotter.v1.devmapper', 'io.containerd.snapshotter.v1.erofs', 'io.containerd.snapshotter.v1.zfs', \
'io.containerd.nri.v1.nri', 'io.containerd.tracing.processor.v1.otlp', 'io.containerd.internal.v1.tracing']
[grpc]
address = {socket}
[ttrpc]
address = {ttrpc}
[plugins.'io.containerd.cri.v1.images']
snapshotter = 'overlayfs'
[plugins.'io.containerd.cri.v1.images'.pinned_images]
sandbox = '{PAUSE}'
[plugins.'io.containerd.cri.v1.images'.registry]
config_path = {registries}
[plugins.'io.containerd.cri.v1.runtime']
netns_mounts_under_state_dir = true
restrict_oom_score_adj = true
disable_apparmor = true
cdi_spec_dirs = [{cdi}]
[plugins.'io.containerd.cri.v1.runtime'.cni]
bin_dirs = [{cni}]
conf_dir = {conf}
[plugins.'io.containerd.grpc.v1.cri']
disable_tcp_service = true
stream_server_address = '127.0.0.1'
[plugins.'io.containerd.cri.v1.runtime'.containerd]
default_runtime_name = 'runc'
",
            root = quoted(&self.at("containerd")),
            state = quoted(&self.at("run/containerd")),
            socket = quoted(&self.at("run/containerd.sock")),
            ttrpc = quoted(&self.at("run/containerd.sock.ttrpc")),
            registries = quoted(&self.at(REGISTRIES)),
            cdi = quoted(&self.at("cdi")),
            cni = quoted(&self.cni.display().to_string()),
            conf = quoted(&self.at("cni")),
        );
        for (name, handler) in self.handlers {
            let table =
                format!("plugins.'io.containerd.cri.v1.runtime'.containerd.runtimes.'{name}'");
            let spec = match self.specs.get(name) {
                Some(_) => format!(
                    "base_runtime_spec = {}\n",
                    quoted(&self.at(&spec_file(name)))
                ),
                None => String::new(),
            };
            let runc = |binary: &Path| {
                format!(
                    "[{table}]\nruntime_type = 'io.containerd.runc.v2'\n{spec}[{table}.options]\nBinaryName = {}\nRoot = {}\nSystemdCgroup = false\n",
                    quoted(&binary.display().to_string()),
                    quoted(&self.at("run/runc"))
                )
            };
            text.push_str(&match handler {
                RuntimeHandler::Runc => runc(self.runc),
                RuntimeHandler::RuncThrough(binary) => runc(binary),
                RuntimeHandler::RuncScript(_) => runc(&self.dir.join(script_file(name))),
                RuntimeHandler::Gvisor | RuntimeHandler::GvisorWith(_) => format!(
                    "[{table}]\nruntime_type = 'io.containerd.runsc.v1'\n{spec}[{table}.options]\nTypeUrl = 'io.containerd.runsc.v1.options'\nConfigPath = {}\n",
                    quoted(&self.at(&runsc_file(name)))
                ),
            });
        }
        text
    }

    fn runsc(&self, flags: &BTreeMap<String, String>) -> String {
        // systrap needs no virtualisation.
        let mut text = format!(
            "log_path = {}\nlog_level = 'warn'\n[runsc_config]\nplatform = 'systrap'\nroot = {}\nignore-cgroups = 'false'\n",
            quoted(&self.at("run/runsc-%ID%.log")),
            quoted(&self.at("run/runsc")),
        );
        for (flag, value) in flags {
            text.push_str(&format!("{} = {}\n", quoted(flag), quoted(value)));
        }
        text
    }

    fn cni(&self) -> Value {
        json!({
            "cniVersion": "1.0.0",
            "name": "testbed",
            "plugins": [
                {
                    "type": "bridge",
                    "bridge": "cni0",
                    "isGateway": true,
                    "ipMasq": false,
                    // A pod may reach itself through its Service.
                    "hairpinMode": true,
                    "ipam": {
                        "type": "host-local",
                        "dataDir": self.at("run/cni-networks"),
                        "ranges": [[{ "subnet": self.net.pod_range(self.index) }]],
                        "routes": [{ "dst": "0.0.0.0/0" }],
                    },
                },
                { "type": "portmap", "capabilities": { "portMappings": true } },
            ],
        })
    }

    fn kubelet(&self) -> Value {
        let server = |end: &str| {
            self.pki
                .join(format!("{}.{end}", self.name))
                .display()
                .to_string()
        };
        json!({
            "apiVersion": "kubelet.config.k8s.io/v1beta1",
            "kind": "KubeletConfiguration",
            "failCgroupV1": false,
            "cgroupDriver": "cgroupfs",
            "cgroupRoot": format!("/{}", self.cgroup()),
            "cgroupsPerQOS": true,
            "enforceNodeAllocatable": ["pods"],
            "failSwapOn": false,
            "oomScoreAdj": 0,
            "containerRuntimeEndpoint": format!("unix://{}", self.at("run/containerd.sock")),
            "authentication": {
                "anonymous": { "enabled": false },
                "webhook": { "enabled": true },
                "x509": { "clientCAFile": self.pki.join("ca.crt") },
            },
            "authorization": { "mode": "Webhook" },
            "tlsCertFile": server("crt"),
            "tlsPrivateKeyFile": server("key"),
            "clusterDNS": [self.net.pods(self.index)],
            "clusterDomain": "cluster.local",
            "resolvConf": self.at("resolv.conf"),
            "podLogsDir": self.at("pod-logs"),
            "volumePluginDir": self.at("kubelet/volume-plugins"),
            "address": self.net.node(self.index),
            "healthzBindAddress": "127.0.0.1",
            "readOnlyPort": 0,
            "nodeStatusUpdateFrequency": "2s",
            // The images are here before the kubelet and must stay; the disk is that of the machine.
            "imageGCHighThresholdPercent": 100,
            "imageMinimumGCAge": "24h",
            "imagePullCredentialsVerificationPolicy": "NeverVerify",
            "evictionHard": {
                // Zero is refused.
                "memory.available": "1Mi",
                "nodefs.available": "0%",
                "nodefs.inodesFree": "0%",
                "imagefs.available": "0%",
                "imagefs.inodesFree": "0%",
            },
            "featureGates": self.feature_gates,
        })
    }

    fn kube_proxy(&self) -> Value {
        json!({
            "apiVersion": "kubeproxy.config.k8s.io/v1alpha1",
            "kind": "KubeProxyConfiguration",
            "mode": "nftables",
            "clientConnection": { "kubeconfig": self.at("kube-proxy.kubeconfig") },
            "clusterCIDR": self.net.all_pods(),
            "hostnameOverride": self.name,
            "bindAddress": self.net.node(self.index),
            "healthzBindAddress": "127.0.0.1:10256",
            "metricsBindAddress": "127.0.0.1:10249",
            "oomScoreAdj": 0,
            // A network namespace may not write these settings; nothing means: leave them alone.
            "conntrack": { "maxPerCore": 0, "min": 0, "tcpEstablishedTimeout": "0s", "tcpCloseWaitTimeout": "0s" },
        })
    }

    fn corefile(&self) -> String {
        format!(
            ".:53 {{\n  bind {}\n  errors\n  ready 127.0.0.1:8181\n  kubernetes cluster.local in-addr.arpa {{\n    kubeconfig {} testbed\n    pods insecure\n    ttl 1\n  }}\n}}\n",
            self.net.pods(self.index),
            self.at("coredns.kubeconfig")
        )
    }
}

/// Name of the file with the flags of a handler that is gVisor.
fn runsc_file(handler: &str) -> String {
    format!("runsc-{handler}.toml")
}

/// Name of the program that stands before runc in a handler.
pub(super) fn script_file(handler: &str) -> String {
    format!("runc-{handler}")
}

/// Name of the file with the specification that the containers of a handler begin with.
fn spec_file(handler: &str) -> String {
    format!("spec-{handler}.json")
}

/// A path as a string of TOML. A basic string has escapes for everything that a path may hold.
fn quoted(path: &str) -> String {
    Value::from(path).to_string()
}
