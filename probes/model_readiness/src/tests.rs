//! Every branch of the probe on a fake cluster with a Deployment, its slices, a proxy that follows them, and a client.

use crate::{ModelReadiness, manifest};
use karat_sdk::testing::{self, Answering, FakeCluster, FakeLog, FakeResult, PodRequest, Run};
use karat_sdk::{Reason, Value, json};
use std::cell::RefCell;
use std::collections::BTreeMap;
use std::rc::Rc;
use std::time::Duration;

const ALL: [&str; 6] = ["loading", "loaded", "failing", "healed", "update", "drains"];
const LOAD: Duration = Duration::from_secs(30);
const DRAIN: Duration = Duration::from_secs(10);
const TICK: Duration = Duration::from_secs(1);

/// What is wrong with the platform.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Wrong {
    Nothing,
    /// Every pod that runs is Ready.
    AlwaysReady,
    /// Slices have pods that are not ready as ready.
    PublishesAll,
    /// The proxy sends requests to pods that are not ready.
    SendsToAll,
    /// A server is restarted while it loads.
    NoStartupProbe,
    /// Ready once is ready for ever.
    StaysReady,
    /// Slices keep an endpoint that was ready.
    SlicesStay,
    /// The proxy keeps the endpoint that it had first.
    ProxyStays,
    /// A server whose health fails is restarted.
    RestartsSick,
    /// What was unhealthy once is never ready again.
    NeverHeals,
    /// The proxy has no endpoint at all.
    ProxyDead,
    /// The same, and pods do not reach each other.
    Closed,
    /// The old pod goes before the new one is there.
    Recreates,
    /// No grace.
    Kills,
    /// A pod that drains is gone from the slice.
    Unpublishes,
    /// A pod that drains is as ready as before.
    DrainsReady,
    /// The proxy has endpoints that terminate.
    SendsToDraining,
    /// Images cannot be pulled.
    NoImage,
    /// The client stops.
    Silent,
    /// Somebody deletes the server while its health fails.
    Evicted,
}

#[derive(Clone, Debug, Default)]
struct Model {
    began: Duration,
    failing: bool,
    ever_ready: bool,
    ever_sick: bool,
    restarts: u64,
    told_to_go: Option<Duration>,
}

#[derive(Default)]
struct State {
    models: BTreeMap<String, Model>,
    lines: Vec<String>,
    first: Option<String>,
    made: u64,
}

type Shared = Rc<RefCell<State>>;

fn text<'a>(value: &'a Value, pointer: &str) -> &'a str {
    value.pointer(pointer).and_then(Value::as_str).unwrap_or("")
}

fn is_ready(pod: &Value) -> bool {
    pod["status"]["conditions"][0]["status"] == "True"
}

/// Where the proxy sends requests, by the slices as they are.
fn behind(cluster: &FakeCluster, state: &State, wrong: Wrong) -> Vec<String> {
    let slices = cluster.objects("endpointslices");
    let endpoints: Vec<Value> = slices
        .iter()
        .flat_map(|slice| slice["endpoints"].as_array().cloned().unwrap_or_default())
        .collect();
    let with = |wanted: &dyn Fn(&Value) -> bool| -> Vec<String> {
        let found = endpoints.iter().filter(|one| wanted(&one["conditions"]));
        found
            .map(|one| text(one, "/targetRef/name").to_owned())
            .collect()
    };
    match wrong {
        Wrong::ProxyDead | Wrong::Closed => vec![],
        Wrong::SendsToAll => with(&|_| true),
        Wrong::ProxyStays => state.first.iter().cloned().collect(),
        Wrong::SendsToDraining => with(&|it| it["ready"] == true || it["terminating"] == true),
        _ => {
            let ready = with(&|it| it["ready"] == true);
            if ready.is_empty() {
                with(&|it| it["serving"] == true && it["terminating"] == true)
            } else {
                ready
            }
        }
    }
}

/// What the client tells of the seconds since it told last.
fn tell(cluster: &FakeCluster, state: &mut State, wrong: Wrong) {
    let now = cluster.elapsed();
    if wrong == Wrong::Silent && state.lines.len() > 40 {
        return;
    }
    while (state.lines.len() as u64) < now.as_secs() {
        let n = state.lines.len() + 1;
        let targets = behind(cluster, state, wrong);
        let mut answered: BTreeMap<String, u64> = BTreeMap::new();
        let mut failed: BTreeMap<&str, u64> = BTreeMap::new();
        for request in 0..5 {
            let target = targets.get(request % targets.len().max(1));
            match target.and_then(|name| Some((name, state.models.get(name)?))) {
                Some((name, model)) => {
                    let code = if now < model.began + LOAD { 503 } else { 200 };
                    *answered.entry(format!("{name} {code}")).or_default() += 1;
                }
                None => *failed.entry("ECONNREFUSED").or_default() += 1,
            }
        }
        let line = json!({"n": n, "sent": 5, "answered": answered, "failed": failed});
        state.lines.push(line.to_string());
    }
}

