//! Every branch of the probe on a fake cluster: what passes, what fails, what cannot be told.
//!
//! The fake server knows the expressions of this probe by their words; whether a real one understands them is tested on a real
//! one.

use crate::objects::{COST, FRAGILE, NEEDED};
use crate::{AdmissionPolicy, manifest};
use karat_sdk::testing::{self, Admission, FakeCluster, Fault, Run, dra};
use karat_sdk::{Conclusion, Reason, Value, json};
use std::cell::RefCell;
use std::collections::BTreeMap;
use std::rc::Rc;
use std::time::Duration;

const POLICIES: &str = "validatingadmissionpolicies";
const BINDINGS: &str = "validatingadmissionpolicybindings";
const REQUIRED: [&str; 12] = [
    "stored",
    "pod-allowed",
    "pod-refused",
    "fail-closed",
    "job-allowed",
    "job-refused",
    "deployment-allowed",
    "deployment-refused",
    "plain-pod",
    "privileged",
    "host-path",
    "host-network",
];

/// How the fake server enforces things.
#[derive(Clone, Copy)]
struct Server {
    enforces: bool,
    /// From the creation of a binding until it counts, for the probe and for controllers.
    lag: Duration,
    lag_of_controllers: Duration,
    exempts_controllers: bool,
    /// Until then only dry runs are refused.
    real_after: Duration,
    pod_security: bool,
    type_checks: bool,
    controllers: bool,
}

const CONFORMING: Server = Server {
    enforces: true,
    lag: Duration::from_secs(1),
    lag_of_controllers: Duration::from_secs(1),
    exempts_controllers: false,
    real_after: Duration::ZERO,
    pod_security: true,
    type_checks: true,
    controllers: true,
};

type Since = Rc<RefCell<BTreeMap<String, Duration>>>;

impl Server {
    fn start(self, version: &str) -> FakeCluster {
        let mut cluster = FakeCluster::new(version);
        let group = "admissionregistration.k8s.io";
        cluster.serve(
            group,
            &["v1"],
            POLICIES,
            "ValidatingAdmissionPolicy",
            false,
            &["status"],
        );
        cluster.serve(
            group,
            &["v1"],
            BINDINGS,
            "ValidatingAdmissionPolicyBinding",
            false,
            &[],
        );
        cluster.serve("batch", &["v1"], "jobs", "Job", true, &["status"]);
        cluster.serve(
            "apps",
            &["v1"],
            "deployments",
            "Deployment",
            true,
            &["status"],
        );
        dra::install(&mut cluster, &["v1"]);
        let since = Since::default();
        let seen = since.clone();
        cluster.controller(move |cluster| {
            for binding in cluster.objects(BINDINGS) {
                let uid = binding["metadata"]["uid"].to_string();
                let now = cluster.elapsed();
                seen.borrow_mut().entry(uid).or_insert(now);
            }
        });
        for resource in ["pods", "resourceclaims"] {
            let since = since.clone();
            cluster.refuse(resource, move |asked| {
                self.decide(resource, asked, &since.borrow())
            });
        }
        if self.controllers {
            for (resource, word) in [("jobs", "Job"), ("deployments", "Deployment")] {
                cluster.controller(move |cluster| make_pods(cluster, resource, word));
            }
        }
        if self.type_checks {
            cluster.controller(type_check);
        }
        cluster
    }

    fn decide(
        self,
        resource: &str,
        asked: &Admission<'_>,
        since: &BTreeMap<String, Duration>,
    ) -> Option<(u16, String)> {
        if resource == "pods" && self.pod_security {
            let spec = &asked.object["spec"];
            let bad = spec["hostNetwork"] == true
                || spec["volumes"][0]["hostPath"].is_object()
                || spec["containers"][0]["securityContext"]["privileged"] == true;
            if bad {
                return Some((
                    403,
                    "violates PodSecurity \"baseline:latest\": x".to_owned(),
                ));
            }
        }
        if !asked.dry_run && asked.cluster.elapsed() < self.real_after {
            return None;
        }
        if !self.enforces || (self.exempts_controllers && asked.by_controller) {
            return None;
        }
        let lag = if asked.by_controller {
            self.lag_of_controllers
        } else {
            self.lag
        };
        for binding in asked.cluster.objects(BINDINGS) {
            let old_enough = since
                .get(&binding["metadata"]["uid"].to_string())
                .is_some_and(|from| asked.cluster.elapsed() >= *from + lag);
            let denies = binding["spec"]["validationActions"]
                .as_array()
                .is_some_and(|all| all.contains(&json!("Deny")));
            let name = binding["spec"]["policyName"].as_str().unwrap_or_default();
            let policy = asked.cluster.object(POLICIES, "", name);
            let matches = policy["spec"]["matchConstraints"]["resourceRules"][0]["resources"]
                == json!([resource]);
            if !(old_enough && denies && matches) {
                continue;
            }
            for validation in policy["spec"]["validations"]
                .as_array()
                .into_iter()
                .flatten()
            {
                let text = validation["expression"].as_str().unwrap_or_default();
                let said = match holds(text, asked.object) {
                    Some(true) => continue,
                    Some(false) => validation["message"].as_str().unwrap_or_default(),
                    None if policy["spec"]["failurePolicy"] == "Ignore" => continue,
                    None => "expression resulted in error: no such key",
                };
                return Some((
                    403,
                    format!(
                        "ValidatingAdmissionPolicy '{name}' with binding '{name}' denied request: {said}"
                    ),
                ));
            }
        }
        None
    }
}

