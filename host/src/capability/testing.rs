//! A door for unit tests: a scripted API server on one side, a recording in a temporary folder on the other.

use crate::cluster::Cluster;
use crate::gate::{Door, StopHandle, StopSignal};
use crate::journal::Journal;
use crate::lease::Leases;
use crate::manifest::{
    Budget, Case, CaseKind, LeaseLine, Manifest, NamespaceLine, PermissionLine, PodSecurity,
    Required, Scope, SnapshotLine,
};
use crate::model::{Outcome, Reach};
use crate::recording::format::{Entry, Limits};
use crate::recording::{Player, read};
use crate::redact::Redactor;
use crate::scratch::Scratch;
use bytes::Bytes;
use futures::StreamExt;
use futures::channel::mpsc;
use http::{Request, Response};
use http_body_util::combinators::UnsyncBoxBody;
use http_body_util::{BodyExt, Full, StreamBody};
use hyper::body::Frame;
use kube::client::Body;
use serde_json::Value;
use std::collections::BTreeMap;
use std::path::Path;
use std::sync::Arc;
use tower_test::mock;

/// Run id of every rig.
pub(crate) const RUN: &str = "abcdefgh";
/// The sandbox namespace of every rig.
pub(crate) const SANDBOX: &str = "karat-abcdefgh-demo-main";

/// Body of a scripted answer: at once, or piece by piece.
pub(crate) type Sent = UnsyncBoxBody<Bytes, std::io::Error>;

/// A body that is there at once.
pub(crate) fn whole(text: impl Into<Bytes>) -> Sent {
    Full::new(text.into())
        .map_err(|never| match never {})
        .boxed_unsync()
}

/// One attempt of a probe `demo` at a scripted server.
pub(crate) struct Rig {
    pub(crate) door: Door,
    pub(crate) server: mock::Handle<Request<Body>, Response<Sent>>,
    pub(crate) stop: StopHandle,
    pub(crate) journal: Journal,
    pub(crate) redactor: Arc<Redactor>,
    pub(crate) leases: Leases,
    folder: tempfile::TempDir,
    manifest: Arc<Manifest>,
    held: Vec<mpsc::UnboundedSender<Bytes>>,
}

/// What came in at the server.
#[derive(Debug)]
pub(crate) struct Got {
    pub(crate) method: String,
    pub(crate) uri: String,
    pub(crate) audit_id: String,
    pub(crate) content_type: String,
    pub(crate) body: Value,
    pub(crate) headers: http::HeaderMap,
    pub(crate) text: String,
}

impl Rig {
    /// A rig whose manifest asks for `permissions`, one a line: `verb,verb resource[/sub][.group] [cluster|<namespace>]`;
    /// without a scope, the sandbox; behind the scope names, and behind those prefixes of paths.
    pub(crate) fn new(permissions: &str) -> Rig {
        Rig::build(permissions, &[], |_| {})
    }

    pub(crate) fn with_limits(permissions: &str, change: impl FnOnce(&mut Limits)) -> Rig {
        Rig::build(permissions, &[], change)
    }

    /// A rig whose manifest declares snapshots: resource and paths of core kinds.
    pub(crate) fn with_snapshots(permissions: &str, snapshots: &[(&str, &[&str])]) -> Rig {
        Rig::build(permissions, snapshots, |_| {})
    }

    /// A rig whose manifest declares leases.
    pub(crate) fn with_leases(leases: Vec<LeaseLine>) -> Rig {
        let mut manifest = manifest("", &[]);
        manifest.leases = leases;
        Rig::of(manifest, |_| {})
    }

    fn build(
        permissions: &str,
        snapshots: &[(&str, &[&str])],
        change: impl FnOnce(&mut Limits),
    ) -> Rig {
        Rig::of(manifest(permissions, snapshots), change)
    }

    /// A rig whose probe speaks to another server than a scripted one.
    pub(crate) fn before(permissions: &str, client: kube::Client) -> Rig {
        let (_, unused) = mock::pair();
        Rig::speaking(manifest(permissions, &[]), |_| {}, client, unused)
    }

    fn of(manifest: Manifest, change: impl FnOnce(&mut Limits)) -> Rig {
        let (service, server) = mock::pair();
        Rig::speaking(
            manifest,
            change,
            kube::Client::new(service, "default"),
            server,
        )
    }

