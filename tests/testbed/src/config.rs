//! What a laboratory shall look like, and the builder that says it.

use std::collections::{BTreeMap, BTreeSet};
use std::path::PathBuf;

use crate::add_ons::AddOn;
use crate::add_ons::device_plugin::DevicePluginSettings;
use crate::components::Component;
use crate::control_plane::ControlPlane;
use crate::error::Result;
use crate::node::{AdapterSettings, PrometheusSettings, RuntimeHandler};
use crate::version::KubernetesVersion;

/// Every request once, when it is answered, without bodies. Enough to match `auditID`s; bodies would hold secrets.
const METADATA_POLICY: &str = "apiVersion: audit.k8s.io/v1\nkind: Policy\nomitStages: [RequestReceived, ResponseStarted]\nrules:\n- level: Metadata\n";

/// Which versions of `resource.k8s.io` are served.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum DraApi {
    /// `v1` only, as a cluster of this release does by default.
    #[default]
    Stable,
    /// `v1`, `v1beta2`, `v1beta1` and the alpha kinds.
    All,
    /// `v1beta1` and `v1beta2` but not `v1`, as a 1.33 cluster with the feature turned on. The server's `/version` is
    /// not changed, and pods are scheduled without regard to claims.
    OldOnly,
    /// None.
    Off,
}

#[derive(Clone, Debug)]
pub(crate) struct Config {
    pub(crate) version: KubernetesVersion,
    pub(crate) dra: DraApi,
    pub(crate) feature_gates: BTreeMap<String, bool>,
    pub(crate) runtime: Vec<String>,
    pub(crate) extra_args: Vec<(Component, String)>,
    pub(crate) audit_policy: Option<String>,
    pub(crate) scheduler_config: Option<String>,
    pub(crate) issuer: Option<String>,
    pub(crate) real_nodes: u8,
    pub(crate) handlers: BTreeMap<String, RuntimeHandler>,
    pub(crate) specs: BTreeMap<String, String>,
    pub(crate) add_ons: BTreeSet<AddOn>,
    pub(crate) devices: Vec<String>,
    pub(crate) device_plugin: DevicePluginSettings,
    pub(crate) prometheus: PrometheusSettings,
    pub(crate) metrics_adapter: AdapterSettings,
    pub(crate) add_on_config: BTreeMap<AddOn, serde_json::Value>,
}

impl Default for Config {
    fn default() -> Self {
        Self {
            version: KubernetesVersion::default(),
            dra: DraApi::default(),
            feature_gates: BTreeMap::new(),
            runtime: Vec::new(),
            extra_args: Vec::new(),
            audit_policy: None,
            scheduler_config: None,
            issuer: None,
            real_nodes: 0,
            handlers: [
                ("runc".to_owned(), RuntimeHandler::Runc),
                ("gvisor".to_owned(), RuntimeHandler::Gvisor),
            ]
            .into(),
            specs: BTreeMap::new(),
            add_ons: BTreeSet::new(),
            devices: Vec::new(),
            device_plugin: DevicePluginSettings::default(),
            prometheus: PrometheusSettings::default(),
            metrics_adapter: AdapterSettings::default(),
            add_on_config: BTreeMap::new(),
        }
    }
}

impl Config {
    pub(crate) fn runtime_config(&self) -> Vec<String> {
        let group = |version: &str, on: bool| format!("resource.k8s.io/{version}={on}");
        let mut all = match self.dra {
            DraApi::Stable => vec![],
            DraApi::All => vec![
                group("v1beta1", true),
                group("v1beta2", true),
                group("v1alpha3", true),
            ],
            DraApi::OldOnly => vec![
                group("v1", false),
                group("v1beta1", true),
                group("v1beta2", true),
            ],
            DraApi::Off => vec![
                group("v1", false),
                group("v1beta1", false),
                group("v1beta2", false),
            ],
        };
        all.extend(self.runtime.iter().cloned());
        all
    }
}

/// Describes a control plane; [`start`](Self::start) makes it. Without any call it is a plain release with its defaults.
#[derive(Clone, Debug, Default)]
pub struct ControlPlaneBuilder {
    pub(crate) config: Config,
    pub(crate) name: Option<String>,
    pub(crate) kubeconfig_copy: Option<PathBuf>,
}

impl ControlPlaneBuilder {
    /// The Kubernetes release.
    #[must_use]
    pub fn version(mut self, version: KubernetesVersion) -> Self {
        self.config.version = version;
        self
    }

    /// The served versions of `resource.k8s.io`.
    #[must_use]
    pub fn dra(mut self, dra: DraApi) -> Self {
        self.config.dra = dra;
        self
    }

    /// Switches a feature gate in API server, controller-manager and scheduler.
    #[must_use]
    pub fn feature_gate(mut self, gate: impl Into<String>, on: bool) -> Self {
        self.config.feature_gates.insert(gate.into(), on);
        self
    }

    /// Adds an entry to the API server's `--runtime-config`, such as `scheduling.k8s.io/v1beta1=true`.
    #[must_use]
    pub fn runtime_config(mut self, entry: impl Into<String>) -> Self {
        self.config.runtime.push(entry.into());
        self
    }

    /// Switches on the Workload API with gangs, topology and pod-group claims, as far as this release has them.
    #[must_use]
    pub fn workload_api(mut self) -> Self {
        for gate in [
            "GenericWorkload",
            "TopologyAwareWorkloadScheduling",
            "WorkloadWithJob",
            "DRAWorkloadResourceClaims",
            "PodGroupPreemptionPolicy",
            "CompositePodGroup",
        ] {
            self = self.feature_gate(gate, true);
        }
        self.runtime_config("scheduling.k8s.io/v1beta1=true")
            .runtime_config("scheduling.k8s.io/v1alpha3=true")
    }

