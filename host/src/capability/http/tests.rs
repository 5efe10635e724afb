//! Requests to workloads against a scripted API server.

use super::*;
use crate::capability::testing::{Got, RUN, Rig, SANDBOX, Sent, whole};
use crate::capability::wait;
use crate::journal::ObjectRef;
use bytes::Bytes;
use http::Response as HttpResponse;

const LINES: &str = "get,create services/proxy\nget pods/proxy";

/// A rig in whose sandbox the pod `echo` of this run stands behind the service `echo`.
fn rig(permissions: &str) -> Rig {
    with_pod(Rig::new(permissions))
}

fn with_pod(rig: Rig) -> Rig {
    let pod = ObjectRef {
        group: String::new(),
        version: "v1".to_owned(),
        resource: "pods".to_owned(),
        namespace: SANDBOX.to_owned(),
        name: format!("echo-{RUN}"),
    };
    let ledger = rig.journal.ledger();
    ledger.intend(&pod, "demo");
    ledger.created(&pod, "u1");
    rig
}

fn pod() -> Value {
    json!({"kind": "Pod", "metadata": {"name": format!("echo-{RUN}"), "namespace": SANDBOX, "uid": "u1"},
        "spec": {"nodeName": "node-1"}, "status": {"phase": "Running", "podIPs": [{"ip": "10.0.0.1"}]}})
}

/// Answers the lookups of a service whose endpoint has this address.
async fn lookups(rig: &mut Rig, address: &str) {
    let service = rig
        .answer(
            200,
            json!({"kind": "Service", "spec": {"selector": {"app": "echo"}}}),
        )
        .await;
    assert!(service.uri.ends_with("/services/echo"), "{}", service.uri);
    let slices = json!({"kind": "EndpointSliceList", "metadata": {}, "items": [{"endpoints": [
        {"addresses": [address], "targetRef": {"kind": "Pod", "namespace": SANDBOX, "name": "echo", "uid": "u1"}}]}]});
    let got = rig.answer(200, slices).await;
    assert!(got.uri.contains("service-name%3Decho"), "{}", got.uri);
    rig.answer(
        200,
        json!({"kind": "PodList", "metadata": {}, "items": [pod()]}),
    )
    .await;
}

fn service() -> String {
    format!("service:{SANDBOX}/echo:8080")
}

fn answer(code: u16, kind: &str, body: &str) -> HttpResponse<Sent> {
    HttpResponse::builder()
        .status(code)
        .header("content-type", kind)
        .header("x-one", "1")
        .header("set-cookie", "session=abcdefgh")
        .header("audit-id", "x")
        .body(whole(body.to_owned()))
        .unwrap()
}

/// Waits until the answer is over and gives all of its body.
async fn drain(door: &Door, response: &Response) -> Result<Vec<u8>, Failure> {
    let mut all = Vec::new();
    loop {
        match response.read(door, 1 << 20)? {
            None => return Ok(all),
            Some(bytes) if bytes.is_empty() => {
                let ready = wait::any(door, &[response.source()], 20_000).await?;
                assert_eq!(ready, [0], "nothing more arrives");
            }
            Some(bytes) => all.extend(bytes),
        }
    }
}

async fn status(door: &Door, response: &Response) -> Result<Option<u16>, Failure> {
    while response.status(door)?.is_none() {
        let ready = wait::any(door, &[response.source()], 20_000).await?;
        assert_eq!(ready, [0], "no answer");
    }
    response.status(door)
}

async fn exchange(rig: &mut Rig, request: &Request, answer: HttpResponse<Sent>) -> (Response, Got) {
    let door = rig.door.clone();
    let (sent, got) = tokio::join!(send(&door, request, 20_000), async {
        lookups(rig, "10.0.0.1").await;
        rig.respond(answer).await
    });
    (sent.unwrap(), got)
}

