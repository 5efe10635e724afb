//! Groups for the fake cluster: the Workload API, and a scheduler that obeys it or not.
//!
//! Pods that are bound run at once. It is a test double: what a real scheduler does is tested against a real one.

use super::FakeCluster;
use crate::inventory::{self, requested};
use crate::{Object, json};

/// Serves Workload and PodGroup in these versions, newest first, beside PriorityClass in `v1`.
pub fn install(cluster: &mut FakeCluster, versions: &[&str]) {
    let group = "scheduling.k8s.io";
    cluster.serve(
        group,
        &["v1"],
        "priorityclasses",
        "PriorityClass",
        false,
        &[],
    );
    // Requests of extended resources are their limits, as an API server fills them in.
    cluster.admit("pods", |_, pod| {
        let resources = &mut pod["spec"]["containers"][0]["resources"];
        let limits = resources["limits"].clone();
        for (name, amount) in limits.as_object().into_iter().flatten() {
            resources["requests"][name] = amount.clone();
        }
    });
    if !versions.is_empty() {
        cluster.serve(group, versions, "workloads", "Workload", true, &[]);
        cluster.serve(group, versions, "podgroups", "PodGroup", true, &["status"]);
    }
}

/// Adds a Ready, played node with units of an extended resource.
pub fn node(cluster: &mut FakeCluster, name: &str, resource: &str, units: u32) {
    let mut allocatable = json!({"cpu": "16", "memory": "64Gi", "pods": "110"});
    if units > 0 {
        allocatable[resource] = json!(units.to_string());
    }
    cluster.put(json!({
        "apiVersion": "v1", "kind": "Node",
        "metadata": {"name": name, "annotations": {"kwok.x-k8s.io/node": "fake"}, "labels": {"kubernetes.io/hostname": name}},
        "spec": {"taints": [{"key": "vendor.example/gpu", "effect": "NoSchedule"}]},
        "status": {"conditions": [{"type": "Ready", "status": "True"}], "allocatable": allocatable, "nodeInfo": {"kubeletVersion": "v1.37.0-played"}},
    }));
}

/// A scheduler. Default: as it should be.
#[derive(Clone, Copy, Debug)]
pub struct Scheduler {
    /// Pods of a group are scheduled like all others, one by one.
    pub ignores_groups: bool,
    /// Starts as many pods of a group as fit, once the group is there.
    pub starts_in_part: bool,
    /// Does not say what it decided.
    pub is_silent: bool,
    /// Pays no heed to topology constraints.
    pub ignores_topology: bool,
    /// Type of the condition that it writes.
    pub condition: &'static str,
}

impl Default for Scheduler {
    fn default() -> Self {
        Scheduler {
            ignores_groups: false,
            starts_in_part: false,
            is_silent: false,
            ignores_topology: false,
            condition: "PodGroupInitiallyScheduled",
        }
    }
}

/// What a node still has, by the resources that a pod may ask for.
struct Free {
    node: inventory::Node,
    pods: Vec<Object>,
}

impl Free {
    fn takes(&self, pod: &Object) -> bool {
        let mut resources = vec!["cpu", "memory"];
        resources.extend(self.node.extended_resources());
        let enough = resources.iter().all(|resource| {
            inventory::free(&self.node, &self.pods, resource) >= requested(pod, resource)
        });
        let asked = pod.at("/spec/containers/0/resources/limits").as_object();
        let known = asked
            .into_iter()
            .flatten()
            .all(|(name, _)| self.node.allocatable(name) > 0);
        let tolerated = self.node.taints.iter().all(|key| {
            pod.items("/spec/tolerations")
                .iter()
                .any(|one| one["key"] == **key || one["key"].is_null())
        });
        let terms = pod.items("/spec/affinity/nodeAffinity/requiredDuringSchedulingIgnoredDuringExecution/nodeSelectorTerms");
        let wanted = terms.is_empty()
            || terms
                .iter()
                .any(|term| term["matchFields"][0]["values"][0] == self.node.name);
        enough && known && tolerated && wanted
    }
}

fn is_waiting(pod: &Object) -> bool {
    pod.text("/spec/nodeName").is_empty()
        && pod.at("/metadata/deletionTimestamp").is_null()
        && pod.items("/spec/schedulingGates").is_empty()
}

