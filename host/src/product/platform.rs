//! Reads `karat.toml`: what only the vendor knows of the platform. Strict TOML, every mistake with its place.
//!
//! ```toml
//! [platform]                          # keys as in the form, below `metadata`
//! platformName = "Acme AI"
//! vendorName = "Acme Inc."
//! k8sConformanceUrl = "https://github.com/cncf/k8s-conformance/tree/master/v1.37/acme"
//!
//! [[declaration]]                     # quoted wherever a result counts because of it
//! requirements = ["gang_scheduling"]  # or ["*"]
//! text = "Run on three nodes with two H100 each, in our data centre in Graz."
//! by = "Jane Doe, Acme Inc."
//!
//! [images]                            # for clusters that cannot pull from everywhere
//! pushed-to = "registry.example/karat"
//! mirrors = { "registry.k8s.io" = "mirror.example/k8s" }
//! pull-secrets = ["registries/pull"]  # Secrets of the cluster, `namespace/name`
//!
//! [nodes]                             # which nodes leases may take: those with all of these labels
//! labels = { pool = "tests" }
//! probes = { gang-scheduling = { pool = "large" } }   # for one probe, instead
//! ```
//!
//! A declaration stands in for the positive sign of real hardware that a run did not see. It never turns a simulation into
//! something else.

use crate::images::{PULL_SECRETS_MAX, Placement, PullSecretName, is_place};
use crate::lease::{NodeChoice, NodeLabels};
use crate::lint::FIELDS;
use crate::manifest::source::{FileError, Source, shown};
use crate::report::text::is_treacherous;
use serde::Deserialize;
use std::collections::{BTreeMap, BTreeSet};
use std::ops::Range;
use toml::Spanned as S;

/// Largest file in bytes.
pub const PLATFORM_SIZE_MAX: usize = 1 << 20;

/// Longest value in characters.
const VALUE_MAX: usize = 1000;

/// All requirements.
pub(super) const ANY: &str = "*";

/// The key that the form fills in itself.
const VERSION: &str = "kubernetesVersion";

/// What the vendor says of the platform.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Platform {
    /// Metadata by the keys of the form.
    pub metadata: BTreeMap<String, String>,
    /// Declarations in the order of the file.
    pub declarations: Vec<Declaration>,
    /// Where images come from.
    pub images: Placement,
    /// Which nodes leases may take.
    pub nodes: NodeChoice,
}

/// What somebody stands in for.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Declaration {
    /// Requirement ids, or `*`.
    pub requirements: BTreeSet<String>,
    /// The words. One line.
    pub text: String,
    /// Who says so. One line.
    pub by: String,
}

impl Platform {
    /// The first declaration that covers a requirement.
    pub fn declaration(&self, id: &str) -> Option<&Declaration> {
        let mut all = self.declarations.iter();
        all.find(|one| one.requirements.contains(id) || one.requirements.contains(ANY))
    }

    /// Reads `karat.toml`. `origin` is what messages call it.
    ///
    /// # Errors
    /// The first thing that is wrong, with its place.
    pub fn parse(text: &str, origin: &str) -> Result<Platform, FileError> {
        let source = Source::limited(text, origin, PLATFORM_SIZE_MAX)?;
        let raw: RawFile = source.toml().map_err(FileError::Invalid)?;
        let reader = Reader { source };
        let mut platform = Platform::default();
        for (key, value) in &raw.platform {
            reader.key(key)?;
            let optional = FIELDS
                .iter()
                .any(|(camel, _, required)| *camel == key.get_ref() && !required);
            let text = reader.value(value, optional)?;
            platform.metadata.insert(key.get_ref().clone(), text);
        }
        for raw in &raw.declaration {
            platform.declarations.push(reader.declaration(raw)?);
        }
        platform.images = reader.images(&raw.images)?;
        platform.nodes = reader.nodes(&raw.nodes)?;
        Ok(platform)
    }
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct RawFile {
    #[serde(default)]
    platform: BTreeMap<S<String>, S<String>>,
    #[serde(default)]
    declaration: Vec<RawDeclaration>,
    #[serde(default)]
    images: RawImages,
    #[serde(default)]
    nodes: RawNodes,
}

#[derive(Default, Deserialize)]
#[serde(deny_unknown_fields, rename_all = "kebab-case")]
struct RawImages {
    pushed_to: Option<S<String>>,
    #[serde(default)]
    mirrors: BTreeMap<S<String>, S<String>>,
    #[serde(default)]
    pull_secrets: Vec<S<String>>,
}

type RawLabels = BTreeMap<S<String>, S<String>>;

#[derive(Default, Deserialize)]
#[serde(deny_unknown_fields)]
struct RawNodes {
    #[serde(default)]
    labels: RawLabels,
    #[serde(default)]
    probes: BTreeMap<String, RawLabels>,
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct RawDeclaration {
    requirements: S<Vec<S<String>>>,
    text: S<String>,
    by: S<String>,
}

struct Reader<'a> {
    source: Source<'a>,
}

impl Reader<'_> {
    fn refuse<T>(&self, span: Range<usize>, message: impl Into<String>) -> Result<T, FileError> {
        Err(FileError::Invalid(self.source.problem(span, message)))
    }

