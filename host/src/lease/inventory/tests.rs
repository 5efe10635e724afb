//! What is counted, and what is not.

use super::*;
use serde_json::json;

const RUN: &str = "abcdefgh";

fn ready(name: &str, spec: Value, allocatable: Value) -> Value {
    json!({"metadata": {"name": name, "uid": format!("uid-{name}")}, "spec": spec,
        "status": {"conditions": [{"type": "Ready", "status": "True"}], "allocatable": allocatable}})
}

#[test]
fn nodes_that_are_not_for_pods_do_not_count() {
    let taint = |key: &str, effect: &str| json!({"taints": [{"key": key, "effect": effect}]});
    for (spec, usable) in [
        (json!({}), true),
        (json!({"unschedulable": true}), false),
        (
            taint("node-role.kubernetes.io/control-plane", "NoSchedule"),
            false,
        ),
        (taint("node.kubernetes.io/not-ready", "NoExecute"), false),
        (
            taint("node.kubernetes.io/memory-pressure", "PreferNoSchedule"),
            true,
        ),
        (taint("nvidia.com/gpu", "NoSchedule"), true),
    ] {
        let (_, found) = node(&ready("n", spec.clone(), json!({})), &BTreeSet::new()).unwrap();
        assert_eq!(found.usable, usable, "{spec}");
    }
    let mut sick = ready("n", json!({}), json!({}));
    sick["status"]["conditions"][0]["status"] = "Unknown".into();
    assert!(!node(&sick, &BTreeSet::new()).unwrap().1.usable);
    let mut going = ready("n", json!({}), json!({}));
    going["metadata"]["deletionTimestamp"] = "2026-11-21T10:00:00Z".into();
    assert!(!node(&going, &BTreeSet::new()).unwrap().1.usable);
}

#[test]
fn requests_are_those_of_the_scheduler() {
    let asks = |cpu: &str| json!({"resources": {"requests": {"cpu": cpu}}});
    let sidecar = |cpu: &str| {
        let mut container = asks(cpu);
        container["restartPolicy"] = "Always".into();
        container
    };
    for (spec, millis) in [
        (json!({"containers": [asks("1"), asks("500m")]}), 1500),
        (
            json!({"containers": [asks("1")], "initContainers": [asks("3")]}),
            3000,
        ),
        (
            json!({"containers": [asks("1")], "initContainers": [sidecar("1"), asks("3")]}),
            4000,
        ),
        (
            json!({"containers": [asks("4")], "initContainers": [sidecar("1")]}),
            5000,
        ),
        (
            json!({"containers": [asks("1")], "overhead": {"cpu": "250m"}}),
            1250,
        ),
        (
            json!({"containers": [asks("1")], "resources": {"requests": {"cpu": "2"}}}),
            2000,
        ),
        (
            json!({"containers": [{"resources": {"limits": {"cpu": "2"}}}]}),
            2000,
        ),
    ] {
        assert_eq!(requests(&spec)["cpu"], millis, "{spec}");
    }
}

fn pod(uid: &str, namespace: &str, resource: &str) -> Value {
    json!({"metadata": {"uid": uid, "namespace": namespace}, "status": {"phase": "Running"},
        "spec": {"containers": [{"resources": {"limits": {resource: "1"}}}]}})
}

#[test]
fn pods_of_others_take_units_and_those_of_this_run_do_not() {
    let allocatable = json!({"cpu": "4", "vendor.example/gpu": "4", "hugepages-2Mi": "0", "requests.kubernetes.io/x": "9"});
    let (_, mut node) = node(&ready("n", json!({}), allocatable), &BTreeSet::new()).unwrap();
    assert_eq!(
        node.units(),
        BTreeMap::from([("vendor.example/gpu".to_owned(), 4)])
    );
    let theirs = pod("a", "team", "vendor.example/gpu");
    for _ in 0..2 {
        count_pod(&mut node, &theirs, RUN);
    }
    count_pod(
        &mut node,
        &pod("b", "karat-abcdefgh-other-main", "vendor.example/gpu"),
        RUN,
    );
    count_pod(&mut node, &pod("c", "karat-abcdefghi-main", "cpu"), RUN);
    let mut done = pod("d", "team", "vendor.example/gpu");
    done["status"]["phase"] = "Succeeded".into();
    count_pod(&mut node, &done, RUN);
    assert_eq!(node.units()["vendor.example/gpu"], 3);
    assert_eq!((node.pods, node.foreign.len(), node.own.len()), (3, 2, 1));
    assert_eq!(
        (node.left("vendor.example/gpu"), node.left("cpu")),
        (2000, 3000)
    );
}

fn slice(name: &str, generation: u64, of: u64, node: Option<&str>, devices: Value) -> Value {
    json!({"metadata": {"name": name}, "spec": {"driver": "gpu.vendor.example", "nodeName": node,
        "pool": {"name": "p", "generation": generation, "resourceSliceCount": of}, "devices": devices}})
}

fn counted(slices: &[Value], claims: &[Value]) -> u64 {
    let (name, found) = node(&ready("n", json!({}), json!({})), &BTreeSet::new()).unwrap();
    let mut nodes = BTreeMap::from([(name, found)]);
    let (mut pools, mut taken) = (Pools::default(), Taken::default());
    slices.iter().for_each(|slice| pools.add(slice));
    claims.iter().for_each(|claim| taken.add(claim, RUN));
    pools.count(&taken, &mut nodes);
    nodes["n"].units().values().sum()
}

