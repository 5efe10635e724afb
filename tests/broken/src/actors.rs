//! Controllers that misbehave, as data: what they wait for and what they then do, past the probe and with all rights.
//!
//! They act on the API server itself, never through the proxy of the entry. What data cannot say is a named controller in
//! [`crate::named`].

use std::collections::HashSet;
use std::sync::{Arc, Mutex, PoisonError};

use anyhow::{Context as _, Result, bail, ensure};
use futures::TryStreamExt as _;
use kube::api::{
    Api, DeleteParams, DynamicObject, ListParams, Patch, PatchParams, PostParams, WatchEvent,
    WatchParams,
};
use kube::{Client, ResourceExt as _};
use serde::Deserialize;
use serde_json::{Value, json};
use tokio::sync::oneshot;
use tokio::task::JoinSet;

use crate::edit::Where;
use crate::named;
use crate::place::{api, api_of};
use crate::words::{Pattern, Time};

/// What it waits for, and what it does then, once for each object. In texts of what it writes, `{name}`, `{namespace}`,
/// `{uid}` and `{node}` stand for those of the object.
#[derive(Clone, Debug, Default, Deserialize)]
#[serde(deny_unknown_fields, rename_all = "kebab-case")]
pub struct ActorData {
    /// A named controller instead of all that follows but `with`.
    #[serde(default)]
    pub rust: Option<String>,
    /// What the named controller wants to know.
    #[serde(default)]
    pub with: Value,
    /// API version of the objects it looks at.
    #[serde(default)]
    pub api_version: String,
    /// Their kind.
    #[serde(default)]
    pub kind: String,
    /// Occurs in their namespace; by default only those of runs.
    #[serde(default)]
    pub namespace: Option<Pattern>,
    /// Occurs in their name.
    #[serde(default)]
    pub name: Option<Pattern>,
    /// Holds for the object.
    #[serde(default)]
    pub when: Where,
    /// Acts when the object is gone, and `when` held for its last state.
    #[serde(default)]
    pub gone: bool,
    /// So long after; what is present must then still be as `when` says.
    #[serde(default)]
    pub after: Option<Time>,
    /// For so many objects at most.
    #[serde(default)]
    pub times: Option<u32>,
    /// For each change of an object, not once for each object.
    #[serde(default)]
    pub again: bool,
    /// Binds the pod to this node, past the scheduler.
    #[serde(default)]
    pub bind: Option<String>,
    /// Deletes the object.
    #[serde(default)]
    pub delete: bool,
    /// Merges this into the object.
    #[serde(default)]
    pub patch: Option<Value>,
    /// Merges this into the object through its status.
    #[serde(default)]
    pub status: Option<Value>,
    /// Creates another object.
    #[serde(default)]
    pub create: Option<Value>,
    /// Deletes another object.
    #[serde(default)]
    pub remove: Option<Value>,
    /// Suspends an operator, a program of the control plane or one of the nodes until the run is over.
    #[serde(default)]
    pub pause: Option<String>,
    /// Ends the pause after so long.
    #[serde(default, rename = "for")]
    pub lasts: Option<Time>,
    /// Its processes, filled in when the entry is run.
    #[serde(skip)]
    pub pids: Vec<u32>,
}

/// What an actor did, for the report: an entry whose fault never came about proves nothing. And what it made, which
/// goes with it.
#[derive(Clone, Debug, Default)]
pub struct Notes {
    said: Arc<Mutex<Vec<String>>>,
    made: Arc<Mutex<Vec<Value>>>,
}

impl Notes {
    /// Adds one.
    pub fn add(&self, note: String) {
        let mut notes = self.said.lock().unwrap_or_else(PoisonError::into_inner);
        // A controller that fails again and again must not fill the memory.
        if notes.len() < 50 {
            notes.push(note);
        }
    }

    /// All of them.
    #[must_use]
    pub fn all(&self) -> Vec<String> {
        self.said
            .lock()
            .unwrap_or_else(PoisonError::into_inner)
            .clone()
    }

    /// Remembers an object to take away when the controller has stopped.
    pub fn made(&self, object: Value) {
        let mut made = self.made.lock().unwrap_or_else(PoisonError::into_inner);
        made.push(object);
    }
}

/// A running controller, stopped by dropping this.
#[derive(Debug)]
pub struct Actor {
    task: JoinSet<()>,
    label: String,
    notes: Notes,
}

impl Actor {
    /// What it did, one line each; empty if it never acted.
    #[must_use]
    pub fn notes(&self) -> Vec<String> {
        let notes = self.notes.all().into_iter();
        notes
            .map(|note| format!("{}: {note}", self.label))
            .collect()
    }

