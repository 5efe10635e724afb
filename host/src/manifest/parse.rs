//! From text to [`Manifest`]: every rule that a manifest must keep, each with its place in the message.
//!
//! The text is a stranger's. Its size is limited first, then its contract is looked at (another contract may have other
//! keys), then TOML and keys are read strictly, and last come the rules below, in the order of the file. What cannot be
//! decided from the manifest alone is decided elsewhere: grants in `grant.rs`, imports in `package.rs`.
//!
//! This file holds the frame and the short rules; [`super::permissions`], [`super::leases`], [`super::settings`] and
//! [`super::cases`] the others.

use super::raw;
use super::source::{ManifestError, Source, shown};
use super::values::{self, is_dns_label, is_dns_subdomain, one_of, parse_bytes, parse_duration};
use super::{ImageLine, ImageSource, MAX_MANIFEST_SIZE, Manifest, NamespaceLine, PodSecurity};
use crate::model::Reach;
use crate::names::{CONTRACT_VERSION, DNS_LABEL_MAX};
use std::collections::BTreeMap;
use std::ops::{Range, RangeInclusive};
use std::time::Duration;
use toml::Spanned;

/// Interfaces that every probe may import without asking.
pub const CORE_INTERFACES: &[&str] = &["run", "wait", "clock", "log", "settings", "cases", "types"];

/// Interfaces that a manifest must name under `capabilities`.
pub const CAPABILITIES: &[&str] = &[
    "kube-read",
    "kube-write",
    "leases",
    "pods",
    "http",
    "metrics",
    "device",
];

/// Longest probe id without its vendor: with run id and alias it must fit into a namespace's 63 characters.
const MAX_ID: usize = 40;
/// Longest alias of a namespace, for the same reason.
const MAX_ALIAS: usize = 7;
/// Longest title: one line of a table.
const MAX_TITLE: usize = 120;
/// Longest text for people, so that reports stay readable.
const MAX_PROSE: usize = 2000;

/// Pods of a namespace that says nothing: room for any check, none for a runaway loop.
const DEFAULT_PODS: u32 = 50;
/// Most pods of one namespace. More than this burdens small clusters.
const MAX_PODS: u32 = 500;

pub(super) type Checked<T> = Result<T, ManifestError>;

impl Manifest {
    /// Reads a manifest.
    ///
    /// `origin` is what messages call it: the path of `probe.toml`, or a component and its section.
    ///
    /// # Errors
    /// The first thing that is wrong, with line, column and the line itself: [`ManifestError`].
    ///
    /// ```
    /// use karat_engine::manifest::Manifest;
    ///
    /// let error = Manifest::parse("contract = \"9.0.0\"", "probe.toml").unwrap_err();
    /// assert!(error.to_string().starts_with("probe.toml:1:12: contract `9.0.0` is not served"));
    /// ```
    pub fn parse(text: &str, origin: &str) -> Result<Manifest, ManifestError> {
        if text.len() > MAX_MANIFEST_SIZE {
            return Err(ManifestError::TooLarge {
                origin: origin.to_owned(),
                size: text.len(),
            });
        }
        let source = Source::new(text, origin);
        if let Ok(peek) = toml::from_str::<raw::Peek>(text) {
            check_contract(&source, &peek.contract)?;
        }
        let raw: raw::Manifest = source.toml().map_err(ManifestError::Syntax)?;
        Checker { source }.manifest(raw)
    }
}

fn check_contract(source: &Source<'_>, contract: &Spanned<String>) -> Checked<()> {
    if contract.get_ref() == CONTRACT_VERSION {
        return Ok(());
    }
    let message = format!(
        "contract `{}` is not served by this release, which serves `{CONTRACT_VERSION}`; build the probe for that contract or use the release that serves it",
        shown(contract.get_ref())
    );
    Err(ManifestError::Contract(
        source.problem(contract.span(), message),
    ))
}

/// Applies the rules to one manifest.
pub(super) struct Checker<'a> {
    pub(super) source: Source<'a>,
}

