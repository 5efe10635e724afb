//! Every branch of the probe on a fake cluster, whose scheduler can be told to misbehave.

use crate::{PriorityPreemption, manifest};
use karat_sdk::inventory::{self, requested};
use karat_sdk::testing::{self, FakeCluster, Run};
use karat_sdk::{Object, Reason, Value, json};
use std::time::Duration;

const REQUIRED: [&str; 6] = [
    "room",
    "classes",
    "filled",
    "never-waits",
    "preempts",
    "orderly",
];
const SPACE: &str = "karat-abcd2345-priority-preemption-main";
const GPU: &str = "vendor.example/gpu";

/// A scheduler with preemption, and a kubelet that ends pods after their grace period. Default: as they should be.
#[derive(Clone, Copy, Debug)]
struct Scheduler {
    preempts: bool,
    /// Displaces for pods that may not displace anybody, too.
    ignores_policy: bool,
    /// Takes pods of the same priority first.
    takes_equals: bool,
    victims: usize,
    marks: bool,
    grace: Option<i64>,
    /// Removes victims without the time to end.
    at_once: bool,
    /// Takes pods of others first.
    takes_foreign: bool,
    /// Somebody else gets what becomes free.
    thief: bool,
    is_down: bool,
}

impl Default for Scheduler {
    fn default() -> Self {
        Scheduler {
            preempts: true,
            ignores_policy: false,
            takes_equals: false,
            victims: 1,
            marks: true,
            grace: None,
            at_once: false,
            takes_foreign: false,
            thief: false,
            is_down: false,
        }
    }
}

fn text<'a>(pod: &'a Value, pointer: &str) -> &'a str {
    pod.pointer(pointer)
        .and_then(Value::as_str)
        .unwrap_or_default()
}

fn asks(pod: &Value, resource: &str) -> u64 {
    requested(&Object::new(pod.clone()), resource)
}

fn priority(pod: &Value) -> i64 {
    pod["spec"]["priority"].as_i64().unwrap_or(0)
}

impl Scheduler {
    fn work(self, cluster: &mut FakeCluster, resource: &str) {
        let pods = cluster.objects("pods");
        for pod in &pods {
            if self.is_down
                || !text(pod, "/spec/nodeName").is_empty()
                || pod["metadata"]["deletionTimestamp"].is_string()
            {
                continue;
            }
            let pods = cluster.objects("pods");
            let bound: Vec<&Value> = pods
                .iter()
                .filter(|other| text(other, "/spec/nodeName") == "n1")
                .collect();
            let held: u64 = bound.iter().map(|other| asks(other, resource)).sum();
            let node = inventory::usable(&Object::new(cluster.object("nodes", "", "n1").clone()));
            let free = node
                .as_ref()
                .map_or(0, |node| node.allocatable(resource))
                .saturating_sub(held);
            let tolerated = node.is_some_and(|node| {
                node.taints.iter().all(|key| {
                    pod["spec"]["tolerations"]
                        .as_array()
                        .is_some_and(|all| all.iter().any(|one| one["key"] == **key))
                })
            });
            let (space, name) = (
                text(pod, "/metadata/namespace").to_owned(),
                text(pod, "/metadata/name").to_owned(),
            );
            if free >= asks(pod, resource) && tolerated {
                cluster.change("pods", &space, &name, |pod| {
                    pod["spec"]["nodeName"] = json!("n1");
                    pod["status"] = json!({"phase": "Running", "conditions": [{"type": "PodScheduled", "status": "True"}]});
                });
                continue;
            }
            cluster.change("pods", &space, &name, |pod| {
                pod["status"] = json!({"phase": "Pending", "conditions": [{"type": "PodScheduled", "status": "False",
                    "reason": "Unschedulable", "message": "0/1 nodes are available: 1 Insufficient resources."}]});
            });
            let may = self.ignores_policy || text(pod, "/spec/preemptionPolicy") != "Never";
            let ending = bound
                .iter()
                .any(|other| other["metadata"]["deletionTimestamp"].is_string());
            if self.preempts && may && tolerated && !ending {
                self.displace(cluster, &bound, priority(pod));
            }
        }
    }