    /// What it is.
    #[must_use]
    pub fn label(&self) -> &str {
        &self.label
    }

    /// Stops it, waits until it has stopped, and gives back what it made.
    pub async fn stop(&mut self) -> Vec<Value> {
        self.task.shutdown().await;
        let mut made = self
            .notes
            .made
            .lock()
            .unwrap_or_else(PoisonError::into_inner);
        std::mem::take(&mut *made)
    }
}

impl ActorData {
    /// Looks for what is missing or too much.
    ///
    /// # Errors
    /// If it says not exactly one thing to do.
    pub fn check(&self) -> Result<()> {
        if let Some(name) = &self.rust {
            named::controller(name)?;
            ensure!(
                self.kind.is_empty() && self.acts() == 0,
                "controller {name}: is made in Rust and takes only `with`"
            );
            return Ok(());
        }
        ensure!(
            !self.api_version.is_empty() && !self.kind.is_empty(),
            "controller: `api-version` and `kind` of what it looks at are missing"
        );
        ensure!(self.with.is_null(), "controller: `with` goes with `rust`");
        ensure!(
            self.acts() == 1,
            "controller for {}: write one of bind, delete, patch, status, create, remove, pause",
            self.kind
        );
        ensure!(
            !self.gone || self.create.is_some() || self.remove.is_some(),
            "controller for {}: what is gone leaves only `create` and `remove`",
            self.kind
        );
        if let Some(name) = &self.pause {
            crate::lab::Suspended::named(name)?;
        }
        ensure!(
            self.lasts.is_none() || self.pause.is_some(),
            "controller for {}: `for` goes with `pause`",
            self.kind
        );
        for object in self.create.iter().chain(&self.remove) {
            for field in ["/apiVersion", "/kind", "/metadata/name"] {
                let there = object.pointer(field).is_some_and(Value::is_string);
                ensure!(there, "controller: other object: {field} is missing");
            }
        }
        Ok(())
    }

    fn acts(&self) -> usize {
        let all = [
            self.bind.is_some(),
            self.delete,
            self.patch.is_some(),
            self.status.is_some(),
            self.create.is_some(),
            self.remove.is_some(),
            self.pause.is_some(),
        ];
        all.into_iter().filter(|on| *on).count()
    }

    fn concerns(&self, object: &DynamicObject) -> bool {
        let namespace = object.namespace().unwrap_or_default();
        let of_a_run = || namespace.is_empty() || namespace.starts_with("karat-");
        let namespace_fits = match &self.namespace {
            Some(pattern) => pattern.fits(&namespace),
            None => of_a_run(),
        };
        let name_fits = self
            .name
            .as_ref()
            .is_none_or(|pattern| pattern.fits(&object.name_any()));
        namespace_fits
            && name_fits
            && serde_json::to_value(object).is_ok_and(|value| self.when.holds(&value))
    }

    fn label(&self) -> String {
        match &self.rust {
            Some(name) => format!("controller {name}"),
            None => format!("controller for {}", self.kind),
        }
    }
}

/// Starts a controller and waits until it looks.
///
/// # Errors
/// If it cannot look at what it shall look at.
pub async fn start(client: Client, data: &ActorData) -> Result<Actor> {
    let notes = Notes::default();
    let (ready, looks) = oneshot::channel();
    let mut task = JoinSet::new();
    let label = data.label();
    if let Some(name) = &data.rust {
        let play = named::controller(name)?;
        let with = data.with.clone();
        let (notes, name) = (notes.clone(), name.clone());
        task.spawn(async move {
            if let Err(error) = play(client, with, notes.clone(), ready).await {
                notes.add(format!("{name} ended: {error:#}"));
            }
        });
    } else {
        let play = Play {
            api: api(&client, &data.api_version, &data.kind, None).await?,
            client,
            data: data.clone(),
            notes: notes.clone(),
        };
        task.spawn(async move { play.run(ready).await });
    }
    looks
        .await
        .with_context(|| format!("{label}: {}", notes.all().join("; ")))?;
    Ok(Actor { task, label, notes })
}

#[derive(Clone)]
struct Play {
    client: Client,
    api: Api<DynamicObject>,
    data: ActorData,
    notes: Notes,
}

impl Play {
    async fn run(self, ready: oneshot::Sender<()>) {
        let mut ready = Some(ready);
        let mut state = Seen::default();
        let mut acts = JoinSet::new();
        loop {
            if let Err(error) = self.follow(&mut ready, &mut state, &mut acts).await {
                self.notes.add(format!("looks again: {error:#}"));
                // The server may be down on purpose.
                tokio::time::sleep(std::time::Duration::from_millis(200)).await;
            }
        }
    }

