//! Controllers that lose, double or hand out units wrongly: what a scheduler, a driver or a device plugin with a bug would do.
//!
//! Each acts on the API server with all rights, beside the real controllers. They are named in [`crate::named`].

use std::collections::HashSet;

use anyhow::{Context as _, Result};
use futures::TryStreamExt as _;
use kube::api::{
    Api, DeleteParams, DynamicObject, ListParams, Patch, PatchParams, PostParams, WatchEvent,
    WatchParams,
};
use kube::{Client, ResourceExt as _};
use regex::Regex;
use serde_json::{Value, json};
use tokio::sync::oneshot;

use crate::actors::Notes;
use crate::place::api;

/// Every change of objects in namespaces of runs, until this is dropped; `act` says whether it did something.
async fn follow<A, F>(
    objects: Api<DynamicObject>,
    ready: oneshot::Sender<()>,
    notes: Notes,
    mut act: A,
) -> Result<()>
where
    A: FnMut(DynamicObject, bool) -> F,
    F: Future<Output = Result<bool>>,
{
    let mut ready = Some(ready);
    loop {
        let list = objects.list(&ListParams::default()).await?;
        let version = list.metadata.resource_version.clone().unwrap_or_default();
        let params = WatchParams::default().timeout(290);
        let mut events = std::pin::pin!(objects.watch(&params, &version).await?);
        if let Some(ready) = ready.take() {
            let _ = ready.send(());
        }
        while let Some(event) = events.try_next().await? {
            let (object, gone) = match event {
                WatchEvent::Added(object) | WatchEvent::Modified(object) => (object, false),
                WatchEvent::Deleted(object) => (object, true),
                WatchEvent::Bookmark(_) | WatchEvent::Error(_) => continue,
            };
            if !object.namespace().unwrap_or_default().starts_with("karat-") {
                continue;
            }
            let name = object.name_any();
            match act(object, gone).await {
                Ok(true) => notes.add(format!("acted on {name}")),
                Ok(false) => {}
                Err(error) => notes.add(format!("{name}: {error:#}")),
            }
        }
    }
}

fn marked(pod: &DynamicObject) -> bool {
    let conditions = pod.data.pointer("/status/conditions");
    let conditions = conditions.and_then(Value::as_array).into_iter().flatten();
    let mut conditions = conditions.filter(|it| it["type"] == "DisruptionTarget");
    conditions.any(|it| it["reason"] == "PreemptionByScheduler")
}

/// A scheduler that takes one more: when a pod of a run is preempted, another one goes the same way, in `with.namespace` (that of the
/// first without it), whose name `with.name` fits.
pub(crate) async fn also_preempts(
    client: Client,
    with: Value,
    notes: Notes,
    ready: oneshot::Sender<()>,
) -> Result<()> {
    let name = with["name"].as_str().context("with: name is missing")?;
    let name = Regex::new(name)?;
    let pods = api(&client, "v1", "Pod", None).await?;
    let mut done = false;
    follow(pods, ready, notes, |pod, _| {
        let first = !done && marked(&pod);
        done |= first;
        let (client, name, with) = (client.clone(), name.clone(), with.clone());
        async move {
            if !first {
                return Ok(false);
            }
            let own = pod.namespace().unwrap_or_default();
            let namespace = with["namespace"].as_str().unwrap_or(&own);
            let here = api(&client, "v1", "Pod", Some(namespace)).await?;
            let others = here.list(&ListParams::default()).await?;
            let other = others.into_iter().find(|other| {
                other.uid() != pod.uid() && name.is_match(&other.name_any()) && !marked(other)
            });
            let other = other.context("nobody else is there")?.name_any();
            let mark = json!({"status": {"conditions": [{"type": "DisruptionTarget", "status": "True",
                "reason": "PreemptionByScheduler", "message": "preempting to accommodate a higher priority pod",
                "lastTransitionTime": "2026-01-01T00:00:00Z"}]}});
            let params = PatchParams::default();
            here.patch_status(&other, &params, &Patch::Strategic(mark)).await?;
            here.delete(&other, &DeleteParams::default()).await?;
            Ok(true)
        }
    })
    .await
}

/// A scheduler that forgets what it gave: each device of a run's claim is allocated to a second claim in `default` as well.
pub(crate) async fn double_books(
    client: Client,
    with: Value,
    notes: Notes,
    ready: oneshot::Sender<()>,
) -> Result<()> {
    const GROUP: &str = "resource.k8s.io/v1";
    let name = with["name"].as_str().context("with: name is missing")?;
    let wanted = Regex::new(name)?;
    let claims = api(&client, GROUP, "ResourceClaim", None).await?;
    let mut done: HashSet<String> = HashSet::new();
    follow(claims, ready, notes, |claim, gone| {
        let allocated = claim.data.pointer("/status/allocation").is_some();
        let first = !gone
            && allocated
            && wanted.is_match(&claim.name_any())
            && done.insert(claim.uid().unwrap_or_default());
        let client = client.clone();
        async move {
            if !first {
                return Ok(false);
            }
            let here = api(&client, GROUP, "ResourceClaim", Some("default")).await?;
            let name = format!("second-{}", claim.uid().unwrap_or_default());
            let second = json!({"apiVersion": GROUP, "kind": "ResourceClaim",
                "metadata": {"name": name, "namespace": "default", "finalizers": ["resource.kubernetes.io/delete-protection"]},
                "spec": claim.data["spec"]});
            here.create(&PostParams::default(), &serde_json::from_value(second)?).await?;
            // With a consumer, so that no controller takes it for unused.
            let status = json!({"status": {"allocation": claim.data["status"]["allocation"],
                "reservedFor": [{"resource": "widgets", "name": "w", "uid": "w"}]}});
            here.patch_status(&name, &PatchParams::default(), &Patch::Merge(status)).await?;
            Ok(true)
        }
    })
    .await
}

/// A device plugin that counts a device out when its pod is gone: once a pod whose name fits `with.name` has gone, `with.node` has `with.left`
/// of `with.resource`.
pub(crate) async fn shrinks_the_node(
    client: Client,
    with: Value,
    notes: Notes,
    ready: oneshot::Sender<()>,
) -> Result<()> {
    let text = |field: &str| -> Result<String> {
        let found = with[field].as_str();
        Ok(found
            .with_context(|| format!("with: {field} is missing"))?
            .to_owned())
    };
    let name = Regex::new(&text("name")?)?;
    let (node, resource, left) = (text("node")?, text("resource")?, text("left")?);
    let pods = api(&client, "v1", "Pod", None).await?;
    let nodes = api(&client, "v1", "Node", None).await?;
    let mut done = false;
    follow(pods, ready, notes, |pod, gone| {
        let first = !done && gone && name.is_match(&pod.name_any());
        done |= first;
        let (nodes, node) = (nodes.clone(), node.clone());
        let has = json!({resource.as_str(): left});
        async move {
            if first {
                let status = json!({"status": {"allocatable": has, "capacity": has}});
                nodes
                    .patch_status(&node, &PatchParams::default(), &Patch::Merge(status))
                    .await?;
            }
            Ok(first)
        }
    })
    .await
}
