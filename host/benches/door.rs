//! What the door costs: one call with an answer of 1 KB (bound: 5 µs without the blob write), and a list of 10 MB through
//! the cursor beside a bare parse of the same bytes. Prints the ratios at the end; nothing is asserted.

use criterion::{Criterion, Throughput};
use karat_engine::capability::kube_read::{Query, open_list};
use karat_engine::cluster::Cluster;
use karat_engine::gate::Door;
use karat_engine::manifest::Manifest;
use karat_engine::recording::format::Limits;
use karat_engine::recording::recorder::BlobSink;
use karat_engine::scratch::Scratch;
use kube::client::Body;
use serde_json::{Value, json};
use std::sync::Arc;
use std::time::{Duration, Instant};

const MANIFEST: &str = r#"
id = "bench"
version = "0.1.0"
title = "Measures the door"
claim = "none"
misleads = "it is no probe"
contract = "0.1.0-dev.1"
requirements = ["bench.example/door"]
capabilities = ["kube-read"]
permissions = [
  { api-groups = [""], resources = ["pods"], verbs = ["get", "list"], scope = "cluster", why = "to measure" },
]
cases = [
  { id = "none", kind = "observation", required = "always", claim = "none", effect = ["pods"] },
]
"#;

struct Bench {
    door: Door,
    page: Arc<Vec<u8>>,
    _folder: tempfile::TempDir,
}

/// A door whose server answers every list with the same page.
fn bench(page: Vec<u8>) -> Bench {
    let folder = tempfile::tempdir().expect("a folder");
    let manifest = Arc::new(Manifest::parse(MANIFEST, "bench").expect("a manifest"));
    let mut limits = Limits::from(&manifest.budget);
    limits.calls = u64::MAX;
    limits.seen_bytes = u64::MAX;
    limits.wall_ms = 3_600_000;
    let page = Arc::new(page);
    let (service, mut server) =
        tower_test::mock::pair::<http::Request<Body>, http::Response<Body>>();
    let answer = Arc::clone(&page);
    tokio::spawn(async move {
        while let Some((_, send)) = server.next_request().await {
            send.send_response(http::Response::new(Body::from(answer.to_vec())));
        }
    });
    let cluster = Cluster::for_test(kube::Client::new(service, "default"));
    let mut scratch = Scratch::new("abcdefgh", manifest);
    scratch.limits = limits;
    scratch.sink = BlobSink::Discard;
    let parts = scratch.door(folder.path(), cluster).expect("a door");
    let door = Door::live(parts);
    Bench {
        door,
        page,
        _folder: folder,
    }
}

fn pod(at: usize, env: usize) -> Value {
    let env: Vec<Value> = (0..env)
        .map(|n| json!({"name": format!("SETTING_{n}"), "value": format!("value number {n} of a usual length")}))
        .collect();
    json!({
        "apiVersion": "v1", "kind": "Pod",
        "metadata": {"name": format!("pod-{at}"), "namespace": "workloads", "uid": format!("7e0f3d52-0000-4000-8000-{at:012}"),
            "resourceVersion": "12345", "labels": {"app.kubernetes.io/name": "server", "tier": "backend"}},
        "spec": {"nodeName": format!("node-{}.example.internal", at % 500),
            "containers": [{"name": "main", "image": "registry.example/server:1.2.3", "env": env,
                "resources": {"requests": {"cpu": "100m", "memory": "128Mi"}}}]},
        "status": {"phase": "Running", "hostIP": "192.0.2.7", "podIP": "198.51.100.9"},
    })
}

fn main() {
    let runtime = tokio::runtime::Builder::new_current_thread()
        .enable_all()
        .build()
        .expect("a runtime");
    let small = pod(1, 6).to_string().into_bytes();
    let pods: Vec<Value> = (0..2_500).map(|at| pod(at, 50)).collect();
    let page = json!({"kind": "PodList", "apiVersion": "v1", "metadata": {"resourceVersion": "9"}, "items": pods});
    let page = format!(
        r#"{{"kind":"PodList","apiVersion":"v1","metadata":{},"items":{}}}"#,
        page["metadata"], page["items"]
    );
    let mut criterion = Criterion::default()
        .sample_size(10)
        .measurement_time(Duration::from_secs(2))
        .configure_from_args();

    let it = runtime.block_on(async { bench(page.into_bytes()) });
    let mut group = criterion.benchmark_group("call");
    group.throughput(Throughput::Bytes(small.len() as u64));
    group.bench_function("through the door", |b| {
        b.to_async(&runtime)
            .iter(|| async { it.door.measure(small.clone()).await.is_ok() });
    });
    group.bench_function("bare parse and print", |b| {
        b.iter(|| serde_json::from_slice::<Value>(&small).map(|v| v.to_string()));
    });
    group.finish();

    // A ratio of two numbers from one loop is steadier than two criterion runs on a shared machine.
    let (mut door_small, mut bare_small) = (Duration::ZERO, Duration::ZERO);
    let (mut door_list, mut whole_list, mut bare_list) =
        (Duration::ZERO, Duration::ZERO, Duration::ZERO);
    let phase = Query {
        keep: vec!["/status/phase".to_owned()],
        ..Query::new("v1", "pods")
    };
    let whole = Query::new("v1", "pods");
    const ROUNDS: u32 = 5;
    for _ in 0..ROUNDS {
        let begin = Instant::now();
        for _ in 0..1000 {
            let done = runtime.block_on(it.door.measure(small.clone()));
            assert!(done.is_ok(), "{done:?}");
        }
        door_small += begin.elapsed() / 1000;
        let begin = Instant::now();
        for _ in 0..1000 {
            let value: Value = serde_json::from_slice(&small).expect("JSON");
            std::hint::black_box(value.to_string());
        }
        bare_small += begin.elapsed() / 1000;
        for (query, sum) in [(&phase, &mut door_list), (&whole, &mut whole_list)] {
            let begin = Instant::now();
            let count = runtime.block_on(async {
                let mut cursor = open_list(&it.door, query).expect("a cursor");
                cursor
                    .next(&it.door)
                    .await
                    .map(|page| page.map(|objects| objects.len()))
            });
            *sum += begin.elapsed();
            assert_eq!(count, Ok(Some(2_500)));
        }
        let begin = Instant::now();
        std::hint::black_box(serde_json::from_slice::<Value>(&it.page).expect("JSON"));
        bare_list += begin.elapsed();
    }
    let ratio = |a: Duration, b: Duration| a.as_secs_f64() / b.as_secs_f64();
    #[expect(clippy::print_stdout, reason = "a bench reports on standard output")]
    {
        println!(
            "call of {} bytes: {:?} through the door, {:?} bare parse and print: {:.2} x",
            small.len(),
            door_small / ROUNDS,
            bare_small / ROUNDS,
            ratio(door_small, bare_small)
        );
        let bare = bare_list / ROUNDS;
        for (what, sum) in [("one path kept", door_list), ("whole objects", whole_list)] {
            println!(
                "list of {:.1} MB, {what}: {:?} through the cursor, {bare:?} bare parse: {:.2} x",
                it.page.len() as f64 / 1e6,
                sum / ROUNDS,
                ratio(sum, bare_list)
            );
        }
    }
}
