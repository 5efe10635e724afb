//! The product folder of the programme, made from an official form, what a vendor says of the platform, and a run that was
//! computed again: `PRODUCT.yaml`, a README that says how to repeat and how to check it, and the evidence below `karat/`.
//!
//! - Texts of the form are edited in place (`sheet.rs`), so that `id`, `description`, `level`, order and comments stay what
//!   they are, and the result is compared with what was meant before anything is written.
//! - What a run says of a requirement is decided in `decide.rs`; no option changes it.
//! - What people wrote stays (`merge.rs`): metadata, statuses that are not ours, sentences, links.
//! - Writing (`write.rs`) replaces single files by renaming, `PRODUCT.yaml` last.
//!
//! Test artefacts come from the caller. [`Draft::submitted`] says which results belong into them; an artefact with another
//! failure than one that a MUST has to answer for is refused.

mod decide;
mod merge;
mod pages;
pub mod platform;
mod recomputed;
mod sheet;
#[cfg(test)]
pub(crate) mod tests;
mod write;

pub(crate) use decide::word;
pub use decide::{Decision, Standing};
pub use merge::OURS;
pub(crate) use merge::{Notes, is_ours};
pub use platform::{Declaration, Platform};
pub use recomputed::{Backing, Recomputed, RecomputedAttempt, Statement, Weight};
pub use write::{Existing, README};

use crate::catalog::Level;
use crate::form::{self, Checklist, Form, FormError, Value, minor_version};
pub use crate::lint::PRODUCT;
use crate::lint::{self, FIELDS, official_test};
use crate::report::text::sentence;
use merge::{Conflict, refuses_na, remark, status};
use sheet::{At, Edits, Sheet, Uneditable, get, list_of, text_of};
use std::collections::{BTreeMap, BTreeSet};
use std::path::PathBuf;

/// Most bytes of one artefact.
const ARTEFACT_MAX: usize = 16 << 20;

/// Why no product folder was made. Nothing has been changed then.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum ProductError {
    /// Form or an earlier `PRODUCT.yaml` cannot be read.
    #[error(transparent)]
    Form(#[from] FormError),
    /// The record differs from its recordings.
    #[error("the run does not hold: {first}{}; nothing is made from it", more(*.count))]
    Inconsistent {
        /// The first difference. May quote the bundle.
        first: String,
        /// All of them.
        count: usize,
    },
    /// The run is of another version than the form.
    #[error(
        "the run is of a server {server} and the form is for {form}; run on {form}, or give the form of the server's version"
    )]
    Version {
        /// Version of the server.
        server: String,
        /// Version of the form.
        form: String,
    },
    /// There is a `PRODUCT.yaml` that is not made of this form.
    #[error("{PRODUCT}:{line}: {what}; it stays as it is: repair the line, or name another folder")]
    Structure {
        /// Line, from 1.
        line: u32,
        /// What differs.
        what: String,
    },
    /// A value that cannot be changed without its neighbours.
    #[error("{file}:{line}: this cannot be changed in place: {what}; write it as the form does")]
    Uneditable {
        /// The file.
        file: String,
        /// Line, from 1.
        line: u32,
        /// What stands there.
        what: String,
    },
    /// The edited text does not say what was meant.
    #[error("{file} would not say what was meant ({what}); write its values as the form does")]
    Mistaken {
        /// The file.
        file: String,
        /// What came out wrong.
        what: String,
    },
    /// An artefact that does not belong here.
    #[error("artefact {name}: {what}")]
    Artefact {
        /// Its name.
        name: String,
        /// What is wrong.
        what: String,
    },
    /// The file system refused, or what lies there must not be touched.
    #[error("cannot {action} {}", path.display())]
    Io {
        /// What was tried.
        action: &'static str,
        /// On what.
        path: PathBuf,
        /// Why.
        #[source]
        source: std::io::Error,
    },
    /// Somebody changed a file meanwhile.
    #[error("{} was changed while this worked; nothing of it is lost, start again", path.display())]
    Changed {
        /// The file.
        path: PathBuf,
    },
}

