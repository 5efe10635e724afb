//! The branches of the probe on a fake cluster: what passes, what fails, what cannot be told.

use crate::{GangScheduling, manifest};
use karat_sdk::testing::gang::{self, Scheduler};
use karat_sdk::testing::{self, FakeCluster, Run};
use karat_sdk::{Reason, json};
use std::time::Duration;

const GPU: &str = "vendor.example/gpu";
const SPACE: &str = "karat-abcd2345-gang-scheduling-main";
const REQUIRED: [&str; 5] = ["solution", "room", "together", "none-starts", "released"];

/// Nodes with so many units each, the API in one version, and a scheduler.
fn cluster(units: &[u32], version: &str, scheduler: Scheduler) -> FakeCluster {
    let mut cluster = FakeCluster::new("v1.37.0");
    gang::install(&mut cluster, &[version]);
    for (at, units) in units.iter().enumerate() {
        gang::node(&mut cluster, &format!("n{at}"), GPU, *units);
    }
    scheduler.start(&mut cluster);
    cluster
}

fn healthy() -> FakeCluster {
    cluster(&[2, 2], "v1beta1", Scheduler::default())
}

fn run(cluster: FakeCluster) -> Run {
    testing::run::<GangScheduling>(manifest::TEXT, cluster)
}

/// A pod of somebody else that holds units of a node.
fn tenant(name: &str, node: &str, units: u32) -> karat_sdk::Value {
    let amount = json!({GPU: units.to_string()});
    json!({"apiVersion": "v1", "kind": "Pod", "metadata": {"name": name, "namespace": "default"},
        "spec": {"nodeName": node, "containers": [{"name": "c", "resources": {"requests": amount}}]}, "status": {"phase": "Running"}})
}

/// Something that somebody does once, so much time after a pod of this name came.
fn when_there(
    cluster: &mut FakeCluster,
    pod: &'static str,
    after: Duration,
    act: fn(&mut FakeCluster),
) {
    let mut begun = false;
    cluster.controller(move |cluster| {
        if !begun && !cluster.object("pods", SPACE, pod).is_null() {
            begun = true;
            cluster.after(after, act);
        }
    });
}

#[test]
fn every_known_version_passes_on_a_scheduler_that_obeys() {
    for (version, condition) in [
        ("v1beta1", "PodGroupInitiallyScheduled"),
        ("v1alpha3", "PodGroupInitiallyScheduled"),
        ("v1alpha2", "PodGroupScheduled"),
    ] {
        let scheduler = Scheduler {
            condition,
            ..Scheduler::default()
        };
        let run = run(cluster(&[2, 2], version, scheduler));
        assert_eq!(run.result, Ok(()));
        run.assert_passed(&REQUIRED);
        run.assert_passed(&["deadlock"]);
        assert_eq!(run.observed("solution", "version used"), Some(version));
        assert_eq!(run.observed("room", "pods that fit"), Some("4"));
        assert_eq!(
            run.observed("none-starts", "pods that ever had a node"),
            Some("0")
        );
        run.assert_earned();
        assert!(run.cluster.objects("pods").is_empty());
        assert!(run.cluster.objects("podgroups").is_empty());
    }
}

#[test]
fn units_are_counted_node_by_node() {
    let run = run(cluster(&[4, 4, 0], "v1beta1", Scheduler::default()));
    run.assert_passed(&REQUIRED);
    run.assert_passed(&["fragmentation"]);
    assert_eq!(run.observed("room", "pods that fit"), Some("8"));
    assert_eq!(run.observed("together", "pods of the group"), Some("4"));
    assert_eq!(run.observed("none-starts", "pods of the group"), Some("8"));
}

#[test]
fn cpu_of_played_nodes_is_scarce_where_there_is_no_accelerator() {
    let run = run(cluster(&[0, 0, 0], "v1beta1", Scheduler::default()));
    run.assert_passed(&REQUIRED);
    run.assert_passed(&["deadlock", "fragmentation"]);
    assert_eq!(run.observed("room", "resource"), Some("cpu"));
    assert_eq!(run.observed("room", "amount a pod takes"), Some("9600m"));
}

