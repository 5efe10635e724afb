//! `http` and `metrics` against a real API server: its proxy leads to a process on this machine, which stands for a pod.
//!
//! No kubelet runs here. A pod of the run is bound to a node that nobody manages and gets this machine's address as its own,
//! so the EndpointSlices are made by the real controller, and the real proxy looks at them. The API server refuses loopback
//! addresses; where the machine has no other, the test says so.

use anyhow::{Context, Result, ensure};
use karat_engine::capability::http::{Request, Response, send};
use karat_engine::capability::kube_write::{Target, create};
use karat_engine::capability::{metrics, wait};
use karat_engine::cluster::{Cluster, ConnectOptions};
use karat_engine::gate::Door;
use karat_engine::grant::Grants;
use karat_engine::manifest::Manifest;
use karat_engine::model::{Outcome, Reach};
use karat_engine::recording::Player;
use karat_engine::recording::format::{Failure, ReplyKind};
use karat_engine::scratch::Scratch;
use karat_testbed::ControlPlane;
use karat_tests::guests::{Guest, case};
use karat_tests::runs;
use serde_json::{Value, json};
use std::collections::BTreeMap;
use std::net::{IpAddr, UdpSocket};
use std::path::Path;
use std::sync::Arc;
use std::sync::atomic::{AtomicU32, Ordering};
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::{TcpListener, TcpStream};
use tokio::sync::Notify;

const RUN: &str = "workabcd";
const SANDBOX: &str = "karat-workabcd-workloads-main";
const IMAGE: &str =
    "registry.example/tool@sha256:0123456789abcdef0123456789abcdef0123456789abcdef0123456789abcdef";
const MANIFEST: &str = r#"
id = "workloads"
version = "0.1.0"
title = "Speaks to workloads"
claim = "workloads answer"
misleads = "it is a test"
contract = "0.1.0-dev.1"
requirements = ["test.example/workloads"]
reach = "sandbox"
capabilities = ["kube-read", "kube-write", "http", "metrics"]
permissions = [
  { api-groups = [""], resources = ["pods", "services"], verbs = ["create"], scope = "sandbox", why = "test" },
  { api-groups = [""], resources = ["services/proxy", "pods/proxy"], verbs = ["get", "create"], scope = "sandbox", why = "test" },
]
namespaces = [{ alias = "main" }]
cases = [
  { id = "one", kind = "observation", required = "always", claim = "c", effect = ["get services/proxy"] },
]
"#;

#[tokio::test(flavor = "multi_thread")]
async fn requests_reach_a_workload_and_every_fault_has_its_name() -> Result<()> {
    let address = own_address()?;
    let workload = Workload::start(address).await?;
    let lab = ControlPlane::builder().start().await?;
    let cluster = Cluster::connect(ConnectOptions {
        kubeconfig: Some(lab.kubeconfig()),
        ..ConnectOptions::default()
    })
    .await?;
    let folder = tempfile::tempdir()?;
    let (door, manifest) = door(&cluster, folder.path())?;
    furnish(&lab, &cluster, &door, address, workload.port).await?;

    let recorded = walk(&door, &workload).await?;
    let usage = door.usage(0);
    door.finish(Outcome::Concluded, usage, BTreeMap::new(), Vec::new())
        .map_err(anyhow::Error::msg)?;

    // The same conversation from the recording alone: nobody is asked, and every word is the same.
    let asked = workload.requests.load(Ordering::Relaxed);
    let player = Player::open(&folder.path().join("attempt-1"))?;
    let replay = Door::replay(player, manifest);
    make(&replay, workload.port).await?;
    ensure!(
        walk(&replay, &workload).await? == recorded,
        "the replay says something else"
    );
    ensure!(replay.ended().is_none(), "{:?}", replay.ended());
    replay.finish_replay().map_err(anyhow::Error::msg)?;
    ensure!(
        workload.requests.load(Ordering::Relaxed) == asked,
        "the replay asked the workload"
    );
    Ok(())
}

fn service(name: &str, port: &str) -> String {
    format!("service:{SANDBOX}/{name}-{RUN}:{port}")
}

