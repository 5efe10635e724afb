//! Every branch of the probe on a fake cluster with fake controllers of Agent Sandbox, in both versions.

use crate::{AgentSandboxLifecycle, manifest};
use karat_sdk::testing::{self, FakeCluster, FakeResult, PodRequest, Run};
use karat_sdk::{Reason, Value, json};

const SPACE: &str = "karat-abcd2345-agent-sandbox-lifecycle-main";
const REQUIRED: [&str; 6] = ["served", "runs", "answers", "pool", "claim", "ends"];

/// What is wrong with Agent Sandbox, or with what is below it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Wrong {
    Nothing,
    /// A sandbox gets no pod, or a pool none.
    NoPod,
    NoPool,
    /// Pods of sandboxes, or of pools, are others than described.
    OtherPod,
    OtherWarm,
    /// Sandboxes are Ready at once.
    ReadyAtOnce,
    /// And never.
    NeverReady,
    /// Two pods for a sandbox.
    Two,
    /// The name in the status is missing, or leads nowhere.
    NoFqdn,
    NoName,
    /// Suspending changes nothing; or nothing comes back.
    NoSuspend,
    NoResume,
    /// The status of the pool is not written.
    NoStatus,
    /// A claim starts cold, or never, or is Ready with nothing.
    Cold,
    NeverBound,
    Empty,
    /// The pool is filled once.
    NoRefill,
    /// Variables are given to whoever asks.
    EnvGiven,
    /// Deleting a claim leaves the pod.
    PodStays,
}

use Wrong::*;

fn text(value: &Value) -> String {
    value.as_str().unwrap_or_default().to_owned()
}

fn is(object: &Value, condition: &str) -> bool {
    let all = object["status"]["conditions"].as_array();
    all.into_iter()
        .flatten()
        .any(|one| one["type"] == condition && one["status"] == "True")
}

fn ready(so: bool, message: &str) -> Value {
    let status = if so { "True" } else { "False" };
    json!([{"type": "Ready", "status": status, "reason": "Test", "message": message}])
}

fn owned(pod: &Value, by: &Value) -> bool {
    pod["metadata"]["ownerReferences"][0]["uid"] == by["metadata"]["uid"]
}

fn owner(of: &Value) -> Value {
    json!([{"apiVersion": of["apiVersion"], "kind": of["kind"], "name": of["metadata"]["name"], "uid": of["metadata"]["uid"], "controller": true}])
}

fn put_pod(cluster: &mut FakeCluster, name: &str, of: &Value, template: &Value, wrong: Wrong) {
    let mut spec = template.clone();
    let warm = of["kind"] == "SandboxWarmPool";
    if (wrong == OtherPod && !warm) || (wrong == OtherWarm && warm) {
        spec["containers"][0]["image"] = json!("plain");
    }
    cluster.put(json!({
        "apiVersion": "v1", "kind": "Pod",
        "metadata": {"name": name, "namespace": SPACE, "ownerReferences": owner(of)}, "spec": spec,
        "status": {"phase": "Pending"},
    }));
}

/// Pods begin to run a look after they were made.
fn kubelet(cluster: &mut FakeCluster) {
    for pod in cluster.objects("pods") {
        if pod["status"]["phase"] == "Running" {
            continue;
        }
        let status = json!({"phase": "Running", "podIP": "10.9.8.7", "conditions": [{"type": "Ready", "status": "True"}]});
        let name = text(&pod["metadata"]["name"]);
        cluster.change("pods", SPACE, &name, |pod| pod["status"] = status);
    }
}

fn sandboxes(cluster: &mut FakeCluster, wrong: Wrong) {
    for sandbox in cluster.objects("sandboxes") {
        let name = text(&sandbox["metadata"]["name"]);
        let mut pods = cluster.objects("pods");
        pods.retain(|pod| owned(pod, &sandbox));
        let spec = &sandbox["spec"];
        let rests = spec["replicas"] == 0 || spec["operatingMode"] == "Suspended";
        let marked = !sandbox["metadata"]["annotations"]["rested"].is_null();
        if rests && wrong != NoSuspend {
            for pod in &pods {
                cluster.remove("pods", SPACE, &text(&pod["metadata"]["name"]));
            }
            cluster.change("sandboxes", SPACE, &name, |one| {
                one["metadata"]["annotations"] = json!({"rested": "yes"});
            });
            continue;
        }
        let adopted = !sandbox["metadata"]["annotations"]["adopted"].is_null();
        if pods.is_empty() && wrong != NoPod && !adopted && !(wrong == NoResume && marked) {
            let template = &spec["podTemplate"]["spec"];
            put_pod(cluster, &name, &sandbox, template, wrong);
            if wrong == Two {
                put_pod(cluster, &format!("{name}-2"), &sandbox, template, wrong);
            }
        }
        let so = match wrong {
            ReadyAtOnce => true,
            NeverReady => false,
            _ => pods.iter().any(|pod| is(pod, "Ready")),
        };
        let fqdn = format!("{name}.{SPACE}.svc.cluster.local");
        cluster.change("sandboxes", SPACE, &name, |one| {
            one["status"]["conditions"] = ready(so, "");
            if wrong != NoFqdn {
                one["status"]["serviceFQDN"] = json!(fqdn);
            }
        });
    }
}

