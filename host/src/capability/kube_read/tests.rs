//! Reads against a scripted API server, through the whole door.

use super::*;
use crate::capability::snapshot::open_snapshot;
use crate::capability::testing::{Reply as Scripted, Rig, SANDBOX};
use serde_json::json;

fn pods() -> Query {
    Query {
        namespace: Some(SANDBOX.to_owned()),
        ..Query::new("v1", "pods")
    }
}

fn pod(name: &str, version: &str) -> Value {
    json!({"metadata": {"name": name, "namespace": SANDBOX, "uid": format!("uid-{name}"), "resourceVersion": version,
        "managedFields": [{"manager": "x"}],
        "annotations": {"kubectl.kubernetes.io/last-applied-configuration": "{\"secret\":1}"}},
        "spec": {"nodeName": "", "containers": [{"name": "c", "image": "i"}]}, "status": {"phase": "Running"}})
}

fn list(items: &[Value], next: &str) -> Value {
    json!({"kind": "PodList", "apiVersion": "v1", "metadata": {"resourceVersion": "42", "continue": next}, "items": items})
}

#[tokio::test]
async fn an_object_arrives_stripped_projected_and_with_facts_of_the_whole() {
    let mut rig = Rig::new("get,list pods");
    let query = Query {
        keep: vec!["/spec/containers/*/image".to_owned()],
        ..pods()
    };
    let door = rig.door.clone();
    let mut body = pod("a", "7");
    body["kind"] = json!("Pod");
    body["apiVersion"] = json!("v1");
    let (got, request) = tokio::join!(get(&door, &query, "a"), rig.answer(200, body));
    let got: Value = serde_json::from_str(&got.unwrap()).unwrap();
    assert_eq!(
        got,
        json!({"apiVersion": "v1", "kind": "Pod",
            "metadata": {"name": "a", "namespace": SANDBOX, "uid": "uid-a", "resourceVersion": "7"},
            "spec": {"containers": [{"image": "i"}]}})
    );
    assert_eq!(request.uri, format!("/api/v1/namespaces/{SANDBOX}/pods/a"));
    assert_eq!(request.audit_id, "karat-abcdefgh-demo-1-1");
    let replay = rig.replay();
    let again = get(&replay, &query, "a").await.unwrap();
    assert_eq!(serde_json::from_str::<Value>(&again).unwrap(), got);
    assert_eq!(replay.finish_replay(), Ok(vec![]));
    let entry = &rig.entries()[0];
    assert!(entry.facts.live);
    assert_eq!(entry.facts.objects[0].phase, "Running");
    assert_eq!(entry.tries, 1);
}

