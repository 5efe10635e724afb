//! Lines for the people who read the run. Not evidence.

use crate::host;

/// Details.
pub fn debug(text: impl AsRef<str>) {
    host::log("debug", text.as_ref());
}

/// What happens.
pub fn info(text: impl AsRef<str>) {
    host::log("info", text.as_ref());
}

/// What a reader should know.
pub fn warn(text: impl AsRef<str>) {
    host::log("warn", text.as_ref());
}

/// What went wrong inside the probe.
pub fn error(text: impl AsRef<str>) {
    host::log("error", text.as_ref());
}
