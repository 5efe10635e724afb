//! Logs and commands through the whole door: against a scripted API server, and against one that really upgrades.

use super::*;
use crate::capability::testing::{Reply as Scripted, Rig, SANDBOX};
use crate::capability::wait;
use crate::recording::format::{Entry, ReplyKind};
use bytes::Bytes;
use futures::channel::mpsc::UnboundedSender;
use futures::{SinkExt as _, StreamExt as _};
use http_body_util::{BodyExt as _, Full};
use hyper_util::rt::TokioIo;
use kube::client::Body;
use std::time::Duration;
use tokio_tungstenite::WebSocketStream;
use tokio_tungstenite::tungstenite::Message;
use tokio_tungstenite::tungstenite::handshake::derive_accept_key;
use tokio_tungstenite::tungstenite::protocol::Role;

const PERMISSIONS: &str = "get pods/log
    get,create pods/exec";
const POD: &str = "tool-abcdefgh";

fn pod() -> Value {
    json!({"kind": "Pod", "metadata": {"name": POD, "namespace": SANDBOX, "uid": "u-1", "ownerReferences": [{"kind": "Job"}]},
        "spec": {"nodeName": "worker-of-somebody-1"},
        "status": {"phase": "Running", "containerStatuses": [{"imageID": "registry.example/tool@sha256:01"}]}})
}

fn node() -> Value {
    json!({"kind": "Node", "metadata": {"name": "worker-of-somebody-1", "annotations": {"kwok.x-k8s.io/node": "fake"}}})
}

fn log() -> LogQuery {
    LogQuery {
        namespace: SANDBOX.to_owned(),
        pod: POD.to_owned(),
        ..LogQuery::default()
    }
}

/// Opens a log, with the engine's looks at pod and node before it.
async fn opened(
    rig: &mut Rig,
    query: &LogQuery,
) -> (ByteStream, UnboundedSender<std::io::Result<Bytes>>, String) {
    let door = rig.door.clone();
    let (stream, (got, sender)) = tokio::join!(open(&door, query), async {
        let asked = rig.answer(200, pod()).await;
        assert!(
            asked.uri.ends_with(&format!("/pods/{POD}")),
            "{}",
            asked.uri
        );
        let asked = rig.answer(200, node()).await;
        assert!(asked.uri.starts_with("/api/v1/nodes/"), "{}", asked.uri);
        rig.pieces().await
    });
    (stream.unwrap(), sender, got.uri)
}

fn send(sender: &UnboundedSender<std::io::Result<Bytes>>, text: &str) {
    sender
        .unbounded_send(Ok(Bytes::copy_from_slice(text.as_bytes())))
        .unwrap();
}

/// What the stream gives next, waited for as a guest would.
async fn next(door: &Door, stream: &ByteStream, max: u32) -> Result<Option<String>, Failure> {
    loop {
        match stream.read(door, max)? {
            None => return Ok(None),
            Some(bytes) if bytes.is_empty() => {
                let ready = wait::any(door, &[stream.source()], 60_000).await?;
                assert_eq!(ready, [0], "the stream never became ready");
            }
            Some(bytes) => return Ok(Some(String::from_utf8(bytes).unwrap())),
        }
    }
}

/// All that follows.
async fn rest(door: &Door, stream: &ByteStream) -> Result<String, Failure> {
    let mut all = String::new();
    while let Some(text) = next(door, stream, READ_MAX).await? {
        all.push_str(&text);
    }
    Ok(all)
}

fn of<'a>(entries: &'a [Entry], function: &str) -> Vec<&'a Entry> {
    entries
        .iter()
        .filter(|entry| entry.function == function)
        .collect()
}