fn more(count: usize) -> String {
    match count {
        0 | 1 => String::new(),
        count => format!(" (and {} more)", count - 1),
    }
}

/// What a folder is made from.
#[derive(Clone, Copy, Debug)]
pub struct Input<'a> {
    /// What messages call the form.
    pub form_name: &'a str,
    /// The official form.
    pub form_text: &'a str,
    /// What the vendor says.
    pub platform: &'a Platform,
    /// The run.
    pub run: &'a Recomputed,
    /// What lies in the folder already.
    pub existing: &'a Existing,
}

/// What a note is about.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum NoteKind {
    /// A MUST failed: the programme will refuse.
    Failing,
    /// A person must supply something.
    Supply,
    /// The words of a person and the run do not agree.
    Conflict,
    /// Somebody should know.
    Warning,
    /// Left out of the artefacts, and why.
    LeftOut,
}

impl NoteKind {
    /// The word in output.
    pub fn word(self) -> &'static str {
        match self {
            NoteKind::Failing => "failing",
            NoteKind::Supply => "supply",
            NoteKind::Conflict => "conflict",
            NoteKind::Warning => "warning",
            NoteKind::LeftOut => "left out",
        }
    }
}

/// Something that a person should know.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub struct Note {
    /// What it is about.
    pub kind: NoteKind,
    /// Requirement id, metadata key or probe id.
    pub subject: String,
    /// A sentence. Harmless in plain text; may quote what a person wrote.
    pub text: String,
}

/// Everything but the artefacts.
#[derive(Debug)]
pub struct Draft<'a> {
    input: Input<'a>,
    form: Form,
    decisions: Vec<Decision>,
    submitted: BTreeSet<String>,
    left_out: BTreeMap<String, String>,
}

/// A folder, not yet written.
#[derive(Clone, Debug)]
pub struct Folder {
    /// Files by their path below the folder.
    pub files: BTreeMap<String, Vec<u8>>,
    /// What a person should know, by weight.
    pub notes: Vec<Note>,
    /// What the run says of each requirement, in the order of the form.
    pub decisions: Vec<Decision>,
    /// Version of the form.
    pub version: String,
}

/// Decides what the run says of the form.
///
/// # Errors
/// The form or an earlier `PRODUCT.yaml` cannot be read, the run does not hold or is of another version.
pub fn draft<'a>(input: Input<'a>) -> Result<Draft<'a>, ProductError> {
    let form = form::read_form(input.form_name, input.form_text)?;
    let run = input.run;
    let contradictions = run.contradictions();
    if let Some(first) = contradictions.first() {
        return Err(ProductError::Inconsistent {
            first: first.clone(),
            count: contradictions.len(),
        });
    }
    let server = &run.record.cluster.server_version;
    if minor_version(server).as_ref() != Some(&form.version) {
        return Err(ProductError::Version {
            server: sentence(server, 40),
            form: form.version,
        });
    }
    let decisions = decide::decide(&form, input.platform, run);
    let (submitted, left_out) = sort_out(&decisions, run);
    Ok(Draft {
        input,
        form,
        decisions,
        submitted,
        left_out,
    })
}

