//! Every branch of the probe on a fake cluster: devices of a driver, units of a plugin, and ways to lose them.

use crate::{ResourceReclamation, manifest};
use karat_sdk::build::DraVersion;
use karat_sdk::inventory::{self, requested};
use karat_sdk::testing::dra::{self, Scheduler, Slice};
use karat_sdk::testing::{self, FakeCluster, Run};
use karat_sdk::{Object, Reason, Value, json};
use std::time::Duration;

const DRIVER: &str = "gpu.vendor.example";
const GPU: &str = "vendor.example/gpu";
const SPACE: &str = "karat-abcd2345-resource-reclamation-main";
const ENDS: [&str; 4] = ["success", "deletion", "eviction", "owner"];

fn text<'a>(object: &'a Value, pointer: &str) -> &'a str {
    object
        .pointer(pointer)
        .and_then(Value::as_str)
        .unwrap_or_default()
}

/// Jobs make pods, and a kubelet ends those that end by themselves.
fn with_jobs(cluster: &mut FakeCluster, plays: bool) {
    cluster.serve("batch", &["v1"], "jobs", "Job", true, &["status"]);
    cluster.controller(move |cluster| {
        for job in cluster.objects("jobs") {
            let name = format!("{}-x7f2q", text(&job, "/metadata/name"));
            let space = text(&job, "/metadata/namespace").to_owned();
            if cluster.object("pods", &space, &name).is_null() && job["metadata"]["deletionTimestamp"].is_null() && job["status"].is_null() {
                cluster.put(json!({"apiVersion": "v1", "kind": "Pod",
                    "metadata": {"name": name, "namespace": space, "ownerReferences": [{"kind": "Job", "name": job["metadata"]["name"], "uid": job["metadata"]["uid"], "controller": true}]},
                    "spec": job["spec"]["template"]["spec"]}));
                cluster.change("jobs", &space, text(&job, "/metadata/name"), |job| job["status"] = json!({"active": 1}));
            }
        }
        for pod in cluster.objects("pods") {
            if text(&pod, "/status/phase") != "Running" {
                continue;
            }
            let command = text(&pod, "/spec/containers/0/command/0").to_owned();
            let phase = match command.as_str() {
                "/pause" => "Succeeded",
                "" if plays && pod["spec"]["activeDeadlineSeconds"] == 5 => "Failed",
                "" => continue,
                _ if plays => "Failed",
                _ => continue,
            };
            cluster.change("pods", text(&pod, "/metadata/namespace"), text(&pod, "/metadata/name"), |pod| pod["status"]["phase"] = json!(phase));
        }
    });
}

/// Pods without a claim run at once.
fn with_plain_pods(cluster: &mut FakeCluster) {
    cluster.controller(|cluster| {
        for pod in cluster.objects("pods") {
            if pod["spec"]["resourceClaims"].is_null()
                && text(&pod, "/spec/nodeName").is_empty()
                && pod["spec"]["containers"][0]["resources"]["limits"].is_null()
            {
                cluster.change(
                    "pods",
                    text(&pod, "/metadata/namespace"),
                    text(&pod, "/metadata/name"),
                    |pod| {
                        pod["spec"]["nodeName"] = json!("n1");
                        pod["status"] = json!({"phase": "Running"});
                    },
                );
            }
        }
    });
}

/// A node with two devices, of which one can be told apart.
fn with_devices(scheduler: Scheduler) -> FakeCluster {
    let mut cluster = FakeCluster::new("v1.37.0");
    dra::install(&mut cluster, &["v1"]);
    dra::node(&mut cluster, "n1", GPU);
    dra::class(&mut cluster, DraVersion::V1, DRIVER);
    dra::slice(
        &mut cluster,
        DraVersion::V1,
        &Slice {
            driver: DRIVER,
            node: "n1",
            generation: 1,
            of: 1,
            devices: &["gpu-0", "gpu-1"],
        },
    );
    scheduler.start(&mut cluster);
    with_jobs(&mut cluster, true);
    with_plain_pods(&mut cluster);
    cluster
}

