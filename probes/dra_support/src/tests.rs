//! Every branch of the probe on a fake cluster: what passes, what fails, what cannot be told.

use crate::{DraSupport, manifest};
use karat_sdk::build::DraVersion;
use karat_sdk::testing::dra::{self, Scheduler, Slice};
use karat_sdk::testing::{self, FakeCluster, Fault, Run};
use karat_sdk::{Reason, json};
use std::time::Duration;

const DRIVER: &str = "gpu.vendor.example";
const REQUIRED: [&str; 8] = [
    "served",
    "crud-deviceclass",
    "crud-resourceslice",
    "crud-claimtemplate",
    "crud-claim",
    "validation-two-kinds",
    "validation-cel",
    "validation-name",
];

fn serving(version: &str, versions: &[&str]) -> FakeCluster {
    let mut cluster = FakeCluster::new(version);
    dra::install(&mut cluster, versions);
    cluster
}

/// A node with two devices, their class, and a scheduler.
fn with_devices(version: &str, versions: &[&str], scheduler: Scheduler) -> FakeCluster {
    let mut cluster = serving(version, versions);
    let spoken = DraVersion::parse(versions[0]).unwrap();
    dra::node(&mut cluster, "n1", "vendor.example/gpu");
    dra::class(&mut cluster, spoken, DRIVER);
    dra::slice(&mut cluster, spoken, &published(2));
    scheduler.start(&mut cluster);
    cluster
}

fn published(generation: u32) -> Slice<'static> {
    Slice {
        driver: DRIVER,
        node: "n1",
        generation,
        of: 1,
        devices: &["gpu-0", "gpu-1"],
    }
}

/// What must not be left behind.
const LEFT: [&str; 3] = ["deviceclasses", "resourceslices", "resourceclaims"];

fn run(cluster: FakeCluster) -> Run {
    testing::run::<DraSupport>(manifest::TEXT, cluster)
}

#[test]
fn a_conforming_api_without_a_driver_passes() {
    let run = run(serving("v1.37.0", &["v1", "v1beta2"]));
    assert_eq!(run.result, Ok(()));
    run.assert_passed(&REQUIRED);
    run.assert_unknown("inventory", Reason::NoAccelerator);
    assert_eq!(run.conclusion("allocated"), None);
    run.assert_earned();
    run.assert_clean(&LEFT);
}

#[test]
fn a_driver_is_exercised_as_well() {
    for version in ["v1", "v1beta2", "v1beta1"] {
        let server = if version == "v1" {
            "v1.37.0"
        } else {
            "v1.33.4"
        };
        let run = run(with_devices(server, &[version], Scheduler::default()));
        assert_eq!(run.result, Ok(()));
        run.assert_passed(&REQUIRED);
        run.assert_passed(&["inventory", "allocated", "unsatisfiable", "released"]);
        assert_eq!(run.observed("served", "version used"), Some(version));
        run.assert_earned();
        run.assert_clean(&LEFT);
    }
}

#[test]
fn versions_decide_by_the_age_of_the_server() {
    let run = run_versions("v1.33.4", &["v1beta2", "v1beta1"]);
    run.assert_passed(&REQUIRED);
    assert_eq!(run.observed("served", "version used"), Some("v1beta2"));

    let run = run_versions("v1.34.1-gke.100", &["v1beta2"]);
    run.assert_failed("served", "resource.k8s.io/v1 is not served");
    run.assert_earned_but(&["needs"]);
}

fn run_versions(server: &str, versions: &[&str]) -> Run {
    run(serving(server, versions))
}

/// The rules of the SDK's fake speak of passes only; a fail in a needed case is judged by the engine.
trait EarnedBut {
    fn assert_earned_but(&self, but: &[&str]);
}

impl EarnedBut for Run {
    fn assert_earned_but(&self, but: &[&str]) {
        let complaints = self.complaints();
        assert!(
            complaints
                .iter()
                .all(|text| but.iter().any(|word| text.contains(word))),
            "{complaints:#?}"
        );
    }
}

#[test]
fn an_absent_api_fails_and_says_so_everywhere() {
    let run = run(FakeCluster::new("v1.37.0"));
    assert_eq!(run.result, Ok(()));
    run.assert_failed("served", "resource.k8s.io/v1 is not served");
    // The absence was shown by asking, in the open case.
    assert!(
        run.calls
            .iter()
            .any(|call| call.verb == "list" && call.code == 404 && call.case == Some(0))
    );
    for id in &REQUIRED[1..] {
        run.assert_unknown(id, Reason::SolutionAbsent);
    }
}

