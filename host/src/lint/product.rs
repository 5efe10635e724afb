//! Metadata and entries: what stands in `PRODUCT.yaml` itself, compared with the checklist of the version.

use super::{Expected, Findings, PRODUCT, quoted};
use crate::catalog::Level;
use crate::form::{Checklist, Entry, Field, Text, Value};
use std::collections::{BTreeMap, BTreeSet};

/// Metadata fields by both spellings that the validator knows, and whether each is required.
pub(crate) const FIELDS: &[(&str, &str, bool)] = &[
    ("kubernetesVersion", "kubernetes_version", true),
    ("platformName", "platform_name", true),
    ("platformVersion", "platform_version", true),
    ("vendorName", "vendor_name", true),
    ("websiteUrl", "website_url", true),
    ("repoUrl", "repo_url", false),
    ("documentationUrl", "documentation_url", true),
    ("productLogoUrl", "product_logo_url", true),
    ("description", "description", true),
    ("contactEmailAddress", "contact_email_address", true),
    ("k8sConformanceUrl", "k8s_conformance_url", true),
];

const STATUSES: [&str; 4] = [
    "Implemented",
    "Partially Implemented",
    "Not Implemented",
    "N/A",
];

/// The only MUST that may be N/A.
pub(crate) const CONDITIONAL: &str = "cluster_autoscaling";

/// Checks everything that needs no other file.
pub(super) fn check(list: &Checklist, expected: &[Expected], findings: &mut Findings) {
    metadata(list, findings);
    categories(list, expected, findings);
    for entry in last_entries(list) {
        let known = find(expected, entry);
        match known {
            Some(known) => entry_against(entry, known, findings),
            None if !expected.is_empty() => unknown(entry, expected, findings),
            None => {}
        }
    }
    duplicates(list, findings);
    for key in &list.unknown_keys {
        let message = format!("the form has no key `{}`", quoted(&key.text));
        findings.add("key-unknown", PRODUCT, key.line, message);
    }
    hidden(list, findings);
}

/// The requirement that an entry answers.
pub(super) fn find<'e>(expected: &'e [Expected], entry: &Entry) -> Option<&'e Expected> {
    expected
        .iter()
        .find(|known| known.id == entry.id.text && known.category == entry.category)
}

/// The entries that count for the validator: of several with one id in one category, the last.
pub(super) fn last_entries(list: &Checklist) -> impl Iterator<Item = &Entry> {
    let last: BTreeMap<(&str, &str), &Entry> = list
        .entries
        .iter()
        .map(|entry| ((entry.category.as_str(), entry.id.text.as_str()), entry))
        .collect();
    last.into_values()
}

/// Whether the validator passes over an entry: a SHOULD that was left empty.
pub(super) fn is_left_empty(entry: &Entry, known: &Expected) -> bool {
    known.level == Level::Should && entry.status.text.is_empty() && entry.evidence.is_empty()
}

fn metadata(list: &Checklist, findings: &mut Findings) {
    let Some(fields) = &list.metadata else {
        findings.add("metadata-missing", PRODUCT, 1, "there is no `metadata`");
        return;
    };
    for (camel, snake, required) in FIELDS {
        match list.field(camel).or_else(|| list.field(snake)) {
            None if *required => {
                let message = format!("`{camel}` is missing");
                findings.add("metadata-missing", PRODUCT, 1, message);
            }
            None => {}
            Some(field) => value(camel, field, *required, findings),
        }
    }
    for field in fields {
        let key = field.key.text.as_str();
        if !FIELDS
            .iter()
            .any(|(camel, snake, _)| key == *camel || key == *snake)
        {
            let message = format!("the form has no metadata field `{}`", quoted(key));
            findings.add("key-unknown", PRODUCT, field.key.line, message);
        }
    }
}

fn value(name: &str, field: &Field, required: bool, findings: &mut Findings) {
    let line = field.key.line;
    let text = match &field.value {
        Value::Text(text) => text.as_str(),
        Value::Null => "",
        Value::Other(noun) => {
            let message = format!("`{name}` is {noun}");
            return findings.add("metadata-type", PRODUCT, line, message);
        }
    };
    if text.is_empty() {
        if required {
            findings.add(
                "metadata-missing",
                PRODUCT,
                line,
                format!("`{name}` is empty"),
            );
        }
    } else if text.starts_with('[') && text.ends_with(']') {
        let message = format!("`{name}` is still {}", quoted(text));
        findings.add("metadata-placeholder", PRODUCT, line, message);
    } else if name == "k8sConformanceUrl" {
        if !is_conformance_url(text) {
            let message = format!("`{name}` is {}", quoted(text));
            findings.add("k8s-conformance-url", PRODUCT, line, message);
        }
    } else if name == "productLogoUrl" && text.starts_with("http") {
        let lower = text.to_lowercase();
        if ![".svg", ".eps", ".ai"]
            .iter()
            .any(|end| lower.ends_with(end))
        {
            let message = format!("`{name}` is {}", quoted(text));
            findings.add("logo-type", PRODUCT, line, message);
        }
    }
}

/// `https://github.com/cncf/k8s-conformance/tree/(master|main)/vN.N/<one name>` and at most one slash.
fn is_conformance_url(text: &str) -> bool {
    let Some(rest) = text.strip_prefix("https://github.com/cncf/k8s-conformance/tree/") else {
        return false;
    };
    let mut parts = rest.split('/');
    let branch = matches!(parts.next(), Some("master" | "main"));
    let version = parts
        .next()
        .and_then(|part| part.strip_prefix('v'))
        .is_some_and(|part| {
            let digits =
                |part: &str| !part.is_empty() && part.bytes().all(|byte| byte.is_ascii_digit());
            part.split_once('.')
                .is_some_and(|(major, minor)| digits(major) && digits(minor))
        });
    let product = parts.next().is_some_and(|part| !part.is_empty());
    let end = matches!((parts.next(), parts.next()), (None | Some(""), None));
    branch && version && product && end
}

