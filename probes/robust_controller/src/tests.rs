//! The branches of the probe on a fake cluster with a fake JobSet.

use crate::{RobustController, manifest};
use karat_sdk::testing::{self, FakeCluster, Run};
use karat_sdk::{Reason, Value, json};

const SPACE: &str = "karat-abcd2345-robust-controller-main";
const REQUIRED: [&str; 8] = [
    "registered",
    "running",
    "wired",
    "accepted",
    "rejects",
    "reconciles",
    "heals",
    "cleans",
];

/// How JobSet is in a cluster. Default: as it should be.
#[derive(Clone, Copy, Debug, Default)]
struct JobSet {
    is_not_established: bool,
    has_no_webhook: bool,
    /// Its webhook lets everything through, as one with `failurePolicy: Ignore` that is down.
    is_lenient: bool,
    refuses_everything: bool,
    /// Its webhook cannot be called.
    is_unreachable: bool,
    is_idle: bool,
    never_heals: bool,
    never_ends: bool,
    holds_on: bool,
    is_deaf_to_edits: bool,
    never_renews: bool,
}

fn serve(cluster: &mut FakeCluster) {
    let mut serve = |group, version, plural, kind, namespaced| {
        cluster.serve(group, &[version], plural, kind, namespaced, &["status"]);
    };
    let extensions = "apiextensions.k8s.io";
    serve(
        extensions,
        "v1",
        "customresourcedefinitions",
        "CustomResourceDefinition",
        false,
    );
    let admission = "admissionregistration.k8s.io";
    serve(
        admission,
        "v1",
        "mutatingwebhookconfigurations",
        "MutatingWebhookConfiguration",
        false,
    );
    serve(
        admission,
        "v1",
        "validatingwebhookconfigurations",
        "ValidatingWebhookConfiguration",
        false,
    );
    serve("coordination.k8s.io", "v1", "leases", "Lease", true);
    serve(
        "discovery.k8s.io",
        "v1",
        "endpointslices",
        "EndpointSlice",
        true,
    );
    serve("apps", "v1", "deployments", "Deployment", true);
    serve("apps", "v1", "statefulsets", "StatefulSet", true);
    serve("batch", "v1", "jobs", "Job", true);
    serve("jobset.x-k8s.io", "v1alpha2", "jobsets", "JobSet", true);
    serve(
        "leaderworkerset.x-k8s.io",
        "v1",
        "leaderworkersets",
        "LeaderWorkerSet",
        true,
    );
}

impl JobSet {
    fn cluster(self) -> FakeCluster {
        let mut cluster = FakeCluster::new("v1.37.0");
        serve(&mut cluster);
        cluster.put(json!({"apiVersion": "v1", "kind": "Node", "metadata": {"name": "n1"},
            "spec": {"taints": [{"key": "vendor.example/gpu", "effect": "NoSchedule"}]},
            "status": {"conditions": [{"type": "Ready", "status": "True"}], "allocatable": {"cpu": "4"}}}));
        let established = if self.is_not_established {
            "False"
        } else {
            "True"
        };
        cluster.put(json!({
            "apiVersion": "apiextensions.k8s.io/v1", "kind": "CustomResourceDefinition",
            "metadata": {"name": "jobsets.jobset.x-k8s.io"},
            "spec": {"versions": [{"name": "v1alpha2", "served": true}]},
            "status": {"conditions": [{"type": "Established", "status": established, "message": "names conflict"}, {"type": "NamesAccepted", "status": "True"}]},
        }));
        if !self.has_no_webhook {
            cluster.put(webhooks("Fail"));
        }
        let slice = json!({
            "apiVersion": "discovery.k8s.io/v1", "kind": "EndpointSlice",
            "metadata": {"name": "webhook-1", "namespace": "jobset-system", "labels": {"kubernetes.io/service-name": "jobset-webhook-service"}},
            "endpoints": [{"conditions": {"ready": true}}],
        });
        cluster.put(slice);
        cluster.put(json!({
            "apiVersion": "apps/v1", "kind": "Deployment",
            "metadata": {"name": "jobset-controller-manager", "namespace": "jobset-system"},
            "spec": {"replicas": 1}, "status": {"availableReplicas": 1},
        }));
        cluster.put(json!({
            "apiVersion": "coordination.k8s.io/v1", "kind": "Lease",
            "metadata": {"name": "6d4f6a47.jobset.x-k8s.io", "namespace": "jobset-system"}, "spec": {"renewTime": "0"},
        }));
        cluster.refuse("jobsets", move |admission| self.says(admission.object));
        cluster.controller(move |cluster| self.work(cluster));
        cluster
    }