    fn speaking(
        manifest: Manifest,
        change: impl FnOnce(&mut Limits),
        client: kube::Client,
        server: mock::Handle<Request<Body>, Response<Sent>>,
    ) -> Rig {
        let folder = tempfile::tempdir().unwrap();
        let manifest = Arc::new(manifest);
        let mut scratch = Scratch::new(RUN, Arc::clone(&manifest));
        change(&mut scratch.limits);
        scratch.namespaces = BTreeMap::from([("main".to_owned(), SANDBOX.to_owned())]);
        scratch.settings = BTreeMap::from([("given".to_owned(), "90s".to_owned())]);
        let cluster = Cluster::for_test(client);
        let (stop, signal) = StopSignal::pair();
        let mut parts = scratch.door(folder.path(), cluster).unwrap();
        parts.stop = signal;
        let journal = parts.journal.clone();
        let redactor = Arc::clone(&parts.redactor);
        let leases = parts.leases.clone();
        let door = Door::live(parts);
        Rig {
            door,
            server,
            stop,
            journal,
            redactor,
            leases,
            folder,
            manifest,
            held: Vec::new(),
        }
    }

    /// Answers the next request.
    pub(crate) async fn answer(&mut self, code: u16, body: impl Into<Reply>) -> Got {
        serve(&mut self.server, code, body).await
    }

    /// Answers the next request with a stream that says nothing and does not end.
    pub(crate) async fn hold(&mut self) -> Got {
        let (sender, receiver) = mpsc::unbounded();
        self.held.push(sender);
        let frames = receiver.map(|bytes| Ok::<_, std::io::Error>(Frame::data(bytes)));
        let body = StreamBody::new(frames).boxed_unsync();
        let (request, send) = next_request(&mut self.server).await;
        let got = Got::read(request).await;
        send.send_response(Response::new(body));
        got
    }

    /// Answers the next request in this way.
    pub(crate) async fn respond(&mut self, response: Response<Sent>) -> Got {
        let (request, send) = next_request(&mut self.server).await;
        let got = Got::read(request).await;
        send.send_response(response);
        got
    }

    /// Answers the next request with a body that arrives chunk by chunk; an `Err` breaks it off.
    pub(crate) async fn arriving(
        &mut self,
        head: http::response::Builder,
    ) -> mpsc::UnboundedSender<std::io::Result<Bytes>> {
        self.arriving_to(head).await.1
    }

    /// The same for a body without a head of its own, with the request that it answers.
    pub(crate) async fn pieces(&mut self) -> (Got, mpsc::UnboundedSender<std::io::Result<Bytes>>) {
        self.arriving_to(Response::builder()).await
    }

    async fn arriving_to(
        &mut self,
        head: http::response::Builder,
    ) -> (Got, mpsc::UnboundedSender<std::io::Result<Bytes>>) {
        let (sender, receiver) = mpsc::unbounded();
        let frames = receiver.map(|chunk: std::io::Result<Bytes>| chunk.map(Frame::data));
        let body = StreamBody::new(frames).boxed_unsync();
        let got = self.respond(head.body(body).unwrap()).await;
        (got, sender)
    }

    /// Ends the stream that was held last.
    pub(crate) fn release(&mut self) {
        self.held.pop();
    }

    /// Closes the recording and opens it for a strict replay.
    pub(crate) fn replay(&mut self) -> Door {
        let usage = self.door.usage(0);
        self.door
            .finish(Outcome::Concluded, usage, BTreeMap::new(), Vec::new())
            .unwrap();
        let player = Player::open(&self.recording()).unwrap();
        Door::replay(player, Arc::clone(&self.manifest))
    }

    /// The entries of a closed recording.
    pub(crate) fn entries(&self) -> Vec<Entry> {
        read(&self.recording()).unwrap().entries().to_vec()
    }

    fn recording(&self) -> std::path::PathBuf {
        self.folder.path().join("attempt-1")
    }

    /// Everything that lies in the folder of the rig as text, to look for what must not be there.
    pub(crate) fn journal_text(&self) -> String {
        std::fs::read_to_string(Path::new(self.folder.path()).join("journal.jsonl")).unwrap()
    }
}

/// A scripted body, or a connection that breaks.
pub(crate) enum Reply {
    Body(String),
    Break,
}

impl From<&str> for Reply {
    fn from(text: &str) -> Reply {
        Reply::Body(text.to_owned())
    }
}

impl From<Value> for Reply {
    fn from(value: Value) -> Reply {
        Reply::Body(value.to_string())
    }
}

