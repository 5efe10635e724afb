//! Real nodes: pods run on them, and whatever is killed, nothing of them is left.

use std::os::unix::fs::PermissionsExt as _;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::time::{Duration, Instant};

use k8s_openapi::api::core::v1::{Node, Pod};
use karat_testbed::{
    AddOn, Component, ControlPlane, DraApi, KubernetesVersion, NODE_PROGRAMS, RuntimeHandler,
    can_run_nodes, gvisor_need, images, not_run,
};
use kube::Api;
use kube::api::LogParams;

use crate::control_plane::alive;
use crate::killed::soon;

/// Why a step of a test could not be done.
type Trouble = Box<dyn std::error::Error>;

/// True if this machine cannot run real nodes, which is then said by the test's name.
fn skipped(test: &str) -> bool {
    match can_run_nodes().and_then(|()| images::ensure_target().map_err(|e| e.to_string())) {
        Ok(()) => false,
        Err(why) => {
            not_run(&format!("node::{test}"), &why);
            true
        }
    }
}

/// The number in the address of the API server, from which all names of the laboratory follow.
fn number(url: &str) -> u8 {
    url.strip_prefix("https://10.188.")
        .and_then(|rest| rest.split('.').next()?.parse().ok())
        .unwrap_or_else(|| panic!("{url}"))
}

fn names(dir: &str) -> Vec<String> {
    std::fs::read_dir(dir)
        .into_iter()
        .flatten()
        .flatten()
        .map(|e| e.file_name().to_string_lossy().into_owned())
        .collect()
}

fn cgroups(number: u8) -> Vec<PathBuf> {
    let prefix = format!("karat-tb{number}-");
    let mut places = vec![PathBuf::from("/sys/fs/cgroup")];
    places.extend(
        names("/sys/fs/cgroup")
            .iter()
            .map(|n| Path::new("/sys/fs/cgroup").join(n)),
    );
    places
        .iter()
        .flat_map(|place| {
            names(&place.display().to_string())
                .into_iter()
                .filter(|n| n.starts_with(&prefix))
                .map(|n| place.join(n))
        })
        .collect()
}

/// Processes of a laboratory, and mounts of it in whatever namespace.
fn running(state: &Path) -> Vec<String> {
    let state = state.display().to_string();
    let mut all = Vec::new();
    for pid in names("/proc")
        .iter()
        .filter(|n| n.bytes().all(|b| b.is_ascii_digit()))
        .filter(|n| **n != std::process::id().to_string())
    {
        for file in ["cmdline", "mounts"] {
            let text = std::fs::read(format!("/proc/{pid}/{file}")).unwrap_or_default();
            if String::from_utf8_lossy(&text).contains(&state) {
                all.push(format!("{file} of process {pid}"));
            }
        }
    }
    all
}

/// Everything that a laboratory could leave on this machine.
fn traces(state: &Path, number: u8) -> Vec<String> {
    let mut all = running(state);
    let links: Vec<String> = names("/sys/class/net")
        .into_iter()
        .filter(|n| *n == format!("ktb{number}") || n.starts_with(&format!("kv{number}-")))
        .collect();
    all.extend(links.iter().map(|n| format!("interface {n}")));
    let routes = std::fs::read_to_string("/proc/net/route").unwrap_or_default();
    all.extend(
        routes
            .lines()
            .filter(|l| l.starts_with(&format!("ktb{number}\t")))
            .map(|l| format!("route {l}")),
    );
    all.extend(
        cgroups(number)
            .iter()
            .map(|c| format!("cgroup {}", c.display())),
    );
    let tables = Command::new("nft")
        .args(["list", "tables"])
        .env("PATH", "/usr/sbin:/sbin:/usr/bin:/bin")
        .output()
        .map(|o| String::from_utf8_lossy(&o.stdout).into_owned())
        .unwrap_or_default();
    all.extend(
        tables
            .lines()
            .filter(|l| l.contains("kube-proxy"))
            .map(str::to_owned),
    );
    if state.exists() {
        all.push(format!("folder {}", state.display()));
    }
    all
}