#[tokio::test]
async fn a_log_is_followed_recorded_and_replayed() {
    let mut rig = Rig::new(PERMISSIONS);
    let query = LogQuery {
        container: Some("tool".to_owned()),
        follow: true,
        previous: true,
        since_ms: Some(1500),
        ..log()
    };
    let (stream, sender, uri) = opened(&mut rig, &query).await;
    assert!(
        uri.contains("/log?container=tool&follow=true&previous=true&sinceSeconds=2"),
        "{uri}"
    );
    let door = rig.door.clone();
    assert_eq!(
        stream.read(&door, 100).unwrap(),
        Some(vec![]),
        "nothing has come yet"
    );
    send(&sender, "on worker-of-some");
    send(&sender, "body-1\nhalf");
    let first = next(&door, &stream, 100).await.unwrap().unwrap();
    assert!(
        first.starts_with("on node-") && first.ends_with('\n'),
        "{first:?}"
    );
    drop(sender);
    assert_eq!(
        next(&door, &stream, 100).await.unwrap().as_deref(),
        Some("half")
    );
    assert_eq!(next(&door, &stream, 100).await, Ok(None));

    let replay = rig.replay();
    let stream = open(&replay, &query).await.unwrap();
    assert_eq!(stream.read(&replay, 100).unwrap(), Some(vec![]));
    assert_eq!(next(&replay, &stream, 100).await.unwrap(), Some(first));
    assert_eq!(
        next(&replay, &stream, 100).await.unwrap().as_deref(),
        Some("half")
    );
    assert_eq!(next(&replay, &stream, 100).await, Ok(None));
    assert_eq!(replay.finish_replay(), Ok(vec![]));

    let entries = rig.entries();
    let opened = of(&entries, "pods.log-query.open")[0];
    assert_eq!(opened.facts.objects[0].uid, "u-1");
    assert_eq!(
        opened.facts.objects[0].images,
        ["registry.example/tool@sha256:01"]
    );
    assert!(opened.facts.objects[0].node.starts_with("node-"));
    assert!(
        opened.facts.markers[0].starts_with("kwok"),
        "{:?}",
        opened.facts.markers
    );
    let reads = of(&entries, function::STREAM_READ);
    let told: Vec<&&Entry> = reads.iter().filter(|entry| entry.facts.live).collect();
    assert_eq!(
        told.len(),
        2,
        "nothing and the end are no answers of the container"
    );
    assert_eq!(told[0].facts.objects, opened.facts.objects);
}

#[tokio::test]
async fn a_secret_in_two_pieces_is_found() {
    let mut rig = Rig::new(PERMISSIONS);
    let (stream, sender, _) = opened(&mut rig, &log()).await;
    let door = rig.door.clone();
    let token = "ghp_0123456789abcdefABCDEF0123456789abcd";
    for piece in [
        "a ghp_0123456789abcdef",
        "ABCDEF0123456789abcd\nb\n",
        "-----BEGIN PRIVATE KEY-----\n",
        "MIIEvQIBADAN\n",
    ] {
        send(&sender, piece);
    }
    let first = next(&door, &stream, READ_MAX).await.unwrap().unwrap();
    send(&sender, "-----END PRIVATE KEY-----\nc\n");
    drop(sender);
    let all = first + &rest(&door, &stream).await.unwrap();
    assert!(!all.contains(token) && !all.contains("ABCDEF"), "{all}");
    assert!(!all.contains("MIIEvQIBADAN"), "{all}");
    assert!(
        all.starts_with("a redacted-") && all.ends_with("\nc\n"),
        "{all}"
    );
}

#[tokio::test]
async fn small_reads_keep_lines_together_where_they_can() {
    let mut rig = Rig::new(PERMISSIONS);
    let (stream, sender, _) = opened(&mut rig, &log()).await;
    let door = rig.door.clone();
    sender
        .unbounded_send(Ok(Bytes::from_static(
            b"a\nlong line\n\xff\xc3\xa4\xc3\xa4\n",
        )))
        .unwrap();
    drop(sender);
    let mut got = Vec::new();
    while let Some(text) = next(&door, &stream, 5).await.unwrap() {
        assert!(text.len() <= 5);
        got.push(text);
    }
    assert_eq!(got, ["a\n", "long ", "line\n", "\u{fffd}ä", "ä\n"]);
    assert!(matches!(stream.read(&door, 3), Err(Failure::Malformed(_))));
}

