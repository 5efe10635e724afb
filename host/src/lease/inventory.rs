//! Which nodes a cluster has for leases, which accelerator units they have, and who holds them.
//!
//! Read with the engine's own client, since no probe's permissions decide what others may have. A node counts when it is
//! Ready, schedulable and has no taint that says it is not for workloads. Units are extended resources of a foreign domain, and DRA
//! devices of complete pools in their newest generation that belong to one node; devices that several nodes reach belong to none
//! and are not counted. Pods and claims of this run are not subtracted: the arbiter knows what it gave to whom.

use crate::cluster::{ApiError, Cluster, encode};
use crate::gate::is_played;
use crate::names::sandbox_prefix;
use serde_json::Value;
use std::collections::{BTreeMap, BTreeSet};

mod quantity;
#[cfg(test)]
mod tests;

pub(super) use quantity::milli;

/// Nodes of a page, pods of a page: a pod has some kilobytes, so a page is held in memory and the list is not.
const PAGE: u32 = 500;
/// How often a list that expired half way is begun anew.
const RESTARTS: u32 = 3;
/// Taints that no pod of a probe tolerates: they say that the node is not for it, or not well.
const NOT_TOLERATED: [&str; 2] = ["node.kubernetes.io/", "node-role.kubernetes.io/"];
/// Versions of the DRA API, newest first.
const DRA: [&str; 3] = ["v1", "v1beta2", "v1beta1"];
/// Pods that did not end; the others hold nothing.
const LIVING: &str = "status.phase!=Succeeded,status.phase!=Failed";

/// A node and what is on it.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(super) struct Node {
    pub(super) uid: String,
    /// Ready, schedulable and for workloads.
    pub(super) usable: bool,
    /// A simulator plays it: no container runs there.
    pub(super) played: bool,
    /// Those of its labels that a [`super::NodeChoice`] names.
    pub(super) labels: BTreeMap<String, String>,
    /// Keys of the taints that pods must tolerate.
    pub(super) taints: BTreeSet<String>,
    /// What pods may request: `cpu` and extended resources in thousandths, `memory` in thousandths of a byte.
    pub(super) allocatable: BTreeMap<String, u64>,
    /// What all pods there request, in the same units.
    pub(super) requested: BTreeMap<String, u64>,
    /// Pods that did not end.
    pub(super) pods: u64,
    /// uids of pods that are not of this run.
    pub(super) foreign: BTreeSet<String>,
    /// Namespaces of this run with pods here, each with their uids.
    pub(super) own: BTreeMap<String, BTreeSet<String>>,
    /// Namespaces of this run whose pods or claims hold units here. A claim outlives its pod for a moment.
    pub(super) holding: BTreeSet<String>,
    /// Extended resources that pods of others request.
    foreign_requested: BTreeMap<String, u64>,
    /// DRA devices by driver.
    devices: BTreeMap<String, Devices>,
}

/// How many DRA devices of one driver a node has.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
struct Devices {
    all: u64,
    /// Held by claims of others.
    theirs: u64,
    /// Held by claims of others and of this run at one time: booked twice, which is nobody's taking.
    twice: u64,
}

impl Node {
    /// Units by kind that nobody outside of this run holds.
    pub(super) fn units(&self) -> BTreeMap<String, u64> {
        let mut units: BTreeMap<String, u64> = self
            .allocatable
            .iter()
            .filter(|(resource, _)| is_extended(resource))
            .map(|(resource, all)| {
                let theirs = self.foreign_requested.get(resource).copied();
                (
                    resource.clone(),
                    all.saturating_sub(theirs.unwrap_or_default()) / 1000,
                )
            })
            .collect();
        for (driver, devices) in &self.devices {
            *units.entry(driver.clone()).or_default() += devices.all.saturating_sub(devices.theirs);
        }
        units.retain(|_, free| *free > 0);
        units
    }

    /// Units by kind that others hold.
    fn taken(&self) -> BTreeMap<String, u64> {
        let mut taken: BTreeMap<String, u64> = self
            .foreign_requested
            .iter()
            .map(|(resource, amount)| (resource.clone(), amount / 1000))
            .collect();
        for (driver, devices) in &self.devices {
            *taken.entry(driver.clone()).or_default() += devices.theirs - devices.twice;
        }
        taken
    }

