//! Operators beside the control plane: each reconciles, each refuses what is bad, and nothing of them is left.

use std::io::{Read as _, Write as _};
use std::net::TcpStream;
use std::path::PathBuf;

use karat_testbed::{AddOn, ControlPlane, Registry, apply_yaml, can_run_nodes, not_run};
use kube::Api;
use kube::api::{DynamicObject, ListParams};
use kube::core::GroupVersionKind;
use kube::discovery::ApiResource;

use crate::control_plane::alive;

const NODE: &str = "apiVersion: v1
kind: Node
metadata: {name: fake, annotations: {kwok.x-k8s.io/node: fake}}
status:
  allocatable: {cpu: '8', memory: 32Gi, pods: '110'}
  capacity: {cpu: '8', memory: 32Gi, pods: '110'}
";

const JOB_SET: &str = "apiVersion: jobset.x-k8s.io/v1alpha2
kind: JobSet
metadata: {name: set, namespace: default}
spec:
  replicatedJobs:
  - name: w
    replicas: 2
    template: {spec: {template: {spec: {restartPolicy: Never, containers: [{name: c, image: lab.example/none}]}}}}
";

const LEADER_WORKER_SET: &str = "apiVersion: leaderworkerset.x-k8s.io/v1
kind: LeaderWorkerSet
metadata: {name: group, namespace: default}
spec:
  replicas: 1
  leaderWorkerTemplate:
    size: 2
    workerTemplate: {spec: {containers: [{name: c, image: lab.example/none}]}}
";

const QUEUES: &str = "apiVersion: kueue.x-k8s.io/v1beta2
kind: ResourceFlavor
metadata: {name: any}
---
apiVersion: kueue.x-k8s.io/v1beta2
kind: ClusterQueue
metadata: {name: one-cpu}
spec:
  namespaceSelector: {}
  resourceGroups:
  - coveredResources: [cpu]
    flavors: [{name: any, resources: [{name: cpu, nominalQuota: '1'}]}]
---
apiVersion: kueue.x-k8s.io/v1beta2
kind: LocalQueue
metadata: {name: here, namespace: default}
spec: {clusterQueue: one-cpu}
---
apiVersion: batch/v1
kind: Job
metadata: {name: fits, namespace: default, labels: {kueue.x-k8s.io/queue-name: here}}
spec:
  template: {spec: {restartPolicy: Never, containers: [{name: c, image: lab.example/none, resources: {requests: {cpu: '1'}}}]}}
---
apiVersion: batch/v1
kind: Job
metadata: {name: too-large, namespace: default, labels: {kueue.x-k8s.io/queue-name: here}}
spec:
  template: {spec: {restartPolicy: Never, containers: [{name: c, image: lab.example/none, resources: {requests: {cpu: '2'}}}]}}
";

const TRAINING: &str = "apiVersion: trainer.kubeflow.org/v1alpha1
kind: TrainingRuntime
metadata: {name: plain, namespace: default, labels: {trainer.kubeflow.org/framework: plain}}
spec:
  template:
    spec:
      replicatedJobs:
      - name: node
        template:
          metadata: {labels: {trainer.kubeflow.org/trainjob-ancestor-step: trainer}}
          spec: {template: {spec: {restartPolicy: Never, containers: [{name: node, image: lab.example/none}]}}}
---
apiVersion: trainer.kubeflow.org/v1alpha1
kind: TrainJob
metadata: {name: train, namespace: default}
spec: {runtimeRef: {apiGroup: trainer.kubeflow.org, kind: TrainingRuntime, name: plain}}
";

/// Waits until an object of the namespace `default` has a true condition.
async fn comes_to(
    lab: &ControlPlane,
    (group, version, kind): (&str, &str, &str),
    name: &str,
    condition: &str,
) -> karat_testbed::Result<()> {
    let kind = ApiResource::from_gvk(&GroupVersionKind::gvk(group, version, kind));
    let api: Api<DynamicObject> = Api::namespaced_with(lab.client().await?, "default", &kind);
    lab.wait_until(&format!("{name} is {condition}"), async || {
        let object = api.get(name).await.map_err(|e| e.to_string())?;
        let all = object.data["status"]["conditions"].as_array().cloned();
        let mut all = all.unwrap_or_default().into_iter();
        if all.any(|one| one["type"] == condition && one["status"] == "True") {
            Ok(())
        } else {
            Err(object.data["status"].to_string())
        }
    })
    .await
}

