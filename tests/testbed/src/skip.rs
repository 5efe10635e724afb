//! Tests that this machine cannot run: said by name, so that nobody takes a green line for a proof.

use std::io::Write as _;

/// Begin of the line that says so. `cargo xtask test` counts these lines.
pub const NOT_RUN: &str = "NOT RUN: ";

/// Says that a test was not run, and why. The line passes the test harness, which swallows only what its macros print.
pub fn not_run(test: &str, why: &str) {
    // One write: other threads write to the same place.
    let line = format!("{NOT_RUN}{test}: {}\n", why.replace('\n', " "));
    let _ = std::io::stderr().write_all(line.as_bytes());
}
