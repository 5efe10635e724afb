//! Every branch of the probe on a fake cluster: an autoscaler that works, and ways in which something between gauge and pod does not.

use crate::workload::{GAUGE, HIGH, LOW};
use crate::{PodAutoscaling, manifest};
use karat_sdk::build::DraVersion;
use karat_sdk::http::{self, Request};
use karat_sdk::metrics::Sample;
use karat_sdk::testing::dra::{self, Scheduler, Slice};
use karat_sdk::testing::{self, Answering, FakeCluster, Fault, Run};
use karat_sdk::{Reason, Value, json};
use std::cell::RefCell;
use std::collections::BTreeMap;
use std::rc::Rc;

const DRIVER: &str = "gpu.vendor.example";
const GPU: &str = "vendor.example/gpu";
const SPACE: &str = "karat-abcd2345-pod-autoscaling-main";
const SERVE: &str = "serve-abcd2345";
const SCALE: &str = "scale-abcd2345";
/// Everything that decides.
const ALL: [&str; 7] = [
    "accelerators",
    "workload",
    "metric",
    "active",
    "up",
    "units",
    "down",
];

/// What a platform does; by default what it should.
#[derive(Clone)]
struct Platform {
    /// Version of the API for metrics; empty where there is none.
    version: &'static str,
    /// What the adapter calls the gauge.
    metric: &'static str,
    /// What it says of a gauge.
    sees: fn(u64) -> Option<u64>,
    /// What the autoscaler wants, by the average, the replicas that there are and what it wanted before.
    wants: Option<fn(u64, u64) -> u64>,
    /// What becomes of the second pod when it is made.
    second: fn(&mut Value),
    /// Whether pods that are not wanted go.
    lets_go: bool,
    /// Why no second pod is made.
    refuses: &'static str,
}

impl Default for Platform {
    fn default() -> Self {
        Platform {
            version: "v1beta2",
            metric: GAUGE,
            sees: Some,
            wants: Some(|average, pods| (average * pods).div_ceil(20).clamp(1, 2)),
            second: |_| {},
            lets_go: true,
            refuses: "",
        }
    }
}

fn text<'a>(object: &'a Value, pointer: &str) -> &'a str {
    object
        .pointer(pointer)
        .and_then(Value::as_str)
        .unwrap_or_default()
}

fn pod_name(at: u64) -> String {
    format!("{SERVE}-{at}")
}

type Gauges = Rc<RefCell<BTreeMap<String, u64>>>;

/// The pods' own endpoints, which take a level and serve it.
fn serve(cluster: &mut FakeCluster) -> Gauges {
    let gauges = Gauges::default();
    for at in 0..3 {
        let name = pod_name(at);
        let target = http::pod(SPACE, &name, 8080);
        let (told, read) = (Rc::clone(&gauges), Rc::clone(&gauges));
        let of = name.clone();
        cluster.workload(&target.clone(), move |_, request| {
            for level in [LOW, HIGH] {
                let path = format!("/set?name={GAUGE}&value={level}");
                if *request == Request::new("POST", &target, &path) {
                    told.borrow_mut().insert(of.clone(), level);
                    return Answering::text(204, "");
                }
            }
            Answering::text(404, "")
        });
        cluster.exposes(&http::pod(SPACE, &name, 8080), move |_, _| {
            let level = read.borrow().get(&name).copied().unwrap_or(LOW);
            vec![Sample::new(GAUGE, &[], &level.to_string())]
        });
    }
    gauges
}