fn nothing_left(state: &Path, number: u8) {
    let began = Instant::now();
    loop {
        let left = traces(state, number);
        if left.is_empty() {
            return;
        }
        assert!(
            began.elapsed() < Duration::from_secs(20),
            "left: {}",
            left.join(", ")
        );
        std::thread::sleep(Duration::from_millis(20));
    }
}

const NAMESPACE: &str = "apiVersion: v1\nkind: Namespace\nmetadata: {name: pods, labels: {pod-security.kubernetes.io/enforce: restricted}}\n";

/// A pod that the strictest admission lets in. `more` are further lines of its specification.
fn pod(name: &str, image: &str, args: &str, more: &str) -> String {
    format!(
        "apiVersion: v1
kind: Pod
metadata: {{name: {name}, namespace: pods, labels: {{app: {name}}}}}
spec:
  terminationGracePeriodSeconds: 1
  automountServiceAccountToken: false
  securityContext: {{runAsNonRoot: true, seccompProfile: {{type: RuntimeDefault}}}}
{more}
  containers:
  - name: c
    image: {image}
    args: {args}
    ports: [{{containerPort: 8080}}]
    securityContext: {{allowPrivilegeEscalation: false, capabilities: {{drop: [ALL]}}}}
"
    )
}

async fn running_pod(lab: &ControlPlane, name: &str) -> Result<Pod, Trouble> {
    let pods: Api<Pod> = Api::namespaced(lab.client().await?, "pods");
    lab.wait_until(&format!("pod {name} runs"), async || {
        let pod = pods.get(name).await.map_err(|e| e.to_string())?;
        let status = pod.status.unwrap_or_default();
        match status.phase.as_deref() {
            Some("Running" | "Succeeded") => Ok(()),
            _ => Err(format!(
                "{:?} {:?}",
                status.phase,
                status.container_statuses.map(|c| c
                    .into_iter()
                    .filter_map(|c| c.state?.waiting)
                    .collect::<Vec<_>>())
            )),
        }
    })
    .await?;
    Ok(pods.get(name).await?)
}

async fn log_of(lab: &ControlPlane, name: &str, text: &str) -> Result<String, Trouble> {
    let pods: Api<Pod> = Api::namespaced(lab.client().await?, "pods");
    lab.wait_until(&format!("pod {name} has written {text:?}"), async || {
        let log = pods
            .logs(name, &LogParams::default())
            .await
            .map_err(|e| e.to_string())?;
        if log.contains(text) { Ok(()) } else { Err(log) }
    })
    .await?;
    Ok(pods.logs(name, &LogParams::default()).await?)
}

