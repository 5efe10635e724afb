//! Watches against a scripted API server, through the whole door.

use super::*;
use crate::capability::testing::{Got, Reply as Scripted, Rig, SANDBOX, whole};
use crate::capability::wait;
use crate::recording::format::ReplyKind;
use std::sync::atomic::{AtomicU32, Ordering};

fn pods() -> Query {
    Query {
        namespace: Some(SANDBOX.to_owned()),
        keep: vec!["/status/phase".to_owned()],
        ..Query::new("v1", "pods")
    }
}

fn pod(name: &str, version: &str, phase: &str) -> Value {
    json!({"kind": "Pod", "metadata": {"name": name, "namespace": SANDBOX, "uid": format!("uid-{name}"),
        "resourceVersion": version}, "status": {"phase": phase, "podIP": "x"}})
}

fn list(items: &[Value], version: &str) -> Value {
    json!({"kind": "PodList", "metadata": {"resourceVersion": version}, "items": items})
}

fn stream(lines: &[Value]) -> Scripted {
    Scripted::Body(lines.iter().map(|line| format!("{line}\n")).collect())
}

fn event(kind: &str, object: Value) -> Value {
    json!({"type": kind, "object": object})
}

/// The next event, waited for as a guest would.
async fn next(door: &Door, watch: &Watch) -> (String, String) {
    loop {
        if let Some(event) = watch.next(door).unwrap() {
            return (event.kind, event.text);
        }
        wait::any(door, &[watch.source()], 60_000).await.unwrap();
    }
}

async fn expect(door: &Door, watch: &Watch, wanted: &[(&str, &str)]) {
    for (kind, part) in wanted {
        let (found, text) = next(door, watch).await;
        assert_eq!(found, *kind, "{text}");
        assert!(text.contains(part), "{kind}: {text}");
    }
}

fn resumes_at(got: &Got, version: &str) {
    let wanted = format!("&resourceVersion={version}&");
    assert!(
        got.uri.contains("watch=1") && got.uri.contains(&wanted),
        "{}",
        got.uri
    );
}

#[tokio::test]
async fn the_present_then_synced_then_changes_and_a_resumed_stream_is_no_gap() {
    let mut rig = Rig::new("list,watch pods");
    let door = rig.door.clone();
    let query = pods();
    let (watch, listed) = tokio::join!(
        open_watch(&door, &query),
        rig.answer(200, list(&[pod("a", "5", "Pending")], "10"))
    );
    let mut watch = watch.unwrap();
    assert!(listed.uri.ends_with("/pods?limit=500"), "{}", listed.uri);
    assert_eq!(listed.audit_id, "karat-abcdefgh-demo-1-1");
    let server = async {
        let first = [
            event("MODIFIED", pod("a", "11", "Running")),
            event(
                "BOOKMARK",
                json!({"kind": "Pod", "metadata": {"resourceVersion": "20"}}),
            ),
        ];
        resumes_at(&rig.answer(200, stream(&first)).await, "10");
        // The stream ends, breaks, is refused for a moment, and goes on where it was.
        resumes_at(&rig.answer(0, Scripted::Break).await, "20");
        resumes_at(&rig.answer(503, "busy").await, "20");
        let second = [event("DELETED", pod("a", "21", "Running"))];
        let got = rig.answer(200, stream(&second)).await;
        resumes_at(&got, "20");
        got
    };
    let reader = expect(
        &door,
        &watch,
        &[
            ("added", "Pending"),
            ("synced", "10"),
            ("modified", "Running"),
            ("deleted", "uid-a"),
        ],
    );
    let (last, ()) = tokio::join!(server, reader);
    assert_eq!(last.audit_id, "karat-abcdefgh-demo-1.5-1");
    watch.close(&door).unwrap();
    assert_eq!(watch.next(&door).unwrap(), None);
    rig.replay();
    let events: Vec<_> = rig
        .entries()
        .into_iter()
        .filter(|entry| !entry.facts.event.is_empty())
        .collect();
    assert_eq!(events.len(), 4);
    assert!(
        events
            .iter()
            .all(|entry| entry.facts.watch == Some(1) && entry.facts.live)
    );
    assert_eq!(events[2].facts.objects[0].phase, "Running");
}

