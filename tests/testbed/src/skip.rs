//! Tests that this machine cannot run: said by name, so that nobody takes a green line for a proof.

use std::io::Write as _;

/// Begin of the line that says so. `cargo xtask test` counts these lines.
pub const NOT_RUN: &str = "NOT RUN: ";

/// Says that a test was not run, and why. The line passes the test harness, which swallows only what its macros print.
pub fn not_run(test: &str, why: &str) {
    let why = why.replace('\n', " ");
    let _ = writeln!(std::io::stderr(), "{NOT_RUN}{test}: {why}");
}
