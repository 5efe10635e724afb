//! Rule 4: whether a control shows that the forbidden thing could have happened: it passed, on the same things, and what it
//! made was still there at the end.

use super::effect::{happened, verb};
use super::timeline::{Opened, Timeline};
use crate::manifest::{Control, Manifest};
use crate::model::Conclusion;
use crate::recording::format::{Access, End, Entry, ObjectFact, function};
use std::collections::{BTreeMap, BTreeSet};

/// An object that the engine asks for when the guest has returned; the answer goes into [`End::alive`] under its uid.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub struct AliveObject {
    /// API group; empty is the core group.
    pub group: String,
    /// API version: `v1`.
    pub version: String,
    /// Plural name.
    pub resource: String,
    /// Namespace; empty for cluster-scoped objects.
    pub namespace: String,
    /// Name.
    pub name: String,
    /// The object counts as alive only with this very uid.
    pub uid: String,
}

/// Every object that some control of the manifest wants alive at the end, as far as the attempt got. Names and namespaces
/// are those of the recording: pseudonyms, where redaction gave any.
pub fn alive_wanted(manifest: &Manifest, entries: &[Entry]) -> Vec<AliveObject> {
    let timeline = Timeline::follow(manifest, entries);
    let wanted: BTreeSet<AliveObject> = timeline
        .opened
        .iter()
        .filter(|opened| opened.conclusion == Some(Conclusion::Pass))
        .filter(|opened| {
            manifest
                .cases
                .iter()
                .flat_map(|case| &case.controls)
                .any(|control| control.alive && control.case == opened.case.id)
        })
        .flat_map(|opened| objects_of(&timeline, opened))
        .collect();
    wanted.into_iter().collect()
}

/// What a control made and left, or, if it made nothing, the objects of this run that it read by name.
fn objects_of(timeline: &Timeline<'_>, opened: &Opened<'_>) -> Vec<AliveObject> {
    let mut created: BTreeMap<(String, String, String, String), AliveObject> = BTreeMap::new();
    let mut read: BTreeMap<(String, String, String, String), AliveObject> = BTreeMap::new();
    for entry in timeline.calls(opened).filter(|entry| happened(entry)) {
        let Some(Access::Resource(access)) = &entry.access else {
            continue;
        };
        if !access.subresource.is_empty() {
            continue;
        }
        let object = entry.facts.objects.first().filter(|o| !o.uid.is_empty());
        let name = match (access.name.as_str(), object) {
            ("", Some(object)) => object.name.clone(),
            (name, _) => name.to_owned(),
        };
        let key = (
            access.group.clone(),
            access.resource.clone(),
            access.namespace.clone(),
            name.clone(),
        );
        let alive = object.map(|object| AliveObject {
            group: access.group.clone(),
            version: access.version.clone(),
            resource: access.resource.clone(),
            namespace: access.namespace.clone(),
            name,
            uid: object.uid.clone(),
        });
        match (access.verb.as_str(), alive, object) {
            ("create", Some(alive), _) => {
                created.insert(key, alive);
            }
            // The control itself took it away again: that it is gone later shows nothing.
            ("delete", _, _) => {
                created.remove(&key);
                read.remove(&key);
            }
            ("get", Some(alive), Some(object)) if object.ours => {
                read.insert(key, alive);
            }
            _ => {}
        }
    }
    let objects = if created.is_empty() { read } else { created };
    objects.into_values().collect()
}

/// Why a control does not carry its negative.
#[derive(Debug, PartialEq, Eq)]
pub(super) enum Broken {
    /// The forbidden thing could not have happened anyway.
    Vacuous(String),
    /// It was something else that worked.
    Unrelated(String),
}

