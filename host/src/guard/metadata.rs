//! Rows about the metadata of everything a probe writes: names, finalizers, owners, what acts by annotation.

use super::{Extent, GuardContext, PatchKind, Request, Stop, quoted, tables};
use crate::seal;
use serde_json::{Map, Value};

/// The body says the same as the address: otherwise rows would look at one object and the server at another.
pub(super) fn identity(request: &mut Request<'_>, _: &GuardContext) -> Result<(), Stop> {
    let access = request.access;
    // What is sent to a workload is no object of the API.
    if access.is_proxied() {
        return Ok(());
    }
    // A command travels in the address.
    let needs_body = access.subresource != "exec"
        && matches!(access.verb.as_str(), "create" | "update" | "patch");
    if needs_body != request.body.is_some() {
        return Stop::never(if needs_body {
            "the request has no body"
        } else {
            "the request must not have a body"
        });
    }
    if (access.verb == "patch") != request.patch.is_some() {
        return Stop::never("a patch, and only a patch, has a kind");
    }
    let Some((body, extent)) = request.object() else {
        return Ok(());
    };
    if !body.is_object() {
        return Stop::never("the body is no object");
    }
    let metadata = &body["metadata"];
    if !(metadata.is_object() || (extent == Extent::Part && body.get("metadata").is_none())) {
        return Stop::never("the body has no `metadata`");
    }
    if metadata["generateName"]
        .as_str()
        .is_some_and(|text| !text.is_empty())
    {
        return Stop::never("`generateName` is not allowed; take the name from `run.name`");
    }
    for (key, expected) in [("name", &access.name), ("namespace", &access.namespace)] {
        match metadata.get(key) {
            None if key == "name" && access.verb == "create" => {
                return Stop::never("the body has no `metadata.name`");
            }
            None => {}
            Some(value) if value.as_str() == Some(expected) => {}
            Some(value) => {
                return Stop::never(format!(
                    "`metadata.{key}` is {} and the request is for {}",
                    quoted(&value.to_string()),
                    quoted(expected)
                ));
            }
        }
    }
    Ok(())
}

pub(super) fn run_name(request: &mut Request<'_>, context: &GuardContext) -> Result<(), Stop> {
    let access = request.access;
    if access.verb != "create"
        || !access.subresource.is_empty()
        || context.is_run_name(&access.name)
    {
        return Ok(());
    }
    Stop::never(format!(
        "{} cannot be created: its name must end in `-{}`; take it from `run.name`",
        quoted(&access.name),
        context.run
    ))
}

/// What belongs to the server and to the door alone: `status`, `managedFields`, labels and annotations below our prefix.
pub(super) fn reserved(request: &mut Request<'_>, _: &GuardContext) -> Result<(), Stop> {
    let Some((body, extent)) = request.object() else {
        return Ok(());
    };
    if extent == Extent::Part {
        if body.get("status").is_some() {
            return Stop::never(
                "`status` is never written: a probe must not make its own evidence",
            );
        }
        for key in ["labels", "annotations"] {
            if body["metadata"]
                .get(key)
                .is_some_and(|value| !value.is_object())
            {
                return Stop::never(format!(
                    "`metadata.{key}` cannot be replaced as a whole: the run's own would be lost"
                ));
            }
        }
    } else if let Some(map) = body.as_object_mut() {
        // An object that was read and is sent back has one; the server ignores it only where it is a subresource.
        map.remove("status");
    }
    if let Some(metadata) = body.get_mut("metadata").and_then(Value::as_object_mut) {
        metadata.remove("managedFields");
    }
    seal::strip(body);
    Ok(())
}

/// Finalizers of a guest would hang the clean-up; removing those of others would destroy the platform's own protection.
pub(super) fn finalizers(request: &mut Request<'_>, _: &GuardContext) -> Result<(), Stop> {
    let verb = request.access.verb.clone();
    let Some((body, extent)) = request.object() else {
        return Ok(());
    };
    let Some(metadata) = body.get_mut("metadata").and_then(Value::as_object_mut) else {
        return Ok(());
    };
    let is_empty = |value: &Value| value.is_null() || value.as_array().is_some_and(Vec::is_empty);
    match metadata.get("finalizers") {
        None => Ok(()),
        // Those of the present object are carried over by the door, see `carry_over`.
        Some(_) if verb == "update" => {
            metadata.remove("finalizers");
            Ok(())
        }
        Some(value) if extent == Extent::Whole && is_empty(value) => Ok(()),
        Some(_) => Stop::never("`metadata.finalizers` is never written by a probe"),
    }
}