#[tokio::test]
async fn an_answer_is_recorded_and_replayed() {
    let mut rig = rig(LINES);
    let mut request = Request::new("POST", service(), "/v1/chat?x=a%20b");
    request
        .headers
        .push(("Content-Type".to_owned(), "text/plain".to_owned()));
    request.body = Some(b"hello".to_vec());
    let (mut response, got) =
        exchange(&mut rig, &request, answer(302, "text/plain", "one\ntwo")).await;
    assert_eq!(
        got.uri,
        format!("/api/v1/namespaces/{SANDBOX}/services/echo:8080/proxy/v1/chat?x=a%20b")
    );
    assert_eq!((got.method.as_str(), got.text.as_str()), ("POST", "hello"));
    assert_eq!(got.headers["accept-encoding"], "identity");
    assert!(
        got.audit_id.starts_with("karat-abcdefgh-demo-1.4-"),
        "{}",
        got.audit_id
    );

    let walk = async |door: &Door, response: &mut Response| {
        assert_eq!(
            status(door, response).await.unwrap(),
            Some(302),
            "redirects are not followed"
        );
        assert_eq!(
            response.header(door, "x-one").unwrap().as_deref(),
            Some("1")
        );
        for unseen in ["set-cookie", "audit-id", "none", "\n"] {
            assert_eq!(response.header(door, unseen).unwrap(), None);
        }
        assert_eq!(drain(door, response).await.unwrap(), b"one\ntwo");
        assert_eq!(response.arrivals(door).unwrap().len(), 1);
        assert_eq!(response.read(door, 10).unwrap(), None);
        response.close(door).unwrap();
    };
    let door = rig.door.clone();
    walk(&door, &mut response).await;

    let replay = rig.replay();
    let mut again = send(&replay, &request, 20_000).await.unwrap();
    walk(&replay, &mut again).await;
    assert_eq!(replay.finish_replay(), Ok(vec![]));
    let entries = rig.entries();
    assert!(
        !entries[0].facts.live && entries[0].access.is_some(),
        "a request is no answer"
    );
    let status = entries
        .iter()
        .find(|entry| entry.function == "http.response.status" && entry.facts.live)
        .unwrap();
    assert_eq!(status.facts.code, Some(302));
    assert_eq!(status.facts.objects[0].phase, "Running");
    assert!(status.facts.objects[0].ours);
}

#[tokio::test]
async fn the_words_of_the_api_server_are_not_those_of_the_workload() {
    let own = |code: u16, message: &str| {
        json!({"kind": "Status", "apiVersion": "v1", "metadata": {}, "status": "Failure", "code": code,
            "reason": "ServiceUnavailable", "message": message})
        .to_string()
    };
    for (code, kind, body, is_own) in [
        (
            503,
            "application/json",
            own(503, "no endpoints available for service \"echo\""),
            true,
        ),
        (
            503,
            "application/json",
            own(503, "error trying to reach service: dial tcp: refused"),
            true,
        ),
        (
            404,
            "application/json",
            own(404, "services \"echo\" not found"),
            true,
        ),
        (
            503,
            "application/json",
            "{\"error\":\"model is loading\"}".to_owned(),
            false,
        ),
        (503, "text/plain", own(503, "a workload that quotes"), false),
        (500, "application/json", own(503, "another code"), false),
        (404, "application/json", "not json".to_owned(), false),
        (404, "application/json", String::new(), false),
    ] {
        let mut rig = rig(LINES);
        let request = Request::new("GET", service(), "/health");
        let (response, _) = exchange(&mut rig, &request, answer(code, kind, &body)).await;
        let door = rig.door.clone();
        let said = status(&door, &response).await;
        if is_own {
            let Err(Failure::Answered {
                code: told,
                message,
                ..
            }) = said
            else {
                panic!("{body}: {said:?}");
            };
            assert_eq!(told, code);
            assert!(!message.is_empty());
        } else {
            assert_eq!(said, Ok(Some(code)), "{body}");
            assert_eq!(drain(&door, &response).await.unwrap(), body.as_bytes());
        }
    }
}

