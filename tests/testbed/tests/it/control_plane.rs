//! A control plane comes up, does what Kubernetes does, and goes without a trace.

use std::path::Path;
use std::time::Instant;

use k8s_openapi::api::core::v1::{ConfigMap, Namespace};
use karat_testbed::{Component, ControlPlane, DraApi};
use kube::Api;
use kube::api::{ListParams, PostParams};

/// True if the process exists and is not a zombie.
pub(crate) fn alive(pid: u32) -> bool {
    Path::new(&format!("/proc/{pid}/exe")).read_link().is_ok()
}

#[tokio::test]
async fn up_ready_down_leaves_nothing() {
    let began = Instant::now();
    let lab = ControlPlane::builder().start().await.unwrap();
    eprintln!("ready after {:?}", began.elapsed());
    let client = lab.client().await.unwrap();
    let version = client.apiserver_version().await.unwrap();
    assert_eq!(version.git_version, "v1.37.0");

    let pids: Vec<u32> = Component::ALL
        .into_iter()
        .map(|c| lab.pid(c).unwrap())
        .collect();
    let state = lab.state_dir().to_owned();
    assert!(state.join("admin.kubeconfig").exists());
    let began = Instant::now();
    drop(lab);
    eprintln!("down after {:?}", began.elapsed());
    assert!(!state.exists(), "{} is left", state.display());
    for pid in pids {
        assert!(!alive(pid), "process {pid} is left");
    }
}

#[tokio::test]
async fn two_at_once_do_not_see_each_other() {
    let (a, b) = tokio::join!(
        ControlPlane::builder().start(),
        ControlPlane::builder().start()
    );
    let (a, b) = (a.unwrap(), b.unwrap());
    assert_ne!(a.url(), b.url());
    let namespaces: Api<Namespace> = Api::all(a.client().await.unwrap());
    let mut only_a = Namespace::default();
    only_a.metadata.name = Some("only-a".into());
    namespaces
        .create(&PostParams::default(), &only_a)
        .await
        .unwrap();
    let in_b: Api<Namespace> = Api::all(b.client().await.unwrap());
    assert!(in_b.get_opt("only-a").await.unwrap().is_none());
    // The credentials of one are worth nothing at the other.
    let text = std::fs::read_to_string(a.kubeconfig())
        .unwrap()
        .replace(&a.url(), &b.url());
    let dir = tempfile::tempdir().unwrap();
    let mixed = dir.path().join("mixed.kubeconfig");
    std::fs::write(&mixed, text).unwrap();
    let config = kube::Config::from_custom_kubeconfig(
        kube::config::Kubeconfig::read_from(&mixed).unwrap(),
        &Default::default(),
    )
    .await
    .unwrap();
    let stranger = kube::Client::try_from(config).unwrap();
    assert!(stranger.apiserver_version().await.is_err());
}

#[tokio::test]
async fn the_api_server_can_be_killed_and_comes_back_with_its_objects() {
    let lab = ControlPlane::builder().start().await.unwrap();
    let maps: Api<ConfigMap> = Api::namespaced(lab.client().await.unwrap(), "default");
    let mut map = ConfigMap::default();
    map.metadata.name = Some("kept".into());
    maps.create(&PostParams::default(), &map).await.unwrap();
    lab.kill(Component::ApiServer).unwrap();
    assert_eq!(lab.pid(Component::ApiServer), None);
    assert!(maps.get("kept").await.is_err());
    lab.restart(Component::ApiServer).await.unwrap();
    assert!(maps.get_opt("kept").await.unwrap().is_some());
}

#[tokio::test]
async fn a_program_that_cannot_run_is_reported_with_its_log() {
    let error = ControlPlane::builder()
        .arg(Component::ApiServer, "--no-such-flag")
        .start()
        .await
        .unwrap_err();
    let text = error.to_string();
    assert!(
        text.contains("kube-apiserver")
            && text.contains("exit status")
            && text.contains("no-such-flag"),
        "{text}"
    );
    let karat_testbed::TestbedError::Exited { log, .. } = error else {
        panic!("{text}")
    };
    assert!(log.exists(), "{} was promised", log.display());
}