#[tokio::test]
async fn a_log_that_breaks_is_no_log_that_ends() {
    let mut rig = Rig::new(PERMISSIONS);
    let (stream, sender, _) = opened(&mut rig, &log()).await;
    let door = rig.door.clone();
    send(&sender, "whole\nhal");
    sender
        .unbounded_send(Err(std::io::Error::other("reset by worker-of-somebody-1")))
        .unwrap();
    assert_eq!(
        next(&door, &stream, 100).await.unwrap().as_deref(),
        Some("whole\n")
    );
    for _ in 0..2 {
        let lost = next(&door, &stream, 100).await;
        assert!(
            matches!(&lost, Err(Failure::NoAnswer(text)) if !text.contains("somebody")),
            "{lost:?}"
        );
    }
}

#[tokio::test]
async fn a_line_without_end_is_a_budget() {
    let mut rig = Rig::new(PERMISSIONS);
    let (stream, sender, _) = opened(&mut rig, &log()).await;
    let door = rig.door.clone();
    send(&sender, "short\n");
    send(&sender, &"x".repeat(lines::HELD_MAX + 1));
    assert_eq!(
        next(&door, &stream, 100).await.unwrap().as_deref(),
        Some("short\n")
    );
    let error = next(&door, &stream, 100).await;
    assert!(
        matches!(&error, Err(Failure::Budget(text)) if text.contains("256 KiB")),
        "{error:?}"
    );
}

#[tokio::test]
async fn a_guest_that_does_not_read_fills_a_bounded_queue_and_gets_all_in_the_end() {
    let mut rig = Rig::with_limits(PERMISSIONS, |limits| limits.seen_bytes = 8 << 20);
    let (stream, sender, _) = opened(&mut rig, &log()).await;
    let door = rig.door.clone();
    let line = format!("{}\n", "word ".repeat(1000));
    let lines = 3 * QUEUE_MAX / line.len();
    for _ in 0..lines {
        send(&sender, &line);
    }
    drop(sender);
    wait::any(&door, &[stream.source()], 60_000).await.unwrap();
    // As long as nobody reads, the task waits with a full queue.
    for _ in 0..100 {
        tokio::task::yield_now().await;
    }
    let (shared, _) = stream.running.as_ref().unwrap();
    let waiting = shared.lock().raw.len();
    assert!(waiting <= QUEUE_MAX + line.len(), "{waiting}");
    assert_eq!(
        rest(&door, &stream).await.unwrap().len(),
        lines * line.len()
    );
}

#[tokio::test]
async fn the_budget_of_bytes_holds_for_logs() {
    let mut rig = Rig::with_limits(PERMISSIONS, |limits| limits.seen_bytes = 10);
    let (stream, sender, _) = opened(&mut rig, &log()).await;
    send(&sender, "more than ten bytes\n");
    let error = next(&rig.door.clone(), &stream, READ_MAX).await;
    assert!(
        matches!(&error, Err(Failure::Budget(text)) if text.contains("`seen`")),
        "{error:?}"
    );
}

#[tokio::test]
async fn so_many_streams_and_no_more() {
    let mut rig = Rig::new(PERMISSIONS);
    let mut kept = Vec::new();
    for _ in 0..STREAMS_MAX {
        kept.push(opened(&mut rig, &log()).await);
    }
    let door = rig.door.clone();
    let error = open(&door, &log()).await.map(|_| ());
    assert!(
        matches!(&error, Err(Failure::Budget(text)) if text.contains("32 logs")),
        "{error:?}"
    );
    // The end of a stream makes room, whether or not its handle is dropped.
    let (stream, sender, _) = kept.remove(0);
    drop(sender);
    assert_eq!(next(&door, &stream, 100).await, Ok(None));
    opened(&mut rig, &log()).await;
}