    /// What of a resource pods can still request, in the units of [`Node::allocatable`].
    pub(super) fn left(&self, resource: &str) -> u64 {
        let of = |map: &BTreeMap<String, u64>| map.get(resource).copied().unwrap_or_default();
        of(&self.allocatable).saturating_sub(of(&self.requested))
    }

    fn has_devices(&self) -> bool {
        !self.devices.is_empty()
    }
}

/// Whether a resource is of somebody else's domain, and so of a device plugin.
fn is_extended(resource: &str) -> bool {
    resource
        .split_once('/')
        .is_some_and(|(domain, _)| domain != "kubernetes.io" && !domain.ends_with(".kubernetes.io"))
}

/// What is read, and for whom.
pub(super) struct Scope<'a> {
    pub(super) cluster: &'a Cluster,
    /// Id of the run: its pods are not somebody else's.
    pub(super) run: &'a str,
    /// Keys of the labels that count.
    pub(super) labels: BTreeSet<String>,
}

/// Reads everything.
pub(super) async fn read(scope: &Scope<'_>) -> Result<BTreeMap<String, Node>, ApiError> {
    let Scope {
        cluster,
        run,
        labels,
    } = scope;
    let mut nodes = BTreeMap::new();
    each(cluster, "/api/v1/nodes", "", |object| {
        if let Some((name, node)) = node(object, labels) {
            nodes.insert(name, node);
        }
    })
    .await?;
    let living = format!("fieldSelector={}", encode(LIVING));
    each(cluster, "/api/v1/pods", &living, |pod| {
        let node = text(&pod["spec"]["nodeName"]);
        if let Some(node) = nodes.get_mut(node) {
            count_pod(node, pod, run);
        }
    })
    .await?;
    let mut pools = Pools::default();
    if let Some(version) = dra(cluster, "resourceslices", "", |slice| pools.add(slice)).await? {
        let mut taken = Taken::default();
        let path = format!("/apis/resource.k8s.io/{version}/resourceclaims");
        each(cluster, &path, "", |claim| taken.add(claim, run)).await?;
        pools.count(&taken, &mut nodes);
    }
    Ok(nodes)
}

/// How many nodes are usable.
pub(super) async fn count(cluster: &Cluster) -> Result<u64, ApiError> {
    let mut usable = BTreeSet::new();
    each(cluster, "/api/v1/nodes", "", |object| {
        if let Some((name, node)) = node(object, &BTreeSet::new())
            && node.usable
        {
            usable.insert(name);
        }
    })
    .await?;
    Ok(usable.len() as u64)
}

/// Reads some nodes again. One that is gone is left out.
pub(super) async fn refresh(
    scope: &Scope<'_>,
    known: &BTreeMap<String, Node>,
) -> Result<BTreeMap<String, Node>, ApiError> {
    let Scope {
        cluster,
        run,
        labels,
    } = scope;
    let mut nodes = BTreeMap::new();
    for name in known.keys() {
        let path = format!("/api/v1/nodes/{}", encode(name));
        let Some(object) = cluster.find_json(&path).await? else {
            continue;
        };
        let Some((name, mut fresh)) = node(&object, labels) else {
            continue;
        };
        let selector = encode(&format!("spec.nodeName={name},{LIVING}"));
        let query = format!("fieldSelector={selector}");
        each(cluster, "/api/v1/pods", &query, |pod| {
            count_pod(&mut fresh, pod, run)
        })
        .await?;
        nodes.insert(name, fresh);
    }
    let with_devices: Vec<&String> = known
        .iter()
        .filter(|(name, node)| node.has_devices() && nodes.contains_key(*name))
        .map(|(name, _)| name)
        .collect();
    if with_devices.is_empty() {
        return Ok(nodes);
    }
    let mut pools = Pools::default();
    let mut version = None;
    for name in &with_devices {
        let query = format!("fieldSelector={}", encode(&format!("spec.nodeName={name}")));
        version = dra(cluster, "resourceslices", &query, |slice| pools.add(slice)).await?;
    }
    if pools.any_incomplete() {
        // A pool may have slices of several nodes; only all of them tell whether it is complete.
        pools = Pools::default();
        version = dra(cluster, "resourceslices", "", |slice| pools.add(slice)).await?;
    }
    if let Some(version) = version {
        let mut taken = Taken::default();
        let path = format!("/apis/resource.k8s.io/{version}/resourceclaims");
        each(cluster, &path, "", |claim| taken.add(claim, run)).await?;
        pools.count(&taken, &mut nodes);
    }
    Ok(nodes)
}

