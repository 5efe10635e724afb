//! What a cluster has for pods: nodes, devices, and what others hold of them.
//!
//! One read, compared before and after: who counts units while other tenants come and go must count again before it accuses
//! ([`crate::Reason::CompetingWorkload`]). A node counts when a pod of a probe may run there: Ready, schedulable, without taints that
//! say that it is not for workloads. Devices of drivers are in [`devices`], pods whose node does not get an image in `images`.

pub mod devices;
mod images;
mod quantity;

pub use images::{all_pulled, pulled};
pub use quantity::milli;

use crate::{Conclusion, Object, Query, Reason, Result, Value};

/// Taints that no pod of a probe tolerates: they say that the node is not for it, or not well.
const NOT_TOLERATED: [&str; 2] = ["node.kubernetes.io/", "node-role.kubernetes.io/"];
/// Annotation of nodes that kwok plays.
pub(crate) const PLAYED: &str = "kwok.x-k8s.io/node";

/// A node on which a pod of a probe may run.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct Node {
    /// Its name, a pseudonym like everywhere.
    pub name: String,
    /// Its uid.
    pub uid: String,
    /// Its labels.
    pub labels: Value,
    /// Keys of the taints that a pod must tolerate.
    pub taints: Vec<String>,
    /// Version of its kubelet.
    pub kubelet: String,
    /// Whether kwok plays it: pods there run without containers.
    pub played: bool,
    allocatable: Value,
}

impl Node {
    /// So much of a resource is there for pods, in thousandths: of a core, a byte, a device. Zero when the node does not have it.
    pub fn allocatable(&self, resource: &str) -> u64 {
        self.allocatable[resource]
            .as_str()
            .and_then(milli)
            .unwrap_or(0)
    }

    /// Resources beyond Kubernetes' own of which the node has some: the units of device plugins.
    pub fn extended_resources(&self) -> impl Iterator<Item = &str> {
        let all = self.allocatable.as_object();
        all.into_iter().flatten().filter_map(|(name, _)| {
            (is_extended(name) && self.allocatable(name) > 0).then_some(name.as_str())
        })
    }
}

/// Whether a resource is of somebody else's domain, and so of a device plugin.
pub fn is_extended(resource: &str) -> bool {
    resource
        .split_once('/')
        .is_some_and(|(domain, _)| domain != "kubernetes.io" && !domain.ends_with(".kubernetes.io"))
}

/// Ready nodes on which a pod of a probe may run.
///
/// # Errors
/// Those of the server and of the door.
pub fn nodes() -> Result<Vec<Node>> {
    let listed = Query::new("v1", "nodes")
        .keep(&[
            "/metadata/labels",
            "/metadata/annotations",
            "/spec/taints",
            "/spec/unschedulable",
            "/status/allocatable",
            "/status/conditions/*/type",
            "/status/conditions/*/status",
            "/status/nodeInfo/kubeletVersion",
        ])
        .list()?;
    Ok(listed.iter().filter_map(usable).collect())
}

/// The node, if a pod of a probe may run there.
pub fn usable(node: &Object) -> Option<Node> {
    let ready = node
        .condition("Ready")
        .is_some_and(|ready| ready.status == "True");
    let taints: Vec<&str> = node
        .items("/spec/taints")
        .iter()
        .filter(|taint| taint["effect"] != "PreferNoSchedule")
        .filter_map(|taint| taint["key"].as_str())
        .collect();
    let closed = taints
        .iter()
        .any(|key| NOT_TOLERATED.iter().any(|prefix| key.starts_with(prefix)));
    if !ready || closed || node.at("/spec/unschedulable") == true {
        return None;
    }
    Some(Node {
        name: node.name().to_owned(),
        uid: node.uid().to_owned(),
        labels: node.at("/metadata/labels").clone(),
        taints: taints.into_iter().map(str::to_owned).collect(),
        kubelet: node.text("/status/nodeInfo/kubeletVersion").to_owned(),
        played: !node.at("/metadata/annotations")[PLAYED].is_null(),
        allocatable: node.at("/status/allocatable").clone(),
    })
}