#[test]
fn cpu_of_real_nodes_is_left_alone() {
    let mut cluster = cluster(&[0, 0], "v1beta1", Scheduler::default());
    for node in ["n0", "n1"] {
        cluster.change("nodes", "", node, |node| {
            node["metadata"]["annotations"] = json!({})
        });
    }
    let run = run(cluster);
    run.assert_unknown("room", Reason::NoAccelerator);
    run.assert_unknown("none-starts", Reason::NoAccelerator);
}

#[test]
fn pods_of_real_nodes_must_end_as_well() {
    let ending = |phase: &'static str| {
        let mut cluster = healthy();
        for node in ["n0", "n1"] {
            cluster.change("nodes", "", node, |node| {
                node["metadata"]["annotations"] = json!({})
            });
        }
        let mut asleep = Vec::new();
        cluster.controller(move |cluster| {
            for pod in cluster.objects("pods") {
                let napping = pod["spec"]["containers"][0]["command"][1] == "20";
                let name = pod["metadata"]["name"].as_str().unwrap().to_owned();
                if napping && pod["status"]["phase"] == "Running" && !asleep.contains(&name) {
                    asleep.push(name.clone());
                    cluster.after(Duration::from_secs(20), move |cluster| {
                        cluster.change("pods", SPACE, &name, |pod| {
                            pod["status"]["phase"] = json!(phase)
                        });
                    });
                }
            }
        });
        run(cluster)
    };
    ending("Succeeded").assert_passed(&REQUIRED);
    ending("Failed").assert_failed("together", "started together and failed");
    ending("Running").assert_unknown("together", Reason::Deadline);
}

#[test]
fn without_a_solution_it_says_what_to_install() {
    let mut cluster = FakeCluster::new("v1.37.0");
    gang::install(&mut cluster, &[]);
    let run = run(cluster);
    assert_eq!(run.result, Ok(()));
    for id in REQUIRED {
        run.assert_unknown(id, Reason::SolutionAbsent);
    }
    let mut cluster = FakeCluster::new("v1.60.0");
    gang::install(&mut cluster, &["v2"]);
    self::run(cluster).assert_unknown("solution", Reason::VersionSkew);
}

#[test]
fn too_little_room_is_no_fail() {
    for units in [&[1u32][..], &[]] {
        let run = run(cluster(units, "v1beta1", Scheduler::default()));
        run.assert_unknown("room", Reason::InsufficientCapacity);
    }
    let mut full = healthy();
    full.put(tenant("t0", "n0", 2));
    full.put(tenant("t1", "n1", 1));
    run(full).assert_unknown("room", Reason::InsufficientCapacity);
}

#[test]
fn a_node_whose_pods_would_give_way_is_not_used() {
    let mut cluster = cluster(&[2, 2, 2], "v1beta1", Scheduler::default());
    let mut pod = tenant("spare", "n0", 1);
    pod["spec"]["priority"] = json!(-10);
    cluster.put(pod);
    let run = run(cluster);
    run.assert_passed(&REQUIRED);
    assert_eq!(run.observed("room", "pods that fit"), Some("2"));
    assert_ne!(run.observed("room", "node"), Some("n0"));
}

#[test]
fn a_scheduler_that_ignores_groups_fails() {
    let scheduler = Scheduler {
        ignores_groups: true,
        ..Scheduler::default()
    };
    let run = run(cluster(&[2, 2], "v1beta1", scheduler));
    run.assert_passed(&["together"]);
    run.assert_failed(
        "none-starts",
        "3 of 4 pods of the group started all the same",
    );
}

#[test]
fn a_partial_start_fails_whatever_the_condition_says() {
    let scheduler = Scheduler {
        starts_in_part: true,
        ..Scheduler::default()
    };
    run(cluster(&[2, 2], "v1beta1", scheduler))
        .assert_failed("none-starts", "started all the same");
}

#[test]
fn one_pod_bound_late_in_the_window_fails() {
    let mut cluster = healthy();
    when_there(
        &mut cluster,
        "lacking-0-abcd2345",
        Duration::from_secs(25),
        |cluster| {
            cluster.change("pods", SPACE, "lacking-0-abcd2345", |pod| {
                pod["spec"]["nodeName"] = json!("n1");
                pod["status"]["phase"] = json!("Running");
            });
        },
    );
    run(cluster).assert_failed(
        "none-starts",
        "1 of 4 pods of the group started all the same",
    );
}