/// Everything that is said, as one text.
async fn walk(door: &Door, workload: &Workload) -> Result<Vec<String>> {
    let mut said = Vec::new();
    let echo = service("echo", "8080");
    let mut request = Request::new("POST", &echo, "/echo/a%20b?q=1%262");
    request
        .headers
        .push(("X-Karat".to_owned(), "yes".to_owned()));
    request.body = Some(b"hello".to_vec());
    let (code, body) = ok(fetch(door, &request).await)?;
    ensure!(code == 200, "{code} {body}");
    for part in ["POST /echo/a%20b?q=1%262 HTTP/1.1", "x-karat: yes", "hello"] {
        ensure!(
            body.to_lowercase().contains(&part.to_lowercase()),
            "{part}: {body}"
        );
    }
    ensure!(!body.to_lowercase().contains("authorization"), "{body}");
    said.push(code.to_string());

    for target in [
        service("echo", "http"),
        format!("pod:{SANDBOX}/echo-{RUN}:{}", workload.port),
    ] {
        let (code, _) = ok(fetch(door, &Request::new("GET", target, "/echo")).await)?;
        said.push(code.to_string());
    }

    // What the workload itself says, whatever its code.
    for (path, wanted, part) in [
        ("/503", 503, "loading"),
        ("/redirect", 302, ""),
        ("/long", 200, "12345"),
    ] {
        let (code, body) = ok(fetch(door, &Request::new("GET", &echo, path)).await)?;
        ensure!(
            code == wanted && body.contains(part),
            "{path}: {code} {body}"
        );
        ensure!(body.len() < 100, "{path}: {body}");
        said.push(format!("{path} {code} {body}"));
    }
    // What is no answer.
    for (path, part) in [("/cut", ""), ("/gzip", "packed"), ("/giant", "")] {
        let failure = fetch(door, &Request::new("GET", &echo, path)).await.err();
        let text = match &failure {
            Some(Failure::NoAnswer(text)) => text.clone(),
            // The API server may give up by itself.
            Some(Failure::Answered {
                code: 500..=503,
                message,
                ..
            }) if path == "/giant" => message.clone(),
            other => anyhow::bail!("{path}: {other:?}"),
        };
        ensure!(text.contains(part), "{path}: {text}");
        said.push(format!("{path} {failure:?}"));
    }
    // What the API server says.
    for (target, wanted, part) in [
        (service("none", "80"), 404, "not found"),
        (service("empty", "80"), 503, "no endpoints available"),
        (service("echo", "81"), 503, "no service port"),
        (service("deaf", "80"), 503, "error trying to reach service"),
    ] {
        let failure = fetch(door, &Request::new("GET", &target, "/")).await.err();
        let Some(Failure::Answered { code, message, .. }) = &failure else {
            anyhow::bail!("{target}: {failure:?}");
        };
        ensure!(
            *code == wanted && message.contains(part),
            "{target}: {code} {message}"
        );
        said.push(format!("{target} {failure:?}"));
    }

    // Two at once: the slow one ends when the other one was answered.
    let slow = ok(send(door, &Request::new("GET", &echo, "/slow"), 30_000).await)?;
    ensure!(code_of(door, &slow).await? == 200);
    let first = ok(some(door, &slow).await)?;
    ensure!(first == b"one\n", "{first:?}");
    let fast = ok(send(door, &Request::new("GET", &echo, "/release"), 30_000).await)?;
    let ready = ok(wait::any(door, &[slow.source(), fast.source()], 30_000).await)?;
    ensure!(!ready.is_empty());
    let (_, rest) = ok(drain(door, &slow).await)?;
    ensure!(rest == "two\n", "{rest}");
    let arrivals = ok(slow.arrivals(door))?;
    ensure!(arrivals.len() >= 2 && arrivals.is_sorted(), "{arrivals:?}");
    said.push(format!(
        "{ready:?} {arrivals:?} {:?}",
        ok(drain(door, &fast).await)?
    ));

    // Exactly as many requests as were sent are counted.
    for _ in 0..10 {
        ok(fetch(door, &Request::new("GET", &echo, "/count")).await)?;
    }
    let names = ["stub_requests_total".to_owned(), "temperature".to_owned()];
    let found = ok(metrics::scrape(door, &echo, "/metrics", &names).await)?;
    ensure!(found.len() == 2 && found.text(0) == "10", "{found:?}");
    ensure!(found.text(1) == "9223372036854775794", "{found:?}");
    said.push(format!("{found:?}"));
    let failure = metrics::scrape(door, &echo, "/503", &names).await.err();
    ensure!(
        matches!(failure, Some(Failure::Answered { code: 503, .. })),
        "{failure:?}"
    );
    let failure = metrics::scrape(door, &echo, "/long", &names).await.err();
    ensure!(
        matches!(&failure, Some(Failure::Answered { reason, .. }) if reason == "InvalidExposition"),
        "{failure:?}"
    );
    Ok(said)
}