#[tokio::test]
async fn operators_reconcile_refuse_and_go() {
    let operators = [
        AddOn::JobSet,
        AddOn::LeaderWorkerSet,
        AddOn::Kueue,
        AddOn::Trainer,
    ];
    let lab = operators
        .into_iter()
        .fold(ControlPlane::builder(), |builder, add_on| {
            builder.with(add_on)
        })
        .start()
        .await
        .unwrap();
    let pids = operators.map(|add_on| lab.add_on_pid(add_on).unwrap());
    assert!(pids.iter().all(|pid| alive(*pid)));
    lab.apply_yaml("node", NODE).await.unwrap();
    lab.wait_nodes_ready().await.unwrap();

    lab.apply_yaml("set", JOB_SET).await.unwrap();
    comes_to(
        &lab,
        ("jobset.x-k8s.io", "v1alpha2", "JobSet"),
        "set",
        "Completed",
    )
    .await
    .unwrap();

    lab.apply_yaml("group", LEADER_WORKER_SET).await.unwrap();
    let kind = ("leaderworkerset.x-k8s.io", "v1", "LeaderWorkerSet");
    comes_to(&lab, kind, "group", "Available").await.unwrap();

    lab.apply_yaml("queues", QUEUES).await.unwrap();
    comes_to(&lab, ("batch", "v1", "Job"), "fits", "Complete")
        .await
        .unwrap();
    comes_to(&lab, ("batch", "v1", "Job"), "too-large", "Suspended")
        .await
        .unwrap();

    lab.apply_yaml("training", TRAINING).await.unwrap();
    comes_to(
        &lab,
        ("trainer.kubeflow.org", "v1alpha1", "TrainJob"),
        "train",
        "Complete",
    )
    .await
    .unwrap();

    // The webhooks are asked, and one that is gone is missed.
    let client = lab.client().await.unwrap();
    let flawed = JOB_SET.replace("name: set", "name: flawed").replace(
        "spec:\n  replicatedJobs",
        "spec:\n  successPolicy: {operator: All, targetReplicatedJobs: [nowhere]}\n  replicatedJobs",
    );
    let error = apply_yaml(&client, "flawed", &flawed).await.unwrap_err();
    let text = format!("{error:?}");
    assert!(
        text.contains("vjobset.kb.io") && text.contains("denied the request"),
        "{text}"
    );
    lab.stop_add_on(AddOn::JobSet).unwrap();
    let another = JOB_SET.replace("name: set", "name: another");
    let error = apply_yaml(&client, "another", &another).await.unwrap_err();
    assert!(
        format!("{error:?}").contains("failed calling webhook"),
        "{error:?}"
    );
    lab.resume_add_on(AddOn::JobSet).await.unwrap();
    apply_yaml(&client, "another", &another).await.unwrap();

    let state: PathBuf = lab.state_dir().to_owned();
    let pids = operators.map(|add_on| lab.add_on_pid(add_on).unwrap());
    drop(lab);
    assert!(!pids.iter().any(|pid| alive(*pid)));
    assert!(!state.exists());
}

#[tokio::test]
async fn a_paused_operator_makes_nothing_until_it_goes_on() {
    let lab = ControlPlane::builder()
        .with(AddOn::JobSet)
        .start()
        .await
        .unwrap();
    let jobs = ApiResource::from_gvk(&GroupVersionKind::gvk("batch", "v1", "Job"));
    let jobs: Api<DynamicObject> =
        Api::namespaced_with(lab.client().await.unwrap(), "default", &jobs);
    let held = JOB_SET.replace(
        "restartPolicy: Never",
        "restartPolicy: Never, schedulingGates: [{name: lab.example/held}]",
    );
    lab.apply_yaml("set", &held).await.unwrap();
    let count = async || {
        let list = jobs.list(&ListParams::default()).await;
        list.map(|list| list.items).map_err(|e| e.to_string())
    };
    let both = async || match count().await?.len() {
        2 => Ok(()),
        n => Err(format!("{n} jobs")),
    };
    lab.wait_until("two jobs", both).await.unwrap();
    lab.pause_add_on(AddOn::JobSet).unwrap();
    let gone = count().await.unwrap().remove(0).metadata.name.unwrap();
    let now = kube::api::DeleteParams::background();
    jobs.delete(&gone, &now).await.unwrap();
    lab.wait_until("one job", async || match count().await?.len() {
        1 => Ok(()),
        n => Err(format!("{n} jobs")),
    })
    .await
    .unwrap();
    lab.resume_add_on(AddOn::JobSet).await.unwrap();
    lab.wait_until("two jobs again", both).await.unwrap();
}

