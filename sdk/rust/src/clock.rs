//! Time, from the door: recorded, and replayed instead of relived.

use crate::host;
use std::time::Duration;

/// Wall-clock time, RFC 3339 in UTC with milliseconds.
pub fn now() -> String {
    host::now()
}

/// Time since the attempt began. Never goes back.
pub fn elapsed() -> Duration {
    Duration::from_millis(u64::from(host::elapsed_ms()))
}