/// The expressions of the probe; none stands for an evaluation that ends in an error.
fn holds(expression: &str, object: &Value) -> Option<bool> {
    let label = |key: &str| object["metadata"]["labels"][key].is_string();
    if expression == "false" {
        return Some(false);
    }
    if expression.contains(FRAGILE) {
        return if label(FRAGILE) && !label(NEEDED) {
            None
        } else {
            Some(true)
        };
    }
    if expression.contains(COST) {
        let limits = &object["spec"]["containers"][0]["resources"]["limits"];
        return Some(limits.is_null() || label(COST));
    }
    let class = &object["spec"]["devices"]["requests"][0]["exactly"]["deviceClassName"];
    Some(expression.contains(&format!("'{}'", class.as_str().unwrap_or_default())))
}

fn make_pods(cluster: &mut FakeCluster, resource: &str, word: &str) {
    for owner in cluster.objects(resource) {
        let uid = owner["metadata"]["uid"].clone();
        let name = owner["metadata"]["name"]
            .as_str()
            .unwrap_or_default()
            .to_owned();
        let space = owner["metadata"]["namespace"]
            .as_str()
            .unwrap_or_default()
            .to_owned();
        let pods = cluster.objects("pods");
        if pods
            .iter()
            .any(|pod| pod["metadata"]["ownerReferences"][0]["uid"] == uid)
        {
            continue;
        }
        let mut pod = owner["spec"]["template"].clone();
        pod["apiVersion"] = json!("v1");
        pod["kind"] = json!("Pod");
        pod["metadata"]["name"] = json!(format!("{name}-x"));
        pod["metadata"]["namespace"] = json!(space);
        pod["metadata"]["ownerReferences"] = json!([{"uid": uid}]);
        let Err(error) = cluster.create(pod) else {
            continue;
        };
        let karat_sdk::Error::Answered(answer) = error else {
            panic!("{error}")
        };
        if word == "Job" {
            if cluster.object("events", &space, &name).is_null() {
                cluster.put(json!({"apiVersion": "v1", "kind": "Event", "metadata": {"name": name, "namespace": space},
                    "involvedObject": {"uid": uid}, "reason": "FailedCreate",
                    "message": format!("Error creating: {}", answer.message)}));
            }
        } else {
            cluster.change(resource, &space, &name, |object| {
                object["status"]["conditions"] = json!([{"type": "ReplicaFailure", "status": "True",
                    "reason": "FailedCreate", "message": answer.message}]);
            });
        }
    }
}

fn type_check(cluster: &mut FakeCluster) {
    for policy in cluster.objects(POLICIES) {
        let name = policy["metadata"]["name"].as_str().unwrap_or_default();
        let wrong = policy["spec"].to_string().contains("object.spec.replicas");
        cluster.change(POLICIES, "", name, |policy| {
            policy["status"]["observedGeneration"] = policy["metadata"]["generation"].clone();
            if wrong {
                policy["status"]["typeChecking"] = json!({"expressionWarnings": [
                    {"fieldRef": "spec.validations[0].expression", "warning": "undefined field 'replicas'"}]});
            }
        });
    }
}

/// What must not be left behind.
const LEFT: [&str; 6] = [
    POLICIES,
    BINDINGS,
    "pods",
    "jobs",
    "deployments",
    "resourceclaims",
];

fn run(cluster: FakeCluster) -> Run {
    testing::run::<AdmissionPolicy>(manifest::TEXT, cluster)
}