const SANDBOXES: &str = "apiVersion: agents.x-k8s.io/v1alpha1
kind: Sandbox
metadata: {name: box, namespace: default}
spec:
  podTemplate:
    spec: {containers: [{name: web, image: 'karat.local/echo:1'}]}
---
apiVersion: extensions.agents.x-k8s.io/v1alpha1
kind: SandboxTemplate
metadata: {name: web, namespace: default}
spec:
  podTemplate:
    spec: {containers: [{name: web, image: 'karat.local/echo:1'}]}
---
apiVersion: extensions.agents.x-k8s.io/v1alpha1
kind: SandboxClaim
metadata: {name: claimed, namespace: default}
spec: {sandboxTemplateRef: {name: web}}
";

#[tokio::test]
async fn a_sandbox_runs_on_a_real_node_and_so_does_a_claimed_one() {
    if let Err(why) = can_run_nodes() {
        let test = "add_ons::a_sandbox_runs_on_a_real_node_and_so_does_a_claimed_one";
        return not_run(test, &why);
    }
    let lab = ControlPlane::builder()
        .with(AddOn::AgentSandbox)
        .real_nodes(1)
        .start()
        .await
        .unwrap();
    lab.apply_yaml("sandboxes", SANDBOXES).await.unwrap();
    let sandbox = ("agents.x-k8s.io", "v1alpha1", "Sandbox");
    comes_to(&lab, sandbox, "box", "Ready").await.unwrap();
    let claim = ("extensions.agents.x-k8s.io", "v1alpha1", "SandboxClaim");
    comes_to(&lab, claim, "claimed", "Ready").await.unwrap();

    // It is killed and comes back at the same place.
    let pid = lab.add_on_pid(AddOn::AgentSandbox).unwrap();
    lab.stop_add_on(AddOn::AgentSandbox).unwrap();
    lab.resume_add_on(AddOn::AgentSandbox).await.unwrap();
    assert_ne!(lab.add_on_pid(AddOn::AgentSandbox), Some(pid));
    let another = SANDBOXES.replace("name: box", "name: another");
    lab.apply_yaml("another", &another).await.unwrap();
    comes_to(&lab, sandbox, "another", "Ready").await.unwrap();
}

const MEASURED: &str = "apiVersion: v1
kind: Pod
metadata: {name: measured, namespace: default}
spec:
  terminationGracePeriodSeconds: 1
  containers: [{name: web, image: 'karat.local/echo:1', args: ['8080']}]
";

/// The answer to a GET.
async fn answer(client: &kube::Client, path: &str) -> Result<String, String> {
    let request = http::Request::get(path).body(Vec::new());
    let asked = client.request_text(request.map_err(|e| e.to_string())?);
    asked.await.map_err(|e| e.to_string())
}

#[tokio::test]
async fn metrics_server_has_a_number_for_a_node_and_for_a_running_pod() {
    if let Err(why) = can_run_nodes() {
        let test = "add_ons::metrics_server_has_a_number_for_a_node_and_for_a_running_pod";
        return not_run(test, &why);
    }
    let lab = ControlPlane::builder()
        .with(AddOn::MetricsServer)
        .real_nodes(1)
        .start()
        .await
        .unwrap();
    lab.apply_yaml("measured", MEASURED).await.unwrap();
    let client = lab.client().await.unwrap();
    let node = lab.real_nodes()[0].name();
    // A number of an amount, such as `12m` or `3456Ki`, that is not zero.
    let counts = |amount: &serde_json::Value| {
        let text = amount.as_str().unwrap_or_default();
        let digits = text.trim_end_matches(|c: char| !c.is_ascii_digit());
        digits.parse::<u64>().is_ok_and(|number| number > 0)
    };
    let served = "/apis/metrics.k8s.io/v1beta1";
    lab.wait_until("node and pod have numbers", async || {
        let of_node = answer(&client, &format!("{served}/nodes/{node}")).await?;
        let of_node: serde_json::Value =
            serde_json::from_str(&of_node).map_err(|e| e.to_string())?;
        let path = format!("{served}/namespaces/default/pods/measured");
        let of_pod = answer(&client, &path).await?;
        let of_pod: serde_json::Value = serde_json::from_str(&of_pod).map_err(|e| e.to_string())?;
        let usage = &of_pod["containers"][0]["usage"];
        if counts(&of_node["usage"]["cpu"])
            && counts(&of_node["usage"]["memory"])
            && counts(&usage["memory"])
        {
            Ok(())
        } else {
            Err(format!("{of_node} {of_pod}"))
        }
    })
    .await
    .unwrap();
    let pid = lab.add_on_pid(AddOn::MetricsServer).unwrap();
    drop(lab);
    assert!(!alive(pid));
}

