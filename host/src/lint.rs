//! The lint of a product folder: what the validator of the programme would say, worked out without a network, and what it
//! does not look at. The rules are a table, [`rules`].
//!
//! - `product.rs` checks metadata, statuses and the entries against the checklist of the version.
//! - `evidence.rs` checks files, found by `place.rs`; `artifact.rs` reads test output, `origin.rs` when and where it was made.
//!
//! The folder is hostile: everything read has a limit, links are not followed, nothing outside the folder is opened. Texts
//! in findings may quote it and must be made harmless for their sink. What needs a network is never guessed; the report
//! names it as unchecked.
//!
//! The verdict follows the newest known revision of the validator (cncf/k8s-ai-conformance#141 with the fix for #145, and
//! the logo check of #133). Where earlier ones refuse what this one accepts, there is a warning.

pub(crate) mod artifact;
mod evidence;
mod origin;
mod place;
mod product;
pub mod rules;

#[cfg(test)]
mod tests;

pub(crate) use evidence::official_test;
pub(crate) use product::{CONDITIONAL, FIELDS};

use crate::catalog::{self, Level};
use crate::form::{self, Checklist, Form};
use rules::{Programme, Rule, Severity};
use std::collections::BTreeMap;
use std::path::{Path, PathBuf};

/// Name of the checklist in a product folder.
pub const PRODUCT: &str = "PRODUCT.yaml";

/// Most findings that are kept; a folder made to have more is broken by any of them.
pub const FINDINGS_MAX: usize = 1000;

/// Longest part of a foreign text in a message, in characters.
const QUOTED_MAX: usize = 120;

/// One thing that is wrong.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Finding {
    /// File below the folder.
    pub file: String,
    /// Line, from 1; 0 where the whole file is meant.
    pub line: u32,
    /// The rule.
    pub rule: &'static Rule,
    /// What is wrong. May quote the folder.
    pub message: String,
    /// What to do.
    pub hint: String,
}

/// What the validator of the programme would say.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Verdict {
    /// Accept, as far as it can be told without a network.
    Accepts,
    /// Refuse.
    Refuses,
    /// It could not be worked out.
    Unknown,
}

/// Everything that was found.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Report {
    /// Version of the checklist, such as `1.36`, where it is known.
    pub version: Option<String>,
    /// Findings by file and line.
    pub findings: Vec<Finding>,
    /// Findings beyond [`FINDINGS_MAX`], which are not kept.
    pub dropped: usize,
    /// What was not checked, one sentence each.
    pub unchecked: Vec<String>,
    /// What the validator of the programme would say.
    pub verdict: Verdict,
}

impl Report {
    /// Number of findings that are errors.
    pub fn errors(&self) -> usize {
        self.count(Severity::Error)
    }

    /// Number of findings that are warnings.
    pub fn warnings(&self) -> usize {
        self.count(Severity::Warning)
    }

    fn count(&self, severity: Severity) -> usize {
        let findings = self.findings.iter();
        findings
            .filter(|found| found.rule.severity == severity)
            .count()
    }
}

/// Why a folder could not be looked at.
#[derive(Debug, thiserror::Error)]
pub enum LintError {
    /// There is nothing to look at.
    #[error("{} cannot be opened: {source}", path.display())]
    Folder {
        /// The folder.
        path: PathBuf,
        /// What the system says.
        source: std::io::Error,
    },
    /// It is a file.
    #[error("{} is no folder", path.display())]
    NoFolder {
        /// The path.
        path: PathBuf,
    },
}

/// A requirement as the checklist of the version has it.
struct Expected {
    category: String,
    id: String,
    level: Level,
    /// Only an official form has it.
    description: Option<String>,
}

/// Collects findings.
#[derive(Default)]
struct Findings {
    kept: BTreeMap<(String, u32, &'static str, String), Finding>,
    /// How many of the kept are warnings.
    warnings: usize,
    dropped: usize,
    refuses: bool,
    unknown: bool,
}

impl Findings {
    fn add(&mut self, id: &'static str, file: &str, line: u32, message: impl Into<String>) {
        if let Some(rule) = rules::rule(id) {
            self.add_hint(id, file, line, message, rule.todo);
        }
    }

