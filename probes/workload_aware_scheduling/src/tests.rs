//! The branches of the probe on a fake cluster that are its own; the steps are tested with `gang_scheduling`.

use crate::{WorkloadAwareScheduling, manifest};
use karat_sdk::testing::gang::{self, Scheduler};
use karat_sdk::testing::{self, FakeCluster, Run};
use karat_sdk::{Conclusion, Reason, json};

const REQUIRED: [&str; 6] = [
    "served",
    "room",
    "gated",
    "together",
    "none-starts",
    "released",
];

fn cluster(versions: &[&str], units: u32, scheduler: Scheduler) -> FakeCluster {
    let mut cluster = FakeCluster::new("v1.37.0");
    gang::install(&mut cluster, versions);
    for name in ["n0", "n1"] {
        gang::node(&mut cluster, name, "vendor.example/gpu", units);
    }
    scheduler.start(&mut cluster);
    cluster
}

fn run(cluster: FakeCluster) -> Run {
    testing::run::<WorkloadAwareScheduling>(manifest::TEXT, cluster)
}

#[test]
fn a_scheduler_that_obeys_passes_with_all_its_cases() {
    for units in [2, 0] {
        let run = run(cluster(
            &["v1beta1", "v1alpha3"],
            units,
            Scheduler::default(),
        ));
        assert_eq!(run.result, Ok(()));
        run.assert_passed(&REQUIRED);
        run.assert_passed(&["condition", "one-domain", "no-domain"]);
        assert_eq!(run.observed("served", "version used"), Some("v1beta1"));
        run.assert_earned();
        assert!(run.cluster.objects("pods").is_empty());
    }
}

#[test]
fn priority_classes_alone_are_no_workload_api() {
    let run = run(cluster(&[], 2, Scheduler::default()));
    assert!(matches!(
        run.conclusion("served"),
        Some(Conclusion::NotApplicable(_))
    ));
    assert_eq!(run.conclusion("together"), None);
}

#[test]
fn versions_that_are_not_known_are_not_spoken() {
    for versions in [&["v2"][..], &["v1alpha1"]] {
        let run = run(cluster(versions, 2, Scheduler::default()));
        run.assert_unknown("served", Reason::VersionSkew);
        run.assert_unknown("together", Reason::VersionSkew);
    }
}

#[test]
fn a_scheduler_that_does_not_know_groups_is_a_gate_that_is_off() {
    let scheduler = Scheduler {
        ignores_groups: true,
        ..Scheduler::default()
    };
    let run = run(cluster(&["v1beta1"], 2, scheduler));
    run.assert_unknown("gated", Reason::FeatureGateOff);
    run.assert_unknown("none-starts", Reason::FeatureGateOff);
}

#[test]
fn a_scheduler_that_knows_groups_and_breaks_them_fails() {
    let scheduler = Scheduler {
        starts_in_part: true,
        ..Scheduler::default()
    };
    let run = run(cluster(&["v1beta1"], 2, scheduler));
    run.assert_passed(&["gated", "together"]);
    run.assert_failed("none-starts", "started all the same");
}

#[test]
fn pruned_fields_are_gates_that_are_off() {
    let mut pods = cluster(&["v1beta1"], 2, Scheduler::default());
    pods.drop_field("pods", "/spec/schedulingGroup");
    run(pods).assert_unknown("gated", Reason::FeatureGateOff);

    let mut topology = cluster(&["v1beta1"], 2, Scheduler::default());
    topology.drop_field("podgroups", "/spec/schedulingConstraints");
    let run = run(topology);
    run.assert_passed(&REQUIRED);
    run.assert_unknown("one-domain", Reason::FeatureGateOff);
    assert_eq!(run.conclusion("no-domain"), None);
}

#[test]
fn a_scheduler_that_spreads_a_constrained_group_fails_the_optional_case() {
    let scheduler = Scheduler {
        ignores_topology: true,
        ..Scheduler::default()
    };
    let run = run(cluster(&["v1beta1"], 2, scheduler));
    run.assert_passed(&REQUIRED);
    run.assert_failed("no-domain", "of 3 pods of the group started");
}

#[test]
fn a_condition_that_comes_before_the_pods_is_told() {
    let mut cluster = cluster(&["v1beta1"], 2, Scheduler::default());
    cluster.controller(|cluster| {
        for group in cluster.objects("podgroups") {
            let text = |field: &str| group["metadata"][field].as_str().unwrap_or_default().to_owned();
            cluster.change("podgroups", &text("namespace"), &text("name"), |group| {
                group["status"]["conditions"] =
                    json!([{"type": "PodGroupInitiallyScheduled", "status": "True", "reason": "Scheduled"}]);
            });
        }
    });
    let run = run(cluster);
    run.assert_failed("condition", "before it has a single pod");
    run.assert_passed(&["gated", "together"]);
}

#[test]
fn an_image_that_no_node_gets_is_told_soon_and_accuses_nobody() {
    let mut cluster = cluster(&["v1beta1"], 2, Scheduler::default());
    cluster.without_images();
    run(cluster).assert_image_unavailable("gated");
}

#[test]
fn no_fault_of_the_api_server_becomes_a_fail() {
    testing::assert_faults_are_no_fail::<WorkloadAwareScheduling>(manifest::TEXT, || {
        cluster(&["v1beta1"], 2, Scheduler::default())
    });
}
