//! What a bot would say of a submission or a bundle: what is wrong, what was computed again, what rests on links or words, what
//! was withheld, and what a person has to look at. Pure functions of a folder and of bundles that were computed again; no link
//! is followed and nothing is posted.
//!
//! Everything in a comment that is not ours is a [`Part::Theirs`], and becomes harmless in one place ([`Sentence`]).

mod bundle;
mod markdown;
mod submission;
#[cfg(test)]
mod tests;

pub use bundle::{NonceCheck, ReviewedAttempt, ReviewedBundle};
pub use submission::{ReviewedRequirement, Support};

use crate::form::Form;
use crate::lint::{self, LintError, rules::Severity};
use crate::product::Recomputed;
use crate::report::text::code;
use serde::Serialize;
use std::path::Path;

/// Version of the JSON. Raised when a key goes or changes its meaning; new keys may come.
const SCHEMA_VERSION: u32 = 1;

/// Longest foreign text in a comment, in characters.
const THEIRS_MAX: usize = 240;

/// Bytes of a nonce.
const NONCE_BYTES: usize = 16;

/// What a review comes to.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize)]
#[serde(rename_all = "kebab-case")]
pub enum Conclusion {
    /// Every claim of a MUST was computed again and agrees; of a bundle: all of it.
    Holds,
    /// Nothing is wrong, and not everything could be computed again.
    Open,
    /// Something is wrong.
    Broken,
}

/// A piece of a sentence.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Part {
    /// Words of this program.
    Ours(String),
    /// Words of somebody else.
    Theirs(String),
}

/// A sentence in which ours and theirs are kept apart until it is shown.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Sentence(pub Vec<Part>);

impl Sentence {
    /// Begins with words of ours.
    pub fn of(text: impl Into<String>) -> Sentence {
        Sentence(vec![Part::Ours(text.into())])
    }

    /// Begins with words of somebody else.
    pub fn quoting(text: impl Into<String>) -> Sentence {
        Sentence(vec![Part::Theirs(text.into())])
    }

    /// Goes on with words of ours.
    #[must_use]
    pub fn and(mut self, text: impl Into<String>) -> Sentence {
        self.0.push(Part::Ours(text.into()));
        self
    }

    /// Goes on with words of somebody else.
    #[must_use]
    pub fn quote(mut self, text: impl Into<String>) -> Sentence {
        self.0.push(Part::Theirs(text.into()));
        self
    }

    /// Goes on with another sentence.
    #[must_use]
    pub fn then(mut self, other: Sentence) -> Sentence {
        self.0.extend(other.0);
        self
    }

    /// For Markdown.
    pub fn markdown(&self) -> String {
        let parts = self.0.iter();
        let parts: Vec<String> = parts
            .map(|part| match part {
                Part::Ours(text) => text.clone(),
                Part::Theirs(text) => code(text, THEIRS_MAX),
            })
            .collect();
        parts.concat()
    }

    /// As data: nothing is escaped.
    pub fn plain(&self) -> String {
        let parts = self.0.iter();
        let parts: Vec<&str> = parts
            .map(|part| match part {
                Part::Ours(text) | Part::Theirs(text) => text.as_str(),
            })
            .collect();
        parts.concat()
    }
}

impl Serialize for Sentence {
    fn serialize<S: serde::Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        serializer.serialize_str(&self.plain())
    }
}

/// What was found in the checklist itself.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub struct Linted {
    /// `accepts`, `refuses` or `unknown`.
    pub programme: &'static str,
    /// Number of errors.
    pub errors: usize,
    /// Number of warnings.
    pub warnings: usize,
}

/// A review, before anything of it is shown.
#[derive(Clone, Debug, Serialize)]
pub struct Review {
    /// Version of this document.
    pub schema_version: u32,
    /// What was looked at, as the caller named it.
    pub subject: String,
    /// What it comes to.
    pub conclusion: Conclusion,
    /// Version of the checklist, where there is one.
    pub kubernetes_version: Option<String>,
    /// What the lint says, where there is a checklist.
    pub lint: Option<Linted>,
    /// What has to be repaired.
    pub wrong: Vec<Sentence>,
    /// Every entry of the checklist, in its order.
    pub requirements: Vec<ReviewedRequirement>,
    /// Bundles that were looked at.
    pub bundles: Vec<ReviewedBundle>,
    /// Answers that the bundles do not show.
    pub withheld: Vec<Sentence>,
    /// What a person has to look at.
    pub look_at: Vec<Sentence>,
}