/// A node with three units of a plugin.
fn with_units() -> FakeCluster {
    let mut cluster = FakeCluster::new("v1.37.0");
    cluster.put(json!({"apiVersion": "v1", "kind": "Node", "metadata": {"name": "n1"}, "spec": {},
        "status": {"conditions": [{"type": "Ready", "status": "True"}], "allocatable": {"cpu": "8", GPU: "3"}}}));
    cluster.admit("pods", |_, pod| {
        pod["spec"]["containers"][0]["resources"]["requests"][GPU] =
            pod["spec"]["containers"][0]["resources"]["limits"][GPU].clone();
    });
    cluster.controller(|cluster| {
        let pods = cluster.objects("pods");
        for pod in &pods {
            let asked = &pod["spec"]["containers"][0]["resources"]["limits"][GPU];
            if asked.is_null() || !text(pod, "/spec/nodeName").is_empty() {
                continue;
            }
            let mut pod = pod.clone();
            pod["spec"]["containers"][0]["resources"]["requests"][GPU] = asked.clone();
            let pods = inventory_pods(cluster);
            let held: u64 = pods.iter().map(|pod| requested(pod, GPU)).sum();
            let node = inventory::usable(&Object::new(cluster.object("nodes", "", "n1").clone()));
            let fits = node.is_some_and(|node| node.allocatable(GPU) >= held + requested(&Object::new(pod.clone()), GPU));
            let requests = pod["spec"]["containers"][0]["resources"]["requests"].clone();
            cluster.change("pods", text(&pod, "/metadata/namespace"), text(&pod, "/metadata/name"), |pod| {
                if fits {
                    pod["spec"]["nodeName"] = json!("n1");
                    pod["spec"]["containers"][0]["resources"]["requests"] = requests;
                    pod["status"] = json!({"phase": "Running", "conditions": [{"type": "PodScheduled", "status": "True"}]});
                } else {
                    pod["status"] = json!({"phase": "Pending", "conditions": [{"type": "PodScheduled", "status": "False", "reason": "Unschedulable", "message": "Insufficient gpu"}]});
                }
            });
        }
    });
    with_jobs(&mut cluster, true);
    with_plain_pods(&mut cluster);
    cluster
}

fn inventory_pods(cluster: &FakeCluster) -> Vec<Object> {
    let bound = cluster.objects("pods").into_iter().map(Object::new);
    bound
        .filter(|pod| pod.text("/spec/nodeName") == "n1" && !inventory::has_ended(pod))
        .collect()
}

fn run(cluster: FakeCluster) -> Run {
    testing::run::<ResourceReclamation>(manifest::TEXT, cluster)
}

#[test]
fn devices_come_back_after_every_end() {
    let run = run(with_devices(Scheduler::default()));
    assert_eq!(run.result, Ok(()));
    run.assert_passed(&["baseline"]);
    run.assert_passed(&ENDS);
    run.assert_passed(&["failure", "deadline", "orphans", "forced"]);
    assert_eq!(run.observed("deletion", "device"), Some("gpu-0"));
    run.assert_earned();
}

#[test]
fn units_of_a_plugin_come_back_after_every_end() {
    let run = run(with_units());
    assert_eq!(run.result, Ok(()));
    run.assert_passed(&["baseline"]);
    run.assert_passed(&ENDS);
    run.assert_passed(&["failure", "deadline", "forced"]);
    assert_eq!(run.observed("baseline", "free units"), Some("3"));
    assert_eq!(run.conclusion("orphans"), None);
    run.assert_earned();
}