fn start(cluster: &mut FakeCluster, shared: &Shared, deployment: &Value, wrong: Wrong) {
    let mut state = shared.borrow_mut();
    state.made += 1;
    let space = text(deployment, "/metadata/namespace");
    let name = format!("{}-{}", text(deployment, "/metadata/name"), state.made);
    let template = &deployment["spec"]["template"];
    let waiting = json!({"waiting": {"reason": "ErrImageNeverPull", "message": "not present"}});
    let (phase, running) = if wrong == Wrong::NoImage {
        ("Pending", waiting)
    } else {
        ("Running", json!({"running": {}}))
    };
    cluster.put(json!({"apiVersion": "v1", "kind": "Pod",
        "metadata": {"name": name, "namespace": space, "labels": template["metadata"]["labels"], "annotations": template["metadata"]["annotations"],
            // As the kubelet holds a pod that drains.
            "finalizers": ["kubelet"]},
        "spec": template["spec"],
        "status": {"phase": phase, "podIP": "10.1.0.7", "conditions": [{"type": "Ready", "status": "False"}],
            "containerStatuses": [
                {"name": "server", "state": running, "containerID": format!("containerd://{name}-0"), "restartCount": 0},
                {"name": "injected", "state": {"running": {}}, "containerID": "containerd://other", "restartCount": 7}]}}));
    let began = cluster.elapsed();
    let model = Model {
        began,
        ..Model::default()
    };
    state.models.insert(name.clone(), model);
    let target = format!("pod:{space}/{name}:8080");
    let states = Rc::clone(shared);
    cluster.workload(&target, move |cluster, request| {
        let mut state = states.borrow_mut();
        let Some(model) = state.models.get_mut(&name) else {
            return Answering::text(500, "gone");
        };
        if request_is(request, "fail") {
            model.failing = true;
            model.ever_sick = true;
            return Answering::text(204, "");
        }
        if request_is(request, "ok") {
            model.failing = false;
            return Answering::text(204, "");
        }
        let well = cluster.elapsed() >= model.began + LOAD && !model.failing;
        Answering::text(if well { 200 } else { 503 }, "{}")
    });
}

fn request_is(request: &karat_sdk::http::Request, to: &str) -> bool {
    format!("{request:?}").contains(&format!("/switch?health={to}"))
}

/// What the kubelet says of one model.
fn kubelet(cluster: &mut FakeCluster, state: &mut State, pod: &Value, wrong: Wrong) {
    let now = cluster.elapsed();
    let name = text(pod, "/metadata/name").to_owned();
    let space = text(pod, "/metadata/namespace").to_owned();
    let Some(model) = state.models.get_mut(&name) else {
        return;
    };
    let mut loaded = now >= model.began + LOAD;
    let restart = (wrong == Wrong::NoStartupProbe && !loaded && now >= model.began + DRAIN)
        || (wrong == Wrong::RestartsSick && model.failing);
    if restart && model.restarts == 0 {
        model.restarts = 1;
        model.began = now;
        model.failing = false;
        loaded = false;
    }
    let well = loaded && !model.failing;
    let ready = match wrong {
        Wrong::AlwaysReady => true,
        Wrong::StaysReady => well || model.ever_ready,
        Wrong::NeverHeals => well && !model.ever_sick,
        _ => well,
    };
    model.ever_ready |= ready;
    let restarts = model.restarts;
    if ready && state.first.is_none() {
        state.first = Some(name.clone());
    }
    cluster.change("pods", &space, &name, |pod| {
        pod["status"]["conditions"][0]["status"] = json!(if ready { "True" } else { "False" });
        let status = &mut pod["status"]["containerStatuses"][0];
        if restarts > 0 {
            status["restartCount"] = json!(restarts);
            status["containerID"] = json!(format!("containerd://{restarts}"));
            status["lastState"] = json!({"terminated": {"reason": "Completed", "exitCode": 0}});
        }
    });
}