    fn add_hint(
        &mut self,
        id: &'static str,
        file: &str,
        line: u32,
        message: impl Into<String>,
        hint: impl Into<String>,
    ) {
        let Some(rule) = rules::rule(id) else {
            debug_assert!(false, "no rule {id}");
            return;
        };
        match rule.programme {
            Programme::Refuses => self.refuses = true,
            Programme::Unknown => self.unknown = true,
            Programme::Warns | Programme::Silent => {}
        }
        let finding = Finding {
            file: file.to_owned(),
            line,
            rule,
            message: message.into(),
            hint: hint.into(),
        };
        let key = (file.to_owned(), line, id, finding.message.clone());
        if self.kept.contains_key(&key) {
            return;
        }
        // An error is never dropped for a warning that came earlier, or the exit code would depend on the order.
        if self.kept.len() >= FINDINGS_MAX {
            self.dropped += 1;
            if rule.severity == Severity::Warning || self.warnings == 0 {
                return;
            }
            let mut kept = self.kept.iter();
            let warning = kept.find(|(_, kept)| kept.rule.severity == Severity::Warning);
            if let Some(warning) = warning.map(|(key, _)| key.clone()) {
                self.kept.remove(&warning);
                self.warnings -= 1;
            }
        }
        self.warnings += usize::from(rule.severity == Severity::Warning);
        self.kept.insert(key, finding);
    }