fn template_of(cluster: &FakeCluster, name: &Value) -> Value {
    cluster.object("sandboxtemplates", SPACE, &text(name))["spec"]["podTemplate"]["spec"].clone()
}

fn pools(cluster: &mut FakeCluster, wrong: Wrong) {
    for pool in cluster.objects("sandboxwarmpools") {
        let name = text(&pool["metadata"]["name"]);
        let mut pods = cluster.objects("pods");
        pods.retain(|pod| owned(pod, &pool));
        let wanted = pool["spec"]["replicas"].as_u64().unwrap_or(0);
        let made = pool["made"].as_u64().unwrap_or(0);
        let may = wrong != NoPool && !(wrong == NoRefill && made >= wanted);
        if (pods.len() as u64) < wanted && may {
            let template = template_of(cluster, &pool["spec"]["sandboxTemplateRef"]["name"]);
            put_pod(cluster, &format!("{name}-{made}"), &pool, &template, wrong);
            cluster.change("sandboxwarmpools", SPACE, &name, |pool| {
                pool["made"] = json!(made + 1)
            });
        }
        if wrong != NoStatus {
            let have = pods.len();
            cluster.change("sandboxwarmpools", SPACE, &name, |pool| {
                pool["status"]["replicas"] = json!(have);
            });
        }
    }
}

fn claims(cluster: &mut FakeCluster, wrong: Wrong) {
    for claim in cluster.objects("sandboxclaims") {
        let name = text(&claim["metadata"]["name"]);
        let sandbox = cluster.object("sandboxes", SPACE, &name).clone();
        if wrong == NeverBound {
            continue;
        }
        if !claim["spec"]["env"].is_null() && wrong != EnvGiven {
            cluster.change("sandboxclaims", SPACE, &name, |claim| {
                claim["status"]["conditions"] = ready(false, "env is not allowed by the template");
            });
            continue;
        }
        if sandbox.is_null() && wrong != Empty {
            let pool = &cluster.objects("sandboxwarmpools")[0];
            let template = template_of(cluster, &pool["spec"]["sandboxTemplateRef"]["name"]);
            let mut warm = cluster.objects("pods");
            warm.retain(|pod| owned(pod, pool));
            let adopts = wrong != Cold && !warm.is_empty();
            let stored = cluster.put(json!({
                "apiVersion": "agents.x-k8s.io/v1alpha1", "kind": "Sandbox",
                "metadata": {"name": name, "namespace": SPACE, "ownerReferences": owner(&claim),
                    "annotations": if adopts { json!({"adopted": "yes"}) } else { json!({}) }},
                "spec": {"podTemplate": {"spec": template}},
            }));
            if adopts {
                let pod = text(&warm[0]["metadata"]["name"]);
                cluster.change("pods", SPACE, &pod, |pod| {
                    pod["metadata"]["ownerReferences"] = owner(&stored);
                    if wrong == PodStays {
                        pod["metadata"]["finalizers"] = json!(["example/hold"]);
                    }
                });
            }
            continue;
        }
        let so = wrong == Empty || is(&sandbox, "Ready");
        let v1beta1 = text(&claim["apiVersion"]).ends_with("v1beta1");
        cluster.change("sandboxclaims", SPACE, &name, |claim| {
            claim["status"]["conditions"] = ready(so, "");
            let key = if v1beta1 { "name" } else { "Name" };
            claim["status"]["sandbox"] = json!({key: name});
        });
    }
}

fn answers(asked: &PodRequest<'_>, wrong: Wrong) -> FakeResult {
    let words: Vec<&str> = asked.argv.iter().map(String::as_str).collect();
    match words.as_slice() {
        [_, "look", items @ ..] => {
            let mut said = String::new();
            for item in items {
                let url = item.trim_start_matches("http=");
                let lost = wrong == NoName && url.contains("svc");
                let status = if lost { "uncategorized error" } else { "200" };
                said.push_str(&format!("http.{url}={status}\n"));
            }
            FakeResult::output(&format!("{said}done=1\n"))
        }
        [_, "get", url] => {
            let host = url.trim_start_matches("http://");
            let host = host.split('.').next().unwrap_or_default();
            FakeResult::output(&format!("{{\"pod\": \"{host}\"}}\n"))
        }
        _ => FakeResult::not_started("of the test"),
    }
}

fn serve(cluster: &mut FakeCluster, versions: &[&str]) {
    let core = "agents.x-k8s.io";
    cluster.serve(core, versions, "sandboxes", "Sandbox", true, &["status"]);
    for (plural, kind) in [
        ("sandboxtemplates", "SandboxTemplate"),
        ("sandboxwarmpools", "SandboxWarmPool"),
        ("sandboxclaims", "SandboxClaim"),
    ] {
        let group = "extensions.agents.x-k8s.io";
        cluster.serve(group, versions, plural, kind, true, &["status"]);
    }
}