#[tokio::test(flavor = "multi_thread")]
async fn a_hostile_guest_reaches_nobody_else() -> Result<()> {
    let lab = karat_testbed::shared().await?;
    let http = |target: &str, path: &str| json!({"do": "http", "method": "GET", "target": target, "path": path, "ms": 5000});
    let with = |mut step: Value, key: &str, value: Value| {
        step[key] = value;
        step
    };
    let own = "service:${ns:main}/none:80";
    let named = "service:default/https:kubernetes:443";
    let scrape = |target: &str, path: &str, name: &str| json!({"do": "scrape", "target": target, "path": path, "names": [name]});
    let steps = [
        // Nobody is asked.
        (
            http("service:kube-system/kube-dns:9153", "/metrics"),
            ReplyKind::Refused,
        ),
        (
            http("pod:kube-system/any:10250", "/run/x/y/z"),
            ReplyKind::Refused,
        ),
        (
            http("service:default/kubernetes:443", "/version"),
            ReplyKind::Refused,
        ),
        (http(named, "/api/v1/secrets"), ReplyKind::Refused),
        (
            http("node:default/any:10250", "/pods"),
            ReplyKind::Malformed,
        ),
        (http(own, "/../../../secrets"), ReplyKind::Malformed),
        (http(own, "/%2e%2e/%2E%2e/secrets"), ReplyKind::Malformed),
        (http(own, "//evil.example/"), ReplyKind::Malformed),
        (http(own, "/a\r\nHost: evil.example"), ReplyKind::Malformed),
        (http(own, "/a#b"), ReplyKind::Malformed),
        (
            http(
                "service:${ns:main}/../../default/services/kubernetes:443",
                "/",
            ),
            ReplyKind::Malformed,
        ),
        (
            with(http(own, "/"), "method", json!("CONNECT")),
            ReplyKind::Malformed,
        ),
        (
            with(http(own, "/"), "method", json!("DELETE")),
            ReplyKind::Refused,
        ),
        (
            with(
                http(own, "/"),
                "headers",
                json!([["Impersonate-User", "system:admin"]]),
            ),
            ReplyKind::Refused,
        ),
        (
            with(
                http(own, "/"),
                "headers",
                json!([["x-a", "b\r\nImpersonate-User: x"]]),
            ),
            ReplyKind::Malformed,
        ),
        (
            scrape("service:kube-system/kube-dns:9153", "/metrics", "a"),
            ReplyKind::Refused,
        ),
        (scrape(own, "/metrics", ".*"), ReplyKind::Malformed),
        // The API server is asked, and says no in its own words.
        (http(own, "/"), ReplyKind::Answered),
        (
            json!({"do": "flood", "target": named, "path": "/version", "times": 100}),
            ReplyKind::Budget,
        ),
    ];
    let script: Vec<&Value> = steps.iter().map(|(step, _)| step).collect();
    let guest = Guest::scripted("workload-thief", &json!(script))
        .namespace("main")
        .permit("", &["services/proxy", "pods/proxy"], &["get"], "cluster")
        .lines(
            "\n[[permissions]]\napi-groups = [\"\"]\nresources = [\"services/proxy\"]\nverbs = [\"get\"]\nscope = { namespace = \"default\" }\nnames = [\"https:kubernetes:443\"]\npaths = [\"/version\"]\nwhy = \"a test\"\n",
        )
        .cases(&case("lie", "get services/proxy"));
    let run = runs::run_granting(
        &lab.kubeconfig(),
        vec![guest.component()?],
        Reach::Sandbox,
        Grants::none(),
    )
    .await?;
    let recording = run.recording("workload-thief")?;
    let mut calls = recording.entries().iter().filter(|entry| {
        entry.function == "http.request.send" || entry.function == "metrics.scrape"
    });
    for (step, kind) in &steps {
        let last = step["do"] == "flood";
        let entry = if last {
            calls.by_ref().last().context("the flood")?
        } else {
            calls
                .next()
                .with_context(|| format!("no call for {step}"))?
        };
        ensure!(
            entry.result == *kind,
            "{step}: {:?} {:?}",
            entry.result,
            recording.reply(entry)
        );
        ensure!(
            *kind == ReplyKind::Answered || !entry.facts.live,
            "{step}: {:?}",
            entry.facts
        );
    }
    Ok(())
}

