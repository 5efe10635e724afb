//! Puts fixtures into a cluster: multi-document YAML, server-side apply, and the status where a document has one.
//!
//! A node's allocatable resources live in its status, which the API server ignores in a normal write. A document that
//! holds a `status` is therefore applied twice, the second time to the subresource.

use std::path::PathBuf;
use std::time::{Duration, Instant};

use kube::api::{DynamicObject, Patch, PatchParams};
use kube::core::GroupVersionKind;
use kube::discovery::{ApiCapabilities, ApiResource, Scope};
use kube::{Api, Client};
use serde::Deserialize as _;
use serde_json::Value;

use crate::control_plane::ControlPlane;
use crate::error::{Result, TestbedError};

/// Field manager of everything that fixtures write.
const MANAGER: &str = "karat-testbed";

/// A namespace or service account made a moment ago may not be known to every admission plug-in yet.
const RETRY_FOR: Duration = Duration::from_secs(10);

/// One object that was written.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Applied {
    /// Kind.
    pub kind: String,
    /// Namespace, for namespaced kinds.
    pub namespace: Option<String>,
    /// Name.
    pub name: String,
}

/// Path of a fixture in the repository.
#[must_use]
pub fn fixture_path(name: &str) -> PathBuf {
    PathBuf::from(concat!(env!("CARGO_MANIFEST_DIR"), "/fixtures")).join(name)
}

impl ControlPlane {
    /// Applies a file of `tests/testbed/fixtures`.
    ///
    /// # Errors
    /// A document that is not an object, an unknown kind, or a refusal of the API server, with file and document.
    pub async fn apply(&self, fixture: &str) -> Result<Vec<Applied>> {
        let path = fixture_path(fixture);
        let text = std::fs::read_to_string(&path).map_err(TestbedError::io(&path))?;
        apply_yaml(&self.client().await?, fixture, &text).await
    }

    /// Applies YAML from a test; `name` appears in errors.
    ///
    /// # Errors
    /// As [`apply`](Self::apply).
    pub async fn apply_yaml(&self, name: &str, yaml: &str) -> Result<Vec<Applied>> {
        apply_yaml(&self.client().await?, name, yaml).await
    }
}

/// Applies multi-document YAML through any client, in the order of the text.
///
/// # Errors
/// As [`ControlPlane::apply`].
pub async fn apply_yaml(client: &Client, name: &str, yaml: &str) -> Result<Vec<Applied>> {
    let mut applied = Vec::new();
    for (document, object) in documents(name, yaml)? {
        applied.push(apply_one(client, name, document, object).await?);
    }
    Ok(applied)
}

/// Applies objects that are there already as values.
pub(crate) async fn apply_values(
    client: &Client,
    name: &str,
    objects: impl IntoIterator<Item = Value>,
) -> Result<()> {
    for (at, object) in objects.into_iter().enumerate() {
        apply_one(client, name, at + 1, object).await?;
    }
    Ok(())
}

/// The documents that hold something, with their number in the file.
pub(crate) fn documents(name: &str, yaml: &str) -> Result<Vec<(usize, Value)>> {
    let mut all = Vec::new();
    for (i, part) in serde_yaml_ng::Deserializer::from_str(yaml).enumerate() {
        let document = i + 1;
        let bad = |cause: String| TestbedError::Fixture {
            name: name.to_owned(),
            document,
            cause,
        };
        let value = Value::deserialize(part).map_err(|e| bad(e.to_string()))?;
        if value.is_null() {
            continue;
        }
        for field in ["/apiVersion", "/kind", "/metadata/name"] {
            if value.pointer(field).and_then(Value::as_str).is_none() {
                return Err(bad(format!("{field} is missing")));
            }
        }
        all.push((document, value));
    }
    Ok(all)
}