/// The pods that hold something of a node: bound to it and not ended.
///
/// # Errors
/// Those of the server and of the door.
pub fn pods_on(node: &str) -> Result<Vec<Object>> {
    let pods = on(node)
        .keep(&[
            "/metadata/deletionTimestamp",
            "/metadata/ownerReferences/*/kind",
            "/spec/nodeName",
            "/spec/priority",
            "/spec/overhead",
            "/spec/resources/requests",
            "/spec/containers/*/resources/requests",
            "/spec/initContainers/*/resources/requests",
            "/spec/initContainers/*/restartPolicy",
            "/status/phase",
        ])
        .list()?;
    Ok(pods.into_iter().filter(|pod| !has_ended(pod)).collect())
}

/// All pods bound to a node, of whatever namespace.
pub fn on(node: &str) -> Query {
    Query::new("v1", "pods").fields(format!("spec.nodeName={node}"))
}

/// Whether a pod holds nothing any more: it succeeded or failed.
pub fn has_ended(pod: &Object) -> bool {
    matches!(pod.text("/status/phase"), "Succeeded" | "Failed")
}

/// Why a container of a pod waits, `ImagePullBackOff`; empty while none does.
pub fn waiting(pod: &Object) -> &str {
    images::waiting(pod).0
}

/// What a pod that does not run for this word of [`waiting`] is worth.
pub fn reason_of(waiting: &str) -> Reason {
    if images::is_of_image(waiting) {
        Reason::ImageUnavailable
    } else {
        Reason::Deadline
    }
}

/// The last warning about a pod: what its node, or the scheduler, says. `events` of its namespace must be listable.
///
/// # Errors
/// Those of the server and of the door.
pub fn complaint(pod: &Object) -> Result<String> {
    let events = crate::admission::events_about(pod.namespace(), pod.uid())
        .keep(&["/type", "/reason", "/message"])
        .list()?;
    let mut warnings = events
        .iter()
        .filter(|event| event.text("/type") == "Warning");
    Ok(warnings.next_back().map_or_else(
        || "no event says why".to_owned(),
        |event| format!("{}: {}", event.text("/reason"), event.text("/message")),
    ))
}

/// What it is worth that a pod which a check needs does not run; never a fail, because that pods start is not what was asked.
pub fn not_running(pod: &Object, text: &str) -> Conclusion {
    if let Some(condition) = pod
        .condition("PodScheduled")
        .filter(|it| it.status == "False")
    {
        return Conclusion::unknown(
            Reason::InsufficientCapacity,
            format!("{text}: {}", condition.message),
        );
    }
    let (waiting, message) = images::waiting(pod);
    Conclusion::unknown(
        reason_of(waiting),
        format!("{text}: {} {waiting} {message}", pod.text("/status/phase")),
    )
}

/// What [`not_running`], [`pulled`], [`is_ready`] and [`crate::pods::reaches`] look at, with labels and owners; for [`Query::keep`].
pub const SEEN: &[&str] = &[
    "/metadata/labels",
    "/metadata/ownerReferences",
    "/metadata/deletionTimestamp",
    "/status/phase",
    "/status/podIP",
    "/status/conditions",
    "/status/containerStatuses/*/state/waiting",
    "/status/initContainerStatuses/*/state/waiting",
];

/// Whether a pod runs and its containers are ready, and nobody deletes it.
pub fn is_ready(pod: &Object) -> bool {
    let ready = pod.condition("Ready");
    ready.is_some_and(|ready| ready.status == "True")
        && pod.at("/metadata/deletionTimestamp").is_null()
}

/// What a pod takes of a resource as the scheduler counts it, in thousandths.
pub fn requested(pod: &Object, resource: &str) -> u64 {
    let of = |requests: &Value| requests[resource].as_str().and_then(milli).unwrap_or(0);
    let sum = |pointer: &str, counts: &dyn Fn(&Value) -> bool| -> u64 {
        let containers = pod.items(pointer).iter().filter(|one| counts(one));
        containers
            .map(|one| of(&one["resources"]["requests"]))
            .sum()
    };
    // A sidecar runs beside everything that starts after it; a plain init container runs alone.
    let sidecar = |one: &Value| one["restartPolicy"] == "Always";
    let running = sum("/spec/containers", &|_| true) + sum("/spec/initContainers", &sidecar);
    let mut before = 0;
    let mut starting = 0;
    for one in pod.items("/spec/initContainers") {
        let own = of(&one["resources"]["requests"]);
        starting = starting.max(before + own);
        if sidecar(one) {
            before += own;
        }
    }
    let whole = of(pod.at("/spec/resources/requests"));
    let containers = running.max(starting);
    (if whole > 0 { whole } else { containers }) + of(pod.at("/spec/overhead"))
}