/// Lists a resource of the newest DRA version that is served, and gives that version; none where there is no DRA.
async fn dra(
    cluster: &Cluster,
    resource: &str,
    query: &str,
    mut take: impl FnMut(&Value),
) -> Result<Option<&'static str>, ApiError> {
    for version in DRA {
        let path = format!("/apis/resource.k8s.io/{version}/{resource}");
        match each(cluster, &path, query, &mut take).await {
            Ok(()) => return Ok(Some(version)),
            Err(error) if error.is_not_found() => {}
            Err(error) => return Err(error),
        }
    }
    Ok(None)
}

/// Lists page by page. A list that expired half way is begun anew, so `take` may see an object twice.
async fn each(
    cluster: &Cluster,
    path: &str,
    query: &str,
    mut take: impl FnMut(&Value),
) -> Result<(), ApiError> {
    let mut next = String::new();
    let mut restarts = 0;
    loop {
        let mut address = format!("{path}?limit={PAGE}");
        for (key, value) in [("", query), ("continue=", next.as_str())] {
            if !value.is_empty() {
                address.push('&');
                address.push_str(key);
                address.push_str(value);
            }
        }
        let page = match cluster.get_json(&address).await {
            Ok(page) => page,
            Err(error) if error.code() == Some(410) && !next.is_empty() && restarts < RESTARTS => {
                restarts += 1;
                next.clear();
                continue;
            }
            Err(error) => return Err(error),
        };
        for item in list(&page["items"]) {
            take(item);
        }
        match page["metadata"]["continue"].as_str() {
            Some(token) if !token.is_empty() => next = encode(token),
            _ => return Ok(()),
        }
    }
}

fn list(value: &Value) -> &[Value] {
    value.as_array().map_or(&[], Vec::as_slice)
}

fn text(value: &Value) -> &str {
    value.as_str().unwrap_or_default()
}

fn amounts(value: &Value) -> BTreeMap<String, u64> {
    let map = value.as_object().into_iter().flatten();
    map.filter_map(|(resource, amount)| Some((resource.clone(), milli(amount.as_str()?)?)))
        .collect()
}

/// A node as the API tells it, with those of its labels that have these keys.
fn node(object: &Value, labels: &BTreeSet<String>) -> Option<(String, Node)> {
    let name = text(&object["metadata"]["name"]);
    if name.is_empty() {
        return None;
    }
    let ready = list(&object["status"]["conditions"])
        .iter()
        .any(|condition| condition["type"] == "Ready" && condition["status"] == "True");
    let taints: BTreeSet<String> = list(&object["spec"]["taints"])
        .iter()
        .filter(|taint| taint["effect"] != "PreferNoSchedule")
        .map(|taint| text(&taint["key"]).to_owned())
        .collect();
    let refused = taints
        .iter()
        .any(|key| NOT_TOLERATED.iter().any(|prefix| key.starts_with(prefix)));
    let going = object["metadata"]["deletionTimestamp"].is_string();
    let node = Node {
        uid: text(&object["metadata"]["uid"]).to_owned(),
        played: is_played(object),
        labels: labels
            .iter()
            .filter_map(|key| {
                let value = object["metadata"]["labels"][key].as_str()?;
                Some((key.clone(), value.to_owned()))
            })
            .collect(),
        usable: ready && !going && object["spec"]["unschedulable"] != true && !refused,
        taints,
        allocatable: amounts(&object["status"]["allocatable"]),
        ..Node::default()
    };
    Some((name.to_owned(), node))
}

/// Adds what a pod holds. Seen twice, it is counted once.
fn count_pod(node: &mut Node, pod: &Value, run: &str) {
    if matches!(text(&pod["status"]["phase"]), "Succeeded" | "Failed") {
        return;
    }
    let uid = text(&pod["metadata"]["uid"]).to_owned();
    let namespace = text(&pod["metadata"]["namespace"]);
    let ours = is_ours(namespace, run);
    let new = if ours {
        node.own
            .entry(namespace.to_owned())
            .or_default()
            .insert(uid)
    } else {
        node.foreign.insert(uid)
    };
    if !new {
        return;
    }
    node.pods += 1;
    for (resource, amount) in requests(&pod["spec"]) {
        if ours && is_extended(&resource) {
            node.holding.insert(namespace.to_owned());
        } else if is_extended(&resource) {
            *node.foreign_requested.entry(resource.clone()).or_default() += amount;
        }
        *node.requested.entry(resource).or_default() += amount;
    }
}