#[test]
fn a_played_node_that_plays_no_failure_is_not_accused() {
    let mut cluster = FakeCluster::new("v1.37.0");
    dra::install(&mut cluster, &["v1"]);
    dra::node(&mut cluster, "n1", GPU);
    cluster.change("nodes", "", "n1", |node| {
        node["metadata"]["annotations"]["kwok.x-k8s.io/node"] = json!("fake")
    });
    dra::class(&mut cluster, DraVersion::V1, DRIVER);
    dra::slice(
        &mut cluster,
        DraVersion::V1,
        &Slice {
            driver: DRIVER,
            node: "n1",
            generation: 1,
            of: 1,
            devices: &["gpu-0"],
        },
    );
    Scheduler::default().start(&mut cluster);
    with_jobs(&mut cluster, false);
    with_plain_pods(&mut cluster);
    let run = run(cluster);
    run.assert_passed(&ENDS);
    assert_eq!(run.conclusion("failure"), None);
    assert_eq!(run.conclusion("deadline"), None);
    run.assert_earned();
}

#[test]
fn claims_that_stay_allocated_are_lost_units() {
    let run = run(with_devices(Scheduler {
        never_releases: true,
        ..Scheduler::default()
    }));
    run.assert_failed("success", "after 300 s");
    assert_eq!(run.conclusion("deletion"), None);
}

#[test]
fn a_device_that_two_claims_hold_is_found() {
    let mut cluster = with_devices(Scheduler::default());
    cluster.controller(|cluster| {
        let claims = cluster.objects("resourceclaims");
        let held = claims.iter().find(|claim| text(claim, "/metadata/name").starts_with("deleted-") && claim["status"]["allocation"].is_object());
        if let Some(held) = held
            && cluster.object("resourceclaims", "default", "second").is_null()
        {
            cluster.put(json!({"apiVersion": "resource.k8s.io/v1", "kind": "ResourceClaim", "metadata": {"name": "second", "namespace": "default"},
                "status": held["status"]}));
        }
    });
    let run = run(cluster);
    run.assert_passed(&["success"]);
    run.assert_failed("deletion", "is allocated to 2 claims at once");
}

#[test]
fn a_node_that_shrinks_has_lost_a_unit() {
    let mut cluster = with_units();
    cluster.controller(|cluster| {
        if !cluster.object("pods", SPACE, "deleted-abcd2345").is_null() {
            cluster.change("nodes", "", "n1", |node| {
                node["status"]["allocatable"][GPU] = json!("2")
            });
        }
    });
    let run = run(cluster);
    run.assert_passed(&["success"]);
    run.assert_failed(
        "deletion",
        "2 units of vendor.example/gpu are free, and 3 were",
    );
}

#[test]
fn a_count_that_is_right_and_a_pod_that_does_not_fit_is_a_loss() {
    let mut cluster = with_units();
    // The scheduler forgets to give back: it sees less than the node has.
    cluster.controller(|cluster| {
        let heir = "succeeds-heir-abcd2345";
        if !cluster.object("pods", SPACE, heir).is_null() {
            cluster.change("pods", SPACE, heir, |pod| {
                pod["spec"]["nodeName"] = Value::Null;
                pod["status"] = json!({"phase": "Pending", "conditions": [{"type": "PodScheduled", "status": "False", "reason": "Unschedulable", "message": "Insufficient gpu"}]});
                pod["spec"]["containers"][0]["resources"]["limits"] = Value::Null;
                pod["spec"]["containers"][0]["resources"]["requests"] = Value::Null;
                pod["spec"]["resourceClaims"] = json!([]);
            });
        }
    });
    run(cluster).assert_failed("success", "a new pod does not get it: Insufficient gpu");
}

#[test]
fn others_who_take_the_unit_are_no_fail() {
    let mut cluster = with_devices(Scheduler::default());
    let mut begun = false;
    cluster.controller(move |cluster| {
        let claims = cluster.objects("resourceclaims");
        let held = claims.iter().any(|claim| text(claim, "/metadata/name").starts_with("deleted-"));
        begun |= held;
        if begun && !held && cluster.object("resourceclaims", "default", "theirs").is_null() {
            cluster.put(json!({"apiVersion": "resource.k8s.io/v1", "kind": "ResourceClaim", "metadata": {"name": "theirs", "namespace": "default"},
                "status": {"allocation": {"devices": {"results": [{"driver": DRIVER, "pool": "n1", "device": "gpu-0"}]}}}}));
        }
    });
    let run = run(cluster);
    run.assert_passed(&["success"]);
    run.assert_unknown("deletion", Reason::CompetingWorkload);
}