#[tokio::test]
async fn pods_run_and_after_kill_9_of_the_first_process_nothing_is_left() {
    if skipped("pods_run_and_after_kill_9_of_the_first_process_nothing_is_left") {
        return;
    }
    let lab = ControlPlane::builder().real_nodes(1).start().await.unwrap();
    let number = number(&lab.url());
    let state = lab.state_dir().to_owned();
    let client = lab.client().await.unwrap();

    // The real node and a simulated one stand side by side, and a pod can choose.
    lab.apply("plain-node.yaml").await.unwrap();
    lab.wait_nodes_ready().await.unwrap();
    let node = &lab.real_nodes()[0];
    let seen = Api::<Node>::all(client.clone())
        .get(node.name())
        .await
        .unwrap();
    let runtime = seen.status.unwrap().node_info.unwrap();
    assert_eq!(runtime.kubelet_version, "v1.37.0");
    assert_eq!(runtime.container_runtime_version, "containerd://2.4.2");

    let here = format!("  nodeName: {}\n", node.name());
    let pinned = images::build(|_| {})
        .unwrap()
        .images
        .iter()
        .find(|i| i.name == images::TOOL)
        .unwrap()
        .pinned();
    let yaml = [
        NAMESPACE.to_owned(),
        pod("talker", &pinned, "[say, hello, '2']", &here),
        pod("echo", images::ECHO, "['8080']", &here),
        pod("stranger", "karat.local/none:1", "[]", &here),
        "apiVersion: v1\nkind: Service\nmetadata: {name: echo, namespace: pods}\nspec: {selector: {app: echo}, ports: [{port: 80, targetPort: 8080}]}\n".to_owned(),
        pod("asker", images::TOOL, "[get, 'http://echo.pods.svc.cluster.local/from-a-pod', '30']", &format!("{here}  restartPolicy: OnFailure\n")),
    ]
    .join("---\n");
    lab.apply_yaml("pods", &yaml).await.unwrap();

    assert!(
        log_of(&lab, "talker", "hello 2")
            .await
            .unwrap()
            .starts_with("hello 1\n")
    );
    running_pod(&lab, "echo").await.unwrap();
    // Through the API server to the pod, and from pod to pod by a name that the node's DNS knows.
    lab.wait_until("the Service answers", async || {
        let request =
            http::Request::get("/api/v1/namespaces/pods/services/echo:80/proxy/some/path?a=b")
                .body(vec![])
                .map_err(|e| e.to_string())?;
        let text = client
            .request_text(request)
            .await
            .map_err(|e| e.to_string())?;
        let answer: serde_json::Value = serde_json::from_str(&text).map_err(|e| e.to_string())?;
        if answer["pod"] == "echo" && answer["path"] == "/some/path" && answer["query"] == "a=b" {
            Ok(())
        } else {
            Err(text)
        }
    })
    .await
    .unwrap();
    let asked = log_of(&lab, "asker", "\"path\":\"/from-a-pod\"")
        .await
        .unwrap();
    assert!(asked.contains("\"pod\":\"echo\""), "{asked}");
    // Nothing is pulled: an image that is not ours is refused, and quickly.
    let pods: Api<Pod> = Api::namespaced(client, "pods");
    lab.wait_until("the unknown image is refused", async || {
        let text = serde_json::to_string(&pods.get("stranger").await.map_err(|e| e.to_string())?)
            .map_err(|e| e.to_string())?;
        if text.contains("ErrImagePull") || text.contains("ImagePullBackOff") {
            Ok(())
        } else {
            Err(text)
        }
    })
    .await
    .unwrap();

    assert!(!cgroups(number).is_empty(), "the node has no cgroup");
    for program in NODE_PROGRAMS {
        let pid = node.program_pid(program).unwrap();
        let exe = std::fs::read_link(format!("/proc/{pid}/exe")).unwrap();
        assert!(exe.ends_with(program), "{program}: {}", exe.display());
    }
    assert!(node.program_pid("etcd").is_none());
    let first = node.first_process().unwrap();
    kill(first);
    let node_dir = node.dir().to_owned();
    soon("programs or mounts of the node are left", || {
        running(&node_dir).is_empty()
    });
    soon("the node's interface is left", || {
        !names("/sys/class/net").contains(&format!("kv{number}-0"))
    });
    soon("processes are left in the node's cgroups", || {
        cgroups(number).iter().all(|c| processes_below(c) == 0)
    });
    // Who waits for something is told, and the control plane has not noticed anything.
    let error = lab
        .wait_until("the moon rises", async || Err("not yet".to_owned()))
        .await
        .unwrap_err()
        .to_string();
    assert!(error.contains(node.name()), "{error}");
    assert!(lab.pid(Component::ApiServer).is_some());
    drop(lab);
    nothing_left(&state, number);
}

#[tokio::test]
async fn a_pod_in_gvisor_sees_another_kernel() {
    if skipped("a_pod_in_gvisor_sees_another_kernel") {
        return;
    }
    let lab = ControlPlane::builder().real_nodes(1).start().await.unwrap();
    // Built by now, so that it can be tried.
    let gvisor = gvisor_need(KubernetesVersion::default());
    if !gvisor.met {
        not_run("node::a_pod_in_gvisor_sees_another_kernel", &gvisor.text);
        return;
    }
    lab.apply("gvisor.yaml").await.unwrap();
    let args = "[cat, /proc/version]";
    let yaml = [
        NAMESPACE.to_owned(),
        pod("plain", images::TOOL, args, "  restartPolicy: Never\n"),
        pod(
            "sandboxed",
            images::TOOL,
            args,
            "  restartPolicy: Never\n  runtimeClassName: gvisor\n",
        ),
    ]
    .join("---\n");
    lab.apply_yaml("pods", &yaml).await.unwrap();
    let plain = log_of(&lab, "plain", "Linux version").await.unwrap();
    let sandboxed = log_of(&lab, "sandboxed", "Linux version").await.unwrap();
    assert_eq!(plain, std::fs::read_to_string("/proc/version").unwrap());
    assert_ne!(plain, sandboxed);
    let (number, state) = (number(&lab.url()), lab.state_dir().to_owned());
    drop(lab);
    nothing_left(&state, number);
}

