//! Who we are in this run: names, namespaces and images of the manifest.

use crate::error::Result;
use crate::host;

/// The run id, 8 characters of lowercase base32.
pub fn id() -> String {
    host::run_id()
}

/// A name for an object of this run: `<prefix>-<run id>`. The same prefix gives the same name.
pub fn name(prefix: &str) -> String {
    host::run_name(prefix)
}

/// The sandbox namespace that the manifest declares under this alias. It exists when the call returns.
///
/// # Errors
/// Those of the door.
pub fn namespace(alias: &str) -> Result<String> {
    host::namespace(alias)
}

/// The image that the manifest declares under this name, after the operator's mirrors.
///
/// # Errors
/// Those of the door.
pub fn image(name: &str) -> Result<String> {
    host::image(name)
}
