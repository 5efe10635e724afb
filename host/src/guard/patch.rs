//! JSON Patch: decided by paths. A path that reaches, holds or removes something guarded is refused; the same change as a
//! merge patch can be read by the rows of its kind.

use super::{GuardContext, PatchKind, Request, Stop, quoted, tables, templates};
use crate::seal;
use serde_json::Value;

/// Last segments that are guarded in every kind, because templates of custom resources hold them too.
const GUARDED_WORDS: &[&str] = &[
    "containers",
    "initContainers",
    "ephemeralContainers",
    "image",
    "serviceAccountName",
    "serviceAccount",
    "automountServiceAccountToken",
    "priorityClassName",
    "priority",
    "adminAccess",
];

/// The path of every operation, decoded. Operations without a path give none.
pub(super) fn paths(body: &Value) -> Vec<Vec<String>> {
    body.as_array()
        .into_iter()
        .flatten()
        .filter_map(|op| segments(op["path"].as_str()?))
        .collect()
}

/// Decodes an RFC 6901 pointer. None if it is none.
fn segments(pointer: &str) -> Option<Vec<String>> {
    if pointer.is_empty() {
        return Some(Vec::new());
    }
    let rest = pointer.strip_prefix('/')?;
    Some(
        rest.split('/')
            .map(|s| s.replace("~1", "/").replace("~0", "~"))
            .collect(),
    )
}

pub(super) fn json_patch(request: &mut Request<'_>, context: &GuardContext) -> Result<(), Stop> {
    if request.patch != Some(PatchKind::Json) {
        return Ok(());
    }
    if !request.access.subresource.is_empty() {
        return Stop::never("a subresource takes no JSON Patch here; use a merge patch");
    }
    let guarded = tables::guarded_paths(&request.access.group, &request.access.resource);
    let Some(body) = request.body.as_deref_mut() else {
        return Ok(());
    };
    let Some(operations) = body.as_array_mut() else {
        return Stop::never("a JSON Patch is a list of operations");
    };
    for operation in operations {
        let op = operation["op"].as_str().unwrap_or_default().to_owned();
        let path = operation["path"].as_str().unwrap_or_default().to_owned();
        let Some(parts) = operation["path"].as_str().and_then(segments) else {
            return Stop::never(format!("{} is no path of a JSON Patch", quoted(&path)));
        };
        let parts: Vec<&str> = parts.iter().map(String::as_str).collect();
        match op.as_str() {
            "test" if parts.first() == Some(&"metadata") && parts.len() > 1 => continue,
            "test" => {
                return Stop::never(format!(
                    "`test` of {} is not allowed: it would tell values that redaction hides; only `/metadata/…` may be tested",
                    quoted(&path)
                ));
            }
            "add" | "replace" | "remove" => {}
            _ => {
                return Stop::never(format!(
                    "operation {} is not allowed; use `add`, `replace`, `remove`, or `test` below `/metadata`",
                    quoted(&op)
                ));
            }
        }
        let fine = match parts.as_slice() {
            []
            | ["metadata" | "status" | "apiVersion" | "kind"]
            | ["status" | "apiVersion" | "kind", ..] => false,
            ["metadata", "labels" | "annotations", key] => {
                !seal::is_ours(key) && *key != crate::names::LABEL_MANAGED_BY
            }
            ["metadata", ..] => false,
            parts => {
                !guarded.iter().any(|prefix| meets(parts, prefix))
                    && !parts.iter().any(|part| GUARDED_WORDS.contains(part))
            }
        };
        if !fine {
            return Stop::never(format!(
                "{op} {} is not allowed in a JSON Patch: something guarded stands there; use a merge patch, or single labels and annotations",
                quoted(&path)
            ));
        }
        if let Some(value) = operation.get_mut("value") {
            templates::check_anywhere(value, &request.access.namespace, context)?;
        }
    }
    Ok(())
}

/// Whether one of two paths begins with the other.
fn meets(parts: &[&str], prefix: &str) -> bool {
    prefix
        .split('/')
        .skip(1)
        .zip(parts)
        .all(|(one, other)| one == *other)
}
