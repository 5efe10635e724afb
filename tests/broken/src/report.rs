//! The JSON file with what became of every entry, and the sums.

use std::collections::BTreeMap;
use std::path::{Path, PathBuf};

use anyhow::{Context as _, Result};
use serde::{Deserialize, Serialize};
use serde_json::{Value, json};

use crate::one::Done;
use crate::verdict::{Mark, said};

/// Version of the file's form.
const FORMAT: &str = "0.1";

/// How many of which.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub struct Sums {
    /// Faults found.
    pub found: usize,
    /// Conforming clusters that were not accused.
    pub cleared: usize,
    /// Everything that was not as expected, but the next.
    pub missed: usize,
    /// Those of them that are known, with a reason.
    pub known: usize,
    /// Conforming clusters that were accused.
    pub false_accusations: usize,
    /// Clusters that this machine cannot have. Nothing is known of them.
    #[serde(default)]
    pub not_run: usize,
}

impl Sums {
    /// Counts.
    #[must_use]
    pub fn of(all: &[Done]) -> Self {
        let count = |mark: Mark| all.iter().filter(|done| done.mark == mark).count();
        let known = |done: &&Done| done.mark == Mark::Missed && done.entry.known_miss.is_some();
        Self {
            found: count(Mark::Found),
            cleared: count(Mark::Cleared),
            missed: count(Mark::Missed),
            known: all.iter().filter(known).count(),
            false_accusations: count(Mark::FalseAccusation),
            not_run: count(Mark::NotRun),
        }
    }

    /// Whether nothing was missed but what is known, and nobody accused.
    #[must_use]
    pub fn fine(self) -> bool {
        self.missed == self.known && self.false_accusations == 0
    }
}

impl std::fmt::Display for Sums {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(
            f,
            "mutants: {} found, {} missed, {} false accusations",
            self.found, self.missed, self.false_accusations
        )?;
        if self.not_run > 0 {
            write!(f, ", {} not run on this machine", self.not_run)?;
        }
        Ok(())
    }
}

/// Writes the file beside the old one and swaps them.
///
/// # Errors
/// If it cannot be written.
pub fn write(path: &Path, all: &[Done], selected: usize) -> Result<()> {
    let sums = Sums::of(all);
    let mut entries: Vec<&Done> = all.iter().collect();
    entries.sort_by_key(|done| done.entry.id());
    let value = json!({
        "format": FORMAT,
        "selected": selected,
        "complete": all.len() == selected,
        "sums": sums,
        "entries": entries.into_iter().map(entry).collect::<Vec<_>>(),
    });
    if let Some(folder) = path.parent() {
        std::fs::create_dir_all(folder).with_context(|| folder.display().to_string())?;
    }
    let beside = path.with_extension(format!("{}.new", std::process::id()));
    std::fs::write(&beside, serde_json::to_vec_pretty(&value)?)
        .with_context(|| beside.display().to_string())?;
    std::fs::rename(&beside, path).with_context(|| path.display().to_string())
}

fn entry(done: &Done) -> Value {
    let entry = &done.entry;
    json!({
        "probe": entry.probe,
        "name": entry.name,
        "conforming": entry.conforming,
        "what": entry.what,
        "careless": entry.careless,
        "expected": entry.expect.verdict().to_string(),
        "verdict": done.verdict,
        "reason": done.reason,
        "said": said(done.verdict, done.reason),
        "explanation": done.explanation,
        "cases": done.cases,
        "mark": done.mark,
        "known-miss": entry.known_miss,
        "wrong": done.wrong,
        "notes": done.notes,
        "seconds": (done.took.as_secs_f64() * 10.0).round() / 10.0,
    })
}

/// Where the times of all entries lie, beside the results: those of a part must not make one forget the others.
fn times(path: &Path) -> PathBuf {
    path.with_extension("seconds.json")
}

/// Seconds that entries took the last time, by `probe/name`; empty if that is not known.
#[must_use]
pub fn seconds_of(path: &Path) -> BTreeMap<String, f64> {
    let read = || serde_json::from_slice(&std::fs::read(times(path)).ok()?).ok();
    read().unwrap_or_default()
}

/// Remembers how long entries took, beside what is known of others.
///
/// # Errors
/// If it cannot be written.
pub fn remember(path: &Path, all: &[Done]) -> Result<()> {
    let mut seconds = seconds_of(path);
    let run = all.iter().filter(|d| d.mark != Mark::NotRun);
    seconds.extend(run.map(|d| (d.entry.id(), d.took.as_secs_f64())));
    let path = times(path);
    std::fs::write(&path, serde_json::to_vec(&seconds)?).with_context(|| path.display().to_string())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_known_miss_is_counted_and_forgiven_and_an_accusation_is_not() {
        let sums = Sums {
            found: 30,
            missed: 1,
            known: 1,
            ..Sums::default()
        };
        assert!(sums.fine());
        assert_eq!(
            sums.to_string(),
            "mutants: 30 found, 1 missed, 0 false accusations"
        );
        let not_run = Sums { not_run: 2, ..sums };
        assert!(not_run.fine() && not_run.to_string().ends_with(", 2 not run on this machine"));
        assert!(!Sums { known: 0, ..sums }.fine());
        assert!(
            !Sums {
                false_accusations: 1,
                ..sums
            }
            .fine()
        );
    }

    #[test]
    fn times_of_a_part_do_not_make_one_forget_the_others() {
        let folder = std::env::temp_dir().join(format!("karat-times-{}", std::process::id()));
        std::fs::create_dir_all(&folder).unwrap();
        let path = folder.join("mutants.json");
        let all = crate::table::load(&crate::table::folder()).unwrap();
        let done = |i: usize| {
            let took = std::time::Duration::from_secs(7);
            Done::broken_off(&all[i], &anyhow::anyhow!("x"), took)
        };
        remember(&path, &[done(0)]).unwrap();
        remember(&path, &[done(1)]).unwrap();
        let seconds = seconds_of(&path);
        assert_eq!(seconds.len(), 2);
        assert_eq!(seconds.get(&all[0].id()), Some(&7.0));
        std::fs::remove_dir_all(folder).unwrap();
    }

    #[test]
    fn a_file_that_is_not_there_gives_no_estimate() {
        assert!(seconds_of(Path::new("/nonexistent/mutants.json")).is_empty());
    }
}