#[tokio::test]
async fn an_expired_position_is_a_gap_and_the_present_follows() {
    let mut rig = Rig::new("list,watch pods");
    let door = rig.door.clone();
    let query = pods();
    let (watch, _) = tokio::join!(open_watch(&door, &query), rig.answer(200, list(&[], "10")));
    let watch = watch.unwrap();
    let server = async {
        let gone = [event(
            "ERROR",
            json!({"kind": "Status", "code": 410, "message": "too old"}),
        )];
        rig.answer(200, stream(&gone)).await;
        rig.answer(200, list(&[pod("b", "30", "Running")], "31"))
            .await;
        rig.answer(410, "{}").await;
        rig.answer(200, list(&[], "41")).await;
        let odd = [event(
            "ERROR",
            json!({"kind": "Status", "code": 500, "message": "etcd lost"}),
        )];
        rig.answer(200, stream(&odd)).await;
        rig.answer(200, list(&[], "51")).await;
    };
    let reader = expect(
        &door,
        &watch,
        &[
            ("synced", "10"),
            ("gap", "410"),
            ("added", "\"b\""),
            ("synced", "31"),
            ("gap", "410"),
            ("synced", "41"),
            ("gap", "etcd lost"),
            ("synced", "51"),
        ],
    );
    tokio::join!(server, reader);
    drop(watch);
    rig.replay();
    let gaps: Vec<_> = rig
        .entries()
        .into_iter()
        .filter(|entry| entry.facts.event == "gap")
        .collect();
    assert_eq!(gaps.len(), 3);
    assert!(
        gaps.iter()
            .all(|entry| !entry.facts.live && entry.facts.watch == Some(1))
    );
}

#[tokio::test]
async fn an_event_that_comes_twice_is_given_once_and_one_out_of_order_is_a_gap() {
    let mut rig = Rig::new("list,watch pods");
    let door = rig.door.clone();
    let query = pods();
    let (watch, _) = tokio::join!(open_watch(&door, &query), rig.answer(200, list(&[], "10")));
    let watch = watch.unwrap();
    let server = async {
        let a = event("ADDED", pod("a", "11", "Pending"));
        let b = event("ADDED", pod("b", "12", "Pending"));
        let late = event("MODIFIED", pod("a", "11", "Running"));
        let lines = [a.clone(), a, b, late];
        rig.answer(200, stream(&lines)).await;
        rig.answer(200, list(&[pod("c", "9", "Pending")], "13"))
            .await;
    };
    let reader = expect(
        &door,
        &watch,
        &[
            ("synced", "10"),
            ("added", "uid-a"),
            ("added", "uid-b"),
            ("gap", "out of order: resource version 11 after 12"),
            ("added", "uid-c"),
            ("synced", "13"),
        ],
    );
    tokio::join!(server, reader);
    drop(watch);
    rig.replay();
}

#[tokio::test]
async fn a_list_from_the_past_opens_no_watch() {
    let mut rig = Rig::new("list,watch pods");
    let door = rig.door.clone();
    let query = pods();
    let now = list(&[pod("a", "30", "Running")], "31");
    let (watch, _) = tokio::join!(open_watch(&door, &query), rig.answer(200, now));
    let watch = watch.unwrap();
    expect(&door, &watch, &[("added", "uid-a")]).await;
    let (past, _) = tokio::join!(open_watch(&door, &query), async {
        // The first watch has begun to follow.
        rig.answer(200, stream(&[])).await;
        rig.answer(200, list(&[], "20")).await
    });
    let Err(Failure::NoAnswer(text)) = past.map(|_| ()) else {
        panic!("a watch of the past");
    };
    assert!(text.contains("version 20, and 30 was seen"), "{text}");
}

