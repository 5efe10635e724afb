//! The bodies of writes: what the door insists on, and the identity that it puts in.
//!
//! A name can be anybody's; a uid is one object's. So every write to an object that exists carries the uid, in the form
//! that the server enforces for that kind of request. Labels and annotations below our prefix are the door's alone.

use super::address::{Resource, malformed};
use crate::guard::PatchKind;
use crate::recording::format::Failure;
use crate::seal;
use serde_json::{Map, Value, json};

/// Reads the kind of a patch.
pub(super) fn kind(word: &str) -> Result<PatchKind, Failure> {
    PatchKind::parse(word)
        .ok_or_else(|| malformed("patch kind", word, "is none of `merge`, `json`, `apply`"))
}

/// Reads JSON from a guest.
pub(super) fn parse(text: &str) -> Result<Value, Failure> {
    serde_json::from_str(text).map_err(|e| Failure::Malformed(format!("the body is no JSON: {e}")))
}

/// Reads a whole object and lets it agree with its target: `apiVersion` and `metadata.namespace` are filled in or must be
/// equal. Gives the object and its name.
pub(super) fn object(
    text: &str,
    resource: &Resource,
    namespace: &str,
) -> Result<(Value, String), Failure> {
    let mut body = parse(text)?;
    let wrong = |text: String| Err(Failure::Malformed(text));
    let Some(root) = body.as_object_mut() else {
        return wrong("the body is no JSON object".to_owned());
    };
    // Subresources have kinds of other groups: autoscaling/v1 Scale, policy/v1 Eviction.
    if resource.subresource.is_empty() {
        let wanted = resource.api_version();
        match root.get("apiVersion").and_then(Value::as_str) {
            None => {
                root.insert("apiVersion".to_owned(), wanted.into());
            }
            Some(found) if found == wanted => {}
            Some(found) => {
                return wrong(format!(
                    "the body has apiVersion {found:?}, its target {wanted:?}"
                ));
            }
        }
    }
    let metadata = root
        .entry("metadata")
        .or_insert_with(|| Value::Object(Map::new()));
    let Some(metadata) = metadata.as_object_mut() else {
        return wrong("`metadata` of the body is no JSON object".to_owned());
    };
    match metadata.get("namespace").map(Value::as_str) {
        None if namespace.is_empty() => {}
        None => {
            metadata.insert("namespace".to_owned(), namespace.into());
        }
        Some(Some(found)) if found == namespace => {}
        Some(found) => {
            return wrong(format!(
                "the body has namespace {:?}, its target {namespace:?}",
                found.unwrap_or_default()
            ));
        }
    }
    let name = match metadata.get("name").and_then(Value::as_str) {
        Some(name) => name.to_owned(),
        None => {
            return Err(Failure::Refused(
                "the body has no `metadata.name`, and generateName is refused: the journal must know the name before the \
                 object exists; take one from run.name"
                    .to_owned(),
            ));
        }
    };
    super::address::check_name(&name)?;
    Ok((body, name))
}

/// Puts the uid where the server compares it, and takes out what is the door's alone.
pub(super) fn identify(kind: PatchKind, body: &mut Value, uid: &str) -> Result<(), Failure> {
    match kind {
        PatchKind::Merge | PatchKind::Apply => {
            seal::strip(body);
            set_uid(body, uid)
        }
        PatchKind::Json => {
            let Some(operations) = body.as_array_mut() else {
                return Err(Failure::Malformed("a JSON patch is an array".to_owned()));
            };
            for operation in operations.iter() {
                check_operation(operation)?;
            }
            operations.insert(
                0,
                json!({"op": "test", "path": "/metadata/uid", "value": uid}),
            );
            Ok(())
        }
    }
}

/// Writes `metadata.uid`.
pub(super) fn set_uid(body: &mut Value, uid: &str) -> Result<(), Failure> {
    let metadata = body
        .as_object_mut()
        .map(|root| {
            root.entry("metadata")
                .or_insert_with(|| Value::Object(Map::new()))
        })
        .and_then(Value::as_object_mut);
    match metadata {
        Some(metadata) => {
            metadata.insert("uid".to_owned(), uid.into());
            Ok(())
        }
        None => Err(Failure::Malformed(
            "the body, or its `metadata`, is no JSON object".to_owned(),
        )),
    }
}

