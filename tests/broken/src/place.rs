//! Puts objects into a cluster for one run and takes them away again, so that the next run finds what this one found.

use anyhow::{Context as _, Result, ensure};
use futures::{StreamExt as _, TryStreamExt as _};
use karat_testbed::{ControlPlane, fixture_path};
use kube::api::{Api, DeleteParams, DynamicObject, ListParams, PostParams};
use kube::core::GroupVersionKind;
use kube::discovery::{self, ApiResource, Scope};
use kube::{Client, ResourceExt as _};
use serde::Deserialize as _;
use serde_json::{Value, json};

use crate::data::{Crowd, Make, Until};

/// Writes at one time; more only makes etcd queue.
const AT_ONCE: usize = 16;
/// Where the pods of the crowd live, and the label of everything that belongs to it.
const CROWD: &str = "busy-tenant";

/// The objects of a YAML text.
///
/// # Errors
/// If a document is no object of Kubernetes.
pub fn documents(yaml: &str) -> Result<Vec<Value>> {
    let mut all = Vec::new();
    for (i, part) in serde_yaml_ng::Deserializer::from_str(yaml).enumerate() {
        let value = Value::deserialize(part).with_context(|| format!("object {}", i + 1))?;
        if value.is_null() {
            continue;
        }
        for field in ["/apiVersion", "/kind", "/metadata/name"] {
            let there = value.pointer(field).is_some_and(Value::is_string);
            ensure!(there, "object {}: {field} is missing", i + 1);
        }
        all.push(value);
    }
    Ok(all)
}

/// Whether there are nodes among these.
///
/// # Errors
/// If a file cannot be read.
pub fn has_nodes(fixtures: &[String], objects: Option<&str>) -> Result<bool> {
    let mut all = documents(objects.unwrap_or_default())?;
    for fixture in fixtures {
        all.extend(documents(&fixture_text(fixture)?)?);
    }
    Ok(all.iter().any(|o| o["kind"] == "Node"))
}

fn fixture_text(name: &str) -> Result<String> {
    let path = fixture_path(name);
    std::fs::read_to_string(&path).with_context(|| path.display().to_string())
}

/// The API for objects of a kind: of one namespace, or of all.
///
/// # Errors
/// If the server does not serve it.
pub async fn api(
    client: &Client,
    api_version: &str,
    kind: &str,
    namespace: Option<&str>,
) -> Result<Api<DynamicObject>> {
    let (group, version) = api_version.split_once('/').unwrap_or(("", api_version));
    let gvk = GroupVersionKind::gvk(group, version, kind);
    let (resource, capabilities) = discovery::pinned_kind(client, &gvk)
        .await
        .with_context(|| format!("{kind} of {api_version}"))?;
    Ok(match namespace {
        Some(namespace) if capabilities.scope == Scope::Namespaced => {
            Api::namespaced_with(client.clone(), namespace, &resource)
        }
        _ => Api::all_with(client.clone(), &resource),
    })
}

/// The API that a whole object belongs to.
///
/// # Errors
/// As [`api`].
pub async fn api_of(client: &Client, object: &Value) -> Result<Api<DynamicObject>> {
    let text = |field: &str| object.pointer(field).and_then(Value::as_str);
    let namespace = text("/metadata/namespace").unwrap_or("default");
    let (version, kind) = (text("/apiVersion"), text("/kind"));
    api(
        client,
        version.unwrap_or_default(),
        kind.unwrap_or_default(),
        Some(namespace),
    )
    .await
}

/// What was put into a cluster.
pub struct Placed<'a> {
    lab: &'a ControlPlane,
    objects: Vec<Value>,
    crowd: Option<Crowd>,
    down: Vec<String>,
}

/// Puts everything into the cluster and waits until it is as it shall be.
///
/// What was put there before an error stays; the cluster is of no use then.
///
/// # Errors
/// If an object is refused, or a condition does not come true.
pub async fn place<'a>(lab: &'a ControlPlane, make: &Make) -> Result<Placed<'a>> {
    let client = lab.client().await?;
    let mut placed = Placed {
        lab,
        objects: Vec::new(),
        crowd: make.crowd,
        down: make.down.clone(),
    };
    for fixture in &make.fixtures {
        placed.objects.extend(documents(&fixture_text(fixture)?)?);
        lab.apply(fixture).await?;
    }
    if let Some(yaml) = &make.objects {
        placed.objects.extend(documents(yaml)?);
        lab.apply_yaml("objects", yaml).await?;
    }
    if let Some(crowd) = &make.crowd {
        gather(lab, &client, crowd).await?;
    }
    let nodes = has_nodes(&make.fixtures, make.objects.as_deref())?;
    if nodes || make.crowd.is_some_and(|c| c.nodes > 0) {
        lab.wait_nodes_ready().await?;
    }
    for until in &make.until {
        let what = format!("{until:?}");
        lab.wait_until(&what, async || holds(&client, until).await)
            .await?;
    }
    for name in &make.down {
        lab.stop_add_on(crate::lab::add_on(name)?)?;
    }
    Ok(placed)
}

