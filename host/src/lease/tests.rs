//! Holders against a scripted server, and holders that need none.

use super::*;
use crate::manifest::{NodesWish, UnitsWish};
use futures::FutureExt;
use http::{Request, Response};
use kube::client::Body;
use serde_json::{Value, json};
use std::sync::atomic::{AtomicU64, Ordering};

fn lock(name: &str, lock: &str, shared: bool) -> LeaseLine {
    LeaseLine {
        name: name.to_owned(),
        wish: Wish::Lock {
            name: lock.to_owned(),
            shared,
        },
        usual: Duration::from_secs(1),
    }
}

fn nodes(least: u32, units: u32, alone: bool) -> LeaseLine {
    LeaseLine {
        name: "nodes".to_owned(),
        wish: Wish::Nodes(NodesWish {
            least,
            most: least,
            units: UnitsWish::Count(units),
            alone,
            containers: false,
        }),
        usual: Duration::from_secs(1),
    }
}

#[tokio::test(start_paused = true)]
async fn who_is_to_have_units_waits_for_those_that_another_probe_left_and_for_no_pods() {
    let (leases, pods, _) = leases();
    let two = [&nodes(2, 1, false)];
    let mut idle = pod("karat-abcdefgh-other-main");
    idle["spec"]["containers"][0]["resources"]["limits"] = json!({});
    pods.lock().unwrap().push(idle);
    let a = leases.holder("a");
    let lease = a.acquire(&two, Duration::from_secs(2)).await.unwrap();
    assert_eq!(lease.nodes.len(), 2);
    // Its own pods are in nobody's way.
    pods.lock().unwrap().push(pod("karat-abcdefgh-a-main"));
    a.release_all();

    let b = leases.holder("b");
    let busy = b.acquire(&two, Duration::from_secs(2)).await;
    assert!(
        matches!(&busy, Err(LeaseError::Busy(text)) if text.contains("karat-abcdefgh-a-main")),
        "{busy:?}"
    );
    assert!(a.acquire(&two, Duration::from_secs(2)).await.is_ok());
}

/// A cluster of two nodes with a unit each. `pods` are those of node `n1`.
fn cluster(pods: Arc<Mutex<Vec<Value>>>, requests: Arc<AtomicU64>) -> Cluster {
    let service = tower::service_fn(move |request: Request<Body>| {
        let uri = request.uri().to_string();
        requests.fetch_add(1, Ordering::Relaxed);
        let node = |name: &str| {
            json!({"metadata": {"name": name, "uid": name}, "spec": {},
            "status": {"conditions": [{"type": "Ready", "status": "True"}],
                "allocatable": {"cpu": "4", "memory": "1Gi", "pods": "10", "vendor.example/gpu": "1"}}})
        };
        let theirs = pods.lock().unwrap().clone();
        let answer = match uri.split('?').next().unwrap_or_default() {
            "/api/v1/nodes" => Some(json!({"items": [node("n1"), node("n2")]})),
            "/api/v1/nodes/n1" => Some(node("n1")),
            "/api/v1/nodes/n2" => Some(node("n2")),
            "/api/v1/pods" if uri.contains("nodeName%3Dn2") => Some(json!({"items": []})),
            "/api/v1/pods" => Some(json!({"items": theirs})),
            _ => None,
        };
        let (code, body) = match answer {
            Some(body) => (200, body),
            None => (
                404,
                json!({"kind": "Status", "code": 404, "reason": "NotFound"}),
            ),
        };
        let response = Response::builder()
            .status(code)
            .header("content-type", "application/json");
        let response = response.body(http_body_util::Full::new(bytes::Bytes::from(
            body.to_string(),
        )));
        async move { Ok::<_, std::convert::Infallible>(response.unwrap()) }
    });
    Cluster::for_test(kube::Client::new(service, "default"))
}

fn leases() -> (Leases, Arc<Mutex<Vec<Value>>>, Arc<AtomicU64>) {
    let (pods, requests) = (Arc::default(), Arc::default());
    let cluster = cluster(Arc::clone(&pods), Arc::clone(&requests));
    (
        Leases::new(cluster, "abcdefgh", NodeChoice::default(), Events::silent()),
        pods,
        requests,
    )
}

fn pod(namespace: &str) -> Value {
    json!({"metadata": {"uid": "p", "namespace": namespace}, "status": {"phase": "Running"}, "spec": {"nodeName": "n1",
        "containers": [{"resources": {"limits": {"vendor.example/gpu": "1"}, "requests": {"cpu": "1"}}}]}})
}

const LONG: Duration = Duration::from_secs(600);