#[test]
fn a_finalizer_that_never_goes_holds_the_unit() {
    let mut cluster = with_devices(Scheduler::default());
    cluster.admit("pods", |_, pod| {
        pod["metadata"]["finalizers"] = json!(["platform.example/hold"])
    });
    // Already the new pod of the first case cannot go.
    run(cluster).assert_failed("success", "held by platform.example/hold");
}

#[test]
fn a_unit_that_comes_late_is_neither_well_nor_lost() {
    let mut cluster = with_devices(Scheduler::default());
    cluster.admit("pods", |_, pod| {
        if pod["metadata"]["name"] == "deleted-abcd2345" {
            pod["metadata"]["finalizers"] = json!(["platform.example/slow"]);
        }
    });
    let mut begun = false;
    cluster.controller(move |cluster| {
        let name = "deleted-abcd2345";
        if !begun
            && cluster.object("pods", SPACE, name)["metadata"]["deletionTimestamp"].is_string()
        {
            begun = true;
            cluster.after(Duration::from_secs(100), move |cluster| {
                cluster.change("pods", SPACE, name, |pod| {
                    pod["metadata"]["finalizers"] = json!([])
                });
            });
        }
    });
    run(cluster).assert_unknown("deletion", Reason::Deadline);
}

#[test]
fn claims_that_outlive_their_pods_are_found() {
    let mut cluster = with_devices(Scheduler::default());
    cluster.controller(|cluster| {
        if !cluster.object("pods", SPACE, "evicted-abcd2345").is_null() && cluster.object("resourceclaims", SPACE, "left").is_null() {
            cluster.put(json!({"apiVersion": "resource.k8s.io/v1", "kind": "ResourceClaim",
                "metadata": {"name": "left", "namespace": SPACE, "ownerReferences": [{"kind": "Pod", "name": "x", "uid": "gone"}]}}));
        }
    });
    let run = run(cluster);
    run.assert_passed(&ENDS);
    run.assert_failed("orphans", "left");
}

#[test]
fn without_a_free_accelerator_nothing_is_said() {
    let mut none = FakeCluster::new("v1.37.0");
    dra::install(&mut none, &["v1"]);
    run(none).assert_unknown("baseline", Reason::NoAccelerator);
    let mut taken = with_devices(Scheduler::default());
    taken.put(json!({"apiVersion": "resource.k8s.io/v1", "kind": "ResourceClaim", "metadata": {"name": "c", "namespace": "default"},
        "status": {"allocation": {"devices": {"results": [{"driver": DRIVER, "pool": "n1", "device": "gpu-0"}, {"driver": DRIVER, "pool": "n1", "device": "gpu-1"}]}}}}));
    run(taken).assert_unknown("baseline", Reason::InsufficientCapacity);
    let mut strange = with_devices(Scheduler::default());
    strange.change("deviceclasses", "", DRIVER, |class| {
        class["spec"]["selectors"][0]["cel"]["expression"] =
            json!("device.driver.startsWith('gpu')");
    });
    run(strange).assert_unknown("baseline", Reason::UnknownAccelerator);
    let down = run(with_devices(Scheduler {
        is_down: true,
        ..Scheduler::default()
    }));
    down.assert_unknown("success", Reason::Deadline);
}

#[test]
fn an_image_that_no_node_gets_is_told_soon_and_accuses_nobody() {
    let mut cluster = with_units();
    cluster.without_images();
    run(cluster).assert_image_unavailable("success");
}

#[test]
fn no_fault_of_the_api_server_becomes_a_fail() {
    testing::assert_faults_are_no_fail::<ResourceReclamation>(manifest::TEXT, || {
        with_devices(Scheduler::default())
    });
}