/// The pod, the services in front of it, and one that leads nowhere: through the door, as a probe makes them.
async fn make(door: &Door, port: u16) -> Result<()> {
    let target = |resource: &str| Target {
        namespace: Some(SANDBOX.to_owned()),
        ..Target::new("v1", resource)
    };
    let name = |name: &str| format!("{name}-{RUN}");
    let pod = json!({
        "apiVersion": "v1", "kind": "Pod", "metadata": {"name": name("echo"), "labels": {"app": "echo"}},
        "spec": {
            "schedulerName": "nobody", "automountServiceAccountToken": false,
            "securityContext": {"runAsNonRoot": true, "seccompProfile": {"type": "RuntimeDefault"}},
            "containers": [{"name": "echo", "image": IMAGE,
                "securityContext": {"allowPrivilegeEscalation": false, "capabilities": {"drop": ["ALL"]}}}],
        },
    });
    ok(create(door, &target("pods"), &pod.to_string()).await)?;
    for (service, app, from, to) in [
        ("echo", "echo", 8080, port),
        ("empty", "nobody", 80, port),
        // Nobody listens there: the discard port of a machine without such a service.
        ("deaf", "echo", 80, 9),
    ] {
        let body = json!({
            "apiVersion": "v1", "kind": "Service", "metadata": {"name": name(service)},
            "spec": {"selector": {"app": app}, "ports": [{"name": "http", "port": from, "targetPort": to}]},
        });
        ok(create(door, &target("services"), &body.to_string()).await)?;
    }
    Ok(())
}

/// What a probe cannot do: the namespace, a node that nobody manages, and the status that a kubelet would write.
async fn furnish(
    lab: &ControlPlane,
    cluster: &Cluster,
    door: &Door,
    address: IpAddr,
    port: u16,
) -> Result<()> {
    let namespace = json!({"apiVersion": "v1", "kind": "Namespace", "metadata": {"name": SANDBOX}});
    cluster
        .create_json("/api/v1/namespaces", &namespace)
        .await?;
    let node = json!({"apiVersion": "v1", "kind": "Node", "metadata": {"name": "this-machine"},
        "spec": {"taints": [{"key": "test.example/nobody", "effect": "NoSchedule"}]}});
    cluster.create_json("/api/v1/nodes", &node).await?;
    let account = format!("/api/v1/namespaces/{SANDBOX}/serviceaccounts/default");
    lab.wait_until("the default account", || async {
        cluster
            .get_json(&account)
            .await
            .map(drop)
            .map_err(|e| e.to_string())
    })
    .await?;
    make(door, port).await?;

    let pod = format!("/api/v1/namespaces/{SANDBOX}/pods/echo-{RUN}");
    let binding = json!({"apiVersion": "v1", "kind": "Binding", "metadata": {"name": format!("echo-{RUN}")},
        "target": {"apiVersion": "v1", "kind": "Node", "name": "this-machine"}});
    cluster
        .create_json(&format!("{pod}/binding"), &binding)
        .await?;
    let ip = address.to_string();
    let status = json!({"status": {"phase": "Running", "podIP": ip, "podIPs": [{"ip": ip}],
        "conditions": [{"type": "Ready", "status": "True"}]}});
    cluster
        .merge_json(&format!("{pod}/status"), &status)
        .await?;
    lab.wait_until("the endpoints", || async {
        for service in ["echo", "deaf", "empty"] {
            let path = format!(
                "/apis/discovery.k8s.io/v1/namespaces/{SANDBOX}/endpointslices?labelSelector=kubernetes.io/service-name%3D{service}-{RUN}"
            );
            let slices = cluster.get_json(&path).await.map_err(|e| e.to_string())?;
            let ready = &slices["items"][0]["endpoints"][0]["conditions"]["ready"];
            if slices["items"][0].is_null() || (service != "empty" && *ready != true) {
                return Err(format!("{service}: {slices}"));
            }
        }
        Ok(())
    })
    .await?;
    // The proxy reads the slices from a cache of its own.
    lab.wait_until("the proxy to know the endpoints", || async {
        for service in ["echo", "deaf"] {
            let path =
                format!("/api/v1/namespaces/{SANDBOX}/services/{service}-{RUN}:http/proxy/echo");
            match cluster.get_json(&path).await {
                Err(error) if error.to_string().contains("no endpoints") => {
                    return Err(error.to_string());
                }
                _ => {}
            }
        }
        Ok(())
    })
    .await?;
    Ok(())
}

