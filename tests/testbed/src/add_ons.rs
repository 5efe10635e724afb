//! Programs beside the nodes that a laboratory is asked for by name. They run on the host, as operators run beside a kubelet,
//! or in pods where something must reach them; all end with the laboratory. Those that need no kubelet run in a laboratory
//! without real nodes too.
//!
//! Here are the list of them and the DRA driver; [`device_plugin`] is the other one that gives out devices, [`metrics_server`] and
//! [`gateway`] stand for themselves, [`controllers`] runs operators with their webhooks. What else runs in pods is in [`crate::node`].

mod agent_sandbox;
pub(crate) mod controllers;
pub(crate) mod device_plugin;
pub(crate) mod gateway;
mod jobset;
mod kueue;
mod leader_worker_set;
mod metrics_server;
mod trainer;

use std::os::unix::fs::FileTypeExt as _;
use std::path::PathBuf;

use kube::Api;
use kube::api::{DynamicObject, ListParams};
use kube::core::GroupVersionKind;
use kube::discovery::ApiResource;

use crate::control_plane::{ControlPlane, START_DEADLINE, TAIL_LINES};
use crate::error::{Result, TestbedError};
use crate::node::{MOST, RealNode};
use crate::pki::write_private;
use crate::registry::Registry;
use crate::state::tail;
use crate::supervise::{Fate, Launch, describe};

/// Something that is not part of a node by itself.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
#[non_exhaustive]
pub enum AddOn {
    /// A DRA driver with two harmless devices on each real node, and its DeviceClass `test-device.karat.local`.
    DraDriver,
    /// A device plugin with the same devices on each real node, as the extended resource `karat.local/test-device`.
    DevicePlugin,
    /// metrics-server, which gives what nodes and pods use as `metrics.k8s.io`, about twenty seconds after it was started.
    MetricsServer,
    /// The kinds of Gateway API and of its inference extension, with the endpoint picker of one InferencePool in a pod; no gateway.
    Gateway,
    /// A Prometheus in a pod, which fetches pods that ask for it by annotation: Service `prometheus` in `monitoring`, port 9090.
    Prometheus,
    /// An adapter that serves what this Prometheus has of pods as `custom.metrics.k8s.io`; Prometheus comes with it.
    MetricsAdapter,
    /// Kueue, which admits Jobs as a whole within the quota of queues.
    Kueue,
    /// The controller of JobSets.
    JobSet,
    /// The controller of LeaderWorkerSets.
    LeaderWorkerSet,
    /// Kubeflow Trainer, the controller of TrainJobs; it makes JobSets, so [`Self::JobSet`] must be there too.
    Trainer,
    /// The controllers of Sandboxes, and of templates, warm pools and claims of them.
    AgentSandbox,
    /// An empty registry that real nodes pull from; [`ControlPlane::registry`].
    Registry,
}

impl AddOn {
    /// All of them.
    pub const ALL: [Self; 12] = [
        Self::DraDriver,
        Self::DevicePlugin,
        Self::MetricsServer,
        Self::Gateway,
        Self::Prometheus,
        Self::MetricsAdapter,
        Self::Kueue,
        Self::JobSet,
        Self::LeaderWorkerSet,
        Self::Trainer,
        Self::AgentSandbox,
        Self::Registry,
    ];

    /// Its name for people, which is also that of its program.
    #[must_use]
    pub const fn name(self) -> &'static str {
        match self {
            Self::DraDriver => "dra-driver",
            Self::DevicePlugin => "device-plugin",
            Self::MetricsServer => "metrics-server",
            Self::Gateway => "gateway",
            Self::Prometheus => "prometheus",
            Self::MetricsAdapter => "metrics-adapter",
            Self::Kueue => "kueue",
            Self::JobSet => "jobset",
            Self::LeaderWorkerSet => "lws",
            Self::Trainer => "trainer",
            Self::AgentSandbox => "agent-sandbox",
            Self::Registry => "registry",
        }
    }

    /// Whether it is built with the programs of real nodes, which it serves, because that takes little longer. Who asks for another one
    /// waits for its build the first time.
    #[must_use]
    pub const fn comes_with_nodes(self) -> bool {
        self.needs_real_nodes() && !matches!(self, Self::MetricsServer | Self::Gateway)
    }

    /// Whether it serves real nodes and nothing else.
    #[must_use]
    pub const fn needs_real_nodes(self) -> bool {
        match self {
            Self::DraDriver
            | Self::DevicePlugin
            | Self::MetricsServer
            | Self::Gateway
            | Self::Prometheus
            | Self::MetricsAdapter => true,
            Self::Kueue
            | Self::JobSet
            | Self::LeaderWorkerSet
            | Self::Trainer
            | Self::AgentSandbox
            | Self::Registry => false,
        }
    }

    /// Whether it is built from Go modules; else it is a program of the distribution.
    #[must_use]
    pub const fn is_built(self) -> bool {
        !matches!(self, Self::Registry)
    }
}

/// Names of the drivers' processes and logs.
const DRIVERS: [&str; MOST as usize] = [
    "dra-driver-0",
    "dra-driver-1",
    "dra-driver-2",
    "dra-driver-3",
    "dra-driver-4",
    "dra-driver-5",
    "dra-driver-6",
    "dra-driver-7",
];

/// Devices that can be opened and closed without any effect, and that no runtime gives to every container. The first two
/// that this machine has are used.
const HARMLESS: [&str; 4] = [
    "/dev/fuse",
    "/dev/loop-control",
    "/dev/autofs",
    "/dev/btrfs-control",
];