#[tokio::test]
async fn lists_go_page_by_page_and_each_page_is_a_call() {
    let mut rig = Rig::new("list pods");
    let door = rig.door.clone();
    let query = Query {
        labels: "app in (a,b)".to_owned(),
        keep: vec!["/status/phase".to_owned()],
        ..pods()
    };
    let mut cursor = open_list(&door, &query).unwrap();
    assert_eq!(cursor.position(), "");
    let page = list(&[pod("a", "1"), pod("b", "2")], "tok/en");
    let (first, request) = tokio::join!(cursor.next(&door), rig.answer(200, page));
    let first = first.unwrap().unwrap();
    assert_eq!(first.len(), 2);
    assert!(first[0].contains(r#""kind":"Pod""#) && first[0].contains(r#""apiVersion":"v1""#));
    assert!(!first[0].contains("managedFields") && !first[0].contains("last-applied"));
    assert!(
        request
            .uri
            .ends_with("/pods?labelSelector=app%20in%20%28a%2Cb%29&limit=500"),
        "{}",
        request.uri
    );
    assert_eq!(cursor.position(), "42");
    let (second, request) = tokio::join!(
        cursor.next(&door),
        rig.answer(200, list(&[pod("c", "3")], ""))
    );
    assert_eq!(second.unwrap().unwrap().len(), 1);
    assert!(
        request.uri.ends_with("&continue=tok%2Fen"),
        "{}",
        request.uri
    );
    assert_eq!(cursor.next(&door).await.unwrap(), None);
    assert_eq!(cursor.next(&door).await.unwrap(), None);

    let replay = rig.replay();
    let mut cursor = open_list(&replay, &query).unwrap();
    assert_eq!(cursor.next(&replay).await.unwrap().unwrap(), first);
    assert_eq!(cursor.next(&replay).await.unwrap().unwrap().len(), 1);
    assert_eq!(cursor.next(&replay).await.unwrap(), None);
    assert_eq!(cursor.next(&replay).await.unwrap(), None);
    assert_eq!(replay.finish_replay(), Ok(vec![]));
    let live: Vec<bool> = rig.entries().iter().map(|entry| entry.facts.live).collect();
    assert_eq!(live, [false, true, true, false, false]);
    assert_eq!(rig.entries()[1].facts.objects[1].name, "b");
}

#[tokio::test]
async fn a_forgotten_list_is_expired_and_an_empty_one_is_a_page() {
    let mut rig = Rig::new("list pods");
    let door = rig.door.clone();
    let mut cursor = open_list(&door, &pods()).unwrap();
    let (_, _) = tokio::join!(
        cursor.next(&door),
        rig.answer(200, list(&[pod("a", "1")], "t"))
    );
    let gone = r#"{"kind":"Status","code":410,"reason":"Expired","message":"too old"}"#;
    let (got, _) = tokio::join!(cursor.next(&door), rig.answer(410, gone));
    assert_eq!(got, Err(Failure::Expired));

    let mut empty = open_list(&door, &pods()).unwrap();
    let body = json!({"kind": "PodList", "metadata": {"resourceVersion": "43"}, "items": null});
    let (got, _) = tokio::join!(empty.next(&door), rig.answer(200, body));
    assert_eq!(got.unwrap().unwrap(), Vec::<String>::new());
    assert_eq!(empty.next(&door).await.unwrap(), None);
}

#[tokio::test]
async fn an_answer_older_than_one_before_is_none() {
    let mut rig = Rig::new("get,list pods");
    let door = rig.door.clone();
    let query = pods();
    let (got, _) = tokio::join!(get(&door, &query, "a"), rig.answer(200, pod("a", "50")));
    assert!(got.is_ok());
    // The same object as it was, then a list from before it, then both as they should be.
    let (got, _) = tokio::join!(get(&door, &query, "a"), rig.answer(200, pod("a", "49")));
    assert!(matches!(got, Err(Failure::NoAnswer(ref text)) if text.contains("50 was seen before")));
    let mut cursor = open_list(&door, &query).unwrap();
    let (got, _) = tokio::join!(cursor.next(&door), rig.answer(200, list(&[], "")));
    assert!(matches!(got, Err(Failure::NoAnswer(ref text)) if text.contains("version 42")));
    let (got, _) = tokio::join!(get(&door, &query, "a"), rig.answer(200, pod("a", "50")));
    assert!(got.is_ok());
    let (got, _) = tokio::join!(get(&door, &query, "b"), rig.answer(200, pod("b", "7")));
    assert!(got.is_ok());
    rig.replay();
}

#[tokio::test]
async fn errors_keep_who_said_what() {
    let mut rig = Rig::new("get pods");
    let door = rig.door.clone();
    let query = pods();
    let body =
        r#"{"kind":"Status","code":404,"reason":"NotFound","message":"pods \"a\" not found"}"#;
    let (got, _) = tokio::join!(get(&door, &query, "a"), rig.answer(404, body));
    let Err(Failure::Answered {
        code,
        reason,
        message,
        body,
    }) = got
    else {
        panic!("{got:?}");
    };
    assert_eq!((code, reason.as_str()), (404, "NotFound"));
    assert!(message.contains("not found") && body.contains("NotFound"));

    // A proxy in between speaks no Status.
    let (got, _) = tokio::join!(
        get(&door, &query, "a"),
        rig.answer(418, "<html>teapot</html>")
    );
    assert!(
        matches!(got, Err(Failure::Answered { code: 418, ref reason, .. }) if reason.is_empty())
    );

    let server = async {
        for _ in 0..4 {
            rig.answer(0, Scripted::Break).await;
        }
    };
    let (got, ()) = tokio::join!(get(&door, &query, "a"), server);
    assert!(matches!(got, Err(Failure::NoAnswer(_))), "{got:?}");
    // Nor does a success without an object come from an API server; it is asked again like one that did not answer.
    let server = async {
        for body in ["", "no json", "{\"kind\": \"Po", "<html></html>"] {
            rig.answer(200, body).await;
        }
    };
    let (got, ()) = tokio::join!(get(&door, &query, "a"), server);
    assert!(matches!(got, Err(Failure::NoAnswer(_))), "{got:?}");
    rig.replay();
    let entries = rig.entries();
    assert_eq!(
        (entries[0].facts.code, entries[0].facts.live),
        (Some(404), true)
    );
    assert_eq!((entries[2].facts.live, entries[2].tries), (false, 4));
}

#[tokio::test]
async fn nothing_reaches_the_server_without_permission_or_sense() {
    let mut rig = Rig::new("get pods");
    let door = rig.door.clone();
    let refused = |result: Result<String, Failure>| match result {
        Err(Failure::Refused(text)) => text,
        other => panic!("{other:?}"),
    };
    let text = refused(get(&door, &Query::new("v1", "nodes"), "n").await);
    assert!(text.contains("probe.toml"), "{text}");
    assert!(matches!(
        open_list(&door, &pods()),
        Err(Failure::Refused(_))
    ));
    let foreign = Query {
        namespace: Some("kube-system".to_owned()),
        ..pods()
    };
    refused(get(&door, &foreign, "a").await);
    for name in ["../../../secrets/x", "a%2fb", "", &"x".repeat(300)] {
        let got = get(&door, &pods(), name).await;
        assert!(matches!(got, Err(Failure::Malformed(_))), "{name}");
    }
    for (resource, namespace) in [
        ("pods/../secrets", SANDBOX),
        ("pods", "a/../b"),
        ("pods", ""),
    ] {
        let query = Query {
            namespace: Some(namespace.to_owned()),
            ..Query::new("v1", resource)
        };
        assert!(matches!(
            get(&door, &query, "a").await,
            Err(Failure::Malformed(_))
        ));
        assert!(matches!(
            open_list(&door, &query),
            Err(Failure::Malformed(_))
        ));
    }
    let log = Query {
        resource: "pods/log".to_owned(),
        ..pods()
    };
    assert!(refused(get(&door, &log, "a").await).contains("`pods`"));
    assert!(matches!(open_list(&door, &log), Err(Failure::Malformed(_))));
    assert_eq!(door.usage(0).requests, 0);
    rig.replay();
    // Refusals are part of the conversation.
    assert_eq!(rig.entries().len(), 15);
    assert!(rig.entries().iter().all(|entry| !entry.facts.live));
}

#[tokio::test]
async fn what_does_not_fit_ends_in_a_budget_that_is_named() {
    let mut rig = Rig::with_limits("get,list pods", |limits| limits.seen_bytes = 300);
    let door = rig.door.clone();
    let query = pods();
    let mut cursor = open_list(&door, &query).unwrap();
    let page = list(&[pod("a", "1"), pod("b", "1"), pod("c", "1")], "");
    let (got, _) = tokio::join!(cursor.next(&door), rig.answer(200, page));
    let Err(Failure::Budget(text)) = got else {
        panic!("{got:?}");
    };
    assert!(
        text.contains("`seen`") && text.contains("probe.toml"),
        "{text}"
    );
    assert!(door.budget_hit().unwrap().contains("`seen`"));
    // A smaller answer still fits.
    let small = json!({"kind": "Pod", "metadata": {"name": "a"}});
    let (got, _) = tokio::join!(get(&door, &query, "a"), rig.answer(200, small));
    assert!(got.is_ok(), "{got:?}");
}

#[tokio::test]
async fn a_guest_that_ignores_its_budget_of_calls_is_ended_and_so_is_its_replay() {
    let mut rig = Rig::with_limits("get pods", |limits| limits.calls = 2);
    let mut ends = Vec::new();
    let live = rig.door.clone();
    for round in 0..2 {
        let door = if round == 0 {
            live.clone()
        } else {
            rig.replay()
        };
        let mut made = 0;
        while door.ended().is_none() {
            let got = get(&door, &pods(), "..").await;
            made += 1;
            match got {
                Err(Failure::Malformed(_)) => assert!(made <= 2),
                Err(Failure::Budget(text)) => assert!(text.contains("`calls`"), "{text}"),
                other => panic!("{other:?}"),
            }
        }
        ends.push((made, door.ended()));
    }
    assert!(ends[0].0 < 100, "{ends:?}");
    assert_eq!(ends[0], ends[1]);
}

#[tokio::test]
async fn large_arguments_are_refused_and_recorded_by_digest() {
    let mut rig = Rig::new("get pods");
    let door = rig.door.clone();
    let query = Query {
        labels: "\u{1}".repeat(400_000),
        ..pods()
    };
    // 400,000 control characters are 2.4 MB of JSON.
    let Err(Failure::Malformed(text)) = get(&door, &query, "a").await else {
        panic!("taken");
    };
    assert!(text.contains("1048576"), "{text}");
    let replay = rig.replay();
    assert!(get(&replay, &query, "a").await.is_err());
    assert_eq!(replay.finish_replay(), Ok(vec![]));
    assert!(rig.entries()[0].arguments["sha256"].is_string());
}

#[tokio::test]
async fn stopping_is_answered_at_once() {
    let rig = Rig::new("get pods");
    let door = rig.door.clone();
    // The request is under way when the run stops; the script never answers.
    let (query, stop) = (pods(), rig.stop.clone());
    let (got, ()) = tokio::join!(get(&door, &query, "a"), async { stop.stop() });
    assert_eq!(got, Err(Failure::Stopping));
    assert!(matches!(
        open_list(&door, &query),
        Err(Failure::Stopping) | Err(Failure::Refused(_))
    ));
}

#[tokio::test]
async fn raw_paths_answer_whatever_they_answer() {
    let mut rig = Rig::new("get /readyz");
    let door = rig.door.clone();
    let (got, request) = tokio::join!(raw(&door, "/readyz"), rig.answer(403, "not ok"));
    assert_eq!(
        got.unwrap(),
        RawAnswer {
            code: 403,
            content_type: "application/json".to_owned(),
            body: "not ok".to_owned()
        }
    );
    assert_eq!(request.uri, "/readyz");
    assert!(matches!(
        raw(&door, "/metrics").await,
        Err(Failure::Refused(_))
    ));
    for path in ["/readyz?verbose", "/readyz/../metrics", "/api/v1/secrets"] {
        assert!(
            matches!(raw(&door, path).await, Err(Failure::Malformed(_))),
            "{path}"
        );
    }
    let long = "x".repeat((1 << 20) + 1);
    let (got, _) = tokio::join!(raw(&door, "/readyz"), rig.answer(200, long.as_str()));
    assert!(matches!(got, Err(Failure::Budget(_))), "{got:?}");
}

#[tokio::test]
async fn discovery_uses_two_documents_and_names_what_is_stale() {
    let mut rig = Rig::new("");
    let door = rig.door.clone();
    let core = json!({"kind": "APIGroupDiscoveryList", "items": [{"metadata": {}, "versions": [{"version": "v1", "freshness": "Current",
        "resources": [{"resource": "pods", "responseKind": {"kind": "Pod"}, "scope": "Namespaced", "verbs": ["get"],
            "subresources": [{"subresource": "log", "verbs": ["get"]}]}]}]}]});
    let named = json!({"kind": "APIGroupDiscoveryList", "items": [{"metadata": {"name": "metrics.k8s.io"},
        "versions": [{"version": "v1beta1", "freshness": "Stale"}]}]});
    let server = async {
        rig.answer(200, json!({"gitVersion": "v1.37.0"})).await;
        rig.answer(200, core).await;
        rig.answer(200, named).await
    };
    let (got, last) = tokio::join!(discover(&door), server);
    let got: Value = serde_json::from_str(&got.unwrap()).unwrap();
    assert_eq!(got["version"]["gitVersion"], "v1.37.0");
    assert_eq!(
        got["groups"][0],
        json!({"group": "", "versions": [{"version": "v1", "preferred": true, "resources": [
            {"name": "pods", "kind": "Pod", "namespaced": true, "verbs": ["get"], "subresources": ["log"]}]}]})
    );
    assert_eq!(got["groups"][1]["versions"][0]["stale"], true);
    assert_eq!(
        (last.uri.as_str(), last.audit_id.as_str()),
        ("/apis", "karat-abcdefgh-demo-1.3-1")
    );
}

#[tokio::test]
async fn discovery_of_an_old_server_goes_group_by_group() {
    let mut rig = Rig::new("");
    let door = rig.door.clone();
    let server = async {
        rig.answer(200, json!({})).await;
        rig.answer(200, json!({"kind": "APIVersions", "versions": ["v1"]}))
            .await;
        rig.answer(200, json!({"resources": [{"name": "pods", "kind": "Pod", "namespaced": true, "verbs": ["get"]}, {"name": "pods/log"}]})).await;
        let groups = json!([{"name": "a.example", "versions": [{"version": "v2"}, {"version": "v1"}], "preferredVersion": {"version": "v1"}}]);
        rig.answer(200, json!({"kind": "APIGroupList", "groups": groups}))
            .await;
        rig.answer(404, json!({"kind": "Status", "reason": "NotFound"}))
            .await;
        rig.answer(200, json!({"resources": []})).await;
    };
    let (got, ()) = tokio::join!(discover(&door), server);
    let got: Value = serde_json::from_str(&got.unwrap()).unwrap();
    assert_eq!(
        got["groups"][0]["versions"][0]["resources"][0]["subresources"],
        json!(["log"])
    );
    let versions = &got["groups"][1]["versions"];
    assert_eq!(
        (&versions[0]["stale"], &versions[0]["error"]),
        (&json!(true), &json!("404 NotFound"))
    );
    assert_eq!(
        (&versions[0]["preferred"], &versions[1]["preferred"]),
        (&json!(false), &json!(true))
    );
}

#[tokio::test]
async fn a_snapshot_is_listed_once_reduced_for_each_and_never_live() {
    let mut rig = Rig::with_snapshots(
        "list pods cluster",
        &[("pods", &["/status/phase", "/spec/nodeName"])],
    );
    let door = rig.door.clone();
    let query = Query {
        keep: vec!["/status/phase".to_owned()],
        ..Query::new("v1", "pods")
    };
    let server = async {
        let first = rig.answer(200, list(&[pod("a", "1")], "t")).await;
        rig.answer(410, json!({"kind": "Status"})).await;
        rig.answer(200, list(&[pod("a", "1"), pod("b", "1")], ""))
            .await;
        first
    };
    let (cursor, request) = tokio::join!(open_snapshot(&door, &query), server);
    assert_eq!(request.audit_id, "karat-abcdefgh-snapshot-1");
    let mut cursor = cursor.unwrap();
    let page = cursor.next(&door).await.unwrap().unwrap();
    assert_eq!(page.len(), 2);
    assert!(
        page[0].contains("Running") && !page[0].contains("nodeName"),
        "{}",
        page[0]
    );
    assert_eq!(cursor.position(), "42");
    assert_eq!(cursor.next(&door).await.unwrap(), None);
    // A second reader asks nobody, and whole declared objects are what a query without paths gets.
    let mut again = open_snapshot(&door, &Query::new("v1", "pods"))
        .await
        .unwrap();
    let page = again.next(&door).await.unwrap().unwrap();
    assert!(
        page[0].contains("nodeName") && !page[0].contains("image"),
        "{}",
        page[0]
    );
    let elsewhere = Query {
        namespace: Some("kube-system".to_owned()),
        ..query.clone()
    };
    let mut elsewhere = open_snapshot(&door, &elsewhere).await.unwrap();
    assert!(elsewhere.next(&door).await.unwrap().unwrap().is_empty());
    let more = Query {
        keep: vec!["/spec/containers".to_owned()],
        ..query.clone()
    };
    let Err(Failure::Refused(text)) = open_snapshot(&door, &more).await else {
        panic!("given");
    };
    assert!(text.contains("[[snapshots]]"), "{text}");
    rig.replay();
    assert!(rig.entries().iter().all(|entry| !entry.facts.live));
    assert_eq!(rig.entries()[1].facts.objects.len(), 2);
}

/// The adapters of the contract run these on fibres that may move between threads.
#[test]
fn futures_may_change_threads() {
    fn is_send(_: impl Send) {}
    fn all(door: &Door, query: &Query, cursor: &mut Cursor) {
        is_send(get(door, query, ""));
        is_send(cursor.next(door));
        is_send(discover(door));
        is_send(raw(door, ""));
        is_send(open_snapshot(door, query));
        is_send(crate::capability::watch::open_watch(door, query));
        is_send(crate::capability::wait::any(door, &[], 0));
        let target = crate::capability::kube_write::Target::default();
        is_send(crate::capability::kube_write::create(door, &target, ""));
        is_send(crate::capability::kube_write::delete(
            door, &target, "", None,
        ));
        is_send(crate::capability::kube_write::patch(
            door, &target, "", "", "",
        ));
        is_send(crate::capability::kube_write::replace(
            door, &target, "", "",
        ));
        is_send(crate::capability::kube_write::delete_collection(
            door, &target, "",
        ));
    }
    let _ = all;
}