fn door(cluster: &Cluster, folder: &Path) -> Result<(Door, Arc<Manifest>)> {
    let manifest = Arc::new(Manifest::parse(MANIFEST, "workloads")?);
    let mut scratch = Scratch::new(RUN, Arc::clone(&manifest));
    scratch.namespaces = BTreeMap::from([("main".to_owned(), SANDBOX.to_owned())]);
    let mut parts = scratch
        .door(folder, cluster.clone())
        .map_err(anyhow::Error::msg)?;
    parts.images = BTreeMap::from([("tool".to_owned(), IMAGE.to_owned())]);
    Ok((Door::live(parts), manifest))
}

fn ok<T>(result: Result<T, Failure>) -> Result<T> {
    result.map_err(|failure| anyhow::anyhow!("{failure:?}"))
}

async fn fetch(door: &Door, request: &Request) -> Result<(u16, String), Failure> {
    let response = send(door, request, 30_000).await?;
    drain(door, &response).await
}

async fn code_of(door: &Door, response: &Response) -> Result<u16> {
    loop {
        if let Some(code) = ok(response.status(door))? {
            return Ok(code);
        }
        ok(wait::any(door, &[response.source()], 30_000).await)?;
    }
}

/// The next bytes of a body.
async fn some(door: &Door, response: &Response) -> Result<Vec<u8>, Failure> {
    loop {
        match response.read(door, 1 << 16)? {
            Some(bytes) if bytes.is_empty() => {
                wait::any(door, &[response.source()], 30_000).await?;
            }
            other => return Ok(other.unwrap_or_default()),
        }
    }
}

async fn drain(door: &Door, response: &Response) -> Result<(u16, String), Failure> {
    let mut body = Vec::new();
    loop {
        let bytes = some(door, response).await?;
        if bytes.is_empty() {
            break;
        }
        body.extend(bytes);
    }
    let code = response.status(door)?.unwrap_or_default();
    Ok((code, String::from_utf8_lossy(&body).into_owned()))
}

/// An address of this machine that is neither loopback nor link-local. No packet is sent.
fn own_address() -> Result<IpAddr> {
    let socket = UdpSocket::bind("0.0.0.0:0")?;
    let found = socket
        .connect("198.51.100.1:9")
        .and_then(|()| socket.local_addr());
    let address = found
        .context(
            "this machine has no address but loopback, and the API server forwards nothing there",
        )?
        .ip();
    ensure!(
        !address.is_loopback() && !address.is_unspecified(),
        "{address}"
    );
    Ok(address)
}

/// A server whose answers are right or wrong in one way each.
struct Workload {
    port: u16,
    requests: Arc<AtomicU32>,
}

