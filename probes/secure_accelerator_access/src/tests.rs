//! Every branch of the probe on a fake cluster: what containers tell, and what becomes of their pods.

use crate::{SecureAcceleratorAccess, manifest};
use karat_sdk::build::DraVersion;
use karat_sdk::testing::dra::{self, Scheduler, Slice};
use karat_sdk::testing::{self, FakeCluster, FakeLog, Run};
use karat_sdk::{Reason, Value, json};
use std::collections::BTreeMap;

const DRIVER: &str = "neuron.aws.com";
const COMPARED: [&str; 5] = [
    "unauthorised",
    "second-container",
    "made-node",
    "environment",
    "tenants",
];
const NOTHING: &str = "devices./dev/neuron=0\ndone=1\n";

/// What a container that tries the device of the first container tells of it.
fn trying(found: &str, open: &str, made: &str) -> String {
    let mut text = format!("{found}open./dev/neuron0={open}\nmade.250:0={made}\n");
    for minor in 1..8 {
        text.push_str(&format!("made.250:{minor}=ENXIO\n"));
    }
    text + "done=1\n"
}

/// What containers tell, by the first word of the pod's name and their own name.
struct Words(BTreeMap<&'static str, String>);

impl Words {
    fn conforming() -> Words {
        let own = "device./dev/neuron0=250:0 ok\ndevices./dev/neuron=1\n";
        let other = "device./dev/neuron1=250:1 ok\ndevices./dev/neuron=1\n";
        let nothing = "devices./dev/neuron=0\n";
        Words(BTreeMap::from([
            ("holder/tool", format!("{own}done=1\n")),
            ("holder/second", NOTHING.to_owned()),
            ("stranger/tool", trying(nothing, "ENOENT", "EPERM")),
            ("later/tool", trying(nothing, "ENOENT", "EPERM")),
            ("env/tool", NOTHING.to_owned()),
            ("env/second", NOTHING.to_owned()),
            ("class/tool", NOTHING.to_owned()),
            ("class/second", NOTHING.to_owned()),
            ("tenant/tool", trying(other, "ENOENT", "EPERM")),
        ]))
    }

    fn but(who: &'static str, text: impl Into<String>) -> Words {
        let mut words = Words::conforming();
        assert!(words.0.insert(who, text.into()).is_some(), "{who}");
        words
    }
}

/// A node with so many devices, and a kubelet that starts and ends pods at once.
fn cluster(devices: &[&str], driver: &str, words: Words) -> FakeCluster {
    let mut cluster = FakeCluster::new("v1.37.0");
    dra::install(&mut cluster, &["v1"]);
    cluster.serve(
        "node.k8s.io",
        &["v1"],
        "runtimeclasses",
        "RuntimeClass",
        false,
        &[],
    );
    dra::node(&mut cluster, "n1", "vendor.example/gpu");
    dra::class(&mut cluster, DraVersion::V1, driver);
    dra::slice(
        &mut cluster,
        DraVersion::V1,
        &Slice {
            driver,
            node: "n1",
            generation: 1,
            of: 1,
            devices,
        },
    );
    cluster.refuse("pods", |admission| {
        let mounts = admission.object["spec"]["volumes"][0]["hostPath"].is_object();
        mounts.then(|| {
            (
                403,
                "violates PodSecurity \"baseline:latest\": hostPath volumes".to_owned(),
            )
        })
    });
    Scheduler::default().start(&mut cluster);
    cluster.controller(|cluster| {
        for pod in cluster.objects("pods") {
            if pod["spec"]["nodeName"].is_null() || !pod["status"]["phase"].is_null() {
                continue;
            }
            let text = |key: &str| pod["metadata"][key].as_str().unwrap_or_default();
            cluster.change("pods", text("namespace"), text("name"), |pod| {
                pod["status"] = json!({"phase": "Succeeded"});
            });
        }
    });
    cluster.logs(move |asked| {
        let pod = asked.name().split('-').next().unwrap_or_default();
        let who = format!("{pod}/{}", asked.container.unwrap_or_default());
        let text = words.0.get(who.as_str()).map_or("", String::as_str);
        let log = FakeLog::text(text);
        match who.as_str() {
            "holder/tool" | "tenant/tool" => log.goes_on(),
            _ => log,
        }
    });
    cluster
}

/// The same node with units of a device plugin in place of a driver's devices. A unit is told by the kubelet's name of it.
fn plugin(resource: &'static str, units: usize, words: Words) -> FakeCluster {
    let mut cluster = cluster(&[], DRIVER, words);
    add_plugin(&mut cluster, resource, units);
    cluster
}

fn add_plugin(cluster: &mut FakeCluster, resource: &'static str, units: usize) {
    cluster.change("nodes", "", "n1", |node| {
        node["status"]["allocatable"] =
            json!({"cpu": "8", "memory": "16Gi", "pods": "110", resource: units.to_string()});
    });
    cluster.controller(move |cluster| {
        let pods = cluster.objects("pods");
        let asked = |pod: &Value| -> usize {
            let limits = &pod["spec"]["containers"][0]["resources"]["limits"];
            let text = limits[resource].as_str().unwrap_or_default();
            text.parse().unwrap_or_default()
        };
        let mut taken: usize = pods
            .iter()
            .filter(|pod| pod["spec"]["nodeName"].is_string())
            .map(asked)
            .sum();
        for pod in &pods {
            let count = asked(pod);
            if count == 0 || pod["spec"]["nodeName"].is_string() || taken + count > units {
                continue;
            }
            let names = taken..taken + count;
            let ids: Vec<Value> = names
                .map(|n| json!({"resourceID": format!("unit-{n}"), "health": "Healthy"}))
                .collect();
            taken += count;
            let text = |key: &str| pod["metadata"][key].as_str().unwrap_or_default();
            cluster.change("pods", text("namespace"), text("name"), |pod| {
                pod["spec"]["nodeName"] = json!("n1");
                pod["status"] = json!({"phase": "Running", "containerStatuses": [
                    {"name": "tool", "state": {"running": {}}, "allocatedResourcesStatus": [{"name": resource, "resources": ids}]},
                ]});
            });
        }
    });
}

fn two(words: Words) -> FakeCluster {
    cluster(&["a", "b"], DRIVER, words)
}

fn run(cluster: FakeCluster) -> Run {
    testing::run::<SecureAcceleratorAccess>(manifest::TEXT, cluster)
}

#[test]
fn devices_that_keep_to_themselves_pass() {
    let run = run(two(Words::conforming()));
    assert_eq!(run.result, Ok(()));
    run.assert_passed(&["inventory", "authorised", "afterwards", "host-path"]);
    run.assert_passed(&COMPARED);
    assert_eq!(run.conclusion("runtime-class"), None);
    run.assert_earned();
}

#[test]
fn the_class_of_nvidia_is_tried_where_it_is() {
    let mut with = two(Words::conforming());
    with.put(json!({"apiVersion": "node.k8s.io/v1", "kind": "RuntimeClass", "metadata": {"name": "nvidia"}, "handler": "nvidia"}));
    run(with).assert_passed(&["runtime-class"]);
    let leaking = "device./dev/neuron0=250:0 ok\ndevices./dev/neuron=1\ndone=1\n";
    let mut with = two(Words::but("class/tool", leaking));
    with.put(json!({"apiVersion": "node.k8s.io/v1", "kind": "RuntimeClass", "metadata": {"name": "nvidia"}, "handler": "nvidia"}));
    run(with).assert_failed("runtime-class", "environment says `all` has /dev/neuron0");
}

#[test]
fn whoever_has_what_is_not_its_own_is_found() {
    let leaking = "device./dev/neuron0=250:0 EPERM\ndevices./dev/neuron=1\n";
    let done = |text: &str| format!("{text}done=1\n");
    let none = "devices./dev/neuron=0\n";
    for (who, text, case, says) in [
        ("stranger/tool", trying(leaking, "EPERM", "EPERM"), "unauthorised", "has /dev/neuron0"),
        ("stranger/tool", trying(none, "ok", "EPERM"), "unauthorised", "opens /dev/neuron0"),
        ("stranger/tool", trying(none, "ENOENT", "ok"), "made-node", "device 250:0 and opened it"),
        ("stranger/tool", trying(none, "ENOENT", "EBUSY"), "made-node", "device 250:0"),
        ("holder/second", done(leaking), "second-container", "second container has"),
        ("env/tool", done(leaking), "environment", "says `all` has"),
        ("env/second", done(leaking), "environment", "says `void` has"),
        (
            "tenant/tool",
            trying("device./dev/neuron1=250:0 ok\ndevices./dev/neuron=1\n", "ENOENT", "EPERM"),
            "tenants",
            "both containers have device 250:0",
        ),
        (
            "tenant/tool",
            trying("device./dev/neuron1=250:1 ok\ndevices./dev/neuron=1\n", "ENOENT", "ok"),
            "tenants",
            "the second container made the file",
        ),
        (
            "tenant/tool",
            trying("device./dev/neuron1=250:1 ok\ndevice./dev/neuron2=250:2 ok\ndevices./dev/neuron=2\n", "ENOENT", "EPERM"),
            "tenants",
            "has 2",
        ),
        ("later/tool", trying(leaking, "EPERM", "EPERM"), "afterwards", "has /dev/neuron0"),
        (
            "holder/tool",
            "device./dev/neuron0=250:0 ok\ndevice./dev/neuron1=250:1 ok\ndevices./dev/neuron=2\ndone=1\n".to_owned(),
            "authorised",
            "has 2",
        ),
        ("holder/tool", done(leaking), "authorised", "the device cgroup refuses it"),
    ] {
        run(two(Words::but(who, text))).assert_failed(case, says);
    }
}

#[test]
fn answers_that_say_nothing_of_the_cgroup_decide_nothing() {
    let none = "devices./dev/neuron=0\n";
    for (open, made, case) in [
        ("EACCES", "EPERM", "unauthorised"),
        ("ENXIO", "EPERM", "unauthorised"),
        ("ENOENT", "EACCES", "made-node"),
        ("ENOENT", "ENODEV", "made-node"),
        ("ENOENT", "mknod EROFS", "made-node"),
    ] {
        let words = Words::but("stranger/tool", trying(none, open, made));
        run(two(words)).assert_unknown(case, Reason::Deadline);
    }
    let words = Words::but("stranger/tool", trying(none, "EPERM", "mknod EPERM"));
    run(two(words)).assert_passed(&["unauthorised", "made-node"]);
}

#[test]
fn what_was_not_told_is_not_taken_for_absent() {
    for (who, case) in [
        ("stranger/tool", "unauthorised"),
        ("holder/second", "second-container"),
        ("env/second", "environment"),
        ("tenant/tool", "tenants"),
        ("later/tool", "afterwards"),
    ] {
        run(two(Words::but(who, "done=1\n"))).assert_unknown(case, Reason::Deadline);
        let run = run(two(Words::but(who, "devices./dev/neuron=1\ndone=1\n")));
        run.assert_unknown(case, Reason::Deadline);
    }
    let run = run(two(Words::but("stranger/tool", NOTHING)));
    run.assert_unknown("made-node", Reason::Deadline);
}

#[test]
fn without_a_file_that_opens_nothing_is_compared() {
    for text in [
        NOTHING,
        "device./dev/neuron0=250:0 EACCES\ndevices./dev/neuron=1\ndone=1\n",
    ] {
        let run = run(two(Words::but("holder/tool", text)));
        assert!(
            run.conclusion("authorised")
                .is_some_and(|told| !told.is_pass())
        );
        run.assert_no_fail();
        assert!(
            !COMPARED
                .iter()
                .any(|case| run.conclusion(case).is_none_or(|told| told.is_pass()))
        );
    }
}

#[test]
fn one_device_cannot_be_compared_with_another() {
    let run = run(cluster(&["a"], DRIVER, Words::conforming()));
    run.assert_passed(&["authorised", "unauthorised", "made-node"]);
    run.assert_unknown("tenants", Reason::InsufficientCapacity);
    assert_eq!(run.conclusion("afterwards"), None);
}

#[test]
fn a_driver_that_no_table_knows_needs_the_setting() {
    let run = run(cluster(&["a", "b"], "vendor.example", Words::conforming()));
    run.assert_unknown_with("inventory", Reason::UnknownAccelerator, "device-paths");
    run.assert_unknown("unauthorised", Reason::UnknownAccelerator);
    let told = testing::run_with::<SecureAcceleratorAccess>(
        manifest::TEXT,
        cluster(&["a", "b"], "vendor.example", Words::conforming()),
        &[("device-paths", "/dev/neuron")],
    );
    told.assert_passed(&COMPARED);
}

/// The resource of the same vendor as [`DRIVER`].
const RESOURCE: &str = "aws.amazon.com/neuron";

#[test]
fn units_of_a_device_plugin_that_keep_to_themselves_pass() {
    let run = run(plugin(RESOURCE, 2, Words::conforming()));
    assert_eq!(run.result, Ok(()));
    run.assert_passed(&["inventory", "authorised", "afterwards", "host-path"]);
    run.assert_passed(&COMPARED);
    run.assert_earned();
    let pods = run.calls.iter().filter(|call| call.verb == "create");
    assert!(!pods.clone().any(|call| call.resource.contains("claim")));
}

#[test]
fn the_second_container_asks_for_no_unit() {
    let run = run(plugin(RESOURCE, 2, Words::conforming()));
    let mut created = run.calls.iter().filter(|call| call.verb == "create");
    let holder = created.find(|call| call.resource == "pods" && call.sent.contains("\"second\""));
    let holder: Value = karat_sdk::Object::parse(&holder.unwrap().sent)
        .unwrap()
        .into_value();
    let limits = |at: usize| &holder["spec"]["containers"][at]["resources"]["limits"];
    assert_eq!(limits(0)[RESOURCE], "1");
    assert!(limits(1).is_null());
}

#[test]
fn whoever_has_what_a_plugin_gave_to_another_is_found() {
    let both = "device./dev/neuron0=250:0 ok\ndevice./dev/neuron1=250:1 ok\ndevices./dev/neuron=2\ndone=1\n";
    let leaking = "device./dev/neuron0=250:0 ok\ndevices./dev/neuron=1\n";
    for (who, text, case, says) in [
        ("holder/tool", both.to_owned(), "authorised", "has 2"),
        (
            "holder/second",
            format!("{leaking}done=1\n"),
            "second-container",
            "second container has",
        ),
        (
            "stranger/tool",
            trying(leaking, "ok", "EPERM"),
            "unauthorised",
            "asked for no device has",
        ),
        (
            "tenant/tool",
            trying(
                "device./dev/neuron1=250:0 ok\ndevices./dev/neuron=1\n",
                "ENOENT",
                "EPERM",
            ),
            "tenants",
            "both containers have device 250:0",
        ),
        (
            "tenant/tool",
            trying(
                both.strip_suffix("done=1\n").unwrap_or_default(),
                "ok",
                "EPERM",
            ),
            "tenants",
            "both containers have device 250:0",
        ),
    ] {
        run(plugin(RESOURCE, 2, Words::but(who, text))).assert_failed(case, says);
    }
}

#[test]
fn units_that_are_declared_to_share_a_device_may_be_the_same() {
    let same = "device./dev/neuron0=250:0 ok\ndevices./dev/neuron=1\n";
    let words = || Words::but("tenant/tool", trying(same, "ok", "ok"));
    run(plugin("aws.amazon.com/neuroncore", 2, words())).assert_passed(&["tenants"]);
    run(plugin(RESOURCE, 2, words())).assert_failed("tenants", "both containers have");
    let both =
        "device./dev/neuron0=250:0 ok\ndevice./dev/neuron1=250:1 ok\ndevices./dev/neuron=2\n";
    let words = Words::but("tenant/tool", trying(both, "ok", "ok"));
    run(plugin("aws.amazon.com/neuroncore", 2, words)).assert_failed("tenants", "has 2");
}

#[test]
fn a_driver_and_a_plugin_of_one_vendor_are_compared_with_each_other() {
    let mixed = |words: Words| {
        let mut mixed = cluster(&["a"], DRIVER, words);
        add_plugin(&mut mixed, RESOURCE, 1);
        mixed
    };
    run(mixed(Words::conforming())).assert_passed(&COMPARED);
    let same = "device./dev/neuron0=250:0 ok\ndevices./dev/neuron=1\n";
    let words = Words::but("tenant/tool", trying(same, "ok", "ok"));
    let run = run(mixed(words));
    run.assert_failed("tenants", "both containers have device 250:0");
    let asked = run.calls.iter().filter(|call| call.verb == "create");
    assert!(
        asked
            .clone()
            .any(|call| call.resource == "resourceclaimtemplates")
    );
}

#[test]
fn what_a_driver_serves_by_an_extended_resource_is_no_plugins() {
    let mut served = plugin(RESOURCE, 2, Words::conforming());
    served.change("deviceclasses", "", DRIVER, |class| {
        class["spec"]["extendedResourceName"] = json!(RESOURCE);
    });
    let run = run(served);
    run.assert_unknown("inventory", Reason::InsufficientCapacity);
    assert!(!run.calls.iter().any(|call| call.verb == "create"));
}

#[test]
fn settings_say_how_devices_are_asked_for() {
    let run = |cluster: FakeCluster, settings: &[(&str, &str)]| {
        testing::run_with::<SecureAcceleratorAccess>(manifest::TEXT, cluster, settings)
    };
    let mixed = || {
        let mut mixed = cluster(&["a", "b"], DRIVER, Words::conforming());
        add_plugin(&mut mixed, RESOURCE, 2);
        mixed
    };
    let claims = |run: &Run| {
        let created = run.calls.iter().filter(|call| call.verb == "create");
        created
            .filter(|call| call.resource == "resourceclaimtemplates")
            .count()
    };
    let by_claim = run(mixed(), &[("allocation", "dra")]);
    by_claim.assert_passed(&COMPARED);
    assert_eq!(claims(&by_claim), 1);
    for settings in [("allocation", "device-plugin"), ("resource", RESOURCE)] {
        let by_unit = run(mixed(), &[settings]);
        by_unit.assert_passed(&COMPARED);
        assert_eq!(claims(&by_unit), 0);
    }
    let none = run(
        mixed(),
        &[
            ("resource", "vendor.example/gpu"),
            ("allocation", "device-plugin"),
        ],
    );
    assert!(
        none.conclusion("inventory")
            .is_some_and(|told| !told.is_pass())
    );
}

#[test]
fn a_resource_that_no_table_knows_needs_the_setting() {
    let words = Words::conforming;
    let run_it = run(plugin("vendor.example/gpu", 2, words()));
    run_it.assert_unknown_with("inventory", Reason::UnknownAccelerator, "device-paths");
    let told = testing::run_with::<SecureAcceleratorAccess>(
        manifest::TEXT,
        plugin("vendor.example/gpu", 2, words()),
        &[("device-paths", "/dev/neuron")],
    );
    told.assert_passed(&COMPARED);
}

#[test]
fn one_unit_cannot_be_compared_with_another() {
    let run = run(plugin(RESOURCE, 1, Words::conforming()));
    run.assert_passed(&["authorised", "unauthorised", "made-node"]);
    run.assert_unknown("tenants", Reason::InsufficientCapacity);
}

#[test]
fn a_pod_that_its_node_does_not_take_says_nothing_of_access() {
    let mut refusing = plugin(RESOURCE, 2, Words::conforming());
    refusing.controller(|cluster| {
        for pod in cluster.objects("pods") {
            let text = |key: &str| pod["metadata"][key].as_str().unwrap_or_default();
            if text("name").starts_with("tenant") && pod["status"]["phase"] == "Running" {
                cluster.change("pods", text("namespace"), text("name"), |pod| {
                    pod["status"] = json!({"phase": "Failed", "reason": "UnexpectedAdmissionError", "message": "Allocate failed"});
                });
            }
        }
    });
    run(refusing).assert_unknown_with(
        "tenants",
        Reason::InsufficientCapacity,
        "UnexpectedAdmissionError",
    );
}

#[test]
fn no_fault_of_the_api_server_becomes_a_fail_with_a_plugin() {
    testing::assert_faults_are_no_fail::<SecureAcceleratorAccess>(manifest::TEXT, || {
        plugin(RESOURCE, 2, Words::conforming())
    });
}

#[test]
fn on_a_played_node_nothing_is_created() {
    let mut played = two(Words::conforming());
    played.change("nodes", "", "n1", |node| {
        node["metadata"]["annotations"] = json!({"kwok.x-k8s.io/node": "fake"});
    });
    let run = run(played);
    run.assert_unknown_with("inventory", Reason::InsufficientCapacity, "lease `single`");
    assert!(!run.calls.iter().any(|call| call.verb == "create"));
}

#[test]
fn without_devices_nothing_is_created() {
    let mut empty = FakeCluster::new("v1.37.0");
    dra::install(&mut empty, &["v1"]);
    let run = run(empty);
    run.assert_unknown("inventory", Reason::NoAccelerator);
    run.assert_unknown("tenants", Reason::NoAccelerator);
    assert!(!run.calls.iter().any(|call| call.verb == "create"));
}

#[test]
fn an_image_that_no_node_gets_is_told_soon_and_accuses_nobody() {
    let mut cluster = two(Words::conforming());
    cluster.without_images();
    run(cluster).assert_image_unavailable("authorised");
}

#[test]
fn no_fault_of_the_api_server_becomes_a_fail() {
    testing::assert_faults_are_no_fail::<SecureAcceleratorAccess>(manifest::TEXT, || {
        two(Words::conforming())
    });
}