#[test]
fn a_minimum_that_becomes_one_is_shown_and_fails() {
    let mut cluster = healthy();
    cluster.admit("podgroups", |_, group| {
        group["spec"]["schedulingPolicy"]["gang"]["minCount"] = json!(1);
    });
    let run = run(cluster);
    run.assert_failed("none-starts", "3 of 4 pods");
    assert_eq!(run.observed("none-starts", "minimum as stored"), Some("1"));
}

#[test]
fn a_dropped_link_is_a_gate_that_is_off() {
    let mut cluster = healthy();
    cluster.drop_field("pods", "/spec/schedulingGroup");
    let run = run(cluster);
    run.assert_unknown("together", Reason::FeatureGateOff);
    run.assert_unknown("none-starts", Reason::FeatureGateOff);
}

#[test]
fn silence_is_no_rejection() {
    let scheduler = Scheduler {
        is_silent: true,
        ..Scheduler::default()
    };
    let run = run(cluster(&[2, 2], "v1beta1", scheduler));
    run.assert_passed(&["together"]);
    run.assert_unknown("none-starts", Reason::Deadline);
}

#[test]
fn another_tenant_makes_it_unknown() {
    let mut cluster = healthy();
    when_there(
        &mut cluster,
        "lacking-0-abcd2345",
        Duration::from_secs(10),
        |cluster| {
            cluster.put(tenant("t", "n1", 1));
        },
    );
    run(cluster).assert_unknown("none-starts", Reason::CompetingWorkload);

    // The unit that is given back is taken before the scheduler looks again.
    let mut cluster = FakeCluster::new("v1.37.0");
    gang::install(&mut cluster, &["v1beta1"]);
    for name in ["n0", "n1"] {
        gang::node(&mut cluster, name, GPU, 2);
    }
    let mut held = String::new();
    cluster.controller(move |cluster| {
        let pod = cluster.object("pods", SPACE, "placeholder-abcd2345");
        if let Some(node) = pod["spec"]["nodeName"].as_str() {
            held = node.to_owned();
        } else if pod.is_null() && !held.is_empty() {
            cluster.put(tenant("t", &std::mem::take(&mut held), 1));
        }
    });
    Scheduler::default().start(&mut cluster);
    let run = run(cluster);
    run.assert_passed(&["none-starts"]);
    run.assert_unknown("released", Reason::CompetingWorkload);
}

#[test]
fn a_group_that_is_never_released_fails() {
    let mut cluster = healthy();
    when_there(
        &mut cluster,
        "lacking-3-abcd2345",
        Duration::from_secs(10),
        |cluster| {
            cluster.change("podgroups", SPACE, "lacking-abcd2345", |group| {
                group["spec"]["schedulingPolicy"]["gang"]["minCount"] = json!(9);
            });
        },
    );
    let run = run(cluster);
    run.assert_passed(&["none-starts"]);
    run.assert_failed("released", "0 of the 4 pods of the group were bound");
}

#[test]
fn a_new_taint_is_somebody_elses_doing() {
    let mut cluster = FakeCluster::new("v1.37.0");
    gang::install(&mut cluster, &["v1beta1"]);
    for name in ["n0", "n1"] {
        gang::node(&mut cluster, name, GPU, 2);
    }
    cluster.controller(|cluster| {
        if !cluster.objects("podgroups").is_empty() {
            for name in ["n0", "n1"] {
                cluster.change("nodes", "", name, |node| {
                    node["spec"]["taints"] =
                        json!([{"key": "platform.example/drain", "effect": "NoSchedule"}]);
                });
            }
        }
    });
    Scheduler::default().start(&mut cluster);
    run(cluster).assert_unknown("together", Reason::CompetingWorkload);
}

#[test]
fn pods_that_are_held_by_something_else_are_not_a_group_that_waits() {
    let mut cluster = healthy();
    cluster.admit("pods", |_, pod| {
        pod["spec"]["schedulingGates"] = json!([{"name": "platform.example/review"}]);
    });
    run(cluster).assert_unknown("together", Reason::Deadline);
}

