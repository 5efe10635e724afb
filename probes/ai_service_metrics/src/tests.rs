//! Every branch of the probe on a fake cluster: a monitoring that works, and ways in which it does not.

use crate::stub::{COUNTER, GAUGE, HISTOGRAM, SUM};
use crate::{AiServiceMetrics, manifest};
use karat_sdk::http;
use karat_sdk::metrics::Sample;
use karat_sdk::testing::{self, Answering, FakeCluster, Fault, RUN_ID, Run};
use karat_sdk::{Reason, Value, json};
use std::cell::Cell;
use std::rc::Rc;
use std::time::Duration;

const SPACE: &str = "karat-abcd2345-ai-service-metrics-main";
const STUB: &str = "stub-abcd2345";
const API: &str = "service:monitoring/prometheus:9090";

/// What the monitoring of a fake cluster does.
#[derive(Clone)]
struct Monitoring {
    /// Samples of each series, by instance.
    targets: usize,
    /// What becomes of a value.
    sees: fn(&str, f64) -> Option<f64>,
    /// How long after it was asked for a workload is seen.
    after: Duration,
    /// Whether it reads the workload at all.
    reads: bool,
}

impl Default for Monitoring {
    fn default() -> Self {
        Monitoring {
            targets: 1,
            sees: |_, value| Some(value),
            after: Duration::from_secs(20),
            reads: true,
        }
    }
}

fn labels(value: &str) -> Vec<(&str, &str)> {
    vec![("run", RUN_ID), ("job", "pods"), ("instance", value)]
}

/// Gives a new pod this status.
fn starts(cluster: &mut FakeCluster, status: Value) {
    cluster.put(
        json!({"apiVersion": "v1", "kind": "Node", "metadata": {"name": "n1"}, "spec": {},
        "status": {"conditions": [{"type": "Ready", "status": "True"}]}}),
    );
    cluster.controller(move |cluster| {
        cluster.change("pods", SPACE, STUB, |pod| {
            if pod["status"]["phase"].is_null() {
                pod["status"] = status.clone();
            }
        });
    });
}

/// A cluster in which pods run, with the workload of the probe.
fn bare() -> (FakeCluster, Rc<Cell<u64>>, Rc<Cell<u64>>) {
    let mut cluster = FakeCluster::new("v1.37.0");
    starts(
        &mut cluster,
        json!({"phase": "Running", "conditions": [{"type": "Ready", "status": "True"}],
            "containerStatuses": [{"restartCount": 0}]}),
    );
    let requests = Rc::new(Cell::new(0));
    let scrapes = Rc::new(Cell::new(0));
    let counted = Rc::clone(&requests);
    cluster.workload(&http::service(SPACE, STUB, 8080), move |_, request| {
        if *request == http::Request::get(&http::service(SPACE, STUB, 8080), "/work") {
            counted.set(counted.get() + 1);
        }
        Answering::text(200, "ok")
    });
    let (counted, read) = (Rc::clone(&requests), Rc::clone(&scrapes));
    cluster.exposes(&http::pod(SPACE, STUB, 8080), move |_, path| {
        assert_eq!(path, "/metrics");
        read.set(read.get() + 1);
        let (count, scrapes) = (counted.get().to_string(), read.get().to_string());
        let sample = |name: &str, text: &str| Sample::new(name, &[("run", RUN_ID)], text);
        vec![
            sample(COUNTER, &count),
            sample(HISTOGRAM, &count),
            sample(SUM, &(counted.get() as f64 * 0.00125).to_string()),
            sample(GAUGE, "41.5"),
            sample("karat_scrapes_total", &scrapes),
        ]
    });
    (cluster, requests, scrapes)
}

fn service(cluster: &mut FakeCluster) {
    cluster.put(json!({"apiVersion": "v1", "kind": "Service",
        "metadata": {"name": "prometheus", "namespace": "monitoring", "labels": {"app.kubernetes.io/name": "prometheus"}},
        "spec": {"ports": [{"name": "web", "port": 9090}]}}));
}

fn is_asked_by_annotation(cluster: &FakeCluster) -> bool {
    cluster.object("pods", SPACE, STUB)["metadata"]["annotations"]["prometheus.io/scrape"] == "true"
}