/// Whose results belong into the artefacts of a submission, and why those of others do not: requirements of the form by their
/// ids, and probes that answer none. A fail of a MUST always belongs there.
fn sort_out(
    decisions: &[Decision],
    run: &Recomputed,
) -> (BTreeSet<String>, BTreeMap<String, String>) {
    let mut submitted = BTreeSet::new();
    let mut left_out = BTreeMap::new();
    for decision in decisions {
        let why = match (decision.level, decision.standing) {
            (_, Standing::NotRun) => continue,
            (_, Standing::Shown | Standing::Absent) | (Level::Must, Standing::Contradicted) => None,
            (_, Standing::Open) if decision.simulated => {
                Some("the result rests on a simulation".to_owned())
            }
            (Level::Must, Standing::Open) => None,
            (_, Standing::Open) => Some("it is a SHOULD and was not settled".to_owned()),
            (_, Standing::Contradicted) => Some(
                "it is a SHOULD and failed; any failure in an artefact refuses the whole submission"
                    .to_owned(),
            ),
        };
        match why {
            None => {
                submitted.insert(decision.id.clone());
            }
            Some(why) => {
                left_out.insert(decision.id.clone(), why);
            }
        }
    }
    for probe in &run.record.probes {
        let answers = |decision: &Decision| decision.probes.contains(&probe.probe);
        if !decisions.iter().any(answers) {
            let why = "it answers no requirement of this form and informs only".to_owned();
            left_out.insert(probe.probe.clone(), why);
        }
    }
    (submitted, left_out)
}

