//! Every rule of the lint, as data: `--explain` and `docs/reference/lint.md` are made from this table.

/// How bad it is.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum Severity {
    /// Must be repaired before the folder is submitted.
    Error,
    /// A person should look at it.
    Warning,
}

impl Severity {
    /// The word in output.
    pub fn word(self) -> &'static str {
        match self {
            Severity::Error => "error",
            Severity::Warning => "warning",
        }
    }
}

/// What the validator of the programme makes of it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Programme {
    /// Its newest revision refuses the submission.
    Refuses,
    /// It cannot be told without it.
    Unknown,
    /// It warns, and a person reviews.
    Warns,
    /// It does not look at this.
    Silent,
}

impl Programme {
    /// A sentence for people.
    pub fn sentence(self) -> &'static str {
        match self {
            Programme::Refuses => "The programme's validator refuses this.",
            Programme::Unknown => "What the programme's validator says of this is not known here.",
            Programme::Warns => "The programme's validator warns of this.",
            Programme::Silent => "The programme's validator does not look at this.",
        }
    }
}

/// One rule.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Rule {
    /// Name in findings; never changes its meaning.
    pub id: &'static str,
    /// How bad it is.
    pub severity: Severity,
    /// What the validator of the programme makes of it.
    pub programme: Programme,
    /// What is found.
    pub what: &'static str,
    /// Why it matters, and where the demand comes from.
    pub why: &'static str,
    /// What to do.
    pub todo: &'static str,
}

/// The rule with an id.
pub fn rule(id: &str) -> Option<&'static Rule> {
    RULES.iter().find(|rule| rule.id == id)
}

use Programme::{Refuses, Silent, Unknown, Warns};
use Severity::{Error, Warning};

const fn row(
    id: &'static str,
    severity: Severity,
    programme: Programme,
    what: &'static str,
    why: &'static str,
    todo: &'static str,
) -> Rule {
    Rule {
        id,
        severity,
        programme,
        what,
        why,
        todo,
    }
}

