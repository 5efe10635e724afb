//! Files of evidence. `place.rs` says where a path leads, `origin.rs` what a file says of its making; only plain files inside the
//! product folder are opened here.

use super::artifact::{self, Kind, Outcome, Results, Unreadable};
use super::origin::{RELEASED, cluster_of, server_version};
use super::place::{Place, State, resolve, state};
use super::product::{find, is_left_empty, last_entries};
use super::{Expected, Findings, PRODUCT, quoted};
use crate::catalog::Level;
use crate::form::{Checklist, Entry, Text};
use std::collections::{BTreeMap, BTreeSet};
use std::io::Read as _;
use std::path::{Path, PathBuf};

/// Largest artefact that is read, in bytes.
const ARTIFACT_MAX: u64 = 16 << 20;

/// How much of another file is looked at for results under a wrong name, in bytes.
const GLANCE: u64 = 256 << 10;

/// Longest line that is searched for versions and clusters, in bytes.
const LINE_MAX: usize = 4096;

/// Most failed tests that one message names.
const NAMED_MAX: usize = 5;

/// Requirements with an official test, and its name.
const OFFICIAL_TESTS: &[(&str, &str)] = &[
    ("secure_accelerator_access", "TestSecureAcceleratorAccess"),
    ("gang_scheduling", "TestGangScheduling"),
    ("cluster_autoscaling", "TestAcceleratorClusterAutoscaling"),
];

/// The first minor version of Kubernetes 1 for which artefacts are recommended.
const HYBRID_FROM: u32 = 37;

/// Checks the evidence of every entry.
pub(super) fn check(
    root: &Path,
    list: &Checklist,
    expected: &[Expected],
    version: Option<&str>,
    findings: &mut Findings,
) {
    let mut files = Files {
        root,
        version,
        artifacts: BTreeMap::new(),
        looked_at: BTreeSet::new(),
        clusters: BTreeMap::new(),
        findings,
    };
    for entry in last_entries(list) {
        // An entry that no form has is passed over by the validator, and so is a SHOULD that was left empty.
        if let Some(known) = find(expected, entry)
            && !is_left_empty(entry, known)
        {
            files.entry(entry, known);
        }
    }
    files.foreign();
}

struct Files<'a> {
    root: &'a Path,
    version: Option<&'a str>,
    /// Artefacts that were read; none where that failed and has been said.
    artifacts: BTreeMap<PathBuf, Option<Results>>,
    looked_at: BTreeSet<PathBuf>,
    /// Where each cluster was named first.
    clusters: BTreeMap<String, (String, u32)>,
    findings: &'a mut Findings,
}

fn is_link(text: &str) -> bool {
    text.starts_with("http://") || text.starts_with("https://")
}