#[test]
fn a_version_from_the_future_is_no_fail() {
    let run = run(serving("v1.60.0", &["v3"]));
    run.assert_unknown("served", Reason::VersionSkew);
}

#[test]
fn a_missing_type_or_subresource_fails() {
    let mut cluster = FakeCluster::new("v1.37.0");
    for (plural, kind, namespaced) in [
        ("deviceclasses", "DeviceClass", false),
        ("resourceslices", "ResourceSlice", false),
        ("resourceclaims", "ResourceClaim", true),
        ("resourceclaimtemplates", "ResourceClaimTemplate", true),
    ] {
        cluster.serve(DraVersion::GROUP, &["v1"], plural, kind, namespaced, &[]);
    }
    run(cluster).assert_failed("served", "resourceclaims/status");
}

#[test]
fn a_server_that_swallows_deletes_is_found() {
    for (resource, id) in [
        ("deviceclasses", "crud-deviceclass"),
        ("resourceslices", "crud-resourceslice"),
        ("resourceclaimtemplates", "crud-claimtemplate"),
        ("resourceclaims", "crud-claim"),
    ] {
        let mut cluster = serving("v1.37.0", &["v1"]);
        cluster.fail_always("delete", resource, Fault::Swallowed);
        let run = run(cluster);
        run.assert_failed(id, "still there");
        run.assert_passed(&["served"]);
    }
}

#[test]
fn a_server_that_swallows_collections_is_found() {
    let mut cluster = serving("v1.37.0", &["v1"]);
    cluster.fail_always("deletecollection", "resourceslices", Fault::Swallowed);
    run(cluster).assert_failed("crud-resourceslice", "the collection was deleted");
}

#[test]
fn a_server_that_swallows_writes_is_found() {
    let mut cluster = serving("v1.37.0", &["v1"]);
    cluster.fail_always("update", "deviceclasses", Fault::Swallowed);
    cluster.fail_always("patch", "resourceclaims", Fault::Swallowed);
    let run = run(cluster);
    run.assert_failed("crud-deviceclass", "replaced");
    run.assert_failed("crud-claim", "patched");
}

#[test]
fn a_finalizer_of_somebody_else_is_no_fail() {
    let mut cluster = serving("v1.37.0", &["v1"]);
    cluster.controller(|cluster| {
        cluster.change("deviceclasses", "", "class-abcd2345", |object| {
            object["metadata"]["finalizers"] = json!(["policy.example/hold"]);
        });
    });
    run(cluster).assert_unknown("crud-deviceclass", Reason::Deadline);
}

#[test]
fn bypassed_validation_is_found() {
    let mut cluster = serving("v1.37.0", &["v1"]);
    cluster.bypass_validation();
    let run = run(cluster);
    for id in ["validation-two-kinds", "validation-cel", "validation-name"] {
        run.assert_failed(id, "was accepted");
    }
    run.assert_passed(&REQUIRED[..5]);
    // What was accepted by mistake does not stay.
    run.assert_clean(&LEFT);
}

#[test]
fn a_field_behind_a_closed_gate_is_not_taken_for_a_missing_check() {
    let mut cluster = serving("v1.34.0", &["v1"]);
    cluster.drop_field("resourceclaims", "/spec/devices/requests/0/firstAvailable");
    let run = run(cluster);
    run.assert_passed(&REQUIRED);
    run.assert_earned();
    assert_eq!(
        run.observed("validation-two-kinds", "firstAvailable"),
        Some("dropped by the server")
    );
}

#[test]
fn stale_slices_do_not_mislead() {
    let mut cluster = with_devices("v1.37.0", &["v1"], Scheduler::default());
    let old = Slice {
        devices: &["gpu-7"],
        ..published(1)
    };
    dra::slice(&mut cluster, DraVersion::V1, &old);
    let run = run(cluster);
    run.assert_passed(&["inventory", "allocated", "unsatisfiable", "released"]);
    assert_eq!(
        run.observed(
            "inventory",
            "devices of older generations or incomplete pools"
        ),
        Some("1")
    );
    assert_eq!(run.observed("allocated", "device"), Some("gpu-0"));
}

#[test]
fn an_allocation_from_a_stale_slice_fails() {
    let scheduler = Scheduler {
        trusts_stale_slices: true,
        ..Scheduler::default()
    };
    let mut cluster = with_devices("v1.37.0", &["v1"], scheduler);
    let old = Slice {
        devices: &["gpu-7"],
        ..published(1)
    };
    dra::slice(&mut cluster, DraVersion::V1, &old);
    run(cluster).assert_failed("allocated", "not in the newest generation");
}