    /// The webhook.
    fn says(self, object: &Value) -> Option<(u16, String)> {
        let denied = |why: &str| {
            let text = format!("admission webhook \"vjobset.kb.io\" denied the request: {why}");
            Some((403, text))
        };
        if self.is_unreachable {
            let text = "Internal error occurred: failed calling webhook \"vjobset.kb.io\": connection refused";
            return Some((500, text.to_owned()));
        }
        let flawed = !object["spec"]["successPolicy"].is_null();
        if self.refuses_everything {
            denied("no")
        } else if flawed && !self.is_lenient && !self.has_no_webhook {
            denied("invalid replicatedJob name")
        } else {
            None
        }
    }

    /// The controller.
    fn work(self, cluster: &mut FakeCluster) {
        let seconds = cluster.elapsed().as_secs();
        if !self.never_renews {
            cluster.change(
                "leases",
                "jobset-system",
                "6d4f6a47.jobset.x-k8s.io",
                |lease| {
                    lease["spec"]["renewTime"] = json!(seconds.to_string());
                },
            );
        }
        if self.is_idle {
            return;
        }
        for set in cluster.objects("jobsets") {
            if !set["metadata"]["deletionTimestamp"].is_null() {
                continue;
            }
            let name = set["metadata"]["name"].as_str().unwrap().to_owned();
            let made = !set["status"]["made"].is_null();
            let replicas = set["spec"]["replicatedJobs"][0]["replicas"]
                .as_u64()
                .unwrap_or(1);
            for at in 0..replicas {
                let job = format!("{name}-w-{at}");
                if cluster.object("jobs", SPACE, &job).is_null() && !(made && self.never_heals) {
                    cluster.put(json!({
                        "apiVersion": "batch/v1", "kind": "Job",
                        "metadata": {
                            "name": job, "namespace": SPACE, "labels": {"jobset.sigs.k8s.io/jobset-name": name},
                            "finalizers": if self.holds_on { json!(["example/hold"]) } else { json!([]) },
                            "ownerReferences": [{"apiVersion": "jobset.x-k8s.io/v1alpha2", "kind": "JobSet", "name": name, "uid": set["metadata"]["uid"], "controller": true}],
                        },
                        "spec": {},
                    }));
                }
                if !self.is_deaf_to_edits {
                    let suspend = set["spec"]["suspend"] == true;
                    cluster.change("jobs", SPACE, &job, |job| {
                        job["spec"]["suspend"] = json!(suspend)
                    });
                }
            }
            let ends = name.starts_with("short") && !self.never_ends;
            cluster.change("jobsets", SPACE, &name, |set| {
                set["status"]["made"] = json!(true);
                if ends {
                    set["status"]["conditions"] = json!([{"type": "Completed", "status": "True"}]);
                }
            });
        }
    }

    fn run(self) -> Run {
        run(self.cluster())
    }
}

fn webhooks(policy: &str) -> Value {
    json!({
        "apiVersion": "admissionregistration.k8s.io/v1", "kind": "ValidatingWebhookConfiguration",
        "metadata": {"name": "jobset-validating-webhook-configuration"},
        "webhooks": [{
            "name": "vjobset.kb.io", "failurePolicy": policy,
            "clientConfig": {"caBundle": "Y2E=", "service": {"name": "jobset-webhook-service", "namespace": "jobset-system"}},
            "rules": [{"apiGroups": ["jobset.x-k8s.io"], "apiVersions": ["v1alpha2"], "operations": ["CREATE", "UPDATE"], "resources": ["jobsets"]}],
        }],
    })
}

fn run(cluster: FakeCluster) -> Run {
    testing::run::<RobustController>(manifest::TEXT, cluster)
}

