//! Pod templates, wherever they stand: in the kinds whose place we know, and in custom resources by their shape.
//!
//! A controller's pod never passes the door, so its template must hold what a pod must hold: an account of this run, no
//! mounted token unless the probe made the account, images of the manifest, no priority above 0. Fields that only make
//! sense in a pod are checked in every body, whatever its kind; completions are written only where the kind is known.

use super::{Extent, GuardContext, Request, Stop, quoted};
use serde_json::{Map, Value};

/// Where the pod template of a kind stands, as JSON pointers; the pod itself is its own template. Empty for other kinds.
pub fn pointers(group: &str, resource: &str) -> &'static [&'static str] {
    match (group, resource) {
        ("", "pods") => &[""],
        ("", "podtemplates") => &["/template"],
        ("", "replicationcontrollers")
        | ("apps", "deployments" | "replicasets" | "statefulsets" | "daemonsets")
        | ("batch", "jobs") => &["/spec/template"],
        ("batch", "cronjobs") => &["/spec/jobTemplate/spec/template"],
        _ => &[],
    }
}

/// Fields that a partial body must not remove: the server would put a default in their place.
const NOT_REMOVED: &[&str] = &[
    "automountServiceAccountToken",
    "serviceAccountName",
    "serviceAccount",
    "containers",
    "initContainers",
    "image",
    "priorityClassName",
    "template",
    "jobTemplate",
];

pub(super) fn pod_templates(request: &mut Request<'_>, context: &GuardContext) -> Result<(), Stop> {
    let access = request.access;
    let pointers = pointers(&access.group, &access.resource);
    let Some((body, extent)) = request.object() else {
        return Ok(());
    };
    check_anywhere(body, &access.namespace, context)?;
    if extent == Extent::Part {
        let mut removed = None;
        nulls(body, &mut |key| {
            if NOT_REMOVED.contains(&key) || (!pointers.is_empty() && key == "spec") {
                removed = Some(key.to_owned());
            }
        });
        if let Some(key) = removed {
            return Stop::never(format!(
                "`{key}` cannot be removed: a default would take its place"
            ));
        }
    }
    for pointer in pointers {
        let Some(template) = body.pointer_mut(pointer) else {
            continue;
        };
        crate::seal::strip(template);
        let Some(spec) = template.get_mut("spec").and_then(Value::as_object_mut) else {
            continue;
        };
        if spec
            .get("priority")
            .and_then(Value::as_f64)
            .is_some_and(|priority| priority > 0.0)
        {
            return Stop::never(
                "`priority` above 0 is not allowed: it would push out pods of others",
            );
        }
        if extent == Extent::Whole {
            spec.entry("automountServiceAccountToken")
                .or_insert(false.into());
        }
    }
    Ok(())
}

fn nulls<'a>(value: &'a Value, each: &mut impl FnMut(&'a str)) {
    match value {
        Value::Object(map) => {
            for (key, value) in map {
                if value.is_null() {
                    each(key);
                }
                nulls(value, each);
            }
        }
        Value::Array(items) => items.iter().for_each(|item| nulls(item, each)),
        Value::Null | Value::Bool(_) | Value::Number(_) | Value::String(_) => {}
    }
}

/// Checks every table of a body for what only makes sense in a pod.
pub(super) fn check_anywhere(
    value: &Value,
    namespace: &str,
    context: &GuardContext,
) -> Result<(), Stop> {
    match value {
        Value::Object(map) => {
            table(map, namespace, context)?;
            map.values()
                .try_for_each(|value| check_anywhere(value, namespace, context))
        }
        Value::Array(items) => items
            .iter()
            .try_for_each(|item| check_anywhere(item, namespace, context)),
        Value::Null | Value::Bool(_) | Value::Number(_) | Value::String(_) => Ok(()),
    }
}

fn table(map: &Map<String, Value>, namespace: &str, context: &GuardContext) -> Result<(), Stop> {
    let mut own_account = false;
    for key in ["serviceAccountName", "serviceAccount"] {
        match map.get(key).and_then(Value::as_str) {
            None | Some("" | "default") => {}
            Some(name) if context.owns("", "serviceaccounts", namespace, name) => {
                own_account = true
            }
            Some(name) => {
                return Stop::never(format!(
                    "service account {} was not created by this probe; use the namespace's default, or create one",
                    quoted(name)
                ));
            }
        }
    }
    if map.get("automountServiceAccountToken") == Some(&Value::Bool(true))
        && !own_account
        // An account itself may say so: its pods still have to name it.
        && !(map.contains_key("metadata") && map.get("kind").and_then(Value::as_str) == Some("ServiceAccount"))
    {
        return Stop::never(
            "a token is mounted only for a service account that this probe created",
        );
    }
    if let Some(class) = map.get("priorityClassName").and_then(Value::as_str)
        && !class.is_empty()
    {
        priority_class(class, context)?;
    }
    for key in ["containers", "initContainers", "ephemeralContainers"] {
        let containers = map.get(key).and_then(Value::as_array);
        for image in containers
            .into_iter()
            .flatten()
            .filter_map(|c| c.get("image"))
        {
            image_of_manifest(image, context)?;
        }
    }
    for volume in map
        .get("volumes")
        .and_then(Value::as_array)
        .into_iter()
        .flatten()
    {
        if let Some(image) = volume.pointer("/image/reference") {
            image_of_manifest(image, context)?;
        }
        let sources = volume
            .pointer("/projected/sources")
            .and_then(Value::as_array);
        for source in sources.into_iter().flatten() {
            if source.get("serviceAccountToken").is_some() && !own_account {
                return Stop::never(
                    "a token is projected only for a service account that this probe created",
                );
            }
            if source.get("podCertificate").is_some() {
                return Stop::never(
                    "certificates for pods are signed outside the sandbox and never requested",
                );
            }
        }
    }
    if map.get("adminAccess") == Some(&Value::Bool(true)) {
        return Stop::never(
            "`adminAccess` reaches devices that others hold and is never requested",
        );
    }
    Ok(())
}

fn priority_class(class: &str, context: &GuardContext) -> Result<(), Stop> {
    let ours = context.owns("scheduling.k8s.io", "priorityclasses", "", class);
    if ours
        || context
            .priority_classes
            .get(class)
            .is_some_and(|value| *value <= 0)
    {
        return Ok(());
    }
    Stop::never(format!(
        "priority class {} is neither of this probe nor known to have a value of at most 0",
        quoted(class)
    ))
}

fn image_of_manifest(image: &Value, context: &GuardContext) -> Result<(), Stop> {
    let text = image.as_str().unwrap_or_default();
    if context.images.contains(text) {
        return Ok(());
    }
    Stop::never(format!(
        "image {} is not in the manifest; take it from `run.image`, or add it under `[[images]]` of probe.toml",
        quoted(text)
    ))
}