#[tokio::test]
async fn many_are_open_at_once_and_chunks_come_as_they_arrive() {
    let mut rig = rig(LINES);
    let door = rig.door.clone();
    let request = Request::new("GET", service(), "/events");
    let (first, slow) = tokio::join!(send(&door, &request, 20_000), async {
        lookups(&mut rig, "10.0.0.1").await;
        rig.arriving(HttpResponse::builder()).await
    });
    let (second, fast) = tokio::join!(send(&door, &request, 20_000), async {
        rig.arriving(HttpResponse::builder()).await
    });
    let (first, second) = (first.unwrap(), second.unwrap());
    for response in [&first, &second] {
        assert_eq!(status(&door, response).await.unwrap(), Some(200));
    }
    let sources = [first.source(), second.source()];
    assert!(wait::any(&door, &sources, 1).await.unwrap().is_empty());
    fast.unbounded_send(Ok(Bytes::from_static(b"data: 1\n")))
        .unwrap();
    assert_eq!(wait::any(&door, &sources, 20_000).await.unwrap(), [1]);
    assert_eq!(second.read(&door, 6).unwrap().unwrap(), b"data: ");
    assert_eq!(second.read(&door, 100).unwrap().unwrap(), b"1\n");
    assert_eq!(second.read(&door, 100).unwrap().unwrap(), b"");
    drop(fast);
    assert_eq!(wait::any(&door, &sources, 20_000).await.unwrap(), [1]);
    assert_eq!(second.read(&door, 100).unwrap(), None);
    slow.unbounded_send(Ok(Bytes::from_static(b"cut"))).unwrap();
    slow.unbounded_send(Err(std::io::Error::other("reset")))
        .unwrap();
    let broken = drain(&door, &first).await;
    let Err(Failure::NoAnswer(text)) = &broken else {
        panic!("{broken:?}");
    };
    assert!(text.contains("broke off after 3 bytes"), "{text}");
    assert_eq!(
        first.status(&door).unwrap(),
        Some(200),
        "what was said before stays said"
    );
    assert_eq!(first.arrivals(&door).unwrap().len(), 1);
}

#[tokio::test]
async fn what_breaks_is_no_answer_and_names_the_cause() {
    let packed = HttpResponse::builder()
        .header("content-encoding", "gzip")
        .body(whole("x"))
        .unwrap();
    let giant = HttpResponse::builder()
        .header("x-big", "a".repeat(70_000))
        .body(whole("x"))
        .unwrap();
    for (response, part) in [(packed, "packed"), (giant, "bytes of headers")] {
        let mut rig = rig(LINES);
        let request = Request::new("GET", service(), "/");
        let (response, _) = exchange(&mut rig, &request, response).await;
        let door = rig.door.clone();
        let said = status(&door, &response).await;
        let Err(Failure::NoAnswer(text)) = &said else {
            panic!("{said:?}");
        };
        assert!(text.contains(part), "{text}");
    }
    // One that says nothing is given up when its time is over.
    let mut rig = rig(LINES);
    let door = rig.door.clone();
    let request = Request::new("GET", service(), "/");
    let (response, _held) = tokio::join!(send(&door, &request, 30), async {
        lookups(&mut rig, "10.0.0.1").await;
        rig.server.next_request().await
    });
    let said = status(&door, &response.unwrap()).await;
    assert!(
        matches!(&said, Err(Failure::NoAnswer(text)) if text.contains("within 30 ms")),
        "{said:?}"
    );
}

#[tokio::test]
async fn secrets_and_names_of_others_do_not_arrive() {
    let mut rig = rig(LINES);
    let real = "worker-node-of-somebody";
    let pseudonym = rig.redactor.learn(crate::redact::Class::Node, real);
    let mut request = Request::new(
        "GET",
        service(),
        format!("/on/{pseudonym}?node={pseudonym}"),
    );
    request
        .headers
        .push(("x-node".to_owned(), pseudonym.clone()));
    request.body = Some(pseudonym.clone().into_bytes());
    let body = format!("{{\"node\":\"{real}\",\"password\":\"hunter2hunter2\"}}");
    let (response, got) =
        exchange(&mut rig, &request, answer(200, "application/json", &body)).await;
    assert!(
        got.uri.ends_with(&format!("/on/{real}?node={real}")),
        "{}",
        got.uri
    );
    assert_eq!(got.headers["x-node"], real);
    assert_eq!(got.text, real);
    let door = rig.door.clone();
    let seen = String::from_utf8(drain(&door, &response).await.unwrap()).unwrap();
    assert!(seen.contains(&pseudonym) && !seen.contains(real), "{seen}");
    assert!(!seen.contains("hunter2"), "{seen}");
}