impl Draft<'_> {
    /// The form.
    pub fn form(&self) -> &Form {
        &self.form
    }

    /// What the run says of each requirement, in the order of the form.
    pub fn decisions(&self) -> &[Decision] {
        &self.decisions
    }

    /// Ids of the requirements whose results, those of the last attempts, make up the artefacts of the submission.
    pub fn submitted(&self) -> &BTreeSet<String> {
        &self.submitted
    }

    /// What else was run and is left out, and why: requirements by their ids, and probes that answer none of this form.
    pub fn left_out(&self) -> &BTreeMap<String, String> {
        &self.left_out
    }

    /// Makes the folder. `artefacts` are files for `karat/` by their plain names: `e2e.log`, `results.json` and `junit.xml`
    /// are cited as evidence, others only lie beside. `tests` says under which name a requirement stands in them.
    ///
    /// # Errors
    /// An artefact does not belong here, or `PRODUCT.yaml` cannot be changed as it should be.
    pub fn finish(
        self,
        artefacts: &[(String, Vec<u8>)],
        tests: &BTreeMap<String, String>,
    ) -> Result<Folder, ProductError> {
        let mut files = BTreeMap::new();
        for (name, bytes) in artefacts {
            self.check_artefact(name, bytes)?;
            files.insert(format!("{OURS}{name}"), bytes.clone());
        }
        let cited: Vec<String> = ["e2e.log", "results.json", "junit.xml"]
            .into_iter()
            .map(|name| format!("{OURS}{name}"))
            .filter(|path| files.contains_key(path))
            .collect();
        let mut notes = Vec::new();
        let product = self.product(&cited, tests, &mut notes)?;
        for decision in &self.decisions {
            if decision.standing == Standing::NotRun {
                continue;
            }
            let path = page_of(&decision.id);
            files
                .entry(path)
                .or_insert_with(|| pages::requirement(decision, &self).into_bytes());
        }
        files.insert(
            format!("{OURS}{}", pages::REPORT),
            pages::report(&self).into_bytes(),
        );
        let readme = pages::readme(&self, self.input.existing.readme.as_deref());
        files.insert(README.to_owned(), readme.into_bytes());
        files.insert(PRODUCT.to_owned(), product.into_bytes());
        self.warn(&mut notes);
        for (probe, why) in &self.left_out {
            notes.push(Note {
                kind: NoteKind::LeftOut,
                subject: probe.clone(),
                text: why.clone(),
            });
        }
        notes.sort();
        Ok(Folder {
            files,
            notes,
            version: self.form.version.clone(),
            decisions: self.decisions,
        })
    }

    /// What is odd about the input, and yet stops nothing.
    fn warn(&self, notes: &mut Vec<Note>) {
        let mut note = |subject: &str, text: &str| {
            notes.push(Note {
                kind: NoteKind::Warning,
                subject: sentence(subject, 100),
                text: text.to_owned(),
            });
        };
        let record = &self.input.run.record;
        if record.ended.is_none() {
            note(
                &record.run,
                "the run did not come to its end; finish it with --resume and start again",
            );
        }
        let declared = self.input.platform.declarations.iter();
        for id in declared.flat_map(|declaration| &declaration.requirements) {
            let requirements = &self.form.requirements;
            if id != platform::ANY && !requirements.iter().any(|known| known.id == *id) {
                note(
                    id,
                    "karat.toml declares something for it, and the form has no such requirement",
                );
            }
        }
    }

    fn check_artefact(&self, name: &str, bytes: &[u8]) -> Result<(), ProductError> {
        let wrong = |what: String| {
            Err(ProductError::Artefact {
                name: sentence(name, 60),
                what,
            })
        };
        let plain = |byte: u8| byte.is_ascii_alphanumeric() || matches!(byte, b'.' | b'_' | b'-');
        if name.is_empty() || name.starts_with('.') || !name.bytes().all(plain) {
            return wrong("this is no plain file name".to_owned());
        }
        if bytes.is_empty() || bytes.len() > ARTEFACT_MAX {
            return wrong(format!("it has {} bytes", bytes.len()));
        }
        let failed = match lint::failing_tests(name, bytes) {
            None => return Ok(()),
            Some(Err(what)) => return wrong(sentence(&what, 200)),
            Some(Ok(failed)) => failed,
        };
        let answers_for_it = |decision: &Decision| {
            decision.level == Level::Must
                && matches!(decision.standing, Standing::Contradicted | Standing::Open)
        };
        match failed.first() {
            Some(test) if !self.decisions.iter().any(answers_for_it) => wrong(format!(
                "{} fails in it and no MUST did; it must hold the results of the submitted requirements only",
                sentence(test, 100)
            )),
            _ => Ok(()),
        }
    }

    /// The text of `PRODUCT.yaml`.
    fn product(
        &self,
        cited: &[String],
        tests: &BTreeMap<String, String>,
        notes: &mut Vec<Note>,
    ) -> Result<String, ProductError> {
        let existing = self.input.existing.product.as_deref();
        let name = if existing.is_some() {
            PRODUCT
        } else {
            self.input.form_name
        };
        let base = existing.unwrap_or(self.input.form_text);
        let before = form::read_product(name, base)?;
        let sheet = Sheet::read(name, base)?;
        let entries = sheet.entries();
        if existing.is_some() {
            self.check_structure(&before, &entries)?;
        }
        let mut wanted = before.clone();
        let mut edits = Edits::default();
        let failed = |Uneditable { line, what }: Uneditable| ProductError::Uneditable {
            file: name.to_owned(),
            line,
            what,
        };
        self.metadata(&sheet, &mut wanted, &mut edits, notes)
            .map_err(failed)?;
        for decision in &self.decisions {
            let at = |category: &str, id: &str| category == decision.category && id == decision.id;
            let (Some(entry), Some(meant)) = (
                entries.iter().find(|entry| at(entry.category, entry.id)),
                wanted
                    .entries
                    .iter_mut()
                    .find(|entry| at(&entry.category, &entry.id.text)),
            ) else {
                continue;
            };
            self.entry(
                decision, entry, meant, cited, tests, &sheet, &mut edits, notes,
            )
            .map_err(failed)?;
        }
        let made = sheet.apply(edits).map_err(failed)?;
        let mistaken = |what: String| ProductError::Mistaken {
            file: name.to_owned(),
            what,
        };
        let after = form::read_product(name, &made).map_err(|error| mistaken(error.to_string()))?;
        if let Some(what) = difference(&wanted, &after) {
            return Err(mistaken(what));
        }
        Ok(made)
    }

    /// Refuses a `PRODUCT.yaml` that is not made of this form. Texts and levels that were changed are set right later.
    fn check_structure(&self, there: &Checklist, entries: &[At<'_>]) -> Result<(), ProductError> {
        let wrong = |line: u32, what: String| Err(ProductError::Structure { line, what });
        if let Some(field) = there.field("kubernetesVersion") {
            let version = match &field.value {
                Value::Text(text) => minor_version(text),
                _ => None,
            };
            if version.as_ref() != Some(&self.form.version) {
                let what = format!("it is not for version {}", self.form.version);
                return wrong(field.key.line, what);
            }
        }
        let mut wanted = self.form.requirements.iter().peekable();
        let mut seen = BTreeSet::new();
        for entry in entries {
            let is_of_form = |requirement: &form::Requirement| {
                requirement.id == entry.id && requirement.category == entry.category
            };
            if !self.form.requirements.iter().any(is_of_form) {
                continue;
            }
            if !seen.insert((entry.category, entry.id)) {
                return wrong(
                    entry.line,
                    format!("`{}` stands here a second time", entry.id),
                );
            }
            match wanted.next() {
                Some(next) if is_of_form(next) => {}
                Some(next) => {
                    let what = format!("`{}` stands where the form has `{}`", entry.id, next.id);
                    return wrong(entry.line, what);
                }
                None => {}
            }
        }
        match wanted.next() {
            Some(missing) => wrong(
                1,
                format!("`{}` is missing in `{}`", missing.id, missing.category),
            ),
            None => Ok(()),
        }
    }

    fn metadata(
        &self,
        sheet: &Sheet<'_>,
        wanted: &mut Checklist,
        edits: &mut Edits,
        notes: &mut Vec<Note>,
    ) -> Result<(), Uneditable> {
        let fields = sheet.metadata();
        for (camel, snake, required) in FIELDS {
            let key = if get(fields, camel).is_none() && get(fields, snake).is_some() {
                *snake
            } else {
                *camel
            };
            let there = text_of(fields, key);
            let is_open = there.trim().is_empty() || there.starts_with('[') && there.ends_with(']');
            match self.input.platform.metadata.get(*camel) {
                Some(given) if is_open && there != given => {
                    sheet.set_text(fields, key, given, true, edits)?;
                    set_field(wanted, key, given);
                }
                Some(given) if !is_open && given != there => notes.push(Note {
                    kind: NoteKind::Conflict,
                    subject: (*camel).to_owned(),
                    text: format!(
                        "{PRODUCT} has '{}' and karat.toml '{}'; the former stays, empty it to take the other",
                        sentence(there, 80),
                        sentence(given, 80)
                    ),
                }),
                Some(_) => {}
                None if is_open && (*required || !there.is_empty()) => notes.push(Note {
                    kind: NoteKind::Supply,
                    subject: (*camel).to_owned(),
                    text: if *required {
                        "give it in karat.toml, below [platform]".to_owned()
                    } else {
                        "give it in karat.toml, below [platform], or an empty text".to_owned()
                    },
                }),
                None => {}
            }
        }
        Ok(())
    }

    #[expect(
        clippy::too_many_arguments,
        reason = "what is there, what is meant, and where both go; called once"
    )]
    fn entry(
        &self,
        decision: &Decision,
        entry: &At<'_>,
        meant: &mut form::Entry,
        cited: &[String],
        tests: &BTreeMap<String, String>,
        sheet: &Sheet<'_>,
        edits: &mut Edits,
        notes: &mut Vec<Note>,
    ) -> Result<(), Uneditable> {
        let mut note = |kind: NoteKind, text: String| {
            notes.push(Note {
                kind,
                subject: decision.id.clone(),
                text,
            });
        };
        let official = self.form.requirements.iter().find(|requirement| {
            requirement.id == decision.id && requirement.category == decision.category
        });
        if let Some(official) = official {
            let level = official.level.to_string();
            for (key, there, form) in [
                (
                    "description",
                    &mut meant.description.text,
                    &official.description,
                ),
                ("level", &mut meant.level.text, &level),
            ] {
                if there != form {
                    note(
                        NoteKind::Conflict,
                        format!("its {key} was changed and is again that of the form"),
                    );
                    sheet.set_text(entry.pairs, key, form, false, edits)?;
                    there.clone_from(form);
                }
            }
        }

        let old_notes = Notes::of(text_of(entry.pairs, "notes"));
        let old_status = text_of(entry.pairs, "status");
        let new_status = status(old_status, old_notes.status(), decision.standing);
        match &new_status.conflict {
            None => {}
            Some(Conflict::Less) => note(
                NoteKind::Conflict,
                format!(
                    "'{}' of a person stays; {}",
                    sentence(old_status, 40),
                    decision.because
                ),
            ),
            Some(Conflict::Unshown) => note(
                NoteKind::Conflict,
                format!(
                    "'{}' stays and rests on a person's word: {}",
                    sentence(old_status, 40),
                    decision.because
                ),
            ),
            Some(Conflict::Contradicted(there)) => note(
                NoteKind::Conflict,
                format!(
                    "'{}' of a person is now '{}': {}",
                    sentence(there, 40),
                    new_status.written,
                    decision.because
                ),
            ),
        }
        if new_status.written != old_status {
            sheet.set_text(entry.pairs, "status", &new_status.written, false, edits)?;
            meant.status.text.clone_from(&new_status.written);
        }

        let ours = decision.standing.status();
        let text = (decision.standing != Standing::NotRun).then(|| {
            remark(
                ours,
                &decision.because,
                &self.references(decision, tests, cited),
            )
        });
        let new_notes = old_notes.with(text.as_deref());
        if new_notes != meant.notes.text {
            sheet.set_text(entry.pairs, "notes", &new_notes, false, edits)?;
            meant.notes.text = new_notes;
        }

        let evidence = self.evidence(decision, &new_status.written, cited);
        let there = list_of(entry.pairs, "evidence");
        let add: Vec<String> = evidence
            .iter()
            .filter(|path| !there.contains(&path.as_str()))
            .cloned()
            .collect();
        let goes = |item: &str| is_ours(item) && !evidence.iter().any(|path| path == item);
        sheet.set_list(entry.pairs, "evidence", &goes, &add, edits)?;
        meant.evidence.retain(|item| !goes(&item.text));
        meant
            .evidence
            .extend(add.into_iter().map(|text| form::Text {
                line: entry.line,
                text,
            }));

        let is_must = decision.level == Level::Must;
        let has_evidence = !meant.evidence.is_empty();
        let written = new_status.written.as_str();
        if decision.standing == Standing::Contradicted && is_must {
            note(
                NoteKind::Failing,
                format!("a MUST failed: {}", decision.because),
            );
        } else if written == "N/A" && refuses_na(&decision.id, is_must) {
            note(
                NoteKind::Failing,
                "N/A was earned, and the programme's validator refuses N/A on this MUST".to_owned(),
            );
        } else if is_must && written.is_empty() {
            let why = match decision.standing {
                Standing::NotRun => "no probe of the run answers it".to_owned(),
                _ => decision.because.clone(),
            };
            note(
                NoteKind::Supply,
                format!("a MUST without status: {why}; write status, evidence and notes yourself"),
            );
        } else if written == "N/A" && is_must {
            note(
                NoteKind::Warning,
                "N/A on a MUST: some revisions of the programme's validator refuse it, and a reviewer reads the notes"
                    .to_owned(),
            );
        }
        if written == "Implemented" && !has_evidence {
            note(
                NoteKind::Supply,
                "Implemented without evidence: give files or links".to_owned(),
            );
        }
        if written.is_empty() && has_evidence && !is_must {
            note(
                NoteKind::Supply,
                "evidence without a status: choose one of the four".to_owned(),
            );
        }
        if ours.is_some() && !decision.known {
            note(
                NoteKind::Warning,
                "answered by a probe that did not come with this program; a reviewer will ask who vouches for it"
                    .to_owned(),
            );
        }
        Ok(())
    }

    /// Our evidence for an entry. Where the validator would look for a test of the programme's own in an artefact, none is cited.
    fn evidence(&self, decision: &Decision, written: &str, cited: &[String]) -> Vec<String> {
        if decision.standing.status().is_none() || written.is_empty() {
            return Vec::new();
        }
        let mut evidence = vec![page_of(&decision.id)];
        if is_cited(decision) {
            evidence.extend_from_slice(cited);
        }
        evidence
    }

    /// Where a reader finds more.
    fn references(
        &self,
        decision: &Decision,
        tests: &BTreeMap<String, String>,
        cited: &[String],
    ) -> String {
        let record = &self.input.run.record;
        let mut parts = vec![format!(
            "Run {} on {}, head {}",
            sentence(&record.run, 20),
            sentence(&record.cluster.server_version, 40),
            sentence(&record.head, 64)
        )];
        let probes = record.probes.iter();
        for probe in probes.filter(|probe| decision.probes.contains(&probe.probe)) {
            parts.push(format!("probe {}", sentence(&probe.digest, 80)));
        }
        let test = tests.get(&decision.id);
        if let Some(test) = test.filter(|_| self.submitted.contains(&decision.id))
            && !cited.is_empty()
        {
            let test = sentence(test, 120);
            parts.push(format!("test {test} in {}", cited.join(", ")));
        }
        parts.push(format!("see {}", page_of(&decision.id)));
        parts.join("; ")
    }
}