#[test]
fn a_gap_begins_the_window_again() {
    let mut cluster = healthy();
    when_there(
        &mut cluster,
        "lacking-3-abcd2345",
        Duration::from_secs(10),
        FakeCluster::cut_watches,
    );
    let run = run(cluster);
    run.assert_passed(&REQUIRED);
}

/// A Kueue. Default: as it should be.
#[derive(Clone, Copy, Debug, Default)]
struct FakeKueue {
    /// Admits whatever the quota is.
    is_generous: bool,
    /// Makes no Workload of a Job.
    is_idle: bool,
    /// Somebody starts Jobs although Kueue does not manage them.
    is_bypassed: bool,
    /// Its webhook cannot be called.
    is_down: bool,
}

impl FakeKueue {
    fn cluster(self) -> FakeCluster {
        let mut cluster = FakeCluster::new("v1.37.0");
        gang::install(&mut cluster, &["v1beta1"]);
        for name in ["n0", "n1"] {
            gang::node(&mut cluster, name, GPU, 2);
        }
        let kueue = "kueue.x-k8s.io";
        for (plural, kind, local) in [
            ("resourceflavors", "ResourceFlavor", false),
            ("clusterqueues", "ClusterQueue", false),
            ("localqueues", "LocalQueue", true),
            ("workloads", "Workload", true),
        ] {
            let versions = ["v1beta2", "v1beta1"];
            cluster.serve(kueue, &versions, plural, kind, local, &["status"]);
        }
        cluster.serve("batch", &["v1"], "jobs", "Job", true, &["status"]);
        if self.is_down {
            cluster.refuse("resourceflavors", |_| {
                let text = "Internal error occurred: failed calling webhook \"mresourceflavor.kb.io\": connection refused";
                Some((500, text.into()))
            });
        }
        cluster.controller(move |cluster| self.work(cluster));
        Scheduler::default().start(&mut cluster);
        cluster
    }

    fn work(self, cluster: &mut FakeCluster) {
        for (resource, namespace) in [("clusterqueues", ""), ("localqueues", SPACE)] {
            for queue in cluster.objects(resource) {
                let generation = queue["metadata"]["generation"].clone();
                let name = queue["metadata"]["name"].as_str().unwrap();
                cluster.change(resource, namespace, name, |queue| {
                    queue["status"]["conditions"] = json!([{"type": "Active", "status": "True", "observedGeneration": generation}]);
                });
            }
        }
        let queues = cluster.objects("clusterqueues");
        let quota = queues.first().map_or(0, |queue| {
            let quota = &queue["spec"]["resourceGroups"][0]["flavors"][0]["resources"][0];
            quota["nominalQuota"]
                .as_str()
                .unwrap()
                .parse::<u64>()
                .unwrap()
        });
        for job in cluster.objects("jobs") {
            let name = job["metadata"]["name"].as_str().unwrap().to_owned();
            if !job["metadata"]["deletionTimestamp"].is_null() {
                continue;
            }
            let count = job["spec"]["parallelism"].as_u64().unwrap();
            let fits = count <= quota || self.is_generous;
            if !self.is_idle {
                let (status, reason, message) = if fits {
                    ("True", "QuotaReserved", "")
                } else {
                    (
                        "False",
                        "Pending",
                        "insufficient quota for vendor.example/gpu",
                    )
                };
                let workload = json!({
                    "apiVersion": "kueue.x-k8s.io/v1beta2", "kind": "Workload",
                    "metadata": {"name": format!("job-{name}"), "namespace": SPACE, "ownerReferences": [{"apiVersion": "batch/v1", "kind": "Job", "name": name, "uid": job["metadata"]["uid"], "controller": true}]},
                    "spec": {},
                });
                if cluster
                    .object("workloads", SPACE, &format!("job-{name}"))
                    .is_null()
                {
                    cluster.put(workload);
                }
                cluster.change("workloads", SPACE, &format!("job-{name}"), |workload| {
                    workload["status"]["conditions"] = json!([{"type": "QuotaReserved", "status": status, "reason": reason, "message": message}]);
                });
            }
            if (fits && !self.is_idle) || self.is_bypassed {
                for at in 0..count {
                    let pod = format!("{name}-{at}");
                    if cluster.object("pods", SPACE, &pod).is_null() {
                        let template = &job["spec"]["template"];
                        cluster.put(json!({
                            "apiVersion": "v1", "kind": "Pod",
                            "metadata": {"name": pod, "namespace": SPACE, "labels": template["metadata"]["labels"],
                                "ownerReferences": [{"apiVersion": "batch/v1", "kind": "Job", "name": name, "uid": job["metadata"]["uid"], "controller": true}]},
                            "spec": with_requests(&template["spec"]), "status": {"phase": "Pending"},
                        }));
                    }
                }
            }
        }
    }
}

