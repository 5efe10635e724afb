//! Thousands of simulated nodes and pods, and what a plain client needs to read them.
//!
//! Nodes are kwok's; pods are bound when they are created, so that the scheduler has no part in it, and kwok lets them run.
//! Names are numbered, so a run that was broken off goes on where it was: what is there is not made again. Everything lives
//! in the laboratory's own etcd and goes with it.

use std::collections::BTreeSet;
use std::sync::Mutex;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::{Duration, Instant};

use futures::{StreamExt as _, stream};
use http::Request;
use http_body_util::BodyExt as _;
use k8s_openapi::api::core::v1::{Namespace, Node, Pod, ServiceAccount};
pub use kube::Client;
use kube::Resource;
use kube::api::{Api, ListParams, PostParams};
use serde::de::DeserializeOwned;
use serde::{Deserialize, Serialize};
use serde_json::json;

use crate::error::{Result, TestbedError};

/// Namespace of the pods.
pub const NAMESPACE: &str = "scale";
/// Requests that are under way at one time. The API server's own limit for writes is 200; more clients than this gain
/// nothing on a small machine.
const PARALLEL: usize = 24;
/// Objects of a page, as kubectl asks for them.
const PAGE: u32 = 500;
/// How often progress is told.
const TOLD_EVERY: Duration = Duration::from_secs(3);

/// How far the making of one kind is.
#[derive(Clone, Copy, Debug)]
pub struct Progress {
    /// Plural name of the kind.
    pub kind: &'static str,
    /// Objects that are there, earlier ones included.
    pub there: usize,
    /// Objects that are wanted.
    pub wanted: usize,
    /// Objects made by this call.
    pub made: usize,
    /// Time since it began with this kind.
    pub after: Duration,
}

impl Progress {
    /// Objects made in a second.
    #[must_use]
    pub fn rate(&self) -> f64 {
        let seconds = self.after.as_secs_f64();
        if seconds > 0.0 {
            f64::from(u32::try_from(self.made).unwrap_or(u32::MAX)) / seconds
        } else {
            0.0
        }
    }
}

/// Makes what is missing of `nodes` nodes and `pods` pods, and tells now and then how far it is.
///
/// # Errors
/// What the API server refuses. What was made by then stays, and the next call goes on from there.
pub async fn populate(
    client: &Client,
    nodes: usize,
    pods: usize,
    tell: &(dyn Fn(Progress) + Sync),
) -> Result<()> {
    make(
        &Api::<Node>::all(client.clone()),
        "nodes",
        nodes,
        tell,
        node,
    )
    .await?;
    if pods == 0 {
        return Ok(());
    }
    namespace(client).await?;
    let api = Api::<Pod>::namespaced(client.clone(), NAMESPACE);
    make(&api, "pods", pods, tell, |at| pod(at, nodes.max(1))).await
}

fn node_name(at: usize) -> String {
    format!("scale-{at:05}")
}

fn node(at: usize) -> serde_json::Value {
    let name = node_name(at);
    json!({
        "apiVersion": "v1", "kind": "Node",
        "metadata": {
            "name": name,
            "annotations": {"kwok.x-k8s.io/node": "fake", "node.alpha.kubernetes.io/ttl": "0"},
            "labels": {
                "type": "kwok", "kubernetes.io/arch": "amd64", "kubernetes.io/os": "linux", "kubernetes.io/hostname": name,
                "topology.kubernetes.io/zone": format!("zone-{}", at % 3),
            },
        },
        "spec": {},
        "status": {
            "capacity": {"cpu": "64", "memory": "512Gi", "pods": "110"},
            "allocatable": {"cpu": "64", "memory": "512Gi", "pods": "110"},
        },
    })
}

fn pod(at: usize, nodes: usize) -> serde_json::Value {
    json!({
        "apiVersion": "v1", "kind": "Pod",
        "metadata": {"name": format!("scale-{at:05}"), "labels": {"app": format!("app-{}", at % 100)}},
        "spec": {
            "nodeName": node_name(at % nodes),
            "automountServiceAccountToken": false,
            "containers": [{
                "name": "main", "image": "registry.invalid/scale/app:1",
                "resources": {"requests": {"cpu": "100m", "memory": "128Mi"}},
            }],
        },
    })
}

async fn namespace(client: &Client) -> Result<()> {
    let failed = || TestbedError::kube("the namespace of the pods");
    let namespaces: Api<Namespace> = Api::all(client.clone());
    if namespaces
        .get_opt(NAMESPACE)
        .await
        .map_err(failed())?
        .is_none()
    {
        let wanted = object::<Namespace>(json!({"metadata": {"name": NAMESPACE}}))?;
        namespaces
            .create(&PostParams::default(), &wanted)
            .await
            .map_err(failed())?;
    }
    // Pods are refused until the controller manager has made it.
    let accounts: Api<ServiceAccount> = Api::namespaced(client.clone(), NAMESPACE);
    while accounts
        .get_opt("default")
        .await
        .map_err(failed())?
        .is_none()
    {
        tokio::time::sleep(Duration::from_millis(50)).await;
    }
    Ok(())
}