impl Checker<'_> {
    pub(super) fn refuse<T>(&self, span: Range<usize>, message: impl Into<String>) -> Checked<T> {
        Err(ManifestError::Invalid(self.source.problem(span, message)))
    }

    pub(super) fn require(
        &self,
        holds: bool,
        value: &Spanned<String>,
        what: &str,
        form: &str,
    ) -> Checked<()> {
        if holds {
            return Ok(());
        }
        self.refuse(
            value.span(),
            format!("{what} `{}` is malformed; {form}", shown(value.get_ref())),
        )
    }

    /// Looks a word up in a table.
    pub(super) fn word<T: Copy>(
        &self,
        value: &Spanned<String>,
        what: &str,
        table: &[(&str, T)],
    ) -> Checked<T> {
        if let Some((_, meaning)) = table.iter().find(|(word, _)| word == value.get_ref()) {
            return Ok(*meaning);
        }
        let words: Vec<&str> = table.iter().map(|(word, _)| *word).collect();
        self.refuse(
            value.span(),
            format!(
                "{what} `{}` is not known; write {}",
                shown(value.get_ref()),
                one_of(&words)
            ),
        )
    }

    pub(super) fn known(&self, value: &Spanned<String>, what: &str, words: &[&str]) -> Checked<()> {
        let table: Vec<(&str, ())> = words.iter().map(|word| (*word, ())).collect();
        self.word(value, what, &table)
    }

    /// Refuses the second of two equal values and names the line of the first.
    pub(super) fn unique<'v>(
        &self,
        what: &str,
        values: impl IntoIterator<Item = &'v Spanned<String>>,
    ) -> Checked<()> {
        let mut seen = BTreeMap::new();
        for value in values {
            if let Some(first) = seen.insert(value.get_ref().as_str(), value.span()) {
                let line = self.source.line(first.start);
                return self.refuse(
                    value.span(),
                    format!(
                        "{what} `{}` is there twice, first in line {line}; remove one",
                        shown(value.get_ref())
                    ),
                );
            }
        }
        Ok(())
    }

    /// A text of one line.
    pub(super) fn title(&self, value: &Spanned<String>, what: &str) -> Checked<String> {
        self.text(value, what, MAX_TITLE, |c| !c.is_control())
    }

    /// A text of any number of lines.
    pub(super) fn prose(&self, value: &Spanned<String>, what: &str) -> Checked<String> {
        self.text(value, what, MAX_PROSE, |c| !c.is_control() || c == '\n')
    }

    fn text(
        &self,
        value: &Spanned<String>,
        what: &str,
        max: usize,
        fits: fn(char) -> bool,
    ) -> Checked<String> {
        let text = value.get_ref().trim();
        if text.is_empty() {
            return self.refuse(value.span(), format!("{what} is empty; people need it"));
        }
        if text.chars().count() > max {
            return self.refuse(
                value.span(),
                format!("{what} is longer than {max} characters; shorten it"),
            );
        }
        if !text.chars().all(fits) {
            return self.refuse(
                value.span(),
                format!("{what} holds control characters; remove them"),
            );
        }
        Ok(text.to_owned())
    }

    pub(super) fn duration(
        &self,
        value: &Spanned<String>,
        what: &str,
        bounds: &RangeInclusive<Duration>,
    ) -> Checked<Duration> {
        match parse_duration(value.get_ref()) {
            Ok(duration) if bounds.contains(&duration) => Ok(duration),
            Ok(_) => self.refuse(
                value.span(),
                format!(
                    "{what} must lie between {:?} and {:?}",
                    bounds.start(),
                    bounds.end()
                ),
            ),
            Err(form) => self.refuse(
                value.span(),
                format!("{what} `{}` is malformed; {form}", shown(value.get_ref())),
            ),
        }
    }

    pub(super) fn bytes(
        &self,
        value: &Spanned<String>,
        what: &str,
        bounds: &RangeInclusive<u64>,
    ) -> Checked<u64> {
        match parse_bytes(value.get_ref()) {
            Ok(bytes) if bounds.contains(&bytes) => Ok(bytes),
            Ok(_) => self.refuse(
                value.span(),
                format!(
                    "{what} must lie between {} and {} bytes",
                    bounds.start(),
                    bounds.end()
                ),
            ),
            Err(form) => self.refuse(
                value.span(),
                format!("{what} `{}` is malformed; {form}", shown(value.get_ref())),
            ),
        }
    }

    fn manifest(&self, raw: raw::Manifest) -> Checked<Manifest> {
        check_contract(&self.source, &raw.contract)?;
        self.id(&raw.id)?;
        self.version(&raw.version)?;
        for id in &raw.requirements {
            self.require(
                is_requirement(id.get_ref()),
                id,
                "requirement",
                "write the id of the form, as in `dra_support`, or `vendor.example/name`",
            )?;
        }
        self.unique("requirement", &raw.requirements)?;
        let reach = match &raw.reach {
            None => Reach::default(),
            Some(word) => self.word(
                word,
                "reach",
                &[
                    ("read", Reach::Read),
                    ("sandbox", Reach::Sandbox),
                    ("cluster-objects", Reach::ClusterObjects),
                    ("disruptive", Reach::Disruptive),
                ],
            )?,
        };
        let capabilities = self.capabilities(&raw.capabilities, reach)?;
        let namespaces = self.namespaces(&raw.namespaces, reach)?;
        let permissions = raw
            .permissions
            .iter()
            .map(|line| self.permission(line, reach, &capabilities, !namespaces.is_empty()))
            .collect::<Checked<Vec<_>>>()?;
        let snapshots = self.snapshots(&raw.snapshots, &capabilities, &permissions)?;
        Ok(Manifest {
            id: raw.id.get_ref().clone(),
            version: raw.version.get_ref().clone(),
            title: self.title(&raw.title, "the title")?,
            claim: self.prose(&raw.claim, "the claim")?,
            misleads: self.prose(&raw.misleads, "`misleads`")?,
            contract: raw.contract.get_ref().clone(),
            requirements: plain(&raw.requirements),
            reach,
            images: self.images(&raw.images)?,
            leases: self.leases(&raw.leases, &capabilities)?,
            settings: self.settings(&raw.settings)?,
            budget: self.budget(&raw.budget)?,
            cases: self.cases(&raw.cases, &permissions)?,
            capabilities,
            permissions,
            namespaces,
            snapshots,
        })
    }

    fn id(&self, id: &Spanned<String>) -> Checked<()> {
        let text = id.get_ref();
        let (vendor, name) = match text.split_once('/') {
            Some((vendor, name)) => (Some(vendor), name),
            None => (None, text.as_str()),
        };
        let fits = is_dns_label(name, MAX_ID)
            && vendor.is_none_or(|vendor| vendor.contains('.') && is_dns_subdomain(vendor))
            // The whole id is the value of a label.
            && text.len() <= DNS_LABEL_MAX;
        self.require(
            fits,
            id,
            "id",
            "write a DNS label of at most 40 characters, or `vendor.example/name` of at most 63",
        )
    }

    fn version(&self, version: &Spanned<String>) -> Checked<()> {
        // Build metadata cannot be part of a registry's tag.
        let fits = semver::Version::parse(version.get_ref())
            .is_ok_and(|parsed| parsed.build.is_empty())
            && version.get_ref().len() <= 128;
        self.require(
            fits,
            version,
            "version",
            "write a semantic version such as `0.1.0`, without build metadata",
        )
    }

    fn capabilities(&self, raw: &[Spanned<String>], reach: Reach) -> Checked<Vec<String>> {
        for capability in raw {
            if CORE_INTERFACES.contains(&capability.get_ref().as_str()) {
                let message = format!(
                    "capability `{}` is always there; leave it out",
                    capability.get_ref()
                );
                return self.refuse(capability.span(), message);
            }
            self.known(capability, "capability", CAPABILITIES)?;
            if reach == Reach::Read && capability.get_ref() == "kube-write" {
                return self.refuse(
                    capability.span(),
                    "reach `read` writes nothing; leave `kube-write` out or ask for reach `sandbox`",
                );
            }
        }
        self.unique("capability", raw)?;
        Ok(plain(raw))
    }

    fn namespaces(&self, raw: &[raw::Namespace], reach: Reach) -> Checked<Vec<NamespaceLine>> {
        self.unique("namespace", raw.iter().map(|line| &line.alias))?;
        raw.iter()
            .map(|line| {
                if reach == Reach::Read {
                    return self.refuse(
                        line.alias.span(),
                        "reach `read` creates no namespaces; leave this out or ask for reach `sandbox`",
                    );
                }
                self.require(
                    is_dns_label(line.alias.get_ref(), MAX_ALIAS),
                    &line.alias,
                    "alias",
                    "write a DNS label of at most 7 characters",
                )?;
                let pod_security = match &line.pod_security {
                    None => PodSecurity::Restricted,
                    Some(word) => self.word(
                        word,
                        "Pod Security level",
                        &[PodSecurity::Restricted, PodSecurity::Baseline, PodSecurity::Privileged]
                            .map(|level| (level.label(), level)),
                    )?,
                };
                let pods = match &line.pods {
                    None => DEFAULT_PODS,
                    Some(pods) if *pods.get_ref() <= MAX_PODS => *pods.get_ref(),
                    Some(pods) => {
                        return self.refuse(pods.span(), format!("a namespace may have at most {MAX_PODS} pods"));
                    }
                };
                Ok(NamespaceLine { alias: line.alias.get_ref().clone(), pod_security, pods })
            })
            .collect()
    }

    fn images(&self, raw: &[raw::Image]) -> Checked<Vec<ImageLine>> {
        self.unique("image", raw.iter().map(|line| &line.name))?;
        raw.iter()
            .map(|line| {
                self.require(
                    is_dns_label(line.name.get_ref(), DNS_LABEL_MAX),
                    &line.name,
                    "image name",
                    "write a DNS label",
                )?;
                let source = match (&line.reference, &line.own) {
                    (Some(reference), None) => {
                        self.require(
                            values::is_image_by_digest(reference.get_ref()),
                            reference,
                            "image",
                            "write `registry/repository@sha256:` and 64 hexadecimal digits; a tag alone can change its content",
                        )?;
                        ImageSource::Reference(reference.get_ref().clone())
                    }
                    (None, Some(own)) => {
                        self.require(
                            is_dns_label(own.get_ref(), DNS_LABEL_MAX),
                            own,
                            "own image",
                            "write the name of an image that `karat images list` shows",
                        )?;
                        ImageSource::Own(own.get_ref().clone())
                    }
                    (Some(_), Some(own)) => {
                        return self.refuse(own.span(), "an image has `reference` or `own`, not both");
                    }
                    (None, None) => {
                        return self.refuse(
                            line.name.span(),
                            "the image comes from nowhere; give it `reference`, or `own` for one of this program",
                        );
                    }
                };
                Ok(ImageLine { name: line.name.get_ref().clone(), source })
            })
            .collect()
    }
}

pub(super) fn plain(list: &[Spanned<String>]) -> Vec<String> {
    list.iter().map(|value| value.get_ref().clone()).collect()
}

/// Ids of the form (`dra_support`), or those of a vendor.
fn is_requirement(text: &str) -> bool {
    let (vendor, name) = match text.split_once('/') {
        Some((vendor, name)) => (Some(vendor), name),
        None => (None, text),
    };
    let fits = |b: u8| b.is_ascii_lowercase() || b.is_ascii_digit() || matches!(b, b'_' | b'-');
    !name.is_empty()
        && text.len() <= DNS_LABEL_MAX
        && name.bytes().all(fits)
        && vendor.is_none_or(|vendor| vendor.contains('.') && is_dns_subdomain(vendor))
}