/// All rules: those of the programme's validator first, in the order in which it looks.
#[rustfmt::skip]
pub const RULES: &[Rule] = &[
    row("product-missing", Error, Refuses,
        "the folder has no file `PRODUCT.yaml`",
        "The checklist is the submission (instructions.md of the programme).",
        "copy the official form of your Kubernetes version to `PRODUCT.yaml` and fill it in"),
    row("product-yaml", Error, Refuses,
        "`PRODUCT.yaml` is no YAML, has a key twice, or another shape than the form",
        "The validator cannot load it (validate.go, loadYaml).",
        "repair the line; the hint says how"),
    row("product-unsupported", Error, Unknown,
        "`PRODUCT.yaml` is too large, is no plain file, or uses anchors, aliases, tags or several documents",
        "A form needs none of these; they can make a small file grow without bound, so they are not read here.",
        "write the values out"),
    row("version-unknown", Error, Unknown,
        "it cannot be told which version of the checklist applies",
        "The validator takes the version from the path, `vX.Y/<product>/PRODUCT.yaml`, and loads the form of that version (validate.go).",
        "put the folder below `vX.Y`, set `metadata.kubernetesVersion`, or give the form with --form"),
    row("metadata-missing", Error, Refuses,
        "`metadata` or a required field of it is missing or empty",
        "Ten fields are required; `repoUrl` alone is optional (validate.go, metadataFields).",
        "fill in the field; `k8sConformanceUrl` is not in the forms and has to be added"),
    row("metadata-type", Error, Refuses,
        "a metadata field is no text",
        "An unquoted `1.34` or `2026-01-31` is a number or a date to YAML, and the validator wants texts (validate.go).",
        "put the value between quotes"),
    row("metadata-placeholder", Error, Refuses,
        "a metadata field still has the placeholder of the form",
        "Values between square brackets are refused (validate.go).",
        "replace it with the value of your product"),
    row("k8s-conformance-url", Error, Refuses,
        "`k8sConformanceUrl` does not have the form that is asked for",
        "Certification for Kubernetes comes first, and its entry is linked as https://github.com/cncf/k8s-conformance/tree/master/vX.Y/<product> (validate.go).",
        "link the folder of your product in cncf/k8s-conformance"),
    row("logo-type", Error, Refuses,
        "`productLogoUrl` links something else than .svg, .eps or .ai",
        "The logo is printed and scaled (validate.go since cncf/k8s-ai-conformance#133).",
        "link a vector file; the address itself has to end in .svg, .eps or .ai"),
    row("category-missing", Error, Refuses,
        "`spec` or a category of it is missing",
        "All categories of the version's form must be there, also those with nothing but SHOULD (validate.go).",
        "copy the category from the official form"),
    row("id-missing", Error, Refuses,
        "a requirement of this version is missing in its category",
        "All ids of the version must be listed; a SHOULD may be left empty (validate.go; reviewers bounced cncf/k8s-ai-conformance#99).",
        "copy the entry from the official form"),
    row("status-invalid", Error, Refuses,
        "the status is none of Implemented, Partially Implemented, Not Implemented, N/A",
        "Only these words are known, written exactly so (validate.go, validStatuses).",
        "choose one of the four; a SHOULD without status must have no evidence either"),
    row("must-not-implemented", Error, Refuses,
        "a MUST has another status than Implemented",
        "Each MUST has to be implemented; only `cluster_autoscaling` may be N/A (validate.go, checkRequirementStatus).",
        "implement it; the programme has no partial certificate"),
    row("na-notes", Error, Refuses,
        "the status is N/A and there are no notes",
        "Why it does not apply has to be said (validate.go; FAQ of the programme).",
        "say in `notes` why the context does not arise on your platform"),
    row("must-na", Warning, Warns,
        "a MUST is N/A",
        "Allowed for `cluster_autoscaling` only, and a reviewer reads the justification. Validators before the fix of cncf/k8s-ai-conformance#145 refuse it.",
        "make the notes say what there is instead of an autoscaler"),
    row("evidence-path", Error, Refuses,
        "a path of evidence is empty, leaves the product folder or names the folder of another product",
        "Evidence has to lie in the product folder (validate.go, resolveEvidencePath).",
        "copy the file into the folder and name it by a path relative to it"),
    row("evidence-missing", Error, Refuses,
        "a file of evidence is not there",
        "Each path must lead to a file (validate.go).",
        "add the file or correct the path; upper and lower case differ"),
    row("evidence-file-url", Warning, Silent,
        "evidence is written as `file://` or with a `#fragment`",
        "Only validators since cncf/k8s-ai-conformance#141 understand it; earlier ones take all of it for a file name and refuse, although the 1.37 form suggests it.",
        "write the plain relative path and name the test in `notes`; keep the fragment only where no default test exists and a test is to be checked"),
    row("artifact-unreadable", Error, Refuses,
        "a test artefact has no test result or cannot be parsed",
        "`e2e.log`, `results.json` and `junit.xml` are recognised by name and parsed (validate.go, parseArtifact).",
        "give the file as the test run wrote it, or rename it if it is something else"),
    row("artifact-unsupported", Error, Unknown,
        "a test artefact is too large, is no plain file, or declares entities",
        "More than 16 MB are not read here, and links are not followed.",
        "split or shorten it; put the file itself into the folder"),
    row("artifact-failing", Error, Refuses,
        "a test artefact contains a failing test",
        "Any failure refuses the submission, also one of a test that belongs to a SHOULD (validate.go, checkArtifactEvidence).",
        "repair the platform and run again; do not edit the artefact"),
    row("test-missing", Error, Refuses,
        "the test that an entry refers to is not in the artefact",
        "The fragment names it, or the id has a default test: secure_accelerator_access, gang_scheduling and cluster_autoscaling have (validate.go).",
        "run the test into this artefact, or name the right one as `#TestName`"),
    row("test-failed", Error, Refuses,
        "the test that an entry refers to failed",
        "Evidence of the opposite (validate.go, checkArtifactEvidence).",
        "repair the platform and run again"),
    row("test-skipped", Error, Refuses,
        "the entry is Implemented, and its test was skipped",
        "A skipped test shows nothing (validate.go, checkArtifactEvidence).",
        "run it where it is not skipped, or give other evidence in place of this artefact"),
    row("artifact-absent", Warning, Warns,
        "the requirement has an official test, and no test artefact is given",
        "Since 1.37 artefacts are recommended where a test exists (validate.go, hybrid verification).",
        "add `e2e.log`, `results.json` or `junit.xml` of the official test"),

    row("folder-version", Warning, Silent,
        "the folder does not lie below a folder `vX.Y`",
        "The validator takes the version from the path and can judge nothing without.",
        "submit it as vX.Y/<product>"),
    row("version-mismatch", Error, Silent,
        "folder, `metadata.kubernetesVersion` and --form name different versions",
        "The certificate is for one version; the validator looks at the folder's name only.",
        "make them agree"),
    row("description-changed", Error, Silent,
        "a description differs from the official form",
        "`description` has to be submitted unchanged (instructions.md); the validator compares no texts. Needs --form.",
        "copy the text from the official form; remarks belong into `notes`"),
    row("level-changed", Error, Silent,
        "a level differs from the official form",
        "`level` has to be submitted unchanged (instructions.md); the validator uses the level of its own form.",
        "write the level of the form"),
    row("id-unknown", Error, Silent,
        "an entry has an id that this version does not have in this category",
        "It is in no form; the validator passes over it.",
        "remove it, or move it to the category of the form"),
    row("id-duplicate", Error, Silent,
        "an id stands in a category twice",
        "The validator takes the last; a reader may take the first.",
        "keep one entry"),
    row("key-unknown", Warning, Silent,
        "a key is none of the form",
        "Often a slip, such as `evidences`; the validator passes over it and what stands there counts for nothing.",
        "correct or remove it"),
    row("text-hidden", Error, Silent,
        "a text has control characters or marks that reverse the order of letters",
        "They show a reviewer something else than what is there.",
        "write the text without them"),
    row("evidence-empty", Error, Silent,
        "the status is Implemented, and there is no evidence",
        "A claim without evidence; the validator lets it pass, reviewers do not have to.",
        "list files or links that show it"),
    row("evidence-hollow", Error, Silent,
        "a file of evidence is empty, or a folder without files",
        "The validator asks only whether it exists.",
        "give the content"),
    row("evidence-links-only", Warning, Silent,
        "all evidence of a MUST lies behind links",
        "Links move, die or are closed to robots (cncf/k8s-ai-conformance#62, #109), and what they show can change after the review.",
        "put a copy into the folder"),
    row("evidence-symlink", Error, Silent,
        "a path of evidence goes through a symbolic link",
        "It can lead out of the folder, and is another file on another machine. It is not followed here.",
        "put the file itself into the folder"),
    row("artifact-name", Warning, Silent,
        "a file holds test results, under a name that the validator does not know",
        "Only `e2e.log`, `results.json` and `junit.xml` are parsed; a failure in another file is not seen.",
        "rename it; in a subfolder if there are several"),
    row("artifact-hand-typed", Error, Silent,
        "a test artefact does not have the structure that `go test` and its reporters write",
        "Runs, times and the closing line are missing; the validator matches result lines only, so a single typed line passes.",
        "give the whole output of the run: `go test -v`, `go test -json`, or JUnit with a time for each test"),
    row("evidence-stale", Warning, Silent,
        "a test artefact is older than the Kubernetes version it is to show",
        "A run before the release month of the version cannot have tested it.",
        "run the tests again on this version"),
    row("evidence-version", Warning, Silent,
        "a test artefact names a server of another Kubernetes version",
        "The submission is for one version.",
        "run the tests again on this version"),
    row("evidence-foreign", Warning, Silent,
        "test artefacts name different clusters",
        "A certificate covers one product in one configuration; evidence of two clusters needs an explanation.",
        "run all tests on one cluster, or say in `notes` what belongs to which"),
];

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_table_is_well_formed() {
        let mut seen = std::collections::BTreeSet::new();
        for rule in RULES {
            assert!(seen.insert(rule.id), "{} twice", rule.id);
            let words = |c: char| c.is_ascii_lowercase() || c.is_ascii_digit() || c == '-';
            assert!(rule.id.chars().all(words), "{}", rule.id);
            assert!(
                !rule.what.ends_with('.') && !rule.todo.ends_with('.'),
                "{}",
                rule.id
            );
            assert!(rule.why.ends_with('.'), "{}", rule.id);
            // What refuses a submission is never a mere warning.
            assert!(
                rule.severity == Severity::Error || !matches!(rule.programme, Refuses | Unknown),
                "{}",
                rule.id
            );
        }
    }
}