#[tokio::test]
async fn a_handler_can_be_something_else_than_its_name_says() {
    if skipped("a_handler_can_be_something_else_than_its_name_says") {
        return;
    }
    let dir = tempfile::tempdir().unwrap();
    let (program, seen) = (dir.path().join("runc"), dir.path().join("seen"));
    // As a faulty node would have it: called as runc, it may change the bundle first.
    std::fs::write(
        &program,
        format!(
            "#!/bin/sh\necho \"$@\" >>{}\nexec runc \"$@\"\n",
            seen.display()
        ),
    )
    .unwrap();
    std::fs::set_permissions(&program, std::fs::Permissions::from_mode(0o755)).unwrap();
    let lab = ControlPlane::builder()
        .real_nodes(1)
        .runtime_handler("gvisor", RuntimeHandler::Runc)
        .runtime_handler("through", RuntimeHandler::RuncThrough(program))
        .start()
        .await
        .unwrap();
    lab.apply("gvisor.yaml").await.unwrap();
    let class = "apiVersion: node.k8s.io/v1\nkind: RuntimeClass\nmetadata: {name: through}\nhandler: through\n";
    let in_class = |name: &str, class: &str| {
        let more = format!("  restartPolicy: Never\n  runtimeClassName: {class}\n");
        pod(name, images::TOOL, "[cat, /proc/version]", &more)
    };
    let yaml = [
        NAMESPACE.to_owned(),
        class.to_owned(),
        in_class("a", "gvisor"),
        in_class("b", "through"),
    ]
    .join("---\n");
    lab.apply_yaml("pods", &yaml).await.unwrap();
    let kernel = std::fs::read_to_string("/proc/version").unwrap();
    assert_eq!(log_of(&lab, "a", "Linux version").await.unwrap(), kernel);
    assert_eq!(log_of(&lab, "b", "Linux version").await.unwrap(), kernel);
    let calls = std::fs::read_to_string(&seen).unwrap();
    assert!(calls.contains("create --bundle"), "{calls}");
}

#[tokio::test]
async fn a_claim_gives_a_device_and_nobody_else_has_it() {
    if skipped("a_claim_gives_a_device_and_nobody_else_has_it") {
        return;
    }
    let lab = ControlPlane::builder()
        .real_nodes(1)
        .with(AddOn::DraDriver)
        .start()
        .await
        .unwrap();
    let template = "apiVersion: resource.k8s.io/v1
kind: ResourceClaimTemplate
metadata: {name: one, namespace: pods}
spec: {spec: {devices: {requests: [{name: d, exactly: {deviceClassName: test-device.karat.local}}]}}}
";
    let holder = |name: &str| {
        pod(
            name,
            images::TOOL,
            "[open, /dev/karat-dev-0, /dev/karat-dev-1]",
            "  restartPolicy: Never\n  resourceClaims: [{name: d, resourceClaimTemplateName: one}]\n",
        )
        .replace(
            "    securityContext:",
            "    resources: {claims: [{name: d}]}\n    securityContext:",
        )
    };
    let nobody = pod(
        "nobody",
        images::TOOL,
        "[open, /dev/karat-dev-0, /dev/karat-dev-1]",
        "  restartPolicy: Never\n",
    );
    let yaml = [
        NAMESPACE.to_owned(),
        template.to_owned(),
        holder("first"),
        holder("second"),
        nobody,
    ]
    .join("---\n");
    lab.apply_yaml("devices", &yaml).await.unwrap();
    for name in ["first", "second"] {
        let log = log_of(&lab, name, "karat-dev-1").await.unwrap();
        let opened = log.matches("\"opened\":true").count();
        let absent = log.matches("\"errno\":\"ENOENT\"").count();
        assert_eq!((opened, absent), (1, 1), "{name}: {log}");
    }
    let log = log_of(&lab, "nobody", "karat-dev-1").await.unwrap();
    assert_eq!(log.matches("\"errno\":\"ENOENT\"").count(), 2, "{log}");
}