    fn key(&self, key: &S<String>) -> Result<(), FileError> {
        let text = key.get_ref().as_str();
        if text == VERSION {
            let message = "the version comes from the form; remove this line";
            return self.refuse(key.span(), message);
        }
        if FIELDS.iter().any(|(camel, _, _)| *camel == text) {
            return Ok(());
        }
        let same =
            |known: &str| known.to_lowercase() == text.replace(['_', '-'], "").to_lowercase();
        let near = FIELDS.iter().find(|(camel, _, _)| same(camel));
        let hint = match near {
            Some((camel, _, _)) => format!("write `{camel}`"),
            None => {
                let known = FIELDS.iter().map(|(camel, _, _)| *camel);
                let known: Vec<&str> = known.filter(|known| *known != VERSION).collect();
                format!("the form has {}", known.join(", "))
            }
        };
        let message = format!("`{}` is no metadata of the form; {hint}", shown(text));
        self.refuse(key.span(), message)
    }

    fn value(&self, value: &S<String>, may_be_empty: bool) -> Result<String, FileError> {
        let text = value.get_ref();
        let trimmed = text.trim();
        if trimmed.is_empty() && !may_be_empty {
            return self.refuse(
                value.span(),
                "nothing stands here; write a text or remove the line",
            );
        }
        if text.chars().count() > VALUE_MAX {
            let message = format!("the text has more than {VALUE_MAX} characters");
            return self.refuse(value.span(), message);
        }
        if let Some(c) = text.chars().find(|c| is_treacherous(*c)) {
            let message = format!(
                "U+{:04X} stands here; write one line without characters that cannot be seen",
                u32::from(c)
            );
            return self.refuse(value.span(), message);
        }
        if trimmed.starts_with('[') && trimmed.ends_with(']') {
            let message = "this is a placeholder of the form; write the value of your product";
            return self.refuse(value.span(), message);
        }
        Ok(trimmed.to_owned())
    }

    fn declaration(&self, raw: &RawDeclaration) -> Result<Declaration, FileError> {
        let mut requirements = BTreeSet::new();
        for id in raw.requirements.get_ref() {
            let text = id.get_ref();
            let plain = |c: char| c.is_ascii_lowercase() || c.is_ascii_digit() || c == '_';
            if text != ANY && (text.is_empty() || text.len() > 64 || !text.chars().all(plain)) {
                let message = format!(
                    "`{}` is no requirement; write an id of the form, or `*` for all",
                    shown(text)
                );
                return self.refuse(id.span(), message);
            }
            if !requirements.insert(text.clone()) {
                let message = format!("`{}` stands here twice", shown(text));
                return self.refuse(id.span(), message);
            }
        }
        if requirements.is_empty() {
            let message = "the declaration covers nothing; name requirements, or `*` for all";
            return self.refuse(raw.requirements.span(), message);
        }
        Ok(Declaration {
            requirements,
            text: self.value(&raw.text, false)?,
            by: self.value(&raw.by, false)?,
        })
    }