    /// One list and the watch that goes on from it, until the watch ends.
    async fn follow(
        &self,
        ready: &mut Option<oneshot::Sender<()>>,
        state: &mut Seen,
        acts: &mut JoinSet<()>,
    ) -> Result<()> {
        let list = self.api.list(&ListParams::default()).await?;
        let version = list.metadata.resource_version.clone().unwrap_or_default();
        for object in list {
            self.look(object, false, state, acts);
        }
        let params = WatchParams::default().timeout(290);
        let mut events = std::pin::pin!(self.api.watch(&params, &version).await?);
        if let Some(ready) = ready.take() {
            let _ = ready.send(());
        }
        while let Some(event) = events.try_next().await? {
            match event {
                WatchEvent::Added(object) | WatchEvent::Modified(object) => {
                    self.look(object, false, state, acts);
                }
                WatchEvent::Deleted(object) => self.look(object, true, state, acts),
                WatchEvent::Bookmark(_) => {}
                WatchEvent::Error(error) => bail!("watch: {}", error.message),
            }
            while acts.try_join_next().is_some() {}
        }
        Ok(())
    }

    fn look(&self, object: DynamicObject, gone: bool, state: &mut Seen, acts: &mut JoinSet<()>) {
        let mut object = object;
        // Lists leave out what each item is.
        object.types.get_or_insert_with(|| kube::api::TypeMeta {
            api_version: self.data.api_version.clone(),
            kind: self.data.kind.clone(),
        });
        if gone != self.data.gone || !self.data.concerns(&object) {
            return;
        }
        let uid = object.uid().unwrap_or_default();
        if !self.data.again && state.done.contains(&uid) {
            return;
        }
        if self.data.times.is_some_and(|times| state.acted >= times) {
            return;
        }
        state.done.insert(uid);
        state.acted += 1;
        let play = self.clone();
        acts.spawn(async move {
            let name = object.name_any();
            match play.act(object).await {
                Ok(true) => play.notes.add(format!("acted on {name}")),
                Ok(false) => {}
                Err(error) => play.notes.add(format!("{name}: {error:#}")),
            }
        });
    }

    /// False if there was nothing to do any more.
    async fn act(&self, object: DynamicObject) -> Result<bool> {
        let name = object.name_any();
        let namespace = object.namespace();
        let data = &self.data;
        if let Some(after) = data.after {
            // What the script says, no wait for a condition.
            tokio::time::sleep(after.0).await;
        }
        let here = api(
            &self.client,
            &data.api_version,
            &data.kind,
            namespace.as_deref(),
        )
        .await?;
        if data.after.is_some() && !data.gone {
            let now = here.get_opt(&name).await?;
            if !now.is_some_and(|now| now.uid() == object.uid() && data.concerns(&now)) {
                return Ok(false);
            }
        }
        let whole = serde_json::to_value(&object)?;
        if let Some(node) = &data.bind {
            bind(&self.client, &whole, node).await?;
        } else if data.delete {
            let now = DeleteParams::background().grace_period(0);
            here.delete(&name, &now).await?;
        } else if let Some(patch) = &data.patch {
            let patch = Patch::Merge(filled(patch, &whole));
            here.patch(&name, &PatchParams::default(), &patch).await?;
        } else if let Some(status) = &data.status {
            let patch = Patch::Merge(json!({ "status": filled(status, &whole) }));
            here.patch_status(&name, &PatchParams::default(), &patch)
                .await?;
        } else if let Some(create) = &data.create {
            let new = filled(create, &whole);
            let api = api_of(&self.client, &new).await?;
            let body = serde_json::from_value(new.clone())?;
            self.notes.made(new);
            api.create(&PostParams::default(), &body).await?;
        } else if let Some(remove) = &data.remove {
            let other = filled(remove, &whole);
            let api = api_of(&self.client, &other).await?;
            let name = other["metadata"]["name"].as_str().unwrap_or_default();
            api.delete(name, &DeleteParams::background()).await?;
        } else if let Some(name) = &data.pause {
            ensure!(!data.pids.is_empty(), "{name} does not run");
            for pid in &data.pids {
                karat_testbed::pause_process(*pid)?;
            }
            if let Some(lasts) = data.lasts {
                tokio::time::sleep(lasts.0).await;
                for pid in &data.pids {
                    karat_testbed::resume_process(*pid)?;
                }
            }
        }
        Ok(true)
    }
}

#[derive(Default)]
struct Seen {
    done: HashSet<String>,
    acted: u32,
}