/// Requests of extended resources are their limits, as an API server fills them in.
fn with_requests(spec: &karat_sdk::Value) -> karat_sdk::Value {
    let mut spec = spec.clone();
    let resources = &mut spec["containers"][0]["resources"];
    let limits = resources["limits"].clone();
    for (name, amount) in limits.as_object().into_iter().flatten() {
        resources["requests"][name] = amount.clone();
    }
    spec
}

#[test]
fn kueue_comes_first_and_its_quota_follows_what_is_free() {
    let run = run(FakeKueue::default().cluster());
    assert_eq!(run.result, Ok(()));
    run.assert_passed(&REQUIRED);
    assert_eq!(run.observed("solution", "solution"), Some("Kueue"));
    assert_eq!(run.observed("solution", "version used"), Some("v1beta2"));
    run.assert_earned();
    for resource in [
        "jobs",
        "pods",
        "localqueues",
        "clusterqueues",
        "resourceflavors",
    ] {
        assert!(run.cluster.objects(resource).is_empty(), "{resource}");
    }
}

#[test]
fn a_setting_passes_kueue_over() {
    let settings = [("solution", "workload-api")];
    let cluster = FakeKueue::default().cluster();
    let run = testing::run_with::<GangScheduling>(manifest::TEXT, cluster, &settings);
    run.assert_passed(&REQUIRED);
    assert_eq!(run.observed("solution", "solution"), Some("Workload API"));
}

#[test]
fn kueue_that_admits_too_much_fails() {
    let generous = FakeKueue {
        is_generous: true,
        ..FakeKueue::default()
    };
    let run = run(generous.cluster());
    run.assert_passed(&["together"]);
    run.assert_failed(
        "none-starts",
        "3 of 4 pods of the group started all the same",
    );
}

#[test]
fn kueue_that_is_not_at_work_is_no_fail() {
    let idle = FakeKueue {
        is_idle: true,
        ..FakeKueue::default()
    };
    run(idle.cluster()).assert_unknown_with("together", Reason::Deadline, "nobody decided");
    let bypassed = FakeKueue {
        is_bypassed: true,
        ..idle
    };
    run(bypassed.cluster()).assert_unknown("together", Reason::FeatureGateOff);
    let down = FakeKueue {
        is_down: true,
        ..FakeKueue::default()
    };
    run(down.cluster()).assert_unknown_with(
        "together",
        Reason::Deadline,
        "its webhook does not answer",
    );
}

#[test]
fn a_queue_that_is_too_small_is_no_fail() {
    let mut cluster = FakeKueue::default().cluster();
    cluster.put(json!({
        "apiVersion": "kueue.x-k8s.io/v1beta2", "kind": "ClusterQueue", "metadata": {"name": "shared"},
        "spec": {"resourceGroups": [{"flavors": [{"name": "f", "resources": [{"name": GPU, "nominalQuota": "1"}]}]}]},
    }));
    let run = testing::run_with::<GangScheduling>(manifest::TEXT, cluster, &[("queue", "shared")]);
    run.assert_unknown("together", Reason::InsufficientCapacity);
    assert_eq!(run.cluster.objects("clusterqueues").len(), 1);
}

#[test]
fn an_image_that_no_node_gets_is_told_soon_and_accuses_nobody() {
    let mut cluster = healthy();
    cluster.without_images();
    run(cluster).assert_image_unavailable("together");
}

#[test]
fn no_fault_of_the_api_server_becomes_a_fail() {
    testing::assert_faults_are_no_fail::<GangScheduling>(manifest::TEXT, || {
        FakeKueue::default().cluster()
    });
    testing::assert_faults_are_no_fail::<GangScheduling>(manifest::TEXT, healthy);
}