/// Checks one control of a negative case against the instances of the control that passed.
pub(super) fn check(
    timeline: &Timeline<'_>,
    end: Option<&End>,
    negative: &Opened<'_>,
    control: &Control,
    passed: &[&Opened<'_>],
) -> Result<(), Broken> {
    if passed.is_empty() {
        return Err(Broken::Vacuous(format!(
            "its control {} did not pass",
            control.case
        )));
    }
    // A control for the same subject is the one that counts, where there is one.
    let same_subject: Vec<&Opened<'_>> = passed
        .iter()
        .copied()
        .filter(|opened| opened.key.subject == negative.key.subject)
        .collect();
    let candidates = if same_subject.is_empty() {
        passed
    } else {
        &same_subject
    };
    let mut broken = None;
    for candidate in candidates {
        let related = control
            .same
            .iter()
            .find_map(|fact| unrelated(timeline, negative, candidate, fact));
        if let Some(cause) = related {
            broken.get_or_insert(Broken::Unrelated(format!(
                "its control {}: {cause}",
                candidate.key
            )));
            continue;
        }
        if control.alive
            && let Some(cause) = not_alive(timeline, end, candidate)
        {
            broken = Some(Broken::Vacuous(format!(
                "its control {}: {cause}",
                candidate.key
            )));
            continue;
        }
        return Ok(());
    }
    broken.map_or(Ok(()), Err)
}

fn not_alive(timeline: &Timeline<'_>, end: Option<&End>, control: &Opened<'_>) -> Option<String> {
    let objects = objects_of(timeline, control);
    if objects.is_empty() {
        return Some("it left no object of this run that could still be there".to_owned());
    }
    objects
        .iter()
        .find(|object| end.and_then(|end| end.alive.get(&object.uid)) != Some(&true))
        .map(|object| format!("{} {} was gone at the end", object.resource, object.name))
}

/// Why a fact is not the same in both cases; none when it is.
fn unrelated(
    timeline: &Timeline<'_>,
    negative: &Opened<'_>,
    control: &Opened<'_>,
    fact: &str,
) -> Option<String> {
    if fact == "lease" {
        let (there, here) = (timeline.leases(control), timeline.leases(negative));
        return if there.is_empty() || here.is_empty() {
            let which = if there.is_empty() { control } else { negative };
            Some(format!("no lease was held at the end of {}", which.key))
        } else {
            there
                .is_disjoint(&here)
                .then(|| "it held another lease".to_owned())
        };
    }
    let there = values(timeline, control, fact);
    let here = values(timeline, negative, fact);
    let (there, here) = match (there, here) {
        (Some(there), Some(here)) => (there, here),
        _ => return Some(format!("`{fact}` is not recorded by this release")),
    };
    if there.is_empty() || here.is_empty() {
        let which = if there.is_empty() { control } else { negative };
        return Some(format!("no {fact} was seen in {}", which.key));
    }
    let related = match fact {
        // Everything that was tried must have been tried where it was shown to work.
        "node" | "image" => here.is_subset(&there),
        _ => !here.is_disjoint(&there),
    };
    (!related).then(|| format!("it ran on another {fact}"))
}

/// The values of a fact in a case: from objects of this run, and from objects that a call named. A list of everything would
/// make any two cases alike. None for a fact that these rules do not know.
fn values<'a>(
    timeline: &Timeline<'a>,
    opened: &Opened<'_>,
    fact: &str,
) -> Option<BTreeSet<&'a str>> {
    let mut values = BTreeSet::new();
    for object in touched(timeline, opened) {
        match fact {
            "node" if object.kind == "Node" => {
                values.insert(object.name.as_str());
            }
            "node" => {
                values.insert(object.node.as_str());
            }
            "image" => values.extend(object.images.iter().map(String::as_str)),
            "object" => {
                values.insert(object.uid.as_str());
            }
            "service" if object.kind == "Service" => {
                values.insert(object.uid.as_str());
            }
            "service" => {}
            _ => return None,
        }
    }
    values.remove("");
    if matches!(fact, "node" | "image" | "object" | "service") {
        Some(values)
    } else {
        None
    }
}

fn touched<'a>(
    timeline: &Timeline<'a>,
    opened: &Opened<'_>,
) -> impl Iterator<Item = &'a ObjectFact> {
    timeline
        .calls(opened)
        .filter(|entry| happened(entry) || entry.function == function::WATCH_NEXT)
        .flat_map(|entry| {
            let named = match &entry.access {
                Some(Access::Resource(access)) if verb(entry) != "list" => access.name.as_str(),
                _ => "",
            };
            entry
                .facts
                .objects
                .iter()
                .filter(move |object| object.ours || (!named.is_empty() && object.name == named))
        })
}