/// Binds a pod to a node, as a scheduler does.
///
/// # Errors
/// If the API server refuses.
pub async fn bind(client: &Client, pod: &Value, node: &str) -> Result<()> {
    let text = |field: &str| {
        pod.pointer(field)
            .and_then(Value::as_str)
            .unwrap_or_default()
    };
    let (namespace, name) = (text("/metadata/namespace"), text("/metadata/name"));
    let body = json!({"apiVersion": "v1", "kind": "Binding",
        "metadata": {"name": name, "namespace": namespace},
        "target": {"apiVersion": "v1", "kind": "Node", "name": node}});
    let request = http_post(
        &format!("/api/v1/namespaces/{namespace}/pods/{name}/binding"),
        &body,
    )?;
    let _: Value = client
        .request(request)
        .await
        .with_context(|| format!("bind {namespace}/{name} to {node}"))?;
    Ok(())
}

fn http_post(path: &str, body: &Value) -> Result<http::Request<Vec<u8>>> {
    Ok(http::Request::post(path)
        .header("content-type", "application/json")
        .body(serde_json::to_vec(body)?)?)
}

/// The value with the names of an object in its texts.
fn filled(value: &Value, object: &Value) -> Value {
    match value {
        Value::String(text) => {
            let of = |field: &str| object.pointer(field).and_then(Value::as_str).unwrap_or("");
            let text = text
                .replace("{name}", of("/metadata/name"))
                .replace("{namespace}", of("/metadata/namespace"))
                .replace("{uid}", of("/metadata/uid"))
                .replace("{node}", of("/spec/nodeName"));
            Value::String(text)
        }
        Value::Array(items) => items.iter().map(|item| filled(item, object)).collect(),
        Value::Object(map) => map
            .iter()
            .map(|(key, value)| (key.clone(), filled(value, object)))
            .collect(),
        other => other.clone(),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn data(yaml: &str) -> ActorData {
        serde_yaml_ng::from_str(yaml).unwrap()
    }

    #[test]
    fn a_controller_does_exactly_one_thing() {
        data("{api-version: v1, kind: Pod, bind: node-1, after: 2s}")
            .check()
            .unwrap();
        data("{rust: also-preempts}").check().unwrap();
        for program in ["kube-proxy", "kube-controller-manager", "jobset"] {
            data(&format!(
                "{{api-version: v1, kind: Pod, pause: {program}, for: 2s}}"
            ))
            .check()
            .unwrap();
        }
        for (yaml, part) in [
            ("{kind: Pod, delete: true}", "`api-version` and `kind`"),
            ("{api-version: v1, kind: Pod}", "write one of"),
            (
                "{api-version: v1, kind: Pod, delete: true, bind: a}",
                "write one of",
            ),
            (
                "{api-version: v1, kind: Pod, delete: true, gone: true}",
                "only `create`",
            ),
            (
                "{api-version: v1, kind: Pod, create: {kind: Pod}}",
                "/apiVersion is missing",
            ),
            (
                "{api-version: v1, kind: Pod, pause: nobody}",
                "pause nobody",
            ),
            (
                "{api-version: v1, kind: Pod, delete: true, for: 2s}",
                "goes with `pause`",
            ),
            ("{rust: nobody}", "not known"),
            ("{rust: also-preempts, delete: true}", "made in Rust"),
        ] {
            let error = format!("{:#}", data(yaml).check().unwrap_err());
            assert!(error.contains(part), "{yaml}: {error}");
        }
    }

    #[test]
    fn only_objects_of_runs_concern_it_unless_it_says_so() {
        let object = |namespace: &str| -> DynamicObject {
            serde_json::from_value(json!({"apiVersion": "v1", "kind": "Pod",
                "metadata": {"name": "a", "namespace": namespace}, "status": {"phase": "Pending"}}))
            .unwrap()
        };
        let plain =
            data("{api-version: v1, kind: Pod, delete: true, when: {/status/phase: Pending}}");
        assert!(plain.concerns(&object("karat-r-p-main")));
        assert!(!plain.concerns(&object("tenant")));
        let other = data("{api-version: v1, kind: Pod, delete: true, namespace: ^tenant$}");
        assert!(other.concerns(&object("tenant")));
    }

    #[test]
    fn names_are_filled_in_everywhere() {
        let object = json!({"metadata": {"name": "a", "namespace": "n", "uid": "u"}, "spec": {"nodeName": "x"}});
        let value = json!({"metadata": {"name": "{name}-2"}, "list": ["{namespace}/{uid}", 1], "n": "{node}"});
        assert_eq!(
            filled(&value, &object),
            json!({"metadata": {"name": "a-2"}, "list": ["n/u", 1], "n": "x"})
        );
    }
}
