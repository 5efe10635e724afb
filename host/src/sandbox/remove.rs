//! Taking objects away, by uid, in an order in which nothing hangs: what could refuse deletions first, then workload owners,
//! pods, what pods held, the rest, cluster-scoped objects, namespaces. Waits, and says what remains and why.
//!
//! It never removes a finalizer: one that is left is the platform's own protection, and is reported by name.

use crate::cluster::{ApiError, Cluster, Method, Request, encode};
use crate::journal::{LedgerEntry, ObjectRef};
use crate::seal::{self, RunKey};
use futures::StreamExt;
use serde_json::{Value, json};
use std::collections::{BTreeMap, BTreeSet};
use std::fmt;
use std::time::Duration;
use tokio::time::{Instant, sleep};

/// Requests of a clean-up that are under way at one time.
const PARALLEL: usize = 8;
/// Longest grace that a pod gets; probes that need more to stop have no business in a clean-up.
const POD_GRACE_MAX: u64 = 10;

/// An object to remove.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Target {
    /// The object.
    pub object: ObjectRef,
    /// Its uid: another object of the same name stays.
    pub uid: String,
}

/// An object that remains.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Left {
    /// The object.
    pub object: ObjectRef,
    /// Why: finalizers, conditions, or what the server said.
    pub why: String,
}

impl fmt::Display for Left {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{} ({})", self.object, self.why)
    }
}

/// How long to wait and whom to tell.
#[derive(Clone, Copy)]
pub struct Options<'a> {
    /// Longest time for everything together.
    pub patience: Duration,
    /// Told now and then how many objects remain, and one of them.
    pub progress: &'a (dyn Fn(usize, &ObjectRef) + Sync),
}

impl fmt::Debug for Options<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Options")
            .field("patience", &self.patience)
            .finish_non_exhaustive()
    }
}

/// What a removal came to.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Removed {
    /// Number of targets seen gone.
    pub gone: usize,
    /// What remains.
    pub left: Vec<Left>,
}

/// Ranks that have steps of their own.
const PODS: u8 = 3;
const NAMESPACES: u8 = 7;

/// The order of removal. Objects of one rank go together.
fn rank(object: &ObjectRef) -> u8 {
    match (object.group.as_str(), object.resource.as_str()) {
        // A policy could refuse the deletions that follow.
        ("admissionregistration.k8s.io", "validatingadmissionpolicybindings") => 0,
        ("admissionregistration.k8s.io", _) => 1,
        ("", "namespaces") => NAMESPACES,
        _ if object.namespace.is_empty() => 6,
        ("", "pods") => PODS,
        ("", "persistentvolumeclaims") | ("resource.k8s.io" | "snapshot.storage.k8s.io", _) => 4,
        ("apps" | "batch" | "autoscaling", _) | ("", "replicationcontrollers") => 2,
        // Custom resources own pods; resources of Kubernetes itself do not.
        (group, _) if !group.is_empty() && !group.ends_with(".k8s.io") => 2,
        _ => 5,
    }
}

/// Turns what a ledger knows into targets: entries without a uid are looked up and taken only if their seal verifies.
/// `on_gone` hears of entries that have no object, or one that is not ours.
pub async fn confirm(
    cluster: &Cluster,
    key: &RunKey,
    run: &str,
    entries: Vec<LedgerEntry>,
    on_gone: &(dyn Fn(&ObjectRef) + Sync),
) -> (Vec<Target>, Vec<Left>) {
    let mut targets = Vec::new();
    let mut left = Vec::new();
    for entry in entries {
        if let Some(uid) = entry.uid {
            targets.push(Target {
                object: entry.object,
                uid,
            });
            continue;
        }
        match cluster.find_json(&entry.object.path()).await {
            Ok(Some(present)) => {
                let ours = seal::carried(&present)
                    .is_some_and(|text| seal::verify(key, run, &entry.object, text));
                match present["metadata"]["uid"].as_str() {
                    Some(uid) if ours => targets.push(Target {
                        object: entry.object,
                        uid: uid.to_owned(),
                    }),
                    _ => on_gone(&entry.object),
                }
            }
            Ok(None) => on_gone(&entry.object),
            Err(e) => left.push(Left {
                object: entry.object,
                why: e.to_string(),
            }),
        }
    }
    (targets, left)
}