const MODEL: &str = "apiVersion: v1
kind: Pod
metadata: {name: model, namespace: inference, labels: {app: model}}
spec:
  terminationGracePeriodSeconds: 1
  containers: [{name: model, image: 'karat.local/tool:1', args: [model, '8000']}]
";

const BAD_POOL: &str = "apiVersion: inference.networking.k8s.io/v1
kind: InferencePool
metadata: {name: bad, namespace: inference}
spec: {selector: {matchLabels: {app: model}}, targetPorts: [], endpointPickerRef: {name: gateway, port: {number: 9002}}}
";

#[tokio::test]
async fn the_endpoint_picker_is_healthy_and_knows_the_servers_of_its_pool() {
    if let Err(why) = can_run_nodes() {
        let test = "add_ons::the_endpoint_picker_is_healthy_and_knows_the_servers_of_its_pool";
        return not_run(test, &why);
    }
    // That it is healthy by gRPC, which it is not without its pool, is awaited by the start.
    let lab = ControlPlane::builder()
        .with(AddOn::Gateway)
        .real_nodes(1)
        .start()
        .await
        .unwrap();
    let client = lab.client().await.unwrap();
    for kinds in [
        "/apis/gateway.networking.k8s.io/v1/httproutes",
        "/apis/inference.networking.x-k8s.io/v1alpha2/inferenceobjectives",
    ] {
        answer(&client, kinds).await.unwrap();
    }
    let refused = apply_yaml(&client, "bad", BAD_POOL).await.unwrap_err();
    assert!(
        format!("{refused:?}").contains("targetPorts"),
        "{refused:?}"
    );

    lab.apply_yaml("model", MODEL).await.unwrap();
    lab.wait_until("the picker knows a server", async || {
        let path = "/api/v1/namespaces/inference/services/gateway:9090/proxy/metrics";
        let text = answer(&client, path).await?;
        let of_pods = "inference_pool_per_pod_queue_size{";
        let mut lines = text.lines().filter(|line| line.starts_with(of_pods));
        if lines.any(|line| line.contains("\"model-rank-0\"") && line.contains("\"pool\"")) {
            Ok(())
        } else {
            Err("it knows none".to_owned())
        }
    })
    .await
    .unwrap();
}

/// What a registry says at its root; none where nobody listens.
fn asked(host: &str) -> Option<String> {
    let mut stream = TcpStream::connect(host).ok()?;
    let request = format!("GET /v2/ HTTP/1.1\r\nHost: {host}\r\nConnection: close\r\n\r\n");
    stream.write_all(request.as_bytes()).ok()?;
    let mut answer = String::new();
    stream.read_to_string(&mut answer).ok()?;
    Some(answer)
}

#[tokio::test(flavor = "multi_thread")]
async fn a_registry_is_there_and_goes_with_the_laboratory() {
    if let Err(why) = Registry::can_run() {
        not_run(
            "add_ons::a_registry_is_there_and_goes_with_the_laboratory",
            &why,
        );
        return;
    }
    let lab = ControlPlane::builder()
        .with(AddOn::Registry)
        .start()
        .await
        .expect("a laboratory");
    let registry = lab.registry().expect("a registry");
    let (host, data) = (registry.host(), registry.data());
    let answer = asked(&host).expect("an answer");
    assert!(answer.starts_with("HTTP/1.1 200"), "{answer}");
    assert!(answer.contains("registry/2.0"), "{answer}");
    assert!(data.starts_with(lab.state_dir()));
    drop(lab);
    assert_eq!(asked(&host), None);
    assert!(!data.exists());
}