#[tokio::test]
async fn a_unit_of_a_device_plugin_is_one_device_also_after_the_kubelet_began_anew() {
    if skipped("a_unit_of_a_device_plugin_is_one_device_also_after_the_kubelet_began_anew") {
        return;
    }
    let lab = ControlPlane::builder()
        .real_nodes(1)
        .with(AddOn::DevicePlugin)
        .start()
        .await
        .unwrap();
    let nobody = |name: &str| {
        pod(
            name,
            images::TOOL,
            "[open, /dev/karat-dev-0, /dev/karat-dev-1]",
            "  restartPolicy: Never\n",
        )
    };
    let holder = |name: &str| {
        nobody(name).replace(
            "    securityContext:",
            "    resources: {limits: {karat.local/test-device: '1'}}\n    securityContext:",
        )
    };
    let yaml = [
        NAMESPACE.to_owned(),
        holder("first"),
        holder("second"),
        nobody("nobody"),
    ];
    lab.apply_yaml("devices", &yaml.join("---\n"))
        .await
        .unwrap();
    // Pods run as a user whom not every device lets in; what is asked is which file is there.
    let absent = async |name: &str| {
        let log = log_of(&lab, name, "karat-dev-1").await.unwrap();
        log.matches("\"errno\":\"ENOENT\"").count()
    };
    assert_eq!(absent("first").await, 1);
    assert_eq!(absent("second").await, 1);
    assert_eq!(absent("nobody").await, 2);

    let node = &lab.real_nodes()[0];
    let said = lab.device_plugin_log(node);
    let listed = || {
        let text = std::fs::read_to_string(&said).map_err(|e| e.to_string())?;
        Ok::<usize, String>(text.lines().filter(|line| *line == "listed").count())
    };
    assert_eq!(listed(), Ok(1));
    node.restart("kubelet").unwrap();
    lab.wait_until(
        "the new kubelet knows the devices",
        async || match listed()? {
            1 => Err("not yet".to_owned()),
            _ => Ok(()),
        },
    )
    .await
    .unwrap();
    lab.apply_yaml("third", &holder("third")).await.unwrap();
    assert_eq!(absent("third").await, 1);

    let (number, state) = (number(&lab.url()), lab.state_dir().to_owned());
    drop(lab);
    nothing_left(&state, number);
}

#[tokio::test]
async fn two_nodes_reach_each_others_pods_and_one_can_fail() {
    if skipped("two_nodes_reach_each_others_pods_and_one_can_fail") {
        return;
    }
    let lab = ControlPlane::builder()
        .arg(
            Component::ControllerManager,
            "--node-monitor-grace-period=10s",
        )
        .arg(Component::ControllerManager, "--node-monitor-period=1s")
        .real_nodes(2)
        .start()
        .await
        .unwrap();
    let on = |i: usize| format!("  nodeName: {}\n", lab.real_nodes()[i].name());
    let yaml = [
        NAMESPACE.to_owned(),
        pod("far", images::ECHO, "['8080']", &on(1)),
    ]
    .join("---\n");
    lab.apply_yaml("pods", &yaml).await.unwrap();
    let far = running_pod(&lab, "far").await.unwrap();
    let address = far.status.unwrap().pod_ip.unwrap();
    let near = pod(
        "near",
        images::TOOL,
        &format!("[get, 'http://{address}:8080/over-there', '30']"),
        &format!("{}  restartPolicy: OnFailure\n", on(0)),
    );
    lab.apply_yaml("near", &near).await.unwrap();
    let answer = log_of(&lab, "near", "\"path\":\"/over-there\"")
        .await
        .unwrap();
    assert!(answer.contains("\"pod\":\"far\""), "{answer}");

    lab.kill_node(1).unwrap();
    let nodes: Api<Node> = Api::all(lab.client().await.unwrap());
    lab.wait_until("the dead node is noticed", async || {
        let node = nodes
            .get(lab.real_nodes()[1].name())
            .await
            .map_err(|e| e.to_string())?;
        let ready = node
            .status
            .and_then(|s| s.conditions)
            .into_iter()
            .flatten()
            .find(|c| c.type_ == "Ready")
            .map(|c| c.status);
        if ready.as_deref() == Some("Unknown") {
            Ok(())
        } else {
            Err(format!("{ready:?}"))
        }
    })
    .await
    .unwrap();
    let (number, state) = (number(&lab.url()), lab.state_dir().to_owned());
    drop(lab);
    nothing_left(&state, number);
}