#[test]
fn only_stale_slices_are_no_device() {
    let mut cluster = with_devices("v1.37.0", &["v1"], Scheduler::default());
    // The newest generation says that two slices make the pool, and one is there.
    let newer = Slice {
        of: 2,
        ..published(3)
    };
    dra::slice(&mut cluster, DraVersion::V1, &newer);
    let run = run(cluster);
    run.assert_unknown("inventory", Reason::NoAccelerator);
    run.assert_passed(&REQUIRED);
}

#[test]
fn a_scheduler_that_ignores_selectors_is_found() {
    let scheduler = Scheduler {
        ignores_selectors: true,
        ..Scheduler::default()
    };
    let run = run(with_devices("v1.37.0", &["v1"], scheduler));
    run.assert_failed("unsatisfiable", "no device fits");
}

#[test]
fn an_allocation_that_comes_late_breaks_the_quiet_window() {
    let mut cluster = with_devices("v1.37.0", &["v1"], Scheduler::default());
    let mut begun = false;
    cluster.controller(move |cluster| {
        let waiting = cluster.objects("pods").iter().any(|pod| {
            pod["metadata"]["name"] == "misfit-abcd2345" && pod["status"]["phase"] == "Pending"
        });
        if waiting && !begun {
            begun = true;
            cluster.after(Duration::from_secs(20), |cluster| {
                let claims = cluster.objects("resourceclaims");
                let claim = claims
                    .iter()
                    .find(|claim| claim["status"]["allocation"].is_null());
                if let Some(claim) = claim {
                    let text = |field: &str| claim["metadata"][field].as_str().unwrap_or_default();
                    cluster.change("resourceclaims", text("namespace"), text("name"), |claim| {
                        claim["status"]["allocation"] = json!({"devices": {"results": []}});
                    });
                }
            });
        }
    });
    run(cluster).assert_failed("unsatisfiable", "was allocated");
}

#[test]
fn a_gap_in_the_quiet_window_is_no_pass() {
    let mut cluster = with_devices("v1.37.0", &["v1"], Scheduler::default());
    let mut begun = false;
    cluster.controller(move |cluster| {
        if !begun
            && !cluster
                .object("pods", "karat-abcd2345-dra-support-main", "misfit-abcd2345")
                .is_null()
        {
            begun = true;
            cluster.after(Duration::from_secs(10), FakeCluster::cut_watches);
        }
    });
    run(cluster).assert_unknown("unsatisfiable", Reason::Deadline);
}

#[test]
fn a_claim_that_is_never_reserved_or_released_fails() {
    let scheduler = Scheduler {
        never_reserves: true,
        ..Scheduler::default()
    };
    run(with_devices("v1.37.0", &["v1"], scheduler)).assert_failed("allocated", "reservedFor");
    let scheduler = Scheduler {
        never_releases: true,
        ..Scheduler::default()
    };
    run(with_devices("v1.37.0", &["v1"], scheduler)).assert_failed("released", "still allocated");
}

#[test]
fn without_a_scheduler_nothing_is_said_about_allocation() {
    let scheduler = Scheduler {
        is_down: true,
        ..Scheduler::default()
    };
    let run = run(with_devices("v1.37.0", &["v1"], scheduler));
    run.assert_unknown("allocated", Reason::Deadline);
    run.assert_passed(&REQUIRED);
}

#[test]
fn taken_tainted_and_unreachable_devices_are_not_asked_for() {
    let taken = |cluster: &mut FakeCluster| {
        cluster.put(json!({"apiVersion": "resource.k8s.io/v1", "kind": "ResourceClaim", "metadata": {"name": "c", "namespace": "default"},
            "status": {"allocation": {"devices": {"results": [
                {"driver": DRIVER, "pool": "n1", "device": "gpu-0"}, {"driver": DRIVER, "pool": "n1", "device": "gpu-1"}]}}}}));
    };
    let tainted = |cluster: &mut FakeCluster| {
        cluster.change("resourceslices", "", "n1-gpu.vendor.example-g2", |slice| {
            for at in 0..2 {
                slice["spec"]["devices"][at]["taints"] =
                    json!([{"key": "sick", "effect": "NoSchedule"}]);
            }
        });
    };
    let not_ready = |cluster: &mut FakeCluster| {
        cluster.change("nodes", "", "n1", |node| {
            node["status"]["conditions"][0]["status"] = json!("False")
        });
    };
    let cordoned = |cluster: &mut FakeCluster| {
        cluster.change("nodes", "", "n1", |node| {
            node["spec"]["unschedulable"] = json!(true)
        });
    };
    for spoil in [
        &taken as &dyn Fn(&mut FakeCluster),
        &tainted,
        &not_ready,
        &cordoned,
    ] {
        let mut cluster = with_devices("v1.37.0", &["v1"], Scheduler::default());
        spoil(&mut cluster);
        let run = run(cluster);
        run.assert_unknown("inventory", Reason::InsufficientCapacity);
        assert_eq!(run.conclusion("allocated"), None);
    }
}