    fn verdict(&self) -> Verdict {
        match (self.refuses, self.unknown) {
            (true, _) => Verdict::Refuses,
            (false, true) => Verdict::Unknown,
            (false, false) => Verdict::Accepts,
        }
    }
}

/// Checks a product folder, with the official form where the caller has it.
///
/// # Errors
/// The folder cannot be opened. Whatever is wrong inside is a finding.
pub fn lint(folder: &Path, form: Option<&Form>) -> Result<Report, LintError> {
    let open = |source| LintError::Folder {
        path: folder.to_owned(),
        source,
    };
    let root = folder.canonicalize().map_err(open)?;
    if !root.is_dir() {
        return Err(LintError::NoFolder {
            path: folder.to_owned(),
        });
    }
    let mut findings = Findings::default();
    let mut unchecked = Vec::new();
    let mut version = None;
    if let Some(list) = product_of(&root, &mut findings) {
        version = version_of(&root, &list, form, &mut findings);
        let expected = version
            .as_deref()
            .and_then(|version| expected(version, form))
            .unwrap_or_default();
        if expected.is_empty() && version.is_some() {
            let message = format!(
                "no checklist is known for version {}",
                quoted(version.as_deref().unwrap_or_default())
            );
            findings.add("version-unknown", PRODUCT, 1, message);
        }
        product::check(&list, &expected, &mut findings);
        evidence::check(&root, &list, &expected, version.as_deref(), &mut findings);
        unchecked = what_needs_more(&list, form);
    }
    let verdict = findings.verdict();
    Ok(Report {
        version,
        verdict,
        unchecked,
        dropped: findings.dropped,
        findings: findings.kept.into_values().collect(),
    })
}

fn product_of(root: &Path, findings: &mut Findings) -> Option<Checklist> {
    let path = root.join(PRODUCT);
    match std::fs::symlink_metadata(&path) {
        Err(error) if error.kind() == std::io::ErrorKind::NotFound => {
            findings.add("product-missing", PRODUCT, 0, "there is no such file");
            return None;
        }
        Ok(metadata) if metadata.is_symlink() => {
            findings.add("product-unsupported", PRODUCT, 0, "this is a symbolic link");
            return None;
        }
        _ => {}
    }
    let read = form::read_file(&path, PRODUCT).and_then(|text| form::read_product(PRODUCT, &text));
    match read {
        Ok(list) => Some(list),
        Err(error) => {
            let id = if error.unsupported {
                "product-unsupported"
            } else {
                "product-yaml"
            };
            let message = format!("{}; expected {}", quoted(&error.what), error.expected);
            findings.add_hint(id, PRODUCT, error.line, message, error.hint);
            None
        }
    }
}

/// The version in the name of the folder above, as the validator reads it.
fn version_of_folder(root: &Path) -> Option<String> {
    let name = root.parent()?.file_name()?.to_str()?;
    let version = form::minor_version(name)?;
    (name == format!("v{version}")).then_some(version)
}

fn version_of(
    root: &Path,
    list: &Checklist,
    form: Option<&Form>,
    findings: &mut Findings,
) -> Option<String> {
    let folder = version_of_folder(root);
    let field = list
        .field("kubernetesVersion")
        .or_else(|| list.field("kubernetes_version"));
    let claimed = field.and_then(|field| match &field.value {
        form::Value::Text(text) => form::minor_version(text),
        _ => None,
    });
    let form = form.map(|form| form.version.clone());
    if folder.is_none() {
        findings.add(
            "folder-version",
            PRODUCT,
            0,
            "the folder above is not named `vX.Y`",
        );
    }
    let known: Vec<(&str, &String)> = [
        ("the folder", &folder),
        ("metadata.kubernetesVersion", &claimed),
        ("--form", &form),
    ]
    .into_iter()
    .filter_map(|(name, version)| Some((name, version.as_ref()?)))
    .collect();
    if known.iter().any(|(_, version)| *version != known[0].1) {
        let names: Vec<String> = known
            .iter()
            .map(|(name, version)| format!("{name} says {version}"))
            .collect();
        let line = field.map_or(1, |field| field.key.line);
        findings.add("version-mismatch", PRODUCT, line, names.join(", "));
    }
    // The validator would take the form of the folder's version, which is not at hand.
    findings.unknown |= form.is_some() && folder.is_some() && form != folder;
    // A form is what the caller wants to compare with; without one the folder's name counts, as it does for the validator.
    let version = form.or(folder).or(claimed);
    if version.is_none() {
        findings.add(
            "version-unknown",
            PRODUCT,
            1,
            "neither the folder nor the file names a version",
        );
    }
    version
}

fn expected(version: &str, form: Option<&Form>) -> Option<Vec<Expected>> {
    if let Some(form) = form {
        let of_form = form.requirements.iter().map(|requirement| Expected {
            category: requirement.category.clone(),
            id: requirement.id.clone(),
            level: requirement.level,
            description: Some(requirement.description.clone()),
        });
        return Some(of_form.collect());
    }
    if !catalog::VERSIONS.contains(&version) {
        return None;
    }
    let listed = catalog::REQUIREMENTS.iter().filter_map(|requirement| {
        let level = requirement.level(version)?;
        (level != Level::Absent).then(|| Expected {
            category: requirement.category.key().to_owned(),
            id: requirement.id.to_owned(),
            level,
            description: None,
        })
    });
    Some(listed.collect())
}

/// Names of the tests that failed in what would be an artefact under this name; none if the name is not that of an artefact.
///
/// # Errors
/// The bytes are no such artefact; the text says why.
pub(crate) fn failing_tests(name: &str, bytes: &[u8]) -> Option<Result<Vec<String>, String>> {
    let kind = artifact::Kind::of(name)?;
    let text = String::from_utf8_lossy(bytes);
    let results = artifact::read(kind, &text).map_err(|error| error.what);
    Some(results.map(|results| results.failures))
}

/// What an offline check leaves open.
fn what_needs_more(list: &Checklist, form: Option<&Form>) -> Vec<String> {
    let is_link = |text: &str| text.starts_with("http://") || text.starts_with("https://");
    let fields = list.metadata.iter().flatten();
    let links = fields
        .filter(|field| matches!(&field.value, form::Value::Text(text) if text.starts_with("http")))
        .count()
        + list
            .entries
            .iter()
            .flat_map(|entry| &entry.evidence)
            .filter(|text| is_link(&text.text))
            .count();
    let mut open = vec![
        "that vendorName is a member of CNCF, by the names of its landscape".to_owned(),
        format!("that {links} links lead somewhere: the validator follows each"),
    ];
    if form.is_none() {
        open.push(
            "that descriptions are those of the official form: no --form was given".to_owned(),
        );
    }
    open
}

/// The beginning of a foreign text, for a message.
fn quoted(text: &str) -> String {
    match text.char_indices().nth(QUOTED_MAX) {
        Some((at, _)) => format!("{}…", &text[..at]),
        None => text.to_owned(),
    }
}