/// What is free of a resource on a node, in thousandths.
pub fn free(node: &Node, pods: &[Object], resource: &str) -> u64 {
    let held: u64 = pods.iter().map(|pod| requested(pod, resource)).sum();
    node.allocatable(resource).saturating_sub(held)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::json;

    #[test]
    fn a_pod_takes_what_the_scheduler_counts() {
        let ask = |cpu: &str| json!({"resources": {"requests": {"cpu": cpu}}});
        let sidecar = json!({"restartPolicy": "Always", "resources": {"requests": {"cpu": "1"}}});
        let pod = |spec: Value| Object::new(json!({"spec": spec}));
        let taken = |spec: Value| requested(&pod(spec), "cpu");
        assert_eq!(taken(json!({"containers": [ask("500m"), ask("1")]})), 1500);
        assert_eq!(
            taken(json!({"containers": [ask("500m")], "initContainers": [ask("2")]})),
            2000
        );
        assert_eq!(
            taken(
                json!({"containers": [ask("500m")], "initContainers": [sidecar, ask("2")], "overhead": {"cpu": "250m"}})
            ),
            3250
        );
        assert_eq!(
            taken(json!({"resources": {"requests": {"cpu": "4"}}, "containers": [ask("1")]})),
            4000
        );
        assert_eq!(taken(json!({"containers": [{}]})), 0);
    }

    #[test]
    fn a_pod_that_does_not_run_says_why_and_one_that_goes_is_not_ready() {
        let pod = |status: Value| Object::new(json!({"kind": "Pod", "status": status}));
        let scheduled = |so: &str| json!({"type": "PodScheduled", "status": so, "message": "0/3"});
        for (status, reason) in [
            (
                json!({"conditions": [scheduled("False")]}),
                Reason::InsufficientCapacity,
            ),
            (
                json!({"conditions": [scheduled("True")], "containerStatuses": [{"state": {"waiting": {"reason": "ErrImagePull"}}}]}),
                Reason::ImageUnavailable,
            ),
            (json!({"phase": "Pending"}), Reason::Deadline),
        ] {
            assert!(
                matches!(not_running(&pod(status), "it"), Conclusion::Unknown(found, _) if found == reason)
            );
        }
        let mut ready = pod(json!({"conditions": [{"type": "Ready", "status": "True"}]}));
        assert!(is_ready(&ready));
        ready.value_mut()["metadata"]["deletionTimestamp"] = json!("2026-01-01T00:00:00Z");
        assert!(!is_ready(&ready));
    }

    #[test]
    fn nodes_that_are_not_for_probes_are_left_out() {
        let node = |spec: Value, ready: &str| {
            Object::new(json!({"metadata": {"name": "n"}, "spec": spec,
                "status": {"conditions": [{"type": "Ready", "status": ready}], "allocatable": {"cpu": "2", "example.com/gpu": "4", "hugepages-2Mi": "0"}}}))
        };
        let tainted = |key: &str| json!({"taints": [{"key": key, "effect": "NoSchedule"}]});
        assert!(usable(&node(json!({}), "False")).is_none());
        assert!(usable(&node(json!({"unschedulable": true}), "True")).is_none());
        assert!(
            usable(&node(
                tainted("node-role.kubernetes.io/control-plane"),
                "True"
            ))
            .is_none()
        );
        let found = usable(&node(tainted("example.com/gpu"), "True")).unwrap();
        assert_eq!(found.taints, ["example.com/gpu"]);
        assert_eq!(
            found.extended_resources().collect::<Vec<_>>(),
            ["example.com/gpu"]
        );
        assert_eq!(found.allocatable("cpu"), 2000);
    }
}