/// A Deployment has as many pods as it asks for, and the last ones go first.
fn deploy(cluster: &mut FakeCluster, platform: &Platform) {
    let deployment = cluster.object("deployments", SPACE, SERVE).clone();
    if deployment.is_null() {
        return;
    }
    let wanted = deployment["spec"]["replicas"].as_u64().unwrap();
    for at in 0..wanted {
        let name = pod_name(at);
        if !cluster.object("pods", SPACE, &name).is_null() {
            continue;
        }
        if at > 0 && !platform.refuses.is_empty() {
            let message = platform.refuses;
            cluster.change("deployments", SPACE, SERVE, |deployment| {
                deployment["status"]["conditions"] = json!([{"type": "ReplicaFailure", "status": "True", "reason": "FailedCreate", "message": message}]);
            });
            continue;
        }
        let mut pod = json!({"apiVersion": "v1", "kind": "Pod",
            "metadata": {"name": name, "namespace": SPACE, "labels": deployment["spec"]["template"]["metadata"]["labels"],
                "ownerReferences": [{"kind": "ReplicaSet", "name": SERVE, "uid": "5eed", "controller": true}]},
            "spec": deployment["spec"]["template"]["spec"]});
        let container = &mut pod["spec"]["containers"][0];
        if !container["resources"]["limits"][GPU].is_null() {
            container["resources"]["requests"][GPU] = container["resources"]["limits"][GPU].clone();
        }
        if at > 0 {
            (platform.second)(&mut pod);
        }
        cluster.put(pod);
    }
    if platform.lets_go {
        for at in wanted..3 {
            if !cluster.object("pods", SPACE, &pod_name(at)).is_null() {
                cluster.remove("pods", SPACE, &pod_name(at));
            }
        }
    }
}

/// Pods without a claim get a node, and all that have one are ready.
fn kubelet(cluster: &mut FakeCluster) {
    for pod in cluster.objects("pods") {
        let name = text(&pod, "/metadata/name").to_owned();
        let plain = pod["spec"]["resourceClaims"].is_null() && pod["status"].is_null();
        cluster.change("pods", SPACE, &name, |pod| {
            if plain {
                if pod["spec"]["nodeName"].is_null() {
                    pod["spec"]["nodeName"] = json!("n1");
                }
                pod["status"] = json!({"phase": "Running"});
            }
            if pod["status"]["phase"] == "Running" && pod["status"]["conditions"][1].is_null() {
                pod["status"]["conditions"] = json!([{"type": "PodScheduled", "status": "True"}, {"type": "Ready", "status": "True"}]);
            }
        });
    }
}

/// The adapter: a list for each pod. And the autoscaler, which looks at all of them.
fn scale(
    cluster: &mut FakeCluster,
    platform: &Platform,
    gauges: &Gauges,
    said: &mut BTreeMap<String, Option<u64>>,
) {
    let running: Vec<Value> = cluster
        .objects("pods")
        .into_iter()
        .filter(|pod| {
            text(pod, "/metadata/namespace") == SPACE && pod["status"]["phase"] == "Running"
        })
        .collect();
    let mut known = Vec::new();
    for pod in &running {
        let name = text(pod, "/metadata/name").to_owned();
        let level = gauges.borrow().get(&name).copied().unwrap_or(LOW);
        let sees = (platform.sees)(level);
        known.extend(sees);
        if platform.metric == GAUGE
            && !platform.version.is_empty()
            && said.get(&name) != Some(&sees)
        {
            let items: Vec<Value> = sees
                .iter()
                .map(|value| json!({"value": value.to_string()}))
                .collect();
            cluster.put(json!({"apiVersion": format!("custom.metrics.k8s.io/{}", platform.version), "kind": "MetricValueList",
                "metadata": {"name": name, "namespace": SPACE}, "items": items}));
            said.insert(name, sees);
        }
    }
    let scaler = cluster
        .object("horizontalpodautoscalers", SPACE, SCALE)
        .clone();
    let (Some(wants), false) = (platform.wants, scaler.is_null()) else {
        return;
    };
    let asked = text(&scaler, "/spec/metrics/0/pods/metric/name").to_owned();
    let sum: u64 = known.iter().sum();
    let pods = running.len() as u64;
    let is_known = asked == platform.metric && !known.is_empty();
    let average = if is_known {
        sum / known.len() as u64
    } else {
        0
    };
    let desired = if is_known { wants(average, pods) } else { 1 };
    cluster.change("horizontalpodautoscalers", SPACE, SCALE, |scaler| {
        let active = if is_known {
            json!({"type": "ScalingActive", "status": "True", "reason": "ValidMetricFound"})
        } else {
            json!({"type": "ScalingActive", "status": "False", "reason": "FailedGetPodsMetric", "message": "unable to fetch metrics"})
        };
        let metrics = if is_known {
            json!([{"type": "Pods", "pods": {"metric": {"name": asked}, "current": {"averageValue": average.to_string()}}}])
        } else {
            json!([])
        };
        scaler["status"] = json!({"desiredReplicas": desired, "currentReplicas": pods, "currentMetrics": metrics,
            "conditions": [{"type": "AbleToScale", "status": "True", "reason": "SucceededGetScale"}, active]});
    });
    cluster.change("deployments", SPACE, SERVE, |deployment| {
        deployment["spec"]["replicas"] = json!(desired);
    });
}