fn with(monitoring: Monitoring, asks: fn(&FakeCluster) -> bool) -> FakeCluster {
    let (mut cluster, requests, scrapes) = bare();
    service(&mut cluster);
    let mut since = None;
    cluster.knows(API, move |cluster, promql| {
        let alone = |name: &str, text: &str| vec![Sample::new(name, &[], text)];
        match promql {
            "vector(1)" => return alone("", "1"),
            "time()" => return alone("", "1795307000.125"),
            _ => {}
        }
        if promql.starts_with("up{") {
            return vec![Sample::new("up", &labels("10.0.0.7:8080"), "1")];
        }
        if asks(cluster) {
            since.get_or_insert(cluster.elapsed());
        }
        if since.is_none_or(|since| cluster.elapsed() < since + monitoring.after) {
            return Vec::new();
        }
        if monitoring.reads {
            scrapes.set(scrapes.get() + 1);
        }
        if promql.starts_with("count_over_time(") {
            return vec![Sample::new("", &labels("10.0.0.7:8080"), "4")];
        }
        let name = promql.split('{').next().unwrap();
        assert_eq!(promql, format!("{name}{{run=\"{RUN_ID}\"}}"));
        let value = match name {
            GAUGE => 41.5,
            SUM => requests.get() as f64 * 0.00125,
            _ => requests.get() as f64,
        };
        let Some(value) = (monitoring.sees)(name, value) else {
            return Vec::new();
        };
        (0..monitoring.targets)
            .map(|at| {
                let instance = format!("10.0.0.{}:8080", 7 + at);
                Sample::new(name, &labels(&instance), &value.to_string())
            })
            .collect()
    });
    cluster
}

fn plain(monitoring: Monitoring) -> FakeCluster {
    with(monitoring, is_asked_by_annotation)
}

fn run(cluster: FakeCluster) -> Run {
    testing::run::<AiServiceMetrics>(manifest::TEXT, cluster)
}

#[test]
fn a_monitoring_that_works_passes() {
    let run = run(plain(Monitoring::default()));
    assert_eq!(run.result, Ok(()));
    run.assert_passed(&["workload", "query-api", "discovered", "values", "target"]);
    assert_eq!(run.observed("values", "counter"), Some("10"));
    assert_eq!(
        run.observed("discovered", "instance"),
        Some("10.0.0.7:8080")
    );
    run.assert_earned();
}

#[test]
fn a_workload_that_is_read_twice_is_not_counted_twice() {
    let run = run(plain(Monitoring {
        targets: 2,
        ..Monitoring::default()
    }));
    run.assert_passed(&["values"]);
    assert_eq!(run.observed("values", "series of the counter"), Some("2"));
    run.assert_earned();
}

#[test]
fn a_namespace_that_is_not_selected_is_found() {
    let run = run(plain(Monitoring {
        sees: |_, _| None,
        reads: false,
        after: Duration::MAX / 2,
        ..Monitoring::default()
    }));
    run.assert_passed(&["query-api"]);
    run.assert_failed("discovered", "nobody has read it");
    run.assert_unknown("values", Reason::Deadline);
}

#[test]
fn series_that_are_dropped_are_found() {
    let run = run(plain(Monitoring {
        sees: |_, _| None,
        ..Monitoring::default()
    }));
    run.assert_failed("discovered", "what was read is not kept");
}

#[test]
fn values_that_are_not_those_of_the_workload_are_found() {
    run(plain(Monitoring {
        sees: |name, value| Some(if name == COUNTER { value * 2.0 } else { value }),
        ..Monitoring::default()
    }))
    .assert_failed(
        "values",
        "says 20 in the counter, 10 as count and 0.0125 as seconds of the histogram and 41.5 in the gauge",
    );
    run(plain(Monitoring {
        sees: |name, value| (name != HISTOGRAM).then_some(value),
        ..Monitoring::default()
    }))
    .assert_failed("values", "10 in the counter, nothing as count");
    // What was read once and never again.
    run(plain(Monitoring {
        sees: |name, value| Some(if name == GAUGE { value } else { 0.0 }),
        ..Monitoring::default()
    }))
    .assert_failed("values", "says 0 in the counter");
}

#[test]
fn one_series_that_is_right_does_not_hide_one_that_is_wrong() {
    let mut cluster = plain(Monitoring::default());
    cluster.knows(API, |_, promql| {
        let two = |a: &str, b: &str| {
            vec![
                Sample::new("", &labels("i"), a),
                Sample::new("", &labels("recorded"), b),
            ]
        };
        match promql.split('{').next().unwrap() {
            "vector(1)" => vec![Sample::new("", &[], "1")],
            COUNTER => two("10", "20"),
            SUM => vec![Sample::new("", &labels("i"), "0.0125")],
            GAUGE => vec![Sample::new("", &labels("i"), "41.5")],
            _ => vec![Sample::new("", &labels("i"), "10")],
        }
    });
    run(cluster).assert_failed("values", "says 10 to 20 in the counter");
}

#[test]
fn requests_of_others_are_no_fault_of_the_monitoring() {
    let (mut cluster, requests, _) = bare();
    service(&mut cluster);
    let mut asked = 0;
    cluster.knows(API, move |_, promql| {
        if promql.starts_with(COUNTER) {
            // Somebody comes along while the series are looked for.
            asked += 1;
            requests.set(u64::from(asked == 1));
        }
        vec![Sample::new("", &labels("i"), "1")]
    });
    run(cluster).assert_unknown("values", Reason::CompetingWorkload);
}