#[test]
fn an_operator_that_works_passes_and_nothing_is_left() {
    let run = JobSet::default().run();
    assert_eq!(run.result, Ok(()));
    run.assert_passed(&REQUIRED);
    run.assert_passed(&["follows"]);
    assert_eq!(run.observed("registered", "operator"), Some("JobSet"));
    assert_eq!(
        run.observed("registered", "for AI in particular"),
        Some("no")
    );
    run.assert_earned();
    assert!(run.cluster.objects("jobsets").is_empty());
    assert!(run.cluster.objects("jobs").is_empty());
}

#[test]
fn without_an_operator_it_says_what_to_install() {
    let mut cluster = FakeCluster::new("v1.37.0");
    serve(&mut cluster);
    let run = run(cluster);
    for id in REQUIRED {
        run.assert_unknown(id, Reason::SolutionAbsent);
    }
}

#[test]
fn each_fault_is_found_where_it_is() {
    let healthy = JobSet::default();
    let faults = [
        (
            JobSet {
                is_not_established: true,
                ..healthy
            },
            "registered",
            "not Established",
        ),
        (
            JobSet {
                has_no_webhook: true,
                ..healthy
            },
            "wired",
            "no validating webhook",
        ),
        (
            JobSet {
                is_lenient: true,
                ..healthy
            },
            "rejects",
            "was accepted",
        ),
        (
            JobSet {
                refuses_everything: true,
                ..healthy
            },
            "accepted",
            "lets no valid object through",
        ),
        (
            JobSet {
                is_idle: true,
                ..healthy
            },
            "reconciles",
            "2 jobs",
        ),
        (
            JobSet {
                never_heals: true,
                ..healthy
            },
            "heals",
            "did not come back",
        ),
        (
            JobSet {
                holds_on: true,
                ..healthy
            },
            "cleans",
            "still there",
        ),
        (
            JobSet {
                is_deaf_to_edits: true,
                ..healthy
            },
            "follows",
            "suspended",
        ),
        (
            JobSet {
                never_renews: true,
                ..healthy
            },
            "running",
            "not renewed",
        ),
    ];
    for (fault, case, part) in faults {
        fault.run().assert_failed(case, part);
    }
}

#[test]
fn a_webhook_that_cannot_be_asked_says_nothing_by_itself() {
    let down = JobSet {
        is_unreachable: true,
        never_renews: true,
        ..JobSet::default()
    };
    let run = down.run();
    run.assert_failed("running", "not renewed");
    run.assert_unknown("accepted", Reason::Deadline);
    run.assert_unknown("rejects", Reason::Deadline);
}

#[test]
fn a_final_state_that_is_late_is_no_fail() {
    let late = JobSet {
        never_ends: true,
        ..JobSet::default()
    };
    late.run().assert_unknown("reconciles", Reason::Deadline);
}

#[test]
fn a_flawed_object_that_is_accepted_does_not_stay() {
    let lenient = JobSet {
        is_lenient: true,
        ..JobSet::default()
    };
    assert!(lenient.run().cluster.objects("jobsets").is_empty());
}

#[test]
fn a_refusal_by_somebody_else_is_not_the_operators() {
    let mut cluster = JobSet {
        is_lenient: true,
        ..JobSet::default()
    }
    .cluster();
    cluster.refuse("jobsets", |admission| {
        let flawed = !admission.object["spec"]["successPolicy"].is_null();
        flawed.then(|| {
            (
                422,
                "JobSet \"flawed\" is invalid: spec.successPolicy: too long".into(),
            )
        })
    });
    run(cluster).assert_unknown("rejects", Reason::VersionSkew);
    let mut cluster = JobSet::default().cluster();
    cluster.refuse("jobsets", |_| {
        let text = "admission webhook \"quota.platform.example\" denied the request: too many";
        Some((403, text.into()))
    });
    run(cluster).assert_unknown("accepted", Reason::PermissionDenied);
}