/// For a replacement (PUT): takes finalizers, owners and everything below our prefix from the present object, since a body
/// without them would remove them.
pub fn carry_over(current: &Value, body: &mut Value) {
    if !body["metadata"].is_object() {
        return;
    }
    for key in ["finalizers", "ownerReferences"] {
        match current["metadata"].get(key) {
            Some(value) => body["metadata"][key] = value.clone(),
            None => {
                if let Some(metadata) = body["metadata"].as_object_mut() {
                    metadata.remove(key);
                }
            }
        }
    }
    for key in ["labels", "annotations"] {
        let Some(current) = current["metadata"][key].as_object() else {
            continue;
        };
        for (name, value) in current.iter().filter(|(name, _)| is_reserved(name)) {
            if !body["metadata"][key].is_object() {
                body["metadata"][key] = Value::Object(Map::new());
            }
            body["metadata"][key][name] = value.clone();
        }
    }
}

fn is_reserved(key: &str) -> bool {
    seal::is_ours(key) || key == crate::names::LABEL_MANAGED_BY
}

/// Owners are objects of this probe in the same namespace: a wrong owner lets the garbage collector delete for us.
pub(super) fn owners(request: &mut Request<'_>, context: &GuardContext) -> Result<(), Stop> {
    let namespace = request.access.namespace.clone();
    let Some((body, extent)) = request.object() else {
        return Ok(());
    };
    let Some(owners) = body["metadata"].get("ownerReferences") else {
        return Ok(());
    };
    let Some(owners) = owners.as_array() else {
        return if extent == Extent::Whole && owners.is_null() {
            Ok(())
        } else {
            Stop::never("`metadata.ownerReferences` must be a list of objects of this run")
        };
    };
    for owner in owners {
        let uid = owner["uid"].as_str().unwrap_or_default();
        let ours = context.ledger.by_uid(uid).is_some_and(|entry| {
            entry.probe == context.probe && entry.object.namespace == namespace
        });
        if !ours {
            return Stop::never(format!(
                "owner {} is no object of this probe in the same namespace",
                quoted(owner["name"].as_str().unwrap_or(uid))
            ));
        }
    }
    Ok(())
}

/// Labels and annotations by which controllers act outside the namespace, wherever in the body they stand.
pub(super) fn annotations(request: &mut Request<'_>, context: &GuardContext) -> Result<(), Stop> {
    if !request.writes() {
        return Ok(());
    }
    let Some(body) = request.body.as_deref() else {
        return Ok(());
    };
    let allowed = &context.effective.exceptions().annotations;
    let mut found = None;
    keys_below(body, &mut |parent, key| {
        if matches!(
            parent,
            "annotations" | "labels" | "commonAnnotations" | "infrastructure"
        ) && tables::acts_by_annotation(key)
            && !allowed.contains(key)
        {
            found = Some(key.to_owned());
        }
    });
    if request.patch == Some(PatchKind::Json) {
        for path in super::patch::paths(body) {
            let key = path.last().cloned().unwrap_or_default();
            if tables::acts_by_annotation(&key) && !allowed.contains(&key) {
                found = Some(key);
            }
        }
    }
    match found {
        None => Ok(()),
        Some(key) => Stop::unless(
            format!(
                "{} makes a controller act outside the namespace",
                quoted(&key)
            ),
            format!("annotations = [{}]", toml::Value::from(key.as_str())),
        ),
    }
}

/// Calls `each` for every key with the key of the table that holds it.
pub(super) fn keys_below<'a>(value: &'a Value, each: &mut impl FnMut(&'a str, &'a str)) {
    fn walk<'a>(parent: &'a str, value: &'a Value, each: &mut impl FnMut(&'a str, &'a str)) {
        match value {
            Value::Object(map) => {
                for (key, value) in map {
                    each(parent, key);
                    walk(key, value, each);
                }
            }
            Value::Array(items) => items.iter().for_each(|item| walk(parent, item, each)),
            Value::Null | Value::Bool(_) | Value::Number(_) | Value::String(_) => {}
        }
    }
    walk("", value, each);
}