/// The driver's name in slices and allocations.
const DRIVER: &str = "devices.karat.local";

impl ControlPlane {
    pub(crate) async fn start_add_ons(&self) -> Result<()> {
        if self.config.add_ons.contains(&AddOn::Registry) {
            self.start_registry()?;
        }
        if self.config.add_ons.contains(&AddOn::DraDriver) {
            self.start_dra_drivers().await?;
        }
        if self.config.add_ons.contains(&AddOn::DevicePlugin) {
            self.start_device_plugins().await?;
        }
        if self.config.add_ons.contains(&AddOn::MetricsServer) {
            self.start_metrics_server().await?;
        }
        if self.config.add_ons.contains(&AddOn::Gateway) {
            self.start_gateway().await?;
        }
        if self.config.add_ons.contains(&AddOn::Prometheus) {
            self.start_prometheus().await?;
        }
        if self.config.add_ons.contains(&AddOn::MetricsAdapter) {
            self.start_metrics_adapter().await?;
        }
        self.start_controllers().await
    }

    /// The registry of [`AddOn::Registry`].
    #[must_use]
    pub fn registry(&self) -> Option<&Registry> {
        self.registry.get()
    }

    fn start_registry(&self) -> Result<()> {
        let registry = Registry::start_in(self.state_dir(), self.address().into(), None)?;
        for node in self.real_nodes() {
            registry.trusted_by(node)?;
        }
        let _ = self.registry.set(registry);
        Ok(())
    }

    fn driver_log(&self, node: &RealNode) -> PathBuf {
        node.logs.join(format!("{}.log", driver(node)))
    }

    async fn start_dra_drivers(&self) -> Result<()> {
        let devices = self.devices_for(AddOn::DraDriver, &self.config.devices)?;
        self.apply("test-devices.yaml").await?;
        for node in self.real_nodes() {
            let kubeconfig = node.dir().join("dra-driver.kubeconfig");
            let identity = self
                .pki
                .client(AddOn::DraDriver.name(), &["system:masters"])?;
            write_private(
                &kubeconfig,
                &self.pki.kubeconfig(&self.url(), Some(&identity)),
            )?;
            let mut args = vec![
                format!("-kubeconfig={}", kubeconfig.display()),
                format!("-node={}", node.name()),
                format!("-kubelet={}", node.dir().join("kubelet").display()),
                format!("-cdi={}", node.dir().join("cdi").display()),
            ];
            args.extend(
                devices
                    .iter()
                    .enumerate()
                    .map(|(i, path)| format!("-device=dev-{i}={path}")),
            );
            let launch = Launch {
                program: self.programs.path(AddOn::DraDriver.name()),
                args: args.into_iter().map(Into::into).collect(),
                log: self.driver_log(node),
            };
            self.supervisor.start(driver(node), launch)?;
        }
        let kind = ApiResource::from_gvk_with_plural(
            &GroupVersionKind::gvk("resource.k8s.io", "v1", "ResourceSlice"),
            "resourceslices",
        );
        let slices: Api<DynamicObject> = Api::all_with(self.client().await?, &kind);
        for node in self.real_nodes() {
            self.wait(
                &format!("the devices of {} are published", node.name()),
                &self.driver_log(node),
                START_DEADLINE,
                async || {
                    let list = slices
                        .list(&ListParams::default())
                        .await
                        .map_err(|e| e.to_string())?;
                    let there = list.items.iter().any(|s| {
                        s.data["spec"]["driver"] == DRIVER
                            && s.data["spec"]["nodeName"] == node.name()
                    });
                    if there {
                        Ok(())
                    } else {
                        Err("no slice".to_owned())
                    }
                },
            )
            .await?;
        }
        Ok(())
    }

    /// The devices that were asked for, or the first two that do no harm.
    fn devices_for<'a>(&self, add_on: AddOn, asked: &'a [String]) -> Result<Vec<&'a str>> {
        let there =
            |path: &str| std::fs::metadata(path).is_ok_and(|m| m.file_type().is_char_device());
        let cannot = |cause: String| TestbedError::CannotRun {
            what: add_on.name().into(),
            cause,
            hint: "load the kernel module of another one".into(),
        };
        let asked: Vec<&str> = asked.iter().map(String::as_str).collect();
        if let Some(missing) = asked.iter().find(|path| !there(path)) {
            return Err(cannot(format!("{missing} is not on this machine")));
        }
        if !asked.is_empty() {
            return Ok(asked);
        }
        let devices: Vec<&str> = HARMLESS.into_iter().filter(|d| there(d)).take(2).collect();
        if devices.len() < 2 {
            return Err(cannot(format!(
                "fewer than two of {} are on this machine",
                HARMLESS.join(", ")
            )));
        }
        Ok(devices)
    }

    /// Fails if a program on the host that was started has ended.
    pub(crate) fn check_add_ons(&self, during: &str) -> Result<()> {
        self.check_controllers(during)?;
        let drivers = self
            .real_nodes()
            .iter()
            .map(|node| (driver(node), self.driver_log(node)));
        let metrics_server = (AddOn::MetricsServer.name(), self.metrics_server_log());
        for (name, log) in drivers.chain(self.device_plugins()).chain([metrics_server]) {
            if let Fate::Ended(status) = self.supervisor.fate(name)? {
                return Err(TestbedError::Exited {
                    component: name.to_owned(),
                    status: describe(status),
                    during: format!("waiting until {during}"),
                    tail: tail(&log, TAIL_LINES),
                    log,
                });
            }
        }
        Ok(())
    }
}

fn driver(node: &RealNode) -> &'static str {
    DRIVERS[usize::from(node.index)]
}