    fn displace(self, cluster: &mut FakeCluster, bound: &[&Value], above: i64) {
        let own = |pod: &&&Value| text(pod, "/metadata/namespace") == SPACE;
        let mut victims: Vec<&Value> = bound
            .iter()
            .filter(|pod| {
                if self.takes_foreign {
                    return !own(pod);
                }
                own(pod)
                    && if self.takes_equals {
                        priority(pod) == above
                    } else {
                        priority(pod) < above
                    }
            })
            .copied()
            .collect();
        // The guarded one last, as far as there is another.
        victims
            .sort_by_key(|pod| !pod["metadata"]["labels"]["priority-preemption/guarded"].is_null());
        for victim in victims.into_iter().take(self.victims) {
            let (space, name) = (
                text(victim, "/metadata/namespace").to_owned(),
                text(victim, "/metadata/name").to_owned(),
            );
            let asked = victim["spec"]["terminationGracePeriodSeconds"]
                .as_i64()
                .unwrap_or(30);
            let grace = self.grace.unwrap_or(asked);
            cluster.change("pods", &space, &name, |pod| {
                if self.marks {
                    pod["status"]["conditions"] = json!([{"type": "DisruptionTarget", "status": "True", "reason": "PreemptionByScheduler"}]);
                }
                if !self.at_once {
                    pod["metadata"]["finalizers"] = json!(["test/kubelet"]);
                    pod["metadata"]["deletionTimestamp"] = json!("2026-01-01T10:00:30Z");
                    pod["metadata"]["deletionGracePeriodSeconds"] = json!(grace);
                }
            });
            let thief = self.thief;
            let end = move |cluster: &mut FakeCluster| {
                if thief {
                    cluster.put(json!({"apiVersion": "v1", "kind": "Pod", "metadata": {"name": "thief", "namespace": "default"},
                        "spec": {"nodeName": "n1", "priority": 100, "containers": [{"resources": {"requests": {GPU: "4", "cpu": "9"}}}]}, "status": {"phase": "Running"}}));
                }
                cluster.remove("pods", &space, &name);
            };
            if self.at_once {
                cluster.after(Duration::ZERO, end);
            } else {
                cluster.after(Duration::from_secs(2), end);
            }
        }
    }
}

/// A node with so many units, its classes and budgets, and a scheduler.
fn cluster(units: u64, scheduler: Scheduler) -> FakeCluster {
    let mut cluster = FakeCluster::new("v1.37.0");
    cluster.serve(
        "scheduling.k8s.io",
        &["v1"],
        "priorityclasses",
        "PriorityClass",
        false,
        &[],
    );
    cluster.serve(
        "policy",
        &["v1"],
        "poddisruptionbudgets",
        "PodDisruptionBudget",
        true,
        &["status"],
    );
    let mut allocatable = json!({"cpu": "8", "memory": "32Gi", "pods": "110"});
    if units > 0 {
        allocatable[GPU] = json!(units.to_string());
    }
    cluster.put(json!({"apiVersion": "v1", "kind": "Node", "metadata": {"name": "n1"},
        "spec": {"taints": [{"key": GPU, "effect": "NoSchedule"}]},
        "status": {"conditions": [{"type": "Ready", "status": "True"}], "allocatable": allocatable}}));
    cluster.admit("pods", |cluster, pod| {
        let name = pod["spec"]["priorityClassName"]
            .as_str()
            .unwrap_or_default();
        let class = cluster.object("priorityclasses", "", name);
        pod["spec"]["priority"] = class["value"].clone();
        pod["spec"]["preemptionPolicy"] = class["preemptionPolicy"].clone();
        let limits = pod["spec"]["containers"][0]["resources"]["limits"].clone();
        for (name, value) in limits.as_object().into_iter().flatten() {
            pod["spec"]["containers"][0]["resources"]["requests"][name.as_str()] = value.clone();
        }
    });
    let resource = if units > 0 { GPU } else { "cpu" };
    cluster.controller(move |cluster| scheduler.work(cluster, resource));
    cluster
}