impl Files<'_> {
    fn entry(&mut self, entry: &Entry, known: &Expected) {
        let implemented = entry.status.text == "Implemented";
        let given: Vec<&Text> = entry
            .evidence
            .iter()
            .filter(|text| !text.text.is_empty())
            .collect();
        if implemented && given.is_empty() {
            let message = format!("`{}` is Implemented without evidence", known.id);
            self.findings
                .add("evidence-empty", PRODUCT, entry.line, message);
        }
        let links = given.iter().filter(|text| is_link(&text.text)).count();
        if implemented && known.level == Level::Must && links > 0 && links == given.len() {
            let message = format!("`{}` rests on links alone", known.id);
            self.findings.add(
                "evidence-links-only",
                PRODUCT,
                entry.evidence[0].line,
                message,
            );
        }
        let mut has_artifact = false;
        for text in given.into_iter().filter(|text| !is_link(&text.text)) {
            has_artifact |= self.local(entry, known, text);
        }
        let official = official_test(&known.id);
        if let Some(test) = official.filter(|_| implemented && !has_artifact && self.is_hybrid()) {
            let message = format!(
                "`{}` has the official test {test}, and no artefact of it",
                known.id
            );
            self.findings
                .add("artifact-absent", PRODUCT, entry.line, message);
        }
    }

    fn is_hybrid(&self) -> bool {
        let numbers = self.version.and_then(|version| version.split_once('.'));
        let numbers =
            numbers.and_then(|(major, minor)| Some((major.parse().ok()?, minor.parse().ok()?)));
        numbers.is_some_and(|(major, minor): (u32, u32)| {
            major > 1 || major == 1 && minor >= HYBRID_FROM
        })
    }

    /// Checks one path; whether it is an artefact that is there.
    fn local(&mut self, entry: &Entry, known: &Expected, text: &Text) -> bool {
        let shown = quoted(&text.text);
        let place = match resolve(self.root, &text.text) {
            Ok(place) => place,
            Err(cause) => {
                self.findings.add(
                    "evidence-path",
                    PRODUCT,
                    text.line,
                    format!("`{shown}` {cause}"),
                );
                return false;
            }
        };
        if text.text.trim_start().starts_with("file://") || place.fragment.is_some() {
            let message = format!("`{shown}` is more than a path");
            self.findings
                .add("evidence-file-url", PRODUCT, text.line, message);
        }
        let kind = place
            .path
            .file_name()
            .and_then(|name| Kind::of(&name.to_string_lossy()));
        match state(self.root, &place.path) {
            State::Absent => {
                let message = format!("`{shown}` is not there");
                self.findings
                    .add("evidence-missing", PRODUCT, text.line, message);
                return false;
            }
            State::Linked => {
                let message = format!("`{shown}` goes through a symbolic link");
                self.findings
                    .add("evidence-symlink", PRODUCT, text.line, message);
                if kind.is_some() {
                    let message = "this is reached through a link and not read";
                    self.findings
                        .add("artifact-unsupported", &place.name, 0, message);
                }
                return kind.is_some();
            }
            State::Hollow => {
                let message = format!("`{shown}` has no content");
                self.findings
                    .add("evidence-hollow", PRODUCT, text.line, message);
            }
            State::Odd if kind.is_some() => {
                self.findings.add(
                    "artifact-unsupported",
                    &place.name,
                    0,
                    "this is no plain file",
                );
                return true;
            }
            State::Odd => {
                self.findings.add(
                    "evidence-hollow",
                    PRODUCT,
                    text.line,
                    format!("`{shown}` is no plain file"),
                );
                return false;
            }
            State::File | State::Folder => {}
        }
        match kind {
            Some(kind) => self.artifact(entry, known, text, &place, kind),
            None => self.glance(&place),
        }
        kind.is_some()
    }

    fn artifact(
        &mut self,
        entry: &Entry,
        known: &Expected,
        text: &Text,
        place: &Place,
        kind: Kind,
    ) {
        if !self.artifacts.contains_key(&place.path) {
            let results = self.read_artifact(place, kind);
            self.artifacts.insert(place.path.clone(), results);
        }
        let Some(Some(results)) = self.artifacts.get(&place.path) else {
            return;
        };
        let test = match place.fragment.as_deref() {
            Some(fragment) if !fragment.is_empty() => fragment,
            _ => match official_test(&known.id) {
                Some(test) => test,
                None => return,
            },
        };
        let (id, about) = match results.outcome_of(test) {
            None => ("test-missing", "is not in"),
            Some(Outcome::Fail) => ("test-failed", "failed in"),
            Some(Outcome::Skip) if entry.status.text == "Implemented" => {
                ("test-skipped", "was skipped in")
            }
            Some(Outcome::Skip | Outcome::Pass) => return,
        };
        let message = format!(
            "`{}` of `{}` {about} {}",
            quoted(test),
            known.id,
            quoted(&place.name)
        );
        self.findings.add(id, PRODUCT, text.line, message);
    }

    fn read_artifact(&mut self, place: &Place, kind: Kind) -> Option<Results> {
        let name = &place.name;
        let mut bytes = Vec::new();
        let read = std::fs::File::open(&place.path)
            .and_then(|file| file.take(ARTIFACT_MAX + 1).read_to_end(&mut bytes));
        if let Err(error) = read {
            let message = format!("it cannot be read: {error}");
            self.findings.add("artifact-unreadable", name, 0, message);
            return None;
        }
        if bytes.len() as u64 > ARTIFACT_MAX {
            self.findings.add(
                "artifact-unsupported",
                name,
                0,
                "the file has more than 16 MB",
            );
            return None;
        }
        if kind == Kind::Junit && std::str::from_utf8(&bytes).is_err() {
            let message = "a byte is no UTF-8";
            self.findings.add("artifact-unreadable", name, 0, message);
            return None;
        }
        let text = String::from_utf8_lossy(&bytes);
        let results = match artifact::read(kind, &text) {
            Ok(results) => results,
            Err(Unreadable {
                line,
                what,
                unsupported,
            }) => {
                let id = if unsupported {
                    "artifact-unsupported"
                } else {
                    "artifact-unreadable"
                };
                self.findings.add(id, name, line, quoted(&what));
                return None;
            }
        };
        if !results.failures.is_empty() {
            let named: Vec<String> = results
                .failures
                .iter()
                .take(NAMED_MAX)
                .map(|name| quoted(name))
                .collect();
            let more = results.failures.len().saturating_sub(NAMED_MAX);
            let more = if more > 0 {
                format!(" and {more} more")
            } else {
                String::new()
            };
            let message = format!("failing: {}{more}", named.join(", "));
            self.findings.add("artifact-failing", name, 0, message);
        }
        for (line, doubt) in &results.doubts {
            self.findings
                .add("artifact-hand-typed", name, *line, quoted(doubt));
        }
        self.age(name, &results);
        self.origin(name, &text);
        Some(results)
    }

    fn age(&mut self, name: &str, results: &Results) {
        let released = RELEASED
            .iter()
            .find(|(version, _)| Some(*version) == self.version);
        if let (Some((version, month)), Some(latest)) = (released, &results.latest)
            && latest.get(..7).is_some_and(|ran| ran < *month)
        {
            let message = format!(
                "the last test ended {}; {version} was released in {month}",
                quoted(latest)
            );
            self.findings.add("evidence-stale", name, 0, message);
        }
    }

    /// Which server and which cluster an artefact names.
    fn origin(&mut self, name: &str, text: &str) {
        let mut said = false;
        for (number, line) in (1..).zip(text.lines()) {
            if line.len() > LINE_MAX {
                continue;
            }
            let line = line.to_ascii_lowercase();
            if !said
                && let Some(server) = server_version(&line)
                && self.version.is_some_and(|version| version != server)
            {
                said = true;
                let message = format!("the server was {server}");
                self.findings.add("evidence-version", name, number, message);
            }
            if let Some(cluster) = cluster_of(&line) {
                self.clusters
                    .entry(cluster)
                    .or_insert_with(|| (name.to_owned(), number));
            }
        }
    }

    fn foreign(&mut self) {
        if self.clusters.len() < 2 {
            return;
        }
        let named = std::mem::take(&mut self.clusters);
        let all: Vec<&String> = named.keys().take(NAMED_MAX).collect();
        for (cluster, (name, line)) in &named {
            let others: Vec<&str> = all
                .iter()
                .filter(|other| **other != cluster)
                .map(|other| other.as_str())
                .collect();
            let message = format!(
                "this names cluster {cluster}; elsewhere it is {}",
                others.join(", ")
            );
            self.findings.add("evidence-foreign", name, *line, message);
        }
    }

    /// Looks whether a file of another name holds test results.
    fn glance(&mut self, place: &Place) {
        if !self.looked_at.insert(place.path.clone())
            || !matches!(state(self.root, &place.path), State::File)
        {
            return;
        }
        let end = place
            .path
            .extension()
            .map(|end| end.to_string_lossy().to_lowercase());
        if !matches!(
            end.as_deref(),
            Some("log" | "txt" | "xml" | "json" | "jsonl")
        ) {
            return;
        }
        let mut bytes = Vec::new();
        let read = std::fs::File::open(&place.path)
            .and_then(|file| file.take(GLANCE).read_to_end(&mut bytes));
        if read.is_ok()
            && let Some((_, better)) = Kind::guess(&String::from_utf8_lossy(&bytes))
        {
            let message = format!("this holds test results and is not named `{better}`");
            self.findings.add("artifact-name", &place.name, 0, message);
        }
    }
}

/// The test that the validator looks for where evidence of a requirement names none.
pub(crate) fn official_test(id: &str) -> Option<&'static str> {
    OFFICIAL_TESTS
        .iter()
        .find(|(known, _)| *known == id)
        .map(|(_, test)| *test)
}
