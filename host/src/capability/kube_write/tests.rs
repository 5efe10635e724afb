//! Writes against a scripted API server, through the whole door.

use super::*;
use crate::capability::testing::{Got, Reply as Scripted, Rig, SANDBOX, whole};

const PERMISSIONS: &str = "create,update,patch,delete,deletecollection,list,get configmaps
    create,delete,get deviceclasses.resource.k8s.io cluster
    create pods/eviction";

fn maps() -> Target {
    Target {
        namespace: Some(SANDBOX.to_owned()),
        ..Target::new("v1", "configmaps")
    }
}

fn map(name: &str) -> Value {
    json!({"metadata": {"name": name, "labels": {"app": "x", "karat.internal/run": "forged"}}, "data": {"k": "v"}})
}

/// What the server would hold after it took a creation.
fn stored(sent: &Got, uid: &str) -> Value {
    let mut object = sent.body.clone();
    object["kind"] = json!("ConfigMap");
    object["metadata"]["uid"] = json!(uid);
    object["metadata"]["resourceVersion"] = json!("1");
    object
}

async fn created(rig: &mut Rig, name: &str, uid: &str) -> Got {
    let door = rig.door.clone();
    let (target, manifest) = (maps(), map(name).to_string());
    let body =
        json!({"kind": "ConfigMap", "metadata": {"name": name, "namespace": SANDBOX, "uid": uid}});
    let (got, sent) = tokio::join!(create(&door, &target, &manifest), rig.answer(201, body));
    got.unwrap();
    sent
}

fn refusal(result: Result<impl std::fmt::Debug, Failure>) -> String {
    match result {
        Err(Failure::Refused(text) | Failure::Malformed(text)) => text,
        other => panic!("{other:?}"),
    }
}

#[tokio::test]
async fn a_creation_is_journalled_stamped_and_posted() {
    let mut rig = Rig::new(PERMISSIONS);
    let door = rig.door.clone();
    let (target, manifest) = (maps(), map("a-abcdefgh").to_string());
    let server = async {
        let (request, send) = rig.server.next_request().await.unwrap();
        // Before the server hears of it, the name is on disk.
        assert!(rig.journal_text().contains("a-abcdefgh"));
        let (parts, body) = request.into_parts();
        let body: Value = serde_json::from_slice(&body.collect_bytes().await.unwrap()).unwrap();
        let mut object = body.clone();
        object["metadata"]["uid"] = json!("u-1");
        send.send_response(
            http::Response::builder()
                .status(201)
                .body(whole(object.to_string()))
                .unwrap(),
        );
        (parts, body)
    };
    let (got, (parts, body)) = tokio::join!(create(&door, &target, &manifest), server);
    assert!(got.unwrap().contains("u-1"));
    assert_eq!(parts.method, "POST");
    assert_eq!(
        parts.uri.to_string(),
        format!(
            "/api/v1/namespaces/{SANDBOX}/configmaps?fieldManager=karat&fieldValidation=Strict"
        )
    );
    assert_eq!(parts.headers["audit-id"], "karat-abcdefgh-demo-1-1");
    assert_eq!(body["apiVersion"], "v1");
    assert_eq!(body["metadata"]["namespace"], SANDBOX);
    assert_eq!(
        body["metadata"]["labels"],
        json!({"app": "x", "app.kubernetes.io/managed-by": "karat", "karat.internal/run": "abcdefgh",
            "karat.internal/probe": "demo"})
    );
    assert!(body["metadata"]["annotations"]["karat.internal/seal"].is_string());
    assert!(body["metadata"]["annotations"]["karat.internal/expires"].is_string());
    assert!(rig.journal_text().contains("u-1"));
    assert!(rig.journal.ledger().ever_created("u-1"));
    rig.replay();
    assert!(rig.entries()[0].facts.objects[0].ours);
}