impl Placed<'_> {
    /// Takes everything away and waits until it is gone.
    ///
    /// # Errors
    /// If something stays.
    pub async fn remove(self) -> Result<()> {
        let client = self.lab.client().await?;
        // First, since what was made may need them to go.
        for name in &self.down {
            self.lab.resume_add_on(crate::lab::add_on(name)?).await?;
        }
        if let Some(crowd) = &self.crowd {
            disperse(self.lab, &client, crowd).await?;
        }
        for object in self.objects.iter().rev() {
            remove(self.lab, &client, object).await?;
        }
        Ok(())
    }
}

/// Takes an object away and waits until it is gone.
///
/// # Errors
/// If it stays.
pub async fn remove(lab: &ControlPlane, client: &Client, object: &Value) -> Result<()> {
    let name = object["metadata"]["name"].as_str().unwrap_or_default();
    let what = format!(
        "{} {name} is gone",
        object["kind"].as_str().unwrap_or_default()
    );
    let api = match api_of(client, object).await {
        Ok(api) => api,
        // Its definition went before it, and took it along.
        Err(error) if is_absent(&error) => return Ok(()),
        Err(error) => return Err(error),
    };
    let mut how = DeleteParams::background();
    if object["kind"] == "Pod" {
        how = how.grace_period(0);
    }
    match api.delete(name, &how).await {
        Err(kube::Error::Api(answer)) if answer.code == 404 => return Ok(()),
        other => other.map(|_| ()).with_context(|| what.clone())?,
    }
    lab.wait_until(&what, async || match api.get_opt(name).await {
        Ok(None) => Ok(()),
        Ok(Some(_)) => Err("still there".to_owned()),
        Err(e) => Err(e.to_string()),
    })
    .await?;
    Ok(())
}

fn is_absent(error: &anyhow::Error) -> bool {
    error
        .chain()
        .filter_map(|cause| cause.downcast_ref::<kube::Error>())
        .any(|cause| {
            matches!(cause, kube::Error::Api(answer) if answer.code == 404)
                || matches!(cause, kube::Error::Discovery(_))
        })
}

async fn holds(client: &Client, until: &Until) -> Result<(), String> {
    let said = |e: &dyn std::fmt::Display| e.to_string();
    if let Some(object) = &until.dry_run {
        let api = api_of(client, object).await.map_err(|e| said(&e))?;
        let body: DynamicObject = serde_json::from_value(object.clone()).map_err(|e| said(&e))?;
        let dry = PostParams {
            dry_run: true,
            ..PostParams::default()
        };
        return match (api.create(&dry, &body).await, &until.refused) {
            (Err(kube::Error::Api(answer)), Some(part)) if answer.message.contains(part) => Ok(()),
            (Ok(_), Some(_)) => Err("the dry run was accepted".to_owned()),
            (Ok(answer), None) => {
                let answer = serde_json::to_value(&answer).map_err(|e| said(&e))?;
                let holds = until.condition.holds(&answer);
                holds.then_some(()).ok_or_else(|| answer.to_string())
            }
            (Err(error), _) => Err(said(&error)),
        };
    }
    let (version, kind) = (until.api_version.as_deref(), until.kind.as_deref());
    let (version, kind) = (version.unwrap_or_default(), kind.unwrap_or_default());
    let api = api(client, version, kind, until.namespace.as_deref())
        .await
        .map_err(|e| said(&e))?;
    let list = api
        .list(&ListParams::default())
        .await
        .map_err(|e| said(&e))?;
    let mut some = false;
    for object in list {
        let name = object.name_any();
        if until.name.as_ref().is_some_and(|wanted| *wanted != name) {
            continue;
        }
        some = true;
        let value = serde_json::to_value(&object).map_err(|e| said(&e))?;
        if !until.condition.holds(&value) {
            return Err(format!("{kind} {name} is not so"));
        }
    }
    some.then_some(())
        .ok_or_else(|| format!("there is no {kind}"))
}

// ---- the crowd ----