/// Removes the targets and waits until they are gone. `on_gone` hears of each target that was seen gone.
///
/// `home` is the run's home namespace, with the key by which others can tell what is ours. It is asked to go only when
/// nothing is left but namespaces whose deletion the server has accepted: each of them takes seconds, and the key is of no
/// more use to them.
pub async fn remove(
    cluster: &Cluster,
    targets: Vec<Target>,
    home: Option<Target>,
    options: Options<'_>,
    on_gone: &(dyn Fn(&ObjectRef) + Sync),
) -> Removed {
    let mut work = Work {
        cluster,
        options,
        on_gone,
        until: Instant::now() + options.patience,
        remaining: targets.len() + usize::from(home.is_some()),
        removed: Removed::default(),
    };
    let namespaces: BTreeMap<String, String> = targets
        .iter()
        .filter(|target| rank(&target.object) == NAMESPACES)
        .map(|target| (target.object.name.clone(), target.uid.clone()))
        .collect();
    let volumes = work.volumes_of(&namespaces).await;
    let mut by_rank: BTreeMap<u8, Vec<Target>> = BTreeMap::new();
    for target in targets {
        by_rank
            .entry(rank(&target.object))
            .or_default()
            .push(target);
    }
    // What hangs in one step must not keep the others from being asked: it is looked at again at the end.
    let mut hanging = Vec::new();
    for rank in 0..NAMESPACES {
        let until = work.until.min(Instant::now() + options.patience / 4);
        if rank == PODS {
            work.pods(&namespaces, until).await;
        }
        let asked = work.ask(by_rank.remove(&rank).unwrap_or_default()).await;
        hanging.extend(work.wait_gone(asked, until).await);
    }
    let mut ending = work
        .ask(by_rank.remove(&NAMESPACES).unwrap_or_default())
        .await;
    let accepted = ending.iter().all(|(_, note)| note.is_none());
    // What hangs inside of a namespace goes with it, or holds it.
    let only_inside = hanging
        .iter()
        .all(|(target, _)| namespaces.contains_key(&target.object.namespace));
    match home {
        Some(home) if accepted && only_inside => ending.extend(work.ask(vec![home]).await),
        Some(home) => work.leave(
            home.object,
            "kept with the run's key until the rest is gone".to_owned(),
        ),
        None => {}
    }
    hanging.extend(ending);
    for (target, note) in work.wait_gone(hanging, work.until).await {
        let why = match (presence(cluster, &target).await, note) {
            (Ok(Presence::Gone), _) => {
                work.gone(&target.object);
                continue;
            }
            (_, Some(note)) => note,
            (Ok(Presence::There(why)), None) => why,
            (Err(e), None) => e.to_string(),
        };
        work.leave(target.object, why);
    }
    work.wait_for_volumes(volumes).await;
    work.removed
}

struct Work<'a> {
    cluster: &'a Cluster,
    options: Options<'a>,
    on_gone: &'a (dyn Fn(&ObjectRef) + Sync),
    until: Instant,
    remaining: usize,
    removed: Removed,
}