fn run_on(server: Server) -> Run {
    run(server.start("v1.37.0"))
}

#[test]
fn a_conforming_server_passes() {
    let run = run_on(CONFORMING);
    assert_eq!(run.result, Ok(()));
    run.assert_passed(&REQUIRED);
    run.assert_passed(&["claim-allowed", "claim-refused", "type-checking"]);
    run.assert_unknown_with("mutating", Reason::FeatureGateOff, "not served");
    run.assert_earned();
    run.assert_clean(&LEFT);
}

#[test]
fn early_acceptance_is_no_fail() {
    let run = run_on(Server {
        lag: Duration::from_secs(25),
        lag_of_controllers: Duration::from_secs(25),
        ..CONFORMING
    });
    run.assert_passed(&REQUIRED);
    run.assert_earned();

    // Controllers may talk to another API server, which is later.
    let run = run_on(Server {
        lag_of_controllers: Duration::from_secs(20),
        ..CONFORMING
    });
    run.assert_passed(&REQUIRED);
    run.assert_earned();
    run.assert_clean(&LEFT);
}

#[test]
fn nothing_enforced_is_a_fail_of_every_negative() {
    let run = run_on(Server {
        enforces: false,
        ..CONFORMING
    });
    run.assert_passed(&["stored", "pod-allowed", "job-allowed", "privileged"]);
    run.assert_failed("pod-refused", "was accepted, although policy cost-abcd2345");
    run.assert_failed("fail-closed", "was accepted");
    run.assert_failed("job-refused", "the Job made pod");
    run.assert_failed("deployment-refused", "the Deployment made pod");
    run.assert_failed("claim-refused", "was accepted");
    run.assert_clean(&LEFT);
}

#[test]
fn a_policy_that_comes_too_late_is_a_fail() {
    let run = run_on(Server {
        lag: Duration::from_secs(45),
        ..CONFORMING
    });
    run.assert_failed("pod-refused", "was accepted");
}

#[test]
fn real_creates_decide_and_not_dry_runs() {
    let run = run_on(Server {
        real_after: Duration::from_secs(3600),
        ..CONFORMING
    });
    run.assert_failed("pod-refused", "was accepted");

    // Two API servers, of which the second learns of the policy later: that was no enforcement, and is no fail.
    let run = run_on(Server {
        real_after: Duration::from_secs(10),
        ..CONFORMING
    });
    run.assert_unknown_with("pod-refused", Reason::Deadline, "at the same time");
    run.assert_passed(&["fail-closed", "job-refused"]);
}

#[test]
fn pods_of_controllers_count_as_well() {
    let run = run_on(Server {
        exempts_controllers: true,
        ..CONFORMING
    });
    run.assert_passed(&["pod-refused", "fail-closed", "claim-refused"]);
    run.assert_failed("job-refused", "the Job made pod job-again-abcd2345-x");
    run.assert_failed("deployment-refused", "without the label");
    run.assert_clean(&LEFT);
}

#[test]
fn what_was_rewritten_is_named() {
    let mut cluster = CONFORMING.start("v1.37.0");
    cluster.admit(BINDINGS, |_, binding| {
        binding["spec"]["validationActions"] = json!(["Audit"])
    });
    let one = run(cluster);
    one.assert_failed("stored", "validationActions [\"Deny\"] became [\"Audit\"]");
    one.assert_failed("pod-refused", "was accepted");

    let mut cluster = CONFORMING.start("v1.37.0");
    cluster.admit(POLICIES, |_, policy| {
        policy["spec"]["failurePolicy"] = json!("Ignore")
    });
    let one = run(cluster);
    one.assert_failed("stored", "failurePolicy Fail became Ignore");
    one.assert_passed(&["pod-refused", "job-refused"]);
    one.assert_failed("fail-closed", "was accepted");

    // Additions are no rewriting.
    let mut cluster = CONFORMING.start("v1.37.0");
    cluster.admit(BINDINGS, |_, binding| {
        binding["spec"]["validationActions"] = json!(["Audit", "Deny"])
    });
    cluster.admit("pods", |_, pod| {
        pod["metadata"]["labels"]["platform.example/tenant"] = json!("t")
    });
    let one = run(cluster);
    one.assert_passed(&REQUIRED);
    one.assert_earned();
}