#[tokio::test]
async fn locks_ask_no_cluster_and_one_waits_for_the_other() {
    let (leases, _, requests) = leases();
    let (a, b) = (leases.holder("a"), leases.holder("b"));
    let line = lock("order", "preemption", false);
    let first = a.acquire(&[&line], LONG).await.unwrap();
    assert_eq!(
        (first.number, first.locks),
        (1, vec!["preemption".to_owned()])
    );
    let busy = b.acquire(&[&line], Duration::ZERO).await;
    assert_eq!(
        busy,
        Err(LeaseError::Busy(
            "waits for lock preemption held by a".to_owned()
        ))
    );
    let lines = [&line];
    let waiting = b.acquire(&lines, LONG);
    tokio::pin!(waiting);
    assert!((&mut waiting).now_or_never().is_none());
    a.release(first.number);
    assert_eq!(waiting.await.unwrap().number, 1);
    assert_eq!(requests.load(Ordering::Relaxed), 0);
    assert_eq!(leases.held().len(), 1);
}

#[tokio::test]
async fn whatever_ends_a_holder_gives_back() {
    let (leases, _, _) = leases();
    let line = lock("order", "preemption", false);
    let a = leases.holder("a");
    a.acquire(&[&line], LONG).await.unwrap();
    assert_eq!(a.acquire(&[&line], LONG).await, Err(LeaseError::Holds(1)));
    let b = leases.holder("b");
    {
        // A wait that is cut short leaves no place behind.
        let lines = [&line];
        let waiting = b.acquire(&lines, LONG);
        tokio::pin!(waiting);
        assert!(waiting.now_or_never().is_none());
    }
    drop(a);
    assert_eq!(b.acquire(&[&line], Duration::ZERO).await.unwrap().number, 1);
    b.release_all();
    b.release(1);
    assert_eq!(
        leases
            .holder("c")
            .acquire(&[&line], Duration::ZERO)
            .await
            .unwrap()
            .number,
        1
    );
}

#[tokio::test]
async fn nodes_come_from_the_inventory_and_it_is_read_once() {
    let (leases, pods, requests) = leases();
    pods.lock().unwrap().push(pod("team"));
    let a = leases.holder("a");
    let got = a.acquire(&[&nodes(1, 1, false)], LONG).await.unwrap();
    assert_eq!(got.nodes.len(), 1);
    assert_eq!(
        (
            got.nodes[0].name.as_str(),
            got.nodes[0].cpu_millis,
            got.nodes[0].pods
        ),
        ("n2", 4000, 10)
    );
    assert_eq!(got.nodes[0].units["vendor.example/gpu"], 1);
    let read = requests.load(Ordering::Relaxed);
    let never = leases
        .holder("b")
        .acquire(&[&nodes(2, 1, false)], LONG)
        .await;
    assert!(
        matches!(&never, Err(LeaseError::Unavailable(text)) if text.contains("there are 1")),
        "{never:?}"
    );
    assert_eq!(
        requests.load(Ordering::Relaxed),
        read,
        "no second inventory"
    );
    assert!(a.changed().await.is_empty());
}

#[tokio::test]
async fn a_unit_that_somebody_took_since_is_not_granted() {
    let (leases, pods, _) = leases();
    let a = leases.holder("a");
    a.acquire(&[&nodes(1, 1, false)], LONG).await.unwrap();
    a.release_all();
    // The inventory still says that n1 has a free unit.
    pods.lock().unwrap().push(pod("team"));
    let got = a.acquire(&[&nodes(1, 1, false)], LONG).await.unwrap();
    assert_eq!(got.nodes[0].name, "n2");
}

#[tokio::test]
async fn others_on_a_leased_node_are_told() {
    let (leases, pods, _) = leases();
    let a = leases.holder("a");
    a.acquire(&[&nodes(2, 0, true)], LONG).await.unwrap();
    assert!(a.holds_nodes());
    pods.lock().unwrap().push(pod("team"));
    assert_eq!(
        a.changed().await,
        ["1 pod of others came", "1 unit taken by others"]
    );
}

#[tokio::test(start_paused = true)]
async fn who_is_to_be_alone_waits_for_the_pods_that_another_probe_left() {
    let (leases, pods, _) = leases();
    pods.lock().unwrap().push(pod("karat-abcdefgh-other-main"));
    let a = leases.holder("a");
    let both = nodes(2, 0, true);
    let busy = a.acquire(&[&both], Duration::from_secs(2)).await;
    assert!(
        matches!(&busy, Err(LeaseError::Busy(text)) if text.contains("karat-abcdefgh-other-main")),
        "{busy:?}"
    );
    let lines = [&both];
    let (got, ()) = tokio::join!(a.acquire(&lines, LONG), async {
        sleep(Duration::from_secs(3)).await;
        pods.lock().unwrap().clear();
    });
    assert_eq!(got.unwrap().nodes.len(), 2);
}