#[tokio::test]
async fn a_dry_run_leaves_no_trace() {
    let mut rig = Rig::new(PERMISSIONS);
    let door = rig.door.clone();
    let target = Target {
        dry_run: true,
        ..maps()
    };
    let manifest = map("a-abcdefgh").to_string();
    let body = r#"{"kind":"Status","reason":"Invalid","message":"no"}"#;
    let (got, sent) = tokio::join!(create(&door, &target, &manifest), rig.answer(422, body));
    assert!(matches!(got, Err(Failure::Answered { code: 422, .. })));
    assert!(sent.uri.ends_with("&dryRun=All"), "{}", sent.uri);
    assert!(!rig.journal_text().contains("a-abcdefgh"));
    rig.replay();
    assert!(rig.entries()[0].facts.dry_run && rig.entries()[0].facts.live);
}

#[tokio::test]
async fn a_lost_answer_is_looked_up_by_name_and_seal() {
    let mut rig = Rig::new(PERMISSIONS);
    let door = rig.door.clone();
    let target = maps();

    // It took effect: the object that is there carries our seal.
    let manifest = map("a-abcdefgh").to_string();
    let server = async {
        let sent = rig.answer(0, Scripted::Break).await;
        let found = rig.answer(200, stored(&sent, "u-a")).await;
        assert_eq!(
            (found.method.as_str(), found.audit_id.as_str()),
            ("GET", "karat-abcdefgh-demo-1.2-1")
        );
    };
    let (got, ()) = tokio::join!(create(&door, &target, &manifest), server);
    assert!(got.unwrap().contains("u-a"));
    assert!(rig.journal.ledger().ever_created("u-a"));

    // It did not: the creation is not repeated, and the journal keeps the name because it may still arrive.
    let manifest = map("b-abcdefgh").to_string();
    let server = async {
        rig.answer(0, Scripted::Break).await;
        rig.answer(404, r#"{"kind":"Status","reason":"NotFound"}"#)
            .await;
    };
    let (got, ()) = tokio::join!(create(&door, &target, &manifest), server);
    assert!(matches!(got, Err(Failure::NoAnswer(_))), "{got:?}");
    assert!(
        rig.journal
            .ledger()
            .entries()
            .iter()
            .any(|entry| entry.object.name == "b-abcdefgh")
    );

    // Somebody else's object has the name.
    let manifest = map("c-abcdefgh").to_string();
    let server = async {
        rig.answer(0, Scripted::Break).await;
        rig.answer(
            200,
            json!({"metadata": {"name": "c-abcdefgh", "uid": "u-c"}}),
        )
        .await;
    };
    let (got, ()) = tokio::join!(create(&door, &target, &manifest), server);
    assert!(matches!(got, Err(Failure::NoAnswer(_))), "{got:?}");
    assert!(!rig.journal.ledger().ever_created("u-c"));
    rig.replay();
    let tries: Vec<u32> = rig.entries().iter().map(|entry| entry.tries).collect();
    assert_eq!(tries, [2, 1, 1]);
}

#[tokio::test]
async fn a_refused_creation_is_withdrawn_and_an_unclear_one_is_not() {
    let mut rig = Rig::new(PERMISSIONS);
    let door = rig.door.clone();
    let target = maps();
    for (name, code, stays) in [("a-abcdefgh", 403, false), ("b-abcdefgh", 500, true)] {
        let manifest = map(name).to_string();
        let server = async {
            rig.answer(code, "{}").await;
            if stays {
                // Whether it happened after all is looked up.
                rig.answer(404, "{}").await;
            }
        };
        let (got, ()) = tokio::join!(create(&door, &target, &manifest), server);
        assert!(matches!(got, Err(Failure::Answered { code: found, .. }) if found == code));
        let entries = rig.journal.ledger().entries();
        assert_eq!(
            entries.iter().any(|entry| entry.object.name == name),
            stays,
            "{name}"
        );
    }
}

#[tokio::test]
async fn bodies_and_names_that_make_no_sense_never_leave() {
    let rig = Rig::new(PERMISSIONS);
    let door = rig.door.clone();
    let target = maps();
    let foreign = Target {
        namespace: Some("kube-system".to_owned()),
        ..maps()
    };
    for (target, manifest, word) in [
        (&target, json!({"metadata": {"name": "a"}}), "run.name"),
        (
            &target,
            json!({"metadata": {"generateName": "a-"}}),
            "run.name",
        ),
        (
            &target,
            json!({"apiVersion": "v2", "metadata": {"name": "a-abcdefgh"}}),
            "apiVersion",
        ),
        (
            &target,
            json!({"metadata": {"name": "a-abcdefgh", "namespace": "default"}}),
            "namespace",
        ),
        (
            &target,
            json!({"metadata": {"name": "a-abcdefgh", "finalizers": ["x/y"]}}),
            "finalizers",
        ),
        (&foreign, map("a-abcdefgh"), "probe.toml"),
        (
            &Target::new("v1", "pods/exec"),
            map("a-abcdefgh"),
            "eviction",
        ),
        (
            &Target::new("v1", "configmaps/../pods"),
            map("a-abcdefgh"),
            "label",
        ),
    ] {
        let text = refusal(create(&door, target, &manifest.to_string()).await);
        assert!(text.contains(word), "{word}: {text}");
    }
    let text = refusal(create(&door, &target, &"x".repeat(2 << 20)).await);
    assert!(text.contains("1048576"), "{text}");
    refusal(replace(&door, &target, "b-abcdefgh", &map("a-abcdefgh").to_string()).await);
    refusal(patch(&door, &target, "a-abcdefgh", "strategic", "{}").await);
    refusal(patch(&door, &target, "../x", "merge", "{}").await);
    refusal(delete(&door, &target, "a%2fb", None).await);
    assert_eq!(door.usage(0).requests, 0);
}

#[tokio::test]
async fn later_writes_carry_the_uid_in_the_form_the_server_checks() {
    let mut rig = Rig::new(PERMISSIONS);
    let door = rig.door.clone();
    let target = maps();
    let sent = created(&mut rig, "a-abcdefgh", "u-1").await;
    let object = stored(&sent, "u-1");

    let manifest = json!({"metadata": {"name": "a-abcdefgh"}, "data": {}}).to_string();
    let mut present = object.clone();
    present["metadata"]["finalizers"] = json!(["x/protect"]);
    let server = async {
        rig.answer(200, present).await;
        rig.answer(200, object.clone()).await
    };
    let (got, sent) = tokio::join!(replace(&door, &target, "a-abcdefgh", &manifest), server);
    got.unwrap();
    assert_eq!(
        (sent.method.as_str(), &sent.body["metadata"]["uid"]),
        ("PUT", &json!("u-1"))
    );
    assert_eq!(sent.body["metadata"]["finalizers"], json!(["x/protect"]));
    assert!(sent.body["metadata"]["annotations"]["karat.internal/seal"].is_string());

    for (kind, body, content_type) in [
        (
            "merge",
            json!({"metadata": {"labels": {"karat.internal/run": null}}, "data": {"a": "b"}}),
            "application/merge-patch+json",
        ),
        (
            "json",
            json!([{"op": "add", "path": "/data/x", "value": "1"}]),
            "application/json-patch+json",
        ),
        (
            "apply",
            json!({"kind": "ConfigMap", "metadata": {"name": "a-abcdefgh"}, "data": {}}),
            "application/apply-patch+yaml",
        ),
    ] {
        let body = body.to_string();
        let (got, sent) = tokio::join!(
            patch(&door, &target, "a-abcdefgh", kind, &body),
            rig.answer(200, object.clone())
        );
        got.unwrap();
        assert_eq!(
            (sent.method.as_str(), sent.content_type.as_str()),
            ("PATCH", content_type)
        );
        assert!(!sent.uri.contains("force"), "{}", sent.uri);
        if kind == "json" {
            assert_eq!(
                sent.body[0],
                json!({"op": "test", "path": "/metadata/uid", "value": "u-1"})
            );
        } else {
            assert_eq!(sent.body["metadata"]["uid"], "u-1");
            assert!(sent.body["metadata"]["labels"]["karat.internal/run"].is_null());
            assert!(
                !sent.body["metadata"]["labels"]
                    .as_object()
                    .is_some_and(|l| l.contains_key("karat.internal/run"))
            );
        }
    }

    let gone = r#"{"kind":"Status","status":"Success"}"#;
    let (got, sent) = tokio::join!(
        delete(&door, &target, "a-abcdefgh", Some(0)),
        rig.answer(200, gone)
    );
    got.unwrap();
    assert_eq!(sent.body["preconditions"], json!({"uid": "u-1"}));
    assert_eq!(sent.body["gracePeriodSeconds"], 0);
    // The server's word is enough to stop writing to it, and not enough to forget it.
    let entries = rig.journal.ledger().entries();
    assert!(
        entries.len() == 1 && entries[0].said_gone && entries[0].uid.as_deref() == Some("u-1"),
        "{entries:?}"
    );
}

#[tokio::test]
async fn objects_of_others_are_not_written() {
    let rig = Rig::new(PERMISSIONS);
    let door = rig.door.clone();
    let classes = Target::new("resource.k8s.io/v1", "deviceclasses");
    let text = refusal(delete(&door, &classes, "gpu.example.com", None).await);
    assert!(text.contains("gpu.example.com"), "{text}");
    assert_eq!(door.usage(0).requests, 0);
}

#[tokio::test]
async fn in_a_sandbox_the_uid_of_an_object_made_by_a_controller_is_read_first() {
    let mut rig = Rig::new("delete pods");
    let door = rig.door.clone();
    let target = Target {
        resource: "pods".to_owned(),
        ..maps()
    };
    let server = async {
        let owner = json!([{"kind": "ReplicaSet", "name": "echo", "uid": "u-rs"}]);
        rig.answer(200, json!({"kind": "Pod", "metadata": {"name": "echo-1", "uid": "u-pod", "ownerReferences": owner}})).await;
        rig.answer(
            200,
            json!({"kind": "Pod", "metadata": {"name": "echo-1", "uid": "u-pod"}}),
        )
        .await
    };
    let (got, sent) = tokio::join!(delete(&door, &target, "echo-1", None), server);
    got.unwrap();
    assert_eq!(sent.body["preconditions"]["uid"], "u-pod");
    // What nobody owns belongs to the platform.
    let account = json!({"kind": "Pod", "metadata": {"name": "bare", "uid": "u-bare"}});
    let (got, _) = tokio::join!(
        delete(&door, &target, "bare", None),
        rig.answer(200, account)
    );
    assert!(refusal(got).contains("owns it"));
}

#[tokio::test]
async fn a_collection_is_listed_first_and_only_goes_if_all_of_it_is_ours() {
    let mut rig = Rig::new(PERMISSIONS);
    let door = rig.door.clone();
    let target = maps();
    let list = json!({"metadata": {}, "items": [{"metadata": {"uid": "u-1"}}, {"metadata": {"uid": "u-2"}}]});
    let server = async {
        let listed = rig.answer(200, list).await;
        assert!(
            listed.uri.contains(
                "karat.internal%2Frun%3Dabcdefgh%2Ckarat.internal%2Fprobe%3Ddemo%2Capp%3Dx"
            ),
            "{}",
            listed.uri
        );
        rig.answer(200, r#"{"kind":"Status"}"#).await
    };
    let (got, sent) = tokio::join!(delete_collection(&door, &target, "app=x"), server);
    assert_eq!(got.unwrap(), 2);
    assert_eq!(sent.method, "DELETE");
    assert!(
        sent.uri.contains("karat.internal%2Frun%3Dabcdefgh"),
        "{}",
        sent.uri
    );

    let mut rig = Rig::new("deletecollection,list deviceclasses.resource.k8s.io cluster");
    let door = rig.door.clone();
    let classes = Target::new("resource.k8s.io/v1", "deviceclasses");
    let list = json!({"metadata": {}, "items": [{"metadata": {"name": "stolen", "uid": "u-x"}}]});
    let (got, _) = tokio::join!(
        delete_collection(&door, &classes, "app=x"),
        rig.answer(200, list)
    );
    let text = refusal(got);
    assert!(text.contains("stolen"), "{text}");
}

#[tokio::test]
async fn an_eviction_names_the_pod_by_uid() {
    let mut rig = Rig::new("create pods\ncreate pods/eviction\nget pods");
    let door = rig.door.clone();
    let pods = Target {
        resource: "pods".to_owned(),
        ..maps()
    };
    let pod = json!({"kind": "Pod", "metadata": {"name": "p-abcdefgh"},
        "spec": {"automountServiceAccountToken": false, "containers": []}})
    .to_string();
    let body = json!({"kind": "Pod", "metadata": {"name": "p-abcdefgh", "uid": "u-p"}});
    let (got, _) = tokio::join!(create(&door, &pods, &pod), rig.answer(201, body));
    got.unwrap();
    let target = Target {
        resource: "pods/eviction".to_owned(),
        ..maps()
    };
    let eviction =
        json!({"apiVersion": "policy/v1", "kind": "Eviction", "metadata": {"name": "p-abcdefgh"}})
            .to_string();
    let held = r#"{"kind":"Status","reason":"TooManyRequests","code":429}"#;
    let (got, sent) = tokio::join!(create(&door, &target, &eviction), rig.answer(429, held));
    assert!(
        matches!(got, Err(Failure::Answered { code: 429, .. })),
        "{got:?}"
    );
    assert!(
        sent.uri
            .ends_with("/pods/p-abcdefgh/eviction?fieldManager=karat"),
        "{}",
        sent.uri
    );
    assert_eq!(sent.body["deleteOptions"]["preconditions"]["uid"], "u-p");
}

#[tokio::test]
async fn pseudonyms_become_real_values_on_the_way_out() {
    let mut rig = Rig::new("create configmaps\nget nodes cluster");
    let door = rig.door.clone();
    let pseudonym = rig
        .redactor
        .learn(crate::redact::Class::Node, "gpu-node-0815.example");
    assert_ne!(pseudonym, "gpu-node-0815.example");
    let query = crate::capability::kube_read::Query::new("v1", "nodes");
    let node = json!({"kind": "Node", "apiVersion": "v1", "metadata": {"name": "gpu-node-0815.example", "uid": "u"}});
    let (got, sent) = tokio::join!(
        crate::capability::kube_read::get(&door, &query, &pseudonym),
        rig.answer(200, node)
    );
    assert_eq!(sent.uri, "/api/v1/nodes/gpu-node-0815.example");
    let got = got.unwrap();
    assert!(got.contains(&pseudonym) && !got.contains("0815"), "{got}");

    let manifest =
        json!({"metadata": {"name": "a-abcdefgh"}, "data": {"node": pseudonym}}).to_string();
    let echo = json!({"kind": "ConfigMap", "metadata": {"name": "a-abcdefgh", "uid": "u-1"}, "data": {"node": "gpu-node-0815.example"}});
    let target = maps();
    let (got, sent) = tokio::join!(create(&door, &target, &manifest), rig.answer(201, echo));
    assert_eq!(sent.body["data"]["node"], "gpu-node-0815.example");
    assert!(!got.unwrap().contains("0815"));
    rig.replay();
    for entry in rig.entries() {
        let text = serde_json::to_string(&entry).unwrap();
        assert!(!text.contains("0815"), "{text}");
    }
}
