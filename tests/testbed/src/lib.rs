//! A real Kubernetes for tests: etcd, kube-apiserver, kube-controller-manager, kube-scheduler and kwok as processes on
//! loopback, ready in seconds, gone without a trace; on a machine that can, with real nodes beside the simulated ones.
//!
//! ```no_run
//! # async fn f() -> karat_testbed::Result<()> {
//! use karat_testbed::ControlPlane;
//!
//! let lab = ControlPlane::builder().audit().start().await?;
//! lab.apply("nvidia-nodes.yaml").await?;
//! lab.wait_nodes_ready().await?;
//! let client = lab.client().await?;
//! # Ok(()) }
//! ```
//!
//! Reading order: [`ControlPlaneBuilder`] (what can be asked for), [`ControlPlane`] (what a running one offers),
//! [`proxy`] (how a cluster is broken in exactly one way), [`named`] (laboratories that outlive a command), [`scale`]
//! (thousands of nodes and pods), [`RealNode`] (nodes whose pods run), [`images`] (what runs in them).
//!
//! It refuses to use the developer's kubeconfig, fixed ports, programs of a wrong version, and any address that can be
//! reached from outside this machine. Pods on kwok nodes are played, and nothing may be concluded from them about a real
//! node; [`ControlPlaneBuilder::real_nodes`] gives nodes with a kubelet.

mod add_ons;
mod apply;
mod components;
mod config;
mod control_plane;
mod error;
mod gobuild;
pub mod images;
pub mod named;
mod node;
mod pki;
mod programs;
pub mod proxy;
mod registry;
pub mod scale;
mod shared;
mod skip;
mod state;
mod supervise;
mod version;

pub use add_ons::AddOn;
pub use add_ons::controllers::{pause_process, resume_process};
pub use add_ons::device_plugin::DevicePluginSettings;
pub use apply::{Applied, apply_yaml, fixture_path};
pub use components::Component;
pub use config::{ControlPlaneBuilder, DraApi};
pub use control_plane::{ControlPlane, client_of};
pub use error::{Result, TestbedError};
pub use gobuild::{Go, cache_dir};
pub use node::needs::{Need, can_run_nodes, gvisor_need, node_needs};
pub use node::{AdapterSettings, NODE_PROGRAMS, PrometheusSettings, RealNode, RuntimeHandler};
pub use pki::{Identity, Pki};
pub use programs::{
    Found, Origin, prepare, prepare_add_ons, prepare_nodes, survey, survey_add_ons, survey_nodes,
};
pub use registry::Registry;
pub use shared::shared;
pub use skip::{NOT_RUN, not_run};
pub use supervise::die_with_parent;
pub use version::KubernetesVersion;
