//! Claims and snapshots: storage of others never comes into the sandbox.

use super::{Extent, GuardContext, Request, Stop, quoted};
use serde_json::Value;

/// PersistentVolumeClaims, and claim templates wherever they stand.
pub(super) fn claims(request: &mut Request<'_>, context: &GuardContext) -> Result<(), Stop> {
    let is_claim = request.is("", "persistentvolumeclaims");
    let namespace = request.access.namespace.clone();
    let first = request.access.verb == "create";
    let Some((body, extent)) = request.object() else {
        return Ok(());
    };
    if is_claim {
        match body.get("spec") {
            Some(spec) => claim(spec, &namespace, first, context)?,
            None if extent == Extent::Part => {}
            None => return Stop::never("a claim needs a `spec`"),
        }
    }
    templates(body, &namespace, context)
}

fn templates(value: &Value, namespace: &str, context: &GuardContext) -> Result<(), Stop> {
    match value {
        Value::Array(items) => items
            .iter()
            .try_for_each(|item| templates(item, namespace, context)),
        Value::Object(map) => {
            for (key, value) in map {
                let found = match (key.as_str(), value) {
                    ("volumeClaimTemplates", Value::Array(items)) => items.as_slice(),
                    ("volumeClaimTemplate", one) => std::slice::from_ref(one),
                    _ => &[],
                };
                for template in found {
                    claim(&template["spec"], namespace, true, context)?;
                }
                templates(value, namespace, context)?;
            }
            Ok(())
        }
        Value::Null | Value::Bool(_) | Value::Number(_) | Value::String(_) => Ok(()),
    }
}

fn claim(spec: &Value, namespace: &str, first: bool, context: &GuardContext) -> Result<(), Stop> {
    let set = |key: &str| {
        spec.get(key)
            .is_some_and(|value| !value.is_null() && *value != "")
    };
    // A bound claim that is sent back has its volume; a new one must not choose.
    if first && set("volumeName") {
        return Stop::never("a claim does not choose its volume: it could be one of others");
    }
    if set("selector") {
        return Stop::never("a claim has no selector: it could choose a volume of others");
    }
    if spec.get("storageClassName").and_then(Value::as_str) == Some("") {
        return Stop::never(
            "a claim with an empty storage class takes any volume that lies about; leave it out or name one",
        );
    }
    for key in ["dataSource", "dataSourceRef"] {
        let Some(source) = spec.get(key).filter(|source| !source.is_null()) else {
            continue;
        };
        let name = source["name"].as_str().unwrap_or_default();
        let group = source["apiGroup"].as_str().unwrap_or_default();
        let own = match (group, source["kind"].as_str()) {
            ("", Some("PersistentVolumeClaim")) => {
                context.owns("", "persistentvolumeclaims", namespace, name)
            }
            ("snapshot.storage.k8s.io", Some("VolumeSnapshot")) => {
                context.owns(group, "volumesnapshots", namespace, name)
            }
            _ => false,
        };
        if !own
            || source["namespace"]
                .as_str()
                .is_some_and(|space| space != namespace)
        {
            return Stop::never(format!(
                "source {} of a claim was not created by this probe in the same namespace",
                quoted(name)
            ));
        }
    }
    Ok(())
}

pub(super) fn snapshots(request: &mut Request<'_>, context: &GuardContext) -> Result<(), Stop> {
    if !request.is("snapshot.storage.k8s.io", "volumesnapshots") {
        return Ok(());
    }
    let namespace = request.access.namespace.clone();
    let Some((body, extent)) = request.object() else {
        return Ok(());
    };
    let Some(source) = body["spec"].get("source") else {
        return if extent == Extent::Part {
            Ok(())
        } else {
            Stop::never("a snapshot needs a source")
        };
    };
    let claim = source["persistentVolumeClaimName"]
        .as_str()
        .unwrap_or_default();
    if source.get("volumeSnapshotContentName").is_some()
        || !context.owns("", "persistentvolumeclaims", &namespace, claim)
    {
        return Stop::never("a snapshot is taken only of a claim that this probe created");
    }
    Ok(())
}