/// Answers the next request at a server.
pub(crate) async fn serve(
    server: &mut mock::Handle<Request<Body>, Response<Sent>>,
    code: u16,
    body: impl Into<Reply>,
) -> Got {
    let (request, send) = next_request(server).await;
    let got = Got::read(request).await;
    match body.into() {
        Reply::Break => send.send_error("connection reset by the script"),
        Reply::Body(text) => send.send_response(
            Response::builder()
                .status(code)
                .header("content-type", "application/json")
                .body(whole(text))
                .unwrap(),
        ),
    }
    got
}

async fn next_request(
    server: &mut mock::Handle<Request<Body>, Response<Sent>>,
) -> (Request<Body>, mock::SendResponse<Response<Sent>>) {
    let next = tokio::time::timeout(std::time::Duration::from_secs(20), server.next_request());
    next.await.expect("a request in time").expect("a request")
}

impl Got {
    async fn read(request: Request<Body>) -> Got {
        let (parts, sent) = request.into_parts();
        let header = |name: &str| {
            let value = parts.headers.get(name).map(|v| v.to_str().unwrap());
            value.unwrap_or_default().to_owned()
        };
        let sent = sent.collect_bytes().await.unwrap();
        Got {
            method: parts.method.to_string(),
            uri: parts.uri.to_string(),
            audit_id: header("audit-id"),
            content_type: header("content-type"),
            body: serde_json::from_slice(&sent).unwrap_or_default(),
            text: String::from_utf8_lossy(&sent).into_owned(),
            headers: parts.headers,
        }
    }
}

/// Built as a value: what the parser accepts is tested where the parser is.
fn manifest(permissions: &str, snapshots: &[(&str, &[&str])]) -> Manifest {
    let owned = |words: &[&str]| words.iter().map(|word| (*word).to_owned()).collect();
    let permission = |(at, line): (usize, &str)| {
        let mut words = line.split_whitespace();
        let verbs: Vec<&str> = words.next().unwrap().split(',').collect();
        let resource = words.next().unwrap();
        let scope = match words.next() {
            None | Some("sandbox") => Scope::Sandbox,
            Some("cluster") => Scope::Cluster,
            Some(namespace) => Scope::Namespace(namespace.to_owned()),
        };
        let mut asked = PermissionLine {
            api_groups: Vec::new(),
            resources: Vec::new(),
            verbs: owned(&verbs),
            scope,
            names: Vec::new(),
            non_resource: Vec::new(),
            proxy: crate::manifest::ProxyLine::default(),
            optional: false,
            why: "tests".to_owned(),
            line: at + 1,
        };
        if let Some(names) = words.next() {
            asked.names = owned(&names.split(',').collect::<Vec<_>>());
        }
        if let Some(paths) = words.next() {
            asked.proxy.paths = owned(&paths.split(',').collect::<Vec<_>>());
        }
        if resource.starts_with('/') {
            asked.non_resource = owned(&[resource]);
        } else {
            let (name, group) = resource.split_once('.').unwrap_or((resource, ""));
            asked.resources = owned(&[name]);
            asked.api_groups = owned(&[group]);
        }
        asked
    };
    let case = |id: &str| Case {
        id: id.to_owned(),
        kind: CaseKind::Observation,
        required: Required::Always,
        claim: "tests work".to_owned(),
        expected: "they do".to_owned(),
        needs: Vec::new(),
        effect: Vec::new(),
        controls: Vec::new(),
        quiet: None,
        pending: false,
        line: 1,
    };
    let lines = permissions
        .lines()
        .map(str::trim)
        .filter(|line| !line.is_empty());
    Manifest {
        id: "demo".to_owned(),
        version: "0.1.0".to_owned(),
        title: "A probe for tests".to_owned(),
        claim: "tests work".to_owned(),
        misleads: "it is only a test".to_owned(),
        contract: crate::names::CONTRACT_VERSION.to_owned(),
        requirements: owned(&["demo.example/tests"]),
        reach: Reach::ClusterObjects,
        capabilities: owned(&["kube-read", "kube-write"]),
        permissions: lines.enumerate().map(permission).collect(),
        namespaces: vec![NamespaceLine {
            alias: "main".to_owned(),
            pod_security: PodSecurity::Restricted,
            pods: 10,
        }],
        images: Vec::new(),
        snapshots: snapshots
            .iter()
            .map(|(resource, keep)| SnapshotLine {
                api_version: "v1".to_owned(),
                resource: (*resource).to_owned(),
                labels: String::new(),
                keep: owned(keep),
            })
            .collect(),
        leases: Vec::new(),
        settings: BTreeMap::new(),
        budget: Budget::default(),
        cases: vec![case("first"), case("second")],
    }
}
