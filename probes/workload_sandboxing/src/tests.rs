//! Every branch of the probe on a fake cluster: what the pods say, and what the platform does to them.

use crate::{WorkloadSandboxing, manifest};
use karat_sdk::testing::{self, FakeCluster, FakeLog, Run};
use karat_sdk::{Reason, json};

const ALL: [&str; 10] = [
    "candidate",
    "neighbour",
    "runs",
    "kernel",
    "processes",
    "memory",
    "files",
    "network",
    "neighbours",
    "works",
];

const NEIGHBOUR: &str = "process=karat-next\nconnect.127.0.0.1:8099=ok\ndone=1\n";
const LOOK: &str = "kernel.release=RELEASE
kernel.version=Linux version RELEASE
kernel.boot=BOOT
process=tool
mount=overlay / /
mount=proc / /proc
mount=ext4 /var/lib/kubelet/pods/u/etc-hosts /etc/hosts
interface=lo
interface=eth0
read./dev/mem=ENOENT
read./dev/kmem=ENOENT
read./proc/kcore=empty
exists./etc/kubernetes=no
exists./var/lib/kubelet=no
exists./var/log/pods=no
exists./run/containerd=no
below./etc/kubernetes=none
below./var/lib/kubelet=none
below./var/log/pods=none
below./run/containerd=none
connect.127.0.0.1:8099=ECONNREFUSED
http.http://neighbour-abcd2345/=200
write./scratch/file=ok
done=1
";

fn look(release: &str, boot: &str) -> String {
    LOOK.replace("RELEASE", release).replace("BOOT", boot)
}

/// What the pods print: the sandbox, the plain one, the neighbour.
struct Words {
    sandbox: String,
    plain: String,
    neighbour: String,
}

impl Words {
    fn conforming() -> Words {
        Words {
            sandbox: look("4.19.0-gvisor", "b-2"),
            plain: look("6.1.0", "b-1"),
            neighbour: NEIGHBOUR.to_owned(),
        }
    }

    /// As a conforming one, with something else in the sandbox.
    fn but(from: &str, to: &str) -> Words {
        let mut words = Words::conforming();
        assert!(words.sandbox.contains(from), "{from}");
        words.sandbox = words.sandbox.replace(from, to);
        words
    }
}

/// A node, a RuntimeClass, and a kubelet that starts and ends pods at once.
fn cluster(class: &str, handler: &str, words: Words) -> FakeCluster {
    let mut cluster = FakeCluster::new("v1.37.0");
    cluster.serve(
        "node.k8s.io",
        &["v1"],
        "runtimeclasses",
        "RuntimeClass",
        false,
        &[],
    );
    cluster.serve("", &["v1"], "services", "Service", true, &["status"]);
    cluster.put(
        json!({"apiVersion": "v1", "kind": "Node", "metadata": {"name": "n1"}, "spec": {},
        "status": {"conditions": [{"type": "Ready", "status": "True"}]}}),
    );
    cluster.put(json!({"apiVersion": "node.k8s.io/v1", "kind": "RuntimeClass", "metadata": {"name": class}, "handler": handler}));
    cluster.controller(|cluster| {
        for pod in cluster.objects("pods") {
            if !pod["spec"]["nodeName"].is_null() {
                continue;
            }
            let text = |key: &str| pod["metadata"][key].as_str().unwrap_or_default().to_owned();
            let serves = text("name").starts_with("neighbour");
            cluster.change("pods", &text("namespace"), &text("name"), |pod| {
                pod["spec"]["nodeName"] = json!("n1");
                pod["status"] = if serves {
                    json!({"phase": "Running"})
                } else {
                    json!({"phase": "Succeeded"})
                };
            });
        }
    });
    cluster.logs(move |asked| {
        let text = match asked.name().split('-').next() {
            Some("sandbox") => &words.sandbox,
            Some("plain") => &words.plain,
            _ => return FakeLog::text(&words.neighbour).goes_on(),
        };
        FakeLog::text(text)
    });
    cluster
}

