//! `cargo xtask test`: what tests need, then `cargo test`, then the runner's own totals added up.
//!
//! Output streams as it comes. The totals are read from the runner's `test result:` lines, never counted by us.

use std::ffi::OsString;
use std::io::{BufRead as _, BufReader, Write as _};
use std::process::ExitCode;

use anyhow::{Context as _, Result};

use crate::say::say;
use crate::timing::{human, last, remember};
use crate::workspace::{cargo, shown};
use crate::{lab, probes};

pub(crate) fn run(args: &[OsString]) -> Result<ExitCode> {
    if let Some(seconds) = last("test") {
        say(&format!("all of it took {} the last time", human(seconds)));
    }
    let began = std::time::Instant::now();
    // First and alone: compiling Kubernetes and Rust at the same time starves both on a small machine.
    lab::prepare()?;
    lab::prepare_nodes()?;
    lab::prepare_operators()?;
    probes::build_all()?;
    let (totals, ended_well) = cargo_test(args)?;
    totals.print();
    if totals.binaries.is_empty() {
        say("error: the runner reported no test result; see the compiler's message above");
        return Ok(ExitCode::FAILURE);
    }
    if args.is_empty() {
        remember("test", began.elapsed().as_secs_f64());
    }
    Ok(if ended_well && totals.sum().failed == 0 {
        ExitCode::SUCCESS
    } else {
        ExitCode::FAILURE
    })
}

fn cargo_test(args: &[OsString]) -> Result<(Totals, bool)> {
    let mut command = cargo();
    command.args(["test", "--no-fail-fast"]);
    let chosen = args.iter().any(|a| {
        matches!(
            a.to_str(),
            Some("-p" | "--package" | "--workspace" | "--all")
        ) || a.to_string_lossy().starts_with("--package=")
    });
    if !chosen {
        command.arg("--workspace");
    }
    command.args(args);
    say(&format!(
        "==> {} ({})",
        shown(&command),
        last("cargo test").map_or_else(
            || "first time".to_owned(),
            |s| format!("last time {}", human(s))
        )
    ));
    // One pipe for both streams keeps each binary's name before its result.
    let (reader, writer) = std::io::pipe().context("pipe")?;
    let began = std::time::Instant::now();
    let mut child = command
        .stdout(writer.try_clone()?)
        .stderr(writer)
        .spawn()
        .context("cargo test: cannot be started")?;
    // The command holds copies of the writing end; the loop below would never end with them.
    drop(command);
    let mut totals = Totals::default();
    let mut out = std::io::stdout();
    let mut line = Vec::new();
    let mut reader = BufReader::new(reader);
    while reader.read_until(b'\n', &mut line)? > 0 {
        let _ = out.write_all(&line);
        let _ = out.flush();
        totals.read(&String::from_utf8_lossy(&line));
        line.clear();
    }
    let status = child.wait()?;
    if status.success() && args.is_empty() {
        remember("cargo test", began.elapsed().as_secs_f64());
    }
    Ok((totals, status.success()))
}

/// Numbers of one `test result:` line.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
struct Counts {
    passed: u64,
    failed: u64,
    ignored: u64,
}

#[derive(Debug, Default)]
struct Totals {
    /// The binary whose lines are being read.
    current: String,
    binaries: Vec<(String, Counts)>,
    /// Tests that said by name that this machine cannot run them. They count as passed in the runner's own numbers.
    not_run: Vec<String>,
}

impl Totals {
    fn read(&mut self, line: &str) {
        let line = without_colour(line);
        let line = line.trim();
        if let Some(rest) = line.strip_prefix("Running ") {
            // `unittests src/lib.rs (target/debug/deps/karat_engine-0123456789abcdef)`
            let binary = rest
                .rsplit_once('(')
                .map_or(rest, |(_, path)| path.trim_end_matches(')'));
            let file = binary.rsplit('/').next().unwrap_or(binary);
            let crate_name = file.rsplit_once('-').map_or(file, |(name, _)| name);
            let source = rest.split(" (").next().unwrap_or_default();
            self.current = format!("{crate_name} ({source})");
        } else if let Some(rest) = line.strip_prefix("Doc-tests ") {
            self.current = format!("{rest} (documentation)");
        } else if let Some((_, rest)) = line.split_once(karat_testbed::NOT_RUN) {
            // Another thread may have begun a line of its own before it.
            self.not_run.push(rest.to_owned());
        } else if let Some(counts) = counts(line) {
            self.binaries.push((self.current.clone(), counts));
        }
    }