/// Deployment: one pod of the newest template, and the old one goes when the new one is ready.
fn deploy(cluster: &mut FakeCluster, shared: &Shared, deployment: &Value, wrong: Wrong) {
    let now = cluster.elapsed();
    let space = text(deployment, "/metadata/namespace").to_owned();
    let wanted = &deployment["spec"]["template"]["metadata"]["annotations"];
    let label = &deployment["spec"]["template"]["metadata"]["labels"];
    let pods: Vec<Value> = cluster
        .objects("pods")
        .into_iter()
        .filter(|pod| pod["metadata"]["labels"]["karat-model"] == label["karat-model"])
        .collect();
    let is_new = |pod: &Value| pod["metadata"]["annotations"] == *wanted;
    let new = pods.iter().find(|pod| is_new(pod));
    let may_go = wrong == Wrong::Recreates || new.is_some_and(is_ready);
    for old in pods.iter().filter(|pod| !is_new(pod)) {
        let name = text(old, "/metadata/name").to_owned();
        let mut state = shared.borrow_mut();
        let Some(model) = state.models.get_mut(&name) else {
            continue;
        };
        if may_go && model.told_to_go.is_none() {
            model.told_to_go = Some(now);
            cluster.change("pods", &space, &name, |pod| {
                pod["metadata"]["deletionTimestamp"] = json!("2026-01-01T00:00:00Z");
            });
        }
        let grace = if wrong == Wrong::Kills { TICK } else { DRAIN };
        if model.told_to_go.is_some_and(|at| now >= at + grace) {
            state.models.remove(&name);
            drop(state);
            cluster.remove("pods", &space, &name);
        }
    }
    let alone = wrong != Wrong::Recreates || pods.is_empty();
    if new.is_none() && alone {
        start(cluster, shared, deployment, wrong);
    }
}

fn publish(cluster: &mut FakeCluster, state: &State, space: &str, service: &str, wrong: Wrong) {
    let mut endpoints = Vec::new();
    for pod in cluster.objects("pods") {
        let name = text(&pod, "/metadata/name");
        let Some(model) = state.models.get(name) else {
            continue;
        };
        if pod["status"]["phase"] != "Running" {
            continue;
        }
        let terminating = model.told_to_go.is_some();
        if terminating && wrong == Wrong::Unpublishes {
            continue;
        }
        let serving = is_ready(&pod)
            || wrong == Wrong::PublishesAll
            || (wrong == Wrong::SlicesStay && model.ever_ready);
        let ready = serving && (!terminating || wrong == Wrong::DrainsReady);
        endpoints.push(
            json!({"addresses": ["10.1.0.7"], "targetRef": {"kind": "Pod", "name": name},
            "conditions": {"ready": ready, "serving": serving, "terminating": terminating}}),
        );
    }
    let slice = json!({"apiVersion": "discovery.k8s.io/v1", "kind": "EndpointSlice",
        "metadata": {"name": format!("{service}-x"), "namespace": space, "labels": {"kubernetes.io/service-name": service}},
        "endpoints": endpoints});
    let there = cluster.object("endpointslices", space, &format!("{service}-x"));
    if there["endpoints"] != slice["endpoints"] {
        cluster.put(slice);
    }
}

fn tick(cluster: &mut FakeCluster) {
    cluster.after(TICK, tick);
}

fn cluster(wrong: Wrong) -> FakeCluster {
    let mut cluster = FakeCluster::new("v1.37.0");
    cluster.serve(
        "apps",
        &["v1"],
        "deployments",
        "Deployment",
        true,
        &["status"],
    );
    cluster.serve(
        "discovery.k8s.io",
        &["v1"],
        "endpointslices",
        "EndpointSlice",
        true,
        &[],
    );
    cluster.put(json!({"apiVersion": "v1", "kind": "Node", "metadata": {"name": "n1"}, "spec": {},
        "status": {"conditions": [{"type": "Ready", "status": "True"}], "allocatable": {"cpu": "4"}}}));
    let shared = Shared::default();
    let states = Rc::clone(&shared);
    cluster.controller(move |cluster| {
        tell(cluster, &mut states.borrow_mut(), wrong);
        for pod in cluster.objects("pods") {
            let name = text(&pod, "/metadata/name");
            if name.starts_with("client") && pod["status"].is_null() {
                cluster.change("pods", text(&pod, "/metadata/namespace"), name, |pod| {
                    pod["status"] = json!({"phase": "Running"});
                });
            }
            kubelet(cluster, &mut states.borrow_mut(), &pod, wrong);
            let sick = states.borrow().models.get(name).is_some_and(|m| m.failing);
            if wrong == Wrong::Evicted && sick {
                states.borrow_mut().models.remove(name);
                cluster.remove("pods", text(&pod, "/metadata/namespace"), name);
            }
        }
        for deployment in cluster.objects("deployments") {
            deploy(cluster, &states, &deployment, wrong);
            let space = text(&deployment, "/metadata/namespace").to_owned();
            let name = text(&deployment, "/metadata/name").to_owned();
            publish(cluster, &states.borrow(), &space, &name, wrong);
            let target = format!("service:{space}/{name}:8080");
            cluster.workload(&target, |_, _| {
                Answering::json(200, &json!({"data": [{"id": "karat-simulated"}]}))
            });
        }
    });
    let states = Rc::clone(&shared);
    cluster.logs(move |asked: &PodRequest<'_>| {
        let mut lines = states.borrow().lines.join("\n");
        lines.push('\n');
        assert!(asked.name().starts_with("client"));
        FakeLog::text(&lines)
    });
    cluster.commands(move |_| {
        FakeResult::output(if wrong == Wrong::Closed {
            "{\"address\":\"10.1.0.7:8080\",\"connected\":false,\"errno\":\"ETIMEDOUT\"}\n"
        } else {
            "{\"address\":\"10.1.0.7:8080\",\"connected\":true,\"errno\":null}\n"
        })
    });
    tick(&mut cluster);
    cluster
}