fn run(cluster: FakeCluster) -> Run {
    testing::run::<WorkloadSandboxing>(manifest::TEXT, cluster)
}

#[test]
fn a_sandbox_passes() {
    let run = run(cluster("gvisor", "runsc", Words::conforming()));
    assert_eq!(run.result, Ok(()));
    run.assert_passed(&ALL);
    run.assert_earned();
}

#[test]
fn plain_containers_under_the_name_of_a_sandbox_fail() {
    let mut words = Words::conforming();
    words.sandbox = words.plain.clone();
    let run = run(cluster("gvisor", "gvisor", words));
    run.assert_failed("kernel", "has the kernel of its node");
    run.assert_passed(&[
        "processes",
        "memory",
        "files",
        "network",
        "neighbours",
        "works",
    ]);
}

#[test]
fn one_sign_of_another_kernel_is_enough() {
    let mut words = Words::conforming();
    words.sandbox = look("6.1.0", "b-2");
    run(cluster("kata-qemu", "kata", words)).assert_passed(&["kernel"]);
}

#[test]
fn a_sign_that_cannot_be_read_is_no_other_kernel() {
    let mut words = Words::conforming();
    words.sandbox = words.plain.replace("kernel.boot=b-1", "kernel.boot=");
    run(cluster("gvisor", "gvisor", words)).assert_failed("kernel", "has the kernel of its node");
    let mut words = Words::conforming();
    words.sandbox = look("", "").replace("Linux version ", "");
    run(cluster("gvisor", "gvisor", words)).assert_unknown("kernel", Reason::Deadline);
}

#[test]
fn everything_of_the_node_is_found() {
    for (from, to, case, says) in [
        (
            "process=tool",
            "process=tool\nprocess=kubelet",
            "processes",
            "`kubelet`",
        ),
        (
            "read./dev/mem=ENOENT",
            "read./dev/mem=ok",
            "memory",
            "can read /dev/mem",
        ),
        (
            "exists./var/lib/kubelet=no",
            "exists./var/lib/kubelet=yes",
            "files",
            "/var/lib/kubelet",
        ),
        (
            "exists./etc/kubernetes=no",
            "exists./etc/kubernetes=EACCES",
            "files",
            "/etc/kubernetes",
        ),
        (
            "below./var/log/pods=none",
            "below./var/log/pods=/host",
            "files",
            "/host/var/log/pods",
        ),
        (
            "mount=proc / /proc",
            "mount=ext4 / /host",
            "files",
            "mounted at /host",
        ),
        ("interface=eth0", "interface=cni0", "network", "`cni0`"),
        (
            "interface=eth0",
            "interface=br-1234",
            "network",
            "`br-1234`",
        ),
        ("8099=ECONNREFUSED", "8099=ok", "neighbours", "loopback"),
        (
            "process=tool",
            "process=karat-next",
            "neighbours",
            "a process of its neighbour",
        ),
        ("/=200", "/=ETIMEDOUT", "works", "ETIMEDOUT"),
        ("file=ok", "file=EROFS", "works", "EROFS"),
    ] {
        run(cluster("gvisor", "runsc", Words::but(from, to))).assert_failed(case, says);
    }
}

#[test]
fn what_was_not_told_is_not_taken_for_absent() {
    for (from, to, case) in [
        ("process=tool\n", "", "processes"),
        ("read./dev/mem=ENOENT\n", "", "memory"),
        ("exists./run/containerd=no\n", "", "files"),
        ("below./run/containerd=none\n", "", "files"),
        ("interface=lo\ninterface=eth0\n", "", "network"),
        ("connect.127.0.0.1:8099=ECONNREFUSED\n", "", "neighbours"),
        ("write./scratch/file=ok\n", "", "works"),
    ] {
        run(cluster("gvisor", "runsc", Words::but(from, to)))
            .assert_unknown(case, Reason::Deadline);
    }
    let run = run(cluster("gvisor", "runsc", Words::but("done=1\n", "")));
    assert!(run.conclusion("kernel").is_none_or(|told| !told.is_pass()));
}

