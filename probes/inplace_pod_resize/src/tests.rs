//! Every branch of the probe on a fake cluster whose kubelet resizes, or does not.

use crate::{InplacePodResize, manifest};
use karat_sdk::inventory::milli;
use karat_sdk::testing::{self, FakeCluster, FakeResult, PodRequest, Run};
use karat_sdk::{Reason, Value, json};
use std::time::Duration;

const ALL: [&str; 6] = ["runs", "cpu", "restarts", "infeasible", "class", "devices"];
/// What the node of the tests has, in thousandths.
const HAS: u64 = 4000;

/// What is wrong with the platform.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Wrong {
    Nothing,
    /// Accepted, and nobody acts.
    Ignored,
    /// The status follows, the cgroup does not.
    OnlyTold,
    /// The status says what fits no node.
    Overgiven,
    /// The same, after the node had called it infeasible.
    OvergivenLate,
    /// Too much is never called infeasible.
    NeverInfeasible,
    /// A container is restarted whatever its policy says.
    AlwaysRestarted,
    /// A container that asks for a restart is restarted twice.
    Twice,
    /// Not restarted although it asks for it.
    NeverRestarted,
    /// Both are restarted.
    Both,
    /// Nothing is validated.
    Unchecked,
    /// Others took what was free.
    Full,
    /// Limits of CPU are not enforced.
    NoQuota,
}

fn limit(container: &Value, resource: &str) -> u64 {
    let limits = &container["resources"]["limits"];
    limits[resource].as_str().and_then(milli).unwrap_or(0)
}

fn condition(reason: &str) -> Value {
    json!([{"type": "PodResizePending", "status": "True", "reason": reason, "message": "of the test"}])
}

/// What a kubelet does for one pod.
fn kubelet(pod: &mut Value, wrong: Wrong, late: bool) {
    let spec = pod["spec"]["containers"]
        .as_array()
        .cloned()
        .unwrap_or_default();
    if pod["status"]["phase"] != "Running" {
        let started = |at: usize, one: &Value| {
            json!({"name": one["name"], "containerID": format!("containerd://{at}-0"), "restartCount": 0,
                "state": {"running": {}}, "resources": one["resources"]})
        };
        let all: Vec<Value> = spec
            .iter()
            .enumerate()
            .map(|(at, one)| started(at, one))
            .collect();
        pod["spec"]["nodeName"] = json!("n1");
        pod["status"] = json!({"phase": "Running", "conditions": [], "containerStatuses": all});
        return;
    }
    let total: u64 = spec.iter().map(|one| limit(one, "cpu")).sum();
    if wrong == Wrong::Ignored {
        return;
    }
    if wrong == Wrong::Full && total > 300 {
        pod["status"]["conditions"] = condition("Deferred");
        return;
    }
    if total > HAS {
        match wrong {
            Wrong::Overgiven => {}
            Wrong::OvergivenLate if late => {}
            Wrong::NeverInfeasible => return,
            _ => {
                pod["status"]["conditions"] = condition("Infeasible");
                return;
            }
        }
    }
    let mut restarted = Vec::new();
    for (at, one) in spec.iter().enumerate() {
        let status = &mut pod["status"]["containerStatuses"][at];
        let memory = limit(one, "memory") != limit(status, "memory");
        if memory || limit(one, "cpu") != limit(status, "cpu") {
            let again = memory && one["name"] == "again" && wrong != Wrong::NeverRestarted;
            if again || wrong == Wrong::AlwaysRestarted {
                restarted.push(at);
            }
            status["resources"] = one["resources"].clone();
        }
    }
    if wrong == Wrong::Both && !restarted.is_empty() {
        restarted = vec![0, 1];
    }
    for at in restarted {
        let status = &mut pod["status"]["containerStatuses"][at];
        let more = if wrong == Wrong::Twice { 2 } else { 1 };
        let count = status["restartCount"].as_u64().unwrap_or(0) + more;
        status["restartCount"] = json!(count);
        status["containerID"] = json!(format!("containerd://{at}-{count}"));
    }
    pod["status"]["conditions"] = json!([]);
}

/// What the API server refuses in a resize.
fn flaws(pod: &Value) -> Vec<String> {
    let containers = pod["spec"]["containers"]
        .as_array()
        .cloned()
        .unwrap_or_default();
    let mut found = Vec::new();
    let known = |resource: &String| resource == "cpu" || resource == "memory";
    for one in &containers {
        let limits = one["resources"]["limits"].as_object();
        if limits.is_some_and(|limits| !limits.keys().all(known)) {
            found.push("only cpu and memory resources are mutable".to_owned());
        }
    }
    let equal = |one: &Value| one["resources"]["limits"] == one["resources"]["requests"];
    if containers.iter().all(equal) {
        found.push("Pod QOS Class may not change as a result of resizing".to_owned());
    }
    found
}

fn inside(asked: &PodRequest<'_>, wrong: Wrong, v1: bool) -> FakeResult {
    let [.., path] = asked.argv else {
        return FakeResult::failed(2, "no path");
    };
    if path.contains("cpu.max") == v1 {
        return FakeResult::failed(1, "ENOENT");
    }
    if wrong == Wrong::NoQuota {
        return FakeResult::output("max 100000\n");
    }
    let cpu = if wrong == Wrong::OnlyTold {
        200
    } else {
        limit(&asked.pod["status"]["containerStatuses"][0], "cpu")
    };
    let between = if v1 { "\n" } else { " " };
    FakeResult::output(&format!("{}{between}100000\n", cpu * 100))
}