/// Whether artefacts may be cited for a requirement: not where the validator would look for a test that is not in them.
fn is_cited(decision: &Decision) -> bool {
    official_test(&decision.id).is_none()
        && (decision.level == Level::Must || decision.standing != Standing::Contradicted)
}

/// The page about a requirement.
fn page_of(id: &str) -> String {
    format!("{OURS}{id}.md")
}

fn set_field(wanted: &mut Checklist, key: &str, value: &str) {
    let fields = wanted.metadata.get_or_insert_default();
    let value = Value::Text(value.to_owned());
    match fields.iter_mut().find(|field| field.key.text == key) {
        Some(field) => field.value = value,
        None => fields.push(form::Field {
            key: form::Text {
                line: 0,
                text: key.to_owned(),
            },
            value,
        }),
    }
}

/// The first difference between what was meant and what a file says, lines apart.
fn difference(meant: &Checklist, there: &Checklist) -> Option<String> {
    let fields = |list: &Checklist| -> Vec<(String, Value)> {
        let fields = list.metadata.iter().flatten();
        fields
            .map(|field| (field.key.text.clone(), field.value.clone()))
            .collect()
    };
    let (ours, theirs) = (fields(meant), fields(there));
    if let Some((key, _)) = ours.iter().find(|field| !theirs.contains(field)) {
        return Some(format!("metadata {key}"));
    }
    if ours.len() != theirs.len() {
        return Some("metadata".to_owned());
    }
    let texts = |entry: &form::Entry| -> [String; 7] {
        let evidence: Vec<&str> = entry
            .evidence
            .iter()
            .map(|text| text.text.as_str())
            .collect();
        [
            entry.category.clone(),
            entry.id.text.clone(),
            entry.description.text.clone(),
            entry.level.text.clone(),
            entry.status.text.clone(),
            evidence.join("\n"),
            entry.notes.text.clone(),
        ]
    };
    if meant.entries.len() != there.entries.len() {
        return Some("the number of entries".to_owned());
    }
    for (ours, theirs) in meant.entries.iter().zip(&there.entries) {
        if texts(ours) != texts(theirs) {
            return Some(format!("entry {}", ours.id.text));
        }
    }
    (meant.unknown_keys.len() != there.unknown_keys.len()).then(|| "its keys".to_owned())
}