async fn gather(lab: &ControlPlane, client: &Client, crowd: &Crowd) -> Result<()> {
    let labels = json!({ "crowd": CROWD });
    let nodes = (0..crowd.nodes).map(|i| {
        let size = json!({"cpu": "4", "memory": "16Gi", "pods": "110"});
        json!({"apiVersion": "v1", "kind": "Node",
            "metadata": {"name": format!("{CROWD}-{i}"), "labels": labels, "annotations": {"kwok.x-k8s.io/node": "fake"}},
            "status": {"allocatable": size, "capacity": size}})
    });
    create_all(client, nodes).await?;
    if crowd.pods > 0 {
        let namespace =
            json!({"apiVersion": "v1", "kind": "Namespace", "metadata": {"name": CROWD}});
        create_all(client, std::iter::once(namespace)).await?;
        let accounts = api(client, "v1", "ServiceAccount", Some(CROWD)).await?;
        lab.wait_until("the crowd has its account", async || {
            match accounts.get_opt("default").await {
                Ok(Some(_)) => Ok(()),
                Ok(None) => Err("not there".to_owned()),
                Err(e) => Err(e.to_string()),
            }
        })
        .await?;
        let pods = (0..crowd.pods).map(|i| {
            let container = json!({"name": "c", "image": "busy.invalid/c:1", "resources": {"requests": {"cpu": "10m"}}});
            let mut spec = json!({"containers": [container]});
            if crowd.nodes > 0 {
                spec["nodeName"] = format!("{CROWD}-{}", i % crowd.nodes).into();
            }
            json!({"apiVersion": "v1", "kind": "Pod",
                "metadata": {"name": format!("{CROWD}-{i}"), "namespace": CROWD, "labels": labels}, "spec": spec})
        });
        create_all(client, pods).await?;
    }
    let definitions = (0..crowd.definitions).map(|i| {
        let schema = json!({"openAPIV3Schema": {"type": "object"}});
        json!({"apiVersion": "apiextensions.k8s.io/v1", "kind": "CustomResourceDefinition",
            "metadata": {"name": format!("things{i}.busy-{i}.example"), "labels": labels},
            "spec": {"group": format!("busy-{i}.example"), "scope": "Namespaced",
                "names": {"plural": format!("things{i}"), "singular": format!("thing{i}"), "kind": format!("Thing{i}"), "listKind": format!("Thing{i}List")},
                "versions": [{"name": "v1", "served": true, "storage": true, "schema": schema}]}})
    });
    create_all(client, definitions).await?;
    if crowd.definitions > 0 {
        let api = definitions_api(client);
        lab.wait_until("the definitions of the crowd are served", async || {
            let list = api.list(&of_crowd()).await.map_err(|e| e.to_string())?;
            let served = |o: &DynamicObject| {
                let conditions = o.data["status"]["conditions"].as_array();
                conditions.is_some_and(|all| {
                    let mut all = all.iter();
                    all.any(|c| c["type"] == "Established" && c["status"] == "True")
                })
            };
            let waiting = list.items.iter().filter(|o| !served(o)).count();
            (waiting == 0)
                .then_some(())
                .ok_or_else(|| format!("{waiting} are not"))
        })
        .await?;
    }
    Ok(())
}

async fn disperse(lab: &ControlPlane, client: &Client, crowd: &Crowd) -> Result<()> {
    let now = DeleteParams::background().grace_period(0);
    if crowd.pods > 0 {
        let pods = api(client, "v1", "Pod", Some(CROWD)).await?;
        pods.delete_collection(&now, &ListParams::default()).await?;
        let namespace =
            json!({"apiVersion": "v1", "kind": "Namespace", "metadata": {"name": CROWD}});
        remove(lab, client, &namespace).await?;
    }
    let mut kinds = Vec::new();
    if crowd.nodes > 0 {
        kinds.push(api(client, "v1", "Node", None).await?);
    }
    if crowd.definitions > 0 {
        kinds.push(definitions_api(client));
    }
    for api in kinds {
        api.delete_collection(&now, &of_crowd()).await?;
        lab.wait_until("the crowd is gone", async || {
            let left = api.list(&of_crowd()).await.map_err(|e| e.to_string())?;
            let left = left.items.len();
            (left == 0)
                .then_some(())
                .ok_or_else(|| format!("{left} are left"))
        })
        .await?;
    }
    Ok(())
}

fn of_crowd() -> ListParams {
    ListParams::default().labels(&format!("crowd={CROWD}"))
}

fn definitions_api(client: &Client) -> Api<DynamicObject> {
    let gvk = GroupVersionKind::gvk("apiextensions.k8s.io", "v1", "CustomResourceDefinition");
    Api::all_with(client.clone(), &ApiResource::from_gvk(&gvk))
}

async fn create_all(client: &Client, objects: impl Iterator<Item = Value>) -> Result<()> {
    let mut objects = objects.peekable();
    let Some(first) = objects.peek() else {
        return Ok(());
    };
    let api = &api_of(client, first).await?;
    futures::stream::iter(objects)
        .map(|object| async move {
            let name = object["metadata"]["name"].to_string();
            let object: DynamicObject = serde_json::from_value(object)?;
            let made = api.create(&PostParams::default(), &object).await;
            made.map(|_| ()).with_context(|| format!("create {name}"))
        })
        .buffer_unordered(AT_ONCE)
        .try_collect::<Vec<()>>()
        .await?;
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn documents_are_objects() {
        let all = documents(
            "---\n# nothing\n---\napiVersion: v1\nkind: Namespace\nmetadata: {name: a}\n",
        )
        .unwrap();
        assert_eq!(all.len(), 1);
        for wrong in ["a: b", "apiVersion: v1\nkind: Pod\n", "- x\n"] {
            assert!(documents(wrong).is_err(), "{wrong}");
        }
    }

    #[test]
    fn nodes_are_noticed_in_files_and_texts() {
        assert!(has_nodes(&["nvidia-nodes.yaml".into()], None).unwrap());
        assert!(!has_nodes(&[], Some("apiVersion: v1\nkind: Pod\nmetadata: {name: a}")).unwrap());
    }
}