#[test]
fn devices_count_in_complete_pools_of_the_newest_generation() {
    let two = || json!([{"name": "a"}, {"name": "b"}]);
    let on = Some("n");
    assert_eq!(counted(&[slice("s", 1, 1, on, two())], &[]), 2);
    assert_eq!(
        counted(&[slice("s", 1, 2, on, two())], &[]),
        0,
        "a slice is missing"
    );
    let old_and_new = [
        slice("old", 1, 1, on, two()),
        slice("new", 2, 1, on, json!([{"name": "a"}])),
    ];
    assert_eq!(counted(&old_and_new, &[]), 1);
    let twice = [slice("s", 1, 1, on, two()), slice("s", 1, 1, on, two())];
    assert_eq!(
        counted(&twice, &[]),
        2,
        "a list begun anew shows a slice twice"
    );
    assert_eq!(
        counted(&[slice("s", 1, 1, None, two())], &[]),
        0,
        "no node's own"
    );
    let per_device = json!([{"name": "a", "nodeName": "n"}, {"name": "b", "nodeName": "m"}]);
    assert_eq!(counted(&[slice("s", 1, 1, None, per_device)], &[]), 1);
    let tainted =
        json!([{"name": "a", "taints": [{"effect": "NoSchedule"}]}, {"basic": {}, "name": "b"}]);
    assert_eq!(counted(&[slice("s", 1, 1, on, tainted)], &[]), 1);
}

#[test]
fn claims_of_others_take_devices() {
    let claim = |namespace: &str, admin: bool| {
        json!({"metadata": {"namespace": namespace}, "status": {"allocation": {"devices": {"results": [
            {"driver": "gpu.vendor.example", "pool": "p", "device": "a", "adminAccess": admin}]}}}})
    };
    let slices = [slice(
        "s",
        1,
        1,
        Some("n"),
        json!([{"name": "a"}, {"name": "b"}]),
    )];
    assert_eq!(counted(&slices, &[claim("team", false)]), 1);
    assert_eq!(counted(&slices, &[claim("team", true)]), 2);
    let ours = || claim("karat-abcdefgh-other-main", false);
    assert_eq!(counted(&slices, &[ours()]), 2);

    // What is booked twice was taken by nobody, so it excuses no fail.
    let on = |claims: &[Value]| {
        let mut pools = Pools::default();
        slices.iter().for_each(|slice| pools.add(slice));
        let mut taken = Taken::default();
        claims.iter().for_each(|claim| taken.add(claim, RUN));
        let mut nodes =
            BTreeMap::from([node(&ready("n", json!({}), json!({})), &BTreeSet::new()).unwrap()]);
        pools.count(&taken, &mut nodes);
        nodes
    };
    let before = on(&[ours()]);
    assert!(before["n"].holding.contains("karat-abcdefgh-other-main"));
    assert!(on(&[claim("team", false)])["n"].holding.is_empty());
    let told = |claims: &[Value]| changes(&before, &on(claims), RUN, "me", |_| false);
    assert!(told(&[ours(), claim("team", false)]).is_empty());
    assert_eq!(told(&[claim("team", false)]), ["1 unit taken by others"]);
}

#[test]
fn what_others_changed_is_told_in_words() {
    let allocatable = json!({"cpu": "4", "vendor.example/gpu": "4"});
    let fresh = || {
        node(
            &ready("n", json!({}), allocatable.clone()),
            &BTreeSet::new(),
        )
        .unwrap()
    };
    let told = |after: BTreeMap<String, Node>, alone: bool| {
        changes(&BTreeMap::from([fresh()]), &after, RUN, "me", |_| alone)
    };
    assert!(told(BTreeMap::from([fresh()]), true).is_empty());
    assert_eq!(told(BTreeMap::new(), true), ["1 node gone"]);
    let (name, mut now) = fresh();
    count_pod(&mut now, &pod("a", "team", "vendor.example/gpu"), RUN);
    count_pod(&mut now, &pod("b", "karat-abcdefgh-me-main", "cpu"), RUN);
    count_pod(&mut now, &pod("c", "karat-abcdefgh-other-main", "cpu"), RUN);
    let after = BTreeMap::from([(name, now)]);
    assert_eq!(told(after.clone(), false), ["1 unit taken by others"]);
    assert_eq!(
        told(after.clone(), true),
        ["2 pods of others came", "1 unit taken by others"]
    );
    let back = changes(&after, &BTreeMap::from([fresh()]), RUN, "me", |_| true);
    assert_eq!(
        back,
        ["2 pods of others went", "1 unit given back by others"]
    );
    let (name, mut shrunk) = fresh();
    shrunk
        .allocatable
        .insert("vendor.example/gpu".to_owned(), 3000);
    let shrunk = told(BTreeMap::from([(name, shrunk)]), true);
    assert!(shrunk.is_empty(), "nobody took the unit: {shrunk:?}");
    let (name, mut sick) = fresh();
    sick.usable = false;
    sick.allocatable.insert("cpu".to_owned(), 1000);
    assert_eq!(
        told(BTreeMap::from([(name, sick)]), false),
        [
            "1 node not ready or not schedulable",
            "1 node with another capacity"
        ]
    );
}