#[tokio::test]
async fn the_servers_no_is_what_it_said() {
    let mut rig = Rig::new(PERMISSIONS);
    let door = rig.door.clone();
    let status = json!({"kind": "Status", "code": 404, "reason": "NotFound", "message": "pods \"tool\" not found"});
    let query = log();
    let (got, ()) = tokio::join!(open(&door, &query), async {
        rig.answer(404, status.clone()).await;
        rig.answer(404, status.clone()).await;
    });
    assert!(matches!(
        got.map(|_| ()),
        Err(Failure::Answered { code: 404, .. })
    ));
    // A kubelet that does not answer: asked four times, as every read is.
    let gone = json!({"kind": "Status", "code": 502, "reason": "InternalError", "message": "dial tcp: connection refused"});
    let (got, ()) = tokio::join!(open(&door, &query), async {
        rig.answer(200, pod()).await;
        rig.answer(200, node()).await;
        for _ in 0..4 {
            rig.answer(502, gone.clone()).await;
        }
    });
    assert!(matches!(
        got.map(|_| ()),
        Err(Failure::Answered { code: 502, .. })
    ));
    let (got, ()) = tokio::join!(open(&door, &query), async {
        for _ in 0..4 {
            rig.answer(200, Scripted::Break).await;
        }
    });
    assert!(matches!(got.map(|_| ()), Err(Failure::NoAnswer(_))));
    rig.replay();
    let entries = rig.entries();
    assert_eq!(of(&entries, "pods.log-query.open")[1].tries, 4);
}

fn refusal<T>(result: Result<T, Failure>) -> String {
    match result.map(|_| ()) {
        Err(Failure::Refused(text)) => text,
        other => panic!("{other:?}"),
    }
}

#[tokio::test]
async fn what_is_not_granted_never_reaches_the_server() {
    let rig = Rig::new("get pods\nget pods/exec");
    let door = rig.door.clone();
    let text = refusal(open(&door, &log()).await);
    assert!(
        text.contains("pods/log") && text.contains("probe.toml"),
        "{text}"
    );
    let text = refusal(start(&door, &command(&["true"]), 1000).await);
    assert!(
        text.contains("pods/exec") && text.contains("create"),
        "{text}"
    );
    // A WebSocket begins with a GET.
    let rig = Rig::new("create pods/exec");
    let text = refusal(start(&rig.door, &command(&["true"]), 1000).await);
    assert!(
        text.contains("\"get\"") && text.contains("pods/exec"),
        "{text}"
    );
    let rig = Rig::new(PERMISSIONS);
    let foreign = LogQuery {
        namespace: "kube-system".to_owned(),
        ..log()
    };
    refusal(open(&rig.door, &foreign).await);
    // The log of a foreign pod needs a line; entering one needs an exception as well.
    let rig = Rig::new("get,create pods/exec cluster");
    let foreign = Command {
        namespace: "kube-system".to_owned(),
        ..command(&["true"])
    };
    let text = refusal(start(&rig.door, &foreign, 1000).await);
    assert!(text.contains("guard `foreign-"), "{text}");
}

#[tokio::test]
async fn what_makes_no_sense_is_said_so() {
    let rig = Rig::new(PERMISSIONS);
    let door = &rig.door;
    for query in [
        LogQuery {
            namespace: String::new(),
            ..log()
        },
        LogQuery {
            pod: "../x".to_owned(),
            ..log()
        },
        LogQuery {
            container: Some("a?follow=true".to_owned()),
            ..log()
        },
    ] {
        assert!(
            matches!(
                open(door, &query).await.map(|_| ()),
                Err(Failure::Malformed(_))
            ),
            "{query:?}"
        );
    }
    let long = "x".repeat(5000);
    for (argv, deadline) in [
        (vec![], 1000),
        (vec![""], 1000),
        (vec!["a\0b"], 1000),
        (vec![long.as_str()], 1000),
        (vec!["x"; 257], 1000),
        (vec!["true"], 0),
    ] {
        let got = start(door, &command(&argv), deadline).await.map(|_| ());
        assert!(
            matches!(got, Err(Failure::Malformed(_))),
            "{argv:?}: {got:?}"
        );
    }
}

