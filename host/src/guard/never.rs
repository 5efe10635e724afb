//! Rows that need only the verb and the place: what nobody may touch, and whose objects a probe may touch.

use super::{GuardContext, PatchKind, Request, Stop, is_write, kind_of, shown};
use crate::model::Reach;
use crate::recording::format::ResourceAccess;
use serde_json::Value;

/// A kind of request. Empty words match only the empty word, `*` matches all.
#[derive(Debug)]
pub(super) struct Pattern {
    pub(super) group: &'static str,
    pub(super) resource: &'static str,
    pub(super) subresource: &'static str,
    pub(super) verbs: Verbs,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Verbs {
    All,
    Writes,
}

impl Pattern {
    pub(super) fn matches(&self, access: &ResourceAccess) -> bool {
        let holds = |pattern: &str, word: &str| pattern == "*" || pattern == word;
        holds(self.group, &access.group)
            && holds(self.resource, &access.resource)
            && holds(self.subresource, &access.subresource)
            && (self.verbs == Verbs::All || is_write(&access.verb))
    }
}

/// Subresources that act on an object of ours, or on one that an exception names.
const ACTING: &[&str] = &["exec", "ephemeralcontainers", "scale", "resize", "eviction"];

/// `impersonate`, `escalate`, `bind`, `approve`, `sign` and every other verb that is no plain request.
pub(super) fn verbs(request: &mut Request<'_>, _: &GuardContext) -> Result<(), Stop> {
    if crate::manifest::VERBS.contains(&request.access.verb.as_str()) {
        return Ok(());
    }
    Stop::never(format!(
        "{} is never allowed: the verb is none of {}",
        shown(request.access),
        crate::manifest::VERBS.join(", ")
    ))
}

pub(super) fn reach(request: &mut Request<'_>, context: &GuardContext) -> Result<(), Stop> {
    let access = request.access;
    let needed = if !request.writes() {
        Reach::Read
    } else if !access.namespace.is_empty() {
        Reach::Sandbox
    } else if (access.group.as_str(), access.resource.as_str()) == ("", "nodes") {
        Reach::Disruptive
    } else {
        Reach::ClusterObjects
    };
    if context.reach >= needed {
        return Ok(());
    }
    Stop::never(format!(
        "{} needs reach `{needed}` and this run has `{}`; run with `--reach {needed}`",
        shown(access),
        context.reach
    ))
}

/// Cordoning is the one write to a node that a probe may do.
pub(super) fn nodes(request: &mut Request<'_>, context: &GuardContext) -> Result<(), Stop> {
    if !request.is("", "nodes") || !request.writes() || is_cordon(request, context) {
        return Ok(());
    }
    Stop::never(
        "nodes are never written, except that a merge patch may set `spec.unschedulable` at reach `disruptive`",
    )
}

fn is_cordon(request: &Request<'_>, context: &GuardContext) -> bool {
    let only = |value: &Value, key: &str| {
        value
            .as_object()
            .is_some_and(|map| map.len() == 1 && map.contains_key(key))
    };
    request.is("", "nodes")
        && request.access.verb == "patch"
        && request.access.subresource.is_empty()
        && request.patch == Some(PatchKind::Merge)
        && context.reach >= Reach::Disruptive
        && request.body.as_deref().is_some_and(|body| {
            only(body, "spec")
                && only(&body["spec"], "unschedulable")
                && body["spec"]["unschedulable"].is_boolean()
        })
}

/// Whether a request goes to a workload of others that a line in effect names.
fn is_named(access: &ResourceAccess, context: &GuardContext) -> bool {
    access.is_proxied() && context.effective.names_target(access)
}

/// Requests to workloads: only by the calls that say a path, and only to pods of this run or to what a line names. Whether
/// the endpoints of a Service in the sandbox are pods of this run is looked at right before the request is sent
/// (`capability::target`).
pub(super) fn proxy(request: &mut Request<'_>, context: &GuardContext) -> Result<(), Stop> {
    let access = request.access;
    if !access.is_proxy() {
        return Ok(());
    }
    if !access.is_proxied() {
        return Stop::never(format!(
            "{} is no object; requests to workloads are made with the interfaces `http` and `metrics`",
            shown(access)
        ));
    }
    if context.is_sandbox(&access.namespace) || is_named(access, context) {
        return Ok(());
    }
    Stop::never(format!(
        "{} of {} in namespace {} reaches a workload of others; it is opened only by a line of the manifest and a grant \
         that both name it: scope = {{ namespace = \"…\" }}, and names with port, or for pods ports and paths",
        shown(access),
        super::quoted(&access.name),
        access.namespace
    ))
}

/// Whether an exception lets this subresource act on objects of others.
fn excepted(access: &ResourceAccess, context: &GuardContext) -> bool {
    !access.subresource.is_empty()
        && ACTING.contains(&access.subresource.as_str())
        && context
            .effective
            .exceptions()
            .foreign_objects
            .contains(&kind_of(access))
}

pub(super) fn namespace(request: &mut Request<'_>, context: &GuardContext) -> Result<(), Stop> {
    let access = request.access;
    if !request.writes()
        || access.namespace.is_empty()
        || context.is_sandbox(&access.namespace)
        || excepted(access, context)
        || is_named(access, context)
    {
        return Ok(());
    }
    Stop::never(format!(
        "{} in namespace {} is never allowed: a probe writes only in its own namespaces ({})",
        shown(access),
        access.namespace,
        context.namespaces.join(", ")
    ))
}

/// Kinds that controllers make out of what a probe creates. A probe may delete them in its sandbox, to see them made again, and
/// run commands in pods among them.
const MADE_BY_CONTROLLERS: &[(&str, &str)] = &[
    ("", "pods"),
    ("apps", "replicasets"),
    ("batch", "jobs"),
    ("jobset.x-k8s.io", "jobsets"),
    ("resource.k8s.io", "resourceclaims"),
];

/// Whether a deletion or a command may be meant for an object that a controller made. The door looks for its owner before it
/// deletes or enters it.
fn is_derived(access: &ResourceAccess, context: &GuardContext) -> bool {
    let acts = match access.subresource.as_str() {
        "" => access.verb == "delete",
        "exec" => matches!(access.verb.as_str(), "get" | "create"),
        _ => false,
    };
    acts && context.is_sandbox(&access.namespace)
        && MADE_BY_CONTROLLERS.contains(&(access.group.as_str(), access.resource.as_str()))
}

/// Changes and removals hit objects of this probe only, or what controllers made for it in its sandbox.
pub(super) fn foreign_object(
    request: &mut Request<'_>,
    context: &GuardContext,
) -> Result<(), Stop> {
    let access = request.access;
    let acts = match access.subresource.as_str() {
        "" => matches!(access.verb.as_str(), "update" | "patch" | "delete"),
        // A GET of pods/exec runs a command as well.
        sub if ACTING.contains(&sub) => sub != "scale" || request.writes(),
        _ => false,
    };
    if !acts
        || excepted(access, context)
        || is_cordon(request, context)
        || is_derived(access, context)
        || context.owns(
            &access.group,
            &access.resource,
            &access.namespace,
            &access.name,
        )
    {
        return Ok(());
    }
    let message = format!(
        "{} {}: this probe did not create it in this run",
        shown(access),
        super::quoted(&access.name)
    );
    if access.subresource.is_empty() {
        Stop::never(message)
    } else {
        Stop::unless(
            message,
            format!("foreign-objects = [\"{}\"]", kind_of(access)),
        )
    }
}

/// Writes to subresources that this table does not know.
pub(super) fn unknown_subresource(request: &mut Request<'_>, _: &GuardContext) -> Result<(), Stop> {
    let access = request.access;
    if access.subresource.is_empty()
        || !request.writes()
        || access.is_proxied()
        || ACTING.contains(&access.subresource.as_str())
    {
        return Ok(());
    }
    Stop::never(format!(
        "{} is never allowed: nobody has looked at what writing this subresource does",
        shown(access)
    ))
}

pub(super) fn collection(request: &mut Request<'_>, context: &GuardContext) -> Result<(), Stop> {
    if request.access.verb != "deletecollection" {
        return Ok(());
    }
    if !request.access.subresource.is_empty() {
        return Stop::never("a collection of subresources cannot be deleted");
    }
    own_only(&mut request.labels, context)
}

/// Narrows a selector to what carries the labels of this run and probe.
pub(super) fn own_only(labels: &mut String, context: &GuardContext) -> Result<(), Stop> {
    use crate::names::{LABEL_PROBE, LABEL_RUN};
    let mine = format!(
        "{LABEL_RUN}={},{LABEL_PROBE}={}",
        context.run,
        crate::seal::probe_label(&context.probe)
    );
    if !labels.is_empty() {
        labels.insert(0, ',');
    }
    labels.insert_str(0, &mine);
    Ok(())
}