impl Work<'_> {
    /// Asks for the deletion of objects; gives all of them, with what the server said against it.
    async fn ask(&self, targets: Vec<Target>) -> Vec<(Target, Option<String>)> {
        let cluster = self.cluster;
        futures::stream::iter(targets)
            .map(|target| async move {
                let answer = delete(cluster, &target.object, &target.uid, None).await;
                (target, answer.err().map(|e| e.to_string()))
            })
            .buffer_unordered(PARALLEL)
            .collect()
            .await
    }

    /// Waits for objects; gives those that were not seen gone in time.
    async fn wait_gone(
        &mut self,
        mut waiting: Vec<(Target, Option<String>)>,
        until: Instant,
    ) -> Vec<(Target, Option<String>)> {
        let mut pause = Duration::from_millis(50);
        while !waiting.is_empty() {
            let cluster = self.cluster;
            let states: Vec<_> = futures::stream::iter(waiting)
                .map(|(target, note)| async move {
                    let state = presence(cluster, &target).await;
                    (target, note, state)
                })
                .buffer_unordered(PARALLEL)
                .collect()
                .await;
            waiting = Vec::new();
            for (target, note, state) in states {
                match state {
                    Ok(Presence::Gone) => self.gone(&target.object),
                    Ok(Presence::There(_)) | Err(_) => waiting.push((target, note)),
                }
            }
            let Some((first, _)) = waiting.first() else {
                break;
            };
            (self.options.progress)(self.remaining, &first.object);
            // What the server refused to delete does not go by waiting.
            if Instant::now() >= until || waiting.iter().all(|(_, note)| note.is_some()) {
                break;
            }
            sleep(pause).await;
            pause = (pause * 2).min(Duration::from_secs(2));
        }
        waiting
    }

    fn gone(&mut self, object: &ObjectRef) {
        self.remaining -= 1;
        self.removed.gone += 1;
        (self.on_gone)(object);
    }

    fn leave(&mut self, object: ObjectRef, why: String) {
        self.remaining = self.remaining.saturating_sub(1);
        self.removed.left.push(Left { object, why });
    }

    /// Deletes every pod of our namespaces, whoever made it, and waits: claims and policies must outlive them.
    async fn pods(&mut self, namespaces: &BTreeMap<String, String>, until: Instant) {
        let mut asked = BTreeSet::new();
        let mut pause = Duration::from_millis(100);
        for (namespace, uid) in namespaces {
            // Only a namespace that is still ours: pods of a successor of the same name are not.
            let target = Target {
                object: super::namespace_ref(namespace),
                uid: uid.clone(),
            };
            if !matches!(
                presence(self.cluster, &target).await,
                Ok(Presence::There(_))
            ) {
                continue;
            }
            loop {
                let path = format!("/api/v1/namespaces/{}/pods", encode(namespace));
                let Ok(pods) = self.cluster.list_json(&path, "").await else {
                    // The namespace's own end will tell.
                    break;
                };
                let Some(first) = pods.first() else {
                    break;
                };
                if Instant::now() >= until {
                    break;
                }
                let example = pod_ref(namespace, first);
                for pod in &pods {
                    let uid = pod["metadata"]["uid"]
                        .as_str()
                        .unwrap_or_default()
                        .to_owned();
                    if asked.insert(uid.clone()) {
                        let own = pod["spec"]["terminationGracePeriodSeconds"].as_u64();
                        let grace = own.unwrap_or(POD_GRACE_MAX).min(POD_GRACE_MAX);
                        // A refusal shows itself as a pod that stays.
                        let _ =
                            delete(self.cluster, &pod_ref(namespace, pod), &uid, Some(grace)).await;
                    }
                }
                (self.options.progress)(self.remaining + pods.len(), &example);
                sleep(pause).await;
                pause = (pause * 2).min(Duration::from_secs(2));
            }
        }
    }

    /// Volumes that claims of our namespaces hold: nobody journalled them, a provisioner made them.
    async fn volumes_of(&self, namespaces: &BTreeMap<String, String>) -> Vec<Target> {
        let mut found = Vec::new();
        for namespace in namespaces.keys() {
            let path = format!(
                "/api/v1/namespaces/{}/persistentvolumeclaims",
                encode(namespace)
            );
            for claim in self.cluster.list_json(&path, "").await.unwrap_or_default() {
                let Some(volume) = claim["spec"]["volumeName"].as_str() else {
                    continue;
                };
                let object = ObjectRef {
                    version: "v1".into(),
                    resource: "persistentvolumes".into(),
                    name: volume.into(),
                    ..ObjectRef::default()
                };
                let Ok(Some(volume)) = self.cluster.find_json(&object.path()).await else {
                    continue;
                };
                if volume["spec"]["claimRef"]["uid"] == claim["metadata"]["uid"] {
                    found.push(Target {
                        object,
                        uid: volume["metadata"]["uid"]
                            .as_str()
                            .unwrap_or_default()
                            .to_owned(),
                    });
                }
            }
        }
        found
    }

    /// Waits until their provisioner has removed them. They are never deleted here: one that is retained may be meant so.
    async fn wait_for_volumes(&mut self, volumes: Vec<Target>) {
        let mut waiting = volumes;
        let mut pause = Duration::from_millis(200);
        while !waiting.is_empty() {
            let mut still = Vec::new();
            for target in waiting {
                let volume = self.cluster.find_json(&target.object.path()).await;
                let late = Instant::now() >= self.until;
                match volume {
                    Ok(None) => {}
                    Ok(Some(volume)) if volume["metadata"]["uid"] != target.uid.as_str() => {}
                    Ok(Some(volume))
                        if volume["spec"]["persistentVolumeReclaimPolicy"] == "Retain" || late =>
                    {
                        let policy = volume["spec"]["persistentVolumeReclaimPolicy"].as_str();
                        self.removed.left.push(Left {
                            object: target.object,
                            why: format!(
                                "reclaim policy {}; its provisioner or its owner must remove it",
                                policy.unwrap_or("unknown")
                            ),
                        });
                    }
                    Err(e) if late => self.removed.left.push(Left {
                        object: target.object,
                        why: e.to_string(),
                    }),
                    Ok(Some(_)) | Err(_) => still.push(target),
                }
            }
            waiting = still;
            if let Some(first) = waiting.first() {
                (self.options.progress)(waiting.len(), &first.object);
                sleep(pause).await;
                pause = (pause * 2).min(Duration::from_secs(2));
            }
        }
    }
}

fn pod_ref(namespace: &str, pod: &Value) -> ObjectRef {
    ObjectRef {
        version: "v1".into(),
        resource: "pods".into(),
        namespace: namespace.into(),
        name: pod["metadata"]["name"].as_str().unwrap_or_default().into(),
        ..ObjectRef::default()
    }
}

enum Presence {
    Gone,
    /// Still there, and why as far as one can see.
    There(String),
}