/// Starts a laboratory in a process of its own and reads what it says.
fn hold() -> Result<(Child, PathBuf, u8, Vec<u32>), Trouble> {
    use std::io::BufRead as _;
    let mut owner = Command::new(env!("CARGO_BIN_EXE_testbed-hold"))
        .arg("--real-node")
        .stdout(Stdio::piped())
        .spawn()?;
    let mut line = String::new();
    let output = owner.stdout.take().ok_or("no standard output")?;
    std::io::BufReader::new(output).read_line(&mut line)?;
    let said: serde_json::Value = serde_json::from_str(&line)?;
    let text = |name: &str| said[name].as_str().ok_or(format!("{line} has no {name}"));
    let pids = said["pids"].as_array().into_iter().flatten();
    let pids = pids.filter_map(|p| p.as_u64()?.try_into().ok()).collect();
    Ok((owner, text("state")?.into(), number(text("url")?), pids))
}

#[test]
fn kill_9_of_the_owner_leaves_nothing_of_its_node() {
    if skipped("kill_9_of_the_owner_leaves_nothing_of_its_node") {
        return;
    }
    let (mut owner, state, number, pids) = hold().unwrap();
    assert_eq!(pids.len(), 6);
    owner.kill().unwrap();
    owner.wait().unwrap();
    soon("programs are left", || !pids.iter().any(|p| alive(*p)));
    nothing_left(&state, number);
}

#[test]
fn what_no_janitor_could_remove_is_removed_by_whoever_comes_next() {
    if skipped("what_no_janitor_could_remove_is_removed_by_whoever_comes_next") {
        return;
    }
    let (mut owner, state, number, pids) = hold().unwrap();
    // First the janitor, which is the only child of the owner that is a shell.
    let children = std::fs::read_dir(format!("/proc/{}/task", owner.id()))
        .unwrap()
        .flatten()
        .flat_map(|task| {
            let text = std::fs::read_to_string(task.path().join("children")).unwrap_or_default();
            text.split_whitespace()
                .map(|p| p.parse::<u32>().unwrap())
                .collect::<Vec<_>>()
        });
    let janitor = children
        .into_iter()
        .find(|p| {
            std::fs::read_to_string(format!("/proc/{p}/cmdline"))
                .is_ok_and(|t| t.contains("karat-testbed-janitor"))
        })
        .unwrap();
    kill(janitor);
    owner.kill().unwrap();
    owner.wait().unwrap();
    soon("programs are left", || !pids.iter().any(|p| alive(*p)));
    soon("something is left", || {
        karat_testbed::named::list().unwrap();
        traces(&state, number).is_empty()
    });
}

#[tokio::test]
async fn what_cannot_be_had_is_refused_before_anything_starts() {
    let text = |builder: karat_testbed::ControlPlaneBuilder| async {
        builder.start().await.unwrap_err().to_string()
    };
    let many = text(ControlPlane::builder().real_nodes(9)).await;
    assert!(many.contains("eight"), "{many}");
    let old = text(ControlPlane::builder().dra(DraApi::Off).real_nodes(1)).await;
    assert!(old.contains("resource.k8s.io/v1"), "{old}");
}

fn processes_below(cgroup: &Path) -> usize {
    let own =
        std::fs::read_to_string(cgroup.join("cgroup.procs")).map_or(0, |text| text.lines().count());
    let below: usize = std::fs::read_dir(cgroup)
        .into_iter()
        .flatten()
        .flatten()
        .filter(|e| e.file_type().is_ok_and(|t| t.is_dir()))
        .map(|e| processes_below(&e.path()))
        .sum();
    own + below
}

fn kill(pid: u32) {
    let status = Command::new("kill").args(["-9", &pid.to_string()]).status();
    assert!(status.is_ok_and(|s| s.success()), "kill -9 {pid}");
}