impl Review {
    fn new(subject: &str) -> Review {
        Review {
            schema_version: SCHEMA_VERSION,
            subject: subject.to_owned(),
            conclusion: Conclusion::Open,
            kubernetes_version: None,
            lint: None,
            wrong: Vec::new(),
            requirements: Vec::new(),
            bundles: Vec::new(),
            withheld: Vec::new(),
            look_at: Vec::new(),
        }
    }

    /// Takes in a bundle and what was found in it.
    fn add_bundle(&mut self, name: &str, run: &Recomputed, nonce: Option<&str>) {
        let found = bundle::look(name, run, nonce);
        self.wrong.extend(found.wrong);
        self.withheld.extend(found.withheld);
        self.look_at.extend(found.look_at);
        self.bundles.push(found.bundle);
    }

    /// The comment.
    pub fn markdown(&self) -> String {
        markdown::comment(self)
    }
}

/// Reviews a bundle.
pub fn of_bundle(name: &str, run: &Recomputed, nonce: Option<&str>) -> Review {
    let mut review = Review::new(name);
    review.add_bundle(name, run, nonce);
    let whole = review.bundles.iter().all(ReviewedBundle::is_whole);
    review.conclusion = match (review.wrong.is_empty(), whole) {
        (false, _) => Conclusion::Broken,
        (true, false) => Conclusion::Open,
        (true, true) => Conclusion::Holds,
    };
    review
}

/// Reviews a product folder with the bundles that belong to it, by their names.
///
/// # Errors
/// The folder cannot be opened. Whatever is wrong inside is a finding.
pub fn of_product(
    folder: &Path,
    form: Option<&Form>,
    bundles: &[(String, Recomputed)],
    nonce: Option<&str>,
) -> Result<Review, LintError> {
    let report = lint::lint(folder, form)?;
    let mut review = Review::new(&folder.display().to_string());
    review.kubernetes_version.clone_from(&report.version);
    review.lint = Some(Linted {
        programme: match report.verdict {
            lint::Verdict::Accepts => "accepts",
            lint::Verdict::Refuses => "refuses",
            lint::Verdict::Unknown => "unknown",
        },
        errors: report.errors(),
        warnings: report.warnings(),
    });
    for finding in &report.findings {
        let place = match finding.line {
            0 => finding.file.clone(),
            line => format!("{}:{line}", finding.file),
        };
        let said = Sentence::quoting(place)
            .and(format!(" {}: ", finding.rule.id))
            .quote(&finding.message)
            .and("; to do: ")
            .quote(&finding.hint);
        match finding.rule.severity {
            Severity::Error => review.wrong.push(said),
            Severity::Warning => review.look_at.push(said),
        }
    }
    if report.dropped > 0 {
        let said = format!("{} findings of the lint are not listed", report.dropped);
        review.look_at.push(Sentence::of(said));
    }
    for (name, run) in bundles {
        review.add_bundle(name, run, None);
    }
    if let Some(nonce) = nonce {
        let answers = |run: &Recomputed| NonceCheck::of(run, Some(nonce)) == NonceCheck::Answers;
        if !bundles.iter().any(|(_, run)| answers(run)) {
            let said = Sentence::of("no bundle answers the nonce ").quote(nonce);
            review.wrong.push(said);
        }
    }
    let found = submission::look(folder, report.version.as_deref(), bundles);
    review.wrong.extend(found.wrong);
    review.look_at.extend(found.look_at);
    review.requirements = found.requirements;
    for open in &report.unchecked {
        review
            .look_at
            .push(Sentence::of("not checked here: ").quote(open));
    }
    let all = !review.requirements.is_empty()
        && review.requirements.iter().all(|requirement| {
            requirement.level != "MUST" || requirement.support == Support::Recomputed
        });
    review.conclusion = match (review.wrong.is_empty(), all) {
        (false, _) => Conclusion::Broken,
        (true, false) => Conclusion::Open,
        (true, true) => Conclusion::Holds,
    };
    Ok(review)
}

/// A fresh word for a run to answer: nobody could have known it before.
///
/// # Errors
/// The system gives no random bytes.
pub fn issue_nonce() -> Result<String, std::io::Error> {
    let mut bytes = [0u8; NONCE_BYTES];
    getrandom::fill(&mut bytes).map_err(|error| std::io::Error::other(error.to_string()))?;
    Ok(data_encoding::BASE32_NOPAD
        .encode(&bytes)
        .to_ascii_lowercase())
}
