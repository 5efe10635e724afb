//! What no grant opens, and what the door checks or completes in everything a probe writes.
//!
//! One table, [`rows`]: each row says what it stops and why, and has hostile tests. Rows see the request as the guest made
//! it, with real values, before it is sent; some of them complete it (no mounted token, a selector on the run's
//! namespaces). They know nothing of answers. Exceptions, where a row has one, are named in the grants file
//! ([`crate::grant::Exceptions`]). What the server must enforce because we cannot read it (pods made by controllers) is in
//! [`crate::sandbox`].
//!
//! The rule for partial bodies: what is present must hold, and nothing guarded may be removed. JSON Patches of guarded
//! fields are refused whole; a merge patch says the same and can be read.

mod cluster;
mod metadata;
mod network;
mod never;
mod patch;
mod rbac;
mod secrets;
mod tables;
mod templates;
#[cfg(test)]
mod tests;
mod workload;

pub use metadata::carry_over;
pub(crate) use rbac::never as is_never;
pub use templates::pointers as template_pointers;

use crate::grant::{Effective, Refusal};
use crate::journal::Ledger;
use crate::model::Reach;
use crate::recording::format::ResourceAccess;
use serde_json::Value;
use std::collections::{BTreeMap, BTreeSet};
use std::fmt;
use std::sync::Arc;

/// Most cluster-scoped objects of one run.
pub const CLUSTER_OBJECTS_MAX: usize = 20;

/// How a body changes an object.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum PatchKind {
    /// RFC 7386.
    Merge,
    /// RFC 6902.
    Json,
    /// Server-side apply.
    Apply,
}

impl PatchKind {
    /// The kind that a contract's word means.
    pub fn parse(word: &str) -> Option<PatchKind> {
        match word {
            "merge" => Some(PatchKind::Merge),
            "json" => Some(PatchKind::Json),
            "apply" => Some(PatchKind::Apply),
            _ => None,
        }
    }

    /// The content type of the request.
    pub fn content_type(self) -> &'static str {
        match self {
            PatchKind::Merge => "application/merge-patch+json",
            PatchKind::Json => "application/json-patch+json",
            // The body is JSON, which is YAML as well.
            PatchKind::Apply => "application/apply-patch+yaml",
        }
    }
}

/// One request as the guest made it, with pseudonyms already turned back.
#[derive(Debug)]
pub struct Request<'a> {
    /// What it reaches for. For a create, `name` is `metadata.name` of the body.
    pub access: &'a ResourceAccess,
    /// The body; rows may complete it, so what is sent must be this value afterwards.
    pub body: Option<&'a mut Value>,
    /// For verb `patch`: how.
    pub patch: Option<PatchKind>,
    /// Label selector of a list, watch or deletecollection; rows may narrow it.
    pub labels: String,
}

impl<'a> Request<'a> {
    /// A request without a body and selector.
    pub fn of(access: &'a ResourceAccess) -> Request<'a> {
        Request {
            access,
            body: None,
            patch: None,
            labels: String::new(),
        }
    }

    fn is(&self, group: &str, resource: &str) -> bool {
        self.access.group == group && self.access.resource == resource
    }

    fn writes(&self) -> bool {
        is_write(&self.access.verb)
    }

    /// The body as an object, and whether it is the whole object. None for reads, for JSON Patches (a list, which
    /// [`patch`] decides about) and for subresources.
    fn object(&mut self) -> Option<(&mut Value, Extent)> {
        if !self.access.subresource.is_empty() {
            return None;
        }
        let extent = match (self.access.verb.as_str(), self.patch) {
            ("create" | "update", None) => Extent::Whole,
            ("patch", Some(PatchKind::Merge | PatchKind::Apply)) => Extent::Part,
            _ => return None,
        };
        self.body.as_deref_mut().map(|body| (body, extent))
    }
}

/// Whether a body is an object or what changes in one.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Extent {
    Whole,
    Part,
}

/// What the guards know about the run and the probe.
#[derive(Clone, Debug)]
pub struct GuardContext {
    /// Run id.
    pub run: String,
    /// Probe id.
    pub probe: String,
    /// Real names of the probe's sandbox namespaces.
    pub namespaces: Vec<String>,
    /// Reach that the run was allowed.
    pub reach: Reach,
    /// Permissions and exceptions in effect.
    pub effective: Arc<Effective>,
    /// Images of the manifest, after mirrors.
    pub images: BTreeSet<String>,
    /// What the run created.
    pub ledger: Ledger,
    /// The cluster's PriorityClasses with their values, read at the start of the run.
    pub priority_classes: BTreeMap<String, i64>,
    /// What the copies of pull secrets are called in the probe's namespaces.
    pub pull_secrets: Vec<String>,
}

impl GuardContext {
    fn is_sandbox(&self, namespace: &str) -> bool {
        !namespace.is_empty() && self.namespaces.iter().any(|n| n == namespace)
    }

