//! One control plane for all tests of a test binary.

use tokio::sync::OnceCell;

use crate::config::DraApi;
use crate::control_plane::ControlPlane;
use crate::error::Result;

static SHARED: OnceCell<ControlPlane> = OnceCell::const_new();

/// A control plane that all callers of this process share: every version of `resource.k8s.io`, audit log on, no nodes.
///
/// Tests that use it must work in namespaces and under names of their own and must not stop its programs. It ends with
/// the process, by whatever way that ends.
///
/// # Errors
/// The start failed; the next caller tries again.
pub async fn shared() -> Result<&'static ControlPlane> {
    SHARED
        .get_or_try_init(|| ControlPlane::builder().dra(DraApi::All).audit().start())
        .await
}