#[tokio::test]
async fn a_target_must_be_ours_or_named() {
    // An endpoint that is not where its pod is.
    let mut rig = rig(LINES);
    let door = rig.door.clone();
    let request = Request::new("GET", service(), "/");
    let (sent, ()) = tokio::join!(
        send(&door, &request, 1000),
        lookups(&mut rig, "169.254.169.254")
    );
    let Err(Failure::Refused(text)) = sent.map(|_| ()) else {
        panic!("was sent");
    };
    assert!(
        text.contains("guard `proxy`") && text.contains("address"),
        "{text}"
    );
    // A service without a selector, and one that is a name elsewhere.
    for spec in [
        json!({}),
        json!({"type": "ExternalName", "selector": {"a": "b"}}),
    ] {
        let (sent, _) = tokio::join!(
            send(&door, &request, 1000),
            rig.answer(200, json!({"kind": "Service", "spec": spec}))
        );
        assert!(matches!(sent.map(|_| ()), Err(Failure::Refused(_))));
    }
    // A pod of somebody else in our namespace, and a service that is not there.
    let mut stranger = pod();
    stranger["metadata"]["uid"] = json!("u2");
    let at_pod = Request::new("GET", format!("pod:{SANDBOX}/echo:80"), "/");
    let (sent, _) = tokio::join!(send(&door, &at_pod, 1000), rig.answer(200, stranger));
    assert!(matches!(sent.map(|_| ()), Err(Failure::Refused(_))));
    let gone = json!({"kind": "Status", "code": 404, "reason": "NotFound"});
    let (sent, _) = tokio::join!(send(&door, &at_pod, 1000), rig.answer(404, gone));
    assert!(matches!(
        sent.map(|_| ()),
        Err(Failure::Answered { code: 404, .. })
    ));
    // Somebody else's namespace, although the line says cluster.
    let wide = Rig::new("get services/proxy cluster");
    let foreign = Request::new("GET", "service:monitoring/prometheus:9090", "/metrics");
    let Err(Failure::Refused(text)) = send(&wide.door, &foreign, 1000).await.map(|_| ()) else {
        panic!("was sent");
    };
    assert!(
        text.contains("guard `proxy`") && text.contains("names with port"),
        "{text}"
    );
    // Named, it is reached without lookups, and only below its path.
    let mut named = Rig::new("get services/proxy monitoring prometheus:9090 /metrics");
    let door = named.door.clone();
    let (sent, got) = tokio::join!(
        send(&door, &foreign, 1000),
        named.respond(answer(200, "text/plain", "a 1\n"))
    );
    assert!(
        got.uri.ends_with("/services/prometheus:9090/proxy/metrics"),
        "{}",
        got.uri
    );
    assert_eq!(status(&door, &sent.unwrap()).await, Ok(Some(200)));
    for (target, path) in [
        ("service:monitoring/prometheus:9090", "/api/v1/admin"),
        ("service:monitoring/prometheus:9090", "/metricsx"),
        ("service:monitoring/prometheus:9091", "/metrics"),
        ("service:monitoring/https:prometheus:9090", "/metrics"),
        ("service:monitoring/other:9090", "/metrics"),
        ("pod:monitoring/prometheus:9090", "/metrics"),
        ("service:default/prometheus:9090", "/metrics"),
    ] {
        let sent = send(&door, &Request::new("GET", target, path), 1000)
            .await
            .map(|_| ());
        assert!(
            matches!(sent, Err(Failure::Refused(_))),
            "{target} {path}: {sent:?}"
        );
    }
    let sent = send(
        &door,
        &Request::new("POST", "service:monitoring/prometheus:9090", "/metrics"),
        1,
    )
    .await;
    assert!(
        matches!(sent.map(|_| ()), Err(Failure::Refused(_))),
        "another method"
    );
    let mut posts = Rig::new("create services/proxy gateway llm:80 /v1");
    let door = posts.door.clone();
    let post = Request::new("POST", "service:gateway/llm:80", "/v1/chat");
    let (sent, got) = tokio::join!(
        send(&door, &post, 1000),
        posts.respond(answer(200, "text/plain", "ok"))
    );
    assert_eq!(got.method, "POST");
    assert_eq!(status(&door, &sent.unwrap()).await, Ok(Some(200)));
}