fn install(cluster: &mut FakeCluster, platform: Platform) {
    cluster.serve(
        "apps",
        &["v1"],
        "deployments",
        "Deployment",
        true,
        &["status"],
    );
    let scalers = "horizontalpodautoscalers";
    cluster.serve(
        "autoscaling",
        &["v2"],
        scalers,
        "HorizontalPodAutoscaler",
        true,
        &["status"],
    );
    if !platform.version.is_empty() {
        let group = "custom.metrics.k8s.io";
        let list = format!("pods/{GAUGE}");
        cluster.serve(group, &[platform.version], "pods", "", true, &[GAUGE]);
        cluster.serve(
            group,
            &[platform.version],
            &list,
            "MetricValueList",
            true,
            &[],
        );
    }
    let gauges = serve(cluster);
    let mut said = BTreeMap::new();
    cluster.controller(move |cluster| {
        deploy(cluster, &platform);
        kubelet(cluster);
        scale(cluster, &platform, &gauges, &mut said);
    });
}

fn driver(cluster: &mut FakeCluster, node: &str, devices: &[&str]) {
    dra::node(cluster, node, GPU);
    let slice = Slice {
        driver: DRIVER,
        node,
        generation: 1,
        of: 1,
        devices,
    };
    dra::slice(cluster, DraVersion::V1, &slice);
}

/// One node with two devices.
fn with_devices(platform: Platform) -> FakeCluster {
    let mut cluster = FakeCluster::new("v1.37.0");
    dra::install(&mut cluster, &["v1"]);
    driver(&mut cluster, "n1", &["gpu-0", "gpu-1"]);
    dra::class(&mut cluster, DraVersion::V1, DRIVER);
    Scheduler::default().start(&mut cluster);
    install(&mut cluster, platform);
    cluster
}

/// One node with units of a plugin.
fn with_units(platform: Platform, units: &str) -> FakeCluster {
    let mut cluster = FakeCluster::new("v1.37.0");
    cluster.put(json!({"apiVersion": "v1", "kind": "Node", "metadata": {"name": "n1"}, "spec": {},
        "status": {"conditions": [{"type": "Ready", "status": "True"}], "allocatable": {"cpu": "8", GPU: units}}}));
    install(&mut cluster, platform);
    cluster
}

fn run(cluster: FakeCluster) -> Run {
    testing::run::<PodAutoscaling>(manifest::TEXT, cluster)
}

fn broken(platform: Platform) -> Run {
    run(with_devices(platform))
}

#[test]
fn pods_follow_the_gauge_up_and_down() {
    let run = broken(Platform::default());
    assert_eq!(run.result, Ok(()));
    run.assert_passed(&ALL);
    run.assert_passed(&["released"]);
    assert_eq!(run.observed("accelerators", "free units there"), Some("2"));
    assert_eq!(run.observed("active", "average"), Some("3"));
    assert_eq!(run.observed("released", "free units"), Some("1"));
    run.assert_earned();
}

#[test]
fn units_of_a_plugin_and_units_of_two_nodes_do_as_well() {
    let plugin = run(with_units(Platform::default(), "3"));
    plugin.assert_passed(&ALL);
    plugin.assert_passed(&["released"]);
    assert_eq!(plugin.observed("accelerators", "resource"), Some(GPU));
    plugin.assert_earned();

    let mut cluster = FakeCluster::new("v1.37.0");
    dra::install(&mut cluster, &["v1"]);
    driver(&mut cluster, "n1", &["gpu-0"]);
    driver(&mut cluster, "n2", &["gpu-0"]);
    dra::class(&mut cluster, DraVersion::V1, DRIVER);
    Scheduler::default().start(&mut cluster);
    install(&mut cluster, Platform::default());
    run(cluster).assert_passed(&ALL);
}

#[test]
fn the_older_api_is_spoken() {
    let run = broken(Platform {
        version: "v1beta1",
        ..Platform::default()
    });
    run.assert_passed(&ALL);
    assert_eq!(
        run.observed("metric", "served as"),
        Some("custom.metrics.k8s.io/v1beta1")
    );
}