/// One operation of a JSON patch. `test` elsewhere than in `metadata` would be a way to guess redacted values; replacing
/// `metadata` or a whole map of it would remove what proves that the object is ours.
fn check_operation(operation: &Value) -> Result<(), Failure> {
    let word = |key: &str| operation[key].as_str().unwrap_or_default();
    let path = word("path");
    if !operation.is_object() || operation.get("path").and_then(Value::as_str).is_none() {
        return Err(Failure::Malformed(
            "an operation of a JSON patch is an object with `op` and `path`".to_owned(),
        ));
    }
    let refused = |text: String| Err(Failure::Refused(text));
    if word("op") == "test" {
        if path == "/metadata" || path.starts_with("/metadata/") {
            return Ok(());
        }
        return refused(format!(
            "`test` of {path:?} is refused: a JSON patch may test below /metadata only, since elsewhere it could guess \
             redacted values"
        ));
    }
    let written = if word("op") == "move" {
        vec![path, word("from")]
    } else {
        vec![path]
    };
    for path in written {
        let parts: Vec<String> = path
            .split('/')
            .skip(1)
            .map(|part| part.replace("~1", "/").replace("~0", "~"))
            .collect();
        let parts: Vec<&str> = parts.iter().map(String::as_str).collect();
        match parts.as_slice() {
            [] | ["metadata"] | ["metadata", "labels" | "annotations"] => {
                return refused(format!(
                    "a JSON patch may not write {path:?} as a whole: labels and annotations below {} belong to the door; \
                     write single keys",
                    crate::names::PREFIX
                ));
            }
            ["metadata", "uid" | "name" | "namespace", ..] => {
                return refused(format!("{path:?} is the identity of the object and stays"));
            }
            ["metadata", "labels" | "annotations", key, ..] if seal::is_ours(key) => {
                return refused(format!("{path:?} belongs to the door"));
            }
            _ => {}
        }
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    fn pods() -> Resource {
        Resource::parse("v1", "pods").unwrap()
    }

    #[test]
    fn a_body_agrees_with_its_target() {
        let (body, name) = object(r#"{"metadata":{"name":"a-run"}}"#, &pods(), "ns").unwrap();
        assert_eq!(name, "a-run");
        assert_eq!(
            body,
            json!({"apiVersion": "v1", "metadata": {"name": "a-run", "namespace": "ns"}})
        );
        for (text, word) in [
            (
                r#"{"apiVersion":"v2","metadata":{"name":"a"}}"#,
                "apiVersion",
            ),
            (
                r#"{"metadata":{"name":"a","namespace":"kube-system"}}"#,
                "namespace",
            ),
            (r#"{"metadata":{"name":"a","namespace":7}}"#, "namespace"),
            (r#"{"metadata":{"generateName":"a"}}"#, "run.name"),
            (r#"{"metadata":{}}"#, "run.name"),
            (r#"{"metadata":{"name":"../x"}}"#, "name"),
            (r#"{"metadata":[]}"#, "metadata"),
            ("[]", "object"),
            ("{", "JSON"),
        ] {
            let failure = object(text, &pods(), "ns").unwrap_err();
            assert!(format!("{failure:?}").contains(word), "{text}: {failure:?}");
        }
    }

    #[test]
    fn each_kind_of_patch_carries_the_uid() {
        let mut merge =
            json!({"metadata": {"labels": {"karat.internal/run": null, "x": "1"}}, "spec": 1});
        identify(PatchKind::Merge, &mut merge, "u").unwrap();
        assert_eq!(
            merge,
            json!({"metadata": {"uid": "u", "labels": {"x": "1"}}, "spec": 1})
        );
        let mut apply = json!({"metadata": {"uid": "forged"}});
        identify(PatchKind::Apply, &mut apply, "u").unwrap();
        assert_eq!(apply["metadata"]["uid"], "u");
        let mut patch = json!([{"op": "add", "path": "/spec/x", "value": 1}]);
        identify(PatchKind::Json, &mut patch, "u").unwrap();
        assert_eq!(
            patch[0],
            json!({"op": "test", "path": "/metadata/uid", "value": "u"})
        );
        for bad in [json!("x"), json!({"metadata": []})] {
            assert!(identify(PatchKind::Merge, &mut bad.clone(), "u").is_err());
        }
        assert!(identify(PatchKind::Json, &mut json!({}), "u").is_err());
    }

    #[test]
    fn a_json_patch_can_neither_guess_nor_disown() {
        let refused =
            |operation: Value| identify(PatchKind::Json, &mut json!([operation]), "u").is_err();
        for path in [
            "",
            "/metadata",
            "/metadata/labels",
            "/metadata/annotations",
            "/metadata/labels/karat.internal~1run",
            "/metadata/annotations/karat.internal~1seal",
            "/metadata/uid",
            "/metadata/name",
        ] {
            for op in ["add", "remove", "replace", "copy"] {
                assert!(
                    refused(json!({"op": op, "path": path, "value": {}})),
                    "{op} {path}"
                );
            }
            assert!(
                refused(json!({"op": "move", "from": path, "path": "/metadata/labels/x"})),
                "{path}"
            );
        }
        assert!(refused(
            json!({"op": "test", "path": "/data/password", "value": "x"})
        ));
        assert!(refused(json!({"op": "add"})));
        assert!(refused(json!(3)));
        assert!(!refused(
            json!({"op": "test", "path": "/metadata/labels/x", "value": "1"})
        ));
        assert!(!refused(
            json!({"op": "add", "path": "/metadata/labels/x", "value": "1"})
        ));
    }
}