#[derive(Default)]
struct Counted {
    count: AtomicU32,
    release: Notify,
}

impl Workload {
    async fn start(address: IpAddr) -> Result<Workload> {
        let listener = TcpListener::bind((address, 0)).await?;
        let port = listener.local_addr()?.port();
        let requests = Arc::new(AtomicU32::new(0));
        let seen = Arc::clone(&requests);
        let counted = Arc::new(Counted::default());
        tokio::spawn(async move {
            while let Ok((stream, _)) = listener.accept().await {
                let (counted, seen) = (Arc::clone(&counted), Arc::clone(&seen));
                tokio::spawn(async move {
                    // A peer that goes away is its own business.
                    let _ = serve(stream, &counted, &seen).await;
                });
            }
        });
        Ok(Workload { port, requests })
    }
}

/// One request a connection: what follows a wrong answer belongs to nobody.
async fn serve(mut stream: TcpStream, counted: &Counted, seen: &AtomicU32) -> std::io::Result<()> {
    let mut head = Vec::new();
    let mut buffer = [0; 4096];
    let end = loop {
        let got = stream.read(&mut buffer).await?;
        if got == 0 {
            return Ok(());
        }
        head.extend_from_slice(&buffer[..got]);
        if let Some(at) = head.windows(4).position(|four| four == b"\r\n\r\n") {
            break at + 4;
        }
    };
    let text = String::from_utf8_lossy(&head).into_owned();
    let length = text
        .lines()
        .filter_map(|line| line.split_once(": "))
        .find(|(name, _)| name.eq_ignore_ascii_case("content-length"))
        .and_then(|(_, value)| value.trim().parse::<usize>().ok());
    while head.len() < end + length.unwrap_or_default() {
        let got = stream.read(&mut buffer).await?;
        if got == 0 {
            break;
        }
        head.extend_from_slice(&buffer[..got]);
    }
    seen.fetch_add(1, Ordering::Relaxed);
    let whole = |head: &str, body: &str| {
        format!(
            "HTTP/1.1 {head}\r\nconnection: close\r\ncontent-length: {}\r\n\r\n{body}",
            body.len()
        )
    };
    let path = text.split(' ').nth(1).unwrap_or_default();
    let answer = match path {
        "/503" => whole(
            "503 Unavailable\r\ncontent-type: application/json",
            "{\"error\":\"loading\"}",
        ),
        "/redirect" => whole("302 Found\r\nlocation: /redirect", ""),
        "/cut" => "HTTP/1.1 200 OK\r\ncontent-length: 100\r\n\r\ncut\n".to_owned(),
        "/long" => "HTTP/1.1 200 OK\r\ncontent-length: 5\r\n\r\n1234567890".to_owned(),
        "/giant" => whole(&format!("200 OK\r\nx-giant: {}", "a".repeat(100_000)), "x"),
        "/gzip" => whole("200 OK\r\ncontent-encoding: gzip", "bomb"),
        "/slow" => {
            let start = "HTTP/1.1 200 OK\r\ntransfer-encoding: chunked\r\n\r\n4\r\none\n\r\n";
            stream.write_all(start.as_bytes()).await?;
            counted.release.notified().await;
            "4\r\ntwo\n\r\n0\r\n\r\n".to_owned()
        }
        "/release" => {
            counted.release.notify_one();
            whole("200 OK", "")
        }
        "/count" => {
            counted.count.fetch_add(1, Ordering::Relaxed);
            whole("200 OK", "")
        }
        "/metrics" => {
            let count = counted.count.load(Ordering::Relaxed);
            whole(
                "200 OK\r\ncontent-type: application/openmetrics-text; version=1.0.0; charset=utf-8",
                &format!(
                    "# TYPE stub_requests counter\nstub_requests_total {count} # {{trace=\"x\"}} 1\n# TYPE temperature gauge\ntemperature{{gpu=\"0\"}} 9223372036854775794\nother 1\n# EOF\n"
                ),
            )
        }
        _ => whole("200 OK", &String::from_utf8_lossy(&head)),
    };
    stream.write_all(answer.as_bytes()).await?;
    stream.shutdown().await
}