async fn presence(cluster: &Cluster, target: &Target) -> Result<Presence, ApiError> {
    let Some(present) = cluster.find_json(&target.object.path()).await? else {
        return Ok(Presence::Gone);
    };
    if present["metadata"]["uid"] != target.uid.as_str() {
        return Ok(Presence::Gone);
    }
    Ok(Presence::There(why_there(&present)))
}

/// Finalizers and, for a namespace, what it still holds.
fn why_there(object: &Value) -> String {
    let words = |list: &Value| -> Vec<String> {
        list.as_array()
            .into_iter()
            .flatten()
            .filter_map(|word| word.as_str().map(str::to_owned))
            .collect()
    };
    let mut why = words(&object["metadata"]["finalizers"]);
    if !why.is_empty() {
        why = vec![format!("finalizers {}", why.join(", "))];
    }
    for condition in object["status"]["conditions"]
        .as_array()
        .into_iter()
        .flatten()
    {
        let kind = condition["type"].as_str().unwrap_or_default();
        if kind.starts_with("Namespace") && condition["status"] == "True" {
            why.push(condition["message"].as_str().unwrap_or(kind).to_owned());
        }
    }
    if why.is_empty() {
        why.push(if object["metadata"]["deletionTimestamp"].is_string() {
            "is being deleted".to_owned()
        } else {
            "was not deleted".to_owned()
        });
    }
    why.join("; ")
}

/// Deletes one object if it still has this uid. An object that is gone or another one is fine.
async fn delete(
    cluster: &Cluster,
    object: &ObjectRef,
    uid: &str,
    grace: Option<u64>,
) -> Result<(), ApiError> {
    if uid.is_empty() {
        // An empty precondition would mean: whatever stands there.
        return Err(ApiError::NotJson {
            path: object.path(),
            cause: "the object has no uid".to_owned(),
        });
    }
    let mut options = json!({
        "apiVersion": "v1", "kind": "DeleteOptions",
        "preconditions": {"uid": uid}, "propagationPolicy": "Background",
    });
    if let Some(grace) = grace {
        options["gracePeriodSeconds"] = grace.into();
    }
    let request = Request::with_body(
        Method::Delete,
        object.path(),
        options.to_string().into_bytes(),
    );
    let mut tries = 0;
    loop {
        tries += 1;
        match cluster.send_json(&request).await {
            Ok(_) => return Ok(()),
            // A conflict is either another uid or an end that is already under way; looking tells which.
            Err(e) if e.is_not_found() || e.is_conflict() => return Ok(()),
            // Deleting the same uid twice does no harm, so here a lost answer may be repeated.
            Err(e) if e.code().is_none_or(|code| code >= 500) && tries < 4 => {
                sleep(Duration::from_millis(200) * tries).await;
            }
            Err(e) => return Err(e),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn object(group: &str, resource: &str, namespace: &str) -> ObjectRef {
        ObjectRef {
            group: group.into(),
            version: "v1".into(),
            resource: resource.into(),
            namespace: namespace.into(),
            name: "x".into(),
        }
    }

    #[test]
    fn nothing_is_removed_before_what_depends_on_it() {
        let order = [
            object(
                "admissionregistration.k8s.io",
                "validatingadmissionpolicybindings",
                "",
            ),
            object(
                "admissionregistration.k8s.io",
                "validatingadmissionpolicies",
                "",
            ),
            object("apps", "deployments", "ns"),
            object("", "pods", "ns"),
            object("resource.k8s.io", "resourceclaims", "ns"),
            object("", "services", "ns"),
            object("resource.k8s.io", "deviceclasses", ""),
            object("", "namespaces", ""),
        ];
        let ranks: Vec<_> = order.iter().map(rank).collect();
        assert_eq!(ranks, [0, 1, 2, 3, 4, 5, 6, 7]);
        assert_eq!(rank(&object("jobset.x-k8s.io", "jobsets", "ns")), 2);
        assert_eq!(
            rank(&object("networking.k8s.io", "networkpolicies", "ns")),
            5
        );
        assert_eq!(rank(&object("kueue.x-k8s.io", "clusterqueues", "")), 6);
    }

    #[test]
    fn what_remains_says_why() {
        let namespace = json!({
            "metadata": {"deletionTimestamp": "t"},
            "status": {"conditions": [
                {"type": "NamespaceFinalizersRemaining", "status": "True", "message": "Some content has finalizers: example.com/hold in 1 resource"},
                {"type": "NamespaceContentRemaining", "status": "False", "message": "none"},
            ]},
        });
        assert_eq!(
            why_there(&namespace),
            "Some content has finalizers: example.com/hold in 1 resource"
        );
        assert_eq!(
            why_there(&json!({"metadata": {"finalizers": ["a/b", "c/d"]}})),
            "finalizers a/b, c/d"
        );
        assert_eq!(why_there(&json!({"metadata": {}})), "was not deleted");
    }
}