#[test]
fn a_gauge_that_is_counted_twice_is_the_same_gauge() {
    let run = broken(Platform {
        sees: |level| Some(level * 2),
        ..Platform::default()
    });
    run.assert_passed(&ALL);
    assert_eq!(
        run.observed("metric", "times that the gauge is counted"),
        Some("2")
    );
}

#[test]
fn another_name_is_read_through_the_autoscaler() {
    let platform = Platform {
        metric: "pods_load",
        ..Platform::default()
    };
    let named = |platform, name: &'static str| {
        let settings = [("metric", name)];
        testing::run_with::<PodAutoscaling>(manifest::TEXT, with_devices(platform), &settings)
    };
    let run = named(platform.clone(), "pods_load");
    run.assert_passed(&ALL);
    assert_eq!(run.observed("metric", "metric"), Some("pods_load"));
    run.assert_earned();
    named(platform.clone(), "others").assert_unknown_with(
        "metric",
        Reason::MetricDelayed,
        "FailedGetPodsMetric",
    );
    let other = Platform {
        sees: |_| Some(71),
        ..platform
    };
    named(other, "pods_load").assert_unknown_with(
        "metric",
        Reason::MetricDelayed,
        "setting `metric`",
    );
}

#[test]
fn without_a_pipeline_or_the_metric_nothing_is_said() {
    let none = Platform {
        version: "",
        ..Platform::default()
    };
    let run_none = broken(none.clone());
    run_none.assert_unknown_with("metric", Reason::SolutionAbsent, "install an adapter");
    run_none.assert_unknown("down", Reason::SolutionAbsent);
    let mut other = with_devices(none);
    other.serve(
        "keda.sh",
        &["v1alpha1"],
        "scaledobjects",
        "ScaledObject",
        true,
        &[],
    );
    run(other).assert_unknown_with("metric", Reason::SolutionAbsent, "keda.sh is");
    let unknown = broken(Platform {
        sees: |_| None,
        ..Platform::default()
    });
    unknown.assert_unknown_with("metric", Reason::MetricDelayed, "no metric `karatload`");
    unknown.assert_unknown("up", Reason::MetricDelayed);
}

#[test]
fn values_that_are_not_those_of_the_pod_are_found() {
    broken(Platform {
        sees: |_| Some(71),
        ..Platform::default()
    })
    .assert_failed("metric", "custom.metrics.k8s.io says of the pod 71");
    // As it is, by chance, while the gauge is low.
    let constant = broken(Platform {
        sees: |_| Some(LOW),
        ..Platform::default()
    });
    constant.assert_passed(&["metric", "active"]);
    constant.assert_failed("up", "says of the pod 3, 300 s after");
    constant.assert_unknown("down", Reason::Deadline);
    // What is lost is not late.
    broken(Platform {
        sees: |level| (level == LOW).then_some(level),
        ..Platform::default()
    })
    .assert_unknown_with("up", Reason::MetricDelayed, "lost");
}

#[test]
fn an_autoscaler_that_does_not_follow_is_found() {
    let nobody = broken(Platform {
        wants: None,
        ..Platform::default()
    });
    nobody.assert_passed(&["metric"]);
    nobody.assert_failed("active", "it says nothing of ScalingActive");
    broken(Platform {
        wants: Some(|_, _| 2),
        ..Platform::default()
    })
    .assert_failed("active", "wants 2 replicas");
    broken(Platform {
        wants: Some(|_, _| 1),
        ..Platform::default()
    })
    .assert_failed("up", "wants 1 replicas 180 s after");
    let never_down = broken(Platform {
        wants: Some(|average, pods| if average < 20 && pods < 2 { 1 } else { 2 }),
        ..Platform::default()
    });
    never_down.assert_passed(&["up", "units"]);
    never_down.assert_failed("down", "wants 2 replicas 420 s after");
    assert_eq!(never_down.conclusion("released"), None);
}