#[test]
fn a_login_is_no_fault() {
    for code in [401, 403, 302] {
        let mut cluster = plain(Monitoring::default());
        // The first question goes out before the case.
        cluster.fail(
            "get",
            "services/proxy",
            Fault::Answer(code, "", "Unauthorized"),
            1,
            u32::MAX,
        );
        let run = run(cluster);
        run.assert_passed(&["workload"]);
        run.assert_unknown("query-api", Reason::AuthRequired);
        run.assert_unknown("discovered", Reason::AuthRequired);
    }
    let mut cluster = plain(Monitoring::default());
    cluster.fail(
        "get",
        "services/proxy",
        Fault::Answer(403, "Forbidden", "cannot get"),
        1,
        u32::MAX,
    );
    run(cluster).assert_unknown("query-api", Reason::PermissionDenied);
}

#[test]
fn a_query_api_that_cannot_be_reached_or_is_none_is_no_fault() {
    for (code, message, reason) in [
        (
            503,
            "no endpoints available for service",
            Reason::ProxyUnreachable,
        ),
        (
            503,
            "error trying to reach service: dial tcp",
            Reason::ProxyUnreachable,
        ),
        (404, "404 page not found", Reason::SolutionAbsent),
    ] {
        let mut cluster = plain(Monitoring::default());
        cluster.fail(
            "get",
            "services/proxy",
            Fault::Answer(code, "", message),
            1,
            u32::MAX,
        );
        run(cluster).assert_unknown("query-api", reason);
    }
}

#[test]
fn where_nothing_is_the_workload_tells_whether_anybody_reads_it() {
    let (cluster, ..) = bare();
    let nothing = run(cluster);
    nothing.assert_failed("query-api", "nobody read the workload");
    nothing.assert_unknown("discovered", Reason::Deadline);

    let (mut cluster, _, scrapes) = bare();
    cluster.controller(move |cluster| {
        if is_asked_by_annotation(cluster) && scrapes.get() < 50 {
            scrapes.set(50);
        }
    });
    run(cluster).assert_unknown_with("query-api", Reason::SolutionAbsent, "something reads");

    let (mut cluster, ..) = bare();
    cluster.serve(
        "azmonitoring.coreos.com",
        &["v1"],
        "podmonitors",
        "PodMonitor",
        true,
        &[],
    );
    run(cluster).assert_unknown_with("query-api", Reason::SolutionAbsent, "azmonitoring");
}

#[test]
fn an_api_that_nobody_named_is_told_and_one_that_is_declared_is_taken() {
    let mut cluster = plain(Monitoring::default());
    cluster.remove("services", "monitoring", "prometheus");
    cluster.put(json!({"apiVersion": "v1", "kind": "Service",
        "metadata": {"name": "prometheus", "namespace": "elsewhere", "labels": {"app": "prometheus"}},
        "spec": {"ports": [{"port": 9090}]}}));
    let refused = testing::run::<AiServiceMetrics>(manifest::TEXT, cluster);
    refused.assert_unknown_with("query-api", Reason::PermissionDenied, "no permission line");

    let mut cluster = plain(Monitoring::default());
    cluster.remove("services", "monitoring", "prometheus");
    let settings = [("endpoint", "monitoring/prometheus:9090")];
    let run = testing::run_with::<AiServiceMetrics>(manifest::TEXT, cluster, &settings);
    run.assert_passed(&["query-api", "discovered", "values"]);
    run.assert_earned();
}

#[test]
fn every_usual_place_of_a_query_api_is_named_by_the_manifest() {
    for (space, name, app, port, prefix) in [
        ("monitoring", "prometheus-operated", "prometheus", 9090, ""),
        ("prometheus", "prometheus-server", "prometheus", 80, ""),
        (
            "openshift-monitoring",
            "thanos-querier",
            "thanos-querier",
            9091,
            "",
        ),
        (
            "monitoring",
            "kube-prometheus-stack-prometheus",
            "prometheus",
            9090,
            "",
        ),
        (
            "observability",
            "vmselect",
            "vmselect",
            8481,
            "/select/0/prometheus",
        ),
        ("monitoring", "mimir", "mimir", 8080, "/prometheus"),
    ] {
        let (mut cluster, ..) = bare();
        cluster.put(json!({"apiVersion": "v1", "kind": "Service",
            "metadata": {"name": name, "namespace": space, "labels": {"app": app}},
            "spec": {"ports": [{"port": port}]}}));
        let endpoint = format!("{}{prefix}", http::service(space, name, port));
        cluster.knows(&endpoint, |_, _| vec![Sample::new("", &[], "1")]);
        run(cluster).assert_passed(&["query-api"]);
    }
}