fn run(cluster: FakeCluster) -> Run {
    testing::run::<PriorityPreemption>(manifest::TEXT, cluster)
}

fn with(scheduler: Scheduler) -> Run {
    run(cluster(4, scheduler))
}

#[test]
fn a_conforming_cluster_passes_whatever_the_pods_compete_for() {
    for (units, pods, resource) in [
        (4, "4", GPU),
        (1, "1", GPU),
        (2, "2", GPU),
        (7, "4", GPU),
        (0, "4", "cpu"),
    ] {
        let run = run(cluster(units, Scheduler::default()));
        assert_eq!(run.result, Ok(()));
        run.assert_passed(&REQUIRED);
        run.assert_earned();
        assert_eq!(run.observed("room", "competed for"), Some(resource));
        assert_eq!(
            run.observed("room", "pods to fill it"),
            Some(pods),
            "{units}"
        );
        let stayed = (pods == "4").then_some("true");
        assert_eq!(
            run.observed("budget", "the pod with a budget stayed"),
            stayed
        );
    }
}

#[test]
fn preemption_that_is_off_fails() {
    let run = with(Scheduler {
        preempts: false,
        ..Scheduler::default()
    });
    run.assert_passed(&["filled", "never-waits"]);
    run.assert_failed("preempts", "none gave way within 120 s");
    assert_eq!(run.conclusion("orderly"), None);
}

#[test]
fn a_pod_that_may_not_displace_and_does_fails() {
    let run = with(Scheduler {
        ignores_policy: true,
        ..Scheduler::default()
    });
    run.assert_failed("never-waits", "1 pods gave way");
    assert_eq!(run.conclusion("preempts"), None);
}

#[test]
fn wrong_victims_fail() {
    let run = with(Scheduler {
        takes_equals: true,
        ..Scheduler::default()
    });
    run.assert_failed("preempts", "with the same priority gave way");
    let run = with(Scheduler {
        victims: 2,
        ..Scheduler::default()
    });
    run.assert_passed(&["preempts"]);
    run.assert_failed("orderly", "2 gave way");
}

#[test]
fn a_pod_of_others_that_is_touched_ends_the_check() {
    let mut cluster = cluster(
        4,
        Scheduler {
            takes_foreign: true,
            ..Scheduler::default()
        },
    );
    cluster.put(json!({"apiVersion": "v1", "kind": "Pod", "metadata": {"name": "theirs", "namespace": "default"},
        "spec": {"nodeName": "n1", "priority": 0, "containers": [{"resources": {"requests": {GPU: "1"}}}]}, "status": {"phase": "Running"}}));
    let run = run(cluster);
    run.assert_failed("preempts", "which is not of this run, was preempted");
    assert!(
        run.calls
            .iter()
            .any(|call| call.verb == "delete" && call.name == "high-abcd2345")
    );
}

#[test]
fn victims_without_mark_or_time_fail() {
    let run = with(Scheduler {
        marks: false,
        ..Scheduler::default()
    });
    run.assert_failed("orderly", "instead of PreemptionByScheduler");
    let run = with(Scheduler {
        grace: Some(0),
        ..Scheduler::default()
    });
    run.assert_failed("orderly", "was given 0 s");
    let run = with(Scheduler {
        at_once: true,
        ..Scheduler::default()
    });
    run.assert_failed("orderly", "was gone at once");
}

#[test]
fn somebody_who_takes_the_room_is_no_fail() {
    let run = with(Scheduler {
        thief: true,
        ..Scheduler::default()
    });
    run.assert_unknown("preempts", Reason::CompetingWorkload);
}