fn cluster(version: &str, wrong: Wrong, v1: bool) -> FakeCluster {
    let mut cluster = FakeCluster::new(version);
    cluster.put(json!({"apiVersion": "v1", "kind": "Node", "metadata": {"name": "n1"}, "spec": {},
        "status": {"conditions": [{"type": "Ready", "status": "True"}], "allocatable": {"cpu": "4"}}}));
    if wrong != Wrong::Unchecked {
        cluster.validate("pods", flaws);
    }
    let mut infeasible_since = None;
    cluster.controller(move |cluster| {
        let now = cluster.elapsed();
        for pod in cluster.objects("pods") {
            let space = pod["metadata"]["namespace"].as_str().unwrap_or_default();
            let name = pod["metadata"]["name"].as_str().unwrap_or_default();
            let pending = pod["status"]["conditions"][0]["reason"] == "Infeasible";
            let since = *infeasible_since.get_or_insert(now);
            if !pending {
                infeasible_since = None;
            }
            let late = pending && now >= since + Duration::from_secs(3);
            let mut after = pod.clone();
            kubelet(&mut after, wrong, late);
            if after != pod {
                cluster.change("pods", space, name, |pod| *pod = after);
            }
        }
    });
    cluster.commands(move |asked| inside(asked, wrong, v1));
    cluster
}

fn run(wrong: Wrong) -> Run {
    testing::run::<InplacePodResize>(manifest::TEXT, cluster("v1.37.0", wrong, false))
}

#[test]
fn a_resize_is_seen_from_both_sides() {
    for v1 in [false, true] {
        let cluster = cluster("v1.37.0", Wrong::Nothing, v1);
        let run = testing::run::<InplacePodResize>(manifest::TEXT, cluster);
        assert_eq!(run.result, Ok(()));
        run.assert_passed(&ALL);
        run.assert_earned();
    }
}

#[test]
fn what_is_accepted_and_not_done_fails() {
    run(Wrong::Ignored).assert_failed("cpu", "not carried out");
    run(Wrong::OnlyTold).assert_failed("cpu", "the cgroup of the container 200m");
}

#[test]
fn restarts_are_counted() {
    run(Wrong::AlwaysRestarted).assert_failed("cpu", "was restarted");
    run(Wrong::Twice).assert_failed("restarts", "2 times");
    run(Wrong::NeverRestarted).assert_failed("restarts", "nothing is pending");
    run(Wrong::Both).assert_failed("restarts", "the other container");
}

#[test]
fn more_than_there_is_must_not_be_given() {
    run(Wrong::Overgiven).assert_failed("infeasible", "100000000m");
    run(Wrong::OvergivenLate).assert_failed("infeasible", "100000000m");
    run(Wrong::NeverInfeasible).assert_failed("infeasible", "does not say");
    let unchecked = run(Wrong::Unchecked);
    unchecked.assert_failed("class", "was accepted");
    unchecked.assert_failed("devices", "was accepted");
    unchecked.assert_passed(&["cpu", "infeasible"]);
}

#[test]
fn a_server_may_refuse_what_no_node_has() {
    let refusing = |message: &'static str| {
        let mut cluster = cluster("v1.37.0", Wrong::Nothing, false);
        cluster.refuse("pods", move |asked| {
            let cpu = limit(&asked.object["spec"]["containers"][0], "cpu");
            (cpu > HAS).then(|| (403, message.to_owned()))
        });
        testing::run::<InplacePodResize>(manifest::TEXT, cluster)
    };
    refusing("pods \"x\" is forbidden: node didn't have enough allocatable resources: cpu")
        .assert_passed(&ALL);
    // Somebody's rule says nothing of what the platform does.
    refusing("admission webhook \"rules.example\" denied the request: too much")
        .assert_unknown("infeasible", Reason::PermissionDenied);
}

#[test]
fn a_full_node_and_one_without_quotas_say_nothing() {
    run(Wrong::Full).assert_unknown("cpu", Reason::InsufficientCapacity);
    run(Wrong::NoQuota).assert_unknown("runs", Reason::FeatureGateOff);
}

#[test]
fn before_it_was_stable_a_gate_decides() {
    let without = |version: &str| {
        let mut cluster = cluster(version, Wrong::Nothing, false);
        cluster.without_subresource("pods", "resize");
        testing::run::<InplacePodResize>(manifest::TEXT, cluster)
    };
    without("v1.34.2").assert_unknown("runs", Reason::FeatureGateOff);
    without("v1.35.0").assert_failed("runs", "not served");
}

#[test]
fn played_nodes_cannot_be_resized() {
    let mut cluster = cluster("v1.37.0", Wrong::Nothing, false);
    cluster.change("nodes", "", "n1", |node| {
        node["metadata"]["annotations"] = json!({"kwok.x-k8s.io/node": "fake"});
    });
    let run = testing::run::<InplacePodResize>(manifest::TEXT, cluster);
    run.assert_unknown("runs", Reason::InsufficientCapacity);
}

#[test]
fn an_image_that_no_node_gets_is_told_soon_and_accuses_nobody() {
    let mut cluster = cluster("v1.37.0", Wrong::Nothing, false);
    cluster.without_images();
    testing::run::<InplacePodResize>(manifest::TEXT, cluster).assert_image_unavailable("runs");
}

#[test]
fn no_fault_of_the_api_server_becomes_a_fail() {
    testing::assert_faults_are_no_fail::<InplacePodResize>(manifest::TEXT, || {
        cluster("v1.37.0", Wrong::Nothing, false)
    });
}