fn operated(selector: Value) -> FakeCluster {
    let mut cluster = with(Monitoring::default(), |cluster| {
        let monitors = cluster.objects("servicemonitors");
        monitors.iter().any(|monitor| {
            let of = |place: &str| monitor.pointer(place).and_then(Value::as_str);
            of("/metadata/labels/release") == Some("stack")
                && of("/spec/endpoints/0/port") == Some("metrics")
                && of("/spec/selector/matchLabels/karat-workload") == Some(STUB)
        })
    });
    for (plural, kind) in [
        ("prometheuses", "Prometheus"),
        ("servicemonitors", "ServiceMonitor"),
        ("podmonitors", "PodMonitor"),
    ] {
        cluster.serve("monitoring.coreos.com", &["v1"], plural, kind, true, &[]);
    }
    cluster.put(
        json!({"apiVersion": "monitoring.coreos.com/v1", "kind": "Prometheus",
        "metadata": {"name": "k8s", "namespace": "monitoring"}, "spec": selector}),
    );
    cluster
}

#[test]
fn monitors_have_the_labels_that_the_operator_asks_for() {
    for selector in [
        json!({"serviceMonitorSelector": {"matchLabels": {"release": "stack"}}}),
        json!({"serviceMonitorSelector": {"matchExpressions": [{"key": "release", "operator": "In", "values": ["stack", "other"]}]}}),
    ] {
        let run = run(operated(selector));
        run.assert_passed(&["discovered", "values"]);
        assert_eq!(
            run.observed("discovered", "asked by"),
            Some("a ServiceMonitor")
        );
        run.assert_earned();
    }
    let pods = run(operated(json!({"podMonitorSelector": {}})));
    assert_eq!(
        pods.observed("discovered", "asked by"),
        Some("a PodMonitor")
    );
    let settings = [("ask-by", "annotations")];
    let annotated =
        testing::run_with::<AiServiceMetrics>(manifest::TEXT, operated(json!({})), &settings);
    assert!(
        annotated
            .observed("discovered", "asked by")
            .unwrap()
            .contains("annotations")
    );
}

#[test]
fn a_monitor_that_the_cluster_does_not_take_accuses_nobody() {
    let mut cluster = operated(json!({"serviceMonitorSelector": {}}));
    cluster.validate("servicemonitors", |_| {
        vec!["spec.endpoints: too short".to_owned()]
    });
    run(cluster).assert_unknown("discovered", Reason::SolutionAbsent);
}

#[test]
fn a_workload_that_does_not_run_says_why() {
    let refused = |status: Value| {
        let mut cluster = FakeCluster::new("v1.37.0");
        starts(&mut cluster, status);
        run(cluster)
    };
    refused(json!({"phase": "Pending", "containerStatuses": [{"state": {"waiting": {"reason": "ImagePullBackOff", "message": "Back-off pulling image"}}}]}))
        .assert_unknown_with("workload", Reason::ImageUnavailable, "Back-off");
    refused(json!({"phase": "Pending", "conditions": [{"type": "PodScheduled", "status": "False", "message": "0/1 nodes are available"}]}))
        .assert_unknown_with("workload", Reason::InsufficientCapacity, "0/1");
    refused(json!({"phase": "Failed"})).assert_unknown("workload", Reason::Deadline);
    let (mut cluster, ..) = bare();
    cluster.fail_always(
        "get",
        "services/proxy",
        Fault::Answer(503, "ServiceUnavailable", "error trying to reach service"),
    );
    run(cluster).assert_unknown("workload", Reason::Deadline);
}

#[test]
fn a_workload_that_was_restarted_is_no_measure() {
    let mut cluster = plain(Monitoring {
        sees: |_, _| None,
        ..Monitoring::default()
    });
    cluster.controller(|cluster| {
        if is_asked_by_annotation(cluster) {
            cluster.change("pods", SPACE, STUB, |pod| {
                pod["status"]["containerStatuses"][0]["restartCount"] = json!(1);
            });
        }
    });
    run(cluster).assert_unknown_with("discovered", Reason::CompetingWorkload, "restarted");
}

#[test]
fn requests_that_are_lost_are_no_fault_of_the_monitoring() {
    let mut cluster = plain(Monitoring::default());
    // One for its health, three for the query API, one for the series; before 20 s it is asked for ten times more.
    cluster.fail("get", "services/proxy", Fault::Lost, 18, 3);
    run(cluster).assert_no_fail();
}

#[test]
fn an_image_that_no_node_gets_is_told_soon_and_accuses_nobody() {
    let (mut cluster, ..) = bare();
    cluster.without_images();
    run(cluster).assert_image_unavailable("workload");
}

#[test]
fn no_fault_of_the_api_server_becomes_a_fail() {
    testing::assert_faults_are_no_fail::<AiServiceMetrics>(manifest::TEXT, || {
        plain(Monitoring::default())
    });
}