#[tokio::test]
async fn a_watch_that_cannot_resume_says_so() {
    let mut rig = Rig::new("list,watch pods");
    let door = rig.door.clone();
    let query = pods();
    let (watch, _) = tokio::join!(open_watch(&door, &query), rig.answer(200, list(&[], "10")));
    let watch = watch.unwrap();
    let server = async {
        for _ in 0..13 {
            rig.answer(0, Scripted::Break).await;
        }
        rig.answer(200, list(&[], "12")).await;
        // In the end the server says no: an answer, not silence.
        rig.answer(403, r#"{"kind":"Status","reason":"Forbidden"}"#)
            .await;
    };
    let reader = expect(
        &door,
        &watch,
        &[("synced", "10"), ("gap", "resumed"), ("synced", "12")],
    );
    tokio::join!(server, reader);
    wait::any(&door, &[watch.source()], 60_000).await.unwrap();
    for _ in 0..2 {
        let got = watch.next(&door);
        assert!(
            matches!(got, Err(Failure::Answered { code: 403, .. })),
            "{got:?}"
        );
    }
}

#[tokio::test]
async fn what_may_not_be_watched_fails_at_once() {
    let mut rig = Rig::new("watch pods\nlist,watch events");
    let door = rig.door.clone();
    // A watch lists first, so both verbs are needed.
    let got = open_watch(&door, &pods()).await.err();
    assert!(
        matches!(got, Some(Failure::Refused(ref text)) if text.contains("list")),
        "{got:?}"
    );
    let events = Query {
        resource: "events".to_owned(),
        ..pods()
    };
    let body = r#"{"kind":"Status","reason":"Forbidden","message":"no"}"#;
    let (got, _) = tokio::join!(open_watch(&door, &events), rig.answer(403, body));
    assert!(matches!(
        got.err(),
        Some(Failure::Answered { code: 403, .. })
    ));
    // Refused ones take no number.
    assert_eq!(door.next_source(), 1);
}

#[tokio::test]
async fn too_many_watches_are_refused_cleanly() {
    let mut rig = Rig::new("list,watch pods");
    let door = rig.door.clone();
    let mut open = Vec::new();
    let query = pods();
    for at in 0..500 {
        let got = if at < WATCHES_MAX {
            // Requests of the running watches come in between; they wait unanswered.
            let (watch, ()) = tokio::join!(open_watch(&door, &query), async {
                loop {
                    let (request, send) = rig.server.next_request().await.unwrap();
                    if !request.uri().to_string().contains("watch=1") {
                        let body = list(&[], "1").to_string().into_bytes();
                        send.send_response(http::Response::new(whole(body)));
                        break;
                    }
                    std::mem::forget(send);
                }
            });
            watch
        } else {
            open_watch(&door, &query).await
        };
        match got {
            Ok(watch) => open.push(watch),
            Err(Failure::Budget(text)) => assert!(text.contains("32"), "{text}"),
            Err(other) => panic!("{other:?}"),
        }
    }
    assert_eq!(open.len(), WATCHES_MAX as usize);
    open.pop();
    let (again, ()) = tokio::join!(open_watch(&door, &query), async {
        loop {
            let (request, send) = rig.server.next_request().await.unwrap();
            if !request.uri().to_string().contains("watch=1") {
                send.send_response(http::Response::new(whole(list(&[], "1").to_string())));
                break;
            }
            std::mem::forget(send);
        }
    });
    assert!(again.is_ok());
}

#[tokio::test]
async fn a_guest_that_never_reads_stops_the_task_and_not_the_host() {
    let shared = Arc::new(Shared::new());
    let pushed = Arc::new(AtomicU32::new(0));
    let task = tokio::spawn({
        let (shared, pushed) = (Arc::clone(&shared), Arc::clone(&pushed));
        async move {
            for _ in 0..100 {
                shared.push(Queued::Item("x".repeat(QUEUE_MAX / 4))).await;
                pushed.fetch_add(1, Ordering::SeqCst);
            }
        }
    });
    // Four fit; the fifth waits for as long as nobody takes one.
    while pushed.load(Ordering::SeqCst) < 4 {
        tokio::task::yield_now().await;
    }
    for _ in 0..100 {
        tokio::task::yield_now().await;
    }
    assert_eq!(pushed.load(Ordering::SeqCst), 4);
    assert!(shared.lock().bytes <= QUEUE_MAX);
    for _ in 0..100 {
        while shared.lock().events.is_empty() {
            tokio::task::yield_now().await;
        }
        // The text is no JSON, so it is an error to the guest; it leaves the queue all the same.
        assert!(shared.take().is_err());
    }
    task.await.unwrap();
    assert_eq!(*shared.news.borrow(), News::None);
}

#[tokio::test]
async fn a_recorded_watch_plays_back_without_a_server() {
    let mut rig = Rig::new("list,watch pods");
    let door = rig.door.clone();
    let script = [pod("a", "5", "Running"), pod("b", "6", "Running")];
    let query = pods();
    let (watch, _) = tokio::join!(
        open_watch(&door, &query),
        rig.answer(200, list(&script, "10"))
    );
    let mut watch = watch.unwrap();
    expect(
        &door,
        &watch,
        &[("added", "uid-a"), ("added", "uid-b"), ("synced", "10")],
    )
    .await;
    watch.close(&door).unwrap();
    let door = rig.replay();
    let mut watch = open_watch(&door, &pods()).await.unwrap();
    expect(
        &door,
        &watch,
        &[("added", "uid-a"), ("added", "uid-b"), ("synced", "10")],
    )
    .await;
    watch.close(&door).unwrap();
    assert_eq!(door.finish_replay(), Ok(vec![]));
    let failed = |entry: &crate::recording::format::Entry| entry.result != ReplyKind::Ok;
    assert!(!rig.entries().iter().any(failed));
}

#[tokio::test]
async fn silence_is_proved_by_asking_anew_from_where_the_watch_stands() {
    let mut rig = Rig::new("list,watch pods");
    let door = rig.door.clone();
    let query = pods();
    let (watch, _) = tokio::join!(open_watch(&door, &query), rig.answer(200, list(&[], "10")));
    let watch = watch.unwrap();
    let sources = [watch.source()];
    let proved = |rig: &Rig| {
        let waits = rig.entries().into_iter();
        let waits = waits.filter(|entry| entry.function == function::WAIT_ANY);
        waits.map(|entry| entry.facts.proved).collect::<Vec<_>>()
    };
    expect(&door, &watch, &[("synced", "10")]).await;

    // The first stream hangs. The one that proves is short, and ends by the server's clock.
    let server = async {
        let hangs = rig.hold().await;
        resumes_at(&hangs, "10");
        assert!(hangs.uri.ends_with("timeoutSeconds=30"), "{}", hangs.uri);
        let proves = rig.hold().await;
        resumes_at(&proves, "10");
        assert!(proves.uri.ends_with("timeoutSeconds=1"), "{}", proves.uri);
        sleep(Duration::from_millis(900)).await;
        rig.release();
        rig.hold().await
    };
    let (got, follows) = tokio::join!(wait::any(&door, &sources, 1_000), server);
    assert!(got.unwrap().is_empty());
    assert!(
        follows.uri.ends_with("timeoutSeconds=30"),
        "{}",
        follows.uri
    );
    // Too short to prove anything.
    assert!(wait::any(&door, &sources, 100).await.unwrap().is_empty());

    // What the hanging stream missed comes with the proof.
    let missed = [event("ADDED", pod("late", "12", "Running"))];
    let server = async {
        let got = rig.answer(200, stream(&missed)).await;
        assert!(got.uri.ends_with("timeoutSeconds=1"), "{}", got.uri);
    };
    let (got, ()) = tokio::join!(wait::any(&door, &sources, 1_000), server);
    assert_eq!(got.unwrap(), [0]);
    assert_eq!(next(&door, &watch).await.0, "added");

    rig.replay();
    assert!(
        proved(&rig).ends_with(&[vec![1], vec![], vec![1]]),
        "{:?}",
        proved(&rig)
    );
}

#[tokio::test]
async fn a_server_that_cannot_prove_its_silence_leaves_a_gap() {
    let mut rig = Rig::new("list,watch pods");
    let door = rig.door.clone();
    let query = pods();
    let (watch, _) = tokio::join!(open_watch(&door, &query), rig.answer(200, list(&[], "10")));
    let watch = watch.unwrap();
    expect(&door, &watch, &[("synced", "10")]).await;
    let sources = [watch.source()];
    let server = async {
        rig.hold().await;
        // The one that proves hangs as well.
        rig.hold().await;
    };
    let (got, ()) = tokio::join!(wait::any(&door, &sources, 1_000), server);
    assert_eq!(got.unwrap(), [0]);
    assert_eq!(next(&door, &watch).await.0, "gap");
    rig.replay();
    let entries = rig.entries();
    let wait = entries
        .iter()
        .rfind(|entry| entry.function == function::WAIT_ANY);
    assert!(wait.is_some_and(|entry| entry.facts.proved.is_empty()));
}