#[test]
fn a_device_that_resembles_others_may_be_any_of_them() {
    let mut cluster = with_devices("v1.37.0", &["v1"], Scheduler::default());
    cluster.change("resourceslices", "", "n1-gpu.vendor.example-g2", |slice| {
        for at in 0..2 {
            slice["spec"]["devices"][at]["attributes"]["index"] = json!({"int": 0});
        }
    });
    let run = run(cluster);
    assert_eq!(
        run.observed("inventory", "devices that the selector fits"),
        Some("2")
    );
    run.assert_passed(&["allocated", "unsatisfiable", "released"]);
}

#[test]
fn a_class_that_is_not_understood_is_not_used() {
    let mut cluster = with_devices("v1.37.0", &["v1"], Scheduler::default());
    cluster.change("deviceclasses", "", DRIVER, |class| {
        class["spec"]["selectors"][0]["cel"]["expression"] =
            json!("device.driver.startsWith('gpu')");
    });
    run(cluster).assert_unknown("inventory", Reason::UnknownAccelerator);
}

#[test]
fn pods_with_a_claim_stay_on_the_node_of_the_lease() {
    let run = run(with_devices("v1.37.0", &["v1"], Scheduler::default()));
    assert_eq!(run.leases, [(vec!["device".to_owned()], false)]);
    let node = run.observed("inventory", "node").unwrap();
    let pods: Vec<_> = run
        .calls
        .iter()
        .filter(|call| call.verb == "create" && call.resource == "pods")
        .collect();
    assert_eq!(pods.len(), 2);
    for pod in pods {
        let pod: karat_sdk::Value = pod.sent.parse().unwrap();
        let terms = pod
            .pointer("/spec/affinity/nodeAffinity/requiredDuringSchedulingIgnoredDuringExecution/nodeSelectorTerms")
            .unwrap();
        assert_eq!(
            *terms,
            json!([{"matchFields": [{"key": "metadata.name", "operator": "In", "values": [node]}]}])
        );
    }
}

#[test]
fn a_node_without_a_device_of_a_driver_is_no_place() {
    // Two nodes with units of a plugin: more than the driver has, so the lease is one of theirs.
    let mut cluster = with_devices("v1.37.0", &["v1"], Scheduler::default());
    for name in ["n2", "n3"] {
        dra::node(&mut cluster, name, "vendor.example/gpu");
        cluster.change("nodes", "", name, |node| {
            node["status"]["allocatable"] = json!({"vendor.example/gpu": "1"});
        });
    }
    let run = run(cluster);
    run.assert_passed(&REQUIRED);
    run.assert_unknown("inventory", Reason::InsufficientCapacity);
    assert_eq!(run.conclusion("allocated"), None);
}

#[test]
fn without_a_node_to_set_aside_nothing_is_asked_for() {
    // Devices that every node reaches belong to none.
    let mut cluster = with_devices("v1.37.0", &["v1"], Scheduler::default());
    cluster.change("resourceslices", "", "n1-gpu.vendor.example-g2", |slice| {
        slice["spec"]["nodeName"] = json!(null);
        slice["spec"]["allNodes"] = json!(true);
    });
    let run = run(cluster);
    run.assert_passed(&REQUIRED);
    run.assert_unknown("inventory", Reason::InsufficientCapacity);
    assert_eq!(
        run.observed("inventory", "devices that a pod could get now"),
        Some("2")
    );
    assert_eq!(run.conclusion("allocated"), None);
}

#[test]
fn missing_optional_permissions_leave_the_verdict_alone() {
    let text = manifest::TEXT.replace("resources = [\"nodes\"]", "resources = [\"no-such\"]");
    let run = testing::run::<DraSupport>(
        &text,
        with_devices("v1.37.0", &["v1"], Scheduler::default()),
    );
    run.assert_passed(&REQUIRED);
    run.assert_unknown("inventory", Reason::PermissionDenied);
}

#[test]
fn an_image_that_no_node_gets_is_told_soon_and_accuses_nobody() {
    let mut cluster = with_devices("v1.37.0", &["v1"], Scheduler::default());
    cluster.without_images();
    run(cluster).assert_image_unavailable("allocated");
}

#[test]
fn no_fault_of_the_api_server_becomes_a_fail() {
    testing::assert_faults_are_no_fail::<DraSupport>(manifest::TEXT, || {
        with_devices("v1.37.0", &["v1"], Scheduler::default())
    });
}