fn run(wrong: Wrong) -> Run {
    testing::run::<ModelReadiness>(manifest::TEXT, cluster(wrong))
}

#[test]
fn a_platform_that_follows_readiness_passes() {
    let run = run(Wrong::Nothing);
    assert_eq!(run.result, Ok(()));
    run.assert_passed(&ALL);
    run.assert_earned();
    assert_eq!(run.observed("models", "loaded"), None);
    assert_eq!(run.observed("loaded", "models"), Some("karat-simulated"));
    assert_eq!(
        run.observed("update", "without an answer of 200"),
        Some("0")
    );
    assert_eq!(run.observed("drains", "serving"), Some("true"));
}

#[test]
fn requests_before_the_model_is_loaded_fail() {
    run(Wrong::AlwaysReady).assert_failed("loading", "its pod is Ready");
    run(Wrong::PublishesAll).assert_failed(
        "loading",
        "its pod is not Ready, but its endpoint is published as ready",
    );
    run(Wrong::SendsToAll).assert_failed("loading", "its endpoint was not ready");
    run(Wrong::NoStartupProbe).assert_failed("loading", "restarted");
}

#[test]
fn a_service_that_leads_nowhere_fails_unless_pods_are_kept_apart() {
    run(Wrong::ProxyDead).assert_failed("loaded", "the client reached the pod itself");
    run(Wrong::Closed).assert_unknown_with("loaded", Reason::Deadline, "do not reach each other");
}

#[test]
fn a_sick_server_must_leave_the_traffic_and_live() {
    run(Wrong::StaysReady).assert_failed("failing", "its pod is still Ready");
    run(Wrong::SlicesStay).assert_failed("failing", "its pod is not Ready and its endpoint ready");
    run(Wrong::ProxyStays).assert_failed("failing", "requests still reach the server");
    run(Wrong::RestartsSick).assert_failed("failing", "was restarted (Completed, 1 times)");
    let never = run(Wrong::NeverHeals);
    never.assert_passed(&["failing"]);
    never.assert_failed("healed", "its pod is not Ready");
}

#[test]
fn an_update_must_not_cut_the_traffic() {
    let recreates = run(Wrong::Recreates);
    recreates.assert_failed("update", "ECONNREFUSED");
    recreates.assert_passed(&["loading", "loaded", "failing", "healed"]);
}

#[test]
fn a_server_that_drains_is_marked_and_left_alone() {
    run(Wrong::Kills).assert_failed("drains", "after it was told to go");
    run(Wrong::Unpublishes).assert_failed("drains", "never marked");
    run(Wrong::DrainsReady).assert_failed("drains", "serving true and ready true");
    let late = run(Wrong::SendsToDraining);
    late.assert_passed(&["update"]);
    late.assert_failed("drains", "requests reached the old server");
}

#[test]
fn what_others_do_says_nothing() {
    run(Wrong::NoImage).assert_unknown("loading", Reason::ImageUnavailable);
    run(Wrong::Silent).assert_no_fail();
    run(Wrong::Evicted).assert_unknown("failing", Reason::CompetingWorkload);
}

#[test]
fn played_nodes_run_nothing() {
    let mut cluster = cluster(Wrong::Nothing);
    cluster.change("nodes", "", "n1", |node| {
        node["metadata"]["annotations"] = json!({"kwok.x-k8s.io/node": "fake"});
    });
    let run = testing::run::<ModelReadiness>(manifest::TEXT, cluster);
    run.assert_unknown("loading", Reason::InsufficientCapacity);
}

#[test]
fn an_image_that_no_node_gets_is_told_soon_and_accuses_nobody() {
    let mut cluster = cluster(Wrong::Nothing);
    cluster.without_images();
    testing::run::<ModelReadiness>(manifest::TEXT, cluster).assert_image_unavailable("loading");
}

#[test]
fn no_fault_of_the_api_server_becomes_a_fail() {
    testing::assert_faults_are_no_fail::<ModelReadiness>(manifest::TEXT, || {
        cluster(Wrong::Nothing)
    });
}
