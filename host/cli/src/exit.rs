//! Exit codes: a contract with pipelines, described in `docs/reference/exit-codes.md`. Every way out of the program ends in
//! one of these; clap's own code for wrong usage is mapped to ours.

use karat_engine::model::{Outcome, ProbeRecord, Verdict};
use std::process::ExitCode;

/// How the program ends.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Exit {
    /// All selected probes passed, or the command did what it was asked.
    Passed,
    /// At least one verdict is `fail`; for `replay`: a recording does not hold; for `lint`: there is an error.
    Failed,
    /// Nothing failed, but at least one probe ended without a verdict of `pass` or `not-applicable`.
    Unclear,
    /// Wrong arguments or unreadable input.
    Usage,
    /// Cluster, file system or another program failed.
    Environment,
    /// A mistake of ours.
    Bug,
    /// Stopped by SIGINT.
    Interrupted,
    /// Stopped by SIGTERM or SIGHUP.
    Terminated,
}

impl Exit {
    /// The number.
    pub(crate) fn code(self) -> u8 {
        match self {
            Exit::Passed => 0,
            Exit::Failed => 1,
            Exit::Unclear => 2,
            Exit::Usage => 3,
            Exit::Environment => 4,
            Exit::Bug => 70,
            Exit::Interrupted => 130,
            Exit::Terminated => 143,
        }
    }

    /// What the last attempts of the selected probes amount to. A run in which nothing was selected could not tell.
    pub(crate) fn of_probes<'a>(probes: impl IntoIterator<Item = &'a ProbeRecord>) -> Exit {
        let mut exit = None;
        for probe in probes {
            let this = match probe.attempts.last() {
                Some(attempt) => match (attempt.judgement.verdict, &attempt.outcome) {
                    (Some(Verdict::Fail), _) => Exit::Failed,
                    (Some(Verdict::Pass | Verdict::NotApplicable), Outcome::Concluded) => {
                        Exit::Passed
                    }
                    _ => Exit::Unclear,
                },
                None => Exit::Unclear,
            };
            exit = Some(match (exit, this) {
                (Some(Exit::Failed), _) | (_, Exit::Failed) => Exit::Failed,
                (Some(Exit::Unclear), _) | (_, Exit::Unclear) => Exit::Unclear,
                _ => Exit::Passed,
            });
        }
        exit.unwrap_or(Exit::Unclear)
    }
}

impl From<Exit> for ExitCode {
    fn from(exit: Exit) -> Self {
        ExitCode::from(exit.code())
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::ui::samples::probe_record;

    #[test]
    fn the_worst_probe_decides() {
        let pass = probe_record("a", Some(Verdict::Pass), Outcome::Concluded);
        let fail = probe_record("b", Some(Verdict::Fail), Outcome::Concluded);
        let unknown = probe_record("c", Some(Verdict::Unknown), Outcome::Concluded);
        let trapped = probe_record("d", None, Outcome::Trapped("stack".into()));
        let absent = probe_record("e", Some(Verdict::NotApplicable), Outcome::Concluded);
        assert_eq!(Exit::of_probes([&pass, &absent]), Exit::Passed);
        assert_eq!(Exit::of_probes([&pass, &unknown]), Exit::Unclear);
        assert_eq!(Exit::of_probes([&trapped, &pass]), Exit::Unclear);
        assert_eq!(Exit::of_probes([&unknown, &fail, &pass]), Exit::Failed);
        assert_eq!(Exit::of_probes([]), Exit::Unclear);
    }

    #[test]
    fn a_pass_beside_a_trap_is_no_pass() {
        let odd = probe_record("a", Some(Verdict::Pass), Outcome::Trapped("late".into()));
        assert_eq!(Exit::of_probes([&odd]), Exit::Unclear);
    }

    #[test]
    fn only_the_last_attempt_counts() {
        let mut probe = probe_record("a", Some(Verdict::Fail), Outcome::Concluded);
        let again = probe_record("a", Some(Verdict::Pass), Outcome::Concluded);
        probe.attempts.extend(again.attempts);
        assert_eq!(Exit::of_probes([&probe]), Exit::Passed);
    }
}