#[test]
fn without_a_sandbox_there_is_a_fail_and_nothing_runs() {
    let run = run(cluster("nvidia", "nvidia", Words::conforming()));
    run.assert_failed(
        "candidate",
        "no RuntimeClass speaks of a sandbox (there are: nvidia)",
    );
    run.assert_unknown("kernel", Reason::SolutionAbsent);
    assert!(!run.calls.iter().any(|call| call.verb == "create"));
}

#[test]
fn a_class_that_is_dropped_on_admission_fails() {
    let mut dropping = cluster("gvisor", "runsc", Words::conforming());
    dropping.admit("pods", |_, pod| {
        pod["spec"]["runtimeClassName"] = json!(null);
    });
    run(dropping).assert_failed("neighbour", "was stored with none");
}

#[test]
fn a_neighbour_that_does_not_see_itself_says_nothing_of_others() {
    let mut words = Words::conforming();
    words.neighbour = words.neighbour.replace("=ok", "=ECONNREFUSED");
    let run = run(cluster("gvisor", "runsc", words));
    run.assert_unknown("neighbour", Reason::Deadline);
    run.assert_unknown("neighbours", Reason::Deadline);
}

#[test]
fn a_handler_that_the_node_lacks_is_told_in_the_words_of_the_node() {
    let mut stuck = FakeCluster::new("v1.37.0");
    stuck.serve(
        "node.k8s.io",
        &["v1"],
        "runtimeclasses",
        "RuntimeClass",
        false,
        &[],
    );
    stuck.put(
        json!({"apiVersion": "v1", "kind": "Node", "metadata": {"name": "n1"}, "spec": {},
        "status": {"conditions": [{"type": "Ready", "status": "True"}]}}),
    );
    stuck.put(json!({"apiVersion": "node.k8s.io/v1", "kind": "RuntimeClass", "metadata": {"name": "kata"}, "handler": "kata"}));
    stuck.controller(|cluster| {
        for pod in cluster.objects("pods") {
            let text = |key: &str| pod["metadata"][key].as_str().unwrap_or_default().to_owned();
            if pod["status"]["phase"] == "Pending" {
                continue;
            }
            cluster.change("pods", &text("namespace"), &text("name"), |pod| {
                pod["spec"]["nodeName"] = json!("n1");
                pod["status"] = json!({"phase": "Pending", "containerStatuses": [{"state": {"waiting": {"reason": "ContainerCreating"}}}]});
            });
            cluster.put(json!({"apiVersion": "v1", "kind": "Event", "metadata": {"name": "e", "namespace": text("namespace")},
                "involvedObject": {"uid": text("uid")}, "type": "Warning", "reason": "FailedCreatePodSandBox",
                "message": "no runtime for \"kata\" is configured"}));
        }
    });
    let run = run(stuck);
    run.assert_unknown("neighbour", Reason::Deadline);
    let told = format!("{:?}", run.conclusion("neighbour"));
    assert!(
        told.contains("FailedCreatePodSandBox: no runtime for"),
        "{told}"
    );
    run.assert_unknown("kernel", Reason::Deadline);
}

#[test]
fn an_image_that_no_node_gets_is_told_soon_and_accuses_nobody() {
    let mut cluster = cluster("gvisor", "runsc", Words::conforming());
    cluster.without_images();
    run(cluster).assert_image_unavailable("neighbour");
}

#[test]
fn no_fault_of_the_api_server_becomes_a_fail() {
    testing::assert_faults_are_no_fail::<WorkloadSandboxing>(manifest::TEXT, || {
        cluster("gvisor", "runsc", Words::conforming())
    });
}