#[test]
fn a_new_taint_is_no_fail() {
    let mut cluster = cluster(4, Scheduler::default());
    cluster.after(Duration::from_secs(10), |cluster| {
        cluster.change("nodes", "", "n1", |node| {
            node["spec"]["taints"] =
                json!([{"key": "other.example/closed", "effect": "NoSchedule"}]);
        });
    });
    run(cluster).assert_unknown("preempts", Reason::CompetingWorkload);
}

#[test]
fn somebody_who_fills_the_room_first_is_no_fail() {
    let mut cluster = cluster(4, Scheduler::default());
    let mut done = false;
    cluster.admit("priorityclasses", |_, _| {});
    cluster.controller(move |cluster| {
        if !done && cluster.objects("priorityclasses").len() == 3 {
            done = true;
            cluster.put(json!({"apiVersion": "v1", "kind": "Pod", "metadata": {"name": "theirs", "namespace": "default"},
                "spec": {"nodeName": "n1", "containers": [{"resources": {"requests": {GPU: "3"}}}]}, "status": {"phase": "Running"}}));
        }
    });
    run(cluster).assert_unknown("filled", Reason::CompetingWorkload);
}

#[test]
fn values_that_are_not_kept_fail() {
    let mut flat = cluster(4, Scheduler::default());
    flat.admit("priorityclasses", |_, class| class["value"] = json!(-1));
    run(flat).assert_failed("classes", "has the value -1");
    let mut flat = cluster(4, Scheduler::default());
    flat.admit("pods", |_, pod| pod["spec"]["priority"] = json!(0));
    run(flat).assert_failed("filled", "has the priority 0");
    let mut allowing = cluster(4, Scheduler::default());
    allowing.admit("pods", |_, pod| {
        pod["spec"]["preemptionPolicy"] = json!("PreemptLowerPriority")
    });
    run(allowing).assert_failed("never-waits", "its own says `PreemptLowerPriority`");
}

#[test]
fn nodes_that_others_of_low_priority_use_are_left_alone() {
    let mut cluster = cluster(4, Scheduler::default());
    cluster.put(json!({"apiVersion": "v1", "kind": "Pod", "metadata": {"name": "filler", "namespace": "default"},
        "spec": {"nodeName": "n1", "priority": -2000, "containers": [{}]}, "status": {"phase": "Running"}}));
    let run = run(cluster);
    run.assert_unknown("room", Reason::InsufficientCapacity);
    assert_eq!(run.conclusion("classes"), None);
}

#[test]
fn without_room_or_scheduler_nothing_is_said() {
    let mut full = cluster(4, Scheduler::default());
    full.put(json!({"apiVersion": "v1", "kind": "Pod", "metadata": {"name": "theirs", "namespace": "default"},
        "spec": {"nodeName": "n1", "containers": [{"resources": {"requests": {GPU: "4", "cpu": "7500m"}}}]}, "status": {"phase": "Running"}}));
    run(full).assert_unknown("room", Reason::InsufficientCapacity);
    let run = with(Scheduler {
        is_down: true,
        ..Scheduler::default()
    });
    run.assert_unknown("filled", Reason::Deadline);
}

#[test]
fn an_image_that_no_node_gets_is_told_soon_and_accuses_nobody() {
    let mut cluster = cluster(4, Scheduler::default());
    cluster.without_images();
    run(cluster).assert_image_unavailable("filled");
}

#[test]
fn no_fault_of_the_api_server_becomes_a_fail() {
    testing::assert_faults_are_no_fail::<PriorityPreemption>(manifest::TEXT, || {
        cluster(4, Scheduler::default())
    });
}

#[test]
fn a_gap_in_the_quiet_window_is_no_pass() {
    let mut cluster = cluster(4, Scheduler::default());
    cluster.after(Duration::from_secs(10), FakeCluster::cut_watches);
    run(cluster).assert_unknown("never-waits", Reason::Deadline);
}
