//! A real Kubernetes for tests: etcd, kube-apiserver, kube-controller-manager, kube-scheduler and kwok as processes on
//! loopback, ready in seconds, gone without a trace.
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
//! (thousands of nodes and pods).
//!
//! It refuses to use the developer's kubeconfig, any address but 127.0.0.1, fixed ports, and programs of a wrong version.
//! There is no kubelet: pods on kwok nodes are played, and nothing may be concluded about a real node.

mod apply;
mod components;
mod config;
mod control_plane;
mod error;
mod gobuild;
pub mod named;
mod pki;
mod programs;
pub mod proxy;
pub mod scale;
mod shared;
mod state;
mod supervise;
mod version;

pub use apply::{Applied, apply_yaml, fixture_path};
pub use components::Component;
pub use config::{ControlPlaneBuilder, DraApi};
pub use control_plane::{ControlPlane, client_of};
pub use error::{Result, TestbedError};
pub use gobuild::{Go, cache_dir};
pub use pki::{Identity, Pki};
pub use programs::{Found, Origin, prepare, survey};
pub use shared::shared;
pub use supervise::die_with_parent;
pub use version::KubernetesVersion;