fn categories(list: &Checklist, expected: &[Expected], findings: &mut Findings) {
    let Some(there) = &list.categories else {
        findings.add("category-missing", PRODUCT, 1, "there is no `spec`");
        return;
    };
    let mut said = BTreeSet::new();
    for known in expected {
        let Some(category) = there.iter().find(|key| key.text == known.category) else {
            if said.insert(&known.category) {
                let message = format!("there is no category `{}`", quoted(&known.category));
                findings.add("category-missing", PRODUCT, 1, message);
            }
            continue;
        };
        if !list
            .entries
            .iter()
            .any(|entry| find(std::slice::from_ref(known), entry).is_some())
        {
            let message = format!(
                "`{}` is missing in `{}`",
                quoted(&known.id),
                quoted(&known.category)
            );
            findings.add("id-missing", PRODUCT, category.line, message);
        }
    }
}

fn entry_against(entry: &Entry, known: &Expected, findings: &mut Findings) {
    let id = &known.id;
    if let Some(official) = &known.description
        && *official != entry.description.text
    {
        let message = format!(
            "the description of `{id}` {}",
            difference(official, &entry.description.text)
        );
        findings.add(
            "description-changed",
            PRODUCT,
            entry.description.line,
            message,
        );
    }
    if entry.level.text != known.level.to_string() {
        let message = format!(
            "the level of `{id}` is `{}`, and {} in the form",
            quoted(&entry.level.text),
            known.level
        );
        findings.add("level-changed", PRODUCT, entry.level.line, message);
    }
    if is_left_empty(entry, known) {
        return;
    }
    let (status, line) = (entry.status.text.as_str(), entry.status.line);
    let must = known.level == Level::Must;
    // An empty MUST is one thing to do, not two.
    let left_out = must && status.is_empty();
    if !STATUSES.contains(&status) && !left_out {
        let message = format!("the status of `{id}` is `{}`", quoted(status));
        findings.add("status-invalid", PRODUCT, line, message);
    }
    if must && status != "Implemented" {
        if status == "N/A" && id == CONDITIONAL {
            findings.add(
                "must-na",
                PRODUCT,
                line,
                format!("`{id}` is a MUST and N/A"),
            );
        } else {
            let message = format!("`{id}` is a MUST, and its status is `{}`", quoted(status));
            findings.add("must-not-implemented", PRODUCT, line, message);
        }
    }
    if status == "N/A" && entry.notes.text.trim().is_empty() {
        findings.add(
            "na-notes",
            PRODUCT,
            line,
            format!("`{id}` is N/A without a word"),
        );
    }
}

/// Where two texts part, so that a changed word is found in a long sentence.
fn difference(official: &str, there: &str) -> String {
    if there.is_empty() {
        return "is missing".to_owned();
    }
    let same = official
        .chars()
        .zip(there.chars())
        .take_while(|(a, b)| a == b)
        .count();
    let part = |text: &str| {
        let part: String = text
            .chars()
            .skip(same.saturating_sub(12))
            .take(40)
            .collect();
        part
    };
    format!(
        "differs from the form at `{}`, which has `{}`",
        part(there),
        part(official)
    )
}

fn unknown(entry: &Entry, expected: &[Expected], findings: &mut Findings) {
    let id = quoted(&entry.id.text);
    let message = match expected.iter().find(|known| known.id == entry.id.text) {
        Some(known) => format!("`{id}` belongs into the category `{}`", known.category),
        None if id.is_empty() => "an entry has no id".to_owned(),
        None => format!("this version has no requirement `{id}`"),
    };
    findings.add("id-unknown", PRODUCT, entry.id.line, message);
}

fn duplicates(list: &Checklist, findings: &mut Findings) {
    let mut seen: BTreeMap<(&str, &str), u32> = BTreeMap::new();
    for entry in &list.entries {
        if let Some(first) = seen.insert((&entry.category, &entry.id.text), entry.id.line) {
            let message = format!(
                "`{}` stands here a second time; before in line {first}",
                quoted(&entry.id.text)
            );
            findings.add("id-duplicate", PRODUCT, entry.id.line, message);
        }
    }
}

fn hidden(list: &Checklist, findings: &mut Findings) {
    let texts = list.entries.iter().flat_map(|entry| {
        [
            &entry.id,
            &entry.description,
            &entry.level,
            &entry.status,
            &entry.notes,
        ]
        .into_iter()
        .chain(&entry.evidence)
    });
    let mut look = |line: u32, text: &str| {
        if let Some(c) = text.chars().find(|c| is_hidden(*c)) {
            let message = format!("U+{:04X} stands here", u32::from(c));
            findings.add("text-hidden", PRODUCT, line, message);
        }
    };
    for Text { line, text } in texts {
        look(*line, text);
    }
    for field in list.metadata.iter().flatten() {
        if let Value::Text(text) = &field.value {
            look(field.key.line, text);
        }
    }
}

fn is_hidden(c: char) -> bool {
    c.is_control() && !matches!(c, '\n' | '\t' | '\r')
        || matches!(c, '\u{61c}' | '\u{200b}' | '\u{200e}' | '\u{200f}' | '\u{202a}'..='\u{202e}' | '\u{2066}'..='\u{2069}' | '\u{e0000}'..='\u{e007f}')
}
