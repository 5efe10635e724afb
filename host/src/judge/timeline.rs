//! Which case was open when: followed from the recorded calls of `cases` themselves, never from what an entry says about
//! itself, so that a forged `case` field moves nothing.

use crate::manifest::{Case, Manifest};
use crate::model::{CaseKey, Conclusion};
use crate::recording::format::{Entry, ReplyKind, function};
use serde::Deserialize;
use std::collections::BTreeSet;

/// One case that was opened.
#[derive(Debug)]
pub(super) struct Opened<'a> {
    /// Its declaration.
    pub(super) case: &'a Case,
    /// Id and subject.
    pub(super) key: CaseKey,
    /// Index of the entry that opened it.
    pub(super) from: usize,
    /// Index of the entry that concluded it; the number of entries when none did.
    pub(super) until: usize,
    /// What the probe said.
    pub(super) conclusion: Option<Conclusion>,
    /// Index, name and value of what it showed.
    pub(super) observed: Vec<(usize, String, String)>,
}

/// The cases of an attempt in the order in which they were opened.
#[derive(Debug)]
pub(super) struct Timeline<'a> {
    entries: &'a [Entry],
    pub(super) opened: Vec<Opened<'a>>,
    /// The first thing that no recording of ours can hold; it forbids a pass.
    pub(super) breach: Option<String>,
    /// Leases: number, index of the entry that took it, index of the one that gave it back.
    leases: Vec<(u32, usize, usize)>,
}

#[derive(Deserialize)]
struct Observe {
    name: String,
    value: String,
}

#[derive(Deserialize)]
struct Conclude {
    outcome: Conclusion,
}

impl<'a> Timeline<'a> {
    pub(super) fn follow(manifest: &'a Manifest, entries: &'a [Entry]) -> Timeline<'a> {
        let mut opened: Vec<Opened<'a>> = Vec::new();
        let mut seen: BTreeSet<CaseKey> = BTreeSet::new();
        let mut open: Option<usize> = None;
        let mut breach: Option<String> = None;
        let mut leases: Vec<(u32, usize, usize)> = Vec::new();
        let mut broken = |entry: &Entry, what: &str| {
            breach.get_or_insert_with(|| format!("call {} {what}", entry.sequence));
        };
        for (index, entry) in entries.iter().enumerate() {
            // What the door refused did not happen.
            if entry.result != ReplyKind::Ok {
                continue;
            }
            let current = open.and_then(|at| opened.get_mut(at));
            match (entry.function.as_str(), current) {
                (function::CASES_OPEN, None) => {
                    let Ok(key) = CaseKey::deserialize(&entry.arguments) else {
                        broken(entry, "opens a case without id and subject");
                        continue;
                    };
                    let Some(case) = manifest.cases.iter().find(|case| case.id == key.id) else {
                        broken(entry, "opens a case that the manifest does not declare");
                        continue;
                    };
                    if !seen.insert(key.clone()) {
                        broken(entry, "opens a case a second time");
                        continue;
                    }
                    open = Some(opened.len());
                    opened.push(Opened {
                        case,
                        key,
                        from: index,
                        until: entries.len(),
                        conclusion: None,
                        observed: Vec::new(),
                    });
                }
                (function::CASES_OPEN, Some(_)) => {
                    broken(entry, "opens a case while another one is open");
                }
                (function::CASES_OBSERVE, Some(current)) => {
                    match Observe::deserialize(&entry.arguments) {
                        Ok(Observe { name, value }) => current.observed.push((index, name, value)),
                        Err(_) => broken(entry, "shows nothing"),
                    }
                }
                (function::CASES_CONCLUDE, Some(current)) => {
                    current.until = index;
                    current.conclusion = Some(match Conclude::deserialize(&entry.arguments) {
                        Ok(Conclude { outcome }) => outcome,
                        Err(error) => {
                            broken(entry, "concludes nothing");
                            Conclusion::Other(error.to_string())
                        }
                    });
                    open = None;
                }
                (function::LEASES_ACQUIRE, _) => {
                    if let Some(lease) = &entry.facts.lease {
                        leases.push((lease.number, index, entries.len()));
                    }
                }
                (function::LEASES_RELEASE, _) => {
                    let number = entry
                        .arguments
                        .get("lease")
                        .and_then(serde_json::Value::as_u64);
                    let held = leases.iter_mut().find(|(held, _, until)| {
                        Some(u64::from(*held)) == number && *until == entries.len()
                    });
                    if let Some((_, _, until)) = held {
                        *until = index;
                    }
                }
                (function::CASES_OBSERVE | function::CASES_CONCLUDE, None) => {
                    broken(entry, "speaks of a case while none is open");
                }
                _ => {}
            }
        }
        Timeline {
            entries,
            opened,
            breach,
            leases,
        }
    }

    /// Numbers of the leases that were held when the case ended.
    pub(super) fn leases(&self, opened: &Opened<'_>) -> BTreeSet<u32> {
        let at = opened.until;
        let held = self.leases.iter();
        held.filter(|(_, from, until)| *from < at && at <= *until)
            .map(|(number, _, _)| *number)
            .collect()
    }

    /// What others changed on leased nodes, as it was found when the case was concluded.
    pub(super) fn changed(&self, opened: &Opened<'_>) -> &'a [String] {
        let entries: &'a [Entry] = self.entries;
        entries
            .get(opened.until)
            .map_or(&[], |entry| entry.facts.changed.as_slice())
    }

    /// The calls made while the case was open.
    pub(super) fn calls(&self, opened: &Opened<'_>) -> impl Iterator<Item = &'a Entry> + use<'a> {
        self.entries[opened.from + 1..opened.until].iter()
    }

    /// When it was opened, in milliseconds of the attempt.
    pub(super) fn opened_ms(&self, opened: &Opened<'_>) -> u64 {
        self.entries[opened.from].done_ms
    }
}