    /// Adds a command-line argument to one program, after all others.
    #[must_use]
    pub fn arg(mut self, component: Component, arg: impl Into<String>) -> Self {
        self.config.extra_args.push((component, arg.into()));
        self
    }

    /// Writes an audit log at level Metadata, one line for each answered request; see [`ControlPlane::audit_events`].
    #[must_use]
    pub fn audit(self) -> Self {
        self.audit_policy(METADATA_POLICY)
    }

    /// Writes an audit log with this policy (YAML of `audit.k8s.io/v1`).
    #[must_use]
    pub fn audit_policy(mut self, policy: impl Into<String>) -> Self {
        self.config.audit_policy = Some(policy.into());
        self
    }

    /// Gives the scheduler a `KubeSchedulerConfiguration` (YAML). `clientConnection.kubeconfig` is filled in.
    #[must_use]
    pub fn scheduler_config(mut self, yaml: impl Into<String>) -> Self {
        self.config.scheduler_config = Some(yaml.into());
        self
    }

    /// The issuer of service account tokens, in place of the address that a cluster has for itself.
    #[must_use]
    pub fn issuer(mut self, url: impl Into<String>) -> Self {
        self.config.issuer = Some(url.into());
        self
    }

    /// Adds nodes on which pods run: kubelet, containerd, kube-proxy and DNS, each node in namespaces of its own. At most
    /// eight. Needs root and what [`node_needs`](crate::node_needs) lists; the images are those of [`crate::images`].
    #[must_use]
    pub fn real_nodes(mut self, count: u8) -> Self {
        self.config.real_nodes = count;
        self
    }

    /// Adds a program that is not part of a cluster by itself.
    #[must_use]
    pub fn with(mut self, add_on: AddOn) -> Self {
        self.config.add_ons.insert(add_on);
        if add_on == AddOn::MetricsAdapter {
            self.config.add_ons.insert(AddOn::Prometheus);
        }
        self
    }

    /// Character devices of this machine that [`AddOn::DraDriver`] and [`AddOn::DevicePlugin`] give out, in place of two that do no
    /// harm. The same one twice makes a driver that gives one device to two.
    #[must_use]
    pub fn devices(mut self, paths: impl IntoIterator<Item = impl Into<String>>) -> Self {
        self.config.devices = paths.into_iter().map(Into::into).collect();
        self
    }

    /// Adds a device plugin that departs from the usual one.
    #[must_use]
    pub fn device_plugin(mut self, settings: DevicePluginSettings) -> Self {
        self.config.device_plugin = settings;
        self.with(AddOn::DevicePlugin)
    }

    /// Adds an adapter of metrics that departs from the usual one.
    #[must_use]
    pub fn metrics_adapter(mut self, settings: AdapterSettings) -> Self {
        self.config.metrics_adapter = settings;
        self.with(AddOn::MetricsAdapter)
    }

    /// Adds Prometheus with a configuration that departs from the usual one.
    #[must_use]
    pub fn prometheus(mut self, settings: PrometheusSettings) -> Self {
        self.config.prometheus = settings;
        self.with(AddOn::Prometheus)
    }

    /// Merges this into the configuration file of an operator, which is added by it too; other add-ons have no file.
    #[must_use]
    pub fn with_config(mut self, add_on: AddOn, config: serde_json::Value) -> Self {
        self.config.add_on_config.insert(add_on, config);
        self.with(add_on)
    }

    /// Says what runs the containers of a handler on the real nodes. Without any call `runc` (the default of pods without a
    /// RuntimeClass) is runc and `gvisor` is gVisor. The RuntimeClass itself is an object for a fixture.
    #[must_use]
    pub fn runtime_handler(mut self, name: impl Into<String>, handler: RuntimeHandler) -> Self {
        self.config.handlers.insert(name.into(), handler);
        self
    }

    /// Says what every container of a handler has beyond what containerd gives it by itself: a part of an OCI runtime
    /// specification, as YAML or JSON, whose lists are added to. `{node}` in it stands for the node's folder. A node that
    /// gives a device or a mount to everybody is made with it.
    #[must_use]
    pub fn runtime_spec(mut self, handler: impl Into<String>, more: impl Into<String>) -> Self {
        self.config.specs.insert(handler.into(), more.into());
        self
    }

    /// Gives the laboratory a name under which `status` and `stop` of [`crate::named`] find it.
    #[must_use]
    pub fn name(mut self, name: impl Into<String>) -> Self {
        self.name = Some(name.into());
        self
    }

    /// Also writes the administrator's kubeconfig to this path once the laboratory is ready.
    #[must_use]
    pub fn kubeconfig_copy(mut self, path: impl Into<PathBuf>) -> Self {
        self.kubeconfig_copy = Some(path.into());
        self
    }

    /// Starts everything and waits until pods could be created.
    ///
    /// Builds missing programs first, which takes minutes the very first time.
    ///
    /// # Errors
    /// A program is missing or ended; the message holds the last lines of its log.
    pub async fn start(self) -> Result<ControlPlane> {
        ControlPlane::start(self).await
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_plain_cluster_has_no_runtime_config() {
        assert!(Config::default().runtime_config().is_empty());
    }

    #[test]
    fn workload_api_needs_gate_and_versions() {
        let builder = ControlPlaneBuilder::default().workload_api();
        assert_eq!(
            builder.config.feature_gates.get("GenericWorkload"),
            Some(&true)
        );
        assert!(
            builder
                .config
                .runtime_config()
                .contains(&"scheduling.k8s.io/v1beta1=true".to_owned())
        );
    }
}
