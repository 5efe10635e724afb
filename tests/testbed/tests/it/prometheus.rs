//! The add-on `prometheus`: it finds a pod by itself, and can be made not to.

use std::time::{Duration, Instant};

use karat_testbed::{
    AddOn, ControlPlane, ControlPlaneBuilder, PrometheusSettings, can_run_nodes, images, not_run,
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

async fn lab_with(builder: ControlPlaneBuilder) -> ControlPlane {
    let lab = builder.real_nodes(1).start().await.unwrap();
    let pod = POD.replace("IMAGE", images::METRICS);
    lab.apply_yaml("a pod that is read", &pod).await.unwrap();
    lab
}

/// What Prometheus says, asked through the API server as a probe asks.
async fn query(lab: &ControlPlane, promql: &str) -> Result<serde_json::Value, kube::Error> {
    const PATH: &str =
        "/api/v1/namespaces/monitoring/services/prometheus:9090/proxy/api/v1/query?query=";
    let request = http::Request::get(format!("{PATH}{promql}"))
        .body(Vec::new())
        .unwrap();
    let text = lab.client().await.unwrap().request_text(request).await?;
    Ok(serde_json::from_str(&text).unwrap())
}

#[tokio::test]
async fn a_pod_that_asks_is_found_and_its_values_are_kept() {
    if skipped("a_pod_that_asks_is_found_and_its_values_are_kept") {
        return;
    }
    let lab = lab_with(ControlPlane::builder().with(AddOn::Prometheus)).await;
    let began = Instant::now();
    let found = loop {
        let found = query(&lab, "karat_temperature").await.unwrap();
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
    let lab = lab_with(ControlPlane::builder().prometheus(settings)).await;
    let refused = query(&lab, "up").await.unwrap_err();
    assert!(
        matches!(&refused, kube::Error::Api(answer) if answer.code == 401),
        "{refused:?}"
    );
}