fn object<K: DeserializeOwned>(value: serde_json::Value) -> Result<K> {
    serde_json::from_value(value).map_err(|e| TestbedError::Fixture {
        name: "a simulated object".to_owned(),
        document: 1,
        cause: e.to_string(),
    })
}

async fn make<K>(
    api: &Api<K>,
    kind: &'static str,
    wanted: usize,
    tell: &(dyn Fn(Progress) + Sync),
    object_at: impl Fn(usize) -> serde_json::Value + Sync,
) -> Result<()>
where
    K: Resource + Clone + std::fmt::Debug + DeserializeOwned + Serialize,
{
    let there = names(api, kind).await?;
    let missing: Vec<usize> = (0..wanted)
        .filter(|at| !there.contains(&format!("scale-{at:05}")))
        .collect();
    let before = wanted - missing.len();
    let (began, made) = (Instant::now(), AtomicUsize::new(0));
    let told = Mutex::new(began);
    let progress = || {
        let made = made.load(Ordering::Relaxed);
        Progress {
            kind,
            there: before + made,
            wanted,
            made,
            after: began.elapsed(),
        }
    };
    let mut work = stream::iter(missing)
        .map(|at| {
            let wanted = object::<K>(object_at(at));
            async move {
                match api.create(&PostParams::default(), &wanted?).await {
                    // Made by a call that was broken off.
                    Err(kube::Error::Api(e)) if e.code == 409 => Ok(()),
                    other => other.map(drop).map_err(TestbedError::kube(kind)),
                }
            }
        })
        .buffer_unordered(PARALLEL);
    while let Some(result) = work.next().await {
        result?;
        made.fetch_add(1, Ordering::Relaxed);
        if let Ok(mut told) = told.lock()
            && told.elapsed() >= TOLD_EVERY
        {
            *told = Instant::now();
            tell(progress());
        }
    }
    tell(progress());
    Ok(())
}

/// Names of all objects, page by page, without their contents.
async fn names<K>(api: &Api<K>, kind: &str) -> Result<BTreeSet<String>>
where
    K: Resource + Clone + std::fmt::Debug + DeserializeOwned,
{
    let mut names = BTreeSet::new();
    let mut params = ListParams::default().limit(PAGE);
    loop {
        let page = api
            .list_metadata(&params)
            .await
            .map_err(TestbedError::kube(kind.to_owned()))?;
        names.extend(page.items.into_iter().filter_map(|o| o.metadata.name));
        match page.metadata.continue_ {
            Some(next) if !next.is_empty() => params = params.continue_token(&next),
            _ => return Ok(names),
        }
    }
}

/// What reading a collection cost.
#[derive(Clone, Copy, Debug, Default)]
pub struct Reading {
    /// Objects.
    pub objects: usize,
    /// Bytes of the bodies.
    pub bytes: usize,
    /// Requests.
    pub requests: usize,
    /// Time for all of it.
    pub time: Duration,
}

/// Reads a collection page by page, parses every page and drops it: what any client has to do at least.
///
/// # Errors
/// What the API server refuses, or an answer that is no list.
pub async fn read_raw(client: &Client, path: &str) -> Result<Reading> {
    #[derive(Deserialize)]
    struct Page {
        metadata: Meta,
        items: Vec<serde_json::Value>,
    }
    #[derive(Deserialize)]
    struct Meta {
        #[serde(default, rename = "continue")]
        next: String,
    }
    let failed = |cause: String| TestbedError::Fixture {
        name: path.to_owned(),
        document: 1,
        cause,
    };
    let began = Instant::now();
    let mut reading = Reading::default();
    let mut next = String::new();
    loop {
        let mut uri = format!("{path}?limit={PAGE}");
        if !next.is_empty() {
            // Tokens are URL-safe base64 but for their padding.
            uri.push_str("&continue=");
            uri.push_str(&next.replace('=', "%3D"));
        }
        let request = Request::get(uri)
            .header("accept", "application/json")
            .body(kube::client::Body::empty())
            .map_err(|e| failed(e.to_string()))?;
        let response = client
            .send(request)
            .await
            .map_err(TestbedError::kube(path.to_owned()))?;
        let body = response
            .into_body()
            .collect()
            .await
            .map_err(|e| failed(e.to_string()))?
            .to_bytes();
        let page: Page = serde_json::from_slice(&body).map_err(|e| failed(e.to_string()))?;
        reading.bytes += body.len();
        reading.objects += page.items.len();
        reading.requests += 1;
        if page.metadata.next.is_empty() {
            reading.time = began.elapsed();
            return Ok(reading);
        }
        next = page.metadata.next;
    }
}