fn cluster_of(versions: &'static [&'static str], wrong: Wrong) -> FakeCluster {
    let mut cluster = FakeCluster::new("v1.37.0");
    cluster.put(json!({"apiVersion": "v1", "kind": "Node", "metadata": {"name": "n1"}, "spec": {},
        "status": {"conditions": [{"type": "Ready", "status": "True"}], "allocatable": {"cpu": "4"}}}));
    serve(&mut cluster, versions);
    if versions == ["v1alpha1"] {
        cluster.refuse("sandboxclaims", |asked| {
            let env = !asked.object["spec"]["env"].is_null();
            env.then(|| {
                (
                    400,
                    "strict decoding error: unknown field \"spec.env\"".to_owned(),
                )
            })
        });
    }
    cluster.controller(move |cluster| {
        sandboxes(cluster, wrong);
        pools(cluster, wrong);
        claims(cluster, wrong);
        if wrong != ReadyAtOnce {
            kubelet(cluster);
        }
    });
    cluster.commands(move |asked| answers(asked, wrong));
    cluster
}

fn cluster(wrong: Wrong) -> FakeCluster {
    cluster_of(&["v1alpha1"], wrong)
}

fn run(wrong: Wrong) -> Run {
    testing::run::<AgentSandboxLifecycle>(manifest::TEXT, cluster(wrong))
}

#[test]
fn both_versions_pass_and_nothing_is_left() {
    let run = run(Nothing);
    assert_eq!(run.result, Ok(()));
    run.assert_passed(&REQUIRED);
    run.assert_passed(&["suspends"]);
    run.assert_unknown_with("env", Reason::VersionSkew, "no variables");
    run.assert_earned();
    run.assert_clean(&["sandboxes", "sandboxclaims"]);
    for versions in [
        &["v1beta1"] as &'static [&'static str],
        &["v1beta1", "v1alpha1"],
    ] {
        let run =
            testing::run::<AgentSandboxLifecycle>(manifest::TEXT, cluster_of(versions, Nothing));
        assert_eq!(run.result, Ok(()));
        run.assert_passed(&REQUIRED);
        run.assert_passed(&["suspends", "env"]);
        run.assert_earned();
    }
}

#[test]
fn each_fault_is_found_where_it_is() {
    for (wrong, case, part) in [
        (NoPod, "runs", "has no pod"),
        (OtherPod, "runs", "not the one of the template"),
        (ReadyAtOnce, "runs", "says that it is Ready"),
        (NeverReady, "runs", "does not say so"),
        (Two, "runs", "with 2 pods"),
        (NoFqdn, "answers", "no serviceFQDN"),
        (NoName, "answers", "does not lead"),
        (NoSuspend, "suspends", "still there"),
        (NoResume, "suspends", "0 of 1 pods"),
        (NoPool, "pool", "0 of 2 pods"),
        (OtherWarm, "pool", "not the one of the template"),
        (NoStatus, "pool", "its status says 0"),
        (Cold, "claim", "was started for the claim"),
        (NeverBound, "claim", "the claim says nothing"),
        (Empty, "claim", "is not there"),
        (NoRefill, "claim", "1 of 2 pods"),
        (PodStays, "ends", "still its pod"),
    ] {
        run(wrong).assert_failed(case, part);
    }
    let given = cluster_of(&["v1beta1"], EnvGiven);
    let run = testing::run::<AgentSandboxLifecycle>(manifest::TEXT, given);
    run.assert_failed("env", "allows no variables");
}

#[test]
fn an_image_that_no_node_gets_is_told_soon_and_accuses_nobody() {
    let mut cluster = cluster(Nothing);
    cluster.without_images();
    let run = testing::run::<AgentSandboxLifecycle>(manifest::TEXT, cluster);
    for id in ["runs", "pool", "claim", "ends"] {
        run.assert_image_unavailable(id);
    }
}

#[test]
fn without_agent_sandbox_there_is_nothing_to_keep() {
    let absent = FakeCluster::new("v1.37.0");
    let run = testing::run::<AgentSandboxLifecycle>(manifest::TEXT, absent);
    assert!(matches!(
        run.conclusion("served"),
        Some(karat_sdk::Conclusion::NotApplicable(_))
    ));
    let mut core = FakeCluster::new("v1.37.0");
    let group = "agents.x-k8s.io";
    core.serve(group, &["v1alpha1"], "sandboxes", "Sandbox", true, &[]);
    let run = testing::run::<AgentSandboxLifecycle>(manifest::TEXT, core);
    run.assert_unknown_with("served", Reason::SolutionAbsent, "install the extensions");
    let mut later = FakeCluster::new("v1.37.0");
    serve(&mut later, &["v2"]);
    let run = testing::run::<AgentSandboxLifecycle>(manifest::TEXT, later);
    run.assert_unknown("served", Reason::VersionSkew);
}

#[test]
fn no_fault_of_the_api_server_becomes_a_fail() {
    testing::assert_faults_are_no_fail::<AgentSandboxLifecycle>(manifest::TEXT, || {
        cluster(Nothing)
    });
}
