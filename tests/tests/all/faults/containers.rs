//! What goes wrong on the way to containers: commands, logs, and requests through the proxy of the API server.
//!
//! A command is not repeated, because nobody knows whether it ran. Reads are. What a workload or a monitoring system answers
//! comes from behind the API server, so a fault of the way must never count as an answer of theirs.

use super::{Bench, Promise, Row, before, seed};
use anyhow::{Result, ensure};
use karat_engine::engine::{Engine, EngineOptions};
use karat_engine::grant::Grants;
use karat_engine::model::Reason;
use karat_testbed::proxy::{Rule, Said};
use karat_testbed::{AddOn, ControlPlane, can_run_nodes, not_run};
use karat_tests::runs;
use std::collections::BTreeMap;
use std::time::Duration;

const NAME: &str = "faults::containers::no_fault_on_the_way_to_containers_makes_a_verdict_wrong";
const EXEC: &str = "^/api/v1/namespaces/karat-[^/]+/pods/[^/]+/exec$";
const LOG: &str = "^/api/v1/namespaces/karat-[^/]+/pods/[^/]+/log$";
/// The query API of the monitoring system.
const QUERY: &str = "^/api/v1/namespaces/monitoring/services/[^/]+/proxy/";
/// The workload of the probe.
const WORKLOAD: &str = "^/api/v1/namespaces/karat-[^/]+/(services|pods)/[^/]+/proxy/";
/// As the API server says it.
const NOBODY: &str = "no endpoints available for service \"any\"";
const HTML: &str = "<html><head><title>Please wait</title></head><body>maintenance</body></html>";

fn row(name: &'static str, promise: Promise, rules: fn(u64) -> Vec<Rule>) -> Row {
    Row {
        name,
        rules,
        promise,
    }
}

/// While `inplace-pod-resize` looks at the limits that the kernel holds.
fn commands() -> Vec<Row> {
    vec![
        row(
            "commands are forbidden",
            Promise::Unknown(Reason::PermissionDenied),
            |_| vec![Rule::on("GET", EXEC).fail(403, "Forbidden", "not here")],
        ),
        row("a command breaks off", Promise::SameOrUnknown, |_| {
            vec![Rule::on("GET", EXEC).times(1).exec(Said::new())]
        }),
        row("no kubelet answers", Promise::SameOrUnknown, |_| {
            vec![
                Rule::on("GET", EXEC)
                    .times(1)
                    .fail(500, "InternalError", "error dialing backend"),
            ]
        }),
        row(
            "the connection of a command is cut",
            Promise::SameOrUnknown,
            |_| vec![Rule::on("GET", EXEC).times(1).disconnect()],
        ),
    ]
}

/// While `secure-accelerator-access` reads what its containers saw.
fn logs() -> Vec<Row> {
    vec![
        row(
            "logs are forbidden",
            Promise::Unknown(Reason::PermissionDenied),
            |_| vec![Rule::on("GET", LOG).fail(403, "Forbidden", "not here")],
        ),
        row("a log is not there at once", Promise::Same, |_| {
            vec![
                Rule::on("GET", LOG)
                    .times(2)
                    .fail(500, "InternalError", "error dialing backend"),
            ]
        }),
        row("logs trickle", Promise::Same, |_| {
            vec![Rule::on("GET", LOG).trickle(200, Duration::from_millis(20))]
        }),
        row("a log breaks off", Promise::SameOrUnknown, |_| {
            vec![Rule::on("GET", LOG).times(1).cut_after(40)]
        }),
    ]
}

/// While `ai-service-metrics` asks the monitoring system for the metrics of its workload.
fn requests() -> Vec<Row> {
    vec![
        row(
            "the query API is not reached for a while",
            Promise::Same,
            |_| {
                vec![
                    Rule::on("GET", QUERY)
                        .times(3)
                        .fail(503, "ServiceUnavailable", NOBODY),
                ]
            },
        ),
        row(
            "the query API is never reached",
            Promise::Unknown(Reason::ProxyUnreachable),
            |_| vec![Rule::on("GET", QUERY).fail(503, "ServiceUnavailable", NOBODY)],
        ),
        row(
            "the query API wants a login",
            Promise::Unknown(Reason::AuthRequired),
            |_| vec![Rule::on("GET", QUERY).answer_text(401, "text/plain", "who are you")],
        ),
        row(
            "the query API is in maintenance for a while",
            Promise::Same,
            |_| {
                vec![
                    Rule::on("GET", QUERY)
                        .times(2)
                        .answer_text(502, "text/html", HTML),
                ]
            },
        ),
        row("answers of the query API break off", Promise::Same, |_| {
            vec![Rule::on("GET", QUERY).times(2).cut_after(20)]
        }),
        row("answers trickle", Promise::Same, |_| {
            vec![
                Rule::on("GET", QUERY).trickle(50, Duration::from_millis(10)),
                Rule::on("GET", WORKLOAD).trickle(200, Duration::from_millis(10)),
            ]
        }),
        row(
            "the workload is not reached for a while",
            Promise::Same,
            |_| {
                vec![
                    Rule::on("GET", WORKLOAD)
                        .times(2)
                        .fail(503, "ServiceUnavailable", NOBODY),
                ]
            },
        ),
    ]
}

#[tokio::test(flavor = "multi_thread")]
async fn no_fault_on_the_way_to_containers_makes_a_verdict_wrong() -> Result<()> {
    if let Err(why) = can_run_nodes() {
        not_run(NAME, &why);
        return Ok(());
    }
    let lab = ControlPlane::builder()
        .real_nodes(1)
        .with(AddOn::DraDriver)
        .with(AddOn::Prometheus)
        .start()
        .await?;
    lab.wait_nodes_ready().await?;
    let engine = Engine::new(&EngineOptions::default())?;
    let images = runs::own_images(|_| {})?;
    let bench = |probe: &str| -> Result<Bench> {
        Ok(Bench {
            images: images.clone(),
            ..Bench::of(&engine, probe)?
        })
    };
    let paths = BTreeMap::from([("device-paths".to_owned(), "/dev/karat-dev-".to_owned())]);
    let devices = Bench {
        settings: BTreeMap::from([("secure-accelerator-access".to_owned(), paths)]),
        ..bench("secure-accelerator-access")?
    };
    let annotations = "[[exception]]\nprobe = \"ai-service-metrics\"\n\
        annotations = [\"prometheus.io/scrape\", \"prometheus.io/port\", \"prometheus.io/path\"]\n";
    let monitoring = Bench {
        grants: Grants::parse(annotations, "grants.toml")?,
        ..bench("ai-service-metrics")?
    };
    // One after the other: they share a node, which one of them wants for itself.
    let only = std::env::var("KARAT_FAULT").unwrap_or_default();
    let mut wrong = Vec::new();
    let mut runs = 0;
    for (bench, rows) in [
        (bench("inplace-pod-resize")?, commands()),
        (devices, logs()),
        (monitoring, requests()),
    ] {
        for row in rows.into_iter().filter(|row| row.name.contains(&only)) {
            let went = async {
                let proxy = before(&lab, (row.rules)(seed())).await?;
                bench.check(&proxy, &row.promise).await?;
                ensure!(!proxy.hits().contains(&0), "a fault never happened");
                Ok::<_, anyhow::Error>(())
            };
            runs += 1;
            if let Err(error) = went.await {
                wrong.push(format!("{}: {error:?}", row.name));
            }
        }
    }
    ensure!(
        wrong.is_empty(),
        "{} of {runs} rows:\n\n{}",
        wrong.len(),
        wrong.join("\n\n")
    );
    Ok(())
}