#[test]
fn pods_that_are_wanted_and_do_not_run_are_found() {
    let held = |second: fn(&mut Value)| {
        broken(Platform {
            second,
            ..Platform::default()
        })
    };
    held(|pod| {
        pod["metadata"]["deletionTimestamp"] = Value::Null;
        pod["spec"]["resourceClaims"] = json!([]);
        pod["status"] = json!({"phase": "Pending", "conditions": [{"type": "PodScheduled", "status": "False", "reason": "SchedulingGated", "message": "held"}]});
    })
    .assert_failed("up", "SchedulingGated, while a unit is free: held");
    held(|pod| {
        pod["spec"]["resourceClaims"] = json!([]);
        pod["status"] = json!({"phase": "Pending", "conditions": [{"type": "PodScheduled", "status": "False", "reason": "Unschedulable", "message": "0/1 nodes: 1 Insufficient cpu."}]});
    })
    .assert_unknown("up", Reason::InsufficientCapacity);
    held(|pod| {
        pod["spec"]["nodeName"] = json!("n1");
        pod["status"] = json!({"phase": "Pending", "containerStatuses": [{"state": {"waiting": {"reason": "ContainerCreating"}}}]});
    })
    .assert_failed("up", "is Pending ContainerCreating; no event says why");
    held(|pod| {
        pod["spec"]["nodeName"] = json!("n1");
        pod["status"] = json!({"phase": "Pending", "containerStatuses": [{"state": {"waiting": {"reason": "CrashLoopBackOff"}},
            "lastState": {"terminated": {"message": "no such device"}}}]});
    })
    .assert_failed("up", "is Pending CrashLoopBackOff; no such device");
    held(|pod| {
        pod["spec"]["nodeName"] = json!("n1");
        pod["status"] = json!({"phase": "Pending", "containerStatuses": [{"state": {"waiting": {"reason": "ImagePullBackOff"}}}]});
    })
    .assert_unknown("up", Reason::ImageUnavailable);
    let refused = |refuses| {
        broken(Platform {
            refuses,
            ..Platform::default()
        })
    };
    refused("pods \"p\" is forbidden: exceeded quota: q, requested: pods=1")
        .assert_unknown("up", Reason::InsufficientCapacity);
    refused("admission webhook \"a.b\" denied the request: no")
        .assert_unknown("up", Reason::PermissionDenied);
    refused("the controller is out of order").assert_failed("up", "no second pod is made");
}

#[test]
fn a_unit_that_others_took_is_no_fault() {
    let mut cluster = with_devices(Platform::default());
    cluster.controller(|cluster| {
        let scaled = cluster.object("deployments", SPACE, SERVE)["spec"]["replicas"] == 1
            && cluster.objects("pods").iter().any(|pod| pod["status"]["phase"] == "Running");
        if scaled && cluster.object("resourceclaims", "default", "theirs").is_null() {
            cluster.put(json!({"apiVersion": "resource.k8s.io/v1", "kind": "ResourceClaim", "metadata": {"name": "theirs", "namespace": "default"},
                "status": {"allocation": {"devices": {"results": [{"driver": DRIVER, "pool": "n1", "device": "gpu-1"}]}}}}));
        }
    });
    run(cluster).assert_unknown("up", Reason::CompetingWorkload);
}

#[test]
fn pods_without_a_unit_of_their_own_are_found() {
    let bare = broken(Platform {
        second: |pod| {
            pod["spec"]
                .as_object_mut()
                .unwrap()
                .remove("resourceClaims");
        },
        ..Platform::default()
    });
    bare.assert_passed(&["up"]);
    bare.assert_failed("units", "no device is allocated to it");
    bare.assert_passed(&["down"]);
    broken(Platform {
        second: |pod| {
            pod["spec"]
                .as_object_mut()
                .unwrap()
                .remove("resourceClaims");
            pod["spec"]["nodeName"] = json!("n7");
        },
        ..Platform::default()
    })
    .assert_failed("units", "runs on n7, which is none of the nodes");
    let plugin = with_units(
        Platform {
            second: |pod| pod["spec"]["containers"][0]["resources"] = json!({}),
            ..Platform::default()
        },
        "2",
    );
    run(plugin).assert_failed("units", "runs without a unit of vendor.example/gpu");
    let mut shared = with_devices(Platform::default());
    shared.controller(|cluster| {
        for claim in cluster.objects("resourceclaims") {
            cluster.change(
                "resourceclaims",
                SPACE,
                text(&claim, "/metadata/name"),
                |claim| {
                    let results = &mut claim["status"]["allocation"]["devices"]["results"];
                    if results.is_array() {
                        results[0]["device"] = json!("gpu-0");
                    }
                },
            );
        }
    });
    run(shared).assert_failed("units", "two pods were given gpu.vendor.example/n1/gpu-0");
}