#[test]
fn a_policy_that_refuses_everything_is_a_fail_and_its_refusals_show_nothing() {
    let mut cluster = CONFORMING.start("v1.37.0");
    cluster.admit(POLICIES, |_, policy| {
        policy["spec"]["validations"][0]["expression"] = json!("false")
    });
    let run = run(cluster);
    run.assert_failed("stored", "lost an expression");
    run.assert_failed("pod-allowed", "satisfies the policy and was refused by it");
    run.assert_failed("job-allowed", "was refused by it");
    run.assert_unknown_with("job-refused", Reason::Deadline, "would show nothing");
    assert!(
        run.complaints()
            .iter()
            .any(|text| text.contains("control pod-allowed did not pass"))
    );
}

#[test]
fn rules_of_the_cluster_are_no_fault() {
    for message in [
        "ValidatingAdmissionPolicy 'platform' with binding 'platform' denied request: no",
        "admission webhook \"platform.example\" denied the request: no",
    ] {
        let mut cluster = CONFORMING.start("v1.37.0");
        cluster.refuse("pods", move |_| Some((422, message.to_owned())));
        let run = run(cluster);
        run.assert_unknown_with(
            "pod-allowed",
            Reason::PermissionDenied,
            "refused by something else",
        );
        let vacuous = "pod-refused: control pod-allowed did not pass";
        assert!(run.complaints().contains(&vacuous.to_owned()));
        run.assert_unknown_with(
            "job-allowed",
            Reason::PermissionDenied,
            "refused by something else",
        );
        run.assert_unknown_with("plain-pod", Reason::PermissionDenied, "denied");
    }
}

#[test]
fn a_label_that_something_adds_takes_the_case_away() {
    let mut cluster = CONFORMING.start("v1.37.0");
    cluster.admit("pods", |_, pod| {
        if pod["metadata"]["labels"][COST].is_null() {
            pod["metadata"]["labels"][COST] = json!("default");
        }
    });
    let run = run(cluster);
    run.assert_unknown_with(
        "pod-refused",
        Reason::CompetingWorkload,
        "breaks no rule any more",
    );
    run.assert_unknown_with(
        "job-refused",
        Reason::CompetingWorkload,
        "breaks no rule any more",
    );
}

#[test]
fn a_policy_that_somebody_deleted_or_changed_is_no_fail() {
    for what in ["deleted", "changed"] {
        let mut cluster = CONFORMING.start("v1.37.0");
        cluster.after(Duration::from_millis(2500), move |cluster| {
            let name = "cost-abcd2345";
            match what {
                "deleted" => cluster.remove(BINDINGS, "", name),
                _ => cluster.change(BINDINGS, "", name, |binding| {
                    binding["spec"]["validationActions"] = json!(["Warn"]);
                }),
            }
        });
        let run = run(cluster);
        run.assert_passed(&["stored", "pod-refused"]);
        let with = if what == "deleted" {
            "is gone"
        } else {
            "was changed"
        };
        for id in ["job-refused", "deployment-refused"] {
            run.assert_unknown_with(id, Reason::CompetingWorkload, with);
        }
    }
}

#[test]
fn pod_security_is_looked_at_by_itself() {
    let one = run_on(Server {
        pod_security: false,
        ..CONFORMING
    });
    one.assert_passed(&["pod-refused", "plain-pod"]);
    for id in ["privileged", "host-path", "host-network"] {
        one.assert_failed(id, "was accepted");
    }
    one.assert_clean(&LEFT);

    // Something that takes the flaw out leaves a harmless pod; nothing was refused and nothing got through.
    let mut cluster = Server {
        pod_security: false,
        ..CONFORMING
    }
    .start("v1.37.0");
    cluster.admit("pods", |_, pod| {
        if let Some(spec) = pod["spec"].as_object_mut() {
            spec.remove("volumes");
        }
    });
    let one = run(cluster);
    one.assert_unknown_with("host-path", Reason::CompetingWorkload, "taken the flaw out");
    one.assert_failed("host-network", "was accepted");

    // A quota, the authoriser and validation are not Pod Security.
    for (code, message, reason) in [
        (
            403,
            "exceeded quota: karat, requested: pods=1",
            Reason::InsufficientCapacity,
        ),
        (422, "spec.volumes[0]: Invalid value", Reason::VersionSkew),
        (
            403,
            "User \"a\" cannot create resource \"pods\" in API group \"\"",
            Reason::PermissionDenied,
        ),
    ] {
        let mut cluster = Server {
            pod_security: false,
            ..CONFORMING
        }
        .start("v1.37.0");
        cluster.refuse("pods", move |asked| {
            (asked.object["spec"]["hostNetwork"] == true).then(|| (code, message.to_owned()))
        });
        run(cluster).assert_unknown_with("host-network", reason, message);
    }
}

