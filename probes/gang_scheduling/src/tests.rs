//! The branches of the probe on a fake cluster: what passes, what fails, what cannot be told.

use crate::{GangScheduling, manifest};
use karat_sdk::testing::gang::{self, Scheduler};
use karat_sdk::testing::{self, FakeCluster, Fault, Run};
use karat_sdk::{Conclusion, Reason, json};
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

#[track_caller]
fn assert_passed(run: &Run, ids: &[&str]) {
    for id in ids {
        assert_eq!(
            run.conclusion(id),
            Some(&Conclusion::Pass),
            "{id}: {:#?}",
            run.cases
        );
    }
}

#[track_caller]
fn assert_failed(run: &Run, id: &str, with: &str) {
    match run.conclusion(id) {
        Some(Conclusion::Fail(text)) => assert!(text.contains(with), "{id}: {text}"),
        other => panic!("{id}: {other:?}"),
    }
}

#[track_caller]
fn assert_unknown(run: &Run, id: &str, why: Reason) {
    match run.conclusion(id) {
        Some(Conclusion::Unknown(reason, _)) if *reason == why => {}
        other => panic!("{id}: {other:?}"),
    }
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
        assert_passed(&run, &REQUIRED);
        assert_passed(&run, &["deadlock"]);
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
    assert_passed(&run, &REQUIRED);
    assert_passed(&run, &["fragmentation"]);
    assert_eq!(run.observed("room", "pods that fit"), Some("8"));
    assert_eq!(run.observed("together", "pods of the group"), Some("4"));
    assert_eq!(run.observed("none-starts", "pods of the group"), Some("8"));
}

#[test]
fn cpu_of_played_nodes_is_scarce_where_there_is_no_accelerator() {
    let run = run(cluster(&[0, 0, 0], "v1beta1", Scheduler::default()));
    assert_passed(&run, &REQUIRED);
    assert_passed(&run, &["deadlock", "fragmentation"]);
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
    assert_unknown(&run, "room", Reason::NoAccelerator);
    assert_unknown(&run, "none-starts", Reason::NoAccelerator);
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
    assert_passed(&ending("Succeeded"), &REQUIRED);
    assert_failed(&ending("Failed"), "together", "started together and failed");
    assert_unknown(&ending("Running"), "together", Reason::Deadline);
}

#[test]
fn without_a_solution_it_says_what_to_install() {
    let mut cluster = FakeCluster::new("v1.37.0");
    gang::install(&mut cluster, &[]);
    let run = run(cluster);
    assert_eq!(run.result, Ok(()));
    for id in REQUIRED {
        assert_unknown(&run, id, Reason::SolutionAbsent);
    }
    let mut cluster = FakeCluster::new("v1.60.0");
    gang::install(&mut cluster, &["v2"]);
    assert_unknown(&self::run(cluster), "solution", Reason::VersionSkew);
}

#[test]
fn too_little_room_is_no_fail() {
    for units in [&[1u32][..], &[]] {
        let run = run(cluster(units, "v1beta1", Scheduler::default()));
        assert_unknown(&run, "room", Reason::InsufficientCapacity);
    }
    let mut full = healthy();
    full.put(tenant("t0", "n0", 2));
    full.put(tenant("t1", "n1", 1));
    assert_unknown(&run(full), "room", Reason::InsufficientCapacity);
}

#[test]
fn a_node_whose_pods_would_give_way_is_not_used() {
    let mut cluster = cluster(&[2, 2, 2], "v1beta1", Scheduler::default());
    let mut pod = tenant("spare", "n0", 1);
    pod["spec"]["priority"] = json!(-10);
    cluster.put(pod);
    let run = run(cluster);
    assert_passed(&run, &REQUIRED);
    assert_eq!(run.observed("room", "pods that fit"), Some("4"));
}

#[test]
fn a_scheduler_that_ignores_groups_fails() {
    let scheduler = Scheduler {
        ignores_groups: true,
        ..Scheduler::default()
    };
    let run = run(cluster(&[2, 2], "v1beta1", scheduler));
    assert_passed(&run, &["together"]);
    assert_failed(
        &run,
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
    assert_failed(
        &run(cluster(&[2, 2], "v1beta1", scheduler)),
        "none-starts",
        "started all the same",
    );
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
    assert_failed(
        &run(cluster),
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
    assert_failed(&run, "none-starts", "3 of 4 pods");
    assert_eq!(run.observed("none-starts", "minimum as stored"), Some("1"));
}

#[test]
fn a_dropped_link_is_a_gate_that_is_off() {
    let mut cluster = healthy();
    cluster.drop_field("pods", "/spec/schedulingGroup");
    let run = run(cluster);
    assert_unknown(&run, "together", Reason::FeatureGateOff);
    assert_unknown(&run, "none-starts", Reason::FeatureGateOff);
}

#[test]
fn silence_is_no_rejection() {
    let scheduler = Scheduler {
        is_silent: true,
        ..Scheduler::default()
    };
    let run = run(cluster(&[2, 2], "v1beta1", scheduler));
    assert_passed(&run, &["together"]);
    assert_unknown(&run, "none-starts", Reason::Deadline);
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
    assert_unknown(&run(cluster), "none-starts", Reason::CompetingWorkload);

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
    assert_passed(&run, &["none-starts"]);
    assert_unknown(&run, "released", Reason::CompetingWorkload);
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
    assert_passed(&run, &["none-starts"]);
    assert_failed(&run, "released", "0 of the 4 pods of the group were bound");
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
    assert_unknown(&run(cluster), "together", Reason::CompetingWorkload);
}

#[test]
fn pods_that_are_held_by_something_else_are_not_a_group_that_waits() {
    let mut cluster = healthy();
    cluster.admit("pods", |_, pod| {
        pod["spec"]["schedulingGates"] = json!([{"name": "platform.example/review"}]);
    });
    assert_unknown(&run(cluster), "together", Reason::Deadline);
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
    assert_passed(&run, &REQUIRED);
}

#[test]
fn no_fault_of_the_api_server_becomes_a_fail() {
    let faults = [
        Fault::Answer(500, "InternalError", "etcdserver: request timed out"),
        Fault::Answer(429, "TooManyRequests", "too many requests"),
        Fault::Answer(403, "Forbidden", "not allowed"),
        Fault::Lost,
        Fault::LostAfter,
        Fault::Expired,
    ];
    for fault in &faults {
        for verb in ["get", "list", "watch", "create", "delete"] {
            for skip in [0, 1, 3, 6] {
                let mut cluster = healthy();
                cluster.fail(verb, "*", fault.clone(), skip, 1);
                let run = run(cluster);
                for case in &run.cases {
                    assert!(
                        !matches!(case.conclusion, Some(Conclusion::Fail(_))),
                        "{verb} {fault:?} after {skip}: {case:#?}"
                    );
                }
            }
        }
    }
}