#[test]
fn pods_that_stay_are_found() {
    broken(Platform {
        lets_go: false,
        ..Platform::default()
    })
    .assert_failed("down", "wants 1 replica, and 2 pods are there after 300 s");
    broken(Platform {
        second: |pod| pod["metadata"]["finalizers"] = json!(["platform.example/hold"]),
        lets_go: false,
        ..Platform::default()
    })
    .assert_failed("down", "2 pods are there");
}

#[test]
fn a_claim_that_stays_is_shown_and_does_not_decide() {
    let mut cluster = FakeCluster::new("v1.37.0");
    dra::install(&mut cluster, &["v1"]);
    driver(&mut cluster, "n1", &["gpu-0", "gpu-1"]);
    dra::class(&mut cluster, DraVersion::V1, DRIVER);
    let scheduler = Scheduler {
        never_releases: true,
        ..Scheduler::default()
    };
    scheduler.start(&mut cluster);
    install(&mut cluster, Platform::default());
    let run = run(cluster);
    run.assert_passed(&ALL);
    run.assert_failed("released", "2 claims of the Deployment are still allocated");
}

#[test]
fn a_pod_that_forgot_its_level_is_no_measure() {
    let mut cluster = with_devices(Platform {
        sees: |_| Some(LOW),
        ..Platform::default()
    });
    cluster.exposes(&http::pod(SPACE, &pod_name(0), 8080), |_, _| {
        vec![Sample::new(GAUGE, &[], "3")]
    });
    run(cluster).assert_unknown_with("up", Reason::CompetingWorkload, "restarted or set");
}

#[test]
fn a_workload_that_does_not_run_says_why() {
    let mut cluster = with_devices(Platform::default());
    cluster.admit("deployments", |_, deployment| {
        deployment["spec"]["replicas"] = json!(0)
    });
    run(cluster).assert_unknown_with("workload", Reason::Deadline, "there is none");
    let mut cluster = with_devices(Platform::default());
    let refused = Fault::Answer(503, "ServiceUnavailable", "error trying to reach service");
    cluster.fail_always("create", "pods/proxy", refused);
    run(cluster).assert_unknown("up", Reason::ProxyUnreachable);
}

#[test]
fn a_monitor_is_made_where_the_operator_of_prometheus_is() {
    let mut cluster = with_devices(Platform::default());
    for (plural, kind) in [
        ("prometheuses", "Prometheus"),
        ("servicemonitors", "ServiceMonitor"),
        ("podmonitors", "PodMonitor"),
    ] {
        cluster.serve("monitoring.coreos.com", &["v1"], plural, kind, true, &[]);
    }
    let run = run(cluster);
    run.assert_passed(&ALL);
    assert_eq!(
        run.observed("workload", "asks to be read by"),
        Some("a ServiceMonitor")
    );
    let asked: Vec<&str> = run
        .calls
        .iter()
        .filter(|call| call.verb == "create")
        .map(|call| call.resource.as_str())
        .collect();
    assert!(
        asked.contains(&"services") && asked.contains(&"servicemonitors"),
        "{asked:?}"
    );
}

#[test]
fn without_two_free_units_nothing_is_said() {
    run(with_units(Platform::default(), "1"))
        .assert_unknown("accelerators", Reason::InsufficientCapacity);
    let mut none = FakeCluster::new("v1.37.0");
    dra::install(&mut none, &["v1"]);
    let nothing = run(none);
    nothing.assert_unknown("accelerators", Reason::NoAccelerator);
    nothing.assert_unknown("workload", Reason::NoAccelerator);
    let mut strange = with_devices(Platform::default());
    strange.change("deviceclasses", "", DRIVER, |class| {
        class["spec"]["selectors"][0]["cel"]["expression"] =
            json!("device.driver.startsWith('gpu')");
    });
    run(strange).assert_unknown("accelerators", Reason::UnknownAccelerator);
}

#[test]
fn an_image_that_no_node_gets_is_told_soon_and_accuses_nobody() {
    let mut cluster = with_devices(Platform::default());
    cluster.without_images();
    run(cluster).assert_image_unavailable("workload");
}

#[test]
fn no_fault_of_the_api_server_becomes_a_fail() {
    testing::assert_faults_are_no_fail::<PodAutoscaling>(manifest::TEXT, || {
        with_devices(Platform::default())
    });
}