    /// Whether this probe created such an object and it still exists as far as we know.
    fn owns(&self, group: &str, resource: &str, namespace: &str, name: &str) -> bool {
        self.ledger
            .uid(&self.probe, group, resource, namespace, name)
            .is_some()
    }

    /// Whether a name ends in the run id, as names of `run.name` do.
    fn is_run_name(&self, name: &str) -> bool {
        name.strip_suffix(self.run.as_str())
            .is_some_and(|front| front.ends_with('-') && front.len() > 1)
    }

    /// Whether a DNS name below `.karat.invalid` was made for this run.
    fn is_run_domain(&self, name: &str) -> bool {
        name.strip_suffix(crate::names::INVALID_SUFFIX)
            .and_then(|front| front.strip_suffix(self.run.as_str()))
            .is_some_and(|front| front.is_empty() || front.ends_with(['-', '.']))
    }
}

/// Whether a row refuses, or completes and lets pass what is in order.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum RowKind {
    /// Holds whatever is granted, apart from exceptions that the row names.
    Never,
    /// Lets pass what meets its conditions, completing it where it can.
    Checked,
}

/// One row of the table.
pub struct Row {
    /// Its name, in refusals and tests.
    pub id: &'static str,
    /// What it does.
    pub kind: RowKind,
    /// What it stops.
    pub stops: &'static str,
    /// Why.
    pub why: &'static str,
    rule: Rule,
}

impl fmt::Debug for Row {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Row")
            .field("id", &self.id)
            .field("kind", &self.kind)
            .finish_non_exhaustive()
    }
}

enum Rule {
    /// Refuses every request that one of the patterns matches.
    Patterns(&'static [never::Pattern]),
    /// Decides by itself.
    Code(fn(&mut Request<'_>, &GuardContext) -> Result<(), Stop>),
}

/// Why a row stops a request.
struct Stop {
    message: String,
    /// The line below `[[exception]]` that would open it.
    exception: Option<String>,
}

impl Stop {
    fn never<T>(message: impl Into<String>) -> Result<T, Stop> {
        Err(Stop {
            message: message.into(),
            exception: None,
        })
    }

    fn unless<T>(message: impl Into<String>, exception: impl Into<String>) -> Result<T, Stop> {
        Err(Stop {
            message: message.into(),
            exception: Some(exception.into()),
        })
    }
}

/// The table, in the order in which it is asked.
pub fn rows() -> &'static [Row] {
    tables::ROWS
}

/// Asks every row. The first that stops the request decides.
///
/// # Errors
/// The refusal, with the id of the row and, where an exception would open it, its line for the grants file.
pub fn check(request: &mut Request<'_>, context: &GuardContext) -> Result<(), Refusal> {
    for row in rows() {
        let stop = match &row.rule {
            Rule::Patterns(patterns) => {
                if patterns
                    .iter()
                    .any(|pattern| pattern.matches(request.access))
                {
                    Stop::never(format!(
                        "{} is never allowed: {}",
                        shown(request.access),
                        row.why
                    ))
                } else {
                    Ok(())
                }
            }
            Rule::Code(code) => code(request, context),
        };
        if let Err(stop) = stop {
            return Err(match stop.exception {
                None => Refusal::never(row.id, stop.message),
                Some(line) => Refusal::unless_excepted(row.id, stop.message, &context.probe, &line),
            });
        }
    }
    Ok(())
}

/// Whether a path outside the resource API may be read at all; whether it is granted is another question.
///
/// # Errors
/// Paths that reach into the resource API, where objects would escape redaction and the rows above.
pub fn check_path(path: &str) -> Result<(), Refusal> {
    let refuse = |message: &str| Err(Refusal::never("raw-path", format!("{path}: {message}")));
    if !crate::manifest::values::is_plain_path(path) {
        return refuse("only plain segments are allowed, as in `/readyz`");
    }
    match path.split('/').nth(1) {
        Some("api" | "apis") => refuse("objects and discovery have calls of their own"),
        Some("debug" | "logs") => refuse("profiles and logs of the control plane are never read"),
        _ => Ok(()),
    }
}

/// Whether a verb changes anything.
pub fn is_write(verb: &str) -> bool {
    !matches!(verb, "get" | "list" | "watch")
}

/// A request for people: `create deployments.apps/scale`.
fn shown(access: &ResourceAccess) -> String {
    format!("{} {}", access.verb, kind_of(access))
}

/// `deployments.apps/scale`.
fn kind_of(access: &ResourceAccess) -> String {
    let mut text = crate::grant::qualified(&access.group, &access.resource);
    if !access.subresource.is_empty() {
        text.push('/');
        text.push_str(&access.subresource);
    }
    text
}

/// Text of the guest inside a message: shortened, and without what moves a cursor.
fn quoted(text: &str) -> String {
    format!("`{}`", crate::manifest::source::shown(text))
}