#[tokio::test]
async fn old_versions_only_serve_v1beta1_but_not_v1() {
    let lab = ControlPlane::builder()
        .dra(DraApi::OldOnly)
        .start()
        .await
        .unwrap();
    let client = lab.client().await.unwrap();
    let groups = client.list_api_groups().await.unwrap();
    let group = groups
        .groups
        .iter()
        .find(|g| g.name == "resource.k8s.io")
        .unwrap();
    let mut versions: Vec<_> = group.versions.iter().map(|v| v.version.as_str()).collect();
    versions.sort_unstable();
    assert_eq!(versions, ["v1beta1", "v1beta2"]);
    // The rest of the control plane works: a pod without claims gets a node and runs.
    lab.apply("plain-node.yaml").await.unwrap();
    lab.wait_nodes_ready().await.unwrap();
    lab.apply_yaml("pod", PLAIN_POD).await.unwrap();
    wait_running(&lab, "plain").await.unwrap();
}

#[tokio::test]
async fn dra_can_be_off() {
    let lab = ControlPlane::builder()
        .dra(DraApi::Off)
        .start()
        .await
        .unwrap();
    let groups = lab.client().await.unwrap().list_api_groups().await.unwrap();
    assert!(!groups.groups.iter().any(|g| g.name == "resource.k8s.io"));
}

#[tokio::test]
async fn the_audit_log_holds_the_id_a_client_sent() {
    let lab = ControlPlane::builder().audit().start().await.unwrap();
    let client = lab.client().await.unwrap();
    let request = http::Request::get("/api/v1/namespaces")
        .header("Audit-ID", "karat-test-1")
        .body(vec![])
        .unwrap();
    client.request_text(request).await.unwrap();
    let events = lab.audit_events().unwrap();
    let mine: Vec<_> = events
        .iter()
        .filter(|e| e["auditID"] == "karat-test-1")
        .collect();
    assert_eq!(mine.len(), 1, "{events:?}");
    assert_eq!(mine[0]["level"], "Metadata");
    assert_eq!(mine[0]["user"]["username"], "kubernetes-admin");
}

#[tokio::test]
async fn a_user_has_only_the_rights_of_rbac() {
    let lab = karat_testbed::shared().await.unwrap();
    let path = lab.kubeconfig_for("alice", &["team-a"]).unwrap();
    let config = kube::Config::from_custom_kubeconfig(
        kube::config::Kubeconfig::read_from(path).unwrap(),
        &Default::default(),
    )
    .await
    .unwrap();
    let alice = kube::Client::try_from(config).unwrap();
    let Err(kube::Error::Api(answer)) = Api::<ConfigMap>::namespaced(alice, "default")
        .list(&ListParams::default())
        .await
    else {
        panic!("alice may list config maps");
    };
    assert_eq!(answer.code, 403);
    assert!(answer.message.contains("\"alice\""), "{}", answer.message);
}

const PLAIN_POD: &str = "
apiVersion: v1
kind: Pod
metadata: {name: plain}
spec:
  tolerations: [{key: kwok.x-k8s.io/node, operator: Exists}]
  containers: [{name: c, image: example.invalid/none}]
";

/// Waits until a pod of namespace default runs.
pub(crate) async fn wait_running(lab: &ControlPlane, name: &str) -> karat_testbed::Result<()> {
    let pods: Api<k8s_openapi::api::core::v1::Pod> =
        Api::namespaced(lab.client().await?, "default");
    lab.wait_until(&format!("pod {name} runs"), async || {
        let pod = pods.get(name).await.map_err(|e| e.to_string())?;
        let phase = pod
            .status
            .as_ref()
            .and_then(|s| s.phase.clone())
            .unwrap_or_default();
        if phase == "Running" {
            Ok(())
        } else {
            Err(format!(
                "phase {phase}, {:?}",
                pod.status.and_then(|s| s.conditions)
            ))
        }
    })
    .await
}