async fn apply_one(
    client: &Client,
    name: &str,
    document: usize,
    mut object: Value,
) -> Result<Applied> {
    let text = |field: &str| {
        object
            .pointer(field)
            .and_then(Value::as_str)
            .map(str::to_owned)
    };
    let (api_version, kind) = (
        text("/apiVersion").unwrap_or_default(),
        text("/kind").unwrap_or_default(),
    );
    let object_name = text("/metadata/name").unwrap_or_default();
    let (group, version) = api_version.split_once('/').unwrap_or(("", &api_version));
    let doing = format!("fixture {name}, document {document}: {kind} {object_name}");

    let gvk = GroupVersionKind::gvk(group, version, &kind);
    let (resource, capabilities) = kube::discovery::pinned_kind(client, &gvk)
        .await
        .map_err(TestbedError::kube(doing.clone()))?;
    let namespace = (capabilities.scope == Scope::Namespaced)
        .then(|| text("/metadata/namespace").unwrap_or_else(|| "default".to_owned()));
    let api: Api<DynamicObject> = match &namespace {
        Some(namespace) => Api::namespaced_with(client.clone(), namespace, &resource),
        None => Api::all_with(client.clone(), &resource),
    };
    let status = object.as_object_mut().and_then(|o| o.remove("status"));
    patch(&api, &object_name, &object, false)
        .await
        .map_err(TestbedError::kube(doing.clone()))?;
    if let Some(status) = status {
        if !has_status(&resource, &capabilities) {
            return Err(TestbedError::Fixture {
                name: name.to_owned(),
                document,
                cause: format!("{kind} has no status subresource"),
            });
        }
        let body = serde_json::json!({ "apiVersion": api_version, "kind": kind, "metadata": { "name": object_name }, "status": status });
        patch(&api, &object_name, &body, true)
            .await
            .map_err(TestbedError::kube(format!("{doing}, status")))?;
    }
    Ok(Applied {
        kind,
        namespace,
        name: object_name,
    })
}

fn has_status(resource: &ApiResource, capabilities: &ApiCapabilities) -> bool {
    capabilities.subresources.iter().any(|(sub, _)| {
        sub.plural == "status" || sub.plural == format!("{}/status", resource.plural)
    })
}

async fn patch(
    api: &Api<DynamicObject>,
    name: &str,
    body: &Value,
    status: bool,
) -> std::result::Result<(), kube::Error> {
    let params = PatchParams::apply(MANAGER).force();
    let began = Instant::now();
    loop {
        let result = if status {
            api.patch_status(name, &params, &Patch::Apply(body)).await
        } else {
            api.patch(name, &params, &Patch::Apply(body)).await
        };
        match result {
            Err(kube::Error::Api(answer))
                if is_not_yet(answer.code, &answer.message) && began.elapsed() < RETRY_FOR =>
            {
                tokio::time::sleep(Duration::from_millis(100)).await;
            }
            other => return other.map(|_| ()),
        }
    }
}

/// Refusals that only say that another controller has not caught up.
fn is_not_yet(code: u16, message: &str) -> bool {
    code == 409 || (code == 403 && message.contains("error looking up service account"))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn empty_documents_are_skipped_and_numbers_kept() {
        let yaml = "---\n---\napiVersion: v1\nkind: Namespace\nmetadata: {name: a}\n---\n# only a comment\n";
        let all = documents("x.yaml", yaml).unwrap();
        assert_eq!(all.len(), 1);
        assert_eq!(all[0].1["metadata"]["name"], "a");
    }

    #[test]
    fn a_document_without_a_name_is_refused_with_its_place() {
        let error = documents("x.yaml", "apiVersion: v1\nkind: Namespace\nmetadata: {name: a}\n---\napiVersion: v1\nkind: Pod\n").unwrap_err().to_string();
        assert!(
            error.contains("x.yaml, document 2") && error.contains("/metadata/name"),
            "{error}"
        );
    }

    #[test]
    fn every_fixture_in_the_repository_parses() {
        let mut count = 0;
        for entry in std::fs::read_dir(fixture_path("")).unwrap().flatten() {
            let text = std::fs::read_to_string(entry.path()).unwrap();
            assert!(
                !documents(&entry.file_name().to_string_lossy(), &text)
                    .unwrap()
                    .is_empty()
            );
            count += 1;
        }
        assert!(count >= 6, "only {count} fixtures");
    }
}