    fn images(&self, raw: &RawImages) -> Result<Placement, FileError> {
        let mut mirrors = BTreeMap::new();
        for (from, to) in &raw.mirrors {
            mirrors.insert(self.place(from)?, self.place(to)?);
        }
        let mut pull_secrets = Vec::new();
        for text in &raw.pull_secrets {
            match PullSecretName::parse(text.get_ref()) {
                None => {
                    let message = format!(
                        "`{}` names no Secret; write `namespace/name` of one with credentials of registries",
                        shown(text.get_ref())
                    );
                    return self.refuse(text.span(), message);
                }
                Some(name) if pull_secrets.contains(&name) => {
                    return self.refuse(text.span(), format!("`{name}` stands here twice"));
                }
                Some(_) if pull_secrets.len() == PULL_SECRETS_MAX => {
                    let message = format!(
                        "more than {PULL_SECRETS_MAX} pull secrets; one Secret holds the credentials of many registries"
                    );
                    return self.refuse(text.span(), message);
                }
                Some(name) => pull_secrets.push(name),
            }
        }
        Ok(Placement {
            pull_secrets,
            pushed_to: match &raw.pushed_to {
                Some(place) => Some(self.place(place)?),
                None => None,
            },
            mirrors,
        })
    }

    fn nodes(&self, raw: &RawNodes) -> Result<NodeChoice, FileError> {
        let mut choice = NodeChoice {
            all: self.labels(&raw.labels)?,
            ..NodeChoice::default()
        };
        for (probe, labels) in &raw.probes {
            choice.of.insert(probe.clone(), self.labels(labels)?);
        }
        Ok(choice)
    }

    fn labels(&self, raw: &RawLabels) -> Result<NodeLabels, FileError> {
        let mut labels = BTreeMap::new();
        for (key, value) in raw {
            if !is_label_key(key.get_ref()) {
                let message = format!(
                    "`{}` is no key of a label; write one as `kubectl get nodes --show-labels` shows it",
                    shown(key.get_ref())
                );
                return self.refuse(key.span(), message);
            }
            if !value.get_ref().is_empty() && !is_label_name(value.get_ref()) {
                let message = format!("`{}` is no value of a label", shown(value.get_ref()));
                return self.refuse(value.span(), message);
            }
            labels.insert(key.get_ref().clone(), value.get_ref().clone());
        }
        Ok(NodeLabels(labels))
    }

    fn place(&self, place: &S<String>) -> Result<String, FileError> {
        if is_place(place.get_ref()) {
            return Ok(place.get_ref().clone());
        }
        let message = format!(
            "`{}` is no place of images; write a registry or a repository in one, such as `registry.example:5000/karat`",
            shown(place.get_ref())
        );
        self.refuse(place.span(), message)
    }
}

/// A key of a label: a name, with a DNS prefix or without. Source: Kubernetes, "Labels and Selectors".
fn is_label_key(key: &str) -> bool {
    match key.split_once('/') {
        None => is_label_name(key),
        Some((prefix, name)) => {
            let dns = |c: char| c.is_ascii_lowercase() || c.is_ascii_digit() || ".-".contains(c);
            !prefix.is_empty()
                && prefix.len() <= 253
                && prefix.chars().all(dns)
                && is_label_name(name)
        }
    }
}