fn command(argv: &[&str]) -> Command {
    Command {
        namespace: SANDBOX.to_owned(),
        pod: POD.to_owned(),
        container: None,
        argv: argv.iter().map(|word| (*word).to_owned()).collect(),
    }
}

/// What a kubelet does with a command.
#[derive(Clone)]
enum Step {
    /// Sends bytes on a channel.
    Says(u8, &'static str),
    /// Closes the socket as the protocol has it.
    Closes,
    /// Waits for the client to go.
    Hangs,
    /// Answers no upgrade.
    Answers(u16, &'static str),
    /// Answers the upgrade for another protocol.
    Chooses(&'static str),
}

const SUCCESS: Step = Step::Says(3, r#"{"metadata":{},"status":"Success"}"#);

/// A server in this process that gives the pod and its node, and upgrades.
fn kubelet(steps: &[Step]) -> kube::Client {
    let steps: Arc<[Step]> = steps.into();
    let service = tower::service_fn(move |request: http::Request<Body>| {
        let steps = Arc::clone(&steps);
        async move {
            let (near, far) = tokio::io::duplex(64 << 10);
            let answer = hyper::service::service_fn(move |request| {
                let steps = Arc::clone(&steps);
                async move { Ok::<_, std::convert::Infallible>(serve(&steps, request)) }
            });
            let server = hyper::server::conn::http1::Builder::new()
                .serve_connection(TokioIo::new(far), answer)
                .with_upgrades();
            tokio::spawn(server);
            let (mut sender, connection) =
                hyper::client::conn::http1::handshake(TokioIo::new(near)).await?;
            tokio::spawn(connection.with_upgrades());
            sender.send_request(request).await
        }
    });
    kube::Client::new(service, "default")
}

fn serve(
    steps: &Arc<[Step]>,
    mut request: http::Request<hyper::body::Incoming>,
) -> http::Response<Full<Bytes>> {
    let plain = |code: u16, body: String| {
        let answer = http::Response::builder()
            .status(code)
            .header("content-type", "application/json");
        answer.body(Full::new(Bytes::from(body))).unwrap()
    };
    let path = request.uri().path();
    if path.starts_with("/api/v1/nodes/") {
        return plain(200, node().to_string());
    }
    if !path.ends_with("/exec") {
        return plain(200, pod().to_string());
    }
    let mut protocol = "v5.channel.k8s.io";
    match steps.first() {
        Some(Step::Answers(code, body)) => return plain(*code, (*body).to_owned()),
        Some(Step::Chooses(other)) => protocol = other,
        _ => {}
    }
    assert_eq!(
        request.headers()["sec-websocket-protocol"],
        "v5.channel.k8s.io, v4.channel.k8s.io"
    );
    assert_eq!(request.headers()["accept"], "*/*");
    let accept = derive_accept_key(request.headers()["sec-websocket-key"].as_bytes());
    let upgrade = hyper::upgrade::on(&mut request);
    let (steps, query) = (
        Arc::clone(steps),
        request.uri().query().unwrap_or_default().to_owned(),
    );
    tokio::spawn(async move {
        let socket = TokioIo::new(upgrade.await.unwrap());
        let mut socket = WebSocketStream::from_raw_socket(socket, Role::Server, None).await;
        for step in steps.iter() {
            match step {
                Step::Says(channel, "$query") => {
                    let bytes = [&[*channel][..], query.as_bytes()].concat();
                    socket.send(Message::binary(bytes)).await.unwrap();
                }
                Step::Says(channel, text) => {
                    let bytes = [&[*channel][..], text.as_bytes()].concat();
                    socket.send(Message::binary(bytes)).await.unwrap();
                }
                Step::Closes => drop(socket.close(None).await),
                Step::Hangs => while let Some(Ok(_)) = socket.next().await {},
                Step::Answers(..) | Step::Chooses(_) => {}
            }
        }
    });
    http::Response::builder()
        .status(101)
        .header("connection", "Upgrade")
        .header("upgrade", "websocket")
        .header("sec-websocket-accept", accept)
        .header("sec-websocket-protocol", protocol)
        .body(Full::new(Bytes::new()))
        .unwrap()
}

struct Ran {
    rig: Rig,
    output: Result<String, Failure>,
    errors: Result<String, Failure>,
    exit: Result<Option<i32>, Failure>,
}

async fn ran(steps: &[Step], deadline_ms: u32) -> Ran {
    let rig = Rig::before(PERMISSIONS, kubelet(steps));
    let door = rig.door.clone();
    let execution = start(&door, &command(&["cat", "a b", "", "ü&x=1"]), deadline_ms)
        .await
        .unwrap();
    let output = rest(&door, &execution.output()).await;
    let errors = rest(&door, &execution.errors()).await;
    let exit = exit(&door, &execution);
    Ran {
        rig,
        output,
        errors,
        exit,
    }
}

#[tokio::test]
async fn a_command_ends_with_its_code_and_is_replayed() {
    let failed = r#"{"metadata":{},"status":"Failure","message":"command terminated with non-zero exit code",
        "reason":"NonZeroExitCode","details":{"causes":[{"reason":"ExitCode","message":"3"}]}}"#;
    let mut ran = ran(
        &[
            Step::Says(1, "$query"),
            Step::Says(2, "on worker-of-some"),
            Step::Says(1, "\nmore"),
            Step::Says(2, "body-1\n"),
            Step::Says(255, "\u{1}"),
            Step::Says(3, failed),
            Step::Closes,
        ],
        60_000,
    )
    .await;
    let output = ran.output.unwrap();
    assert_eq!(
        output,
        "stdout=true&stderr=true&command=cat&command=a%20b&command=&command=%C3%BC%26x%3D1\nmore"
    );
    let errors = ran.errors.unwrap();
    assert!(errors.starts_with("on node-"), "{errors}");
    assert_eq!(ran.exit, Ok(Some(3)));

    let replay = ran.rig.replay();
    let execution = start(&replay, &command(&["cat", "a b", "", "ü&x=1"]), 60_000)
        .await
        .unwrap();
    assert_eq!(rest(&replay, &execution.output()).await.unwrap(), output);
    assert_eq!(rest(&replay, &execution.errors()).await.unwrap(), errors);
    assert_eq!(exit(&replay, &execution), Ok(Some(3)));
    assert_eq!(replay.finish_replay(), Ok(vec![]));
    let entries = ran.rig.entries();
    let exit = of(&entries, function::EXECUTION_EXIT)[0];
    assert_eq!((exit.facts.exit, exit.facts.live), (Some(3), true));
    assert_eq!(exit.facts.objects[0].uid, "u-1");
    let started = of(&entries, "pods.command.start")[0];
    assert_eq!(
        (started.facts.code, started.result),
        (Some(101), ReplyKind::Ok)
    );
}

#[tokio::test]
async fn the_other_protocol_and_success() {
    let ran = ran(
        &[
            Step::Chooses("v4.channel.k8s.io"),
            Step::Says(1, "ok\n"),
            SUCCESS,
        ],
        60_000,
    )
    .await;
    assert_eq!((ran.output.as_deref(), ran.exit), (Ok("ok\n"), Ok(Some(0))));
}

#[tokio::test]
async fn a_command_without_a_status_has_no_exit_code() {
    for steps in [
        &[Step::Says(1, "half\nof"), Step::Closes][..],
        &[Step::Says(1, "half\nof")],
    ] {
        let ran = ran(steps, 60_000).await;
        assert!(
            matches!(&ran.exit, Err(Failure::NoAnswer(_))),
            "{:?}",
            ran.exit
        );
        assert!(
            matches!(&ran.output, Err(Failure::NoAnswer(_))),
            "{:?}",
            ran.output
        );
        assert!(
            matches!(&ran.errors, Err(Failure::NoAnswer(_))),
            "{:?}",
            ran.errors
        );
    }
    for odd in [
        "{}",
        "no json",
        r#"{"status":"Failure","reason":"NonZeroExitCode"}"#,
        r#"{"status":"Failure","reason":"NonZeroExitCode","details":{"causes":[{"reason":"ExitCode","message":"-1"}]}}"#,
    ] {
        let ran = ran(&[Step::Says(3, odd)], 60_000).await;
        assert!(
            matches!(&ran.exit, Err(Failure::NoAnswer(_))),
            "{odd}: {:?}",
            ran.exit
        );
    }
}

#[tokio::test]
async fn what_cannot_be_started_is_the_runtimes_word() {
    let refused = r#"{"metadata":{},"status":"Failure","message":"exec: \"nothing\": executable file not found in $PATH","reason":"InternalError","code":500}"#;
    let ran = ran(&[Step::Says(3, refused)], 60_000).await;
    assert_eq!(ran.output.as_deref(), Ok(""));
    let Err(Failure::Answered {
        code: 500, message, ..
    }) = &ran.exit
    else {
        panic!("{:?}", ran.exit);
    };
    assert!(message.contains("not found"), "{message}");
}

#[tokio::test]
async fn the_deadline_ends_a_command() {
    let ran = ran(&[Step::Says(1, "first\nhalf"), Step::Hangs], 300).await;
    for broken in [
        ran.output.map(|_| ()),
        ran.errors.map(|_| ()),
        ran.exit.map(|_| ()),
    ] {
        assert!(
            matches!(&broken, Err(Failure::Other(text)) if text.starts_with("deadline: ")),
            "{broken:?}"
        );
    }
}

#[tokio::test]
async fn a_refused_upgrade_is_the_servers_word_and_a_strange_one_is_none() {
    let forbidden = r#"{"kind":"Status","code":403,"reason":"Forbidden","message":"no"}"#;
    for (step, wanted) in [
        (Step::Answers(403, forbidden), ReplyKind::Answered),
        (Step::Answers(500, "{}"), ReplyKind::Answered),
        (Step::Answers(200, "{}"), ReplyKind::NoAnswer),
        (Step::Chooses("v1.channel.k8s.io"), ReplyKind::NoAnswer),
    ] {
        let rig = Rig::before(PERMISSIONS, kubelet(&[step]));
        let got = start(&rig.door, &command(&["true"]), 60_000)
            .await
            .map(|_| ());
        assert_eq!(got.unwrap_err().kind(), wanted);
    }
}

#[tokio::test]
async fn a_pod_that_nothing_of_this_probe_owns_is_not_entered() {
    let stranger = tower::service_fn(|request: http::Request<Body>| async move {
        assert!(
            !request.uri().path().ends_with("/exec"),
            "the server was asked"
        );
        let mut pod = pod();
        pod["metadata"]["ownerReferences"] = json!([]);
        let body = Full::new(Bytes::from(pod.to_string())).map_err(|never| match never {});
        Ok::<_, std::io::Error>(http::Response::new(body.boxed_unsync()))
    });
    let rig = Rig::before(PERMISSIONS, kube::Client::new(stranger, "default"));
    let command = command(&["true"]);
    let got = tokio::time::timeout(Duration::from_secs(20), start(&rig.door, &command, 60_000));
    let text = refusal(got.await.unwrap());
    assert!(text.contains("not created by this probe"), "{text}");
}