#[test]
fn without_the_api_the_server_fails() {
    let mut cluster = FakeCluster::new("v1.37.0");
    cluster.refuse("pods", |asked| {
        CONFORMING.decide("pods", asked, &BTreeMap::new())
    });
    let one = run(cluster);
    one.assert_failed("stored", "ValidatingAdmissionPolicy v1 is not served");
    one.assert_unknown_with("pod-refused", Reason::SolutionAbsent, "stored");
    one.assert_passed(&["plain-pod", "privileged", "host-path", "host-network"]);

    let one = run(FakeCluster::new("v1.29.4"));
    one.assert_unknown_with("stored", Reason::VersionSkew, "since Kubernetes 1.30");
}

#[test]
fn controllers_that_do_nothing_are_told_from_refusals() {
    let run = run_on(Server {
        controllers: false,
        ..CONFORMING
    });
    run.assert_unknown_with(
        "job-allowed",
        Reason::Deadline,
        "is the controller manager running",
    );
    run.assert_unknown_with("deployment-refused", Reason::Deadline, "would show nothing");
    run.assert_passed(&["pod-refused"]);
}

#[test]
fn type_checks_inform_only() {
    let one = run_on(Server {
        type_checks: false,
        ..CONFORMING
    });
    one.assert_unknown_with(
        "type-checking",
        Reason::Deadline,
        "the type check of policy",
    );
    one.assert_passed(&REQUIRED);

    let mut cluster = Server {
        type_checks: false,
        ..CONFORMING
    }
    .start("v1.37.0");
    cluster.controller(|cluster| {
        for policy in cluster.objects(POLICIES) {
            let name = policy["metadata"]["name"].as_str().unwrap_or_default();
            cluster.change(POLICIES, "", name, |policy| {
                policy["status"]["observedGeneration"] = json!(1)
            });
        }
    });
    let one = run(cluster);
    one.assert_failed("type-checking", "says nothing");
}

#[test]
fn claims_are_left_out_where_they_cannot_be_tried() {
    let mut cluster = CONFORMING.start("v1.37.0");
    cluster.fail_always(
        "create",
        "resourceclaims",
        Fault::Answer(
            403,
            "Forbidden",
            "User \"a\" cannot create resource \"resourceclaims\" in API group",
        ),
    );
    let run = run(cluster);
    assert_eq!(run.conclusion("claim-allowed"), None);
    run.assert_passed(&REQUIRED);
    run.assert_earned();
}

#[test]
fn claims_that_were_not_granted_are_left_out() {
    let narrow =
        manifest::TEXT.replace("resources = [\"resourceclaims\"]", "resources = [\"none\"]");
    let run = testing::run::<AdmissionPolicy>(&narrow, CONFORMING.start("v1.37.0"));
    assert_eq!(run.conclusion("claim-allowed"), None);
    run.assert_passed(&REQUIRED);
    run.assert_earned();
}

#[test]
fn a_server_in_trouble_is_no_fail() {
    for fault in [
        Fault::Answer(503, "ServiceUnavailable", "etcd"),
        Fault::Answer(429, "TooManyRequests", "slow down"),
        Fault::Lost,
    ] {
        for verb in ["create", "get", "watch"] {
            let mut cluster = CONFORMING.start("v1.37.0");
            cluster.fail(verb, "*", fault.clone(), 2, 6);
            let run = run(cluster);
            let fails = run
                .cases
                .iter()
                .filter(|case| matches!(case.conclusion, Some(Conclusion::Fail(_))));
            let fails: Vec<_> = fails.collect();
            assert!(fails.is_empty(), "{verb} {fault:?}: {fails:#?}");
        }
    }
}

#[test]
fn no_fault_of_the_api_server_becomes_a_fail() {
    testing::assert_faults_are_no_fail::<AdmissionPolicy>(manifest::TEXT, || {
        CONFORMING.start("v1.37.0")
    });
}

#[test]
fn a_cut_watch_over_the_pods_shows_no_quiet() {
    let mut cluster = CONFORMING.start("v1.37.0");
    cluster.after(Duration::from_secs(6), FakeCluster::cut_watches);
    let run = run(cluster);
    run.assert_unknown_with("job-refused", Reason::Deadline, "lost continuity");
    run.assert_passed(&["deployment-refused"]);
}