#[test]
fn a_webhook_without_anybody_behind_it_is_found() {
    let mut cluster = JobSet::default().cluster();
    cluster.change("endpointslices", "jobset-system", "webhook-1", |slice| {
        slice["endpoints"][0]["conditions"]["ready"] = json!(false);
    });
    run(cluster).assert_failed("wired", "no ready endpoint");
    let mut cluster = JobSet::default().cluster();
    cluster.change(
        "deployments",
        "jobset-system",
        "jobset-controller-manager",
        |one| {
            one["status"] = json!({});
        },
    );
    run(cluster).assert_failed("running", "no available replica");
}

#[test]
fn an_image_that_no_node_gets_is_told_soon_and_accuses_nobody() {
    let mut cluster = JobSet {
        never_ends: true,
        ..JobSet::default()
    }
    .cluster();
    cluster.without_images();
    cluster.controller(|cluster| {
        if cluster.object("pods", SPACE, "short-w-0-0").is_null() {
            cluster.put(json!({"apiVersion": "v1", "kind": "Pod", "metadata": {"name": "short-w-0-0", "namespace": SPACE},
                "status": {"phase": "Running"}}));
        }
    });
    run(cluster).assert_image_unavailable("reconciles");
}

/// How Kubeflow Trainer is in a cluster, beside a JobSet that works.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Trainer {
    Works,
    /// Its webhook lets everything through.
    IsLenient,
    RefusesEverything,
    NeverHeals,
    /// It has no webhook, as a chart without one.
    HasNoWebhook,
}

const TRAINER: &str = "trainer.kubeflow.org";

impl Trainer {
    fn cluster(self) -> FakeCluster {
        let mut cluster = JobSet::default().cluster();
        for (plural, kind) in [
            ("trainjobs", "TrainJob"),
            ("trainingruntimes", "TrainingRuntime"),
        ] {
            cluster.serve(TRAINER, &["v1alpha1"], plural, kind, true, &["status"]);
        }
        cluster.put(json!({
            "apiVersion": "apiextensions.k8s.io/v1", "kind": "CustomResourceDefinition",
            "metadata": {"name": "trainjobs.trainer.kubeflow.org"},
            "spec": {"versions": [{"name": "v1alpha1", "served": true}]},
            "status": {"conditions": [{"type": "Established", "status": "True"}, {"type": "NamesAccepted", "status": "True"}]},
        }));
        let webhook = |kind: &str| {
            json!({"name": format!("validator.{kind}.{TRAINER}"), "clientConfig": {"url": "https://10.0.0.1/"},
                "rules": [{"apiGroups": [TRAINER], "operations": ["CREATE"], "resources": [format!("{kind}s")]}]})
        };
        if self != Trainer::HasNoWebhook {
            cluster.put(json!({
                "apiVersion": "admissionregistration.k8s.io/v1", "kind": "ValidatingWebhookConfiguration",
                "metadata": {"name": "trainer"}, "webhooks": [webhook("trainingruntime"), webhook("trainjob")],
            }));
        }
        cluster.put(json!({
            "apiVersion": "coordination.k8s.io/v1", "kind": "Lease",
            "metadata": {"name": TRAINER, "namespace": "kubeflow-system"}, "spec": {"renewTime": "0"},
        }));
        cluster.refuse("trainjobs", move |admission| self.says(admission));
        cluster.controller(move |cluster| self.work(cluster));
        cluster
    }

    /// The webhook, which hears of a runtime three seconds after it was made.
    fn says(self, asked: &testing::Admission<'_>) -> Option<(u16, String)> {
        let denied = |why: &str| {
            let text = format!(
                "admission webhook \"validator.trainjob.{TRAINER}\" denied the request: {why}"
            );
            Some((403, text))
        };
        let name = asked.object["spec"]["runtimeRef"]["name"].as_str()?;
        let runtime = asked.cluster.object("trainingruntimes", SPACE, name);
        let known = !runtime["metadata"]["annotations"]["known"].is_null();
        match self {
            Trainer::RefusesEverything => denied("no"),
            Trainer::IsLenient => None,
            _ if known || asked.by_controller => None,
            _ => denied("specified trainingRuntime must be created before the TrainJob"),
        }
    }