/// A name in a key, or a value that is not empty.
fn is_label_name(text: &str) -> bool {
    let end = |c: char| c.is_ascii_alphanumeric();
    (1..=63).contains(&text.len())
        && text.starts_with(end)
        && text.ends_with(end)
        && text.chars().all(|c| end(c) || "-_.".contains(c))
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::manifest::Problem;

    const GOOD: &str = "[platform]\nplatformName = \"Acme\"\nrepoUrl = \"\"\n\n[[declaration]]\nrequirements = [\"gang_scheduling\"]\n\
        text = \"Three real nodes.\"\nby = \"Jane Doe\"\n";

    fn problem(text: &str) -> Problem {
        match Platform::parse(text, "karat.toml") {
            Err(FileError::Invalid(problem)) => *problem,
            other => panic!("{other:?}"),
        }
    }

    #[test]
    fn a_file_is_read() {
        let platform = Platform::parse(GOOD, "karat.toml").unwrap();
        assert_eq!(platform.metadata["platformName"], "Acme");
        assert_eq!(platform.metadata["repoUrl"], "");
        assert_eq!(
            platform.declaration("gang_scheduling").unwrap().by,
            "Jane Doe"
        );
        assert_eq!(platform.declaration("gpu_sharing"), None);
        assert_eq!(platform.images, Placement::default());
        let images = "[images]\npushed-to = \"registry.example:5000/karat\"\nmirrors = {\"registry.k8s.io\" = \"m.example/k8s\"}\n";
        let placed = Platform::parse(images, "karat.toml").unwrap().images;
        assert_eq!(
            placed.pushed_to.as_deref(),
            Some("registry.example:5000/karat")
        );
        assert_eq!(placed.mirrors["registry.k8s.io"], "m.example/k8s");
        let secrets = "[images]\npull-secrets = [\"registries/one\", \"registries/two\"]\n";
        let placed = Platform::parse(secrets, "karat.toml").unwrap().images;
        let named: Vec<String> = placed
            .pull_secrets
            .iter()
            .map(ToString::to_string)
            .collect();
        assert_eq!(named, ["registries/one", "registries/two"]);
        for (old, new, says) in [
            ("registries/two", "two", "names no Secret"),
            ("registries/two", "registries/one", "twice"),
            ("\"registries/two\"", "5", "invalid type"),
        ] {
            let found = problem(&secrets.replacen(old, new, 1));
            assert!(found.message.contains(says), "{found}");
        }
        for (old, new, says) in [
            (
                "registry.example:5000/karat",
                "https://x",
                "no place of images",
            ),
            ("m.example/k8s", "m.example/", "no place of images"),
            ("registry.k8s.io", "-x", "no place of images"),
            ("pushed-to", "pushed", "unknown field"),
        ] {
            let found = problem(&images.replacen(old, new, 1));
            assert!(found.message.contains(says), "{found}");
        }
        let nodes = "[nodes]\nlabels = {pool = \"tests\", \"example.com/zone\" = \"\"}\n\
            probes = {gang-scheduling = {type = \"kwok\"}}\n";
        let chosen = Platform::parse(nodes, "karat.toml").unwrap().nodes;
        assert_eq!(
            chosen.of("dra-support").to_string(),
            "example.com/zone=,pool=tests"
        );
        assert_eq!(chosen.of("gang-scheduling").to_string(), "type=kwok");
        for (old, new, says) in [
            ("pool", "\"in valid\"", "no key of a label"),
            (
                "\"example.com/zone\"",
                "\"Example/zone\"",
                "no key of a label",
            ),
            ("tests", "-x", "no value of a label"),
            ("labels", "label", "unknown field"),
            ("\"kwok\"", "5", "invalid type"),
        ] {
            let found = problem(&nodes.replacen(old, new, 1));
            assert!(found.message.contains(says), "{found}");
        }
        let all = GOOD.replace("gang_scheduling", "*");
        let platform = Platform::parse(&all, "karat.toml").unwrap();
        assert!(platform.declaration("gpu_sharing").is_some());
        assert_eq!(
            Platform::parse("", "karat.toml").unwrap(),
            Platform::default()
        );
    }

    #[test]
    fn every_mistake_has_its_place() {
        for (old, new, line, says) in [
            ("platformName", "platform_name", 2, "write `platformName`"),
            ("platformName", "platfrom", 2, "the form has platformName"),
            (
                "platformName",
                "kubernetesVersion",
                2,
                "comes from the form",
            ),
            ("\"Acme\"", "5", 2, "invalid type"),
            ("\"Acme\"", "\"\"", 2, "nothing stands here"),
            ("\"Acme\"", "\"[Platform Name]\"", 2, "placeholder"),
            ("\"Acme\"", "\"a\\u202eb\"", 2, "U+202E"),
            ("\"Acme\"", "\"a\\nb\"", 2, "U+000A"),
            (
                "[platform]",
                "[platform]\nplatformName = \"B\"",
                3,
                "duplicate key",
            ),
            ("[[declaration]]", "[[declarations]]", 5, "unknown field"),
            ("by = ", "from = ", 8, "unknown field"),
            ("[\"gang_scheduling\"]", "[]", 6, "covers nothing"),
            ("[\"gang_scheduling\"]", "[\"Gang\"]", 6, "no requirement"),
            ("[\"gang_scheduling\"]", "[\"a\", \"a\"]", 6, "twice"),
            ("\"Three real nodes.\"", "\" \"", 7, "nothing stands here"),
        ] {
            assert!(GOOD.contains(old), "{old}");
            let found = problem(&GOOD.replacen(old, new, 1));
            assert_eq!(found.line, line, "{found}");
            assert!(found.message.contains(says), "{found}");
        }
        let long = GOOD.replace("Acme", &"x".repeat(VALUE_MAX + 1));
        assert!(problem(&long).message.contains("more than"));
        let huge = " ".repeat(PLATFORM_SIZE_MAX + 1);
        let error = Platform::parse(&huge, "karat.toml").unwrap_err();
        assert!(matches!(error, FileError::TooLarge { .. }), "{error}");
    }
}