#[tokio::test]
async fn what_makes_no_sense_is_refused_before_anything_is_asked() {
    let rig = rig(LINES);
    let plain = || Request::new("GET", service(), "/");
    let header = |name: &str, value: &str| Request {
        headers: vec![(name.to_owned(), value.to_owned())],
        ..plain()
    };
    let malformed = [
        Request::new("TRACE", service(), "/"),
        Request::new("CONNECT", service(), "/"),
        Request::new("GET ", service(), "/"),
        Request::new("get", service(), "/"),
        Request::new("GET", service(), "/a/../b"),
        Request::new("GET", service(), "/a\r\nHost: x"),
        Request::new("GET", "service:x", "/"),
        header("x-a", "b\r\nHost: x"),
        header("x-a", "ä"),
        header("x-a", &"a".repeat(5000)),
        header("x a", "b"),
        header("", "b"),
        header(":path", "/"),
        Request {
            headers: vec![("x-a".to_owned(), "b".to_owned()); 33],
            ..plain()
        },
        Request {
            body: Some(vec![b'a'; REQUEST_BODY_MAX + 1]),
            ..plain()
        },
    ];
    for request in malformed {
        let sent = send(&rig.door, &request, 1000).await.map(|_| ());
        assert!(matches!(sent, Err(Failure::Malformed(_))), "{sent:?}");
    }
    let refused = [
        "Authorization",
        "HOST",
        "Impersonate-User",
        "impersonate-extra-x",
        "X-Remote-User",
        "Audit-ID",
        "Transfer-Encoding",
        "Connection",
        "Upgrade",
        "Content-Length",
        "Proxy-Authorization",
        "Cookie",
        "X-Forwarded-For",
        "Sec-WebSocket-Protocol",
    ];
    for name in refused {
        let sent = send(&rig.door, &header(name, "x"), 1000).await.map(|_| ());
        assert!(matches!(sent, Err(Failure::Refused(_))), "{name}: {sent:?}");
    }
    let authorised = Request {
        authorise: Some("secret:token".to_owned()),
        ..plain()
    };
    let sent = send(&rig.door, &authorised, 1000).await.map(|_| ());
    assert!(
        matches!(&sent, Err(Failure::Refused(text)) if text.contains("removes `Authorization`"))
    );
    assert_eq!(rig.door.usage(0).requests, 0, "nobody was asked");
}

#[tokio::test]
async fn limits_are_named() {
    let mut rig = with_pod(Rig::with_limits(LINES, |limits| limits.seen_bytes = 100));
    let request = Request::new("GET", service(), "/");
    let (mut response, _) = exchange(
        &mut rig,
        &request,
        answer(200, "text/plain", &"a".repeat(200)),
    )
    .await;
    let door = rig.door.clone();
    status(&door, &response).await.unwrap();
    let read = response.read(&door, 0);
    assert!(matches!(read, Err(Failure::Malformed(_))));
    wait::any(&door, &[response.source()], 20_000)
        .await
        .unwrap();
    let read = response.read(&door, 200);
    assert!(
        matches!(&read, Err(Failure::Budget(text)) if text.contains("`seen`")),
        "{read:?}"
    );
    response.close(&door).unwrap();

    // A named target needs no lookups; the sixty-fifth response is one too many.
    let rig = Rig::new("get services/proxy monitoring prometheus:9090 /metrics");
    let request = Request::new("GET", "service:monitoring/prometheus:9090", "/metrics");
    let mut open = Vec::new();
    for _ in 0..RESPONSES_MAX {
        open.push(send(&rig.door, &request, 60_000).await.unwrap());
    }
    let sent = send(&rig.door, &request, 60_000).await.map(|_| ());
    assert!(
        matches!(&sent, Err(Failure::Budget(text)) if text.contains("64 responses")),
        "{sent:?}"
    );
    open.pop();
    assert!(
        send(&rig.door, &request, 60_000).await.is_ok(),
        "one was dropped"
    );
}