    fn work(self, cluster: &mut FakeCluster) {
        let seconds = cluster.elapsed().as_secs();
        cluster.change("leases", "kubeflow-system", TRAINER, |lease| {
            lease["spec"]["renewTime"] = json!(format!("after {seconds} s"));
        });
        for runtime in cluster.objects("trainingruntimes") {
            let name = runtime["metadata"]["name"].as_str().unwrap().to_owned();
            let made = runtime["metadata"]["annotations"]["made"].as_u64();
            cluster.change("trainingruntimes", SPACE, &name, |runtime| match made {
                None => runtime["metadata"]["annotations"]["made"] = json!(seconds),
                Some(made) if seconds >= made + 3 => {
                    runtime["metadata"]["annotations"]["known"] = json!(true);
                }
                Some(_) => {}
            });
        }
        for job in cluster.objects("trainjobs") {
            let name = job["metadata"]["name"].as_str().unwrap().to_owned();
            let runtime = cluster.object("trainingruntimes", SPACE, &name);
            let jobs = runtime["spec"]["template"]["spec"]["replicatedJobs"].clone();
            let made = job["status"]["made"] == true;
            if cluster.object("jobsets", SPACE, &name).is_null()
                && !(made && self == Trainer::NeverHeals)
            {
                cluster.put(json!({
                    "apiVersion": "jobset.x-k8s.io/v1alpha2", "kind": "JobSet",
                    "metadata": {"name": name, "namespace": SPACE,
                        "ownerReferences": [{"apiVersion": "trainer.kubeflow.org/v1alpha1", "kind": "TrainJob", "name": name, "uid": job["metadata"]["uid"], "controller": true}]},
                    "spec": {"replicatedJobs": jobs},
                }));
            }
            let suspend = job["spec"]["suspend"] == true;
            cluster.change("jobsets", SPACE, &name, |set| {
                set["spec"]["suspend"] = json!(suspend)
            });
            let ends = name.starts_with("short");
            cluster.change("trainjobs", SPACE, &name, |job| {
                job["status"]["made"] = json!(true);
                if ends {
                    job["status"]["conditions"] = json!([{"type": "Complete", "status": "True"}]);
                }
            });
        }
    }
}

#[test]
fn an_operator_for_ai_comes_before_the_others() {
    let cluster = Trainer::Works.cluster();
    let done = run(cluster);
    assert_eq!(done.result, Ok(()));
    done.assert_passed(&REQUIRED);
    done.assert_passed(&["follows"]);
    done.assert_earned();
    done.assert_clean(&["trainjobs", "trainingruntimes", "jobsets"]);
    assert_eq!(
        done.observed("registered", "operator"),
        Some("Kubeflow Trainer")
    );
    assert_eq!(
        done.observed("registered", "for AI in particular"),
        Some("yes")
    );
    assert_eq!(done.observed("registered", "JobSet"), Some("not tried"));
    // Its pods lie on the node of the lease.
    let made = done.calls.iter().filter(|call| call.verb == "create");
    let runtimes: Vec<_> = made
        .filter(|call| call.resource == "trainingruntimes")
        .collect();
    assert_eq!(runtimes.len(), 2);
    assert!(runtimes.iter().all(|call| call.sent.contains("\"n1\"")));

    let other = run(Trainer::HasNoWebhook.cluster());
    assert_eq!(other.observed("registered", "operator"), Some("JobSet"));
    other.assert_passed(&REQUIRED);
}

#[test]
fn faults_of_trainer_are_found() {
    run(Trainer::IsLenient.cluster()).assert_failed("rejects", "a runtime that does not exist was");
    run(Trainer::RefusesEverything.cluster())
        .assert_failed("accepted", "lets no valid object through");
    run(Trainer::NeverHeals.cluster()).assert_failed("heals", "did not come back");
}

#[test]
fn without_a_node_nothing_is_tried_on_it() {
    let mut cluster = JobSet::default().cluster();
    cluster.remove("nodes", "", "n1");
    let run = run(cluster);
    run.assert_passed(&["registered", "running", "wired"]);
    run.assert_unknown("reconciles", Reason::InsufficientCapacity);
}

#[test]
fn no_fault_of_the_api_server_becomes_a_fail() {
    testing::assert_faults_are_no_fail::<RobustController>(manifest::TEXT, || {
        JobSet::default().cluster()
    });
}
