//! The only place that prints. Words for people go to standard error, so that `testbed env` can be evaluated.

#![expect(
    clippy::print_stdout,
    clippy::print_stderr,
    reason = "a command that talks to a person"
)]

/// One line for people.
pub(crate) fn say(line: &str) {
    eprintln!("{line}");
}

/// One line of data for a pipe.
pub(crate) fn data(line: &str) {
    println!("{line}");
}