/// Whether a namespace is one that this run made: its names hold the run id, which was drawn at random.
fn is_ours(namespace: &str, run: &str) -> bool {
    namespace
        .strip_prefix("karat-")
        .and_then(|rest| rest.strip_prefix(run))
        .is_some_and(|rest| rest.starts_with('-'))
}

/// What the scheduler reckons for a pod: the sum of its containers and sidecars, or a larger init container, and overhead.
fn requests(spec: &Value) -> BTreeMap<String, u64> {
    let of = |container: &Value| {
        let mut asked = amounts(&container["resources"]["limits"]);
        asked.extend(amounts(&container["resources"]["requests"]));
        asked
    };
    let add = |sum: &mut BTreeMap<String, u64>, more: &BTreeMap<String, u64>| {
        for (resource, amount) in more {
            let entry = sum.entry(resource.clone()).or_default();
            *entry = entry.saturating_add(*amount);
        }
    };
    let mut total = BTreeMap::new();
    for container in list(&spec["containers"]) {
        add(&mut total, &of(container));
    }
    let mut sidecars: BTreeMap<String, u64> = BTreeMap::new();
    let mut peak: BTreeMap<String, u64> = BTreeMap::new();
    for container in list(&spec["initContainers"]) {
        let own = of(container);
        let mut now = sidecars.clone();
        add(&mut now, &own);
        if container["restartPolicy"] == "Always" {
            sidecars = now.clone();
        }
        for (resource, amount) in now {
            let entry = peak.entry(resource).or_default();
            *entry = (*entry).max(amount);
        }
    }
    add(&mut total, &sidecars);
    for (resource, amount) in peak {
        let entry = total.entry(resource).or_default();
        *entry = (*entry).max(amount);
    }
    // Requests of the whole pod count instead of those of its containers.
    total.extend(amounts(&spec["resources"]["requests"]));
    add(&mut total, &amounts(&spec["overhead"]));
    total
}

/// Driver, pool, device.
type Key = (String, String, String);

/// Devices that claims hold.
#[derive(Debug, Default)]
struct Taken {
    theirs: BTreeSet<Key>,
    /// Each with the namespace of its claim.
    ours: BTreeMap<Key, String>,
}

impl Taken {
    fn add(&mut self, claim: &Value, run: &str) {
        let namespace = text(&claim["metadata"]["namespace"]);
        let ours = is_ours(namespace, run);
        for result in list(&claim["status"]["allocation"]["devices"]["results"]) {
            // Access for an administrator takes the device from nobody.
            if result["adminAccess"] != true {
                let part = |key: &str| text(&result[key]).to_owned();
                let key = (part("driver"), part("pool"), part("device"));
                if ours {
                    self.ours.insert(key, namespace.to_owned());
                } else {
                    self.theirs.insert(key);
                }
            }
        }
    }
}

/// Slices by driver and pool.
#[derive(Debug, Default)]
struct Pools(BTreeMap<(String, String), Pool>);

/// The slices of the newest generation seen so far.
#[derive(Debug, Default)]
struct Pool {
    generation: u64,
    declared: BTreeSet<u64>,
    /// Slices by name, each with its devices and their nodes.
    slices: BTreeMap<String, Vec<(String, String)>>,
}

impl Pool {
    fn is_complete(&self) -> bool {
        self.declared.len() == 1 && self.declared.contains(&(self.slices.len() as u64))
    }
}

impl Pools {
    fn add(&mut self, slice: &Value) {
        let spec = &slice["spec"];
        let key = (
            text(&spec["driver"]).to_owned(),
            text(&spec["pool"]["name"]).to_owned(),
        );
        let generation = spec["pool"]["generation"].as_u64().unwrap_or_default();
        let pool = self.0.entry(key).or_default();
        if generation < pool.generation {
            return;
        }
        if generation > pool.generation {
            *pool = Pool::default();
            pool.generation = generation;
        }
        let count = spec["pool"]["resourceSliceCount"].as_u64();
        pool.declared.insert(count.unwrap_or_default());
        let devices = list(&spec["devices"])
            .iter()
            .filter_map(|device| {
                // Versions before v1beta2 keep everything but the name below `basic`.
                let body = if device["basic"].is_object() {
                    &device["basic"]
                } else {
                    device
                };
                let tainted = list(&body["taints"])
                    .iter()
                    .any(|taint| matches!(text(&taint["effect"]), "NoSchedule" | "NoExecute"));
                let node = match text(&spec["nodeName"]) {
                    "" => text(&body["nodeName"]),
                    node => node,
                };
                let usable = !tainted && !node.is_empty();
                usable.then(|| (text(&device["name"]).to_owned(), node.to_owned()))
            })
            .collect();
        pool.slices
            .insert(text(&slice["metadata"]["name"]).to_owned(), devices);
    }