impl Scheduler {
    /// Starts it.
    pub fn start(self, cluster: &mut FakeCluster) {
        cluster.controller(move |cluster| self.work(cluster));
    }

    fn work(self, cluster: &mut FakeCluster) {
        let group_of = |pod: &Object| pod.text("/spec/schedulingGroup/podGroupName").to_owned();
        let waiting = pods(cluster).into_iter().filter(is_waiting);
        let (single, members): (Vec<Object>, Vec<Object>) =
            waiting.partition(|pod| self.ignores_groups || group_of(pod).is_empty());
        for pod in &single {
            if let Some(node) = place(&free(cluster), std::slice::from_ref(pod)).pop() {
                bind(cluster, pod, &node);
            }
        }
        if self.ignores_groups {
            return;
        }
        for group in cluster.objects("podgroups") {
            let group = Object::new(group);
            let waiting: Vec<Object> = members
                .iter()
                .filter(|pod| pod.namespace() == group.namespace() && group_of(pod) == group.name())
                .cloned()
                .collect();
            self.group(cluster, &group, &waiting);
        }
    }

    fn group(self, cluster: &mut FakeCluster, group: &Object, waiting: &[Object]) {
        let least = group
            .at("/spec/schedulingPolicy/gang/minCount")
            .as_u64()
            .unwrap_or(1);
        let already = pods(cluster)
            .iter()
            .filter(|pod| {
                pod.namespace() == group.namespace()
                    && pod.text("/spec/schedulingGroup/podGroupName") == group.name()
                    && !pod.text("/spec/nodeName").is_empty()
            })
            .count() as u64;
        if waiting.is_empty() || already + (waiting.len() as u64) < least {
            return;
        }
        let everywhere = free(cluster);
        let one_domain = !self.ignores_topology
            && !group
                .items("/spec/schedulingConstraints/topology")
                .is_empty();
        let placed = if one_domain {
            everywhere
                .iter()
                .map(|node| place(std::slice::from_ref(node), waiting))
                .max_by_key(Vec::len)
                .unwrap_or_default()
        } else {
            place(&everywhere, waiting)
        };
        let enough = already + placed.len() as u64 >= least;
        if enough || self.starts_in_part {
            for (pod, node) in waiting.iter().zip(&placed) {
                bind(cluster, pod, node);
            }
        }
        if self.is_silent {
            return;
        }
        let (status, reason) = if enough {
            ("True", "Scheduled")
        } else {
            ("False", "Unschedulable")
        };
        let message = format!("minCount ({least}), {} placed", placed.len());
        cluster.change("podgroups", group.namespace(), group.name(), |group| {
            group["status"]["conditions"] = json!([{"type": self.condition, "status": status, "reason": reason, "message": message}]);
        });
    }
}

fn pods(cluster: &FakeCluster) -> Vec<Object> {
    cluster
        .objects("pods")
        .into_iter()
        .map(Object::new)
        .collect()
}

fn free(cluster: &FakeCluster) -> Vec<Free> {
    let nodes = cluster.objects("nodes").into_iter().map(Object::new);
    nodes
        .filter_map(|node| inventory::usable(&node))
        .map(|node| Free {
            pods: pods(cluster)
                .into_iter()
                .filter(|pod| pod.text("/spec/nodeName") == node.name && !inventory::has_ended(pod))
                .collect(),
            node,
        })
        .collect()
}

/// Nodes for as many of the pods as fit, in their order.
fn place(nodes: &[Free], waiting: &[Object]) -> Vec<String> {
    let mut nodes: Vec<Free> = nodes
        .iter()
        .map(|free| Free {
            node: free.node.clone(),
            pods: free.pods.clone(),
        })
        .collect();
    let mut placed = Vec::new();
    for pod in waiting {
        let Some(free) = nodes.iter_mut().find(|free| free.takes(pod)) else {
            break;
        };
        placed.push(free.node.name.clone());
        free.pods.push(pod.clone());
    }
    placed
}

fn bind(cluster: &mut FakeCluster, pod: &Object, node: &str) {
    cluster.change("pods", pod.namespace(), pod.name(), |pod| {
        pod["spec"]["nodeName"] = json!(node);
        pod["status"] =
            json!({"phase": "Running", "conditions": [{"type": "PodScheduled", "status": "True"}]});
    });
}