    fn sum(&self) -> Counts {
        self.binaries
            .iter()
            .fold(Counts::default(), |a, (_, b)| Counts {
                passed: a.passed + b.passed,
                failed: a.failed + b.failed,
                ignored: a.ignored + b.ignored,
            })
    }

    fn print(&self) {
        say("==> totals");
        for (name, c) in self
            .binaries
            .iter()
            .filter(|(_, c)| *c != Counts::default())
        {
            say(&format!(
                "    {:5} passed {:3} failed {:3} ignored  {name}",
                c.passed, c.failed, c.ignored
            ));
        }
        for what in &self.not_run {
            say(&format!("    not run: {what}"));
        }
        let sum = self.sum();
        let verdict = if sum.failed == 0 { "ok" } else { "FAILED" };
        say(&format!(
            "test totals: {verdict}. {} passed; {} failed; {} ignored; {} not run on this machine; {} binaries",
            sum.passed.saturating_sub(self.not_run.len() as u64),
            sum.failed,
            sum.ignored,
            self.not_run.len(),
            self.binaries.len()
        ));
    }
}

/// `test result: ok. 3 passed; 0 failed; 1 ignored; …`
fn counts(line: &str) -> Option<Counts> {
    let (_, rest) = line.strip_prefix("test result: ")?.split_once(". ")?;
    let number = |word: &str| {
        rest.split("; ")
            .find_map(|part| part.trim().strip_suffix(word)?.trim().parse().ok())
    };
    Some(Counts {
        passed: number("passed")?,
        failed: number("failed")?,
        ignored: number("ignored")?,
    })
}

/// The text without escape sequences for colour.
fn without_colour(line: &str) -> String {
    let mut text = String::with_capacity(line.len());
    let mut chars = line.chars();
    while let Some(c) = chars.next() {
        if c == '\u{1b}' {
            chars.by_ref().find(|c| c.is_ascii_alphabetic());
        } else {
            text.push(c);
        }
    }
    text
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn results_are_added_up_with_their_binaries() {
        let mut totals = Totals::default();
        for line in [
            "     Running unittests src/lib.rs (target/debug/deps/karat_engine-0123456789abcdef)\n",
            "test a ... ok\n",
            "\u{1b}[32mtest result: \u{1b}[0m\u{1b}[32mok\u{1b}[0m. 3 passed; 0 failed; 1 ignored; 0 measured; 0 filtered out; finished in 0.00s\n",
            "     Running tests/it/main.rs (target/debug/deps/it-0123456789abcdef)\n",
            "test result: FAILED. 5 passed; 2 failed; 0 ignored; 0 measured; 4 filtered out; finished in 0.10s\n",
            "   Doc-tests karat_engine\n",
            "test result: ok. 1 passed; 0 failed; 0 ignored; 0 measured; 0 filtered out; finished in 0.10s\n",
        ] {
            totals.read(line);
        }
        assert_eq!(
            totals.sum(),
            Counts {
                passed: 9,
                failed: 2,
                ignored: 1
            }
        );
        let names: Vec<_> = totals.binaries.iter().map(|(n, _)| n.as_str()).collect();
        assert_eq!(
            names,
            [
                "karat_engine (unittests src/lib.rs)",
                "it (tests/it/main.rs)",
                "karat_engine (documentation)"
            ]
        );
    }

    #[test]
    fn what_was_not_run_is_counted_by_name() {
        let mut totals = Totals::default();
        totals.read("test a ... NOT RUN: node::pods: nft: not found\n");
        totals.read("NOT RUN: the page: no browser\n");
        assert_eq!(
            totals.not_run,
            ["node::pods: nft: not found", "the page: no browser"]
        );
        assert!(totals.binaries.is_empty());
    }

    #[test]
    fn a_line_of_a_test_that_looks_like_a_result_needs_all_numbers() {
        assert_eq!(counts("test result: ok. none"), None);
        assert_eq!(
            counts("my test result: ok. 3 passed; 0 failed; 0 ignored"),
            None
        );
    }
}