    fn any_incomplete(&self) -> bool {
        self.0.values().any(|pool| !pool.is_complete())
    }

    fn count(&self, taken: &Taken, nodes: &mut BTreeMap<String, Node>) {
        for ((driver, pool), slices) in &self.0 {
            if !slices.is_complete() {
                continue;
            }
            for (device, node) in slices.slices.values().flatten() {
                let Some(node) = nodes.get_mut(node) else {
                    continue;
                };
                let key = (driver.clone(), pool.clone(), device.clone());
                let devices = node.devices.entry(driver.clone()).or_default();
                let (theirs, ours) = (taken.theirs.contains(&key), taken.ours.get(&key));
                devices.all += 1;
                devices.theirs += u64::from(theirs);
                devices.twice += u64::from(theirs && ours.is_some());
                node.holding.extend(ours.cloned());
            }
        }
    }
}

/// What others changed on nodes, in words; nothing when nothing did. `alone` are nodes that nobody but `probe` may use: there
/// pods of others count, those of the run included.
pub(super) fn changes(
    before: &BTreeMap<String, Node>,
    after: &BTreeMap<String, Node>,
    run: &str,
    probe: &str,
    alone: impl Fn(&str) -> bool,
) -> Vec<String> {
    let home = sandbox_prefix(run, probe);
    let mut counts = [0_u64; 8];
    let [came, went, taken, back, sick, gone, capacity, moved] = &mut counts;
    for (name, then) in before {
        let Some(now) = after.get(name).filter(|now| now.uid == then.uid) else {
            *gone += 1;
            continue;
        };
        let others = |node: &Node| -> BTreeSet<String> {
            // Whoever shares a node expects pods of others.
            if !alone(name) {
                return BTreeSet::new();
            }
            let mut pods = node.foreign.clone();
            let rest = node
                .own
                .iter()
                .filter(|(namespace, _)| !namespace.starts_with(&home));
            pods.extend(rest.flat_map(|(_, uids)| uids.iter().cloned()));
            pods
        };
        let (pods_then, pods_now) = (others(then), others(now));
        *came += pods_now.difference(&pods_then).count() as u64;
        *went += pods_then.difference(&pods_now).count() as u64;
        // Not how many there are: units that vanish without anybody taking them are what some probes look for.
        let (units_then, units_now) = (then.taken(), now.taken());
        let kinds: BTreeSet<&String> = units_then.keys().chain(units_now.keys()).collect();
        for kind in kinds {
            let of = |units: &BTreeMap<String, u64>| units.get(kind).copied().unwrap_or_default();
            *taken += of(&units_now).saturating_sub(of(&units_then));
            *back += of(&units_then).saturating_sub(of(&units_now));
        }
        *sick += u64::from(then.usable && !now.usable);
        *moved += u64::from(then.taints != now.taints);
        let plain = |node: &Node| -> BTreeMap<String, u64> {
            let all = node
                .allocatable
                .iter()
                .filter(|(resource, _)| !is_extended(resource));
            all.map(|(resource, amount)| (resource.clone(), *amount))
                .collect()
        };
        *capacity += u64::from(plain(then) != plain(now));
    }
    let words = [
        ("pod of others came", "pods of others came"),
        ("pod of others went", "pods of others went"),
        ("unit taken by others", "units taken by others"),
        ("unit given back by others", "units given back by others"),
        (
            "node not ready or not schedulable",
            "nodes not ready or not schedulable",
        ),
        ("node gone", "nodes gone"),
        ("node with another capacity", "nodes with another capacity"),
        ("node with other taints", "nodes with other taints"),
    ];
    counts
        .into_iter()
        .zip(words)
        .filter(|(count, _)| *count > 0)
        .map(|(count, (one, many))| format!("{count} {}", if count == 1 { one } else { many }))
        .collect()
}
