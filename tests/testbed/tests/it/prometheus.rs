//! The add-ons `prometheus` and `metrics-adapter`: a pod is found, its gauge is a custom metric, and replicas follow it.

use std::time::{Duration, Instant};

use k8s_openapi::api::apps::v1::Deployment;
use kube::Api;
use serde_json::Value;

use karat_testbed::{
    AddOn, Component, ControlPlane, ControlPlaneBuilder, PrometheusSettings, can_run_nodes, images,
    not_run,
};

const POD: &str = "apiVersion: v1
kind: Pod
metadata:
  name: counts
  namespace: default
  annotations: {prometheus.io/scrape: \"true\", prometheus.io/port: \"8080\"}
spec:
  automountServiceAccountToken: false
  terminationGracePeriodSeconds: 0
  containers:
  - name: counts
    image: IMAGE
    args: [\"8080\", --label=run=trial, karat_temperature=41.5]
    ports: [{containerPort: 8080}]
";

fn skipped(test: &str) -> bool {
    let can = can_run_nodes().and_then(|()| images::ensure_target().map_err(|e| e.to_string()));
    if let Err(why) = &can {
        not_run(&format!("prometheus::{test}"), why);
    }
    can.is_err()
}

async fn lab_with(builder: ControlPlaneBuilder) -> karat_testbed::Result<ControlPlane> {
    let lab = builder.real_nodes(1).start().await?;
    let pod = POD.replace("IMAGE", images::METRICS);
    lab.apply_yaml("a pod that is read", &pod).await?;
    Ok(lab)
}

/// What Prometheus says, asked through the API server as a probe asks.
async fn query(client: &kube::Client, promql: &str) -> Result<Value, kube::Error> {
    const PATH: &str =
        "/api/v1/namespaces/monitoring/services/prometheus:9090/proxy/api/v1/query?query=";
    let request = http::Request::get(format!("{PATH}{promql}")).body(Vec::new());
    let text = client
        .request_text(request.map_err(kube::Error::HttpError)?)
        .await?;
    serde_json::from_str(&text).map_err(kube::Error::SerdeError)
}

#[tokio::test]
async fn a_pod_that_asks_is_found_and_its_values_are_kept() {
    if skipped("a_pod_that_asks_is_found_and_its_values_are_kept") {
        return;
    }
    let lab = lab_with(ControlPlane::builder().with(AddOn::Prometheus))
        .await
        .unwrap();
    let client = lab.client().await.unwrap();
    let began = Instant::now();
    let found = loop {
        let found = query(&client, "karat_temperature").await.unwrap();
        let one = found["data"]["result"][0].clone();
        if !one.is_null() {
            break one;
        }
        assert!(began.elapsed() < Duration::from_secs(120), "{found}");
        tokio::time::sleep(Duration::from_millis(500)).await;
    };
    assert_eq!(found["value"][1], "41.5", "{found}");
    assert_eq!(found["metric"]["run"], "trial", "{found}");
    assert_eq!(found["metric"]["pod"], "counts", "{found}");
    assert_eq!(found["metric"]["namespace"], "default", "{found}");
}

#[tokio::test]
async fn a_login_is_wanted_where_it_was_asked_for() {
    if skipped("a_login_is_wanted_where_it_was_asked_for") {
        return;
    }
    let settings = PrometheusSettings::parse("login: true").unwrap();
    let lab = lab_with(ControlPlane::builder().prometheus(settings))
        .await
        .unwrap();
    let client = lab.client().await.unwrap();
    let refused = query(&client, "up").await.unwrap_err();
    assert!(
        matches!(&refused, kube::Error::Api(answer) if answer.code == 401),
        "{refused:?}"
    );
}

const SCALED: &str = "apiVersion: apps/v1
kind: Deployment
metadata: {name: serve, namespace: default}
spec:
  replicas: 1
  selector: {matchLabels: {app: serve}}
  template:
    metadata:
      labels: {app: serve}
      annotations: {prometheus.io/scrape: \"true\", prometheus.io/port: \"8080\"}
    spec:
      terminationGracePeriodSeconds: 0
      containers:
      - name: serve
        image: IMAGE
        args: [\"8080\", queue_depth=30]
        ports: [{containerPort: 8080}]
---
apiVersion: autoscaling/v2
kind: HorizontalPodAutoscaler
metadata: {name: serve, namespace: default}
spec:
  scaleTargetRef: {apiVersion: apps/v1, kind: Deployment, name: serve}
  minReplicas: 1
  maxReplicas: 3
  metrics: [{type: Pods, pods: {metric: {name: queue_depth}, target: {type: AverageValue, averageValue: \"10\"}}}]
";

#[tokio::test]
async fn replicas_follow_a_gauge_of_their_pods() {
    if skipped("replicas_follow_a_gauge_of_their_pods") {
        return;
    }
    let controllers = |flag: &str| format!("--horizontal-pod-autoscaler-{flag}");
    let lab = ControlPlane::builder()
        .real_nodes(1)
        .with(AddOn::MetricsAdapter)
        .arg(Component::ControllerManager, controllers("sync-period=2s"))
        .arg(
            Component::ControllerManager,
            controllers("initial-readiness-delay=2s"),
        )
        .start()
        .await
        .unwrap();
    let objects = SCALED.replace("IMAGE", images::METRICS);
    lab.apply_yaml("what is scaled", &objects).await.unwrap();
    let client = lab.client().await.unwrap();
    let deployments: Api<Deployment> = Api::namespaced(client, "default");
    lab.wait_until("three replicas are ready", async || {
        let found = deployments.get("serve").await.map_err(|e| e.to_string())?;
        let ready = found.status.and_then(|status| status.ready_replicas);
        if ready == Some(3) {
            Ok(())
        } else {
            Err(format!("{ready:?}"))
        }
    })
    .await
    .unwrap();
}
